/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* tn_virtio_net, when somebody else serves the queues of its frames, as the kernel's vhost does. */
#include "tn_virtio_net.h"

#include "net_sim.h"
#include "virtio_rig.h"

#define RAM   0x80000u /* of each of two regions */
#define SIZE  16u      /* descriptors of a queue */
#define PAIRS 2u
#define DATA  0x20000u
#define EVERY (~0ull & ~TN_VIRTIO_F_RING)

/* The one who serves: a pair's queues as they were handed over, in rings of its own. */
struct server {
    bool has;
    struct tn_virtq q[2];
    unsigned times; /* that it got them */
};

struct rig {
    struct tn_virtio_net n;
    struct tn_virtio_net_pair pair[PAIRS];
    struct net_sim sim;
    struct ram ram;
    struct vd d;
    struct server server[PAIRS];
    int over, back; /* what hand_over and take_back return */
    uint64_t timer;
    unsigned irq[TN_VIRTIO_MAX_QUEUES], config_irq;
};

static uint64_t on_now(void *ctx)
{
    (void)ctx;
    return 0;
}

static void on_wake(void *ctx, uint64_t ns)
{
    ((struct rig *)ctx)->timer = ns;
}

static void on_poll(void *ctx, uint32_t pair, bool readable, bool writable)
{
    (void)ctx, (void)pair, (void)readable, (void)writable;
    fail_msg("nothing is to be polled for");
}

static void on_irq(void *ctx, uint32_t queue)
{
    struct rig *r = ctx;

    if (queue == TN_VIRTIO_CONFIG)
        r->config_irq++;
    else
        r->irq[queue]++;
}

static int on_over(void *ctx, uint32_t pair, const struct tn_virtq_state q[2])
{
    struct rig *r = ctx;
    struct server *s = &r->server[pair];

    assert_false(s->has);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(q[i].started, 1);
    if (r->over < 0)
        return r->over;
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(tn_virtq_restore(&s->q[i], &r->ram.mem, &q[i]), 0);
    s->has = true;
    s->times++;
    return 0;
}

static int on_back(void *ctx, uint32_t pair, struct tn_virtq_state q[2])
{
    struct rig *r = ctx;
    struct server *s = &r->server[pair];

    assert_true(s->has);
    s->has = false;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(tn_virtq_in_flight(&s->q[i]), 0);
        tn_virtq_save(&s->q[i], &q[i]);
    }
    return r->back;
}

static void rig_make(struct rig *r)
{
    struct tn_virtio_net_cfg cfg = {&r->ram.mem,
                                    SIZE,
                                    TN_VIRTIO_F_RING,
                                    0,
                                    &r->sim.net,
                                    r->pair,
                                    PAIRS,
                                    {2, 0, 0, 0, 0, 1},
                                    1500,
                                    true,
                                    NULL,
                                    NULL,
                                    r,
                                    on_now,
                                    on_wake,
                                    on_poll,
                                    on_over,
                                    on_back};

    assert_int_equal(tn_virtio_net_init(&r->n, &cfg), 0);
    tn_virtio_connect(&r->n.virtio, on_irq, r);
    r->timer = UINT64_MAX;
}

static struct rig *rig_new(void)
{
    struct rig *r = calloc(1, sizeof(*r));

    assert_non_null(r);
    ram_init(&r->ram, RAM);
    sim_init(&r->sim, 63, 63, PAIRS);
    rig_make(r);
    vd_init(&r->d, &r->n.virtio, r->ram.host[0], 0, 0x1000);
    return r;
}

/* What the event loop does, after the calls that are made on other threads. */
static void turn(struct rig *r)
{
    while (r->timer != UINT64_MAX) {
        r->timer = UINT64_MAX;
        tn_virtio_net_wake(&r->n);
    }
}

static struct rig *rig_up(uint64_t rings)
{
    struct rig *r = rig_new();

    assert_true(vd_up(&r->d, EVERY | rings, 2 * PAIRS + 1, SIZE));
    assert_false(r->server[0].has); /* not on the thread of the driver's write */
    turn(r);
    assert_true(r->server[0].has);
    return r;
}

static void rig_free(struct rig *r)
{
    sim_free(&r->sim);
    vd_free(&r->d);
    ram_free(&r->ram);
    free(r);
}

/* The driver sends, the server takes it, the driver has its buffer back. */
static void send_one(struct rig *r, uint32_t pair, uint32_t number)
{
    struct vqd_buf buf = {DATA + 64 * number, 64, false};
    struct tn_virtq *q = &r->server[pair].q[1];
    struct tn_virtq_chain chain;
    struct tn_iov iov[8];
    uint32_t len;
    int id = vd_add(&r->d, 2 * pair + 1, &buf, 1);

    assert_true(id >= 0);
    memset(ram_at(&r->ram, buf.addr), (int)number, 64);
    vd_kick(&r->d, 2 * pair + 1);
    assert_int_equal(tn_virtq_pop(q, &chain, iov, 8), 1);
    assert_int_equal(chain.readable_len, 64);
    assert_int_equal(iov[0].base[63], number % 256);
    assert_int_equal(tn_virtq_push(q, &chain, 0), 0);
    assert_int_equal(vd_reap(&r->d, 2 * pair + 1, &len), id);
}

static uint8_t set_pairs(struct rig *r, uint8_t pairs)
{
    struct vqd_buf buf[3] = {{DATA, 2, false}, {DATA + 8, 2, false}, {DATA + 16, 1, true}};
    uint8_t *p = ram_at(&r->ram, DATA);
    uint32_t len;

    p[0] = TN_VIRTIO_NET_CTRL_MQ;
    p[1] = TN_VIRTIO_NET_MQ_PAIRS_SET;
    p[8] = pairs;
    p[9] = 0;
    p[16] = 0xff;
    assert_true(vd_request(&r->d, 2 * PAIRS, buf, 3, &len));
    return p[16];
}

static void both_hooks_or_none(void **state)
{
    struct rig *r = rig_new();
    struct tn_virtio_net_cfg cfg = r->n.cfg;

    (void)state;
    cfg.take_back = NULL;
    assert_int_equal(tn_virtio_net_init(&r->n, &cfg), TN_EINVAL);
    cfg.take_back = on_back;
    cfg.hand_over = NULL;
    assert_int_equal(tn_virtio_net_init(&r->n, &cfg), TN_EINVAL);
    rig_free(r);
}

static void what_nobody_would_do_is_not_offered(void **state)
{
    const uint64_t filter =
        TN_VIRTIO_NET_F_CTRL_RX | TN_VIRTIO_NET_F_CTRL_RX_EXTRA | TN_VIRTIO_NET_F_CTRL_VLAN;
    struct rig *r = rig_new();

    (void)state;
    assert_int_equal(r->n.virtio.cfg.features & filter, 0);
    assert_true(r->n.virtio.cfg.features & TN_VIRTIO_NET_F_CTRL_VQ);
    assert_true(r->n.virtio.cfg.features & TN_VIRTIO_NET_F_MQ);
    rig_free(r);
}

/* Whoever serves, before and after: no buffer is lost, and none comes back twice. */
static void pauses_lose_nothing(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);

        for (uint32_t i = 0; i < 100; i++) {
            send_one(r, 0, i);
            if (i % 3 != 0)
                continue;
            r->irq[0] = r->irq[1] = 0;
            tn_virtio_net_quiesce(&r->n);
            assert_false(r->server[0].has);
            assert_int_equal(r->irq[0], 1); /* the last word may not have been heard */
            assert_int_equal(r->irq[1], 1);
            vd_kick(&r->d, 0); /* nothing comes of it */
            vd_kick(&r->d, 1);
            tn_virtio_net_receive(&r->n, 0);
            tn_virtio_net_transmit(&r->n, 0);
            assert_false(r->server[0].has);
            tn_virtio_net_wake(&r->n);
            assert_true(r->server[0].has);
            tn_virtio_net_wake(&r->n); /* once is enough */
        }
        assert_int_equal(r->sim.out[0].count, 0); /* the device itself sent nothing */
        assert_int_equal(r->server[0].times, 35);
        rig_free(r);
    }
}

static void pairs_come_and_go(void **state)
{
    struct rig *r = rig_up(0);

    (void)state;
    assert_false(r->server[1].has);
    assert_int_equal(set_pairs(r, 2), TN_VIRTIO_NET_OK);
    turn(r);
    assert_true(r->server[0].has && r->server[1].has);
    send_one(r, 1, 7);
    assert_int_equal(set_pairs(r, 1), TN_VIRTIO_NET_OK);
    turn(r);
    assert_true(r->server[0].has && !r->server[1].has);
    assert_int_equal(set_pairs(r, 2), TN_VIRTIO_NET_OK);
    turn(r);
    send_one(r, 1, 8);
    r->sim.set_error = TN_ESYS; /* what was to go stays */
    assert_int_equal(set_pairs(r, 1), TN_VIRTIO_NET_ERR);
    turn(r);
    assert_true(r->server[0].has && r->server[1].has);
    send_one(r, 1, 9);
    rig_free(r);
}

static void a_link_that_is_down_is_nobodys(void **state)
{
    struct rig *r = rig_up(0);

    (void)state;
    tn_virtio_net_link(&r->n, false);
    assert_false(r->server[0].has);
    turn(r);
    assert_false(r->server[0].has);
    tn_virtio_net_link(&r->n, true);
    turn(r);
    assert_true(r->server[0].has);
    send_one(r, 0, 1);
    rig_free(r);
}

static void a_reset_takes_them_back(void **state)
{
    struct rig *r = rig_up(0);

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        r->irq[0] = r->irq[1] = 0;
        vd_reset(&r->d);
        assert_false(r->server[0].has);
        assert_int_equal(r->irq[0] + r->irq[1], 0);
        for (unsigned q = 0; q < 2; q++) /* stopped, not where they stood */
            assert_int_equal(tn_virtq_in_flight(&r->n.queue[q].q), 0);
        turn(r);
        assert_false(r->server[0].has);
        assert_true(vd_up(&r->d, EVERY, 2 * PAIRS + 1, SIZE));
        turn(r);
        assert_true(r->server[0].has);
        send_one(r, 0, i);
    }
    rig_free(r);
}

static void who_cannot_serve_says_so(void **state)
{
    static const int errors[] = {TN_ESYS, TN_EADDR, TN_ERANGE, TN_EUNSUP, TN_ESTATE};

    (void)state;
    for (size_t i = 0; i < COUNT(errors); i++) {
        struct rig *r = rig_new();

        r->over = errors[i];
        assert_true(vd_up(&r->d, EVERY, 2 * PAIRS + 1, SIZE));
        turn(r);
        assert_int_equal(tn_virtio_status_read(&r->n.virtio), 15 | TN_VIRTIO_S_NEEDS_RESET);
        assert_int_equal(r->config_irq, 1);
        r->over = 0;
        vd_reset(&r->d);
        assert_true(vd_up(&r->d, EVERY, 2 * PAIRS + 1, SIZE));
        turn(r);
        send_one(r, 0, 1);
        r->back = errors[i]; /* where they stand is not known */
        tn_virtio_net_quiesce(&r->n);
        assert_int_equal(tn_virtio_status_read(&r->n.virtio), 15 | TN_VIRTIO_S_NEEDS_RESET);
        r->back = 0;
        vd_reset(&r->d);
        assert_true(vd_up(&r->d, EVERY, 2 * PAIRS + 1, SIZE));
        turn(r);
        send_one(r, 0, 2);
        rig_free(r);
    }
}

/* A driver that enables no queue to send: it gets nothing, and may do so. */
static void half_a_pair_is_not_handed_over(void **state)
{
    struct rig *r = rig_new();

    (void)state;
    assert_true(vd_up(&r->d, EVERY, 1, SIZE));
    turn(r);
    assert_false(r->server[0].has);
    assert_int_equal(tn_virtio_status_read(&r->n.virtio), 15);
    rig_free(r);
}

static void a_saved_device_goes_on(void **state)
{
    struct tn_virtio_net_state saved;
    struct tn_virtq_state ring;
    struct rig *r = rig_up(0);

    (void)state;
    send_one(r, 0, 1);
    tn_virtio_net_quiesce(&r->n);
    tn_virtio_net_save(&r->n, &saved);
    tn_virtio_net_wake(&r->n);
    send_one(r, 0, 2);
    /* Over one that runs: what is handed over comes back first, and is not what counts. */
    tn_virtio_net_quiesce(&r->n);
    tn_virtio_net_save(&r->n, &saved);
    tn_virtio_net_wake(&r->n);
    send_one(r, 0, 3);
    assert_int_equal(tn_virtio_net_restore(&r->n, &saved), 0);
    assert_false(r->server[0].has);
    tn_virtq_save(&r->n.queue[1].q, &ring);
    assert_int_equal(ring.next_avail, saved.virtio.queue[1].ring.next_avail);
    rig_make(r); /* another device */
    r->server[0].has = false;
    assert_int_equal(tn_virtio_net_restore(&r->n, &saved), 0);
    assert_false(r->server[0].has);
    tn_virtio_net_wake(&r->n);
    assert_true(r->server[0].has);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_hooks_or_none),
        cmocka_unit_test(what_nobody_would_do_is_not_offered),
        cmocka_unit_test(pauses_lose_nothing),
        cmocka_unit_test(pairs_come_and_go),
        cmocka_unit_test(a_link_that_is_down_is_nobodys),
        cmocka_unit_test(a_reset_takes_them_back),
        cmocka_unit_test(who_cannot_serve_says_so),
        cmocka_unit_test(half_a_pair_is_not_handed_over),
        cmocka_unit_test(a_saved_device_goes_on),
    };

    return cmocka_run_group_tests_name("virtio_net_away", tests, NULL, NULL);
}
