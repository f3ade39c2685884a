/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A socket device between a host side that does anything it may, and a driver that is honest until
 * a hostile hand writes into its memory, with programs that keep to the protocol or do not.
 * Properties: the host side is never given more than buf_alloc bytes that it has not consumed, and
 * the guest never more than it has room for; what is sent comes out whole and in order both ways,
 * messages with their ends; each connection is the host side's from its beginning to its end, and
 * ends once; the table and its lists are consistent, no packet that waits is forgotten; credit
 * comes back; a request is answered; no chain is held between calls; save, restore, save are the
 * same; a restored wreck does not crash; after a reset an honest driver is served again.
 */
#include "tn_virtio_vsock.h"

#include "virtio_guest.h"
#include "../tests/vsock_driver.h"

#define OUT   0x4100u /* slots for packets; the last one lies over a border of regions */
#define IN    0x9000u /* slots for what is received */
#define EVENT 0xd000u
#define SLOT  0x200u
#define DATA  (SLOT - 0x40u)
#define ENDS  8u
#define CONNS 6u
#define BUF   4096u
#define HOST  1024u /* port */

static const struct ram_region region[REGIONS] = {
    {0, 0x8000}, {0x8000, 0x8000}, {0x100000, 0x1000}};

enum { FREE, SENT, ASKED, OPEN }; /* of an end: none, REQUEST sent, REQUEST received */

/* A program in the guest; its port is its index. */
struct end {
    struct vs_end e;
    int state;
    bool rude;        /* it broke the rules: it may get anything, until the next bring-up */
    uint8_t said;     /* its SHUTDOWN */
    uint8_t next;     /* byte to send */
    uint8_t want;     /* to receive */
    uint32_t message; /* bytes received of one that has not ended */
};

/* What the host side knows of a connection, by its place in the table. */
struct host {
    bool ours, open;
    uint32_t unread;  /* bytes that it has not consumed */
    uint32_t message; /* bytes of one that has not ended */
    uint32_t sending;
    uint8_t want, next;
};

struct rig {
    struct tn_virtio_vsock dev;
    struct tn_virtio_vsock_conn table[CONNS];
    struct guest guest;
    struct vsd v; /* only for its CID */
    struct end end[ENDS];
    struct host host[CONNS];
    uint64_t now, due;
    bool again, gulp, echo, refuse, hold;
    bool quiet; /* no callback is expected */
    size_t turn;
};

static struct host *of(struct rig *r, const struct tn_virtio_vsock_conn *c)
{
    size_t i = (size_t)(c - r->table);

    FZ_ASSERT(i < CONNS && !r->quiet);
    return &r->host[i];
}

/* One that must be the host side's. */
static struct host *ours(struct rig *r, const struct tn_virtio_vsock_conn *c)
{
    struct host *h = of(r, c);

    FZ_ASSERT(h->ours && c->host == h);
    return h;
}

static struct end *end_of(struct rig *r, const struct tn_virtio_vsock_conn *c)
{
    return c->guest_port < ENDS && r->guest.honest ? &r->end[c->guest_port] : NULL;
}

static void host_new(struct rig *r, struct tn_virtio_vsock_conn *c)
{
    struct host *h = of(r, c);

    FZ_ASSERT(!h->ours);
    memset(h, 0, sizeof(*h));
    h->ours = true;
    c->host = h;
}

static void host_reset(struct rig *r, struct tn_virtio_vsock_conn *c)
{
    r->host[c - r->table].ours = false;
    tn_virtio_vsock_reset(&r->dev, c);
}

/* Bytes that go on where the last ones ended; to a message's end, or not. */
static void host_send(struct rig *r, struct tn_virtio_vsock_conn *c, uint32_t len, uint32_t flags)
{
    struct host *h = ours(r, c);
    uint8_t bytes[2048];
    struct tn_iov iov[2] = {{bytes, len / 3}, {bytes + len / 3, len - len / 3}};
    uint32_t room = tn_virtio_vsock_room(&r->dev, c);
    size_t n;

    for (uint32_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(h->next + i);
    n = tn_virtio_vsock_send(&r->dev, c, iov, 2, flags);
    FZ_ASSERT(n <= len && n <= room && room <= BUF && room <= c->peer_buf_alloc);
    h->next = (uint8_t)(h->next + n);
}

static void on_request(void *ctx, struct tn_virtio_vsock_conn *c)
{
    struct rig *r = ctx;

    host_new(r, c);
    if (r->refuse)
        host_reset(r, c);
    else if (!r->hold)
        FZ_ASSERT(tn_virtio_vsock_accept(&r->dev, c) == 0);
    r->host[c - r->table].open = !r->refuse && !r->hold;
}

static void on_opened(void *ctx, struct tn_virtio_vsock_conn *c)
{
    struct host *h = ours(ctx, c);

    FZ_ASSERT(!h->open);
    h->open = true;
}

static void on_data(void *ctx, struct tn_virtio_vsock_conn *c, const struct tn_iov *iov, uint32_t n,
                    uint32_t len, uint32_t flags)
{
    struct rig *r = ctx;
    struct host *h = ours(r, c);
    struct end *e = end_of(r, c);
    uint32_t sum = 0;

    FZ_ASSERT(!(c->local_shut & 1));
    FZ_ASSERT(h->open && (len > 0 || flags & 1) && (c->type == 2 || flags == 0) && flags <= 3);
    for (uint32_t i = 0; i < n; i++) {
        FZ_ASSERT(ram_holds(&r->guest.ram, iov[i].base, iov[i].len));
        for (size_t k = 0; k < iov[i].len && e && !e->rude; k++)
            FZ_ASSERT(iov[i].base[k] == h->want++);
        sum += (uint32_t)iov[i].len;
    }
    FZ_ASSERT(sum == len);
    h->unread += len;
    FZ_ASSERT(h->unread <= BUF);
    h->message += len;
    FZ_ASSERT(c->type == 1 || h->message <= BUF);
    if (flags & 1 || c->type == 1)
        h->message = 0;
    r->turn += len;
    FZ_ASSERT(r->turn <= TN_VIRTIO_VSOCK_TURN + 0x10000);
    if (r->gulp) {
        h->unread -= len;
        tn_virtio_vsock_consumed(&r->dev, c, len);
    }
    if (r->echo)
        host_send(r, c, len < 2048 ? len : 2048, flags);
}

static void on_shutdown(void *ctx, struct tn_virtio_vsock_conn *c, uint32_t flags)
{
    FZ_ASSERT(ours(ctx, c)->open && (flags == 1 || flags == 2));
}

static void on_closed(void *ctx, struct tn_virtio_vsock_conn *c, enum tn_virtio_vsock_why why)
{
    struct host *h = ours(ctx, c);
    struct rig *r = ctx;

    FZ_ASSERT(why != TN_VIRTIO_VSOCK_WHY_TIMEOUT || !h->open || c->local_shut == 3);
    h->ours = false;
    if (r->echo) /* it is nobody's */
        tn_virtio_vsock_shutdown(&r->dev, c, 3);
}

static void on_room(void *ctx, struct tn_virtio_vsock_conn *c)
{
    struct rig *r = ctx;

    (void)ours(r, c);
    if (r->echo)
        host_send(r, c, 100, 1);
}

static void on_again(void *ctx)
{
    ((struct rig *)ctx)->again = true;
}

static void on_later(void *ctx, uint64_t ns)
{
    struct rig *r = ctx;

    FZ_ASSERT(ns <= TN_VIRTIO_VSOCK_TIMEOUT);
    r->due = r->now + ns;
}

static uint64_t on_now(void *ctx)
{
    return ((struct rig *)ctx)->now;
}

static const struct tn_virtio_vsock_ops ops = {
    on_request, on_opened, on_data, on_shutdown, on_closed, on_room, on_again, on_later, on_now};

static void device(struct rig *r, uint64_t cid)
{
    struct tn_virtio_vsock_cfg cfg = {
        &r->guest.ram.mem, 16, TN_VIRTIO_F_RING, cid, true, BUF, BUF, r->table, CONNS, &ops, r};

    memset(&r->dev, 0xee, sizeof(r->dev));
    memset(r->host, 0, sizeof(r->host));
    FZ_ASSERT(tn_virtio_vsock_init(&r->dev, &cfg) == 0);
}

/* All that must hold between calls. */
static void check(struct rig *r)
{
    const struct tn_virtio_vsock *d = &r->dev;
    bool live = tn_virtio_live(&d->virtio);
    uint32_t used = 0, unused = 0, i;

    r->turn = 0;
    FZ_ASSERT(!d->busy && d->orphans <= TN_VIRTIO_VSOCK_ORPHANS);
    if (r->guest.honest)
        FZ_ASSERT(live);
    for (i = 0; i < 3 && live; i++)
        FZ_ASSERT(tn_virtq_in_flight(&d->queue[i].q) == 0);
    for (i = d->free; i != TN_VIRTIO_VSOCK_NONE_; i = r->table[i].chain)
        FZ_ASSERT(i < CONNS && r->table[i].state == 0 && ++unused <= CONNS);
    for (i = 0; i < CONNS; i++) {
        const struct tn_virtio_vsock_conn *c = &r->table[i];

        FZ_ASSERT(r->host[i].ours ==
                  (c->state != TN_VIRTIO_VSOCK_FREE_ && c->state != TN_VIRTIO_VSOCK_DEAD_));
        if (c->state == TN_VIRTIO_VSOCK_FREE_) {
            FZ_ASSERT(!c->listed[0] && !c->listed[1]);
            continue;
        }
        used++;
        FZ_ASSERT(tn_virtio_vsock_find_(d, c->guest_port, c->host_port, c->type) == c);
        FZ_ASSERT(c->pending == 0 || c->listed[TN_VIRTIO_VSOCK_PENDING_]);
        FZ_ASSERT((uint32_t)(c->rx_cnt - c->fwd_cnt) == r->host[i].unread || !r->host[i].ours ||
                  c->local_shut & 1);
        FZ_ASSERT((uint32_t)(c->rx_cnt - c->fwd_cnt) <= BUF);
        FZ_ASSERT(!live || c->deadline == 0 || (d->deadline != 0 && d->deadline <= c->deadline));
    }
    FZ_ASSERT(used == d->used && used + unused == CONNS);
    for (unsigned list = 0; list < 2; list++) {
        uint32_t n = 0, last = TN_VIRTIO_VSOCK_NONE_;

        for (i = d->head[list]; i != TN_VIRTIO_VSOCK_NONE_; i = r->table[i].next[list]) {
            FZ_ASSERT(i < CONNS && r->table[i].listed[list] && r->table[i].prev[list] == last);
            FZ_ASSERT(++n <= CONNS);
            last = i;
        }
        FZ_ASSERT(d->tail[list] == last);
        for (i = 0; i < CONNS; i++)
            n -= r->table[i].listed[list];
        FZ_ASSERT(n == 0);
    }
}

static void start(struct rig *r, uint64_t ring, uint16_t size)
{
    guest_up(&r->guest, ring, ring & 1 ? 0 : TN_VIRTIO_VSOCK_F_SEQPACKET, 3, size);
    FZ_ASSERT(r->dev.used == 0 && r->dev.orphans == 0);
    memset(r->end, 0, sizeof(r->end));
    r->v.cid = r->dev.cfg.guest_cid;
    for (uint32_t i = 0; i < ENDS; i++) {
        struct vs_end e = {&r->v, i, HOST, (uint16_t)(1 + i % 2), BUF, 0, 0, 0, 0, 0};

        r->end[i].e = e;
    }
}

/* ---- the guest ---- */

static bool packet(struct rig *r, const struct vs_hdr *h, const uint8_t *data, uint32_t len,
                   uint8_t kind)
{
    uint32_t at = OUT + r->guest.slot * SLOT;
    struct chain c = {0, 2, {{at, 44, false}, {at + 44, len, false}}};
    uint8_t bytes[SLOT];

    switch (kind % 4) {
    case 0: /* in one piece */
        c.buf[0].len = 44 + len;
        c.n = 1;
        break;
    case 1: /* the header in two */
        c.buf[0].len = 20;
        c.buf[1].addr = at + 20;
        c.buf[1].len = 24 + len;
        break;
    default:
        c.n = len > 0 ? 2 : 1;
    }
    if (r->guest.pending[1] == PENDING || c.n > r->guest.d.q[1].free)
        return false;
    vs_encode(bytes, h);
    if (len > 0)
        memcpy(bytes + 44, data, len);
    for (uint32_t i = 0; i < 44 + len; i++)
        *ram_at(&r->guest.ram, at + i, 1) = bytes[i];
    if (!guest_add(&r->guest, 1, &c, kind & 0x10))
        return false;
    if (!(kind & 0x20))
        guest_kick(&r->guest, 1, kind & 0x40);
    return true;
}

static bool say(struct rig *r, struct end *e, uint16_t op, uint32_t flags, uint8_t kind)
{
    struct vs_hdr h;

    vs_hdr_of(&e->e, op, 0, flags, &h);
    return packet(r, &h, NULL, 0, kind);
}

static void end_begin(struct end *e, int state)
{
    e->state = state;
    e->said = 0;
    e->next = e->want = 0;
    e->message = 0;
    e->e.tx_cnt = e->e.rx_cnt = e->e.fwd_cnt = e->e.peer_fwd = 0;
    e->e.peer_alloc = 0;
}

/* Sends bytes; within the credit, unless it is rude. */
static void end_send(struct rig *r, struct end *e, uint32_t len, uint32_t flags, uint8_t kind)
{
    uint8_t bytes[DATA];
    struct vs_hdr h;

    len %= DATA + 1;
    if (e->state != OPEN || e->said & 2)
        e->rude = true;
    if (!e->rude && len > vs_credit(&e->e))
        len = vs_credit(&e->e);
    if (!e->rude && e->e.type == 2 && len < 2)
        flags = 1; /* not for ever without an end */
    for (uint32_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(e->next + i);
    vs_hdr_of(&e->e, VS_RW, len, flags, &h);
    if (packet(r, &h, bytes, len, kind)) {
        e->next = (uint8_t)(e->next + len);
        e->e.tx_cnt += len;
    }
}

static void give(struct rig *r, uint32_t n, uint32_t size, uint8_t kind)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = IN + r->guest.slot * SLOT;
        struct chain c = {0, 2, {{at, size / 2, true}, {at + size / 2, size - size / 2, true}}};

        if (r->guest.d.q[0].size < 2 || kind & 1) {
            c.n = 1;
            c.buf[0].len = size;
        }
        if (!guest_add(&r->guest, 0, &c, kind & 2))
            break;
    }
    if (!(kind & 4))
        guest_kick(&r->guest, 0, kind & 8);
}

static void received(struct rig *r, const struct chain *c, uint32_t len)
{
    uint8_t bytes[SLOT];
    struct vs_hdr h;
    struct end *e;
    uint32_t size = 0, n = 0;

    for (uint32_t i = 0; i < c->n; i++) {
        size += c->buf[i].len;
        for (uint32_t k = 0; k < c->buf[i].len && n < len; k++)
            bytes[n++] = *ram_at(&r->guest.ram, c->buf[i].addr + k, 1);
    }
    FZ_ASSERT(len <= size && (len == 0 || len >= 44));
    if (len == 0) {
        FZ_ASSERT(size < 45);
        return;
    }
    vs_decode(bytes, &h);
    FZ_ASSERT(h.len == len - 44 && h.op >= VS_REQUEST && h.op <= VS_ASK);
    FZ_ASSERT(h.op == VS_RW || h.len == 0);
    if (h.dst_cid != r->v.cid || h.src_cid != 2 || h.src_port != HOST || h.dst_port >= ENDS ||
        h.type != r->end[h.dst_port].e.type) {
        return; /* in answer to nonsense */
    }
    e = &r->end[h.dst_port];
    if (h.op == VS_RST) {
        e->state = FREE;
        return;
    }
    FZ_ASSERT(h.buf_alloc == BUF);
    if (e->rude)
        return;
    e->e.peer_alloc = h.buf_alloc;
    e->e.peer_fwd = h.fwd_cnt;
    FZ_ASSERT((uint32_t)(e->e.tx_cnt - h.fwd_cnt) <= BUF || e->state != OPEN);
    switch (h.op) {
    case VS_REQUEST:
        if (e->state != FREE)
            e->rude = true; /* both at once */
        end_begin(e, ASKED);
        e->e.peer_alloc = h.buf_alloc;
        break;
    case VS_RESPONSE:
        FZ_ASSERT(e->state == SENT);
        e->state = OPEN;
        break;
    case VS_RW:
        FZ_ASSERT(e->state == OPEN && h.len > 0);
        FZ_ASSERT(h.type == 2 ? h.flags <= 3 : h.flags == 0);
        for (uint32_t i = 44; i < len; i++)
            FZ_ASSERT(bytes[i] == e->want++);
        e->e.rx_cnt += h.len;
        FZ_ASSERT(e->e.rx_cnt - e->e.fwd_cnt <= e->e.buf_alloc);
        break;
    default:
        FZ_ASSERT(e->state == OPEN);
    }
}

/* Takes back what the device returned: all of it in order, once. */
static void reap(struct rig *r, unsigned queue)
{
    uint32_t len;
    int id;

    while (r->guest.honest && (id = vd_reap(&r->guest.d, queue, &len)) != -1) {
        struct chain c = r->guest.q[queue][0];

        FZ_ASSERT(r->guest.pending[queue] > 0 && id == c.id);
        guest_forget(&r->guest, queue);
        if (queue == 0)
            received(r, &c, len);
        else
            FZ_ASSERT(len == 0);
    }
}

static void save_restore(struct rig *r, struct fz *z, bool wreck)
{
    struct tn_virtio_vsock_state one, two;

    memset(&one, 0x5a, sizeof(one));
    memset(&two, 0xa5, sizeof(two));
    tn_virtio_vsock_save(&r->dev, &one);
    if (wreck)
        guest_wreck(&r->guest, z, &one, 24 + 32 + 3 * sizeof(one.virtio.queue[0]));
    else if (one.zero == 0)
        device(r, 3);
    if (tn_virtio_vsock_restore(&r->dev, &one) < 0) {
        FZ_ASSERT(wreck || !r->guest.honest);
        return;
    }
    FZ_ASSERT(r->dev.used == 0);
    tn_virtio_vsock_save(&r->dev, &two);
    FZ_ASSERT(memcmp(&one, &two, sizeof(one)) == 0);
    FZ_ASSERT(r->dev.event == tn_virtio_live(&r->dev.virtio));
    for (uint32_t i = 0; i < ENDS; i++)
        r->end[i].rude = true; /* to each its connection is gone */
    tn_virtio_vsock_flush(&r->dev);
}

static void host_does(struct rig *r, struct fz *z, uint8_t what)
{
    struct tn_virtio_vsock_conn *c = &r->table[what / 16 % CONNS];
    struct host *h = &r->host[c - r->table];
    uint32_t n = fz_u16(z);

    if (!h->ours || !tn_virtio_live(&r->dev.virtio)) {
        r->quiet = true; /* a connection that is not its own is left alone */
        tn_virtio_vsock_consumed(&r->dev, c, n);
        tn_virtio_vsock_shutdown(&r->dev, c, n);
        tn_virtio_vsock_reset(&r->dev, c);
        FZ_ASSERT(tn_virtio_vsock_accept(&r->dev, c) < 0 && tn_virtio_vsock_room(&r->dev, c) == 0);
        r->quiet = false;
        h->ours = h->ours && c->state != 0 && c->state != TN_VIRTIO_VSOCK_DEAD_;
        return;
    }
    switch (what % 16) {
    case 6:
        n = n < h->unread ? n : h->unread;
        h->unread -= n;
        tn_virtio_vsock_consumed(&r->dev, c, n);
        break;
    case 7:
        host_send(r, c, n % 2048, n / 2048 % 4);
        break;
    default:
        if (n % 4 == 0) {
            host_reset(r, c);
        } else if (tn_virtio_vsock_accept(&r->dev, c) == 0) {
            FZ_ASSERT(!h->open);
            h->open = true;
        } else {
            tn_virtio_vsock_shutdown(&r->dev, c, n % 4);
        }
    }
}

static void settle(struct rig *r)
{
    unsigned turns = 0;

    guest_kick(&r->guest, 1, true);
    for (;;) {
        reap(r, 1);
        reap(r, 0);
        give(r, PENDING, 200, 1);
        if (!r->again && r->dev.orphans == 0 &&
            r->dev.head[TN_VIRTIO_VSOCK_PENDING_] == TN_VIRTIO_VSOCK_NONE_)
            break;
        if (r->again) {
            r->again = false;
            tn_virtio_vsock_flush(&r->dev);
        }
        check(r);
        FZ_ASSERT(++turns < 1000);
    }
    reap(r, 0);
}

/* Programs that keep to the protocol get all that is their due. */
static void finish(struct rig *r)
{
    r->refuse = r->hold = r->echo = false;
    if (!r->guest.honest)
        start(r, r->guest.d.features, 8);
    settle(r);
    for (uint32_t i = 0; i < CONNS; i++) {
        struct host *h = &r->host[i];

        if (h->ours && !h->open && r->table[i].state == TN_VIRTIO_VSOCK_ASKED_) {
            FZ_ASSERT(tn_virtio_vsock_accept(&r->dev, &r->table[i]) == 0);
            h->open = true;
        }
        if (h->ours) {
            tn_virtio_vsock_consumed(&r->dev, &r->table[i], h->unread);
            h->unread = 0;
        }
    }
    settle(r);
    for (uint32_t i = 0; i < ENDS; i++) {
        struct end *e = &r->end[i];

        if (e->rude)
            continue;
        FZ_ASSERT(e->state != SENT); /* each request was answered */
        if (e->state == OPEN && !(e->said & 2))
            FZ_ASSERT(vs_credit(&e->e) > BUF / 2); /* credit came back */
    }
    for (uint32_t i = 0; i < ENDS; i++) { /* who had no room hears of it */
        struct end *e = &r->end[i];
        const struct tn_virtio_vsock_conn *c = tn_virtio_vsock_find_(&r->dev, i, HOST, e->e.type);

        if (e->rude || e->state != OPEN || !c)
            continue;
        e->e.fwd_cnt = e->e.rx_cnt;
        FZ_ASSERT(say(r, e, VS_UPDATE, 0, 0));
        settle(r);
        FZ_ASSERT(e->state != OPEN || !c->blocked || e->said & 1 || c->local_shut & 2);
    }
    r->now += 2 * (uint64_t)TN_VIRTIO_VSOCK_TIMEOUT;
    tn_virtio_vsock_tick(&r->dev);
    settle(r);
    for (uint32_t i = 0; i < CONNS; i++)
        FZ_ASSERT(!r->host[i].ours ||
                  (r->table[i].state != TN_VIRTIO_VSOCK_ASKING_ && r->table[i].deadline == 0));
    /* And once more from the start. */
    start(r, 0, 16);
    give(r, 8, 200, 1);
    FZ_ASSERT(say(r, &r->end[0], VS_REQUEST, 0, 0));
    end_begin(&r->end[0], SENT);
    settle(r);
    FZ_ASSERT(r->end[0].state == OPEN);
    r->gulp = true;
    end_send(r, &r->end[0], 100, 0, 0);
    FZ_ASSERT(r->table[0].state == 0 || r->dev.used == 1);
    FZ_ASSERT(say(r, &r->end[0], VS_SHUTDOWN, 3, 0));
    settle(r);
    FZ_ASSERT(r->end[0].state == FREE && r->dev.used == 0);
    check(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rig r;
    struct tn_virtio_vsock_conn *c;
    struct vqd_buf ev = {EVENT, 8, true};
    struct vs_hdr h;
    struct end *e;
    struct fz z;
    uint8_t flags;

    memset(&r, 0, sizeof(r));
    fz_init(&z, data, size);
    guest_init(&r.guest, region, &r.dev.virtio);
    device(&r, 3);
    flags = fz_u8(&z);
    r.now = 1;
    r.gulp = flags & 1;
    r.echo = flags & 2;
    r.refuse = flags & 4;
    r.hold = flags & 8;
    start(&r, (uint64_t)fz_u8(&z) << 28 | (flags >> 4 & 1), (uint16_t)(1 + fz_u8(&z) % 16));
    for (unsigned op = 0; op < 600 && z.left > 0; op++) {
        uint8_t what = fz_u8(&z), kind;

        e = &r.end[what / 16 % ENDS];
        switch (what % 16) {
        case 0:
            if (e->state != FREE)
                e->rude = true;
            if (say(&r, e, VS_REQUEST, 0, fz_u8(&z)))
                end_begin(e, SENT);
            break;
        case 1:
        case 2:
            kind = fz_u8(&z);
            end_send(&r, e, fz_u16(&z), what % 16 == 1 ? 1 : kind >> 6, kind);
            break;
        case 3: /* another packet */
            kind = fz_u8(&z);
            if (e->state == ASKED && kind % 8 == VS_RESPONSE) {
                if (say(&r, e, VS_RESPONSE, 0, 0))
                    e->state = OPEN;
            } else if (kind % 8 == VS_UPDATE || kind % 8 == VS_ASK) {
                if (e->state != OPEN)
                    e->rude = true;
                e->e.fwd_cnt = e->e.rx_cnt;
                say(&r, e, kind % 8, 0, kind);
            } else if (kind % 8 == VS_SHUTDOWN && e->state == OPEN) {
                if (say(&r, e, VS_SHUTDOWN, kind / 8 % 4, kind))
                    e->said |= kind / 8 % 4;
            } else {
                e->rude = true;
                say(&r, e, kind % 8, kind / 8, kind);
            }
            break;
        case 4:
            kind = fz_u8(&z);
            give(&r, 1 + what / 16, kind & 0x80 ? fz_u8(&z) : 44 + fz_u16(&z) % (SLOT - 43), kind);
            break;
        case 5:
            reap(&r, what / 16 % 2);
            break;
        case 6:
        case 7:
        case 8:
            host_does(&r, &z, what);
            break;
        case 9:
            if (tn_virtio_vsock_connect(&r.dev, what / 16 % ENDS, HOST,
                                        (uint16_t)(1 + what / 16 % 2), NULL, &c) == 0) {
                host_new(&r, c);
                if (e->state != FREE)
                    e->rude = true;
            } else {
                FZ_ASSERT(c == NULL);
            }
            break;
        case 10:
            if (what & 0x10) {
                r.now += fz_u32(&z);
                tn_virtio_vsock_tick(&r.dev);
            } else {
                r.again = false;
                FZ_ASSERT(tn_virtio_vsock_flush(&r.dev) == r.dev.waiting);
            }
            break;
        case 11:
            if (what & 0x80) {
                for (uint32_t i = 0; i < ENDS; i++)
                    r.end[i].rude = true;
                if (what & 0x10)
                    tn_virtio_vsock_reset_all(&r.dev);
                else
                    (void)tn_virtio_vsock_set_cid(&r.dev, fz_u8(&z));
            } else {
                vd_add(&r.guest.d, 2, &ev, 1);
                vd_kick(&r.guest.d, 2);
            }
            break;
        case 12:
            save_restore(&r, &z, what & 0x10);
            break;
        case 13:
            if (what & 0x10) {
                r.gulp = what & 0x20;
                r.echo = what & 0x40;
                r.hold = what & 0x80;
            } else {
                start(&r, (uint64_t)fz_u8(&z) << 28, (uint16_t)(1 + fz_u8(&z) % 16));
            }
            break;
        case 14: /* a header of the fuzzer's */
            kind = fz_u8(&z);
            vs_hdr_of(&e->e, fz_u8(&z), fz_u8(&z), fz_u8(&z), &h);
            if (kind & 1)
                h.src_cid = fz_u8(&z);
            if (kind & 2)
                h.dst_cid = fz_u8(&z);
            if (kind & 4)
                h.type = fz_u8(&z);
            if (kind & 8)
                h.len = fz_u32(&z);
            if (kind & 0x10)
                h.buf_alloc = fz_u32(&z);
            if (kind & 0x20)
                h.fwd_cnt = fz_u32(&z);
            if (kind & 0x40)
                h.src_port = fz_u8(&z);
            for (uint32_t i = 0; i < ENDS; i++)
                r.end[i].rude = true;
            packet(&r, &h, data, size < DATA ? (uint32_t)size : DATA, kind);
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
