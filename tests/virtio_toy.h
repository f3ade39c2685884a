/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The device that the tests of tn_virtio and of its transports drive: it adds one to each byte of
 * what it reads, keeps account of every call that it gets, and misbehaves where a test says so. It
 * comes with its RAM and its driver, and with what must work after anything.
 */
#ifndef TENON_VIRTIO_TOY_H
#define TENON_VIRTIO_TOY_H

#include "test.h"
#include "virtio_driver.h"

#define RAM   0x10000u
#define RINGS 0x1000u
#define DATA  0x8000u

#define ACK    TN_VIRTIO_S_ACKNOWLEDGE
#define DRV    (ACK | TN_VIRTIO_S_DRIVER)
#define FOK    (DRV | TN_VIRTIO_S_FEATURES_OK)
#define DOK    (FOK | TN_VIRTIO_S_DRIVER_OK)
#define RESET  TN_VIRTIO_S_NEEDS_RESET
#define FAILED TN_VIRTIO_S_FAILED

#define TOY_CONFIG 8u /* bytes of configuration space; there are more behind them */

struct toy {
    struct tn_virtio v;
    struct tn_virtio_queue queue[3];
    struct tn_mem mem;
    struct tn_mem_region region[1];
    struct tn_virtio_ops ops;
    struct tn_virtio_cfg cfg;
    struct vd d;
    uint8_t config[300];
    _Alignas(8) uint8_t ram[RAM];
    uint64_t asked;   /* the features that accept saw */
    uint64_t refuses; /* features that it does not work with */
    int activate;     /* what activate returns */
    bool breaks;      /* activate calls tn_virtio_needs_reset */
    unsigned accepts, activates, resets, notifies, config_writes, interrupts, config_interrupts;
    uint32_t notified, wrote_off, wrote, interrupted;
    unsigned wrote_width;
    uint8_t status_in_reset;
    uint64_t desc_in_reset;
    bool ran_in_reset, ran_in_activate;
};

static inline bool toy_accept(void *ctx, uint64_t features)
{
    struct toy *toy = ctx;

    toy->accepts++;
    toy->asked = features;
    return (features & toy->refuses) == 0;
}

static inline int toy_activate(void *ctx)
{
    struct toy *toy = ctx;

    toy->activates++;
    toy->ran_in_activate = toy->queue[0].q.started && tn_virtio_live(&toy->v);
    if (toy->breaks)
        tn_virtio_needs_reset(&toy->v);
    return toy->activate;
}

static inline void toy_reset(void *ctx)
{
    struct toy *toy = ctx;

    toy->resets++;
    toy->status_in_reset = toy->v.status;
    toy->desc_in_reset = toy->queue[0].desc;
    toy->ran_in_reset = toy->queue[0].q.started || toy->queue[1].q.started;
    tn_virtio_needs_reset(&toy->v); /* of no consequence here */
    tn_virtio_signal(&toy->v, 0);
}

static inline void toy_notify(void *ctx, uint32_t queue)
{
    struct toy *toy = ctx;
    struct tn_virtq *q = &toy->queue[queue].q;
    struct tn_virtq_chain chain;
    struct tn_iov iov[8];
    int n;

    toy->notifies++;
    toy->notified = queue;
    while ((n = tn_virtq_pop(q, &chain, iov, COUNT(iov))) > 0) {
        uint32_t done = 0;

        if (chain.readable == 1 && chain.writable == 1) {
            for (; done < chain.readable_len && done < chain.writable_len; done++)
                iov[1].base[done] = (uint8_t)(iov[0].base[done] + 1);
        }
        tn_virtq_push(q, &chain, done);
    }
    if (n < 0)
        tn_virtio_needs_reset(&toy->v);
    else
        tn_virtio_signal(&toy->v, queue);
}

static inline void toy_config_write(void *ctx, uint32_t off, unsigned width, uint32_t value)
{
    struct toy *toy = ctx;

    toy->config_writes++;
    toy->wrote_off = off;
    toy->wrote_width = width;
    toy->wrote = value;
}

static inline void toy_interrupt(void *ctx, uint32_t queue)
{
    struct toy *toy = ctx;

    toy->interrupts++;
    toy->interrupted = queue;
    if (queue == TN_VIRTIO_CONFIG)
        toy->config_interrupts++;
}

/* toy is all zeros. Its interrupts are counted here until a transport takes them. */
static inline void toy_init(struct toy *toy, uint64_t features, uint32_t queues)
{
    struct tn_virtio_ops ops = {toy_accept, toy_activate, toy_reset, toy_notify, toy_config_write};
    struct tn_virtio_cfg cfg = {63,        features,    64,         queues,    toy->queue,
                                &toy->mem, toy->config, TOY_CONFIG, &toy->ops, toy};

    toy->ops = ops;
    toy->cfg = cfg;
    for (size_t i = 0; i < sizeof(toy->config); i++)
        toy->config[i] = (uint8_t)(0x10 + i);
    tn_mem_init(&toy->mem, toy->region, 1);
    assert_int_equal(tn_mem_add(&toy->mem, 0, toy->ram, RAM), 0);
    assert_int_equal(tn_virtio_init(&toy->v, &toy->cfg), 0);
    tn_virtio_connect(&toy->v, toy_interrupt, toy);
    vd_init(&toy->d, &toy->v, toy->ram, 0, RINGS);
}

/* One good request; the device must run. */
static inline void toy_io(struct toy *toy, uint32_t queue)
{
    struct vqd_buf buf[2] = {{DATA, 4, false}, {DATA + 0x100, 8, true}};
    uint32_t len = 0;

    memcpy(toy->ram + DATA, "HAL.", 4);
    memset(toy->ram + DATA + 0x100, 0, 8);
    assert_true(vd_request(&toy->d, queue, buf, 2, &len));
    assert_int_equal(len, 4);
    assert_memory_equal(toy->ram + DATA + 0x100, "IBM/\0\0\0\0", 8);
}

/* Reset, bring-up, one request: what must work after anything. */
static inline void toy_revive(struct toy *toy)
{
    assert_true(vd_up(&toy->d, TN_VIRTIO_F_RING_PACKED, toy->cfg.queues, 16));
    toy_io(toy, toy->cfg.queues - 1);
    assert_true(vd_up(&toy->d, 0, toy->cfg.queues, 16));
    toy_io(toy, 0);
}

#endif
