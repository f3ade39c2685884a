/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A virtio device behind its MMIO registers, and a driver that does as it likes: register accesses
 * of any kind, a good bring-up, requests, RAM overwritten, states restored that somebody has
 * edited. At the end a good driver resets the device, and it works in both ring formats.
 */
#include "tn_virtio_mmio.h"

#include "../tests/virtio_driver.h"
#include "fuzz.h"

#define RAM    0x10000u
#define HIGH   0x40000u /* a second region */
#define RINGS  0x1000u
#define DATA   0xc000u
#define QUEUES 3u
#define SIZE   64u
#define CONFIG 21u /* bytes: odd on purpose */

static _Alignas(8) uint8_t ram[RAM];
static _Alignas(8) uint8_t high[0x1000];

struct world {
    struct tn_virtio_mmio m;
    struct tn_virtio v;
    struct tn_virtio_queue queue[QUEUES];
    struct tn_mem mem;
    struct tn_mem_region region[2];
    struct vd d;
    uint8_t config[CONFIG];
    bool level;     /* of the interrupt line */
    bool refuses;   /* accept says no */
    bool fails;     /* activate does */
    bool driver_ok; /* DRIVER_OK was seen, and frozen is of then */
    struct tn_virtio_queue frozen[QUEUES];
};

static bool in_ram(const uint8_t *p, size_t len)
{
    return (p >= ram && len <= RAM && (size_t)(p - ram) <= RAM - len) ||
           (p >= high && len <= sizeof(high) && (size_t)(p - high) <= sizeof(high) - len);
}

static void freeze(struct world *w)
{
    w->driver_ok = true;
    memcpy(w->frozen, w->queue, sizeof(w->frozen));
}

static bool on_accept(void *ctx, uint64_t features)
{
    struct world *w = ctx;

    FZ_ASSERT((features & ~w->v.cfg.features) == 0 && (features & TN_VIRTIO_F_VERSION_1) != 0);
    return !w->refuses;
}

static int on_activate(void *ctx)
{
    struct world *w = ctx;

    FZ_ASSERT(tn_virtio_live(&w->v));
    for (uint32_t i = 0; i < QUEUES; i++)
        FZ_ASSERT(w->queue[i].q.started == w->queue[i].ready);
    return w->fails ? TN_ENODEV : 0;
}

static void on_reset(void *ctx)
{
    struct world *w = ctx;

    FZ_ASSERT(tn_virtio_status_read(&w->v) == 0);
    for (uint32_t i = 0; i < QUEUES; i++)
        FZ_ASSERT(!w->queue[i].q.started);
    w->driver_ok = false;
}

/* Writes 0x5a into what it may write. */
static void on_notify(void *ctx, uint32_t queue)
{
    struct world *w = ctx;
    struct tn_virtq_chain chain;
    struct tn_iov iov[SIZE + 4];
    uint32_t turns = 0;
    int n;

    FZ_ASSERT(tn_virtio_live(&w->v) && queue < QUEUES && w->queue[queue].q.started);
    /* A capped loop: what it writes may be the ring itself, with more in it. */
    while ((n = tn_virtq_pop(&w->queue[queue].q, &chain, iov, SIZE + 4)) > 0 && turns++ < SIZE) {
        for (uint32_t i = 0; i < (uint32_t)chain.readable + chain.writable; i++) {
            FZ_ASSERT(in_ram(iov[i].base, iov[i].len));
            if (i >= chain.readable)
                memset(iov[i].base, 0x5a, iov[i].len);
        }
        if (tn_virtq_push(&w->queue[queue].q, &chain, chain.writable_len) < 0)
            break;
    }
    if (n < 0)
        tn_virtio_needs_reset(&w->v);
    tn_virtio_signal(&w->v, queue); /* nothing, in a broken device */
}

static void on_config_write(void *ctx, uint32_t off, unsigned width, uint32_t value)
{
    struct world *w = ctx;

    FZ_ASSERT((width == 1 || width == 2 || width == 4) && off <= CONFIG - width);
    FZ_ASSERT(width == 4 || value >> 8 * width == 0);
    for (unsigned i = 0; i < width; i++)
        w->config[off + i] = (uint8_t)(value >> 8 * i);
    tn_virtio_config_changed(&w->v);
}

static void on_irq(void *ctx, bool level)
{
    struct world *w = ctx;

    FZ_ASSERT(level || w->level); /* it falls only if it was up */
    w->level = level;
}

static uint64_t get(void *ctx, uint64_t off, unsigned width)
{
    return tn_virtio_mmio_read(ctx, off, width);
}

static void put(void *ctx, uint64_t off, unsigned width, uint64_t value)
{
    tn_virtio_mmio_write(ctx, off, width, value);
}

/* Everything that an access could change. */
struct all {
    struct tn_virtio_mmio_state m;
    struct tn_virtio_state v;
    uint8_t config[CONFIG];
};

static void all_of(const struct world *w, struct all *a)
{
    memset(a, 0, sizeof(*a));
    tn_virtio_mmio_save(&w->m, &a->m);
    tn_virtio_save(&w->v, &a->v);
    memcpy(a->config, w->config, CONFIG);
}

/* What holds between any two accesses. */
static void check(struct world *w)
{
    uint8_t status = tn_virtio_status_read(&w->v), progress = status % 64;
    uint32_t ready = 0, running = 0;

    FZ_ASSERT(progress == 0 || progress == 1 || progress == 3 || progress == 11 || progress == 15);
    FZ_ASSERT(status != TN_VIRTIO_S_NEEDS_RESET);
    FZ_ASSERT(w->m.interrupt_status <= 3 && w->level == (w->m.interrupt_status != 0));
    if (progress >= 11)
        FZ_ASSERT((w->v.features & TN_VIRTIO_F_VERSION_1) != 0 &&
                  (w->v.features & ~w->v.cfg.features) == 0);
    if (progress == 15 && !w->driver_ok)
        freeze(w);
    for (uint32_t i = 0; i < QUEUES; i++) {
        const struct tn_virtio_queue *q = &w->queue[i], *f = &w->frozen[i];

        ready += q->ready;
        running += q->q.started;
        if (progress != 15) {
            FZ_ASSERT(!q->q.started);
        } else {
            FZ_ASSERT(q->desc == f->desc && q->driver == f->driver && q->device == f->device &&
                      q->size == f->size && q->ready == f->ready);
            FZ_ASSERT(q->q.started == f->q.started && q->q.cfg.size == f->q.cfg.size);
        }
        if (q->q.started) {
            FZ_ASSERT(q->size == q->q.cfg.size && q->desc == q->q.cfg.desc && q->size <= SIZE);
            FZ_ASSERT(in_ram(q->q.desc, 16u * q->size));
        } else if (progress == 15) {
            FZ_ASSERT(!q->ready || (status & TN_VIRTIO_S_NEEDS_RESET) != 0);
        }
    }
    FZ_ASSERT(running == 0 || running == ready); /* all or none */
}

/* An access of the right form or not. */
static void access_any(struct world *w, struct fz *z, uint64_t off, unsigned width, bool write)
{
    static struct all before, after;
    bool control = off < 0x100 && width == 4 && off % 4 == 0;
    bool config =
        off >= 0x100 && off < 0x200 && (width == 1 || width == 2 || width == 4) && off % width == 0;
    uint64_t value = 0, out = write ? (fz_u8(z) % 4 ? fz_u8(z) : fz_u64(z)) : 0;

    all_of(w, &before);
    if (write)
        tn_virtio_mmio_write(&w->m, off, width, out);
    else
        value = tn_virtio_mmio_read(&w->m, off, width);
    all_of(w, &after);
    if (!write || !(control || config) || (off == TN_VIRTIO_MMIO_STATUS && (uint32_t)out > 0xff))
        FZ_ASSERT(memcmp(&before, &after, sizeof(after)) == 0);
    if (!control && !config)
        FZ_ASSERT(value == 0);
    if (config && off - 0x100 + width > CONFIG)
        FZ_ASSERT(value == 0 && memcmp(&before, &after, sizeof(after)) == 0);
}

/* Saved and restored, it is the same. */
static void round_trip(struct world *w)
{
    static struct all before, after;

    all_of(w, &before);
    w->refuses = false;
    FZ_ASSERT(tn_virtio_mmio_restore(&w->m, &before.m) == 0);
    FZ_ASSERT(tn_virtio_restore(&w->v, &before.v) == 0);
    all_of(w, &after);
    FZ_ASSERT(memcmp(&before, &after, sizeof(after)) == 0);
}

/* A state that somebody has edited. */
static void wreck(struct world *w, struct fz *z)
{
    static struct all s, again;
    unsigned edits = (unsigned)fz_range(z, 1, 4);

    all_of(w, &s);
    for (unsigned i = 0; i < edits; i++) {
        if (fz_u8(z) % 4 == 0)
            ((uint8_t *)&s.m)[fz_range(z, 0, sizeof(s.m) - 1)] = fz_u8(z);
        else
            ((uint8_t *)&s.v)[fz_range(z, 0, 32 + QUEUES * sizeof(s.v.queue[0]))] = fz_u8(z);
    }
    if (tn_virtio_mmio_restore(&w->m, &s.m) == 0) {
        all_of(w, &again);
        FZ_ASSERT(memcmp(&again.m, &s.m, sizeof(s.m)) == 0);
    }
    if (tn_virtio_restore(&w->v, &s.v) == 0) {
        all_of(w, &again);
        FZ_ASSERT(memcmp(&again.v, &s.v, sizeof(s.v)) == 0);
    }
    w->driver_ok = false; /* another device now */
}

static void corrupt(struct world *w, struct fz *z)
{
    uint64_t end = w->d.end > RINGS && w->d.end <= RAM ? w->d.end : RAM;
    uint64_t at = fz_u8(z) % 4 ? fz_range(z, RINGS, end - 1) : fz_range(z, 0, RAM - 1);

    ram[at] = fz_u8(z);
}

static void request(struct world *w, struct fz *z)
{
    struct vqd_buf buf[4];
    uint32_t n = (uint32_t)fz_range(z, 1, 4), queue = fz_u8(z) % QUEUES, len, i;
    uint32_t readable = (uint32_t)fz_range(z, 0, n);
    bool table = fz_u8(z) % 4 == 0;

    if (queue >= w->d.queues)
        return;
    for (i = 0; i < n; i++) {
        buf[i].addr = fz_u8(z) % 8 ? DATA + 256u * fz_u8(z) % 0x3000 : fz_u64(z);
        buf[i].len = fz_u8(z) % 8 ? fz_u8(z) : fz_u32(z);
        buf[i].write = i >= readable;
    }
    if (vqd_add_table(&w->d.q[queue], buf, n, table ? 0xb000 : 0, table ? n : 0) < 0)
        return;
    if (fz_u8(z) % 4)
        vd_kick(&w->d, queue);
    for (i = 0; i < SIZE && vd_reap(&w->d, queue, &len) >= 0; i++)
        ;
}

static void up(struct world *w, struct fz *z)
{
    static const uint64_t bits[] = {TN_VIRTIO_F_RING_PACKED, TN_VIRTIO_F_EVENT_IDX,
                                    TN_VIRTIO_F_INDIRECT_DESC, TN_VIRTIO_F_IN_ORDER};
    uint64_t want = 0;
    uint8_t pick = fz_u8(z);
    uint16_t size = (uint16_t)(pick & 0x80 ? fz_range(z, 1, SIZE) : 1u << (pick >> 4 & 7) % 7);
    uint32_t queues = (uint32_t)fz_range(z, 1, QUEUES);
    bool ok;

    for (unsigned i = 0; i < 4; i++)
        want |= pick >> i & 1 ? bits[i] : 0;
    ok = vd_up(&w->d, want, queues, size);
    if (!w->refuses && !w->fails && ((want & TN_VIRTIO_F_RING_PACKED) || (size & (size - 1)) == 0))
        FZ_ASSERT(ok);
}

/* A good driver's request, in a device in any state. */
static void must_work(struct world *w, uint64_t want)
{
    struct vqd_buf buf[2] = {{DATA, 16, false}, {DATA + 0x1000, 32, true}};
    uint32_t len = 0;

    FZ_ASSERT(vd_up(&w->d, want, QUEUES, 8));
    FZ_ASSERT(!w->level);
    memset(ram + DATA + 0x1000, 0, 33);
    FZ_ASSERT(vd_request(&w->d, 1, buf, 2, &len) && len == 32);
    for (unsigned i = 0; i < 32; i++)
        FZ_ASSERT(ram[DATA + 0x1000 + i] == 0x5a);
    FZ_ASSERT(ram[DATA + 0x1020] == 0 && w->level);
    check(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct tn_virtio_ops ops = {on_accept, on_activate, on_reset, on_notify,
                                             on_config_write};
    static const uint16_t reg[] = {0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x60, 0x64,
                                   0x70, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0xac, 0xfc};
    static const uint8_t step[] = {1, 3, 11, 15, 0, 0x80, 15, 11};
    static struct world w;
    struct tn_virtio_cfg cfg = {63,       TN_VIRTIO_F_RING | TN_VIRTIO_F_IN_ORDER | 3,
                                SIZE,     QUEUES,
                                w.queue,  &w.mem,
                                w.config, CONFIG,
                                &ops,     &w};
    struct fz z;

    fz_init(&z, data, size);
    memset(&w, 0, sizeof(w));
    memset(ram, 0, RAM);
    memset(high, 0, sizeof(high));
    tn_mem_init(&w.mem, w.region, 2);
    FZ_ASSERT(tn_mem_add(&w.mem, 0, ram, RAM) == 0);
    FZ_ASSERT(tn_mem_add(&w.mem, HIGH, high, sizeof(high)) == 0);
    FZ_ASSERT(tn_virtio_init(&w.v, &cfg) == 0);
    FZ_ASSERT(tn_virtio_mmio_init(&w.m, &w.v, on_irq, &w) == 0);
    vd_init(&w.d, &w.v, ram, 0, RINGS);
    vd_mmio(&w.d, get, put, &w.m);
    for (unsigned ops_left = 256; ops_left > 0 && z.left > 0; ops_left--) {
        switch (fz_u8(&z) % 16) {
        case 0:
        case 1:
            access_any(&w, &z, reg[fz_u8(&z) % (sizeof(reg) / sizeof(reg[0]))], 4, true);
            break;
        case 2:
            access_any(&w, &z, 4u * (fz_u8(&z) % 64u), 4, false);
            break;
        case 3:
            access_any(&w, &z, 0x100 + fz_u8(&z) % 32u, 1u << fz_u8(&z) % 3, fz_u8(&z) & 1);
            break;
        case 4:
            access_any(&w, &z, fz_u8(&z) & 1 ? fz_u64(&z) : fz_u16(&z) % 0x220u,
                       fz_u8(&z) & 1 ? fz_u32(&z) : fz_u8(&z) % 10u, fz_u8(&z) & 1);
            break;
        case 5:
            put(&w.m, TN_VIRTIO_MMIO_STATUS, 4, step[fz_u8(&z) % 8]);
            break;
        case 6:
            up(&w, &z);
            break;
        case 7:
        case 8:
        case 9:
            request(&w, &z);
            break;
        case 10:
            corrupt(&w, &z);
            break;
        case 11:
            corrupt(&w, &z);
            vd_kick(&w.d, fz_u8(&z) % 4u);
            break;
        case 12:
            if (fz_u8(&z) & 1)
                tn_virtio_config_changed(&w.v);
            else
                tn_virtio_needs_reset(&w.v);
            break;
        case 13:
            w.refuses = fz_u8(&z) % 4 == 3;
            w.fails = fz_u8(&z) % 4 == 3;
            break;
        case 14:
            check(&w);
            round_trip(&w);
            break;
        default:
            check(&w);
            wreck(&w, &z);
            break;
        }
        check(&w);
    }
    w.refuses = w.fails = false;
    must_work(&w, TN_VIRTIO_F_RING_PACKED | TN_VIRTIO_F_INDIRECT_DESC);
    must_work(&w, TN_VIRTIO_F_IN_ORDER);
    vd_free(&w.d);
    return 0;
}
