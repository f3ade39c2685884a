/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_vm_fork.h"

#include "vm_clone.h"

/* ---- one stream through many machines ---- */

/* How a machine that is paused goes on in another. */
enum way {
    BY_RESUME,  /* the very machine */
    BY_FORK,    /* taken, forked */
    BY_RESTORE, /* taken, restored */
    BY_ADOPT,   /* taken, prepared, adopted */
    BY_RESET,   /* taken, forked; that one runs on, what it says is forgotten, and is reset */
    BY_MAP,     /* through a directory */
    BY_COPY,
    BY_LAZY,
    BY_DIFF, /* through a directory, all that can be as a diff */
    WAYS
};

static const char *const way_name[WAYS] = {"resume", "fork", "restore", "adopt", "reset",
                                           "map",    "copy", "lazy",    "diff"};

struct chain {
    struct tn_loop loop;
    struct tn_vm_reaper reaper;
    struct con con;
    struct tn_vm vm[2];
    struct tn_vm_image image[2]; /* what each is a clone of */
    int now;
    uint64_t seed, random;
    uint32_t cpus;
    unsigned points, busy; /* points where the transmitter held bytes */
    unsigned depth;        /* diffs below the current machine */
    char dirs[80][160];    /* directories that are still needed */
    unsigned dir_count;
    enum way way;
    bool narrow;
};

static char *reference; /* what the stream says that is never paused */
static size_t reference_len;

static void learn(uint32_t cpus, uint32_t lines)
{
    struct tn_loop loop;
    struct tn_vm vm;
    struct con con;
    char words[64];

    con_open(&con);
    assert_int_equal(tn_loop_init(&loop), 0);
    snprintf(words, sizeof(words), "stream %u %u", cpus, lines);
    boot(&vm, &loop, &con, words, cpus, false);
    assert_int_equal(finish(&vm, &loop, &con), TN_VM_POWEROFF);
    tn_vm_close(&vm);
    (void)con_take(&con);
    assert_non_null(strstr(con.seen, "done\n"));
    free(reference);
    reference = strdup(con.seen);
    reference_len = con.len;
    assert_int_equal(reference_len, lines * 26ul + 5);
    con_close(&con);
    tn_loop_close(&loop);
}

static void lost(const struct chain *c, const char *what, int r)
{
    const char *tail = c->con.len > 80 ? c->con.seen + c->con.len - 80 : c->con.seen;

    fail_msg("%s %d (errno %d): %u vCPUs, TENON_SEED=%#llx, point %u, by %s, after \"%s\"", what, r,
             errno, c->cpus, (unsigned long long)c->seed, c->points, way_name[c->way], tail);
}

/* What came out so far is the beginning of the reference. */
static void so_far(struct chain *c)
{
    (void)con_take(&c->con);
    if (c->con.len > reference_len || memcmp(c->con.seen, reference, c->con.len) != 0)
        lost(c, "other bytes", 0);
}

static void chain_open(struct chain *c, uint32_t cpus, uint32_t lines, uint64_t seed, bool narrow)
{
    char words[64];

    memset(c, 0, sizeof(*c));
    c->seed = c->random = seed;
    c->cpus = cpus;
    con_open(&c->con);
    c->narrow = narrow;
    if (narrow)
        assert_true(fcntl(c->con.out[1], F_SETPIPE_SZ, 4096) >= 4096);
    assert_int_equal(tn_loop_init(&c->loop), 0);
    assert_int_equal(tn_vm_reaper_init(&c->reaper), 0);
    snprintf(words, sizeof(words), "stream %u %u", cpus, lines);
    boot(&c->vm[0], &c->loop, &c->con, words, cpus, true);
}

static void chain_forget(struct chain *c)
{
    while (c->dir_count > 0)
        remove_dir(c->dirs[--c->dir_count]);
}

static void chain_close(struct chain *c)
{
    for (int i = 0; i < 2; i++)
        tn_vm_close(&c->vm[i]);
    tn_vm_reaper_close(&c->reaper);
    for (int i = 0; i < 2; i++)
        tn_vm_image_close(&c->image[i]);
    chain_forget(c);
    con_close(&c->con);
    tn_loop_close(&c->loop);
}

/* Leaves little room for what comes out, so that the transmitter soon has to wait. */
static void narrow_it(struct chain *c)
{
    char junk[4096];
    size_t len = sizeof(junk) - test_random(&c->random) % 20;

    if (!c->narrow)
        return;
    so_far(c);
    memset(junk, '#', len);
    assert_int_equal(write(c->con.out[1], junk, len), (ssize_t)len);
    c->con.skip = len;
}

/* Lets the machine run for up to us microseconds. */
static void run_for(struct chain *c, uint64_t us)
{
    double end = seconds(CLOCK_MONOTONIC) + (double)us / 1e6;

    while (seconds(CLOCK_MONOTONIC) < end) {
        struct timespec t = {0, 50000};

        if (tn_vm_wait(&c->vm[c->now], 0) != TN_EAGAIN)
            return;
        tn_loop_step(&c->loop, 0);
        nanosleep(&t, NULL);
    }
}

/* The image of the machine, which is paused, for the next one. */
static void save(struct chain *c, struct tn_vm_image *image)
{
    struct tn_vm *vm = &c->vm[c->now];
    struct tn_vm_snapshot_cfg to;
    struct tn_vm_image_cfg from;
    int r;

    if (c->way < BY_MAP) {
        r = tn_vm_image_take(image, vm, NULL);
        if (r < 0)
            lost(c, "take", r);
        return;
    }
    memset(&to, 0, sizeof(to));
    memset(&from, 0, sizeof(from));
    to.diff = c->way == BY_DIFF && vm->base && vm->base->dir && c->dir_count > 0 &&
              c->dir_count < 60;
    if (!to.diff)
        chain_forget(c);
    snprintf(c->dirs[c->dir_count], sizeof(c->dirs[0]), "%s/p%u", dir, c->points);
    from.dir = to.dir = c->dirs[c->dir_count++];
    from.lazy = c->way == BY_LAZY;
    r = tn_vm_snapshot(vm, &to);
    if (r < 0)
        lost(c, to.diff ? "diff" : "snapshot", r);
    r = tn_vm_image_open(image, &kvm, &from);
    if (r < 0)
        lost(c, "open", r);
}

/* From a machine that is paused to the next, which runs. */
static void hop(struct chain *c)
{
    struct tn_vm *old = &c->vm[c->now], *vm = &c->vm[1 - c->now];
    struct tn_vm_image *image = &c->image[1 - c->now];
    struct tn_vm_clone_cfg cfg;
    size_t len;
    int r;

    so_far(c);
    len = c->con.len;
    if (c->way == BY_RESUME) {
        narrow_it(c);
        assert_int_equal(tn_vm_resume(old), 0);
        return;
    }
    save(c, image);
    c->busy += image->state.uart.tx_count > 0;
    tn_vm_close_to(old, &c->reaper); /* hands out what the next one has as well */
    con_cut(&c->con, len);
    tn_vm_image_close(&c->image[c->now]); /* nobody needs it but for its digests */
    c->now = 1 - c->now;
    own(&cfg, &c->con);
    cfg.track_dirty = c->way != BY_ADOPT;
    cfg.memory = c->way == BY_LAZY   ? TN_VM_MEMORY_LAZY
                 : c->way == BY_COPY ? TN_VM_MEMORY_COPY
                                     : TN_VM_MEMORY_MAP;
    if (c->way == BY_ADOPT) {
        r = tn_vm_prepare(vm, &kvm, &c->loop, image);
        if (r < 0)
            lost(c, "prepare", r);
        r = tn_vm_adopt(vm, &cfg);
    } else if (c->way == BY_RESTORE) {
        r = tn_vm_restore(vm, &kvm, &c->loop, image, &cfg);
    } else {
        r = tn_vm_fork(vm, &kvm, &c->loop, image, &cfg);
    }
    if (r < 0)
        lost(c, "clone", r);
    if (c->way == BY_RESET) {
        assert_int_equal(tn_vm_start(vm), 0);
        run_for(c, test_random(&c->random) % 1500);
        (void)tn_vm_pause(vm); /* or it has ended */
        con_cut(&c->con, len);
        r = tn_vm_reset(vm);
        if (r < 0)
            lost(c, "reset", r);
        con_cut(&c->con, len);
    }
    narrow_it(c);
    r = tn_vm_start(vm);
    if (r < 0)
        lost(c, "start", r);
}

/*
 * A stream to its end, with points on its way, so many of them at most. Each way is one of mask.
 * Returns how many there were.
 */
static unsigned chain(uint32_t cpus, uint32_t lines, uint64_t seed, unsigned mask, unsigned most,
                      bool narrow, unsigned *busy)
{
    static struct chain c;
    double end;

    chain_open(&c, cpus, lines, seed, narrow);
    for (;;) {
        c.way = WAYS;
        run_for(&c, test_random(&c.random) % 3000);
        if (c.points == most || tn_vm_pause(&c.vm[c.now]) < 0)
            break;
        while (c.way == WAYS || !(mask >> c.way & 1))
            c.way = (enum way)(test_random(&c.random) % WAYS);
        hop(&c);
        c.points++;
    }
    end = seconds(CLOCK_MONOTONIC) + HANG;
    while (tn_vm_wait(&c.vm[c.now], 0) == TN_EAGAIN) {
        tn_loop_step(&c.loop, 1);
        if (con_take(&c.con) > 0)
            end = seconds(CLOCK_MONOTONIC) + HANG;
        if (seconds(CLOCK_MONOTONIC) > end)
            lost(&c, "it hangs", 0);
    }
    if (tn_vm_wait(&c.vm[c.now], 0) != TN_VM_POWEROFF)
        lost(&c, "ended", tn_vm_wait(&c.vm[c.now], 0));
    tn_vm_close(&c.vm[c.now]);
    so_far(&c);
    if (c.con.len != reference_len)
        lost(&c, "the end is missing", 0);
    *busy += c.busy;
    chain_close(&c);
    return c.points;
}

static void chains(uint32_t cpus, uint32_t lines, unsigned mask, unsigned want, bool narrow)
{
    uint64_t seed = asked("TENON_SEED", 0x5eed + 1000 * cpus + mask);
    unsigned points = 0, busy = 0;

    NEED_KVM();
    alarm(500);
    learn(cpus, lines);
    want *= is_long() ? 20 : 1;
    while (points < want)
        points += chain(cpus, lines, seed++, mask, want - points, narrow, &busy);
    printf("# %u points, %u of them with a busy transmitter\n", points, busy);
    assert_true(!narrow || busy > 0);
    assert_int_equal(count_fds(), fds_before);
    alarm(0);
}

#define BIT(way) (1u << (way))
#define TAKEN    (BIT(BY_FORK) | BIT(BY_RESTORE) | BIT(BY_ADOPT) | BIT(BY_RESET))
#define WRITTEN  (BIT(BY_MAP) | BIT(BY_COPY) | BIT(BY_LAZY) | BIT(BY_DIFF))

static void stream_1_taken(void **state)
{
    (void)state;
    chains(1, 400, TAKEN | BIT(BY_RESUME), 440, true);
}

static void stream_4_taken(void **state)
{
    (void)state;
    chains(4, 400, TAKEN | BIT(BY_RESUME), 440, true);
}

static void stream_1_written(void **state)
{
    (void)state;
    chains(1, 120, WRITTEN | TAKEN, 60, false);
}

static void stream_4_written(void **state)
{
    (void)state;
    chains(4, 120, WRITTEN, 60, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream_1_taken),
        cmocka_unit_test(stream_4_taken),
        cmocka_unit_test(stream_1_written),
        cmocka_unit_test(stream_4_written),
    };

    cmocka_set_test_filter(getenv("TENON_TEST"));
    return cmocka_run_group_tests(tests, clone_setup, clone_teardown);
}
