/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A guest's accesses, a source that pushes, a sink that refuses at times, saves and restores of
 * good and of broken states. Properties: the bytes that come out are those that went in, in order,
 * both ways; counts stay within the FIFOs; the line is a function of the state; save, restore, save
 * gives the same record; a restored wreck does not crash, and is either refused or valid.
 */
#include "tn_uart.h"

#include "fuzz.h"

struct rig {
    struct tn_uart u;
    size_t accept; /* bytes that the sink still takes */
    bool line, echo, feed, lie;
    uint8_t txq[17]; /* sent by the guest, not yet in the sink */
    size_t tx;
    uint16_t rxq[16]; /* for the guest, not yet read */
    size_t rx;
};

static size_t cap(const struct rig *r)
{
    return r->u.state.fcr ? 16 : 1;
}

static void push(struct rig *r, const uint8_t *bytes, size_t len)
{
    size_t room = tn_uart_room(&r->u), n = tn_uart_push(&r->u, bytes, len);

    FZ_ASSERT(room <= 16 && n == (len < room ? len : room) && r->rx + n <= 16);
    for (size_t i = 0; i < n; i++)
        r->rxq[r->rx++] = bytes[i];
}

static size_t on_tx(void *ctx, const uint8_t *bytes, size_t len)
{
    struct rig *r = ctx;
    size_t n = len < r->accept ? len : r->accept;

    FZ_ASSERT(len >= 1 && len <= r->tx);
    FZ_ASSERT(memcmp(bytes, r->txq, len) == 0);
    memmove(r->txq, r->txq + n, r->tx - n);
    r->tx -= n;
    r->accept -= n;
    if (r->echo)
        push(r, (const uint8_t *)"e", 1);
    return r->lie && n == len ? SIZE_MAX : n;
}

static void on_irq(void *ctx, bool level)
{
    struct rig *r = ctx;

    FZ_ASSERT(level != r->line);
    r->line = level;
}

static void on_room(void *ctx)
{
    struct rig *r = ctx;

    FZ_ASSERT(tn_uart_room(&r->u) == cap(r));
    if (r->feed)
        push(r, (const uint8_t *)"0123456789abcdefXYZ", 19);
}

static bool level(const struct tn_uart *u)
{
    static const uint8_t trigger[] = {1, 4, 8, 14};
    const struct tn_uart_state *s = &u->state;

    if ((s->mcr & 0x18) != 0x08)
        return false;
    if (s->ier & 4 && (s->overrun || (s->rx_count && s->rx[0] & 0x100)))
        return true;
    if (s->ier & 1 && s->rx_count &&
        (s->rx_count >= trigger[s->fcr >> 6] || s->timeout || !u->cfg.timer))
        return true;
    return (s->ier & 2 && s->thre) || (s->ier & 8 && s->delta);
}

static void check(const struct rig *r)
{
    const struct tn_uart_state *s = &r->u.state;

    FZ_ASSERT(s->rx_count <= cap(r) && s->tx_count <= cap(r));
    FZ_ASSERT(s->rx_count == r->rx && memcmp(s->rx, r->rxq, 2 * r->rx) == 0);
    FZ_ASSERT(s->tx_count == r->tx && memcmp(s->tx, r->txq, r->tx) == 0);
    FZ_ASSERT(r->line == level(&r->u) && r->u.level == r->line);
    FZ_ASSERT(tn_uart_valid_(s));
}

static void write_reg(struct rig *r, unsigned reg, uint8_t value)
{
    struct tn_uart_state *s = &r->u.state;
    uint64_t dropped = r->u.dropped;
    bool echo = r->echo, mode;

    if (reg == TN_UART_THR && !(s->lcr & 0x80)) {
        if (s->mcr & 0x10) {
            if (r->rx < cap(r))
                r->rxq[r->rx++] = value;
            else if (cap(r) == 1)
                r->rxq[0] = value;
        } else {
            r->txq[r->tx++] = value;
        }
        tn_uart_write(&r->u, reg, value);
        if (r->u.dropped != dropped) {
            FZ_ASSERT(r->u.dropped == dropped + 1 && r->tx == cap(r) + 1);
            r->tx--;
        }
        return;
    }
    if (reg == TN_UART_FCR) {
        mode = (value & 1) != (s->fcr != 0);
        if (mode || (value & 3) == 3)
            r->rx = 0;
        r->echo = false;
        tn_uart_write(&r->u, reg, value);
        r->echo = echo;
        if (mode || (value & 5) == 5)
            r->tx = 0;
        return;
    }
    tn_uart_write(&r->u, reg, value);
}

static void read_reg(struct rig *r, unsigned reg)
{
    const struct tn_uart_state *s = &r->u.state;
    uint16_t front = r->rx ? r->rxq[0] : 0;
    bool rbr = reg == TN_UART_RBR && !(s->lcr & 0x80);
    uint8_t value;

    if (rbr && r->rx)
        memmove(r->rxq, r->rxq + 1, 2 * --r->rx);
    if (reg == TN_UART_LSR && front & 0x100)
        r->rxq[0] = 0;
    value = tn_uart_read(&r->u, reg);
    if (rbr)
        FZ_ASSERT(value == (front & 0xff));
    if (reg == TN_UART_LSR) {
        FZ_ASSERT(!(value & 0x01) == !r->rx && !(value & 0x60) == !!r->tx);
        FZ_ASSERT(!(value & 0x10) == !(front & 0x100));
    }
    if (reg >= 8)
        FZ_ASSERT(value == 0xff);
}

/* Restores a state that may be broken; the model follows it if it is taken. */
static void restore(struct rig *r, const struct tn_uart_state *from)
{
    struct tn_uart_state before, after;
    bool feed = r->feed;
    int got;

    tn_uart_save(&r->u, &before);
    r->feed = false;
    got = tn_uart_restore(&r->u, from);
    r->feed = feed;
    if (got < 0) {
        tn_uart_save(&r->u, &after);
        FZ_ASSERT(memcmp(&before, &after, sizeof(before)) == 0);
        return;
    }
    r->rx = r->u.state.rx_count;
    memcpy(r->rxq, r->u.state.rx, sizeof(r->rxq));
    r->tx = r->u.state.tx_count;
    memcpy(r->txq, r->u.state.tx, 16);
}

static void save_restore(struct rig *r)
{
    struct tn_uart_cfg cfg = r->u.cfg;
    struct tn_uart_state a, b;
    struct rig other;

    memset(&other, 0, sizeof(other));
    cfg.ctx = &other;
    tn_uart_save(&r->u, &a);
    FZ_ASSERT(tn_uart_init(&other.u, &cfg) == 0);
    FZ_ASSERT(tn_uart_restore(&other.u, &a) == 0);
    tn_uart_save(&other.u, &b);
    FZ_ASSERT(memcmp(&a, &b, sizeof(a)) == 0);
    FZ_ASSERT(other.line == r->line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tn_uart_state state;
    struct rig r;
    struct fz z;
    uint8_t bytes[40], flags;
    struct tn_uart_cfg cfg = {&r, on_tx, on_irq, on_room, false};

    fz_init(&z, data, size);
    memset(&r, 0, sizeof(r));
    flags = fz_u8(&z);
    cfg.timer = flags & 1;
    r.echo = flags & 2;
    r.feed = flags & 4;
    r.lie = flags & 8;
    FZ_ASSERT(tn_uart_init(&r.u, &cfg) == 0);
    for (unsigned op = 0; op < 4096 && z.left > 0; op++) {
        uint8_t what = fz_u8(&z);

        switch (what >> 4) {
        case 0:
        case 1:
        case 2:
            read_reg(&r, what & 15);
            break;
        case 3:
        case 4:
        case 5:
            write_reg(&r, what & 15, fz_u8(&z));
            break;
        case 6:
            write_reg(&r, TN_UART_THR, what);
            break;
        case 7:
        case 8:
            memset(bytes, what, sizeof(bytes));
            fz_bytes(&z, bytes, 4);
            push(&r, bytes, what & 31);
            break;
        case 9:
            if (tn_uart_break(&r.u) == 0)
                r.rxq[r.rx++] = 0x100;
            break;
        case 10:
            FZ_ASSERT(tn_uart_flush(&r.u) == (int)r.tx);
            break;
        case 11:
            tn_uart_tick(&r.u);
            break;
        case 12:
            r.accept = what & 15;
            break;
        case 13:
            if (what & 1) {
                save_restore(&r);
                break;
            }
            flags = r.echo;
            r.echo = false;
            r.rx = 0;
            tn_uart_reset(&r.u);
            r.tx = 0;
            r.echo = flags;
            break;
        case 14:
            tn_uart_save(&r.u, &state);
            fz_spoil(&z, &state, sizeof(state), 1 + (what & 3u));
            restore(&r, &state);
            break;
        default:
            memset(&state, 0, sizeof(state));
            fz_bytes(&z, &state, sizeof(state));
            if (what & 1)
                state.version = TN_UART_VERSION;
            restore(&r, &state);
            break;
        }
        check(&r);
    }
    return 0;
}
