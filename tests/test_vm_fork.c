/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Clones of a machine: one stream through many of them, paused at any point and gone on with in any
 * way; many that run side by side, and what each sees of memory; identities, disks, lazy memory
 * that goes bad, consoles, and what is left behind. tests/test_vm_fork_wired.c has networks,
 * sockets and balloons.
 */
#include "vm_forked.h"

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
    struct tn_loop alone;
    struct tn_vm whole;
    struct con says;
    char words[64];

    con_open(&says);
    assert_int_equal(tn_loop_init(&alone), 0);
    snprintf(words, sizeof(words), "stream %u %u", cpus, lines);
    boot(&whole, &alone, &says, words, cpus, false);
    assert_int_equal(finish(&whole, &alone, &says), TN_VM_POWEROFF);
    tn_vm_close(&whole);
    (void)con_take(&says);
    assert_non_null(strstr(says.seen, "done\n"));
    free(reference);
    reference = strdup(says.seen);
    reference_len = says.len;
    assert_int_equal(reference_len, lines * 26ul + 5);
    con_close(&says);
    tn_loop_close(&alone);
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
static void save(struct chain *c, struct tn_vm_image *next)
{
    struct tn_vm *m = &c->vm[c->now];
    struct tn_vm_snapshot_cfg to;
    struct tn_vm_image_cfg from;
    int r;

    if (c->way < BY_MAP) {
        r = tn_vm_image_take(next, m, NULL);
        if (r < 0)
            lost(c, "take", r);
        return;
    }
    memset(&to, 0, sizeof(to));
    memset(&from, 0, sizeof(from));
    to.diff = c->way == BY_DIFF && m->base && m->base->dir && c->dir_count > 0 && c->dir_count < 60;
    if (!to.diff)
        chain_forget(c);
    snprintf(c->dirs[c->dir_count], sizeof(c->dirs[0]), "%s/p%u", dir, c->points);
    from.dir = to.dir = c->dirs[c->dir_count++];
    from.lazy = c->way == BY_LAZY;
    r = tn_vm_snapshot(m, &to);
    if (r < 0)
        lost(c, to.diff ? "diff" : "snapshot", r);
    r = tn_vm_image_open(next, &kvm, &from);
    if (r < 0)
        lost(c, "open", r);
}

/* From a machine that is paused to the next, which runs. */
static void hop(struct chain *c)
{
    struct tn_vm *old = &c->vm[c->now], *then = &c->vm[1 - c->now];
    struct tn_vm_image *from = &c->image[1 - c->now];
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
    save(c, from);
    c->busy += from->state.arch.uart.tx_count > 0;
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
        r = tn_vm_prepare(then, &kvm, &c->loop, from);
        if (r < 0)
            lost(c, "prepare", r);
        r = tn_vm_adopt(then, &cfg);
    } else if (c->way == BY_RESTORE) {
        r = tn_vm_restore(then, &kvm, &c->loop, from, &cfg);
    } else {
        r = tn_vm_fork(then, &kvm, &c->loop, from, &cfg);
    }
    if (r < 0)
        lost(c, "clone", r);
    if (c->way == BY_RESET) {
        assert_int_equal(tn_vm_start(then), 0);
        run_for(c, test_random(&c->random) % 1500);
        if (tn_vm_pause(then) < 0)
            (void)tn_vm_wait(then, -1); /* it has ended, or is about to */
        con_cut(&c->con, len);
        r = tn_vm_reset(then);
        if (r < 0)
            lost(c, "reset", r);
        con_cut(&c->con, len);
    }
    narrow_it(c);
    r = tn_vm_start(then);
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

static uint8_t ram[RAM]; /* of a machine, as it was noted */

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
    image.state.arch.chips.chip[KVM_IRQCHIP_IOAPIC].chip.ioapic.redirtbl[TN_VM_X86_GED_GSI].bits =
        0x3f;
    for (int i = 0; i < KIDS; i++) {
        own(&cfg, &kid_con[i]);
        if (i == 3)
            assert_int_equal(tn_vm_prepare(&kid[i], &kvm, &loop, &image), 0);
        assert_int_equal(i == 3   ? tn_vm_adopt(&kid[i], &cfg)
                         : i == 2 ? tn_vm_restore(&kid[i], &kvm, &loop, &image, &cfg)
                                  : tn_vm_fork(&kid[i], &kvm, &loop, &image, &cfg),
                         0);
        assert_int_equal(tn_vm_state_save(&s, &kid[i]), 0);
        vector = (uint8_t *)s.arch.cpu[0].lapic.regs + 0x200 + 0x10;
        assert_int_equal(vector[3] >> 7, i != 2);
        assert_int_equal(
            s.arch.chips.chip[KVM_IRQCHIP_IOAPIC].chip.ioapic.irr & 1u << TN_VM_X86_GED_GSI, 0);
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
            vector = (uint8_t *)s.arch.cpu[0].lapic.regs + 0x200 + 0x10;
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
    assert_true(image.state.arch.uart.tx_count > 0);
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
        CASE(prepare_and_adopt),
        CASE(shared_disks_are_refused),
        CASE(overlays_of_their_own),
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
