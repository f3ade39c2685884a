/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A console between a source, a sink that refuses at times, and a driver that is honest until a
 * hostile hand writes into its memory. Properties: what an honest driver sends comes out whole and
 * in order, what the source pushes comes in so; each chain is returned once, in order; a driver
 * that notifies only when it has to waits for nothing; a turn of the loop moves no more than its
 * share; no chain is held between calls; save, restore, save are the same, and the restored device
 * goes on; a restored wreck does not crash; after a reset an honest driver is served again.
 */
#include "tn_virtio_console.h"

#include "virtio_guest.h"

#define OUT     0x4000u /* what the honest driver sends lies here, and does not change */
#define OUT_END 0xa000u
#define IN      0xa000u /* 16 slots for what it receives */
#define SLOT    0x200u

static const struct ram_region region[REGIONS] = {
    {0, 0x8000}, {0x8000, 0x8000}, {0x100000, 0x1000}};

struct rig {
    struct tn_virtio_console c;
    struct guest guest;
    bool again, echo, lie;
    size_t accept, turn;
    unsigned sent; /* the first chain to send that is not out whole */
    size_t sent_off;
    uint8_t stream[1u << 16]; /* bytes pushed, and not yet received */
    size_t in, out;
    bool blocked; /* the source was told to wait */
    unsigned rooms;
};

static size_t chain_len(const struct chain *c)
{
    size_t len = 0;

    for (uint32_t i = 0; i < c->n; i++)
        len += c->buf[i].len;
    return len;
}

static uint8_t chain_byte(struct rig *r, const struct chain *c, size_t off)
{
    uint32_t i = 0;

    for (; off >= c->buf[i].len; i++)
        off -= c->buf[i].len;
    return *ram_at(&r->guest.ram, c->buf[i].addr + off, 1);
}

static size_t push(struct rig *r, size_t len)
{
    uint8_t bytes[1500];
    size_t n;

    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(r->in + i + (r->in >> 8));
    n = tn_virtio_console_push(&r->c, bytes, len);
    FZ_ASSERT(n <= len && (n == 0 || tn_virtio_live(&r->c.virtio) || !r->guest.honest));
    for (size_t i = 0; i < n; i++)
        r->stream[(r->in + i) % sizeof(r->stream)] = bytes[i];
    r->in += n;
    r->blocked = n < len || (r->blocked && len == 0);
    return n;
}

static size_t on_tx(void *ctx, const uint8_t *bytes, size_t len)
{
    struct rig *r = ctx;
    size_t n = len < r->accept ? len : r->accept;

    FZ_ASSERT(len >= 1 && len <= 1024);
    if (r->guest.honest) {
        const struct chain *c;
        size_t end;

        for (;; r->sent++, r->sent_off = 0) { /* those before are out, or empty */
            FZ_ASSERT(r->sent < r->guest.pending[1]);
            c = &r->guest.q[1][r->sent];
            end = chain_len(c);
            if (r->sent_off < end)
                break;
        }
        FZ_ASSERT(len <= end - r->sent_off);
        for (size_t i = 0; i < len; i += 7)
            FZ_ASSERT(bytes[i] == chain_byte(r, c, r->sent_off + i));
        r->sent_off += n;
    }
    r->accept -= n;
    r->turn += n;
    FZ_ASSERT(r->turn <= TN_VIRTIO_CONSOLE_TURN);
    if (r->echo)
        push(r, 2);
    return r->lie && n == len ? SIZE_MAX : n;
}

static void on_room(void *ctx)
{
    struct rig *r = ctx;

    FZ_ASSERT(tn_virtio_live(&r->c.virtio));
    r->rooms++;
    r->blocked = false;
}

static void on_again(void *ctx)
{
    ((struct rig *)ctx)->again = true;
}

/* Moves the model on past the chains that are out whole. */
static void settle(struct rig *r)
{
    while (r->guest.honest && r->sent < r->guest.pending[1] &&
           r->sent_off == chain_len(&r->guest.q[1][r->sent])) {
        if (chain_len(&r->guest.q[1][r->sent]) == 0 && r->accept == 0)
            break; /* the device may not have come to it */
        r->sent++;
        r->sent_off = 0;
    }
}

static void check(struct rig *r)
{
    bool live = tn_virtio_live(&r->c.virtio);

    r->turn = 0;
    FZ_ASSERT(!r->c.sending && (live || !r->c.waiting) && (r->c.tx_off == 0 || r->c.waiting));
    if (r->guest.honest)
        FZ_ASSERT(live);
    for (unsigned i = 0; i < 2 && live; i++)
        FZ_ASSERT(tn_virtq_in_flight(&r->c.queue[i].q) == 0);
}

static void kick(struct rig *r, unsigned queue, bool anyway)
{
    guest_kick(&r->guest, queue, anyway);
    settle(r);
}

static void start(struct rig *r, uint64_t ring, uint16_t size)
{
    for (uint32_t i = OUT; i < OUT_END; i++)
        r->guest.ram.host[i / 0x8000][i % 0x8000] = (uint8_t)(i * 7 + (i >> 8));
    r->sent = 0;
    r->sent_off = r->turn = 0;
    r->out = r->in;
    guest_up(&r->guest, ring, TN_VIRTIO_CONSOLE_F_SIZE, 2, size);
}

static void add(struct rig *r, struct fz *z, unsigned queue)
{
    struct chain c;
    uint8_t kind = fz_u8(z);

    c.n = 1 + kind % BUFS;
    if (c.n > r->guest.d.q[queue].size)
        c.n = r->guest.d.q[queue].size;
    for (uint32_t i = 0; i < c.n; i++) {
        uint8_t len = fz_u8(z);

        c.buf[i].write = queue == 0;
        if (queue == 0) {
            c.buf[i].len = len % 0xa0;
            c.buf[i].addr = IN + r->guest.slot * SLOT + i * 0xa0;
        } else {
            c.buf[i].len = len < 240 ? len : (uint32_t)(len - 239) * 0x500;
            c.buf[i].addr = OUT + fz_u16(z) % (OUT_END - OUT - c.buf[i].len);
        }
    }
    if (guest_add(&r->guest, queue, &c, kind & 0x80) && !(kind & 0x40))
        kick(r, queue, kind & 0x20);
}

/* Takes back what the device has returned: all of it in order, once. */
static void reap(struct rig *r, unsigned queue)
{
    uint32_t len;
    int id;

    if (!r->guest.honest)
        return;
    settle(r);
    while ((id = vd_reap(&r->guest.d, queue, &len)) != -1) {
        const struct chain *c = &r->guest.q[queue][0];

        FZ_ASSERT(r->guest.pending[queue] > 0 && id == c->id);
        if (queue == 1) {
            FZ_ASSERT(len == 0);
            if (r->sent == 0) { /* one without bytes */
                FZ_ASSERT(chain_len(c) == 0 && r->sent_off == 0);
                r->sent++;
            }
            r->sent--;
        } else {
            FZ_ASSERT(len <= chain_len(c) && len <= r->in - r->out);
            FZ_ASSERT((len > 0) == (chain_len(c) > 0));
            for (size_t i = 0; i < len; i++)
                FZ_ASSERT(chain_byte(r, c, i) == r->stream[(r->out + i) % sizeof(r->stream)]);
            r->out += len;
        }
        guest_forget(&r->guest, queue);
    }
}

static void device(struct rig *r)
{
    struct tn_virtio_console_cfg cfg = {
        &r->guest.ram.mem, 16, TN_VIRTIO_F_RING, r, on_tx, on_room, on_again, 80, 25};

    memset(&r->c, 0xee, sizeof(r->c));
    FZ_ASSERT(tn_virtio_console_init(&r->c, &cfg) == 0);
}

static void save_restore(struct rig *r, struct fz *z, bool wreck)
{
    struct tn_virtio_console_state one, two;
    int err;

    memset(&one, 0x5a, sizeof(one));
    memset(&two, 0xa5, sizeof(two));
    tn_virtio_console_save(&r->c, &one);
    if (wreck)
        guest_wreck(&r->guest, z, &one, 16 + 32 + 2 * sizeof(one.virtio.queue[0]));
    else
        device(r);
    err = tn_virtio_console_restore(&r->c, &one);
    if (err < 0) {
        FZ_ASSERT(wreck || !r->guest.honest);
        return;
    }
    tn_virtio_console_save(&r->c, &two);
    FZ_ASSERT(memcmp(&one, &two, sizeof(one)) == 0);
    tn_virtio_console_flush(&r->c);
    settle(r);
}

/* An honest driver gets everything that is its due, without a superfluous call of anybody's. */
static void finish(struct rig *r)
{
    unsigned turns = 0;

    r->accept = SIZE_MAX;
    if (!r->guest.honest)
        start(r, r->guest.d.features, 8);
    kick(r, 1, false);
    check(r);
    if (r->c.waiting)
        r->again = true;
    while (r->again) {
        r->again = false;
        tn_virtio_console_flush(&r->c);
        check(r);
        settle(r);
        FZ_ASSERT(++turns < 1000);
    }
    settle(r);
    FZ_ASSERT(r->sent == r->guest.pending[1] && r->sent_off == 0);
    reap(r, 1);
    FZ_ASSERT(r->guest.pending[1] == 0);
    reap(r, 0);
    if (!r->blocked)
        push(r, 1000);
    reap(r, 0);
    r->again = false;
    r->rooms = 0;
    if (r->blocked && r->guest.pending[0] == 0) {
        struct chain c = {0, 1, {{IN, 10, true}}};

        FZ_ASSERT(guest_add(&r->guest, 0, &c, false));
        kick(r, 0, false);
        FZ_ASSERT(r->rooms == 1);
        FZ_ASSERT(push(r, 10) == 10);
        reap(r, 0);
        FZ_ASSERT(r->out == r->in && r->guest.pending[0] == 0);
    }
    check(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rig r;
    struct fz z;
    uint8_t flags;
    size_t room;

    memset(&r, 0, sizeof(r));
    fz_init(&z, data, size);
    guest_init(&r.guest, region, &r.c.virtio);
    device(&r);
    r.accept = SIZE_MAX;
    flags = fz_u8(&z);
    r.echo = flags & 1;
    r.lie = flags & 2;
    start(&r, (uint64_t)fz_u8(&z) << 28, (uint16_t)(1 + flags / 4 % 16));
    for (unsigned op = 0; op < 600 && z.left > 0; op++) {
        uint8_t what = fz_u8(&z);

        switch (what % 16) {
        case 0:
        case 1:
        case 2:
            add(&r, &z, 1);
            break;
        case 3:
        case 4:
            add(&r, &z, 0);
            break;
        case 5:
            reap(&r, what / 16 % 2);
            break;
        case 6:
            kick(&r, what / 16 % 2, what / 32 % 2);
            break;
        case 7:
        case 8:
            push(&r, fz_u8(&z) * (what & 0x80 ? 5u : 1u));
            break;
        case 9:
            room = tn_virtio_console_room(&r.c);
            if (r.guest.honest && room > 0) {
                room = room < 1000 ? room : 1000;
                FZ_ASSERT(push(&r, room) == room);
            } else if (room == 0) {
                r.blocked = true;
            }
            break;
        case 10:
            r.accept = what & 0x80 ? SIZE_MAX : (size_t)(what / 16) * 37;
            break;
        case 11:
            r.again = false;
            FZ_ASSERT(tn_virtio_console_flush(&r.c) == r.c.waiting);
            settle(&r);
            break;
        case 12:
            save_restore(&r, &z, what & 0x10);
            break;
        case 13:
            if (what & 0x10)
                tn_virtio_console_resize(&r.c, fz_u8(&z), fz_u8(&z));
            else
                start(&r, (uint64_t)fz_u8(&z) << 28, (uint16_t)(1 + fz_u8(&z) % 16));
            break;
        case 14:
            r.echo = what & 0x10;
            break;
        default:
            guest_hostile(&r.guest, &z);
        }
        check(&r);
    }
    finish(&r);
    guest_free(&r.guest);
    return 0;
}
