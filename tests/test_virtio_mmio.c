/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_virtio_mmio.h"

#include "virtio_toy.h"

/* The device behind the registers, and its interrupt line. */
struct dev {
    struct tn_virtio_mmio m;
    struct toy toy;
    unsigned raised, lowered;
    bool level;
};

static void on_irq(void *ctx, bool level)
{
    struct dev *dev = ctx;

    dev->level = level;
    if (level)
        dev->raised++;
    else
        dev->lowered++;
}

static uint64_t get(struct dev *dev, uint64_t reg)
{
    return tn_virtio_mmio_read(&dev->m, reg, 4);
}

static void put(struct dev *dev, uint64_t reg, uint64_t value)
{
    tn_virtio_mmio_write(&dev->m, reg, 4, value);
}

static uint64_t vd_get_(void *ctx, uint64_t off, unsigned width)
{
    return tn_virtio_mmio_read(ctx, off, width);
}

static void vd_put_(void *ctx, uint64_t off, unsigned width, uint64_t value)
{
    tn_virtio_mmio_write(ctx, off, width, value);
}

static struct dev *dev_new(void)
{
    struct dev *dev = calloc(1, sizeof(*dev));

    assert_non_null(dev);
    toy_init(&dev->toy, TN_VIRTIO_F_RING | 1u << 5, 2);
    assert_int_equal(tn_virtio_mmio_init(&dev->m, NULL, on_irq, dev), TN_EINVAL);
    assert_int_equal(tn_virtio_mmio_init(&dev->m, &dev->toy.v, NULL, dev), TN_EINVAL);
    assert_int_equal(tn_virtio_mmio_init(&dev->m, &dev->toy.v, on_irq, dev), 0);
    vd_mmio(&dev->toy.d, vd_get_, vd_put_, &dev->m);
    return dev;
}

static void dev_free(struct dev *dev)
{
    vd_free(&dev->toy.d);
    free(dev);
}

/* All that an access could change. */
struct all {
    struct tn_virtio_mmio_state m;
    struct tn_virtio_state v;
};

static struct all all_of(const struct dev *dev)
{
    struct all a;

    memset(&a, 0, sizeof(a));
    tn_virtio_mmio_save(&dev->m, &a.m);
    tn_virtio_save(&dev->toy.v, &a.v);
    return a;
}

#define UNCHANGED(dev, ...)                                     \
    do {                                                        \
        struct all before_ = all_of(dev), after_;               \
        __VA_ARGS__;                                            \
        after_ = all_of(dev);                                   \
        assert_memory_equal(&before_, &after_, sizeof(after_)); \
    } while (0)

static void identity(void **state)
{
    struct dev *dev = dev_new();

    (void)state;
    assert_int_equal(get(dev, 0x000), 0x74726976);
    assert_int_equal(get(dev, 0x004), 2);
    assert_int_equal(get(dev, 0x008), 63);
    assert_int_equal(get(dev, 0x00c), TN_VIRTIO_MMIO_VENDOR);
    assert_int_equal(get(dev, 0x034), 64);
    assert_int_equal(get(dev, 0x044), 0);
    assert_int_equal(get(dev, 0x060), 0);
    assert_int_equal(get(dev, 0x070), 0);
    assert_int_equal(get(dev, 0x0b0), 0xffffffff); /* no shared memory, whatever SHMSel says */
    put(dev, 0x0ac, 1);
    for (uint64_t reg = 0x0b0; reg <= 0x0bc; reg += 4)
        assert_int_equal(get(dev, reg), 0xffffffff);
    assert_int_equal(get(dev, 0x0c0), 0);
    assert_int_equal(get(dev, 0x0fc), 0);
    dev_free(dev);
}

/* Registers that are only for reading, or not there, do not change; those for writing read as 0. */
static void directions(void **state)
{
    static const uint16_t readable[] = {0x00, 0x04, 0x08, 0x0c, 0x10, 0x34, 0x44,
                                        0x60, 0x70, 0xb0, 0xb4, 0xb8, 0xbc, 0xfc};
    static const uint16_t writable[] = {0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x64,
                                        0x70, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0xac};
    struct dev *dev = dev_new();

    (void)state;
    for (uint8_t at = 0; at < 2; at++) {
        if (at == 0)
            assert_true(vd_negotiate(&dev->toy.d, TN_VIRTIO_F_RING));
        else
            assert_true(vd_up(&dev->toy.d, 0, 2, 16));
        for (uint16_t reg = 0; reg < 0x100; reg += 4) {
            bool reads = false, writes = false;

            for (size_t i = 0; i < COUNT(readable); i++)
                reads |= readable[i] == reg;
            for (size_t i = 0; i < COUNT(writable); i++)
                writes |= writable[i] == reg;
            if (!reads)
                UNCHANGED(dev, assert_int_equal(get(dev, reg), 0));
            else
                UNCHANGED(dev, get(dev, reg));
            if (!writes)
                UNCHANGED(dev, put(dev, reg, 1));
        }
    }
    dev_free(dev);
}

/* Every offset in the window and beyond, every width; a write of zeros would reset. */
static void b03_odd_accesses(void **state)
{
    static const uint64_t far[] = {0x200,
                                   0x204,
                                   0x300,
                                   0x1000,
                                   0x7ffffffc,
                                   0x80000000,
                                   0x100000000,
                                   0x100000070,
                                   0x100000100,
                                   0x7fffffffffffff00,
                                   0xfffffffffffffffc,
                                   0xffffffffffffffff};
    static const unsigned width[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 0x80000004, 0xffffffff};
    struct dev *dev = dev_new();

    (void)state;
    dev->toy.v.cfg.config_len = sizeof(dev->toy.config);
    assert_true(vd_up(&dev->toy.d, 0, 2, 16));
    for (uint64_t i = 0; i < 0x200 + COUNT(far); i++) {
        uint64_t off = i < 0x200 ? i : far[i - 0x200];

        for (size_t k = 0; k < COUNT(width); k++) {
            unsigned w = width[k];
            bool config =
                off >= 0x100 && off < 0x200 && (w == 1 || w == 2 || w == 4) && off % w == 0;

            dev->toy.config_writes = 0;
            if (config) {
                uint64_t expect = 0;

                for (unsigned n = 0; n < w; n++)
                    expect |= (uint64_t)dev->toy.config[off - 0x100 + n] << 8 * n;
                assert_int_equal(tn_virtio_mmio_read(&dev->m, off, w), expect);
                UNCHANGED(dev, tn_virtio_mmio_write(&dev->m, off, w, 0x1122334455667788));
                assert_int_equal(dev->toy.config_writes, 1);
                assert_int_equal(dev->toy.wrote_off, off - 0x100);
                assert_int_equal(dev->toy.wrote_width, w);
                assert_int_equal(dev->toy.wrote, w == 1 ? 0x88 : w == 2 ? 0x7788 : 0x55667788);
            } else if (off >= 0x100 || w != 4 || off % 4 != 0) {
                UNCHANGED(dev, assert_int_equal(tn_virtio_mmio_read(&dev->m, off, w), 0));
                UNCHANGED(dev, tn_virtio_mmio_write(&dev->m, off, w, 0));
                UNCHANGED(dev, tn_virtio_mmio_write(&dev->m, off, w, ~0ull));
                assert_int_equal(dev->toy.config_writes, 0);
            }
        }
    }
    assert_int_equal(dev->toy.notifies, 0);
    toy_io(&dev->toy, 0);
    dev_free(dev);
}

/* The space ends where the device's does, in the middle of an access too. */
static void b01_config_space(void **state)
{
    struct dev *dev = dev_new();

    (void)state;
    assert_true(vd_negotiate(&dev->toy.d, 0));
    for (uint32_t len = 0; len < 9; len++) {
        uint8_t *exact = test_exact(dev->toy.config, len);

        dev->toy.v.cfg.config = exact;
        dev->toy.v.cfg.config_len = len;
        for (uint32_t off = 0; off < 12; off += 4) {
            dev->toy.config_writes = 0;
            put(dev, 0x100 + off, 1);
            assert_int_equal(dev->toy.config_writes, off + 4 <= len);
            assert_int_equal(get(dev, 0x100 + off) != 0, off + 4 <= len);
        }
        free(exact);
    }
    dev_free(dev);
}

static void b02_last_bytes_of_the_window(void **state)
{
    struct dev *dev = dev_new();

    (void)state;
    dev->toy.v.cfg.config_len = sizeof(dev->toy.config); /* longer than what can be seen */
    dev->toy.config[255] = 0xab;
    dev->toy.config[256] = 0xcd;
    assert_int_equal(tn_virtio_mmio_read(&dev->m, 0x1ff, 1), 0xab);
    assert_int_equal(tn_virtio_mmio_read(&dev->m, 0x1ff, 2), 0);
    assert_int_equal(tn_virtio_mmio_read(&dev->m, 0x200, 1), 0);
    dev_free(dev);
}

static void features_by_select(void **state)
{
    static const uint32_t none[] = {2, 3, 32, 0x80000000, 0xffffffff};
    struct dev *dev = dev_new();

    (void)state;
    put(dev, 0x070, ACK);
    put(dev, 0x070, DRV);
    put(dev, 0x014, 1);
    assert_int_equal(get(dev, 0x010), 1u << 0 | 1u << 2);
    put(dev, 0x014, 0);
    assert_int_equal(get(dev, 0x010), 1u << 5 | 1u << 28 | 1u << 29);
    put(dev, 0x024, 1);
    put(dev, 0x020, 1);
    put(dev, 0x024, 0);
    put(dev, 0x020, 0x20);
    assert_true(dev->toy.v.features == (TN_VIRTIO_F_VERSION_1 | 0x20));
    for (size_t i = 0; i < COUNT(none); i++) {
        put(dev, 0x014, none[i]);
        assert_int_equal(get(dev, 0x010), 0);
        put(dev, 0x024, none[i]);
        put(dev, 0x020, 0xffffffff);
        assert_true(dev->toy.v.features == (TN_VIRTIO_F_VERSION_1 | 0x20));
    }
    put(dev, 0x024, 0);
    put(dev, 0x020, 0x60); /* one that was not offered */
    put(dev, 0x070, FOK);
    assert_int_equal(get(dev, 0x070), DRV);
    put(dev, 0x020, 0);
    put(dev, 0x070, FOK);
    assert_int_equal(get(dev, 0x070), FOK);
    UNCHANGED(dev, put(dev, 0x020, 0x20)); /* b08 */
    dev_free(dev);
}

static void b08_status_has_eight_bits(void **state)
{
    static const uint32_t bad[] = {0x100, 0x10f, 0x80, 0xffffff00, 0x8000000f, 2, 9, 4, 0x1f};
    struct dev *dev = dev_new();

    (void)state;
    assert_true(vd_up(&dev->toy.d, 0, 2, 16));
    for (size_t i = 0; i < COUNT(bad); i++) {
        if (bad[i] != 0x80)
            UNCHANGED(dev, put(dev, 0x070, bad[i]));
    }
    tn_virtio_mmio_write(&dev->m, 0x070, 4, 0xff00000000); /* the bus hands over 4 bytes: 0 */
    assert_int_equal(get(dev, 0x070), 0);
    UNCHANGED(dev, put(dev, 0x070, 0x100 | ACK));
    dev_free(dev);
}

static const uint16_t queue_reg[] = {0x38, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0x44};

static void a14_queue_registers_after_driver_ok(void **state)
{
    static const uint32_t value[] = {0, 1, 2, 16, 0x8000, 0xffffffff};
    struct dev *dev = dev_new();

    (void)state;
    assert_true(vd_up(&dev->toy.d, 0, 1, 16));
    for (uint32_t queue = 0; queue < 2; queue++) { /* the second is not enabled */
        put(dev, 0x030, queue);
        for (size_t i = 0; i < COUNT(queue_reg); i++) {
            for (size_t k = 0; k < COUNT(value); k++)
                UNCHANGED(dev, put(dev, queue_reg[i], value[k]));
        }
        assert_int_equal(get(dev, 0x044), queue == 0);
        assert_int_equal(get(dev, 0x034), 64);
    }
    toy_io(&dev->toy, 0);
    tn_virtio_needs_reset(&dev->toy.v);
    for (size_t i = 0; i < COUNT(queue_reg); i++)
        UNCHANGED(dev, put(dev, queue_reg[i], 1));
    toy_revive(&dev->toy);
    dev_free(dev);
}

static void a15_enabled_queue_keeps_its_registers(void **state)
{
    struct dev *dev = dev_new();

    (void)state;
    for (size_t i = 0; i < COUNT(queue_reg); i++) /* before FEATURES_OK */
        UNCHANGED(dev, put(dev, queue_reg[i], 1));
    put(dev, 0x070, ACK);
    put(dev, 0x070, DRV);
    for (size_t i = 0; i < COUNT(queue_reg); i++)
        UNCHANGED(dev, put(dev, queue_reg[i], 1));
    assert_true(vd_negotiate(&dev->toy.d, 0));
    put(dev, 0x030, 1);
    put(dev, 0x038, 16);
    put(dev, 0x080, 0x11111111);
    put(dev, 0x084, 0x22222222);
    put(dev, 0x090, 0x33333333);
    put(dev, 0x094, 0x44444444);
    put(dev, 0x0a0, 0x55555555);
    put(dev, 0x0a4, 0x66666666);
    UNCHANGED(dev, put(dev, 0x044, 2));
    UNCHANGED(dev, put(dev, 0x044, 0xffffffff));
    put(dev, 0x044, 1);
    assert_int_equal(get(dev, 0x044), 1);
    assert_int_equal(dev->toy.queue[1].size, 16);
    assert_true(dev->toy.queue[1].desc == 0x2222222211111111);
    assert_true(dev->toy.queue[1].driver == 0x4444444433333333);
    assert_true(dev->toy.queue[1].device == 0x6666666655555555);
    for (size_t i = 0; i + 1 < COUNT(queue_reg); i++) /* all but QueueReady */
        UNCHANGED(dev, put(dev, queue_reg[i], 8));
    UNCHANGED(dev, put(dev, 0x044, 3));
    put(dev, 0x044, 0);
    assert_int_equal(get(dev, 0x044), 0);
    put(dev, 0x084, 1);
    assert_true(dev->toy.queue[1].desc == 0x111111111);
    put(dev, 0x080, 0);
    assert_true(dev->toy.queue[1].desc == 0x100000000);
    assert_true(dev->toy.queue[0].desc == 0);
    toy_revive(&dev->toy);
    dev_free(dev);
}

static void a13_queue_num(void **state)
{
    static const struct {
        uint32_t num;
        bool starts;
    } row[] = {{0, false},     {1, true},      {2, true},        {3, false},
               {64, true},     {128, false},   {0x8000, false},  {0xffff, false},
               {65536, false}, {65552, false}, {0x10040, false}, {0xffffffff, false}};
    struct dev *dev = dev_new();

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        assert_true(vd_negotiate(&dev->toy.d, 0));
        assert_true(vd_queues(&dev->toy.d, 1, 64));
        put(dev, 0x044, 0);
        put(dev, 0x038, row[i].num);
        put(dev, 0x044, 1);
        put(dev, 0x070, DOK);
        assert_int_equal(get(dev, 0x070), row[i].starts ? DOK : DOK | RESET);
    }
    toy_revive(&dev->toy);
    dev_free(dev);
}

static void a17_notify_any_number(void **state)
{
    static const uint32_t bad[] = {2, 3, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff};
    struct dev *dev = dev_new();

    (void)state;
    put(dev, 0x050, 0);
    assert_true(vd_up(&dev->toy.d, 0, 2, 16));
    for (size_t i = 0; i < COUNT(bad); i++)
        UNCHANGED(dev, put(dev, 0x050, bad[i]));
    assert_int_equal(dev->toy.notifies, 0);
    put(dev, 0x050, 1);
    assert_true(dev->toy.notifies == 1 && dev->toy.notified == 1);
    dev_free(dev);
}

static void a18_queue_sel_of_no_queue(void **state)
{
    static const uint32_t bad[] = {2, 3, 16, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
    struct dev *dev = dev_new();

    (void)state;
    assert_true(vd_negotiate(&dev->toy.d, 0));
    for (size_t i = 0; i < COUNT(bad); i++) {
        put(dev, 0x030, bad[i]);
        assert_int_equal(get(dev, 0x034), 0);
        assert_int_equal(get(dev, 0x044), 0);
        for (size_t k = 0; k < COUNT(queue_reg); k++)
            UNCHANGED(dev, put(dev, queue_reg[k], 1));
    }
    toy_revive(&dev->toy);
    dev_free(dev);
}

static void b09_queues_do_not_start(void **state)
{
    struct dev *dev = dev_new();

    (void)state;
    assert_true(vd_negotiate(&dev->toy.d, 0));
    put(dev, 0x030, 0);
    put(dev, 0x084, 0xffffffff); /* not RAM */
    put(dev, 0x044, 1);
    put(dev, 0x070, DOK);
    assert_int_equal(get(dev, 0x070), DOK | RESET);
    assert_int_equal(get(dev, 0x060), TN_VIRTIO_MMIO_INT_CONFIG);
    assert_true(dev->level);
    put(dev, 0x050, 0);
    assert_int_equal(dev->toy.notifies, 0);
    put(dev, 0x070, 0);
    assert_false(dev->level);
    toy_revive(&dev->toy);
    dev_free(dev);
}

/* Each event is an edge; the level falls with the last acknowledgement. */
static void interrupts(void **state)
{
    struct dev *dev = dev_new();

    (void)state;
    assert_true(vd_up(&dev->toy.d, 0, 2, 16));
    assert_int_equal(dev->raised + dev->lowered, 0);
    toy_io(&dev->toy, 0);
    assert_int_equal(get(dev, 0x060), 1);
    assert_true(dev->raised == 1 && dev->level);
    toy_io(&dev->toy, 1);
    assert_int_equal(dev->raised, 2);
    tn_virtio_config_changed(&dev->toy.v);
    assert_int_equal(get(dev, 0x060), 3);
    assert_int_equal(dev->raised, 3);
    put(dev, 0x064, 0);
    put(dev, 0x064, 0xfffffffc);
    assert_int_equal(get(dev, 0x060), 3);
    put(dev, 0x064, 1);
    assert_int_equal(get(dev, 0x060), 2);
    assert_true(dev->lowered == 0 && dev->level);
    toy_io(&dev->toy, 0);
    assert_int_equal(dev->raised, 4);
    put(dev, 0x064, 0xffffffff);
    assert_int_equal(get(dev, 0x060), 0);
    assert_true(dev->lowered == 1 && !dev->level);
    put(dev, 0x064, 3); /* nothing is left to acknowledge */
    assert_int_equal(dev->lowered, 1);

    put(dev, 0x070, 0); /* nor to lower */
    assert_int_equal(dev->lowered, 1);
    assert_true(vd_up(&dev->toy.d, 0, 2, 16));
    tn_virtio_needs_reset(&dev->toy.v);
    assert_int_equal(get(dev, 0x060), 2);
    assert_int_equal(dev->raised, 5);
    put(dev, 0x030, 7);
    put(dev, 0x070, 0);
    assert_int_equal(get(dev, 0x060), 0);
    assert_true(dev->lowered == 2 && !dev->level);
    assert_int_equal(dev->m.queue_sel, 0);
    dev_free(dev);
}

static void config_generation(void **state)
{
    struct dev *dev = dev_new();

    (void)state;
    tn_virtio_config_changed(&dev->toy.v);
    assert_int_equal(get(dev, 0x0fc), 1);
    assert_int_equal(dev->raised, 0);
    assert_true(vd_up(&dev->toy.d, 0, 2, 16));
    assert_int_equal(get(dev, 0x0fc), 1);
    tn_virtio_config_changed(&dev->toy.v);
    assert_int_equal(get(dev, 0x0fc), 2);
    assert_int_equal(get(dev, 0x060), 2);
    dev_free(dev);
}

static void requests_in_every_format(void **state)
{
    struct dev *dev = dev_new();

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t want = (i & 1 ? TN_VIRTIO_F_RING_PACKED : 0) | (i & 2 ? TN_VIRTIO_F_EVENT_IDX : 0);

        assert_true(vd_up(&dev->toy.d, want, 2, 8));
        assert_int_equal(dev->toy.queue[0].q.cfg.packed, i & 1);
        for (unsigned k = 0; k < 20; k++)
            toy_io(&dev->toy, k % 2);
    }
    dev_free(dev);
}

static void restore(void **state)
{
    struct dev *dev = dev_new(), *other = dev_new();
    struct tn_virtio_mmio_state a, b;

    (void)state;
    put(dev, 0x014, 1);
    put(dev, 0x024, 2);
    put(dev, 0x030, 3);
    put(dev, 0x0ac, 4);
    tn_virtio_mmio_save(&dev->m, &a);
    assert_int_equal(tn_virtio_mmio_restore(&other->m, &a), 0);
    assert_int_equal(other->raised + other->lowered, 0);
    tn_virtio_mmio_save(&other->m, &b);
    assert_memory_equal(&a, &b, sizeof(a));
    assert_int_equal(b.device_features_sel, 1);
    assert_int_equal(b.driver_features_sel, 2);
    assert_int_equal(b.queue_sel, 3);
    assert_int_equal(b.shm_sel, 4);
    for (uint32_t bits = 1; bits <= 3; bits++) {
        a.interrupt_status = bits;
        assert_int_equal(tn_virtio_mmio_restore(&other->m, &a), 0);
        assert_true(other->level);
        assert_int_equal(get(other, 0x060), bits);
    }
    assert_int_equal(other->raised, 3);
    a.interrupt_status = 0;
    assert_int_equal(tn_virtio_mmio_restore(&other->m, &a), 0);
    assert_true(other->lowered == 1 && !other->level);
    dev_free(dev);
    dev_free(other);
}

static void e01_hostile_state(void **state)
{
    static const uint32_t bits[] = {4, 5, 7, 8, 0x80000000, 0xffffffff};
    struct dev *dev = dev_new();
    struct tn_virtio_mmio_state s;

    (void)state;
    tn_virtio_mmio_save(&dev->m, &s);
    s.queue_sel = 5;
    s.version++;
    UNCHANGED(dev, assert_int_equal(tn_virtio_mmio_restore(&dev->m, &s), TN_EUNSUP));
    s.version = 0;
    UNCHANGED(dev, assert_int_equal(tn_virtio_mmio_restore(&dev->m, &s), TN_EUNSUP));
    s.version = TN_VIRTIO_MMIO_RECORD;
    for (size_t i = 0; i < COUNT(bits); i++) {
        s.interrupt_status = bits[i];
        UNCHANGED(dev, assert_int_equal(tn_virtio_mmio_restore(&dev->m, &s), TN_EFORMAT));
    }
    assert_int_equal(dev->raised + dev->lowered, 0);
    s.interrupt_status = 0;
    s.queue_sel = s.shm_sel = 0xffffffff; /* a driver can write these */
    s.device_features_sel = s.driver_features_sel = 0xffffffff;
    assert_int_equal(tn_virtio_mmio_restore(&dev->m, &s), 0);
    for (uint64_t reg = 0; reg < 0x200; reg += 4)
        get(dev, reg);
    toy_revive(&dev->toy);
    dev_free(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identity),
        cmocka_unit_test(directions),
        cmocka_unit_test(b03_odd_accesses),
        cmocka_unit_test(b01_config_space),
        cmocka_unit_test(b02_last_bytes_of_the_window),
        cmocka_unit_test(features_by_select),
        cmocka_unit_test(b08_status_has_eight_bits),
        cmocka_unit_test(a14_queue_registers_after_driver_ok),
        cmocka_unit_test(a15_enabled_queue_keeps_its_registers),
        cmocka_unit_test(a13_queue_num),
        cmocka_unit_test(a17_notify_any_number),
        cmocka_unit_test(a18_queue_sel_of_no_queue),
        cmocka_unit_test(b09_queues_do_not_start),
        cmocka_unit_test(interrupts),
        cmocka_unit_test(config_generation),
        cmocka_unit_test(requests_in_every_format),
        cmocka_unit_test(restore),
        cmocka_unit_test(e01_hostile_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
