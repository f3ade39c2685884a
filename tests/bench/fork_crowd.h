/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Many clones that live at once in this process, or in one each. They are of a machine that sleeps
 * until it is sent a byte, and answers with an X (tests/guests/clone.c, "wait"): each is asked
 * once, so that each has run, and then sleeps. The outputs end in one pipe, where the answers are
 * counted.
 *
 * The limit of descriptors is one of a table of them, and threads of a process may have their own:
 * each so many clones are a shard, on a thread with its own table and its own loop. One shard is
 * busy at a time.
 */
#ifndef TENON_FORK_CROWD_H
#define TENON_FORK_CROWD_H

#include "tn_vm_fork.h"

#include "bench.h"
#include "mem_use.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define CROWD_SECONDS 120 /* that all answers may take */
#define CROWD_SAMPLED 20  /* clones whose own pages are counted */

#define CROWD_SHARDS 4
#define CROWD_NEEDS  4    /* descriptors of a clone: VM, vCPU, eventfd, one to spare */
#define CROWD_SHARD  4500 /* clones of a shard, unless fewer descriptors may be had */

struct crowd;

struct crowd_shard {
    struct crowd *crowd;
    struct tn_loop loop;
    pthread_t thread;
    sem_t go;
    void (*work)(struct crowd_shard *s); /* NULL: the end */
    uint32_t first, last;                /* its members */
};

struct crowd {
    struct tn_kvm *kvm;
    const struct tn_vm_image *image;
    const int *console; /* a pipe: its writing end does not block */
    struct tn_vm **member;
    uint32_t count, cap;
    uint32_t answers;
    struct crowd_shard shard[CROWD_SHARDS];
    uint32_t each; /* members of a shard */
    sem_t done;
    uint32_t until;        /* what the shard that is busy is to do */
    uint64_t deadline;     /* ns; 0: none */
    int err, sys_errno;    /* what stopped it from growing */
    uint64_t making;       /* ns, in all */
    uint64_t front, whole; /* ns: until the loop is rid of them; until all is closed */
};

/* As many descriptors as may be had. */
static inline void crowd_limits(void)
{
    struct rlimit r = {1 << 20, 1 << 20};

    if (setrlimit(RLIMIT_NOFILE, &r) < 0 && getrlimit(RLIMIT_NOFILE, &r) == 0) {
        r.rlim_cur = r.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &r);
    }
}

static inline void *crowd_shard_main_(void *arg)
{
    struct crowd_shard *s = (struct crowd_shard *)arg;

    if (unshare(CLONE_FILES) < 0 || tn_loop_init(&s->loop) < 0)
        s->loop.epfd = -1;
    sem_post(&s->crowd->done);
    for (;;) {
        while (sem_wait(&s->go) < 0)
            continue;
        if (!s->work)
            break;
        s->work(s);
        sem_post(&s->crowd->done);
    }
    tn_loop_close(&s->loop);
    return NULL;
}

/* A shard does its work while nobody else is busy. */
static inline void crowd_work_(struct crowd *c, uint32_t shard, void (*work)(struct crowd_shard *s))
{
    c->shard[shard].work = work;
    sem_post(&c->shard[shard].go);
    while (sem_wait(&c->done) < 0)
        continue;
}

static inline bool crowd_init(struct crowd *c, struct tn_kvm *kvm, const struct tn_vm_image *image,
                              const int *console, uint32_t cap)
{
    long most = sysconf(_SC_OPEN_MAX);

    memset(c, 0, sizeof(*c));
    c->kvm = kvm;
    c->image = image;
    c->console = console;
    c->member = (struct tn_vm **)calloc(cap, sizeof(struct tn_vm *));
    c->cap = c->member ? cap : 0;
    c->each =
        most < CROWD_SHARD * CROWD_NEEDS + 200 ? ((uint32_t)most - 200) / CROWD_NEEDS : CROWD_SHARD;
    sem_init(&c->done, 0, 0);
    for (uint32_t i = 0; i < CROWD_SHARDS; i++) {
        struct crowd_shard *s = &c->shard[i];

        s->crowd = c;
        s->first = s->last = i * c->each;
        sem_init(&s->go, 0, 0);
        if (pthread_create(&s->thread, NULL, crowd_shard_main_, s) != 0)
            return false;
        while (sem_wait(&c->done) < 0)
            continue;
        if (s->loop.epfd < 0)
            return false;
    }
    return c->member != NULL;
}

static inline void crowd_grow_(struct crowd_shard *s)
{
    struct crowd *c = s->crowd;

    while (c->err == 0 && c->count < c->until && (!c->deadline || bench_now() < c->deadline)) {
        struct tn_vm *vm = (struct tn_vm *)calloc(1, sizeof(*vm));
        struct tn_vm_clone_cfg cfg;
        int r = TN_ESYS;

        memset(&cfg, 0, sizeof(cfg));
        cfg.console_in = -1;
        cfg.console_out = c->console[1];
        if (vm) {
            r = tn_vm_fork(vm, c->kvm, &s->loop, c->image, &cfg);
            if (r >= 0)
                r = tn_vm_start(vm);
        }
        if (r < 0) {
            c->err = r;
            c->sys_errno = errno;
            if (vm)
                tn_vm_close(vm);
            free(vm);
            return;
        }
        c->member[c->count++] = vm;
        s->last = c->count;
    }
}

/*
 * Adds clones until there are n, or so many seconds are over (0: no limit); false: c->err, unless
 * it is 0, and the errno say why there are fewer.
 */
static inline bool crowd_grow(struct crowd *c, uint32_t n, unsigned seconds)
{
    uint64_t begin = bench_now();

    n = n < c->cap ? n : c->cap;
    c->deadline = seconds ? begin + seconds * 1000000000ull : 0;
    while (c->err == 0 && c->count < n && c->count / c->each < CROWD_SHARDS &&
           (!c->deadline || bench_now() < c->deadline)) {
        uint32_t shard = c->count / c->each, end = (shard + 1) * c->each;

        c->until = n < end ? n : end;
        crowd_work_(c, shard, crowd_grow_);
    }
    c->making += bench_now() - begin;
    return c->count >= n;
}

/* Types a byte to those that have not been asked. */
static inline void crowd_ask_(struct crowd_shard *s)
{
    struct crowd *c = s->crowd;
    uint32_t want = c->answers;
    char bytes[4096];
    int n;

    for (uint32_t i = s->first > c->until ? s->first : c->until; i < s->last; i++) {
        struct tn_vm_x86 *board = &c->member[i]->board;

        pthread_mutex_lock(&board->device_lock);
        want += (uint32_t)tn_uart_push(&board->uart, (const uint8_t *)"a", 1);
        pthread_mutex_unlock(&board->device_lock);
    }
    while (c->answers < want && bench_now() < c->deadline) {
        (void)tn_loop_step(&s->loop, 1);
        while (ioctl(c->console[0], FIONREAD, &n) == 0 && n > 0) {
            ssize_t got = read(c->console[0], bytes, sizeof(bytes));

            for (ssize_t i = 0; i < got; i++)
                c->answers += bytes[i] == 'X';
        }
    }
}

/* Sends each from the first-th on a byte, and counts the answers. True: each has answered. */
static inline bool crowd_ask(struct crowd *c, uint32_t first)
{
    uint32_t want = c->answers + c->count - first;

    c->until = first;
    c->deadline = bench_now() + CROWD_SECONDS * 1000000000ull;
    for (uint32_t i = 0; i < CROWD_SHARDS; i++)
        crowd_work_(c, i, crowd_ask_);
    return c->answers == want;
}

/* Pages that a clone has of its own, on average. */
static inline double crowd_own(const struct crowd *c)
{
    uint32_t n = c->count < CROWD_SAMPLED ? c->count : CROWD_SAMPLED;
    uint64_t *set;
    double pages = 0;

    for (uint32_t i = 0; i < n; i++) {
        const struct tn_hostmem *ram = &c->member[i]->ram;

        set = (uint64_t *)calloc(ram->size / 4096 / 64 + 1, sizeof(*set));
        pages += set ? (double)tn_hostmem_own(ram, set) : 0;
        free(set);
    }
    return n ? pages / n : 0;
}

/* The reaper closes descriptors of its own table: it is the shard's. */
static inline void crowd_close_(struct crowd_shard *s)
{
    static struct tn_vm_reaper reaper;
    struct crowd *c = s->crowd;
    uint64_t begin = bench_now();

    if (tn_vm_reaper_init(&reaper) < 0)
        puts("crowd: no reaper");
    for (uint32_t i = s->first; i < s->last; i++) {
        tn_vm_close_to(c->member[i], &reaper);
        free(c->member[i]);
    }
    c->front += bench_now() - begin;
    tn_vm_reaper_close(&reaper);
    c->whole += bench_now() - begin;
}

/* Closes all, by reapers. */
static inline void crowd_close(struct crowd *c)
{
    for (uint32_t i = 0; i < CROWD_SHARDS; i++) {
        crowd_work_(c, i, crowd_close_);
        c->shard[i].work = NULL;
        sem_post(&c->shard[i].go);
        pthread_join(c->shard[i].thread, NULL);
        sem_destroy(&c->shard[i].go);
    }
    sem_destroy(&c->done);
    free(c->member);
    c->member = NULL;
}

/* ---- a process for each ---- */

/* What a child is: one clone, on two descriptors, until it is killed. */
static inline int crowd_one(struct tn_kvm *kvm, const struct tn_vm_image *image, int in, int out)
{
    static struct tn_loop loop;
    static struct tn_vm vm;
    struct tn_vm_clone_cfg cfg;
    int r = tn_loop_init(&loop);

    memset(&cfg, 0, sizeof(cfg));
    cfg.console_in = in;
    cfg.console_out = out;
    if (r >= 0)
        r = tn_vm_fork(&vm, kvm, &loop, image, &cfg);
    if (r >= 0)
        r = tn_vm_start(&vm);
    while (r >= 0)
        r = tn_loop_step(&loop, -1);
    if (r < 0)
        fprintf(stderr, "fork_crowd: a clone in its process: %d (%s)\n", r, strerror(errno));
    return 1;
}

static inline bool crowd_static(void)
{
    return getauxval(AT_BASE) == 0; /* no dynamic linker was loaded */
}

struct crowd_child {
    pid_t pid;
    int in, out;
};

static inline bool crowd_spawn_(struct crowd_child *child, struct tn_kvm *kvm,
                                const struct tn_vm_image *image)
{
    int in[2], out[2];

    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
        return false;
    fflush(NULL);
    child->pid = fork();
    if (child->pid == 0)
        _exit(crowd_one(kvm, image, in[0], out[1]));
    close(in[0]);
    close(out[1]);
    child->in = in[1];
    child->out = out[0];
    return child->pid > 0;
}

/* Asks a child; whether it has answered. */
static inline bool crowd_ask_child_(const struct crowd_child *child)
{
    struct pollfd p = {child->out, POLLIN, 0};
    char c = 0;

    return write(child->in, "a", 1) == 1 && poll(&p, 1, CROWD_SECONDS * 1000) == 1 &&
           read(child->out, &c, 1) == 1 && c == 'X';
}

/* n processes with a clone each: KiB of Pss that each has on average, or -1. */
static inline double crowd_processes(struct tn_kvm *kvm, const struct tn_vm_image *image,
                                     uint32_t n, double *available)
{
    struct crowd_child *child = (struct crowd_child *)calloc(n, sizeof(*child));
    struct mem_use before, after;
    uint32_t made = 0, bad = 0;
    double pss = 0;
    char path[64];

    if (!child)
        return -1;
    signal(SIGPIPE, SIG_IGN);
    mem_use_settle();
    mem_use_read(&before);
    while (made < n && crowd_spawn_(&child[made], kvm, image))
        made++;
    for (uint32_t i = 0; i < made; i++)
        bad += !crowd_ask_child_(&child[i]);
    for (uint32_t i = 0; i < made; i++) {
        int64_t one;

        snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)child[i].pid);
        one = mem_use_line_(path, "Pss:");
        bad += one < 0;
        pss += (double)one;
    }
    mem_use_read(&after);
    *available = mem_use_available(&before, &after, made);
    for (uint32_t i = 0; i < made; i++) {
        close(child[i].in);
        close(child[i].out);
        kill(child[i].pid, SIGKILL);
    }
    for (uint32_t i = 0; i < made; i++)
        (void)waitpid(child[i].pid, NULL, 0);
    free(child);
    if (made < n || bad > 0)
        printf("  %u of %u processes were made, %u did not answer\n", made, n, bad);
    return made == n && bad == 0 ? pss / n : -1;
}

#endif
