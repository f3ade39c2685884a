/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A disk in memory for tests and harnesses: it answers at once or when it is told to, in any order;
 * it fails when it is told to; and it has a volatile cache, of which a crash loses any part.
 */
#ifndef TENON_DISK_SIM_H
#define TENON_DISK_SIM_H

#include "tn_disk.h"

#include <stdlib.h>
#include <string.h>

#define SIM_WAITING 256

struct sim {
    struct tn_disk disk;
    uint8_t *now;   /* as a read sees it */
    uint8_t *safe;  /* what has surely survived a crash */
    uint8_t *snap;  /* of the sectors that a flush under way covers: as they were at its start */
    uint8_t *flags; /* of each sector */
    uint32_t *list; /* sectors that are not safe */
    uint32_t listed;
    struct tn_disk_req *waiting[SIM_WAITING];
    unsigned count;
    bool async;
    uint32_t fail_ops; /* a bit for each op that fails ... */
    int fail;          /* ... so */
    unsigned ops[TN_DISK_ZERO + 1];
    unsigned fua;
    unsigned kicked; /* requests that a kick has covered */
    bool broken;     /* it was asked for what is outside of it, or the wrong way */
};

#define SIM_LISTED 1u
#define SIM_SNAP   2u

static inline void sim_touch(struct sim *d, uint64_t s)
{
    if (d->flags[s] & SIM_LISTED)
        return;
    d->flags[s] |= SIM_LISTED;
    d->list[d->listed++] = (uint32_t)s;
}

/* A FLUSH begins: it covers what is done by now. */
static inline void sim_snap(struct sim *d)
{
    for (uint32_t i = 0; i < d->listed; i++) {
        uint64_t s = d->list[i];

        d->flags[s] |= SIM_SNAP;
        memcpy(d->snap + s * 512, d->now + s * 512, 512);
    }
}

static inline void sim_unlist(struct sim *d, uint32_t i)
{
    d->flags[d->list[i]] = 0;
    d->list[i] = d->list[--d->listed];
}

static inline void sim_flushed(struct sim *d)
{
    for (uint32_t i = 0; i < d->listed;) {
        uint64_t s = d->list[i];

        if (d->flags[s] & SIM_SNAP)
            memcpy(d->safe + s * 512, d->snap + s * 512, 512);
        d->flags[s] &= (uint8_t)~SIM_SNAP;
        if (memcmp(d->safe + s * 512, d->now + s * 512, 512) == 0)
            sim_unlist(d, i);
        else
            i++;
    }
}

/* One sector of a request, n-th of it. */
static inline void sim_sector(struct sim *d, const struct tn_disk_req *req, struct tn_disk_pos *pos,
                              uint64_t n)
{
    uint64_t s = req->offset / 512 + n;
    uint8_t *at = d->now + s * 512;

    if (req->op == TN_DISK_READ || req->op == TN_DISK_WRITE) {
        if (tn_disk_copy(req->op, req->iov, req->iovs, pos, at, 512) != 512)
            d->broken = true;
    } else {
        memset(at, 0, 512);
    }
    if (req->op == TN_DISK_READ)
        return;
    sim_touch(d, s);
    if (req->flags & TN_DISK_F_FUA) {
        memcpy(d->safe + s * 512, at, 512);
        d->flags[s] &= (uint8_t)~SIM_SNAP; /* what a flush under way has is older */
    }
}

static inline void sim_finish(struct sim *d, struct tn_disk_req *req)
{
    struct tn_disk_pos pos = {0, 0};
    int result = tn_disk_check(&d->disk, req);

    if (result < 0)
        d->broken = true;
    else if (d->fail_ops >> req->op & 1)
        result = d->fail;
    else if (req->op == TN_DISK_FLUSH)
        sim_flushed(d);
    else
        for (uint64_t n = 0; n < req->len / 512; n++)
            sim_sector(d, req, &pos, n);
    req->done(req, result);
}

static inline void sim_submit(void *ctx, struct tn_disk_req *req)
{
    struct sim *d = (struct sim *)ctx;

    if (req->op <= TN_DISK_ZERO)
        d->ops[req->op]++;
    if (req->flags & TN_DISK_F_FUA)
        d->fua++;
    if (req->op == TN_DISK_FLUSH)
        sim_snap(d);
    if (d->async && d->count < SIM_WAITING)
        d->waiting[d->count++] = req;
    else
        sim_finish(d, req);
}

static inline void sim_kick(void *ctx)
{
    struct sim *d = (struct sim *)ctx;

    d->kicked = d->count;
}

/* Finishes one of those that wait and were kicked, the pick-th. */
static inline bool sim_step(struct sim *d, uint64_t pick)
{
    struct tn_disk_req *req;

    if (d->kicked == 0)
        return false;
    pick %= d->kicked;
    req = d->waiting[pick];
    d->count--;
    d->kicked--;
    memmove(d->waiting + pick, d->waiting + pick + 1, (d->count - pick) * sizeof(*d->waiting));
    sim_finish(d, req);
    return true;
}

static inline void sim_drain(void *ctx)
{
    struct sim *d = (struct sim *)ctx;

    sim_kick(d);
    while (sim_step(d, d->count / 2))
        sim_kick(d);
}

/* The power fails: requests under way are done in part, what is not safe survives in part. */
static inline void sim_crash(struct sim *d, uint64_t (*random)(void *ctx), void *ctx)
{
    uint8_t keep[512];

    while (d->count > 0) {
        struct tn_disk_req *req = d->waiting[--d->count];
        struct tn_disk_pos pos = {0, 0};

        for (uint64_t n = 0; req->op != TN_DISK_READ && n < req->len / 512; n++) {
            uint8_t *at = d->now + req->offset + n * 512;

            memcpy(keep, at, 512);
            sim_sector(d, req, &pos, n);
            if (random(ctx) & 1)
                memcpy(at, keep, 512);
        }
    }
    d->kicked = 0;
    for (; d->listed > 0; sim_unlist(d, 0)) {
        uint64_t s = d->list[0];

        if (random(ctx) & 1)
            memcpy(d->safe + s * 512, d->now + s * 512, 512);
        else
            memcpy(d->now + s * 512, d->safe + s * 512, 512);
    }
}

static inline void sim_init(struct sim *d, uint64_t size, bool read_only)
{
    static const struct tn_disk_ops ops = {sim_submit, sim_kick, sim_drain};

    memset(d, 0, sizeof(*d));
    d->disk.ops = &ops;
    d->disk.ctx = d;
    d->disk.size = size;
    d->disk.block_size = 512;
    d->disk.physical_block = 512;
    d->disk.read_only = read_only;
    d->disk.discard = !read_only;
    d->disk.zero = !read_only;
    d->now = (uint8_t *)calloc(1, size);
    d->safe = (uint8_t *)calloc(1, size);
    d->snap = (uint8_t *)calloc(1, size);
    d->flags = (uint8_t *)calloc(1, size / 512);
    d->list = (uint32_t *)calloc(4, size / 512);
    if (!d->now || !d->safe || !d->snap || !d->flags || !d->list)
        abort();
}

static inline void sim_free(struct sim *d)
{
    free(d->now);
    free(d->safe);
    free(d->snap);
    free(d->flags);
    free(d->list);
}

#endif
