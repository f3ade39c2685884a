/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A virtio driver for tests and harnesses of device types: brings a device up as 3.1.1 says, lays
 * its queues out in RAM, makes requests. Over virtq_driver.h, which has the rings.
 *
 *   struct vd d;
 *
 *   vd_init(&d, &dev.v, ram, 0, 0x1000);          guest address 0 is ram[0]; rings from 0x1000 on
 *   vd_mmio(&d, my_read, my_write, &mmio);        only to go through an MMIO transport
 *   assert_true(vd_up(&d, TN_VIRTIO_F_RING, 2, 16));   features wanted, queues, size of each
 *   vd_add(&d, 0, buf, 2);                        buf: struct vqd_buf; d.q[0] is the ring
 *   vd_kick(&d, 0);
 *   id = vd_reap(&d, 0, &len);
 *   vd_free(&d);
 *
 * Rings are in RAM that nothing else touches: d.end is the first address behind them. vd_up after
 * the first lays them out anew.
 */
#ifndef TENON_VIRTIO_DRIVER_H
#define TENON_VIRTIO_DRIVER_H

#include "tn_virtio.h"
#include "virtq_driver.h"

struct vd {
    struct tn_virtio *v; /* the device, when there is no transport */
    uint64_t (*read)(void *ctx, uint64_t off, unsigned width);
    void (*write)(void *ctx, uint64_t off, unsigned width, uint64_t value);
    void *ctx;
    uint8_t *ram; /* where guest address base is */
    uint64_t base, start, end;
    uint64_t features; /* negotiated */
    uint32_t queues;
    struct vqd q[TN_VIRTIO_MAX_QUEUES];
};

/* Rings go to gpa and up. */
static inline void vd_init(struct vd *d, struct tn_virtio *v, uint8_t *ram, uint64_t base,
                           uint64_t gpa)
{
    memset(d, 0, sizeof(*d));
    d->v = v;
    d->ram = ram;
    d->base = base;
    d->start = d->end = gpa;
}

/* From now on through the registers of virtio over MMIO. */
static inline void vd_mmio(struct vd *d, uint64_t (*read)(void *, uint64_t, unsigned),
                           void (*write)(void *, uint64_t, unsigned, uint64_t), void *ctx)
{
    d->read = read;
    d->write = write;
    d->ctx = ctx;
}

static inline void vd_free(struct vd *d)
{
    for (uint32_t i = 0; i < d->queues; i++)
        vqd_free(&d->q[i]);
    d->queues = 0;
}

static inline uint8_t vd_status(struct vd *d)
{
    return d->read ? (uint8_t)d->read(d->ctx, 0x70, 4) : tn_virtio_status_read(d->v);
}

static inline void vd_set_status(struct vd *d, uint8_t value)
{
    if (d->write)
        d->write(d->ctx, 0x70, 4, value);
    else
        tn_virtio_status_write(d->v, value);
}

static inline void vd_reset(struct vd *d)
{
    vd_set_status(d, 0);
}

/* 32 bits of what the device offers. */
static inline uint32_t vd_offered(struct vd *d, uint32_t sel)
{
    if (!d->read)
        return tn_virtio_features_read(d->v, sel);
    d->write(d->ctx, 0x14, 4, sel);
    return (uint32_t)d->read(d->ctx, 0x10, 4);
}

static inline void vd_accept(struct vd *d, uint32_t sel, uint32_t value)
{
    if (!d->write) {
        tn_virtio_features_write(d->v, sel, value);
        return;
    }
    d->write(d->ctx, 0x24, 4, sel);
    d->write(d->ctx, 0x20, 4, value);
}

/* Reset to FEATURES_OK: want, as far as it is offered, and VERSION_1. False: the device refused. */
static inline bool vd_negotiate(struct vd *d, uint64_t want)
{
    uint64_t offered;

    vd_reset(d);
    if (vd_status(d) != 0)
        return false;
    vd_set_status(d, 1);
    vd_set_status(d, 1 | 2);
    offered = (uint64_t)vd_offered(d, 1) << 32 | vd_offered(d, 0);
    d->features = offered & (want | 1ull << 32);
    vd_accept(d, 0, (uint32_t)d->features);
    vd_accept(d, 1, (uint32_t)(d->features >> 32));
    vd_set_status(d, 1 | 2 | 8);
    return vd_status(d) == (1 | 2 | 8);
}

/* Gives the device where queue i is, as d->q[i] has it, and enables it. */
static inline bool vd_enable(struct vd *d, uint32_t i)
{
    const struct vqd *q = &d->q[i];
    struct tn_virtio_queue *regs;

    if (!d->write) {
        regs = tn_virtio_queue_ptr(d->v, i);
        if (!regs || !tn_virtio_queue_open(d->v))
            return false;
        regs->size = (uint16_t)q->size;
        regs->desc = q->desc;
        regs->driver = q->driver;
        regs->device = q->device;
        regs->ready = true;
        return true;
    }
    d->write(d->ctx, 0x30, 4, i);
    if (d->read(d->ctx, 0x44, 4) != 0 || d->read(d->ctx, 0x34, 4) < q->size)
        return false;
    d->write(d->ctx, 0x38, 4, q->size);
    d->write(d->ctx, 0x80, 4, (uint32_t)q->desc);
    d->write(d->ctx, 0x84, 4, q->desc >> 32);
    d->write(d->ctx, 0x90, 4, (uint32_t)q->driver);
    d->write(d->ctx, 0x94, 4, q->driver >> 32);
    d->write(d->ctx, 0xa0, 4, (uint32_t)q->device);
    d->write(d->ctx, 0xa4, 4, q->device >> 32);
    d->write(d->ctx, 0x44, 4, 1);
    return d->read(d->ctx, 0x44, 4) == 1;
}

/* After vd_negotiate: queues of size descriptors each, up to where DRIVER_OK may be set. */
static inline bool vd_queues(struct vd *d, uint32_t queues, uint16_t size)
{
    vd_free(d);
    d->end = d->start;
    for (uint32_t i = 0; i < queues && i < TN_VIRTIO_MAX_QUEUES; i++) {
        d->end = vqd_init(&d->q[i], d->ram, d->base, d->end, size,
                          (d->features & TN_VIRTIO_F_RING_PACKED) != 0,
                          (d->features & TN_VIRTIO_F_EVENT_IDX) != 0);
        d->queues = i + 1;
        if (!vd_enable(d, i))
            return false;
    }
    return true;
}

/* All of it. Returns whether the device runs. */
static inline bool vd_up(struct vd *d, uint64_t want, uint32_t queues, uint16_t size)
{
    if (!vd_negotiate(d, want) || !vd_queues(d, queues, size))
        return false;
    vd_set_status(d, 1 | 2 | 8 | 4);
    return vd_status(d) == (1 | 2 | 8 | 4);
}

static inline int vd_add(struct vd *d, uint32_t queue, const struct vqd_buf *buf, uint32_t n)
{
    return vqd_add(&d->q[queue], buf, n);
}

/* Notifies the device whether it wants to hear of it or not. */
static inline void vd_kick(struct vd *d, uint32_t queue)
{
    if (d->write)
        d->write(d->ctx, 0x50, 4, queue);
    else
        tn_virtio_notify(d->v, queue);
}

static inline int vd_reap(struct vd *d, uint32_t queue, uint32_t *len)
{
    return vqd_reap(&d->q[queue], len);
}

/* One request that the device serves inside its notify. Returns whether it came back. */
static inline bool vd_request(struct vd *d, uint32_t queue, const struct vqd_buf *buf, uint32_t n,
                              uint32_t *len)
{
    int id = vd_add(d, queue, buf, n);

    if (id < 0)
        return false;
    vd_kick(d, queue);
    return vd_reap(d, queue, len) == id;
}

#endif
