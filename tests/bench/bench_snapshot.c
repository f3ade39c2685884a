/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * B10: a full snapshot of 128 MiB beside a copy of the same 128 MiB to the same place by write(2),
 * with nothing around it: in a tmpfs and on the disk under BUILD, with memory that is full of noise
 * and as a guest leaves it: mostly zeroes, which a snapshot leaves out, and a plain copy does not;
 * one that leaves them out is printed beside it. A snapshot also digests what it writes, 64 KiB at
 * a time, on a thread for each CPU, up to four. Then diffs, by pages written and by RAM; and what
 * opening costs, which reads and checks all memory unless it is lazy. ROUNDS=n makes it shorter.
 */
#include "tn_vm_fork.h"

#include "bench.h"

#include <fcntl.h>
#include <sys/stat.h>

#define MIB       (1ull << 20)
#define MEMORY    (128 * MIB)
#define ROUNDS    15
#define DIFFS     40
#define CLUSTER   16 /* pages that are written side by side: a digest's chunk */
#define DIR_BYTES 256

struct machine {
    struct tn_vm vm;
    struct tn_loop loop;
    char base[DIR_BYTES]; /* the snapshot that diffs are of */
    uint8_t *bytes;       /* of the memory: reading that itself would fill its holes */
};

/* What is measured, and where. */
struct job {
    struct machine *m;
    const char *place;
    bool sync;
    uint32_t pages; /* diff */
    uint32_t run;   /* of so many pages side by side */
    bool lazy;      /* open */
    bool sparse;    /* copy: only what is no hole */
};

static struct tn_kvm kvm;

static void die(const char *what)
{
    fprintf(stderr, "bench_snapshot: %s: %s\n", what, strerror(errno));
    exit(1);
}

static const char *build(void)
{
    return getenv("BUILD") ? getenv("BUILD") : "build";
}

static void remove_dir(const char *dir)
{
    char path[DIR_BYTES + 16];

    snprintf(path, sizeof(path), "%s/state", dir);
    unlink(path);
    snprintf(path, sizeof(path), "%s/memory", dir);
    unlink(path);
    rmdir(dir);
}

static void new_dir(char dir[DIR_BYTES], const char *place)
{
    snprintf(dir, DIR_BYTES, "%s/tenon-bench-XXXXXX", place);
    if (!mkdtemp(dir))
        die(dir);
}

/* One that has run to its first line, and stands still. */
static void machine_init(struct machine *m, uint64_t memory)
{
    static uint8_t kernel[1 << 20];
    struct tn_vm_cfg cfg;
    int console[2];
    char path[512], seen[64];
    FILE *f;

    snprintf(path, sizeof(path), "%s/guests/clone.elf", build());
    f = fopen(path, "rb");
    if (!f || pipe2(console, O_CLOEXEC | O_NONBLOCK) < 0 || tn_loop_init(&m->loop) < 0)
        die(path);
    memset(&cfg, 0, sizeof(cfg));
    cfg.memory = memory;
    cfg.kernel = kernel;
    cfg.kernel_len = fread(kernel, 1, sizeof(kernel), f);
    cfg.cmdline = "wait";
    cfg.track_dirty = true;
    cfg.console = true;
    cfg.console_in = -1;
    cfg.console_out = console[1];
    fclose(f);
    if (tn_vm_init(&m->vm, &kvm, &m->loop, &cfg) < 0 || tn_vm_start(&m->vm) < 0)
        die("tn_vm_init");
    for (size_t n = 0; n < strlen("ready\n");) {
        ssize_t got = read(console[0], seen, sizeof(seen));

        n += got > 0 ? (size_t)got : 0;
        (void)tn_loop_step(&m->loop, 1);
        if (tn_vm_wait(&m->vm, 0) != TN_EAGAIN)
            die("the guest has ended");
    }
    usleep(20000);
    if (tn_vm_pause(&m->vm) < 0)
        die("tn_vm_pause");
}

static void machine_close(struct machine *m)
{
    tn_vm_close(&m->vm);
    tn_loop_close(&m->loop);
    free(m->bytes);
    if (m->base[0])
        remove_dir(m->base);
}

/* Noise everywhere; it cannot run any more. */
static void machine_fill(struct machine *m)
{
    uint64_t *word = (uint64_t *)(void *)m->vm.ram.ptr, x = 88172645463325252u;

    for (size_t i = 0; i < m->vm.ram.size / 8; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        word[i] = x;
    }
}

/* ---- full ---- */

static int64_t snapshot(struct job *j, const char *dir, bool diff)
{
    struct tn_vm_snapshot_cfg cfg;
    uint64_t begin;

    memset(&cfg, 0, sizeof(cfg));
    cfg.dir = dir;
    cfg.diff = diff;
    cfg.sync = j->sync;
    begin = bench_now();
    if (tn_vm_snapshot(&j->m->vm, &cfg) < 0)
        return -1;
    return (int64_t)(bench_now() - begin);
}

static int64_t full(void *ctx)
{
    struct job *j = (struct job *)ctx;
    char dir[DIR_BYTES];
    int64_t took;

    new_dir(dir, j->place);
    took = snapshot(j, dir, false);
    remove_dir(dir);
    return took;
}

/* The bytes of the memory's file that are no holes. */
static bool copy_runs(const struct machine *m, int to)
{
    const struct tn_hostmem *ram = &m->vm.ram;
    off_t at = 0, end;

    while ((at = lseek(ram->fd, at, SEEK_DATA)) >= 0) {
        end = lseek(ram->fd, at, SEEK_HOLE);
        if (end <= at || lseek(to, at, SEEK_SET) < 0)
            return false;
        while (at < end) {
            size_t len = end - at < (off_t)MIB ? (size_t)(end - at) : (size_t)MIB;
            ssize_t n = write(to, ram->ptr + at, len);

            if (n <= 0)
                return false;
            at += n;
        }
    }
    return errno == ENXIO;
}

static bool copy_all(const struct machine *m, int to)
{
    uint64_t at = 0;

    while (at < m->vm.ram.size) {
        ssize_t n = write(to, m->bytes + at, MIB);

        if (n <= 0)
            return false;
        at += (uint64_t)n;
    }
    return true;
}

static int64_t copy(void *ctx)
{
    struct job *j = (struct job *)ctx;
    char dir[DIR_BYTES], path[DIR_BYTES + 16];
    uint64_t begin;
    int64_t took;
    bool ok;
    int fd;

    new_dir(dir, j->place);
    snprintf(path, sizeof(path), "%s/memory", dir);
    begin = bench_now();
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ok = fd >= 0 && ftruncate(fd, (off_t)j->m->vm.ram.size) == 0 &&
         (j->sparse ? copy_runs : copy_all)(j->m, fd) && (!j->sync || fsync(fd) == 0);
    ok = close(fd) == 0 && ok;
    took = (int64_t)(bench_now() - begin);
    remove_dir(dir);
    return ok ? took : -1;
}

static int64_t open_image(void *ctx)
{
    static struct tn_vm_image image;
    struct job *j = (struct job *)ctx;
    struct tn_vm_image_cfg cfg;
    uint64_t begin = bench_now();
    int64_t took;

    memset(&cfg, 0, sizeof(cfg));
    cfg.dir = j->m->base;
    cfg.lazy = j->lazy;
    if (tn_vm_image_open(&image, &kvm, &cfg) < 0)
        return -1;
    took = (int64_t)(bench_now() - begin);
    tn_vm_image_close(&image);
    return took;
}

/* Full snapshots and copies of one machine, interleaved; and opening one. */
static void full_rows(struct machine *m, const char *what, unsigned rounds)
{
    struct job tmp = {.m = m, .place = "/dev/shm"}, disk = {.m = m, .place = build()};
    struct job durable = disk, lazy = tmp, sparse = tmp;
    struct bench_series s[] = {
        BENCH("write(2), tmpfs", copy, &tmp),
        BENCH("snapshot, tmpfs", full, &tmp),
        BENCH("write(2), disk", copy, &disk),
        BENCH("snapshot, disk", full, &disk),
        BENCH("write(2) and fsync, disk", copy, &durable),
        BENCH("snapshot, durable, disk", full, &durable),
        BENCH("open and check, tmpfs", open_image, &tmp),
        BENCH("open, lazy, tmpfs", open_image, &lazy),
        BENCH("write(2) without holes, tmpfs", copy, &sparse),
    };
    size_t n = sizeof(s) / sizeof(s[0]);
    char text[96];

    durable.sync = true;
    lazy.lazy = true;
    sparse.sparse = true;
    new_dir(m->base, "/dev/shm");
    if (snapshot(&tmp, m->base, false) < 0)
        die("tn_vm_snapshot");
    m->bytes = (uint8_t *)malloc(m->vm.ram.size);
    if (!m->bytes || tn_vm_pread_(m->vm.ram.fd, m->bytes, m->vm.ram.size, 0) < 0)
        die("the memory");
    printf("full snapshots of 128 MiB, %s\n", what);
    bench_rounds(s, n, rounds, 2);
    bench_table(s, n);
    for (size_t i = 0; i < 6; i += 2) {
        snprintf(text, sizeof(text), "%s / %s; %s", s[i + 1].name, s[i].name, what);
        bench_ratio("B10", text, &s[i + 1], &s[i], 50, 1.15);
    }
    bench_free(s, n);
}

/* ---- diffs ---- */

/* Writes to pages that are spread over all memory, as far apart as they go, in runs. */
static bool dirty(struct machine *m, uint32_t pages, uint32_t run)
{
    static uint64_t value;
    uint64_t all = m->vm.ram.size / 4096 - 2048, runs = pages / run, step = all / runs;
    uint64_t gpa;

    step -= step % CLUSTER;
    for (uint32_t i = 0; i < pages; i++) {
        gpa = (2048 + i / run * step + i % run) * 4096; /* above the guest's own 8 MiB */
        value++;
        if (tn_mem_write(&m->vm.mem, gpa, &value, sizeof(value)) < 0)
            return false;
    }
    return true;
}

static int64_t diff(void *ctx)
{
    struct job *j = (struct job *)ctx;
    char dir[DIR_BYTES];
    int64_t took;

    new_dir(dir, j->place);
    took = dirty(j->m, j->pages, j->run) ? snapshot(j, dir, true) : -1;
    remove_dir(dir);
    return took;
}

static void diff_rows(struct machine *small, struct machine *large, unsigned rounds)
{
    const char *t = "/dev/shm";
    struct job job[] = {
        {small, t, false, 16, CLUSTER, false, false},
        {small, t, false, 256, CLUSTER, false, false},
        {small, t, false, 4096, CLUSTER, false, false},
        {large, t, false, 16, CLUSTER, false, false},
        {large, t, false, 256, CLUSTER, false, false},
        {large, t, false, 4096, CLUSTER, false, false},
        {small, t, false, 256, 1, false, false},
        {large, t, false, 256, 1, false, false},
    };
    struct bench_series s[] = {
        BENCH("diff, 128 MiB, 16 pages", diff, &job[0]),
        BENCH("diff, 128 MiB, 256 pages", diff, &job[1]),
        BENCH("diff, 128 MiB, 4096 pages", diff, &job[2]),
        BENCH("diff, 1 GiB, 16 pages", diff, &job[3]),
        BENCH("diff, 1 GiB, 256 pages", diff, &job[4]),
        BENCH("diff, 1 GiB, 4096 pages", diff, &job[5]),
        BENCH("diff, 128 MiB, 256 pages alone", diff, &job[6]),
        BENCH("diff, 1 GiB, 256 pages alone", diff, &job[7]),
    };
    size_t n = sizeof(s) / sizeof(s[0]);

    printf("diffs in a tmpfs; pages in runs of %d, or alone: a digest is over %u pages\n", CLUSTER,
           TN_VM_IMAGE_CHUNK / TN_VM_IMAGE_PAGE);
    bench_rounds(s, n, rounds, 3);
    bench_table(s, n);
    bench_ratio("B10", "diff of 4,096 pages, of 1 GiB / of 128 MiB", &s[5], &s[2], 50, 1.15);
    printf(
        "  4,096 pages / 16 pages: %.1f times as long of 128 MiB, %.1f of 1 GiB; 1 GiB / 128 MiB "
        "with 16 pages: %.1f\n",
        (double)bench_percentile(&s[2], 50) / (double)bench_percentile(&s[0], 50),
        (double)bench_percentile(&s[5], 50) / (double)bench_percentile(&s[3], 50),
        (double)bench_percentile(&s[3], 50) / (double)bench_percentile(&s[0], 50));
    bench_free(s, n);
}

int main(void)
{
    static struct machine noise, left, large;
    const char *text = getenv("ROUNDS");
    unsigned rounds = text ? (unsigned)strtoul(text, NULL, 10) : ROUNDS;
    struct job base = {.m = &large, .place = "/dev/shm"};

    bench_machine();
    if (tn_kvm_open(&kvm, NULL) < 0) {
        puts("B10 skipped: /dev/kvm cannot be used here");
        return 0;
    }
    machine_init(&noise, MEMORY);
    machine_init(&left, MEMORY);
    machine_init(&large, 1024 * MIB);
    machine_fill(&noise);
    full_rows(&noise, "full of noise", rounds);
    full_rows(&left, "as the guest left it", rounds);
    new_dir(large.base, base.place);
    if (snapshot(&base, large.base, false) < 0)
        die("tn_vm_snapshot");
    diff_rows(&left, &large, text ? rounds : DIFFS);
    machine_close(&noise);
    machine_close(&left);
    machine_close(&large);
    tn_kvm_close(&kvm);
    return 0;
}
