/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_kvm_arm64: vCPUs and their registers, PSCI, the GIC with its lines and descriptors, accesses
 * of all widths.
 */
#include "tn_kvm_arm64.h"

#include "kvm_guest_arm64.h"

#define CALL_VERSION      0x84000000u
#define CALL_CPU_OFF      0x84000002u
#define CALL_CPU_ON       0xc4000003u
#define CALL_SYSTEM_OFF   0x84000008u
#define CALL_SYSTEM_RESET 0x84000009u
#define MPIDR_EL1         ARM64_SYS_REG(3, 0, 0, 0, 5)

/* ---- on paper ---- */

static void the_affinity_of_each_number(void **state)
{
    static const struct {
        uint32_t id;
        uint64_t mpidr;
    } row[] = {
        {0, 0},
        {1, 1},
        {15, 15},
        {16, 0x100},
        {17, 0x101},
        {31, 0x10f},
        {255, 0xf0f},
        {256, 0x1000},
        {511, 0x1f0f},
        {4095, 0xff0f},
        {4096, 0x10000},
        {4113, 0x10101},
        {0xfffff, 0xffff0f},
        {0x100000, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++)
        assert_int_equal(tn_kvm_arm64_mpidr(row[i].id), row[i].mpidr);
}

static void the_size_is_in_the_id(void **state)
{
    (void)state;
    for (unsigned shift = 0; shift < 16; shift++) {
        uint64_t id = KVM_REG_ARM64 | (uint64_t)shift << KVM_REG_SIZE_SHIFT | 0xffff;

        assert_int_equal(tn_kvm_arm64_reg_size(id), shift < 8 ? 1u << shift : 256);
    }
    assert_int_equal(tn_kvm_arm64_reg_size(TN_KVM_ARM64_PC), 8);
    assert_int_equal(tn_kvm_arm64_reg_size(KVM_REG_SIZE_U128), 16);
    assert_int_equal(tn_kvm_arm64_reg_size(KVM_REG_SIZE_U2048), 256);
    /* As api.rst numbers them. */
    assert_int_equal(TN_KVM_ARM64_X(0), 0x6030000000100000);
    assert_int_equal(TN_KVM_ARM64_X(1), 0x6030000000100002);
    assert_int_equal(TN_KVM_ARM64_X(30), 0x603000000010003c);
    assert_int_equal(TN_KVM_ARM64_PC, 0x6030000000100040);
    assert_int_equal(TN_KVM_ARM64_PSTATE, 0x6030000000100042);
}

static void configurations_of_no_gic(void **state)
{
    static const struct {
        uint32_t version, cpus, spis;
    } row[] = {
        {1, 1, 32},   {4, 1, 32},   {~0u, 1, 32}, {3, 0, 32},   {0, 0, 32}, {3, 513, 32},
        {0, 513, 32}, {2, 9, 32},   {3, 1, 0},    {3, 1, 31},   {3, 1, 33}, {0, 1, 992},
        {3, 1, 1024}, {3, ~0u, 32}, {3, 1, ~0u},  {3, 1, ~31u},
    };
    struct tn_kvm_vm vm = {-1};

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        const struct tn_kvm_arm64_gic_cfg cfg = {row[i].version, row[i].cpus, row[i].spis,
                                                 DIST,           REDIST,      CPU_IF};
        struct tn_kvm_arm64_gic gic;

        memset(&gic, 0xee, sizeof(gic));
        assert_int_equal(tn_kvm_arm64_gic_init(&gic, &vm, &cfg), TN_EINVAL);
        assert_int_equal(gic.fd, -1);
    }
}

static void what_is_closed(void **state)
{
    const struct tn_kvm_arm64_gic_cfg cfg = {3, 1, 32, DIST, REDIST, CPU_IF};
    const struct tn_boot_arm64_cpu boot = {RAM_GPA, 0};
    struct tn_kvm_vm vm = {-1};
    struct tn_kvm_vcpu cpu;
    struct tn_kvm_arm64_gic gic;
    struct kvm_vcpu_events events;
    uint64_t v[2] = {0, 0};

#define CLOSED(call)                       \
    do {                                   \
        errno = 0;                         \
        assert_int_equal((call), TN_ESYS); \
        assert_int_equal(errno, EBADF);    \
    } while (0)
    (void)state;
    memset(&cpu, 0, sizeof(cpu));
    memset(&events, 0, sizeof(events));
    cpu.fd = -1;
    CLOSED(tn_kvm_arm64_vcpu_init(&vm, &cpu, 0));
    CLOSED(tn_kvm_arm64_set_boot(&cpu, &boot));
    CLOSED(tn_kvm_arm64_get_reg(&cpu, TN_KVM_ARM64_PC, v));
    CLOSED(tn_kvm_arm64_set_reg(&cpu, TN_KVM_ARM64_PC, v));
    CLOSED(tn_kvm_arm64_reg_list(&cpu, v, 2));
    CLOSED(tn_kvm_arm64_get_events(&cpu, &events));
    CLOSED(tn_kvm_arm64_set_events(&cpu, &events));
    CLOSED(tn_kvm_arm64_gic_init(&gic, &vm, &cfg));
    assert_int_equal(gic.fd, -1);
    CLOSED(tn_kvm_arm64_gic_start(&gic));
    CLOSED(tn_kvm_arm64_spi(&vm, 0, true));
    tn_kvm_arm64_gic_close(&gic);
}

/* ---- vCPUs ---- */

static void features_of_this_host(void **state)
{
    const uint32_t auth = 1u << KVM_ARM_VCPU_PTRAUTH_ADDRESS | 1u << KVM_ARM_VCPU_PTRAUTH_GENERIC;
    uint32_t features;

    (void)state;
    NEED_KVM();
    features = tn_kvm_arm64_features(&kvm);
    assert_int_equal(features & ~auth, 1u << KVM_ARM_VCPU_PSCI_0_2);
    assert_true((features & auth) == 0 || (features & auth) == auth);
    assert_int_equal((features & auth) != 0, tn_kvm_cap(&kvm, KVM_CAP_ARM_PTRAUTH_ADDRESS) > 0 &&
                                                 tn_kvm_cap(&kvm, KVM_CAP_ARM_PTRAUTH_GENERIC) > 0);
}

static void a_vcpu_is_made_with_its_features(void **state)
{
    struct tn_kvm_exit e;
    uint32_t mp;

    (void)state;
    NEED_KVM();
    start(3, NULL, 0);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(tn_kvm_get_mp_state(&m.cpu[i], &mp), 0);
        assert_int_equal(mp, i ? KVM_MP_STATE_STOPPED : KVM_MP_STATE_RUNNABLE);
        assert_int_equal(get_reg(i, TN_KVM_ARM64_PC), 0);
        assert_int_equal(get_reg(i, TN_KVM_ARM64_PSTATE), 0x3c5); /* DAIF, EL1 with SP_EL1 */
    }
    /* Again: all that it had is gone. */
    set_reg(0, TN_KVM_ARM64_PC, RAM_GPA);
    set_reg(0, TN_KVM_ARM64_X(3), 5);
    assert_int_equal(tn_kvm_arm64_vcpu_init(&m.vm, &m.cpu[0], tn_kvm_arm64_features(&kvm)), 0);
    assert_int_equal(get_reg(0, TN_KVM_ARM64_PC), 0);
    assert_int_equal(get_reg(0, TN_KVM_ARM64_X(3)), 0);
    /* Never with others, or with what nobody knows. */
    errno = 0;
    assert_int_equal(tn_kvm_arm64_vcpu_init(&m.vm, &m.cpu[0], 1u << 31), TN_ESYS);
    assert_true(errno == ENOENT || errno == EINVAL);
    assert_int_equal(tn_kvm_arm64_vcpu_init(&m.vm, &m.cpu[0], 0), TN_ESYS);
    assert_int_equal(errno, EINVAL);
    /* One that was not told what it is does not run, and has no registers. */
    stop(NULL);
    make(1);
    assert_int_equal(tn_kvm_vcpu_init(&kvm, &m.vm, &m.cpu[0], 0), 0);
    m.cpus = 1;
    assert_int_equal(tn_kvm_run(&m.cpu[0], &e), TN_ESYS);
    assert_int_equal(errno, ENOEXEC);
    assert_int_equal(tn_kvm_arm64_get_reg(&m.cpu[0], TN_KVM_ARM64_PC, &mp), TN_ESYS);
    assert_int_equal(errno, ENOEXEC);
}

static void what_a_guest_reads_of_its_number(void **state)
{
    static const uint32_t id[] = {0, 1, 15, 16, 17};

    (void)state;
    NEED_KVM();
    if (tn_kvm_cap(&kvm, KVM_CAP_MAX_VCPUS) < (int)MAX_CPUS)
        SKIP("the host has no 18 vCPUs");
    make(MAX_CPUS);
    NEED_GICV3();
    stop(NULL);
    start(MAX_CPUS, EVERY(mpidr));
    for (size_t i = 0; i < COUNT(id); i++) {
        uint64_t mpidr = get_reg(id[i], MPIDR_EL1);

        set_reg(id[i], TN_KVM_ARM64_PC, m.entry);
        assert_int_equal(tn_kvm_set_mp_state(&m.cpu[id[i]], KVM_MP_STATE_RUNNABLE), 0);
        says(id[i], 0, 8, mpidr);
        assert_int_equal(mpidr & 0xff00ffffff, tn_kvm_arm64_mpidr(id[i]));
    }
}

static void registers_by_id(void **state)
{
    static const uint64_t bad[] = {
        0,
        ~0ull,
        TN_KVM_ARM64_PC | 1,                                          /* half of it */
        KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | 0xffff, /* after the last */
        KVM_REG_ARM64 | KVM_REG_SIZE_U32 | KVM_REG_ARM_CORE | 0x40,   /* PC in 32 bits */
        KVM_REG_X86 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE,            /* another machine's */
        (TN_KVM_ARM64_PC & ~KVM_REG_SIZE_MASK) | KVM_REG_SIZE_U2048,
    };
    uint8_t value[256] = {0}, was[256];

    (void)state;
    NEED_KVM();
    start(1, EVERY(regs));
    for (unsigned n = 0; n <= 30; n++)
        set_reg(0, TN_KVM_ARM64_X(n), 0x1000000000000001u * n);
    set_reg(0, TN_KVM_ARM64_CORE(sp_el1), 0x123456780);
    set_reg(0, TN_KVM_ARM64_PSTATE, 0xa00003c5); /* N and C */
    for (unsigned n = 0; n <= 30; n++)
        assert_int_equal(get_reg(0, TN_KVM_ARM64_X(n)), 0x1000000000000001u * n);
    assert_int_equal(get_reg(0, TN_KVM_ARM64_PC), m.entry);
    says(0, 0, 8, 0x1000000000000001u);
    says(0, 8, 8, 0x1000000000000001u * 30);
    says(0, 16, 8, 0x123456780);
    says(0, 24, 8, 0xa0000000);
    settle(0);
    assert_int_equal(get_reg(0, TN_KVM_ARM64_PC), m.entry + 7 * 4);
    assert_int_equal(get_reg(0, TN_KVM_ARM64_PSTATE) & 0xf0000000, 0xa0000000);

    for (size_t i = 0; i < COUNT(bad); i++) {
        errno = 0;
        memset(value, 0x5a, sizeof(value));
        memcpy(was, value, sizeof(value));
        assert_int_equal(tn_kvm_arm64_get_reg(&m.cpu[0], bad[i], value), TN_ESYS);
        assert_true(errno == ENOENT || errno == EINVAL);
        assert_memory_equal(value, was, sizeof(value));
        errno = 0;
        assert_int_equal(tn_kvm_arm64_set_reg(&m.cpu[0], bad[i], value), TN_ESYS);
        assert_true(errno == ENOENT || errno == EINVAL);
    }
    assert_int_equal(tn_kvm_arm64_get_reg(&m.cpu[0], TN_KVM_ARM64_PC, NULL), TN_ESYS);
    assert_int_equal(errno, EFAULT);
    /* A state that no CPU of ours may be in: 32-bit, or EL2. */
    tn_put_(value, 8, 0x1d3);
    assert_int_equal(tn_kvm_arm64_set_reg(&m.cpu[0], TN_KVM_ARM64_PSTATE, value), TN_ESYS);
    assert_int_equal(errno, EINVAL);
    tn_put_(value, 8, 0x3c9);
    assert_int_equal(tn_kvm_arm64_set_reg(&m.cpu[0], TN_KVM_ARM64_PSTATE, value), TN_ESYS);
    assert_int_equal(errno, EINVAL);
}

/* All that is on the list can be read, and written back as it is, with not a byte more. */
static void every_register_of_the_list(void **state)
{
    static uint64_t list[TN_KVM_ARM64_MAX_REGS + 1];
    unsigned found[5] = {0};
    int n;

    (void)state;
    NEED_KVM();
    start(2, NULL, 0);
    list[TN_KVM_ARM64_MAX_REGS] = 0x5a;
    n = tn_kvm_arm64_reg_list(&m.cpu[0], list, TN_KVM_ARM64_MAX_REGS);
    assert_in_range(n, 100, TN_KVM_ARM64_MAX_REGS);
    assert_int_equal(list[TN_KVM_ARM64_MAX_REGS], 0x5a);
    for (int i = 0; i < n; i++) {
        uint8_t value[256 + 1];
        size_t size = tn_kvm_arm64_reg_size(list[i]);

        memset(value, 0x5a, sizeof(value));
        assert_int_equal(tn_kvm_arm64_get_reg(&m.cpu[1], list[i], value), 0);
        for (size_t k = size; k < sizeof(value); k++)
            assert_int_equal(value[k], 0x5a);
        if (tn_kvm_arm64_set_reg(&m.cpu[1], list[i], value) != 0)
            fail_msg("register %#llx cannot be written back: errno %d", (unsigned long long)list[i],
                     errno);
        found[0] += list[i] == TN_KVM_ARM64_PC;
        found[1] += list[i] == TN_KVM_ARM64_X(30);
        found[2] += list[i] == MPIDR_EL1;
        found[3] += list[i] == KVM_REG_ARM_TIMER_CVAL;
        found[4] += list[i] == KVM_REG_ARM_PSCI_VERSION;
    }
    for (size_t i = 0; i < COUNT(found); i++)
        assert_int_equal(found[i], 1);
    assert_int_equal(tn_kvm_arm64_reg_list(&m.cpu[0], list, (uint32_t)n), n);
    list[n - 1] = 0x5a;
    assert_int_equal(tn_kvm_arm64_reg_list(&m.cpu[0], list, (uint32_t)n - 1), TN_ENOSPC);
    assert_int_equal(tn_kvm_arm64_reg_list(&m.cpu[0], list, 0), TN_ENOSPC);
    assert_int_equal(list[n - 1], 0x5a);
}

static void an_serror_that_is_pending(void **state)
{
    struct kvm_vcpu_events events;

    (void)state;
    NEED_KVM();
    start(1, NULL, 0);
    memset(&events, 0xee, sizeof(events));
    assert_int_equal(tn_kvm_arm64_get_events(&m.cpu[0], &events), 0);
    assert_int_equal(events.exception.serror_pending, 0);
    events.exception.serror_pending = 1;
    assert_int_equal(tn_kvm_arm64_set_events(&m.cpu[0], &events), 0);
    memset(&events, 0, sizeof(events));
    assert_int_equal(tn_kvm_arm64_get_events(&m.cpu[0], &events), 0);
    assert_int_equal(events.exception.serror_pending, 1);
}

/* ---- accesses ---- */

static void accesses_of_all_widths(void **state)
{
    (void)state;
    NEED_KVM();
    start(1, EVERY(widths));
    set_reg(0, TN_KVM_ARM64_X(20), 0x8877665544332211);
    mmio(0, false, MMIO + 0x11, 1, 0x91);
    mmio(0, false, MMIO + 0x12, 2, 0x9192);
    mmio(0, false, MMIO + 0x14, 4, 0x91929394);
    mmio(0, false, MMIO + 0x18, 8, 0x9192939495969798);
    says(0, 0, 8, 0x91);
    says(0, 0, 8, 0x9192);
    says(0, 0, 8, 0x91929394);
    says(0, 0, 8, 0x9192939495969798);
    says(0, 0x21, 1, 0x11);
    says(0, 0x22, 2, 0x2211);
    says(0, 0x24, 4, 0x44332211);
    says(0, 0x28, 8, 0x8877665544332211);
}

/* ---- PSCI ---- */

/* A vCPU that asked for its next call makes this one. */
static void call(uint32_t cpu, uint32_t function, uint64_t a, uint64_t b, uint64_t c)
{
    mmio(cpu, false, MMIO + 0x10, 8, function);
    mmio(cpu, false, MMIO + 0x18, 8, a);
    mmio(cpu, false, MMIO + 0x20, 8, b);
    mmio(cpu, false, MMIO + 0x28, 8, c);
}

static void psci_switches_cpus_on_and_off(void **state)
{
    struct tn_kvm_exit e;
    uint32_t mp;

    (void)state;
    NEED_KVM();
    start(2, EVERY(psci));
    says(0, 0, 8, 0);
    call(0, CALL_VERSION, 0, 0, 0);
    assert_in_range(hear(0, 0, 8), 2, 0x1ffff); /* 0.2 or later */
    call(0, CALL_CPU_ON, 5, RAM_GPA, 0);        /* there is no such */
    says(0, 0, 8, (uint64_t)-2);
    call(0, CALL_CPU_ON, 0, RAM_GPA, 0); /* itself */
    says(0, 0, 8, (uint64_t)-4);
    call(0, CALL_CPU_ON, tn_kvm_arm64_mpidr(1), m.entry, 0x1122334455667788);
    says(0, 0, 8, 0);
    assert_int_equal(tn_kvm_get_mp_state(&m.cpu[1], &mp), 0);
    assert_int_equal(mp, KVM_MP_STATE_RUNNABLE);
    says(1, 0, 8, 0x1122334455667788);
    call(0, CALL_CPU_ON, 1, RAM_GPA, 0);
    says(0, 0, 8, (uint64_t)-4);
    /* It switches itself off, and sleeps in the kernel until the next time. */
    call(1, CALL_CPU_OFF, 0, 0, 0);
    quiet(1);
    assert_int_equal(tn_kvm_get_mp_state(&m.cpu[1], &mp), 0);
    assert_int_equal(mp, KVM_MP_STATE_STOPPED);
    call(0, CALL_CPU_ON, 1, m.entry, 7);
    says(0, 0, 8, 0);
    says(1, 0, 8, 7);

    call(1, CALL_SYSTEM_OFF, 0, 0, 0);
    run(1, &e);
    expect(1, &e, TN_KVM_EXIT_SYSTEM_EVENT);
    assert_int_equal(e.reason, KVM_EXIT_SYSTEM_EVENT);
    assert_int_equal(e.event.type, KVM_SYSTEM_EVENT_SHUTDOWN);
}

static void psci_resets_the_machine(void **state)
{
    struct tn_kvm_exit e;

    (void)state;
    NEED_KVM();
    start(1, EVERY(psci));
    says(0, 0, 8, 0);
    call(0, CALL_SYSTEM_RESET, 0, 0, 0);
    run(0, &e);
    expect(0, &e, TN_KVM_EXIT_SYSTEM_EVENT);
    assert_int_equal(e.event.type, KVM_SYSTEM_EVENT_RESET);
    /* From its first instruction on again, as it is to be done. */
    assert_int_equal(tn_kvm_arm64_vcpu_init(&m.vm, &m.cpu[0], tn_kvm_arm64_features(&kvm)), 0);
    assert_int_equal(tn_kvm_arm64_set_boot(&m.cpu[0], &(struct tn_boot_arm64_cpu){m.entry, 0x77}),
                     0);
    says(0, 0, 8, 0x77);
}

/* ---- the GIC ---- */

static void a_gic_where_none_can_be(void **state)
{
    struct tn_kvm_arm64_gic_cfg cfg = {3, 1, 32, DIST, REDIST, CPU_IF};
    struct tn_kvm_arm64_gic gic;

    (void)state;
    NEED_KVM();
    make(1);
    NEED_GICV3();
    /* There is one already. */
    assert_int_equal(tn_kvm_arm64_gic_init(&gic, &m.vm, &cfg), TN_ESYS);
    assert_int_equal(errno, EEXIST);
    assert_int_equal(gic.fd, -1);
    cfg.version = 2;
    assert_int_equal(tn_kvm_arm64_gic_init(&gic, &m.vm, &cfg), TN_ESYS);
    assert_true(errno == EEXIST || errno == ENODEV);
    cfg.version = 0;
    assert_int_equal(tn_kvm_arm64_gic_init(&gic, &m.vm, &cfg), TN_ESYS);
    assert_true(errno == EEXIST || errno == ENODEV);
    assert_int_equal(gic.fd, -1);
    for (unsigned i = 0; i < 4; i++) {
        stop(NULL);
        alarm(120);
        assert_int_equal(tn_kvm_vm_init(&kvm, &m.vm), 0);
        cfg.version = 3;
        cfg.dist = i == 0 ? DIST + 0x1000 : DIST;
        cfg.redist = i == 1 ? REDIST + 0x1000 : i == 2 ? 1ull << 60 : REDIST;
        if (i == 3)
            cfg.redist = DIST; /* on the distributor: some hosts find out only in the end */
        errno = 0;
        if (tn_kvm_arm64_gic_init(&gic, &m.vm, &cfg) == 0) {
            assert_int_equal(i, 3);
            assert_int_equal(tn_kvm_vcpu_init(&kvm, &m.vm, &m.cpu[0], 0), 0);
            assert_int_equal(tn_kvm_arm64_vcpu_init(&m.vm, &m.cpu[0], tn_kvm_arm64_features(&kvm)),
                             0);
            (void)tn_kvm_arm64_gic_start(&gic);
            tn_kvm_vcpu_close(&m.cpu[0]);
            tn_kvm_arm64_gic_close(&gic);
        } else {
            assert_true(errno == EINVAL || errno == E2BIG);
        }
        assert_int_equal(gic.fd, -1);
        tn_kvm_vm_close(&m.vm);
    }
}

static void a_gic_needs_its_cpus(void **state)
{
    (void)state;
    NEED_KVM();
    make(2);
    NEED_GICV3();
    assert_int_equal(tn_kvm_vcpu_init(&kvm, &m.vm, &m.cpu[0], 0), 0);
    m.cpus = 1;
    tn_kvm_arm64_gic_close(&m.gic); /* twice does no harm */
    tn_kvm_arm64_gic_close(&m.gic);
    assert_int_equal(tn_kvm_arm64_gic_start(&m.gic), TN_ESYS);
    assert_int_equal(errno, EBADF);
}

static void a_gicv2_where_the_host_has_it(void **state)
{
    const struct tn_kvm_arm64_gic_cfg cfg = {2, 8, 64, DIST, REDIST, CPU_IF};
    int r;

    (void)state;
    NEED_KVM();
    alarm(120);
    assert_int_equal(tn_kvm_vm_init(&kvm, &m.vm), 0);
    r = tn_kvm_arm64_gic_init(&m.gic, &m.vm, &cfg);
    m.ram = mmap(NULL, RAM, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* for stop */
    if (r < 0) {
        assert_int_equal(r, TN_ESYS);
        assert_int_equal(errno, ENODEV);
        assert_int_equal(m.gic.fd, -1);
        SKIP("the host has no GICv2");
    }
    assert_int_equal(m.gic.version, 2);
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(tn_kvm_vcpu_init(&kvm, &m.vm, &m.cpu[i], i), 0);
        m.cpus++;
        assert_int_equal(tn_kvm_arm64_vcpu_init(&m.vm, &m.cpu[i], tn_kvm_arm64_features(&kvm)), 0);
    }
    assert_int_equal(tn_kvm_arm64_gic_start(&m.gic), 0);
    assert_int_equal(tn_kvm_arm64_spi(&m.vm, 63, true), 0);
}

#define EDGE(spi) (2u << 2 * (spi)) /* in GICD_ICFGR2, of SPIs 0 to 15 */

static void a_level_stays_until_it_is_lowered(void **state)
{
    (void)state;
    NEED_KVM();
    start(1, EVERY(irq));
    NEED_GICV3();
    says(0, 0x10, 4, 0);
    quiet(0);
    for (uint32_t spi = 0; spi < SPIS; spi += 21) { /* 0, 21, 42, 63 */
        assert_int_equal(tn_kvm_arm64_spi(&m.vm, spi, true), 0);
        says(0, 0x18, 4, 32 + spi);
        says(0, 0x18, 4, 32 + spi); /* it was ended, and is there still */
        assert_int_equal(tn_kvm_arm64_spi(&m.vm, spi, false), 0);
        quiet(0);
    }
    /* Lowered before anybody looked. */
    assert_int_equal(tn_kvm_arm64_spi(&m.vm, 3, true), 0);
    assert_int_equal(tn_kvm_arm64_spi(&m.vm, 3, false), 0);
    quiet(0);
    assert_int_equal(tn_kvm_arm64_spi(&m.vm, SPIS, true), TN_ESYS);
    assert_int_equal(errno, EINVAL);
}

static void an_edge_comes_once(void **state)
{
    (void)state;
    NEED_KVM();
    start(1, EVERY(irq));
    NEED_GICV3();
    set_reg(0, TN_KVM_ARM64_X(21), EDGE(5) | EDGE(15));
    says(0, 0x10, 4, EDGE(5) | EDGE(15));
    assert_int_equal(tn_kvm_arm64_spi(&m.vm, 5, true), 0);
    says(0, 0x18, 4, 37);
    quiet(0);
    assert_int_equal(tn_kvm_arm64_spi(&m.vm, 5, true), 0); /* KVM takes each as one */
    says(0, 0x18, 4, 37);
    quiet(0);
    assert_int_equal(tn_kvm_arm64_spi(&m.vm, 5, false), 0);
    quiet(0);
    assert_int_equal(tn_kvm_arm64_spi(&m.vm, 15, true), 0);
    assert_int_equal(tn_kvm_arm64_spi(&m.vm, 15, false), 0);
    says(0, 0x18, 4, 47); /* a pulse is kept */
    quiet(0);
    /* While it is being served: once more. */
    assert_int_equal(tn_kvm_arm64_spi(&m.vm, 15, true), 0);
    says(0, 0x18, 4, 47);
    assert_int_equal(tn_kvm_arm64_spi(&m.vm, 15, false), 0);
    assert_int_equal(tn_kvm_arm64_spi(&m.vm, 15, true), 0);
    says(0, 0x18, 4, 47);
    quiet(0);
}

static void descriptors_raise_interrupts(void **state)
{
    const uint64_t one = 1;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), back = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uint64_t n = 0;

    (void)state;
    NEED_KVM();
    assert_true(fd >= 0 && back >= 0);
    start(1, EVERY(irq));
    NEED_GICV3();
    set_reg(0, TN_KVM_ARM64_X(21), EDGE(9));
    says(0, 0x10, 4, EDGE(9));
    /* gsi n is SPI n. */
    assert_int_equal(tn_kvm_irqfd(&m.vm, fd, 9, 0, -1), 0);
    assert_int_equal(write(fd, &one, 8), 8);
    says(0, 0x18, 4, 41);
    quiet(0);
    assert_int_equal(tn_kvm_irqfd(&m.vm, fd, 9, KVM_IRQFD_FLAG_DEASSIGN, -1), 0);
    assert_int_equal(write(fd, &one, 8), 8);
    quiet(0);
    assert_int_equal(read(fd, &n, 8), 8);
    /* A level, with the end of the interrupt told. */
    assert_int_equal(tn_kvm_irqfd(&m.vm, fd, 50, KVM_IRQFD_FLAG_RESAMPLE, back), 0);
    assert_int_equal(write(fd, &one, 8), 8);
    says(0, 0x18, 4, 82);
    assert_int_equal(read(back, &n, 8), -1);
    quiet(0);
    assert_int_equal(read(back, &n, 8), 8);
    assert_int_equal(tn_kvm_irqfd(&m.vm, fd, 50, KVM_IRQFD_FLAG_DEASSIGN, -1), 0);
    close(fd);
    close(back);
}

static void stores_signal_descriptors(void **state)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uint64_t n = 0;

    (void)state;
    NEED_KVM();
    assert_true(fd >= 0);
    start(1, EVERY(count));
    says(0, 0, 8, 1);
    says(0, 8, 8, 3);
    /* x1, but not d31, and only its number 3. */
    assert_int_equal(tn_kvm_ioeventfd(&m.vm, MMIO, 8, fd, KVM_IOEVENTFD_FLAG_DATAMATCH, 3), 0);
    says(0, 0, 8, 2);
    says(0, 8, 8, 6);
    assert_int_equal(read(fd, &n, 8), -1);
    says(0, 8, 8, 9);
    assert_int_equal(read(fd, &n, 8), 8);
    assert_int_equal(n, 1);
    says(0, 0, 8, 4);
    assert_int_equal(tn_kvm_ioeventfd(&m.vm, MMIO, 8, fd,
                                      KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_DEASSIGN,
                                      3),
                     0);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(the_affinity_of_each_number),
        T(the_size_is_in_the_id),
        T(configurations_of_no_gic),
        T(what_is_closed),
        T(features_of_this_host),
        T(a_vcpu_is_made_with_its_features),
        T(what_a_guest_reads_of_its_number),
        T(registers_by_id),
        T(every_register_of_the_list),
        T(an_serror_that_is_pending),
        T(accesses_of_all_widths),
        T(psci_switches_cpus_on_and_off),
        T(psci_resets_the_machine),
        T(a_gic_where_none_can_be),
        T(a_gic_needs_its_cpus),
        T(a_gicv2_where_the_host_has_it),
        T(a_level_stays_until_it_is_lowered),
        T(an_edge_comes_once),
        T(descriptors_raise_interrupts),
        T(stores_signal_descriptors),
    };

    kvm_open();
    return cmocka_run_group_tests_name("kvm_arm64", tests, NULL, NULL);
}
