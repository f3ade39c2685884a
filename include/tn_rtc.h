/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_rtc - a PrimeCell PL031 real-time clock: the time of day, and one alarm.
 *
 * WHAT
 *   The registers of the clock that arm64 machines have, as Linux's rtc-pl031 driver and the AMBA
 *   bus expect them. It counts seconds since 1970 in 32 bits, from a clock of the caller's; the
 *   guest may set it, and have an interrupt at a second that it chooses.
 *
 * USAGE
 *   static uint64_t now(void *ctx)
 *   {
 *       return *(const uint64_t *)ctx;
 *   }
 *   static void line(void *ctx, bool level)
 *   {
 *       (void)ctx;
 *       (void)level;
 *   }
 *   ---
 *   uint64_t clock = 1800000000;
 *   struct tn_rtc_cfg cfg = {&clock, now, line, NULL};
 *   struct tn_rtc rtc;
 *
 *   if (tn_rtc_init(&rtc, &cfg) < 0)
 *       return 1;
 *   tn_rtc_write(&rtc, TN_RTC_MR, 4, clock + 60);
 *   tn_rtc_write(&rtc, TN_RTC_IMSC, 4, TN_RTC_INTR);
 *   clock += 60;
 *   tn_rtc_tick(&rtc); // the line is high now
 *   if (!(tn_rtc_read(&rtc, TN_RTC_MIS, 4) & TN_RTC_INTR))
 *       return 1;
 *   tn_rtc_write(&rtc, TN_RTC_ICR, 4, TN_RTC_INTR);
 *
 * COMPOSITION
 *   A bus handler passes accesses to TN_RTC_SIZE bytes on, the offset within them. wake asks for
 *   one call of tn_rtc_tick at a second to come; the caller has a timer for it (tn_loop). Without
 *   wake nothing happens between accesses, and tn_rtc_tick is to be called once a second if alarms
 *   matter. No callback may call anything here.
 *
 * GUEST TRUST
 *   Offsets, widths and values may be the guest's, unchecked; a saved state may be a hostile
 *   file's. An access costs at most one call of each callback.
 *
 * MEMORY
 *   struct tn_rtc is all there is; it may be copied and moved between calls.
 *
 * THREADS
 *   One call at a time on one struct; the caller has the lock. Callbacks run inside the call.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   ARM PrimeCell Real Time Clock (PL031) Technical Reference Manual, ARM DDI 0224, chapter 3
 *   (registers) and section 2.3 (counter, match, interrupt).
 *
 * LIMITS
 *   The clock runs from the start, as firmware leaves it, and cannot be stopped: RTCCR reads 1. No
 *   integration test registers, no trickle-charge registers. Accesses are of 32 bits, aligned:
 *   others read 0 and ignore what is written. What the guest sees is the caller's clock plus what
 *   it set itself, so a step of the caller's clock is one of the guest's; an alarm that such a step
 *   passes is raised, and one that was raised is not raised again when the clock is stepped back.
 *   After 2106 the count starts again from 0, as the hardware's does.
 */
#ifndef TN_RTC_H
#define TN_RTC_H

/* -- tenon common block: the same bytes in every header (make check-common) -- */
/* clang-format off */
#ifndef TN_COMMON
#define TN_COMMON
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#if !defined(TN_API) && defined(TN_DECL_ONLY)
#define TN_API extern
#elif !defined(TN_API)
#define TN_API static inline
#endif
enum tn_err { TN_OK = 0, /* or a useful positive value; tn_strerror.h has a sentence for each */
    /* the caller's fault */ TN_EINVAL = -1, TN_ENOSPC = -2, TN_ESTATE = -3, TN_EEXIST = -4,
    /* the guest's, or a file's */ TN_EADDR = -32, TN_EFORMAT = -33, TN_ETRUNC = -34,
    TN_ERANGE = -35, TN_EOVERLAP = -36, TN_EMACHINE = -37, TN_EENTRY = -38, TN_ENOFIT = -39,
    TN_EUNSUP = -40, TN_EPROTO = -41, /* the environment's; errno tells */ TN_ESYS = -64,
    TN_EAGAIN = -65, TN_ENODEV = -66, /* ours */ TN_EBUG = -96 };
struct tn_iov { uint8_t *base; size_t len; }; /* memory in this process; as struct iovec */
/*@ requires n <= 8 && \valid_read(p + (0 .. n - 1)); assigns \nothing; */
static inline uint64_t tn_get_(const volatile uint8_t *p, unsigned n) /* little-endian load */
{
    uint64_t v = 0;
    /*@ loop invariant n <= \at(n, Pre); loop assigns n, v; loop variant n; */
    while (n > 0) v = v << 8 | p[--n];
    return v;
}
/*@ requires n <= 8 && \valid(p + (0 .. n - 1)); assigns p[0 .. n - 1]; */
static inline void tn_put_(uint8_t *p, unsigned n, uint64_t v) /* little-endian store */
{
    /*@ loop invariant i <= n; loop assigns i, p[0 .. n - 1]; loop variant n - i; */
    for (unsigned i = 0; i < n; i++) p[i] = (uint8_t)(v >> 8 * i);
}
#endif /* TN_COMMON */
/* clang-format on */

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

/* Register offsets (table 3-1). */
#define TN_RTC_DR   0x000 /* data: the count, read */
#define TN_RTC_MR   0x004 /* match */
#define TN_RTC_LR   0x008 /* load: sets the count */
#define TN_RTC_CR   0x00c /* control: bit 0, started */
#define TN_RTC_IMSC 0x010 /* interrupt mask: the line follows RIS where it is set */
#define TN_RTC_RIS  0x014 /* raw interrupt status, read */
#define TN_RTC_MIS  0x018 /* masked interrupt status, read */
#define TN_RTC_ICR  0x01c /* interrupt clear, write */
#define TN_RTC_ID   0xfe0 /* RTCPeriphID0-3 and RTCPCellID0-3, a byte in each word, read */

#define TN_RTC_INTR 0x01 /* the one bit of IMSC, RIS, MIS and ICR */

#define TN_RTC_SIZE     0x1000                /* bytes of guest physical space */
#define TN_RTC_TIME_MAX (1ull << 62)          /* a later now is taken for this */
#define TN_RTC_NEVER    0xffffffffffffffffull /* what wake is told when no alarm is to come */
#define TN_RTC_VERSION  1                     /* of struct tn_rtc_state */

struct tn_rtc_cfg {
    void *ctx;
    /* Seconds since 1970-01-01 00:00:00 UTC. */
    uint64_t (*now)(void *ctx);
    /* The interrupt line; called when the level changes. It is low at first. */
    void (*irq)(void *ctx, bool level);
    /* Call tn_rtc_tick when now is `seconds` or later, once; replaces what was asked before.
     * TN_RTC_NEVER: don't. May be NULL. */
    void (*wake)(void *ctx, uint64_t seconds);
};

/* Every register. The count is what now says, plus offset, modulo 2^32. */
struct tn_rtc_state {
    uint32_t version; /* TN_RTC_VERSION */
    uint32_t match;   /* MR */
    uint32_t load;    /* LR, as it was written */
    uint32_t offset;
    uint64_t alarm; /* the next second of now's at which the count is match */
    uint8_t imsc;   /* 0 or 1 */
    uint8_t ris;    /* 0 or 1 */
    uint8_t zero[6];
};

struct tn_rtc {
    struct tn_rtc_cfg cfg;
    struct tn_rtc_state state;
    uint64_t wake; /* what cfg.wake was last told */
    bool level;    /* what cfg.irq was last told */
};

/*@ logic integer tn_rtc_count(integer now, integer offset) = (now + offset) % 0x100000000;
    predicate tn_rtc_ok(struct tn_rtc_state *s) =
      s->version == TN_RTC_VERSION && s->alarm <= 2 * TN_RTC_TIME_MAX &&
      tn_rtc_count(s->alarm, s->offset) == s->match && s->imsc <= 1 && s->ris <= 1 &&
      s->zero[0] == 0 && s->zero[1] == 0 && s->zero[2] == 0 && s->zero[3] == 0 &&
      s->zero[4] == 0 && s->zero[5] == 0;
*/

/*
 * Starts a clock in its reset state: it shows what now says, without an alarm, the line low.
 * Returns 0; TN_EINVAL when now or irq is missing.
 */
TN_API int tn_rtc_init(struct tn_rtc *rtc, const struct tn_rtc_cfg *cfg);

/*
 * Back to that state: what the guest set is gone.
 */
TN_API void tn_rtc_reset(struct tn_rtc *rtc);

/*
 * The guest reads or writes width bytes at offset off. What is no aligned 32-bit access of a
 * register reads 0 and ignores what is written; of value the low 32 bits count.
 */
TN_API uint64_t tn_rtc_read(struct tn_rtc *rtc, uint64_t off, unsigned width);
TN_API void tn_rtc_write(struct tn_rtc *rtc, uint64_t off, unsigned width, uint64_t value);

/*
 * Raises the alarm if its second has come; else asks wake again for an alarm to come, so that a
 * timer which fires early, or of which a step of the clock makes nonsense, is set right. More often
 * than asked for does no harm.
 */
TN_API void tn_rtc_tick(struct tn_rtc *rtc);

/*
 * Copies the state out.
 */
/*@ requires \valid_read(rtc) && \valid(out) && \separated(rtc, out);
    assigns *out;
    ensures *out == rtc->state; */
TN_API void tn_rtc_save(const struct tn_rtc *rtc, struct tn_rtc_state *out);

/*
 * Takes a saved state over, sets the line to its level and asks wake for its alarm; time has gone
 * on meanwhile, and an alarm whose second has passed is raised. Returns 0; TN_EUNSUP for another
 * version, TN_EFORMAT for a state that no guest can reach (rtc is unchanged).
 */
TN_API int tn_rtc_restore(struct tn_rtc *rtc, const struct tn_rtc_state *from);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* All below that works on a struct tn_rtc_state calls nobody; the callbacks are at the end. Counts
 * are modulo 2^32. */
#define TN_RTC_MOD_ 0x100000000ull

/*@ requires now <= 2 * TN_RTC_TIME_MAX;
    assigns \nothing;
    ensures \result == tn_rtc_count(now, offset); */
static inline uint32_t tn_rtc_count_(uint64_t now, uint32_t offset)
{
    return (uint32_t)((now + offset) % TN_RTC_MOD_);
}

/* How many seconds after count `from` the count is `to`: 0 when it is. */
/*@ assigns \nothing;
    ensures (from + \result) % 0x100000000 == to; */
static inline uint32_t tn_rtc_until_(uint32_t from, uint32_t to)
{
    return to >= from ? to - from : (uint32_t)(TN_RTC_MOD_ - from + to);
}

/* Whether every field is one that a guest's accesses can lead to. */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result != 0 <==> tn_rtc_ok((struct tn_rtc_state *)s); */
static inline bool tn_rtc_valid_(const struct tn_rtc_state *s)
{
    if (s->version != TN_RTC_VERSION || s->alarm > 2 * TN_RTC_TIME_MAX || s->imsc > 1 || s->ris > 1)
        return false;
    if (tn_rtc_count_(s->alarm, s->offset) != s->match)
        return false;
    return s->zero[0] == 0 && s->zero[1] == 0 && s->zero[2] == 0 && s->zero[3] == 0 &&
           s->zero[4] == 0 && s->zero[5] == 0;
}

/* Finds the next second after now at which the count is match. */
/*@ requires \valid(s) && now <= TN_RTC_TIME_MAX;
    assigns s->alarm;
    ensures now < s->alarm <= now + 0x100000000;
    ensures tn_rtc_count(s->alarm, s->offset) == s->match; */
static inline void tn_rtc_aim_(struct tn_rtc_state *s, uint64_t now)
{
    uint32_t left = tn_rtc_until_(tn_rtc_count_(now, s->offset), s->match);

    s->alarm = now + (left > 0 ? left : TN_RTC_MOD_);
}

/* The state that firmware leaves. */
/*@ requires \valid(s) && now <= TN_RTC_TIME_MAX;
    assigns *s;
    ensures tn_rtc_ok(s) && now < s->alarm;
    ensures s->offset == 0 && s->imsc == 0 && s->ris == 0; */
static inline void tn_rtc_clear_(struct tn_rtc_state *s, uint64_t now)
{
    s->version = TN_RTC_VERSION;
    s->match = 0;
    s->load = 0;
    s->offset = 0;
    s->imsc = 0;
    s->ris = 0;
    s->zero[0] = 0;
    s->zero[1] = 0;
    s->zero[2] = 0;
    s->zero[3] = 0;
    s->zero[4] = 0;
    s->zero[5] = 0;
    tn_rtc_aim_(s, now);
}

/* Time has come to now. */
/*@ requires \valid(s) && tn_rtc_ok(s) && now <= TN_RTC_TIME_MAX;
    assigns s->alarm, s->ris;
    ensures tn_rtc_ok(s) && now < s->alarm;
    ensures now < \old(s->alarm) ==> s->alarm == \old(s->alarm) && s->ris == \old(s->ris);
    ensures \old(s->alarm) <= now ==> s->ris == 1 && s->alarm <= now + 0x100000000; */
static inline void tn_rtc_run_(struct tn_rtc_state *s, uint64_t now)
{
    if (now < s->alarm)
        return;
    s->ris = 1;
    tn_rtc_aim_(s, now);
}

/* The count or the match register was written: they may be equal at once (section 2.3). */
/*@ requires \valid(s) && now <= TN_RTC_TIME_MAX && s->ris <= 1;
    assigns s->alarm, s->ris;
    ensures now < s->alarm <= now + 0x100000000;
    ensures tn_rtc_count(s->alarm, s->offset) == s->match;
    ensures s->ris == (tn_rtc_count(now, s->offset) == s->match ? 1 : \old(s->ris)); */
static inline void tn_rtc_match_(struct tn_rtc_state *s, uint64_t now)
{
    if (tn_rtc_count_(now, s->offset) == s->match)
        s->ris = 1;
    tn_rtc_aim_(s, now);
}

/* The interrupt line. */
/*@ requires \valid_read(s) && tn_rtc_ok((struct tn_rtc_state *)s);
    assigns \nothing;
    ensures \result != 0 <==> s->imsc == 1 && s->ris == 1; */
static inline bool tn_rtc_level_(const struct tn_rtc_state *s)
{
    return s->imsc == 1 && s->ris == 1;
}

/* When the line would rise by itself. */
/*@ requires \valid_read(s) && tn_rtc_ok((struct tn_rtc_state *)s);
    assigns \nothing;
    ensures \result == (s->imsc == 1 && s->ris == 0 ? s->alarm : TN_RTC_NEVER); */
static inline uint64_t tn_rtc_wake_(const struct tn_rtc_state *s)
{
    return s->imsc == 1 && s->ris == 0 ? s->alarm : TN_RTC_NEVER;
}

/* A register's value at now (chapter 3). */
/*@ requires \valid_read(s) && tn_rtc_ok((struct tn_rtc_state *)s) && now <= TN_RTC_TIME_MAX;
    assigns \nothing;
    ensures off == TN_RTC_DR ==> \result == tn_rtc_count(now, s->offset);
    ensures off == TN_RTC_MR ==> \result == s->match;
    ensures off == TN_RTC_LR ==> \result == s->load;
    ensures off == TN_RTC_CR ==> \result == 1;
    ensures off == TN_RTC_IMSC ==> \result == s->imsc;
    ensures off == TN_RTC_RIS ==> \result == s->ris;
    ensures off == TN_RTC_MIS ==> \result == s->imsc * s->ris;
    ensures TN_RTC_ICR <= off < TN_RTC_ID ==> \result == 0;
    ensures off >= TN_RTC_ID ==> \result <= 0xff;
    ensures off % 4 != 0 || off >= TN_RTC_SIZE ==> \result == 0; */
static inline uint32_t tn_rtc_get_(const struct tn_rtc_state *s, uint64_t now, uint64_t off)
{
    /* Part 0x031 of designer 0x41 (ARM), revision 0; then what every PrimeCell says. */
    const uint8_t id[8] = {0x31, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1};

    switch (off) {
    case TN_RTC_DR:
        return tn_rtc_count_(now, s->offset);
    case TN_RTC_MR:
        return s->match;
    case TN_RTC_LR:
        return s->load;
    case TN_RTC_CR:
        return 1;
    case TN_RTC_IMSC:
        return s->imsc;
    case TN_RTC_RIS:
        return s->ris;
    case TN_RTC_MIS:
        return tn_rtc_level_(s) ? TN_RTC_INTR : 0;
    default:
        break;
    }
    if (off < TN_RTC_ID || off >= TN_RTC_SIZE || off % 4 != 0)
        return 0;
    return id[(off - TN_RTC_ID) / 4];
}

/* A register is written at now. */
/*@ requires \valid(s) && tn_rtc_ok(s) && now <= TN_RTC_TIME_MAX && now < s->alarm;
    assigns *s;
    ensures tn_rtc_ok(s) && now < s->alarm;
    ensures off == TN_RTC_MR ==> s->match == value;
    ensures off == TN_RTC_LR ==> s->load == value && tn_rtc_count(now, s->offset) == value;
    ensures off == TN_RTC_IMSC ==> s->imsc == value % 2;
    ensures off == TN_RTC_ICR ==> s->ris == (value % 2 == 1 ? 0 : \old(s->ris));
    ensures off != TN_RTC_LR ==> s->offset == \old(s->offset) && s->load == \old(s->load);
    ensures off != TN_RTC_MR ==> s->match == \old(s->match);
    ensures off != TN_RTC_IMSC ==> s->imsc == \old(s->imsc);
    ensures off != TN_RTC_MR && off != TN_RTC_LR ==> s->alarm == \old(s->alarm);
    ensures off == TN_RTC_MR || off == TN_RTC_LR ==>
      s->ris == (tn_rtc_count(now, s->offset) == s->match ? 1 : \old(s->ris));
    ensures off != TN_RTC_MR && off != TN_RTC_LR && off != TN_RTC_ICR ==>
      s->ris == \old(s->ris); */
static inline void tn_rtc_put_(struct tn_rtc_state *s, uint64_t now, uint64_t off, uint32_t value)
{
    switch (off) {
    case TN_RTC_MR:
        s->match = value;
        tn_rtc_match_(s, now);
        break;
    case TN_RTC_LR:
        s->load = value;
        s->offset = tn_rtc_until_(tn_rtc_count_(now, 0), value);
        tn_rtc_match_(s, now);
        break;
    case TN_RTC_IMSC:
        s->imsc = value % 2u;
        break;
    case TN_RTC_ICR:
        if (value % 2u == 1)
            s->ris = 0;
        break;
    default: /* CR: started already, and cannot be stopped */
        break;
    }
}

static inline uint64_t tn_rtc_now_(const struct tn_rtc *rtc)
{
    uint64_t now = rtc->cfg.now(rtc->cfg.ctx);

    return now < TN_RTC_TIME_MAX ? now : TN_RTC_TIME_MAX;
}

/* Tells the caller of a new level and of a new alarm; of one that is still to come, if again. */
static inline void tn_rtc_tell_(struct tn_rtc *rtc, bool again)
{
    bool level = tn_rtc_level_(&rtc->state);
    uint64_t wake = tn_rtc_wake_(&rtc->state);
    bool changed = wake != rtc->wake;

    rtc->wake = wake;
    if (level != rtc->level) {
        rtc->level = level;
        rtc->cfg.irq(rtc->cfg.ctx, level);
    }
    if (rtc->cfg.wake && (changed || (again && wake != TN_RTC_NEVER)))
        rtc->cfg.wake(rtc->cfg.ctx, wake);
}

TN_API int tn_rtc_init(struct tn_rtc *rtc, const struct tn_rtc_cfg *cfg)
{
    if (!cfg->now || !cfg->irq)
        return TN_EINVAL;
    rtc->cfg = *cfg;
    tn_rtc_clear_(&rtc->state, tn_rtc_now_(rtc));
    rtc->wake = TN_RTC_NEVER;
    rtc->level = false;
    return 0;
}

TN_API void tn_rtc_reset(struct tn_rtc *rtc)
{
    tn_rtc_clear_(&rtc->state, tn_rtc_now_(rtc));
    tn_rtc_tell_(rtc, false);
}

TN_API uint64_t tn_rtc_read(struct tn_rtc *rtc, uint64_t off, unsigned width)
{
    uint64_t now;

    if (width != 4)
        return 0;
    now = tn_rtc_now_(rtc);
    tn_rtc_run_(&rtc->state, now);
    tn_rtc_tell_(rtc, false);
    return tn_rtc_get_(&rtc->state, now, off);
}

TN_API void tn_rtc_write(struct tn_rtc *rtc, uint64_t off, unsigned width, uint64_t value)
{
    uint64_t now;

    if (width != 4)
        return;
    now = tn_rtc_now_(rtc);
    tn_rtc_run_(&rtc->state, now);
    tn_rtc_put_(&rtc->state, now, off, (uint32_t)(value % TN_RTC_MOD_));
    tn_rtc_tell_(rtc, false);
}

TN_API void tn_rtc_tick(struct tn_rtc *rtc)
{
    tn_rtc_run_(&rtc->state, tn_rtc_now_(rtc));
    tn_rtc_tell_(rtc, true);
}

TN_API void tn_rtc_save(const struct tn_rtc *rtc, struct tn_rtc_state *out)
{
    *out = rtc->state;
}

TN_API int tn_rtc_restore(struct tn_rtc *rtc, const struct tn_rtc_state *from)
{
    struct tn_rtc_state copy = *from;

    if (copy.version != TN_RTC_VERSION)
        return TN_EUNSUP;
    if (!tn_rtc_valid_(&copy))
        return TN_EFORMAT;
    rtc->state = copy;
    tn_rtc_run_(&rtc->state, tn_rtc_now_(rtc));
    tn_rtc_tell_(rtc, false);
    return 0;
}
#endif
#ifdef __cplusplus
}
#endif
#endif
