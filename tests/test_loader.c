/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_loader.h"
#include "kernel_images.h"

/* One change to a good image, and what it must lead to; detail 0: accepted all the same. */
struct mutation {
    size_t at;
    unsigned width;
    uint64_t value;
    int err;
    uint32_t detail;
};

static void mutate_for(size_t (*good)(uint8_t *), uint32_t machine, const struct mutation *m,
                       size_t n)
{
    static uint8_t b[ROOM];

    for (size_t i = 0; i < n; i++) {
        size_t len = good(b);
        struct tn_loader_plan p;

        tn_put_(b + m[i].at, m[i].width, m[i].value);
        if (m[i].detail) {
            refused_for(b, len, machine, m[i].err, m[i].detail);
        } else {
            assert_int_equal(parse_for(b, len, machine, &p), 0);
            assert_int_equal(p.detail, 0);
        }
    }
}

static void mutate(size_t (*good)(uint8_t *), const struct mutation *m, size_t n)
{
    mutate_for(good, TN_LOADER_EM_X86_64, m, n);
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
        {{0x1f, 0x8b, 8, 0}, 4, TN_EUNSUP, TN_LOADER_GZIP},
        {{0x28, 0xb5, 0x2f, 0xfd}, 4, TN_EUNSUP, TN_LOADER_ZSTD},
        {{0xfd, '7', 'z', 'X', 'Z', 0}, 6, TN_EUNSUP, TN_LOADER_XZ},
        {{'B', 'Z', 'h', '9'}, 4, TN_EUNSUP, TN_LOADER_BZIP2},
        {{0x5d, 0, 0, 0x80}, 4, TN_EUNSUP, TN_LOADER_LZMA},
        {{0x89, 'L', 'Z', 'O'}, 4, TN_EUNSUP, TN_LOADER_LZO},
        {{0x02, 0x21, 0x4c, 0x18}, 4, TN_EUNSUP, TN_LOADER_LZ4},
        {{0x04, 0x22, 0x4d, 0x18}, 4, TN_EUNSUP, TN_LOADER_LZ4},
    };
    static uint8_t b[ROOM];

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++)
        refused(t[i].bytes, t[i].len, t[i].err, t[i].detail);

    memset(b, 0, sizeof(b));
    refused(b, sizeof(b), TN_EFORMAT, TN_LOADER_UNKNOWN);
    memcpy(b + 56, "ARM\x64", 4);
    refused(b, 64, TN_EMACHINE, TN_LOADER_IS_ARM64);
    refused(b, 60, TN_EMACHINE, TN_LOADER_IS_ARM64);
    refused(b, 59, TN_EFORMAT, TN_LOADER_UNKNOWN);
    memcpy(b, "MZ", 2); /* as arm64 kernels with an EFI stub begin */
    refused(b, sizeof(b), TN_EMACHINE, TN_LOADER_IS_ARM64);
    memset(b + 56, 0, 4);
    refused(b, sizeof(b), TN_EFORMAT, TN_LOADER_UNKNOWN);
    refused(b, 0x205, TN_ETRUNC, TN_LOADER_SHORT);
}

static void a_zboot_image_is_named_by_what_packed_it(void **state)
{
    static const struct {
        char type[8];
        uint32_t detail;
    } t[] = {
        {"gzip", TN_LOADER_ZBOOT_GZIP},     {"lzma", TN_LOADER_ZBOOT_LZMA},
        {"xzkern", TN_LOADER_ZBOOT_XZ},     {"lzo", TN_LOADER_ZBOOT_LZO},
        {"lz4", TN_LOADER_ZBOOT_LZ4},       {"zstd", TN_LOADER_ZBOOT_ZSTD},
        {"zstd22", TN_LOADER_ZBOOT_ZSTD},   {"gzip9", TN_LOADER_ZBOOT_OTHER},
        {"lzmaX", TN_LOADER_ZBOOT_OTHER},   {"xz", TN_LOADER_ZBOOT_OTHER},
        {"xzkerns", TN_LOADER_ZBOOT_OTHER}, {"lz4x", TN_LOADER_ZBOOT_OTHER},
        {"", TN_LOADER_ZBOOT_OTHER},
    };
    static uint8_t b[ROOM];
    struct tn_loader_plan p;

    (void)state;
    memset(b, 0, sizeof(b));
    memcpy(b, "MZ\0\0zimg", 8);
    tn_put_(b + 8, 4, 0xfffff123);
    tn_put_(b + 56, 4, 0x818223cd); /* an EFI program for Linux */
    for (size_t i = 0; i < COUNT(t); i++) {
        memcpy(b + 24, t[i].type, 8);
        for (uint32_t m = 0; m < 2; m++) {
            assert_int_equal(parse_for(b, 64, m ? TN_LOADER_EM_AARCH64 : TN_LOADER_EM_ANY, &p),
                             TN_EUNSUP);
            assert_int_equal(p.detail, t[i].detail);
            assert_int_equal(p.where, 0xfffff123);
            is_void(&p);
        }
        refused(b, 32, TN_EUNSUP, t[i].detail);
        refused(b, 31, TN_ETRUNC, TN_LOADER_SHORT);
    }
    b[0] = 'm'; /* not an EFI program */
    refused(b, 64, TN_EFORMAT, TN_LOADER_UNKNOWN);
}

/* Each format, for each machine that may be asked for. */
static void a_kernel_for_another_machine_is_refused(void **state)
{
    static const uint32_t machine[] = {TN_LOADER_EM_X86_64, TN_LOADER_EM_AARCH64,
                                       TN_LOADER_EM_RISCV};
    static const struct {
        size_t (*good)(uint8_t *);
        uint32_t elf; /* e_machine, if it is one */
        uint32_t is;
        uint32_t detail;
    } t[] = {
        {good_elf, 62, TN_LOADER_EM_X86_64, TN_LOADER_ELF_MACHINE},
        {good_elf, 183, TN_LOADER_EM_AARCH64, TN_LOADER_ELF_MACHINE},
        {good_elf, 243, TN_LOADER_EM_RISCV, TN_LOADER_ELF_MACHINE},
        {good_elf, 40, 40, TN_LOADER_ELF_MACHINE}, /* EM_ARM: unknown whatever is asked for */
        {good_bz, 0, TN_LOADER_EM_X86_64, TN_LOADER_IS_BZIMAGE},
        {good_arm64, 0, TN_LOADER_EM_AARCH64, TN_LOADER_IS_ARM64},
        {good_riscv, 0, TN_LOADER_EM_RISCV, TN_LOADER_IS_RISCV},
    };
    static uint8_t b[ROOM];
    struct tn_loader_plan p;

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++) {
        size_t len = t[i].good(b);

        if (t[i].elf)
            tn_put_(b + E_MACHINE, 2, t[i].elf);
        for (size_t m = 0; m < COUNT(machine); m++) {
            if (machine[m] != t[i].is) {
                refused_for(b, len, machine[m], TN_EMACHINE, t[i].detail);
                continue;
            }
            assert_int_equal(parse_for(b, len, machine[m], &p), 0);
            assert_int_equal(p.machine, t[i].is);
            assert_int_equal(parse_for(b, len, TN_LOADER_EM_ANY, &p), 0);
            assert_int_equal(p.machine, t[i].is);
            assert_int_equal(p.has_fdt, p.machine != TN_LOADER_EM_X86_64);
        }
        refused_for(b, len, 40, TN_EINVAL, TN_LOADER_UNKNOWN); /* no such machine here */
        refused_for(b, len, UINT32_MAX, TN_EINVAL, TN_LOADER_UNKNOWN);
    }
    good_elf(b);
    tn_put_(b + E_MACHINE, 2, 40);
    refused_for(b, ELF_LEN, TN_LOADER_EM_ANY, TN_EMACHINE, TN_LOADER_ELF_MACHINE);
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
    for (unsigned k = 0; k < 2; k++) {
        len = k ? good_riscv(b) : good_arm64(b);
        for (size_t n = 0; n < 64; n++)
            refused_for(b, n, TN_LOADER_EM_ANY, TN_ETRUNC,
                        n == 0   ? TN_LOADER_EMPTY
                        : n < 60 ? TN_LOADER_SHORT
                                 : TN_LOADER_IMAGE_TRUNC);
    }
    len = old_bz(b, 0x200, 0x224);
    for (size_t n = 0x206; n < 0x400; n++)
        refused(b, n, TN_ETRUNC, TN_LOADER_BZ_TRUNC);
    len = good_bz(b);
    memcpy(b, "MZ", 2);
    for (size_t n = len - 15; n < len; n++) { /* syssize is in paragraphs: this may be all */
        assert_int_equal(parse(b, n, &p), 0);
        assert_int_equal(p.seg[0].mem_size, 0x1000);
        assert_int_equal(p.seg[0].file_size, n - 0x400);
    }
    for (size_t n = 0; n < len - 15; n++)
        refused(b, n, TN_ETRUNC,
                n == 0      ? TN_LOADER_EMPTY
                : n < 0x206 ? TN_LOADER_SHORT
                : n < 0x400 ? TN_LOADER_BZ_TRUNC
                            : TN_LOADER_BZ_PAYLOAD);
}

static void e07_a_flipped_bit_harms_nothing(void **state)
{
    static uint8_t b[ROOM];
    size_t (*const good[])(uint8_t *) = {good_elf, good_bz, good_arm64, good_riscv};
    const struct tn_loader_range ram = {0, 1ull << 32};

    (void)state;
    for (unsigned k = 0; k < COUNT(good); k++) {
        size_t len = good[k](b);

        for (size_t bit = 0; bit < (k < 2 ? 0x900 : 64) * 8u; bit++) {
            struct tn_loader_plan p;

            b[bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (parse_for(b, len, TN_LOADER_EM_ANY, &p) < 0) {
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
    assert_int_equal(p.machine, TN_LOADER_EM_X86_64);
    assert_true(p.has_linux64 && p.has_pvh);
    assert_false(p.has_linux32 || p.has_fdt);
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

static void elf_of_other_machines_is_entered_with_a_device_tree(void **state)
{
    static const struct {
        uint32_t machine, cmdline;
    } t[] = {{TN_LOADER_EM_AARCH64, 2047}, {TN_LOADER_EM_RISCV, 1023}};
    static uint8_t b[ROOM];
    struct tn_loader_plan p;

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++) {
        size_t len = good_elf(b);

        tn_put_(b + E_MACHINE, 2, t[i].machine);
        tn_put_(b + NOTES, 4, UINT32_MAX); /* notes are x86's: never looked at */
        assert_int_equal(parse_for(b, len, t[i].machine, &p), 0);
        assert_int_equal(p.format, TN_LOADER_ELF64);
        assert_true(p.has_fdt);
        assert_false(p.has_linux64 || p.has_linux32 || p.has_pvh || p.relocatable);
        assert_int_equal(p.fdt_entry, 0x100000);
        assert_int_equal(p.linux64_entry | p.pvh_entry, 0);
        assert_int_equal(p.nsegs, 2);
        assert_int_equal(p.init_size, 0x102000);
        assert_int_equal(p.initrd_max, TN_LOADER_LIMIT - 1);
        assert_int_equal(p.cmdline_max, t[i].cmdline);
        tn_put_(b + E_ENTRY, 8, 0xffffffff80100000);
        refused_for(b, len, t[i].machine, TN_EENTRY, TN_LOADER_ENTRY_VIRTUAL);
        tn_put_(b + PH(2) + P_PADDR, 8, 0xffffffff80100000); /* as a Linux's vmlinux */
        refused_for(b, len, t[i].machine, TN_ERANGE, TN_LOADER_SEG_ADDR);
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
    assert_int_equal(p.machine, TN_LOADER_EM_X86_64);
    assert_true(p.has_linux64 && p.has_linux32);
    assert_false(p.has_pvh || p.has_fdt);
    assert_int_equal(p.linux64_entry, 0x1000200);
    assert_int_equal(p.linux32_entry, 0x1000000);
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
        {0x206, 2, 0x0200, 0, 0},
        {0x206, 2, 0x0209, 0, 0},
        {0x206, 2, 0x01ff, TN_EUNSUP, TN_LOADER_BZ_VERSION},
        {0x206, 2, 0x0105, TN_EUNSUP, TN_LOADER_BZ_VERSION},
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
        {0x236, 2, 0x00, 0, 0}, /* not 64-bit */
        {0x236, 2, 0xfe, 0, 0},
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
        {0x1f4, 4, 0x100, 0, 0},
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

    good_bz(b); /* the entry's byte is to be there */
    tn_put_(b + 0x1f4, 4, 0x21);
    refused(b, 0x400 + 0x200, TN_ETRUNC, TN_LOADER_BZ_PAYLOAD);
    assert_int_equal(parse(b, 0x400 + 0x201, &p), 0);
    assert_int_equal(p.seg[0].file_size, 0x201);

    good_bz(b); /* signed kernels have more after syssize */
    assert_int_equal(parse(b, BZ_LEN + 777, &p), 0);
    assert_int_equal(p.seg[0].file_size, 0x1000);
}

/* Fields that a protocol lacks hold 0xcc, and what stands for them is boot.rst's. */
static void each_protocol_has_its_own_defaults(void **state)
{
    static const struct {
        uint16_t version;
        uint16_t end; /* of the header */
    } t[] = {
        {0x200, 0x224}, {0x201, 0x226}, {0x202, 0x22c}, {0x203, 0x230}, {0x204, 0x230},
        {0x205, 0x235}, {0x206, 0x23c}, {0x207, 0x248}, {0x208, 0x250}, {0x209, 0x258},
        {0x20a, 0x264}, {0x20b, 0x268}, {0x20c, 0x268}, {0x20f, 0x26c},
    };
    static uint8_t b[ROOM];
    struct tn_loader_plan p;

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++) {
        uint16_t v = t[i].version;
        size_t len = old_bz(b, v, t[i].end);
        bool moves = v >= 0x205;

        if (v < 0x204)
            tn_put_(b + 0x1f4, 4, 0xffff0001); /* not to be trusted */
        if (v < 0x20a)
            b[0x235] = 0xcc; /* min_alignment */
        if (v < 0x20c)
            tn_put_(b + 0x236, 2, 0xffff); /* xloadflags */
        assert_int_equal(parse(b, len, &p), 0);
        assert_int_equal(p.format, TN_LOADER_BZIMAGE);
        assert_int_equal(p.boot_version, v);
        assert_int_equal(p.setup_off, 0x1f1);
        assert_int_equal(p.setup_len, t[i].end - 0x1f1);
        assert_int_equal(p.seg[0].file_off, 0x400);
        assert_int_equal(p.seg[0].file_size, 0x1000);
        assert_true(p.has_linux32);
        assert_int_equal(p.has_linux64, v >= 0x20c);
        assert_int_equal(p.above_4g, v >= 0x20c);
        assert_int_equal(p.relocatable, moves);
        assert_int_equal(p.align, moves ? 0x200000 : 0);
        assert_int_equal(p.seg[0].gpa, v >= 0x20a ? 0x1000000 : moves ? 0x200000 : 0x100000);
        assert_int_equal(p.linux32_entry, p.seg[0].gpa);
        assert_int_equal(p.linux64_entry, v >= 0x20c ? 0x1000200 : 0);
        assert_int_equal(p.init_size, v >= 0x20a ? 0x300000 : TN_LOADER_BZ_ROOM(0x1000));
        assert_int_equal(p.initrd_max, v >= 0x203 ? 0x7fffffff : 0x37ffffff);
        assert_int_equal(p.cmdline_max, v >= 0x206 ? 2047 : 255);

        b[0x201]--; /* a header that is shorter than its protocol */
        if (v <= 0x20a)
            refused(b, len, TN_EFORMAT, TN_LOADER_BZ_JUMP);
        b[0x201]++;
        tn_put_(b + 0x1f4, 4, 0x101);
        if (v < 0x204)
            assert_int_equal(parse(b, len, &p), 0);
        else
            refused(b, len, TN_ETRUNC, TN_LOADER_BZ_PAYLOAD);
        if (v < 0x204) {
            refused(b, 0x400, TN_EENTRY, TN_LOADER_BZ_ENTRY); /* nothing follows */
            assert_int_equal(parse(b, 0x401, &p), 0);
            assert_int_equal(p.seg[0].file_size, 1);
        }
        b[0x211] = 0;
        refused(b, len, TN_EUNSUP, TN_LOADER_BZ_LOW);
    }
}

static void an_old_bzimage_goes_to_code32_start(void **state)
{
    static const struct {
        uint32_t code32;
        uint64_t gpa; /* 0: refused */
    } t[] = {
        {0, 0x100000},
        {0x1000, 0x100000},
        {0x100000, 0x100000},
        {0x100001, 0x100001},
        {0x1000000, 0x1000000},
        {0xff000000, 0xff000000},
        {0xffbf8000, 0xffbf8000},
        {0xffbf8001, 0},
        {0xffffffff, 0},
    };
    static uint8_t b[ROOM];
    struct tn_loader_plan p;

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++) {
        size_t len = old_bz(b, 0x204, 0x230);

        tn_put_(b + 0x214, 4, t[i].code32);
        if (t[i].gpa == 0) {
            refused(b, len, TN_ERANGE, TN_LOADER_BZ_ADDR);
            continue;
        }
        assert_int_equal(parse(b, len, &p), 0);
        assert_int_equal(p.seg[0].gpa, t[i].gpa);
        assert_int_equal(p.linux32_entry, t[i].gpa);
    }
    old_bz(b, 0x205, 0x235); /* aligned, if it is relocatable */
    tn_put_(b + 0x214, 4, 0x200001);
    assert_int_equal(parse(b, BZ_LEN, &p), 0);
    assert_int_equal(p.seg[0].gpa, 0x400000);
    tn_put_(b + 0x230, 4, 3);
    refused(b, BZ_LEN, TN_EFORMAT, TN_LOADER_BZ_ALIGN);
    b[0x234] = 0;
    assert_int_equal(parse(b, BZ_LEN, &p), 0);
    assert_int_equal(p.seg[0].gpa, 0x200001);
}

static void linux32_ends_below_4_gib(void **state)
{
    static uint8_t b[ROOM];
    struct tn_loader_plan p;

    (void)state;
    good_bz(b);
    tn_put_(b + 0x258, 8, 0xffe00000);
    tn_put_(b + 0x260, 4, 0x200000);
    assert_int_equal(parse(b, BZ_LEN, &p), 0);
    assert_true(p.has_linux64 && p.has_linux32);
    tn_put_(b + 0x260, 4, 0x200001);
    assert_int_equal(parse(b, BZ_LEN, &p), 0);
    assert_true(p.has_linux64);
    assert_false(p.has_linux32);
    assert_int_equal(p.linux32_entry, 0);
    tn_put_(b + 0x236, 2, 0xfe); /* not 64-bit: nothing is left */
    refused(b, BZ_LEN, TN_ERANGE, TN_LOADER_BZ_ADDR);

    good_bz(b); /* without a 64-bit entry, 0x200 bytes and fewer will do */
    tn_put_(b + 0x236, 2, 0);
    tn_put_(b + 0x1f4, 4, 1);
    assert_int_equal(parse(b, BZ_LEN, &p), 0);
    assert_int_equal(p.seg[0].file_size, 16);
    assert_false(p.has_linux64 || p.above_4g);
    assert_int_equal(p.linux64_entry, 0);
    tn_put_(b + 0x1f4, 4, 0);
    refused(b, BZ_LEN, TN_EENTRY, TN_LOADER_BZ_ENTRY);
}

/* ---- Image -------------------------------------------------------------------------------- */

static void a_good_image_becomes_a_plan(void **state)
{
    static uint8_t b[ROOM];
    struct tn_loader_plan p;

    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        size_t len = k ? good_riscv(b) : good_arm64(b);
        uint64_t at = k ? 0x200000 : 0;

        assert_int_equal(parse_for(b, len, TN_LOADER_EM_ANY, &p), 0);
        assert_int_equal(p.format, TN_LOADER_IMAGE);
        assert_int_equal(p.machine, k ? TN_LOADER_EM_RISCV : TN_LOADER_EM_AARCH64);
        assert_int_equal(p.nsegs, 1);
        assert_int_equal(p.seg[0].gpa, at);
        assert_int_equal(p.seg[0].mem_size, IMAGE_LEN);
        assert_int_equal(p.seg[0].file_off, 0);
        assert_int_equal(p.seg[0].file_size, IMAGE_LEN);
        assert_true(p.has_fdt && p.relocatable && p.above_4g);
        assert_false(p.has_linux64 || p.has_linux32 || p.has_pvh);
        assert_int_equal(p.fdt_entry, at);
        assert_int_equal(p.align, 0x200000);
        assert_int_equal(p.offset, at);
        assert_int_equal(p.init_size, 0x300000);
        assert_int_equal(p.initrd_max, k ? TN_LOADER_LIMIT - 1 : 0x7ffffffffull);
        assert_int_equal(p.cmdline_max, k ? 1023 : 2047);
        assert_int_equal(p.setup_off | p.setup_len | p.boot_version, 0);
    }
}

static void d06_arm64_image_fields_are_checked(void **state)
{
    static const struct mutation t[] = {
        {56, 4, 0x654d5241, TN_EFORMAT, TN_LOADER_UNKNOWN}, /* wrong magic */
        {56, 4, 0x644d5200, TN_EFORMAT, TN_LOADER_UNKNOWN},
        {24, 8, 0xb, TN_EMACHINE, TN_LOADER_IMAGE_BIG_ENDIAN},
        {24, 8, UINT64_MAX - 1, 0, 0}, /* bits that say nothing yet */
        {8, 8, UINT64_MAX, TN_ERANGE, TN_LOADER_IMAGE_ADDR},
        {8, 8, 0 - 0x300000ull, TN_ERANGE, TN_LOADER_IMAGE_ADDR}, /* its end wraps */
        {8, 8, TN_LOADER_LIMIT, TN_ERANGE, TN_LOADER_IMAGE_ADDR},
        {8, 8, TN_LOADER_LIMIT - 0x2fffff, TN_ERANGE, TN_LOADER_IMAGE_ADDR},
        {8, 8, TN_LOADER_LIMIT - 0x300000, 0, 0},
        {8, 8, 0x12345, 0, 0},
        {16, 8, 1ull << 63, TN_ERANGE, TN_LOADER_IMAGE_ADDR},
        {16, 8, UINT64_MAX, TN_ERANGE, TN_LOADER_IMAGE_ADDR},
        {16, 8, TN_LOADER_LIMIT + 1, TN_ERANGE, TN_LOADER_IMAGE_ADDR},
        {16, 8, TN_LOADER_LIMIT, 0, 0},
        {16, 8, 1, 0, 0},
    };

    (void)state;
    mutate_for(good_arm64, TN_LOADER_EM_AARCH64, t, COUNT(t));
}

static void d06_riscv_image_fields_are_checked(void **state)
{
    static const struct mutation t[] = {
        {56, 4, 0x04435352, TN_EFORMAT, TN_LOADER_UNKNOWN},
        {48, 8, 0, 0, 0}, /* the first magic is deprecated */
        {24, 8, 1, TN_EMACHINE, TN_LOADER_IMAGE_BIG_ENDIAN},
        {32, 4, 0, TN_EUNSUP, TN_LOADER_IMAGE_VERSION},
        {32, 4, 1, TN_EUNSUP, TN_LOADER_IMAGE_VERSION},
        {32, 4, 3, 0, 0},
        {32, 4, 0x10000, TN_EUNSUP, TN_LOADER_IMAGE_VERSION},
        {32, 4, 0x10002, TN_EUNSUP, TN_LOADER_IMAGE_VERSION},
        {16, 8, 0, TN_EFORMAT, TN_LOADER_IMAGE_SIZE},
        {16, 8, 1ull << 63, TN_ERANGE, TN_LOADER_IMAGE_ADDR},
        {8, 8, 0x201000, TN_EFORMAT, TN_LOADER_IMAGE_ALIGN},
        {8, 8, 0, 0, 0},
        {8, 8, 0 - 0x200000ull, TN_ERANGE, TN_LOADER_IMAGE_ADDR},
    };

    (void)state;
    mutate_for(good_riscv, TN_LOADER_EM_RISCV, t, COUNT(t));
}

static void d06_an_old_arm64_image_has_no_size(void **state)
{
    static uint8_t b[ROOM];
    struct tn_loader_plan p;

    (void)state;
    good_arm64(b);
    tn_put_(b + 16, 8, 0);
    tn_put_(b + 8, 8, 0x0000080000000000); /* 0x80000, but big-endian */
    assert_int_equal(parse_for(b, IMAGE_LEN, TN_LOADER_EM_AARCH64, &p), 0);
    assert_int_equal(p.offset, 0x80000);
    assert_int_equal(p.seg[0].gpa, 0x80000);
    assert_int_equal(p.fdt_entry, 0x80000);
    assert_int_equal(p.init_size, IMAGE_LEN + TN_LOADER_IMAGE_ROOM);

    good_arm64(b); /* image_size is never less than what is loaded */
    tn_put_(b + 16, 8, 1);
    assert_int_equal(parse_for(b, IMAGE_LEN, TN_LOADER_EM_AARCH64, &p), 0);
    assert_int_equal(p.init_size, IMAGE_LEN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_kernel_is_refused),
        cmocka_unit_test(a_zboot_image_is_named_by_what_packed_it),
        cmocka_unit_test(a_kernel_for_another_machine_is_refused),
        cmocka_unit_test(e07_a_file_cut_anywhere_is_refused),
        cmocka_unit_test(e07_a_flipped_bit_harms_nothing),
        cmocka_unit_test(a_good_elf_becomes_a_plan),
        cmocka_unit_test(elf_header_fields_are_checked),
        cmocka_unit_test(d01_offsets_beyond_the_end_are_refused),
        cmocka_unit_test(d02_arithmetic_of_segments_does_not_wrap),
        cmocka_unit_test(d04_filesz_above_memsz_is_refused),
        cmocka_unit_test(d04_memsz_of_two_to_the_63_is_refused),
        cmocka_unit_test(d04_segments_that_overlap_are_refused),
        cmocka_unit_test(d04_an_entry_outside_is_refused),
        cmocka_unit_test(a_virtual_entry_leaves_pvh_only),
        cmocka_unit_test(elf_of_other_machines_is_entered_with_a_device_tree),
        cmocka_unit_test(segments_are_sorted_and_at_most_16),
        cmocka_unit_test(where_names_the_program_header),
        cmocka_unit_test(a_segment_without_file_bytes_has_no_offset),
        cmocka_unit_test(up_to_64_program_headers),
        cmocka_unit_test(d03_note_sizes_near_the_end_of_32_bits),
        cmocka_unit_test(d03_a_note_that_is_not_quite_pvh),
        cmocka_unit_test(d03_notes_are_padded_to_4_whatever_p_align_says),
        cmocka_unit_test(the_last_note_may_lack_its_padding),
        cmocka_unit_test(the_first_pvh_note_counts),
        cmocka_unit_test(d01_the_number_of_notes_is_bounded),
        cmocka_unit_test(a_good_bzimage_becomes_a_plan),
        cmocka_unit_test(bzimage_header_fields_are_checked),
        cmocka_unit_test(d02_arithmetic_of_a_bzimage_does_not_wrap),
        cmocka_unit_test(bzimage_odds_and_ends),
        cmocka_unit_test(each_protocol_has_its_own_defaults),
        cmocka_unit_test(an_old_bzimage_goes_to_code32_start),
        cmocka_unit_test(linux32_ends_below_4_gib),
        cmocka_unit_test(a_good_image_becomes_a_plan),
        cmocka_unit_test(d06_arm64_image_fields_are_checked),
        cmocka_unit_test(d06_riscv_image_fields_are_checked),
        cmocka_unit_test(d06_an_old_arm64_image_has_no_size),
    };

    return cmocka_run_group_tests_name("loader", tests, NULL, NULL);
}
