/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_loader_plan.h"
#include "kernel_images.h"

static void not_placed(struct tn_loader_plan p, const struct tn_loader_range *ram, uint32_t nram,
                       const struct tn_loader_range *reserved, uint32_t nreserved, int err,
                       uint32_t detail, uint32_t where)
{
    assert_int_equal(tn_loader_place(&p, ram, nram, reserved, nreserved), err);
    assert_int_equal(p.detail, detail);
    assert_int_equal(p.where, where);
    is_void(&p);
}

static void d04_segments_outside_of_ram_are_refused(void **state)
{
    static const struct tn_loader_range whole[] = {{0, 0x300000}},
                                        two[] = {{0x200000, 0x2000}, {0x100000, 0x400}},
                                        short1[] = {{0x100000, 0x101fff}},
                                        high[] = {{0x100001, 0x400000}},
                                        gap[] = {{0, 0x200000}, {0x201000, 0x200000}},
                                        split[] = {{0, 0x201000}, {0x201000, 0x200000}},
                                        all[] = {{0, UINT64_MAX}},
                                        wrap[] = {{0x180000, UINT64_MAX}}, none[] = {{0x100000, 0}};
    static uint8_t b[ROOM];
    struct tn_loader_plan p, q;

    (void)state;
    assert_int_equal(parse(b, good_elf(b), &p), 0);
    q = p;
    assert_int_equal(tn_loader_place(&q, whole, 1, NULL, 0), 0);
    assert_memory_equal(&p, &q, sizeof(p));
    assert_int_equal(tn_loader_place(&q, two, 2, NULL, 0), 0);
    assert_int_equal(tn_loader_place(&q, all, 1, NULL, 0), 0);
    not_placed(p, NULL, 0, NULL, 0, TN_ENOFIT, TN_LOADER_PLACE_RAM, 0);
    not_placed(p, none, 1, NULL, 0, TN_ENOFIT, TN_LOADER_PLACE_RAM, 0);
    not_placed(p, short1, 1, NULL, 0, TN_ENOFIT, TN_LOADER_PLACE_RAM, 1);
    not_placed(p, high, 1, NULL, 0, TN_ENOFIT, TN_LOADER_PLACE_RAM, 0);
    not_placed(p, wrap, 1, NULL, 0, TN_ENOFIT, TN_LOADER_PLACE_RAM, 0);
    not_placed(p, gap, 2, NULL, 0, TN_ENOFIT, TN_LOADER_PLACE_RAM, 1);   /* an MMIO gap */
    not_placed(p, split, 2, NULL, 0, TN_ENOFIT, TN_LOADER_PLACE_RAM, 1); /* whole in one */
}

static void d04_segments_over_what_is_reserved_are_refused(void **state)
{
    static const struct tn_loader_range ram[] = {{0, 0x300000}};
    /* the zero page, page tables, an initrd, in turn where they meet a segment or only touch */
    static const struct {
        struct tn_loader_range r;
        bool meets;
    } t[] = {
        {{0x0ff000, 0x1000}, false},  {{0x0ff000, 0x1001}, true},  {{0x1003ff, 1}, true},
        {{0x100400, 0xffc00}, false}, {{0x100200, 0}, false},      {{0x200fff, 1}, true},
        {{0x201fff, 0x1000}, true},   {{0x202000, 0x1000}, false}, {{0, UINT64_MAX}, true},
        {{0, 0x100001}, true},        {{0, 0x100000}, false},      {{0x202000, UINT64_MAX}, false},
    };
    static uint8_t b[ROOM];
    struct tn_loader_plan p, q;

    (void)state;
    assert_int_equal(parse(b, good_elf(b), &p), 0);
    for (size_t i = 0; i < COUNT(t); i++) {
        const struct tn_loader_range reserved[] = {{0x1000, 0x1000}, t[i].r};

        q = p;
        if (t[i].meets)
            not_placed(p, ram, 1, reserved, 2, TN_EOVERLAP, TN_LOADER_PLACE_RESERVED, 1);
        else
            assert_int_equal(tn_loader_place(&q, ram, 1, reserved, 2), 0);
    }
}

static void a_void_or_forged_plan_is_not_placed(void **state)
{
    static const struct tn_loader_range ram[] = {{0, 0x300000}};
    static uint8_t b[ROOM];
    struct tn_loader_plan p, q;
    uint64_t gpa = 5;

    (void)state;
    assert_true(parse(b, 0, &p) < 0);
    assert_int_equal(tn_loader_place(&p, ram, 1, NULL, 0), TN_EINVAL);
    is_void(&p);
    assert_int_equal(tn_loader_place_initrd(&p, 1, ram, 1, NULL, 0, &gpa), TN_EINVAL);
    assert_int_equal(gpa, 0);
    assert_int_equal(parse(b, good_elf(b), &p), 0);
    q = p;
    q.nsegs = 17;
    assert_int_equal(tn_loader_place_initrd(&q, 1, ram, 1, NULL, 0, &gpa), TN_EINVAL);
    assert_int_equal(tn_loader_place(&q, ram, 1, NULL, 0), TN_EINVAL);
    is_void(&q);
    q = p;
    q.linux64_entry = 0x100400;
    not_placed(q, ram, 1, NULL, 0, TN_EENTRY, TN_LOADER_PLACE_ENTRY, 0);
    q = p;
    q.pvh_entry = 0x5000;
    not_placed(q, ram, 1, NULL, 0, TN_EENTRY, TN_LOADER_PLACE_ENTRY, 0);
    q = p;
    q.has_fdt = true;
    not_placed(q, ram, 1, NULL, 0, TN_EENTRY, TN_LOADER_PLACE_ENTRY, 0);
    assert_int_equal(parse(b, good_bz(b), &q), 0);
    q.linux32_entry = 0x1001000;
    not_placed(q, ram, 1, NULL, 0, TN_EENTRY, TN_LOADER_PLACE_ENTRY, 0);
}

static void a_bzimage_is_placed(void **state)
{
    static const struct {
        struct tn_loader_range ram[2];
        struct tn_loader_range reserved[3];
        uint64_t gpa; /* 0: no place */
    } t[] = {
        {{{0, 0x10000000}}, {{0}}, 0x1000000},
        {{{0, 0x1300000}}, {{0}}, 0x1000000},
        {{{0, 0x12fffff}}, {{0}}, 0}, /* not down: it would move itself up again */
        {{{0, 0x10000000}}, {{0x1000000, 1}}, 0x1200000},
        {{{0, 0x10000000}}, {{0x12fffff, 1}}, 0x1400000},
        {{{0, 0x10000000}}, {{0x1300000, 1}}, 0x1000000},
        {{{0, 0x10000000}}, {{0x1000000, 0x200001}}, 0x1400000},
        {{{0, 0x10000000}}, {{0x1800000, 0x1000}, {0x1400000, 1}, {0x1000000, 1}}, 0x1a00000},
        {{{0, 0x1600000}}, {{0x1000000, 0x200001}}, 0},
        {{{0, 0x1700000}}, {{0x1000000, 0x200001}}, 0x1400000},
        {{{0x3000001, 0x1000000}, {0x2000000, 0x300000}}, {{0}}, 0x2000000},
        {{{0x3000001, 0x1000000}, {0x2000000, 0x2fffff}}, {{0}}, 0x3200000},
        {{{0, 0x100000}, {0x100000000, 0x1000000}}, {{0}}, 0x100000000},
        {{{0, 0x10000000}}, {{0x1000000, UINT64_MAX}}, 0},
        {{{0, 0x10000000}}, {{0, UINT64_MAX}}, 0},
        {{{0, UINT64_MAX}}, {{0x1000000, TN_LOADER_LIMIT - 0x1000000}}, 0},
        {{{0, UINT64_MAX}}, {{0x1000000, TN_LOADER_LIMIT - 0x1400000}}, TN_LOADER_LIMIT - 0x400000},
        {{{0, UINT64_MAX}}, {{0x1000000, TN_LOADER_LIMIT - 0x13fffff}}, 0},
        {{{TN_LOADER_LIMIT, UINT64_MAX}}, {{0}}, 0},
        {{{UINT64_MAX, UINT64_MAX}}, {{0}}, 0},
    };
    static uint8_t b[ROOM];
    struct tn_loader_plan p, q;

    (void)state;
    assert_int_equal(parse(b, good_bz(b), &p), 0);
    for (size_t i = 0; i < COUNT(t); i++) {
        if (!t[i].gpa) {
            not_placed(p, t[i].ram, 2, t[i].reserved, 3, TN_ENOFIT, TN_LOADER_PLACE_NONE, 0);
            continue;
        }
        q = p;
        assert_int_equal(tn_loader_place(&q, t[i].ram, 2, t[i].reserved, 3), 0);
        assert_int_equal(q.seg[0].gpa, t[i].gpa);
        assert_int_equal(q.linux64_entry, t[i].gpa + 0x200);
        assert_int_equal(q.linux32_entry, t[i].gpa < 1ull << 32 ? t[i].gpa : 0);
        assert_int_equal(q.seg[0].mem_size, 0x1000);
        assert_int_equal(q.init_size, 0x300000);
        assert_int_equal(q.detail, 0);
    }

    b[0x234] = 0; /* not relocatable */
    assert_int_equal(parse(b, BZ_LEN, &p), 0);
    q = p;
    assert_int_equal(tn_loader_place(&q, t[0].ram, 1, NULL, 0), 0);
    assert_int_equal(q.seg[0].gpa, 0x1000000);
    not_placed(p, t[2].ram, 1, NULL, 0, TN_ENOFIT, TN_LOADER_PLACE_INIT_RAM, 0);
    not_placed(p, t[0].ram, 1, t[4].reserved, 1, TN_EOVERLAP, TN_LOADER_PLACE_INIT_RESERVED, 0);

    good_bz(b); /* not above 4 GiB */
    tn_put_(b + 0x236, 2, 1);
    assert_int_equal(parse(b, BZ_LEN, &p), 0);
    not_placed(p, t[12].ram, 2, NULL, 0, TN_ENOFIT, TN_LOADER_PLACE_NONE, 0);
}

/* An Image goes text_offset above a multiple of 2 MiB in RAM, as low as it can. */
static void d06_an_image_is_placed(void **state)
{
    static const struct {
        uint64_t offset;
        struct tn_loader_range ram[2];
        struct tn_loader_range reserved[2];
        uint64_t gpa; /* 0: no place */
    } t[] = {
        {0, {{0x40000000, 0x300000}}, {{0}}, 0x40000000},
        {0, {{0x40000000, 0x2fffff}}, {{0}}, 0},
        {0, {{0x40000001, 0x500000}}, {{0}}, 0x40200000},
        {0, {{0x40000001, 0x4ffffe}}, {{0}}, 0},
        {0x80000, {{0x40000000, 0x380000}}, {{0}}, 0x40080000},
        {0x80000, {{0x40000000, 0x37ffff}}, {{0}}, 0},
        {0x80000, {{0x40080000, 0x4000000}}, {{0}}, 0x40280000}, /* the multiple, too, is RAM */
        {0x80000, {{0x40000000, 0x4000000}}, {{0x40000000, 0x80000}}, 0x40080000},
        {0x80000, {{0x40000000, 0x4000000}}, {{0x40000000, 0x80001}}, 0x40280000},
        {0x80000, {{0x40000000, 0x4000000}}, {{0x4037ffff, 1}}, 0x40480000},
        {0x80000, {{0x40000000, 0x4000000}}, {{0x40380000, 1}}, 0x40080000},
        {0x200000, {{0x80000000, 0x500000}}, {{0}}, 0x80200000},
        {0x200000, {{0x80000000, 0x4000000}}, {{0x80000000, 0x200000}}, 0x80200000},
        {0x500000, {{0x40000000, 0x800000}}, {{0}}, 0x40500000},
        {0x500000, {{0, 0x4000000}}, {{0x500000, 1}}, 0x700000},
        {0, {{0x900000000, 0x1000000}, {0x880000000, 0x300000}}, {{0}}, 0x880000000},
        {0x12340, {{0x40000000, 0x4000000}}, {{0x40000000, 0x1000000}}, 0x41012340},
        {0, {{0x40000000, UINT64_MAX}}, {{0x40000000, UINT64_MAX}}, 0},
        {0x80000, {{0x40000000, UINT64_MAX}}, {{0x40000000, TN_LOADER_LIMIT}}, 0},
        {TN_LOADER_LIMIT - 0x300000, {{0x200000, UINT64_MAX}}, {{0}}, TN_LOADER_LIMIT - 0x300000},
        {TN_LOADER_LIMIT - 0x300000, {{0x200000, UINT64_MAX}}, {{TN_LOADER_LIMIT - 1, 1}}, 0},
        {TN_LOADER_LIMIT - 0x300000, {{TN_LOADER_LIMIT, UINT64_MAX}}, {{0}}, 0},
    };
    static uint8_t b[ROOM];
    struct tn_loader_plan p, q;
    uint64_t gpa;

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++) {
        good_arm64(b);
        tn_put_(b + 8, 8, t[i].offset);
        assert_int_equal(parse_for(b, IMAGE_LEN, TN_LOADER_EM_AARCH64, &p), 0);
        assert_int_equal(p.seg[0].gpa, t[i].offset);
        if (!t[i].gpa) {
            not_placed(p, t[i].ram, 2, t[i].reserved, 2, TN_ENOFIT, TN_LOADER_PLACE_NONE, 0);
            continue;
        }
        q = p;
        assert_int_equal(tn_loader_place(&q, t[i].ram, 2, t[i].reserved, 2), 0);
        assert_int_equal(q.seg[0].gpa, t[i].gpa);
        assert_int_equal(q.fdt_entry, t[i].gpa);
        assert_int_equal(q.offset, t[i].offset);
        assert_int_equal(q.init_size, 0x300000);
        assert_int_equal(q.initrd_max, t[i].gpa / (1ull << 30) * (1ull << 30) + (32ull << 30) - 1);
        assert_true(q.has_fdt);
        p = q; /* where it is, it stays */
        assert_int_equal(tn_loader_place(&q, t[i].ram, 2, t[i].reserved, 2), 0);
        assert_memory_equal(&p, &q, sizeof(p));
    }

    good_riscv(b); /* no window for the initrd */
    assert_int_equal(parse_for(b, IMAGE_LEN, TN_LOADER_EM_RISCV, &p), 0);
    assert_int_equal(tn_loader_place(&p, t[12].ram, 1, t[12].reserved, 1), 0);
    assert_int_equal(p.seg[0].gpa, 0x80200000);
    assert_int_equal(p.initrd_max, TN_LOADER_LIMIT - 1);

    good_arm64(b); /* 32 GiB from the kernel's own on */
    assert_int_equal(parse_for(b, IMAGE_LEN, TN_LOADER_EM_AARCH64, &p), 0);
    {
        static const struct tn_loader_range ram[] = {{0x40000000, 64ull << 30}};

        assert_int_equal(tn_loader_place(&p, ram, 1, NULL, 0), 0);
        assert_int_equal(tn_loader_place_initrd(&p, 0x1001, ram, 1, NULL, 0, &gpa), 0);
        assert_int_equal(gpa, 0x40000000 + (32ull << 30) - 0x2000);
    }
}

/* linux32 is lost above 4 GiB, and where it is all that there is, the plan does not go there. */
static void a_move_beyond_4_gib_loses_linux32(void **state)
{
    static const struct tn_loader_range ram[] = {{0, 0x1200000}, {0xffe00000, 0x1000000}};
    static uint8_t b[ROOM];
    struct tn_loader_plan p;

    (void)state;
    assert_int_equal(parse(b, good_bz(b), &p), 0);
    assert_true(p.has_linux32);
    assert_int_equal(tn_loader_place(&p, ram, 2, NULL, 0), 0);
    assert_int_equal(p.seg[0].gpa, 0xffe00000);
    assert_int_equal(p.linux64_entry, 0xffe00200);
    assert_false(p.has_linux32);
    assert_int_equal(p.linux32_entry, 0);

    good_bz(b); /* its end at 4 GiB */
    tn_put_(b + 0x260, 4, 0x200000);
    assert_int_equal(parse(b, BZ_LEN, &p), 0);
    assert_int_equal(tn_loader_place(&p, ram + 1, 1, NULL, 0), 0);
    assert_true(p.has_linux32);
    assert_int_equal(p.linux32_entry, 0xffe00000);

    good_bz(b);
    tn_put_(b + 0x236, 2, 2); /* no 64-bit entry, whatever the other flags say */
    assert_int_equal(parse(b, BZ_LEN, &p), 0);
    not_placed(p, ram, 2, NULL, 0, TN_ENOFIT, TN_LOADER_PLACE_NONE, 0);

    old_bz(b, 0x209, 0x258); /* 4 MiB and more are its own */
    assert_int_equal(parse(b, BZ_LEN, &p), 0);
    assert_int_equal(tn_loader_place(&p, ram, 1, NULL, 0), 0);
    assert_int_equal(p.linux32_entry, 0x200000);
    {
        static const struct tn_loader_range small[] = {{0, 0x600000}};

        assert_int_equal(parse(b, BZ_LEN, &p), 0);
        not_placed(p, small, 1, NULL, 0, TN_ENOFIT, TN_LOADER_PLACE_NONE, 0);
    }
}

/* A plan that is moved, and placed anew, agrees with a search that tries every address. */
static void places_agree_with_an_exhaustive_search(void **state)
{
    enum { PAGES = 48 };
    static uint8_t b[ROOM];
    uint64_t random = 11;

    (void)state;
    for (unsigned round = 0; round < 20000; round++) {
        struct tn_loader_range ram[3], res[3];
        struct tn_loader_plan p;
        uint64_t unit = 0x1000, size, align, want = 0, gpa, odd = test_random(&random) % 3;
        uint64_t max = 0x1000000 + test_random(&random) % (PAGES * unit);
        int err;

        good_bz(b);
        align = unit << test_random(&random) % 3;
        size = 1 + test_random(&random) % (12 * unit);
        tn_put_(b + 0x230, 4, align);
        b[0x235] = 0;
        tn_put_(b + 0x22c, 4, max);
        tn_put_(b + 0x258, 8, 0x1000000 + test_random(&random) % 4 * align);
        tn_put_(b + 0x260, 4, size);
        assert_int_equal(parse(b, BZ_LEN, &p), 0);
        size = p.init_size;
        for (unsigned i = 0; i < 3; i++) {
            ram[i].gpa = 0x1000000 + test_random(&random) % PAGES * unit + odd * 0x400;
            ram[i].size = test_random(&random) % 32 * unit + odd * 0x300;
            res[i].gpa = 0x1000000 + test_random(&random) % PAGES * unit + odd * 0x800;
            res[i].size = test_random(&random) % 5 * unit + odd;
        }
        for (uint64_t at = p.seg[0].gpa; at < 0x1000000 + 96 * unit && !want; at += align) {
            bool in = false, hit = false;

            for (unsigned i = 0; i < 3; i++) {
                in |= ram[i].gpa <= at && at + size <= ram[i].gpa + ram[i].size;
                hit |= res[i].size && res[i].gpa < at + size && at < res[i].gpa + res[i].size;
            }
            if (in && !hit)
                want = at;
        }
        err = tn_loader_place(&p, ram, 3, res, 3);
        assert_int_equal(err, want ? 0 : TN_ENOFIT);
        if (err)
            continue;
        assert_int_equal(p.seg[0].gpa, want);

        size = 1 + test_random(&random) % (6 * unit);
        want = 0;
        for (uint64_t at = 0x1000000 + 96 * unit; at >= 0x1000000 && !want; at -= unit) {
            uint64_t n = (size + 0xfff) / 0x1000 * 0x1000, k = p.seg[0].gpa;
            bool in = false, hit = at < k + p.init_size && k < at + n;

            for (unsigned i = 0; i < 3; i++) {
                in |= ram[i].gpa <= at && at + n <= ram[i].gpa + ram[i].size;
                hit |= res[i].size && res[i].gpa < at + n && at < res[i].gpa + res[i].size;
            }
            if (in && !hit && at + n - 1 <= max)
                want = at;
        }
        err = tn_loader_place_initrd(&p, size, ram, 3, res, 3, &gpa);
        assert_int_equal(err, want ? 0 : TN_ENOFIT);
        assert_int_equal(gpa, want);
    }
}

static void d04_an_initrd_keeps_clear(void **state)
{
    static const struct tn_loader_range ram[] = {{0, 0xa0000}, {0x100000, 0x7f00000}};
    static const struct {
        uint64_t size;
        uint64_t max;
        struct tn_loader_range reserved;
        uint64_t gpa; /* 0: no place */
    } t[] = {
        {1, 0x7fffffff, {0, 0}, 0x7fff000},
        {0x1000, 0x7fffffff, {0, 0}, 0x7fff000},
        {0x1001, 0x7fffffff, {0, 0}, 0x7ffe000},
        {0x1000, 0x6ffffff, {0, 0}, 0x6fff000},
        {0x1000, 0x6fffffe, {0, 0}, 0x6ffe000},
        {0x1000, UINT64_MAX, {0, 0}, 0x7fff000},
        {0x1000, 0x7fffffff, {0x7fff000, 1}, 0x7ffe000},
        {0x1000, 0x7fffffff, {0x1300000, UINT64_MAX}, 0xfff000}, /* below the kernel */
        {0x1000, 0x12fffff, {0, 0}, 0xfff000},
        {0x1000, 0x10fffff, {0x100000, 0xf00000}, 0x9f000},
        {0x6d00000, 0x7fffffff, {0, 0}, 0x1300000},
        {0x6d00001, 0x7fffffff, {0, 0}, 0},
        {0x1000, 0, {0, 0}, 0},
        {0x1000, 0xfff, {0, 0}, 0}, /* at 0 */
        {0x1000, 0x7fffffff, {0, UINT64_MAX}, 0},
        {TN_LOADER_LIMIT, 0x7fffffff, {0, 0}, 0},
        {TN_LOADER_LIMIT + 1, 0x7fffffff, {0, 0}, 0},
        {UINT64_MAX, 0x7fffffff, {0, 0}, 0},
    };
    static const struct tn_loader_range huge[] = {{0x2000000, UINT64_MAX}};
    static uint8_t b[ROOM];
    struct tn_loader_plan p;
    uint64_t gpa;

    (void)state;
    assert_int_equal(parse(b, good_bz(b), &p), 0);
    for (size_t i = 0; i < COUNT(t); i++) {
        int err;

        p.initrd_max = t[i].max;
        gpa = 77;
        err = tn_loader_place_initrd(&p, t[i].size, ram, 2, &t[i].reserved, 1, &gpa);
        assert_int_equal(gpa, t[i].gpa);
        assert_int_equal(err, t[i].gpa || t[i].max == 0xfff ? 0 : TN_ENOFIT);
    }
    gpa = 77;
    assert_int_equal(tn_loader_place_initrd(&p, 0, ram, 2, NULL, 0, &gpa), TN_EINVAL);
    assert_int_equal(gpa, 0);
    p.initrd_max = UINT64_MAX;
    assert_int_equal(tn_loader_place_initrd(&p, 0x1000, huge, 1, NULL, 0, &gpa), 0);
    assert_int_equal(gpa, TN_LOADER_LIMIT - 0x1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(d04_segments_outside_of_ram_are_refused),
        cmocka_unit_test(d04_segments_over_what_is_reserved_are_refused),
        cmocka_unit_test(a_void_or_forged_plan_is_not_placed),
        cmocka_unit_test(a_bzimage_is_placed),
        cmocka_unit_test(d06_an_image_is_placed),
        cmocka_unit_test(a_move_beyond_4_gib_loses_linux32),
        cmocka_unit_test(places_agree_with_an_exhaustive_search),
        cmocka_unit_test(d04_an_initrd_keeps_clear),
    };

    return cmocka_run_group_tests_name("loader_plan", tests, NULL, NULL);
}
