/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_virtio_rng.h"

#include "virtio_rig.h"

#define RAM   0x20000u /* bytes of each of two regions that touch, but not in this process */
#define SIZE  16u
#define TABLE 0x7000u
#define DATA  0x8000u
#define MS    1000000ull

/* An entropy device, its surroundings, and a guest. */
struct rig {
    struct tn_virtio_rng g;
    struct ram ram;
    struct vd d;
    struct vqd *q; /* in it */
    struct tn_rate rate;
    uint64_t now;
    uint64_t left;  /* bytes that fill still has */
    int64_t answer; /* in place of fill's, unless 0 */
    uint64_t filled, calls, largest;
    unsigned irq, config_irq, wakes;
    uint64_t wake_ns;
};

static int64_t on_fill(void *ctx, uint8_t *buf, size_t len)
{
    struct rig *r = ctx;
    size_t n = len < r->left ? len : r->left;

    r->calls++;
    r->largest = len > r->largest ? len : r->largest;
    memset(buf, 0xa5, n);
    r->left -= n;
    r->filled += n;
    return r->answer ? r->answer : (int64_t)n;
}

static void on_wake(void *ctx, uint64_t ns)
{
    struct rig *r = ctx;

    r->wakes++;
    r->wake_ns = ns;
}

static uint64_t on_now(void *ctx)
{
    return ((struct rig *)ctx)->now;
}

static void on_irq(void *ctx, uint32_t queue)
{
    struct rig *r = ctx;

    if (queue == TN_VIRTIO_CONFIG)
        r->config_irq++;
    else
        r->irq++;
}

static void rig_device(struct rig *r, bool limited)
{
    struct tn_virtio_rng_cfg cfg = {&r->ram.mem, SIZE,    TN_VIRTIO_F_RING,          r,
                                    on_fill,     on_wake, limited ? &r->rate : NULL, on_now};

    assert_int_equal(tn_virtio_rng_init(&r->g, &cfg), 0);
    tn_virtio_connect(&r->g.virtio, on_irq, r);
}

static void rig_start(struct rig *r, uint64_t ring)
{
    assert_true(vd_up(&r->d, ring, 1, SIZE));
    assert_int_equal(r->d.features, ring | TN_VIRTIO_F_VERSION_1);
    assert_int_equal(r->wakes, 1); /* in case the queue was filled before */
    assert_int_equal(r->wake_ns, 0);
    r->wakes = 0;
    r->q = &r->d.q[0];
}

static struct rig *rig_up(uint64_t ring, const struct tn_rate_cfg *limit)
{
    struct rig *r = calloc(1, sizeof(*r));

    assert_non_null(r);
    ram_init(&r->ram, RAM);
    if (limit)
        assert_int_equal(tn_rate_init(&r->rate, limit, 0), 0);
    r->left = UINT64_MAX;
    rig_device(r, limit != NULL);
    vd_init(&r->d, &r->g.virtio, r->ram.host[0], 0, 0x1000);
    rig_start(r, ring);
    return r;
}

static void rig_free(struct rig *r)
{
    vd_free(&r->d);
    ram_free(&r->ram);
    free(r);
}

static void ask(struct rig *r, uint64_t addr, uint32_t len)
{
    struct vqd_buf buf = {addr, len, true};

    assert_true(vd_add(&r->d, 0, &buf, 1) >= 0);
}

static void works_again(struct rig *r, uint64_t ring)
{
    r->left = UINT64_MAX;
    r->answer = 0;
    r->wakes = 0;
    rig_start(r, ring);
    ask(r, DATA, 16);
    vd_kick(&r->d, 0);
    assert_int_equal(take(r->q), 16);
}

static void a_bad_cfg_is_refused(void **state)
{
    struct tn_rate rate;
    struct tn_mem mem;
    struct tn_virtio_rng_cfg good = {&mem, 16, 0, NULL, on_fill, on_wake, NULL, NULL}, cfg;
    struct tn_virtio_rng *g = malloc(sizeof(*g));

    (void)state;
    tn_mem_init(&mem, NULL, 0);
    for (int i = 0; i < 8; i++) {
        cfg = good;
        switch (i) {
        case 0:
            cfg.mem = NULL;
            break;
        case 1:
            cfg.fill = NULL;
            break;
        case 2:
            cfg.wake = NULL;
            break;
        case 3:
            cfg.rate = &rate; /* without a clock */
            break;
        case 4:
            cfg.queue_size = 0;
            break;
        case 5:
            cfg.queue_size = 2 * TN_VIRTIO_RNG_QUEUE_MAX;
            break;
        case 6:
            cfg.queue_size = 3;
            break;
        default:
            cfg.ring_features = 1;
        }
        assert_int_equal(tn_virtio_rng_init(g, &cfg), TN_EINVAL);
    }
    good.queue_size = TN_VIRTIO_RNG_QUEUE_MAX;
    assert_int_equal(tn_virtio_rng_init(g, &good), 0);
    free(g);
}

static void b01_there_is_no_configuration_space(void **state)
{
    static const uint32_t off[] = {0, 1, 4, 0xfffffffcu, 0xffffffffu, 0x80000000u};
    struct rig *r = rig_up(0, NULL);

    (void)state;
    for (size_t i = 0; i < COUNT(off); i++) {
        for (unsigned width = 0; width <= 8; width++) {
            assert_int_equal(tn_virtio_config_read(&r->g.virtio, off[i], width), 0);
            tn_virtio_config_write(&r->g.virtio, off[i], width, 0xffffffff);
        }
    }
    assert_int_equal(r->g.virtio.cfg.device_id, 4);
    assert_int_equal(r->g.virtio.cfg.features & 0xffffff, 0);
    rig_free(r);
}

static void a03_a_broken_ring_needs_a_reset(void **state)
{
    struct rig *r = rig_up(0, NULL);

    (void)state;
    vqd_put(r->q, r->q->driver + 2, 2, SIZE + 1);
    vd_kick(&r->d, 0);
    assert_int_equal(vd_status(&r->d), 15 | TN_VIRTIO_S_NEEDS_RESET);
    assert_int_equal(r->config_irq, 1);
    vd_kick(&r->d, 0);
    tn_virtio_rng_wake(&r->g);
    assert_int_equal(r->calls, 0);
    works_again(r, all_rings[3]);
    ask(r, 2 * RAM - 4, 5);
    vd_kick(&r->d, 0);
    assert_int_equal(vd_status(&r->d), 15 | TN_VIRTIO_S_NEEDS_RESET);
    works_again(r, 0);
    assert_true(vd_negotiate(&r->d, 0)); /* DRIVER_OK without a queue */
    vd_set_status(&r->d, 15);
    tn_virtio_rng_wake(&r->g);
    assert_int_equal(vd_status(&r->d), 15);
    rig_free(r);
}

static void a_request_is_filled(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k], NULL);
        struct vqd_buf buf[4] = {
            {DATA, 10, true}, {RAM - 3, 5, true}, {DATA + 64, 0, true}, {DATA + 100, 3, true}};

        if (all_rings[k] & TN_VIRTIO_F_INDIRECT_DESC)
            assert_true(vqd_add_table(r->q, buf, 4, TABLE, 4) >= 0);
        else
            assert_true(vd_add(&r->d, 0, buf, 4) >= 0);
        vd_kick(&r->d, 0);
        assert_int_equal(take(r->q), 18);
        none(r->q);
        for (unsigned i = 0; i < 200; i++)
            assert_int_equal(*ram_at(&r->ram, DATA + i),
                             i < 10 || (i >= 100 && i < 103) ? 0xa5 : 0);
        for (unsigned i = 0; i < 20; i++)
            assert_int_equal(*ram_at(&r->ram, RAM - 10 + i), i >= 7 && i < 12 ? 0xa5 : 0);
        assert_int_equal(r->irq, 1);
        assert_int_equal(r->wakes, 0);
        assert_int_equal(r->calls, 4); /* one of the buffers crosses regions */
        rig_free(r);
    }
}

static void c22_a_request_gets_64_kib_at_most(void **state)
{
    static const struct {
        uint32_t len[3], want;
    } row[] = {
        {{0xffff, 0, 0}, 0xffff},        {{0x10000, 0, 0}, 0x10000},
        {{0x10001, 0, 0}, 0x10000},      {{0x8000, 0x8000, 1}, 0x10000},
        {{0xffff, 2, 0x10000}, 0x10000}, {{0x17fff, 0x17fff, 0x17fff}, 0x10000},
    };

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k], NULL);

        for (size_t i = 0; i < COUNT(row); i++) {
            struct vqd_buf buf[3];
            uint64_t filled = r->filled;

            for (unsigned b = 0; b < 3; b++)
                buf[b] = (struct vqd_buf){DATA, row[i].len[b], true};
            assert_true(vd_add(&r->d, 0, buf, 3) >= 0);
            vd_kick(&r->d, 0);
            assert_int_equal(take(r->q), row[i].want);
            assert_int_equal(r->filled - filled, row[i].want);
        }
        rig_free(r);
    }
}

static void chains_without_room_are_returned_with_nothing(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k], NULL);
        struct vqd_buf mixed[2] = {{DATA, 100, false}, {DATA + 200, 100, true}};

        *ram_at(&r->ram, DATA) = 7;
        assert_true(vd_add(&r->d, 0, mixed, 1) >= 0);
        ask(r, DATA, 0);
        vd_kick(&r->d, 0);
        assert_int_equal(take(r->q), 0);
        assert_int_equal(take(r->q), 0);
        assert_int_equal(r->calls, 0);

        assert_true(vd_add(&r->d, 0, mixed, 2) >= 0);
        vd_kick(&r->d, 0);
        assert_int_equal(take(r->q), 100);
        assert_int_equal(*ram_at(&r->ram, DATA), 7); /* what is for reading is not written */
        assert_int_equal(*ram_at(&r->ram, DATA + 1), 0);
        assert_int_equal(*ram_at(&r->ram, DATA + 200), 0xa5);
        assert_true(tn_virtio_live(&r->g.virtio));
        rig_free(r);
    }
}

static void a_source_may_give_fewer(void **state)
{
    struct rig *r = rig_up(0, NULL);
    struct vqd_buf buf[2] = {{DATA, 10, true}, {DATA + 10, 10, true}};

    (void)state;
    r->left = 7;
    assert_true(vd_add(&r->d, 0, buf, 2) >= 0);
    vd_kick(&r->d, 0);
    assert_int_equal(take(r->q), 7);
    assert_int_equal(r->calls, 1);
    r->left = 15;
    assert_true(vd_add(&r->d, 0, buf, 2) >= 0);
    vd_kick(&r->d, 0);
    assert_int_equal(take(r->q), 15);
    assert_int_equal(*ram_at(&r->ram, DATA + 14), 0xa5);

    r->left = UINT64_MAX; /* one that claims more than it was asked for is not believed */
    r->answer = INT64_MAX;
    assert_true(vd_add(&r->d, 0, buf, 2) >= 0);
    vd_kick(&r->d, 0);
    assert_int_equal(take(r->q), 20);
    rig_free(r);
}

/* 5.4.6.2: at least one byte: a request waits for it. */
static void a_request_waits_for_a_source_that_is_dry(void **state)
{
    static const int64_t answers[] = {0, -1, INT64_MIN, TN_EAGAIN};

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k], NULL);

        for (size_t i = 0; i < COUNT(answers); i++) {
            uint64_t dry = r->g.dry;

            r->left = 0;
            r->answer = answers[i];
            ask(r, DATA, 10);
            ask(r, DATA, 20);
            vd_kick(&r->d, 0);
            none(r->q);
            assert_int_equal(r->g.dry, dry + 1);
            assert_int_equal(r->wakes, 0);
            tn_virtio_rng_wake(&r->g); /* too early */
            none(r->q);
            assert_int_equal(r->g.dry, dry + 2);
            r->left = UINT64_MAX;
            r->answer = 0;
            tn_virtio_rng_wake(&r->g);
            assert_int_equal(take(r->q), 10);
            assert_int_equal(take(r->q), 20);
        }
        rig_free(r);
    }
}

static void c27_a_rate_makes_requests_wait(void **state)
{
    static const struct tn_rate_cfg limit = {100000, 1000, 0, 0}; /* 100 bytes a millisecond */

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k], &limit);
        struct vqd_buf reading = {DATA, 100, false};

        r->now = 5 * MS;
        ask(r, DATA, 900);
        assert_true(vd_add(&r->d, 0, &reading, 1) >= 0); /* gets nothing, and pays nothing */
        ask(r, DATA, 300);
        ask(r, DATA, 5000); /* pays for what it gets, more than the burst */
        ask(r, DATA, 1);
        vd_kick(&r->d, 0);
        assert_int_equal(take(r->q), 900);
        assert_int_equal(take(r->q), 0);
        none(r->q);
        assert_int_equal(r->wakes, 1);
        assert_int_equal(r->wake_ns, 2 * MS);
        vd_kick(&r->d, 0); /* a driver in a hurry gains nothing */
        assert_int_equal(r->wakes, 2);
        assert_int_equal(r->wake_ns, 2 * MS);
        r->now += 2 * MS - 1;
        tn_virtio_rng_wake(&r->g);
        none(r->q);
        assert_int_equal(r->wake_ns, 1);
        r->now += 1;
        tn_virtio_rng_wake(&r->g);
        assert_int_equal(take(r->q), 300);
        none(r->q);
        assert_int_equal(r->wake_ns, 10 * MS); /* until the bucket is full */
        r->now += r->wake_ns;
        tn_virtio_rng_wake(&r->g);
        assert_int_equal(take(r->q), 5000);
        none(r->q);
        assert_int_equal(r->wake_ns, 4001 * MS / 100);
        r->now += r->wake_ns;
        tn_virtio_rng_wake(&r->g);
        assert_int_equal(take(r->q), 1);
        assert_int_equal(r->wakes, 5);
        rig_free(r);
    }
}

static void c22_a_claim_pays_for_what_it_can_get(void **state)
{
    static const struct tn_rate_cfg limit = {TN_VIRTIO_RNG_CAP, 0, 0, 0};
    struct rig *r = rig_up(0, &limit);
    struct vqd_buf buf[3] = {{DATA, 0x17000, true}, {DATA, 0x17000, true}, {DATA, 0x17000, true}};

    (void)state;
    assert_true(vd_add(&r->d, 0, buf, 3) >= 0);
    vd_kick(&r->d, 0);
    assert_int_equal(take(r->q), TN_VIRTIO_RNG_CAP);
    assert_int_equal(r->rate.bytes.missing, TN_VIRTIO_RNG_CAP);
    rig_free(r);
}

static void c14_a_turn_ends(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k], NULL);

        for (unsigned i = 0; i < 6; i++)
            ask(r, DATA, TN_VIRTIO_RNG_CAP);
        vd_kick(&r->d, 0);
        assert_int_equal(r->filled, TN_VIRTIO_RNG_TURN);
        assert_int_equal(r->wakes, 1);
        assert_int_equal(r->wake_ns, 0);
        assert_int_equal(r->irq, 1);
        tn_virtio_rng_wake(&r->g);
        assert_int_equal(r->filled, 6 * TN_VIRTIO_RNG_CAP);
        assert_int_equal(r->wakes, 1);
        rig_free(r);
    }
}

/* A driver that asks again whenever it is answered. */
static int64_t endless(void *ctx, uint8_t *buf, size_t len)
{
    struct rig *r = ctx;
    uint32_t used;

    (void)buf;
    r->calls++;
    while (vd_reap(&r->d, 0, &used) >= 0)
        continue;
    ask(r, DATA, 1);
    return (int64_t)len;
}

static void c14_requests_without_end_have_one_turn_at_a_time(void **state)
{
    struct rig *r = rig_up(all_rings[1], NULL);

    (void)state;
    r->g.cfg.fill = endless;
    ask(r, DATA, 1);
    vd_kick(&r->d, 0);
    assert_int_equal(r->calls, SIZE);
    assert_int_equal(r->wakes, 1);
    assert_int_equal(r->wake_ns, 0);
    rig_free(r);
}

static void c04_a_reset_forgets_what_waits(void **state)
{
    static const struct tn_rate_cfg limit = {1000, 100, 0, 0};
    struct rig *r = rig_up(0, &limit);

    (void)state;
    ask(r, DATA, 100);
    ask(r, DATA, 100);
    vd_kick(&r->d, 0);
    assert_int_equal(r->wakes, 1);
    vd_reset(&r->d);
    r->now += 100 * MS;
    tn_virtio_rng_wake(&r->g); /* the timer of before */
    assert_int_equal(r->calls, 1);
    works_again(r, all_rings[2]);
    rig_free(r);
}

static void e06_a_request_that_waits_survives_a_restore(void **state)
{
    static const struct tn_rate_cfg limit = {1000, 100, 0, 0};

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k], &limit);
        struct tn_virtio_rng_state one, two;

        ask(r, DATA, 100);
        ask(r, DATA, 50);
        vd_kick(&r->d, 0);
        assert_int_equal(take(r->q), 100);
        memset(&one, 0x33, sizeof(one));
        memset(&two, 0x44, sizeof(two));
        tn_virtio_rng_save(&r->g, &one);
        memset(&r->g, 0x55, sizeof(r->g));
        rig_device(r, true);
        assert_int_equal(tn_virtio_rng_restore(&r->g, &one), 0);
        tn_virtio_rng_save(&r->g, &two);
        assert_memory_equal(&one, &two, sizeof(one));
        r->now += 50 * MS;
        tn_virtio_rng_wake(&r->g);
        assert_int_equal(take(r->q), 50);
        rig_free(r);
    }
}

static void e01_e03_a_crafted_state_is_refused(void **state)
{
    static const int want[] = {TN_EUNSUP, TN_EUNSUP, TN_EFORMAT, TN_EFORMAT, TN_EUNSUP, TN_EFORMAT};
    struct rig *r = rig_up(0, NULL);
    struct tn_virtio_rng_state good, bad, after;

    (void)state;
    ask(r, DATA, 10);
    vd_kick(&r->d, 0);
    tn_virtio_rng_save(&r->g, &good);
    for (size_t i = 0; i < COUNT(want); i++) {
        bad = good;
        switch (i) {
        case 0:
            bad.version = 0;
            break;
        case 1:
            bad.virtio.version++;
            break;
        case 2:
            bad.zero = 1;
            break;
        case 3: /* a request in flight */
            bad.virtio.queue[0].ring.next_used--;
            break;
        case 4:
            bad.virtio.device_id = 3;
            break;
        default:
            bad.virtio.queue[0].ready = 2;
        }
        assert_int_equal(tn_virtio_rng_restore(&r->g, &bad), want[i]);
        tn_virtio_rng_save(&r->g, &after);
        assert_memory_equal(&good, &after, sizeof(good));
    }
    bad = good;
    bad.virtio.queue[0].desc = bad.virtio.queue[0].ring.desc = 1ull << 40;
    assert_int_equal(tn_virtio_rng_restore(&r->g, &bad), TN_EADDR);
    assert_int_equal(vd_status(&r->d), 0);
    works_again(r, 0);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bad_cfg_is_refused),
        cmocka_unit_test(b01_there_is_no_configuration_space),
        cmocka_unit_test(a03_a_broken_ring_needs_a_reset),
        cmocka_unit_test(a_request_is_filled),
        cmocka_unit_test(c22_a_request_gets_64_kib_at_most),
        cmocka_unit_test(chains_without_room_are_returned_with_nothing),
        cmocka_unit_test(a_source_may_give_fewer),
        cmocka_unit_test(a_request_waits_for_a_source_that_is_dry),
        cmocka_unit_test(c27_a_rate_makes_requests_wait),
        cmocka_unit_test(c22_a_claim_pays_for_what_it_can_get),
        cmocka_unit_test(c14_a_turn_ends),
        cmocka_unit_test(c14_requests_without_end_have_one_turn_at_a_time),
        cmocka_unit_test(c04_a_reset_forgets_what_waits),
        cmocka_unit_test(e06_a_request_that_waits_survives_a_restore),
        cmocka_unit_test(e01_e03_a_crafted_state_is_refused),
    };

    return cmocka_run_group_tests_name("virtio_rng", tests, NULL, NULL);
}
