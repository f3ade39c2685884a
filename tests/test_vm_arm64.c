/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vm_arm64 and its state: the board without KVM, its device tree, the records of its state;
 * whole machines with two vCPUs on KVM, which are paused, saved, restored, forked and put back.
 */
#include "tn_vm_arm64.h"

#include "snap_forge.h"
#include "vm_clone.h"

#include <poll.h>

/*
 * A kernel: an Image that serves the serial port by interrupt, each letter a command.
 *   2  switches CPU 1 on, which serves the software interrupt 1; says "two"
 *   n  adds 1 to x25, has CPU 1 add 3 to its own; says both, in hexadecimal
 *   s  sets the timer to a second, says "armed", and "fired" when it expires
 *   q  switches the machine off; r resets it
 * It says "up" and the high half of x0 first, and "new" when it has a new generation id.
 */
__asm__(".pushsection .data\n"
        ".balign 8\n"
        "kernel_image:\n"
        "    b 10f\n"
        "    .word 0\n"
        "    .quad 0, 0x2000, 0xa, 0, 0, 0\n" /* text_offset, image_size, flags */
        "    .ascii \"ARM\\x64\"\n"
        "    .word 0\n"
        /* x0: a byte to say */
        "1:  ldrb w1, [x19, #5]\n"
        "    tbz w1, #5, 1b\n"
        "    strb w0, [x19]\n"
        "    ret\n"
        /* x2: a text to say */
        "2:  mov x28, x30\n"
        "3:  ldrb w0, [x2], #1\n"
        "    cbz w0, 4f\n"
        "    bl 1b\n"
        "    b 3b\n"
        "4:  br x28\n"
        /* x2: a number to say, of four digits */
        "5:  mov x28, x30\n"
        "    mov x3, #4\n"
        "6:  ubfx w0, w2, #12, #4\n"
        "    lsl w2, w2, #4\n"
        "    cmp w0, #10\n"
        "    add w0, w0, #48\n"
        "    b.lo 7f\n"
        "    add w0, w0, #39\n"
        "7:  bl 1b\n"
        "    sub x3, x3, #1\n"
        "    cbnz x3, 6b\n"
        "    br x28\n"
        /* x0: a CPU's redistributor; CPU interface and private interrupts */
        "8:  str wzr, [x0, #0x14]\n"
        "    add x0, x0, #0x10000\n"
        "    mov w1, #-1\n"
        "    str w1, [x0, #0x80]\n"
        "    movz w1, #0x0800, lsl #16\n" /* 27 and 1 */
        "    movk w1, #2\n"
        "    str w1, [x0, #0x100]\n"
        "    mov x1, #0xf0\n"
        "    msr icc_pmr_el1, x1\n"
        "    mov x1, #1\n"
        "    msr icc_igrpen1_el1, x1\n"
        "    isb\n"
        "    ret\n"
        /* CPU 1; x0: where it answers */
        "9:  mov x26, x0\n"
        "    movz x0, #0x0812, lsl #16\n"
        "    bl 8b\n"
        "    mov x25, #0x100\n"
        "    str x25, [x26]\n"
        "91: wfi\n"
        "    mrs x0, icc_iar1_el1\n"
        "    cmp w0, #1\n"
        "    b.ne 91b\n"
        "    add x25, x25, #3\n"
        "    msr icc_eoir1_el1, x0\n"
        "    isb\n"
        "    str x25, [x26]\n"
        "    b 91b\n"
        /* CPU 0 */
        "10: mov x27, x0\n"
        "    movz x19, #0x1000, lsl #16\n"
        "    adr x26, 60f\n"
        "    movz x0, #0x0800, lsl #16\n"
        "    mov w1, #0x12\n"
        "    str w1, [x0]\n"
        "    mov w1, #-1\n"
        "    str w1, [x0, #0x84]\n"
        "    mov w1, #0x80\n" /* SPI 3: edges */
        "    str w1, [x0, #0xc08]\n"
        "    mov w1, #9\n" /* SPIs 0 and 3 */
        "    str w1, [x0, #0x104]\n"
        "    movz x0, #0x0810, lsl #16\n"
        "    bl 8b\n"
        "    adr x2, 61f\n"
        "    bl 2b\n"
        "    lsr x2, x27, #16\n"
        "    bl 5b\n"
        "    mov w0, #10\n"
        "    bl 1b\n"
        "    mov w0, #8\n" /* MCR: the line is open */
        "    strb w0, [x19, #4]\n"
        "    mov w0, #1\n" /* IER: data */
        "    strb w0, [x19, #1]\n"
        "20: wfi\n"
        "21: mrs x23, icc_iar1_el1\n"
        "    cmp w23, #1023\n"
        "    b.eq 20b\n"
        "    cmp w23, #35\n"
        "    adr x2, 65f\n"
        "    b.eq 23f\n"
        "    cmp w23, #27\n"
        "    b.ne 30f\n"
        "    msr cntv_ctl_el0, xzr\n"
        "    adr x2, 62f\n"
        "23: bl 2b\n"
        "22: msr icc_eoir1_el1, x23\n"
        "    isb\n"
        "    b 21b\n"
        "30: ldrb w0, [x19, #5]\n"
        "    tbz w0, #0, 22b\n"
        "    ldrb w0, [x19]\n"
        "    cmp w0, #'n'\n"
        "    b.eq 40f\n"
        "    cmp w0, #'2'\n"
        "    b.eq 41f\n"
        "    cmp w0, #'s'\n"
        "    b.eq 42f\n"
        "    mov w1, w0\n"
        "    movz w0, #0x8400, lsl #16\n"
        "    movk w0, #8\n"
        "    cmp w1, #'q'\n"
        "    b.eq 31f\n"
        "    cmp w1, #'r'\n"
        "    b.ne 30b\n"
        "    movk w0, #9\n"
        "31: hvc #0\n"
        "    b 31b\n"
        /* n */
        "40: add x25, x25, #1\n"
        "    cbz x24, 45f\n"
        "    str xzr, [x26]\n"
        "    dsb sy\n"
        "    movz x0, #0x0100, lsl #16\n" /* 1, to the CPU with affinity 1 */
        "    movk x0, #2\n"
        "    msr icc_sgi1r_el1, x0\n"
        "    isb\n"
        "43: ldr x0, [x26]\n"
        "    cbz x0, 43b\n"
        "45: mov x2, x25\n"
        "    bl 5b\n"
        "    mov w0, #32\n"
        "    bl 1b\n"
        "    ldr x2, [x26]\n"
        "    bl 5b\n"
        "    mov w0, #10\n"
        "    bl 1b\n"
        "    b 30b\n"
        /* 2 */
        "41: str xzr, [x26]\n"
        "    movz w0, #0xc400, lsl #16\n"
        "    movk w0, #3\n"
        "    mov x1, #1\n"
        "    adr x2, 9b\n"
        "    mov x3, x26\n"
        "    hvc #0\n"
        "44: ldr x0, [x26]\n"
        "    cbz x0, 44b\n"
        "    mov x24, #1\n"
        "    adr x2, 63f\n"
        "    bl 2b\n"
        "    b 30b\n"
        /* s */
        "42: mrs x0, cntfrq_el0\n"
        "    msr cntv_tval_el0, x0\n"
        "    mov x0, #1\n"
        "    msr cntv_ctl_el0, x0\n"
        "    isb\n"
        "    adr x2, 64f\n"
        "    bl 2b\n"
        "    b 30b\n"
        ".balign 8\n"
        "60: .quad 0\n"
        "61: .asciz \"up \"\n"
        "62: .asciz \"fired\\n\"\n"
        "63: .asciz \"two\\n\"\n"
        "64: .asciz \"armed\\n\"\n"
        "65: .asciz \"new\\n\"\n"
        ".balign 8\n"
        "kernel_image_end:\n"
        ".popsection\n");
extern uint8_t image_bytes[] __asm__("kernel_image") __attribute__((visibility("hidden")));
extern uint8_t image_after[] __asm__("kernel_image_end") __attribute__((visibility("hidden")));

#define DTB 0x40000000u

/* ---- the board alone: exits are made by hand, interrupt lines lead nowhere ---- */

static struct tn_vm_arm64 board;
static struct tn_kvm_vm no_vm = {-1};
static struct tn_loop loop;
static uint32_t hint[2];

static void board_open(void)
{
    const struct tn_vm_cfg cfg = {0};

    memset(&board, 0, sizeof(board));
    pthread_mutex_init(&board.device_lock, NULL);
    board.vm = &no_vm;
    board.gic.fd = -1;
    board.gic.version = 3;
    board.cpus = 1;
    assert_int_equal(tn_loop_init(&loop), 0);
    assert_int_equal(tn_vm_arm64_devices(&board, &cfg, &loop), 0);
}

static void board_close(void)
{
    tn_vm_arm64_close(&board);
    tn_loop_close(&loop);
}

static uint64_t access_at(uint64_t gpa, uint8_t len, bool write, uint64_t value)
{
    struct tn_kvm_exit e;
    uint8_t data[9] = {0};

    memset(&e, 0, sizeof(e));
    e.kind = TN_KVM_EXIT_MMIO;
    e.mmio.gpa = gpa;
    e.mmio.len = len;
    e.mmio.write = write;
    e.mmio.data = data;
    tn_put_(data, 8, value);
    if (!write)
        memset(data, 0, sizeof(data));
    assert_int_equal(tn_vm_arm64_access(&board, &e, hint), TN_VM_NONE);
    for (unsigned i = len; !write && i < sizeof(data); i++)
        assert_int_equal(data[i], 0);
    return tn_get_(data, len);
}

static uint64_t in(uint64_t gpa, uint8_t len)
{
    return access_at(gpa, len, false, 0);
}

static void out(uint64_t gpa, uint8_t len, uint64_t value)
{
    (void)access_at(gpa, len, true, value);
}

static uint64_t ones(unsigned len)
{
    return len < 8 ? (1ull << 8 * len) - 1 : ~0ull;
}

static void ram_has_limits(void **state)
{
    static const struct {
        uint64_t size;
        int r;
    } row[] = {
        {0, TN_EINVAL},
        {(16ull << 20) - 1, TN_EINVAL},
        {(16ull << 20) - 0x10000, TN_EINVAL},
        {16ull << 20, 1},
        {(16ull << 20) + 4096, TN_EINVAL},
        {(16ull << 20) + 0x10000, 1},
        {3ull << 30, 1},
        {(1ull << 40) - 0x40000000, 1},
        {(1ull << 40) - 0x40000000 + 0x10000, TN_EINVAL},
        {~0ull, TN_EINVAL},
        {~0xffffull, TN_EINVAL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct tn_loader_range ram[TN_VM_ARM64_RAM] = {{7, 7}};

        assert_int_equal(tn_vm_arm64_ram(row[i].size, ram), row[i].r);
        assert_int_equal(ram[0].gpa, row[i].r == 1 ? 0x40000000 : 0);
        assert_int_equal(ram[0].size, row[i].r == 1 ? row[i].size : 0);
    }
}

/* Whatever nobody claims reads all ones and ignores what is written, at any width. */
static void b03_unclaimed(void **state)
{
    static const uint64_t gpas[] = {0,          0x08000000, 0x0fffffff, 0x10000008, 0x10000fff,
                                    0x10003000, 0x10010000, 0x3fffffff, 1ull << 40, UINT64_MAX};

    (void)state;
    board_open();
    for (size_t i = 0; i < COUNT(gpas); i++) {
        for (uint8_t len = 1; len <= 8; len++) {
            out(gpas[i], len, 0);
            assert_int_equal(in(gpas[i], len), ones(len));
        }
    }
    board_close();
}

/* A register of a byte is no wider, and an access does not run over a device's end. */
static void b02_wide_accesses(void **state)
{
    (void)state;
    board_open();
    for (uint8_t len = 1; len <= 8; len++) {
        out(0x10000007, 1, 0x33); /* SCR */
        out(0x10000007, len, 0x5a5a5a5a5a5a5a5a);
        assert_int_equal(in(0x10000007, 1), len == 1 ? 0x5a : 0x33);
        if (len > 1) {
            assert_int_equal(in(0x10000007, len), ones(len));
            assert_int_equal(in(0x10000000, len), ones(len));
            out(0x10000001, len, 0x0505050505050505); /* IER */
            assert_int_equal(in(0x10000001, 1), 0);
        }
    }
    board_close();
}

static void the_console_is_a_16550(void **state)
{
    (void)state;
    board_open();
    out(0x10000000 + TN_UART_SCR, 1, 0x5a);
    assert_int_equal(in(0x10000000 + TN_UART_SCR, 1), 0x5a);
    assert_int_equal(board.uart.state.scr, 0x5a);
    assert_int_equal(in(0x10000000 + TN_UART_LSR, 1) & 0x60, 0x60);
    board_close();
}

static void the_clock_is_a_pl031(void **state)
{
    static const uint8_t id[8] = {0x31, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1};
    uint64_t now = (uint64_t)time(NULL);

    (void)state;
    board_open();
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(in(0x10001000 + TN_RTC_ID + 4 * i, 4) & 0xff,
                         i == 2 ? in(0x10001000 + TN_RTC_ID + 8, 4) & 0xff : id[i]);
    assert_in_range(in(0x10001000 + TN_RTC_DR, 4), now, now + 5);
    out(0x10001000 + TN_RTC_LR, 4, 1000);
    assert_in_range(in(0x10001000 + TN_RTC_DR, 4), 1000, 1005);
    assert_int_equal(in(0x10001000 + TN_RTC_DR, 1), 0);
    /* An alarm: the loop raises it, once. */
    out(0x10001000 + TN_RTC_IMSC, 4, 1);
    out(0x10001000 + TN_RTC_MR, 4, in(0x10001000 + TN_RTC_DR, 4) + 1);
    assert_int_equal(in(0x10001000 + TN_RTC_MIS, 4), 0);
    for (int i = 0; i < 40 && board.rtc.state.ris == 0; i++)
        assert_true(tn_loop_step(&loop, 100) >= 0);
    assert_int_equal(board.rtc.state.ris, 1);
    out(0x10001000 + TN_RTC_ICR, 4, 1);
    assert_int_equal(in(0x10001000 + TN_RTC_MIS, 4), 0);
    assert_int_equal(tn_loop_step(&loop, 0), 0);
    /* One of next year is asked after once an hour. */
    out(0x10001000 + TN_RTC_MR, 4, in(0x10001000 + TN_RTC_DR, 4) + 31536000);
    assert_int_equal(tn_loop_step(&loop, 10), 0);
    board_close();
}

static void the_button_is_let_go(void **state)
{
    const uint64_t line = 0x10002000 + (1u << 3 << 2); /* GPIODATA, of line 3 */

    (void)state;
    board_open();
    assert_int_equal(in(line, 4), 0);
    assert_int_equal(tn_vm_arm64_shutdown(&board), 0);
    assert_int_equal(in(line, 4), 8);
    for (int i = 0; i < 40 && in(line, 4) != 0; i++) {
        assert_true(tn_loop_step(&loop, 100) >= 0);
        assert_true(i > 0 || in(line, 4) != 0); /* not at the first tick */
    }
    assert_int_equal(in(line, 4), 0);
    assert_int_equal(tn_loop_step(&loop, 100), 0); /* nor any more */
    /* While its interrupt waits for the guest, it is held. */
    out(0x10002000 + 0x40c, 4, 8); /* GPIOIEV */
    out(0x10002000 + 0x410, 4, 8); /* GPIOIE */
    assert_int_equal(tn_vm_arm64_shutdown(&board), 0);
    for (int i = 0; i < 6; i++)
        assert_true(tn_loop_step(&loop, 100) >= 0);
    assert_int_equal(in(line, 4), 8);
    out(0x10002000 + 0x41c, 4, 8); /* GPIOIC */
    for (int i = 0; i < 40 && in(line, 4) != 0; i++)
        assert_true(tn_loop_step(&loop, 100) >= 0);
    assert_int_equal(in(line, 4), 0);
    board_close();
}

static void no_keys(void **state)
{
    (void)state;
    board_open();
    assert_int_equal(tn_vm_arm64_ctrl_alt_del(&board), TN_EUNSUP);
    board_close();
    memset(&board, 0, sizeof(board)); /* as when its making failed early */
    board.console.in = board.console.out = -1;
    tn_vm_arm64_close(&board);
}

static void where_virtio_devices_go(void **state)
{
    struct tn_vm_place place;

    (void)state;
    board_open();
    memset(&place, 0xee, sizeof(place));
    tn_vm_arm64_place(&board, &place);
    assert_int_equal(place.gpa, 0x10010000);
    assert_int_equal(place.gsi, 16);
    assert_int_equal(place.gsis, 48);
    assert_ptr_equal(place.mmio, &board.mmio);
    assert_ptr_equal(place.vm, &no_vm);
    board_close();
}

/* ---- loading, and the tree ---- */

#define RAM_64M (64u << 20)

static uint8_t *ram;
static struct tn_mem_region region[2];
static struct tn_mem mem;
static struct tn_vm_cfg vm_cfg;

static void loader_open(uint32_t cpus, uint32_t gic)
{
    memset(&board, 0, sizeof(board));
    board.cpus = cpus;
    board.gic.version = gic;
    if (!ram)
        ram = mmap(NULL, RAM_64M, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(ram, MAP_FAILED);
    tn_mem_init(&mem, region, 2);
    assert_int_equal(tn_mem_add(&mem, 0x40000000, ram, RAM_64M), 0);
    memset(&vm_cfg, 0, sizeof(vm_cfg));
    vm_cfg.memory = RAM_64M;
    vm_cfg.kernel = image_bytes;
    vm_cfg.kernel_len = (size_t)(image_after - image_bytes);
}

static void load_errors_have_stages(void **state)
{
    static char words[2049];
    static uint8_t elf[64] = "\177ELF";
    uint32_t at;

    (void)state;
    memset(words, 'a', sizeof(words) - 1);
    for (unsigned i = 0; i < 9; i++) {
        int want = TN_EINVAL;
        int r;

        loader_open(1, 3);
        memset(ram, 0, 0x400000);
        at = TN_BOOT_ARM64_AT_CFG;
        switch (i) {
        case 0:
            vm_cfg.cmdline = words; /* of 2048 bytes */
            want = TN_ENOSPC;
            at = TN_VM_ARM64_AT_CMDLINE;
            break;
        case 1:
            vm_cfg.memory = RAM_64M + 0x10000; /* there is not so much */
            break;
        case 2:
            vm_cfg.memory = 1;
            break;
        case 3:
            vm_cfg.kernel = NULL;
            break;
        case 4:
            vm_cfg.kernel_len = 0;
            want = TN_ETRUNC;
            at = TN_BOOT_ARM64_AT_KERNEL;
            break;
        case 5:
            vm_cfg.kernel = elf;
            vm_cfg.kernel_len = sizeof(elf);
            want = 0; /* any */
            at = TN_BOOT_ARM64_AT_KERNEL;
            break;
        case 6:
            vm_cfg.initrd = ram;
            vm_cfg.initrd_len = RAM_64M;
            want = TN_ENOFIT;
            at = TN_BOOT_ARM64_AT_INITRD;
            break;
        case 7:
            vm_cfg.disks = TN_VM_ARM64_MAX_VIRTIO + 1;
            break;
        default:
            vm_cfg.initrd_len = 1; /* of nothing */
            break;
        }
        r = tn_vm_arm64_load(&board, &mem, &vm_cfg);
        if (want)
            assert_int_equal(r, want);
        assert_true(r < 0);
        assert_int_equal(board.info.stage, at);
        for (size_t k = 0; k < 0x400000; k += 4096)
            assert_int_equal(ram[k], 0);
    }
}

static const void *property(const void *fdt, const char *path, const char *name, int *len)
{
    int node = fdt_path_offset(fdt, path);
    const void *p;

    if (node < 0)
        fail_msg("no node %s", path);
    p = fdt_getprop(fdt, node, name, len);
    if (!p)
        fail_msg("%s has no %s", path, name);
    return p;
}

/* Whether a property is these cells. */
static void cells(const void *fdt, const char *path, const char *name, const uint32_t *cell,
                  unsigned n)
{
    int len;
    const uint8_t *p = property(fdt, path, name, &len);

    assert_int_equal(len, 4 * n);
    for (unsigned i = 0; i < n; i++) {
        uint32_t v = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 |
                     (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];

        if (v != cell[i])
            fail_msg("%s: %s, cell %u is %#x, not %#x", path, name, i, v, cell[i]);
    }
}
#define CELLS(path, name, ...)                                 \
    do {                                                       \
        const uint32_t cell_[] = {__VA_ARGS__};                \
        cells(ram, path, name, cell_, (unsigned)COUNT(cell_)); \
    } while (0)

static void text(const char *path, const char *name, const char *want)
{
    int len;
    const char *p = property(ram, path, name, &len);

    assert_int_equal(len, strlen(want) + 1);
    assert_string_equal(p, want);
}

static void the_tree_says_what_there_is(void **state)
{
    static const struct {
        uint32_t cpus, gic, virtio;
    } row[] = {{1, 3, 0}, {8, 3, 32}, {17, 3, 5}, {512, 3, 32}, {1, 2, 1}, {8, 2, 32}};
    static char words[2048];
    static uint8_t initrd[12345];

    (void)state;
    memset(words, 'x', sizeof(words) - 1);
    for (size_t i = 0; i < COUNT(row); i++) {
        uint32_t cpus = row[i].cpus;
        char path[64];
        int len, n = 0, node;

        loader_open(cpus, row[i].gic);
        vm_cfg.disks = row[i].virtio; /* only their number counts here */
        vm_cfg.cmdline = i % 2 ? words : "console=ttyS0 quiet";
        vm_cfg.initrd = initrd;
        vm_cfg.initrd_len = i % 2 ? sizeof(initrd) : 0;
        memset(ram, 0xee, 0x200000);
        assert_int_equal(tn_vm_arm64_load(&board, &mem, &vm_cfg), 0);
        assert_int_equal(board.info.stage, TN_BOOT_ARM64_AT_END);
        assert_int_equal(board.boot.x0, DTB);
        assert_int_equal(board.boot.pc, 0x40200000);
        assert_int_equal(fdt_check_full(ram, 0x200000), 0);
        assert_memory_equal(ram + 0x200000, image_bytes, vm_cfg.kernel_len);

        CELLS("/memory@40000000", "reg", 0, 0x40000000, 0, RAM_64M);
        text("/chosen", "bootargs", vm_cfg.cmdline);
        text("/chosen", "stdout-path", "/serial@10000000");
        if (vm_cfg.initrd_len > 0) {
            uint64_t at = board.info.initrd_gpa;

            CELLS("/chosen", "linux,initrd-start", 0, (uint32_t)at);
            CELLS("/chosen", "linux,initrd-end", 0, (uint32_t)(at + sizeof(initrd)));
            assert_memory_equal(ram + at - 0x40000000, initrd, sizeof(initrd));
        } else {
            assert_null(
                fdt_getprop(ram, fdt_path_offset(ram, "/chosen"), "linux,initrd-start", NULL));
        }
        text("/psci", "method", "hvc");
        CELLS("/serial@10000000", "reg", 0, 0x10000000, 0, 8);
        CELLS("/serial@10000000", "interrupts", 0, 0, 4);
        CELLS("/rtc@10001000", "reg", 0, 0x10001000, 0, 0x1000);
        CELLS("/rtc@10001000", "interrupts", 0, 1, 4);
        CELLS("/gpio@10002000", "reg", 0, 0x10002000, 0, 0x1000);
        CELLS("/gpio@10002000", "interrupts", 0, 2, 4);
        CELLS("/gpio-keys/key-poweroff", "linux,code", 116);
        text("/rng@401f0000", "compatible", "microsoft,vmgenid");
        CELLS("/rng@401f0000", "interrupts", 0, 3, 1);
        CELLS("/reserved-memory/rng@401f0000", "reg", 0, 0x401f0000, 0, 0x10000);
        if (row[i].gic == 3) {
            text("/interrupt-controller@8000000", "compatible", "arm,gic-v3");
            CELLS("/interrupt-controller@8000000", "reg", 0, 0x08000000, 0, 0x10000, 0, 0x08100000,
                  0, 0x20000 * cpus);
        } else {
            text("/interrupt-controller@8000000", "compatible", "arm,cortex-a15-gic");
            CELLS("/interrupt-controller@8000000", "reg", 0, 0x08000000, 0, 0x1000, 0, 0x08020000,
                  0, 0x2000);
        }
        for (uint32_t v = 0; v < row[i].virtio; v++) {
            snprintf(path, sizeof(path), "/virtio@%x", 0x10010000 + 0x1000 * v);
            CELLS(path, "reg", 0, 0x10010000 + 0x1000 * v, 0, 0x200);
            CELLS(path, "interrupts", 0, 16 + v, 1);
        }
        snprintf(path, sizeof(path), "/virtio@%x", 0x10010000 + 0x1000 * row[i].virtio);
        assert_true(fdt_path_offset(ram, path) < 0);
        for (uint32_t c = 0; c < cpus; c++) {
            snprintf(path, sizeof(path), "/cpus/cpu@%llx",
                     (unsigned long long)tn_kvm_arm64_mpidr(c));
            text(path, "enable-method", "psci");
            (void)property(ram, path, "reg", &len);
        }
        node = fdt_path_offset(ram, "/cpus");
        for (node = fdt_first_subnode(ram, node); node >= 0; node = fdt_next_subnode(ram, node))
            n++;
        assert_int_equal(n, cpus);
    }
}

static void no_two_machines_have_the_same_seeds(void **state)
{
    uint8_t seed[2][72];

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        int len;
        const void *p;

        loader_open(1, 3);
        assert_int_equal(tn_vm_arm64_load(&board, &mem, &vm_cfg), 0);
        p = property(ram, "/chosen", "rng-seed", &len);
        assert_int_equal(len, 64);
        memcpy(seed[i], p, 64);
        p = property(ram, "/chosen", "kaslr-seed", &len);
        assert_int_equal(len, 8);
        memcpy(seed[i] + 64, p, 8);
    }
    for (unsigned at = 0; at < 72; at += 8)
        assert_memory_not_equal(seed[0] + at, seed[1] + at, 8);
}

/* ---- records ---- */

static uint8_t file[1 << 20];
static struct tn_kvm_arm64_vcpu_state cpu_in, cpu_out;

static struct tn_snap_writer *begin(void)
{
    static struct tn_snap_writer w;

    tn_snap_begin(&w, file, sizeof(file));
    return &w;
}

static int opened(struct tn_snap *snap, size_t len)
{
    const struct tn_snap_known *known;
    size_t count;

    known = tn_vm_known(&count);
    return tn_snap_open(snap, file, len, NULL, known, count);
}

static void random_cpu(struct tn_kvm_arm64_vcpu_state *s, uint32_t regs)
{
    uint64_t r = 7;

    memset(s, 0, sizeof(*s));
    s->features = (uint32_t)test_random(&r);
    s->mp_state = (uint32_t)test_random(&r);
    s->serror = (uint32_t)test_random(&r);
    s->serror_syndrome = test_random(&r);
    s->reg_count = regs;
    for (uint32_t i = 0; i < regs; i++) {
        s->reg[i].id = test_random(&r);
        s->reg[i].value[0] = test_random(&r);
        s->reg[i].value[1] = test_random(&r);
    }
}

static void random_words(void *out_, size_t len)
{
    uint64_t r = 9;
    uint8_t *p = out_;

    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)test_random(&r);
}

static void records_come_back(void **state)
{
    struct tn_kvm_arm64_time time_in = {0x1122334455667788, 0x99aabbccddeeff00, 0x12345678};
    struct tn_kvm_arm64_time time_out;
    struct tn_kvm_arm64_gic_state gic_in, gic_out;
    struct tn_kvm_arm64_gic_cpu part_in, part_out;
    static const uint32_t counts[] = {0, 1, 300, TN_KVM_ARM64_MAX_REGS};
    struct tn_snap_writer *w;
    struct tn_snap_section s;
    struct tn_snap snap;
    int64_t n;

    (void)state;
    random_words(&gic_in, sizeof(gic_in));
    random_words(&part_in, sizeof(part_in));
    gic_in.spis = 64;
    for (size_t i = 0; i < COUNT(counts); i++) {
        random_cpu(&cpu_in, counts[i]);
        w = begin();
        tn_vm_put_arm64_time(w, 0, &time_in);
        tn_vm_put_arm64_vcpu(w, 3, &cpu_in);
        tn_vm_put_gic(w, 0, &gic_in);
        tn_vm_put_gic_cpu(w, 5, &part_in);
        n = tn_snap_finish(w, NULL, NULL);
        assert_true(n > 0);
        assert_int_equal(opened(&snap, (size_t)n), 0);
        memset(&time_out, 0xee, sizeof(time_out));
        memset(&cpu_out, 0xee, sizeof(cpu_out));
        memset(&gic_out, 0xee, sizeof(gic_out));
        memset(&part_out, 0xee, sizeof(part_out));
        assert_int_equal(tn_vm_get_arm64_time(&snap, 0, &time_out), 0);
        assert_int_equal(time_out.counter, time_in.counter);
        assert_int_equal(time_out.realtime_ns, time_in.realtime_ns);
        assert_int_equal(time_out.counter_hz, time_in.counter_hz);
        assert_int_equal(tn_vm_get_arm64_vcpu(&snap, 3, &cpu_out), 0);
        assert_memory_equal(&cpu_in, &cpu_out, sizeof(cpu_in));
        assert_int_equal(tn_vm_get_arm64_vcpu(&snap, 2, &cpu_out), TN_ESTATE);
        assert_int_equal(tn_vm_get_gic(&snap, 0, &gic_out), 0);
        assert_int_equal(gic_out.spis, 64);
        assert_int_equal(gic_out.cpus, 0);
        assert_null(gic_out.cpu);
        assert_memory_equal(gic_in.dist, gic_out.dist, sizeof(gic_in.dist));
        assert_int_equal(tn_vm_get_gic_cpu(&snap, 5, &part_out), 0);
        assert_memory_equal(part_in.redist, part_out.redist, sizeof(part_in.redist));
        assert_memory_equal(part_in.icc, part_out.icc, sizeof(part_in.icc));
        /* The bytes are those of docs/snapshot-format.md. */
        assert_int_equal(tn_snap_find(&snap, 0x190, 0, &s), 1);
        assert_int_equal(s.len, 20);
        assert_memory_equal(s.bytes, "\x88\x77\x66\x55\x44\x33\x22\x11", 8);
        assert_int_equal(tn_get_(s.bytes + 16, 4), 0x12345678);
        assert_int_equal(tn_snap_find(&snap, 0x2a0, 3, &s), 1);
        assert_int_equal(s.len, 24 + 24 * counts[i]);
        assert_int_equal(tn_get_(s.bytes + 20, 4), counts[i]);
        assert_int_equal(tn_snap_find(&snap, 0x340, 0, &s), 1);
        assert_int_equal(s.len, 4 + 4 * 160);
        assert_int_equal(tn_snap_find(&snap, 0x350, 5, &s), 1);
        assert_int_equal(s.len, 4 * 17 + 8 * 15);
    }
    w = begin();
    cpu_in.reg_count = TN_KVM_ARM64_MAX_REGS + 1;
    tn_vm_put_arm64_vcpu(w, 0, &cpu_in);
    assert_int_equal(tn_snap_finish(w, NULL, NULL), TN_EINVAL);
}

/* A section of len bytes in a forged file, read by the four that there are. */
static int read_forged(uint32_t type, const uint8_t *bytes, size_t len, void *out_)
{
    struct tn_snap snap;
    struct forge f;

    forge_begin(&f, file, sizeof(file));
    forge_section(&f, type, 0, 1, 1, bytes, len);
    forge_manifest(&f, 0, 0);
    if (opened(&snap, forge_end(&f, NULL)) != 0)
        return 1;
    switch (type) {
    case 0x190:
        return tn_vm_get_arm64_time(&snap, 0, out_);
    case 0x2a0:
        return tn_vm_get_arm64_vcpu(&snap, 0, out_);
    case 0x340:
        return tn_vm_get_gic(&snap, 0, out_);
    default:
        return tn_vm_get_gic_cpu(&snap, 0, out_);
    }
}

static void records_of_nobody(void **state)
{
    static const struct {
        uint32_t type;
        size_t len, size;
    } row[] = {
        {0x190, 20, sizeof(struct tn_kvm_arm64_time)},
        {0x2a0, 24 + 24 * 4, sizeof(struct tn_kvm_arm64_vcpu_state)},
        {0x340, 644, sizeof(struct tn_kvm_arm64_gic_state)},
        {0x350, 188, sizeof(struct tn_kvm_arm64_gic_cpu)},
    };
    static uint8_t bytes[24 + 24 * (TN_KVM_ARM64_MAX_REGS + 2)], zero[sizeof(cpu_out)];

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        random_words(bytes, sizeof(bytes));
        if (row[i].type == 0x2a0)
            tn_put_(bytes + 20, 4, 4);
        for (size_t len = 0; len <= row[i].len + 1; len++) {
            int want = len < row[i].len ? TN_ETRUNC : len > row[i].len ? TN_EFORMAT : 0;
            uint8_t *exact = test_exact(bytes, len);
            int r;

            memset(&cpu_out, 0xee, sizeof(cpu_out));
            r = read_forged(row[i].type, exact, len, &cpu_out);
            free(exact);
            /* A count is looked at before what it counts. */
            if (r != want && !(row[i].type == 0x2a0 && r == TN_ERANGE && len >= 24))
                fail_msg("section %#x of %zu bytes: %d", row[i].type, len, r);
            if (want)
                assert_memory_equal(&cpu_out, zero, row[i].size);
        }
    }
    for (uint32_t n = TN_KVM_ARM64_MAX_REGS; n <= TN_KVM_ARM64_MAX_REGS + 1; n++) {
        tn_put_(bytes + 20, 4, n);
        assert_int_equal(read_forged(0x2a0, bytes, 24 + 24 * n, &cpu_out),
                         n > TN_KVM_ARM64_MAX_REGS ? TN_ERANGE : 0);
    }
    tn_put_(bytes + 20, 4, UINT32_MAX);
    assert_int_equal(read_forged(0x2a0, bytes, 24 + 24, &cpu_out), TN_ERANGE);
}

/* ---- machines ---- */

static struct con con;
static struct tn_vm vm, other;
static struct tn_vm_image image;

static int open_up(void **state)
{
    (void)state;
    alarm(300);
    memset(&vm, 0, sizeof(vm));
    memset(&other, 0, sizeof(other));
    memset(&image, 0, sizeof(image));
    con_open(&con);
    return tn_loop_init(&loop);
}

static int shut(void **state)
{
    (void)state;
    tn_vm_close(&vm);
    tn_vm_close(&other);
    tn_vm_image_close(&image);
    tn_loop_close(&loop);
    con_close(&con);
    alarm(0);
    return 0;
}

/* A machine of the host's GIC, whose kernel is up; skips where it is none that can be saved. */
static void up(uint32_t cpus)
{
    struct tn_vm_cfg cfg;

    describe(&cfg, &con, "words", cpus);
    assert_int_equal(tn_vm_init(&vm, &kvm, &loop, &cfg), 0);
    if (vm.board.gic.version != 3)
        SKIP("the host has no GICv3");
    assert_int_equal(tn_vm_start(&vm), 0);
    hear(&vm, &loop, &con, 0, "up 4000\n"); /* the tree is where it is said to be */
}

/* Types text, and awaits the answer. */
static void ask(struct tn_vm *m, const char *letters, const char *answer)
{
    size_t from = con.len;

    con_type(&con, letters);
    hear(m, &loop, &con, from, answer);
}

static void machines_that_cannot_be(void **state)
{
    struct tn_vm_cfg cfg;

    (void)state;
    NEED_KVM();
    for (unsigned i = 0; i < 4; i++) {
        describe(&cfg, &con, "", 1);
        if (i == 0)
            cfg.memory = (16ull << 20) - 4096;
        if (i == 1)
            cfg.cpus = 513;
        if (i == 2)
            cfg.memory = 1ull << 40;
        if (i == 3)
            cfg.disks = 33;
        assert_int_equal(tn_vm_init(&vm, &kvm, &loop, &cfg), TN_EINVAL);
        assert_false(vm.open);
    }
}

static void a_machine_says_and_ends(void **state)
{
    (void)state;
    NEED_KVM();
    up(2);
    ask(&vm, "n", "0001 0000\n");
    ask(&vm, "2", "two\n");
    ask(&vm, "nn", "0003 0106\n");
    ask(&vm, "s", "armed\n");
    hear(&vm, &loop, &con, 0, "fired\n");
    assert_int_equal(tn_vm_shutdown(&vm), 0); /* it does not look */
    assert_int_equal(tn_vm_ctrl_alt_del(&vm), TN_EUNSUP);
    con_type(&con, "q");
    assert_int_equal(finish(&vm, &loop, &con), TN_VM_POWEROFF);
    assert_int_equal(vm.end.exit, KVM_EXIT_SYSTEM_EVENT);
    assert_int_equal(tn_vm_pause(&vm), TN_ESTATE);
    tn_vm_close(&vm);
    con_cut(&con, 0);
    up(1);
    con_type(&con, "r");
    assert_int_equal(finish(&vm, &loop, &con), TN_VM_RESET);
    tn_vm_close(&vm);
    con_cut(&con, 0);
    up(1);
    assert_int_equal(tn_vm_stop(&vm, 10), 0);
    assert_int_equal(vm.end.reason, TN_VM_KILLED);
}

static void a_machine_pauses(void **state)
{
    size_t seen;

    (void)state;
    NEED_KVM();
    up(2);
    ask(&vm, "2", "two\n");
    for (int i = 0; i < 10; i++) {
        assert_int_equal(tn_vm_pause(&vm), 0);
        seen = con.len;
        con_type(&con, "n");
        for (int k = 0; k < 5; k++)
            assert_true(tn_loop_step(&loop, 2) >= 0);
        (void)con_take(&con);
        assert_int_equal(con.len, seen);
        assert_int_equal(tn_vm_resume(&vm), 0);
        hear(&vm, &loop, &con, seen, "\n");
    }
    ask(&vm, "n", "000b 0121\n");
}

static struct tn_vm_clone_cfg clone_of(bool stopped)
{
    struct tn_vm_clone_cfg cfg;

    own(&cfg, &con);
    cfg.stopped = stopped;
    return cfg;
}

/* Waits until the guest has read all that was typed. */
static void at_rest(struct tn_vm *m)
{
    for (int i = 0; i < 10; i++)
        tn_loop_step(&loop, 2);
    assert_int_equal(tn_vm_pause(m), 0);
}

/* The two state files of a machine that has not run in between. */
static void same_states(const char *a, const char *b)
{
    const struct tn_snap_known *known;
    struct tn_snap_section s, t;
    struct tn_snap x, y;
    uint8_t *bytes[2];
    size_t len[2], at[2] = {0, 0}, count;
    char path[256];

    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/state", i ? b : a);
        bytes[i] = slurp(path, &len[i]);
    }
    known = tn_vm_known(&count);
    assert_int_equal(tn_snap_open(&x, bytes[0], len[0], NULL, known, count), 0);
    assert_int_equal(tn_snap_open(&y, bytes[1], len[1], NULL, known, count), 0);
    while (tn_snap_next(&x, &at[0], &s)) {
        assert_int_equal(tn_snap_next(&y, &at[1], &t), 1);
        assert_true(s.type == t.type && s.instance == t.instance && s.len == t.len);
        for (size_t i = 0; i < s.len; i++) {
            if (s.bytes[i] != t.bytes[i])
                fail_msg("section %#x.%u differs at %zu", s.type, s.instance, i);
        }
    }
    free(bytes[0]);
    free(bytes[1]);
}

static void a_snapshot_goes_on(void **state)
{
    const char *first = name_of("first"), *second = name_of("second");
    struct tn_vm_snapshot_cfg to = {.dir = first};
    struct tn_vm_image_cfg from = {.dir = first};
    struct tn_vm_clone_cfg cfg = clone_of(true);

    (void)state;
    NEED_KVM();
    up(2);
    ask(&vm, "2nn", "0002 0106\n");
    at_rest(&vm);
    assert_int_equal(tn_vm_snapshot(&vm, &to), 0);
    assert_int_equal(tn_vm_image_open(&image, &kvm, &from), 0);
    /* This one goes on too: the snapshot took nothing from it. */
    assert_int_equal(tn_vm_resume(&vm), 0);
    ask(&vm, "n", "0003 0109\n");
    tn_vm_close(&vm);
    for (uint32_t memory = TN_VM_MEMORY_MAP; memory <= TN_VM_MEMORY_COPY; memory++) {
        cfg.memory = memory;
        assert_int_equal(tn_vm_restore(&other, &kvm, &loop, &image, &cfg), 0);
        if (memory == TN_VM_MEMORY_MAP) {
            to.dir = second;
            assert_int_equal(tn_vm_snapshot(&other, &to), 0);
            same_states(first, second);
        }
        assert_int_equal(tn_vm_start(&other), 0);
        ask(&other, "n", "0003 0109\n");
        ask(&other, "n", "0004 010c\n");
        con_type(&con, "q");
        assert_int_equal(finish(&other, &loop, &con), TN_VM_POWEROFF);
        tn_vm_close(&other);
    }
    remove_dir(first);
    remove_dir(second);
}

static void a_timer_is_saved_too(void **state)
{
    struct tn_vm_clone_cfg cfg;
    size_t seen;

    (void)state;
    NEED_KVM();
    up(2);
    ask(&vm, "s", "armed\n");
    assert_int_equal(tn_vm_pause(&vm), 0);
    assert_int_equal(tn_vm_image_take(&image, &vm, NULL), 0);
    assert_null(strstr(con.seen, "fired"));
    tn_vm_close(&vm);
    for (int stopped = 0; stopped < 2; stopped++) {
        cfg = clone_of(stopped);
        seen = con.len;
        assert_int_equal(tn_vm_restore(&other, &kvm, &loop, &image, &cfg), 0);
        assert_int_equal(tn_vm_start(&other), 0);
        hear(&other, &loop, &con, seen, "fired\n");
        tn_vm_close(&other);
    }
}

static void a_clone_is_put_back(void **state)
{
    struct tn_vm_clone_cfg cfg = clone_of(true);
    uint8_t id[6][16];
    size_t seen;

    (void)state;
    NEED_KVM();
    up(2);
    ask(&vm, "2nn", "0002 0106\n");
    at_rest(&vm);
    assert_int_equal(tn_vm_image_take(&image, &vm, NULL), 0);
    tn_vm_close(&vm);
    for (int round = 0; round < 6; round++) {
        if (round == 0)
            assert_int_equal(tn_vm_restore(&other, &kvm, &loop, &image, &cfg), 0);
        if (round == 4) {
            tn_vm_close(&other);
            assert_int_equal(tn_vm_fork(&other, &kvm, &loop, &image, &cfg), 0);
        }
        /* All but the one that goes on are told that they are others. */
        memcpy(id[round], other.ram.ptr + TN_VM_ARM64_GENID_GPA - 0x40000000, 16);
        for (int i = 0; i < round; i++)
            assert_memory_not_equal(id[i], id[round], 16);
        seen = con.len;
        assert_int_equal(tn_vm_start(&other), 0);
        if (round > 0)
            hear(&other, &loop, &con, seen, "new\n");
        ask(&other, "n", "0003 0109\n");
        ask(&other, "s", "armed\n");
        if (round == 1) { /* ended */
            con_type(&con, "q");
            assert_int_equal(finish(&other, &loop, &con), TN_VM_POWEROFF);
        } else {
            assert_int_equal(tn_vm_pause(&other), 0);
        }
        if (tn_vm_reset(&other) != 0)
            fail_msg("reset: part %u, register %#llx", other.refused.part,
                     (unsigned long long)other.refused.id);
    }
    assert_int_equal(tn_vm_start(&other), 0);
    ask(&other, "n", "0003 0109\n");
}

static void states_of_nobody(void **state)
{
    struct tn_vm_clone_cfg cfg = clone_of(true);
    struct tn_vm_arch_state *s = &image.state.arch;

    (void)state;
    NEED_KVM();
    up(2);
    ask(&vm, "2", "two\n");
    at_rest(&vm);
    assert_int_equal(tn_vm_image_take(&image, &vm, NULL), 0);
    tn_vm_close(&vm);
    for (unsigned i = 0; i < 7; i++) {
        struct tn_kvm_arm64_vcpu_state cpu = s->cpu[1];
        struct tn_kvm_arm64_gic_state chips = s->chips;
        struct tn_uart_state uart = s->uart;
        struct tn_rtc_state rtc = s->rtc;
        struct tn_gpio_state gpio = s->gpio;

        switch (i) {
        case 0:
            s->cpu[1].reg_count = UINT32_MAX;
            break;
        case 1:
            s->cpu[1].reg[0].id = 1;
            break;
        case 2:
            s->chips.spis = 32;
            break;
        case 3:
            s->uart.version = 99;
            break;
        case 4:
            s->rtc.version = 99;
            break;
        case 5:
            s->gpio.version = 99;
            break;
        default:
            s->cpu[1].features = 1u << 31;
            break;
        }
        assert_true(tn_vm_restore(&other, &kvm, &loop, &image, &cfg) < 0);
        assert_false(other.open);
        s->cpu[1] = cpu;
        s->chips = chips;
        s->uart = uart;
        s->rtc = rtc;
        s->gpio = gpio;
    }
    assert_int_equal(tn_vm_restore(&other, &kvm, &loop, &image, &cfg), 0);
    assert_int_equal(tn_vm_start(&other), 0);
    ask(&other, "n", "0001 0103\n");
}

/* Sections that are missing, and a host that has no such feature. */
static void parsing_a_state(void **state)
{
    static const uint32_t type[] = {0x190, 0x2a0, 0x340, 0x350, 0x400, 0x420, 0x430};
    struct tn_vm_arm64_state s, t;
    struct tn_kvm_arm64_lack lack;
    uint32_t sections = 0;
    struct tn_snap_section sec;
    struct tn_snap snap;
    struct tn_snap_writer *w = begin();
    int64_t n;

    (void)state;
    memset(&s, 0, sizeof(s));
    assert_int_equal(tn_vm_arm64_state_alloc_(&s, 2), 0);
    random_cpu(&s.cpu[0], 50);
    random_cpu(&s.cpu[1], 60);
    s.chips.spis = 64;
    s.uart.version = TN_UART_VERSION;
    s.rtc.version = TN_RTC_VERSION;
    s.gpio.version = TN_GPIO_VERSION;
    tn_vm_arm64_state_build(&s, w);
    n = tn_snap_finish(w, NULL, NULL);
    assert_in_range(n, 1, tn_vm_arm64_state_size(&s));
    assert_int_equal(opened(&snap, (size_t)n), 0);
    memset(&t, 0, sizeof(t));
    assert_int_equal(tn_vm_arm64_state_parse(&t, &snap, 2, &sections), 0);
    assert_int_equal(sections, 9);
    assert_int_equal(t.cpus, 2);
    assert_int_equal(t.chips.cpus, 2);
    assert_memory_equal(t.cpu, s.cpu, 2 * sizeof(*t.cpu));
    assert_false(tn_vm_arm64_state_known(&t));
    t.host.features = ~0u;
    assert_true(tn_vm_arm64_state_known(&t));
    t.host.counter_hz = t.time.counter_hz;
    assert_int_equal(tn_vm_arm64_state_check(&t, &lack), TN_EUNSUP);
    assert_int_equal(lack.kind, TN_KVM_ARM64_LACK_REGISTER);
    t.host.features = 1;
    assert_int_equal(tn_vm_arm64_state_check(&t, &lack), TN_EUNSUP);
    assert_int_equal(lack.kind, TN_KVM_ARM64_LACK_FEATURE);
    t.host.counter_hz ^= 1;
    assert_int_equal(tn_vm_arm64_state_check(&t, &lack), TN_EUNSUP);
    assert_int_equal(lack.kind, TN_KVM_ARM64_LACK_COUNTER);
    tn_vm_arm64_state_close(&t);
    assert_int_equal(tn_vm_arm64_state_parse(&t, &snap, 3, &sections), TN_ESTATE);
    tn_vm_arm64_state_close(&t);
    for (size_t i = 0; i < COUNT(type); i++) { /* all but one */
        static uint8_t copy[1 << 17];
        struct forge f;
        size_t at = 0, count;
        const struct tn_snap_known *known = tn_vm_known(&count);
        struct tn_snap part;

        forge_begin(&f, copy, sizeof(copy));
        while (tn_snap_next(&snap, &at, &sec)) {
            if (sec.type < 0xf0000000 && (sec.type != type[i] || sec.instance > 0))
                forge_section(&f, sec.type, sec.instance, sec.version, 1, sec.bytes, sec.len);
        }
        forge_manifest(&f, 0, 0);
        assert_int_equal(tn_snap_open(&part, copy, forge_end(&f, NULL), NULL, known, count), 0);
        sections = 0;
        assert_int_equal(tn_vm_arm64_state_parse(&t, &part, 2, &sections), TN_ESTATE);
        tn_vm_arm64_state_close(&t);
    }
    tn_vm_arm64_state_close(&s);
}

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    strcpy(dir, "/tmp/tenon-vm-XXXXXX");
    (void)mkdir("/tmp", 0777);
    if (!mkdtemp(dir))
        return -1;
    clone_elf = image_bytes;
    clone_len = (size_t)(image_after - image_bytes);
    if (tn_kvm_open(&kvm, NULL) < 0)
        missing = "/dev/kvm is missing or may not be opened";
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (!missing)
        tn_kvm_close(&kvm);
    remove_dir(dir);
    return 0;
}

#define M(name) cmocka_unit_test_setup_teardown(name, open_up, shut)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ram_has_limits),
        cmocka_unit_test(b03_unclaimed),
        cmocka_unit_test(b02_wide_accesses),
        cmocka_unit_test(the_console_is_a_16550),
        cmocka_unit_test(the_clock_is_a_pl031),
        cmocka_unit_test(the_button_is_let_go),
        cmocka_unit_test(no_keys),
        cmocka_unit_test(where_virtio_devices_go),
        cmocka_unit_test(load_errors_have_stages),
        cmocka_unit_test(the_tree_says_what_there_is),
        cmocka_unit_test(no_two_machines_have_the_same_seeds),
        cmocka_unit_test(records_come_back),
        cmocka_unit_test(records_of_nobody),
        cmocka_unit_test(parsing_a_state),
        M(machines_that_cannot_be),
        M(a_machine_says_and_ends),
        M(a_machine_pauses),
        M(a_snapshot_goes_on),
        M(a_timer_is_saved_too),
        M(a_clone_is_put_back),
        M(states_of_nobody),
    };

    return cmocka_run_group_tests_name("vm_arm64", tests, setup, teardown);
}
