/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_bus - from a guest's port or MMIO address to the handler of the device that owns it.
 *
 * WHAT
 *   A sorted table of address ranges, each with two functions and a context. One struct tn_bus is
 *   one address space: a machine has one for MMIO, and one for ports if it has ports.
 *
 * USAGE
 *   static uint64_t led_read(void *ctx, uint64_t off, unsigned width)
 *   {
 *       (void)off;
 *       (void)width;
 *       return *(const uint8_t *)ctx;
 *   }
 *   static void led_write(void *ctx, uint64_t off, unsigned width, uint64_t value)
 *   {
 *       (void)off;
 *       (void)width;
 *       *(uint8_t *)ctx = (uint8_t)value;
 *   }
 *   static const struct tn_bus_ops led_ops = {led_read, led_write};
 *   ---
 *   struct tn_bus_range table[8];
 *   struct tn_bus ports;
 *   uint32_t hint = 0;
 *   uint8_t led = 0;
 *
 *   tn_bus_init(&ports, table, 8);
 *   if (tn_bus_add(&ports, 0x80, 1, &led_ops, &led) < 0)
 *       return 1;
 *   tn_bus_write(&ports, 0x80, 1, 0x55, &hint);
 *   if (tn_bus_read(&ports, 0x80, 1, &hint) != 0x55)
 *       return 1;
 *
 * COMPOSITION
 *   The loop that runs a vCPU hands it the exits that tn_kvm decodes; device models (tn_uart,
 *   tn_i8042, tn_virtio_mmio ...) are wrapped by two functions of the owner's.
 *
 * GUEST TRUST
 *   addr, width and the value written may come from the guest, unchecked. A handler is called only
 *   with a width of 1, 2, 4 or 8 and off + width <= the size of its range; off may be misaligned.
 *
 * MEMORY
 *   The caller owns the table, the ops and the contexts; all outlive the struct tn_bus.
 *
 * THREADS
 *   Read-only after set-up: any number of threads may then read and write through it. Handlers run
 *   on the calling thread, without a lock. The hint belongs to one thread.
 *
 * CONFIG
 *   none.
 *
 * LIMITS
 *   An access that runs over the end of a range is not split: nobody claims it.
 */
#ifndef TN_BUS_H
#define TN_BUS_H

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

/* What a device does with an access. A NULL read gives all-ones, a NULL write ignores. */
struct tn_bus_ops {
    uint64_t (*read)(void *ctx, uint64_t off, unsigned width); /* only the low width bytes count */
    void (*write)(void *ctx, uint64_t off, unsigned width, uint64_t value); /* masked to width */
};

/* The addresses base to base + size - 1. */
struct tn_bus_range {
    uint64_t base;
    uint64_t size; /* bytes, > 0 */
    const struct tn_bus_ops *ops;
    void *ctx;
};

/* The table, sorted by base, without overlap. */
struct tn_bus {
    struct tn_bus_range *range;
    uint32_t count;
    uint32_t cap;
};

/*@ predicate tn_bus_range_ok(struct tn_bus_range *r) =
      r->size > 0 && r->base <= 0xffffffffffffffff - (r->size - 1);
    predicate tn_bus_ok(struct tn_bus *b) =
      b->count <= b->cap && \valid_read(b->range + (0 .. b->cap - 1)) &&
      (\forall integer i; 0 <= i < b->count ==> tn_bus_range_ok(b->range + i)) &&
      (\forall integer i, j; 0 <= i < j < b->count ==>
        b->range[i].base + b->range[i].size <= b->range[j].base);
    predicate tn_bus_width(integer width) =
      width == 1 || width == 2 || width == 4 || width == 8;
    predicate tn_bus_in(struct tn_bus *b, integer i, integer addr, integer width) =
      0 <= i < b->count && b->range[i].base <= addr &&
      addr + width <= b->range[i].base + b->range[i].size;
*/

/*
 * Starts an empty bus over the caller's table of cap ranges.
 */
/*@ requires \valid(bus);
    assigns *bus;
    ensures bus->range == table && bus->count == 0 && bus->cap == cap; */
TN_API void tn_bus_init(struct tn_bus *bus, struct tn_bus_range *table, uint32_t cap);

/*
 * Gives [base, base + size) to a device; the last byte may be the last of the address space. Not
 * while other threads use the bus. Returns 0; TN_EINVAL when size is 0, the end wraps or ops is
 * NULL, TN_EEXIST where it overlaps a range, TN_ENOSPC when the table is full (bus is unchanged).
 */
TN_API int tn_bus_add(struct tn_bus *bus, uint64_t base, uint64_t size,
                      const struct tn_bus_ops *ops, void *ctx);

/*
 * Takes the range that starts at base off the bus. Not while other threads use the bus. Returns 0,
 * or TN_EINVAL: no range starts there.
 */
TN_API int tn_bus_remove(struct tn_bus *bus, uint64_t base);

/*
 * The range that holds all of [addr, addr + width), or NULL when there is none or width is not 1,
 * 2, 4 or 8. *hint is where the caller's last access was found; any value in it is harmless, and
 * hint may be NULL.
 */
/*@ requires \valid_read(bus) && tn_bus_ok((struct tn_bus *)bus);
    requires hint == \null ||
      (\valid(hint) && \separated(hint, bus, bus->range + (0 .. bus->cap - 1)));
    assigns *hint;
    ensures \result != \null ==> tn_bus_width(width) &&
      \exists integer i; \result == bus->range + i &&
        tn_bus_in((struct tn_bus *)bus, i, addr, width);
    ensures \result == \null ==> !tn_bus_width(width) ||
      \forall integer i; !tn_bus_in((struct tn_bus *)bus, i, addr, width); */
TN_API const struct tn_bus_range *tn_bus_find(const struct tn_bus *bus, uint64_t addr,
                                              unsigned width, uint32_t *hint);

/*
 * A guest's read of width bytes at addr. Where nothing claims it: all-ones of the width; all 64
 * bits for a width that is not 1, 2, 4 or 8.
 */
TN_API uint64_t tn_bus_read(const struct tn_bus *bus, uint64_t addr, unsigned width,
                            uint32_t *hint);

/*
 * A guest's write of width bytes at addr. Returns whether a device claims it; if not, the write is
 * ignored.
 */
TN_API bool tn_bus_write(const struct tn_bus *bus, uint64_t addr, unsigned width, uint64_t value,
                         uint32_t *hint);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

TN_API void tn_bus_init(struct tn_bus *bus, struct tn_bus_range *table, uint32_t cap)
{
    bus->range = table;
    bus->count = 0;
    bus->cap = cap;
}

/* The bits that width bytes hold; all 64 for a bad width. */
/*@ assigns \nothing;
    ensures width == 1 ==> \result == 0xff;
    ensures width == 2 ==> \result == 0xffff;
    ensures width == 4 ==> \result == 0xffffffff;
    ensures width == 8 || !tn_bus_width(width) ==> \result == 0xffffffffffffffff; */
static inline uint64_t tn_bus_ones_(unsigned width)
{
    switch (width) {
    case 1:
        return 0xffu;
    case 2:
        return 0xffffu;
    case 4:
        return 0xffffffffu;
    default:
        return UINT64_MAX;
    }
}

/* Whether r holds all of an access. */
/*@ requires \valid_read(r) && tn_bus_range_ok((struct tn_bus_range *)r);
    assigns \nothing;
    ensures \result <==> r->base <= addr && addr + width <= r->base + r->size; */
static inline bool tn_bus_holds_(const struct tn_bus_range *r, uint64_t addr, unsigned width)
{
    return addr >= r->base && width <= r->size && addr - r->base <= r->size - width;
}

/* The index of the first range above addr: the one that may hold addr is the one before it. */
/*@ requires \valid_read(bus) && tn_bus_ok((struct tn_bus *)bus);
    assigns \nothing;
    ensures \result <= bus->count;
    ensures \forall integer i; 0 <= i < \result ==> bus->range[i].base <= addr;
    ensures \forall integer i; \result <= i < bus->count ==> bus->range[i].base > addr; */
static inline uint32_t tn_bus_above_(const struct tn_bus *bus, uint64_t addr)
{
    uint32_t lo = 0, hi = bus->count;

    /*@ loop invariant 0 <= lo <= hi <= bus->count;
        loop invariant \forall integer i; 0 <= i < lo ==> bus->range[i].base <= addr;
        loop invariant \forall integer i; hi <= i < bus->count ==> bus->range[i].base > addr;
        loop assigns lo, hi;
        loop variant hi - lo; */
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (bus->range[mid].base <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

TN_API int tn_bus_add(struct tn_bus *bus, uint64_t base, uint64_t size,
                      const struct tn_bus_ops *ops, void *ctx)
{
    uint32_t at, i;

    if (!ops || size == 0 || base > UINT64_MAX - (size - 1))
        return TN_EINVAL;
    at = tn_bus_above_(bus, base);
    if (at > 0 && base - bus->range[at - 1].base < bus->range[at - 1].size)
        return TN_EEXIST;
    if (at < bus->count && bus->range[at].base - base < size)
        return TN_EEXIST;
    if (bus->count >= bus->cap)
        return TN_ENOSPC;
    for (i = bus->count; i > at; i--)
        bus->range[i] = bus->range[i - 1];
    bus->range[at].base = base;
    bus->range[at].size = size;
    bus->range[at].ops = ops;
    bus->range[at].ctx = ctx;
    bus->count++;
    return TN_OK;
}

TN_API int tn_bus_remove(struct tn_bus *bus, uint64_t base)
{
    uint32_t above = tn_bus_above_(bus, base);

    if (above == 0 || bus->range[above - 1].base != base)
        return TN_EINVAL;
    bus->count--;
    for (; above <= bus->count; above++)
        bus->range[above - 1] = bus->range[above];
    return TN_OK;
}

TN_API const struct tn_bus_range *tn_bus_find(const struct tn_bus *bus, uint64_t addr,
                                              unsigned width, uint32_t *hint)
{
    uint32_t i;

    if (width != 1 && width != 2 && width != 4 && width != 8)
        return NULL;
    if (hint && *hint < bus->count && tn_bus_holds_(bus->range + *hint, addr, width))
        return bus->range + *hint;
    i = tn_bus_above_(bus, addr);
    if (i == 0 || !tn_bus_holds_(bus->range + (i - 1), addr, width))
        return NULL;
    if (hint)
        *hint = i - 1;
    return bus->range + (i - 1);
}

TN_API uint64_t tn_bus_read(const struct tn_bus *bus, uint64_t addr, unsigned width, uint32_t *hint)
{
    const struct tn_bus_range *r = tn_bus_find(bus, addr, width, hint);
    uint64_t value = UINT64_MAX;

    if (r && r->ops->read)
        value = r->ops->read(r->ctx, addr - r->base, width);
    return value & tn_bus_ones_(width);
}

TN_API bool tn_bus_write(const struct tn_bus *bus, uint64_t addr, unsigned width, uint64_t value,
                         uint32_t *hint)
{
    const struct tn_bus_range *r = tn_bus_find(bus, addr, width, hint);

    if (!r)
        return false;
    if (r->ops->write)
        r->ops->write(r->ctx, addr - r->base, width, value & tn_bus_ones_(width));
    return true;
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif
