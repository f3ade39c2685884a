/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_acpi.h"

#include "test.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define GPA 0xe0000u

/* The machine that the tests describe. */
static struct tn_acpi_cfg usual(uint32_t cpus)
{
    struct tn_acpi_cfg cfg = {.gpa = GPA, .cpus = cpus};

    cfg.reset = (struct tn_acpi_reg){TN_ACPI_IO, 0x64};
    cfg.reset_value = 0xfe;
    cfg.sleep_control = (struct tn_acpi_reg){TN_ACPI_IO, 0x600};
    cfg.sleep_status = (struct tn_acpi_reg){TN_ACPI_IO, 0x601};
    return cfg;
}

/* Builds into a buffer of exactly the size; the caller frees it. */
static uint8_t *build(const struct tn_acpi_cfg *cfg, struct tn_acpi_layout *l)
{
    int size = tn_acpi_size(cfg);
    uint8_t *buf;

    assert_true(size > 0);
    buf = malloc((size_t)size);
    memset(buf, 0xa5, (size_t)size);
    assert_int_equal(tn_acpi_build(cfg, buf, (size_t)size, l), size);
    assert_int_equal(l->size, size);
    return buf;
}

/* Devices, and every kind of term that tn_aml has. */
static size_t body(uint8_t *buf, size_t cap)
{
    static const struct tn_acpi_event events[] = {
        {9, "\\_SB.VGEN", TN_ACPI_CHANGED},
        {10, "\\_SB.PWRB", TN_ACPI_PRESSED},
        {1, "^^COM1", 1},
        {300, "PWRB", 0},
    };
    struct tn_aml a;
    int64_t len;

    tn_aml_init(&a, buf, cap);
    tn_aml_scope_begin(&a, "\\_SB");
    tn_acpi_aml_uart(&a, 0x3f8, 4, 1);
    tn_acpi_aml_uart(&a, 0x2f8, 3, 2);
    tn_acpi_aml_virtio_mmio(&a, 0xd0000000, 0x1000, 5, TN_AML_EDGE, 0);
    tn_acpi_aml_virtio_mmio(&a, 0x4000000000, 0x200, 23, TN_AML_LEVEL | TN_AML_SHARED, 255);
    tn_aml_region(&a, "GEDR", TN_AML_SPACE_IO, 0x610, 4);
    tn_aml_field_begin(&a, "GEDR", TN_AML_ACCESS_BYTE | TN_AML_UPDATE_ZEROES);
    tn_aml_field_unit(&a, "GEDS", 8);
    tn_aml_field_skip(&a, 8);
    tn_aml_field_unit(&a, "GEDX", 16);
    tn_aml_end(&a);
    tn_acpi_aml_power_button(&a);
    tn_acpi_aml_vmgenid(&a, 0x1000efff8);
    tn_acpi_aml_ged(&a, events, COUNT(events));
    tn_aml_device_begin(&a, "GED1");
    tn_aml_hid(&a, "ACPI0013");
    tn_aml_uid(&a, 1);
    tn_aml_name(&a, "_CRS");
    tn_aml_resources_begin(&a);
    tn_aml_interrupt(&a, 13, TN_AML_EDGE);
    tn_aml_end(&a);
    tn_aml_method_begin(&a, "_EVT", 1, true);
    tn_aml_if_begin(&a);
    tn_aml_operator(&a, TN_AML_EQUAL);
    tn_aml_arg(&a, 0);
    tn_aml_integer(&a, 13);
    tn_aml_store(&a);
    tn_aml_path(&a, "\\_SB.GEDS");
    tn_aml_local(&a, 0);
    tn_aml_if_begin(&a);
    tn_aml_operator(&a, TN_AML_AND);
    tn_aml_local(&a, 0);
    tn_aml_integer(&a, 1);
    tn_aml_discard(&a);
    tn_aml_notify(&a);
    tn_aml_path(&a, "\\_SB.PWRB");
    tn_aml_integer(&a, 0x80);
    tn_aml_end(&a);
    tn_aml_else_begin(&a);
    tn_aml_store(&a);
    tn_aml_integer(&a, 0x1234);
    tn_aml_path(&a, "^^GEDX");
    tn_aml_end(&a);
    tn_aml_end(&a);
    tn_aml_end(&a);
    tn_aml_end(&a);
    tn_aml_device_begin(&a, "TEST");
    tn_aml_hid(&a, "LNRO0F00");
    tn_aml_name(&a, "NUMB");
    tn_aml_package_begin(&a);
    tn_aml_integer(&a, 0);
    tn_aml_integer(&a, 1);
    tn_aml_integer(&a, 0xff);
    tn_aml_integer(&a, 0xffff);
    tn_aml_integer(&a, 0xfffffff0);
    tn_aml_integer(&a, 0xfffffffffffffff0);
    tn_aml_string(&a, "text");
    tn_aml_buffer(&a, "\x01\x02\x03", 3);
    tn_aml_package_begin(&a);
    tn_aml_path(&a, "\\_SB.PWRB");
    tn_aml_end(&a);
    tn_aml_end(&a);
    tn_aml_name(&a, "_CRS");
    tn_aml_resources_begin(&a);
    tn_aml_memory32(&a, 0xd0010000, 0x1000, false);
    tn_aml_io(&a, 0x620, 1);
    tn_aml_irq(&a, 7);
    tn_aml_end(&a);
    tn_aml_method_begin(&a, "SUMS", 2, false);
    tn_aml_operator(&a, TN_AML_ADD);
    tn_aml_arg(&a, 0);
    tn_aml_arg(&a, 1);
    tn_aml_local(&a, 0);
    tn_aml_operator(&a, TN_AML_SUBTRACT);
    tn_aml_local(&a, 0);
    tn_aml_integer(&a, 3);
    tn_aml_local(&a, 1);
    tn_aml_operator(&a, TN_AML_MULTIPLY);
    tn_aml_local(&a, 1);
    tn_aml_local(&a, 0);
    tn_aml_local(&a, 2);
    tn_aml_operator(&a, TN_AML_SHIFT_LEFT);
    tn_aml_local(&a, 2);
    tn_aml_integer(&a, 4);
    tn_aml_local(&a, 3);
    tn_aml_operator(&a, TN_AML_SHIFT_RIGHT);
    tn_aml_local(&a, 3);
    tn_aml_local(&a, 1);
    tn_aml_local(&a, 4);
    tn_aml_operator(&a, TN_AML_OR);
    tn_aml_local(&a, 4);
    tn_aml_local(&a, 2);
    tn_aml_local(&a, 5);
    tn_aml_operator(&a, TN_AML_XOR);
    tn_aml_local(&a, 5);
    tn_aml_local(&a, 3);
    tn_aml_local(&a, 6);
    tn_aml_if_begin(&a);
    tn_aml_operator(&a, TN_AML_LAND);
    tn_aml_operator(&a, TN_AML_LESS);
    tn_aml_local(&a, 6);
    tn_aml_arg(&a, 0);
    tn_aml_operator(&a, TN_AML_LOR);
    tn_aml_operator(&a, TN_AML_GREATER);
    tn_aml_local(&a, 6);
    tn_aml_arg(&a, 1);
    tn_aml_operator(&a, TN_AML_LNOT);
    tn_aml_arg(&a, 1);
    tn_aml_return(&a);
    tn_aml_integer(&a, 0);
    tn_aml_end(&a);
    tn_aml_return(&a);
    tn_aml_local(&a, 6);
    tn_aml_end(&a);
    tn_aml_method_begin(&a, "CALL", 0, false);
    tn_aml_return(&a);
    tn_aml_call(&a, "SUMS", 2);
    tn_aml_integer(&a, 1);
    tn_aml_integer(&a, 2);
    tn_aml_end(&a);
    tn_aml_end(&a);
    tn_aml_end(&a);
    len = tn_aml_finish(&a);
    assert_true(len > 0);
    return (size_t)len;
}

static const uint8_t twice[] = {3, 1, 3}, broadcast[] = {0, 255}, sparse[] = {7, 2, 4, 6, 250};

static void bad_configurations_write_nothing(void **state)
{
    const struct {
        const char *name;
        struct tn_acpi_cfg cfg;
    } row[] = {
        {"no CPU", {.gpa = GPA}},
        {"255 CPUs", {.gpa = GPA, .cpus = 255}},
        {"2^32-1 CPUs", {.gpa = GPA, .cpus = UINT32_MAX}},
        {"an id twice", {.gpa = GPA, .cpus = 3, .apic_ids = twice}},
        {"the broadcast id", {.gpa = GPA, .cpus = 2, .apic_ids = broadcast}},
        {"I/O APIC with a CPU's id", {.gpa = GPA, .cpus = 4, .ioapic_id = 3}},
        {"the same, sparse", {.gpa = GPA, .cpus = 5, .apic_ids = sparse, .ioapic_id = 250}},
        {"I/O APIC with the broadcast id", {.gpa = GPA, .cpus = 4, .ioapic_id = 255}},
        {"gpa not a multiple of 16", {.gpa = GPA + 8, .cpus = 1}},
        {"gpa + size above 2^52", {.gpa = TN_ACPI_LIMIT - 256, .cpus = 1}},
        {"gpa + size wraps", {.gpa = UINT64_MAX - 15, .cpus = 1}},
        {"too much AML", {.gpa = GPA, .cpus = 1, .dsdt_len = TN_ACPI_MAX_DSDT + 1}},
        {"AML whose size wraps", {.gpa = GPA, .cpus = 1, .dsdt_len = SIZE_MAX}},
        {"control without status", {.gpa = GPA, .cpus = 1, .sleep_control = {1, 0x600}}},
        {"status without control", {.gpa = GPA, .cpus = 1, .sleep_status = {1, 0x600}}},
        {"space of reset", {.gpa = GPA, .cpus = 1, .reset = {2, 0x64}}},
        {"space of control",
         {.gpa = GPA, .cpus = 1, .sleep_control = {2, 1}, .sleep_status = {1, 2}}},
        {"space of status",
         {.gpa = GPA, .cpus = 1, .sleep_control = {1, 1}, .sleep_status = {2, 2}}},
        {"OEM id", {.gpa = GPA, .cpus = 1, .oem_id = "A\tB"}},
        {"OEM id, hole", {.gpa = GPA, .cpus = 1, .oem_id = {'A', 0, 'B', 0, 0, 0}}},
        {"OEM id, first zero", {.gpa = GPA, .cpus = 1, .oem_id = {0, 'B', 0, 0, 0, 0}}},
        {"OEM table id", {.gpa = GPA, .cpus = 1, .oem_table_id = "\xc3\xa4"}},
    };
    uint8_t buf[2048], before[2048];

    (void)state;
    memset(before, 0xa5, sizeof(before));
    for (size_t i = 0; i < COUNT(row); i++) {
        struct tn_acpi_layout l, zero = {0};

        memcpy(buf, before, sizeof(buf));
        memset(&l, 0xff, sizeof(l));
        if (tn_acpi_size(&row[i].cfg) != TN_EINVAL ||
            tn_acpi_build(&row[i].cfg, buf, sizeof(buf), &l) != TN_EINVAL)
            fail_msg("%s: accepted", row[i].name);
        assert_memory_equal(buf, before, sizeof(buf));
        assert_memory_equal(&l, &zero, sizeof(l));
    }
}

static void one_byte_short_is_no_space(void **state)
{
    static const uint32_t cpus[] = {1, 2, 3, 8, 254};

    (void)state;
    for (size_t i = 0; i < COUNT(cpus); i++) {
        struct tn_acpi_cfg cfg = usual(cpus[i]);
        struct tn_acpi_layout l, zero = {0};
        size_t size = (size_t)tn_acpi_size(&cfg);
        uint8_t *buf = malloc(size + 64), *again = malloc(size + 64);

        memset(buf, 0x5a, size + 64);
        memset(again, 0x5a, size + 64);
        assert_int_equal(tn_acpi_build(&cfg, buf, size - 1, &l), TN_ENOSPC);
        assert_memory_equal(buf, again, size + 64);
        assert_memory_equal(&l, &zero, sizeof(l));
        assert_int_equal(tn_acpi_build(&cfg, buf, size + 64, NULL), size);
        assert_memory_equal(buf + size, again + size, 64);
        free(buf);
        free(again);
        assert_int_equal(tn_acpi_build(&cfg, NULL, 0, NULL), TN_ENOSPC);
    }
}

/* Walks from the RSDP as a kernel does; returns the table with the signature, NULL: none. */
static const uint8_t *find(const uint8_t *buf, size_t size, uint64_t gpa, const char *signature,
                           uint32_t *len)
{
    const uint8_t *rsdp = buf, *xsdt, *t = NULL;

    assert_memory_equal(rsdp, "RSD PTR ", 8);
    assert_int_equal(rsdp[15], 2);
    assert_int_equal(test_le(rsdp + 20, 4), 36);
    assert_int_equal(test_sum(rsdp, 20), 0);
    assert_int_equal(test_sum(rsdp, 36), 0);
    assert_in_range(test_le(rsdp + 24, 8), gpa, gpa + size - 36);
    xsdt = buf + (test_le(rsdp + 24, 8) - gpa);
    assert_memory_equal(xsdt, "XSDT", 4);
    *len = (uint32_t)test_le(xsdt + 4, 4);
    assert_int_equal(test_sum(xsdt, *len), 0);
    if (strcmp(signature, "XSDT") == 0)
        return xsdt;
    for (uint32_t i = 36; i < *len; i += 8) {
        const uint8_t *p;

        assert_in_range(test_le(xsdt + i, 8), gpa, gpa + size - 36);
        p = buf + (test_le(xsdt + i, 8) - gpa);
        if (strcmp(signature, "DSDT") == 0 && memcmp(p, "FACP", 4) == 0) {
            assert_in_range(test_le(p + 140, 8), gpa, gpa + size - 36);
            t = buf + (test_le(p + 140, 8) - gpa);
        } else if (memcmp(p, signature, 4) == 0) {
            t = p;
        }
    }
    assert_non_null(t);
    assert_memory_equal(t, signature, 4);
    *len = (uint32_t)test_le(t + 4, 4);
    assert_true(*len <= size - (size_t)(t - buf));
    assert_int_equal(test_sum(t, *len), 0);
    assert_int_equal((t - buf) % 16, 0);
    return t;
}

static void tables_hang_together(void **state)
{
    static const char *const name[] = {"XSDT", "FACP", "APIC", "DSDT"};

    (void)state;
    for (uint32_t n = 1; n <= 254; n++) { /* each size of the DSDT's own part, too */
        struct tn_acpi_cfg cfg = usual(n);
        struct tn_acpi_layout l;
        const struct tn_acpi_part *part[] = {&l.xsdt, &l.fadt, &l.madt, &l.dsdt};
        uint8_t *buf;
        uint32_t len;

        if (n % 3 == 0)
            memset(&cfg.sleep_control, 0, 2 * sizeof(cfg.sleep_control));
        buf = build(&cfg, &l);
        assert_int_equal(l.rsdp.offset, 0);
        assert_int_equal(l.rsdp.size, 36);
        for (size_t i = 0; i < COUNT(name); i++) {
            assert_int_equal(find(buf, l.size, GPA, name[i], &len) - buf, part[i]->offset);
            assert_int_equal(len, part[i]->size);
        }
        free(buf);
    }
}

static void the_fadt_is_of_reduced_hardware(void **state)
{
    struct tn_acpi_cfg cfg = usual(2);
    struct tn_acpi_layout l;
    uint8_t *buf = build(&cfg, &l);
    uint32_t len, flags;
    const uint8_t *t = find(buf, l.size, GPA, "FACP", &len);

    (void)state;
    assert_int_equal(len, 276);
    assert_int_equal(t[8], 6);
    flags = (uint32_t)test_le(t + 112, 4);
    assert_true(flags >> 20 & 1);                  /* HW_REDUCED_ACPI */
    assert_true(flags >> 10 & 1);                  /* RESET_REG_SUP */
    assert_true(flags >> 12 & 1);                  /* HEADLESS */
    assert_true((flags & 1) && (flags >> 2 & 1));  /* WBINVD, PROC_C1 */
    assert_true((flags >> 4 & 3) == 3);            /* no fixed power or sleep button */
    assert_int_equal(test_le(t + 109, 2), 4 | 32); /* neither VGA nor CMOS clock nor 8042 */
    assert_memory_equal(t + 116, "\x01\x08\x00\x01\x64\0\0\0\0\0\0\0\xfe", 13);
    assert_memory_equal(t + 244, "\x01\x08\x00\x01\x00\x06\0\0\0\0\0\0", 12);
    assert_memory_equal(t + 256, "\x01\x08\x00\x01\x01\x06\0\0\0\0\0\0", 12);
    for (unsigned i = 36; i < 109; i++)
        assert_int_equal(t[i], 0); /* no legacy registers, no FACS, no 32-bit DSDT */
    for (unsigned i = 148; i < 244; i++)
        assert_int_equal(t[i], 0); /* nor extended ones */
    free(buf);

    cfg.i8042 = cfg.cmos_rtc = true;
    memset(&cfg.reset, 0, sizeof(cfg.reset));
    cfg.sleep_control = (struct tn_acpi_reg){TN_ACPI_MEMORY, 0xd0000000};
    cfg.sleep_status = (struct tn_acpi_reg){TN_ACPI_MEMORY, 0x123456789a};
    buf = build(&cfg, &l);
    t = find(buf, l.size, GPA, "FACP", &len);
    assert_int_equal(test_le(t + 109, 2), 4 | 2);
    assert_false(test_le(t + 112, 4) >> 10 & 1);
    assert_memory_equal(t + 116, "\0\0\0\0\0\0\0\0\0\0\0\0", 12);
    assert_memory_equal(t + 244, "\x00\x08\x00\x01\x00\x00\x00\xd0\0\0\0\0", 12);
    assert_memory_equal(t + 256, "\x00\x08\x00\x01\x9a\x78\x56\x34\x12\0\0\0", 12);
    free(buf);
}

static void the_madt_names_cpus_and_io_apic(void **state)
{
    static const uint32_t cpus[] = {1, 2, 5, 8, 254};

    (void)state;
    for (size_t i = 0; i < COUNT(cpus); i++) {
        struct tn_acpi_cfg cfg = usual(cpus[i]);
        struct tn_acpi_layout l;
        uint8_t *buf;
        uint32_t len, seen = 0, ioapics = 0, nmis = 0;
        const uint8_t *t, *p;

        if (cpus[i] == 5) {
            cfg.apic_ids = sparse;
            cfg.lapic_base = 0xfee10000;
            cfg.ioapic_base = 0xfec10000;
            cfg.ioapic_id = 200;
        }
        buf = build(&cfg, &l);
        t = find(buf, l.size, GPA, "APIC", &len);
        assert_true(test_le(t + 36, 4) == (cpus[i] == 5 ? 0xfee10000 : 0xfee00000));
        assert_int_equal(test_le(t + 40, 4), 0); /* PCAT_COMPAT: no PICs */
        for (p = t + 44; p < t + len; p += p[1]) {
            if (p[0] == 0) {
                assert_int_equal(p[1], 8);
                assert_int_equal(p[2], seen);
                assert_int_equal(p[3], cpus[i] == 5 ? sparse[seen] : seen);
                assert_int_equal(test_le(p + 4, 4), 1);
                seen++;
            } else if (p[0] == 1) {
                assert_int_equal(p[1], 12);
                assert_int_equal(p[2], cpus[i] == 5 ? 200 : cpus[i]);
                assert_true(test_le(p + 4, 4) == (cpus[i] == 5 ? 0xfec10000 : 0xfec00000));
                assert_int_equal(test_le(p + 8, 4), 0);
                ioapics++;
            } else {
                assert_memory_equal(p, "\x04\x06\xff\x00\x00\x01", 6);
                nmis++;
            }
        }
        assert_ptr_equal(p, t + len);
        assert_int_equal(seen, cpus[i]);
        assert_int_equal(ioapics, 1);
        assert_int_equal(nmis, 1);
        free(buf);
    }
}

static void ids_and_body_are_the_callers(void **state)
{
    struct tn_acpi_cfg cfg = usual(3);
    struct tn_acpi_layout l;
    uint8_t aml[2048], *buf;
    uint32_t len;
    const uint8_t *t;

    (void)state;
    cfg.dsdt_len = body(aml, sizeof(aml));
    cfg.dsdt = aml;
    memcpy(cfg.oem_id, "ABCDEF", 6);
    memcpy(cfg.oem_table_id, "MY VM\0\0\0", 8);
    cfg.gpa = 0x123456780;
    buf = build(&cfg, &l);
    t = find(buf, l.size, cfg.gpa, "DSDT", &len);
    assert_memory_equal(t + 10, "ABCDEFMY VM   ", 14);
    assert_memory_equal(t + len - cfg.dsdt_len, aml, cfg.dsdt_len);
    assert_memory_equal(buf + 9, "ABCDEF", 6);
    free(buf);

    memset(cfg.oem_id, 0, 6);
    memset(cfg.oem_table_id, 0, 8);
    buf = build(&cfg, &l);
    t = find(buf, l.size, cfg.gpa, "DSDT", &len);
    assert_memory_equal(t + 10, "TENON VM      ", 14);
    free(buf);
}

static void power_off_is_told_from_all_else(void **state)
{
    struct tn_acpi_cfg cfg = usual(1);
    struct tn_acpi_layout l;
    uint8_t *buf = build(&cfg, &l), *s5 = NULL;

    (void)state;
    for (unsigned v = 0; v < 256; v++)
        assert_int_equal(tn_acpi_is_s5((uint8_t)v), (v >> 5 & 1) == 1 && (v >> 2 & 7) == 5);

    for (uint32_t i = 0; i + 8 < l.dsdt.size; i++) { /* the number that \_S5 says is the one */
        if (memcmp(buf + l.dsdt.offset + i, "_S5_\x12", 5) == 0)
            s5 = buf + l.dsdt.offset + i;
    }
    assert_non_null(s5);
    assert_int_equal(s5[6], 4);
    assert_int_equal(s5[7], 0x0a);
    assert_true(tn_acpi_is_s5((uint8_t)(s5[8] << 2 | 1 << 5)));
    free(buf);

    memset(&cfg.sleep_control, 0, 2 * sizeof(cfg.sleep_control));
    buf = build(&cfg, &l);
    for (uint32_t i = 0; i + 4 < l.dsdt.size; i++)
        assert_memory_not_equal(buf + l.dsdt.offset + i, "_S5_", 4);
    free(buf);
}

static void devices_need_a_number_that_fits(void **state)
{
    static const unsigned bad_uart[] = {0, 10, 256, UINT32_MAX};
    uint8_t buf[256];
    struct tn_aml a;

    (void)state;
    for (size_t i = 0; i < COUNT(bad_uart); i++) {
        tn_aml_init(&a, buf, sizeof(buf));
        tn_acpi_aml_uart(&a, 0x3f8, 4, bad_uart[i]);
        assert_int_equal(tn_aml_finish(&a), TN_EINVAL);
    }
    tn_aml_init(&a, buf, sizeof(buf));
    tn_acpi_aml_uart(&a, 0xfff9, 4, 1);
    assert_int_equal(tn_aml_finish(&a), TN_EINVAL);
    tn_aml_init(&a, buf, sizeof(buf));
    tn_acpi_aml_virtio_mmio(&a, 0, 0x200, 5, 0, 256);
    assert_int_equal(tn_aml_finish(&a), TN_EINVAL);
    tn_aml_init(&a, buf, sizeof(buf));
    tn_acpi_aml_virtio_mmio(&a, UINT64_MAX, 2, 5, 0, 1);
    assert_int_equal(tn_aml_finish(&a), TN_EINVAL);
    tn_aml_init(&a, buf, sizeof(buf));
    tn_acpi_aml_virtio_mmio(&a, 0x1000, 0, 5, 0, 1);
    assert_int_equal(tn_aml_finish(&a), TN_EINVAL);
    tn_aml_init(&a, buf, sizeof(buf));
    tn_acpi_aml_virtio_mmio(&a, 0xfffff000, 0x1000, 5, 0, 0xab);
    assert_true(tn_aml_finish(&a) > 0);
    assert_memory_equal(buf + 4, "VRAB", 4);
}

/* What one describes, or the error. */
static int64_t genid(uint8_t *buf, size_t cap, uint64_t gpa)
{
    struct tn_aml a;

    tn_aml_init(&a, buf, cap);
    tn_acpi_aml_vmgenid(&a, gpa);
    return tn_aml_finish(&a);
}

static int64_t ged(uint8_t *buf, size_t cap, const struct tn_acpi_event *events, uint32_t count)
{
    struct tn_aml a;

    tn_aml_init(&a, buf, cap);
    tn_acpi_aml_ged(&a, events, count);
    return tn_aml_finish(&a);
}

static void an_id_is_aligned_and_in_the_address_space(void **state)
{
    static const uint64_t bad[] = {0,
                                   0xef001,
                                   0xef002,
                                   0xef004,
                                   0xef00c,
                                   TN_ACPI_LIMIT - 15,
                                   TN_ACPI_LIMIT - 8,
                                   TN_ACPI_LIMIT,
                                   UINT64_MAX - 7,
                                   UINT64_MAX - 15,
                                   UINT64_MAX};
    static const uint64_t good[] = {8, 0xef000, 0xef008, 0xfffffff8, TN_ACPI_LIMIT - 16};
    uint8_t buf[128];

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(genid(buf, sizeof(buf), bad[i]), TN_EINVAL);
    for (size_t i = 0; i < COUNT(good); i++)
        assert_true(genid(buf, sizeof(buf), good[i]) > 0);
}

static void events_need_interrupts_of_their_own(void **state)
{
    static const char *const path[] = {"",      "\\",          "vgen",     "9GEN",
                                       "VGEN1", "\\_SB.VGEN.", "_SB VGEN", "^"};
    struct tn_acpi_event e[TN_ACPI_EVENTS + 1];
    uint8_t buf[1024];

    (void)state;
    for (uint32_t i = 0; i < COUNT(e); i++) {
        e[i].gsi = 2 * i;
        e[i].device = "VGEN";
        e[i].value = 0x80;
    }
    assert_int_equal(ged(buf, sizeof(buf), e, 0), TN_EINVAL);
    assert_int_equal(ged(buf, sizeof(buf), NULL, 0), TN_EINVAL);
    assert_int_equal(ged(buf, sizeof(buf), e, TN_ACPI_EVENTS + 1), TN_EINVAL);
    assert_int_equal(ged(buf, sizeof(buf), NULL, UINT32_MAX), TN_EINVAL);
    for (size_t i = 0; i < COUNT(path); i++) {
        e[1].device = path[i];
        assert_true(ged(buf, sizeof(buf), e, 1) > 0);
        assert_int_equal(ged(buf, sizeof(buf), e, 2), TN_EINVAL);
    }
    e[1].device = "VGEN";
    for (uint32_t n = 1; n <= TN_ACPI_EVENTS; n++)
        assert_true(ged(buf, sizeof(buf), e, n) > 0);
    for (uint32_t i = 0; i < TN_ACPI_EVENTS; i++) { /* each one as each other */
        for (uint32_t j = 0; j < TN_ACPI_EVENTS; j++) {
            e[i].gsi = 2 * j;
            assert_int_equal(ged(buf, sizeof(buf), e, TN_ACPI_EVENTS) == TN_EINVAL, i != j);
        }
        e[i].gsi = 2 * i;
    }
}

/* By hand, from the specification's grammar. */
static void an_id_and_its_event_byte_for_byte(void **state)
{
    /* Behind a length is what it counts from itself on. */
    static const uint8_t id[] = "\x5b\x82\x4a\x05VGEN" /* 90 */
                                "\x08_HID\x0dTENN0001\0"
                                "\x08_CID\x12\x1c\x02" /* 28 */
                                "\x0dVM_Gen_Counter\0\x0dVMGENCTR\0"
                                "\x08_DDN\x0dVM_Gen_Counter\0"
                                "\x08\x41\x44\x44R\x12\x08\x02" /* 8 */
                                "\x0c\x08\xf0\x0e\x00\x00";
    static const uint8_t high[] = "\x12\x0c\x02\x0c\xf0\xff\xff\xff\x0c\xff\xff\x0f\x00";
    static const uint8_t event[] = "\x5b\x82\x4e\x05GED_" /* 94 */
                                   "\x08_HID\x0d\x41\x43PI0013\0"
                                   "\x08_UID\x00"
                                   "\x08_CRS\x11\x17\x0a\x14"             /* 23; a template of 20 */
                                   "\x89\x06\x00\x03\x01\x09\x00\x00\x00" /* an edge, high */
                                   "\x89\x06\x00\x03\x01\x17\x00\x00\x00"
                                   "\x79\x00"
                                   "\x14\x25_EVT\x09"             /* 37; one argument, serialized */
                                   "\xa0\x12\x93\x68\x0a\x09\x86" /* 18 */
                                   "\\\x2e_SB_VGEN\x0a\x80"
                                   "\xa0\x0b\x93\x68\x0a\x17\x86" /* 11 */
                                   "PWRB\x01";
    static const struct tn_acpi_event e[] = {{9, "\\_SB.VGEN", TN_ACPI_CHANGED}, {23, "PWRB", 1}};
    const size_t id_len = sizeof(id) - 1, event_len = sizeof(event) - 1, template_at = 38;
    uint8_t buf[sizeof(id) + sizeof(event)];

    (void)state;
    assert_int_equal(genid(buf, id_len - 1, 0xef008), TN_ENOSPC);
    assert_int_equal(genid(buf, id_len, 0xef008), id_len);
    assert_memory_equal(buf, id, id_len);
    assert_int_equal(genid(buf, sizeof(buf), TN_ACPI_LIMIT - 16), id_len + 4);
    assert_memory_equal(buf + id_len + 4 - (sizeof(high) - 1), high, sizeof(high) - 1);

    assert_int_equal(ged(buf, event_len - 1, e, 2), TN_ENOSPC);
    assert_int_equal(ged(buf, event_len, e, 2), event_len);
    assert_int_equal(test_sum(buf + template_at, 20), 0);
    buf[template_at + 19] = 0; /* the checksum */
    assert_memory_equal(buf, event, event_len);
}

static void a_power_button_byte_for_byte(void **state)
{
    static const uint8_t button[] = "\x5b\x82\x15PWRB"             /* 21 */
                                    "\x08_HID\x0c\x41\xd0\x0c\x0c" /* PNP0C0C */
                                    "\x08_UID\x00";
    const size_t len = sizeof(button) - 1;
    uint8_t buf[sizeof(button)];
    struct tn_aml a;

    (void)state;
    for (size_t cap = len - 1; cap <= len; cap++) {
        tn_aml_init(&a, buf, cap);
        tn_acpi_aml_power_button(&a);
        assert_int_equal(tn_aml_finish(&a), cap < len ? TN_ENOSPC : (int64_t)len);
    }
    assert_memory_equal(buf, button, len);
}

/* -- with ACPICA's own compiler, which does not read an RSDP by itself -- */

static bool runs(const char *command)
{
    int status = system(command);

    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void disassembles(const char *dir, const char *name, const uint8_t *bytes, size_t len)
{
    char command[512];
    uint8_t *again;
    FILE *f;

    snprintf(command, sizeof(command), "%s/%s.dat", dir, name);
    f = fopen(command, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    fclose(f);
    /* What it disassembles without a complaint it compiles again, without one, the same. */
    snprintf(command, sizeof(command),
             "cd %s && iasl -d %s.dat >log 2>&1 && ! grep -iE 'warning|error|invalid' log %s.dsl",
             dir, name, name);
    if (!runs(command))
        fail_msg("iasl -d %s.dat complains; see %s/log", name, dir);
    snprintf(command, sizeof(command),
             "cd %s && iasl -oa -p again %s.dsl >log 2>&1 && grep -q ' 0 Errors, 0 Warnings' log",
             dir, name);
    if (!runs(command))
        fail_msg("iasl %s.dsl complains; see %s/log", name, dir);
    snprintf(command, sizeof(command), "%s/again.aml", dir);
    f = fopen(command, "rb");
    assert_non_null(f);
    again = malloc(len + 1);
    assert_int_equal(fread(again, 1, len + 1, f), len);
    fclose(f);
    for (size_t i = 36; i < len; i++) { /* iasl leaves the checksums of end tags 0 */
        if (again[i] != bytes[i] && (again[i] != 0 || again[i - 1] != 0x79))
            fail_msg("%s: byte %zu: iasl makes it 0x%02x, not 0x%02x", name, i, again[i], bytes[i]);
    }
    free(again);
}

static void iasl_reads_them_and_makes_them_again(void **state)
{
    static const uint32_t cpus[] = {1, 2, 8, 254};
    char dir[] = "/tmp/tenon-acpi-XXXXXX", command[256];
    uint8_t aml[2048];

    (void)state;
    if (!runs("iasl -v >/dev/null 2>&1")) {
        SKIP("iasl (Debian's acpica-tools) is not installed");
    }
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < COUNT(cpus); i++) {
        struct tn_acpi_cfg cfg = usual(cpus[i]);
        struct tn_acpi_layout l;
        uint8_t *buf;

        if (i > 0) { /* an empty body, then devices and all terms */
            cfg.dsdt = aml;
            cfg.dsdt_len = body(aml, sizeof(aml));
        }
        buf = build(&cfg, &l);
        disassembles(dir, "XSDT", buf + l.xsdt.offset, l.xsdt.size);
        disassembles(dir, "FACP", buf + l.fadt.offset, l.fadt.size);
        disassembles(dir, "APIC", buf + l.madt.offset, l.madt.size);
        disassembles(dir, "DSDT", buf + l.dsdt.offset, l.dsdt.size);
        free(buf);
    }
    snprintf(command, sizeof(command), "rm -r %s", dir);
    assert_true(runs(command));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_configurations_write_nothing),
        cmocka_unit_test(one_byte_short_is_no_space),
        cmocka_unit_test(devices_need_a_number_that_fits),
        cmocka_unit_test(an_id_is_aligned_and_in_the_address_space),
        cmocka_unit_test(events_need_interrupts_of_their_own),
        cmocka_unit_test(an_id_and_its_event_byte_for_byte),
        cmocka_unit_test(a_power_button_byte_for_byte),
        cmocka_unit_test(tables_hang_together),
        cmocka_unit_test(the_fadt_is_of_reduced_hardware),
        cmocka_unit_test(the_madt_names_cpus_and_io_apic),
        cmocka_unit_test(ids_and_body_are_the_callers),
        cmocka_unit_test(power_off_is_told_from_all_else),
        cmocka_unit_test(iasl_reads_them_and_makes_them_again),
    };
    return cmocka_run_group_tests_name("acpi", tests, NULL, NULL);
}
