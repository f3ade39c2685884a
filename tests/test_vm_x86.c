/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_vm_x86.h"

#include "test.h"

#include <sys/mman.h>

/* The board without KVM: exits are made by hand, interrupt lines lead nowhere. */
static struct tn_vm_x86 board;
static struct tn_kvm_vm no_vm = {-1};
static uint32_t hint[2];

static void board_open(void)
{
    const struct tn_vm_cfg cfg = {0};

    memset(&board, 0, sizeof(board));
    pthread_mutex_init(&board.device_lock, NULL);
    board.vm = &no_vm;
    assert_int_equal(tn_vm_x86_devices(&board, &cfg, NULL), 0);
}

static uint32_t io(uint16_t port, uint8_t size, bool write, uint32_t count, void *data)
{
    struct tn_kvm_exit e;

    memset(&e, 0, sizeof(e));
    e.kind = TN_KVM_EXIT_IO;
    e.io.port = port;
    e.io.size = size;
    e.io.write = write;
    e.io.count = count;
    e.io.data = data;
    return tn_vm_x86_access(&board, &e, hint);
}

static uint32_t out(uint16_t port, uint8_t value)
{
    return io(port, 1, true, 1, &value);
}

static uint8_t in(uint16_t port)
{
    uint8_t value = 0;

    assert_int_equal(io(port, 1, false, 1, &value), TN_VM_NONE);
    return value;
}

/* B03, B02: whatever nobody claims reads all-ones and ignores what is written, at any width. */
static void b03_unclaimed(void **state)
{
    static const uint16_t ports[] = {0,     0x3f7, 0x400, 0x61,  0x63,
                                     0x504, 0x506, 0x5ff, 0x603, 0xffff};
    static const uint64_t gpas[] = {0xd0000000, 0xfee00000, 0xffffffff, UINT64_MAX, 1ull << 40};
    struct tn_kvm_exit e;

    (void)state;
    board_open();
    for (size_t i = 0; i < COUNT(ports); i++) {
        for (uint8_t size = 1; size <= 4; size = (uint8_t)(size * 2)) {
            uint8_t data[8] = {0};

            assert_int_equal(io(ports[i], size, false, 1, data), TN_VM_NONE);
            for (int b = 0; b < 8; b++)
                assert_int_equal(data[b], b < size ? 0xff : 0);
            assert_int_equal(io(ports[i], size, true, 1, data), TN_VM_NONE);
        }
    }
    for (size_t i = 0; i < COUNT(gpas); i++) {
        for (uint8_t len = 1; len <= 8; len++) {
            uint8_t data[9] = {0};

            memset(&e, 0, sizeof(e));
            e.kind = TN_KVM_EXIT_MMIO;
            e.mmio.gpa = gpas[i];
            e.mmio.len = len;
            e.mmio.data = data;
            assert_int_equal(tn_vm_x86_access(&board, &e, hint), TN_VM_NONE);
            for (int b = 0; b < 9; b++)
                assert_int_equal(data[b], b < len ? 0xff : 0);
            e.mmio.write = true;
            assert_int_equal(tn_vm_x86_access(&board, &e, hint), TN_VM_NONE);
        }
    }
}

/* An access that is wider than a register, or that runs over a device's end. */
static void b02_wide_accesses(void **state)
{
    uint8_t data[4];

    (void)state;
    board_open();
    memset(data, 0, 4);
    assert_int_equal(io(0x3f8, 4, false, 1, data), TN_VM_NONE);
    assert_memory_equal(data, "\xff\xff\xff\xff", 4);
    memset(data, 0, 4);
    assert_int_equal(io(0x3ff, 2, false, 1, data), TN_VM_NONE);
    assert_memory_equal(data, "\xff\xff\0\0", 4);
    memset(data, 0xff, 4);
    assert_int_equal(io(0x600, 2, true, 1, data), TN_VM_NONE);
    assert_int_equal(io(0x600, 4, true, 1, data), TN_VM_NONE);
    data[0] = 1;
    data[1] = 0;
    assert_int_equal(io(0x600, 2, true, 1, data), TN_VM_NONE); /* no reset by a wide write */
}

static void the_ports_that_end_the_machine(void **state)
{
    (void)state;
    board_open();
    assert_int_equal(out(0x600, 0), TN_VM_NONE);
    assert_int_equal(out(0x600, 1), TN_VM_RESET);
    board_open();
    for (unsigned v = 0; v < 256; v++) {
        board_open();
        assert_int_equal(out(0x601, (uint8_t)v),
                         tn_acpi_is_s5((uint8_t)v) ? TN_VM_POWEROFF : TN_VM_NONE);
    }
    board_open();
    assert_int_equal(in(0x505), 1);
    assert_int_equal(out(0x505, 2), TN_VM_NONE);
    assert_int_equal(out(0x505, 1), TN_VM_PANIC);
    board_open();
    assert_int_equal(out(0x64, 0xfe), TN_VM_RESET);
    board_open();
    assert_int_equal(in(0x602), 0);
}

static void the_devices_are_where_they_belong(void **state)
{
    (void)state;
    board_open();
    assert_int_equal(out(0x3f8 + TN_UART_SCR, 0x5a), TN_VM_NONE);
    assert_int_equal(in(0x3f8 + TN_UART_SCR), 0x5a);
    assert_int_equal(board.uart.state.scr, 0x5a);
    assert_int_equal(out(0x64, 0xaa), TN_VM_NONE); /* the controller's self test */
    assert_true(in(0x64) & 1);
    assert_int_equal(in(0x60), 0x55);
}

/* A string instruction is so many accesses of the same port, in order. */
static void string_accesses(void **state)
{
    uint8_t bytes[64];

    (void)state;
    board_open();
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    assert_int_equal(io(0x3f8 + TN_UART_SCR, 1, true, sizeof(bytes), bytes), TN_VM_NONE);
    assert_int_equal(in(0x3f8 + TN_UART_SCR), 63);
    assert_int_equal(io(0x3f8 + TN_UART_SCR, 1, false, sizeof(bytes), bytes), TN_VM_NONE);
    for (size_t i = 0; i < sizeof(bytes); i++)
        assert_int_equal(bytes[i], 63);
}

static void the_keys_are_not_the_button(void **state)
{
    (void)state;
    board_open();
    assert_int_equal(tn_vm_x86_shutdown(&board), TN_ESYS); /* its line leads nowhere */
    assert_false(in(0x64) & 1);
    assert_int_equal(tn_vm_x86_ctrl_alt_del(&board), 0);
    assert_true(in(0x64) & 1);
    assert_int_equal(in(0x60), 0x1d); /* control, in set 1 */
}

/* Where needle is in the first len bytes of p; NULL: nowhere. */
static const uint8_t *find(const uint8_t *p, size_t len, const char *needle, size_t size)
{
    for (size_t i = 0; i + size <= len; i++) {
        if (memcmp(p + i, needle, size) == 0)
            return p + i;
    }
    return NULL;
}

/* Each event has an interrupt of its own, which the guest is told of and no device has. */
static void the_events_of_the_dsdt(void **state)
{
    uint8_t dsdt[4096];

    (void)state;
    for (uint32_t virtio = 0; virtio <= TN_VM_X86_MAX_VIRTIO; virtio++) {
        int64_t n = tn_vm_x86_dsdt_(dsdt, sizeof(dsdt), virtio);
        size_t len = n > 0 ? (size_t)n : 0;

        assert_true(n > 0);
        assert_non_null(find(dsdt, len, "\x08_HID\x0c\x41\xd0\x0c\x0c", 10)); /* PNP0C0C */
        assert_non_null(find(dsdt, len, "\x89\x06\x00\x03\x01\x09\0\0\0", 9));
        assert_non_null(find(dsdt, len, "\x89\x06\x00\x03\x01\x0a\0\0\0", 9));
        assert_non_null(find(dsdt, len, "\x93\x68\x0a\x09\x86\\\x2e_SB_VGEN\x0a\x80", 17));
        assert_non_null(find(dsdt, len, "\x93\x68\x0a\x0a\x86\\\x2e_SB_PWRB\x0a\x80", 17));
        for (uint32_t i = 0; i < virtio; i++) {
            assert_int_not_equal(tn_vm_x86_gsi_(i), TN_VM_X86_GED_GSI);
            assert_int_not_equal(tn_vm_x86_gsi_(i), TN_VM_X86_BUTTON_GSI);
        }
    }
}

/* The tables lie where a guest looks for them, and say how many CPUs there are. */
static void the_tables_are_found(void **state)
{
    static const uint32_t counts[] = {1, 2, 8, 254};
    const size_t size = 64 << 20;
    uint8_t *ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct tn_mem_region region[2];
    struct tn_mem mem;
    struct tn_vm_cfg cfg;

    (void)state;
    assert_ptr_not_equal(ram, MAP_FAILED);
    for (size_t i = 0; i < COUNT(counts); i++) {
        uint32_t found = 0;

        memset(ram, 0, 1 << 20);
        tn_mem_init(&mem, region, 2);
        assert_int_equal(tn_mem_add(&mem, 0, ram, size), 0);
        memset(&cfg, 0, sizeof(cfg));
        cfg.memory = size;
        cfg.cpus = counts[i];
        cfg.kernel = (const uint8_t *)"";
        /* The kernel is empty, so this fails, but after the tables were made. */
        assert_int_equal(tn_vm_x86_load(&board, &mem, &cfg), TN_ETRUNC);
        assert_int_equal(board.info.stage, TN_BOOT_X86_AT_KERNEL);
        assert_memory_equal(ram + TN_BOOT_X86_ACPI, "RSD PTR ", 8);
        assert_memory_equal(ram + TN_BOOT_X86_MPTABLE, "_MP_", 4);
        assert_memory_equal(ram + 0xffff0, "\xb0\xfe\xe6\x64\xf4", 5); /* the way to a reset */
        for (size_t at = 0; at < TN_MPTABLE_MAX; at++)
            found += memcmp(ram + TN_BOOT_X86_MPTABLE + at, "PCMP", 4) == 0;
        assert_int_equal(found, 1);
    }
    munmap(ram, size);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(b03_unclaimed),
        cmocka_unit_test(b02_wide_accesses),
        cmocka_unit_test(the_ports_that_end_the_machine),
        cmocka_unit_test(the_devices_are_where_they_belong),
        cmocka_unit_test(string_accesses),
        cmocka_unit_test(the_keys_are_not_the_button),
        cmocka_unit_test(the_events_of_the_dsdt),
        cmocka_unit_test(the_tables_are_found),
    };

    return cmocka_run_group_tests_name("vm_x86", tests, NULL, NULL);
}
