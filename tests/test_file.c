/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <errno.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/uio.h>

/* The system calls of the header under test pass here first, where they may fail. */
static ssize_t hook_preadv(int fd, const struct iovec *iov, int n, off_t at);
static ssize_t hook_pwritev(int fd, const struct iovec *iov, int n, off_t at);
static int hook_fdatasync(int fd);
static int hook_fallocate(int fd, int mode, off_t at, off_t len);
static int hook_ioctl(int fd, unsigned long what, void *arg);
static int hook_fstat(int fd, struct stat *stat);
static int hook_setup(unsigned entries, void *params);
static int hook_enter(int fd, unsigned submit, unsigned wait, unsigned flags);
#define TN_FILE_PREADV           hook_preadv
#define TN_FILE_PWRITEV          hook_pwritev
#define TN_FILE_FDATASYNC        hook_fdatasync
#define TN_FILE_FALLOCATE        hook_fallocate
#define TN_FILE_IOCTL            hook_ioctl
#define TN_FILE_FSTAT            hook_fstat
#define TN_FILE_SETUP            hook_setup
#define TN_FILE_ENTER            hook_enter
#define TN_FILE_RESULT(req, res) hook_result(f, req, res)
struct tn_file;
struct tn_disk_req;
static int hook_result(const struct tn_file *f, const struct tn_disk_req *req, int res);
#include "tn_file.h"

#include <linux/loop.h>
#include <sys/sysmacros.h>

#include "temp_dir.h"

#define SIZE (1u << 20)

/* ---- the hooks ---- */

static struct {
    int error;        /* errno of a call that fails */
    unsigned fail_at; /* transfers: the n-th fails, and, with stay, all after it; 0: none */
    bool stay;
    size_t part;         /* transfers move at most so many bytes; 0: all */
    int allocate_error;  /* fallocate fails */
    int setup_error;     /* io_uring_setup fails */
    unsigned strip;      /* features that the kernel has not */
    int enter_error;     /* io_uring_enter fails ... */
    unsigned enter_many; /* ... so many times */
    bool enter_one;      /* takes one request at a time */
    unsigned ring_short; /* the ring's transfers move so many bytes only; 0: all */
    int ring_error;      /* the ring's answers are this errno */
    bool as_device;      /* regular files look like block devices */
    unsigned transfers, syncs, allocates, ioctls, enters, results;
} hook;

static bool hook_fails(void)
{
    hook.transfers++;
    if (hook.fail_at == 0 || hook.transfers < hook.fail_at ||
        (hook.transfers > hook.fail_at && !hook.stay))
        return false;
    errno = hook.error;
    return true;
}

/* At most hook.part bytes, of the first iovecs. */
static int hook_cut(const struct iovec *iov, int n, struct iovec *out)
{
    size_t left = hook.part ? hook.part : SIZE_MAX;
    int k = 0;

    for (; k < n && left > 0; k++) {
        out[k] = iov[k];
        if (out[k].iov_len > left)
            out[k].iov_len = left;
        left -= out[k].iov_len;
    }
    return k;
}

static ssize_t hook_preadv(int fd, const struct iovec *iov, int n, off_t at)
{
    struct iovec cut[1024];

    if (hook_fails())
        return hook.error ? -1 : 0;
    return preadv(fd, cut, hook_cut(iov, n, cut), at);
}

static ssize_t hook_pwritev(int fd, const struct iovec *iov, int n, off_t at)
{
    struct iovec cut[1024];

    if (hook_fails())
        return hook.error ? -1 : 0;
    return pwritev(fd, cut, hook_cut(iov, n, cut), at);
}

static int hook_fdatasync(int fd)
{
    hook.syncs++;
    if (hook_fails())
        return -1;
    return fdatasync(fd);
}

static int hook_fallocate(int fd, int mode, off_t at, off_t len)
{
    hook.allocates++;
    if (hook.allocate_error == EINTR)
        hook.allocate_error = 0, errno = EINTR;
    else if (hook.allocate_error)
        errno = hook.allocate_error;
    else
        return fallocate(fd, mode, at, len);
    return -1;
}

static int hook_fstat(int fd, struct stat *stat)
{
    int got = fstat(fd, stat);

    if (hook.as_device) {
        stat->st_mode = (stat->st_mode & ~(mode_t)S_IFMT) | S_IFBLK;
        stat->st_size = 0;
    }
    return got;
}

static int hook_ioctl(int fd, unsigned long what, void *arg)
{
    uint64_t *range = arg;
    struct stat stat;

    if (!hook.as_device)
        return ioctl(fd, what, arg);
    hook.ioctls++;
    if (hook_fails())
        return -1;
    switch (what) {
    case BLKGETSIZE64:
        fstat(fd, &stat);
        *(uint64_t *)arg = (uint64_t)stat.st_size;
        return 0;
    case BLKSSZGET:
        *(int *)arg = 4096;
        return 0;
    case BLKPBSZGET:
        *(unsigned *)arg = 1u << 20;
        return 0;
    case BLKDISCARD:
    case BLKZEROOUT:
        return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)range[0],
                         (off_t)range[1]);
    default:
        errno = ENOTTY;
        return -1;
    }
}

static int hook_setup(unsigned entries, void *params)
{
    struct io_uring_params *p = params;
    int fd;

    if (hook.setup_error) {
        errno = hook.setup_error;
        return -1;
    }
    fd = (int)syscall(SYS_io_uring_setup, entries, params);
    p->features &= ~hook.strip;
    return fd;
}

static int hook_enter(int fd, unsigned submit, unsigned wait, unsigned flags)
{
    hook.enters++;
    if (hook.enter_many > 0) {
        hook.enter_many--;
        if (hook.enter_error == 0)
            return 0;
        errno = hook.enter_error;
        return -1;
    }
    if (hook.enter_one && submit > 1)
        submit = 1, wait = 0, flags = 0;
    return (int)syscall(SYS_io_uring_enter, fd, submit, wait, flags, NULL, 0);
}

/* A transfer that the kernel did in full is made short: what it should not have moved is spoilt. */
static int hook_result(const struct tn_file *f, const struct tn_disk_req *req, int res)
{
    hook.results++;
    if (hook.ring_error)
        return -hook.ring_error;
    if (hook.ring_short > 0 && res > (int)hook.ring_short && req->op <= TN_DISK_WRITE) {
        struct tn_disk_pos pos = {0, 0};
        static uint8_t junk[SIZE];
        size_t rest = (size_t)res - hook.ring_short;

        memset(junk, 0xdb, rest);
        if (req->op == TN_DISK_READ) {
            tn_disk_skip(req->iov, req->iovs, &pos, hook.ring_short);
            tn_disk_copy(TN_DISK_READ, req->iov, req->iovs, &pos, junk, rest);
        } else if (!f->direct) {
            assert_int_equal(pwrite(f->fd, junk, rest, (off_t)(req->offset + hook.ring_short)),
                             (ssize_t)rest);
        }
        return (int)hook.ring_short;
    }
    return res;
}

/* ---- a directory for each test, and nothing left open after it ---- */

static char path[300];

static int setup(void **state)
{
    (void)state;
    memset(&hook, 0, sizeof(hook));
    if (temp_make() < 0)
        return -1;
    temp_path(path, "disk");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    memset(&hook, 0, sizeof(hook));
    unlink(path);
    return temp_remove();
}

static uint8_t pattern(uint64_t at)
{
    return (uint8_t)(at * 31 + at / 512 * 7 + 1);
}

static void make(uint64_t size)
{
    uint8_t *bytes = malloc(size ? size : 1);

    assert_non_null(bytes);
    for (uint64_t i = 0; i < size; i++)
        bytes[i] = pattern(i);
    put_file(path, bytes, size);
    free(bytes);
}

static struct tn_file_cfg cfg_of(bool uring)
{
    struct tn_file_cfg cfg = {path, -1, false, false, !uring, false, 0};

    return cfg;
}

static void start(struct tn_file *f, const struct tn_file_cfg *cfg)
{
    assert_int_equal(tn_file_init(f, cfg), 0);
    if (cfg->no_uring)
        assert_int_equal(tn_file_fd(f), -1);
}

/* A request of any iovecs, and how it ended. */
struct ask {
    struct tn_disk_req req;
    struct tn_iov one;
    int result, error;
    unsigned times;
};

static void ask_done(struct tn_disk_req *req, int result)
{
    struct ask *a = req->ctx;

    a->result = result;
    a->error = errno;
    a->times++;
}

static void ask_set(struct ask *a, uint32_t op, uint64_t offset, uint8_t *base, size_t len)
{
    memset(a, 0, sizeof(*a));
    a->result = 1;
    a->one.base = base;
    a->one.len = len;
    a->req.op = op;
    a->req.offset = offset;
    a->req.len = len;
    a->req.iov = base ? &a->one : NULL;
    a->req.iovs = base ? 1 : 0;
    a->req.done = ask_done;
    a->req.ctx = a;
}

static int run(struct tn_file *f, struct ask *a)
{
    const struct tn_disk *d = &f->disk;

    errno = 0;
    d->ops->submit(d->ctx, &a->req);
    d->ops->kick(d->ctx);
    d->ops->drain(d->ctx);
    assert_int_equal(a->times, 1);
    errno = a->error;
    return a->result;
}

static int once(struct tn_file *f, uint32_t op, uint64_t offset, uint8_t *base, size_t len)
{
    struct ask a;

    ask_set(&a, op, offset, base, len);
    return run(f, &a);
}

static int once_flagged(struct tn_file *f, uint32_t op, uint32_t flags, uint64_t offset,
                        uint8_t *base, size_t len)
{
    struct ask a;

    ask_set(&a, op, offset, base, len);
    a.req.flags = flags;
    return run(f, &a);
}

static void expect_bytes(uint64_t offset, const uint8_t *want, size_t len)
{
    uint8_t *got = malloc(len);
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_non_null(got);
    assert_int_equal(pread(fd, got, len, (off_t)offset), (ssize_t)len);
    close(fd);
    assert_memory_equal(got, want, len);
    free(got);
}

static uint64_t blocks(void)
{
    struct stat stat_buf;

    assert_int_equal(stat(path, &stat_buf), 0);
    return (uint64_t)stat_buf.st_blocks;
}

static uint8_t buf[SIZE], other[SIZE];

/* ---- opening ---- */

static void what_cannot_be_a_disk_is_refused_by_name(void **state)
{
    static const struct {
        uint64_t size;
        int want;
    } row[] = {{0, TN_ERANGE},    {1, TN_ERANGE}, {511, TN_ERANGE}, {513, TN_ERANGE},
               {1023, TN_ERANGE}, {512, 0},       {1536, 0}};
    struct tn_file_cfg cfg = cfg_of(true);
    struct tn_file f;
    int fd;

    (void)state;
    assert_int_equal(tn_file_init(&f, &cfg), TN_ESYS);
    assert_int_equal(errno, ENOENT);
    tn_file_close(&f); /* closed: nothing happens */
    for (size_t i = 0; i < COUNT(row); i++) {
        make(row[i].size);
        assert_int_equal(tn_file_init(&f, &cfg), row[i].want);
        if (row[i].want == 0)
            assert_int_equal(f.disk.size, row[i].size);
        tn_file_close(&f);
    }
    cfg.depth = TN_FILE_DEPTH_MAX + 1;
    assert_int_equal(tn_file_init(&f, &cfg), TN_EINVAL);
    cfg.depth = 0;
    cfg.path = temp_dir;
    assert_int_equal(tn_file_init(&f, &cfg), TN_ESYS);
    assert_int_equal(errno, EISDIR);
    cfg.read_only = true;
    assert_int_equal(tn_file_init(&f, &cfg), TN_EINVAL);
    cfg.path = "/dev/null";
    assert_int_equal(tn_file_init(&f, &cfg), TN_EINVAL);
    cfg.path = path;
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(tn_file_init(&f, &cfg), TN_EINVAL); /* and it does not wait for a writer */
    cfg.read_only = false;
    assert_int_equal(tn_file_init(&f, &cfg), TN_EINVAL);
    unlink(path);

    make(512);
    static const struct {
        int flags;
        bool read_only, direct;
        int want;
    } mode[] = {{O_RDONLY, false, false, TN_EINVAL},
                {O_WRONLY, false, false, TN_EINVAL},
                {O_WRONLY, true, false, TN_EINVAL},
                {O_PATH, true, false, TN_EINVAL},
                {O_RDWR, false, true, TN_EINVAL},
                {O_RDWR | O_APPEND, false, false, TN_EINVAL}, /* all writes would go to the end */
                {O_RDWR | O_APPEND, true, false, 0},
                {O_RDONLY, true, false, 0},
                {O_RDWR, true, false, 0},
                {O_RDWR | O_NONBLOCK, false, false, 0}};
    for (size_t i = 0; i < COUNT(mode); i++) {
        fd = open(path, mode[i].flags | O_CLOEXEC);
        assert_true(fd >= 0);
        cfg = cfg_of(true);
        cfg.path = NULL;
        cfg.fd = fd;
        cfg.read_only = mode[i].read_only;
        cfg.direct = mode[i].direct;
        assert_int_equal(tn_file_init(&f, &cfg), mode[i].want);
        if (mode[i].want == 0) {
            assert_int_equal(once(&f, TN_DISK_READ, 0, buf, 512), 0);
            tn_file_close(&f);
            assert_int_equal(close(fd), -1); /* it was taken over */
        } else {
            assert_int_equal(close(fd), 0);
        }
    }
    cfg.fd = -1;
    assert_int_equal(tn_file_init(&f, &cfg), TN_ESYS);
}

static void two_writers_of_one_file_are_refused(void **state)
{
    struct tn_file_cfg cfg = cfg_of(true), ro = cfg_of(true);
    struct tn_file a, b, c;
    int fd;

    (void)state;
    make(SIZE);
    ro.read_only = true;
    start(&a, &cfg);
    assert_int_equal(tn_file_init(&b, &cfg), TN_EEXIST);
    assert_int_equal(tn_file_init(&b, &ro), TN_EEXIST);
    cfg.no_lock = true;
    start(&b, &cfg);
    tn_file_close(&b); /* does not take a's lock away */
    cfg.no_lock = false;
    assert_int_equal(tn_file_init(&b, &cfg), TN_EEXIST);
    tn_file_close(&a);
    start(&a, &ro);
    start(&b, &ro);
    assert_int_equal(tn_file_init(&c, &cfg), TN_EEXIST);
    tn_file_close(&a);
    tn_file_close(&b);
    /* A duplicate of the fd that stays open does not keep the lock. */
    fd = open(path, O_RDWR | O_CLOEXEC);
    ro.path = NULL;
    ro.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    start(&a, &ro);
    tn_file_close(&a);
    start(&a, &cfg);
    tn_file_close(&a);
    close(fd);
}

static void c05_no_content_makes_it_anything_but_raw(void **state)
{
    static const char *const magic[] = {"QFI\xfb\0\0\0\3\0\0\0\0\0\0\1\0\0\0\0\13/etc/passwd",
                                        "KDMV\1\0\0\0", "conectix", "vhdxfile", "tenonovl"};

    (void)state;
    for (size_t i = 0; i < 2 * COUNT(magic); i++) {
        struct tn_file_cfg cfg = cfg_of(i & 1);
        struct tn_file f;

        make(SIZE);
        start(&f, &cfg);
        memset(buf, 0, 512);
        memcpy(buf, magic[i / 2], 8);
        memcpy(buf + 256, "/etc/passwd", 11);
        assert_int_equal(once(&f, TN_DISK_WRITE, 0, buf, 512), 0);
        tn_file_close(&f);
        start(&f, &cfg);
        assert_int_equal(f.disk.size, SIZE);
        assert_int_equal(once(&f, TN_DISK_READ, 0, other, 1024), 0);
        assert_memory_equal(other, buf, 512);
        assert_int_equal(other[512], pattern(512));
        tn_file_close(&f);
    }
}

static void without_io_uring_it_works_all_the_same(void **state)
{
    static const int errors[] = {ENOSYS, EPERM, EMFILE, ENOMEM, EINVAL, 0, 0};
    struct tn_file_cfg cfg = cfg_of(true);
    struct tn_file f;

    (void)state;
    make(SIZE);
    for (size_t i = 0; i < COUNT(errors); i++) {
        hook.setup_error = errors[i];
        hook.strip = i == 5 ? IORING_FEAT_SINGLE_MMAP : i == 6 ? IORING_FEAT_SUBMIT_STABLE : 0;
        start(&f, &cfg);
        assert_int_equal(tn_file_fd(&f), -1);
        assert_int_equal(open_fds(), temp_fds + 1);
        assert_int_equal(once(&f, TN_DISK_READ, 512, buf, 512), 0);
        assert_int_equal(buf[1], pattern(513));
        tn_file_complete(&f);
        tn_file_close(&f);
    }
}

static bool have_uring(void)
{
    struct io_uring_params p;
    int fd;

    memset(&p, 0, sizeof(p));
    fd = (int)syscall(SYS_io_uring_setup, 1, &p);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* ---- moving bytes; each with the ring, if there is one, and without ---- */

static void a_read_only_disk_only_reads(void **state)
{
    (void)state;
    make(SIZE);
    for (int uring = 0; uring < 2; uring++) {
        struct tn_file_cfg cfg = cfg_of(uring);
        struct tn_file f;

        cfg.read_only = true;
        start(&f, &cfg);
        assert_true(f.disk.read_only && !f.disk.discard && !f.disk.zero);
        memset(buf, 0, 512);
        assert_int_equal(once(&f, TN_DISK_WRITE, 0, buf, 512), TN_EUNSUP);
        assert_int_equal(once(&f, TN_DISK_ZERO, 0, NULL, 512), TN_EUNSUP);
        assert_int_equal(once(&f, TN_DISK_DISCARD, 0, NULL, 512), TN_EUNSUP);
        assert_int_equal(once(&f, TN_DISK_FLUSH, 0, NULL, 0), 0);
        assert_int_equal(once(&f, TN_DISK_READ, 0, buf, 512), 0);
        assert_int_equal(buf[5], pattern(5));
        tn_file_close(&f);
    }
}

static void c02_a_range_outside_never_reaches_the_file(void **state)
{
    (void)state;
    make(SIZE);
    for (int uring = 0; uring < 2; uring++) {
        struct tn_file_cfg cfg = cfg_of(uring);
        struct tn_file f;
        struct stat stat_buf;

        start(&f, &cfg);
        assert_int_equal(once(&f, TN_DISK_WRITE, SIZE, buf, 512), TN_ERANGE);
        assert_int_equal(once(&f, TN_DISK_WRITE, SIZE - 512, buf, 1024), TN_ERANGE);
        assert_int_equal(once(&f, TN_DISK_WRITE, UINT64_MAX - 511, buf, 512), TN_ERANGE);
        assert_int_equal(once(&f, TN_DISK_READ, 7, buf, 512), TN_ERANGE);
        assert_int_equal(once(&f, TN_DISK_ZERO, 512, NULL, SIZE), TN_ERANGE);
        assert_int_equal(once(&f, 77, 0, buf, 512), TN_EUNSUP);
        assert_int_equal(once(&f, TN_DISK_READ, SIZE, buf, 0), 0);
        assert_int_equal(hook.transfers, 0);
        tn_file_close(&f);
        assert_int_equal(stat(path, &stat_buf), 0);
        assert_int_equal(stat_buf.st_size, SIZE);
    }
}

/* Random requests, many at a time, on disjoint ranges, against a copy in memory. */
static void model(const struct tn_file_cfg *cfg, size_t align, uint64_t seed)
{
    enum { ASKS = 96, PIECES = 8 };
    static uint8_t ram[SIZE], data[2 * SIZE] __attribute__((aligned(4096)));
    static struct ask ask[ASKS];
    static struct tn_iov iov[ASKS][PIECES];
    struct tn_file f;
    uint64_t slot = SIZE / ASKS / 4096 * 4096;

    make(SIZE);
    for (uint64_t i = 0; i < SIZE; i++)
        ram[i] = pattern(i);
    start(&f, cfg);
    for (unsigned round = 0; round < 12; round++) {
        unsigned kicks = 1 + (unsigned)(test_random(&seed) % 40);

        for (unsigned i = 0; i < ASKS; i++) {
            uint32_t block = f.disk.block_size, op = (uint32_t)(test_random(&seed) % 5);
            uint64_t skip = test_random(&seed) % (slot / block);
            uint64_t len = (1 + test_random(&seed) % (slot / block - skip)) * block;
            uint64_t at = i * slot + skip * block, left = len;
            uint8_t *mine = data + i * (slot + 4096) + (align == 1 ? test_random(&seed) % 64 : 0);
            struct ask *a = &ask[i];
            uint32_t n = 0;

            if (op == TN_DISK_FLUSH)
                at = len = 0;
            ask_set(a, op, at, NULL, len);
            a->req.flags = (uint32_t)(test_random(&seed) % 4);
            if (op == TN_DISK_ZERO || op == TN_DISK_DISCARD)
                memset(ram + at, 0, len); /* on files both read as zeroes */
            if (op == TN_DISK_READ || op == TN_DISK_WRITE) {
                for (; left > 0 && n < PIECES; n++) {
                    uint64_t part = test_random(&seed) % (left + 1) / align * align;

                    iov[i][n].base = mine + (len - left);
                    iov[i][n].len = n == PIECES - 1 ? left : part;
                    left -= iov[i][n].len;
                }
                a->req.iov = iov[i];
                a->req.iovs = n;
                for (uint64_t k = 0; op == TN_DISK_WRITE && k < len; k++)
                    ram[at + k] = mine[k] = (uint8_t)test_random(&seed);
            }
            f.disk.ops->submit(f.disk.ctx, &a->req);
            if (i % kicks == 0)
                f.disk.ops->kick(f.disk.ctx);
        }
        f.disk.ops->drain(f.disk.ctx);
        for (unsigned i = 0; i < ASKS; i++) {
            assert_int_equal(ask[i].times, 1);
            assert_int_equal(ask[i].result, 0);
            if (ask[i].req.op == TN_DISK_READ)
                assert_memory_equal(iov[i][0].base, ram + ask[i].req.offset, ask[i].req.len);
        }
        expect_bytes(0, ram, SIZE);
    }
    tn_file_close(&f);
}

static void random_requests_do_what_a_copy_in_memory_does(void **state)
{
    static const uint32_t depths[] = {1, 3, 0, 200};

    (void)state;
    for (size_t i = 0; i < COUNT(depths); i++) {
        struct tn_file_cfg cfg = cfg_of(true);

        cfg.depth = depths[i];
        model(&cfg, 1, 42 + i);
        cfg.no_uring = true;
        model(&cfg, 1, 99 + i);
    }
}

static void short_interrupted_and_refused_transfers_are_finished(void **state)
{
    static const size_t parts[] = {1, 100, 511, 512, 513, 4096};
    static const int soft[] = {EAGAIN, EINTR, ECANCELED, EFAULT, EINVAL, EOPNOTSUPP};

    (void)state;
    for (size_t i = 0; i < COUNT(parts); i++) {
        for (int uring = 0; uring < 2; uring++) {
            struct tn_file_cfg cfg = cfg_of(uring);

            if (parts[i] == 1)
                continue; /* by the model below it would take long */
            memset(&hook, 0, sizeof(hook));
            hook.part = parts[i];
            hook.ring_short = (unsigned)parts[i];
            hook.fail_at = 3;
            hook.error = i & 1 ? EINTR : EAGAIN;
            model(&cfg, 1, 7 + i);
            assert_true(!uring || !have_uring() || hook.results > 0);
            assert_true(hook.transfers > 0);
        }
    }
    for (size_t i = 0; i < COUNT(soft); i++) {
        struct tn_file_cfg cfg = cfg_of(true);

        memset(&hook, 0, sizeof(hook));
        hook.ring_error = soft[i];
        model(&cfg, 1, 70 + i);
    }
    memset(&hook, 0, sizeof(hook));
    hook.part = hook.ring_short = 1;
    for (int uring = 0; uring < 2; uring++) {
        struct tn_file_cfg cfg = cfg_of(uring);
        struct tn_file f;

        make(SIZE);
        start(&f, &cfg);
        assert_int_equal(once(&f, TN_DISK_READ, 1024, buf, 1536), 0);
        for (uint64_t k = 0; k < 1536; k++)
            assert_int_equal(buf[k], pattern(1024 + k));
        tn_file_close(&f);
    }
}

static void errors_of_the_host_come_through_by_name(void **state)
{
    static const struct {
        int error, want;
    } row[] = {{EIO, TN_ESYS}, {ENOSPC, TN_ENOSPC}, {EDQUOT, TN_ENOSPC}, {EFAULT, TN_ESYS}};

    (void)state;
    make(SIZE);
    for (size_t i = 0; i < COUNT(row); i++) {
        for (int uring = 0; uring < 2; uring++) {
            for (uint32_t op = 0; op < TN_DISK_DISCARD; op++) {
                struct tn_file_cfg cfg = cfg_of(uring);
                struct tn_file f;

                memset(&hook, 0, sizeof(hook));
                start(&f, &cfg);
                hook.transfers = 0;
                hook.error = hook.ring_error = row[i].error;
                hook.fail_at = 1;
                assert_int_equal(once(&f, op, 0, op == TN_DISK_FLUSH ? NULL : buf,
                                      op == TN_DISK_FLUSH ? 0 : 512),
                                 row[i].want);
                assert_int_equal(errno, row[i].error);
                /* In mid-transfer, of what a short one left. */
                if (op != TN_DISK_FLUSH) {
                    hook.ring_error = 0;
                    hook.part = hook.ring_short = 512;
                    hook.transfers = 0;
                    hook.fail_at = tn_file_fd(&f) < 0 ? 2 : 1;
                    assert_int_equal(once(&f, op, 0, buf, 4096), row[i].want);
                    assert_int_equal(errno, row[i].error);
                }
                /* The host says once that data were lost: no later flush may deny it. */
                hook.fail_at = 0;
                hook.ring_error = 0;
                assert_int_equal(once(&f, op, 0, op == TN_DISK_FLUSH ? NULL : buf,
                                      op == TN_DISK_FLUSH ? 0 : 512),
                                 op == TN_DISK_FLUSH ? TN_ESYS : 0);
                tn_file_close(&f);
            }
        }
    }
    /* What is always "try again" ends, too. */
    struct tn_file_cfg cfg = cfg_of(false);
    struct tn_file f;

    memset(&hook, 0, sizeof(hook));
    start(&f, &cfg);
    hook.error = EAGAIN;
    hook.fail_at = 1;
    hook.stay = true;
    assert_int_equal(once(&f, TN_DISK_READ, 0, buf, 512), TN_ESYS);
    assert_int_equal(errno, EAGAIN);
    tn_file_close(&f);
}

static void a_file_that_was_cut_off_fails_reads(void **state)
{
    (void)state;
    for (int uring = 0; uring < 2; uring++) {
        for (int direct = 0; direct < 2; direct++) {
            static uint8_t page[8192] __attribute__((aligned(4096)));
            struct tn_file_cfg cfg = cfg_of(uring);
            struct tn_file f;
            int got;

            make(SIZE);
            cfg.direct = direct;
            got = tn_file_init(&f, &cfg);
            if (got == TN_ENODEV)
                continue;
            assert_int_equal(got, 0);
            assert_int_equal(truncate(path, 4096 + 700), 0);
            assert_int_equal(once(&f, TN_DISK_READ, 0, page, 4096), 0);
            assert_int_equal(once(&f, TN_DISK_READ, 4096, page, 4096), TN_ESYS);
            assert_int_equal(errno, EIO);
            assert_int_equal(once(&f, TN_DISK_READ, 65536, page, 4096), TN_ESYS);
            assert_int_equal(once(&f, TN_DISK_READ, 65536, page + 1, 4096), TN_ESYS);
            assert_int_equal(truncate(path, 0), 0);
            assert_int_equal(once(&f, TN_DISK_READ, 0, page, 4096), TN_ESYS);
            tn_file_close(&f);
        }
    }
}

static void a_request_may_have_more_iovecs_than_the_kernel_takes(void **state)
{
    static struct tn_iov many[4096];

    (void)state;
    for (int uring = 0; uring < 2; uring++) {
        struct tn_file_cfg cfg = cfg_of(uring);
        struct tn_file f;
        struct ask a;

        make(SIZE);
        start(&f, &cfg);
        for (uint32_t i = 0; i < 4096; i++) {
            many[i].base = buf + 3 * i;
            many[i].len = 1 + (i % 2);
        }
        memset(buf, 0, sizeof(buf));
        ask_set(&a, TN_DISK_READ, 512, NULL, 6144);
        a.req.iov = many;
        a.req.iovs = 4096;
        assert_int_equal(run(&f, &a), 0);
        for (uint32_t i = 0, at = 512; i < 4096; at += 1 + i % 2, i++)
            assert_int_equal(buf[3 * i], pattern(at));
        for (uint32_t i = 0; i < 4096; i++)
            buf[3 * i] = buf[3 * i + 1] = (uint8_t)i;
        a.times = 0;
        a.req.op = TN_DISK_WRITE;
        assert_int_equal(run(&f, &a), 0);
        for (uint32_t i = 0, at = 0; i < 4096; i++) {
            other[at++] = (uint8_t)i;
            if (i % 2)
                other[at++] = (uint8_t)i;
        }
        expect_bytes(512, other, 6144);
        /* Iovecs that are shorter than len says. */
        ask_set(&a, TN_DISK_READ, 0, buf, 512);
        a.one.len = 500;
        assert_int_equal(run(&f, &a), TN_ESYS);
        tn_file_close(&f);
    }
}

/* ---- durability, holes ---- */

static void flush_and_fua_reach_the_device(void **state)
{
    (void)state;
    make(SIZE);
    for (int uring = 0; uring < 2; uring++) {
        struct tn_file_cfg cfg = cfg_of(uring);
        struct tn_file f;
        struct ask a;

        start(&f, &cfg);
        memset(&hook, 0, sizeof(hook));
        if (tn_file_fd(&f) < 0) {
            assert_int_equal(once(&f, TN_DISK_WRITE, 0, buf, 512), 0);
            assert_int_equal(hook.syncs, 0);
            assert_int_equal(once(&f, TN_DISK_FLUSH, 0, NULL, 0), 0);
            assert_int_equal(hook.syncs, 1);
            assert_int_equal(once_flagged(&f, TN_DISK_WRITE, TN_DISK_F_FUA, 0, buf, 512), 0);
            assert_int_equal(hook.syncs, 2);
            assert_int_equal(once_flagged(&f, TN_DISK_ZERO, TN_DISK_F_FUA, 0, NULL, 512), 0);
            assert_int_equal(hook.syncs, 3);
            assert_int_equal(once_flagged(&f, TN_DISK_READ, TN_DISK_F_FUA, 0, buf, 512), 0);
            assert_int_equal(hook.syncs, 3);
        } else {
            struct io_uring_sqe *sqe = (struct io_uring_sqe *)(void *)f.sqes;

            for (uint32_t op = 0; op <= TN_DISK_ZERO; op++) {
                uint32_t tail = *f.sq_tail & f.sq_mask;

                ask_set(&a, op, 0, op < TN_DISK_FLUSH ? buf : NULL, op == TN_DISK_FLUSH ? 0 : 512);
                a.req.flags = TN_DISK_F_FUA;
                hook.results = 0;
                f.disk.ops->submit(f.disk.ctx, &a.req);
                assert_int_equal(a.times, 0);
                if (op == TN_DISK_WRITE)
                    assert_int_equal(sqe[tail].rw_flags, RWF_DSYNC);
                if (op == TN_DISK_READ)
                    assert_int_equal(sqe[tail].rw_flags, 0);
                if (op == TN_DISK_FLUSH)
                    assert_int_equal(sqe[tail].opcode, IORING_OP_FSYNC);
                f.disk.ops->kick(f.disk.ctx);
                f.disk.ops->drain(f.disk.ctx);
                assert_int_equal(a.result, 0);
                assert_int_equal(a.times, 1);
                /* A DISCARD or a ZERO is followed by a flush of its own. */
                assert_int_equal(hook.results, op >= TN_DISK_DISCARD ? 2 : 1);
            }
            /* The rest of a short FUA write is made durable, too. */
            hook.ring_short = 512;
            hook.syncs = 0;
            assert_int_equal(once_flagged(&f, TN_DISK_WRITE, TN_DISK_F_FUA, 0, buf, 4096), 0);
            assert_int_equal(hook.syncs, 1);
            memset(&hook, 0, sizeof(hook));
        }
        tn_file_close(&f);
    }
}

static void holes_give_storage_back(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct tn_file_cfg cfg = cfg_of(i & 1);
        struct tn_file f;
        uint64_t full;

        make(SIZE);
        start(&f, &cfg);
        if (!f.disk.discard) {
            tn_file_close(&f);
            SKIP("this file system punches no holes");
        }
        assert_int_equal(once(&f, TN_DISK_FLUSH, 0, NULL, 0), 0);
        full = blocks();
        if (i & 2)
            assert_int_equal(once_flagged(&f, TN_DISK_ZERO, TN_DISK_F_UNMAP, 65536, NULL, 524288),
                             0);
        else
            assert_int_equal(once(&f, TN_DISK_DISCARD, 65536, NULL, 524288), 0);
        assert_int_equal(once(&f, TN_DISK_FLUSH, 0, NULL, 0), 0);
        assert_true(blocks() + 512 <= full);
        memset(other, 0, 524288);
        expect_bytes(65536, other, 524288);
        other[0] = pattern(65535);
        expect_bytes(65535, other, 1);
        tn_file_close(&f);
    }
}

static void zeroes_are_written_where_fallocate_cannot(void **state)
{
    (void)state;
    memset(other, 0, sizeof(other));
    for (int i = 0; i < 8; i++) {
        struct tn_file_cfg cfg = cfg_of(i & 1);
        struct tn_file f;
        int got;

        make(SIZE);
        memset(&hook, 0, sizeof(hook));
        hook.allocate_error = i & 2 ? EOPNOTSUPP : ENOSYS;
        hook.ring_error = 0;
        cfg.direct = i & 4;
        got = tn_file_init(&f, &cfg);
        if (got == TN_ENODEV)
            continue;
        assert_int_equal(got, 0);
        assert_false(f.disk.discard); /* the probe was answered so */
        assert_true(f.disk.zero);
        hook.ring_error = tn_file_fd(&f) < 0 ? 0 : EOPNOTSUPP;
        assert_int_equal(once(&f, TN_DISK_ZERO, 4096, NULL, 299008), 0);
        expect_bytes(4096, other, 299008);
        other[0] = pattern(4095);
        expect_bytes(4095, other, 1);
        other[0] = pattern(303104);
        expect_bytes(303104, other, 1);
        other[0] = 0;
        hook.part = cfg.direct ? 1024 : 1000;
        if (f.disk.block_size == 512)
            assert_int_equal(once(&f, TN_DISK_ZERO, 512, NULL, 66048), 0);
        hook.error = ENOSPC;
        hook.fail_at = hook.transfers + 2;
        assert_int_equal(once(&f, TN_DISK_ZERO, 0, NULL, 131072), TN_ENOSPC);
        f.disk.discard = true; /* it was there at init, and is not any more */
        assert_int_equal(once(&f, TN_DISK_DISCARD, 0, NULL, 8192), TN_EUNSUP);
        hook.allocate_error = EIO;
        assert_int_equal(once(&f, TN_DISK_DISCARD, 0, NULL, 8192), TN_ESYS);
        hook.allocate_error = EINTR;
        assert_int_equal(once(&f, TN_DISK_DISCARD, 0, NULL, 8192), 0);
        tn_file_close(&f);
    }
}

/* ---- O_DIRECT ---- */

static void direct_access_takes_any_buffer(void **state)
{
    (void)state;
    for (int uring = 0; uring < 2; uring++) {
        struct tn_file_cfg cfg = cfg_of(uring);
        struct tn_file f;
        int got;

        make(SIZE);
        memset(&hook, 0, sizeof(hook));
        cfg.direct = true;
        got = tn_file_init(&f, &cfg);
        if (got == TN_ENODEV)
            SKIP("this file system has no O_DIRECT");
        assert_int_equal(got, 0);
        assert_true(f.disk.block_size >= 512 && f.disk.physical_block >= f.disk.block_size);
        tn_file_close(&f);
        model(&cfg, 1, 5);
        assert_true(hook.transfers > 0); /* bounced */
        hook.transfers = 0;
        model(&cfg, 4096, 6);
        assert_true(!uring || !have_uring() || hook.transfers == 0);
        /* Short ones go on at a block's border. */
        hook.part = 4096;
        hook.ring_short = 4096;
        model(&cfg, 1, 8);
        model(&cfg, 4096, 9);
        hook.ring_short = 100;
        model(&cfg, 4096, 10);
    }
}

static void direct_bounces_report_errors(void **state)
{
    struct tn_file_cfg cfg = cfg_of(true);
    struct tn_file f;
    struct ask a;
    int got;

    (void)state;
    make(SIZE);
    cfg.direct = true;
    got = tn_file_init(&f, &cfg);
    if (got == TN_ENODEV)
        SKIP("this file system has no O_DIRECT");
    assert_int_equal(got, 0);
    for (uint32_t op = TN_DISK_READ; op <= TN_DISK_WRITE; op++) {
        hook.error = ENOSPC;
        hook.fail_at = 1;
        hook.transfers = 0;
        assert_int_equal(once(&f, op, 0, buf + 1, 8192), TN_ENOSPC);
        hook.fail_at = 0;
        ask_set(&a, op, 0, buf + 1, 4096);
        a.one.len = 4000; /* shorter than len says */
        assert_int_equal(run(&f, &a), TN_ESYS);
    }
    hook.part = 100; /* less than a block never gets anywhere */
    assert_int_equal(once(&f, TN_DISK_READ, 0, buf + 1, 4096), TN_ESYS);
    tn_file_close(&f);
}

/* ---- the ring ---- */

static void the_fd_tells_of_completions_and_an_idle_one_is_silent(void **state)
{
    enum { N = 300 };
    static struct ask ask[N];
    struct tn_file_cfg cfg = cfg_of(true);
    struct pollfd p = {-1, POLLIN, 0};
    struct tn_file f;
    unsigned done = 0, turns = 0;

    (void)state;
    make(SIZE);
    cfg.depth = 8;
    start(&f, &cfg);
    if (tn_file_fd(&f) < 0) {
        tn_file_close(&f);
        SKIP("this host has no io_uring");
    }
    p.fd = tn_file_fd(&f);
    assert_int_equal(poll(&p, 1, 0), 0);
    for (unsigned i = 0; i < N; i++) {
        ask_set(&ask[i], i % 3 ? TN_DISK_READ : TN_DISK_FLUSH, 0, i % 3 ? buf + 512 * i : NULL,
                i % 3 ? 512 : 0);
        ask[i].req.offset = i % 3 ? 512 * i : 0;
        f.disk.ops->submit(f.disk.ctx, &ask[i].req);
        assert_true(f.inflight <= 8);
    }
    f.disk.ops->kick(f.disk.ctx);
    while (done < N && turns++ < 10000) {
        done = 0;
        for (unsigned i = 0; i < N; i++)
            done += ask[i].times;
        if (done < N) {
            assert_int_equal(poll(&p, 1, 5000), 1); /* nothing waits for a kick that never comes */
            tn_file_complete(&f);
        }
    }
    assert_int_equal(done, N);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(ask[i].times, 1);
        assert_int_equal(ask[i].result, 0);
    }
    assert_int_equal(poll(&p, 1, 20), 0);
    hook.enters = 0;
    tn_file_complete(&f);
    f.disk.ops->kick(f.disk.ctx);
    f.disk.ops->drain(f.disk.ctx);
    assert_int_equal(hook.enters, 0);
    tn_file_close(&f);
}

static void c04_drain_and_close_wait_for_everything(void **state)
{
    enum { N = 200 };
    static struct ask ask[N];

    (void)state;
    make(SIZE);
    for (int how = 0; how < 4; how++) {
        struct tn_file_cfg cfg = cfg_of(true);
        struct tn_file f;

        memset(&hook, 0, sizeof(hook));
        cfg.depth = 16;
        start(&f, &cfg);
        for (unsigned i = 0; i < N; i++) {
            ask_set(&ask[i], i & 1 ? TN_DISK_WRITE : TN_DISK_READ, 512 * i, buf + 512 * i, 512);
            f.disk.ops->submit(f.disk.ctx, &ask[i].req); /* and no kick */
        }
        hook.enter_many = how & 2 ? 3 : 0;
        hook.enter_error = EINTR;
        if (how & 1)
            f.disk.ops->drain(f.disk.ctx);
        else
            tn_file_close(&f);
        for (unsigned i = 0; i < N; i++)
            assert_int_equal(ask[i].times, 1);
        tn_file_close(&f);
    }
}

static void what_the_ring_does_not_take_is_done_without_it(void **state)
{
    static const struct {
        int error;
        unsigned many;
        bool one;
    } row[] = {{EINTR, 5, false},       {EAGAIN, 1, false}, {EBUSY, 1000000, false},
               {EBADF, 1000000, false}, {0, 1, false},      {0, 0, true},
               {ENOMEM, 3, true}};

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct tn_file_cfg cfg = cfg_of(true);

        memset(&hook, 0, sizeof(hook));
        hook.enter_error = row[i].error;
        hook.enter_many = row[i].many;
        hook.enter_one = row[i].one;
        model(&cfg, 1, 1000 + i);
    }
    /* While some are in the kernel, the call that waits fails: the answers come all the same. */
    struct tn_file_cfg cfg = cfg_of(true);
    struct tn_file f;
    struct ask a;

    memset(&hook, 0, sizeof(hook));
    start(&f, &cfg);
    ask_set(&a, TN_DISK_FLUSH, 0, NULL, 0);
    f.disk.ops->submit(f.disk.ctx, &a.req);
    f.disk.ops->kick(f.disk.ctx);
    hook.enter_error = EBUSY;
    hook.enter_many = 1000000;
    f.disk.ops->drain(f.disk.ctx);
    assert_int_equal(a.times, 1);
    tn_file_close(&f);
}

/* An asker that asks again from inside done, many times: neither stack nor list grows. */
static struct tn_file *again_file;
static unsigned again_left, again_depth, again_deepest;

static void again_done(struct tn_disk_req *req, int result)
{
    assert_int_equal(result, 0);
    if (++again_depth > again_deepest)
        again_deepest = again_depth;
    if (again_left > 0) {
        again_left--;
        again_file->disk.ops->submit(again_file->disk.ctx, req);
        again_file->disk.ops->kick(again_file->disk.ctx);
    }
    again_depth--;
}

static void a_request_may_be_submitted_again_from_done(void **state)
{
    (void)state;
    make(SIZE);
    for (int how = 0; how < 4; how++) {
        struct tn_file_cfg cfg = cfg_of(how & 1);
        struct tn_file f;
        struct ask a[3];

        memset(&hook, 0, sizeof(hook));
        start(&f, &cfg);
        if (how & 2) {
            hook.enter_many = 1u << 30;
            hook.enter_error = EAGAIN;
        }
        again_file = &f;
        again_left = 20000;
        again_depth = again_deepest = 0;
        for (unsigned i = 0; i < 3; i++) {
            ask_set(&a[i], TN_DISK_READ, 512 * i, buf + 512 * i, 512);
            a[i].req.done = again_done;
            f.disk.ops->submit(f.disk.ctx, &a[i].req);
        }
        f.disk.ops->kick(f.disk.ctx);
        f.disk.ops->drain(f.disk.ctx);
        assert_int_equal(again_left, 0);
        assert_true(again_deepest <= 3);
        tn_file_close(&f);
    }
}

/* ---- block devices ---- */

static void a_block_device_is_asked_for_its_size_and_by_ioctls(void **state)
{
    (void)state;
    memset(other, 0, sizeof(other));
    for (int uring = 0; uring < 2; uring++) {
        struct tn_file_cfg cfg = cfg_of(uring);
        struct tn_file f;

        make(SIZE);
        memset(&hook, 0, sizeof(hook));
        hook.as_device = true;
        start(&f, &cfg);
        assert_int_equal(f.disk.size, SIZE);
        assert_int_equal(f.disk.block_size, 512); /* the page cache takes any */
        assert_int_equal(f.disk.physical_block, 4096);
        assert_true(f.disk.discard && f.disk.zero);
        hook.ioctls = 0;
        assert_int_equal(once(&f, TN_DISK_DISCARD, 4096, NULL, 8192), 0);
        assert_int_equal(hook.ioctls, 1);
        assert_int_equal(once(&f, TN_DISK_ZERO, 16384, NULL, 4096), 0);
        assert_int_equal(hook.ioctls, 2);
        expect_bytes(4096, other, 8192);
        expect_bytes(16384, other, 4096);
        assert_int_equal(once(&f, TN_DISK_DISCARD, 0, NULL, 0), 0);
        hook.error = EIO;
        hook.fail_at = hook.transfers + 1;
        assert_int_equal(once(&f, TN_DISK_DISCARD, 4096, NULL, 8192), TN_ESYS);
        hook.error = EINTR;
        hook.fail_at = hook.transfers + 1;
        assert_int_equal(once(&f, TN_DISK_DISCARD, 4096, NULL, 8192), 0);
        hook.error = EOPNOTSUPP;
        hook.fail_at = hook.transfers + 1;
        assert_int_equal(once(&f, TN_DISK_DISCARD, 4096, NULL, 8192), TN_EUNSUP);
        hook.fail_at = hook.transfers + 1;
        assert_int_equal(once(&f, TN_DISK_ZERO, 65536, NULL, 8192), 0); /* written */
        expect_bytes(65536, other, 8192);
        tn_file_close(&f);
    }
    for (unsigned n = 1; n <= 3; n++) {
        struct tn_file_cfg cfg = cfg_of(true);
        struct tn_file f;

        hook.transfers = 0;
        hook.fail_at = n;
        hook.error = EIO;
        assert_int_equal(tn_file_init(&f, &cfg), TN_ESYS);
        assert_int_equal(errno, EIO);
    }
}

static void a_loop_device_serves(void **state)
{
    struct loop_info64 info;
    /* qemu-user does not know the ioctls of block devices. */
    int control = test_emulated() ? -1 : open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int loop = -1, file, n;
    char name[64];

    (void)state;
    make(SIZE);
    n = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
    if (control >= 0)
        close(control);
    if (n >= 0) {
        snprintf(name, sizeof(name), "/dev/loop%d", n);
        loop = open(name, O_RDWR | O_CLOEXEC);
    }
    file = open(path, O_RDWR | O_CLOEXEC);
    if (loop < 0 || ioctl(loop, LOOP_SET_FD, file) < 0) {
        if (loop >= 0)
            close(loop);
        close(file);
        SKIP("this host gives no loop device");
    }
    close(file);
    memset(&info, 0, sizeof(info));
    info.lo_flags = LO_FLAGS_AUTOCLEAR; /* it goes when the last fd of it goes */
    assert_int_equal(ioctl(loop, LOOP_SET_STATUS64, &info), 0);
    memset(other, 0, sizeof(other));
    for (int i = 0; i < 4; i++) {
        struct tn_file_cfg cfg = cfg_of(i & 1);
        struct tn_file f, second;

        cfg.path = name;
        cfg.direct = i & 2;
        start(&f, &cfg);
        assert_int_equal(f.disk.size, SIZE);
        assert_int_equal(tn_file_init(&second, &cfg), TN_EEXIST);
        memset(buf, 'a' + i, 8192);
        assert_int_equal(once_flagged(&f, TN_DISK_WRITE, TN_DISK_F_FUA, 4096, buf, 8192), 0);
        memset(buf, 0, 8192);
        assert_int_equal(once(&f, TN_DISK_READ, 4096, buf, 8192), 0);
        assert_int_equal(buf[8191], 'a' + i);
        assert_int_equal(once_flagged(&f, TN_DISK_ZERO, TN_DISK_F_UNMAP, 4096, NULL, 4096), 0);
        n = once(&f, TN_DISK_DISCARD, 8192, NULL, 4096);
        assert_true(n == 0 || n == TN_EUNSUP);
        assert_int_equal(once(&f, TN_DISK_READ, 4096, buf, 4096), 0);
        assert_memory_equal(buf, other, 4096);
        assert_int_equal(once(&f, TN_DISK_FLUSH, 0, NULL, 0), 0);
        tn_file_close(&f);
    }
    close(loop);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_cannot_be_a_disk_is_refused_by_name),
        TEST(two_writers_of_one_file_are_refused),
        TEST(c05_no_content_makes_it_anything_but_raw),
        TEST(without_io_uring_it_works_all_the_same),
        TEST(a_read_only_disk_only_reads),
        TEST(c02_a_range_outside_never_reaches_the_file),
        TEST(random_requests_do_what_a_copy_in_memory_does),
        TEST(short_interrupted_and_refused_transfers_are_finished),
        TEST(errors_of_the_host_come_through_by_name),
        TEST(a_file_that_was_cut_off_fails_reads),
        TEST(a_request_may_have_more_iovecs_than_the_kernel_takes),
        TEST(flush_and_fua_reach_the_device),
        TEST(holes_give_storage_back),
        TEST(zeroes_are_written_where_fallocate_cannot),
        TEST(direct_access_takes_any_buffer),
        TEST(direct_bounces_report_errors),
        TEST(the_fd_tells_of_completions_and_an_idle_one_is_silent),
        TEST(c04_drain_and_close_wait_for_everything),
        TEST(what_the_ring_does_not_take_is_done_without_it),
        TEST(a_request_may_be_submitted_again_from_done),
        TEST(a_block_device_is_asked_for_its_size_and_by_ioctls),
        TEST(a_loop_device_serves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
