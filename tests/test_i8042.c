/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_i8042.h"

#include "test.h"

struct rig {
    struct tn_i8042 dev;
    bool line;
    unsigned edges; /* rising ones */
    unsigned resets;
};

static void rig_reset(void *ctx)
{
    struct rig *r = ctx;

    r->resets++;
}

static void rig_irq(void *ctx, bool level)
{
    struct rig *r = ctx;

    assert_true(level != r->line); /* only changes are told */
    r->line = level;
    r->edges += level;
}

static void rig_init(struct rig *r)
{
    struct tn_i8042_cfg cfg = {r, rig_reset, rig_irq};

    memset(r, 0, sizeof(*r));
    assert_int_equal(tn_i8042_init(&r->dev, &cfg), 0);
}

static uint8_t status(struct rig *r)
{
    return tn_i8042_read(&r->dev, TN_I8042_STATUS);
}

static uint8_t data(struct rig *r)
{
    return tn_i8042_read(&r->dev, TN_I8042_DATA);
}

static void command(struct rig *r, unsigned value)
{
    tn_i8042_write(&r->dev, TN_I8042_COMMAND, (uint8_t)value);
}

static void put(struct rig *r, unsigned value)
{
    tn_i8042_write(&r->dev, TN_I8042_DATA, (uint8_t)value);
}

/* Reads what waits, and compares. */
static void expect(struct rig *r, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        assert_true(status(r) & TN_I8042_STATUS_OBF);
        assert_int_equal(data(r), (uint8_t)bytes[i]);
    }
    assert_false(status(r) & TN_I8042_STATUS_OBF);
    assert_false(r->line);
}

static void both_callbacks_are_needed(void **state)
{
    struct tn_i8042_cfg cfg = {NULL, NULL, rig_irq};
    struct tn_i8042 dev;

    (void)state;
    assert_int_equal(tn_i8042_init(&dev, &cfg), TN_EINVAL);
    cfg.reset = rig_reset;
    cfg.irq = NULL;
    assert_int_equal(tn_i8042_init(&dev, &cfg), TN_EINVAL);
}

static void b03_other_offsets_do_nothing(void **state)
{
    static const unsigned offs[] = {1, 2, 3, 5, 6, 7, 8, 0x60, 0x64, 0x80000000u, ~0u};
    struct tn_i8042_state before, after;
    struct rig r;

    (void)state;
    rig_init(&r);
    tn_i8042_save(&r.dev, &before);
    for (size_t i = 0; i < COUNT(offs); i++) {
        assert_int_equal(tn_i8042_read(&r.dev, offs[i]), 0xff);
        tn_i8042_write(&r.dev, offs[i], 0xfe);
    }
    tn_i8042_save(&r.dev, &after);
    assert_memory_equal(&before, &after, sizeof(before));
    assert_int_equal(r.resets, 0);
}

/* One row: what is written (0x1xx to the command port), and all that is read afterwards. */
static void commands_are_answered(void **state)
{
    static const struct {
        unsigned in[4];
        unsigned n;
        const char *out;
        size_t len;
    } row[] = {
        {{0x120}, 1, "\x65", 1}, /* command byte */
        {{0x121}, 1, "\0", 1},   /* memory */
        {{0x13f}, 1, "\0", 1},
        {{0x160, 0x00, 0x120}, 3, "\x20", 1}, /* AUXDIS stays */
        {{0x160, 0xff, 0x120}, 3, "\x7f", 1}, /* bit 7 does not */
        {{0x161, 0xfe}, 2, "", 0},            /* not for the keyboard */
        {{0x1a7}, 1, "", 0},                  /* mouse off, on */
        {{0x1a8, 0x120}, 2, "\x65", 1},
        {{0x1a9}, 1, "\x02", 1},               /* mouse test */
        {{0x1aa}, 1, "\x55", 1},               /* self test */
        {{0x1ab}, 1, "\0", 1},                 /* keyboard test */
        {{0x1ad, 0x120}, 2, "\x75", 1},        /* keyboard off */
        {{0x1ad, 0x1ae, 0x120}, 3, "\x65", 1}, /* and on */
        {{0x1c0}, 1, "\x80", 1},               /* input port */
        {{0x1d0}, 1, "\xcf", 1},               /* output port */
        {{0x1d1, 0xdd, 0x1d0}, 3, "\xdd", 1},
        {{0x1d2, 0x5a}, 2, "\x5a", 1}, /* keyboard's buffer */
        {{0x1d3, 0x5a}, 2, "\x5a", 1}, /* mouse's */
        {{0x1d4, 0xff}, 2, "", 0},     /* the mouse */
        {{0x1e0}, 1, "\0", 1},         /* test inputs */
        {{0x100}, 1, "", 0},           /* unknown */
        {{0x1ef}, 1, "", 0},
        {{0x1ff}, 1, "", 0},              /* pulses nothing */
        {{0x160, 0x1aa}, 2, "\x55", 1},   /* a command ends the wait for a byte */
        {{0xff}, 1, "\xfa\xaa", 2},       /* keyboard: reset */
        {{0xf2}, 1, "\xfa\xab\x83", 3},   /* identify */
        {{0xee}, 1, "\xee", 1},           /* echo */
        {{0xed, 0x07}, 2, "\xfa\xfa", 2}, /* LEDs */
        {{0xed, 0xfe}, 2, "\xfa\xfa", 2},
        {{0xf3, 0x00}, 2, "\xfa\xfa", 2},     /* rate */
        {{0xf4}, 1, "\xfa", 1},               /* enable */
        {{0xf5}, 1, "\xfa", 1},               /* disable */
        {{0xf6}, 1, "\xfa", 1},               /* defaults */
        {{0xf0, 0x00}, 2, "\xfa\xfa\x02", 3}, /* scan code set */
        {{0xf0, 0x03}, 2, "\xfa\xfe", 2},
        {{0xf0, 0x01, 0xf0, 0x00}, 4, "\xfa\xfa\xfa\xfa\x01", 5},
        {{0x00}, 1, "\xfe", 1}, /* unknown */
        {{0xfb}, 1, "\xfe", 1},
    };
    struct rig r;

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        rig_init(&r);
        for (unsigned j = 0; j < row[i].n; j++)
            tn_i8042_write(&r.dev, row[i].in[j] >> 8 ? 4 : 0, (uint8_t)row[i].in[j]);
        expect(&r, row[i].out, row[i].len);
        assert_int_equal(r.resets, 0);
    }
}

static void the_status_register_tells(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    assert_int_equal(status(&r), TN_I8042_STATUS_SYS | TN_I8042_STATUS_KEYLOCK);
    command(&r, 0x60);
    assert_int_equal(status(&r), 0x1c);
    put(&r, 0x00); /* SYS follows the command byte */
    assert_int_equal(status(&r), 0x10);
    command(&r, 0xaa);
    assert_int_equal(status(&r), 0x1d);
    assert_int_equal(data(&r), 0x55);
    assert_int_equal(status(&r), 0x1c);
}

static void the_guest_resets_the_machine(void **state)
{
    struct rig r;
    unsigned want = 0;

    (void)state;
    rig_init(&r);
    for (unsigned value = 0; value < 256; value++) {
        command(&r, value);
        want += value >= 0xf0 && value % 2 == 0;
        assert_int_equal(r.resets, want);
    }
    for (unsigned value = 0; value < 256; value++) {
        command(&r, 0xd1);
        put(&r, value);
        want += value % 2 == 0;
        assert_int_equal(r.resets, want);
        put(&r, 0xfe); /* without the command it is the keyboard's */
        assert_int_equal(r.resets, want);
    }
}

static void resetting_reset(void *ctx)
{
    struct rig *r = ctx;

    r->resets++;
    tn_i8042_reset(&r->dev);
}

static void reset_may_reset_the_controller(void **state)
{
    struct tn_i8042_state saved, fresh;
    struct rig r;

    (void)state;
    rig_init(&r);
    tn_i8042_save(&r.dev, &fresh);
    r.dev.cfg.reset = resetting_reset;
    put(&r, 0xff);
    assert_true(r.line);
    command(&r, 0xfe);
    assert_int_equal(r.resets, 1);
    assert_false(r.line);
    tn_i8042_save(&r.dev, &saved);
    assert_memory_equal(&saved, &fresh, sizeof(saved));
}

static void b14_answers_that_are_not_read_are_bounded(void **state)
{
    struct rig r;
    unsigned n = 0;

    (void)state;
    rig_init(&r);
    for (unsigned i = 0; i < 1000; i++) {
        put(&r, 0xf2);
        command(&r, 0xd2);
        put(&r, i);
        assert_true(r.dev.state.count <= TN_I8042_FIFO);
        assert_true(tn_i8042_valid_(&r.dev.state));
    }
    while (status(&r) & TN_I8042_STATUS_OBF) {
        data(&r);
        n++;
    }
    assert_int_equal(n, TN_I8042_FIFO);
    put(&r, 0xee); /* and it works on */
    expect(&r, "\xee", 1);
}

static void b12_any_sequence_of_accesses_keeps_the_state_valid(void **state)
{
    uint64_t seed = 42;
    struct rig r;

    (void)state;
    rig_init(&r);
    for (unsigned i = 0; i < 200000; i++) {
        uint64_t x = test_random(&seed);
        unsigned off = x & 1 ? TN_I8042_DATA : TN_I8042_COMMAND;

        if ((x >> 1) % 3 == 0)
            tn_i8042_read(&r.dev, off);
        else
            tn_i8042_write(&r.dev, off, (uint8_t)(x >> 8));
        if (!tn_i8042_valid_(&r.dev.state))
            fail();
    }
}

static void each_byte_of_the_keyboard_has_its_edge(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    put(&r, 0xf2);
    for (unsigned i = 1; i <= 3; i++) {
        assert_true(r.line);
        assert_int_equal(r.edges, i);
        status(&r);
        assert_int_equal(r.edges, i);
        data(&r);
    }
    assert_false(r.line);
    assert_int_equal(data(&r), 0x83); /* nothing new: the last byte again */
    assert_int_equal(r.edges, 3);
}

static void answers_of_the_controller_do_not_interrupt(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    command(&r, 0x20);
    assert_false(r.line);
    expect(&r, "\x65", 1);
    put(&r, 0xee);
    assert_true(r.line);
    command(&r, 0xaa); /* goes ahead of the keyboard's byte */
    assert_false(r.line);
    assert_int_equal(data(&r), 0x55);
    assert_true(r.line);
    expect(&r, "\xee", 1);
    command(&r, 0x20);
    command(&r, 0xaa); /* replaces what was not read */
    expect(&r, "\x55", 1);
}

static void the_command_byte_gates_keyboard_and_line(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    command(&r, 0x60);
    put(&r, 0x40); /* no KBDINT */
    put(&r, 0xee);
    assert_false(r.line);
    assert_true(status(&r) & TN_I8042_STATUS_OBF);
    command(&r, 0x60);
    put(&r, 0x41);
    assert_true(r.line);
    command(&r, 0xad); /* the clock stops: the byte stays in the keyboard */
    assert_false(r.line);
    assert_false(status(&r) & TN_I8042_STATUS_OBF);
    command(&r, 0xae);
    assert_true(r.line);
    expect(&r, "\xee", 1);
}

static void the_keyboard_repeats_itself_on_request(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    put(&r, 0xf2);
    expect(&r, "\xfa\xab\x83", 3);
    put(&r, 0xfe);
    expect(&r, "\x83", 1);
}

static void ctrl_alt_del_comes_in_the_guests_scan_codes(void **state)
{
    static const char set1[] = "\x1d\x38\xe0\x53\xe0\xd3\xb8\x9d";
    static const char set2[] = "\x14\x11\xe0\x71\xe0\xf0\x71\xf0\x11\xf0\x14";
    struct rig r;

    (void)state;
    rig_init(&r);
    assert_int_equal(tn_i8042_ctrl_alt_del(&r.dev), 0);
    assert_true(r.line);
    expect(&r, set1, 8);
    assert_int_equal(r.edges, 8);
    command(&r, 0x60);
    put(&r, 0x05); /* no translation */
    assert_int_equal(tn_i8042_ctrl_alt_del(&r.dev), 0);
    expect(&r, set2, 11);
    put(&r, 0xf0);
    put(&r, 0x01);
    expect(&r, "\xfa\xfa", 2);
    assert_int_equal(tn_i8042_ctrl_alt_del(&r.dev), 0);
    expect(&r, set1, 8);
}

static void ctrl_alt_del_is_queued_whole_or_not_at_all(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    assert_int_equal(tn_i8042_ctrl_alt_del(&r.dev), 0);
    assert_int_equal(tn_i8042_ctrl_alt_del(&r.dev), 0);
    assert_int_equal(tn_i8042_ctrl_alt_del(&r.dev), TN_ENOSPC);
    assert_int_equal(r.dev.state.count, 16);
    data(&r);
    assert_int_equal(tn_i8042_ctrl_alt_del(&r.dev), TN_ENOSPC);
    assert_int_equal(r.dev.state.count, 15);
    rig_init(&r);
    put(&r, 0xf5);
    expect(&r, "\xfa", 1);
    assert_int_equal(tn_i8042_ctrl_alt_del(&r.dev), TN_ESTATE);
    put(&r, 0xf4);
    expect(&r, "\xfa", 1);
    command(&r, 0xad);
    assert_int_equal(tn_i8042_ctrl_alt_del(&r.dev), TN_ESTATE);
    command(&r, 0xae);
    assert_int_equal(tn_i8042_ctrl_alt_del(&r.dev), 0);
}

/* The probe of Linux's i8042 and atkbd drivers; each answer is there at once. */
static void linux_finds_a_keyboard_and_no_mouse(void **state)
{
    struct rig r;
    uint8_t ctr;

    (void)state;
    rig_init(&r);
    assert_false(status(&r) & TN_I8042_STATUS_OBF); /* flush */
    command(&r, 0xaa);
    expect(&r, "\x55", 1);
    command(&r, 0x20);
    ctr = data(&r);
    command(&r, 0x20);
    assert_int_equal(data(&r), ctr);
    assert_true(ctr & TN_I8042_CTR_XLATE);
    assert_true(status(&r) & TN_I8042_STATUS_KEYLOCK);
    command(&r, 0x60);
    put(&r, (ctr | TN_I8042_CTR_KBDDIS) & (0xffu ^ TN_I8042_CTR_KBDINT));
    /* The mouse's loopback: the byte comes, but not as the mouse's; then its test fails. */
    command(&r, 0xd3);
    put(&r, 0x5a);
    assert_int_equal(status(&r) & 0x21, TN_I8042_STATUS_OBF);
    command(&r, 0xa9);
    expect(&r, "\x02", 1);
    /* The keyboard. */
    command(&r, 0x60);
    put(&r, ctr);
    command(&r, 0x20);
    expect(&r, "\x65", 1);
    put(&r, 0xff);
    expect(&r, "\xfa\xaa", 2);
    put(&r, 0xf2);
    expect(&r, "\xfa\xab\x83", 3);
    put(&r, 0xed);
    expect(&r, "\xfa", 1);
    put(&r, 0x00);
    expect(&r, "\xfa", 1);
    put(&r, 0xf3);
    expect(&r, "\xfa", 1);
    put(&r, 0x00);
    expect(&r, "\xfa", 1);
    put(&r, 0xf4);
    expect(&r, "\xfa", 1);
    assert_int_equal(r.resets, 0);
}

static void save_and_restore_give_the_same_controller(void **state)
{
    struct tn_i8042_state a, b;
    struct rig r, s;

    (void)state;
    rig_init(&r);
    rig_init(&s);
    put(&r, 0xed);
    put(&r, 0x05);
    tn_i8042_ctrl_alt_del(&r.dev);
    put(&r, 0xf3);
    command(&r, 0x60);
    tn_i8042_save(&r.dev, &a);
    assert_int_equal(tn_i8042_restore(&s.dev, &a), 0);
    assert_true(s.line);
    tn_i8042_save(&s.dev, &b);
    assert_memory_equal(&a, &b, sizeof(a));
    put(&s, 0x65); /* the command byte that it waited for */
    put(&s, 0x20); /* the rate */
    expect(&s, "\xfa\xfa\x1d\x38\xe0\x53\xe0\xd3\xb8\x9d\xfa\xfa", 12);
}

static void e01_e03_a_crafted_state_is_refused(void **state)
{
    static const struct {
        size_t at;
        uint8_t value;
    } row[] = {
        {offsetof(struct tn_i8042_state, ctr), 0xe5},
        {offsetof(struct tn_i8042_state, ctr), 0x45},
        {offsetof(struct tn_i8042_state, outport), 0xce},
        {offsetof(struct tn_i8042_state, pending), 0x01},
        {offsetof(struct tn_i8042_state, pending), 0x5f},
        {offsetof(struct tn_i8042_state, pending), 0x80},
        {offsetof(struct tn_i8042_state, pending), 0xd0},
        {offsetof(struct tn_i8042_state, pending), 0xd5},
        {offsetof(struct tn_i8042_state, kbd), 0xff},
        {offsetof(struct tn_i8042_state, command), 2},
        {offsetof(struct tn_i8042_state, full), 2},
        {offsetof(struct tn_i8042_state, answer), 1},
        {offsetof(struct tn_i8042_state, scanning), 2},
        {offsetof(struct tn_i8042_state, set), 0},
        {offsetof(struct tn_i8042_state, set), 3},
        {offsetof(struct tn_i8042_state, leds), 8},
        {offsetof(struct tn_i8042_state, count), 1},
        {offsetof(struct tn_i8042_state, count), 17},
        {offsetof(struct tn_i8042_state, count), 0xff},
        {offsetof(struct tn_i8042_state, zero) + 1, 1},
        {offsetof(struct tn_i8042_state, fifo) + 15, 1},
    };
    struct tn_i8042_state good, bad, after;
    struct rig r;

    (void)state;
    assert_int_equal(sizeof(good), 36); /* no padding: what is saved is all there is */
    rig_init(&r);
    put(&r, 0xf2);
    tn_i8042_save(&r.dev, &good);
    for (size_t i = 0; i < COUNT(row); i++) {
        bad = good;
        ((uint8_t *)&bad)[row[i].at] = row[i].value;
        assert_int_equal(tn_i8042_restore(&r.dev, &bad), TN_EFORMAT);
        tn_i8042_save(&r.dev, &after);
        assert_memory_equal(&good, &after, sizeof(good));
    }
    bad = good;
    bad.version++;
    assert_int_equal(tn_i8042_restore(&r.dev, &bad), TN_EUNSUP);
    assert_int_equal(tn_i8042_restore(&r.dev, &good), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_callbacks_are_needed),
        cmocka_unit_test(b03_other_offsets_do_nothing),
        cmocka_unit_test(commands_are_answered),
        cmocka_unit_test(the_status_register_tells),
        cmocka_unit_test(the_guest_resets_the_machine),
        cmocka_unit_test(reset_may_reset_the_controller),
        cmocka_unit_test(b14_answers_that_are_not_read_are_bounded),
        cmocka_unit_test(b12_any_sequence_of_accesses_keeps_the_state_valid),
        cmocka_unit_test(each_byte_of_the_keyboard_has_its_edge),
        cmocka_unit_test(answers_of_the_controller_do_not_interrupt),
        cmocka_unit_test(the_command_byte_gates_keyboard_and_line),
        cmocka_unit_test(the_keyboard_repeats_itself_on_request),
        cmocka_unit_test(ctrl_alt_del_comes_in_the_guests_scan_codes),
        cmocka_unit_test(ctrl_alt_del_is_queued_whole_or_not_at_all),
        cmocka_unit_test(linux_finds_a_keyboard_and_no_mouse),
        cmocka_unit_test(save_and_restore_give_the_same_controller),
        cmocka_unit_test(e01_e03_a_crafted_state_is_refused),
    };

    return cmocka_run_group_tests_name("i8042", tests, NULL, NULL);
}
