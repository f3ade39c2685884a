/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Sequences of port accesses, ctrl-alt-del, saves and restores of good and of broken states.
 * Properties: the FIFO stays bounded and in order; STATUS_OBF tells the truth; each of the
 * keyboard's bytes has its edge; reset is called for what asks for it, and only then; save,
 * restore, save gives the same record; a restored wreck does not crash, and is refused or valid.
 */
#include "tn_i8042.h"

#include "fuzz.h"

struct rig {
    struct tn_i8042 dev;
    bool line;
    unsigned edges, resets;
};

static void on_reset(void *ctx)
{
    ((struct rig *)ctx)->resets++;
}

static void on_irq(void *ctx, bool level)
{
    struct rig *r = ctx;

    FZ_ASSERT(level != r->line);
    r->line = level;
    r->edges += level;
}

static bool next(const struct tn_i8042_state *s)
{
    return !s->full && s->count > 0 && !(s->ctr & 0x10);
}

static void check(const struct rig *r)
{
    const struct tn_i8042_state *s = &r->dev.state;

    FZ_ASSERT(s->count <= TN_I8042_FIFO);
    FZ_ASSERT(r->line == ((s->ctr & 1) && next(s)) && r->dev.level == r->line);
    FZ_ASSERT(tn_i8042_valid_(s));
}

static void read_port(struct rig *r, unsigned off)
{
    struct tn_i8042_state before = r->dev.state, *s = &r->dev.state;
    unsigned edges = r->edges;
    uint8_t status = tn_i8042_read(&r->dev, TN_I8042_STATUS), value;

    FZ_ASSERT(memcmp(&before, s, sizeof(before)) == 0);
    FZ_ASSERT((status & TN_I8042_STATUS_OBF) == (before.full || next(&before)));
    value = tn_i8042_read(&r->dev, off);
    if (off != TN_I8042_DATA) {
        FZ_ASSERT(value == (off == TN_I8042_STATUS ? status : 0xff));
        FZ_ASSERT(memcmp(&before, s, sizeof(before)) == 0);
    } else if (before.full) {
        FZ_ASSERT(value == before.answer && !s->full && s->count == before.count);
    } else if (next(&before)) {
        FZ_ASSERT(value == before.fifo[0] && s->count == before.count - 1);
        FZ_ASSERT(memcmp(s->fifo, before.fifo + 1, s->count) == 0);
        FZ_ASSERT(r->edges == edges + r->line);
    } else {
        FZ_ASSERT(value == before.last && memcmp(&before, s, sizeof(before)) == 0);
    }
}

static void write_port(struct rig *r, unsigned off, uint8_t value)
{
    struct tn_i8042_state before = r->dev.state, *s = &r->dev.state;
    unsigned resets = r->resets;
    bool want = (off == TN_I8042_COMMAND && value >= 0xf0 && value % 2 == 0) ||
                (off == TN_I8042_DATA && before.pending == 0xd1 && value % 2 == 0);

    tn_i8042_write(&r->dev, off, value);
    FZ_ASSERT(r->resets == resets + want);
    if (off == TN_I8042_COMMAND)
        FZ_ASSERT(s->count == before.count);
    else if (off != TN_I8042_DATA)
        FZ_ASSERT(memcmp(&before, s, sizeof(before)) == 0);
}

static void save_restore(struct rig *r)
{
    struct tn_i8042_cfg cfg = r->dev.cfg;
    struct tn_i8042_state a, b;
    struct rig other;

    memset(&other, 0, sizeof(other));
    cfg.ctx = &other;
    tn_i8042_save(&r->dev, &a);
    FZ_ASSERT(tn_i8042_init(&other.dev, &cfg) == 0);
    FZ_ASSERT(tn_i8042_restore(&other.dev, &a) == 0);
    tn_i8042_save(&other.dev, &b);
    FZ_ASSERT(memcmp(&a, &b, sizeof(a)) == 0);
    FZ_ASSERT(other.line == r->line);
}

static void restore(struct rig *r, const struct tn_i8042_state *from)
{
    struct tn_i8042_state before = r->dev.state;

    if (tn_i8042_restore(&r->dev, from) == 0)
        FZ_ASSERT(memcmp(&r->dev.state, from, sizeof(before)) == 0);
    else
        FZ_ASSERT(memcmp(&r->dev.state, &before, sizeof(before)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tn_i8042_state state;
    struct rig r;
    struct fz z;
    struct tn_i8042_cfg cfg = {&r, on_reset, on_irq};
    uint8_t count;
    int got;

    fz_init(&z, data, size);
    memset(&r, 0, sizeof(r));
    FZ_ASSERT(tn_i8042_init(&r.dev, &cfg) == 0);
    for (unsigned op = 0; op < 4096 && z.left > 0; op++) {
        uint8_t what = fz_u8(&z);

        switch (what >> 4) {
        case 0:
        case 1:
        case 2:
            read_port(&r, TN_I8042_DATA);
            break;
        case 3:
            read_port(&r, what & 15);
            break;
        case 4:
        case 5:
        case 6:
            write_port(&r, TN_I8042_DATA, fz_u8(&z));
            break;
        case 7:
        case 8:
        case 9:
            write_port(&r, TN_I8042_COMMAND, fz_u8(&z));
            break;
        case 10:
            write_port(&r, what & 15, fz_u8(&z));
            break;
        case 11:
            count = r.dev.state.count;
            got = tn_i8042_ctrl_alt_del(&r.dev);
            FZ_ASSERT(got == 0 ? r.dev.state.count >= count + 8 : r.dev.state.count == count);
            break;
        case 12:
            if (what & 1)
                tn_i8042_reset(&r.dev);
            else
                save_restore(&r);
            break;
        case 13:
        case 14:
            tn_i8042_save(&r.dev, &state);
            fz_spoil(&z, &state, sizeof(state), 1 + (what & 3u));
            restore(&r, &state);
            break;
        default:
            memset(&state, 0, sizeof(state));
            fz_bytes(&z, &state, sizeof(state));
            if (what & 1)
                state.version = TN_I8042_VERSION;
            restore(&r, &state);
            break;
        }
        check(&r);
    }
    return 0;
}
