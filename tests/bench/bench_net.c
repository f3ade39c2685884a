/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What a virtio network device costs beyond the copy of its frames: sending and receiving, 60 and
 * 1500 bytes, 64 frames at a time, over split and packed rings, with a backend in memory that
 * copies a frame and does no more; beside the same copies alone, in the same rounds. The driver's
 * part is not in it: it lays out 64 frames or buffers, and takes them back, while the clock stands.
 */
#include "tn_virtio_net.h"

#include "bench.h"
#include "../virtio_driver.h"

#define RAM     (4u << 20)
#define TWO_MIB 0x200000u
#define DATA    0x100000u
#define SLOT    2048u
#define DEPTH   64u
#define LAPS    64 /* per sample, after one that is not counted */
#define ROUNDS  150
#define WARM_UP 20

/* A device, its guest, and the network behind it. */
struct way {
    struct tn_virtio_net n;
    struct tn_virtio_net_pair pair[1];
    struct tn_mem_region table[1];
    struct tn_mem mem;
    struct tn_net net;
    struct vd d;
    uint8_t *ram;
    uint32_t bytes;  /* of each frame that is brought */
    uint32_t coming; /* frames that recv still has */
    uint32_t sent;
    uint8_t out[SLOT]; /* the last frame that was sent */
    uint8_t in[SLOT];  /* every one that is brought */
};

struct load {
    struct way *way;
    uint32_t bytes;
    bool receive;
    bool plain; /* the copies alone */
};

static int on_send(void *ctx, uint32_t pair, const struct tn_net_hdr *hdr, const struct tn_iov *iov,
                   uint32_t iovs, uint32_t len)
{
    struct way *w = (struct way *)ctx;
    uint32_t at = 0;

    (void)pair;
    (void)hdr;
    for (uint32_t i = 0; i < iovs && len - at >= iov[i].len && at + iov[i].len <= SLOT; i++) {
        memcpy(w->out + at, iov[i].base, iov[i].len);
        at += (uint32_t)iov[i].len;
    }
    w->sent++;
    return TN_OK;
}

static int64_t on_recv(void *ctx, uint32_t pair, struct tn_net_hdr *hdr, const struct tn_iov *iov,
                       uint32_t iovs)
{
    struct way *w = (struct way *)ctx;
    uint32_t at = 0;

    (void)pair;
    (void)hdr;
    if (w->coming == 0)
        return TN_EAGAIN;
    for (uint32_t i = 0; i < iovs && at < w->bytes; i++) {
        uint32_t n = iov[i].len < w->bytes - at ? (uint32_t)iov[i].len : w->bytes - at;

        memcpy(iov[i].base, w->in + at, n);
        at += n;
    }
    w->coming--;
    return at < w->bytes ? TN_ETRUNC : (int64_t)at;
}

static int on_set(void *ctx, uint32_t offloads, uint32_t pairs)
{
    (void)ctx;
    (void)offloads;
    (void)pairs;
    return TN_OK;
}

static int on_fd(void *ctx, uint32_t pair)
{
    (void)ctx;
    (void)pair;
    return -1;
}

static uint64_t on_now(void *ctx)
{
    (void)ctx;
    return 0;
}

static void on_wake(void *ctx, uint64_t ns)
{
    (void)ctx;
    (void)ns;
}

static void on_poll(void *ctx, uint32_t pair, bool readable, bool writable)
{
    (void)ctx;
    (void)pair;
    (void)readable;
    (void)writable;
}

static void setup(struct way *w, uint8_t *ram, uint64_t rings, bool packed)
{
    static const struct tn_net_ops ops = {on_send, on_recv, on_set, on_fd};
    static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};
    struct tn_virtio_net_cfg cfg;

    memset(&cfg, 0, sizeof(cfg));
    w->net.ops = &ops;
    w->net.ctx = w;
    w->net.tx_offloads = w->net.rx_offloads = 63;
    w->net.pairs = 1;
    w->ram = ram;
    tn_mem_init(&w->mem, w->table, 1);
    cfg.mem = &w->mem;
    cfg.queue_size = 256;
    cfg.ring_features = TN_VIRTIO_F_RING;
    cfg.net = &w->net;
    cfg.pair = w->pair;
    cfg.pairs = 1;
    memcpy(cfg.mac, mac, 6);
    cfg.mtu = 1500;
    cfg.link_up = true;
    cfg.now = on_now;
    cfg.wake = on_wake;
    cfg.poll = on_poll;
    if (tn_mem_add(&w->mem, 0, ram, RAM) < 0 || tn_virtio_net_init(&w->n, &cfg) < 0) {
        fprintf(stderr, "bench_net: no device\n");
        exit(1);
    }
    vd_init(&w->d, &w->n.virtio, ram, 0, rings);
    if (!vd_up(&w->d, packed ? ~0ull : ~TN_VIRTIO_F_RING_PACKED, 3, 256)) {
        fprintf(stderr, "bench_net: no driver\n");
        exit(1);
    }
    tn_virtio_net_wake(&w->n);
    memcpy(w->in, mac, 6); /* and Linux does not ask for all frames */
    w->n.filter.mode = 0;
}

static uint8_t *slot(const struct way *w, uint32_t i)
{
    return w->ram + DATA + i * SLOT;
}

static void add(struct way *w, uint32_t queue, uint32_t i, uint32_t len)
{
    struct vqd_buf buf = {DATA + i * SLOT, len, queue == 0};

    (void)vd_add(&w->d, queue, &buf, 1);
}

/* 64 frames: laid out with the clock standing, moved with it running. Returns nanoseconds. */
static int64_t lap(const struct load *l)
{
    struct way *w = l->way;
    uint32_t queue = l->receive ? 0 : 1, len, done = 0;
    uint64_t begin, took;

    if (l->receive) {
        /* What is popped ahead stays with the device: it always has more than it needs. */
        while (w->d.q[0].free > 0)
            add(w, 0, (uint32_t)(w->d.q[0].added % 256), 1536);
        w->bytes = l->bytes;
        w->coming = DEPTH;
        begin = bench_now();
        tn_virtio_net_receive(&w->n, 0);
    } else {
        for (uint32_t i = 0; i < DEPTH; i++) {
            memset(slot(w, i), 0, TN_NET_HDR);
            add(w, 1, i, TN_NET_HDR + l->bytes);
        }
        w->sent = 0;
        begin = bench_now();
        vd_kick(&w->d, 1);
    }
    took = bench_now() - begin;
    while (vd_reap(&w->d, queue, &len) >= 0)
        done++;
    return done == DEPTH && (l->receive || w->sent == DEPTH) ? (int64_t)took : -1;
}

static int64_t lap_plain(const struct load *l)
{
    struct way *w = l->way;
    uint64_t begin = bench_now();

    for (uint32_t i = 0; i < DEPTH; i++) {
        if (l->receive)
            memcpy(slot(w, i) + TN_NET_HDR, bench_opaque(w->in), l->bytes);
        else
            memcpy(bench_opaque(w->out), slot(w, i) + TN_NET_HDR, l->bytes);
    }
    return (int64_t)(bench_now() - begin);
}

/* Nanoseconds per 100 frames. */
static int64_t sample(void *ctx)
{
    const struct load *l = (const struct load *)ctx;
    int64_t total = 0;

    for (unsigned i = 0; i <= LAPS; i++) {
        int64_t ns = l->plain ? lap_plain(l) : lap(l);

        if (ns < 0)
            return -1;
        total += i > 0 ? ns : 0;
    }
    return total * 100 / (DEPTH * LAPS);
}

int main(void)
{
    static const char *const names[12] = {
        "send 60 B, memcpy, x100",     "send 60 B, split, x100",
        "send 60 B, packed, x100",     "send 1500 B, memcpy, x100",
        "send 1500 B, split, x100",    "send 1500 B, packed, x100",
        "receive 60 B, memcpy, x100",  "receive 60 B, split, x100",
        "receive 60 B, packed, x100",  "receive 1500 B, memcpy, x100",
        "receive 1500 B, split, x100", "receive 1500 B, packed, x100",
    };
    static struct way way[2];
    static struct load load[12];
    struct bench_series s[12];
    uint8_t *ram = (uint8_t *)aligned_alloc(TWO_MIB, RAM);

    if (!ram) {
        perror("bench_net");
        return 1;
    }
    memset(ram, 0, RAM);
    setup(&way[0], ram, 0x1000, false);
    setup(&way[1], ram, 0x80000, true);
    bench_machine();
    for (unsigned i = 0; i < 12; i++) {
        struct bench_series one = BENCH(names[i], sample, &load[i]);

        load[i].way = &way[i % 3 == 2];
        load[i].plain = i % 3 == 0;
        load[i].bytes = i / 3 % 2 ? 1500 : 60;
        load[i].receive = i / 6;
        s[i] = one;
    }
    for (unsigned i = 0; i < 12; i += 3)
        bench_rounds(&s[i], 3, ROUNDS, WARM_UP);
    bench_table(s, 12);
    for (unsigned i = 0; i < 12; i++) {
        double ns = (double)bench_percentile(&s[i], 50) / 100;

        printf("  %-32.*s %9.1f ns %9.2f Mpps (p50)\n", (int)strlen(names[i]) - 6, names[i], ns,
               1e3 / ns);
    }
    for (unsigned i = 0; i < 12; i++) {
        if (i % 3 > 0)
            printf("# %.*s / memcpy: ratio=%.3f\n", (int)strlen(names[i]) - 6, names[i],
                   (double)bench_percentile(&s[i], 50) /
                       (double)bench_percentile(&s[i - i % 3], 50));
    }
    bench_free(s, 12);
    vd_free(&way[0].d);
    vd_free(&way[1].d);
    free(ram);
    return 0;
}
