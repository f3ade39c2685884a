/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * B1 to B4: from nothing, from a pool and in place to a clone's first output, and what a live clone
 * costs in memory, beside the floor of raw KVM calls (fork_floor.h) in the same run. The golden
 * machine is made once: 128 MiB, one vCPU, tests/guests/fork.c, stopped right after an output.
 */
#include "tn_vm.h"

#include "bench.h"
#include "fork_floor.h"
#include "mem_use.h"

#define MEMORY  (128ull << 20)
#define ROUNDS  300
#define WARM_UP 20

/* The golden machine, and where its console goes. */
struct golden {
    struct tn_vm vm;
    struct tn_loop loop;
    int console[2];
};

static void die(const char *what)
{
    fprintf(stderr, "bench_fork: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint8_t *guest_read(size_t *len)
{
    const char *build = getenv("BUILD") ? getenv("BUILD") : "build";
    uint8_t *bytes = (uint8_t *)malloc(1 << 20);
    char path[512];
    FILE *f;

    snprintf(path, sizeof(path), "%s/guests/fork.elf", build);
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

/* A machine that has said "ready", stopped right after c: '.' or ',', see the guest. */
static void golden_make(struct golden *g, struct tn_kvm *kvm, uint32_t pages, uint8_t c)
{
    struct tn_vm_cfg cfg;
    char words[32], seen[4096];
    size_t len = 0;
    bool ready = false, there = false;
    uint64_t begin = bench_now();

    memset(&cfg, 0, sizeof(cfg));
    snprintf(words, sizeof(words), "fork %" PRIu32, pages);
    if (pipe2(g->console, O_CLOEXEC | O_NONBLOCK) < 0 || tn_loop_init(&g->loop) < 0)
        die("golden");
    cfg.memory = MEMORY;
    cfg.kernel = guest_read(&cfg.kernel_len);
    cfg.cmdline = words;
    cfg.console = true;
    cfg.console_in = -1;
    cfg.console_out = g->console[1];
    if (tn_vm_init(&g->vm, kvm, &g->loop, &cfg) < 0 || tn_vm_start(&g->vm) < 0)
        die("golden: tn_vm_init");
    free((void *)(uintptr_t)cfg.kernel);
    while (!there) {
        ssize_t n;

        tn_loop_step(&g->loop, 1);
        if (tn_vm_wait(&g->vm, 0) != TN_EAGAIN || bench_now() - begin > 10000000000u)
            die("golden: the guest does not get there");
        while ((n = read(g->console[0], seen, sizeof(seen))) > 0)
            len += (size_t)n;
        ready = len > strlen("ready\n");
        if (!ready || tn_vm_pause(&g->vm) < 0)
            continue;
        there = golden_said(g, c);
        if (!there)
            (void)tn_vm_resume(&g->vm);
    }
}

static void golden_end(struct golden *g)
{
    tn_vm_close(&g->vm);
    tn_loop_close(&g->loop);
    close(g->console[0]);
    close(g->console[1]);
}

static bool floor_of(struct floor *f, struct golden *g)
{
    return floor_init(f, g->vm.kvm->fd, g->vm.kvm_vm.fd, g->vm.cpu[0].vcpu.fd, g->vm.ram.fd,
                      MEMORY);
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

int main(void)
{
    const char *rounds = getenv("ROUNDS");
    static struct golden none, few, many;
    static struct floor floor0, floor16, floor128;
    struct tn_kvm kvm;

    bench_machine();
    if (tn_kvm_open(&kvm, NULL) < 0) {
        puts("B1 skipped: /dev/kvm cannot be used here");
        return 0;
    }
    /* Clones of the first speak at once; those of the others when their pages are written. */
    golden_make(&none, &kvm, 0, '.');
    golden_make(&few, &kvm, 16, '.');
    golden_make(&many, &kvm, 128, '.');
    if (!floor_of(&floor0, &none) || !floor_of(&floor16, &few) || !floor_of(&floor128, &many))
        return 1;

    struct floor_way full = {.floor = &floor0}, split = {.floor = &floor0, .split = true};
    struct floor_way pool = full, pool_split = split, reset = full;
    struct floor_way image = {.floor = &floor0, .image = true};
    /* The output after the first comes when the pages are written. */
    struct floor_way reset16 = {.floor = &floor16, .run = 1};
    struct floor_way reset128 = {.floor = &floor128, .run = 1};
    struct floor_way *ways[] = {&pool, &pool_split, &image, &reset, &reset16, &reset128};
    struct bench_series s[] = {
        BENCH("floor: cold", floor_cold, &full),
        BENCH("floor: cold, split chips", floor_cold, &split),
        BENCH("floor: pool", floor_pool, &pool),
        BENCH("floor: pool, split chips", floor_pool, &pool_split),
        BENCH("floor: pool of one image", floor_pool, &image),
        BENCH("floor: reset, 0 pages", floor_reset, &reset),
        BENCH("floor: reset, 16 pages", floor_reset, &reset16),
        BENCH("floor: reset, 128 pages", floor_reset, &reset128),
        /* ---- tenon's own variants are added here, and their budgets below ---- */
    };
    size_t n = sizeof(s) / sizeof(s[0]);

    bench_rounds(s, n, rounds ? (unsigned)strtoul(rounds, NULL, 10) : ROUNDS, WARM_UP);
    puts("fork to the clone's first output, 128 MiB, 1 vCPU; cpu has making the pool and taking "
         "clones down in it");
    bench_table(s, n);
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
        floor_way_end(ways[i]);
    bench_table(&floor0.teardown, 1);

    /* ---- B1, B2, B3: tenon's own variants beside the floor's ---- */

    mem_use_head();
    floor_crowd("floor: cold, 0 pages", &floor0, 50, 0, 0);
    floor_crowd("floor: cold, 0 pages", &floor0, 200, 0, 0);
    floor_crowd("floor: cold, 16 pages", &floor16, 200, 1, 16);
    /* ---- B4: tenon's own variants beside the floor's; 2,000 as well ---- */

    bench_free(s, n);
    floor_end(&floor0);
    floor_end(&floor16);
    floor_end(&floor128);
    golden_end(&none);
    golden_end(&few);
    golden_end(&many);
    tn_kvm_close(&kvm);
    return 0;
}
