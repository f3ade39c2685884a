/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A balloon over real memory on an event loop, without a machine: the guest is the test's. That
 * what it gives up is gone from this process, and nothing else is; that what it says of pages which
 * are not its own has no effect; and that a guest with much to say leaves others their turns.
 */
#include "tn_vm_balloon.h"

#include "vm_alone.h"

#include <sys/mman.h>

#define PAGE    4096u
#define HALF    (16u << 20) /* bytes of each region of RAM, and of the host's before the second */
#define HIGH    (64u << 20) /* where the second is */
#define RAM     (2 * HALF)
#define PAGES   (RAM / PAGE)
#define BUFFER  0x40000u /* page numbers, 32 KiB for each of a few chains */
#define LETTER  0x8000u
#define FIRST   0x200u /* the first page that is no ring and no buffer */
#define RAM_PFN (HIGH / PAGE)

enum how { ANON, SHARED, VIEW, HOWS }; /* anonymous memory, a memfd, a view of another's memfd */

struct rig {
    struct alone a;
    struct tn_hostmem file, ram;
    enum how how;
    struct tn_vm_balloon b;
    struct vd d;
    uint32_t letters;
    unsigned changes; /* of the configuration, that the driver was told of */
};

static struct rig *rig_new(enum how how)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct tn_hostmem_cfg cfg;

    assert_non_null(r);
    alone_open(&r->a);
    r->how = how;
    memset(&cfg, 0, sizeof(cfg));
    cfg.size = RAM;
    cfg.anon = how == ANON;
    if (how == VIEW) {
        assert_int_equal(tn_hostmem_init(&r->file, &cfg), 0);
        memset(r->file.ptr, 0xf1, RAM);
        assert_int_equal(tn_hostmem_view(&r->ram, &r->file), 0);
        memset(r->ram.ptr, 0, FIRST * PAGE);
    } else {
        assert_int_equal(tn_hostmem_init(&r->ram, &cfg), 0);
    }
    r->a.fds = open_fds();
    assert_int_equal(tn_mem_add(&r->a.mem, 0, r->ram.ptr, HALF), 0);
    assert_int_equal(tn_mem_add(&r->a.mem, HIGH, r->ram.ptr + HALF, HALF), 0);
    return r;
}

static int rig_try(struct rig *r, uint64_t size, uint64_t ring_features)
{
    return tn_vm_balloon_init(&r->b, size, ring_features, &r->a.mem, &r->ram, &r->a.loop);
}

static void rig_up(struct rig *r, uint64_t want)
{
    r->letters = 0;
    alone_up(&r->b.slot.lock, &r->d, want, 4, 128);
}

static void rig_join(struct rig *r, uint64_t ring_features)
{
    assert_int_equal(rig_try(r, 3 * PAGE, ring_features), 0);
    tn_virtio_connect(&r->b.model.virtio, count_changes, &r->changes);
    vd_init(&r->d, &r->b.model.virtio, r->ram.ptr, 0, 0x1000);
}

static struct rig *rig_open(enum how how, uint64_t ring_features)
{
    struct rig *r = rig_new(how);

    rig_join(r, ring_features);
    rig_up(r, ~0ull);
    return r;
}

static void rig_close(struct rig *r)
{
    vd_free(&r->d);
    tn_vm_balloon_close(&r->b);
    tn_vm_balloon_close(&r->b); /* nothing */
    assert_int_equal(r->b.again.source.fd, -1);
    assert_int_equal(open_fds(), r->a.fds);
    tn_hostmem_close(&r->ram); /* nobody has it any more */
    if (r->how == VIEW)
        tn_hostmem_close(&r->file);
    r->a.fds = open_fds();
    alone_close(&r->a);
    free(r);
}

/* ---- memory ---- */

/* Page n of the host's memory: the second half has other numbers in the guest. */
static uint32_t pfn_of(uint32_t n)
{
    return n < HALF / PAGE ? n : n - HALF / PAGE + RAM_PFN;
}

static uint8_t *page_at(struct rig *r, uint32_t n)
{
    return r->ram.ptr + (uint64_t)n * PAGE;
}

/* All pages but the rings' and the buffers' have bytes of their own. */
static void fill(struct rig *r)
{
    memset(page_at(r, FIRST), 0xaa, RAM - FIRST * PAGE);
}

/* Which pages this process holds. */
static void held(struct rig *r, bool is[PAGES])
{
    static unsigned char core[PAGES];
    static uint64_t own[PAGES / 64];

    if (r->how == VIEW)
        assert_true(tn_hostmem_own(&r->ram, own) >= 0);
    else
        assert_int_equal(mincore(r->ram.ptr, RAM, core), 0);
    for (uint32_t i = 0; i < PAGES; i++)
        is[i] = r->how == VIEW ? own[i / 64] >> i % 64 & 1 : core[i] & 1;
}

/* After fill: just the pages of gone were given back. */
static void just_gone(struct rig *r, const bool gone[PAGES])
{
    static bool is[PAGES];

    held(r, is);
    for (uint32_t i = FIRST; i < PAGES; i++)
        if (is[i] == gone[i])
            fail_msg("memory %d: page %#x is %s", r->how, i, is[i] ? "held" : "gone");
    for (uint32_t i = FIRST; i < PAGES; i++) {
        int want = !gone[i] ? 0xaa : r->how == VIEW ? 0xf1 : 0;

        if (page_at(r, i)[0] != want || page_at(r, i)[PAGE - 1] != want)
            fail_msg("memory %d: page %#x has %#x", r->how, i, page_at(r, i)[0]);
    }
}

/* ---- the driver ---- */

static void kick(struct rig *r, uint32_t queue)
{
    alone_kick(&r->b.slot.lock, &r->d, queue);
}

/* Puts n page numbers into queue 0 or 1. */
static void letter(struct rig *r, uint32_t queue, const uint32_t *pfn, uint32_t n)
{
    const struct vqd_buf buf = {BUFFER + r->letters++ % 16 * LETTER, 4 * n, false};

    assert_true(4 * n <= LETTER);
    for (uint32_t i = 0; i < n; i++)
        tn_put_(r->ram.ptr + buf.addr + 4 * i, 4, pfn[i]);
    assert_true(vd_add(&r->d, queue, &buf, 1) >= 0);
}

static void until_back(struct rig *r, uint32_t queue)
{
    uint32_t len;

    UNTIL(&r->a.loop, vd_reap(&r->d, queue, &len) >= 0);
}

static void inflate(struct rig *r, const uint32_t *pfn, uint32_t n)
{
    letter(r, 0, pfn, n);
    kick(r, 0);
    until_back(r, 0);
}

/* Reports that len bytes at gpa are free. */
static void report(struct rig *r, uint64_t gpa, uint32_t len)
{
    const struct vqd_buf buf = {gpa, len, true};

    assert_true(vd_add(&r->d, 3, &buf, 1) >= 0);
    kick(r, 3);
    until_back(r, 3);
}

static void config_write(struct rig *r, uint32_t off, uint32_t value)
{
    pthread_mutex_lock(&r->b.slot.lock);
    tn_virtio_config_write(&r->b.model.virtio, off, 4, value);
    pthread_mutex_unlock(&r->b.slot.lock);
}

/* ---- what is refused ---- */

static void a_bad_size_is_refused(void **state)
{
    static const struct {
        uint64_t size, rings;
        int want;
    } rows[] = {
        {1, 0, TN_EINVAL},
        {100, 0, TN_EINVAL},
        {PAGE - 1, 0, TN_EINVAL},
        {PAGE + 1, 0, TN_EINVAL},
        {RAM + 1, 0, TN_EINVAL},
        {RAM + PAGE, 0, TN_EINVAL},
        {HIGH + HALF, 0, TN_EINVAL}, /* its end, but a hole is no RAM */
        {(1ull << 32) * PAGE, 0, TN_EINVAL},
        {((1ull << 32) + 1) * PAGE, 0, TN_EINVAL},
        {UINT64_MAX, 0, TN_EINVAL},
        {UINT64_MAX - PAGE + 1, 0, TN_EINVAL},
        {PAGE, TN_VIRTIO_F_VERSION_1, TN_EINVAL},
        {PAGE, 1, TN_EINVAL},
        {0, 0, 0},
        {PAGE, TN_VIRTIO_F_RING, 0},
        {RAM, 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct rig *r = rig_new(ANON);
        int got;

        memset(&r->b, 0xee, sizeof(r->b));
        got = rig_try(r, rows[i].size, rows[i].rings);
        if (got != rows[i].want)
            fail_msg("row %zu: %d", i, got);
        assert_int_equal(r->b.again.source.fd >= 0, got == 0);
        assert_int_equal(open_fds(), r->a.fds + (got == 0));
        if (got == 0)
            assert_int_equal(tn_get_(r->b.model.config, 4), rows[i].size / PAGE);
        rig_close(r);
    }
}

static void what_the_system_refuses(void **state)
{
    struct rig *r = rig_new(ANON);
    struct tn_loop none;

    (void)state;
    limit_fds(0);
    assert_int_equal(rig_try(r, PAGE, 0), TN_ESYS);
    limit_fds(-1);
    assert_int_equal(errno, EMFILE);
    assert_int_equal(open_fds(), r->a.fds);
    memset(&none, 0, sizeof(none));
    none.epfd = none.wake_fd = -1;
    assert_int_equal(tn_vm_balloon_init(&r->b, PAGE, 0, &r->a.mem, &r->ram, &none), TN_ESYS);
    assert_int_equal(open_fds(), r->a.fds);
    rig_close(r);
}

static void it_is_as_described(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rings); i++) {
        struct rig *r = rig_open(ANON, rings[i]);
        uint64_t f = r->b.model.virtio.cfg.features;

        assert_int_equal(f & TN_VIRTIO_F_RING, rings[i]);
        assert_int_equal(f & TN_VIRTIO_BALLOON_F_ALL,
                         TN_VIRTIO_BALLOON_F_STATS_VQ | TN_VIRTIO_BALLOON_F_DEFLATE_ON_OOM |
                             TN_VIRTIO_BALLOON_F_PAGE_POISON | TN_VIRTIO_BALLOON_F_PAGE_REPORTING);
        assert_int_equal(tn_get_(r->b.model.config, 4), 3);
        settle(&r->a.loop);
        assert_int_equal(turns(&r->a.loop, 40), 0);
        rig_close(r);
    }
}

/* ---- pages that go back ---- */

/* In any order, twice, alone and in runs, of both regions; then they are used again. */
static void pages_go_back(void **state)
{
    static bool gone[PAGES];

    (void)state;
    for (size_t i = 0; i < HOWS * COUNT(rings); i++) {
        static const uint32_t some[] = {FIRST,       0x301,           0x303,     0x302,
                                        0x303,       0x500,           0x4ff,     HALF / PAGE - 1,
                                        HALF / PAGE, HALF / PAGE + 1, PAGES - 1, 0x301};
        struct rig *r = rig_open((enum how)(i % HOWS), rings[i / HOWS]);
        uint32_t pfn[COUNT(some)];

        memset(gone, 0, sizeof(gone));
        fill(r);
        just_gone(r, gone);
        for (size_t k = 0; k < COUNT(some); k++) {
            pfn[k] = pfn_of(some[k]);
            gone[some[k]] = true;
        }
        inflate(r, pfn, COUNT(some));
        just_gone(r, gone);
        assert_int_equal(r->b.model.foreign, 0);
        assert_int_equal(r->b.model.failed, 0);
        /* The guest takes some back. */
        letter(r, 1, pfn, 3);
        kick(r, 1);
        until_back(r, 1);
        fill(r);
        memset(gone, 0, sizeof(gone));
        just_gone(r, gone);
        rig_close(r);
    }
}

/* Numbers of what is no RAM: nothing happens but that they are counted, and the others go back. */
static void pages_of_nobody(void **state)
{
    static const uint32_t foreign[] = {
        HALF / PAGE, HALF / PAGE + 1, RAM_PFN - 1, 0x100000,      RAM_PFN + HALF / PAGE,
        0x7fffffff,  0x80000000,      UINT32_MAX,  UINT32_MAX - 1};
    static bool gone[PAGES];
    uint32_t pfn[2 * COUNT(foreign)], part[2];

    (void)state;
    for (int how = 0; how < HOWS; how++) {
        struct rig *r = rig_open((enum how)how, TN_VIRTIO_F_RING);
        const struct vqd_buf buf = {BUFFER, 6, false};

        memset(gone, 0, sizeof(gone));
        fill(r);
        for (size_t k = 0; k < COUNT(foreign); k++) {
            pfn[2 * k] = foreign[k];
            pfn[2 * k + 1] = pfn_of(FIRST + 2 * (uint32_t)k);
            gone[FIRST + 2 * k] = true;
        }
        inflate(r, pfn, COUNT(pfn));
        just_gone(r, gone);
        assert_int_equal(r->b.model.foreign, COUNT(foreign));
        assert_int_equal(r->b.model.failed, 0);
        /* A part of a number is no number. */
        part[0] = pfn_of(0x600);
        part[1] = pfn_of(0x601);
        for (uint32_t k = 0; k < 2; k++)
            tn_put_(r->ram.ptr + BUFFER + 4 * k, 4, part[k]);
        fill(r);
        memset(gone, 0, sizeof(gone));
        gone[0x600] = true;
        assert_true(vd_add(&r->d, 0, &buf, 1) >= 0);
        kick(r, 0);
        until_back(r, 0);
        just_gone(r, gone);
        rig_close(r);
    }
}

/* What the guest reports to be free: whole pages of it. */
static void reports(void **state)
{
    static const struct {
        uint32_t gpa, len, first, end; /* pages that are gone then */
    } rows[] = {
        {0x320000, 0x10000, 0x320, 0x330},
        {0x320001, 0x10000, 0x321, 0x330},
        {0x320000, 0xffff, 0x320, 0x32f},
        {0x320fff, 0x1001, 0x321, 0x322},
        {0x320fff, 0x1000, 0, 0},
        {0x320001, 0xfff, 0, 0},
        {HALF - 0x3000, 0x3000, 0xffd, 0x1000},
    };
    static bool gone[PAGES];

    (void)state;
    for (size_t i = 0; i < COUNT(rows) * HOWS; i++) {
        /* Without PAGE_POISON: its pages need not be 0 afterwards. */
        struct rig *r = rig_new((enum how)(i % HOWS));

        rig_join(r, TN_VIRTIO_F_RING);
        rig_up(r, ~TN_VIRTIO_BALLOON_F_PAGE_POISON);
        fill(r);
        memset(gone, 0, sizeof(gone));
        for (uint32_t k = rows[i / HOWS].first; k < rows[i / HOWS].end; k++)
            gone[k] = true;
        report(r, rows[i / HOWS].gpa, rows[i / HOWS].len);
        just_gone(r, gone);
        assert_int_equal(r->b.model.reported, rows[i / HOWS].end - rows[i / HOWS].first);
        assert_int_equal(r->b.model.failed, 0);
        rig_close(r);
    }
}

/* Pages that must be of one value afterwards: zeros are given back where that makes zeros. */
static void poison(void **state)
{
    static const uint32_t values[] = {0, 0xaaaaaaaa, 1};
    static bool gone[PAGES];

    (void)state;
    for (size_t i = 0; i < COUNT(values) * HOWS; i++) {
        struct rig *r = rig_new((enum how)(i % HOWS));
        bool back = values[i / HOWS] == 0 && r->how != VIEW;

        rig_join(r, TN_VIRTIO_F_RING);
        pthread_mutex_lock(&r->b.slot.lock);
        assert_true(vd_negotiate(&r->d, ~0ull));
        tn_virtio_config_write(&r->b.model.virtio, 12, 4, values[i / HOWS]);
        assert_true(vd_queues(&r->d, 4, 128));
        vd_set_status(&r->d, 15);
        pthread_mutex_unlock(&r->b.slot.lock);
        fill(r);
        memset(gone, 0, sizeof(gone));
        for (uint32_t k = 0x320; k < 0x330; k++)
            gone[k] = back;
        report(r, 0x320000, 0x10000);
        just_gone(r, gone);
        assert_int_equal(r->b.model.reported, back ? 16 : 0);
        assert_int_equal(r->b.model.failed, values[i / HOWS] == 0 && r->how == VIEW ? 16 : 0);
        rig_close(r);
    }
}

/* Where the host's pages are larger only whole ones go back, of any range. */
static void larger_pages_of_the_host(void **state)
{
    static const struct {
        uint32_t first, pages, gone, end;
    } rows[] = {
        {0x400, 16, 0x400, 0x410}, {0x400, 15, 0, 0},          {0x401, 15, 0, 0},
        {0x401, 16, 0, 0},         {0x401, 31, 0x410, 0x420},  {0x3ff, 18, 0x400, 0x410},
        {0x408, 48, 0x410, 0x430}, {0xff0, 32, 0xff0, 0x1010}, {0xff8, 16, 0, 0},
    };
    static bool gone[PAGES];
    uint32_t pfn[64];

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct rig *r = rig_new(ANON);

        r->ram.page = 16 * PAGE;
        rig_join(r, TN_VIRTIO_F_RING);
        rig_up(r, ~0ull);
        fill(r);
        memset(gone, 0, sizeof(gone));
        for (uint32_t k = rows[i].gone; k < rows[i].end; k++)
            gone[k] = true;
        for (uint32_t k = 0; k < rows[i].pages; k++)
            pfn[k] = pfn_of(rows[i].first + k);
        inflate(r, pfn, rows[i].pages);
        just_gone(r, gone);
        assert_int_equal(r->b.model.failed, 0);
        r->ram.page = PAGE;
        rig_close(r);
    }
}

/* Memory that a userfaultfd fills would be filled with what it was: none is given back. */
static void lazy_memory_stays(void **state)
{
    static bool gone[PAGES];
    struct rig *r = rig_open(VIEW, TN_VIRTIO_F_RING);
    const uint32_t pfn[] = {0x300, 0x301};

    (void)state;
    r->b.lazy = true;
    fill(r);
    memset(gone, 0, sizeof(gone));
    inflate(r, pfn, 2);
    just_gone(r, gone);
    assert_int_equal(r->b.model.failed, 2);
    r->b.lazy = false;
    gone[0x300] = gone[0x301] = true;
    inflate(r, pfn, 2);
    just_gone(r, gone);
    rig_close(r);
}

/* ---- what is told ---- */

static uint32_t events(struct rig *r)
{
    return __atomic_exchange_n(&r->b.events, 0, __ATOMIC_ACQUIRE);
}

static void stat_put(struct rig *r, uint32_t at, uint16_t tag, uint64_t value)
{
    tn_put_(r->ram.ptr + BUFFER + 10 * at, 2, tag);
    tn_put_(r->ram.ptr + BUFFER + 10 * at + 2, 8, value);
}

static void statistics(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rings); i++) {
        struct rig *r = rig_open(ANON, rings[i]);
        const struct vqd_buf buf = {BUFFER, 30, false};
        struct tn_virtio_balloon_stats s;
        uint32_t len;

        assert_int_equal(events(r), 0);
        assert_int_equal(tn_virtio_balloon_stats_ask(&r->b.model), TN_EAGAIN);
        for (uint64_t round = 0; round < 3; round++) {
            stat_put(r, 0, TN_VIRTIO_BALLOON_S_MEMFREE, 1000 + round);
            stat_put(r, 1, TN_VIRTIO_BALLOON_S_MEMTOT, UINT64_MAX - round);
            stat_put(r, 2, 999, 1); /* nobody knows it */
            assert_true(vd_add(&r->d, 2, &buf, 1) >= 0);
            if (round == 1)
                config_write(r, 4, 1);
            kick(r, 2);
            settle(&r->a.loop);
            assert_int_equal(events(r), round == 1
                                            ? TN_VIRTIO_BALLOON_E_STATS | TN_VIRTIO_BALLOON_E_ACTUAL
                                            : TN_VIRTIO_BALLOON_E_STATS);
            pthread_mutex_lock(&r->b.slot.lock);
            tn_virtio_balloon_stats_read(&r->b.model, &s);
            pthread_mutex_unlock(&r->b.slot.lock);
            assert_int_equal(s.given,
                             1 << TN_VIRTIO_BALLOON_S_MEMFREE | 1 << TN_VIRTIO_BALLOON_S_MEMTOT);
            assert_int_equal(s.value[TN_VIRTIO_BALLOON_S_MEMFREE], 1000 + round);
            assert_int_equal(s.value[TN_VIRTIO_BALLOON_S_MEMTOT], UINT64_MAX - round);
            assert_int_equal(vd_reap(&r->d, 2, &len), -1); /* until somebody asks */
            pthread_mutex_lock(&r->b.slot.lock);
            assert_int_equal(tn_virtio_balloon_stats_ask(&r->b.model), 0);
            pthread_mutex_unlock(&r->b.slot.lock);
            assert_true(vd_reap(&r->d, 2, &len) >= 0);
        }
        assert_int_equal(turns(&r->a.loop, 30), 0);
        rig_close(r);
    }
}

static void its_size(void **state)
{
    struct rig *r = rig_open(ANON, TN_VIRTIO_F_RING);
    unsigned told = r->changes;

    (void)state;
    pthread_mutex_lock(&r->b.slot.lock);
    assert_int_equal(tn_virtio_balloon_resize(&r->b.model, 3), 0); /* nothing new */
    assert_int_equal(r->changes, told);
    assert_int_equal(tn_virtio_balloon_resize(&r->b.model, PAGES), 0);
    assert_int_equal(tn_virtio_balloon_resize(&r->b.model, PAGES + 1), TN_EINVAL);
    pthread_mutex_unlock(&r->b.slot.lock);
    assert_int_equal(r->changes, told + 1);
    assert_int_equal(tn_get_(r->b.model.config, 4), PAGES);
    config_write(r, 4, 2);
    assert_int_equal(tn_virtio_balloon_actual(&r->b.model), 2);
    assert_int_equal(events(r), TN_VIRTIO_BALLOON_E_ACTUAL);
    config_write(r, 4, UINT32_MAX); /* a lie */
    assert_int_equal(tn_virtio_balloon_actual(&r->b.model), PAGES);
    config_write(r, 0, 7); /* not the driver's */
    assert_int_equal(tn_get_(r->b.model.config, 4), PAGES);
    assert_int_equal(events(r), TN_VIRTIO_BALLOON_E_ACTUAL);
    rig_close(r);
}

/* ---- turns ---- */

static void on_other(void *ctx, uint64_t count)
{
    (void)ctx;
    (void)count; /* that it has its turn is all */
}

/* Every second page from FIRST on, n of them in one letter. */
static void long_letter(struct rig *r, uint32_t n)
{
    static uint32_t pfn[LETTER / 4];

    for (uint32_t i = 0; i < n; i++)
        pfn[i] = pfn_of(FIRST + 2 * i);
    letter(r, 0, pfn, n);
}

static void gone_to(struct rig *r, uint32_t n)
{
    static bool gone[PAGES];

    memset(gone, 0, sizeof(gone));
    for (uint32_t i = 0; i < n; i++)
        gone[FIRST + 2 * i] = true;
    just_gone(r, gone);
}

/* Much at once is done in turns of the loop, between which others have theirs. */
static void others_have_their_turn(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rings); i++) {
        struct rig *r = rig_open(ANON, rings[i]);
        struct tn_loop_event other;
        uint64_t last = 0;
        unsigned own = 0;
        uint32_t len;

        assert_int_equal(tn_loop_event_init(&other, &r->a.loop, on_other, NULL), 0);
        fill(r);
        settle(&r->a.loop);
        long_letter(r, 3800);
        kick(r, 0);
        assert_in_range(r->b.model.inflated, 1, 1500); /* not all in the driver's own time */
        while (vd_reap(&r->d, 0, &len) < 0) {
            assert_int_equal(tn_loop_event_signal(&other), 0);
            assert_int_equal(tn_loop_step(&r->a.loop, 0), 2);
            assert_true(r->b.model.inflated > last);
            assert_true(r->b.model.inflated - last <= 2000);
            last = r->b.model.inflated;
            assert_true(++own < 100);
        }
        assert_true(own > 2);
        assert_int_equal(r->b.model.inflated, 3800);
        gone_to(r, 3800);
        settle(&r->a.loop);
        assert_int_equal(turns(&r->a.loop, 40), 0);
        tn_loop_event_close(&other);
        rig_close(r);
    }
}

/* What waits in the rings is served by wake, also before a turn of the loop. */
static void wake_goes_on(void **state)
{
    struct rig *r = rig_open(ANON, TN_VIRTIO_F_RING);
    const uint32_t pfn[] = {FIRST, FIRST + 2};
    uint32_t len;

    (void)state;
    settle(&r->a.loop);
    fill(r);
    letter(r, 0, pfn, 2);
    settle(&r->a.loop);
    assert_int_equal(vd_reap(&r->d, 0, &len), -1); /* nobody said a word */
    tn_vm_balloon_wake(&r->b);
    assert_true(vd_reap(&r->d, 0, &len) >= 0);
    gone_to(r, 2);
    tn_vm_balloon_wake(&r->b); /* too often does no harm */
    settle(&r->a.loop);
    /* What was there before the driver was ready. */
    alone_reset(&r->b.slot.lock, &r->d);
    fill(r);
    pthread_mutex_lock(&r->b.slot.lock);
    assert_true(vd_negotiate(&r->d, ~0ull));
    assert_true(vd_queues(&r->d, 4, 128));
    letter(r, 0, pfn, 2);
    vd_set_status(&r->d, 15);
    pthread_mutex_unlock(&r->b.slot.lock);
    until_back(r, 0);
    gone_to(r, 2);
    rig_close(r);
}

/* The driver begins anew between two turns: what it asked for before is not done after. */
static void a_driver_that_begins_anew(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 8; i++) {
        struct rig *r = rig_open((enum how)(i % HOWS), rings[i / 4]);
        uint64_t done;
        uint32_t len;

        fill(r);
        settle(&r->a.loop);
        long_letter(r, 3800);
        kick(r, 0);
        if (i % 2)
            (void)tn_loop_step(&r->a.loop, 0);
        alone_reset(&r->b.slot.lock, &r->d);
        done = r->b.model.inflated;
        assert_in_range(done, 1, 3799);
        fill(r);
        settle(&r->a.loop);
        gone_to(r, 0);
        assert_int_equal(r->b.model.inflated, done);
        rig_up(r, ~0ull);
        settle(&r->a.loop);
        assert_int_equal(vd_reap(&r->d, 0, &len), -1);
        long_letter(r, 5);
        kick(r, 0);
        until_back(r, 0);
        gone_to(r, 5);
        rig_close(r);
    }
}

static void closed_in_the_midst(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 12; i++) {
        struct rig *r = rig_open((enum how)(i % HOWS), rings[i % 2]);

        fill(r);
        long_letter(r, 3800);
        kick(r, 0);
        report(r, 0x300000, 0x100000);
        for (uint32_t k = 0; k < i / 4; k++)
            (void)tn_loop_step(&r->a.loop, 0);
        rig_close(r); /* and nothing comes of it */
    }
}

/* Saved between two turns; in another balloon over the same memory the rest is done. */
static void saved_under_way(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 12; i++) {
        struct rig *r = rig_open((enum how)(i % HOWS), rings[i / 6]);
        struct tn_virtio_balloon_state s;
        struct vd driver;
        uint64_t done;
        uint32_t len;

        fill(r);
        settle(&r->a.loop);
        long_letter(r, 3800);
        kick(r, 0);
        for (uint32_t k = 0; k < i % 3; k++)
            (void)tn_loop_step(&r->a.loop, 0);
        config_write(r, 4, 77);
        pthread_mutex_lock(&r->b.slot.lock);
        tn_virtio_balloon_save(&r->b.model, &s);
        pthread_mutex_unlock(&r->b.slot.lock);
        done = r->b.model.inflated;
        assert_in_range(done, 1, 3799);
        driver = r->d;
        tn_vm_balloon_close(&r->b);
        rig_join(r, rings[i / 6]);
        r->d = driver;
        r->d.v = &r->b.model.virtio;
        pthread_mutex_lock(&r->b.slot.lock);
        assert_int_equal(tn_virtio_balloon_restore(&r->b.model, &s), 0);
        pthread_mutex_unlock(&r->b.slot.lock);
        settle(&r->a.loop);
        assert_int_equal(r->b.model.inflated, 0);
        assert_int_equal(vd_reap(&r->d, 0, &len), -1);
        tn_vm_balloon_wake(&r->b);
        until_back(r, 0);
        assert_int_equal(r->b.model.inflated, 3800 - done); /* none twice */
        assert_int_equal(tn_virtio_balloon_actual(&r->b.model), 77);
        gone_to(r, 3800);
        settle(&r->a.loop);
        rig_close(r);
    }
}

/* ---- two threads ---- */

/* The driver on a thread of its own, as a vCPU is; pages come and go, and are what they should. */
static void a_driver_beside_the_loop(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rings); i++) {
        struct rig *r = rig_open((enum how)i, rings[i]);
        double end = seconds(CLOCK_MONOTONIC) + HANG;
        pthread_t thread;
        uint32_t len, told = 0;
        void *result;

        assert_int_equal(pthread_create(&thread, NULL, loop_main, &r->a.loop), 0);
        for (uint32_t round = 0; round < 30; round++) {
            for (uint32_t k = 0; k < 2000; k++)
                page_at(r, FIRST + 2 * k)[5] = page_at(r, FIRST + 2 * k + 1)[5] = 0xaa;
            long_letter(r, 2000);
            kick(r, 0);
            config_write(r, 4, round);
            if (round % 10 == 9) {
                alone_reset(&r->b.slot.lock, &r->d);
                rig_up(r, ~0ull);
                continue;
            }
            while (vd_reap(&r->d, 0, &len) < 0)
                assert_true(seconds(CLOCK_MONOTONIC) < end);
            for (uint32_t k = 0; k < 2000; k++) {
                assert_int_equal(page_at(r, FIRST + 2 * k)[5], 0);
                assert_int_equal(page_at(r, FIRST + 2 * k + 1)[5], 0xaa);
            }
            told += events(r) & TN_VIRTIO_BALLOON_E_ACTUAL;
        }
        assert_int_equal(told, 27);
        tn_loop_stop(&r->a.loop);
        pthread_join(thread, &result);
        assert_int_equal((intptr_t)result, 0);
        settle(&r->a.loop);
        rig_close(r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ALONE(a_bad_size_is_refused),
        ALONE(what_the_system_refuses),
        ALONE(it_is_as_described),
        ALONE(pages_go_back),
        ALONE(pages_of_nobody),
        ALONE(reports),
        ALONE(poison),
        ALONE(larger_pages_of_the_host),
        ALONE(lazy_memory_stays),
        ALONE(statistics),
        ALONE(its_size),
        ALONE(others_have_their_turn),
        ALONE(wake_goes_on),
        ALONE(a_driver_that_begins_anew),
        ALONE(closed_in_the_midst),
        ALONE(saved_under_way),
        ALONE(a_driver_beside_the_loop),
    };

    cmocka_set_test_filter(getenv("TENON_TEST"));
    return cmocka_run_group_tests_name("vm_balloon", tests, NULL, NULL);
}
