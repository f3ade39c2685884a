/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_kvm. The decoder is tested on run pages of our own making, everywhere; the rest on /dev/kvm,
 * or skipped by name where there is none.
 */
#include "tn_kvm.h"

#include "kvm_guest.h"

/* ---- the decoder, without KVM ---- */

static _Alignas(8) uint8_t page[3 * 4096];
static struct tn_kvm_vcpu paper = {-1, 0, (struct kvm_run *)(void *)page, sizeof(page)};

static struct kvm_run *fresh(uint32_t reason)
{
    memset(page, 0xa5, sizeof(page));
    paper.run->exit_reason = reason;
    return paper.run;
}

static void decode_refuses_an_access_outside_the_run_page(void **state)
{
    static const struct {
        uint64_t offset;
        uint8_t size;
        uint32_t count;
        int err;
    } row[] = {
        {4096, 1, 8192, 0},           {4096, 1, 8193, TN_EBUG}, {4096, 4, 2048, 0},
        {4096, 4, 2049, TN_EBUG},     {3 * 4096 - 1, 1, 1, 0},  {3 * 4096 - 1, 2, 1, TN_EBUG},
        {3 * 4096, 1, 1, TN_EBUG},    {~0ull, 1, 1, TN_EBUG},   {~0ull - 4096, 4, ~0u, TN_EBUG},
        {4096, 4, 1u << 31, TN_EBUG}, {4096, 0, 1, TN_EBUG},    {4096, 3, 1, TN_EBUG},
        {4096, 8, 1, TN_EBUG},        {4096, 1, 0, TN_EBUG},
    };
    struct tn_kvm_exit e, zero;

    (void)state;
    memset(&zero, 0, sizeof(zero));
    for (size_t i = 0; i < COUNT(row); i++) {
        struct kvm_run *r = fresh(KVM_EXIT_IO);

        r->io.data_offset = row[i].offset;
        r->io.size = row[i].size;
        r->io.count = row[i].count;
        r->io.direction = KVM_EXIT_IO_IN;
        r->io.port = 0x1234;
        memset(&e, 0xee, sizeof(e));
        assert_int_equal(tn_kvm_decode(&paper, &e), row[i].err);
        if (row[i].err) {
            assert_memory_equal(&e, &zero, sizeof(e));
        } else {
            assert_int_equal(e.kind, TN_KVM_EXIT_IO);
            assert_ptr_equal(e.io.data, page + row[i].offset);
            assert_int_equal(e.io.count, row[i].count);
            assert_false(e.io.write);
        }
    }
}

static void decode_refuses_mmio_of_a_wrong_length(void **state)
{
    struct tn_kvm_exit e;

    (void)state;
    for (uint32_t len = 0; len < 12; len++) {
        struct kvm_run *r = fresh(KVM_EXIT_MMIO);

        r->mmio.len = len;
        assert_int_equal(tn_kvm_decode(&paper, &e), len >= 1 && len <= 8 ? 0 : TN_EBUG);
        assert_int_equal(e.kind, len >= 1 && len <= 8 ? TN_KVM_EXIT_MMIO : 0);
    }
    fresh(KVM_EXIT_MMIO)->mmio.len = 0x100; /* not taken modulo 256 */
    assert_int_equal(tn_kvm_decode(&paper, &e), TN_EBUG);
}

static void decode_knows_every_kind(void **state)
{
    static const struct {
        uint32_t reason, kind;
    } row[] = {
        {KVM_EXIT_HLT, TN_KVM_EXIT_HLT},
        {KVM_EXIT_SHUTDOWN, TN_KVM_EXIT_SHUTDOWN},
        {KVM_EXIT_IRQ_WINDOW_OPEN, TN_KVM_EXIT_IRQ_WINDOW},
        {KVM_EXIT_INTR, TN_KVM_EXIT_INTERRUPTED},
        {KVM_EXIT_UNKNOWN, TN_KVM_EXIT_UNKNOWN},
        {KVM_EXIT_DEBUG, TN_KVM_EXIT_UNKNOWN},
        {0xffffffff, TN_KVM_EXIT_UNKNOWN},
    };
    struct tn_kvm_exit e;
    struct kvm_run *r;

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        fresh(row[i].reason);
        assert_int_equal(tn_kvm_decode(&paper, &e), 0);
        assert_int_equal(e.kind, row[i].kind);
        assert_int_equal(e.reason, row[i].reason);
    }
    r = fresh(KVM_EXIT_FAIL_ENTRY);
    r->fail_entry.hardware_entry_failure_reason = 0x8000000000000021;
    r->fail_entry.cpu = 7;
    assert_int_equal(tn_kvm_decode(&paper, &e), 0);
    assert_int_equal(e.kind, TN_KVM_EXIT_FAIL_ENTRY);
    assert_int_equal(e.fail_entry.reason, 0x8000000000000021);
    assert_int_equal(e.fail_entry.cpu, 7);

    r = fresh(KVM_EXIT_IOAPIC_EOI);
    r->eoi.vector = 0x35;
    assert_int_equal(tn_kvm_decode(&paper, &e), 0);
    assert_int_equal(e.kind, TN_KVM_EXIT_IOAPIC_EOI);
    assert_int_equal(e.eoi.vector, 0x35);

    for (uint32_t n = 0; n < 20; n++) {
        r = fresh(KVM_EXIT_SYSTEM_EVENT);
        r->system_event.type = KVM_SYSTEM_EVENT_RESET;
        r->system_event.ndata = n;
        r->system_event.data[0] = 42;
        assert_int_equal(tn_kvm_decode(&paper, &e), 0);
        assert_int_equal(e.kind, TN_KVM_EXIT_SYSTEM_EVENT);
        assert_int_equal(e.event.type, KVM_SYSTEM_EVENT_RESET);
        assert_int_equal(e.event.ndata, n < 16 ? n : 16);
        assert_int_equal(e.event.data[0], 42);

        r = fresh(KVM_EXIT_INTERNAL_ERROR);
        r->internal.suberror = KVM_INTERNAL_ERROR_DELIVERY_EV;
        r->internal.ndata = n;
        r->internal.data[15] = 43;
        assert_int_equal(tn_kvm_decode(&paper, &e), 0);
        assert_int_equal(e.kind, TN_KVM_EXIT_INTERNAL_ERROR);
        assert_int_equal(e.internal.suberror, KVM_INTERNAL_ERROR_DELIVERY_EV);
        assert_int_equal(e.internal.ndata, n < 16 ? n : 16);
        assert_int_equal(e.internal.data[15], 43);
    }
}

static void interrupt_is_a_flag_in_the_run_page(void **state)
{
    (void)state;
    fresh(0)->immediate_exit = 0;
    tn_kvm_interrupt(&paper);
    assert_int_equal(paper.run->immediate_exit, 1);
    tn_kvm_interrupt(&paper);
    tn_kvm_interrupt_clear(&paper);
    assert_int_equal(paper.run->immediate_exit, 0);
    assert_int_equal(page[0], 0xa5);
}

static void routes_have_a_capacity(void **state)
{
    static struct tn_kvm_routes r;

    (void)state;
    assert_int_equal(tn_kvm_x86_routes(&r), 0);
    assert_int_equal(r.nr, 40);
    assert_int_equal(r.entries[18].gsi, 9);
    assert_int_equal(r.entries[18].u.irqchip.irqchip, KVM_IRQCHIP_PIC_SLAVE);
    assert_int_equal(r.entries[18].u.irqchip.pin, 1);
    assert_int_equal(r.entries[39].u.irqchip.pin, 23);
    while (r.nr < TN_KVM_MAX_ROUTES)
        assert_int_equal(tn_kvm_route_msi(&r, r.nr, 0x1234fee00000, 0x30), 0);
    assert_int_equal(r.entries[255].u.msi.address_hi, 0x1234);
    assert_int_equal(tn_kvm_route_msi(&r, 1, 0, 0), TN_ENOSPC);
    assert_int_equal(tn_kvm_route_pin(&r, 1, 0, 0), TN_ENOSPC);
    assert_int_equal(r.nr, TN_KVM_MAX_ROUTES);
}

/* ---- errors ---- */

static void open_tells_what_is_wrong(void **state)
{
    static struct tn_kvm k;
    char file[] = "/tmp/tenon-kvm-XXXXXX";
    int fd, status;
    pid_t child;

    (void)state;
    assert_int_equal(tn_kvm_open(&k, "/nonexistent/kvm"), TN_ENODEV);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(k.fd, -1);
    assert_int_equal(tn_kvm_open(&k, "/dev/null"), TN_ENODEV);
    assert_int_equal(k.fd, -1);
    assert_int_equal(k.missing, 0);
    assert_int_equal(tn_kvm_open(&k, "/"), TN_ESYS);
    assert_int_equal(errno, EISDIR);
    tn_kvm_close(&k); /* is closed already */

    fd = mkstemp(file);
    assert_true(fd >= 0 && fchmod(fd, 0) == 0);
    close(fd);
    child = fork();
    if (child == 0) {
        if (geteuid() == 0 && setuid(65534) != 0)
            _exit(3);
        _exit(tn_kvm_open(&k, file) == TN_ESYS && errno == EACCES ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    unlink(file);
    assert_int_equal(status, 0);
}

static void what_is_closed_is_an_error_not_a_crash(void **state)
{
    static struct tn_kvm k;
    static struct tn_kvm_cpuid c;
    static struct tn_kvm_routes r;
    static uint8_t xsave[4096];
    struct tn_kvm_vm vm = {-1};
    struct tn_kvm_vcpu cpu = {-1, 0, NULL, 0};
    struct tn_kvm_exit e;
    struct tn_boot_x86_cpu boot;
    struct kvm_msr_entry msr = {0x10, 0, 0};
    struct kvm_regs regs;
    struct kvm_irqchip chip;
    struct kvm_clock_data clock;
    uint64_t word = 0;
    uint32_t n = 1;

    (void)state;
    memset(&boot, 0, sizeof(boot));
    memset(&clock, 0, sizeof(clock));
    k.fd = -1;
#define BAD(call)                          \
    do {                                   \
        errno = 0;                         \
        assert_int_equal((call), TN_ESYS); \
        assert_int_equal(errno, EBADF);    \
    } while (0)
    BAD(tn_kvm_cap(&k, KVM_CAP_IRQFD));
    BAD(tn_kvm_vm_init(&k, &vm));
    assert_int_equal(vm.fd, -1);
    BAD(tn_kvm_vm_cap(&vm, KVM_CAP_IRQFD));
    BAD(tn_kvm_enable_cap(&vm, KVM_CAP_SPLIT_IRQCHIP, 24));
    BAD(tn_kvm_set_slot(&vm, 0, 0, 4096, xsave, 0));
    BAD(tn_kvm_dirty_log(&vm, 0, &word));
    BAD(tn_kvm_clear_dirty_log(&vm, 0, 0, 64, &word));
    BAD(tn_kvm_irq_line(&vm, 0, true));
    BAD(tn_kvm_signal_msi(&vm, 0xfee00000, 0x30));
    BAD(tn_kvm_irqfd(&vm, 0, 0, 0, -1));
    BAD(tn_kvm_ioeventfd(&vm, 0, 4, 0, 0, 0));
    BAD(tn_kvm_set_routes(&vm, &r));
    BAD(tn_kvm_create_device(&vm, 0));
    BAD(tn_kvm_has_attr(-1, 0, 0));
    BAD(tn_kvm_get_attr(-1, 0, 0, &word));
    BAD(tn_kvm_set_attr(-1, 0, 0, &word));
    BAD(tn_kvm_vcpu_init(&k, &vm, &cpu, 0));
    assert_int_equal(cpu.fd, -1);
    assert_null(cpu.run);
    memset(&e, 0xee, sizeof(e));
    BAD(tn_kvm_run(&cpu, &e));
    assert_int_equal(e.kind | e.reason, 0);
    BAD(tn_kvm_get_mp_state(&cpu, &n));
    assert_int_equal(n, 0);
    BAD(tn_kvm_set_mp_state(&cpu, 0));
    BAD(tn_kvm_x86_irqchip_full(&vm));
    BAD(tn_kvm_x86_irqchip_split(&vm, 24));
    BAD(tn_kvm_x86_get_cpuid(&cpu, &c));
    BAD(tn_kvm_x86_set_cpuid(&cpu, &c));
    BAD(tn_kvm_x86_set_boot(&cpu, &boot));
    BAD(tn_kvm_x86_set_boot_msrs(&cpu, NULL));
    BAD(tn_kvm_x86_set_lint(&cpu));
    memset(&regs, 0xee, sizeof(regs));
    BAD(tn_kvm_x86_get_regs(&cpu, &regs));
    assert_int_equal(regs.rax | regs.rflags, 0);
    BAD(tn_kvm_x86_set_regs(&cpu, &regs));
    BAD(tn_kvm_x86_xsave_size(&vm));
    BAD(tn_kvm_x86_get_xsave(&vm, &cpu, xsave, sizeof(xsave)));
    BAD(tn_kvm_x86_set_xsave(&vm, &cpu, xsave, sizeof(xsave)));
    BAD(tn_kvm_x86_msr_list(&k, &n, 1));
    BAD(tn_kvm_x86_get_msrs(&cpu, &msr, 1));
    BAD(tn_kvm_x86_set_msrs(&cpu, &msr, 1));
    BAD(tn_kvm_x86_get_tsc_khz(&cpu));
    BAD(tn_kvm_x86_set_tsc_khz(&cpu, 1000000));
    BAD(tn_kvm_x86_get_tsc_offset(&cpu, &word));
    BAD(tn_kvm_x86_set_tsc_offset(&cpu, 0));
    BAD(tn_kvm_x86_inject(&cpu, 0x30));
    BAD(tn_kvm_x86_nmi(&cpu));
    memset(&chip, 0, sizeof(chip));
    BAD(tn_kvm_x86_get_irqchip(&vm, &chip));
    BAD(tn_kvm_x86_set_irqchip(&vm, &chip));
    BAD(tn_kvm_x86_get_clock(&vm, &clock));
    BAD(tn_kvm_x86_set_clock(&vm, &clock));
    tn_kvm_vm_close(&vm);
    tn_kvm_vcpu_close(&cpu);
}

static void kvm_refuses_what_is_wrong(void **state)
{
    struct tn_kvm_vcpu second;
    uint64_t bitmap[4];

    (void)state;
    NEED_KVM();
    start("idle", 1, NO_CHIPS);
    assert_int_equal(tn_kvm_set_slot(&m.vm, 9, 0x400001, 4096, m.ram, 0), TN_ESYS);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(tn_kvm_set_slot(&m.vm, 9, 0x1000, 4096, m.ram, 0), TN_ESYS);
    assert_int_equal(errno, EEXIST);
    assert_int_equal(tn_kvm_set_slot(&m.vm, 3, 0, 0, NULL, 0), 0);
    assert_int_equal(tn_kvm_dirty_log(&m.vm, 3, bitmap), TN_ESYS);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(tn_kvm_vcpu_init(&kvm, &m.vm, &second, 0), TN_ESYS);
    assert_int_equal(errno, EEXIST);
    assert_int_equal(second.fd, -1);
    assert_int_equal(tn_kvm_irq_line(&m.vm, 4, true), TN_ESYS);
    assert_int_equal(errno, ENXIO);
    assert_int_equal(tn_kvm_x86_irqchip_full(&m.vm), TN_ESYS); /* a vCPU is there already */
    assert_int_equal(tn_kvm_irqfd(&m.vm, -1, 4, 0, -1), TN_ESYS);
    assert_int_equal(tn_kvm_ioeventfd(&m.vm, 0x100, 3, 0, 0, 0), TN_ESYS);
    assert_int_equal(tn_kvm_create_device(&m.vm, 0xffff), TN_ESYS);
    assert_int_equal(errno, ENODEV);
}

static void a_slot_without_memory_is_no_memory(void **state)
{
    struct tn_kvm_exit e;
    int r;

    (void)state;
    NEED_KVM();
    start("dirty", 1, NO_CHIPS);
    assert_int_equal(mprotect(m.ram + 0x100000, 0x100000, PROT_NONE), 0);
    memset(&e, 0xee, sizeof(e));
    r = tn_kvm_run(&m.cpu[0], &e);
    if (r < 0) {
        assert_int_equal(r, TN_ESYS);
        assert_int_equal(errno, EFAULT);
        assert_int_equal(e.kind | e.reason, 0);
    } else { /* where KVM emulates the guest */
        assert_int_equal(e.kind, TN_KVM_EXIT_MMIO);
        assert_int_equal(e.mmio.gpa, 0x100000);
    }
}

static void a_process_forked_off_cannot_use_the_vm(void **state)
{
    int status;
    pid_t child;

    (void)state;
    NEED_KVM();
    start("idle", 1, FULL);
    child = fork();
    if (child == 0) {
        struct tn_kvm_exit e;

        _exit(tn_kvm_run(&m.cpu[0], &e) == TN_ESYS && errno == EIO ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void a_vm_lives_until_its_last_descriptor(void **state)
{
    (void)state;
    NEED_KVM();
    start("idle", 1, FULL);
    tn_kvm_vm_close(&m.vm);
    assert_int_equal(m.vm.fd, -1);
    out(PORT_READY, 1, 1);
    tn_kvm_vcpu_close(&m.cpu[0]);
    assert_int_equal(m.cpu[0].fd, -1);
    assert_null(m.cpu[0].run);
    tn_kvm_vcpu_close(&m.cpu[0]);
}

/* ---- exits ---- */

static void ports_of_every_width(void **state)
{
    static const uint8_t digits[] = "0123456789abcdef";
    uint8_t give[40], got[40];

    (void)state;
    NEED_KVM();
    start("ports", 1, NO_CHIPS);
    out(0x70, 1, 0x11);
    out(0x72, 2, 0x2222);
    out(0x74, 4, 0x44444444);
    out(0x1234, 1, 0x5a);
    out(0xffff, 1, 0x5a);
    out(0x1236, 2, 0xa55a);
    out(0x1238, 4, 0xdeadbeef);
    in(0x300, 1, 0xc1);
    out(0x400, 1, 0xc1);
    in(0x302, 2, 0xc2d2);
    out(0x402, 2, 0xc2d2);
    in(0x304, 4, 0xc4d4e4f4);
    out(0x404, 4, 0xc4d4e4f4);

    string(true, 0x500, 1, got, 13);
    assert_memory_equal(got, digits, 13);
    string(true, 0x502, 2, got, 10);
    assert_memory_equal(got, digits, 10);
    string(true, 0x504, 4, got, 12);
    assert_memory_equal(got, digits, 12);

    for (uint8_t i = 0; i < sizeof(give); i++)
        give[i] = (uint8_t)(0x80 + i);
    string(false, 0x600, 1, give, 7);
    string(false, 0x602, 2, give + 8, 12);
    string(false, 0x604, 4, give + 20, 20);
    give[7] = 0;
    string(true, 0x700, 1, got, 40);
    assert_memory_equal(got, give, 40);
    out(PORT_EXIT, 1, 1);
}

static void mmio_of_every_width(void **state)
{
    (void)state;
    NEED_KVM();
    start("mmio", 1, NO_CHIPS);
    m.ram[0xa0000] = 0x66;
    mmio(true, MMIO, 1, 0x11);
    mmio(true, MMIO + 2, 2, 0x2222);
    mmio(true, MMIO + 4, 4, 0x44444444);
    mmio(true, MMIO + 8, 8, 0x1122334455667788);
    mmio(false, MMIO + 0x200, 1, 0xa1);
    mmio(true, MMIO + 0x300, 1, 0xa1);
    mmio(false, MMIO + 0x202, 2, 0xa2b2);
    mmio(true, MMIO + 0x302, 2, 0xa2b2);
    mmio(false, MMIO + 0x204, 4, 0xa4b4c4d4);
    mmio(true, MMIO + 0x304, 4, 0xa4b4c4d4);
    mmio(false, MMIO + 0x208, 8, 0xa8b8c8d8e8f80818);
    mmio(true, MMIO + 0x308, 8, 0xa8b8c8d8e8f80818);

    mmio(true, MMIO + 0xffd, 3, 0x221100);
    mmio(true, MMIO + 0x1000, 1, 0x33);
    mmio(false, MMIO + 0x1ffe, 2, 0xb2a1);
    mmio(false, MMIO + 0x2000, 2, 0xd4c3);
    mmio(true, MMIO + 0x400, 4, 0xd4c3b2a1);
    mmio(false, MMIO + 0x2ff9, 7, 0x07060504030201);
    mmio(false, MMIO + 0x3000, 1, 0x08);
    mmio(true, MMIO + 0x408, 8, 0x0807060504030201);

    mmio(true, MMIO + 0x500, 1, 'w');
    mmio(true, MMIO + 0x501, 1, 'o');
    mmio(true, MMIO + 0x502, 1, 'r');
    mmio(true, MMIO + 0x503, 1, 'd');
    mmio(true, 0xa0000, 1, 0x77);
    out(PORT_EXIT, 1, 0x66);
    assert_int_equal(m.ram[0xa0000], 0x66);
}

static void a_triple_fault_is_a_shutdown(void **state)
{
    struct tn_kvm_exit e;

    (void)state;
    NEED_KVM();
    start("triple", 1, FULL);
    run(&e);
    assert_int_equal(e.kind, TN_KVM_EXIT_SHUTDOWN);
    assert_int_equal(e.reason, KVM_EXIT_SHUTDOWN);
}

static void code_where_no_memory_is_is_an_internal_error(void **state)
{
    struct tn_kvm_exit e;
    struct kvm_regs g;

    (void)state;
    NEED_KVM();
    start("idle", 1, FULL);
    assert_int_equal(tn_kvm_set_slot(&m.vm, 0, 0, 0, NULL, 0), 0);
    assert_int_equal(tn_kvm_x86_get_regs(&m.cpu[0], &g), 0);
    run(&e);
    assert_int_equal(e.kind, TN_KVM_EXIT_INTERNAL_ERROR);
    assert_int_equal(e.internal.suberror, KVM_INTERNAL_ERROR_EMULATION);
    assert_in_range(e.internal.ndata, 0, 16);
}

static void hlt_without_chips_is_an_exit(void **state)
{
    struct tn_kvm_exit e;

    (void)state;
    NEED_KVM();
    start("idle", 1, NO_CHIPS);
    out(PORT_READY, 1, 1);
    run(&e);
    assert_int_equal(e.kind, TN_KVM_EXIT_HLT);
    assert_int_equal(e.reason, KVM_EXIT_HLT);
}

static void without_chips_an_interrupt_waits_for_its_window(void **state)
{
    struct tn_kvm_exit e;
    struct kvm_regs g;

    (void)state;
    NEED_KVM();
    start("spin", 1, NO_CHIPS);
    /* Vector 0x30 is at 1000:0020, where OUT to PORT_EXIT is put. */
    memcpy(m.ram + 4 * 0x30, "\x20\x00\x00\x10", 4);
    memcpy(m.ram + GUEST + 0x20, "\xe6\xf4\xf4", 3);
    assert_int_equal(tn_kvm_x86_get_regs(&m.cpu[0], &g), 0);
    g.rsp = 0x7000;
    assert_int_equal(tn_kvm_x86_set_regs(&m.cpu[0], &g), 0);
    m.cpu[0].run->request_interrupt_window = 1;
    in(PORT_READY, 1, 1);
    assert_false(m.cpu[0].run->ready_for_interrupt_injection);
    run(&e);
    assert_int_equal(e.kind, TN_KVM_EXIT_IRQ_WINDOW);
    assert_true(m.cpu[0].run->ready_for_interrupt_injection);
    m.cpu[0].run->request_interrupt_window = 0;
    assert_int_equal(tn_kvm_x86_inject(&m.cpu[0], 0x30), 0);
    out(PORT_EXIT, 1, 1);
}

static void interrupt_completes_the_access_under_way(void **state)
{
    struct tn_kvm_exit e;
    struct kvm_regs g;

    (void)state;
    NEED_KVM();
    start("spin", 1, FULL);
    in(PORT_READY, 1, 0x5a);
    tn_kvm_interrupt(&m.cpu[0]);
    assert_int_equal(tn_kvm_run(&m.cpu[0], &e), 0);
    assert_int_equal(e.kind, TN_KVM_EXIT_INTERRUPTED);
    assert_int_equal(e.reason, 0);
    assert_int_equal(tn_kvm_x86_get_regs(&m.cpu[0], &g), 0);
    assert_int_equal(g.rax & 0xff, 0x5a);
    assert_int_equal(g.rip, 2);
    assert_int_equal(tn_kvm_run(&m.cpu[0], &e), 0); /* the flag stays */
    assert_int_equal(e.kind, TN_KVM_EXIT_INTERRUPTED);
}

static void ten_thousand_kicks_and_none_is_lost(void **state)
{
    const uint32_t kicks = 10000;

    (void)state;
    NEED_KVM();
    start("spin", 1, FULL);
    threads_start();
    for (uint32_t i = 1; i <= kicks; i++) {
        double end = cpu_seconds(CLOCK_MONOTONIC) + 10;

        SET(t.asked, i);
        kick(0);
        while (GET(t.seen) != i && cpu_seconds(CLOCK_MONOTONIC) < end)
            sched_yield();
        if (GET(t.seen) != i) {
            threads_stop();
            fail_msg("kick %u was lost", i);
        }
    }
    threads_stop();
    assert_int_equal(t.failed, 0);
    assert_true(t.interrupts > 0);
    print_message("  %u kicks, %u of them out of the guest\n", kicks, t.interrupts);
}

static void an_idle_guest_burns_no_cpu(void **state)
{
    clockid_t clock;
    double before, burnt;

    (void)state;
    NEED_KVM();
    start("idle", 2, FULL); /* the second one never gets a start-up IPI */
    threads_start();
    AWAIT(GET(t.ready) == 1);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_getcpuclockid(t.thread[i], &clock), 0);
        usleep(20000);
        before = cpu_seconds(clock);
        usleep(500000);
        burnt = cpu_seconds(clock) - before;
        print_message("  CPU %u: %.3f ms in 500 ms\n", i, burnt * 1e3);
        if (burnt > 0.005) {
            threads_stop();
            fail_msg("CPU %u burnt %.1f ms in 500 ms", i, burnt * 1e3);
        }
    }
    threads_stop();
    assert_int_equal(t.failed, 0);
    assert_in_range(t.agains, 0, 4);
}

/* ---- interrupts ---- */

static void timers_of_both_arrangements(void **state)
{
    (void)state;
    NEED_KVM();
    start("pit", 1, FULL);
    assert_int_equal(tn_kvm_x86_set_lint(&m.cpu[0]), 0);
    out(PORT_EXIT, 1, 5);
    stop(NULL);
    start("lapic_timer", 1, SPLIT);
    out(PORT_EXIT, 1, 5);
}

static void secondary_cpus_start_by_the_mp_table(void **state)
{
    struct tn_mptable_cfg cfg;

    (void)state;
    NEED_KVM();
    for (uint32_t cpus = 1; cpus <= MAX_CPUS; cpus += cpus == 1 ? 1 : 2) {
        start("smp", cpus, FULL);
        memset(&cfg, 0, sizeof(cfg));
        cfg.gpa = 0xf0000;
        cfg.cpus = cpus;
        assert_true(tn_mptable_build(&cfg, m.ram + 0xf0000, 0x10000) > 0);
        threads_start();
        AWAIT(GET(t.result) != 0);
        threads_stop();
        assert_int_equal(t.result, cpus + 1);
        assert_int_equal(t.events, cpus - 1);
        assert_int_equal(t.event_mask, (1u << cpus) - 2);
        assert_int_equal(t.failed, 0);
        assert_true(t.agains <= 8 * cpus);
        stop(NULL);
    }
    start("smp", 1, FULL); /* no table */
    out(PORT_EXIT, 1, 0xff);
}

static void messages_lines_and_irqfds_arrive(void **state)
{
    static struct tn_kvm_routes routes;
    int fd, resample;
    uint64_t one = 1, n;
    struct pollfd p;

    (void)state;
    NEED_KVM();
    start("irq", 1, FULL);
    fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    resample = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_true(fd >= 0 && resample >= 0);
    assert_int_equal(tn_kvm_x86_routes(&routes), 0);
    assert_int_equal(tn_kvm_route_msi(&routes, 32, 0xfee00000, 0x3a), 0);
    assert_int_equal(tn_kvm_set_routes(&m.vm, &routes), 0);
    threads_start();
    AWAIT(GET(t.ready) == 1);

    for (uint32_t i = 0; i < 100; i++) {
        assert_int_equal(tn_kvm_signal_msi(&m.vm, 0xfee00000, 0x30 + i % 5), 1);
        AWAIT(GET(t.events) == i + 1);
        assert_int_equal(GET(t.event), 0x30 + i % 5);
    }
    SET(t.events, 0);
    assert_int_equal(tn_kvm_irq_line(&m.vm, 6, true), 0); /* an edge */
    AWAIT(GET(t.events) == 1);
    assert_int_equal(GET(t.event), 0x36);
    assert_int_equal(tn_kvm_irq_line(&m.vm, 6, false), 0);

    assert_int_equal(tn_kvm_irqfd(&m.vm, fd, 32, 0, -1), 0); /* a message */
    assert_int_equal(tn_kvm_irqfd(&m.vm, fd, 32, 0, -1), TN_ESYS);
    assert_int_equal(errno, EBUSY);
    for (uint32_t i = 0; i < 100; i++) {
        SET(t.events, 0);
        assert_int_equal(write(fd, &one, 8), 8);
        AWAIT(GET(t.events) == 1);
        assert_int_equal(GET(t.event), 0x3a);
    }
    assert_int_equal(tn_kvm_irqfd(&m.vm, fd, 32, KVM_IRQFD_FLAG_DEASSIGN, -1), 0);
    SET(t.events, 0);
    assert_int_equal(write(fd, &one, 8), 8);
    usleep(20000);
    assert_int_equal(GET(t.events), 0);
    assert_int_equal(read(fd, &n, 8), 8);

    /* A level: it is lowered by the end of the interrupt, of which we hear. */
    assert_int_equal(tn_kvm_irqfd(&m.vm, fd, 5, KVM_IRQFD_FLAG_RESAMPLE, resample), 0);
    for (uint32_t i = 0; i < 10; i++) {
        SET(t.events, 0);
        assert_int_equal(write(fd, &one, 8), 8);
        p.fd = resample;
        p.events = POLLIN;
        assert_int_equal(poll(&p, 1, 10000), 1);
        assert_int_equal(read(resample, &n, 8), 8);
        AWAIT(GET(t.events) >= 1);
        assert_int_equal(GET(t.event), 0x35);
    }
    assert_int_equal(tn_kvm_signal_msi(&m.vm, 0xfee00000, 0x3f), 1);
    AWAIT(GET(t.result) == 0x40);
    threads_stop();
    assert_int_equal(t.failed, 0);
    close(fd);
    close(resample);
}

static void split_chips_report_the_end_of_an_interrupt(void **state)
{
    static struct tn_kvm_routes routes;

    (void)state;
    NEED_KVM();
    start("irq", 1, SPLIT);
    routes.nr = 0;
    assert_int_equal(tn_kvm_route_msi(&routes, 5, 0xfee00000, 0xc035), 0); /* level-triggered */
    assert_int_equal(tn_kvm_set_routes(&m.vm, &routes), 0);
    threads_start();
    AWAIT(GET(t.ready) == 1);
    assert_int_equal(tn_kvm_signal_msi(&m.vm, 0xfee00000, 0xc035), 1);
    AWAIT(GET(t.eois) == 1);
    assert_int_equal(GET(t.event), 0x35);
    threads_stop();
    assert_int_equal(t.events, 1);
    assert_int_equal(t.failed, 0);
}

static uint64_t drain(int fd)
{
    uint64_t n = 0;

    return read(fd, &n, 8) == 8 ? n : 0;
}

static void ioeventfds_take_the_writes_that_match(void **state)
{
    const uint32_t pio = KVM_IOEVENTFD_FLAG_PIO, match = KVM_IOEVENTFD_FLAG_DATAMATCH;
    int fd[4];

    (void)state;
    NEED_KVM();
    start("kick", 1, FULL);
    for (int i = 0; i < 4; i++) {
        fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        assert_true(fd[i] >= 0);
    }
    assert_int_equal(tn_kvm_ioeventfd(&m.vm, 0x500, 1, fd[0], pio, 0), 0);
    assert_int_equal(tn_kvm_ioeventfd(&m.vm, 0x502, 2, fd[1], pio | match, 1), 0);
    assert_int_equal(tn_kvm_ioeventfd(&m.vm, MMIO + 0x50, 4, fd[2], match, 7), 0);
    assert_int_equal(tn_kvm_ioeventfd(&m.vm, MMIO + 0x50, 4, fd[3], match, 9), 0);
    assert_int_equal(tn_kvm_ioeventfd(&m.vm, MMIO + 0x50, 4, fd[3], match, 7), TN_ESYS);
    assert_int_equal(errno, EEXIST);
    assert_int_equal(tn_kvm_ioeventfd(&m.vm, MMIO + 0x60, 2, fd[3], 0, 0), 0);
    out(0x502, 2, 2);
    assert_int_equal(drain(fd[0]), 1);
    assert_int_equal(drain(fd[1]), 1);
    mmio(true, MMIO + 0x50, 4, 8);
    assert_int_equal(drain(fd[2]), 1);
    mmio(true, MMIO + 0x60, 1, 1);
    assert_int_equal(drain(fd[3]), 0);
    mmio(true, MMIO + 0x60, 4, 1);
    assert_int_equal(drain(fd[3]), 1);
    out(PORT_EXIT, 1, 1);

    enter();
    assert_int_equal(tn_kvm_ioeventfd(&m.vm, 0x500, 1, fd[0], pio | KVM_IOEVENTFD_FLAG_DEASSIGN, 0),
                     0);
    assert_int_equal(tn_kvm_ioeventfd(&m.vm, 0x500, 1, fd[0], pio | KVM_IOEVENTFD_FLAG_DEASSIGN, 0),
                     TN_ESYS);
    assert_int_equal(errno, ENOENT);
    out(0x500, 1, 9);
    for (int i = 0; i < 4; i++)
        close(fd[i]);
}

/* ---- memory ---- */

static void the_dirty_log_has_what_the_guest_wrote(void **state)
{
    uint64_t log[4];
    struct tn_kvm_exit e;

    (void)state;
    NEED_KVM();
    start("dirty", 1, NO_CHIPS);
    m.ram[0x108000] = 1; /* our own write is not in it */
    assert_int_equal(tn_kvm_dirty_log(&m.vm, 3, log), 0);
    assert_int_equal(log[0] | log[1] | log[2] | log[3], 0);
    run(&e);
    assert_int_equal(e.kind, TN_KVM_EXIT_IO);
    assert_int_equal(tn_kvm_dirty_log(&m.vm, 3, log), 0);
    assert_int_equal(log[0], 1 | 1 << 3);
    assert_int_equal(log[1], 1 | 1ull << 63);
    assert_int_equal(log[2] | log[3], 0);
    assert_int_equal(m.ram[0x100000] & m.ram[0x103fff] & m.ram[0x140000] & m.ram[0x17f800], 1);
}

static void the_dirty_log_can_be_cleared_in_parts(void **state)
{
    uint64_t log[4], clear[4] = {1 | 1 << 3, 0, 0, 0};
    struct tn_kvm_exit e;

    (void)state;
    NEED_KVM();
    if ((tn_kvm_cap(&kvm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) & 1) == 0)
        SKIP("this KVM clears its dirty log at once only");
    start("dirty", 1, NO_CHIPS);
    assert_int_equal(tn_kvm_enable_cap(&m.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 1), 0);
    run(&e);
    for (int i = 0; i < 2; i++) { /* getting it clears nothing */
        assert_int_equal(tn_kvm_dirty_log(&m.vm, 3, log), 0);
        assert_int_equal(log[0], 1 | 1 << 3);
        assert_int_equal(log[1], 1 | 1ull << 63);
    }
    assert_int_equal(tn_kvm_clear_dirty_log(&m.vm, 3, 0, 64, clear), 0);
    assert_int_equal(tn_kvm_clear_dirty_log(&m.vm, 3, 1, 64, clear), TN_ESYS);
    assert_int_equal(errno, EINVAL);
    run(&e);
    assert_int_equal(tn_kvm_dirty_log(&m.vm, 3, log), 0);
    assert_int_equal(log[0], 1 << 5);
    assert_int_equal(log[1], 1 | 1ull << 63);
    out(PORT_EXIT, 1, 1);
}
static void a_device_in_the_kernel(void **state)
{
    int fd;

    (void)state;
    NEED_KVM();
    start("irq", 1, FULL);
    fd = tn_kvm_create_device(&m.vm, KVM_DEV_TYPE_VFIO);
    if (fd < 0) {
        print_message("  no VFIO device here\n");
    } else {
        assert_int_equal(tn_kvm_has_attr(fd, 0xffff, 0), 0);
        close(fd);
    }
    assert_int_equal(tn_kvm_x86_nmi(&m.cpu[0]), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(decode_refuses_an_access_outside_the_run_page),
        T(decode_refuses_mmio_of_a_wrong_length),
        T(decode_knows_every_kind),
        T(interrupt_is_a_flag_in_the_run_page),
        T(routes_have_a_capacity),
        T(open_tells_what_is_wrong),
        T(what_is_closed_is_an_error_not_a_crash),
        T(kvm_refuses_what_is_wrong),
        T(a_slot_without_memory_is_no_memory),
        T(a_process_forked_off_cannot_use_the_vm),
        T(a_vm_lives_until_its_last_descriptor),
        T(ports_of_every_width),
        T(mmio_of_every_width),
        T(a_triple_fault_is_a_shutdown),
        T(code_where_no_memory_is_is_an_internal_error),
        T(hlt_without_chips_is_an_exit),
        T(without_chips_an_interrupt_waits_for_its_window),
        T(interrupt_completes_the_access_under_way),
        T(ten_thousand_kicks_and_none_is_lost),
        T(an_idle_guest_burns_no_cpu),
        T(timers_of_both_arrangements),
        T(secondary_cpus_start_by_the_mp_table),
        T(messages_lines_and_irqfds_arrive),
        T(split_chips_report_the_end_of_an_interrupt),
        T(ioeventfds_take_the_writes_that_match),
        T(the_dirty_log_has_what_the_guest_wrote),
        T(the_dirty_log_can_be_cleared_in_parts),
        T(a_device_in_the_kernel),
    };

    kvm_open();
    return cmocka_run_group_tests_name("kvm", tests, NULL, NULL);
}
