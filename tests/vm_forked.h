/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the tests of tn_vm_fork share: a machine, its image, and clones of it, each with a console.
 * Includes the header, whose threads take their locks late now and then, so that what another
 * thread does between a look at something and the lock that should have come before it is seen to
 * happen.
 */
#ifndef TENON_VM_FORKED_H
#define TENON_VM_FORKED_H

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

#define KIDS 4

static struct tn_loop loop;
static struct con con, kid_con[KIDS];
static struct tn_vm vm, kid[KIDS];
static struct tn_vm_image image, second;

static inline int open_up(void **state)
{
    (void)state;
    alarm(300);
    memset(&vm, 0, sizeof(vm));
    memset(kid, 0, sizeof(kid));
    con_open(&con);
    for (int i = 0; i < KIDS; i++)
        con_open(&kid_con[i]);
    return tn_loop_init(&loop);
}

static inline int shut(void **state)
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
    remove_dir(name_of("d"));
    alarm(0);
    return count_fds() == (int)fds_before ? 0 : -1;
}

static inline void ready(const char *words, uint32_t cpus)
{
    boot(&vm, &loop, &con, words, cpus, false);
    hear(&vm, &loop, &con, 0, "ready\n");
}

static inline void take(struct tn_vm_image *to, struct tn_vm *from)
{
    assert_int_equal(tn_vm_pause(from), 0);
    assert_int_equal(tn_vm_image_take(to, from, dir), 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, open_up, shut)

#endif
