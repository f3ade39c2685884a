/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * An entropy device with a source that runs dry at times, a rate at times, and a driver that is
 * honest until a hostile hand writes into its memory. Properties: fill is asked for bytes that lie
 * in RAM, and never for more than the cap a request or the share a turn; each chain is returned
 * once, in order, with as many bytes as were written at its start; what the driver gave for reading
 * stays; no chain is held between calls; a driver that notifies only when it has to is served, and
 * so after a reset; save, restore, save are the same; a restored wreck does not crash.
 */
#include "tn_virtio_rng.h"

#include "fuzz.h"
#include "../tests/virtio_driver.h"

#define REGIONS 3
#define PENDING 16
#define BUFS    3
#define BYTES   0x8000u /* buffers lie from here to 0x50000 */

static const uint64_t region_gpa[REGIONS] = {0, 0x28000, 0x100000};
static const uint64_t region_size[REGIONS] = {0x28000, 0x28000, 0x1000};

struct chain {
    int id;
    uint32_t n;
    struct vqd_buf buf[BUFS];
};

struct rig {
    struct tn_virtio_rng g;
    struct tn_rate rate;
    struct tn_mem_region table[REGIONS];
    struct tn_mem mem;
    uint8_t *host[REGIONS];
    struct vd d;
    bool honest, limited, lie, timer;
    uint64_t now, due;
    size_t left; /* bytes that the source has */
    size_t turn; /* bytes in this call */
    struct chain q[PENDING];
    unsigned pending, slot;
};

static uint8_t *rig_at(struct rig *r, uint64_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < REGIONS; i++)
        if (gpa >= region_gpa[i] && len <= region_size[i] &&
            gpa - region_gpa[i] <= region_size[i] - len)
            return r->host[i] + (gpa - region_gpa[i]);
    return NULL;
}

static bool in_ram(const struct rig *r, const uint8_t *p, size_t len)
{
    for (unsigned i = 0; i < REGIONS; i++) {
        uintptr_t off = (uintptr_t)p - (uintptr_t)r->host[i];

        if (off < region_size[i] && len <= region_size[i] - off)
            return true;
    }
    return false;
}

static int64_t on_fill(void *ctx, uint8_t *buf, size_t len)
{
    struct rig *r = ctx;
    size_t n = len < r->left ? len : r->left;

    FZ_ASSERT(len >= 1 && len <= TN_VIRTIO_RNG_CAP && in_ram(r, buf, len));
    FZ_ASSERT(r->turn < TN_VIRTIO_RNG_TURN + TN_VIRTIO_RNG_CAP);
    memset(buf, 0xa5, n);
    r->left -= n;
    r->turn += n;
    if (n == 0)
        return len % 2 ? 0 : -1;
    return r->lie && n == len ? INT64_MAX : (int64_t)n;
}

static void on_wake(void *ctx, uint64_t ns)
{
    struct rig *r = ctx;

    FZ_ASSERT(ns == 0 || r->limited);
    r->timer = true;
    r->due = ns > UINT64_MAX - r->now ? UINT64_MAX : r->now + ns;
}

static uint64_t on_now(void *ctx)
{
    return ((struct rig *)ctx)->now;
}

static void check(struct rig *r)
{
    bool live = tn_virtio_live(&r->g.virtio);

    FZ_ASSERT(r->turn < TN_VIRTIO_RNG_TURN + TN_VIRTIO_RNG_CAP);
    r->turn = 0;
    if (r->honest)
        FZ_ASSERT(live);
    if (live)
        FZ_ASSERT(tn_virtq_in_flight(&r->g.queue[0].q) == 0);
}

static void kick(struct rig *r, bool anyway)
{
    if (vqd_must_kick(&r->d.q[0]) || anyway)
        vd_kick(&r->d, 0);
}

static void start(struct rig *r, uint64_t ring, uint16_t size)
{
    ring &= TN_VIRTIO_F_RING;
    if (!(ring & TN_VIRTIO_F_RING_PACKED))
        while (size & (size - 1))
            size &= (uint16_t)(size - 1);
    r->pending = 0;
    FZ_ASSERT(vd_up(&r->d, ring, 1, size));
    r->honest = true;
}

static void add(struct rig *r, struct fz *z)
{
    struct chain c;
    uint8_t kind = fz_u8(z);
    uint32_t readable;

    c.n = 1 + kind % BUFS;
    if (c.n > r->d.q[0].size)
        c.n = r->d.q[0].size;
    readable = kind & 0x10 ? kind % (c.n + 1) : 0;
    for (uint32_t i = 0; i < c.n; i++) {
        uint8_t len = fz_u8(z);

        c.buf[i].len = len < 200 ? len : (uint32_t)(len - 199) * 0x650;
        c.buf[i].write = i >= readable;
        /* Readable ones in the first quarter, so that nobody writes to them. */
        if (i < readable) {
            c.buf[i].len %= 0x400;
            c.buf[i].addr = BYTES + fz_u16(z) % 0x3000;
        } else {
            c.buf[i].addr = 0xc000 + (uint64_t)fz_u16(z) * 4 % (0x50000 - 0xc000 - c.buf[i].len);
        }
    }
    if (r->pending == PENDING)
        return;
    if (r->d.features & TN_VIRTIO_F_INDIRECT_DESC && kind & 0x80)
        c.id = vqd_add_table(&r->d.q[0], c.buf, c.n, 0x4000 + 64 * r->slot, c.n);
    else
        c.id = vd_add(&r->d, 0, c.buf, c.n);
    if (c.id < 0)
        return;
    r->slot = (r->slot + 1) % (2 * PENDING);
    r->q[r->pending++] = c;
    if (!(kind & 0x40))
        kick(r, kind & 0x20);
}

static void reap(struct rig *r)
{
    uint32_t len, got;
    int id;

    if (!r->honest)
        return;
    while ((id = vd_reap(&r->d, 0, &got)) != -1) {
        const struct chain *c = &r->q[0];
        size_t room = 0;

        FZ_ASSERT(r->pending > 0 && id == c->id);
        len = got;
        for (uint32_t i = 0; i < c->n; i++) {
            room += c->buf[i].write ? c->buf[i].len : 0;
            for (uint32_t k = 0; k < c->buf[i].len; k += 61) {
                uint8_t byte = *rig_at(r, c->buf[i].addr + k, 1);

                if (!c->buf[i].write)
                    FZ_ASSERT(byte == 0);
                else if (k < len)
                    FZ_ASSERT(byte == 0xa5);
            }
            if (c->buf[i].write)
                len -= len < c->buf[i].len ? len : c->buf[i].len;
        }
        FZ_ASSERT(got <= room && got <= TN_VIRTIO_RNG_CAP && (got > 0) == (room > 0));
        r->pending--;
        memmove(r->q, r->q + 1, r->pending * sizeof(struct chain));
    }
}

static void device(struct rig *r)
{
    struct tn_virtio_rng_cfg cfg = {
        &r->mem, 16, TN_VIRTIO_F_RING, r, on_fill, on_wake, r->limited ? &r->rate : NULL, on_now};

    memset(&r->g, 0xee, sizeof(r->g));
    FZ_ASSERT(tn_virtio_rng_init(&r->g, &cfg) == 0);
}

static void save_restore(struct rig *r, struct fz *z, bool wreck)
{
    struct tn_virtio_rng_state one, two;
    size_t at;
    int err;

    memset(&one, 0x5a, sizeof(one));
    memset(&two, 0xa5, sizeof(two));
    tn_virtio_rng_save(&r->g, &one);
    if (!wreck) {
        device(r);
    } else {
        uint8_t *byte = (uint8_t *)&one, count = fz_u8(z) % 4;

        for (unsigned i = 0; i <= count; i++) {
            at = fz_u16(z) % (8 + 32 + sizeof(one.virtio.queue[0]));
            byte[at] ^= fz_u8(z);
        }
        r->honest = false;
    }
    err = tn_virtio_rng_restore(&r->g, &one);
    if (err < 0) {
        FZ_ASSERT(wreck || !r->honest);
        return;
    }
    tn_virtio_rng_save(&r->g, &two);
    FZ_ASSERT(memcmp(&one, &two, sizeof(one)) == 0);
    tn_virtio_rng_wake(&r->g);
}

static void hostile(struct rig *r, struct fz *z)
{
    uint8_t kind = fz_u8(z);
    struct vqd *d = &r->d.q[0];
    uint64_t gpa;
    uint8_t *p;

    r->honest = false;
    switch (kind % 4) {
    case 0:
        gpa = d->desc + 16 * (fz_u8(z) % d->size);
        vqd_desc(d, gpa, kind & 0x80 ? fz_u64(z) : fz_u16(z), kind & 0x40 ? fz_u32(z) : fz_u16(z),
                 fz_u16(z), fz_u16(z));
        break;
    case 1:
        gpa = d->driver + fz_u8(z) % vqd_driver_bytes(d->packed, d->size);
        *vqd_at(d, gpa) = fz_u8(z);
        break;
    case 2:
        vqd_put(d, d->driver + 2, 2, fz_u16(z));
        break;
    default:
        p = rig_at(r, fz_u16(z), 8);
        if (p)
            fz_bytes(z, p, 8);
    }
}

/* The time that wake named comes. */
static void tick(struct rig *r)
{
    if (!r->timer)
        return;
    r->timer = false;
    r->now = r->due > r->now ? r->due : r->now;
    tn_virtio_rng_wake(&r->g);
}

/* An honest driver gets everything that is its due. */
static void finish(struct rig *r)
{
    unsigned turns = 0;

    r->left = SIZE_MAX;
    if (!r->honest) {
        memset(r->host[0] + BYTES, 0, 0x4000);
        start(r, r->d.features, 8);
    }
    kick(r, false);
    check(r);
    tn_virtio_rng_wake(&r->g); /* the source has bytes again */
    check(r);
    reap(r);
    while (r->timer && r->due < UINT64_MAX) {
        tick(r);
        check(r);
        reap(r);
        FZ_ASSERT(++turns < 200);
    }
    FZ_ASSERT(r->pending == 0 || r->timer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rig r;
    struct tn_rate_cfg limit;
    struct fz z;
    uint8_t flags;

    memset(&r, 0, sizeof(r));
    fz_init(&z, data, size);
    tn_mem_init(&r.mem, r.table, REGIONS);
    for (unsigned i = 0; i < REGIONS; i++) {
        r.host[i] = calloc(1, region_size[i]);
        FZ_ASSERT(r.host[i]);
        FZ_ASSERT(tn_mem_add(&r.mem, region_gpa[i], r.host[i], region_size[i]) == 0);
    }
    flags = fz_u8(&z);
    r.lie = flags & 1;
    r.limited = flags & 2;
    limit.bytes_per_s = r.limited ? fz_u32(&z) : 0;
    limit.bytes_burst = limit.bytes_per_s ? fz_u16(&z) : 0;
    limit.ops_per_s = r.limited ? fz_u8(&z) : 0;
    limit.ops_burst = 0;
    FZ_ASSERT(tn_rate_init(&r.rate, &limit, 0) == 0);
    device(&r);
    vd_init(&r.d, &r.g.virtio, r.host[0], 0, 0x100);
    r.left = SIZE_MAX;
    start(&r, (uint64_t)fz_u8(&z) << 28, (uint16_t)(1 + flags / 4 % 16));
    for (unsigned op = 0; op < 400 && z.left > 0; op++) {
        uint8_t what = fz_u8(&z);

        switch (what % 16) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4:
            add(&r, &z);
            break;
        case 5:
        case 6:
            reap(&r);
            break;
        case 7:
            kick(&r, what & 0x10);
            break;
        case 8:
            tick(&r);
            break;
        case 9:
            r.now += fz_u32(&z);
            break;
        case 10:
            r.left = what & 0x80 ? SIZE_MAX : (size_t)(what / 16) * 37;
            break;
        case 11:
            tn_virtio_rng_wake(&r.g);
            break;
        case 12:
            save_restore(&r, &z, what & 0x10);
            break;
        case 13:
            memset(r.host[0] + BYTES, 0, 0x4000);
            start(&r, (uint64_t)fz_u8(&z) << 28, (uint16_t)(1 + fz_u8(&z) % 16));
            break;
        case 14:
            vqd_interrupts(&r.d.q[0], what & 0x10);
            break;
        default:
            hostile(&r, &z);
        }
        check(&r);
    }
    finish(&r);
    vd_free(&r.d);
    for (unsigned i = 0; i < REGIONS; i++)
        free(r.host[i]);
    return 0;
}
