/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_net_filter.h"

#include "test.h"

#define OWN   "\x52\x54\x00\x01\x02\x03"
#define OTHER "\x52\x54\x00\x01\x02\x04"
#define ALL   "\xff\xff\xff\xff\xff\xff"
#define GROUP "\x33\x33\x00\x00\x00\x01"

static struct tn_net_filter own(uint32_t mode)
{
    struct tn_net_filter f;

    assert_int_equal(tn_net_filter_init(&f, (const uint8_t *)OWN), 0);
    assert_int_equal(tn_net_filter_set_mode(&f, TN_NET_FILTER_PROMISC, false), 0);
    assert_int_equal(tn_net_filter_set_mode(&f, mode, true), 0);
    return f;
}

/* A table whose address n is {first, 0, 0, 0, n >> 8, n}, on the heap, of exactly its length. */
static uint8_t *many(uint8_t first, uint32_t n)
{
    uint8_t bytes[6 * 200];

    assert_true(n <= 200);
    for (uint32_t i = 0; i < n; i++)
        memcpy(bytes + 6 * i, (uint8_t[]){first, 0, 0, 0, (uint8_t)(i >> 8), (uint8_t)i}, 6);
    return test_exact(bytes, 6 * n);
}

static void set_tables(struct tn_net_filter *f, uint32_t unis, uint32_t multis)
{
    uint8_t *uni = many(2, unis <= TN_NET_FILTER_MACS ? unis : 0);
    uint8_t *multi = many(1, multis <= TN_NET_FILTER_MACS ? multis : 0);

    tn_net_filter_set_tables(f, uni, unis, multi, multis);
    free(uni);
    free(multi);
}

static bool tagged(const struct tn_net_filter *f, const char *to, uint32_t type, uint32_t tag)
{
    uint8_t head[TN_NET_FILTER_HEAD] = {0}, *copy;
    bool wanted;

    memcpy(head, to, 6);
    memcpy(head + 6, OTHER, 6);
    head[12] = (uint8_t)(type >> 8);
    head[13] = (uint8_t)type;
    head[14] = (uint8_t)(tag >> 8);
    head[15] = (uint8_t)tag;
    assert_int_equal(tn_net_filter_is_tagged(head), type == 0x8100);
    copy = test_exact(head, sizeof(head));
    wanted = tn_net_filter_wants(f, copy);
    free(copy);
    return wanted;
}

static bool wants(const struct tn_net_filter *f, const char *to)
{
    return tagged(f, to, 0x800, 0);
}

static void a_group_or_nobody_is_no_station(void **state)
{
    static const struct {
        const char *mac;
        bool is;
    } row[] = {
        {"\0\0\0\0\0\0", false}, {"\1\0\0\0\0\0", false}, {ALL, false}, {GROUP, false},
        {"\0\0\0\0\0\1", true},  {"\0\0\1\0\0\0", true},  {OWN, true},  {"\xfe\0\0\0\0\0", true},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        const uint8_t *mac = (const uint8_t *)row[i].mac;
        struct tn_net_filter f = own(0);
        int want = row[i].is ? 0 : TN_EINVAL;

        assert_int_equal(tn_net_filter_is_station(mac), row[i].is);
        assert_int_equal(tn_net_filter_set_mac(&f, mac), want);
        assert_memory_equal(f.mac, row[i].is ? mac : (const uint8_t *)OWN, 6);
        assert_int_equal(tn_net_filter_init(&f, mac), want);
        assert_int_equal(f.mode, TN_NET_FILTER_PROMISC);
        assert_true(wants(&f, OTHER));
    }
}

static void a_new_filter_lets_all_in(void **state)
{
    struct tn_net_filter f;

    (void)state;
    memset(&f, 0xff, sizeof(f));
    assert_int_equal(tn_net_filter_init(&f, (const uint8_t *)OWN), 0);
    f.vlans = true;
    assert_true(wants(&f, OWN) && wants(&f, OTHER) && wants(&f, ALL) && wants(&f, GROUP));
    assert_true(tagged(&f, OTHER, 0x8100, 5));
    assert_int_equal(tn_net_filter_set_mode(&f, 63 & ~1u, true), 0);
    assert_true(wants(&f, OWN) && wants(&f, OTHER) && wants(&f, ALL) && wants(&f, GROUP));
    assert_int_equal(tn_net_filter_set_mode(&f, 63, false), 0);
    assert_true(wants(&f, OWN) && wants(&f, ALL));
    assert_false(wants(&f, OTHER) || wants(&f, GROUP));
    assert_false(tagged(&f, OWN, 0x8100, 5));
}

static void modes_are_switched_one_by_one(void **state)
{
    (void)state;
    for (uint32_t mode = 0; mode < 300; mode++) {
        struct tn_net_filter f = own(0);

        f.mode = 0xd2;
        assert_int_equal(tn_net_filter_set_mode(&f, mode, true), mode < 64 ? 0 : TN_EINVAL);
        assert_int_equal(f.mode, mode < 64 ? 0xd2 | mode : 0xd2);
        f.mode = 0xeb;
        assert_int_equal(tn_net_filter_set_mode(&f, mode, false), mode < 64 ? 0 : TN_EINVAL);
        assert_int_equal(f.mode, mode < 64 ? 0xeb & ~mode : 0xeb);
        assert_int_equal(tn_net_filter_set_mode(&f, mode << 8 | 0x80000000u, true), TN_EINVAL);
    }
}

static void frames_are_wanted_by_mode_and_table(void **state)
{
    static const char *const to[] = {OWN, OTHER, ALL, GROUP, "\2\0\0\0\0\0", "\1\0\0\0\0\0"};
    static const struct {
        uint8_t mode;
        bool tables;
        const char *in; /* of the six above */
    } row[] = {
        {0x00, false, "y.y..."}, {0x00, true, "y.y.yy"},  {0x01, false, "yyyyyy"},
        {0x02, false, "y.yy.y"}, {0x04, false, "yyy.y."}, {0x08, true, "y.y.y."},
        {0x0a, true, "y.y.y."},  {0x10, true, "..y..y"},  {0x14, true, "..y..y"},
        {0x20, true, "y...yy"},  {0x38, true, "......"},  {0x39, false, "yyyyyy"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct tn_net_filter f = own(row[i].mode);

        set_tables(&f, row[i].tables, row[i].tables);
        for (unsigned k = 0; k < COUNT(to); k++)
            assert_int_equal(wants(&f, to[k]), row[i].in[k] == 'y');
    }
}

static void every_byte_of_an_address_counts(void **state)
{
    struct tn_net_filter f = own(0);

    (void)state;
    tn_net_filter_set_tables(&f, (const uint8_t *)OTHER, 1, (const uint8_t *)GROUP, 1);
    assert_true(wants(&f, OTHER) && wants(&f, GROUP));
    for (unsigned i = 1; i < 48; i++) {
        char mac[6], other[6], all[6], group[6];

        memcpy(mac, OWN, 6);
        memcpy(other, OTHER, 6);
        memcpy(all, ALL, 6);
        memcpy(group, GROUP, 6);
        mac[i / 8] = (char)(mac[i / 8] ^ 1 << i % 8);
        other[i / 8] = (char)(other[i / 8] ^ 1 << i % 8);
        all[i / 8] = (char)(all[i / 8] ^ 1 << i % 8);
        group[i / 8] = (char)(group[i / 8] ^ 1 << i % 8);
        assert_false(wants(&f, mac) || wants(&f, other) || wants(&f, all) || wants(&f, group));
    }
}

static void c15_a_table_that_does_not_fit_lets_its_kind_in(void **state)
{
    static const struct {
        uint32_t unis, multis, is_uni, is_multi, over; /* 1: unicast, 2: multicast */
    } row[] = {
        {0, 0, 0, 0, 0},     {3, 2, 3, 2, 0},    {64, 0, 64, 0, 0},        {0, 64, 0, 64, 0},
        {40, 24, 40, 24, 0}, {40, 25, 40, 0, 2}, {64, 1, 64, 0, 2},        {65, 5, 0, 5, 1},
        {65, 64, 0, 64, 1},  {65, 65, 0, 0, 3},  {0xffffffff, 1, 0, 1, 1}, {1, 0xffffffff, 1, 0, 2},
        {256, 256, 0, 0, 3}, {64, 64, 64, 0, 2},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct tn_net_filter f = own(TN_NET_FILTER_NOBCAST);

        set_tables(&f, 64, 0); /* which is forgotten */
        set_tables(&f, row[i].unis, row[i].multis);
        assert_int_equal(f.uni, row[i].is_uni);
        assert_int_equal(f.multi, row[i].is_multi);
        assert_int_equal(f.mode, TN_NET_FILTER_NOBCAST | row[i].over << 6);
        for (uint32_t k = 0; k < TN_NET_FILTER_MACS; k++) {
            char uni[6] = {2, 0, 0, 0, 0, (char)k}, multi[6] = {1, 0, 0, 0, 0, (char)k};

            assert_int_equal(wants(&f, uni), k < row[i].is_uni || row[i].over % 2);
            assert_int_equal(wants(&f, multi), k < row[i].is_multi || row[i].over / 2);
            if (k >= row[i].is_uni + row[i].is_multi)
                assert_memory_equal(f.table[k], "\0\0\0\0\0\0", 6);
        }
        set_tables(&f, 1, 1);
        assert_int_equal(f.mode, TN_NET_FILTER_NOBCAST);
    }
}

static void of_tagged_frames_those_pass_that_were_named(void **state)
{
    struct tn_net_filter f = own(0);

    (void)state;
    assert_true(tagged(&f, OWN, 0x8100, 5)); /* nobody asked for VLANs */
    f.vlans = true;
    for (uint32_t vid = 0; vid < 4096; vid++)
        assert_int_equal(tagged(&f, OWN, 0x8100, vid), vid == 0); /* 0: a priority, and no VLAN */
    assert_true(tagged(&f, OWN, 0x8100, 0xe000));
    assert_true(tagged(&f, OWN, 0x0800, 5));
    assert_true(tagged(&f, OWN, 0x88a8, 5));
    assert_int_equal(tn_net_filter_set_vlan(&f, 4096, true), TN_EINVAL);
    assert_int_equal(tn_net_filter_set_vlan(&f, UINT32_MAX, false), TN_EINVAL);
    for (uint32_t named = 0; named < 4096; named += named < 17 ? 1 : 255) {
        assert_int_equal(tn_net_filter_set_vlan(&f, named, true), 0);
        for (uint32_t vid = 1; vid < 4096; vid++)
            assert_int_equal(tagged(&f, OWN, 0x8100, vid | 0xf000), vid == named);
        assert_false(tagged(&f, OTHER, 0x8100, named));
        assert_int_equal(tn_net_filter_set_vlan(&f, named, false), 0);
    }
    for (uint32_t vid = 0; vid < 4096; vid++)
        assert_int_equal(tn_net_filter_set_vlan(&f, vid, true), 0);
    assert_int_equal(tn_net_filter_set_vlan(&f, 13, false), 0);
    for (uint32_t vid = 1; vid < 4096; vid++)
        assert_int_equal(tagged(&f, OWN, 0x8100, vid), vid != 13);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_group_or_nobody_is_no_station),
        cmocka_unit_test(a_new_filter_lets_all_in),
        cmocka_unit_test(modes_are_switched_one_by_one),
        cmocka_unit_test(frames_are_wanted_by_mode_and_table),
        cmocka_unit_test(every_byte_of_an_address_counts),
        cmocka_unit_test(c15_a_table_that_does_not_fit_lets_its_kind_in),
        cmocka_unit_test(of_tagged_frames_those_pass_that_were_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
