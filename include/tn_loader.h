/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_loader - a kernel image's bytes to a load plan: what goes where, and where it starts.
 *
 * WHAT
 *   Parses an ELF64 kernel (with its PVH note) or a Linux bzImage and says which bytes of the file
 *   belong at which guest address, which boot protocols the image offers, and what room it needs.
 *   Places the plan and an initrd in RAM, clear of what is reserved. Copies nothing.
 *
 * USAGE
 *   static uint8_t image[1u << 20]; // the file's bytes
 *   static const struct tn_loader_range ram[] = {{0, 0xa0000}, {0x100000, 0x7f00000}};
 *   static const struct tn_loader_range reserved[] = {{0, 0x10000}};
 *   struct tn_loader_plan plan;
 *   uint64_t initrd;
 *
 *   if (tn_loader_parse(image, sizeof(image), &plan) < 0 ||
 *       tn_loader_place(&plan, ram, 2, reserved, 1) < 0)
 *       return (int)plan.detail; // which check refused it
 *   if (tn_loader_place_initrd(&plan, 0x400000, ram, 2, reserved, 1, &initrd) < 0)
 *       return -1;
 *   for (uint32_t i = 0; i < plan.nsegs; i++) {
 *       // copy plan.seg[i].file_size bytes from image + plan.seg[i].file_off to plan.seg[i].gpa,
 *       // and make the bytes from there to plan.seg[i].mem_size zero
 *   }
 *
 * COMPOSITION
 *   tn_boot_x86 applies a plan to guest memory and writes the tables that its protocol wants. The
 *   reserved ranges are the caller's: the zero page, page tables, ACPI tables, the command line.
 *   tn_strerror has a sentence for each detail.
 *
 * GUEST TRUST
 *   The image is hostile, and may change during the call if it is mapped: each field is read once,
 *   and the plan has the values that were checked. So use the plan, never the image's header again;
 *   the setup header's bytes are to be copied, then overwritten with the plan's values. A plan that
 *   tn_loader_parse accepted names no byte outside of the file, whatever the file holds. The ranges
 *   are the caller's, and trusted.
 *
 * MEMORY
 *   The caller owns the image, the plan and the ranges; the plan points at none of them.
 *
 * THREADS
 *   No state: any number of threads, each with its own plan.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   ELF-64 object file format 1.5, sections 3 (file header), 6 (program header) and 7 (notes).
 *   Xen public/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY, and docs/misc/pvh.pandoc.
 *   Linux Documentation/arch/x86/boot.rst: "Details of Header Fields", "Loading The Rest of The
 *   Kernel", "64-bit Boot Protocol".
 *
 * LIMITS
 *   x86-64 kernels: not 32-bit ELF, not compressed files, not zImage, no bzImage without a 64-bit
 *   entry. bzImage protocol 2.10 and later; the header only ever grows, so that 2.16 and on are
 *   read as 2.15. At most 64 program headers, 16 loaded segments, 1024 notes in a PT_NOTE.
 */
#ifndef TN_LOADER_H
#define TN_LOADER_H

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

#define TN_LOADER_MAX_SEGS  16
#define TN_LOADER_MAX_PHDRS 64
#define TN_LOADER_MAX_NOTES 1024
#define TN_LOADER_LIMIT     (1ull << 52) /* what is loaded ends at or below it */
#define TN_LOADER_PAGE      4096ull      /* an initrd's alignment */

enum tn_loader_format {
    TN_LOADER_ELF64 = 1,
    TN_LOADER_BZIMAGE = 2,
    TN_LOADER_ARM64 = 3, /* recognised, not loaded */
};

/* Which check refused an image; in brackets the error that comes with it. */
enum tn_loader_detail {
    TN_LOADER_NONE = 0, /* none did */

    /* any file */
    TN_LOADER_EMPTY = 1,       /* no bytes at all [TN_ETRUNC] */
    TN_LOADER_SHORT = 2,       /* too short to tell what it is [TN_ETRUNC] */
    TN_LOADER_UNKNOWN = 3,     /* neither ELF nor a bzImage [TN_EFORMAT] */
    TN_LOADER_COMPRESSED = 4,  /* gzip, zstd, xz, bzip2, lzma or lz4: decompress it [TN_EUNSUP] */
    TN_LOADER_ARM64_IMAGE = 5, /* an arm64 Image [TN_EMACHINE] */

    /* ELF */
    TN_LOADER_ELF_TRUNC = 16,      /* the file ends inside the 64-byte header [TN_ETRUNC] */
    TN_LOADER_ELF_32BIT = 17,      /* ELFCLASS32 [TN_EUNSUP] */
    TN_LOADER_ELF_BIG_ENDIAN = 18, /* ELFDATA2MSB [TN_EMACHINE] */
    TN_LOADER_ELF_IDENT = 19,      /* e_ident: unknown class, byte order, version [TN_EFORMAT] */
    TN_LOADER_ELF_MACHINE = 20,    /* e_machine is not EM_X86_64 [TN_EMACHINE] */
    TN_LOADER_ELF_TYPE = 21,       /* e_type is neither ET_EXEC nor ET_DYN [TN_EUNSUP] */
    TN_LOADER_PHDR_SIZE = 22,      /* e_phentsize is not 56 [TN_EFORMAT] */
    TN_LOADER_PHDR_MANY = 23,      /* e_phnum is above 64 [TN_EUNSUP] */
    TN_LOADER_PHDR_TRUNC = 24,     /* program headers beyond the end of the file [TN_ETRUNC] */
    TN_LOADER_SEG_NONE = 25,       /* no PT_LOAD with bytes [TN_EFORMAT] */
    TN_LOADER_SEG_MANY = 26,       /* more than 16 PT_LOADs [TN_EUNSUP] */
    TN_LOADER_SEG_FILESZ = 27,     /* p_filesz > p_memsz [TN_EFORMAT] */
    TN_LOADER_SEG_TRUNC = 28,      /* a segment's bytes lie beyond the file's end [TN_ETRUNC] */
    TN_LOADER_SEG_ADDR = 29,       /* p_paddr + p_memsz above 2^52 [TN_ERANGE] */
    TN_LOADER_SEG_OVERLAP = 30,    /* two segments share guest memory [TN_EOVERLAP] */
    TN_LOADER_ENTRY = 31,          /* e_entry is in no segment's file bytes [TN_EENTRY] */
    TN_LOADER_ENTRY_VIRTUAL = 32,  /* e_entry 0 or virtual, and no PVH entry [TN_EENTRY] */
    TN_LOADER_NOTE_TRUNC = 33,     /* a PT_NOTE lies beyond the end of the file [TN_ETRUNC] */
    TN_LOADER_NOTE_NAME = 34,      /* n_namesz passes the end of the PT_NOTE [TN_EFORMAT] */
    TN_LOADER_NOTE_DESC = 35,      /* n_descsz passes the end of the PT_NOTE [TN_EFORMAT] */
    TN_LOADER_NOTE_MANY = 36,      /* more than 1024 notes in a PT_NOTE [TN_EUNSUP] */
    TN_LOADER_PVH_SIZE = 37,       /* the PVH note holds neither 4 nor 8 bytes [TN_EFORMAT] */
    TN_LOADER_PVH_ADDR = 38,       /* the PVH entry is above 4 GiB [TN_ERANGE] */
    TN_LOADER_PVH_ENTRY = 39,      /* the PVH entry is in no segment's file bytes [TN_EENTRY] */

    /* bzImage */
    TN_LOADER_BZ_BOOT_FLAG = 64, /* "HdrS" is there, boot_flag is not 0xaa55 [TN_EFORMAT] */
    TN_LOADER_BZ_TRUNC = 65,     /* the file ends inside the setup part [TN_ETRUNC] */
    TN_LOADER_BZ_VERSION = 66,   /* protocol below 2.10, or not 2.x [TN_EUNSUP] */
    TN_LOADER_BZ_JUMP = 67,      /* the header's length, from its jump, is bad [TN_EFORMAT] */
    TN_LOADER_BZ_LOW = 68,       /* LOADED_HIGH is clear: a zImage [TN_EUNSUP] */
    TN_LOADER_BZ_NOT_64BIT = 69, /* XLF_KERNEL_64 is clear: 32-bit, or before 3.8 [TN_EUNSUP] */
    TN_LOADER_BZ_PAYLOAD = 70,   /* syssize passes the end of the file [TN_ETRUNC] */
    TN_LOADER_BZ_ENTRY = 71,     /* syssize ends before the entry at 0x200 [TN_EENTRY] */
    TN_LOADER_BZ_ALIGN = 72,     /* kernel_alignment is not a power of two [TN_EFORMAT] */
    TN_LOADER_BZ_MIN_ALIGN = 73, /* min_alignment is above kernel_alignment [TN_EFORMAT] */
    TN_LOADER_BZ_PREF = 74,      /* pref_address is not aligned [TN_EFORMAT] */
    TN_LOADER_BZ_ADDR = 75,      /* pref_address + init_size is too high [TN_ERANGE] */

    /* tn_loader_place */
    TN_LOADER_PLACE_RAM = 96,      /* segment `where` is not whole in a RAM range [TN_ENOFIT] */
    TN_LOADER_PLACE_RESERVED = 97, /* a segment meets reserved range `where` [TN_EOVERLAP] */
    TN_LOADER_PLACE_INIT_RAM = 98, /* init_size bytes are not in one RAM range [TN_ENOFIT] */
    TN_LOADER_PLACE_INIT_RESERVED = 99, /* they meet reserved range `where` [TN_EOVERLAP] */
    TN_LOADER_PLACE_NONE = 100,         /* no multiple of align fits anywhere [TN_ENOFIT] */
    TN_LOADER_PLACE_ENTRY = 101,        /* an entry is in no segment's file bytes [TN_EENTRY] */
};

/* mem_size bytes at gpa: file_size bytes from file_off in the file, then zeros. */
struct tn_loader_seg {
    uint64_t gpa;
    uint64_t mem_size; /* > 0 */
    uint64_t file_off; /* 0 when file_size is 0 */
    uint64_t file_size;
};

struct tn_loader_range {
    uint64_t gpa;
    uint64_t size; /* 0: nothing */
};

struct tn_loader_plan {
    uint32_t format; /* enum tn_loader_format */
    uint32_t nsegs;
    struct tn_loader_seg seg[TN_LOADER_MAX_SEGS]; /* sorted by gpa, disjoint */
    bool has_linux64, has_pvh; /* the protocols that the image offers, at least one */
    uint64_t linux64_entry;    /* 64-bit Linux protocol: e_entry, or bzImage's address + 0x200 */
    uint64_t pvh_entry;        /* PVH: entered in 32-bit mode, below 4 GiB */
    bool relocatable;          /* the plan may be moved, by multiples of align (bzImage) */
    bool above_4g;             /* bzImage: XLF_CAN_BE_LOADED_ABOVE_4G, for kernel and tables */
    uint64_t align;            /* kernel_alignment, a power of two; 0 if not relocatable */
    uint64_t init_size;        /* from seg[0].gpa on, the bytes that are the kernel's until it reads
                                  the memory map: bzImage's init_size, never less than what is
                                  loaded; ELF: up to the end of the last segment */
    uint64_t setup_off;        /* bzImage: the setup header in the file, from 0x1f1; else 0 */
    uint64_t setup_len;        /* its bytes, 115 to 144: they go to 0x1f1 of the zero page */
    uint16_t boot_version;     /* bzImage protocol, 0x020a and up; else 0 */
    uint64_t initrd_max;       /* highest address that the initrd's last byte may have */
    uint32_t cmdline_max;      /* longest command line, without its NUL */
    uint32_t detail;           /* after an error: enum tn_loader_detail */
    uint32_t where;            /* and of which program header, segment or range, from 0 */
};

/*@ predicate tn_loader_seg_ok(struct tn_loader_seg *s, integer len) =
      0 < s->mem_size && s->file_size <= s->mem_size &&
      s->gpa + s->mem_size <= TN_LOADER_LIMIT && s->file_off + s->file_size <= len;
    predicate tn_loader_segs_ok(struct tn_loader_plan *p, integer len) =
      p->nsegs <= TN_LOADER_MAX_SEGS &&
      (\forall integer i; 0 <= i < p->nsegs ==> tn_loader_seg_ok(&p->seg[i], len)) &&
      (\forall integer i, j; 0 <= i < j < p->nsegs ==>
        p->seg[i].gpa + p->seg[i].mem_size <= p->seg[j].gpa);
    predicate tn_loader_loaded(struct tn_loader_plan *p, integer a) =
      \exists integer i; 0 <= i < p->nsegs &&
        p->seg[i].gpa <= a < p->seg[i].gpa + p->seg[i].file_size;
    predicate tn_loader_plan_ok(struct tn_loader_plan *p, integer len) =
      tn_loader_segs_ok(p, len) && 0 < p->nsegs &&
      (p->has_linux64 != 0 || p->has_pvh != 0) &&
      (p->has_linux64 != 0 ==> tn_loader_loaded(p, p->linux64_entry)) &&
      (p->has_pvh != 0 ==> p->pvh_entry < 0x100000000 && tn_loader_loaded(p, p->pvh_entry)) &&
      p->seg[0].gpa + p->init_size <= TN_LOADER_LIMIT &&
      (\forall integer i; 0 <= i < p->nsegs ==>
        p->seg[i].gpa + p->seg[i].mem_size <= p->seg[0].gpa + p->init_size) &&
      (p->relocatable != 0 ==> p->nsegs == 1 && p->has_pvh == 0 &&
        0 < p->align <= 0xffffffff && p->seg[0].gpa % p->align == 0) &&
      (p->format == TN_LOADER_BZIMAGE ==> p->nsegs == 1) &&
      p->setup_off + p->setup_len <= len && p->setup_len <= 144;
    predicate tn_loader_inside(struct tn_loader_range *r, integer gpa, integer size) =
      r->gpa <= gpa && gpa + size <= r->gpa + r->size;
    predicate tn_loader_meets(struct tn_loader_range *r, integer gpa, integer size) =
      0 < r->size && 0 < size && r->gpa < gpa + size && gpa < r->gpa + r->size;
    predicate tn_loader_placed(struct tn_loader_range *ram, integer nram,
                               struct tn_loader_range *res, integer nres,
                               integer gpa, integer size) =
      (\exists integer i; 0 <= i < nram && tn_loader_inside(ram + i, gpa, size)) &&
      (\forall integer i; 0 <= i < nres ==> !tn_loader_meets(res + i, gpa, size));
    logic integer tn_loader_need(struct tn_loader_plan *p, integer i) =
      p->format == TN_LOADER_BZIMAGE ? p->init_size : p->seg[i].mem_size;
*/

/*
 * Reads the len bytes of image. ELF: PT_LOADs by p_paddr, e_entry where it is the physical address
 * of loaded bytes, the PVH entry of the first note of that kind. bzImage: at pref_address, or at
 * 1 MiB (aligned) where it has none. Returns 0, or the error beside plan->detail in enum
 * tn_loader_detail; all else of the plan is then 0.
 */
/*@ requires \valid_read(image + (0 .. len - 1));
    requires \valid(plan) && \separated(image + (0 .. len - 1), plan);
    assigns *plan;
    ensures \result <= 0;
    ensures \result == 0 ==> tn_loader_plan_ok(plan, len) && plan->detail == 0;
    ensures \result != 0 ==> plan->nsegs == 0 && plan->detail != 0; */
TN_API int tn_loader_parse(const uint8_t *image, size_t len, struct tn_loader_plan *plan);

/*
 * Checks that each segment, and of a bzImage all of its init_size, lies whole in one RAM range and
 * meets no reserved one, and that the entries lie in what is loaded. A relocatable plan that does
 * not fit where it is moves to the lowest higher multiple of align that does: not down, since a
 * Linux that was loaded below pref_address moves itself back up to it. Below 4 GiB unless above_4g.
 * The plan is one that tn_loader_parse accepted. Returns 0; TN_EINVAL: the plan is void; else
 * the error beside plan->detail in enum tn_loader_detail, and all else of the plan is then 0.
 */
/*@ requires \valid(plan) && (plan->nsegs > 0 ==> tn_loader_plan_ok(plan, SIZE_MAX));
    requires \valid_read(ram + (0 .. nram - 1));
    requires \valid_read(reserved + (0 .. nreserved - 1));
    requires \separated(plan, ram + (0 .. nram - 1), reserved + (0 .. nreserved - 1));
    assigns *plan;
    ensures \result <= 0;
    ensures \result == 0 ==> tn_loader_plan_ok(plan, SIZE_MAX) &&
      \forall integer i; 0 <= i < plan->nsegs ==>
        tn_loader_placed((struct tn_loader_range *)ram, nram, (struct tn_loader_range *)reserved,
                         nreserved, plan->seg[i].gpa, tn_loader_need(plan, i));
    ensures \result != 0 ==> plan->nsegs == 0; */
TN_API int tn_loader_place(struct tn_loader_plan *plan, const struct tn_loader_range *ram,
                           uint32_t nram, const struct tn_loader_range *reserved,
                           uint32_t nreserved);

/*
 * Finds the highest multiple of 4 KiB where an initrd of size bytes has whole pages of its own:
 * in one RAM range, at or below initrd_max, clear of the kernel's init_size bytes from seg[0].gpa
 * on and of the reserved ranges. The plan is one that tn_loader_place accepted. Returns 0;
 * TN_EINVAL: size is 0 or the plan is void; TN_ENOFIT: there is no such place (*gpa = 0).
 */
/*@ requires \valid_read(plan) && (plan->nsegs > 0 ==>
      tn_loader_plan_ok((struct tn_loader_plan *)plan, SIZE_MAX));
    requires \valid_read(ram + (0 .. nram - 1)) && \valid(gpa);
    requires \valid_read(reserved + (0 .. nreserved - 1));
    requires \separated(gpa, plan, ram + (0 .. nram - 1), reserved + (0 .. nreserved - 1));
    assigns *gpa;
    ensures \result <= 0;
    ensures \result == 0 ==> size > 0 && *gpa % TN_LOADER_PAGE == 0 &&
      *gpa + size - 1 <= plan->initrd_max &&
      (*gpa + size <= plan->seg[0].gpa ||
       plan->seg[0].gpa + plan->init_size <= *gpa) &&
      tn_loader_placed((struct tn_loader_range *)ram, nram, (struct tn_loader_range *)reserved,
                       nreserved, *gpa, size);
    ensures \result != 0 ==> *gpa == 0; */
TN_API int tn_loader_place_initrd(const struct tn_loader_plan *plan, uint64_t size,
                                  const struct tn_loader_range *ram, uint32_t nram,
                                  const struct tn_loader_range *reserved, uint32_t nreserved,
                                  uint64_t *gpa);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/*@ requires \valid(s);
    assigns *s;
    ensures s->gpa == gpa && s->mem_size == mem_size;
    ensures s->file_off == file_off && s->file_size == file_size; */
static inline void tn_loader_set_(struct tn_loader_seg *s, uint64_t gpa, uint64_t mem_size,
                                  uint64_t file_off, uint64_t file_size)
{
    s->gpa = gpa;
    s->mem_size = mem_size;
    s->file_off = file_off;
    s->file_size = file_size;
}

/* What a plan says when it says nothing. */
/*@ requires \valid(plan);
    assigns *plan;
    ensures plan->nsegs == 0 && plan->has_linux64 == 0 && plan->has_pvh == 0;
    ensures plan->relocatable == 0 && plan->setup_off == 0 && plan->setup_len == 0;
    ensures plan->init_size == 0 && plan->detail == 0; */
static inline void tn_loader_void_(struct tn_loader_plan *plan)
{
    uint32_t i;

    plan->format = 0;
    plan->nsegs = 0;
    /*@ loop invariant 0 <= i <= TN_LOADER_MAX_SEGS;
        loop assigns i, plan->seg[0 .. TN_LOADER_MAX_SEGS - 1];
        loop variant TN_LOADER_MAX_SEGS - i; */
    for (i = 0; i < TN_LOADER_MAX_SEGS; i++)
        tn_loader_set_(&plan->seg[i], 0, 0, 0, 0);
    plan->has_linux64 = false;
    plan->has_pvh = false;
    plan->linux64_entry = 0;
    plan->pvh_entry = 0;
    plan->relocatable = false;
    plan->above_4g = false;
    plan->align = 0;
    plan->init_size = 0;
    plan->setup_off = 0;
    plan->setup_len = 0;
    plan->boot_version = 0;
    plan->initrd_max = 0;
    plan->cmdline_max = 0;
    plan->detail = TN_LOADER_NONE;
    plan->where = 0;
}

/* The error that goes with a detail. */
/*@ assigns \nothing;
    ensures \result <= 0;
    ensures \result == 0 <==> detail == 0; */
static inline int tn_loader_err_(uint32_t detail)
{
    switch (detail) {
    case TN_LOADER_NONE:
        return TN_OK;
    case TN_LOADER_EMPTY:
    case TN_LOADER_SHORT:
    case TN_LOADER_ELF_TRUNC:
    case TN_LOADER_PHDR_TRUNC:
    case TN_LOADER_SEG_TRUNC:
    case TN_LOADER_NOTE_TRUNC:
    case TN_LOADER_BZ_TRUNC:
    case TN_LOADER_BZ_PAYLOAD:
        return TN_ETRUNC;
    case TN_LOADER_COMPRESSED:
    case TN_LOADER_ELF_32BIT:
    case TN_LOADER_ELF_TYPE:
    case TN_LOADER_PHDR_MANY:
    case TN_LOADER_SEG_MANY:
    case TN_LOADER_NOTE_MANY:
    case TN_LOADER_BZ_VERSION:
    case TN_LOADER_BZ_LOW:
    case TN_LOADER_BZ_NOT_64BIT:
        return TN_EUNSUP;
    case TN_LOADER_ARM64_IMAGE:
    case TN_LOADER_ELF_BIG_ENDIAN:
    case TN_LOADER_ELF_MACHINE:
        return TN_EMACHINE;
    case TN_LOADER_SEG_ADDR:
    case TN_LOADER_PVH_ADDR:
    case TN_LOADER_BZ_ADDR:
        return TN_ERANGE;
    case TN_LOADER_SEG_OVERLAP:
    case TN_LOADER_PLACE_RESERVED:
    case TN_LOADER_PLACE_INIT_RESERVED:
        return TN_EOVERLAP;
    case TN_LOADER_ENTRY:
    case TN_LOADER_ENTRY_VIRTUAL:
    case TN_LOADER_PVH_ENTRY:
    case TN_LOADER_BZ_ENTRY:
    case TN_LOADER_PLACE_ENTRY:
        return TN_EENTRY;
    case TN_LOADER_PLACE_RAM:
    case TN_LOADER_PLACE_INIT_RAM:
    case TN_LOADER_PLACE_NONE:
        return TN_ENOFIT;
    default:
        return TN_EFORMAT;
    }
}

/* Empties the plan but for what refused it. */
/*@ requires \valid(plan) && detail != 0;
    assigns *plan;
    ensures \result < 0 && plan->nsegs == 0 && plan->detail == detail; */
static inline int tn_loader_refuse_(struct tn_loader_plan *plan, uint32_t detail)
{
    uint32_t where = plan->where;

    tn_loader_void_(plan);
    plan->detail = detail;
    plan->where = where;
    return tn_loader_err_(detail);
}

/* Whether n bytes from off on lie in the first len. */
/*@ assigns \nothing;
    ensures \result != 0 <==> off + n <= len; */
static inline bool tn_loader_fits_(uint64_t off, uint64_t n, uint64_t len)
{
    return n <= len && off <= len - n;
}

/* The least multiple of align at or above x. */
/*@ requires 0 < align <= 0xffffffff && x <= TN_LOADER_LIMIT;
    assigns \nothing;
    ensures x <= \result < x + align && \result % align == 0; */
static inline uint64_t tn_loader_up_(uint64_t x, uint64_t align)
{
    uint64_t over = x % align;

    return over == 0 ? x : x - over + align;
}

/* Adds a segment, of a file of len bytes, to the sorted ones. */
/*@ requires \valid(plan) && tn_loader_segs_ok(plan, len);
    assigns plan->nsegs, plan->seg[0 .. TN_LOADER_MAX_SEGS - 1];
    ensures \result == 0 ==> tn_loader_segs_ok(plan, len); */
static inline uint32_t tn_loader_add_(struct tn_loader_plan *plan, uint64_t gpa, uint64_t mem_size,
                                      uint64_t file_off, uint64_t file_size, uint64_t len)
{
    uint32_t n = plan->nsegs, at = 0, i;

    if (file_size > mem_size)
        return TN_LOADER_SEG_FILESZ;
    if (mem_size == 0)
        return TN_LOADER_NONE;
    if (file_size == 0)
        file_off = 0; /* of no meaning then, and often beyond the end */
    if (!tn_loader_fits_(file_off, file_size, len))
        return TN_LOADER_SEG_TRUNC;
    if (!tn_loader_fits_(gpa, mem_size, TN_LOADER_LIMIT))
        return TN_LOADER_SEG_ADDR;
    if (n >= TN_LOADER_MAX_SEGS)
        return TN_LOADER_SEG_MANY;
    /*@ loop invariant 0 <= at <= n;
        loop invariant \forall integer k; 0 <= k < at ==> plan->seg[k].gpa <= gpa;
        loop assigns at;
        loop variant n - at; */
    while (at < n && plan->seg[at].gpa <= gpa)
        at++;
    if (at > 0 && gpa - plan->seg[at - 1].gpa < plan->seg[at - 1].mem_size)
        return TN_LOADER_SEG_OVERLAP;
    if (at < n && plan->seg[at].gpa - gpa < mem_size)
        return TN_LOADER_SEG_OVERLAP;
    /* All but the gap at i stay sorted, and those above it are above the new one. */
    /*@ loop invariant at <= i <= n;
        loop invariant \forall integer k; 0 <= k <= n && k != i ==>
          tn_loader_seg_ok(&plan->seg[k], len);
        loop invariant \forall integer j, k; 0 <= j < k <= n && j != i && k != i ==>
          plan->seg[j].gpa + plan->seg[j].mem_size <= plan->seg[k].gpa;
        loop invariant \forall integer k; 0 <= k < at ==>
          plan->seg[k].gpa + plan->seg[k].mem_size <= gpa;
        loop invariant \forall integer k; at <= k <= n && k != i ==>
          gpa + mem_size <= plan->seg[k].gpa;
        loop assigns i, plan->seg[0 .. TN_LOADER_MAX_SEGS - 1];
        loop variant i; */
    for (i = n; i > at; i--) {
        plan->seg[i].gpa = plan->seg[i - 1].gpa;
        plan->seg[i].mem_size = plan->seg[i - 1].mem_size;
        plan->seg[i].file_off = plan->seg[i - 1].file_off;
        plan->seg[i].file_size = plan->seg[i - 1].file_size;
    }
    plan->seg[at].gpa = gpa;
    plan->seg[at].mem_size = mem_size;
    plan->seg[at].file_off = file_off;
    plan->seg[at].file_size = file_size;
    /*@ assert \forall integer k; 0 <= k <= n ==> tn_loader_seg_ok(&plan->seg[k], len); */
    /*@ assert \forall integer j, k; 0 <= j < k <= n ==>
          plan->seg[j].gpa + plan->seg[j].mem_size <= plan->seg[k].gpa; */
    plan->nsegs = n + 1;
    /*@ assert plan->nsegs == n + 1 <= TN_LOADER_MAX_SEGS; */
    /*@ assert \forall integer k; 0 <= k < plan->nsegs ==>
          tn_loader_seg_ok(&plan->seg[k], len); */
    /*@ assert tn_loader_segs_ok(plan, len); */
    return TN_LOADER_NONE;
}

/* Whether the byte at gpa is one that comes from the file. */
/*@ requires \valid_read(plan) && plan->nsegs <= TN_LOADER_MAX_SEGS;
    assigns \nothing;
    ensures \result != 0 <==> tn_loader_loaded((struct tn_loader_plan *)plan, gpa); */
static inline bool tn_loader_loaded_(const struct tn_loader_plan *plan, uint64_t gpa)
{
    uint32_t i;

    /*@ loop invariant 0 <= i <= plan->nsegs;
        loop invariant \forall integer k; 0 <= k < i ==>
          !(plan->seg[k].gpa <= gpa < plan->seg[k].gpa + plan->seg[k].file_size);
        loop assigns i;
        loop variant plan->nsegs - i; */
    for (i = 0; i < plan->nsegs; i++) {
        if (gpa >= plan->seg[i].gpa && gpa - plan->seg[i].gpa < plan->seg[i].file_size)
            return true;
    }
    return false;
}

/*
 * Walks the notes in size bytes at off for the PVH entry. Names and descriptors are padded to 4
 * bytes whatever p_align says: kernels that say 8 still pad to 4 (D03), and where 8 is meant the
 * two agree, since such a descriptor's size is a multiple of 8 and it begins 16 bytes in.
 */
/*@ requires \valid_read(image + (0 .. len - 1)) && \valid(plan);
    requires plan->has_pvh != 0 ==> plan->pvh_entry < 0x100000000;
    assigns plan->has_pvh, plan->pvh_entry;
    ensures plan->has_pvh != 0 ==> plan->pvh_entry < 0x100000000; */
static inline uint32_t tn_loader_notes_(const volatile uint8_t *image, uint64_t len, uint64_t off,
                                        uint64_t size, struct tn_loader_plan *plan)
{
    uint32_t notes = 0;

    if (!tn_loader_fits_(off, size, len))
        return TN_LOADER_NOTE_TRUNC;
    /*@ loop invariant off + size <= len && notes <= TN_LOADER_MAX_NOTES;
        loop invariant plan->has_pvh != 0 ==> plan->pvh_entry < 0x100000000;
        loop assigns off, size, notes, plan->has_pvh, plan->pvh_entry;
        loop variant size; */
    while (size >= 12) {
        uint64_t namesz = (uint32_t)tn_get_(image + off, 4);
        uint64_t descsz = (uint32_t)tn_get_(image + off + 4, 4);
        uint32_t type = (uint32_t)tn_get_(image + off + 8, 4);
        bool pvh;

        if (notes == TN_LOADER_MAX_NOTES)
            return TN_LOADER_NOTE_MANY;
        notes++;
        off += 12;
        size -= 12;
        if (namesz > size)
            return TN_LOADER_NOTE_NAME;
        /* "Xen" with its NUL, as one little-endian number */
        pvh = type == 18 && namesz == 4 && (uint32_t)tn_get_(image + off, 4) == 0x006e6558;
        namesz = tn_loader_up_(namesz, 4);
        if (namesz > size) /* the last note's padding may be missing */
            namesz = size;
        off += namesz;
        size -= namesz;
        if (descsz > size)
            return TN_LOADER_NOTE_DESC;
        if (pvh && !plan->has_pvh) {
            uint64_t entry;

            if (descsz != 4 && descsz != 8)
                return TN_LOADER_PVH_SIZE;
            entry = tn_get_(image + off, (unsigned)descsz);
            if (entry > UINT32_MAX)
                return TN_LOADER_PVH_ADDR;
            plan->has_pvh = true;
            plan->pvh_entry = entry;
        }
        descsz = tn_loader_up_(descsz, 4);
        if (descsz > size)
            descsz = size;
        off += descsz;
        size -= descsz;
    }
    return TN_LOADER_NONE;
}

/* One program header, at image + at. Each field is read once, since the file may be mapped. */
/*@ requires \valid_read(image + (0 .. len - 1)) && \valid(plan) && \valid(virt);
    requires at + 56 <= len && tn_loader_segs_ok(plan, len);
    requires \separated(image + (0 .. len - 1), plan, virt);
    requires plan->has_pvh != 0 ==> plan->pvh_entry < 0x100000000;
    assigns *virt, plan->nsegs, plan->seg[0 .. TN_LOADER_MAX_SEGS - 1], plan->has_pvh,
      plan->pvh_entry;
    ensures \result == 0 ==> tn_loader_segs_ok(plan, len);
    ensures plan->has_pvh != 0 ==> plan->pvh_entry < 0x100000000; */
static inline uint32_t tn_loader_phdr_(const volatile uint8_t *image, uint64_t len, uint64_t at,
                                       uint64_t entry, struct tn_loader_plan *plan, bool *virt)
{
    uint32_t type = (uint32_t)tn_get_(image + at, 4);
    uint64_t off = tn_get_(image + at + 8, 8);
    uint64_t vaddr = tn_get_(image + at + 16, 8);
    uint64_t paddr = tn_get_(image + at + 24, 8);
    uint64_t filesz = tn_get_(image + at + 32, 8);
    uint64_t memsz = tn_get_(image + at + 40, 8);

    if (type == 4) /* PT_NOTE */
        return tn_loader_notes_(image, len, off, filesz, plan);
    if (type != 1) /* PT_LOAD */
        return TN_LOADER_NONE;
    if (entry >= vaddr && entry - vaddr < filesz)
        *virt = true;
    return tn_loader_add_(plan, paddr, memsz, off, filesz, len);
}

/* What the segments and notes of a file of len bytes amount to, all of them read. */
/*@ requires \valid(plan) && tn_loader_segs_ok(plan, len);
    requires plan->has_linux64 == 0 && plan->relocatable == 0 && plan->detail == 0;
    requires plan->format != TN_LOADER_BZIMAGE;
    requires plan->setup_off == 0 && plan->setup_len == 0;
    requires plan->has_pvh != 0 ==> plan->pvh_entry < 0x100000000;
    assigns plan->has_linux64, plan->linux64_entry, plan->init_size;
    ensures \result == 0 ==> tn_loader_plan_ok(plan, len) && plan->detail == 0; */
static inline uint32_t tn_loader_elf_end_(struct tn_loader_plan *plan, uint64_t len, uint64_t entry,
                                          bool virt)
{
    uint32_t last;

    (void)len; /* for the contract */
    if (plan->nsegs == 0)
        return TN_LOADER_SEG_NONE;
    if (plan->has_pvh && !tn_loader_loaded_(plan, plan->pvh_entry))
        return TN_LOADER_PVH_ENTRY;
    plan->has_linux64 = tn_loader_loaded_(plan, entry);
    if (plan->has_linux64) {
        plan->linux64_entry = entry;
    } else {
        if (!virt && entry != 0)
            return TN_LOADER_ENTRY;
        if (!plan->has_pvh) /* a virtual entry wants paging as no boot protocol sets it up */
            return TN_LOADER_ENTRY_VIRTUAL;
    }
    last = plan->nsegs - 1;
    plan->init_size = plan->seg[last].gpa - plan->seg[0].gpa + plan->seg[last].mem_size;
    /*@ assert tn_loader_segs_ok(plan, len); */
    /*@ assert plan->has_linux64 != 0 ==> tn_loader_loaded(plan, plan->linux64_entry); */
    /*@ assert plan->has_pvh != 0 ==> tn_loader_loaded(plan, plan->pvh_entry); */
    /*@ assert \forall integer k; 0 <= k < plan->nsegs ==>
          plan->seg[k].gpa + plan->seg[k].mem_size <= plan->seg[0].gpa + plan->init_size; */
    /*@ assert plan->seg[0].gpa + plan->init_size <= TN_LOADER_LIMIT; */
    /*@ assert tn_loader_plan_ok(plan, len); */
    return TN_LOADER_NONE;
}

/* The ELF64 whose magic number was seen; the plan is void. */
/*@ requires \valid_read(image + (0 .. len - 1)) && \valid(plan);
    requires \separated(image + (0 .. len - 1), plan);
    requires plan->nsegs == 0 && plan->has_linux64 == 0 && plan->has_pvh == 0;
    requires plan->relocatable == 0 && plan->setup_off == 0 && plan->setup_len == 0;
    requires plan->detail == 0;
    assigns *plan;
    ensures \result == 0 ==> tn_loader_plan_ok(plan, len) && plan->detail == 0; */
static inline uint32_t tn_loader_elf_(const volatile uint8_t *image, uint64_t len,
                                      struct tn_loader_plan *plan)
{
    uint8_t elfclass, data, version;
    uint16_t phentsize, phnum;
    uint64_t entry, phoff;
    bool virt = false;
    uint32_t i;

    if (len < 64)
        return TN_LOADER_ELF_TRUNC;
    elfclass = (uint8_t)tn_get_(image + 4, 1);
    data = (uint8_t)tn_get_(image + 5, 1);
    version = (uint8_t)tn_get_(image + 6, 1);
    if (elfclass == 1)
        return TN_LOADER_ELF_32BIT;
    if (data == 2)
        return TN_LOADER_ELF_BIG_ENDIAN;
    if (elfclass != 2 || data != 1 || version != 1)
        return TN_LOADER_ELF_IDENT;
    if ((uint16_t)tn_get_(image + 18, 2) != 62) /* EM_X86_64 */
        return TN_LOADER_ELF_MACHINE;
    i = (uint16_t)tn_get_(image + 16, 2);
    if (i != 2 && i != 3) /* ET_EXEC, ET_DYN */
        return TN_LOADER_ELF_TYPE;
    entry = tn_get_(image + 24, 8);
    phoff = tn_get_(image + 32, 8);
    phentsize = (uint16_t)tn_get_(image + 54, 2);
    phnum = (uint16_t)tn_get_(image + 56, 2);
    if (phnum == 0)
        return TN_LOADER_SEG_NONE;
    if (phentsize != 56)
        return TN_LOADER_PHDR_SIZE;
    if (phnum > TN_LOADER_MAX_PHDRS)
        return TN_LOADER_PHDR_MANY;
    if (!tn_loader_fits_(phoff, 56ull * phnum, len))
        return TN_LOADER_PHDR_TRUNC;

    plan->format = TN_LOADER_ELF64;
    plan->initrd_max = 0x37ffffff; /* what Linux always could, see initrd_addr_max */
    plan->cmdline_max = 2047;      /* x86's COMMAND_LINE_SIZE without the NUL */
    /*@ loop invariant 0 <= i <= phnum && tn_loader_segs_ok(plan, len);
        loop invariant plan->has_pvh != 0 ==> plan->pvh_entry < 0x100000000;
        loop assigns i, virt, plan->where, plan->nsegs, plan->seg[0 .. TN_LOADER_MAX_SEGS - 1],
          plan->has_pvh, plan->pvh_entry;
        loop variant phnum - i; */
    for (i = 0; i < phnum; i++) {
        uint32_t detail = tn_loader_phdr_(image, len, phoff + 56ull * i, entry, plan, &virt);

        plan->where = i;
        if (detail != TN_LOADER_NONE)
            return detail;
    }
    plan->where = 0;
    return tn_loader_elf_end_(plan, len, entry, virt);
}

/* The bzImage whose boot_flag and magic number were seen; the plan is void. */
/*@ requires \valid_read(image + (0 .. len - 1)) && \valid(plan);
    requires \separated(image + (0 .. len - 1), plan);
    requires plan->nsegs == 0 && plan->has_linux64 == 0 && plan->has_pvh == 0;
    requires plan->relocatable == 0 && plan->detail == 0;
    assigns *plan;
    ensures \result == 0 ==> tn_loader_plan_ok(plan, len) && plan->detail == 0; */
static inline uint32_t tn_loader_bzimage_(const volatile uint8_t *image, uint64_t len,
                                          struct tn_loader_plan *plan)
{
    uint8_t sects, min_align;
    uint16_t jump, version, xloadflags;
    uint32_t align = 1;
    uint64_t setup, size, pref, init, limit;

    if (len < 0x264) /* up to init_size's end, which 2.10 has */
        return TN_LOADER_BZ_TRUNC;
    version = (uint16_t)tn_get_(image + 0x206, 2);
    if (version < 0x020a || version > 0x02ff)
        return TN_LOADER_BZ_VERSION;
    jump = (uint16_t)tn_get_(image + 0x200, 2); /* 0xeb, then the header's length from 0x202 on */
    if (jump % 256 != 0xeb || jump / 256 < 0x264 - 0x202 || jump / 256 > 0x7f)
        return TN_LOADER_BZ_JUMP;
    if ((uint8_t)tn_get_(image + 0x211, 1) % 2 == 0)
        return TN_LOADER_BZ_LOW;
    /* Before 2.12 these bytes were padding, zero, and the entry at 0x200 a matter of luck. */
    xloadflags = (uint16_t)tn_get_(image + 0x236, 2);
    if (xloadflags % 2 == 0)
        return TN_LOADER_BZ_NOT_64BIT;

    sects = (uint8_t)tn_get_(image + 0x1f1, 1);
    setup = ((sects ? sects : 4u) + 1u) * 512u;
    if (setup > len)
        return TN_LOADER_BZ_TRUNC;
    size = (uint64_t)(uint32_t)tn_get_(image + 0x1f4, 4) * 16;
    if (!tn_loader_fits_(setup, size, len))
        return TN_LOADER_BZ_PAYLOAD;
    if (size <= 0x200)
        return TN_LOADER_BZ_ENTRY;

    plan->above_4g = xloadflags / 2 % 2 != 0;
    limit = plan->above_4g ? TN_LOADER_LIMIT : 1ull << 32;
    init = (uint32_t)tn_get_(image + 0x260, 4);
    if (init < size)
        init = size;
    if ((uint8_t)tn_get_(image + 0x234, 1) != 0) {
        align = (uint32_t)tn_get_(image + 0x230, 4);
        min_align = (uint8_t)tn_get_(image + 0x235, 1);
        if (align == 0 || (align & (align - 1)) != 0)
            return TN_LOADER_BZ_ALIGN;
        if (min_align > 31 || align >> min_align == 0)
            return TN_LOADER_BZ_MIN_ALIGN;
        plan->relocatable = true;
        plan->align = align;
    }
    /* A kernel that is not relocatable moves itself to pref_address: it is put there at once. */
    pref = tn_get_(image + 0x258, 8);
    if (pref == 0)
        pref = tn_loader_up_(0x100000, align);
    if (pref % align != 0)
        return TN_LOADER_BZ_PREF;
    if (!tn_loader_fits_(pref, init, limit))
        return TN_LOADER_BZ_ADDR;

    plan->format = TN_LOADER_BZIMAGE;
    plan->nsegs = 1;
    tn_loader_set_(&plan->seg[0], pref, size, setup, size);
    plan->has_linux64 = true;
    plan->linux64_entry = pref + 0x200;
    plan->init_size = init;
    plan->setup_off = 0x1f1;
    plan->setup_len = 0x202u - 0x1f1u + jump / 256u;
    plan->boot_version = version;
    plan->initrd_max = (uint32_t)tn_get_(image + 0x22c, 4);
    plan->cmdline_max = (uint32_t)tn_get_(image + 0x238, 4);
    /*@ assert plan->seg[0].gpa <= plan->linux64_entry &&
          plan->linux64_entry < plan->seg[0].gpa + plan->seg[0].file_size; */
    /*@ assert tn_loader_segs_ok(plan, len); */
    return TN_LOADER_NONE;
}

/* Whether the first bytes, as one little-endian number, are a compressed file's. */
/*@ assigns \nothing; */
static inline bool tn_loader_packed_(uint32_t magic)
{
    uint32_t two = magic % 0x10000, three = magic % 0x1000000;

    return two == 0x8b1f ||       /* gzip */
           three == 0x685a42 ||   /* bzip2 */
           three == 0x00005d ||   /* lzma */
           magic == 0xfd2fb528 || /* zstd */
           magic == 0x587a37fd || /* xz */
           magic == 0x184c2102 || /* lz4, as the kernel's build makes it */
           magic == 0x184d2204;   /* lz4 */
}

/*@ requires \valid_read(image + (0 .. len - 1)) && \valid(plan);
    requires \separated(image + (0 .. len - 1), plan);
    requires plan->nsegs == 0 && plan->has_linux64 == 0 && plan->has_pvh == 0;
    requires plan->relocatable == 0 && plan->setup_off == 0 && plan->setup_len == 0;
    requires plan->detail == 0;
    assigns *plan;
    ensures \result == 0 ==> tn_loader_plan_ok(plan, len) && plan->detail == 0; */
static inline uint32_t tn_loader_any_(const volatile uint8_t *image, uint64_t len,
                                      struct tn_loader_plan *plan)
{
    uint32_t magic;

    if (len == 0)
        return TN_LOADER_EMPTY;
    if (len < 4)
        return TN_LOADER_SHORT;
    magic = (uint32_t)tn_get_(image, 4);
    if (magic == 0x464c457f)
        return tn_loader_elf_(image, len, plan);
    if (tn_loader_packed_(magic))
        return TN_LOADER_COMPRESSED;
    if (len >= 0x206 && (uint32_t)tn_get_(image + 0x202, 4) == 0x53726448) { /* "HdrS" */
        if ((uint16_t)tn_get_(image + 0x1fe, 2) != 0xaa55)
            return TN_LOADER_BZ_BOOT_FLAG;
        return tn_loader_bzimage_(image, len, plan);
    }
    if (len >= 60 && (uint32_t)tn_get_(image + 56, 4) == 0x644d5241) /* "ARM" and 0x64 */
        return TN_LOADER_ARM64_IMAGE;
    if (len < 0x206 && magic % 0x10000 == 0x5a4d) /* "MZ": a bzImage begins so, too */
        return TN_LOADER_SHORT;
    return TN_LOADER_UNKNOWN;
}

TN_API int tn_loader_parse(const uint8_t *image, size_t len, struct tn_loader_plan *plan)
{
    uint32_t detail;

    tn_loader_void_(plan);
    detail = tn_loader_any_((const volatile uint8_t *)image, len, plan);
    return detail == TN_LOADER_NONE ? TN_OK : tn_loader_refuse_(plan, detail);
}

/* Whether a range holds all size > 0 bytes at gpa. */
/*@ requires \valid_read(r) && gpa + size <= TN_LOADER_LIMIT;
    assigns \nothing;
    ensures \result != 0 <==> tn_loader_inside((struct tn_loader_range *)r, gpa, size); */
static inline bool tn_loader_inside_(const struct tn_loader_range *r, uint64_t gpa, uint64_t size)
{
    return gpa >= r->gpa && gpa - r->gpa <= r->size && size <= r->size - (gpa - r->gpa);
}

/* Whether two ranges of bytes share one. */
/*@ assigns \nothing;
    ensures \result != 0 <==>
      0 < asize && 0 < bsize && a < b + bsize && b < a + asize; */
static inline bool tn_loader_meets_(uint64_t a, uint64_t asize, uint64_t b, uint64_t bsize)
{
    return asize > 0 && bsize > 0 && (a <= b ? b - a < asize : a - b < bsize);
}

/* Which of n RAM ranges holds all of [gpa, gpa + size); n: none does. */
/*@ requires \valid_read(ram + (0 .. n - 1)) && gpa + size <= TN_LOADER_LIMIT;
    assigns \nothing;
    ensures \result <= n;
    ensures \result < n ==>
      tn_loader_inside((struct tn_loader_range *)ram + \result, gpa, size); */
static inline uint32_t tn_loader_ram_(const struct tn_loader_range *ram, uint32_t n, uint64_t gpa,
                                      uint64_t size)
{
    uint32_t i = 0;

    /*@ loop invariant 0 <= i <= n;
        loop assigns i;
        loop variant n - i; */
    while (i < n && !tn_loader_inside_(&ram[i], gpa, size))
        i++;
    return i;
}

/* The first of n ranges that meets [gpa, gpa + size); n: none does. */
/*@ requires \valid_read(r + (0 .. n - 1));
    assigns \nothing;
    ensures \result <= n;
    ensures \forall integer k; 0 <= k < \result ==>
      !tn_loader_meets((struct tn_loader_range *)r + k, gpa, size);
    ensures \result < n ==>
      tn_loader_meets((struct tn_loader_range *)r + \result, gpa, size); */
static inline uint32_t tn_loader_hit_(const struct tn_loader_range *r, uint32_t n, uint64_t gpa,
                                      uint64_t size)
{
    uint32_t i = 0;

    /*@ loop invariant 0 <= i <= n;
        loop invariant \forall integer k; 0 <= k < i ==>
          !tn_loader_meets((struct tn_loader_range *)r + k, gpa, size);
        loop assigns i;
        loop variant n - i; */
    while (i < n && !tn_loader_meets_(r[i].gpa, r[i].size, gpa, size))
        i++;
    return i;
}

#define TN_LOADER_NOWHERE_ 0xffffffffffffffffull

/*
 * The lowest multiple of align at or above from where size bytes lie in the range, end at or below
 * limit, and meet nothing reserved. Each turn passes one reserved range for good.
 */
/*@ requires \valid_read(ram) && \valid_read(reserved + (0 .. nreserved - 1));
    requires from <= TN_LOADER_LIMIT && limit <= TN_LOADER_LIMIT && 0 < size;
    requires 0 < align <= 0xffffffff;
    assigns \nothing;
    ensures \result != TN_LOADER_NOWHERE_ ==>
      from <= \result && \result + size <= limit && \result % align == 0 &&
      tn_loader_inside((struct tn_loader_range *)ram, \result, size) &&
      \forall integer k; 0 <= k < nreserved ==>
        !tn_loader_meets((struct tn_loader_range *)reserved + k, \result, size); */
static inline uint64_t tn_loader_lowest_(const struct tn_loader_range *ram,
                                         const struct tn_loader_range *reserved, uint32_t nreserved,
                                         uint64_t from, uint64_t size, uint64_t align,
                                         uint64_t limit)
{
    uint64_t at;

    if (ram->gpa > from)
        from = ram->gpa;
    if (from > limit)
        return TN_LOADER_NOWHERE_;
    at = tn_loader_up_(from, align);
    /*@ loop invariant from <= at && at % align == 0;
        loop assigns at;
        loop variant limit - at; */
    while (tn_loader_fits_(at, size, limit) && tn_loader_inside_(ram, at, size)) {
        uint32_t hit = tn_loader_hit_(reserved, nreserved, at, size);
        uint64_t rgpa, rsize;

        if (hit == nreserved)
            return at;
        rgpa = reserved[hit].gpa;
        rsize = reserved[hit].size;
        if (!tn_loader_fits_(rgpa, rsize, limit))
            break;
        at = tn_loader_up_(rgpa + rsize, align);
    }
    return TN_LOADER_NOWHERE_;
}

/* The bytes that segment i wants in one RAM range: more than it loads, if it unpacks itself. */
/*@ requires \valid_read(plan) && i < plan->nsegs <= TN_LOADER_MAX_SEGS;
    assigns \nothing;
    ensures \result == tn_loader_need((struct tn_loader_plan *)plan, i); */
static inline uint64_t tn_loader_need_(const struct tn_loader_plan *plan, uint32_t i)
{
    return plan->format == TN_LOADER_BZIMAGE ? plan->init_size : plan->seg[i].mem_size;
}

/* Whether all lies right where it is; 0, or the detail, and which range in *where. */
/*@ requires \valid_read(plan) && tn_loader_plan_ok((struct tn_loader_plan *)plan, SIZE_MAX);
    requires \valid_read(ram + (0 .. nram - 1)) && \valid(where);
    requires \valid_read(reserved + (0 .. nreserved - 1));
    requires \separated(where, plan, ram + (0 .. nram - 1), reserved + (0 .. nreserved - 1));
    assigns *where;
    ensures \result == 0 ==> \forall integer i; 0 <= i < plan->nsegs ==>
      tn_loader_placed((struct tn_loader_range *)ram, nram, (struct tn_loader_range *)reserved,
                       nreserved, plan->seg[i].gpa,
                       tn_loader_need((struct tn_loader_plan *)plan, i)); */
static inline uint32_t tn_loader_check_(const struct tn_loader_plan *plan,
                                        const struct tn_loader_range *ram, uint32_t nram,
                                        const struct tn_loader_range *reserved, uint32_t nreserved,
                                        uint32_t *where)
{
    bool init = plan->format == TN_LOADER_BZIMAGE;
    uint32_t i;

    /*@ loop invariant 0 <= i <= plan->nsegs;
        loop invariant \forall integer k; 0 <= k < i ==>
          tn_loader_placed((struct tn_loader_range *)ram, nram,
                           (struct tn_loader_range *)reserved, nreserved, plan->seg[k].gpa,
                           tn_loader_need((struct tn_loader_plan *)plan, k));
        loop assigns i, *where;
        loop variant plan->nsegs - i; */
    for (i = 0; i < plan->nsegs; i++) {
        uint64_t size = tn_loader_need_(plan, i);
        uint32_t hit;

        *where = i;
        if (tn_loader_ram_(ram, nram, plan->seg[i].gpa, size) == nram)
            return init ? TN_LOADER_PLACE_INIT_RAM : TN_LOADER_PLACE_RAM;
        hit = tn_loader_hit_(reserved, nreserved, plan->seg[i].gpa, size);
        *where = hit;
        if (hit < nreserved)
            return init ? TN_LOADER_PLACE_INIT_RESERVED : TN_LOADER_PLACE_RESERVED;
    }
    *where = 0;
    return TN_LOADER_NONE;
}

TN_API int tn_loader_place(struct tn_loader_plan *plan, const struct tn_loader_range *ram,
                           uint32_t nram, const struct tn_loader_range *reserved,
                           uint32_t nreserved)
{
    uint64_t limit, best = TN_LOADER_NOWHERE_;
    uint32_t detail, where = 0, i;

    if (plan->nsegs == 0 || plan->nsegs > TN_LOADER_MAX_SEGS) {
        tn_loader_void_(plan);
        return TN_EINVAL;
    }
    if ((plan->has_linux64 && !tn_loader_loaded_(plan, plan->linux64_entry)) ||
        (plan->has_pvh && !tn_loader_loaded_(plan, plan->pvh_entry)))
        return tn_loader_refuse_(plan, TN_LOADER_PLACE_ENTRY);
    detail = tn_loader_check_(plan, ram, nram, reserved, nreserved, &where);
    if (detail == TN_LOADER_NONE)
        return TN_OK;
    plan->where = where;
    if (!plan->relocatable)
        return tn_loader_refuse_(plan, detail);

    limit = plan->above_4g ? TN_LOADER_LIMIT : 1ull << 32;
    /*@ loop invariant 0 <= i <= nram;
        loop invariant best != TN_LOADER_NOWHERE_ ==>
          best + plan->init_size <= limit && best % plan->align == 0 &&
          tn_loader_placed((struct tn_loader_range *)ram, nram,
                           (struct tn_loader_range *)reserved, nreserved, best,
                           plan->init_size);
        loop assigns i, best;
        loop variant nram - i; */
    for (i = 0; i < nram; i++) {
        uint64_t at = tn_loader_lowest_(&ram[i], reserved, nreserved, plan->seg[0].gpa,
                                        plan->init_size, plan->align, limit);
        if (at < best)
            best = at;
    }
    if (best == TN_LOADER_NOWHERE_) {
        plan->where = 0;
        return tn_loader_refuse_(plan, TN_LOADER_PLACE_NONE);
    }
    plan->linux64_entry = best + (plan->linux64_entry - plan->seg[0].gpa);
    plan->seg[0].gpa = best;
    plan->where = 0;
    /*@ assert plan->seg[0].gpa <= plan->linux64_entry &&
          plan->linux64_entry < plan->seg[0].gpa + plan->seg[0].file_size; */
    /*@ assert tn_loader_segs_ok(plan, SIZE_MAX); */
    return TN_OK;
}

/*
 * The highest page in the range where size bytes (whole pages) end at or below top and meet neither
 * the kernel nor what is reserved. Each turn gets below one of these for good.
 */
/*@ requires \valid_read(ram) && \valid_read(reserved + (0 .. nreserved - 1));
    requires top <= TN_LOADER_LIMIT && 0 < size;
    requires 0 < ksize && kernel + ksize <= TN_LOADER_LIMIT;
    assigns \nothing;
    ensures \result != TN_LOADER_NOWHERE_ ==>
      \result + size <= top && \result % TN_LOADER_PAGE == 0 &&
      tn_loader_inside((struct tn_loader_range *)ram, \result, size) &&
      (\result + size <= kernel || kernel + ksize <= \result) &&
      \forall integer k; 0 <= k < nreserved ==>
        !tn_loader_meets((struct tn_loader_range *)reserved + k, \result, size); */
static inline uint64_t tn_loader_highest_(const struct tn_loader_range *ram,
                                          const struct tn_loader_range *reserved,
                                          uint32_t nreserved, uint64_t kernel, uint64_t ksize,
                                          uint64_t size, uint64_t top)
{
    if (ram->gpa > top)
        return TN_LOADER_NOWHERE_;
    if (ram->size < top - ram->gpa)
        top = ram->gpa + ram->size;
    /*@ loop invariant top <= \at(top, Pre) && top <= ram->gpa + ram->size;
        loop assigns top;
        loop variant top; */
    while (top >= size) {
        uint64_t at = top - size;
        uint32_t hit;

        at -= at % TN_LOADER_PAGE;
        if (at < ram->gpa)
            break;
        if (tn_loader_meets_(kernel, ksize, at, size)) {
            top = kernel;
            continue;
        }
        hit = tn_loader_hit_(reserved, nreserved, at, size);
        if (hit == nreserved)
            return at;
        top = reserved[hit].gpa;
    }
    return TN_LOADER_NOWHERE_;
}

TN_API int tn_loader_place_initrd(const struct tn_loader_plan *plan, uint64_t size,
                                  const struct tn_loader_range *ram, uint32_t nram,
                                  const struct tn_loader_range *reserved, uint32_t nreserved,
                                  uint64_t *gpa)
{
    uint64_t top, pages, best = TN_LOADER_NOWHERE_;
    uint32_t i;

    *gpa = 0;
    if (size == 0 || plan->nsegs == 0 || plan->nsegs > TN_LOADER_MAX_SEGS)
        return TN_EINVAL;
    if (size > TN_LOADER_LIMIT)
        return TN_ENOFIT;
    pages = tn_loader_up_(size, TN_LOADER_PAGE); /* the kernel frees whole pages of it */
    top = plan->initrd_max < TN_LOADER_LIMIT ? plan->initrd_max + 1 : TN_LOADER_LIMIT;
    /*@ loop invariant 0 <= i <= nram;
        loop invariant best != TN_LOADER_NOWHERE_ ==>
          best + pages <= top && best % TN_LOADER_PAGE == 0 &&
          (best + pages <= plan->seg[0].gpa ||
           plan->seg[0].gpa + plan->init_size <= best) &&
          tn_loader_placed((struct tn_loader_range *)ram, nram,
                           (struct tn_loader_range *)reserved, nreserved, best, pages);
        loop assigns i, best;
        loop variant nram - i; */
    for (i = 0; i < nram; i++) {
        uint64_t at = tn_loader_highest_(&ram[i], reserved, nreserved, plan->seg[0].gpa,
                                         plan->init_size, pages, top);
        if (at != TN_LOADER_NOWHERE_ && (best == TN_LOADER_NOWHERE_ || at > best))
            best = at;
    }
    if (best == TN_LOADER_NOWHERE_)
        return TN_ENOFIT;
    *gpa = best;
    return TN_OK;
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif
