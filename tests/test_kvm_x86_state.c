/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_kvm_x86_state.h"

#include <dirent.h>

#include "kvm_guest.h"

#define XSAVE 16384u

static struct tn_kvm_x86_host host;

/* A machine at rest. */
static struct shot {
    struct tn_kvm_x86_vcpu_state cpu[MAX_CPUS];
    struct tn_kvm_x86_vm_state chips;
    struct tn_kvm_x86_time time;
    uint32_t cpus;
    uint8_t xsave[MAX_CPUS][XSAVE];
    uint8_t ram[RAM];
} golden, again;

/* ---- save and restore ---- */

/* Completes what is under way: the guest goes no further. */
static void settle(void)
{
    struct tn_kvm_exit e;

    for (uint32_t i = 0; i < m.cpus; i++) {
        tn_kvm_interrupt(&m.cpu[i]);
        assert_int_equal(tn_kvm_run(&m.cpu[i], &e), 0);
        assert_int_equal(e.kind, TN_KVM_EXIT_INTERRUPTED);
        tn_kvm_interrupt_clear(&m.cpu[i]);
    }
}

/* A save without running anything. */
static void save(struct shot *s)
{
    memset(s, 0xee, sizeof(*s));
    s->cpus = m.cpus;
    assert_int_equal(tn_kvm_x86_vm_save(&m.vm, &s->chips), 0);
    for (uint32_t i = 0; i < m.cpus; i++) {
        s->cpu[i].xsave = s->xsave[i];
        s->cpu[i].xsave_cap = XSAVE;
        assert_int_equal(tn_kvm_x86_vcpu_save(&host, &m.cpu[i], &s->cpu[i]), 0);
        assert_ptr_equal(s->cpu[i].xsave, s->xsave[i]);
        assert_int_equal(s->cpu[i].xsave_cap, XSAVE);
        assert_int_equal(s->cpu[i].xsave_len, host.xsave_size);
    }
    assert_int_equal(tn_kvm_x86_time_save(&host, &m.vm, &m.cpu[0], s->cpu[0].tsc_khz, &s->time), 0);
    memcpy(s->ram, m.ram, RAM);
}

static void take(struct shot *s)
{
    settle();
    save(s);
}

/* Into the machine that there is. */
static void put(const struct shot *s, uint32_t flags, enum tn_kvm_x86_time_mode mode)
{
    struct tn_kvm_x86_refused refused;
    uint64_t shift;

    assert_int_equal(s->cpus, m.cpus);
    memcpy(m.ram, s->ram, 0xa0000);
    memcpy(m.ram + 0xa1000, s->ram + 0xa1000, RAM - 0xa1000);
    if (!(flags & TN_KVM_X86_FRESH))
        assert_int_equal(tn_kvm_x86_vm_still(&m.vm), 0);
    assert_int_equal(
        tn_kvm_x86_time_restore(&host, &m.vm, &m.cpu[0], &s->time, s->cpu[0].tsc_khz, mode, &shift),
        0);
    for (uint32_t i = 0; i < m.cpus; i++) {
        int r = tn_kvm_x86_vcpu_restore(&host, &m.cpu[i], &s->cpu[i], shift, flags, &refused);

        if (r < 0)
            fail_msg("CPU %u: %d, errno %d, part %u, msr %#x = %#llx", i, r, errno, refused.part,
                     refused.msr, (unsigned long long)refused.data);
        assert_int_equal(refused.part, TN_KVM_X86_PART_NONE);
    }
    assert_int_equal(tn_kvm_x86_vm_restore(&m.vm, &s->chips), 0);
    for (uint32_t i = 0; i < m.cpus; i++)
        assert_int_equal(tn_kvm_x86_vcpu_was_paused(&m.cpu[i]), 0);
}

/* Into one of its own. */
static void put_fresh(const struct shot *s, uint32_t flags, enum tn_kvm_x86_time_mode mode)
{
    struct tn_kvm_x86_lack lack;

    stop(NULL);
    start(NULL, s->cpus, FULL);
    for (uint32_t i = 0; i < m.cpus; i++) {
        assert_int_equal(tn_kvm_x86_state_check(&host, &s->cpu[i], &lack), 0);
        assert_int_equal(lack.kind, TN_KVM_X86_LACK_NONE);
        assert_int_equal(tn_kvm_x86_set_cpuid(&m.cpu[i], &s->cpu[i].cpuid), 0);
    }
    put(s, flags, mode);
}

/* In place: the machine has run, and may be in the midst of an access. */
static void put_back(const struct shot *s, uint32_t flags)
{
    for (uint32_t i = 0; i < m.cpus; i++) {
        assert_int_equal(tn_kvm_x86_vcpu_drop(&m.cpu[i]), 0);
        tn_kvm_interrupt_clear(&m.cpu[i]);
    }
    put(s, flags, TN_KVM_X86_TIME_STOPPED);
}

/* ---- the same bytes ---- */

#define SAME(field)                                                    \
    do {                                                               \
        if (memcmp(&x.field, &y.field, sizeof(x.field)) != 0)          \
            fail_msg("CPU %u: %s is not what was saved", cpu, #field); \
    } while (0)

/* Two saves of a machine that has not run in between; the clocks went on. */
static void same_cpu(uint32_t cpu, const struct tn_kvm_x86_vcpu_state *a,
                     const struct tn_kvm_x86_vcpu_state *b)
{
    struct tn_kvm_x86_vcpu_state x = *a, y = *b;

    memset(x.lapic.regs + 0x390, 0, 4); /* the timer's current count */
    memset(y.lapic.regs + 0x390, 0, 4);
    SAME(cpuid);
    SAME(regs);
    SAME(sregs);
    SAME(xcrs);
    SAME(debugregs);
    SAME(lapic);
    SAME(events);
    SAME(mp_state);
    SAME(tsc_khz);
    SAME(msr_count);
    for (uint32_t i = 0; i < x.msr_count; i++) {
        if (memcmp(&x.msr[i], &y.msr[i], sizeof(x.msr[i])) != 0)
            fail_msg("CPU %u: MSR %#x: %#llx, then %#x: %#llx", cpu, x.msr[i].index,
                     (unsigned long long)x.msr[i].data, y.msr[i].index,
                     (unsigned long long)y.msr[i].data);
    }
    SAME(msr);
    SAME(xsave_len);
    assert_memory_equal(x.xsave, y.xsave, x.xsave_len);
}

/* But for the PIT, which ticks on: IRQ 0. */
static void same_chips(const struct tn_kvm_x86_vm_state *a, const struct tn_kvm_x86_vm_state *b)
{
    struct tn_kvm_x86_vm_state x[2] = {*a, *b};

    for (unsigned i = 0; i < 2; i++) {
        x[i].chip[KVM_IRQCHIP_PIC_MASTER].chip.pic.irr &= 0xfe;
        x[i].chip[KVM_IRQCHIP_PIC_MASTER].chip.pic.last_irr &= 0xfe;
        x[i].chip[KVM_IRQCHIP_IOAPIC].chip.ioapic.irr &= ~5u;
    }
    assert_memory_equal(&x[0], &x[1], sizeof(x[0]));
}

static void same(const struct shot *a, const struct shot *b, bool offset)
{
    assert_int_equal(a->cpus, b->cpus);
    for (uint32_t i = 0; i < a->cpus; i++) {
        same_cpu(i, &a->cpu[i], &b->cpu[i]);
        if (offset) /* of one machine, all by the same */
            assert_int_equal(a->cpu[i].tsc_offset - a->cpu[0].tsc_offset,
                             b->cpu[i].tsc_offset - b->cpu[0].tsc_offset);
    }
    same_chips(&a->chips, &b->chips);
    assert_true(b->time.kvmclock_ns >= a->time.kvmclock_ns);
}

/* ---- guests for a while ---- */

/* A signal every us microseconds: one may come just before a vCPU is run. */
static timer_t kick_every(unsigned us)
{
    struct sigevent sev;
    struct itimerspec its;
    timer_t timer;

    memset(&sev, 0, sizeof(sev));
    sev.sigev_notify = SIGEV_SIGNAL;
    sev.sigev_signo = KICK;
    assert_int_equal(timer_create(CLOCK_MONOTONIC, &sev, &timer), 0);
    memset(&its, 0, sizeof(its));
    its.it_value.tv_nsec = its.it_interval.tv_nsec = (long)us * 1000;
    assert_int_equal(timer_settime(timer, 0, &its, NULL), 0);
    return timer;
}

/* Runs CPU 0 until its next exit, or for about us microseconds. */
static void run_for(unsigned us, struct tn_kvm_exit *e)
{
    timer_t timer = kick_every(us);

    memset(e, 0xee, sizeof(*e));
    assert_int_equal(tn_kvm_run(&m.cpu[0], e), 0);
    timer_delete(timer);
}

/* The next n numbers that the guest tells. */
static void listen(uint32_t *to, unsigned n)
{
    struct tn_kvm_exit e;

    for (unsigned i = 0; i < n; i++) {
        run(&e);
        expect(&e, TN_KVM_EXIT_IO);
        assert_int_equal(e.io.port, PORT_EVENT);
        assert_int_equal(e.io.size, 4);
        to[i] = (uint32_t)value(e.io.data, 4);
    }
}

static uint64_t listen_tsc(void)
{
    uint32_t v[2];

    listen(v, 2);
    return (uint64_t)v[1] << 32 | v[0];
}

static unsigned open_files(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;

    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* ---- negative ---- */

static void restore_refuses_what_no_save_writes(void **state)
{
    struct tn_kvm_x86_vcpu_state *s = &golden.cpu[0], good;
    struct tn_kvm_x86_refused refused;
    struct tn_kvm_x86_lack lack;
    struct shot *g = &golden;

    (void)state;
    NEED_KVM();
    start("count", 1, FULL);
    take(g);
    good = *s;
    for (unsigned i = 0; i < 8; i++) {
        int want = TN_EFORMAT;
        uint32_t flags = 0;

        *s = good;
        switch (i) {
        case 0:
            s->msr_count = TN_KVM_X86_STATE_MSRS + 1;
            break;
        case 1:
            s->msr_count = UINT32_MAX;
            break;
        case 2:
            s->xsave_len = s->xsave_cap + 1;
            break;
        case 3:
            s->xsave_len = 575;
            break;
        case 4:
            s->mp_state = KVM_MP_STATE_SIPI_RECEIVED;
            break;
        case 5:
            s->mp_state = UINT32_MAX;
            break;
        case 6:
            s->xsave_len = SIZE_MAX;
            break;
        default:
            flags = 8;
            want = TN_EINVAL;
            break;
        }
        memset(&refused, 0xee, sizeof(refused));
        assert_int_equal(tn_kvm_x86_vcpu_restore(&host, &m.cpu[0], s, 0, flags, &refused), want);
        assert_int_equal(refused.part,
                         want == TN_EFORMAT ? TN_KVM_X86_PART_STATE : TN_KVM_X86_PART_NONE);
        if (want == TN_EFORMAT)
            assert_int_equal(tn_kvm_x86_state_check(&host, s, &lack), TN_EFORMAT);
    }
    *s = good;
    s->cpuid.nent = TN_KVM_MAX_CPUID + 1;
    assert_int_equal(tn_kvm_x86_state_check(&host, s, &lack), TN_EFORMAT);
    *s = good;
    assert_int_equal(tn_kvm_x86_vcpu_restore(&host, &m.cpu[0], s, 0, 0, NULL), 0);
    for (unsigned i = 0; i < 3; i++) {
        g->chips.chip[i].chip_id ^= 1;
        assert_int_equal(tn_kvm_x86_vm_restore(&m.vm, &g->chips), TN_EFORMAT);
        g->chips.chip[i].chip_id = i;
    }
    assert_int_equal(tn_kvm_x86_vm_restore(&m.vm, &g->chips), 0);
}

static bool pat_takes(uint64_t v)
{
    struct kvm_msr_entry e = {0x277, 0, v};

    return tn_kvm_x86_set_msrs(&m.cpu[0], &e, 1) == 1;
}

static void restore_names_what_kvm_refuses(void **state)
{
    struct tn_kvm_x86_vcpu_state *s = &golden.cpu[0], good;
    struct tn_kvm_x86_refused refused;
    uint32_t numbers[4], want[4];

    (void)state;
    NEED_KVM();
    start("count", 1, FULL);
    take(&golden);
    listen(want, 4);
    good = *s;
    for (unsigned i = 0; i < 9; i++) {
        uint32_t part = TN_KVM_X86_PART_MSRS, msr = 0;
        uint64_t data = 0;
        unsigned at = 0;

        *s = good;
        switch (i) {
        case 0: /* no such MSR, after the others */
            msr = s->msr[s->msr_count].index = 0x12345678;
            data = s->msr[s->msr_count++].data = 1;
            break;
        case 1: /* and before */
            msr = s->msr[0].index = 0x12345678;
            data = s->msr[0].data = 2;
            break;
        case 2: /* a value that PAT can't have, where KVM looks */
            if (pat_takes(2))
                continue;
            while (s->msr[at].index != 0x277)
                assert_true(++at < s->msr_count);
            msr = 0x277;
            data = s->msr[at].data = 2;
            break;
        case 3: /* in the second call to KVM */
            while (s->msr_count < 300) {
                s->msr[s->msr_count] = s->msr[0];
                s->msr_count++;
            }
            msr = s->msr[298].index = 0x12345678;
            data = s->msr[298].data = 3;
            break;
        case 4: /* reserved bits of CR4 */
            s->sregs.cr4 = ~0ull;
            part = TN_KVM_X86_PART_SREGS;
            break;
        case 5: /* XCR0 without x87 */
            if (s->xcrs.nr_xcrs == 0)
                continue;
            s->xcrs.xcrs[0].value = 2;
            part = TN_KVM_X86_PART_XCRS;
            break;
        case 6: /* a component that there is not */
            if (s->xcrs.nr_xcrs == 0)
                continue;
            s->xsave[512 + 7] = 0x40;
            part = TN_KVM_X86_PART_XSAVE;
            break;
        case 7:
            s->debugregs.dr7 = ~0ull;
            part = TN_KVM_X86_PART_DEBUGREGS;
            break;
        default:
            s->events.flags = ~0u;
            part = TN_KVM_X86_PART_EVENTS;
            break;
        }
        errno = 0;
        assert_int_equal(tn_kvm_x86_vcpu_restore(&host, &m.cpu[0], s, 0, 0, &refused), TN_ESYS);
        assert_int_equal(errno, EINVAL);
        assert_int_equal(refused.part, part);
        assert_int_equal(refused.msr, msr);
        assert_int_equal(refused.data, data);
        s->xsave[512 + 7] = 0;
    }
    /* What waits in the run page is refused by the run. */
    *s = good;
    s->events.flags = ~0u;
    if (host.sync_regs) {
        struct tn_kvm_exit e;

        assert_int_equal(tn_kvm_x86_vcpu_restore(&host, &m.cpu[0], s, 0, TN_KVM_X86_LAZY, NULL), 0);
        errno = 0;
        assert_int_equal(tn_kvm_run(&m.cpu[0], &e), TN_ESYS);
        assert_int_equal(errno, EINVAL);
    }
    *s = good;
    put_back(&golden, 0);
    listen(numbers, 4);
    assert_memory_equal(numbers, want, sizeof(want));
}

static void closed_and_full(void **state)
{
    static struct tn_kvm_x86_vcpu_state s;
    static struct tn_kvm_x86_host h;
    struct tn_kvm_x86_vm_state chips;
    struct tn_kvm_x86_time time;
    uint8_t xsave[XSAVE];
    struct kvm_run page;
    struct tn_kvm_vcpu cpu;
    struct tn_kvm_vm vm;
    struct tn_kvm none;
    uint64_t shift;

    (void)state;
    NEED_KVM();
    memset(&page, 0, sizeof(page));
    memset(&cpu, 0, sizeof(cpu));
    none = kvm;
    none.fd = vm.fd = cpu.fd = -1;
    cpu.run = &page;
    memset(&h, 0xee, sizeof(h));
    assert_int_equal(tn_kvm_x86_host_init(&none, &h), TN_ESYS);
    assert_int_equal(h.msr_count | h.tsc_khz | h.xsave_size | h.cpuid.nent, 0);
    memset(&s, 0xee, sizeof(s));
    memset(xsave, 0xee, sizeof(xsave));
    s.xsave = xsave;
    s.xsave_cap = sizeof(xsave);
    errno = 0;
    assert_int_equal(tn_kvm_x86_vcpu_save(&host, &cpu, &s), TN_ESYS);
    assert_int_equal(errno, EBADF);
    assert_int_equal(s.msr_count | s.cpuid.nent | s.xsave_len, 0);
    assert_ptr_equal(s.xsave, xsave);
    s.xsave_cap = host.xsave_size - 1;
    assert_int_equal(tn_kvm_x86_vcpu_save(&host, &cpu, &s), TN_ENOSPC);
    assert_int_equal(s.xsave_cap, host.xsave_size - 1);
    memset(&chips, 0xee, sizeof(chips));
    assert_int_equal(tn_kvm_x86_vm_save(&vm, &chips), TN_ESYS);
    assert_int_equal(chips.pit.channels[0].count | chips.chip[2].chip_id, 0);
    assert_int_equal(tn_kvm_x86_vm_restore(&vm, &chips), TN_ESYS);
    assert_int_equal(tn_kvm_x86_vm_still(&vm), TN_ESYS);
    memset(&time, 0xee, sizeof(time));
    assert_int_equal(tn_kvm_x86_time_save(&host, &vm, &cpu, host.tsc_khz, &time), TN_ESYS);
    assert_int_equal(time.host_tsc | time.realtime_ns | time.kvmclock_ns, 0);
    shift = 1;
    assert_int_equal(tn_kvm_x86_time_restore(&host, &vm, &cpu, &time, host.tsc_khz,
                                             TN_KVM_X86_TIME_REAL, &shift),
                     TN_ESYS);
    assert_int_equal(shift, 0);
    assert_int_equal(tn_kvm_x86_time_restore(&host, &vm, &cpu, &time, host.tsc_khz,
                                             (enum tn_kvm_x86_time_mode)2, &shift),
                     TN_EINVAL);
    assert_int_equal(tn_kvm_x86_vcpu_drop(&cpu), TN_ESYS);
    assert_int_equal(tn_kvm_x86_vcpu_was_paused(&cpu), TN_ESYS);
    assert_int_equal(tn_kvm_x86_set_mce_banks(&cpu, 1), TN_ESYS);
}

/* ---- the host ---- */

static void host_is_known(void **state)
{
    static struct tn_kvm_x86_host h;
    unsigned files = open_files();
    bool deadline = false;

    (void)state;
    NEED_KVM();
    assert_int_equal(tn_kvm_x86_host_init(&kvm, &h), 0);
    assert_int_equal(open_files(), files);
    assert_true(h.tsc_khz > 100000);
    assert_true(h.xsave_size >= 4096);
    assert_in_range(h.msr_count, 20, TN_KVM_X86_STATE_MSRS);
    for (uint32_t i = 0; i < h.msr_count; i++) {
        uint32_t x = h.msr[i].index;

        for (uint32_t j = 0; j < i; j++)
            assert_int_not_equal(h.msr[j].index, x);
        assert_true(x != 0x10 && x != 0x11 && x != 0xe7 && x != 0xe8 && x != 0x4b564d00);
        deadline = x == 0x6e0;
    }
    if (tn_kvm_cap(&kvm, KVM_CAP_TSC_DEADLINE_TIMER) > 0)
        assert_true(deadline); /* the last */
}

static void few_banks_are_fewer_msrs(void **state)
{
    uint32_t all;

    (void)state;
    NEED_KVM();
    start("count", 1, FULL);
    assert_int_equal(tn_kvm_x86_set_mce_banks(&m.cpu[0], 0), TN_ESYS);
    take(&golden);
    all = golden.cpu[0].msr_count;
    stop(NULL);
    start("count", 1, FULL);
    assert_int_equal(tn_kvm_x86_set_mce_banks(&m.cpu[0], 1), 0);
    take(&golden);
    assert_true(golden.cpu[0].msr_count < all);
    assert_true(all > 32 * 4);
    put_back(&golden, 0);
    stop(NULL);
    start(NULL, 1, FULL);
    assert_int_equal(tn_kvm_x86_set_mce_banks(&m.cpu[0], 1), 0);
    put(&golden, TN_KVM_X86_FRESH, TN_KVM_X86_TIME_STOPPED);
    save(&again);
    same(&golden, &again, true);
}

static void more_msrs_than_a_call_takes(void **state)
{
    struct tn_kvm_x86_vcpu_state *s = &golden.cpu[0];
    struct kvm_msr_entry e[2] = {{0x174, 0, 0}, {0x175, 0, 0}};

    (void)state;
    NEED_KVM();
    start("count", 1, FULL);
    take(&golden);
    for (uint32_t i = 0; i < TN_KVM_X86_STATE_MSRS; i++) {
        s->msr[i].index = 0x176;
        s->msr[i].data = i;
    }
    s->msr_count = TN_KVM_X86_STATE_MSRS;
    s->msr[0].index = 0x174;
    s->msr[0].data = 8;
    s->msr[TN_KVM_X86_STATE_MSRS - 1].index = 0x175;
    put(&golden, 0, TN_KVM_X86_TIME_STOPPED);
    assert_int_equal(tn_kvm_x86_get_msrs(&m.cpu[0], e, 2), 2);
    assert_int_equal(e[0].data, 8);
    assert_int_equal(e[1].data, TN_KVM_X86_STATE_MSRS - 1);
}

/* ---- round trips ---- */

static const uint32_t ways[] = {0, TN_KVM_X86_FRESH, TN_KVM_X86_LAZY,
                                TN_KVM_X86_FRESH | TN_KVM_X86_LAZY};

static void restored_into_a_fresh_vm_is_the_same(void **state)
{
    static const char *const guests[] = {"count", "lapic_timer", "pit", "deadline", "xmm"};

    (void)state;
    NEED_KVM();
    for (size_t g = 0; g < COUNT(guests); g++) {
        for (size_t w = 0; w < COUNT(ways); w++) {
            struct tn_kvm_exit e;

            start(guests[g], 1, FULL);
            run_for(3000, &e);
            take(&golden);
            save(&again); /* saving changes nothing */
            same(&golden, &again, true);
            put_fresh(&golden, ways[w], TN_KVM_X86_TIME_STOPPED);
            save(&again);
            same(&golden, &again, true);
            put_back(&golden, ways[w] & TN_KVM_X86_LAZY);
            save(&again);
            same(&golden, &again, true);
            stop(NULL);
        }
    }
}

static void smp_table(uint32_t cpus)
{
    struct tn_mptable_cfg cfg;

    memset(&cfg, 0, sizeof(cfg));
    cfg.gpa = 0xf0000;
    cfg.cpus = cpus;
    assert_true(tn_mptable_build(&cfg, m.ram + 0xf0000, 0x10000) > 0);
}

static void four_cpus(void **state)
{
    (void)state;
    NEED_KVM();
    for (size_t w = 0; w < COUNT(ways); w++) {
        /* before they are started */
        start("smp", 4, FULL);
        smp_table(4);
        take(&golden);
        assert_int_equal(golden.cpu[0].mp_state, KVM_MP_STATE_RUNNABLE);
        for (uint32_t i = 1; i < 4; i++)
            assert_int_equal(golden.cpu[i].mp_state, KVM_MP_STATE_UNINITIALIZED);
        put_fresh(&golden, ways[w], TN_KVM_X86_TIME_STOPPED);
        save(&again);
        same(&golden, &again, true);
        for (unsigned round = 0; round < 2; round++) {
            threads_start();
            AWAIT(GET(t.result) != 0);
            threads_stop();
            assert_int_equal(t.result, 4 + 1);
            assert_int_equal(t.event_mask, (1u << 4) - 2);
            assert_int_equal(t.failed, 0);
            /* and after: they go back to where they waited */
            if (round == 0) {
                take(&again);
                put_back(&golden, ways[w] & TN_KVM_X86_LAZY);
            }
        }
        golden = again;
        for (uint32_t i = 1; i < 4; i++)
            assert_int_equal(golden.cpu[i].mp_state, KVM_MP_STATE_HALTED);
        put_fresh(&golden, ways[w], TN_KVM_X86_TIME_STOPPED);
        save(&again);
        same(&golden, &again, true);
        stop(NULL);
    }
}

/* Where KVM lacks what is newer. */
static void an_older_kvm(void **state)
{
    struct tn_kvm_x86_host real = host;
    uint32_t want[8], got[8];

    (void)state;
    NEED_KVM();
    for (unsigned i = 0; i < 8; i++) {
        start("count", 1, FULL);
        host.sregs2 = (i & 1) != 0;
        host.tsc_offset = (i & 2) != 0;
        host.sync_regs = (i & 4) != 0;
        listen(want, 3);
        take(&golden);
        listen(want, 8);
        put_fresh(&golden, TN_KVM_X86_LAZY, TN_KVM_X86_TIME_STOPPED);
        save(&again);
        same(&golden, &again, false);
        listen(got, 8);
        assert_memory_equal(got, want, sizeof(want));
        stop(NULL);
    }
    host = real;
}

static void counting_goes_on(void **state)
{
    uint32_t want[32], got[32], n;

    (void)state;
    NEED_KVM();
    for (size_t w = 0; w < COUNT(ways); w++) {
        start("count", 1, FULL);
        listen(want, 5);
        take(&golden);
        listen(want, 32);
        put_fresh(&golden, ways[w], TN_KVM_X86_TIME_REAL);
        listen(got, 32);
        assert_memory_equal(got, want, sizeof(want));
        /* in place, a hundred times, from the midst of an access */
        for (unsigned i = 0; i < 100; i++) {
            put_back(&golden, ways[w] & TN_KVM_X86_LAZY);
            n = 1 + i % 32;
            listen(got, n);
            assert_memory_equal(got, want, n * sizeof(want[0]));
        }
        stop(NULL);
    }
}

static void spinning_goes_on(void **state)
{
    struct tn_kvm_exit e;
    struct kvm_regs g;

    (void)state;
    NEED_KVM();
    start("spin", 1, FULL);
    in(PORT_READY, 1, 0);
    run_for(1000, &e);
    assert_int_equal(e.kind, TN_KVM_EXIT_INTERRUPTED);
    take(&golden);
    for (unsigned i = 0; i < 4; i++) {
        put_fresh(&golden, ways[i], TN_KVM_X86_TIME_STOPPED);
        run_for(1000, &e);
        assert_int_equal(e.kind, TN_KVM_EXIT_INTERRUPTED);
        assert_int_equal(tn_kvm_x86_get_regs(&m.cpu[0], &g), 0);
        assert_in_range(g.rip, golden.cpu[0].regs.rip, 8); /* a jump to itself */
    }
}

/* Five ticks of a timer, through saves into new machines at any time. */
static void ticks(const char *guest, unsigned us)
{
    uint64_t random = 1;
    struct tn_kvm_exit e;

    for (unsigned round = 0; round < 4; round++) {
        unsigned moves = 0;

        start(guest, 1, FULL);
        for (;;) {
            run_for((unsigned)(test_random(&random) % us) + 100, &e);
            if (e.kind != TN_KVM_EXIT_INTERRUPTED)
                break;
            if (moves++ > 60)
                continue; /* let it come to its end */
            take(&golden);
            if (moves % 2)
                put_fresh(&golden, ways[round], TN_KVM_X86_TIME_STOPPED);
            else
                put_back(&golden, ways[round] & TN_KVM_X86_LAZY);
        }
        expect(&e, TN_KVM_EXIT_IO);
        assert_int_equal(e.io.port, PORT_EXIT);
        assert_in_range(e.io.data[0], 5, 9); /* several, if it slept long */
        assert_true(moves > 0);
        stop(NULL);
    }
}

static void apic_timer_ticks_on(void **state)
{
    (void)state;
    NEED_KVM();
    ticks("lapic_timer", 4000);
}

static void deadline_ticks_on(void **state)
{
    (void)state;
    NEED_KVM();
    ticks("deadline", 2000);
}

static void pit_ticks_on(void **state)
{
    (void)state;
    NEED_KVM();
    ticks("pit", 20000);
}

/* An armed timer does not outlive a reset to a time when it was not armed. */
static void armed_timers_are_forgotten(void **state)
{
    static const char *const guests[] = {"lapic_timer", "deadline", "pit"};
    struct tn_kvm_exit e;

    (void)state;
    NEED_KVM();
    for (size_t g = 0; g < COUNT(guests); g++) {
        for (unsigned i = 0; i < 20; i++) {
            start(guests[g], 1, FULL);
            take(&golden);
            run_for(1000 + 300 * i, &e);
            put_back(&golden, 0);
            usleep(8000);
            save(&again);
            same(&golden, &again, true);
            stop(NULL);
        }
    }
}

static void xmm_goes_on(void **state)
{
    static const uint32_t want[4] = {0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c};
    uint32_t got[4];

    (void)state;
    NEED_KVM();
    start("xmm", 1, FULL);
    io(true, PORT_READY, 1, 0x00); /* AL: the lower byte of CR4 */
    take(&golden);
    assert_memory_equal(golden.xsave[0] + 160 + 7 * 16, want, sizeof(want));
    for (size_t w = 0; w < COUNT(ways); w++) {
        put_fresh(&golden, ways[w], TN_KVM_X86_TIME_STOPPED);
        listen(got, 4);
        assert_memory_equal(got, want, sizeof(want));
    }
}

/* The area of another host: shorter, longer. */
static void xsave_of_any_size(void **state)
{
    struct tn_kvm_x86_vcpu_state *s = &golden.cpu[0];
    uint8_t *xsave;

    (void)state;
    NEED_KVM();
    start("xmm", 1, FULL);
    io(true, PORT_READY, 1, 0x00);
    take(&golden);
    for (unsigned i = 0; i < 3; i++) {
        size_t len = i == 0 ? 832 : i == 1 ? host.xsave_size : 12000;

        xsave = test_exact(golden.xsave[0], len);
        memset(xsave + 512, 0, 8); /* XSTATE_BV: x87 and SSE */
        xsave[512] = 3;
        s->xsave = xsave;
        s->xsave_cap = s->xsave_len = len;
        put_fresh(&golden, 0, TN_KVM_X86_TIME_STOPPED);
        save(&again);
        assert_memory_equal(again.xsave[0] + 160, xsave + 160, 256);
        s->xsave = golden.xsave[0];
        free(xsave);
    }
}

/* All that a guest can leave behind is gone after a restore in place. */
static void nothing_is_left_behind(void **state)
{
    struct kvm_debugregs d;
    struct kvm_vcpu_events ev;
    struct kvm_lapic_state la;
    struct kvm_sregs sr;
    struct kvm_regs g;
    uint8_t xsave[XSAVE];
    uint32_t changed = 0;

    (void)state;
    NEED_KVM();
    start("count", 1, FULL);
    take(&golden);
    for (unsigned way = 0; way < 2; way++) {
        struct tn_kvm_vcpu *cpu = &m.cpu[0];

        assert_int_equal(tn_kvm_x86_get_debugregs(cpu, &d), 0);
        d.db[0] = d.db[3] = 0x1234;
        d.dr7 = 0x403;
        d.dr6 = 0xffff4ff1;
        assert_int_equal(tn_kvm_x86_set_debugregs(cpu, &d), 0);
        for (uint32_t i = 0; i < golden.cpu[0].msr_count; i++) {
            struct kvm_msr_entry e = golden.cpu[0].msr[i], old = e;
            static const uint64_t tries[] = {~0ull, 0x7fff, 0x60b1, 0x6001, 1, 8, 0};

            for (size_t v = 0; e.index != 0x10a && v < COUNT(tries); v++) {
                e.data = tries[v];
                if (e.data != old.data && tn_kvm_x86_set_msrs(cpu, &e, 1) == 1)
                    break;
            }
            assert_int_equal(tn_kvm_x86_get_msrs(cpu, &e, 1), 1);
            changed += e.data != old.data;
        }
        assert_int_equal(tn_kvm_x86_get_lapic(cpu, &la), 0);
        memset(la.regs + 0x80, 0x10, 1);               /* priority */
        tn_put_((uint8_t *)la.regs + 0x230, 4, 0x100); /* IRR */
        tn_put_((uint8_t *)la.regs + 0x320, 4, 0x20040);
        tn_put_((uint8_t *)la.regs + 0x380, 4, 100000);
        tn_put_((uint8_t *)la.regs + 0x3e0, 4, 0xb);
        assert_int_equal(tn_kvm_x86_set_lapic(cpu, &la), 0);
        assert_int_equal(tn_kvm_x86_get_sregs(cpu, &sr), 0);
        sr.cr2 = 0x1000;
        sr.cr8 = 5;
        sr.fs.base = 0x2000;
        sr.apic_base |= 1u << 10; /* x2APIC */
        assert_int_equal(tn_kvm_x86_set_sregs(cpu, &sr), 0);
        assert_int_equal(tn_kvm_x86_get_regs(cpu, &g), 0);
        g.r15 = 15;
        assert_int_equal(tn_kvm_x86_set_regs(cpu, &g), 0);
        assert_int_equal(tn_kvm_x86_get_xsave(&m.vm, cpu, xsave, XSAVE), 0);
        memset(xsave + 160, 0x5a, 256);
        xsave[512] |= 3;
        assert_int_equal(tn_kvm_x86_set_xsave(&m.vm, cpu, xsave, XSAVE), 0);
        assert_int_equal(tn_kvm_x86_nmi(cpu), 0);
        assert_int_equal(tn_kvm_x86_get_events(cpu, &ev), 0);
        ev.nmi.masked = 1;
        ev.exception.injected = 1;
        ev.exception.nr = 14;
        ev.exception.has_error_code = 1;
        ev.interrupt.shadow = 1;
        assert_int_equal(tn_kvm_x86_set_events(cpu, &ev), 0);
        assert_int_equal(tn_kvm_set_mp_state(cpu, KVM_MP_STATE_HALTED), 0);
        assert_int_equal(tn_kvm_irq_line(&m.vm, 4, true), 0);
        save(&again);
        assert_memory_not_equal(&again.chips, &golden.chips, sizeof(golden.chips));

        put(&golden, way ? TN_KVM_X86_LAZY : 0, TN_KVM_X86_TIME_STOPPED);
        save(&again);
        same(&golden, &again, true);
        assert_int_equal(tn_kvm_irq_line(&m.vm, 4, false), 0);
    }
    assert_true(changed > 100);
}

static void priority_is_summed_up(void **state)
{
    static const struct {
        uint32_t tpr, isr, ppr;
    } cases[] = {{0, 0, 0},          {0x25, 0, 0x25},    {0, 0x43, 0x40},   {0x30, 0x43, 0x40},
                 {0x4a, 0x43, 0x4a}, {0x50, 0x43, 0x50}, {0, 0xff, 0xf0},   {0xff, 0xff, 0xff},
                 {0, 0x1f, 0x10},    {0x0f, 0, 0x0f},    {0x0f, 0x20, 0x20}};
    struct kvm_lapic_state v;
    uint8_t *r = (uint8_t *)v.regs;

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        memset(&v, 0, sizeof(v));
        tn_put_(r + 0x80, 4, cases[i].tpr);
        tn_put_(r + 0xa0, 4, 0xee);
        if (cases[i].isr) {
            r[0x100 + cases[i].isr / 32 * 16 + cases[i].isr % 32 / 8] =
                (uint8_t)(1u << cases[i].isr % 8);
            r[0x100] |= 1; /* a lower one does not count, nor does vector 0 */
        }
        tn_kvm_x86_fix_ppr_(&v);
        assert_int_equal(tn_get_(r + 0xa0, 4), cases[i].ppr);
    }
}

/* In a pool: restored early, then the time of it when it is wanted. */
static void timed_restore_is_the_same(void **state)
{
    static const char *const guests[] = {"count", "lapic_timer", "deadline"};
    struct kvm_msr_entry deadline = {0x6e0, 0, 0};
    struct tn_kvm_x86_refused refused;
    struct kvm_lapic_state la;
    struct tn_kvm_exit e;
    uint64_t shift;

    (void)state;
    NEED_KVM();
    for (size_t g = 0; g < COUNT(guests); g++) {
        start(guests[g], 1, FULL);
        do { /* until it waits for one */
            run_for(300, &e);
            take(&golden);
        } while (g == 2 && golden.cpu[0].msr[golden.cpu[0].msr_count - 1].data == 0);
        put_fresh(&golden, 0, TN_KVM_X86_TIME_STOPPED);
        usleep(8000); /* its timer fires */
        assert_int_equal(tn_kvm_x86_get_lapic(&m.cpu[0], &la), 0);
        memset(la.regs + 0x230, 1, 1); /* and something is posted, as by the PIT */
        assert_int_equal(tn_kvm_x86_set_lapic(&m.cpu[0], &la), 0);
        deadline.data = 0;
        (void)tn_kvm_x86_set_msrs(&m.cpu[0], &deadline, 1);
        assert_int_equal(tn_kvm_x86_time_restore(&host, &m.vm, &m.cpu[0], &golden.time,
                                                 golden.cpu[0].tsc_khz, TN_KVM_X86_TIME_STOPPED,
                                                 &shift),
                         0);
        assert_int_equal(tn_kvm_x86_vcpu_restore(&host, &m.cpu[0], &golden.cpu[0], shift,
                                                 TN_KVM_X86_TIMED, &refused),
                         0);
        save(&again);
        same(&golden, &again, true);
        assert_int_equal(again.cpu[0].tsc_offset, golden.cpu[0].tsc_offset + shift);
        if (g > 0) {
            run(&e);
            expect(&e, TN_KVM_EXIT_IO);
            assert_in_range(e.io.data[0], 5, 9);
        }
        golden.cpu[0].xsave_len = 0;
        assert_int_equal(tn_kvm_x86_vcpu_restore(&host, &m.cpu[0], &golden.cpu[0], shift,
                                                 TN_KVM_X86_TIMED, &refused),
                         TN_EFORMAT);
        stop(NULL);
    }
}

/* ---- time ---- */

/* The guest's counter, and the host's around it. */
static uint64_t guest_tsc(uint64_t *before, uint64_t *after)
{
    struct kvm_msr_entry e;

    memset(&e, 0, sizeof(e));
    e.index = 0x10;
    *before = __builtin_ia32_rdtsc();
    assert_int_equal(tn_kvm_x86_get_msrs(&m.cpu[0], &e, 1), 1);
    *after = __builtin_ia32_rdtsc();
    return e.data;
}

static void time_stands_still_or_goes_by(void **state)
{
    struct kvm_clock_data clock;

    (void)state;
    NEED_KVM();
    for (unsigned real = 0; real < 2; real++) {
        uint64_t seen, tsc, before, after, offset, saved, cycles = 0;

        start("tsc", 1, FULL);
        seen = listen_tsc();
        take(&golden);
        saved = golden.time.host_tsc + golden.cpu[0].tsc_offset; /* when it was saved */
        assert_true(saved >= seen);
        if (real) { /* a minute ago */
            golden.time.realtime_ns -= 60000000000ull;
            cycles = 60000ull * host.tsc_khz;
        }
        before = __builtin_ia32_rdtsc();
        put_fresh(&golden, 0, real ? TN_KVM_X86_TIME_REAL : TN_KVM_X86_TIME_STOPPED);
        after = __builtin_ia32_rdtsc();
        assert_int_equal(tn_kvm_x86_get_tsc_offset(&m.cpu[0], &offset), 0);
        tsc = guest_tsc(&before, &after);
        cycles = host.tsc_fixed ? 0 : cycles;
        assert_in_range(tsc, before + offset, after + offset);
        assert_true(tsc >= saved + cycles);
        /* An hour would be 60 times as much: a wrong unit is seen, a slow machine is not. */
        assert_true(tsc - saved - cycles < 30000ull * host.tsc_khz);
        assert_int_equal(tn_kvm_x86_get_clock(&m.vm, &clock), 0);
        assert_true(clock.clock >= golden.time.kvmclock_ns + (real ? 60000000000ull : 0));
        assert_true(clock.clock - golden.time.kvmclock_ns <
                    (real ? 90000000000ull : 30000000000ull));
        assert_true(listen_tsc() >= tsc);
        stop(NULL);
    }
}

/* What time_restore computes, by itself. */
static void time_is_bounded(void **state)
{
    static const struct {
        const char *what;
        int64_t apart_ns; /* the saved clock, from now */
        uint64_t gone_ns; /* what goes by */
    } cases[] = {
        {"the host's clock was set back", 3600000000000, 0},
        {"at once", 0, 0},
        {"an hour", -3600000000000, 3600000000000},
        {"twenty years", -631152000000000000, TN_KVM_X86_TIME_MAX_NS},
    };
    struct tn_kvm_x86_host real = host;

    (void)state;
    NEED_KVM();
    start("count", 1, FULL);
    host.tsc_fixed = false; /* it is a sum only */
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct tn_kvm_x86_time now, from;
        struct kvm_clock_data clock;
        uint64_t shift, before, after, cycles, slack = 30000ull * host.tsc_khz;

        assert_int_equal(tn_kvm_x86_time_save(&host, &m.vm, &m.cpu[0], host.tsc_khz, &now), 0);
        from.host_tsc = 5000;
        from.kvmclock_ns = 1000;
        from.realtime_ns = now.realtime_ns + (uint64_t)cases[i].apart_ns;
        before = __builtin_ia32_rdtsc();
        assert_int_equal(tn_kvm_x86_time_restore(&host, &m.vm, &m.cpu[0], &from, host.tsc_khz,
                                                 TN_KVM_X86_TIME_REAL, &shift),
                         0);
        after = __builtin_ia32_rdtsc();
        cycles = cases[i].gone_ns / 1000000 * host.tsc_khz;
        /* the counter of offset 0 shows, at that moment */
        assert_in_range(before + shift + slack, 5000 + cycles + slack - (after - before),
                        5000 + cycles + 2 * slack);
        assert_int_equal(tn_kvm_x86_get_clock(&m.vm, &clock), 0);
        assert_in_range(clock.clock, 1000 + cases[i].gone_ns,
                        1000 + cases[i].gone_ns + 30000000000ull);
        /* standing still, none of it counts */
        before = __builtin_ia32_rdtsc();
        assert_int_equal(tn_kvm_x86_time_restore(&host, &m.vm, &m.cpu[0], &from, host.tsc_khz,
                                                 TN_KVM_X86_TIME_STOPPED, &shift),
                         0);
        after = __builtin_ia32_rdtsc();
        assert_in_range(5000 - shift, before, after);
    }
    /* a guest's counter of twice the frequency, where KVM tells no offset */
    {
        struct tn_kvm_x86_time from = {1000, 0, 0};
        uint64_t before, after, shift;

        host.tsc_offset = false;
        before = __builtin_ia32_rdtsc();
        assert_int_equal(tn_kvm_x86_time_restore(&host, &m.vm, &m.cpu[0], &from, 2 * host.tsc_khz,
                                                 TN_KVM_X86_TIME_STOPPED, &shift),
                         0);
        after = __builtin_ia32_rdtsc();
        assert_in_range(1000 - shift, 2 * before - 2, 2 * after);
    }
    host = real;
    host.tsc_fixed = true; /* nothing can be done */
    assert_int_equal(tn_kvm_x86_time_restore(&host, &m.vm, &m.cpu[0], &golden.time, host.tsc_khz,
                                             TN_KVM_X86_TIME_REAL, &golden.time.host_tsc),
                     0);
    assert_int_equal(golden.time.host_tsc, 0);
    host = real;
    assert_false(tn_kvm_x86_tsc_differs(&host, host.tsc_khz));
    assert_false(tn_kvm_x86_tsc_differs(&host, host.tsc_khz + host.tsc_khz / 5000));
    assert_false(tn_kvm_x86_tsc_differs(&host, host.tsc_khz - host.tsc_khz / 5000));
    assert_true(tn_kvm_x86_tsc_differs(&host, host.tsc_khz + host.tsc_khz / 3000));
    assert_true(tn_kvm_x86_tsc_differs(&host, host.tsc_khz - host.tsc_khz / 3000));
    assert_true(tn_kvm_x86_tsc_differs(&host, 0));
    assert_true(tn_kvm_x86_tsc_differs(&host, UINT32_MAX));
}

/* ---- what a host lacks ---- */

static struct kvm_cpuid_entry2 *leaf(struct tn_kvm_x86_vcpu_state *s, uint32_t function,
                                     uint32_t index)
{
    struct kvm_cpuid_entry2 *e = tn_kvm_x86_cpuid_find(&s->cpuid, function, index);

    if (!e) {
        e = &s->cpuid.entries[s->cpuid.nent++];
        memset(e, 0, sizeof(*e));
        e->function = function;
        e->index = index;
        e->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    }
    return e;
}

static uint32_t *reg(struct kvm_cpuid_entry2 *e, unsigned r)
{
    uint32_t *regs[] = {&e->eax, &e->ebx, &e->ecx, &e->edx};

    return regs[r];
}

static void each_lack_is_named(void **state)
{
    static const struct {
        uint32_t function, index, reg;
    } features[] = {
        {1, 0, 2},          {1, 0, 3},          {6, 0, 0},          {7, 0, 1},
        {7, 0, 2},          {7, 0, 3},          {7, 1, 0},          {7, 1, 1},
        {7, 1, 2},          {7, 1, 3},          {7, 2, 3},          {0xd, 0, 0},
        {0xd, 0, 3},        {0xd, 1, 0},        {0xd, 1, 2},        {0xd, 1, 3},
        {0x14, 0, 1},       {0x14, 0, 2},       {0x19, 0, 1},       {0x1e, 1, 0},
        {0x24, 0, 1},       {0x80000001, 0, 2}, {0x80000001, 0, 3}, {0x80000007, 0, 3},
        {0x80000008, 0, 1}, {0x8000000a, 0, 3}, {0x8000001f, 0, 0}, {0x80000021, 0, 0},
        {0x80000021, 0, 2}, {0x80000022, 0, 0}, {0x40000001, 0, 0},
    };
    static const struct {
        uint32_t function, reg, shift;
    } limits[] = {{0x80000008, 0, 0}, {0x80000008, 0, 8}, {0x24, 1, 0}, {0xa, 0, 0}};
    struct tn_kvm_x86_vcpu_state *s = &golden.cpu[0], good;
    struct tn_kvm_x86_host other;
    struct tn_kvm_x86_lack lack;
    unsigned named = 0;

    (void)state;
    NEED_KVM();
    start("count", 1, FULL);
    take(&golden);
    good = *s;
    for (size_t i = 0; i < COUNT(features); i++) {
        for (unsigned bit = 0; bit < 32; bit++) {
            uint32_t *r;

            *s = good;
            r = reg(leaf(s, features[i].function, features[i].index), features[i].reg);
            if (*r >> bit & 1)
                continue;
            *r |= 1u << bit;
            if (tn_kvm_x86_state_check(&host, s, &lack) == 0)
                continue; /* the host has it, or it is none */
            assert_int_equal(tn_kvm_x86_state_check(&host, s, &lack), TN_EUNSUP);
            if (lack.kind == TN_KVM_X86_LACK_LIMIT)
                continue;
            assert_int_equal(lack.kind, TN_KVM_X86_LACK_FEATURE);
            assert_int_equal(lack.function, features[i].function);
            assert_int_equal(lack.index, features[i].index);
            assert_int_equal(lack.reg, features[i].reg);
            assert_int_equal(lack.want, 1u << bit);
            assert_int_equal(lack.have & lack.want, 0);
            named++;
        }
        *s = good; /* and what is left out is no lack */
        *reg(leaf(s, features[i].function, features[i].index), features[i].reg) = 0;
        assert_int_equal(tn_kvm_x86_state_check(&host, s, &lack), 0);
    }
    assert_true(named > 300);
    for (size_t i = 0; i < COUNT(limits); i++) {
        uint32_t *r;

        *s = good;
        r = reg(leaf(s, limits[i].function, 0), limits[i].reg);
        *r = (*r & ~(0xffu << limits[i].shift)) | 0x7fu << limits[i].shift;
        assert_int_equal(tn_kvm_x86_state_check(&host, s, &lack), TN_EUNSUP);
        assert_int_equal(lack.kind, TN_KVM_X86_LACK_LIMIT);
        assert_int_equal(lack.function, limits[i].function);
        assert_int_equal(lack.reg, limits[i].reg);
        assert_int_equal(lack.want, 0x7f);
        assert_true(lack.have < lack.want);
    }
    /* what is no feature: topology, names, caches, what follows the guest's own registers */
    *s = good;
    leaf(s, 1, 0)->ebx = 0x07040800;
    leaf(s, 1, 0)->ecx ^= 1u << 27;
    leaf(s, 1, 0)->edx ^= 1u << 28;
    leaf(s, 4, 0)->eax = ~0u;
    leaf(s, 0xb, 0)->edx = 3;
    leaf(s, 0x80000002, 0)->eax = 0x61616161;
    leaf(s, 0x80000008, 0)->ecx = 0x2003;
    assert_int_equal(tn_kvm_x86_state_check(&host, s, &lack), 0);
    *s = good;
    leaf(s, 0, 0)->ebx ^= 1;
    assert_int_equal(tn_kvm_x86_state_check(&host, s, &lack), TN_EUNSUP);
    assert_int_equal(lack.kind, TN_KVM_X86_LACK_VENDOR);
    assert_int_equal(lack.want, leaf(s, 0, 0)->ebx);
    assert_int_equal(lack.have, leaf(s, 0, 0)->ebx ^ 1);

    *s = good;
    s->msr[s->msr_count].index = 0x12345678;
    s->msr[s->msr_count++].data = 0;
    assert_int_equal(tn_kvm_x86_state_check(&host, s, &lack), 0);
    assert_int_equal(tn_kvm_x86_vcpu_restore(&host, &m.cpu[0], s, 0, 0, NULL), 0);
    s->msr[s->msr_count - 1].data = 7;
    assert_int_equal(tn_kvm_x86_state_check(&host, s, &lack), TN_EUNSUP);
    assert_int_equal(lack.kind, TN_KVM_X86_LACK_MSR);
    assert_int_equal(lack.msr, 0x12345678);
    assert_int_equal(lack.want, 7);

    /* extended state: a component that is not here, is elsewhere, is cut off */
    *s = good;
    s->xsave[512 + 2] = 0x02;
    assert_int_equal(tn_kvm_x86_state_check(&host, s, &lack), TN_EUNSUP);
    assert_int_equal(lack.kind, TN_KVM_X86_LACK_XSAVE);
    assert_int_equal(lack.index, 17);
    s->xsave[512 + 2] = 0;
    if (leaf(s, 0xd, 2)->eax == 256) {
        memset(s->xsave + 512, 0, 8);
        s->xsave[512] = 7;
        assert_int_equal(tn_kvm_x86_state_check(&host, s, &lack), 0);
        s->xsave_len = leaf(s, 0xd, 2)->ebx + 255;
        assert_int_equal(tn_kvm_x86_state_check(&host, s, &lack), TN_EUNSUP);
        assert_int_equal(lack.index, 2);
        s->xsave_len++;
        assert_int_equal(tn_kvm_x86_state_check(&host, s, &lack), 0);
        leaf(s, 0xd, 2)->ebx += 64;
        assert_int_equal(tn_kvm_x86_state_check(&host, s, &lack), TN_EUNSUP);
        assert_int_equal(lack.kind, TN_KVM_X86_LACK_XSAVE);
        assert_int_equal(lack.index, 2);
        assert_int_equal(lack.want, lack.have + 64);
    }

    *s = good;
    other = host;
    other.tsc_control = false;
    s->tsc_khz += s->tsc_khz / 1000;
    assert_int_equal(tn_kvm_x86_state_check(&other, s, &lack), TN_EUNSUP);
    assert_int_equal(lack.kind, TN_KVM_X86_LACK_TSC);
    assert_int_equal(lack.want, s->tsc_khz);
    assert_int_equal(lack.have, host.tsc_khz);
    other.tsc_control = true;
    assert_int_equal(tn_kvm_x86_state_check(&other, s, &lack), 0);
    *s = good;
    assert_int_equal(tn_kvm_x86_state_check(&host, s, &lack), 0);
}

/* ---- hostile ---- */

/* Flips, sets and copies bytes of the CPU's state, not of what the caller owns. */
static void mutate(struct shot *s, uint64_t *random)
{
    uint8_t *cpu = (uint8_t *)&s->cpu[0];
    unsigned n = 1 + (unsigned)(test_random(random) % 4);

    while (n-- > 0) {
        uint64_t r = test_random(random);
        size_t first = offsetof(struct tn_kvm_x86_vcpu_state, regs);
        size_t end = offsetof(struct tn_kvm_x86_vcpu_state, msr) + 24 * sizeof(s->cpu[0].msr[0]);
        static const uint8_t odd[] = {0, 1, 0x7f, 0x80, 0xff};

        switch (r >> 60) {
        case 0:
            s->cpu[0].mp_state = (uint32_t)(r >> 8) % 6;
            break;
        case 1:
            s->xsave[0][r % 4096] = (uint8_t)(r >> 32);
            break;
        case 2:
            ((uint8_t *)&s->chips)[(r >> 8) % sizeof(s->chips)] = odd[r % 5];
            break;
        case 3:
            s->cpu[0].xsave_len = (r >> 8) % (XSAVE + 64);
            break;
        case 4:
            s->cpu[0].msr_count = (uint32_t)(r >> 8) % 600;
            break;
        case 5:
            ((uint8_t *)&s->cpu[0].events)[(r >> 8) % sizeof(s->cpu[0].events)] = odd[r % 5];
            break;
        case 6:
            s->cpu[0].lapic.regs[(r >> 8) % 1024] = (char)odd[r % 5];
            break;
        case 7:
            s->cpu[0].msr[(r >> 8) % s->cpu[0].msr_count % TN_KVM_X86_STATE_MSRS].data ^= 1ull
                                                                                          << r % 64;
            break;
        case 8:
            memset(cpu + first + r % (end - first - 8), odd[(r >> 32) % 5], 8);
            break;
        case 9:
            s->time.host_tsc ^= r;
            s->time.kvmclock_ns ^= r >> 4;
            s->time.realtime_ns ^= r << 4;
            break;
        default:
            cpu[first + r % (end - first)] ^= (uint8_t)(1u << (r >> 40) % 8);
            break;
        }
    }
}

/* Whatever the guest does, it can be stopped. */
static void run_wreck(void)
{
    struct tn_kvm_exit e;
    timer_t timer = kick_every(300);

    (void)tn_kvm_run(&m.cpu[0], &e);
    timer_delete(timer);
}

static void a_wreck_harms_nobody(void **state)
{
    uint64_t random = 7;
    uint32_t want[16], got[16], taken = 0, refused = 0;
    unsigned files;

    (void)state;
    NEED_KVM();
    start("count", 1, FULL);
    listen(want, 5);
    take(&golden);
    listen(want, 16);
    files = open_files();
    for (unsigned i = 0; i < 4000; i++) {
        uint64_t shift;
        int r;

        again = golden;
        again.cpu[0].xsave = again.xsave[0];
        mutate(&again, &random);
        assert_int_equal(tn_kvm_x86_time_restore(&host, &m.vm, &m.cpu[0], &again.time,
                                                 again.cpu[0].tsc_khz,
                                                 (enum tn_kvm_x86_time_mode)(i % 2), &shift),
                         0);
        r = tn_kvm_x86_vcpu_restore(&host, &m.cpu[0], &again.cpu[0], shift, i & TN_KVM_X86_LAZY,
                                    NULL);
        assert_true(r == 0 || r == TN_ESYS || r == TN_EFORMAT);
        if (r == 0)
            r = tn_kvm_x86_vm_restore(&m.vm, &again.chips);
        taken += r == 0;
        refused += r != 0;
        if (r == 0 && i % 4 == 0)
            run_wreck();
        if (i % 100 == 99) {
            (void)tn_kvm_x86_vcpu_drop(&m.cpu[0]);
            tn_kvm_interrupt_clear(&m.cpu[0]);
            put(&golden, 0, TN_KVM_X86_TIME_STOPPED);
            save(&again);
            same(&golden, &again, true);
            listen(got, 16);
            assert_memory_equal(got, want, sizeof(want));
        }
    }
    assert_int_equal(open_files(), files);
    assert_true(taken > 400 && refused > 400);
    put_fresh(&golden, 0, TN_KVM_X86_TIME_STOPPED);
    listen(got, 16);
    assert_memory_equal(got, want, sizeof(want));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(restore_refuses_what_no_save_writes),
        T(restore_names_what_kvm_refuses),
        T(closed_and_full),
        T(host_is_known),
        T(few_banks_are_fewer_msrs),
        T(more_msrs_than_a_call_takes),
        T(restored_into_a_fresh_vm_is_the_same),
        T(four_cpus),
        T(an_older_kvm),
        T(counting_goes_on),
        T(spinning_goes_on),
        T(apic_timer_ticks_on),
        T(deadline_ticks_on),
        T(pit_ticks_on),
        T(armed_timers_are_forgotten),
        T(xmm_goes_on),
        T(xsave_of_any_size),
        T(nothing_is_left_behind),
        T(priority_is_summed_up),
        T(timed_restore_is_the_same),
        T(time_stands_still_or_goes_by),
        T(time_is_bounded),
        T(each_lack_is_named),
        T(a_wreck_harms_nobody),
    };

    kvm_open();
    if (kvm.fd >= 0 && tn_kvm_x86_host_init(&kvm, &host) < 0)
        return 2;
    return cmocka_run_group_tests_name("kvm_x86_state", tests, NULL, NULL);
}
