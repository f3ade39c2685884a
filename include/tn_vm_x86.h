/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vm_x86 - the x86-64 board: which devices, at which ports, with which interrupts, and the
 * tables that tell the guest so.
 *
 * WHAT
 *   The half of tn_vm that knows the architecture: the RAM's layout, the ACPI and MP tables, the
 *   kernel in memory, the interrupt chips, a vCPU's first state, and the devices behind ports and
 *   MMIO. A device is added by one row of tn_vm_x86_ports_.
 *
 *   port         irq  device
 *   0x3f8-0x3ff  4    16550A, the console
 *   0x060, 0x064 1    keyboard controller: reset, ctrl-alt-del
 *   0x505             panic notification (PNP id QEMU0001)
 *   0x600-0x602       ACPI reset, sleep control and sleep status registers
 *                9    the generation id, in RAM at 0xef000, has changed
 *                10   the power button was pressed
 *
 *   address      gsi  device
 *   0xd0000000        virtio-mmio, a page for each device that tn_vm_devices makes;
 *                16.. eight interrupts, edges, which more than eight devices share
 *
 * USAGE
 *   static struct tn_vm_x86 board;
 *   struct tn_loader_range ram[TN_VM_X86_RAM];
 *
 *   if (tn_vm_x86_ram(1ull << 30, ram) < 0)
 *       return 1;
 *   (void)board;
 *
 * COMPOSITION
 *   tn_vm drives it; see there for a whole machine.
 *
 * GUEST TRUST
 *   Every access that the guest makes comes through tn_vm_x86_access, and is decoded by tn_bus.
 *
 * MEMORY
 *   The caller owns the struct; init to close opens what tn_vm_console does, nothing else.
 *
 * THREADS
 *   tn_vm_x86_access runs on any thread. device_lock guards the devices behind ports, and it takes
 *   it; those behind MMIO have locks of their own.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   ACPI 6.4 4.8.3.7 (sleep registers), 4.8.4.6 (reset register). The IBM PC's port numbers.
 *
 * LIMITS
 *   254 CPUs: an APIC id has eight bits here, 255 is all CPUs, and one is the I/O APIC's. Interrupt
 *   chips and PIT are the kernel's.
 */
#ifndef TN_VM_X86_H
#define TN_VM_X86_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* for layer 3; of use only before the first system header */
#endif

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

#ifdef __x86_64__

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/random.h>

#include "tn_acpi.h"
#include "tn_boot_x86.h"
#include "tn_bus.h"
#include "tn_cmdline.h"
#include "tn_i8042.h"
#include "tn_kvm.h"
#include "tn_kvm_x86.h"
#include "tn_kvm_x86_state.h"
#include "tn_mptable.h"
#include "tn_vm_board.h"
#include "tn_vm_devices.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_VM_X86_RAM        2u /* ranges of RAM at most: below and above the hole */
#define TN_VM_X86_MAX_CPUS   254u
#define TN_VM_X86_MAX_VIRTIO 32u

struct tn_vm_x86 {
    struct tn_kvm_vm *vm; /* for interrupt lines */
    struct tn_bus pio;
    struct tn_bus mmio;
    struct tn_bus_range pio_range[16];
    struct tn_bus_range mmio_range[TN_VM_X86_MAX_VIRTIO];
    pthread_mutex_t device_lock; /* guards what is below, down to asked */
    struct tn_uart uart;
    struct tn_i8042 i8042;
    struct tn_vm_console console;
    uint32_t asked; /* enum tn_vm_reason: what a device's register was told */
    uint32_t cpus;
    struct tn_boot_x86_cpu boot;  /* the first vCPU's state */
    struct tn_boot_x86_info info; /* where things were loaded, or why not */
};

/*
 * RAM of size bytes as ranges around the hole below 4 GiB. Returns how many; TN_EINVAL for a size
 * that tn_boot_x86_ram refuses.
 */
TN_API int tn_vm_x86_ram(uint64_t size, struct tn_loader_range ram[TN_VM_X86_RAM]);

/*
 * Puts kernel, initrd, command line, ACPI and MP tables into mem, and keeps the first vCPU's state.
 * Returns 0, or the error of tn_boot_x86_load (board->info has the detail), tn_acpi or tn_mptable.
 */
TN_API int tn_vm_x86_load(struct tn_vm_x86 *board, const struct tn_mem *mem,
                          const struct tn_vm_cfg *cfg);

/*
 * Gives the machine a new generation id, in its RAM, and tells the guest, which mixes it into its
 * entropy. After the interrupt chips were made or restored. Returns 0; TN_ESYS: the host has no
 * random bytes; TN_EADDR: there is no such RAM.
 */
TN_API int tn_vm_x86_new_id(struct tn_vm_x86 *board, const struct tn_mem *mem);

/*
 * Makes the interrupt chips and the PIT; the memory slots are set before it.
 */
TN_API int tn_vm_x86_irqchip(struct tn_vm_x86 *board, struct tn_kvm_vm *vm);

/*
 * Makes the devices, and the console on loop if cfg wants one. Returns 0 or the console's error.
 */
TN_API int tn_vm_x86_devices(struct tn_vm_x86 *board, const struct tn_vm_cfg *cfg,
                             struct tn_loop *loop);

/*
 * Where tn_vm_devices_init is to put the virtio devices; after tn_vm_x86_devices.
 */
TN_API void tn_vm_x86_place(struct tn_vm_x86 *board, struct tn_vm_place *out);

/*
 * Gives a new vCPU its CPUID, its MSRs and local APIC, and to the first one its registers.
 */
TN_API int tn_vm_x86_vcpu(struct tn_vm_x86 *board, const struct tn_kvm *kvm,
                          struct tn_kvm_vcpu *vcpu);

/*
 * Serves a port or MMIO exit. hint is the vCPU's own, one for ports and one for MMIO. Returns
 * enum tn_vm_reason: TN_VM_NONE, or how the access ended the machine.
 */
TN_API uint32_t tn_vm_x86_access(struct tn_vm_x86 *board, const struct tn_kvm_exit *e,
                                 uint32_t hint[2]);

/*
 * Presses the power button, of which the guest hears where it has ACPI. After the interrupt chips
 * were made. Returns 0, or tn_kvm_irq_line's error.
 */
TN_API int tn_vm_x86_shutdown(struct tn_vm_x86 *board);

/*
 * Types ctrl-alt-del. Returns 0, or tn_i8042_ctrl_alt_del's error.
 */
TN_API int tn_vm_x86_ctrl_alt_del(struct tn_vm_x86 *board);

/*
 * Closes what tn_vm_x86_devices opened.
 */
TN_API void tn_vm_x86_close(struct tn_vm_x86 *board);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#define TN_VM_X86_UART_PORT  0x3f8u
#define TN_VM_X86_UART_IRQ   4u
#define TN_VM_X86_KBD_PORT   0x60u
#define TN_VM_X86_KBD_IRQ    1u
#define TN_VM_X86_PANIC_PORT 0x505u
#define TN_VM_X86_PM_PORT    0x600u        /* +0 reset, +1 sleep control, +2 sleep status */
#define TN_VM_X86_VIRTIO     0xd0000000ull /* the first window, in the hole below 4 GiB */
#define TN_VM_X86_VIRTIO_GSI 16u
#define TN_VM_X86_GSIS       24u      /* pins of the I/O APIC */
#define TN_VM_X86_CMDLINE    8192u    /* bytes of a command line that devices are added to */
#define TN_VM_X86_BIOS       0xffff0u /* where a CPU in real mode begins after a reset */
#define TN_VM_X86_RESET      0x01u    /* the value that resets, written to the reset register */
#define TN_VM_X86_GED_GSI    9u       /* its edge tells the guest that its generation id changed */
#define TN_VM_X86_BUTTON_GSI 10u      /* its edge, that its power button was pressed */
/* The generation id: alone in the last page of what is reserved for ACPI tables. */
#define TN_VM_X86_GENID_GPA (TN_BOOT_X86_ACPI + TN_BOOT_X86_ACPI_SIZE - 0x1000)

TN_API int tn_vm_x86_ram(uint64_t size, struct tn_loader_range ram[TN_VM_X86_RAM])
{
    return tn_boot_x86_ram(size, ram);
}

/* ---- devices: one ops table each, one row each ---- */

static inline uint64_t tn_vm_x86_uart_read_(void *ctx, uint64_t off, unsigned width)
{
    struct tn_vm_x86 *board = (struct tn_vm_x86 *)ctx;

    return width == 1 ? tn_uart_read(&board->uart, (unsigned)off) : ~0ull;
}

static inline void tn_vm_x86_uart_write_(void *ctx, uint64_t off, unsigned width, uint64_t value)
{
    struct tn_vm_x86 *board = (struct tn_vm_x86 *)ctx;

    if (width == 1)
        tn_uart_write(&board->uart, (unsigned)off, (uint8_t)value);
}

static inline uint64_t tn_vm_x86_kbd_read_(void *ctx, uint64_t off, unsigned width)
{
    struct tn_vm_x86 *board = (struct tn_vm_x86 *)ctx;

    return width == 1 ? tn_i8042_read(&board->i8042, (unsigned)off) : ~0ull;
}

static inline uint64_t tn_vm_x86_kbd_status_(void *ctx, uint64_t off, unsigned width)
{
    return tn_vm_x86_kbd_read_(ctx, off + 4, width);
}

static inline void tn_vm_x86_kbd_write_(void *ctx, uint64_t off, unsigned width, uint64_t value)
{
    struct tn_vm_x86 *board = (struct tn_vm_x86 *)ctx;

    if (width == 1)
        tn_i8042_write(&board->i8042, (unsigned)off, (uint8_t)value);
}

static inline void tn_vm_x86_kbd_command_(void *ctx, uint64_t off, unsigned width, uint64_t value)
{
    tn_vm_x86_kbd_write_(ctx, off + 4, width, value);
}

/* The panic port: reading tells which events are understood, writing reports one. */
static inline uint64_t tn_vm_x86_panic_read_(void *ctx, uint64_t off, unsigned width)
{
    (void)ctx;
    (void)off;
    (void)width;
    return 1;
}

static inline void tn_vm_x86_panic_write_(void *ctx, uint64_t off, unsigned width, uint64_t value)
{
    struct tn_vm_x86 *board = (struct tn_vm_x86 *)ctx;

    (void)off;
    (void)width;
    if (value & 1)
        board->asked = TN_VM_PANIC;
}

static inline uint64_t tn_vm_x86_pm_read_(void *ctx, uint64_t off, unsigned width)
{
    (void)ctx;
    (void)off;
    (void)width;
    return 0; /* no sleep state was left: WAK_STS is clear */
}

static inline void tn_vm_x86_pm_write_(void *ctx, uint64_t off, unsigned width, uint64_t value)
{
    struct tn_vm_x86 *board = (struct tn_vm_x86 *)ctx;

    if (width != 1)
        return;
    if (off == 0 && value == TN_VM_X86_RESET)
        board->asked = TN_VM_RESET;
    else if (off == 1 && tn_acpi_is_s5((uint8_t)value))
        board->asked = TN_VM_POWEROFF;
}

static const struct tn_bus_ops tn_vm_x86_uart_ops_ = {tn_vm_x86_uart_read_, tn_vm_x86_uart_write_};
static const struct tn_bus_ops tn_vm_x86_kbd_ops_ = {tn_vm_x86_kbd_read_, tn_vm_x86_kbd_write_};
static const struct tn_bus_ops tn_vm_x86_kbd_cmd_ops_ = {tn_vm_x86_kbd_status_,
                                                         tn_vm_x86_kbd_command_};
static const struct tn_bus_ops tn_vm_x86_panic_ops_ = {tn_vm_x86_panic_read_,
                                                       tn_vm_x86_panic_write_};
static const struct tn_bus_ops tn_vm_x86_pm_ops_ = {tn_vm_x86_pm_read_, tn_vm_x86_pm_write_};

static const struct {
    uint16_t port;
    uint16_t size;
    const struct tn_bus_ops *ops;
} tn_vm_x86_ports_[] = {
    {TN_VM_X86_UART_PORT, 8, &tn_vm_x86_uart_ops_},
    {TN_VM_X86_KBD_PORT, 1, &tn_vm_x86_kbd_ops_},
    {TN_VM_X86_KBD_PORT + 4, 1, &tn_vm_x86_kbd_cmd_ops_},
    {TN_VM_X86_PANIC_PORT, 1, &tn_vm_x86_panic_ops_},
    {TN_VM_X86_PM_PORT, 3, &tn_vm_x86_pm_ops_},
};

/* What the devices' models call; device_lock is held. */

static inline size_t tn_vm_x86_uart_tx_(void *ctx, const uint8_t *bytes, size_t len)
{
    return tn_vm_console_tx(&((struct tn_vm_x86 *)ctx)->console, bytes, len);
}

static inline void tn_vm_x86_uart_irq_(void *ctx, bool level)
{
    (void)tn_kvm_irq_line(((struct tn_vm_x86 *)ctx)->vm, TN_VM_X86_UART_IRQ, level);
}

static inline void tn_vm_x86_uart_room_(void *ctx)
{
    tn_vm_console_room(&((struct tn_vm_x86 *)ctx)->console);
}

static inline void tn_vm_x86_kbd_irq_(void *ctx, bool level)
{
    (void)tn_kvm_irq_line(((struct tn_vm_x86 *)ctx)->vm, TN_VM_X86_KBD_IRQ, level);
}

static inline void tn_vm_x86_kbd_reset_(void *ctx)
{
    ((struct tn_vm_x86 *)ctx)->asked = TN_VM_RESET;
}

TN_API int tn_vm_x86_devices(struct tn_vm_x86 *board, const struct tn_vm_cfg *cfg,
                             struct tn_loop *loop)
{
    const struct tn_uart_cfg uart = {board, tn_vm_x86_uart_tx_, tn_vm_x86_uart_irq_,
                                     tn_vm_x86_uart_room_, false};
    const struct tn_i8042_cfg i8042 = {board, tn_vm_x86_kbd_reset_, tn_vm_x86_kbd_irq_};
    int r;

    board->console.in = board->console.out = -1;
    r = tn_uart_init(&board->uart, &uart);
    if (r >= 0)
        r = tn_i8042_init(&board->i8042, &i8042);
    tn_bus_init(&board->pio, board->pio_range,
                sizeof(board->pio_range) / sizeof(struct tn_bus_range));
    tn_bus_init(&board->mmio, board->mmio_range,
                sizeof(board->mmio_range) / sizeof(struct tn_bus_range));
    for (size_t i = 0; r >= 0 && i < sizeof(tn_vm_x86_ports_) / sizeof(tn_vm_x86_ports_[0]); i++)
        r = tn_bus_add(&board->pio, tn_vm_x86_ports_[i].port, tn_vm_x86_ports_[i].size,
                       tn_vm_x86_ports_[i].ops, board);
    if (r >= 0 && cfg->console)
        r = tn_vm_console_init(&board->console, &tn_vm_uart_port, &board->uart, &board->device_lock,
                               loop, cfg->console_in, cfg->console_out);
    return r < 0 ? r : TN_OK;
}

/* ---- tables and the kernel ---- */

static inline uint64_t tn_vm_x86_window_(uint32_t i)
{
    return TN_VM_X86_VIRTIO + (uint64_t)i * TN_VM_PLACE_STRIDE;
}

static inline uint32_t tn_vm_x86_gsi_(uint32_t i)
{
    return TN_VM_X86_VIRTIO_GSI + i % (TN_VM_X86_GSIS - TN_VM_X86_VIRTIO_GSI);
}

TN_API void tn_vm_x86_place(struct tn_vm_x86 *board, struct tn_vm_place *out)
{
    out->vm = board->vm;
    out->mmio = &board->mmio;
    out->ram = NULL;
    out->lazy = false;
    out->gpa = TN_VM_X86_VIRTIO;
    out->gsi = TN_VM_X86_VIRTIO_GSI;
    out->gsis = TN_VM_X86_GSIS - TN_VM_X86_VIRTIO_GSI;
}

/* What a guest can't find by itself: ISA devices, one row each. */
static const struct {
    const char *name;
    const char *hid;
    uint16_t port[2]; /* 0: no second one */
    uint8_t count;    /* ports from each on */
    uint8_t irq;      /* 0: none */
} tn_vm_x86_isa_[] = {
    {"COM1", "PNP0501", {TN_VM_X86_UART_PORT, 0}, 8, TN_VM_X86_UART_IRQ},
    {"KBD_", "PNP0303", {TN_VM_X86_KBD_PORT, TN_VM_X86_KBD_PORT + 4}, 1, TN_VM_X86_KBD_IRQ},
    {"PNIC", "QEMU0001", {TN_VM_X86_PANIC_PORT, 0}, 1, 0},
};

static inline int64_t tn_vm_x86_dsdt_(uint8_t *buf, size_t cap, uint32_t virtio)
{
    static const struct tn_acpi_event event[] = {
        {TN_VM_X86_GED_GSI, "\\_SB.VGEN", TN_ACPI_CHANGED},
        {TN_VM_X86_BUTTON_GSI, "\\_SB.PWRB", TN_ACPI_PRESSED},
    };
    struct tn_aml a;

    tn_aml_init(&a, buf, cap);
    tn_aml_scope_begin(&a, "\\_SB");
    for (size_t i = 0; i < sizeof(tn_vm_x86_isa_) / sizeof(tn_vm_x86_isa_[0]); i++) {
        tn_aml_device_begin(&a, tn_vm_x86_isa_[i].name);
        tn_aml_hid(&a, tn_vm_x86_isa_[i].hid);
        tn_aml_uid(&a, 1);
        tn_aml_name(&a, "_STA");
        tn_aml_integer(&a, 0x0f); /* present, enabled, shown, working */
        tn_aml_name(&a, "_CRS");
        tn_aml_resources_begin(&a);
        for (size_t p = 0; p < 2; p++) {
            if (tn_vm_x86_isa_[i].port[p])
                tn_aml_io(&a, tn_vm_x86_isa_[i].port[p], tn_vm_x86_isa_[i].count);
        }
        if (tn_vm_x86_isa_[i].irq)
            tn_aml_irq(&a, tn_vm_x86_isa_[i].irq);
        tn_aml_end(&a);
        tn_aml_end(&a);
    }
    for (uint32_t i = 0; i < virtio; i++)
        tn_acpi_aml_virtio_mmio(&a, tn_vm_x86_window_(i), TN_VIRTIO_MMIO_SIZE, tn_vm_x86_gsi_(i),
                                TN_AML_EDGE | TN_AML_SHARED, i);
    tn_acpi_aml_vmgenid(&a, TN_VM_X86_GENID_GPA);
    tn_acpi_aml_power_button(&a);
    tn_acpi_aml_ged(&a, event, sizeof(event) / sizeof(event[0]));
    tn_aml_end(&a);
    return tn_aml_finish(&a);
}

/* Writes the tables that tell the guest of its CPUs and devices. */
static inline int tn_vm_x86_tables_(const struct tn_mem *mem, uint32_t cpus, uint32_t virtio)
{
    uint8_t *acpi_at = tn_mem_ptr(mem, TN_BOOT_X86_ACPI, TN_BOOT_X86_ACPI_SIZE);
    uint8_t *mp_at = tn_mem_ptr(mem, TN_BOOT_X86_MPTABLE, TN_BOOT_X86_MPTABLE_SIZE);
    /* mov $0xfe, %al; out %al, $0x64; 1: hlt; jmp 1b. Linux without EFI on hardware-reduced ACPI
     * restarts by a jump to the BIOS: ours asks the keyboard controller for a reset. */
    static const uint8_t bios[] = {0xb0, 0xfe, 0xe6, TN_VM_X86_KBD_PORT + 4, 0xf4, 0xeb, 0xfd};
    struct tn_mptable_cfg mp;
    struct tn_acpi_cfg acpi;
    uint8_t dsdt[4096];
    int64_t len = tn_vm_x86_dsdt_(dsdt, sizeof(dsdt), virtio);
    int r;

    if (len < 0)
        return TN_EBUG;
    if (!acpi_at || !mp_at)
        return TN_EINVAL;
    __builtin_memset(&mp, 0, sizeof(mp));
    mp.gpa = TN_BOOT_X86_MPTABLE;
    mp.cpus = cpus;
    mp.irqs = TN_VM_X86_GSIS;
    r = tn_mptable_build(&mp, mp_at, TN_BOOT_X86_MPTABLE_SIZE);
    if (r >= 0)
        r = tn_mem_write(mem, TN_VM_X86_BIOS, bios, sizeof(bios));
    if (r < 0)
        return r;
    __builtin_memset(&acpi, 0, sizeof(acpi));
    acpi.gpa = TN_BOOT_X86_ACPI;
    acpi.cpus = cpus;
    acpi.reset.space = acpi.sleep_control.space = acpi.sleep_status.space = TN_ACPI_IO;
    acpi.reset.address = TN_VM_X86_PM_PORT;
    acpi.reset_value = TN_VM_X86_RESET;
    acpi.sleep_control.address = TN_VM_X86_PM_PORT + 1;
    acpi.sleep_status.address = TN_VM_X86_PM_PORT + 2;
    acpi.i8042 = true;
    acpi.dsdt = dsdt;
    acpi.dsdt_len = (size_t)len;
    return tn_acpi_build(&acpi, acpi_at, TN_VM_X86_GENID_GPA - TN_BOOT_X86_ACPI, NULL);
}

/*
 * The caller's words, and the devices for kernels that look for them there rather than in the ACPI
 * tables: virtio_mmio.device=SIZE@ADDRESS:IRQ.
 */
static inline int tn_vm_x86_cmdline_(char buf[TN_VM_X86_CMDLINE], const char *words,
                                     uint32_t virtio)
{
    struct tn_cmdline line;
    int r;

    tn_cmdline_init(&line, buf, TN_VM_X86_CMDLINE);
    r = tn_cmdline_add_text(&line, words ? words : "");
    for (uint32_t i = 0; r >= 0 && i < virtio; i++) {
        char value[48];

        snprintf(value, sizeof(value), "%u@0x%" PRIx64 ":%" PRIu32, TN_VIRTIO_MMIO_SIZE,
                 tn_vm_x86_window_(i), tn_vm_x86_gsi_(i));
        r = tn_cmdline_add(&line, "virtio_mmio.device", value);
    }
    return r;
}

/* 16 random bytes, where the guest was told that they are. */
static inline int tn_vm_x86_id_(const struct tn_mem *mem)
{
    uint8_t id[TN_ACPI_VMGENID_SIZE];

    if (getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id))
        return TN_ESYS;
    return tn_mem_write(mem, TN_VM_X86_GENID_GPA, id, sizeof(id));
}

static inline int tn_vm_x86_edge_(struct tn_vm_x86 *board, uint32_t gsi)
{
    int r = tn_kvm_irq_line(board->vm, gsi, true);

    return r < 0 ? r : tn_kvm_irq_line(board->vm, gsi, false);
}

TN_API int tn_vm_x86_new_id(struct tn_vm_x86 *board, const struct tn_mem *mem)
{
    int r = tn_vm_x86_id_(mem);

    return r < 0 ? r : tn_vm_x86_edge_(board, TN_VM_X86_GED_GSI);
}

TN_API int tn_vm_x86_load(struct tn_vm_x86 *board, const struct tn_mem *mem,
                          const struct tn_vm_cfg *cfg)
{
    uint32_t virtio = tn_vm_devices_count(cfg);
    struct tn_boot_x86_cfg boot;
    char cmdline[TN_VM_X86_CMDLINE];
    int r;

    __builtin_memset(&boot, 0, sizeof(boot));
    boot.kernel = cfg->kernel;
    boot.kernel_len = cfg->kernel_len;
    boot.initrd = cfg->initrd;
    boot.initrd_len = cfg->initrd_len;
    boot.cmdline = cfg->cmdline;
    boot.ram_size = cfg->memory;
    boot.proto = cfg->boot;
    boot.fdt = cfg->fdt;
    boot.fdt_len = cfg->fdt_len;
    board->cpus = cfg->cpus ? cfg->cpus : 1;
    boot.rsdp = TN_BOOT_X86_ACPI;
    if (virtio > TN_VM_X86_MAX_VIRTIO)
        return TN_EINVAL;
    r = tn_vm_x86_tables_(mem, board->cpus, virtio);
    if (r >= 0)
        r = tn_vm_x86_id_(mem);
    if (r >= 0 && virtio > 0) {
        boot.cmdline = cmdline;
        r = tn_vm_x86_cmdline_(cmdline, cfg->cmdline, virtio);
        if (r < 0)
            board->info.stage = TN_BOOT_X86_AT_CMDLINE;
    }
    return r < 0 ? r : tn_boot_x86_load(mem, &boot, &board->boot, &board->info);
}

/* ---- KVM ---- */

TN_API int tn_vm_x86_irqchip(struct tn_vm_x86 *board, struct tn_kvm_vm *vm)
{
    board->vm = vm;
    return tn_kvm_x86_irqchip_full(vm);
}

TN_API int tn_vm_x86_vcpu(struct tn_vm_x86 *board, const struct tn_kvm *kvm,
                          struct tn_kvm_vcpu *vcpu)
{
    struct tn_kvm_cpuid cpuid;
    int r = tn_kvm_x86_cpuid(kvm, &cpuid, vcpu->id, board->cpus);

    if (r >= 0)
        r = tn_kvm_x86_set_cpuid(vcpu, &cpuid);
    if (r >= 0)
        r = tn_kvm_x86_set_mce_banks(vcpu, 1);
    if (r >= 0)
        r = tn_kvm_x86_set_boot_msrs(vcpu, NULL);
    if (r >= 0 && vcpu->id == 0)
        r = tn_kvm_x86_set_lint(vcpu);
    if (r >= 0 && vcpu->id == 0)
        r = tn_kvm_x86_set_boot(vcpu, &board->boot);
    return r;
}

TN_API uint32_t tn_vm_x86_access(struct tn_vm_x86 *board, const struct tn_kvm_exit *e,
                                 uint32_t hint[2])
{
    uint32_t asked = TN_VM_NONE;

    if (e->kind == TN_KVM_EXIT_IO) {
        uint8_t *data = e->io.data;

        pthread_mutex_lock(&board->device_lock);

        for (uint32_t i = 0; i < e->io.count; i++, data += e->io.size) {
            if (e->io.write)
                (void)tn_bus_write(&board->pio, e->io.port, e->io.size, tn_get_(data, e->io.size),
                                   &hint[0]);
            else
                tn_put_(data, e->io.size,
                        tn_bus_read(&board->pio, e->io.port, e->io.size, &hint[0]));
        }
        asked = board->asked;
        pthread_mutex_unlock(&board->device_lock);
    } else if (e->mmio.write) {
        (void)tn_bus_write(&board->mmio, e->mmio.gpa, e->mmio.len,
                           tn_get_(e->mmio.data, e->mmio.len), &hint[1]);
    } else {
        tn_put_(e->mmio.data, e->mmio.len,
                tn_bus_read(&board->mmio, e->mmio.gpa, e->mmio.len, &hint[1]));
    }
    return asked;
}

TN_API int tn_vm_x86_shutdown(struct tn_vm_x86 *board)
{
    return tn_vm_x86_edge_(board, TN_VM_X86_BUTTON_GSI);
}

TN_API int tn_vm_x86_ctrl_alt_del(struct tn_vm_x86 *board)
{
    int r;

    pthread_mutex_lock(&board->device_lock);
    r = tn_i8042_ctrl_alt_del(&board->i8042);
    pthread_mutex_unlock(&board->device_lock);
    return r;
}

TN_API void tn_vm_x86_close(struct tn_vm_x86 *board)
{
    tn_vm_console_close(&board->console);
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* __x86_64__ */
#endif /* TN_VM_X86_H */
