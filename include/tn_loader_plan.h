/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_loader_plan - what of a kernel's file goes where in a guest, and where there is room for it.
 *
 * WHAT
 *   The load plan that tn_loader makes of a kernel image: segments, entries, the room that the
 *   kernel needs. Places a plan, and an initrd beside it, in RAM, clear of what is reserved. Copies
 *   nothing, and reads no image.
 *
 * USAGE
 *   static const struct tn_loader_range ram[] = {{0, 0xa0000}, {0x100000, 0x7f00000}};
 *   static const struct tn_loader_range reserved[] = {{0, 0x10000}};
 *   struct tn_loader_plan plan = {0}; // tn_loader_parse fills it
 *   uint64_t initrd;
 *
 *   if (tn_loader_place(&plan, ram, 2, reserved, 1) < 0)
 *       return (int)plan.detail; // which check refused it
 *   if (tn_loader_place_initrd(&plan, 0x400000, ram, 2, reserved, 1, &initrd) < 0)
 *       return -1;
 *   for (uint32_t i = 0; i < plan.nsegs; i++) {
 *       // copy plan.seg[i].file_size bytes from image + plan.seg[i].file_off to plan.seg[i].gpa,
 *       // and make the bytes from there to plan.seg[i].mem_size zero
 *   }
 *
 * COMPOSITION
 *   tn_loader makes plans; tn_boot_x86 applies them to guest memory. The reserved ranges are the
 *   caller's: the zero page, page tables, ACPI tables, a device tree, the command line.
 *   tn_strerror has a sentence for each detail.
 *
 * GUEST TRUST
 *   The numbers of a plan that tn_loader accepted were checked, but are still the image's choice:
 *   any address, any size up to TN_LOADER_LIMIT. The ranges are the caller's, and trusted.
 *
 * MEMORY
 *   The caller owns the plan and the ranges; the plan points at none of them.
 *
 * THREADS
 *   No state: any number of threads, each with its own plan.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Linux Documentation/arch/x86/boot.rst: "Details of Header Fields", "Loading The Rest of The
 *   Kernel"; arch/arm64/booting.rst; arch/riscv/boot.rst: where a kernel and an initrd may lie.
 *
 * LIMITS
 *   At most 16 loaded segments, below 2^52.
 */
#ifndef TN_LOADER_PLAN_H
#define TN_LOADER_PLAN_H

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

#define TN_LOADER_MAX_SEGS 16
#define TN_LOADER_LIMIT    (1ull << 52) /* what is loaded ends at or below it */
#define TN_LOADER_PAGE     4096ull      /* an initrd's alignment */

/* The machine that a kernel is for: ELF's e_machine, whatever the format. */
enum tn_loader_machine {
    TN_LOADER_EM_ANY = 0, /* asked for: each of these */
    TN_LOADER_EM_X86_64 = 62,
    TN_LOADER_EM_AARCH64 = 183,
    TN_LOADER_EM_RISCV = 243, /* of 64 bits */
};

enum tn_loader_format {
    TN_LOADER_ELF64 = 1,
    TN_LOADER_BZIMAGE = 2,
    TN_LOADER_IMAGE = 3, /* of arm64 or riscv64 */
};

/* Which check refused an image; in brackets the error that comes with it. */
enum tn_loader_detail {
    TN_LOADER_NONE = 0, /* none did */

    /* any file */
    TN_LOADER_EMPTY = 1,      /* no bytes at all [TN_ETRUNC] */
    TN_LOADER_SHORT = 2,      /* too short to tell what it is [TN_ETRUNC] */
    TN_LOADER_UNKNOWN = 3,    /* neither ELF, bzImage nor Image [TN_EFORMAT] */
    TN_LOADER_IS_BZIMAGE = 4, /* a bzImage, and x86-64 is not wanted [TN_EMACHINE] */
    TN_LOADER_IS_ARM64 = 5,   /* an arm64 Image, and that is not wanted [TN_EMACHINE] */
    TN_LOADER_IS_RISCV = 6,   /* a riscv64 Image, and that is not wanted [TN_EMACHINE] */
    TN_LOADER_GZIP = 7,       /* compressed; it is to be unpacked first [TN_EUNSUP] */
    TN_LOADER_BZIP2 = 8,      /* the same */
    TN_LOADER_LZMA = 9,       /* the same */
    TN_LOADER_XZ = 10,        /* the same */
    TN_LOADER_LZO = 11,       /* the same */
    TN_LOADER_LZ4 = 12,       /* the same */
    TN_LOADER_ZSTD = 13,      /* the same */

    /* ELF */
    TN_LOADER_ELF_TRUNC = 16,      /* the file ends inside the 64-byte header [TN_ETRUNC] */
    TN_LOADER_ELF_32BIT = 17,      /* ELFCLASS32 [TN_EUNSUP] */
    TN_LOADER_ELF_BIG_ENDIAN = 18, /* ELFDATA2MSB [TN_EMACHINE] */
    TN_LOADER_ELF_IDENT = 19,      /* e_ident: unknown class, byte order, version [TN_EFORMAT] */
    TN_LOADER_ELF_MACHINE = 20,    /* e_machine is not what is wanted, or known [TN_EMACHINE] */
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
    TN_LOADER_BZ_VERSION = 66,   /* protocol below 2.00, or not 2.x [TN_EUNSUP] */
    TN_LOADER_BZ_JUMP = 67,      /* the header's length, from its jump, is bad [TN_EFORMAT] */
    TN_LOADER_BZ_LOW = 68,       /* LOADED_HIGH is clear: a zImage [TN_EUNSUP] */
    TN_LOADER_BZ_PAYLOAD = 69,   /* syssize passes the end of the file [TN_ETRUNC] */
    TN_LOADER_BZ_ENTRY = 70,     /* it ends before the entry, at 0x200 if 64-bit [TN_EENTRY] */
    TN_LOADER_BZ_ALIGN = 71,     /* kernel_alignment is not a power of two [TN_EFORMAT] */
    TN_LOADER_BZ_MIN_ALIGN = 72, /* min_alignment is above kernel_alignment [TN_EFORMAT] */
    TN_LOADER_BZ_PREF = 73,      /* pref_address is not aligned [TN_EFORMAT] */
    TN_LOADER_BZ_ADDR = 74,      /* pref_address + init_size is too high [TN_ERANGE] */

    /* Image */
    TN_LOADER_IMAGE_TRUNC = 80,      /* the file ends inside the 64-byte header [TN_ETRUNC] */
    TN_LOADER_IMAGE_BIG_ENDIAN = 81, /* flags bit 0 [TN_EMACHINE] */
    TN_LOADER_IMAGE_VERSION = 82,    /* riscv: not 0.2 or a later 0.x [TN_EUNSUP] */
    TN_LOADER_IMAGE_SIZE = 83,       /* riscv: image_size is 0 [TN_EFORMAT] */
    TN_LOADER_IMAGE_ALIGN = 84,      /* riscv: text_offset is no multiple of 2 MiB [TN_EFORMAT] */
    TN_LOADER_IMAGE_ADDR = 85,       /* text_offset + image_size above 2^52 [TN_ERANGE] */

    /* tn_loader_place */
    TN_LOADER_PLACE_RAM = 96,      /* segment `where` is not whole in a RAM range [TN_ENOFIT] */
    TN_LOADER_PLACE_RESERVED = 97, /* a segment meets reserved range `where` [TN_EOVERLAP] */
    TN_LOADER_PLACE_INIT_RAM = 98, /* init_size bytes are not in one RAM range [TN_ENOFIT] */
    TN_LOADER_PLACE_INIT_RESERVED = 99, /* they meet reserved range `where` [TN_EOVERLAP] */
    TN_LOADER_PLACE_NONE = 100,         /* no multiple of align fits anywhere [TN_ENOFIT] */
    TN_LOADER_PLACE_ENTRY = 101,        /* an entry is in no segment's file bytes [TN_EENTRY] */

    /* EFI zboot: a program that unpacks an Image, the payload at offset `where`; by what packed
     * it. All are to be unpacked first [TN_EUNSUP] */
    TN_LOADER_ZBOOT_GZIP = 112,
    TN_LOADER_ZBOOT_LZMA = 113,
    TN_LOADER_ZBOOT_XZ = 114,
    TN_LOADER_ZBOOT_LZO = 115,
    TN_LOADER_ZBOOT_LZ4 = 116,
    TN_LOADER_ZBOOT_ZSTD = 117,
    TN_LOADER_ZBOOT_OTHER = 118, /* some other way */
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
    uint32_t format;  /* enum tn_loader_format */
    uint32_t machine; /* enum tn_loader_machine, which one it is for */
    uint32_t nsegs;
    struct tn_loader_seg seg[TN_LOADER_MAX_SEGS]; /* sorted by gpa, disjoint */
    /* The protocols that the image offers, at least one; other machines than x86 have fdt only. */
    bool has_linux64, has_linux32, has_pvh, has_fdt;
    uint64_t linux64_entry; /* 64-bit Linux protocol: e_entry, or bzImage's address + 0x200 */
    uint64_t linux32_entry; /* 32-bit Linux protocol: bzImage's address; all end below 4 GiB */
    uint64_t pvh_entry;     /* PVH: entered in 32-bit mode, below 4 GiB */
    uint64_t fdt_entry;     /* with a device tree: an Image's address, or an ELF file's e_entry */
    bool relocatable;       /* the plan may be moved, by multiples of align (bzImage, Image) */
    bool above_4g;          /* and above 4 GiB: Image, bzImage's XLF_CAN_BE_LOADED_ABOVE_4G */
    uint64_t align;         /* kernel_alignment, 2 MiB of an Image; 0 if not relocatable */
    uint64_t offset;        /* seg[0].gpa is this far above a multiple of align: text_offset */
    uint64_t init_size;     /* from seg[0].gpa on, the bytes that are the kernel's until it reads
                               the memory map: init_size, image_size, never less than what is
                               loaded; ELF: up to the end of the last segment */
    uint64_t setup_off;     /* bzImage: the setup header in the file, from 0x1f1; else 0 */
    uint64_t setup_len;     /* its bytes, 51 to 144: they go to 0x1f1 of the zero page */
    uint16_t boot_version;  /* bzImage protocol, 0x0200 and up; else 0 */
    uint64_t initrd_max;    /* highest address that the initrd's last byte may have */
    uint32_t cmdline_max;   /* longest command line, without its NUL */
    uint32_t detail;        /* after an error: enum tn_loader_detail */
    uint32_t where;         /* and of which program header, segment or range, from 0 */
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
      (p->has_linux64 != 0 || p->has_linux32 != 0 || p->has_pvh != 0 || p->has_fdt != 0) &&
      (p->has_linux64 != 0 ==> tn_loader_loaded(p, p->linux64_entry)) &&
      (p->has_linux32 != 0 ==> tn_loader_loaded(p, p->linux32_entry) &&
        p->seg[0].gpa + p->init_size <= 0x100000000) &&
      (p->has_pvh != 0 ==> p->pvh_entry < 0x100000000 && tn_loader_loaded(p, p->pvh_entry)) &&
      (p->has_fdt != 0 ==> tn_loader_loaded(p, p->fdt_entry)) &&
      p->seg[0].gpa + p->init_size <= TN_LOADER_LIMIT &&
      (\forall integer i; 0 <= i < p->nsegs ==>
        p->seg[i].gpa + p->seg[i].mem_size <= p->seg[0].gpa + p->init_size) &&
      (p->relocatable != 0 ==> p->format != TN_LOADER_ELF64 && p->nsegs == 1 && p->has_pvh == 0 &&
        0 < p->align <= 0xffffffff && p->offset <= p->seg[0].gpa &&
        (p->seg[0].gpa - p->offset) % p->align == 0) &&
      (p->above_4g != 0 ==> p->has_linux64 != 0 || p->has_fdt != 0) &&
      (p->format != TN_LOADER_ELF64 ==> p->nsegs == 1) &&
      p->setup_off + p->setup_len <= len && p->setup_len <= 144;
    predicate tn_loader_blank(struct tn_loader_plan *p) =
      p->nsegs == 0 && p->has_linux64 == 0 && p->has_linux32 == 0 && p->has_pvh == 0 &&
      p->has_fdt == 0 && p->relocatable == 0 && p->above_4g == 0 && p->offset == 0 &&
      p->setup_off == 0 && p->setup_len == 0 && p->detail == 0;
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
      p->format != TN_LOADER_ELF64 ? p->init_size : p->seg[i].mem_size;
*/

/*
 * Checks that each segment, and of a bzImage or Image all of its init_size, lies whole in one RAM
 * range and meets no reserved one, and that the entries lie in what is loaded. A relocatable plan
 * that does not fit where it is moves to the lowest higher multiple of align in RAM, and offset
 * above it, that does: not down, since a Linux that was loaded below pref_address moves itself back
 * up to it. So an Image gets as near to the base of RAM as can be, which suits it whether or not
 * its flags (arm64, bit 3) ask for that. Below 4 GiB unless above_4g; a bzImage that ends above it
 * has lost linux32. The plan is one that tn_loader_parse accepted. Returns 0; TN_EINVAL: the plan
 * is void; else the error beside plan->detail in enum tn_loader_detail, and all else of the plan is
 * then 0.
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
 * on and of the reserved ranges. (arm64 wants it within 32 GiB of the kernel: initrd_max sees to
 * one above it.) The plan is one that tn_loader_place accepted. Returns 0;
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
    ensures tn_loader_blank(plan) && plan->init_size == 0; */
static inline void tn_loader_void_(struct tn_loader_plan *plan)
{
    uint32_t i;

    plan->format = 0;
    plan->machine = 0;
    plan->nsegs = 0;
    /*@ loop invariant 0 <= i <= TN_LOADER_MAX_SEGS;
        loop assigns i, plan->seg[0 .. TN_LOADER_MAX_SEGS - 1];
        loop variant TN_LOADER_MAX_SEGS - i; */
    for (i = 0; i < TN_LOADER_MAX_SEGS; i++)
        tn_loader_set_(&plan->seg[i], 0, 0, 0, 0);
    plan->has_linux64 = false;
    plan->has_linux32 = false;
    plan->has_pvh = false;
    plan->has_fdt = false;
    plan->linux64_entry = 0;
    plan->linux32_entry = 0;
    plan->pvh_entry = 0;
    plan->fdt_entry = 0;
    plan->relocatable = false;
    plan->above_4g = false;
    plan->align = 0;
    plan->offset = 0;
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
    case TN_LOADER_IMAGE_TRUNC:
        return TN_ETRUNC;
    case TN_LOADER_ELF_32BIT:
    case TN_LOADER_ELF_TYPE:
    case TN_LOADER_PHDR_MANY:
    case TN_LOADER_SEG_MANY:
    case TN_LOADER_NOTE_MANY:
    case TN_LOADER_BZ_VERSION:
    case TN_LOADER_BZ_LOW:
    case TN_LOADER_IMAGE_VERSION:
        return TN_EUNSUP;
    case TN_LOADER_IS_BZIMAGE:
    case TN_LOADER_IS_ARM64:
    case TN_LOADER_IS_RISCV:
    case TN_LOADER_IMAGE_BIG_ENDIAN:
    case TN_LOADER_ELF_BIG_ENDIAN:
    case TN_LOADER_ELF_MACHINE:
        return TN_EMACHINE;
    case TN_LOADER_SEG_ADDR:
    case TN_LOADER_PVH_ADDR:
    case TN_LOADER_BZ_ADDR:
    case TN_LOADER_IMAGE_ADDR:
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
        if ((detail >= TN_LOADER_GZIP && detail <= TN_LOADER_ZSTD) ||
            (detail >= TN_LOADER_ZBOOT_GZIP && detail <= TN_LOADER_ZBOOT_OTHER))
            return TN_EUNSUP;
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

/* The highest address of an initrd's last byte, where an Image at gpa can reach it. */
/*@ requires gpa <= TN_LOADER_LIMIT;
    assigns \nothing; */
static inline uint64_t tn_loader_initrd_max_(uint32_t machine, uint64_t gpa)
{
    /* booting.rst: in one window of 32 GiB with the kernel, from a multiple of 1 GiB on */
    if (machine == TN_LOADER_EM_AARCH64)
        return gpa - gpa % (1ull << 30) + (32ull << 30) - 1;
    return TN_LOADER_LIMIT - 1;
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
 * The lowest place where size bytes lie in the range, end at or below limit, and meet nothing
 * reserved: offset above a multiple of align that is in the range or above it, and not below from.
 * Each turn passes one reserved range for good.
 */
/*@ requires \valid_read(ram) && \valid_read(reserved + (0 .. nreserved - 1));
    requires from <= TN_LOADER_LIMIT && limit <= TN_LOADER_LIMIT && 0 < size;
    requires 0 < align <= 0xffffffff && offset <= TN_LOADER_LIMIT;
    assigns \nothing;
    ensures \result != TN_LOADER_NOWHERE_ ==>
      from + offset <= \result && \result + size <= limit &&
      (\result - offset) % align == 0 &&
      tn_loader_inside((struct tn_loader_range *)ram, \result, size) &&
      \forall integer k; 0 <= k < nreserved ==>
        !tn_loader_meets((struct tn_loader_range *)reserved + k, \result, size); */
static inline uint64_t tn_loader_lowest_(const struct tn_loader_range *ram,
                                         const struct tn_loader_range *reserved, uint32_t nreserved,
                                         uint64_t from, uint64_t size, uint64_t align,
                                         uint64_t offset, uint64_t limit)
{
    uint64_t at;

    if (ram->gpa > from)
        from = ram->gpa;
    if (from > limit)
        return TN_LOADER_NOWHERE_;
    at = tn_loader_up_(from, align) + offset;
    /*@ loop invariant from + offset <= at && (at - offset) % align == 0;
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
        /* what is reserved meets the bytes at `at`, so that it ends above offset */
        at = tn_loader_up_(rgpa + rsize - offset, align) + offset;
    }
    return TN_LOADER_NOWHERE_;
}

/* The bytes that segment i wants in one RAM range: more than it loads, if it unpacks itself. */
/*@ requires \valid_read(plan) && i < plan->nsegs <= TN_LOADER_MAX_SEGS;
    assigns \nothing;
    ensures \result == tn_loader_need((struct tn_loader_plan *)plan, i); */
static inline uint64_t tn_loader_need_(const struct tn_loader_plan *plan, uint32_t i)
{
    return plan->format != TN_LOADER_ELF64 ? plan->init_size : plan->seg[i].mem_size;
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
    bool init = plan->format != TN_LOADER_ELF64;
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

/* The lowest place for a relocatable plan, of those at or above where it is. */
/*@ requires \valid_read(plan) && tn_loader_plan_ok((struct tn_loader_plan *)plan, SIZE_MAX);
    requires plan->relocatable != 0;
    requires \valid_read(ram + (0 .. nram - 1));
    requires \valid_read(reserved + (0 .. nreserved - 1));
    assigns \nothing;
    ensures \result != TN_LOADER_NOWHERE_ ==>
      \result + plan->init_size <= (plan->above_4g != 0 ? TN_LOADER_LIMIT : 0x100000000) &&
      plan->offset <= \result && (\result - plan->offset) % plan->align == 0 &&
      tn_loader_placed((struct tn_loader_range *)ram, nram, (struct tn_loader_range *)reserved,
                       nreserved, \result, plan->init_size); */
static inline uint64_t tn_loader_find_(const struct tn_loader_plan *plan,
                                       const struct tn_loader_range *ram, uint32_t nram,
                                       const struct tn_loader_range *reserved, uint32_t nreserved)
{
    uint64_t limit = plan->above_4g ? TN_LOADER_LIMIT : 1ull << 32;
    uint64_t best = TN_LOADER_NOWHERE_;
    uint32_t i;

    /*@ loop invariant 0 <= i <= nram;
        loop invariant best != TN_LOADER_NOWHERE_ ==>
          best + plan->init_size <= limit && plan->offset <= best &&
          (best - plan->offset) % plan->align == 0 &&
          tn_loader_placed((struct tn_loader_range *)ram, nram,
                           (struct tn_loader_range *)reserved, nreserved, best,
                           plan->init_size);
        loop assigns i, best;
        loop variant nram - i; */
    for (i = 0; i < nram; i++) {
        uint64_t at =
            tn_loader_lowest_(&ram[i], reserved, nreserved, plan->seg[0].gpa - plan->offset,
                              plan->init_size, plan->align, plan->offset, limit);
        if (at < best)
            best = at;
    }
    return best;
}

/* A relocatable plan, placed at gpa: the entries go with it. */
/*@ requires \valid(plan) && tn_loader_plan_ok(plan, SIZE_MAX) && plan->relocatable != 0;
    requires gpa + plan->init_size <= TN_LOADER_LIMIT && plan->offset <= gpa;
    requires (gpa - plan->offset) % plan->align == 0;
    requires plan->above_4g == 0 ==> gpa + plan->init_size <= 0x100000000;
    assigns plan->seg[0].gpa, plan->linux64_entry, plan->linux32_entry, plan->fdt_entry,
      plan->has_linux32, plan->initrd_max;
    ensures tn_loader_plan_ok(plan, SIZE_MAX) && plan->seg[0].gpa == gpa; */
static inline void tn_loader_move_(struct tn_loader_plan *plan, uint64_t gpa)
{
    uint64_t from = plan->seg[0].gpa;

    if (plan->has_linux64)
        plan->linux64_entry = gpa + (plan->linux64_entry - from);
    if (plan->has_linux32)
        plan->linux32_entry = gpa + (plan->linux32_entry - from);
    if (plan->has_fdt)
        plan->fdt_entry = gpa + (plan->fdt_entry - from);
    plan->seg[0].gpa = gpa;
    if (gpa + plan->init_size > 1ull << 32) { /* out of a 32-bit entry's reach */
        plan->has_linux32 = false;
        plan->linux32_entry = 0;
    }
    if (plan->format == TN_LOADER_IMAGE)
        plan->initrd_max = tn_loader_initrd_max_(plan->machine, gpa);
    /*@ assert tn_loader_segs_ok(plan, SIZE_MAX); */
    /*@ assert plan->has_linux64 != 0 ==> plan->seg[0].gpa <= plan->linux64_entry <
          plan->seg[0].gpa + plan->seg[0].file_size; */
    /*@ assert plan->has_linux32 != 0 ==> plan->seg[0].gpa <= plan->linux32_entry <
          plan->seg[0].gpa + plan->seg[0].file_size; */
    /*@ assert plan->has_fdt != 0 ==> plan->seg[0].gpa <= plan->fdt_entry <
          plan->seg[0].gpa + plan->seg[0].file_size; */
    /*@ assert plan->has_linux64 != 0 ==> tn_loader_loaded(plan, plan->linux64_entry); */
    /*@ assert plan->has_linux32 != 0 ==> tn_loader_loaded(plan, plan->linux32_entry); */
    /*@ assert plan->has_fdt != 0 ==> tn_loader_loaded(plan, plan->fdt_entry); */
    /*@ assert plan->has_pvh == 0 && plan->nsegs == 1; */
    /*@ assert plan->has_linux64 != 0 || plan->has_linux32 != 0 || plan->has_fdt != 0; */
    /*@ assert plan->above_4g != 0 ==> plan->has_linux64 != 0 || plan->has_fdt != 0; */
    /*@ assert \forall integer i; 0 <= i < plan->nsegs ==>
          plan->seg[i].gpa + plan->seg[i].mem_size <= plan->seg[0].gpa + plan->init_size; */
    /*@ assert plan->has_linux32 != 0 ==> plan->seg[0].gpa + plan->init_size <= 0x100000000; */
    /*@ assert plan->seg[0].gpa + plan->init_size <= TN_LOADER_LIMIT; */
    /*@ assert plan->format != TN_LOADER_ELF64; */
    /*@ assert plan->setup_off + plan->setup_len <= SIZE_MAX && plan->setup_len <= 144; */
    /*@ assert plan->seg[0].gpa == gpa && plan->offset == \at(plan->offset, Pre) &&
          plan->align == \at(plan->align, Pre); */
    /*@ assert 0 < plan->align <= 0xffffffff && plan->offset <= plan->seg[0].gpa &&
          (plan->seg[0].gpa - plan->offset) % plan->align == 0; */
}

TN_API int tn_loader_place(struct tn_loader_plan *plan, const struct tn_loader_range *ram,
                           uint32_t nram, const struct tn_loader_range *reserved,
                           uint32_t nreserved)
{
    uint64_t best;
    uint32_t detail, where = 0;

    if (plan->nsegs == 0 || plan->nsegs > TN_LOADER_MAX_SEGS) {
        tn_loader_void_(plan);
        return TN_EINVAL;
    }
    if ((plan->has_linux64 && !tn_loader_loaded_(plan, plan->linux64_entry)) ||
        (plan->has_linux32 && !tn_loader_loaded_(plan, plan->linux32_entry)) ||
        (plan->has_pvh && !tn_loader_loaded_(plan, plan->pvh_entry)) ||
        (plan->has_fdt && !tn_loader_loaded_(plan, plan->fdt_entry)))
        return tn_loader_refuse_(plan, TN_LOADER_PLACE_ENTRY);
    detail = tn_loader_check_(plan, ram, nram, reserved, nreserved, &where);
    if (detail == TN_LOADER_NONE)
        return TN_OK;
    plan->where = where;
    if (!plan->relocatable)
        return tn_loader_refuse_(plan, detail);

    best = tn_loader_find_(plan, ram, nram, reserved, nreserved);
    if (best == TN_LOADER_NOWHERE_) {
        plan->where = 0;
        return tn_loader_refuse_(plan, TN_LOADER_PLACE_NONE);
    }
    plan->where = 0;
    tn_loader_move_(plan, best);
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
