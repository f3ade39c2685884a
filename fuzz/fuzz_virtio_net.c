/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A network device between a backend that brings frames of any kind and is full at times, and a
 * driver that is honest until a hostile hand writes into its memory. Properties: what goes out is
 * what the driver sent, in order, with a header that was checked; what comes in is what the backend
 * brought, in order, and whatever is missing was counted; each chain is returned once, in order; a
 * driver that notifies only when it has to, and a loop that calls only when it is asked to, wait
 * for nothing; save, restore, save are the same, and the restored device goes on; a restored wreck
 * does not crash; after a reset an honest driver sends and receives.
 */
#include "tn_virtio_net.h"

#include "virtio_guest.h"
#include "../tests/net_sim.h"

#define OUT     0x4000u /* what the driver sends lies here, in 32 slots */
#define IN      0xa000u /* 32 slots for what it receives */
#define SLOT    0x200u
#define CONTROL 0xf000u
#define MTU     300u
#define DEVICE  2u /* pairs */
#define FRAMES  256u

static const struct ram_region region[REGIONS] = {
    {0, 0x8000}, {0x8000, 0x8000}, {0x100000, 0x1000}};
static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};

struct rig {
    struct tn_virtio_net n;
    struct tn_virtio_net_pair pair[DEVICE];
    struct net_sim sim;
    struct guest guest;
    uint64_t now, timer;
    bool readable[DEVICE], writable[DEVICE];
    unsigned sent;           /* the first chain to send that was not sent */
    uint32_t put, got, lost; /* frames brought, received, known to be lost */
    uint32_t len[FRAMES];    /* of those brought */
    uint64_t gone;           /* counted as dropped when this run began */
    uint64_t features;
};

static uint64_t on_now(void *ctx)
{
    return ((struct rig *)ctx)->now;
}

static void on_wake(void *ctx, uint64_t ns)
{
    ((struct rig *)ctx)->timer = ns;
}

static void on_poll(void *ctx, uint32_t pair, bool readable, bool writable)
{
    struct rig *r = ctx;

    FZ_ASSERT(pair < DEVICE);
    FZ_ASSERT(readable != r->readable[pair] || writable != r->writable[pair]);
    r->readable[pair] = readable;
    r->writable[pair] = writable;
}

static uint32_t chain_len(const struct chain *c)
{
    uint32_t len = 0;

    for (uint32_t i = 0; i < c->n; i++)
        len += c->buf[i].len;
    return len;
}

static uint8_t chain_byte(struct rig *r, const struct chain *c, uint32_t off)
{
    uint32_t i = 0;

    for (; off >= c->buf[i].len; i++)
        off -= c->buf[i].len;
    return *ram_at(&r->guest.ram, c->buf[i].addr + off, 1);
}

/* Whether an honest driver's chain is a frame that has to go out. */
static bool sendable(struct rig *r, const struct chain *c)
{
    uint8_t wire[TN_NET_HDR];
    struct tn_net_hdr h;

    if (chain_len(c) < TN_NET_HDR + TN_NET_ETH)
        return false;
    for (uint32_t i = 0; i < TN_NET_HDR; i++)
        wire[i] = chain_byte(r, c, i);
    tn_net_hdr_get(&h, wire);
    return tn_net_hdr_check(&h, tn_virtio_net_tx_offloads_(r->guest.d.features),
                            chain_len(c) - TN_NET_HDR) == TN_OK;
}

static void settle(struct rig *r)
{
    while (r->guest.honest && r->sent < r->guest.pending[1] &&
           !sendable(r, &r->guest.q[1][r->sent]))
        r->sent++;
}

static void on_send(void *ctx, const struct tn_iov *iov, uint32_t iovs)
{
    struct rig *r = ctx;
    struct sim_queue *q = &r->sim.out[0];
    struct sim_frame *f = &q->frame[(q->head + q->count - 1) % SIM_FRAMES];
    struct tn_net_hdr again = f->hdr;

    for (uint32_t i = 0; i < iovs; i++)
        FZ_ASSERT(iov[i].len == 0 || ram_holds(&r->guest.ram, iov[i].base, iov[i].len));
    FZ_ASSERT(f->len >= TN_NET_ETH && f->len <= TN_NET_FRAME_MAX);
    FZ_ASSERT(tn_net_hdr_check(&again, r->n.tx_offloads, f->len) == TN_OK);
    FZ_ASSERT(memcmp(&again, &f->hdr, sizeof(again)) == 0 && f->hdr.flags <= 1);
    settle(r);
    if (r->guest.honest) {
        const struct chain *c;

        FZ_ASSERT(r->sent < r->guest.pending[1]);
        c = &r->guest.q[1][r->sent++];
        FZ_ASSERT(f->len == chain_len(c) - TN_NET_HDR);
        for (uint32_t i = 0; i < f->len; i += 5)
            FZ_ASSERT(f->bytes[i] == chain_byte(r, c, TN_NET_HDR + i));
    }
    sim_drop(q);
}

static void check(struct rig *r)
{
    bool live = tn_virtio_live(&r->n.virtio);

    if (r->guest.honest)
        FZ_ASSERT(live);
    for (uint32_t i = 0; i < DEVICE; i++) {
        const struct tn_virtio_net_pair *p = &r->pair[i];

        FZ_ASSERT(live || (!r->readable[i] && !r->writable[i] && p->chains == 0));
        FZ_ASSERT(r->readable[i] == p->readable && r->writable[i] == p->writable);
        FZ_ASSERT(i < r->n.active || (p->chains == 0 && p->held == 0));
        if (live && r->n.queue[2 * i].q.started && !r->n.queue[2 * i].q.cfg.packed)
            FZ_ASSERT(tn_virtq_in_flight(&r->n.queue[2 * i].q) == p->chains);
        if (live)
            FZ_ASSERT(tn_virtq_in_flight(&r->n.queue[2 * i + 1].q) == 0);
    }
    FZ_ASSERT(r->n.filter.uni + r->n.filter.multi <= TN_VIRTIO_NET_MACS);
}

/* The event loop, which calls for nothing that it was not asked for. */
static void loop(struct rig *r)
{
    bool some = true;

    for (unsigned i = 0; some; i++) {
        FZ_ASSERT(i < 2000);
        some = false;
        if (r->timer == 0) {
            r->timer = UINT64_MAX;
            tn_virtio_net_wake(&r->n);
            some = true;
        }
        for (uint32_t p = 0; p < DEVICE; p++) {
            if (r->readable[p] && r->sim.in[p].count > 0) {
                tn_virtio_net_receive(&r->n, p);
                some = true;
            }
            if (r->writable[p] && r->sim.room > 0) {
                tn_virtio_net_transmit(&r->n, p);
                some = true;
            }
        }
    }
    settle(r);
    check(r);
}

/* Time passes, as much as was asked for. */
static void pass(struct rig *r)
{
    if (r->timer != UINT64_MAX) {
        r->now += r->timer;
        r->timer = 0;
    }
    loop(r);
}

static void start(struct rig *r, uint64_t ring, uint16_t size, uint64_t features)
{
    sim_free(&r->sim);
    r->sent = r->put = r->got = r->lost = 0;
    r->gone = r->n.rx_dropped + r->n.rx_filtered;
    r->features = tn_virtio_net_closed_(features);
    guest_up(&r->guest, ring, r->features, 2 * DEVICE + 1, size);
    loop(r);
}

static void add(struct rig *r, struct fz *z, unsigned queue)
{
    static const uint8_t types[] = {0, 0, 0, 1, 4, 5, 3, 0x81};
    uint32_t slot = r->guest.slot, total = 0;
    struct chain c;
    uint8_t kind = fz_u8(z);

    c.n = 1 + kind % BUFS;
    if (c.n > r->guest.d.q[queue].size)
        c.n = r->guest.d.q[queue].size;
    for (uint32_t i = 0; i < c.n; i++) {
        uint8_t len = fz_u8(z);

        c.buf[i].write = queue == 0;
        c.buf[i].addr = queue == 0 ? IN + slot * SLOT + total : OUT + slot * SLOT + total;
        c.buf[i].len = i + 1 == c.n && (len & 1) ? SLOT - 8 - total : len % (SLOT / BUFS);
        total += c.buf[i].len;
    }
    if (queue == 1 && r->guest.pending[1] < PENDING) {
        uint8_t wire[TN_NET_HDR] = {0}, what = fz_u8(z);

        if (what & 0x80) {
            fz_bytes(z, wire, sizeof(wire));
            wire[1] = types[what % 8];
        }
        for (uint32_t i = 0; i < total; i++) {
            uint8_t *p = ram_at(&r->guest.ram, OUT + slot * SLOT + i, 1);

            *p = i < TN_NET_HDR ? wire[i] : (uint8_t)(what + i * 3);
        }
    }
    if (guest_add(&r->guest, queue, &c, kind & 0x80) && !(kind & 0x40))
        guest_kick(&r->guest, queue, kind & 0x20);
    loop(r);
}

/* The backend brings a frame, of any kind, that knows its number. */
static void bring(struct rig *r, struct fz *z)
{
    static const uint8_t types[] = {0, 1, 3, 4, 5, 0x81, 2, 0};
    uint8_t frame[2048], kind = fz_u8(z), to = fz_u8(z);
    uint32_t len = fz_u16(z) % (kind & 8 ? sizeof(frame) : MTU + 20);
    struct tn_net_hdr h = {0, 0, 0, 0, 0, 0, 7};

    if (r->sim.in[0].count == SIM_FRAMES)
        return;
    if (kind & 0x80) {
        h.flags = kind & 3;
        h.gso_type = types[kind / 16 % 8];
        h.gso_size = fz_u8(z);
        h.csum_start = fz_u8(z);
        h.csum_offset = 6;
    }
    for (uint32_t i = 0; i < len; i++)
        frame[i] = (uint8_t)(r->put + i * 7);
    if (len >= 14) {
        memcpy(frame, mac, 6);
        if (to & 1)
            fz_bytes(z, frame, 6);
        tn_put_(frame + 6, 4, r->put);
        frame[12] = to & 2 ? 0x81 : 8;
        frame[13] = 0;
        r->len[r->put % FRAMES] = len;
    }
    r->put++;
    sim_put(&r->sim, 0, &h, frame, len);
    loop(r);
}

static void reap_sent(struct rig *r)
{
    uint32_t len;
    int id;

    if (!r->guest.honest)
        return;
    settle(r);
    while ((id = vd_reap(&r->guest.d, 1, &len)) != -1) {
        FZ_ASSERT(r->guest.pending[1] > 0 && id == r->guest.q[1][0].id && len == 0);
        FZ_ASSERT(r->sent > 0); /* it went out, or was nothing that could */
        r->sent--;
        guest_forget(&r->guest, 1);
    }
}

/* Takes received frames: in order, whole, and none that nobody brought. */
static void reap_received(struct rig *r)
{
    bool mrg = r->guest.d.features & TN_VIRTIO_NET_F_MRG_RXBUF;
    uint32_t len;
    int id;

    if (!r->guest.honest)
        return;
    while ((id = vd_reap(&r->guest.d, 0, &len)) != -1) {
        uint8_t frame[TN_NET_HDR + 2048];
        const struct chain *c = &r->guest.q[0][0];
        uint32_t size = 0, buffers, number;
        struct tn_net_hdr h;

        FZ_ASSERT(r->guest.pending[0] > 0 && id == c->id && len <= chain_len(c));
        if (len == 0) {
            FZ_ASSERT(chain_len(c) < TN_NET_HDR + (mrg ? 0 : TN_NET_ETH));
            guest_forget(&r->guest, 0);
            continue;
        }
        FZ_ASSERT(len >= TN_NET_HDR);
        for (uint32_t i = 0; i < len; i++)
            frame[size++] = chain_byte(r, c, i);
        guest_forget(&r->guest, 0);
        tn_net_hdr_get(&h, frame);
        buffers = h.num_buffers;
        FZ_ASSERT(buffers >= 1 && (mrg || buffers == 1));
        while (--buffers > 0) {
            FZ_ASSERT(r->guest.pending[0] > 0);
            c = &r->guest.q[0][0];
            id = vd_reap(&r->guest.d, 0, &len);
            FZ_ASSERT(id == c->id && len > 0 && len <= chain_len(c));
            FZ_ASSERT(len <= sizeof(frame) - size);
            for (uint32_t i = 0; i < len; i++)
                frame[size++] = chain_byte(r, c, i);
            guest_forget(&r->guest, 0);
        }
        if (size == TN_NET_HDR) { /* a buffer that was too small */
            FZ_ASSERT(!mrg);
            continue;
        }
        FZ_ASSERT(size >= TN_NET_HDR + TN_NET_ETH);
        number = (uint32_t)tn_get_(frame + TN_NET_HDR + 6, 4);
        FZ_ASSERT(number >= r->got && number < r->put);
        r->lost += number - r->got;
        r->got = number + 1;
        FZ_ASSERT(r->lost <= r->n.rx_dropped + r->n.rx_filtered - r->gone);
        if (r->put - number <= FRAMES)
            FZ_ASSERT(size - TN_NET_HDR == r->len[number % FRAMES]);
        for (uint32_t i = 14; i < size - TN_NET_HDR; i++)
            FZ_ASSERT(frame[TN_NET_HDR + i] == (uint8_t)(number + i * 7));
        tn_net_hdr_get(&h, frame);
        FZ_ASSERT(tn_net_hdr_check(&h, ~0u, size - TN_NET_HDR) == TN_OK);
    }
}

/* One command, mostly of those that exist; an honest driver gets an answer. */
static void command(struct rig *r, struct fz *z)
{
    uint32_t queue = r->guest.d.features & TN_VIRTIO_NET_F_MQ ? 2 * DEVICE : 2, used;
    uint8_t what = fz_u8(z), *p = ram_at(&r->guest.ram, CONTROL, 0x800);
    static const uint8_t lens[] = {1, 8, 2, 0, 2, 8, 6, 14};
    uint32_t len = what & 0x80 ? fz_u16(z) % 0x700 : lens[what % 8];
    struct vqd_buf buf[2] = {{CONTROL, 2 + len, false}, {CONTROL + 0x7ff, 1, true}};

    memset(p, 0, 0x800);
    fz_bytes(z, p, 2 + (len < 32 ? len : 32));
    if (!(what & 0x40)) {
        p[0] = what % 8 < 6 ? what % 8 : 1;
        p[1] %= 6;
    }
    p[0x7ff] = 0xee;
    if (!r->guest.honest || vd_add(&r->guest.d, queue, buf, 2) < 0)
        return;
    vd_kick(&r->guest.d, queue);
    loop(r);
    if (r->guest.d.features & TN_VIRTIO_NET_F_CTRL_VQ) {
        FZ_ASSERT(vd_reap(&r->guest.d, queue, &used) >= 0 && used == 1);
        FZ_ASSERT(p[0x7ff] <= 1);
    }
}

static void device(struct rig *r)
{
    struct tn_virtio_net_cfg cfg = {&r->guest.ram.mem,
                                    16,
                                    TN_VIRTIO_F_RING,
                                    0,
                                    &r->sim.net,
                                    r->pair,
                                    DEVICE,
                                    {0},
                                    MTU,
                                    true,
                                    NULL,
                                    NULL,
                                    r,
                                    on_now,
                                    on_wake,
                                    on_poll,
                                    NULL,
                                    NULL};
    uint64_t dropped = r->n.rx_dropped, filtered = r->n.rx_filtered;

    memcpy(cfg.mac, mac, 6);
    memset(&r->n, 0xee, sizeof(r->n));
    memset(r->pair, 0xee, offsetof(struct tn_virtio_net_pair, frame));
    memset(r->readable, 0, sizeof(r->readable));
    memset(r->writable, 0, sizeof(r->writable));
    r->timer = UINT64_MAX;
    FZ_ASSERT(tn_virtio_net_init(&r->n, &cfg) == 0);
    r->n.rx_dropped = dropped;
    r->n.rx_filtered = filtered;
}

static void quiesce(struct rig *r)
{
    r->n.rx_dropped += r->pair[0].held > 0; /* it is lost, and the model counts all that is */
    tn_virtio_net_quiesce(&r->n);
    for (uint32_t i = 0; i < 2 * DEVICE + 1; i++)
        FZ_ASSERT(!tn_virtio_live(&r->n.virtio) || tn_virtq_in_flight(&r->n.queue[i].q) == 0);
    FZ_ASSERT(!r->readable[0] && !r->writable[0] && !r->readable[1] && !r->writable[1]);
}

static void save_restore(struct rig *r, struct fz *z, bool wreck)
{
    struct tn_virtio_net_state one, two;
    int err;

    quiesce(r);
    memset(&one, 0x5a, sizeof(one));
    memset(&two, 0xa5, sizeof(two));
    tn_virtio_net_save(&r->n, &one);
    if (wreck)
        guest_wreck(&r->guest, z, &one,
                    offsetof(struct tn_virtio_net_state, virtio.queue[2 * DEVICE + 1]));
    else
        device(r);
    err = tn_virtio_net_restore(&r->n, &one);
    if (err < 0) {
        FZ_ASSERT(wreck || !r->guest.honest);
        r->timer = 0;
        loop(r);
        return;
    }
    tn_virtio_net_save(&r->n, &two);
    FZ_ASSERT(memcmp(&one, &two, sizeof(one)) == 0);
    r->timer = 0;
    loop(r);
}

static void link_flaps(struct rig *r)
{
    r->n.rx_dropped += r->pair[0].held > 0;
    tn_virtio_net_link(&r->n, false);
    loop(r);
    if (r->guest.honest)
        r->sent = r->guest.pending[1]; /* lost */
    tn_virtio_net_link(&r->n, true);
    loop(r);
}

/* After whatever was before, an honest driver gets what is its due. */
static void finish(struct rig *r)
{
    struct chain c = {0, 1, {{OUT, 112, false}}}, big = {0, 1, {{IN, SLOT, true}}};
    uint32_t len = 0;
    uint64_t ring = r->guest.d.features;

    r->sim.room = UINT64_MAX;
    tn_virtio_net_link(&r->n, true); /* a wreck may have taken it down */
    if (r->guest.honest) {
        guest_kick(&r->guest, 1, false);
        loop(r);
        FZ_ASSERT(r->sent == r->guest.pending[1]);
        reap_sent(r);
        FZ_ASSERT(r->guest.pending[1] == 0);
        guest_kick(&r->guest, 0, false);
        pass(r);
        reap_received(r);
        for (unsigned i = 0; i < 2000 && r->sim.in[0].count > 0 && !r->pair[0].dead; i++) {
            big.buf[0].addr = IN + SLOT * r->guest.slot;
            if (guest_add(&r->guest, 0, &big, false))
                guest_kick(&r->guest, 0, false);
            pass(r);
            reap_received(r);
            reap_sent(r);
        }
        FZ_ASSERT(r->sim.in[0].count == 0);
    }
    start(r, ring, 16, r->features);
    memset(ram_at(&r->guest.ram, OUT, 112), 0, 112);
    r->sim.sends = 0;
    FZ_ASSERT(guest_add(&r->guest, 1, &c, false));
    guest_kick(&r->guest, 1, false);
    loop(r);
    reap_sent(r);
    FZ_ASSERT(r->sim.sends == 1 && r->guest.pending[1] == 0);
    for (unsigned i = 0; i < 2; i++) {
        uint8_t frame[100] = {2, 0, 0, 0, 0, 1};

        FZ_ASSERT(guest_add(&r->guest, 0, &big, false));
        guest_kick(&r->guest, 0, false);
        sim_put(&r->sim, 0, NULL, frame, sizeof(frame));
        loop(r);
        FZ_ASSERT(vd_reap(&r->guest.d, 0, &len) >= 0 && len == 112);
        guest_forget(&r->guest, 0);
    }
    pass(r);
    len = r->sim.recvs + r->sim.sends;
    loop(r); /* idle */
    FZ_ASSERT(len == r->sim.recvs + r->sim.sends && r->timer == UINT64_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rig r;
    uint64_t features;
    struct fz z;
    uint8_t flags;

    memset(&r, 0, sizeof(r));
    fz_init(&z, data, size);
    sim_init(&r.sim, 63, 63, DEVICE);
    r.sim.on_send = on_send;
    r.sim.on_send_ctx = &r;
    guest_init(&r.guest, region, &r.n.virtio);
    device(&r);
    flags = fz_u8(&z);
    features = (uint64_t)fz_u32(&z) | (uint64_t)fz_u8(&z) << 52;
    start(&r, (uint64_t)flags << 28, (uint16_t)(1 + flags / 8 % 16), ~features & ~TN_VIRTIO_F_RING);
    for (unsigned op = 0; op < 500 && z.left > 0; op++) {
        uint8_t what = fz_u8(&z);

        switch (what % 16) {
        case 0:
        case 1:
            add(&r, &z, 1);
            break;
        case 2:
        case 3:
        case 4:
            add(&r, &z, 0);
            break;
        case 5:
        case 6:
        case 7:
            bring(&r, &z);
            break;
        case 8:
            reap_sent(&r);
            break;
        case 9:
            reap_received(&r);
            break;
        case 10:
            r.sim.room = what & 0x80 ? UINT64_MAX : what / 16;
            loop(&r);
            break;
        case 11:
            guest_kick(&r.guest, what / 16 % 2, what & 0x20);
            if (what & 0x80)
                pass(&r);
            break;
        case 12:
            command(&r, &z);
            break;
        case 13:
            save_restore(&r, &z, what & 0x10);
            break;
        case 14:
            switch (what / 16 % 8) {
            case 0:
                link_flaps(&r);
                break;
            case 1:
                tn_virtio_net_announce(&r.n);
                break;
            case 2:
                quiesce(&r);
                r.timer = 0;
                break;
            case 3:
                tn_virtio_net_receive(&r.n, fz_u8(&z) % 3);
                break;
            case 4:
                tn_virtio_net_transmit(&r.n, fz_u8(&z) % 3);
                break;
            case 5:
                features = (uint64_t)fz_u32(&z) | (uint64_t)fz_u8(&z) << 52;
                start(&r, (uint64_t)fz_u8(&z) << 28, (uint16_t)(1 + fz_u8(&z) % 16),
                      ~features & ~TN_VIRTIO_F_RING);
                break;
            case 6:
                r.now += TN_VIRTIO_NET_HOLD;
                break;
            default:
                tn_virtio_net_wake(&r.n);
            }
            loop(&r);
            break;
        default:
            guest_hostile(&r.guest, &z);
        }
        check(&r);
    }
    finish(&r);
    sim_free(&r.sim);
    guest_free(&r.guest);
    return 0;
}
