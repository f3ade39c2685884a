/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_bus.h"

#include "test.h"

/* A device that remembers its last access and reads as a constant. */
struct dev {
    uint64_t value; /* what a read gives */
    uint64_t off, written;
    unsigned width, reads, writes;
};

static uint64_t dev_read(void *ctx, uint64_t off, unsigned width)
{
    struct dev *d = ctx;

    d->off = off;
    d->width = width;
    d->reads++;
    return d->value;
}

static void dev_write(void *ctx, uint64_t off, unsigned width, uint64_t value)
{
    struct dev *d = ctx;

    d->off = off;
    d->width = width;
    d->written = value;
    d->writes++;
}

static const struct tn_bus_ops ops = {dev_read, dev_write};
static const struct tn_bus_ops deaf = {NULL, NULL};

static uint64_t ones(unsigned width)
{
    return width == 1 ? 0xff : width == 2 ? 0xffff : width == 4 ? 0xffffffffu : UINT64_MAX;
}

static void add_refuses_bad_ranges(void **state)
{
    static const struct {
        uint64_t base, size;
        int err;
    } t[] = {
        {0x3000, 0, TN_EINVAL},         {UINT64_MAX, 2, TN_EINVAL},  {2, UINT64_MAX, TN_EINVAL},
        {UINT64_MAX - 6, 8, TN_EINVAL}, {0x1000, 0x1000, TN_EEXIST}, /* the same */
        {0x1fff, 1, TN_EEXIST},                                      /* its last byte */
        {0xfff, 2, TN_EEXIST},      /* its first byte, from below */
        {0x1800, 8, TN_EEXIST},     /* inside */
        {0x800, 0x2000, TN_EEXIST}, /* around */
        {0, UINT64_MAX, TN_EEXIST},     {0xfff, 1, TN_OK},           {0x2000, 1, TN_OK},
        {UINT64_MAX, 1, TN_OK}, /* the very last byte */
        {0x4000, 1, TN_ENOSPC},         {UINT64_MAX, 1, TN_EEXIST},
    };
    struct tn_bus_range table[4];
    struct tn_bus bus;
    struct dev d = {0};

    (void)state;
    tn_bus_init(&bus, table, COUNT(table));
    assert_int_equal(tn_bus_add(&bus, 0x1000, 0x1000, &ops, &d), TN_OK);
    assert_int_equal(tn_bus_add(&bus, 0x5000, 8, NULL, &d), TN_EINVAL);
    for (size_t i = 0; i < COUNT(t); i++) {
        uint32_t before = bus.count;

        assert_int_equal(tn_bus_add(&bus, t[i].base, t[i].size, &ops, &d), t[i].err);
        assert_int_equal(bus.count, before + (t[i].err == TN_OK));
    }
    for (uint32_t i = 1; i < bus.count; i++)
        assert_true(table[i - 1].base < table[i].base);
}

static void the_whole_address_space_can_be_one_range_but_for_a_byte(void **state)
{
    struct tn_bus_range table[2];
    struct tn_bus bus;
    struct dev d = {0};

    (void)state;
    tn_bus_init(&bus, table, 2);
    assert_int_equal(tn_bus_add(&bus, 1, UINT64_MAX, &ops, &d), TN_OK);
    assert_true(tn_bus_write(&bus, UINT64_MAX - 7, 8, 1, NULL));
    assert_int_equal(d.off, UINT64_MAX - 8);
    assert_false(tn_bus_write(&bus, UINT64_MAX - 6, 8, 1, NULL));
    assert_false(tn_bus_write(&bus, 0, 1, 1, NULL));
}

static void remove_takes_one_range_off(void **state)
{
    struct tn_bus_range table[3];
    struct tn_bus bus;
    struct dev d[3] = {{0}};

    (void)state;
    tn_bus_init(&bus, table, 3);
    assert_int_equal(tn_bus_remove(&bus, 0), TN_EINVAL);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(tn_bus_add(&bus, 0x100 * i, 0x10, &ops, &d[i]), TN_OK);
    assert_int_equal(tn_bus_remove(&bus, 0x101), TN_EINVAL);
    assert_int_equal(tn_bus_remove(&bus, 0x300), TN_EINVAL);
    assert_int_equal(tn_bus_remove(&bus, 0x100), TN_OK);
    assert_int_equal(tn_bus_remove(&bus, 0x100), TN_EINVAL);
    assert_false(tn_bus_write(&bus, 0x100, 1, 7, NULL));
    assert_true(tn_bus_write(&bus, 0x200, 1, 7, NULL));
    assert_int_equal(d[2].writes, 1);
    assert_int_equal(tn_bus_remove(&bus, 0x200), TN_OK);
    assert_int_equal(tn_bus_remove(&bus, 0x0), TN_OK);
    assert_int_equal(bus.count, 0);
    assert_int_equal(tn_bus_read(&bus, 0, 4, NULL), 0xffffffffu);
}

/* An access is served iff the width is right and all of it lies inside one range. */
static void b02_offset_and_size_stay_inside_the_range(void **state)
{
    struct tn_bus_range table[2];
    struct tn_bus bus;
    struct dev low = {0}, high = {0};

    (void)state;
    tn_bus_init(&bus, table, 2);
    assert_int_equal(tn_bus_add(&bus, 0x1000, 0xd, &ops, &low), TN_OK);
    assert_int_equal(tn_bus_add(&bus, 0x100d, 0x3, &ops, &high), TN_OK);
    for (uint64_t addr = 0xff0; addr < 0x1020; addr++) {
        for (unsigned width = 0; width <= 17; width++) {
            bool good = width == 1 || width == 2 || width == 4 || width == 8;
            bool in_low = good && addr >= 0x1000 && addr + width <= 0x100d;
            bool in_high = good && addr >= 0x100d && addr + width <= 0x1010;
            unsigned reads = low.reads + high.reads, writes = low.writes + high.writes;
            uint64_t value;

            assert_true(tn_bus_write(&bus, addr, width, 5, NULL) == (in_low || in_high));
            value = tn_bus_read(&bus, addr, width, NULL);
            assert_int_equal(value, in_low || in_high ? 0 : ones(width));
            assert_int_equal(low.reads + high.reads - reads, in_low || in_high);
            assert_int_equal(low.writes + high.writes - writes, in_low || in_high);
            if (in_low)
                assert_int_equal(low.off, addr - 0x1000);
            if (in_high)
                assert_int_equal(high.off, addr - 0x100d);
        }
    }
}

static void b03_odd_widths_and_unclaimed_addresses_read_as_ones(void **state)
{
    static const struct {
        uint64_t addr;
        unsigned width;
        uint64_t value;
    } t[] = {
        {0x1000, 0, UINT64_MAX},
        {0x1000, 3, UINT64_MAX},
        {0x1000, 5, UINT64_MAX},
        {0x1000, 16, UINT64_MAX},
        {0x1000, 0x80000000u, UINT64_MAX},
        {0x1000, UINT32_MAX, UINT64_MAX},
        {0x0, 1, 0xff},
        {0xfff, 2, 0xffff},
        {0x1008, 4, 0xffffffffu},
        {0x1001, 8, UINT64_MAX},
        {UINT64_MAX, 1, 0xff},
        {UINT64_MAX, 8, UINT64_MAX},
        {0x1001, 4, 0}, /* misaligned, but inside: the device's business */
    };
    struct tn_bus_range table[1];
    struct tn_bus bus;
    struct dev d = {0};

    (void)state;
    tn_bus_init(&bus, table, 1);
    assert_int_equal(tn_bus_read(&bus, 0x1000, 2, NULL), 0xffff); /* an empty bus */
    assert_int_equal(tn_bus_add(&bus, 0x1000, 8, &ops, &d), TN_OK);
    for (size_t i = 0; i < COUNT(t); i++) {
        assert_int_equal(tn_bus_read(&bus, t[i].addr, t[i].width, NULL), t[i].value);
        assert_true(tn_bus_write(&bus, t[i].addr, t[i].width, 1, NULL) == (t[i].value == 0));
    }
    assert_int_equal(d.reads, 1);
    assert_int_equal(d.writes, 1);
}

static void values_are_masked_to_the_width(void **state)
{
    static const unsigned width[] = {1, 2, 4, 8};
    struct tn_bus_range table[1];
    struct tn_bus bus;
    struct dev d = {.value = 0xa1b2c3d4e5f60718};

    (void)state;
    tn_bus_init(&bus, table, 1);
    assert_int_equal(tn_bus_add(&bus, 0, 8, &ops, &d), TN_OK);
    for (size_t i = 0; i < COUNT(width); i++) {
        assert_int_equal(tn_bus_read(&bus, 0, width[i], NULL), d.value & ones(width[i]));
        assert_true(tn_bus_write(&bus, 0, width[i], ~d.value, NULL));
        assert_int_equal(d.written, ~d.value & ones(width[i]));
        assert_int_equal(d.width, width[i]);
    }
}

static void b07_a_device_without_handlers_is_harmless(void **state)
{
    struct tn_bus_range table[1];
    struct tn_bus bus;

    (void)state;
    tn_bus_init(&bus, table, 1);
    assert_int_equal(tn_bus_add(&bus, 0, 8, &deaf, NULL), TN_OK);
    assert_int_equal(tn_bus_read(&bus, 0, 2, NULL), 0xffff);
    assert_true(tn_bus_write(&bus, 0, 2, 1, NULL));
}

static void any_hint_is_harmless(void **state)
{
    static const uint32_t hints[] = {0, 1, 2, 3, 4, 5, 0x7fffffff, 0x80000000u, UINT32_MAX};
    struct tn_bus_range table[4];
    struct tn_bus bus;
    struct dev d[4] = {{0}};

    (void)state;
    tn_bus_init(&bus, table, 4);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(tn_bus_add(&bus, 0x20 * i, 0x10, &ops, &d[i]), TN_OK);
    for (size_t h = 0; h < COUNT(hints); h++) {
        for (uint64_t addr = 0; addr < 0x90; addr++) {
            uint32_t hint = hints[h];
            const struct tn_bus_range *r = tn_bus_find(&bus, addr, 2, &hint);

            assert_ptr_equal(r, tn_bus_find(&bus, addr, 2, NULL));
            if (r)
                assert_ptr_equal(r, &bus.range[hint]);
            else
                assert_int_equal(hint, hints[h]);
        }
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(add_refuses_bad_ranges),
        cmocka_unit_test(b02_offset_and_size_stay_inside_the_range),
        cmocka_unit_test(b03_odd_widths_and_unclaimed_addresses_read_as_ones),
        cmocka_unit_test(b07_a_device_without_handlers_is_harmless),
        cmocka_unit_test(remove_takes_one_range_off),
        cmocka_unit_test(the_whole_address_space_can_be_one_range_but_for_a_byte),
        cmocka_unit_test(values_are_masked_to_the_width),
        cmocka_unit_test(any_hint_is_harmless),
    };

    return cmocka_run_group_tests_name("bus", tests, NULL, NULL);
}
