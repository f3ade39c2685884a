/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_loop.h"

#include "test.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>

#define MS 1000000ull

static uint64_t now(clockid_t clock)
{
    struct timespec t;

    assert_int_equal(clock_gettime(clock, &t), 0);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int first_free_fd(void)
{
    int fd = dup(0);

    assert_true(fd >= 0);
    close(fd);
    return fd;
}

static void start(struct tn_loop *loop)
{
    assert_int_equal(tn_loop_init(loop), 0);
}

/* A pair of connected sockets; the near end is watched. */
struct end {
    struct tn_loop *loop;
    struct tn_loop_source source;
    int far;
    unsigned calls;
    uint32_t events; /* of the last call */
    void (*then)(struct end *);
    struct end *others;
    size_t count;
};

static void on_end(void *ctx, uint32_t events)
{
    struct end *e = ctx;

    e->calls++;
    e->events = events;
    if (e->then)
        e->then(e);
}

static void fill(struct end *e, struct tn_loop *loop, uint32_t events)
{
    int pair[2];

    memset(e, 0, sizeof(*e));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    e->loop = loop;
    e->source.fd = pair[0];
    e->source.events = events;
    e->source.fn = on_end;
    e->source.ctx = e;
    e->far = pair[1];
}

static void watch(struct end *e, struct tn_loop *loop, uint32_t events)
{
    fill(e, loop, events);
    assert_int_equal(tn_loop_add(loop, &e->source), 0);
}

static void poke(struct end *e)
{
    assert_int_equal(write(e->far, "x", 1), 1);
}

static void shut(struct end *e)
{
    close(e->source.fd);
    close(e->far);
}

/* ---- what is refused ---------------------------------------------------------------------- */

static void bad_sources_are_refused(void **state)
{
    static const struct {
        uint32_t events;
        int rc;
    } masks[] = {
        {(uint32_t)EPOLLET, TN_EINVAL}, {(uint32_t)EPOLLIN | (uint32_t)EPOLLET, TN_EINVAL},
        {EPOLLONESHOT, TN_EINVAL},      {EPOLLEXCLUSIVE, TN_EINVAL},
        {EPOLLWAKEUP, TN_EINVAL},       {EPOLLERR, TN_EINVAL},
        {EPOLLHUP, TN_EINVAL},          {UINT32_MAX, TN_EINVAL},
        {1u << 20, TN_EINVAL},
    };
    struct tn_loop loop;
    struct end e;

    (void)state;
    start(&loop);
    for (size_t i = 0; i < COUNT(masks); i++) {
        fill(&e, &loop, masks[i].events);
        assert_int_equal(tn_loop_add(&loop, &e.source), masks[i].rc);
        e.source.events = EPOLLIN;
        assert_int_equal(tn_loop_mod(&loop, &e.source, masks[i].events), TN_EINVAL);
        assert_int_equal(e.source.events, EPOLLIN);
        shut(&e);
    }
    fill(&e, &loop, EPOLLIN);
    e.source.fn = NULL;
    assert_int_equal(tn_loop_add(&loop, &e.source), TN_EINVAL);
    e.source.fn = on_end;
    assert_int_equal(tn_loop_mod(&loop, &e.source, EPOLLOUT), TN_ESTATE); /* never added */
    assert_int_equal(tn_loop_remove(&loop, &e.source), TN_ESTATE);
    assert_int_equal(tn_loop_add(&loop, &e.source), 0);
    assert_int_equal(tn_loop_add(&loop, &e.source), TN_EEXIST);
    assert_int_equal(tn_loop_remove(&loop, &e.source), 0);
    assert_int_equal(tn_loop_remove(&loop, &e.source), TN_ESTATE);
    assert_int_equal(tn_loop_step(&loop, 0), 0);
    shut(&e);
    tn_loop_close(&loop);
}

static void what_epoll_cannot_watch_is_an_error(void **state)
{
    char path[] = "/tmp/tn_loop.XXXXXX";
    struct tn_loop loop;
    struct end e;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    unlink(path);
    start(&loop);
    fill(&e, &loop, EPOLLIN);
    close(e.source.fd);
    for (int paused = 0; paused < 2; paused++) {
        e.source.events = paused ? 0 : EPOLLIN;
        e.source.fd = fd;
        errno = 0;
        assert_int_equal(tn_loop_add(&loop, &e.source), TN_ESYS);
        assert_int_equal(errno, EPERM);
        e.source.fd = -1;
        errno = 0;
        assert_int_equal(tn_loop_add(&loop, &e.source), TN_ESYS);
        assert_int_equal(errno, EBADF);
        e.source.fd = loop.epfd; /* itself */
        assert_int_equal(tn_loop_add(&loop, &e.source), TN_ESYS);
    }
    close(fd);
    close(e.far);
    tn_loop_close(&loop);
}

static void without_fds_nothing_is_left_open(void **state)
{
    struct rlimit old, tight;
    struct tn_loop loop, spare;
    struct tn_loop_timer t;
    struct tn_loop_event ev;
    int free_fd = first_free_fd();

    (void)state;
    start(&spare);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    tight = old;
    for (rlim_t room = 0; room < 3; room++) {
        int rc, timer, event;
        tight.rlim_cur = (rlim_t)first_free_fd() + room;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
        errno = 0;
        rc = tn_loop_init(&loop);
        assert_int_equal(rc, room < 2 ? TN_ESYS : 0);
        if (rc < 0) {
            assert_int_equal(errno, EMFILE);
            assert_int_equal(loop.epfd, -1);
            assert_int_equal(tn_loop_step(&loop, 0), TN_ESTATE);
        }
        tn_loop_close(&loop);
        timer = tn_loop_timer_init(&t, &spare, NULL, NULL);
        event = tn_loop_event_init(&ev, &spare, NULL, NULL);
        assert_int_equal(timer, TN_EINVAL);
        assert_int_equal(event, TN_EINVAL);
        if (room == 0) {
            timer = tn_loop_timer_init(&t, &spare, (void (*)(void *, uint64_t))1, NULL);
            event = tn_loop_event_init(&ev, &spare, (void (*)(void *, uint64_t))1, NULL);
            assert_int_equal(timer, TN_ESYS);
            assert_int_equal(event, TN_ESYS);
        }
        assert_int_equal(t.source.fd, -1);
        assert_int_equal(ev.source.fd, -1);
        tn_loop_timer_close(&t);
        tn_loop_event_close(&ev);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    }
    tn_loop_close(&spare);
    assert_int_equal(tn_loop_timer_init(&t, &spare, (void (*)(void *, uint64_t))1, NULL), TN_ESYS);
    assert_int_equal(tn_loop_event_init(&ev, &spare, (void (*)(void *, uint64_t))1, NULL), TN_ESYS);
    assert_int_equal(t.source.fd, -1);
    assert_int_equal(ev.source.fd, -1);
    assert_int_equal(first_free_fd(), free_fd);
}

static void close_is_for_good_and_keeps_errno(void **state)
{
    struct tn_loop loop;
    int free_fd = first_free_fd();

    (void)state;
    start(&loop);
    errno = 4242;
    tn_loop_close(&loop);
    tn_loop_close(&loop);
    tn_loop_stop(&loop);
    assert_int_equal(errno, 4242);
    errno = 0;
    assert_int_equal(tn_loop_step(&loop, -1), TN_ESTATE);
    assert_int_equal(first_free_fd(), free_fd);
}

/* ---- sources ------------------------------------------------------------------------------ */

static void drain_end(struct end *e)
{
    char text[64];

    assert_true(read(e->source.fd, text, sizeof(text)) > 0);
}

static void readiness_is_level_triggered(void **state)
{
    struct tn_loop loop;
    struct end e;

    (void)state;
    start(&loop);
    watch(&e, &loop, EPOLLIN);
    assert_int_equal(tn_loop_step(&loop, 0), 0);
    poke(&e);
    for (unsigned i = 1; i <= 3; i++) {
        assert_int_equal(tn_loop_step(&loop, -1), 1);
        assert_int_equal(e.calls, i);
        assert_int_equal(e.events, EPOLLIN);
    }
    e.then = drain_end;
    assert_int_equal(tn_loop_step(&loop, -1), 1);
    assert_int_equal(tn_loop_step(&loop, 0), 0);
    assert_int_equal(tn_loop_mod(&loop, &e.source, EPOLLIN | EPOLLOUT), 0);
    e.then = NULL;
    assert_int_equal(tn_loop_step(&loop, -1), 1);
    assert_int_equal(e.events, EPOLLOUT);
    close(e.far);
    assert_int_equal(tn_loop_step(&loop, -1), 1);
    assert_true(e.events & EPOLLHUP); /* unasked */
    assert_int_equal(tn_loop_remove(&loop, &e.source), 0);
    close(e.source.fd);
    tn_loop_close(&loop);
}

static void a_step_waits_as_long_as_it_is_told(void **state)
{
    struct tn_loop loop;
    uint64_t from = now(CLOCK_MONOTONIC);

    (void)state;
    start(&loop);
    assert_int_equal(tn_loop_step(&loop, 0), 0);
    assert_int_equal(tn_loop_step(&loop, 30), 0);
    assert_in_range(now(CLOCK_MONOTONIC) - from, 29 * MS, 5000 * MS);
    tn_loop_close(&loop);
}

static void remove_and_free(struct end *e)
{
    assert_int_equal(tn_loop_remove(e->loop, &e->source), 0);
    shut(e);
    free(e);
}

static void a_source_may_remove_and_free_itself(void **state)
{
    struct tn_loop loop;

    (void)state;
    start(&loop);
    for (int i = 0; i < 10; i++) {
        struct end *e = malloc(sizeof(*e));
        assert_non_null(e);
        watch(e, &loop, EPOLLIN);
        e->then = remove_and_free;
        poke(e);
    }
    assert_int_equal(tn_loop_step(&loop, 0), 10);
    assert_int_equal(tn_loop_step(&loop, 0), 0);
    tn_loop_close(&loop);
}

struct flock_of_ends {
    struct end *end[40];
    unsigned calls;
};

static void remove_the_rest(void *ctx, uint32_t events)
{
    struct flock_of_ends *f = ctx;

    (void)events;
    f->calls++;
    for (size_t i = 0; i < COUNT(f->end); i++) {
        remove_and_free(f->end[i]);
        f->end[i] = NULL;
    }
}

/* The class of C04: what was reported before the removal must not reach what is no longer there. */
static void c04_events_of_a_removed_source_are_dropped(void **state)
{
    struct tn_loop loop;
    struct flock_of_ends f;

    (void)state;
    start(&loop);
    for (int order = 0; order < 2; order++) {
        memset(&f, 0, sizeof(f));
        for (size_t i = 0; i < COUNT(f.end); i++) {
            f.end[i] = malloc(sizeof(struct end));
            assert_non_null(f.end[i]);
            watch(f.end[i], &loop, EPOLLIN);
            f.end[i]->source.fn = remove_the_rest;
            f.end[i]->source.ctx = &f;
        }
        for (size_t i = 0; i < COUNT(f.end); i++)
            poke(f.end[order ? COUNT(f.end) - 1 - i : i]);
        assert_int_equal(tn_loop_step(&loop, 0), 1); /* whoever is first removes and frees all */
        assert_int_equal(f.calls, 1);
        assert_int_equal(tn_loop_step(&loop, 0), 0);
    }
    tn_loop_close(&loop);
}

static void re_add_others(struct end *e)
{
    for (size_t i = 0; i < e->count; i++) {
        if (&e->others[i] == e)
            continue;
        assert_int_equal(tn_loop_remove(e->loop, &e->others[i].source), 0);
        assert_int_equal(tn_loop_add(e->loop, &e->others[i].source), 0);
    }
}

static void pause_and_resume_others(struct end *e)
{
    for (size_t i = 0; i < e->count; i++) {
        if (&e->others[i] == e)
            continue;
        assert_int_equal(tn_loop_mod(e->loop, &e->others[i].source, 0), 0);
        assert_int_equal(tn_loop_mod(e->loop, &e->others[i].source, EPOLLIN), 0);
    }
}

static void look_for_output_only(struct end *e)
{
    for (size_t i = 0; i < e->count; i++)
        assert_int_equal(tn_loop_mod(e->loop, &e->others[i].source, EPOLLPRI), 0);
}

static void pause_others(struct end *e)
{
    for (size_t i = 0; i < e->count; i++)
        assert_int_equal(tn_loop_mod(e->loop, &e->others[i].source, 0), 0);
}

/* What a callback changes about the rest of its own batch. */
static void changes_count_at_once(void **state)
{
    static const struct {
        void (*then)(struct end *);
        int after; /* calls in the next step */
    } cases[] = {
        {re_add_others, 8},
        {pause_and_resume_others, 8},
        {look_for_output_only, 0},
        {pause_others, 0},
    };
    struct tn_loop loop;

    (void)state;
    for (size_t c = 0; c < COUNT(cases); c++) {
        struct end e[8];
        start(&loop);
        for (size_t i = 0; i < COUNT(e); i++) {
            watch(&e[i], &loop, EPOLLIN);
            e[i].then = cases[c].then;
            e[i].others = e;
            e[i].count = COUNT(e);
        }
        for (size_t i = 0; i < COUNT(e); i++)
            poke(&e[i]);
        assert_int_equal(tn_loop_step(&loop, 0), 1);
        for (size_t i = 0; i < COUNT(e); i++)
            e[i].then = NULL;
        assert_int_equal(tn_loop_step(&loop, 0), cases[c].after);
        for (size_t i = 0; i < COUNT(e); i++) {
            assert_int_equal(tn_loop_remove(&loop, &e[i].source), 0);
            shut(&e[i]);
        }
        tn_loop_close(&loop);
    }
}

/* ---- C14: fairness ------------------------------------------------------------------------ */

static void c14_busy_sources_do_not_starve_others(void **state)
{
    static struct end e[TN_LOOP_BATCH * 3 + 7];
    struct tn_loop loop;
    unsigned low = UINT32_MAX, high = 0;

    (void)state;
    start(&loop);
    for (size_t i = 0; i < COUNT(e); i++) {
        watch(&e[i], &loop, EPOLLIN);
        poke(&e[i]); /* never drained: ready for ever */
    }
    for (unsigned turn = 0; turn < 400; turn++) {
        int n = tn_loop_step(&loop, -1);
        assert_in_range(n, 1, TN_LOOP_BATCH);
    }
    for (size_t i = 0; i < COUNT(e); i++) {
        low = e[i].calls < low ? e[i].calls : low;
        high = e[i].calls > high ? e[i].calls : high;
        tn_loop_remove(&loop, &e[i].source);
        shut(&e[i]);
    }
    assert_true(low > 0);
    assert_true(high - low <= 1);
    tn_loop_close(&loop);
}

/* ---- C21: an idle loop costs nothing ------------------------------------------------------- */

static void stop_at(void *ctx, uint64_t expirations)
{
    (void)expirations;
    tn_loop_stop(ctx);
}

static void nothing(void *ctx, uint64_t n)
{
    (void)ctx;
    (void)n;
}

static void c21_an_idle_loop_costs_no_cpu(void **state)
{
    static struct end e[200];
    static struct tn_loop_event ev[100];
    struct tn_loop_timer t;
    struct tn_loop loop;
    uint64_t cpu, wall;

    (void)state;
    start(&loop);
    for (size_t i = 0; i < COUNT(e); i++) {
        watch(&e[i], &loop, EPOLLIN);
        if (i % 4 == 1) /* a hang-up, and input, that a paused source must not be woken for */
            assert_int_equal(tn_loop_mod(&loop, &e[i].source, 0), 0);
        if (i % 8 == 1)
            shutdown(e[i].far, SHUT_RDWR);
        if (i % 8 == 5)
            poke(&e[i]);
    }
    for (size_t i = 0; i < COUNT(ev); i++) {
        assert_int_equal(tn_loop_event_init(&ev[i], &loop, nothing, NULL), 0);
        assert_int_equal(tn_loop_event_signal(&ev[i]), 0);
    }
    assert_int_equal(tn_loop_timer_init(&t, &loop, stop_at, &loop), 0);
    for (int round = 0; round < 3; round++) { /* a stop leaves nothing behind that spins */
        uint64_t one = 1;
        assert_int_equal(tn_loop_timer_arm(&t, 200 * MS, 0), 0);
        tn_loop_stop(&loop);
        assert_int_equal(tn_loop_run(&loop), 0);
        if (round == 2) /* the second half of a stop, whose first half ended a run already */
            assert_int_equal(write(loop.wake_fd, &one, sizeof(one)), sizeof(one));
        cpu = now(CLOCK_THREAD_CPUTIME_ID);
        wall = now(CLOCK_MONOTONIC);
        assert_int_equal(tn_loop_run(&loop), 0);
        cpu = now(CLOCK_THREAD_CPUTIME_ID) - cpu;
        wall = now(CLOCK_MONOTONIC) - wall;
        assert_true(wall >= 150 * MS);
        assert_in_range(cpu, 0, 20 * MS);
    }
    for (size_t i = 0; i < COUNT(e); i++) {
        assert_int_equal(e[i].calls, 0);
        assert_int_equal(tn_loop_remove(&loop, &e[i].source), 0);
        shut(&e[i]);
    }
    for (size_t i = 0; i < COUNT(ev); i++)
        tn_loop_event_close(&ev[i]);
    tn_loop_timer_close(&t);
    tn_loop_close(&loop);
}

/* N pauses and resumptions: the gate opens again each time. */
static void c21_a_paused_source_comes_back(void **state)
{
    struct tn_loop loop;
    struct end e;

    (void)state;
    start(&loop);
    watch(&e, &loop, 0); /* added as paused */
    e.then = drain_end;
    for (unsigned i = 1; i <= 100; i++) {
        poke(&e);
        assert_int_equal(tn_loop_step(&loop, 0), 0);
        assert_int_equal(tn_loop_mod(&loop, &e.source, EPOLLIN), 0);
        assert_int_equal(tn_loop_step(&loop, 0), 1);
        assert_int_equal(e.calls, i);
        assert_int_equal(tn_loop_mod(&loop, &e.source, 0), 0);
        assert_int_equal(tn_loop_mod(&loop, &e.source, 0), 0);
    }
    assert_int_equal(tn_loop_remove(&loop, &e.source), 0);
    shut(&e);
    tn_loop_close(&loop);
}

/* ---- timers ------------------------------------------------------------------------------- */

struct ticks {
    struct tn_loop *loop;
    struct tn_loop_timer timer;
    uint64_t calls, due;
    uint64_t stop_after;
    void (*then)(struct ticks *);
};

static void on_tick(void *ctx, uint64_t expirations)
{
    struct ticks *t = ctx;

    assert_true(expirations >= 1);
    t->calls++;
    t->due += expirations;
    if (t->then)
        t->then(t);
    else if (t->due >= t->stop_after)
        tn_loop_stop(t->loop);
}

static void set(struct ticks *t, struct tn_loop *loop, uint64_t stop_after)
{
    memset(t, 0, sizeof(*t));
    t->loop = loop;
    t->stop_after = stop_after;
    assert_int_equal(tn_loop_timer_init(&t->timer, loop, on_tick, t), 0);
}

static void timers_fire_when_due(void **state)
{
    struct tn_loop loop;
    struct ticks t;
    uint64_t from;

    (void)state;
    start(&loop);
    set(&t, &loop, 1);
    assert_int_equal(tn_loop_step(&loop, 0), 0); /* a new one is disarmed */
    assert_int_equal(tn_loop_timer_arm(&t.timer, (1ull << 62) + 1, 0), TN_EINVAL);
    assert_int_equal(tn_loop_timer_arm(&t.timer, 0, UINT64_MAX), TN_EINVAL);
    assert_int_equal(tn_loop_timer_arm(&t.timer, 1ull << 62, 1ull << 62), 0);
    assert_int_equal(tn_loop_step(&loop, 5), 0);

    from = now(CLOCK_MONOTONIC);
    assert_int_equal(tn_loop_timer_arm(&t.timer, 20 * MS, 0), 0); /* anew */
    assert_int_equal(tn_loop_run(&loop), 0);
    assert_in_range(now(CLOCK_MONOTONIC) - from, 20 * MS, 5000 * MS);
    assert_int_equal(t.calls, 1);
    assert_int_equal(t.due, 1);
    assert_int_equal(tn_loop_step(&loop, 30), 0); /* once */

    assert_int_equal(tn_loop_timer_arm(&t.timer, 0, 0), 0); /* at once */
    assert_int_equal(tn_loop_run(&loop), 0);
    assert_int_equal(t.due, 2);

    t.stop_after = 7;
    from = now(CLOCK_MONOTONIC);
    assert_int_equal(tn_loop_timer_arm(&t.timer, 0, 10 * MS), 0); /* periodic */
    assert_int_equal(tn_loop_run(&loop), 0);
    assert_true(t.due >= 7);
    assert_in_range(now(CLOCK_MONOTONIC) - from, 40 * MS, 5000 * MS);
    assert_int_equal(tn_loop_timer_disarm(&t.timer), 0);
    assert_int_equal(tn_loop_step(&loop, 30), 0);

    t.calls = t.due = 0; /* late: counted, and called once */
    assert_int_equal(tn_loop_timer_arm(&t.timer, MS, MS), 0);
    usleep(20000);
    assert_int_equal(tn_loop_step(&loop, 0), 1);
    assert_true(t.due >= 15);
    tn_loop_stop(&loop);
    assert_int_equal(tn_loop_run(&loop), 0);
    tn_loop_timer_close(&t.timer);
    tn_loop_timer_close(&t.timer);
    tn_loop_close(&loop);
}

static void a_disarmed_timer_is_silent_even_if_due(void **state)
{
    struct tn_loop loop;
    struct ticks t;

    (void)state;
    start(&loop);
    set(&t, &loop, 1);
    assert_int_equal(tn_loop_timer_arm(&t.timer, 0, MS), 0);
    usleep(5000);
    assert_int_equal(tn_loop_timer_disarm(&t.timer), 0);
    assert_int_equal(tn_loop_step(&loop, 20), 0);
    assert_int_equal(t.calls, 0);
    tn_loop_timer_close(&t.timer);
    tn_loop_close(&loop);
}

static struct ticks twins[2];

static void disarm_both(struct ticks *t)
{
    (void)t;
    assert_int_equal(tn_loop_timer_disarm(&twins[0].timer), 0);
    assert_int_equal(tn_loop_timer_disarm(&twins[1].timer), 0);
}

static void close_both(struct ticks *t)
{
    (void)t;
    tn_loop_timer_close(&twins[0].timer);
    tn_loop_timer_close(&twins[1].timer);
}

static void arm_again(struct ticks *t)
{
    if (t->calls < 5)
        assert_int_equal(tn_loop_timer_arm(&t->timer, MS, 0), 0);
    else
        tn_loop_stop(t->loop);
}

/* Both are due in one batch, and the first silences the second. */
static void timers_may_be_changed_from_callbacks(void **state)
{
    void (*const thens[])(struct ticks *) = {disarm_both, close_both};
    struct tn_loop loop;
    struct ticks t;

    (void)state;
    start(&loop);
    for (size_t i = 0; i < COUNT(thens); i++) {
        for (size_t k = 0; k < COUNT(twins); k++) {
            set(&twins[k], &loop, 1);
            twins[k].then = thens[i];
            assert_int_equal(tn_loop_timer_arm(&twins[k].timer, 0, MS), 0);
        }
        usleep(5000);
        assert_in_range(tn_loop_step(&loop, 0), 1, 2);
        assert_int_equal(twins[0].calls + twins[1].calls, 1);
        assert_int_equal(tn_loop_step(&loop, 10), 0);
        close_both(NULL);
    }
    set(&t, &loop, 1);
    t.then = arm_again;
    assert_int_equal(tn_loop_timer_arm(&t.timer, MS, 0), 0);
    assert_int_equal(tn_loop_run(&loop), 0);
    assert_int_equal(t.calls, 5);
    tn_loop_timer_close(&t.timer);
    tn_loop_close(&loop);
}

/* ---- stop --------------------------------------------------------------------------------- */

static void stop_the_loop(struct end *e)
{
    tn_loop_stop(e->loop);
}

static void nest(struct end *e)
{
    assert_int_equal(tn_loop_step(e->loop, 0), TN_ESTATE);
    tn_loop_stop(e->loop);
    assert_int_equal(tn_loop_run(e->loop), TN_ESTATE); /* and does not eat the stop */
}

static void *wake_later(void *loop)
{
    usleep(20000);
    tn_loop_wake((struct tn_loop *)loop);
    return NULL;
}

static void a_wake_ends_one_step_and_no_run(void **state)
{
    struct tn_loop loop;
    pthread_t thread;

    (void)state;
    start(&loop);
    alarm(60);
    errno = 77;
    tn_loop_wake(&loop); /* before a step, and twice: that step ends at once */
    tn_loop_wake(&loop);
    assert_int_equal(errno, 77);
    assert_int_equal(tn_loop_step(&loop, -1), 0);
    assert_false(tn_loop_stopping(&loop));
    assert_int_equal(pthread_create(&thread, NULL, wake_later, &loop), 0);
    assert_int_equal(tn_loop_step(&loop, -1), 0);
    pthread_join(thread, NULL);
    tn_loop_wake(&loop);
    tn_loop_stop(&loop);
    assert_int_equal(tn_loop_run(&loop), 0);
    alarm(0);
    tn_loop_close(&loop);
}

static void a_stop_ends_the_run_after_the_batch(void **state)
{
    struct tn_loop loop;
    struct end e[5];

    (void)state;
    start(&loop);
    assert_false(tn_loop_stopping(&loop));
    tn_loop_stop(&loop); /* before a run: that run ends at once */
    tn_loop_stop(&loop);
    assert_true(tn_loop_stopping(&loop));
    assert_int_equal(tn_loop_step(&loop, -1), 0);
    assert_int_equal(tn_loop_run(&loop), 0);
    assert_false(tn_loop_stopping(&loop));
    assert_int_equal(tn_loop_step(&loop, 0), 0);

    for (size_t i = 0; i < COUNT(e); i++) {
        watch(&e[i], &loop, EPOLLIN);
        e[i].then = i % 2 ? stop_the_loop : nest;
        poke(&e[i]);
    }
    for (unsigned run = 1; run <= 20; run++) { /* each has its turn, whoever stops the loop */
        assert_int_equal(tn_loop_run(&loop), 0);
        for (size_t i = 0; i < COUNT(e); i++)
            assert_int_equal(e[i].calls, run);
    }
    for (size_t i = 0; i < COUNT(e); i++) {
        assert_int_equal(tn_loop_remove(&loop, &e[i].source), 0);
        shut(&e[i]);
    }
    tn_loop_close(&loop);
}

static struct tn_loop *signalled;
static struct tn_loop_event *signalled_event;
static volatile sig_atomic_t handled, errno_changed;

static void on_signal(int number)
{
    int before = errno;

    (void)number;
    handled++;
    errno = 77;
    if (signalled_event)
        tn_loop_event_signal(signalled_event);
    if (signalled)
        tn_loop_stop(signalled);
    errno_changed |= errno != 77;
    errno = before;
}

static void on_alarm(bool on, unsigned usec)
{
    struct sigaction action;
    struct itimerval every = {{0, 0}, {0, 0}};

    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal; /* no SA_RESTART */
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    every.it_value.tv_usec = every.it_interval.tv_usec = on ? (suseconds_t)usec : 0;
    assert_int_equal(setitimer(ITIMER_REAL, &every, NULL), 0);
}

static void e13_a_signal_handler_may_stop_the_loop(void **state)
{
    struct tn_loop loop;

    (void)state;
    start(&loop);
    handled = errno_changed = 0;
    signalled = &loop;
    on_alarm(true, 2000);
    for (int i = 0; i < 50; i++)
        assert_int_equal(tn_loop_run(&loop), 0);
    on_alarm(false, 0);
    signalled = NULL;
    assert_true(handled >= 25); /* one may end two runs, if it came between them */
    assert_int_equal(errno_changed, 0);
    tn_loop_close(&loop);
}

static void eintr_is_not_an_error(void **state)
{
    struct tn_loop loop;
    struct ticks t;
    uint64_t from = now(CLOCK_MONOTONIC);

    (void)state;
    start(&loop);
    handled = 0;
    set(&t, &loop, 1);
    assert_int_equal(tn_loop_timer_arm(&t.timer, 100 * MS, 0), 0);
    on_alarm(true, 1000);
    assert_int_equal(tn_loop_step(&loop, -1), 0); /* cut short */
    assert_int_equal(tn_loop_run(&loop), 0);
    on_alarm(false, 0);
    assert_true(handled > 10);
    assert_true(now(CLOCK_MONOTONIC) - from >= 100 * MS);
    tn_loop_timer_close(&t.timer);
    tn_loop_close(&loop);
}

/* ---- threads ------------------------------------------------------------------------------ */

struct sum {
    struct tn_loop *loop;
    uint64_t total, calls, want;
};

static void add_up(void *ctx, uint64_t count)
{
    struct sum *s = ctx;

    s->total += count;
    s->calls++;
    if (s->total == s->want)
        tn_loop_stop(s->loop);
}

static void *signal_often(void *ctx)
{
    for (int i = 0; i < 5000; i++)
        if (tn_loop_event_signal(ctx) < 0)
            return ctx;
    return NULL;
}

static void no_signal_is_lost(void **state)
{
    struct tn_loop loop;
    struct tn_loop_event ev;
    struct sum s = {&loop, 0, 0, 4 * 5000};
    pthread_t threads[4];
    uint64_t full = UINT64_MAX - 1;

    (void)state;
    start(&loop);
    assert_int_equal(tn_loop_event_init(&ev, &loop, add_up, &s), 0);
    for (size_t i = 0; i < COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, signal_often, &ev), 0);
    assert_int_equal(tn_loop_run(&loop), 0);
    for (size_t i = 0; i < COUNT(threads); i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    assert_int_equal(s.total, 4 * 5000);
    assert_in_range(s.calls, 1, s.total);
    assert_int_equal(tn_loop_step(&loop, 0), 0);

    assert_int_equal(write(ev.source.fd, &full, sizeof(full)), sizeof(full));
    errno = 42;
    assert_int_equal(tn_loop_event_signal(&ev), 0); /* full: is signalled already */
    assert_int_equal(errno, 42);
    assert_int_equal(tn_loop_step(&loop, 0), 1);
    tn_loop_event_close(&ev);
    tn_loop_event_close(&ev);
    assert_int_equal(tn_loop_event_signal(&ev), TN_ESYS);
    tn_loop_close(&loop);
}

struct race {
    struct tn_loop loop;
    pthread_barrier_t barrier;
    int rounds;
};

static void *stop_it(void *ctx)
{
    struct race *r = ctx;

    for (int i = 0; i < r->rounds; i++) {
        pthread_barrier_wait(&r->barrier);
        for (volatile int spin = 0; spin < i % 97 * 20; spin++)
            ;
        tn_loop_stop(&r->loop);
    }
    return NULL;
}

/* Each stop ends one run, wherever in it, or before it, the stop comes. */
static void another_thread_may_stop_the_loop(void **state)
{
    static struct race r;
    pthread_t thread;

    (void)state;
    start(&r.loop);
    r.rounds = 3000;
    assert_int_equal(pthread_barrier_init(&r.barrier, NULL, 2), 0);
    assert_int_equal(pthread_create(&thread, NULL, stop_it, &r), 0);
    for (int i = 0; i < r.rounds; i++) {
        pthread_barrier_wait(&r.barrier);
        assert_int_equal(tn_loop_run(&r.loop), 0);
        assert_false(tn_loop_stopping(&r.loop));
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_barrier_destroy(&r.barrier);
    tn_loop_close(&r.loop);
}

struct adder {
    struct tn_loop loop;
    struct end e[200];
    unsigned done;
};

static void count_done(struct end *e)
{
    struct adder *a = (struct adder *)(void *)e->others;

    assert_int_equal(tn_loop_remove(e->loop, &e->source), 0);
    if (++a->done == COUNT(a->e))
        tn_loop_stop(e->loop);
}

static void *add_while_it_runs(void *ctx)
{
    struct adder *a = ctx;

    for (size_t i = 0; i < COUNT(a->e); i++) {
        fill(&a->e[i], &a->loop, EPOLLIN);
        a->e[i].then = count_done;
        a->e[i].others = (struct end *)(void *)a;
        poke(&a->e[i]);
        if (tn_loop_add(&a->loop, &a->e[i].source) < 0)
            return a;
    }
    return NULL;
}

static void another_thread_may_add_sources(void **state)
{
    static struct adder a;
    pthread_t thread;
    void *failed;

    (void)state;
    start(&a.loop);
    assert_int_equal(pthread_create(&thread, NULL, add_while_it_runs, &a), 0);
    assert_int_equal(tn_loop_run(&a.loop), 0);
    assert_int_equal(pthread_join(thread, &failed), 0);
    assert_null(failed);
    for (size_t i = 0; i < COUNT(a.e); i++) {
        assert_int_equal(a.e[i].calls, 1);
        shut(&a.e[i]);
    }
    tn_loop_close(&a.loop);
}

static void *arm_and_disarm(void *ctx)
{
    for (int i = 0; i < 2000; i++) {
        if (tn_loop_timer_arm(ctx, (uint64_t)(i % 3) * 1000, 1000) < 0)
            return ctx;
        if (i % 2 && tn_loop_timer_disarm(ctx) < 0)
            return ctx;
    }
    return tn_loop_timer_arm(ctx, 0, 0) < 0 ? ctx : NULL;
}

static void another_thread_may_arm_timers(void **state)
{
    struct tn_loop loop;
    struct ticks t;
    pthread_t thread;
    void *failed;

    (void)state;
    start(&loop);
    set(&t, &loop, UINT64_MAX);
    assert_int_equal(pthread_create(&thread, NULL, arm_and_disarm, &t.timer), 0);
    for (int i = 0; i < 1000; i++)
        assert_in_range(tn_loop_step(&loop, 0), 0, 1);
    assert_int_equal(pthread_join(thread, &failed), 0);
    assert_null(failed);
    t.stop_after = 0;
    assert_int_equal(tn_loop_timer_arm(&t.timer, 0, 0), 0);
    assert_int_equal(tn_loop_run(&loop), 0);
    tn_loop_timer_close(&t.timer);
    tn_loop_close(&loop);
}

/* ---- many --------------------------------------------------------------------------------- */

static void thousands_of_sources(void **state)
{
    static struct tn_loop_event ev[4000];
    static struct sum s[COUNT(ev)];
    struct tn_loop loop, *self = &loop;
    struct rlimit limit;
    size_t n = 0;
    int handled_in_all = 0;
    int free_fd = first_free_fd();

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    start(&loop);
    while (n < COUNT(ev)) {
        s[n].loop = self;
        s[n].want = 0;
        if (tn_loop_event_init(&ev[n], &loop, add_up, &s[n]) < 0) {
            assert_int_equal(errno, EMFILE); /* a smaller limit: as many as it allows */
            break;
        }
        n++;
    }
    assert_true(n >= 500);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(tn_loop_event_signal(&ev[i]), 0);
    for (size_t turns = 0; turns < n && handled_in_all < (int)n; turns++) {
        int rc = tn_loop_step(&loop, 0);
        assert_in_range(rc, 1, TN_LOOP_BATCH);
        handled_in_all += rc;
    }
    assert_int_equal(tn_loop_step(&loop, 0), 0);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(s[i].total, 1);
        tn_loop_event_close(&ev[i]);
    }
    tn_loop_close(&loop);
    assert_int_equal(first_free_fd(), free_fd);
}

static void a_loop_runs_inside_another(void **state)
{
    struct tn_loop inner, outer;
    struct tn_loop_event ev;
    struct sum s = {&inner, 0, 0, UINT64_MAX};
    struct end e;

    (void)state;
    start(&inner);
    start(&outer);
    assert_int_equal(tn_loop_event_init(&ev, &inner, add_up, &s), 0);
    memset(&e, 0, sizeof(e));
    e.source.fd = inner.epfd;
    e.source.events = EPOLLIN;
    e.source.fn = on_end;
    e.source.ctx = &e;
    assert_int_equal(tn_loop_add(&outer, &e.source), 0);
    assert_int_equal(tn_loop_step(&outer, 0), 0);
    assert_int_equal(tn_loop_event_signal(&ev), 0);
    assert_int_equal(tn_loop_step(&outer, -1), 1);
    assert_int_equal(tn_loop_step(&inner, 0), 1);
    assert_int_equal(tn_loop_step(&outer, 0), 0);
    assert_int_equal(s.total, 1);
    assert_int_equal(tn_loop_remove(&outer, &e.source), 0);
    tn_loop_event_close(&ev);
    tn_loop_close(&inner);
    tn_loop_close(&outer);
}

static void a_signal_handler_may_signal_an_event(void **state)
{
    struct tn_loop loop;
    struct tn_loop_event ev;
    struct sum s = {&loop, 0, 0, 5};

    (void)state;
    start(&loop);
    assert_int_equal(tn_loop_event_init(&ev, &loop, add_up, &s), 0);
    errno_changed = 0;
    signalled_event = &ev;
    s.want = 5;
    on_alarm(true, 2000);
    while (s.total < 5)
        assert_true(tn_loop_step(&loop, 1000) >= 0);
    on_alarm(false, 0);
    signalled_event = NULL;
    assert_int_equal(errno_changed, 0);
    tn_loop_event_close(&ev);
    tn_loop_close(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_sources_are_refused),
        cmocka_unit_test(what_epoll_cannot_watch_is_an_error),
        cmocka_unit_test(without_fds_nothing_is_left_open),
        cmocka_unit_test(close_is_for_good_and_keeps_errno),
        cmocka_unit_test(readiness_is_level_triggered),
        cmocka_unit_test(a_step_waits_as_long_as_it_is_told),
        cmocka_unit_test(a_source_may_remove_and_free_itself),
        cmocka_unit_test(c04_events_of_a_removed_source_are_dropped),
        cmocka_unit_test(changes_count_at_once),
        cmocka_unit_test(c14_busy_sources_do_not_starve_others),
        cmocka_unit_test(c21_an_idle_loop_costs_no_cpu),
        cmocka_unit_test(c21_a_paused_source_comes_back),
        cmocka_unit_test(timers_fire_when_due),
        cmocka_unit_test(a_disarmed_timer_is_silent_even_if_due),
        cmocka_unit_test(timers_may_be_changed_from_callbacks),
        cmocka_unit_test(a_wake_ends_one_step_and_no_run),
        cmocka_unit_test(a_stop_ends_the_run_after_the_batch),
        cmocka_unit_test(e13_a_signal_handler_may_stop_the_loop),
        cmocka_unit_test(eintr_is_not_an_error),
        cmocka_unit_test(no_signal_is_lost),
        cmocka_unit_test(another_thread_may_stop_the_loop),
        cmocka_unit_test(another_thread_may_add_sources),
        cmocka_unit_test(another_thread_may_arm_timers),
        cmocka_unit_test(thousands_of_sources),
        cmocka_unit_test(a_loop_runs_inside_another),
        cmocka_unit_test(a_signal_handler_may_signal_an_event),
    };

    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
