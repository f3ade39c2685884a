/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_net.h"

#include "test.h"

#define ALL 63u
#define TSO (TN_NET_CSUM | TN_NET_TSO4)

static void the_header_is_twelve_bytes_little_endian(void **state)
{
    static const uint8_t wire[12] = {1, 2, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11};
    uint8_t out[12] = {0};
    struct tn_net_hdr h;

    (void)state;
    tn_net_hdr_get(&h, wire);
    assert_int_equal(h.flags, 1);
    assert_int_equal(h.gso_type, 2);
    assert_int_equal(h.hdr_len, 0x0304);
    assert_int_equal(h.gso_size, 0x0506);
    assert_int_equal(h.csum_start, 0x0708);
    assert_int_equal(h.csum_offset, 0x090a);
    assert_int_equal(h.num_buffers, 0x0b0c);
    tn_net_hdr_put(&h, out);
    assert_memory_equal(out, wire, 12);
}

static void c09_a_checksum_lies_in_the_frame(void **state)
{
    static const struct {
        uint16_t start, offset;
        uint32_t len;
        int want;
    } row[] = {
        {34, 16, 60, TN_OK},
        {34, 16, 52, TN_OK},
        {34, 16, 51, TN_ERANGE},
        {58, 0, 60, TN_OK},
        {59, 0, 60, TN_ERANGE},
        {0, 58, 60, TN_OK},
        {0, 59, 60, TN_ERANGE},
        {0, 0, 2, TN_OK},
        {0, 0, 1, TN_ERANGE},
        {0, 0, 0, TN_ERANGE},
        {0xffff, 0, 60, TN_ERANGE},
        {0, 0xffff, 60, TN_ERANGE},
        {0xffff, 0xffff, TN_NET_FRAME_MAX, TN_ERANGE},
        {0x8000, 0x8000, 60, TN_ERANGE}, /* the sum is 0 in 16 bits */
        {0xffff, 16, TN_NET_FRAME_MAX, TN_OK},
        {0xffff, 17, TN_NET_FRAME_MAX, TN_ERANGE},
        {0xffff, 0xffff, UINT32_MAX, TN_OK},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct tn_net_hdr h = {1, 0, 9, 9, row[i].start, row[i].offset, 9};

        assert_int_equal(tn_net_hdr_check(&h, TN_NET_CSUM, row[i].len), row[i].want);
        if (row[i].want == TN_OK) {
            assert_int_equal(h.csum_start, row[i].start);
            assert_int_equal(h.csum_offset, row[i].offset);
            assert_int_equal(h.hdr_len | h.gso_size | h.num_buffers, 0);
        }
        h.flags = 1;
        h.gso_type = 0;
        assert_int_equal(tn_net_hdr_check(&h, ALL & ~TN_NET_CSUM, row[i].len), TN_EPROTO);
        h.flags = 2; /* without the flag none of it means anything */
        assert_int_equal(tn_net_hdr_check(&h, 0, row[i].len), TN_OK);
        assert_int_equal(h.csum_start | h.csum_offset, 0);
        assert_int_equal(h.flags, 2);
    }
}

static void c10_headers_are_shorter_than_the_frame(void **state)
{
    static const struct {
        uint16_t hdr_len, gso_size, start, offset;
        uint32_t len;
        int want;
        uint16_t is; /* hdr_len then */
    } row[] = {
        {54, 1448, 34, 16, 4000, TN_OK, 54},
        {0, 1448, 34, 16, 4000, TN_OK, 52}, /* too small a hint */
        {51, 1448, 34, 16, 4000, TN_OK, 52},
        {4001, 1448, 34, 16, 4000, TN_OK, 4000}, /* too large a one */
        {0xffff, 1448, 34, 16, 60, TN_OK, 60},
        {0xffff, 1, 34, 16, 52, TN_OK, 52},
        {54, 0, 34, 16, 4000, TN_ERANGE, 0}, /* segments of no bytes have no end */
        {54, 1448, 34, 16, 51, TN_ERANGE, 0},
        {54, 1448, 3999, 16, 4000, TN_ERANGE, 0},
        {54, 0xffff, 0, 0, 2, TN_OK, 2},
        {0xffff, 1448, 0xfffe, 16, TN_NET_FRAME_MAX, TN_OK, 0xffff},
        {0, 1448, 0xfffe, 16, TN_NET_FRAME_MAX, TN_OK, 0xffff},
        {0, 1448, 0xffff, 16, TN_NET_FRAME_MAX, TN_ERANGE, 0}, /* it cannot be said */
    };
    static const uint8_t type[] = {1, 4, 3, 5, 0x81, 0x84};

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        for (size_t k = 0; k < COUNT(type); k++) {
            struct tn_net_hdr h = {
                1, type[k], row[i].hdr_len, row[i].gso_size, row[i].start, row[i].offset, 0xffff};

            assert_int_equal(tn_net_hdr_check(&h, ALL, row[i].len), row[i].want);
            if (row[i].want != TN_OK)
                continue;
            assert_int_equal(h.hdr_len, row[i].is);
            assert_int_equal(h.gso_size, row[i].gso_size);
            assert_int_equal(h.gso_type, type[k]);
            assert_int_equal(h.num_buffers, 0);
        }
    }
}

static void what_may_not_be_open_is_refused(void **state)
{
    static const struct {
        uint8_t flags, type;
        uint32_t offloads;
        int want;
    } row[] = {
        {0, 0, 0, TN_OK},
        {2, 0, 0, TN_OK},
        {0xfc, 0, 0, TN_OK},
        {1, 0, 0, TN_EPROTO},
        {1, 0, ALL & ~1u, TN_EPROTO},
        {1, 1, TSO, TN_OK},
        {0, 1, TSO, TN_EPROTO}, /* each segment needs a checksum */
        {2, 1, TSO, TN_EPROTO},
        {1, 1, ALL & ~TN_NET_TSO4, TN_EPROTO},
        {1, 4, TN_NET_CSUM | TN_NET_TSO6, TN_OK},
        {1, 4, ALL & ~TN_NET_TSO6, TN_EPROTO},
        {1, 3, TN_NET_CSUM | TN_NET_UFO, TN_OK},
        {1, 3, ALL & ~TN_NET_UFO, TN_EPROTO},
        {1, 5, TN_NET_CSUM | TN_NET_USO, TN_OK},
        {1, 5, ALL & ~TN_NET_USO, TN_EPROTO},
        {1, 0x81, TSO | TN_NET_ECN, TN_OK},
        {1, 0x81, ALL & ~TN_NET_ECN, TN_EPROTO},
        {1, 0x84, ALL, TN_OK},
        {1, 0x84, ALL & ~TN_NET_ECN, TN_EPROTO},
        {1, 0x83, ALL, TN_EPROTO},
        {1, 0x85, ALL, TN_EPROTO},
        {1, 0x80, ALL, TN_EPROTO},
        {1, 2, ALL, TN_EPROTO},
        {1, 6, ALL, TN_EPROTO},
        {1, 0x7f, ALL, TN_EPROTO},
        {1, 0xff, ALL, TN_EPROTO},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct tn_net_hdr h = {row[i].flags, row[i].type, 54, 1448, 34, 6, 3};

        assert_int_equal(tn_net_hdr_check(&h, row[i].offloads, 4000), row[i].want);
        if (row[i].want == TN_OK)
            assert_int_equal(h.flags, row[i].flags & 3);
    }
}

/* What passed is what any backend may rely on; and it passes again, as it is. */
static void whatever_passes_fits(void **state)
{
    uint64_t x = 77;
    unsigned passed = 0;

    (void)state;
    for (unsigned i = 0; i < 300000; i++) {
        static const uint8_t types[] = {0, 1, 3, 4, 5, 0x81, 0x84, 2};
        uint32_t len = (uint32_t)(test_random(&x) % (i % 2 ? 100 : TN_NET_FRAME_MAX + 1));
        uint32_t offloads = (uint32_t)test_random(&x) % 64 | (i % 3 ? 1 : 0);
        uint16_t most = i % 5 ? 200 : 65535;
        struct tn_net_hdr h = {(uint8_t)test_random(&x),
                               types[test_random(&x) % 8],
                               (uint16_t)(test_random(&x) % most),
                               (uint16_t)(test_random(&x) % 3000),
                               (uint16_t)(test_random(&x) % most),
                               (uint16_t)(test_random(&x) % 20),
                               0},
                          again;

        if (tn_net_hdr_check(&h, offloads, len) < 0)
            continue;
        passed++;
        assert_true(h.flags <= 3);
        if (h.flags & 1)
            assert_true((offloads & 1) && h.csum_start + h.csum_offset + 2u <= len);
        else
            assert_int_equal(h.csum_start | h.csum_offset | h.gso_type, 0);
        if (h.gso_type)
            assert_true(h.gso_size > 0 && h.hdr_len <= len && h.csum_start < h.hdr_len);
        again = h;
        assert_int_equal(tn_net_hdr_check(&again, offloads, len), TN_OK);
        assert_memory_equal(&again, &h, sizeof(h));
    }
    assert_true(passed > 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_header_is_twelve_bytes_little_endian),
        cmocka_unit_test(c09_a_checksum_lies_in_the_frame),
        cmocka_unit_test(c10_headers_are_shorter_than_the_frame),
        cmocka_unit_test(what_may_not_be_open_is_refused),
        cmocka_unit_test(whatever_passes_fits),
    };

    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
