/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vsock_vhost - a virtio socket device whose packets the host's kernel moves: vhost-vsock.
 *
 * WHAT
 *   In place of tn_virtio_vsock: programs on the host reach the guest by AF_VSOCK and its CID, and
 *   the guest reaches theirs at CID 2. The kernel has the queues of the packets, the device the
 *   rest: negotiation, resets, the event queue, what is saved.
 *
 * USAGE
 *   static struct tn_vsock_vhost vsock;
 *   static bool turn;
 *   static int kick[TN_VHOST_RINGS], call;
 *   static void again(void *ctx)
 *   {
 *       (void)ctx;
 *       turn = true;
 *   }
 *   static void events(void *ctx, int *kicks, int *calls)
 *   {
 *       (void)ctx;
 *       kicks[0] = kick[0];
 *       kicks[1] = kick[1];
 *       *calls = call;
 *   }
 *   ---
 *   static uint8_t ram[1u << 16];
 *   struct tn_mem_region table[1];
 *   struct tn_mem mem;
 *   struct tn_vsock_vhost_cfg cfg = {&mem, 64, TN_VIRTIO_F_RING, 3, true, again, events, NULL};
 *
 *   tn_mem_init(&mem, table, 1);
 *   if (tn_mem_add(&mem, 0, ram, sizeof(ram)) < 0 || tn_vsock_vhost_init(&vsock, &cfg) < 0)
 *       return vsock.vhost.phase == TN_VHOST_CID ? 1 : 2;
 *   if (turn)
 *       tn_vsock_vhost_flush(&vsock);
 *   tn_vsock_vhost_close(&vsock);
 *
 * COMPOSITION
 *   A transport serves vsock.virtio; the notifications of queues 0 and 1 are eventfds that the
 *   kernel reads while it has the queues. It interrupts by itself: the transport's interrupt status
 *   has to say so all the time, as tn_virtio_mmio's always does. Before a snapshot:
 *   tn_vsock_vhost_quiesce, tn_vsock_vhost_save. The state is tn_virtio_vsock's, and each takes the
 *   other's, as far as the features go: the kernel has no packed rings.
 *
 * GUEST TRUST
 *   The kernel reads the rings and the packets, and bears a hostile driver. The event queue is
 *   checked here; so is a saved state.
 *
 * MEMORY
 *   The caller owns all, and keeps it in place while it is in use. One file descriptor, and a
 *   thread of the kernel's. cfg.mem outlives the device.
 *
 * THREADS
 *   One call at a time on one struct, the transport's calls among them. again and events run inside
 *   them.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Virtual I/O Device (VIRTIO) 1.2, section 5.10. Linux: <linux/vhost.h>.
 *
 * LIMITS
 *   Linux, with the module vhost_vsock. A CID is one guest's alone, on the whole host, and all of
 *   the host's programs may connect to it. The kernel serves a ring that its driver breaks no more,
 *   without a word. What it writes is not logged: each time that it gives the queues back, all of
 *   memory counts as written, where that is tracked. Connections are not saved: a restored guest is
 *   told that they are gone (5.10.6.7.1).
 */
#ifndef TN_VSOCK_VHOST_H
#define TN_VSOCK_VHOST_H

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

#include "tn_iov.h"
#include "tn_mem.h"
#include "tn_vhost.h"
#include "tn_virtio.h"
#include "tn_virtio_vsock.h"
#include "tn_virtq.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

struct tn_vsock_vhost_cfg {
    const struct tn_mem *mem;
    uint16_t queue_size;    /* a power of two up to TN_VIRTIO_VSOCK_QUEUE_MAX */
    uint64_t ring_features; /* those of TN_VIRTIO_F_RING to offer, if the kernel has them */
    uint64_t guest_cid;     /* 3 to 0xfffffffe */
    bool seqpacket;         /* offer it, if the kernel has it */
    /* Call tn_vsock_vhost_flush, in the next turn of the event loop. */
    void (*again)(void *ctx);
    /*
     * The queues go to the kernel now, from tn_vsock_vhost_flush: kick is where each one's
     * notifications come, which nobody else reads any more, call is what interrupts the driver.
     */
    void (*events)(void *ctx, int kick[TN_VHOST_RINGS], int *call);
    void *ctx; /* handed to both */
};

/* Read-only to callers, except through the functions. */
struct tn_vsock_vhost {
    struct tn_virtio virtio;
    struct tn_virtio_queue queue[TN_VIRTIO_VSOCK_QUEUES];
    struct tn_vsock_vhost_cfg cfg; /* guest_cid: the one that the guest reads */
    uint8_t config[TN_VIRTIO_VSOCK_CONFIG];
    struct tn_vhost vhost; /* phase: at what it was when it failed */
    uint64_t cid;          /* that the kernel knows the guest by, while vhost is open */
    bool away;             /* the kernel has the queues */
    bool used;             /* it had them since vhost was opened: there may be connections */
    bool still;            /* until tn_vsock_vhost_wake */
    bool event;            /* a transport reset event waits for a buffer */
};

/*
 * Makes a device that was just reset, and claims its CID. Returns 0; TN_EINVAL when something is
 * missing or outside the limits above; the errors of tn_vhost_vsock_init, of which TN_EEXIST says
 * that another guest has the CID. *d is closed then.
 */
TN_API int tn_vsock_vhost_init(struct tn_vsock_vhost *d, const struct tn_vsock_vhost_cfg *cfg);

/*
 * Goes on with what waits: hands the queues over once the driver runs the device, and sends the
 * event. If the kernel refuses the queues, the driver is told that the device needs a reset.
 */
TN_API void tn_vsock_vhost_flush(struct tn_vsock_vhost *d);

/*
 * Takes the queues back: nothing moves, and guest memory stays as it is, until tn_vsock_vhost_wake,
 * which goes on, also after a restore. Connections stay.
 */
TN_API void tn_vsock_vhost_quiesce(struct tn_vsock_vhost *d);
TN_API void tn_vsock_vhost_wake(struct tn_vsock_vhost *d);

/*
 * Another CID, for the copy of a guest: the host's ends of all connections are reset, and the guest
 * reads the CID anew, and is told that they are gone. Returns 0, also when it is the CID already,
 * which changes nothing; TN_EINVAL, or the errors of tn_vhost_vsock_init: *d is as before then.
 */
TN_API int tn_vsock_vhost_set_cid(struct tn_vsock_vhost *d, uint64_t guest_cid);

/*
 * Copies the state out, after tn_vsock_vhost_quiesce; connections are not in it.
 */
TN_API void tn_vsock_vhost_save(const struct tn_vsock_vhost *d, struct tn_virtio_vsock_state *out);

/*
 * Takes a saved state over: connections end, and if a driver runs the device it will be told so by
 * a transport reset event. Then call tn_vsock_vhost_set_cid, if the CID is to be another, and
 * tn_vsock_vhost_wake, which claims the state's if the kernel does not know the guest by it.
 * Returns 0; TN_EUNSUP for another version, TN_EFORMAT for a state that no device can be in (d is
 * unchanged), and the errors of tn_virtio_restore (d stands still, until tn_vsock_vhost_wake).
 */
TN_API int tn_vsock_vhost_restore(struct tn_vsock_vhost *d,
                                  const struct tn_virtio_vsock_state *from);

/*
 * Ends it all: the CID is free again. Nothing on a closed one. errno is kept.
 */
TN_API void tn_vsock_vhost_close(struct tn_vsock_vhost *d);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#define TN_VSOCK_VHOST_IOV_ (2 * TN_VIRTIO_VSOCK_QUEUE_MAX)

static inline bool tn_vsock_vhost_cid_ok_(uint64_t cid)
{
    return cid > TN_VIRTIO_VSOCK_HOST && cid < 0xffffffffu;
}

/*
 * The queues are the device's again. The kernel interrupted by itself: the driver is told once
 * more, since it may not have seen the last time. At a reset they are stopped already.
 */
static inline void tn_vsock_vhost_take_back_(struct tn_vsock_vhost *d)
{
    const struct tn_mem *mem = d->cfg.mem;
    struct tn_virtq_state q[TN_VHOST_RINGS];
    int r = TN_OK, stopped;

    if (!d->away)
        return;
    d->away = false;
    for (uint32_t i = 0; i < TN_VHOST_RINGS; i++) {
        stopped = tn_vhost_stop(&d->vhost, i, &q[i]);
        r = stopped < 0 ? stopped : r;
    }
    if (r < 0)
        tn_vhost_close(&d->vhost);
    for (uint32_t i = 0; i < mem->count; i++)
        tn_mem_mark(mem, mem->region[i].gpa, mem->region[i].size);
    if (!tn_virtio_live(&d->virtio))
        return;
    for (uint32_t i = 0; i < TN_VHOST_RINGS && r == TN_OK; i++) {
        r = tn_virtq_restore(&d->queue[i].q, mem, &q[i]);
        tn_virtio_interrupt_(&d->virtio, i);
    }
    if (r < 0)
        tn_virtio_needs_reset(&d->virtio);
}

/* Claims a CID that the kernel does not know the guest by; the one before is free again. */
static inline int tn_vsock_vhost_claim_(struct tn_vsock_vhost *d, uint64_t cid)
{
    struct tn_vhost vhost;
    int r = tn_vhost_vsock_init(&vhost, (uint32_t)cid);

    if (r < 0) {
        d->vhost.phase = vhost.phase;
        return r;
    }
    tn_vsock_vhost_take_back_(d);
    tn_vhost_close(&d->vhost);
    d->vhost = vhost;
    d->cid = cid;
    d->used = false;
    return TN_OK;
}

static inline bool tn_vsock_vhost_claimed_(const struct tn_vsock_vhost *d, uint64_t cid)
{
    return d->vhost.fd >= 0 && d->cid == cid;
}

/* Hands the queues over; nothing if the driver has not enabled both. */
static inline int tn_vsock_vhost_hand_over_(struct tn_vsock_vhost *d)
{
    struct tn_virtq_state q[TN_VHOST_RINGS];
    int kick[TN_VHOST_RINGS] = {-1, -1}, call = -1, r = TN_OK;

    for (uint32_t i = 0; i < TN_VHOST_RINGS; i++) {
        tn_virtq_save(&d->queue[i].q, &q[i]);
        if (q[i].started == 0)
            return TN_OK;
    }
    if (!tn_vsock_vhost_claimed_(d, d->cfg.guest_cid))
        r = tn_vsock_vhost_claim_(d, d->cfg.guest_cid);
    if (r == TN_OK)
        r = tn_vhost_setup(&d->vhost, d->cfg.mem, d->virtio.features, NULL, 0);
    if (r == TN_OK)
        d->cfg.events(d->cfg.ctx, kick, &call);
    for (uint32_t i = 0; i < TN_VHOST_RINGS && r == TN_OK; i++)
        r = tn_vhost_start(&d->vhost, i, &q[i], kick[i], call, -1);
    if (r < 0) {
        tn_vhost_close(&d->vhost);
        return r;
    }
    d->away = true;
    d->used = true;
    return TN_OK;
}

/* Puts the event into the next chain that has room for it. Returns 1; 0: there is none. */
static inline int tn_vsock_vhost_put_(struct tn_vsock_vhost *d)
{
    static const uint8_t transport_reset[4] = {0, 0, 0, 0}; /* its id is 0 */
    struct tn_virtq *q = &d->queue[TN_VIRTIO_VSOCK_EVENT].q;
    struct tn_iov iov[TN_VSOCK_VHOST_IOV_];
    struct tn_virtq_chain chain;

    for (uint32_t left = d->cfg.queue_size; left > 0; left--) {
        int r = tn_virtq_pop(q, &chain, iov, TN_VSOCK_VHOST_IOV_);

        if (r > 0 && chain.readable > 0)
            return TN_EPROTO;
        if (r < 0)
            return r;
        if (r == 0 && !tn_virtq_notify_enable(q))
            return 0;
        if (r == 0)
            continue;
        if (chain.writable_len >= sizeof(transport_reset)) {
            (void)tn_iov_scatter(iov, chain.writable, 0, transport_reset, sizeof(transport_reset));
            (void)tn_virtq_push(q, &chain, sizeof(transport_reset));
            return 1;
        }
        (void)tn_virtq_push(q, &chain, 0);
    }
    d->cfg.again(d->cfg.ctx);
    return 0;
}

/* Tells the guest that its connections are gone (5.10.6.7). */
static inline void tn_vsock_vhost_event_(struct tn_vsock_vhost *d)
{
    int r;

    if (!d->event || d->still || !tn_virtio_live(&d->virtio) ||
        !d->queue[TN_VIRTIO_VSOCK_EVENT].q.started)
        return;
    r = tn_vsock_vhost_put_(d);
    if (r < 0) {
        tn_vsock_vhost_take_back_(d);
        tn_virtio_needs_reset(&d->virtio);
        return;
    }
    d->event = r == 0;
    tn_virtio_signal(&d->virtio, TN_VIRTIO_VSOCK_EVENT);
}

static inline int tn_vsock_vhost_on_activate_(void *ctx)
{
    struct tn_vsock_vhost *d = (struct tn_vsock_vhost *)ctx;

    d->cfg.again(d->cfg.ctx);
    return TN_OK;
}

static inline void tn_vsock_vhost_on_reset_(void *ctx)
{
    struct tn_vsock_vhost *d = (struct tn_vsock_vhost *)ctx;

    d->event = false;
    tn_vsock_vhost_take_back_(d);
}

/* What a driver notifies of the other queues before the kernel has them, it hears with them. */
static inline void tn_vsock_vhost_on_notify_(void *ctx, uint32_t queue)
{
    if (queue == TN_VIRTIO_VSOCK_EVENT)
        tn_vsock_vhost_event_((struct tn_vsock_vhost *)ctx);
}

static const struct tn_virtio_ops tn_vsock_vhost_ops_ = {
    NULL, tn_vsock_vhost_on_activate_, tn_vsock_vhost_on_reset_, tn_vsock_vhost_on_notify_, NULL};

/* ---- the API ---- */

TN_API int tn_vsock_vhost_init(struct tn_vsock_vhost *d, const struct tn_vsock_vhost_cfg *cfg)
{
    struct tn_virtio_cfg v;
    int r;

    __builtin_memset(d, 0, sizeof(*d));
    d->vhost.fd = -1;
    if (!cfg->mem || !cfg->again || !cfg->events || cfg->queue_size > TN_VIRTIO_VSOCK_QUEUE_MAX ||
        !tn_vsock_vhost_cid_ok_(cfg->guest_cid) || (cfg->ring_features & ~TN_VIRTIO_F_RING) != 0)
        return TN_EINVAL;
    d->cfg = *cfg;
    tn_put_(d->config, 8, cfg->guest_cid);
    r = tn_vsock_vhost_claim_(d, cfg->guest_cid);
    if (r < 0)
        return r;
    v.device_id = TN_VIRTIO_VSOCK_ID;
    v.features = TN_VIRTIO_VSOCK_F_STREAM | cfg->ring_features;
    if (cfg->seqpacket)
        v.features |= TN_VIRTIO_VSOCK_F_SEQPACKET;
    v.features = tn_vhost_features(&d->vhost, v.features);
    v.queue_size = cfg->queue_size;
    v.queues = TN_VIRTIO_VSOCK_QUEUES;
    v.queue = d->queue;
    v.mem = cfg->mem;
    v.config = d->config;
    v.config_len = TN_VIRTIO_VSOCK_CONFIG;
    v.ops = &tn_vsock_vhost_ops_;
    v.ctx = d;
    r = tn_virtio_init(&d->virtio, &v);
    if (r < 0)
        tn_vhost_close(&d->vhost);
    return r;
}

TN_API void tn_vsock_vhost_flush(struct tn_vsock_vhost *d)
{
    if (d->still || !tn_virtio_live(&d->virtio))
        return;
    if (!d->away && tn_vsock_vhost_hand_over_(d) < 0)
        tn_virtio_needs_reset(&d->virtio);
    tn_vsock_vhost_event_(d);
}

TN_API void tn_vsock_vhost_quiesce(struct tn_vsock_vhost *d)
{
    d->still = true;
    tn_vsock_vhost_take_back_(d);
}

TN_API void tn_vsock_vhost_wake(struct tn_vsock_vhost *d)
{
    d->still = false;
    tn_vsock_vhost_flush(d);
}

TN_API int tn_vsock_vhost_set_cid(struct tn_vsock_vhost *d, uint64_t guest_cid)
{
    bool claimed = tn_vsock_vhost_claimed_(d, guest_cid), known = guest_cid == d->cfg.guest_cid;
    int r = TN_OK;

    if (!tn_vsock_vhost_cid_ok_(guest_cid))
        return TN_EINVAL;
    if (claimed && known)
        return TN_OK;
    if (!claimed)
        r = tn_vsock_vhost_claim_(d, guest_cid);
    if (r < 0)
        return r;
    d->cfg.guest_cid = guest_cid;
    tn_put_(d->config, 8, guest_cid);
    if (!known)
        tn_virtio_config_changed(&d->virtio);
    d->event = tn_virtio_live(&d->virtio);
    if (d->event)
        d->cfg.again(d->cfg.ctx);
    return TN_OK;
}

TN_API void tn_vsock_vhost_save(const struct tn_vsock_vhost *d, struct tn_virtio_vsock_state *out)
{
    out->version = TN_VIRTIO_VSOCK_VERSION;
    out->zero = 0;
    out->guest_cid = d->cfg.guest_cid;
    tn_virtio_save(&d->virtio, &out->virtio);
}

/* Between calls no chain is held, unless its ring is broken. */
static inline bool tn_vsock_vhost_valid_(const struct tn_virtio_vsock_state *s)
{
    for (uint32_t i = 0; i < TN_VIRTIO_VSOCK_QUEUES; i++) {
        const struct tn_virtq_state *ring = &s->virtio.queue[i].ring;

        if (ring->next_avail != ring->next_used && ring->error == TN_OK)
            return false;
    }
    return s->zero == 0 && tn_vsock_vhost_cid_ok_(s->guest_cid);
}

TN_API int tn_vsock_vhost_restore(struct tn_vsock_vhost *d,
                                  const struct tn_virtio_vsock_state *from)
{
    struct tn_virtio_vsock_state copy = *from;
    int r;

    if (copy.version != TN_VIRTIO_VSOCK_VERSION)
        return TN_EUNSUP;
    if (!tn_vsock_vhost_valid_(&copy))
        return TN_EFORMAT;
    tn_vsock_vhost_quiesce(d);
    r = tn_virtio_restore(&d->virtio, &copy.virtio);
    d->event = tn_virtio_live(&d->virtio) && (d->event || r == TN_OK);
    if (r < 0)
        return r;
    d->cfg.guest_cid = copy.guest_cid;
    tn_put_(d->config, 8, copy.guest_cid);
    if (d->used) /* resets the host's ends */
        tn_vhost_close(&d->vhost);
    return TN_OK;
}

TN_API void tn_vsock_vhost_close(struct tn_vsock_vhost *d)
{
    int saved = errno;

    tn_vsock_vhost_take_back_(d);
    tn_vhost_close(&d->vhost);
    errno = saved;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VSOCK_VHOST_H */
