/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_rate.h"

#include "test.h"

#define S 1000000000ull

static struct tn_rate make(uint64_t bytes, uint64_t bytes_burst, uint64_t ops, uint64_t ops_burst,
                           uint64_t now)
{
    struct tn_rate_cfg cfg = {bytes, bytes_burst, ops, ops_burst};
    struct tn_rate r;

    memset(&r, 0xa5, sizeof(r));
    assert_int_equal(tn_rate_init(&r, &cfg, now), 0);
    return r;
}

static void a_burst_without_a_rate_is_refused(void **state)
{
    static const struct tn_rate_cfg bad[] = {{0, 1, 0, 0}, {0, 0, 0, 1}, {0, 5, 7, 0}};
    struct tn_rate r;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(tn_rate_init(&r, &bad[i], 0), TN_EINVAL);
}

static void no_state_of_a_bucket_is_refused(void **state)
{
    struct tn_rate r = make(10, 20, 3, 4, 5), before;
    struct tn_rate_state good, bad;

    (void)state;
    assert_int_equal(tn_rate_take(&r, 5, 15), 0);
    tn_rate_save(&r, 6, &good);
    before = r;
    for (int i = 0; i < 9; i++) {
        bad = good;
        switch (i) {
        case 0:
            bad.version = 0;
            break;
        case 1:
            bad.version = TN_RATE_VERSION + 1;
            break;
        case 2:
            bad.bytes_nano = TN_RATE_SECOND;
            break;
        case 3:
            bad.ops_nano = TN_RATE_SECOND;
            break;
        case 4:
            bad.ops_nano = UINT32_MAX;
            break;
        case 5:
            bad.bytes_missing = 0; /* a fraction of nothing */
            break;
        case 6:
            bad.ops_missing = 0;
            break;
        case 7:
            bad.zero = 1;
            break;
        default:
            bad.zero = 0x80000000u;
        }
        assert_int_equal(tn_rate_restore(&r, 9, &bad), i < 2 ? TN_EUNSUP : TN_EFORMAT);
        assert_memory_equal(&before, &r, sizeof(r));
    }
    assert_int_equal(tn_rate_restore(&r, 9, &good), 0);
}

static void the_wait_is_exact(void **state)
{
    static const struct {
        uint64_t rate, burst, first, then, wait;
    } row[] = {
        {1000, 1000, 1000, 1, 1000000},
        {1000, 0, 1000, 1, 1000000}, /* a burst of one second */
        {1000, 0, 999, 1, 0},
        {1000, 10, 5, 6, 1000000},
        {1000, 10, 11, 1, 2000000}, /* a debt of one byte */
        {1000, 10, 1000, 1, 991000000},
        {1000, 10, 1, 11, 1000000}, /* more than the burst: when the bucket is full */
        {3, 1, 1, 1, 333333334},    /* rounded up */
        {7, 7, 7, 1, 142857143},
        {S, S, S, 5, 5},
        {2 * S, 1, 1, 1, 1}, /* half a nanosecond */
        {UINT64_MAX, 0, UINT64_MAX, UINT64_MAX, S},
        {UINT64_MAX, 0, UINT64_MAX, 1, 1},
        {UINT64_MAX, 1, UINT64_MAX, 1, S},
        {UINT64_MAX, 1, UINT64_MAX, 0, 0},
        {UINT64_MAX - 1, 1, UINT64_MAX, 1, S + 1},
        {1, 1, 18446744073, 1, 18446744073 * S},
        {1, 1, 18446744074, 1, UINT64_MAX}, /* would be 18446744074000000000 */
        {1, 1, UINT64_MAX, 1, UINT64_MAX},
        {1, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX},
        {0, 0, UINT64_MAX, UINT64_MAX, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct tn_rate r = make(row[i].rate, row[i].burst, 0, 0, 77), copy;
        uint64_t wait;

        assert_int_equal(tn_rate_take(&r, 77, row[i].first), 0);
        copy = r;
        wait = tn_rate_take(&r, 77, row[i].then);
        assert_int_equal(wait, row[i].wait);
        if (wait == 0)
            continue;
        assert_memory_equal(&copy, &r, sizeof(r)); /* nothing was taken */
        if (wait > UINT64_MAX - 77)
            continue;
        assert_int_equal(tn_rate_take(&copy, 77 + wait - 1, row[i].then), 1);
        assert_int_equal(tn_rate_take(&copy, 77 + wait, row[i].then), 0);
        assert_int_equal(tn_rate_take(&r, 77 + wait, row[i].then), 0);
    }
}

/* Three a second, taken the very nanosecond that each is there, for eleven days. */
static void nothing_drifts(void **state)
{
    struct tn_rate r = make(0, 0, 3, 2, 0);
    uint64_t now = 0, wait, n = 0;

    (void)state;
    while (n < 3000000) {
        wait = tn_rate_take(&r, now, 0);
        if (wait == 0)
            n++;
        else
            now += wait;
    }
    assert_int_equal(now, 999999333333334); /* (n - 2) / 3 seconds, rounded up */

    /* Looking every nanosecond earns as much as looking once. */
    r = make(7, 100, 0, 0, 0);
    assert_int_equal(tn_rate_take(&r, 0, 100), 0);
    for (now = 1; now <= 1000; now++)
        assert_int_not_equal(tn_rate_take(&r, now, 100), 0);
    assert_int_equal(r.bytes.missing, 100);
    assert_int_equal(r.bytes.nano, 7000);
}

static void an_operation_larger_than_the_burst_leaves_a_debt(void **state)
{
    struct tn_rate r = make(1000, 10, 0, 0, 0);

    (void)state;
    assert_int_equal(tn_rate_take(&r, 0, 1), 0);
    assert_int_equal(tn_rate_take(&r, 0, 1010), S / 1000); /* only when it is full */
    assert_int_equal(tn_rate_take(&r, S / 1000, 1010), 0);
    assert_int_equal(tn_rate_take(&r, S / 1000, 0), 0); /* no bytes: no debt matters */
    assert_int_equal(tn_rate_take(&r, S / 1000, 1), 1001 * (S / 1000));
    assert_int_equal(tn_rate_take(&r, S / 1000, 10), 1010 * (S / 1000));
    assert_int_equal(tn_rate_take(&r, 1011 * (S / 1000), 10), 0);
}

static void both_buckets_give_or_neither(void **state)
{
    struct tn_rate r = make(1000, 100, 10, 2, 0);

    (void)state;
    assert_int_equal(tn_rate_take(&r, 0, 100), 0);
    assert_int_equal(tn_rate_take(&r, 0, 50), S / 20); /* bytes wait, the operation is not taken */
    assert_int_equal(tn_rate_take(&r, 0, 0), 0);
    assert_int_equal(tn_rate_take(&r, 0, 0), S / 10);  /* operations wait */
    assert_int_equal(tn_rate_take(&r, 0, 50), S / 10); /* the longer of the two */
    assert_int_equal(tn_rate_take(&r, 0, 100), S / 10);
    assert_int_equal(tn_rate_take(&r, S / 10, 50), 0);
    assert_int_equal(r.bytes.missing, 50);
}

static void a_clock_that_goes_back_stands_still(void **state)
{
    struct tn_rate r = make(1000, 10, 0, 0, 5000);

    (void)state;
    assert_int_equal(tn_rate_take(&r, 6000, 10), 0);
    assert_int_equal(tn_rate_take(&r, 0, 1), 6000 + S / 1000);
    assert_int_equal(tn_rate_take(&r, 5999, 1), 1 + S / 1000);
    assert_int_equal(tn_rate_take(&r, 6000 + S / 1000 - 1, 1), 1);
    assert_int_equal(tn_rate_take(&r, 3, 0), 0);
    assert_int_equal(tn_rate_take(&r, 6000 + S / 1000, 1), 0);

    r = make(1, 1, 0, 0, UINT64_MAX);
    assert_int_equal(tn_rate_take(&r, UINT64_MAX, 1), 0);
    assert_int_equal(tn_rate_take(&r, UINT64_MAX, 1), S);
    assert_int_equal(tn_rate_take(&r, 1, 1), UINT64_MAX); /* and not a sum that wraps */
}

/* Whatever happens, the result is what exact arithmetic says. */
#ifdef __SIZEOF_INT128__
typedef unsigned __int128 wide;

static void random_schedules_agree_with_wide_arithmetic(void **state)
{
    uint64_t x = 88172645463325252ull;

    (void)state;
    for (int round = 0; round < 3000; round++) {
        uint64_t rate[2], burst[2], now, want, got;
        wide lack[2] = {0, 0}; /* billionths of a token below full */
        struct tn_rate r;

        for (int b = 0; b < 2; b++) {
            rate[b] = test_random(&x) >> test_random(&x) % 64;
            burst[b] = rate[b] ? test_random(&x) >> test_random(&x) % 64 : 0;
        }
        now = test_random(&x) >> (test_random(&x) % 60 + 4);
        r = make(rate[0], burst[0], rate[1], burst[1], now);
        for (int b = 0; b < 2; b++)
            burst[b] = burst[b] ? burst[b] : rate[b];
        for (int op = 0; op < 40; op++) {
            uint64_t n[2] = {test_random(&x) >> test_random(&x) % 64, 1};
            uint64_t step = test_random(&x) >> test_random(&x) % 64;
            wide wait = 0;

            if (step > UINT64_MAX - now)
                step = 0;
            now += step;
            for (int b = 0; b < 2; b++) {
                wide gain = (wide)rate[b] * step, room, w;

                lack[b] = lack[b] > gain ? lack[b] - gain : 0;
                if (rate[b] == 0 || n[b] == 0)
                    continue;
                room = n[b] < burst[b] ? (wide)(burst[b] - n[b]) * S : 0;
                w = lack[b] > room ? (lack[b] - room + (rate[b] - 1)) / rate[b] : 0;
                wait = w > wait ? w : wait;
            }
            want = wait > UINT64_MAX ? UINT64_MAX : (uint64_t)wait;
            got = tn_rate_take(&r, now, n[0]);
            assert_int_equal(got, want);
            if (got != 0)
                continue;
            for (int b = 0; b < 2; b++)
                lack[b] += rate[b] ? (wide)n[b] * S : 0;
        }
    }
}
#else
static void random_schedules_agree_with_wide_arithmetic(void **state)
{
    (void)state;
    SKIP("this machine's compiler has no integers of 128 bits");
}
#endif

/* In any time no more passes than the burst, what came in it, and the excess of the last one. */
static void c27_no_window_lets_more_pass(void **state)
{
    enum { OPS = 300 };
    uint64_t at[OPS], size[OPS], x = 42;

    (void)state;
    for (int round = 0; round < 40; round++) {
        uint64_t rate = 1 + test_random(&x) % 5000, burst = 1 + test_random(&x) % 2000, now = 0;
        struct tn_rate r = make(rate, burst, 0, 0, 0);
        int n = 0;

        while (n < OPS) {
            uint64_t bytes = test_random(&x) % (round % 2 ? burst + 1 : 2 * burst);
            uint64_t wait = tn_rate_take(&r, now, bytes);

            if (wait == 0) {
                at[n] = now;
                size[n++] = bytes;
                now += test_random(&x) % 3 ? 0 : test_random(&x) % S;
            } else {
                now += test_random(&x) % 2 ? wait : test_random(&x) % S;
            }
        }
        for (int i = 0; i < OPS; i++) {
            uint64_t sum = 0;

            for (int k = i; k < OPS; k++) {
                uint64_t excess = size[k] > burst ? size[k] - burst : 0;

                sum += size[k];
                if (size[k] == 0)
                    continue;
                assert_true((sum - excess) * S <= burst * S + rate * (at[k] - at[i]));
            }
        }
    }
}

static void a_saved_bucket_goes_on_where_it_was(void **state)
{
    struct tn_rate a = make(1000, 500, 7, 3, 100), b;
    struct tn_rate_state one, two;
    uint64_t x = 7, now = 100;

    (void)state;
    for (int i = 0; i < 200; i++) {
        uint64_t bytes = test_random(&x) % 900, later = test_random(&x) % S;

        memset(&one, 0x11, sizeof(one));
        memset(&two, 0x22, sizeof(two));
        tn_rate_save(&a, now + later, &one);
        b = make(1000, 500, 7, 3, 5);
        assert_int_equal(tn_rate_restore(&b, 12345, &one), 0); /* another clock */
        tn_rate_save(&b, 12345, &two);
        assert_memory_equal(&one, &two, sizeof(one));
        now += later;
        assert_int_equal(tn_rate_take(&a, now, bytes), tn_rate_take(&b, 12345, bytes));
    }

    /* A limit that is none here forgets what it lacked; a smaller burst makes it a debt. */
    a = make(0, 0, 1, 1, 0);
    one.bytes_missing = 100;
    one.bytes_nano = 5;
    one.ops_missing = 9;
    one.ops_nano = 0;
    assert_int_equal(tn_rate_restore(&a, 0, &one), 0);
    assert_int_equal(a.bytes.missing, 0);
    assert_int_equal(a.bytes.nano, 0);
    assert_int_equal(tn_rate_take(&a, 0, UINT64_MAX), 9 * S);

    a = make(1, 1, 0, 0, 0);
    assert_int_equal(tn_rate_restore(&a, 0, &one), 0);
    assert_int_equal(a.ops.missing, 0);
    assert_int_equal(tn_rate_take(&a, 0, 1), 100 * S - 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_burst_without_a_rate_is_refused),
        cmocka_unit_test(no_state_of_a_bucket_is_refused),
        cmocka_unit_test(the_wait_is_exact),
        cmocka_unit_test(nothing_drifts),
        cmocka_unit_test(an_operation_larger_than_the_burst_leaves_a_debt),
        cmocka_unit_test(both_buckets_give_or_neither),
        cmocka_unit_test(a_clock_that_goes_back_stands_still),
        cmocka_unit_test(random_schedules_agree_with_wide_arithmetic),
        cmocka_unit_test(c27_no_window_lets_more_pass),
        cmocka_unit_test(a_saved_bucket_goes_on_where_it_was),
    };

    return cmocka_run_group_tests_name("rate", tests, NULL, NULL);
}
