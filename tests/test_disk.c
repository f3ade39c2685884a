/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_disk.h"

#include "test.h"

static void nothing(void *ctx)
{
    (void)ctx;
}

static void submit(void *ctx, struct tn_disk_req *req)
{
    (void)ctx;
    req->done(req, TN_OK);
}

static const struct tn_disk_ops ops = {submit, nothing, nothing};

static struct tn_disk disk_of(uint64_t size, uint32_t block)
{
    struct tn_disk d = {&ops, NULL, size, block, block, 0, false, true, true};

    return d;
}

static int check(const struct tn_disk *d, uint32_t op, uint64_t offset, uint64_t len)
{
    struct tn_disk_req req = {op, 0, offset, len, NULL, 0, NULL, NULL, NULL, {0, 0}};

    return tn_disk_check(d, &req);
}

static void c01_ranges_are_whole_blocks(void **state)
{
    static const uint32_t moves[] = {TN_DISK_READ, TN_DISK_WRITE, TN_DISK_DISCARD, TN_DISK_ZERO};

    (void)state;
    for (uint32_t block = 512; block <= 4096; block *= 2) {
        struct tn_disk d = disk_of(1u << 20, block);

        for (size_t i = 0; i < COUNT(moves); i++) {
            assert_int_equal(check(&d, moves[i], 1, block), TN_ERANGE);
            assert_int_equal(check(&d, moves[i], 0, block - 1), TN_ERANGE);
            assert_int_equal(check(&d, moves[i], 0, block + 1), TN_ERANGE);
            assert_int_equal(check(&d, moves[i], block / 2, block), TN_ERANGE);
            assert_int_equal(check(&d, moves[i], block, block / 2), TN_ERANGE);
            assert_int_equal(check(&d, moves[i], block, 3 * block), TN_OK);
        }
    }
    struct tn_disk none = disk_of(1u << 20, 0);
    assert_int_equal(check(&none, TN_DISK_READ, 0, 512), TN_ERANGE);
}

static void c02_ranges_end_inside_the_disk_and_do_not_wrap(void **state)
{
    const uint64_t top = UINT64_MAX - 511, size = 1u << 20;
    const struct {
        uint64_t offset, len;
        int want;
    } row[] = {
        {0, size, TN_OK},
        {size, 0, TN_OK},
        {size - 512, 512, TN_OK},
        {0, size + 512, TN_ERANGE},
        {512, size, TN_ERANGE},
        {size, 512, TN_ERANGE},
        {size + 512, 0, TN_ERANGE},
        {top, 512, TN_ERANGE},
        {top, 1024, TN_ERANGE},
        {512, top, TN_ERANGE},
        {1024, top, TN_ERANGE},
        {top, top, TN_ERANGE},
        {1ull << 63, 1ull << 63, TN_ERANGE},
    };
    struct tn_disk d = disk_of(size, 512);

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        assert_int_equal(check(&d, TN_DISK_READ, row[i].offset, row[i].len), row[i].want);
        assert_int_equal(check(&d, TN_DISK_WRITE, row[i].offset, row[i].len), row[i].want);
    }
    assert_int_equal(check(&d, TN_DISK_FLUSH, 0, 0), TN_OK);
    assert_int_equal(check(&d, TN_DISK_FLUSH, 512, 0), TN_ERANGE);
    assert_int_equal(check(&d, TN_DISK_FLUSH, 0, 512), TN_ERANGE);
}

static void only_what_the_disk_serves_is_taken(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 8; bits++) {
        struct tn_disk d = disk_of(4096, 512);
        bool ro = bits & 1, discard = bits & 2, zero = bits & 4;

        d.read_only = ro;
        d.discard = discard;
        d.zero = zero;
        assert_int_equal(check(&d, TN_DISK_READ, 0, 512), TN_OK);
        assert_int_equal(check(&d, TN_DISK_FLUSH, 0, 0), TN_OK);
        assert_int_equal(check(&d, TN_DISK_WRITE, 0, 512), ro ? TN_EUNSUP : TN_OK);
        assert_int_equal(check(&d, TN_DISK_DISCARD, 0, 512), !ro && discard ? TN_OK : TN_EUNSUP);
        assert_int_equal(check(&d, TN_DISK_ZERO, 0, 512), !ro && zero ? TN_OK : TN_EUNSUP);
        assert_int_equal(check(&d, TN_DISK_ZERO + 1, 0, 512), TN_EUNSUP);
        assert_int_equal(check(&d, UINT32_MAX, 0, 0), TN_EUNSUP);
    }
}

/* A list whose bytes are 0, 1, 2 ... when it is read in order, with empty pieces. */
static uint8_t bytes[64];
static const struct tn_iov list[] = {
    {bytes, 0}, {bytes, 5}, {bytes + 5, 1}, {bytes + 6, 0}, {bytes + 6, 20}, {bytes + 26, 6},
};
#define LIST  ((uint32_t)COUNT(list))
#define TOTAL 32u

static void slices_cover_the_list_in_order(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    for (uint32_t cap = 1; cap <= 7; cap++) {
        for (uint64_t len = 1; len <= TOTAL + 2; len++) {
            struct tn_disk_pos pos = {0, 0};
            uint64_t sum = 0, got;
            uint32_t n;
            struct tn_iov out[8];

            for (;;) {
                n = tn_disk_slice(list, LIST, &pos, len, out, cap, &got);
                assert_true(n <= cap && got <= len);
                if (n == 0)
                    break;
                if (n < cap)
                    assert_true(got == len || sum + got == TOTAL);
                for (uint32_t i = 0; i < n; i++) {
                    assert_true(out[i].len > 0 && out[i].base == bytes + sum);
                    sum += out[i].len;
                    got -= out[i].len;
                }
                assert_int_equal(got, 0);
            }
            assert_int_equal(got, 0);
            assert_int_equal(sum, TOTAL);
            assert_int_equal(pos.iov, LIST);
            assert_int_equal(pos.off, 0);
        }
    }
}

static void an_empty_slice_moves_nothing(void **state)
{
    struct tn_disk_pos pos = {1, 2};
    struct tn_iov out[1];
    uint64_t got = 7;

    (void)state;
    assert_int_equal(tn_disk_slice(list, LIST, &pos, 0, out, 1, &got), 0);
    assert_int_equal(got, 0);
    got = 7;
    assert_int_equal(tn_disk_slice(list, LIST, &pos, 9, out, 0, &got), 0);
    assert_int_equal(got, 0);
    assert_int_equal(pos.iov, 1);
    assert_int_equal(pos.off, 2);
    pos.iov = 0;
    pos.off = 0;
    assert_int_equal(tn_disk_slice(NULL, 0, &pos, 9, out, 1, &got), 0);
}

static void skips_and_copies_go_on_where_the_last_ended(void **state)
{
    uint8_t buf[80], *in;

    (void)state;
    for (uint64_t skip = 0; skip <= TOTAL + 3; skip++) {
        struct tn_disk_pos pos = {0, 0};
        size_t want = skip < TOTAL ? (size_t)(TOTAL - skip) : 0;

        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)i;
        tn_disk_skip(list, LIST, &pos, skip);
        in = test_exact(buf, want);
        assert_int_equal(tn_disk_copy(TN_DISK_WRITE, list, LIST, &pos, in, want), want);
        for (size_t i = 0; i < want; i++)
            assert_int_equal(in[i], skip + i);
        assert_int_equal(tn_disk_copy(TN_DISK_WRITE, list, LIST, &pos, buf, 9), 0);

        for (size_t i = 0; i < want; i++)
            in[i] = (uint8_t)(200 + i % 50);
        pos.iov = 0;
        pos.off = 0;
        tn_disk_skip(list, LIST, &pos, skip);
        assert_int_equal(tn_disk_copy(TN_DISK_READ, list, LIST, &pos, in, want), want);
        for (size_t i = 0; i < sizeof(bytes); i++)
            assert_int_equal(bytes[i], i >= skip && i < TOTAL ? 200 + (i - skip) % 50 : i);
        free(in);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(c01_ranges_are_whole_blocks),
        cmocka_unit_test(c02_ranges_end_inside_the_disk_and_do_not_wrap),
        cmocka_unit_test(only_what_the_disk_serves_is_taken),
        cmocka_unit_test(slices_cover_the_list_in_order),
        cmocka_unit_test(an_empty_slice_moves_nothing),
        cmocka_unit_test(skips_and_copies_go_on_where_the_last_ended),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
