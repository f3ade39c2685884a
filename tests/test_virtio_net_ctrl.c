/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The control queue of tn_virtio_net.
 */
#include "tn_virtio_net.h"

#include "net_driver.h"

static void commands_that_make_no_sense_are_refused(void **state)
{
    static const struct {
        uint8_t class, command;
        uint8_t data[10];
        uint32_t len;
        uint64_t need; /* features without which it is refused too */
        bool good;
    } row[] = {
        {0, 0, {1}, 1, F(CTRL_RX), true},
        {0, 0, {2}, 1, 0, false},
        {0, 0, {1}, 0, 0, false},
        {0, 0, {1}, 2, 0, false},
        {0, 1, {1}, 1, F(CTRL_RX), true},
        {0, 2, {1}, 1, F(CTRL_RX_EXTRA), true},
        {0, 3, {0}, 1, F(CTRL_RX_EXTRA), true},
        {0, 4, {1}, 1, F(CTRL_RX_EXTRA), true},
        {0, 5, {1}, 1, F(CTRL_RX_EXTRA), true},
        {0, 6, {1}, 1, 0, false},
        {0, 255, {1}, 1, 0, false},
        {1, 1, {2, 1, 2, 3, 4, 5}, 6, F(CTRL_MAC_ADDR), true},
        {1, 1, {2, 1, 2, 3, 4, 5}, 5, 0, false},
        {1, 1, {2, 1, 2, 3, 4, 5}, 7, 0, false},
        {1, 1, {1, 1, 2, 3, 4, 5}, 6, 0, false}, /* a group's */
        {1, 1, {0}, 6, 0, false},
        {1, 2, {0}, 6, 0, false},
        {2, 0, {0xff, 0x0f}, 2, F(CTRL_VLAN), true},
        {2, 1, {0xff, 0x0f}, 2, F(CTRL_VLAN), true},
        {2, 0, {0x00, 0x10}, 2, 0, false},
        {2, 1, {0xff, 0xff}, 2, 0, false},
        {2, 0, {1}, 1, 0, false},
        {2, 0, {1}, 3, 0, false},
        {2, 2, {1}, 2, 0, false},
        {3, 0, {0}, 0, F(GUEST_ANNOUNCE), true},
        {3, 0, {0}, 1, 0, false},
        {3, 1, {0}, 0, 0, false},
        {4, 0, {1}, 2, F(MQ), true},
        {4, 0, {PAIRS}, 2, F(MQ), true},
        {4, 0, {0}, 2, 0, false}, /* C15 */
        {4, 0, {PAIRS + 1}, 2, 0, false},
        {4, 0, {1, 0x80}, 2, 0, false},
        {4, 0, {0xff, 0xff}, 2, 0, false},
        {4, 0, {1}, 1, 0, false},
        {4, 0, {1}, 3, 0, false},
        {4, 1, {1}, 2, 0, false},
        {5, 0, {2}, 8, F(CTRL_GUEST_OFFLOADS), true},
        {5, 0, {0}, 8, F(CTRL_GUEST_OFFLOADS), true},
        {5, 0, {0x82, 0, 0, 0, 0, 0, 0xc0}, 8, 0, true},
        {5, 0, {1}, 8, 0, false},             /* CSUM is none of the guest's */
        {5, 0, {0, 0, 0, 0, 1}, 8, 0, false}, /* VERSION_1 */
        {5, 0, {2}, 7, 0, false},
        {5, 0, {2}, 9, 0, false},
        {5, 1, {2}, 8, 0, false},
        {6, 0, {0}, 0, 0, false},
        {255, 255, {0}, 8, 0, false},
    };
    struct rig *r = rig_new();

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        for (size_t i = 0; i < COUNT(row); i++) {
            up_as(r, EVERY | all_rings[k], SIZE);
            assert_int_equal(command(r, row[i].class, row[i].command, row[i].data, row[i].len),
                             !row[i].good);
            assert_int_equal(
                command_cut(r, row[i].class, row[i].command, row[i].data, row[i].len, 1),
                !row[i].good);
            if (row[i].need == 0)
                continue;
            up_as(r,
                  (EVERY | all_rings[k]) &
                      ~(row[i].need | (row[i].need == F(CTRL_RX) ? F(CTRL_RX_EXTRA) : 0)),
                  SIZE);
            assert_int_equal(command(r, row[i].class, row[i].command, row[i].data, row[i].len), 1);
        }
    }
    works_again(r, EVERY);
    rig_free(r);
}

static void a_command_without_a_head_is_refused(void **state)
{
    struct rig *r = rig_up(EVERY);
    uint32_t len;

    (void)state;
    for (uint32_t n = 0; n < 2; n++) {
        struct vqd_buf buf[2] = {{DATA, n, false}, {DATA + 8, 3, true}};
        uint8_t ack[3] = {0xee, 0xee, 0xee};

        poke(r, DATA + 8, ack, 3);
        assert_true(vd_request(&r->d, 2 * PAIRS, buf, 2, &len));
        assert_int_equal(len, 1);
        peek(r, DATA + 8, ack, 3);
        assert_int_equal(ack[0] << 16 | ack[1] << 8 | ack[2], 0x01eeee);
    }
    rig_free(r);
}

static void c15_counts_of_the_tables_are_checked(void **state)
{
    static const struct {
        uint32_t uni, multi, say_uni, say_multi;
        int32_t more;
        bool good;
        uint32_t is_uni, is_multi, over; /* 1: unicast, 2: multicast */
    } row[] = {
        {0, 0, 0, 0, 0, true, 0, 0, 0},
        {3, 2, 3, 2, 0, true, 3, 2, 0},
        {64, 0, 64, 0, 0, true, 64, 0, 0},
        {0, 64, 0, 64, 0, true, 0, 64, 0},
        {40, 24, 40, 24, 0, true, 40, 24, 0},
        {40, 25, 40, 25, 0, true, 40, 0, 2},
        {65, 5, 65, 5, 0, true, 0, 5, 1},
        {100, 100, 100, 100, 0, true, 0, 0, 3},
        {3, 2, 3, 2, 1, false, 0, 0, 0},
        {3, 2, 3, 2, -1, false, 0, 0, 0},
        {3, 2, 4, 2, 0, false, 0, 0, 0},
        {3, 2, 2, 2, 0, false, 0, 0, 0},
        {3, 2, 3, 1, 0, false, 0, 0, 0},
        {3, 2, 3, 3, 0, false, 0, 0, 0},
        {3, 2, 0xffffffff, 2, 0, false, 0, 0, 0},
        {3, 2, 0x80000000, 2, 0, false, 0, 0, 0},
        {3, 2, 3, 0xffffffff, 0, false, 0, 0, 0},
        {3, 2, 0x2aaaaaad, 2, 0, false, 0, 0, 0}, /* 6 times this is 14 in 32 bits */
        {3, 2, 3, 0x2aaaaaac, 0, false, 0, 0, 0},
        {0, 0, 0, 0, -8, false, 0, 0, 0},
        {0, 0, 0, 0, -4, false, 0, 0, 0},
    };
    struct rig *r = rig_up(EVERY);

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct tn_net_filter *f = &r->n.filter;

        assert_int_equal(tables(r, 1, 1, 1, 1, 0), 0);
        assert_int_equal(
            tables(r, row[i].uni, row[i].multi, row[i].say_uni, row[i].say_multi, row[i].more),
            !row[i].good);
        assert_int_equal(f->uni, row[i].good ? row[i].is_uni : 1);
        assert_int_equal(f->multi, row[i].good ? row[i].is_multi : 1);
        assert_int_equal(f->mode >> 6, row[i].over);
    }
    rig_free(r);
}

static void the_filter_is_the_drivers(void **state)
{
    static const char own[] = "52:54:00:01:02:03", other[] = "52:54:00:01:02:04";
    static const char *const to[] = {own,
                                     other,
                                     "ff:ff:ff:ff:ff:ff",
                                     "33:33:00:00:00:01",
                                     "02:00:00:00:00:00",
                                     "01:00:00:00:00:00"};
    static const struct {
        uint8_t mode;   /* as commands set it */
        const char *in; /* of the six above; both tables have one */
    } row[] = {
        {0x00, "y.y.yy"}, {0x01, "yyyyyy"}, {0x02, "y.yyyy"}, {0x04, "yyy.yy"},
        {0x08, "y.y.y."}, {0x10, "..y..y"}, {0x20, "y...yy"}, {0x39, "yyyyyy"},
    };
    struct rig *r = rig_up(EVERY);

    (void)state;
    for (unsigned i = 0; i < 6; i++)
        assert_true(comes(r, to[i], 0x800, 0)); /* all, until the driver says otherwise */
    assert_int_equal(tables(r, 1, 1, 1, 1, 0), 0);
    for (size_t i = 0; i < COUNT(row); i++) {
        for (uint8_t bit = 0; bit < 6; bit++) {
            uint8_t on = row[i].mode >> bit & 1;

            assert_int_equal(command(r, 0, bit, &on, 1), 0);
        }
        for (unsigned j = 0; j < 6; j++)
            assert_int_equal(comes(r, to[j], 0x800, 0), row[i].in[j] == 'y');
    }
    for (uint8_t bit = 0; bit < 6; bit++)
        assert_int_equal(command(r, 0, bit, "\0", 1), 0);
    assert_int_equal(tables(r, 63, 1, 63, 1, 0), 0);
    assert_true(comes(r, "02:00:00:00:00:3e", 0x800, 0));
    assert_true(comes(r, "01:00:00:00:00:00", 0x800, 0));
    assert_false(comes(r, "02:00:00:00:00:3f", 0x800, 0));
    assert_int_equal(command(r, 1, 1, "\x02\x00\x00\x00\x00\x77", 6), 0); /* another address */
    assert_true(comes(r, "02:00:00:00:00:77", 0x800, 0));
    assert_false(comes(r, own, 0x800, 0));
    assert_int_equal(tn_virtio_config_read(&r->n.virtio, 4, 2), 0x7700);
    vd_reset(&r->d);
    assert_int_equal(tn_virtio_config_read(&r->n.virtio, 0, 4), 0x01005452);
    up_as(r, EVERY, SIZE);
    assert_true(comes(r, other, 0x800, 0));
    rig_free(r);
}

static void of_tagged_frames_those_that_were_named_come(void **state)
{
    static const char own[] = "52:54:00:01:02:03";
    struct rig *r = rig_up(EVERY);

    (void)state;
    assert_int_equal(command(r, 0, 0, "\0", 1), 0);
    assert_false(comes(r, own, 0x8100, 5));
    assert_int_equal(command(r, 2, 0, "\x05\x00", 2), 0);
    assert_int_equal(command(r, 2, 0, "\xff\x0f", 2), 0);
    assert_true(comes(r, own, 0x8100, 5));
    assert_int_equal(command(r, 2, 1, "\x05\x00", 2), 0);
    assert_false(comes(r, own, 0x8100, 5));
    assert_true(comes(r, own, 0x8100, 0xfff));
    up_as(r, EVERY & ~F(CTRL_VLAN), SIZE);
    assert_int_equal(command(r, 0, 0, "\0", 1), 0);
    assert_true(comes(r, own, 0x8100, 5));
    rig_free(r);
}

static void c14_commands_end_their_turn(void **state)
{
    struct rig *r = rig_up(EVERY);
    struct vqd_buf buf[2] = {{DATA, 4, false}, {DATA + 8, 1, true}};
    uint32_t len, n;

    (void)state;
    poke(r, DATA, "\4\0\2\0", 4);
    r->sim.sets = 0;
    for (unsigned i = 0; i < 30; i++)
        assert_true(vd_add(&r->d, 2 * PAIRS, buf, 2) >= 0);
    vd_kick(&r->d, 2 * PAIRS);
    vd_kick(&r->d, 2 * PAIRS);
    assert_int_equal(r->sim.sets, TN_VIRTIO_NET_COMMANDS);
    assert_int_equal(r->timer, 0);
    loop(r);
    for (n = 0; vqd_reap(&r->d.q[2 * PAIRS], &len) >= 0; n++)
        ;
    assert_int_equal(n, 30);
    assert_int_equal(r->sim.sets, 30);
    rig_free(r);
}

static void the_control_queue_is_behind_all_pairs_or_the_first(void **state)
{
    struct rig *r = rig_new();
    uint8_t on = 0;

    (void)state;
    up_as(r, EVERY, SIZE); /* 5.1.2 */
    assert_int_equal(command(r, 0, 0, &on, 1), 0);
    up_as(r, EVERY & ~F(MQ), SIZE);
    assert_int_equal(command(r, 0, 0, &on, 1), 0);
    assert_int_equal(tn_virtio_net_control_at_(F(MQ), 7), 14);
    assert_int_equal(tn_virtio_net_control_at_(0, 7), 2);
    up_as(r, F(MAC), SIZE); /* none at all: nothing answers */
    assert_int_equal(command(r, 0, 0, &on, 1), 0xee);
    assert_true(tn_virtio_live(&r->n.virtio));
    rig_free(r);
}

static void pairs_come_into_use_and_go(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(EVERY | all_rings[k]);
        uint8_t pairs[2] = {3, 0};

        assert_int_equal(r->sim.pairs, 1);
        for (unsigned p = 0; p < PAIRS; p++) {
            for (unsigned i = 0; i < 17; i++)
                give(r, p, 4096);
            kick(r, 2 * p);
            put(r, p, 100, p);
            send_at(r, p, NULL, 80, p);
            kick(r, 2 * p + 1);
        }
        loop(r);
        assert_int_equal(r->sim.out[0].count, 1);
        assert_int_equal(r->sim.out[1].count, 0);
        got(r, 0, 100, 0);
        none(&r->d.q[2]);
        assert_int_equal(command(r, 4, 0, pairs, 2), 0);
        assert_int_equal(r->sim.pairs, 3);
        loop(r);
        for (unsigned p = 1; p < 3; p++) {
            assert_int_equal(r->sim.out[p].count, 1);
            got(r, p, 100, p);
            assert_true(r->readable[p]);
        }
        assert_int_equal(r->sim.out[3].count, 0);
        none(&r->d.q[6]);
        pairs[0] = 1;
        assert_int_equal(command(r, 4, 0, pairs, 2), 0);
        assert_int_equal(r->sim.pairs, 1);
        assert_false(r->readable[1] || r->readable[2]);
        for (unsigned p = 1; p < PAIRS; p++)
            assert_int_equal(tn_virtq_in_flight(&r->n.queue[2 * p].q), 0);
        tn_virtio_net_receive(&r->n, 2); /* called late, for nothing */
        tn_virtio_net_transmit(&r->n, 2);
        tn_virtio_net_receive(&r->n, 77);
        tn_virtio_net_transmit(&r->n, UINT32_MAX);
        r->sim.set_error = TN_ESYS;
        pairs[0] = 2;
        assert_int_equal(command(r, 4, 0, pairs, 2), 1);
        assert_int_equal(r->n.active, 1);
        r->sim.set_error = 0;
        pairs[0] = PAIRS;
        assert_int_equal(command(r, 4, 0, pairs, 2), 0);
        vd_reset(&r->d);
        assert_int_equal(r->sim.pairs, 1);
        assert_int_equal(r->sim.offloads, 0);
        works_again(r, EVERY | all_rings[k]);
        rig_free(r);
    }
}

static void the_backend_learns_of_the_offloads(void **state)
{
    static const struct {
        uint64_t features;
        uint32_t offloads;
    } row[] = {
        {0, 0},
        {F(GUEST_CSUM), TN_NET_CSUM},
        {F(GUEST_CSUM) | F(GUEST_TSO4), TN_NET_CSUM | TN_NET_TSO4},
        {F(GUEST_CSUM) | F(GUEST_TSO6) | F(GUEST_ECN), TN_NET_CSUM | TN_NET_TSO6 | TN_NET_ECN},
        {F(GUEST_CSUM) | F(GUEST_UFO), TN_NET_CSUM | TN_NET_UFO},
        {F(GUEST_CSUM) | F(GUEST_USO4), TN_NET_CSUM},
        {F(GUEST_CSUM) | F(GUEST_USO4) | F(GUEST_USO6), TN_NET_CSUM | TN_NET_USO},
        {GUEST_ALL, ALL},
    };
    struct rig *r = rig_new();
    uint8_t data[8];

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        up_as(r, row[i].features, SIZE);
        assert_int_equal(r->sim.offloads, row[i].offloads);
    }
    up_as(r, EVERY, SIZE);
    for (size_t i = 0; i < COUNT(row); i++) {
        tn_put_(data, 8, row[i].features);
        assert_int_equal(command(r, 5, 0, data, 8), 0);
        assert_int_equal(r->sim.offloads, row[i].offloads);
        assert_int_equal(r->n.need > 60000, (row[i].offloads & ~9u) != 0);
    }
    tn_put_(data, 8, F(GUEST_TSO4)); /* which mean nothing without checksums */
    assert_int_equal(command(r, 5, 0, data, 8), 0);
    assert_int_equal(r->sim.offloads, 0);
    r->sim.set_error = TN_ESYS;
    tn_put_(data, 8, GUEST_ALL);
    assert_int_equal(command(r, 5, 0, data, 8), 1);
    assert_int_equal(r->n.rx_offloads, 0);
    vd_reset(&r->d);
    assert_false(vd_up(&r->d, EVERY, 9, SIZE)); /* it cannot be started so */
    assert_int_equal(vd_status(&r->d), 15 | TN_VIRTIO_S_NEEDS_RESET);
    works_again(r, EVERY);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_that_make_no_sense_are_refused),
        cmocka_unit_test(a_command_without_a_head_is_refused),
        cmocka_unit_test(c15_counts_of_the_tables_are_checked),
        cmocka_unit_test(the_filter_is_the_drivers),
        cmocka_unit_test(of_tagged_frames_those_that_were_named_come),
        cmocka_unit_test(c14_commands_end_their_turn),
        cmocka_unit_test(the_control_queue_is_behind_all_pairs_or_the_first),
        cmocka_unit_test(pairs_come_into_use_and_go),
        cmocka_unit_test(the_backend_learns_of_the_offloads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
