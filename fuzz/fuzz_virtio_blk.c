/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A driver that is mostly honest, a hostile hand in RAM, a disk in memory that is done at once,
 * later, in any order, or fails; resets, saves and restores of good and of broken states.
 * Properties: what reaches the disk is inside it, and its buffers are in RAM; no more requests are
 * under way than slots; each chain that was popped is held by one slot until it is pushed, and no
 * slot is lost (C12); a queue that was notified is served, or somebody will go on with it (C14); a
 * device that does not run changes no byte of RAM when a request ends (C04); save, restore, save
 * give the same record; after a reset a good request works.
 */
#include "tn_virtio_blk.h"

#include "fuzz.h"
#include "../tests/virtio_driver.h"

#define LOW    0xc000u /* two regions that touch */
#define RAM    0x10000u
#define DATA   0x2000u
#define TABLE  0x1f00u
#define DISK   (32u * 512)
#define CANARY 64u
#define SLOTS  5u
#define QUEUES 2u

enum { NOW, IN_KICK, LATER };

struct rig {
    uint8_t *ram, *copy, *disk;
    struct tn_mem_region table[2];
    struct tn_mem mem;
    struct tn_disk backend;
    struct tn_disk_req *pending[SLOTS];
    uint32_t waiting, held;
    struct tn_virtio_blk_slot slot[SLOTS];
    struct tn_virtio_blk b;
    struct tn_rate rate;
    struct vd d;
    uint64_t now;
    uint8_t when, fail;
    bool asked;        /* somebody will call wake */
    uint32_t notified; /* bit n: of all that is in queue n */
};

static void be_done(struct rig *r, struct tn_disk_req *req)
{
    static const int results[] = {TN_OK, TN_OK, TN_OK, TN_ESYS, TN_ENOSPC, TN_EUNSUP, 7, -999};
    int result = results[r->fail % 8];
    struct tn_disk_pos pos = {0, 0};
    bool live = tn_virtio_live(&r->b.virtio), reads = false;

    if (result == TN_OK && req->len > 0 && req->offset <= DISK && req->len <= DISK - req->offset) {
        uint8_t *at = r->disk + CANARY + req->offset;

        reads = req->op == TN_DISK_READ;
        if (req->op == TN_DISK_READ || req->op == TN_DISK_WRITE)
            FZ_ASSERT(tn_disk_copy(req->op, req->iov, req->iovs, &pos, at, req->len) == req->len);
        else if (req->op == TN_DISK_ZERO)
            memset(at, 0, req->len);
    }
    if (!live && !reads)
        memcpy(r->copy, r->ram, RAM);
    req->done(req, result);
    if (!live && !reads)
        FZ_ASSERT(memcmp(r->copy, r->ram, RAM) == 0);
}

static void be_submit(void *ctx, struct tn_disk_req *req)
{
    struct rig *r = ctx;
    struct tn_disk disk = r->backend;
    uint64_t sum = 0;

    disk.size = r->b.disk.size;
    FZ_ASSERT(tn_disk_check(&disk, req) == TN_OK);
    FZ_ASSERT((req->flags & ~(TN_DISK_F_FUA | TN_DISK_F_UNMAP)) == 0);
    FZ_ASSERT(req->op == TN_DISK_FLUSH || req->len > 0);
    for (uint32_t i = 0; i < req->iovs; i++) {
        uintptr_t off = (uintptr_t)req->iov[i].base - (uintptr_t)r->ram;

        FZ_ASSERT(off < RAM && req->iov[i].len > 0 && req->iov[i].len <= RAM - off);
        FZ_ASSERT(off >= LOW || req->iov[i].len <= LOW - off);
        sum += req->iov[i].len;
    }
    if (req->op == TN_DISK_READ || req->op == TN_DISK_WRITE)
        FZ_ASSERT(sum == req->len);
    else
        FZ_ASSERT(req->iovs == 0);
    for (uint32_t i = 0; i < r->waiting; i++)
        FZ_ASSERT(r->pending[i] != req);
    if (r->when == NOW) {
        be_done(r, req);
        return;
    }
    FZ_ASSERT(r->waiting < SLOTS);
    r->pending[r->waiting++] = req;
}

static void be_finish(struct rig *r, uint32_t i)
{
    struct tn_disk_req *req = r->pending[i];

    r->pending[i] = r->pending[--r->waiting];
    be_done(r, req);
}

static void be_kick(void *ctx)
{
    struct rig *r = ctx;

    while (r->when == IN_KICK && r->waiting > 0)
        be_finish(r, 0);
}

static void be_drain(void *ctx)
{
    struct rig *r = ctx;

    while (r->waiting > 0)
        be_finish(r, r->waiting - 1);
}

static const struct tn_disk_ops be_ops = {be_submit, be_kick, be_drain};

static void on_wake(void *ctx, uint64_t ns)
{
    (void)ns;
    ((struct rig *)ctx)->asked = true;
}

static uint64_t on_now(void *ctx)
{
    return ((struct rig *)ctx)->now;
}

static void on_interrupt(void *ctx, uint32_t queue)
{
    (void)ctx;
    FZ_ASSERT(queue < QUEUES || queue == TN_VIRTIO_CONFIG);
}

static bool is_free(const struct rig *r, const struct tn_virtio_blk_slot *slot)
{
    uint32_t n = 0;

    for (const struct tn_virtio_blk_slot *s = r->b.free; s; s = s->next) {
        FZ_ASSERT(n++ < SLOTS);
        if (s == slot)
            return true;
    }
    return false;
}

/* What holds after every step. */
static void check(struct rig *r)
{
    uint32_t used = 0, finished = 0;

    for (uint32_t i = 0; i < SLOTS; i++)
        used += !is_free(r, &r->slot[i]);
    for (const struct tn_virtio_blk_slot *s = r->b.finished; s; s = s->next)
        finished++;
    FZ_ASSERT(used == r->waiting + finished);
    FZ_ASSERT(finished == 0 || r->held > 0);
    for (uint32_t q = 0; q < QUEUES; q++) {
        const struct tn_virtq *ring = &r->b.queue[q].q;
        uint32_t holds = 0;

        for (uint32_t i = 0; i < SLOTS; i++) {
            if (!is_free(r, &r->slot[i]) && r->slot[i].queue == q &&
                r->slot[i].chain.generation == ring->generation)
                holds += ring->cfg.packed ? r->slot[i].chain.descs : 1u;
        }
        if (tn_virtio_live(&r->b.virtio))
            FZ_ASSERT(holds == tn_virtq_in_flight(ring));
    }
    for (uint32_t i = 0; i < CANARY; i++)
        FZ_ASSERT(r->disk[i] == 0xca && r->disk[CANARY + DISK + i] == 0xca);
    FZ_ASSERT(r->b.config[32] <= 1 && r->b.busy == r->held);
}

/* After a turn: what is left waits for something that will come. */
static void check_progress(struct rig *r)
{
    if (!tn_virtio_live(&r->b.virtio) || r->held > 0 || r->asked || r->waiting == SLOTS)
        return;
    FZ_ASSERT(r->b.work == 0);
    for (uint32_t q = 0; q < QUEUES; q++)
        FZ_ASSERT(!(r->notified >> q & 1) || !tn_virtq_pending(&r->b.queue[q].q));
}

static void up(struct rig *r, uint64_t features, uint16_t size)
{
    FZ_ASSERT(vd_up(&r->d, features, QUEUES, size));
    FZ_ASSERT(r->d.end <= TABLE);
}

static void header(struct rig *r, uint32_t at, uint32_t type, uint64_t sector)
{
    tn_put_(r->ram + at, 4, type);
    tn_put_(r->ram + at + 4, 4, 0);
    tn_put_(r->ram + at + 8, 8, sector);
}

/* A request, honest but for what the input says of its type, sector, lengths and cuts. */
static void add(struct rig *r, struct fz *z)
{
    static const uint8_t types[] = {0, 1, 4, 8, 11, 13, 0, 1};
    struct vqd_buf buf[12];
    uint8_t kind = fz_u8(z), shape = fz_u8(z), len = fz_u8(z);
    uint32_t type = types[kind % 8], at = DATA + 0x40u * fz_u8(z), n = 0, out = 16, in = 0;
    uint32_t queue = kind >> 3 & 1, q_at, left;
    uint64_t sector = fz_u8(z) % 40u;

    if (kind & 0x10)
        sector = fz_u64(z);
    if (kind & 0x20)
        type = fz_u32(z);
    if (type == TN_VIRTIO_BLK_T_OUT)
        out += 512u * (len % 4u);
    else if (type == TN_VIRTIO_BLK_T_DISCARD || type == TN_VIRTIO_BLK_T_WRITE_ZEROES)
        out += 16u * (len % 10u);
    else
        in = 512u * (len % 4u);
    if (kind & 0x40)
        out += fz_u8(z) - (type == TN_VIRTIO_BLK_T_OUT ? 100u : 8u);
    if (kind & 0x80)
        in += fz_u8(z);
    if (out > 0x2000)
        out = 3;
    header(r, at, type, sector);
    for (uint32_t i = 16; type >= 11 && i + 16 <= out && z->left > 0; i += 16) {
        uint8_t what = fz_u8(z);

        tn_put_(r->ram + at + i, 8, what & 0x80 ? fz_u64(z) : what % 40u);
        tn_put_(r->ram + at + i + 8, 4, what & 0x40 ? fz_u32(z) : what % 5u);
        tn_put_(r->ram + at + i + 12, 4, what & 0x20 ? fz_u8(z) : 0);
    }
    for (q_at = at, left = out; left > 0 && n < 5;) {
        uint32_t take = n == 4 || !(shape & 1) ? left : fz_u8(z) % (left + 1);

        buf[n++] = (struct vqd_buf){q_at, take, false};
        q_at += take;
        left -= take;
    }
    for (q_at = at + 0x1800, left = in + 1; left > 0 && n < 11;) {
        uint32_t take = n == 10 || !(shape & 2) ? left : fz_u16(z) % (left + 1);

        buf[n++] = (struct vqd_buf){q_at, take, true};
        q_at += take;
        left -= take;
    }
    (void)vqd_add_table(&r->d.q[queue], buf, n, shape & 4 ? TABLE : 0, shape & 4 ? n : 0);
}

static void restore(struct rig *r, struct fz *z)
{
    static struct tn_virtio_blk_state one, two;
    uint8_t kind = fz_u8(z);
    int err;

    memset(&one, 0x5a, sizeof(one));
    memset(&two, 0xa5, sizeof(two));
    tn_virtio_blk_quiesce(&r->b);
    FZ_ASSERT(r->waiting == 0);
    check(r);
    tn_virtio_blk_save(&r->b, &one);
    if (kind & 1) {
        for (uint32_t i = 0; i <= kind >> 5; i++)
            ((uint8_t *)&one)[fz_u16(z) % sizeof(one)] = fz_u8(z);
    }
    err = tn_virtio_blk_restore(&r->b, &one);
    tn_virtio_blk_save(&r->b, &two);
    FZ_ASSERT(err == TN_OK || kind & 1);
    if (err == TN_OK) {
        /* Bytes between fields are the wreck's. */
        FZ_ASSERT(kind & 1 || memcmp(&one, &two, sizeof(one)) == 0);
        FZ_ASSERT(two.writeback == one.writeback && two.virtio.status == one.virtio.status);
    }
    check(r);
    r->asked = false;
    tn_virtio_blk_wake(&r->b);
    check_progress(r);
}

/* A reset, and a write that is read back. */
static void good_request(struct rig *r, uint8_t kind)
{
    struct vqd_buf out[2] = {{DATA, 16 + 512, false}, {DATA + 0x1000, 1, true}};
    struct vqd_buf in[2] = {{DATA, 16, false}, {DATA + 0x1000, 513, true}};
    uint32_t len = 0;

    while (r->held > 0) {
        r->held--;
        tn_virtio_blk_release(&r->b);
    }
    r->when = kind % 2;
    r->fail = 0;
    r->now += UINT64_MAX / 4;
    FZ_ASSERT(tn_virtio_blk_resize(&r->b, DISK) == 0);
    up(r, ~0ull >> (kind & 0x3f), 16);
    check(r);
    for (uint32_t i = 0; i < 512; i++)
        r->ram[DATA + 16 + i] = (uint8_t)(i + kind);
    header(r, DATA, TN_VIRTIO_BLK_T_OUT, 31);
    FZ_ASSERT(vd_request(&r->d, kind >> 7, out, 2, &len) && len == 1);
    FZ_ASSERT(r->ram[DATA + 0x1000] == 0);
    header(r, DATA, TN_VIRTIO_BLK_T_IN, 31);
    FZ_ASSERT(vd_request(&r->d, kind >> 7, in, 2, &len) && len == 513);
    FZ_ASSERT(memcmp(r->ram + DATA + 0x1000, r->ram + DATA + 16, 512) == 0);
    FZ_ASSERT(r->ram[DATA + 0x1200] == 0);
    check(r);
}

static void step(struct rig *r, struct fz *z)
{
    uint8_t what = fz_u8(z);
    uint32_t len, queue = what >> 4 & 1;

    if (what % 16 < 3 || what % 16 > 8)
        r->notified = 0;
    switch (what % 16) {
    case 0:
    case 1:
    case 2:
        add(r, z);
        break;
    case 3:
    case 4:
        r->asked = r->b.limited && r->asked;
        r->notified |= 1u << queue;
        vd_kick(&r->d, queue);
        check_progress(r);
        break;
    case 5:
    case 6:
        if (r->waiting > 0)
            be_finish(r, what / 16u % r->waiting);
        check_progress(r);
        break;
    case 7:
        r->now += fz_u16(z) * 1000ull;
        r->asked = false;
        tn_virtio_blk_wake(&r->b);
        check_progress(r);
        break;
    case 8:
        if (r->held > 0 && what & 0x10) {
            r->held--;
            tn_virtio_blk_release(&r->b);
            check_progress(r);
        } else if (r->held < 3) {
            r->held++;
            tn_virtio_blk_hold(&r->b);
        }
        break;
    case 9:
        if (r->held == 0)
            restore(r, z);
        break;
    case 10:
        if (what & 0x10) {
            vd_reset(&r->d);
            FZ_ASSERT(r->waiting == 0);
        } else {
            up(r, what & 0x20 ? fz_u64(z) : ~0ull, what & 0x40 ? 16 : 8);
        }
        break;
    case 11:
        if (what & 0x10)
            tn_virtio_config_write(&r->b.virtio, fz_u8(z), 1u << (what >> 5) % 3, fz_u32(z));
        else
            FZ_ASSERT(tn_virtio_blk_resize(&r->b, 1024ull * (fz_u8(z) % 17u)) == 0);
        break;
    case 12:
        r->when = what >> 4 & 3;
        r->fail = what >> 6 ? fz_u8(z) : 0;
        break;
    case 13:
        (void)vd_reap(&r->d, queue, &len);
        break;
    case 14: /* the rings, of which the next request is made */
        len = (uint32_t)(r->d.q[queue].desc + fz_u16(z) % (16u * r->d.q[queue].size + 256u));
        fz_bytes(z, r->ram + len, what >> 5);
        break;
    default:
        fz_bytes(z, r->ram + fz_u16(z) % (RAM - 16), what >> 4);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rig r;
    struct tn_virtio_blk_cfg cfg = {
        &r.mem, 16, TN_VIRTIO_F_RING, &r.backend, "fuzz", QUEUES, r.slot,
        SLOTS,  &r, on_wake,          NULL,       on_now};
    struct tn_rate_cfg limit = {1 << 20, 4096, 1000, 8};
    struct fz z;
    uint8_t flags;

    memset(&r, 0, sizeof(r));
    fz_init(&z, data, size);
    flags = fz_u8(&z);
    r.ram = malloc(RAM);
    r.copy = malloc(RAM);
    r.disk = malloc(DISK + 2 * CANARY);
    FZ_ASSERT(r.ram && r.copy && r.disk);
    memset(r.ram, 0xee, RAM);
    memset(r.disk, 0xca, DISK + 2 * CANARY);
    r.backend.ops = &be_ops;
    r.backend.ctx = &r;
    r.backend.size = DISK;
    r.backend.block_size = flags & 1 ? 1024 : 512;
    r.backend.physical_block = 4096;
    r.backend.read_only = flags & 2 && flags & 4;
    r.backend.discard = !(flags & 8);
    r.backend.zero = !(flags & 16);
    tn_mem_init(&r.mem, r.table, 2);
    FZ_ASSERT(tn_mem_add(&r.mem, 0, r.ram, LOW) == 0);
    FZ_ASSERT(tn_mem_add(&r.mem, LOW, r.ram + LOW, RAM - LOW) == 0);
    FZ_ASSERT(tn_rate_init(&r.rate, &limit, 0) == 0);
    cfg.rate = flags & 32 ? &r.rate : NULL;
    FZ_ASSERT(tn_virtio_blk_init(&r.b, &cfg) == 0);
    tn_virtio_connect(&r.b.virtio, on_interrupt, &r);
    vd_init(&r.d, &r.b.virtio, r.ram, 0, 0x1000);
    up(&r, flags & 64 ? ~TN_VIRTIO_F_RING_PACKED : ~0ull, 16);
    for (unsigned op = 0; op < 400 && z.left > 0; op++) {
        step(&r, &z);
        check(&r);
    }
    if (!r.backend.read_only && r.backend.block_size == 512)
        good_request(&r, flags);
    vd_free(&r.d);
    free(r.ram);
    free(r.copy);
    free(r.disk);
    return 0;
}
