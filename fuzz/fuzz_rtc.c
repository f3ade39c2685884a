/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Sequences of register accesses, time that passes or is stepped, ticks, saves and restores of good
 * and of broken states. Properties: the count is the caller's clock plus what the guest set; an
 * alarm is raised by the time that passed the match, and by nothing else; the line is IMSC and RIS;
 * wake is asked for exactly what would raise the line; accesses that are no register's do nothing;
 * save, restore, save gives the same record; a restored wreck does not crash, and is refused or
 * valid.
 */
#include "tn_rtc.h"

#include "fuzz.h"

struct rig {
    struct tn_rtc rtc;
    uint64_t now;
    uint64_t then; /* now at the last evaluation */
    bool forward;  /* the clock was not stepped back since match or load were written */
    bool line;
    uint64_t wake;
};

static uint64_t on_now(void *ctx)
{
    return ((struct rig *)ctx)->now;
}

static void on_irq(void *ctx, bool level)
{
    struct rig *r = ctx;

    FZ_ASSERT(level != r->line);
    r->line = level;
}

static void on_wake(void *ctx, uint64_t seconds)
{
    ((struct rig *)ctx)->wake = seconds;
}

static uint64_t clipped(uint64_t now)
{
    return now < TN_RTC_TIME_MAX ? now : TN_RTC_TIME_MAX;
}

static void check(struct rig *r)
{
    const struct tn_rtc_state *s = &r->rtc.state;

    FZ_ASSERT(tn_rtc_valid_(s));
    FZ_ASSERT(s->alarm > clipped(r->now));
    FZ_ASSERT(r->line == (s->imsc && s->ris) && r->line == r->rtc.level);
    FZ_ASSERT(r->wake == (s->imsc && !s->ris ? s->alarm : TN_RTC_NEVER));
    r->then = r->now;
}

/* What RIS becomes when time has come to now. */
static unsigned passed(const struct rig *r, const struct tn_rtc_state *before)
{
    uint64_t then = clipped(r->then), now = clipped(r->now);
    uint32_t left = before->match - (uint32_t)(then + before->offset);

    if (before->ris || now < then)
        return before->ris;
    return now - then >= (left ? left : 1ull << 32);
}

static void read_register(struct rig *r, uint64_t off, unsigned width)
{
    struct tn_rtc_state before = r->rtc.state, *s = &r->rtc.state;
    uint64_t value = tn_rtc_read(&r->rtc, off, width);

    if (width != 4) {
        FZ_ASSERT(value == 0 && memcmp(&before, s, sizeof(before)) == 0);
        tn_rtc_tick(&r->rtc); /* time has passed all the same */
    }
    FZ_ASSERT(!r->forward || s->ris == passed(r, &before));
    FZ_ASSERT(s->match == before.match && s->load == before.load && s->offset == before.offset &&
              s->imsc == before.imsc);
    if (width != 4)
        return;
    FZ_ASSERT(value <= UINT32_MAX);
    if (off == TN_RTC_DR)
        FZ_ASSERT(value == (uint32_t)(clipped(r->now) + s->offset));
    else if (off == TN_RTC_MR || off == TN_RTC_LR)
        FZ_ASSERT(value == (off == TN_RTC_MR ? s->match : s->load));
    else if (off >= TN_RTC_CR && off <= TN_RTC_MIS && off % 4 == 0)
        FZ_ASSERT(value <= 1);
    else if (off < TN_RTC_ID || off >= TN_RTC_SIZE || off % 4 != 0)
        FZ_ASSERT(value == 0);
    else
        FZ_ASSERT(value <= 0xff);
}

static void write_register(struct rig *r, uint64_t off, unsigned width, uint64_t value)
{
    struct tn_rtc_state before, *s = &r->rtc.state;
    bool known = off == TN_RTC_MR || off == TN_RTC_LR || off == TN_RTC_IMSC || off == TN_RTC_ICR;

    tn_rtc_tick(&r->rtc);
    before = *s;
    tn_rtc_write(&r->rtc, off, width, value);
    if (width != 4 || !known) {
        FZ_ASSERT(memcmp(&before, s, sizeof(before)) == 0);
        return;
    }
    if (off == TN_RTC_MR || off == TN_RTC_LR) {
        uint32_t count = (uint32_t)clipped(r->now) + s->offset;

        r->forward = true;
        FZ_ASSERT((off == TN_RTC_MR ? s->match : s->load) == (uint32_t)value);
        FZ_ASSERT(off == TN_RTC_MR || count == (uint32_t)value);
        FZ_ASSERT(s->ris == (before.ris || count == s->match));
        FZ_ASSERT(s->alarm - clipped(r->now) <= 1ull << 32);
    } else if (off == TN_RTC_IMSC) {
        FZ_ASSERT(s->imsc == (value & 1) && s->ris == before.ris);
    } else {
        FZ_ASSERT(s->ris == (value & 1 ? 0 : before.ris) && s->imsc == before.imsc);
    }
}

static void step(struct rig *r, uint64_t now)
{
    if (clipped(now) < clipped(r->now))
        r->forward = false;
    r->now = now;
}

static void save_restore(struct rig *r)
{
    struct tn_rtc_cfg cfg = r->rtc.cfg;
    struct tn_rtc_state a, b;
    struct rig other;

    memset(&other, 0, sizeof(other));
    other.now = r->now;
    other.wake = TN_RTC_NEVER;
    cfg.ctx = &other;
    tn_rtc_save(&r->rtc, &a);
    FZ_ASSERT(tn_rtc_init(&other.rtc, &cfg) == 0);
    FZ_ASSERT(tn_rtc_restore(&other.rtc, &a) == 0);
    check(&other);
    tn_rtc_save(&other.rtc, &b);
    if (a.alarm > clipped(r->now)) /* else it is raised as it is restored */
        FZ_ASSERT(memcmp(&a, &b, sizeof(a)) == 0);
    else
        FZ_ASSERT(b.ris == 1 && b.match == a.match && b.offset == a.offset);
}

static void restore(struct rig *r, const struct tn_rtc_state *from)
{
    struct tn_rtc_state before = r->rtc.state, *s = &r->rtc.state;

    if (tn_rtc_restore(&r->rtc, from) < 0) {
        FZ_ASSERT(memcmp(s, &before, sizeof(before)) == 0);
        tn_rtc_tick(&r->rtc);
        return;
    }
    r->forward = false; /* its alarm may be any */
    FZ_ASSERT(s->match == from->match && s->load == from->load && s->offset == from->offset);
    FZ_ASSERT(s->imsc == from->imsc && s->ris == (from->ris || from->alarm <= clipped(r->now)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tn_rtc_state state;
    struct rig r;
    struct fz z;
    struct tn_rtc_cfg cfg = {&r, on_now, on_irq, on_wake};
    uint64_t value;

    fz_init(&z, data, size);
    memset(&r, 0, sizeof(r));
    r.now = 1800000000;
    r.then = r.now;
    r.wake = TN_RTC_NEVER;
    r.forward = true;
    FZ_ASSERT(tn_rtc_init(&r.rtc, &cfg) == 0);
    for (unsigned op = 0; op < 4096 && z.left > 0; op++) {
        uint8_t what = fz_u8(&z);

        switch (what >> 4) {
        case 0:
        case 1:
            read_register(&r, (what & 15u) * 4, 4);
            break;
        case 2:
            value = fz_u16(&z);
            read_register(&r, value, what & 15);
            break;
        case 3:
            read_register(&r, TN_RTC_ID + (what & 7u) * 4, 4);
            break;
        case 4:
        case 5:
        case 6:
            write_register(&r, (what & 15u) * 4, 4, fz_u32(&z));
            break;
        case 7: /* an alarm or a count that is near */
            write_register(&r, what & 8 ? TN_RTC_MR : TN_RTC_LR, 4,
                           r.now + r.rtc.state.offset + fz_u8(&z) - (what & 7u));
            break;
        case 8:
            value = fz_u64(&z);
            write_register(&r, fz_u64(&z), what & 15, value);
            break;
        case 9:
            step(&r, r.now + (what & 15u));
            tn_rtc_tick(&r.rtc);
            break;
        case 10:
            step(&r, r.now + fz_u32(&z));
            read_register(&r, (what & 7u) * 4, 4);
            break;
        case 11:
            step(&r, what & 1 ? fz_u64(&z) : r.now - fz_u16(&z));
            tn_rtc_tick(&r.rtc);
            break;
        case 12:
            if (what & 1) {
                tn_rtc_reset(&r.rtc);
                r.forward = true;
            } else {
                tn_rtc_tick(&r.rtc);
                save_restore(&r);
            }
            break;
        case 13:
        case 14:
            tn_rtc_save(&r.rtc, &state);
            fz_spoil(&z, &state, sizeof(state), 1 + (what & 3u));
            if (what & 4) /* what the guest could have */
                state.match = (uint32_t)(state.alarm + state.offset);
            restore(&r, &state);
            break;
        default:
            memset(&state, 0, sizeof(state));
            fz_bytes(&z, &state, 26);
            if (what & 1) {
                state.version = TN_RTC_VERSION;
                state.match = (uint32_t)(state.alarm + state.offset);
                state.imsc &= 1;
                state.ris &= 1;
            }
            restore(&r, &state);
            break;
        }
        check(&r);
    }
    return 0;
}
