/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_gpio.h"

#include "test.h"

#define MOD   0x100000000ull
#define POWER 3u
#define BIT   (1u << POWER)

struct rig {
    struct tn_gpio gpio;
    bool line;
    unsigned edges; /* rising ones */
};

static void rig_irq(void *ctx, bool level)
{
    struct rig *r = ctx;

    assert_true(level != r->line); /* only changes are told */
    r->line = level;
    r->edges += level;
}

static void rig_init(struct rig *r)
{
    struct tn_gpio_cfg cfg = {r, rig_irq};

    memset(r, 0, sizeof(*r));
    assert_int_equal(tn_gpio_init(&r->gpio, &cfg), 0);
}

static uint64_t rd(struct rig *r, uint64_t off)
{
    return tn_gpio_read(&r->gpio, off, 1);
}

static void wr(struct rig *r, uint64_t off, uint64_t value)
{
    tn_gpio_write(&r->gpio, off, 1, value);
}

static void irq_is_needed(void **state)
{
    struct tn_gpio_cfg cfg = {NULL, NULL};
    struct tn_gpio gpio;

    (void)state;
    assert_int_equal(tn_gpio_init(&gpio, &cfg), TN_EINVAL);
}

static void b03_other_accesses_do_nothing(void **state)
{
    static const uint64_t offs[] = {0x001, 0x002,       0x003,      0x401,     0x406,  0x41f,
                                    0x421, 0x424,       0x428,      0x500,     0x600,  0xfdc,
                                    0xfe1, 0xfe2,       0xfff,      0x1000,    0x1400, 0x1404,
                                    MOD,   MOD + 0x400, 1ull << 63, ~0ull - 3, ~0ull};
    static const unsigned widths[] = {0, 3, 5, 8, 16, ~0u};
    struct tn_gpio_state before, after;
    struct rig r;

    (void)state;
    rig_init(&r);
    wr(&r, TN_GPIO_DIR, 0xf0);
    wr(&r, 0x3fc, 0xa5);
    tn_gpio_save(&r.gpio, &before);
    for (size_t i = 0; i < COUNT(offs); i++) {
        for (unsigned width = 1; width <= 4; width *= 2) {
            assert_int_equal(tn_gpio_read(&r.gpio, offs[i], width), 0);
            tn_gpio_write(&r.gpio, offs[i], width, ~0ull);
        }
    }
    for (size_t i = 0; i < COUNT(widths); i++) {
        for (uint64_t off = 0; off < TN_GPIO_SIZE; off++) {
            assert_int_equal(tn_gpio_read(&r.gpio, off, widths[i]), 0);
            tn_gpio_write(&r.gpio, off, widths[i], ~0ull);
        }
    }
    tn_gpio_save(&r.gpio, &after);
    assert_memory_equal(&before, &after, sizeof(before));
    assert_int_equal(r.edges, 0);
}

static void b03_of_wider_values_the_low_byte_counts(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    for (unsigned width = 1; width <= 4; width *= 2) {
        tn_gpio_write(&r.gpio, TN_GPIO_DIR, width, 0x1234567890ull + width);
        assert_int_equal(tn_gpio_read(&r.gpio, TN_GPIO_DIR, width), 0x90 + width);
    }
}

static void registers_that_are_read_only_stay(void **state)
{
    struct tn_gpio_state before, after;
    struct rig r;

    (void)state;
    rig_init(&r);
    tn_gpio_set(&r.gpio, 0, true);
    tn_gpio_save(&r.gpio, &before);
    wr(&r, 0x3fc, 0xff); /* of inputs */
    wr(&r, TN_GPIO_RIS, 0xff);
    wr(&r, TN_GPIO_MIS, 0xff);
    for (uint64_t off = TN_GPIO_ID; off < TN_GPIO_SIZE; off += 4)
        wr(&r, off, 0xff);
    tn_gpio_save(&r.gpio, &after);
    assert_memory_equal(&before, &after, sizeof(before));
    assert_int_equal(rd(&r, TN_GPIO_IC), 0); /* write only */
}

/* As the AMBA bus puts the two identities together. */
static void it_is_an_arm_pl061(void **state)
{
    struct rig r;
    uint64_t pid = 0, cid = 0;

    (void)state;
    rig_init(&r);
    for (unsigned i = 0; i < 4; i++) {
        pid |= tn_gpio_read(&r.gpio, 0xfe0 + 4 * i, 4) << 8 * i;
        cid |= tn_gpio_read(&r.gpio, 0xff0 + 4 * i, 4) << 8 * i;
    }
    assert_int_equal(pid, 0x00041061);
    assert_int_equal(cid, 0xb105f00d);
}

static void the_reset_state_is_zero(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    for (uint64_t off = 0; off < TN_GPIO_ID; off += 4)
        assert_int_equal(rd(&r, off), 0);
}

static void registers_keep_what_is_written(void **state)
{
    static const uint64_t offs[] = {TN_GPIO_DIR, TN_GPIO_IS, TN_GPIO_IBE,
                                    TN_GPIO_IEV, TN_GPIO_IE, TN_GPIO_AFSEL};

    (void)state;
    for (size_t i = 0; i < COUNT(offs); i++) {
        struct rig r;

        rig_init(&r);
        for (unsigned value = 256; value-- > 0;) {
            wr(&r, offs[i], value);
            for (size_t j = 0; j < COUNT(offs); j++)
                assert_int_equal(rd(&r, offs[j]), i == j ? value : 0);
        }
    }
}

static void the_address_says_of_which_lines(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    wr(&r, TN_GPIO_DIR, 0xff);
    for (unsigned mask = 0; mask < 256; mask++) {
        wr(&r, 0x3fc, 0x5a);
        wr(&r, mask << 2, 0xa5);
        assert_int_equal(rd(&r, 0x3fc), (0x5a & ~mask) | (0xa5 & mask));
        assert_int_equal(rd(&r, mask << 2), 0xa5 & mask);
    }
    wr(&r, TN_GPIO_DIR, 0);
    for (unsigned line = 0; line < 8; line++)
        tn_gpio_set(&r.gpio, line, 0x96 >> line & 1);
    for (unsigned mask = 0; mask < 256; mask++)
        assert_int_equal(rd(&r, mask << 2), 0x96 & mask);
}

static void outputs_are_what_the_guest_drives(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    for (unsigned line = 0; line < 8; line++)
        tn_gpio_set(&r.gpio, line, true);
    wr(&r, TN_GPIO_DIR, 0x0f);
    assert_int_equal(rd(&r, 0x3fc), 0xf0);
    wr(&r, 0x3fc, 0x35);
    assert_int_equal(rd(&r, 0x3fc), 0xf5);
    tn_gpio_set(&r.gpio, 0, false);
    tn_gpio_set(&r.gpio, 4, false);
    assert_int_equal(rd(&r, 0x3fc), 0xe5);
    wr(&r, TN_GPIO_DIR, 0);
    assert_int_equal(rd(&r, 0x3fc), 0xee);
    wr(&r, TN_GPIO_DIR, 0xff); /* what was written while they were inputs is nowhere */
    assert_int_equal(rd(&r, 0x3fc), 0x05);
}

static void there_are_eight_lines(void **state)
{
    static const unsigned none[] = {8, 9, 31, 32, 35, 255, 256, ~0u};
    struct rig r;

    (void)state;
    rig_init(&r);
    wr(&r, TN_GPIO_IBE, 0xff);
    wr(&r, TN_GPIO_IE, 0xff);
    for (size_t i = 0; i < COUNT(none); i++)
        tn_gpio_set(&r.gpio, none[i], true);
    assert_int_equal(rd(&r, 0x3fc), 0);
    assert_int_equal(r.edges, 0);
}

/* Every way that an edge may be asked for, and both edges. */
static void edges_are_those_asked_for(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 32; how++) {
        bool is = how & 1, ibe = how & 2, iev = how & 4, out = how & 8, up = how & 16;
        bool seen = !is && !out && (ibe || iev == up);
        struct rig r;

        rig_init(&r);
        tn_gpio_set(&r.gpio, POWER, !up);
        wr(&r, TN_GPIO_IS, is ? BIT : (uint8_t)~BIT);
        wr(&r, TN_GPIO_IBE, ibe ? BIT : (uint8_t)~BIT);
        wr(&r, TN_GPIO_IEV, iev ? BIT : (uint8_t)~BIT);
        wr(&r, TN_GPIO_DIR, out ? BIT : (uint8_t)~BIT);
        wr(&r, TN_GPIO_IC, 0xff);
        tn_gpio_set(&r.gpio, POWER, up);
        if ((r.gpio.state.edges & BIT) != (seen ? BIT : 0))
            fail_msg("how %u", how);
        tn_gpio_set(&r.gpio, POWER, up); /* the same again is no edge */
        assert_int_equal(r.gpio.state.edges & ~BIT, 0);
        wr(&r, TN_GPIO_IC, BIT);
        tn_gpio_set(&r.gpio, POWER, up);
        assert_int_equal(r.gpio.state.edges, 0);
    }
}

static void an_edge_stays_until_it_is_cleared(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    wr(&r, TN_GPIO_IBE, BIT);
    wr(&r, TN_GPIO_IE, BIT);
    tn_gpio_set(&r.gpio, POWER, true);
    assert_true(r.line);
    tn_gpio_set(&r.gpio, POWER, false);
    assert_true(r.line);
    assert_int_equal(rd(&r, TN_GPIO_RIS), BIT);
    wr(&r, TN_GPIO_IC, (uint8_t)~BIT); /* not its bit */
    assert_true(r.line);
    wr(&r, TN_GPIO_IEV, BIT);
    wr(&r, TN_GPIO_IS, BIT); /* a level counts now, which is not there */
    assert_false(r.line);
    wr(&r, TN_GPIO_IS, 0);
    assert_true(r.line);
    wr(&r, TN_GPIO_IC, BIT);
    assert_false(r.line);
    assert_int_equal(rd(&r, TN_GPIO_RIS), 0);
    assert_int_equal(r.edges, 2);
}

static void a_level_lasts_as_long_as_it_is(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    wr(&r, TN_GPIO_IE, BIT);
    wr(&r, TN_GPIO_IEV, BIT);
    wr(&r, TN_GPIO_IS, BIT);
    assert_false(r.line);
    tn_gpio_set(&r.gpio, POWER, true);
    assert_true(r.line);
    wr(&r, TN_GPIO_IC, 0xff);
    assert_true(r.line);
    tn_gpio_set(&r.gpio, POWER, false);
    assert_false(r.line);
    wr(&r, TN_GPIO_IEV, 0); /* low is the level now */
    assert_true(r.line);
    wr(&r, TN_GPIO_DIR, BIT); /* an output */
    assert_false(r.line);
    wr(&r, TN_GPIO_DIR, 0);
    assert_true(r.line);
    wr(&r, TN_GPIO_IS, 0); /* it was no edge */
    assert_false(r.line);
}

static void the_mask_gates_the_line_only(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    wr(&r, TN_GPIO_IEV, 0xff);
    tn_gpio_set(&r.gpio, POWER, true);
    tn_gpio_set(&r.gpio, 5, true);
    assert_int_equal(rd(&r, TN_GPIO_RIS), BIT | 0x20);
    assert_int_equal(rd(&r, TN_GPIO_MIS), 0);
    assert_false(r.line);
    wr(&r, TN_GPIO_IE, 0x21);
    assert_int_equal(rd(&r, TN_GPIO_MIS), 0x20);
    assert_true(r.line);
    wr(&r, TN_GPIO_IE, 0x01);
    assert_false(r.line);
    wr(&r, TN_GPIO_IE, 0xff);
    wr(&r, TN_GPIO_IC, 0x20); /* the other one holds it */
    assert_true(r.line);
    assert_int_equal(r.edges, 2);
}

static void reset_leaves_the_wires(void **state)
{
    struct tn_gpio_state saved, fresh;
    struct rig r;

    (void)state;
    rig_init(&r);
    tn_gpio_set(&r.gpio, POWER, true);
    tn_gpio_save(&r.gpio, &fresh);
    for (uint64_t off = TN_GPIO_DIR; off <= TN_GPIO_AFSEL; off += 4)
        wr(&r, off, 0x7f);
    wr(&r, TN_GPIO_DIR, 0x80);
    wr(&r, 0x3fc, 0x80);
    assert_true(r.line);
    tn_gpio_reset(&r.gpio);
    assert_false(r.line);
    tn_gpio_save(&r.gpio, &saved);
    assert_memory_equal(&saved, &fresh, sizeof(saved));
    assert_int_equal(rd(&r, 0x3fc), BIT);
}

/* What Linux's gpio-pl061 and gpio_keys do with a button, from the probe to the second edge. */
static void linux_uses_it(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    wr(&r, TN_GPIO_IE, 0);
    wr(&r, TN_GPIO_DIR, rd(&r, TN_GPIO_DIR) & ~(uint64_t)BIT);
    wr(&r, TN_GPIO_IS, rd(&r, TN_GPIO_IS) & ~(uint64_t)BIT);
    wr(&r, TN_GPIO_IBE, rd(&r, TN_GPIO_IBE) | BIT);
    wr(&r, TN_GPIO_IE, rd(&r, TN_GPIO_IE) | BIT);
    for (unsigned i = 0; i < 2; i++) {
        tn_gpio_set(&r.gpio, POWER, i == 0);
        assert_true(r.line);
        assert_int_equal(rd(&r, TN_GPIO_MIS), BIT);
        wr(&r, TN_GPIO_IC, BIT);
        assert_false(r.line);
        assert_int_equal(rd(&r, BIT << 2) != 0, i == 0);
    }
    assert_int_equal(r.edges, 2);
}

static void b12_any_sequence_of_accesses_keeps_the_state_valid(void **state)
{
    uint64_t seed = 61;
    struct rig r;

    (void)state;
    rig_init(&r);
    for (unsigned i = 0; i < 200000; i++) {
        uint64_t x = test_random(&seed);
        const struct tn_gpio_state *s = &r.gpio.state;

        if (x & 1)
            tn_gpio_set(&r.gpio, x >> 8 & 7, x >> 1 & 1);
        else
            wr(&r, x & 2 ? (x >> 8 & 0xff) << 2 : TN_GPIO_DIR + (x >> 8) % 9 * 4, x >> 16);
        if (!tn_gpio_valid_(s))
            fail();
        assert_int_equal(r.line, (rd(&r, TN_GPIO_RIS) & s->ie) != 0);
        assert_int_equal(rd(&r, TN_GPIO_MIS), rd(&r, TN_GPIO_RIS) & s->ie);
    }
    assert_true(r.edges > 100);
}

static void save_and_restore_give_the_same_lines(void **state)
{
    struct tn_gpio_state a, b;
    struct rig r, s;

    (void)state;
    rig_init(&r);
    rig_init(&s);
    wr(&r, TN_GPIO_DIR, 0x40);
    wr(&r, 0x3fc, 0x40);
    wr(&r, TN_GPIO_IBE, BIT);
    wr(&r, TN_GPIO_IE, BIT);
    wr(&r, TN_GPIO_AFSEL, 0x11);
    tn_gpio_set(&r.gpio, POWER, true);
    tn_gpio_save(&r.gpio, &a);
    assert_int_equal(tn_gpio_restore(&s.gpio, &a), 0);
    assert_true(s.line);
    tn_gpio_save(&s.gpio, &b);
    assert_memory_equal(&a, &b, sizeof(a));
    assert_int_equal(rd(&s, 0x3fc), 0x48);
    wr(&s, TN_GPIO_IC, BIT);
    tn_gpio_set(&s.gpio, POWER, true); /* it is high already */
    assert_false(s.line);
    tn_gpio_set(&s.gpio, POWER, false);
    assert_true(s.line);
}

static void e01_e03_a_crafted_state_is_refused(void **state)
{
    struct tn_gpio_state good, bad, after;
    struct rig r;

    (void)state;
    rig_init(&r);
    wr(&r, TN_GPIO_IBE, BIT);
    wr(&r, TN_GPIO_IE, BIT);
    tn_gpio_save(&r.gpio, &good);
    for (size_t i = 0; i < sizeof(bad.zero); i++) {
        bad = good;
        bad.edges = BIT;
        bad.zero[i] = 1;
        assert_int_equal(tn_gpio_restore(&r.gpio, &bad), TN_EFORMAT);
        tn_gpio_save(&r.gpio, &after);
        assert_memory_equal(&good, &after, sizeof(good));
        assert_false(r.line);
    }
    bad = good;
    bad.version++;
    assert_int_equal(tn_gpio_restore(&r.gpio, &bad), TN_EUNSUP);
    bad.version = 0;
    assert_int_equal(tn_gpio_restore(&r.gpio, &bad), TN_EUNSUP);
    assert_int_equal(tn_gpio_restore(&r.gpio, &good), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(irq_is_needed),
        cmocka_unit_test(b03_other_accesses_do_nothing),
        cmocka_unit_test(b03_of_wider_values_the_low_byte_counts),
        cmocka_unit_test(registers_that_are_read_only_stay),
        cmocka_unit_test(it_is_an_arm_pl061),
        cmocka_unit_test(the_reset_state_is_zero),
        cmocka_unit_test(registers_keep_what_is_written),
        cmocka_unit_test(the_address_says_of_which_lines),
        cmocka_unit_test(outputs_are_what_the_guest_drives),
        cmocka_unit_test(there_are_eight_lines),
        cmocka_unit_test(edges_are_those_asked_for),
        cmocka_unit_test(an_edge_stays_until_it_is_cleared),
        cmocka_unit_test(a_level_lasts_as_long_as_it_is),
        cmocka_unit_test(the_mask_gates_the_line_only),
        cmocka_unit_test(reset_leaves_the_wires),
        cmocka_unit_test(linux_uses_it),
        cmocka_unit_test(b12_any_sequence_of_accesses_keeps_the_state_valid),
        cmocka_unit_test(save_and_restore_give_the_same_lines),
        cmocka_unit_test(e01_e03_a_crafted_state_is_refused),
    };

    return cmocka_run_group_tests_name("gpio", tests, NULL, NULL);
}
