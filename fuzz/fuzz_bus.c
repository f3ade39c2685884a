/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Adds, removes, reads and writes, against an unsorted list of ranges. Properties: an access is
 * served iff the list says so, by the right device at the right offset, whatever the hint; the
 * table stays sorted without overlap; values are masked.
 */
#include "tn_bus.h"

#include "fuzz.h"

#define CAP 8u

struct dev {
    uint64_t base, size; /* size 0: not on the bus */
    uint64_t off, value;
    unsigned width, calls;
};

static uint64_t dev_read(void *ctx, uint64_t off, unsigned width)
{
    struct dev *d = ctx;

    d->off = off;
    d->width = width;
    d->calls++;
    return d->value;
}

static void dev_write(void *ctx, uint64_t off, unsigned width, uint64_t value)
{
    (void)dev_read(ctx, off, width);
    ((struct dev *)ctx)->value = value;
}

static const struct tn_bus_ops ops = {dev_read, dev_write};

/* Addresses close to each other, and close to both ends of the address space. */
static uint64_t any_addr(struct fz *z)
{
    uint8_t kind = fz_u8(z);

    if (kind < 200)
        return fz_u8(z) * (kind % 2 ? 1u : 16u);
    return kind < 230 ? 0 - (uint64_t)fz_u8(z) : fz_u64(z);
}

static bool good_width(unsigned width)
{
    return width == 1 || width == 2 || width == 4 || width == 8;
}

static struct dev *owner(struct dev *dev, uint64_t addr, unsigned width)
{
    for (unsigned i = 0; i < CAP; i++)
        if (good_width(width) && addr >= dev[i].base && width <= dev[i].size &&
            addr - dev[i].base <= dev[i].size - width)
            return &dev[i];
    return NULL;
}

static int expect_add(const struct dev *dev, uint64_t base, uint64_t size, unsigned used)
{
    if (size == 0 || base + (size - 1) < base)
        return TN_EINVAL;
    for (unsigned i = 0; i < CAP; i++)
        if (dev[i].size > 0 && base <= dev[i].base + (dev[i].size - 1) &&
            dev[i].base <= base + (size - 1))
            return TN_EEXIST;
    return used == CAP ? TN_ENOSPC : TN_OK;
}

static void add(struct tn_bus *bus, struct dev *dev, uint64_t base, uint64_t size)
{
    struct dev *d = NULL;
    unsigned used = 0;
    int err;

    for (unsigned i = 0; i < CAP; i++) {
        used += dev[i].size > 0;
        if (dev[i].size == 0)
            d = &dev[i];
    }
    err = expect_add(dev, base, size, used);
    FZ_ASSERT(tn_bus_add(bus, base, size, &ops, d) == err);
    if (err == TN_OK) {
        d->base = base;
        d->size = size;
    }
}

static void remove_at(struct tn_bus *bus, struct dev *dev, uint64_t base)
{
    struct dev *d = NULL;

    for (unsigned i = 0; i < CAP; i++)
        if (dev[i].size > 0 && dev[i].base == base)
            d = &dev[i];
    FZ_ASSERT(tn_bus_remove(bus, base) == (d ? TN_OK : TN_EINVAL));
    if (d)
        d->size = 0;
}

static void access_at(struct tn_bus *bus, struct dev *dev, struct fz *z, uint32_t *hint, bool write)
{
    uint64_t addr = any_addr(z), value = fz_u64(z);
    unsigned width = fz_u8(z) % 32 == 0 ? fz_u32(z) : 1u << fz_u8(z) % 4, calls[CAP];
    uint64_t mask = good_width(width) && width < 8 ? (1ull << 8 * width) - 1 : UINT64_MAX;
    struct dev *d = owner(dev, addr, width);

    for (unsigned i = 0; i < CAP; i++)
        calls[i] = dev[i].calls;
    if (write) {
        FZ_ASSERT(tn_bus_write(bus, addr, width, value, hint) == (d != NULL));
        FZ_ASSERT(!d || d->value == (value & mask));
    } else {
        value = tn_bus_read(bus, addr, width, hint);
        FZ_ASSERT(value == ((d ? d->value : UINT64_MAX) & mask));
    }
    FZ_ASSERT(!d || (d->off == addr - d->base && d->width == width));
    for (unsigned i = 0; i < CAP; i++)
        FZ_ASSERT(dev[i].calls - calls[i] == (d == &dev[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tn_bus_range table[CAP];
    struct dev dev[CAP];
    struct tn_bus bus;
    uint32_t hint = 0;
    struct fz z;

    fz_init(&z, data, size);
    memset(dev, 0, sizeof(dev));
    tn_bus_init(&bus, table, CAP);
    for (unsigned steps = 0; z.left > 0 && steps < 500; steps++) {
        unsigned op = fz_u8(&z) % 8;

        if (op < 2) {
            uint64_t base = any_addr(&z);

            add(&bus, dev, base, any_addr(&z) / (1 + fz_u8(&z) % 16));
        } else if (op == 2) {
            remove_at(&bus, dev, any_addr(&z));
        } else if (op == 3) {
            hint = fz_u32(&z);
        } else {
            access_at(&bus, dev, &z, op == 4 ? NULL : &hint, op == 7);
        }
        for (uint32_t i = 1; i < bus.count; i++)
            FZ_ASSERT(table[i - 1].base + (table[i - 1].size - 1) < table[i].base);
    }
    return 0;
}
