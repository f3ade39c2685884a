/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_boot_arm64 - a kernel image, placed in an arm64 guest's memory, and the registers to enter it.
 *
 * WHAT
 *   Lays out an arm64 guest's memory (one range of RAM, its first 2 MiB for the device tree),
 *   writes a kernel and its initrd into it, and says where the tree belongs and what the first
 *   vCPU's registers must be. The tree is the caller's to build: it names what is placed here.
 *
 * USAGE
 *   static const uint8_t kernel[64]; // the bytes of an Image
 *   static struct tn_mem mem;        // holds what tn_boot_arm64_ram says, see tn_mem.h
 *   struct tn_loader_range ram[1];
 *   struct tn_boot_arm64_cfg cfg = {0};
 *   struct tn_boot_arm64_cpu cpu;
 *   struct tn_boot_arm64_info info;
 *
 *   if (tn_boot_arm64_ram(64u << 20, ram) != 1)
 *       return 1; // else tn_mem_add it, and give it to KVM
 *   cfg.kernel = kernel;
 *   cfg.kernel_len = sizeof(kernel);
 *   cfg.ram_size = 64u << 20;
 *   if (tn_boot_arm64_load(&mem, &cfg, &cpu, &info) < 0)
 *       return 2; // info.stage and info.detail say more
 *   // then the device tree, of at most info.fdt_size bytes, goes to info.fdt_gpa
 *
 * COMPOSITION
 *   tn_loader reads the image, tn_mem is written to. tn_fdt builds the tree, which has the RAM
 *   range, the initrd's place and the command line. tn_kvm's arm64 part turns struct
 *   tn_boot_arm64_cpu into a vCPU's registers; only the first vCPU gets them, the others wait for
 *   PSCI's CPU_ON.
 *
 * GUEST TRUST
 *   The image and the initrd may be anything. Nothing is read back from guest memory. The
 *   configuration's sizes and pointers are the caller's.
 *
 * MEMORY
 *   No more than a few hundred bytes of stack. Guest memory is laid out so; end is exclusive:
 *
 *     start        end          what
 *     0            0x40000000   for devices, never RAM
 *     0x40000000   0x40200000   the device tree; left alone here
 *     0x40200000                an Image from text_offset above this 2 MiB boundary, or the next
 *                               that has room for it; an ELF kernel where it says
 *                  end of RAM   the initrd, as high as the kernel reaches
 *
 * THREADS
 *   Pure but for what they are given. Load before any vCPU runs.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Linux Documentation/arch/arm64/booting.rst: sections 1 (RAM), 2 (device tree), 4 (calling the
 *   kernel: the Image header, where Image and initrd may lie, the primary CPU's registers).
 *
 * LIMITS
 *   16 MiB to 1023 GiB of RAM, in one range that ends below the 40 bits that KVM gives a guest
 *   unless it is asked for more. A Linux before 4.2 wants its device tree above itself, within 512
 *   MiB, and does not find it here. No EFI entry. Of ELF files only those whose physical addresses
 *   are this machine's: see tn_loader.
 */
#ifndef TN_BOOT_ARM64_H
#define TN_BOOT_ARM64_H

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

#include "tn_loader.h"
#include "tn_mem.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_BOOT_ARM64_RAM      0x40000000ull /* RAM from here on; devices below */
#define TN_BOOT_ARM64_FDT      TN_BOOT_ARM64_RAM
#define TN_BOOT_ARM64_FDT_SIZE 0x200000ull   /* bytes: the most that booting.rst allows */
#define TN_BOOT_ARM64_KERNEL   0x40200000ull /* kernel and initrd from here on */

#define TN_BOOT_ARM64_RAM_ALIGN 0x10000ull /* the largest page of a guest or a host */
#define TN_BOOT_ARM64_RAM_MIN   (16ull << 20)
#define TN_BOOT_ARM64_RAM_MAX   ((1ull << 40) - TN_BOOT_ARM64_RAM)

/*
 * The RAM of a machine with size bytes of it. Returns 1, the number of ranges; TN_EINVAL unless
 * size is a multiple of 64 KiB in TN_BOOT_ARM64_RAM_MIN..TN_BOOT_ARM64_RAM_MAX (the range is then
 * empty).
 */
/*@ requires \valid(out + 0);
    assigns out[0];
    behavior good:
      assumes TN_BOOT_ARM64_RAM_MIN <= size <= TN_BOOT_ARM64_RAM_MAX &&
        size % TN_BOOT_ARM64_RAM_ALIGN == 0;
      ensures \result == 1 && out[0].gpa == TN_BOOT_ARM64_RAM && out[0].size == size;
      ensures out[0].gpa + out[0].size <= 0x10000000000;
      ensures TN_BOOT_ARM64_KERNEL < out[0].gpa + out[0].size;
    behavior bad:
      assumes !(TN_BOOT_ARM64_RAM_MIN <= size <= TN_BOOT_ARM64_RAM_MAX &&
        size % TN_BOOT_ARM64_RAM_ALIGN == 0);
      ensures \result == TN_EINVAL && out[0].gpa == 0 && out[0].size == 0;
    complete behaviors;
    disjoint behaviors; */
TN_API int tn_boot_arm64_ram(uint64_t size, struct tn_loader_range out[1]);

struct tn_boot_arm64_cfg {
    const uint8_t *kernel; /* the image as it is in its file */
    size_t kernel_len;
    const uint8_t *initrd; /* NULL: none */
    size_t initrd_len;     /* 0: none */
    uint64_t ram_size;     /* as given to tn_boot_arm64_ram */
};

/*
 * The first vCPU at the kernel's entry (booting.rst, "CPU mode", "Primary CPU general-purpose
 * register settings"). All else is what KVM resets it to: x1 to x3 zero, EL1 with SP_EL1, DAIF
 * masked, MMU and caches off.
 */
struct tn_boot_arm64_cpu {
    uint64_t pc;
    uint64_t x0; /* the device tree */
};

/* How far tn_boot_arm64_load came. */
enum tn_boot_arm64_stage {
    TN_BOOT_ARM64_AT_CFG = 0, /* the configuration, or memory that does not fit it */
    TN_BOOT_ARM64_AT_KERNEL,  /* the image; detail is tn_loader's */
    TN_BOOT_ARM64_AT_PLACE,   /* no place for the kernel; detail is tn_loader's */
    TN_BOOT_ARM64_AT_INITRD,  /* no place for the initrd */
    TN_BOOT_ARM64_AT_WRITE,   /* never, unless memory changed meanwhile */
    TN_BOOT_ARM64_AT_END      /* all done */
};

struct tn_boot_arm64_info {
    struct tn_loader_plan plan; /* as placed; zero after an error */
    uint64_t fdt_gpa;           /* where the device tree belongs: a multiple of 2 MiB */
    uint64_t fdt_size;          /* bytes that it may have */
    uint64_t initrd_gpa;        /* 0: none */
    uint64_t initrd_len;
    uint32_t stage;  /* enum tn_boot_arm64_stage; after an error, where it happened */
    uint32_t detail; /* after an error, tn_loader's detail of it, and its where */
    uint32_t where;
};

/*
 * Boots on paper: reads the image, finds places, writes kernel and initrd into guest memory, fills
 * *cpu and *info. mem holds the range of tn_boot_arm64_ram(cfg->ram_size), zeroed or not. Every
 * check precedes the first write, so that after an error guest memory is as it was; *cpu is then
 * zero, *info too but for stage, detail and where. Returns 0, or
 *   TN_EINVAL  ram_size or a NULL pointer with a length, or mem does not hold that RAM
 *   else what tn_loader_parse_for, tn_loader_place or tn_loader_place_initrd returned.
 */
TN_API int tn_boot_arm64_load(const struct tn_mem *mem, const struct tn_boot_arm64_cfg *cfg,
                              struct tn_boot_arm64_cpu *cpu, struct tn_boot_arm64_info *info);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

TN_API int tn_boot_arm64_ram(uint64_t size, struct tn_loader_range out[1])
{
    out[0].gpa = out[0].size = 0;
    if (size < TN_BOOT_ARM64_RAM_MIN || size > TN_BOOT_ARM64_RAM_MAX ||
        size % TN_BOOT_ARM64_RAM_ALIGN != 0)
        return TN_EINVAL;
    out[0].gpa = TN_BOOT_ARM64_RAM;
    out[0].size = size;
    return 1;
}

/*@ predicate tn_boot_arm64_fits(struct tn_loader_plan *p, integer len, integer end) =
      0 < p->nsegs <= TN_LOADER_MAX_SEGS &&
      \forall integer i; 0 <= i < p->nsegs ==>
        p->seg[i].file_off + p->seg[i].file_size <= len &&
        p->seg[i].file_size <= p->seg[i].mem_size &&
        TN_BOOT_ARM64_KERNEL <= p->seg[i].gpa && p->seg[i].gpa + p->seg[i].mem_size <= end;
*/

/* Whether the plan stays inside the file, and in RAM below end and above the device tree, with the
 * entry in a segment's bytes. The loader has seen to it; what writes guest memory does not rest on
 * that. */
/*@ requires \valid_read(plan) && TN_BOOT_ARM64_KERNEL <= end;
    assigns \nothing;
    ensures \result != 0 ==> tn_boot_arm64_fits((struct tn_loader_plan *)plan, len, end);
    ensures \result != 0 ==> tn_loader_loaded((struct tn_loader_plan *)plan, plan->fdt_entry); */
static inline bool tn_boot_arm64_plan_ok_(const struct tn_loader_plan *plan, uint64_t len,
                                          uint64_t end)
{
    bool inside = false;
    uint32_t i;

    if (plan->nsegs == 0 || plan->nsegs > TN_LOADER_MAX_SEGS)
        return false;
    /*@ loop invariant 0 <= i <= plan->nsegs;
        loop invariant \forall integer k; 0 <= k < i ==>
          plan->seg[k].file_off + plan->seg[k].file_size <= len &&
          plan->seg[k].file_size <= plan->seg[k].mem_size &&
          TN_BOOT_ARM64_KERNEL <= plan->seg[k].gpa &&
          plan->seg[k].gpa + plan->seg[k].mem_size <= end;
        loop invariant inside != 0 ==> \exists integer k; 0 <= k < i &&
          plan->seg[k].gpa <= plan->fdt_entry < plan->seg[k].gpa + plan->seg[k].file_size;
        loop assigns i, inside;
        loop variant plan->nsegs - i; */
    for (i = 0; i < plan->nsegs; i++) {
        const struct tn_loader_seg *s = &plan->seg[i];

        if (s->file_size > len || s->file_off > len - s->file_size || s->file_size > s->mem_size)
            return false;
        if (s->gpa < TN_BOOT_ARM64_KERNEL || s->gpa > end || s->mem_size > end - s->gpa)
            return false;
        if (plan->fdt_entry >= s->gpa && plan->fdt_entry - s->gpa < s->file_size)
            inside = true;
    }
    return inside;
}

/*@ predicate tn_boot_arm64_is_ram(struct tn_loader_range *r) =
      r->gpa == TN_BOOT_ARM64_RAM && TN_BOOT_ARM64_RAM_MIN <= r->size <= TN_BOOT_ARM64_RAM_MAX;
    predicate tn_boot_arm64_is_fdt(struct tn_loader_range *r) =
      r->gpa == TN_BOOT_ARM64_FDT && r->size == TN_BOOT_ARM64_FDT_SIZE;
*/

/* Whether the configuration is one, and memory holds its RAM, which is put into *ram. */
/*@ requires \valid_read(mem) && tn_mem_ok((struct tn_mem *)mem);
    requires \valid_read(cfg) && \valid(ram);
    requires \separated(ram, mem, cfg, mem->region + (0 .. mem->cap - 1));
    assigns *ram;
    ensures \result == 0 || \result == TN_EINVAL;
    ensures \result == 0 ==> tn_boot_arm64_is_ram(ram) && ram->size == cfg->ram_size;
    ensures \result == 0 ==> \forall integer a; ram->gpa <= a < ram->gpa + ram->size ==>
      tn_mem_ram((struct tn_mem *)mem, a);
    ensures \result == 0 ==> cfg->kernel != \null &&
      (cfg->initrd_len > 0 ==> cfg->initrd != \null); */
static inline int tn_boot_arm64_check_(const struct tn_mem *mem,
                                       const struct tn_boot_arm64_cfg *cfg,
                                       struct tn_loader_range *ram)
{
    if (tn_boot_arm64_ram(cfg->ram_size, ram) < 0 || !cfg->kernel ||
        (!cfg->initrd && cfg->initrd_len > 0))
        return TN_EINVAL;
    return tn_mem_holds(mem, ram->gpa, ram->size) ? TN_OK : TN_EINVAL;
}

/* Finds the kernel's place in RAM, above the device tree. */
/*@ requires \valid(plan) && plan->nsegs > 0 && tn_loader_plan_ok(plan, SIZE_MAX);
    requires \valid_read(ram) && tn_boot_arm64_is_ram((struct tn_loader_range *)ram);
    requires \valid_read(fdt) && tn_boot_arm64_is_fdt((struct tn_loader_range *)fdt);
    requires \separated(plan, ram, fdt);
    assigns *plan;
    ensures \result <= 0;
    ensures \result == 0 ==> tn_loader_plan_ok(plan, SIZE_MAX) &&
      tn_boot_arm64_fits(plan, len, ram->gpa + ram->size) &&
      tn_loader_loaded(plan, plan->fdt_entry);
    ensures \result == 0 ==> \forall integer i; 0 <= i < plan->nsegs ==>
      plan->seg[i].gpa + tn_loader_need(plan, i) <= ram->gpa + ram->size; */
static inline int tn_boot_arm64_place_(struct tn_loader_plan *plan, uint64_t len,
                                       const struct tn_loader_range *ram,
                                       const struct tn_loader_range *fdt)
{
    int err = tn_loader_place(plan, ram, 1, fdt, 1);

    if (err < 0)
        return err;
    return tn_boot_arm64_plan_ok_(plan, len, ram->gpa + ram->size) ? TN_OK : TN_EBUG;
}

/* Finds a place for an initrd of size bytes in RAM, above the device tree and clear of the kernel;
 * none is wanted when size is 0. */
/*@ requires \valid_read(plan) && plan->nsegs > 0;
    requires tn_loader_plan_ok((struct tn_loader_plan *)plan, SIZE_MAX);
    requires \valid_read(ram) && tn_boot_arm64_is_ram((struct tn_loader_range *)ram);
    requires \valid_read(fdt) && tn_boot_arm64_is_fdt((struct tn_loader_range *)fdt);
    requires \valid(gpa) && \separated(gpa, plan, ram, fdt);
    assigns *gpa;
    ensures \result <= 0;
    ensures \result != 0 || size == 0 ==> *gpa == 0;
    ensures \result == 0 && size > 0 ==> TN_BOOT_ARM64_KERNEL <= *gpa &&
      *gpa + size <= ram->gpa + ram->size && *gpa + size - 1 <= plan->initrd_max &&
      (*gpa + size <= plan->seg[0].gpa || plan->seg[0].gpa + plan->init_size <= *gpa); */
static inline int tn_boot_arm64_initrd_(const struct tn_loader_plan *plan, uint64_t size,
                                        const struct tn_loader_range *ram,
                                        const struct tn_loader_range *fdt, uint64_t *gpa)
{
    if (size > 0)
        return tn_loader_place_initrd(plan, size, ram, 1, fdt, 1, gpa);
    *gpa = 0;
    return TN_OK;
}

/* Kernel and initrd go into guest memory. */
static inline int tn_boot_arm64_write_(const struct tn_mem *mem,
                                       const struct tn_boot_arm64_cfg *cfg,
                                       const struct tn_boot_arm64_info *info)
{
    int err = TN_OK;
    uint32_t i;

    for (i = 0; i < info->plan.nsegs && err >= 0; i++) {
        const struct tn_loader_seg *s = &info->plan.seg[i];

        err = tn_mem_write(mem, s->gpa, cfg->kernel + s->file_off, (size_t)s->file_size);
        if (err >= 0) /* what the file does not give is zero, a kernel's .bss for one */
            err = tn_mem_fill(mem, s->gpa + s->file_size, 0, s->mem_size - s->file_size);
    }
    if (err >= 0 && info->initrd_len > 0)
        err = tn_mem_write(mem, info->initrd_gpa, cfg->initrd, cfg->initrd_len);
    return err;
}

TN_API int tn_boot_arm64_load(const struct tn_mem *mem, const struct tn_boot_arm64_cfg *cfg,
                              struct tn_boot_arm64_cpu *cpu, struct tn_boot_arm64_info *info)
{
    struct tn_loader_plan *plan = &info->plan;
    uint32_t stage = TN_BOOT_ARM64_AT_CFG;
    struct tn_loader_range ram, fdt;
    int err;

    __builtin_memset(cpu, 0, sizeof(*cpu));
    __builtin_memset(info, 0, sizeof(*info));
    fdt.gpa = TN_BOOT_ARM64_FDT;
    fdt.size = TN_BOOT_ARM64_FDT_SIZE;
    err = tn_boot_arm64_check_(mem, cfg, &ram);
    if (err >= 0) {
        stage = TN_BOOT_ARM64_AT_KERNEL;
        err = tn_loader_parse_for(cfg->kernel, cfg->kernel_len, TN_LOADER_EM_AARCH64, plan);
    }
    if (err >= 0) {
        stage = TN_BOOT_ARM64_AT_PLACE;
        err = tn_boot_arm64_place_(plan, cfg->kernel_len, &ram, &fdt);
    }
    if (err >= 0) {
        stage = TN_BOOT_ARM64_AT_INITRD;
        err = tn_boot_arm64_initrd_(plan, cfg->initrd_len, &ram, &fdt, &info->initrd_gpa);
        info->initrd_len = cfg->initrd_len;
    }
    if (err >= 0) {
        stage = TN_BOOT_ARM64_AT_WRITE;
        err = tn_boot_arm64_write_(mem, cfg, info);
    }
    if (err < 0) {
        uint32_t detail = plan->detail, where = plan->where;

        __builtin_memset(info, 0, sizeof(*info));
        info->stage = stage;
        info->detail = detail;
        info->where = where;
        return err;
    }
    info->fdt_gpa = TN_BOOT_ARM64_FDT;
    info->fdt_size = TN_BOOT_ARM64_FDT_SIZE;
    info->stage = TN_BOOT_ARM64_AT_END;
    cpu->pc = plan->fdt_entry;
    cpu->x0 = TN_BOOT_ARM64_FDT;
    return TN_OK;
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif
