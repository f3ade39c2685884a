/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_fdt.h"

#include "temp_dir.h"

static const struct tn_fdt_range ram[] = {{0x40000000, 0x20000000}, {0x100000000, 0x40000000}};
static const uint8_t seed[64] = "sixty-four bytes that are as random as a test needs them to be";

static _Alignas(8) uint8_t tree[TN_FDT_MAX]; /* what build() has made */
static const char *tools;                    /* why dtc can't be run; NULL: it can */

/* ---- machines ---- */

/* A machine with everything that it can have. */
static struct tn_fdt_cfg whole(uint32_t machine, uint32_t gic, uint32_t cpus)
{
    struct tn_fdt_cfg cfg = {.machine = machine,
                             .cpus = cpus,
                             .ram = ram,
                             .nram = 2,
                             .gic = gic,
                             .uart = {0x9000000, 0x1000, 4},
                             .uart_clock = 3686400,
                             .virtio = 6,
                             .virtio_first = {0xa000000, 0x200, 16},
                             .virtio_stride = 0x1000,
                             .virtio_irqs = 4,
                             .bootargs = "console=ttyS0 root=/dev/vda",
                             .initrd_gpa = 0x5fff1001,
                             .initrd_len = 0xefff,
                             .rng_seed = seed,
                             .rng_seed_len = sizeof(seed),
                             .kaslr_seed = 0x0123456789abcdef};

    switch (machine) {
    case TN_FDT_ARM64:
        cfg.chip[0] = (struct tn_fdt_range){0x8000000, 0x10000};
        cfg.chip[1] = (struct tn_fdt_range){0xc000000, gic == 2 ? 0x2000 : cpus * 0x20000ull};
        cfg.rtc = (struct tn_fdt_dev){0x9010000, 0x1000, 2};
        cfg.gpio = (struct tn_fdt_dev){0x9020000, 0x1000, 3};
        cfg.genid = (struct tn_fdt_dev){0x40ff0000, 0x10000, 5};
        break;
    case TN_FDT_RISCV64:
        cfg.chip[0] = (struct tn_fdt_range){0xc000000, 0x600000};
        cfg.timebase = 10000000;
        cfg.isa = "rv64imafdc_zicsr_zifencei";
        break;
    default:
        cfg.chip[0] = (struct tn_fdt_range){0xfec00000, 0x1000};
        cfg.chip[1] = (struct tn_fdt_range){0xfee00000, 0x1000};
        cfg.uart = (struct tn_fdt_dev){0x3f8, 8, 4};
        break;
    }
    return cfg;
}

/* The least that the same machine can be. */
static struct tn_fdt_cfg bare(uint32_t machine, uint32_t gic, uint32_t cpus)
{
    struct tn_fdt_cfg cfg = whole(machine, gic, cpus);

    cfg.nram = 1;
    cfg.uart.size = cfg.rtc.size = cfg.gpio.size = cfg.genid.size = 0;
    cfg.virtio = 0;
    cfg.bootargs = NULL;
    cfg.initrd_len = 0;
    cfg.rng_seed_len = 0;
    cfg.kaslr_seed = 0;
    return cfg;
}

static const struct {
    uint32_t machine, gic, max_cpus;
} machines[] = {
    {TN_FDT_ARM64, 3, 512}, {TN_FDT_ARM64, 2, 8}, {TN_FDT_RISCV64, 0, 512}, {TN_FDT_X86, 0, 254}};

/* Builds into tree; the blob is whole, and nothing is behind it. */
static size_t build(const struct tn_fdt_cfg *cfg)
{
    int64_t size;

    memset(tree, 0xa5, sizeof(tree));
    size = tn_fdt_build(cfg, tree, sizeof(tree));
    assert_true(size > 0 && size <= (int64_t)sizeof(tree));
    assert_int_equal(fdt_totalsize(tree), size);
    assert_int_equal(fdt_check_full(tree, (size_t)size), 0);
    for (size_t i = (size_t)size; i < sizeof(tree); i++) {
        if (tree[i] != 0)
            fail_msg("byte %zu behind a blob of %d bytes", i, (int)size);
    }
    return (size_t)size;
}

/* ---- what a tree says ---- */

static int node(const char *path)
{
    return fdt_path_offset(tree, path);
}

static bool has_prop(const char *path, const char *name)
{
    return fdt_getprop(tree, node(path), name, NULL) != NULL;
}

static void is_text(const char *path, const char *name, const char *text, size_t size)
{
    int len = 0;
    const void *value = fdt_getprop(tree, node(path), name, &len);

    if (!value)
        fail_msg("%s has no %s", path, name);
    assert_int_equal(len, size);
    assert_memory_equal(value, text, size);
}
#define IS_TEXT(path, name, text) is_text((path), (name), (text), sizeof(text))

static void is_cells(const char *path, const char *name, const uint32_t *cell, size_t n)
{
    int len = 0;
    const uint8_t *value = fdt_getprop(tree, node(path), name, &len);

    if (!value)
        fail_msg("%s has no %s", path, name);
    assert_int_equal(len, 4 * n);
    for (size_t i = 0; i < n; i++) {
        if (fdt32_ld((const fdt32_t *)(const void *)(value + 4 * i)) != cell[i])
            fail_msg("%s: %s has at %zu %#x, not %#x", path, name, i,
                     fdt32_ld((const fdt32_t *)(const void *)(value + 4 * i)), cell[i]);
    }
}
#define IS_CELLS(path, name, ...)                             \
    is_cells((path), (name), (const uint32_t[]){__VA_ARGS__}, \
             sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void is_flag(const char *path, const char *name)
{
    int len = -1;

    assert_true(fdt_getprop(tree, node(path), name, &len) && len == 0);
}

static uint32_t cell_of(const char *path, const char *name)
{
    int len = 0;
    const fdt32_t *value = fdt_getprop(tree, node(path), name, &len);

    assert_true(value && len == 4);
    return fdt32_ld(value);
}

/* How many children of a node have names that begin so. */
static unsigned children(const char *path, const char *begin)
{
    unsigned n = 0;
    int child;

    fdt_for_each_subnode(child, tree, node(path))
    {
        if (strncmp(fdt_get_name(tree, child, NULL), begin, strlen(begin)) == 0)
            n++;
    }
    return n;
}

/* ---- dtc and fdtget ---- */

/* Runs a tool over a file with the tree; returns what it has printed. Its status is 0. */
static const char *run(const char *tool, const char *arguments)
{
    static char out[1 << 16];
    char path[300], command[700];
    size_t n;
    FILE *p;

    temp_path(path, "tree.dtb");
    put_file(path, tree, fdt_totalsize(tree));
    snprintf(command, sizeof(command), "%s '%s' %s 2>&1", tool, path, arguments);
    p = popen(command, "r");
    assert_non_null(p);
    n = fread(out, 1, sizeof(out) - 1, p);
    out[n] = 0;
    while (n > 0 && out[n - 1] == '\n')
        out[--n] = 0;
    unlink(path);
    if (pclose(p) != 0)
        fail_msg("%s: %s", command, out);
    return out;
}

/* dtc reads the tree and has no complaint. */
static void dtc_reads(void)
{
    const char *said = tools ? "" : run("dtc -I dtb -O dts -o /dev/null", "");

    if (*said)
        fail_msg("dtc: %s", said);
}

/* fdtget reads the value of a property: t is its type, as s for a string, x for hexadecimal. */
static void fdtget(char t, const char *path, const char *name, const char *value)
{
    char tool[] = "fdtget -t x", arguments[200];

    tool[sizeof(tool) - 2] = t;
    snprintf(arguments, sizeof(arguments), "'%s' '%s'", path, name);
    assert_string_equal(run(tool, arguments), value);
}

static int setup(void **state)
{
    (void)state;
    if (system("command -v dtc fdtget >/dev/null") != 0)
        tools = "there is no dtc, or no fdtget";
    return temp_make();
}

static int teardown(void **state)
{
    (void)state;
    return temp_remove();
}

/* ---- what is refused ---- */

static const struct tn_fdt_range touching[] = {{0x40000000, 0x1000}, {0x40001000, 0x1000}};
static const struct tn_fdt_range twice[] = {{0x40000000, 0x1000}, {0x40000fff, 0x1000}};
static const struct tn_fdt_range hollow[] = {{0x40000000, 0x1000}, {0x50000000, 0}};
static const struct tn_fdt_range at_limit[] = {{TN_FDT_LIMIT - 0x1000, 0x1000}};
static const struct tn_fdt_range over_limit[] = {{TN_FDT_LIMIT - 0x1000, 0x1001}};
static const struct tn_fdt_range wrapping[] = {{0x1000, UINT64_MAX - 0xfff}};
static const struct tn_fdt_range beyond[] = {{UINT64_MAX, 1}};
static const uint64_t same[] = {7, 3, 7}, id_255[] = {0, 255}, id_254[] = {0, 254};
static const uint64_t hart_big[] = {0, 1ull << 32}, hart_last[] = {0, UINT32_MAX};
static const uint64_t mpidr_res1[] = {0, 0x80000001}, mpidr_mt[] = {0, 0x1000001};
static const uint64_t mpidr_over[] = {0, 1ull << 40}, mpidr_last[] = {0, 0xff00ffffff};
static char long_args[TN_FDT_MAX_BOOTARGS + 2], long_isa[TN_FDT_MAX_ISA + 2];

#define ARM whole(TN_FDT_ARM64, 3, 2)
#define V2  whole(TN_FDT_ARM64, 2, 2)
#define RV  whole(TN_FDT_RISCV64, 0, 2)
#define X86 whole(TN_FDT_X86, 0, 2)

/* Each row changes one machine, and is refused or not. */
#define ROW(base, change, bad)                \
    do {                                      \
        struct tn_fdt_cfg c = (base);         \
        change;                               \
        try_row(&c, #base ": " #change, bad); \
    } while (0)
#define REFUSED(base, change)  ROW(base, change, true)
#define ACCEPTED(base, change) ROW(base, change, false)

static void try_row(const struct tn_fdt_cfg *cfg, const char *text, bool bad)
{
    int64_t r;

    memset(tree, 0xa5, sizeof(tree));
    r = tn_fdt_build(cfg, tree, sizeof(tree));
    if (bad ? r != TN_EINVAL : r <= 0)
        fail_msg("%s: %d", text, (int)r);
    for (size_t i = 0; bad && i < sizeof(tree); i++) {
        if (tree[i] != 0xa5)
            fail_msg("%s: byte %zu is written", text, i);
    }
}

static void a_machine_that_is_none_is_refused(void **state)
{
    (void)state;
    REFUSED(ARM, c.machine = 0);
    REFUSED(ARM, c.machine = 4);
    REFUSED(ARM, c.machine = UINT32_MAX);
    REFUSED(ARM, c.machine = TN_FDT_RISCV64);
    REFUSED(ARM, c.machine = TN_FDT_X86);
    REFUSED(RV, c.machine = TN_FDT_ARM64);
    REFUSED(X86, c.machine = TN_FDT_ARM64);
    REFUSED(ARM, c.gic = 0);
    REFUSED(ARM, c.gic = 1);
    REFUSED(ARM, c.gic = 4);
}

static void fields_of_other_machines_are_zero(void **state)
{
    (void)state;
    REFUSED(ARM, c.timebase = 1);
    REFUSED(ARM, c.isa = "rv64i");
    REFUSED(ARM, c.mmu = 39);
    REFUSED(RV, c.gic = 3);
    REFUSED(RV, (c.rtc = (struct tn_fdt_dev){0x8000000, 0x1000, 2}));
    REFUSED(RV, (c.gpio = (struct tn_fdt_dev){0x8000000, 0x1000, 2}));
    REFUSED(RV, (c.genid = (struct tn_fdt_dev){0x8000000, 0x1000, 2}));
    REFUSED(RV, c.chip[1].size = 0x1000);
    REFUSED(RV, c.chip[1].gpa = 0x1000);
    REFUSED(X86, c.gic = 2);
    REFUSED(X86, (c.rtc = (struct tn_fdt_dev){0x8000000, 0x1000, 2}));
    REFUSED(X86, (c.gpio = (struct tn_fdt_dev){0x8000000, 0x1000, 2}));
    REFUSED(X86, (c.genid = (struct tn_fdt_dev){0x8000000, 0x1000, 2}));
    REFUSED(X86, c.timebase = 1);
    REFUSED(X86, c.isa = "rv64i");
    REFUSED(X86, c.mmu = 48);
}

static void processors_have_limits(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(machines); i++) {
        uint32_t max = machines[i].max_cpus;

        REFUSED(bare(machines[i].machine, machines[i].gic, 1), c.cpus = 0);
        REFUSED(bare(machines[i].machine, machines[i].gic, max + 1), (void)c);
        ACCEPTED(bare(machines[i].machine, machines[i].gic, max), (void)c);
        REFUSED(bare(machines[i].machine, machines[i].gic, 1), c.cpus = UINT32_MAX);
        REFUSED(bare(machines[i].machine, machines[i].gic, 3), c.cpu_reg = same);
    }
    REFUSED(X86, c.cpu_reg = id_255);
    ACCEPTED(X86, c.cpu_reg = id_254);
    REFUSED(RV, c.cpu_reg = hart_big);
    ACCEPTED(RV, c.cpu_reg = hart_last);
    REFUSED(ARM, c.cpu_reg = mpidr_res1);
    REFUSED(ARM, c.cpu_reg = mpidr_mt);
    REFUSED(ARM, c.cpu_reg = mpidr_over);
    ACCEPTED(ARM, c.cpu_reg = mpidr_last);
    ACCEPTED(V2, c.cpu_reg = mpidr_last);
}

static void memory_has_limits(void **state)
{
    static struct tn_fdt_range many[TN_FDT_MAX_RAM + 1];

    (void)state;
    for (size_t i = 0; i < COUNT(many); i++)
        many[i] = (struct tn_fdt_range){0x40000000 + i * 0x2000, 0x1000};
    REFUSED(bare(TN_FDT_ARM64, 3, 1), c.nram = 0);
    REFUSED(bare(TN_FDT_ARM64, 3, 1), (c.ram = many, c.nram = COUNT(many)));
    ACCEPTED(bare(TN_FDT_ARM64, 3, 1), (c.ram = many, c.nram = TN_FDT_MAX_RAM));
    REFUSED(bare(TN_FDT_ARM64, 3, 1), c.nram = UINT32_MAX);
    REFUSED(bare(TN_FDT_ARM64, 3, 1), (c.ram = twice, c.nram = 2));
    ACCEPTED(bare(TN_FDT_ARM64, 3, 1), (c.ram = touching, c.nram = 2));
    REFUSED(bare(TN_FDT_ARM64, 3, 1), (c.ram = hollow, c.nram = 2));
    REFUSED(bare(TN_FDT_ARM64, 3, 1), c.ram = over_limit);
    ACCEPTED(bare(TN_FDT_ARM64, 3, 1), c.ram = at_limit);
    REFUSED(bare(TN_FDT_ARM64, 3, 1), c.ram = wrapping);
    REFUSED(bare(TN_FDT_ARM64, 3, 1), c.ram = beyond);
}

static void chips_have_limits(void **state)
{
    (void)state;
    REFUSED(ARM, c.chip[0].size = 0);
    REFUSED(ARM, c.chip[0].size = 0xffff);
    REFUSED(ARM, c.chip[0].gpa += 0x8000);
    REFUSED(ARM, c.chip[1].size = 2 * 0x20000 - 1);
    REFUSED(ARM, c.chip[1].gpa += 0x1000);
    REFUSED(ARM, c.chip[1].gpa = c.chip[0].gpa);
    REFUSED(V2, c.chip[0].size = 0xfff);
    ACCEPTED(V2, c.chip[0].size = 0x1000);
    REFUSED(V2, c.chip[0].gpa += 0x800);
    REFUSED(V2, c.chip[1].size = 0x1fff);
    REFUSED(V2, c.chip[1].gpa += 0x800);
    REFUSED(RV, c.chip[0].size = 0x203fff);
    ACCEPTED(RV, c.chip[0].size = 0x204000);
    REFUSED(RV, c.chip[0].gpa += 0x800);
    REFUSED(X86, c.chip[0].size = 0x1f);
    REFUSED(X86, c.chip[0].gpa += 0x200);
    REFUSED(X86, c.chip[1].size = 0x3ff);
    REFUSED(X86, c.chip[1].gpa += 0x800);
    REFUSED(X86, c.chip[1].gpa = c.chip[0].gpa);
    REFUSED(ARM, c.chip[1].gpa = TN_FDT_LIMIT - 0x20000);
    REFUSED(ARM, c.chip[1].gpa = UINT64_MAX - 0xffff);
    ACCEPTED(ARM, c.chip[1].gpa = TN_FDT_LIMIT - 0x40000);
}

static void devices_have_limits(void **state)
{
    (void)state;
    REFUSED(ARM, c.uart.size = 7);
    ACCEPTED(ARM, c.uart.size = 8);
    REFUSED(ARM, c.uart.gpa = UINT64_MAX);
    REFUSED(ARM, c.uart.gpa = c.chip[0].gpa);
    REFUSED(ARM, c.uart.gpa = ram[1].gpa + ram[1].size - 1);
    ACCEPTED(ARM, c.uart.gpa = ram[1].gpa + ram[1].size);
    REFUSED(X86, c.uart.size = 7);
    REFUSED(X86, c.uart.gpa = 0xfff9);
    ACCEPTED(X86, c.uart.gpa = 0xfff8);
    REFUSED(X86, c.uart.gpa = 0xa000000);
    REFUSED(X86, c.uart.gpa = UINT64_MAX);
    REFUSED(ARM, c.rtc.size = 0xfff);
    REFUSED(ARM, c.rtc.gpa = c.uart.gpa);
    REFUSED(ARM, c.rtc.gpa = c.virtio_first.gpa + 5 * c.virtio_stride);
    REFUSED(ARM, c.rtc.gpa = c.virtio_first.gpa + 0x200); /* between two of them */
    ACCEPTED(ARM, c.rtc.gpa = c.virtio_first.gpa + 5 * c.virtio_stride + 0x200);
    REFUSED(ARM, c.gpio.size = 0xfff);
    REFUSED(ARM, c.gpio.gpa = c.rtc.gpa + 0xfff);
    ACCEPTED(ARM, c.gpio.gpa = c.rtc.gpa + 0x1000);
    REFUSED(ARM, c.gpio.gpa = c.virtio_first.gpa + 0x200);
    REFUSED(ARM, c.gpio.gpa = ram[1].gpa);
    REFUSED(ARM, c.gpio.gpa = UINT64_MAX);
    REFUSED(ARM, c.virtio_first.size = 0);
    REFUSED(ARM, c.virtio_first.size = 0xff);
    ACCEPTED(ARM, c.virtio_first.size = 0x100);
    REFUSED(ARM, c.virtio_stride = 0);
    REFUSED(ARM, c.virtio_stride = 0x1ff);
    ACCEPTED(ARM, c.virtio_stride = 0x200);
    REFUSED(ARM, c.virtio_stride = UINT64_MAX);
    REFUSED(ARM, c.virtio_stride = TN_FDT_LIMIT / TN_FDT_MAX_VIRTIO + 1);
    REFUSED(ARM, c.virtio_stride = 0x33333333333); /* 6 of them wrap or reach RAM */
    ACCEPTED(ARM, (c.virtio = 1, c.virtio_stride = UINT64_MAX));
    REFUSED(ARM, c.virtio_first.gpa = TN_FDT_LIMIT - 0x5000);
    REFUSED(ARM, c.virtio_first.gpa = ram[0].gpa - 0x5000);
    REFUSED(ARM, c.virtio_first.gpa = UINT64_MAX - 0x100);
    REFUSED(ARM, (c.virtio = TN_FDT_MAX_VIRTIO + 1, c.virtio_stride = 0x200));
    ACCEPTED(ARM, (c.virtio = TN_FDT_MAX_VIRTIO, c.virtio_stride = 0x200));
    REFUSED(ARM, c.virtio = UINT32_MAX);
    ACCEPTED(ARM, (c.virtio = 0, memset(&c.virtio_first, 0xff, sizeof(c.virtio_first))));
}

static void the_generation_id_is_in_one_range_of_memory_or_in_none(void **state)
{
    const uint64_t end = ram[0].gpa + ram[0].size;

    (void)state;
    REFUSED(ARM, c.genid.gpa += 0x800);
    REFUSED(ARM, c.genid.size = 16);
    REFUSED(ARM, c.genid.size = 0x1800);
    ACCEPTED(ARM, c.genid.size = 0x1000);
    REFUSED(ARM, c.genid.gpa = ram[0].gpa - 0x8000);
    ACCEPTED(ARM, c.genid.gpa = ram[0].gpa - 0x10000);
    ACCEPTED(ARM, c.genid.gpa = ram[0].gpa);
    ACCEPTED(ARM, (c.genid.gpa = end - 0x10000, c.initrd_len = 0));
    REFUSED(ARM, (c.genid.gpa = end - 0xf000, c.initrd_len = 0));
    ACCEPTED(ARM, c.genid.gpa = end);
    ACCEPTED(ARM, c.genid.gpa = ram[1].gpa + ram[1].size - 0x10000);
    REFUSED(ARM,
            (c.ram = touching, c.initrd_len = 0, c.genid.gpa = 0x40000000, c.genid.size = 0x2000));
    REFUSED(ARM, c.genid.size = UINT64_MAX - 0xfff);
    REFUSED(ARM, c.genid.size = ram[0].size);
    REFUSED(ARM, c.genid.gpa = UINT64_MAX - 0xfff);
    REFUSED(ARM, c.genid.gpa = TN_FDT_LIMIT - 0xf000);
    ACCEPTED(ARM, c.genid.gpa = TN_FDT_LIMIT - 0x10000);
    REFUSED(ARM, c.genid.gpa = 0x5fff0000); /* the initrd's first byte is in its second page */
    REFUSED(ARM, c.genid.gpa = 0x5ffe2000);
    ACCEPTED(ARM, c.genid.gpa = 0x5ffe1000);
    REFUSED(ARM, c.genid.gpa = c.chip[0].gpa);
    REFUSED(ARM, c.genid.gpa = c.chip[1].gpa);
    REFUSED(ARM, c.genid.gpa = c.uart.gpa);
    REFUSED(ARM, c.genid.gpa = c.rtc.gpa);
    REFUSED(ARM, c.genid.gpa = c.gpio.gpa);
    REFUSED(ARM, c.genid.gpa = c.virtio_first.gpa + 0x5000);
    ACCEPTED(ARM, c.genid.gpa = c.virtio_first.gpa + 0x6000);
}

static struct tn_fdt_dev *dev(struct tn_fdt_cfg *cfg, uint32_t i)
{
    return i == 0 ? &cfg->uart : i == 1 ? &cfg->rtc : i == 2 ? &cfg->gpio : &cfg->genid;
}

static void interrupts_have_limits(void **state)
{
    (void)state;
    REFUSED(ARM, c.uart.irq = 988);
    ACCEPTED(ARM, c.uart.irq = 987);
    ACCEPTED(ARM, c.uart.irq = 0);
    REFUSED(ARM, c.uart.irq = UINT32_MAX);
    REFUSED(ARM, c.rtc.irq = 988);
    REFUSED(ARM, c.rtc.irq = c.uart.irq);
    REFUSED(ARM, c.rtc.irq = 16);
    REFUSED(ARM, c.rtc.irq = 19);
    ACCEPTED(ARM, c.rtc.irq = 20);
    ACCEPTED(ARM, c.rtc.irq = 15);
    REFUSED(ARM, (c.rtc.irq = 20, c.virtio_irqs = 0)); /* then each has one of its own */
    REFUSED(ARM, (c.rtc.irq = 21, c.virtio_irqs = UINT32_MAX));
    ACCEPTED(ARM, (c.rtc.irq = 22, c.virtio_irqs = UINT32_MAX));
    REFUSED(ARM, c.uart.irq = 17);
    REFUSED(ARM, c.virtio_first.irq = 985);
    ACCEPTED(ARM, c.virtio_first.irq = 984);
    REFUSED(ARM, c.virtio_first.irq = UINT32_MAX);
    REFUSED(RV, c.uart.irq = 0);
    ACCEPTED(RV, c.uart.irq = 1);
    ACCEPTED(RV, c.uart.irq = 1023);
    REFUSED(RV, c.uart.irq = 1024);
    REFUSED(RV, c.virtio_first.irq = 0);
    ACCEPTED(RV, c.virtio_first.irq = 1020);
    REFUSED(RV, c.virtio_first.irq = 1021);
    REFUSED(X86, c.uart.irq = 0);
    ACCEPTED(X86, c.uart.irq = 23);
    REFUSED(X86, c.uart.irq = 24);
    ACCEPTED(X86, c.virtio_first.irq = 20);
    REFUSED(X86, c.virtio_first.irq = 21);
    ACCEPTED(ARM, (c.uart.size = 0, c.uart.irq = 988)); /* nobody's */
    ACCEPTED(ARM, (c.rtc.size = 0, c.rtc.irq = c.uart.irq));
    ACCEPTED(ARM, (c.gpio.size = 0, c.gpio.irq = c.genid.irq));
    ACCEPTED(ARM, (c.genid.size = 0, c.genid.irq = 16));
    for (uint32_t i = 0; i < 4; i++) {
        for (uint32_t j = 0; j < 4; j++)
            ROW(ARM, dev(&c, i)->irq = dev(&c, j)->irq, i != j);
        REFUSED(ARM, dev(&c, i)->irq = 988);
        REFUSED(ARM, dev(&c, i)->irq = 16);
        ACCEPTED(ARM, dev(&c, i)->irq = 20);
    }
    ACCEPTED(ARM, (c.virtio = 0, c.uart.irq = 17));
}

static void texts_and_seeds_have_limits(void **state)
{
    (void)state;
    memset(long_args, 'a', sizeof(long_args) - 1);
    REFUSED(ARM, c.bootargs = long_args);
    long_args[TN_FDT_MAX_BOOTARGS] = 0;
    ACCEPTED(ARM, c.bootargs = long_args);
    ACCEPTED(ARM, c.bootargs = "");
    memset(long_isa, 'm', sizeof(long_isa) - 1);
    memcpy(long_isa, "rv64", 4);
    REFUSED(RV, c.isa = long_isa);
    long_isa[TN_FDT_MAX_ISA] = 0;
    ACCEPTED(RV, c.isa = long_isa);
    REFUSED(RV, c.isa = NULL);
    REFUSED(RV, c.isa = "");
    REFUSED(RV, c.isa = "rv64");
    ACCEPTED(RV, c.isa = "rv64i");
    REFUSED(RV, c.isa = "rv32imac");
    REFUSED(RV, c.isa = "xv64imac");
    REFUSED(RV, c.isa = "rw64imac");
    REFUSED(RV, c.isa = "rv54imac");
    REFUSED(RV, c.isa = "rv64imaC");
    REFUSED(RV, c.isa = "rv64i c");
    REFUSED(RV, c.isa = "rv64i\xc3");
    REFUSED(RV, c.timebase = 0);
    REFUSED(RV, c.mmu = 32);
    REFUSED(RV, c.mmu = 47);
    ACCEPTED(RV, c.mmu = 48);
    ACCEPTED(RV, c.mmu = 57);
    REFUSED(ARM, c.rng_seed_len = TN_FDT_MAX_SEED + 1);
    REFUSED(ARM, c.rng_seed_len = SIZE_MAX);
    REFUSED(ARM, c.rng_seed = NULL);
}

static void the_initrd_is_in_one_range_of_memory(void **state)
{
    (void)state;
    REFUSED(ARM, c.initrd_gpa = ram[0].gpa - 1);
    ACCEPTED(ARM, c.initrd_gpa = ram[0].gpa);
    REFUSED(ARM, c.initrd_gpa += 1);
    ACCEPTED(ARM, c.initrd_gpa = ram[1].gpa + ram[1].size - c.initrd_len);
    REFUSED(ARM, c.initrd_gpa = ram[1].gpa + ram[1].size - c.initrd_len + 1);
    REFUSED(ARM, c.initrd_gpa = ram[1].gpa + ram[1].size);
    REFUSED(ARM, c.initrd_gpa = UINT64_MAX);
    REFUSED(ARM, c.initrd_len = UINT64_MAX);
    REFUSED(ARM, (c.initrd_gpa = ram[0].gpa, c.initrd_len = 0 - ram[0].gpa + 1));
    REFUSED(ARM, (c.ram = touching, c.initrd_gpa = 0x40000800, c.initrd_len = 0x1000));
    ACCEPTED(ARM, (c.initrd_gpa = UINT64_MAX, c.initrd_len = 0));
}

static void a_misaligned_buffer_is_refused(void **state)
{
    struct tn_fdt_cfg cfg = ARM;

    (void)state;
    for (size_t i = 1; i < 8; i++)
        assert_int_equal(tn_fdt_build(&cfg, tree + i, sizeof(tree) - i), TN_EINVAL);
    assert_true(tn_fdt_build(&cfg, tree + 8, sizeof(tree) - 8) > 0);
}

/* ---- room ---- */

/* Builds in a buffer of exactly cap bytes: there is not room enough, and nothing is left in it. */
static void too_small(const struct tn_fdt_cfg *cfg, size_t cap)
{
    uint8_t *buf = malloc(cap ? cap : 1);

    assert_non_null(buf);
    memset(buf, 0xa5, cap);
    assert_int_equal(tn_fdt_build(cfg, buf, cap), TN_ENOSPC);
    for (size_t i = 0; i < cap; i++)
        assert_int_equal(buf[i], 0);
    free(buf);
}

static void less_room_than_the_tree_is_no_space(void **state)
{
    struct tn_fdt_cfg none = X86;

    (void)state;
    for (size_t i = 0; i < COUNT(machines); i++) {
        struct tn_fdt_cfg cfg = whole(machines[i].machine, machines[i].gic, 2);
        size_t size = build(&cfg);
        uint8_t *exact = malloc(size);

        for (size_t cap = 0; cap < size; cap++)
            too_small(&cfg, cap);
        assert_non_null(exact);
        assert_int_equal(tn_fdt_build(&cfg, exact, size), size);
        assert_memory_equal(exact, tree, size);
        free(exact);
    }
    assert_int_equal(tn_fdt_build(&none, NULL, 0), TN_ENOSPC);
}

static void bytes_beyond_the_greatest_size_stay(void **state)
{
    static _Alignas(8) uint8_t more[TN_FDT_MAX + 64];
    struct tn_fdt_cfg cfg = ARM;
    size_t size = build(&cfg);

    (void)state;
    memset(more, 0xa5, sizeof(more));
    assert_int_equal(tn_fdt_build(&cfg, more, sizeof(more)), size);
    assert_memory_equal(more, tree, TN_FDT_MAX);
    for (size_t i = TN_FDT_MAX; i < sizeof(more); i++)
        assert_int_equal(more[i], 0xa5);
    assert_int_equal(tn_fdt_build(&cfg, more, SIZE_MAX), size);
}

static void the_greatest_trees_have_room(void **state)
{
    static struct tn_fdt_range many[TN_FDT_MAX_RAM];
    static uint8_t random[TN_FDT_MAX_SEED];
    static uint64_t regs[TN_FDT_MAX_CPUS];

    (void)state;
    for (size_t i = 0; i < COUNT(many); i++)
        many[i] = (struct tn_fdt_range){0x8000000000000 + i * 0x4000, 0x2000};
    memset(long_args, 'a', TN_FDT_MAX_BOOTARGS);
    memset(long_isa, 'm', TN_FDT_MAX_ISA);
    memcpy(long_isa, "rv64", 4);
    for (size_t m = 0; m < COUNT(machines); m++) {
        struct tn_fdt_cfg cfg = whole(machines[m].machine, machines[m].gic, machines[m].max_cpus);

        for (size_t i = 0; i < COUNT(regs); i++)
            regs[i] = cfg.machine == TN_FDT_ARM64     ? 0xff00ffffff - i
                      : cfg.machine == TN_FDT_RISCV64 ? 0xffffffff - i
                                                      : 254 - i;
        cfg.cpu_reg = regs;
        cfg.ram = many;
        cfg.nram = COUNT(many);
        cfg.virtio = TN_FDT_MAX_VIRTIO;
        cfg.virtio_stride = 0x200;
        cfg.virtio_first.gpa = 0xf000000000000;
        if (cfg.machine == TN_FDT_ARM64) {
            cfg.rtc.gpa = 0xe000000000000;
            cfg.gpio.gpa = 0xe100000000000;
            cfg.genid.gpa = many[1].gpa + 0x1000;
            cfg.genid.size = 0x1000;
        }
        if (cfg.machine != TN_FDT_X86)
            cfg.uart.gpa = 0xd000000000000;
        cfg.bootargs = long_args;
        cfg.initrd_gpa = many[0].gpa;
        cfg.initrd_len = 0x1000;
        cfg.rng_seed = random;
        cfg.rng_seed_len = sizeof(random);
        if (cfg.isa)
            cfg.isa = long_isa;
        build(&cfg);
        dtc_reads();
        too_small(&cfg, fdt_totalsize(tree) - 1);
    }
}

/* ---- every shape ---- */

static void shape(const struct tn_fdt_cfg *cfg)
{
    static _Alignas(8) uint8_t again[TN_FDT_MAX];
    size_t size = build(cfg);

    assert_int_equal(tn_fdt_build(cfg, again, sizeof(again)), size); /* the same bytes each time */
    assert_memory_equal(again, tree, sizeof(tree));
    too_small(cfg, size - 1);
    assert_int_equal(children("/cpus", "cpu@"), cfg->cpus);
    assert_int_equal(children("/", "memory@"), cfg->nram);
    assert_int_equal(children("/", "virtio@"), cfg->virtio);
    assert_int_equal(children("/", "rtc@"), cfg->rtc.size > 0);
    assert_int_equal(children("/", "gpio@"), cfg->gpio.size > 0);
    assert_int_equal(children("/", "gpio-keys"), cfg->gpio.size > 0);
    assert_int_equal(children("/", "apb-pclk"), cfg->rtc.size > 0 || cfg->gpio.size > 0);
    assert_int_equal(children("/", "rng@"), cfg->genid.size > 0);
    assert_int_equal(children("/", "reserved-memory"), cfg->genid.size > 0);
    assert_int_equal(children("/", "psci"), cfg->machine == TN_FDT_ARM64);
    assert_int_equal(children("/", "timer"), cfg->machine == TN_FDT_ARM64);
    assert_int_equal(children("/", "interrupt-controller@"), cfg->machine == TN_FDT_X86 ? 2 : 1);
    if (cfg->machine == TN_FDT_X86)
        assert_int_equal(children("/", "isa@0"), cfg->uart.size > 0);
    else
        assert_int_equal(children("/", "serial@"), cfg->uart.size > 0);
    assert_int_equal(has_prop("/chosen", "stdout-path"), cfg->uart.size > 0);
    assert_int_equal(has_prop("/chosen", "bootargs"), cfg->bootargs != NULL);
    assert_int_equal(has_prop("/chosen", "linux,initrd-start"), cfg->initrd_len > 0);
    assert_int_equal(has_prop("/chosen", "linux,initrd-end"), cfg->initrd_len > 0);
    assert_int_equal(has_prop("/chosen", "rng-seed"), cfg->rng_seed_len > 0);
    assert_int_equal(has_prop("/chosen", "kaslr-seed"), cfg->kaslr_seed != 0);
    IS_TEXT("/", "compatible", "linux,dummy-virt");
    IS_CELLS("/", "#address-cells", 2);
    IS_CELLS("/", "#size-cells", 2);
    IS_CELLS("/", "interrupt-parent", 1);
}

static void every_part_can_be_left_out(void **state)
{
    (void)state;
    for (size_t m = 0; m < COUNT(machines); m++) {
        struct tn_fdt_cfg all = whole(machines[m].machine, machines[m].gic, 2);

        for (unsigned without = 0; without < 1024; without++) {
            struct tn_fdt_cfg cfg = all;

            if (without & 1)
                cfg.uart.size = 0;
            if (without & 2)
                cfg.rtc.size = 0;
            if (without & 4)
                cfg.virtio = 0;
            if (without & 8)
                cfg.bootargs = NULL;
            if (without & 16)
                cfg.initrd_len = 0;
            if (without & 32)
                cfg.rng_seed_len = 0;
            if (without & 64)
                cfg.kaslr_seed = 0;
            if (without & 128)
                cfg.nram = 1;
            if (without & 256)
                cfg.gpio.size = 0;
            if (without & 512)
                cfg.genid.size = 0;
            shape(&cfg);
            if (without % 67 == 0)
                dtc_reads();
        }
    }
}

static void every_number_of_processors(void **state)
{
    static const uint32_t counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 254, 255, 512};

    (void)state;
    for (size_t m = 0; m < COUNT(machines); m++) {
        for (size_t i = 0; i < COUNT(counts) && counts[i] <= machines[m].max_cpus; i++) {
            struct tn_fdt_cfg cfg = whole(machines[m].machine, machines[m].gic, counts[i]);

            shape(&cfg);
            dtc_reads();
        }
    }
}

/* ---- what each machine's tree says ---- */

static void the_boot_loader_s_words(void **state)
{
    struct tn_fdt_cfg cfg = ARM;

    (void)state;
    build(&cfg);
    is_text("/chosen", "bootargs", cfg.bootargs, strlen(cfg.bootargs) + 1);
    IS_CELLS("/chosen", "linux,initrd-start", 0, 0x5fff1001);
    IS_CELLS("/chosen", "linux,initrd-end", 0, 0x60000000);
    IS_CELLS("/chosen", "kaslr-seed", 0x01234567, 0x89abcdef);
    is_text("/chosen", "rng-seed", (const char *)seed, sizeof(seed));
    IS_TEXT("/chosen", "stdout-path", "/serial@9000000");
    assert_true(node("/serial@9000000") > 0);

    cfg.initrd_gpa = 0x13fff0000;
    cfg.initrd_len = 0x10000;
    build(&cfg);
    IS_CELLS("/chosen", "linux,initrd-start", 1, 0x3fff0000);
    IS_CELLS("/chosen", "linux,initrd-end", 1, 0x40000000);
}

static void an_arm64_machine_with_a_gicv3(void **state)
{
    struct tn_fdt_cfg cfg = ARM;

    (void)state;
    build(&cfg);
    IS_TEXT("/psci", "compatible", "arm,psci-1.0\0arm,psci-0.2");
    IS_TEXT("/psci", "method", "hvc");
    IS_CELLS("/cpus", "#address-cells", 1);
    IS_CELLS("/cpus", "#size-cells", 0);
    IS_TEXT("/cpus/cpu@1", "device_type", "cpu");
    IS_TEXT("/cpus/cpu@1", "compatible", "arm,armv8");
    IS_TEXT("/cpus/cpu@1", "enable-method", "psci");
    IS_CELLS("/cpus/cpu@1", "reg", 1);
    IS_TEXT("/memory@40000000", "device_type", "memory");
    IS_CELLS("/memory@40000000", "reg", 0, 0x40000000, 0, 0x20000000);
    IS_CELLS("/memory@100000000", "reg", 1, 0, 0, 0x40000000);
    IS_TEXT("/interrupt-controller@8000000", "compatible", "arm,gic-v3");
    IS_CELLS("/interrupt-controller@8000000", "reg", 0, 0x8000000, 0, 0x10000, 0, 0xc000000, 0,
             0x40000);
    is_flag("/interrupt-controller@8000000", "interrupt-controller");
    IS_CELLS("/interrupt-controller@8000000", "#interrupt-cells", 3);
    IS_CELLS("/interrupt-controller@8000000", "phandle", 1);
    IS_TEXT("/timer", "compatible", "arm,armv8-timer");
    IS_CELLS("/timer", "interrupts", 1, 13, 8, 1, 14, 8, 1, 11, 8, 1, 10, 8);
    is_flag("/timer", "always-on");
    IS_TEXT("/serial@9000000", "compatible", "ns16550a");
    IS_CELLS("/serial@9000000", "reg", 0, 0x9000000, 0, 0x1000);
    IS_CELLS("/serial@9000000", "interrupts", 0, 4, 4);
    IS_CELLS("/serial@9000000", "clock-frequency", 3686400);
    IS_CELLS("/serial@9000000", "reg-shift", 0);
    IS_CELLS("/serial@9000000", "reg-io-width", 1);
    IS_TEXT("/rtc@9010000", "compatible", "arm,pl031\0arm,primecell");
    IS_CELLS("/rtc@9010000", "reg", 0, 0x9010000, 0, 0x1000);
    IS_CELLS("/rtc@9010000", "interrupts", 0, 2, 4);
    IS_CELLS("/rtc@9010000", "clocks", cell_of("/apb-pclk", "phandle"));
    IS_TEXT("/rtc@9010000", "clock-names", "apb_pclk");
    IS_TEXT("/apb-pclk", "compatible", "fixed-clock");
    IS_CELLS("/apb-pclk", "clock-frequency", 24000000);
    IS_CELLS("/apb-pclk", "#clock-cells", 0);
    for (uint32_t i = 0; i < 6; i++) {
        char path[32];

        snprintf(path, sizeof(path), "/virtio@a00%x000", i);
        IS_TEXT(path, "compatible", "virtio,mmio");
        IS_CELLS(path, "reg", 0, 0xa000000 + i * 0x1000, 0, 0x200);
        IS_CELLS(path, "interrupts", 0, 16 + i % 4, 1);
        is_flag(path, "dma-coherent");
    }
    cfg.uart_clock = 0;
    cfg.virtio_irqs = 0;
    build(&cfg);
    IS_CELLS("/serial@9000000", "clock-frequency", 1843200);
    IS_CELLS("/virtio@a005000", "interrupts", 0, 21, 1);
}

static void a_power_button_is_a_key_on_a_line(void **state)
{
    struct tn_fdt_cfg cfg = ARM;

    (void)state;
    build(&cfg);
    IS_TEXT("/gpio@9020000", "compatible", "arm,pl061\0arm,primecell");
    IS_CELLS("/gpio@9020000", "reg", 0, 0x9020000, 0, 0x1000);
    IS_CELLS("/gpio@9020000", "interrupts", 0, 3, 4);
    IS_CELLS("/gpio@9020000", "clocks", cell_of("/apb-pclk", "phandle"));
    IS_TEXT("/gpio@9020000", "clock-names", "apb_pclk");
    is_flag("/gpio@9020000", "gpio-controller");
    IS_CELLS("/gpio@9020000", "#gpio-cells", 2);
    is_flag("/gpio@9020000", "interrupt-controller");
    IS_CELLS("/gpio@9020000", "#interrupt-cells", 2);
    IS_TEXT("/gpio-keys", "compatible", "gpio-keys");
    IS_CELLS("/gpio-keys/key-poweroff", "linux,code", 116);
    IS_CELLS("/gpio-keys/key-poweroff", "gpios", cell_of("/gpio@9020000", "phandle"), 3, 0);
}

static void a_generation_id_is_reserved_where_it_is_memory(void **state)
{
    struct tn_fdt_cfg cfg = ARM;

    (void)state;
    build(&cfg);
    IS_TEXT("/rng@40ff0000", "compatible", "microsoft,vmgenid");
    IS_CELLS("/rng@40ff0000", "reg", 0, 0x40ff0000, 0, 0x10000);
    IS_CELLS("/rng@40ff0000", "interrupts", 0, 5, 1);
    IS_CELLS("/reserved-memory", "#address-cells", 2);
    IS_CELLS("/reserved-memory", "#size-cells", 2);
    is_flag("/reserved-memory", "ranges");
    IS_CELLS("/reserved-memory/rng@40ff0000", "reg", 0, 0x40ff0000, 0, 0x10000);
    is_flag("/reserved-memory/rng@40ff0000", "no-map");
    cfg.genid.gpa = 0x9030000;
    build(&cfg);
    IS_CELLS("/rng@9030000", "reg", 0, 0x9030000, 0, 0x10000);
    assert_true(node("/reserved-memory") < 0);
}

static void an_arm64_machine_with_a_gicv2(void **state)
{
    struct tn_fdt_cfg cfg = whole(TN_FDT_ARM64, 2, 3);

    (void)state;
    build(&cfg);
    IS_TEXT("/interrupt-controller@8000000", "compatible", "arm,cortex-a15-gic");
    IS_CELLS("/interrupt-controller@8000000", "reg", 0, 0x8000000, 0, 0x10000, 0, 0xc000000, 0,
             0x2000);
    IS_CELLS("/timer", "interrupts", 1, 13, 0x708, 1, 14, 0x708, 1, 11, 0x708, 1, 10, 0x708);
}

static void processors_have_the_numbers_they_are_given(void **state)
{
    static const uint64_t aff3[] = {0x0000000000, 0x0100000203}, high[] = {5, 0xffffff},
                          ids[] = {2, 0xfe};
    struct tn_fdt_cfg cfg = whole(TN_FDT_ARM64, 3, 40);

    (void)state;
    build(&cfg); /* as KVM numbers them */
    IS_CELLS("/cpus", "#address-cells", 1);
    IS_CELLS("/cpus/cpu@f", "reg", 15);
    assert_true(node("/cpus/cpu@10") < 0);
    IS_CELLS("/cpus/cpu@100", "reg", 0x100);
    IS_CELLS("/cpus/cpu@207", "reg", 0x207);
    assert_int_equal(fdt_boot_cpuid_phys(tree), 0);

    cfg = ARM;
    cfg.cpu_reg = aff3;
    build(&cfg);
    dtc_reads();
    IS_CELLS("/cpus", "#address-cells", 2);
    IS_CELLS("/cpus/cpu@0", "reg", 0, 0);
    IS_CELLS("/cpus/cpu@100000203", "reg", 1, 0x203);
    cfg.cpu_reg = high;
    build(&cfg);
    IS_CELLS("/cpus", "#address-cells", 1);
    IS_CELLS("/cpus/cpu@ffffff", "reg", 0xffffff);
    assert_int_equal(fdt_boot_cpuid_phys(tree), 5);

    cfg = X86;
    cfg.cpu_reg = ids;
    build(&cfg);
    IS_CELLS("/cpus/cpu@fe", "reg", 0xfe);
    IS_CELLS("/cpus/cpu@fe", "intel,apic-id", 0xfe);
    assert_int_equal(fdt_boot_cpuid_phys(tree), 2);
    cfg = whole(TN_FDT_X86, 0, 40);
    build(&cfg);
    IS_CELLS("/cpus/cpu@27", "reg", 39);
}

static void a_riscv64_machine(void **state)
{
    struct tn_fdt_cfg cfg = RV;
    uint32_t intc;

    (void)state;
    build(&cfg);
    IS_CELLS("/cpus", "timebase-frequency", 10000000);
    IS_TEXT("/cpus/cpu@1", "compatible", "riscv");
    IS_TEXT("/cpus/cpu@1", "riscv,isa", "rv64imafdc_zicsr_zifencei");
    IS_TEXT("/cpus/cpu@1", "mmu-type", "riscv,sv39");
    IS_CELLS("/cpus/cpu@1", "reg", 1);
    IS_TEXT("/cpus/cpu@1/interrupt-controller", "compatible", "riscv,cpu-intc");
    IS_CELLS("/cpus/cpu@1/interrupt-controller", "#interrupt-cells", 1);
    is_flag("/cpus/cpu@1/interrupt-controller", "interrupt-controller");
    intc = cell_of("/cpus/cpu@0/interrupt-controller", "phandle");
    assert_int_equal(cell_of("/cpus/cpu@1/interrupt-controller", "phandle"), intc + 1);
    IS_TEXT("/interrupt-controller@c000000", "compatible", "sifive,plic-1.0.0\0riscv,plic0");
    IS_CELLS("/interrupt-controller@c000000", "reg", 0, 0xc000000, 0, 0x600000);
    IS_CELLS("/interrupt-controller@c000000", "interrupts-extended", intc, 11, intc, 9, intc + 1,
             11, intc + 1, 9);
    IS_CELLS("/interrupt-controller@c000000", "riscv,ndev", 19);
    IS_CELLS("/interrupt-controller@c000000", "#interrupt-cells", 1);
    IS_CELLS("/interrupt-controller@c000000", "phandle", 1);
    IS_CELLS("/serial@9000000", "interrupts", 4);
    IS_CELLS("/virtio@a005000", "interrupts", 17);

    cfg.mmu = 48;
    cfg.uart.irq = 33;
    build(&cfg);
    IS_TEXT("/cpus/cpu@0", "mmu-type", "riscv,sv48");
    IS_CELLS("/interrupt-controller@c000000", "riscv,ndev", 33);
    cfg = bare(TN_FDT_RISCV64, 0, 1);
    cfg.mmu = 57;
    build(&cfg);
    IS_TEXT("/cpus/cpu@0", "mmu-type", "riscv,sv57");
    IS_CELLS("/interrupt-controller@c000000", "riscv,ndev", 1);
}

static void an_x86_machine(void **state)
{
    struct tn_fdt_cfg cfg = X86;

    (void)state;
    build(&cfg);
    IS_TEXT("/cpus/cpu@1", "device_type", "cpu");
    IS_CELLS("/cpus/cpu@1", "reg", 1);
    IS_TEXT("/interrupt-controller@fec00000", "compatible", "intel,ce4100-ioapic");
    IS_CELLS("/interrupt-controller@fec00000", "reg", 0, 0xfec00000, 0, 0x1000);
    IS_CELLS("/interrupt-controller@fec00000", "#interrupt-cells", 2);
    IS_CELLS("/interrupt-controller@fec00000", "phandle", 1);
    IS_TEXT("/interrupt-controller@fee00000", "compatible", "intel,ce4100-lapic");
    IS_CELLS("/interrupt-controller@fee00000", "reg", 0, 0xfee00000, 0, 0x1000);
    is_flag("/interrupt-controller@fee00000", "intel,virtual-wire-mode");
    IS_TEXT("/isa@0", "compatible", "isa");
    IS_CELLS("/isa@0", "ranges", 1, 0, 0, 0, 0x10000);
    IS_TEXT("/isa@0/serial@i3f8", "compatible", "ns16550a");
    IS_CELLS("/isa@0/serial@i3f8", "reg", 1, 0x3f8, 8);
    IS_CELLS("/isa@0/serial@i3f8", "interrupts", 4, 3);
    IS_TEXT("/chosen", "stdout-path", "/isa@0/serial@i3f8");
    IS_CELLS("/virtio@a005000", "interrupts", 17, 3);
}

static void fdtget_reads_what_was_meant(void **state)
{
    struct tn_fdt_cfg cfg = ARM;

    (void)state;
    if (tools)
        SKIP(tools);
    build(&cfg);
    fdtget('s', "/psci", "compatible", "arm,psci-1.0 arm,psci-0.2");
    fdtget('x', "/cpus/cpu@1", "reg", "1");
    fdtget('x', "/memory@100000000", "reg", "1 0 0 40000000");
    fdtget('x', "/interrupt-controller@8000000", "reg", "0 8000000 0 10000 0 c000000 0 40000");
    fdtget('u', "/timer", "interrupts", "1 13 8 1 14 8 1 11 8 1 10 8");
    fdtget('s', "/chosen", "bootargs", "console=ttyS0 root=/dev/vda");
    fdtget('x', "/chosen", "linux,initrd-end", "0 60000000");
    fdtget('u', "/virtio@a003000", "interrupts", "0 19 1");
    cfg = RV;
    build(&cfg);
    fdtget('s', "/cpus/cpu@0", "riscv,isa", cfg.isa);
    fdtget('u', "/interrupt-controller@c000000", "interrupts-extended", "16 11 16 9 17 11 17 9");
    cfg = X86;
    build(&cfg);
    fdtget('s', "/chosen", "stdout-path", "/isa@0/serial@i3f8");
    fdtget('u', "/virtio@a003000", "interrupts", "19 3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_machine_that_is_none_is_refused),
        cmocka_unit_test(fields_of_other_machines_are_zero),
        cmocka_unit_test(processors_have_limits),
        cmocka_unit_test(memory_has_limits),
        cmocka_unit_test(chips_have_limits),
        cmocka_unit_test(devices_have_limits),
        cmocka_unit_test(the_generation_id_is_in_one_range_of_memory_or_in_none),
        cmocka_unit_test(interrupts_have_limits),
        cmocka_unit_test(texts_and_seeds_have_limits),
        cmocka_unit_test(the_initrd_is_in_one_range_of_memory),
        cmocka_unit_test(a_misaligned_buffer_is_refused),
        cmocka_unit_test(less_room_than_the_tree_is_no_space),
        cmocka_unit_test(bytes_beyond_the_greatest_size_stay),
        cmocka_unit_test_setup_teardown(the_greatest_trees_have_room, setup, teardown),
        cmocka_unit_test_setup_teardown(every_part_can_be_left_out, setup, teardown),
        cmocka_unit_test_setup_teardown(every_number_of_processors, setup, teardown),
        cmocka_unit_test(the_boot_loader_s_words),
        cmocka_unit_test(an_arm64_machine_with_a_gicv3),
        cmocka_unit_test(a_power_button_is_a_key_on_a_line),
        cmocka_unit_test(a_generation_id_is_reserved_where_it_is_memory),
        cmocka_unit_test(an_arm64_machine_with_a_gicv2),
        cmocka_unit_test_setup_teardown(processors_have_the_numbers_they_are_given, setup,
                                        teardown),
        cmocka_unit_test(a_riscv64_machine),
        cmocka_unit_test(an_x86_machine),
        cmocka_unit_test_setup_teardown(fdtget_reads_what_was_meant, setup, teardown),
    };
    return cmocka_run_group_tests_name("fdt", tests, NULL, NULL);
}
