/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the tests of a device's glue share, which have it without a machine: an event loop whose
 * turns are counted, guest memory, and a driver that reaches the model as a transport would, with
 * the lock of the device's place held.
 */
#ifndef TENON_VM_ALONE_H
#define TENON_VM_ALONE_H

#include "tn_vm_virtio.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>

#include "clock.h"
#include "temp_dir.h"
#include "unix_socket.h"
#include "virtio_driver.h"

#ifndef HANG
#define HANG 60.0 /* seconds without any progress: it has come to a halt */
#endif

struct alone {
    struct tn_loop loop;
    struct tn_mem_region region[4];
    struct tn_mem mem;
    int fds; /* open now */
};

static inline void alone_open(struct alone *a)
{
    memset(a, 0, sizeof(*a));
    alarm(240);
    tn_mem_init(&a->mem, a->region, COUNT(a->region));
    assert_int_equal(tn_loop_init(&a->loop), 0);
    a->fds = open_fds();
}

/* All that was opened meanwhile is closed again. */
static inline void alone_close(struct alone *a)
{
    assert_int_equal(open_fds(), a->fds);
    assert_int_equal(tn_loop_step(&a->loop, 0), 0);
    tn_loop_close(&a->loop);
    alarm(0);
}

/* RAM of that size at gpa, whose every byte is fill; the caller frees it. */
static inline uint8_t *alone_ram(struct alone *a, uint64_t gpa, size_t size, int fill)
{
    uint8_t *ram = aligned_alloc(4096, size);

    assert_non_null(ram);
    memset(ram, fill, size);
    assert_int_equal(tn_mem_add(&a->mem, gpa, ram, size), 0);
    return ram;
}

/* What a driver may make its rings of. */
static const uint64_t rings[] = {TN_VIRTIO_F_EVENT_IDX | TN_VIRTIO_F_INDIRECT_DESC,
                                 TN_VIRTIO_F_RING};

/* A transport that counts the changes of the configuration that the driver is told of. */
static inline void count_changes(void *count, uint32_t queue)
{
    *(unsigned *)count += queue == TN_VIRTIO_CONFIG;
}

/* For a setup and a teardown: each case has a directory, and leaves no file and no descriptor. */
static inline int alone_setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_DFL); /* nothing raises it */
    return temp_make();
}

static inline int alone_teardown(void **state)
{
    (void)state;
    return temp_remove();
}

/* ---- the loop ---- */

/* Serves the loop for so many milliseconds; returns how much it had to call. */
static inline unsigned turns(struct tn_loop *loop, int ms)
{
    double end = seconds(CLOCK_MONOTONIC) + ms / 1e3;
    unsigned called = 0;

    do {
        int left = (int)((end - seconds(CLOCK_MONOTONIC)) * 1e3);
        int n = tn_loop_step(loop, left > 0 ? left : 0);

        assert_true(n >= 0);
        called += (unsigned)n;
    } while (seconds(CLOCK_MONOTONIC) < end);
    return called;
}

/* Serves the loop until it has nothing to do; that comes soon. */
static inline void settle(struct tn_loop *loop)
{
    unsigned called = 0;
    int n;

    do {
        n = tn_loop_step(loop, 0);
        assert_true(n >= 0);
        called += (unsigned)n;
        if (called > 5000)
            fail_msg("the loop is never at rest");
    } while (n > 0);
}

/* It has little to do now, and nothing from then on. */
static inline void at_rest(struct tn_loop *loop)
{
    settle(loop);
    assert_in_range(turns(loop, 50), 0, 2);
}

/* For a thread: a loop until it is stopped. */
static inline void *loop_main(void *loop)
{
    return (void *)(intptr_t)tn_loop_run((struct tn_loop *)loop);
}

/* Serves the loop until cond, which is asked once a turn. */
#define UNTIL(loop, cond)                              \
    do {                                               \
        double end_ = seconds(CLOCK_MONOTONIC) + HANG; \
                                                       \
        while (!(cond)) {                              \
            assert_true(tn_loop_step((loop), 5) >= 0); \
            if (seconds(CLOCK_MONOTONIC) > end_)       \
                fail_msg("it never comes: %s", #cond); \
        }                                              \
    } while (0)

/* ---- the driver ---- */

static inline void alone_up(pthread_mutex_t *lock, struct vd *d, uint64_t want, uint32_t queues,
                            uint16_t size)
{
    bool up;

    pthread_mutex_lock(lock);
    up = vd_up(d, want, queues, size);
    pthread_mutex_unlock(lock);
    assert_true(up);
}

static inline void alone_reset(pthread_mutex_t *lock, struct vd *d)
{
    pthread_mutex_lock(lock);
    vd_reset(d);
    pthread_mutex_unlock(lock);
}

static inline void alone_kick(pthread_mutex_t *lock, struct vd *d, uint32_t queue)
{
    pthread_mutex_lock(lock);
    vd_kick(d, queue);
    pthread_mutex_unlock(lock);
}

/* So many descriptors may be open beyond those that are; undone by limit_fds(-1). */
static inline void limit_fds(int more)
{
    static struct rlimit all;
    struct rlimit few;
    int first;

    if (more < 0) {
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &all), 0);
        return;
    }
    first = dup(0);
    close(first);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &all), 0);
    few = all;
    few.rlim_cur = (rlim_t)(first + more);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
}

#define ALONE(name) cmocka_unit_test_setup_teardown(name, alone_setup, alone_teardown)

#endif
