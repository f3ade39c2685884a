/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the tests of virtio device types share: guest RAM in two regions that touch, but not in this
 * process, so that a buffer over the border is two pieces; the ring formats that all is tried with;
 * and what a test takes back from a ring.
 */
#ifndef TENON_VIRTIO_RIG_H
#define TENON_VIRTIO_RIG_H

#include "test.h"
#include "virtio_driver.h"

struct ram {
    struct tn_mem_region region[2];
    struct tn_mem mem;
    uint8_t *host[2];
    uint64_t size; /* of each region */
};

static inline void ram_init(struct ram *m, uint64_t size)
{
    m->size = size;
    tn_mem_init(&m->mem, m->region, 2);
    for (unsigned i = 0; i < 2; i++) {
        m->host[i] = aligned_alloc(4096, size);
        assert_non_null(m->host[i]);
        memset(m->host[i], 0, size);
        assert_int_equal(tn_mem_add(&m->mem, i * size, m->host[i], size), 0);
    }
}

static inline void ram_free(struct ram *m)
{
    free(m->host[0]);
    free(m->host[1]);
}

static inline uint8_t *ram_at(const struct ram *m, uint64_t gpa)
{
    return m->host[gpa / m->size] + gpa % m->size;
}

static const uint64_t all_rings[] = {
    0,
    TN_VIRTIO_F_EVENT_IDX | TN_VIRTIO_F_INDIRECT_DESC,
    TN_VIRTIO_F_RING_PACKED,
    TN_VIRTIO_F_RING_PACKED | TN_VIRTIO_F_EVENT_IDX | TN_VIRTIO_F_INDIRECT_DESC,
};

/* Reaps one chain, which must be there; returns its length. */
static inline uint32_t take(struct vqd *d)
{
    uint32_t len = 0;

    assert_true(vqd_reap(d, &len) >= 0);
    return len;
}

static inline void none(struct vqd *d)
{
    uint32_t len;

    assert_int_equal(vqd_reap(d, &len), -1);
}

#endif
