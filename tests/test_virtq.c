/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_virtq.h"

#include "test.h"
#include "virtq_driver.h"

#include <pthread.h>

#define RAM  (1u << 20) /* two regions that touch, apart in this process, and a hole behind */
#define CUT  0x7f000u
#define DATA 0x60000u /* where tests put their buffers: behind every ring that they build */

struct rig {
    uint8_t *low, *high; /* on the heap, so that a byte too many is seen */
    uint64_t *low_dirty, *high_dirty;
    struct tn_mem_region table[4];
    struct tn_mem mem;
    struct tn_virtq q;
    struct tn_virtq_cfg cfg;
    struct vqd d;
    struct tn_virtq_chain chain;
    struct tn_iov iov[300];
};

static uint8_t *page_aligned(size_t size)
{
    uint8_t *p = aligned_alloc(4096, size);

    if (!p)
        abort();
    memset(p, 0, size);
    return p;
}

static void rig_open(struct rig *r)
{
    memset(r, 0, sizeof(*r));
    r->low = page_aligned(CUT);
    r->high = page_aligned(RAM - CUT);
    r->low_dirty = calloc(TN_MEM_DIRTY_WORDS(CUT), 8);
    r->high_dirty = calloc(TN_MEM_DIRTY_WORDS(RAM - CUT), 8);
    tn_mem_init(&r->mem, r->table, 4);
    assert_int_equal(tn_mem_add(&r->mem, 0, r->low, CUT), 0);
    assert_int_equal(tn_mem_add(&r->mem, CUT, r->high, RAM - CUT), 0);
    tn_virtq_init(&r->q);
}

static void rig_ring(struct rig *r, uint32_t size, bool packed, bool event_idx)
{
    struct tn_virtq_cfg cfg = {0, 0, 0, (uint16_t)size, packed, event_idx, true, false};

    vqd_free(&r->d);
    assert_true(vqd_init(&r->d, r->low, 0, 0x1000, size, packed, event_idx) <= DATA);
    cfg.desc = r->d.desc;
    cfg.driver = r->d.driver;
    cfg.device = r->d.device;
    r->cfg = cfg;
}

static void rig_start(struct rig *r, uint32_t size, bool packed, bool event_idx)
{
    tn_virtq_stop(&r->q);
    rig_ring(r, size, packed, event_idx);
    assert_int_equal(tn_virtq_start(&r->q, &r->mem, &r->cfg), 0);
}

static void rig_close(struct rig *r)
{
    vqd_free(&r->d);
    free(r->low);
    free(r->high);
    free(r->low_dirty);
    free(r->high_dirty);
}

static int rig_pop(struct rig *r)
{
    memset(&r->chain, 0x5a, sizeof(r->chain));
    memset(r->iov, 0x5a, sizeof(r->iov));
    return tn_virtq_pop(&r->q, &r->chain, r->iov, COUNT(r->iov));
}

static void no_chain(const struct tn_virtq_chain *c)
{
    assert_ptr_equal(c->iov, NULL);
    assert_int_equal(c->readable_len | c->writable_len | c->generation, 0);
    assert_int_equal(c->readable | c->writable | c->id | c->descs | c->at, 0);
}

/* The chain at the head is refused with err, outputs are void, and the ring stays broken. */
static void rejected(struct rig *r, int err)
{
    static const struct tn_iov no_iov;
    struct tn_virtq_state state;

    assert_int_equal(rig_pop(r), err);
    no_chain(&r->chain);
    if (r->iov[0].len != (size_t)0x5a5a5a5a5a5a5a5a)
        assert_memory_equal(&r->iov[0], &no_iov, sizeof(no_iov));
    assert_int_equal(rig_pop(r), err);
    assert_true(tn_virtq_pending(&r->q));
    assert_false(tn_virtq_notify_enable(&r->q));
    assert_false(tn_virtq_should_signal(&r->q));
    tn_virtq_save(&r->q, &state);
    assert_int_equal(state.error, err);
    tn_virtq_stop(&r->q); /* and works again after a reset */
    assert_int_equal(rig_pop(r), TN_ESTATE);
    rig_start(r, r->d.size, r->d.packed, r->d.event_idx);
    assert_int_equal(rig_pop(r), 0);
}

/* Puts one raw descriptor at slot i; in a packed ring it is available in the first lap. */
static void raw(struct rig *r, uint32_t i, uint64_t addr, uint32_t len, unsigned flags,
                unsigned extra)
{
    if (r->d.packed)
        flags |= 0x0080;
    vqd_desc(&r->d, r->d.desc + 16ull * i, addr, len, (uint16_t)flags, (uint16_t)extra);
}

/* Makes the split chain at head available; a packed one is already. */
static void offer(struct rig *r, unsigned head)
{
    if (r->d.packed)
        return;
    vqd_put(&r->d, r->d.driver + 4 + 2 * (r->d.added % r->d.size), 2, head);
    vqd_put(&r->d, r->d.driver + 2, 2, ++r->d.added);
}

#define EACH_FORMAT(r, packed) for (int packed = 0; packed < 2; packed++)

static void a01_zero_length_descriptors_end(void **state)
{
    struct rig r;

    (void)state;
    rig_open(&r);
    EACH_FORMAT(&r, packed)
    {
        static const struct vqd_buf buf[3] = {
            {UINT64_MAX, 0, false}, {DATA, 8, false}, {0, 0, true}};

        rig_start(&r, 8, packed, false);
        assert_true(vqd_add(&r.d, buf, 3) >= 0);
        assert_int_equal(rig_pop(&r), 1);
        assert_int_equal(r.chain.readable, 1);
        assert_int_equal(r.chain.writable, 0);
        assert_int_equal(r.chain.readable_len, 8);
        assert_int_equal(tn_virtq_push(&r.q, &r.chain, 0), 0);
        assert_true(vqd_add(&r.d, buf, 1) >= 0);
        assert_int_equal(rig_pop(&r), 1);
        assert_int_equal(r.chain.readable + r.chain.writable, 0);
    }
    rig_close(&r);
}

static void a02_zero_length_descriptors_with_the_dirty_log_on(void **state)
{
    struct rig r;

    (void)state;
    rig_open(&r);
    assert_int_equal(tn_mem_track(&r.mem, 0, r.low_dirty), 0);
    EACH_FORMAT(&r, packed)
    {
        struct vqd_buf buf[256];

        for (unsigned i = 0; i < 256; i++) {
            buf[i].addr = DATA + 4096 * (i % 4);
            buf[i].len = i % 2;
            buf[i].write = true;
        }
        rig_start(&r, 256, packed, false);
        assert_true(vqd_add(&r.d, buf, 256) >= 0);
        assert_int_equal(tn_virtq_pop(&r.q, &r.chain, r.iov, 127), TN_ENOSPC);
        assert_int_equal(tn_virtq_pop(&r.q, &r.chain, r.iov, 128), 1);
        assert_int_equal(r.chain.writable, 128);
        assert_int_equal(tn_virtq_push(&r.q, &r.chain, 128), 0);
    }
    rig_close(&r);
}

static void a03_index_jumps_beyond_the_ring(void **state)
{
    static const uint16_t jump[] = {9, 10, 256, 32767, 32768, 65535};
    struct rig r;

    (void)state;
    rig_open(&r);
    for (size_t i = 0; i < COUNT(jump); i++) {
        rig_start(&r, 8, false, false);
        vqd_put(&r.d, r.d.driver + 2, 2, jump[i]);
        rejected(&r, TN_EPROTO);
    }
    rig_start(&r, 8, false, false);
    raw(&r, 0, DATA, 1, 0, 0);
    vqd_put(&r.d, r.d.driver + 2, 2, 8);
    for (int i = 0; i < 8; i++)
        assert_int_equal(rig_pop(&r), 1);
    assert_int_equal(rig_pop(&r), 0);
    vqd_put(&r.d, r.d.driver + 2, 2, 7); /* and back */
    rejected(&r, TN_EPROTO);
    rig_close(&r);
}

static void a04_cycles_end(void **state)
{
    struct rig r;

    (void)state;
    rig_open(&r);
    for (unsigned length = 1; length <= 8; length++) {
        rig_start(&r, 8, false, false);
        for (unsigned i = 0; i < length; i++)
            raw(&r, i, DATA, 4, VQD_NEXT, (i + 1) % length);
        offer(&r, 0);
        rejected(&r, TN_EPROTO);
        for (unsigned i = 0; i < length; i++) /* without bytes too */
            raw(&r, i, DATA, 0, VQD_NEXT, (i + 1) % length);
        offer(&r, 0);
        rejected(&r, TN_EPROTO);
    }
    rig_start(&r, 8, true, false);
    for (unsigned i = 0; i < 8; i++)
        raw(&r, i, DATA, 4, VQD_NEXT, 0);
    rejected(&r, TN_EPROTO);
    rig_start(&r, 4, false, false); /* inside an indirect table */
    vqd_desc(&r.d, DATA, DATA, 1, VQD_NEXT, 1);
    vqd_desc(&r.d, DATA + 16, DATA, 1, VQD_NEXT, 0);
    raw(&r, 0, DATA, 32, VQD_INDIRECT, 0);
    offer(&r, 0);
    rejected(&r, TN_EPROTO);
    rig_close(&r);
}

static void a05_head_or_next_beyond_the_table(void **state)
{
    static const unsigned bad[] = {8, 9, 255, 32768, 65535};
    struct rig r;

    (void)state;
    rig_open(&r);
    for (size_t i = 0; i < COUNT(bad); i++) {
        rig_start(&r, 8, false, false);
        offer(&r, bad[i]);
        rejected(&r, TN_EPROTO);
        raw(&r, 0, DATA, 4, VQD_NEXT, bad[i]);
        offer(&r, 0);
        rejected(&r, TN_EPROTO);
        vqd_desc(&r.d, DATA, DATA, 1, VQD_NEXT, (uint16_t)bad[i]);
        raw(&r, 0, DATA, 16 * 8, VQD_INDIRECT, 0);
        offer(&r, 0);
        rejected(&r, TN_EPROTO);
    }
    vqd_desc(&r.d, DATA, DATA, 1, VQD_NEXT, 2); /* in the ring's range, not in the table's */
    raw(&r, 0, DATA, 16 * 2, VQD_INDIRECT, 0);
    offer(&r, 0);
    rejected(&r, TN_EPROTO);
    rig_close(&r);
}

static void a07_a08_a10_b10_buffers_must_be_ram(void **state)
{
    static const struct {
        uint64_t addr;
        uint32_t len;
        int err;
    } row[] = {
        {DATA, UINT32_MAX, TN_EADDR},
        {RAM - 1, 2, TN_EADDR},
        {RAM - 1, 1, 1},
        {RAM, 1, TN_EADDR},
        {0, RAM, 1},
        {0, RAM + 1, TN_EADDR},
        {UINT64_MAX, 1, TN_EADDR},
        {UINT64_MAX, UINT32_MAX, TN_EADDR},
        {UINT64_MAX - 0xfff, 0x2000, TN_EADDR},
        {0xd0000000, 4, TN_EADDR},
        {1ull << 63, 16, TN_EADDR},
    };
    struct rig r;

    (void)state;
    rig_open(&r);
    EACH_FORMAT(&r, packed)
    {
        for (size_t i = 0; i < COUNT(row); i++) {
            for (unsigned write = 0; write < 2; write++) {
                rig_start(&r, 8, packed, false);
                raw(&r, 0, row[i].addr, row[i].len, write ? VQD_WRITE : 0, 0);
                offer(&r, 0);
                if (row[i].err < 0)
                    rejected(&r, row[i].err);
                else
                    assert_int_equal(rig_pop(&r), 1);
            }
        }
    }
    rig_close(&r);
}

static void a09_buffers_across_regions_are_split(void **state)
{
    struct rig r;

    (void)state;
    rig_open(&r);
    EACH_FORMAT(&r, packed)
    {
        static const struct vqd_buf buf[2] = {{CUT - 3, 8, false}, {CUT - 1, 2, true}};

        rig_start(&r, 8, packed, false);
        assert_true(vqd_add(&r.d, buf, 2) >= 0);
        assert_int_equal(tn_virtq_pop(&r.q, &r.chain, r.iov, 3), TN_ENOSPC);
        assert_ptr_equal(r.iov[0].base, NULL);
        assert_int_equal(r.iov[0].len, 0);
        assert_int_equal(rig_pop(&r), 1);
        assert_int_equal(r.chain.readable, 2);
        assert_int_equal(r.chain.writable, 2);
        assert_int_equal(r.chain.readable_len, 8);
        assert_int_equal(r.chain.writable_len, 2);
        assert_ptr_equal(r.iov[0].base, r.low + CUT - 3);
        assert_int_equal(r.iov[0].len, 3);
        assert_ptr_equal(r.iov[1].base, r.high);
        assert_int_equal(r.iov[1].len, 5);
        assert_ptr_equal(r.iov[2].base, r.low + CUT - 1);
        assert_ptr_equal(r.iov[3].base, r.high);
        rig_start(&r, 8, packed, false); /* too small an array does not hide a hole behind */
        raw(&r, 0, CUT - 1, RAM, 0, 0);
        offer(&r, 0);
        assert_int_equal(tn_virtq_pop(&r.q, &r.chain, r.iov, 1), TN_EADDR);
    }
    rig_close(&r);
}

static void a11_a12_no_more_in_flight_than_the_ring_has(void **state)
{
    struct rig r;

    (void)state;
    rig_open(&r);
    rig_start(&r, 4, false, false);
    raw(&r, 0, DATA, 1, 0, 0);
    for (int i = 0; i < 4; i++) {
        offer(&r, 0);
        assert_int_equal(rig_pop(&r), 1);
    }
    assert_int_equal(tn_virtq_in_flight(&r.q), 4);
    offer(&r, 0); /* a fifth, and nothing was pushed */
    rejected(&r, TN_EPROTO);
    for (unsigned size = 1; size <= 5; size++) {
        rig_start(&r, size, true, false);
        for (unsigned i = 0; i < size; i++)
            raw(&r, i, DATA, 1, 0, i);
        for (unsigned i = 0; i < size; i++)
            assert_int_equal(rig_pop(&r), 1);
        assert_int_equal(rig_pop(&r), 0);
        assert_int_equal(tn_virtq_in_flight(&r.q), size);
        for (unsigned i = 0; i < size; i++) /* stamped again for the next lap */
            vqd_desc(&r.d, r.d.desc + 16 * i, DATA, 1, 0x8000, 0);
        rejected(&r, TN_EPROTO);
    }
    rig_start(&r, 3, true, false); /* a list that runs into what is in flight */
    raw(&r, 0, DATA, 1, 0, 0);
    assert_int_equal(rig_pop(&r), 1);
    raw(&r, 1, DATA, 1, VQD_NEXT, 0);
    raw(&r, 2, DATA, 1, VQD_NEXT, 0);
    vqd_desc(&r.d, r.d.desc, DATA, 1, 0x8000, 0);
    rejected(&r, TN_EPROTO);
    rig_close(&r);
}

static void a13_sizes(void **state)
{
    struct rig r;

    (void)state;
    rig_open(&r);
    for (unsigned size = 0; size < 65536; size++) {
        struct tn_virtq_cfg cfg = {CUT, 0x10000, 0x30000, 0, false, false, false, false};
        bool legal = size > 0 && size <= 32768;

        cfg.size = (uint16_t)size;
        tn_virtq_stop(&r.q);
        cfg.packed = true;
        assert_int_equal(tn_virtq_start(&r.q, &r.mem, &cfg), legal ? 0 : TN_ERANGE);
        tn_virtq_stop(&r.q);
        cfg.packed = false;
        legal = legal && (size & (size - 1)) == 0;
        assert_int_equal(tn_virtq_start(&r.q, &r.mem, &cfg), legal ? 0 : TN_ERANGE);
        assert_int_equal(r.q.started, legal);
    }
    rig_close(&r);
}

static void areas_are_aligned_and_in_ram(void **state)
{
    static const struct {
        bool packed;
        uint64_t desc, driver, device;
        int err;
    } row[] = {
        {false, 0x1000, 0x2000, 0x3000, 0},
        {false, 0x1008, 0x2000, 0x3000, TN_EADDR},
        {false, 0x1000, 0x2001, 0x3000, TN_EADDR},
        {false, 0x1000, 0x2002, 0x3000, 0},
        {false, 0x1000, 0x2000, 0x3002, TN_EADDR},
        {false, 0x1000, 0x2000, 0x3004, 0},
        {true, 0x1000, 0x2002, 0x3000, TN_EADDR},
        {true, 0x1000, 0x2004, 0x3004, 0},
        {true, 0x1004, 0x2004, 0x3004, TN_EADDR},
        {true, 0x1000, 0x2004, 0x3002, TN_EADDR},
        {false, CUT - 16, 0x2000, 0x3000, TN_EADDR}, /* across two regions */
        {false, CUT - 16 * 64, 0x2000, 0x3000, 0},
        {false, 0x1000, CUT - 6 - 2 * 64 + 2, 0x3000, TN_EADDR},
        {false, 0x1000, CUT - 6 - 2 * 64, 0x3000, 0},
        {false, 0x1000, 0x2000, RAM - 6 - 8 * 64 + 2, TN_EADDR},
        {false, 0x1000, 0x2000, RAM - 8 - 8 * 64, 0},
        {true, 0x1000, RAM - 4, CUT - 4, 0},
        {true, 0x1000, RAM, CUT - 4, TN_EADDR},
        {true, 0x1000, 0x2000, UINT64_MAX - 3, TN_EADDR},
        {true, 1ull << 63, 0x2000, 0x3000, TN_EADDR},
    };
    struct rig r;

    (void)state;
    rig_open(&r);
    for (size_t i = 0; i < COUNT(row); i++) {
        struct tn_virtq_cfg cfg = {0, 0, 0, 64, false, false, false, false};

        cfg.desc = row[i].desc;
        cfg.driver = row[i].driver;
        cfg.device = row[i].device;
        cfg.packed = row[i].packed;
        assert_int_equal(tn_virtq_start(&r.q, &r.mem, &cfg), row[i].err);
        assert_int_equal(r.q.started, row[i].err == 0);
        assert_int_equal(tn_virtq_pending(&r.q), row[i].err != 0);
        tn_virtq_stop(&r.q);
    }
    assert_int_equal(tn_virtq_start(&r.q, NULL, &r.cfg), TN_EINVAL);
    rig_close(&r);
}

static void a14_a15_a16_geometry_is_frozen(void **state)
{
    struct rig r;
    struct tn_virtq_cfg other;

    (void)state;
    rig_open(&r);
    EACH_FORMAT(&r, packed)
    {
        rig_start(&r, 8, packed, false);
        other = r.cfg;
        other.size = 256;
        assert_int_equal(tn_virtq_start(&r.q, &r.mem, &other), TN_ESTATE);
        assert_int_equal(r.q.cfg.size, 8);
        r.cfg.size = 0; /* the caller's copy does not matter any more */
        assert_int_equal(rig_pop(&r), 0);
        assert_int_equal(r.q.cfg.size, 8);
    }
    rig_close(&r);
}

static void a19_outputs_are_void_after_an_error(void **state)
{
    struct rig r;

    (void)state;
    rig_open(&r);
    EACH_FORMAT(&r, packed)
    {
        rig_start(&r, 8, packed, false);
        raw(&r, 0, DATA, 4, VQD_NEXT, 1);
        raw(&r, 1, DATA, 4, VQD_NEXT | VQD_WRITE, 2);
        raw(&r, 2, UINT64_MAX, 4, VQD_WRITE, 0);
        offer(&r, 0);
        assert_int_equal(rig_pop(&r), TN_EADDR);
        for (int i = 0; i < 2; i++) {
            assert_ptr_equal(r.iov[i].base, NULL);
            assert_int_equal(r.iov[i].len, 0);
        }
        assert_ptr_equal(r.chain.iov, NULL);
        assert_int_equal(r.chain.readable + r.chain.writable, 0);
    }
    rig_close(&r);
}

static void a20_nothing_works_before_start_and_after_stop(void **state)
{
    static const struct vqd_buf buf = {DATA, 16, true};
    struct rig r;

    (void)state;
    rig_open(&r);
    assert_int_equal(rig_pop(&r), TN_ESTATE);
    EACH_FORMAT(&r, packed)
    {
        rig_start(&r, 8, packed, true);
        vqd_add(&r.d, &buf, 1);
        assert_int_equal(rig_pop(&r), 1);
        tn_virtq_stop(&r.q);
        assert_int_equal(rig_pop(&r), TN_ESTATE);
        assert_int_equal(tn_virtq_push(&r.q, &r.chain, 0), TN_ESTATE);
        assert_int_equal(tn_virtq_push_many(&r.q, NULL, NULL, 0), TN_ESTATE);
        assert_int_equal(tn_virtq_unpop(&r.q, &r.chain), TN_ESTATE);
        assert_int_equal(tn_virtq_in_flight(&r.q), 0);
        assert_false(tn_virtq_should_signal(&r.q));
        assert_false(tn_virtq_notify_enable(&r.q));
        tn_virtq_notify_disable(&r.q);
        tn_virtq_break(&r.q);
        assert_true(tn_virtq_pending(&r.q));
    }
    rig_close(&r);
}

static void a22_a23_indirect_tables(void **state)
{
    static const struct {
        uint32_t len;
        unsigned flags, inner; /* of the head, of the table's first entry */
        bool negotiated;
        int split, packed;
    } row[] = {
        {16, 0, 0, true, 1, 1},
        {128, 0, 0, true, 1, 1},
        {16, VQD_WRITE, 0, true, 1, 1}, /* ignored in the head (2.7.5.3.2) */
        {16, 0, 0, false, TN_EPROTO, TN_EPROTO},
        {0, 0, 0, true, TN_EPROTO, TN_EPROTO},
        {1, 0, 0, true, TN_EPROTO, TN_EPROTO},
        {15, 0, 0, true, TN_EPROTO, TN_EPROTO},
        {17, 0, 0, true, TN_EPROTO, TN_EPROTO},
        {144, 0, 0, true, TN_EPROTO, TN_EPROTO}, /* 9 entries, the ring has 8 */
        {0xfffffff0, 0, 0, true, TN_EPROTO, TN_EPROTO},
        {16, VQD_NEXT, 0, true, TN_EPROTO, TN_EPROTO},
        {16, 0, VQD_INDIRECT, true, TN_EPROTO, TN_EPROTO},
        {16, 0, VQD_INDIRECT | VQD_NEXT, true, TN_EPROTO, TN_EPROTO},
        {16, 0, VQD_NEXT, true, TN_EPROTO, 1}, /* packed: reserved, ignored (2.8.7) */
    };
    struct rig r;

    (void)state;
    rig_open(&r);
    EACH_FORMAT(&r, packed)
    {
        for (size_t i = 0; i < COUNT(row); i++) {
            int want = packed ? row[i].packed : row[i].split;

            rig_ring(&r, 8, packed, false);
            r.cfg.indirect = row[i].negotiated;
            tn_virtq_stop(&r.q);
            assert_int_equal(tn_virtq_start(&r.q, &r.mem, &r.cfg), 0);
            memset(r.low + DATA, 0, 256);
            vqd_desc(&r.d, DATA, DATA + 512, 7, (uint16_t)row[i].inner, 1);
            raw(&r, 0, DATA, row[i].len, VQD_INDIRECT | row[i].flags, 0);
            offer(&r, 0);
            if (want < 0) {
                rejected(&r, want);
                continue;
            }
            assert_int_equal(rig_pop(&r), want);
            assert_int_equal(r.chain.readable_len, 7);
            assert_int_equal(r.chain.readable, 1);
            assert_int_equal(r.chain.descs, 1);
        }
        rig_start(&r, 8, packed, false); /* a table that is no RAM, or in two regions */
        raw(&r, 0, RAM, 16, VQD_INDIRECT, 0);
        offer(&r, 0);
        rejected(&r, TN_EADDR);
        raw(&r, 0, CUT - 16, 32, VQD_INDIRECT, 0);
        offer(&r, 0);
        rejected(&r, TN_EADDR);
        vqd_desc(&r.d, DATA + 3, DATA, 9, VQD_WRITE, 0); /* at an odd address */
        raw(&r, 0, DATA + 3, 16, VQD_INDIRECT, 0);
        offer(&r, 0);
        assert_int_equal(rig_pop(&r), 1);
        assert_int_equal(r.chain.writable_len, 9);
    }
    rig_close(&r);
}

static void indirect_after_direct_descriptors(void **state)
{
    static const struct vqd_buf buf[4] = {
        {DATA, 1, false}, {DATA, 2, false}, {DATA, 4, true}, {DATA, 8, true}};
    struct rig r;

    (void)state;
    rig_open(&r);
    rig_start(&r, 4, false, false);
    assert_true(vqd_add_table(&r.d, buf, 4, DATA + 256, 3) >= 0);
    assert_int_equal(rig_pop(&r), 1);
    assert_int_equal(r.chain.readable_len, 3);
    assert_int_equal(r.chain.writable_len, 12);
    raw(&r, 0, DATA, 1, VQD_NEXT, 1); /* five elements in a ring of four */
    raw(&r, 1, DATA + 256, 64, VQD_INDIRECT, 0);
    for (unsigned i = 0; i < 4; i++)
        vqd_desc(&r.d, DATA + 256 + 16 * i, DATA, 1, i < 3 ? VQD_NEXT : 0, (uint16_t)(i + 1));
    offer(&r, 0);
    rejected(&r, TN_EPROTO);
    rig_start(&r, 4, true, false); /* packed: all or nothing (2.8.19) */
    raw(&r, 0, DATA, 1, VQD_NEXT, 0);
    raw(&r, 1, DATA + 256, 16, VQD_INDIRECT, 0);
    rejected(&r, TN_EPROTO);
    rig_close(&r);
}

/* A guest processor that flips one 32-bit word between two values. */
struct flipper {
    uint32_t *word;
    uint32_t value[2];
    int stop;
};

static void *flip(void *arg)
{
    struct flipper *f = arg;

    for (unsigned i = 0; !__atomic_load_n(&f->stop, __ATOMIC_RELAXED); i++)
        __atomic_store_n(f->word, f->value[i % 2], __ATOMIC_RELAXED);
    return NULL;
}

static void a24_a25_what_changes_while_it_is_read(void **state)
{
    struct rig r;
    struct flipper f;
    pthread_t thread;

    (void)state;
    rig_open(&r);
    EACH_FORMAT(&r, packed)
    {
        for (int table = 0; table < 2; table++) {
            rig_start(&r, 8, packed, false);
            memset(r.low + DATA, 0, 256);
            vqd_desc(&r.d, DATA, DATA + 512, 7, 0, 0);
            raw(&r, 0, DATA, 16, table ? VQD_INDIRECT : 0, 0);
            f.word = (uint32_t *)(void *)(r.low + r.d.desc + 8);
            f.value[0] = 16;
            f.value[1] = 0xfffffff0;
            f.stop = 0;
            assert_int_equal(pthread_create(&thread, NULL, flip, &f), 0);
            for (int i = 0; i < 20000; i++) {
                int n;

                tn_virtq_stop(&r.q);
                assert_int_equal(tn_virtq_start(&r.q, &r.mem, &r.cfg), 0);
                if (!packed)
                    vqd_put(&r.d, r.d.driver + 2, 2, 1);
                n = rig_pop(&r);
                if (n == 1)
                    assert_int_equal(r.chain.readable_len, table ? 7 : 16);
                else
                    assert_int_equal(n, table ? TN_EPROTO : TN_EADDR);
            }
            __atomic_store_n(&f.stop, 1, __ATOMIC_RELAXED);
            pthread_join(thread, NULL);
        }
    }
    rig_close(&r);
}

/* A driver on another thread, over the low byte's carry of a 16-bit index many times. */
#define A27_CHAINS 20000u

struct other {
    struct vqd *d;
    unsigned wrong;
};

static void *drive(void *arg)
{
    struct other *o = arg;
    uint64_t sent = 0, back = 0;

    while (back < A27_CHAINS) {
        struct vqd_buf buf = {DATA + sent % 4096, (uint32_t)(1 + sent % 7), true};
        uint32_t len;
        int id;

        if (sent < A27_CHAINS && vqd_add(o->d, &buf, 1) >= 0)
            sent++;
        while ((id = vqd_reap(o->d, &len)) >= 0) {
            if (len != 1 + back % 7)
                o->wrong++;
            back++;
        }
        if (id == -2 || o->wrong > 0)
            break;
    }
    return NULL;
}

static void a27_indices_are_not_torn(void **state)
{
    struct rig r;

    (void)state;
    rig_open(&r);
    EACH_FORMAT(&r, packed)
    {
        struct other o = {&r.d, 0};
        pthread_t thread;
        unsigned served = 0;

        rig_start(&r, 256, packed, false);
        assert_int_equal(pthread_create(&thread, NULL, drive, &o), 0);
        while (served < A27_CHAINS) {
            int n = tn_virtq_pop(&r.q, &r.chain, r.iov, 4);

            assert_true(n >= 0);
            if (n == 0)
                continue;
            assert_int_equal(r.chain.writable_len, 1 + served % 7);
            assert_int_equal(tn_virtq_push(&r.q, &r.chain, r.chain.writable_len), 0);
            served++;
        }
        pthread_join(thread, NULL);
        assert_int_equal(o.wrong, 0);
        assert_int_equal(r.d.reaped, A27_CHAINS);
    }
    rig_close(&r);
}

static void a29_need_event(void **state)
{
    static const uint16_t events[] = {0, 1, 2, 255, 256, 32767, 32768, 65534, 65535};
    unsigned long wrong = 0;

    (void)state;
    for (size_t e = 0; e < COUNT(events); e++) {
        for (uint32_t moved = 0; moved < 65536; moved++) {
            for (uint32_t k = 0; k < 16; k++) {
                /* old so that event is met first, last, just not, or anywhere */
                uint16_t old = (uint16_t)(k < 5    ? events[e] + k - 2
                                          : k < 10 ? events[e] - moved + k - 7
                                                   : events[e] + k * 4099);
                uint16_t idx = (uint16_t)(old + moved);
                bool inside = (uint16_t)(events[e] - old) < moved;

                wrong += tn_virtq_need_event(events[e], idx, old) != inside;
            }
        }
    }
    assert_int_equal(wrong, 0);
    assert_false(tn_virtq_need_event(0, 65535, 65534));
    assert_true(tn_virtq_need_event(65535, 0, 65535));
    assert_false(tn_virtq_need_event(65535, 65535, 65534));
    assert_false(tn_virtq_need_event(7, 7, 7));
}

static void a31_buffer_ids_and_list_flags_of_a_packed_ring(void **state)
{
    struct rig r;

    (void)state;
    rig_open(&r);
    for (unsigned id = 0; id < 10; id++) {
        rig_start(&r, 7, true, false);
        raw(&r, 0, DATA, 1, VQD_NEXT, 999); /* counts in the last of the list only */
        raw(&r, 1, DATA, 1, 0, id);
        if (id >= 7) {
            rejected(&r, TN_EPROTO);
            continue;
        }
        assert_int_equal(rig_pop(&r), 1);
        assert_int_equal(r.chain.id, id);
        assert_int_equal(r.chain.descs, 2);
    }
    rig_start(&r, 7, true, false);
    raw(&r, 0, DATA, 1, VQD_NEXT, 0);
    vqd_desc(&r.d, r.d.desc + 16, DATA, 1, 0, 0); /* the second is not available */
    rejected(&r, TN_EPROTO);
    vqd_desc(&r.d, r.d.desc, DATA, 1, 0x8080, 0); /* used, not available */
    assert_int_equal(rig_pop(&r), 0);
    vqd_desc(&r.d, r.d.desc, DATA, 1, 0x8000, 0); /* of the other lap */
    assert_int_equal(rig_pop(&r), 0);
    rig_close(&r);
}

static void a32_readable_after_writable(void **state)
{
    static const struct vqd_buf buf[3] = {{DATA, 1, false}, {DATA, 0, true}, {DATA, 1, false}};
    struct rig r;

    (void)state;
    rig_open(&r);
    EACH_FORMAT(&r, packed)
    {
        for (unsigned table = 0; table < 2; table++) {
            rig_start(&r, 4, packed, false);
            assert_true(vqd_add_table(&r.d, buf, 3, table ? DATA + 256 : 0, 3) >= 0);
            rejected(&r, TN_EPROTO);
        }
    }
    rig_close(&r);
}

static void more_than_four_gib_in_a_chain(void **state)
{
    struct rig r;

    (void)state;
    rig_open(&r);
    EACH_FORMAT(&r, packed)
    {
        struct vqd_buf buf[8] = {{0, 0, false}};
        /* Overlapping buffers reach far with little RAM, yet not 4 GiB with a small ring. */
        rig_start(&r, 8, packed, false);
        for (unsigned i = 0; i < 8; i++)
            buf[i].len = RAM;
        assert_true(vqd_add(&r.d, buf, 8) >= 0);
        assert_int_equal(rig_pop(&r), 1);
        assert_int_equal(r.chain.readable_len, 8 * RAM);
    }
    rig_start(&r, 8192, false, false);
    for (unsigned i = 0; i < 4096; i++)
        raw(&r, i, 0, RAM, i == 4095 ? 0 : VQD_NEXT, i + 1);
    offer(&r, 0);
    {
        static struct tn_iov many[16384];

        assert_int_equal(tn_virtq_pop(&r.q, &r.chain, many, COUNT(many)), TN_EPROTO);
        vqd_put(&r.d, r.d.desc + 16 * 4095 + 8, 4, RAM - 1); /* 2^32 - 1 is the most */
        tn_virtq_stop(&r.q);
        assert_int_equal(tn_virtq_start(&r.q, &r.mem, &r.cfg), 0);
        assert_int_equal(tn_virtq_pop(&r.q, &r.chain, many, COUNT(many)), 1);
        assert_int_equal(r.chain.readable_len, UINT32_MAX);
        assert_int_equal(r.chain.readable, 8192);
    }
    rig_close(&r);
}

static void c04_completions_of_an_earlier_run_are_dropped(void **state)
{
    static const struct vqd_buf buf = {DATA, 16, true};
    struct rig r;
    struct tn_virtq_chain old;
    uint32_t len;

    (void)state;
    rig_open(&r);
    EACH_FORMAT(&r, packed)
    {
        rig_start(&r, 8, packed, false);
        vqd_add(&r.d, &buf, 1);
        assert_int_equal(rig_pop(&r), 1);
        old = r.chain;
        rig_start(&r, 8, packed, false);
        vqd_add(&r.d, &buf, 1);
        assert_int_equal(rig_pop(&r), 1);
        assert_int_equal(tn_virtq_push(&r.q, &old, 16), TN_ESTATE);
        assert_int_equal(vqd_reap(&r.d, &len), -1);
        assert_int_equal(tn_virtq_in_flight(&r.q), 1);
        assert_int_equal(tn_virtq_push(&r.q, &r.chain, 16), 0);
        assert_int_equal(vqd_reap(&r.d, &len), 0);
        assert_int_equal(len, 16);
        assert_int_equal(tn_virtq_push(&r.q, &r.chain, 16), TN_ESTATE); /* twice */
        assert_int_equal(vqd_reap(&r.d, &len), -1);
    }
    rig_close(&r);
}

static void push_refuses_what_cannot_be(void **state)
{
    static const struct vqd_buf buf = {DATA, 16, true};
    struct rig r;
    struct tn_virtq_chain bad[2];
    uint32_t written[2] = {16, 16}, len;

    (void)state;
    rig_open(&r);
    EACH_FORMAT(&r, packed)
    {
        rig_start(&r, 8, packed, false);
        vqd_add(&r.d, &buf, 1);
        assert_int_equal(rig_pop(&r), 1);
        assert_int_equal(tn_virtq_push(&r.q, &r.chain, 17), TN_EINVAL);
        bad[0] = r.chain;
        bad[0].id = 8;
        assert_int_equal(tn_virtq_push(&r.q, bad, 16), TN_EINVAL);
        bad[0] = r.chain;
        bad[0].descs = 0;
        assert_int_equal(tn_virtq_push(&r.q, bad, 16), TN_EINVAL);
        bad[0].descs = 9;
        assert_int_equal(tn_virtq_push(&r.q, bad, 16), TN_EINVAL);
        bad[0] = bad[1] = r.chain; /* all or none */
        assert_int_equal(tn_virtq_push_many(&r.q, bad, written, 2), TN_ESTATE);
        assert_int_equal(tn_virtq_push_many(&r.q, bad, written, 0), 0);
        assert_false(tn_virtq_should_signal(&r.q));
        assert_int_equal(vqd_reap(&r.d, &len), -1);
        assert_int_equal(tn_virtq_push_many(&r.q, bad, written, 1), 0);
        assert_int_equal(vqd_reap(&r.d, &len), 0);
        vqd_add(&r.d, &buf, 1);
        assert_int_equal(rig_pop(&r), 1);
        tn_virtq_break(&r.q);
        assert_int_equal(tn_virtq_push(&r.q, &r.chain, 0), TN_ESTATE);
        assert_int_equal(rig_pop(&r), TN_EPROTO);
    }
    rig_close(&r);
}

static void in_order_is_kept(void **state)
{
    static const struct vqd_buf buf[2] = {{DATA, 16, true}, {DATA, 1, true}};
    struct rig r;

    (void)state;
    rig_open(&r);
    EACH_FORMAT(&r, packed)
    {
        struct tn_virtq_chain chain[3];
        uint32_t written[3] = {1, 2, 3}, len;

        rig_ring(&r, 7 + !packed, packed, false);
        r.cfg.in_order = true;
        tn_virtq_stop(&r.q);
        assert_int_equal(tn_virtq_start(&r.q, &r.mem, &r.cfg), 0);
        for (int lap = 0; lap < 20; lap++) {
            int id[3];

            for (int i = 0; i < 3; i++) {
                id[i] = vqd_add(&r.d, buf, i == 1 ? 2 : 1);
                assert_true(id[i] >= 0);
                assert_int_equal(rig_pop(&r), 1);
                chain[i] = r.chain;
                chain[i].iov = NULL;
            }
            assert_int_equal(tn_virtq_push(&r.q, &chain[1], 0), TN_EINVAL);
            assert_int_equal(tn_virtq_push_many(&r.q, chain + 1, written, 2), TN_EINVAL);
            assert_int_equal(tn_virtq_push_many(&r.q, chain, written, 3), 0);
            for (int i = 0; i < 3; i++) {
                assert_int_equal(vqd_reap(&r.d, &len), id[i]);
                assert_int_equal(len, i + 1);
            }
        }
    }
    rig_close(&r);
}

static void unpop_gives_the_chain_again(void **state)
{
    static const struct vqd_buf buf[2] = {{DATA, 16, false}, {DATA + 16, 16, true}};
    struct rig r;
    struct tn_virtq_chain first, second;

    (void)state;
    rig_open(&r);
    EACH_FORMAT(&r, packed)
    {
        for (unsigned turns = 0; turns < 9; turns++) {
            uint32_t len;

            rig_start(&r, 4, packed, true);
            for (unsigned i = 0; i < turns; i++) {
                vqd_add(&r.d, buf, 1);
                assert_int_equal(rig_pop(&r), 1);
                assert_int_equal(tn_virtq_push(&r.q, &r.chain, 0), 0);
                assert_true(vqd_reap(&r.d, &len) >= 0);
            }
            vqd_add(&r.d, buf, 2);
            vqd_add(&r.d, buf, 2);
            assert_int_equal(rig_pop(&r), 1);
            first = r.chain;
            assert_int_equal(rig_pop(&r), 1);
            second = r.chain;
            assert_int_equal(rig_pop(&r), 0);
            assert_int_equal(tn_virtq_unpop(&r.q, &first), TN_EINVAL);
            assert_int_equal(tn_virtq_unpop(&r.q, &second), 0);
            assert_true(tn_virtq_pending(&r.q));
            assert_int_equal(tn_virtq_unpop(&r.q, &first), 0);
            assert_int_equal(tn_virtq_unpop(&r.q, &first), TN_EINVAL);
            assert_int_equal(rig_pop(&r), 1);
            assert_memory_equal(&r.chain, &first, sizeof(first));
            assert_int_equal(rig_pop(&r), 1);
            assert_memory_equal(&r.chain, &second, sizeof(second));
            assert_int_equal(rig_pop(&r), 0);
        }
    }
    rig_close(&r);
}

static unsigned dirty_pages(struct rig *r, uint64_t *low)
{
    uint64_t words[TN_MEM_DIRTY_WORDS(CUT)] = {0};
    int64_t bits = tn_mem_take_dirty(&r->mem, 0, words);

    *low = words[0];
    for (size_t i = 1; i < COUNT(words); i++)
        *low |= words[i] ? 1ull << 63 : 0;
    memset(words, 0, sizeof(words));
    return (unsigned)(bits + tn_mem_take_dirty(&r->mem, 1, words));
}

static void what_the_device_writes_is_marked_dirty(void **state)
{
    struct rig r;

    (void)state;
    rig_open(&r);
    assert_int_equal(tn_mem_track(&r.mem, 0, r.low_dirty), 0);
    assert_int_equal(tn_mem_track(&r.mem, 1, r.high_dirty), 0);
    EACH_FORMAT(&r, packed)
    {
        static const struct vqd_buf buf[3] = {
            {0x8000, 16, false}, {0x9000, 16, true}, {CUT - 8, 0x3000, true}};
        uint64_t low;

        rig_ring(&r, 8, packed, true);
        tn_virtq_stop(&r.q);
        memset(r.low + 0x3000, 0, 0x1000);
        r.d.device = r.cfg.device = 0x3000;
        assert_int_equal(tn_virtq_start(&r.q, &r.mem, &r.cfg), 0);
        assert_int_equal(dirty_pages(&r, &low), 0);
        vqd_add(&r.d, buf, 3);
        assert_int_equal(rig_pop(&r), 1);
        assert_int_equal(dirty_pages(&r, &low), 0);
        assert_int_equal(tn_virtq_push(&r.q, &r.chain, 16 + 9), 0);
        assert_int_equal(dirty_pages(&r, &low), 4); /* ring, 0x9000, CUT - 8, CUT */
        assert_true(low & 1ull << 9);
        assert_true(low & (packed ? 1ull << 1 : 1ull << 3));
        assert_false(low & 1ull << 8);
        tn_virtq_notify_enable(&r.q);
        assert_int_equal(dirty_pages(&r, &low), 1);
        assert_true(low & 1ull << 3);
        tn_virtq_notify_disable(&r.q);
        assert_int_equal(dirty_pages(&r, &low), packed);
        vqd_add(&r.d, buf, 2);
        assert_int_equal(rig_pop(&r), 1);
        assert_int_equal(tn_virtq_push(&r.q, &r.chain, 0), 0);
        assert_int_equal(dirty_pages(&r, &low), 1); /* nothing was written but the ring */
    }
    rig_close(&r);
}

static void flags_of_notification(void **state)
{
    static const struct vqd_buf buf = {DATA, 16, true};
    struct rig r;

    (void)state;
    rig_open(&r);
    EACH_FORMAT(&r, packed)
    {
        rig_start(&r, 8, packed, false);
        for (int i = 0; i < 40; i++) {
            uint32_t len;
            bool on = i % 3 != 0;

            vqd_interrupts(&r.d, on);
            tn_virtq_notify_disable(&r.q);
            vqd_add(&r.d, &buf, 1);
            assert_false(vqd_must_kick(&r.d));
            assert_int_equal(rig_pop(&r), 1);
            assert_false(tn_virtq_notify_enable(&r.q));
            assert_int_equal(tn_virtq_push(&r.q, &r.chain, 0), 0);
            assert_int_equal(tn_virtq_should_signal(&r.q), on);
            assert_false(tn_virtq_should_signal(&r.q));
            vqd_add(&r.d, &buf, 1);
            assert_true(vqd_must_kick(&r.d));
            assert_true(tn_virtq_notify_enable(&r.q));
            assert_int_equal(rig_pop(&r), 1);
            assert_int_equal(tn_virtq_push(&r.q, &r.chain, 0), 0);
            (void)tn_virtq_should_signal(&r.q);
            while (vqd_reap(&r.d, &len) >= 0)
                ;
        }
        if (packed) { /* an event index without the feature, reserved, or behind the ring */
            vqd_put(&r.d, r.d.driver, 4, 2u << 16 | 3);
            vqd_add(&r.d, &buf, 1);
            assert_int_equal(rig_pop(&r), 1);
            assert_int_equal(tn_virtq_push(&r.q, &r.chain, 0), 0);
            assert_true(tn_virtq_should_signal(&r.q));
            rig_start(&r, 8, packed, true);
            vqd_put(&r.d, r.d.driver, 4, 2u << 16 | 0x8008);
            vqd_add(&r.d, &buf, 1);
            assert_int_equal(rig_pop(&r), 1);
            assert_int_equal(tn_virtq_push(&r.q, &r.chain, 0), 0);
            assert_true(tn_virtq_should_signal(&r.q));
        }
    }
    rig_close(&r);
}

/* ---- saved states ------------------------------------------------------------------------- */

static void a12_a28_e01_restored_states_are_checked(void **state)
{
    static const struct {
        size_t off;
        unsigned width;
        uint64_t split, packed; /* values that only this format takes are 1 << 63 */
        int err_split, err_packed;
    } row[] = {
#define F(field) \
    offsetof(struct tn_virtq_state, field), sizeof(((struct tn_virtq_state *)NULL)->field)
        {F(version), 0, 0, TN_EUNSUP, TN_EUNSUP},
        {F(version), 2, 2, TN_EUNSUP, TN_EUNSUP},
        {F(unsignalled), 65537, 65537, TN_EFORMAT, TN_EFORMAT},
        {F(unsignalled), 65536, 65536, 0, 0},
        {F(desc), 8, 8, TN_EADDR, TN_EADDR},
        {F(desc), RAM, RAM, TN_EADDR, TN_EADDR},
        {F(driver), RAM - 2, RAM, TN_EADDR, TN_EADDR},
        {F(device), RAM - 4, RAM, TN_EADDR, TN_EADDR},
        {F(device), UINT64_MAX, UINT64_MAX, TN_EADDR, TN_EADDR},
        {F(size), 0, 0, TN_EFORMAT, TN_EFORMAT},
        {F(size), 7, 32769, TN_ERANGE, TN_EFORMAT},
        {F(size), 65535, 65535, TN_EFORMAT, TN_EFORMAT},
        {F(size), 1, 1, TN_EFORMAT, TN_EFORMAT},
        {F(next_avail), 11, 0x8000, TN_EFORMAT, TN_EFORMAT},
        {F(next_avail), 10, 2, 0, 0},
        {F(next_avail), 1, 8, TN_EFORMAT, TN_EFORMAT},
        {F(next_avail), 65535, 3, TN_EFORMAT, TN_EFORMAT},
        {F(next_used), 65532, 0x8008, 0, TN_EFORMAT},
        {F(next_used), 65531, 0xffff, TN_EFORMAT, TN_EFORMAT},
        {F(started), 2, 2, TN_EFORMAT, TN_EFORMAT},
        {F(started), 0, 0, TN_EFORMAT, TN_EFORMAT},
        {F(packed), 2, 2, TN_EFORMAT, TN_EFORMAT},
        {F(event_idx), 2, 255, TN_EFORMAT, TN_EFORMAT},
        {F(indirect), 2, 255, TN_EFORMAT, TN_EFORMAT},
        {F(in_order), 2, 255, TN_EFORMAT, TN_EFORMAT},
        {F(zero), 1, 255, TN_EFORMAT, TN_EFORMAT},
        {F(error), 1, 0xffffffff, TN_EFORMAT, TN_EFORMAT},
        {F(error), (uint32_t)TN_ENOSPC, (uint32_t)TN_ENOSPC, TN_EFORMAT, TN_EFORMAT},
        {F(error), (uint32_t)TN_EADDR, (uint32_t)TN_EPROTO, 0, 0},
#undef F
    };
    struct rig r;

    (void)state;
    assert_int_equal(sizeof(struct tn_virtq_state), 48);
    rig_open(&r);
    EACH_FORMAT(&r, packed)
    {
        static const struct vqd_buf buf = {DATA, 16, true};
        struct tn_virtq_state saved, back;

        rig_start(&r, 8, packed, true);
        for (int i = 0; i < 4; i++) {
            vqd_add(&r.d, &buf, 1);
            assert_int_equal(rig_pop(&r), 1);
            if (i < 2)
                assert_int_equal(tn_virtq_push(&r.q, &r.chain, 0), 0);
        }
        tn_virtq_save(&r.q, &saved);
        assert_int_equal(tn_virtq_restore(&r.q, NULL, &saved), TN_EINVAL);
        for (size_t i = 0; i < COUNT(row); i++) {
            struct tn_virtq_state bad = saved;
            int err = packed ? row[i].err_packed : row[i].err_split;

            memcpy((uint8_t *)&bad + row[i].off, packed ? &row[i].packed : &row[i].split,
                   row[i].width);
            assert_int_equal(tn_virtq_restore(&r.q, &r.mem, &bad), err);
            assert_int_equal(r.q.started, err == 0);
            if (err != 0) {
                assert_int_equal(rig_pop(&r), TN_ESTATE);
                continue;
            }
            tn_virtq_save(&r.q, &back);
            assert_memory_equal(&bad, &back, sizeof(back));
            assert_int_equal(tn_virtq_push(&r.q, &r.chain, 0), TN_ESTATE); /* another run's */
        }
        assert_int_equal(tn_virtq_restore(&r.q, &r.mem, &saved), 0);
        assert_int_equal(tn_virtq_in_flight(&r.q), 2);
        assert_int_equal(rig_pop(&r), 0);
        tn_virtq_stop(&r.q);
        tn_virtq_save(&r.q, &saved);
        assert_int_equal(tn_virtq_restore(&r.q, NULL, &saved), 0);
        assert_int_equal(r.q.started, 0);
    }
    rig_close(&r);
}

static void e06_what_waits_is_found_after_a_restore(void **state)
{
    static const struct vqd_buf buf = {DATA, 16, true};
    struct rig r;

    (void)state;
    rig_open(&r);
    EACH_FORMAT(&r, packed)
    {
        struct tn_virtq_state saved;
        uint32_t len;

        rig_start(&r, 8, packed, true);
        for (int i = 0; i < 3; i++)
            vqd_add(&r.d, &buf, 1);
        assert_int_equal(rig_pop(&r), 1);
        assert_int_equal(tn_virtq_push(&r.q, &r.chain, 1), 0);
        assert_int_equal(rig_pop(&r), 1);
        assert_int_equal(tn_virtq_unpop(&r.q, &r.chain), 0);
        tn_virtq_save(&r.q, &saved);
        assert_int_equal(tn_virtq_restore(&r.q, &r.mem, &saved), 0);
        assert_true(tn_virtq_should_signal(&r.q)); /* owed since before the save */
        assert_true(tn_virtq_pending(&r.q));
        for (int i = 0; i < 2; i++) {
            assert_int_equal(rig_pop(&r), 1);
            assert_int_equal(tn_virtq_push(&r.q, &r.chain, 2), 0);
        }
        assert_int_equal(rig_pop(&r), 0);
        for (int i = 0; i < 3; i++)
            assert_int_equal(vqd_reap(&r.d, &len), i);
    }
    rig_close(&r);
}

/* ---- the model ---------------------------------------------------------------------------- */

/*
 * The reference: what the driver added waits in a list; a pop takes its oldest, and must show
 * exactly its buffers; pushes go to a second list, from which the driver takes them. Notification
 * is modelled on counters of 64 bits that never wrap.
 */
#define M_BUFS 6
#define M_MAX  40000

struct m_chain {
    int id;
    unsigned n;
    struct vqd_buf buf[M_BUFS];
    struct tn_virtq_chain chain;
    struct tn_iov iov[2 * M_BUFS];
    uint32_t written;
    uint32_t descs;
};

struct model {
    struct m_chain *all; /* slots */
    unsigned *free, frees;
    unsigned *waiting, wait_first, waits; /* added, not popped: a ring */
    unsigned *flying, flights;            /* popped, in the order of pops */
    unsigned *done, done_first, dones;    /* pushed, not reaped: a ring */
    unsigned cap;
    uint64_t popped, pushed, checked; /* descriptors (packed) or chains */
    uint64_t event;                   /* the driver's wish */
    bool by_index, wants;
    uint64_t wish; /* the device's */
    bool wish_set;
};

static void m_open(struct model *m, unsigned cap)
{
    memset(m, 0, sizeof(*m));
    m->cap = cap;
    m->all = calloc(cap, sizeof(*m->all));
    m->free = calloc(cap, sizeof(unsigned));
    m->waiting = calloc(cap, sizeof(unsigned));
    m->flying = calloc(cap, sizeof(unsigned));
    m->done = calloc(cap, sizeof(unsigned));
    assert_true(m->all && m->free && m->waiting && m->flying && m->done);
    for (unsigned i = 0; i < cap; i++)
        m->free[m->frees++] = i;
}

static void m_close(struct model *m)
{
    free(m->all);
    free(m->free);
    free(m->waiting);
    free(m->flying);
    free(m->done);
}

/* What a pop must have filled, worked out byte by byte of each border. */
static void m_compare(struct rig *r, const struct m_chain *c)
{
    unsigned n = 0, readable = 0;
    uint32_t bytes[2] = {0, 0};

    for (unsigned i = 0; i < c->n; i++) {
        uint64_t at = c->buf[i].addr, end = at + c->buf[i].len;

        while (at < end) {
            uint64_t stop = at < CUT && end > CUT ? CUT : end;
            uint8_t *host = at < CUT ? r->low + at : r->high + (at - CUT);

            assert_ptr_equal(c->iov[n].base, host);
            assert_int_equal(c->iov[n].len, stop - at);
            n++;
            at = stop;
        }
        bytes[c->buf[i].write] += c->buf[i].len;
        if (!c->buf[i].write)
            readable = n;
    }
    assert_int_equal(c->chain.readable, readable);
    assert_int_equal(c->chain.writable, n - readable);
    assert_int_equal(c->chain.readable_len, bytes[0]);
    assert_int_equal(c->chain.writable_len, bytes[1]);
    assert_int_equal(c->chain.id, c->id);
    assert_int_equal(c->chain.descs, r->d.packed ? c->descs : 1);
}

static void m_add(struct rig *r, struct model *m, uint64_t *seed)
{
    uint64_t x = test_random(seed);
    unsigned slot, split_at, indirect;
    uint64_t table = 0;
    struct m_chain *c;

    if (m->frees == 0)
        return;
    slot = m->free[m->frees - 1];
    c = &m->all[slot];
    c->n = 1 + (unsigned)(x % M_BUFS);
    if (c->n > r->d.size)
        c->n = r->d.size;
    split_at = (unsigned)(x >> 8) % (c->n + 1);
    for (unsigned i = 0; i < c->n; i++) {
        uint64_t y = test_random(seed);

        c->buf[i].len = y % 16 == 0 ? 0 : (uint32_t)(y >> 8) % 600;
        c->buf[i].addr = y % 4 == 1 ? CUT - (y >> 40) % 400 : DATA + (y >> 40) % 0x10000;
        c->buf[i].write = i >= split_at;
    }
    indirect = c->n;
    if (x >> 20 & 1) {
        table = 0x90000 + 128ull * slot + (x >> 24) % 3;
        if (!r->d.packed && (x >> 28 & 1))
            indirect = 1 + (unsigned)(x >> 32) % c->n;
    }
    /* Tables of chains in flight may be written over: they have been read once. */
    if (table > RAM - 4096)
        table = 0x90000;
    if (table == 0x90000 && m->waits > 0)
        table = 0;
    c->descs = table ? c->n - indirect + 1 : c->n;
    {
        struct vqd d = r->d;

        if (table >= CUT) /* the driver's window is the low region: write through the high one */
            d.ram = r->high - CUT;
        if (table) {
            vqd_table_(&d, table, c->buf + (c->n - indirect), indirect);
        }
    }
    if (table >= CUT) {
        /* vqd_add_table writes the table through ram: give it a scratch place that is discarded */
        struct vqd_buf direct[M_BUFS];
        unsigned k = c->n - indirect;
        uint64_t head = r->d.added % r->d.size;

        memcpy(direct, c->buf, sizeof(direct));
        direct[k].addr = table;
        direct[k].len = 16 * indirect;
        direct[k].write = false;
        if (r->d.packed && k > 0)
            abort();
        c->id = -1;
        if (k + 1 <= r->d.free && r->d.id_count > 0) {
            uint64_t avail = r->d.driver + 2;
            uint64_t was = r->d.packed ? 0 : vqd_get(&r->d, avail, 2);

            c->id = vqd_add(&r->d, direct, k + 1);
            if (r->d.packed) {
                uint64_t at = r->d.desc + 16 * head + 14;

                vqd_put(&r->d, at, 2, vqd_get(&r->d, at, 2) | VQD_INDIRECT);
            } else {
                unsigned last = (unsigned)c->id;
                uint64_t at;

                (void)was;
                for (unsigned i = 0; i < k; i++)
                    last = r->d.link[last];
                at = r->d.desc + 16ull * last + 12;
                vqd_put(&r->d, at, 2, vqd_get(&r->d, at, 2) | VQD_INDIRECT);
            }
        }
    } else {
        c->id = vqd_add_table(&r->d, c->buf, c->n, table, indirect);
    }
    if (c->id < 0)
        return;
    m->frees--;
    m->waiting[(m->wait_first + m->waits++) % m->cap] = slot;
}

static void m_pop(struct rig *r, struct model *m, uint64_t *seed)
{
    unsigned slot = m->waiting[m->wait_first];
    struct m_chain *c = &m->all[slot];
    int n;

    assert_int_equal(tn_virtq_pending(&r->q), m->waits > 0);
    if (m->waits == 0) {
        assert_int_equal(tn_virtq_pop(&r->q, &r->chain, r->iov, 4), 0);
        return;
    }
    if (test_random(seed) % 16 == 0) {
        unsigned cap = (unsigned)(test_random(seed) % 4);

        n = tn_virtq_pop(&r->q, &c->chain, c->iov, (uint16_t)cap);
        assert_true(n == 1 || n == TN_ENOSPC);
        if (n == 1)
            assert_int_equal(tn_virtq_unpop(&r->q, &c->chain), 0);
    }
    n = tn_virtq_pop(&r->q, &c->chain, c->iov, 2 * M_BUFS);
    if (n != 1)
        fail_msg("pop: %d", n);
    m_compare(r, c);
    m->wait_first = (m->wait_first + 1) % m->cap;
    m->waits--;
    m->flying[m->flights++] = slot;
    m->popped += r->d.packed ? c->descs : 1;
}

static void m_push(struct rig *r, struct model *m, uint64_t *seed, unsigned many)
{
    struct tn_virtq_chain chain[8];
    uint32_t written[8];
    unsigned n = 0;

    for (; n < many && m->flights > 0; n++) {
        unsigned i = r->cfg.in_order ? 0 : (unsigned)(test_random(seed) % m->flights);
        unsigned slot = m->flying[i];
        struct m_chain *c = &m->all[slot];

        memmove(&m->flying[i], &m->flying[i + 1], (m->flights - i - 1) * sizeof(unsigned));
        m->flights--;
        c->written =
            c->chain.writable_len ? (uint32_t)(test_random(seed) % (c->chain.writable_len + 1)) : 0;
        written[n] = c->written;
        chain[n] = c->chain;
        m->done[(m->done_first + m->dones++) % m->cap] = slot;
        m->pushed += r->d.packed ? c->descs : 1;
    }
    if (n == 1)
        assert_int_equal(tn_virtq_push(&r->q, chain, written[0]), 0);
    else
        assert_int_equal(tn_virtq_push_many(&r->q, chain, written, (uint16_t)n), 0);
    assert_int_equal(tn_virtq_in_flight(&r->q), m->popped - m->pushed);
}

/* Whether a count from first on, before end, looks like event when only its rest is seen. */
static bool m_within(uint64_t event, uint64_t first, uint64_t end, uint64_t round)
{
    return (event % round + round - first % round) % round < end - first;
}

static void m_signal(struct rig *r, struct model *m)
{
    uint64_t round = r->d.packed ? 2ull * r->d.size : 65536;
    bool want = m->pushed != m->checked;

    if (want)
        want = m->by_index ? m_within(m->event, m->checked, m->pushed, round) : m->wants;
    assert_int_equal(tn_virtq_should_signal(&r->q), want);
    m->checked = m->pushed;
}

static void m_reap(struct rig *r, struct model *m)
{
    uint32_t len = 0;
    int id = vqd_reap(&r->d, &len);
    unsigned slot;

    if (m->dones == 0) {
        assert_int_equal(id, -1);
        return;
    }
    slot = m->done[m->done_first];
    assert_int_equal(id, m->all[slot].id);
    assert_int_equal(len, m->all[slot].written);
    m->done_first = (m->done_first + 1) % m->cap;
    m->dones--;
    m->free[m->frees++] = slot;
}

/* The driver adds, perhaps asks whether to kick; the device has its wish. */
static void m_kick(struct rig *r, struct model *m)
{
    uint64_t round = r->d.packed ? 2ull * r->d.size : 65536;
    bool want = m->wish_set;

    if (r->d.event_idx)
        want = m->wish_set && m_within(m->wish, r->d.kicked, r->d.added, round);
    assert_int_equal(vqd_must_kick(&r->d), want);
}

static void m_run(struct rig *r, unsigned size, bool packed, bool event_idx, bool in_order,
                  uint64_t ops, uint64_t *seed)
{
    struct model m;
    unsigned greed = 8;

    rig_ring(r, size, packed, event_idx);
    r->cfg.in_order = in_order;
    tn_virtq_stop(&r->q);
    assert_int_equal(tn_virtq_start(&r->q, &r->mem, &r->cfg), 0);
    m_open(&m, size < 512 ? size : 512);
    m.wants = true;
    m.wish_set = true; /* at first the device hears of everything: event index 0, or flags 0 */
    m.by_index = event_idx && !packed;
    if (event_idx && packed)
        m.wish_set = false;
    if (event_idx && packed) {
        tn_virtq_notify_enable(&r->q);
        m.wish_set = true;
    }
    for (uint64_t op = 0; op < ops; op++) {
        uint64_t x = test_random(seed);

        if (op % 4096 == 0)
            greed = 4 + (unsigned)(test_random(seed) % 10); /* the ring fills up, or runs dry */
        if (x % 24 < greed) {
            m_add(r, &m, seed);
        } else if (x % 24 < 14) {
            m_pop(r, &m, seed);
        } else if (x % 24 < 18) {
            m_push(r, &m, seed, x >> 32 & 1 ? 1 : (unsigned)(x >> 33) % 8);
        } else if (x % 24 < 21) {
            m_reap(r, &m);
        } else {
            switch (x >> 40 & 7) {
            case 0:
                if (event_idx) {
                    uint64_t ahead = test_random(seed) % (2 * size);

                    m.event = m.pushed + (ahead < size / 2 ? ahead : ahead % 3);
                    m.by_index = true;
                    vqd_interrupt_at(&r->d, m.event);
                } else {
                    m.wants = x >> 50 & 1;
                    vqd_interrupts(&r->d, m.wants);
                }
                break;
            case 1:
                assert_int_equal(tn_virtq_notify_enable(&r->q), m.waits > 0);
                m.wish_set = true;
                m.wish = m.popped;
                break;
            case 2:
                tn_virtq_notify_disable(&r->q);
                if (packed || !event_idx)
                    m.wish_set = false;
                break;
            case 3:
            case 4:
                m_kick(r, &m);
                break;
            case 5:
                if (m.flights == 0 && op % 8 == 0) {
                    struct tn_virtq_state one, two;

                    tn_virtq_save(&r->q, &one);
                    tn_virtq_init(&r->q);
                    assert_int_equal(tn_virtq_restore(&r->q, &r->mem, &one), 0);
                    tn_virtq_save(&r->q, &two);
                    assert_memory_equal(&one, &two, sizeof(one));
                }
                break;
            default:
                m_signal(r, &m);
            }
        }
    }
    while (m.waits > 0)
        m_pop(r, &m, seed);
    while (m.flights > 0)
        m_push(r, &m, seed, 8);
    while (m.dones > 0)
        m_reap(r, &m);
    assert_int_equal(vqd_reap(&r->d, &(uint32_t){0}), -1);
    assert_int_equal(r->d.free, r->d.size);
    m_close(&m);
}

static void a31_the_model_agrees(void **state)
{
    static const unsigned split[] = {1, 2, 4, 8, 64, 256, 1024, 8192};
    static const unsigned packed[] = {1, 2, 3, 5, 7, 8, 13, 100, 255, 256, 257, 1000, 20000};
    uint64_t seed = 0x5eed, each = getenv("TENON_LONG") ? 120000 : 12000, ops = 0;
    struct rig r;

    (void)state;
    rig_open(&r);
    for (unsigned kind = 0; kind < 4; kind++) {
        for (size_t i = 0; i < COUNT(split); i++, ops += each)
            m_run(&r, split[i], false, kind & 1, kind & 2, each, &seed);
        for (size_t i = 0; i < COUNT(packed); i++, ops += each)
            m_run(&r, packed[i], true, kind & 1, kind & 2, each, &seed);
    }
    if (getenv("TENON_LONG"))
        assert_true(ops >= 10000000);
    rig_close(&r);
}

/* Indices go round many times: 65536 and the packed laps, with a few chains in flight. */
static void indices_wrap(void **state)
{
    static const struct vqd_buf buf = {DATA, 4, true};
    struct rig r;

    (void)state;
    rig_open(&r);
    EACH_FORMAT(&r, packed)
    {
        rig_start(&r, packed ? 5 : 4, packed, true);
        for (uint32_t i = 0; i < 140000; i++) {
            uint32_t len;

            vqd_interrupt_at(&r.d, i + i % 2);
            if (vqd_add(&r.d, &buf, 1) < 0)
                fail_msg("add %u", i);
            if (tn_virtq_pop(&r.q, &r.chain, r.iov, 1) != 1)
                fail_msg("pop %u", i);
            if (tn_virtq_push(&r.q, &r.chain, 4) != 0)
                fail_msg("push %u", i);
            if (tn_virtq_should_signal(&r.q) != (i % 2 == 0))
                fail_msg("signal %u", i);
            if (vqd_reap(&r.d, &len) < 0 || len != 4)
                fail_msg("reap %u", i);
        }
    }
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a01_zero_length_descriptors_end),
        cmocka_unit_test(a02_zero_length_descriptors_with_the_dirty_log_on),
        cmocka_unit_test(a03_index_jumps_beyond_the_ring),
        cmocka_unit_test(a04_cycles_end),
        cmocka_unit_test(a05_head_or_next_beyond_the_table),
        cmocka_unit_test(a07_a08_a10_b10_buffers_must_be_ram),
        cmocka_unit_test(a09_buffers_across_regions_are_split),
        cmocka_unit_test(a11_a12_no_more_in_flight_than_the_ring_has),
        cmocka_unit_test(a13_sizes),
        cmocka_unit_test(areas_are_aligned_and_in_ram),
        cmocka_unit_test(a14_a15_a16_geometry_is_frozen),
        cmocka_unit_test(a19_outputs_are_void_after_an_error),
        cmocka_unit_test(a20_nothing_works_before_start_and_after_stop),
        cmocka_unit_test(a22_a23_indirect_tables),
        cmocka_unit_test(indirect_after_direct_descriptors),
        cmocka_unit_test(a24_a25_what_changes_while_it_is_read),
        cmocka_unit_test(a27_indices_are_not_torn),
        cmocka_unit_test(a29_need_event),
        cmocka_unit_test(a31_buffer_ids_and_list_flags_of_a_packed_ring),
        cmocka_unit_test(a32_readable_after_writable),
        cmocka_unit_test(more_than_four_gib_in_a_chain),
        cmocka_unit_test(c04_completions_of_an_earlier_run_are_dropped),
        cmocka_unit_test(push_refuses_what_cannot_be),
        cmocka_unit_test(in_order_is_kept),
        cmocka_unit_test(unpop_gives_the_chain_again),
        cmocka_unit_test(what_the_device_writes_is_marked_dirty),
        cmocka_unit_test(flags_of_notification),
        cmocka_unit_test(a12_a28_e01_restored_states_are_checked),
        cmocka_unit_test(e06_what_waits_is_found_after_a_restore),
        cmocka_unit_test(a31_the_model_agrees),
        cmocka_unit_test(indices_wrap),
    };

    return cmocka_run_group_tests_name("virtq", tests, NULL, NULL);
}
