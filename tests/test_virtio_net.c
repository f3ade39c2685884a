/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_virtio_net.h"

#include "net_driver.h"

/* ---- what the driver is told ---- */

static void a_bad_cfg_is_refused(void **state)
{
    struct rig *r = rig_new();
    struct tn_net net = r->sim.net;
    struct tn_virtio_net_cfg cfg;

    (void)state;
    for (int i = 0; i < 19; i++) {
        cfg = rig_cfg(r);
        cfg.net = &net;
        net = r->sim.net;
        switch (i) {
        case 0:
            cfg.mem = NULL;
            break;
        case 1:
            cfg.net = NULL;
            break;
        case 2:
            net.ops = NULL;
            break;
        case 3:
            cfg.pair = NULL;
            break;
        case 4:
            cfg.pairs = 0;
            break;
        case 5:
            cfg.pairs = PAIRS + 1; /* more than the backend has */
            break;
        case 6:
            net.pairs = 100;
            cfg.pairs = TN_VIRTIO_NET_PAIRS_MAX + 1;
            break;
        case 7:
            cfg.queue_size = 0;
            break;
        case 8:
            cfg.queue_size = 12;
            break;
        case 9:
            cfg.queue_size = 2 * TN_VIRTIO_NET_QUEUE_MAX;
            break;
        case 10:
            cfg.mac[0] = 1;
            break;
        case 11:
            memset(cfg.mac, 0, 6);
            break;
        case 12:
            cfg.mtu = 67;
            break;
        case 13:
            cfg.ring_features = TN_VIRTIO_NET_F_CSUM;
            break;
        case 14:
            cfg.now = NULL;
            break;
        case 15:
            cfg.wake = NULL;
            break;
        case 16:
            cfg.poll = NULL;
            break;
        case 17:
            cfg.ring_features = TN_VIRTIO_F_IN_ORDER;
            break;
        default:
            memset(cfg.mac, 0xff, 6);
        }
        assert_int_equal(tn_virtio_net_init(&r->n, &cfg), TN_EINVAL);
    }
    r->sim.set_error = TN_ESYS;
    cfg = rig_cfg(r);
    assert_int_equal(tn_virtio_net_init(&r->n, &cfg), TN_ESYS);
    r->sim.set_error = 0;
    cfg.mtu = 68;
    cfg.queue_size = TN_VIRTIO_NET_QUEUE_MAX;
    assert_int_equal(tn_virtio_net_init(&r->n, &cfg), 0);
    rig_free(r);
}

#define BASE                                                                          \
    (F(MAC) | F(STATUS) | F(MRG_RXBUF) | F(CTRL_VQ) | F(CTRL_RX) | F(CTRL_RX_EXTRA) | \
     F(CTRL_VLAN) | F(CTRL_MAC_ADDR) | F(GUEST_ANNOUNCE))
#define HOST_ALL (F(CSUM) | F(HOST_TSO4) | F(HOST_TSO6) | F(HOST_ECN) | F(HOST_UFO) | F(HOST_USO))

static void the_offer_follows_backend_and_cfg(void **state)
{
    static const struct {
        uint32_t tx, rx, pairs, mtu;
        uint64_t hide, want;
    } row[] = {
        {0, 0, 1, 0, 0, BASE},
        {0, 0, 2, 0, 0, BASE | F(MQ)},
        {0, 0, 1, 1500, 0, BASE | F(MTU)},
        {1, 0, 1, 0, 0, BASE | F(CSUM)},
        {ALL, 0, 1, 0, 0, BASE | HOST_ALL},
        {0, ALL, 1, 0, 0, BASE | GUEST_ALL | F(CTRL_GUEST_OFFLOADS)},
        {ALL & ~1u, ALL & ~1u, 1, 0, 0, BASE}, /* nothing goes without checksums */
        {1 | 8, 1 | 8, 1, 0, 0, BASE | F(CSUM) | F(GUEST_CSUM) | F(CTRL_GUEST_OFFLOADS)},
        {1 | 2 | 8, 1 | 4 | 8, 1, 0, F(CTRL_GUEST_OFFLOADS),
         BASE | F(CSUM) | F(HOST_TSO4) | F(HOST_ECN) | F(GUEST_CSUM) | F(GUEST_TSO6) |
             F(GUEST_ECN)},
        {ALL, ALL, 4, 1500, F(CTRL_VQ),
         F(MAC) | F(STATUS) | F(MRG_RXBUF) | F(MTU) | GUEST_ALL | HOST_ALL},
        {0, 0, 1, 0, F(CTRL_RX), BASE & ~(F(CTRL_RX) | F(CTRL_RX_EXTRA))},
        {0, 0, 1, 0, ~0ull, 0},
    };
    struct rig *r = rig_new();

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct tn_virtio_net_cfg cfg = rig_cfg(r);

        sim_init(&r->sim, row[i].tx, row[i].rx, row[i].pairs);
        cfg.pairs = row[i].pairs;
        cfg.mtu = (uint16_t)row[i].mtu;
        cfg.hide = row[i].hide;
        cfg.ring_features = 0;
        rig_device(r, &cfg);
        assert_int_equal(r->n.virtio.cfg.features, row[i].want | TN_VIRTIO_F_VERSION_1);
        assert_int_equal(r->n.virtio.cfg.queues, 2 * row[i].pairs + 1);
    }
    rig_free(r);
}

/* 5.1.3.1 */
static void features_without_what_they_need_are_refused(void **state)
{
    static const struct {
        uint64_t features;
        bool good;
    } row[] = {
        {0, true},
        {F(GUEST_TSO4), false},
        {F(GUEST_TSO6), false},
        {F(GUEST_UFO), false},
        {F(GUEST_USO4), false},
        {F(GUEST_USO6), false},
        {F(GUEST_CSUM) | F(GUEST_TSO4), true},
        {F(GUEST_CSUM) | F(GUEST_ECN), false},
        {F(GUEST_CSUM) | F(GUEST_UFO) | F(GUEST_ECN), false},
        {F(GUEST_CSUM) | F(GUEST_TSO6) | F(GUEST_ECN), true},
        {F(GUEST_CSUM) | F(GUEST_USO4), true},
        {F(HOST_TSO4), false},
        {F(HOST_TSO6), false},
        {F(HOST_UFO), false},
        {F(HOST_USO), false},
        {F(GUEST_CSUM) | F(HOST_TSO4), false},
        {F(CSUM) | F(HOST_USO), true},
        {F(CSUM) | F(HOST_ECN), false},
        {F(CSUM) | F(HOST_TSO4) | F(HOST_ECN), true},
        {F(CTRL_RX), false},
        {F(CTRL_VLAN), false},
        {F(GUEST_ANNOUNCE), false},
        {F(MQ), false},
        {F(CTRL_MAC_ADDR), false},
        {F(CTRL_VQ) | F(CTRL_RX_EXTRA), false},
        {F(CTRL_VQ) | F(CTRL_RX) | F(CTRL_RX_EXTRA), true},
        {F(CTRL_VQ) | F(MQ) | F(CTRL_MAC_ADDR) | F(GUEST_ANNOUNCE) | F(CTRL_VLAN), true},
    };
    struct rig *r = rig_new();

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        assert_int_equal(vd_negotiate(&r->d, row[i].features), row[i].good);
        if (!row[i].good)
            assert_int_equal(vd_status(&r->d), 3);
    }
    works_again(r, EVERY);
    rig_free(r);
}

static void b01_the_configuration_space_is_twelve_bytes(void **state)
{
    static const struct {
        uint32_t off, width, want;
    } row[] = {
        {0, 4, 0x01005452}, {4, 2, 0x0302}, {6, 2, 1},  {8, 2, PAIRS},      {10, 2, 1500},
        {12, 4, 0},         {11, 2, 0},     {12, 1, 0}, {UINT32_MAX, 4, 0}, {0, 8, 0},
    };
    struct rig *r = rig_up(EVERY);

    (void)state;
    tn_virtio_config_write(&r->n.virtio, 0, 4, 0); /* 5.1.4: read-only */
    tn_virtio_config_write(&r->n.virtio, 6, 2, 0);
    for (size_t i = 0; i < COUNT(row); i++)
        assert_int_equal(tn_virtio_config_read(&r->n.virtio, row[i].off, row[i].width),
                         row[i].want);
    assert_int_equal(r->n.virtio.cfg.device_id, 1);
    rig_free(r);
}

static void c07_one_function_says_how_long_the_header_is(void **state)
{
    struct rig *r;

    (void)state;
    assert_int_equal(tn_virtio_net_hdr_len_(TN_VIRTIO_F_VERSION_1), 12);
    assert_int_equal(tn_virtio_net_hdr_len_(TN_VIRTIO_F_VERSION_1 | F(MRG_RXBUF)), 12);
    assert_int_equal(tn_virtio_net_hdr_len_(F(MRG_RXBUF)), 12);
    assert_int_equal(tn_virtio_net_hdr_len_(0), 10);
    assert_int_equal(tn_virtio_net_hdr_len_(~0ull), 12); /* as long as the buffer, at most */
    for (unsigned i = 0; i < 2; i++) {
        r = rig_up(i ? EVERY : NO_MRG);
        assert_int_equal(r->n.hdr_len, 12);
        assert_int_equal(r->n.virtio.cfg.features & 1ull << 57, 0); /* HASH_REPORT */
        rig_free(r);
    }
}

/* ---- sending ---- */

static void frames_arrive_whole_however_they_are_cut(void **state)
{
    static uint8_t f[70000];
    static const struct tn_net_hdr zero;

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(EVERY | all_rings[k]);

        for (uint32_t i = 0; i < 200; i++) {
            /* The first cut goes through the header; the frame crosses from region to region. */
            uint32_t len = i < 60 ? 60 : 200 * i, a = i % 30, b = (i * 37) % (len + 12 - a);
            uint64_t at = i % 3 ? DATA : RAM - 11 - i;
            struct vqd_buf buf[4] = {{at, a, false},
                                     {at + a, b, false},
                                     {at, 0, false},
                                     {at + a + b, len + 12 - a - b, false}};
            struct sim_frame *got_it;

            tn_net_hdr_put(&zero, f);
            make_frame(f + 12, len, i);
            poke(r, at, f, 12 + len);
            assert_true(vd_add(&r->d, 1, buf, 4) >= 0);
            vd_kick(&r->d, 1);
            got_it = sim_first(&r->sim.out[0]);
            assert_non_null(got_it);
            assert_int_equal(got_it->len, len);
            assert_memory_equal(got_it->bytes, f + 12, len);
            sim_drop(&r->sim.out[0]);
            assert_int_equal(take(&r->d.q[1]), 0);
            none(&r->d.q[1]);
        }
        assert_int_equal(r->n.tx_dropped, 0);
        assert_int_equal(r->wakes, 2); /* at DRIVER_OK, and to look for more */
        assert_true(r->irq[1] > 0);
        rig_free(r);
    }
}

static void bytes_are_not_copied_on_their_way(void *ctx, const struct tn_iov *iov, uint32_t iovs)
{
    struct rig *r = ctx;

    for (uint32_t i = 0; i < iovs; i++)
        assert_true((uintptr_t)iov[i].base - (uintptr_t)r->ram.host[0] < RAM ||
                    (uintptr_t)iov[i].base - (uintptr_t)r->ram.host[1] < RAM);
}

static void c09_c10_a_header_is_checked_before_it_is_sent(void **state)
{
    static const struct {
        struct tn_net_hdr hdr;
        uint32_t len;
        uint64_t want;
        bool good;
    } row[] = {
        {{0, 0, 0, 0, 0, 0, 0}, 60, EVERY, true},
        {{1, 0, 0, 0, 34, 16, 0}, 60, EVERY, true},
        {{1, 0, 0, 0, 42, 16, 0}, 60, EVERY, true},
        {{1, 0, 0, 0, 43, 16, 0}, 60, EVERY, false}, /* c09: the checksum ends behind the frame */
        {{1, 0, 0, 0, 0xffff, 0xffff, 0}, 60, EVERY, false},
        {{1, 0, 0, 0, 0, 0xffff, 0}, 60, EVERY, false},
        {{1, 0, 0, 0, 34, 16, 0}, 60, EVERY & ~HOST_ALL, false},
        {{1, 1, 54, 1448, 34, 16, 0}, 4000, EVERY, true},
        {{1, 1, 54, 0, 34, 16, 0}, 4000, EVERY, false},     /* segments of nothing */
        {{0, 1, 54, 1448, 34, 16, 0}, 4000, EVERY, false},  /* without a checksum */
        {{1, 1, 0xffff, 1448, 34, 16, 0}, 60, EVERY, true}, /* c10: a hint, which is cut */
        {{1, 2, 54, 1448, 34, 16, 0}, 4000, EVERY, false},  /* no such type */
        {{1, 1, 54, 1448, 34, 16, 0}, 4000, EVERY & ~F(HOST_TSO4), false},
        {{1, 4, 74, 1428, 54, 16, 0}, 4000, EVERY, true},
        {{1, 4, 74, 1428, 54, 16, 0}, 4000, EVERY & ~F(HOST_TSO6), false},
        {{1, 0x81, 54, 1448, 34, 16, 0}, 4000, EVERY, true},
        {{1, 0x81, 54, 1448, 34, 16, 0}, 4000, EVERY & ~F(HOST_ECN), false},
        {{1, 3, 42, 1472, 34, 6, 0}, 4000, EVERY, true},
        {{1, 3, 42, 1472, 34, 6, 0}, 4000, EVERY & ~F(HOST_UFO), false},
        {{1, 5, 42, 1472, 34, 6, 0}, 4000, EVERY, true},
        {{1, 5, 42, 1472, 34, 6, 0}, 4000, EVERY & ~F(HOST_USO), false},
        {{0xfe, 0, 7, 7, 7, 7, 7}, 60, EVERY, true}, /* what means nothing is not passed on */
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct rig *r = rig_up(row[i].want);
        struct sim_frame *f;

        r->sim.on_send = bytes_are_not_copied_on_their_way;
        r->sim.on_send_ctx = r;
        send_at(r, 0, &row[i].hdr, row[i].len, 3);
        vd_kick(&r->d, 1);
        f = sim_first(&r->sim.out[0]);
        assert_int_equal(f != NULL, row[i].good);
        assert_int_equal(r->n.tx_dropped, !row[i].good);
        assert_int_equal(take(&r->d.q[1]), 0); /* c12 */
        if (f) {
            assert_int_equal(f->hdr.flags, row[i].hdr.flags & 1);
            assert_int_equal(f->hdr.gso_type, row[i].hdr.gso_type);
            assert_true(f->hdr.hdr_len <= row[i].len);
            assert_true((f->hdr.flags & 1) == 0 ||
                        f->hdr.csum_start + f->hdr.csum_offset + 2u <= row[i].len);
            assert_int_equal(f->hdr.num_buffers, 0);
            if (f->hdr.flags == 0)
                assert_int_equal(f->hdr.csum_start | f->hdr.csum_offset | f->hdr.hdr_len, 0);
        }
        rig_free(r);
    }
}

static void c12_frames_of_no_length_come_back(void **state)
{
    static const struct {
        uint32_t len;
        bool good;
    } row[] = {{0, false},     {1, false},      {11, false},  {12, false},
               {25, false},    {26, true},      {1526, true}, {65565, true},
               {65566, false}, {200000, false}, {RAM, false}};

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(EVERY | all_rings[k]);
        unsigned bad = 0;

        for (size_t i = 0; i < COUNT(row); i++) {
            struct vqd_buf buf = {DATA, row[i].len, false};

            assert_true(vd_add(&r->d, 1, &buf, 1) >= 0);
            vd_kick(&r->d, 1);
            assert_int_equal(take(&r->d.q[1]), 0);
            bad += !row[i].good;
            assert_int_equal(r->n.tx_dropped, bad);
        }
        assert_int_equal(tn_virtq_in_flight(&r->n.queue[1].q), 0);
        rig_free(r);
    }
}

static void wrong_directions_need_a_reset(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(EVERY | all_rings[k]);
        struct vqd_buf buf[2] = {{DATA, 100, false}, {DATA + 100, 2000, true}};

        vd_add(&r->d, 1, buf, 2);
        vd_kick(&r->d, 1);
        must_be_broken(r);
        assert_int_equal(r->sim.sends, 0);
        works_again(r, EVERY);
        vd_add(&r->d, 1, buf + 1, 1);
        vd_kick(&r->d, 1);
        must_be_broken(r);
        works_again(r, NO_MRG | all_rings[k]);
        vd_add(&r->d, 0, buf, 2);
        vd_kick(&r->d, 0);
        must_be_broken(r);
        works_again(r, EVERY | all_rings[k]);
        vd_add(&r->d, 2 * PAIRS, buf, 1); /* no room for the answer */
        vd_kick(&r->d, 2 * PAIRS);
        must_be_broken(r);
        works_again(r, EVERY);
        rig_free(r);
    }
}

static void a32_reading_after_writing_needs_a_reset(void **state)
{
    static const unsigned queue[] = {0, 1, 2 * PAIRS};

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        for (size_t i = 0; i < COUNT(queue); i++) {
            struct rig *r = rig_up(EVERY | all_rings[k]);
            struct vqd_buf buf[2] = {{DATA, 100, true}, {DATA + 100, 100, false}};

            vd_add(&r->d, queue[i], buf, 2);
            vd_kick(&r->d, queue[i]);
            must_be_broken(r);
            works_again(r, EVERY);
            rig_free(r);
        }
    }
}

static void a_broken_queue_stops_all_pairs(void **state)
{
    struct rig *r = rig_up(EVERY);
    struct vqd_buf buf[2] = {{DATA, 4, false}, {DATA + 8, 1, true}};
    uint32_t len;

    (void)state;
    poke(r, DATA, "\4\0\2\0", 4); /* two pairs */
    assert_true(vd_request(&r->d, 2 * PAIRS, buf, 2, &len));
    for (unsigned p = 0; p < 2; p++) {
        for (unsigned i = 0; i < 20; i++)
            give(r, p, 4096);
        vd_kick(&r->d, 2 * p);
    }
    turn(r);
    assert_true(r->readable[0] && r->readable[1]);
    vd_add(&r->d, 3, buf + 1, 1);
    vd_kick(&r->d, 3);
    must_be_broken(r);
    works_again(r, EVERY);
    rig_free(r);
}

static void a03_a_broken_ring_needs_a_reset(void **state)
{
    static const unsigned queue[] = {0, 1, 2 * PAIRS};

    (void)state;
    for (size_t i = 0; i < COUNT(queue); i++) {
        struct rig *r = rig_up(EVERY);
        struct vqd *d = &r->d.q[queue[i]];
        struct vqd_buf buf = {2 * RAM - 1, 2, queue[i] != 1};

        vqd_put(d, d->driver + 2, 2, SIZE + 1);
        vd_kick(&r->d, queue[i]);
        must_be_broken(r);
        works_again(r, EVERY | all_rings[2]);
        vd_add(&r->d, queue[i], &buf, 1); /* runs off the end of RAM */
        vd_kick(&r->d, queue[i]);
        must_be_broken(r);
        works_again(r, EVERY);
        rig_free(r);
    }
}

static void a_full_backend_gets_every_frame_once(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(EVERY | all_rings[k]);
        unsigned sent = 0, came = 0;
        uint64_t x = 5;

        r->sim.room = 0;
        while (came < 300) {
            struct vqd_buf buf = {DATA + 1024 * (sent % 64), 72, false};
            uint8_t f[72] = {0}, want[60];

            if (sent - came < SIZE && sent < 300) {
                make_frame(f + 12, 60, sent);
                poke(r, buf.addr, f, sizeof(f));
                assert_true(vd_add(&r->d, 1, &buf, 1) >= 0);
                sent++;
                if (vqd_must_kick(&r->d.q[1]))
                    vd_kick(&r->d, 1);
            }
            if (test_random(&x) % 4 == 0) {
                r->sim.room = test_random(&x) % 9;
                if (r->writable[0]) /* the loop calls for nothing else */
                    tn_virtio_net_transmit(&r->n, 0);
                assert_true(r->timer == UINT64_MAX || r->timer == 0); /* no time is waited for */
                turn(r);
            }
            while (r->sim.out[0].count > 0) {
                make_frame(want, 60, came++);
                assert_memory_equal(sim_first(&r->sim.out[0])->bytes, want, 60);
                sim_drop(&r->sim.out[0]);
                assert_int_equal(take(&r->d.q[1]), 0);
            }
            none(&r->d.q[1]);
        }
        rig_free(r);
    }
}

/* A driver that goes on sending notifies once; one that stopped notifies when it begins again. */
static void no_notification_while_frames_follow_each_other(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(EVERY | all_rings[k]);

        for (uint32_t i = 0; i < 30; i++) {
            send_at(r, 0, NULL, 60, i);
            assert_int_equal(vqd_must_kick(&r->d.q[1]), i % 10 == 0);
            if (i % 10 == 0)
                vd_kick(&r->d, 1);
            else
                tn_virtio_net_wake(&r->n);
            assert_int_equal(r->timer, 0);
            r->timer = UINT64_MAX;
            assert_int_equal(r->sim.out[0].count, 1);
            sim_drop(&r->sim.out[0]);
            assert_int_equal(take(&r->d.q[1]), 0);
            if (i % 10 == 9)
                tn_virtio_net_wake(&r->n); /* there is none */
            assert_int_equal(r->timer, UINT64_MAX);
        }
        rig_free(r);
    }
}

static void a_frame_that_nobody_takes_is_dropped(void **state)
{
    struct rig *r = rig_up(EVERY);

    (void)state;
    r->sim.send_error = TN_ESYS;
    send_at(r, 0, NULL, 60, 0);
    vd_kick(&r->d, 1);
    assert_int_equal(take(&r->d.q[1]), 0);
    assert_int_equal(r->n.tx_dropped, 1);
    assert_false(r->writable[0]);
    works_again(r, EVERY);
    rig_free(r);
}

static void add_another(void *ctx, const struct tn_iov *iov, uint32_t iovs)
{
    struct rig *r = ctx;
    uint32_t len;

    (void)iov;
    (void)iovs;
    sim_drop(&r->sim.out[0]);
    (void)vqd_reap(&r->d.q[1], &len);
    send_at(r, 0, NULL, 60, 0);
}

static void c14_a_turn_ends_whatever_the_guest_adds(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(EVERY | all_rings[k]);
        unsigned most = TN_VIRTIO_NET_TURN / 2048 + 1;

        r->sim.on_send = add_another; /* two ahead, for ever */
        r->sim.on_send_ctx = r;
        send_at(r, 0, NULL, 60, 0);
        send_at(r, 0, NULL, 60, 0);
        vd_kick(&r->d, 1);
        assert_in_range(r->sim.sends, most / 2, most);
        assert_int_equal(r->timer, 0);
        r->timer = UINT64_MAX;
        vd_kick(&r->d, 1); /* no way around the turn */
        assert_in_range(r->sim.sends, most / 2, most);
        tn_virtio_net_wake(&r->n);
        assert_in_range(r->sim.sends, most, 2 * most);
        r->sim.on_send = NULL;
        turn(r);
        works_again(r, EVERY);
        rig_free(r);
    }
}

/* ---- receiving ---- */

static void c11_the_header_counts_the_buffers(void **state)
{
    static const uint32_t lens[] = {14, 60, 1500, 1514, 1524, 1525, 4000, 30000, 65541, 65553};
    static const uint32_t sizes[] = {1536, 2048, 4096};

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        for (size_t j = 0; j < COUNT(sizes); j++) {
            struct rig *r = rig_up((EVERY & ~F(MTU)) | all_rings[k]);

            for (uint32_t i = 0; i < 5 * COUNT(lens); i++) {
                while (r->count[0] < SIZE)
                    give(r, 0, sizes[j]);
                put(r, 0, lens[i % COUNT(lens)], i);
                kick(r, 0);
                loop(r);
                got(r, 0, lens[i % COUNT(lens)], i);
                none(&r->d.q[0]);
            }
            assert_int_equal(r->n.rx_dropped + r->n.rx_filtered, 0);
            assert_true(r->irq[0] > 0);
            rig_free(r);
        }
    }
}

/* Buffers of all sizes, of pieces, and a header that no piece holds. */
static void the_header_may_be_cut_anywhere(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(NO_MRG | all_rings[k]);

        for (uint32_t i = 0; i < 40; i++) {
            uint64_t at = i % 2 ? SLOTS : RAM - 1 - i;
            struct vqd_buf buf[4] = {{at, i % 14, true},
                                     {at + i % 14, 0, true},
                                     {at + i % 14, 3, true},
                                     {at + i % 14 + 3, 65600, true}};
            uint8_t f[12 + 1000], want[1000];

            assert_true(vd_add(&r->d, 0, buf, 4) >= 0);
            put(r, 0, 1000, i);
            kick(r, 0);
            loop(r);
            assert_int_equal(take(&r->d.q[0]), sizeof(f));
            peek(r, at, f, sizeof(f));
            make_frame(want, 1000, i);
            assert_memory_equal(f + 12, want, 1000);
            assert_int_equal(f[10] | f[11] << 8, 1); /* 5.1.6.4.1 */
            assert_int_equal(f[0] | f[1], 0);
        }
        rig_free(r);
    }
}

static void c12_what_is_not_received_costs_no_buffer(void **state)
{
    static const struct tn_net_hdr bad[] = {{1, 0, 0, 0, 60, 0, 0},
                                            {1, 0, 0, 0, 0, 59, 0},
                                            {1, 1, 54, 0, 34, 16, 0},
                                            {0, 1, 54, 1000, 34, 16, 0},
                                            {1, 9, 54, 1000, 34, 16, 0}};

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        for (unsigned mrg = 0; mrg < 2; mrg++) {
            struct rig *r = rig_up((mrg ? EVERY : NO_MRG) | all_rings[k]);
            uint8_t f[3000];

            make_frame(f, sizeof(f), 1);
            for (unsigned b = 0; b < 4; b++)
                give_at(r, 0, SLOTS + 0x12000 * b, 65600);
            kick(r, 0);
            for (size_t i = 0; i < COUNT(bad); i++)
                sim_put(&r->sim, 0, &bad[i], f, 60);
            sim_put(&r->sim, 0, NULL, f, 13);   /* shorter than a frame */
            sim_put(&r->sim, 0, NULL, f, 0);    /* nothing */
            sim_put(&r->sim, 0, NULL, f, 1515); /* longer than the MTU allows (5.1.4.1) */
            loop(r);
            assert_int_equal(r->n.rx_dropped, COUNT(bad) + 3);
            none(&r->d.q[0]);
            for (uint32_t i = 0; i < 4; i++) {
                put(r, 0, 1514, i);
                loop(r);
                got(r, 0, 1514, i);
            }
            make_frame(f, 1518, 2);
            f[12] = 0x81; /* a tag is no part of the MTU */
            sim_put(&r->sim, 0, NULL, f, 1518);
            give_at(r, 0, SLOTS, 65600);
            kick(r, 0);
            loop(r);
            assert_int_equal(take(&r->d.q[0]), 1530);
            tn_virtio_net_quiesce(&r->n);
            assert_int_equal(tn_virtq_in_flight(&r->n.queue[0].q), 0);
            rig_free(r);
        }
    }
}

static void offloads_that_are_not_on_do_not_reach_the_driver(void **state)
{
    static const struct {
        struct tn_net_hdr hdr;
        uint64_t want;
        bool good;
        uint8_t flags;
    } row[] = {
        {{1, 0, 0, 0, 34, 16, 9}, EVERY, true, 1},
        {{3, 0, 0, 0, 34, 16, 9}, EVERY, true, 3},
        {{2, 0, 0, 0, 0, 0, 9}, EVERY, true, 2},
        {{1, 0, 0, 0, 34, 16, 9}, EVERY & ~F(GUEST_CSUM) & NO_GSO, false, 0},
        {{2, 0, 0, 0, 0, 0, 9}, EVERY & ~F(GUEST_CSUM) & NO_GSO, true, 0},
        {{1, 1, 54, 100, 34, 16, 9}, EVERY, true, 1},
        {{1, 1, 54, 100, 34, 16, 9}, EVERY & ~F(GUEST_TSO4), false, 0},
        {{1, 4, 54, 100, 34, 16, 9}, EVERY, true, 1},
        {{1, 4, 54, 100, 34, 16, 9}, NO_GSO, false, 0},
        {{1, 5, 54, 100, 34, 6, 9}, EVERY, true, 1},
        {{1, 5, 54, 100, 34, 6, 9}, EVERY & ~F(GUEST_USO6), false, 0},
        {{1, 3, 54, 100, 34, 6, 9}, EVERY, true, 1},
        {{1, 0x81, 54, 100, 34, 16, 9}, EVERY & ~F(GUEST_ECN), false, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct rig *r = rig_up(row[i].want);
        struct tn_net_hdr h;
        uint8_t f[600];

        make_frame(f, sizeof(f), 1);
        sim_put(&r->sim, 0, &row[i].hdr, f, sizeof(f));
        for (unsigned b = 0; b < 20; b++)
            give(r, 0, 4096);
        kick(r, 0);
        loop(r);
        if (!row[i].good) {
            none(&r->d.q[0]);
            assert_int_equal(r->n.rx_dropped, 1);
        } else {
            h = got(r, 0, sizeof(f), 1);
            assert_int_equal(h.flags, row[i].flags);
            assert_int_equal(h.gso_type, row[i].hdr.gso_type);
            assert_int_equal(h.gso_size, row[i].hdr.gso_size);
        }
        rig_free(r);
    }
}

static void buffers_that_are_too_small_come_back(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(NO_MRG | all_rings[k]);
        uint64_t at;
        uint32_t len;

        give(r, 0, 11);
        give(r, 0, 12);
        give(r, 0, 25); /* no frame fits */
        give(r, 0, 500);
        give(r, 0, 2000);
        kick(r, 0);
        put(r, 0, 600, 1); /* finds 500 bytes, and is lost */
        put(r, 0, 600, 2);
        loop(r);
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(back(r, 0, &at, &len), 0);
        assert_int_equal(back(r, 0, &at, &len), 12); /* a header, and no frame */
        assert_int_equal(r->n.rx_dropped, 1);
        got(r, 0, 600, 2);
        assert_int_equal(r->sim.cut, 1);
        rig_free(r);

        r = rig_up(EVERY | all_rings[k]);
        give(r, 0, 11); /* mergeable ones have room for a header (5.1.6.3.1) */
        give(r, 0, 12);
        give(r, 0, 5);
        give(r, 0, 600);
        put(r, 0, 600, 1);
        kick(r, 0);
        loop(r);
        assert_int_equal(back(r, 0, &at, &len), 0);
        none(&r->d.q[0]); /* 12 bytes, and what comes behind them does not count */
        give(r, 0, 2000);
        kick(r, 0);
        r->now += TN_VIRTIO_NET_HOLD;
        r->timer = 0;
        loop(r);
        assert_int_equal(r->n.rx_dropped, 1);
        rig_free(r);
    }
}

/* C13: whatever runs out, and whenever it comes back, every frame arrives, in order. */
static void c13_starved_and_refilled_nothing_stops(void **state)
{
    uint64_t x = 11;

    (void)state;
    for (size_t k = 0; k < 2 * COUNT(all_rings); k++) {
        bool mrg = k % 2;
        struct rig *r = rig_up((mrg ? EVERY : NO_MRG) | all_rings[k / 2]);
        uint32_t put_n = 0, got_n = 0, lens[64];

        for (unsigned step = 0; got_n < 1000; step++) {
            assert_true(step < 100000);
            if (put_n < 1000 && put_n - got_n < 64 && test_random(&x) % 2) {
                lens[put_n % 64] =
                    14 + (uint32_t)(test_random(&x) % (mrg && step % 8 == 0 ? 20000 : 1500));
                if (lens[put_n % 64] <= 1514) {
                    put(r, 0, lens[put_n % 64], put_n);
                } else {
                    static const struct tn_net_hdr gso = {1, 1, 54, 1448, 34, 16, 0};
                    static uint8_t f[70000];

                    make_frame(f, lens[put_n % 64], put_n);
                    sim_put(&r->sim, 0, &gso, f, lens[put_n % 64]);
                }
                put_n++;
            }
            if (test_random(&x) % 3 == 0)
                for (uint64_t n = test_random(&x) % 20; n > 0 && r->count[0] < SIZE; n--)
                    give(r, 0, 1600 + (uint32_t)test_random(&x) % 2000);
            if (test_random(&x) % 4 == 0)
                kick(r, 0);
            if (test_random(&x) % 3 == 0) {
                r->timer = r->timer == 0 ? 0 : UINT64_MAX; /* no time passes */
                loop(r);
            }
            if (test_random(&x) % 50 == 0) {
                if (r->pair[0].held == 0) /* it would be lost */
                    tn_virtio_net_quiesce(&r->n);
                tn_virtio_net_wake(&r->n);
            }
            while (got_n < put_n && used(&r->d.q[0])) {
                got(r, 0, lens[got_n % 64], got_n);
                got_n++;
            }
            /* Nobody has anything to do, and there are frames: the driver owes buffers. */
            if (r->sim.in[0].count > 0 && !r->readable[0] && r->timer != 0)
                assert_true(r->pair[0].starved);
        }
        assert_int_equal(r->n.rx_dropped, 0);
        rig_free(r);
    }
}

static void a_frame_waits_for_buffers_but_not_for_ever(void **state)
{
    static const struct tn_net_hdr gso = {1, 1, 54, 1448, 34, 16, 0};
    static uint8_t f[30000];

    (void)state;
    make_frame(f, sizeof(f), 9);
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(EVERY | all_rings[k]);

        for (unsigned i = 0; i < 3; i++)
            give(r, 0, 4096);
        kick(r, 0);
        sim_put(&r->sim, 0, &gso, f, sizeof(f));
        put(r, 0, 100, 10);
        loop(r);
        none(&r->d.q[0]);
        assert_int_equal(r->timer, TN_VIRTIO_NET_HOLD);
        assert_false(r->readable[0]);
        assert_int_equal(r->sim.recvs, 2); /* the first found nothing there */
        for (unsigned i = 0; i < 5; i++) { /* in time */
            give(r, 0, 4096);
            kick(r, 0);
        }
        got(r, 0, sizeof(f), 9);
        loop(r);
        while (r->count[0] < 3) {
            give(r, 0, 4096);
            kick(r, 0);
        }
        loop(r);
        got(r, 0, 100, 10);

        sim_put(&r->sim, 0, &gso, f, sizeof(f));
        put(r, 0, 100, 11);
        r->timer = UINT64_MAX;
        r->n.timer = UINT64_MAX;
        loop(r);
        none(&r->d.q[0]);
        r->now += TN_VIRTIO_NET_HOLD - 1;
        tn_virtio_net_wake(&r->n); /* too early */
        none(&r->d.q[0]);
        assert_int_equal(r->timer, 1);
        r->now += 1;
        tn_virtio_net_wake(&r->n);
        got(r, 0, 100, 11); /* the one behind it, which fits */
        assert_int_equal(r->n.rx_dropped, 1);
        rig_free(r);
    }
}

static void five_more(struct rig *r)
{
    for (unsigned i = 0; i < 5; i++)
        give(r, 0, 4096);
}

/* The device looked, and found nothing; the driver adds, and sees that it need not tell. */
static void c13_what_came_between_looking_and_asking_is_seen(void **state)
{
    static const struct tn_net_hdr gso = {1, 1, 54, 1448, 34, 16, 0};
    static uint8_t f[30000];

    (void)state;
    make_frame(f, sizeof(f), 9);
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(EVERY | all_rings[k]);

        for (unsigned i = 0; i < 3; i++)
            give(r, 0, 4096);
        sim_put(&r->sim, 0, &gso, f, sizeof(f));
        r->in_now = five_more;
        kick(r, 0);
        loop(r);
        got(r, 0, sizeof(f), 9);
        rig_free(r);
    }
}

static void of_two_waits_the_shorter_counts(void **state)
{
    static const struct tn_net_hdr gso = {1, 1, 54, 1448, 34, 16, 0};
    static uint8_t f[30000];
    struct tn_rate_cfg limit = {0, 0, 1, 1};
    struct rig *r = rig_new();
    struct tn_virtio_net_cfg cfg = rig_cfg(r);

    (void)state;
    make_frame(f, sizeof(f), 9);
    tn_rate_init(&r->tx_rate, &limit, 0);
    cfg.tx_rate = &r->tx_rate;
    rig_device(r, &cfg);
    up_as(r, EVERY, SIZE);
    for (unsigned i = 0; i < 3; i++)
        send_at(r, 0, NULL, 60, i);
    kick(r, 1);
    assert_int_equal(r->timer, 1000000000);
    give(r, 0, 4096);
    kick(r, 0);
    sim_put(&r->sim, 0, &gso, f, sizeof(f));
    tn_virtio_net_receive(&r->n, 0);
    assert_int_equal(r->timer, TN_VIRTIO_NET_HOLD);
    turn(r);
    assert_int_equal(r->n.rx_dropped, 1);
    assert_int_equal(r->timer, 1000000000 - TN_VIRTIO_NET_HOLD); /* the other is not forgotten */
    rig_free(r);
}

static void a_frame_larger_than_a_full_ring_is_lost_at_once(void **state)
{
    static const struct tn_net_hdr gso = {1, 1, 54, 1448, 34, 16, 0};
    static uint8_t f[30000];
    struct rig *r = rig_new();

    (void)state;
    make_frame(f, sizeof(f), 9);
    up_as(r, EVERY, 8);
    for (unsigned i = 0; i < 8; i++)
        give(r, 0, 2000);
    kick(r, 0);
    sim_put(&r->sim, 0, &gso, f, sizeof(f));
    put(r, 0, 100, 10);
    loop(r);
    got(r, 0, 100, 10);
    assert_int_equal(r->n.rx_dropped, 1);
    rig_free(r);
}

static void c14_a_turn_of_receiving_ends(void **state)
{
    struct rig *r = rig_new();
    unsigned most = TN_VIRTIO_NET_TURN / 2048, n;
    struct vqd_buf buf = {SLOTS, 2000, true};
    uint32_t len;

    (void)state;
    up_as(r, NO_GSO, 1024);
    while (vd_add(&r->d, 0, &buf, 1) >= 0)
        ;
    for (uint32_t i = 0; i < 800; i++)
        put(r, 0, 60, i);
    kick(r, 0);
    for (n = 0; vqd_reap(&r->d.q[0], &len) >= 0; n++)
        ;
    assert_in_range(n, most / 2, most);
    assert_int_equal(r->timer, 0);
    assert_true(r->irq[0] <= 1);
    loop(r);
    while (vqd_reap(&r->d.q[0], &len) >= 0)
        n++;
    assert_int_equal(n, 800);
    rig_free(r);
}

/* Chains of so many pieces that not all of them can be popped ahead, or not one. */
static void chains_of_many_pieces_are_used_too(void **state)
{
    struct rig *r = rig_new();
    struct vqd_buf buf[1024];

    (void)state;
    up_as(r, EVERY | TN_VIRTIO_F_INDIRECT_DESC, 1024);
    for (uint32_t round = 0; round < 42; round++) {
        static uint8_t f[3012], want[3000];
        uint32_t at = SLOTS + round % 7 * 0x4000;
        uint32_t used_len;

        for (uint32_t c = 0; c < 7 && round % 7 == 0; c++) {
            for (uint32_t i = 0; i < 300; i++) {
                buf[i].addr = SLOTS + c * 0x4000 + 10 * i;
                buf[i].len = 10;
                buf[i].write = true;
            }
            assert_true(vqd_add_table(&r->d.q[0], buf, 300, DATA + 0x2000 * c, 300) >= 0);
        }
        kick(r, 0);
        put(r, 0, 2988, round); /* just fills one */
        r->sim.in[0].frame[r->sim.in[0].head].hdr.gso_type = 1;
        r->sim.in[0].frame[r->sim.in[0].head].hdr.gso_size = 1000;
        r->sim.in[0].frame[r->sim.in[0].head].hdr.flags = 1;
        loop(r);
        assert_true(vqd_reap(&r->d.q[0], &used_len) >= 0);
        assert_int_equal(used_len, 3000);
        peek(r, at, f, 3000);
        make_frame(want, 2988, round);
        assert_memory_equal(f + 12, want, 2988);
    }
    for (uint32_t i = 0; i < 1024; i++)
        buf[i] = (struct vqd_buf){SLOTS + 4 * i, 4, true};
    assert_true(vqd_add_table(&r->d.q[0], buf, 1024, DATA, 1024) >= 0);
    kick(r, 0);
    tn_virtio_net_quiesce(&r->n);
    tn_virtio_net_wake(&r->n);
    must_be_broken(r);
    works_again(r, EVERY);
    rig_free(r);
}

static void a_backend_that_lies_is_not_believed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct rig *r = rig_up(i ? EVERY : NO_MRG);

        give_at(r, 0, SLOTS, 3000);
        r->sim.recv_error = i ? (int)TN_NET_FRAME_MAX + 1 : 2989;
        kick(r, 0);
        vd_kick(&r->d, 0);
        assert_true(r->pair[0].dead && !r->readable[0]);
        none(&r->d.q[0]);
        works_again(r, EVERY);
        rig_free(r);
    }
}

static void a_dead_backend_is_let_be(void **state)
{
    struct rig *r = rig_up(EVERY);

    (void)state;
    for (unsigned i = 0; i < 20; i++)
        give(r, 0, 4096);
    kick(r, 0);
    loop(r);
    assert_true(r->readable[0]);
    r->sim.recv_error = TN_ESYS;
    loop(r); /* C21: it does not spin */
    assert_false(r->readable[0]);
    assert_int_equal(r->n.rx_dropped, 1);
    works_again(r, EVERY);
    rig_free(r);
}

/* ---- rates, the link, the address ---- */

static void rates_limit_each_direction(void **state)
{
    struct tn_rate_cfg limit = {0, 0, 1000, 10};

    (void)state;
    for (unsigned rx = 0; rx < 2; rx++) {
        struct rig *r = rig_new();
        struct tn_virtio_net_cfg cfg = rig_cfg(r);
        uint64_t begin;
        uint32_t len, n = 0;

        tn_rate_init(&r->tx_rate, &limit, 0);
        tn_rate_init(&r->rx_rate, &limit, 0);
        cfg.tx_rate = rx ? NULL : &r->tx_rate;
        cfg.rx_rate = rx ? &r->rx_rate : NULL;
        rig_device(r, &cfg);
        up_as(r, NO_MRG & NO_GSO, SIZE);
        begin = r->now;
        for (uint32_t i = 0; i < 50; i++) {
            if (rx) {
                give(r, 0, 2000);
                put(r, 0, 60, i);
            } else {
                send_at(r, 0, NULL, 60, i);
            }
        }
        vd_kick(&r->d, rx ? 0 : 1);
        loop(r);
        while (vqd_reap(&r->d.q[!rx], &len) >= 0)
            n++;
        assert_int_equal(n, 11); /* the burst, and one ahead */
        assert_int_equal(r->timer, 1000000);
        assert_false(r->readable[0] && rx);
        vd_kick(&r->d, rx ? 0 : 1); /* no way around the rate */
        none(&r->d.q[!rx]);
        for (unsigned i = 0; i < 100 && n < 50; i++) {
            assert_true(r->timer > 0 && r->timer <= 1000000);
            r->now += r->timer;
            r->timer = 0;
            loop(r);
            while (vqd_reap(&r->d.q[!rx], &len) >= 0)
                n++;
        }
        assert_int_equal(n, 50);
        assert_in_range(r->now - begin, 38000000, 40000000);
        /* The other way nothing holds it. */
        for (uint32_t i = 0; i < 50; i++) {
            if (!rx) {
                give(r, 0, 2000);
                put(r, 0, 60, i);
            } else {
                send_at(r, 0, NULL, 60, i);
            }
        }
        vd_kick(&r->d, rx ? 1 : 0);
        loop(r);
        for (n = 0; vqd_reap(&r->d.q[rx], &len) >= 0; n++)
            ;
        assert_int_equal(n, 50);
        rig_free(r);
    }
}

static void a_frame_is_charged_once(void **state)
{
    struct tn_rate_cfg limit = {0, 0, 1, 10};
    struct rig *r = rig_new();
    struct tn_virtio_net_cfg cfg = rig_cfg(r);

    (void)state;
    tn_rate_init(&r->tx_rate, &limit, 0);
    cfg.tx_rate = &r->tx_rate;
    rig_device(r, &cfg);
    up_as(r, EVERY, SIZE);
    send_at(r, 0, NULL, 60, 0);
    for (unsigned i = 0; i < 50; i++)
        vd_kick(&r->d, 1);
    r->sim.room = 0;
    send_at(r, 0, NULL, 60, 1);
    kick(r, 1);
    for (unsigned i = 0; i < 50; i++)
        tn_virtio_net_transmit(&r->n, 0);
    r->sim.room = 100;
    for (unsigned i = 2; i < 11; i++)
        send_at(r, 0, NULL, 60, i);
    tn_virtio_net_transmit(&r->n, 0);
    assert_int_equal(r->sim.out[0].count, 11);
    rig_free(r);
}

static void while_the_link_is_down_nothing_moves(void **state)
{
    struct rig *r = rig_up(EVERY);

    (void)state;
    for (unsigned i = 0; i < 20; i++)
        give(r, 0, 4096);
    kick(r, 0);
    loop(r);
    tn_virtio_net_link(&r->n, true); /* as it was */
    assert_int_equal(r->config_irq, 0);
    tn_virtio_net_link(&r->n, false);
    assert_int_equal(r->config_irq, 1);
    assert_int_equal(tn_virtio_config_read(&r->n.virtio, 6, 2), 0);
    put(r, 0, 60, 1);
    send_at(r, 0, NULL, 60, 0);
    kick(r, 1);
    loop(r);
    assert_false(r->readable[0]);
    assert_int_equal(take(&r->d.q[1]), 0);
    assert_int_equal(r->n.tx_dropped, 1);
    none(&r->d.q[0]);
    vd_kick(&r->d, 0);
    tn_virtio_net_receive(&r->n, 0);
    none(&r->d.q[0]);
    tn_virtio_net_link(&r->n, true);
    assert_int_equal(r->config_irq, 2);
    loop(r);
    got(r, 0, 60, 1);
    send_at(r, 0, NULL, 60, 0);
    kick(r, 1);
    loop(r);
    assert_int_equal(r->sim.out[0].count, 1);
    rig_free(r);
}

static void frames_that_wait_are_lost_with_the_link(void **state)
{
    struct rig *r = rig_up(EVERY);

    (void)state;
    r->sim.room = 0;
    send_at(r, 0, NULL, 60, 0);
    kick(r, 1);
    assert_true(r->writable[0]);
    tn_virtio_net_link(&r->n, false);
    loop(r);
    assert_false(r->writable[0]);
    assert_int_equal(take(&r->d.q[1]), 0);
    works_again(r, EVERY);
    rig_free(r);
}

static void the_driver_is_asked_to_announce_itself(void **state)
{
    struct rig *r = rig_up(EVERY & ~F(GUEST_ANNOUNCE));

    (void)state;
    tn_virtio_net_announce(&r->n);
    assert_int_equal(r->config_irq, 0);
    up_as(r, EVERY, SIZE);
    tn_virtio_net_announce(&r->n);
    assert_int_equal(r->config_irq, 1);
    assert_int_equal(tn_virtio_config_read(&r->n.virtio, 6, 2), 3);
    assert_int_equal(command(r, 3, 0, NULL, 0), 0);
    assert_int_equal(tn_virtio_config_read(&r->n.virtio, 6, 2), 1);
    tn_virtio_net_announce(&r->n);
    vd_reset(&r->d);
    assert_int_equal(tn_virtio_config_read(&r->n.virtio, 6, 2), 1);
    rig_free(r);
}

static void a_fork_has_another_address(void **state)
{
    static const uint8_t mac[6] = {2, 9, 9, 9, 9, 9}, group[6] = {3, 9, 9, 9, 9, 9}, zero[6];
    struct rig *r = rig_new();

    (void)state;
    assert_int_equal(tn_virtio_net_set_mac(&r->n, group), TN_EINVAL);
    assert_int_equal(tn_virtio_net_set_mac(&r->n, zero), TN_EINVAL);
    assert_int_equal(tn_virtio_config_read(&r->n.virtio, 0, 4), 0x01005452);
    assert_int_equal(tn_virtio_net_set_mac(&r->n, mac), 0);
    assert_int_equal(tn_virtio_config_read(&r->n.virtio, 0, 4), 0x09090902);
    assert_int_equal(tn_virtio_net_set_mac(&r->n, own_mac), 0);
    up_as(r, EVERY, SIZE);
    assert_int_equal(command(r, 0, 0, "\0", 1), 0);
    assert_int_equal(tn_virtio_net_set_mac(&r->n, mac), 1);
    assert_int_equal(tn_virtio_config_read(&r->n.virtio, 0, 4), 0x01005452);
    assert_true(comes(r, "52:54:00:01:02:03", 0x800, 0)); /* it knows no other */
    vd_reset(&r->d);
    assert_int_equal(tn_virtio_config_read(&r->n.virtio, 0, 4), 0x09090902);
    rig_free(r);
}

/* ---- resets, pauses, states ---- */

static void nothing_moves_without_a_driver(void **state)
{
    struct rig *r = rig_new();

    (void)state;
    put(r, 0, 60, 1);
    for (unsigned i = 0; i < 2 * PAIRS + 3; i++)
        tn_virtio_notify(&r->n.virtio, i);
    tn_virtio_net_receive(&r->n, 0);
    tn_virtio_net_transmit(&r->n, 0);
    tn_virtio_net_wake(&r->n);
    tn_virtio_net_link(&r->n, false);
    tn_virtio_net_link(&r->n, true);
    tn_virtio_net_quiesce(&r->n);
    tn_virtio_net_announce(&r->n);
    assert_int_equal(r->sim.recvs + r->sim.sends + r->wakes + r->polls + r->config_irq, 0);
    works_again(r, EVERY);
    rig_free(r);
}

static void queues_filled_before_driver_ok_are_served(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_new();
        struct vqd_buf buf[2] = {{DATA + 0x1000, 3, false}, {DATA + 0x1008, 1, true}};

        assert_true(vd_negotiate(&r->d, EVERY | all_rings[k]) && vd_queues(&r->d, 9, SIZE));
        poke(r, DATA + 0x1000, "\0\0\0\xee", 4);
        assert_true(vd_add(&r->d, 2 * PAIRS, buf, 2) >= 0);
        for (unsigned i = 0; i < 20; i++)
            give(r, 0, 4096);
        send_at(r, 0, NULL, 60, 0);
        put(r, 0, 60, 1);
        vd_set_status(&r->d, 15);
        assert_int_equal(r->sim.recvs + r->sim.sends, 0); /* not from inside */
        loop(r);
        got(r, 0, 60, 1);
        assert_int_equal(take(&r->d.q[1]), 0);
        assert_int_equal(take(&r->d.q[2 * PAIRS]), 1);
        assert_int_equal(r->n.filter.mode, 0);
        rig_free(r);
    }
}

static void a_queue_that_is_not_enabled_is_let_be(void **state)
{
    (void)state;
    for (unsigned queues = 0; queues < 4; queues++) {
        struct rig *r = rig_new();

        assert_true(vd_negotiate(&r->d, EVERY) && vd_queues(&r->d, 9, SIZE));
        for (unsigned i = 0; i < 9; i++)
            tn_virtio_queue_ptr(&r->n.virtio, i)->ready = i < 2 && (queues >> i & 1);
        vd_set_status(&r->d, 15);
        for (unsigned i = 0; i < 20; i++)
            give(r, 0, 4096);
        send_at(r, 0, NULL, 60, 0);
        put(r, 0, 60, 1);
        loop(r);
        for (unsigned i = 0; i < 9; i++)
            vd_kick(&r->d, i);
        assert_true(tn_virtio_live(&r->n.virtio));
        assert_int_equal(r->sim.out[0].count, queues >> 1);
        if (queues & 1)
            got(r, 0, 60, 1);
        else
            assert_int_equal(r->sim.recvs, 0);
        rig_free(r);
    }
}

static void c04_a_reset_ends_all_that_was_under_way(void **state)
{
    static const struct tn_net_hdr gso = {1, 1, 54, 1448, 34, 16, 0};
    static uint8_t f[30000], before[2 * RAM], after[2 * RAM];

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(EVERY | all_rings[k]);

        for (unsigned i = 0; i < 4; i++)
            give(r, 0, 4096); /* popped ahead */
        kick(r, 0);
        sim_put(&r->sim, 0, &gso, f, sizeof(f)); /* waits for more */
        r->sim.room = 0;
        send_at(r, 0, NULL, 60, 0); /* waits for room */
        kick(r, 1);
        loop(r);
        assert_true(r->writable[0] && r->pair[0].held > 0 && r->pair[0].chains > 0);
        vd_reset(&r->d);
        assert_false(r->writable[0] || r->readable[0]);
        peek(r, 0, before, sizeof(before));
        r->sim.room = 100;
        put(r, 0, 100, 1);
        r->now += TN_VIRTIO_NET_HOLD;
        tn_virtio_net_wake(&r->n);
        tn_virtio_net_receive(&r->n, 0);
        tn_virtio_net_transmit(&r->n, 0);
        vd_kick(&r->d, 0);
        vd_kick(&r->d, 1);
        peek(r, 0, after, sizeof(after));
        assert_memory_equal(before, after, sizeof(before));
        assert_int_equal(r->sim.out[0].count, 0);
        works_again(r, EVERY | all_rings[k]);
        rig_free(r);
    }
}

static void c21_pauses_leave_no_gate_shut_and_idling_costs_nothing(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(EVERY | all_rings[k]);
        unsigned calls;

        for (uint32_t i = 0; i < 300; i++) {
            if (i % 3 == 0) { /* in any state: with buffers, without, with a full backend */
                r->sim.room = 0;
                send_at(r, 0, NULL, 60, i);
                kick(r, 1);
            }
            if (i % 5 > 0)
                while (r->count[0] < 17 + i % 7)
                    give(r, 0, 4096);
            kick(r, 0);
            loop(r);
            tn_virtio_net_quiesce(&r->n);
            assert_false(r->readable[0] || r->writable[0]);
            for (unsigned q = 0; q < 9; q++)
                assert_int_equal(tn_virtq_in_flight(&r->n.queue[q].q), 0);
            vd_kick(&r->d, 0);
            vd_kick(&r->d, 1);
            assert_int_equal(r->pair[0].chains, 0);
            r->sim.room = UINT64_MAX;
            tn_virtio_net_wake(&r->n);
            loop(r);
            if (i % 3 == 0) {
                assert_int_equal(r->sim.out[0].count, 1);
                sim_drop(&r->sim.out[0]);
                take(&r->d.q[1]);
            }
            while (r->count[0] < 20)
                give(r, 0, 4096);
            kick(r, 0);
            put(r, 0, 700, i);
            loop(r);
            got(r, 0, 700, i);
        }
        calls = r->sim.recvs + r->sim.sends + r->wakes + r->polls;
        loop(r);
        assert_true(r->readable[0] && !r->writable[0] && r->timer == UINT64_MAX);
        assert_int_equal(r->sim.recvs + r->sim.sends + r->wakes + r->polls, calls);
        rig_free(r);
    }
}

static void a_saved_device_goes_on_elsewhere(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(EVERY | all_rings[k]);
        struct tn_virtio_net_cfg cfg = rig_cfg(r);
        struct tn_virtio_net_state one, two;
        uint8_t pairs[2] = {3, 0}, offloads[8];

        assert_int_equal(command(r, 4, 0, pairs, 2), 0);
        tn_put_(offloads, 8, F(GUEST_CSUM) | F(GUEST_TSO6));
        assert_int_equal(command(r, 5, 0, offloads, 8), 0);
        assert_int_equal(command(r, 0, 0, "\0", 1), 0);
        assert_int_equal(command(r, 2, 0, "\x05\x00", 2), 0);
        assert_int_equal(tables(r, 3, 4, 3, 4, 0), 0);
        assert_int_equal(command(r, 1, 1, "\x02\x00\x00\x00\x00\x77", 6), 0);
        tn_virtio_net_announce(&r->n);
        tn_virtio_net_link(&r->n, false);
        tn_virtio_net_link(&r->n, true);
        for (unsigned i = 0; i < 20; i++)
            give(r, 2, 4096);
        kick(r, 4);
        loop(r);
        r->sim.room = 0;
        send_at(r, 1, NULL, 90, 4);
        kick(r, 3);
        tn_virtio_net_quiesce(&r->n);
        memset(&one, 0x5a, sizeof(one));
        memset(&two, 0xa5, sizeof(two));
        tn_virtio_net_save(&r->n, &one);
        memset(&r->n, 0xee, sizeof(r->n));
        memset(r->pair, 0xee, sizeof(r->pair));
        r->sim.room = UINT64_MAX;
        cfg.mac[5] = 0x99;
        rig_device(r, &cfg);
        assert_int_equal(r->sim.pairs, 1);
        assert_int_equal(tn_virtio_net_restore(&r->n, &one), 0);
        assert_int_equal(r->sim.pairs, 3);
        assert_int_equal(r->sim.offloads, TN_NET_CSUM | TN_NET_TSO6);
        tn_virtio_net_save(&r->n, &two);
        assert_memory_equal(&one, &two, sizeof(one));
        tn_virtio_net_wake(&r->n);
        loop(r);
        assert_int_equal(r->sim.out[1].count, 1);
        assert_int_equal(tn_virtio_config_read(&r->n.virtio, 6, 2), 3);
        put(r, 2, 100, 1); /* to an address that it had once */
        loop(r);
        assert_int_equal(r->n.rx_filtered, 1);
        assert_true(comes(r, "02:00:00:00:00:77", 0x800, 0));
        assert_true(comes(r, "02:00:00:00:00:02", 0x800, 0));
        assert_true(comes(r, "01:00:00:00:00:03", 0x8100, 5));
        assert_false(comes(r, "01:00:00:00:00:03", 0x8100, 6));
        vd_reset(&r->d);
        assert_int_equal(tn_virtio_config_read(&r->n.virtio, 4, 2), 0x9902);
        rig_free(r);
    }
}

static void e01_a_state_that_cannot_be_is_refused(void **state)
{
    struct rig *r = rig_up(EVERY);
    struct tn_virtio_net_state good, bad, now;
    static const struct {
        size_t at;
        uint8_t value;
        int err;
    } row[] = {
        {offsetof(struct tn_virtio_net_state, version), 2, TN_EUNSUP},
        {offsetof(struct tn_virtio_net_state, active), 0, TN_EFORMAT},
        {offsetof(struct tn_virtio_net_state, active), PAIRS + 1, TN_EFORMAT},
        {offsetof(struct tn_virtio_net_state, active) + 1, 1, TN_EFORMAT},
        {offsetof(struct tn_virtio_net_state, link_up), 2, TN_EFORMAT},
        {offsetof(struct tn_virtio_net_state, announce), 2, TN_EFORMAT},
        {offsetof(struct tn_virtio_net_state, offloads), 1, TN_EFORMAT},
        {offsetof(struct tn_virtio_net_state, mac), 1, TN_EFORMAT},
        {offsetof(struct tn_virtio_net_state, uni), 65, TN_EFORMAT},
        {offsetof(struct tn_virtio_net_state, multi), 255, TN_EFORMAT},
        {offsetof(struct tn_virtio_net_state, zero) + 6, 1, TN_EFORMAT},
        {offsetof(struct tn_virtio_net_state, table), 1, TN_EFORMAT},
        {offsetof(struct tn_virtio_net_state, table) + 383, 1, TN_EFORMAT},
        {offsetof(struct tn_virtio_net_state, virtio.queue[1].ring.next_avail), 1, TN_EFORMAT},
        {offsetof(struct tn_virtio_net_state, virtio.queue[8].ring.next_avail), 1, TN_EFORMAT},
        {offsetof(struct tn_virtio_net_state, virtio.status), 12, TN_EFORMAT},
        {offsetof(struct tn_virtio_net_state, virtio.device_id), 2, TN_EUNSUP},
        {offsetof(struct tn_virtio_net_state, virtio.features) + 7, 0x80, TN_EUNSUP},
    };

    (void)state;
    tn_virtio_net_quiesce(&r->n);
    tn_virtio_net_save(&r->n, &good);
    for (size_t i = 0; i < COUNT(row); i++) {
        bad = good;
        ((uint8_t *)&bad)[row[i].at] = row[i].value;
        assert_int_equal(tn_virtio_net_restore(&r->n, &bad), row[i].err);
        tn_virtio_net_save(&r->n, &now); /* nothing has changed */
        assert_memory_equal(&now, &good, sizeof(now));
    }
    assert_int_equal(tn_virtio_net_restore(&r->n, &good), 0);
    r->sim.set_error = TN_ESYS;
    assert_int_equal(tn_virtio_net_restore(&r->n, &good), TN_ESYS);
    assert_int_equal(vd_status(&r->d), 0);
    r->sim.set_error = 0;
    assert_int_equal(tn_virtio_net_restore(&r->n, &good), 0);
    /* What no command can have set, without its feature. */
    for (unsigned i = 0; i < 7; i++) {
        static const uint64_t without[] = {F(MQ),        F(GUEST_ANNOUNCE), F(CTRL_RX),
                                           F(CTRL_RX),   F(CTRL_RX_EXTRA),  F(CTRL_VLAN),
                                           F(GUEST_TSO4)};

        up_as(r, EVERY & ~(without[i] | (without[i] == F(CTRL_RX) ? F(CTRL_RX_EXTRA) : 0)), SIZE);
        tn_virtio_net_quiesce(&r->n);
        tn_virtio_net_save(&r->n, &bad);
        assert_int_equal(tn_virtio_net_restore(&r->n, &bad), 0);
        switch (i) {
        case 0:
            bad.active = 2;
            break;
        case 1:
            bad.announce = 1;
            break;
        case 2:
            bad.mode = 0;
            break;
        case 3:
            bad.uni = 1;
            break;
        case 4:
            bad.mode = 4;
            break;
        case 5:
            bad.vlan[511] = 1;
            break;
        default:
            bad.offloads |= F(GUEST_TSO4);
        }
        assert_int_equal(tn_virtio_net_restore(&r->n, &bad), TN_EFORMAT);
    }
    works_again(r, EVERY);
    vd_reset(&r->d);
    tn_virtio_net_save(&r->n, &bad);
    bad.mode = 0; /* before DRIVER_OK */
    assert_int_equal(tn_virtio_net_restore(&r->n, &bad), TN_EFORMAT);
    rig_free(r);
}

static void a_state_is_not_restored_over_a_lesser_backend(void **state)
{
    struct rig *r = rig_up(EVERY);
    struct tn_virtio_net_cfg cfg = rig_cfg(r);
    struct tn_virtio_net_state s;

    (void)state;
    tn_virtio_net_quiesce(&r->n);
    tn_virtio_net_save(&r->n, &s);
    r->sim.net.rx_offloads = TN_NET_CSUM;
    rig_device(r, &cfg);
    assert_int_equal(tn_virtio_net_restore(&r->n, &s), TN_EUNSUP);
    r->sim.net.rx_offloads = ALL;
    cfg.pairs = 2;
    rig_device(r, &cfg);
    assert_int_equal(tn_virtio_net_restore(&r->n, &s), TN_EUNSUP);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bad_cfg_is_refused),
        cmocka_unit_test(the_offer_follows_backend_and_cfg),
        cmocka_unit_test(features_without_what_they_need_are_refused),
        cmocka_unit_test(b01_the_configuration_space_is_twelve_bytes),
        cmocka_unit_test(c07_one_function_says_how_long_the_header_is),
        cmocka_unit_test(frames_arrive_whole_however_they_are_cut),
        cmocka_unit_test(c09_c10_a_header_is_checked_before_it_is_sent),
        cmocka_unit_test(c12_frames_of_no_length_come_back),
        cmocka_unit_test(wrong_directions_need_a_reset),
        cmocka_unit_test(a32_reading_after_writing_needs_a_reset),
        cmocka_unit_test(a_broken_queue_stops_all_pairs),
        cmocka_unit_test(a03_a_broken_ring_needs_a_reset),
        cmocka_unit_test(a_full_backend_gets_every_frame_once),
        cmocka_unit_test(no_notification_while_frames_follow_each_other),
        cmocka_unit_test(a_frame_that_nobody_takes_is_dropped),
        cmocka_unit_test(c14_a_turn_ends_whatever_the_guest_adds),
        cmocka_unit_test(c11_the_header_counts_the_buffers),
        cmocka_unit_test(the_header_may_be_cut_anywhere),
        cmocka_unit_test(c12_what_is_not_received_costs_no_buffer),
        cmocka_unit_test(offloads_that_are_not_on_do_not_reach_the_driver),
        cmocka_unit_test(buffers_that_are_too_small_come_back),
        cmocka_unit_test(c13_starved_and_refilled_nothing_stops),
        cmocka_unit_test(a_frame_waits_for_buffers_but_not_for_ever),
        cmocka_unit_test(c13_what_came_between_looking_and_asking_is_seen),
        cmocka_unit_test(of_two_waits_the_shorter_counts),
        cmocka_unit_test(a_frame_larger_than_a_full_ring_is_lost_at_once),
        cmocka_unit_test(c14_a_turn_of_receiving_ends),
        cmocka_unit_test(chains_of_many_pieces_are_used_too),
        cmocka_unit_test(a_backend_that_lies_is_not_believed),
        cmocka_unit_test(a_dead_backend_is_let_be),
        cmocka_unit_test(rates_limit_each_direction),
        cmocka_unit_test(a_frame_is_charged_once),
        cmocka_unit_test(while_the_link_is_down_nothing_moves),
        cmocka_unit_test(frames_that_wait_are_lost_with_the_link),
        cmocka_unit_test(the_driver_is_asked_to_announce_itself),
        cmocka_unit_test(a_fork_has_another_address),
        cmocka_unit_test(nothing_moves_without_a_driver),
        cmocka_unit_test(queues_filled_before_driver_ok_are_served),
        cmocka_unit_test(a_queue_that_is_not_enabled_is_let_be),
        cmocka_unit_test(c04_a_reset_ends_all_that_was_under_way),
        cmocka_unit_test(c21_pauses_leave_no_gate_shut_and_idling_costs_nothing),
        cmocka_unit_test(a_saved_device_goes_on_elsewhere),
        cmocka_unit_test(e01_a_state_that_cannot_be_is_refused),
        cmocka_unit_test(a_state_is_not_restored_over_a_lesser_backend),
    };

    return cmocka_run_group_tests_name("virtio_net", tests, NULL, NULL);
}
