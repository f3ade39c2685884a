/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the harnesses of tn_loader and tn_loader_plan share: the ranges to place a kernel in, read
 * from the script, and the properties that every plan must have.
 */
#ifndef TENON_FUZZ_LOADER_H
#define TENON_FUZZ_LOADER_H

#include "tn_loader.h"
#include "fuzz.h"

typedef unsigned __int128 wide; /* sums of two addresses do not wrap in it */

struct ranges {
    struct tn_loader_range ram[3], res[4];
    uint32_t nram, nres;
    uint64_t initrd; /* its size */
};

/* Mostly a number of pages, sometimes anything. */
static uint64_t loader_number(struct fz *z)
{
    uint8_t how = fz_u8(z);

    return how < 0xe0 ? (uint64_t)fz_u16(z) << 12 : how < 0xf0 ? fz_u32(z) : fz_u64(z);
}

/* None in the script: 4 GiB of RAM, nothing reserved. */
static void loader_ranges(struct fz *z, struct ranges *r)
{
    memset(r, 0, sizeof(*r));
    r->nram = fz_u8(z) % 4;
    r->nres = fz_u8(z) % 5;
    for (uint32_t i = 0; i < r->nram; i++) {
        r->ram[i].gpa = loader_number(z);
        r->ram[i].size = loader_number(z);
    }
    for (uint32_t i = 0; i < r->nres; i++) {
        r->res[i].gpa = loader_number(z);
        r->res[i].size = loader_number(z);
    }
    r->initrd = loader_number(z);
    if (r->nram == 0) {
        r->nram = 1;
        r->ram[0].size = 1ull << 32;
    }
}

/* Overwrites up to 8 numbers in the first `room` bytes. */
static void loader_corrupt(struct fz *z, uint8_t *image, uint64_t room)
{
    for (uint8_t n = fz_u8(z) % 9; n > 0; n--) {
        uint64_t at = fz_range(z, 0, room - 8);
        uint8_t how = fz_u8(z);

        tn_put_(image + at, 1u << how % 4, how < 0x80 ? fz_u64(z) : 0 - (uint64_t)fz_u8(z));
    }
}

static int loader_loaded(const struct tn_loader_plan *p, uint64_t at)
{
    for (uint32_t i = 0; i < p->nsegs; i++) {
        if (at >= p->seg[i].gpa && at < p->seg[i].gpa + p->seg[i].file_size)
            return 1;
    }
    return 0;
}

static void loader_plan(const struct tn_loader_plan *p, size_t len)
{
    FZ_ASSERT(p->detail == TN_LOADER_NONE && p->where == 0);
    FZ_ASSERT(p->nsegs > 0 && p->nsegs <= TN_LOADER_MAX_SEGS);
    for (uint32_t i = 0; i < p->nsegs; i++) {
        const struct tn_loader_seg *s = &p->seg[i];

        FZ_ASSERT(s->mem_size > 0 && s->file_size <= s->mem_size);
        FZ_ASSERT((wide)s->file_off + s->file_size <= len);
        FZ_ASSERT((wide)s->gpa + s->mem_size <= TN_LOADER_LIMIT);
        FZ_ASSERT(i == 0 || (wide)s[-1].gpa + s[-1].mem_size <= s->gpa);
        FZ_ASSERT((wide)s->gpa + s->mem_size <= (wide)p->seg[0].gpa + p->init_size);
    }
    FZ_ASSERT(p->has_linux64 || p->has_linux32 || p->has_pvh || p->has_fdt);
    FZ_ASSERT(p->has_fdt == (p->machine != TN_LOADER_EM_X86_64));
    FZ_ASSERT(!p->has_fdt || !(p->has_linux64 || p->has_linux32 || p->has_pvh));
    FZ_ASSERT(p->has_fdt ? loader_loaded(p, p->fdt_entry) : p->fdt_entry == 0);
    FZ_ASSERT(p->has_linux32 ? loader_loaded(p, p->linux32_entry) : p->linux32_entry == 0);
    FZ_ASSERT(!p->has_linux32 || (wide)p->seg[0].gpa + p->init_size <= 1ull << 32);
    FZ_ASSERT(p->has_linux64 ? loader_loaded(p, p->linux64_entry) : p->linux64_entry == 0);
    FZ_ASSERT(p->has_pvh ? loader_loaded(p, p->pvh_entry) : p->pvh_entry == 0);
    FZ_ASSERT(p->pvh_entry <= UINT32_MAX);
    FZ_ASSERT((wide)p->seg[0].gpa + p->init_size <= TN_LOADER_LIMIT);
    FZ_ASSERT(p->relocatable == (p->align != 0) && (p->align & (p->align - 1)) == 0);
    FZ_ASSERT(!p->relocatable ||
              (p->offset <= p->seg[0].gpa && (p->seg[0].gpa - p->offset) % p->align == 0));
    if (p->format == TN_LOADER_BZIMAGE) {
        FZ_ASSERT(p->machine == TN_LOADER_EM_X86_64 && p->nsegs == 1 && p->offset == 0);
        FZ_ASSERT(!p->has_linux64 || p->linux64_entry == p->seg[0].gpa + 0x200);
        FZ_ASSERT(!p->has_linux32 || p->linux32_entry == p->seg[0].gpa);
        FZ_ASSERT(p->setup_off == 0x1f1 && p->setup_len >= 51 && p->setup_len <= 144);
        FZ_ASSERT(p->setup_off + p->setup_len <= len && p->boot_version >= 0x0200);
        FZ_ASSERT(!p->has_linux64 || p->boot_version >= 0x020c);
        FZ_ASSERT(p->above_4g || p->has_linux32);
    } else if (p->format == TN_LOADER_IMAGE) {
        FZ_ASSERT(p->has_fdt && p->nsegs == 1 && p->fdt_entry == p->seg[0].gpa);
        FZ_ASSERT(p->align == 0x200000 && p->above_4g && p->setup_len == 0);
        FZ_ASSERT(p->seg[0].file_off == 0 && p->seg[0].file_size == len);
    } else {
        FZ_ASSERT(p->format == TN_LOADER_ELF64 && !p->relocatable && p->setup_len == 0);
        FZ_ASSERT(!p->has_linux32);
    }
}

/* The size bytes at gpa lie in one RAM range, and on nothing reserved. */
static void loader_placed(const struct ranges *r, uint64_t gpa, uint64_t size)
{
    int in = 0;

    for (uint32_t i = 0; i < r->nram; i++)
        in |= r->ram[i].gpa <= gpa && (wide)gpa + size <= (wide)r->ram[i].gpa + r->ram[i].size;
    FZ_ASSERT(in);
    for (uint32_t i = 0; i < r->nres; i++) {
        FZ_ASSERT(r->res[i].size == 0 || (wide)gpa + size <= r->res[i].gpa ||
                  (wide)r->res[i].gpa + r->res[i].size <= gpa);
    }
}

/* The machine that is asked for decides between the same plan and TN_EMACHINE, nothing else. */
static void loader_machines(const uint8_t *image, size_t len, const struct tn_loader_plan *any)
{
    static const uint32_t machine[] = {TN_LOADER_EM_X86_64, TN_LOADER_EM_AARCH64,
                                       TN_LOADER_EM_RISCV};
    struct tn_loader_plan p;

    for (unsigned i = 0; i < 3; i++) {
        int err = tn_loader_parse_for(image, len, machine[i], &p);

        if (any->nsegs > 0 && any->machine == machine[i]) {
            FZ_ASSERT(err == 0 && p.nsegs == any->nsegs && p.init_size == any->init_size);
            FZ_ASSERT(memcmp(p.seg, any->seg, sizeof(p.seg)) == 0 && p.machine == machine[i]);
        } else {
            FZ_ASSERT(any->nsegs > 0 ? err == TN_EMACHINE : err < 0);
            FZ_ASSERT(p.nsegs == 0 && p.detail != 0 && err == tn_loader_err_(p.detail));
        }
    }
}

/* Parses and places the len bytes of image, from a copy of exactly that size. */
static void loader_properties(const uint8_t *bytes, size_t len, const struct ranges *r)
{
    uint8_t *image = malloc(len ? len : 1);
    struct tn_loader_plan p, before;
    uint64_t gpa;
    int err;

    if (!image)
        abort();
    if (len)
        memcpy(image, bytes, len);
    err = tn_loader_parse_for(image, len, TN_LOADER_EM_ANY, &p);
    loader_machines(image, len, &p);
    free(image);
    if (err) {
        FZ_ASSERT(err < 0 && p.nsegs == 0 && p.detail != 0 && err == tn_loader_err_(p.detail));
        return;
    }
    loader_plan(&p, len);
    before = p;
    err = tn_loader_place(&p, r->ram, r->nram, r->res, r->nres);
    if (err) {
        FZ_ASSERT(err == TN_ENOFIT || err == TN_EOVERLAP);
        FZ_ASSERT(p.nsegs == 0 && err == tn_loader_err_(p.detail));
        return;
    }
    loader_plan(&p, len);
    FZ_ASSERT(p.seg[0].gpa >= before.seg[0].gpa);
    FZ_ASSERT(p.relocatable || p.seg[0].gpa == before.seg[0].gpa);
    for (uint32_t i = 0; i < p.nsegs; i++)
        loader_placed(r, p.seg[i].gpa,
                      p.format != TN_LOADER_ELF64 ? p.init_size : p.seg[i].mem_size);
    err = tn_loader_place_initrd(&p, r->initrd, r->ram, r->nram, r->res, r->nres, &gpa);
    if (err) {
        FZ_ASSERT(gpa == 0 && err == (r->initrd ? TN_ENOFIT : TN_EINVAL));
        return;
    }
    FZ_ASSERT(gpa % TN_LOADER_PAGE == 0 && (wide)gpa + r->initrd <= (wide)p.initrd_max + 1);
    FZ_ASSERT((wide)gpa + r->initrd <= p.seg[0].gpa || gpa >= p.seg[0].gpa + p.init_size);
    loader_placed(r, gpa, r->initrd);
}

#endif
