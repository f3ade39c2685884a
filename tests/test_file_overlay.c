/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <errno.h>
#include <stddef.h>
#include <sys/uio.h>

/* What the overlay's file is asked to do passes here, and may fail. */
static ssize_t hook_pwritev(int fd, const struct iovec *iov, int n, off_t at);
static int hook_fdatasync(int fd);
#define TN_FILE_PWRITEV   hook_pwritev
#define TN_FILE_FDATASYNC hook_fdatasync
#include "tn_file_overlay.h"

#include <limits.h>
#include <sys/resource.h>

#include "temp_dir.h"

#define SIZE  (17ull << 20) /* two pages of bitmap */
#define DATA  (3 * 4096ull) /* where the data begin then */
#define CHUNK 65536u

static struct {
    int write_error, sync_error;
    unsigned writes, syncs;
    void (*before)(void); /* each write and each sync */
} hook;

static ssize_t hook_pwritev(int fd, const struct iovec *iov, int n, off_t at)
{
    hook.writes++;
    if (hook.before)
        hook.before();
    errno = hook.write_error;
    return hook.write_error ? -1 : pwritev(fd, iov, n, at);
}

static int hook_fdatasync(int fd)
{
    hook.syncs++;
    if (hook.before)
        hook.before();
    errno = hook.sync_error;
    return hook.sync_error ? -1 : fdatasync(fd);
}

static char base[300], over[300], copy[300];
static uint8_t *base_bytes;

static void get_file(const char *path, uint64_t at, uint8_t *bytes, size_t len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0 && pread(fd, bytes, len, (off_t)at) == (ssize_t)len);
    close(fd);
}

static int setup(void **state)
{
    (void)state;
    memset(&hook, 0, sizeof(hook));
    if (temp_make() < 0)
        return -1;
    temp_path(base, "base");
    temp_path(over, "over");
    temp_path(copy, "copy");
    base_bytes = malloc(SIZE);
    if (!base_bytes)
        return -1;
    for (uint64_t i = 0; i < SIZE; i++)
        base_bytes[i] = (uint8_t)(i * 13 + i / 512 + 1);
    put_file(base, base_bytes, SIZE);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(base_bytes);
    unlink(base);
    unlink(over);
    unlink(copy);
    return temp_remove();
}

/* The base is as it was, byte for byte. */
static void expect_base(void)
{
    uint8_t *now = malloc(SIZE);

    assert_non_null(now);
    get_file(base, 0, now, SIZE);
    assert_memory_equal(now, base_bytes, SIZE);
    free(now);
}

static struct tn_file_overlay_cfg cfg_of(bool uring, bool create)
{
    struct tn_file_overlay_cfg cfg = {{base, -1, false, false, !uring, false, 0},
                                      {over, -1, false, false, !uring, false, 0},
                                      create,
                                      NULL};

    return cfg;
}

static struct tn_file_overlay o;

static int try_open(const struct tn_file_overlay_cfg *cfg)
{
    int fds = open_fds(), got = tn_file_overlay_init(&o, cfg), saved = errno;

    if (got < 0) {
        assert_int_equal(open_fds(), fds);
        assert_null(o.memory);
        assert_int_equal(tn_file_overlay_close(&o), 0);
    }
    errno = saved;
    return got;
}

static void on_done(struct tn_disk_req *req, int result)
{
    *(int *)req->ctx = result;
}

static int once(uint32_t op, uint64_t offset, uint8_t *bytes, size_t len)
{
    struct tn_iov iov = {bytes, len};
    int result = 1;
    struct tn_disk_req req = {op,      0,       offset, len,   &iov, bytes != NULL,
                              on_done, &result, NULL,   {0, 0}};
    const struct tn_disk *d = &o.overlay.disk;

    d->ops->submit(d->ctx, &req);
    d->ops->kick(d->ctx);
    d->ops->drain(d->ctx);
    assert_int_not_equal(result, 1);
    return result;
}

static uint8_t buf[CHUNK], want[CHUNK];

static void expect_disk(uint64_t at, const uint8_t *bytes, size_t len)
{
    memset(buf, 0xee, sizeof(buf));
    assert_int_equal(once(TN_DISK_READ, at, buf, len), 0);
    assert_memory_equal(buf, bytes, len);
}

/* ---- opening ---- */

static void what_is_no_overlay_of_this_base_is_refused_by_name(void **state)
{
    static const uint8_t id[TN_OVERLAY_ID] = "base one", other[TN_OVERLAY_ID] = "base two";
    struct tn_file_overlay_cfg cfg = cfg_of(true, false);
    uint8_t header[TN_OVERLAY_HEADER];
    struct tn_overlay_layout l;
    struct stat stat_buf;

    (void)state;
    assert_int_equal(try_open(&cfg), TN_ESYS);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(access(over, F_OK), -1); /* not made unasked */
    cfg.create = true;
    cfg.overlay.read_only = true;
    assert_int_equal(try_open(&cfg), TN_ESYS);
    assert_int_equal(errno, ENOENT);
    cfg.overlay.read_only = false;
    assert_int_equal(symlink("elsewhere", over), 0);
    assert_int_equal(try_open(&cfg), TN_ESYS);
    assert_int_equal(access(copy, F_OK), -1);
    unlink(over);
    cfg.base.path = copy;
    assert_int_equal(try_open(&cfg), TN_ESYS);
    assert_int_equal(access(over, F_OK), -1);
    cfg.base.path = base;
    cfg.base_id = id;
    assert_int_equal(try_open(&cfg), 0);
    assert_int_equal(tn_file_overlay_close(&o), 0);
    assert_int_equal(stat(over, &stat_buf), 0);
    assert_int_equal(stat_buf.st_mode & 0777, 0600);

    /* The file's own errors. */
    unlink(over);
    put_file(over, base_bytes, 4096);
    cfg.base_id = NULL;
    assert_int_equal(try_open(&cfg), TN_EFORMAT);
    put_file(over, base_bytes, 1000);
    assert_int_equal(try_open(&cfg), TN_ERANGE);
    put_file(over, base_bytes, 512);
    assert_int_equal(try_open(&cfg), TN_ETRUNC);
    put_file(over, base_bytes, 0);
    cfg.create = false;
    assert_int_equal(try_open(&cfg), TN_ERANGE); /* empty, and not to be made */
    assert_int_equal(tn_overlay_build(&l, SIZE, other, header, sizeof(header)), 0);
    put_file(over, header, sizeof(header));
    assert_int_equal(try_open(&cfg), TN_ETRUNC);
    assert_int_equal(truncate(over, (off_t)l.file_len), 0);
    cfg.base_id = id;
    assert_int_equal(try_open(&cfg), TN_EMACHINE);
    cfg.base_id = other;
    assert_int_equal(try_open(&cfg), 0);
    assert_int_equal(tn_file_overlay_close(&o), 0);
    assert_int_equal(truncate(base, SIZE - 512), 0);
    assert_int_equal(try_open(&cfg), TN_ENOFIT);
    assert_int_equal(truncate(base, SIZE + 512), 0);
    assert_int_equal(try_open(&cfg), TN_ENOFIT);
}

static void c06_a_hostile_overlay_file_is_refused_or_harmless(void **state)
{
    struct tn_file_overlay_cfg cfg = cfg_of(true, true);
    uint8_t header[TN_OVERLAY_HEADER], bad[TN_OVERLAY_HEADER];
    uint64_t seed = 8;
    unsigned taken = 0;

    (void)state;
    assert_int_equal(try_open(&cfg), 0);
    assert_int_equal(tn_file_overlay_close(&o), 0);
    get_file(over, 0, header, sizeof(header));
    for (unsigned i = 0; i < 300; i++) {
        int fd = open(over, O_RDWR | O_CLOEXEC);

        memcpy(bad, header, sizeof(bad));
        for (unsigned k = 0; k <= i % 3; k++)
            bad[test_random(&seed) % 84] = (uint8_t)(test_random(&seed) >> 8);
        assert_int_equal(pwrite(fd, bad, sizeof(bad), 0), (ssize_t)sizeof(bad));
        close(fd);
        if (try_open(&cfg) == 0) {
            taken++;
            once(TN_DISK_READ, SIZE - CHUNK, buf, CHUNK);
            assert_int_equal(tn_file_overlay_close(&o), 0);
        }
    }
    assert_true(taken > 0); /* the base's name, for one, is anything */
    /* Cut off under our feet: an error, never a signal. */
    put_file(over, header, sizeof(header));
    assert_int_equal(truncate(over, (off_t)(DATA + SIZE)), 0);
    assert_int_equal(try_open(&cfg), 0);
    memset(want, 7, CHUNK);
    assert_int_equal(once(TN_DISK_WRITE, 0, want, CHUNK), 0);
    assert_int_equal(truncate(over, 4096), 0);
    assert_int_equal(once(TN_DISK_READ, 0, buf, CHUNK), TN_ESYS);
    assert_int_equal(once(TN_DISK_READ, CHUNK, buf, CHUNK), 0);
    tn_file_overlay_close(&o);
    expect_base();
}

static void locks_keep_one_writer_and_many_readers(void **state)
{
    struct tn_file_overlay_cfg cfg = cfg_of(true, true);
    static struct tn_file_overlay second;
    struct tn_file_cfg writer = {base, -1, false, false, true, false, 0};
    struct tn_file f;

    (void)state;
    assert_int_equal(try_open(&cfg), 0);
    assert_int_equal(tn_file_overlay_init(&second, &cfg), TN_EEXIST);
    assert_int_equal(access(over, F_OK), 0); /* and it is not removed */
    assert_int_equal(tn_file_init(&f, &writer), TN_EEXIST);
    cfg.overlay.path = copy;
    assert_int_equal(tn_file_overlay_init(&second, &cfg), 0); /* the base is shared */
    assert_int_equal(tn_file_overlay_close(&second), 0);
    cfg.overlay.path = base; /* a base is no overlay of itself */
    assert_int_equal(tn_file_overlay_init(&second, &cfg), TN_EEXIST);
    assert_int_equal(tn_file_overlay_close(&o), 0);
    assert_int_equal(tn_file_overlay_close(&o), 0);
    expect_base();
}

static void fds_serve_as_names_do_and_stay_the_callers_after_an_error(void **state)
{
    struct tn_file_overlay_cfg cfg = cfg_of(true, false);
    int b = open(base, O_RDONLY | O_CLOEXEC), v = open(over, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    (void)state;
    assert_true(b >= 0 && v >= 0);
    cfg.base.path = cfg.overlay.path = NULL;
    cfg.base.fd = b;
    cfg.overlay.fd = v;
    assert_int_equal(tn_file_overlay_init(&o, &cfg), TN_ERANGE); /* empty */
    assert_int_equal(ftruncate(v, 8192), 0);
    assert_int_equal(tn_file_overlay_init(&o, &cfg), TN_EFORMAT);
    assert_int_equal(fcntl(b, F_GETFD), FD_CLOEXEC);
    assert_int_equal(fcntl(v, F_GETFD), FD_CLOEXEC);
    assert_int_equal(ftruncate(v, 0), 0);
    cfg.create = true;
    assert_int_equal(tn_file_overlay_init(&o, &cfg), 0);
    memset(want, 1, 512);
    assert_int_equal(once(TN_DISK_WRITE, 512, want, 512), 0);
    expect_disk(512, want, 512);
    assert_int_equal(tn_file_overlay_close(&o), 0);
    assert_int_equal(fcntl(b, F_GETFD), -1);
    assert_int_equal(fcntl(v, F_GETFD), -1);
}

static void one_that_cannot_be_made_leaves_no_file(void **state)
{
    struct tn_file_overlay_cfg cfg = cfg_of(true, true);

    (void)state;
    hook.write_error = ENOSPC;
    assert_int_equal(try_open(&cfg), TN_ENOSPC);
    assert_int_equal(access(over, F_OK), -1);
    hook.write_error = EIO;
    assert_int_equal(try_open(&cfg), TN_ESYS);
    assert_int_equal(errno, EIO);
    assert_int_equal(access(over, F_OK), -1);
    hook.write_error = 0;
    hook.sync_error = EIO;
    assert_int_equal(try_open(&cfg), TN_ESYS);
    assert_int_equal(access(over, F_OK), -1);
    hook.sync_error = 0;
    cfg.overlay.depth = TN_FILE_DEPTH_MAX + 1;
    assert_int_equal(try_open(&cfg), TN_EINVAL);
    assert_int_equal(access(over, F_OK), -1);
}

/* ---- reading and writing ---- */

static void random_requests_and_reopening_do_what_a_copy_does(void **state)
{
    uint8_t *ram = malloc(SIZE), *all = malloc(SIZE);
    uint64_t seed = 21;
    struct stat stat_buf;

    (void)state;
    assert_true(ram && all);
    for (int how = 0; how < 4; how++) {
        struct tn_file_overlay_cfg cfg = cfg_of(how & 1, true);
        int got;

        unlink(over);
        memcpy(ram, base_bytes, SIZE);
        cfg.base.direct = cfg.overlay.direct = how & 2;
        cfg.base.depth = cfg.overlay.depth = 4;
        got = try_open(&cfg);
        if (got == TN_ENODEV || got == TN_EINVAL)
            continue; /* no O_DIRECT here, or by large blocks only */
        assert_int_equal(got, 0);
        assert_int_equal(stat(over, &stat_buf), 0);
        assert_true(stat_buf.st_blocks < 64); /* a new one is all holes */
        for (unsigned round = 0; round < 500; round++) {
            uint64_t at = test_random(&seed) % (SIZE / 512), n = 1 + test_random(&seed) % 64;
            uint32_t dice = (uint32_t)(test_random(&seed) % 10);

            if (round & 1)
                at = 32768 - 64 + at % 128; /* about the border of the bitmap's pages */
            if (n > SIZE / 512 - at)
                n = SIZE / 512 - at;
            if (dice < 4) {
                expect_disk(at * 512, ram + at * 512, n * 512);
            } else if (dice < 7) {
                for (uint64_t i = 0; i < n * 512; i++)
                    ram[at * 512 + i] = want[i] = (uint8_t)test_random(&seed);
                assert_int_equal(once(TN_DISK_WRITE, at * 512, want, n * 512), 0);
            } else if (dice < 8) {
                memset(ram + at * 512, 0, n * 512);
                assert_int_equal(
                    once(at & 1 && o.overlay.disk.discard ? TN_DISK_DISCARD : TN_DISK_ZERO,
                         at * 512, NULL, n * 512),
                    0);
            } else if (dice < 9) {
                assert_int_equal(once(TN_DISK_FLUSH, 0, NULL, 0), 0);
            } else {
                assert_int_equal(tn_file_overlay_close(&o), 0);
                cfg.overlay.read_only = test_random(&seed) % 8 == 0;
                assert_int_equal(try_open(&cfg), 0);
                if (cfg.overlay.read_only) {
                    assert_int_equal(once(TN_DISK_WRITE, 0, want, 512), TN_EUNSUP);
                    expect_disk(at * 512, ram + at * 512, n * 512);
                    assert_int_equal(tn_file_overlay_close(&o), 0);
                    cfg.overlay.read_only = false;
                    assert_int_equal(try_open(&cfg), 0);
                }
            }
        }
        assert_int_equal(tn_file_overlay_close(&o), 0);
        assert_int_equal(try_open(&cfg), 0);
        for (uint64_t at = 0; at < SIZE; at += CHUNK)
            assert_int_equal(once(TN_DISK_READ, at, all + at, CHUNK), 0);
        assert_memory_equal(all, ram, SIZE);
        assert_int_equal(tn_file_overlay_close(&o), 0);
        expect_base();
    }
    free(all);
    free(ram);
}

static void the_fds_tell_when_there_is_something_to_complete(void **state)
{
    struct tn_file_overlay_cfg cfg = cfg_of(true, true);
    struct tn_iov iov = {buf, CHUNK};
    int result = 1;
    struct tn_disk_req req = {TN_DISK_READ, 0, 0, CHUNK, &iov, 1, on_done, &result, NULL, {0, 0}};

    (void)state;
    assert_int_equal(try_open(&cfg), 0);
    if (tn_file_fd(&o.base) < 0) {
        tn_file_overlay_close(&o);
        SKIP("this host has no io_uring");
    }
    for (uint64_t at = 0; at < CHUNK; at += 1024) /* runs of one sector */
        assert_int_equal(once(TN_DISK_WRITE, at, want, 512), 0);
    for (unsigned turn = 0; turn < 100; turn++) {
        static const uint32_t ops[] = {TN_DISK_READ, TN_DISK_WRITE, TN_DISK_FLUSH, TN_DISK_ZERO};

        req.op = ops[turn % COUNT(ops)];
        req.len = req.op == TN_DISK_FLUSH ? 0 : CHUNK;
        if (turn >= 3)
            req.offset = req.op == TN_DISK_FLUSH ? 0 : turn * CHUNK;
        result = 1;
        o.overlay.disk.ops->submit(o.overlay.disk.ctx, &req);
        o.overlay.disk.ops->kick(o.overlay.disk.ctx);
        while (result == 1) {
            struct pollfd p[2] = {{tn_file_fd(&o.base), POLLIN, 0},
                                  {tn_file_fd(&o.over), POLLIN, 0}};

            assert_true(poll(p, 2, 5000) > 0);
            tn_file_overlay_complete(&o);
        }
        assert_int_equal(result, 0);
    }
    assert_int_equal(tn_file_overlay_close(&o), 0);
}

static void memory_is_used_only_for_what_is_written(void **state)
{
    struct tn_file_overlay_cfg cfg = cfg_of(true, true);
    struct rusage before, after;

    (void)state;
    if (test_emulated())
        SKIP("qemu-user's own page faults are among those counted");
    assert_int_equal(truncate(base, 1ll << 40), 0); /* 256 MiB of bitmap */
    getrusage(RUSAGE_SELF, &before);
    assert_int_equal(try_open(&cfg), 0);
    memset(want, 5, 512);
    assert_int_equal(once(TN_DISK_WRITE, (1ull << 40) - 512, want, 512), 0);
    assert_int_equal(once(TN_DISK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(tn_file_overlay_close(&o), 0);
    assert_int_equal(try_open(&cfg), 0);
    expect_disk((1ull << 40) - 512, want, 512);
    assert_int_equal(tn_file_overlay_close(&o), 0);
    getrusage(RUSAGE_SELF, &after);
    assert_true(after.ru_minflt - before.ru_minflt < 1000);
}

/* The bitmap and as much again are more than 32 bits address. */
static void a_bitmap_needs_room(void **state)
{
    struct tn_file_overlay_cfg cfg = cfg_of(true, true);

    (void)state;
    if (truncate(base, 1ll << 43) < 0)
        SKIP("this file system has no files of 8 TiB");
    errno = 0;
    if (sizeof(size_t) > 4) {
        assert_int_equal(try_open(&cfg), 0);
        assert_int_equal(tn_file_overlay_close(&o), 0);
    } else {
        assert_int_equal(try_open(&cfg), TN_ESYS);
        assert_int_equal(errno, ENOMEM);
    }
}

/* ---- crashes ---- */

/* Before each write and each sync: the file as it is now is an overlay that shows, of the sectors
 * that were flushed, what was flushed, and of the others the base or what was written. */
static uint64_t crash_seed;
static uint8_t *crash_flushed, *crash_written;
static unsigned crash_checks;
#define CRASH_SECTORS 64u

static void crash_check(void)
{
    static struct tn_file_overlay second;
    struct tn_file_overlay_cfg cfg = cfg_of(false, false);
    uint8_t sector[512], *bytes;
    struct stat stat_buf;
    struct tn_iov iov = {sector, 512};
    int result;
    void (*before)(void) = hook.before;

    hook.before = NULL;
    assert_int_equal(stat(over, &stat_buf), 0);
    bytes = malloc(DATA + CRASH_SECTORS * 512);
    assert_non_null(bytes);
    get_file(over, 0, bytes, DATA + CRASH_SECTORS * 512);
    put_file(copy, bytes, DATA + CRASH_SECTORS * 512);
    assert_int_equal(truncate(copy, stat_buf.st_size), 0);
    free(bytes);
    cfg.overlay.path = copy;
    assert_int_equal(tn_file_overlay_init(&second, &cfg), 0);
    for (uint64_t s = 0; s < CRASH_SECTORS; s++) {
        struct tn_disk_req req = {TN_DISK_READ, 0,       s * 512, 512,   &iov, 1,
                                  on_done,      &result, NULL,    {0, 0}};

        second.overlay.disk.ops->submit(second.overlay.disk.ctx, &req);
        assert_int_equal(result, 0);
        if (memcmp(sector, crash_flushed + s * 512, 512) != 0)
            assert_memory_equal(sector, crash_written + s * 512, 512);
    }
    assert_int_equal(tn_file_overlay_close(&second), 0);
    crash_checks++;
    hook.before = before;
}

static void a_crash_between_any_two_system_calls_loses_nothing_flushed(void **state)
{
    struct tn_file_overlay_cfg cfg = cfg_of(false, true);

    (void)state;
    crash_flushed = malloc(CRASH_SECTORS * 512);
    crash_written = malloc(CRASH_SECTORS * 512);
    assert_true(crash_flushed && crash_written);
    memcpy(crash_flushed, base_bytes, CRASH_SECTORS * 512);
    memcpy(crash_written, base_bytes, CRASH_SECTORS * 512);
    crash_seed = 4;
    assert_int_equal(try_open(&cfg), 0);
    for (unsigned round = 0; round < 60; round++) {
        uint64_t s = test_random(&crash_seed) % CRASH_SECTORS;

        /* A sector is written at most once between two flushes: it has two values at most. */
        memset(want, (int)round, 512);
        if (memcmp(crash_flushed + s * 512, crash_written + s * 512, 512) == 0) {
            memcpy(crash_written + s * 512, want, 512);
            hook.before = crash_check;
            assert_int_equal(once(TN_DISK_WRITE, s * 512, want, 512), 0);
        }
        if (round % 7 == 6) {
            assert_int_equal(once(TN_DISK_FLUSH, 0, NULL, 0), 0);
            memcpy(crash_flushed, crash_written, CRASH_SECTORS * 512);
        }
        crash_check();
    }
    hook.before = NULL;
    assert_int_equal(tn_file_overlay_close(&o), 0);
    assert_true(crash_checks > 60);
    free(crash_flushed);
    free(crash_written);
    expect_base();
}

static void closing_tells_what_did_not_become_durable(void **state)
{
    struct tn_file_overlay_cfg cfg = cfg_of(false, true);

    (void)state;
    memset(want, 3, 512);
    assert_int_equal(try_open(&cfg), 0);
    assert_int_equal(once(TN_DISK_WRITE, 0, want, 512), 0);
    hook.sync_error = EIO;
    assert_int_equal(tn_file_overlay_close(&o), TN_ESYS);
    assert_int_equal(errno, EIO);
    hook.sync_error = 0;
    assert_int_equal(try_open(&cfg), 0);
    expect_disk(0, base_bytes, 512); /* no bit without its data */
    hook.write_error = ENOSPC;
    assert_int_equal(once(TN_DISK_WRITE, 0, want, 512), TN_ENOSPC);
    hook.write_error = 0;
    expect_disk(0, base_bytes, 512);
    assert_int_equal(tn_file_overlay_close(&o), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

/* An empty file that cannot be made an overlay today can be made one tomorrow. */
static void a_failed_creation_leaves_an_empty_file(void **state)
{
    const struct tn_file_overlay_cfg cfg = cfg_of(false, true);
    struct stat st;

    (void)state;
    put_file(over, (const uint8_t *)"", 0);
    hook.write_error = ENOSPC;
    assert_int_equal(try_open(&cfg), TN_ENOSPC);
    assert_true(stat(over, &st) == 0 && st.st_size == 0);
    hook.write_error = 0;
    assert_int_equal(try_open(&cfg), 0);
    assert_int_equal(tn_file_overlay_close(&o), 0);
}

/* A header written there would go to the file's end. */
static void an_appending_descriptor_is_refused(void **state)
{
    struct tn_file_overlay_cfg cfg = cfg_of(false, true);
    struct stat st;

    (void)state;
    cfg.overlay.path = NULL;
    cfg.overlay.fd = open(over, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(cfg.overlay.fd >= 0);
    assert_int_equal(try_open(&cfg), TN_EINVAL);
    assert_true(fstat(cfg.overlay.fd, &st) == 0 && st.st_size == 0);
    close(cfg.overlay.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_no_overlay_of_this_base_is_refused_by_name),
        TEST(c06_a_hostile_overlay_file_is_refused_or_harmless),
        TEST(locks_keep_one_writer_and_many_readers),
        TEST(fds_serve_as_names_do_and_stay_the_callers_after_an_error),
        TEST(one_that_cannot_be_made_leaves_no_file),
        TEST(random_requests_and_reopening_do_what_a_copy_does),
        TEST(the_fds_tell_when_there_is_something_to_complete),
        TEST(memory_is_used_only_for_what_is_written),
        TEST(a_bitmap_needs_room),
        TEST(a_crash_between_any_two_system_calls_loses_nothing_flushed),
        TEST(closing_tells_what_did_not_become_durable),
        TEST(a_failed_creation_leaves_an_empty_file),
        TEST(an_appending_descriptor_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
