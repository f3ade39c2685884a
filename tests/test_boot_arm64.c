/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_boot_arm64.h"

#include "test.h"

#include <sys/mman.h>

#define KIB (1ull << 10)
#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define RAM 0x40000000ull

/* -- guest memory: mapped, not allocated, so that 1 TiB of it costs what is touched ------------ */

struct rig {
    struct tn_mem_region table[3];
    struct tn_mem mem;
    struct tn_loader_range ram[1];
    uint8_t *host;
    struct tn_boot_arm64_cfg cfg;
    struct tn_boot_arm64_cpu cpu;
    struct tn_boot_arm64_info info;
};

static void rig_up(struct rig *r, uint64_t size)
{
    void *at;

    memset(r, 0, sizeof(*r));
    tn_mem_init(&r->mem, r->table, 3);
    assert_int_equal(tn_boot_arm64_ram(size, r->ram), 1);
    if (r->ram[0].size > test_most())
        SKIP("that much RAM can't be mapped");
    at = mmap(NULL, (size_t)r->ram[0].size, PROT_READ | PROT_WRITE,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(at != MAP_FAILED);
    r->host = at;
    assert_int_equal(tn_mem_add(&r->mem, r->ram[0].gpa, at, r->ram[0].size), 0);
    r->cfg.ram_size = size;
}

static void rig_down(struct rig *r)
{
    munmap(r->host, (size_t)r->ram[0].size);
}

static int rig_load(struct rig *r)
{
    memset(&r->cpu, 0x5a, sizeof(r->cpu));
    memset(&r->info, 0x5a, sizeof(r->info));
    return tn_boot_arm64_load(&r->mem, &r->cfg, &r->cpu, &r->info);
}

static uint8_t *host(const struct rig *r, uint64_t gpa)
{
    assert_true(gpa >= RAM && gpa - RAM <= r->ram[0].size);
    return r->host + (gpa - RAM);
}

static bool all(const uint8_t *p, uint8_t byte, uint64_t len)
{
    for (uint64_t i = 0; i < len; i++) {
        if (p[i] != byte)
            return false;
    }
    return true;
}

static bool is_zero(const void *p, uint64_t len)
{
    return all(p, 0, len);
}

/* An error leaves nothing but where it happened. */
static void check_void(struct rig *r)
{
    r->info.stage = r->info.detail = r->info.where = 0;
    assert_true(is_zero(&r->cpu, sizeof(r->cpu)));
    assert_true(is_zero(&r->info, sizeof(r->info)));
}

/* -- kernels ----------------------------------------------------------------------------------- */

#define IMAGE_LEN 0x1800u

/* As today's kernels are: text_offset 0, somewhere in RAM. */
static void make_image(uint8_t img[IMAGE_LEN], uint64_t text_offset, uint64_t image_size)
{
    for (unsigned i = 0; i < IMAGE_LEN; i++)
        img[i] = i < 64 ? 0 : (uint8_t)(i * 7 + 1);
    tn_put_(img, 4, 0xfa405a4d); /* code0: "MZ", and an instruction all the same */
    tn_put_(img + 4, 4, 0x14000003);
    tn_put_(img + 8, 8, text_offset);
    tn_put_(img + 16, 8, image_size);
    tn_put_(img + 24, 8, 0xa); /* flags: pages of 4 KiB, anywhere in RAM */
    memcpy(img + 56, "ARM\x64", 4);
}

#define ELF_LEN  0x600u
#define ELF_SEG0 0x200u
#define ELF_SEG1 0x400u
#define TEXT     (RAM + 4 * MIB)
#define DATA     (RAM + 8 * MIB)

/* Two segments, the second with a .bss; both are linked where they lie. */
static void make_elf(uint8_t img[ELF_LEN], uint64_t text, uint64_t data)
{
    static const uint8_t ident[16] = {0x7f, 'E', 'L', 'F', 2, 1, 1};
    uint64_t ph[2][4] = {
        /* offset, paddr, filesz, memsz */
        {ELF_SEG0, text, 0x200, 0x200},
        {ELF_SEG1, data, 0x200, 0x3000},
    };

    for (unsigned i = 0; i < ELF_LEN; i++)
        img[i] = i < ELF_SEG0 ? 0 : (uint8_t)(i * 7 + 1);
    memcpy(img, ident, sizeof(ident));
    tn_put_(img + 16, 2, 2);           /* ET_EXEC */
    tn_put_(img + 18, 2, 183);         /* EM_AARCH64 */
    tn_put_(img + 20, 4, 1);           /* e_version */
    tn_put_(img + 24, 8, text + 0x10); /* e_entry */
    tn_put_(img + 32, 8, 64);          /* e_phoff */
    tn_put_(img + 52, 2, 64);          /* e_ehsize */
    tn_put_(img + 54, 2, 56);          /* e_phentsize */
    tn_put_(img + 56, 2, 2);           /* e_phnum */
    for (unsigned i = 0; i < 2; i++) {
        uint8_t *p = img + 64 + i * 56;

        tn_put_(p, 4, 1); /* PT_LOAD */
        tn_put_(p + 4, 4, 7);
        tn_put_(p + 8, 8, ph[i][0]);
        tn_put_(p + 16, 8, ph[i][1]);
        tn_put_(p + 24, 8, ph[i][1]);
        tn_put_(p + 32, 8, ph[i][2]);
        tn_put_(p + 40, 8, ph[i][3]);
        tn_put_(p + 48, 8, 4);
    }
}

/* -- layout ------------------------------------------------------------------------------------ */

static void ram_refuses_bad_sizes(void **state)
{
    static const uint64_t bad[] = {0,
                                   1,
                                   64 * KIB,
                                   16 * MIB - 64 * KIB,
                                   16 * MIB + 1,
                                   16 * MIB + 4096,
                                   64 * MIB + 32 * KIB,
                                   1023 * GIB + 64 * KIB,
                                   1024 * GIB,
                                   1ull << 63,
                                   UINT64_MAX - 0xffff,
                                   UINT64_MAX};

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct tn_loader_range out[1] = {{1, 2}};

        assert_int_equal(tn_boot_arm64_ram(bad[i], out), TN_EINVAL);
        assert_true(is_zero(out, sizeof(out)));
    }
}

static void ram_is_one_range(void **state)
{
    static const uint64_t good[] = {
        16 * MIB, 16 * MIB + 64 * KIB, 128 * MIB, 1 * GIB, 3 * GIB, 4 * GIB, 64 * GIB, 1023 * GIB};

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        struct tn_loader_range out[1];

        assert_int_equal(tn_boot_arm64_ram(good[i], out), 1);
        assert_true(out[0].gpa == RAM && out[0].size == good[i]);
        assert_true(out[0].gpa + out[0].size <= 1ull << 40);
    }
    assert_int_equal(TN_BOOT_ARM64_FDT, RAM);
    assert_int_equal(TN_BOOT_ARM64_FDT % 0x200000, 0);
    assert_int_equal(TN_BOOT_ARM64_KERNEL, TN_BOOT_ARM64_FDT + TN_BOOT_ARM64_FDT_SIZE);
}

/* -- what a failed load leaves behind ---------------------------------------------------------- */

struct bad {
    const char *what;
    int err;
    uint32_t stage;
    uint32_t detail;
    void (*change)(struct rig *r, uint8_t *image);
};

static void bad_ram_size(struct rig *r, uint8_t *image)
{
    (void)image;
    r->cfg.ram_size = 15 * MIB;
}
static void bad_ram_more(struct rig *r, uint8_t *image)
{
    (void)image;
    r->cfg.ram_size = 65 * MIB; /* one more than memory holds */
}
static void bad_kernel_null(struct rig *r, uint8_t *image)
{
    (void)image;
    r->cfg.kernel = NULL;
}
static void bad_initrd_null(struct rig *r, uint8_t *image)
{
    (void)image;
    r->cfg.initrd = NULL;
    r->cfg.initrd_len = 1;
}
static void bad_empty(struct rig *r, uint8_t *image)
{
    (void)image;
    r->cfg.kernel_len = 0;
}
static void bad_magic(struct rig *r, uint8_t *image)
{
    (void)r;
    image[56] = 'a';
}
static void bad_riscv(struct rig *r, uint8_t *image)
{
    (void)r;
    memcpy(image + 56, "RSC\x05", 4);
}
static void bad_gzip(struct rig *r, uint8_t *image)
{
    (void)r;
    memcpy(image, "\x1f\x8b\x08\x00", 4);
}
static void bad_zboot(struct rig *r, uint8_t *image)
{
    (void)r;
    memcpy(image, "MZ\0\0zimg", 8);
    memcpy(image + 24, "gzip\0\0\0", 8);
}
static void bad_big_endian(struct rig *r, uint8_t *image)
{
    (void)r;
    image[24] |= 1;
}
static void bad_text_offset_max(struct rig *r, uint8_t *image)
{
    (void)r;
    tn_put_(image + 8, 8, UINT64_MAX);
}
static void bad_text_offset_limit(struct rig *r, uint8_t *image)
{
    (void)r;
    tn_put_(image + 8, 8, (1ull << 52) - 1 * MIB + 1); /* with image_size it passes 2^52 */
}
static void bad_text_offset_ram(struct rig *r, uint8_t *image)
{
    (void)r;
    tn_put_(image + 8, 8, 63 * MIB + 1);
}
static void bad_image_size(struct rig *r, uint8_t *image)
{
    (void)r;
    tn_put_(image + 16, 8, 1ull << 63);
}
static void bad_image_size_max(struct rig *r, uint8_t *image)
{
    (void)r;
    tn_put_(image + 16, 8, UINT64_MAX);
}
static void bad_image_size_ram(struct rig *r, uint8_t *image)
{
    (void)r;
    tn_put_(image + 16, 8, 62 * MIB + 1); /* what is left but for the tree's 2 MiB, and a byte */
}
static void bad_elf_x86(struct rig *r, uint8_t *image)
{
    make_elf(image, TEXT, DATA);
    tn_put_(image + 18, 2, 62);
    r->cfg.kernel_len = ELF_LEN;
}
/* As the vmlinux of an arm64 Linux is: linked at virtual addresses, loaded wherever RAM is. */
static void bad_elf_vmlinux(struct rig *r, uint8_t *image)
{
    make_elf(image, 0xffff800008000000, 0xffff800009000000);
    r->cfg.kernel_len = ELF_LEN;
}
static void bad_elf_vmlinux_low(struct rig *r, uint8_t *image)
{
    make_elf(image, TEXT, DATA);
    tn_put_(image + 24, 8, 0xffff800008000010);
    tn_put_(image + 64 + 16, 8, 0xffff800008000000);
    r->cfg.kernel_len = ELF_LEN;
}
static void bad_elf_entry(struct rig *r, uint8_t *image)
{
    make_elf(image, TEXT, DATA);
    tn_put_(image + 24, 8, TEXT + 0x200); /* D04: behind the segment's last byte */
    r->cfg.kernel_len = ELF_LEN;
}
static void bad_elf_filesz(struct rig *r, uint8_t *image)
{
    make_elf(image, TEXT, DATA);
    tn_put_(image + 64 + 40, 8, 0x1ff); /* D04 */
    r->cfg.kernel_len = ELF_LEN;
}
static void bad_elf_memsz(struct rig *r, uint8_t *image)
{
    make_elf(image, TEXT, DATA);
    tn_put_(image + 64 + 40, 8, 1ull << 63); /* D04 */
    r->cfg.kernel_len = ELF_LEN;
}
static void bad_elf_overlap(struct rig *r, uint8_t *image)
{
    make_elf(image, TEXT, TEXT + 0x1ff); /* D04 */
    r->cfg.kernel_len = ELF_LEN;
}
static void bad_elf_on_tree(struct rig *r, uint8_t *image)
{
    make_elf(image, RAM, DATA); /* D04 */
    r->cfg.kernel_len = ELF_LEN;
}
static void bad_elf_on_tree_end(struct rig *r, uint8_t *image)
{
    make_elf(image, RAM + 2 * MIB - 1, DATA); /* D04: by one byte */
    r->cfg.kernel_len = ELF_LEN;
}
static void bad_elf_devices(struct rig *r, uint8_t *image)
{
    make_elf(image, RAM - 0x200, DATA); /* D04: below RAM */
    r->cfg.kernel_len = ELF_LEN;
}
static void bad_elf_beyond(struct rig *r, uint8_t *image)
{
    make_elf(image, TEXT, RAM + 64 * MIB - 0x2fff); /* D04: the .bss passes the end of RAM */
    r->cfg.kernel_len = ELF_LEN;
}
static void bad_initrd_size(struct rig *r, uint8_t *image)
{
    r->cfg.initrd = image; /* never read: it does not fit */
    r->cfg.initrd_len = 64 * MIB;
}
static void bad_initrd_room(struct rig *r, uint8_t *image)
{
    r->cfg.initrd = image;
    r->cfg.initrd_len = 62 * MIB - 1 * MIB + 1; /* a byte more than the kernel leaves */
}
static void bad_initrd_max(struct rig *r, uint8_t *image)
{
    r->cfg.initrd = image;
    r->cfg.initrd_len = SIZE_MAX;
}

/* The Image has an image_size of 1 MiB. */
static const struct bad bads[] = {
    {"ram_size too small", TN_EINVAL, TN_BOOT_ARM64_AT_CFG, 0, bad_ram_size},
    {"ram_size above what memory holds", TN_EINVAL, TN_BOOT_ARM64_AT_CFG, 0, bad_ram_more},
    {"kernel NULL", TN_EINVAL, TN_BOOT_ARM64_AT_CFG, 0, bad_kernel_null},
    {"initrd NULL", TN_EINVAL, TN_BOOT_ARM64_AT_CFG, 0, bad_initrd_null},
    {"empty image", TN_ETRUNC, TN_BOOT_ARM64_AT_KERNEL, TN_LOADER_EMPTY, bad_empty},
    {"D06: no kernel", TN_EFORMAT, TN_BOOT_ARM64_AT_KERNEL, TN_LOADER_UNKNOWN, bad_magic},
    {"riscv64", TN_EMACHINE, TN_BOOT_ARM64_AT_KERNEL, TN_LOADER_IS_RISCV, bad_riscv},
    {"gzip", TN_EUNSUP, TN_BOOT_ARM64_AT_KERNEL, TN_LOADER_GZIP, bad_gzip},
    {"zboot", TN_EUNSUP, TN_BOOT_ARM64_AT_KERNEL, TN_LOADER_ZBOOT_GZIP, bad_zboot},
    {"D06: big-endian", TN_EMACHINE, TN_BOOT_ARM64_AT_KERNEL, TN_LOADER_IMAGE_BIG_ENDIAN,
     bad_big_endian},
    {"D06: text_offset 2^64 - 1", TN_ERANGE, TN_BOOT_ARM64_AT_KERNEL, TN_LOADER_IMAGE_ADDR,
     bad_text_offset_max},
    {"D06: text_offset and image_size", TN_ERANGE, TN_BOOT_ARM64_AT_KERNEL, TN_LOADER_IMAGE_ADDR,
     bad_text_offset_limit},
    {"D06: text_offset beyond RAM", TN_ENOFIT, TN_BOOT_ARM64_AT_PLACE, TN_LOADER_PLACE_NONE,
     bad_text_offset_ram},
    {"D06: image_size 2^63", TN_ERANGE, TN_BOOT_ARM64_AT_KERNEL, TN_LOADER_IMAGE_ADDR,
     bad_image_size},
    {"D06: image_size 2^64 - 1", TN_ERANGE, TN_BOOT_ARM64_AT_KERNEL, TN_LOADER_IMAGE_ADDR,
     bad_image_size_max},
    {"D06: image_size a byte too large", TN_ENOFIT, TN_BOOT_ARM64_AT_PLACE, TN_LOADER_PLACE_NONE,
     bad_image_size_ram},
    {"ELF for x86-64", TN_EMACHINE, TN_BOOT_ARM64_AT_KERNEL, TN_LOADER_ELF_MACHINE, bad_elf_x86},
    {"vmlinux", TN_ERANGE, TN_BOOT_ARM64_AT_KERNEL, TN_LOADER_SEG_ADDR, bad_elf_vmlinux},
    {"vmlinux with low segments", TN_EENTRY, TN_BOOT_ARM64_AT_KERNEL, TN_LOADER_ENTRY_VIRTUAL,
     bad_elf_vmlinux_low},
    {"entry in no segment", TN_EENTRY, TN_BOOT_ARM64_AT_KERNEL, TN_LOADER_ENTRY, bad_elf_entry},
    {"filesz > memsz", TN_EFORMAT, TN_BOOT_ARM64_AT_KERNEL, TN_LOADER_SEG_FILESZ, bad_elf_filesz},
    {"memsz 2^63", TN_ERANGE, TN_BOOT_ARM64_AT_KERNEL, TN_LOADER_SEG_ADDR, bad_elf_memsz},
    {"segments overlap", TN_EOVERLAP, TN_BOOT_ARM64_AT_KERNEL, TN_LOADER_SEG_OVERLAP,
     bad_elf_overlap},
    {"segment on the tree", TN_EOVERLAP, TN_BOOT_ARM64_AT_PLACE, TN_LOADER_PLACE_RESERVED,
     bad_elf_on_tree},
    {"segment into the tree", TN_EOVERLAP, TN_BOOT_ARM64_AT_PLACE, TN_LOADER_PLACE_RESERVED,
     bad_elf_on_tree_end},
    {"segment on devices", TN_ENOFIT, TN_BOOT_ARM64_AT_PLACE, TN_LOADER_PLACE_RAM, bad_elf_devices},
    {"segment beyond RAM", TN_ENOFIT, TN_BOOT_ARM64_AT_PLACE, TN_LOADER_PLACE_RAM, bad_elf_beyond},
    {"initrd larger than RAM", TN_ENOFIT, TN_BOOT_ARM64_AT_INITRD, 0, bad_initrd_size},
    {"initrd a byte too large", TN_ENOFIT, TN_BOOT_ARM64_AT_INITRD, 0, bad_initrd_room},
    {"initrd of all memory", TN_ENOFIT, TN_BOOT_ARM64_AT_INITRD, 0, bad_initrd_max},
};

static void d04_d06_errors_leave_memory_alone(void **state)
{
    uint8_t image[IMAGE_LEN];
    struct rig r;

    (void)state;
    rig_up(&r, 64 * MIB);
    memset(r.host, 0xa5, (size_t)r.ram[0].size);
    for (size_t i = 0; i < COUNT(bads); i++) {
        int err;

        memset(&r.cfg, 0, sizeof(r.cfg));
        make_image(image, 0, 1 * MIB);
        r.cfg.ram_size = 64 * MIB;
        r.cfg.kernel = image;
        r.cfg.kernel_len = sizeof(image);
        bads[i].change(&r, image);
        err = rig_load(&r);
        if (err != bads[i].err || r.info.stage != bads[i].stage || r.info.detail != bads[i].detail)
            fail_msg("%s: %d at stage %u, %u", bads[i].what, err, r.info.stage, r.info.detail);
        check_void(&r);
    }
    assert_true(all(r.host, 0xa5, r.ram[0].size));
    rig_down(&r);
}

/* Memory that is not what tn_boot_arm64_ram said: with a hole in it, or a part of it only. */
static void memory_must_hold_the_ram(void **state)
{
    uint8_t elf[ELF_LEN];
    struct rig r;

    (void)state;
    make_elf(elf, TEXT, DATA);
    rig_up(&r, 64 * MIB);
    r.cfg.kernel = elf;
    r.cfg.kernel_len = sizeof(elf);
    tn_mem_init(&r.mem, r.table, 3);
    assert_int_equal(rig_load(&r), TN_EINVAL);
    assert_int_equal(tn_mem_add(&r.mem, RAM, r.host, 32 * MIB), 0);
    assert_int_equal(rig_load(&r), TN_EINVAL);
    assert_int_equal(
        tn_mem_add(&r.mem, RAM + 32 * MIB + 4096, r.host + 32 * MIB + 4096, 32 * MIB - 4096), 0);
    assert_int_equal(rig_load(&r), TN_EINVAL);
    check_void(&r);
    assert_true(is_zero(r.host, r.ram[0].size));
    tn_mem_init(&r.mem, r.table, 3); /* two regions that touch, inside a segment, are as good */
    assert_int_equal(tn_mem_add(&r.mem, RAM, r.host, DATA - RAM + 0x1000), 0);
    assert_int_equal(
        tn_mem_add(&r.mem, DATA + 0x1000, host(&r, DATA + 0x1000), RAM + 64 * MIB - DATA - 0x1000),
        0);
    memset(host(&r, DATA), 0xa5, 0x4000);
    assert_int_equal(rig_load(&r), 0);
    assert_true(is_zero(host(&r, DATA + 0x200), 0x2e00));
    assert_true(all(host(&r, DATA + 0x3000), 0xa5, 0x1000));
    rig_down(&r);
}

/* Cut anywhere, an image loads or is refused; it is never read beyond its end. */
static void d01_images_cut_anywhere(void **state)
{
    uint8_t elf[ELF_LEN], image[IMAGE_LEN];
    struct rig r;

    (void)state;
    rig_up(&r, 64 * MIB);
    make_elf(elf, TEXT, DATA);
    make_image(image, 0, 1 * MIB);
    for (size_t len = 0; len < ELF_LEN; len++) {
        uint8_t *cut = test_exact(elf, len);

        r.cfg.kernel = cut;
        r.cfg.kernel_len = len;
        assert_true(rig_load(&r) < 0);
        free(cut);
    }
    for (size_t len = 0; len < 64; len++) {
        uint8_t *cut = test_exact(image, len);

        r.cfg.kernel = cut;
        r.cfg.kernel_len = len;
        assert_true(rig_load(&r) < 0);
        free(cut);
    }
    assert_true(is_zero(r.host, r.ram[0].size));
    for (size_t len = 64; len < IMAGE_LEN; len += 13) { /* no header says how long the file is */
        uint8_t *cut = test_exact(image, len);

        r.cfg.kernel = cut;
        r.cfg.kernel_len = len;
        assert_int_equal(rig_load(&r), 0);
        assert_int_equal(r.info.plan.seg[0].mem_size, len);
        free(cut);
    }
    rig_down(&r);
}

/* -- where things go --------------------------------------------------------------------------- */

static void check_loaded(const struct rig *r, uint64_t entry)
{
    const struct tn_loader_plan *p = &r->info.plan;

    assert_int_equal(r->info.stage, TN_BOOT_ARM64_AT_END);
    assert_int_equal(r->info.detail, 0);
    assert_int_equal(r->info.fdt_gpa, RAM);
    assert_int_equal(r->info.fdt_size, 2 * MIB);
    assert_int_equal(r->cpu.x0, RAM);
    assert_int_equal(r->cpu.pc, entry);
    assert_int_equal(p->machine, TN_LOADER_EM_AARCH64);
    for (uint32_t i = 0; i < p->nsegs; i++) {
        assert_memory_equal(host(r, p->seg[i].gpa), r->cfg.kernel + p->seg[i].file_off,
                            p->seg[i].file_size);
        assert_true(is_zero(host(r, p->seg[i].gpa + p->seg[i].file_size),
                            p->seg[i].mem_size - p->seg[i].file_size));
    }
    assert_int_equal(r->info.initrd_len, r->cfg.initrd_len);
    if (r->cfg.initrd_len == 0)
        assert_int_equal(r->info.initrd_gpa, 0);
    else
        assert_memory_equal(host(r, r->info.initrd_gpa), r->cfg.initrd, r->cfg.initrd_len);
}

static void d06_an_image_goes_where_it_wants(void **state)
{
    static const struct {
        uint64_t text_offset, image_size, gpa, init_size;
    } row[] = {
        {0, IMAGE_LEN, RAM + 2 * MIB, IMAGE_LEN},
        {0, 8 * MIB, RAM + 2 * MIB, 8 * MIB},
        {0, 62 * MIB, RAM + 2 * MIB, 62 * MIB}, /* all that there is */
        {0, 1, RAM + 2 * MIB, IMAGE_LEN},       /* less than the file has */
        {0x80000, 8 * MIB, RAM + 2 * MIB + 0x80000, 8 * MIB},
        {0x1ff000, 8 * MIB, RAM + 2 * MIB + 0x1ff000, 8 * MIB},
        {2 * MIB, 8 * MIB, RAM + 2 * MIB, 8 * MIB}, /* the base is where the tree is */
        {32 * MIB, 8 * MIB, RAM + 32 * MIB, 8 * MIB},
        {RAM + 16 * MIB, 8 * MIB, RAM + 16 * MIB, 8 * MIB},
        /* before 3.17: what stands in text_offset is not to be believed */
        {0, 0, RAM + 2 * MIB + 0x80000, IMAGE_LEN + 16 * MIB},
        {0x80000, 0, RAM + 2 * MIB + 0x80000, IMAGE_LEN + 16 * MIB},
        {0x0000080000000000, 0, RAM + 2 * MIB + 0x80000, IMAGE_LEN + 16 * MIB},
    };
    uint8_t image[IMAGE_LEN];
    struct rig r;

    (void)state;
    rig_up(&r, 64 * MIB);
    for (size_t i = 0; i < COUNT(row); i++) {
        make_image(image, row[i].text_offset, row[i].image_size);
        r.cfg.kernel = image;
        r.cfg.kernel_len = sizeof(image);
        assert_int_equal(rig_load(&r), 0);
        check_loaded(&r, row[i].gpa);
        assert_int_equal(r.info.plan.seg[0].gpa, row[i].gpa);
        assert_int_equal(r.info.plan.init_size, row[i].init_size);
        memset(host(&r, row[i].gpa), 0, IMAGE_LEN);
        assert_true(is_zero(r.host, r.ram[0].size)); /* nothing else was written */
    }
    rig_down(&r);
}

static void an_elf_goes_where_it_says(void **state)
{
    uint8_t elf[ELF_LEN];
    struct rig r;

    (void)state;
    rig_up(&r, 64 * MIB);
    make_elf(elf, TEXT, DATA);
    r.cfg.kernel = elf;
    r.cfg.kernel_len = sizeof(elf);
    memset(r.host, 0xa5, (size_t)r.ram[0].size);
    assert_int_equal(rig_load(&r), 0);
    check_loaded(&r, TEXT + 0x10);
    assert_true(all(r.host, 0xa5, TEXT - RAM));
    assert_true(all(host(&r, TEXT + 0x200), 0xa5, DATA - TEXT - 0x200));
    assert_true(all(host(&r, DATA + 0x3000), 0xa5, RAM + 64 * MIB - DATA - 0x3000));
    make_elf(elf, RAM + 2 * MIB, RAM + 64 * MIB - 0x3000); /* from end to end */
    assert_int_equal(rig_load(&r), 0);
    check_loaded(&r, RAM + 2 * MIB + 0x10);
    assert_true(all(r.host, 0xa5, 2 * MIB));
    rig_down(&r);
}

static void the_initrd_is_as_high_as_can_be(void **state)
{
    static uint8_t initrd[0x12345];
    static const struct {
        uint64_t ram, text_offset, end;
    } row[] = {
        /* booting.rst: Image and initrd in 32 GiB from a multiple of 1 GiB on */
        {16 * MIB, 0, RAM + 16 * MIB},         {64 * MIB, 0x80000, RAM + 64 * MIB},
        {4 * GIB, 0, RAM + 4 * GIB},           {32 * GIB, 0, RAM + 32 * GIB},
        {33 * GIB, 0, RAM + 32 * GIB},         {1023 * GIB, 0, RAM + 32 * GIB},
        {1023 * GIB, 1 * GIB, RAM + 33 * GIB}, {36 * GIB, 5 * GIB, RAM + 36 * GIB},
    };
    uint8_t image[IMAGE_LEN];
    struct rig r;

    (void)state;
    for (size_t i = 0; i < sizeof(initrd); i++)
        initrd[i] = (uint8_t)(i * 11 + 5);
    for (size_t i = 0; i < COUNT(row); i++) {
        if (row[i].ram > SIZE_MAX / 4) /* more than this host has addresses for */
            continue;
        rig_up(&r, row[i].ram);
        make_image(image, row[i].text_offset, 8 * MIB);
        r.cfg.kernel = image;
        r.cfg.kernel_len = sizeof(image);
        r.cfg.initrd = initrd;
        r.cfg.initrd_len = sizeof(initrd);
        assert_int_equal(rig_load(&r), 0);
        check_loaded(&r, r.info.plan.seg[0].gpa);
        assert_int_equal(r.info.initrd_gpa, row[i].end - 0x13000);
        rig_down(&r);
    }
}

/* Where nothing is left above the kernel it goes below, but never on the tree. */
static void the_initrd_keeps_clear_of_kernel_and_tree(void **state)
{
    static uint8_t initrd[30 * MIB];
    uint8_t image[IMAGE_LEN], elf[ELF_LEN];
    struct rig r;

    (void)state;
    initrd[0] = 1;
    initrd[sizeof(initrd) - 1] = 2;
    rig_up(&r, 64 * MIB);
    r.cfg.initrd = initrd;
    make_image(image, 32 * MIB, 30 * MIB);
    r.cfg.kernel = image;
    r.cfg.kernel_len = sizeof(image);
    r.cfg.initrd_len = 2 * MIB; /* above: just so */
    assert_int_equal(rig_load(&r), 0);
    check_loaded(&r, RAM + 32 * MIB);
    assert_int_equal(r.info.initrd_gpa, RAM + 62 * MIB);
    r.cfg.initrd_len = 2 * MIB + 1;
    assert_int_equal(rig_load(&r), 0);
    check_loaded(&r, RAM + 32 * MIB);
    assert_int_equal(r.info.initrd_gpa, RAM + 30 * MIB - 4096);
    r.cfg.initrd_len = 30 * MIB; /* below: just so */
    assert_int_equal(rig_load(&r), 0);
    check_loaded(&r, RAM + 32 * MIB);
    assert_int_equal(r.info.initrd_gpa, RAM + 2 * MIB);
    r.cfg.initrd_len = 30 * MIB + 1;
    assert_int_equal(rig_load(&r), TN_ENOFIT);
    assert_int_equal(r.info.stage, TN_BOOT_ARM64_AT_INITRD);
    check_void(&r);
    make_elf(elf, TEXT, DATA); /* the whole of an ELF, with what lies between its segments */
    r.cfg.kernel = elf;
    r.cfg.kernel_len = sizeof(elf);
    r.cfg.initrd_len = 30 * MIB;
    assert_int_equal(rig_load(&r), 0);
    check_loaded(&r, TEXT + 0x10);
    assert_int_equal(r.info.initrd_gpa, RAM + 34 * MIB);
    assert_true(is_zero(r.host, 2 * MIB)); /* the tree's place was left alone, always */
    rig_down(&r);
}

/* A load that failed has no part in the next one. */
static void a_load_may_be_tried_again(void **state)
{
    uint8_t image[IMAGE_LEN];
    struct rig r;

    (void)state;
    rig_up(&r, 64 * MIB);
    make_image(image, 0, 8 * MIB);
    r.cfg.kernel = image;
    r.cfg.kernel_len = sizeof(image);
    r.cfg.initrd = image;
    r.cfg.initrd_len = 64 * MIB;
    assert_int_equal(rig_load(&r), TN_ENOFIT);
    r.cfg.initrd_len = 0;
    assert_int_equal(rig_load(&r), 0);
    check_loaded(&r, RAM + 2 * MIB);
    rig_down(&r);
}

/* The second line of defence, which no image gets to. */
static void plans_are_checked_again(void **state)
{
    const uint64_t end = RAM + 64 * MIB;
    struct tn_loader_plan good = {0}, bad;

    (void)state;
    good.nsegs = 2;
    good.seg[0] = (struct tn_loader_seg){RAM + 2 * MIB, 0x1000, 0, 0x1000};
    good.seg[1] = (struct tn_loader_seg){end - 0x1000, 0x1000, 0x1000, 0x800};
    good.fdt_entry = RAM + 2 * MIB;
    assert_true(tn_boot_arm64_plan_ok_(&good, 0x1800, end));
    assert_false(tn_boot_arm64_plan_ok_(&good, 0x17ff, end));
    assert_false(tn_boot_arm64_plan_ok_(&good, 0x1800, end - 1));
#define BAD(change)                                              \
    do {                                                         \
        bad = good;                                              \
        bad.change;                                              \
        assert_false(tn_boot_arm64_plan_ok_(&bad, 0x1800, end)); \
    } while (0)
    BAD(nsegs = 0);
    BAD(nsegs = TN_LOADER_MAX_SEGS + 1);
    BAD(nsegs = UINT32_MAX);
    BAD(seg[0].gpa = RAM + 2 * MIB - 1);
    BAD(seg[0].gpa = 0);
    BAD(seg[1].gpa = end + 1);
    BAD(seg[1].gpa = UINT64_MAX);
    BAD(seg[1].mem_size = 0x1001);
    BAD(seg[1].mem_size = UINT64_MAX);
    BAD(seg[0].file_size = 0x1001);
    BAD(seg[1].file_off = 0x1001);
    BAD(seg[1].file_off = UINT64_MAX);
    BAD(seg[1].file_size = UINT64_MAX);
    BAD(fdt_entry = RAM + 2 * MIB - 1);
    BAD(fdt_entry = RAM + 2 * MIB + 0x1000);
    BAD(fdt_entry = end - 0x800);
    BAD(fdt_entry = 0);
#undef BAD
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ram_refuses_bad_sizes),
        cmocka_unit_test(ram_is_one_range),
        cmocka_unit_test(d04_d06_errors_leave_memory_alone),
        cmocka_unit_test(memory_must_hold_the_ram),
        cmocka_unit_test(d01_images_cut_anywhere),
        cmocka_unit_test(d06_an_image_goes_where_it_wants),
        cmocka_unit_test(an_elf_goes_where_it_says),
        cmocka_unit_test(the_initrd_is_as_high_as_can_be),
        cmocka_unit_test(the_initrd_keeps_clear_of_kernel_and_tree),
        cmocka_unit_test(a_load_may_be_tried_again),
        cmocka_unit_test(plans_are_checked_again),
    };

    return cmocka_run_group_tests_name("boot_arm64", tests, NULL, NULL);
}
