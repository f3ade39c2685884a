/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The header's threads take their locks late now and then, so that what another thread does between
 * a look at something and the lock that should have come before it is seen to happen.
 */
#include <pthread.h>
#include <sched.h>
static inline int late_lock(pthread_mutex_t *lock)
{
    static _Thread_local unsigned calls;

    if (++calls % 5 == 0)
        for (unsigned i = 0; i < calls % 32; i++)
            sched_yield();
    return pthread_mutex_lock(lock);
}
#define pthread_mutex_lock late_lock
#include "tn_vm_fork.h"
#undef pthread_mutex_lock

#include "vm_wired.h"

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
             errno, c->cpus, (unsigned long long)c->seed, c->points,
             c->way < WAYS ? way_name[c->way] : "none", tail);
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
    to.diff =
        c->way == BY_DIFF && vm->base && vm->base->dir && c->dir_count > 0 && c->dir_count < 60;
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
        if (tn_vm_pause(vm) < 0)
            (void)tn_vm_wait(vm, -1); /* it has ended, or is about to */
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
    chains(1, 300, TAKEN | BIT(BY_RESUME), 440, true);
}

static void stream_4_taken(void **state)
{
    (void)state;
    chains(4, 300, TAKEN | BIT(BY_RESUME), 440, true);
}

static void stream_1_written(void **state)
{
    (void)state;
    chains(1, 80, WRITTEN | TAKEN, 60, false);
}

static void stream_4_written(void **state)
{
    (void)state;
    chains(4, 80, WRITTEN, 60, true);
}

/* ---- many machines of one ---- */

#define KIDS 4

static struct tn_loop loop;
static struct con con, kid_con[KIDS];
static struct tn_vm vm, kid[KIDS];
static struct tn_vm_image image, second;
static uint8_t *ram; /* as large as a machine's */

static int open_up(void **state)
{
    (void)state;
    alarm(300);
    memset(&vm, 0, sizeof(vm));
    memset(kid, 0, sizeof(kid));
    con_open(&con);
    for (int i = 0; i < KIDS; i++)
        con_open(&kid_con[i]);
    ram = malloc(RAM);
    return ram ? tn_loop_init(&loop) : -1;
}

static int shut(void **state)
{
    (void)state;
    tn_vm_close(&vm);
    for (int i = 0; i < KIDS; i++) {
        tn_vm_close(&kid[i]);
        con_close(&kid_con[i]);
    }
    tn_vm_image_close(&image);
    tn_vm_image_close(&second);
    tn_loop_close(&loop);
    con_close(&con);
    free(ram);
    remove_dir(name_of("d"));
    alarm(0);
    return count_fds() == (int)fds_before ? 0 : -1;
}

static void ready(const char *words, uint32_t cpus)
{
    boot(&vm, &loop, &con, words, cpus, false);
    hear(&vm, &loop, &con, 0, "ready\n");
}

static void take(struct tn_vm_image *to, struct tn_vm *from)
{
    assert_int_equal(tn_vm_pause(from), 0);
    assert_int_equal(tn_vm_image_take(to, from, dir), 0);
}

static void fork_kid(int i, const struct tn_vm_image *from)
{
    struct tn_vm_clone_cfg cfg;

    own(&cfg, &kid_con[i]);
    assert_int_equal(tn_vm_fork(&kid[i], &kvm, &loop, from, &cfg), 0);
}

static uint8_t *id_of(const struct tn_vm *m)
{
    return m->ram.ptr + TN_VM_X86_GENID_GPA;
}

/* All memory of a clone that has not started, and that of its image, are what was noted in ram. */
static void same_as_noted(const struct tn_vm *m, const struct tn_vm_image *from)
{
    static uint8_t page[4096];

    for (uint64_t at = 0; at < RAM; at += sizeof(page)) {
        size_t from_at = at == TN_VM_X86_GENID_GPA && m ? 16 : 0;

        assert_int_equal(tn_vm_image_read(from, at, page, sizeof(page)), 0);
        if (memcmp(page, ram + at, sizeof(page)) != 0)
            fail_msg("the image's page at %#llx is another", (unsigned long long)at);
        if (m && memcmp(m->ram.ptr + at + from_at, ram + at + from_at, sizeof(page) - from_at) != 0)
            fail_msg("the clone's page at %#llx is another", (unsigned long long)at);
    }
}

/* What the guest "pages" has counted to; a machine that is torn says so. */
static uint64_t count_of(struct tn_vm *m, struct con *c, char b)
{
    char text[16] = {b, 0};
    size_t from = c->len;
    const char *at;

    con_type(c, text);
    snprintf(text, sizeof(text), "answer %c ", b);
    hear(m, &loop, c, from, text);
    hear(m, &loop, c, (size_t)(strstr(c->seen + from, text) - c->seen), "\n");
    assert_null(strstr(c->seen, "torn"));
    at = strstr(c->seen + from, text) + strlen(text);
    return strtoull(at, NULL, 10);
}

static void live_forks_of_a_busy_machine(void **state)
{
    uint64_t at, last = 0;

    (void)state;
    NEED_KVM();
    ready("pages", 1);
    for (int round = 0; round < 3; round++) { /* the second and third have layers */
        take(&image, &vm);
        memcpy(ram, vm.ram.ptr, RAM);
        assert_int_equal(image.layers, round ? 2 : 1);
        at = test_le(ram + 0x400000, 8);
        assert_true(at >= last);
        assert_int_equal(tn_vm_resume(&vm), 0);
        for (int i = 0; i < KIDS; i++) {
            fork_kid(i, &image);
            same_as_noted(&kid[i], &image);
            assert_memory_not_equal(id_of(&kid[i]), id_of(&vm), 16);
            assert_int_equal(tn_vm_start(&kid[i]), 0);
        }
        last = count_of(&vm, &con, 'p');
        assert_true(last >= at);
        for (int again = 0; again < 2; again++) {
            for (int i = 0; i < KIDS; i++)
                assert_true(count_of(&kid[i], &kid_con[i], (char)('a' + i)) >= at);
            for (int i = 0; i < KIDS && !again; i++) {
                assert_int_equal(tn_vm_pause(&kid[i]), 0);
                assert_int_equal(tn_vm_reset(&kid[i]), 0);
                con_cut(&kid_con[i], 0);
                same_as_noted(&kid[i], &image);
                assert_int_equal(tn_vm_start(&kid[i]), 0);
            }
        }
        /* A clone's clone, and that one's. */
        for (int i = 0; i < 2; i++) {
            tn_vm_close(&kid[i + 1]);
            take(&second, &kid[i]);
            memcpy(ram, kid[i].ram.ptr, RAM);
            assert_int_equal(tn_vm_resume(&kid[i]), 0);
            con_cut(&kid_con[i + 1], 0);
            fork_kid(i + 1, &second);
            same_as_noted(&kid[i + 1], &second);
            assert_int_equal(tn_vm_start(&kid[i + 1]), 0);
            (void)count_of(&kid[i], &kid_con[i], 'x');
            assert_true(count_of(&kid[i + 1], &kid_con[i + 1], 'y') >= test_le(ram + 0x400000, 8));
            same_as_noted(NULL, &second);
            if (i == 0) { /* its image must live as long as its clone */
                tn_vm_close(&kid[1]);
                fork_kid(1, &image);
                assert_int_equal(tn_vm_start(&kid[1]), 0);
                (void)count_of(&kid[1], &kid_con[1], 'z');
                tn_vm_image_close(&second);
            }
        }
        for (int i = 0; i < KIDS; i++) {
            tn_vm_close(&kid[i]);
            con_cut(&kid_con[i], 0);
        }
        tn_vm_image_close(&second);
        tn_vm_image_close(&image);
    }
    con_type(&con, "q");
    assert_int_equal(finish(&vm, &loop, &con), TN_VM_POWEROFF);
    assert_null(strstr(con.seen, "torn"));
}

/* The line that the guest "dirty" says for a byte. */
static void dirty_line(struct tn_vm *m, struct con *c, char b, char line[40])
{
    char text[2] = {b, 0};
    size_t from = c->len;

    con_type(c, text);
    hear(m, &loop, c, from, "\n");
    assert_true(c->len - from == 36);
    memcpy(line, c->seen + from, 36);
    line[36] = 0;
}

static void nobody_sees_what_others_write(void **state)
{
    char parent[40], line[40], sum[26][40] = {{0}}, bytes[] = "abcdefghijklm";

    (void)state;
    NEED_KVM();
    ready("dirty 300", 1);
    for (int i = 0; bytes[i]; i++) /* what the pages are after each byte */
        dirty_line(&vm, &con, bytes[i], sum[i]);
    for (int round = 0; round < 3; round++) {
        dirty_line(&vm, &con, bytes[round], parent);
        assert_string_equal(parent + 19, sum[round] + 19);
        take(&image, &vm);
        assert_int_equal(tn_vm_resume(&vm), 0);
        for (int i = 0; i < KIDS; i++) {
            fork_kid(i, &image);
            assert_int_equal(tn_vm_start(&kid[i]), 0);
        }
        for (int turn = 0; turn < 2; turn++) {
            for (int i = 0; i < KIDS; i++) {
                int now = 3 + i + KIDS * turn, before = turn ? 3 + i : round;

                dirty_line(&kid[i], &kid_con[i], bytes[now], line);
                assert_memory_equal(line + 2, sum[before] + 19, 16);
                assert_string_equal(line + 19, sum[now] + 19);
            }
            dirty_line(&vm, &con, bytes[12 - turn], line);
            assert_memory_equal(line + 2, sum[turn ? 12 : round] + 19, 16);
            assert_string_equal(line + 19, sum[12 - turn] + 19);
        }
        for (int i = 0; i < KIDS; i++) { /* back to the image, not to the parent */
            assert_int_equal(tn_vm_pause(&kid[i]), 0);
            assert_int_equal(tn_vm_reset(&kid[i]), 0);
            assert_int_equal(tn_vm_start(&kid[i]), 0);
            dirty_line(&kid[i], &kid_con[i], 'a', line);
            assert_memory_equal(line + 2, sum[round] + 19, 16);
            tn_vm_close(&kid[i]);
        }
        tn_vm_image_close(&image);
    }
}

/* Parent and clones all say the rest of the stream. */
static void streams_go_on_side_by_side(void **state)
{
    (void)state;
    NEED_KVM();
    learn(4, 120);
    boot(&vm, &loop, &con, "stream 4 120", 4, false);
    hear(&vm, &loop, &con, 0, "000010");
    take(&image, &vm);
    (void)con_take(&con);
    for (int i = 0; i < 2; i++)
        fork_kid(i, &image);
    {
        size_t at = con.len;

        assert_int_equal(tn_vm_resume(&vm), 0);
        for (int i = 0; i < 2; i++)
            assert_int_equal(tn_vm_start(&kid[i]), 0);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(finish(&kid[i], &loop, &kid_con[i]), TN_VM_POWEROFF);
            tn_vm_close(&kid[i]);
            (void)con_take(&kid_con[i]);
            assert_string_equal(kid_con[i].seen, reference + at);
        }
        assert_int_equal(finish(&vm, &loop, &con), TN_VM_POWEROFF);
        assert_string_equal(con.seen, reference);
    }
}

/* ---- identity ---- */

static void ids(void **state)
{
    static const uint8_t none[4096];
    uint8_t seen[16][16], *vector;
    struct tn_vm_state s;
    struct tn_vm_clone_cfg cfg;
    int n = 0;

    (void)state;
    NEED_KVM();
    ready("wait", 1);
    take(&image, &vm);
    memcpy(seen[n++], id_of(&vm), 16);
    assert_memory_not_equal(seen[0], none, 16);
    /* The notification is an edge of its own pin; this guest would have it as vector 0x3f. */
    image.state.chips.chip[KVM_IRQCHIP_IOAPIC].chip.ioapic.redirtbl[TN_VM_X86_GED_GSI].bits = 0x3f;
    for (int i = 0; i < KIDS; i++) {
        own(&cfg, &kid_con[i]);
        if (i == 3)
            assert_int_equal(tn_vm_prepare(&kid[i], &kvm, &loop, &image), 0);
        assert_int_equal(i == 3   ? tn_vm_adopt(&kid[i], &cfg)
                         : i == 2 ? tn_vm_restore(&kid[i], &kvm, &loop, &image, &cfg)
                                  : tn_vm_fork(&kid[i], &kvm, &loop, &image, &cfg),
                         0);
        assert_int_equal(tn_vm_state_save(&s, &kid[i]), 0);
        vector = (uint8_t *)s.cpu[0].lapic.regs + 0x200 + 0x10;
        assert_int_equal(vector[3] >> 7, i != 2);
        assert_int_equal(s.chips.chip[KVM_IRQCHIP_IOAPIC].chip.ioapic.irr & 1u << TN_VM_X86_GED_GSI,
                         0);
        tn_vm_state_close(&s);
        if (i == 2)
            assert_memory_equal(id_of(&kid[i]), seen[0], 16);
        else
            memcpy(seen[n++], id_of(&kid[i]), 16);
        assert_memory_equal(id_of(&kid[i]) + 16, none, 4080);
        for (int again = 0; again < 2; again++) {
            if (again) {
                assert_int_equal(tn_vm_start(&kid[i]), 0);
                con_type(&kid_con[i], "x");
                hear(&kid[i], &loop, &kid_con[i], 0, "X");
                assert_int_equal(tn_vm_pause(&kid[i]), 0);
            }
            assert_int_equal(tn_vm_reset(&kid[i]), 0);
            memcpy(seen[n++], id_of(&kid[i]), 16);
            assert_int_equal(tn_vm_state_save(&s, &kid[i]), 0);
            vector = (uint8_t *)s.cpu[0].lapic.regs + 0x200 + 0x10;
            assert_int_equal(vector[3] >> 7, 1);
            tn_vm_state_close(&s);
        }
    }
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < i; k++)
            assert_memory_not_equal(seen[i], seen[k], 16);
    }
    for (int i = 0; i < KIDS; i++)
        tn_vm_close(&kid[i]);
    image.state.machine.genid_gpa = 0; /* of a guest that never heard of it */
    own(&cfg, &con);
    con_cut(&con, 0);
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), TN_EUNSUP);
    tn_vm_close(&vm);
    assert_int_equal(tn_vm_restore(&kid[0], &kvm, &loop, &image, &cfg), 0);
}

/* ---- disks ---- */

/* A machine that writes to its disk and reads back, paused and taken. */
static void busy_disk(struct tn_vm_disk_cfg *disk)
{
    struct tn_vm_cfg cfg;

    describe(&cfg, &con, "io", 2);
    cfg.kernel = kernel;
    cfg.kernel_len = kernel_len;
    cfg.disk = disk;
    cfg.disks = 1;
    assert_int_equal(tn_vm_init(&vm, &kvm, &loop, &cfg), 0);
    assert_int_equal(tn_vm_start(&vm), 0);
    hear(&vm, &loop, &con, 0, disk->read_only ? "io\n" : "io\n..");
    take(&image, &vm);
}

static void shared_disks_are_refused(void **state)
{
    struct tn_vm_disk_cfg disk, row[2];
    struct tn_vm_clone_cfg cfg;

    (void)state;
    NEED_KVM();
    memset(&disk, 0, sizeof(disk));
    disk.path = file_of("base", 65536, 0);
    busy_disk(&disk);
    memset(row, 0, sizeof(row));
    row[0].path = disk.path;
    row[0].overlay = name_of("unused");
    own(&cfg, &kid_con[0]);
    for (int rows = 0; rows < 3; rows++) {
        int want = rows == 2 ? TN_EINVAL : TN_ESTATE;

        cfg.disk = rows ? row : NULL;
        cfg.disks = (uint32_t)rows;
        assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), want);
        assert_int_equal(tn_vm_state_read(&kid[0]), TN_VM_CLOSED);
        assert_int_equal(tn_vm_prepare(&kid[0], &kvm, &loop, &image), 0);
        assert_int_equal(tn_vm_adopt(&kid[0], &cfg), want);
        assert_int_equal(tn_vm_state_read(&kid[0]), TN_VM_CLOSED);
    }
    assert_int_equal(access(row[0].overlay, F_OK), -1);
    cfg.disk = NULL;
    assert_int_equal(tn_vm_restore(&kid[0], &kvm, &loop, &image, &cfg), TN_EEXIST); /* in use */
    assert_int_equal(kid[0].devices.refused, 1);
    tn_vm_close(&vm);
    assert_int_equal(tn_vm_restore(&kid[0], &kvm, &loop, &image, &cfg), 0);
    assert_int_equal(tn_vm_start(&kid[0]), 0);
    con_type(&kid_con[0], "x");
    assert_int_equal(finish(&kid[0], &loop, &kid_con[0]), TN_VM_POWEROFF);
    assert_non_null(strstr(kid_con[0].seen, "\ndone\n"));
    assert_null(strstr(kid_con[0].seen, "bad"));
}

/* Has the disk begin what the guest, which is paused, asked for; how much is not answered then. */
static unsigned begin_requests(struct tn_vm *m)
{
    struct tn_vm_disk *disk = &m->devices.disk[0];
    unsigned n = TN_VM_DISK_DEPTH;

    pthread_mutex_lock(&disk->slot.lock);
    tn_virtio_blk_wake(&disk->blk);
    for (const struct tn_virtio_blk_slot *slot = disk->blk.free; slot; slot = slot->next)
        n--;
    pthread_mutex_unlock(&disk->slot.lock);
    return n;
}

/* A disk that always has a request under way, through many machines; none gets lost or is torn. */
static void requests_under_way(void **state)
{
    uint64_t random = asked("TENON_SEED", 0xd15c);
    struct tn_vm_snapshot_cfg to;
    struct tn_vm_image_cfg from;
    struct tn_vm_disk_cfg disk;
    struct tn_vm_clone_cfg cfg;
    struct tn_vm *now = &vm;
    unsigned flying = 0;

    (void)state;
    NEED_KVM();
    memset(&disk, 0, sizeof(disk));
    memset(&to, 0, sizeof(to));
    memset(&from, 0, sizeof(from));
    disk.path = file_of("base", 65536, 0x11);
    disk.overlay = name_of("turn");
    busy_disk(&disk);
    tn_vm_image_close(&image);
    for (int i = 0; i < (is_long() ? 2000 : 40); i++) {
        struct tn_vm_image *next = i % 2 ? &image : &second;
        struct tn_vm *then = &kid[i % 2];
        size_t len = con.len;

        from.dir = to.dir = name_of("d");
        remove_dir(to.dir);
        if (i % 4 < 2) {
            assert_int_equal(tn_vm_snapshot(now, &to), 0);
            assert_int_equal(tn_vm_image_open(next, &kvm, &from), 0);
        } else {
            assert_int_equal(tn_vm_image_take(next, now, dir), 0);
        }
        (void)con_take(&con);
        len = con.len;
        tn_vm_close(now);
        con_cut(&con, len);
        tn_vm_image_close(i % 2 ? &second : &image);
        unlink(disk.overlay);
        disk.overlay = name_of("turn%d", i % 2);
        own(&cfg, &con);
        cfg.disk = &disk;
        cfg.disks = 1;
        assert_int_equal(tn_vm_fork(then, &kvm, &loop, next, &cfg), 0);
        assert_int_equal(tn_vm_start(then), 0);
        now = then;
        for (uint64_t k = test_random(&random) % 40; k > 0; k--)
            tn_loop_step(&loop, 0);
        (void)nanosleep(&(struct timespec){0, 1000000}, NULL); /* nobody serves the disk */
        assert_int_equal(tn_vm_pause(now), 0);
        flying += begin_requests(now) > 0;
        (void)con_take(&con);
    }
    printf("# %u of them with requests under way\n", flying);
    assert_int_equal(tn_vm_resume(now), 0);
    hear(now, &loop, &con, con.len, "..");
    con_type(&con, "x");
    assert_int_equal(finish(now, &loop, &con), TN_VM_POWEROFF);
    if (strstr(con.seen, "bad") || !strstr(con.seen, "\ndone\n"))
        fail_msg("it said %s", con.seen);
    unlink(disk.overlay);
}

/* The bytes of a file, and whether they are still the same. */
static bool file_is(const char *path, const uint8_t *bytes, size_t len)
{
    size_t now;
    uint8_t *is = slurp(path, &now);
    bool same = now == len && memcmp(is, bytes, len) == 0;

    free(is);
    return same;
}

static void overlays_of_their_own(void **state)
{
    struct tn_vm_disk_cfg disk, row[KIDS][1];
    struct tn_vm_clone_cfg cfg;
    uint8_t *base, *over;
    size_t base_len, over_len;

    (void)state;
    NEED_KVM();
    memset(&disk, 0, sizeof(disk));
    disk.path = file_of("base", 65536, 0x11);
    disk.overlay = name_of("over");
    busy_disk(&disk);
    base = slurp(disk.path, &base_len);
    over = slurp(disk.overlay, &over_len);
    own(&cfg, &kid_con[0]);
    memset(row, 0, sizeof(row));
    /* No row, no overlay in it, one that is there, a directory that is not. */
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), TN_ESTATE);
    assert_int_equal(tn_vm_restore(&kid[0], &kvm, &loop, &image, &cfg), TN_ESTATE);
    cfg.disk = row[0];
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), TN_EINVAL);
    cfg.disks = 1;
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), TN_ESTATE);
    row[0][0].overlay = file_of("mine", 5000, 0x77);
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), TN_EEXIST);
    assert_int_equal(kid[0].devices.refused, 1);
    assert_int_equal(tn_vm_restore(&kid[0], &kvm, &loop, &image, &cfg), TN_EEXIST);
    {
        uint8_t mine[5000];

        memset(mine, 0x77, sizeof(mine));
        assert_true(file_is(row[0][0].overlay, mine, sizeof(mine)));
    }
    row[0][0].overlay = disk.overlay; /* the parent's very own */
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), TN_EEXIST);
    row[0][0].overlay = name_of("not/there");
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), TN_ESYS);
    row[0][0].overlay = name_of("dangling");
    assert_int_equal(symlink(name_of("target"), row[0][0].overlay), 0);
    assert_true(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg) < 0);
    assert_int_equal(access(name_of("target"), F_OK), -1);
    row[0][0].path = name_of("no base");
    row[0][0].overlay = name_of("gone again");
    assert_true(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg) < 0);
    assert_int_equal(access(row[0][0].overlay, F_OK), -1);
    row[0][0].path = NULL;
    for (int i = 0; i < KIDS; i++) {
        own(&cfg, &kid_con[i]);
        row[i][0].overlay = name_of("over%d", i);
        cfg.disk = row[i];
        cfg.disks = 1;
        if (i == 3)
            assert_int_equal(tn_vm_prepare(&kid[i], &kvm, &loop, &image), 0);
        assert_int_equal(i == 3 ? tn_vm_adopt(&kid[i], &cfg)
                                : tn_vm_fork(&kid[i], &kvm, &loop, &image, &cfg),
                         0);
        assert_true(file_is(row[i][0].overlay, over, over_len));
        assert_int_equal(tn_vm_start(&kid[i]), 0);
    }
    for (int i = 0; i < KIDS; i++) {
        hear(&kid[i], &loop, &kid_con[i], 0, i % 2 ? "..." : ".");
        con_type(&kid_con[i], "x");
        assert_int_equal(finish(&kid[i], &loop, &kid_con[i]), TN_VM_POWEROFF);
        assert_null(strstr(kid_con[i].seen, "bad"));
        assert_non_null(strstr(kid_con[i].seen, "\ndone\n"));
    }
    assert_true(file_is(disk.path, base, base_len));
    assert_true(file_is(disk.overlay, over, over_len));
    /* Back to what was in it at the take. */
    con_cut(&kid_con[0], 0);
    assert_int_equal(tn_vm_reset(&kid[0]), 0);
    assert_int_equal(tn_vm_start(&kid[0]), 0);
    hear(&kid[0], &loop, &kid_con[0], 0, "..");
    con_type(&kid_con[0], "x");
    assert_int_equal(finish(&kid[0], &loop, &kid_con[0]), TN_VM_POWEROFF);
    assert_null(strstr(kid_con[0].seen, "bad"));
    /* The parent goes on, with its own. */
    assert_int_equal(tn_vm_resume(&vm), 0);
    con_type(&con, "x");
    assert_int_equal(finish(&vm, &loop, &con), TN_VM_POWEROFF);
    assert_null(strstr(con.seen, "bad"));
    assert_true(file_is(disk.path, base, base_len));
    free(base);
    free(over);
}

/* ---- networks, sockets, a balloon ---- */

/* A machine with all of them, whose guest is the test: its vCPU only sleeps, if it runs at all. */
static void make_wired(struct wires *w, struct drivers *g)
{
    struct tn_vm_cfg cfg;

    wires_open(w);
    describe_wired(&cfg, &con, "wait", w, name_of("sock"));
    assert_int_equal(tn_vm_init(&vm, &kvm, &loop, &cfg), 0);
    drivers_up(g, &vm, w);
}

static void own_wires(struct tn_vm_clone_cfg *cfg, const struct con *c, const struct wires *w,
                      const char *path, uint32_t cid)
{
    own(cfg, c);
    cfg->net = w->net;
    cfg->nets = WIRES;
    cfg->vsock.path = path;
    cfg->vsock.cid = cid;
}

enum how { FORK, ADOPT, RESTORE, HOWS };

static int clone_by(enum how how, struct tn_vm *m, const struct tn_vm_image *from,
                    const struct tn_vm_clone_cfg *cfg)
{
    if (how == ADOPT)
        assert_int_equal(tn_vm_prepare(m, &kvm, &loop, from), 0);
    return how == ADOPT  ? tn_vm_adopt(m, cfg)
           : how == FORK ? tn_vm_fork(m, &kvm, &loop, from, cfg)
                         : tn_vm_restore(m, &kvm, &loop, from, cfg);
}

/* What a clone must be given, and what it may not have. */
static void shared_networks_are_refused(void **state)
{
    static char endless[200];
    static const struct {
        const char *path; /* "": none is given */
        uint32_t nets;    /* 0: they are not given */
        uint32_t cid;
        uint32_t kind; /* of the second, if it is not 0 */
        int more, restore;
        uint32_t net; /* which one it was then; 0: none */
    } rows[] = {
        {"mysk", 0, 9, 0, TN_ESTATE, TN_ESYS, 1}, /* nothing says where they are */
        {"", 0, 9, 0, TN_ESTATE, TN_ESYS, 1},
        {"", 3, 9, 0, TN_ESTATE, TN_ESYS, 0}, /* in use */
        {"mysk", 1, 9, 0, TN_EINVAL, TN_EINVAL, 0},
        {"mysk", 2, 9, 0, TN_EINVAL, TN_EINVAL, 0},
        {"mysk", 4, 9, 0, TN_EINVAL, TN_EINVAL, 0},
        {"mysk", UINT32_MAX, 9, 0, TN_EINVAL, TN_EINVAL, 0},
        {"mysk", 3, 2, 0, TN_EINVAL, TN_EINVAL, 0},
        {"mysk", 3, UINT32_MAX, 0, TN_EINVAL, TN_EINVAL, 0},
        {"mysk", 3, 9, 99, TN_EINVAL, TN_EINVAL, 2},
        {"mysk", 3, 9, TN_VM_NET_STREAM, TN_EINVAL, TN_EINVAL, 2}, /* on a pair */
        {"sock", 3, 9, 0, TN_ESYS, TN_ESYS, 0},                    /* the parent's very own */
        {"file", 3, 9, 0, TN_ESYS, TN_ESYS, 0},
        {"not/there", 3, 9, 0, TN_ESYS, TN_ESYS, 0},
        {endless, 3, 9, 0, TN_EINVAL, TN_EINVAL, 0},
    };
    struct tn_vm_clone_cfg cfg;
    struct wires wires, w;
    struct drivers g;
    int fds, files;

    (void)state;
    NEED_KVM();
    memset(endless, 'x', sizeof(endless) - 1);
    file_of("file", 10, 1);
    make_wired(&wires, &g);
    assert_int_equal(tn_vm_image_take(&image, &vm, dir), 0);
    fds = count_fds();
    files = count_files();
    for (size_t i = 0; i < COUNT(rows) * HOWS; i++) {
        enum how how = (enum how)(i % HOWS);
        int want = how == RESTORE ? rows[i / HOWS].restore : rows[i / HOWS].more, r;
        char path[300];

        snprintf(path, sizeof(path), "%s/%s", dir, rows[i / HOWS].path);
        wires_open(&w);
        own_wires(&cfg, &kid_con[0], &w, *rows[i / HOWS].path ? path : NULL, rows[i / HOWS].cid);
        cfg.nets = rows[i / HOWS].nets;
        if (cfg.nets == 0)
            cfg.net = NULL;
        if (rows[i / HOWS].kind)
            w.net[1].kind = rows[i / HOWS].kind;
        r = clone_by(how, &kid[0], &image, &cfg);
        /* What is there already may be TN_EEXIST, or the system's word. */
        if (r != want && !(want == TN_ESYS && r == TN_EEXIST))
            fail_msg("row %zu, way %d: %d, not %d (errno %d)", i / HOWS, how, r, want, errno);
        assert_int_equal(tn_vm_state_read(&kid[0]), TN_VM_CLOSED);
        for (uint32_t k = 0; k < WIRES; k++) { /* ours still, and nobody else's */
            assert_int_equal(fcntl(w.net[k].fd, F_GETFD), FD_CLOEXEC);
            assert_false(wire_held(&w, k));
        }
        if (want != TN_ESTATE && rows[i / HOWS].nets == WIRES) {
            if (rows[i / HOWS].net)
                assert_int_equal(kid[0].devices.refused_net, rows[i / HOWS].net);
            else
                assert_true(kid[0].devices.refused_vsock);
        }
        wires_close(&w);
        assert_int_equal(count_fds(), fds);
        assert_int_equal(count_files(), files);
        assert_true(listens(name_of("sock")));
    }
    assert_int_equal(cid_of(&vm), 42);
    drivers_go_on(&g, &wires, name_of("sock")); /* none of that has harmed it */
    /* A machine that has none of them takes no rows for any. */
    tn_vm_image_close(&image);
    tn_vm_close(&vm);
    drivers_free(&g);
    wires_close(&wires);
    ready("wait", 1);
    take(&image, &vm);
    wires_open(&w);
    own_wires(&cfg, &kid_con[0], &w, name_of("mysk"), 9);
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), TN_EINVAL);
    cfg.nets = 0;
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), 0);
    assert_null(kid[0].devices.vsock);
    assert_false(listens(name_of("mysk")));
    wires_close(&w);
}

static void worlds_of_their_own(void **state)
{
    struct tn_vm_clone_cfg cfg;
    struct tn_vm_reaper reaper;
    struct drivers g, then, kid_g;
    struct wires wires, w[KIDS];
    struct tn_vm_state s;
    char path[KIDS][100];

    (void)state;
    NEED_KVM();
    make_wired(&wires, &g);
    assert_int_equal(tn_vm_image_take(&image, &vm, dir), 0);
    drivers_clone(&then, &g, &vm);
    for (int i = 0; i < KIDS; i++) {
        uint32_t cid = i == 1 ? 0 : 100 + (uint32_t)i; /* 0: the image's */

        snprintf(path[i], sizeof(path[i]), "%s/sock%d", dir, i);
        wires_open(&w[i]);
        memset(w[i].net[0].mac, 2, 6); /* what the guest knows is the image's */
        w[i].net[0].mtu = 100;
        w[i].net[0].hide = ~0ull;
        own_wires(&cfg, &kid_con[i], &w[i], path[i], cid);
        cfg.vsock.conns = 1;
        assert_int_equal(clone_by((enum how)(i % HOWS), &kid[i], &image, &cfg), 0);
        assert_int_equal(kid[i].devices.vsock->cfg.conns, 100);
    }
    for (int i = 0; i < KIDS; i++) {
        uint32_t cid = i == 1 ? 42 : 100 + (uint32_t)i;

        assert_int_equal(cid_of(&kid[i]), cid);
        assert_int_equal(cid_of(&vm), 42);
        for (int again = 0; again < 3; again++) {
            drivers_clone(&kid_g, &then, &kid[i]);
            drivers_go_on(&kid_g, &w[i], path[i]);
            assert_int_equal(tn_vm_state_save(&s, &kid[i]), 0);
            assert_int_equal(s.vsock->record.cid, cid);
            assert_int_equal(s.vsock->model.guest_cid, cid);
            assert_string_equal(s.vsock->record.path, path[i]);
            tn_vm_state_close(&s);
            drivers_free(&kid_g);
            if (again == 1) { /* after it has run, too */
                assert_int_equal(tn_vm_start(&kid[i]), 0);
                assert_int_equal(tn_vm_pause(&kid[i]), 0);
            }
            assert_int_equal(tn_vm_reset(&kid[i]), 0);
            assert_int_equal(cid_of(&kid[i]), cid);
            assert_true(listens(path[i]));
        }
        for (uint32_t k = 0; k < WIRES; k++) /* nobody else heard of that */
            assert_true(far_takes(&wires, k) < 0 && far_takes(&w[(i + 1) % KIDS], k) < 0);
    }
    drivers_go_on(&g, &wires, name_of("sock"));
    /* A clone's clone has what the clone had. */
    assert_int_equal(tn_vm_image_take(&second, &kid[0], dir), 0);
    assert_int_equal(second.state.vsock->record.cid, 100);
    tn_vm_close(&kid[1]);
    assert_false(listens(path[1]));
    wires_close(&w[1]);
    wires_open(&w[1]);
    own_wires(&cfg, &kid_con[1], &w[1], path[1], 0);
    assert_int_equal(tn_vm_fork(&kid[1], &kvm, &loop, &second, &cfg), 0);
    assert_int_equal(cid_of(&kid[1]), 100);
    drivers_clone(&kid_g, &then, &kid[1]);
    drivers_go_on(&kid_g, &w[1], path[1]);
    drivers_free(&kid_g);
    /* The reaper has nothing to do with them. */
    memset(&reaper, 0, sizeof(reaper));
    assert_int_equal(tn_vm_reaper_init(&reaper), 0);
    for (int i = 0; i < KIDS; i++) {
        tn_vm_close_to(&kid[i], &reaper);
        assert_false(listens(path[i]));
        for (uint32_t k = 0; k < WIRES; k++)
            assert_false(wire_held(&w[i], k));
        wires_close(&w[i]);
    }
    tn_vm_reaper_close(&reaper);
    assert_true(listens(name_of("sock")));
    tn_vm_close(&vm);
    drivers_free(&g);
    drivers_free(&then);
    wires_close(&wires);
}

/* The machine goes on that was saved, on what its record names: nobody gives it anything. */
static void by_the_names_of_the_record(void **state)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct tn_vm_clone_cfg cfg;
    struct tn_vm_cfg made;
    struct wires w, none;
    struct wd g, then;

    (void)state;
    NEED_KVM();
    snprintf(at.sun_path, sizeof(at.sun_path), "%s/passt", dir);
    assert_int_equal(bind(server, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(server, 4), 0);
    memset(&w, 0, sizeof(w));
    describe(&made, &con, "wait", 1);
    w.net[STREAM].kind = TN_VM_NET_STREAM;
    w.net[STREAM].name = at.sun_path;
    made.net = &w.net[STREAM];
    made.nets = 1;
    made.vsock.cid = 42;
    made.vsock.path = name_of("sock");
    assert_int_equal(tn_vm_init(&vm, &kvm, &loop, &made), 0);
    w.far[STREAM] = accept4(server, NULL, NULL, SOCK_CLOEXEC);
    assert_true(w.far[STREAM] >= 0);
    wd_up(&g, &vm, 0, 3);
    wd_add(&g, 0, 0, 2048, true);
    vd_kick(&g.d, 0);
    assert_int_equal(tn_vm_image_take(&image, &vm, dir), 0);
    wd_clone(&then, &g, &vm);
    assert_string_equal(image.state.net[0].record.name, at.sun_path);
    own(&cfg, &kid_con[0]);
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), TN_ESTATE);
    cfg.vsock.path = name_of("mysk");
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), TN_ESTATE);
    cfg.vsock.path = NULL;
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), TN_ESTATE);
    assert_int_equal(accept4(server, NULL, NULL, SOCK_CLOEXEC), -1); /* nobody came */
    tn_vm_close(&vm);
    vd_free(&g.d);
    close(w.far[STREAM]);
    assert_int_equal(tn_vm_restore(&kid[0], &kvm, &loop, &image, &cfg), 0);
    w.far[STREAM] = accept4(server, NULL, NULL, SOCK_CLOEXEC);
    assert_true(w.far[STREAM] >= 0);
    assert_true(listens(name_of("sock")));
    wd_clone(&g, &then, &kid[0]);
    far_sends(&w, STREAM, 5);
    assert_int_equal(wd_answer(&g, 0), MESSAGE);
    assert_int_equal(wd_got(&g, 0), 5);
    wd_send(&g, 1, 6);
    vd_kick(&g.d, 1);
    (void)wd_answer(&g, 1);
    assert_int_equal(far_hears(&w, STREAM, &loop), 6);
    vd_free(&g.d);
    tn_vm_close(&kid[0]);
    close(w.far[STREAM]);
    /* A fork has a network of another kind then. */
    wires_open(&none);
    own_wires(&cfg, &kid_con[1], &none, name_of("own"), 0);
    cfg.nets = 1;
    assert_int_equal(tn_vm_fork(&kid[1], &kvm, &loop, &image, &cfg), 0);
    wd_clone(&g, &then, &kid[1]);
    far_sends(&none, 0, 8);
    (void)wd_answer(&g, 0);
    assert_int_equal(wd_got(&g, 0), 8);
    vd_free(&g.d);
    vd_free(&then.d);
    tn_vm_close(&kid[1]);
    wires_close(&none);
    close(server);
    unlink(at.sun_path);
}

/* A parent's connection is not its clone's: that one's guest is told so, its own is not. */
static void connections_stay_with_the_parent(void **state)
{
    struct wires wires, w;
    struct drivers g;
    struct tn_vm_clone_cfg cfg;
    struct wd *vsock, then, clone;
    uint8_t packet[TN_VIRTIO_VSOCK_HDR], text[32];
    uint32_t port;
    int fd, mine;

    (void)state;
    NEED_KVM();
    make_wired(&wires, &g);
    vsock = &g.at[AT_VSOCK];
    wd_add(vsock, 2, 30, 8, true); /* for events */
    wd_add(vsock, 2, 31, 8, true);
    vd_kick(&vsock->d, 2);
    fd = dial(name_of("sock"), "CONNECT 77\n");
    (void)wd_answer(vsock, 0);
    memcpy(packet, wd_page(vsock, 0), sizeof(packet));
    port = (uint32_t)tn_get_(packet + 16, 4);
    tn_put_(packet, 8, 42);
    tn_put_(packet + 8, 8, 2);
    tn_put_(packet + 16, 4, 77);
    tn_put_(packet + 20, 4, port);
    tn_put_(packet + 30, 2, TN_VIRTIO_VSOCK_OP_RESPONSE);
    tn_put_(packet + 36, 4, 4096); /* buf_alloc */
    memcpy(wd_page(vsock, 32), packet, sizeof(packet));
    wd_add(vsock, 1, 32, sizeof(packet), false);
    vd_kick(&vsock->d, 1);
    (void)wd_answer(vsock, 1);
    for (double end = seconds(CLOCK_MONOTONIC) + HANG;
         recv(fd, text, sizeof(text), MSG_DONTWAIT) < 3;) { /* OK */
        tn_loop_step(&loop, 10);
        assert_true(seconds(CLOCK_MONOTONIC) < end);
    }
    assert_int_equal(tn_vm_image_take(&image, &vm, dir), 0);
    wd_clone(&then, vsock, &vm);
    wires_open(&w);
    own_wires(&cfg, &kid_con[0], &w, name_of("own"), 9);
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), 0);
    for (int again = 0; again < 3; again++) {
        wd_clone(&clone, &then, &kid[0]);
        assert_int_equal(wd_answer(&clone, 2), 4);
        assert_int_equal(tn_get_(wd_page(&clone, 30), 4), 0); /* transport reset: see the CID */
        assert_int_equal(cid_of(&kid[0]), 9);
        mine = dial(name_of("own"), "CONNECT 78\n");
        (void)wd_answer(&clone, 0);
        assert_int_equal(tn_get_(wd_page(&clone, 1) + 20, 4), 78);
        vd_free(&clone.d);
        assert_int_equal(tn_vm_reset(&kid[0]), 0);
        for (int i = 0; i < 5; i++)
            tn_loop_step(&loop, 1);
        assert_int_equal(recv(mine, text, sizeof(text), MSG_DONTWAIT), 0); /* it asked another */
        close(mine);
    }
    /* The parent's goes on. */
    assert_int_equal(write(fd, "hello", 5), 5);
    assert_int_equal(wd_answer(vsock, 0), TN_VIRTIO_VSOCK_HDR + 5);
    assert_memory_equal(wd_page(vsock, 1) + TN_VIRTIO_VSOCK_HDR, "hello", 5);
    assert_int_equal(vd_reap(&vsock->d, 2, &port), -1);
    close(fd);
    vd_free(&then.d);
    tn_vm_close(&kid[0]);
    tn_vm_close(&vm);
    drivers_free(&g);
    wires_close(&w);
    wires_close(&wires);
}

/* Whether a vector is asked for of a machine's vCPU; KVM brings it there when it likes. */
static bool asked_for(struct tn_vm *m, uint8_t vector)
{
    double end = seconds(CLOCK_MONOTONIC) + HANG;
    struct tn_vm_state s;
    bool yes;

    do {
        assert_int_equal(tn_vm_state_save(&s, m), 0);
        yes = ((uint8_t *)s.cpu[0].lapic.regs)[0x200 + vector / 32 * 16 + vector % 32 / 8] >>
                  vector % 8 &
              1;
        tn_vm_state_close(&s);
    } while (!yes && seconds(CLOCK_MONOTONIC) < end);
    return yes;
}

/* What a device of a clone has to say reaches its guest, also what it says at its birth. */
static void clones_hear_their_devices(void **state)
{
    struct wires wires, w;
    struct drivers g;
    struct tn_vm_clone_cfg cfg;
    struct tn_vm_cfg made;

    (void)state;
    NEED_KVM();
    wires_open(&wires);
    describe_wired(&made, &con, "wait", &wires, name_of("sock"));
    assert_int_equal(tn_vm_init(&vm, &kvm, &loop, &made), 0);
    assert_int_equal(tn_vm_start(&vm), 0);
    hear(&vm, &loop, &con, 0, "ready\n");
    drivers_up(&g, &vm, &wires);
    wd_add(&g.at[AT_VSOCK], 2, 30, 8, true); /* for an event */
    take(&image, &vm);
    /* This guest would have the first network as vector 0x3e, the sockets as 0x3f. */
    image.state.chips.chip[KVM_IRQCHIP_IOAPIC].chip.ioapic.redirtbl[TN_VM_X86_VIRTIO_GSI].bits =
        0x3e;
    image.state.chips.chip[KVM_IRQCHIP_IOAPIC]
        .chip.ioapic.redirtbl[TN_VM_X86_VIRTIO_GSI + AT_VSOCK]
        .bits = 0x3f;
    wires_open(&w);
    own_wires(&cfg, &kid_con[0], &w, name_of("own"), 9);
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), 0);
    for (int again = 0; again < 2; again++) {
        struct wd clone;

        assert_true(asked_for(&kid[0], 0x3f));
        wd_clone(&clone, &g.at[0], &kid[0]);
        vqd_interrupt_at(&clone.d.q[0], clone.d.q[0].reaped);
        far_sends(&w, 0, 3);
        (void)wd_answer(&clone, 0);
        vd_free(&clone.d);
        assert_true(asked_for(&kid[0], 0x3e));
        assert_int_equal(tn_vm_reset(&kid[0]), 0);
    }
    tn_vm_close(&kid[0]);
    tn_vm_close(&vm);
    drivers_free(&g);
    wires_close(&w);
    wires_close(&wires);
}

#define QUEUED 20u /* frames to send in a ring, and buffers for others: pages 0.. and QUEUED.. */

/* Reaps so many buffers, which is all there are. */
static void come_back(struct wd *g, uint32_t queue, uint32_t want)
{
    uint32_t len;

    while (want-- > 0)
        (void)wd_answer(g, queue);
    assert_int_equal(vd_reap(&g->d, queue, &len), -1);
}

/*
 * A machine whose driver has queued as many frames and buffers, of which so many are done with: the
 * rest comes and goes on its own network, each once.
 */
static void the_rest(struct tn_vm *m, const struct wd *from, const struct wires *w,
                     uint32_t received, uint32_t sent)
{
    struct wd g;

    wd_clone(&g, from, m);
    for (uint32_t i = received; i < QUEUED; i++)
        far_sends(w, 0, 1000 + i);
    for (uint32_t i = sent; i < QUEUED; i++)
        assert_int_equal(far_hears(w, 0, &loop), i);
    come_back(&g, 0, QUEUED);
    come_back(&g, 1, QUEUED);
    for (uint32_t i = 0; i < QUEUED; i++)
        assert_int_equal(wd_got(&g, i), i < received ? i : 1000 + i);
    for (int i = 0; i < 3; i++)
        tn_loop_step(&loop, 1);
    assert_int_equal(far_takes(w, 0), -1); /* nothing twice */
    vd_free(&g.d);
}

/* Frames come and go while the machine is taken: each clone has what was in its rings. */
static void frames_under_way(void **state)
{
    uint64_t random = asked("TENON_SEED", 0xf4a3e);
    const int little = 1;
    unsigned busy = 0;

    (void)state;
    NEED_KVM();
    for (int round = 0; round < (is_long() ? 300 : 12); round++) {
        uint32_t received, sent, came = 0, taken = 0;
        struct wires wires, w[HOWS];
        struct tn_vm_cfg made;
        struct wd g;

        wires_open(&wires);
        describe_wired(&made, &con, "wait", &wires, name_of("sock"));
        made.packed = round % 2;
        con_cut(&con, 0);
        assert_int_equal(tn_vm_init(&vm, &kvm, &loop, &made), 0);
        assert_int_equal(tn_vm_start(&vm), 0);
        hear(&vm, &loop, &con, 0, "ready\n");
        /* Few frames fit: the device has to wait, with more of them in its hands. */
        assert_int_equal(setsockopt(wires.net[0].fd, SOL_SOCKET, SO_SNDBUF, &little, sizeof(int)),
                         0);
        wd_up(&g, &vm, 0, 3);
        for (uint32_t i = 0; i < QUEUED; i++) {
            wd_add(&g, 0, i, 2048, true);
            wd_send(&g, QUEUED + i, i);
        }
        for (uint64_t n = test_random(&random) % 40; n > 0; n--) {
            uint64_t what = test_random(&random) % 5;

            if (what == 0 && came < QUEUED)
                far_sends(&wires, 0, came++);
            else if (what == 1 && taken < QUEUED)
                taken += far_takes(&wires, 0) >= 0;
            else if (what < 4)
                vd_kick(&g.d, what & 1);
            else
                tn_loop_step(&loop, 0);
        }
        assert_int_equal(tn_vm_pause(&vm), 0);
        tn_vm_devices_quiesce(&vm.devices);
        while (far_takes(&wires, 0) >= 0)
            taken++;
        assert_int_equal(tn_vm_image_take(&image, &vm, dir), 0);
        received = image.state.net[0].model.virtio.queue[0].ring.next_used & 0x7fffu;
        sent = image.state.net[0].model.virtio.queue[1].ring.next_used & 0x7fffu;
        assert_int_equal(sent, taken);
        assert_true(received <= came);
        busy += sent > 0 && sent < QUEUED;
        assert_int_equal(tn_vm_resume(&vm), 0);
        for (int i = 0; i < HOWS; i++) {
            struct tn_vm_clone_cfg cfg;

            wires_open(&w[i]);
            own_wires(&cfg, &kid_con[i], &w[i], name_of("sock%d", i), 0);
            assert_int_equal(clone_by((enum how)i, &kid[i], &image, &cfg), 0);
            if (round % 4 < 2)
                assert_int_equal(tn_vm_start(&kid[i]), 0);
        }
        the_rest(&vm, &g, &wires, came, taken);
        for (int again = 0; again < 2; again++) {
            for (int i = 0; i < HOWS; i++) {
                the_rest(&kid[i], &g, &w[i], received, sent);
                (void)tn_vm_pause(&kid[i]);
                assert_int_equal(tn_vm_reset(&kid[i]), 0);
            }
        }
        for (int i = 0; i < HOWS; i++) {
            tn_vm_close(&kid[i]);
            wires_close(&w[i]);
        }
        tn_vm_image_close(&image);
        tn_vm_close(&vm);
        vd_free(&g.d);
        wires_close(&wires);
    }
    printf("# %u of them with frames that had to wait\n", busy);
    assert_true(busy > 0);
}

/* ---- lazy memory that goes bad ---- */

static void lazy_memory_goes_bad(void **state)
{
    static const struct {
        uint64_t at; /* a byte is another; with cut all from there on is gone */
        bool cut;
    } bad[] = {{0x400000, false},
               {0x41ffff, false},
               {0x400000, true},
               {0x420000, true},
               {TN_VM_X86_GENID_GPA, false}};
    struct tn_vm_snapshot_cfg to;
    struct tn_vm_image_cfg from;
    struct tn_vm_clone_cfg cfg;
    const char *file;

    (void)state;
    NEED_KVM();
    ready("dirty 50", 1);
    con_type(&con, "a"); /* so that there is something in the pages */
    hear(&vm, &loop, &con, 0, "\na ");
    hear(&vm, &loop, &con, con.len - 1, "\n");
    assert_int_equal(tn_vm_pause(&vm), 0);
    memset(&to, 0, sizeof(to));
    memset(&from, 0, sizeof(from));
    from.dir = to.dir = name_of("d");
    from.lazy = true;
    file = name_of("d/memory");
    for (size_t i = 0; i < COUNT(bad); i++) {
        uint64_t chunk = bad[i].at / TN_VM_IMAGE_CHUNK * TN_VM_IMAGE_CHUNK;
        uint8_t byte;
        int fd;

        remove_dir(to.dir);
        assert_int_equal(tn_vm_snapshot(&vm, &to), 0);
        assert_int_equal(tn_vm_image_open(&image, &kvm, &from), 0);
        own(&cfg, &kid_con[0]);
        cfg.memory = TN_VM_MEMORY_LAZY;
        con_cut(&kid_con[0], 0);
        assert_int_equal(tn_vm_fork(&kid[1], &kvm, &loop, &image, &cfg), 0); /* before: good */
        tn_vm_close(&kid[1]);
        fd = open(file, O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(pread(fd, &byte, 1, (off_t)bad[i].at), 1);
        byte ^= 4;
        if (bad[i].cut)
            assert_int_equal(ftruncate(fd, (off_t)bad[i].at), 0);
        else
            assert_int_equal(pwrite(fd, &byte, 1, (off_t)bad[i].at), 1);
        close(fd);
        assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), 0);
        assert_int_equal(tn_vm_start(&kid[0]), 0);
        con_type(&kid_con[0], "b");
        assert_int_equal(finish(&kid[0], &loop, &kid_con[0]), TN_VM_ERROR);
        assert_int_equal(tn_vm_state_read(&kid[0]), TN_VM_FAILED);
        assert_int_equal(kid[0].end.err, bad[i].cut ? TN_ETRUNC : TN_EPROTO);
        assert_int_equal(kid[0].end.detail[0], chunk);
        assert_int_equal(tn_vm_reset(&kid[0]), TN_ESTATE);
        /* Copied, it is not even made where a file is too short; mapped files are the caller's. */
        own(&cfg, &kid_con[1]);
        cfg.memory = TN_VM_MEMORY_COPY;
        assert_int_equal(tn_vm_fork(&kid[1], &kvm, &loop, &image, &cfg),
                         bad[i].cut ? TN_ETRUNC : 0);
        tn_vm_close(&kid[1]);
        if (bad[i].cut) {
            cfg.memory = TN_VM_MEMORY_MAP;
            assert_int_equal(tn_vm_fork(&kid[1], &kvm, &loop, &image, &cfg), TN_ETRUNC);
        }
        cfg.memory = 3;
        assert_int_equal(tn_vm_fork(&kid[1], &kvm, &loop, &image, &cfg), TN_EINVAL);
        tn_vm_close(&kid[0]);
        tn_vm_image_close(&image);
        assert_true(read(kid_con[0].in[0], &byte, 1) <= 1);
    }
}

/* ---- what is not to be done ---- */

static void prepare_and_adopt(void **state)
{
    struct tn_vm_snapshot_cfg to;
    struct tn_vm_clone_cfg cfg;
    struct tn_vm_state s;

    (void)state;
    NEED_KVM();
    own(&cfg, &kid_con[0]);
    assert_int_equal(tn_vm_adopt(&kid[0], &cfg), TN_ESTATE); /* closed */
    assert_int_equal(tn_vm_reset(&kid[0]), TN_ESTATE);
    ready("echo", 1);
    assert_int_equal(tn_vm_adopt(&vm, &cfg), TN_ESTATE); /* booted, and it runs */
    assert_int_equal(tn_vm_reset(&vm), TN_ESTATE);
    take(&image, &vm);
    assert_int_equal(tn_vm_adopt(&vm, &cfg), TN_ESTATE);
    assert_int_equal(tn_vm_reset(&vm), TN_ESTATE);
    assert_int_equal(tn_vm_resume(&vm), 0);
    con_type(&con, "hello\n");
    hear(&vm, &loop, &con, 0, "1: hello\n"); /* none of that has harmed it */

    /* One that was only prepared does nothing. */
    memset(&to, 0, sizeof(to));
    to.dir = name_of("d");
    assert_int_equal(tn_vm_prepare(&kid[0], &kvm, &loop, &image), 0);
    assert_int_equal(tn_vm_start(&kid[0]), TN_ESTATE);
    assert_int_equal(tn_vm_pause(&kid[0]), TN_ESTATE);
    assert_int_equal(tn_vm_resume(&kid[0]), TN_ESTATE);
    assert_int_equal(tn_vm_wait(&kid[0], 0), TN_ESTATE);
    assert_int_equal(tn_vm_shutdown(&kid[0]), TN_ESTATE);
    assert_int_equal(tn_vm_reset(&kid[0]), TN_ESTATE);
    assert_int_equal(tn_vm_state_save(&s, &kid[0]), TN_ESTATE);
    assert_int_equal(tn_vm_image_take(&second, &kid[0], NULL), TN_ESTATE);
    assert_int_equal(tn_vm_snapshot(&kid[0], &to), TN_ESTATE);
    assert_int_equal(tn_vm_adopt(&kid[0], &cfg), 0);
    assert_int_equal(tn_vm_adopt(&kid[0], &cfg), TN_ESTATE); /* twice */
    assert_int_equal(tn_vm_start(&kid[0]), 0);
    assert_int_equal(tn_vm_adopt(&kid[0], &cfg), TN_ESTATE);
    assert_int_equal(tn_vm_reset(&kid[0]), TN_ESTATE); /* it runs */
    con_type(&kid_con[0], "a\n");
    hear(&kid[0], &loop, &kid_con[0], 0, "1: a\n");
    /* One that was forked is complete. */
    fork_kid(1, &image);
    own(&cfg, &kid_con[1]);
    assert_int_equal(tn_vm_adopt(&kid[1], &cfg), TN_ESTATE);
    assert_int_equal(tn_vm_start(&kid[1]), 0);
    con_type(&kid_con[1], "b\n");
    hear(&kid[1], &loop, &kid_con[1], 0, "1: b\n");
    /* Killed before it lived. */
    assert_int_equal(tn_vm_prepare(&kid[2], &kvm, &loop, &image), 0);
    assert_int_equal(tn_vm_kill(&kid[2]), 0);
    assert_int_equal(tn_vm_wait(&kid[2], 10000), TN_VM_KILLED);
    own(&cfg, &kid_con[2]);
    assert_int_equal(tn_vm_adopt(&kid[2], &cfg), TN_ESTATE);
    assert_int_equal(tn_vm_start(&kid[2]), TN_ESTATE);
    tn_vm_close(&kid[2]);
    assert_int_equal(tn_vm_prepare(&kid[2], &kvm, &loop, &image), 0);
    tn_vm_close(&kid[2]);
    /* After an error of adopt it is closed. */
    for (int i = 0; i < 4; i++) {
        own(&cfg, &kid_con[2]);
        cfg.memory = i < 2 ? (uint32_t)i + 1 : TN_VM_MEMORY_MAP;
        cfg.track_dirty = i == 2;
        if (i == 3)
            cfg.disk = (const struct tn_vm_disk_cfg *)&cfg, cfg.disks = 1;
        assert_int_equal(tn_vm_prepare(&kid[2], &kvm, &loop, &image), 0);
        assert_int_equal(tn_vm_adopt(&kid[2], &cfg), TN_EINVAL);
        assert_int_equal(tn_vm_state_read(&kid[2]), TN_VM_CLOSED);
    }
    /* A clone that was killed comes back. */
    assert_int_equal(tn_vm_kill(&kid[1]), 0);
    assert_int_equal(tn_vm_wait(&kid[1], 10000), TN_VM_KILLED);
    con_cut(&kid_con[1], 0);
    assert_int_equal(tn_vm_reset(&kid[1]), 0);
    assert_int_equal(tn_vm_wait(&kid[1], 0), TN_ESTATE);
    assert_int_equal(tn_vm_reset(&kid[1]), 0);
    assert_int_equal(tn_vm_start(&kid[1]), 0);
    con_type(&kid_con[1], "c\nq");
    assert_int_equal(finish(&kid[1], &loop, &kid_con[1]), TN_VM_POWEROFF);
    assert_string_equal(kid_con[1].seen, "1: c\n");
    con_cut(&kid_con[1], 0);
    assert_int_equal(tn_vm_reset(&kid[1]), 0); /* and one that has ended */
    assert_int_equal(tn_vm_start(&kid[1]), 0);
    con_type(&kid_con[1], "d\nq");
    assert_int_equal(finish(&kid[1], &loop, &kid_con[1]), TN_VM_POWEROFF);
    assert_string_equal(kid_con[1].seen, "1: d\n");
}

/* Input that waits where the receiver was full comes, also after a reset. */
static void input_goes_on(void **state)
{
    char text[200];

    (void)state;
    NEED_KVM();
    ready("echo", 1);
    take(&image, &vm);
    memset(text, 'x', sizeof(text));
    strcpy(text + 100, "\nq");
    for (int i = 0; i < 2; i++) {
        con_cut(&kid_con[0], 0);
        if (i == 0) {
            fork_kid(0, &image);
        } else {
            assert_int_equal(tn_vm_reset(&kid[0]), 0);
            /* Its receiver fills before it runs, and is emptied by the next reset. */
            con_type(&kid_con[0], "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy");
            for (int k = 0; k < 50; k++)
                tn_loop_step(&loop, 1);
            assert_int_equal(tn_vm_reset(&kid[0]), 0);
            while (read(kid_con[0].in[0], text + 150, 40) > 0)
                ;
        }
        assert_int_equal(tn_vm_start(&kid[0]), 0);
        con_type(&kid_con[0], text);
        assert_int_equal(finish(&kid[0], &loop, &kid_con[0]), TN_VM_POWEROFF);
        assert_int_equal(kid_con[0].len, 3 + 100 + 1);
    }
}

/* What the transmitter held, when nobody took it, comes out of each clone, and after a reset. */
static void output_goes_on(void **state)
{
    static char junk[4096];
    uint8_t held = 0;

    (void)state;
    NEED_KVM();
    ready("echo", 1);
    assert_true(fcntl(con.out[1], F_SETPIPE_SZ, 4096) >= 4096);
    while (write(con.out[1], junk, 1) == 1)
        ;
    con_type(&con, "hello, hello, hello\n");
    for (double end = seconds(CLOCK_MONOTONIC) + HANG; held == 0;) {
        tn_loop_step(&loop, 1);
        pthread_mutex_lock(&vm.board.device_lock);
        held = vm.board.uart.state.tx_count;
        pthread_mutex_unlock(&vm.board.device_lock);
        assert_true(seconds(CLOCK_MONOTONIC) < end);
    }
    take(&image, &vm);
    assert_true(image.state.uart.tx_count > 0);
    fork_kid(0, &image);
    for (int i = 0; i < 3; i++) {
        con_cut(&kid_con[0], 0);
        if (i)
            assert_int_equal(tn_vm_reset(&kid[0]), 0);
        assert_int_equal(tn_vm_start(&kid[0]), 0);
        hear(&kid[0], &loop, &kid_con[0], 0, "\n");
        assert_string_equal(kid_con[0].seen, "1: hello, hello, hello\n");
        con_type(&kid_con[0], "q");
        assert_int_equal(finish(&kid[0], &loop, &kid_con[0]), TN_VM_POWEROFF);
    }
}

/* How much this process has of the things that can leak. */
struct things {
    int fds, tasks, maps; /* mappings of vCPUs, of memory and of rings */
};

static struct things count_things(void)
{
    struct things t = {count_fds(), 0, 0};
    FILE *f = fopen("/proc/self/maps", "r");
    DIR *list = opendir("/proc/self/task");
    char line[512];

    assert_true(f && list);
    while (readdir(list))
        t.tasks++;
    closedir(list);
    while (fgets(line, sizeof(line), f))
        t.maps += strstr(line, "kvm-vcpu") || strstr(line, "tenon") || strstr(line, "io_uring");
    fclose(f);
    return t;
}

static void fifty(unsigned round)
{
    static struct tn_vm many[50];
    struct tn_vm_reaper reaper;
    struct tn_vm_clone_cfg cfg;

    memset(&reaper, 0, sizeof(reaper));
    own(&cfg, NULL);
    assert_int_equal(tn_vm_reaper_init(&reaper), 0);
    for (unsigned i = 0; i < COUNT(many); i++) {
        cfg.memory = i % 8 == 7 ? TN_VM_MEMORY_COPY : TN_VM_MEMORY_MAP;
        memset(&many[i], 0, sizeof(many[i]));
        if (i % 2)
            assert_int_equal(tn_vm_fork(&many[i], &kvm, &loop, &image, &cfg), 0);
        else
            assert_int_equal(tn_vm_prepare(&many[i], &kvm, &loop, &image), 0);
        if (i % 4 == 0)
            assert_int_equal(tn_vm_adopt(&many[i], &cfg), 0);
        if (i % 4 != 2 && i % 3 != 0)
            assert_int_equal(tn_vm_start(&many[i]), 0);
    }
    for (unsigned i = 0; i < COUNT(many); i++) {
        if (i % 5 == round % 5)
            tn_vm_close(&many[i]);
        else
            tn_vm_close_to(&many[i], &reaper);
        assert_int_equal(tn_vm_state_read(&many[i]), TN_VM_CLOSED);
        tn_vm_close_to(&many[i], &reaper); /* nothing */
    }
    tn_vm_reaper_close(&reaper);
    tn_vm_reaper_close(&reaper);
}

static void nothing_leaks(void **state)
{
    struct things was, is;

    (void)state;
    NEED_KVM();
    ready("wait", 2);
    take(&image, &vm);
    fifty(0); /* the C library keeps stacks and arenas */
    was = count_things();
    for (unsigned i = 1; i < 3; i++)
        fifty(i);
    is = count_things();
    assert_int_equal(is.fds, was.fds);
    assert_int_equal(is.tasks, was.tasks);
    assert_int_equal(is.maps, was.maps);
    assert_true(is.maps > 0); /* the machine's own: they have these names */
    /* A reaper that is none. */
    {
        struct tn_vm_reaper none;

        memset(&none, 0, sizeof(none));
        fork_kid(0, &image);
        tn_vm_close_to(&kid[0], &none);
        assert_int_equal(tn_vm_state_read(&kid[0]), TN_VM_CLOSED);
        tn_vm_reaper_close(&none);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, open_up, shut)
        CASE(prepare_and_adopt),
        CASE(shared_disks_are_refused),
        CASE(overlays_of_their_own),
        CASE(shared_networks_are_refused),
        CASE(worlds_of_their_own),
        CASE(by_the_names_of_the_record),
        CASE(connections_stay_with_the_parent),
        CASE(clones_hear_their_devices),
        CASE(frames_under_way),
        CASE(requests_under_way),
        CASE(lazy_memory_goes_bad),
        CASE(ids),
        CASE(input_goes_on),
        CASE(output_goes_on),
        CASE(live_forks_of_a_busy_machine),
        CASE(nobody_sees_what_others_write),
        CASE(streams_go_on_side_by_side),
        CASE(nothing_leaks),
        cmocka_unit_test(stream_1_taken),
        cmocka_unit_test(stream_4_taken),
        cmocka_unit_test(stream_1_written),
        cmocka_unit_test(stream_4_written),
    };

    cmocka_set_test_filter(getenv("TENON_TEST"));
    return cmocka_run_group_tests_name("vm_fork", tests, clone_setup, clone_teardown);
}
