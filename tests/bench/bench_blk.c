/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What a virtio block device costs beyond its file: reads and writes of 4 and 64 KiB, 32 at a time,
 * from a file in the page cache, by tn_virtio_blk over tn_file; beside the same preadv and pwritev
 * calls alone, into the same memory, in the same rounds. The driver's part is not in it: it lays
 * out 32 requests, and takes them back, while the clock stands. io_uring has its gain where the
 * file is not in the page cache; here its rows show what it costs, which the file system decides:
 * where it cannot say that it would have to wait, worker threads do the work.
 */
#include "tn_file.h"
#include "tn_virtio_blk.h"

#include "bench.h"
#include "../virtio_driver.h"

#include <fcntl.h>
#include <sys/uio.h>

#define FILE_SIZE (64u << 20)
#define RAM       (4u << 20)
#define RINGS     0x100000u /* of the second way; the first has them at 0x1000 */
#define DATA      0x200000u
#define TWO_MIB   0x200000u
#define DEPTH     32
#define LAPS      16 /* per sample, after one that is not counted */
#define ROUNDS    150
#define WARM_UP   20

/* One way to the file, shared by its four workloads. */
struct way {
    struct tn_file file;
    uint8_t *ram;
    struct tn_mem_region table[1];
    struct tn_mem mem;
    struct tn_virtio_blk blk;
    struct tn_virtio_blk_slot slot[DEPTH];
    struct vd d;
    int fd; /* the peer's; -1: through the device */
    uint32_t random;
};

struct load {
    struct way *way;
    uint32_t bytes;
    bool write;
};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void nothing(void *ctx, uint64_t ns)
{
    (void)ctx;
    (void)ns;
}

/* A way through the device, by io_uring or by plain system calls. */
static void setup(struct way *w, uint8_t *ram, uint64_t rings, const char *path, bool no_uring)
{
    struct tn_file_cfg file = {path, -1, false, false, no_uring, true, 0};
    struct tn_virtio_blk_cfg cfg = {
        &w->mem, 256,  TN_VIRTIO_F_RING, &w->file.disk, "bench", 1, w->slot,
        DEPTH,   NULL, nothing,          NULL,          NULL};

    w->fd = -1;
    w->ram = ram;
    if (tn_file_init(&w->file, &file) < 0)
        die("bench_blk");
    tn_mem_init(&w->mem, w->table, 1);
    if (tn_mem_add(&w->mem, 0, w->ram, RAM) < 0 || tn_virtio_blk_init(&w->blk, &cfg) < 0)
        die("bench_blk");
    vd_init(&w->d, &w->blk.virtio, w->ram, 0, rings);
    if (!vd_up(&w->d, ~0ull & ~TN_VIRTIO_F_RING_PACKED, 1, 256))
        die("bench_blk");
}

static uint64_t next_offset(struct way *w, uint32_t bytes)
{
    w->random = w->random * 1664525u + 1013904223u;
    return (uint64_t)(w->random >> 8) % (FILE_SIZE / bytes) * bytes;
}

/* 32 requests: added with the clock standing, served with it running. Returns nanoseconds. */
static int64_t lap(const struct load *l)
{
    struct way *w = l->way;
    uint64_t begin, took;
    uint32_t len, done = 0;

    for (uint32_t i = 0; i < DEPTH; i++) {
        uint32_t at = 0x8000 + 64 * i;
        struct vqd_buf buf[3] = {
            {at, 16, false}, {DATA + i * l->bytes, l->bytes, !l->write}, {at + 32, 1, true}};

        tn_put_(w->ram + at, 4, l->write ? 1 : 0);
        tn_put_(w->ram + at + 8, 8, next_offset(w, l->bytes) / 512);
        w->ram[at + 32] = 0xff;
        if (vqd_add_table(&w->d.q[0], buf, 3, 0x10000 + 48 * i, 3) < 0)
            return -1;
    }
    begin = bench_now();
    vd_kick(&w->d, 0);
    while (w->file.inflight > 0) {
        tn_virtio_blk_hold(&w->blk);
        tn_file_complete(&w->file);
        tn_virtio_blk_release(&w->blk);
    }
    took = bench_now() - begin;
    while (vd_reap(&w->d, 0, &len) >= 0)
        done++;
    for (uint32_t i = 0; i < DEPTH; i++) {
        if (w->ram[0x8000 + 64 * i + 32] != 0)
            return -1;
    }
    return done == DEPTH ? (int64_t)took : -1;
}

/* The same, without a device. */
static int64_t lap_plain(const struct load *l)
{
    struct way *w = l->way;
    uint64_t begin, offset[DEPTH];

    for (uint32_t i = 0; i < DEPTH; i++)
        offset[i] = next_offset(w, l->bytes);
    begin = bench_now();
    for (uint32_t i = 0; i < DEPTH; i++) {
        struct iovec iov = {w->ram + DATA + i * l->bytes, l->bytes};
        ssize_t n = l->write ? pwritev(w->fd, &iov, 1, (off_t)offset[i])
                             : preadv(w->fd, &iov, 1, (off_t)offset[i]);

        if (n != (ssize_t)l->bytes)
            return -1;
    }
    return (int64_t)(bench_now() - begin);
}

/* Nanoseconds per 100 requests. */
static int64_t sample(void *ctx)
{
    const struct load *l = (const struct load *)ctx;
    int64_t total = 0;

    for (unsigned i = 0; i <= LAPS; i++) {
        int64_t ns = l->way->fd < 0 ? lap(l) : lap_plain(l);

        if (ns < 0)
            return -1;
        total += i > 0 ? ns : 0;
    }
    return total * 100 / (DEPTH * LAPS);
}

int main(void)
{
    static const char *const names[8][2] = {
        {"read 4 KiB, preadv, x100", "read 4 KiB, blk, x100"},
        {"read 64 KiB, preadv, x100", "read 64 KiB, blk, x100"},
        {"write 4 KiB, pwritev, x100", "write 4 KiB, blk, x100"},
        {"write 64 KiB, pwritev, x100", "write 64 KiB, blk, x100"},
        {"read 4 KiB, preadv, x100", "read 4 KiB, blk by uring, x100"},
        {"read 64 KiB, preadv, x100", "read 64 KiB, blk by uring, x100"},
        {"write 4 KiB, pwritev, x100", "write 4 KiB, blk by uring, x100"},
        {"write 64 KiB, pwritev, x100", "write 64 KiB, blk by uring, x100"},
    };
    static struct way way[3];
    static struct load load[16];
    struct bench_series s[16];
    const char *dir = getenv("TMPDIR");
    uint8_t *ram = (uint8_t *)aligned_alloc(TWO_MIB, RAM);
    char path[512];
    unsigned n;
    int fd;

    snprintf(path, sizeof(path), "%s/bench_blk.XXXXXX", dir && *dir ? dir : "/dev/shm");
    fd = mkstemp(path);
    if (fd < 0 || !ram)
        die("bench_blk");
    memset(ram, 1, RAM);
    for (uint32_t i = 0; i < FILE_SIZE / RAM; i++) {
        if (write(fd, ram, RAM) != (ssize_t)RAM)
            die("bench_blk");
    }
    way[0].fd = fd;
    way[0].ram = ram;
    setup(&way[1], ram, 0x1000, path, true);
    setup(&way[2], ram, RINGS, path, false);
    unlink(path);
    n = tn_file_fd(&way[2].file) >= 0 ? 16 : 8;
    bench_machine();
    if (n == 8)
        printf("# no io_uring here\n");
    /* Pair by pair, so that each of two has the other or itself before it equally often. */
    for (unsigned i = 0; i < n; i++) {
        struct bench_series one = BENCH(names[i / 2][i % 2], sample, &load[i]);

        load[i].way = &way[i % 2 == 0 ? 0 : i < 8 ? 1 : 2];
        load[i].bytes = i / 2 % 2 ? 65536 : 4096;
        load[i].write = i / 4 % 2;
        s[i] = one;
        if (i % 2)
            bench_rounds(&s[i - 1], 2, ROUNDS, WARM_UP);
    }
    bench_table(s, n);
    for (unsigned i = 0; i < n; i++) {
        double ns = (double)bench_percentile(&s[i], 50) / 100;

        printf("  %-32.*s %9.0f IOPS %8.0f MiB/s (p50)\n", (int)strlen(s[i].name) - 6, s[i].name,
               1e9 / ns, 1e9 / ns * load[i].bytes / (1 << 20));
    }
    for (unsigned i = 0; i < n; i += 2) {
        char what[80];

        snprintf(what, sizeof(what), "%.*s / plain", (int)strlen(s[i + 1].name) - 6, s[i + 1].name);
        if (i < 8)
            bench_ratio("blk", what, &s[i + 1], &s[i], 50, load[i].bytes == 4096 ? 1.3 : 1.1);
        else
            printf("# %s: ratio=%.3f\n", what,
                   (double)bench_percentile(&s[i + 1], 50) / (double)bench_percentile(&s[i], 50));
    }
    bench_free(s, n);
    tn_file_close(&way[1].file);
    tn_file_close(&way[2].file);
    close(fd);
    free(ram);
    return 0;
}
