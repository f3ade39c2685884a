/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Many clones that live at once in this process, or in one each. They are of a machine that sleeps
 * until it is sent a byte, and answers with an X (tests/guests/clone.c, "wait"): each is asked
 * once, so that each has run, and then sleeps. Each has an input of its own; the outputs end in one
 * pipe, where the answers are counted.
 */
#ifndef TENON_FORK_CROWD_H
#define TENON_FORK_CROWD_H

#include "tn_vm_fork.h"

#include "bench.h"
#include "mem_use.h"

#include <poll.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define CROWD_SECONDS 120 /* that all answers may take */
#define CROWD_SAMPLED 20  /* clones whose own pages are counted */

struct crowd_member {
    struct tn_vm vm;
    int in[2];
};

struct crowd {
    struct tn_kvm *kvm;
    struct tn_loop *loop;
    const struct tn_vm_image *image;
    const int *console; /* a pipe: its writing end does not block */
    struct crowd_member **member;
    uint32_t count, cap;
    uint32_t answers;
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

static inline bool crowd_init(struct crowd *c, struct tn_kvm *kvm, struct tn_loop *loop,
                              const struct tn_vm_image *image, const int *console, uint32_t cap)
{
    memset(c, 0, sizeof(*c));
    c->kvm = kvm;
    c->loop = loop;
    c->image = image;
    c->console = console;
    c->member = (struct crowd_member **)calloc(cap, sizeof(struct crowd_member *));
    c->cap = c->member ? cap : 0;
    return c->member != NULL;
}

/*
 * Adds clones until there are n, or so many seconds are over (0: no limit); false: c->err, unless
 * it is 0, and the errno say why there are fewer.
 */
static inline bool crowd_grow(struct crowd *c, uint32_t n, unsigned seconds)
{
    uint64_t begin = bench_now();

    while (c->err == 0 && c->count < n && c->count < c->cap &&
           (seconds == 0 || bench_now() - begin < seconds * 1000000000ull)) {
        struct crowd_member *m = (struct crowd_member *)calloc(1, sizeof(*m));
        struct tn_vm_clone_cfg cfg;
        int r = m && pipe2(m->in, O_CLOEXEC | O_NONBLOCK) == 0 ? TN_OK : TN_ESYS;

        memset(&cfg, 0, sizeof(cfg));
        if (r >= 0) {
            cfg.console_in = m->in[0];
            cfg.console_out = c->console[1];
            r = tn_vm_fork(&m->vm, c->kvm, c->loop, c->image, &cfg);
            if (r >= 0)
                r = tn_vm_start(&m->vm);
            if (r < 0) {
                c->sys_errno = errno;
                tn_vm_close(&m->vm);
                close(m->in[0]);
                close(m->in[1]);
            }
        } else {
            c->sys_errno = errno;
        }
        if (r < 0) {
            c->err = r;
            free(m);
            break;
        }
        c->member[c->count++] = m;
    }
    c->making += bench_now() - begin;
    return c->count >= n;
}

/* Sends each from the first-th on a byte, and counts the answers. True: each has answered. */
static inline bool crowd_ask(struct crowd *c, uint32_t first)
{
    uint64_t begin = bench_now();
    char bytes[4096];
    uint32_t want = c->answers;
    int n;

    for (uint32_t i = first; i < c->count; i++)
        want += write(c->member[i]->in[1], "a", 1) == 1;
    if (want != c->answers + c->count - first)
        return false;
    while (c->answers < want && bench_now() - begin < CROWD_SECONDS * 1000000000ull) {
        (void)tn_loop_step(c->loop, 1);
        while (ioctl(c->console[0], FIONREAD, &n) == 0 && n > 0) {
            ssize_t got = read(c->console[0], bytes, sizeof(bytes));

            for (ssize_t i = 0; i < got; i++)
                c->answers += bytes[i] == 'X';
        }
    }
    return c->answers == want;
}

/* Pages that a clone has of its own, on average. */
static inline double crowd_own(const struct crowd *c)
{
    uint32_t n = c->count < CROWD_SAMPLED ? c->count : CROWD_SAMPLED;
    uint64_t *set;
    double pages = 0;

    for (uint32_t i = 0; i < n; i++) {
        const struct tn_hostmem *ram = &c->member[i]->vm.ram;

        set = (uint64_t *)calloc(ram->size / 4096 / 64 + 1, sizeof(*set));
        pages += set ? (double)tn_hostmem_own(ram, set) : 0;
        free(set);
    }
    return n ? pages / n : 0;
}

/* Closes all, by a reaper. */
static inline void crowd_close(struct crowd *c)
{
    static struct tn_vm_reaper reaper;
    uint64_t begin = bench_now();

    if (tn_vm_reaper_init(&reaper) < 0)
        puts("crowd: no reaper");
    for (uint32_t i = 0; i < c->count; i++) {
        tn_vm_close_to(&c->member[i]->vm, &reaper);
        close(c->member[i]->in[0]);
        close(c->member[i]->in[1]);
        free(c->member[i]);
    }
    c->front = bench_now() - begin;
    tn_vm_reaper_close(&reaper);
    c->whole = bench_now() - begin;
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
