/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * System calls that fail when they are told to, and a count of what a piece of code holds.
 *
 * A test includes this before the headers under test. The names of the calls, from then on, are
 * macros for functions that count, and fail the n-th call of a kind: so it needs neither the linker
 * nor the sanitizers' consent. Calls that only give back (close, munmap, free, unlink and
 * the like) never fail.
 *
 *   fault_arm(FAULT_MMAP, 3, FAULT_FAIL);
 *   r = something();
 *   hit = fault_disarm(); // there was a third mmap; faults.what tells which
 *
 * Counted are the calls of the thread that arms, and of threads that it starts meanwhile, except
 * those whose main function is faults.stranger.
 */
#ifndef TENON_FAULT_H
#define TENON_FAULT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

/* All that the headers under test include: once more would declare the macros' functions. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "test.h"

enum fault_kind {
    FAULT_ALLOC, /* malloc, calloc, strdup */
    FAULT_EPOLL_CTL,
    FAULT_EVENTFD,
    FAULT_FCNTL,
    FAULT_FDATASYNC,
    FAULT_FDOPENDIR,
    FAULT_FSYNC,
    FAULT_FSTAT, /* and fstatat */
    FAULT_FTRUNCATE,
    FAULT_GETRANDOM,
    FAULT_IOCTL,
    FAULT_LSEEK,
    FAULT_MADVISE,
    FAULT_MEMFD,
    FAULT_MKDIR,
    FAULT_MMAP,
    FAULT_OPEN,
    FAULT_OPENAT,
    FAULT_PREAD,
    FAULT_PREADV,
    FAULT_PWRITE,
    FAULT_PWRITEV,
    FAULT_READ,
    FAULT_REALPATH,
    FAULT_RENAMEAT,
    FAULT_RING,    /* what io_uring answers to a flush */
    FAULT_SYSCALL, /* by number */
    FAULT_THREAD,
    FAULT_TIMERFD,
    FAULT_WRITE, /* and eventfd_write */
    FAULT_KINDS  /* none: calls are counted only */
};

enum fault_mode {
    FAULT_FAIL,      /* the n-th fails, with the kind's errno */
    FAULT_INTERRUPT, /* the n-th fails with EINTR: nothing has happened; 0: every other one */
    FAULT_SHORT      /* the n-th transfers half; 0: all of them */
};

static const struct {
    const char *name;
    int error;
} fault_row[FAULT_KINDS + 1] = {
    [FAULT_ALLOC] = {"malloc", ENOMEM},
    [FAULT_EPOLL_CTL] = {"epoll_ctl", ENOSPC},
    [FAULT_EVENTFD] = {"eventfd", EMFILE},
    [FAULT_FCNTL] = {"fcntl", ENOLCK},
    [FAULT_FDATASYNC] = {"fdatasync", EIO},
    [FAULT_FDOPENDIR] = {"fdopendir", ENOMEM},
    [FAULT_FSYNC] = {"fsync", EIO},
    [FAULT_FSTAT] = {"fstat", ENOMEM},
    [FAULT_FTRUNCATE] = {"ftruncate", EFBIG},
    [FAULT_GETRANDOM] = {"getrandom", ENOSYS},
    [FAULT_IOCTL] = {"ioctl", EIO},
    [FAULT_LSEEK] = {"lseek", EIO},
    [FAULT_MADVISE] = {"madvise", ENOMEM},
    [FAULT_MEMFD] = {"memfd_create", ENFILE},
    [FAULT_MKDIR] = {"mkdir", EROFS},
    [FAULT_MMAP] = {"mmap", ENOMEM},
    [FAULT_OPEN] = {"open", EMFILE},
    [FAULT_OPENAT] = {"openat", ENFILE},
    [FAULT_PREAD] = {"pread", EIO},
    [FAULT_PREADV] = {"preadv", EIO},
    [FAULT_PWRITE] = {"pwrite", EDQUOT},
    [FAULT_PWRITEV] = {"pwritev", EIO},
    [FAULT_READ] = {"read", EIO},
    [FAULT_REALPATH] = {"realpath", EACCES},
    [FAULT_RENAMEAT] = {"renameat", EXDEV},
    [FAULT_RING] = {"flush", EIO},
    [FAULT_SYSCALL] = {"syscall", ENOMEM},
    [FAULT_THREAD] = {"pthread_create", EAGAIN},
    [FAULT_TIMERFD] = {"timerfd_create", EMFILE},
    [FAULT_WRITE] = {"write", EIO},
    [FAULT_KINDS] = {"nothing", 0},
};

static struct {
    uint32_t armed; /* atomic: 0, or the number of the arming, by which threads know theirs */
    uint32_t last;
    enum fault_kind kind;
    enum fault_mode mode;
    uint64_t n;                 /* which call */
    uint64_t seen[FAULT_KINDS]; /* atomic: calls so far */
    bool hit;                   /* atomic */
    uint64_t what; /* of the call: ioctl's request, syscall's number, flags or the like */
    void *(*stranger)(void *);

    pthread_mutex_t lock; /* guards what follows */
    int64_t allocations;  /* that were not freed */
    struct {
        uintptr_t at, end;
    } map[1024];
    uint32_t maps;
    bool overflow;
} faults = {.lock = PTHREAD_MUTEX_INITIALIZER};

static __thread uint32_t fault_mine; /* the arming that this thread is part of */

static inline void fault_arm(enum fault_kind kind, uint64_t n, enum fault_mode mode)
{
    faults.kind = kind;
    faults.mode = mode;
    faults.n = n;
    memset(faults.seen, 0, sizeof(faults.seen));
    faults.hit = false;
    faults.what = 0;
    fault_mine = ++faults.last;
    __atomic_store_n(&faults.armed, faults.last, __ATOMIC_RELEASE);
}

/* Whether the call was made. */
static inline bool fault_disarm(void)
{
    __atomic_store_n(&faults.armed, 0, __ATOMIC_RELEASE);
    return __atomic_load_n(&faults.hit, __ATOMIC_ACQUIRE);
}

/* Whether this call is the one. */
static inline bool fault_now(enum fault_kind kind, uint64_t what)
{
    uint32_t armed = __atomic_load_n(&faults.armed, __ATOMIC_ACQUIRE);
    uint64_t n;

    if (armed == 0 || armed != fault_mine)
        return false;
    n = __atomic_add_fetch(&faults.seen[kind], 1, __ATOMIC_RELAXED);
    if (kind != faults.kind)
        return false;
    if (faults.n == 0 && faults.mode == FAULT_INTERRUPT && n % 2 == 0)
        return false;
    if (faults.n != 0 && n != faults.n)
        return false;
    __atomic_store_n(&faults.what, what, __ATOMIC_RELAXED);
    __atomic_store_n(&faults.hit, true, __ATOMIC_RELEASE);
    return true;
}

/* Whether the call is to fail; errno is set then. */
static inline bool fault_fails(enum fault_kind kind, uint64_t what)
{
    if (!fault_now(kind, what))
        return false;
    errno = faults.mode == FAULT_FAIL ? fault_row[kind].error : EINTR;
    return true;
}

/*
 * The same for a transfer, of which *len is made less when it is to be short. What /proc gives is
 * neither interrupted nor cut elsewhere than between two entries.
 */
static inline bool fault_cuts(enum fault_kind kind, int fd, size_t *len)
{
    struct statfs fs;

    if (!fault_now(kind, 0))
        return false;
    if (faults.mode == FAULT_FAIL) {
        errno = fault_row[kind].error;
        return true;
    }
    if (fstatfs(fd, &fs) == 0 && fs.f_type == 0x9fa0 /* /proc */) {
        if (*len > 8)
            *len = *len / 16 * 8;
        return false;
    }
    if (faults.mode == FAULT_INTERRUPT) {
        errno = EINTR;
        return true;
    }
    if (*len > 1)
        *len /= 2;
    return false;
}

/* ---- memory ---- */

static inline void fault_count(int n)
{
    pthread_mutex_lock(&faults.lock);
    faults.allocations += n;
    pthread_mutex_unlock(&faults.lock);
}

static inline void *fault_counted(void *p)
{
    if (p)
        fault_count(1);
    return p;
}

static inline void *fault_malloc(size_t size)
{
    return fault_fails(FAULT_ALLOC, size) ? NULL : fault_counted(malloc(size));
}

static inline void *fault_calloc(size_t n, size_t size)
{
    return fault_fails(FAULT_ALLOC, n * size) ? NULL : fault_counted(calloc(n, size));
}

static inline char *fault_strdup(const char *s)
{
    return fault_fails(FAULT_ALLOC, 0) ? NULL : (char *)fault_counted(strdup(s));
}

static inline char *fault_realpath(const char *path, char *out)
{
    if (fault_fails(FAULT_REALPATH, 0))
        return NULL;
    return out ? realpath(path, out) : (char *)fault_counted(realpath(path, NULL));
}

static inline void fault_free(void *p)
{
    if (p)
        fault_count(-1);
    free(p);
}

/* [at, end) is not mapped any more. */
static inline void fault_forget(uintptr_t at, uintptr_t end)
{
    for (uint32_t i = 0; i < faults.maps; i++) {
        uintptr_t from = faults.map[i].at, to = faults.map[i].end;

        if (end <= from || to <= at)
            continue;
        faults.map[i--] = faults.map[--faults.maps];
        if (from < at && faults.maps < COUNT(faults.map)) {
            faults.map[faults.maps].at = from;
            faults.map[faults.maps++].end = at;
        }
        if (end < to && faults.maps < COUNT(faults.map)) {
            faults.map[faults.maps].at = end;
            faults.map[faults.maps++].end = to;
        }
    }
}

static inline void *fault_mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
    uintptr_t p;

    if (fault_fails(FAULT_MMAP, (unsigned long)flags))
        return MAP_FAILED;
    pthread_mutex_lock(&faults.lock);
    p = (uintptr_t)mmap(at, len, prot, flags, fd, offset);
    if (p != (uintptr_t)MAP_FAILED) {
        fault_forget(p, p + (len + 4095) / 4096 * 4096);
        faults.overflow = faults.overflow || faults.maps == COUNT(faults.map);
        if (!faults.overflow) {
            faults.map[faults.maps].at = p;
            faults.map[faults.maps++].end = p + (len + 4095) / 4096 * 4096;
        }
    }
    pthread_mutex_unlock(&faults.lock);
    return (void *)p;
}

static inline int fault_munmap(void *at, size_t len)
{
    int r;

    pthread_mutex_lock(&faults.lock);
    r = munmap(at, len);
    if (r == 0)
        fault_forget((uintptr_t)at, (uintptr_t)at + (len + 4095) / 4096 * 4096);
    pthread_mutex_unlock(&faults.lock);
    return r;
}

static inline int fault_madvise(void *at, size_t len, int advice)
{
    return fault_fails(FAULT_MADVISE, (unsigned long)advice) ? -1 : madvise(at, len, advice);
}

/* ---- threads ---- */

struct fault_thread {
    void *(*fn)(void *);
    void *arg;
    uint32_t mine;
};

static inline void *fault_thread_main(void *arg)
{
    struct fault_thread t = *(struct fault_thread *)arg;

    free(arg);
    fault_mine = t.mine;
    return t.fn(t.arg);
}

static inline int fault_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
                                       void *(*fn)(void *), void *arg)
{
    uint32_t armed = __atomic_load_n(&faults.armed, __ATOMIC_ACQUIRE);
    struct fault_thread *t;
    int r;

    if (fault_now(FAULT_THREAD, fn == faults.stranger))
        return fault_row[FAULT_THREAD].error;
    if (fn == faults.stranger || armed == 0 || armed != fault_mine)
        return pthread_create(thread, attr, fn, arg);
    t = malloc(sizeof(*t));
    if (!t)
        abort();
    t->fn = fn;
    t->arg = arg;
    t->mine = armed;
    r = pthread_create(thread, attr, fault_thread_main, t);
    if (r != 0)
        free(t);
    return r;
}

/* ---- descriptors ---- */

#define FAULT_OPEN_PAGEMAP (1ull << 40) /* in faults.what, beside the flags */
static inline int fault_open(const char *path, int flags, ...)
{
    uint64_t what = (unsigned long)flags;
    va_list args;
    unsigned mode;

    va_start(args, flags);
    mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, unsigned) : 0;
    va_end(args);
    if (strcmp(path, "/proc/self/pagemap") == 0)
        what |= FAULT_OPEN_PAGEMAP;
    return fault_fails(FAULT_OPEN, what) ? -1 : open(path, flags, mode);
}

static inline int fault_openat(int dir, const char *path, int flags, ...)
{
    va_list args;
    unsigned mode;

    va_start(args, flags);
    mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, unsigned) : 0;
    va_end(args);
    return fault_fails(FAULT_OPENAT, (unsigned long)flags) ? -1 : openat(dir, path, flags, mode);
}

static inline int fault_memfd_create(const char *name, unsigned flags)
{
    return fault_fails(FAULT_MEMFD, flags) ? -1 : memfd_create(name, flags);
}

static inline int fault_eventfd(unsigned count, int flags)
{
    return fault_fails(FAULT_EVENTFD, (unsigned long)flags) ? -1 : eventfd(count, flags);
}

static inline int fault_timerfd_create(int clock, int flags)
{
    return fault_fails(FAULT_TIMERFD, (unsigned long)flags) ? -1 : timerfd_create(clock, flags);
}

static inline int fault_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
    if (op != EPOLL_CTL_DEL && fault_fails(FAULT_EPOLL_CTL, (unsigned long)op))
        return -1;
    return epoll_ctl(epoll, op, fd, event);
}

static inline int fault_fcntl(int fd, int command, ...)
{
    va_list args;
    bool back;
    long arg;

    va_start(args, command);
    arg = va_arg(args, long);
    va_end(args);
    back = command == F_OFD_SETLK && ((const struct flock *)arg)->l_type == F_UNLCK;
    if (!back && fault_fails(FAULT_FCNTL, (unsigned long)command))
        return -1;
    return fcntl(fd, command, arg);
}

/* Not those that run a guest, let go who waits, or give back. */
static inline bool fault_may_fail(unsigned long request)
{
    return request != KVM_RUN && request != UFFDIO_WAKE && request != UFFDIO_UNREGISTER;
}

static inline int fault_ioctl(int fd, unsigned long request, ...)
{
    uint64_t what = request;
    va_list args;
    void *arg;

    va_start(args, request);
    arg = va_arg(args, void *);
    va_end(args);
    if (request == KVM_IRQ_LINE)
        what |= (uint64_t)((const struct kvm_irq_level *)arg)->irq << 32;
    if (fault_may_fail(request) && fault_fails(FAULT_IOCTL, what))
        return -1;
    return ioctl(fd, request, arg);
}

static inline long fault_syscall(long number, ...)
{
    enum fault_kind kind = number == SYS_memfd_create ? FAULT_MEMFD : FAULT_SYSCALL;
    va_list args;
    long arg[6];

    va_start(args, number);
    for (int i = 0; i < 6; i++)
        arg[i] = va_arg(args, long);
    va_end(args);
    if (fault_fails(kind, (unsigned long)number))
        return -1;
    return syscall(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}

/* ---- files ---- */

static inline ssize_t fault_read(int fd, void *buf, size_t len)
{
    return fault_cuts(FAULT_READ, fd, &len) ? -1 : read(fd, buf, len);
}

static inline ssize_t fault_write(int fd, const void *buf, size_t len)
{
    return fault_cuts(FAULT_WRITE, fd, &len) ? -1 : write(fd, buf, len);
}

static inline int fault_eventfd_write(int fd, eventfd_t value)
{
    return fault_fails(FAULT_WRITE, 0) ? -1 : eventfd_write(fd, value);
}

static inline ssize_t fault_pread(int fd, void *buf, size_t len, off_t at)
{
    return fault_cuts(FAULT_PREAD, fd, &len) ? -1 : pread(fd, buf, len, at);
}

static inline ssize_t fault_pwrite(int fd, const void *buf, size_t len, off_t at)
{
    return fault_cuts(FAULT_PWRITE, fd, &len) ? -1 : pwrite(fd, buf, len, at);
}

static inline ssize_t fault_preadv(int fd, const struct iovec *iov, int n, off_t at)
{
    return fault_fails(FAULT_PREADV, 0) ? -1 : preadv(fd, iov, n, at);
}

static inline ssize_t fault_pwritev(int fd, const struct iovec *iov, int n, off_t at)
{
    return fault_fails(FAULT_PWRITEV, 0) ? -1 : pwritev(fd, iov, n, at);
}

static inline off_t fault_lseek(int fd, off_t at, int whence)
{
    return fault_fails(FAULT_LSEEK, (unsigned long)whence) ? -1 : lseek(fd, at, whence);
}

static inline int fault_ftruncate(int fd, off_t len)
{
    return fault_fails(FAULT_FTRUNCATE, 0) ? -1 : ftruncate(fd, len);
}

static inline int fault_fsync(int fd)
{
    return fault_fails(FAULT_FSYNC, 0) ? -1 : fsync(fd);
}

static inline int fault_fdatasync(int fd)
{
    return fault_fails(FAULT_FDATASYNC, 0) ? -1 : fdatasync(fd);
}

static inline int fault_fstat(int fd, struct stat *st)
{
    return fault_fails(FAULT_FSTAT, 0) ? -1 : fstat(fd, st);
}

static inline int fault_fstatat(int dir, const char *path, struct stat *st, int flags)
{
    return fault_fails(FAULT_FSTAT, 1) ? -1 : fstatat(dir, path, st, flags);
}

static inline int fault_mkdir(const char *path, mode_t mode)
{
    return fault_fails(FAULT_MKDIR, 0) ? -1 : mkdir(path, mode);
}

static inline DIR *fault_fdopendir(int fd)
{
    return fault_fails(FAULT_FDOPENDIR, 0) ? NULL : fdopendir(fd);
}

static inline int fault_renameat(int from, const char *name, int to, const char *other)
{
    return fault_fails(FAULT_RENAMEAT, 0) ? -1 : renameat(from, name, to, other);
}

static inline ssize_t fault_getrandom(void *buf, size_t len, unsigned flags)
{
    return fault_fails(FAULT_GETRANDOM, flags) ? -1 : getrandom(buf, len, flags);
}

/* tn_file has a place for this one. */
static inline int fault_result(bool flush, int result)
{
    return flush && fault_fails(FAULT_RING, 0) ? -fault_row[FAULT_RING].error : result;
}
#define TN_FILE_RESULT(req, res) fault_result((req)->op == TN_DISK_FLUSH, res)

/* ---- what a process holds ---- */

struct fault_holds {
    int fds;
    int watched; /* descriptors in an epoll */
    int threads;
    int named;           /* mappings of files, memfds and KVM's vCPUs, as the kernel lists them */
    int64_t allocations; /* by the code under test, as are the next two */
    uint32_t maps;
    uint64_t mapped;
};

static inline int fault_entries(const char *path)
{
    DIR *d = opendir(path);
    int n = 0;

    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* The process's threads, without those that the kernel has for a ring. */
static inline int fault_threads(void)
{
    DIR *d = opendir("/proc/self/task");
    char path[300], name[16];
    struct dirent *e;
    int n = 0;

    assert_non_null(d);
    while ((e = readdir(d))) {
        FILE *f;

        snprintf(path, sizeof(path), "/proc/self/task/%s/comm", e->d_name);
        f = fopen(path, "r");
        if (!f)
            continue;
        n += fgets(name, sizeof(name), f) && strncmp(name, "iou-", 4) != 0;
        fclose(f);
    }
    closedir(d);
    return n;
}

/* The lines of a file of /proc that have one of these words. */
static inline int fault_lines(const char *path, const char *word, const char *or_word)
{
    FILE *f = fopen(path, "r");
    char line[512];
    int n = 0;

    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        n += strstr(line, word) || strstr(line, or_word);
    fclose(f);
    return n;
}

static inline void fault_hold(struct fault_holds *out, int epoll)
{
    char path[64];

    memset(out, 0, sizeof(*out));
    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", epoll);
    out->fds = fault_entries("/proc/self/fd");
    out->watched = fault_lines(path, "tfd:", "tfd:");
    out->threads = fault_threads();
    out->named = fault_lines("/proc/self/maps", "/memfd:", "anon_inode:");
    pthread_mutex_lock(&faults.lock);
    out->allocations = faults.allocations;
    for (uint32_t i = 0; i < faults.maps; i++)
        out->mapped += faults.map[i].end - faults.map[i].at;
    out->maps = faults.maps;
    assert_false(faults.overflow);
    pthread_mutex_unlock(&faults.lock);
}

/* Whether no more is held than before; a thread that was joined may be listed for a moment. */
static inline bool fault_same(const struct fault_holds *before, int epoll, struct fault_holds *now)
{
    for (int tries = 0; tries < 2000; tries++) {
        fault_hold(now, epoll);
        if (now->threads == before->threads)
            break;
        usleep(500);
    }
    return memcmp(before, now, sizeof(*now)) == 0;
}

/* ---- the names ---- */

#define calloc         fault_calloc
#define epoll_ctl      fault_epoll_ctl
#define eventfd        fault_eventfd
#define eventfd_write  fault_eventfd_write
#define fcntl          fault_fcntl
#define fdatasync      fault_fdatasync
#define fdopendir      fault_fdopendir
#define free           fault_free
#define fstat          fault_fstat
#define fstatat        fault_fstatat
#define fsync          fault_fsync
#define ftruncate      fault_ftruncate
#define getrandom      fault_getrandom
#define ioctl          fault_ioctl
#define lseek          fault_lseek
#define madvise        fault_madvise
#define malloc         fault_malloc
#define memfd_create   fault_memfd_create
#define mkdir          fault_mkdir
#define mmap           fault_mmap
#define munmap         fault_munmap
#define open           fault_open
#define openat         fault_openat
#define pread          fault_pread
#define preadv         fault_preadv
#define pthread_create fault_pthread_create
#define pwrite         fault_pwrite
#define pwritev        fault_pwritev
#define read           fault_read
#define realpath       fault_realpath
#define renameat       fault_renameat
#define strdup         fault_strdup
#define syscall(...)   fault_syscall(__VA_ARGS__, 0L, 0L, 0L, 0L, 0L, 0L) /* never fewer */
#define timerfd_create fault_timerfd_create
#define write          fault_write

#endif
