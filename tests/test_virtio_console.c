/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_virtio_console.h"

#include "virtio_rig.h"

#define RAM   0x10000u /* bytes of each of two regions that touch, but not in this process */
#define SIZE  16u      /* descriptors of a queue */
#define TABLE 0x7000u  /* indirect tables */
#define DATA  0x8000u

/* A console, its surroundings, and a guest. */
struct rig {
    struct tn_virtio_console c;
    struct ram ram;
    struct vd d;
    struct vqd *rx, *tx; /* in it */
    bool indirect;
    uint8_t out[1u << 21];
    size_t out_len;
    size_t accept; /* bytes that the sink takes before it refuses */
    size_t calls;  /* of tx */
    size_t largest;
    unsigned irq[2], config_irq, rooms, agains;
    const uint8_t *source; /* what the room callback pushes on from */
    size_t source_len;
    const char *echo; /* what the sink pushes */
};

static size_t on_tx(void *ctx, const uint8_t *bytes, size_t len)
{
    struct rig *r = ctx;
    size_t n = len < r->accept ? len : r->accept;

    assert_true(len > 0);
    r->calls++;
    r->largest = len > r->largest ? len : r->largest;
    assert_true(n <= sizeof(r->out) - r->out_len);
    memcpy(r->out + r->out_len, bytes, n);
    r->out_len += n;
    r->accept -= n;
    if (r->echo)
        tn_virtio_console_push(&r->c, (const uint8_t *)r->echo, strlen(r->echo));
    return n;
}

static void on_room(void *ctx)
{
    struct rig *r = ctx;
    size_t n;

    r->rooms++;
    if (r->source_len == 0)
        return;
    n = tn_virtio_console_push(&r->c, r->source, r->source_len);
    r->source += n;
    r->source_len -= n;
}

static void on_again(void *ctx)
{
    ((struct rig *)ctx)->agains++;
}

static void on_irq(void *ctx, uint32_t queue)
{
    struct rig *r = ctx;

    if (queue == TN_VIRTIO_CONFIG)
        r->config_irq++;
    else
        r->irq[queue]++;
}

static void rig_device(struct rig *r)
{
    struct tn_virtio_console_cfg cfg = {
        &r->ram.mem, SIZE, TN_VIRTIO_F_RING, r, on_tx, on_room, on_again, 80, 25};

    assert_int_equal(tn_virtio_console_init(&r->c, &cfg), 0);
    tn_virtio_connect(&r->c.virtio, on_irq, r);
}

static struct rig *rig_new(void)
{
    struct rig *r = calloc(1, sizeof(*r));

    assert_non_null(r);
    ram_init(&r->ram, RAM);
    r->accept = SIZE_MAX;
    rig_device(r);
    vd_init(&r->d, &r->c.virtio, r->ram.host[0], 0, 0x1000);
    return r;
}

static void rig_free(struct rig *r)
{
    vd_free(&r->d);
    ram_free(&r->ram);
    free(r);
}

/* A driver's start up to DRIVER_OK, without it (3.1.1); queues: bit n for queue n. */
static void driver_start(struct rig *r, uint64_t ring, unsigned queues)
{
    r->indirect = ring & TN_VIRTIO_F_INDIRECT_DESC;
    assert_true(vd_negotiate(&r->d, ring | TN_VIRTIO_CONSOLE_F_SIZE));
    assert_int_equal(r->d.features, ring | TN_VIRTIO_F_VERSION_1 | TN_VIRTIO_CONSOLE_F_SIZE);
    assert_true(vd_queues(&r->d, 2, SIZE));
    r->rx = &r->d.q[0];
    r->tx = &r->d.q[1];
    for (unsigned i = 0; i < 2; i++)
        tn_virtio_queue_ptr(&r->c.virtio, i)->ready = queues >> i & 1;
}

static void driver_ok(struct rig *r)
{
    tn_virtio_status_write(&r->c.virtio, 15);
    assert_true(tn_virtio_live(&r->c.virtio));
}

static struct rig *rig_up(uint64_t ring)
{
    struct rig *r = rig_new();

    driver_start(r, ring, 3);
    driver_ok(r);
    r->agains = 0;
    return r;
}

static void notify(struct rig *r, uint32_t queue)
{
    tn_virtio_notify(&r->c.virtio, queue);
}

/* Makes buffers available, through a table if that was negotiated. */
static void give(struct rig *r, struct vqd *d, const struct vqd_buf *buf, uint32_t n)
{
    if (r->indirect)
        assert_true(vqd_add_table(d, buf, n, TABLE + (d == r->tx ? 0x400u : 0), n) >= 0);
    else
        assert_true(vqd_add(d, buf, n) >= 0);
}

static void give_one(struct rig *r, struct vqd *d, uint64_t addr, uint32_t len)
{
    struct vqd_buf buf = {addr, len, d == r->rx};

    give(r, d, &buf, 1);
}

static void must_be_broken(struct rig *r)
{
    assert_int_equal(tn_virtio_status_read(&r->c.virtio), 15 | TN_VIRTIO_S_NEEDS_RESET);
    assert_int_equal(r->config_irq, 1);
    r->config_irq = 0;
}

/* What a driver does that behaves: after whatever was before, all is well again. */
static void works_again(struct rig *r, uint64_t ring)
{
    r->echo = NULL;
    r->accept = SIZE_MAX;
    r->source_len = 0;
    driver_start(r, ring, 3);
    driver_ok(r);
    r->out_len = 0;
    memcpy(ram_at(&r->ram, DATA), "hello", 5);
    give_one(r, r->tx, DATA, 5);
    notify(r, 1);
    assert_int_equal(r->out_len, 5);
    assert_memory_equal(r->out, "hello", 5);
    assert_int_equal(take(r->tx), 0);
    give_one(r, r->rx, DATA, 5);
    notify(r, 0);
    assert_int_equal(tn_virtio_console_push(&r->c, (const uint8_t *)"world", 5), 5);
    assert_int_equal(take(r->rx), 5);
    assert_memory_equal(ram_at(&r->ram, DATA), "world", 5);
}

static void a_bad_cfg_is_refused(void **state)
{
    struct tn_mem mem;
    struct tn_virtio_console_cfg good = {&mem, 16, 0, NULL, on_tx, NULL, on_again, 0, 0}, cfg;
    struct tn_virtio_console *c = malloc(sizeof(*c));

    (void)state;
    tn_mem_init(&mem, NULL, 0);
    for (int i = 0; i < 9; i++) {
        cfg = good;
        switch (i) {
        case 0:
            cfg.mem = NULL;
            break;
        case 1:
            cfg.tx = NULL;
            break;
        case 2:
            cfg.again = NULL;
            break;
        case 3:
            cfg.queue_size = 0;
            break;
        case 4:
            cfg.queue_size = 12;
            break;
        case 5:
            cfg.queue_size = 2 * TN_VIRTIO_CONSOLE_QUEUE_MAX;
            break;
        case 6:
            cfg.queue_size = 32768;
            break;
        case 7:
            cfg.ring_features = TN_VIRTIO_F_VERSION_1;
            break;
        default:
            cfg.ring_features = 2; /* MULTIPORT */
        }
        assert_int_equal(tn_virtio_console_init(c, &cfg), TN_EINVAL);
    }
    good.queue_size = TN_VIRTIO_CONSOLE_QUEUE_MAX;
    good.ring_features = TN_VIRTIO_F_RING;
    assert_int_equal(tn_virtio_console_init(c, &good), 0);
    free(c);
}

static void b01_the_configuration_space_is_twelve_bytes(void **state)
{
    static const struct {
        uint32_t off, width, want;
    } row[] = {
        {0, 2, 80},
        {2, 2, 25},
        {0, 4, 80 | 25 << 16},
        {1, 1, 0},
        {4, 4, 0},
        {8, 4, 0},
        {9, 4, 0},
        {12, 1, 0},
        {11, 2, 0},
        {0, 8, 0},
        {UINT32_MAX, 1, 0},
        {UINT32_MAX, 4, 0},
        {UINT32_MAX - 3, 4, 0},
    };
    struct rig *r = rig_new();

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++)
        assert_int_equal(tn_virtio_config_read(&r->c.virtio, row[i].off, row[i].width),
                         row[i].want);
    tn_virtio_config_write(&r->c.virtio, 0, 4, 0); /* the driver may not write (5.3.4) */
    tn_virtio_config_write(&r->c.virtio, 8, 4, 'x');
    assert_int_equal(tn_virtio_config_read(&r->c.virtio, 0, 4), 80 | 25 << 16);
    assert_int_equal(tn_virtio_features_read(&r->c.virtio, 0) & 0xffffff, 1);
    assert_int_equal(r->c.virtio.cfg.device_id, 3);
    rig_free(r);
}

static void nothing_moves_without_a_driver(void **state)
{
    struct rig *r = rig_new();

    (void)state;
    assert_int_equal(tn_virtio_console_push(&r->c, (const uint8_t *)"a", 1), 0);
    assert_int_equal(tn_virtio_console_room(&r->c), 0);
    assert_int_equal(tn_virtio_console_flush(&r->c), 0);
    notify(r, 0);
    notify(r, 1);
    notify(r, 7);
    tn_virtio_console_resize(&r->c, 1, 2);
    assert_int_equal(r->calls + r->rooms + r->agains + r->config_irq, 0);
    assert_int_equal(tn_virtio_config_read(&r->c.virtio, 0, 4), 1 | 2 << 16);
    rig_free(r);
}

static void wrong_directions_need_a_reset(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);
        struct vqd_buf buf[2] = {{DATA, 4, false}, {DATA + 4, 4, true}};

        give(r, r->tx, buf, 2);
        notify(r, 1);
        must_be_broken(r);
        assert_int_equal(r->out_len, 0);
        none(r->tx);
        notify(r, 1);
        assert_int_equal(tn_virtio_console_push(&r->c, (const uint8_t *)"a", 1), 0);
        works_again(r, all_rings[k]);

        give(r, r->tx, buf + 1, 1);
        notify(r, 1);
        must_be_broken(r);
        works_again(r, all_rings[k]);

        give(r, r->rx, buf, 2);
        assert_int_equal(tn_virtio_console_push(&r->c, (const uint8_t *)"a", 1), 0);
        must_be_broken(r);
        none(r->rx);
        works_again(r, all_rings[k]);

        give(r, r->rx, buf, 1);
        assert_int_equal(tn_virtio_console_room(&r->c), 0);
        must_be_broken(r);
        works_again(r, all_rings[k]);
        rig_free(r);
    }
}

static void a03_a_broken_ring_needs_a_reset(void **state)
{
    (void)state;
    for (unsigned queue = 0; queue < 2; queue++) {
        struct rig *r = rig_up(0);
        struct vqd *d = queue ? r->tx : r->rx;

        vqd_put(d, d->driver + 2, 2, SIZE + 1);
        notify(r, queue);
        if (queue == 0)
            assert_int_equal(tn_virtio_console_push(&r->c, (const uint8_t *)"a", 1), 0);
        must_be_broken(r);
        works_again(r, all_rings[2]);

        give_one(r, d, 2 * RAM - 1, 2); /* runs off the end of RAM */
        notify(r, queue);
        if (queue == 0)
            assert_int_equal(tn_virtio_console_room(&r->c), 0);
        must_be_broken(r);
        works_again(r, 0);
        rig_free(r);
    }
}

static void a_queue_that_is_not_enabled_is_let_be(void **state)
{
    struct rig *r = rig_new();

    (void)state;
    for (unsigned queues = 0; queues < 4; queues++) {
        driver_start(r, 0, queues);
        driver_ok(r);
        r->out_len = 0;
        give_one(r, r->tx, DATA, 3);
        give_one(r, r->rx, DATA, 3);
        notify(r, 0);
        notify(r, 1);
        assert_int_equal(tn_virtio_console_flush(&r->c), 0);
        assert_int_equal(r->out_len, queues & 2 ? 3 : 0);
        assert_int_equal(tn_virtio_console_push(&r->c, (const uint8_t *)"abc", 3),
                         queues & 1 ? 3 : 0);
        assert_true(tn_virtio_live(&r->c.virtio));
    }
    rig_free(r);
}

static void output_arrives_whole_and_in_order(void **state)
{
    /* Lengths of the buffers of a chain; at 0xfff8 one crosses into the other region. */
    static const struct {
        uint64_t addr[4];
        uint32_t len[4], n;
    } row[] = {
        {{DATA}, {1}, 1},
        {{DATA}, {4096}, 1},
        {{DATA, DATA + 9000, DATA + 5000, DATA}, {1023, 1, 1024, 1}, 4},
        {{DATA, DATA + 1, DATA + 2}, {0, 1, 0}, 3},
        {{0xfff8}, {16}, 1},
        {{0xffff, 0x1ffff, 0xf000}, {3, 1, 0x1800}, 3},
        {{DATA}, {0}, 1},
    };
    uint64_t x = 1;

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);

        for (size_t i = 0; i < 2 * RAM; i++)
            if (i >= DATA)
                *ram_at(&r->ram, i) = (uint8_t)test_random(&x);
        for (size_t i = 0; i < 5 * COUNT(row); i++) {
            size_t j = i % COUNT(row), off = 0;
            struct vqd_buf buf[4];

            for (uint32_t b = 0; b < row[j].n; b++) {
                buf[b].addr = row[j].addr[b];
                buf[b].len = row[j].len[b];
                buf[b].write = false;
            }
            give(r, r->tx, buf, row[j].n);
            r->out_len = 0;
            notify(r, 1);
            for (uint32_t b = 0; b < row[j].n; b++)
                for (uint32_t n = 0; n < row[j].len[b]; n++)
                    assert_int_equal(r->out[off++], *ram_at(&r->ram, row[j].addr[b] + n));
            assert_int_equal(r->out_len, off);
            assert_int_equal(take(r->tx), 0);
            none(r->tx);
        }
        assert_int_equal(r->agains, 0);
        assert_true(r->largest <= 1024);
        rig_free(r);
    }
}

/* The sink takes a few bytes at a time, and the guest goes on giving. */
static void a_slow_sink_gets_every_byte_once(void **state)
{
    uint64_t x = 3;

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);
        uint8_t sent[8192];
        size_t len = 0, back = 0, chains = 0;
        uint32_t used;

        r->accept = 0;
        r->indirect = false; /* tables at one place cannot wait side by side */
        while (back < 200) {
            uint32_t a = (uint32_t)(test_random(&x) % 30), b = (uint32_t)(test_random(&x) % 20);
            struct vqd_buf buf[2] = {{DATA + len, a, false}, {DATA + len + a, b, false}};

            if (chains < 200 && vqd_add(r->tx, buf, 2) >= 0) {
                for (uint32_t i = 0; i < a + b; i++, len++)
                    sent[len] = *ram_at(&r->ram, DATA + len) = (uint8_t)test_random(&x);
                chains++;
                if (test_random(&x) % 2)
                    notify(r, 1);
            }
            if (test_random(&x) % 2) {
                r->accept = test_random(&x) % 40;
                tn_virtio_console_flush(&r->c);
            }
            while (vqd_reap(r->tx, &used) >= 0) {
                assert_int_equal(used, 0);
                back++;
            }
            assert_true(r->out_len <= len && memcmp(r->out, sent, r->out_len) == 0);
        }
        assert_int_equal(r->out_len, len);
        assert_int_equal(tn_virtio_console_flush(&r->c), 0);
        assert_int_equal(r->c.tx_off, 0);
        rig_free(r);
    }
}

static void flush_says_whether_output_waits(void **state)
{
    struct rig *r = rig_up(all_rings[3]);

    (void)state;
    r->accept = 3;
    give_one(r, r->tx, DATA, 10);
    notify(r, 1);
    assert_int_equal(r->c.tx_off, 3);
    assert_int_equal(r->irq[1], 0);
    none(r->tx);
    assert_int_equal(tn_virtio_console_flush(&r->c), 1);
    assert_int_equal(r->out_len, 3);
    r->accept = 7;
    assert_int_equal(tn_virtio_console_flush(&r->c), 0);
    assert_int_equal(r->out_len, 10);
    assert_int_equal(take(r->tx), 0);
    assert_int_equal(r->irq[1], 1);
    assert_int_equal(r->agains, 0);
    rig_free(r);
}

/* The driver takes back part of what the sink has not seen. */
static void a24_a_chain_that_shrinks_while_it_waits_is_done(void **state)
{
    struct rig *r = rig_up(0);

    (void)state;
    r->accept = 50;
    give_one(r, r->tx, DATA, 100);
    notify(r, 1);
    assert_int_equal(r->c.tx_off, 50);
    vqd_put(r->tx, r->tx->desc + 8, 4, 20);
    r->accept = SIZE_MAX;
    assert_int_equal(tn_virtio_console_flush(&r->c), 0);
    assert_int_equal(r->out_len, 50);
    assert_int_equal(take(r->tx), 0);
    assert_int_equal(r->c.tx_off, 0);
    give_one(r, r->tx, DATA, 7);
    notify(r, 1);
    assert_int_equal(r->out_len, 57);
    rig_free(r);
}

static void c14_a_flood_has_one_turn_at_a_time(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);
        struct vqd_buf buf[SIZE];
        size_t turns = 0;

        /* One chain of more bytes than RAM has. */
        for (uint32_t i = 0; i < SIZE; i++)
            buf[i] = (struct vqd_buf){DATA, 0xfff0, false};
        give(r, r->tx, buf, SIZE);
        notify(r, 1);
        do {
            turns++;
            assert_int_equal(r->agains, turns);
            assert_int_equal(r->out_len, turns * TN_VIRTIO_CONSOLE_TURN);
            none(r->tx);
        } while (tn_virtio_console_flush(&r->c) == 1 && turns < 100);
        assert_int_equal(turns, SIZE * 0xfff0 / TN_VIRTIO_CONSOLE_TURN);
        assert_int_equal(r->out_len, SIZE * 0xfff0);
        assert_int_equal(r->agains, turns);
        assert_int_equal(take(r->tx), 0);

        /* A turn that ends with a chain, and one more behind. */
        r->indirect = false;
        r->agains = 0;
        r->out_len = 0;
        buf[0].len = buf[1].len = TN_VIRTIO_CONSOLE_TURN / 2;
        assert_true(vqd_add(r->tx, buf, 2) >= 0);
        give_one(r, r->tx, DATA, 1);
        notify(r, 1);
        assert_int_equal(r->agains, 1);
        assert_int_equal(r->out_len, TN_VIRTIO_CONSOLE_TURN);
        assert_int_equal(tn_virtio_console_flush(&r->c), 0);
        assert_int_equal(r->out_len, TN_VIRTIO_CONSOLE_TURN + 1);
        assert_int_equal(r->agains, 1);
        rig_free(r);
    }
}

/* A driver that adds another chain of nothing whenever it gets one back. */
static size_t endless(void *ctx, const uint8_t *bytes, size_t len)
{
    struct rig *r = ctx;
    struct vqd_buf buf = {DATA, 1, false};
    uint32_t used;

    (void)bytes;
    r->calls++;
    while (vqd_reap(r->tx, &used) >= 0)
        continue;
    assert_true(vqd_add(r->tx, &buf, 1) >= 0);
    return len;
}

static void c14_chains_without_end_have_one_turn_at_a_time(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);

        r->c.cfg.tx = endless;
        assert_true(vqd_add(r->tx, &(struct vqd_buf){DATA, 1, false}, 1) >= 0);
        notify(r, 1);
        assert_int_equal(r->calls, SIZE);
        assert_int_equal(r->agains, 1);
        assert_int_equal(tn_virtio_console_flush(&r->c), 1);
        assert_int_equal(r->calls, 2 * SIZE);
        assert_int_equal(r->agains, 2);
        rig_free(r);
    }
}

static void input_fills_the_buffers_in_order(void **state)
{
    uint64_t x = 9;

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);
        uint8_t bytes[600], *exact;
        struct vqd_buf buf[3] = {{0xfffe, 5, true}, {DATA, 0, true}, {DATA + 1, 7, true}};

        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)test_random(&x);
        exact = test_exact(bytes, 12);
        give(r, r->rx, buf, 3);
        notify(r, 0);
        assert_int_equal(tn_virtio_console_room(&r->c), 12);
        assert_int_equal(tn_virtio_console_push(&r->c, exact, 12), 12);
        assert_int_equal(take(r->rx), 12);
        for (unsigned i = 0; i < 5; i++)
            assert_int_equal(*ram_at(&r->ram, 0xfffe + i), bytes[i]);
        assert_memory_equal(ram_at(&r->ram, DATA + 1), bytes + 5, 7);
        assert_int_equal(*ram_at(&r->ram, DATA), 0);
        assert_int_equal(*ram_at(&r->ram, DATA + 8), 0);
        assert_int_equal(r->irq[0], 1);
        free(exact);

        if (r->rx->event_idx)
            vqd_interrupt_at(r->rx, r->rx->reaped);
        /* Several chains; the last one is filled in part, and returned all the same. */
        r->indirect = false;
        give_one(r, r->rx, DATA + 0x100, 100);
        give_one(r, r->rx, DATA + 0x200, 0);
        give_one(r, r->rx, DATA + 0x200, 200);
        give_one(r, r->rx, DATA + 0x300, 200);
        give_one(r, r->rx, DATA + 0x400, 50);
        assert_int_equal(tn_virtio_console_push(&r->c, bytes, 301), 301);
        assert_int_equal(take(r->rx), 100);
        assert_int_equal(take(r->rx), 0);
        assert_int_equal(take(r->rx), 200);
        assert_int_equal(take(r->rx), 1);
        none(r->rx);
        assert_memory_equal(ram_at(&r->ram, DATA + 0x100), bytes, 100);
        assert_memory_equal(ram_at(&r->ram, DATA + 0x200), bytes + 100, 200);
        assert_memory_equal(ram_at(&r->ram, DATA + 0x300), bytes + 300, 1);
        assert_int_equal(*ram_at(&r->ram, DATA + 0x301), 0);
        assert_int_equal(r->irq[0], 2);

        /* Nothing to push takes nothing. */
        assert_int_equal(tn_virtio_console_push(&r->c, bytes, 0), 0);
        assert_int_equal(tn_virtio_console_room(&r->c), 50);
        assert_int_equal(tn_virtio_console_room(&r->c), 50);
        none(r->rx);
        rig_free(r);
    }
}

static void c26_a_source_waits_for_the_guest(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);
        uint8_t bytes[100];

        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)i;
        assert_int_equal(tn_virtio_console_push(&r->c, bytes, 100), 0);
        assert_true(r->c.blocked);
        assert_int_equal(r->rooms, 0);
        notify(r, 0); /* with nothing in it */
        assert_int_equal(r->rooms, 0);
        r->source = bytes;
        r->source_len = 100;
        r->indirect = false;
        for (unsigned i = 0; i < 10; i++) {
            give_one(r, r->rx, DATA + 10 * i, 10);
            assert_true(vqd_must_kick(r->rx)); /* it asked to be told */
            notify(r, 0);
            assert_int_equal(r->rooms, i + 1);
            assert_int_equal(take(r->rx), 10);
            none(r->rx);
        }
        assert_memory_equal(ram_at(&r->ram, DATA), bytes, 100);
        assert_int_equal(r->source_len, 0);

        /* A source that waits for nothing is not called, and the guest need not kick. */
        give_one(r, r->rx, DATA, 10);
        assert_false(vqd_must_kick(r->rx));
        notify(r, 0);
        assert_int_equal(r->rooms, 10);

        /* A push in part asks as well; so does a room of 0. */
        assert_int_equal(tn_virtio_console_push(&r->c, bytes, 11), 10);
        assert_int_equal(take(r->rx), 10);
        give_one(r, r->rx, DATA, 10);
        assert_true(vqd_must_kick(r->rx));
        notify(r, 0);
        assert_int_equal(r->rooms, 11);
        assert_int_equal(tn_virtio_console_push(&r->c, bytes, 10), 10);
        assert_int_equal(take(r->rx), 10);
        assert_int_equal(tn_virtio_console_room(&r->c), 0);
        give_one(r, r->rx, DATA, 10);
        assert_true(vqd_must_kick(r->rx));
        notify(r, 0);
        assert_int_equal(r->rooms, 12);
        rig_free(r);
    }
}

/* More buffers of nothing than a turn looks at: the source is told to try again, not to wait. */
static void c14_empty_buffers_do_not_hold_the_source_up(void **state)
{
    struct rig *r = rig_up(0);
    struct vqd_buf buf = {DATA, 0, true};
    uint32_t used;

    (void)state;
    for (unsigned i = 0; i < SIZE; i++)
        assert_true(vqd_add(r->rx, &buf, 1) >= 0);
    assert_int_equal(tn_virtio_console_push(&r->c, (const uint8_t *)"ab", 2), 0);
    assert_int_equal(r->agains, 0); /* the queue is empty now */
    while (vqd_reap(r->rx, &used) >= 0)
        assert_int_equal(used, 0);

    /* One byte a buffer: a push ends after as many buffers as the queue has. */
    buf.len = 1;
    for (unsigned i = 0; i < SIZE; i++)
        assert_true(vqd_add(r->rx, &buf, 1) >= 0);
    notify(r, 0);
    assert_int_equal(r->rooms, 1);
    r->c.cfg.queue_size = 4;
    assert_int_equal(tn_virtio_console_push(&r->c, (const uint8_t *)"abcdefgh", 8), 4);
    assert_int_equal(r->agains, 1);
    r->source = (const uint8_t *)"efgh";
    r->source_len = 4;
    tn_virtio_console_flush(&r->c);
    assert_int_equal(r->rooms, 2);
    assert_int_equal(r->source_len, 0);
    assert_int_equal(*ram_at(&r->ram, DATA), 'h');
    rig_free(r);
}

static void the_sink_may_push(void **state)
{
    struct rig *r = rig_up(all_rings[1]);

    (void)state;
    r->echo = "pong";
    give_one(r, r->rx, DATA + 100, 4);
    give_one(r, r->tx, DATA, 4);
    notify(r, 1);
    assert_int_equal(take(r->tx), 0);
    assert_int_equal(take(r->rx), 4);
    assert_memory_equal(ram_at(&r->ram, DATA + 100), "pong", 4);

    /* And find the receiveq broken, with a chain of the transmitq in its hands. */
    vqd_put(r->rx, r->rx->driver + 2, 2, 9999);
    give_one(r, r->tx, DATA, 4000);
    notify(r, 1);
    must_be_broken(r);
    assert_int_equal(r->c.tx_off, 0);
    none(r->tx);
    works_again(r, all_rings[3]);
    rig_free(r);
}

static size_t boast(void *ctx, const uint8_t *bytes, size_t len)
{
    on_tx(ctx, bytes, len);
    return SIZE_MAX;
}

static void a_sink_that_claims_too_much_is_not_believed(void **state)
{
    struct rig *r = rig_up(0);

    (void)state;
    r->c.cfg.tx = boast;
    give_one(r, r->tx, DATA, 5000);
    notify(r, 1);
    assert_int_equal(r->out_len, 5000);
    assert_int_equal(r->agains, 0);
    rig_free(r);
}

static void the_driver_hears_of_a_new_size(void **state)
{
    struct rig *r = rig_up(0);
    uint32_t generation = r->c.virtio.generation;

    (void)state;
    tn_virtio_console_resize(&r->c, 80, 25);
    assert_int_equal(r->config_irq, 0);
    tn_virtio_console_resize(&r->c, 132, 25);
    assert_int_equal(r->config_irq, 1);
    tn_virtio_console_resize(&r->c, 132, 43);
    assert_int_equal(r->config_irq, 2);
    assert_int_equal(r->c.virtio.generation, generation + 2);
    assert_int_equal(tn_virtio_config_read(&r->c.virtio, 0, 2), 132);
    assert_int_equal(tn_virtio_config_read(&r->c.virtio, 2, 2), 43);
    rig_free(r);
}

static void interrupts_come_only_where_they_are_wanted(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);

        r->indirect = false;
        for (unsigned i = 0; i < 5; i++)
            give_one(r, r->tx, DATA, 5);
        notify(r, 1);
        assert_int_equal(r->irq[1], 1); /* one for the batch */
        if (!r->tx->event_idx) {
            vqd_interrupts(r->tx, false);
            while (r->tx->added != r->tx->reaped)
                take(r->tx);
            give_one(r, r->tx, DATA, 5);
            notify(r, 1);
            assert_int_equal(r->irq[1], 1);
        }
        notify(r, 1);
        assert_int_equal(r->irq[1], 1);
        assert_int_equal(r->irq[0], 0);
        rig_free(r);
    }
}

static void queues_filled_before_driver_ok_are_served(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_new();

        assert_int_equal(tn_virtio_console_room(&r->c), 0);
        driver_start(r, all_rings[k], 3);
        r->indirect = false;
        give_one(r, r->tx, DATA, 5);
        give_one(r, r->rx, DATA + 100, 5);
        notify(r, 1);
        assert_int_equal(r->calls + r->agains, 0);
        driver_ok(r);
        assert_int_equal(r->agains, 1);
        tn_virtio_console_flush(&r->c);
        assert_int_equal(r->out_len, 5);
        assert_int_equal(r->rooms, 1);
        rig_free(r);
    }
}

static void c04_a_reset_forgets_half_a_chain(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);

        r->accept = 3;
        give_one(r, r->tx, DATA, 10);
        notify(r, 1);
        assert_int_equal(r->c.tx_off, 3);
        tn_virtio_status_write(&r->c.virtio, 0);
        assert_int_equal(r->c.tx_off, 0);
        r->accept = SIZE_MAX;
        assert_int_equal(tn_virtio_console_flush(&r->c), 0);
        assert_int_equal(r->out_len, 3);
        works_again(r, all_rings[COUNT(all_rings) - 1 - k]);
        rig_free(r);
    }
}

/* Saved in the middle of a chain, and taken over by another device on the same memory. */
static void e06_output_that_waits_survives_a_restore(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);
        struct tn_virtio_console_state one, two;

        for (unsigned i = 0; i < 40; i++)
            *ram_at(&r->ram, DATA + i) = (uint8_t)i;
        r->indirect = false;
        r->accept = 13;
        give_one(r, r->tx, DATA, 30);
        give_one(r, r->tx, DATA + 30, 10);
        notify(r, 1);
        tn_virtio_console_resize(&r->c, 100, 50);
        memset(&one, 0x33, sizeof(one));
        memset(&two, 0x44, sizeof(two));
        tn_virtio_console_save(&r->c, &one);

        memset(&r->c, 0x55, sizeof(r->c));
        rig_device(r);
        assert_int_equal(tn_virtio_console_restore(&r->c, &one), 0);
        tn_virtio_console_save(&r->c, &two);
        assert_memory_equal(&one, &two, sizeof(one));
        assert_int_equal(tn_virtio_config_read(&r->c.virtio, 0, 4), 100 | 50 << 16);
        assert_int_equal(r->out_len, 13);
        r->accept = SIZE_MAX;
        r->rooms = 0;
        give_one(r, r->rx, DATA + 100, 10);
        assert_int_equal(tn_virtio_console_flush(&r->c), 0);
        assert_int_equal(r->rooms, 1);
        assert_int_equal(r->out_len, 40);
        assert_memory_equal(r->out, ram_at(&r->ram, DATA), 40);
        assert_int_equal(take(r->tx), 0);
        assert_int_equal(take(r->tx), 0);
        assert_int_equal(tn_virtio_console_push(&r->c, (const uint8_t *)"xyz", 3), 3);
        assert_int_equal(take(r->rx), 3);
        rig_free(r);
    }
}

static void e01_e03_a_crafted_state_is_refused(void **state)
{
    struct rig *r = rig_up(0);
    struct tn_virtio_console_state good, bad, before, after;
    static const int want[] = {TN_EUNSUP,  TN_EUNSUP, TN_EFORMAT, TN_EFORMAT, TN_EFORMAT,
                               TN_EFORMAT, TN_EUNSUP, TN_EFORMAT, TN_EFORMAT};

    (void)state;
    r->accept = 2;
    give_one(r, r->tx, DATA, 5);
    notify(r, 1);
    tn_virtio_console_save(&r->c, &good);
    assert_int_equal(good.tx_off, 2);
    tn_virtio_console_save(&r->c, &before);
    for (size_t i = 0; i < COUNT(want); i++) {
        bad = good;
        switch (i) {
        case 0:
            bad.version++;
            break;
        case 1:
            bad.virtio.version = 0;
            break;
        case 2:
            bad.zero = 1;
            break;
        case 3: /* a chain begun in a queue that stands */
            memset(&bad.virtio.queue[1], 0, sizeof(bad.virtio.queue[1]));
            bad.virtio.queue[1].size = SIZE;
            bad.virtio.queue[1].ring.version = TN_VIRTQ_VERSION;
            break;
        case 4: /* chains in flight */
            bad.virtio.queue[1].ring.next_used--;
            break;
        case 5:
            bad.virtio.queue[0].ring.next_avail++;
            break;
        case 6:
            bad.virtio.device_id = 4;
            break;
        case 7:
            bad.virtio.status = 0xff;
            break;
        default:
            bad.virtio.queue[0].ring.size = 32768;
        }
        assert_int_equal(tn_virtio_console_restore(&r->c, &bad), want[i]);
        tn_virtio_console_save(&r->c, &after);
        assert_memory_equal(&before, &after, sizeof(before)); /* unchanged */
    }
    r->accept = SIZE_MAX;
    tn_virtio_console_flush(&r->c);
    assert_int_equal(r->out_len, 5); /* it went on from where it was */

    /* Rings outside RAM: the device was reset, and half a chain is forgotten. */
    r->accept = 2;
    give_one(r, r->tx, DATA, 5);
    notify(r, 1);
    bad = good;
    bad.virtio.queue[0].desc = bad.virtio.queue[0].ring.desc = 1ull << 40;
    assert_int_equal(tn_virtio_console_restore(&r->c, &bad), TN_EADDR);
    assert_int_equal(tn_virtio_status_read(&r->c.virtio), 0);
    assert_int_equal(r->c.tx_off, 0);
    works_again(r, 0);
    assert_int_equal(tn_virtio_console_restore(&r->c, &good), 0);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bad_cfg_is_refused),
        cmocka_unit_test(b01_the_configuration_space_is_twelve_bytes),
        cmocka_unit_test(nothing_moves_without_a_driver),
        cmocka_unit_test(wrong_directions_need_a_reset),
        cmocka_unit_test(a03_a_broken_ring_needs_a_reset),
        cmocka_unit_test(a_queue_that_is_not_enabled_is_let_be),
        cmocka_unit_test(output_arrives_whole_and_in_order),
        cmocka_unit_test(a_slow_sink_gets_every_byte_once),
        cmocka_unit_test(flush_says_whether_output_waits),
        cmocka_unit_test(a24_a_chain_that_shrinks_while_it_waits_is_done),
        cmocka_unit_test(c14_a_flood_has_one_turn_at_a_time),
        cmocka_unit_test(c14_chains_without_end_have_one_turn_at_a_time),
        cmocka_unit_test(input_fills_the_buffers_in_order),
        cmocka_unit_test(c26_a_source_waits_for_the_guest),
        cmocka_unit_test(c14_empty_buffers_do_not_hold_the_source_up),
        cmocka_unit_test(the_sink_may_push),
        cmocka_unit_test(a_sink_that_claims_too_much_is_not_believed),
        cmocka_unit_test(the_driver_hears_of_a_new_size),
        cmocka_unit_test(interrupts_come_only_where_they_are_wanted),
        cmocka_unit_test(queues_filled_before_driver_ok_are_served),
        cmocka_unit_test(c04_a_reset_forgets_half_a_chain),
        cmocka_unit_test(e06_output_that_waits_survives_a_restore),
        cmocka_unit_test(e01_e03_a_crafted_state_is_refused),
    };

    return cmocka_run_group_tests_name("virtio_console", tests, NULL, NULL);
}
