/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The guest of a harness for a virtio device type: RAM, a driver that remembers which chains the
 * device has, the oldest first, and a hostile hand. The driver is honest until that hand writes, or
 * a wreck is restored; after the next bring-up it is honest again.
 */
#ifndef TENON_FUZZ_VIRTIO_GUEST_H
#define TENON_FUZZ_VIRTIO_GUEST_H

#include "ram.h"
#include "../tests/virtio_driver.h"

#define PENDING 16 /* chains of a queue at most */
#define BUFS    3
#define TABLES  0x3000u /* indirect ones, up to 0x4000; rings are below them */

struct chain {
    int id;
    uint32_t n;
    struct vqd_buf buf[BUFS];
};

struct guest {
    struct ram ram;
    struct vd d;
    bool honest;
    struct chain q[2][PENDING]; /* the device has these */
    unsigned pending[2];
    unsigned slot; /* of the next chain: 0..2 * PENDING - 1 */
};

/* g is all zeros; v is the device, which needs not be one yet. */
static inline void guest_init(struct guest *g, const struct ram_region *region, struct tn_virtio *v)
{
    ram_init(&g->ram, region);
    vd_init(&g->d, v, g->ram.host[0], 0, 0x100);
}

static inline void guest_free(struct guest *g)
{
    vd_free(&g->d);
    ram_free(&g->ram);
}

/* Reset and bring-up by an honest driver, which must succeed; of ring, the ring features count. */
static inline void guest_up(struct guest *g, uint64_t ring, uint64_t features, uint32_t queues,
                            uint16_t size)
{
    if (!(ring & TN_VIRTIO_F_RING_PACKED)) /* the size is a power of two then */
        while (size & (size - 1))
            size &= (uint16_t)(size - 1);
    g->pending[0] = g->pending[1] = 0;
    FZ_ASSERT(vd_up(&g->d, (ring & TN_VIRTIO_F_RING) | features, queues, size));
    g->honest = true;
}

/* Notifies when it has to, or anyway. */
static inline void guest_kick(struct guest *g, unsigned queue, bool anyway)
{
    if (vqd_must_kick(&g->d.q[queue]) || anyway)
        vd_kick(&g->d, queue);
}

/* Makes a chain available, through a table where that is negotiated and wanted. */
static inline bool guest_add(struct guest *g, unsigned queue, struct chain *c, bool table)
{
    uint64_t at = TABLES + 64 * (queue * 2 * PENDING + g->slot);

    if (g->pending[queue] == PENDING)
        return false;
    table = table && g->d.features & TN_VIRTIO_F_INDIRECT_DESC;
    c->id = vqd_add_table(&g->d.q[queue], c->buf, c->n, table ? at : 0, table ? c->n : 0);
    if (c->id < 0)
        return false;
    g->slot = (g->slot + 1) % (2 * PENDING);
    g->q[queue][g->pending[queue]++] = *c;
    return true;
}

/* The oldest chain has come back. */
static inline void guest_forget(struct guest *g, unsigned queue)
{
    g->pending[queue]--;
    memmove(g->q[queue], g->q[queue] + 1, g->pending[queue] * sizeof(struct chain));
}

/* One write to a descriptor, to the driver's area or anywhere. */
static inline void guest_hostile(struct guest *g, struct fz *z)
{
    uint8_t kind = fz_u8(z);
    struct vqd *d = &g->d.q[kind / 4 % g->d.queues];
    uint64_t gpa;
    uint8_t *p;

    g->honest = false;
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
        p = ram_at(&g->ram, fz_u16(z), 8);
        if (p)
            fz_bytes(z, p, 8);
    }
}

/* Spoils the first len bytes of a saved device. */
static inline void guest_wreck(struct guest *g, struct fz *z, void *record, size_t len)
{
    uint8_t *byte = (uint8_t *)record, count = fz_u8(z) % 4;

    for (unsigned i = 0; i <= count; i++) {
        size_t at = fz_u16(z) % len;

        byte[at] ^= fz_u8(z);
    }
    g->honest = false;
}

#endif
