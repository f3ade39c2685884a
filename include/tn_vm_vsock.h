/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vm_vsock - a machine's socket device, with Unix sockets or AF_VSOCK on the host's side.
 *
 * WHAT
 *   Joins tn_virtio_vsock to tn_vsock_unix: a program on the host reaches the guest's port P by
 *   connecting to PATH and saying "CONNECT P", the guest reaches the socket PATH_P. Or puts
 *   tn_vsock_vhost into a machine: the host's programs use AF_VSOCK and the guest's CID.
 *
 * USAGE
 *   static struct tn_vm_vsock vsock;
 *   struct tn_vm_vsock_cfg cfg = {3, "/run/guest.vsock", 0, false};
 *   struct tn_mem_region table[1];
 *   struct tn_mem mem;
 *
 *   tn_mem_init(&mem, table, 1);
 *   if (tn_vm_vsock_init(&vsock, &cfg, TN_VIRTIO_F_RING, &mem) < 0)
 *       return 1;
 *   tn_vm_vsock_close(&vsock);
 *
 * COMPOSITION
 *   tn_vm_devices: tn_vm_vsock_init, tn_vm_virtio_init of vsock.slot with tn_vm_vsock_virtio, then
 *   tn_vm_vsock_listen.
 *
 * GUEST TRUST
 *   All that a guest says is checked by the model, or by the kernel. With the model it can have as
 *   many sockets of the host as cfg says, only those whose path begins with the one of cfg, and
 *   128 KiB for each of them.
 *
 * MEMORY
 *   The caller owns struct tn_vm_vsock, which does not move while it is open.
 *
 * THREADS
 *   The slot's lock guards the model and the sockets. All functions on the loop's thread, or while
 *   it does not run.
 *
 * CONFIG
 *   none.
 *
 * LIMITS
 *   Connections are not saved: after a restore the guest is told that they are gone.
 */
#ifndef TN_VM_VSOCK_H
#define TN_VM_VSOCK_H

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
#include <stdlib.h>
#include <string.h>

#include "tn_loop.h"
#include "tn_mem.h"
#include "tn_virtio_vsock.h"
#include "tn_vm_board.h"
#include "tn_vm_virtio.h"
#include "tn_vsock_unix.h"
#include "tn_vsock_vhost.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_VM_VSOCK_BUFFER (64u << 10) /* bytes that are kept for a connection, each way */

struct tn_vm_vsock {
    struct tn_vm_virtio slot;
    struct tn_virtio_vsock model; /* without vhost */
    struct tn_virtio_vsock_conn *conn;
    struct tn_vsock_unix host;
    struct tn_vsock_vhost kernel; /* with it */
    struct tn_loop_event again;   /* the kernel can have the queues */
    struct tn_vm_vsock_cfg cfg;   /* as it was made; path is its own */
};

/*
 * Makes the device, without a place. Returns 0; TN_EINVAL: a CID or a number of connections outside
 * its limits, no path, or one with vhost; the errors of tn_vsock_vhost_init; TN_ESYS. *vsock is
 * closed then.
 */
TN_API int tn_vm_vsock_init(struct tn_vm_vsock *vsock, const struct tn_vm_vsock_cfg *cfg,
                            uint64_t ring_features, const struct tn_mem *mem);

/*
 * The device, for its place.
 */
TN_API struct tn_virtio *tn_vm_vsock_virtio(struct tn_vm_vsock *vsock);

/*
 * Serves it, once it has its place. Returns 0, TN_ESYS, or the errors of tn_vsock_unix_init: *vsock
 * is then to be closed.
 */
TN_API int tn_vm_vsock_listen(struct tn_vm_vsock *vsock, struct tn_loop *loop);

/*
 * Brings it to rest, and goes on, also after a restore. The slot's lock is not held.
 */
TN_API void tn_vm_vsock_quiesce(struct tn_vm_vsock *vsock);
TN_API void tn_vm_vsock_wake(struct tn_vm_vsock *vsock);

/*
 * tn_virtio_vsock_save, _restore and _set_cid, or those of tn_vsock_vhost; a state may be of either
 * kind. It is at rest, and the slot's lock is held.
 */
TN_API void tn_vm_vsock_save(const struct tn_vm_vsock *vsock, struct tn_virtio_vsock_state *out);
TN_API int tn_vm_vsock_restore(struct tn_vm_vsock *vsock, const struct tn_virtio_vsock_state *from);
TN_API int tn_vm_vsock_set_cid(struct tn_vm_vsock *vsock, uint32_t cid);

/*
 * Takes the device out of its place, and closes all. Nothing on a closed one.
 */
TN_API void tn_vm_vsock_close(struct tn_vm_vsock *vsock);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* ---- with vhost ---- */

static inline void tn_vm_vsock_again_(void *ctx)
{
    (void)tn_loop_event_signal(&((struct tn_vm_vsock *)ctx)->again);
}

static inline void tn_vm_vsock_on_again_(void *ctx, uint64_t count)
{
    struct tn_vm_vsock *vsock = (struct tn_vm_vsock *)ctx;

    (void)count;
    pthread_mutex_lock(&vsock->slot.lock);
    tn_vsock_vhost_flush(&vsock->kernel);
    pthread_mutex_unlock(&vsock->slot.lock);
}

/*
 * The kernel listens to the queues' notifications, and interrupts, by itself. The loop need not
 * know of these queues again: what a driver notifies before they are handed over counts as well.
 */
static inline void tn_vm_vsock_events_(void *ctx, int kick[TN_VHOST_RINGS], int *call)
{
    struct tn_vm_vsock *vsock = (struct tn_vm_vsock *)ctx;

    for (uint32_t i = 0; i < TN_VHOST_RINGS; i++) {
        struct tn_loop_event *event = &vsock->slot.notify[i].event;

        (void)tn_loop_mod(event->loop, &event->source, 0);
        kick[i] = event->source.fd;
    }
    *call = vsock->slot.irq;
    vsock->slot.mmio.always = TN_VIRTIO_MMIO_INT_VRING;
}

static inline int tn_vm_vsock_vhost_(struct tn_vm_vsock *vsock, uint64_t ring_features,
                                     const struct tn_mem *mem)
{
    struct tn_vsock_vhost_cfg kernel;

    memset(&kernel, 0, sizeof(kernel));
    kernel.mem = mem;
    kernel.queue_size = TN_VIRTIO_VSOCK_QUEUE_MAX;
    kernel.ring_features = ring_features;
    kernel.guest_cid = vsock->cfg.cid;
    kernel.seqpacket = true;
    kernel.again = tn_vm_vsock_again_;
    kernel.events = tn_vm_vsock_events_;
    kernel.ctx = vsock;
    return tn_vsock_vhost_init(&vsock->kernel, &kernel);
}

/* ---- without ---- */

static inline int tn_vm_vsock_unix_(struct tn_vm_vsock *vsock, const char *path,
                                    uint64_t ring_features, const struct tn_mem *mem)
{
    struct tn_virtio_vsock_cfg model;

    vsock->cfg.path = strdup(path);
    vsock->conn = (struct tn_virtio_vsock_conn *)calloc(vsock->cfg.conns, sizeof(*vsock->conn));
    if (!vsock->conn || !vsock->cfg.path)
        return TN_ESYS;
    memset(&model, 0, sizeof(model));
    model.mem = mem;
    model.queue_size = TN_VIRTIO_VSOCK_QUEUE_MAX;
    model.ring_features = ring_features;
    model.guest_cid = vsock->cfg.cid;
    model.seqpacket = true;
    model.buf_alloc = TN_VM_VSOCK_BUFFER;
    model.conn = vsock->conn;
    model.conns = vsock->cfg.conns;
    model.ops = &tn_vsock_unix_ops;
    model.ctx = &vsock->host;
    return tn_virtio_vsock_init(&vsock->model, &model);
}

/* ---- the API ---- */

TN_API int tn_vm_vsock_init(struct tn_vm_vsock *vsock, const struct tn_vm_vsock_cfg *cfg,
                            uint64_t ring_features, const struct tn_mem *mem)
{
    int r, saved;

    memset(vsock, 0, sizeof(*vsock));
    vsock->kernel.vhost.fd = vsock->again.source.fd = -1;
    vsock->cfg = *cfg;
    vsock->cfg.conns = cfg->conns ? cfg->conns : TN_VM_VSOCK_CONNS;
    vsock->cfg.path = NULL;
    if (vsock->cfg.conns > TN_VSOCK_UNIX_CONNS_MAX ||
        (cfg->vhost ? cfg->path && *cfg->path : !cfg->path))
        return TN_EINVAL;
    r = cfg->vhost ? tn_vm_vsock_vhost_(vsock, ring_features, mem)
                   : tn_vm_vsock_unix_(vsock, cfg->path, ring_features, mem);
    if (r < 0) {
        saved = errno;
        tn_vm_vsock_close(vsock);
        errno = saved;
    }
    return r;
}

TN_API struct tn_virtio *tn_vm_vsock_virtio(struct tn_vm_vsock *vsock)
{
    return vsock->cfg.vhost ? &vsock->kernel.virtio : &vsock->model.virtio;
}

TN_API int tn_vm_vsock_listen(struct tn_vm_vsock *vsock, struct tn_loop *loop)
{
    struct tn_vsock_unix_cfg cfg;

    if (vsock->cfg.vhost)
        return tn_loop_event_init(&vsock->again, loop, tn_vm_vsock_on_again_, vsock);
    memset(&cfg, 0, sizeof(cfg));
    cfg.path = vsock->cfg.path;
    cfg.device = &vsock->model;
    cfg.lock = &vsock->slot.lock;
    cfg.loop = loop;
    cfg.conns = vsock->cfg.conns;
    cfg.seqpacket = true;
    return tn_vsock_unix_init(&vsock->host, &cfg);
}

/* The model does nothing but what the loop, or a vCPU, calls it for. */
TN_API void tn_vm_vsock_quiesce(struct tn_vm_vsock *vsock)
{
    pthread_mutex_lock(&vsock->slot.lock);
    if (vsock->cfg.vhost)
        tn_vsock_vhost_quiesce(&vsock->kernel);
    pthread_mutex_unlock(&vsock->slot.lock);
}

TN_API void tn_vm_vsock_wake(struct tn_vm_vsock *vsock)
{
    pthread_mutex_lock(&vsock->slot.lock);
    if (vsock->cfg.vhost)
        tn_vsock_vhost_wake(&vsock->kernel);
    else
        (void)tn_virtio_vsock_flush(&vsock->model);
    pthread_mutex_unlock(&vsock->slot.lock);
}

TN_API void tn_vm_vsock_save(const struct tn_vm_vsock *vsock, struct tn_virtio_vsock_state *out)
{
    if (vsock->cfg.vhost)
        tn_vsock_vhost_save(&vsock->kernel, out);
    else
        tn_virtio_vsock_save(&vsock->model, out);
}

TN_API int tn_vm_vsock_restore(struct tn_vm_vsock *vsock, const struct tn_virtio_vsock_state *from)
{
    return vsock->cfg.vhost ? tn_vsock_vhost_restore(&vsock->kernel, from)
                            : tn_virtio_vsock_restore(&vsock->model, from);
}

TN_API int tn_vm_vsock_set_cid(struct tn_vm_vsock *vsock, uint32_t cid)
{
    return vsock->cfg.vhost ? tn_vsock_vhost_set_cid(&vsock->kernel, cid)
                            : tn_virtio_vsock_set_cid(&vsock->model, cid);
}

TN_API void tn_vm_vsock_close(struct tn_vm_vsock *vsock)
{
    tn_vsock_unix_close(&vsock->host);
    tn_vm_virtio_close(&vsock->slot);
    if (vsock->cfg.vhost) {
        tn_loop_event_close(&vsock->again);
        tn_vsock_vhost_close(&vsock->kernel);
    }
    free(vsock->conn);
    free((void *)(uintptr_t)vsock->cfg.path);
    vsock->conn = NULL;
    vsock->cfg.path = NULL;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VM_VSOCK_H */
