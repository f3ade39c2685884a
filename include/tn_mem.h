/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_mem - guest memory as a few sorted regions, and the only way from a guest address to bytes.
 *
 * WHAT
 *   A table of regions (guest physical address, size, host pointer) and the checked functions that
 *   every other module uses to reach guest RAM: translate, copies, single loads and stores,
 *   splitting a buffer at region borders, and an optional dirty bitmap that host writes mark.
 *
 * USAGE
 *   static uint8_t ram[1u << 20];
 *   struct tn_mem_region table[4];
 *   struct tn_mem mem;
 *   uint64_t magic;
 *
 *   tn_mem_init(&mem, table, 4);
 *   if (tn_mem_add(&mem, 0x0, ram, sizeof(ram)) < 0 ||
 *       tn_mem_write(&mem, 0x1000, "hello", 5) < 0 ||
 *       tn_mem_load(&mem, 0x1000, 4, &magic) < 0)
 *       return 1;
 *
 * COMPOSITION
 *   tn_boot_x86 fills it, tn_virtq walks rings in it, tn_kvm registers its regions as memory slots.
 *   Only RAM belongs here: an address that no region holds, a device's window for one, never
 *   translates, so a device's DMA cannot reach another device.
 *
 * GUEST TRUST
 *   gpa and len may come from the guest, unchecked. The table may not. The bytes behind a pointer
 *   that tn_mem_ptr or tn_mem_split returns change under the reader's hands while the guest runs:
 *   copy once, check the copy, use the copy.
 *
 * MEMORY
 *   The caller owns the table, the RAM and the bitmaps; all outlive the struct tn_mem.
 *
 * THREADS
 *   tn_mem_init, tn_mem_add and tn_mem_track while no other thread uses it; all others may
 *   then run on any number of threads. The dirty bitmap is updated with relaxed atomics and a fence
 *   on either side, so that a page written while its bit is taken is copied now or next time.
 *
 * CONFIG
 *   none.
 *
 * LIMITS
 *   Regions are multiples of 4 KiB and end at or below 2^52. Little-endian hosts.
 */
#ifndef TN_MEM_H
#define TN_MEM_H

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

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_MEM_PAGE  4096ull      /* granularity of regions and of the dirty bitmap, bytes */
#define TN_MEM_LIMIT (1ull << 52) /* regions end at or below it: x86's physical address space */

/* One contiguous run of guest RAM. */
struct tn_mem_region {
    uint64_t gpa;    /* first guest physical address */
    uint64_t size;   /* bytes */
    uint8_t *host;   /* where the first byte is in this process */
    uint64_t *dirty; /* one bit per page, ceil(size / 4 KiB / 64) words; NULL: not tracked */
};

/* The table, sorted by gpa, without overlap. */
struct tn_mem {
    struct tn_mem_region *region;
    uint32_t count;
    uint32_t cap;
};

/* A part of a guest buffer that is contiguous in this process. */
struct tn_mem_piece {
    uint8_t *host;
    uint64_t len; /* bytes, > 0 */
};

/*@ predicate tn_mem_region_ok(struct tn_mem_region *r) =
      0 < r->size <= TN_MEM_LIMIT && r->gpa <= TN_MEM_LIMIT - r->size &&
      \valid(r->host + (0 .. r->size - 1));
    predicate tn_mem_ok(struct tn_mem *m) =
      m->count <= m->cap && \valid_read(m->region + (0 .. m->cap - 1)) &&
      (\forall integer i; 0 <= i < m->count ==> tn_mem_region_ok(m->region + i)) &&
      (\forall integer i, j; 0 <= i < j < m->count ==>
        m->region[i].gpa + m->region[i].size <= m->region[j].gpa);
    predicate tn_mem_in(struct tn_mem *m, integer i, integer gpa, integer len) =
      0 <= i < m->count && m->region[i].gpa <= gpa &&
      gpa + len <= m->region[i].gpa + m->region[i].size;
    predicate tn_mem_ram(struct tn_mem *m, integer a) = \exists integer i; tn_mem_in(m, i, a, 1);
*/

/*
 * Starts an empty memory over the caller's table of cap regions.
 */
/*@ requires \valid(m);
    assigns *m;
    ensures m->region == table && m->count == 0 && m->cap == cap; */
TN_API void tn_mem_init(struct tn_mem *m, struct tn_mem_region *table, uint32_t cap);

/*
 * Adds size bytes at host as guest RAM at gpa; gpa and size multiples of 4 KiB, host a multiple of
 * 8, the end at or below TN_MEM_LIMIT. Not while other threads use m. Returns 0; TN_EINVAL for a
 * bad address, size or host, TN_EEXIST where it overlaps a region, TN_ENOSPC when the table is full
 * (m is unchanged).
 */
TN_API int tn_mem_add(struct tn_mem *m, uint64_t gpa, uint8_t *host, uint64_t size);

/*
 * Starts (bitmap) or ends (NULL) tracking of host writes to region i. The bitmap has
 * TN_MEM_DIRTY_WORDS(size) words, zeroed by the caller. Returns 0, or TN_EINVAL: no region i.
 */
TN_API int tn_mem_track(struct tn_mem *m, uint32_t i, uint64_t *bitmap);
#define TN_MEM_DIRTY_WORDS(size) (((size) / TN_MEM_PAGE + 63) / 64)

/*
 * The host address of [gpa, gpa + len), or NULL unless len > 0 and one region holds all of it.
 */
/*@ requires \valid_read(m) && tn_mem_ok((struct tn_mem *)m);
    assigns \nothing;
    ensures \result != \null ==>
      (\exists integer i; tn_mem_in((struct tn_mem *)m, i, gpa, len) &&
        \result == m->region[i].host + (gpa - m->region[i].gpa)) && len > 0 &&
      \valid(\result + (0 .. len - 1));
    ensures \result == \null ==> len == 0 ||
      \forall integer i; !tn_mem_in((struct tn_mem *)m, i, gpa, len); */
TN_API uint8_t *tn_mem_ptr(const struct tn_mem *m, uint64_t gpa, uint64_t len);

/*
 * Whether RAM holds all of [gpa, gpa + len), in one region or in several that touch; true when
 * len is 0.
 */
/*@ requires \valid_read(m) && tn_mem_ok((struct tn_mem *)m);
    assigns \nothing;
    ensures \result <==> \forall integer a; gpa <= a < gpa + len ==>
      tn_mem_ram((struct tn_mem *)m, a); */
TN_API bool tn_mem_holds(const struct tn_mem *m, uint64_t gpa, uint64_t len);

/*
 * Splits [gpa, gpa + len) at region borders into at most cap pieces. Returns how many; TN_EADDR
 * when a byte of it is not RAM, else TN_ENOSPC when it takes more than cap; after an error every
 * piece that was filled is NULL and 0 again. Nothing is marked dirty: whoever writes into a piece
 * calls tn_mem_mark, after the write.
 */
TN_API int tn_mem_split(const struct tn_mem *m, uint64_t gpa, uint64_t len,
                        struct tn_mem_piece *piece, uint32_t cap);

/*
 * Copies len bytes out of, or into, guest RAM; the range may cross regions that touch. All or
 * nothing: TN_EADDR when a byte of it is not RAM; not a byte of guest RAM is then written, and all
 * of dst is zero. A write marks dirty.
 */
TN_API int tn_mem_read(const struct tn_mem *m, uint64_t gpa, void *dst, size_t len);
TN_API int tn_mem_write(const struct tn_mem *m, uint64_t gpa, const void *src, size_t len);

/*
 * Fills [gpa, gpa + len) with a byte; as tn_mem_write otherwise.
 */
TN_API int tn_mem_fill(const struct tn_mem *m, uint64_t gpa, uint8_t byte, uint64_t len);

/*
 * One single-copy-atomic little-endian access of width 1, 2, 4 or 8 bytes at a multiple of width.
 * Returns 0; TN_EADDR when the address is not RAM or not aligned (*value = 0), TN_EINVAL for
 * another width. A store marks dirty.
 */
/*@ requires \valid_read(m) && tn_mem_ok((struct tn_mem *)m) && \valid(value);
    requires \separated(value, m, m->region + (0 .. m->cap - 1));
    assigns *value;
    ensures \result == TN_EINVAL <==> !(width == 1 || width == 2 || width == 4 || width == 8);
    ensures \result == TN_OK ==> gpa % width == 0;
    ensures \result == TN_OK ==> \exists integer i; tn_mem_in((struct tn_mem *)m, i, gpa, width);
    ensures \result == TN_EADDR ==> gpa % width != 0 ||
      \forall integer i; !tn_mem_in((struct tn_mem *)m, i, gpa, width);
    ensures \result == TN_OK || (\result < 0 && *value == 0); */
TN_API int tn_mem_load(const struct tn_mem *m, uint64_t gpa, unsigned width, uint64_t *value);
TN_API int tn_mem_store(const struct tn_mem *m, uint64_t gpa, unsigned width, uint64_t value);

/*
 * Marks the pages of [gpa, gpa + len) dirty in the regions that are tracked; bytes outside RAM
 * are passed over.
 */
TN_API void tn_mem_mark(const struct tn_mem *m, uint64_t gpa, uint64_t len);

/*
 * Moves the dirty bits of region i into out (TN_MEM_DIRTY_WORDS(size) words, ORed in) and clears
 * them; a mark that races with it is seen now or at the next call, never lost. Returns the number
 * of bits moved; TN_EINVAL: no region i, or it is not tracked.
 */
TN_API int64_t tn_mem_take_dirty(const struct tn_mem *m, uint32_t i, uint64_t *out);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

TN_API void tn_mem_init(struct tn_mem *m, struct tn_mem_region *table, uint32_t cap)
{
    m->region = table;
    m->count = 0;
    m->cap = cap;
}

/* The index of the first region above gpa: the one that may hold gpa is the one before it. */
/*@ requires \valid_read(m) && tn_mem_ok((struct tn_mem *)m);
    assigns \nothing;
    ensures \result <= m->count;
    ensures \forall integer i; 0 <= i < \result ==> m->region[i].gpa <= gpa;
    ensures \forall integer i; \result <= i < m->count ==> m->region[i].gpa > gpa; */
static inline uint32_t tn_mem_above_(const struct tn_mem *m, uint64_t gpa)
{
    uint32_t lo = 0, hi = m->count;

    /*@ loop invariant 0 <= lo <= hi <= m->count;
        loop invariant \forall integer i; 0 <= i < lo ==> m->region[i].gpa <= gpa;
        loop invariant \forall integer i; hi <= i < m->count ==> m->region[i].gpa > gpa;
        loop assigns lo, hi;
        loop variant hi - lo; */
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (m->region[mid].gpa <= gpa)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* The region that holds gpa, or NULL. No other region does. */
/*@ requires \valid_read(m) && tn_mem_ok((struct tn_mem *)m);
    assigns \nothing;
    ensures \result == \null ==>
      \forall integer i; !tn_mem_in((struct tn_mem *)m, i, gpa, 1);
    ensures \result != \null ==>
      \exists integer i; \result == m->region + i && tn_mem_in((struct tn_mem *)m, i, gpa, 1) &&
        \forall integer j; tn_mem_in((struct tn_mem *)m, j, gpa, 1) ==> j == i; */
static inline const struct tn_mem_region *tn_mem_find_(const struct tn_mem *m, uint64_t gpa)
{
    uint32_t above = tn_mem_above_(m, gpa);
    const struct tn_mem_region *r;

    if (above == 0)
        return NULL;
    r = &m->region[above - 1];
    /*@ assert r == m->region + (above - 1); */
    return gpa - r->gpa < r->size ? r : NULL;
}

/* How many of len bytes from gpa lie in r, which holds gpa. */
/*@ requires \valid_read(r) && r->gpa <= gpa < r->gpa + r->size && r->size <= TN_MEM_LIMIT;
    assigns \nothing;
    ensures \result == \min(len, r->gpa + r->size - gpa); */
static inline uint64_t tn_mem_run_(const struct tn_mem_region *r, uint64_t gpa, uint64_t len)
{
    uint64_t left = r->size - (gpa - r->gpa);

    return len < left ? len : left;
}

/* Sets the bits of the pages of [off, off + len), len > 0. */
static inline void tn_mem_bits_(uint64_t *dirty, uint64_t off, uint64_t len)
{
    uint64_t bit = off / TN_MEM_PAGE;
    uint64_t last = (off + (len - 1)) / TN_MEM_PAGE;

#ifndef __FRAMAC__
    /* The data is written before the bits are read: whoever takes a bit that is seen set here
     * reads the new data after it (with the fence in tn_mem_take_dirty). */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
    while (bit <= last) {
        uint64_t end = last / 64 == bit / 64 ? last % 64 : 63;
        uint64_t mask = ~0ull >> (63 - end) & ~0ull << bit % 64;
        uint64_t *word = &dirty[bit / 64];

#ifdef __FRAMAC__
        *word |= mask;
#else
        if ((__atomic_load_n(word, __ATOMIC_RELAXED) & mask) != mask)
            __atomic_fetch_or(word, mask, __ATOMIC_RELAXED);
#endif
        bit = (bit / 64 + 1) * 64;
    }
}

/* One access of width 1, 2, 4 or 8; p is a multiple of it, so that no access is torn (A27). */
#ifdef __FRAMAC__
#define tn_mem_get_ tn_get_
#define tn_mem_put_ tn_put_
#else
typedef uint16_t __attribute__((may_alias)) tn_mem_u16_;
typedef uint32_t __attribute__((may_alias)) tn_mem_u32_;
typedef uint64_t __attribute__((may_alias)) tn_mem_u64_;
static inline uint64_t tn_mem_get_(const volatile uint8_t *p, unsigned width)
{
    const volatile void *at = p;

    switch (width) {
    case 1:
        return __atomic_load_n(p, __ATOMIC_RELAXED);
    case 2:
        return __atomic_load_n((const volatile tn_mem_u16_ *)at, __ATOMIC_RELAXED);
    case 4:
        return __atomic_load_n((const volatile tn_mem_u32_ *)at, __ATOMIC_RELAXED);
    default:
        return __atomic_load_n((const volatile tn_mem_u64_ *)at, __ATOMIC_RELAXED);
    }
}
static inline void tn_mem_put_(volatile uint8_t *p, unsigned width, uint64_t value)
{
    volatile void *at = p;

    switch (width) {
    case 1:
        __atomic_store_n(p, (uint8_t)value, __ATOMIC_RELAXED);
        break;
    case 2:
        __atomic_store_n((volatile tn_mem_u16_ *)at, (uint16_t)value, __ATOMIC_RELAXED);
        break;
    case 4:
        __atomic_store_n((volatile tn_mem_u32_ *)at, (uint32_t)value, __ATOMIC_RELAXED);
        break;
    default:
        __atomic_store_n((volatile tn_mem_u64_ *)at, value, __ATOMIC_RELAXED);
    }
}
#endif

/*
 * Whether the host pointer allows single accesses of 8 bytes at multiples of 8, and size bytes end
 * at or below the host's last address, which may have 32 bits.
 */
static inline bool tn_mem_host_ok_(const uint8_t *host, uint64_t size)
{
#ifdef __FRAMAC__
    (void)size;
    return host != NULL;
#else
    return host && (uintptr_t)host % 8 == 0 && size <= UINTPTR_MAX - (uintptr_t)host;
#endif
}

TN_API int tn_mem_add(struct tn_mem *m, uint64_t gpa, uint8_t *host, uint64_t size)
{
    uint32_t at, i;

    if (!tn_mem_host_ok_(host, size) || size == 0 || size % TN_MEM_PAGE != 0 ||
        gpa % TN_MEM_PAGE != 0 || size > TN_MEM_LIMIT || gpa > TN_MEM_LIMIT - size)
        return TN_EINVAL;
    at = tn_mem_above_(m, gpa);
    if (at > 0 && gpa - m->region[at - 1].gpa < m->region[at - 1].size)
        return TN_EEXIST;
    if (at < m->count && m->region[at].gpa - gpa < size)
        return TN_EEXIST;
    if (m->count >= m->cap)
        return TN_ENOSPC;
    for (i = m->count; i > at; i--)
        m->region[i] = m->region[i - 1];
    m->region[at].gpa = gpa;
    m->region[at].size = size;
    m->region[at].host = host;
    m->region[at].dirty = NULL;
    m->count++;
    return TN_OK;
}

TN_API int tn_mem_track(struct tn_mem *m, uint32_t i, uint64_t *bitmap)
{
    if (i >= m->count)
        return TN_EINVAL;
    m->region[i].dirty = bitmap;
    return TN_OK;
}

TN_API uint8_t *tn_mem_ptr(const struct tn_mem *m, uint64_t gpa, uint64_t len)
{
    const struct tn_mem_region *r = tn_mem_find_(m, gpa);

    /*@ assert whole_has_first: len > 0 ==> \forall integer i;
          tn_mem_in((struct tn_mem *)m, i, gpa, len) ==>
          tn_mem_in((struct tn_mem *)m, i, gpa, 1); */
    if (!r || len == 0 || len > r->size - (gpa - r->gpa))
        return NULL;
    return r->host + (gpa - r->gpa);
}

TN_API bool tn_mem_holds(const struct tn_mem *m, uint64_t gpa, uint64_t len)
{
    /*@ loop invariant gpa + len == \at(gpa + len, Pre) && len <= \at(len, Pre);
        loop invariant \forall integer a; \at(gpa, Pre) <= a < gpa ==>
          tn_mem_ram((struct tn_mem *)m, a);
        loop assigns gpa, len;
        loop variant len; */
    while (len > 0) {
        const struct tn_mem_region *r = tn_mem_find_(m, gpa);
        uint64_t n;

        /*@ assert hole: r == \null ==> !tn_mem_ram((struct tn_mem *)m, gpa); */
        if (!r)
            return false;
        n = tn_mem_run_(r, gpa, len);
        /*@ assert run: \exists integer i; \forall integer a; gpa <= a < gpa + n ==>
              tn_mem_in((struct tn_mem *)m, i, a, 1); */
        /*@ assert ram: \forall integer a; gpa <= a < gpa + n ==>
              tn_mem_ram((struct tn_mem *)m, a); */
        gpa += n;
        len -= n;
    }
    return true;
}

TN_API int tn_mem_split(const struct tn_mem *m, uint64_t gpa, uint64_t len,
                        struct tn_mem_piece *piece, uint32_t cap)
{
    uint32_t pieces = 0, i;
    int err = TN_OK;

    while (len > 0) {
        const struct tn_mem_region *r = tn_mem_find_(m, gpa);
        uint64_t n;

        if (!r) {
            err = TN_EADDR;
            break;
        }
        n = tn_mem_run_(r, gpa, len);
        if (pieces < cap && pieces < INT32_MAX) {
            piece[pieces].host = r->host + (gpa - r->gpa);
            piece[pieces].len = n;
            pieces++;
        } else {
            err = TN_ENOSPC; /* and on: a hole further up is the graver error */
        }
        gpa += n;
        len -= n;
    }
    if (err == TN_OK)
        return (int)pieces;
    for (i = 0; i < pieces; i++) {
        piece[i].host = NULL;
        piece[i].len = 0;
    }
    return err;
}

TN_API int tn_mem_read(const struct tn_mem *m, uint64_t gpa, void *dst, size_t len)
{
    uint8_t *to = (uint8_t *)dst;

    if (!tn_mem_holds(m, gpa, len)) {
        __builtin_memset(dst, 0, len);
        return TN_EADDR;
    }
    while (len > 0) {
        const struct tn_mem_region *r = tn_mem_find_(m, gpa);
        uint64_t n;

        if (!r)
            return TN_EBUG;
        n = tn_mem_run_(r, gpa, len);
        __builtin_memcpy(to, r->host + (gpa - r->gpa), (size_t)n);
        to += n;
        gpa += n;
        len -= (size_t)n;
    }
#ifndef __FRAMAC__
    __atomic_signal_fence(__ATOMIC_SEQ_CST); /* the compiler may not go back for a second look */
#endif
    return TN_OK;
}

TN_API int tn_mem_write(const struct tn_mem *m, uint64_t gpa, const void *src, size_t len)
{
    const uint8_t *from = (const uint8_t *)src;

    if (!tn_mem_holds(m, gpa, len))
        return TN_EADDR;
    while (len > 0) {
        const struct tn_mem_region *r = tn_mem_find_(m, gpa);
        uint64_t n;

        if (!r)
            return TN_EBUG;
        n = tn_mem_run_(r, gpa, len);
        __builtin_memcpy(r->host + (gpa - r->gpa), from, (size_t)n);
        if (r->dirty)
            tn_mem_bits_(r->dirty, gpa - r->gpa, n);
        from += n;
        gpa += n;
        len -= (size_t)n;
    }
    return TN_OK;
}

TN_API int tn_mem_fill(const struct tn_mem *m, uint64_t gpa, uint8_t byte, uint64_t len)
{
    if (!tn_mem_holds(m, gpa, len))
        return TN_EADDR;
    while (len > 0) {
        const struct tn_mem_region *r = tn_mem_find_(m, gpa);
        uint64_t n;

        if (!r)
            return TN_EBUG;
        n = tn_mem_run_(r, gpa, len);
        __builtin_memset(r->host + (gpa - r->gpa), byte, (size_t)n);
        if (r->dirty)
            tn_mem_bits_(r->dirty, gpa - r->gpa, n);
        gpa += n;
        len -= n;
    }
    return TN_OK;
}

TN_API int tn_mem_load(const struct tn_mem *m, uint64_t gpa, unsigned width, uint64_t *value)
{
    const volatile uint8_t *p;

    if (width != 1 && width != 2 && width != 4 && width != 8) {
        *value = 0;
        return TN_EINVAL;
    }
    p = gpa % width == 0 ? tn_mem_ptr(m, gpa, width) : NULL;
    *value = p ? tn_mem_get_(p, width) : 0;
    return p ? TN_OK : TN_EADDR;
}

TN_API int tn_mem_store(const struct tn_mem *m, uint64_t gpa, unsigned width, uint64_t value)
{
    uint8_t *p;

    if (width != 1 && width != 2 && width != 4 && width != 8)
        return TN_EINVAL;
    p = gpa % width == 0 ? tn_mem_ptr(m, gpa, width) : NULL;
    if (!p)
        return TN_EADDR;
    tn_mem_put_(p, width, value);
    tn_mem_mark(m, gpa, width);
    return TN_OK;
}

TN_API void tn_mem_mark(const struct tn_mem *m, uint64_t gpa, uint64_t len)
{
    uint32_t i = tn_mem_above_(m, gpa);

    for (i -= i > 0; i < m->count; i++) {
        const struct tn_mem_region *r = &m->region[i];
        uint64_t skip = gpa > r->gpa ? gpa - r->gpa : 0;  /* bytes of the region before gpa */
        uint64_t ahead = gpa > r->gpa ? 0 : r->gpa - gpa; /* bytes from gpa up to the region */
        uint64_t n;

        if (ahead >= len)
            return;
        if (!r->dirty || skip >= r->size)
            continue;
        n = len - ahead;
        tn_mem_bits_(r->dirty, skip, n < r->size - skip ? n : r->size - skip);
    }
}

TN_API int64_t tn_mem_take_dirty(const struct tn_mem *m, uint32_t i, uint64_t *out)
{
    uint64_t words, w;
    int64_t bits = 0;

    if (i >= m->count || !m->region[i].dirty)
        return TN_EINVAL;
    words = TN_MEM_DIRTY_WORDS(m->region[i].size);
    for (w = 0; w < words; w++) {
        uint64_t *word = &m->region[i].dirty[w], taken;

#ifdef __FRAMAC__
        taken = *word;
        *word = 0;
#else
        if (__atomic_load_n(word, __ATOMIC_RELAXED) == 0)
            continue;
        taken = __atomic_exchange_n(word, 0, __ATOMIC_RELAXED);
#endif
        out[w] |= taken;
        for (; taken != 0; taken &= taken - 1)
            bits++;
    }
#ifndef __FRAMAC__
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* pairs with the one in tn_mem_bits_ */
#endif
    return bits;
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif
