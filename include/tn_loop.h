/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_loop - an epoll loop with timers, wake-ups and a stop that a signal handler may call.
 *
 * WHAT
 *   Waits for file descriptors and calls a function for each that is ready. Timers are timerfds,
 *   wake-ups from other threads are eventfds (which KVM's ioeventfds and irqfds are, too). Nothing
 *   is allocated, and an idle loop sleeps in the kernel. One loop may serve thousands of sources,
 *   those of many VMs.
 *
 * USAGE
 *   static void tick(void *ctx, uint64_t expirations)
 *   {
 *       (void)expirations;
 *       tn_loop_stop((struct tn_loop *)ctx);
 *   }
 *   ---
 *   struct tn_loop loop;
 *   struct tn_loop_timer timer;
 *
 *   if (tn_loop_init(&loop) < 0)
 *       return 1;
 *   if (tn_loop_timer_init(&timer, &loop, tick, &loop) == 0) {
 *       tn_loop_timer_arm(&timer, 1000000, 0);
 *       tn_loop_run(&loop);
 *       tn_loop_timer_close(&timer);
 *   }
 *   tn_loop_close(&loop);
 *
 * COMPOSITION
 *   A device's ioeventfd is a tn_loop_event's fd; its backend's socket or TAP is a source. To run
 *   it inside another loop, poll loop.epfd there, and call tn_loop_step(loop, 0) when it is
 *   readable.
 *
 * GUEST TRUST
 *   A guest decides how often a source is ready. Each ready source is called once per turn, and
 *   waits for the others' turn before it is called again; a callback bounds the work of one call.
 *   Readiness is level-triggered: work that is left over is reported again. It may be gone when
 *   the call comes, taken by an earlier one: watch fds that are non-blocking.
 *
 * MEMORY
 *   The caller owns every struct, and keeps a source where it is from its add to its remove. After
 *   it has called a source's function, the loop does not touch the source again: a function may
 *   remove its own source, close its fd and free it; or do so to any other source.
 *
 * THREADS
 *   One thread runs the loop, and it alone removes, or modifies, what is in it (any thread may
 *   while nobody runs it). From any thread: tn_loop_add of a source that is not in it, and timers'
 *   arm and disarm. From any thread and from a signal handler: tn_loop_stop, tn_loop_wake,
 *   tn_loop_event_signal.
 *
 * CONFIG
 *   TN_LOOP_BATCH, sources per turn, 64 by default. It wants _DEFAULT_SOURCE or _GNU_SOURCE, and
 *   defines the latter where it is the first header.
 *
 * LIMITS
 *   Linux. No priorities. An epoll of a regular file is refused by the kernel (EPERM): read it
 *   directly. A timer takes one file descriptor.
 */
#ifndef TN_LOOP_H
#define TN_LOOP_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* of use only before the first system header */
#endif

/* -- tenon common block: the same bytes in every header (make check-common) -- */
/* clang-format off */
#ifndef TN_COMMON
#define TN_COMMON
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#if !defined(TN_API) && defined(TN_DECL_ONLY)
#define TN_API extern
#elif !defined(TN_API)
#define TN_API static inline
#endif
enum tn_err { TN_OK = 0, /* or a useful positive value; tn_strerror.h has a sentence for each */
    /* the caller's fault */ TN_EINVAL = -1, TN_ENOSPC = -2, TN_ESTATE = -3, TN_EEXIST = -4,
    /* the guest's, or a file's */ TN_EADDR = -32, TN_EFORMAT = -33, TN_ETRUNC = -34,
    TN_ERANGE = -35, TN_EOVERLAP = -36, TN_EMACHINE = -37, TN_EENTRY = -38, TN_ENOFIT = -39,
    TN_EUNSUP = -40, TN_EPROTO = -41, /* the environment's; errno tells */ TN_ESYS = -64,
    TN_EAGAIN = -65, TN_ENODEV = -66, /* ours */ TN_EBUG = -96 };
struct tn_iov { uint8_t *base; size_t len; }; /* memory in this process; as struct iovec */
/*@ requires n <= 8 && \valid_read(p + (0 .. n - 1)); assigns \nothing; */
static inline uint64_t tn_get_(const volatile uint8_t *p, unsigned n) /* little-endian load */
{
    uint64_t v = 0;
    /*@ loop invariant n <= \at(n, Pre); loop assigns n, v; loop variant n; */
    while (n > 0) v = v << 8 | p[--n];
    return v;
}
/*@ requires n <= 8 && \valid(p + (0 .. n - 1)); assigns p[0 .. n - 1]; */
static inline void tn_put_(uint8_t *p, unsigned n, uint64_t v) /* little-endian store */
{
    /*@ loop invariant i <= n; loop assigns i, p[0 .. n - 1]; loop variant n - i; */
    for (unsigned i = 0; i < n; i++) p[i] = (uint8_t)(v >> 8 * i);
}
#endif /* TN_COMMON */
/* clang-format on */

#include <sys/epoll.h> /* EPOLLIN ..., struct epoll_event */

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#ifndef TN_LOOP_BATCH
#define TN_LOOP_BATCH 64 /* sources per turn, >= 1 */
#endif

/* A file descriptor to watch; filled in by the caller, who does not change it while it is added. */
struct tn_loop_source {
    int fd;
    uint32_t events;                        /* EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP; 0: paused */
    void (*fn)(void *ctx, uint32_t events); /* gets EPOLLERR and EPOLLHUP unasked, too */
    void *ctx;
};

struct tn_loop {
    int epfd;      /* -1: closed */
    int wake_fd;   /* an eventfd that ends the wait */
    int stop;      /* atomic: tn_loop_stop was called */
    uint32_t at;   /* next in the batch */
    uint32_t n;    /* in the batch */
    bool stepping; /* inside tn_loop_step */
    struct epoll_event batch[TN_LOOP_BATCH];
};

/* Calls fn some time after it was armed; expirations is how many times it came due, >= 1. */
struct tn_loop_timer {
    struct tn_loop_source source; /* source.fd is a timerfd of CLOCK_MONOTONIC, or -1 */
    struct tn_loop *loop;
    void (*fn)(void *ctx, uint64_t expirations);
    void *ctx;
};

/* Calls fn after it was signalled; count is the sum of what was signalled, >= 1. */
struct tn_loop_event {
    struct tn_loop_source source; /* source.fd is an eventfd, or -1; for KVM_IOEVENTFD as well */
    struct tn_loop *loop;
    void (*fn)(void *ctx, uint64_t count);
    void *ctx;
};

/*
 * Starts a loop without sources. Returns 0, or TN_ESYS; *loop is then closed.
 */
TN_API int tn_loop_init(struct tn_loop *loop);

/*
 * Frees the loop's own fds; its sources are the caller's, and are no longer watched. Timers and
 * events are closed before it. Nothing on a closed loop.
 */
TN_API void tn_loop_close(struct tn_loop *loop);

/*
 * Adds a source: from now on its fn is called when one of its events is ready. Returns 0;
 * TN_EINVAL for a source without fn or with other events than those above; TN_EEXIST: the fd is in
 * the loop; TN_ESYS: EPERM for what epoll cannot watch, a regular file for one, EBADF, ENOSPC.
 */
TN_API int tn_loop_add(struct tn_loop *loop, struct tn_loop_source *source);

/*
 * Sets source->events. With 0 the source is paused: it is not called at all, not even for
 * EPOLLHUP, until it is given events again. What is ready already but no longer asked for is not
 * delivered. Returns 0, TN_EINVAL, TN_ESTATE (not in the loop), TN_ESYS; after an error
 * source->events is as before.
 */
TN_API int tn_loop_mod(struct tn_loop *loop, struct tn_loop_source *source, uint32_t events);

/*
 * Removes a source, before its fd is closed. Its fn is not called again, not even for what was
 * ready already. Returns 0; TN_ESTATE: it is not in the loop; TN_ESYS.
 */
TN_API int tn_loop_remove(struct tn_loop *loop, struct tn_loop_source *source);

/*
 * Handles one batch: waits up to timeout_ms (-1: for ever, 0: not at all) for a source to be
 * ready, and calls each of those that are, TN_LOOP_BATCH at most, once. Returns how many were
 * called, 0 also when a signal or a wake-up cut the wait short, or a stop is pending; TN_ESTATE
 * when called from a callback, or on a closed loop; TN_ESYS.
 */
TN_API int tn_loop_step(struct tn_loop *loop, int timeout_ms);

/*
 * Steps until tn_loop_stop, which it then forgets, so that it can be called again. Returns 0, or
 * the error of a step.
 */
TN_API int tn_loop_run(struct tn_loop *loop);

/*
 * Makes tn_loop_run return at the end of the batch that it is in, TN_LOOP_BATCH callbacks at most;
 * the next run, when none runs now. From any thread, callback, or signal handler
 * (async-signal-safe; errno is kept).
 */
TN_API void tn_loop_stop(struct tn_loop *loop);

/*
 * Makes the step that waits now return, or else the next one. From where tn_loop_stop may be
 * called.
 */
TN_API void tn_loop_wake(struct tn_loop *loop);

/*
 * Whether a stop is pending: for those who call tn_loop_step themselves.
 */
TN_API bool tn_loop_stopping(const struct tn_loop *loop);

/*
 * Makes a disarmed timer. Returns 0, TN_EINVAL without fn, TN_ESYS; the timer is then closed.
 */
TN_API int tn_loop_timer_init(struct tn_loop_timer *t, struct tn_loop *loop,
                              void (*fn)(void *ctx, uint64_t expirations), void *ctx);

/*
 * Arms it, anew if it is armed: due in first nanoseconds (0: at once), then every period
 * nanoseconds (0: once). Returns 0, TN_EINVAL for more than 2^62, TN_ESYS.
 */
TN_API int tn_loop_timer_arm(struct tn_loop_timer *t, uint64_t first, uint64_t period);

/*
 * Disarms it: it is not called until armed again, not even if it was due already (when called on
 * the loop's thread; from another, a call that has begun goes on). Returns 0 or TN_ESYS.
 */
TN_API int tn_loop_timer_disarm(struct tn_loop_timer *t);

/*
 * Removes it from the loop and closes its fd. Nothing on a closed timer.
 */
TN_API void tn_loop_timer_close(struct tn_loop_timer *t);

/*
 * Makes an event that is not signalled. Returns 0, TN_EINVAL without fn, TN_ESYS; the event is then
 * closed.
 */
TN_API int tn_loop_event_init(struct tn_loop_event *e, struct tn_loop *loop,
                              void (*fn)(void *ctx, uint64_t count), void *ctx);

/*
 * Has fn called on the loop's thread, once for all signals up to that call. From any thread or
 * signal handler (async-signal-safe; errno is kept). Returns 0 or TN_ESYS.
 */
TN_API int tn_loop_event_signal(const struct tn_loop_event *e);

/*
 * Removes it from the loop and closes its fd. Nothing on a closed event.
 */
TN_API void tn_loop_event_close(struct tn_loop_event *e);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#ifdef __cplusplus
} /* the system's headers have their own */
#endif
#include <errno.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#if defined(__GLIBC__) && !defined(__USE_MISC)
#error "tn_loop.h: compile with -D_GNU_SOURCE, or include it before the system's headers"
#endif
#ifdef __cplusplus
extern "C" {
#endif

/* The count of an eventfd or timerfd, which it takes away; 0: there is none. */
static inline uint64_t tn_loop_drain_(int fd)
{
    uint64_t n = 0;

    return read(fd, &n, sizeof(n)) == (ssize_t)sizeof(n) ? n : 0;
}

/* Adds one to an eventfd. Full means signalled already. errno is kept: callers are signal safe. */
static inline int tn_loop_kick_(int fd)
{
    uint64_t one = 1;
    int saved = errno;
    int rc = 0;

    if (write(fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        rc = TN_ESYS;
    else
        errno = saved;
    return rc;
}

static inline int tn_loop_ctl_(struct tn_loop *loop, int op, struct tn_loop_source *source,
                               uint32_t events)
{
    struct epoll_event ev;

    __builtin_memset(&ev, 0, sizeof(ev));
    ev.events = events;
    ev.data.ptr = source;
    if (epoll_ctl(loop->epfd, op, source->fd, &ev) == 0)
        return 0;
    if (errno == EEXIST)
        return TN_EEXIST;
    return errno == ENOENT ? TN_ESTATE : TN_ESYS;
}

static inline bool tn_loop_events_ok_(uint32_t events)
{
    return (events & ~((uint32_t)EPOLLIN | (uint32_t)EPOLLOUT | (uint32_t)EPOLLPRI |
                       (uint32_t)EPOLLRDHUP)) == 0;
}

/* Takes a source out of what remains of the batch in progress. */
static inline void tn_loop_forget_(struct tn_loop *loop, const struct tn_loop_source *source)
{
    for (uint32_t i = loop->at; i < loop->n; i++)
        if (loop->batch[i].data.ptr == source)
            loop->batch[i].data.ptr = NULL;
}

TN_API int tn_loop_init(struct tn_loop *loop)
{
    struct epoll_event ev;

    __builtin_memset(loop, 0, sizeof(*loop));
    loop->epfd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    __builtin_memset(&ev, 0, sizeof(ev));
    ev.events = EPOLLIN;
    ev.data.ptr = loop; /* no source has this address: known by it in tn_loop_step */
    if (loop->epfd < 0 || loop->wake_fd < 0 ||
        epoll_ctl(loop->epfd, EPOLL_CTL_ADD, loop->wake_fd, &ev) < 0) {
        tn_loop_close(loop);
        return TN_ESYS;
    }
    return 0;
}

TN_API void tn_loop_close(struct tn_loop *loop)
{
    int saved = errno;

    if (loop->epfd >= 0)
        close(loop->epfd);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    loop->epfd = loop->wake_fd = -1;
    loop->at = loop->n = 0;
    errno = saved;
}

TN_API int tn_loop_add(struct tn_loop *loop, struct tn_loop_source *source)
{
    int rc;

    if (!source->fn || !tn_loop_events_ok_(source->events))
        return TN_EINVAL;
    rc = tn_loop_ctl_(loop, EPOLL_CTL_ADD, source, source->events);
    if (rc == 0 && source->events == 0) /* added only to see whether it can be */
        rc = tn_loop_ctl_(loop, EPOLL_CTL_DEL, source, 0);
    return rc;
}

/*
 * A paused source is not in the epoll at all, since epoll reports EPOLLHUP and EPOLLERR whatever
 * it is asked for: a hang-up on a paused source would spin.
 */
TN_API int tn_loop_mod(struct tn_loop *loop, struct tn_loop_source *source, uint32_t events)
{
    int rc = 0;

    if (!tn_loop_events_ok_(events))
        return TN_EINVAL;
    if (source->events == 0 && events != 0)
        rc = tn_loop_ctl_(loop, EPOLL_CTL_ADD, source, events);
    else if (source->events != 0)
        rc = tn_loop_ctl_(loop, events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL, source, events);
    if (rc < 0)
        return rc;
    source->events = events;
    if (events == 0)
        tn_loop_forget_(loop, source);
    return 0;
}

TN_API int tn_loop_remove(struct tn_loop *loop, struct tn_loop_source *source)
{
    tn_loop_forget_(loop, source);
    return source->events == 0 ? 0 : tn_loop_ctl_(loop, EPOLL_CTL_DEL, source, 0);
}

TN_API int tn_loop_step(struct tn_loop *loop, int timeout_ms)
{
    int n, called = 0;

    if (loop->stepping || loop->epfd < 0)
        return TN_ESTATE;
    if (tn_loop_stopping(loop))
        return 0;
    n = epoll_wait(loop->epfd, loop->batch, TN_LOOP_BATCH, timeout_ms < 0 ? -1 : timeout_ms);
    if (n < 0)
        return errno == EINTR ? 0 : TN_ESYS;
    loop->at = 0;
    loop->n = (uint32_t)n;
    loop->stepping = true;
    while (loop->at < loop->n) { /* a stop does not cut it: the last would never have a turn */
        const struct epoll_event *ev = &loop->batch[loop->at++];
        struct tn_loop_source *source = (struct tn_loop_source *)ev->data.ptr;
        uint32_t events = ev->events;

        if (ev->data.ptr == loop) {
            tn_loop_drain_(loop->wake_fd);
            continue;
        }
        if (!source) /* removed by a callback of this batch */
            continue;
        events &= source->events | (uint32_t)EPOLLERR | (uint32_t)EPOLLHUP;
        if (events == 0) /* no longer asked for */
            continue;
        called++;
        source->fn(source->ctx, events); /* source may be gone now */
    }
    loop->at = loop->n = 0;
    loop->stepping = false;
    return called;
}

TN_API int tn_loop_run(struct tn_loop *loop)
{
    if (loop->stepping) /* must not eat the outer one's stop */
        return TN_ESTATE;
    while (!tn_loop_stopping(loop)) {
        int rc = tn_loop_step(loop, -1);
        if (rc < 0)
            return rc;
    }
    /* wake_fd stays readable for now: that costs the next step one turn, which drains it. */
    __atomic_store_n(&loop->stop, 0, __ATOMIC_SEQ_CST);
    return 0;
}

TN_API void tn_loop_stop(struct tn_loop *loop)
{
    int saved = errno;

    __atomic_store_n(&loop->stop, 1, __ATOMIC_SEQ_CST);
    (void)tn_loop_kick_(loop->wake_fd);
    errno = saved;
}

TN_API void tn_loop_wake(struct tn_loop *loop)
{
    int saved = errno;

    (void)tn_loop_kick_(loop->wake_fd);
    errno = saved;
}

TN_API bool tn_loop_stopping(const struct tn_loop *loop)
{
    return __atomic_load_n(&loop->stop, __ATOMIC_SEQ_CST) != 0;
}

/* What timers and events share: a new fd that is drained into fn. -1 as fd: errno tells. */
static inline int tn_loop_own_(struct tn_loop *loop, struct tn_loop_source *source, int fd,
                               void (*fn)(void *ctx, uint32_t events), void *ctx)
{
    int rc;

    source->fd = fd;
    source->events = EPOLLIN;
    source->fn = fn;
    source->ctx = ctx;
    if (fd < 0)
        return TN_ESYS;
    rc = tn_loop_add(loop, source);
    if (rc < 0) {
        int saved = errno;
        close(fd);
        source->fd = -1;
        errno = saved;
    }
    return rc;
}

static inline void tn_loop_disown_(struct tn_loop *loop, struct tn_loop_source *source)
{
    int saved = errno;

    if (source->fd >= 0) {
        (void)tn_loop_remove(loop, source);
        close(source->fd);
        source->fd = -1;
    }
    errno = saved;
}

static inline void tn_loop_timer_fire_(void *ctx, uint32_t events)
{
    struct tn_loop_timer *t = (struct tn_loop_timer *)ctx;
    uint64_t n = tn_loop_drain_(t->source.fd); /* 0: disarmed after it came due */

    (void)events;
    if (n > 0)
        t->fn(t->ctx, n);
}

TN_API int tn_loop_timer_init(struct tn_loop_timer *t, struct tn_loop *loop,
                              void (*fn)(void *ctx, uint64_t expirations), void *ctx)
{
    t->source.fd = -1;
    t->loop = loop;
    t->fn = fn;
    t->ctx = ctx;
    if (!fn)
        return TN_EINVAL;
    return tn_loop_own_(loop, &t->source,
                        timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK),
                        tn_loop_timer_fire_, t);
}

static inline int tn_loop_settime_(const struct tn_loop_timer *t, uint64_t first, uint64_t period)
{
    struct itimerspec spec;

    spec.it_value.tv_sec = (time_t)(first / 1000000000u);
    spec.it_value.tv_nsec = (long)(first % 1000000000u);
    spec.it_interval.tv_sec = (time_t)(period / 1000000000u);
    spec.it_interval.tv_nsec = (long)(period % 1000000000u);
    return timerfd_settime(t->source.fd, 0, &spec, NULL) < 0 ? TN_ESYS : 0;
}

TN_API int tn_loop_timer_arm(struct tn_loop_timer *t, uint64_t first, uint64_t period)
{
    if (first > 1ull << 62 || period > 1ull << 62)
        return TN_EINVAL;
    return tn_loop_settime_(t, first ? first : 1, period); /* a zero would disarm it */
}

TN_API int tn_loop_timer_disarm(struct tn_loop_timer *t)
{
    return tn_loop_settime_(t, 0, 0);
}

TN_API void tn_loop_timer_close(struct tn_loop_timer *t)
{
    tn_loop_disown_(t->loop, &t->source);
}

static inline void tn_loop_event_fire_(void *ctx, uint32_t events)
{
    struct tn_loop_event *e = (struct tn_loop_event *)ctx;
    uint64_t n = tn_loop_drain_(e->source.fd);

    (void)events;
    if (n > 0)
        e->fn(e->ctx, n);
}

TN_API int tn_loop_event_init(struct tn_loop_event *e, struct tn_loop *loop,
                              void (*fn)(void *ctx, uint64_t count), void *ctx)
{
    e->source.fd = -1;
    e->loop = loop;
    e->fn = fn;
    e->ctx = ctx;
    if (!fn)
        return TN_EINVAL;
    return tn_loop_own_(loop, &e->source, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                        tn_loop_event_fire_, e);
}

TN_API int tn_loop_event_signal(const struct tn_loop_event *e)
{
    return tn_loop_kick_(e->source.fd);
}

TN_API void tn_loop_event_close(struct tn_loop_event *e)
{
    tn_loop_disown_(e->loop, &e->source);
}

#endif /* TN_DECL_ONLY */

#ifdef __cplusplus
}
#endif

#endif /* TN_LOOP_H */
