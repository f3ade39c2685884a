/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_virtio_blk.h"

#include "test.h"
#include "virtio_driver.h"

#define RAM     (1u << 20)
#define BORDER  0x80000u /* of two regions */
#define HEADER  0x10000u /* and what follows it in the readable part */
#define IN      0x40000u /* the writable part */
#define TABLE   0x60000u /* an indirect table */
#define PIECES  0x70000u /* where the readable part is when it is cut */
#define DISK    (64u * 512)
#define SLOTS   8u
#define QUEUES  3u
#define SIZE    256u
#define PENDING 64
#define LOG     4096

enum { NOW, IN_KICK, LATER }; /* when the backend is done */

/* A backend in memory: exactly as large as it says, so that a sanitizer sees one byte too many. */
struct backend {
    uint8_t *bytes;
    struct tn_disk disk;
    int when, fail;   /* fail: the result of all */
    uint32_t fail_op; /* only of this one; 99: any */
    struct tn_disk_req *pending[PENDING];
    uint32_t waiting, most, kicks, drains, depth, deepest;
    struct {
        uint32_t op, flags;
        uint64_t offset, len;
    } log[LOG];
    uint32_t logged;
    bool late;               /* drain does not */
    void (*hook)(void *rig); /* inside submit */
    void *rig;
};

struct rig {
    uint8_t *ram;
    struct tn_mem_region table[2];
    struct tn_mem mem;
    struct backend be;
    struct tn_virtio_blk_slot slot[SLOTS];
    struct tn_virtio_blk b;
    struct tn_rate rate;
    struct vd d;
    uint64_t now, wake;
    uint32_t wakes, irq[QUEUES], config_irq;
    bool indirect;
};

/* ---- the backend ---- */

static void be_done(struct backend *be, struct tn_disk_req *req)
{
    struct tn_disk_pos pos = {0, 0};
    int result = be->fail_op == 99 || be->fail_op == req->op ? be->fail : TN_OK;

    assert_int_equal(tn_disk_check(&be->disk, req), TN_OK);
    if (result == TN_OK && (req->op == TN_DISK_READ || req->op == TN_DISK_WRITE))
        assert_int_equal(
            tn_disk_copy(req->op, req->iov, req->iovs, &pos, be->bytes + req->offset, req->len),
            req->len);
    if (result == TN_OK && req->op == TN_DISK_ZERO)
        memset(be->bytes + req->offset, 0, req->len);
    be->deepest = ++be->depth > be->deepest ? be->depth : be->deepest;
    req->done(req, result);
    be->depth--;
}

static void be_submit(void *ctx, struct tn_disk_req *req)
{
    struct backend *be = ctx;
    uint64_t sum = 0;

    if (req->op == TN_DISK_READ || req->op == TN_DISK_WRITE) {
        for (uint32_t i = 0; i < req->iovs; i++) {
            assert_true(req->iov[i].len > 0);
            sum += req->iov[i].len;
        }
        assert_int_equal(sum, req->len);
        assert_true(req->len > 0);
    }
    be->log[be->logged % LOG].op = req->op;
    be->log[be->logged % LOG].flags = req->flags;
    be->log[be->logged % LOG].offset = req->offset;
    be->log[be->logged % LOG].len = req->len;
    be->logged++;
    if (be->hook)
        be->hook(be->rig);
    if (be->when == NOW) {
        be_done(be, req);
        return;
    }
    assert_true(be->waiting < PENDING);
    be->pending[be->waiting++] = req;
    be->most = be->waiting > be->most ? be->waiting : be->most;
}

static void be_finish(struct backend *be, uint32_t i)
{
    struct tn_disk_req *req = be->pending[i];

    be->pending[i] = be->pending[--be->waiting];
    be_done(be, req);
}

static void be_kick(void *ctx)
{
    struct backend *be = ctx;

    be->kicks++;
    while (be->when == IN_KICK && be->waiting > 0)
        be_finish(be, 0);
}

static void be_drain(void *ctx)
{
    struct backend *be = ctx;

    be->drains++;
    while (!be->late && be->waiting > 0)
        be_finish(be, be->waiting - 1);
}

static const struct tn_disk_ops be_ops = {be_submit, be_kick, be_drain};

/* ---- the machine around ---- */

static void on_wake(void *ctx, uint64_t ns)
{
    struct rig *r = ctx;

    r->wake = ns;
    r->wakes++;
}

static uint64_t on_now(void *ctx)
{
    return ((struct rig *)ctx)->now;
}

static void on_interrupt(void *ctx, uint32_t queue)
{
    struct rig *r = ctx;

    if (queue == TN_VIRTIO_CONFIG)
        r->config_irq++;
    else
        r->irq[queue]++;
}

static struct tn_virtio_blk_cfg rig_cfg(struct rig *r)
{
    struct tn_virtio_blk_cfg cfg = {
        &r->mem, SIZE, TN_VIRTIO_F_RING, &r->be.disk, "serial-0123", QUEUES, r->slot,
        SLOTS,   r,    on_wake,          NULL,        on_now};

    return cfg;
}

/* A rig, not yet a device. */
static struct rig *rig_new(void)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct tn_disk disk = {&be_ops, NULL, DISK, 512, 4096, 8192, false, true, true};

    if (!r)
        abort();
    r->ram = calloc(1, RAM);
    r->be.bytes = malloc(DISK);
    if (!r->ram || !r->be.bytes)
        abort();
    for (uint32_t i = 0; i < DISK; i++)
        r->be.bytes[i] = (uint8_t)(i / 512 + i % 512 * 7);
    r->be.disk = disk;
    r->be.disk.ctx = &r->be;
    r->be.fail_op = 99;
    r->be.rig = r;
    tn_mem_init(&r->mem, r->table, 2);
    assert_int_equal(tn_mem_add(&r->mem, 0, r->ram, BORDER), 0);
    assert_int_equal(tn_mem_add(&r->mem, BORDER, r->ram + BORDER, RAM - BORDER), 0);
    return r;
}

static void rig_init(struct rig *r, const struct tn_virtio_blk_cfg *cfg)
{
    assert_int_equal(tn_virtio_blk_init(&r->b, cfg), 0);
    tn_virtio_connect(&r->b.virtio, on_interrupt, r);
    vd_init(&r->d, &r->b.virtio, r->ram, 0, 0x1000);
}

static void rig_up(struct rig *r, uint64_t features)
{
    assert_true(vd_up(&r->d, features, r->b.cfg.queues, SIZE));
    assert_true(r->d.end <= HEADER);
    if (r->wakes > 0 && r->wake == 0) {
        r->wakes = 0;
        tn_virtio_blk_wake(&r->b);
    }
}

#define ALL (TN_VIRTIO_F_RING | 0xffffff)

static struct rig *rig_ready(uint64_t features)
{
    struct rig *r = rig_new();
    struct tn_virtio_blk_cfg cfg = rig_cfg(r);

    rig_init(r, &cfg);
    rig_up(r, features);
    return r;
}

static uint32_t slots_free(const struct rig *r)
{
    uint32_t n = 0;

    for (const struct tn_virtio_blk_slot *s = r->b.free; s; s = s->next)
        n++;
    return n;
}

static void rig_free(struct rig *r)
{
    be_drain(&r->be);
    assert_int_equal(slots_free(r), SLOTS); /* C12 */
    vd_free(&r->d);
    free(r->ram);
    free(r->be.bytes);
    free(r);
}

/* ---- requests ---- */

static void header(struct rig *r, uint64_t at, uint32_t type, uint64_t sector)
{
    tn_put_(r->ram + at, 4, type);
    tn_put_(r->ram + at + 4, 4, 0x77777777);
    tn_put_(r->ram + at + 8, 8, sector);
}

static void segment(struct rig *r, uint32_t i, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    uint8_t *p = r->ram + HEADER + 16 + 16 * i;

    tn_put_(p, 8, sector);
    tn_put_(p + 8, 4, sectors);
    tn_put_(p + 12, 4, flags);
}

/*
 * Adds the readable bytes from HEADER on and the writable ones from IN on, cut at any places. The
 * pieces of the former are copied to where none follows another.
 */
static int add_cut(struct rig *r, uint32_t queue, uint32_t out, uint32_t in, const uint32_t *cut,
                   uint32_t cuts)
{
    struct vqd_buf buf[24];
    uint32_t n = 0, at = 0, end = out + in;

    /* Cuts are counted over both parts; the border between them is always one. */
    for (uint32_t i = 0; i <= cuts; i++) {
        uint32_t to = i < cuts ? cut[i] : end;

        while (at < out) {
            uint32_t len = (to < out ? to : out) - at;

            memcpy(r->ram + PIECES + 0x800 * n, r->ram + HEADER + at, len);
            buf[n] = (struct vqd_buf){PIECES + 0x800 * n, len, false};
            n++;
            at += len;
            if (at == to)
                break;
        }
        if (to > out) {
            buf[n++] = (struct vqd_buf){IN + (at - out), to - at, true};
        }
        at = to;
    }
    return vqd_add_table(&r->d.q[queue], buf, n, r->indirect ? TABLE : 0, r->indirect ? n : 0);
}

/* One request of the usual shape; the backend is done at once. Returns the status byte. */
static uint8_t request(struct rig *r, uint32_t type, uint64_t sector, uint32_t out, uint32_t in)
{
    struct vqd_buf buf[4] = {
        {HEADER, 16, false}, {HEADER + 16, out, false}, {IN, in, true}, {IN + in, 1, true}};
    struct vqd_buf use[4];
    uint32_t n = 0, len = 0;
    int id;

    for (uint32_t i = 0; i < 4; i++)
        if (buf[i].len > 0)
            use[n++] = buf[i];
    header(r, HEADER, type, sector);
    r->ram[IN + in] = 0xee;
    r->ram[IN + in + 1] = 0xcc;
    id = vqd_add_table(&r->d.q[0], use, n, r->indirect ? TABLE : 0, r->indirect ? n : 0);
    assert_true(id >= 0);
    vd_kick(&r->d, 0);
    assert_int_equal(vd_reap(&r->d, 0, &len), id);
    assert_int_equal(len, in + 1); /* the status is the last byte of what was written */
    assert_int_equal(r->ram[IN + in + 1], 0xcc);
    assert_int_equal(slots_free(r), SLOTS);
    return r->ram[IN + in];
}

/* A request that the test takes back itself; its header and status are those of number i. */
static int add_io(struct rig *r, uint32_t queue, uint32_t i, uint32_t type, uint64_t sector)
{
    uint32_t at = HEADER + 0x400 * i, in = type == TN_VIRTIO_BLK_T_IN ? 512u : 0u;
    struct vqd_buf buf[3] = {{at, 16, false}, {at + 0x100, 512, in > 0}, {at + 0x300, 1, true}};

    header(r, at, type, sector);
    r->ram[at + 0x300] = 0xee;
    if (type != TN_VIRTIO_BLK_T_IN && type != TN_VIRTIO_BLK_T_OUT) {
        buf[1] = buf[2];
        return vd_add(&r->d, queue, buf, 2);
    }
    return vd_add(&r->d, queue, buf, 3);
}

static uint8_t io_status(const struct rig *r, uint32_t i)
{
    return r->ram[HEADER + 0x400 * i + 0x300];
}

static bool needs_reset(const struct rig *r)
{
    return (tn_virtio_status_read(&r->b.virtio) & TN_VIRTIO_S_NEEDS_RESET) != 0;
}

/* After whatever happened: a reset makes a device that works. */
static void works_after_reset(struct rig *r)
{
    r->be.when = NOW;
    r->be.fail = TN_OK;
    rig_up(r, ALL);
    memset(r->ram + IN, 0, 600);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_IN, 3, 0, 512), TN_VIRTIO_BLK_S_OK);
    assert_memory_equal(r->ram + IN, r->be.bytes + 3 * 512, 512);
}

static const struct {
    uint64_t features;
    bool indirect;
} rings[] = {
    {ALL & ~TN_VIRTIO_F_RING, false},
    {ALL & ~TN_VIRTIO_F_RING_PACKED, false},
    {ALL & ~TN_VIRTIO_F_RING_PACKED, true},
    {ALL & ~TN_VIRTIO_F_EVENT_IDX, false},
    {ALL, true},
};

/* ---- init, configuration ---- */

static void init_refuses(void **state)
{
    struct rig *r = rig_new();
    struct tn_virtio_blk_cfg good = rig_cfg(r), cfg;
    struct tn_disk disk;

    (void)state;
#define BAD(change)                                                   \
    do {                                                              \
        cfg = good;                                                   \
        disk = r->be.disk;                                            \
        cfg.disk = &disk;                                             \
        change;                                                       \
        assert_int_equal(tn_virtio_blk_init(&r->b, &cfg), TN_EINVAL); \
    } while (0)
    BAD(cfg.mem = NULL);
    BAD(cfg.disk = NULL);
    BAD(cfg.slot = NULL);
    BAD(cfg.slots = 0);
    BAD(cfg.wake = NULL);
    BAD((cfg.rate = &r->rate, cfg.now = NULL));
    BAD(cfg.queue_size = 2);
    BAD(cfg.queue_size = 100);
    BAD(cfg.queues = 0);
    BAD(cfg.queues = TN_VIRTIO_MAX_QUEUES + 1);
    BAD(cfg.ring_features = TN_VIRTIO_F_IN_ORDER);
    BAD(disk.ops = NULL);
    BAD(disk.block_size = 0);
    BAD(disk.block_size = 256);
    BAD(disk.block_size = 1536);
    BAD(disk.block_size = 8192);
    BAD(disk.physical_block = 0);
    BAD(disk.physical_block = 256);
    BAD(disk.physical_block = 1536);
    BAD(disk.size = 513);
    BAD((disk.block_size = 4096, disk.size = 512 * 9));
    assert_int_equal(tn_virtio_blk_init(&r->b, &good), 0);
    rig_free(r);
}

static uint32_t config(struct rig *r, uint32_t off, unsigned width)
{
    return tn_virtio_config_read(&r->b.virtio, off, width);
}

static void configuration_space(void **state)
{
    struct rig *r = rig_new();
    struct tn_virtio_blk_cfg cfg = rig_cfg(r);

    (void)state;
    rig_init(r, &cfg);
    assert_int_equal(r->b.virtio.cfg.device_id, 2);
    assert_int_equal(r->b.virtio.cfg.features, TN_VIRTIO_F_VERSION_1 | TN_VIRTIO_F_RING | 1u << 1 |
                                                   1u << 2 | 1u << 6 | 1u << 9 | 1u << 10 |
                                                   1u << 11 | 1u << 12 | 1u << 13 | 1u << 14);
    assert_int_equal(config(r, 0, 4), 64);
    assert_int_equal(config(r, 4, 4), 0);
    assert_int_equal(config(r, 8, 4), 1u << 22);
    assert_int_equal(config(r, 12, 4), 126);
    assert_int_equal(config(r, 16, 4), 0);
    assert_int_equal(config(r, 20, 4), 512);
    assert_int_equal(config(r, 24, 1), 3);
    assert_int_equal(config(r, 26, 2), 8);
    assert_int_equal(config(r, 28, 4), 16);
    assert_int_equal(config(r, 32, 1), 1);
    assert_int_equal(config(r, 34, 2), 3);
    assert_int_equal(config(r, 36, 4), 1u << 16);
    assert_int_equal(config(r, 40, 4), 8);
    assert_int_equal(config(r, 44, 4), 1);
    assert_int_equal(config(r, 48, 4), 1u << 16);
    assert_int_equal(config(r, 52, 4), 8);
    assert_int_equal(config(r, 56, 1), 1);
    assert_int_equal(config(r, 57, 4), 0);
    cfg.queue_size = 16;
    cfg.queues = 1;
    cfg.ring_features = 0;
    r->be.disk.read_only = true;
    r->be.disk.discard = r->be.disk.zero = false;
    r->be.disk.block_size = 4096;
    rig_init(r, &cfg);
    assert_int_equal(r->b.virtio.cfg.features, TN_VIRTIO_F_VERSION_1 | 1u << 1 | 1u << 2 | 1u << 5 |
                                                   1u << 6 | 1u << 9 | 1u << 10);
    assert_int_equal(config(r, 12, 4), 14);
    assert_int_equal(config(r, 20, 4), 4096);
    assert_int_equal(config(r, 24, 1), 0);
    assert_int_equal(config(r, 28, 4), 2);
    assert_int_equal(config(r, 36, 4), 0);
    assert_int_equal(config(r, 48, 4), 0);
    rig_free(r);
}

/* ---- the shape of requests ---- */

static void headers_cut_anywhere(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(rings); k++) {
        struct rig *r = rig_ready(rings[k].features);

        r->indirect = rings[k].indirect;
        for (uint32_t a = 1; a <= 16; a++) {
            for (uint32_t b = a; b <= 17; b++) {
                uint32_t cut[2] = {a, b}, len, sector = (a * 17 + b) % 64;
                uint32_t cuts = b > a ? 2 : 1;

                header(r, HEADER, TN_VIRTIO_BLK_T_OUT, sector);
                for (uint32_t i = 0; i < 512; i++)
                    r->ram[HEADER + 16 + i] = (uint8_t)(a * b + i);
                r->ram[IN] = 0xee;
                assert_true(add_cut(r, 0, 528, 1, cut, cuts) >= 0);
                vd_kick(&r->d, 0);
                assert_true(vd_reap(&r->d, 0, &len) >= 0);
                assert_int_equal(len, 1);
                assert_int_equal(r->ram[IN], 0);
                assert_memory_equal(r->be.bytes + 512 * sector, r->ram + HEADER + 16, 512);

                header(r, HEADER, TN_VIRTIO_BLK_T_IN, sector);
                memset(r->ram + IN, 0xee, 514);
                assert_true(add_cut(r, 0, 16, 513, cut, b < 17 && cuts == 2 ? 2 : 1) >= 0);
                vd_kick(&r->d, 0);
                assert_true(vd_reap(&r->d, 0, &len) >= 0);
                assert_int_equal(len, 513);
                assert_memory_equal(r->be.bytes + 512 * sector, r->ram + IN, 512);
                assert_int_equal(r->ram[IN + 512], 0);
                assert_int_equal(r->ram[IN + 513], 0xee);
            }
        }
        rig_free(r);
    }
}

/* The status is the last byte of the writable part, wherever the descriptors are cut. */
static void status_anywhere(void **state)
{
    static const uint32_t at[] = {1, 7, 511, 512, 513, 1023, 1024, 1025};

    (void)state;
    for (size_t k = 0; k < COUNT(rings); k++) {
        struct rig *r = rig_ready(rings[k].features);

        r->indirect = rings[k].indirect;
        for (size_t i = 0; i < COUNT(at); i++) {
            for (size_t j = i; j < COUNT(at); j++) {
                uint32_t cut[2] = {16 + at[i], 16 + at[j]}, len;
                uint32_t cuts = j > i && at[j] < 1025 ? 2 : at[i] < 1025 ? 1 : 0;

                header(r, HEADER, TN_VIRTIO_BLK_T_IN, i + j);
                memset(r->ram + IN, 0xee, 1026);
                assert_true(add_cut(r, 1, 16, 1025, cut, cuts) >= 0);
                vd_kick(&r->d, 1);
                assert_true(vd_reap(&r->d, 1, &len) >= 0);
                assert_int_equal(len, 1025);
                assert_memory_equal(r->be.bytes + 512 * (i + j), r->ram + IN, 1024);
                assert_int_equal(r->ram[IN + 1024], 0);
                assert_int_equal(r->ram[IN + 1025], 0xee);
            }
        }
        rig_free(r);
    }
}

static void empty_descriptors_and_borders(void **state)
{
    struct rig *r = rig_ready(ALL & ~TN_VIRTIO_F_RING_PACKED);
    struct vqd_buf buf[8] = {
        {HEADER, 0, false}, {BORDER - 7, 16, false}, {HEADER, 0, false}, {BORDER + 9, 1024, false},
        {HEADER, 0, true},  {IN, 0, true},           {IN, 1, true},      {IN, 0, true}};
    uint32_t len;

    (void)state;
    header(r, BORDER - 7, TN_VIRTIO_BLK_T_OUT, 5);
    memset(r->ram + BORDER + 9, 0x3c, 1024);
    r->ram[IN] = 0xee;
    assert_true(vd_request(&r->d, 0, buf, 8, &len));
    assert_int_equal(len, 1);
    assert_int_equal(r->ram[IN], 0);
    assert_memory_equal(r->be.bytes + 5 * 512, r->ram + BORDER + 9, 1024);
    /* Data over a border, the status alone behind it. */
    buf[0] = (struct vqd_buf){HEADER, 16, false};
    buf[1] = (struct vqd_buf){BORDER - 512, 513, true};
    header(r, HEADER, TN_VIRTIO_BLK_T_IN, 9);
    r->ram[BORDER] = 0xee;
    assert_true(vd_request(&r->d, 0, buf, 2, &len));
    assert_int_equal(len, 513);
    assert_memory_equal(r->be.bytes + 9 * 512, r->ram + BORDER - 512, 512);
    assert_int_equal(r->ram[BORDER], 0);
    /* No data at all is nothing to do. */
    len = r->be.logged;
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_IN, 64, 0, 0), TN_VIRTIO_BLK_S_OK);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_OUT, 0, 0, 0), TN_VIRTIO_BLK_S_OK);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_IN, 65, 0, 0), TN_VIRTIO_BLK_S_IOERR);
    assert_int_equal(r->be.logged, len);
    rig_free(r);
}

/* What leaves no way to answer, and what is longer than the driver was told. */
static void c34_broken_requests_need_a_reset(void **state)
{
    (void)state;
    for (uint32_t kind = 0; kind < 21; kind++) {
        struct rig *r = rig_ready(ALL & ~TN_VIRTIO_F_RING_PACKED);
        struct vqd_buf buf[200] = {{HEADER, 16, false}, {IN, 513, true}, {HEADER, 16, false}};
        uint32_t n = 2, len;

        header(r, HEADER, TN_VIRTIO_BLK_T_IN, 0);
        memset(r->ram + IN, 0xee, 600);
        if (kind < 16) {
            buf[0].len = kind;
        } else if (kind == 16) {
            n = 1; /* no status */
        } else if (kind == 17) {
            buf[1].len = 0;
        } else if (kind == 18) {
            n = 3; /* A32 */
        } else if (kind == 19) {
            buf[1].addr = RAM; /* nowhere */
        } else {
            for (n = 1; n < TN_VIRTIO_BLK_IOVS + 1; n++)
                buf[n] = (struct vqd_buf){IN + 2 * n, 1, true};
        }
        assert_true(vd_add(&r->d, 0, buf, n) >= 0);
        vd_kick(&r->d, 0);
        assert_true(needs_reset(r));
        assert_int_equal(r->config_irq, 1);
        assert_int_equal(vd_reap(&r->d, 0, &len), -1);
        assert_int_equal(r->ram[IN + 512], 0xee);
        assert_int_equal(r->be.logged, 0);
        assert_int_equal(slots_free(r), SLOTS);
        works_after_reset(r);
        rig_free(r);
    }
}

/* As many segments as the driver was told, and a byte each. */
static void longest_request(void **state)
{
    struct rig *r = rig_ready(ALL);
    struct vqd_buf buf[TN_VIRTIO_BLK_SEGS + 2];
    uint32_t len;

    (void)state;
    buf[0] = (struct vqd_buf){HEADER, 16, false};
    for (uint32_t i = 0; i < 126; i++)
        buf[1 + i] = (struct vqd_buf){IN + 256 * i, i == 125 ? 512 - 125 : 1, true};
    buf[127] = (struct vqd_buf){IN + 0x10000, 1, true};
    header(r, HEADER, TN_VIRTIO_BLK_T_IN, 2);
    assert_true(vd_request(&r->d, 0, buf, 128, &len));
    assert_int_equal(len, 513);
    for (uint32_t i = 0; i < 125; i++)
        assert_int_equal(r->ram[IN + 256 * i], r->be.bytes[2 * 512 + i]);
    rig_free(r);
}

/* ---- what a request asks for ---- */

static void c01_length_no_multiple_of_512(void **state)
{
    static const uint32_t bad[] = {1, 2, 15, 20, 511, 513, 1000, 1023, 1025, 4095};

    (void)state;
    for (size_t k = 0; k < COUNT(rings); k++) {
        struct rig *r = rig_ready(rings[k].features);

        r->indirect = rings[k].indirect;
        for (size_t i = 0; i < COUNT(bad); i++) {
            memset(r->ram + IN, 0xee, bad[i]);
            assert_int_equal(request(r, TN_VIRTIO_BLK_T_IN, 0, 0, bad[i]), TN_VIRTIO_BLK_S_IOERR);
            for (uint32_t j = 0; j < bad[i]; j++)
                assert_int_equal(r->ram[IN + j], 0); /* what counts as written is written */
            assert_int_equal(request(r, TN_VIRTIO_BLK_T_OUT, 0, bad[i], 0), TN_VIRTIO_BLK_S_IOERR);
        }
        assert_int_equal(r->be.logged, 0);
        assert_int_equal(r->b.errors, 2 * COUNT(bad));
        rig_free(r);
    }
}

static void c02_ranges_outside_the_disk(void **state)
{
    static const struct {
        uint64_t sector;
        uint32_t len;
        bool good;
    } t[] = {
        {0, 512, true},
        {63, 512, true},
        {62, 1024, true},
        {64, 512, false},
        {63, 1024, false},
        {65, 512, false},
        {1ull << 32, 512, false},
        {UINT64_MAX, 512, false},
        {UINT64_MAX - 1, 1024, false},
        {1ull << 55, 512, false}, /* 512 times it is 0 */
        {(1ull << 55) - 1, 512, false},
        {(1ull << 55) + 1, 512, false},
        {1ull << 63, 512, false},
        {UINT64_MAX / 512, 512, false},
        {UINT64_MAX / 512 + 1, 1024, false},
    };
    struct rig *r = rig_ready(ALL);

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++) {
        uint32_t want = t[i].good ? TN_VIRTIO_BLK_S_OK : TN_VIRTIO_BLK_S_IOERR;

        assert_int_equal(request(r, TN_VIRTIO_BLK_T_IN, t[i].sector, 0, t[i].len), want);
        assert_int_equal(request(r, TN_VIRTIO_BLK_T_OUT, t[i].sector, t[i].len, 0), want);
    }
    assert_int_equal(r->be.logged, 6);
    rig_free(r);
}

static void c02_segments(void **state)
{
    static const struct {
        uint64_t sector;
        uint32_t sectors, flags;
        uint8_t discard, zero; /* status */
    } t[] = {
        {0, 64, 0, 0, 0},
        {63, 1, 0, 0, 0},
        {64, 0, 0, 0, 0},
        {0, 1, 1, 2, 0},
        {0, 1, 2, 2, 2},
        {0, 1, 3, 2, 2},
        {0, 1, 0x80000000, 2, 2},
        {0, 1, 0xffffffff, 2, 2},
        {64, 1, 0, 1, 1},
        {65, 0, 0, 1, 1},
        {1, 64, 0, 1, 1},
        {0, 65, 0, 1, 1},
        {0, 0xffffffff, 0, 1, 1},
        {1, 0xffffffff, 0, 1, 1},
        {UINT64_MAX, 1, 0, 1, 1},
        {UINT64_MAX, 2, 0, 1, 1},
        {1ull << 55, 1, 0, 1, 1},
        {1ull << 55, 0x800000, 0, 1, 1},
        {(1ull << 55) - 1, 2, 0, 1, 1},
    };
    static const uint32_t lens[] = {0, 1, 15, 17, 31, 16 * 8 + 1, 16 * 9, 16 * 100};
    struct rig *r = rig_ready(ALL);
    uint32_t logged;

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++) {
        segment(r, 0, t[i].sector, t[i].sectors, t[i].flags);
        assert_int_equal(request(r, TN_VIRTIO_BLK_T_DISCARD, 0, 16, 0), t[i].discard);
        assert_int_equal(request(r, TN_VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, 0), t[i].zero);
        /* As the last of three: the good ones are not begun either. */
        logged = r->be.logged;
        segment(r, 0, 1, 1, 0);
        segment(r, 1, 2, 1, 0);
        segment(r, 2, t[i].sector, t[i].sectors, t[i].flags);
        assert_int_equal(request(r, TN_VIRTIO_BLK_T_DISCARD, 0, 48, 0), t[i].discard);
        if (t[i].discard != 0)
            assert_int_equal(r->be.logged, logged);
    }
    memset(r->ram + HEADER + 16, 0, 2000);
    for (size_t i = 0; i < COUNT(lens); i++) {
        assert_int_equal(request(r, TN_VIRTIO_BLK_T_DISCARD, 0, lens[i], 0), 1);
        assert_int_equal(request(r, TN_VIRTIO_BLK_T_WRITE_ZEROES, 0, lens[i], 0), 1);
    }
    rig_free(r);
    /* More sectors than the driver was told, on a disk that has them. */
    r = rig_new();
    r->be.disk.size = 1ull << 40;
    {
        struct tn_virtio_blk_cfg cfg = rig_cfg(r);

        rig_init(r, &cfg);
    }
    rig_up(r, ALL);
    segment(r, 0, 5, 1u << 16, 0);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_DISCARD, 0, 16, 0), 0);
    segment(r, 0, 5, (1u << 16) + 1, 0);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_DISCARD, 0, 16, 0), 1);
    assert_int_equal(r->be.logged, 1);
    rig_free(r);
}

static void segments_one_after_the_other(void **state)
{
    (void)state;
    for (int when = NOW; when <= IN_KICK; when++) {
        struct rig *r = rig_ready(ALL);

        r->be.when = when;
        for (uint32_t i = 0; i < 8; i++)
            segment(r, i, 7 * i, i + 1, i % 2);
        assert_int_equal(request(r, TN_VIRTIO_BLK_T_WRITE_ZEROES, 99, 128, 0), 0);
        assert_int_equal(r->be.logged, 8);
        assert_int_equal(r->be.deepest, 1); /* done inside submit does not nest */
        assert_true(r->be.most <= 1);
        for (uint32_t i = 0; i < 8; i++) {
            assert_int_equal(r->be.log[i].op, TN_DISK_ZERO);
            assert_int_equal(r->be.log[i].offset, 7 * 512 * i);
            assert_int_equal(r->be.log[i].len, 512 * (i + 1));
            assert_int_equal(r->be.log[i].flags, i % 2 ? TN_DISK_F_UNMAP : 0);
        }
        for (uint32_t i = 0; i < 512; i++)
            assert_int_equal(r->be.bytes[7 * 512 + i], 0);
        rig_free(r);
    }
    /* The first that fails is the last. */
    {
        struct rig *r = rig_ready(ALL);

        r->be.fail = TN_ESYS;
        for (uint32_t i = 0; i < 8; i++)
            segment(r, i, i, 1, 0);
        assert_int_equal(request(r, TN_VIRTIO_BLK_T_DISCARD, 0, 128, 0), 1);
        assert_int_equal(r->be.logged, 1);
        r->be.fail = TN_EUNSUP;
        assert_int_equal(request(r, TN_VIRTIO_BLK_T_DISCARD, 0, 128, 0), 2);
        rig_free(r);
    }
}

static void c03_other_types(void **state)
{
    static const uint32_t big[] = {0x80000000, 0x80000002, 0x100,
                                   0xffffffff, 0x10000000, 0x1000001};
    struct rig *r = rig_ready(ALL);

    (void)state;
    for (uint32_t type = 0; type < 64 + COUNT(big); type++) {
        uint32_t t = type < 64 ? type : big[type - 64];

        if (t == 0 || t == 1 || t == 4 || t == 8 || t == 11 || t == 13)
            continue;
        memset(r->ram + IN, 0xee, 600);
        assert_int_equal(request(r, t, 0, 512, 512), TN_VIRTIO_BLK_S_UNSUPP);
        for (uint32_t i = 0; i < 512; i++)
            assert_int_equal(r->ram[IN + i], 0);
    }
    assert_int_equal(r->be.logged, 0);
    rig_free(r);
}

static void not_negotiated(void **state)
{
    struct rig *r = rig_ready(0);

    (void)state;
    segment(r, 0, 0, 1, 0);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_DISCARD, 0, 16, 0), TN_VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, 0), TN_VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(r->be.logged, 0);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_FLUSH, 0, 0, 0), TN_VIRTIO_BLK_S_OK);
    assert_int_equal(r->be.log[0].op, TN_DISK_FLUSH);
    rig_free(r);
}

static void read_only(void **state)
{
    struct rig *r = rig_new();
    struct tn_virtio_blk_cfg cfg = rig_cfg(r);

    (void)state;
    r->be.disk.read_only = true;
    rig_init(r, &cfg);
    rig_up(r, ALL);
    assert_int_equal(r->d.features & TN_VIRTIO_BLK_F_RO, TN_VIRTIO_BLK_F_RO);
    segment(r, 0, 0, 1, 0);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_OUT, 0, 512, 0), TN_VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_DISCARD, 0, 16, 0), TN_VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, 0), TN_VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(r->be.logged, 0);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_IN, 1, 0, 512), TN_VIRTIO_BLK_S_OK);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_FLUSH, 0, 0, 0), TN_VIRTIO_BLK_S_OK);
    rig_free(r);
}

static void get_id(void **state)
{
    static const char *ids[] = {NULL, "", "a", "0123456789abcdefghij", "0123456789abcdefghijKLM"};
    static const uint32_t lens[] = {0, 1, 19, 20, 21, 512};

    (void)state;
    for (size_t i = 0; i < COUNT(ids); i++) {
        struct rig *r = rig_new();
        struct tn_virtio_blk_cfg cfg = rig_cfg(r);
        uint8_t want[512] = {0};

        cfg.id = ids[i];
        rig_init(r, &cfg);
        rig_up(r, ALL);
        if (ids[i])
            memcpy(want, ids[i], strlen(ids[i]) < 20 ? strlen(ids[i]) : 20);
        for (size_t k = 0; k < COUNT(lens); k++) {
            memset(r->ram + IN, 0xee, 600);
            assert_int_equal(request(r, TN_VIRTIO_BLK_T_GET_ID, 0, 0, lens[k]), 0);
            assert_memory_equal(r->ram + IN, want, lens[k]);
        }
        assert_int_equal(r->be.logged, 0);
        rig_free(r);
    }
}

static void larger_blocks(void **state)
{
    struct rig *r = rig_new();
    struct tn_virtio_blk_cfg cfg = rig_cfg(r);

    (void)state;
    r->be.disk.block_size = 4096;
    rig_init(r, &cfg);
    rig_up(r, ALL);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_IN, 0, 0, 512), TN_VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_IN, 1, 0, 4096), TN_VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_IN, 8, 0, 4096), TN_VIRTIO_BLK_S_OK);
    segment(r, 0, 8, 9, 0);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_DISCARD, 0, 16, 0), TN_VIRTIO_BLK_S_IOERR);
    assert_int_equal(r->be.logged, 1);
    rig_free(r);
}

static void failing_backend(void **state)
{
    static const struct {
        int result;
        uint8_t status;
    } t[] = {{TN_ESYS, 1}, {TN_ENOSPC, 1}, {TN_EUNSUP, 2}, {1, 1}, {-1000, 1}};
    struct rig *r = rig_ready(ALL);

    (void)state;
    segment(r, 0, 0, 1, 0);
    for (size_t i = 0; i < COUNT(t); i++) {
        r->be.fail = t[i].result;
        memset(r->ram + IN, 0xee, 1024);
        assert_int_equal(request(r, TN_VIRTIO_BLK_T_IN, 0, 0, 1024), t[i].status);
        for (uint32_t k = 0; k < 1024; k++)
            assert_int_equal(r->ram[IN + k], 0);
        assert_int_equal(request(r, TN_VIRTIO_BLK_T_OUT, 0, 512, 0), t[i].status);
        assert_int_equal(request(r, TN_VIRTIO_BLK_T_FLUSH, 0, 0, 0), t[i].status);
        assert_int_equal(request(r, TN_VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, 0), t[i].status);
    }
    assert_int_equal(r->b.errors, 4 * COUNT(t));
    rig_free(r);
}

/* Room to write where nothing is to be written is zeroed, since it counts as used. */
static void room_for_no_data(void **state)
{
    struct rig *r = rig_ready(ALL);

    (void)state;
    memset(r->ram + IN, 0xee, 600);
    memset(r->ram + HEADER + 16, 0x5a, 512);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_OUT, 4, 512, 300), TN_VIRTIO_BLK_S_OK);
    for (uint32_t i = 0; i < 300; i++)
        assert_int_equal(r->ram[IN + i], 0);
    assert_memory_equal(r->be.bytes + 4 * 512, r->ram + HEADER + 16, 512);
    /* And readable bytes behind a header that needs none are passed over. */
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_IN, 4, 77, 512), TN_VIRTIO_BLK_S_OK);
    assert_memory_equal(r->be.bytes + 4 * 512, r->ram + IN, 512);
    rig_free(r);
}

static void change_header(void *ctx)
{
    struct rig *r = ctx;

    header(r, HEADER, TN_VIRTIO_BLK_T_OUT, UINT64_MAX);
    segment(r, 0, UINT64_MAX, 1, 9);
    segment(r, 1, UINT64_MAX, 1, 9);
}

/* A header and segments that change while the request is under way change nothing. */
static void header_is_read_once(void **state)
{
    struct rig *r = rig_ready(ALL);
    struct vqd_buf over[2] = {{IN, 16, false}, {IN, 513, true}};
    uint32_t len;

    (void)state;
    r->be.hook = change_header;
    r->be.when = IN_KICK;
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_IN, 6, 0, 512), 0);
    assert_memory_equal(r->be.bytes + 6 * 512, r->ram + IN, 512);
    segment(r, 0, 1, 1, 0);
    segment(r, 1, 2, 1, 0);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_WRITE_ZEROES, 0, 32, 0), 0);
    assert_int_equal(r->be.log[2].offset, 1024);
    /* The data over its own header. */
    r->be.hook = NULL;
    header(r, IN, TN_VIRTIO_BLK_T_IN, 8);
    assert_true(vd_request(&r->d, 0, over, 2, &len));
    assert_memory_equal(r->be.bytes + 8 * 512, r->ram + IN, 512);
    rig_free(r);
}

/* ---- the write cache ---- */

static uint32_t flags_of(struct rig *r, uint32_t type)
{
    bool data = type == TN_VIRTIO_BLK_T_OUT;

    segment(r, 0, 1, 1, 0);
    assert_int_equal(request(r, type, 1,
                             data        ? 512
                             : type < 11 ? 0
                                         : 16,
                             type == TN_VIRTIO_BLK_T_IN ? 512 : 0),
                     0);
    return r->be.log[(r->be.logged - 1) % LOG].flags;
}

static void writeback(void **state)
{
    static const struct {
        uint64_t without;
        int set; /* what the driver writes; -1: nothing */
        uint8_t reads;
        bool cached;
    } t[] = {
        {0, -1, 1, true},
        {0, 0, 0, false},
        {0, 1, 1, true},
        {TN_VIRTIO_BLK_F_CONFIG_WCE, -1, 1, true},
        {TN_VIRTIO_BLK_F_CONFIG_WCE, 0, 1, true}, /* it did not negotiate that */
        {TN_VIRTIO_BLK_F_FLUSH, -1, 0, false},
        {TN_VIRTIO_BLK_F_FLUSH, 1, 1, false},
        {TN_VIRTIO_BLK_F_FLUSH | TN_VIRTIO_BLK_F_CONFIG_WCE, -1, 0, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++) {
        struct rig *r = rig_ready(ALL & ~t[i].without);
        uint32_t want = t[i].cached ? 0 : TN_DISK_F_FUA;

        if (t[i].set >= 0)
            tn_virtio_config_write(&r->b.virtio, 32, 1, (uint32_t)t[i].set);
        assert_int_equal(config(r, 32, 1), t[i].reads);
        assert_int_equal(flags_of(r, TN_VIRTIO_BLK_T_OUT), want);
        assert_int_equal(flags_of(r, TN_VIRTIO_BLK_T_DISCARD), want);
        assert_int_equal(flags_of(r, TN_VIRTIO_BLK_T_WRITE_ZEROES), want);
        assert_int_equal(flags_of(r, TN_VIRTIO_BLK_T_IN), 0);
        assert_int_equal(flags_of(r, TN_VIRTIO_BLK_T_FLUSH), 0);
        vd_reset(&r->d);
        assert_int_equal(config(r, 32, 1), 1);
        rig_free(r);
    }
}

static void configuration_writes(void **state)
{
    struct rig *r = rig_ready(ALL);
    uint8_t before[TN_VIRTIO_BLK_CONFIG];

    (void)state;
    memcpy(before, r->b.config, sizeof(before));
    for (uint32_t off = 0; off < 70; off++) {
        for (unsigned width = 1; width <= 4; width *= 2) {
            if (off != 32 || width != 1)
                tn_virtio_config_write(&r->b.virtio, off, width, 0);
        }
    }
    tn_virtio_config_write(&r->b.virtio, 32, 1, 2);
    tn_virtio_config_write(&r->b.virtio, 32, 1, 255);
    assert_memory_equal(before, r->b.config, sizeof(before));
    tn_virtio_config_write(&r->b.virtio, 32, 1, 0);
    assert_int_equal(r->b.config[32], 0);
    rig_free(r);
}

/* ---- many at once ---- */

static void any_order(void **state)
{
    uint64_t seed = 1;

    (void)state;
    for (size_t k = 0; k < COUNT(rings); k++) {
        struct rig *r = rig_ready(rings[k].features);
        int id[40];
        uint32_t done = 0, len;

        r->be.when = LATER;
        for (uint32_t round = 0; round < 20; round++) {
            for (uint32_t i = 0; i < 40; i++) {
                uint32_t type = i % 2 ? TN_VIRTIO_BLK_T_OUT : TN_VIRTIO_BLK_T_IN;

                memset(r->ram + HEADER + 0x400 * i + 0x100, (int)(round * 40 + i), 512);
                id[i] = add_io(r, i % QUEUES, i, type, i);
                assert_true(id[i] >= 0);
            }
            for (uint32_t q = 0; q < QUEUES; q++)
                vd_kick(&r->d, q);
            assert_int_equal(r->be.waiting, SLOTS);
            while (r->be.waiting > 0)
                be_finish(&r->be, (uint32_t)(test_random(&seed) % r->be.waiting));
            for (uint32_t q = 0; q < QUEUES; q++) {
                while (vd_reap(&r->d, q, &len) >= 0)
                    done++;
            }
            assert_int_equal(done, 40 * (round + 1));
            for (uint32_t i = 0; i < 40; i++) {
                assert_int_equal(io_status(r, i), 0);
                assert_memory_equal(r->ram + HEADER + 0x400 * i + 0x100, r->be.bytes + 512 * i,
                                    512);
                if (i % 2)
                    assert_int_equal(r->be.bytes[512 * i + 5], (uint8_t)(round * 40 + i));
            }
            assert_int_equal(slots_free(r), SLOTS);
        }
        assert_int_equal(r->be.most, SLOTS); /* A11 */
        rig_free(r);
    }
}

/* With few slots every queue has its turn, whichever was full first. */
static void slots_go_round(void **state)
{
    struct rig *r = rig_ready(ALL);
    uint32_t len;

    (void)state;
    r->be.when = LATER;
    for (uint32_t i = 0; i < 64; i++)
        assert_true(add_io(r, 0, i, TN_VIRTIO_BLK_T_IN, 0) >= 0);
    vd_kick(&r->d, 0);
    for (uint32_t i = 64; i < 68; i++)
        assert_true(add_io(r, 2, i, TN_VIRTIO_BLK_T_IN, 1) >= 0);
    vd_kick(&r->d, 2);
    assert_int_equal(r->be.logged, SLOTS);
    for (uint32_t i = 0; i < 4 * QUEUES; i++)
        be_finish(&r->be, 0);
    len = 0;
    for (uint32_t i = 0; i < r->be.logged; i++)
        len += r->be.log[i].offset == 512;
    assert_int_equal(len, 4);
    while (r->be.waiting > 0)
        be_finish(&r->be, 0);
    while (vd_reap(&r->d, 0, &len) >= 0)
        ;
    for (uint32_t i = 0; i < 68; i++)
        assert_int_equal(io_status(r, i), 0);
    rig_free(r);
}

static void one_kick_and_one_interrupt(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(rings); k++) {
        for (int when = NOW; when <= LATER; when++) {
            struct rig *r = rig_ready(rings[k].features);
            uint32_t len;

            r->be.when = when;
            for (uint32_t i = 0; i < SLOTS; i++)
                assert_true(add_io(r, 1, i, TN_VIRTIO_BLK_T_OUT, i) >= 0);
            memset(r->irq, 0, sizeof(r->irq));
            r->be.kicks = 0;
            vd_kick(&r->d, 1);
            assert_int_equal(r->be.kicks, 1);
            if (when == LATER) {
                tn_virtio_blk_hold(&r->b);
                tn_virtio_blk_hold(&r->b);
                while (r->be.waiting > 0)
                    be_finish(&r->be, 0);
                assert_int_equal(vd_reap(&r->d, 1, &len), -1);
                tn_virtio_blk_release(&r->b);
                assert_int_equal(vd_reap(&r->d, 1, &len), -1);
                tn_virtio_blk_release(&r->b);
            }
            assert_int_equal(r->irq[1], 1);
            assert_int_equal(r->irq[0] + r->irq[2], 0);
            for (uint32_t i = 0; i < SLOTS; i++)
                assert_true(vd_reap(&r->d, 1, &len) >= 0);
            assert_true(vqd_must_kick(&r->d.q[1]) || r->d.q[1].event_idx);
            assert_int_equal(r->be.kicks, 1);
            rig_free(r);
        }
    }
}

/* Notifications are off only while the device looks anyway. */
static void notifications(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(rings); k++) {
        struct rig *r = rig_ready(rings[k].features);
        uint32_t len;

        for (uint32_t i = 0; i < 700; i++) {
            assert_true(add_io(r, 0, 0, TN_VIRTIO_BLK_T_OUT, 0) >= 0);
            assert_true(vqd_must_kick(&r->d.q[0]));
            vd_kick(&r->d, 0);
            assert_true(vd_reap(&r->d, 0, &len) >= 0);
        }
        rig_free(r);
    }
}

/* A driver need not use all queues. */
static void some_queues(void **state)
{
    struct rig *r = rig_new();
    struct tn_virtio_blk_cfg cfg = rig_cfg(r);
    uint32_t len;

    (void)state;
    rig_init(r, &cfg);
    assert_true(vd_up(&r->d, ALL, 1, SIZE));
    assert_int_equal(r->wakes, 1);
    assert_true(add_io(r, 0, 0, TN_VIRTIO_BLK_T_IN, 0) >= 0);
    tn_virtio_blk_wake(&r->b); /* what came before DRIVER_OK needs no notification */
    assert_int_equal(io_status(r, 0), 0);
    assert_int_equal(r->b.work, 0);
    assert_int_equal(r->wakes, 1);
    assert_true(vd_reap(&r->d, 0, &len) >= 0);
    vd_kick(&r->d, 2);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_IN, 1, 0, 512), 0);
    rig_free(r);
}

/* A driver that adds a request each time one is begun. */
static void add_more(void *ctx)
{
    struct rig *r = ctx;
    uint32_t len;

    while (vd_reap(&r->d, 0, &len) >= 0)
        ;
    (void)add_io(r, 0, 0, TN_VIRTIO_BLK_T_OUT, 0);
}

static void c14_a_turn_ends(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(rings); k++) {
        for (int when = NOW; when <= IN_KICK; when++) {
            struct rig *r = rig_ready(rings[k].features);
            uint32_t was;

            r->be.when = when;
            r->be.hook = add_more;
            for (uint32_t i = 0; i < SLOTS; i++)
                assert_true(add_io(r, 0, 0, TN_VIRTIO_BLK_T_OUT, 0) >= 0);
            assert_true(add_io(r, 1, 1, TN_VIRTIO_BLK_T_IN, 0) >= 0);
            r->wakes = 0;
            vd_kick(&r->d, 0);
            /* 528 bytes and one more of the status, less a header and a status: 512 each */
            assert_in_range(r->be.logged, 800, TN_VIRTIO_BLK_TURN / (4096 + 512) + 1);
            assert_int_equal(r->wakes, 1);
            assert_int_equal(r->wake, 0);
            vd_kick(&r->d, 1);
            assert_int_equal(io_status(r, 1), 0);
            was = r->be.logged;
            r->be.hook = NULL;
            r->wakes = 0;
            tn_virtio_blk_wake(&r->b); /* nothing is forgotten */
            assert_in_range(r->be.logged, was, was + 2 * SLOTS);
            assert_int_equal(r->wakes, 0);
            assert_int_equal(r->b.work, 0);
            rig_free(r);
        }
    }
}

/* ---- the rate ---- */

static void rate(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(rings); k++) {
        struct rig *r = rig_new();
        struct tn_virtio_blk_cfg cfg = rig_cfg(r);
        struct tn_rate_cfg limit = {0, 0, 1000, 4};
        uint32_t len;

        assert_int_equal(tn_rate_init(&r->rate, &limit, 0), 0);
        cfg.rate = &r->rate;
        rig_init(r, &cfg);
        rig_up(r, rings[k].features);
        for (uint32_t i = 0; i < 10; i++)
            assert_true(add_io(r, i % 2, i, TN_VIRTIO_BLK_T_IN, i) >= 0);
        r->wakes = 0;
        vd_kick(&r->d, 0);
        assert_int_equal(r->be.logged, 4);
        assert_int_equal(r->wakes, 1);
        assert_int_equal(r->wake, 1000000);
        vd_kick(&r->d, 1); /* it waits, too, and asks for nothing */
        vd_kick(&r->d, 0);
        assert_int_equal(r->be.logged, 4);
        assert_int_equal(r->wakes, 1);
        tn_virtio_blk_wake(&r->b); /* too early */
        assert_int_equal(r->be.logged, 4);
        assert_int_equal(r->wakes, 2);
        for (uint32_t i = 5; i <= 10; i++) {
            r->now += 1000000;
            tn_virtio_blk_wake(&r->b);
            assert_int_equal(r->be.logged, i);
        }
        for (uint32_t i = 0; i < 10; i++) {
            assert_int_equal(io_status(r, i), 0);
            assert_true(vd_reap(&r->d, i % 2, &len) >= 0);
        }
        assert_int_equal(r->b.work, 0);
        /* A reset forgets the wait. */
        assert_true(add_io(r, 0, 0, TN_VIRTIO_BLK_T_IN, 0) >= 0);
        vd_kick(&r->d, 0);
        assert_true(r->b.limited);
        vd_reset(&r->d);
        assert_false(r->b.limited);
        r->now += 10000000;
        works_after_reset(r);
        rig_free(r);
    }
}

/* The bytes of a request are what its descriptors hold without header and status. */
static void rate_of_bytes(void **state)
{
    struct rig *r = rig_new();
    struct tn_virtio_blk_cfg cfg = rig_cfg(r);
    struct tn_rate_cfg limit = {1000000, 2048, 0, 0};

    (void)state;
    assert_int_equal(tn_rate_init(&r->rate, &limit, 0), 0);
    cfg.rate = &r->rate;
    rig_init(r, &cfg);
    rig_up(r, ALL);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_IN, 0, 0, 1024), 0);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_OUT, 0, 1024, 0), 0);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_FLUSH, 0, 0, 0), 0);
    header(r, HEADER, TN_VIRTIO_BLK_T_IN, 0);
    assert_true(add_io(r, 0, 0, TN_VIRTIO_BLK_T_IN, 0) >= 0);
    vd_kick(&r->d, 0);
    assert_int_equal(r->wake, 512000);
    rig_free(r);
}

/* ---- reset, and needing one ---- */

static void c04_reset_with_requests_under_way(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(rings); k++) {
        struct rig *r = rig_ready(rings[k].features);
        uint8_t *copy;

        r->be.when = LATER;
        for (uint32_t i = 0; i < 20; i++)
            assert_true(add_io(r, 0, i, TN_VIRTIO_BLK_T_OUT, i) >= 0);
        for (uint32_t i = 0; i < 8; i++)
            segment(r, i, i, 1, 0);
        vd_kick(&r->d, 0);
        be_finish(&r->be, 0);
        assert_int_equal(r->be.waiting, SLOTS);
        copy = test_exact(r->ram, RAM);
        memset(r->irq, 0, sizeof(r->irq));
        vd_reset(&r->d);
        assert_int_equal(r->be.waiting, 0);
        assert_true(r->be.drains > 0);
        assert_int_equal(r->be.logged, SLOTS + 1); /* nothing was begun in the drain */
        assert_memory_equal(r->ram, copy, RAM);    /* no status, no used element */
        assert_int_equal(r->irq[0], 0);
        assert_int_equal(slots_free(r), SLOTS);
        free(copy);
        works_after_reset(r);
        rig_free(r);
    }
}

static void c04_reset_while_held(void **state)
{
    struct rig *r = rig_ready(ALL);
    uint8_t *copy;

    (void)state;
    r->be.when = LATER;
    for (uint32_t i = 0; i < 4; i++)
        assert_true(add_io(r, 0, i, TN_VIRTIO_BLK_T_OUT, i) >= 0);
    vd_kick(&r->d, 0);
    tn_virtio_blk_hold(&r->b);
    be_finish(&r->be, 0);
    copy = test_exact(r->ram, RAM);
    vd_reset(&r->d);
    tn_virtio_blk_release(&r->b);
    assert_memory_equal(r->ram, copy, RAM);
    assert_int_equal(slots_free(r), SLOTS);
    free(copy);
    works_after_reset(r);
    rig_free(r);
}

/* What was under way when the driver broke the protocol is dropped, and no guest byte written. */
static void c04_done_after_needs_reset(void **state)
{
    struct rig *r = rig_ready(ALL);
    struct vqd_buf bad = {HEADER, 15, false};
    uint8_t *copy;

    (void)state;
    r->be.when = LATER;
    segment(r, 0, 1, 1, 0);
    segment(r, 1, 2, 1, 0);
    header(r, HEADER, TN_VIRTIO_BLK_T_WRITE_ZEROES, 0);
    assert_true(add_cut(r, 0, 48, 1, NULL, 0) >= 0);
    for (uint32_t i = 1; i < 4; i++)
        assert_true(add_io(r, 0, i, TN_VIRTIO_BLK_T_OUT, i) >= 0);
    vd_kick(&r->d, 0);
    assert_true(vd_add(&r->d, 1, &bad, 1) >= 0);
    vd_kick(&r->d, 1);
    assert_true(needs_reset(r));
    copy = test_exact(r->ram, RAM);
    while (r->be.waiting > 0)
        be_finish(&r->be, 0);
    assert_int_equal(r->be.logged, 4); /* the second segment is not begun */
    assert_memory_equal(r->ram, copy, RAM);
    assert_int_equal(slots_free(r), SLOTS);
    free(copy);
    works_after_reset(r);
    rig_free(r);
}

/* Even a backend that is done after its drain writes no status into another run's buffers. */
static void c04_done_too_late(void **state)
{
    struct rig *r = rig_ready(ALL);
    uint8_t *copy;

    (void)state;
    r->be.when = LATER;
    for (uint32_t i = 0; i < 2; i++)
        assert_true(add_io(r, 0, i, TN_VIRTIO_BLK_T_OUT, i) >= 0);
    vd_kick(&r->d, 0);
    r->be.late = true;
    rig_up(r, ALL);
    r->be.late = false;
    assert_int_equal(r->be.waiting, 2);
    assert_true(add_io(r, 0, 2, TN_VIRTIO_BLK_T_OUT, 2) >= 0);
    assert_true(add_io(r, 0, 3, TN_VIRTIO_BLK_T_OUT, 3) >= 0);
    vd_kick(&r->d, 0);
    assert_int_equal(r->be.waiting, 4);
    copy = test_exact(r->ram, RAM);
    be_finish(&r->be, 0);
    be_finish(&r->be, 1);
    assert_memory_equal(r->ram, copy, RAM);
    assert_int_equal(slots_free(r), SLOTS - 2);
    free(copy);
    works_after_reset(r);
    rig_free(r);
}

static void c12_nothing_leaks(void **state)
{
    uint64_t seed = 9;

    (void)state;
    for (size_t k = 0; k < COUNT(rings); k++) {
        struct rig *r = rig_ready(rings[k].features);

        r->indirect = rings[k].indirect;
        for (uint32_t i = 0; i < 3000; i++) {
            uint64_t x = test_random(&seed);
            static const uint32_t types[] = {0, 1, 4, 8, 11, 13, 2};
            static const int fails[] = {0, 0, TN_ESYS, TN_EUNSUP};

            r->be.when = (int)(x % 2);
            r->be.fail = fails[x / 2 % 4];
            for (uint32_t n = 0; n < 3; n++)
                segment(r, n, x >> 16 & 127, x >> 24 & 3, x >> 26 & 1);
            (void)request(r, types[x / 8 % 7], x >> 32 & 127, (x >> 40 & 7) * 16,
                          (x >> 44 & 3) * 256);
            assert_int_equal(tn_virtq_in_flight(&r->b.queue[0].q), 0);
        }
        assert_false(needs_reset(r));
        rig_free(r);
    }
}

/* ---- snapshots ---- */

static void quiesce(void **state)
{
    struct rig *r = rig_ready(ALL);
    uint32_t len, n = 0;

    (void)state;
    r->be.when = LATER;
    for (uint32_t i = 0; i < 8; i++)
        segment(r, i, i, 1, 0);
    header(r, HEADER, TN_VIRTIO_BLK_T_DISCARD, 0);
    assert_true(add_cut(r, 0, 16 + 128, 1, NULL, 0) >= 0);
    for (uint32_t i = 1; i < 20; i++)
        assert_true(add_io(r, 0, i, TN_VIRTIO_BLK_T_IN, i) >= 0);
    vd_kick(&r->d, 0);
    memset(r->irq, 0, sizeof(r->irq));
    tn_virtio_blk_quiesce(&r->b);
    assert_int_equal(r->be.waiting, 0);
    assert_int_equal(r->be.logged, SLOTS + 7); /* all eight segments */
    while (vd_reap(&r->d, 0, &len) >= 0)
        n++;
    assert_int_equal(n, SLOTS);
    assert_int_equal(r->irq[0], 1);
    assert_int_equal(slots_free(r), SLOTS);
    assert_int_equal(tn_virtq_in_flight(&r->b.queue[0].q), 0);
    r->be.when = NOW;
    tn_virtio_blk_wake(&r->b);
    while (vd_reap(&r->d, 0, &len) >= 0)
        n++;
    assert_int_equal(n, 20);
    rig_free(r);
}

static void e06_restore_goes_on(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(rings); k++) {
        struct rig *r = rig_ready(rings[k].features);
        static struct tn_virtio_blk_state one, two;
        struct tn_virtio_blk_cfg cfg = rig_cfg(r);
        uint32_t len, n = 0;

        r->be.when = LATER;
        for (uint32_t i = 0; i < 20; i++)
            assert_true(add_io(r, i % QUEUES, i, TN_VIRTIO_BLK_T_IN, i) >= 0);
        for (uint32_t q = 0; q < QUEUES; q++)
            vd_kick(&r->d, q);
        if (rings[k].features & TN_VIRTIO_BLK_F_CONFIG_WCE)
            tn_virtio_config_write(&r->b.virtio, 32, 1, 0);
        tn_virtio_blk_save(&r->b, &one); /* with requests under way: of no use */
        tn_virtio_blk_quiesce(&r->b);
        assert_int_equal(tn_virtio_blk_restore(&r->b, &one), TN_EFORMAT);
        tn_virtio_blk_save(&r->b, &one);
        memset(&r->b, 0xa5, sizeof(r->b));
        memset(r->slot, 0xa5, sizeof(r->slot));
        assert_int_equal(tn_virtio_blk_init(&r->b, &cfg), 0);
        tn_virtio_connect(&r->b.virtio, on_interrupt, r);
        assert_int_equal(tn_virtio_blk_restore(&r->b, &one), 0);
        tn_virtio_blk_save(&r->b, &two);
        assert_memory_equal(&one, &two, sizeof(one));
        assert_int_equal(config(r, 32, 1), 0);
        r->be.when = NOW;
        tn_virtio_blk_wake(&r->b);
        for (uint32_t q = 0; q < QUEUES; q++) {
            while (vd_reap(&r->d, q, &len) >= 0)
                n++;
        }
        assert_int_equal(n, 20);
        for (uint32_t i = 0; i < 20; i++)
            assert_int_equal(io_status(r, i), 0);
        /* Over requests under way: they are answered first. */
        r->be.when = LATER;
        assert_true(add_io(r, 0, 0, TN_VIRTIO_BLK_T_IN, 0) >= 0);
        vd_kick(&r->d, 0);
        assert_int_equal(r->be.waiting, 1);
        assert_int_equal(tn_virtio_blk_restore(&r->b, &one), 0);
        assert_int_equal(r->be.waiting, 0);
        rig_free(r);
    }
}

static void e01_hostile_states(void **state)
{
    static struct tn_virtio_blk_state good, bad, after;
    struct rig *r = rig_ready(ALL);
    uint64_t seed = 3;

    (void)state;
    tn_virtio_blk_save(&r->b, &good);
#define REFUSED(change, error)                                         \
    do {                                                               \
        bad = good;                                                    \
        change;                                                        \
        assert_int_equal(tn_virtio_blk_restore(&r->b, &bad), (error)); \
        tn_virtio_blk_save(&r->b, &after);                             \
        assert_memory_equal(&after, &good, sizeof(good));              \
    } while (0)
    REFUSED(bad.version = 0, TN_EUNSUP);
    REFUSED(bad.version = 2, TN_EUNSUP);
    REFUSED(bad.capacity = 65, TN_EUNSUP);
    REFUSED(bad.writeback = 2, TN_EFORMAT);
    REFUSED(bad.writeback = 0x101, TN_EFORMAT);
    REFUSED(bad.virtio.queue[1].ring.next_avail ^= 1, TN_EFORMAT);
    REFUSED(bad.virtio.queue[15].ring.next_avail = 1, TN_EFORMAT);
    REFUSED(bad.virtio.device_id = 1, TN_EUNSUP);
    REFUSED(bad.virtio.features |= 1, TN_EUNSUP);
    REFUSED((bad.virtio.features &= ~TN_VIRTIO_BLK_F_FLUSH, bad.virtio.queue[2].zero[0] = 1),
            TN_EFORMAT);
    REFUSED(bad.virtio.features &= ~TN_VIRTIO_BLK_F_FLUSH & ~TN_VIRTIO_F_VERSION_1, TN_EUNSUP);
    bad = good;
    bad.virtio.queue[0].desc = bad.virtio.queue[0].ring.desc = RAM;
    assert_int_equal(tn_virtio_blk_restore(&r->b, &bad), TN_EADDR);
    assert_int_equal(tn_virtio_status_read(&r->b.virtio), 0);
    assert_int_equal(r->b.work, 0);
    works_after_reset(r);
    /* Any bytes: refused, or a device that a reset brings back. */
    for (uint32_t i = 0; i < 2000; i++) {
        bad = good;
        for (uint32_t n = 0; n <= i % 4; n++) {
            size_t at = (size_t)(test_random(&seed) % sizeof(bad));

            ((uint8_t *)&bad)[at] ^= (uint8_t)(1u << test_random(&seed) % 8);
        }
        if (tn_virtio_blk_restore(&r->b, &bad) == 0)
            tn_virtio_blk_wake(&r->b);
        if (i % 50 == 0)
            works_after_reset(r);
    }
    works_after_reset(r);
    rig_free(r);
}

static void resize(void **state)
{
    struct rig *r = rig_ready(ALL);
    uint32_t irq = r->config_irq, generation = r->b.virtio.generation;

    (void)state;
    assert_int_equal(tn_virtio_blk_resize(&r->b, 513), TN_EINVAL);
    assert_int_equal(config(r, 0, 4), 64);
    assert_int_equal(tn_virtio_blk_resize(&r->b, 32 * 512), 0);
    assert_int_equal(config(r, 0, 4), 32);
    assert_int_equal(r->config_irq, irq + 1);
    assert_int_equal(r->b.virtio.generation, generation + 1);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_IN, 31, 0, 512), 0);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_IN, 32, 0, 512), TN_VIRTIO_BLK_S_IOERR);
    assert_int_equal(tn_virtio_blk_resize(&r->b, 0), 0);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_IN, 0, 0, 512), TN_VIRTIO_BLK_S_IOERR);
    rig_free(r);
}

/* A disk that shrinks in the middle of a request: its later segments are checked again. */
static void shrink(void *ctx)
{
    struct rig *r = ctx;

    r->be.disk.size = 512;
    assert_int_equal(tn_virtio_blk_resize(&r->b, 512), 0);
}

static void resize_under_way(void **state)
{
    struct rig *r = rig_ready(ALL);

    (void)state;
    r->be.hook = shrink;
    segment(r, 0, 0, 1, 0);
    segment(r, 1, 1, 1, 0);
    assert_int_equal(request(r, TN_VIRTIO_BLK_T_WRITE_ZEROES, 0, 32, 0), TN_VIRTIO_BLK_S_IOERR);
    assert_int_equal(r->be.logged, 1);
    rig_free(r);
}

/* Data and status are marked, the last byte, too; what is only read is not. */
static void dirty_pages(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(rings); k++) {
        struct rig *r = rig_ready(rings[k].features);
        uint64_t log[2][TN_MEM_DIRTY_WORDS(BORDER)], seen[TN_MEM_DIRTY_WORDS(BORDER)];
        struct vqd_buf buf[3] = {{0x20000, 16, false}, {0x30ff0, 512, true}, {0x50fff, 1, true}};
        uint32_t len;

        memset(log, 0, sizeof(log));
        memset(seen, 0, sizeof(seen));
        assert_true(tn_mem_track(&r->mem, 0, log[0]) >= 0);
        header(r, 0x20000, TN_VIRTIO_BLK_T_IN, 1);
        assert_true(vd_request(&r->d, 0, buf, 3, &len));
        assert_int_equal(r->ram[0x50fff], 0);
        assert_true(log[0][0] & ~0ull << 1);                        /* the ring */
        assert_int_equal(log[0][0x30000 / 4096 / 64] >> 48 & 3, 3); /* the data, two pages */
        assert_int_equal(log[0][0x50000 / 4096 / 64] >> 16 & 3, 1); /* the status */
        assert_int_equal(log[0][0] >> 32 & 1, 0);
        rig_free(r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(init_refuses),
        cmocka_unit_test(configuration_space),
        cmocka_unit_test(c34_broken_requests_need_a_reset),
        cmocka_unit_test(c01_length_no_multiple_of_512),
        cmocka_unit_test(c02_ranges_outside_the_disk),
        cmocka_unit_test(c02_segments),
        cmocka_unit_test(c03_other_types),
        cmocka_unit_test(not_negotiated),
        cmocka_unit_test(read_only),
        cmocka_unit_test(larger_blocks),
        cmocka_unit_test(failing_backend),
        cmocka_unit_test(headers_cut_anywhere),
        cmocka_unit_test(status_anywhere),
        cmocka_unit_test(empty_descriptors_and_borders),
        cmocka_unit_test(longest_request),
        cmocka_unit_test(room_for_no_data),
        cmocka_unit_test(header_is_read_once),
        cmocka_unit_test(segments_one_after_the_other),
        cmocka_unit_test(get_id),
        cmocka_unit_test(writeback),
        cmocka_unit_test(configuration_writes),
        cmocka_unit_test(any_order),
        cmocka_unit_test(slots_go_round),
        cmocka_unit_test(one_kick_and_one_interrupt),
        cmocka_unit_test(notifications),
        cmocka_unit_test(some_queues),
        cmocka_unit_test(c14_a_turn_ends),
        cmocka_unit_test(rate),
        cmocka_unit_test(rate_of_bytes),
        cmocka_unit_test(c04_reset_with_requests_under_way),
        cmocka_unit_test(c04_reset_while_held),
        cmocka_unit_test(c04_done_after_needs_reset),
        cmocka_unit_test(c04_done_too_late),
        cmocka_unit_test(c12_nothing_leaks),
        cmocka_unit_test(quiesce),
        cmocka_unit_test(e06_restore_goes_on),
        cmocka_unit_test(e01_hostile_states),
        cmocka_unit_test(resize),
        cmocka_unit_test(resize_under_way),
        cmocka_unit_test(dirty_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
