/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A kernel image, good or then corrupted in a few fields or wholly the fuzzer's, is loaded into a
 * small guest memory. Properties: an error leaves memory and the outputs blank; after a success the
 * entry lies in loaded bytes, the device tree's place, kernel and initrd are apart and hold what
 * they should, and no other page was written (which the dirty log of tn_mem tells).
 */
#include "tn_boot_arm64.h"
#include "fuzz.h"

#include <sys/mman.h>

#define MIB     (1ull << 20)
#define RAM     0x40000000ull
#define TREE    (RAM + 2 * MIB) /* where the device tree's place ends */
#define RAM_MAX (48 * MIB)
#define LEN     0x1000u

/* The first byte's choices, and the seeds': raw bytes, an Image, an ELF. */
enum { RAW, IMAGE, ELF, KINDS };

/* Two regions that touch, right where a segment may lie. */
#define PART  (4 * MIB + 0x1000)
#define PAGES (RAM_MAX / TN_MEM_PAGE)

static uint8_t *host;
static bool dirty[PAGES];

static void memory_up(struct tn_mem *mem, struct tn_mem_region table[2], uint64_t size)
{
    static uint64_t low[TN_MEM_DIRTY_WORDS(PART)], high[TN_MEM_DIRTY_WORDS(RAM_MAX - PART)];

    if (!host) {
        void *at = mmap(NULL, RAM_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        FZ_ASSERT(at != MAP_FAILED);
        host = at;
        memset(host, 0xa5, RAM_MAX); /* so that what is to be zero is not so yet */
    }
    memset(low, 0, sizeof(low));
    memset(high, 0, sizeof(high));
    tn_mem_init(mem, table, 2);
    FZ_ASSERT(tn_mem_add(mem, RAM, host, PART) == 0);
    FZ_ASSERT(tn_mem_add(mem, RAM + PART, host + PART, size - PART) == 0);
    FZ_ASSERT(tn_mem_track(mem, 0, low) == 0 && tn_mem_track(mem, 1, high) == 0);
}

/* Takes the dirty log; returns how many pages it has. */
static unsigned log_pages(const struct tn_mem *mem)
{
    unsigned n = 0;

    memset(dirty, 0, sizeof(dirty));
    for (uint32_t i = 0; i < mem->count; i++) {
        const struct tn_mem_region *g = &mem->region[i];

        for (uint64_t page = 0; page < g->size / TN_MEM_PAGE; page++) {
            bool set = g->dirty[page / 64] >> page % 64 & 1;

            dirty[(g->gpa - RAM) / TN_MEM_PAGE + page] = set;
            n += set;
        }
    }
    return n;
}

/* Some bytes were meant to be written: takes their pages off the log. */
static unsigned meant(uint64_t gpa, uint64_t len)
{
    unsigned n = 0;

    for (uint64_t page = (gpa - RAM) / TN_MEM_PAGE; len > 0; page++) {
        uint64_t end = RAM + (page + 1) * TN_MEM_PAGE;

        n += dirty[page];
        dirty[page] = false;
        len -= len < end - gpa ? len : end - gpa;
        gpa = end;
    }
    return n;
}

static void put_image(uint8_t *img)
{
    memset(img, 0, 64);
    tn_put_(img, 4, 0xfa405a4d);
    tn_put_(img + 4, 4, 0x14000003);
    tn_put_(img + 16, 8, 0x200000); /* image_size */
    tn_put_(img + 24, 8, 0xa);      /* flags */
    memcpy(img + 56, "ARM\x64", 4);
}

static void put_elf(uint8_t *img)
{
    static const uint8_t ident[16] = {0x7f, 'E', 'L', 'F', 2, 1, 1};
    static const uint64_t ph[3][4] = {
        /* offset, paddr, filesz, memsz */
        {0x400, RAM + 4 * MIB, 0x400, 0x400},
        {0x800, RAM + 5 * MIB, 0x300, 0x5000},
        {0, RAM + 6 * MIB, 0, 0x1000},
    };

    memset(img, 0, 0x400);
    memcpy(img, ident, sizeof(ident));
    tn_put_(img + 16, 2, 2);                    /* ET_EXEC */
    tn_put_(img + 18, 2, 183);                  /* EM_AARCH64 */
    tn_put_(img + 20, 4, 1);                    /* e_version */
    tn_put_(img + 24, 8, RAM + 4 * MIB + 0x10); /* e_entry */
    tn_put_(img + 32, 8, 64);                   /* e_phoff */
    tn_put_(img + 52, 2, 64);                   /* e_ehsize */
    tn_put_(img + 54, 2, 56);                   /* e_phentsize */
    tn_put_(img + 56, 2, 3);                    /* e_phnum */
    for (unsigned i = 0; i < 3; i++) {
        uint8_t *p = img + 64 + i * 56;

        tn_put_(p, 4, 1); /* PT_LOAD */
        tn_put_(p + 8, 8, ph[i][0]);
        tn_put_(p + 16, 8, ph[i][1]);
        tn_put_(p + 24, 8, ph[i][1]);
        tn_put_(p + 32, 8, ph[i][2]);
        tn_put_(p + 40, 8, ph[i][3]);
        tn_put_(p + 48, 8, 4);
    }
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

/* For any size: RAM is one range, that begins where it should and ends in 40 bits. */
static void check_layout(uint64_t size)
{
    struct tn_loader_range ram[1];
    int n = tn_boot_arm64_ram(size, ram);

    FZ_ASSERT(n == 1 || n == TN_EINVAL);
    FZ_ASSERT(n == 1 ? ram[0].gpa == RAM && ram[0].size == size : (ram[0].gpa | ram[0].size) == 0);
    FZ_ASSERT((n == 1) == (size >= 16 * MIB && size % 65536 == 0 && size <= (1ull << 40) - RAM));
}

static void check_loaded(const struct tn_mem *mem, const struct tn_boot_arm64_cfg *cfg,
                         const struct tn_boot_arm64_cpu *cpu, const struct tn_boot_arm64_info *info)
{
    const struct tn_loader_plan *p = &info->plan;
    uint64_t end = RAM + cfg->ram_size, initrd = info->initrd_gpa;
    unsigned pages = log_pages(mem);
    bool entered = false;

    FZ_ASSERT(info->stage == TN_BOOT_ARM64_AT_END && info->detail == 0);
    FZ_ASSERT(info->fdt_gpa == RAM && info->fdt_size == 2 * MIB && cpu->x0 == RAM);
    FZ_ASSERT(p->nsegs > 0 && p->machine == 183 && p->has_fdt && cpu->pc == p->fdt_entry);
    FZ_ASSERT(info->initrd_len == cfg->initrd_len && (initrd != 0) == (cfg->initrd_len != 0));
    if (initrd) {
        FZ_ASSERT(initrd >= TREE && initrd % 4096 == 0 && initrd <= end - cfg->initrd_len);
        FZ_ASSERT(initrd >= p->seg[0].gpa + p->init_size ||
                  initrd + cfg->initrd_len <= p->seg[0].gpa);
        FZ_ASSERT(memcmp(host + (initrd - RAM), cfg->initrd, cfg->initrd_len) == 0);
        pages -= meant(initrd, cfg->initrd_len);
    }
    if (p->format == TN_LOADER_IMAGE) {
        FZ_ASSERT(p->nsegs == 1 && cpu->pc == p->seg[0].gpa);
        FZ_ASSERT((p->seg[0].gpa - p->offset) % (2 * MIB) == 0);
        FZ_ASSERT(p->init_size <= end - p->seg[0].gpa);
    }
    for (uint32_t i = 0; i < p->nsegs; i++) {
        const struct tn_loader_seg *s = &p->seg[i];
        uint8_t *at = host + (s->gpa - RAM);

        FZ_ASSERT(s->gpa >= TREE && s->gpa <= end && s->mem_size <= end - s->gpa);
        FZ_ASSERT(s->file_size <= s->mem_size);
        FZ_ASSERT(memcmp(at, cfg->kernel + s->file_off, s->file_size) == 0);
        FZ_ASSERT(blank(at + s->file_size, s->mem_size - s->file_size));
        entered |= cpu->pc >= s->gpa && cpu->pc - s->gpa < s->file_size;
        pages -= meant(s->gpa, s->mem_size);
        memset(at, 0xa5, s->mem_size);
    }
    FZ_ASSERT(entered && pages == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t initrd[0x10000] = {1, 2, 3};
    struct tn_mem_region table[2];
    struct tn_mem mem;
    struct tn_boot_arm64_cfg cfg;
    struct tn_boot_arm64_cpu cpu;
    struct tn_boot_arm64_info info;
    uint8_t *img;
    size_t len = LEN, initrd_len;
    unsigned kind, edits;
    struct fz z;
    int err;

    fz_init(&z, data, size);
    memset(&cfg, 0, sizeof(cfg));
    kind = fz_u8(&z) % KINDS;
    cfg.ram_size = 16 * MIB + fz_range(&z, 0, (RAM_MAX - 16 * MIB) / 65536) * 65536;
    initrd_len = (size_t)fz_u16(&z) * (fz_u8(&z) % 4 ? 1 : 1024);
    check_layout(fz_u64(&z));
    edits = fz_u8(&z) % 8;

    if (kind == RAW) {
        len = z.left - (edits * 11 < z.left ? edits * 11 : z.left);
        img = malloc(len ? len : 1);
        FZ_ASSERT(img);
        fz_bytes(&z, img, len);
    } else {
        img = malloc(LEN);
        FZ_ASSERT(img);
        memset(img, 0xd5, LEN);
        if (kind == ELF)
            put_elf(img);
        else
            put_image(img);
    }
    while (edits-- > 0) {
        size_t at = fz_u16(&z) % 0x200;
        unsigned width = 1u << fz_u8(&z) % 4;
        uint64_t value = fz_u64(&z);

        if (at + width <= len)
            tn_put_(img + at, width, value);
    }

    cfg.kernel = img;
    cfg.kernel_len = len;
    cfg.initrd = initrd; /* a length above it stands for one that cannot fit */
    cfg.initrd_len = initrd_len <= sizeof(initrd) ? initrd_len : RAM_MAX;
    if (cfg.initrd_len == 0)
        cfg.initrd = NULL;

    memory_up(&mem, table, cfg.ram_size);
    memset(&cpu, 0xff, sizeof(cpu));
    memset(&info, 0xff, sizeof(info));
    err = tn_boot_arm64_load(&mem, &cfg, &cpu, &info);
    if (err == 0) {
        check_loaded(&mem, &cfg, &cpu, &info);
    } else {
        FZ_ASSERT(err < 0 && err != TN_EBUG);
        FZ_ASSERT(info.stage < TN_BOOT_ARM64_AT_WRITE && log_pages(&mem) == 0);
        info.stage = info.detail = info.where = 0;
        FZ_ASSERT(blank((uint8_t *)&cpu, sizeof(cpu)));
        FZ_ASSERT(blank((uint8_t *)&info, sizeof(info)));
    }
    free(img);
    return 0;
}
