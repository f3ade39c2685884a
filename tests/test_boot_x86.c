/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_boot_x86.h"
#include "test.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __x86_64__
#include <asm/bootparam.h>
#include <linux/kvm.h>
#endif

#define MIB (1ull << 20)
#define GIB (1ull << 30)

/* -- guest memory: mapped, not allocated, so that 1 TiB of it costs what is touched ------------ */

struct rig {
    struct tn_mem_region table[2];
    struct tn_mem mem;
    struct tn_loader_range ram[2];
    uint8_t *host[2];
    int ranges;
    struct tn_boot_x86_cfg cfg;
    struct tn_boot_x86_cpu cpu;
    struct tn_boot_x86_info info;
};

static void rig_up(struct rig *r, uint64_t size)
{
    memset(r, 0, sizeof(*r));
    tn_mem_init(&r->mem, r->table, 2);
    r->ranges = tn_boot_x86_ram(size, r->ram);
    assert_true(r->ranges > 0);
    if (r->ram[0].size + (r->ranges > 1 ? r->ram[1].size : 0) > test_most())
        SKIP("that much RAM can't be mapped");
    for (int i = 0; i < r->ranges; i++) {
        void *at = mmap(NULL, r->ram[i].size, i ? PROT_NONE : PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        assert_true(at != MAP_FAILED);
        r->host[i] = at;
        assert_int_equal(tn_mem_add(&r->mem, r->ram[i].gpa, at, r->ram[i].size), 0);
    }
    r->cfg.ram_size = size;
    memset(&r->cpu, 0x5a, sizeof(r->cpu));
    memset(&r->info, 0x5a, sizeof(r->info));
}

static void rig_down(struct rig *r)
{
    for (int i = 0; i < r->ranges; i++)
        munmap(r->host[i], r->ram[i].size);
}

static int rig_load(struct rig *r)
{
    return tn_boot_x86_load(&r->mem, &r->cfg, &r->cpu, &r->info);
}

static uint64_t peek(const struct rig *r, uint64_t gpa, unsigned width)
{
    assert_true(gpa + width <= r->ram[0].size);
    return tn_get_(r->host[0] + gpa, width);
}

static bool all(const uint8_t *p, uint8_t byte, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (p[i] != byte)
            return false;
    }
    return true;
}

static bool is_zero(const void *p, size_t len)
{
    return all(p, 0, len);
}

/* -- kernels ----------------------------------------------------------------------------------- */

#define ELF_LEN   0x600u
#define ELF_SEG0  0x200u
#define ELF_SEG1  0x400u
#define TEXT      0x1000000ull
#define DATA      0x1400000ull
#define ELF_ENTRY (TEXT + 0x10)
#define PVH_ENTRY (TEXT + 0x80)

/* Two segments, the second with a .bss, a 64-bit entry, and a PVH note unless pvh is 0. */
static void make_elf(uint8_t img[ELF_LEN], uint64_t text, uint64_t data, uint32_t pvh)
{
    static const uint8_t ident[16] = {0x7f, 'E', 'L', 'F', 2, 1, 1};
    uint64_t ph[3][4] = {
        /* offset, paddr, filesz, memsz */
        {ELF_SEG0, text, 0x200, 0x200},
        {ELF_SEG1, data, 0x200, 0x3000},
        {0x110, 0, pvh ? 20 : 0, pvh ? 20 : 0},
    };

    for (unsigned i = 0; i < ELF_LEN; i++)
        img[i] = i < ELF_SEG0 ? 0 : (uint8_t)(i * 7 + 1);
    memcpy(img, ident, sizeof(ident));
    tn_put_(img + 16, 2, 2);           /* ET_EXEC */
    tn_put_(img + 18, 2, 62);          /* EM_X86_64 */
    tn_put_(img + 20, 4, 1);           /* e_version */
    tn_put_(img + 24, 8, text + 0x10); /* e_entry */
    tn_put_(img + 32, 8, 64);          /* e_phoff */
    tn_put_(img + 52, 2, 64);          /* e_ehsize */
    tn_put_(img + 54, 2, 56);          /* e_phentsize */
    tn_put_(img + 56, 2, 3);           /* e_phnum */
    for (unsigned i = 0; i < 3; i++) {
        uint8_t *p = img + 64 + i * 56;

        tn_put_(p, 4, i < 2 ? 1 : 4); /* PT_LOAD, PT_NOTE */
        tn_put_(p + 4, 4, 7);
        tn_put_(p + 8, 8, ph[i][0]);
        tn_put_(p + 16, 8, 0xffffffff80000000 + ph[i][1]);
        tn_put_(p + 24, 8, ph[i][1]);
        tn_put_(p + 32, 8, ph[i][2]);
        tn_put_(p + 40, 8, ph[i][3]);
        tn_put_(p + 48, 8, 4);
    }
    tn_put_(img + 0x110, 4, 4);  /* n_namesz */
    tn_put_(img + 0x114, 4, 4);  /* n_descsz */
    tn_put_(img + 0x118, 4, 18); /* XEN_ELFNOTE_PHYS32_ENTRY */
    memcpy(img + 0x11c, "Xen", 4);
    tn_put_(img + 0x120, 4, pvh);
}

#define BZ_LEN       0xc00u
#define BZ_JUMP      0x6au /* the header ends at 0x202 + this */
#define BZ_SETUP_LEN (0x202u + BZ_JUMP - 0x1f1u)
#define BZ_PREF      0x1000000ull
#define BZ_INIT      0x400000u

static void make_bzimage(uint8_t img[BZ_LEN])
{
    for (unsigned i = 0; i < BZ_LEN; i++)
        img[i] = i < 0x1f1 ? 0xff : i < 0x400 ? 0 : (uint8_t)(i * 5 + 3);
    memset(img + 0x202 + BZ_JUMP, 0xee, 0x400 - 0x202 - BZ_JUMP); /* code: not to be copied */
    tn_put_(img + 0x1f1, 1, 1);                                   /* setup_sects */
    tn_put_(img + 0x1f4, 4, (BZ_LEN - 0x400) / 16);               /* syssize */
    tn_put_(img + 0x1fe, 2, 0xaa55);
    tn_put_(img + 0x200, 2, 0xeb | BZ_JUMP << 8);
    memcpy(img + 0x202, "HdrS", 4);
    tn_put_(img + 0x206, 2, 0x20f);
    tn_put_(img + 0x211, 1, 1);          /* LOADED_HIGH */
    tn_put_(img + 0x214, 4, 0x100000);   /* code32_start */
    tn_put_(img + 0x22c, 4, 0x7fffffff); /* initrd_addr_max */
    tn_put_(img + 0x230, 4, 0x200000);   /* kernel_alignment */
    tn_put_(img + 0x234, 1, 1);          /* relocatable_kernel */
    tn_put_(img + 0x235, 1, 21);         /* min_alignment */
    tn_put_(img + 0x236, 2, 3);          /* xloadflags */
    tn_put_(img + 0x238, 4, 2047);       /* cmdline_size */
    tn_put_(img + 0x250, 8, 0xdeadbeef); /* setup_data: a loader's, not the image's */
    tn_put_(img + 0x258, 8, BZ_PREF);
    tn_put_(img + 0x260, 4, BZ_INIT);
}

/* -- layout: RAM and e820 ---------------------------------------------------------------------- */

static void ram_refuses_bad_sizes(void **state)
{
    static const uint64_t bad[] = {0,
                                   1,
                                   4096,
                                   16 * MIB - 4096,
                                   16 * MIB + 1,
                                   64 * MIB + 2048,
                                   1024 * GIB + 4096,
                                   UINT64_MAX,
                                   1ull << 63};

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct tn_loader_range out[2] = {{1, 2}, {3, 4}};
        struct tn_boot_x86_e820_entry map[5];

        memset(map, 0xff, sizeof(map));
        assert_int_equal(tn_boot_x86_ram(bad[i], out), TN_EINVAL);
        assert_true(is_zero(out, sizeof(out)));
        assert_int_equal(tn_boot_x86_e820(bad[i], map, 5), TN_EINVAL);
        for (int k = 0; k < 5; k++)
            assert_true(map[k].addr == 0 && map[k].size == 0 && map[k].type == 0);
    }
}

static const struct {
    uint64_t size, low, high;
} sizes[] = {
    {16 * MIB, 16 * MIB, 0},     {16 * MIB + 4096, 16 * MIB + 4096, 0},
    {128 * MIB, 128 * MIB, 0},   {3 * GIB - 4096, 3 * GIB - 4096, 0},
    {3 * GIB, 3 * GIB, 0},       {3 * GIB + 4096, 3 * GIB, 4096},
    {4 * GIB, 3 * GIB, 1 * GIB}, {1024 * GIB, 3 * GIB, 1021 * GIB},
};

static void ram_leaves_the_hole(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct tn_loader_range out[2];

        assert_int_equal(tn_boot_x86_ram(sizes[i].size, out), sizes[i].high ? 2 : 1);
        assert_true(out[0].gpa == 0 && out[0].size == sizes[i].low);
        assert_true(out[1].gpa == (sizes[i].high ? 4 * GIB : 0) && out[1].size == sizes[i].high);
    }
}

static void e820_is_the_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct tn_boot_x86_e820_entry map[6];
        struct tn_boot_x86_e820_entry want[5] = {
            {0, 0x9fc00, 1},
            {0x9fc00, 0x400, 2},
            {0xe0000, 0x20000, 2},
            {0x100000, sizes[i].low - 0x100000, 1},
            {4 * GIB, sizes[i].high, 1},
        };
        int n = sizes[i].high ? 5 : 4;

        memset(map, 0xff, sizeof(map));
        for (int cap = 0; cap < n; cap++) { /* too small, and what is not ours stays */
            map[cap].type = 77;
            assert_int_equal(tn_boot_x86_e820(sizes[i].size, map, (uint32_t)cap), TN_ENOSPC);
            assert_int_equal(map[cap].type, 77);
            for (int k = 0; k < cap; k++)
                assert_true(map[k].addr == 0 && map[k].size == 0 && map[k].type == 0);
        }
        assert_int_equal(tn_boot_x86_e820(sizes[i].size, map, (uint32_t)n), n);
        assert_int_equal(tn_boot_x86_e820(sizes[i].size, map, UINT32_MAX), n);
        for (int k = 0; k < n; k++) {
            assert_true(map[k].addr == want[k].addr && map[k].size == want[k].size &&
                        map[k].type == want[k].type);
        }
    }
}

/* -- the offsets, held against the kernel's own header ----------------------------------------- */

static void offsets_are_the_kernels(void **state)
{
    (void)state;
#ifdef __x86_64__
#define AT(name, field) assert_int_equal(TN_BOOT_X86_ZP_##name, offsetof(struct boot_params, field))
    AT(EXT_MEM_K, screen_info.ext_mem_k);
    AT(CL_MAGIC, screen_info.cl_magic);
    AT(CL_OFFSET, screen_info.cl_offset);
    AT(ALT_MEM_K, alt_mem_k);
    AT(RSDP, acpi_rsdp_addr);
    AT(EXT_RAMDISK, ext_ramdisk_image);
    AT(EXT_RAMDISK_N, ext_ramdisk_size);
    AT(EXT_CMDLINE, ext_cmd_line_ptr);
    AT(E820_N, e820_entries);
    AT(SETUP, hdr);
    AT(BOOT_FLAG, hdr.boot_flag);
    AT(HEADER, hdr.header);
    AT(VERSION, hdr.version);
    AT(LOADER, hdr.type_of_loader);
    AT(LOADFLAGS, hdr.loadflags);
    AT(CODE32_START, hdr.code32_start);
    AT(RAMDISK, hdr.ramdisk_image);
    AT(RAMDISK_N, hdr.ramdisk_size);
    AT(CMDLINE, hdr.cmd_line_ptr);
    AT(ALIGNMENT, hdr.kernel_alignment);
    AT(CMDLINE_SIZE, hdr.cmdline_size);
    AT(SETUP_DATA, hdr.setup_data);
    AT(SETUP_END, edd_mbr_sig_buffer);
    AT(E820, e820_table);
#undef AT
    assert_int_equal(TN_BOOT_X86_ZP_E820_ENTRY, sizeof(struct boot_e820_entry));
    assert_int_equal(sizeof(struct boot_params), 4096);
    assert_true(TN_BOOT_X86_E820_MAX <= E820_MAX_ENTRIES_ZEROPAGE);
#else
    SKIP("only on x86-64 Linux");
#endif
}

/* -- what a failed load leaves behind ---------------------------------------------------------- */

struct bad {
    const char *what;
    int err;
    uint32_t stage;
    void (*change)(struct rig *r, uint8_t *elf);
};

static char long_line[TN_BOOT_X86_CMDLINE_SIZE + 8];

static void bad_ram_size(struct rig *r, uint8_t *elf)
{
    (void)elf;
    r->cfg.ram_size = 15 * MIB;
}
static void bad_ram_more(struct rig *r, uint8_t *elf)
{
    (void)elf;
    r->cfg.ram_size = 65 * MIB; /* one more than memory holds */
}
static void bad_ram_high(struct rig *r, uint8_t *elf)
{
    (void)elf;
    r->cfg.ram_size = 4 * GIB;
}
static void bad_proto(struct rig *r, uint8_t *elf)
{
    (void)elf;
    r->cfg.proto = 4;
}
static void bad_kernel_null(struct rig *r, uint8_t *elf)
{
    (void)elf;
    r->cfg.kernel = NULL;
}
static void bad_initrd_null(struct rig *r, uint8_t *elf)
{
    (void)elf;
    r->cfg.initrd = NULL;
    r->cfg.initrd_len = 1;
}
static void bad_empty(struct rig *r, uint8_t *elf)
{
    (void)elf;
    r->cfg.kernel_len = 0;
}
static void bad_magic(struct rig *r, uint8_t *elf)
{
    (void)r;
    elf[1] = 'e';
}
static void bad_no_pvh(struct rig *r, uint8_t *elf)
{
    make_elf(elf, TEXT, DATA, 0);
    r->cfg.proto = TN_BOOT_X86_PVH;
}
static void bad_no_linux32(struct rig *r, uint8_t *elf)
{
    (void)elf;
    r->cfg.proto = TN_BOOT_X86_LINUX32;
}
static void bad_no_linux64(struct rig *r, uint8_t *elf)
{
    tn_put_(elf + 24, 8, 0xffffffff81000000); /* a virtual e_entry: PVH is all there is */
    r->cfg.proto = TN_BOOT_X86_LINUX64;
}
static void bad_cmdline(struct rig *r, uint8_t *elf)
{
    (void)elf;
    memset(long_line, 'x', sizeof(long_line) - 1);
    r->cfg.cmdline = long_line;
}
static void bad_low(struct rig *r, uint8_t *elf)
{
    (void)r;
    make_elf(elf, 0x7000, DATA, 0); /* D04: on the zero page */
}
static void bad_low_end(struct rig *r, uint8_t *elf)
{
    (void)r;
    make_elf(elf, 0xfff00, DATA, 0); /* D04: into the reserved megabyte, by 256 bytes */
}
static void bad_beyond(struct rig *r, uint8_t *elf)
{
    (void)r;
    make_elf(elf, TEXT, 64 * MIB - 0x1000, 0); /* D04: the .bss passes the end of RAM */
}
static void bad_hole(struct rig *r, uint8_t *elf)
{
    (void)r;
    make_elf(elf, TEXT, 3 * GIB + 4096, 0); /* D04: in the MMIO hole */
}
static void bad_initrd_size(struct rig *r, uint8_t *elf)
{
    r->cfg.initrd = elf; /* never read: it does not fit */
    r->cfg.initrd_len = 64 * MIB;
}

/* A header of a flattened device tree, which says that it is so long. */
static uint8_t tree[TN_BOOT_X86_FDT_SIZE];

static void make_tree(struct rig *r, size_t says, size_t len)
{
    static const uint8_t magic[] = {0xd0, 0x0d, 0xfe, 0xed};

    for (size_t i = 0; i < sizeof(tree); i++)
        tree[i] = (uint8_t)(i * 7);
    memcpy(tree, magic, 4);
    for (unsigned i = 0; i < 4; i++)
        tree[4 + i] = (uint8_t)(says >> (24 - 8 * i));
    r->cfg.fdt = tree;
    r->cfg.fdt_len = len;
}
static void bad_fdt_null(struct rig *r, uint8_t *elf)
{
    (void)elf;
    r->cfg.fdt_len = 1;
}
static void bad_fdt_short(struct rig *r, uint8_t *elf)
{
    (void)elf;
    make_tree(r, 39, 39);
}
static void bad_fdt_cut(struct rig *r, uint8_t *elf)
{
    (void)elf;
    make_tree(r, 4097, 4096);
}
static void bad_fdt_more(struct rig *r, uint8_t *elf)
{
    (void)elf;
    make_tree(r, 4095, 4096);
}
static void bad_fdt_magic(struct rig *r, uint8_t *elf)
{
    (void)elf;
    make_tree(r, 4096, 4096);
    tree[3] = 0xee;
}
static void bad_fdt_long(struct rig *r, uint8_t *elf)
{
    (void)elf;
    make_tree(r, TN_BOOT_X86_FDT_SIZE - 15, TN_BOOT_X86_FDT_SIZE - 15);
}
static void bad_fdt_pvh(struct rig *r, uint8_t *elf)
{
    (void)elf;
    r->cfg.proto = TN_BOOT_X86_PVH;
    make_tree(r, 4096, 4096);
}

static const struct bad bads[] = {
    {"ram_size too small", TN_EINVAL, TN_BOOT_X86_AT_CFG, bad_ram_size},
    {"ram_size above what memory holds", TN_EINVAL, TN_BOOT_X86_AT_CFG, bad_ram_more},
    {"ram_size with a second range", TN_EINVAL, TN_BOOT_X86_AT_CFG, bad_ram_high},
    {"proto", TN_EINVAL, TN_BOOT_X86_AT_CFG, bad_proto},
    {"kernel NULL", TN_EINVAL, TN_BOOT_X86_AT_CFG, bad_kernel_null},
    {"initrd NULL", TN_EINVAL, TN_BOOT_X86_AT_CFG, bad_initrd_null},
    {"empty image", TN_ETRUNC, TN_BOOT_X86_AT_KERNEL, bad_empty},
    {"no kernel", TN_EFORMAT, TN_BOOT_X86_AT_KERNEL, bad_magic},
    {"PVH not offered", TN_EUNSUP, TN_BOOT_X86_AT_PROTO, bad_no_pvh},
    {"LINUX64 not offered", TN_EUNSUP, TN_BOOT_X86_AT_PROTO, bad_no_linux64},
    {"LINUX32 not offered", TN_EUNSUP, TN_BOOT_X86_AT_PROTO, bad_no_linux32},
    {"command line", TN_ERANGE, TN_BOOT_X86_AT_CMDLINE, bad_cmdline},
    {"segment on the zero page", TN_EOVERLAP, TN_BOOT_X86_AT_PLACE, bad_low},
    {"segment into the low megabyte", TN_EOVERLAP, TN_BOOT_X86_AT_PLACE, bad_low_end},
    {"segment beyond RAM", TN_ENOFIT, TN_BOOT_X86_AT_PLACE, bad_beyond},
    {"segment in the hole", TN_ENOFIT, TN_BOOT_X86_AT_PLACE, bad_hole},
    {"initrd larger than RAM", TN_ENOFIT, TN_BOOT_X86_AT_INITRD, bad_initrd_size},
    {"device tree NULL", TN_EINVAL, TN_BOOT_X86_AT_CFG, bad_fdt_null},
    {"device tree of 39 bytes", TN_EFORMAT, TN_BOOT_X86_AT_FDT, bad_fdt_short},
    {"device tree cut off", TN_EFORMAT, TN_BOOT_X86_AT_FDT, bad_fdt_cut},
    {"device tree with more behind", TN_EFORMAT, TN_BOOT_X86_AT_FDT, bad_fdt_more},
    {"no device tree", TN_EFORMAT, TN_BOOT_X86_AT_FDT, bad_fdt_magic},
    {"device tree too long", TN_ERANGE, TN_BOOT_X86_AT_FDT, bad_fdt_long},
    {"device tree with PVH", TN_EUNSUP, TN_BOOT_X86_AT_FDT, bad_fdt_pvh},
};

static void d04_errors_leave_memory_alone(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bads); i++) {
        uint8_t elf[ELF_LEN];
        struct rig r;
        int err;

        rig_up(&r, 64 * MIB);
        memset(r.host[0], 0xa5, r.ram[0].size);
        make_elf(elf, TEXT, DATA, PVH_ENTRY);
        r.cfg.kernel = elf;
        r.cfg.kernel_len = sizeof(elf);
        bads[i].change(&r, elf);
        err = rig_load(&r);
        if (err != bads[i].err || r.info.stage != bads[i].stage)
            fail_msg("%s: %d at stage %u", bads[i].what, err, r.info.stage);
        if (r.info.stage == TN_BOOT_X86_AT_KERNEL || r.info.stage == TN_BOOT_X86_AT_PLACE)
            assert_int_not_equal(r.info.detail, 0);
        r.info.stage = r.info.detail = r.info.where = 0;
        assert_true(is_zero(&r.cpu, sizeof(r.cpu)));
        assert_true(is_zero(&r.info, sizeof(r.info)));
        assert_true(all(r.host[0], 0xa5, r.ram[0].size));
        rig_down(&r);
    }
}

/* Memory that is not what tn_boot_x86_ram said: with a hole in it, or a part of it only. */
static void memory_must_hold_the_ram(void **state)
{
    uint8_t elf[ELF_LEN];
    struct rig r;

    (void)state;
    make_elf(elf, TEXT, DATA, 0);
    rig_up(&r, 64 * MIB);
    r.cfg.kernel = elf;
    r.cfg.kernel_len = sizeof(elf);
    tn_mem_init(&r.mem, r.table, 2);
    assert_int_equal(rig_load(&r), TN_EINVAL);
    assert_int_equal(tn_mem_add(&r.mem, 0, r.host[0], 32 * MIB), 0);
    assert_int_equal(rig_load(&r), TN_EINVAL);
    assert_int_equal(
        tn_mem_add(&r.mem, 32 * MIB + 4096, r.host[0] + 32 * MIB + 4096, 32 * MIB - 4096), 0);
    assert_int_equal(rig_load(&r), TN_EINVAL);
    tn_mem_init(&r.mem, r.table, 2); /* two regions that touch, inside a segment, are as good */
    assert_int_equal(tn_mem_add(&r.mem, 0, r.host[0], DATA + 0x1000), 0);
    assert_int_equal(
        tn_mem_add(&r.mem, DATA + 0x1000, r.host[0] + DATA + 0x1000, 64 * MIB - DATA - 0x1000), 0);
    memset(r.host[0] + DATA, 0xa5, 0x4000);
    assert_int_equal(rig_load(&r), 0);
    assert_true(is_zero(r.host[0] + DATA + 0x200, 0x2e00));
    assert_true(all(r.host[0] + DATA + 0x3000, 0xa5, 0x1000));
    rig_down(&r);

    rig_up(&r, 4 * GIB); /* what lies above the hole is RAM too */
    r.cfg.kernel = elf;
    r.cfg.kernel_len = sizeof(elf);
    assert_int_equal(rig_load(&r), 0);
    r.mem.count = 1;
    assert_int_equal(rig_load(&r), TN_EINVAL);
    rig_down(&r);
}

/* RAM above 4 GiB is neither in the page tables nor in reach of PVH: no kernel goes there. */
static void d04_kernel_above_the_page_tables(void **state)
{
    uint8_t elf[ELF_LEN];
    struct rig r;

    (void)state;
    rig_up(&r, 8 * GIB);
    make_elf(elf, TEXT, 5 * GIB, 0);
    r.cfg.kernel = elf;
    r.cfg.kernel_len = sizeof(elf);
    assert_int_equal(rig_load(&r), TN_ENOFIT);
    assert_int_equal(r.info.stage, TN_BOOT_X86_AT_PLACE);
    assert_int_equal(r.info.detail, TN_LOADER_PLACE_RAM);
    assert_int_equal(r.info.where, 1);
    rig_down(&r);
}

/* Cut anywhere, an image loads or is refused; it is never read beyond its end. */
static void d01_images_cut_anywhere(void **state)
{
    uint8_t elf[ELF_LEN], bz[BZ_LEN];
    struct rig r;

    (void)state;
    rig_up(&r, 64 * MIB);
    make_elf(elf, TEXT, DATA, PVH_ENTRY);
    make_bzimage(bz);
    for (size_t len = 0; len < BZ_LEN - 15; len += len < 0x400 ? 1 : 13) {
        uint8_t *cut = test_exact(bz, len);

        r.cfg.kernel = cut;
        r.cfg.kernel_len = len;
        assert_true(rig_load(&r) < 0);
        free(cut);
    }
    for (size_t len = 0; len < ELF_LEN; len++) {
        uint8_t *cut = test_exact(elf, len);

        r.cfg.kernel = cut;
        r.cfg.kernel_len = len;
        assert_true(rig_load(&r) < 0);
        free(cut);
    }
    assert_true(is_zero(r.host[0], r.ram[0].size));
    rig_down(&r);
}

/* -- the command line -------------------------------------------------------------------------- */

static void d07_command_line_ends_with_a_zero(void **state)
{
    uint8_t elf[ELF_LEN], bz[BZ_LEN];
    struct rig r;

    (void)state;
    make_elf(elf, TEXT, DATA, 0);
    make_bzimage(bz);
    rig_up(&r, 64 * MIB);
    for (int k = 0; k < 3; k++) {
        struct tn_loader_plan plan;
        size_t most;

        if (k == 2)
            tn_put_(bz + 0x238, 4, UINT32_MAX); /* cmdline_size: the area is the limit then */
        r.cfg.kernel = k ? bz : elf;
        r.cfg.kernel_len = k ? sizeof(bz) : sizeof(elf);
        assert_int_equal(tn_loader_parse(r.cfg.kernel, r.cfg.kernel_len, &plan), 0);
        most = plan.cmdline_max < TN_BOOT_X86_CMDLINE_SIZE - 1 ? plan.cmdline_max
                                                               : TN_BOOT_X86_CMDLINE_SIZE - 1;
        assert_int_equal(most, k == 2 ? TN_BOOT_X86_CMDLINE_SIZE - 1 : 2047);
        for (size_t len = most + 2; len-- > most - 2;) {
            char *line = malloc(len + 1); /* exact: a read beyond the zero is a finding */

            assert_non_null(line);
            memset(line, 'c', len);
            line[len] = 0;
            r.cfg.cmdline = line;
            memset(r.host[0] + TN_BOOT_X86_CMDLINE, 0xa5, TN_BOOT_X86_CMDLINE_SIZE + 16);
            if (len > most) {
                assert_int_equal(rig_load(&r), TN_ERANGE);
                assert_int_equal(r.info.stage, TN_BOOT_X86_AT_CMDLINE);
                assert_int_equal(peek(&r, TN_BOOT_X86_CMDLINE, 1), 0xa5);
            } else {
                assert_int_equal(rig_load(&r), 0);
                assert_int_equal(r.info.cmdline_len, len);
                assert_memory_equal(r.host[0] + TN_BOOT_X86_CMDLINE, line, len + 1);
                assert_int_equal(peek(&r, TN_BOOT_X86_CMDLINE + len + 1, 1), 0xa5);
            }
            free(line);
        }
    }
    /* None at all is an empty one. */
    r.cfg.cmdline = NULL;
    assert_int_equal(rig_load(&r), 0);
    assert_int_equal(peek(&r, TN_BOOT_X86_CMDLINE, 1), 0);
    assert_int_equal(r.info.cmdline_len, 0);
    rig_down(&r);
}

/* -- what a good load writes ------------------------------------------------------------------- */

/* Walks the guest's page tables as a CPU does; the physical address, or UINT64_MAX. */
static uint64_t walk(const struct rig *r, uint64_t va)
{
    uint64_t e = r->cpu.cr3;
    int level;

    for (level = 39; level >= 21; level -= 9) {
        e = peek(r, (e & 0xffffffffff000ull) + (va >> level & 511) * 8, 8);
        if ((e & 3) != 3)
            return UINT64_MAX;
        if (e & 0x80)
            break;
    }
    assert_int_equal(level, 21); /* pages of 2 MiB, nothing larger */
    return (e & 0xfffffffe00000ull) + va % (2 * MIB);
}

/* Reads a descriptor back out of guest memory, by the book. */
static struct tn_boot_x86_seg descriptor(const struct rig *r, uint16_t selector)
{
    uint64_t d = peek(r, r->cpu.gdt_base + selector, 8);
    struct tn_boot_x86_seg s;

    assert_true(selector + 7 <= r->cpu.gdt_limit);
    memset(&s, 0, sizeof(s));
    s.selector = selector;
    s.base = (d >> 16 & 0xffffff) | (d >> 56) << 24;
    s.limit = (uint32_t)((d & 0xffff) | (d >> 48 & 15) << 16);
    s.type = d >> 40 & 15;
    s.s = d >> 44 & 1;
    s.dpl = d >> 45 & 3;
    s.present = d >> 47 & 1;
    s.avl = d >> 52 & 1;
    s.l = d >> 53 & 1;
    s.db = d >> 54 & 1;
    s.g = d >> 55 & 1;
    if (s.g)
        s.limit = s.limit << 12 | 0xfff;
    return s;
}

static void check_seg(const struct rig *r, const struct tn_boot_x86_seg *seg)
{
    struct tn_boot_x86_seg s = descriptor(r, seg->selector);

    assert_true(s.base == seg->base && s.limit == seg->limit && s.type == seg->type &&
                s.present == seg->present && s.dpl == seg->dpl && s.db == seg->db &&
                s.s == seg->s && s.l == seg->l && s.g == seg->g && s.avl == seg->avl);
}

static void check_cpu(const struct rig *r, uint32_t proto, uint64_t entry)
{
    const struct tn_boot_x86_cpu *c = &r->cpu;
    bool pvh = proto == TN_BOOT_X86_PVH, flat = proto != TN_BOOT_X86_LINUX64;
    bool old = r->info.plan.setup_len > 0 && r->info.plan.boot_version < 0x202;

    assert_int_equal(c->proto, proto);
    assert_int_equal(c->rip, entry);
    assert_int_equal(c->rflags, 2);
    assert_int_equal(c->rsi, pvh ? 0 : old ? 0x90000 : 0x7000);
    assert_int_equal(c->rbx, pvh ? 0x6000 : 0);
    assert_int_equal(c->rsp, 0x8ff0);
    assert_int_equal(c->rbp, proto == TN_BOOT_X86_LINUX32 ? 0 : 0x8ff0);
    assert_int_equal(c->cr0, flat ? 0x11 : 0x80000011);
    assert_int_equal(c->cr3, flat ? 0 : 0x9000);
    assert_int_equal(c->cr4, flat ? 0 : 0x20);
    assert_int_equal(c->efer, flat ? 0 : 0x500);
    assert_int_equal(c->gdt_base, 0x1000);
    assert_int_equal(c->gdt_limit, 47);
    assert_int_equal(c->idt_limit, 0);
    assert_int_equal(c->cs.selector, 0x10);
    assert_int_equal(c->ds.selector, 0x18);
    assert_true(c->cs.l == !flat && c->cs.db == flat && c->cs.type == 0xb && c->cs.s == 1);
    assert_true(c->ds.db == 1 && c->ds.type == 3 && c->ds.s == 1 && c->ds.limit == UINT32_MAX);
    assert_true(c->cs.base == 0 && c->cs.limit == UINT32_MAX && c->cs.g == 1);
    assert_true(c->tr.base == 0 && c->tr.limit == 0x67 && c->tr.type == 0xb && c->tr.s == 0);
    assert_true(c->cs.present && c->ds.present && c->tr.present);
    check_seg(r, &c->cs);
    check_seg(r, &c->ds);
    check_seg(r, &c->tr);
    assert_int_equal(peek(r, 0x1000, 8), 0);
    assert_int_equal(peek(r, 0x1008, 8), 0);
    assert_int_equal(peek(r, 0x1028, 8), 0); /* the upper half of a 64-bit TSS descriptor */
}

static void check_memmap(const struct rig *r, uint64_t at, unsigned stride, unsigned n)
{
    struct tn_boot_x86_e820_entry map[5];

    assert_int_equal(tn_boot_x86_e820(r->cfg.ram_size, map, 5), n);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(peek(r, at + i * stride, 8), map[i].addr);
        assert_int_equal(peek(r, at + i * stride + 8, 8), map[i].size);
        assert_int_equal(peek(r, at + i * stride + 16, 4), map[i].type);
    }
}

static void check_elf_bytes(const struct rig *r, const uint8_t *elf)
{
    assert_memory_equal(r->host[0] + TEXT, elf + ELF_SEG0, 0x200);
    assert_int_equal(peek(r, TEXT + 0x200, 1), 0xa5);
    assert_memory_equal(r->host[0] + DATA, elf + ELF_SEG1, 0x200);
    assert_true(is_zero(r->host[0] + DATA + 0x200, 0x2e00)); /* .bss */
    assert_int_equal(peek(r, DATA + 0x3000, 1), 0xa5);
}

static void check_initrd(const struct rig *r)
{
    const struct tn_loader_plan *p = &r->info.plan;
    uint64_t end = r->info.initrd_gpa + r->info.initrd_size;

    assert_int_equal(r->info.initrd_size, r->cfg.initrd_len);
    assert_true(r->info.initrd_gpa % 4096 == 0 && r->info.initrd_gpa >= MIB);
    assert_true(end <= r->ram[0].size);
    assert_true(end <= p->seg[0].gpa || r->info.initrd_gpa >= p->seg[0].gpa + p->init_size);
    assert_memory_equal(r->host[0] + r->info.initrd_gpa, r->cfg.initrd, r->cfg.initrd_len);
}

/* Pages below 1 MiB that a load with this protocol may write. */
static void check_low_pages(const struct rig *r, const char *pages)
{
    for (unsigned i = 0; i < 256; i++) {
        bool may = i == 0x20; /* the command line, short here */

        for (const char *p = pages; *p; p++)
            may |= i == (unsigned)(*p <= '9' ? *p - '0' : *p - 'a' + 10);
        if (!may && !all(r->host[0] + i * 4096, 0xa5, 4096))
            fail_msg("page %u is written", i);
    }
}

static void fill(struct rig *r)
{
    memset(r->host[0], 0xa5, MIB);
    memset(r->host[0] + TEXT, 0xa5, 0x2000);
    memset(r->host[0] + DATA, 0xa5, 0x4000);
}

static void linux64_from_elf(void **state)
{
    static const uint64_t rams[] = {32 * MIB, 64 * MIB, 3 * GIB, 3 * GIB + 4096, 1024 * GIB};
    uint8_t elf[ELF_LEN], initrd[5000];

    (void)state;
    make_elf(elf, TEXT, DATA, PVH_ENTRY);
    memset(initrd, 0x77, sizeof(initrd));
    for (size_t i = 0; i < COUNT(rams); i++) {
        const uint64_t zp = TN_BOOT_X86_ZERO_PAGE;
        struct rig r;

        rig_up(&r, rams[i]);
        fill(&r);
        r.cfg.kernel = test_exact(elf, sizeof(elf));
        r.cfg.kernel_len = sizeof(elf);
        r.cfg.initrd = test_exact(initrd, sizeof(initrd));
        r.cfg.initrd_len = sizeof(initrd);
        r.cfg.cmdline = "console=ttyS0";
        r.cfg.rsdp = 0xe0000;
        assert_int_equal(rig_load(&r), 0);
        assert_int_equal(r.info.stage, TN_BOOT_X86_AT_END);
        check_cpu(&r, TN_BOOT_X86_LINUX64, ELF_ENTRY);
        check_elf_bytes(&r, elf);
        check_initrd(&r);
        check_low_pages(&r, "179abcde");
        assert_string_equal((char *)r.host[0] + TN_BOOT_X86_CMDLINE, "console=ttyS0");

        assert_int_equal(peek(&r, zp + 0x1fe, 2), 0xaa55);
        assert_memory_equal(r.host[0] + zp + 0x202, "HdrS", 4);
        assert_int_equal(peek(&r, zp + 0x206, 2), 0x20f);
        assert_int_equal(peek(&r, zp + 0x210, 1), 0xff);
        assert_int_equal(peek(&r, zp + 0x211, 1), 1);
        assert_int_equal(peek(&r, zp + 0x230, 4), 0x1000000);
        assert_int_equal(peek(&r, zp + 0x238, 4), r.info.plan.cmdline_max);
        assert_int_equal(peek(&r, zp + 0x228, 4), TN_BOOT_X86_CMDLINE);
        assert_int_equal(peek(&r, zp + 0x218, 4), r.info.initrd_gpa);
        assert_int_equal(peek(&r, zp + 0x21c, 4), sizeof(initrd));
        assert_int_equal(peek(&r, zp + 0x0c0, 8), 0);
        assert_int_equal(peek(&r, zp + 0x070, 8), 0xe0000);
        assert_int_equal(peek(&r, zp + 0x1ef, 1), 0); /* the sentinel */
        assert_int_equal(peek(&r, zp + 0x1e8, 1), r.ranges + 3);
        check_memmap(&r, zp + 0x2d0, 20, (unsigned)r.ranges + 3);
        assert_true(is_zero(r.host[0] + zp + 0x2d0 + 20 * 5, 0xd00 - 20 * 5));

        for (uint64_t va = 0; va < 4 * GIB; va += 2 * MIB)
            assert_true(walk(&r, va) == va && walk(&r, va + 0x1ff123) == va + 0x1ff123);
        assert_true(walk(&r, 4 * GIB) == UINT64_MAX && walk(&r, 1ull << 39) == UINT64_MAX);
        free((void *)r.cfg.kernel);
        free((void *)r.cfg.initrd);
        rig_down(&r);
    }
}

static void linux64_from_bzimage(void **state)
{
    const uint64_t zp = TN_BOOT_X86_ZERO_PAGE;
    uint8_t bz[BZ_LEN], want[BZ_SETUP_LEN];
    struct rig r;

    (void)state;
    make_bzimage(bz);
    rig_up(&r, 64 * MIB);
    fill(&r);
    r.cfg.kernel = test_exact(bz, sizeof(bz));
    r.cfg.kernel_len = sizeof(bz);
    r.cfg.cmdline = "quiet";
    assert_int_equal(rig_load(&r), 0);
    check_cpu(&r, TN_BOOT_X86_LINUX64, BZ_PREF + 0x200);
    check_low_pages(&r, "179abcde");
    assert_memory_equal(r.host[0] + BZ_PREF, bz + 0x400, BZ_LEN - 0x400);
    assert_int_equal(r.info.initrd_gpa, 0);

    /* The setup header: its bytes, no more, and a loader's fields in them. */
    memcpy(want, bz + 0x1f1, sizeof(want));
    tn_put_(want + (0x210 - 0x1f1), 1, 0xff);
    tn_put_(want + (0x214 - 0x1f1), 4, BZ_PREF);
    tn_put_(want + (0x228 - 0x1f1), 4, TN_BOOT_X86_CMDLINE);
    tn_put_(want + (0x250 - 0x1f1), 8, 0);
    assert_memory_equal(r.host[0] + zp + 0x1f1, want, sizeof(want));
    assert_true(is_zero(r.host[0] + zp + 0x1f1 + sizeof(want), 0x2d0 - 0x1f1 - sizeof(want)));
    assert_true(is_zero(r.host[0] + zp, 0x1e8));
    assert_int_equal(peek(&r, zp + 0x1ef, 1), 0);
    check_memmap(&r, zp + 0x2d0, 20, 4);

    /* Not enough room for init_size, nor above it. */
    r.cfg.ram_size = 16 * MIB;
    assert_int_equal(rig_load(&r), TN_ENOFIT);
    assert_int_equal(r.info.stage, TN_BOOT_X86_AT_PLACE);
    /* An initrd that would need what init_size has. */
    r.cfg.ram_size = BZ_PREF + BZ_INIT;
    r.cfg.initrd_len = 16 * MIB;
    r.cfg.initrd = r.host[0]; /* never read */
    assert_int_equal(rig_load(&r), TN_ENOFIT);
    assert_int_equal(r.info.stage, TN_BOOT_X86_AT_INITRD);
    /* A bzImage offers no PVH. */
    r.cfg.initrd_len = 0;
    r.cfg.proto = TN_BOOT_X86_PVH;
    assert_int_equal(rig_load(&r), TN_EUNSUP);
    free((void *)r.cfg.kernel);
    rig_down(&r);
}

/* The zero page is linux64's, the CPU's state is not; before 2.02 they find it at 0x90000. */
static void linux32_from_bzimage(void **state)
{
    static const struct {
        uint16_t version;
        uint8_t jump;
        uint64_t gpa;
    } t[] = {
        {0x20f, BZ_JUMP, BZ_PREF}, {0x209, 0x258 - 0x202, 0x200000},
        {0x205, 0x33, 0x200000},   {0x204, 0x2e, MIB},
        {0x202, 0x2a, MIB},        {0x201, 0x24, MIB},
        {0x200, 0x22, MIB},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(t) * 2; i++) {
        bool autopick = i % 2, old = t[i / 2].version < 0x202;
        uint64_t zp = old ? 0x90000 : 0x7000, line = old ? 0x91000 : 0x20000;
        uint64_t gpa = t[i / 2].gpa;
        size_t setup = 0x202u + t[i / 2].jump - 0x1f1u;
        uint8_t bz[BZ_LEN], initrd[4097], want[0x90];
        struct rig r;

        if (autopick && t[i / 2].version == 0x20f)
            continue; /* it is linux64 then */
        make_bzimage(bz);
        bz[0x201] = t[i / 2].jump;
        tn_put_(bz + 0x206, 2, t[i / 2].version);
        memset(initrd, 0x55, sizeof(initrd));
        rig_up(&r, 64 * MIB);
        fill(&r);
        r.cfg.kernel = test_exact(bz, sizeof(bz));
        r.cfg.kernel_len = sizeof(bz);
        r.cfg.initrd = initrd;
        r.cfg.initrd_len = sizeof(initrd);
        r.cfg.cmdline = "old style";
        r.cfg.rsdp = 0xe0000;
        r.cfg.proto = autopick ? TN_BOOT_X86_AUTO : TN_BOOT_X86_LINUX32;
        assert_int_equal(rig_load(&r), 0);
        check_cpu(&r, TN_BOOT_X86_LINUX32, gpa);
        check_initrd(&r);
        assert_memory_equal(r.host[0] + gpa, bz + 0x400, BZ_LEN - 0x400);
        if (old) { /* pages 0x90 and 0x91, and no others but the GDT's */
            assert_true(all(r.host[0] + 0x20000, 0xa5, 0x1000));
            assert_true(all(r.host[0] + 0x92000, 0xa5, MIB - 0x92000));
            assert_true(all(r.host[0] + 0x2000, 0xa5, 0x90000 - 0x2000));
            assert_int_equal(peek(&r, zp + 0x20, 2), 0xa33f);
            assert_int_equal(peek(&r, zp + 0x22, 2), line - zp);
            assert_int_equal(peek(&r, zp + 0x02, 2), 63 * 1024);
            assert_int_equal(peek(&r, zp + 0x1e0, 4), 63 * 1024);
        } else {
            check_low_pages(&r, "17");
            assert_true(is_zero(r.host[0] + zp, 0x70));
        }
        assert_string_equal((char *)r.host[0] + line, "old style");
        memcpy(want, bz + 0x1f1, setup);
        tn_put_(want + (0x210 - 0x1f1), 1, 0xff);
        tn_put_(want + (0x214 - 0x1f1), 4, gpa);
        tn_put_(want + (0x218 - 0x1f1), 4, r.info.initrd_gpa);
        tn_put_(want + (0x21c - 0x1f1), 4, sizeof(initrd));
        if (!old)
            tn_put_(want + (0x228 - 0x1f1), 4, line);
        tn_put_(want + (0x250 - 0x1f1), 8, 0);
        assert_memory_equal(r.host[0] + zp + 0x1f1, want, setup);
        assert_int_equal(peek(&r, zp + 0x070, 8), 0xe0000);
        check_memmap(&r, zp + 0x2d0, 20, 4);

        r.cfg.cmdline = long_line; /* 255 bytes before 2.06, see d07 for the rest */
        memset(long_line, 'x', 256);
        long_line[256] = 0;
        assert_int_equal(rig_load(&r), t[i / 2].version < 0x206 ? TN_ERANGE : 0);
        long_line[255] = 0;
        assert_int_equal(rig_load(&r), 0);
        assert_string_equal((char *)r.host[0] + line, long_line);
        free((void *)r.cfg.kernel);
        rig_down(&r);
    }
}

/* setup_data: next, type, length, and the blob, byte for byte. */
static void a_device_tree_is_handed_over(void **state)
{
    static const size_t lens[] = {40, 41, 4096, TN_BOOT_X86_FDT_SIZE - 16};
    const uint64_t at = TN_BOOT_X86_FDT;

    (void)state;
    for (size_t i = 0; i < COUNT(lens) * 2; i++) {
        size_t len = lens[i / 2];
        uint8_t elf[ELF_LEN], bz[BZ_LEN];
        struct rig r;

        rig_up(&r, 64 * MIB);
        fill(&r);
        make_elf(elf, TEXT, DATA, PVH_ENTRY);
        make_bzimage(bz);
        r.cfg.kernel = i % 2 ? bz : elf;
        r.cfg.kernel_len = i % 2 ? sizeof(bz) : sizeof(elf);
        make_tree(&r, len, len);
        r.cfg.fdt = test_exact(tree, len);
        assert_int_equal(rig_load(&r), 0);
        assert_int_equal(peek(&r, TN_BOOT_X86_ZERO_PAGE + 0x250, 8), at);
        assert_int_equal(peek(&r, at, 8), 0);
        assert_int_equal(peek(&r, at + 8, 4), 2); /* SETUP_DTB */
        assert_int_equal(peek(&r, at + 12, 4), len);
        assert_memory_equal(r.host[0] + at + 16, tree, len);
        assert_int_equal(peek(&r, at + 16 + len, 1), 0xa5);
        free((void *)r.cfg.fdt);
        rig_down(&r);
    }
}

/* Its field in the header came with protocol 2.09. */
static void before_2_09_there_is_no_setup_data(void **state)
{
    static const uint16_t versions[] = {0x202, 0x205, 0x208, 0x209, 0x20a};

    (void)state;
    for (size_t i = 0; i < COUNT(versions); i++) {
        uint8_t bz[BZ_LEN];
        struct rig r;

        make_bzimage(bz);
        tn_put_(bz + 0x206, 2, versions[i]);
        rig_up(&r, 64 * MIB);
        r.cfg.kernel = bz;
        r.cfg.kernel_len = sizeof(bz);
        r.cfg.proto = TN_BOOT_X86_LINUX32;
        make_tree(&r, 4096, 4096);
        assert_int_equal(rig_load(&r), versions[i] < 0x209 ? TN_EUNSUP : 0);
        assert_int_equal(r.info.stage,
                         versions[i] < 0x209 ? TN_BOOT_X86_AT_FDT : TN_BOOT_X86_AT_END);
        rig_down(&r);
    }
}

/* 16 bits can't say how much RAM there is, nor can 32 of what lies above the hole. */
static void before_2_02_ram_is_also_told_in_kib(void **state)
{
    static const uint64_t rams[] = {16 * MIB, 64 * MIB + 4096, 3 * GIB, 4 * GIB};
    uint8_t bz[BZ_LEN];

    (void)state;
    make_bzimage(bz);
    bz[0x201] = 0x22;
    tn_put_(bz + 0x206, 2, 0x200);
    for (size_t i = 0; i < COUNT(rams); i++) {
        struct rig r;
        uint64_t kib;

        rig_up(&r, rams[i]);
        kib = (r.ram[0].size - MIB) / 1024;
        r.cfg.kernel = bz;
        r.cfg.kernel_len = sizeof(bz);
        assert_int_equal(rig_load(&r), 0);
        assert_int_equal(peek(&r, 0x90002, 2), kib < 65535 ? kib : 65535);
        assert_int_equal(peek(&r, 0x901e0, 4), kib);
        assert_string_equal((char *)r.host[0] + 0x91000, "");
        rig_down(&r);
    }
}

static void pvh_from_elf(void **state)
{
    static const uint64_t rams[] = {32 * MIB, 3 * GIB + 4096, 1024 * GIB};
    uint8_t elf[ELF_LEN], initrd[4096];

    (void)state;
    make_elf(elf, TEXT, DATA, PVH_ENTRY);
    memset(initrd, 0x66, sizeof(initrd));
    for (size_t i = 0; i < COUNT(rams) * 2; i++) {
        const uint64_t si = TN_BOOT_X86_PVH_INFO;
        bool with = i % 2;
        uint64_t list;
        struct rig r;

        rig_up(&r, rams[i / 2]);
        fill(&r);
        r.cfg.kernel = elf;
        r.cfg.kernel_len = sizeof(elf);
        r.cfg.initrd = with ? initrd : NULL;
        r.cfg.initrd_len = with ? sizeof(initrd) : 0;
        r.cfg.cmdline = "pvh";
        r.cfg.rsdp = with ? 0xe0040 : 0;
        r.cfg.proto = TN_BOOT_X86_PVH;
        assert_int_equal(rig_load(&r), 0);
        check_cpu(&r, TN_BOOT_X86_PVH, PVH_ENTRY);
        check_elf_bytes(&r, elf);
        check_low_pages(&r, "16");
        assert_int_equal(peek(&r, si, 4), 0x336ec578);
        assert_int_equal(peek(&r, si + 4, 4), 1);
        assert_int_equal(peek(&r, si + 8, 4), 0);
        assert_int_equal(peek(&r, si + 12, 4), with);
        list = peek(&r, si + 16, 8);
        if (with) {
            check_initrd(&r);
            assert_true(list >= si + 56 && list % 8 == 0);
            assert_int_equal(peek(&r, list, 8), r.info.initrd_gpa);
            assert_int_equal(peek(&r, list + 8, 8), sizeof(initrd));
            assert_true(is_zero(r.host[0] + list + 16, 16));
        } else {
            assert_int_equal(list, 0);
        }
        assert_int_equal(peek(&r, si + 24, 8), TN_BOOT_X86_CMDLINE);
        assert_string_equal((char *)r.host[0] + TN_BOOT_X86_CMDLINE, "pvh");
        assert_int_equal(peek(&r, si + 32, 8), with ? 0xe0040 : 0);
        assert_int_equal(peek(&r, si + 48, 4), r.ranges + 3);
        assert_int_equal(peek(&r, si + 52, 4), 0);
        check_memmap(&r, peek(&r, si + 40, 8), 24, (unsigned)r.ranges + 3);
        rig_down(&r);
    }
}

static void auto_takes_linux64_then_pvh(void **state)
{
    uint8_t elf[ELF_LEN];
    struct rig r;

    (void)state;
    rig_up(&r, 64 * MIB);
    make_elf(elf, TEXT, DATA, PVH_ENTRY);
    r.cfg.kernel = elf;
    r.cfg.kernel_len = sizeof(elf);
    assert_int_equal(rig_load(&r), 0);
    assert_int_equal(r.cpu.proto, TN_BOOT_X86_LINUX64);
    tn_put_(elf + 24, 8, 0xffffffff81000000); /* a virtual e_entry */
    assert_int_equal(rig_load(&r), 0);
    check_cpu(&r, TN_BOOT_X86_PVH, PVH_ENTRY);
    rig_down(&r);
}

/* What stands between a plan that is wrong and guest memory. */
static void plans_are_checked_again(void **state)
{
    static const struct {
        struct tn_loader_seg seg;
        uint64_t setup_off, setup_len, entry;
        bool ok;
    } rows[] = {
        {{MIB, 0x2000, 0, 0x1000}, 0, 0, MIB, true},
        {{MIB, 0x2000, 0, 0x1000}, 0x1000, 0, MIB + 0xfff, true},
        {{MIB, 0x2000, 0, 0x1000}, 0, 0, MIB + 0x1000, false}, /* entry in the .bss */
        {{MIB, 0x2000, 0, 0x1000}, 0, 0, MIB - 1, false},
        {{MIB, 0x2000, 1, 0x1000}, 0, 0, MIB, false}, /* beyond the file */
        {{MIB, 0x2000, UINT64_MAX, 0x1000}, 0, 0, MIB, false},
        {{MIB, 0x2000, 0, 0x1001}, 0, 0, MIB, false},
        {{MIB, 0xfff, 0, 0x1000}, 0, 0, MIB, false},      /* more file than memory */
        {{MIB - 1, 0x2000, 0, 0x1000}, 0, 0, MIB, false}, /* below */
        {{16 * MIB - 0x1fff, 0x2000, 0, 0x1000}, 0, 0, 16 * MIB - 0x1fff, false}, /* above */
        {{16 * MIB + 1, 0, 0, 0}, 0, 0, MIB, false},
        {{MIB, UINT64_MAX, 0, 0x1000}, 0, 0, MIB, false},
        {{MIB, 0x2000, 0, 0x1000}, 0xfff, 2, MIB, false}, /* the header beyond the file */
        {{MIB, 0x2000, 0, 0x1000}, 0, 0x1001, MIB, false},
        {{MIB, 0x2000, 0, 0x1000}, UINT64_MAX, 2, MIB, false},
    };
    struct tn_loader_plan plan;

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        memset(&plan, 0, sizeof(plan));
        plan.nsegs = 1;
        plan.seg[0] = rows[i].seg;
        plan.setup_off = rows[i].setup_off;
        plan.setup_len = rows[i].setup_len;
        if (tn_boot_x86_plan_ok_(&plan, 0x1000, MIB, 16 * MIB, rows[i].entry) != rows[i].ok)
            fail_msg("row %zu", i);
    }
    plan.nsegs = 0;
    assert_false(tn_boot_x86_plan_ok_(&plan, 0x1000, MIB, 16 * MIB, MIB));
    plan.nsegs = TN_LOADER_MAX_SEGS + 1;
    assert_false(tn_boot_x86_plan_ok_(&plan, 0x1000, MIB, 16 * MIB, MIB));
}

/* -- the registers, held against a CPU --------------------------------------------------------- */

#ifdef __x86_64__
static void to_kvm(struct kvm_segment *k, const struct tn_boot_x86_seg *s)
{
    memset(k, 0, sizeof(*k));
    k->base = s->base;
    k->limit = s->limit;
    k->selector = s->selector;
    k->type = s->type;
    k->present = s->present;
    k->dpl = s->dpl;
    k->db = s->db;
    k->s = s->s;
    k->l = s->l;
    k->g = s->g;
    k->avl = s->avl;
}

static struct {
    int kvm, vm, vcpu;
    struct kvm_run *run;
    size_t size;
} cpu;

/* A CPU at the loaded guest's entry. */
static void cpu_up(const struct rig *r)
{
    struct kvm_userspace_memory_region slot = {0, 0, 0, r->ram[0].size, (uintptr_t)r->host[0]};
    const struct tn_boot_x86_cpu *c = &r->cpu;
    struct kvm_regs regs = {0};
    struct kvm_sregs s;
    int size;

    cpu.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (cpu.kvm < 0) {
        SKIP("/dev/kvm is missing or may not be opened");
    }
    cpu.vm = ioctl(cpu.kvm, KVM_CREATE_VM, 0);
    assert_true(cpu.vm >= 0);
    assert_int_equal(ioctl(cpu.vm, KVM_SET_TSS_ADDR, 0xfffbd000), 0);
    assert_int_equal(ioctl(cpu.vm, KVM_SET_USER_MEMORY_REGION, &slot), 0);
    cpu.vcpu = ioctl(cpu.vm, KVM_CREATE_VCPU, 0);
    assert_true(cpu.vcpu >= 0);
    size = ioctl(cpu.kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    assert_true(size > 0);
    cpu.size = (size_t)size;
    cpu.run = mmap(NULL, cpu.size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu.vcpu, 0);
    assert_true(cpu.run != MAP_FAILED);
    assert_int_equal(ioctl(cpu.vcpu, KVM_GET_SREGS, &s), 0);
    to_kvm(&s.cs, &c->cs);
    to_kvm(&s.ds, &c->ds);
    s.es = s.fs = s.gs = s.ss = s.ds;
    to_kvm(&s.tr, &c->tr);
    s.gdt.base = c->gdt_base;
    s.gdt.limit = c->gdt_limit;
    s.idt.base = c->idt_base;
    s.idt.limit = c->idt_limit;
    s.cr0 = c->cr0;
    s.cr3 = c->cr3;
    s.cr4 = c->cr4;
    s.efer = c->efer;
    assert_int_equal(ioctl(cpu.vcpu, KVM_SET_SREGS, &s), 0);
    regs.rip = c->rip;
    regs.rsp = c->rsp;
    regs.rbp = c->rbp;
    regs.rsi = c->rsi;
    regs.rbx = c->rbx;
    regs.rflags = c->rflags;
    assert_int_equal(ioctl(cpu.vcpu, KVM_SET_REGS, &regs), 0);
}

/* Runs up to the next port write: the port, and what is written. */
static uint32_t cpu_out(uint32_t *value)
{
    const struct kvm_run *run = cpu.run;

    assert_int_equal(ioctl(cpu.vcpu, KVM_RUN, 0), 0);
    if (run->exit_reason != KVM_EXIT_IO)
        fail_msg("exit reason %u", run->exit_reason);
    *value = 0;
    memcpy(value, (const uint8_t *)run + run->io.data_offset, run->io.size);
    return run->io.port;
}

static void cpu_down(void)
{
    munmap(cpu.run, cpu.size);
    close(cpu.vcpu);
    close(cpu.vm);
    close(cpu.kvm);
}

/* Runs the loaded guest up to its first port write; the value written. */
static uint32_t run(const struct rig *r)
{
    uint32_t value;

    cpu_up(r);
    assert_int_equal(cpu_out(&value), 0xf4);
    cpu_down();
    return value;
}
#endif

static void a_cpu_enters_linux64(void **state)
{
    (void)state;
#ifdef __x86_64__
    static const uint8_t code[] = {
        0xb8, 0x18, 0x00, 0x00, 0x00,             /* mov $0x18, %eax: reload from the GDT */
        0x8e, 0xd8, 0x8e, 0xd0,                   /* mov %eax, %ds; mov %eax, %ss */
        0x6a, 0x10,                               /* push $0x10 */
        0x48, 0x8d, 0x05, 0x03, 0x00, 0x00, 0x00, /* lea 3(%rip), %rax */
        0x50, 0x48, 0xcb,                         /* push %rax; lretq */
        0x8b, 0x86, 0x02, 0x02, 0x00, 0x00,       /* mov 0x202(%rsi), %eax: "HdrS" */
        0x03, 0x04, 0x25, 0x00, 0x00, 0xe0, 0x01, /* add 0x1e00000, %eax: far from the kernel */
        0xe7, 0xf4,                               /* out %eax, $0xf4 */
    };
    uint8_t elf[ELF_LEN];
    struct rig r;

    make_elf(elf, TEXT, DATA, 0);
    memcpy(elf + ELF_SEG0 + 0x10, code, sizeof(code));
    rig_up(&r, 32 * MIB);
    r.cfg.kernel = elf;
    r.cfg.kernel_len = sizeof(elf);
    assert_int_equal(rig_load(&r), 0);
    r.host[0][0x1e00000] = 5;
    assert_int_equal(run(&r), 0x53726448 + 5);
    rig_down(&r);
#else
    SKIP("only on x86-64 Linux");
#endif
}

/* A bzImage of tests/guests, by 32-bit entry: what it prints until it resets the machine. */
static void a_cpu_enters_linux32(void **state)
{
    (void)state;
#ifdef __x86_64__
    static const char *const want[] = {"linux32 2.00 4 a line\n", "linux32 2.09 4 a line\n"};
    const char *dir = getenv("TENON_GUESTS");

    for (unsigned i = 0; i < 2; i++) {
        static uint8_t bz[0x1000];
        char path[512], said[64] = "";
        size_t n = 0;
        struct rig r;
        FILE *f;

        snprintf(path, sizeof(path), "%s/bzimage_2_%s.bin", dir ? dir : "build/guests",
                 i ? "09" : "00");
        f = fopen(path, "rb");
        if (!f)
            fail_msg("%s: no such guest; TENON_GUESTS names their directory", path);
        rig_up(&r, 32 * MIB);
        r.cfg.kernel = bz;
        r.cfg.kernel_len = fread(bz, 1, sizeof(bz), f);
        r.cfg.cmdline = "a line";
        fclose(f);
        assert_int_equal(rig_load(&r), 0);
        check_cpu(&r, TN_BOOT_X86_LINUX32, i ? 0x200000 : MIB);
        cpu_up(&r);
        while (n < sizeof(said) - 1) {
            uint32_t value, port = cpu_out(&value);

            if (port != 0x3f8)
                break;
            said[n++] = (char)value;
        }
        cpu_down();
        said[n] = 0;
        assert_string_equal(said, want[i]);
        rig_down(&r);
    }
#else
    SKIP("only on x86-64 Linux");
#endif
}

static void a_cpu_enters_pvh(void **state)
{
    (void)state;
#ifdef __x86_64__
    static const uint8_t code[] = {
        0xb8, 0x18, 0x00, 0x00, 0x00,             /* mov $0x18, %eax */
        0x8e, 0xd8, 0x8e, 0xd0,                   /* mov %eax, %ds; mov %eax, %ss */
        0xea, 0x90, 0x00, 0x00, 0x01, 0x10, 0x00, /* ljmp $0x10, $PVH_ENTRY + 16 */
        0x8b, 0x03,                               /* mov (%ebx), %eax */
        0xe7, 0xf4,                               /* out %eax, $0xf4 */
    };
    uint8_t elf[ELF_LEN];
    struct rig r;

    make_elf(elf, TEXT, DATA, PVH_ENTRY);
    memcpy(elf + ELF_SEG0 + 0x80, code, sizeof(code));
    rig_up(&r, 32 * MIB);
    r.cfg.kernel = elf;
    r.cfg.kernel_len = sizeof(elf);
    r.cfg.proto = TN_BOOT_X86_PVH;
    assert_int_equal(rig_load(&r), 0);
    assert_int_equal(run(&r), 0x336ec578);
    rig_down(&r);
#else
    SKIP("only on x86-64 Linux");
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ram_refuses_bad_sizes),
        cmocka_unit_test(ram_leaves_the_hole),
        cmocka_unit_test(e820_is_the_table),
        cmocka_unit_test(offsets_are_the_kernels),
        cmocka_unit_test(d04_errors_leave_memory_alone),
        cmocka_unit_test(memory_must_hold_the_ram),
        cmocka_unit_test(d04_kernel_above_the_page_tables),
        cmocka_unit_test(d01_images_cut_anywhere),
        cmocka_unit_test(d07_command_line_ends_with_a_zero),
        cmocka_unit_test(linux64_from_elf),
        cmocka_unit_test(linux64_from_bzimage),
        cmocka_unit_test(linux32_from_bzimage),
        cmocka_unit_test(before_2_02_ram_is_also_told_in_kib),
        cmocka_unit_test(a_device_tree_is_handed_over),
        cmocka_unit_test(before_2_09_there_is_no_setup_data),
        cmocka_unit_test(pvh_from_elf),
        cmocka_unit_test(auto_takes_linux64_then_pvh),
        cmocka_unit_test(plans_are_checked_again),
        cmocka_unit_test(a_cpu_enters_linux64),
        cmocka_unit_test(a_cpu_enters_linux32),
        cmocka_unit_test(a_cpu_enters_pvh),
    };

    return cmocka_run_group_tests_name("boot_x86", tests, NULL, NULL);
}
