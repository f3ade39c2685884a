/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * B8: what a register exit costs in userspace, the bus and the UART, beyond the bare KVM_RUN.
 *
 * A guest polls LSR and writes THR for ever. Its exits are taken by raw ioctls; between one
 * KVM_RUN and the next is either nothing, or the lookup and the device. That stretch is timed in
 * place, with caches as an exit leaves them, and the time of an empty stretch is taken off. A
 * tight loop without KVM tells what is left of it with caches warm.
 */
#include "tn_bus.h"
#include "tn_uart.h"

#include "bench.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <linux/kvm.h>

#define OPS     2000 /* per sample of the tight loops */
#define EXITS   50   /* per sample of the KVM ones */
#define ROUNDS  600
#define WARM_UP 60

struct board {
    struct tn_bus_range table[16];
    struct tn_bus ports;
    struct tn_uart uart;
    uint32_t hint;
    uint64_t sent;
};

static size_t sink(void *ctx, const uint8_t *bytes, size_t len)
{
    struct board *b = (struct board *)ctx;

    b->sent += bytes[0];
    return len;
}

static void line(void *ctx, bool level)
{
    (void)ctx;
    (void)level;
}

static uint64_t uart_in(void *ctx, uint64_t off, unsigned width)
{
    return width == 1 ? tn_uart_read((struct tn_uart *)ctx, (unsigned)off) : UINT64_MAX;
}

static void uart_out(void *ctx, uint64_t off, unsigned width, uint64_t value)
{
    if (width == 1)
        tn_uart_write((struct tn_uart *)ctx, (unsigned)off, (uint8_t)value);
}

static uint64_t other_in(void *ctx, uint64_t off, unsigned width)
{
    (void)ctx;
    (void)width;
    return off;
}

static void other_out(void *ctx, uint64_t off, unsigned width, uint64_t value)
{
    (void)ctx;
    (void)off;
    (void)width;
    (void)value;
}

static const struct tn_bus_ops uart_ops = {uart_in, uart_out};
static const struct tn_bus_ops other_ops = {other_in, other_out};

/* The ports of a PC, and four UARTs' worth of windows: the guest uses the first UART. */
static int board_init(struct board *b)
{
    static const uint16_t others[][2] = {{0x20, 2},  {0x40, 4},  {0x60, 1},    {0x61, 1},
                                         {0x64, 1},  {0x70, 2},  {0xa0, 2},    {0x2f8, 8},
                                         {0x3e8, 8}, {0x2e8, 8}, {0x600, 0x40}};
    struct tn_uart_cfg cfg = {NULL, sink, line, NULL, false};

    memset(b, 0, sizeof(*b));
    cfg.ctx = b;
    tn_bus_init(&b->ports, b->table, 16);
    if (tn_uart_init(&b->uart, &cfg) < 0 ||
        tn_bus_add(&b->ports, 0x3f8, 8, &uart_ops, &b->uart) < 0)
        return -1;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (tn_bus_add(&b->ports, others[i][0], others[i][1], &other_ops, b) < 0)
            return -1;
    return 0;
}

/* LSR reads and THR writes in turn; what an interrupt-less console driver does. */
static int64_t tight(void *ctx)
{
    struct board *b = (struct board *)bench_opaque(ctx);
    uint64_t from = bench_now(), lsr = 0;

    for (int i = 0; i < OPS; i += 2) {
        b = (struct board *)bench_opaque(b);
        lsr |= tn_bus_read(&b->ports, 0x3f8 + TN_UART_LSR, 1, &b->hint);
        b = (struct board *)bench_opaque(b);
        tn_bus_write(&b->ports, 0x3f8 + TN_UART_THR, 1, 'A', &b->hint);
    }
    from = bench_now() - from;
    return lsr & TN_UART_LSR_THRE ? (int64_t)(from / OPS) : -1;
}

/* The same, but each access finds the hint at another range. */
static int64_t tight_without_hint(void *ctx)
{
    struct board *b = (struct board *)bench_opaque(ctx);
    uint64_t from = bench_now(), lsr = 0;

    for (int i = 0; i < OPS; i += 2) {
        b = (struct board *)bench_opaque(b);
        b->hint = 0;
        lsr |= tn_bus_read(&b->ports, 0x3f8 + TN_UART_LSR, 1, &b->hint);
        b = (struct board *)bench_opaque(b);
        b->hint = 0;
        tn_bus_write(&b->ports, 0x3f8 + TN_UART_THR, 1, 'A', &b->hint);
    }
    from = bench_now() - from;
    return lsr & TN_UART_LSR_THRE ? (int64_t)(from / OPS) : -1;
}

#ifdef __x86_64__

struct guest {
    struct board *board;
    struct kvm_run *run;
    int vcpu;
    struct bench_series *gap; /* from KVM_RUN's return to its next call: the mean of EXITS */
    unsigned warm_up;         /* samples whose gap is dropped */
};

static int guest_init(struct guest *g)
{
    static const uint8_t code[] = {
        0xba, 0xfd, 0x03, /* 1: mov $0x3fd, %dx */
        0xec,             /*    in  %dx, %al */
        0xb0, 0x41,       /*    mov $'A', %al */
        0xba, 0xf8, 0x03, /*    mov $0x3f8, %dx */
        0xee,             /*    out %al, %dx */
        0xeb, 0xf4,       /*    jmp 1b */
    };
    struct kvm_userspace_memory_region slot;
    struct kvm_sregs sregs;
    struct kvm_regs regs;
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int vm, size;
    void *ram, *run;

    if (kvm < 0)
        return -1;
    vm = ioctl(kvm, KVM_CREATE_VM, 0);
    size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (vm < 0 || size < (int)sizeof(struct kvm_run))
        return -1;
    ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000ul); /* VT-x without real mode wants it */
    ram = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ram == MAP_FAILED)
        return -1;
    memcpy(ram, code, sizeof(code));
    memset(&slot, 0, sizeof(slot));
    slot.guest_phys_addr = 0x1000;
    slot.memory_size = 4096;
    slot.userspace_addr = (uintptr_t)ram;
    if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
        return -1;
    g->vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    if (g->vcpu < 0 || ioctl(g->vcpu, KVM_GET_SREGS, &sregs) < 0)
        return -1;
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    memset(&regs, 0, sizeof(regs));
    regs.rip = 0x1000;
    regs.rflags = 2;
    if (ioctl(g->vcpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(g->vcpu, KVM_SET_REGS, &regs) < 0)
        return -1;
    run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
    if (run == MAP_FAILED)
        return -1;
    g->run = (struct kvm_run *)run;
    return 0;
}

static inline void dispatch(struct board *b, struct kvm_run *run)
{
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    if (run->io.direction == KVM_EXIT_IO_OUT)
        tn_bus_write(&b->ports, run->io.port, run->io.size, tn_get_(data, run->io.size), &b->hint);
    else
        tn_put_(data, run->io.size, tn_bus_read(&b->ports, run->io.port, run->io.size, &b->hint));
}

/*
 * EXITS exits; a sample is the time of one of them, KVM_RUN and what follows it. Their gaps are
 * averaged, since a gap is not much longer than the clock's step.
 */
static int64_t exits(struct guest *g, bool with_device)
{
    uint64_t first = bench_now(), gaps = 0;

    for (int i = 0; i < EXITS; i++) {
        uint64_t from;
        if (ioctl(g->vcpu, KVM_RUN, 0) < 0 || g->run->exit_reason != KVM_EXIT_IO)
            return -1;
        from = bench_now();
        if (with_device)
            dispatch(g->board, g->run);
        gaps += bench_now() - from;
    }
    first = bench_now() - first;
    if (g->warm_up > 0)
        g->warm_up--;
    else
        bench_add(g->gap, (int64_t)(gaps / EXITS));
    return (int64_t)(first / EXITS);
}

static int64_t bare(void *ctx)
{
    return exits((struct guest *)ctx, false);
}

static int64_t device(void *ctx)
{
    return exits((struct guest *)ctx, true);
}

#endif

int main(void)
{
    static struct board b;
    struct bench_series gaps[] = {BENCH("in place: nothing", NULL, NULL),
                                  BENCH("in place: bus + UART", NULL, NULL)};
    struct bench_series s[] = {BENCH("warm: bus + UART, hint hits", tight, &b),
                               BENCH("warm: bus + UART, hint misses", tight_without_hint, &b),
                               BENCH("KVM_RUN, one port exit", NULL, NULL),
                               BENCH("KVM_RUN, one port exit, bus + UART", NULL, NULL)};
    bool kvm = false;

    bench_machine();
    if (board_init(&b) < 0)
        return 1;
#ifdef __x86_64__
    struct guest empty = {&b, NULL, -1, &gaps[0], WARM_UP};
    struct guest full = {&b, NULL, -1, &gaps[1], WARM_UP};
    kvm = guest_init(&empty) == 0 && guest_init(&full) == 0;
    s[2].sample = bare;
    s[2].ctx = &empty;
    s[3].sample = device;
    s[3].ctx = &full;
#endif
    bench_rounds(s, kvm ? 4 : 2, ROUNDS, WARM_UP);
    bench_table(s, kvm ? 4 : 2);
    if (kvm) {
        int64_t cost, bare_exit = bench_percentile(&s[2], 50);
        bench_table(gaps, 2);
        cost = bench_percentile(&gaps[1], 50) - bench_percentile(&gaps[0], 50);
        if (s[2].failures + s[3].failures > 0 || cost < 0 || bare_exit <= 0)
            cost = -1;
        bench_budget("B8", "bus + UART per exit, beyond the bare KVM_RUN, p50", (double)cost, "ns",
                     cost < 0 ? -1 : (double)cost / (double)bare_exit, 100);
    } else {
        printf("  skipped: exits of KVM, since /dev/kvm is not usable here\n");
        bench_budget("B8", "bus + UART per exit, warm, p50", (double)bench_percentile(&s[0], 50),
                     "ns", -1, 100);
    }
    bench_free(s, 4);
    bench_free(gaps, 2);
    return 0;
}
