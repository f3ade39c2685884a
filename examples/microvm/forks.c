/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * --forks: many clones of one snapshot on one loop. What is typed goes to all of them; what they
 * say is shown line by line, or goes where each has a console of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "microvm.h"
#include "tn_strerror.h"

#define LOOK_NS 5000000u /* between two looks at who has ended */
#define REASONS (TN_VM_ERROR + 1)

struct clone {
    struct forks *forks;
    struct tn_vm vm;
    uint32_t k;
    bool live;                  /* it was started, and is not closed yet */
    uint64_t begin;             /* when its fork began */
    uint64_t first;             /* atomic: ns from then to its first output; 0: none yet */
    struct clone *next;         /* in the list of those who have just spoken */
    struct pump pump[2];        /* serial, hvc0; with the console on stdio */
    struct tn_loop_source keys; /* a pipe's end to write; fd -1: it has no such input */
    size_t taken;               /* of what was typed */
    bool lags;                  /* it has not taken all */
    int in, out, out_too;       /* of its consoles */
};

struct forks {
    struct microvm *m;
    struct clone *clone;
    uint32_t made; /* clones that were tried */
    uint32_t live;
    char *overlays;
    struct tn_vm_reaper reaper;
    struct tn_loop_event said;
    struct clone *spoken; /* atomic: a list of clones whose first output is to be told */
    struct tn_loop_timer look;
    bool looking; /* the timer is armed */
    bool due;     /* it is time to look */

    struct tn_loop_source keys; /* what is typed; fd -1: nothing more is */
    bool polled;                /* false for a regular file: always ready */
    uint8_t typed[4096];
    size_t len;       /* bytes that not all have taken yet; 0: none */
    uint32_t lagging; /* clones that have not */

    uint32_t ended[REASONS]; /* how many, by enum tn_vm_reason */
    int code;                /* the worst so far */
};

/* ---- the first output ---- */

/* On a vCPU's thread, or the loop's. */
static void said(void *ctx)
{
    struct clone *c = ctx;
    struct forks *f = c->forks;
    uint64_t none = 0;

    if (__atomic_load_n(&c->first, __ATOMIC_RELAXED) ||
        !__atomic_compare_exchange_n(&c->first, &none, now_ns() - c->begin, false, __ATOMIC_RELAXED,
                                     __ATOMIC_RELAXED))
        return;
    c->next = __atomic_load_n(&f->spoken, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&f->spoken, &c->next, c, false, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED))
        continue;
    (void)tn_loop_event_signal(&f->said);
}

static void on_said(void *ctx, uint64_t count)
{
    struct forks *f = ctx;
    struct clone *c = __atomic_exchange_n(&f->spoken, NULL, __ATOMIC_ACQUIRE), *list = NULL;

    (void)count;
    while (c) { /* the last one is the first */
        struct clone *next = c->next;

        c->next = list;
        list = c;
        c = next;
    }
    for (; list; list = list->next)
        fprintf(stderr, "microvm: clone %" PRIu32 ": first output after %" PRIu64 " us\n", list->k,
                (__atomic_load_n(&list->first, __ATOMIC_RELAXED) + 500) / 1000);
}

static void on_shown(void *ctx, const uint8_t *bytes, size_t len)
{
    (void)bytes;
    (void)len;
    said(ctx); /* what was under way at the save came before anybody listened */
}

/* The consoles tell us what they get. The machine has not been started. */
static void listen_to(struct tn_vm_console *console, struct clone *c)
{
    console->said = said;
    console->said_ctx = c;
}

/* ---- what is typed ---- */

/* No more input for this clone. */
static void close_keys(struct clone *c)
{
    struct forks *f = c->forks;

    if (c->lags)
        f->lagging--;
    c->lags = false;
    if (c->keys.fd < 0)
        return;
    (void)tn_loop_remove(&f->m->loop, &c->keys);
    close(c->keys.fd);
    c->keys.fd = -1;
}

/* When all have what was typed, the next is read. */
static void next_keys(struct forks *f)
{
    if (f->lagging > 0)
        return;
    f->len = 0;
    if (f->keys.fd >= 0 && f->polled)
        (void)tn_loop_mod(&f->m->loop, &f->keys, EPOLLIN);
}

static void give_keys(struct clone *c)
{
    struct forks *f = c->forks;
    ssize_t n = write(c->keys.fd, f->typed + c->taken, f->len - c->taken);
    bool lags;

    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        close_keys(c);
        return;
    }
    c->taken += n > 0 ? (size_t)n : 0;
    lags = c->taken < f->len;
    if (lags != c->lags) {
        (void)tn_loop_mod(&f->m->loop, &c->keys, lags ? EPOLLOUT : 0);
        f->lagging = lags ? f->lagging + 1 : f->lagging - 1;
        c->lags = lags;
    }
}

static void on_room(void *ctx, uint32_t events)
{
    struct clone *c = ctx;

    (void)events;
    give_keys(c);
    next_keys(c->forks);
}

/* Reads what is typed, and gives it to all; the slowest sets the pace. */
static void on_keys(void *ctx, uint32_t events)
{
    struct forks *f = ctx;
    ssize_t n = f->lagging ? -1 : read(f->keys.fd, f->typed, sizeof(f->typed));
    bool over = n == 0 || (n < 0 && !f->lagging && errno != EAGAIN && errno != EINTR);

    (void)events;
    if (n > 0) {
        f->len = (size_t)n;
        if (f->polled)
            (void)tn_loop_mod(&f->m->loop, &f->keys, 0);
    }
    for (uint32_t k = 0; (n > 0 || over) && k < f->made; k++) {
        struct clone *c = &f->clone[k];

        c->taken = 0;
        if (over)
            close_keys(c);
        else if (c->keys.fd >= 0)
            give_keys(c);
    }
    if (over) {
        if (f->polled)
            (void)tn_loop_remove(&f->m->loop, &f->keys);
        f->keys.fd = -1;
    }
    if (n > 0)
        next_keys(f);
}

static int open_keys(struct forks *f)
{
    int r;

    f->keys.fd = f->m->term.in;
    f->keys.events = EPOLLIN;
    f->keys.fn = on_keys;
    f->keys.ctx = f;
    if (f->keys.fd < 0)
        return TN_OK;
    r = tn_loop_add(&f->m->loop, &f->keys);
    f->polled = r >= 0;
    if (r >= 0 || errno == EPERM)
        return TN_OK;
    f->keys.fd = -1;
    return r;
}

/* ---- a clone ---- */

/* A pipe for what is typed, and pumps for what is said. */
static int open_stdio(struct clone *c)
{
    struct microvm *m = c->forks->m;
    uint32_t flags = m->image.state.machine.flags;
    int fds[2], r = TN_OK;

    if (m->term.in >= 0) {
        if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
            return TN_ESYS;
        c->in = fds[0];
        c->keys.fd = fds[1];
        c->keys.fn = on_room;
        c->keys.ctx = c;
        r = tn_loop_add(&m->loop, &c->keys);
    }
    if (r >= 0 && flags & TN_VM_MACHINE_CONSOLE)
        r = pump_open(&c->pump[0], &m->outlet, (int)c->k);
    if (r >= 0 && flags & TN_VM_MACHINE_VIRTIO_CONSOLE)
        r = pump_open(&c->pump[1], &m->outlet, (int)c->k);
    for (uint32_t i = 0; i < 2; i++) {
        c->pump[i].seen = on_shown;
        c->pump[i].ctx = c;
    }
    c->out = c->pump[0].in;
    c->out_too = c->pump[1].in;
    return r;
}

/* The descriptors of its consoles. */
static int open_console(struct clone *c)
{
    const struct args *args = &c->forks->m->args;
    int code = -1;

    if (args->console == CONSOLE_STDIO && open_stdio(c) < 0) {
        fprintf(stderr, "microvm: clone %" PRIu32 ": console: %s%s\n", c->k, strerror(errno),
                errno == EMFILE ? ": see ulimit -n" : "");
        return EXIT_HOST;
    }
    if (args->console != CONSOLE_STDIO) {
        code = term_open_clone(args, c->k, &c->in, &c->out);
        if (code < 0 && c->out >= 0)
            c->out_too = fcntl(c->out, F_DUPFD_CLOEXEC, 3);
    }
    return code;
}

/* Closes a clone that has ended, or was never started. What it said goes out first. */
static void close_clone(struct clone *c)
{
    bool stdio = c->forks->m->args.console == CONSOLE_STDIO;

    for (uint32_t i = 0; i < 2; i++)
        pump_drain(&c->pump[i]);
    tn_vm_close_to(&c->vm, &c->forks->reaper);
    close_keys(c);
    for (uint32_t i = 0; i < 2; i++) {
        pump_drain(&c->pump[i]);
        pump_close(&c->pump[i]);
    }
    if (c->in >= 0)
        close(c->in);
    if (!stdio && c->out >= 0)
        close(c->out);
    if (!stdio && c->out_too >= 0)
        close(c->out_too);
    c->in = c->out = c->out_too = -1;
}

/* Makes the next clone, and starts it. */
static int make_clone(struct forks *f)
{
    struct microvm *m = f->m;
    struct clone *c = &f->clone[f->made];
    struct tn_vm_clone_cfg cfg;
    bool hvc = m->image.state.machine.flags & TN_VM_MACHINE_VIRTIO_CONSOLE;
    int code;

    c->forks = f;
    c->k = f->made++;
    c->in = c->out = c->out_too = c->keys.fd = -1;
    for (uint32_t i = 0; i < 2; i++) {
        c->pump[i].to = &m->outlet;
        c->pump[i].in = c->pump[i].source.fd = -1;
    }
    code = open_console(c);
    memset(&cfg, 0, sizeof(cfg));
    cfg.console_in = hvc ? -1 : c->in;
    cfg.console_out = c->out;
    cfg.virtio_in = c->in;
    cfg.virtio_out = c->out_too;
    term_size(&m->term, &cfg.cols, &cfg.rows);
    c->begin = now_ns();
    if (code < 0)
        code = clone_make(m, &c->vm, c->k, &cfg, f->overlays);
    if (code < 0) {
        listen_to(&c->vm.board.console, c);
        if (c->vm.devices.hvc)
            listen_to(&c->vm.devices.hvc->console, c);
        if (tn_vm_start(&c->vm) < 0) {
            fprintf(stderr, "microvm: clone %" PRIu32 ": a vCPU's thread: %s\n", c->k,
                    strerror(errno));
            code = EXIT_HOST;
        }
    }
    c->live = code < 0;
    f->live += c->live;
    if (!c->live)
        close_clone(c);
    return code;
}

/* The worse of two exit codes. */
static int worse(int a, int b)
{
    static const int order[] = {EXIT_GUEST_OFF,   EXIT_KILLED, EXIT_GUEST_PANIC,
                                EXIT_GUEST_CRASH, EXIT_INPUT,  EXIT_HOST};
    size_t i = sizeof(order) / sizeof(order[0]);

    while (i-- > 0) {
        if (order[i] == a || order[i] == b)
            return order[i];
    }
    return a;
}

/* What the end of a clone means. */
static void end_clone(struct clone *c)
{
    struct forks *f = c->forks;
    int code = say_end(&c->vm, (int)c->k, f->m->stopping);
    int error = output_error(&c->vm);

    f->code = worse(f->code, code == EXIT_GUEST_RESET ? EXIT_GUEST_OFF : code);
    if (c->vm.end.reason < REASONS)
        f->ended[c->vm.end.reason]++;
    close_clone(c);
    c->live = false;
    f->live--;
    next_keys(f);
    if (error)
        fprintf(stderr, "microvm: clone %" PRIu32 ": console: output was lost: %s\n", c->k,
                strerror(error));
    if (c->vm.devices.lost)
        fprintf(stderr, "microvm: clone %" PRIu32 ": the last writes to a disk are lost: %s\n",
                c->k, tn_strerror(c->vm.devices.lost));
    if (error || c->vm.devices.lost)
        f->code = worse(f->code, error ? EXIT_INPUT : EXIT_HOST);
}

/* ---- all of them ---- */

bool forks_ask(struct forks *f, bool keys)
{
    bool asked = false;

    for (uint32_t k = 0; k < f->made; k++) {
        if (!f->clone[k].live)
            continue;
        if (ask(&f->clone[k].vm, keys) >= 0)
            asked = true;
        else
            (void)tn_vm_kill(&f->clone[k].vm);
    }
    return asked;
}

void forks_kill(struct forks *f)
{
    for (uint32_t k = 0; k < f->made; k++) {
        if (f->clone[k].live)
            (void)tn_vm_kill(&f->clone[k].vm);
    }
}

void forks_resize(struct forks *f, uint16_t cols, uint16_t rows)
{
    for (uint32_t k = 0; k < f->made; k++) {
        if (f->clone[k].live)
            tn_vm_resize(&f->clone[k].vm, cols, rows);
    }
}

static void on_look(void *ctx, uint64_t expirations)
{
    struct forks *f = ctx;

    (void)expirations;
    f->due = true;
}

/* One turn of the loop. Who has ended is looked for soon after something has happened. */
static int turn(struct forks *f, int timeout_ms)
{
    int r = tn_loop_step(&f->m->loop, timeout_ms);

    if (f->due) {
        f->due = f->looking = false;
        for (uint32_t k = 0; k < f->made; k++) {
            if (outlet_full(&f->m->outlet) && !f->m->leaving)
                break; /* what they said last waits for room */
            if (f->clone[k].live && tn_vm_wait(&f->clone[k].vm, 0) > 0)
                end_clone(&f->clone[k]);
        }
    } else if (r >= 0 && !f->looking) { /* 0: a machine that has ended woke the loop */
        f->looking = tn_loop_timer_arm(&f->look, LOOK_NS, 0) >= 0;
    }
    return r;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static uint64_t percentile(const uint64_t *sorted, uint32_t n, uint32_t p)
{
    return (sorted[((uint64_t)n * p + 99) / 100 - 1] + 500) / 1000;
}

/* How it went, in one line. */
static void say_summary(const struct forks *f)
{
    static const char *const how[REASONS] = {"",        "powered off",        "reset", "panicked",
                                             "crashed", "ended from outside", "failed"};
    uint64_t *first = calloc(f->made + 1u, sizeof(*first));
    uint32_t n = 0;

    for (uint32_t k = 0; first && k < f->made; k++) {
        if (f->clone[k].first)
            first[n++] = f->clone[k].first;
    }
    fprintf(stderr, "microvm: %" PRIu32 " clones", f->made);
    if (n > 0) {
        qsort(first, n, sizeof(*first), by_size);
        fprintf(stderr,
                ", first output of %" PRIu32 ": p50 %" PRIu64 " us, p90 %" PRIu64
                " us, p99 %" PRIu64 " us",
                n, percentile(first, n, 50), percentile(first, n, 90), percentile(first, n, 99));
    }
    for (uint32_t i = 1; i < REASONS; i++) {
        if (f->ended[i])
            fprintf(stderr, ", %" PRIu32 " %s", f->ended[i], how[i]);
    }
    fputc('\n', stderr);
    free(first);
}

/* As many descriptors as it may take, or as many as there may be. */
static void raise_limit(const struct microvm *m)
{
    const struct tn_vm_state *s = &m->image.state;
    struct rlimit limit;
    rlim_t want = 256 + (rlim_t)m->args.forks * (24 + s->machine.cpus + 16 * (rlim_t)s->disks);

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= want)
        return;
    limit.rlim_cur = want;
    if (limit.rlim_max < want) {
        struct rlimit more = {want, want};

        if (setrlimit(RLIMIT_NOFILE, &more) == 0) /* only root may */
            return;
        limit.rlim_cur = limit.rlim_max;
    }
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static int open_forks(struct forks *f)
{
    struct microvm *m = f->m;
    int r;

    f->look.source.fd = f->said.source.fd = f->keys.fd = -1;
    f->clone = calloc(m->args.forks, sizeof(*f->clone));
    if (!f->clone)
        return TN_ESYS;
    r = tn_loop_event_init(&f->said, &m->loop, on_said, f);
    if (r >= 0)
        r = tn_vm_reaper_init(&f->reaper);
    if (r >= 0)
        r = tn_loop_timer_init(&f->look, &m->loop, on_look, f);
    if (r >= 0 && m->term.out >= 0)
        r = outlet_open(&m->outlet, &m->loop, m->term.out);
    return r;
}

static void close_forks(struct forks *f)
{
    tn_vm_reaper_close(&f->reaper);
    tn_loop_event_close(&f->said);
    tn_loop_timer_close(&f->look);
    if (f->keys.fd >= 0 && f->polled)
        (void)tn_loop_remove(&f->m->loop, &f->keys);
    outlet_close(&f->m->outlet);
    free(f->clone);
}

int forks_run(struct microvm *m)
{
    static struct forks forks;
    struct forks *f = &forks;
    int r = TN_OK, code = image_open(m);

    f->m = m;
    if (code < 0)
        code = overlays_open(m, &f->overlays);
    if (code >= 0)
        return code;
    raise_limit(m);
    r = open_forks(f);
    m->forks = f;
    while (r >= 0 && code < 0 && f->made < m->args.forks && !m->stopping) {
        code = make_clone(f);
        r = turn(f, 0);
    }
    overlays_close(m, f->overlays);
    if (r >= 0 && code < 0)
        r = open_keys(f);
    if (code >= 0)
        forks_kill(f);
    while (r >= 0 && f->live > 0) {
        bool file = f->keys.fd >= 0 && !f->polled && f->lagging == 0;

        r = turn(f, file ? 0 : -1);
        if (file)
            on_keys(f, EPOLLIN);
    }
    while (r >= 0 && !outlet_empty(&m->outlet) && !m->leaving)
        r = turn(f, -1);
    if (r < 0) {
        fprintf(stderr, "microvm: %s: %s\n", tn_strerror(r), strerror(errno));
        return EXIT_HOST; /* what is open is the kernel's to close */
    }
    on_said(f, 0);
    say_summary(f);
    if (m->outlet.error) {
        fprintf(stderr, "microvm: console: output was lost: %s\n", strerror(m->outlet.error));
        f->code = worse(f->code, EXIT_INPUT);
    }
    code = code < 0 ? f->code : code;
    close_forks(f);
    tn_vm_image_close(&m->image);
    m->forks = NULL;
    return code;
}
