/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_loader - a kernel image's bytes to a load plan: what goes where, and where it starts.
 *
 * WHAT
 *   Parses an ELF64 kernel (x86-64 with its PVH note, arm64, riscv64), a Linux bzImage or an Image
 *   of arm64 or riscv64, and says which bytes of the file belong at which guest address, which boot
 *   protocols the image offers, and what room it needs. Names what it does not load: a compressed
 *   file, an EFI zboot image, a zImage. Copies nothing.
 *
 * USAGE
 *   static uint8_t image[1u << 20]; // the file's bytes
 *   static const struct tn_loader_range ram[] = {{0, 0xa0000}, {0x100000, 0x7f00000}};
 *   static const struct tn_loader_range reserved[] = {{0, 0x10000}};
 *   struct tn_loader_plan plan;
 *
 *   if (tn_loader_parse(image, sizeof(image), &plan) < 0 ||
 *       tn_loader_place(&plan, ram, 2, reserved, 1) < 0)
 *       return (int)plan.detail; // which check refused it
 *   if (plan.has_linux64)
 *       return 0; // plan.linux64_entry is where a 64-bit vCPU starts
 *
 * COMPOSITION
 *   tn_loader_plan has the plan itself, and finds a place for it. tn_boot_x86 applies a plan to
 *   guest memory and writes the tables that its protocol wants. tn_strerror has a sentence for each
 *   detail.
 *
 * GUEST TRUST
 *   The image is hostile, and may change during the call if it is mapped: each field is read once,
 *   and the plan has the values that were checked. So use the plan, never the image's header again;
 *   the setup header's bytes are to be copied, then overwritten with the plan's values. A plan that
 *   was accepted names no byte outside of the file, whatever the file holds.
 *
 * MEMORY
 *   The caller owns the image and the plan; the plan does not point at the image.
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
 *   Kernel", "32-bit Boot Protocol", "64-bit Boot Protocol"; arch/arm64/booting.rst, section 4;
 *   arch/riscv/boot-image-header.rst; drivers/firmware/efi/libstub/zboot-header.S.
 *
 * LIMITS
 *   No 32-bit ELF, no compressed file, no zImage. A bzImage's header only ever grows, so that
 *   protocol 2.16 and on are read as 2.15. The vmlinux of an arm64 or riscv64 Linux has virtual
 *   addresses for physical ones, and is refused for them: those boot as Images. At most 64 program
 *   headers, 16 loaded segments, 1024 notes in a PT_NOTE.
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

#include "tn_loader_plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_LOADER_MAX_PHDRS 64
#define TN_LOADER_MAX_NOTES 1024

/* What a bzImage before protocol 2.10 is given as init_size, for the size bytes that are loaded:
 * such a kernel does not say what it unpacks to. Its kernels are 2 to 5 times as large as what is
 * loaded, with .bss; 4 MiB are for where it puts itself (up to 2 MiB) and its first page tables. */
#define TN_LOADER_BZ_ROOM(size) (8ull * (size) + (4ull << 20))
/* And an Image of arm64 without image_size, on top of what is loaded: .bss and page tables. */
#define TN_LOADER_IMAGE_ROOM (16ull << 20)

/*
 * Reads the len bytes of image, a kernel for machine in enum tn_loader_machine.
 *   ELF      PT_LOADs by p_paddr, e_entry where it is the physical address of loaded bytes, the
 *            PVH entry of the first note of that kind.
 *   bzImage  of protocol 2.00 and up, at pref_address; where it has none, at code32_start, or at
 *            1 MiB if that is higher (aligned). linux64 if XLF_KERNEL_64 is set, linux32 unless it
 *            ends above 4 GiB. What a protocol lacks is what boot.rst says of it: initrd_max
 *            0x37ffffff before 2.03, syssize all that follows the setup part before 2.04, not
 *            relocatable before 2.05, cmdline_max 255 before 2.06, init_size TN_LOADER_BZ_ROOM
 *            before 2.10.
 *   Image    at text_offset, to be moved by multiples of 2 MiB to where RAM is (tn_loader_place).
 *            An arm64 one without image_size, before Linux 3.17: text_offset is 0x80000, and
 *            init_size TN_LOADER_IMAGE_ROOM more than what is loaded.
 * Returns 0, or the error beside plan->detail in enum tn_loader_detail; all else of the plan is
 * then 0. TN_EMACHINE: a kernel, but for another machine; TN_EINVAL, with TN_LOADER_UNKNOWN:
 * machine is none that is known here.
 */
/*@ requires \valid_read(image + (0 .. len - 1));
    requires \valid(plan) && \separated(image + (0 .. len - 1), plan);
    assigns *plan;
    ensures \result <= 0;
    ensures \result == 0 ==> tn_loader_plan_ok(plan, len) && plan->detail == 0;
    ensures \result == 0 ==> machine == TN_LOADER_EM_ANY || plan->machine == machine;
    ensures \result != 0 ==> plan->nsegs == 0 && plan->detail != 0; */
TN_API int tn_loader_parse_for(const uint8_t *image, size_t len, uint32_t machine,
                               struct tn_loader_plan *plan);

/* The same, for x86-64. */
/*@ requires \valid_read(image + (0 .. len - 1));
    requires \valid(plan) && \separated(image + (0 .. len - 1), plan);
    assigns *plan;
    ensures \result <= 0;
    ensures \result == 0 ==> tn_loader_plan_ok(plan, len) && plan->detail == 0;
    ensures \result == 0 ==> plan->machine == TN_LOADER_EM_X86_64;
    ensures \result != 0 ==> plan->nsegs == 0 && plan->detail != 0; */
TN_API int tn_loader_parse(const uint8_t *image, size_t len, struct tn_loader_plan *plan);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* Whether a kernel for machine is what is wanted. */
/*@ assigns \nothing;
    ensures \result != 0 <==> wanted == TN_LOADER_EM_ANY || wanted == machine; */
static inline bool tn_loader_wanted_(uint32_t wanted, uint32_t machine)
{
    return wanted == TN_LOADER_EM_ANY || wanted == machine;
}

/*@ assigns \nothing;
    ensures \result != 0 <==> machine == TN_LOADER_EM_X86_64 ||
      machine == TN_LOADER_EM_AARCH64 || machine == TN_LOADER_EM_RISCV; */
static inline bool tn_loader_known_(uint32_t machine)
{
    return machine == TN_LOADER_EM_X86_64 || machine == TN_LOADER_EM_AARCH64 ||
           machine == TN_LOADER_EM_RISCV;
}

/* Linux's COMMAND_LINE_SIZE without the NUL. */
/*@ assigns \nothing; */
static inline uint32_t tn_loader_cmdline_max_(uint32_t machine)
{
    return machine == TN_LOADER_EM_RISCV ? 1023 : 2047;
}

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

    if (type == 4 && plan->machine == TN_LOADER_EM_X86_64) /* PT_NOTE; the others have no PVH */
        return tn_loader_notes_(image, len, off, filesz, plan);
    if (type != 1) /* PT_LOAD */
        return TN_LOADER_NONE;
    if (entry >= vaddr && entry - vaddr < filesz)
        *virt = true;
    return tn_loader_add_(plan, paddr, memsz, off, filesz, len);
}

/* What the segments and notes of a file of len bytes amount to, all of them read. */
/*@ requires \valid(plan) && tn_loader_segs_ok(plan, len);
    requires plan->has_linux64 == 0 && plan->has_linux32 == 0 && plan->has_fdt == 0;
    requires plan->relocatable == 0 && plan->above_4g == 0 && plan->detail == 0;
    requires plan->format == TN_LOADER_ELF64 && plan->setup_off == 0 && plan->setup_len == 0;
    requires plan->has_pvh != 0 ==> plan->pvh_entry < 0x100000000;
    assigns plan->has_linux64, plan->linux64_entry, plan->has_fdt, plan->fdt_entry,
      plan->init_size;
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
    if (tn_loader_loaded_(plan, entry)) {
        plan->has_linux64 = plan->machine == TN_LOADER_EM_X86_64;
        plan->has_fdt = !plan->has_linux64;
        if (plan->has_linux64)
            plan->linux64_entry = entry;
        else
            plan->fdt_entry = entry;
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
    /*@ assert plan->has_fdt != 0 ==> tn_loader_loaded(plan, plan->fdt_entry); */
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
    requires tn_loader_blank(plan);
    assigns *plan;
    ensures \result == 0 ==> tn_loader_plan_ok(plan, len) && plan->detail == 0;
    ensures \result == 0 ==> wanted == TN_LOADER_EM_ANY || plan->machine == wanted; */
static inline uint32_t tn_loader_elf_(const volatile uint8_t *image, uint64_t len, uint32_t wanted,
                                      struct tn_loader_plan *plan)
{
    uint8_t elfclass, data, version;
    uint16_t machine, phentsize, phnum;
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
    machine = (uint16_t)tn_get_(image + 18, 2);
    if (!tn_loader_known_(machine) || !tn_loader_wanted_(wanted, machine))
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
    plan->machine = machine;
    plan->initrd_max = 0x37ffffff; /* what Linux/x86 always could, see initrd_addr_max */
    plan->cmdline_max = tn_loader_cmdline_max_(machine);
    if (machine != TN_LOADER_EM_X86_64)
        plan->initrd_max = TN_LOADER_LIMIT - 1;
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

/* Where the setup header of a protocol ends, at least: boot.rst "Details of Header Fields". */
/*@ assigns \nothing;
    ensures 0x224 <= \result <= 0x264; */
static inline uint32_t tn_loader_bz_end_(uint16_t version)
{
    if (version >= 0x020a)
        return 0x264; /* init_size */
    if (version >= 0x0209)
        return 0x258; /* setup_data */
    if (version >= 0x0208)
        return 0x250; /* payload_length */
    if (version >= 0x0207)
        return 0x248; /* hardware_subarch_data */
    if (version >= 0x0206)
        return 0x23c; /* cmdline_size */
    if (version >= 0x0205)
        return 0x235; /* relocatable_kernel */
    if (version >= 0x0203)
        return 0x230; /* initrd_addr_max */
    if (version >= 0x0202)
        return 0x22c;                         /* cmd_line_ptr */
    return version == 0x0201 ? 0x226 : 0x224; /* heap_end_ptr, bootsect_kludge */
}

/* What is loaded: *size bytes of memory, for what follows *setup in the file. That may end inside
 * the last paragraph of 16 bytes, which syssize counts. */
/*@ requires \valid_read(image + (0 .. len - 1)) && 0x224 <= len;
    requires \valid(setup) && \valid(size) && \separated(setup, size, image + (0 .. len - 1));
    assigns *setup, *size;
    ensures \result == 0 ==> 0x400 <= *setup < len && 0 < *size < len - *setup + 16; */
static inline uint32_t tn_loader_bz_payload_(const volatile uint8_t *image, uint64_t len,
                                             uint16_t version, uint64_t *setup, uint64_t *size)
{
    uint8_t sects = (uint8_t)tn_get_(image + 0x1f1, 1);
    uint64_t rest;

    *setup = ((sects ? sects : 4u) + 1u) * 512u;
    if (*setup > len)
        return TN_LOADER_BZ_TRUNC;
    rest = len - *setup;
    if (version >= 0x0204)
        *size = (uint64_t)(uint32_t)tn_get_(image + 0x1f4, 4) * 16;
    else /* syssize had 16 bits, too few for a bzImage */
        *size = rest;
    if (*size > rest && *size - rest >= 16)
        return TN_LOADER_BZ_PAYLOAD;
    return *size == 0 ? TN_LOADER_BZ_ENTRY : TN_LOADER_NONE;
}

/* Where the kernel wants to be, in *pref, and by what it may be moved from there. */
/*@ requires \valid_read(image + (0 .. 0x263)) && \valid(plan) && \valid(pref);
    requires \separated(pref, plan, image + (0 .. 0x263));
    requires plan->relocatable == 0;
    assigns *pref, plan->relocatable, plan->align;
    ensures \result == 0 && plan->relocatable != 0 ==>
      0 < plan->align <= 0xffffffff && *pref % plan->align == 0; */
static inline uint32_t tn_loader_bz_pref_(const volatile uint8_t *image, uint16_t version,
                                          struct tn_loader_plan *plan, uint64_t *pref)
{
    uint32_t align = 1;

    if (version >= 0x0205 && (uint8_t)tn_get_(image + 0x234, 1) != 0) {
        align = (uint32_t)tn_get_(image + 0x230, 4);
        if (align == 0 || (align & (align - 1)) != 0)
            return TN_LOADER_BZ_ALIGN;
        if (version >= 0x020a) {
            uint8_t min_align = (uint8_t)tn_get_(image + 0x235, 1);

            if (min_align > 31 || align >> min_align == 0)
                return TN_LOADER_BZ_MIN_ALIGN;
        }
        plan->relocatable = true;
        plan->align = align;
    }
    /* A kernel that is not relocatable moves itself to pref_address: it is put there at once. */
    *pref = version >= 0x020a ? tn_get_(image + 0x258, 8) : 0;
    if (*pref == 0) {
        *pref = (uint32_t)tn_get_(image + 0x214, 4); /* code32_start */
        if (*pref < 0x100000)
            *pref = 0x100000;
        *pref = tn_loader_up_(*pref, align);
    }
    return *pref % align != 0 ? TN_LOADER_BZ_PREF : TN_LOADER_NONE;
}

/* The one segment of size bytes at pref, `bytes` of them from setup in the file, and what goes with
 * it; the setup header has `header` bytes. */
/*@ requires \valid(plan) && plan->has_pvh == 0 && plan->has_fdt == 0;
    requires plan->offset == 0 && plan->detail == 0;
    requires 0 < bytes <= size <= init && setup + bytes <= len;
    requires pref + init <= TN_LOADER_LIMIT;
    requires plan->has_linux64 != 0 || plan->has_linux32 != 0;
    requires plan->has_linux64 != 0 ==> 0x200 < bytes;
    requires plan->has_linux32 != 0 ==> pref + init <= 0x100000000;
    requires plan->above_4g != 0 ==> plan->has_linux64 != 0;
    requires plan->relocatable != 0 ==> 0 < plan->align <= 0xffffffff && pref % plan->align == 0;
    requires header <= 144 && 0x1f1 + header <= len;
    assigns plan->format, plan->machine, plan->nsegs, plan->seg[0], plan->linux64_entry,
      plan->linux32_entry, plan->init_size, plan->setup_off, plan->setup_len;
    ensures tn_loader_plan_ok(plan, len) && plan->detail == 0;
    ensures plan->machine == TN_LOADER_EM_X86_64; */
static inline void tn_loader_bz_set_(struct tn_loader_plan *plan, uint64_t len, uint64_t pref,
                                     uint64_t size, uint64_t setup, uint64_t bytes, uint64_t init,
                                     uint32_t header)
{
    (void)len; /* for the contract */
    plan->format = TN_LOADER_BZIMAGE;
    plan->machine = TN_LOADER_EM_X86_64;
    plan->nsegs = 1;
    tn_loader_set_(&plan->seg[0], pref, size, setup, bytes);
    if (plan->has_linux64)
        plan->linux64_entry = pref + 0x200;
    if (plan->has_linux32)
        plan->linux32_entry = pref;
    plan->init_size = init;
    plan->setup_off = 0x1f1;
    plan->setup_len = header;
    /*@ assert plan->has_linux64 != 0 ==> plan->seg[0].gpa <= plan->linux64_entry <
          plan->seg[0].gpa + plan->seg[0].file_size; */
    /*@ assert plan->has_linux32 != 0 ==> plan->seg[0].gpa <= plan->linux32_entry <
          plan->seg[0].gpa + plan->seg[0].file_size; */
    /*@ assert plan->has_linux64 != 0 ==> tn_loader_loaded(plan, plan->linux64_entry); */
    /*@ assert plan->has_linux32 != 0 ==> tn_loader_loaded(plan, plan->linux32_entry); */
    /*@ assert plan->seg[0].gpa + plan->init_size <= TN_LOADER_LIMIT; */
    /*@ assert tn_loader_segs_ok(plan, len); */
    /*@ assert plan->has_pvh == 0 && plan->has_fdt == 0 && plan->nsegs == 1; */
    /*@ assert plan->has_linux64 != 0 || plan->has_linux32 != 0; */
    /*@ assert plan->above_4g != 0 ==> plan->has_linux64 != 0; */
    /*@ assert plan->has_linux32 != 0 ==> plan->seg[0].gpa + plan->init_size <= 0x100000000; */
    /*@ assert \forall integer i; 0 <= i < plan->nsegs ==>
          plan->seg[i].gpa + plan->seg[i].mem_size <= plan->seg[0].gpa + plan->init_size; */
    /*@ assert plan->format != TN_LOADER_ELF64 && plan->detail == 0; */
    /*@ assert plan->setup_off + plan->setup_len <= len && plan->setup_len <= 144; */
    /*@ assert plan->offset == 0 && plan->seg[0].gpa == pref; */
    /*@ assert plan->relocatable != 0 ==> 0 < plan->align <= 0xffffffff &&
          (plan->seg[0].gpa - plan->offset) % plan->align == 0; */
}

/* The bzImage whose boot_flag and magic number were seen; the plan is void. */
/*@ requires \valid_read(image + (0 .. len - 1)) && \valid(plan);
    requires \separated(image + (0 .. len - 1), plan);
    requires tn_loader_blank(plan);
    assigns *plan;
    ensures \result == 0 ==> tn_loader_plan_ok(plan, len) && plan->detail == 0;
    ensures \result == 0 ==> plan->machine == TN_LOADER_EM_X86_64; */
static inline uint32_t tn_loader_bzimage_(const volatile uint8_t *image, uint64_t len,
                                          struct tn_loader_plan *plan)
{
    uint16_t jump, version, xloadflags = 0;
    uint64_t setup, size, bytes, pref, init;
    uint32_t end, detail;

    if (len < 0x208)
        return TN_LOADER_BZ_TRUNC;
    version = (uint16_t)tn_get_(image + 0x206, 2);
    if (version < 0x0200 || version > 0x02ff)
        return TN_LOADER_BZ_VERSION;
    end = tn_loader_bz_end_(version);
    if (len < 0x400) /* the boot sector, and one more that has the header: never less */
        return TN_LOADER_BZ_TRUNC;
    if (len > TN_LOADER_LIMIT) /* so that what follows can't wrap */
        return TN_LOADER_BZ_ADDR;
    jump = (uint16_t)tn_get_(image + 0x200, 2); /* 0xeb, then the header's length from 0x202 on */
    if (jump % 256 != 0xeb || jump / 256 < end - 0x202 || jump / 256 > 0x7f)
        return TN_LOADER_BZ_JUMP;
    if ((uint8_t)tn_get_(image + 0x211, 1) % 2 == 0)
        return TN_LOADER_BZ_LOW;
    if (version >= 0x020c)
        xloadflags = (uint16_t)tn_get_(image + 0x236, 2);
    detail = tn_loader_bz_payload_(image, len, version, &setup, &size);
    if (detail == TN_LOADER_NONE)
        detail = tn_loader_bz_pref_(image, version, plan, &pref);
    if (detail != TN_LOADER_NONE)
        return detail;
    /*@ assert plan->relocatable != 0 ==> 0 < plan->align <= 0xffffffff &&
          pref % plan->align == 0; */

    bytes = size < len - setup ? size : len - setup;
    plan->has_linux64 = xloadflags % 2 != 0;
    if (plan->has_linux64 && bytes <= 0x200)
        return TN_LOADER_BZ_ENTRY;
    plan->above_4g = plan->has_linux64 && xloadflags / 2 % 2 != 0;
    init = TN_LOADER_BZ_ROOM(size);
    if (version >= 0x020a)
        init = (uint32_t)tn_get_(image + 0x260, 4);
    if (init < size)
        init = size;
    plan->has_linux32 = tn_loader_fits_(pref, init, 1ull << 32);
    if (!plan->has_linux32 && !(plan->above_4g && tn_loader_fits_(pref, init, TN_LOADER_LIMIT)))
        return TN_LOADER_BZ_ADDR;

    plan->boot_version = version;
    plan->initrd_max = version >= 0x0203 ? (uint32_t)tn_get_(image + 0x22c, 4) : 0x37ffffff;
    plan->cmdline_max = version >= 0x0206 ? (uint32_t)tn_get_(image + 0x238, 4) : 255;
    tn_loader_bz_set_(plan, len, pref, size, setup, bytes, init, 0x202u - 0x1f1u + jump / 256u);
    return TN_LOADER_NONE;
}

/* The Image whose magic number was seen, of arm64 or riscv64; the plan is void. */
/*@ requires \valid_read(image + (0 .. len - 1)) && \valid(plan);
    requires \separated(image + (0 .. len - 1), plan);
    requires tn_loader_blank(plan);
    assigns *plan;
    ensures \result == 0 ==> tn_loader_plan_ok(plan, len) && plan->detail == 0;
    ensures \result == 0 ==> plan->machine == machine; */
static inline uint32_t tn_loader_image_(const volatile uint8_t *image, uint64_t len,
                                        uint32_t machine, struct tn_loader_plan *plan)
{
    uint64_t offset, room;

    if (len < 64)
        return TN_LOADER_IMAGE_TRUNC;
    if (len > TN_LOADER_LIMIT)
        return TN_LOADER_IMAGE_ADDR;
    if ((uint8_t)tn_get_(image + 24, 1) % 2 != 0) /* flags */
        return TN_LOADER_IMAGE_BIG_ENDIAN;
    offset = tn_get_(image + 8, 8);
    room = tn_get_(image + 16, 8);
    if (machine == TN_LOADER_EM_RISCV) {
        uint32_t version = (uint32_t)tn_get_(image + 32, 4); /* major, minor: 16 bits each */

        if (version < 2 || version > 0xffff)
            return TN_LOADER_IMAGE_VERSION;
        if (room == 0)
            return TN_LOADER_IMAGE_SIZE;
        if (offset % 0x200000 != 0)
            return TN_LOADER_IMAGE_ALIGN;
    } else if (room == 0) {
        offset = 0x80000; /* the field may be big-endian */
        room = len + TN_LOADER_IMAGE_ROOM;
    }
    if (room < len)
        room = len;
    if (!tn_loader_fits_(offset, room, TN_LOADER_LIMIT))
        return TN_LOADER_IMAGE_ADDR;

    plan->format = TN_LOADER_IMAGE;
    plan->machine = machine;
    plan->nsegs = 1;
    tn_loader_set_(&plan->seg[0], offset, len, 0, len);
    plan->has_fdt = true;
    plan->fdt_entry = offset;
    plan->relocatable = true;
    plan->above_4g = true;
    plan->align = 0x200000;
    plan->offset = offset;
    plan->init_size = room;
    plan->initrd_max = tn_loader_initrd_max_(machine, offset);
    plan->cmdline_max = tn_loader_cmdline_max_(machine);
    /*@ assert plan->seg[0].gpa <= plan->fdt_entry <
          plan->seg[0].gpa + plan->seg[0].file_size; */
    /*@ assert tn_loader_segs_ok(plan, len); */
    return TN_LOADER_NONE;
}

/* By what a file with these first bytes, as one little-endian number, is compressed; 0: it isn't.
 * The kernel's build makes each of these, lz4 with a magic number of its own. */
/*@ assigns \nothing; */
static inline uint32_t tn_loader_packed_(uint32_t magic)
{
    if (magic % 0x10000 == 0x8b1f)
        return TN_LOADER_GZIP;
    if (magic % 0x1000000 == 0x685a42)
        return TN_LOADER_BZIP2;
    if (magic % 0x1000000 == 0x00005d)
        return TN_LOADER_LZMA;
    if (magic == 0x587a37fd)
        return TN_LOADER_XZ;
    if (magic == 0x4f5a4c89)
        return TN_LOADER_LZO;
    if (magic == 0x184c2102 || magic == 0x184d2204)
        return TN_LOADER_LZ4;
    return magic == 0xfd2fb528 ? TN_LOADER_ZSTD : TN_LOADER_NONE;
}

/* By what an EFI zboot image is packed: the first 4 bytes of the type, a string, and the next. */
/*@ assigns \nothing;
    ensures \result != 0; */
static inline uint32_t tn_loader_zboot_(uint32_t type, uint32_t next)
{
    if (type == 0x70697a67 && next % 256 == 0) /* "gzip" */
        return TN_LOADER_ZBOOT_GZIP;
    if (type == 0x616d7a6c && next % 256 == 0) /* "lzma" */
        return TN_LOADER_ZBOOT_LZMA;
    if (type == 0x656b7a78 && next % 0x1000000 == 0x6e72) /* "xzkern" */
        return TN_LOADER_ZBOOT_XZ;
    if (type == 0x006f7a6c) /* "lzo" */
        return TN_LOADER_ZBOOT_LZO;
    if (type == 0x00347a6c) /* "lz4" */
        return TN_LOADER_ZBOOT_LZ4;
    if (type == 0x6474737a) /* "zstd", and its level */
        return TN_LOADER_ZBOOT_ZSTD;
    return TN_LOADER_ZBOOT_OTHER;
}

/*@ requires \valid_read(image + (0 .. len - 1)) && \valid(plan);
    requires \separated(image + (0 .. len - 1), plan);
    requires tn_loader_blank(plan);
    assigns *plan;
    ensures \result == 0 ==> tn_loader_plan_ok(plan, len) && plan->detail == 0;
    ensures \result == 0 ==> wanted == TN_LOADER_EM_ANY || plan->machine == wanted; */
static inline uint32_t tn_loader_any_(const volatile uint8_t *image, uint64_t len, uint32_t wanted,
                                      struct tn_loader_plan *plan)
{
    uint32_t magic, packed;

    if (len == 0)
        return TN_LOADER_EMPTY;
    if (len < 4)
        return TN_LOADER_SHORT;
    magic = (uint32_t)tn_get_(image, 4);
    if (magic == 0x464c457f)
        return tn_loader_elf_(image, len, wanted, plan);
    packed = tn_loader_packed_(magic);
    if (packed != TN_LOADER_NONE)
        return packed;
    if (len >= 32 && magic % 0x10000 == 0x5a4d && /* "MZ", "zimg" */
        (uint32_t)tn_get_(image + 4, 4) == 0x676d697a) {
        plan->where = (uint32_t)tn_get_(image + 8, 4);
        return tn_loader_zboot_((uint32_t)tn_get_(image + 24, 4), (uint32_t)tn_get_(image + 28, 4));
    }
    if (len >= 0x206 && (uint32_t)tn_get_(image + 0x202, 4) == 0x53726448) { /* "HdrS" */
        if (!tn_loader_wanted_(wanted, TN_LOADER_EM_X86_64))
            return TN_LOADER_IS_BZIMAGE;
        if ((uint16_t)tn_get_(image + 0x1fe, 2) != 0xaa55)
            return TN_LOADER_BZ_BOOT_FLAG;
        return tn_loader_bzimage_(image, len, plan);
    }
    if (len >= 60) {
        uint32_t magic2 = (uint32_t)tn_get_(image + 56, 4);

        if (magic2 == 0x644d5241) { /* "ARM" and 0x64 */
            if (!tn_loader_wanted_(wanted, TN_LOADER_EM_AARCH64))
                return TN_LOADER_IS_ARM64;
            return tn_loader_image_(image, len, TN_LOADER_EM_AARCH64, plan);
        }
        if (magic2 == 0x05435352) { /* "RSC" and 5 */
            if (!tn_loader_wanted_(wanted, TN_LOADER_EM_RISCV))
                return TN_LOADER_IS_RISCV;
            return tn_loader_image_(image, len, TN_LOADER_EM_RISCV, plan);
        }
    }
    if (len < 0x206 && magic % 0x10000 == 0x5a4d) /* "MZ": a bzImage begins so, too */
        return TN_LOADER_SHORT;
    return TN_LOADER_UNKNOWN;
}

TN_API int tn_loader_parse_for(const uint8_t *image, size_t len, uint32_t machine,
                               struct tn_loader_plan *plan)
{
    uint32_t detail;

    tn_loader_void_(plan);
    if (machine != TN_LOADER_EM_ANY && !tn_loader_known_(machine)) {
        plan->detail = TN_LOADER_UNKNOWN;
        return TN_EINVAL;
    }
    detail = tn_loader_any_((const volatile uint8_t *)image, len, machine, plan);
    return detail == TN_LOADER_NONE ? TN_OK : tn_loader_refuse_(plan, detail);
}

TN_API int tn_loader_parse(const uint8_t *image, size_t len, struct tn_loader_plan *plan)
{
    return tn_loader_parse_for(image, len, TN_LOADER_EM_X86_64, plan);
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif
