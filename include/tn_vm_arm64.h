/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vm_arm64 - the arm64 board: which devices, at which addresses, with which interrupts, and the
 * device tree that tells the guest so.
 *
 * WHAT
 *   The half of tn_vm that knows the architecture: the RAM's layout, the device tree, the kernel in
 *   memory, the interrupt controller, a vCPU's first state, and the devices behind MMIO. On other
 *   architectures this header declares nothing.
 *
 *   address      SPI  device
 *   0x08000000        GIC: the distributor; a GICv2's CPU interface at 0x08020000, a GICv3's
 *                     redistributors from 0x08100000 on, 128 KiB for each CPU
 *   0x10000000   0    16550A, the console
 *   0x10001000   1    PL031 real-time clock
 *   0x10002000   2    PL061 GPIO controller; on its line 3 the power button
 *   0x10010000        virtio-mmio, a page for each device that tn_vm_devices makes;
 *                16.. an interrupt for each, edges
 *   0x40000000        RAM: the device tree in the first 2 MiB, then the kernel
 *   0x401f0000   3    in RAM, and reserved: the generation id; an edge when it is a new one
 *
 * USAGE
 *   static struct tn_vm_arm64 board;
 *   struct tn_loader_range ram[TN_VM_ARM64_RAM];
 *
 *   if (tn_vm_arm64_ram(1ull << 30, ram) < 0)
 *       return 1;
 *   (void)board;
 *
 * COMPOSITION
 *   tn_vm drives it, by the names of tn_vm_arch; see there for a whole machine. Uses libfdt,
 *   through tn_fdt.
 *
 * GUEST TRUST
 *   Every access that the guest makes comes through tn_vm_arm64_access, and is decoded by tn_bus.
 *
 * MEMORY
 *   The caller owns the struct; init to close opens what tn_vm_console does, two timers, and the
 *   interrupt controller. The device tree takes 64 KiB of heap while it is built.
 *
 * THREADS
 *   tn_vm_arm64_access runs on any thread. device_lock guards console, clock and button, and it
 *   takes it; virtio devices have locks of their own.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Linux, Documentation/arch/arm64/booting.rst; Arm's DEN0022 (PSCI), by which a guest starts
 *   CPUs, powers off and resets.
 *
 * LIMITS
 *   No keyboard, so no ctrl-alt-del. With a GICv2, eight CPUs and no snapshots.
 */
#ifndef TN_VM_ARM64_H
#define TN_VM_ARM64_H

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

#ifdef __aarch64__

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "tn_boot_arm64.h"
#include "tn_bus.h"
#include "tn_fdt.h"
#include "tn_gpio.h"
#include "tn_kvm.h"
#include "tn_kvm_arm64.h"
#include "tn_kvm_arm64_state.h"
#include "tn_loop.h"
#include "tn_rtc.h"
#include "tn_vm_board.h"
#include "tn_vm_devices.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_VM_ARM64_RAM         1u /* ranges of RAM */
#define TN_VM_ARM64_MAX_CPUS    TN_KVM_ARM64_MAX_CPUS
#define TN_VM_ARM64_MAX_VIRTIO  32u
#define TN_VM_ARM64_MAX_CMDLINE 2047u /* bytes without the NUL: Linux looks at no more */

/* The generation id has a page of its own, of the largest that a kernel may have: it can then keep
 * its hands off it. */
#define TN_VM_ARM64_GENID_SIZE 0x10000u
#define TN_VM_ARM64_GENID_GPA  (TN_BOOT_ARM64_FDT + TN_BOOT_ARM64_FDT_SIZE - TN_VM_ARM64_GENID_SIZE)

struct tn_vm_arm64 {
    struct tn_kvm_vm *vm; /* for interrupt lines */
    struct tn_bus mmio;
    struct tn_bus_range mmio_range[TN_VM_ARM64_MAX_VIRTIO + 3];
    pthread_mutex_t device_lock; /* guards what is below, down to asked */
    struct tn_uart uart;
    struct tn_rtc rtc;
    struct tn_gpio gpio;
    uint32_t held; /* ticks after which the button is let go; 0: it is not pressed */
    struct tn_vm_console console;
    uint32_t asked; /* enum tn_vm_reason: never set, PSCI ends machines here */
    uint32_t cpus;
    struct tn_kvm_arm64_gic gic;
    struct tn_loop_timer alarm;     /* the clock's */
    struct tn_loop_timer button;    /* ticks while it is pressed */
    struct tn_boot_arm64_cpu boot;  /* the first vCPU's state */
    struct tn_boot_arm64_info info; /* where things were loaded, or why not */
};

/* A stage of info's, besides those of tn_boot_arm64: the command line is too long. */
#define TN_VM_ARM64_AT_CMDLINE 0x100u

/*
 * RAM of size bytes as ranges. Returns how many; TN_EINVAL for a size that tn_boot_arm64_ram
 * refuses.
 */
TN_API int tn_vm_arm64_ram(uint64_t size, struct tn_loader_range ram[TN_VM_ARM64_RAM]);

/*
 * Makes the interrupt controller for board->cpus; the memory slots are set before it.
 */
TN_API int tn_vm_arm64_irqchip(struct tn_vm_arm64 *board, struct tn_kvm_vm *vm);

/*
 * Puts kernel, initrd and device tree into mem, and keeps the first vCPU's state; after the
 * interrupt controller was made, since the tree says which it is. Returns 0, or the error of
 * tn_boot_arm64_load (board->info has the detail) or tn_fdt_build; TN_ESYS: the host has no random
 * bytes, or no memory.
 */
TN_API int tn_vm_arm64_load(struct tn_vm_arm64 *board, const struct tn_mem *mem,
                            const struct tn_vm_cfg *cfg);

/*
 * Makes the generation id another one, and tells the guest: from now on it is another machine.
 * Returns 0 or TN_ESYS. After the interrupt controller; no vCPU runs.
 */
TN_API int tn_vm_arm64_new_id(struct tn_vm_arm64 *board, const struct tn_mem *mem);

/*
 * Makes the devices, and the console on loop if cfg wants one. Returns 0 or the loop's error.
 */
TN_API int tn_vm_arm64_devices(struct tn_vm_arm64 *board, const struct tn_vm_cfg *cfg,
                               struct tn_loop *loop);

/*
 * Where tn_vm_devices_init is to put the virtio devices; after tn_vm_arm64_devices.
 */
TN_API void tn_vm_arm64_place(struct tn_vm_arm64 *board, struct tn_vm_place *out);

/*
 * Gives a new vCPU its features, and to the first one its registers; when it is the last one, which
 * comes last, completes the interrupt controller.
 */
TN_API int tn_vm_arm64_vcpu(struct tn_vm_arm64 *board, const struct tn_kvm *kvm,
                            struct tn_kvm_vcpu *vcpu);

/*
 * Serves an MMIO exit. hint is the vCPU's own. Returns TN_VM_NONE.
 */
TN_API uint32_t tn_vm_arm64_access(struct tn_vm_arm64 *board, const struct tn_kvm_exit *e,
                                   uint32_t hint[2]);

/*
 * Presses the power button, and lets it go when the guest has had the time to see it. A guest hears
 * of it that has a driver for it, as Linux's gpio_keys. Returns 0 or TN_ESYS.
 */
TN_API int tn_vm_arm64_shutdown(struct tn_vm_arm64 *board);

/*
 * Ctrl-alt-del: TN_EUNSUP, there is no keyboard.
 */
TN_API int tn_vm_arm64_ctrl_alt_del(struct tn_vm_arm64 *board);

/*
 * Closes what tn_vm_arm64_devices and tn_vm_arm64_irqchip opened.
 */
TN_API void tn_vm_arm64_close(struct tn_vm_arm64 *board);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#define TN_VM_ARM64_GICD       0x08000000ull
#define TN_VM_ARM64_GICC       0x08020000ull
#define TN_VM_ARM64_GICR       0x08100000ull
#define TN_VM_ARM64_UART       0x10000000ull
#define TN_VM_ARM64_UART_SIZE  8u
#define TN_VM_ARM64_UART_SPI   0u
#define TN_VM_ARM64_RTC        0x10001000ull
#define TN_VM_ARM64_RTC_SPI    1u
#define TN_VM_ARM64_GPIO       0x10002000ull
#define TN_VM_ARM64_GPIO_SPI   2u
#define TN_VM_ARM64_GENID_SPI  3u
#define TN_VM_ARM64_VIRTIO     0x10010000ull
#define TN_VM_ARM64_VIRTIO_SPI 16u
#define TN_VM_ARM64_SPIS       64u
#define TN_VM_ARM64_SEED       64u         /* bytes of randomness for a guest */
#define TN_VM_ARM64_ID         16u         /* bytes of a generation id */
#define TN_VM_ARM64_TICK       50000000ull /* ns, of the button */
#define TN_VM_ARM64_HOLD       3u          /* ticks: 100 ms or more */
#define TN_VM_ARM64_TREE       (64u << 10) /* bytes: more than 512 CPUs and all devices take */

TN_API int tn_vm_arm64_ram(uint64_t size, struct tn_loader_range ram[TN_VM_ARM64_RAM])
{
    return tn_boot_arm64_ram(size, ram);
}

/* ---- devices: one ops table each, one row each ---- */

static inline uint64_t tn_vm_arm64_uart_read_(void *ctx, uint64_t off, unsigned width)
{
    struct tn_vm_arm64 *board = (struct tn_vm_arm64 *)ctx;
    uint64_t value = ~0ull;

    pthread_mutex_lock(&board->device_lock);
    if (width == 1)
        value = tn_uart_read(&board->uart, (unsigned)off);
    pthread_mutex_unlock(&board->device_lock);
    return value;
}

static inline void tn_vm_arm64_uart_write_(void *ctx, uint64_t off, unsigned width, uint64_t value)
{
    struct tn_vm_arm64 *board = (struct tn_vm_arm64 *)ctx;

    pthread_mutex_lock(&board->device_lock);
    if (width == 1)
        tn_uart_write(&board->uart, (unsigned)off, (uint8_t)value);
    pthread_mutex_unlock(&board->device_lock);
}

static inline uint64_t tn_vm_arm64_rtc_read_(void *ctx, uint64_t off, unsigned width)
{
    struct tn_vm_arm64 *board = (struct tn_vm_arm64 *)ctx;
    uint64_t value;

    pthread_mutex_lock(&board->device_lock);
    value = tn_rtc_read(&board->rtc, off, width);
    pthread_mutex_unlock(&board->device_lock);
    return value;
}

static inline void tn_vm_arm64_rtc_write_(void *ctx, uint64_t off, unsigned width, uint64_t value)
{
    struct tn_vm_arm64 *board = (struct tn_vm_arm64 *)ctx;

    pthread_mutex_lock(&board->device_lock);
    tn_rtc_write(&board->rtc, off, width, value);
    pthread_mutex_unlock(&board->device_lock);
}

static inline uint64_t tn_vm_arm64_gpio_read_(void *ctx, uint64_t off, unsigned width)
{
    struct tn_vm_arm64 *board = (struct tn_vm_arm64 *)ctx;
    uint64_t value;

    pthread_mutex_lock(&board->device_lock);
    value = tn_gpio_read(&board->gpio, off, width);
    pthread_mutex_unlock(&board->device_lock);
    return value;
}

static inline void tn_vm_arm64_gpio_write_(void *ctx, uint64_t off, unsigned width, uint64_t value)
{
    struct tn_vm_arm64 *board = (struct tn_vm_arm64 *)ctx;

    pthread_mutex_lock(&board->device_lock);
    tn_gpio_write(&board->gpio, off, width, value);
    pthread_mutex_unlock(&board->device_lock);
}

static const struct tn_bus_ops tn_vm_arm64_uart_ops_ = {tn_vm_arm64_uart_read_,
                                                        tn_vm_arm64_uart_write_};
static const struct tn_bus_ops tn_vm_arm64_rtc_ops_ = {tn_vm_arm64_rtc_read_,
                                                       tn_vm_arm64_rtc_write_};
static const struct tn_bus_ops tn_vm_arm64_gpio_ops_ = {tn_vm_arm64_gpio_read_,
                                                        tn_vm_arm64_gpio_write_};

static const struct {
    uint64_t gpa;
    uint64_t size;
    const struct tn_bus_ops *ops;
} tn_vm_arm64_ports_[] = {
    {TN_VM_ARM64_UART, TN_VM_ARM64_UART_SIZE, &tn_vm_arm64_uart_ops_},
    {TN_VM_ARM64_RTC, TN_RTC_SIZE, &tn_vm_arm64_rtc_ops_},
    {TN_VM_ARM64_GPIO, TN_GPIO_SIZE, &tn_vm_arm64_gpio_ops_},
};

/* What the devices' models call; device_lock is held. */

static inline size_t tn_vm_arm64_uart_tx_(void *ctx, const uint8_t *bytes, size_t len)
{
    return tn_vm_console_tx(&((struct tn_vm_arm64 *)ctx)->console, bytes, len);
}

static inline void tn_vm_arm64_uart_irq_(void *ctx, bool level)
{
    (void)tn_kvm_arm64_spi(((struct tn_vm_arm64 *)ctx)->vm, TN_VM_ARM64_UART_SPI, level);
}

static inline void tn_vm_arm64_uart_room_(void *ctx)
{
    tn_vm_console_room(&((struct tn_vm_arm64 *)ctx)->console);
}

static inline uint64_t tn_vm_arm64_rtc_now_(void *ctx)
{
    time_t now = time(NULL);

    (void)ctx;
    return now < 0 ? 0 : (uint64_t)now;
}

static inline void tn_vm_arm64_rtc_irq_(void *ctx, bool level)
{
    (void)tn_kvm_arm64_spi(((struct tn_vm_arm64 *)ctx)->vm, TN_VM_ARM64_RTC_SPI, level);
}

/* The timer's clock is not the wall's: of a far alarm it asks again once an hour. */
static inline void tn_vm_arm64_rtc_wake_(void *ctx, uint64_t seconds)
{
    struct tn_vm_arm64 *board = (struct tn_vm_arm64 *)ctx;
    uint64_t now = tn_vm_arm64_rtc_now_(NULL), left = seconds > now ? seconds - now : 0;

    if (seconds == TN_RTC_NEVER)
        (void)tn_loop_timer_disarm(&board->alarm);
    else
        (void)tn_loop_timer_arm(&board->alarm,
                                left == 0 ? 1 : (left < 3600 ? left : 3600) * 1000000000u, 0);
}

static inline void tn_vm_arm64_on_alarm_(void *ctx, uint64_t expirations)
{
    struct tn_vm_arm64 *board = (struct tn_vm_arm64 *)ctx;

    (void)expirations;
    pthread_mutex_lock(&board->device_lock);
    tn_rtc_tick(&board->rtc);
    pthread_mutex_unlock(&board->device_lock);
}

static inline void tn_vm_arm64_gpio_irq_(void *ctx, bool level)
{
    (void)tn_kvm_arm64_spi(((struct tn_vm_arm64 *)ctx)->vm, TN_VM_ARM64_GPIO_SPI, level);
}

/* device_lock is held. */
static inline int tn_vm_arm64_press_(struct tn_vm_arm64 *board)
{
    board->held = TN_VM_ARM64_HOLD;
    tn_gpio_set(&board->gpio, TN_FDT_POWER_LINE, true);
    return tn_loop_timer_arm(&board->button, TN_VM_ARM64_TICK, TN_VM_ARM64_TICK);
}

/* A guest takes the interrupt, waits for the contacts to settle, and then looks. The time for this
 * is counted from when it has taken the interrupt, which a machine that stands still does later. */
static inline void tn_vm_arm64_on_button_(void *ctx, uint64_t expirations)
{
    struct tn_vm_arm64 *board = (struct tn_vm_arm64 *)ctx;

    (void)expirations;
    pthread_mutex_lock(&board->device_lock);
    if (tn_gpio_read(&board->gpio, TN_GPIO_MIS, 1) & 1u << TN_FDT_POWER_LINE)
        board->held = TN_VM_ARM64_HOLD;
    else if (board->held > 0)
        board->held--;
    if (board->held == 0) {
        (void)tn_loop_timer_disarm(&board->button);
        tn_gpio_set(&board->gpio, TN_FDT_POWER_LINE, false);
    }
    pthread_mutex_unlock(&board->device_lock);
}

TN_API int tn_vm_arm64_devices(struct tn_vm_arm64 *board, const struct tn_vm_cfg *cfg,
                               struct tn_loop *loop)
{
    const struct tn_uart_cfg uart = {board, tn_vm_arm64_uart_tx_, tn_vm_arm64_uart_irq_,
                                     tn_vm_arm64_uart_room_, false};
    const struct tn_rtc_cfg rtc = {board, tn_vm_arm64_rtc_now_, tn_vm_arm64_rtc_irq_,
                                   tn_vm_arm64_rtc_wake_};
    const struct tn_gpio_cfg gpio = {board, tn_vm_arm64_gpio_irq_};
    int r;

    board->console.in = board->console.out = -1;
    r = tn_uart_init(&board->uart, &uart);
    if (r >= 0)
        r = tn_loop_timer_init(&board->alarm, loop, tn_vm_arm64_on_alarm_, board);
    if (r >= 0)
        r = tn_loop_timer_init(&board->button, loop, tn_vm_arm64_on_button_, board);
    if (r >= 0)
        r = tn_rtc_init(&board->rtc, &rtc);
    if (r >= 0)
        r = tn_gpio_init(&board->gpio, &gpio);
    tn_bus_init(&board->mmio, board->mmio_range,
                sizeof(board->mmio_range) / sizeof(struct tn_bus_range));
    for (size_t i = 0; r >= 0 && i < sizeof(tn_vm_arm64_ports_) / sizeof(tn_vm_arm64_ports_[0]);
         i++)
        r = tn_bus_add(&board->mmio, tn_vm_arm64_ports_[i].gpa, tn_vm_arm64_ports_[i].size,
                       tn_vm_arm64_ports_[i].ops, board);
    if (r >= 0 && cfg->console)
        r = tn_vm_console_init(&board->console, &tn_vm_uart_port, &board->uart, &board->device_lock,
                               loop, cfg->console_in, cfg->console_out);
    return r < 0 ? r : TN_OK;
}

TN_API void tn_vm_arm64_place(struct tn_vm_arm64 *board, struct tn_vm_place *out)
{
    out->vm = board->vm;
    out->mmio = &board->mmio;
    out->ram = NULL;
    out->lazy = false;
    out->gpa = TN_VM_ARM64_VIRTIO;
    out->gsi = TN_VM_ARM64_VIRTIO_SPI;
    out->gsis = TN_VM_ARM64_SPIS - TN_VM_ARM64_VIRTIO_SPI;
}

/* ---- the device tree and the kernel ---- */

/* What the tree says; cpu_reg and seed are the caller's. */
static inline void tn_vm_arm64_describe_(const struct tn_vm_arm64 *board, uint32_t virtio,
                                         struct tn_fdt_cfg *f)
{
    bool v3 = board->gic.version == 3;

    f->machine = TN_FDT_ARM64;
    f->cpus = board->cpus;
    f->gic = board->gic.version;
    f->chip[0].gpa = TN_VM_ARM64_GICD;
    f->chip[0].size = v3 ? 0x10000 : 0x1000;
    f->chip[1].gpa = v3 ? TN_VM_ARM64_GICR : TN_VM_ARM64_GICC;
    f->chip[1].size = v3 ? 0x20000ull * board->cpus : 0x2000;
    f->uart.gpa = TN_VM_ARM64_UART;
    f->uart.size = TN_VM_ARM64_UART_SIZE;
    f->uart.irq = TN_VM_ARM64_UART_SPI;
    f->rtc.gpa = TN_VM_ARM64_RTC;
    f->rtc.size = TN_RTC_SIZE;
    f->rtc.irq = TN_VM_ARM64_RTC_SPI;
    f->gpio.gpa = TN_VM_ARM64_GPIO;
    f->gpio.size = TN_GPIO_SIZE;
    f->gpio.irq = TN_VM_ARM64_GPIO_SPI;
    f->genid.gpa = TN_VM_ARM64_GENID_GPA;
    f->genid.size = TN_VM_ARM64_GENID_SIZE;
    f->genid.irq = TN_VM_ARM64_GENID_SPI;
    f->virtio = virtio;
    f->virtio_first.gpa = TN_VM_ARM64_VIRTIO;
    f->virtio_first.size = TN_VIRTIO_MMIO_SIZE;
    f->virtio_first.irq = TN_VM_ARM64_VIRTIO_SPI;
    f->virtio_stride = TN_VM_PLACE_STRIDE;
    f->virtio_irqs = TN_VM_ARM64_SPIS - TN_VM_ARM64_VIRTIO_SPI;
}

/* Builds the tree where the boot code said that it belongs. */
static inline int tn_vm_arm64_tree_(struct tn_vm_arm64 *board, const struct tn_mem *mem,
                                    const struct tn_vm_cfg *cfg, uint32_t virtio)
{
    struct tn_loader_range range[TN_VM_ARM64_RAM];
    struct tn_fdt_range ram;
    struct tn_fdt_cfg f;
    uint8_t seed[TN_VM_ARM64_SEED];
    uint8_t *tree = (uint8_t *)malloc(TN_VM_ARM64_TREE); /* aligned for any type */
    int64_t len = TN_ESYS;
    int r;

    memset(&f, 0, sizeof(f));
    tn_vm_arm64_describe_(board, virtio, &f);
    (void)tn_vm_arm64_ram(cfg->memory, range);
    ram.gpa = range[0].gpa;
    ram.size = range[0].size;
    f.ram = &ram;
    f.nram = 1;
    f.bootargs = cfg->cmdline;
    f.initrd_gpa = board->info.initrd_gpa;
    f.initrd_len = board->info.initrd_len;
    f.rng_seed = seed;
    f.rng_seed_len = sizeof(seed);
    if (tree && getrandom(seed, sizeof(seed), 0) == (ssize_t)sizeof(seed) &&
        getrandom(&f.kaslr_seed, sizeof(f.kaslr_seed), 0) == (ssize_t)sizeof(f.kaslr_seed))
        len = tn_fdt_build(&f, tree, TN_VM_ARM64_TREE);
    r = len < 0 ? (int)len : tn_mem_write(mem, board->info.fdt_gpa, tree, (size_t)len);
    free(tree);
    return r;
}

/* 16 random bytes, where the guest was told that they are. */
static inline int tn_vm_arm64_id_(const struct tn_mem *mem)
{
    uint8_t id[TN_VM_ARM64_ID];

    if (getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id))
        return TN_ESYS;
    return tn_mem_write(mem, TN_VM_ARM64_GENID_GPA, id, sizeof(id));
}

TN_API int tn_vm_arm64_load(struct tn_vm_arm64 *board, const struct tn_mem *mem,
                            const struct tn_vm_cfg *cfg)
{
    uint32_t virtio = tn_vm_devices_count(cfg);
    struct tn_boot_arm64_cfg boot;
    int r;

    if (virtio > TN_VM_ARM64_MAX_VIRTIO || cfg->fdt)
        return TN_EINVAL;
    if (cfg->cmdline && strlen(cfg->cmdline) > TN_VM_ARM64_MAX_CMDLINE) {
        board->info.stage = TN_VM_ARM64_AT_CMDLINE;
        return TN_ENOSPC;
    }
    memset(&boot, 0, sizeof(boot));
    boot.kernel = cfg->kernel;
    boot.kernel_len = cfg->kernel_len;
    boot.initrd = cfg->initrd;
    boot.initrd_len = cfg->initrd_len;
    boot.ram_size = cfg->memory;
    r = tn_boot_arm64_load(mem, &boot, &board->boot, &board->info);
    if (r >= 0)
        r = tn_vm_arm64_id_(mem);
    return r < 0 ? r : tn_vm_arm64_tree_(board, mem, cfg, virtio);
}

TN_API int tn_vm_arm64_new_id(struct tn_vm_arm64 *board, const struct tn_mem *mem)
{
    int r = tn_vm_arm64_id_(mem);

    if (r >= 0)
        r = tn_kvm_arm64_spi(board->vm, TN_VM_ARM64_GENID_SPI, true);
    return r < 0 ? r : tn_kvm_arm64_spi(board->vm, TN_VM_ARM64_GENID_SPI, false);
}

/* ---- KVM ---- */

TN_API int tn_vm_arm64_irqchip(struct tn_vm_arm64 *board, struct tn_kvm_vm *vm)
{
    struct tn_kvm_arm64_gic_cfg cfg;

    board->vm = vm;
    board->alarm.source.fd = board->button.source.fd = -1;
    memset(&cfg, 0, sizeof(cfg));
    cfg.cpus = board->cpus;
    cfg.spis = TN_VM_ARM64_SPIS;
    cfg.dist = TN_VM_ARM64_GICD;
    cfg.redist = TN_VM_ARM64_GICR;
    cfg.cpu_if = TN_VM_ARM64_GICC;
    return tn_kvm_arm64_gic_init(&board->gic, vm, &cfg);
}

/* What a vCPU needs to be one; the last one completes the interrupt controller. */
static inline int tn_vm_arm64_vcpu_(struct tn_vm_arm64 *board, uint32_t features,
                                    struct tn_kvm_vcpu *vcpu)
{
    int r = tn_kvm_arm64_vcpu_init(board->vm, vcpu, features);

    return r >= 0 && vcpu->id == board->cpus - 1 ? tn_kvm_arm64_gic_start(&board->gic) : r;
}

TN_API int tn_vm_arm64_vcpu(struct tn_vm_arm64 *board, const struct tn_kvm *kvm,
                            struct tn_kvm_vcpu *vcpu)
{
    int r = tn_vm_arm64_vcpu_(board, tn_kvm_arm64_features(kvm), vcpu);

    return r >= 0 && vcpu->id == 0 ? tn_kvm_arm64_set_boot(vcpu, &board->boot) : r;
}

TN_API uint32_t tn_vm_arm64_access(struct tn_vm_arm64 *board, const struct tn_kvm_exit *e,
                                   uint32_t hint[2])
{
    if (e->kind == TN_KVM_EXIT_MMIO && e->mmio.write)
        (void)tn_bus_write(&board->mmio, e->mmio.gpa, e->mmio.len,
                           tn_get_(e->mmio.data, e->mmio.len), &hint[1]);
    else if (e->kind == TN_KVM_EXIT_MMIO)
        tn_put_(e->mmio.data, e->mmio.len,
                tn_bus_read(&board->mmio, e->mmio.gpa, e->mmio.len, &hint[1]));
    return TN_VM_NONE;
}

TN_API int tn_vm_arm64_shutdown(struct tn_vm_arm64 *board)
{
    int r;

    pthread_mutex_lock(&board->device_lock);
    r = tn_vm_arm64_press_(board);
    pthread_mutex_unlock(&board->device_lock);
    return r;
}

TN_API int tn_vm_arm64_ctrl_alt_del(struct tn_vm_arm64 *board)
{
    (void)board;
    return TN_EUNSUP;
}

TN_API void tn_vm_arm64_close(struct tn_vm_arm64 *board)
{
    tn_vm_console_close(&board->console);
    if (!board->vm) /* it never came to its chips */
        return;
    tn_loop_timer_close(&board->alarm);
    tn_loop_timer_close(&board->button);
    tn_kvm_arm64_gic_close(&board->gic);
    board->vm = NULL;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* __aarch64__ */
#endif /* TN_VM_ARM64_H */
