/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_loader.h"
#include "test.h"

/* ---- images ------------------------------------------------------------------------------- */

enum { ELF_LEN = 0x1800, BZ_LEN = 0x400 + 0x1000, ROOM = 0x10000 };

/* Where things are in good_elf: program header n, and the first byte of its notes. */
#define PH(n) (64 + 56 * (n))
enum { P_TYPE = 0, P_OFFSET = 8, P_VADDR = 16, P_PADDR = 24, P_FILESZ = 32, P_MEMSZ = 40 };
enum { E_CLASS = 4, E_DATA = 5, E_VERSION = 6, E_TYPE = 16, E_MACHINE = 18, E_ENTRY = 24 };
enum { E_PHOFF = 32, E_PHENTSIZE = 54, E_PHNUM = 56, NOTES = 0x800 };

static void phdr(uint8_t *at, uint32_t type, uint64_t off, uint64_t paddr, uint64_t filesz,
                 uint64_t memsz)
{
    memset(at, 0, 56);
    tn_put_(at + P_TYPE, 4, type);
    tn_put_(at + P_OFFSET, 8, off);
    tn_put_(at + P_VADDR, 8, 0xffffffff80000000ull + paddr);
    tn_put_(at + P_PADDR, 8, paddr);
    tn_put_(at + P_FILESZ, 8, filesz);
    tn_put_(at + P_MEMSZ, 8, memsz);
    tn_put_(at + 48, 8, 4); /* p_align */
}

static size_t note(uint8_t *at, uint32_t namesz, const char *name, uint32_t type, uint32_t descsz,
                   uint64_t desc)
{
    size_t padded = (namesz + 3) / 4 * 4;

    tn_put_(at, 4, namesz);
    tn_put_(at + 4, 4, descsz);
    tn_put_(at + 8, 4, type);
    memset(at + 12, 0, padded);
    memcpy(at + 12, name, namesz);
    tn_put_(at + 12 + padded, descsz > 8 ? 8 : descsz, desc);
    return 12 + padded + (descsz + 3) / 4 * 4;
}

/* Two segments, the higher one first; a note before the PVH one. */
static size_t good_elf(uint8_t *b)
{
    static const uint8_t ident[] = {0x7f, 'E', 'L', 'F', 2, 1, 1};
    size_t n;

    memset(b, 0, ROOM);
    memcpy(b, ident, sizeof(ident));
    tn_put_(b + E_TYPE, 2, 2);
    tn_put_(b + E_MACHINE, 2, 62);
    tn_put_(b + E_ENTRY, 8, 0x100000);
    tn_put_(b + E_PHOFF, 8, 64);
    tn_put_(b + E_PHENTSIZE, 2, 56);
    tn_put_(b + E_PHNUM, 2, 3);
    n = note(b + NOTES, 4, "GNU", 3, 20, 0x1122);
    n += note(b + NOTES + n, 4, "Xen", 18, 4, 0x100010);
    phdr(b + PH(0), 1, 0x1400, 0x200000, 0x400, 0x2000);
    phdr(b + PH(1), 4, NOTES, 0, n, n);
    phdr(b + PH(2), 1, 0x1000, 0x100000, 0x400, 0x400);
    return ELF_LEN;
}

static size_t good_bz(uint8_t *b)
{
    memset(b, 0, ROOM);
    b[0x1f1] = 1;
    tn_put_(b + 0x1f4, 4, 0x100);
    tn_put_(b + 0x1fe, 2, 0xaa55);
    tn_put_(b + 0x200, 2, 0x6aeb);
    memcpy(b + 0x202, "HdrS", 4);
    tn_put_(b + 0x206, 2, 0x020f);
    b[0x211] = 1;
    tn_put_(b + 0x22c, 4, 0x7fffffff);
    tn_put_(b + 0x230, 4, 0x200000);
    b[0x234] = 1;
    b[0x235] = 21;
    tn_put_(b + 0x236, 2, 0x7f);
    tn_put_(b + 0x238, 4, 2047);
    tn_put_(b + 0x258, 8, 0x1000000);
    tn_put_(b + 0x260, 4, 0x300000);
    return BZ_LEN;
}

/* ---- checks ------------------------------------------------------------------------------- */

static void is_void(const struct tn_loader_plan *p)
{
    assert_int_equal(p->format, 0);
    assert_int_equal(p->nsegs, 0);
    for (unsigned i = 0; i < TN_LOADER_MAX_SEGS; i++) {
        assert_int_equal(p->seg[i].gpa, 0);
        assert_int_equal(p->seg[i].mem_size, 0);
        assert_int_equal(p->seg[i].file_off, 0);
        assert_int_equal(p->seg[i].file_size, 0);
    }
    assert_false(p->has_linux64 || p->has_pvh || p->relocatable || p->above_4g);
    assert_int_equal(p->linux64_entry | p->pvh_entry | p->align | p->init_size, 0);
    assert_int_equal(p->setup_off | p->setup_len | p->boot_version, 0);
    assert_int_equal(p->initrd_max | p->cmdline_max, 0);
}

static int parse(const uint8_t *b, size_t len, struct tn_loader_plan *p)
{
    uint8_t *exact = test_exact(b, len);
    int err;

    memset(p, 0xa5, sizeof(*p));
    err = tn_loader_parse(exact, len, p);
    free(exact);
    return err;
}

static void refused(const uint8_t *b, size_t len, int err, uint32_t detail)
{
    struct tn_loader_plan p;

    assert_int_equal(parse(b, len, &p), err);
    assert_int_equal(p.detail, detail);
    is_void(&p);
}

/* One change to a good image, and what it must lead to; detail 0: accepted all the same. */
struct mutation {
    size_t at;
    unsigned width;
    uint64_t value;
    int err;
    uint32_t detail;
};

static void mutate(size_t (*good)(uint8_t *), const struct mutation *m, size_t n)
{
    static uint8_t b[ROOM];

    for (size_t i = 0; i < n; i++) {
        size_t len = good(b);
        struct tn_loader_plan p;

        tn_put_(b + m[i].at, m[i].width, m[i].value);
        if (m[i].detail) {
            refused(b, len, m[i].err, m[i].detail);
        } else {
            assert_int_equal(parse(b, len, &p), 0);
            assert_int_equal(p.detail, 0);
        }
    }
}

/* ---- any file ----------------------------------------------------------------------------- */

static void what_is_no_kernel_is_refused(void **state)
{
    static const struct {
        uint8_t bytes[8];
        size_t len;
        int err;
        uint32_t detail;
    } t[] = {
        {{0}, 0, TN_ETRUNC, TN_LOADER_EMPTY},
        {{0x7f, 'E', 'L'}, 3, TN_ETRUNC, TN_LOADER_SHORT},
        {{0x7f, 'E', 'L', 'F'}, 4, TN_ETRUNC, TN_LOADER_ELF_TRUNC},
        {{'M', 'Z', 0, 0}, 4, TN_ETRUNC, TN_LOADER_SHORT},
        {{'t', 'e', 'x', 't'}, 4, TN_EFORMAT, TN_LOADER_UNKNOWN},
        {{0x7f, 'E', 'L', 'G', 2, 1, 1}, 8, TN_EFORMAT, TN_LOADER_UNKNOWN},
        {{0x1f, 0x8b, 8, 0}, 4, TN_EUNSUP, TN_LOADER_COMPRESSED},
        {{0x28, 0xb5, 0x2f, 0xfd}, 4, TN_EUNSUP, TN_LOADER_COMPRESSED},
        {{0xfd, '7', 'z', 'X', 'Z', 0}, 6, TN_EUNSUP, TN_LOADER_COMPRESSED},
        {{'B', 'Z', 'h', '9'}, 4, TN_EUNSUP, TN_LOADER_COMPRESSED},
        {{0x5d, 0, 0, 0x80}, 4, TN_EUNSUP, TN_LOADER_COMPRESSED},
        {{0x02, 0x21, 0x4c, 0x18}, 4, TN_EUNSUP, TN_LOADER_COMPRESSED},
        {{0x04, 0x22, 0x4d, 0x18}, 4, TN_EUNSUP, TN_LOADER_COMPRESSED},
    };
    static uint8_t b[ROOM];

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++)
        refused(t[i].bytes, t[i].len, t[i].err, t[i].detail);

    memset(b, 0, sizeof(b));
    refused(b, sizeof(b), TN_EFORMAT, TN_LOADER_UNKNOWN);
    memcpy(b + 56, "ARM\x64", 4);
    refused(b, 64, TN_EMACHINE, TN_LOADER_ARM64_IMAGE);
    refused(b, 60, TN_EMACHINE, TN_LOADER_ARM64_IMAGE);
    refused(b, 59, TN_EFORMAT, TN_LOADER_UNKNOWN);
    memcpy(b, "MZ", 2); /* as arm64 kernels with an EFI stub begin */
    refused(b, sizeof(b), TN_EMACHINE, TN_LOADER_ARM64_IMAGE);
    memset(b + 56, 0, 4);
    refused(b, sizeof(b), TN_EFORMAT, TN_LOADER_UNKNOWN);
    refused(b, 0x205, TN_ETRUNC, TN_LOADER_SHORT);
}

static void e07_a_file_cut_anywhere_is_refused(void **state)
{
    static uint8_t b[ROOM];
    struct tn_loader_plan p;
    size_t len = good_elf(b);

    (void)state;
    for (size_t n = 0; n < len; n++) {
        assert_true(parse(b, n, &p) < 0);
        is_void(&p);
        if (n >= 4)
            assert_int_equal(tn_loader_err_(p.detail), TN_ETRUNC);
    }
    len = good_bz(b);
    memcpy(b, "MZ", 2);
    for (size_t n = 0; n < len; n++)
        refused(b, n, TN_ETRUNC,
                n == 0      ? TN_LOADER_EMPTY
                : n < 0x206 ? TN_LOADER_SHORT
                : n < 0x400 ? TN_LOADER_BZ_TRUNC
                            : TN_LOADER_BZ_PAYLOAD);
}

static void e07_a_flipped_bit_harms_nothing(void **state)
{
    static uint8_t b[ROOM];
    size_t (*const good[])(uint8_t *) = {good_elf, good_bz};
    const struct tn_loader_range ram = {0, 1ull << 32};

    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        size_t len = good[k](b);

        for (size_t bit = 0; bit < 0x900 * 8; bit++) {
            struct tn_loader_plan p;

            b[bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (parse(b, len, &p) < 0) {
                assert_true(p.detail != 0);
                is_void(&p);
            } else {
                for (uint32_t i = 0; i < p.nsegs; i++)
                    assert_true(p.seg[i].file_off + p.seg[i].file_size <= len);
                assert_true(tn_loader_place(&p, &ram, 1, NULL, 0) <= 0);
            }
            b[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
}

/* ---- ELF ---------------------------------------------------------------------------------- */

static void a_good_elf_becomes_a_plan(void **state)
{
    static uint8_t b[ROOM];
    struct tn_loader_plan p;

    (void)state;
    assert_int_equal(parse(b, good_elf(b), &p), 0);
    assert_int_equal(p.format, TN_LOADER_ELF64);
    assert_int_equal(p.nsegs, 2);
    assert_int_equal(p.seg[0].gpa, 0x100000);
    assert_int_equal(p.seg[0].mem_size, 0x400);
    assert_int_equal(p.seg[0].file_off, 0x1000);
    assert_int_equal(p.seg[0].file_size, 0x400);
    assert_int_equal(p.seg[1].gpa, 0x200000);
    assert_int_equal(p.seg[1].mem_size, 0x2000);
    assert_int_equal(p.seg[1].file_off, 0x1400);
    assert_int_equal(p.seg[1].file_size, 0x400);
    assert_true(p.has_linux64 && p.has_pvh);
    assert_int_equal(p.linux64_entry, 0x100000);
    assert_int_equal(p.pvh_entry, 0x100010);
    assert_false(p.relocatable || p.above_4g);
    assert_int_equal(p.align, 0);
    assert_int_equal(p.init_size, 0x102000);
    assert_int_equal(p.setup_off | p.setup_len | p.boot_version, 0);
    assert_int_equal(p.initrd_max, 0x37ffffff);
    assert_int_equal(p.cmdline_max, 2047);
    assert_int_equal(p.detail, 0);
    assert_int_equal(p.where, 0);
}

static void elf_header_fields_are_checked(void **state)
{
    static const struct mutation t[] = {
        {E_CLASS, 1, 1, TN_EUNSUP, TN_LOADER_ELF_32BIT},
        {E_CLASS, 1, 0, TN_EFORMAT, TN_LOADER_ELF_IDENT},
        {E_CLASS, 1, 3, TN_EFORMAT, TN_LOADER_ELF_IDENT},
        {E_DATA, 1, 2, TN_EMACHINE, TN_LOADER_ELF_BIG_ENDIAN},
        {E_DATA, 1, 0, TN_EFORMAT, TN_LOADER_ELF_IDENT},
        {E_VERSION, 1, 0, TN_EFORMAT, TN_LOADER_ELF_IDENT},
        {E_MACHINE, 2, 183, TN_EMACHINE, TN_LOADER_ELF_MACHINE}, /* EM_AARCH64 */
        {E_MACHINE, 2, 3, TN_EMACHINE, TN_LOADER_ELF_MACHINE},   /* EM_386 */
        {E_MACHINE, 2, 0, TN_EMACHINE, TN_LOADER_ELF_MACHINE},
        {E_TYPE, 2, 1, TN_EUNSUP, TN_LOADER_ELF_TYPE}, /* ET_REL */
        {E_TYPE, 2, 4, TN_EUNSUP, TN_LOADER_ELF_TYPE}, /* ET_CORE */
        {E_TYPE, 2, 3, 0, 0},                          /* ET_DYN */
        {E_PHENTSIZE, 2, 32, TN_EFORMAT, TN_LOADER_PHDR_SIZE},
        {E_PHENTSIZE, 2, 0, TN_EFORMAT, TN_LOADER_PHDR_SIZE},
        {E_PHENTSIZE, 2, 57, TN_EFORMAT, TN_LOADER_PHDR_SIZE},
        {E_PHNUM, 2, 0, TN_EFORMAT, TN_LOADER_SEG_NONE},
        {E_PHNUM, 2, 65, TN_EUNSUP, TN_LOADER_PHDR_MANY},
        {E_PHNUM, 2, 0xffff, TN_EUNSUP, TN_LOADER_PHDR_MANY},
    };

    (void)state;
    mutate(good_elf, t, COUNT(t));
}

static void d01_offsets_beyond_the_end_are_refused(void **state)
{
    static const struct mutation t[] = {
        {E_PHOFF, 8, ELF_LEN, TN_ETRUNC, TN_LOADER_PHDR_TRUNC},
        {E_PHOFF, 8, ELF_LEN - 3 * 56 + 1, TN_ETRUNC, TN_LOADER_PHDR_TRUNC},
        {E_PHOFF, 8, UINT64_MAX, TN_ETRUNC, TN_LOADER_PHDR_TRUNC},
        {E_PHOFF, 8, UINT64_MAX - 3 * 56 + 1, TN_ETRUNC, TN_LOADER_PHDR_TRUNC},
        {PH(0) + P_OFFSET, 8, ELF_LEN, TN_ETRUNC, TN_LOADER_SEG_TRUNC},
        {PH(0) + P_OFFSET, 8, 0x1401, TN_ETRUNC, TN_LOADER_SEG_TRUNC},
        {PH(0) + P_OFFSET, 8, UINT64_MAX, TN_ETRUNC, TN_LOADER_SEG_TRUNC},
        {PH(0) + P_OFFSET, 8, UINT64_MAX - 0x3ff, TN_ETRUNC, TN_LOADER_SEG_TRUNC},
        {PH(1) + P_OFFSET, 8, ELF_LEN, TN_ETRUNC, TN_LOADER_NOTE_TRUNC},
        {PH(1) + P_OFFSET, 8, UINT64_MAX - 8, TN_ETRUNC, TN_LOADER_NOTE_TRUNC},
        {PH(1) + P_FILESZ, 8, ELF_LEN, TN_ETRUNC, TN_LOADER_NOTE_TRUNC},
        {PH(1) + P_FILESZ, 8, UINT64_MAX, TN_ETRUNC, TN_LOADER_NOTE_TRUNC},
    };

    (void)state;
    mutate(good_elf, t, COUNT(t));
}

static void d02_arithmetic_of_segments_does_not_wrap(void **state)
{
    static const struct mutation t[] = {
        {PH(0) + P_PADDR, 8, UINT64_MAX, TN_ERANGE, TN_LOADER_SEG_ADDR},
        {PH(0) + P_PADDR, 8, UINT64_MAX - 0x1fff, TN_ERANGE, TN_LOADER_SEG_ADDR},
        {PH(0) + P_PADDR, 8, TN_LOADER_LIMIT - 0x1fff, TN_ERANGE, TN_LOADER_SEG_ADDR},
        {PH(0) + P_PADDR, 8, TN_LOADER_LIMIT - 0x2000, 0, 0},
        {PH(0) + P_MEMSZ, 8, TN_LOADER_LIMIT, TN_ERANGE, TN_LOADER_SEG_ADDR},
        {PH(0) + P_FILESZ, 8, 0x2000, TN_ETRUNC, TN_LOADER_SEG_TRUNC},
    };

    (void)state;
    mutate(good_elf, t, COUNT(t));
}

static void d04_filesz_above_memsz_is_refused(void **state)
{
    static const struct mutation t[] = {
        {PH(0) + P_FILESZ, 8, 0x2001, TN_EFORMAT, TN_LOADER_SEG_FILESZ},
        {PH(0) + P_FILESZ, 8, UINT64_MAX, TN_EFORMAT, TN_LOADER_SEG_FILESZ},
        {PH(0) + P_MEMSZ, 8, 0x3ff, TN_EFORMAT, TN_LOADER_SEG_FILESZ},
        {PH(0) + P_MEMSZ, 8, 0, TN_EFORMAT, TN_LOADER_SEG_FILESZ},
        {PH(0) + P_MEMSZ, 8, 0x400, 0, 0},
    };

    (void)state;
    mutate(good_elf, t, COUNT(t));
}

static void d04_memsz_of_two_to_the_63_is_refused(void **state)
{
    static const struct mutation t[] = {
        {PH(0) + P_MEMSZ, 8, 1ull << 63, TN_ERANGE, TN_LOADER_SEG_ADDR},
        {PH(0) + P_MEMSZ, 8, UINT64_MAX, TN_ERANGE, TN_LOADER_SEG_ADDR},
    };

    (void)state;
    mutate(good_elf, t, COUNT(t));
}

static void d04_segments_that_overlap_are_refused(void **state)
{
    static const struct mutation t[] = {
        {PH(0) + P_PADDR, 8, 0x100000, TN_EOVERLAP, TN_LOADER_SEG_OVERLAP},
        {PH(0) + P_PADDR, 8, 0x1003ff, TN_EOVERLAP, TN_LOADER_SEG_OVERLAP},
        {PH(0) + P_PADDR, 8, 0x100400, 0, 0}, /* they touch */
        {PH(0) + P_PADDR, 8, 0x100000 - 0x1fff, TN_EOVERLAP, TN_LOADER_SEG_OVERLAP},
        {PH(0) + P_PADDR, 8, 0x100000 - 0x2000, 0, 0},
        {PH(0) + P_MEMSZ, 8, TN_LOADER_LIMIT - 0x200000, 0, 0},
        {PH(2) + P_MEMSZ, 8, 0x100001, TN_EOVERLAP, TN_LOADER_SEG_OVERLAP},
        {PH(2) + P_MEMSZ, 8, 0x100000, 0, 0},
    };

    (void)state;
    mutate(good_elf, t, COUNT(t));
}

static void d04_an_entry_outside_is_refused(void **state)
{
    static const struct mutation t[] = {
        {E_ENTRY, 8, 0x0fffff, TN_EENTRY, TN_LOADER_ENTRY},
        {E_ENTRY, 8, 0x100400, TN_EENTRY, TN_LOADER_ENTRY},
        {E_ENTRY, 8, 0x1003ff, 0, 0},
        {E_ENTRY, 8, 0x200400, TN_EENTRY, TN_LOADER_ENTRY}, /* zeros, not from the file */
        {E_ENTRY, 8, UINT64_MAX, TN_EENTRY, TN_LOADER_ENTRY},
        {E_ENTRY, 8, 0xffffffff80100400, TN_EENTRY, TN_LOADER_ENTRY}, /* past a virtual end */
        {NOTES + 36 + 16, 4, 0x0fffff, TN_EENTRY, TN_LOADER_PVH_ENTRY},
        {NOTES + 36 + 16, 4, 0x200400, TN_EENTRY, TN_LOADER_PVH_ENTRY},
        {NOTES + 36 + 16, 4, 0xffffffff, TN_EENTRY, TN_LOADER_PVH_ENTRY},
        {NOTES + 36 + 16, 4, 0x2003ff, 0, 0},
    };

    (void)state;
    mutate(good_elf, t, COUNT(t));
}

static void a_virtual_entry_leaves_pvh_only(void **state)
{
    static const uint64_t entry[] = {0, 0xffffffff80100000ull, 0xffffffff802003ffull};
    static uint8_t b[ROOM];
    struct tn_loader_plan p;

    (void)state;
    for (size_t i = 0; i < COUNT(entry); i++) {
        size_t len = good_elf(b);

        tn_put_(b + E_ENTRY, 8, entry[i]);
        assert_int_equal(parse(b, len, &p), 0);
        assert_false(p.has_linux64);
        assert_true(p.has_pvh);
        assert_int_equal(p.linux64_entry, 0);
        assert_int_equal(p.pvh_entry, 0x100010);
        tn_put_(b + PH(1), 4, 0); /* no notes: nothing is left */
        refused(b, len, TN_EENTRY, TN_LOADER_ENTRY_VIRTUAL);
    }
}

static void segments_are_sorted_and_at_most_16(void **state)
{
    static uint8_t b[ROOM];
    struct tn_loader_plan p;
    uint64_t random = 7;

    (void)state;
    for (unsigned round = 0; round < 200; round++) {
        uint32_t n = 1 + (uint32_t)(test_random(&random) % 16);
        uint64_t order[16];

        good_elf(b);
        memset(b + 64, 0, 0x1000 - 64);
        tn_put_(b + E_PHNUM, 2, n);
        for (uint32_t i = 0; i < n; i++)
            order[i] = i;
        for (uint32_t i = n; i-- > 1;) {
            uint64_t j = test_random(&random) % (i + 1), t = order[i];
            order[i] = order[j];
            order[j] = t;
        }
        for (uint32_t i = 0; i < n; i++)
            phdr(b + PH(i), 1, 0x1000 + order[i], 0x100000 + order[i] * 0x1000, 1, 0x1000);
        assert_int_equal(parse(b, ELF_LEN, &p), 0);
        assert_int_equal(p.nsegs, n);
        for (uint32_t i = 0; i < n; i++) {
            assert_int_equal(p.seg[i].gpa, 0x100000 + i * 0x1000);
            assert_int_equal(p.seg[i].mem_size, 0x1000);
            assert_int_equal(p.seg[i].file_off, 0x1000 + i);
            assert_int_equal(p.seg[i].file_size, 1);
        }
        assert_int_equal(p.init_size, n * 0x1000);
    }

    good_elf(b);
    tn_put_(b + E_PHNUM, 2, 20);
    memset(b + 64, 0, 20 * 56);
    for (uint32_t i = 0; i < 16; i++)
        phdr(b + PH(i), 1, 0x1000, 0x100000 + i * 0x1000, 1, 0x1000);
    phdr(b + PH(16), 1, UINT64_MAX, 5, 0, 0); /* empty: does not count */
    assert_int_equal(parse(b, ELF_LEN, &p), 0);
    assert_int_equal(p.nsegs, 16);
    phdr(b + PH(17), 1, 0x1000, 0x200000, 1, 1);
    refused(b, ELF_LEN, TN_EUNSUP, TN_LOADER_SEG_MANY);
}

static void where_names_the_program_header(void **state)
{
    static uint8_t b[ROOM];
    struct tn_loader_plan p;

    (void)state;
    good_elf(b);
    tn_put_(b + PH(2) + P_PADDR, 8, 0x200000);
    assert_int_equal(parse(b, ELF_LEN, &p), TN_EOVERLAP);
    assert_int_equal(p.where, 2);
}

static void a_segment_without_file_bytes_has_no_offset(void **state)
{
    static uint8_t b[ROOM];
    struct tn_loader_plan p;

    (void)state;
    good_elf(b);
    phdr(b + PH(0), 1, UINT64_MAX, 0x200000, 0, 0x2000);
    assert_int_equal(parse(b, ELF_LEN, &p), 0);
    assert_int_equal(p.nsegs, 2);
    assert_int_equal(p.seg[1].mem_size, 0x2000);
    assert_int_equal(p.seg[1].file_off | p.seg[1].file_size, 0);
    tn_put_(b + PH(2), 4, 0); /* nothing but zeros: no entry can be in it */
    refused(b, ELF_LEN, TN_EENTRY, TN_LOADER_PVH_ENTRY);
    tn_put_(b + PH(0), 4, 0);
    refused(b, ELF_LEN, TN_EFORMAT, TN_LOADER_SEG_NONE);
}

static void up_to_64_program_headers(void **state)
{
    static uint8_t b[ROOM];
    struct tn_loader_plan p;

    (void)state;
    good_elf(b);
    tn_put_(b + E_PHNUM, 2, 64);
    memmove(b + 0x1000 - 3 * 56, b + 64, 3 * 56);
    memset(b + 0x2000, 0, 64 * 56);
    memcpy(b + 0x2000 + 61 * 56, b + 0x1000 - 3 * 56, 3 * 56); /* the last three of 64 */
    tn_put_(b + E_PHOFF, 8, 0x2000);
    assert_int_equal(parse(b, 0x2000 + 64 * 56, &p), 0);
    assert_int_equal(p.nsegs, 2);
    assert_true(p.has_pvh);
    refused(b, 0x2000 + 64 * 56 - 1, TN_ETRUNC, TN_LOADER_PHDR_TRUNC);
}

/* ---- notes -------------------------------------------------------------------------------- */

static void d03_note_sizes_near_the_end_of_32_bits(void **state)
{
    static const uint32_t size[] = {0xffffffff, 0xfffffffe, 0xfffffffd, 0xfffffffc,
                                    0xfffffff4, 0x80000000, 0x7fffffff, 57};
    static uint8_t b[ROOM];

    (void)state;
    for (size_t i = 0; i < COUNT(size); i++) {
        size_t len = good_elf(b);

        tn_put_(b + NOTES, 4, size[i]);
        refused(b, len, TN_EFORMAT, TN_LOADER_NOTE_NAME);
        tn_put_(b + NOTES, 4, 4);
        tn_put_(b + NOTES + 4, 4, size[i]);
        refused(b, len, TN_EFORMAT, TN_LOADER_NOTE_DESC);
        tn_put_(b + NOTES, 4, size[i]);
        refused(b, len, TN_EFORMAT, TN_LOADER_NOTE_NAME);
    }
}

static void d03_a_note_that_is_not_quite_pvh(void **state)
{
    static const struct {
        uint32_t namesz;
        const char *name;
        uint32_t type;
        uint32_t descsz;
        uint64_t desc;
        int err;
        uint32_t detail;
        bool pvh;
    } t[] = {
        {4, "Xen", 18, 4, 0x100020, 0, 0, true},
        {4, "Xen", 18, 8, 0x100020, 0, 0, true},
        {4, "Xen", 17, 4, 0x100020, 0, 0, false},
        {4, "Xen", 19, 4, 0x100020, 0, 0, false},
        {4, "Xen", 18 + 256, 4, 0x100020, 0, 0, false},
        {4, "Xen!", 18, 4, 0x100020, 0, 0, false}, /* a name without its NUL */
        {3, "Xen", 18, 4, 0x100020, 0, 0, false},
        {5, "Xen\0", 18, 4, 0x100020, 0, 0, false},
        {4, "xen", 18, 4, 0x100020, 0, 0, false},
        {4, "GNU", 18, 4, 0x100020, 0, 0, false},
        {0, "", 18, 4, 0x100020, 0, 0, false},
        {4, "Xen", 18, 0, 0, TN_EFORMAT, TN_LOADER_PVH_SIZE, false},
        {4, "Xen", 18, 3, 0x100020, TN_EFORMAT, TN_LOADER_PVH_SIZE, false},
        {4, "Xen", 18, 5, 0x100020, TN_EFORMAT, TN_LOADER_PVH_SIZE, false},
        {4, "Xen", 18, 16, 0x100020, TN_EFORMAT, TN_LOADER_PVH_SIZE, false},
        {4, "Xen", 18, 8, 0x100000000, TN_ERANGE, TN_LOADER_PVH_ADDR, false},
        {4, "Xen", 18, 8, 0x100100020, TN_ERANGE, TN_LOADER_PVH_ADDR, false},
        {4, "Xen", 18, 8, UINT64_MAX, TN_ERANGE, TN_LOADER_PVH_ADDR, false},
    };
    static uint8_t b[ROOM];
    struct tn_loader_plan p;

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++) {
        size_t n;

        good_elf(b);
        n = note(b + NOTES, t[i].namesz, t[i].name, t[i].type, t[i].descsz, t[i].desc);
        tn_put_(b + PH(1) + P_FILESZ, 8, n);
        if (t[i].err) {
            refused(b, ELF_LEN, t[i].err, t[i].detail);
            continue;
        }
        assert_int_equal(parse(b, ELF_LEN, &p), 0);
        assert_int_equal(p.has_pvh, t[i].pvh);
        assert_int_equal(p.pvh_entry, t[i].pvh ? t[i].desc : 0);
        assert_true(p.has_linux64);
    }
}

static void d03_notes_are_padded_to_4_whatever_p_align_says(void **state)
{
    static const uint64_t align[] = {0, 1, 4, 8, 16, 0x1000, UINT64_MAX};
    static uint8_t b[ROOM];
    struct tn_loader_plan p;

    (void)state;
    for (size_t i = 0; i < COUNT(align); i++) {
        for (uint32_t before = 0; before < 9; before++) {
            size_t n;

            good_elf(b);
            n = note(b + NOTES, before, "abcdefgh", 1, before, 0);
            n += note(b + NOTES + n, 4, "Xen", 18, 4, 0x100030);
            n += note(b + NOTES + n, 4, "GNU", 3, 4, 0);
            tn_put_(b + PH(1) + P_FILESZ, 8, n);
            tn_put_(b + PH(1) + 48, 8, align[i]);
            assert_int_equal(parse(b, ELF_LEN, &p), 0);
            assert_true(p.has_pvh);
            assert_int_equal(p.pvh_entry, 0x100030);
        }
    }
}

static void the_last_note_may_lack_its_padding(void **state)
{
    static uint8_t b[ROOM];
    struct tn_loader_plan p;
    size_t n;

    (void)state;
    good_elf(b);
    n = note(b + NOTES, 4, "Xen", 18, 4, 0x100030);
    for (size_t more = 0; more < 12; more++) { /* less than a note's header at the end */
        tn_put_(b + PH(1) + P_FILESZ, 8, n + more);
        assert_int_equal(parse(b, ELF_LEN, &p), 0);
        assert_int_equal(p.pvh_entry, 0x100030);
    }
    n += note(b + NOTES + n, 1, "a", 1, 0, 0);
    for (size_t less = 0; less < 4; less++) {
        tn_put_(b + PH(1) + P_FILESZ, 8, n - less);
        assert_int_equal(parse(b, ELF_LEN, &p), 0);
    }
    tn_put_(b + PH(1) + P_FILESZ, 8, n - 4);
    refused(b, ELF_LEN, TN_EFORMAT, TN_LOADER_NOTE_NAME);
    n = note(b + NOTES, 1, "a", 1, 1, 0);
    for (size_t less = 0; less < 4; less++) {
        tn_put_(b + PH(1) + P_FILESZ, 8, n - less);
        assert_int_equal(parse(b, ELF_LEN, &p), 0);
    }
    tn_put_(b + PH(1) + P_FILESZ, 8, n - 4);
    refused(b, ELF_LEN, TN_EFORMAT, TN_LOADER_NOTE_DESC);
}

static void the_first_pvh_note_counts(void **state)
{
    static uint8_t b[ROOM];
    struct tn_loader_plan p;
    size_t n;

    (void)state;
    good_elf(b);
    n = note(b + NOTES, 4, "Xen", 18, 4, 0x100040);
    n += note(b + NOTES + n, 4, "Xen", 18, 4, 0x77777777);
    tn_put_(b + PH(1) + P_FILESZ, 8, n);
    assert_int_equal(parse(b, ELF_LEN, &p), 0);
    assert_int_equal(p.pvh_entry, 0x100040);
}

static void d01_the_number_of_notes_is_bounded(void **state)
{
    static uint8_t b[ROOM];
    struct tn_loader_plan p;

    (void)state;
    good_elf(b);
    tn_put_(b + PH(1) + P_OFFSET, 8, ELF_LEN); /* zeros: notes without name or descriptor */
    tn_put_(b + PH(1) + P_FILESZ, 8, 12 * 1024);
    assert_int_equal(parse(b, ELF_LEN + 12 * 1025, &p), 0);
    tn_put_(b + PH(1) + P_FILESZ, 8, 12 * 1025);
    refused(b, ELF_LEN + 12 * 1025, TN_EUNSUP, TN_LOADER_NOTE_MANY);
}

/* ---- bzImage ------------------------------------------------------------------------------ */

static void a_good_bzimage_becomes_a_plan(void **state)
{
    static uint8_t b[ROOM];
    struct tn_loader_plan p;

    (void)state;
    assert_int_equal(parse(b, good_bz(b), &p), 0);
    assert_int_equal(p.format, TN_LOADER_BZIMAGE);
    assert_int_equal(p.nsegs, 1);
    assert_int_equal(p.seg[0].gpa, 0x1000000);
    assert_int_equal(p.seg[0].mem_size, 0x1000);
    assert_int_equal(p.seg[0].file_off, 0x400);
    assert_int_equal(p.seg[0].file_size, 0x1000);
    assert_true(p.has_linux64);
    assert_false(p.has_pvh);
    assert_int_equal(p.linux64_entry, 0x1000200);
    assert_true(p.relocatable && p.above_4g);
    assert_int_equal(p.align, 0x200000);
    assert_int_equal(p.init_size, 0x300000);
    assert_int_equal(p.setup_off, 0x1f1);
    assert_int_equal(p.setup_len, 0x26c - 0x1f1);
    assert_int_equal(p.boot_version, 0x020f);
    assert_int_equal(p.initrd_max, 0x7fffffff);
    assert_int_equal(p.cmdline_max, 2047);
    assert_int_equal(p.detail, 0);
}

static void bzimage_header_fields_are_checked(void **state)
{
    static const struct mutation t[] = {
        {0x1fe, 2, 0x55aa, TN_EFORMAT, TN_LOADER_BZ_BOOT_FLAG},
        {0x202, 4, 0x53726449, TN_EFORMAT, TN_LOADER_UNKNOWN},
        {0x206, 2, 0x0209, TN_EUNSUP, TN_LOADER_BZ_VERSION},
        {0x206, 2, 0x0000, TN_EUNSUP, TN_LOADER_BZ_VERSION},
        {0x206, 2, 0x0300, TN_EUNSUP, TN_LOADER_BZ_VERSION},
        {0x206, 2, 0x020a, 0, 0},
        {0x206, 2, 0x020c, 0, 0},
        {0x206, 2, 0x0210, 0, 0},
        {0x200, 1, 0xe9, TN_EFORMAT, TN_LOADER_BZ_JUMP},
        {0x201, 1, 0x00, TN_EFORMAT, TN_LOADER_BZ_JUMP},
        {0x201, 1, 0x61, TN_EFORMAT, TN_LOADER_BZ_JUMP}, /* ends inside init_size */
        {0x201, 1, 0x62, 0, 0},
        {0x201, 1, 0x7f, 0, 0},
        {0x201, 1, 0x80, TN_EFORMAT, TN_LOADER_BZ_JUMP}, /* a jump back */
        {0x201, 1, 0xff, TN_EFORMAT, TN_LOADER_BZ_JUMP},
        {0x211, 1, 0x00, TN_EUNSUP, TN_LOADER_BZ_LOW},
        {0x236, 2, 0x00, TN_EUNSUP, TN_LOADER_BZ_NOT_64BIT},
        {0x236, 2, 0xfe, TN_EUNSUP, TN_LOADER_BZ_NOT_64BIT},
        {0x230, 4, 0, TN_EFORMAT, TN_LOADER_BZ_ALIGN},
        {0x230, 4, 3, TN_EFORMAT, TN_LOADER_BZ_ALIGN},
        {0x230, 4, 0xffffffff, TN_EFORMAT, TN_LOADER_BZ_ALIGN},
        {0x230, 4, 0x300000, TN_EFORMAT, TN_LOADER_BZ_ALIGN},
        {0x230, 4, 0x1000000, 0, 0},
        {0x230, 4, 0x2000000, TN_EFORMAT, TN_LOADER_BZ_PREF},
        {0x235, 1, 22, TN_EFORMAT, TN_LOADER_BZ_MIN_ALIGN},
        {0x235, 1, 32, TN_EFORMAT, TN_LOADER_BZ_MIN_ALIGN},
        {0x235, 1, 255, TN_EFORMAT, TN_LOADER_BZ_MIN_ALIGN},
        {0x235, 1, 0, 0, 0},
    };

    (void)state;
    mutate(good_bz, t, COUNT(t));
}

static void d02_arithmetic_of_a_bzimage_does_not_wrap(void **state)
{
    static const struct mutation t[] = {
        {0x1f1, 1, 0xff, TN_ETRUNC, TN_LOADER_BZ_TRUNC},
        {0x1f1, 1, 0, TN_ETRUNC, TN_LOADER_BZ_PAYLOAD}, /* means 4 */
        {0x1f1, 1, 2, TN_ETRUNC, TN_LOADER_BZ_PAYLOAD},
        {0x1f4, 4, 0x101, TN_ETRUNC, TN_LOADER_BZ_PAYLOAD},
        {0x1f4, 4, 0xffffffff, TN_ETRUNC, TN_LOADER_BZ_PAYLOAD},
        {0x1f4, 4, 0x10000100, TN_ETRUNC, TN_LOADER_BZ_PAYLOAD}, /* 0x1000 in 32 bits */
        {0x1f4, 4, 0, TN_EENTRY, TN_LOADER_BZ_ENTRY},
        {0x1f4, 4, 0x20, TN_EENTRY, TN_LOADER_BZ_ENTRY},
        {0x1f4, 4, 0x21, 0, 0},
        {0x258, 8, UINT64_MAX, TN_EFORMAT, TN_LOADER_BZ_PREF},
        {0x258, 8, UINT64_MAX - 0x1fffff, TN_ERANGE, TN_LOADER_BZ_ADDR},
        {0x258, 8, TN_LOADER_LIMIT, TN_ERANGE, TN_LOADER_BZ_ADDR},
        {0x258, 8, TN_LOADER_LIMIT - 0x200000, TN_ERANGE, TN_LOADER_BZ_ADDR},
        {0x258, 8, TN_LOADER_LIMIT - 0x400000, 0, 0},
        {0x258, 8, 0x1000001, TN_EFORMAT, TN_LOADER_BZ_PREF},
    };

    (void)state;
    mutate(good_bz, t, COUNT(t));
}

static void bzimage_odds_and_ends(void **state)
{
    static uint8_t b[ROOM];
    struct tn_loader_plan p;

    (void)state;
    good_bz(b);
    b[0x1f1] = 0; /* 4 sectors */
    assert_int_equal(parse(b, 5 * 512 + 0x1000, &p), 0);
    assert_int_equal(p.seg[0].file_off, 5 * 512);

    good_bz(b); /* no preference */
    tn_put_(b + 0x258, 8, 0);
    assert_int_equal(parse(b, BZ_LEN, &p), 0);
    assert_int_equal(p.seg[0].gpa, 0x200000);
    assert_int_equal(p.linux64_entry, 0x200200);
    b[0x234] = 0; /* and not relocatable: its alignment means nothing */
    tn_put_(b + 0x230, 4, 7);
    assert_int_equal(parse(b, BZ_LEN, &p), 0);
    assert_int_equal(p.seg[0].gpa, 0x100000);
    assert_false(p.relocatable);
    assert_int_equal(p.align, 0);

    good_bz(b); /* init_size is never less than what is loaded */
    tn_put_(b + 0x260, 4, 0);
    assert_int_equal(parse(b, BZ_LEN, &p), 0);
    assert_int_equal(p.init_size, 0x1000);

    good_bz(b); /* below 4 GiB without XLF_CAN_BE_LOADED_ABOVE_4G */
    tn_put_(b + 0x236, 2, 1);
    tn_put_(b + 0x258, 8, 0xffe00000);
    tn_put_(b + 0x260, 4, 0x200000);
    assert_int_equal(parse(b, BZ_LEN, &p), 0);
    assert_false(p.above_4g);
    tn_put_(b + 0x260, 4, 0x200001);
    refused(b, BZ_LEN, TN_ERANGE, TN_LOADER_BZ_ADDR);
    tn_put_(b + 0x236, 2, 3);
    assert_int_equal(parse(b, BZ_LEN, &p), 0);
    assert_true(p.above_4g);

    good_bz(b); /* signed kernels have more after syssize */
    assert_int_equal(parse(b, BZ_LEN + 777, &p), 0);
    assert_int_equal(p.seg[0].file_size, 0x1000);
}

/* ---- placing ------------------------------------------------------------------------------ */

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
        cmocka_unit_test(what_is_no_kernel_is_refused),
        cmocka_unit_test(e07_a_file_cut_anywhere_is_refused),
        cmocka_unit_test(e07_a_flipped_bit_harms_nothing),
        cmocka_unit_test(elf_header_fields_are_checked),
        cmocka_unit_test(d01_offsets_beyond_the_end_are_refused),
        cmocka_unit_test(d01_the_number_of_notes_is_bounded),
        cmocka_unit_test(d02_arithmetic_of_segments_does_not_wrap),
        cmocka_unit_test(d02_arithmetic_of_a_bzimage_does_not_wrap),
        cmocka_unit_test(d03_note_sizes_near_the_end_of_32_bits),
        cmocka_unit_test(d03_a_note_that_is_not_quite_pvh),
        cmocka_unit_test(d03_notes_are_padded_to_4_whatever_p_align_says),
        cmocka_unit_test(d04_filesz_above_memsz_is_refused),
        cmocka_unit_test(d04_memsz_of_two_to_the_63_is_refused),
        cmocka_unit_test(d04_segments_that_overlap_are_refused),
        cmocka_unit_test(d04_an_entry_outside_is_refused),
        cmocka_unit_test(d04_segments_outside_of_ram_are_refused),
        cmocka_unit_test(d04_segments_over_what_is_reserved_are_refused),
        cmocka_unit_test(d04_an_initrd_keeps_clear),
        cmocka_unit_test(bzimage_header_fields_are_checked),
        cmocka_unit_test(a_void_or_forged_plan_is_not_placed),
        cmocka_unit_test(a_good_elf_becomes_a_plan),
        cmocka_unit_test(a_virtual_entry_leaves_pvh_only),
        cmocka_unit_test(segments_are_sorted_and_at_most_16),
        cmocka_unit_test(where_names_the_program_header),
        cmocka_unit_test(a_segment_without_file_bytes_has_no_offset),
        cmocka_unit_test(up_to_64_program_headers),
        cmocka_unit_test(the_last_note_may_lack_its_padding),
        cmocka_unit_test(the_first_pvh_note_counts),
        cmocka_unit_test(a_good_bzimage_becomes_a_plan),
        cmocka_unit_test(bzimage_odds_and_ends),
        cmocka_unit_test(a_bzimage_is_placed),
        cmocka_unit_test(places_agree_with_an_exhaustive_search),
    };

    return cmocka_run_group_tests_name("loader", tests, NULL, NULL);
}
