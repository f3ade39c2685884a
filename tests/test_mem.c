/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_mem.h"

#include "test.h"

#include <pthread.h>

#define PAGE 4096u

/*
 * Three regions: `low` and `next` touch in guest addresses and lie apart on the host; `high` stands
 * alone. Each is an allocation of its own, so that a sanitizer sees a byte too many.
 */
struct guest {
    struct tn_mem mem;
    struct tn_mem_region table[4];
    uint8_t *low, *next, *high;
    uint64_t dirty[3][2];
};
#define LOW  0x1000ull
#define NEXT 0x3000ull
#define END  0x4000ull /* of NEXT */
#define HIGH 0x100000ull
#define TOP  (HIGH + 65 * PAGE) /* of HIGH: its bitmap takes two words */

static int set_up(void **state)
{
    struct guest *g = calloc(1, sizeof(*g));

    g->high = calloc(65, PAGE);
    g->next = calloc(1, PAGE);
    g->low = calloc(2, PAGE);
    tn_mem_init(&g->mem, g->table, COUNT(g->table));
    assert_int_equal(tn_mem_add(&g->mem, NEXT, g->next, PAGE), TN_OK);
    assert_int_equal(tn_mem_add(&g->mem, HIGH, g->high, 65 * PAGE), TN_OK);
    assert_int_equal(tn_mem_add(&g->mem, LOW, g->low, 2 * PAGE), TN_OK);
    *state = g;
    return 0;
}

static int tear_down(void **state)
{
    struct guest *g = *state;

    free(g->low);
    free(g->next);
    free(g->high);
    free(g);
    return 0;
}

static void track(struct guest *g)
{
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(tn_mem_track(&g->mem, i, g->dirty[i]), TN_OK);
}

static void add_refuses_bad_regions(void **state)
{
    struct guest *g = *state;
    static _Alignas(8) uint8_t bytes[PAGE + 8];
    static const struct {
        uint64_t gpa, size;
        int err;
    } t[] = {
        {0x10000, 0, TN_EINVAL},
        {0x10000, 1, TN_EINVAL},
        {0x10000, PAGE + 1, TN_EINVAL},
        {0x10800, PAGE, TN_EINVAL},
        {TN_MEM_LIMIT, PAGE, TN_EINVAL},
        {0, TN_MEM_LIMIT + PAGE, TN_EINVAL},
        {PAGE, TN_MEM_LIMIT, TN_EINVAL},
        {UINT64_MAX - PAGE + 1, PAGE, TN_EINVAL}, /* the end wraps */
        {PAGE, UINT64_MAX - PAGE + 1, TN_EINVAL},
        {LOW, PAGE, TN_EEXIST},
        {LOW + PAGE, PAGE, TN_EEXIST},
        {NEXT, PAGE, TN_EEXIST},
        {0, 2 * PAGE, TN_EEXIST},
        {0, TN_MEM_LIMIT, sizeof(size_t) < 8 ? TN_EINVAL : TN_EEXIST},
        {HIGH - PAGE, 2 * PAGE, TN_EEXIST},
        {TOP - PAGE, PAGE, TN_EEXIST},
        {END, PAGE, TN_OK},
        {TOP, PAGE, TN_ENOSPC},
    };
    uint8_t *wrong;

    assert_int_equal(tn_mem_add(&g->mem, 0x10000, NULL, PAGE), TN_EINVAL);
    assert_int_equal(tn_mem_add(&g->mem, 0x10000, bytes + 1, PAGE), TN_EINVAL);
    assert_int_equal(tn_mem_add(&g->mem, 0x10000, bytes + 4, PAGE), TN_EINVAL);
    wrong = (uint8_t *)(UINTPTR_MAX - PAGE + 1); /* it would end beyond the last address */
    assert_int_equal(tn_mem_add(&g->mem, 0x10000, wrong, PAGE), TN_EINVAL);
    for (size_t i = 0; i < COUNT(t); i++) {
        uint32_t before = g->mem.count;

        assert_int_equal(tn_mem_add(&g->mem, t[i].gpa, bytes, t[i].size), t[i].err);
        assert_int_equal(g->mem.count, before + (t[i].err == TN_OK));
    }
    for (uint32_t i = 1; i < g->mem.count; i++)
        assert_true(g->table[i - 1].gpa + g->table[i - 1].size <= g->table[i].gpa);
}

static void a_region_may_end_at_the_limit(void **state)
{
    static _Alignas(8) uint8_t bytes[PAGE];
    struct tn_mem_region table[1];
    struct tn_mem m;

    (void)state;
    tn_mem_init(&m, table, 1);
    assert_null(tn_mem_ptr(&m, 0, 1));
    assert_int_equal(tn_mem_add(&m, TN_MEM_LIMIT - PAGE, bytes, PAGE), TN_OK);
    assert_ptr_equal(tn_mem_ptr(&m, TN_MEM_LIMIT - 1, 1), bytes + PAGE - 1);
    assert_null(tn_mem_ptr(&m, TN_MEM_LIMIT - 1, 2));
    assert_null(tn_mem_ptr(&m, TN_MEM_LIMIT, 1));
}

/* The host address that a range should translate to: the model of tn_mem_ptr. */
static uint8_t *expect(const struct guest *g, uint64_t gpa, uint64_t len)
{
    if (len == 0 || len > TOP || gpa > TOP)
        return NULL;
    if (gpa >= LOW && gpa + len <= NEXT)
        return g->low + (gpa - LOW);
    if (gpa >= NEXT && gpa + len <= END)
        return g->next + (gpa - NEXT);
    if (gpa >= HIGH && gpa + len <= TOP)
        return g->high + (gpa - HIGH);
    return NULL;
}

static const uint64_t edges[] = {
    0,
    1,
    LOW - 1,
    LOW,
    LOW + 1,
    NEXT - 1,
    NEXT,
    NEXT + 1,
    END - 1,
    END,
    HIGH - 1,
    HIGH,
    HIGH + 1,
    TOP - 1,
    TOP,
    TOP + 1,
    TN_MEM_LIMIT - 1,
    TN_MEM_LIMIT,
    UINT64_MAX - PAGE,
    UINT64_MAX - 1,
    UINT64_MAX,
};
static const uint64_t lens[] = {
    0,
    1,
    2,
    7,
    8,
    PAGE - 1,
    PAGE,
    PAGE + 1,
    2 * PAGE,
    3 * PAGE,
    4 * PAGE,
    65 * PAGE,
    1ull << 32,
    TN_MEM_LIMIT,
    1ull << 63,
    UINT64_MAX - PAGE,
    UINT64_MAX - 1,
    UINT64_MAX,
};

static void a10_the_whole_range_is_checked(void **state)
{
    struct guest *g = *state;

    for (size_t i = 0; i < COUNT(edges); i++)
        for (size_t j = 0; j < COUNT(lens); j++)
            assert_ptr_equal(tn_mem_ptr(&g->mem, edges[i], lens[j]), expect(g, edges[i], lens[j]));
}

static void a08_address_plus_length_may_wrap(void **state)
{
    struct guest *g = *state;
    static const struct {
        uint64_t gpa, len;
    } t[] = {
        {UINT64_MAX, 2},
        {UINT64_MAX, UINT64_MAX},
        {LOW, UINT64_MAX},
        {LOW, UINT64_MAX - LOW + 1},      /* the sum is 0 */
        {LOW + 8, UINT64_MAX - 8 + 1},    /* the sum is LOW */
        {HIGH, UINT64_MAX - HIGH + NEXT}, /* the sum lies in low */
        {UINT64_MAX - LOW, 2 * LOW + 2},
    };
    struct tn_mem_piece piece[4];

    track(g);
    for (size_t i = 0; i < COUNT(t); i++) {
        assert_null(tn_mem_ptr(&g->mem, t[i].gpa, t[i].len));
        assert_false(tn_mem_holds(&g->mem, t[i].gpa, t[i].len));
        assert_int_equal(tn_mem_split(&g->mem, t[i].gpa, t[i].len, piece, 4), TN_EADDR);
        assert_int_equal(tn_mem_fill(&g->mem, t[i].gpa, 0xff, t[i].len), TN_EADDR);
    }
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(g->dirty[i][0] | g->dirty[i][1], 0);
}

static void a09_no_host_pointer_crosses_regions(void **state)
{
    struct guest *g = *state;
    struct tn_mem_piece piece[3];

    assert_null(tn_mem_ptr(&g->mem, NEXT - 1, 2));
    assert_true(tn_mem_holds(&g->mem, NEXT - 1, 2));
    assert_int_equal(tn_mem_split(&g->mem, NEXT - 5, 12, piece, 3), 2);
    assert_ptr_equal(piece[0].host, g->low + 2 * PAGE - 5);
    assert_int_equal(piece[0].len, 5);
    assert_ptr_equal(piece[1].host, g->next);
    assert_int_equal(piece[1].len, 7);
    assert_int_equal(tn_mem_split(&g->mem, NEXT - 5, 12, piece, 2), 2);
    assert_int_equal(tn_mem_split(&g->mem, NEXT - 5, 5, piece, 1), 1);
    assert_int_equal(tn_mem_split(&g->mem, 0, 0, NULL, 0), 0);
}

static void split_errors_leave_no_pieces(void **state)
{
    struct guest *g = *state;
    static const struct {
        uint64_t gpa, len;
        uint32_t cap;
        int err;
    } t[] = {
        {LOW, 3 * PAGE, 1, TN_ENOSPC},    {LOW, 3 * PAGE, 0, TN_ENOSPC},
        {LOW, 3 * PAGE + 1, 3, TN_EADDR}, {LOW, 3 * PAGE + 1, 1, TN_EADDR}, /* the hole counts */
        {LOW - 1, 2, 3, TN_EADDR},        {END, 1, 3, TN_EADDR},
    };

    for (size_t i = 0; i < COUNT(t); i++) {
        struct tn_mem_piece piece[3] = {{NULL, 0}, {NULL, 0}, {NULL, 0}};

        assert_int_equal(tn_mem_split(&g->mem, t[i].gpa, t[i].len, piece, t[i].cap), t[i].err);
        for (size_t k = 0; k < 3; k++)
            assert_true(!piece[k].host && piece[k].len == 0);
    }
}

static void b10_an_address_outside_ram_never_translates(void **state)
{
    struct guest *g = *state;
    uint64_t v = 1;
    char c = 1;

    for (uint64_t gpa = END; gpa < HIGH; gpa += PAGE / 2) {
        assert_null(tn_mem_ptr(&g->mem, gpa, 1));
        assert_int_equal(tn_mem_read(&g->mem, gpa, &c, 1), TN_EADDR);
        assert_int_equal(tn_mem_write(&g->mem, gpa, &c, 1), TN_EADDR);
        assert_int_equal(tn_mem_load(&g->mem, gpa, 8, &v), TN_EADDR);
        assert_int_equal(tn_mem_store(&g->mem, gpa, 8, v), TN_EADDR);
    }
}

static void copies_are_all_or_nothing(void **state)
{
    struct guest *g = *state;
    uint8_t out[32], in[32], zero[32] = {0};

    for (unsigned i = 0; i < sizeof(in); i++)
        in[i] = (uint8_t)(i + 1);
    assert_int_equal(tn_mem_write(&g->mem, END - 31, in, 32), TN_EADDR);
    assert_memory_equal(g->next + PAGE - 31, zero, 31);
    assert_int_equal(tn_mem_fill(&g->mem, END - 31, 0xee, 32), TN_EADDR);
    assert_memory_equal(g->next + PAGE - 31, zero, 31);
    assert_int_equal(tn_mem_write(&g->mem, NEXT - 16, in, 32), TN_OK);
    assert_memory_equal(g->low + 2 * PAGE - 16, in, 16);
    assert_memory_equal(g->next, in + 16, 16);
    assert_int_equal(tn_mem_read(&g->mem, NEXT - 16, out, 32), TN_OK);
    assert_memory_equal(out, in, 32);
    assert_int_equal(tn_mem_read(&g->mem, END - 31, out, 32), TN_EADDR);
    assert_memory_equal(out, zero, 32); /* void after an error, and set so */
    assert_int_equal(tn_mem_fill(&g->mem, NEXT - 16, 0x5a, 32), TN_OK);
    assert_int_equal(tn_mem_read(&g->mem, NEXT - 17, out, 32), TN_OK);
    assert_true(out[0] == 0 && out[1] == 0x5a && out[31] == 0x5a);
    assert_int_equal(g->next[16], 0);
    assert_int_equal(tn_mem_read(&g->mem, 0, out, 0), TN_OK);
    assert_int_equal(tn_mem_write(&g->mem, UINT64_MAX, in, 0), TN_OK);
}

static void loads_and_stores_are_checked(void **state)
{
    struct guest *g = *state;
    static const struct {
        uint64_t gpa;
        unsigned width;
        int err;
    } t[] = {
        {LOW, 0, TN_EINVAL},           {LOW, 3, TN_EINVAL},    {LOW, 16, TN_EINVAL},
        {LOW + 1, 2, TN_EADDR},        {LOW + 2, 4, TN_EADDR}, {LOW + 4, 8, TN_EADDR},
        {NEXT - 1, 2, TN_EADDR},       {END - 4, 8, TN_EADDR}, {UINT64_MAX, 1, TN_EADDR},
        {UINT64_MAX - 7, 8, TN_EADDR}, {0, 1, TN_EADDR},       {LOW + 1, 1, TN_OK},
        {LOW + 2, 2, TN_OK},           {NEXT - 4, 4, TN_OK},   {NEXT - 8, 8, TN_OK},
        {TOP - 8, 8, TN_OK},
    };

    track(g);
    for (size_t i = 0; i < COUNT(t); i++) {
        uint64_t value = 0x1122334455667788, got = 99, mask;

        mask = t[i].width == 8 ? UINT64_MAX : (1ull << 8 * t[i].width % 64) - 1;
        assert_int_equal(tn_mem_store(&g->mem, t[i].gpa, t[i].width, value), t[i].err);
        assert_int_equal(tn_mem_load(&g->mem, t[i].gpa, t[i].width, &got), t[i].err);
        assert_int_equal(got, t[i].err == TN_OK ? value & mask : 0);
        if (t[i].err == TN_OK)
            assert_int_equal(*tn_mem_ptr(&g->mem, t[i].gpa, 1), 0x88); /* little-endian */
    }
    assert_int_equal(g->low[0] | g->low[4], 0); /* refused ones wrote nothing */
    assert_int_equal(g->dirty[0][0], 3);
    assert_int_equal(g->dirty[1][0], 0);
    assert_int_equal(g->dirty[2][0], 0);
    assert_int_equal(g->dirty[2][1], 1);
}

static bool bit(const uint64_t *dirty, uint64_t page)
{
    return dirty[page / 64] >> page % 64 & 1;
}

static void mark_sets_exactly_the_pages_touched(void **state)
{
    struct guest *g = *state;

    track(g);
    for (size_t i = 0; i < COUNT(edges); i++) {
        for (size_t j = 0; j < COUNT(lens); j++) {
            uint64_t from = edges[i], last = from + (lens[j] - 1);

            if (last < from)
                last = UINT64_MAX;
            memset(g->dirty, 0, sizeof(g->dirty));
            tn_mem_mark(&g->mem, from, lens[j]);
            for (uint32_t r = 0; r < 3; r++) {
                const struct tn_mem_region *m = &g->table[r];

                for (uint64_t page = 0; page < 128; page++) {
                    uint64_t gpa = m->gpa + page * PAGE;
                    bool touched = lens[j] > 0 && page < m->size / PAGE && from <= gpa + PAGE - 1 &&
                                   last >= gpa;

                    assert_int_equal(bit(g->dirty[r], page), touched);
                }
            }
        }
    }
}

static void writes_mark_and_reads_do_not(void **state)
{
    struct guest *g = *state;
    struct tn_mem_piece piece[2];
    uint64_t v, out[2] = {0, 0};
    uint8_t bytes[16] = {0};

    track(g);
    assert_int_equal(tn_mem_read(&g->mem, NEXT - 8, bytes, 16), TN_OK);
    assert_int_equal(tn_mem_load(&g->mem, NEXT, 8, &v), TN_OK);
    assert_int_equal(tn_mem_split(&g->mem, NEXT - 8, 16, piece, 2), 2);
    assert_non_null(tn_mem_ptr(&g->mem, NEXT, 8));
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(tn_mem_take_dirty(&g->mem, i, out), 0);
    assert_int_equal(tn_mem_write(&g->mem, NEXT - 8, bytes, 16), TN_OK);
    assert_int_equal(g->dirty[0][0], 2);
    assert_int_equal(g->dirty[1][0], 1);
    assert_int_equal(tn_mem_fill(&g->mem, HIGH + 63 * PAGE + 1, 0, PAGE), TN_OK);
    assert_true(g->dirty[2][0] == 1ull << 63 && g->dirty[2][1] == 1);
    out[0] = 4;
    assert_int_equal(tn_mem_take_dirty(&g->mem, 2, out), 2);
    assert_true(out[0] == (1ull << 63 | 4) && out[1] == 1); /* ORed in */
    assert_int_equal(tn_mem_take_dirty(&g->mem, 2, out), 0);
    assert_int_equal(g->dirty[2][0] | g->dirty[2][1], 0);
}

static void tracking_can_be_off(void **state)
{
    struct guest *g = *state;
    uint64_t out[2] = {0, 0};

    assert_int_equal(tn_mem_track(&g->mem, 3, g->dirty[0]), TN_EINVAL);
    assert_int_equal(tn_mem_take_dirty(&g->mem, 3, out), TN_EINVAL);
    assert_int_equal(tn_mem_take_dirty(&g->mem, 0, out), TN_EINVAL);
    assert_int_equal(tn_mem_track(&g->mem, 1, g->dirty[1]), TN_OK);
    assert_int_equal(tn_mem_fill(&g->mem, LOW, 1, 3 * PAGE), TN_OK);
    assert_int_equal(g->dirty[1][0], 1);
    assert_int_equal(tn_mem_track(&g->mem, 1, NULL), TN_OK);
    assert_int_equal(tn_mem_store(&g->mem, NEXT, 1, 1), TN_OK);
    assert_int_equal(tn_mem_take_dirty(&g->mem, 1, out), TN_EINVAL);
    assert_int_equal(TN_MEM_DIRTY_WORDS(PAGE), 1);
    assert_int_equal(TN_MEM_DIRTY_WORDS(64 * PAGE), 1);
    assert_int_equal(TN_MEM_DIRTY_WORDS(65 * PAGE), 2);
}

#define ROUNDS 200000u

static void *scribble(void *arg)
{
    struct guest *g = arg;

    for (uint64_t n = 1; n <= ROUNDS; n++)
        tn_mem_store(&g->mem, HIGH + n % 65 * PAGE, 8, n);
    return NULL;
}

/* Pages are copied whenever their bit is taken; when all is quiet no page may differ. */
static void a_mark_that_races_with_take_is_not_lost(void **state)
{
    struct guest *g = *state;
    uint64_t copy[65] = {0}, out[2], seen = 0;
    pthread_t thread;

    track(g);
    assert_int_equal(pthread_create(&thread, NULL, scribble, g), 0);
    for (int rounds = 0; rounds < 2; rounds += seen == ROUNDS) {
        memset(out, 0, sizeof(out));
        assert_true(tn_mem_take_dirty(&g->mem, 2, out) >= 0);
        for (uint64_t page = 0; page < 65; page++)
            if (bit(out, page))
                assert_int_equal(tn_mem_load(&g->mem, HIGH + page * PAGE, 8, &copy[page]), TN_OK);
        assert_int_equal(tn_mem_load(&g->mem, HIGH + ROUNDS % 65 * PAGE, 8, &seen), TN_OK);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    memset(out, 0, sizeof(out));
    tn_mem_take_dirty(&g->mem, 2, out);
    for (uint64_t page = 0; page < 65; page++) {
        uint64_t now = 0;

        assert_int_equal(tn_mem_load(&g->mem, HIGH + page * PAGE, 8, &now), TN_OK);
        assert_int_equal(bit(out, page) ? now : copy[page], now);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(add_refuses_bad_regions),
        TEST(a08_address_plus_length_may_wrap),
        TEST(a09_no_host_pointer_crosses_regions),
        TEST(a10_the_whole_range_is_checked),
        TEST(b10_an_address_outside_ram_never_translates),
        TEST(split_errors_leave_no_pieces),
        TEST(copies_are_all_or_nothing),
        TEST(loads_and_stores_are_checked),
        TEST(a_region_may_end_at_the_limit),
        TEST(mark_sets_exactly_the_pages_touched),
        TEST(writes_mark_and_reads_do_not),
        TEST(tracking_can_be_off),
        TEST(a_mark_that_races_with_take_is_not_lost),
    };

    return cmocka_run_group_tests_name("mem", tests, NULL, NULL);
}
