/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The same three as fork_floor.h has, by tenon's own functions. The clock starts before tn_vm_fork
 * (tn_vm_adopt, tn_vm_reset) and stops when this thread has read the first byte of the clone's
 * serial console from a pipe: a thread of the clone's runs the vCPU and writes there, so waking
 * both threads is in it. The read blocks, which is the leanest way to wait: no loop, no poll.
 *
 *   cold    tn_vm_fork, tn_vm_start
 *   pool    tn_vm_prepare, off the clock; tn_vm_adopt, tn_vm_start
 *   reset   tn_vm_pause, off the clock; tn_vm_reset, tn_vm_start
 *
 * Clones are closed off the clock, and before the sample returns; how long that takes is in
 * fork_teardown.
 */
#ifndef TENON_FORK_TENON_H
#define TENON_FORK_TENON_H

#include "tn_vm_fork.h"

#include "bench.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <sys/time.h>

#define FORK_STOP    0x3ff000 /* see tests/guests/fork.c */
#define FORK_POOL    8
#define FORK_SECONDS 5 /* that a clone has to its first byte */

struct fork_way {
    struct tn_kvm *kvm;
    struct tn_loop *loop;
    const struct tn_vm_image *image;
    const int *console; /* a pipe: its reading end blocks */
    uint32_t run;       /* reset: bytes that the clone goes on for, dirtying pages */
    struct tn_vm clone;
    struct tn_vm pool[FORK_POOL];
    uint32_t ready;
};

static struct bench_series fork_teardown = BENCH("tenon: teardown, off the clock", NULL, NULL);

static inline void fork_on_alarm_(int signal)
{
    (void)signal; /* to interrupt a read is all */
}

/* A clone that says nothing is a failure, not a benchmark that hangs. */
static inline void fork_alarm_(bool on)
{
    struct itimerval t = {{0, 0}, {on ? FORK_SECONDS : 0, 0}};
    struct sigaction a;

    memset(&a, 0, sizeof(a));
    a.sa_handler = fork_on_alarm_;
    sigaction(SIGALRM, &a, NULL);
    setitimer(ITIMER_REAL, &t, NULL);
}

static inline bool fork_read_(const struct fork_way *w, uint32_t n)
{
    char c;

    while (n > 0 && read(w->console[0], &c, 1) == 1)
        n--;
    return n == 0;
}

/* What is in the pipe still. */
static inline void fork_drain_(const struct fork_way *w)
{
    char bytes[4096];
    int n = 0;

    while (ioctl(w->console[0], FIONREAD, &n) == 0 && n > 0 &&
           read(w->console[0], bytes, sizeof(bytes)) > 0)
        ;
}

static inline void fork_close_(const struct fork_way *w, struct tn_vm *vm)
{
    uint64_t begin = bench_now();

    tn_vm_close(vm);
    bench_add(&fork_teardown, (int64_t)(bench_now() - begin));
    fork_drain_(w);
}

static inline int64_t fork_failed_(const char *what, int r)
{
    fprintf(stderr, "fork_tenon: %s: %d (%s)\n", what, r, strerror(errno));
    return -1;
}

static inline void fork_cfg_(const struct fork_way *w, struct tn_vm_clone_cfg *cfg)
{
    memset(cfg, 0, sizeof(*cfg));
    cfg->console_in = -1;
    cfg->console_out = w->console[1];
}

static inline int64_t fork_cold(void *ctx)
{
    struct fork_way *w = (struct fork_way *)ctx;
    struct tn_vm_clone_cfg cfg;
    uint64_t begin;
    int64_t took;
    bool said;
    int r;

    fork_cfg_(w, &cfg);
    fork_alarm_(true);
    begin = bench_now();
    r = tn_vm_fork(&w->clone, w->kvm, w->loop, w->image, &cfg);
    if (r >= 0)
        r = tn_vm_start(&w->clone);
    said = r >= 0 && fork_read_(w, 1);
    took = (int64_t)(bench_now() - begin);
    fork_alarm_(false);
    fork_close_(w, &w->clone);
    return said ? took : fork_failed_("cold", r);
}

/* Off the clock: a pool that is full again. */
static inline int fork_fill_(struct fork_way *w)
{
    int r = TN_OK;

    while (r >= 0 && w->ready < FORK_POOL) {
        r = tn_vm_prepare(&w->pool[w->ready], w->kvm, w->loop, w->image);
        w->ready += r >= 0;
    }
    return r;
}

static inline int64_t fork_pool(void *ctx)
{
    struct fork_way *w = (struct fork_way *)ctx;
    int r = w->ready == 0 ? fork_fill_(w) : TN_OK;
    struct tn_vm_clone_cfg cfg;
    struct tn_vm *vm;
    uint64_t begin;
    int64_t took;
    bool said;

    if (r < 0)
        return fork_failed_("pool", r);
    vm = &w->pool[--w->ready];
    fork_cfg_(w, &cfg);
    fork_alarm_(true);
    begin = bench_now();
    r = tn_vm_adopt(vm, &cfg);
    if (r >= 0)
        r = tn_vm_start(vm);
    said = r >= 0 && fork_read_(w, 1);
    took = (int64_t)(bench_now() - begin);
    fork_alarm_(false);
    fork_close_(w, vm);
    return said ? took : fork_failed_("pool", r);
}

/*
 * Off the clock: a clone that sleeps after its first byte wakes, writes its pages, says the next,
 * and sleeps again. It must sleep as soon as the clock's byte is out: as long as its thread has
 * work, this one might have to wait for the CPU that has woken it.
 */
static inline int fork_go_on_(struct fork_way *w)
{
    static const uint64_t later = 2;
    int r = tn_vm_pause(&w->clone);

    if (r >= 0)
        r = tn_mem_write(&w->clone.mem, FORK_STOP, &later, sizeof(later));
    if (r >= 0)
        r = tn_kvm_set_mp_state(&w->clone.cpu[0].vcpu, KVM_MP_STATE_RUNNABLE);
    if (r >= 0)
        r = tn_vm_resume(&w->clone);
    return r >= 0 && !fork_read_(w, w->run) ? TN_ESTATE : r;
}

static inline int64_t fork_reset(void *ctx)
{
    struct fork_way *w = (struct fork_way *)ctx;
    struct tn_vm_clone_cfg cfg;
    uint64_t begin;
    int64_t took;
    bool said;
    int r;

    fork_cfg_(w, &cfg);
    fork_alarm_(true);
    if (w->clone.open)
        r = TN_OK;
    else
        r = tn_vm_fork(&w->clone, w->kvm, w->loop, w->image, &cfg);
    if (r >= 0 && tn_vm_state_read(&w->clone) == TN_VM_CREATED) {
        r = tn_vm_start(&w->clone);
        if (r >= 0 && !fork_read_(w, 1))
            r = TN_ESTATE;
    }
    if (r >= 0 && w->run > 0)
        r = fork_go_on_(w);
    if (r >= 0)
        r = tn_vm_pause(&w->clone);
    fork_drain_(w);
    begin = bench_now();
    if (r >= 0)
        r = tn_vm_reset(&w->clone);
    if (r >= 0)
        r = tn_vm_start(&w->clone);
    said = r >= 0 && fork_read_(w, 1);
    took = (int64_t)(bench_now() - begin);
    fork_alarm_(false);
    if (said && r >= 0)
        return took;
    tn_vm_close(&w->clone);
    fork_drain_(w);
    return fork_failed_("reset", r);
}

/* Takes down what a way still holds. */
static inline void fork_way_end(struct fork_way *w)
{
    while (w->ready > 0)
        tn_vm_close(&w->pool[--w->ready]);
    tn_vm_close(&w->clone);
    fork_drain_(w);
}

#endif
