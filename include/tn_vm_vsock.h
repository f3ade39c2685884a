/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vm_vsock - a machine's socket device, with Unix sockets on the host's side.
 *
 * WHAT
 *   Joins tn_virtio_vsock to tn_vsock_unix: a program on the host reaches the guest's port P by
 *   connecting to PATH and saying "CONNECT P", the guest reaches the socket PATH_P.
 *
 * USAGE
 *   static struct tn_vm_vsock vsock;
 *   struct tn_vm_vsock_cfg cfg = {3, "/run/guest.vsock", 0};
 *   struct tn_mem_region table[1];
 *   struct tn_mem mem;
 *
 *   tn_mem_init(&mem, table, 1);
 *   if (tn_vm_vsock_init(&vsock, &cfg, TN_VIRTIO_F_RING, &mem) < 0)
 *       return 1;
 *   tn_vm_vsock_close(&vsock);
 *
 * COMPOSITION
 *   tn_vm_devices: tn_vm_vsock_init, tn_vm_virtio_init of vsock.slot with vsock.model.virtio, then
 *   tn_vm_vsock_listen.
 *
 * GUEST TRUST
 *   All that a guest says is checked by the model. It can have as many sockets of the host as cfg
 *   says, only those whose path begins with the one of cfg, and 128 KiB for each of them.
 *
 * MEMORY
 *   The caller owns struct tn_vm_vsock, which does not move while it is open.
 *
 * THREADS
 *   The slot's lock guards the model and the sockets. init, listen and close on the loop's thread,
 *   or while it does not run.
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

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_VM_VSOCK_BUFFER (64u << 10) /* bytes that are kept for a connection, each way */

struct tn_vm_vsock {
    struct tn_vm_virtio slot;
    struct tn_virtio_vsock model;
    struct tn_virtio_vsock_conn *conn; /* NULL: closed */
    struct tn_vsock_unix host;
    struct tn_vm_vsock_cfg cfg; /* as it was made; path is its own */
};

/*
 * Makes the device, without a place. Returns 0; TN_EINVAL: a CID or a number of connections outside
 * its limits, or no path; TN_ESYS. *vsock is closed then.
 */
TN_API int tn_vm_vsock_init(struct tn_vm_vsock *vsock, const struct tn_vm_vsock_cfg *cfg,
                            uint64_t ring_features, const struct tn_mem *mem);

/*
 * Serves it, once it has its place. Returns 0, or the errors of tn_vsock_unix_init: *vsock is then
 * to be closed.
 */
TN_API int tn_vm_vsock_listen(struct tn_vm_vsock *vsock, struct tn_loop *loop);

/*
 * Goes on after a restore. The slot's lock is not held.
 */
TN_API void tn_vm_vsock_wake(struct tn_vm_vsock *vsock);

/*
 * Takes the device out of its place, and closes all. Nothing on a closed one.
 */
TN_API void tn_vm_vsock_close(struct tn_vm_vsock *vsock);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

TN_API int tn_vm_vsock_init(struct tn_vm_vsock *vsock, const struct tn_vm_vsock_cfg *cfg,
                            uint64_t ring_features, const struct tn_mem *mem)
{
    struct tn_virtio_vsock_cfg model;
    int r = TN_EINVAL, saved;

    memset(vsock, 0, sizeof(*vsock));
    vsock->cfg = *cfg;
    vsock->cfg.conns = cfg->conns ? cfg->conns : TN_VM_VSOCK_CONNS;
    vsock->cfg.path = NULL;
    if (!cfg->path || vsock->cfg.conns > TN_VSOCK_UNIX_CONNS_MAX)
        return r;
    vsock->cfg.path = strdup(cfg->path);
    vsock->conn = (struct tn_virtio_vsock_conn *)calloc(vsock->cfg.conns, sizeof(*vsock->conn));
    r = vsock->conn && vsock->cfg.path ? TN_OK : TN_ESYS;
    memset(&model, 0, sizeof(model));
    model.mem = mem;
    model.queue_size = TN_VIRTIO_VSOCK_QUEUE_MAX;
    model.ring_features = ring_features;
    model.guest_cid = cfg->cid;
    model.seqpacket = true;
    model.buf_alloc = TN_VM_VSOCK_BUFFER;
    model.conn = vsock->conn;
    model.conns = vsock->cfg.conns;
    model.ops = &tn_vsock_unix_ops;
    model.ctx = &vsock->host;
    if (r >= 0)
        r = tn_virtio_vsock_init(&vsock->model, &model);
    if (r < 0) {
        saved = errno;
        tn_vm_vsock_close(vsock);
        errno = saved;
    }
    return r;
}

TN_API int tn_vm_vsock_listen(struct tn_vm_vsock *vsock, struct tn_loop *loop)
{
    struct tn_vsock_unix_cfg cfg;

    memset(&cfg, 0, sizeof(cfg));
    cfg.path = vsock->cfg.path;
    cfg.device = &vsock->model;
    cfg.lock = &vsock->slot.lock;
    cfg.loop = loop;
    cfg.conns = vsock->cfg.conns;
    cfg.seqpacket = true;
    return tn_vsock_unix_init(&vsock->host, &cfg);
}

TN_API void tn_vm_vsock_wake(struct tn_vm_vsock *vsock)
{
    pthread_mutex_lock(&vsock->slot.lock);
    (void)tn_virtio_vsock_flush(&vsock->model);
    pthread_mutex_unlock(&vsock->slot.lock);
}

TN_API void tn_vm_vsock_close(struct tn_vm_vsock *vsock)
{
    tn_vsock_unix_close(&vsock->host);
    tn_vm_virtio_close(&vsock->slot);
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
