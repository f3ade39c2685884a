/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * First a header that may be hostile, then requests on a small overlay whose parts answer in any
 * order, fail, or lose power, and whose bitmap may be any bytes. Properties: what tn_overlay_parse
 * takes lies inside the file, in order, without overlap; what tn_overlay_build makes is taken; runs
 * cover a range exactly and alternate; a request asks the parts only for what lies inside them, is
 * done once, and reads what was written; the base is never written; after a flush and a crash, what
 * was flushed is there.
 */
#include "tn_overlay.h"

#include "../tests/disk_sim.h"
#include "fuzz.h"

#define SECTORS 96u
#define SIZE    (SECTORS * 512ull)
#define ASKS    12u
#define IOVS    600u

static void check_layout(const struct tn_overlay_layout *l, uint64_t file_len)
{
    FZ_ASSERT(l->size > 0 && l->size % 512 == 0 && l->size <= file_len);
    FZ_ASSERT(l->bitmap_offset >= TN_OVERLAY_HEADER && l->bitmap_offset <= file_len);
    FZ_ASSERT(l->bitmap_len <= file_len - l->bitmap_offset);
    FZ_ASSERT(l->bitmap_len / 512 >= (l->size / 512 + 4095) / 4096);
    FZ_ASSERT(l->data_offset >= l->bitmap_offset + l->bitmap_len);
    FZ_ASSERT(l->data_offset <= file_len && l->size <= file_len - l->data_offset);
    FZ_ASSERT(l->file_len == l->data_offset + l->size);
    FZ_ASSERT((l->bitmap_offset | l->bitmap_len | l->data_offset) % TN_OVERLAY_PAGE == 0);
    FZ_ASSERT(tn_overlay_work(l) >= l->bitmap_len);
}

/* A header that was built, and then changed in a few places; or any bytes. */
static void fuzz_header(struct fz *z)
{
    static uint8_t page[TN_OVERLAY_HEADER];
    struct tn_overlay_layout l, again;
    uint64_t size = fz_range(z, 1, 1u << 20) * 512, file_len;
    size_t len = sizeof(page);
    uint8_t changes = fz_u8(z), how = fz_u8(z), *exact;

    FZ_ASSERT(tn_overlay_build(&l, size, NULL, page, sizeof(page)) == 0);
    check_layout(&l, l.file_len);
    FZ_ASSERT(tn_overlay_parse(&again, page, sizeof(page), l.file_len) == 0);
    FZ_ASSERT(memcmp(&l, &again, sizeof(l)) == 0);
    FZ_ASSERT(tn_overlay_parse(&again, page, sizeof(page), l.file_len - 1) == TN_ETRUNC);
    file_len = how & 1 ? fz_u64(z) : how & 2 ? l.file_len : l.file_len + fz_u16(z) * 512ull;
    for (unsigned i = 0; i < changes % 6u; i++) {
        unsigned at = how & 4 ? fz_u16(z) % sizeof(page) : fz_u8(z) % 88u;

        if (how & 8)
            tn_put_(page + at / 8 * 8, 8, fz_u64(z));
        else
            page[at] = fz_u8(z);
    }
    if (how & 16)
        len = fz_u16(z) % (sizeof(page) + 1);
    exact = (uint8_t *)malloc(len ? len : 1);
    if (!exact)
        return;
    memcpy(exact, page, len);
    if (tn_overlay_parse(&l, exact, len, file_len) == 0)
        check_layout(&l, file_len);
    else
        FZ_ASSERT(l.size == 0 && l.bitmap_len == 0 && l.file_len == 0);
    free(exact);
}

static void fuzz_bitmap(struct fz *z)
{
    uint8_t bitmap[32], before[32];
    uint64_t s = fz_range(z, 0, 255), n = fz_range(z, 0, 256 - s), at, run;
    bool set, last = false, clear = false;

    memset(bitmap, 0, sizeof(bitmap));
    fz_bytes(z, bitmap, sizeof(bitmap));
    for (at = s; at < s + n; at += run) {
        run = tn_overlay_run(bitmap, at, s + n - at, &set);
        FZ_ASSERT(run > 0 && run <= s + n - at);
        FZ_ASSERT(at == s || set != last);
        for (uint64_t i = at; i < at + run; i++)
            FZ_ASSERT((bitmap[i / 8] >> i % 8 & 1) == set);
        last = set;
        clear |= !set;
    }
    memcpy(before, bitmap, sizeof(bitmap));
    FZ_ASSERT(tn_overlay_set(bitmap, s, n) == clear);
    for (uint64_t i = 0; i < 256; i++)
        FZ_ASSERT((bitmap[i / 8] >> i % 8 & 1) ==
                  ((i >= s && i - s < n) || (before[i / 8] >> i % 8 & 1)));
}

/* A sector holds one byte all over: that of the write that was last. */
struct rig {
    struct sim base, over;
    struct tn_overlay o;
    struct tn_overlay_layout layout;
    uint8_t bitmap[TN_OVERLAY_PAGE], work[2 * TN_OVERLAY_PAGE];
    struct ask {
        struct tn_disk_req req;
        struct tn_iov iov[IOVS];
        uint8_t bytes[SIZE];
        uint8_t value;
        bool busy;
        uint8_t then[SECTORS]; /* FLUSH: what was there when it began */
        bool known[SECTORS];   /* likewise */
        bool touched[SECTORS]; /* READ: a write was under way at some time since it began */
        struct rig *rig;
    } ask[ASKS];
    uint8_t now[SECTORS];     /* what is there, if it is known */
    bool known[SECTORS];      /* no write that failed, or was lost */
    uint8_t writing[SECTORS]; /* writes under way */
    uint8_t safe[SECTORS];    /* what a crash leaves, if nothing was written since */
    bool safe_known[SECTORS];
    uint64_t seed;
    uint8_t next;
};

static struct rig rig;

static void on_done(struct tn_disk_req *req, int result)
{
    struct ask *a = (struct ask *)req->ctx;
    struct rig *r = a->rig;
    uint64_t s = req->offset / 512;

    FZ_ASSERT(a->busy);
    a->busy = false;
    FZ_ASSERT(result == 0 || result == TN_ESYS || result == TN_ENOSPC);
    for (uint64_t i = 0; i < req->len / 512; i++) {
        if (req->op == TN_DISK_READ) {
            if (result == 0 && r->known[s + i] && !a->touched[i])
                for (unsigned k = 0; k < 512; k++)
                    FZ_ASSERT(a->bytes[i * 512 + k] == r->now[s + i]);
            continue;
        }
        r->writing[s + i]--;
        r->now[s + i] = a->value;
        r->known[s + i] = result == 0;
        if (result == 0 && (req->flags & TN_DISK_F_FUA)) {
            r->safe[s + i] = a->value;
            r->safe_known[s + i] = true;
        }
    }
    if (req->op == TN_DISK_FLUSH && result == 0) {
        for (unsigned i = 0; i < SECTORS; i++) {
            /* Only where nothing was written since. */
            if (a->known[i] && r->known[i] && a->then[i] == r->now[i] && r->writing[i] == 0) {
                r->safe[i] = a->then[i];
                r->safe_known[i] = true;
            }
        }
    }
}

static void begin(struct rig *r, struct fz *z)
{
    struct ask *a = &r->ask[fz_u8(z) % ASKS];
    uint8_t what = fz_u8(z);
    uint32_t op = what % 5, k = 0;
    uint64_t s = fz_u8(z) % SECTORS, n = 1 + fz_u8(z) % SECTORS, left, len, chop;

    if (n > SECTORS - s)
        n = SECTORS - s;
    chop = what & 0x40 ? 1 + fz_u8(z) % 7u : 1 + fz_u16(z);
    if (a->busy)
        return;
    if (op == TN_DISK_FLUSH)
        s = n = 0;
    for (uint64_t i = s; i < s + n && op != TN_DISK_READ; i++) {
        if (r->writing[i] > 0)
            return; /* two at once have no order */
    }
    memset(&a->req, 0, sizeof(a->req));
    a->busy = true;
    a->req.op = op;
    a->req.flags = what & 0x80 ? TN_DISK_F_FUA : 0;
    a->req.offset = s * 512;
    a->req.len = n * 512;
    a->req.iov = a->iov;
    a->req.done = on_done;
    a->req.ctx = a;
    a->value = op == TN_DISK_WRITE ? (uint8_t)(r->next++ | 1) : 0;
    memset(a->bytes, a->value, n * 512);
    for (left = op <= TN_DISK_WRITE ? n * 512 : 0; left > 0; left -= len, k++) {
        len = chop < left && k < IOVS - 1 ? chop : left;
        a->iov[k].base = a->bytes + (n * 512 - left);
        a->iov[k].len = len;
    }
    a->req.iovs = k;
    for (uint64_t i = 0; i < n && op == TN_DISK_READ; i++)
        a->touched[i] = r->writing[s + i] > 0;
    for (uint64_t i = s; i < s + n && op != TN_DISK_READ; i++) {
        r->writing[i]++;
        r->safe_known[i] = false; /* from now on a crash may leave either */
        for (unsigned j = 0; j < ASKS; j++) {
            uint64_t from = r->ask[j].req.offset / 512;

            if (r->ask[j].busy && r->ask[j].req.op == TN_DISK_READ && i >= from &&
                i - from < r->ask[j].req.len / 512)
                r->ask[j].touched[i - from] = true;
            if (r->ask[j].busy && r->ask[j].req.op == TN_DISK_FLUSH)
                r->ask[j].known[i] = false;
        }
    }
    if (op == TN_DISK_FLUSH) {
        memcpy(a->then, r->now, sizeof(a->then));
        for (unsigned i = 0; i < SECTORS; i++)
            a->known[i] = r->known[i] && r->writing[i] == 0;
    }
    r->o.disk.ops->submit(r->o.disk.ctx, &a->req);
}

static uint64_t coin(void *ctx)
{
    uint64_t *seed = (uint64_t *)ctx;

    *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
    return *seed >> 33;
}

static void reopen(struct rig *r)
{
    struct tn_overlay_layout l;

    FZ_ASSERT(tn_overlay_parse(&l, r->over.now, TN_OVERLAY_HEADER, r->over.disk.size) == 0);
    memcpy(r->bitmap, r->over.now + l.bitmap_offset, sizeof(r->bitmap));
    memset(r->work, 0, sizeof(r->work));
    FZ_ASSERT(tn_overlay_work(&l) <= sizeof(r->work));
    FZ_ASSERT(tn_overlay_init(&r->o, &l, &r->base.disk, &r->over.disk, r->bitmap, r->work) == 0);
}

static void crash(struct rig *r)
{
    bool base_async = r->base.async, over_async = r->over.async;

    sim_crash(&r->base, coin, &r->seed);
    sim_crash(&r->over, coin, &r->seed);
    r->base.async = r->over.async = false;
    r->base.fail_ops = r->over.fail_ops = 0;
    reopen(r);
    for (unsigned i = 0; i < ASKS; i++)
        r->ask[i].busy = false;
    for (uint64_t s = 0; s < SECTORS; s++) {
        struct ask *a = &r->ask[0];

        r->writing[s] = 0;
        r->known[s] = r->safe_known[s];
        r->now[s] = r->safe[s];
        memset(&a->req, 0, sizeof(a->req));
        a->busy = true;
        a->iov[0].base = a->bytes;
        a->iov[0].len = 512;
        a->req.offset = s * 512;
        a->req.len = 512;
        a->req.iov = a->iov;
        a->req.iovs = 1;
        a->req.done = on_done;
        a->req.ctx = a;
        a->touched[0] = false;
        r->o.disk.ops->submit(r->o.disk.ctx, &a->req);
        FZ_ASSERT(!a->busy);
        /* What is there stays there, for good. */
        r->now[s] = r->safe[s] = a->bytes[0];
        r->known[s] = r->safe_known[s] = true;
        for (unsigned k = 0; k < 512; k++)
            r->known[s] &= a->bytes[k] == a->bytes[0];
        r->safe_known[s] = r->known[s];
    }
    r->base.async = base_async;
    r->over.async = over_async;
}

static void fuzz_disk(struct fz *z)
{
    struct rig *r = &rig;
    uint8_t header[TN_OVERLAY_HEADER], flags = fz_u8(z);

    memset(r, 0, sizeof(*r));
    FZ_ASSERT(tn_overlay_build(&r->layout, SIZE, NULL, header, sizeof(header)) == 0);
    sim_init(&r->base, SIZE, true);
    sim_init(&r->over, r->layout.file_len, false);
    r->base.async = flags & 1;
    r->over.async = flags & 2;
    memcpy(r->over.now, header, sizeof(header));
    if (flags & 4) /* a wreck: any bits */
        fz_bytes(z, r->over.now + r->layout.bitmap_offset, 16);
    memcpy(r->over.safe, r->over.now, r->layout.file_len);
    for (unsigned i = 0; i < ASKS; i++)
        r->ask[i].rig = r;
    reopen(r);
    for (unsigned s = 0; s < SECTORS; s++) {
        memset(r->base.now + s * 512, 2 * (int)s + 2, 512);
        r->now[s] = tn_overlay_test(r->bitmap, s) ? 0 : (uint8_t)(2 * s + 2);
        r->safe[s] = r->now[s];
        r->known[s] = r->safe_known[s] = true;
    }
    for (unsigned op = 0; op < 512 && z->left > 0; op++) {
        uint8_t what = fz_u8(z);

        switch (what & 7) {
        case 0:
        case 1:
        case 2:
            begin(r, z);
            break;
        case 3:
            r->o.disk.ops->kick(r->o.disk.ctx);
            break;
        case 4:
        case 5:
            r->o.disk.ops->kick(r->o.disk.ctx);
            sim_step(what & 8 ? &r->base : &r->over, what >> 4);
            break;
        case 6:
            if (what & 8)
                r->o.disk.ops->drain(r->o.disk.ctx);
            else
                r->over.fail_ops = what >> 4 == 15 ? fz_u8(z) & 0x1fu : 0;
            r->over.fail = what & 16 ? TN_ENOSPC : TN_ESYS;
            r->base.fail = TN_ESYS;
            r->base.fail_ops = what >> 4 == 13;
            break;
        default:
            if (what >> 4 == 0) {
                r->seed = fz_u32(z);
                crash(r);
            }
            break;
        }
    }
    r->o.disk.ops->drain(r->o.disk.ctx);
    for (unsigned i = 0; i < ASKS; i++)
        FZ_ASSERT(!r->ask[i].busy);
    FZ_ASSERT(r->o.under_way == 0 && !r->o.wait.head && !r->o.next.head && !r->o.now.head);
    FZ_ASSERT(!r->base.broken && !r->over.broken && r->base.listed == 0);
    for (unsigned s = 0; s < SECTORS; s++)
        FZ_ASSERT(r->base.now[s * 512] == (uint8_t)(2 * s + 2));
    FZ_ASSERT(memcmp(r->over.now, header, sizeof(header)) == 0);
    sim_free(&r->base);
    sim_free(&r->over);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fz z;

    fz_init(&z, data, size);
    fuzz_header(&z);
    fuzz_bitmap(&z);
    fuzz_disk(&z);
    return 0;
}
