/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_virtio - what every virtio device has: status, features, queues, configuration space.
 *
 * WHAT
 *   The device-independent half of a virtio device: the status machine, feature negotiation, the
 *   registers of its queues, its configuration space, and what is saved of all that. A transport
 *   calls it with what the driver does; it calls the device type through a table of operations.
 *
 * USAGE
 *   struct beeper {
 *       struct tn_virtio v;
 *       struct tn_virtio_queue queue[1];
 *       uint8_t config[4];
 *   };
 *   static void beeper_notify(void *ctx, uint32_t queue)
 *   {
 *       struct beeper *b = (struct beeper *)ctx;
 *       struct tn_virtq_chain chain;
 *       struct tn_iov iov[18];
 *       int n;
 *
 *       while ((n = tn_virtq_pop(&b->queue[queue].q, &chain, iov, 18)) > 0)
 *           tn_virtq_push(&b->queue[queue].q, &chain, 0);
 *       if (n < 0)
 *           tn_virtio_needs_reset(&b->v);
 *       else
 *           tn_virtio_signal(&b->v, queue);
 *   }
 *   static int beeper_init(struct beeper *b, const struct tn_mem *mem)
 *   {
 *       static const struct tn_virtio_ops ops = {NULL, NULL, NULL, beeper_notify, NULL};
 *       struct tn_virtio_cfg cfg = {63,  TN_VIRTIO_F_RING, 64, 1,    b->queue,
 *                                   mem, b->config,        4,  &ops, b};
 *
 *       return tn_virtio_init(&b->v, &cfg);
 *   }
 *   ---
 *   static struct beeper b;
 *   struct tn_mem_region table[1];
 *   struct tn_mem mem;
 *
 *   tn_mem_init(&mem, table, 1);
 *   if (beeper_init(&b, &mem) < 0)
 *       return 1;
 *   tn_virtio_status_write(&b.v, TN_VIRTIO_S_ACKNOWLEDGE);
 *   if (tn_virtio_status_read(&b.v) != TN_VIRTIO_S_ACKNOWLEDGE)
 *       return 1;
 *
 * COMPOSITION
 *   Below: tn_virtq, one for each queue, started at DRIVER_OK and stopped at reset. Above: a
 *   transport, tn_virtio_mmio for one, which joins itself by tn_virtio_connect. Beside: a device
 *   type (tn_virtio_blk, ...), which holds a struct tn_virtio and gives the operations. An
 *   operation may call the functions for devices, and nothing else here. An error of tn_virtq_pop
 *   other than TN_ENOSPC is the device's to turn into tn_virtio_needs_reset; so is the limit of
 *   what it serves in one turn, since a guest may add requests as fast as they are popped.
 *
 * GUEST TRUST
 *   Queue numbers, offsets, widths and values may be the guest's, unchecked, in any order of calls;
 *   a saved state may be a hostile file's. What the specification forbids the driver is ignored, or
 *   leads to DEVICE_NEEDS_RESET, from which a reset leads back. No write after DRIVER_OK reaches a
 *   queue's geometry.
 *
 * MEMORY
 *   The caller owns all: the struct, the array of queues, the configuration space, mem.
 *   None of them moves as long as the device is in use. About 200 bytes a queue.
 *
 * THREADS
 *   One call at a time on one struct, and on its queues; the caller has the lock. Operations run
 *   inside the call, and so does the transport's interrupt.
 *
 * CONFIG
 *   TN_VIRTIO_MAX_QUEUES, before the first include: how many queues a device may have, 16 if it is
 *   not defined. It sizes struct tn_virtio_state: all files of a program want the same.
 *
 * SPEC
 *   Virtual I/O Device (VIRTIO) 1.2, sections 2.1 (status), 2.2 (features), 2.3 (notifications),
 *   2.4 (reset), 2.5 (configuration space), 3.1 (initialisation), 6 (reserved feature bits).
 *
 * LIMITS
 *   No legacy interface: a driver without VERSION_1 gets no FEATURES_OK. 64 feature bits. A queue
 *   that runs is stopped by a reset of the device alone; VIRTIO_F_RING_RESET, _NOTIFICATION_DATA
 *   and shared memory are not there.
 */
#ifndef TN_VIRTIO_H
#define TN_VIRTIO_H

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
#include "tn_virtq.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#ifndef TN_VIRTIO_MAX_QUEUES
#define TN_VIRTIO_MAX_QUEUES 16u
#endif
#define TN_VIRTIO_CONFIG  0xffffffffu /* in place of a queue: the configuration changed */
#define TN_VIRTIO_VERSION 1           /* of struct tn_virtio_state */

/* Device status (2.1). */
#define TN_VIRTIO_S_ACKNOWLEDGE 1u
#define TN_VIRTIO_S_DRIVER      2u
#define TN_VIRTIO_S_DRIVER_OK   4u
#define TN_VIRTIO_S_FEATURES_OK 8u
#define TN_VIRTIO_S_NEEDS_RESET 64u
#define TN_VIRTIO_S_FAILED      128u

/* Feature bits that are no device's own (6). */
#define TN_VIRTIO_F_INDIRECT_DESC   (1ull << 28)
#define TN_VIRTIO_F_EVENT_IDX       (1ull << 29)
#define TN_VIRTIO_F_VERSION_1       (1ull << 32)
#define TN_VIRTIO_F_ACCESS_PLATFORM (1ull << 33)
#define TN_VIRTIO_F_RING_PACKED     (1ull << 34)
#define TN_VIRTIO_F_IN_ORDER        (1ull << 35)
#define TN_VIRTIO_F_ORDER_PLATFORM  (1ull << 36)
/* All that tn_virtq can do; VERSION_1 is always offered. */
#define TN_VIRTIO_F_RING \
    (TN_VIRTIO_F_INDIRECT_DESC | TN_VIRTIO_F_EVENT_IDX | TN_VIRTIO_F_RING_PACKED)

/* What a device does; any of them may be NULL. They are called inside tn_virtio's functions. */
struct tn_virtio_ops {
    /*
     * Whether the device can work with these features, all of which it offered (3.1.1, step 5); a
     * question alone, which tn_virtio_restore asks too.
     */
    bool (*accept)(void *ctx, uint64_t features);
    /* DRIVER_OK: the queues that the driver enabled have started. < 0: it needs a reset. */
    int (*activate)(void *ctx);
    /*
     * The queues have stopped: nothing of the guest's memory is used when this returns. Each reset
     * calls it, also one of a device that was not started.
     */
    void (*reset)(void *ctx);
    /* The driver has put something into a queue that runs. */
    void (*notify)(void *ctx, uint32_t queue);
    /* The driver wrote width bytes (1, 2 or 4) at off, all inside the space. NULL: ignored. */
    void (*config_write)(void *ctx, uint32_t off, unsigned width, uint32_t value);
};

/* One queue; the caller gives an array of them. */
struct tn_virtio_queue {
    struct tn_virtq q; /* the device pops and pushes here while the device is live */
    uint64_t desc;     /* registers, of use until DRIVER_OK */
    uint64_t driver;
    uint64_t device;
    uint16_t size;
    bool ready; /* the driver enabled it */
};

/* Filled in by a device's init. */
struct tn_virtio_cfg {
    uint32_t device_id;            /* 5: 1 network, 2 block, 3 console, 4 entropy, ... */
    uint64_t features;             /* offered; VERSION_1 is added */
    uint16_t queue_size;           /* of every queue at most: a power of two up to 32768 */
    uint32_t queues;               /* 1 to TN_VIRTIO_MAX_QUEUES */
    struct tn_virtio_queue *queue; /* as many */
    const struct tn_mem *mem;
    uint8_t *config;     /* the configuration space as the driver reads it; may be NULL */
    uint32_t config_len; /* bytes */
    const struct tn_virtio_ops *ops;
    void *ctx; /* handed to them */
};

/* Read-only to callers, except through the functions. */
struct tn_virtio {
    struct tn_virtio_cfg cfg;
    uint64_t features; /* that the driver accepted so far; fixed from FEATURES_OK on */
    uint32_t generation;
    uint8_t status;
    /* The transport's: tells the driver. queue: which one, or TN_VIRTIO_CONFIG. */
    void (*interrupt)(void *ctx, uint32_t queue);
    void *interrupt_ctx;
};

/* What is saved of a queue, and of a device, whatever its kind. */
struct tn_virtio_queue_state {
    uint64_t desc;
    uint64_t driver;
    uint64_t device;
    uint16_t size;
    uint8_t ready; /* 0 or 1 */
    uint8_t zero[5];
    struct tn_virtq_state ring;
};

struct tn_virtio_state {
    uint32_t version; /* TN_VIRTIO_VERSION */
    uint32_t device_id;
    uint64_t features;
    uint32_t generation;
    uint32_t queues;
    uint8_t status;
    uint8_t zero[7];
    struct tn_virtio_queue_state queue[TN_VIRTIO_MAX_QUEUES]; /* those from queues on are zero */
};

/*@ predicate tn_virtio_readable(struct tn_virtio *v) = \valid_read(v) &&
      0 < v->cfg.queues <= TN_VIRTIO_MAX_QUEUES &&
      \valid_read(v->cfg.queue + (0 .. v->cfg.queues - 1)) &&
      (v->cfg.config_len > 0 ==> \valid_read(v->cfg.config + (0 .. v->cfg.config_len - 1)));
    predicate tn_virtio_none(struct tn_virtio_queue *q, integer size) = q->desc == 0 &&
      q->driver == 0 && q->device == 0 && q->size == size && q->ready == 0;
*/

/*
 * Makes a device that was just reset, without a transport. Returns 0, or TN_EINVAL for a cfg
 * outside its limits, or with a feature of section 6 that is not defined above.
 */
TN_API int tn_virtio_init(struct tn_virtio *v, const struct tn_virtio_cfg *cfg);

/*
 * Joins the device to its transport: fn is how it interrupts.
 */
TN_API void tn_virtio_connect(struct tn_virtio *v, void (*fn)(void *ctx, uint32_t queue),
                              void *ctx);

/* ---- for transports: what the driver reads and writes ---- */

/*
 * 32 feature bits, those from 32 * sel on; 0 from bit 64 on (2.2).
 */
/*@ requires \valid_read(v);
    assigns \nothing;
    ensures sel == 0 ==> \result == v->cfg.features % 4294967296;
    ensures sel == 1 ==> \result == v->cfg.features / 4294967296;
    ensures sel > 1 ==> \result == 0; */
TN_API uint32_t tn_virtio_features_read(const struct tn_virtio *v, uint32_t sel);

/*
 * The driver's choice of them. Ignored unless DRIVER is set and FEATURES_OK is not (3.1.1).
 */
/*@ requires \valid(v);
    assigns v->features;
    ensures \old(v->status) != 3 || sel > 1 ==> v->features == \old(v->features);
    ensures \old(v->status) == 3 && sel == 0 ==>
      v->features == \old(v->features) / 4294967296 * 4294967296 + value;
    ensures \old(v->status) == 3 && sel == 1 ==>
      v->features == value * 4294967296 + \old(v->features) % 4294967296; */
TN_API void tn_virtio_features_write(struct tn_virtio *v, uint32_t sel, uint32_t value);

/*
 * The status byte (2.1). Writing 0 resets. A write that clears a bit, sets one out of order or an
 * unknown one, or comes after DEVICE_NEEDS_RESET or FAILED, changes nothing; one with FAILED in it
 * sets that bit alone, and the queues stand still. FEATURES_OK stays clear unless VERSION_1 is
 * among the features, all of them were offered, and the device accepts them. At DRIVER_OK the
 * queues start; if one cannot, none does, and DEVICE_NEEDS_RESET is set.
 */
/*@ requires \valid_read(v);
    assigns \nothing;
    ensures \result == v->status; */
TN_API uint8_t tn_virtio_status_read(const struct tn_virtio *v);
TN_API void tn_virtio_status_write(struct tn_virtio *v, uint8_t value);

/*
 * A queue's registers, NULL for one that there is not. A transport changes them only as long as
 * tn_virtio_queue_open says so: FEATURES_OK is set, DRIVER_OK is not, and the device is not broken.
 */
/*@ requires \valid(v) && tn_virtio_readable(v);
    assigns \nothing;
    ensures index < v->cfg.queues ==> \result == v->cfg.queue + index;
    ensures index >= v->cfg.queues ==> \result == \null; */
TN_API struct tn_virtio_queue *tn_virtio_queue_ptr(struct tn_virtio *v, uint32_t index);
/*@ requires \valid_read(v);
    assigns \nothing;
    ensures \result <==> v->status == 11; */
TN_API bool tn_virtio_queue_open(const struct tn_virtio *v);

/*
 * The driver's notification. Ignored for a queue that does not run.
 */
TN_API void tn_virtio_notify(struct tn_virtio *v, uint32_t index);

/*
 * The configuration space, width bytes at off: 1, 2 or 4, little-endian (2.5). What is not whole
 * inside it reads as 0, and is not written; nor is anything before FEATURES_OK (3.1.1, step 4).
 */
/*@ requires tn_virtio_readable((struct tn_virtio *)v);
    assigns \nothing;
    ensures !(width == 1 || width == 2 || width == 4) || off + width > v->cfg.config_len ==>
      \result == 0; */
TN_API uint32_t tn_virtio_config_read(const struct tn_virtio *v, uint32_t off, unsigned width);
TN_API void tn_virtio_config_write(struct tn_virtio *v, uint32_t off, unsigned width,
                                   uint32_t value);

/* ---- for devices ---- */

/*
 * Whether the driver runs the device: DRIVER_OK, and neither DEVICE_NEEDS_RESET nor FAILED.
 */
/*@ requires \valid_read(v);
    assigns \nothing;
    ensures \result <==> v->status == 15; */
TN_API bool tn_virtio_live(const struct tn_virtio *v);

/*
 * Whether a feature, one bit, was negotiated; none was before FEATURES_OK.
 */
/*@ requires \valid_read(v);
    assigns \nothing;
    ensures (v->status & 8) == 0 ==> !\result;
    ensures (v->features & feature) == 0 ==> !\result; */
TN_API bool tn_virtio_has(const struct tn_virtio *v, uint64_t feature);

/*
 * Interrupts for what was pushed to a queue, if the driver wants to know. Once after each batch.
 */
TN_API void tn_virtio_signal(struct tn_virtio *v, uint32_t index);

/*
 * The device changed cfg.config: a new generation, and an interrupt if it is live (2.5.1).
 */
TN_API void tn_virtio_config_changed(struct tn_virtio *v);

/*
 * The driver broke the protocol: the queues stand still until it resets the device (2.1.2). If
 * DRIVER_OK is set, the driver is interrupted. Ignored while the status is 0.
 */
TN_API void tn_virtio_needs_reset(struct tn_virtio *v);

/*
 * Copies the state out; nothing is in flight in the queues then.
 */
TN_API void tn_virtio_save(const struct tn_virtio *v, struct tn_virtio_state *out);

/*
 * Takes over a saved state, in place of what the device was; the queues run at once, and what the
 * driver added is there for tn_virtq_pop without a notification. No op but accept is called.
 * Returns 0; TN_EUNSUP: another version, device or number of queues, or features that cannot be
 * negotiated; TN_EFORMAT: a state that no device can be in (v is unchanged so far); an error of
 * tn_virtq_restore (the device is as after a reset, without the op).
 */
TN_API int tn_virtio_restore(struct tn_virtio *v, const struct tn_virtio_state *from);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* The steps of a driver that does all in order (3.1.1), as status bytes. */
#define TN_VIRTIO_AT_DRIVER_   (TN_VIRTIO_S_ACKNOWLEDGE | TN_VIRTIO_S_DRIVER)
#define TN_VIRTIO_AT_FEATURES_ (TN_VIRTIO_AT_DRIVER_ | TN_VIRTIO_S_FEATURES_OK)
#define TN_VIRTIO_AT_OK_       (TN_VIRTIO_AT_FEATURES_ | TN_VIRTIO_S_DRIVER_OK)

#define TN_VIRTIO_WORD_ 0x100000000ull /* features are read and written 32 at a time */

/* A device may offer the bits that are its own, and those of section 6 that work here. */
#define TN_VIRTIO_F_KNOWN_                                                                  \
    (0xffffffull | TN_VIRTIO_F_RING | TN_VIRTIO_F_VERSION_1 | TN_VIRTIO_F_ACCESS_PLATFORM | \
     TN_VIRTIO_F_IN_ORDER | TN_VIRTIO_F_ORDER_PLATFORM | ~0ull << 50)

/* The bits of a status byte that are the driver's progress: all but NEEDS_RESET and FAILED. */
/*@ assigns \nothing;
    ensures \result == status % 64; */
static inline uint8_t tn_virtio_progress_(uint8_t status)
{
    return status % 64u;
}

static inline bool tn_virtio_broken_(const struct tn_virtio *v)
{
    return v->status >= TN_VIRTIO_S_NEEDS_RESET;
}

/*
 * Whether the driver may write value when the status is status: what was set stays set, and each
 * step is taken when the one before it is done. ACKNOWLEDGE and DRIVER may come at once.
 */
/*@ assigns \nothing;
    ensures \result <==> (status == 0 && (value == 1 || value == 3)) ||
      (status == 1 && value == 3) || (status == 3 && value == 11) ||
      (status == 11 && value == 15); */
static inline bool tn_virtio_may_move_(uint8_t status, uint32_t value)
{
    switch (status) {
    case 0:
        return value == TN_VIRTIO_S_ACKNOWLEDGE || value == TN_VIRTIO_AT_DRIVER_;
    case TN_VIRTIO_S_ACKNOWLEDGE:
        return value == TN_VIRTIO_AT_DRIVER_;
    case TN_VIRTIO_AT_DRIVER_:
        return value == TN_VIRTIO_AT_FEATURES_;
    case TN_VIRTIO_AT_FEATURES_:
        return value == TN_VIRTIO_AT_OK_;
    default:
        return false;
    }
}

/* Whether width bytes at off lie whole in a space of len bytes. */
/*@ assigns \nothing;
    ensures \result <==> (width == 1 || width == 2 || width == 4) && off + width <= len; */
static inline bool tn_virtio_inside_(uint32_t len, uint32_t off, unsigned width)
{
    return (width == 1 || width == 2 || width == 4) && width <= len && off <= len - width;
}

/* Registers of a queue as they are after a reset. */
/*@ requires \valid(q);
    assigns q->desc, q->driver, q->device, q->size, q->ready;
    ensures tn_virtio_none(q, size); */
static inline void tn_virtio_clear_queue_(struct tn_virtio_queue *q, uint16_t size)
{
    q->desc = 0;
    q->driver = 0;
    q->device = 0;
    q->size = size;
    q->ready = false;
}

/* What a queue's registers and the features mean for its ring. */
/*@ requires \valid_read(q) && \valid(out) && \separated(q, out);
    assigns *out;
    ensures out->desc == q->desc && out->driver == q->driver && out->device == q->device &&
      out->size == q->size;
    ensures out->packed <==> (features & (1 << 34)) != 0;
    ensures out->event_idx <==> (features & (1 << 29)) != 0;
    ensures out->indirect <==> (features & (1 << 28)) != 0;
    ensures out->in_order <==> (features & (1 << 35)) != 0; */
static inline void tn_virtio_ring_cfg_(const struct tn_virtio_queue *q, uint64_t features,
                                       struct tn_virtq_cfg *out)
{
    out->desc = q->desc;
    out->driver = q->driver;
    out->device = q->device;
    out->size = q->size;
    out->packed = (features & TN_VIRTIO_F_RING_PACKED) != 0;
    out->event_idx = (features & TN_VIRTIO_F_EVENT_IDX) != 0;
    out->indirect = (features & TN_VIRTIO_F_INDIRECT_DESC) != 0;
    out->in_order = (features & TN_VIRTIO_F_IN_ORDER) != 0;
}

static inline void tn_virtio_stop_queues_(struct tn_virtio *v)
{
    for (uint32_t i = 0; i < v->cfg.queues; i++)
        tn_virtq_stop(&v->cfg.queue[i].q);
}

static inline void tn_virtio_break_queues_(struct tn_virtio *v)
{
    for (uint32_t i = 0; i < v->cfg.queues; i++)
        tn_virtq_break(&v->cfg.queue[i].q);
}

/* The same for n queues; their rings are stopped already. */
/*@ requires \valid(q + (0 .. n - 1));
    assigns q[0 .. n - 1];
    ensures \forall integer i; 0 <= i < n ==> tn_virtio_none(q + i, size); */
static inline void tn_virtio_clear_queues_(struct tn_virtio_queue *q, uint32_t n, uint16_t size)
{
    /*@ loop invariant 0 <= i <= n;
        loop invariant \forall integer j; 0 <= j < i ==> tn_virtio_none(q + j, size);
        loop assigns i, q[0 .. n - 1];
        loop variant n - i; */
    for (uint32_t i = 0; i < n; i++)
        tn_virtio_clear_queue_(&q[i], size);
}

/* The device as after a reset, but for its generation. */
static inline void tn_virtio_clear_(struct tn_virtio *v)
{
    v->status = 0;
    v->features = 0;
    tn_virtio_clear_queues_(v->cfg.queue, v->cfg.queues, v->cfg.queue_size);
}

TN_API int tn_virtio_init(struct tn_virtio *v, const struct tn_virtio_cfg *cfg)
{
    uint16_t size = cfg->queue_size;

    if (size == 0 || size > TN_VIRTQ_SIZE_MAX || (size & (size - 1)) != 0 || cfg->queues == 0 ||
        cfg->queues > TN_VIRTIO_MAX_QUEUES || !cfg->queue || !cfg->mem || !cfg->ops ||
        (!cfg->config && cfg->config_len > 0) || (cfg->features & ~TN_VIRTIO_F_KNOWN_) != 0)
        return TN_EINVAL;
    v->cfg = *cfg;
    v->cfg.features |= TN_VIRTIO_F_VERSION_1;
    v->generation = 0;
    v->interrupt = NULL;
    v->interrupt_ctx = NULL;
    for (uint32_t i = 0; i < cfg->queues; i++)
        tn_virtq_init(&cfg->queue[i].q);
    tn_virtio_clear_(v);
    return 0;
}

TN_API void tn_virtio_connect(struct tn_virtio *v, void (*fn)(void *ctx, uint32_t queue), void *ctx)
{
    v->interrupt = fn;
    v->interrupt_ctx = ctx;
}

static inline void tn_virtio_interrupt_(struct tn_virtio *v, uint32_t queue)
{
    if (v->interrupt)
        v->interrupt(v->interrupt_ctx, queue);
}

TN_API uint32_t tn_virtio_features_read(const struct tn_virtio *v, uint32_t sel)
{
    if (sel > 1)
        return 0;
    return (uint32_t)(sel == 0 ? v->cfg.features % TN_VIRTIO_WORD_
                               : v->cfg.features / TN_VIRTIO_WORD_);
}

TN_API void tn_virtio_features_write(struct tn_virtio *v, uint32_t sel, uint32_t value)
{
    uint32_t low = (uint32_t)(v->features % TN_VIRTIO_WORD_);
    uint32_t high = (uint32_t)(v->features / TN_VIRTIO_WORD_);

    if (v->status != TN_VIRTIO_AT_DRIVER_ || sel > 1)
        return;
    if (sel == 0)
        low = value;
    else
        high = value;
    v->features = high * TN_VIRTIO_WORD_ + low;
}

/* Whether the device works with these features. */
static inline bool tn_virtio_accepts_(const struct tn_virtio *v, uint64_t features)
{
    if ((features & ~v->cfg.features) != 0 || (features & TN_VIRTIO_F_VERSION_1) == 0)
        return false;
    return !v->cfg.ops->accept || v->cfg.ops->accept(v->cfg.ctx, features);
}

/* Starts the queues that the driver enabled: all of them, or none. */
static inline int tn_virtio_start_queues_(struct tn_virtio *v)
{
    for (uint32_t i = 0; i < v->cfg.queues; i++) {
        struct tn_virtio_queue *q = &v->cfg.queue[i];
        struct tn_virtq_cfg cfg;
        int err = TN_ERANGE;

        if (!q->ready)
            continue;
        tn_virtio_ring_cfg_(q, v->features, &cfg);
        if (q->size <= v->cfg.queue_size)
            err = tn_virtq_start(&q->q, v->cfg.mem, &cfg);
        if (err < 0) {
            tn_virtio_stop_queues_(v);
            return err;
        }
    }
    return 0;
}

TN_API uint8_t tn_virtio_status_read(const struct tn_virtio *v)
{
    return v->status;
}

TN_API void tn_virtio_needs_reset(struct tn_virtio *v)
{
    if (v->status == 0 || (v->status & TN_VIRTIO_S_NEEDS_RESET) != 0)
        return;
    v->status |= TN_VIRTIO_S_NEEDS_RESET;
    tn_virtio_break_queues_(v);
    if ((v->status & TN_VIRTIO_S_DRIVER_OK) != 0)
        tn_virtio_interrupt_(v, TN_VIRTIO_CONFIG);
}

TN_API void tn_virtio_status_write(struct tn_virtio *v, uint8_t value)
{
    const struct tn_virtio_ops *ops = v->cfg.ops;

    if (value == 0) {
        v->status = 0;
        tn_virtio_stop_queues_(v);
        if (ops->reset)
            ops->reset(v->cfg.ctx);
        tn_virtio_clear_(v);
        return;
    }
    if ((value & TN_VIRTIO_S_FAILED) != 0) {
        v->status |= TN_VIRTIO_S_FAILED;
        tn_virtio_break_queues_(v);
        return;
    }
    if (!tn_virtio_may_move_(v->status, value))
        return;
    if (value == TN_VIRTIO_AT_FEATURES_ && !tn_virtio_accepts_(v, v->features))
        return;
    v->status = value;
    if (value != TN_VIRTIO_AT_OK_)
        return;
    if (tn_virtio_start_queues_(v) < 0 || (ops->activate && ops->activate(v->cfg.ctx) < 0))
        tn_virtio_needs_reset(v);
}

TN_API struct tn_virtio_queue *tn_virtio_queue_ptr(struct tn_virtio *v, uint32_t index)
{
    return index < v->cfg.queues ? &v->cfg.queue[index] : NULL;
}

TN_API bool tn_virtio_queue_open(const struct tn_virtio *v)
{
    return v->status == TN_VIRTIO_AT_FEATURES_;
}

TN_API bool tn_virtio_live(const struct tn_virtio *v)
{
    return v->status == TN_VIRTIO_AT_OK_;
}

TN_API bool tn_virtio_has(const struct tn_virtio *v, uint64_t feature)
{
    return (v->status & TN_VIRTIO_S_FEATURES_OK) != 0 && (v->features & feature) != 0;
}

TN_API void tn_virtio_notify(struct tn_virtio *v, uint32_t index)
{
    if (!tn_virtio_live(v) || index >= v->cfg.queues || !v->cfg.queue[index].q.started)
        return;
    if (v->cfg.ops->notify)
        v->cfg.ops->notify(v->cfg.ctx, index);
}

TN_API uint32_t tn_virtio_config_read(const struct tn_virtio *v, uint32_t off, unsigned width)
{
    if (!tn_virtio_inside_(v->cfg.config_len, off, width))
        return 0;
    return (uint32_t)tn_get_(v->cfg.config + off, width);
}

TN_API void tn_virtio_config_write(struct tn_virtio *v, uint32_t off, unsigned width,
                                   uint32_t value)
{
    if ((v->status & TN_VIRTIO_S_FEATURES_OK) == 0 || tn_virtio_broken_(v) ||
        !v->cfg.ops->config_write || !tn_virtio_inside_(v->cfg.config_len, off, width))
        return;
    v->cfg.ops->config_write(v->cfg.ctx, off, width,
                             width == 4 ? value : value % (1u << 8 * width));
}

TN_API void tn_virtio_signal(struct tn_virtio *v, uint32_t index)
{
    if (tn_virtio_live(v) && index < v->cfg.queues &&
        tn_virtq_should_signal(&v->cfg.queue[index].q))
        tn_virtio_interrupt_(v, index);
}

TN_API void tn_virtio_config_changed(struct tn_virtio *v)
{
    v->generation++;
    if (tn_virtio_live(v))
        tn_virtio_interrupt_(v, TN_VIRTIO_CONFIG);
}

TN_API void tn_virtio_save(const struct tn_virtio *v, struct tn_virtio_state *out)
{
    __builtin_memset(out, 0, sizeof(*out));
    out->version = TN_VIRTIO_VERSION;
    out->device_id = v->cfg.device_id;
    out->features = v->features;
    out->generation = v->generation;
    out->queues = v->cfg.queues;
    out->status = v->status;
    for (uint32_t i = 0; i < v->cfg.queues; i++) {
        const struct tn_virtio_queue *q = &v->cfg.queue[i];
        struct tn_virtio_queue_state *to = &out->queue[i];

        to->desc = q->desc;
        to->driver = q->driver;
        to->device = q->device;
        to->size = q->size;
        to->ready = q->ready;
        tn_virtq_save(&q->q, &to->ring);
    }
}

/* Whether a status byte is one that tn_virtio_status_write and tn_virtio_needs_reset lead to. */
/*@ assigns \nothing;
    ensures \result <==>
      (status == 0 || status == 128 || status == 192 || ((status % 64 == 1 || status % 64 == 3 ||
        status % 64 == 11 || status % 64 == 15) && status / 64 <= 3)); */
static inline bool tn_virtio_status_valid_(uint8_t status)
{
    uint8_t progress = tn_virtio_progress_(status);

    if (progress == 0)
        return status == 0 || status == TN_VIRTIO_S_FAILED ||
               status == (TN_VIRTIO_S_FAILED | TN_VIRTIO_S_NEEDS_RESET);
    return progress == TN_VIRTIO_S_ACKNOWLEDGE || progress == TN_VIRTIO_AT_DRIVER_ ||
           progress == TN_VIRTIO_AT_FEATURES_ || progress == TN_VIRTIO_AT_OK_;
}

/* Whether a ring runs with the geometry that its registers and the features say. */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result <==> s->ring.desc == s->desc && s->ring.driver == s->driver &&
      s->ring.device == s->device && s->ring.size == s->size &&
      (s->ring.packed == 1 <==> (features & (1 << 34)) != 0) &&
      (s->ring.event_idx == 1 <==> (features & (1 << 29)) != 0) &&
      (s->ring.indirect == 1 <==> (features & (1 << 28)) != 0) &&
      (s->ring.in_order == 1 <==> (features & (1 << 35)) != 0); */
static inline bool tn_virtio_ring_valid_(const struct tn_virtio_queue_state *s, uint64_t features)
{
    return s->ring.desc == s->desc && s->ring.driver == s->driver && s->ring.device == s->device &&
           s->ring.size == s->size &&
           (s->ring.packed == 1) == ((features & TN_VIRTIO_F_RING_PACKED) != 0) &&
           (s->ring.event_idx == 1) == ((features & TN_VIRTIO_F_EVENT_IDX) != 0) &&
           (s->ring.indirect == 1) == ((features & TN_VIRTIO_F_INDIRECT_DESC) != 0) &&
           (s->ring.in_order == 1) == ((features & TN_VIRTIO_F_IN_ORDER) != 0);
}

/* Whether a queue can be in this state when the device's status is status. */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result ==> s->ready <= 1;
    ensures \result ==> (\forall integer i; 0 <= i < 5 ==> s->zero[i] == 0);
    ensures \result && status % 64 < 11 ==> s->desc == 0 && s->driver == 0 && s->device == 0 &&
      s->size == queue_size && s->ready == 0;
    ensures \result && s->ring.started != 0 ==> status % 64 == 15 && s->ready == 1 &&
      s->size <= queue_size && s->ring.size == s->size && s->ring.desc == s->desc &&
      s->ring.driver == s->driver && s->ring.device == s->device;
    ensures \result && s->ring.started != 0 && status >= 64 ==> s->ring.error != 0;
    ensures \result && status == 15 && s->ready == 1 ==> s->ring.started != 0; */
static inline bool tn_virtio_queue_valid_(const struct tn_virtio_queue_state *s, uint8_t status,
                                          uint64_t features, uint16_t queue_size)
{
    uint8_t progress = tn_virtio_progress_(status);
    bool runs = s->ring.started != 0;

    if (s->ready > 1 || s->zero[0] != 0 || s->zero[1] != 0 || s->zero[2] != 0 || s->zero[3] != 0 ||
        s->zero[4] != 0)
        return false;
    if (progress != TN_VIRTIO_AT_FEATURES_ && progress != TN_VIRTIO_AT_OK_ &&
        (s->desc != 0 || s->driver != 0 || s->device != 0 || s->size != queue_size || s->ready))
        return false;
    if (!runs) /* after DRIVER_OK an enabled queue runs, unless one of them did not start */
        return progress != TN_VIRTIO_AT_OK_ || s->ready == 0 ||
               (status & TN_VIRTIO_S_NEEDS_RESET) != 0;
    return progress == TN_VIRTIO_AT_OK_ && s->ready == 1 && s->size <= queue_size &&
           (status < TN_VIRTIO_S_NEEDS_RESET || s->ring.error != TN_OK) &&
           tn_virtio_ring_valid_(s, features);
}

/* Whether n bytes are all 0. */
/*@ requires \valid_read(p + (0 .. n - 1));
    assigns \nothing;
    ensures \result <==> \forall integer i; 0 <= i < n ==> p[i] == 0; */
static inline bool tn_virtio_zero_(const uint8_t *p, size_t n)
{
    /*@ loop invariant 0 <= i <= n && \forall integer j; 0 <= j < i ==> p[j] == 0;
        loop assigns i;
        loop variant n - i; */
    for (size_t i = 0; i < n; i++) {
        if (p[i] != 0)
            return false;
    }
    return true;
}

/* Whether all is such as a device of this cfg can be in; the rings are checked on their own. */
static inline int tn_virtio_state_check_(const struct tn_virtio *v, const struct tn_virtio_state *s)
{
    uint8_t progress = tn_virtio_progress_(s->status);
    uint32_t ready = 0, running = 0, i;

    if (s->version != TN_VIRTIO_VERSION || s->device_id != v->cfg.device_id ||
        s->queues != v->cfg.queues)
        return TN_EUNSUP;
    if (!tn_virtio_status_valid_(s->status) || !tn_virtio_zero_(s->zero, sizeof(s->zero)))
        return TN_EFORMAT;
    if (progress < TN_VIRTIO_AT_DRIVER_ && s->features != 0)
        return TN_EFORMAT;
    if (progress > TN_VIRTIO_AT_DRIVER_ && !tn_virtio_accepts_(v, s->features))
        return TN_EUNSUP;
    for (i = 0; i < TN_VIRTIO_MAX_QUEUES; i++) {
        const struct tn_virtio_queue_state *q = &s->queue[i];

        if (i >= s->queues) {
            if (!tn_virtio_zero_((const uint8_t *)q, sizeof(*q)))
                return TN_EFORMAT;
            continue;
        }
        if (!tn_virtio_queue_valid_(q, s->status, s->features, v->cfg.queue_size))
            return TN_EFORMAT;
        ready += q->ready;
        running += q->ring.started != 0;
    }
    return running == 0 || running == ready ? TN_OK : TN_EFORMAT;
}

TN_API int tn_virtio_restore(struct tn_virtio *v, const struct tn_virtio_state *from)
{
    struct tn_virtio_state s = *from;
    int err = tn_virtio_state_check_(v, &s);

    if (err < 0)
        return err;
    tn_virtio_stop_queues_(v);
    tn_virtio_clear_(v);
    for (uint32_t i = 0; i < s.queues; i++) {
        struct tn_virtio_queue *q = &v->cfg.queue[i];

        err = tn_virtq_restore(&q->q, v->cfg.mem, &s.queue[i].ring);
        if (err < 0) {
            tn_virtio_stop_queues_(v);
            tn_virtio_clear_(v);
            return err;
        }
        q->desc = s.queue[i].desc;
        q->driver = s.queue[i].driver;
        q->device = s.queue[i].device;
        q->size = s.queue[i].size;
        q->ready = s.queue[i].ready == 1;
    }
    v->features = s.features;
    v->generation = s.generation;
    v->status = s.status;
    return 0;
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VIRTIO_H */
