/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_virtio_balloon.h"

#include "virtio_rig.h"

#define RAM   0x40000u /* bytes of each of two regions that touch, but not in this process */
#define PAGES 128u     /* of both */
#define SIZE  16u      /* descriptors of a queue */
#define TABLE 0x7000u  /* indirect tables */
#define DATA  0x8000u
#define PAGE  4096u
#define ALL   TN_VIRTIO_BALLOON_F_ALL
#define HUGE  (2u << 20)

enum { DISCARD = 1, ZERO, UNDISCARD, HINT };

struct call {
    int what;
    uint64_t gpa, len;
};

/* A balloon, its surroundings, and a guest. */
struct rig {
    struct tn_virtio_balloon b;
    struct ram ram;
    struct vd d;
    uint64_t offered;
    bool indirect, no_undiscard;
    int fail; /* what discard and undiscard return */
    struct call call[4096];
    size_t calls;
    uint64_t pages; /* of all calls */
    unsigned irq[5], config_irq, agains, events[8];
};

static void check_range(struct rig *r, uint64_t gpa, uint64_t len)
{
    assert_true(len > 0 && gpa % PAGE == 0 && len % PAGE == 0);
    assert_non_null(tn_mem_ptr(&r->ram.mem, gpa, len));
}

static void note(struct rig *r, int what, uint64_t gpa, uint64_t len)
{
    check_range(r, gpa, len);
    assert_true(r->calls < COUNT(r->call));
    r->call[r->calls].what = what;
    r->call[r->calls].gpa = gpa;
    r->call[r->calls++].len = len;
    r->pages += len / PAGE;
}

static int on_discard(void *ctx, uint64_t gpa, uint64_t len, bool zero)
{
    struct rig *r = ctx;

    note(r, zero ? ZERO : DISCARD, gpa, len);
    return r->fail;
}

static int on_undiscard(void *ctx, uint64_t gpa, uint64_t len)
{
    struct rig *r = ctx;

    note(r, UNDISCARD, gpa, len);
    return r->fail;
}

static void on_hint(void *ctx, uint64_t gpa, uint64_t len)
{
    note(ctx, HINT, gpa, len);
}

static void on_event(void *ctx, uint32_t what)
{
    struct rig *r = ctx;

    assert_true(what == 1 || what == 2 || what == 4);
    r->events[what]++;
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
    struct tn_virtio_balloon_cfg cfg = {
        &r->ram.mem, SIZE,     TN_VIRTIO_F_RING, r->offered,
        0,           r,        on_discard,       r->no_undiscard ? NULL : on_undiscard,
        on_hint,     on_event, on_again};

    assert_int_equal(tn_virtio_balloon_init(&r->b, &cfg), 0);
    tn_virtio_connect(&r->b.virtio, on_irq, r);
}

static struct rig *rig_new(uint64_t offered, uint64_t ram)
{
    struct rig *r = calloc(1, sizeof(*r));

    assert_non_null(r);
    r->offered = offered;
    ram_init(&r->ram, ram);
    rig_device(r);
    vd_init(&r->d, &r->b.virtio, r->ram.host[0], 0, 0x1000);
    return r;
}

static void rig_free(struct rig *r)
{
    vd_free(&r->d);
    ram_free(&r->ram);
    free(r);
}

/* A driver's start up to DRIVER_OK, without it; queues: bit n for queue n. */
static void driver_start(struct rig *r, uint64_t features, unsigned queues)
{
    r->indirect = features & TN_VIRTIO_F_INDIRECT_DESC;
    assert_true(vd_negotiate(&r->d, features));
    assert_int_equal(r->d.features, features | TN_VIRTIO_F_VERSION_1);
    assert_true(vd_queues(&r->d, 5, SIZE));
    for (unsigned i = 0; i < 5; i++)
        tn_virtio_queue_ptr(&r->b.virtio, i)->ready = queues >> i & 1;
}

static void driver_ok(struct rig *r)
{
    tn_virtio_status_write(&r->b.virtio, 15);
    assert_true(tn_virtio_live(&r->b.virtio));
    assert_true(r->agains > 0);
    tn_virtio_balloon_turn(&r->b);
    r->agains = 0;
}

/* A driver that uses all that is offered. */
static struct rig *rig_up(uint64_t ring)
{
    struct rig *r = rig_new(ALL, RAM);

    driver_start(r, ALL | ring, 31);
    driver_ok(r);
    return r;
}

static void notify(struct rig *r, uint32_t queue)
{
    tn_virtio_notify(&r->b.virtio, queue);
}

static void forget(struct rig *r)
{
    r->calls = 0;
    r->pages = 0;
}

/* Makes buffers available, through a table if that was negotiated. */
static void give(struct rig *r, unsigned queue, const struct vqd_buf *buf, uint32_t n)
{
    struct vqd *d = &r->d.q[queue];

    if (r->indirect)
        assert_true(vqd_add_table(d, buf, n, TABLE + 0x200u * queue, n) >= 0);
    else
        assert_true(vqd_add(d, buf, n) >= 0);
}

static void give_one(struct rig *r, unsigned queue, uint64_t addr, uint32_t len)
{
    struct vqd_buf buf = {addr, len, queue >= 3};

    give(r, queue, &buf, 1);
}

/* Page numbers from addr on, which the border of the regions may part. */
static void put_pfns(struct rig *r, uint64_t addr, const uint32_t *pfn, uint32_t n)
{
    for (uint32_t i = 0; i < 4 * n; i++)
        *ram_at(&r->ram, addr + i) = (uint8_t)(pfn[i / 4] >> i % 4 * 8);
}

static void put_id(struct rig *r, uint32_t id)
{
    memcpy(ram_at(&r->ram, DATA - 4), &id, 4);
    give(r, 3, &(struct vqd_buf){DATA - 4, 4, false}, 1);
    notify(r, 3);
}

static uint32_t config(struct rig *r, uint32_t off)
{
    return tn_virtio_config_read(&r->b.virtio, off, 4);
}

static void must_be_broken(struct rig *r)
{
    assert_int_equal(tn_virtio_status_read(&r->b.virtio), 15 | TN_VIRTIO_S_NEEDS_RESET);
    assert_int_equal(r->config_irq, 1);
    assert_false(r->b.waiting || r->b.held);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(r->b.off[i], 0);
    assert_int_equal(tn_virtio_balloon_turn(&r->b), 0);
    r->config_irq = 0;
}

static void expect(struct rig *r, size_t i, int what, uint64_t gpa, uint64_t len)
{
    assert_true(i < r->calls);
    assert_int_equal(r->call[i].what, what);
    assert_int_equal(r->call[i].gpa, gpa);
    assert_int_equal(r->call[i].len, len);
}

/* What a driver does that behaves: after whatever was before, all is well again. */
static void works_again(struct rig *r, uint64_t ring)
{
    static const uint32_t pfn[3] = {40, 41, 42};

    r->fail = 0;
    r->agains = 0;
    driver_start(r, ALL | ring, 31);
    driver_ok(r);
    forget(r);
    put_pfns(r, DATA, pfn, 3);
    for (unsigned queue = 0; queue < 2; queue++) {
        give_one(r, queue, DATA, 12);
        notify(r, queue);
        assert_int_equal(r->calls, 1);
        expect(r, 0, queue ? UNDISCARD : DISCARD, 40 * PAGE, 3 * PAGE);
        assert_int_equal(take(&r->d.q[queue]), 0);
        forget(r);
    }
    give_one(r, 4, 50 * PAGE, 2 * PAGE);
    notify(r, 4);
    assert_int_equal(r->calls, 1);
    expect(r, 0, ZERO, 50 * PAGE, 2 * PAGE);
    assert_int_equal(take(&r->d.q[4]), 0);
    assert_int_equal(r->agains, 0);
    forget(r);
}

static void a_bad_cfg_is_refused(void **state)
{
    struct tn_mem_region table[1];
    struct tn_mem mem;
    struct tn_virtio_balloon_cfg good = {&mem,       16,   0,       0,        16,      NULL,
                                         on_discard, NULL, on_hint, on_event, on_again};
    struct tn_virtio_balloon_cfg cfg;
    struct tn_virtio_balloon *b = malloc(sizeof(*b));
    uint8_t *ram = aligned_alloc(PAGE, 16 * PAGE);

    (void)state;
    assert_true(b && ram);
    tn_mem_init(&mem, table, 1);
    assert_int_equal(tn_mem_add(&mem, 0, ram, 16 * PAGE), 0);
    for (int i = 0; i < 12; i++) {
        cfg = good;
        switch (i) {
        case 0:
            cfg.mem = NULL;
            break;
        case 1:
            cfg.discard = NULL;
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
            cfg.queue_size = 2 * TN_VIRTIO_BALLOON_QUEUE_MAX;
            break;
        case 6:
            cfg.ring_features = TN_VIRTIO_F_VERSION_1;
            break;
        case 7:
            cfg.ring_features = 2;
            break;
        case 8:
            cfg.features = 64;
            break;
        case 9:
            cfg.features = TN_VIRTIO_F_EVENT_IDX;
            break;
        case 10:
            cfg.hint = NULL;
            cfg.features = TN_VIRTIO_BALLOON_F_FREE_PAGE_HINT;
            break;
        default:
            cfg.num_pages = 17;
        }
        assert_int_equal(tn_virtio_balloon_init(b, &cfg), TN_EINVAL);
    }
    good.queue_size = TN_VIRTIO_BALLOON_QUEUE_MAX;
    good.ring_features = TN_VIRTIO_F_RING;
    good.features = ALL;
    good.event = NULL;
    assert_int_equal(tn_virtio_balloon_init(b, &good), 0);
    assert_int_equal(tn_virtio_config_read(&b->virtio, 0, 4), 16);
    good.hint = NULL;
    good.features = ALL & ~TN_VIRTIO_BALLOON_F_FREE_PAGE_HINT;
    assert_int_equal(tn_virtio_balloon_init(b, &good), 0);
    free(ram);
    free(b);
}

static void b01_the_driver_writes_two_fields_alone(void **state)
{
    static const struct {
        uint32_t off, width, value;
        uint32_t actual, poison; /* after it */
    } row[] = {
        {0, 4, 5, 0, 0},
        {8, 4, 7, 0, 0},
        {2, 4, 9, 0, 0},
        {6, 4, 0xffffffff, 0, 0},
        {10, 4, 0xffff, 0, 0},
        {14, 4, 1, 0, 0},
        {16, 1, 1, 0, 0},
        {0xffffffff, 4, 1, 0, 0},
        {4, 4, 0x01020304, 0x01020304, 0},
        {4, 1, 0xff, 0x010203ff, 0},
        {7, 1, 0, 0x000203ff, 0},
        {6, 2, 0x8000, 0x800003ff, 0},
        {12, 4, 0xaaaaaaaa, 0x800003ff, 0xaaaaaaaa},
        {15, 1, 0x11, 0x800003ff, 0x11aaaaaa},
        {4, 4, 3, 3, 0x11aaaaaa},
    };
    struct rig *r = rig_new(ALL, RAM);

    (void)state;
    assert_int_equal(r->b.virtio.cfg.device_id, 5);
    assert_int_equal(tn_virtio_features_read(&r->b.virtio, 0) & 0xffffff, 0x3f);
    assert_int_equal(tn_virtio_balloon_resize(&r->b, 77), 0);
    driver_start(r, ALL, 31);
    for (size_t i = 0; i < COUNT(row); i++) {
        tn_virtio_config_write(&r->b.virtio, row[i].off, row[i].width, row[i].value);
        assert_int_equal(config(r, 0), 77);
        assert_int_equal(config(r, 4), row[i].actual);
        assert_int_equal(config(r, 8), 0);
        assert_int_equal(config(r, 12), row[i].poison);
    }
    assert_int_equal(r->events[TN_VIRTIO_BALLOON_E_ACTUAL], 5);
    assert_int_equal(tn_virtio_config_read(&r->b.virtio, 16, 1), 0);
    assert_int_equal(tn_virtio_config_read(&r->b.virtio, 13, 4), 0);
    driver_ok(r);
    tn_virtio_config_write(&r->b.virtio, 12, 4, 1); /* too late (5.5.6.6.1) */
    assert_int_equal(config(r, 12), 0x11aaaaaa);
    tn_virtio_config_write(&r->b.virtio, 4, 4, 0);
    assert_int_equal(config(r, 4), 0);

    /* Without PAGE_POISON there is no such field. A reset clears what was the driver's. */
    tn_virtio_config_write(&r->b.virtio, 4, 4, 5);
    driver_start(r, TN_VIRTIO_BALLOON_F_MUST_TELL_HOST, 3);
    assert_int_equal(config(r, 0), 77);
    assert_int_equal(config(r, 4), 0);
    assert_int_equal(config(r, 12), 0);
    tn_virtio_config_write(&r->b.virtio, 12, 4, 1);
    assert_int_equal(config(r, 12), 0);
    rig_free(r);
}

static void nothing_moves_without_a_driver(void **state)
{
    struct rig *r = rig_new(ALL, RAM);
    struct tn_virtio_balloon_stats stats;

    (void)state;
    for (unsigned i = 0; i < 7; i++)
        notify(r, i);
    assert_int_equal(tn_virtio_balloon_turn(&r->b), 0);
    assert_int_equal(tn_virtio_balloon_stats_ask(&r->b), TN_ESTATE);
    assert_int_equal(tn_virtio_balloon_hint_start(&r->b), TN_ESTATE);
    tn_virtio_balloon_hint_stop(&r->b);
    tn_virtio_balloon_hint_done(&r->b);
    assert_int_equal(config(r, 8), 0);
    memset(&stats, 0xff, sizeof(stats));
    tn_virtio_balloon_stats_read(&r->b, &stats);
    assert_int_equal(stats.given, 0);
    assert_int_equal(tn_virtio_balloon_resize(&r->b, 9), 0);
    assert_int_equal(config(r, 0), 9);
    assert_int_equal(tn_virtio_balloon_actual(&r->b), 0);
    assert_int_equal(r->calls + r->agains + r->config_irq, 0);
    rig_free(r);
}

static void a03_a32_a_broken_ring_needs_a_reset(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        for (unsigned queue = 0; queue < 5; queue++) {
            struct rig *r = rig_up(all_rings[k]);
            struct vqd *d = &r->d.q[queue];
            struct vqd_buf buf[2] = {{DATA, 4, true}, {DATA + 8, 4, false}};

            give(r, queue, buf, 2); /* the readable part after the writable one */
            notify(r, queue);
            must_be_broken(r);
            none(d);
            assert_int_equal(tn_virtio_balloon_stats_ask(&r->b), TN_ESTATE);
            assert_int_equal(tn_virtio_balloon_hint_start(&r->b), TN_ESTATE);
            works_again(r, all_rings[k]);

            give_one(r, queue, 2 * RAM - 1, 2); /* runs off the end of RAM */
            notify(r, queue);
            must_be_broken(r);
            assert_int_equal(r->calls, 0);
            works_again(r, all_rings[k]);

            if (!d->packed) {
                vqd_put(d, d->driver + 2, 2, 9999);
                notify(r, queue);
                must_be_broken(r);
                works_again(r, all_rings[k]);
            }
            rig_free(r);
        }
    }
}

static void c04_a_broken_queue_ends_what_was_begun_in_others(void **state)
{
    struct rig *r = rig_up(0);

    (void)state;
    give_one(r, 2, DATA, 10);
    notify(r, 2);
    give_one(r, 0, RAM, RAM);
    notify(r, 0);
    assert_true(r->b.off[0] > 0 && r->b.waiting && r->b.held);
    give_one(r, 4, 2 * RAM, 1);
    notify(r, 4);
    must_be_broken(r);
    works_again(r, 0);
    rig_free(r);
}

static void buffers_of_no_use_are_passed_over(void **state)
{
    static const uint32_t pfn[2] = {30, 31};

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);
        struct vqd_buf buf[2] = {{DATA, 8, false}, {60 * PAGE, PAGE, true}};

        put_pfns(r, DATA, pfn, 2);
        for (unsigned queue = 0; queue < 5; queue++) {
            forget(r);
            give(r, queue, buf, 2);
            notify(r, queue);
            assert_int_equal(r->calls, queue == 2 || queue == 3 ? 0 : 1);
            if (r->calls == 1)
                expect(r, 0,
                       queue == 0   ? DISCARD
                       : queue == 1 ? UNDISCARD
                                    : ZERO,
                       queue == 4 ? 60 * PAGE : 30 * PAGE, queue == 4 ? PAGE : 2 * PAGE);
            if (queue != 2)
                assert_int_equal(take(&r->d.q[queue]), 0);

            /* Nothing that the queue has a use for, and nothing at all. */
            if (queue == 2)
                continue;
            forget(r);
            give(r, queue, queue < 2 ? buf + 1 : buf, 1);
            notify(r, queue);
            give_one(r, queue, DATA, 0);
            notify(r, queue);
            assert_int_equal(r->calls, 0);
            assert_int_equal(take(&r->d.q[queue]), 0);
            assert_int_equal(take(&r->d.q[queue]), 0);
        }
        assert_true(tn_virtio_live(&r->b.virtio));
        rig_free(r);
    }
}

static void page_numbers_become_ranges(void **state)
{
    static const struct {
        uint32_t pfn[8], n;
        uint32_t want[8][2], calls; /* first page, pages */
        uint32_t foreign;
    } row[] = {
        {{20}, 1, {{20, 1}}, 1, 0},
        {{20, 21, 22, 23}, 4, {{20, 4}}, 1, 0},
        {{23, 22, 21, 20}, 4, {{20, 4}}, 1, 0},
        {{22, 23, 21, 24, 20}, 5, {{20, 5}}, 1, 0},
        {{20, 20, 20}, 3, {{20, 1}}, 1, 0},
        {{20, 21, 20, 22, 21}, 5, {{20, 3}}, 1, 0},
        {{20, 22, 21}, 3, {{20, 1}, {21, 2}}, 2, 0},
        {{20, 30, 31, 40}, 4, {{20, 1}, {30, 2}, {40, 1}}, 3, 0},
        {{62, 63, 64, 65}, 4, {{62, 2}, {64, 2}}, 2, 0}, /* over the border of the regions */
        {{65, 64, 63, 62}, 4, {{64, 2}, {62, 2}}, 2, 0},
        {{0, 127}, 2, {{0, 1}, {127, 1}}, 2, 0},
        {{126, 127, 128}, 3, {{126, 2}}, 1, 1}, /* the end of RAM */
        {{128}, 1, {{0}}, 0, 1},
        {{UINT32_MAX}, 1, {{0}}, 0, 1},
        {{0x100000, 0x80000000, 0xfffff}, 3, {{0}}, 0, 3}, /* 4 GiB: nothing is cut to 32 bits */
        {{UINT32_MAX, 0}, 2, {{0, 1}}, 1, 1},
        {{20, 4000, 21}, 3, {{20, 2}}, 1, 1}, /* what is none parts no range */
        {{0}, 0, {{0}}, 0, 0},
    };

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);

        for (size_t i = 0; i < 4 * COUNT(row); i++) {
            size_t j = i / 4;
            unsigned queue = i % 2;
            uint64_t addr = i % 4 < 2 ? DATA : RAM - 6; /* the second: a number in two iovecs */
            uint64_t foreign = r->b.foreign;

            forget(r);
            put_pfns(r, addr, row[j].pfn, row[j].n);
            give_one(r, queue, addr, 4 * row[j].n);
            notify(r, queue);
            assert_int_equal(r->calls, row[j].calls);
            for (uint32_t c = 0; c < row[j].calls; c++)
                expect(r, c, queue ? UNDISCARD : DISCARD, (uint64_t)row[j].want[c][0] * PAGE,
                       (uint64_t)row[j].want[c][1] * PAGE);
            assert_int_equal(r->b.foreign - foreign, row[j].foreign);
            assert_int_equal(take(&r->d.q[queue]), 0);
            assert_int_equal(r->agains, 0);
        }
        rig_free(r);
    }
}

/* An array cut into descriptors anywhere, with the beginning of one more number behind it. */
static void an_array_may_be_cut_anywhere(void **state)
{
    static const uint32_t pfn[4] = {90, 91, 92, 0x04030201};
    uint64_t x = 5;

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);

        for (unsigned i = 0; i < 50; i++) {
            struct vqd_buf buf[SIZE];
            uint32_t n = 0, at = 0, len = 12 + i % 4;

            put_pfns(r, DATA, pfn, 4);
            while (at < len) {
                uint32_t part = n == SIZE - 1 ? len - at : (uint32_t)(test_random(&x) % 5);

                part = part < len - at ? part : len - at;
                buf[n].addr = DATA + at;
                buf[n].len = part;
                buf[n++].write = false;
                at += part;
            }
            forget(r);
            give(r, 0, buf, n);
            notify(r, 0);
            assert_int_equal(r->calls, 1);
            expect(r, 0, DISCARD, 90 * PAGE, 3 * PAGE);
            assert_int_equal(take(&r->d.q[0]), 0);
        }
        assert_int_equal(r->b.foreign, 0);
        assert_int_equal(r->b.inflated, 150);
        rig_free(r);
    }
}

/* Each descriptor is all of RAM, as page numbers: a turn is a turn, and the rest comes later. */
static void c22_c23_page_numbers_without_end_have_one_turn_at_a_time(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        for (unsigned queue = 0; queue < 2; queue++) {
            struct rig *r = rig_up(all_rings[k]);
            struct vqd_buf buf[SIZE];
            uint32_t numbers = 0;
            unsigned turns = 0;
            int waits;

            for (uint32_t i = 0; i < SIZE; i++) {
                buf[i].addr = i % 2 * RAM;
                buf[i].len = RAM;
                buf[i].write = false;
                numbers += RAM / 4;
            }
            give(r, queue, buf, SIZE);
            /* No two of these touch. */
            for (uint32_t i = 0x8000; i < RAM; i += 4) {
                uint32_t pfn = 2 * (i % 61);

                put_pfns(r, i, &pfn, 1);
                put_pfns(r, RAM + i, &pfn, 1);
            }
            notify(r, queue);
            for (;;) {
                assert_true(r->calls * (TN_VIRTIO_BALLOON_CALL + 1) <= TN_VIRTIO_BALLOON_TURN);
                forget(r);
                turns++;
                if (r->agains == 0)
                    break;
                assert_true(r->b.waiting && r->b.off[queue] % 4 == 0 && r->b.off[queue] > 0);
                none(&r->d.q[queue]);
                r->agains = 0;
                waits = tn_virtio_balloon_turn(&r->b);
                assert_int_equal(waits, r->agains);
            }
            assert_int_equal(turns, (numbers + 962) / 963); /* 16384 / 17 */
            assert_int_equal(take(&r->d.q[queue]), 0);
            assert_int_equal(r->irq[queue], 1);
            works_again(r, all_rings[k]);
            rig_free(r);
        }
    }
}

/* The driver takes back part of what has not been served. */
static void a24_a_chain_that_shrinks_while_it_waits_is_done(void **state)
{
    struct rig *r = rig_up(0);

    (void)state;
    give_one(r, 0, 0, RAM);
    notify(r, 0);
    assert_int_equal(r->agains, 1);
    vqd_put(&r->d.q[0], r->d.q[0].desc + 8, 4, 20);
    forget(r);
    assert_int_equal(tn_virtio_balloon_turn(&r->b), 0);
    assert_int_equal(r->calls, 0);
    assert_int_equal(take(&r->d.q[0]), 0);
    assert_int_equal(r->b.off[0], 0);

    give_one(r, 4, RAM, RAM);
    r->b.off[4] = 3 * RAM; /* as if it had been longer */
    notify(r, 4);
    assert_int_equal(r->calls, 0);
    assert_int_equal(take(&r->d.q[4]), 0);
    assert_int_equal(r->b.off[4], 0);
    works_again(r, 0);
    rig_free(r);
}

/* More chains than a turn looks at, without anything in them. */
static void c23_chains_without_end_have_one_turn_at_a_time(void **state)
{
    struct rig *r = rig_up(0);

    (void)state;
    r->b.cfg.queue_size = 4;
    for (unsigned queue = 0; queue < 5; queue++) {
        if (queue == 2)
            continue;
        r->agains = 0;
        for (unsigned i = 0; i < 6; i++)
            give_one(r, queue, DATA, 0);
        notify(r, queue);
        for (unsigned i = 0; i < 4; i++)
            assert_int_equal(take(&r->d.q[queue]), 0);
        none(&r->d.q[queue]);
        assert_int_equal(r->agains, 1);
        assert_int_equal(tn_virtio_balloon_turn(&r->b), 0);
        assert_int_equal(take(&r->d.q[queue]), 0);
        assert_int_equal(take(&r->d.q[queue]), 0);
    }
    rig_free(r);
}

static void reports_are_cut_to_whole_pages(void **state)
{
    static const struct {
        uint64_t addr;
        uint32_t len;
        uint64_t want[2][2]; /* first byte, bytes */
        uint32_t calls;
    } row[] = {
        {20 * PAGE, PAGE, {{20 * PAGE, PAGE}}, 1},
        {20 * PAGE, 3 * PAGE + 4095, {{20 * PAGE, 3 * PAGE}}, 1},
        {20 * PAGE + 1, 3 * PAGE, {{21 * PAGE, 2 * PAGE}}, 1},
        {21 * PAGE - 1, PAGE + 1, {{21 * PAGE, PAGE}}, 1},
        {20 * PAGE + 1, 2 * PAGE - 2, {{0}}, 0},
        {20 * PAGE + 1, 2 * PAGE - 1, {{21 * PAGE, PAGE}}, 1},
        {20 * PAGE, PAGE - 1, {{0}}, 0},
        {20 * PAGE, 1, {{0}}, 0},
        {20 * PAGE, 0, {{0}}, 0},
        {62 * PAGE, 4 * PAGE, {{62 * PAGE, 2 * PAGE}, {64 * PAGE, 2 * PAGE}}, 2},
        {63 * PAGE + 1, 2 * PAGE, {{64 * PAGE, PAGE}}, 1},
        {127 * PAGE, PAGE, {{127 * PAGE, PAGE}}, 1},
        {0, 2 * RAM, {{0, RAM}, {RAM, RAM}}, 2},
    };

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);
        uint64_t reported = 0;

        for (size_t i = 0; i < COUNT(row); i++) {
            forget(r);
            give_one(r, 4, row[i].addr, row[i].len);
            notify(r, 4);
            assert_int_equal(r->calls, row[i].calls);
            for (uint32_t c = 0; c < row[i].calls; c++)
                expect(r, c, ZERO, row[i].want[c][0], row[i].want[c][1]);
            assert_int_equal(take(&r->d.q[4]), 0);
            reported += r->pages;
            assert_int_equal(r->b.reported, reported);
        }
        assert_int_equal(r->agains, 0);
        rig_free(r);
    }
}

/* What a freed page has to be afterwards depends on what the driver fills it with. */
static void reports_keep_the_poison(void **state)
{
    static const struct {
        uint64_t features;
        uint32_t poison;
        int want;
    } row[] = {
        {ALL & ~TN_VIRTIO_BALLOON_F_PAGE_POISON, 0, DISCARD},
        {ALL & ~TN_VIRTIO_BALLOON_F_PAGE_POISON, 0xaaaaaaaa, DISCARD},
        {ALL, 0, ZERO},
        {ALL, 0xaaaaaaaa, 0},
        {ALL, 0x80000000, 0},
    };
    static const uint32_t pfn = 33;

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct rig *r = rig_new(ALL, RAM);

        driver_start(r, row[i].features, 31);
        tn_virtio_config_write(&r->b.virtio, 12, 4, row[i].poison);
        driver_ok(r);
        give_one(r, 4, 20 * PAGE, 2 * PAGE);
        notify(r, 4);
        assert_int_equal(take(&r->d.q[4]), 0);
        assert_int_equal(r->calls, row[i].want != 0);
        if (row[i].want != 0)
            expect(r, 0, row[i].want, 20 * PAGE, 2 * PAGE);

        /* The balloon's pages are written when they come back. */
        forget(r);
        put_pfns(r, DATA, &pfn, 1);
        give_one(r, 0, DATA, 4);
        notify(r, 0);
        assert_int_equal(r->calls, 1);
        expect(r, 0, DISCARD, 33 * PAGE, PAGE);
        rig_free(r);
    }
}

/* A long range is served in turns, which part no huge page. */
static void c23_reports_of_much_memory_have_one_turn_at_a_time(void **state)
{
    struct rig *r = rig_new(ALL, 64u << 20);
    uint64_t next = 3 * PAGE, ring = 0;
    unsigned turns = 0;
    int waits;
    struct vqd_buf buf[4] = {{DATA, 4, false},
                             {next, (64u << 20) - 3 * PAGE, true},
                             {64u << 20, 64u << 20, true},
                             {0, HUGE, true}};

    (void)state;
    for (unsigned queue = 3; queue < 5; queue++) {
        driver_start(r, ALL | all_rings[ring++], 31);
        driver_ok(r);
        if (queue == 3) {
            assert_int_equal(tn_virtio_balloon_hint_start(&r->b), 0);
            tn_put_(ram_at(&r->ram, DATA), 4, config(r, 8));
        }
        next = 3 * PAGE;
        turns = 0;
        forget(r);
        give(r, queue, buf, 4);
        notify(r, queue);
        memset(ram_at(&r->ram, DATA), 0, 4); /* the id was looked at once */
        for (;;) {
            assert_true(r->pages + r->calls * TN_VIRTIO_BALLOON_CALL <= TN_VIRTIO_BALLOON_TURN);
            for (size_t i = 0; i < r->calls; i++) {
                expect(r, i, queue == 3 ? HINT : ZERO, next, r->call[i].len);
                next += r->call[i].len;
                assert_true(next % HUGE == 0);
                if (next == 128u << 20)
                    next = 0;
            }
            forget(r);
            turns++;
            if (r->agains == 0)
                break;
            none(&r->d.q[queue]);
            r->agains = 0;
            waits = tn_virtio_balloon_turn(&r->b);
            assert_int_equal(waits, r->agains);
        }
        assert_int_equal(next, HUGE);
        assert_in_range(turns, 3, 4);
        assert_int_equal(take(&r->d.q[queue]), 0);
    }
    rig_free(r);
}

static void what_was_discarded_is_dirty(void **state)
{
    static const uint32_t pfn[3] = {20, 21, 70};
    struct rig *r = rig_up(0);
    uint64_t map[2] = {0, 0};

    (void)state;
    assert_int_equal(tn_mem_track(&r->ram.mem, 0, &map[0]), 0);
    assert_int_equal(tn_mem_track(&r->ram.mem, 1, &map[1]), 0);
    put_pfns(r, DATA, pfn, 3);
    give_one(r, 0, DATA, 12);
    notify(r, 0);
    assert_true((map[0] >> 20 & 7) == 3);
    assert_true(map[1] == 1ull << 6);
    r->fail = TN_ESYS; /* who knows how far it came */
    give_one(r, 4, 127 * PAGE, PAGE);
    notify(r, 4);
    assert_true(map[1] == (1ull << 6 | 1ull << 63));
    map[1] = 0;
    give_one(r, 1, DATA, 12);
    notify(r, 1);
    assert_true(map[1] == 0);
    rig_free(r);
}

static void failures_are_counted_and_the_guest_goes_on(void **state)
{
    static const uint32_t pfn[4] = {20, 21, 70, 500};
    struct rig *r = rig_up(all_rings[3]);

    (void)state;
    r->fail = TN_ESYS;
    r->indirect = false;
    put_pfns(r, DATA, pfn, 4);
    give_one(r, 0, DATA, 16);
    notify(r, 0);
    assert_int_equal(take(&r->d.q[0]), 0);
    assert_int_equal(r->b.failed, 3);
    give_one(r, 1, DATA, 16);
    notify(r, 1);
    assert_int_equal(take(&r->d.q[1]), 0);
    assert_int_equal(r->b.failed, 6);
    give_one(r, 4, RAM, 3 * PAGE);
    notify(r, 4);
    assert_int_equal(take(&r->d.q[4]), 0);
    assert_int_equal(r->b.failed, 9);
    assert_int_equal(r->b.foreign, 2);
    assert_int_equal(r->b.inflated + r->b.reported, 0);
    rig_free(r);
}

static void without_undiscard_deflating_is_for_free(void **state)
{
    struct rig *r = rig_new(0, RAM);

    (void)state;
    r->no_undiscard = true;
    rig_device(r);
    driver_start(r, 0, 3);
    driver_ok(r);
    give_one(r, 1, 0, RAM); /* as many as RAM can hold */
    notify(r, 1);
    assert_int_equal(r->calls + r->agains, 0);
    assert_int_equal(r->b.foreign, 0);
    assert_int_equal(take(&r->d.q[1]), 0);
    rig_free(r);
}

static void a_driver_must_tell_where_that_is_offered(void **state)
{
    struct rig *r = rig_new(ALL, RAM);

    (void)state;
    assert_false(vd_negotiate(&r->d, ALL & ~TN_VIRTIO_BALLOON_F_MUST_TELL_HOST));
    assert_true(vd_negotiate(&r->d, TN_VIRTIO_BALLOON_F_MUST_TELL_HOST));
    r->offered = 0;
    rig_device(r);
    assert_true(vd_negotiate(&r->d, ALL));
    rig_free(r);
}

/* 5.5.2, and as Linux does it: every set of features, with the queues numbered either way. */
static void queues_are_found_by_number_or_by_count(void **state)
{
    static const uint64_t bit[3] = {TN_VIRTIO_BALLOON_F_STATS_VQ,
                                    TN_VIRTIO_BALLOON_F_FREE_PAGE_HINT,
                                    TN_VIRTIO_BALLOON_F_PAGE_REPORTING};
    static const uint32_t pfn = 20;

    (void)state;
    for (unsigned set = 0; set < 8; set++) {
        for (unsigned counts = 0; counts < 2; counts++) {
            struct rig *r = rig_new(ALL, RAM);
            uint64_t features = TN_VIRTIO_BALLOON_F_MUST_TELL_HOST;
            unsigned index[5] = {0, 1, 99, 99, 99}, next = 2, queues = 3;
            struct tn_virtio_balloon_state saved;

            for (unsigned i = 0; i < 3; i++) {
                if (!(set >> i & 1))
                    continue;
                features |= bit[i];
                index[2 + i] = counts ? next++ : 2 + i;
                queues |= 1u << index[2 + i];
            }
            driver_start(r, features, queues);
            driver_ok(r);
            for (unsigned pass = 0; pass < 2; pass++) { /* the second: restored */
                forget(r);
                memset(r->irq, 0, sizeof(r->irq));
                put_pfns(r, DATA, &pfn, 1);
                for (unsigned i = 0; i < 2; i++) {
                    give_one(r, i, DATA, 4);
                    notify(r, i);
                    assert_int_equal(take(&r->d.q[i]), 0);
                }
                assert_int_equal(r->calls, 2);
                expect(r, 0, DISCARD, 20 * PAGE, PAGE);
                expect(r, 1, UNDISCARD, 20 * PAGE, PAGE);
                if (set & 1) {
                    if (pass == 0)
                        give(r, index[2], &(struct vqd_buf){DATA, 10, false}, 1);
                    notify(r, index[2]);
                    assert_true(r->b.held);
                }
                assert_int_equal(tn_virtio_balloon_stats_ask(&r->b), set & 1 ? 0 : TN_ESTATE);
                if (set & 1) {
                    assert_int_equal(take(&r->d.q[index[2]]), 0);
                    give(r, index[2], &(struct vqd_buf){DATA, 10, false}, 1);
                    notify(r, index[2]);
                }
                forget(r);
                if (set & 2) {
                    give(r, index[3], &(struct vqd_buf){20 * PAGE, PAGE, true}, 1);
                    notify(r, index[3]);
                    assert_int_equal(take(&r->d.q[index[3]]), 0);
                    assert_int_equal(r->calls, 0);
                    assert_int_equal(tn_virtio_balloon_hint_start(&r->b), 0);
                } else {
                    assert_int_equal(tn_virtio_balloon_hint_start(&r->b), TN_ESTATE);
                }
                if (set & 4) {
                    give(r, index[4], &(struct vqd_buf){20 * PAGE, PAGE, true}, 1);
                    notify(r, index[4]);
                    assert_int_equal(take(&r->d.q[index[4]]), 0);
                    assert_int_equal(r->calls, 1);
                    expect(r, 0, DISCARD, 20 * PAGE, PAGE);
                }
                for (unsigned i = 0; i < 5; i++)
                    assert_int_equal(r->irq[i], queues >> i & 1 && i != index[3] ? 1 : r->irq[i]);
                memset(&saved, 0, sizeof(saved));
                tn_virtio_balloon_save(&r->b, &saved);
                rig_device(r);
                assert_int_equal(tn_virtio_balloon_restore(&r->b, &saved), 0);
            }
            assert_true(tn_virtio_live(&r->b.virtio));
            rig_free(r);
        }
    }
}

static void a_queue_that_is_not_enabled_is_let_be(void **state)
{
    struct rig *r = rig_new(ALL, RAM);
    static const uint32_t pfn = 20;

    (void)state;
    for (unsigned queues = 0; queues < 32; queues++) {
        driver_start(r, ALL, queues);
        driver_ok(r);
        forget(r);
        put_pfns(r, DATA, &pfn, 1);
        for (unsigned i = 0; i < 5; i++) {
            give_one(r, i, i < 3 ? DATA : 20 * PAGE, i < 3 ? 4 : PAGE);
            notify(r, i);
        }
        assert_int_equal(tn_virtio_balloon_turn(&r->b), 0);
        assert_int_equal(r->calls, (queues & 1) + (queues >> 1 & 1) + (queues >> 4 & 1));
        assert_int_equal(r->b.held, queues >> 2 & 1);
        assert_int_equal(tn_virtio_balloon_stats_ask(&r->b), queues >> 2 & 1 ? 0 : TN_EAGAIN);
        assert_true(tn_virtio_live(&r->b.virtio));
    }
    rig_free(r);
}

static void put_stat(struct rig *r, uint32_t at, unsigned tag, uint64_t value)
{
    uint8_t *p = ram_at(&r->ram, DATA + 10ull * at);

    tn_put_(p, 2, tag);
    tn_put_(p + 2, 8, value);
}

static void statistics_are_asked_for_and_come(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);
        struct tn_virtio_balloon_stats stats;

        assert_int_equal(tn_virtio_balloon_stats_ask(&r->b), TN_EAGAIN); /* no buffer yet */
        put_stat(r, 0, TN_VIRTIO_BALLOON_S_MEMFREE, 1000);
        put_stat(r, 1, TN_VIRTIO_BALLOON_S_MEMTOT, UINT64_MAX);
        put_stat(r, 2, TN_VIRTIO_BALLOON_S_DIRECT_RECLAIM, 7);
        give_one(r, 2, DATA, 30);
        assert_true(vqd_must_kick(&r->d.q[2]));
        notify(r, 2);
        assert_int_equal(r->events[TN_VIRTIO_BALLOON_E_STATS], 1);
        tn_virtio_balloon_stats_read(&r->b, &stats);
        assert_int_equal(stats.given, 1u << 4 | 1u << 5 | 1u << 15);
        assert_int_equal(stats.value[4], 1000);
        assert_true(stats.value[5] == UINT64_MAX);
        assert_int_equal(stats.value[15], 7);
        assert_int_equal(stats.value[0], 0);
        none(&r->d.q[2]); /* it is kept until the next request */
        notify(r, 2);
        assert_int_equal(tn_virtio_balloon_turn(&r->b), 0);
        assert_int_equal(r->events[TN_VIRTIO_BALLOON_E_STATS], 1);

        for (unsigned i = 0; i < 3 * SIZE; i++) {
            if (r->d.q[2].event_idx)
                vqd_interrupt_at(&r->d.q[2], r->d.q[2].reaped);
            assert_int_equal(tn_virtio_balloon_stats_ask(&r->b), 0);
            assert_int_equal(r->irq[2], i + 1);
            assert_int_equal(take(&r->d.q[2]), 0);
            none(&r->d.q[2]);
            assert_int_equal(tn_virtio_balloon_stats_ask(&r->b), TN_EAGAIN);
            put_stat(r, 0, i % 2, i);
            give_one(r, 2, DATA, 10);
            assert_true(vqd_must_kick(&r->d.q[2]));
            notify(r, 2);
            assert_int_equal(r->events[TN_VIRTIO_BALLOON_E_STATS], i + 2);
            tn_virtio_balloon_stats_read(&r->b, &stats);
            assert_int_equal(stats.given, 1u << i % 2);
            assert_int_equal(stats.value[i % 2], i);
        }

        /* The driver answers before it is asked for more than it may: two buffers. */
        give_one(r, 2, DATA, 10);
        notify(r, 2);
        assert_int_equal(tn_virtio_balloon_stats_ask(&r->b), 0);
        assert_true(r->b.held);
        assert_int_equal(r->events[TN_VIRTIO_BALLOON_E_STATS], 3 * SIZE + 2);
        assert_int_equal(r->agains, 0);
        rig_free(r);
    }
}

static void c22_c23_statistics_are_capped(void **state)
{
    struct rig *r = rig_up(0);
    struct tn_virtio_balloon_stats stats;
    struct vqd_buf buf[SIZE];

    (void)state;
    /* Of a tag that comes often the last one counts; unknown ones and half a one do not. */
    put_stat(r, 0, 3, 1);
    put_stat(r, 1, 16, 2);
    put_stat(r, 2, 3, 3);
    put_stat(r, 3, 0xffff, 4);
    put_stat(r, 4, 6, 5);
    give_one(r, 2, DATA, 49);
    notify(r, 2);
    tn_virtio_balloon_stats_read(&r->b, &stats);
    assert_int_equal(stats.given, 1u << 3);
    assert_int_equal(stats.value[3], 3);

    /* GiBs of them: the first 64 are looked at. */
    assert_int_equal(tn_virtio_balloon_stats_ask(&r->b), 0);
    for (uint32_t i = 0; i < 64; i++)
        put_stat(r, i, 3, i);
    put_stat(r, 64, 3, 1000);
    put_stat(r, 65, 4, 1000);
    for (uint32_t i = 0; i < SIZE; i++) {
        buf[i].addr = i == 0 ? DATA : 0;
        buf[i].len = i == 0 ? RAM : 2 * RAM;
        buf[i].write = false;
    }
    while (vqd_reap(&r->d.q[2], &(uint32_t){0}) >= 0)
        ;
    give(r, 2, buf, SIZE);
    notify(r, 2);
    tn_virtio_balloon_stats_read(&r->b, &stats);
    assert_int_equal(stats.given, 1u << 3);
    assert_int_equal(stats.value[3], 63);

    /* None at all: the first buffer may be so (5.5.5). */
    assert_int_equal(tn_virtio_balloon_stats_ask(&r->b), 0);
    assert_int_equal(take(&r->d.q[2]), 0);
    give_one(r, 2, DATA, 9);
    notify(r, 2);
    tn_virtio_balloon_stats_read(&r->b, &stats);
    assert_int_equal(stats.given, 0);
    assert_int_equal(r->events[TN_VIRTIO_BALLOON_E_STATS], 3);
    rig_free(r);
}

static void a_buffer_that_the_driver_took_back_needs_a_reset(void **state)
{
    struct rig *r = rig_up(all_rings[2]);

    (void)state;
    give_one(r, 2, DATA, 10);
    notify(r, 2);
    assert_true(r->b.held);
    vqd_put(&r->d.q[2], r->d.q[2].desc + 14, 2, 0);
    assert_int_equal(tn_virtio_balloon_stats_ask(&r->b), TN_ESTATE);
    must_be_broken(r);
    works_again(r, 0);
    rig_free(r);
}

static void hints_are_for_the_run_that_is_open(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);
        struct vqd_buf both[3] = {
            {DATA, 4, false}, {20 * PAGE, PAGE, true}, {30 * PAGE + 5, 3 * PAGE, true}};
        uint32_t id, old;

        r->indirect = false;
        give_one(r, 3, 20 * PAGE, PAGE); /* nobody asked */
        notify(r, 3);
        assert_int_equal(r->calls, 0);
        put_id(r, 0);
        assert_int_equal(tn_virtio_balloon_hint_start(&r->b), 0);
        old = config(r, 8);
        assert_true(old >= 2);
        assert_int_equal(r->config_irq, 1);
        assert_int_equal(r->b.run, TN_VIRTIO_BALLOON_RUN_ASKED);
        put_id(r, 0); /* the end of what was before */
        put_id(r, old + 1);
        give_one(r, 3, 20 * PAGE, PAGE);
        notify(r, 3);
        assert_int_equal(r->b.run, TN_VIRTIO_BALLOON_RUN_ASKED);
        assert_int_equal(r->calls + r->events[TN_VIRTIO_BALLOON_E_HINT], 0);

        put_id(r, old);
        assert_int_equal(r->b.run, TN_VIRTIO_BALLOON_RUN_OPEN);
        assert_int_equal(r->events[TN_VIRTIO_BALLOON_E_HINT], 1);
        give_one(r, 3, 62 * PAGE, 4 * PAGE);
        notify(r, 3);
        assert_int_equal(r->calls, 2);
        expect(r, 0, HINT, 62 * PAGE, 2 * PAGE);
        expect(r, 1, HINT, 64 * PAGE, 2 * PAGE);
        put_id(r, 0);
        assert_int_equal(r->b.run, TN_VIRTIO_BALLOON_RUN_OVER);
        assert_int_equal(r->events[TN_VIRTIO_BALLOON_E_HINT], 2);
        forget(r);
        give_one(r, 3, 20 * PAGE, PAGE);
        notify(r, 3);
        assert_int_equal(r->calls, 0);

        /* Another run; the id and pages in one chain, then the old id. */
        while (vqd_reap(&r->d.q[3], &(uint32_t){0}) >= 0)
            ;
        assert_int_equal(tn_virtio_balloon_hint_start(&r->b), 0);
        id = config(r, 8);
        assert_int_equal(id, old + 1);
        memcpy(ram_at(&r->ram, DATA), &id, 4);
        give(r, 3, both, 3);
        notify(r, 3);
        assert_int_equal(r->calls, 2);
        expect(r, 0, HINT, 20 * PAGE, PAGE);
        expect(r, 1, HINT, 31 * PAGE, 2 * PAGE);
        put_id(r, old);
        assert_int_equal(r->b.run, TN_VIRTIO_BALLOON_RUN_ASKED);
        give_one(r, 3, 20 * PAGE, PAGE);
        notify(r, 3);
        assert_int_equal(r->calls, 2);
        both[0].len = 3; /* no id */
        memcpy(ram_at(&r->ram, DATA), &id, 4);
        give(r, 3, both, 2);
        notify(r, 3);
        assert_int_equal(r->b.run, TN_VIRTIO_BALLOON_RUN_ASKED);
        put_id(r, id);
        assert_int_equal(r->b.run, TN_VIRTIO_BALLOON_RUN_OPEN);

        /* Stopped and done: what comes late is not looked at. */
        for (unsigned done = 0; done < 2; done++) {
            while (vqd_reap(&r->d.q[3], &(uint32_t){0}) >= 0)
                ;
            forget(r);
            r->config_irq = 0;
            if (done)
                tn_virtio_balloon_hint_done(&r->b);
            else
                tn_virtio_balloon_hint_stop(&r->b);
            assert_int_equal(r->config_irq, 1);
            assert_int_equal(config(r, 8), done);
            put_id(r, id);
            put_id(r, done);
            give_one(r, 3, 20 * PAGE, PAGE);
            notify(r, 3);
            assert_int_equal(r->b.run, TN_VIRTIO_BALLOON_RUN_NONE);
            assert_int_equal(r->calls, 0);
        }
        tn_virtio_balloon_hint_done(&r->b);
        assert_int_equal(r->config_irq, 1); /* nothing new */
        assert_int_equal(r->b.inflated + r->b.reported, 0);
        rig_free(r);
    }
}

static void command_ids_are_never_reserved_ones(void **state)
{
    struct rig *r = rig_up(0);

    (void)state;
    r->b.next_id = UINT32_MAX - 1;
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(tn_virtio_balloon_hint_start(&r->b), 0);
        assert_true(config(r, 8) >= 2);
    }
    assert_int_equal(config(r, 8), 0x80000002);
    rig_free(r);
}

static void the_driver_hears_of_a_new_size(void **state)
{
    struct rig *r = rig_up(0);
    uint32_t generation = r->b.virtio.generation;

    (void)state;
    assert_int_equal(tn_virtio_balloon_resize(&r->b, PAGES + 1), TN_EINVAL);
    assert_int_equal(tn_virtio_balloon_resize(&r->b, UINT32_MAX), TN_EINVAL);
    assert_int_equal(tn_virtio_balloon_resize(&r->b, 0), 0);
    assert_int_equal(r->config_irq, 0);
    assert_int_equal(tn_virtio_balloon_resize(&r->b, PAGES), 0);
    assert_int_equal(tn_virtio_balloon_resize(&r->b, 5), 0);
    assert_int_equal(r->config_irq, 2);
    assert_int_equal(r->b.virtio.generation, generation + 2);
    assert_int_equal(config(r, 0), 5);
    /* What the driver says it has is bounded, and is no more than what it says. */
    tn_virtio_config_write(&r->b.virtio, 4, 4, 3);
    assert_int_equal(tn_virtio_balloon_actual(&r->b), 3);
    tn_virtio_config_write(&r->b.virtio, 4, 4, UINT32_MAX);
    assert_int_equal(tn_virtio_balloon_actual(&r->b), PAGES);
    assert_int_equal(r->config_irq, 2);
    rig_free(r);
}

static void interrupts_come_only_where_they_are_wanted(void **state)
{
    static const uint32_t pfn = 20;

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);

        r->indirect = false;
        put_pfns(r, DATA, &pfn, 1);
        for (unsigned i = 0; i < 5; i++)
            give_one(r, 0, DATA, 4);
        notify(r, 0);
        assert_int_equal(r->irq[0], 1); /* one for the batch */
        if (!r->d.q[0].event_idx) {
            vqd_interrupts(&r->d.q[0], false);
            give_one(r, 0, DATA, 4);
            notify(r, 0);
            assert_int_equal(r->irq[0], 1);
        }
        notify(r, 0);
        assert_int_equal(r->irq[0], 1);
        assert_int_equal(r->irq[1] + r->irq[2] + r->irq[3] + r->irq[4], 0);
        rig_free(r);
    }
}

static void queues_filled_before_driver_ok_are_served(void **state)
{
    static const uint32_t pfn = 20;

    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_new(ALL, RAM);

        driver_start(r, ALL | all_rings[k], 31);
        put_pfns(r, DATA, &pfn, 1);
        put_stat(r, 1, 4, 4);
        give_one(r, 0, DATA, 4);
        give_one(r, 2, DATA + 10, 10);
        give_one(r, 4, 30 * PAGE, PAGE);
        notify(r, 0);
        notify(r, 2);
        assert_int_equal(r->calls + r->agains, 0);
        tn_virtio_status_write(&r->b.virtio, 15);
        assert_int_equal(r->agains, 1);
        assert_int_equal(r->calls, 0);
        assert_int_equal(tn_virtio_balloon_turn(&r->b), 0);
        assert_int_equal(r->calls, 2);
        assert_int_equal(r->b.stats.given, 1u << 4);
        rig_free(r);
    }
}

/* Nothing to do is no work: no turn is asked for, however often it is given one (C21). */
static void c21_an_idle_balloon_asks_for_nothing(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);
        struct tn_virtio_balloon_state saved;

        put_stat(r, 0, 4, 4);
        give_one(r, 2, DATA, 10);
        notify(r, 2);
        assert_int_equal(tn_virtio_balloon_hint_start(&r->b), 0);
        for (unsigned i = 0; i < 50; i++) { /* and through pauses */
            assert_int_equal(tn_virtio_balloon_turn(&r->b), 0);
            for (unsigned queue = 0; queue < 5; queue++)
                notify(r, queue);
            assert_false(r->b.waiting);
            if (i % 5 == 4) {
                memset(&saved, 0, sizeof(saved));
                tn_virtio_balloon_save(&r->b, &saved);
                rig_device(r);
                assert_int_equal(tn_virtio_balloon_restore(&r->b, &saved), 0);
                assert_int_equal(tn_virtio_balloon_turn(&r->b), 0);
                assert_true(r->b.held);
                assert_int_equal(r->b.stats.value[4], 4);
            }
        }
        assert_int_equal(r->agains + r->calls, 0);
        assert_int_equal(tn_virtio_balloon_stats_ask(&r->b), 0);
        assert_int_equal(take(&r->d.q[2]), 0);
        works_again(r, all_rings[k]);
        rig_free(r);
    }
}

static void c04_a_reset_forgets_what_was_begun(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);

        put_stat(r, 0, 4, 4);
        give_one(r, 2, DATA, 10);
        notify(r, 2);
        assert_int_equal(tn_virtio_balloon_hint_start(&r->b), 0);
        put_id(r, config(r, 8));
        give_one(r, 0, DATA, RAM);
        notify(r, 0);
        assert_int_equal(r->agains, 1);
        assert_true(r->b.off[0] > 0 && r->b.waiting && r->b.held);
        tn_virtio_status_write(&r->b.virtio, 0);
        assert_int_equal(r->b.off[0], 0);
        assert_false(r->b.waiting || r->b.held);
        assert_int_equal(r->b.run, TN_VIRTIO_BALLOON_RUN_NONE);
        assert_int_equal(r->b.stats.given, 0);
        forget(r);
        assert_int_equal(tn_virtio_balloon_turn(&r->b), 0);
        assert_int_equal(r->calls, 0);
        works_again(r, all_rings[COUNT(all_rings) - 1 - k]);
        rig_free(r);
    }
}

/* Saved in the middle of chains, and taken over by another device on the same memory. */
static void e06_what_waits_survives_a_restore(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(all_rings); k++) {
        struct rig *r = rig_up(all_rings[k]);
        struct tn_virtio_balloon_state one, two;
        uint32_t pfn = 100, numbers, id;
        size_t calls;

        put_stat(r, 0, 5, 55);
        give_one(r, 2, DATA, 10);
        notify(r, 2);
        tn_virtio_config_write(&r->b.virtio, 4, 4, 12);
        assert_int_equal(tn_virtio_balloon_resize(&r->b, 34), 0);
        assert_int_equal(tn_virtio_balloon_hint_start(&r->b), 0);
        id = config(r, 8);
        put_id(r, id);
        for (uint32_t i = 0; i < 2000; i++) { /* no two touch */
            pfn = 2 * (i % 61);
            put_pfns(r, RAM + 4 * i, &pfn, 1);
        }
        forget(r);
        r->indirect = false; /* tables at one place cannot wait side by side */
        give_one(r, 0, RAM, 8000);
        give_one(r, 0, RAM, 8);
        notify(r, 0);
        calls = r->calls;
        numbers = r->b.off[0] / 4;
        assert_int_equal(calls, numbers);
        assert_in_range(numbers, 900, 1100);
        memset(&one, 0x33, sizeof(one));
        memset(&two, 0x44, sizeof(two));
        tn_virtio_balloon_save(&r->b, &one);

        memset(&r->b, 0x55, sizeof(r->b));
        rig_device(r);
        assert_int_equal(tn_virtio_balloon_restore(&r->b, &one), 0);
        tn_virtio_balloon_save(&r->b, &two);
        assert_memory_equal(&one, &two, sizeof(one));
        assert_int_equal(config(r, 0), 34);
        assert_int_equal(config(r, 4), 12);
        assert_int_equal(config(r, 8), id);
        assert_int_equal(r->b.run, TN_VIRTIO_BALLOON_RUN_OPEN);
        r->agains = 0;
        while (tn_virtio_balloon_turn(&r->b))
            ;
        assert_int_equal(r->calls, 2002); /* each number once */
        for (uint32_t i = 0; i < 2002; i++)
            expect(r, i, DISCARD, (uint64_t)(2 * (i % 2000 % 61)) * PAGE, PAGE);
        assert_int_equal(take(&r->d.q[0]), 0);
        assert_int_equal(take(&r->d.q[0]), 0);
        assert_int_equal(r->b.stats.value[5], 55);
        assert_int_equal(tn_virtio_balloon_stats_ask(&r->b), 0);
        assert_int_equal(take(&r->d.q[2]), 0);
        forget(r);
        give_one(r, 3, 70 * PAGE, PAGE);
        notify(r, 3);
        assert_int_equal(r->calls, 1);
        tn_virtio_balloon_hint_done(&r->b);
        assert_int_equal(config(r, 8), 1);
        rig_free(r);
    }
}

static void e01_e03_a_crafted_state_is_refused(void **state)
{
    static const uint32_t pfn = 20;
    struct rig *r = rig_up(0);
    struct tn_virtio_balloon_state good, bad, before, after;
    static const int want[] = {
        TN_EUNSUP,  TN_EUNSUP,  TN_EFORMAT, TN_EFORMAT, TN_EFORMAT, TN_EFORMAT, TN_EFORMAT,
        TN_EFORMAT, TN_EFORMAT, TN_EFORMAT, TN_EFORMAT, TN_EFORMAT, TN_EFORMAT, TN_EFORMAT,
        TN_EFORMAT, TN_EUNSUP,  TN_EFORMAT, TN_EFORMAT, TN_EFORMAT, TN_EUNSUP,
    };

    (void)state;
    give_one(r, 0, RAM, RAM);
    notify(r, 0);
    tn_virtio_config_write(&r->b.virtio, 4, 4, 5);
    assert_int_equal(tn_virtio_balloon_hint_start(&r->b), 0);
    memset(&good, 0, sizeof(good));
    tn_virtio_balloon_save(&r->b, &good);
    assert_true(good.off[0] > 0);
    before = good;
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
            bad.num_pages = PAGES + 1;
            break;
        case 3:
            bad.run = 4;
            break;
        case 4:
            bad.run = TN_VIRTIO_BALLOON_RUN_NONE; /* with an id */
            break;
        case 5:
            bad.free_page_hint_cmd_id = 1;
            break;
        case 6:
            bad.next_id = 1;
            break;
        case 7:
            bad.off[0]++; /* inside a number */
            break;
        case 8:
            bad.off[2] = 4; /* statistics are read at once */
            break;
        case 9: /* a chain begun in a queue that stands */
            bad.off[1] = 4;
            memset(&bad.virtio.queue[1], 0, sizeof(bad.virtio.queue[1]));
            bad.virtio.queue[1].size = SIZE;
            bad.virtio.queue[1].ring.version = TN_VIRTQ_VERSION;
            break;
        case 10:
            bad.off[0] = 4;
            bad.virtio.queue[0].ring.error = TN_EPROTO;
            break;
        case 11: /* chains in flight */
            bad.virtio.queue[4].ring.next_used--;
            break;
        case 12:
            bad.virtio.queue[2].ring.next_avail++;
            break;
        case 13: /* a run that no feature allows */
            bad.virtio.features &= ~TN_VIRTIO_BALLOON_F_FREE_PAGE_HINT;
            break;
        case 14:
            bad.poison_val = 1;
            bad.virtio.features &= ~TN_VIRTIO_BALLOON_F_PAGE_POISON;
            break;
        case 15:
            bad.virtio.device_id = 4;
            break;
        case 16:
            bad.virtio.status = 0xff;
            break;
        case 17: /* actual before FEATURES_OK */
            bad.virtio.status = 3;
            memset(bad.off, 0, sizeof(bad.off));
            bad.run = bad.free_page_hint_cmd_id = 0;
            break;
        case 18:
            bad.virtio.queue[3].ring.size = 32768;
            break;
        default: /* a driver that does not tell */
            bad.virtio.features &= ~TN_VIRTIO_BALLOON_F_MUST_TELL_HOST;
        }
        assert_int_equal(tn_virtio_balloon_restore(&r->b, &bad), want[i]);
        memset(&after, 0, sizeof(after));
        tn_virtio_balloon_save(&r->b, &after);
        assert_memory_equal(&before, &after, sizeof(before)); /* unchanged */
    }
    while (tn_virtio_balloon_turn(&r->b))
        ;
    assert_int_equal(take(&r->d.q[0]), 0); /* it went on from where it was */

    /* A chain begun that there is not: the next one is served from its beginning. */
    memset(&bad, 0, sizeof(bad));
    tn_virtio_balloon_save(&r->b, &bad);
    bad.off[1] = 400;
    assert_int_equal(tn_virtio_balloon_restore(&r->b, &bad), 0);
    assert_int_equal(tn_virtio_balloon_turn(&r->b), 0);
    forget(r);
    put_pfns(r, DATA, &pfn, 1);
    give_one(r, 1, DATA, 4);
    notify(r, 1);
    assert_int_equal(r->calls, 1);
    assert_int_equal(take(&r->d.q[1]), 0);

    /* Rings outside RAM: the device was reset, and what was begun is forgotten. */
    give_one(r, 0, RAM, RAM);
    notify(r, 0);
    bad = good;
    bad.virtio.queue[4].desc = bad.virtio.queue[4].ring.desc = 1ull << 40;
    assert_int_equal(tn_virtio_balloon_restore(&r->b, &bad), TN_EADDR);
    assert_int_equal(tn_virtio_status_read(&r->b.virtio), 0);
    assert_int_equal(r->b.off[0], 0);
    assert_int_equal(r->b.run, TN_VIRTIO_BALLOON_RUN_NONE);
    works_again(r, 0);
    assert_int_equal(tn_virtio_balloon_restore(&r->b, &good), 0);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bad_cfg_is_refused),
        cmocka_unit_test(b01_the_driver_writes_two_fields_alone),
        cmocka_unit_test(nothing_moves_without_a_driver),
        cmocka_unit_test(a03_a32_a_broken_ring_needs_a_reset),
        cmocka_unit_test(c04_a_broken_queue_ends_what_was_begun_in_others),
        cmocka_unit_test(buffers_of_no_use_are_passed_over),
        cmocka_unit_test(page_numbers_become_ranges),
        cmocka_unit_test(an_array_may_be_cut_anywhere),
        cmocka_unit_test(c22_c23_page_numbers_without_end_have_one_turn_at_a_time),
        cmocka_unit_test(a24_a_chain_that_shrinks_while_it_waits_is_done),
        cmocka_unit_test(c23_chains_without_end_have_one_turn_at_a_time),
        cmocka_unit_test(reports_are_cut_to_whole_pages),
        cmocka_unit_test(reports_keep_the_poison),
        cmocka_unit_test(c23_reports_of_much_memory_have_one_turn_at_a_time),
        cmocka_unit_test(what_was_discarded_is_dirty),
        cmocka_unit_test(failures_are_counted_and_the_guest_goes_on),
        cmocka_unit_test(without_undiscard_deflating_is_for_free),
        cmocka_unit_test(a_driver_must_tell_where_that_is_offered),
        cmocka_unit_test(queues_are_found_by_number_or_by_count),
        cmocka_unit_test(a_queue_that_is_not_enabled_is_let_be),
        cmocka_unit_test(statistics_are_asked_for_and_come),
        cmocka_unit_test(c22_c23_statistics_are_capped),
        cmocka_unit_test(a_buffer_that_the_driver_took_back_needs_a_reset),
        cmocka_unit_test(hints_are_for_the_run_that_is_open),
        cmocka_unit_test(command_ids_are_never_reserved_ones),
        cmocka_unit_test(the_driver_hears_of_a_new_size),
        cmocka_unit_test(interrupts_come_only_where_they_are_wanted),
        cmocka_unit_test(queues_filled_before_driver_ok_are_served),
        cmocka_unit_test(c21_an_idle_balloon_asks_for_nothing),
        cmocka_unit_test(c04_a_reset_forgets_what_was_begun),
        cmocka_unit_test(e06_what_waits_survives_a_restore),
        cmocka_unit_test(e01_e03_a_crafted_state_is_refused),
    };

    return cmocka_run_group_tests_name("virtio_balloon", tests, NULL, NULL);
}
