/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_overlay.h"

#include "disk_sim.h"
#include "test.h"

/* ---- the format ---- */

static const uint64_t sizes[] = {
    512,        4096,          1u << 20, (16ull << 20) - 512, 16ull << 20, (16ull << 20) + 512,
    1ull << 40, TN_OVERLAY_MAX};

static void only_sizes_that_can_be_are_built(void **state)
{
    static const uint64_t bad[] = {0,         1, 511, 513, TN_OVERLAY_MAX + 512, UINT64_MAX - 511,
                                   UINT64_MAX};
    struct tn_overlay_layout l, zero;
    uint8_t h[TN_OVERLAY_HEADER];

    (void)state;
    memset(&zero, 0, sizeof(zero));
    for (size_t i = 0; i < COUNT(bad); i++) {
        memset(&l, 1, sizeof(l));
        assert_int_equal(tn_overlay_build(&l, bad[i], NULL, h, sizeof(h)), TN_ERANGE);
        assert_memory_equal(&l, &zero, sizeof(l));
    }
    assert_int_equal(tn_overlay_build(&l, 512, NULL, h, sizeof(h) - 1), TN_ENOSPC);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        assert_int_equal(tn_overlay_build(&l, sizes[i], NULL, h, sizeof(h)), 0);
        assert_int_equal(l.size, sizes[i]);
        assert_int_equal(l.bitmap_offset, 4096);
        assert_true(l.bitmap_len >= (sizes[i] / 512 + 7) / 8);
        assert_true(l.bitmap_len < sizes[i] / 4096 + 4097);
        assert_int_equal(l.data_offset, 4096 + l.bitmap_len);
        assert_int_equal(l.file_len, l.data_offset + sizes[i]);
    }
}

static void what_was_built_is_parsed(void **state)
{
    uint8_t h[TN_OVERLAY_HEADER], id[TN_OVERLAY_ID], *exact;
    struct tn_overlay_layout built, parsed;

    (void)state;
    for (size_t i = 0; i < sizeof(id); i++)
        id[i] = (uint8_t)(i + 1);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        assert_int_equal(tn_overlay_build(&built, sizes[i], i & 1 ? id : NULL, h, sizeof(h)), 0);
        exact = test_exact(h, sizeof(h));
        assert_int_equal(tn_overlay_parse(&parsed, exact, sizeof(h), built.file_len), 0);
        assert_memory_equal(&parsed, &built, sizeof(built));
        assert_int_equal(tn_overlay_parse(&parsed, exact, sizeof(h), UINT64_MAX), 0);
        free(exact);
    }
}

static void c06_a_file_that_ends_early_is_refused(void **state)
{
    struct tn_overlay_layout l, parsed, zero;
    uint8_t h[TN_OVERLAY_HEADER], *exact;

    (void)state;
    memset(&zero, 0, sizeof(zero));
    assert_int_equal(tn_overlay_build(&l, 1u << 20, NULL, h, sizeof(h)), 0);
    for (size_t len = 0; len < sizeof(h); len++) {
        exact = test_exact(h, len);
        memset(&parsed, 1, sizeof(parsed));
        assert_int_equal(tn_overlay_parse(&parsed, exact, len, l.file_len), TN_ETRUNC);
        assert_memory_equal(&parsed, &zero, sizeof(zero));
        free(exact);
    }
    for (uint64_t len = 0; len < l.file_len; len += len < 9000 ? 1 : 512) {
        assert_int_equal(tn_overlay_parse(&parsed, h, sizeof(h), len), TN_ETRUNC);
        assert_memory_equal(&parsed, &zero, sizeof(zero));
    }
    assert_int_equal(tn_overlay_parse(&parsed, h, sizeof(h), l.file_len - 1), TN_ETRUNC);
}

static void c06_every_number_of_a_hostile_header_is_checked(void **state)
{
    const uint64_t m = UINT64_MAX, top = 1ull << 63, page = 4096;
    const struct {
        unsigned at, len;
        uint64_t value;
        int want;
    } row[] = {
        {0, 8, 0x6c766f6e6f6e6575, TN_EFORMAT}, /* another magic */
        {8, 4, 0, TN_EUNSUP},
        {8, 4, 2, TN_EUNSUP},
        {8, 4, m, TN_EUNSUP},
        {12, 4, 0, TN_EFORMAT},
        {12, 4, 4095, TN_EFORMAT},
        {12, 4, m, TN_EFORMAT},
        {16, 8, 0, TN_ERANGE}, /* size */
        {16, 8, 1, TN_ERANGE},
        {16, 8, (1u << 20) + 1, TN_ERANGE},
        {16, 8, TN_OVERLAY_MAX + 512, TN_ERANGE},
        {16, 8, m - 511, TN_ERANGE},
        {16, 8, top, TN_ERANGE},
        {16, 8, 17u << 20, TN_ERANGE}, /* the bitmap is too short for it */
        {16, 8, (1u << 20) + 512, TN_ETRUNC},
        {24, 8, 0, TN_EOVERLAP}, /* bitmap offset */
        {24, 8, 512, TN_ERANGE},
        {24, 8, 8192, TN_EOVERLAP},
        {24, 8, 4097, TN_ERANGE},
        {24, 8, top, TN_EOVERLAP},
        {24, 8, m - 4095, TN_EOVERLAP},
        {24, 8, m, TN_ERANGE},
        {32, 8, 0, TN_ERANGE}, /* bitmap length */
        {32, 8, 4095, TN_ERANGE},
        {32, 8, 8192, TN_ERANGE},
        {32, 8, top, TN_ERANGE},
        {32, 8, m - 4095, TN_ERANGE},
        {40, 8, 0, TN_EOVERLAP}, /* data offset */
        {40, 8, page, TN_EOVERLAP},
        {40, 8, 8193, TN_ERANGE},
        {40, 8, 3 * page, TN_ETRUNC},
        {40, 8, top, TN_ETRUNC},
        {40, 8, m - 4095, TN_ETRUNC},
        {80, 1, 1, TN_EFORMAT}, /* what should be 0 */
        {4095, 1, 1, TN_EFORMAT},
    };
    struct tn_overlay_layout l, parsed, zero;
    uint8_t h[TN_OVERLAY_HEADER], bad[TN_OVERLAY_HEADER];

    (void)state;
    memset(&zero, 0, sizeof(zero));
    assert_int_equal(tn_overlay_build(&l, 1u << 20, NULL, h, sizeof(h)), 0);
    for (size_t i = 0; i < COUNT(row); i++) {
        memcpy(bad, h, sizeof(h));
        tn_put_(bad + row[i].at, row[i].len, row[i].value);
        memset(&parsed, 1, sizeof(parsed));
        assert_int_equal(tn_overlay_parse(&parsed, bad, sizeof(bad), l.file_len), row[i].want);
        assert_memory_equal(&parsed, &zero, sizeof(zero));
    }
    for (unsigned at = 80; at < sizeof(h); at++) {
        memcpy(bad, h, sizeof(h));
        bad[at] = 0x80;
        assert_int_equal(tn_overlay_parse(&parsed, bad, sizeof(bad), l.file_len), TN_EFORMAT);
    }
    /* Other places than build's are fine, as long as nothing overlaps. */
    tn_put_(h + 24, 8, 3 * page);
    tn_put_(h + 40, 8, 5 * page);
    assert_int_equal(tn_overlay_parse(&parsed, h, sizeof(h), 5 * page + (1u << 20)), 0);
    assert_int_equal(parsed.file_len, 5 * page + (1u << 20));
    assert_int_equal(tn_overlay_parse(&parsed, h, sizeof(h), 5 * page + (1u << 20) - 1), TN_ETRUNC);
    tn_put_(h + 40, 8, 3 * page);
    assert_int_equal(tn_overlay_parse(&parsed, h, sizeof(h), l.file_len + 8 * page), TN_EOVERLAP);
}

/* ---- the bitmap ---- */

static void bits_and_runs_are_those_of_a_simple_array(void **state)
{
    enum { BITS = 300 };
    uint8_t bitmap[(BITS + 7) / 8];
    bool ref[BITS];
    uint64_t seed = 3;

    (void)state;
    for (unsigned round = 0; round < 200; round++) {
        memset(bitmap, 0, sizeof(bitmap));
        memset(ref, 0, sizeof(ref));
        for (unsigned i = 0; i < 1 + round % 7; i++) {
            uint64_t s = test_random(&seed) % BITS;
            uint64_t n = test_random(&seed) % (BITS - s + 1);
            bool changed = false, set;

            for (uint64_t k = s; k < s + n; k++) {
                changed |= !ref[k];
                ref[k] = true;
            }
            assert_int_equal(tn_overlay_set(bitmap, s, n), changed);
            for (uint64_t k = 0; k < BITS; k++)
                assert_int_equal(tn_overlay_test(bitmap, k), ref[k]);
            for (uint64_t from = 0; from < BITS; from += 1 + test_random(&seed) % 5) {
                uint64_t most = test_random(&seed) % (BITS - from + 1), want = 0;

                while (want < most && ref[from + want] == ref[from])
                    want++;
                assert_int_equal(tn_overlay_run(bitmap, from, most, &set), want);
                assert_int_equal(set, most > 0 && ref[from]);
            }
        }
    }
}

static void a_bitmap_is_not_read_behind_its_last_bit(void **state)
{
    uint8_t *bitmap = test_exact("\xff\xff", 2);
    bool set;

    (void)state;
    assert_int_equal(tn_overlay_run(bitmap, 0, 16, &set), 16);
    assert_int_equal(tn_overlay_run(bitmap, 16, 0, &set), 0);
    assert_false(set);
    assert_false(tn_overlay_set(bitmap, 16, 0));
    assert_false(tn_overlay_set(bitmap, 9, 7));
    free(bitmap);
}

/* ---- the disk ---- */

#define MIB  (1ull << 20)
#define SIZE (17 * MIB)
#define LAST (SIZE / 512)
#define ASKS 24u
#define MOST 40u  /* sectors of a request */
#define MANY 700u /* iovecs of a request */

/* What a sector holds: its number and a version; version 0 is the base's. */
static void stamp(uint8_t *sector, uint64_t s, uint64_t version)
{
    memset(sector, (int)(version * 37 + s), 512);
    tn_put_(sector, 8, s);
    tn_put_(sector + 8, 8, version);
    tn_put_(sector + 504, 8, version);
}

struct ask {
    struct tn_disk_req req;
    struct tn_iov iov[MANY];
    uint8_t bytes[MOST * 512];
    uint64_t version; /* of what it writes */
    uint64_t low[MOST];
    struct rig *rig;
    bool busy;
    int result;
    uint64_t *snap; /* FLUSH: what was done when it began */
};

struct rig {
    struct sim base, over;
    struct tn_overlay o;
    struct tn_overlay_layout layout;
    uint8_t *bitmap, *work;
    struct ask ask[ASKS];
    uint64_t version;
    uint64_t done[LAST];  /* the newest version that is done */
    uint64_t begun[LAST]; /* the newest that was begun */
    uint64_t zero[LAST];  /* the newest that was a ZERO or DISCARD */
    uint64_t safe[LAST];  /* no crash loses it */
    bool writing[LAST];
    bool failing; /* errors are expected */
    uint64_t seed;
    unsigned ended, errors;
};

/* The sectors that the tests use: about the ends, and about the border of the bitmap's pages. */
static uint64_t place(uint64_t n)
{
    const uint64_t border = 8 * TN_OVERLAY_PAGE;

    return n < 64 ? n : n < 192 ? border - 64 + (n - 64) : LAST - 64 + (n - 192);
}
#define PLACES 256u

static void check_sector(struct rig *r, const uint8_t *sector, uint64_t s, uint64_t low,
                         uint64_t high)
{
    uint64_t version = tn_get_(sector + 8, 8);
    uint8_t want[512];

    if (tn_get_(sector, 8) == 0 && version == 0 && tn_get_(sector + 504, 8) == 0 &&
        sector[100] == 0 && r->zero[s] >= low && r->zero[s] > 0)
        return;
    stamp(want, s, version);
    assert_memory_equal(sector, want, 512);
    if (version < low || version > high)
        fail_msg("sector %d: version %d, not %d to %d", (int)s, (int)version, (int)low, (int)high);
}

static void ask_done(struct tn_disk_req *req, int result)
{
    struct ask *a = req->ctx;
    struct rig *r = a->rig;
    uint64_t s = req->offset / 512;

    assert_true(a->busy);
    a->busy = false;
    a->result = result;
    r->ended++;
    if (result < 0) {
        assert_true(r->failing);
        r->errors++;
    }
    for (uint64_t i = 0; i < req->len / 512; i++) {
        if (req->op == TN_DISK_READ) {
            if (result == 0)
                check_sector(r, a->bytes + i * 512, s + i, a->low[i], r->begun[s + i]);
            continue;
        }
        r->writing[s + i] = false;
        if (result == 0) {
            r->done[s + i] = a->version;
            if (req->flags & TN_DISK_F_FUA)
                r->safe[s + i] = a->version;
        }
    }
    if (req->op == TN_DISK_FLUSH && result == 0) {
        for (uint64_t i = 0; i < PLACES; i++) {
            if (r->safe[place(i)] < a->snap[i])
                r->safe[place(i)] = a->snap[i];
        }
    }
}

static void open_overlay(struct rig *r)
{
    struct tn_overlay_layout l;

    memcpy(r->bitmap, r->over.now + r->layout.bitmap_offset, r->layout.bitmap_len);
    memset(r->work, 0, tn_overlay_work(&r->layout));
    assert_int_equal(tn_overlay_parse(&l, r->over.now, TN_OVERLAY_HEADER, r->over.disk.size), 0);
    assert_int_equal(tn_overlay_init(&r->o, &l, &r->base.disk, &r->over.disk, r->bitmap, r->work),
                     0);
}

static struct rig *rig_new(bool base_async, bool over_async, uint64_t seed)
{
    struct rig *r = calloc(1, sizeof(*r));
    uint8_t header[TN_OVERLAY_HEADER];

    assert_non_null(r);
    assert_int_equal(tn_overlay_build(&r->layout, SIZE, NULL, header, sizeof(header)), 0);
    sim_init(&r->base, SIZE, true);
    sim_init(&r->over, r->layout.file_len, false);
    r->base.async = base_async;
    r->over.async = over_async;
    r->seed = seed;
    for (uint64_t i = 0; i < PLACES; i++)
        stamp(r->base.now + place(i) * 512, place(i), 0);
    memcpy(r->over.now, header, sizeof(header));
    memcpy(r->over.safe, header, sizeof(header));
    r->bitmap = malloc(r->layout.bitmap_len);
    r->work = malloc(tn_overlay_work(&r->layout));
    assert_true(r->bitmap && r->work);
    for (unsigned i = 0; i < ASKS; i++) {
        r->ask[i].rig = r;
        r->ask[i].snap = calloc(PLACES, sizeof(uint64_t));
        assert_non_null(r->ask[i].snap);
    }
    open_overlay(r);
    return r;
}

static void rig_free(struct rig *r)
{
    assert_false(r->base.broken || r->over.broken);
    assert_int_equal(
        r->base.ops[TN_DISK_WRITE] + r->base.ops[TN_DISK_ZERO] + r->base.ops[TN_DISK_DISCARD], 0);
    for (uint64_t i = 0; i < PLACES; i++) {
        uint8_t want[512];

        stamp(want, place(i), 0);
        assert_memory_equal(r->base.now + place(i) * 512, want, 512); /* never written */
    }
    for (unsigned i = 0; i < ASKS; i++)
        free(r->ask[i].snap);
    sim_free(&r->base);
    sim_free(&r->over);
    free(r->bitmap);
    free(r->work);
    free(r);
}

/* Begins a request; chop: about how many bytes an iovec has, at most. Sectors being written are
 * left alone, so that each sector's versions have an order. */
static void ask(struct rig *r, struct ask *a, uint32_t op, uint32_t flags, uint64_t s, uint64_t n,
                uint64_t chop)
{
    uint64_t left, len;
    uint32_t k = 0;

    for (uint64_t i = 0; op != TN_DISK_READ && i < n; i++) {
        if (r->writing[s + i])
            return;
    }
    a->busy = true;
    a->result = 1;
    memset(&a->req, 0, sizeof(a->req));
    a->req.op = op;
    a->req.flags = flags;
    a->req.done = ask_done;
    a->req.ctx = a;
    a->req.iov = a->iov;
    if (op == TN_DISK_FLUSH) {
        for (uint64_t i = 0; i < PLACES; i++)
            a->snap[i] = r->done[place(i)];
    } else {
        a->req.offset = s * 512;
        a->req.len = n * 512;
    }
    if (op != TN_DISK_FLUSH && op != TN_DISK_READ) {
        a->version = ++r->version;
        for (uint64_t i = 0; i < n; i++) {
            r->writing[s + i] = true;
            r->begun[s + i] = a->version;
            if (op != TN_DISK_WRITE)
                r->zero[s + i] = a->version;
            stamp(a->bytes + i * 512, s + i, a->version);
        }
    }
    if (op == TN_DISK_READ) {
        memset(a->bytes, 0xcc, sizeof(a->bytes));
        for (uint64_t i = 0; i < n; i++)
            a->low[i] = r->done[s + i];
    }
    for (left = op <= TN_DISK_WRITE ? n * 512 : 0; left > 0; left -= len, k++) {
        len = 1 + test_random(&r->seed) % chop;
        if (len > left || k == MANY - 1)
            len = left;
        a->iov[k].base = a->bytes + (n * 512 - left);
        a->iov[k].len = len;
    }
    a->req.iovs = k;
    r->o.disk.ops->submit(r->o.disk.ctx, &a->req);
}

static void ask_any(struct rig *r)
{
    static const uint64_t chops[] = {3, 30, 600, 512 * MOST};
    struct ask *a = &r->ask[test_random(&r->seed) % ASKS];
    uint64_t dice = test_random(&r->seed) % 100, at = test_random(&r->seed) % PLACES, n;
    uint32_t op = dice < 45   ? TN_DISK_READ
                  : dice < 80 ? TN_DISK_WRITE
                  : dice < 86 ? TN_DISK_ZERO
                  : dice < 91 ? TN_DISK_DISCARD
                              : TN_DISK_FLUSH;
    uint64_t end = at < 64 ? 64 : at < 192 ? 192 : PLACES;

    if (a->busy)
        return;
    n = 1 + test_random(&r->seed) % MOST;
    if (n > end - at)
        n = end - at;
    ask(r, a, op, test_random(&r->seed) % 6 == 0 ? TN_DISK_F_FUA : 0, place(at), n,
        chops[test_random(&r->seed) % COUNT(chops)]);
}

static void step(struct rig *r)
{
    struct sim *d = test_random(&r->seed) & 1 ? &r->base : &r->over;

    sim_step(d, test_random(&r->seed));
}

static void read_all(struct rig *r)
{
    struct ask *a = &r->ask[0];

    assert_false(a->busy);
    for (uint64_t i = 0; i < PLACES; i += 32) {
        ask(r, a, TN_DISK_READ, 0, place(i), 32, 4096);
        r->o.disk.ops->drain(r->o.disk.ctx);
        assert_false(a->busy);
        assert_int_equal(a->result, 0);
    }
}

static void random_requests_read_what_was_written(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 4; how++) {
        struct rig *r = rig_new(how & 1, how & 2, 11 + how);

        for (unsigned round = 0; round < 6000; round++) {
            for (uint64_t k = test_random(&r->seed) % 4; k > 0; k--)
                ask_any(r);
            r->o.disk.ops->kick(r->o.disk.ctx);
            for (uint64_t k = test_random(&r->seed) % 6; k > 0; k--)
                step(r);
        }
        r->o.disk.ops->drain(r->o.disk.ctx);
        for (unsigned i = 0; i < ASKS; i++)
            assert_false(r->ask[i].busy);
        assert_int_equal(r->o.under_way, 0);
        assert_true(r->ended > 1000);
        read_all(r);
        rig_free(r);
    }
}

static uint64_t coin(void *ctx)
{
    return test_random(ctx);
}

/* After a crash the disk is what survived: any version from the last durable one on. */
static void crash(struct rig *r)
{
    bool base_async, over_async, failing = r->failing;

    r->failing = false;
    r->base.fail_ops = r->over.fail_ops = 0;
    sim_crash(&r->over, coin, &r->seed);
    sim_crash(&r->base, coin, &r->seed);
    for (unsigned i = 0; i < ASKS; i++)
        r->ask[i].busy = false;
    base_async = r->base.async;
    over_async = r->over.async;
    r->base.async = r->over.async = false;
    open_overlay(r);
    for (uint64_t i = 0; i < PLACES; i++) {
        uint64_t s = place(i);
        struct ask *a = &r->ask[0];

        r->done[s] = r->safe[s];
        ask(r, a, TN_DISK_READ, 0, s, 1, 512);
        assert_false(r->ask[0].busy);
        /* What survived is what is there from now on. */
        if (tn_get_(r->ask[0].bytes + 504, 8) == 0 && r->ask[0].bytes[100] == 0 &&
            r->zero[s] >= r->safe[s] && r->zero[s] > 0)
            r->done[s] = r->zero[s];
        else
            r->done[s] = tn_get_(r->ask[0].bytes + 8, 8);
        r->begun[s] = r->safe[s] = r->done[s];
        if (r->zero[s] > r->done[s])
            r->zero[s] = 0;
        r->writing[s] = false;
    }
    r->base.async = base_async;
    r->over.async = over_async;
    r->failing = failing;
}

static void a_crash_at_any_point_never_loses_what_was_flushed(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 2; how++) {
        struct rig *r = rig_new(how & 1, true, 5 + how);

        for (unsigned life = 0; life < 400; life++) {
            uint64_t rounds = test_random(&r->seed) % 60;

            for (uint64_t k = 0; k < rounds; k++) {
                ask_any(r);
                if (test_random(&r->seed) & 1)
                    r->o.disk.ops->kick(r->o.disk.ctx);
                step(r);
                step(r);
            }
            crash(r);
        }
        rig_free(r);
    }
}

static void errors_come_through_and_harm_nothing_else(void **state)
{
    struct rig *r = rig_new(true, true, 77);

    (void)state;
    r->failing = true;
    for (unsigned round = 0; round < 12000; round++) {
        uint64_t dice = test_random(&r->seed) % 60;

        r->base.fail = r->over.fail = dice & 1 ? TN_ENOSPC : TN_ESYS;
        r->base.fail_ops = dice == 0 ? 1u << TN_DISK_READ : 0;
        /* Not FLUSH: after that nothing is durable any more. */
        r->over.fail_ops = dice < 8 ? (uint32_t)test_random(&r->seed) & 0x1b : 0;
        ask_any(r);
        r->o.disk.ops->kick(r->o.disk.ctx);
        step(r);
        step(r);
        if (round % 500 == 499)
            crash(r);
    }
    assert_true(r->errors > 50);
    r->over.fail_ops = r->base.fail_ops = 0;
    r->o.disk.ops->drain(r->o.disk.ctx);
    read_all(r);
    rig_free(r);
}

static int simple(struct rig *r, uint32_t op, uint32_t flags, uint64_t s, uint64_t n)
{
    ask(r, &r->ask[1], op, flags, s, n, 4096);
    r->o.disk.ops->kick(r->o.disk.ctx);
    r->o.disk.ops->drain(r->o.disk.ctx);
    assert_false(r->ask[1].busy);
    return r->ask[1].result;
}

static void after_a_flush_that_failed_none_succeeds(void **state)
{
    (void)state;
    for (unsigned nth = 1; nth <= 2; nth++) {
        struct rig *r = rig_new(false, true, 1);

        r->failing = true;
        assert_int_equal(simple(r, TN_DISK_WRITE, 0, 0, 8), 0);
        if (nth == 1)
            r->over.fail_ops = 1u << TN_DISK_FLUSH;
        r->over.fail = TN_ENOSPC;
        ask(r, &r->ask[2], TN_DISK_FLUSH, 0, 0, 0, 1);
        r->o.disk.ops->kick(r->o.disk.ctx);
        while (nth == 2 && r->over.ops[TN_DISK_FLUSH] < 2)
            sim_step(&r->over, 0);
        r->over.fail_ops = 1u << TN_DISK_FLUSH;
        r->o.disk.ops->drain(r->o.disk.ctx);
        assert_int_equal(r->ask[2].result, TN_ENOSPC);
        r->over.fail_ops = 0;
        assert_int_equal(simple(r, TN_DISK_FLUSH, 0, 0, 0), TN_ESYS);
        assert_int_equal(simple(r, TN_DISK_WRITE, TN_DISK_F_FUA, 0, 8), TN_ESYS);
        assert_int_equal(simple(r, TN_DISK_WRITE, 0, 0, 8), 0);
        assert_int_equal(simple(r, TN_DISK_READ, 0, 0, 8), 0);
        if (nth == 1) /* no bit was written, since its data may not be there */
            assert_int_equal(r->over.now[r->layout.bitmap_offset], 0);
        rig_free(r);
    }
}

static void a_bitmap_that_was_not_written_is_written_by_the_next_flush(void **state)
{
    struct rig *r = rig_new(false, true, 1);

    (void)state;
    r->failing = true;
    assert_int_equal(simple(r, TN_DISK_WRITE, 0, 0, 8), 0);
    r->over.fail_ops = 1u << TN_DISK_WRITE;
    r->over.fail = TN_ENOSPC;
    assert_int_equal(simple(r, TN_DISK_FLUSH, 0, 0, 0), TN_ENOSPC);
    assert_int_equal(r->over.now[r->layout.bitmap_offset], 0);
    r->over.fail_ops = 0;
    assert_int_equal(simple(r, TN_DISK_FLUSH, 0, 0, 0), 0);
    assert_int_equal(r->over.now[r->layout.bitmap_offset], 0xff);
    rig_free(r);
}

static void a_flush_costs_no_more_than_it_must(void **state)
{
    struct rig *r = rig_new(false, false, 1);
    struct sim *d = &r->over;

    (void)state;
    assert_int_equal(simple(r, TN_DISK_WRITE, 0, 3, 8), 0);
    assert_int_equal(d->ops[TN_DISK_FLUSH], 0);
    assert_int_equal(simple(r, TN_DISK_FLUSH, 0, 0, 0), 0);
    assert_int_equal(d->ops[TN_DISK_FLUSH], 2);
    assert_int_equal(d->ops[TN_DISK_WRITE], 2); /* the data, the bitmap's page */
    assert_int_equal(simple(r, TN_DISK_WRITE, 0, 3, 8), 0);
    assert_int_equal(simple(r, TN_DISK_FLUSH, 0, 0, 0), 0);
    assert_int_equal(d->ops[TN_DISK_FLUSH], 3); /* no bit has changed */
    assert_int_equal(d->ops[TN_DISK_WRITE], 3);
    /* FUA on sectors that are the overlay's is the overlay's own FUA; on others a flush. */
    assert_int_equal(simple(r, TN_DISK_WRITE, TN_DISK_F_FUA, 3, 8), 0);
    assert_int_equal(d->fua, 1);
    assert_int_equal(d->ops[TN_DISK_FLUSH], 3);
    assert_int_equal(simple(r, TN_DISK_WRITE, TN_DISK_F_FUA, 4, 8), 0);
    assert_int_equal(d->fua, 1);
    assert_int_equal(d->ops[TN_DISK_FLUSH], 5);
    /* A DISCARD or a ZERO hides the base. */
    assert_int_equal(simple(r, TN_DISK_ZERO, 0, 20, 4), 0);
    assert_int_equal(simple(r, TN_DISK_DISCARD, 0, 24, 4), 0);
    assert_int_equal(simple(r, TN_DISK_READ, 0, 16, 16), 0);
    for (unsigned i = 4 * 512; i < 12 * 512; i++)
        assert_int_equal(r->ask[1].bytes[i], 0);
    /* Both pages of the bitmap, in one request. */
    assert_int_equal(simple(r, TN_DISK_WRITE, 0, 8 * TN_OVERLAY_PAGE - 2, 4), 0);
    d->ops[TN_DISK_WRITE] = 0;
    assert_int_equal(simple(r, TN_DISK_FLUSH, 0, 0, 0), 0);
    assert_int_equal(d->ops[TN_DISK_WRITE], 1);
    assert_int_equal(r->over.now[r->layout.bitmap_offset + 4095], 0xc0);
    assert_int_equal(r->over.now[r->layout.bitmap_offset + 4096], 0x03);
    rig_free(r);
}

static void fua_waits_for_bits_that_a_flush_is_still_writing(void **state)
{
    struct rig *r = rig_new(false, true, 1);

    (void)state;
    assert_int_equal(simple(r, TN_DISK_WRITE, 0, 0, 8), 0);
    ask(r, &r->ask[2], TN_DISK_FLUSH, 0, 0, 0, 1); /* it has taken the bits, and written nothing */
    ask(r, &r->ask[3], TN_DISK_WRITE, TN_DISK_F_FUA, 0, 8, 4096);
    r->o.disk.ops->kick(r->o.disk.ctx);
    assert_int_equal(r->over.count, 2);
    sim_step(&r->over, 1); /* the data are there */
    assert_true(r->ask[3].busy);
    assert_int_equal(r->over.now[r->layout.bitmap_offset], 0);
    r->o.disk.ops->drain(r->o.disk.ctx);
    assert_false(r->ask[3].busy);
    assert_int_equal(r->over.safe[r->layout.bitmap_offset], 0xff);
    rig_free(r);
}

static void c02_a_range_outside_reaches_neither_part(void **state)
{
    struct rig *r = rig_new(false, false, 1);

    (void)state;
    r->failing = true;
    for (uint32_t op = 0; op <= TN_DISK_ZERO + 1; op++) {
        struct tn_disk_req req = {op, 0,        SIZE,       512,  r->ask[0].iov,
                                  1,  ask_done, &r->ask[0], NULL, {0, 0}};

        if (op == TN_DISK_FLUSH)
            continue;
        r->ask[0].iov[0].base = r->ask[0].bytes;
        r->ask[0].iov[0].len = 512;
        r->ask[0].busy = true;
        req.len = op == TN_DISK_READ ? 512 : 0; /* ask_done marks sectors */
        req.offset = op == TN_DISK_READ ? SIZE : SIZE + 512;
        r->o.disk.ops->submit(r->o.disk.ctx, &req);
        assert_int_equal(r->ask[0].result, op > TN_DISK_ZERO ? TN_EUNSUP : TN_ERANGE);
    }
    for (unsigned op = 0; op <= TN_DISK_ZERO; op++)
        assert_int_equal(r->base.ops[op] + r->over.ops[op], 0);
    rig_free(r);
}

static void parts_that_do_not_fit_are_refused(void **state)
{
    struct rig *r = rig_new(false, false, 1);
    struct tn_disk base = r->base.disk, over = r->over.disk;
    static struct tn_overlay o;

    (void)state;
    base.size += 512;
    assert_int_equal(tn_overlay_init(&o, &r->layout, &base, &over, r->bitmap, r->work), TN_ERANGE);
    base.size -= 1024;
    assert_int_equal(tn_overlay_init(&o, &r->layout, &base, &over, r->bitmap, r->work), TN_ERANGE);
    base = r->base.disk;
    over.size -= 512;
    assert_int_equal(tn_overlay_init(&o, &r->layout, &base, &over, r->bitmap, r->work), TN_ETRUNC);
    over = r->over.disk;
    over.block_size = 4096;
    assert_int_equal(tn_overlay_init(&o, &r->layout, &base, &over, r->bitmap, r->work), TN_EINVAL);
    over.block_size = 512;
    base.block_size = 1024;
    assert_int_equal(tn_overlay_init(&o, &r->layout, &base, &over, r->bitmap, r->work), TN_EINVAL);
    base.block_size = 512;
    base.physical_block = 4096;
    over.read_only = true;
    assert_int_equal(tn_overlay_init(&o, &r->layout, &base, &over, r->bitmap, r->work), 0);
    assert_true(o.disk.read_only);
    assert_int_equal(o.disk.physical_block, 4096);
    assert_int_equal(o.disk.size, SIZE);
    rig_free(r);
}

/* An asker that asks again from inside done does not make the stack grow. */
static unsigned again_left, again_depth, again_deepest;

static void again_done(struct tn_disk_req *req, int result)
{
    struct rig *r = req->ctx;

    assert_int_equal(result, 0);
    if (++again_depth > again_deepest)
        again_deepest = again_depth;
    if (again_left > 0) {
        again_left--;
        r->o.disk.ops->submit(r->o.disk.ctx, req);
        r->o.disk.ops->kick(r->o.disk.ctx);
    }
    again_depth--;
}

static void a_request_may_be_submitted_again_from_done(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 8; how++) {
        struct rig *r = rig_new(how & 1, how & 1, 9);
        struct tn_iov iov = {r->ask[0].bytes, 512};
        struct tn_disk_req req = {how & 2 ? TN_DISK_WRITE : TN_DISK_READ,
                                  how & 4 ? TN_DISK_F_FUA : 0,
                                  512,
                                  512,
                                  &iov,
                                  1,
                                  again_done,
                                  r,
                                  NULL,
                                  {0, 0}};

        again_left = 50000;
        again_depth = again_deepest = 0;
        r->o.disk.ops->submit(r->o.disk.ctx, &req);
        r->o.disk.ops->kick(r->o.disk.ctx);
        r->o.disk.ops->drain(r->o.disk.ctx);
        assert_int_equal(again_left, 0);
        assert_int_equal(again_deepest, 1);
        rig_free(r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_sizes_that_can_be_are_built),
        cmocka_unit_test(what_was_built_is_parsed),
        cmocka_unit_test(c06_a_file_that_ends_early_is_refused),
        cmocka_unit_test(c06_every_number_of_a_hostile_header_is_checked),
        cmocka_unit_test(bits_and_runs_are_those_of_a_simple_array),
        cmocka_unit_test(a_bitmap_is_not_read_behind_its_last_bit),
        cmocka_unit_test(parts_that_do_not_fit_are_refused),
        cmocka_unit_test(c02_a_range_outside_reaches_neither_part),
        cmocka_unit_test(random_requests_read_what_was_written),
        cmocka_unit_test(a_flush_costs_no_more_than_it_must),
        cmocka_unit_test(fua_waits_for_bits_that_a_flush_is_still_writing),
        cmocka_unit_test(a_crash_at_any_point_never_loses_what_was_flushed),
        cmocka_unit_test(errors_come_through_and_harm_nothing_else),
        cmocka_unit_test(after_a_flush_that_failed_none_succeeds),
        cmocka_unit_test(a_bitmap_that_was_not_written_is_written_by_the_next_flush),
        cmocka_unit_test(a_request_may_be_submitted_again_from_done),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
