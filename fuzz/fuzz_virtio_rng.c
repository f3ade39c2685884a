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

#include "virtio_guest.h"

#define BYTES 0x8000u /* buffers lie from here to 0x50000 */

static const struct ram_region region[REGIONS] = {
    {0, 0x28000}, {0x28000, 0x28000}, {0x100000, 0x1000}};

struct rig {
    struct tn_virtio_rng g;
    struct tn_rate rate;
    struct guest guest;
    bool limited, lie, timer;
    uint64_t now, due;
    size_t left; /* bytes that the source has */
    size_t turn; /* bytes in this call */
};

static int64_t on_fill(void *ctx, uint8_t *buf, size_t len)
{
    struct rig *r = ctx;
    size_t n = len < r->left ? len : r->left;

    FZ_ASSERT(len >= 1 && len <= TN_VIRTIO_RNG_CAP && ram_holds(&r->guest.ram, buf, len));
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
    if (r->guest.honest)
        FZ_ASSERT(live);
    if (live)
        FZ_ASSERT(tn_virtq_in_flight(&r->g.queue[0].q) == 0);
}

static void start(struct rig *r, uint64_t ring, uint16_t size)
{
    memset(r->guest.ram.host[0] + BYTES, 0, 0x4000);
    guest_up(&r->guest, ring, 0, 1, size);
}

static void add(struct rig *r, struct fz *z)
{
    struct chain c;
    uint8_t kind = fz_u8(z);
    uint32_t readable;

    c.n = 1 + kind % BUFS;
    if (c.n > r->guest.d.q[0].size)
        c.n = r->guest.d.q[0].size;
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
    if (guest_add(&r->guest, 0, &c, kind & 0x80) && !(kind & 0x40))
        guest_kick(&r->guest, 0, kind & 0x20);
}

static void reap(struct rig *r)
{
    uint32_t len, got;
    int id;

    if (!r->guest.honest)
        return;
    while ((id = vd_reap(&r->guest.d, 0, &got)) != -1) {
        const struct chain *c = &r->guest.q[0][0];
        size_t room = 0;

        FZ_ASSERT(r->guest.pending[0] > 0 && id == c->id);
        len = got;
        for (uint32_t i = 0; i < c->n; i++) {
            room += c->buf[i].write ? c->buf[i].len : 0;
            for (uint32_t k = 0; k < c->buf[i].len; k += 61) {
                uint8_t byte = *ram_at(&r->guest.ram, c->buf[i].addr + k, 1);

                if (!c->buf[i].write)
                    FZ_ASSERT(byte == 0);
                else if (k < len)
                    FZ_ASSERT(byte == 0xa5);
            }
            if (c->buf[i].write)
                len -= len < c->buf[i].len ? len : c->buf[i].len;
        }
        FZ_ASSERT(got <= room && got <= TN_VIRTIO_RNG_CAP && (got > 0) == (room > 0));
        guest_forget(&r->guest, 0);
    }
}

static void device(struct rig *r)
{
    struct tn_rate *rate = r->limited ? &r->rate : NULL;
    struct tn_virtio_rng_cfg cfg = {
        &r->guest.ram.mem, 16, TN_VIRTIO_F_RING, r, on_fill, on_wake, rate, on_now};

    memset(&r->g, 0xee, sizeof(r->g));
    FZ_ASSERT(tn_virtio_rng_init(&r->g, &cfg) == 0);
}

static void save_restore(struct rig *r, struct fz *z, bool wreck)
{
    struct tn_virtio_rng_state one, two;
    int err;

    memset(&one, 0x5a, sizeof(one));
    memset(&two, 0xa5, sizeof(two));
    tn_virtio_rng_save(&r->g, &one);
    if (wreck)
        guest_wreck(&r->guest, z, &one, 8 + 32 + sizeof(one.virtio.queue[0]));
    else
        device(r);
    err = tn_virtio_rng_restore(&r->g, &one);
    if (err < 0) {
        FZ_ASSERT(wreck || !r->guest.honest);
        return;
    }
    tn_virtio_rng_save(&r->g, &two);
    FZ_ASSERT(memcmp(&one, &two, sizeof(one)) == 0);
    tn_virtio_rng_wake(&r->g);
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
    if (!r->guest.honest)
        start(r, r->guest.d.features, 8);
    guest_kick(&r->guest, 0, false);
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
    FZ_ASSERT(r->guest.pending[0] == 0 || r->timer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rig r;
    struct tn_rate_cfg limit;
    struct fz z;
    uint8_t flags;

    memset(&r, 0, sizeof(r));
    fz_init(&z, data, size);
    guest_init(&r.guest, region, &r.g.virtio);
    flags = fz_u8(&z);
    r.lie = flags & 1;
    r.limited = flags & 2;
    limit.bytes_per_s = r.limited ? fz_u32(&z) : 0;
    limit.bytes_burst = limit.bytes_per_s ? fz_u16(&z) : 0;
    limit.ops_per_s = r.limited ? fz_u8(&z) : 0;
    limit.ops_burst = 0;
    FZ_ASSERT(tn_rate_init(&r.rate, &limit, 0) == 0);
    device(&r);
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
            guest_kick(&r.guest, 0, what & 0x10);
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
            start(&r, (uint64_t)fz_u8(&z) << 28, (uint16_t)(1 + fz_u8(&z) % 16));
            break;
        case 14:
            vqd_interrupts(&r.guest.d.q[0], what & 0x10);
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
