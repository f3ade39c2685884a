/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A network device on a simulated backend (net_sim.h), with a driver that knows which buffers it
 * gave, an event loop that stands still between two calls, and commands for the control queue.
 */
#ifndef TENON_NET_DRIVER_H
#define TENON_NET_DRIVER_H

#include "tn_virtio_net.h"

#include "net_sim.h"
#include "virtio_rig.h"

#define RAM    0x80000u /* bytes of each of two regions that touch, but not in this process */
#define SIZE   64u      /* descriptors of a queue */
#define PAIRS  4u
#define DATA   0x20000u /* what is sent; small things at its end */
#define SLOTS  0x60064u /* receive buffers; one of them lies over the border of the regions */
#define ALL    63u      /* offloads */
#define EVERY  (~0ull & ~TN_VIRTIO_F_RING)
#define NO_MRG (EVERY & ~TN_VIRTIO_NET_F_MRG_RXBUF)
#define NO_GSO                                                                               \
    (EVERY &                                                                                 \
     ~(TN_VIRTIO_NET_F_GUEST_TSO4 | TN_VIRTIO_NET_F_GUEST_TSO6 | TN_VIRTIO_NET_F_GUEST_ECN | \
       TN_VIRTIO_NET_F_GUEST_UFO | TN_VIRTIO_NET_F_GUEST_USO4 | TN_VIRTIO_NET_F_GUEST_USO6))
#define F(name) TN_VIRTIO_NET_F_##name
#define GUEST_ALL                                                                                  \
    (F(GUEST_CSUM) | F(GUEST_TSO4) | F(GUEST_TSO6) | F(GUEST_ECN) | F(GUEST_UFO) | F(GUEST_USO4) | \
     F(GUEST_USO6))

static const uint8_t own_mac[6] = {0x52, 0x54, 0, 1, 2, 3};

struct rig {
    struct tn_virtio_net n;
    struct tn_virtio_net_pair pair[PAIRS];
    struct net_sim sim;
    struct ram ram;
    struct vd d;
    uint64_t now, timer;
    unsigned wakes, polls, config_irq, irq[TN_VIRTIO_MAX_QUEUES];
    bool readable[PAIRS], writable[PAIRS];
    struct tn_rate tx_rate, rx_rate;
    struct {
        uint64_t at;
        uint32_t len;
    } given[PAIRS][128]; /* receive buffers that the device has, the oldest first */
    uint32_t first[PAIRS], count[PAIRS];
    uint32_t slot; /* of the next one */
    void (*in_now)(struct rig *r);
};

static inline uint64_t on_now(void *ctx)
{
    struct rig *r = ctx;
    void (*hook)(struct rig *) = r->in_now;

    r->in_now = NULL;
    if (hook)
        hook(r);
    return r->now;
}

static inline void on_wake(void *ctx, uint64_t ns)
{
    struct rig *r = ctx;

    r->timer = ns;
    r->wakes++;
}

static inline void on_poll(void *ctx, uint32_t pair, bool readable, bool writable)
{
    struct rig *r = ctx;

    assert_true(pair < PAIRS);
    assert_true(r->readable[pair] != readable || r->writable[pair] != writable);
    r->readable[pair] = readable;
    r->writable[pair] = writable;
    r->polls++;
}

static inline void on_irq(void *ctx, uint32_t queue)
{
    struct rig *r = ctx;

    if (queue == TN_VIRTIO_CONFIG)
        r->config_irq++;
    else
        r->irq[queue]++;
}

static inline struct tn_virtio_net_cfg rig_cfg(struct rig *r)
{
    struct tn_virtio_net_cfg cfg = {&r->ram.mem, 1024,        TN_VIRTIO_F_RING,
                                    0,           &r->sim.net, r->pair,
                                    PAIRS,       {0},         1500,
                                    true,        NULL,        NULL,
                                    r,           on_now,      on_wake,
                                    on_poll,     NULL,        NULL};

    memcpy(cfg.mac, own_mac, 6);
    return cfg;
}

static inline void rig_device(struct rig *r, const struct tn_virtio_net_cfg *cfg)
{
    assert_int_equal(tn_virtio_net_init(&r->n, cfg), 0);
    tn_virtio_connect(&r->n.virtio, on_irq, r);
    memset(r->readable, 0, sizeof(r->readable));
    memset(r->writable, 0, sizeof(r->writable));
    r->timer = UINT64_MAX;
}

static inline struct rig *rig_new(void)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct tn_virtio_net_cfg cfg;

    assert_non_null(r);
    ram_init(&r->ram, RAM);
    sim_init(&r->sim, ALL, ALL, PAIRS);
    cfg = rig_cfg(r);
    rig_device(r, &cfg);
    vd_init(&r->d, &r->n.virtio, r->ram.host[0], 0, 0x1000);
    return r;
}

static inline void rig_free(struct rig *r)
{
    sim_free(&r->sim);
    vd_free(&r->d);
    ram_free(&r->ram);
    free(r);
}

/* The timer's time comes, and all that follows at once. */
static inline void turn(struct rig *r)
{
    for (unsigned i = 0; r->timer != UINT64_MAX; i++) {
        uint64_t ns = r->timer;

        assert_true(i < 1000);
        if (ns > 0 && i > 0)
            return;
        r->timer = UINT64_MAX;
        r->now += ns;
        tn_virtio_net_wake(&r->n);
    }
}

static inline void up_as(struct rig *r, uint64_t want, uint16_t size)
{
    assert_true(vd_up(&r->d, want, 2 * PAIRS + 1, size));
    turn(r);
    memset(r->count, 0, sizeof(r->count));
    r->slot = 0;
}

static inline struct rig *rig_up(uint64_t want)
{
    struct rig *r = rig_new();

    up_as(r, want, SIZE);
    return r;
}

/* Guest memory, byte by byte, since two regions are not one. */
static inline void poke(struct rig *r, uint64_t gpa, const void *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        *ram_at(&r->ram, gpa + i) = ((const uint8_t *)bytes)[i];
}

static inline void peek(struct rig *r, uint64_t gpa, void *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)bytes)[i] = *ram_at(&r->ram, gpa + i);
}

static inline void must_be_broken(struct rig *r)
{
    assert_int_equal(tn_virtio_status_read(&r->n.virtio), 15 | TN_VIRTIO_S_NEEDS_RESET);
    assert_int_equal(r->config_irq, 1);
    r->config_irq = 0;
    for (unsigned i = 0; i < PAIRS; i++)
        assert_false(r->readable[i] || r->writable[i]);
}

/* A frame of len bytes to the device's own address, that knows its number. */
static inline void make_frame(uint8_t *f, uint32_t len, uint32_t number)
{
    for (uint32_t i = 0; i < len; i++)
        f[i] = (uint8_t)(number * 31 + i + (i >> 8));
    memcpy(f, own_mac, len < 6 ? len : 6);
    if (len >= 14) {
        f[12] = 8;
        f[13] = 0;
    }
}

static inline void put(struct rig *r, uint32_t pair, uint32_t len, uint32_t number)
{
    static uint8_t f[70000];

    make_frame(f, len, number);
    assert_true(sim_put(&r->sim, pair, NULL, f, len));
}

/* Makes a frame at DATA with its header, in one buffer. */
static inline void send_at(struct rig *r, uint32_t pair, const struct tn_net_hdr *hdr, uint32_t len,
                           uint32_t number)
{
    static uint8_t f[70000];
    static const struct tn_net_hdr zero;
    struct vqd_buf buf = {DATA, TN_NET_HDR + len, false};

    tn_net_hdr_put(hdr ? hdr : &zero, f);
    make_frame(f + TN_NET_HDR, len, number);
    poke(r, DATA, f, TN_NET_HDR + len);
    assert_true(vd_add(&r->d, 2 * pair + 1, &buf, 1) >= 0);
}

/* Makes a receive buffer available; they follow each other in memory, round and round. */
static inline uint64_t give_at(struct rig *r, uint32_t pair, uint64_t at, uint32_t len)
{
    uint32_t i = (r->first[pair] + r->count[pair]++) % 128;
    struct vqd_buf buf = {at, len, true};

    assert_true(vd_add(&r->d, 2 * pair, &buf, 1) >= 0);
    r->given[pair][i].at = at;
    r->given[pair][i].len = len;
    return at;
}

static inline uint64_t give(struct rig *r, uint32_t pair, uint32_t len)
{
    assert_true(len <= 4096);
    return give_at(r, pair, SLOTS + 4096ull * (r->slot++ % 128), len);
}

/* Takes the oldest buffer back. */
static inline uint32_t back(struct rig *r, uint32_t pair, uint64_t *at, uint32_t *len)
{
    uint32_t i = r->first[pair];

    assert_true(r->count[pair]-- > 0);
    r->first[pair] = (i + 1) % 128;
    *at = r->given[pair][i].at;
    *len = r->given[pair][i].len;
    return take(&r->d.q[2 * pair]);
}

/* The next frame, in as many buffers as its header says, is the numbered one. */
static inline struct tn_net_hdr got(struct rig *r, uint32_t pair, uint32_t len, uint32_t number)
{
    static uint8_t f[80000], want[70000];
    uint32_t done = 0, buffers = 0, size, n;
    struct tn_net_hdr h;
    uint64_t at;

    while (done < TN_NET_HDR + len) {
        n = back(r, pair, &at, &size);
        assert_true(n <= size && (n == size || done + n == TN_NET_HDR + len));
        peek(r, at, f + done, n);
        done += n;
        buffers++;
    }
    assert_int_equal(done, TN_NET_HDR + len);
    tn_net_hdr_get(&h, f);
    assert_int_equal(h.num_buffers, buffers);
    make_frame(want, len, number);
    assert_memory_equal(f + TN_NET_HDR, want, len);
    return h;
}

/* What a driver does that behaves: after whatever was before, all is well again. */
static inline void works_again(struct rig *r, uint64_t want)
{
    struct sim_frame *f;

    r->sim.room = UINT64_MAX;
    r->sim.send_error = r->sim.recv_error = r->sim.set_error = 0;
    sim_free(&r->sim);
    if ((r->n.config[6] & 1) == 0)
        tn_virtio_net_link(&r->n, true);
    up_as(r, want, SIZE);
    r->config_irq = 0;
    send_at(r, 0, NULL, 100, 7);
    vd_kick(&r->d, 1);
    f = sim_first(&r->sim.out[0]);
    assert_non_null(f);
    assert_int_equal(f->len, 100);
    assert_int_equal(take(&r->d.q[1]), 0);
    give(r, 0, 2000);
    put(r, 0, 100, 8);
    if (vqd_must_kick(&r->d.q[0]))
        vd_kick(&r->d, 0);
    if (r->readable[0])
        tn_virtio_net_receive(&r->n, 0);
    got(r, 0, 100, 8);
}

/* Whether a chain has come back that was not taken yet. */
static inline bool used(struct vqd *d)
{
    struct vqd copy = *d;
    uint32_t len;
    bool some;

    copy.id = (uint16_t *)test_exact(d->id, d->size * sizeof(*d->id));
    copy.link = (uint16_t *)test_exact(d->link, d->size * sizeof(*d->link));
    copy.chain_len = (uint16_t *)test_exact(d->chain_len, d->size * sizeof(*d->chain_len));
    some = vqd_reap(&copy, &len) != -1;
    vqd_free(&copy);
    return some;
}

/* The event loop: calls what was asked for, until nothing is. */
static inline void loop(struct rig *r)
{
    for (unsigned i = 0; i < 1000; i++) {
        bool some = false;

        if (r->timer == 0) {
            r->timer = UINT64_MAX;
            tn_virtio_net_wake(&r->n);
            some = true;
        }
        for (unsigned p = 0; p < PAIRS; p++) {
            if (r->readable[p] && (r->sim.in[p].count > 0 || r->sim.recv_error)) {
                tn_virtio_net_receive(&r->n, p);
                some = true;
            }
            if (r->writable[p] && r->sim.room > 0) {
                tn_virtio_net_transmit(&r->n, p);
                some = true;
            }
        }
        if (!some)
            return;
    }
    fail_msg("the loop spins");
}

/* Tells the device of what was given, as a driver does that tells no more than it has to. */
static inline void kick(struct rig *r, uint32_t queue)
{
    if (vqd_must_kick(&r->d.q[queue]))
        vd_kick(&r->d, queue);
}

/* One command, cut into pieces of at most cut bytes. Returns the answer, 0xee: none. */
static inline uint8_t command_cut(struct rig *r, uint8_t class, uint8_t command, const void *data,
                                  uint32_t len, uint32_t cut)
{
    uint32_t queue = r->d.features & F(MQ) ? 2 * PAIRS : 2, used_len, at = 0, n = 0;
    uint8_t head[2] = {class, command}, ack = 0xee;
    struct vqd_buf buf[SIZE];

    poke(r, DATA, head, 2);
    poke(r, DATA + 2, data, len);
    poke(r, DATA - 1, &ack, 1);
    for (; at < len + 2; n++) {
        buf[n].addr = DATA + at;
        buf[n].len = len + 2 - at < cut ? len + 2 - at : cut;
        buf[n].write = false;
        at += buf[n].len;
    }
    buf[n].addr = DATA - 1;
    buf[n].len = 1;
    buf[n].write = true;
    r->irq[queue] = 0;
    if (vd_request(&r->d, queue, buf, n + 1, &used_len)) {
        assert_int_equal(used_len, 1);
        vqd_interrupts(&r->d.q[queue], true);
        assert_true(r->irq[queue] == 1 || (r->d.features & TN_VIRTIO_F_EVENT_IDX));
    }
    peek(r, DATA - 1, &ack, 1);
    return ack;
}

static inline uint8_t command(struct rig *r, uint8_t class, uint8_t command_, const void *data,
                              uint32_t len)
{
    return command_cut(r, class, command_, data, len, UINT32_MAX);
}

/* A MAC_TABLE_SET of these numbers of addresses, which says that there are others. */
static inline uint8_t tables(struct rig *r, uint32_t uni, uint32_t multi, uint32_t say_uni,
                             uint32_t say_multi, int32_t more)
{
    static uint8_t data[4000];
    uint32_t len = 8 + 6 * uni + 6 * multi;

    memset(data, 0, sizeof(data));
    tn_put_(data, 4, say_uni);
    for (uint32_t i = 0; i < uni; i++)
        memcpy(data + 4 + 6 * i, (uint8_t[]){2, 0, 0, 0, (uint8_t)(i >> 8), (uint8_t)i}, 6);
    tn_put_(data + 4 + 6 * uni, 4, say_multi);
    for (uint32_t i = 0; i < multi; i++)
        memcpy(data + 8 + 6 * uni + 6 * i, (uint8_t[]){1, 0, 0, 0, (uint8_t)(i >> 8), (uint8_t)i},
               6);
    return command(r, 1, 0, data, (uint32_t)((int32_t)len + more));
}

/* Whether a frame that begins so comes through. */
static inline bool comes(struct rig *r, const char *to, uint32_t type, uint32_t tag)
{
    uint64_t filtered = r->n.rx_filtered, at;
    uint8_t f[64] = {0};
    uint32_t len;

    for (unsigned i = 0; i < 6; i++)
        f[i] = (uint8_t)strtoul(to + 3 * i, NULL, 16);
    f[12] = (uint8_t)(type >> 8);
    f[13] = (uint8_t)type;
    f[14] = (uint8_t)(tag >> 8);
    f[15] = (uint8_t)tag;
    while (r->count[0] < 48)
        give(r, 0, 2000);
    kick(r, 0);
    sim_put(&r->sim, 0, NULL, f, sizeof(f));
    loop(r);
    if (r->n.rx_filtered > filtered) {
        none(&r->d.q[0]);
        return false;
    }
    assert_int_equal(back(r, 0, &at, &len), 12 + sizeof(f));
    return true;
}

#endif
