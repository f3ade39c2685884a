/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_kvm_x86: CPUID on paper and on this host, the state at boot, and every state get and set.
 */
#include "tn_kvm_x86.h"

#include "kvm_guest.h"

/* ---- CPUID ---- */

static uint32_t count(const struct tn_kvm_cpuid *c, uint32_t function)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < c->nent; i++)
        n += c->entries[i].function == function;
    return n;
}

static void entry(struct tn_kvm_cpuid *c, uint32_t function, uint32_t index, uint32_t flags,
                  uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx)
{
    struct kvm_cpuid_entry2 *e = &c->entries[c->nent++];

    memset(e, 0, sizeof(*e));
    e->function = function;
    e->index = index;
    e->flags = flags;
    e->eax = eax;
    e->ebx = ebx;
    e->ecx = ecx;
    e->edx = edx;
}

static void cpuid_rejects_what_it_cannot_describe(void **state)
{
    static struct tn_kvm k;
    static struct tn_kvm_cpuid c;

    (void)state;
    memset(&k, 0, sizeof(k));
    k.fd = -1;
    entry(&k.supported, 0, 0, 0, 0x1f, 0x756e6547, 0x6c65746e, 0x49656e69);
    c.nent = 7;
    assert_int_equal(tn_kvm_x86_cpuid(&k, &c, 1, 1), TN_EINVAL);
    assert_int_equal(c.nent, 0);
    assert_int_equal(tn_kvm_x86_cpuid(&k, &c, 0, 0), TN_EINVAL);
    assert_int_equal(tn_kvm_x86_cpuid(&k, &c, 0, 256), TN_EINVAL);
    assert_int_equal(tn_kvm_x86_cpuid(&k, &c, ~0u, 255), TN_EINVAL);
    assert_int_equal(tn_kvm_x86_cpuid(&k, &c, 254, 255), 0);
    while (k.supported.nent < TN_KVM_MAX_CPUID - 5)
        entry(&k.supported, 0x80000000, 0, 0, 0, 0, 0, 0);
    assert_int_equal(tn_kvm_x86_cpuid(&k, &c, 0, 1), TN_ENOSPC);
    assert_int_equal(c.nent, 0);
    k.supported.nent = TN_KVM_MAX_CPUID + 1;
    assert_int_equal(tn_kvm_x86_cpuid(&k, &c, 0, 1), TN_EINVAL);
}

static void cpuid_topology_on_paper(void **state)
{
    static const struct {
        uint32_t cpus, bits, pow2;
    } row[] = {{1, 0, 1}, {2, 1, 2}, {3, 2, 4}, {4, 2, 4}, {5, 3, 8}, {128, 7, 128}, {255, 8, 256}};
    static struct tn_kvm intel, amd;
    static struct tn_kvm_cpuid c;
    const uint32_t indexed = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    struct kvm_cpuid_entry2 *e;

    (void)state;
    memset(&intel, 0, sizeof(intel));
    memset(&amd, 0, sizeof(amd));
    intel.fd = amd.fd = -1;
    entry(&intel.supported, 0, 0, 0, 0x1f, 0x756e6547, 0x6c65746e, 0x49656e69);
    entry(&intel.supported, 1, 0, 0, 0, 0xaabb0800, 1u << 24 | 1u << 3, 1u << 28);
    entry(&intel.supported, 4, 0, indexed, 0xfffffc21, 0, 0, 0);
    entry(&intel.supported, 4, 3, indexed, 0xfffffc63, 0, 0, 0);
    entry(&intel.supported, 4, 4, indexed, 0, 0, 0, 0);
    entry(&intel.supported, 7, 0, indexed, 1, 4 | 1u << 5, 1u << 30, 0);
    entry(&intel.supported, 7, 1, indexed, 0, 4, 0, 0);
    entry(&intel.supported, 0xa, 0, 0, 5, 5, 5, 5);
    entry(&intel.supported, 0xb, 0, indexed, 9, 9, 9, 9);
    entry(&intel.supported, 0x40000000, 0, 0, 1, 2, 3, 4);
    entry(&intel.supported, 0x80000008, 0, 0, 0x302e, 0, 0, 0);
    entry(&amd.supported, 0, 0, 0, 0x10, 0x68747541, 0x444d4163, 0x69746e65);
    entry(&amd.supported, 1, 0, 0, 0, 0, 0, 0);
    entry(&amd.supported, 0x80000001, 0, 0, 0, 0, 4 | 1u << 22, 0);
    entry(&amd.supported, 0x80000008, 0, 0, 0x3030, 1, 0xffffffff, 7);
    entry(&amd.supported, 0x8000001d, 3, indexed, 0xfffffc63, 0, 0, 0);
    entry(&amd.supported, 0x8000001e, 0, 0, 1, 1, 1, 1);
    entry(&amd.supported, 0x80000026, 0, indexed, 1, 1, 1, 1);

    for (size_t i = 0; i < COUNT(row); i++) {
        uint32_t n = row[i].cpus, cpu = n - 1;

        assert_int_equal(tn_kvm_x86_cpuid(&intel, &c, cpu, n), 0);
        e = tn_kvm_x86_cpuid_find(&c, 1, 0);
        assert_int_equal(e->ebx >> 24, cpu);
        assert_int_equal(e->ebx >> 16 & 0xff, row[i].pow2 > 255 ? 255 : row[i].pow2);
        assert_int_equal(e->ebx & 0xffff, 0x0800);
        assert_int_equal(e->edx >> 28 & 1, n > 1);
        assert_int_equal(e->ecx, 1u << 31); /* no deadline timer: KVM is closed */
        e = tn_kvm_x86_cpuid_find(&c, 4, 0);
        assert_int_equal(e->eax >> 14 & 0xfff, 0);
        assert_int_equal(e->eax >> 26, row[i].pow2 > 64 ? 63 : row[i].pow2 - 1);
        assert_int_equal(e->eax & 0x3fff, 0x3c21);
        e = tn_kvm_x86_cpuid_find(&c, 4, 3);
        assert_int_equal(e->eax >> 14 & 0xfff, row[i].pow2 - 1);
        assert_int_equal(tn_kvm_x86_cpuid_find(&c, 4, 4)->eax, 0);
        e = tn_kvm_x86_cpuid_find(&c, 7, 0);
        assert_int_equal(e->ebx, 1u << 5);
        assert_int_equal(e->ecx, 0);
        assert_int_equal(tn_kvm_x86_cpuid_find(&c, 7, 1)->ebx, 4);
        e = tn_kvm_x86_cpuid_find(&c, 0xa, 0);
        assert_int_equal(e->eax | e->ebx | e->ecx | e->edx, 0);
        for (uint32_t leaf = 0xb; leaf <= 0x1f; leaf += 0x1f - 0xb) {
            assert_int_equal(count(&c, leaf), 3);
            for (uint32_t level = 0; level < 3; level++) {
                e = tn_kvm_x86_cpuid_find(&c, leaf, level);
                assert_int_equal(e->flags, indexed);
                assert_int_equal(e->eax, level == 1 ? row[i].bits : 0);
                assert_int_equal(e->ebx, level == 0 ? 1 : level == 1 ? n : 0);
                assert_int_equal(e->ecx, level | (level < 2 ? (level + 1) << 8 : 0));
                assert_int_equal(e->edx, cpu);
            }
        }
        assert_int_equal(tn_kvm_x86_cpuid_find(&c, 0x40000000, 0)->ecx, 3);
        assert_int_equal(tn_kvm_x86_cpuid_find(&c, 0x80000008, 0)->ecx, 0);

        assert_int_equal(tn_kvm_x86_cpuid(&amd, &c, cpu, n), 0);
        assert_int_equal(count(&c, 0x1f), 0);
        assert_int_equal(count(&c, 0xb), 3);
        assert_int_equal(count(&c, 0x80000026), 0);
        e = tn_kvm_x86_cpuid_find(&c, 0x80000001, 0);
        assert_int_equal(e->ecx, 1u << 22 | (n > 1 ? 2u : 0));
        e = tn_kvm_x86_cpuid_find(&c, 0x80000008, 0);
        assert_int_equal(e->ecx, 0xffff0f00 | row[i].bits << 12 | cpu);
        assert_int_equal(e->eax, 0x3030);
        e = tn_kvm_x86_cpuid_find(&c, 0x8000001d, 3);
        assert_int_equal(e->eax >> 14 & 0xfff, row[i].pow2 - 1);
        assert_int_equal(e->eax >> 26, 0x3f);
        e = tn_kvm_x86_cpuid_find(&c, 0x8000001e, 0);
        assert_int_equal(e->eax, cpu);
        assert_int_equal(e->ebx, cpu);
        assert_int_equal(e->ecx, 0);
        assert_int_equal(e->edx, 1);
    }
    assert_null(tn_kvm_x86_cpuid_find(&c, 0x1234, 0));
}

static void cpuid_of_this_host(void **state)
{
    static struct tn_kvm_cpuid c, back;
    struct kvm_cpuid_entry2 *e;

    (void)state;
    NEED_KVM();
    assert_true(kvm.supported.nent > 4);
    start(NULL, 2, FULL);
    assert_int_equal(tn_kvm_x86_cpuid(&kvm, &c, 1, 2), 0);
    assert_int_equal(tn_kvm_x86_cpuid_find(&c, 1, 0)->ecx >> 31, 1);
    assert_int_equal(tn_kvm_x86_cpuid_find(&c, 1, 0)->ecx >> 24 & 1,
                     tn_kvm_cap(&kvm, KVM_CAP_TSC_DEADLINE_TIMER) > 0);
    e = tn_kvm_x86_cpuid_find(&c, 0x40000000, 0);
    assert_non_null(e);
    assert_int_equal(e->ebx, 0x4b4d564b); /* "KVMK" */
    assert_int_equal(tn_kvm_x86_get_cpuid(&m.cpu[1], &back), 0);
    assert_int_equal(back.nent, c.nent);
    for (uint32_t i = 0; i < back.nent; i++) {
        assert_int_equal(back.entries[i].function, c.entries[i].function);
        assert_int_equal(back.entries[i].index, c.entries[i].index);
    }
    assert_int_equal(tn_kvm_x86_cpuid_find(&back, 1, 0)->ebx >> 24, 1);
    if (tn_kvm_x86_cpuid_find(&back, 0, 0)->eax >= 0xb)
        assert_int_equal(tn_kvm_x86_cpuid_find(&back, 0xb, 1)->edx, 1);
}

/* ---- state ---- */

static void boot_state_is_set(void **state)
{
    struct tn_boot_x86_cpu b;
    struct kvm_lapic_state lapic;
    struct kvm_sregs s, before;
    struct kvm_regs g;
    struct kvm_msr_entry msr[2];
    uint32_t refused;

    (void)state;
    NEED_KVM();
    start(NULL, 2, FULL);
    memset(&b, 0, sizeof(b));
    b.rip = 0x1000000;
    b.rsp = 0x8ff0;
    b.rbp = 0x8ff0;
    b.rsi = 0x7000;
    b.rbx = 0x6000;
    b.rflags = 2;
    b.cr0 = 0x80050033;
    b.cr3 = 0x9000;
    b.cr4 = 0x20;
    b.efer = 0x500;
    b.cs.limit = b.ds.limit = 0xffffffff;
    b.cs.selector = 0x10;
    b.ds.selector = 0x18;
    b.tr.selector = 0x20;
    b.cs.type = 11;
    b.ds.type = 3;
    b.tr.type = 11;
    b.cs.present = b.ds.present = b.tr.present = 1;
    b.cs.s = b.ds.s = b.cs.g = b.ds.g = b.cs.l = b.ds.db = 1;
    b.tr.limit = 0x67;
    b.gdt_base = 0x1000;
    b.gdt_limit = 47;
    assert_int_equal(tn_kvm_x86_get_sregs(&m.cpu[0], &before), 0);
    assert_int_equal(tn_kvm_x86_set_boot(&m.cpu[0], &b), 0);
    assert_int_equal(tn_kvm_x86_get_regs(&m.cpu[0], &g), 0);
    assert_int_equal(g.rip, b.rip);
    assert_int_equal(g.rsp, b.rsp);
    assert_int_equal(g.rbp, b.rbp);
    assert_int_equal(g.rsi, b.rsi);
    assert_int_equal(g.rbx, b.rbx);
    assert_int_equal(g.rflags, 2);
    assert_int_equal(g.rax | g.rcx | g.rdx | g.rdi | g.r8 | g.r15, 0);
    assert_int_equal(tn_kvm_x86_get_sregs(&m.cpu[0], &s), 0);
    assert_int_equal(s.cr0, b.cr0);
    assert_int_equal(s.cr3, b.cr3);
    assert_int_equal(s.cr4, b.cr4);
    assert_int_equal(s.efer, b.efer);
    assert_int_equal(s.cs.selector, 0x10);
    assert_int_equal(s.cs.l, 1);
    assert_int_equal(s.cs.type, 11);
    assert_int_equal(s.ss.selector, 0x18);
    assert_int_equal(s.gs.limit, 0xffffffff);
    assert_int_equal(s.tr.limit, 0x67);
    assert_int_equal(s.gdt.base, 0x1000);
    assert_int_equal(s.gdt.limit, 47);
    assert_int_equal(s.idt.limit, 0);
    assert_int_equal(s.apic_base, before.apic_base);

    assert_int_equal(tn_kvm_x86_set_boot_msrs(&m.cpu[0], &refused), 0);
    assert_int_equal(refused, 0);
    assert_int_equal(tn_kvm_x86_set_boot_msrs(&m.cpu[1], NULL), 0);
    memset(msr, 0, sizeof(msr));
    msr[0].index = 0x1a0;
    msr[1].index = 0x2ff;
    assert_int_equal(tn_kvm_x86_get_msrs(&m.cpu[0], msr, 2), 2);
    assert_int_equal(msr[0].data & 1, 1);
    assert_int_equal(msr[1].data & 0xcff, 0x806);

    assert_int_equal(tn_kvm_x86_set_lint(&m.cpu[0]), 0);
    assert_int_equal(tn_kvm_x86_get_lapic(&m.cpu[0], &lapic), 0);
    assert_int_equal(value((uint8_t *)lapic.regs + 0x350, 4) & 0x1ffff, 0x700);
    assert_int_equal(value((uint8_t *)lapic.regs + 0x360, 4) & 0x1ffff, 0x400);
}

/* get, set, get again: the same bytes. */
#define ROUND(type, self, get, set)                \
    do {                                           \
        type a_, b_;                               \
        memset(&a_, 0, sizeof(a_));                \
        memset(&b_, 0, sizeof(b_));                \
        assert_int_equal(get(self, &a_), 0);       \
        assert_int_equal(set(self, &a_), 0);       \
        assert_int_equal(get(self, &b_), 0);       \
        assert_memory_equal(&a_, &b_, sizeof(a_)); \
    } while (0)

static void state_survives_get_set_get(void **state)
{
    struct kvm_irqchip chip[2];
    struct kvm_clock_data clock[2];
    struct tn_kvm_vcpu *cpu;
    uint32_t mp[2];

    (void)state;
    NEED_KVM();
    start("lapic_timer", 2, FULL);
    tn_kvm_interrupt(&m.cpu[0]);
    for (uint32_t i = 0; i < 2; i++) {
        cpu = &m.cpu[i];
        ROUND(struct kvm_regs, cpu, tn_kvm_x86_get_regs, tn_kvm_x86_set_regs);
        ROUND(struct kvm_sregs, cpu, tn_kvm_x86_get_sregs, tn_kvm_x86_set_sregs);
        if (tn_kvm_cap(&kvm, KVM_CAP_SREGS2) > 0)
            ROUND(struct kvm_sregs2, cpu, tn_kvm_x86_get_sregs2, tn_kvm_x86_set_sregs2);
        ROUND(struct kvm_fpu, cpu, tn_kvm_x86_get_fpu, tn_kvm_x86_set_fpu);
        if (tn_kvm_cap(&kvm, KVM_CAP_XCRS) > 0)
            ROUND(struct kvm_xcrs, cpu, tn_kvm_x86_get_xcrs, tn_kvm_x86_set_xcrs);
        ROUND(struct kvm_lapic_state, cpu, tn_kvm_x86_get_lapic, tn_kvm_x86_set_lapic);
        ROUND(struct kvm_vcpu_events, cpu, tn_kvm_x86_get_events, tn_kvm_x86_set_events);
        ROUND(struct kvm_debugregs, cpu, tn_kvm_x86_get_debugregs, tn_kvm_x86_set_debugregs);
        assert_int_equal(tn_kvm_get_mp_state(cpu, &mp[0]), 0);
        assert_int_equal(mp[0], i ? KVM_MP_STATE_UNINITIALIZED : KVM_MP_STATE_RUNNABLE);
        assert_int_equal(tn_kvm_set_mp_state(cpu, mp[0]), 0);
        assert_int_equal(tn_kvm_get_mp_state(cpu, &mp[1]), 0);
        assert_int_equal(mp[0], mp[1]);
    }
    memset(chip, 0, sizeof(chip));
    for (uint32_t i = 0; i < KVM_NR_IRQCHIPS; i++) {
        chip[0].chip_id = chip[1].chip_id = i;
        assert_int_equal(tn_kvm_x86_get_irqchip(&m.vm, &chip[0]), 0);
        assert_int_equal(tn_kvm_x86_set_irqchip(&m.vm, &chip[0]), 0);
        assert_int_equal(tn_kvm_x86_get_irqchip(&m.vm, &chip[1]), 0);
        assert_memory_equal(&chip[0], &chip[1], sizeof(chip[0]));
    }
    chip[0].chip_id = 3;
    assert_int_equal(tn_kvm_x86_get_irqchip(&m.vm, &chip[0]), TN_ESYS);
    assert_int_equal(errno, EINVAL);
    {
        struct kvm_pit_state2 pit[2];

        memset(pit, 0, sizeof(pit));
        assert_int_equal(tn_kvm_x86_get_pit2(&m.vm, &pit[0]), 0);
        assert_int_equal(tn_kvm_x86_set_pit2(&m.vm, &pit[0]), 0);
        assert_int_equal(tn_kvm_x86_get_pit2(&m.vm, &pit[1]), 0);
        for (int i = 0; i < 3; i++) /* setting it starts the counters anew */
            pit[0].channels[i].count_load_time = pit[1].channels[i].count_load_time = 0;
        assert_memory_equal(&pit[0], &pit[1], sizeof(pit[0]));
    }
    memset(clock, 0, sizeof(clock));
    clock[0].clock = 1000000000000;
    assert_int_equal(tn_kvm_x86_set_clock(&m.vm, &clock[0]), 0);
    assert_int_equal(tn_kvm_x86_get_clock(&m.vm, &clock[1]), 0);
    assert_in_range(clock[1].clock, clock[0].clock, clock[0].clock + 1000000000);
}

static void extended_state_of_any_size(void **state)
{
    uint8_t *a, *b;
    int size;

    (void)state;
    NEED_KVM();
    start(NULL, 1, FULL);
    size = tn_kvm_x86_xsave_size(&m.vm);
    assert_true(size >= 4096);
    a = calloc(1, (size_t)size);
    b = calloc(1, (size_t)size + 64);
    assert_true(a && b);
    b[4095] = 1;
    assert_int_equal(tn_kvm_x86_get_xsave(&m.vm, &m.cpu[0], b, (size_t)size - 1), TN_EINVAL);
    assert_int_equal(b[4095], size == 4096);
    assert_int_equal(tn_kvm_x86_set_xsave(&m.vm, &m.cpu[0], b, (size_t)size - 1), TN_EINVAL);
    assert_int_equal(tn_kvm_x86_get_xsave(&m.vm, &m.cpu[0], a, (size_t)size), 0);
    assert_int_equal(value(a, 2), 0x37f); /* the FPU's control word */
    assert_int_equal(tn_kvm_x86_set_xsave(&m.vm, &m.cpu[0], a, (size_t)size), 0);
    assert_int_equal(tn_kvm_x86_get_xsave(&m.vm, &m.cpu[0], b, (size_t)size + 64), 0);
    assert_memory_equal(a, b, (size_t)size);
    free(a);
    free(b);
}

static void msrs_in_batches_and_the_one_that_fails(void **state)
{
    static uint32_t list[TN_KVM_X86_MAX_MSRS];
    static struct kvm_msr_entry e[200];
    int n;

    (void)state;
    NEED_KVM();
    start(NULL, 1, FULL);
    n = tn_kvm_x86_msr_list(&kvm, list, COUNT(list));
    assert_true(n > 10);
    assert_int_equal(tn_kvm_x86_msr_list(&kvm, list, (uint32_t)n - 1), TN_ENOSPC);
    assert_int_equal(tn_kvm_x86_get_msrs(&m.cpu[0], e, 0), 0);

    memset(e, 0, sizeof(e));
    for (uint32_t i = 0; i < COUNT(e); i++) {    /* more than one batch, all with a trace */
        e[i].index = i % 2 ? 0xc0000102 : 0x174; /* KERNEL_GS_BASE, SYSENTER_CS */
        e[i].data = i;
    }
    assert_int_equal(tn_kvm_x86_set_msrs(&m.cpu[0], e, COUNT(e)), COUNT(e));
    assert_int_equal(tn_kvm_x86_get_msrs(&m.cpu[0], e, COUNT(e)), COUNT(e));
    for (uint32_t i = 0; i < COUNT(e); i++)
        assert_int_equal(e[i].data, i % 2 ? COUNT(e) - 1 : COUNT(e) - 2);

    for (uint32_t bad = 0; bad < COUNT(e); bad += 33) {
        uint32_t was = e[bad].index;

        e[bad].index = 0x7fffffff;
        assert_int_equal(tn_kvm_x86_get_msrs(&m.cpu[0], e, COUNT(e)), bad);
        assert_int_equal(tn_kvm_x86_set_msrs(&m.cpu[0], e, COUNT(e)), bad);
        e[bad].index = was;
    }
    /* Every one on the list can be read, and what was read be written. */
    for (int i = 0; i < n; i++) {
        struct kvm_msr_entry one = {list[i], 0, 0};

        if (tn_kvm_x86_get_msrs(&m.cpu[0], &one, 1) != 1)
            print_message("  MSR %#x cannot be read\n", list[i]);
        else if (tn_kvm_x86_set_msrs(&m.cpu[0], &one, 1) != 1)
            print_message("  MSR %#x cannot be written back\n", list[i]);
    }
}

static void time_stamp_counter(void **state)
{
    uint64_t offset = 1, again;
    int khz;

    (void)state;
    NEED_KVM();
    start(NULL, 1, FULL);
    khz = tn_kvm_x86_get_tsc_khz(&m.cpu[0]);
    assert_true(khz > 100000);
    assert_int_equal(tn_kvm_x86_set_tsc_khz(&m.cpu[0], (uint32_t)khz), 0);
    assert_int_equal(tn_kvm_has_attr(m.cpu[0].fd, 0xffff, 0), 0);
    if (tn_kvm_has_attr(m.cpu[0].fd, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET) != 1)
        SKIP("this KVM has no TSC offset attribute");
    assert_int_equal(tn_kvm_x86_get_tsc_offset(&m.cpu[0], &offset), 0);
    assert_int_equal(tn_kvm_x86_set_tsc_offset(&m.cpu[0], offset - 12345), 0);
    assert_int_equal(tn_kvm_x86_get_tsc_offset(&m.cpu[0], &again), 0);
    if (again == offset)
        print_message("  this KVM takes no offset: its CPU has none\n");
    else
        assert_int_equal(again, offset - 12345);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(cpuid_rejects_what_it_cannot_describe),
        T(cpuid_topology_on_paper),
        T(cpuid_of_this_host),
        T(boot_state_is_set),
        T(state_survives_get_set_get),
        T(extended_state_of_any_size),
        T(msrs_in_batches_and_the_one_that_fails),
        T(time_stamp_counter),
    };

    kvm_open();
    return cmocka_run_group_tests_name("kvm_x86", tests, NULL, NULL);
}
