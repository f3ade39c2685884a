/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A kernel image, good or then corrupted in a few fields or wholly the fuzzer's, is loaded into a
 * small guest memory. Properties: an error leaves memory and the outputs blank; after a success
 * the entry lies in loaded bytes, kernel, initrd and low memory are apart and hold what they
 * should, and the memory map is the table.
 */
#include "tn_boot_x86.h"
#include "fuzz.h"

#include <sys/mman.h>

#define MIB     (1ull << 20)
#define RAM_MAX (40 * MIB)
#define IMAGE   0x1000u

/* The first byte's choices, and the seeds': raw bytes, an ELF, a bzImage. */
enum { RAW, ELF, BZIMAGE, KINDS };

static uint8_t *memory(void)
{
    static void *at;

    if (!at) {
        at = mmap(NULL, RAM_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        FZ_ASSERT(at != MAP_FAILED);
    }
    FZ_ASSERT(madvise(at, RAM_MAX, MADV_DONTNEED) == 0); /* all zero again */
    return at;
}

static void put_elf(uint8_t *img)
{
    static const uint8_t ident[16] = {0x7f, 'E', 'L', 'F', 2, 1, 1};
    static const uint64_t ph[4][5] = {
        /* type, offset, paddr, filesz, memsz */
        {1, 0x400, 0x200000, 0x400, 0x400},
        {1, 0x800, 0x300000, 0x300, 0x5000},
        {1, 0, 0x400000, 0, 0x1000},
        {4, 0x200, 0, 20, 20},
    };

    memset(img, 0, 0x400);
    memcpy(img, ident, sizeof(ident));
    tn_put_(img + 16, 2, 2);        /* ET_EXEC */
    tn_put_(img + 18, 2, 62);       /* EM_X86_64 */
    tn_put_(img + 20, 4, 1);        /* e_version */
    tn_put_(img + 24, 8, 0x200010); /* e_entry */
    tn_put_(img + 32, 8, 64);       /* e_phoff */
    tn_put_(img + 52, 2, 64);       /* e_ehsize */
    tn_put_(img + 54, 2, 56);       /* e_phentsize */
    tn_put_(img + 56, 2, 4);        /* e_phnum */
    for (unsigned i = 0; i < 4; i++) {
        uint8_t *p = img + 64 + i * 56;

        tn_put_(p, 4, ph[i][0]);
        tn_put_(p + 8, 8, ph[i][1]);
        tn_put_(p + 16, 8, ph[i][2]);
        tn_put_(p + 24, 8, ph[i][2]);
        tn_put_(p + 32, 8, ph[i][3]);
        tn_put_(p + 40, 8, ph[i][4]);
        tn_put_(p + 48, 8, 4);
    }
    tn_put_(img + 0x200, 4, 4);
    tn_put_(img + 0x204, 4, 4);
    tn_put_(img + 0x208, 4, 18); /* XEN_ELFNOTE_PHYS32_ENTRY */
    memcpy(img + 0x20c, "Xen", 4);
    tn_put_(img + 0x210, 4, 0x200100);
}

static void put_bzimage(uint8_t *img)
{
    memset(img, 0xff, 0x1f1);
    memset(img + 0x1f1, 0, 0x400 - 0x1f1);
    tn_put_(img + 0x1f1, 1, 1);                    /* setup_sects */
    tn_put_(img + 0x1f4, 4, (IMAGE - 0x400) / 16); /* syssize */
    tn_put_(img + 0x1fe, 2, 0xaa55);
    tn_put_(img + 0x200, 2, 0x6aeb); /* the header's end */
    memcpy(img + 0x202, "HdrS", 4);
    tn_put_(img + 0x206, 2, 0x20f);
    tn_put_(img + 0x211, 1, 1);          /* LOADED_HIGH */
    tn_put_(img + 0x22c, 4, 0x7fffffff); /* initrd_addr_max */
    tn_put_(img + 0x230, 4, 0x200000);   /* kernel_alignment */
    tn_put_(img + 0x234, 1, 1);          /* relocatable_kernel */
    tn_put_(img + 0x235, 1, 21);         /* min_alignment */
    tn_put_(img + 0x236, 2, 1);          /* XLF_KERNEL_64 */
    tn_put_(img + 0x238, 4, 2047);       /* cmdline_size */
    tn_put_(img + 0x258, 8, 0x400000);   /* pref_address */
    tn_put_(img + 0x260, 4, 0x200000);   /* init_size */
}

static bool blank(const uint8_t *p, size_t len)
{
    static const uint8_t zero[4096];

    for (size_t n; len > 0; p += n, len -= n) {
        n = len < sizeof(zero) ? len : sizeof(zero);
        if (memcmp(p, zero, n) != 0)
            return false;
    }
    return true;
}

static void check_map(const uint8_t *at, unsigned stride, unsigned n, uint64_t size)
{
    struct tn_boot_x86_e820_entry map[TN_BOOT_X86_E820_MAX];

    FZ_ASSERT(tn_boot_x86_e820(size, map, TN_BOOT_X86_E820_MAX) == (int)n);
    for (unsigned i = 0; i < n; i++, at += stride) {
        FZ_ASSERT(tn_get_(at, 8) == map[i].addr && tn_get_(at + 8, 8) == map[i].size &&
                  tn_get_(at + 16, 4) == map[i].type);
    }
}

/* For any size: RAM adds up, avoids the hole, and the map is sorted. */
static void check_layout(uint64_t size, uint32_t cap)
{
    struct tn_loader_range ram[2];
    struct tn_boot_x86_e820_entry map[TN_BOOT_X86_E820_MAX + 1];
    int n = tn_boot_x86_ram(size, ram);
    int entries = tn_boot_x86_e820(size, map, cap);

    FZ_ASSERT(ram[0].size + ram[1].size == (n > 0 ? size : 0));
    FZ_ASSERT(ram[0].size <= TN_BOOT_X86_HOLE);
    FZ_ASSERT(n != 2 || ram[1].gpa == TN_BOOT_X86_HOLE_END);
    FZ_ASSERT(entries < 0 || (uint32_t)entries <= cap);
    for (int i = 1; i < entries; i++)
        FZ_ASSERT(map[i - 1].addr + map[i - 1].size <= map[i].addr);
}

static void check_loaded(const uint8_t *ram, const struct tn_boot_x86_cfg *cfg,
                         const struct tn_boot_x86_cpu *cpu, const struct tn_boot_x86_info *info)
{
    const struct tn_loader_plan *p = &info->plan;
    const uint8_t *zp = ram + TN_BOOT_X86_ZERO_PAGE, *si = ram + TN_BOOT_X86_PVH_INFO;
    uint64_t initrd = info->initrd_gpa;
    bool entered = false, old;

    FZ_ASSERT(info->stage == TN_BOOT_X86_AT_END && info->detail == 0);
    for (uint32_t i = 0; i < p->nsegs; i++) {
        const struct tn_loader_seg *s = &p->seg[i];

        FZ_ASSERT(s->gpa >= TN_BOOT_X86_HIMEM && s->gpa <= cfg->ram_size);
        FZ_ASSERT(s->mem_size <= cfg->ram_size - s->gpa && s->file_size <= s->mem_size);
        FZ_ASSERT(memcmp(ram + s->gpa, cfg->kernel + s->file_off, s->file_size) == 0);
        FZ_ASSERT(blank(ram + s->gpa + s->file_size, s->mem_size - s->file_size));
        entered |= cpu->rip >= s->gpa && cpu->rip - s->gpa < s->file_size;
        FZ_ASSERT(initrd == 0 || initrd >= s->gpa + s->mem_size ||
                  initrd + info->initrd_size <= s->gpa);
    }
    FZ_ASSERT(entered);
    FZ_ASSERT(info->initrd_size == cfg->initrd_len && (initrd != 0) == (cfg->initrd_len != 0));
    if (initrd) {
        FZ_ASSERT(initrd >= TN_BOOT_X86_HIMEM && initrd <= cfg->ram_size - cfg->initrd_len);
        FZ_ASSERT(initrd + cfg->initrd_len - 1 <= p->initrd_max);
        FZ_ASSERT(memcmp(ram + initrd, cfg->initrd, cfg->initrd_len) == 0);
    }
    old = p->setup_len > 0 && p->boot_version < 0x0202;
    FZ_ASSERT(strcmp((const char *)ram + (old ? 0x91000 : TN_BOOT_X86_CMDLINE), cfg->cmdline) == 0);
    FZ_ASSERT(info->cmdline_len == strlen(cfg->cmdline) && info->cmdline_len <= p->cmdline_max);
    FZ_ASSERT(blank(ram, 0x1000) && blank(ram + 0x30000, 0x90000 - 0x30000));
    FZ_ASSERT(old ? blank(zp, 4096) : blank(ram + 0x90000, 0x2000));
    FZ_ASSERT(blank(ram + 0x92000, TN_BOOT_X86_HIMEM - 0x92000));
    if (cpu->proto == TN_BOOT_X86_PVH) {
        FZ_ASSERT(p->has_pvh && cpu->rip == p->pvh_entry && cpu->rip < 1ull << 32);
        FZ_ASSERT(cpu->rbx == TN_BOOT_X86_PVH_INFO && cpu->cr0 == 0x11);
        FZ_ASSERT(tn_get_(si, 4) == 0x336ec578 && tn_get_(si + 12, 4) == (initrd != 0));
        FZ_ASSERT(tn_get_(si + 32, 8) == cfg->rsdp);
        check_map(ram + tn_get_(si + 40, 8), 24, (unsigned)tn_get_(si + 48, 4), cfg->ram_size);
        return;
    }
    if (cpu->proto == TN_BOOT_X86_LINUX32) {
        FZ_ASSERT(p->has_linux32 && cpu->rip == p->linux32_entry && cpu->rip < 1ull << 32);
        FZ_ASSERT(cpu->cr0 == 0x11 && (cpu->cr3 | cpu->efer | cpu->rbp | cpu->rbx) == 0);
        FZ_ASSERT(blank(ram + TN_BOOT_X86_PML4, 0x6000));
    } else {
        FZ_ASSERT(p->has_linux64 && cpu->rip == p->linux64_entry);
        FZ_ASSERT(cpu->cr3 == TN_BOOT_X86_PML4);
    }
    FZ_ASSERT(cpu->rsi == (old ? 0x90000 : TN_BOOT_X86_ZERO_PAGE));
    zp = ram + cpu->rsi;
    FZ_ASSERT(memcmp(zp + 0x202, "HdrS", 4) == 0 && tn_get_(zp + 0x1fe, 2) == 0xaa55);
    FZ_ASSERT(zp[0x210] == 0xff && zp[0x1ef] == 0 && tn_get_(zp + 0x250, 8) == 0);
    FZ_ASSERT(blank(zp + 0x290, 0x2d0 - 0x290));
    FZ_ASSERT(tn_get_(zp + 0x218, 4) == initrd && tn_get_(zp + 0x70, 8) == cfg->rsdp);
    check_map(zp + 0x2d0, 20, zp[0x1e8], cfg->ram_size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char line[TN_BOOT_X86_CMDLINE_SIZE + 2];
    static const uint8_t initrd[0x10000] = {1, 2, 3};
    struct tn_mem_region table[2];
    struct tn_mem mem;
    struct tn_boot_x86_cfg cfg;
    struct tn_boot_x86_cpu cpu;
    struct tn_boot_x86_info info;
    uint8_t *ram = memory(), *img;
    size_t len = IMAGE, line_len, initrd_len;
    unsigned kind, edits;
    struct fz z;
    int err;

    fz_init(&z, data, size);
    memset(&cfg, 0, sizeof(cfg));
    kind = fz_u8(&z) % KINDS;
    cfg.proto = fz_u8(&z) % 5;
    cfg.ram_size = 16 * MIB + fz_range(&z, 0, (RAM_MAX - 16 * MIB) / 4096) * 4096;
    line_len = fz_u16(&z);
    initrd_len = (size_t)fz_u16(&z) * (fz_u8(&z) % 4 ? 1 : 1024);
    cfg.rsdp = fz_u32(&z);
    check_layout(cfg.rsdp << fz_u8(&z) % 32 << 4, (uint32_t)(cfg.proto + kind));
    edits = fz_u8(&z) % 8;

    if (kind == RAW) {
        len = z.left - (edits * 11 < z.left ? edits * 11 : z.left);
        img = malloc(len ? len : 1);
        FZ_ASSERT(img);
        fz_bytes(&z, img, len);
    } else {
        img = malloc(IMAGE);
        FZ_ASSERT(img);
        memset(img, 0x90, IMAGE);
        if (kind == ELF)
            put_elf(img);
        else
            put_bzimage(img);
    }
    while (edits-- > 0) {
        size_t at = fz_u16(&z) % 0x400;
        unsigned width = 1u << fz_u8(&z) % 4;
        uint64_t value = fz_u64(&z);

        if (at + width <= len)
            tn_put_(img + at, width, value);
    }

    memset(line, 'c', line_len + 1);
    line[line_len] = 0;
    line[sizeof(line) - 1] = 0;
    cfg.cmdline = line;
    cfg.kernel = img;
    cfg.kernel_len = len;
    cfg.initrd = initrd; /* a length above it stands for one that cannot fit */
    cfg.initrd_len = initrd_len <= sizeof(initrd) ? initrd_len : RAM_MAX;
    if (cfg.initrd_len == 0)
        cfg.initrd = NULL;

    tn_mem_init(&mem, table, 2); /* two regions that touch, right where a segment may lie */
    FZ_ASSERT(tn_mem_add(&mem, 0, ram, 0x301000) == 0);
    FZ_ASSERT(tn_mem_add(&mem, 0x301000, ram + 0x301000, cfg.ram_size - 0x301000) == 0);
    memset(&cpu, 0xff, sizeof(cpu));
    memset(&info, 0xff, sizeof(info));
    err = tn_boot_x86_load(&mem, &cfg, &cpu, &info);
    if (err == 0) {
        check_loaded(ram, &cfg, &cpu, &info);
    } else {
        FZ_ASSERT(err < 0 && err != TN_EBUG);
        FZ_ASSERT(blank(ram, TN_BOOT_X86_HIMEM)); /* and where the good images load */
        FZ_ASSERT(blank(ram + 2 * MIB, IMAGE) && blank(ram + 3 * MIB, IMAGE) &&
                  blank(ram + 4 * MIB, IMAGE));
        FZ_ASSERT(info.stage < TN_BOOT_X86_AT_WRITE);
        info.stage = info.detail = info.where = 0;
        FZ_ASSERT(blank((uint8_t *)&cpu, sizeof(cpu)));
        FZ_ASSERT(blank((uint8_t *)&info, sizeof(info)));
    }
    free(img);
    return 0;
}
