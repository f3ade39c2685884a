/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_rtc.h"

#include "test.h"

#define NOW 1800000000ull /* in 2027 */
#define MOD 0x100000000ull

struct rig {
    struct tn_rtc rtc;
    uint64_t now;
    bool line;
    unsigned edges; /* rising ones */
    uint64_t wake;
    unsigned wakes; /* calls */
};

static uint64_t rig_now(void *ctx)
{
    return ((struct rig *)ctx)->now;
}

static void rig_irq(void *ctx, bool level)
{
    struct rig *r = ctx;

    assert_true(level != r->line); /* only changes are told */
    r->line = level;
    r->edges += level;
}

static void rig_wake(void *ctx, uint64_t seconds)
{
    struct rig *r = ctx;

    r->wake = seconds;
    r->wakes++;
}

static void rig_init(struct rig *r)
{
    struct tn_rtc_cfg cfg = {r, rig_now, rig_irq, rig_wake};

    memset(r, 0, sizeof(*r));
    r->now = NOW;
    r->wake = TN_RTC_NEVER;
    assert_int_equal(tn_rtc_init(&r->rtc, &cfg), 0);
}

static uint64_t rd(struct rig *r, uint64_t off)
{
    return tn_rtc_read(&r->rtc, off, 4);
}

static void wr(struct rig *r, uint64_t off, uint64_t value)
{
    tn_rtc_write(&r->rtc, off, 4, value);
}

/* An alarm so many seconds from now, as Linux's driver sets it. */
static void alarm_in(struct rig *r, uint32_t seconds)
{
    wr(r, TN_RTC_MR, rd(r, TN_RTC_DR) + seconds);
    wr(r, TN_RTC_ICR, TN_RTC_INTR);
    wr(r, TN_RTC_IMSC, TN_RTC_INTR);
}

static void now_and_irq_are_needed(void **state)
{
    struct tn_rtc_cfg cfg = {NULL, NULL, rig_irq, rig_wake};
    struct tn_rtc rtc;

    (void)state;
    assert_int_equal(tn_rtc_init(&rtc, &cfg), TN_EINVAL);
    cfg.now = rig_now;
    cfg.irq = NULL;
    assert_int_equal(tn_rtc_init(&rtc, &cfg), TN_EINVAL);
}

static void b03_other_accesses_do_nothing(void **state)
{
    static const uint64_t offs[] = {0x001, 0x002,   0x003,      0x005,     0x00a,  0x01d,
                                    0x01e, 0x020,   0x024,      0x080,     0x084,  0xfdc,
                                    0xfe1, 0xfe2,   0xfff,      0x1000,    0x1004, 0x1fe0,
                                    MOD,   MOD + 4, 1ull << 63, ~0ull - 3, ~0ull};
    static const unsigned widths[] = {0, 1, 2, 3, 5, 8, 16, ~0u};
    struct tn_rtc_state before, after;
    struct rig r;

    (void)state;
    rig_init(&r);
    wr(&r, TN_RTC_MR, 0x12345678);
    wr(&r, TN_RTC_LR, 0x9abcdef0);
    tn_rtc_save(&r.rtc, &before);
    for (size_t i = 0; i < COUNT(offs); i++) {
        assert_int_equal(rd(&r, offs[i]), 0);
        wr(&r, offs[i], ~0ull);
    }
    for (size_t i = 0; i < COUNT(widths); i++) {
        for (uint64_t off = 0; off < TN_RTC_SIZE; off++) {
            assert_int_equal(tn_rtc_read(&r.rtc, off, widths[i]), 0);
            tn_rtc_write(&r.rtc, off, widths[i], ~0ull);
        }
    }
    tn_rtc_save(&r.rtc, &after);
    assert_memory_equal(&before, &after, sizeof(before));
    assert_int_equal(r.wakes, 0);
    assert_int_equal(r.edges, 0);
}

static void registers_that_are_read_only_stay(void **state)
{
    static const uint64_t offs[] = {TN_RTC_DR, TN_RTC_CR, TN_RTC_RIS, TN_RTC_MIS};
    struct tn_rtc_state before, after;
    struct rig r;

    (void)state;
    rig_init(&r);
    tn_rtc_save(&r.rtc, &before);
    for (size_t i = 0; i < COUNT(offs); i++) {
        wr(&r, offs[i], 0);
        wr(&r, offs[i], ~0ull);
    }
    for (uint64_t off = TN_RTC_ID; off < TN_RTC_SIZE; off += 4)
        wr(&r, off, ~0ull);
    tn_rtc_save(&r.rtc, &after);
    assert_memory_equal(&before, &after, sizeof(before));
    assert_int_equal(rd(&r, TN_RTC_CR), 1);
    assert_int_equal(rd(&r, TN_RTC_ICR), 0); /* write only */
}

/* As the AMBA bus puts the two identities together. */
static void it_is_an_arm_pl031(void **state)
{
    struct rig r;
    uint32_t pid = 0, cid = 0;

    (void)state;
    rig_init(&r);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(rd(&r, 0xfe0 + 4 * i) < 256);
        assert_true(rd(&r, 0xff0 + 4 * i) < 256);
        pid |= (uint32_t)rd(&r, 0xfe0 + 4 * i) << 8 * i;
        cid |= (uint32_t)rd(&r, 0xff0 + 4 * i) << 8 * i;
    }
    assert_int_equal(pid, 0x00041031);
    assert_int_equal(cid, 0xb105f00d);
}

static void the_reset_state_is_the_time_of_day(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    assert_int_equal(rd(&r, TN_RTC_DR), NOW);
    assert_int_equal(rd(&r, TN_RTC_MR), 0);
    assert_int_equal(rd(&r, TN_RTC_LR), 0);
    assert_int_equal(rd(&r, TN_RTC_CR), 1);
    assert_int_equal(rd(&r, TN_RTC_IMSC), 0);
    assert_int_equal(rd(&r, TN_RTC_RIS), 0);
    assert_int_equal(rd(&r, TN_RTC_MIS), 0);
    r.now += 86400;
    assert_int_equal(rd(&r, TN_RTC_DR), NOW + 86400);
    assert_int_equal(r.wakes, 0); /* nobody is woken for a clock that is only read */
}

static void the_guest_sets_the_clock(void **state)
{
    static const uint32_t value[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, NOW - 1, NOW + 1};
    struct rig r;

    (void)state;
    for (size_t i = 0; i < COUNT(value); i++) {
        rig_init(&r);
        wr(&r, TN_RTC_LR, value[i] | 0xabcd00000000ull); /* the high half is not there */
        assert_int_equal(rd(&r, TN_RTC_DR), value[i]);
        assert_int_equal(rd(&r, TN_RTC_LR), value[i]);
        r.now += 100;
        assert_int_equal(rd(&r, TN_RTC_DR), (uint32_t)(value[i] + 100));
        assert_int_equal(rd(&r, TN_RTC_LR), value[i]);
        tn_rtc_reset(&r.rtc);
        assert_int_equal(rd(&r, TN_RTC_DR), NOW + 100);
        assert_int_equal(rd(&r, TN_RTC_LR), 0);
    }
}

static void the_alarm_comes_at_its_second(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    alarm_in(&r, 60);
    assert_int_equal(rd(&r, TN_RTC_MR), NOW + 60);
    assert_int_equal(r.wakes, 1);
    assert_int_equal(r.wake, NOW + 60);
    r.now += 59;
    assert_int_equal(rd(&r, TN_RTC_RIS), 0);
    assert_false(r.line);
    r.now += 1;
    tn_rtc_tick(&r.rtc);
    assert_true(r.line);
    assert_int_equal(rd(&r, TN_RTC_RIS), 1);
    assert_int_equal(rd(&r, TN_RTC_MIS), 1);
    assert_int_equal(r.wake, TN_RTC_NEVER);
    wr(&r, TN_RTC_ICR, 2); /* not its bit */
    assert_true(r.line);
    wr(&r, TN_RTC_ICR, TN_RTC_INTR);
    assert_false(r.line); /* and not at once again, in the same second */
    assert_int_equal(rd(&r, TN_RTC_RIS), 0);
    r.now += 1000;
    tn_rtc_tick(&r.rtc);
    assert_int_equal(r.edges, 1);
}

static void a_tick_may_be_late_or_missing(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    alarm_in(&r, 60);
    r.now += 3600;
    tn_rtc_tick(&r.rtc);
    assert_true(r.line);
    rig_init(&r);
    alarm_in(&r, 60);
    r.now += 61;
    assert_int_equal(rd(&r, TN_RTC_MIS), 1); /* any access tells */
    assert_true(r.line);
    rig_init(&r);
    alarm_in(&r, 60);
    r.now += 61;
    wr(&r, TN_RTC_MR, NOW + 200); /* too late to take it back */
    assert_true(r.line);
    rig_init(&r);
    alarm_in(&r, 60);
    r.now += 3 * MOD; /* once in each turn of the count, but they are one */
    tn_rtc_tick(&r.rtc);
    assert_int_equal(r.edges, 1);
    wr(&r, TN_RTC_ICR, TN_RTC_INTR);
    assert_int_equal(r.wake, NOW + 60 + 3 * MOD);
}

static void a_tick_that_is_early_asks_again(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    tn_rtc_tick(&r.rtc);
    assert_int_equal(r.wakes, 0); /* there is no alarm */
    alarm_in(&r, 60);
    r.now += 59;
    r.wake = 0;
    tn_rtc_tick(&r.rtc);
    assert_int_equal(r.wake, NOW + 60);
    assert_int_equal(r.wakes, 2);
    assert_false(r.line);
    r.now += 1;
    tn_rtc_tick(&r.rtc);
    assert_int_equal(r.wakes, 3);
    assert_int_equal(r.wake, TN_RTC_NEVER);
    tn_rtc_tick(&r.rtc);
    assert_int_equal(r.wakes, 3);
}

static void the_mask_gates_the_line_only(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    wr(&r, TN_RTC_MR, NOW + 5);
    assert_int_equal(r.wakes, 0); /* nobody waits for it */
    r.now += 5;
    tn_rtc_tick(&r.rtc);
    assert_int_equal(rd(&r, TN_RTC_RIS), 1);
    assert_int_equal(rd(&r, TN_RTC_MIS), 0);
    assert_false(r.line);
    wr(&r, TN_RTC_IMSC, 0xffffffff);
    assert_int_equal(rd(&r, TN_RTC_IMSC), 1);
    assert_true(r.line);
    wr(&r, TN_RTC_IMSC, 0xfffffffe);
    assert_int_equal(rd(&r, TN_RTC_IMSC), 0);
    assert_false(r.line);
    assert_int_equal(rd(&r, TN_RTC_RIS), 1);
    assert_int_equal(r.wakes, 0);
}

static void the_mask_says_whether_to_wake(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    alarm_in(&r, 60);
    wr(&r, TN_RTC_IMSC, 0);
    assert_int_equal(r.wake, TN_RTC_NEVER);
    wr(&r, TN_RTC_IMSC, 1);
    assert_int_equal(r.wake, NOW + 60);
    wr(&r, TN_RTC_MR, NOW + 30);
    assert_int_equal(r.wake, NOW + 30);
    assert_int_equal(r.wakes, 4);
    wr(&r, TN_RTC_MR, NOW + 30); /* nothing new */
    assert_int_equal(r.wakes, 4);
    wr(&r, TN_RTC_LR, NOW + 10); /* the count is nearer now */
    assert_int_equal(r.wake, NOW + 20);
    tn_rtc_reset(&r.rtc);
    assert_int_equal(r.wake, TN_RTC_NEVER);
}

static void a_count_that_is_the_match_raises_it_at_once(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    wr(&r, TN_RTC_IMSC, 1);
    wr(&r, TN_RTC_MR, NOW);
    assert_true(r.line);
    rig_init(&r);
    wr(&r, TN_RTC_IMSC, 1);
    wr(&r, TN_RTC_MR, 77);
    assert_false(r.line);
    wr(&r, TN_RTC_LR, 77);
    assert_true(r.line);
    rig_init(&r);
    wr(&r, TN_RTC_IMSC, 1);
    wr(&r, TN_RTC_MR, NOW - 1); /* passed: it comes in 136 years */
    assert_false(r.line);
    assert_int_equal(r.wake, NOW - 1 + MOD);
    wr(&r, TN_RTC_LR, NOW + 100); /* a load is no passing of time */
    wr(&r, TN_RTC_MR, NOW + 200);
    wr(&r, TN_RTC_LR, NOW + 300);
    assert_false(r.line);
}

static void the_count_wraps_after_32_bits(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    r.now = MOD - 10;
    alarm_in(&r, 20); /* as 32 bits: 10 */
    assert_int_equal(rd(&r, TN_RTC_MR), 10);
    assert_int_equal(r.wake, MOD + 10);
    r.now += 10;
    assert_int_equal(rd(&r, TN_RTC_DR), 0);
    assert_false(r.line);
    r.now += 10;
    tn_rtc_tick(&r.rtc);
    assert_true(r.line);
}

static void the_callers_clock_may_step_or_be_absurd(void **state)
{
    static const uint64_t now[] = {0, MOD - 1, MOD, 1ull << 62, 1ull << 63, UINT64_MAX};
    struct rig r;

    (void)state;
    rig_init(&r);
    alarm_in(&r, 60);
    r.now += 60;
    tn_rtc_tick(&r.rtc);
    wr(&r, TN_RTC_ICR, TN_RTC_INTR);
    r.now -= 120; /* back: it was raised already */
    assert_int_equal(rd(&r, TN_RTC_DR), NOW - 60);
    r.now += 60;
    tn_rtc_tick(&r.rtc);
    r.now += 60;
    tn_rtc_tick(&r.rtc);
    assert_int_equal(r.edges, 1);
    for (size_t i = 0; i < COUNT(now); i++) {
        rig_init(&r);
        alarm_in(&r, 60);
        r.now = now[i];
        tn_rtc_tick(&r.rtc);
        assert_int_equal(r.line, now[i] >= NOW + 60);
        wr(&r, TN_RTC_LR, 42);
        assert_int_equal(rd(&r, TN_RTC_DR), 42);
        wr(&r, TN_RTC_MR, 41);
        assert_true(tn_rtc_valid_(&r.rtc.state));
    }
}

static void wake_may_be_missing(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    r.rtc.cfg.wake = NULL;
    alarm_in(&r, 1);
    tn_rtc_tick(&r.rtc);
    assert_false(r.line);
    r.now++;
    tn_rtc_tick(&r.rtc);
    assert_true(r.line);
    assert_int_equal(r.wakes, 0);
}

static void reset_takes_the_alarm_away(void **state)
{
    struct tn_rtc_state saved, fresh;
    struct rig r;

    (void)state;
    rig_init(&r);
    tn_rtc_save(&r.rtc, &fresh);
    wr(&r, TN_RTC_LR, 1000);
    alarm_in(&r, 1);
    r.now++;
    tn_rtc_tick(&r.rtc);
    assert_true(r.line);
    r.now--;
    tn_rtc_reset(&r.rtc);
    assert_false(r.line);
    tn_rtc_save(&r.rtc, &saved);
    assert_memory_equal(&saved, &fresh, sizeof(saved));
}

/* What Linux's driver does: start, set the time, an alarm, its interrupt, read it all back. */
static void linux_uses_it(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    wr(&r, TN_RTC_CR, rd(&r, TN_RTC_CR) | 1);
    assert_int_equal(rd(&r, TN_RTC_DR), NOW);
    wr(&r, TN_RTC_LR, NOW + 7);
    assert_int_equal(rd(&r, TN_RTC_DR), NOW + 7);
    wr(&r, TN_RTC_MR, NOW + 10);
    wr(&r, TN_RTC_ICR, 1);
    wr(&r, TN_RTC_IMSC, rd(&r, TN_RTC_IMSC) | 1);
    assert_int_equal(rd(&r, TN_RTC_MR), NOW + 10);
    assert_int_equal(r.wake, NOW + 3);
    r.now = r.wake;
    tn_rtc_tick(&r.rtc);
    assert_true(r.line);
    assert_int_equal(rd(&r, TN_RTC_MIS), 1);
    wr(&r, TN_RTC_ICR, 1);
    assert_false(r.line);
    wr(&r, TN_RTC_IMSC, rd(&r, TN_RTC_IMSC) & ~1ull);
    assert_int_equal(r.wake, TN_RTC_NEVER);
    assert_int_equal(r.edges, 1);
}

static void b12_any_sequence_of_accesses_keeps_the_state_valid(void **state)
{
    uint64_t seed = 31;
    struct rig r;

    (void)state;
    rig_init(&r);
    for (unsigned i = 0; i < 200000; i++) {
        uint64_t x = test_random(&seed);
        uint64_t off = x % 9 * 4, value = x >> 16 & 0xff;

        switch (x >> 4 & 3) {
        case 0:
            rd(&r, off);
            break;
        case 1:
            wr(&r, off, off == TN_RTC_MR || off == TN_RTC_LR ? NOW + value : value);
            break;
        case 2:
            r.now += value;
            break;
        default:
            tn_rtc_tick(&r.rtc);
            break;
        }
        if (!tn_rtc_valid_(&r.rtc.state))
            fail();
        assert_int_equal(r.line, r.rtc.state.imsc && r.rtc.state.ris);
    }
    assert_true(r.edges > 100);
}

static void save_and_restore_give_the_same_clock(void **state)
{
    struct tn_rtc_state a, b;
    struct rig r, s;

    (void)state;
    rig_init(&r);
    rig_init(&s);
    wr(&r, TN_RTC_LR, 5000);
    alarm_in(&r, 60);
    tn_rtc_save(&r.rtc, &a);
    assert_int_equal(tn_rtc_restore(&s.rtc, &a), 0);
    tn_rtc_save(&s.rtc, &b);
    assert_memory_equal(&a, &b, sizeof(a));
    assert_int_equal(s.wake, NOW + 60);
    assert_int_equal(rd(&s, TN_RTC_DR), 5000);
    assert_int_equal(rd(&s, TN_RTC_LR), 5000);
    assert_int_equal(rd(&s, TN_RTC_MR), 5060);
    s.now += 60;
    tn_rtc_tick(&s.rtc);
    assert_true(s.line);
    tn_rtc_save(&s.rtc, &a); /* with the alarm raised */
    r.now += 60;
    assert_int_equal(tn_rtc_restore(&r.rtc, &a), 0);
    assert_true(r.line);
    assert_int_equal(r.wake, TN_RTC_NEVER);
}

static void e06_an_alarm_of_the_meantime_is_not_lost(void **state)
{
    struct tn_rtc_state a;
    struct rig r, s;

    (void)state;
    rig_init(&r);
    alarm_in(&r, 60);
    tn_rtc_save(&r.rtc, &a);
    rig_init(&s);
    s.now += 86400;
    assert_int_equal(tn_rtc_restore(&s.rtc, &a), 0);
    assert_true(s.line);
    assert_int_equal(rd(&s, TN_RTC_DR), NOW + 86400); /* the time is right, too */
    rig_init(&s);
    s.now += 86400;
    wr(&r, TN_RTC_IMSC, 0); /* the same, but masked */
    tn_rtc_save(&r.rtc, &a);
    assert_int_equal(tn_rtc_restore(&s.rtc, &a), 0);
    assert_false(s.line);
    assert_int_equal(rd(&s, TN_RTC_RIS), 1);
}

static void e01_e03_a_crafted_state_is_refused(void **state)
{
    static const struct {
        size_t at;
        uint8_t value;
    } row[] = {
        {offsetof(struct tn_rtc_state, match), 0xfe},
        {offsetof(struct tn_rtc_state, offset), 1},
        {offsetof(struct tn_rtc_state, offset) + 3, 0x80},
        {offsetof(struct tn_rtc_state, alarm), 0},
        {offsetof(struct tn_rtc_state, alarm) + 7, 0x81},
        {offsetof(struct tn_rtc_state, alarm) + 7, 0xff},
        {offsetof(struct tn_rtc_state, imsc), 2},
        {offsetof(struct tn_rtc_state, imsc), 0xff},
        {offsetof(struct tn_rtc_state, ris), 2},
        {offsetof(struct tn_rtc_state, ris), 0xff},
        {offsetof(struct tn_rtc_state, zero), 1},
        {offsetof(struct tn_rtc_state, zero) + 5, 0x80},
    };
    struct tn_rtc_state good, bad, after;
    struct rig r;

    (void)state;
    assert_int_equal(sizeof(good), 32); /* no padding: what is saved is all there is */
    rig_init(&r);
    alarm_in(&r, 60);
    tn_rtc_save(&r.rtc, &good);
    for (size_t i = 0; i < COUNT(row); i++) {
        bad = good;
        assert_true(((uint8_t *)&bad)[row[i].at] != row[i].value);
        ((uint8_t *)&bad)[row[i].at] = row[i].value;
        assert_int_equal(tn_rtc_restore(&r.rtc, &bad), TN_EFORMAT);
        tn_rtc_save(&r.rtc, &after);
        assert_memory_equal(&good, &after, sizeof(good));
        assert_false(r.line);
        assert_int_equal(r.wakes, 1);
    }
    bad = good;
    bad.version++;
    assert_int_equal(tn_rtc_restore(&r.rtc, &bad), TN_EUNSUP);
    bad.version = 0;
    assert_int_equal(tn_rtc_restore(&r.rtc, &bad), TN_EUNSUP);
    assert_int_equal(tn_rtc_restore(&r.rtc, &good), 0);
}

/* Of an alarm at the end of all time nothing wraps. */
static void e03_the_latest_alarm_is_only_late(void **state)
{
    struct tn_rtc_state s;
    struct rig r;

    (void)state;
    rig_init(&r);
    wr(&r, TN_RTC_IMSC, 1);
    tn_rtc_save(&r.rtc, &s);
    s.alarm = 1ull << 63;
    s.match = 0;
    assert_int_equal(tn_rtc_restore(&r.rtc, &s), 0);
    assert_int_equal(r.wake, 1ull << 63);
    r.now = UINT64_MAX;
    tn_rtc_tick(&r.rtc);
    assert_false(r.line);
    wr(&r, TN_RTC_MR, 5);
    assert_int_equal(r.wake, (1ull << 62) + 5);
    s.alarm = (1ull << 63) + MOD;
    assert_int_equal(tn_rtc_restore(&r.rtc, &s), TN_EFORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(now_and_irq_are_needed),
        cmocka_unit_test(b03_other_accesses_do_nothing),
        cmocka_unit_test(registers_that_are_read_only_stay),
        cmocka_unit_test(it_is_an_arm_pl031),
        cmocka_unit_test(the_reset_state_is_the_time_of_day),
        cmocka_unit_test(the_guest_sets_the_clock),
        cmocka_unit_test(the_alarm_comes_at_its_second),
        cmocka_unit_test(a_tick_may_be_late_or_missing),
        cmocka_unit_test(a_tick_that_is_early_asks_again),
        cmocka_unit_test(the_mask_gates_the_line_only),
        cmocka_unit_test(the_mask_says_whether_to_wake),
        cmocka_unit_test(a_count_that_is_the_match_raises_it_at_once),
        cmocka_unit_test(the_count_wraps_after_32_bits),
        cmocka_unit_test(the_callers_clock_may_step_or_be_absurd),
        cmocka_unit_test(wake_may_be_missing),
        cmocka_unit_test(reset_takes_the_alarm_away),
        cmocka_unit_test(linux_uses_it),
        cmocka_unit_test(b12_any_sequence_of_accesses_keeps_the_state_valid),
        cmocka_unit_test(save_and_restore_give_the_same_clock),
        cmocka_unit_test(e06_an_alarm_of_the_meantime_is_not_lost),
        cmocka_unit_test(e01_e03_a_crafted_state_is_refused),
        cmocka_unit_test(e03_the_latest_alarm_is_only_late),
    };

    return cmocka_run_group_tests_name("rtc", tests, NULL, NULL);
}
