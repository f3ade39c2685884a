/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the tests of tn_kvm_arm64 and tn_kvm_arm64_state share: a machine on /dev/kvm with a GIC,
 * and tiny guests, which talk to the test by loads and stores where no memory is. They run without
 * an MMU, at addresses of their own, so that none is mistaken for one of a machine that is gone.
 */
#ifndef TENON_KVM_GUEST_ARM64_H
#define TENON_KVM_GUEST_ARM64_H

#include "tn_kvm_arm64.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "test.h"

#define RAM_GPA  0x40000000ull
#define RAM      0x40000u
#define MMIO     0x0a000000ull
#define DIST     0x08000000ull
#define REDIST   0x08100000ull
#define CPU_IF   0x08020000ull
#define SPIS     64u
#define MAX_CPUS 18u
#define KICK     SIGUSR1

/* ---- the guests ---- */

#define GUEST(name, code)                                                             \
    __asm__(".pushsection .rodata\n.balign 4\nguest_" #name ":\n" code "guest_" #name \
            "_end:\n.popsection\n");                                                  \
    extern const uint8_t guest_##name[] __attribute__((visibility("hidden")));        \
    extern const uint8_t guest_##name##_end[] __attribute__((visibility("hidden")));

/* Says which CPU it is. */
GUEST(mpidr, "    movz x19, #0x0a00, lsl #16\n"
             "    mrs x0, mpidr_el1\n"
             "1:  str x0, [x19]\n"
             "    b 1b\n")

/* Says what it found in x1, x30, sp and the flags. */
GUEST(regs, "    movz x19, #0x0a00, lsl #16\n"
            "    str x1, [x19]\n"
            "    str x30, [x19, #8]\n"
            "    mov x0, sp\n"
            "    str x0, [x19, #16]\n"
            "    mrs x0, nzcv\n"
            "    str x0, [x19, #24]\n"
            "1:  b 1b\n")

/* Loads in all widths, and says what it got; stores x20 in all widths. */
GUEST(widths, "    movz x19, #0x0a00, lsl #16\n"
              "    ldrb w1, [x19, #0x11]\n"
              "    ldrh w2, [x19, #0x12]\n"
              "    ldr w3, [x19, #0x14]\n"
              "    ldr x4, [x19, #0x18]\n"
              "    str x1, [x19]\n"
              "    str x2, [x19]\n"
              "    str x3, [x19]\n"
              "    str x4, [x19]\n"
              "    strb w20, [x19, #0x21]\n"
              "    strh w20, [x19, #0x22]\n"
              "    str w20, [x19, #0x24]\n"
              "    str x20, [x19, #0x28]\n"
              "1:  b 1b\n")

/*
 * Says x0, then does PSCI calls: reads their four arguments, and says what they returned. A CPU
 * that is switched on begins here too.
 */
GUEST(psci, "    movz x19, #0x0a00, lsl #16\n"
            "1:  str x0, [x19]\n"
            "    ldr x0, [x19, #0x10]\n"
            "    ldr x1, [x19, #0x18]\n"
            "    ldr x2, [x19, #0x20]\n"
            "    ldr x3, [x19, #0x28]\n"
            "    hvc #0\n"
            "    b 1b\n")

/* Counts in x1, and in the vector register d31; says both. */
GUEST(count, "    movz x19, #0x0a00, lsl #16\n"
             "    mov x0, #0x300000\n"
             "    msr cpacr_el1, x0\n"
             "    isb\n"
             "1:  add x1, x1, #1\n"
             "    str x1, [x19]\n"
             "    fmov x2, d31\n"
             "    add x2, x2, #3\n"
             "    fmov d31, x2\n"
             "    str x2, [x19, #8]\n"
             "    b 1b\n")

/*
 * Takes interrupts of a GICv3: w21 goes to GICD_ICFGR2, SPIs 0 to 15; all others
 * are levels. If x22 is not 0, the virtual
 * timer expires so many ticks from now. Says when it is ready, and the number of each interrupt
 * before it ends it; after the timer's, what the counter says.
 */
GUEST(irq, "    movz x19, #0x0a00, lsl #16\n"
           "    movz x0, #0x0800, lsl #16\n"
           "    mov w1, #0x12\n" /* GICD_CTLR: affinity routing, group 1 */
           "    str w1, [x0]\n"
           "    mov w1, #-1\n"
           "    str w1, [x0, #0x84]\n" /* GICD_IGROUPR */
           "    str w1, [x0, #0x88]\n"
           "    str w21, [x0, #0xc08]\n" /* GICD_ICFGR */
           "    str wzr, [x0, #0xc0c]\n"
           "    str wzr, [x0, #0xc10]\n"
           "    str wzr, [x0, #0xc14]\n"
           "    str w1, [x0, #0x104]\n" /* GICD_ISENABLER */
           "    str w1, [x0, #0x108]\n"
           "    movz x0, #0x0810, lsl #16\n"
           "    str wzr, [x0, #0x14]\n" /* GICR_WAKER */
           "    add x0, x0, #0x10000\n"
           "    str w1, [x0, #0x80]\n" /* GICR_IGROUPR0 */
           "    mov w2, #0x8000000\n"
           "    str w2, [x0, #0x100]\n" /* GICR_ISENABLER0: 27, the virtual timer */
           "    mov x2, #0xf0\n"
           "    msr icc_pmr_el1, x2\n"
           "    mov x2, #1\n"
           "    msr icc_igrpen1_el1, x2\n"
           "    cbz x22, 1f\n"
           "    mrs x2, cntvct_el0\n"
           "    add x2, x2, x22\n"
           "    msr cntv_cval_el0, x2\n"
           "    mov x2, #1\n"
           "    msr cntv_ctl_el0, x2\n"
           "1:  isb\n"
           "    str w21, [x19, #0x10]\n"
           "2:  wfi\n"
           "    mrs x0, icc_iar1_el1\n"
           "    cmp w0, #1023\n"
           "    b.eq 2b\n"
           "    str w0, [x19, #0x18]\n"
           "    cmp w0, #27\n"
           "    b.ne 3f\n"
           "    mrs x2, cntvct_el0\n"
           "    str x2, [x19, #0x20]\n"
           "    msr cntv_ctl_el0, xzr\n"
           "    isb\n"
           "3:  msr icc_eoir1_el1, x0\n"
           "    b 2b\n")

#define EVERY(name) guest_##name, (size_t)(guest_##name##_end - guest_##name)

/* ---- the machine ---- */

static struct tn_kvm kvm;

static struct machine {
    struct tn_kvm_vm vm;
    struct tn_kvm_vcpu cpu[MAX_CPUS];
    struct tn_kvm_arm64_gic gic;
    uint32_t cpus;
    uint8_t *ram;
    uint64_t entry; /* the guest's first instruction */
} m;

#define NEED_KVM()                                            \
    do {                                                      \
        if (kvm.fd < 0)                                       \
            SKIP("/dev/kvm is missing or may not be opened"); \
    } while (0)

/* The guests that take interrupts know no other. */
#define NEED_GICV3()                       \
    do {                                   \
        if (m.gic.version != 3)            \
            SKIP("the host has no GICv3"); \
    } while (0)

static inline void on_kick(int sig)
{
    (void)sig;
}

static inline void set_reg(uint32_t cpu, uint64_t id, uint64_t v)
{
    assert_int_equal(tn_kvm_arm64_set_reg(&m.cpu[cpu], id, &v), 0);
}

static inline uint64_t get_reg(uint32_t cpu, uint64_t id)
{
    uint64_t v = 0xeeeeeeeeeeeeeeee;

    assert_int_equal(tn_kvm_arm64_get_reg(&m.cpu[cpu], id, &v), 0);
    return v;
}

/* RAM and a GIC, and no vCPU. */
static inline void make(uint32_t cpus)
{
    struct tn_kvm_arm64_gic_cfg cfg;

    alarm(120); /* a guest that sleeps for good would otherwise hang the test */
    memset(&m, 0, sizeof(m));
    m.gic.fd = -1;
    m.ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(m.ram, MAP_FAILED);
    assert_int_equal(tn_kvm_vm_init(&kvm, &m.vm), 0);
    assert_int_equal(tn_kvm_set_slot(&m.vm, 0, RAM_GPA, RAM, m.ram, 0), 0);
    memset(&cfg, 0, sizeof(cfg));
    cfg.cpus = cpus;
    cfg.spis = SPIS;
    cfg.dist = DIST;
    cfg.redist = REDIST;
    cfg.cpu_if = CPU_IF;
    assert_int_equal(tn_kvm_arm64_gic_init(&m.gic, &m.vm, &cfg), 0);
}

/* A machine with the guest at its start, on vCPU 0; the others are off. NULL: no guest. */
static inline void start(uint32_t cpus, const uint8_t *guest, size_t len)
{
    struct tn_boot_arm64_cpu boot;
    uint8_t *to;

    make(cpus);
    memset(&boot, 0, sizeof(boot));
    for (uint32_t i = 0; i < cpus; i++) {
        assert_int_equal(tn_kvm_vcpu_init(&kvm, &m.vm, &m.cpu[i], i), 0);
        m.cpus++;
        assert_int_equal(tn_kvm_arm64_vcpu_init(&m.vm, &m.cpu[i], tn_kvm_arm64_features(&kvm)), 0);
    }
    assert_int_equal(tn_kvm_arm64_gic_start(&m.gic), 0);
    if (guest) {
        to = m.ram + ((uintptr_t)guest & 0xffff);
        boot.pc = m.entry = RAM_GPA + ((uintptr_t)guest & 0xffff);
        memcpy(to, guest, len);
        __builtin___clear_cache((char *)to, (char *)to + len);
        assert_int_equal(tn_kvm_arm64_set_boot(&m.cpu[0], &boot), 0);
    }
}

static inline int stop(void **state)
{
    (void)state;
    alarm(0);
    for (uint32_t i = 0; i < m.cpus; i++)
        tn_kvm_vcpu_close(&m.cpu[i]);
    if (m.ram) {
        tn_kvm_arm64_gic_close(&m.gic);
        tn_kvm_vm_close(&m.vm);
        munmap(m.ram, RAM);
    }
    memset(&m, 0, sizeof(m));
    return 0;
}

static inline void run(uint32_t cpu, struct tn_kvm_exit *e)
{
    for (unsigned i = 0; i < 1000; i++) {
        memset(e, 0xee, sizeof(*e));
        assert_int_equal(tn_kvm_run(&m.cpu[cpu], e), 0);
        if (e->kind != TN_KVM_EXIT_INTERRUPTED)
            return;
    }
    fail_msg("nothing comes of CPU %u, which is at %#llx", cpu,
             (unsigned long long)get_reg(cpu, TN_KVM_ARM64_PC));
}

static inline void expect(uint32_t cpu, const struct tn_kvm_exit *e, uint32_t kind)
{
    if (e->kind != kind)
        fail_msg("exit %u, kind %u, at %#llx", e->reason, e->kind,
                 (unsigned long long)get_reg(cpu, TN_KVM_ARM64_PC));
}

/* The next exit of a vCPU is an access: v is what is written, or what is given. */
static inline void mmio(uint32_t cpu, bool write, uint64_t gpa, uint32_t len, uint64_t v)
{
    struct tn_kvm_exit e;

    run(cpu, &e);
    expect(cpu, &e, TN_KVM_EXIT_MMIO);
    assert_int_equal(e.reason, KVM_EXIT_MMIO);
    assert_int_equal(e.mmio.gpa, gpa);
    assert_int_equal(e.mmio.len, len);
    assert_int_equal(e.mmio.write, write);
    if (write)
        assert_int_equal(tn_get_(e.mmio.data, len), v);
    else
        tn_put_(e.mmio.data, len, v);
}

/* The guest says v there. */
static inline void says(uint32_t cpu, uint64_t off, uint32_t len, uint64_t v)
{
    mmio(cpu, true, MMIO + off, len, v);
}

/* What the guest says there. */
static inline uint64_t hear(uint32_t cpu, uint64_t off, uint32_t len)
{
    struct tn_kvm_exit e;

    run(cpu, &e);
    expect(cpu, &e, TN_KVM_EXIT_MMIO);
    assert_int_equal(e.mmio.gpa, MMIO + off);
    assert_int_equal(e.mmio.len, len);
    assert_true(e.mmio.write);
    return tn_get_(e.mmio.data, len);
}

/* The vCPU has nothing to say for a while: it sleeps, or it is off. */
static inline void quiet(uint32_t cpu)
{
    struct tn_kvm_exit e;

    for (unsigned i = 0; i < 4; i++) {
        memset(&e, 0xee, sizeof(e));
        assert_int_equal(tn_kvm_run(&m.cpu[cpu], &e), 0);
        if (e.kind == TN_KVM_EXIT_MMIO)
            fail_msg("it said %#llx at %#llx", (unsigned long long)tn_get_(e.mmio.data, e.mmio.len),
                     (unsigned long long)e.mmio.gpa);
        assert_int_equal(e.kind, TN_KVM_EXIT_INTERRUPTED);
    }
}

/* Completes a vCPU's last access: it goes no further. */
static inline void settle(uint32_t cpu)
{
    struct tn_kvm_exit e;

    tn_kvm_interrupt(&m.cpu[cpu]);
    assert_int_equal(tn_kvm_run(&m.cpu[cpu], &e), 0);
    assert_int_equal(e.kind, TN_KVM_EXIT_INTERRUPTED);
    tn_kvm_interrupt_clear(&m.cpu[cpu]);
}

/* Each test's machine is gone when the test ends. */
#define T(name) cmocka_unit_test_teardown(name, stop)

/* From now on each vCPU is interrupted 50 times a second, also one that sleeps. */
static inline void kvm_open(void)
{
    const struct itimerspec often = {{0, 20000000}, {0, 20000000}};
    struct sigaction sa;
    struct sigevent sev;
    timer_t timer;

    memset(&sa, 0, sizeof(sa));
    memset(&sev, 0, sizeof(sev));
    sa.sa_handler = on_kick;
    sa.sa_flags = SA_RESTART;
    sigaction(KICK, &sa, NULL);
    sev.sigev_notify = SIGEV_SIGNAL;
    sev.sigev_signo = KICK;
    if (timer_create(CLOCK_MONOTONIC, &sev, &timer) == 0)
        (void)timer_settime(timer, 0, &often, NULL);
    (void)tn_kvm_open(&kvm, NULL);
}

#endif
