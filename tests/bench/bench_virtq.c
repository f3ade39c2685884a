/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * B7: what chains of several shapes cost, popped and pushed, in nanoseconds per chain. The driver's
 * part is not in it: it lays out a lap of chains while the clock stands. The peer is rust-vmm's
 * virtio-queue, over rings made by the same driver: a shared object that cargo builds from
 * tests/bench/rust-vmm, where there is a cargo and the crates can be had.
 */
#include "tn_virtq.h"

#include "bench.h"
#include "../virtq_driver.h"

#include <dlfcn.h>

#define RING    512 /* descriptors */
#define CHAINS  128 /* a lap at most */
#define LAPS    20  /* per sample */
#define ROUNDS  300
#define WARM_UP 30

/* What a lap is made of, and which part of its service is timed. */
static const struct shape {
    const char *name;
    unsigned chains;
    unsigned descs; /* in each */
    bool indirect;
    bool add_used; /* the clock runs for the pushes alone */
} shapes[] = {
    {"1 chain of 128", 1, 128, false, false},    {"128 chains of 1", 128, 1, false, false},
    {"128 chains of 3", 128, 3, false, false},   {"1 of 128, indirect", 1, 128, true, false},
    {"128 of 3, indirect", 128, 3, true, false}, {"add_used, 128 times", 128, 1, false, true},
};
#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

struct side {
    const struct shape *shape;
    uint8_t *ram;
    struct tn_mem_region table[2];
    struct tn_mem mem;
    struct tn_virtq q;
    struct vqd d;
    void *peer; /* the peer's queue, which then serves the ring */
};

static void *(*peer_new)(uint8_t *ram, size_t half, uint16_t size, uint64_t desc, uint64_t driver,
                         uint64_t device);
static uint32_t (*peer_pop)(void *peer, uint32_t most);
static uint32_t (*peer_add_used)(void *peer);

static void setup(struct side *s, const struct shape *shape, bool packed, bool is_peer)
{
    struct tn_virtq_cfg cfg = {0, 0, 0, RING, packed, true, true, false};

    s->shape = shape;
    s->ram = (uint8_t *)aligned_alloc(4096, 2u << 20);
    if (!s->ram)
        exit(1);
    memset(s->ram, 0, 2u << 20);
    tn_mem_init(&s->mem, s->table, 2);
    tn_virtq_init(&s->q);
    vqd_init(&s->d, s->ram, 0, 0x1000, RING, packed, true);
    cfg.desc = s->d.desc;
    cfg.driver = s->d.driver;
    cfg.device = s->d.device;
    /* Two regions, as a machine with a hole below 4 GiB has. */
    if (tn_mem_add(&s->mem, 0, s->ram, 1u << 20) < 0 ||
        tn_mem_add(&s->mem, 1ull << 32, s->ram + (1u << 20), 1u << 20) < 0 ||
        tn_virtq_start(&s->q, &s->mem, &cfg) < 0)
        exit(1);
    if (is_peer) {
        s->peer = peer_new(s->ram, 1u << 20, RING, s->d.desc, s->d.driver, s->d.device);
        if (!s->peer)
            exit(1);
    }
}

/* Half of each chain is for reading, the rest for writing. */
static void offer(struct side *s)
{
    const struct shape *shape = s->shape;
    struct vqd_buf buf[128];
    uint32_t len;

    while (vqd_reap(&s->d, &len) >= 0)
        ;
    for (unsigned i = 0; i < shape->chains; i++) {
        for (unsigned k = 0; k < shape->descs; k++) {
            buf[k].addr = 0x40000 + 512 * ((i * shape->descs + k) % 1024);
            buf[k].len = 512;
            buf[k].write = k >= shape->descs / 2;
        }
        if (vqd_add_table(&s->d, buf, shape->descs,
                          shape->indirect ? 0x20000 + 16 * shape->descs * i : 0,
                          shape->indirect ? shape->descs : 0) < 0)
            exit(1);
    }
}

static struct tn_virtq_chain chain[CHAINS];
static struct tn_iov iov[CHAINS][128];
static uint32_t written[CHAINS];

static unsigned pop(struct side *s)
{
    unsigned n;

    if (s->peer)
        return peer_pop(s->peer, CHAINS);
    for (n = 0; n < CHAINS; n++) {
        if (tn_virtq_pop(&s->q, &chain[n], iov[n], 128) != 1)
            break;
        bench_opaque(iov[n]);
        written[n] = chain[n].writable_len;
    }
    return n;
}

static unsigned push(struct side *s, unsigned n)
{
    if (s->peer)
        return peer_add_used(s->peer);
    return tn_virtq_push_many(&s->q, chain, written, (uint16_t)n) < 0 ? 0 : n;
}

/* The same, each chain pushed on its own. */
static unsigned push_single(struct side *s, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (tn_virtq_push(&s->q, &chain[i], written[i]) < 0)
            return 0;
    }
    return n;
}

/* Nanoseconds per 100 chains: whole ones would be too coarse for one. */
static int64_t timed(struct side *s, unsigned (*how)(struct side *, unsigned))
{
    uint64_t total = 0;

    for (unsigned lap = 0; lap < LAPS; lap++) {
        uint64_t begin;
        unsigned n;

        offer(s);
        begin = bench_now();
        n = pop(s);
        if (s->shape->add_used)
            begin = bench_now();
        n = how(s, n);
        total += bench_now() - begin;
        if (n != s->shape->chains)
            return -1;
    }
    return (int64_t)(total * 100 / (s->shape->chains * (uint64_t)LAPS));
}

static int64_t batched(void *ctx)
{
    return timed((struct side *)ctx, push);
}

static int64_t single(void *ctx)
{
    return timed((struct side *)ctx, push_single);
}

/* Builds and loads the peer. Returns what is missing, or NULL. */
static const char *load_peer(void)
{
    const char *build = getenv("BUILD");
    char command[2048], path[512];
    void *so;

    snprintf(path, sizeof(path), "%s/rust-vmm", build && *build ? build : "build");
    snprintf(command, sizeof(command),
             "command -v cargo >/dev/null && mkdir -p '%s' && cp tests/bench/rust-vmm/* '%s' && "
             "cd '%s' && cargo build --quiet --release >log 2>&1",
             path, path, path);
    if (system(command) != 0)
        return "no cargo, or it cannot have the crates";
    strncat(path, "/target/release/libpeer.so", sizeof(path) - strlen(path) - 1);
    so = dlopen(path, RTLD_NOW);
    if (!so)
        return dlerror();
    *(void **)&peer_new = dlsym(so, "peer_new");
    *(void **)&peer_pop = dlsym(so, "peer_pop");
    *(void **)&peer_add_used = dlsym(so, "peer_add_used");
    return peer_new && peer_pop && peer_add_used ? NULL : "the peer lacks a function";
}

int main(void)
{
    static struct side side[SHAPES][4]; /* split, split one by one, packed, the peer */
    static const char *const how[] = {"split", "split, one by one", "packed", "virtio-queue"};
    static char name[SHAPES][4][64];
    const char *missing = load_peer();
    size_t variants = missing ? 3 : 4;

    bench_machine();
    if (missing)
        printf("# no peer: %s\n", missing);
    for (size_t k = 0; k < SHAPES; k++) {
        struct bench_series s[4];
        char title[128];

        for (size_t i = 0; i < variants; i++) {
            struct bench_series one = BENCH(name[k][i], batched, &side[k][i]);

            snprintf(name[k][i], sizeof(name[k][i]), "%s: %s, x100", shapes[k].name, how[i]);
            setup(&side[k][i], &shapes[k], i == 2, i == 3);
            s[i] = one;
        }
        s[1].sample = single;
        bench_rounds(s, variants, ROUNDS, WARM_UP);
        bench_table(s, variants);
        snprintf(title, sizeof(title), "virtqueue, %s: ns, split / rust-vmm's virtio-queue",
                 shapes[k].name);
        if (missing)
            bench_budget("B7", title, -1, "", -1, 0.5);
        else
            bench_ratio("B7", title, &s[0], &s[3], 50, 0.5);
        bench_free(s, variants);
        for (size_t i = 0; i < variants; i++)
            free(side[k][i].ram);
    }
    return 0;
}
