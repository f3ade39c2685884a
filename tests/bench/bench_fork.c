/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * B1 to B5: from nothing, from a pool and in place to a clone's first output, and what live clones
 * cost, beside the floor of raw KVM calls (fork_floor.h) in the same run. Golden machines are made
 * once: 128 MiB, one vCPU; tests/guests/fork.c, stopped right after an output, for what is timed,
 * and tests/guests/clone.c, asleep, for those that live. BUILD/fork-latency.svg is the plot of fork
 * latency against live forks; ROUNDS=n, LIVE=n and GROW=n make it shorter.
 */
#include "tn_vm_fork.h"

#include "bench.h"
#include "fork_crowd.h"
#include "fork_floor.h"
#include "fork_plot.h"
#include "fork_tenon.h"
#include "mem_use.h"

#define MEMORY    (128ull << 20)
#define ROUNDS    300
#define WARM_UP   20
#define LIVE      2000
#define MANY      10000
#define GROW      400 /* seconds that the way from LIVE to MANY may take */
#define PROCESSES 50
#define CURVE     100 /* samples of each kind at each point of the plot */

/* The golden machine, and where its console goes. */
struct golden {
    struct tn_vm vm;
    struct tn_loop loop;
    struct tn_vm_image image; /* of vm, whose own memory is a view of it since */
    int console[2];
};

static void die(const char *what)
{
    fprintf(stderr, "bench_fork: %s: %s\n", what, strerror(errno));
    exit(1);
}

static unsigned number(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);

    return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

static const char *build(void)
{
    return getenv("BUILD") ? getenv("BUILD") : "build";
}

static uint8_t *guest_read(const char *name, size_t *len)
{
    uint8_t *bytes = (uint8_t *)malloc(1 << 20);
    char path[512];
    FILE *f;

    snprintf(path, sizeof(path), "%s/guests/%s.elf", build(), name);
    f = fopen(path, "rb");
    if (!bytes || !f)
        die(path);
    *len = fread(bytes, 1, 1 << 20, f);
    fclose(f);
    return bytes;
}

/* Whether a paused machine has just said c, and nothing since. */
static bool golden_said(struct golden *g, uint8_t c)
{
    struct kvm_regs regs;

    if (tn_kvm_x86_get_regs(&g->vm.cpu[0].vcpu, &regs) < 0 || regs.rip == 0 || regs.rip > MEMORY)
        return false;
    return g->vm.ram.ptr[regs.rip - 1] == 0xee && (uint8_t)regs.rax == c; /* out %al, (%dx) */
}

/* A machine that runs, with its console in a pipe. */
static void golden_start(struct golden *g, struct tn_kvm *kvm, const char *guest, const char *words)
{
    struct tn_vm_cfg cfg;

    memset(&cfg, 0, sizeof(cfg));
    if (pipe2(g->console, O_CLOEXEC | O_NONBLOCK) < 0 || tn_loop_init(&g->loop) < 0)
        die("golden");
    cfg.memory = MEMORY;
    cfg.kernel = guest_read(guest, &cfg.kernel_len);
    cfg.cmdline = words;
    cfg.console = true;
    cfg.console_in = -1;
    cfg.console_out = g->console[1];
    if (tn_vm_init(&g->vm, kvm, &g->loop, &cfg) < 0 || tn_vm_start(&g->vm) < 0)
        die("golden: tn_vm_init");
    free((void *)(uintptr_t)cfg.kernel);
}

/* Until it has said more than len bytes. */
static void golden_listen(struct golden *g, size_t len)
{
    uint64_t begin = bench_now();
    char seen[4096];

    for (size_t n = 0; n <= len;) {
        ssize_t got;

        tn_loop_step(&g->loop, 1);
        if (tn_vm_wait(&g->vm, 0) != TN_EAGAIN || bench_now() - begin > 10000000000u)
            die("golden: the guest does not get there");
        while ((got = read(g->console[0], seen, sizeof(seen))) > 0)
            n += (size_t)got;
    }
}

/* The image of a machine that is paused. */
static void golden_take(struct golden *g)
{
    char seen[4096];

    while (read(g->console[0], seen, sizeof(seen)) > 0)
        ;
    (void)fcntl(g->console[0], F_SETFL, 0); /* a clone's first byte is waited for */
    if (tn_vm_image_take(&g->image, &g->vm, NULL) < 0)
        die("golden: tn_vm_image_take");
}

/*
 * A machine that has said "ready", stopped right after a '.'. Its clones sleep once they have said
 * as many bytes as stop is, 1 or 2, see the guest.
 */
static void golden_make(struct golden *g, struct tn_kvm *kvm, uint32_t pages, uint64_t stop)
{
    char words[32];
    bool there = false;

    snprintf(words, sizeof(words), "fork %" PRIu32, pages);
    golden_start(g, kvm, "fork", words);
    golden_listen(g, strlen("ready\n"));
    while (!there) {
        golden_listen(g, 0);
        if (tn_vm_pause(&g->vm) < 0)
            die("golden: tn_vm_pause");
        there = golden_said(g, '.');
        if (!there)
            (void)tn_vm_resume(&g->vm);
    }
    if (tn_mem_write(&g->vm.mem, FORK_STOP, &stop, sizeof(stop)) < 0)
        die("golden: tn_mem_write");
    golden_take(g);
}

/* One that sleeps, and answers. */
static void golden_sleep(struct golden *g, struct tn_kvm *kvm)
{
    golden_start(g, kvm, "clone", "wait");
    golden_listen(g, strlen("ready\n") - 1);
    usleep(20000);
    if (tn_vm_pause(&g->vm) < 0)
        die("golden: tn_vm_pause");
    golden_take(g);
}

static void golden_end(struct golden *g)
{
    tn_vm_close(&g->vm);
    tn_vm_image_close(&g->image);
    tn_loop_close(&g->loop);
    close(g->console[0]);
    close(g->console[1]);
}

static bool floor_of(struct floor *f, struct golden *g)
{
    return floor_init(f, g->vm.kvm->fd, g->vm.kvm_vm.fd, g->vm.cpu[0].vcpu.fd, g->vm.golden->fd,
                      MEMORY);
}

static void way_init(struct fork_way *w, struct golden *g, uint32_t run)
{
    memset(w, 0, sizeof(*w));
    w->kvm = g->vm.kvm;
    w->loop = &g->loop;
    w->image = &g->image;
    w->console = g->console;
    w->run = run;
}

/* n clones of the floor's, each after its first output and `more` others, alive at once. */
static void floor_crowd(const char *name, struct floor *f, unsigned n, unsigned more,
                        unsigned dirty)
{
    struct floor_clone *c = (struct floor_clone *)calloc(n, sizeof(*c));
    struct mem_use before, after;
    unsigned made = 0;
    bool ok = c != NULL;

    mem_use_settle();
    mem_use_read(&before);
    while (ok && made < n) {
        ok = floor_make(f, &c[made], false, true) && floor_set(f, &c[made], false);
        for (unsigned i = 0; ok && i <= more; i++)
            ok = floor_run(&c[made]);
        made++;
    }
    mem_use_read(&after);
    if (ok)
        mem_use_row(name, &before, &after, n, dirty);
    else
        printf("  %-36s %7u failed at clone %u\n", name, n, made);
    while (made > 0)
        floor_reap(f, &c[--made]);
    floor_idle(f);
    free(c);
}

/* ---- B1, B2, B3 ---- */

static double p50(struct bench_series *s)
{
    return (double)bench_percentile(s, 50) / 1e3;
}

static void latency(struct golden *none, struct golden *few, struct golden *many,
                    struct floor *floor0, struct floor *floor16, struct floor *floor128)
{
    static struct fork_way cold, warm, again0, again16, again128;
    struct floor_way full = {.floor = floor0}, split = {.floor = floor0, .split = true};
    struct floor_way pool = full, pool_split = split, reset = full;
    struct floor_way image = {.floor = floor0, .image = true};
    /* The output after the first comes when the pages are written. */
    struct floor_way reset16 = {.floor = floor16, .run = 1};
    struct floor_way reset128 = {.floor = floor128, .run = 1};
    struct floor_way *ways[] = {&pool, &pool_split, &image, &reset, &reset16, &reset128};
    struct fork_way *ours[] = {&cold, &warm, &again0, &again16, &again128};
    struct bench_series s[] = {
        /* What comes right after the closing of a VM is slowed down by it: no cold one does. */
        BENCH("floor: reset, 0 pages", floor_reset, &reset),
        BENCH("floor: cold", floor_cold, &full),
        BENCH("floor: reset, 16 pages", floor_reset, &reset16),
        BENCH("floor: cold, split chips", floor_cold, &split),
        BENCH("floor: reset, 128 pages", floor_reset, &reset128),
        BENCH("floor: pool", floor_pool, &pool),
        BENCH("tenon: reset, 0 pages", fork_reset, &again0),
        BENCH("tenon: cold", fork_cold, &cold),
        BENCH("tenon: reset, 16 pages", fork_reset, &again16),
        BENCH("floor: pool, split chips", floor_pool, &pool_split),
        BENCH("tenon: reset, 128 pages", fork_reset, &again128),
        BENCH("tenon: pool", fork_pool, &warm),
        BENCH("floor: pool of one image", floor_pool, &image),
    };
    size_t n = sizeof(s) / sizeof(s[0]);
    struct bench_series *our_cold = &s[7], *our_reset = &s[8], *our_pool = &s[11];
    double lower, limit;

    way_init(&cold, none, 0);
    way_init(&warm, none, 0);
    way_init(&again0, none, 0);
    way_init(&again16, few, 1);
    way_init(&again128, many, 1);
    bench_rounds(s, n, number("ROUNDS", ROUNDS), WARM_UP);
    puts("fork to the clone's first output, 128 MiB, 1 vCPU; cpu has making the pool and taking "
         "clones down in it");
    bench_table(s, n);
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
        floor_way_end(ways[i]);
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
        fork_way_end(ours[i]);
    bench_table(&floor0->teardown, 1);
    bench_table(&fork_teardown, 1);
    bench_ratio("B1", "cold fork / the floor's", our_cold, &s[1], 50, 1.25);
    bench_ratio("B1", "cold fork / the floor's", our_cold, &s[1], 90, 1.5);
    bench_ratio("B2", "pooled fork / cold fork", our_pool, our_cold, 50, 0.40);
    /* 200 us where the pool's floor, the better of both, is 130. */
    lower = p50(&s[5]) < p50(&s[9]) ? p50(&s[5]) : p50(&s[9]);
    limit = 200 * lower / 130;
    printf("  B2: the pool's floor is %.1f us here, where it is 130 the budget is 200: %.1f us\n",
           lower, limit);
    bench_budget("B2", "pooled fork, p50", p50(our_pool), "us", p50(our_pool) / lower, limit);
    bench_ratio("B3", "reset with 16 dirty pages / cold fork", our_reset, our_cold, 50, 0.25);
    bench_free(s, n);
    bench_free(&fork_teardown, 1);
}

/* ---- B4, B5 ---- */

/* What a crowd that has answered costs: KiB of Pss each. */
static double memory_row(const struct crowd *c, const struct mem_use *before)
{
    struct mem_use after;
    double pages;
    char name[64];

    mem_use_read(&after);
    pages = crowd_own(c);
    snprintf(name, sizeof(name), "tenon: cold, %.1f pages", pages);
    mem_use_row(name, before, &after, c->count ? c->count : 1, (unsigned)(pages + 0.5));
    return mem_use_pss(before, &after, c->count, (unsigned)(pages + 0.5));
}

static void memory_budget(unsigned live, double kib)
{
    char what[96];

    snprintf(what, sizeof(what), "Pss per live fork, without its own pages, of %u in a process",
             live);
    bench_budget("B4", what, kib, "KiB", kib / 16, 16);
}

/* Returns the pages that a clone has of its own. */
static double memory_of(struct golden *sleeper, struct tn_kvm *kvm, unsigned n)
{
    struct mem_use before;
    struct crowd c;
    double kib = -1, pages;

    mem_use_settle();
    mem_use_read(&before);
    if (!crowd_init(&c, kvm, &sleeper->image, sleeper->console, n))
        die("crowd");
    if (crowd_grow(&c, n, 0) && crowd_ask(&c, 0))
        kib = memory_row(&c, &before);
    else
        printf("  %u of %u clones, %u answers: %d (%s)\n", c.count, n, c.answers, c.err,
               strerror(c.sys_errno));
    pages = crowd_own(&c);
    crowd_close(&c);
    memory_budget(n, kib);
    return pages;
}

/*
 * A clone in each process, of an image that the first process has. It comes before all else: what
 * this process has by then, its threads' stacks among it, is in the others as well.
 */
static void processes(struct golden *sleeper, struct tn_kvm *kvm)
{
    double available = -1, own, pss;
    char what[96];

    mem_use_settle();
    pss = crowd_processes(kvm, &sleeper->image, PROCESSES, &available);
    mem_use_head();
    own = memory_of(sleeper, kvm, PROCESSES);
    printf("  %s processes, %u of them with a clone each: Pss %.1f KiB, %.1f pages of its own in "
           "it; MemAvailable %.1f KiB\n",
           crowd_static() ? "static" : "dynamic", PROCESSES, pss, own, available);
    snprintf(what, sizeof(what), "Pss per fork, without its own pages, a %s process for each",
             crowd_static() ? "static" : "dynamic");
    bench_budget("B4", what, pss < 0 ? pss : pss - 4 * own, "KiB", (pss - 4 * own) / 160, 160);
}

static void crowd_row(const struct crowd *c)
{
    double n = c->count ? c->count : 1;

    printf("  %u live forks, %u answers; making one took %.0f us, while they grew; teardown by the "
           "reaper %.1f ms, of which %.1f on the loop's thread: %.0f us each\n",
           c->count, c->answers, (double)c->making / 1e3 / n, (double)c->whole / 1e6,
           (double)c->front / 1e6, (double)c->whole / 1e3 / n);
    fflush(stdout);
}

/* One point of the plot: forks of another machine while the crowd lives. */
static void curve_point(struct plot_line line[4], unsigned live, struct fork_way *cold,
                        struct fork_way *warm)
{
    struct bench_series s[2] = {BENCH("cold", fork_cold, cold), BENCH("pooled", fork_pool, warm)};

    bench_rounds(s, 2, CURVE, 2);
    printf("  %10u", live);
    for (unsigned k = 0; k < 4; k++) {
        double us = (double)bench_percentile(&s[k / 2], k % 2 ? 99 : 50) / 1e3;

        printf(" %10.1f", us);
        line[k].at[line[k].count][0] = live;
        line[k].at[line[k].count++][1] = us;
    }
    printf(" %10u\n", s[0].failures + s[1].failures);
    fflush(stdout);
    bench_free(s, 2);
}

static void curve_plot(const struct plot_line line[4])
{
    struct plot p = {"Fork to first output against live forks",
                     NULL,
                     "live forks in the process",
                     "microseconds",
                     {1, LIVE},
                     {50, 500000}};
    struct utsname name;
    char note[256], path[512];

    memset(&name, 0, sizeof(name));
    uname(&name);
    snprintf(note, sizeof(note), "128 MiB, 1 vCPU; %s %s, %ld CPUs; %u samples a point",
             name.sysname, name.release, sysconf(_SC_NPROCESSORS_ONLN), CURVE);
    p.note = note;
    snprintf(path, sizeof(path), "%s/fork-latency.svg", build());
    printf("  %s: %s\n", path, plot_write(&p, line, 4, path) ? "written" : strerror(errno));
}

/* B5: a crowd that grows, with the points of the plot on its way, to 2,000 and beyond. */
static void crowds(struct golden *sleeper, struct golden *none, struct tn_kvm *kvm)
{
    static const unsigned live[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, LIVE};
    static struct plot_line line[4] = {{"cold, p50", "#c0392b", false, {{0, 0}}, 0},
                                       {"cold, p99", "#c0392b", true, {{0, 0}}, 0},
                                       {"pooled, p50", "#2455a4", false, {{0, 0}}, 0},
                                       {"pooled, p99", "#2455a4", true, {{0, 0}}, 0}};
    static struct fork_way cold, warm;
    unsigned most = number("LIVE", LIVE);
    struct mem_use before;
    struct crowd c;
    double kib = -1;
    uint32_t first;

    way_init(&cold, none, 0);
    way_init(&warm, none, 0);
    mem_use_settle();
    mem_use_read(&before);
    if (!crowd_init(&c, kvm, &sleeper->image, sleeper->console, MANY))
        die("crowd");
    puts("fork to first output while others live, us");
    printf("  %10s %10s %10s %10s %10s %10s\n", "live forks", "cold p50", "p99", "pooled p50",
           "p99", "failures");
    for (size_t i = 0; i < sizeof(live) / sizeof(live[0]) && live[i] <= most; i++) {
        first = c.count;
        if (!crowd_grow(&c, live[i], 0) || !crowd_ask(&c, first))
            break;
        curve_point(line, live[i], &cold, &warm);
    }
    fork_way_end(&cold);
    fork_way_end(&warm);
    bench_free(&fork_teardown, 1);
    curve_plot(line);
    bench_budget("B5", "2,000 live forks in one process, those that lack or do not answer",
                 (double)LIVE - c.answers, "forks", (LIVE - (double)c.answers) / LIVE, 0);
    if (c.answers == LIVE) {
        mem_use_head();
        kib = memory_row(&c, &before);
        first = c.count;
        (void)crowd_grow(&c, MANY, number("GROW", GROW));
        (void)crowd_ask(&c, first);
    }
    memory_budget(LIVE, kib);
    if (c.err)
        printf("  it stopped at %u: error %d (%s); %ld descriptors may be open\n", c.count, c.err,
               strerror(c.sys_errno), sysconf(_SC_OPEN_MAX));
    else if (c.count < MANY && most >= LIVE)
        printf("  it stopped at %u, after %u s more: GROW=seconds for others\n", c.count,
               number("GROW", GROW));
    bench_budget("B5", "10,000 live forks in one process, those that lack or do not answer",
                 (double)MANY - c.answers, "forks", (MANY - (double)c.answers) / MANY, 0);
    crowd_close(&c);
    crowd_row(&c);
}

int main(void)
{
    static struct golden none, few, many, few_more, many_more, sleeper;
    static struct floor floor0, floor16, floor128;
    static struct tn_kvm kvm;

    bench_machine();
    if (tn_kvm_open(&kvm, NULL) < 0) {
        puts("B1 skipped: /dev/kvm cannot be used here");
        return 0;
    }
    crowd_limits();
    golden_sleep(&sleeper, &kvm);
    if (number("LIVE", LIVE) > 0)
        processes(&sleeper, &kvm);
    /* All speak at once, and sleep; those of the last two, for the floor, only when their pages
     * are written and they have spoken again. */
    golden_make(&none, &kvm, 0, 1);
    golden_make(&few, &kvm, 16, 1);
    golden_make(&many, &kvm, 128, 1);
    golden_make(&few_more, &kvm, 16, 2);
    golden_make(&many_more, &kvm, 128, 2);
    if (!floor_of(&floor0, &none) || !floor_of(&floor16, &few_more) ||
        !floor_of(&floor128, &many_more))
        return 1;
    latency(&none, &few, &many, &floor0, &floor16, &floor128);
    if (number("LIVE", LIVE) > 0) {
        mem_use_head();
        floor_crowd("floor: cold, 0 pages", &floor0, 50, 0, 0);
        floor_crowd("floor: cold, 16 pages", &floor16, 200, 1, 16);
        (void)memory_of(&sleeper, &kvm, 200);
        crowds(&sleeper, &none, &kvm);
    }
    floor_end(&floor0);
    floor_end(&floor16);
    floor_end(&floor128);
    golden_end(&none);
    golden_end(&few);
    golden_end(&many);
    golden_end(&few_more);
    golden_end(&many_more);
    golden_end(&sleeper);
    tn_kvm_close(&kvm);
    return 0;
}
