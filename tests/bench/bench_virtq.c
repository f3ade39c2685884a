/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * B7: what a chain of three descriptors costs, popped and pushed, in batches of 32, in nanoseconds
 * per chain. The driver's part is not in it: it lays out a lap of chains while the clock stands.
 * The peer is rust-vmm's virtio-queue, over rings made by the same driver: a shared object that
 * cargo builds from tests/bench/virtio-queue, where there is a cargo and the crates can be had.
 */
#include "tn_virtq.h"

#include "bench.h"
#include "../virtq_driver.h"

#include <dlfcn.h>

#define CHAINS  320 /* a lap */
#define BATCH   32
#define LAPS    20 /* per sample */
#define ROUNDS  400
#define WARM_UP 40

struct side {
    uint8_t *ram;
    struct tn_mem_region table[2];
    struct tn_mem mem;
    struct tn_virtq q;
    struct vqd d;
    void *peer;        /* the peer's queue, which then serves the ring */
    unsigned table_of; /* elements in an indirect table; 0: a chain of direct descriptors */
};

static void setup(struct side *s, bool packed, bool indirect)
{
    struct tn_virtq_cfg cfg = {0, 0, 0, 0, packed, true, true, false};

    s->ram = (uint8_t *)aligned_alloc(4096, 2u << 20);
    if (!s->ram)
        exit(1);
    memset(s->ram, 0, 2u << 20);
    tn_mem_init(&s->mem, s->table, 2);
    tn_virtq_init(&s->q);
    vqd_init(&s->d, s->ram, 0, 0x1000, packed ? CHAINS * 3 : 1024, packed, true);
    s->table_of = indirect ? 3 : 0;
    cfg.desc = s->d.desc;
    cfg.driver = s->d.driver;
    cfg.device = s->d.device;
    cfg.size = (uint16_t)s->d.size;
    /* Two regions, as a machine with a hole below 4 GiB has. */
    if (tn_mem_add(&s->mem, 0, s->ram, 1u << 20) < 0 ||
        tn_mem_add(&s->mem, 1ull << 32, s->ram + (1u << 20), 1u << 20) < 0 ||
        tn_virtq_start(&s->q, &s->mem, &cfg) < 0)
        exit(1);
}

/* A request as of a disk: a header, data, a status byte. */
static void offer(struct side *s)
{
    uint32_t len;

    while (vqd_reap(&s->d, &len) >= 0)
        ;
    for (unsigned i = 0; i < CHAINS; i++) {
        struct vqd_buf buf[3] = {
            {0x20000 + 16 * i, 16, false}, {0x40000 + 512 * i, 512, true}, {0x80000 + i, 1, true}};

        if (vqd_add_table(&s->d, buf, 3, s->table_of ? 0x90000 + 48 * i : 0, s->table_of) < 0)
            exit(1);
    }
}

/* One batch after the other, until the ring is empty. Returns how many chains. */
static unsigned serve(struct side *s)
{
    struct tn_virtq_chain chain[BATCH];
    struct tn_iov iov[BATCH][4];
    uint32_t written[BATCH];
    unsigned served = 0, n;

    do {
        for (n = 0; n < BATCH; n++) {
            if (tn_virtq_pop(&s->q, &chain[n], iov[n], 4) != 1)
                break;
            bench_opaque(iov[n]);
            written[n] = chain[n].writable_len;
        }
        if (tn_virtq_push_many(&s->q, chain, written, (uint16_t)n) < 0)
            exit(1);
        served += n;
    } while (n == BATCH);
    return served;
}

/* The same, each chain pushed on its own. */
static unsigned serve_single(struct side *s)
{
    struct tn_virtq_chain chain;
    struct tn_iov iov[4];
    unsigned served = 0;

    while (tn_virtq_pop(&s->q, &chain, iov, 4) == 1) {
        bench_opaque(iov);
        if (tn_virtq_push(&s->q, &chain, chain.writable_len) < 0)
            exit(1);
        served++;
    }
    return served;
}

static void *(*peer_new)(uint8_t *ram, size_t half, uint16_t size, uint64_t desc, uint64_t driver,
                         uint64_t device);
static uint32_t (*peer_serve)(void *peer, uint32_t batch);

static unsigned serve_peer(struct side *s)
{
    return peer_serve(s->peer, BATCH);
}

/* Builds and loads the peer. Returns what is missing, or NULL. */
static const char *load_peer(void)
{
    const char *build = getenv("BUILD");
    char command[2048], path[512];
    void *so;

    snprintf(path, sizeof(path), "%s/virtio-queue", build && *build ? build : "build");
    snprintf(
        command, sizeof(command),
        "command -v cargo >/dev/null && mkdir -p '%s' && cp tests/bench/virtio-queue/* '%s' && "
        "cd '%s' && cargo build --quiet --release >log 2>&1",
        path, path, path);
    if (system(command) != 0)
        return "no cargo, or it cannot have the crates";
    strncat(path, "/target/release/libpeer.so", sizeof(path) - strlen(path) - 1);
    so = dlopen(path, RTLD_NOW);
    if (!so)
        return dlerror();
    *(void **)&peer_new = dlsym(so, "peer_new");
    *(void **)&peer_serve = dlsym(so, "peer_serve");
    return peer_new && peer_serve ? NULL : "the peer lacks a function";
}

/* Nanoseconds per 100 chains: whole ones would be too coarse for one. */
static int64_t timed(struct side *s, unsigned (*how)(struct side *))
{
    uint64_t total = 0, served = 0;

    for (unsigned lap = 0; lap < LAPS; lap++) {
        uint64_t begin;

        offer(s);
        begin = bench_now();
        served += how(s);
        total += bench_now() - begin;
    }
    return served == (uint64_t)CHAINS * LAPS ? (int64_t)(total * 100 / served) : -1;
}

static int64_t batched(void *ctx)
{
    return timed((struct side *)ctx, serve);
}

static int64_t single(void *ctx)
{
    return timed((struct side *)ctx, serve_single);
}

static int64_t peer(void *ctx)
{
    return timed((struct side *)ctx, serve_peer);
}

int main(void)
{
    static struct side split, packed, table, other;
    struct bench_series s[] = {
        BENCH("split, batch of 32, x100", batched, &split),
        BENCH("split, one by one, x100", single, &split),
        BENCH("split, indirect, x100", batched, &table),
        BENCH("packed, batch of 32, x100", batched, &packed),
        BENCH("packed, one by one, x100", single, &packed),
        BENCH("virtio-queue, split, x100", peer, &other),
    };
    const char *missing = load_peer();
    size_t n = missing ? 5 : 6;

    setup(&split, false, false);
    setup(&packed, true, false);
    setup(&table, false, true);
    if (!missing) {
        setup(&other, false, false);
        other.peer = peer_new(other.ram, 1u << 20, (uint16_t)other.d.size, other.d.desc,
                              other.d.driver, other.d.device);
        if (!other.peer)
            exit(1);
    }
    bench_machine();
    bench_rounds(s, n, ROUNDS, WARM_UP);
    bench_table(s, n);
    for (size_t i = 0; i < n; i++)
        printf("  %-28.*s %6.2f ns per chain (p50)\n", (int)strlen(s[i].name) - 6, s[i].name,
               (double)bench_percentile(&s[i], 50) / 100);
    if (missing) {
        printf("# no peer: %s\n", missing);
        bench_budget("B7", "virtqueue ns per chain, split / rust-vmm's virtio-queue", -1, "", -1,
                     0.5);
    } else {
        bench_ratio("B7", "virtqueue ns per chain, split / rust-vmm's virtio-queue", &s[0], &s[5],
                    50, 0.5);
    }
    bench_free(s, n);
    return 0;
}
