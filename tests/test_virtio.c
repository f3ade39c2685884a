/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_virtio.h"

#include "virtio_toy.h"

static struct toy *dev_new(void)
{
    struct toy *dev = calloc(1, sizeof(*dev));

    assert_non_null(dev);
    toy_init(dev, TN_VIRTIO_F_RING | TN_VIRTIO_F_IN_ORDER | 1u << 5 | 1ull << 50, 3);
    return dev;
}

static void dev_free(struct toy *dev)
{
    vd_free(&dev->d);
    free(dev);
}

/* Brings the driver to a status: any of ACK, DRV, FOK, DOK with RESET and FAILED on top. */
static void go(struct toy *dev, uint8_t status)
{
    static const uint8_t step[] = {ACK, DRV, FOK, DOK};
    uint8_t progress = status % 64;

    tn_virtio_status_write(&dev->v, 0);
    for (size_t i = 0; i < COUNT(step) && step[i] <= progress; i++) {
        tn_virtio_status_write(&dev->v, step[i]);
        if (step[i] == DRV)
            tn_virtio_features_write(&dev->v, 1, 1);
        assert_int_equal(tn_virtio_status_read(&dev->v), step[i]);
    }
    if (status & FAILED)
        tn_virtio_status_write(&dev->v, FAILED);
    if (status & RESET)
        tn_virtio_needs_reset(&dev->v);
    assert_int_equal(tn_virtio_status_read(&dev->v), status);
}

/* Every status that there is. */
static const uint8_t every_status[] = {
    0,
    ACK,
    DRV,
    FOK,
    DOK,
    FAILED,
    ACK | FAILED,
    DRV | FAILED,
    FOK | FAILED,
    DOK | FAILED,
    ACK | RESET,
    DRV | RESET,
    FOK | RESET,
    DOK | RESET,
    RESET | FAILED,
    ACK | RESET | FAILED,
    DRV | RESET | FAILED,
    FOK | RESET | FAILED,
    DOK | RESET | FAILED,
};

static void init_limits(void **state)
{
    struct toy *dev = dev_new();
    struct tn_virtio_cfg cfg;
    static struct tn_virtio v;
    static const uint16_t bad_size[] = {0, 3, 65, 32769, 65535};
    static const uint64_t bad_feature[] = {1ull << 24, 1ull << 27, 1ull << 30, 1ull << 37,
                                           1ull << 38, 1ull << 40, 1ull << 49};

    (void)state;
    for (size_t i = 0; i < COUNT(bad_size); i++) {
        cfg = dev->cfg;
        cfg.queue_size = bad_size[i];
        assert_int_equal(tn_virtio_init(&v, &cfg), TN_EINVAL);
    }
    for (size_t i = 0; i < COUNT(bad_feature); i++) {
        cfg = dev->cfg;
        cfg.features |= bad_feature[i];
        assert_int_equal(tn_virtio_init(&v, &cfg), TN_EINVAL);
    }
    cfg = dev->cfg;
    cfg.queues = 0;
    assert_int_equal(tn_virtio_init(&v, &cfg), TN_EINVAL);
    cfg.queues = TN_VIRTIO_MAX_QUEUES + 1;
    assert_int_equal(tn_virtio_init(&v, &cfg), TN_EINVAL);
    cfg = dev->cfg;
    cfg.queue = NULL;
    assert_int_equal(tn_virtio_init(&v, &cfg), TN_EINVAL);
    cfg = dev->cfg;
    cfg.mem = NULL;
    assert_int_equal(tn_virtio_init(&v, &cfg), TN_EINVAL);
    cfg = dev->cfg;
    cfg.ops = NULL;
    assert_int_equal(tn_virtio_init(&v, &cfg), TN_EINVAL);
    cfg = dev->cfg;
    cfg.config = NULL;
    assert_int_equal(tn_virtio_init(&v, &cfg), TN_EINVAL);
    cfg.config_len = 0;
    cfg.queue_size = 32768;
    cfg.queues = 1;
    assert_int_equal(tn_virtio_init(&v, &cfg), 0);
    assert_int_equal(dev->queue[0].size, 32768);
    assert_int_equal(tn_virtio_status_read(&v), 0);
    dev_free(dev);
}

/* Every status there is, and every byte that the driver may write. */
static void b08_status_table(void **state)
{
    struct toy *dev = dev_new();
    static const uint8_t move[][2] = {{0, ACK}, {0, DRV}, {ACK, DRV}, {DRV, FOK}, {FOK, DOK}};

    (void)state;
    for (size_t i = 0; i < COUNT(every_status); i++) {
        uint8_t from = every_status[i];

        for (unsigned value = 0; value < 256; value++) {
            uint8_t expect = from;

            go(dev, from);
            if (value == 0)
                expect = 0;
            else if (value & FAILED)
                expect = from | FAILED;
            for (size_t k = 0; k < COUNT(move); k++) {
                if (move[k][0] == from && move[k][1] == value)
                    expect = (uint8_t)value;
            }
            dev->activates = dev->resets = 0;
            tn_virtio_status_write(&dev->v, (uint8_t)value);
            assert_int_equal(tn_virtio_status_read(&dev->v), expect);
            assert_int_equal(dev->activates, expect == DOK && from != DOK);
            assert_int_equal(dev->resets, value == 0);
            assert_int_equal(tn_virtio_live(&dev->v), expect == DOK);
            assert_int_equal(tn_virtio_queue_open(&dev->v), expect == FOK);
        }
    }
    toy_revive(dev);
    dev_free(dev);
}

static void b08_features_are_fixed_by_features_ok(void **state)
{
    struct toy *dev = dev_new();

    (void)state;
    for (size_t i = 0; i < COUNT(every_status); i++) {
        uint64_t before;

        go(dev, every_status[i]);
        before = dev->v.features;
        tn_virtio_features_write(&dev->v, 0, 0x12345678);
        tn_virtio_features_write(&dev->v, 1, 0x9abcdef0);
        if (every_status[i] == DRV)
            assert_true(dev->v.features == 0x9abcdef012345678);
        else
            assert_true(dev->v.features == before);
    }
    dev_free(dev);
}

static void features_words(void **state)
{
    struct toy *dev = dev_new();
    static const uint32_t none[] = {2, 3, 31, 32, 33, 0x80000000, 0xffffffff};

    (void)state;
    assert_int_equal(tn_virtio_features_read(&dev->v, 0), 1u << 5 | 1u << 28 | 1u << 29);
    assert_int_equal(tn_virtio_features_read(&dev->v, 1), 1u << 0 | 1u << 2 | 1u << 3 | 1u << 18);
    go(dev, DRV);
    for (size_t i = 0; i < COUNT(none); i++) {
        assert_int_equal(tn_virtio_features_read(&dev->v, none[i]), 0);
        tn_virtio_features_write(&dev->v, none[i], 0xffffffff);
        assert_true(dev->v.features == TN_VIRTIO_F_VERSION_1);
    }
    tn_virtio_features_write(&dev->v, 0, 0x20);
    assert_true(dev->v.features == (TN_VIRTIO_F_VERSION_1 | 0x20));
    tn_virtio_features_write(&dev->v, 1, 0x40001);
    assert_true(dev->v.features == (TN_VIRTIO_F_VERSION_1 | 0x20 | 1ull << 50));
    assert_false(tn_virtio_has(&dev->v, 0x20));
    tn_virtio_status_write(&dev->v, FOK);
    assert_true(tn_virtio_has(&dev->v, 0x20));
    assert_true(tn_virtio_has(&dev->v, 1ull << 50));
    assert_false(tn_virtio_has(&dev->v, TN_VIRTIO_F_RING_PACKED));
    dev_free(dev);
}

static void features_ok_can_be_refused(void **state)
{
    struct toy *dev = dev_new();
    static const uint64_t bad[] = {0,
                                   1u << 5, /* no VERSION_1 */
                                   TN_VIRTIO_F_VERSION_1 | 1u << 6,
                                   TN_VIRTIO_F_VERSION_1 | 1ull << 63,
                                   TN_VIRTIO_F_VERSION_1 | TN_VIRTIO_F_ACCESS_PLATFORM,
                                   ~0ull};

    (void)state;
    go(dev, DRV);
    for (size_t i = 0; i < COUNT(bad); i++) {
        tn_virtio_features_write(&dev->v, 0, (uint32_t)bad[i]);
        tn_virtio_features_write(&dev->v, 1, (uint32_t)(bad[i] >> 32));
        dev->accepts = 0;
        tn_virtio_status_write(&dev->v, FOK);
        assert_int_equal(tn_virtio_status_read(&dev->v), DRV);
        assert_int_equal(dev->accepts, 0);
    }
    dev->refuses = 1u << 5;
    tn_virtio_features_write(&dev->v, 0, 1u << 5);
    tn_virtio_features_write(&dev->v, 1, 1);
    tn_virtio_status_write(&dev->v, FOK);
    assert_int_equal(tn_virtio_status_read(&dev->v), DRV);
    assert_true(dev->accepts == 1 && dev->asked == (TN_VIRTIO_F_VERSION_1 | 1u << 5));
    tn_virtio_features_write(&dev->v, 0, 0); /* and another try */
    tn_virtio_status_write(&dev->v, FOK);
    assert_int_equal(tn_virtio_status_read(&dev->v), FOK);
    dev_free(dev);
}

/* What must keep a queue from starting: one wrong, the others right. */
static void a13_geometry_is_checked_at_driver_ok(void **state)
{
    static const struct {
        uint64_t want;
        uint16_t size;
        uint64_t desc, driver, device; /* added to what is right */
    } row[] = {
        {0, 0, 0, 0, 0},
        {TN_VIRTIO_F_RING_PACKED, 0, 0, 0, 0},
        {0, 3, 0, 0, 0},
        {0, 128, 0, 0, 0}, /* more than queue_size */
        {TN_VIRTIO_F_RING_PACKED, 65, 0, 0, 0},
        {0, 65535, 0, 0, 0},
        {0, 16, 8, 0, 0}, /* not aligned */
        {0, 16, 0, 1, 0},
        {0, 16, 0, 0, 2},
        {TN_VIRTIO_F_RING_PACKED, 16, 0, 2, 0},
        {0, 16, RAM, 0, 0}, /* not RAM (B10) */
        {0, 16, 0, RAM, 0},
        {0, 16, 0, 0, RAM},
        {0, 16, 0xffffffffffff0000, 0, 0},
        {0, 16, 0, 0, RAM - 16},
    };
    struct toy *dev = dev_new();

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct tn_virtio_queue *q = &dev->queue[1];

        assert_true(vd_negotiate(&dev->d, row[i].want));
        assert_true(vd_queues(&dev->d, 3, 16));
        q->size = row[i].size;
        q->desc += row[i].desc;
        q->driver += row[i].driver;
        q->device += row[i].device;
        dev->activates = dev->config_interrupts = 0;
        vd_set_status(&dev->d, DOK);
        assert_int_equal(vd_status(&dev->d), DOK | RESET);
        assert_int_equal(dev->activates, 0);
        assert_int_equal(dev->config_interrupts, 1); /* 2.1.2 */
        for (size_t k = 0; k < COUNT(dev->queue); k++)
            assert_false(dev->queue[k].q.started);
        toy_revive(dev);
    }
    assert_true(vd_negotiate(&dev->d, TN_VIRTIO_F_RING_PACKED));
    assert_true(vd_queues(&dev->d, 3, 13)); /* of no consequence in a packed ring */
    vd_set_status(&dev->d, DOK);
    toy_io(dev, 0);
    dev_free(dev);
}

/* The registers are read at DRIVER_OK, and never again (A15, A16). */
static void a14_geometry_is_frozen(void **state)
{
    struct toy *dev = dev_new();

    (void)state;
    assert_true(vd_up(&dev->d, TN_VIRTIO_F_RING | TN_VIRTIO_F_IN_ORDER, 3, 16));
    assert_true(dev->queue[0].q.cfg.packed && dev->queue[0].q.cfg.event_idx);
    assert_true(dev->queue[0].q.cfg.indirect && dev->queue[0].q.cfg.in_order);
    dev->queue[0].size = 64;
    dev->queue[0].desc = RAM;
    dev->queue[0].driver = 3;
    dev->queue[0].ready = false;
    dev->v.cfg.queue_size = 1;
    toy_io(dev, 0);
    tn_virtio_status_write(&dev->v, DOK); /* a second time: nothing */
    assert_int_equal(dev->activates, 1);
    toy_io(dev, 0);
    dev_free(dev);
}

static void a17_notify_of_no_queue(void **state)
{
    struct toy *dev = dev_new();
    static const uint32_t bad[] = {3, 4, 16, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};

    (void)state;
    assert_true(vd_negotiate(&dev->d, 0));
    assert_true(vd_queues(&dev->d, 2, 16)); /* the third is not enabled */
    tn_virtio_notify(&dev->v, 0);
    vd_set_status(&dev->d, DOK);
    tn_virtio_notify(&dev->v, 2);
    for (size_t i = 0; i < COUNT(bad); i++) {
        tn_virtio_notify(&dev->v, bad[i]);
        tn_virtio_signal(&dev->v, bad[i]);
        assert_null(tn_virtio_queue_ptr(&dev->v, bad[i]));
    }
    assert_int_equal(dev->notifies, 0);
    tn_virtio_notify(&dev->v, 1);
    assert_int_equal(dev->notifies, 1);
    assert_int_equal(dev->notified, 1);
    for (size_t i = 0; i < COUNT(every_status); i++) {
        if (every_status[i] == DOK)
            continue;
        go(dev, every_status[i]);
        dev->notifies = 0;
        tn_virtio_notify(&dev->v, 0);
        assert_int_equal(dev->notifies, 0);
    }
    dev_free(dev);
}

static void a20_reset_stops_the_queues(void **state)
{
    struct toy *dev = dev_new();
    struct vqd_buf buf = {DATA, 4, true};
    struct tn_virtq_chain chain;
    struct tn_iov iov[4];

    (void)state;
    assert_true(vd_up(&dev->d, 0, 3, 16));
    assert_true(dev->ran_in_activate);
    assert_true(vd_add(&dev->d, 0, &buf, 1) >= 0);
    assert_int_equal(tn_virtq_pop(&dev->queue[0].q, &chain, iov, 4), 1);
    dev->resets = 0;
    vd_reset(&dev->d);
    assert_int_equal(dev->resets, 1);
    assert_int_equal(dev->status_in_reset, 0);
    assert_false(dev->ran_in_reset);
    assert_int_equal(dev->desc_in_reset, RINGS);
    assert_int_equal(dev->interrupts, 0);
    assert_int_equal(tn_virtq_push(&dev->queue[0].q, &chain, 4), TN_ESTATE);
    assert_int_equal(tn_virtq_pop(&dev->queue[0].q, &chain, iov, 4), TN_ESTATE);
    for (size_t i = 0; i < COUNT(dev->queue); i++) {
        assert_int_equal(dev->queue[i].size, 64);
        assert_int_equal(dev->queue[i].desc | dev->queue[i].driver | dev->queue[i].device, 0);
        assert_false(dev->queue[i].ready);
    }
    assert_true(dev->v.features == 0);
    assert_true(vd_up(&dev->d, 0, 3, 16));
    assert_int_equal(tn_virtq_push(&dev->queue[0].q, &chain, 4), TN_ESTATE); /* the run before */
    toy_io(dev, 0);
    dev_free(dev);
}

static void a28_ring_outside_ram_is_not_restored(void **state)
{
    struct toy *dev = dev_new();
    struct tn_virtio_state s;

    (void)state;
    assert_true(vd_up(&dev->d, 0, 3, 16));
    tn_virtio_save(&dev->v, &s);
    s.queue[1].device = s.queue[1].ring.device = RAM;
    assert_int_equal(tn_virtio_restore(&dev->v, &s), TN_EADDR);
    assert_int_equal(tn_virtio_status_read(&dev->v), 0);
    for (size_t i = 0; i < COUNT(dev->queue); i++)
        assert_false(dev->queue[i].q.started);
    tn_virtio_notify(&dev->v, 0);
    assert_int_equal(dev->notifies, 0);
    toy_revive(dev);
    dev_free(dev);
}

static void b01_config_stays_inside(void **state)
{
    struct toy *dev = dev_new();
    static const uint32_t off[] = {
        0, 1,  2,  3,          4,          5,          6,          7,          8,
        9, 12, 16, 0x7ffffffe, 0x80000000, 0xfffffffc, 0xfffffffd, 0xfffffffe, 0xffffffff};
    static const unsigned width[] = {0, 1, 2, 3, 4, 5, 8, 16, 0x80000001, 0xffffffff};

    (void)state;
    for (uint32_t len = 0; len <= TOY_CONFIG; len++) {
        uint8_t *exact = test_exact(dev->config, len);

        dev->v.cfg.config = len > 0 ? exact : NULL;
        dev->v.cfg.config_len = len;
        go(dev, DOK);
        for (size_t i = 0; i < COUNT(off); i++) {
            for (size_t k = 0; k < COUNT(width); k++) {
                bool ok = (width[k] == 1 || width[k] == 2 || width[k] == 4) &&
                          (uint64_t)off[i] + width[k] <= len;
                uint32_t expect = 0;

                for (unsigned n = 0; ok && n < width[k]; n++)
                    expect |= (uint32_t)(0x10 + off[i] + n) << 8 * n;
                assert_int_equal(tn_virtio_config_read(&dev->v, off[i], width[k]), expect);
                dev->config_writes = 0;
                tn_virtio_config_write(&dev->v, off[i], width[k], 0xa1b2c3d4);
                assert_int_equal(dev->config_writes, ok);
                if (!ok)
                    continue;
                assert_int_equal(dev->wrote_off, off[i]);
                assert_int_equal(dev->wrote_width, width[k]);
                assert_int_equal(dev->wrote, width[k] == 1   ? 0xd4
                                             : width[k] == 2 ? 0xc3d4
                                                             : 0xa1b2c3d4);
            }
        }
        free(exact);
    }
    dev_free(dev);
}

static void config_is_written_after_features_ok(void **state)
{
    struct toy *dev = dev_new();

    (void)state;
    for (size_t i = 0; i < COUNT(every_status); i++) {
        go(dev, every_status[i]);
        dev->config_writes = 0;
        tn_virtio_config_write(&dev->v, 0, 1, 1);
        assert_int_equal(dev->config_writes, every_status[i] == FOK || every_status[i] == DOK);
        assert_int_equal(tn_virtio_config_read(&dev->v, 0, 2), 0x1110);
    }
    dev_free(dev);
}

static void b09_activation_fails(void **state)
{
    struct toy *dev = dev_new();

    (void)state;
    dev->activate = TN_ESYS;
    assert_false(vd_up(&dev->d, 0, 3, 16));
    assert_int_equal(vd_status(&dev->d), DOK | RESET);
    assert_int_equal(dev->config_interrupts, 1);
    vd_kick(&dev->d, 0);
    assert_int_equal(dev->notifies, 0);
    dev->activate = 0;
    dev->breaks = true;
    assert_false(vd_up(&dev->d, 0, 3, 16));
    assert_int_equal(vd_status(&dev->d), DOK | RESET);
    assert_int_equal(dev->config_interrupts, 2);
    dev->breaks = false;
    toy_revive(dev);
    dev_free(dev);
}

static void needs_reset_stands_still(void **state)
{
    struct toy *dev = dev_new();
    struct tn_virtq_chain chain;
    struct tn_iov iov[4];

    (void)state;
    tn_virtio_needs_reset(&dev->v);
    assert_int_equal(tn_virtio_status_read(&dev->v), 0);
    go(dev, DRV);
    tn_virtio_needs_reset(&dev->v);
    assert_int_equal(tn_virtio_status_read(&dev->v), DRV | RESET);
    assert_int_equal(dev->interrupts, 0);

    assert_true(vd_up(&dev->d, 0, 3, 16));
    tn_virtio_needs_reset(&dev->v);
    tn_virtio_needs_reset(&dev->v);
    assert_int_equal(dev->config_interrupts, 1);
    for (size_t i = 0; i < COUNT(dev->queue); i++)
        assert_int_equal(tn_virtq_pop(&dev->queue[i].q, &chain, iov, 4), TN_EPROTO);
    tn_virtio_config_changed(&dev->v);
    tn_virtio_signal(&dev->v, 0);
    assert_int_equal(dev->interrupts, 1);
    toy_revive(dev);

    assert_true(vd_up(&dev->d, 0, 3, 16)); /* the driver gives up */
    vd_set_status(&dev->d, DOK | FAILED);
    assert_int_equal(tn_virtq_pop(&dev->queue[0].q, &chain, iov, 4), TN_EPROTO);
    toy_revive(dev);
    dev_free(dev);
}

/* A ring that the driver broke is found by the device (a05, a head that there is not). */
static void broken_ring_needs_reset(void **state)
{
    struct toy *dev = dev_new();

    (void)state;
    assert_true(vd_up(&dev->d, 0, 3, 16));
    vqd_put(&dev->d.q[0], dev->d.q[0].driver + 4, 2, 16);
    vqd_put(&dev->d.q[0], dev->d.q[0].driver + 2, 2, 1);
    vd_kick(&dev->d, 0);
    assert_int_equal(vd_status(&dev->d), DOK | RESET);
    assert_int_equal(dev->config_interrupts, 1);
    dev->notifies = 0;
    vd_kick(&dev->d, 1);
    assert_int_equal(dev->notifies, 0);
    toy_revive(dev);
    dev_free(dev);
}

static void config_generation(void **state)
{
    struct toy *dev = dev_new();
    uint32_t before = dev->v.generation;

    (void)state;
    tn_virtio_config_changed(&dev->v);
    assert_int_equal(dev->v.generation, before + 1);
    assert_int_equal(dev->interrupts, 0);
    assert_true(vd_up(&dev->d, 0, 1, 16));
    assert_int_equal(dev->v.generation, before + 1); /* a reset does not lead back to an old one */
    tn_virtio_config_changed(&dev->v);
    assert_int_equal(dev->v.generation, before + 2);
    assert_int_equal(dev->interrupted, TN_VIRTIO_CONFIG);
    dev->v.generation = 0xffffffff;
    tn_virtio_config_changed(&dev->v);
    assert_int_equal(dev->v.generation, 0);
    dev_free(dev);
}

static void requests_in_every_format(void **state)
{
    struct toy *dev = dev_new();

    (void)state;
    for (unsigned i = 0; i < 16; i++) {
        uint64_t want =
            (i & 1 ? TN_VIRTIO_F_RING_PACKED : 0) | (i & 2 ? TN_VIRTIO_F_EVENT_IDX : 0) |
            (i & 4 ? TN_VIRTIO_F_INDIRECT_DESC : 0) | (i & 8 ? TN_VIRTIO_F_IN_ORDER : 0);

        assert_true(vd_up(&dev->d, want, 3, 8));
        assert_true(dev->v.features == (want | TN_VIRTIO_F_VERSION_1));
        assert_int_equal(dev->queue[2].q.cfg.packed, (want & TN_VIRTIO_F_RING_PACKED) != 0);
        assert_int_equal(dev->queue[2].q.cfg.event_idx, (want & TN_VIRTIO_F_EVENT_IDX) != 0);
        assert_int_equal(dev->queue[2].q.cfg.indirect, (want & TN_VIRTIO_F_INDIRECT_DESC) != 0);
        assert_int_equal(dev->queue[2].q.cfg.in_order, (want & TN_VIRTIO_F_IN_ORDER) != 0);
        for (unsigned k = 0; k < 30; k++) {
            dev->interrupts = 0;
            if (want & TN_VIRTIO_F_EVENT_IDX)
                vqd_interrupt_at(&dev->d.q[2], dev->d.q[2].reaped);
            toy_io(dev, 2);
            assert_int_equal(dev->interrupts, 1);
            assert_int_equal(dev->interrupted, 2);
        }
        if (want & TN_VIRTIO_F_EVENT_IDX)
            continue;
        vqd_interrupts(&dev->d.q[2], false);
        dev->interrupts = 0;
        toy_io(dev, 2);
        assert_int_equal(dev->interrupts, 0);
    }
    dev_free(dev);
}

/* Without operations, and without a transport. */
static void works_without_ops_and_transport(void **state)
{
    struct toy *dev = dev_new();
    static const struct tn_virtio_ops none;

    (void)state;
    dev->cfg.ops = &none;
    assert_int_equal(tn_virtio_init(&dev->v, &dev->cfg), 0);
    assert_true(vd_up(&dev->d, ~0ull, 3, 16));
    vd_kick(&dev->d, 0);
    tn_virtio_config_write(&dev->v, 0, 1, 0);
    tn_virtio_config_changed(&dev->v);
    tn_virtio_needs_reset(&dev->v);
    vd_reset(&dev->d);
    assert_int_equal(vd_status(&dev->d), 0);
    dev_free(dev);
}

/* Saved in every status, taken over by another device; saved again, it is the same. */
static void restore_in_every_status(void **state)
{
    struct toy *dev = dev_new(), *other = dev_new();
    struct tn_virtio_state a, b;

    (void)state;
    for (size_t i = 0; i < COUNT(every_status); i++) {
        go(dev, every_status[i]);
        tn_virtio_config_changed(&dev->v);
        memset(&a, 0xaa, sizeof(a));
        memset(&b, 0x55, sizeof(b));
        tn_virtio_save(&dev->v, &a);
        other->resets = other->activates = 0;
        assert_int_equal(tn_virtio_restore(&other->v, &a), 0);
        assert_int_equal(other->resets + other->activates, 0);
        tn_virtio_save(&other->v, &b);
        assert_memory_equal(&a, &b, sizeof(a));
    }
    for (unsigned i = 0; i < 2; i++) {
        struct vd d;

        assert_true(vd_up(&dev->d, i ? TN_VIRTIO_F_RING_PACKED : 0, 2, 16));
        toy_io(dev, 1);
        tn_virtio_save(&dev->v, &a);
        memcpy(other->ram, dev->ram, RAM);
        assert_int_equal(tn_virtio_restore(&other->v, &a), 0);
        assert_true(tn_virtio_live(&other->v));
        d = other->d; /* the driver goes on */
        other->d = dev->d;
        other->d.v = &other->v;
        other->d.ram = other->ram;
        for (size_t k = 0; k < 2; k++)
            other->d.q[k].ram = other->ram;
        toy_io(other, 1);
        toy_io(other, 0);
        other->d = d;
        tn_virtio_needs_reset(&dev->v); /* broken while it ran */
        tn_virtio_save(&dev->v, &a);
        assert_int_equal(tn_virtio_restore(&other->v, &a), 0);
        tn_virtio_save(&other->v, &b);
        assert_memory_equal(&a, &b, sizeof(a));
        toy_revive(other);
    }
    assert_true(vd_negotiate(&dev->d, 0)); /* broken because a queue did not start */
    assert_true(vd_queues(&dev->d, 2, 16));
    dev->queue[1].size = 0;
    vd_set_status(&dev->d, DOK);
    tn_virtio_save(&dev->v, &a);
    assert_int_equal(tn_virtio_restore(&other->v, &a), 0);
    toy_revive(other);
    dev_free(dev);
    dev_free(other);
}

static void e01_hostile_state(void **state)
{
    struct toy *dev = dev_new();
    struct tn_virtio_state good, bad, before, after;

    (void)state;
    assert_true(vd_up(&dev->d, TN_VIRTIO_F_EVENT_IDX, 2, 16));
    toy_io(dev, 0);
    tn_virtio_save(&dev->v, &good);
    before = good;
#define REFUSED(error, ...)                                        \
    do {                                                           \
        bad = good;                                                \
        __VA_ARGS__;                                               \
        assert_int_equal(tn_virtio_restore(&dev->v, &bad), error); \
        tn_virtio_save(&dev->v, &after);                           \
        assert_memory_equal(&before, &after, sizeof(after));       \
    } while (0)
    REFUSED(TN_EUNSUP, bad.version = 0);
    REFUSED(TN_EUNSUP, bad.version = TN_VIRTIO_VERSION + 1);
    REFUSED(TN_EUNSUP, bad.device_id = 2);
    REFUSED(TN_EUNSUP, bad.queues = 0);
    REFUSED(TN_EUNSUP, bad.queues = 2);
    REFUSED(TN_EUNSUP, bad.queues = 4);
    REFUSED(TN_EUNSUP, bad.queues = 0xffffffff);
    REFUSED(TN_EUNSUP, bad.features |= 1u << 6);
    REFUSED(TN_EUNSUP, bad.features &= ~TN_VIRTIO_F_VERSION_1);
    REFUSED(TN_EUNSUP, dev->refuses = TN_VIRTIO_F_EVENT_IDX);
    dev->refuses = 0;
    REFUSED(TN_EFORMAT, bad.features |= TN_VIRTIO_F_RING_PACKED); /* the ring is a split one */
    REFUSED(TN_EFORMAT, bad.features |= TN_VIRTIO_F_INDIRECT_DESC);
    REFUSED(TN_EFORMAT, bad.features |= TN_VIRTIO_F_IN_ORDER);
    REFUSED(TN_EFORMAT, bad.features &= ~TN_VIRTIO_F_EVENT_IDX);
    REFUSED(TN_EFORMAT, bad.status = 2);
    REFUSED(TN_EFORMAT, bad.status = 9);
    REFUSED(TN_EFORMAT, bad.status = DOK | 16);
    REFUSED(TN_EFORMAT, bad.status = RESET);
    REFUSED(TN_EFORMAT, bad.status = 0);
    REFUSED(TN_EFORMAT, bad.status = ACK);
    REFUSED(TN_EFORMAT, bad.status = DRV); /* queues cannot run then */
    REFUSED(TN_EFORMAT, bad.status = FOK);
    REFUSED(TN_EFORMAT, bad.status = DOK | RESET); /* rings would be broken */
    REFUSED(TN_EFORMAT, bad.status = DOK | FAILED);
    for (size_t i = 0; i < sizeof(bad.zero); i++)
        REFUSED(TN_EFORMAT, bad.zero[i] = 1);
    for (size_t i = 0; i < sizeof(bad.queue[0].zero); i++)
        REFUSED(TN_EFORMAT, bad.queue[0].zero[i] = 1);
    REFUSED(TN_EFORMAT, bad.queue[0].ready = 0);
    REFUSED(TN_EFORMAT, bad.queue[0].ready = 2);
    REFUSED(TN_EFORMAT, bad.queue[2].ready = 1); /* does not run */
    REFUSED(TN_EFORMAT, bad.queue[0].desc += 16);
    REFUSED(TN_EFORMAT, bad.queue[0].driver += 16);
    REFUSED(TN_EFORMAT, bad.queue[0].device += 16);
    REFUSED(TN_EFORMAT, bad.queue[0].size = 8);
    REFUSED(TN_EFORMAT, bad.queue[0].ring.desc = 0);
    REFUSED(TN_EFORMAT, bad.queue[0].ring.size = 0);
    REFUSED(TN_EFORMAT, bad.queue[0].ring.started = 0);
    REFUSED(TN_EFORMAT, bad.queue[0].ring.packed = 1);
    REFUSED(TN_EFORMAT, bad.queue[0].ring = bad.queue[1].ring = good.queue[2].ring); /* none runs */
    REFUSED(TN_EFORMAT, bad.queue[0].size = bad.queue[0].ring.size = 128); /* above queue_size */
    REFUSED(TN_EFORMAT, bad.queue[3].size = 1);
    REFUSED(TN_EFORMAT, bad.queue[TN_VIRTIO_MAX_QUEUES - 1].ring.error = 1);
    go(dev, ACK);
    tn_virtio_save(&dev->v, &before);
    good = before;
    REFUSED(TN_EFORMAT, bad.features = TN_VIRTIO_F_VERSION_1); /* before DRIVER */
    REFUSED(TN_EFORMAT, bad.queue[0].size = 16);               /* before FEATURES_OK */
    REFUSED(TN_EFORMAT, bad.queue[0].ready = 1);
    REFUSED(TN_EFORMAT, bad.queue[0].desc = 16);
    REFUSED(TN_EFORMAT, bad.queue[0].driver = 16);
    REFUSED(TN_EFORMAT, bad.queue[0].device = 16);
    dev_free(dev);
}

/* A broken device whose rings run in part, or the rings' own validators: the device is reset. */
static void e01_hostile_rings(void **state)
{
    struct toy *dev = dev_new();
    struct tn_virtio_state good, bad;
    static const struct tn_virtq_state stopped = {.version = TN_VIRTQ_VERSION};

    (void)state;
    assert_true(vd_up(&dev->d, 0, 2, 16));
    tn_virtio_save(&dev->v, &good);
#define RESET_BY(err, ...)                                       \
    do {                                                         \
        bad = good;                                              \
        __VA_ARGS__;                                             \
        assert_int_equal(tn_virtio_restore(&dev->v, &bad), err); \
        assert_int_equal(tn_virtio_status_read(&dev->v), 0);     \
        assert_false(dev->queue[0].q.started);                   \
        toy_revive(dev);                                         \
    } while (0)
    RESET_BY(TN_EUNSUP, bad.queue[1].ring.version = 9);
    RESET_BY(TN_EFORMAT, bad.queue[1].ring.zero = 9);
    RESET_BY(TN_EFORMAT, bad.queue[1].ring.started = 3);
    RESET_BY(TN_EFORMAT, bad.queue[0].ring.next_avail = 17); /* A12 */
    RESET_BY(TN_EFORMAT, bad.queue[0].ring.error = TN_EINVAL);
    RESET_BY(TN_EFORMAT, bad.queue[2].ring.unsignalled = 1);
    RESET_BY(TN_ERANGE, bad.queue[0].size = bad.queue[0].ring.size = 15);
    RESET_BY(TN_EADDR, bad.queue[0].desc = bad.queue[0].ring.desc = RAM);
    RESET_BY(TN_EADDR, bad.queue[0].desc = bad.queue[0].ring.desc = RINGS + 1);
    assert_true(vd_up(&dev->d, 0, 2, 16));
    tn_virtio_needs_reset(&dev->v);
    tn_virtio_save(&dev->v, &bad);
    bad.queue[1].ring = stopped; /* all run, or none does */
    assert_int_equal(tn_virtio_restore(&dev->v, &bad), TN_EFORMAT);
    dev_free(dev);
}

/* Any one byte of a state may be anything: refused, or a device that works. */
static void e01_every_byte(void **state)
{
    struct toy *dev = dev_new();
    static const uint8_t with[] = {0x01, 0x80, 0xff, 0x40, 0x08};
    struct tn_virtio_state good, bad, again;

    (void)state;
    assert_true(vd_up(&dev->d, TN_VIRTIO_F_RING_PACKED, 3, 16));
    toy_io(dev, 1);
    tn_virtio_save(&dev->v, &good);
    for (size_t i = 0; i < 5 * sizeof(good.queue[0]); i++) {
        for (size_t k = 0; k < COUNT(with); k++) {
            bad = good;
            ((uint8_t *)&bad)[i] ^= with[k];
            if (tn_virtio_restore(&dev->v, &bad) == 0) {
                tn_virtio_save(&dev->v, &again);
                assert_memory_equal(&bad, &again, sizeof(bad));
                vd_kick(&dev->d, 0);
            }
            toy_revive(dev);
        }
    }
    dev_free(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(init_limits),
        cmocka_unit_test(b08_status_table),
        cmocka_unit_test(b08_features_are_fixed_by_features_ok),
        cmocka_unit_test(features_words),
        cmocka_unit_test(features_ok_can_be_refused),
        cmocka_unit_test(a13_geometry_is_checked_at_driver_ok),
        cmocka_unit_test(a14_geometry_is_frozen),
        cmocka_unit_test(a17_notify_of_no_queue),
        cmocka_unit_test(a20_reset_stops_the_queues),
        cmocka_unit_test(a28_ring_outside_ram_is_not_restored),
        cmocka_unit_test(b01_config_stays_inside),
        cmocka_unit_test(config_is_written_after_features_ok),
        cmocka_unit_test(b09_activation_fails),
        cmocka_unit_test(needs_reset_stands_still),
        cmocka_unit_test(broken_ring_needs_reset),
        cmocka_unit_test(config_generation),
        cmocka_unit_test(requests_in_every_format),
        cmocka_unit_test(works_without_ops_and_transport),
        cmocka_unit_test(restore_in_every_status),
        cmocka_unit_test(e01_hostile_state),
        cmocka_unit_test(e01_hostile_rings),
        cmocka_unit_test(e01_every_byte),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
