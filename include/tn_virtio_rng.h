/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_virtio_rng - a virtio entropy device: the guest's buffers are filled with random bytes.
 *
 * WHAT
 *   One queue of requests. A function of the caller's writes random bytes straight into the guest's
 *   buffer, at most 64 KiB a request; a rate limit, if there is one, says when.
 *
 * USAGE
 *   static int64_t fill(void *ctx, uint8_t *buf, size_t len)
 *   {
 *       (void)ctx;
 *       for (size_t i = 0; i < len; i++)
 *           buf[i] = 4;
 *       return (int64_t)len;
 *   }
 *   static void wake(void *ctx, uint64_t ns)
 *   {
 *       *(uint64_t *)ctx = ns;
 *   }
 *   ---
 *   static uint8_t ram[1u << 16];
 *   static struct tn_virtio_rng rng;
 *   struct tn_mem_region table[1];
 *   struct tn_mem mem;
 *   uint64_t timer = UINT64_MAX;
 *   struct tn_virtio_rng_cfg cfg = {&mem, 64, TN_VIRTIO_F_RING, &timer, fill, wake, NULL, NULL};
 *
 *   tn_mem_init(&mem, table, 1);
 *   if (tn_mem_add(&mem, 0, ram, sizeof(ram)) < 0 || tn_virtio_rng_init(&rng, &cfg) < 0)
 *       return 1;
 *   if (timer != UINT64_MAX)
 *       tn_virtio_rng_wake(&rng);
 *
 * COMPOSITION
 *   A transport serves rng.virtio; fill is getrandom on Linux. wake asks for a call of
 *   tn_virtio_rng_wake so many nanoseconds later, by the event loop. No callback may call anything
 *   here.
 *
 * GUEST TRUST
 *   The ring is hostile, and a saved state may be. However much a chain claims, fill is asked for
 *   TN_VIRTIO_RNG_CAP bytes a request at most, and no request is begun after TN_VIRTIO_RNG_TURN
 *   bytes in one turn of the loop. Buffers for reading, which 5.4.6.1 forbids, are passed over; a
 *   chain with no others is returned with 0. A broken ring sets DEVICE_NEEDS_RESET.
 *
 * MEMORY
 *   struct tn_virtio_rng is all there is. It holds pointers into itself: it stays where it is.
 *
 * THREADS
 *   One call at a time on one struct, the transport's calls among them. Callbacks run inside them.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Virtual I/O Device (VIRTIO) 1.2, section 5.4: one queue, no feature bits, no configuration
 *   space.
 *
 * LIMITS
 *   A request that fill gave nothing for is paid for again when it is tried again. A chain whose
 *   buffers cross more borders of RAM regions than TN_VIRTIO_RNG_QUEUE_MAX counts as a broken ring.
 */
#ifndef TN_VIRTIO_RNG_H
#define TN_VIRTIO_RNG_H

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

#include "tn_mem.h"
#include "tn_rate.h"
#include "tn_virtio.h"
#include "tn_virtq.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_VIRTIO_RNG_ID        4u
#define TN_VIRTIO_RNG_QUEUE_MAX 128u    /* descriptors */
#define TN_VIRTIO_RNG_CAP       65536u  /* bytes that one request gets at most */
#define TN_VIRTIO_RNG_TURN      262144u /* bytes after which others have their turn */
#define TN_VIRTIO_RNG_VERSION   1       /* of struct tn_virtio_rng_state */

struct tn_virtio_rng_cfg {
    const struct tn_mem *mem; /* the guest's RAM; outlives the device */
    uint16_t queue_size;      /* a power of two up to TN_VIRTIO_RNG_QUEUE_MAX */
    uint64_t ring_features;   /* those of TN_VIRTIO_F_RING to offer */
    void *ctx;
    /*
     * Writes random bytes into the guest's memory; returns how many, 1 to len. 0 or < 0: there are
     * none now; the request waits, and the caller calls tn_virtio_rng_wake when there are.
     */
    int64_t (*fill)(void *ctx, uint8_t *buf, size_t len);
    /*
     * Call tn_virtio_rng_wake in ns nanoseconds, in place of what was asked before; 0: after others
     * had their turn.
     */
    void (*wake)(void *ctx, uint64_t ns);
    struct tn_rate *rate;       /* the limit of requests and bytes, the caller's; NULL: none */
    uint64_t (*now)(void *ctx); /* rate's clock, nanoseconds; may be NULL without rate */
};

struct tn_virtio_rng {
    struct tn_virtio virtio;
    struct tn_virtio_queue queue[1];
    struct tn_virtio_rng_cfg cfg;
    uint64_t dry; /* requests that fill gave nothing for, each time that it was asked */
};

struct tn_virtio_rng_state {
    uint32_t version; /* TN_VIRTIO_RNG_VERSION */
    uint32_t zero;
    struct tn_virtio_state virtio;
};

/*
 * Makes a device that was just reset. Returns 0; TN_EINVAL when mem, fill or wake is missing, or
 * now beside a rate, for a queue size or for ring features outside the limits.
 */
TN_API int tn_virtio_rng_init(struct tn_virtio_rng *r, const struct tn_virtio_rng_cfg *cfg);

/*
 * Goes on with the requests that wait: the time that wake named has come, fill has bytes again, or
 * the device was restored. Too early or too often does no harm.
 */
TN_API void tn_virtio_rng_wake(struct tn_virtio_rng *r);

/*
 * Copies the state out. The rate is the caller's, and is not in it.
 */
TN_API void tn_virtio_rng_save(const struct tn_virtio_rng *r, struct tn_virtio_rng_state *out);

/*
 * Takes a saved state over; then call tn_virtio_rng_wake. Returns 0; TN_EUNSUP for another version,
 * TN_EFORMAT for a state that no device can be in (r is unchanged), and the errors of
 * tn_virtio_restore.
 */
TN_API int tn_virtio_rng_restore(struct tn_virtio_rng *r, const struct tn_virtio_rng_state *from);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#define TN_VIRTIO_RNG_IOV_ (2 * TN_VIRTIO_RNG_QUEUE_MAX)

/* What a request with room for len bytes is given. */
/*@ assigns \nothing;
    ensures \result == \min(len, TN_VIRTIO_RNG_CAP); */
static inline uint32_t tn_virtio_rng_cap_(uint32_t len)
{
    return len < TN_VIRTIO_RNG_CAP ? len : TN_VIRTIO_RNG_CAP;
}

/* How many bytes fill wrote, whatever it says. */
/*@ assigns \nothing;
    ensures \result == \max(0, \min(said, asked)); */
static inline uint32_t tn_virtio_rng_got_(int64_t said, uint32_t asked)
{
    if (said <= 0)
        return 0;
    return said < (int64_t)asked ? (uint32_t)said : asked;
}

/* How many of len bytes that are left go into one iovec. */
/*@ assigns \nothing;
    ensures \result == \min(room, len); */
static inline uint32_t tn_virtio_rng_run_(size_t room, uint32_t len)
{
    return room < len ? (uint32_t)room : len;
}

/* Fills the first len bytes of n iovecs, until fill gives fewer; returns how many it gave. */
static inline uint32_t tn_virtio_rng_fill_(struct tn_virtio_rng *r, const struct tn_iov *iov,
                                           uint32_t n, uint32_t len)
{
    uint32_t done = 0, run, got;

    for (uint32_t i = 0; i < n && done < len; i++) {
        run = tn_virtio_rng_run_(iov[i].len, len - done);
        got = tn_virtio_rng_got_(r->cfg.fill(r->cfg.ctx, iov[i].base, run), run);
        done += got;
        if (got < run)
            break;
    }
    return done;
}

/* What is left of a turn. */
/*@ assigns \nothing;
    ensures \result == \max(0, left - got); */
static inline uint32_t tn_virtio_rng_left_(uint32_t left, uint32_t got)
{
    return got < left ? left - got : 0;
}

/* Nanoseconds until the rate lets a request pass; 0: it was counted. */
static inline uint64_t tn_virtio_rng_delay_(struct tn_virtio_rng *r, uint32_t len)
{
    return r->cfg.rate ? tn_rate_take(r->cfg.rate, r->cfg.now(r->cfg.ctx), len) : 0;
}

/* Serves requests until there are none, the rate or fill says no, or the turn is over. */
static inline void tn_virtio_rng_serve_(struct tn_virtio_rng *r)
{
    struct tn_virtq *q = &r->queue[0].q;
    struct tn_iov iov[TN_VIRTIO_RNG_IOV_];
    struct tn_virtq_chain chain;
    uint32_t left = TN_VIRTIO_RNG_TURN, chains = r->cfg.queue_size, len, got;
    uint64_t wait = 0;
    bool again = false;
    int n;

    if (!tn_virtio_live(&r->virtio))
        return;
    tn_virtq_notify_disable(q);
    for (;;) {
        if (chains == 0 || left == 0) {
            again = tn_virtq_notify_enable(q);
            break;
        }
        chains--;
        n = tn_virtq_pop(q, &chain, iov, TN_VIRTIO_RNG_IOV_);
        if (n < 0) {
            if (n != TN_ESTATE) /* a queue that the driver has not enabled */
                tn_virtio_needs_reset(&r->virtio);
            break;
        }
        if (n == 0) {
            if (!tn_virtq_notify_enable(q))
                break;
            continue;
        }
        len = tn_virtio_rng_cap_(chain.writable_len);
        got = 0;
        if (len > 0) {
            wait = tn_virtio_rng_delay_(r, len);
            if (wait == 0)
                got = tn_virtio_rng_fill_(r, iov + chain.readable, chain.writable, len);
            if (got == 0) {
                r->dry += wait == 0;
                again = wait > 0;
                (void)tn_virtq_unpop(q, &chain);
                break;
            }
        }
        left = tn_virtio_rng_left_(left, got);
        (void)tn_virtq_push(q, &chain, got);
    }
    if (tn_virtio_live(&r->virtio))
        tn_virtio_signal(&r->virtio, 0);
    if (again)
        r->cfg.wake(r->cfg.ctx, wait);
}

/* The driver may have filled the queue before it set DRIVER_OK. */
static inline int tn_virtio_rng_on_activate_(void *ctx)
{
    struct tn_virtio_rng *r = (struct tn_virtio_rng *)ctx;

    r->cfg.wake(r->cfg.ctx, 0);
    return TN_OK;
}

static inline void tn_virtio_rng_on_notify_(void *ctx, uint32_t queue)
{
    (void)queue;
    tn_virtio_rng_serve_((struct tn_virtio_rng *)ctx);
}

static const struct tn_virtio_ops tn_virtio_rng_ops_ = {NULL, tn_virtio_rng_on_activate_, NULL,
                                                        tn_virtio_rng_on_notify_, NULL};

TN_API int tn_virtio_rng_init(struct tn_virtio_rng *r, const struct tn_virtio_rng_cfg *cfg)
{
    struct tn_virtio_cfg v;

    if (!cfg->mem || !cfg->fill || !cfg->wake || (cfg->rate && !cfg->now) ||
        cfg->queue_size > TN_VIRTIO_RNG_QUEUE_MAX || (cfg->ring_features & ~TN_VIRTIO_F_RING) != 0)
        return TN_EINVAL;
    __builtin_memset(r, 0, sizeof(*r));
    r->cfg = *cfg;
    v.device_id = TN_VIRTIO_RNG_ID;
    v.features = cfg->ring_features;
    v.queue_size = cfg->queue_size;
    v.queues = 1;
    v.queue = r->queue;
    v.mem = cfg->mem;
    v.config = NULL;
    v.config_len = 0;
    v.ops = &tn_virtio_rng_ops_;
    v.ctx = r;
    return tn_virtio_init(&r->virtio, &v);
}

TN_API void tn_virtio_rng_wake(struct tn_virtio_rng *r)
{
    tn_virtio_rng_serve_(r);
}

TN_API void tn_virtio_rng_save(const struct tn_virtio_rng *r, struct tn_virtio_rng_state *out)
{
    out->version = TN_VIRTIO_RNG_VERSION;
    out->zero = 0;
    tn_virtio_save(&r->virtio, &out->virtio);
}

/* Between calls the device holds no chain, unless its ring is broken. */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result != 0 <==> s->zero == 0 &&
      (s->virtio.queue[0].ring.next_avail == s->virtio.queue[0].ring.next_used ||
        s->virtio.queue[0].ring.error != 0); */
static inline bool tn_virtio_rng_valid_(const struct tn_virtio_rng_state *s)
{
    const struct tn_virtq_state *ring = &s->virtio.queue[0].ring;

    return s->zero == 0 && (ring->next_avail == ring->next_used || ring->error != 0);
}

TN_API int tn_virtio_rng_restore(struct tn_virtio_rng *r, const struct tn_virtio_rng_state *from)
{
    struct tn_virtio_rng_state copy = *from;

    if (copy.version != TN_VIRTIO_RNG_VERSION)
        return TN_EUNSUP;
    if (!tn_virtio_rng_valid_(&copy))
        return TN_EFORMAT;
    return tn_virtio_restore(&r->virtio, &copy.virtio);
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VIRTIO_RNG_H */
