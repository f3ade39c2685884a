/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_vsock.h"

#include "test.h"

/* Numbers where arithmetic modulo 2^32 goes wrong, if it does. */
static const uint32_t edge[] = {0,          1,          2,          43,         44,
                                45,         4095,       4096,       65536,      0x7fffffff,
                                0x80000000, 0x80000001, 0xffff0000, 0xfffffffe, 0xffffffff};

static void the_header_is_forty_four_bytes_little_endian(void **state)
{
    uint8_t byte[TN_VSOCK_HDR], *wire, out[TN_VSOCK_HDR + 1];
    struct tn_vsock_hdr h;

    (void)state;
    for (unsigned i = 0; i < sizeof(byte); i++)
        byte[i] = (uint8_t)(i + 1);
    wire = test_exact(byte, sizeof(byte));
    tn_vsock_hdr_get(&h, wire);
    assert_true(h.src_cid == 0x0807060504030201 && h.dst_cid == 0x100f0e0d0c0b0a09);
    assert_int_equal(h.src_port, 0x14131211);
    assert_int_equal(h.dst_port, 0x18171615);
    assert_int_equal(h.len, 0x1c1b1a19);
    assert_int_equal(h.type, 0x1e1d);
    assert_int_equal(h.op, 0x201f);
    assert_int_equal(h.flags, 0x24232221);
    assert_int_equal(h.buf_alloc, 0x28272625);
    assert_int_equal(h.fwd_cnt, 0x2c2b2a29);
    memset(out, 0xee, sizeof(out));
    tn_vsock_hdr_put(&h, out);
    assert_memory_equal(out, byte, sizeof(byte));
    assert_int_equal(out[TN_VSOCK_HDR], 0xee);
    free(wire);
}

static void a_packet_is_no_shorter_than_it_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(edge); i++) {
        for (size_t k = 0; k < COUNT(edge); k++)
            assert_int_equal(tn_vsock_whole(edge[i], edge[k]),
                             (uint64_t)edge[k] + TN_VSOCK_HDR <= edge[i]);
    }
}

static void some_cids_are_nobodys(void **state)
{
    static const struct {
        uint64_t cid;
        bool ok;
    } row[] = {{0, false},         {1, false},          {2, false},           {3, true},
               {0xfffffffe, true}, {0xffffffff, false}, {0x100000000, false}, {0x100000003, false},
               {UINT64_MAX, false}};

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++)
        assert_int_equal(tn_vsock_cid_ok(row[i].cid), row[i].ok);
}

static void counts_go_round(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(edge); i++) {
        for (size_t k = 0; k < COUNT(edge); k++) {
            uint32_t sum = (uint32_t)(((uint64_t)edge[i] + edge[k]) % 0x100000000);

            assert_int_equal(tn_vsock_step(edge[i], edge[k]), sum);
            assert_int_equal(tn_vsock_distance(edge[i], sum), edge[k]);
        }
    }
}

static void nobody_has_more_credit_than_there_is_room(void **state)
{
    static const struct {
        uint32_t buf_alloc, limit, tx_cnt, fwd_cnt, credit;
    } row[] = {
        {4096, 65536, 0, 0, 4096},
        {65536, 4096, 0, 0, 4096},
        {4096, 65536, 4096, 0, 0},
        {4096, 65536, 4095, 0, 1},
        {4096, 65536, 100, 0xffffff9c, 3896},
        {4096, 65536, 0, 1, 0}, /* more than was sent */
        {0, 65536, 0, 0, 0},
        {0xffffffff, 65536, 5, 5, 65536},
        {100, 65536, 200, 0, 0},
        {0xffffffff, 0xffffffff, 0, 1, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++)
        assert_int_equal(
            tn_vsock_credit(row[i].buf_alloc, row[i].limit, row[i].tx_cnt, row[i].fwd_cnt),
            row[i].credit);
}

static void what_is_not_consumed_is_limited(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(edge); i++) {
        for (size_t k = 0; k < COUNT(edge); k++) {
            uint32_t fwd = edge[k], rx = tn_vsock_step(fwd, 1000), len = edge[i];

            assert_int_equal(tn_vsock_fits(4096, rx, fwd, len), len <= 3096);
            assert_int_equal(tn_vsock_fits(999, rx, fwd, len), false);
            assert_int_equal(tn_vsock_forward(rx, fwd, len),
                             len < 1000 ? tn_vsock_step(fwd, len) : rx);
            assert_int_equal(tn_vsock_owes(len, fwd, rx), 1000 >= len / 4);
        }
    }
}

static void a_payload_is_what_all_allow(void **state)
{
    static const struct {
        size_t left;
        uint32_t credit, room, len;
    } row[] = {
        {5, 100, 144, 5},     {500, 100, 200, 100}, {500, 100, 144, 100},
        {500, 100, 143, 99},  {500, 100, 44, 0},    {500, 100, 43, 0},
        {500, 100, 0, 0},     {0, 100, 144, 0},     {SIZE_MAX, UINT32_MAX, UINT32_MAX, 0xffffffd3},
        {SIZE_MAX, 0, 99, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++)
        assert_int_equal(tn_vsock_payload(row[i].left, row[i].credit, row[i].room), row[i].len);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_header_is_forty_four_bytes_little_endian),
        cmocka_unit_test(a_packet_is_no_shorter_than_it_says),
        cmocka_unit_test(some_cids_are_nobodys),
        cmocka_unit_test(counts_go_round),
        cmocka_unit_test(nobody_has_more_credit_than_there_is_room),
        cmocka_unit_test(what_is_not_consumed_is_limited),
        cmocka_unit_test(a_payload_is_what_all_allow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
