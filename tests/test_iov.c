/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_iov.h"

#include "test.h"

#define PIECES 5u
#define BYTES  24u

/* A list whose pieces are on the heap, each of exactly its length; empty ones are nowhere. */
struct list {
    struct tn_iov iov[PIECES];
    uint32_t n;
    size_t bytes;
};

static void list_init(struct list *l, const size_t *len, uint32_t n)
{
    l->n = n;
    l->bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t byte[BYTES];

        for (size_t k = 0; k < len[i]; k++)
            byte[k] = (uint8_t)(1 + l->bytes + k);
        l->iov[i].base = len[i] > 0 ? test_exact(byte, len[i]) : NULL;
        l->iov[i].len = len[i];
        l->bytes += len[i];
    }
}

static void list_free(struct list *l)
{
    for (uint32_t i = 0; i < l->n; i++)
        free(l->iov[i].base);
}

/* Byte k of a list. */
static uint8_t *list_at(const struct list *l, size_t k)
{
    for (uint32_t i = 0; i < l->n; i++) {
        if (k < l->iov[i].len)
            return l->iov[i].base + k;
        k -= l->iov[i].len;
    }
    fail();
    return NULL;
}

/* Every way to cut up to eight bytes in four, empty pieces among them. */
static bool next_cut(size_t len[4], size_t *bytes)
{
    for (unsigned i = 0; i < 4; i++) {
        if (*bytes < 8) {
            len[i]++;
            ++*bytes;
            return true;
        }
        *bytes -= len[i];
        len[i] = 0;
    }
    return false;
}

static void a_list_of_nothing_has_no_bytes(void **state)
{
    static const struct {
        size_t len[3];
        uint32_t n;
    } row[] = {{{0}, 0}, {{0}, 1}, {{0}, 3}};

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        uint8_t byte[1] = {7};
        struct list l;
        uint32_t first = 99;
        size_t off = 0;

        list_init(&l, row[i].len, row[i].n);
        assert_int_equal(tn_iov_total(l.iov, l.n), 0);
        assert_int_equal(tn_iov_skip(l.iov, l.n, &off), l.n);
        assert_int_equal(off, 0);
        off = SIZE_MAX;
        assert_int_equal(tn_iov_skip(l.iov, l.n, &off), l.n);
        assert_true(off == SIZE_MAX);
        assert_int_equal(tn_iov_gather(l.iov, l.n, 0, byte, 1), 0);
        assert_int_equal(tn_iov_gather(l.iov, l.n, SIZE_MAX, byte, 1), 0);
        assert_int_equal(tn_iov_scatter(l.iov, l.n, 0, byte, 1), 0);
        assert_int_equal(tn_iov_scatter(l.iov, l.n, SIZE_MAX, byte, 1), 0);
        assert_int_equal(tn_iov_cut(l.iov, l.n, 0, SIZE_MAX, &first), 0);
        assert_int_equal(first, l.n);
        assert_int_equal(byte[0], 7);
        list_free(&l);
    }
}

static void a_total_does_not_wrap(void **state)
{
    static const struct {
        size_t len[3];
        size_t total;
    } row[] = {
        {{1, 2, 3}, 6},
        {{SIZE_MAX, 0, 0}, SIZE_MAX},
        {{SIZE_MAX, 1, 0}, SIZE_MAX},
        {{SIZE_MAX - 1, 1, 0}, SIZE_MAX},
        {{SIZE_MAX / 2, SIZE_MAX / 2, 0}, SIZE_MAX - 1},
        {{SIZE_MAX, SIZE_MAX, SIZE_MAX}, SIZE_MAX},
        {{SIZE_MAX / 2 + 1, SIZE_MAX / 2 + 1, 5}, SIZE_MAX},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct tn_iov iov[3]; /* only counted */

        for (unsigned k = 0; k < 3; k++) {
            iov[k].base = NULL;
            iov[k].len = row[i].len[k];
        }
        assert_true(tn_iov_total(iov, 3) == row[i].total);
    }
}

static void bytes_go_to_their_places_however_a_list_is_cut(void **state)
{
    size_t len[4] = {0}, bytes = 0;
    struct list l;

    (void)state;
    do {
        for (size_t off = 0; off <= 9; off++) {
            for (size_t want = 0; want <= 9; want++) {
                size_t rest = off < bytes ? bytes - off : 0, n = want < rest ? want : rest, k;
                uint8_t *buf = test_exact("zzzzzzzzz", want);

                list_init(&l, len, 4);
                assert_int_equal(tn_iov_total(l.iov, 4), bytes);
                assert_int_equal(tn_iov_gather(l.iov, 4, off, buf, want), n);
                for (k = 0; k < want; k++)
                    assert_int_equal(buf[k], k < n ? 1 + off + k : 'z');
                for (k = 0; k < want; k++)
                    buf[k] = (uint8_t)(100 + k);
                assert_int_equal(tn_iov_scatter(l.iov, 4, off, buf, want), n);
                for (k = 0; k < bytes; k++)
                    assert_int_equal(*list_at(&l, k),
                                     k >= off && k < off + n ? 100 + k - off : 1 + k);
                list_free(&l);
                free(buf);
            }
        }
    } while (next_cut(len, &bytes));
}

static void a_byte_is_found_in_the_piece_that_has_it(void **state)
{
    size_t len[4] = {0}, bytes = 0;
    struct list l;

    (void)state;
    do {
        list_init(&l, len, 4);
        for (size_t k = 0; k <= 9; k++) {
            size_t off = k;
            uint32_t i = tn_iov_skip(l.iov, 4, &off);

            if (k < bytes)
                assert_ptr_equal(l.iov[i].base + off, list_at(&l, k));
            else
                assert_true(i == 4 && off == k - bytes);
        }
        list_free(&l);
    } while (next_cut(len, &bytes));
}

static void a_part_is_cut_out_of_a_list(void **state)
{
    size_t len[4] = {0}, bytes = 0;

    (void)state;
    do {
        for (size_t off = 0; off <= 9; off++) {
            for (size_t want = 0; want <= 9; want++) {
                size_t rest = off < bytes ? bytes - off : 0, part = want < rest ? want : rest;
                struct list l, cut;
                uint32_t first;

                list_init(&l, len, 4);
                cut = l;
                cut.n = tn_iov_cut(cut.iov, 4, off, want, &first);
                assert_true(first <= 4 && cut.n <= 4 - first);
                memmove(cut.iov, cut.iov + first, cut.n * sizeof(cut.iov[0]));
                assert_int_equal(tn_iov_total(cut.iov, cut.n), part);
                for (size_t k = 0; k < part; k++)
                    assert_ptr_equal(list_at(&cut, k), list_at(&l, off + k));
                if (want <= rest && want > 0) /* no piece too many */
                    assert_true(cut.iov[0].len > 0 && cut.iov[cut.n - 1].len > 0);
                list_free(&l);
            }
        }
    } while (next_cut(len, &bytes));
}

static void what_is_not_of_the_part_stays_in_the_list(void **state)
{
    static const size_t len[5] = {3, 4, 0, 5, 2};
    struct list l;
    struct tn_iov was[5];
    uint32_t first;

    (void)state;
    list_init(&l, len, 5);
    memcpy(was, l.iov, sizeof(was));
    assert_int_equal(tn_iov_cut(l.iov, 5, 4, 4, &first), 3);
    assert_int_equal(first, 1);
    assert_ptr_equal(l.iov[1].base, was[1].base + 1);
    assert_int_equal(l.iov[1].len, 3);
    assert_int_equal(l.iov[3].len, 1);
    assert_memory_equal(&l.iov[0], &was[0], sizeof(was[0]));
    assert_memory_equal(&l.iov[4], &was[4], sizeof(was[4]));
    memcpy(l.iov, was, sizeof(was));
    assert_int_equal(tn_iov_cut(l.iov, 5, 14, 1, &first), 0);
    assert_int_equal(first, 5);
    assert_memory_equal(l.iov, was, sizeof(was));
    list_free(&l);
}

static void pieces_may_overlap_each_other_and_the_buffer(void **state)
{
    uint8_t m[8] = {1, 2, 3, 4, 5, 6, 7, 8}, out[6];
    struct tn_iov iov[2] = {{m, 4}, {m + 2, 4}};

    (void)state;
    assert_int_equal(tn_iov_gather(iov, 2, 1, out, 6), 6);
    assert_memory_equal(out, "\2\3\4\3\4\5", 6);
    assert_int_equal(tn_iov_scatter(iov, 2, 2, out, 4), 4);
    assert_memory_equal(m, "\1\2\4\3\5\6\7\10", 8);
    iov[0].len = 8; /* a guest's own memory into its own memory */
    assert_int_equal(tn_iov_gather(iov, 1, 0, m + 1, 4), 4);
    assert_int_equal(tn_iov_scatter(iov, 1, 1, m, 6), 6);
    assert_int_equal(m[0], 1);
}

static void offsets_and_lengths_of_any_size_are_no_sums(void **state)
{
    static const size_t len[3] = {3, 3, 2};
    uint8_t buf[8];
    struct list l;
    uint32_t first;

    (void)state;
    list_init(&l, len, 3);
    for (size_t back = 0; back < 10; back++) {
        assert_int_equal(tn_iov_gather(l.iov, 3, SIZE_MAX - back, buf, 8), 0);
        assert_int_equal(tn_iov_scatter(l.iov, 3, SIZE_MAX - back, buf, 8), 0);
        assert_int_equal(tn_iov_cut(l.iov, 3, SIZE_MAX - back, SIZE_MAX - back, &first), 0);
        assert_int_equal(first, 3);
    }
    assert_int_equal(tn_iov_total(l.iov, 3), 8);
    assert_int_equal(tn_iov_cut(l.iov, 3, 7, SIZE_MAX, &first), 1);
    assert_int_equal(first, 2);
    assert_int_equal(l.iov[2].len, 1);
    l.iov[2].base -= 1;
    list_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_of_nothing_has_no_bytes),
        cmocka_unit_test(a_total_does_not_wrap),
        cmocka_unit_test(bytes_go_to_their_places_however_a_list_is_cut),
        cmocka_unit_test(a_byte_is_found_in_the_piece_that_has_it),
        cmocka_unit_test(a_part_is_cut_out_of_a_list),
        cmocka_unit_test(what_is_not_of_the_part_stays_in_the_list),
        cmocka_unit_test(pieces_may_overlap_each_other_and_the_buffer),
        cmocka_unit_test(offsets_and_lengths_of_any_size_are_no_sums),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
