/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vm_balloon - a machine's memory balloon: what the guest gives up goes back to the host.
 *
 * WHAT
 *   Joins tn_virtio_balloon to a tn_hostmem: pages in the balloon, and pages that the guest reports
 *   to be free, are discarded, and are there again when they are touched.
 *
 * USAGE
 *   static struct tn_vm_balloon balloon;
 *   struct tn_hostmem_cfg pages;
 *   struct tn_hostmem ram;
 *   struct tn_mem_region table[1];
 *   struct tn_mem mem;
 *   struct tn_loop loop;
 *
 *   memset(&pages, 0, sizeof(pages));
 *   pages.size = 64u << 20;
 *   tn_mem_init(&mem, table, 1);
 *   if (tn_loop_init(&loop) < 0 || tn_hostmem_init(&ram, &pages) < 0 ||
 *       tn_mem_add(&mem, 0, ram.ptr, ram.size) < 0)
 *       return 1;
 *   if (tn_vm_balloon_init(&balloon, 1u << 20, TN_VIRTIO_F_RING, &mem, &ram, &loop) < 0)
 *       return 2;
 *   tn_vm_balloon_close(&balloon);
 *
 * COMPOSITION
 *   tn_vm_devices: tn_vm_balloon_init, then tn_vm_virtio_init of balloon.slot with
 *   balloon.model.virtio. balloon.events tells what tn_virtio_balloon's event told.
 *
 * GUEST TRUST
 *   The model asks for whole pages of RAM only. A guest that inflates and touches in turn has the
 *   kernel work for it: as much as the model's turn allows between other work of the loop.
 *
 * MEMORY
 *   The caller owns struct tn_vm_balloon, which does not move while it is open, and the RAM.
 *
 * THREADS
 *   The slot's lock guards the model. init and close on the loop's thread, or while it does not
 *   run. events is atomic.
 *
 * CONFIG
 *   none.
 *
 * LIMITS
 *   In a view of a file (a clone's memory) a page that must be zero afterwards stays: a page of
 *   zeros of its own would take no less. In memory that a userfaultfd fills nothing is given back.
 *   With huge pages only whole ones are.
 */
#ifndef TN_VM_BALLOON_H
#define TN_VM_BALLOON_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* for layer 3; of use only before the first system header */
#endif

/* -- tenon common block: the same bytes in every header (make check-common) -- */
/* clang-format off */
#ifndef TN_COMMON
#define TN_COMMON
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#if !defined(TN_API) && defined(TN_DECL_ONLY)
#define TN_API extern
#elif !defined(TN_API)
#define TN_API static inline
#endif
enum tn_err { TN_OK = 0, /* or a useful positive value; tn_strerror.h has a sentence for each */
    /* the caller's fault */ TN_EINVAL = -1, TN_ENOSPC = -2, TN_ESTATE = -3, TN_EEXIST = -4,
    /* the guest's, or a file's */ TN_EADDR = -32, TN_EFORMAT = -33, TN_ETRUNC = -34,
    TN_ERANGE = -35, TN_EOVERLAP = -36, TN_EMACHINE = -37, TN_EENTRY = -38, TN_ENOFIT = -39,
    TN_EUNSUP = -40, TN_EPROTO = -41, /* the environment's; errno tells */ TN_ESYS = -64,
    TN_EAGAIN = -65, TN_ENODEV = -66, /* ours */ TN_EBUG = -96 };
struct tn_iov { uint8_t *base; size_t len; }; /* memory in this process; as struct iovec */
/*@ requires n <= 8 && \valid_read(p + (0 .. n - 1)); assigns \nothing; */
static inline uint64_t tn_get_(const volatile uint8_t *p, unsigned n) /* little-endian load */
{
    uint64_t v = 0;
    /*@ loop invariant n <= \at(n, Pre); loop assigns n, v; loop variant n; */
    while (n > 0) v = v << 8 | p[--n];
    return v;
}
/*@ requires n <= 8 && \valid(p + (0 .. n - 1)); assigns p[0 .. n - 1]; */
static inline void tn_put_(uint8_t *p, unsigned n, uint64_t v) /* little-endian store */
{
    /*@ loop invariant i <= n; loop assigns i, p[0 .. n - 1]; loop variant n - i; */
    for (unsigned i = 0; i < n; i++) p[i] = (uint8_t)(v >> 8 * i);
}
#endif /* TN_COMMON */
/* clang-format on */

#include <pthread.h>
#include <string.h>

#include "tn_hostmem.h"
#include "tn_loop.h"
#include "tn_mem.h"
#include "tn_virtio_balloon.h"
#include "tn_vm_virtio.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

struct tn_vm_balloon {
    struct tn_vm_virtio slot;
    struct tn_virtio_balloon model;
    struct tn_loop_event again;
    const struct tn_mem *mem;
    struct tn_hostmem *ram;
    bool lazy;       /* a userfaultfd fills the RAM: nothing is given back */
    uint32_t events; /* atomic: TN_VIRTIO_BALLOON_E_*, until somebody clears them */
};

/*
 * Makes a balloon of size bytes at first, without a place. Returns 0; TN_EINVAL for a size that is
 * larger than RAM or no multiple of TN_VIRTIO_BALLOON_PAGE; TN_ESYS. *balloon is closed then.
 */
TN_API int tn_vm_balloon_init(struct tn_vm_balloon *balloon, uint64_t size, uint64_t ring_features,
                              const struct tn_mem *mem, struct tn_hostmem *ram,
                              struct tn_loop *loop);

/*
 * Goes on after a restore. The slot's lock is not held.
 */
TN_API void tn_vm_balloon_wake(struct tn_vm_balloon *balloon);

/*
 * Takes the device out of its place, and closes all. Nothing on a closed one.
 */
TN_API void tn_vm_balloon_close(struct tn_vm_balloon *balloon);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

static inline int tn_vm_balloon_discard_(void *ctx, uint64_t gpa, uint64_t len, bool zero)
{
    struct tn_vm_balloon *balloon = (struct tn_vm_balloon *)ctx;
    const uint8_t *host = tn_mem_ptr(balloon->mem, gpa, len);
    uint64_t page = balloon->ram->page, at, end;

    if (!host)
        return TN_EADDR;
    if (balloon->lazy)
        return TN_EUNSUP;
    at = (uint64_t)(host - balloon->ram->ptr);
    end = (at + len) / page * page; /* whole pages of the host's, which may be huge */
    at = (at + page - 1) / page * page;
    if (at >= end)
        return TN_OK;
    return zero ? tn_hostmem_zero(balloon->ram, at, end - at)
                : tn_hostmem_discard(balloon->ram, at, end - at);
}

static inline void tn_vm_balloon_event_(void *ctx, uint32_t what)
{
    struct tn_vm_balloon *balloon = (struct tn_vm_balloon *)ctx;

    __atomic_fetch_or(&balloon->events, what, __ATOMIC_RELEASE);
}

static inline void tn_vm_balloon_again_(void *ctx)
{
    (void)tn_loop_event_signal(&((struct tn_vm_balloon *)ctx)->again);
}

static inline void tn_vm_balloon_on_again_(void *ctx, uint64_t count)
{
    (void)count;
    tn_vm_balloon_wake((struct tn_vm_balloon *)ctx);
}

TN_API int tn_vm_balloon_init(struct tn_vm_balloon *balloon, uint64_t size, uint64_t ring_features,
                              const struct tn_mem *mem, struct tn_hostmem *ram,
                              struct tn_loop *loop)
{
    struct tn_virtio_balloon_cfg cfg;
    int r;

    memset(balloon, 0, sizeof(*balloon));
    balloon->mem = mem;
    balloon->ram = ram;
    balloon->again.source.fd = -1;
    if (size % TN_VIRTIO_BALLOON_PAGE != 0 || size / TN_VIRTIO_BALLOON_PAGE > UINT32_MAX)
        return TN_EINVAL;
    memset(&cfg, 0, sizeof(cfg));
    cfg.mem = mem;
    cfg.queue_size = TN_VIRTIO_BALLOON_QUEUE_MAX;
    cfg.ring_features = ring_features;
    cfg.features = TN_VIRTIO_BALLOON_F_STATS_VQ | TN_VIRTIO_BALLOON_F_DEFLATE_ON_OOM |
                   TN_VIRTIO_BALLOON_F_PAGE_POISON | TN_VIRTIO_BALLOON_F_PAGE_REPORTING;
    cfg.num_pages = (uint32_t)(size / TN_VIRTIO_BALLOON_PAGE);
    cfg.ctx = balloon;
    cfg.discard = tn_vm_balloon_discard_;
    cfg.event = tn_vm_balloon_event_;
    cfg.again = tn_vm_balloon_again_;
    r = tn_virtio_balloon_init(&balloon->model, &cfg);
    return r < 0 ? r : tn_loop_event_init(&balloon->again, loop, tn_vm_balloon_on_again_, balloon);
}

TN_API void tn_vm_balloon_wake(struct tn_vm_balloon *balloon)
{
    pthread_mutex_lock(&balloon->slot.lock);
    (void)tn_virtio_balloon_turn(&balloon->model);
    pthread_mutex_unlock(&balloon->slot.lock);
}

TN_API void tn_vm_balloon_close(struct tn_vm_balloon *balloon)
{
    tn_vm_virtio_close(&balloon->slot);
    tn_loop_event_close(&balloon->again);
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VM_BALLOON_H */
