/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_virtq - virtqueues, split and packed, seen from the device.
 *
 * WHAT
 *   One small interface over both ring formats of virtio 1.2: pop a chain of buffers as host
 *   pointers, push it back, ask whether the driver wants to be told. With indirect descriptors,
 *   event indices, and in-order use. What the driver wrote is copied once, checked, and then used.
 *
 * USAGE
 *   static int serve(struct tn_virtq *q)
 *   {
 *       struct tn_virtq_chain chain;
 *       struct tn_iov iov[66];
 *       int n;
 *
 *       do {
 *           tn_virtq_notify_disable(q);
 *           while ((n = tn_virtq_pop(q, &chain, iov, 66)) > 0) {
 *               uint32_t written = 0;
 *
 *               if (chain.writable > 0) {
 *                   *(uint8_t *)iov[chain.readable].base = 0;
 *                   written = 1;
 *               }
 *               tn_virtq_push(q, &chain, written);
 *           }
 *       } while (n == 0 && tn_virtq_notify_enable(q));
 *       return n;
 *   }
 *   ---
 *   static uint8_t ram[1u << 16];
 *   struct tn_mem_region table[1];
 *   struct tn_mem mem;
 *   struct tn_virtq q;
 *   struct tn_virtq_cfg cfg = {0x1000, 0x2000, 0x3000, 64, false, true, true, false};
 *
 *   tn_mem_init(&mem, table, 1);
 *   tn_virtq_init(&q);
 *   if (tn_mem_add(&mem, 0, ram, sizeof(ram)) < 0 || tn_virtq_start(&q, &mem, &cfg) < 0)
 *       return 1;
 *   if (serve(&q) < 0)
 *       return 2;
 *   if (tn_virtq_should_signal(&q))
 *       return 3;
 *   tn_virtq_stop(&q);
 *
 * COMPOSITION
 *   The status machine calls tn_virtq_start at DRIVER_OK with what the queue's registers hold, and
 *   tn_virtq_stop at reset; a device pops and pushes in between. An error of tn_virtq_pop other
 *   than TN_ENOSPC means that the driver broke the ring: set DEVICE_NEEDS_RESET.
 *
 * GUEST TRUST
 *   The geometry, all ring contents and a saved state may be hostile, and may change at any time.
 *   Buffers lie in RAM, each iovec in one region. Their bytes still belong to the guest: copy
 *   once, check the copy. Nothing takes longer than O(size) steps.
 *
 * MEMORY
 *   The caller owns all. mem and its regions outlive the queue's run; regions may be added.
 *
 * THREADS
 *   One call at a time on one struct; the driver runs beside it.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Virtual I/O Device (VIRTIO) 1.2, sections 2.6 (virtqueues), 2.7 (split), 2.8 (packed), and
 *   VIRTIO_F_INDIRECT_DESC, VIRTIO_F_EVENT_IDX, VIRTIO_F_RING_PACKED, VIRTIO_F_IN_ORDER of 6.
 *
 * LIMITS
 *   No legacy layout. Little-endian hosts. A chain has at most as many elements as the ring has
 *   descriptors, those of an indirect table among them, and is shorter than 4 GiB; an indirect
 *   table lies in one region. In-order queues get a used element for every buffer.
 */
#ifndef TN_VIRTQ_H
#define TN_VIRTQ_H

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

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_VIRTQ_SIZE_MAX 32768u /* descriptors, either format */
#define TN_VIRTQ_VERSION  1      /* of struct tn_virtq_state */

#define TN_VIRTQ_DESC_F_NEXT     0x0001u
#define TN_VIRTQ_DESC_F_WRITE    0x0002u
#define TN_VIRTQ_DESC_F_INDIRECT 0x0004u
#define TN_VIRTQ_DESC_F_AVAIL    0x0080u /* packed */
#define TN_VIRTQ_DESC_F_USED     0x8000u /* packed */

/* The first two bytes of the driver and device areas (split, 2.7.6 and 2.7.8). */
#define TN_VIRTQ_AVAIL_F_NO_INTERRUPT 1u
#define TN_VIRTQ_USED_F_NO_NOTIFY     1u

/* Event suppression (packed, 2.8.10). */
#define TN_VIRTQ_EVENT_ENABLE  0u
#define TN_VIRTQ_EVENT_DISABLE 1u
#define TN_VIRTQ_EVENT_DESC    2u

/* What the queue's registers and the negotiated features say at activation. */
struct tn_virtq_cfg {
    uint64_t desc;   /* guest address of the descriptor area */
    uint64_t driver; /* of the driver area: available ring, or driver event suppression */
    uint64_t device; /* of the device area: used ring, or device event suppression */
    uint16_t size;   /* descriptors */
    bool packed;     /* VIRTIO_F_RING_PACKED */
    bool event_idx;  /* VIRTIO_F_EVENT_IDX */
    bool indirect;   /* VIRTIO_F_INDIRECT_DESC */
    bool in_order;   /* VIRTIO_F_IN_ORDER: tn_virtq_push takes chains only in the order of pops */
};

/* A chain that was popped. The device reads the first six fields. */
struct tn_virtq_chain {
    const struct tn_iov *iov; /* what tn_virtq_pop filled */
    uint32_t readable_len;    /* bytes in all that the device may read */
    uint32_t writable_len;    /* bytes in all that it may write */
    uint16_t readable;        /* iovecs: iov[0 .. readable - 1] */
    uint16_t writable;        /* iovecs: iov[readable .. readable + writable - 1] */
    uint16_t id;              /* index of the head (split), buffer id (packed) */
    uint16_t descs;      /* descriptors of the ring that it takes, without an indirect table's */
    uint16_t at;         /* where the ring stood before the pop */
    uint32_t generation; /* of the queue's run */
};

/* Read-only to callers, except through the functions. */
struct tn_virtq {
    const struct tn_mem *mem;
    uint8_t *desc; /* host addresses of the three areas, translated once */
    uint8_t *driver;
    uint8_t *device;
    struct tn_virtq_cfg cfg; /* frozen from start to stop */
    uint16_t next_avail;     /* split: free-running; packed: position, wrap counter in bit 15 */
    uint16_t next_used;
    uint16_t avail_idx;   /* split: the driver's index when it was last looked at */
    uint32_t unsignalled; /* descriptors (packed) or buffers pushed since the last check */
    uint32_t hint;        /* the region tried first: the largest one at the start */
    uint32_t generation;  /* counts starts and stops */
    int error;            /* why the ring is broken, or 0 */
    bool started;
};

/* A queue's state; all zero but the version while it is stopped. */
struct tn_virtq_state {
    uint32_t version; /* TN_VIRTQ_VERSION */
    uint32_t unsignalled;
    uint64_t desc;
    uint64_t driver;
    uint64_t device;
    uint16_t size;
    uint16_t next_avail;
    uint16_t next_used;
    uint8_t started; /* 0 or 1, as the four below */
    uint8_t packed;
    uint8_t event_idx;
    uint8_t indirect;
    uint8_t in_order;
    uint8_t zero;
    int32_t error; /* 0, TN_EPROTO or TN_EADDR */
};

/*
 * Makes a stopped queue out of any bytes. Not between start and stop: generations begin anew.
 */
TN_API void tn_virtq_init(struct tn_virtq *q);

/*
 * Activates a stopped queue: checks its geometry and translates it once (2.7, 2.8.10.1). Nothing
 * of it changes until tn_virtq_stop. Returns 0; TN_EINVAL: no mem; TN_ESTATE: it runs already;
 * TN_ERANGE: a size that is 0, above 32768, or no power of two in a split queue; TN_EADDR: an area
 * that is not aligned or does not lie whole in one region of RAM (the queue stays stopped).
 */
TN_API int tn_virtq_start(struct tn_virtq *q, const struct tn_mem *mem,
                          const struct tn_virtq_cfg *cfg);

/*
 * Back to a stopped queue, as at reset: chains in flight die, their pushes will be refused.
 */
TN_API void tn_virtq_stop(struct tn_virtq *q);

/*
 * Takes the next chain: iov[0 .. readable - 1] is for reading, iov[readable .. readable + writable
 * - 1] for writing. An element of length 0 gives no iovec, one that crosses regions gives several.
 * Returns 1; 0: there is none; TN_ESTATE: not started; TN_ENOSPC: the chain takes more than cap
 * iovecs, and is still in the ring (pop with more room, or call tn_virtq_break). TN_EPROTO,
 * TN_EADDR: the ring is broken, as all calls say from now on until tn_virtq_stop. Unless it
 * returns 1, *chain is zero, and so is every iovec that was filled.
 *
 * iov stays as it is until the push, which reads what to mark dirty from it.
 */
TN_API int tn_virtq_pop(struct tn_virtq *q, struct tn_virtq_chain *chain, struct tn_iov *iov,
                        uint16_t cap);

/*
 * Puts the chain that was popped last, and not pushed, back: the next pop finds it again. Returns
 * 0; TN_ESTATE: not started, broken, or of an earlier run; TN_EINVAL: another was popped last.
 */
TN_API int tn_virtq_unpop(struct tn_virtq *q, const struct tn_virtq_chain *chain);

/*
 * Returns a chain to the driver; written is how many bytes from the start of its writable part
 * hold data (2.7.8, 2.8.4). They, and the ring, are marked dirty. Returns 0; TN_ESTATE: not
 * started, broken, of an earlier run, or more than was popped (dropped); TN_EINVAL: written
 * exceeds writable_len, the chain is none of this queue, or another comes first (in_order).
 */
TN_API int tn_virtq_push(struct tn_virtq *q, const struct tn_virtq_chain *chain, uint32_t written);

/*
 * As tn_virtq_push of n chains, which the driver sees all at once; all or none.
 */
TN_API int tn_virtq_push_many(struct tn_virtq *q, const struct tn_virtq_chain *chain,
                              const uint32_t *written, uint16_t n);

/*
 * Whether to interrupt the driver for what was pushed since this was last asked (2.7.10, 2.8.10);
 * to be asked once after each batch.
 */
TN_API bool tn_virtq_should_signal(struct tn_virtq *q);

/*
 * Asks the driver to notify again. Returns whether more is in the ring already: serve it, since
 * the driver may have seen the old wish.
 */
TN_API bool tn_virtq_notify_enable(struct tn_virtq *q);

/*
 * Tells the driver that notifications are not needed; it may send some all the same.
 */
TN_API void tn_virtq_notify_disable(struct tn_virtq *q);

/*
 * Whether tn_virtq_pop would return something other than 0.
 */
TN_API bool tn_virtq_pending(const struct tn_virtq *q);

/*
 * How much was popped and not pushed: chains of a split queue, descriptors of a packed one; 0 to
 * size.
 */
TN_API uint32_t tn_virtq_in_flight(const struct tn_virtq *q);

/*
 * The device finds that the driver's requests make no sense: no more pops or pushes until
 * tn_virtq_stop; tn_virtq_pop returns TN_EPROTO.
 */
TN_API void tn_virtq_break(struct tn_virtq *q);

/*
 * Whether counting from old to new_idx, modulo 65536, passes event: event lies in [old, new_idx)
 * (2.7.10.1).
 */
TN_API bool tn_virtq_need_event(uint16_t event, uint16_t new_idx, uint16_t old);

/*
 * Copies the state out. Chains in flight are counted in it, not held: push or unpop them first.
 */
TN_API void tn_virtq_save(const struct tn_virtq *q, struct tn_virtq_state *out);

/*
 * Takes a saved state over, in place of what q was; mem as in tn_virtq_start, whose checks run.
 * What the driver added in the meantime is there for tn_virtq_pop without another notification.
 * Returns 0; TN_EUNSUP for another version, TN_EFORMAT for a state that no queue can be in, and
 * the errors of tn_virtq_start (q is stopped).
 */
TN_API int tn_virtq_restore(struct tn_virtq *q, const struct tn_mem *mem,
                            const struct tn_virtq_state *from);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/*
 * One access to a ring. A load of 16 bits acquires, so that what it announces is read after it; a
 * store of 16 bits releases. Descriptors are read in two halves; an indirect table may lie at any
 * address.
 */
#ifdef __FRAMAC__
#define tn_virtq_get16_(p)    ((uint16_t)tn_get_(p, 2))
#define tn_virtq_get64_(p)    tn_get_(p, 8)
#define tn_virtq_put16_(p, v) tn_put_(p, 2, v)
#define tn_virtq_put32_(p, v) tn_put_(p, 4, v)
#define tn_virtq_fence_()     ((void)0)
#else
typedef uint16_t __attribute__((may_alias)) tn_virtq_u16_;
typedef uint32_t __attribute__((may_alias)) tn_virtq_u32_;
struct tn_virtq_u64_ {
    uint64_t v;
} __attribute__((packed, may_alias));
static inline uint16_t tn_virtq_get16_(const volatile uint8_t *p)
{
    const volatile void *at = p;

    return __atomic_load_n((const volatile tn_virtq_u16_ *)at, __ATOMIC_ACQUIRE);
}
static inline uint64_t tn_virtq_get64_(const volatile uint8_t *p)
{
    const volatile void *at = p;

    return ((const volatile struct tn_virtq_u64_ *)at)->v;
}
static inline void tn_virtq_put16_(volatile uint8_t *p, uint16_t v)
{
    volatile void *at = p;

    __atomic_store_n((volatile tn_virtq_u16_ *)at, v, __ATOMIC_RELEASE);
}
static inline void tn_virtq_put32_(volatile uint8_t *p, uint32_t v)
{
    volatile void *at = p;

    __atomic_store_n((volatile tn_virtq_u32_ *)at, v, __ATOMIC_RELAXED);
}
static inline void tn_virtq_fence_(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
#endif

/*
 * Both formats count round a circle: a split queue's indices modulo 65536; a packed queue's
 * positions and wrap counter, which starts at 1, make a circle of twice the size.
 */
/*@ requires 0 < size <= 32768 && (packed != 0 ==> at % 32768 < size);
    assigns \nothing;
    ensures packed == 0 ==> \result == at;
    ensures packed != 0 && at >= 32768 ==> \result == at - 32768;
    ensures packed != 0 && at < 32768 ==> \result == at + size;
    ensures \result < (packed == 0 ? 65536 : 2 * size); */
static inline uint32_t tn_virtq_linear_(bool packed, uint32_t size, uint16_t at)
{
    if (!packed)
        return at;
    return at >= 32768u ? at - 32768u : at + size;
}

/*@ requires from < round <= 65536 && to < round;
    assigns \nothing;
    ensures \result < round;
    ensures (from + \result == to) || (from + \result == to + round); */
static inline uint32_t tn_virtq_distance_(uint32_t from, uint32_t to, uint32_t round)
{
    return to >= from ? to - from : to + (round - from);
}

/* Whether one of the last moved steps up to next left event behind. */
/*@ requires event < round <= 65536 && next < round && moved <= 65536;
    assigns \nothing;
    ensures moved <= round ==> (\result <==>
      \exists integer k; 1 <= k <= moved && (event + k == next || event + k == next + round));
    ensures moved >= round ==> \result; */
static inline bool tn_virtq_passed_(uint32_t event, uint32_t next, uint32_t moved, uint32_t round)
{
    uint32_t back = tn_virtq_distance_(event, next, round);

    if (back == 0)
        back = round;
    return back <= moved;
}

/* The packed position n descriptors further; the wrap counter turns over at the end. */
/*@ requires 0 < size <= 32768 && at % 32768 < size && n <= size;
    assigns \nothing;
    ensures \result % 32768 < size;
    ensures at % 32768 + n < size ==> \result == at + n;
    ensures at % 32768 + n >= size ==> \result % 32768 == at % 32768 + n - size &&
      \result / 32768 == 1 - at / 32768; */
static inline uint16_t tn_virtq_advance_(uint32_t size, uint16_t at, uint32_t n)
{
    uint32_t pos = at % 32768u + n;

    if (pos < size)
        return (uint16_t)(at + n);
    pos -= size;
    return (uint16_t)(at >= 32768u ? pos : pos + 32768u);
}

/* How much lies between next_used and next_avail; above size: no queue can be in this state. */
/*@ requires 0 < size <= 32768;
    requires packed != 0 ==> next_used % 32768 < size && next_avail % 32768 < size;
    assigns \nothing;
    ensures packed == 0 && next_avail >= next_used ==> \result == next_avail - next_used;
    ensures packed == 0 && next_avail < next_used ==>
      \result == next_avail + 65536 - next_used;
    ensures packed != 0 && next_avail / 32768 == next_used / 32768 &&
      next_avail >= next_used ==> \result == next_avail - next_used;
    ensures packed != 0 && next_avail / 32768 != next_used / 32768 ==>
      \result == next_avail % 32768 + size - next_used % 32768;
    ensures packed != 0 && next_avail / 32768 == next_used / 32768 && next_avail < next_used ==>
      \result > size; */
static inline uint32_t tn_virtq_between_(bool packed, uint32_t size, uint16_t next_used,
                                         uint16_t next_avail)
{
    return tn_virtq_distance_(tn_virtq_linear_(packed, size, next_used),
                              tn_virtq_linear_(packed, size, next_avail),
                              packed ? 2 * size : 65536u);
}

/* Slot of a free-running index in a split ring, whose size is a power of two. */
/*@ requires size > 0;
    assigns \nothing;
    ensures \result < size; */
static inline uint32_t tn_virtq_slot_(uint32_t size, uint16_t at)
{
    uint32_t slot = at & (size - 1u);

    return slot < size ? slot : 0; /* a wrong size cannot do harm either */
}

/* The sizes that a queue may have; the divisors of 32768 are the powers of two up to it. */
/*@ assigns \nothing;
    ensures \result <==> 0 < size <= 32768 && (packed != 0 || 32768 % size == 0); */
static inline bool tn_virtq_size_ok_(bool packed, uint16_t size)
{
    return size > 0 && size <= TN_VIRTQ_SIZE_MAX && (packed || TN_VIRTQ_SIZE_MAX % size == 0);
}

/*@ predicate tn_virtq_area(struct tn_mem *m, integer gpa, integer align, integer len) =
      gpa % align == 0 && \exists integer i; tn_mem_in(m, i, gpa, len); */

/* Where one area of a queue is, or NULL when it may not be there. */
/*@ requires \valid_read(m) && tn_mem_ok((struct tn_mem *)m) && align > 0 && len > 0;
    assigns \nothing;
    ensures \result != \null <==> tn_virtq_area((struct tn_mem *)m, gpa, align, len);
    ensures \result != \null ==> \valid(\result + (0 .. len - 1)); */
static inline uint8_t *tn_virtq_area_(const struct tn_mem *m, uint64_t gpa, uint32_t align,
                                      uint32_t len)
{
    return gpa % align == 0 ? tn_mem_ptr(m, gpa, len) : NULL;
}

/* A descriptor, copied. */
struct tn_virtq_desc_ {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next; /* packed: the buffer id */
};

/* What a walk has found; common to all kinds of descriptors. */
struct tn_virtq_walk_ {
    struct tn_iov *iov;
    uint32_t cap;
    uint32_t count;        /* iovecs filled */
    uint32_t left;         /* elements that may still come */
    uint32_t total;        /* bytes */
    uint32_t readable;     /* iovecs before the first writable element */
    uint32_t readable_len; /* bytes before it */
    uint32_t hint;
    uint16_t id;    /* of the chain */
    uint16_t descs; /* of the ring that it takes */
    bool writing;   /* a writable element was seen */
};

/*@ predicate tn_virtq_walk_ok(struct tn_virtq_walk_ *w) =
      \valid(w) && w->count <= w->cap <= 65535 && \valid(w->iov + (0 .. w->cap - 1)) &&
      w->left <= 32768 && w->readable <= w->count && w->readable_len <= w->total &&
      (!w->writing ==> w->readable == w->count && w->readable_len == w->total);
    predicate tn_virtq_apart(struct tn_mem *m, struct tn_virtq_walk_ *w) =
      \separated(m, w, m->region + (0 .. m->cap - 1), w->iov + (0 .. w->cap - 1)); */

/* The index of the region that holds gpa, or m->count; the hint is tried first. */
/*@ requires \valid_read(m) && tn_mem_ok((struct tn_mem *)m);
    assigns \nothing;
    ensures \result <= m->count;
    ensures \result < m->count ==> tn_mem_in((struct tn_mem *)m, \result, gpa, 1);
    ensures \result == m->count ==>
      \forall integer i; !tn_mem_in((struct tn_mem *)m, i, gpa, 1); */
static inline uint32_t tn_virtq_region_(const struct tn_mem *m, uint32_t hint, uint64_t gpa)
{
    uint32_t above;

    if (hint < m->count && gpa >= m->region[hint].gpa &&
        gpa - m->region[hint].gpa < m->region[hint].size)
        return hint;
    above = tn_mem_above_(m, gpa);
    if (above == 0 || gpa - m->region[above - 1].gpa >= m->region[above - 1].size)
        return m->count;
    return above - 1;
}

/*@ predicate tn_virtq_free(struct tn_mem *m, struct tn_iov *iov, integer n) =
      \valid(iov + (0 .. n - 1)) && \separated(m, iov + (0 .. n - 1)) &&
      \separated(m->region + (0 .. m->cap - 1), iov + (0 .. n - 1)); */

/* Fills one iovec, with bytes that one region holds. */
/*@ requires \valid_read(m) && tn_mem_ok((struct tn_mem *)m) && n > 0;
    requires tn_virtq_free((struct tn_mem *)m, v, 1) && \valid(host + (0 .. n - 1));
    assigns *v;
    ensures tn_mem_ok((struct tn_mem *)m) && v->base == host && v->len == n; */
static inline void tn_virtq_put_iov_(const struct tn_mem *m, struct tn_iov *v, uint8_t *host,
                                     uint64_t n)
{
    (void)m;
    v->base = host;
    v->len = (size_t)n;
}

/* Fills iovecs with the pieces of [addr, addr + len), each in one region. Returns how many. */
/*@ requires \valid_read(m) && tn_mem_ok((struct tn_mem *)m) && len <= 0xffffffff;
    requires tn_virtq_free((struct tn_mem *)m, iov, room) && room <= 65535;
    assigns iov[0 .. room - 1];
    ensures tn_mem_ok((struct tn_mem *)m);
    ensures 0 <= \result <= room || \result == TN_EADDR || \result == TN_ENOSPC;
    ensures len == 0 ==> \result == 0; */
static inline int tn_virtq_map_(const struct tn_mem *m, uint32_t hint, uint64_t addr, uint64_t len,
                                struct tn_iov *iov, uint32_t room)
{
    uint32_t count = 0;

    /*@ loop invariant 0 <= count <= room && len <= \at(len, Pre);
        loop invariant \at(len, Pre) == 0 ==> count == 0;
        loop invariant tn_mem_ok((struct tn_mem *)m);
        loop assigns addr, len, hint, count, iov[0 .. room - 1];
        loop variant len; */
    while (len > 0) {
        uint32_t i = tn_virtq_region_(m, hint, addr);
        const struct tn_mem_region *r;
        uint64_t n;

        if (i >= m->count)
            return TN_EADDR;
        if (count >= room)
            return tn_mem_holds(m, addr, len) ? TN_ENOSPC : TN_EADDR;
        r = &m->region[i];
        n = tn_mem_run_(r, addr, len);
        tn_virtq_put_iov_(m, iov + count, r->host + (addr - r->gpa), n);
        count++;
        hint = i + 1; /* the next piece, if there is one */
        addr += n;
        len -= n;
    }
    return (int)count;
}

/* Checks one element of a chain, of any kind, and appends it (2.6.4.2, 2.7.4.2, 2.7.5.2). */
/*@ requires \valid_read(m) && tn_mem_ok((struct tn_mem *)m) && tn_virtq_walk_ok(w);
    requires tn_virtq_apart((struct tn_mem *)m, w);
    assigns w->count, w->left, w->total, w->readable, w->readable_len,
      w->writing, w->id, w->descs, w->iov[0 .. w->cap - 1];
    ensures tn_virtq_walk_ok(w) && tn_virtq_apart((struct tn_mem *)m, w);
    ensures tn_mem_ok((struct tn_mem *)m);
    ensures w->iov == \old(w->iov) && w->cap == \old(w->cap);
    ensures \result == TN_OK || \result == TN_EADDR || \result == TN_ENOSPC ||
      \result == TN_EPROTO;
    ensures \result == TN_OK ==> w->left == \old(w->left) - 1;
    ensures \result == TN_OK && (d.flags & 2) == 0 ==> !\old(w->writing) && !w->writing;
    ensures \result == TN_OK && (d.flags & 2) != 0 ==> w->writing;
    ensures \old(w->writing) ==> w->writing && w->readable == \old(w->readable);
    ensures \old(w->count) <= w->count; */
static inline int tn_virtq_element_(const struct tn_mem *m, struct tn_virtq_walk_ *w,
                                    struct tn_virtq_desc_ d)
{
    bool write = (d.flags & TN_VIRTQ_DESC_F_WRITE) != 0;
    int n;

    if (w->left == 0 || (w->writing && !write) || d.len > UINT32_MAX - w->total)
        return TN_EPROTO;
    n = tn_virtq_map_(m, w->hint, d.addr, d.len, w->iov + w->count, w->cap - w->count);
    if (n < 0)
        return n;
    w->count += (uint32_t)n;
    w->left--;
    w->total += d.len;
    if (write) {
        w->writing = true; /* readable and readable_len stay behind from here on */
    } else {
        w->readable = w->count;
        w->readable_len = w->total;
    }
    return TN_OK;
}

/* The table that an INDIRECT descriptor names, or NULL (2.7.5.3.1, 2.8.19). */
/*@ requires \valid_read(m) && tn_mem_ok((struct tn_mem *)m) && size <= 32768;
    assigns \nothing;
    ensures \result != \null ==> d.len % 16 == 0 && 0 < d.len <= 16 * size &&
      \valid(\result + (0 .. d.len - 1));
    ensures d.len == 0 || d.len % 16 != 0 || d.len > 16 * size ==> \result == \null; */
static inline const volatile uint8_t *tn_virtq_table_(const struct tn_mem *m, uint32_t size,
                                                      struct tn_virtq_desc_ d)
{
    if (d.len == 0 || d.len % 16u != 0 || d.len / 16u > size)
        return NULL;
    return tn_mem_ptr(m, d.addr, d.len);
}

/* Why there is no table: its length, or where it is. */
/*@ assigns \nothing;
    ensures \result == TN_EPROTO || \result == TN_EADDR; */
static inline int tn_virtq_no_table_(uint32_t size, struct tn_virtq_desc_ d)
{
    return d.len == 0 || d.len % 16u != 0 || d.len / 16u > size ? TN_EPROTO : TN_EADDR;
}

/* Reads a descriptor, once. */
/*@ requires \valid_read(p + (0 .. 15));
    assigns \nothing; */
static inline struct tn_virtq_desc_ tn_virtq_split_desc_(const volatile uint8_t *p)
{
    struct tn_virtq_desc_ d;
    uint64_t rest;

    d.addr = tn_virtq_get64_(p);
    rest = tn_virtq_get64_(p + 8);
    d.len = (uint32_t)rest;
    d.flags = (uint16_t)(rest >> 32);
    d.next = (uint16_t)(rest >> 48);
    return d;
}

/*@ requires \valid_read(p + (0 .. 15));
    assigns \nothing; */
static inline struct tn_virtq_desc_ tn_virtq_packed_desc_(const volatile uint8_t *p)
{
    struct tn_virtq_desc_ d;
    uint64_t rest;

    d.addr = tn_virtq_get64_(p);
    rest = tn_virtq_get64_(p + 8);
    d.len = (uint32_t)rest;
    d.next = (uint16_t)(rest >> 32);
    d.flags = (uint16_t)(rest >> 48);
    return d;
}

/*
 * Walks the chain that starts at descriptor i of a split ring's table of size entries, and goes on
 * in an indirect table at most once. Every turn takes one of the elements that are left, or enters
 * the table.
 */
/*@ requires \valid_read(m) && tn_mem_ok((struct tn_mem *)m) && tn_virtq_walk_ok(w);
    requires tn_virtq_apart((struct tn_mem *)m, w) && size <= 32768;
    requires \valid_read(desc + (0 .. 16 * size - 1)) && w->count == 0;
    assigns w->count, w->left, w->total, w->readable, w->readable_len,
      w->writing, w->id, w->descs, w->iov[0 .. w->cap - 1];
    ensures tn_virtq_walk_ok(w) && w->iov == \old(w->iov) && w->cap == \old(w->cap);
    ensures \result == TN_OK || \result == TN_EADDR || \result == TN_ENOSPC ||
      \result == TN_EPROTO;
    ensures i >= size ==> \result == TN_EPROTO;
    ensures \result == TN_OK ==> w->left < \old(w->left); */
static inline int tn_virtq_split_(const struct tn_mem *m, const volatile uint8_t *desc,
                                  uint32_t size, uint32_t i, bool indirect,
                                  struct tn_virtq_walk_ *w)
{
    const volatile uint8_t *table = desc;
    uint32_t entries = size;

    /*@ loop invariant tn_virtq_walk_ok(w) && tn_virtq_apart((struct tn_mem *)m, w);
        loop invariant tn_mem_ok((struct tn_mem *)m);
        loop invariant w->iov == \at(w->iov, Pre) && w->cap == \at(w->cap, Pre);
        loop invariant entries <= 32768 && \valid_read(table + (0 .. 16 * entries - 1));
        loop invariant w->left <= \at(w->left, Pre);
        loop invariant i == \at(i, Pre) && entries == size || \at(i, Pre) < size;
        loop assigns table, entries, i, indirect, w->count, w->left, w->total, w->readable,
          w->readable_len, w->writing, w->id, w->descs, \at(w->iov, Pre)[0 .. \at(w->cap, Pre) - 1];
        loop variant 2 * w->left + (indirect ? 1 : 0); */
    for (;;) {
        struct tn_virtq_desc_ d;
        int err;

        if (i >= entries)
            return TN_EPROTO;
        d = tn_virtq_split_desc_(table + 16 * (size_t)i);
        if (d.flags & TN_VIRTQ_DESC_F_INDIRECT) {
            if (!indirect || (d.flags & TN_VIRTQ_DESC_F_NEXT))
                return TN_EPROTO;
            table = tn_virtq_table_(m, size, d);
            if (!table)
                return tn_virtq_no_table_(size, d);
            entries = d.len / 16u;
            i = 0;
            indirect = false;
            continue;
        }
        err = tn_virtq_element_(m, w, d);
        if (err != TN_OK)
            return err;
        if (!(d.flags & TN_VIRTQ_DESC_F_NEXT))
            return TN_OK;
        i = d.next;
    }
}

/* Whether flags say that the driver made the descriptor at this position available (2.8.1). */
/*@ assigns \nothing;
    ensures \result <==> ((flags & 0x8080) == (at >= 32768 ? 0x80 : 0x8000)); */
static inline bool tn_virtq_is_avail_(uint16_t flags, uint16_t at)
{
    return (flags & (TN_VIRTQ_DESC_F_AVAIL | TN_VIRTQ_DESC_F_USED)) ==
           (at >= 32768u ? TN_VIRTQ_DESC_F_AVAIL : TN_VIRTQ_DESC_F_USED);
}

/* Appends all entries of a packed queue's indirect table (2.8.7). */
/*@ requires \valid_read(m) && tn_mem_ok((struct tn_mem *)m) && tn_virtq_walk_ok(w);
    requires tn_virtq_apart((struct tn_mem *)m, w) && 0 < entries <= 32768;
    requires \valid_read(table + (0 .. 16 * entries - 1)) && w->count == 0;
    assigns w->count, w->left, w->total, w->readable, w->readable_len,
      w->writing, w->id, w->descs, w->iov[0 .. w->cap - 1];
    ensures tn_virtq_walk_ok(w) && tn_virtq_apart((struct tn_mem *)m, w);
    ensures tn_mem_ok((struct tn_mem *)m);
    ensures w->iov == \old(w->iov) && w->cap == \old(w->cap);
    ensures \result == TN_OK || \result == TN_EADDR || \result == TN_ENOSPC ||
      \result == TN_EPROTO;
    ensures \result == TN_OK ==> w->left == \old(w->left) - entries; */
static inline int tn_virtq_packed_table_(const struct tn_mem *m, const volatile uint8_t *table,
                                         uint32_t entries, struct tn_virtq_walk_ *w)
{
    /*@ loop invariant tn_virtq_walk_ok(w) && tn_virtq_apart((struct tn_mem *)m, w);
        loop invariant tn_mem_ok((struct tn_mem *)m);
        loop invariant w->iov == \at(w->iov, Pre) && w->cap == \at(w->cap, Pre);
        loop invariant 0 <= i <= entries && w->left == \at(w->left, Pre) - i;
        loop assigns i, w->count, w->left, w->total, w->readable, w->readable_len,
          w->writing, w->id, w->descs, \at(w->iov, Pre)[0 .. \at(w->cap, Pre) - 1];
        loop variant entries - i; */
    for (uint32_t i = 0; i < entries; i++) {
        struct tn_virtq_desc_ d;
        int err;

        d = tn_virtq_packed_desc_(table + 16 * (size_t)i);
        if (d.flags & TN_VIRTQ_DESC_F_INDIRECT) /* all other flags but WRITE are ignored */
            return TN_EPROTO;
        err = tn_virtq_element_(m, w, d);
        if (err != TN_OK)
            return err;
    }
    return TN_OK;
}

/*
 * Walks the list whose first descriptor is at position at of a packed ring of size, room of which
 * are the driver's. The buffer id is that of the last descriptor.
 */
/*@ requires \valid_read(m) && tn_mem_ok((struct tn_mem *)m) && tn_virtq_walk_ok(w);
    requires tn_virtq_apart((struct tn_mem *)m, w) && 0 < size <= 32768 && room <= size;
    requires at % 32768 < size && w->count == 0;
    requires \valid_read(desc + (0 .. 16 * size - 1));
    assigns w->count, w->left, w->total, w->readable, w->readable_len,
      w->writing, w->id, w->descs, w->iov[0 .. w->cap - 1];
    ensures tn_virtq_walk_ok(w) && w->iov == \old(w->iov) && w->cap == \old(w->cap);
    ensures \result == TN_OK || \result == TN_EADDR || \result == TN_ENOSPC ||
      \result == TN_EPROTO;
    ensures \result == TN_OK ==> w->id < size && 1 <= w->descs <= room;
    ensures room == 0 ==> \result == TN_EPROTO; */
static inline int tn_virtq_packed_(const struct tn_mem *m, const volatile uint8_t *desc,
                                   uint32_t size, uint16_t at, uint32_t room, bool indirect,
                                   struct tn_virtq_walk_ *w)
{
    uint32_t n = 0;

    /*@ loop invariant tn_virtq_walk_ok(w) && tn_virtq_apart((struct tn_mem *)m, w);
        loop invariant tn_mem_ok((struct tn_mem *)m);
        loop invariant w->iov == \at(w->iov, Pre) && w->cap == \at(w->cap, Pre);
        loop invariant n <= room && at % 32768 < size && (n == 0 ==> w->count == 0);
        loop assigns n, at, w->count, w->left, w->total, w->readable, w->readable_len,
          w->writing, w->id, w->descs, \at(w->iov, Pre)[0 .. \at(w->cap, Pre) - 1];
        loop variant room - n; */
    for (;;) {
        struct tn_virtq_desc_ d;
        int err;

        if (n >= room)
            return TN_EPROTO;
        d = tn_virtq_packed_desc_(desc + 16 * (size_t)(at % 32768u));
        if (!tn_virtq_is_avail_(d.flags, at))
            return TN_EPROTO;
        n++;
        if (d.flags & TN_VIRTQ_DESC_F_INDIRECT) {
            const volatile uint8_t *table;

            if (!indirect || n > 1 || (d.flags & TN_VIRTQ_DESC_F_NEXT))
                return TN_EPROTO;
            table = tn_virtq_table_(m, size, d);
            if (!table)
                return tn_virtq_no_table_(size, d);
            err = tn_virtq_packed_table_(m, table, d.len / 16u, w);
        } else {
            err = tn_virtq_element_(m, w, d);
        }
        if (err != TN_OK)
            return err;
        if (!(d.flags & TN_VIRTQ_DESC_F_NEXT)) {
            if (d.next >= size)
                return TN_EPROTO;
            w->id = d.next;
            w->descs = (uint16_t)n;
            return TN_OK;
        }
        at = tn_virtq_advance_(size, at, 1);
    }
}

/* How many chains a split queue's driver has added; TN_EPROTO: more than it may (A03, A12). */
/*@ requires 0 < size <= 32768 && in_flight <= size;
    assigns \nothing;
    ensures \let d = (avail_idx - next_avail) % 65536;
      \let n = d < 0 ? d + 65536 : d;
      (n + in_flight <= size ==> \result == n) &&
      (n + in_flight > size ==> \result == TN_EPROTO); */
static inline int tn_virtq_added_(uint32_t size, uint32_t in_flight, uint16_t next_avail,
                                  uint16_t avail_idx)
{
    uint32_t n = tn_virtq_distance_(next_avail, avail_idx, 65536u);

    return n > size - in_flight ? TN_EPROTO : (int)n;
}

/* Writes one used element (2.7.8). */
/*@ requires 0 < size <= 32768 && \valid(device + (0 .. 6 + 8 * size - 1)) && slot < size;
    assigns device[4 + 8 * slot .. 11 + 8 * slot]; */
static inline void tn_virtq_put_used_(uint8_t *device, uint32_t size, uint32_t slot, uint32_t id,
                                      uint32_t written)
{
    (void)size;
    tn_virtq_put32_(device + 4 + 8 * (size_t)slot, id);
    tn_virtq_put32_(device + 8 + 8 * (size_t)slot, written);
}

/* Writes one used descriptor, its flags last (2.8.1, 2.8.4). */
/*@ requires 0 < size <= 32768 && \valid(desc + (0 .. 16 * size - 1)) && at % 32768 < size;
    assigns desc[16 * (at % 32768) + 8 .. 16 * (at % 32768) + 15]; */
static inline void tn_virtq_put_packed_(uint8_t *desc, uint32_t size, uint16_t at, uint16_t id,
                                        uint32_t written)
{
    uint8_t *d = desc + 16 * (size_t)(at % 32768u);
    uint32_t flags = at >= 32768u ? TN_VIRTQ_DESC_F_AVAIL | TN_VIRTQ_DESC_F_USED : 0u;

    (void)size;
    if (written > 0)
        flags |= TN_VIRTQ_DESC_F_WRITE;
    tn_virtq_put32_(d + 8, written);
    tn_virtq_put16_(d + 12, id);
    tn_virtq_put16_(d + 14, (uint16_t)flags);
}

/* The position or index n further: descriptors of a packed queue, one of a split one. */
static inline uint16_t tn_virtq_step_(const struct tn_virtq *q, uint16_t at, uint32_t n)
{
    return q->cfg.packed ? tn_virtq_advance_(q->cfg.size, at, n) : (uint16_t)(at + 1u);
}

/* Whether any region's writes are logged: regions are few. */
static inline bool tn_virtq_logged_(const struct tn_virtq *q)
{
    uint32_t i;

    for (i = 0; i < q->mem->count; i++) {
        if (q->mem->region[i].dirty)
            return true;
    }
    return false;
}

/* Marks the first written bytes of a chain's writable part dirty. */
static inline void tn_virtq_mark_(const struct tn_virtq *q, const struct tn_virtq_chain *chain,
                                  uint32_t written)
{
    const struct tn_iov *iov = chain->iov + chain->readable;
    uint64_t left = written;
    uint32_t i;

    for (; left > 0; iov++) {
        uint64_t n = iov->len < left ? iov->len : left;

        for (i = 0; i < q->mem->count; i++) {
            const struct tn_mem_region *r = &q->mem->region[i];
            uintptr_t off = (uintptr_t)iov->base - (uintptr_t)r->host;

            if (off < r->size) {
                tn_mem_mark(q->mem, r->gpa + off, n);
                break;
            }
        }
        left -= n;
    }
}

static inline void tn_virtq_no_chain_(struct tn_virtq_chain *c)
{
    c->iov = NULL;
    c->readable_len = 0;
    c->writable_len = 0;
    c->readable = 0;
    c->writable = 0;
    c->id = 0;
    c->descs = 0;
    c->at = 0;
    c->generation = 0;
}

/* A stopped queue; generations go on. */
static inline void tn_virtq_clear_(struct tn_virtq *q)
{
    q->mem = NULL;
    q->desc = NULL;
    q->driver = NULL;
    q->device = NULL;
    q->cfg.desc = 0;
    q->cfg.driver = 0;
    q->cfg.device = 0;
    q->cfg.size = 0;
    q->cfg.packed = false;
    q->cfg.event_idx = false;
    q->cfg.indirect = false;
    q->cfg.in_order = false;
    q->next_avail = 0;
    q->next_used = 0;
    q->avail_idx = 0;
    q->unsignalled = 0;
    q->hint = 0;
    q->error = TN_OK;
    q->started = false;
}

TN_API void tn_virtq_init(struct tn_virtq *q)
{
    tn_virtq_clear_(q);
    q->generation = 0;
}

TN_API void tn_virtq_stop(struct tn_virtq *q)
{
    tn_virtq_clear_(q);
    q->generation++;
}

TN_API int tn_virtq_start(struct tn_virtq *q, const struct tn_mem *mem,
                          const struct tn_virtq_cfg *cfg)
{
    uint32_t size = cfg->size;
    uint8_t *desc, *driver, *device;
    uint32_t i;

    if (!mem)
        return TN_EINVAL;
    if (q->started)
        return TN_ESTATE;
    if (!tn_virtq_size_ok_(cfg->packed, cfg->size))
        return TN_ERANGE;
    desc = tn_virtq_area_(mem, cfg->desc, 16, 16 * size);
    driver = tn_virtq_area_(mem, cfg->driver, cfg->packed ? 4 : 2, cfg->packed ? 4 : 6 + 2 * size);
    device = tn_virtq_area_(mem, cfg->device, 4, cfg->packed ? 4 : 6 + 8 * size);
    if (!desc || !driver || !device)
        return TN_EADDR;
    q->mem = mem;
    q->desc = desc;
    q->driver = driver;
    q->device = device;
    q->cfg = *cfg;
    q->next_avail = cfg->packed ? 32768u : 0; /* a packed queue's wrap counters start at 1 */
    q->next_used = q->next_avail;
    q->avail_idx = 0;
    q->unsignalled = 0;
    q->hint = 0;
    for (i = 1; i < mem->count; i++) {
        if (mem->region[i].size > mem->region[q->hint].size)
            q->hint = i;
    }
    q->error = TN_OK;
    q->generation++;
    q->started = true;
    return TN_OK;
}

TN_API uint32_t tn_virtq_in_flight(const struct tn_virtq *q)
{
    if (!q->started)
        return 0;
    return tn_virtq_between_(q->cfg.packed, q->cfg.size, q->next_used, q->next_avail);
}

/* Whether the driver has added something, legal or not. */
static inline bool tn_virtq_more_(const struct tn_virtq *q)
{
    const volatile uint8_t *d;

    if (!q->cfg.packed)
        return q->avail_idx != q->next_avail || tn_virtq_get16_(q->driver + 2) != q->next_avail;
    d = q->desc + 16 * (size_t)(q->next_avail % 32768u);
    return tn_virtq_is_avail_(tn_virtq_get16_(d + 14), q->next_avail);
}

TN_API int tn_virtq_pop(struct tn_virtq *q, struct tn_virtq_chain *chain, struct tn_iov *iov,
                        uint16_t cap)
{
    struct tn_virtq_walk_ w;
    uint32_t size = q->cfg.size, in_flight;
    int err;

    tn_virtq_no_chain_(chain);
    if (!q->started)
        return TN_ESTATE;
    if (q->error != TN_OK)
        return q->error;
    in_flight = tn_virtq_in_flight(q);
    w.iov = iov;
    w.cap = cap;
    w.count = 0;
    w.left = size;
    w.total = 0;
    w.readable = 0;
    w.readable_len = 0;
    w.hint = q->hint;
    w.id = 0;
    w.descs = 1;
    w.writing = false;
    if (q->cfg.packed) {
        if (!tn_virtq_more_(q))
            return 0;
        err = tn_virtq_packed_(q->mem, q->desc, size, q->next_avail, size - in_flight,
                               q->cfg.indirect, &w);
    } else {
        if (q->avail_idx == q->next_avail) {
            uint16_t idx = tn_virtq_get16_(q->driver + 2);

            err = tn_virtq_added_(size, in_flight, q->next_avail, idx);
            if (err < 0)
                q->error = err;
            if (err <= 0)
                return err;
            q->avail_idx = idx;
        }
        w.id = tn_virtq_get16_(q->driver + 4 + 2 * (size_t)tn_virtq_slot_(size, q->next_avail));
        err = tn_virtq_split_(q->mem, q->desc, size, w.id, q->cfg.indirect, &w);
    }
    if (err != TN_OK) {
        uint32_t i;

        for (i = 0; i < cap; i++) {
            iov[i].base = NULL;
            iov[i].len = 0;
        }
        if (err != TN_ENOSPC)
            q->error = err;
        return err;
    }
    chain->iov = iov;
    chain->readable_len = w.readable_len;
    chain->writable_len = w.total - w.readable_len;
    chain->readable = (uint16_t)w.readable;
    chain->writable = (uint16_t)(w.count - w.readable);
    chain->id = w.id;
    chain->descs = w.descs;
    chain->at = q->next_avail;
    chain->generation = q->generation;
    q->next_avail = tn_virtq_step_(q, q->next_avail, w.descs);
    return 1;
}

/* Whether a chain can be one of this run's. */
static inline int tn_virtq_known_(const struct tn_virtq *q, const struct tn_virtq_chain *chain)
{
    if (!q->started || q->error != TN_OK || chain->generation != q->generation)
        return TN_ESTATE;
    if (chain->id >= q->cfg.size || chain->descs == 0 || chain->descs > q->cfg.size ||
        (q->cfg.packed && chain->at % 32768u >= q->cfg.size))
        return TN_EINVAL;
    return TN_OK;
}

TN_API int tn_virtq_unpop(struct tn_virtq *q, const struct tn_virtq_chain *chain)
{
    int err = tn_virtq_known_(q, chain);

    if (err != TN_OK)
        return err;
    if (chain->descs > tn_virtq_in_flight(q) ||
        tn_virtq_step_(q, chain->at, chain->descs) != q->next_avail)
        return TN_EINVAL;
    q->next_avail = chain->at;
    return TN_OK;
}

/* Whether all n chains may be pushed now. */
static inline int tn_virtq_may_push_(const struct tn_virtq *q, const struct tn_virtq_chain *chain,
                                     const uint32_t *written, uint32_t n)
{
    uint32_t left = tn_virtq_in_flight(q), i;
    uint16_t at = q->next_used;

    for (i = 0; i < n; i++) {
        int err = tn_virtq_known_(q, &chain[i]);
        uint32_t takes = q->cfg.packed ? chain[i].descs : 1u;

        if (err != TN_OK)
            return err;
        if (takes > left)
            return TN_ESTATE;
        if (written[i] > chain[i].writable_len || (q->cfg.in_order && chain[i].at != at))
            return TN_EINVAL;
        left -= takes;
        at = tn_virtq_step_(q, at, takes);
    }
    return TN_OK;
}

TN_API int tn_virtq_push_many(struct tn_virtq *q, const struct tn_virtq_chain *chain,
                              const uint32_t *written, uint16_t n)
{
    int err = tn_virtq_may_push_(q, chain, written, n);
    uint32_t size = q->cfg.size, moved = 0, i;
    uint16_t at = q->next_used;
    bool logged;

    if (err != TN_OK)
        return err;
    if (!q->started)
        return TN_ESTATE;
    if (n == 0)
        return TN_OK;
    logged = tn_virtq_logged_(q);
    for (i = 0; i < n; i++) {
        if (logged)
            tn_virtq_mark_(q, &chain[i], written[i]);
        if (!q->cfg.packed)
            tn_virtq_put_used_(q->device, size, tn_virtq_slot_(size, at), chain[i].id, written[i]);
        else if (i > 0) /* the first comes last: the driver looks no further without it */
            tn_virtq_put_packed_(q->desc, size, at, chain[i].id, written[i]);
        at = tn_virtq_step_(q, at, chain[i].descs);
        moved += q->cfg.packed ? chain[i].descs : 1u;
    }
    if (q->cfg.packed)
        tn_virtq_put_packed_(q->desc, size, q->next_used, chain[0].id, written[0]);
    else
        tn_virtq_put16_(q->device + 2, at);
    if (logged) {
        uint16_t was = q->next_used;

        if (!q->cfg.packed)
            tn_mem_mark(q->mem, q->cfg.device, 4);
        for (i = 0; i < n; i++) {
            if (q->cfg.packed)
                tn_mem_mark(q->mem, q->cfg.desc + 16u * (was % 32768u), 16);
            else
                tn_mem_mark(q->mem, q->cfg.device + 4 + 8u * tn_virtq_slot_(size, was), 8);
            was = tn_virtq_step_(q, was, chain[i].descs);
        }
    }
    q->next_used = at;
    q->unsignalled = moved < 65536u - q->unsignalled ? q->unsignalled + moved : 65536u;
    return TN_OK;
}

TN_API int tn_virtq_push(struct tn_virtq *q, const struct tn_virtq_chain *chain, uint32_t written)
{
    return tn_virtq_push_many(q, chain, &written, 1);
}

TN_API bool tn_virtq_need_event(uint16_t event, uint16_t new_idx, uint16_t old)
{
    return tn_virtq_passed_(event, new_idx, tn_virtq_distance_(old, new_idx, 65536u), 65536u);
}

TN_API bool tn_virtq_should_signal(struct tn_virtq *q)
{
    uint32_t size = q->cfg.size, moved = q->unsignalled;
    uint16_t wish, event;

    if (!q->started || q->error != TN_OK || moved == 0)
        return false;
    q->unsignalled = 0;
    tn_virtq_fence_(); /* the driver sees the used index, or we see its latest wish */
    if (!q->cfg.packed) {
        if (!q->cfg.event_idx)
            return !(tn_virtq_get16_(q->driver) & TN_VIRTQ_AVAIL_F_NO_INTERRUPT);
        event = tn_virtq_get16_(q->driver + 4 + 2 * (size_t)size);
        return tn_virtq_passed_(event, q->next_used, moved, 65536u);
    }
    wish = tn_virtq_get16_(q->driver + 2) % 4u;
    if (wish != TN_VIRTQ_EVENT_DESC || !q->cfg.event_idx)
        return wish != TN_VIRTQ_EVENT_DISABLE;
    event = tn_virtq_get16_(q->driver);
    if (event % 32768u >= size)
        return true; /* no such descriptor: one signal too many harms nobody */
    return tn_virtq_passed_(tn_virtq_linear_(true, size, event),
                            tn_virtq_linear_(true, size, q->next_used), moved, 2 * size);
}

TN_API bool tn_virtq_notify_enable(struct tn_virtq *q)
{
    uint64_t off = 0;

    if (!q->started || q->error != TN_OK)
        return false;
    if (q->cfg.packed) {
        tn_virtq_put32_(q->device, q->cfg.event_idx ? TN_VIRTQ_EVENT_DESC << 16 | q->next_avail
                                                    : TN_VIRTQ_EVENT_ENABLE << 16);
    } else if (q->cfg.event_idx) {
        off = 4 + 8 * (uint64_t)q->cfg.size;
        tn_virtq_put16_(q->device + off, q->next_avail);
    } else {
        tn_virtq_put16_(q->device, 0);
    }
    if (tn_virtq_logged_(q))
        tn_mem_mark(q->mem, q->cfg.device + off, q->cfg.packed ? 4 : 2);
    tn_virtq_fence_(); /* the driver sees the wish, or we see what it added */
    return tn_virtq_more_(q);
}

TN_API void tn_virtq_notify_disable(struct tn_virtq *q)
{
    if (!q->started || q->error != TN_OK)
        return;
    if (q->cfg.packed)
        tn_virtq_put32_(q->device, TN_VIRTQ_EVENT_DISABLE << 16);
    else if (q->cfg.event_idx)
        return; /* the event index stays behind, and the flags are 0 (2.7.10.2) */
    else
        tn_virtq_put16_(q->device, TN_VIRTQ_USED_F_NO_NOTIFY);
    if (tn_virtq_logged_(q))
        tn_mem_mark(q->mem, q->cfg.device, 4);
}

TN_API bool tn_virtq_pending(const struct tn_virtq *q)
{
    return !q->started || q->error != TN_OK || tn_virtq_more_(q);
}

TN_API void tn_virtq_break(struct tn_virtq *q)
{
    if (q->started && q->error == TN_OK)
        q->error = TN_EPROTO;
}

TN_API void tn_virtq_save(const struct tn_virtq *q, struct tn_virtq_state *out)
{
    out->version = TN_VIRTQ_VERSION;
    out->unsignalled = q->unsignalled;
    out->desc = q->cfg.desc;
    out->driver = q->cfg.driver;
    out->device = q->cfg.device;
    out->size = q->cfg.size;
    out->next_avail = q->next_avail;
    out->next_used = q->next_used;
    out->started = q->started;
    out->packed = q->cfg.packed;
    out->event_idx = q->cfg.event_idx;
    out->indirect = q->cfg.indirect;
    out->in_order = q->cfg.in_order;
    out->zero = 0;
    out->error = q->error;
}

/* Whether indices and flags are such as a queue of this state's geometry can have (A12, E01). */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result <==> s->started <= 1 && s->packed <= 1 && s->event_idx <= 1 &&
      s->indirect <= 1 && s->in_order <= 1 && s->zero == 0 && s->unsignalled <= 65536 &&
      (s->error == 0 || s->error == TN_EPROTO || s->error == TN_EADDR) &&
      (s->started == 0 ==> s->unsignalled == 0 && s->desc == 0 && s->driver == 0 &&
        s->device == 0 && s->size == 0 && s->next_avail == 0 && s->next_used == 0 &&
        s->packed == 0 && s->event_idx == 0 && s->indirect == 0 && s->in_order == 0 &&
        s->error == 0) &&
      (s->started == 1 ==> 0 < s->size <= 32768 &&
        (s->packed == 1 ==> s->next_avail % 32768 < s->size && s->next_used % 32768 < s->size &&
          (s->next_avail / 32768 == s->next_used / 32768 ? s->next_avail >= s->next_used
            : s->next_avail % 32768 <= s->next_used % 32768)) &&
        (s->packed == 0 ==> (s->next_avail >= s->next_used
          ? s->next_avail - s->next_used <= s->size
          : s->next_avail + 65536 - s->next_used <= s->size))); */
static inline bool tn_virtq_valid_(const struct tn_virtq_state *s)
{
    if (s->started > 1 || s->packed > 1 || s->event_idx > 1 || s->indirect > 1 || s->in_order > 1 ||
        s->zero != 0 || s->unsignalled > 65536u ||
        (s->error != TN_OK && s->error != TN_EPROTO && s->error != TN_EADDR))
        return false;
    if (s->started == 0)
        return s->unsignalled == 0 && s->desc == 0 && s->driver == 0 && s->device == 0 &&
               s->size == 0 && s->next_avail == 0 && s->next_used == 0 && s->packed == 0 &&
               s->event_idx == 0 && s->indirect == 0 && s->in_order == 0 && s->error == TN_OK;
    if (s->size == 0 || s->size > TN_VIRTQ_SIZE_MAX)
        return false;
    if (s->packed == 1 && (s->next_avail % 32768u >= s->size || s->next_used % 32768u >= s->size))
        return false;
    return tn_virtq_between_(s->packed == 1, s->size, s->next_used, s->next_avail) <= s->size;
}

TN_API int tn_virtq_restore(struct tn_virtq *q, const struct tn_mem *mem,
                            const struct tn_virtq_state *from)
{
    struct tn_virtq_state s = *from;
    struct tn_virtq_cfg cfg;
    int err;

    tn_virtq_stop(q);
    if (s.version != TN_VIRTQ_VERSION)
        return TN_EUNSUP;
    if (!tn_virtq_valid_(&s))
        return TN_EFORMAT;
    if (s.started == 0)
        return TN_OK;
    cfg.desc = s.desc;
    cfg.driver = s.driver;
    cfg.device = s.device;
    cfg.size = s.size;
    cfg.packed = s.packed == 1;
    cfg.event_idx = s.event_idx == 1;
    cfg.indirect = s.indirect == 1;
    cfg.in_order = s.in_order == 1;
    err = tn_virtq_start(q, mem, &cfg);
    if (err != TN_OK)
        return err;
    q->next_avail = s.next_avail;
    q->next_used = s.next_used;
    q->avail_idx = s.next_avail;
    q->unsignalled = s.unsignalled;
    q->error = s.error;
    return TN_OK;
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif
