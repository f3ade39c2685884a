/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_kvm_arm64_state: machines that are saved, restored and saved again; guests that go on where
 * they were, with what was pending for them; files that nobody has written; hosts that differ.
 */
#include "tn_kvm_arm64_state.h"

#include "kvm_guest_arm64.h"

#define SHOT_CPUS 3u

static struct tn_kvm_arm64_host host;

/* A machine at rest. */
static struct shot {
    struct tn_kvm_arm64_vcpu_state cpu[SHOT_CPUS];
    struct tn_kvm_arm64_gic_state gic;
    struct tn_kvm_arm64_gic_cpu gic_cpu[SHOT_CPUS];
    struct tn_kvm_arm64_time time;
    uint32_t cpus;
    uint8_t ram[RAM];
} golden, again;

/* ---- save and restore ---- */

/* A save without running anything. */
static void save(struct shot *s)
{
    memset(s, 0xee, sizeof(*s));
    s->cpus = m.cpus;
    s->gic.cpu = s->gic_cpu;
    assert_int_equal(tn_kvm_arm64_gic_save(&m.gic, &s->gic), 0);
    assert_int_equal(s->gic.cpus, m.cpus);
    assert_int_equal(s->gic.spis, SPIS);
    for (uint32_t i = 0; i < m.cpus; i++)
        assert_int_equal(tn_kvm_arm64_vcpu_save(&host, &m.cpu[i], &s->cpu[i]), 0);
    assert_int_equal(tn_kvm_arm64_time_save(&host, &m.cpu[0], &s->time), 0);
    memcpy(s->ram, m.ram, RAM);
}

static void take(struct shot *s)
{
    for (uint32_t i = 0; i < m.cpus; i++)
        settle(i);
    save(s);
}

/* Into the machine that there is. */
static void put(const struct shot *s, bool stopped)
{
    struct tn_kvm_arm64_refused refused;

    assert_int_equal(s->cpus, m.cpus);
    memcpy(m.ram, s->ram, RAM);
    __builtin___clear_cache((char *)m.ram, (char *)m.ram + RAM);
    assert_int_equal(tn_kvm_arm64_time_restore(&m.cpu[0], &s->time, stopped), 0);
    for (uint32_t i = 0; i < m.cpus; i++) {
        int r = tn_kvm_arm64_vcpu_restore(&m.cpu[i], &s->cpu[i], &refused);

        if (r < 0)
            fail_msg("CPU %u: %d, errno %d, part %u, register %#llx = %#llx", i, r, errno,
                     refused.part, (unsigned long long)refused.id,
                     (unsigned long long)refused.data);
        assert_int_equal(refused.part, TN_KVM_ARM64_PART_NONE);
    }
    assert_int_equal(tn_kvm_arm64_gic_restore(&m.gic, &s->gic), 0);
}

/* Into one of its own. */
static void put_fresh(const struct shot *s, bool stopped)
{
    struct tn_kvm_arm64_lack lack;

    stop(NULL);
    start(s->cpus, NULL, 0);
    for (uint32_t i = 0; i < m.cpus; i++) {
        assert_int_equal(tn_kvm_arm64_state_check(&host, &s->cpu[i], &lack), 0);
        assert_int_equal(lack.kind, TN_KVM_ARM64_LACK_NONE);
    }
    assert_int_equal(tn_kvm_arm64_time_check(&host, &s->time, &lack), 0);
    put(s, stopped);
}

/* In place: the machine has run, and may be in the midst of an access. */
static void put_back(const struct shot *s)
{
    for (uint32_t i = 0; i < m.cpus; i++) {
        assert_int_equal(tn_kvm_arm64_vcpu_drop(&m.cpu[i]), 0);
        tn_kvm_interrupt_clear(&m.cpu[i]);
    }
    put(s, true);
}

/* Two saves of a machine that has not run in between. */
static void same(const struct shot *a, const struct shot *b)
{
    assert_int_equal(a->cpus, b->cpus);
    for (uint32_t i = 0; i < a->cpus; i++) {
        const struct tn_kvm_arm64_vcpu_state *x = &a->cpu[i], *y = &b->cpu[i];

        assert_int_equal(x->reg_count, y->reg_count);
        for (uint32_t k = 0; k < x->reg_count; k++) {
            if (memcmp(&x->reg[k], &y->reg[k], sizeof(x->reg[k])) != 0)
                fail_msg("CPU %u: register %#llx was %#llx, is %#llx", i,
                         (unsigned long long)x->reg[k].id, (unsigned long long)x->reg[k].value[0],
                         (unsigned long long)y->reg[k].value[0]);
        }
        assert_memory_equal(x, y, sizeof(*x));
        assert_memory_equal(&a->gic_cpu[i], &b->gic_cpu[i], sizeof(a->gic_cpu[i]));
    }
    assert_memory_equal(a->gic.dist, b->gic.dist, sizeof(a->gic.dist));
}

static void need_gicv3(void)
{
    const struct tn_kvm_arm64_gic_cfg cfg = {3, 1, 32, DIST, REDIST, CPU_IF};
    struct tn_kvm_arm64_gic gic;
    struct tn_kvm_vm vm;
    int r;

    assert_int_equal(tn_kvm_vm_init(&kvm, &vm), 0);
    r = tn_kvm_arm64_gic_init(&gic, &vm, &cfg);
    tn_kvm_arm64_gic_close(&gic);
    tn_kvm_vm_close(&vm);
    if (r < 0)
        SKIP("the host has no GICv3: nothing is saved");
}
#define NEED_ALL()    \
    do {              \
        NEED_KVM();   \
        need_gicv3(); \
    } while (0)

/* ---- the host ---- */

static void the_host_is_asked(void **state)
{
    static struct tn_kvm_arm64_host other;
    struct tn_kvm none = kvm;

    (void)state;
    NEED_KVM();
    assert_int_equal(host.features, tn_kvm_arm64_features(&kvm));
    assert_in_range(host.counter_hz, 1000000, 1000000000);
    assert_in_range(host.reg_count, 100, TN_KVM_ARM64_MAX_REGS);
    none.fd = -1;
    memset(&other, 0xee, sizeof(other));
    assert_int_equal(tn_kvm_arm64_host_init(&none, &other), TN_ESYS);
    assert_int_equal(errno, EBADF);
    assert_int_equal(other.features | other.reg_count | other.counter_hz, 0);
}

/* ---- negative ---- */

static void restore_refuses_what_no_save_writes(void **state)
{
    struct tn_kvm_arm64_vcpu_state *s = &golden.cpu[0];
    static struct tn_kvm_arm64_vcpu_state good;
    struct tn_kvm_arm64_refused refused;
    struct tn_kvm_arm64_lack lack;

    (void)state;
    NEED_ALL();
    start(1, EVERY(count));
    take(&golden);
    good = *s;
    for (unsigned i = 0; i < 10; i++) {
        *s = good;
        switch (i) {
        case 0:
            s->reg_count = TN_KVM_ARM64_MAX_REGS + 1;
            break;
        case 1:
            s->reg_count = UINT32_MAX;
            break;
        case 2:
            s->mp_state = KVM_MP_STATE_HALTED;
            break;
        case 3:
            s->mp_state = UINT32_MAX;
            break;
        case 4:
            s->mp_state = KVM_MP_STATE_UNINITIALIZED;
            break;
        case 5: /* 32 bytes: more than there are */
            s->reg[0].id = (s->reg[0].id & ~KVM_REG_SIZE_MASK) | KVM_REG_SIZE_U256;
            break;
        case 6:
            s->reg[s->reg_count - 1].id |= KVM_REG_SIZE_MASK;
            break;
        case 7:
            s->reg[1].id = KVM_REG_ARM_TIMER_CNT;
            break;
        case 8:
            s->reg[s->reg_count / 2].id = KVM_REG_ARM_PTIMER_CNT;
            break;
        default:
            s->mp_state = KVM_MP_STATE_SUSPENDED;
            break;
        }
        memset(&refused, 0xee, sizeof(refused));
        assert_int_equal(tn_kvm_arm64_vcpu_restore(&m.cpu[0], s, &refused), TN_EFORMAT);
        assert_int_equal(refused.part, TN_KVM_ARM64_PART_STATE);
        assert_int_equal(tn_kvm_arm64_vcpu_restore(&m.cpu[0], s, NULL), TN_EFORMAT);
        memset(&lack, 0xee, sizeof(lack));
        if (i < 2)
            assert_int_equal(tn_kvm_arm64_state_check(&host, s, &lack), TN_EFORMAT);
    }
    *s = good;
    put(&golden, true);
    says(0, 0, 8, 1);
}

static void restore_names_what_kvm_refuses(void **state)
{
    struct tn_kvm_arm64_vcpu_state *s = &golden.cpu[0];
    static struct tn_kvm_arm64_vcpu_state good;
    struct tn_kvm_arm64_refused refused;
    uint32_t at = 0;

    (void)state;
    NEED_ALL();
    start(1, EVERY(count));
    for (uint64_t i = 1; i <= 3; i++) {
        says(0, 0, 8, i);
        says(0, 8, 8, 3 * i);
    }
    take(&golden);
    good = *s;
    for (unsigned i = 0; i < 5; i++) {
        uint32_t part = TN_KVM_ARM64_PART_REGS;

        *s = good;
        at = s->reg_count / 2;
        switch (i) {
        case 0: /* not there */
            s->reg[at].id = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | 0xffff;
            break;
        case 1:
            at = s->reg_count - 1;
            s->reg[at].id = 0;
            break;
        case 2: /* 32-bit: KVM refuses it of a CPU that is not */
            for (at = 0; s->reg[at].id != TN_KVM_ARM64_PSTATE; at++)
                ;
            s->reg[at].value[0] = 0x1d3;
            break;
        case 3: /* of another machine */
            at = 0;
            s->reg[at].id ^= KVM_REG_ARM64 ^ KVM_REG_X86;
            break;
        default:
            s->serror = TN_KVM_ARM64_SERROR | TN_KVM_ARM64_SERROR_ESR;
            s->serror_syndrome = ~0ull;
            part = TN_KVM_ARM64_PART_EVENTS;
            break;
        }
        memset(&refused, 0xee, sizeof(refused));
        assert_int_equal(tn_kvm_arm64_vcpu_restore(&m.cpu[0], s, &refused), TN_ESYS);
        assert_int_equal(refused.part, part);
        assert_int_equal(refused.id, part == TN_KVM_ARM64_PART_REGS ? s->reg[at].id : 0);
        assert_int_equal(refused.data, part == TN_KVM_ARM64_PART_REGS ? s->reg[at].value[0] : 0);
        assert_int_equal(tn_kvm_arm64_vcpu_restore(&m.cpu[0], s, NULL), TN_ESYS);
    }
    *s = good; /* it may be restored still */
    put(&golden, true);
    says(0, 0, 8, 4);
    says(0, 8, 8, 12);
}

static void a_gic_of_another_make(void **state)
{
    struct tn_kvm_arm64_gic gic;
    struct tn_kvm_arm64_gic_state *s = &golden.gic;

    (void)state;
    NEED_ALL();
    start(2, NULL, 0);
    take(&golden);
    s->spis = 32;
    assert_int_equal(tn_kvm_arm64_gic_restore(&m.gic, s), TN_EINVAL);
    s->spis = UINT32_MAX;
    assert_int_equal(tn_kvm_arm64_gic_restore(&m.gic, s), TN_EINVAL);
    s->spis = SPIS;
    s->cpus = 1;
    assert_int_equal(tn_kvm_arm64_gic_restore(&m.gic, s), TN_EINVAL);
    s->cpus = 3;
    assert_int_equal(tn_kvm_arm64_gic_restore(&m.gic, s), TN_EINVAL);
    s->cpus = 2;
    gic = m.gic;
    gic.version = 2;
    assert_int_equal(tn_kvm_arm64_gic_save(&gic, s), TN_EUNSUP);
    assert_int_equal(tn_kvm_arm64_gic_restore(&gic, s), TN_EUNSUP);
    gic = m.gic;
    gic.spis = s->spis = 96;
    assert_int_equal(tn_kvm_arm64_gic_save(&gic, s), TN_EUNSUP);
    assert_int_equal(tn_kvm_arm64_gic_restore(&gic, s), TN_EINVAL);
    s->spis = SPIS;
    gic = m.gic;
    gic.fd = -1;
    assert_int_equal(tn_kvm_arm64_gic_save(&gic, s), TN_ESYS);
    assert_int_equal(errno, EBADF);
    assert_int_equal(tn_kvm_arm64_gic_restore(&gic, s), TN_ESYS);
    assert_int_equal(errno, EBADF);
    assert_int_equal(tn_kvm_arm64_gic_save(&m.gic, s), 0);
    /* More bits of priority than any hardware has. */
    s->cpu[1].icc[1] |= 7u << 8;
    assert_int_equal(tn_kvm_arm64_gic_restore(&m.gic, s), TN_ESYS);
    assert_int_equal(errno, EINVAL);
}

static void what_is_closed(void **state)
{
    struct tn_kvm_vcpu cpu;

    (void)state;
    NEED_KVM();
    memset(&cpu, 0, sizeof(cpu));
    cpu.fd = -1;
    memset(&golden, 0, sizeof(golden));
    assert_int_equal(tn_kvm_arm64_vcpu_save(&host, &cpu, &golden.cpu[0]), TN_ESYS);
    assert_int_equal(errno, EBADF);
    assert_int_equal(tn_kvm_arm64_vcpu_restore(&cpu, &golden.cpu[0], NULL), TN_ESYS);
    assert_int_equal(errno, EBADF);
    assert_int_equal(tn_kvm_arm64_time_save(&host, &cpu, &golden.time), TN_ESYS);
    assert_int_equal(errno, EBADF);
    assert_int_equal(tn_kvm_arm64_time_restore(&cpu, &golden.time, true), TN_ESYS);
    assert_int_equal(errno, EBADF);
}

/* ---- the same ---- */

static void a_machine_that_has_not_run(void **state)
{
    (void)state;
    NEED_ALL();
    start(3, NULL, 0);
    save(&golden);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(golden.cpu[i].mp_state, i ? KVM_MP_STATE_STOPPED : KVM_MP_STATE_RUNNABLE);
        assert_int_equal(golden.cpu[i].features, host.features);
        assert_int_equal(golden.cpu[i].serror & TN_KVM_ARM64_SERROR, 0);
        for (uint32_t k = 0; k < golden.cpu[i].reg_count; k++) {
            assert_int_not_equal(golden.cpu[i].reg[k].id, KVM_REG_ARM_TIMER_CNT);
            assert_int_not_equal(golden.cpu[i].reg[k].id, KVM_REG_ARM_PTIMER_CNT);
        }
    }
    put_fresh(&golden, true);
    save(&again);
    same(&golden, &again);
    put_back(&golden);
    save(&again);
    same(&golden, &again);
}

/* Each register that may have any value has one, and a new machine has it then. */
static void every_register_comes_back(void **state)
{
    static const struct {
        uint64_t id;
        uint64_t any; /* bits that may be anything */
    } row[] = {
        {ARM64_SYS_REG(3, 3, 13, 0, 2), ~0ull},      /* TPIDR_EL0 */
        {ARM64_SYS_REG(3, 3, 13, 0, 3), ~0ull},      /* TPIDRRO_EL0 */
        {ARM64_SYS_REG(3, 0, 13, 0, 4), ~0ull},      /* TPIDR_EL1 */
        {ARM64_SYS_REG(3, 0, 13, 0, 1), 0xffffffff}, /* CONTEXTIDR_EL1 */
        {ARM64_SYS_REG(3, 0, 12, 0, 0), ~0x7ffull},  /* VBAR_EL1 */
        {ARM64_SYS_REG(3, 0, 10, 2, 0), ~0ull},      /* MAIR_EL1 */
        {ARM64_SYS_REG(3, 0, 2, 0, 0), ~0ull},       /* TTBR0_EL1 */
        {ARM64_SYS_REG(3, 0, 2, 0, 1), ~0ull},       /* TTBR1_EL1 */
        {ARM64_SYS_REG(3, 0, 2, 0, 2), ~0ull},       /* TCR_EL1 */
        {ARM64_SYS_REG(3, 0, 5, 2, 0), 0xffffffff},  /* ESR_EL1 */
        {ARM64_SYS_REG(3, 0, 6, 0, 0), ~0ull},       /* FAR_EL1 */
        {ARM64_SYS_REG(3, 0, 7, 4, 0), ~0ull},       /* PAR_EL1 */
        {ARM64_SYS_REG(3, 0, 14, 1, 0), 0xff},       /* CNTKCTL_EL1 */
        {ARM64_SYS_REG(2, 0, 0, 0, 4), ~3ull},       /* DBGBVR0_EL1 */
        {TN_KVM_ARM64_CORE(sp_el1), ~0ull},
        {TN_KVM_ARM64_CORE(regs.sp), ~0ull},
        {TN_KVM_ARM64_CORE(elr_el1), ~0ull},
        {TN_KVM_ARM64_CORE(spsr[0]), 0xf00003cf},
        {KVM_REG_ARM_TIMER_CVAL, ~0ull},
    };
    const uint64_t v0 =
        (TN_KVM_ARM64_CORE(fp_regs.vregs[0]) & ~KVM_REG_SIZE_MASK) | KVM_REG_SIZE_U128;
    uint64_t random = 42, pair[2], back[2];

    (void)state;
    NEED_ALL();
    start(2, EVERY(count));
    for (uint32_t cpu = 0; cpu < 2; cpu++) {
        for (size_t i = 0; i < COUNT(row); i++)
            set_reg(cpu, row[i].id, test_random(&random) & row[i].any);
        for (unsigned n = 0; n <= 30; n++)
            set_reg(cpu, TN_KVM_ARM64_X(n), test_random(&random));
        for (unsigned n = 0; n < 32; n++) {
            pair[0] = test_random(&random);
            pair[1] = test_random(&random);
            assert_int_equal(tn_kvm_arm64_set_reg(&m.cpu[cpu], v0 + 4 * n, pair), 0);
        }
    }
    save(&golden);
    put_fresh(&golden, true);
    random = 42;
    for (uint32_t cpu = 0; cpu < 2; cpu++) {
        for (size_t i = 0; i < COUNT(row); i++) {
            uint64_t want = test_random(&random) & row[i].any;

            if (get_reg(cpu, row[i].id) != want)
                fail_msg("register %#llx of CPU %u", (unsigned long long)row[i].id, cpu);
        }
        for (unsigned n = 0; n <= 30; n++)
            assert_int_equal(get_reg(cpu, TN_KVM_ARM64_X(n)), test_random(&random));
        for (unsigned n = 0; n < 32; n++) {
            assert_int_equal(tn_kvm_arm64_get_reg(&m.cpu[cpu], v0 + 4 * n, back), 0);
            assert_int_equal(back[0], test_random(&random));
            assert_int_equal(back[1], test_random(&random));
        }
    }
    save(&again);
    same(&golden, &again);
}

static void a_guest_goes_on_counting(void **state)
{
    (void)state;
    NEED_ALL();
    start(1, EVERY(count));
    for (uint64_t i = 1; i <= 10; i++) {
        says(0, 0, 8, i);
        says(0, 8, 8, 3 * i);
    }
    take(&golden);
    for (unsigned round = 0; round < 4; round++) {
        if (round % 2)
            put_back(&golden);
        else
            put_fresh(&golden, round & 2);
        if (round == 2) { /* it has not run: saved again, it is the same */
            save(&again);
            same(&golden, &again);
        }
        for (uint64_t i = 11; i <= 20; i++) {
            says(0, 0, 8, i);
            says(0, 8, 8, 3 * i);
        }
    }
}

/* Saved between a load's exit and its answer, a vCPU would lose it: it is completed, or dropped. */
static void an_access_under_way_is_dropped(void **state)
{
    struct tn_kvm_exit e;

    (void)state;
    NEED_ALL();
    start(1, EVERY(psci));
    says(0, 0, 8, 0);
    take(&golden);
    assert_int_equal(tn_kvm_arm64_vcpu_drop(&m.cpu[0]), 0); /* nothing is under way */
    assert_int_equal(tn_kvm_run(&m.cpu[0], &e), 0);
    assert_int_equal(e.kind, TN_KVM_EXIT_INTERRUPTED);
    tn_kvm_interrupt_clear(&m.cpu[0]);
    run(0, &e);
    expect(0, &e, TN_KVM_EXIT_MMIO);
    assert_false(e.mmio.write);
    memset(e.mmio.data, 0x5a, 8);
    put_back(&golden);
    save(&again);
    same(&golden, &again);
    assert_int_equal(get_reg(0, TN_KVM_ARM64_X(0)), 0);
    assert_int_equal(get_reg(0, TN_KVM_ARM64_PC), m.entry + 8);
    mmio(0, false, MMIO + 0x10, 8, 0x84000000); /* the same load */
    mmio(0, false, MMIO + 0x18, 8, 0);
}

#define CALL_CPU_ON 0xc4000003u

static void cpus_that_are_on_and_off(void **state)
{
    (void)state;
    NEED_ALL();
    start(3, EVERY(psci));
    says(0, 0, 8, 0);
    mmio(0, false, MMIO + 0x10, 8, CALL_CPU_ON);
    mmio(0, false, MMIO + 0x18, 8, 2);
    mmio(0, false, MMIO + 0x20, 8, m.entry);
    mmio(0, false, MMIO + 0x28, 8, 0x123);
    says(0, 0, 8, 0);
    /* CPU 2 was switched on, and has not run an instruction yet. */
    take(&golden);
    assert_int_equal(golden.cpu[0].mp_state, KVM_MP_STATE_RUNNABLE);
    assert_int_equal(golden.cpu[1].mp_state, KVM_MP_STATE_STOPPED);
    assert_int_equal(golden.cpu[2].mp_state, KVM_MP_STATE_RUNNABLE);
    says(2, 0, 8, 0x123);
    put_back(&golden);
    quiet(1);
    says(2, 0, 8, 0x123);
    put_fresh(&golden, true);
    quiet(1);
    says(2, 0, 8, 0x123);
    mmio(2, false, MMIO + 0x10, 8, CALL_CPU_ON);
    mmio(2, false, MMIO + 0x18, 8, 1);
    mmio(2, false, MMIO + 0x20, 8, RAM_GPA);
    mmio(2, false, MMIO + 0x28, 8, 7);
    says(2, 0, 8, 0);
}

static void an_serror_stays_pending(void **state)
{
    struct kvm_vcpu_events events;

    (void)state;
    NEED_ALL();
    start(1, NULL, 0);
    save(&golden);
    memset(&events, 0, sizeof(events));
    events.exception.serror_pending = 1;
    assert_int_equal(tn_kvm_arm64_set_events(&m.cpu[0], &events), 0);
    save(&again);
    assert_int_equal(again.cpu[0].serror & TN_KVM_ARM64_SERROR, TN_KVM_ARM64_SERROR);
    put_fresh(&again, true);
    assert_int_equal(tn_kvm_arm64_get_events(&m.cpu[0], &events), 0);
    assert_int_equal(events.exception.serror_pending, 1);
}

/* ---- time ---- */

static void timers_fire_after_a_restore(void **state)
{
    uint64_t ticks, then, now;

    (void)state;
    NEED_ALL();
    ticks = host.counter_hz / 2;
    for (unsigned round = 0; round < 3; round++) {
        if (round == 0) {
            start(1, EVERY(irq));
            set_reg(0, TN_KVM_ARM64_X(22), ticks);
            says(0, 0x10, 4, 0);
            take(&golden);
            then = get_reg(0, KVM_REG_ARM_TIMER_CVAL);
            usleep(600000);
        }
        if (round == 1)
            put_back(&golden);
        else
            put_fresh(&golden, round == 0);
        /* With the time stopped not before it is due, else it is due already. */
        now = get_reg(0, KVM_REG_ARM_TIMER_CNT);
        if (round < 2)
            assert_in_range(now, then - ticks, then - 1);
        else
            assert_true(now >= then);
        says(0, 0x18, 4, 27);
        assert_true(hear(0, 0x20, 8) >= then);
        quiet(0);
    }
}

static void the_counter_goes_on(void **state)
{
    struct tn_kvm_arm64_time time;
    const uint64_t hz = host.counter_hz, year = 31557600;
    uint64_t now, counter;

    (void)state;
    NEED_KVM();
    start(2, NULL, 0);
    memset(&time, 0xee, sizeof(time));
    assert_int_equal(tn_kvm_arm64_time_save(&host, &m.cpu[0], &time), 0);
    assert_int_equal(time.counter_hz, hz);
    now = time.realtime_ns;
    assert_in_range(now / 1000000000, 1700000000, 8000000000);
    time.counter = counter = 1ull << 50;
    /* No vCPU has a time of its own; a second of delay is much. */
#define GOES_ON_AT(stopped, seconds)                                                    \
    do {                                                                                \
        assert_int_equal(tn_kvm_arm64_time_restore(&m.cpu[0], &time, (stopped)), 0);    \
        for (uint32_t i_ = 0; i_ < 2; i_++)                                             \
            assert_in_range(get_reg(i_, KVM_REG_ARM_TIMER_CNT), counter + (seconds)*hz, \
                            counter + ((seconds) + 3) * hz);                            \
    } while (0)
    GOES_ON_AT(true, 0u);
    GOES_ON_AT(false, 0u);
    time.realtime_ns = now - 100000000000;
    GOES_ON_AT(true, 0u);
    GOES_ON_AT(false, 100u);
    time.realtime_ns = now + 100000000000; /* the host's clock was set back */
    GOES_ON_AT(true, 0u);
    GOES_ON_AT(false, 0u);
    time.realtime_ns = now - 9 * year * 1000000000;
    GOES_ON_AT(false, 9 * year);
    time.realtime_ns = 0;
    GOES_ON_AT(false, 10 * year);
    time.realtime_ns = UINT64_MAX;
    GOES_ON_AT(false, 0u);
}

/* ---- interrupts ---- */

#define EDGE(spi) (2u << 2 * (spi))

static uint32_t dist(uint32_t offset)
{
    uint32_t v = 0;

    assert_int_equal(tn_kvm_get_attr(m.gic.fd, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, offset, &v), 0);
    return v;
}

static void set_dist(uint32_t offset, uint32_t v)
{
    assert_int_equal(tn_kvm_set_attr(m.gic.fd, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, offset, &v), 0);
}

/* One is active, a level and an edge wait for it, another line is high and may not come. */
static void interrupts_wait_across_a_restore(void **state)
{
    (void)state;
    NEED_ALL();
    start(2, EVERY(irq));
    set_reg(0, TN_KVM_ARM64_X(21), EDGE(1) | EDGE(6));
    says(0, 0x10, 4, EDGE(1) | EDGE(6));
    assert_int_equal(tn_kvm_arm64_spi(&m.vm, 6, true), 0);
    says(0, 0x18, 4, 38); /* active: it was not ended yet */
    assert_int_equal(tn_kvm_arm64_spi(&m.vm, 1, true), 0);
    assert_int_equal(tn_kvm_arm64_spi(&m.vm, 1, false), 0);
    assert_int_equal(tn_kvm_arm64_spi(&m.vm, 40, true), 0);
    assert_int_equal(tn_kvm_arm64_spi(&m.vm, 41, true), 0);
    set_dist(0x188, 1u << 9); /* GICD_ICENABLER: SPI 41 */
    set_dist(0x448, 0x80);    /* GICD_IPRIORITYR: SPI 40 comes last */
    take(&golden);
    assert_int_equal(dist(0x304), 1u << 6);
    for (unsigned round = 0; round < 4; round++) {
        if (round == 1)
            put_back(&golden);
        else
            put_fresh(&golden, true);
        if (round == 3) {
            save(&again);
            same(&golden, &again);
        }
        assert_int_equal(dist(0x304), 1u << 6); /* GICD_ISACTIVER */
        assert_int_equal(dist(0x204), 1u << 1); /* GICD_ISPENDR, as it is saved: of edges */
        says(0, 0x18, 4, 33);
        says(0, 0x18, 4, 72);
        says(0, 0x18, 4, 72); /* high still */
        assert_int_equal(tn_kvm_arm64_spi(&m.vm, 40, false), 0);
        quiet(0);
        set_dist(0x108, 1u << 9); /* what was not enabled, and was high all the time */
        says(0, 0x18, 4, 73);
        assert_int_equal(tn_kvm_arm64_spi(&m.vm, 41, false), 0);
        quiet(0);
        if (round == 0) { /* what is not there in the save, but in the machine that is put back */
            set_dist(0x204, 1u << 20);
            set_dist(0x304, 1u << 21);
            assert_int_equal(tn_kvm_arm64_spi(&m.vm, 2, true), 0);
        }
    }
}

/* All the GIC has, some of it. */
static void every_word_of_the_gic_comes_back(void **state)
{
    static const struct {
        uint32_t group;
        uint64_t attr;
        uint32_t value;
    } row[] = {
        {KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0x84, 0x12345678}, /* GICD_IGROUPR */
        {KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0x88, 0x9abcdef0},
        {KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0xc08, 0x88888888}, /* GICD_ICFGR */
        {KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0xc14, 0x22222222},
        {KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0x420, 0x50607080}, /* GICD_IPRIORITYR */
        {KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0x45c, 0xf8a090c0},
        {KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0x6100, 1}, /* GICD_IROUTER */
        {KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0x62f8, 1},
        {KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0x104, 0x0f0f0f0f}, /* GICD_ISENABLER */
        {KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0x108, 0xf00ff00f},
        {KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0x204, 0x00030000}, /* GICD_ISPENDR */
        {KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0x208, 0x80000001},
        {KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0x304, 0x00100000}, /* GICD_ISACTIVER */
        {KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0x308, 0x40000000},
        {KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0, 0x52}, /* GICD_CTLR */
        {KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, 0x10080, 0xffff0000},
        {KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, 0x10400, 0x10203040},
        {KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, 0x1041c, 0x50607080},
        {KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, 0x10100, 0x8000ffff},
        {KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, 0x10200, 0x40000000},
        {KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, 0x10300, 0x20000000},
    };
    static const struct {
        uint32_t op; /* CRn, CRm and op2, four bits each */
        uint64_t value;
    } icc[] = {{0x460, 0xa8}, {0xc83, 0x5}, {0xcc3, 0x6}, {0xcc6, 1},
               {0xcc7, 1},    {0xc84, 0x2}, {0xc90, 0x4}};
#define ICC(op) (3u << 14 | ((op) >> 8) << 7 | ((op) >> 4 & 15) << 3 | ((op)&7))

    (void)state;
    NEED_ALL();
    for (unsigned round = 0; round < 3; round++) {
        if (round == 0)
            start(2, NULL, 0);
        else if (round == 1)
            put_fresh(&golden, true);
        else
            put_back(&golden);
        /* CPU 1's part; CPU 0's is as it was, so that no one takes the other's place. */
        for (size_t i = 0; i < COUNT(row); i++) {
            uint64_t attr = row[i].attr;
            uint32_t v = row[i].value, was = 0;

            if (row[i].group == KVM_DEV_ARM_VGIC_GRP_REDIST_REGS) {
                assert_int_equal(tn_kvm_get_attr(m.gic.fd, row[i].group, attr, &was), 0);
                assert_int_not_equal(was, v);
                attr |= 1ull << 32;
            }
            if (round == 0)
                assert_int_equal(tn_kvm_set_attr(m.gic.fd, row[i].group, attr, &v), 0);
            assert_int_equal(tn_kvm_get_attr(m.gic.fd, row[i].group, attr, &v), 0);
            if (v != row[i].value)
                fail_msg("%#llx is %#x, not %#x", (unsigned long long)attr, v, row[i].value);
        }
        for (size_t i = 0; i < COUNT(icc); i++) {
            uint64_t attr = 1ull << 32 | ICC(icc[i].op), v = icc[i].value;

            if (round == 0)
                assert_int_equal(
                    tn_kvm_set_attr(m.gic.fd, KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, attr, &v), 0);
            assert_int_equal(tn_kvm_get_attr(m.gic.fd, KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, attr, &v),
                             0);
            assert_int_equal(v, icc[i].value);
        }
        save(round ? &again : &golden);
        if (round)
            same(&golden, &again);
        /* All else than it was, before it is put back. */
        for (uint32_t word = 1; round == 1 && word < 3; word++) {
            set_dist(0x80 + 4 * word, 0);
            set_dist(0x100 + 4 * word, ~0u);
            set_dist(0x200 + 4 * word, ~0u);
            set_dist(0x300 + 4 * word, ~0u);
        }
    }
}

/* ---- hosts that differ ---- */

static void what_a_host_lacks(void **state)
{
    static struct tn_kvm_arm64_host less;
    struct tn_kvm_arm64_vcpu_state *s = &golden.cpu[0];
    struct tn_kvm_arm64_lack lack;
    struct tn_kvm_arm64_time time = {1, 2, 0};
    uint32_t at;

    (void)state;
    memset(&less, 0, sizeof(less));
    memset(s, 0, sizeof(*s));
    less.features = 0x4;
    less.counter_hz = 1000000000;
    less.reg_count = 3;
    less.reg[0] = 7;
    less.reg[1] = 8;
    less.reg[2] = 9;
    s->features = 0x4;
    s->reg_count = 2;
    s->reg[0].id = 9;
    s->reg[1].id = 7;
    memset(&lack, 0xee, sizeof(lack));
    assert_int_equal(tn_kvm_arm64_state_check(&less, s, &lack), 0);
    assert_int_equal(lack.kind, TN_KVM_ARM64_LACK_NONE);
    s->reg_count = 3;
    s->reg[2].id = 10;
    s->reg[2].value[0] = 0x1234;
    assert_int_equal(tn_kvm_arm64_state_check(&less, s, &lack), TN_EUNSUP);
    assert_int_equal(lack.kind, TN_KVM_ARM64_LACK_REGISTER);
    assert_int_equal(lack.id, 10);
    assert_int_equal(lack.want, 0x1234);
    s->features = 0x34;
    assert_int_equal(tn_kvm_arm64_state_check(&less, s, &lack), TN_EUNSUP);
    assert_int_equal(lack.kind, TN_KVM_ARM64_LACK_FEATURE);
    assert_int_equal(lack.want, 0x30);
    assert_int_equal(lack.have, 0x4);

    time.counter_hz = 1000000000;
    memset(&lack, 0xee, sizeof(lack));
    assert_int_equal(tn_kvm_arm64_time_check(&less, &time, &lack), 0);
    assert_int_equal(lack.kind, TN_KVM_ARM64_LACK_NONE);
    time.counter_hz = 62500000;
    assert_int_equal(tn_kvm_arm64_time_check(&less, &time, &lack), TN_EUNSUP);
    assert_int_equal(lack.kind, TN_KVM_ARM64_LACK_COUNTER);
    assert_int_equal(lack.want, 62500000);
    assert_int_equal(lack.have, 1000000000);

    NEED_KVM(); /* and of this one */
    less = host;
    memset(s, 0, sizeof(*s));
    s->features = host.features;
    s->reg_count = host.reg_count;
    for (at = 0; at < host.reg_count; at++)
        s->reg[at].id = host.reg[at];
    assert_int_equal(tn_kvm_arm64_state_check(&less, s, &lack), 0);
    for (at = 0; at < host.reg_count; at += 37) {
        less = host;
        less.reg[at] = 0;
        assert_int_equal(tn_kvm_arm64_state_check(&less, s, &lack), TN_EUNSUP);
        assert_int_equal(lack.id, host.reg[at]);
    }
}

/* A register of more than 16 bytes, as SVE has them. */
static void what_cannot_be_saved(void **state)
{
    static struct tn_kvm_arm64_host more;

    (void)state;
    NEED_KVM();
    start(1, NULL, 0);
    more = host;
    more.reg[5] = KVM_REG_ARM64 | KVM_REG_SIZE_U256;
    assert_int_equal(tn_kvm_arm64_vcpu_save(&more, &m.cpu[0], &golden.cpu[0]), TN_EUNSUP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(the_host_is_asked),
        T(restore_refuses_what_no_save_writes),
        T(restore_names_what_kvm_refuses),
        T(a_gic_of_another_make),
        T(what_is_closed),
        T(what_a_host_lacks),
        T(what_cannot_be_saved),
        T(a_machine_that_has_not_run),
        T(every_register_comes_back),
        T(a_guest_goes_on_counting),
        T(an_access_under_way_is_dropped),
        T(cpus_that_are_on_and_off),
        T(an_serror_stays_pending),
        T(timers_fire_after_a_restore),
        T(the_counter_goes_on),
        T(interrupts_wait_across_a_restore),
        T(every_word_of_the_gic_comes_back),
    };

    kvm_open();
    if (kvm.fd >= 0 && tn_kvm_arm64_host_init(&kvm, &host) < 0)
        return 1;
    return cmocka_run_group_tests_name("kvm_arm64_state", tests, NULL, NULL);
}
