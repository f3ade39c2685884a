/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_mptable.h"

#include "test.h"

/* What the reader below finds in a table, by the specification, not by the module. */
struct seen {
    unsigned cpus, buses, ioapics, irqs, locals;
    unsigned boot; /* CPUs with the bootstrap flag */
    uint8_t boot_id, ioapic_id;
    uint32_t lapic, ioapic, signature, features;
    uint8_t id[256];
    int pin_of[256]; /* line -> pin; -1: none */
    uint8_t extint_apic, extint_pin, nmi_apic, nmi_pin;
};

/* Reads a table of size bytes that lies at gpa; every byte of it must be accounted for. */
static void parse(const uint8_t *buf, size_t size, uint64_t gpa, struct seen *s)
{
    const uint8_t *t = buf + 16, *p;
    unsigned last = 0;
    size_t len;

    memset(s, 0, sizeof(*s));
    for (unsigned i = 0; i < 256; i++)
        s->pin_of[i] = -1;
    assert_memory_equal(buf, "_MP_", 4);
    assert_int_equal(test_le(buf + 4, 4), gpa + 16);
    assert_int_equal(buf[8], 1); /* in units of 16 bytes */
    assert_int_equal(buf[9], 4);
    assert_int_equal(test_sum(buf, 16), 0);
    assert_int_equal(test_le(buf + 11, 4), 0); /* features */
    assert_int_equal(buf[15], 0);

    assert_memory_equal(t, "PCMP", 4);
    len = test_le(t + 4, 2);
    assert_int_equal(len, size - 16);
    assert_int_equal(t[6], 4);
    assert_int_equal(test_sum(t, len), 0);
    for (unsigned i = 8; i < 28; i++)
        assert_true(t[i] >= ' ' && t[i] <= '~');
    assert_int_equal(test_le(t + 28, 4), 0);
    assert_int_equal(test_le(t + 32, 2), 0);
    assert_int_equal(test_le(t + 40, 4), 0);
    s->lapic = (uint32_t)test_le(t + 36, 4);
    p = t + 44;
    for (unsigned i = 0; i < test_le(t + 34, 2); i++) {
        assert_true(p[0] >= last); /* entries are sorted by type */
        last = p[0];
        switch (p[0]) {
        case 0:
            s->id[s->cpus++] = p[1];
            assert_int_equal(p[3] & 1, 1);
            if (p[3] & 2) {
                s->boot++;
                s->boot_id = p[1];
            }
            s->signature = (uint32_t)test_le(p + 4, 4);
            s->features = (uint32_t)test_le(p + 8, 4);
            assert_int_equal(test_le(p + 12, 4), 0);
            assert_int_equal(test_le(p + 16, 4), 0);
            p += 20;
            continue;
        case 1:
            s->buses++;
            assert_int_equal(p[1], 0);
            assert_memory_equal(p + 2, "ISA   ", 6);
            break;
        case 2:
            s->ioapics++;
            s->ioapic_id = p[1];
            assert_int_equal(p[3], 1);
            s->ioapic = (uint32_t)test_le(p + 4, 4);
            break;
        case 3:
            s->irqs++;
            assert_int_equal(p[1], 0);
            assert_int_equal(test_le(p + 2, 2), 0);
            assert_int_equal(p[4], 0);
            assert_int_equal(s->pin_of[p[5]], -1);
            assert_int_equal(p[6], s->ioapic_id);
            s->pin_of[p[5]] = p[7];
            break;
        case 4:
            s->locals++;
            assert_int_equal(test_le(p + 2, 2), 0);
            if (p[1] == 3) {
                s->extint_apic = p[6];
                s->extint_pin = p[7];
            } else {
                assert_int_equal(p[1], 1);
                s->nmi_apic = p[6];
                s->nmi_pin = p[7];
            }
            break;
        default:
            fail_msg("an entry of type %u", p[0]);
        }
        p += 8;
    }
    assert_ptr_equal(p, buf + size);
}

static const uint8_t twice[] = {3, 1, 3}, broadcast[] = {0, 255}, sparse[] = {0, 2, 4, 6, 250};
static const uint8_t no_zero[] = {1, 2};

static void bad_configurations_write_nothing(void **state)
{
    static const struct {
        const char *name;
        struct tn_mptable_cfg cfg;
    } row[] = {
        {"no CPU", {.gpa = 0xf0000, .cpus = 0}},
        {"255 CPUs", {.gpa = 0xf0000, .cpus = 255}},
        {"2^32-1 CPUs", {.gpa = 0xf0000, .cpus = UINT32_MAX}},
        {"CPUs whose table's size wraps", {.gpa = 0xf0000, .cpus = UINT32_MAX / 20 + 1}},
        {"an id twice", {.gpa = 0xf0000, .cpus = 3, .apic_ids = twice}},
        {"the broadcast id", {.gpa = 0xf0000, .cpus = 2, .apic_ids = broadcast}},
        {"I/O APIC with a CPU's id", {.gpa = 0xf0000, .cpus = 4, .ioapic_id = 3}},
        {"the same, sparse", {.gpa = 0xf0000, .cpus = 5, .apic_ids = sparse, .ioapic_id = 250}},
        {"I/O APIC with the broadcast id", {.gpa = 0xf0000, .cpus = 4, .ioapic_id = 255}},
        {"15 lines", {.gpa = 0xf0000, .cpus = 1, .irqs = 15}},
        {"25 lines", {.gpa = 0xf0000, .cpus = 1, .irqs = 25}},
        {"gpa not a multiple of 16", {.gpa = 0xf0008, .cpus = 1}},
        {"the end above 1 MiB", {.gpa = 0x100000 - 224, .cpus = 1}},
        {"gpa above 1 MiB", {.gpa = 0x100000, .cpus = 1}},
        {"gpa + size wraps", {.gpa = UINT64_MAX - 15, .cpus = 1}},
    };
    uint8_t buf[TN_MPTABLE_MAX], before[TN_MPTABLE_MAX];

    (void)state;
    memset(before, 0xa5, sizeof(before));
    for (size_t i = 0; i < COUNT(row); i++) {
        memcpy(buf, before, sizeof(buf));
        if (tn_mptable_build(&row[i].cfg, buf, sizeof(buf)) != TN_EINVAL)
            fail_msg("%s: accepted", row[i].name);
        assert_memory_equal(buf, before, sizeof(buf));
    }
}

static void one_byte_short_is_no_space(void **state)
{
    static const unsigned cpus[] = {1, 2, 8, 40, 254};

    (void)state;
    for (size_t i = 0; i < COUNT(cpus); i++) {
        struct tn_mptable_cfg cfg = {.gpa = 0xf0000, .cpus = cpus[i], .irqs = 24};
        size_t size = TN_MPTABLE_SIZE(cpus[i], 24);
        uint8_t *buf = malloc(size), *again = malloc(size - 1);

        memset(buf, 0x5a, size);
        memset(again, 0x5a, size - 1);
        assert_int_equal(tn_mptable_build(&cfg, again, size - 1), TN_ENOSPC);
        assert_memory_equal(buf, again, size - 1);
        assert_int_equal(tn_mptable_build(&cfg, buf, size), size);
        free(buf);
        free(again);
        assert_int_equal(tn_mptable_build(&cfg, NULL, 0), TN_ENOSPC);
    }
}

static void bytes_beyond_the_table_stay(void **state)
{
    struct tn_mptable_cfg cfg = {.gpa = 0x9fc00, .cpus = 40};
    uint8_t buf[1200];
    int size;

    (void)state;
    memset(buf, 0x77, sizeof(buf));
    size = tn_mptable_build(&cfg, buf, sizeof(buf));
    assert_int_equal(size, 1012); /* 40 CPUs are what the KiB at 0x9fc00 takes */
    for (size_t i = (size_t)size; i < sizeof(buf); i++)
        assert_int_equal(buf[i], 0x77);
}

static void every_number_of_cpus_parses_back(void **state)
{
    uint8_t buf[TN_MPTABLE_MAX];
    struct seen s;

    (void)state;
    for (unsigned n = 1; n <= 254; n++) {
        struct tn_mptable_cfg cfg = {.gpa = 0xf0000, .cpus = n};
        int size = tn_mptable_build(&cfg, buf, sizeof(buf));

        assert_int_equal(size, TN_MPTABLE_SIZE(n, 16));
        parse(buf, (size_t)size, cfg.gpa, &s);
        assert_int_equal(s.cpus, n);
        for (unsigned i = 0; i < n; i++)
            assert_int_equal(s.id[i], i);
        assert_int_equal(s.boot, 1);
        assert_int_equal(s.boot_id, 0);
        assert_int_equal(s.buses, 1);
        assert_int_equal(s.ioapics, 1);
        assert_int_equal(s.ioapic_id, n);
        assert_int_equal(s.irqs, 15);
        for (int i = 0; i < 256; i++)
            assert_int_equal(s.pin_of[i], i < 16 && i != 2 ? i : -1);
        assert_int_equal(s.locals, 2);
        assert_int_equal(s.extint_apic, 0);
        assert_int_equal(s.extint_pin, 0);
        assert_int_equal(s.nmi_apic, 255);
        assert_int_equal(s.nmi_pin, 1);
        assert_true(s.lapic == 0xfee00000 && s.ioapic == 0xfec00000);
        assert_true(s.signature == 0x600 && s.features == 0x201);
    }
}

static void what_the_caller_says_is_in_the_table(void **state)
{
    struct tn_mptable_cfg cfg = {.gpa = 0x100000 - 384, /* the last place where it fits */
                                 .cpus = 5,
                                 .apic_ids = sparse,
                                 .lapic_base = 0xfee01000,
                                 .ioapic_base = 0xfec10000,
                                 .cpu_signature = 0x806f8,
                                 .cpu_features = 0x178bfbff,
                                 .ioapic_id = 254,
                                 .irqs = 24};
    uint8_t buf[TN_MPTABLE_MAX];
    struct seen s;
    int size = (int)TN_MPTABLE_SIZE(5, 24);

    (void)state;
    assert_int_equal(size, 376);
    assert_int_equal(tn_mptable_build(&cfg, buf, sizeof(buf)), size);
    parse(buf, (size_t)size, cfg.gpa, &s);
    assert_int_equal(s.cpus, 5);
    assert_memory_equal(s.id, sparse, 5);
    assert_int_equal(s.boot_id, 0);
    assert_int_equal(s.ioapic_id, 254);
    assert_int_equal(s.irqs, 23);
    for (int i = 0; i < 24; i++)
        assert_int_equal(s.pin_of[i], i == 2 ? -1 : i);
    assert_true(s.lapic == 0xfee01000 && s.ioapic == 0xfec10000);
    assert_true(s.signature == 0x806f8 && s.features == 0x178bfbff);
}

static void the_io_apic_takes_the_first_free_id(void **state)
{
    uint8_t buf[TN_MPTABLE_MAX], ids[254];
    struct seen s;
    struct tn_mptable_cfg cfg = {.cpus = 5, .apic_ids = sparse};
    int size = tn_mptable_build(&cfg, buf, sizeof(buf));

    (void)state;
    parse(buf, (size_t)size, 0, &s);
    assert_int_equal(s.ioapic_id, 1);

    cfg.cpus = 2;
    cfg.apic_ids = no_zero;
    size = tn_mptable_build(&cfg, buf, sizeof(buf));
    parse(buf, (size_t)size, 0, &s);
    assert_int_equal(s.ioapic_id, 0);
    assert_int_equal(s.boot_id, 1);
    assert_int_equal(s.extint_apic, 1);

    for (unsigned hole = 0; hole < 255; hole++) { /* all ids but one, downwards */
        for (unsigned i = 0, id = 254; i < 254; id--) {
            if (id != hole)
                ids[i++] = (uint8_t)id;
        }
        cfg.cpus = 254;
        cfg.apic_ids = ids;
        size = tn_mptable_build(&cfg, buf, sizeof(buf));
        parse(buf, (size_t)size, 0, &s);
        assert_int_equal(s.ioapic_id, hole);
        assert_int_equal(s.boot_id, hole == 254 ? 253 : 254);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_configurations_write_nothing),
        cmocka_unit_test(one_byte_short_is_no_space),
        cmocka_unit_test(bytes_beyond_the_table_stay),
        cmocka_unit_test(every_number_of_cpus_parses_back),
        cmocka_unit_test(what_the_caller_says_is_in_the_table),
        cmocka_unit_test(the_io_apic_takes_the_first_free_id),
    };
    return cmocka_run_group_tests_name("mptable", tests, NULL, NULL);
}
