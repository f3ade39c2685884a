/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the tests of tn_kvm and tn_kvm_x86 share: a machine on /dev/kvm with a tiny guest of
 * tests/guests (built into TENON_GUESTS, default build/guests), and vCPUs on threads.
 */
#ifndef TENON_KVM_GUEST_H
#define TENON_KVM_GUEST_H

#include "tn_kvm_x86.h"
#include "tn_mptable.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "test.h"

#define RAM        0x200000u
#define GUEST      0x10000u
#define PORT_EXIT  0xf4u
#define PORT_READY 0xe8u
#define PORT_EVENT 0xe9u
#define MMIO       0xd0000000ull
#define MAX_CPUS   4u
#define KICK       SIGUSR1

enum chips { NO_CHIPS, FULL, SPLIT };

static struct tn_kvm kvm;

static struct machine {
    struct tn_kvm_vm vm;
    struct tn_kvm_vcpu cpu[MAX_CPUS];
    uint32_t cpus;
    uint8_t *ram;
    struct kvm_sregs reset; /* of CPU 0 */
} m;

static inline void on_kick(int sig)
{
    (void)sig;
}

/* ---- the harness ---- */

static inline bool no_kvm(const char *name)
{
    if (kvm.fd >= 0)
        return false;
    (void)name;
    return true;
}
#define NEED_KVM()                                            \
    do {                                                      \
        if (no_kvm(__func__))                                 \
            SKIP("/dev/kvm is missing or may not be opened"); \
    } while (0)

static inline void load(const char *name)
{
    const char *dir = getenv("TENON_GUESTS");
    char path[512];
    FILE *f;
    size_t n;

    snprintf(path, sizeof(path), "%s/%s.bin", dir ? dir : "build/guests", name);
    f = fopen(path, "rb");
    if (!f)
        fail_msg("%s: no such guest; TENON_GUESTS names their directory", path);
    n = fread(m.ram + GUEST, 1, 0x20000, f);
    fclose(f);
    assert_true(n > 0);
}

/* To the guest's first instruction. */
static inline void enter(void)
{
    struct tn_kvm_vcpu *cpu = &m.cpu[0];
    struct kvm_sregs s = m.reset;
    struct kvm_regs g;

    s.cs.base = GUEST;
    s.cs.selector = GUEST >> 4;
    assert_int_equal(tn_kvm_x86_set_sregs(cpu, &s), 0);
    memset(&g, 0, sizeof(g));
    g.rflags = 2;
    assert_int_equal(tn_kvm_x86_set_regs(cpu, &g), 0);
}

/* A machine with the guest at its start; slot 0: RAM but for page 0xa0000 (slot 1, read-only). */
static inline void start(const char *guest, uint32_t cpus, enum chips chips)
{
    static struct tn_kvm_cpuid cpuid;

    alarm(60); /* a guest that sleeps for good would otherwise hang the test */
    memset(&m, 0, sizeof(m));
    m.ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(m.ram != MAP_FAILED);
    assert_int_equal(tn_kvm_vm_init(&kvm, &m.vm), 0);
    assert_int_equal(tn_kvm_set_slot(&m.vm, 0, 0, 0xa0000, m.ram, 0), 0);
    assert_int_equal(tn_kvm_set_slot(&m.vm, 1, 0xa0000, 0x1000, m.ram + 0xa0000, KVM_MEM_READONLY),
                     0);
    assert_int_equal(tn_kvm_set_slot(&m.vm, 2, 0xa1000, 0x5f000, m.ram + 0xa1000, 0), 0);
    assert_int_equal(
        tn_kvm_set_slot(&m.vm, 3, 0x100000, 0x100000, m.ram + 0x100000, KVM_MEM_LOG_DIRTY_PAGES),
        0);
    if (chips == FULL)
        assert_int_equal(tn_kvm_x86_irqchip_full(&m.vm), 0);
    if (chips == SPLIT)
        assert_int_equal(tn_kvm_x86_irqchip_split(&m.vm, TN_KVM_X86_IOAPIC_PINS), 0);
    for (uint32_t i = 0; i < cpus; i++) {
        assert_int_equal(tn_kvm_vcpu_init(&kvm, &m.vm, &m.cpu[i], i), 0);
        m.cpus++;
        assert_int_equal(m.cpu[i].id, i);
        assert_int_equal(tn_kvm_x86_cpuid(&kvm, &cpuid, i, cpus), 0);
        assert_int_equal(tn_kvm_x86_set_cpuid(&m.cpu[i], &cpuid), 0);
    }
    if (guest) {
        load(guest);
        assert_int_equal(tn_kvm_x86_get_sregs(&m.cpu[0], &m.reset), 0);
        enter();
    }
}

static inline int stop(void **state)
{
    (void)state;
    alarm(0);
    for (uint32_t i = 0; i < m.cpus; i++)
        tn_kvm_vcpu_close(&m.cpu[i]);
    if (m.ram) {
        tn_kvm_vm_close(&m.vm);
        munmap(m.ram, RAM);
    }
    memset(&m, 0, sizeof(m));
    return 0;
}

static inline void run(struct tn_kvm_exit *e)
{
    do {
        memset(e, 0xee, sizeof(*e));
        assert_int_equal(tn_kvm_run(&m.cpu[0], e), 0);
    } while (e->kind == TN_KVM_EXIT_INTERRUPTED);
}

static inline void expect(const struct tn_kvm_exit *e, uint32_t kind)
{
    struct kvm_regs g;

    if (e->kind != kind && tn_kvm_x86_get_regs(&m.cpu[0], &g) == 0)
        print_message("  exit %u at rip %#llx\n", e->reason, (unsigned long long)g.rip);
    assert_int_equal(e->kind, kind);
}

static inline uint64_t value(const uint8_t *data, unsigned size)
{
    return tn_get_(data, size);
}

/* The next exit is an access to a port, of one value: v is what is written, or what is given. */
static inline void io(bool write, uint32_t port, uint32_t size, uint64_t v)
{
    struct tn_kvm_exit e;

    run(&e);
    expect(&e, TN_KVM_EXIT_IO);
    assert_int_equal(e.reason, KVM_EXIT_IO);
    assert_int_equal(e.io.port, port);
    assert_int_equal(e.io.write, write);
    assert_int_equal(e.io.size, size);
    assert_int_equal(e.io.count, 1);
    if (write)
        assert_int_equal(value(e.io.data, size), v);
    else
        tn_put_(e.io.data, size, v);
}

static inline void out(uint32_t port, uint32_t size, uint64_t v)
{
    io(true, port, size, v);
}

static inline void in(uint32_t port, uint32_t size, uint64_t v)
{
    io(false, port, size, v);
}

static inline void mmio(bool write, uint64_t gpa, uint32_t len, uint64_t v)
{
    struct tn_kvm_exit e;

    run(&e);
    expect(&e, TN_KVM_EXIT_MMIO);
    assert_int_equal(e.reason, KVM_EXIT_MMIO);
    assert_int_equal(e.mmio.gpa, gpa);
    assert_int_equal(e.mmio.len, len);
    assert_int_equal(e.mmio.write, write);
    if (write)
        assert_int_equal(value(e.mmio.data, len), v);
    else
        tn_put_(e.mmio.data, len, v);
}

/* String instructions may be cut anywhere: collects (OUT) or gives (IN) n bytes in all. */
static inline void string(bool write, uint32_t port, uint32_t size, uint8_t *bytes, uint32_t n)
{
    struct tn_kvm_exit e;

    while (n > 0) {
        uint32_t part;

        run(&e);
        assert_int_equal(e.kind, TN_KVM_EXIT_IO);
        assert_int_equal(e.io.port, port);
        assert_int_equal(e.io.write, write);
        assert_int_equal(e.io.size, size);
        part = e.io.count * size;
        assert_in_range(part, 1, n);
        memcpy(write ? bytes : e.io.data, write ? e.io.data : bytes, part);
        bytes += part;
        n -= part;
    }
}

static inline double cpu_seconds(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- vCPUs on threads ---- */

static struct {
    pthread_t thread[MAX_CPUS];
    uint32_t rounds;     /* times that CPU 0 was interrupted */
    uint32_t interrupts; /* TN_KVM_EXIT_INTERRUPTED */
    uint32_t agains;     /* TN_KVM_EXIT_AGAIN, of all CPUs */
    uint32_t asked;      /* what CPU 0 is to see */
    uint32_t seen;       /* what it saw */
    uint32_t events;     /* bytes on PORT_EVENT */
    uint32_t event_mask; /* 1 << byte, for bytes less than 32 */
    uint8_t event;       /* the last one */
    uint32_t ready;      /* bytes on PORT_READY */
    uint32_t eois;       /* TN_KVM_EXIT_IOAPIC_EOI */
    uint32_t result;     /* the byte on PORT_EXIT, + 1 */
    uint32_t quit;
    uint32_t failed;
} t;

#define GET(x)    __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define SET(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELEASE)
#define INC(x)    ((void)__atomic_fetch_add(&(x), 1, __ATOMIC_ACQ_REL))

static inline void *cpu_main(void *arg)
{
    struct tn_kvm_vcpu *cpu = arg;
    struct tn_kvm_exit e;

    for (;;) {
        tn_kvm_interrupt_clear(cpu);
        if (GET(t.quit))
            return NULL;
        SET(t.seen, GET(t.asked));
        if (tn_kvm_run(cpu, &e) != 0) {
            INC(t.failed);
            return NULL;
        }
        if (e.kind == TN_KVM_EXIT_INTERRUPTED) {
            INC(t.interrupts);
        } else if (e.kind == TN_KVM_EXIT_AGAIN) {
            INC(t.agains);
        } else if (e.kind == TN_KVM_EXIT_IOAPIC_EOI) {
            SET(t.event, e.eoi.vector);
            INC(t.eois);
        } else if (e.kind == TN_KVM_EXIT_IO && e.io.port == PORT_READY) {
            if (!e.io.write)
                e.io.data[0] = 0;
            INC(t.ready);
        } else if (e.kind == TN_KVM_EXIT_IO && e.io.port == PORT_EVENT) {
            if (e.io.data[0] < 32)
                (void)__atomic_fetch_or(&t.event_mask, 1u << e.io.data[0], __ATOMIC_ACQ_REL);
            SET(t.event, e.io.data[0]);
            INC(t.events);
        } else if (e.kind == TN_KVM_EXIT_IO && e.io.port == PORT_EXIT) {
            SET(t.result, e.io.data[0] + 1u);
        } else if (e.kind != TN_KVM_EXIT_MMIO) { /* the split chips' I/O APIC */
            INC(t.failed);
            return NULL;
        }
    }
}

static inline void threads_start(void)
{
    memset(&t, 0, sizeof(t));
    for (uint32_t i = 0; i < m.cpus; i++)
        assert_int_equal(pthread_create(&t.thread[i], NULL, cpu_main, &m.cpu[i]), 0);
}

static inline void kick(uint32_t cpu)
{
    tn_kvm_interrupt(&m.cpu[cpu]);
    assert_int_equal(pthread_kill(t.thread[cpu], KICK), 0);
}

static inline void threads_stop(void)
{
    SET(t.quit, 1);
    for (uint32_t i = 0; i < m.cpus; i++)
        kick(i);
    for (uint32_t i = 0; i < m.cpus; i++)
        pthread_join(t.thread[i], NULL);
}

/* Waits for up to ten seconds. */
#define AWAIT(condition)                                                              \
    do {                                                                              \
        double end_ = cpu_seconds(CLOCK_MONOTONIC) + 10;                              \
        while (!(condition) && !GET(t.failed) && cpu_seconds(CLOCK_MONOTONIC) < end_) \
            usleep(50);                                                               \
        if (!(condition)) {                                                           \
            threads_stop();                                                           \
            fail_msg("did not happen: %s", #condition);                               \
        }                                                                             \
    } while (0)

/* Each test's machine is gone when the test ends. */
#define T(name) cmocka_unit_test_teardown(name, stop)

static inline void kvm_open(void)
{
    struct sigaction sa;

    memset(&sa, 0, sizeof(sa));
    sa.sa_handler = on_kick;
    sigaction(KICK, &sa, NULL);
    (void)tn_kvm_open(&kvm, NULL);
}

#endif
