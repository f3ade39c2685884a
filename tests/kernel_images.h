/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the tests of tn_loader and tn_loader_plan share: good images of each format, to be changed,
 * and the parse of one from a buffer of exactly its size.
 */
#ifndef TENON_KERNEL_IMAGES_H
#define TENON_KERNEL_IMAGES_H

#include "tn_loader.h"
#include "test.h"

enum { ELF_LEN = 0x1800, BZ_LEN = 0x400 + 0x1000, IMAGE_LEN = 0x1000, ROOM = 0x10000 };

/* Where things are in good_elf: program header n, and the first byte of its notes. */
#define PH(n) (64 + 56 * (n))
enum { P_TYPE = 0, P_OFFSET = 8, P_VADDR = 16, P_PADDR = 24, P_FILESZ = 32, P_MEMSZ = 40 };
enum { E_CLASS = 4, E_DATA = 5, E_VERSION = 6, E_TYPE = 16, E_MACHINE = 18, E_ENTRY = 24 };
enum { E_PHOFF = 32, E_PHENTSIZE = 54, E_PHNUM = 56, NOTES = 0x800 };

static inline void phdr(uint8_t *at, uint32_t type, uint64_t off, uint64_t paddr, uint64_t filesz,
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

static inline size_t note(uint8_t *at, uint32_t namesz, const char *name, uint32_t type,
                          uint32_t descsz, uint64_t desc)
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
static inline size_t good_elf(uint8_t *b)
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

static inline size_t good_bz(uint8_t *b)
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

/* The setup header of an older protocol: the fields that it lacks hold what must not be read. */
static inline size_t old_bz(uint8_t *b, uint16_t version, uint32_t end)
{
    good_bz(b);
    memset(b + end, 0xcc, 0x400 - end);
    b[0x201] = (uint8_t)(end - 0x202);
    tn_put_(b + 0x206, 2, version);
    tn_put_(b + 0x214, 4, 0x100000); /* code32_start */
    return BZ_LEN;
}

/* An Image of arm64, to be anywhere in RAM. */
static inline size_t good_arm64(uint8_t *b)
{
    memset(b, 0, ROOM);
    memcpy(b, "MZ", 2);
    tn_put_(b + 16, 8, 0x300000); /* image_size */
    tn_put_(b + 24, 8, 0xa);      /* flags: pages of 4 KiB, anywhere */
    memcpy(b + 56, "ARM\x64", 4);
    return IMAGE_LEN;
}

static inline size_t good_riscv(uint8_t *b)
{
    memset(b, 0, ROOM);
    memcpy(b, "MZ", 2);
    tn_put_(b + 8, 8, 0x200000);  /* text_offset */
    tn_put_(b + 16, 8, 0x300000); /* image_size */
    tn_put_(b + 32, 4, 2);        /* version 0.2 */
    memcpy(b + 48, "RISCV", 5);
    memcpy(b + 56, "RSC\x05", 4);
    return IMAGE_LEN;
}

static inline void is_void(const struct tn_loader_plan *p)
{
    assert_int_equal(p->format | p->machine, 0);
    assert_int_equal(p->nsegs, 0);
    for (unsigned i = 0; i < TN_LOADER_MAX_SEGS; i++) {
        assert_int_equal(p->seg[i].gpa, 0);
        assert_int_equal(p->seg[i].mem_size, 0);
        assert_int_equal(p->seg[i].file_off, 0);
        assert_int_equal(p->seg[i].file_size, 0);
    }
    assert_false(p->has_linux64 || p->has_linux32 || p->has_pvh || p->has_fdt);
    assert_false(p->relocatable || p->above_4g);
    assert_int_equal(p->linux64_entry | p->linux32_entry | p->pvh_entry | p->fdt_entry, 0);
    assert_int_equal(p->align | p->offset | p->init_size, 0);
    assert_int_equal(p->setup_off | p->setup_len | p->boot_version, 0);
    assert_int_equal(p->initrd_max | p->cmdline_max, 0);
}

static inline int parse_for(const uint8_t *b, size_t len, uint32_t machine,
                            struct tn_loader_plan *p)
{
    uint8_t *exact = test_exact(b, len);
    int err;

    memset(p, 0xa5, sizeof(*p));
    err = machine == TN_LOADER_EM_X86_64 ? tn_loader_parse(exact, len, p)
                                         : tn_loader_parse_for(exact, len, machine, p);
    free(exact);
    return err;
}

static inline int parse(const uint8_t *b, size_t len, struct tn_loader_plan *p)
{
    return parse_for(b, len, TN_LOADER_EM_X86_64, p);
}

static inline void refused_for(const uint8_t *b, size_t len, uint32_t machine, int err,
                               uint32_t detail)
{
    struct tn_loader_plan p;

    assert_int_equal(parse_for(b, len, machine, &p), err);
    assert_int_equal(p.detail, detail);
    is_void(&p);
}

static inline void refused(const uint8_t *b, size_t len, int err, uint32_t detail)
{
    refused_for(b, len, TN_LOADER_EM_X86_64, err, detail);
}

#endif
