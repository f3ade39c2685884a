/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_uffd, on the kernel's userfaultfd; skipped by name where there is none, or it may not be used.
 * What that kernel refuses at its worst is had by standing in for ioctl(2).
 */
#include "tn_uffd.h"

#include "tn_hostmem.h"

#include "kvm_guest.h"

#include <dirent.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/uio.h>

#define PAGE    4096u
#define KIB     1024u
#define MIB     (1024u * KIB)
#define TOUCHES 4u /* threads */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

/* ---- a kernel that refuses ---------------------------------------------------------------- */

/* The next times calls of the request fail with err. */
struct refusal {
    unsigned long request; /* all of these are atomic */
    int err;
    int times;
};

static struct refusal refusals[4];

int ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    void *arg;

    va_start(args, request);
    arg = va_arg(args, void *);
    va_end(args);
    for (size_t i = 0; i < COUNT(refusals); i++) {
        struct refusal *r = &refusals[i];

        if (GET(r->times) <= 0 || GET(r->request) != request)
            continue;
        __atomic_fetch_sub(&r->times, 1, __ATOMIC_ACQ_REL);
        errno = GET(r->err);
        return -1;
    }
    return (int)syscall(SYS_ioctl, fd, request, arg);
}

static void refuse(unsigned i, unsigned long request, int err, int times)
{
    SET(refusals[i].request, request);
    SET(refusals[i].err, err);
    SET(refusals[i].times, times);
}

/* ---- the rig: an image, memory that is filled from it ------------------------------------- */

static struct rig {
    struct tn_uffd u;
    struct tn_uffd_cfg cfg;
    uint8_t *image; /* cfg.size bytes */
    uint32_t calls; /* of fetch; all of these are atomic */
    uint32_t wrong; /* calls with arguments that are not as promised */
    uint32_t gate;  /* 1: fetch waits until it is 0 */
    uint32_t slow;  /* 1: fetch takes its time */
    uint32_t bad;   /* fetches that failed */
    int err;        /* what they return */
    uint64_t from;  /* offsets in [from, to) cannot be fetched */
    uint64_t to;
    uint32_t failed[64]; /* by chunk: calls of failed */
    int failed_err;      /* the last one's */
    int failed_errno;
    void (*on_failed)(void); /* NULL: nothing more to do */
    uint32_t filled;         /* calls of filled */
    int filled_err;
    uint64_t filled_there; /* stats.there in it */
} rig;

#define WAIT_FOR(condition)                                         \
    do {                                                            \
        double end_ = cpu_seconds(CLOCK_MONOTONIC) + 10;            \
        while (!(condition) && cpu_seconds(CLOCK_MONOTONIC) < end_) \
            usleep(50);                                             \
        if (!(condition))                                           \
            fail_msg("line %d: not yet: %s", __LINE__, #condition); \
    } while (0)

static int fetch(void *ctx, uint64_t off, uint8_t *buf, size_t len)
{
    struct rig *r = ctx;
    uint64_t rest = r->cfg.size - off;
    sigset_t mask;

    INC(r->calls);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    if (off >= r->cfg.size || off % r->cfg.chunk != 0 ||
        len != (rest < r->cfg.chunk ? rest : r->cfg.chunk) || (uintptr_t)buf % PAGE != 0 ||
        sigismember(&mask, SIGUSR1) != 1 || sigismember(&mask, SIGALRM) != 1) {
        INC(r->wrong);
        return TN_EBUG;
    }
    while (GET(r->gate))
        usleep(50);
    if (GET(r->slow))
        usleep(200);
    if (off >= GET(r->from) && off < GET(r->to)) {
        memset(buf, 0xbd, len); /* must not be seen */
        INC(r->bad);
        return GET(r->err);
    }
    memcpy(buf, r->image + off, len);
    return 0;
}

static void failed(void *ctx, uint64_t off, int err)
{
    struct rig *r = ctx;

    SET(r->failed_errno, errno);
    SET(r->failed_err, err);
    INC(r->failed[off / r->cfg.chunk % COUNT(r->failed)]);
    if (r->on_failed)
        r->on_failed();
}

static void filled(void *ctx, int err)
{
    struct rig *r = ctx;

    struct tn_uffd_stats s;

    tn_uffd_get_stats(&r->u, &s);
    SET(r->filled_there, s.there);
    SET(r->filled_err, err);
    INC(r->filled);
}

/*
 * Every third page is zeros, but for the last byte of some; no two others are alike, but begin
 * with zeros here and there.
 */
static void paint(uint8_t *p, uint64_t size)
{
    uint64_t seed = 88172645463325252ull;

    memset(p, 0, size);
    for (uint64_t at = 0; at < size; at += 8) {
        uint64_t v = test_random(&seed);

        if (at / PAGE % 3 != 2 && (at / PAGE % 7 != 0 || at % PAGE >= PAGE / 2))
            memcpy(p + at, &v, 8);
    }
    for (uint64_t at = 5 * PAGE; at < size; at += 15 * PAGE)
        p[at + PAGE - 1] = 1;
}

static uint8_t *map(uint64_t size)
{
    uint8_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    assert_true(p != MAP_FAILED);
    return p;
}

/* Whether the kernel lets this process have one, found out once. */
static bool have_uffd(void)
{
    static int have = -1;

    if (have < 0) {
        int fd = tn_uffd_open_();

        have = fd >= 0;
        if (have)
            close(fd);
    }
    return have == 1;
}
#define NEED_UFFD()                                                         \
    do {                                                                    \
        if (!have_uffd())                                                   \
            SKIP("userfaultfd is missing or may not be used (see LIMITS)"); \
    } while (0)

static void make(uint64_t size, uint32_t chunk)
{
    struct rig *r = &rig;

    r->image = malloc(size);
    assert_non_null(r->image);
    paint(r->image, size);
    r->cfg.ptr = map(size);
    r->cfg.size = size;
    r->cfg.chunk = chunk;
    r->cfg.ctx = r;
    r->cfg.fetch = fetch;
    r->cfg.failed = failed;
    r->cfg.filled = filled;
}

static void begin(uint64_t size, uint32_t chunk)
{
    make(size, chunk);
    assert_int_equal(tn_uffd_init(&rig.u, &rig.cfg), 0);
}

static int rig_up(void **state)
{
    (void)state;
    memset(&rig, 0, sizeof(rig));
    memset(refusals, 0, sizeof(refusals));
    rig.u.fd = -1;
    alarm(60);
    return 0;
}

static int rig_down(void **state)
{
    SET(rig.gate, 0);
    if (rig.u.fd >= 0)
        tn_uffd_close(&rig.u);
    if (rig.cfg.ptr)
        munmap(rig.cfg.ptr, rig.cfg.size);
    free(rig.image);
    rig_up(state);
    alarm(0);
    return 0;
}

static struct tn_uffd_stats stats(void)
{
    struct tn_uffd_stats s;

    tn_uffd_get_stats(&rig.u, &s);
    return s;
}

static void is_closed(const struct tn_uffd *u)
{
    assert_int_equal(u->fd, -1);
    assert_int_equal(u->wake_fd, -1);
    assert_null(u->buf);
}

static unsigned entries(const char *dir)
{
    DIR *d = opendir(dir);
    unsigned n = 0;

    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static unsigned fds(void)
{
    return entries("/proc/self/fd");
}

static unsigned threads(void)
{
    return entries("/proc/self/task");
}

static unsigned long statm(unsigned field)
{
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long n = 0;

    assert_non_null(f);
    for (unsigned i = 0; i <= field; i++)
        assert_int_equal(fscanf(f, "%lu", &n), 1);
    fclose(f);
    return n;
}

/* Runs fn in a child, which may spoil itself; its status. */
static int in_child(int (*fn)(void))
{
    int status = -1;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        _exit(fn());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

/* ---- what is refused ---------------------------------------------------------------------- */

static void bad_cfgs_are_refused(void **state)
{
    uint8_t *p = map(4 * PAGE);
    const struct tn_uffd_cfg good = {p, 4 * PAGE, PAGE, &rig, fetch, failed, NULL};
    struct tn_uffd_cfg bad[20];
    size_t n = 0;
    unsigned open = fds(), running = threads();

    (void)state;
#define BAD(field, value) \
    bad[n] = good;        \
    bad[n++].field = (value)
    BAD(ptr, NULL);
    BAD(ptr, p + 1);
    BAD(ptr, p + PAGE - 1);
    BAD(ptr, (uint8_t *)(UINTPTR_MAX - PAGE + 1)); /* ptr + size wraps */
    BAD(ptr, (uint8_t *)(uintptr_t)PAGE);          /* nothing is there */
    BAD(size, 0);
    BAD(size, 1);
    BAD(size, PAGE - 1);
    BAD(size, PAGE + 1);
    BAD(size, 1ull << 63);
    BAD(size, (1ull << 62) + PAGE);
    BAD(size, UINT64_MAX & ~(uint64_t)(PAGE - 1));
    BAD(chunk, 0);
    BAD(chunk, 1);
    BAD(chunk, PAGE / 2);
    BAD(chunk, PAGE + 1);
    BAD(chunk, 3 * PAGE);
    BAD(chunk, UINT32_MAX);
    BAD(fetch, NULL);
    BAD(failed, NULL);
#undef BAD
    assert_int_equal(n, COUNT(bad));
    for (size_t i = 0; i < n; i++) {
        int rc;

        memset(&rig.u, 0xee, sizeof(rig.u));
        rc = tn_uffd_init(&rig.u, &bad[i]);
        if (have_uffd() || rc == TN_EINVAL) /* two of them are told by the kernel */
            assert_int_equal(rc, TN_EINVAL);
        is_closed(&rig.u);
    }
    assert_int_equal(fds(), open);
    assert_int_equal(threads(), running);
    munmap(p, 4 * PAGE);
}

static void memory_of_another_kind_is_refused(void **state)
{
    enum { SHARED, MEMFD, MEMFD_VIEW, HOLE, TAIL, LOCKED, KINDS };
    char path[] = "/tmp/tn_uffd.XXXXXX";
    unsigned open = fds(), running = threads();
    int fd = mkstemp(path);

    (void)state;
    NEED_UFFD();
    assert_true(fd >= 0);
    unlink(path);
    assert_int_equal(ftruncate(fd, 4 * PAGE), 0);
    for (int kind = 0; kind <= KINDS; kind++) {
        struct tn_uffd_cfg cfg = {NULL, 4 * PAGE, PAGE, &rig, fetch, failed, NULL};
        int flags = MAP_ANONYMOUS | MAP_PRIVATE;
        int backing = -1;

        if (kind == SHARED)
            flags = MAP_ANONYMOUS | MAP_SHARED;
        if (kind == MEMFD || kind == MEMFD_VIEW) {
            backing = (int)syscall(SYS_memfd_create, "test", 0u);
            assert_int_equal(ftruncate(backing, 4 * PAGE), 0);
            flags = kind == MEMFD ? MAP_SHARED : MAP_PRIVATE;
        }
        if (kind == KINDS) /* a private view of a file that is none of memory */
            flags = MAP_PRIVATE;
        cfg.ptr =
            mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, flags, kind == KINDS ? fd : backing, 0);
        assert_true(cfg.ptr != MAP_FAILED);
        if (kind == HOLE)
            munmap(cfg.ptr + PAGE, PAGE);
        if (kind == TAIL)
            munmap(cfg.ptr + 3 * PAGE, PAGE);
        if (kind == LOCKED && syscall(SYS_mlock, cfg.ptr, PAGE) < 0)
            munmap(cfg.ptr, PAGE); /* not allowed: a hole, once more */
        memset(&rig.u, 0xee, sizeof(rig.u));
        assert_int_equal(tn_uffd_init(&rig.u, &cfg), TN_EINVAL);
        is_closed(&rig.u);
        munmap(cfg.ptr, 4 * PAGE);
        if (backing >= 0)
            close(backing);
    }
    close(fd);
    assert_int_equal(fds(), open);
    assert_int_equal(threads(), running);
    assert_int_equal(GET(rig.calls), 0);
}

static void a_second_one_over_the_same_memory_is_refused(void **state)
{
    struct tn_uffd second;
    struct tn_uffd_cfg cfg;
    unsigned open;

    (void)state;
    NEED_UFFD();
    begin(8 * PAGE, PAGE);
    open = fds();
    rig.cfg.ptr[0] = 0x77;
    for (unsigned i = 0; i < 3; i++) { /* all of it, its last page, and one page too far */
        cfg = rig.cfg;
        cfg.ptr += (uint64_t)i * 7 * PAGE / 2 / PAGE * PAGE;
        cfg.size = i == 0 ? 8 * PAGE : PAGE;
        memset(&second, 0xee, sizeof(second));
        errno = 0;
        assert_int_equal(tn_uffd_init(&second, &cfg), TN_EEXIST);
        assert_int_equal(errno, EBUSY);
        is_closed(&second);
    }
    assert_int_equal(fds(), open);
    /* The first one goes on. */
    assert_int_equal(rig.cfg.ptr[0], 0x77);
    assert_memory_equal(rig.cfg.ptr + 1, rig.image + 1, 8 * PAGE - 1);
    assert_int_equal(stats().fetched, 8);
    /* And when it is closed, there may be another one. */
    tn_uffd_close(&rig.u);
    assert_int_equal(tn_uffd_init(&rig.u, &rig.cfg), 0);
    assert_memory_equal(rig.cfg.ptr, rig.image, 8 * PAGE);
}

/* In a child: 0 when tn_uffd_init does as wanted. */
static int tried(int want, int want_errno)
{
    struct tn_uffd_cfg cfg = rig.cfg;
    unsigned open = fds();
    int rc;

    cfg.ptr = map(cfg.size);
    errno = 0;
    rc = tn_uffd_init(&rig.u, &cfg);
    if (rc == want && (rc == 0 || errno == want_errno) && (rc == 0 || fds() == open))
        return 0;
    printf("# init: %d, errno %d; wanted %d, errno %d\n", rc, errno, want, want_errno);
    return 1;
}

static bool knob_is_set(void)
{
    FILE *f = fopen("/proc/sys/vm/unprivileged_userfaultfd", "r");
    int value = 0;

    if (f) {
        if (fscanf(f, "%d", &value) != 1)
            value = 0;
        fclose(f);
    }
    return value != 0;
}

static int as_nobody(void)
{
    if (setgid(65534) < 0 || setuid(65534) < 0)
        return 2;
    return tried(TN_ESYS, EPERM);
}

static void no_permission_is_a_named_error(void **state)
{
    (void)state;
    if (geteuid() != 0 || knob_is_set() || access("/proc/self/ns", F_OK) < 0)
        SKIP("must be root, with vm.unprivileged_userfaultfd=0");
    make(8 * PAGE, PAGE);
    assert_int_equal(in_child(as_nobody), 0);
}

static int no_system_call(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {(unsigned short)COUNT(code), code};

    if (setgid(65534) < 0 || setuid(65534) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
        return 2;
    return tried(TN_ENODEV, ENOSYS);
}

static void no_userfaultfd_is_a_named_error(void **state)
{
    (void)state;
    if (geteuid() != 0)
        SKIP("must be root, to be nobody in a child");
    make(8 * PAGE, PAGE);
    assert_int_equal(in_child(no_system_call), 0);
}

/* By the device alone, which must do for touches in the kernel, too. */
static int without_ptrace(void)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct caps[2];
    int pipes[2];

    memset(caps, 0, sizeof(caps));
    if (syscall(SYS_capget, &head, caps) < 0)
        return 2;
    caps[0].effective &= ~(1u << CAP_SYS_PTRACE);
    if (syscall(SYS_capset, &head, caps) < 0 || syscall(SYS_userfaultfd, O_CLOEXEC) >= 0)
        return 3;
    if (tried(0, 0) != 0 || pipe(pipes) < 0)
        return 4;
    if (write(pipes[1], rig.u.cfg.ptr + PAGE, PAGE) != PAGE)
        return 5;
    return memcmp(rig.u.cfg.ptr, rig.image, rig.cfg.size) == 0 ? 0 : 6;
}

static void the_device_is_the_second_way(void **state)
{
    (void)state;
    if (geteuid() != 0 || knob_is_set() || access("/dev/userfaultfd", R_OK | W_OK) < 0)
        SKIP("must be root, with /dev/userfaultfd and vm.unprivileged_userfaultfd=0");
    make(8 * PAGE, PAGE);
    assert_int_equal(in_child(without_ptrace), 0);
}

static void no_descriptor_is_an_error_and_leaks_nothing(void **state)
{
    struct rlimit old, few;
    unsigned open = fds();
    int next = dup(0);

    (void)state;
    NEED_UFFD();
    close(next);
    make(8 * PAGE, PAGE);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    for (unsigned n = 0; n < 2; n++) {
        int rc, err;

        few = old;
        few.rlim_cur = (rlim_t)next + n;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
        rc = tn_uffd_init(&rig.u, &rig.cfg);
        err = errno;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
        assert_int_equal(rc, TN_ESYS);
        assert_int_equal(err, EMFILE);
        is_closed(&rig.u);
        assert_int_equal(fds(), open);
    }
}

static void what_the_kernel_refuses_at_init_is_named(void **state)
{
    static const struct {
        unsigned long request;
        int err, rc;
    } row[] = {
        {UFFDIO_API, EINVAL, TN_ENODEV},
        {UFFDIO_REGISTER, ENOMEM, TN_ESYS},
        {UFFDIO_REGISTER, EBUSY, TN_EEXIST},
        {UFFDIO_REGISTER, EPERM, TN_EINVAL},
    };
    unsigned open = fds();

    (void)state;
    NEED_UFFD();
    make(8 * PAGE, PAGE);
    for (size_t i = 0; i < COUNT(row); i++) {
        refuse(0, row[i].request, row[i].err, 1);
        assert_int_equal(tn_uffd_init(&rig.u, &rig.cfg), row[i].rc);
        assert_int_equal(errno, row[i].err);
        is_closed(&rig.u);
        assert_int_equal(fds(), open);
    }
    assert_int_equal(tn_uffd_init(&rig.u, &rig.cfg), 0);
}

#ifndef SANITIZED
/* Address space for slack bytes more: no buffer of 64 MiB, or no stack. */
static int cramped(uint32_t chunk, uint64_t slack, int err)
{
    struct rlimit limit;
    pthread_attr_t attr;
    struct tn_uffd_cfg cfg = rig.cfg;
    unsigned long before;
    int rc;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 32u << 20); /* more than what libc may keep at hand */
    pthread_setattr_default_np(&attr);
    cfg.chunk = chunk;
    before = statm(0);
    limit.rlim_cur = limit.rlim_max = before * PAGE + slack;
    if (setrlimit(RLIMIT_AS, &limit) < 0)
        return 2;
    rc = tn_uffd_init(&rig.u, &cfg);
    if (rc != TN_ESYS || errno != err)
        return 3;
    if (rig.u.fd != -1 || statm(0) != before)
        return 4;
    return cfg.ptr[0] == 0 ? 0 : 5; /* ordinary memory again */
}

static int no_room_for_the_buffer(void)
{
    return cramped(64 * MIB, 16 * MIB, ENOMEM);
}

static int no_room_for_the_thread(void)
{
    return cramped(64 * KIB, 16 * MIB, EAGAIN);
}
#endif

static void no_memory_is_an_error_and_leaks_nothing(void **state)
{
    (void)state;
    NEED_UFFD();
#ifdef SANITIZED
    SKIP("a sanitizer takes the address space that this test would limit");
#else
    make(64 * MIB, 64 * MIB);
    assert_int_equal(in_child(no_room_for_the_buffer), 0);
    assert_int_equal(in_child(no_room_for_the_thread), 0);
#endif
}

static void a_closed_one_takes_no_calls(void **state)
{
    struct tn_uffd_stats s, zero;

    (void)state;
    NEED_UFFD();
    begin(8 * PAGE, PAGE);
    (void)*(volatile uint8_t *)rig.cfg.ptr;
    munmap(rig.cfg.ptr, rig.cfg.size); /* too early: close must bear it */
    rig.cfg.ptr = NULL;
    errno = EXDEV;
    tn_uffd_close(&rig.u);
    assert_int_equal(errno, EXDEV);
    is_closed(&rig.u);
    tn_uffd_close(&rig.u);
    is_closed(&rig.u);
    assert_int_equal(tn_uffd_fill(&rig.u), TN_ESTATE);
    memset(&zero, 0, sizeof(zero));
    memset(&s, 0xee, sizeof(s));
    tn_uffd_get_stats(&rig.u, &s);
    assert_memory_equal(&s, &zero, sizeof(s));
}

/* ---- what is seen ------------------------------------------------------------------------- */

/* Compares pages of the memory with the image's, in an order of its own. */
struct toucher {
    pthread_t thread;
    uint64_t seed;
    uint64_t first; /* page */
    uint32_t touches;
    uint32_t wrong;
    uint32_t about; /* atomic: to touch */
    uint32_t done;  /* atomic */
};

static void *touch_at_random(void *arg)
{
    struct toucher *who = arg;

    for (uint32_t i = 0; i < who->touches; i++) {
        uint64_t at = test_random(&who->seed) % rig.cfg.size;
        uint64_t len = 1 + test_random(&who->seed) % 200;

        if (len > rig.cfg.size - at)
            len = rig.cfg.size - at;
        if (memcmp(rig.cfg.ptr + at, rig.image + at, len) != 0)
            who->wrong++;
    }
    return NULL;
}

static void *touch_a_page(void *arg)
{
    struct toucher *who = arg;
    uint64_t at = who->first * PAGE;

    INC(who->about);
    if (memcmp(rig.cfg.ptr + at, rig.image + at, PAGE) != 0)
        who->wrong++;
    INC(who->done);
    return NULL;
}

static void go(struct toucher *who, void *(*fn)(void *))
{
    assert_int_equal(pthread_create(&who->thread, NULL, fn, who), 0);
}

static void random_touches_of_threads_see_the_image(void **state)
{
    static const struct {
        uint64_t size;
        uint32_t chunk;
    } row[] = {
        {4 * MIB, PAGE},       {4 * MIB + PAGE, 64 * KIB}, /* a short last chunk */
        {8 * MIB - PAGE, MIB},                             /* the same */
        {PAGE, 64 * KIB},                                  /* nothing but a short chunk */
        {PAGE, PAGE},          {3 * PAGE, 1u << 31},
    };

    NEED_UFFD();
    for (size_t i = 0; i < COUNT(row); i++) {
        struct toucher who[TOUCHES];
        struct tn_uffd_stats s;

        begin(row[i].size, row[i].chunk);
        memset(who, 0, sizeof(who));
        for (unsigned n = 0; n < TOUCHES; n++) {
            who[n].seed = 1 + n;
            who[n].touches = 2000;
            go(&who[n], touch_at_random);
        }
        for (unsigned n = 0; n < TOUCHES; n++) {
            pthread_join(who[n].thread, NULL);
            assert_int_equal(who[n].wrong, 0);
        }
        assert_memory_equal(rig.cfg.ptr, rig.image, rig.cfg.size);
        s = stats();
        assert_int_equal(s.chunks, (row[i].size + row[i].chunk - 1) / row[i].chunk);
        assert_int_equal(s.there, s.chunks);
        assert_int_equal(s.fetched, s.chunks);
        assert_int_equal(s.errors, 0);
        assert_int_equal(s.faults, s.fetched);
        assert_int_equal(s.fetched, GET(rig.calls));
        assert_int_equal(GET(rig.wrong), 0);
        rig_down(state);
    }
}

static void what_was_there_before_is_dropped(void **state)
{
    (void)state;
    NEED_UFFD();
    make(16 * PAGE, 4 * PAGE);
    memset(rig.cfg.ptr, 0xaa, 16 * PAGE);
    assert_int_equal(tn_uffd_init(&rig.u, &rig.cfg), 0);
    assert_memory_equal(rig.cfg.ptr, rig.image, 16 * PAGE);
    assert_int_equal(stats().there, 4);
}

static void host_memory_is_what_is_filled(void **state)
{
    static const uint32_t huge[] = {TN_HOSTMEM_HUGE_NONE, TN_HOSTMEM_HUGE_THP};

    NEED_UFFD();
    for (size_t i = 0; i < COUNT(huge); i++) {
        struct tn_hostmem_cfg cfg;
        struct tn_hostmem mem;

        make(4 * MIB, 64 * KIB);
        memset(&cfg, 0, sizeof(cfg));
        cfg.size = 4 * MIB;
        cfg.anon = true;
        cfg.huge = huge[i];
        cfg.prealloc = true;
        assert_int_equal(tn_hostmem_init(&mem, &cfg), 0);
        munmap(rig.cfg.ptr, rig.cfg.size);
        rig.cfg.ptr = mem.ptr;
        assert_int_equal(tn_uffd_init(&rig.u, &rig.cfg), 0);
        for (uint64_t at = 4 * MIB - PAGE; at < 4 * MIB; at -= 5 * PAGE) /* until it wraps */
            assert_memory_equal(mem.ptr + at, rig.image + at, PAGE);
        assert_int_equal(tn_hostmem_discard(&mem, 0, 4 * MIB), 0);
        assert_memory_equal(mem.ptr, rig.image, 4 * MIB);
        tn_uffd_close(&rig.u);
        tn_hostmem_close(&mem);
        rig.cfg.ptr = NULL;
        rig_down(state);
    }
}

static void threads_that_want_one_chunk_share_one_fetch(void **state)
{
    struct toucher who[TOUCHES];

    (void)state;
    NEED_UFFD();
    begin(2 * MIB, MIB);
    SET(rig.gate, 1);
    memset(who, 0, sizeof(who));
    for (unsigned n = 0; n < TOUCHES; n++) {
        who[n].first = 7 * n % TOUCHES * 3 / 2; /* pages 0, 4, 3, 1: some the same chunk's zeros */
        go(&who[n], touch_a_page);
    }
    for (unsigned n = 0; n < TOUCHES; n++)
        WAIT_FOR(GET(who[n].about));
    WAIT_FOR(GET(rig.calls) == 1);
    usleep(50000); /* they are all asleep by now */
    for (unsigned n = 0; n < TOUCHES; n++)
        assert_int_equal(GET(who[n].done), 0);
    SET(rig.gate, 0);
    for (unsigned n = 0; n < TOUCHES; n++) {
        pthread_join(who[n].thread, NULL);
        assert_int_equal(who[n].wrong, 0);
    }
    assert_int_equal(GET(rig.calls), 1);
    assert_int_equal(stats().faults, 1);
    assert_int_equal(stats().there, 1);
}

static void a_first_touch_by_a_system_call_is_served(void **state)
{
    uint8_t *p, bytes[3 * PAGE], word[] = "tenon";
    struct iovec from, to;
    int pipes[2];
    ssize_t n;

    (void)state;
    NEED_UFFD();
    begin(64 * PAGE, 4 * PAGE);
    p = rig.cfg.ptr;
    assert_int_equal(pipe(pipes), 0);
    /* From it: the kernel reads. Two chunks. */
    assert_int_equal(write(pipes[1], p + 3 * PAGE + 5, 2 * PAGE), 2 * PAGE);
    assert_int_equal(read(pipes[0], bytes, sizeof(bytes)), 2 * PAGE);
    assert_memory_equal(bytes, rig.image + 3 * PAGE + 5, 2 * PAGE);
    /* Into it: the kernel writes. The bytes beside it are the image's. */
    assert_int_equal(write(pipes[1], word, 5), 5);
    assert_int_equal(read(pipes[0], p + 16 * PAGE - 2, 5), 5);
    assert_int_equal(stats().there, 4); /* which are not being read any more */
    memcpy(rig.image + 16 * PAGE - 2, word, 5);
    assert_memory_equal(p + 12 * PAGE, rig.image + 12 * PAGE, 8 * PAGE);
    /* By way of get_user_pages, as KVM does. */
    from.iov_base = p + 40 * PAGE + 1;
    to.iov_base = bytes;
    from.iov_len = to.iov_len = 2 * PAGE;
    n = process_vm_readv(getpid(), &to, 1, &from, 1, 0);
    if (n >= 0) {
        assert_int_equal(n, 2 * PAGE);
        assert_memory_equal(bytes, rig.image + 40 * PAGE + 1, 2 * PAGE);
    }
    close(pipes[0]);
    close(pipes[1]);
    assert_memory_equal(p, rig.image, 64 * PAGE);
    assert_int_equal(stats().there, 16);
    assert_int_equal(stats().errors, 0);
}

/* Each page is touched first by write(2). */
static void *write_pages(void *arg)
{
    struct toucher *who = arg;
    uint8_t bytes[PAGE];
    int pipes[2];

    who->wrong = pipe(pipes) != 0;
    for (uint64_t at = 0; at < rig.cfg.size && who->wrong == 0; at += PAGE) {
        size_t n = 0;

        INC(who->about);
        while (n < PAGE) {
            ssize_t part = write(pipes[1], rig.cfg.ptr + at + n, PAGE - n);

            if (part < 0 && errno != EINTR)
                break;
            n += part > 0 ? (size_t)part : 0;
        }
        for (n = 0; n < PAGE;) {
            ssize_t part = read(pipes[0], bytes + n, PAGE - n);

            if (part < 0 && errno != EINTR)
                break;
            n += part > 0 ? (size_t)part : 0;
        }
        who->wrong += memcmp(bytes, rig.image + at, PAGE) != 0;
    }
    close(pipes[0]);
    close(pipes[1]);
    INC(who->done);
    return NULL;
}

static void signals_to_a_thread_that_waits_ask_for_nothing_twice(void **state)
{
    struct toucher one;

    (void)state;
    NEED_UFFD();
    begin(512 * PAGE, PAGE);
    SET(rig.slow, 1);
    memset(&one, 0, sizeof(one));
    go(&one, write_pages);
    while (!GET(one.done)) {
        pthread_kill(one.thread, KICK);
        usleep(100);
    }
    pthread_join(one.thread, NULL);
    assert_int_equal(one.wrong, 0);
    assert_int_equal(GET(rig.calls), 512);
    assert_int_equal(stats().faults, 512);
}

static void pages_of_zeros_take_no_memory(void **state)
{
    unsigned long before, after;
    uint8_t sum = 0;

    (void)state;
    NEED_UFFD();
    make(64 * MIB, MIB);
    memset(rig.image, 0, 64 * MIB);
    for (unsigned i = 0; i < 64; i++) /* a page in each chunk */
        rig.image[i * MIB + i * PAGE] = 1;
    assert_int_equal(tn_uffd_init(&rig.u, &rig.cfg), 0);
    before = statm(1);
    for (uint64_t at = 0; at < 64 * MIB; at += PAGE)
        sum = (uint8_t)(sum + rig.cfg.ptr[at]);
    after = statm(1);
    assert_int_equal(sum, 64);
#ifdef SANITIZED
    (void)before, (void)after; /* has pages of its own for ours */
#else
    assert_in_range(after - before, 64, 2 * MIB / PAGE); /* 64 pages, the buffer */
#endif
    assert_memory_equal(rig.cfg.ptr, rig.image, 64 * MIB);
    rig.cfg.ptr[MIB] = 9; /* and are no one else's */
    assert_int_equal(rig.cfg.ptr[2 * MIB], 0);
    assert_int_equal(stats().there, 64);
}

static void discarded_pages_are_fetched_again(void **state)
{
    uint8_t *p;

    (void)state;
    NEED_UFFD();
    begin(64 * PAGE, 16 * PAGE);
    p = rig.cfg.ptr;
    memset(p + 17 * PAGE, 0x11, PAGE);
    memset(p + 18 * PAGE, 0x22, PAGE);
    memset(p + 30 * PAGE, 0x33, PAGE);
    assert_int_equal(stats().fetched, 1);
    assert_int_equal(madvise(p + 18 * PAGE, PAGE, MADV_DONTNEED), 0);
    /* Only what was discarded is the image's again. */
    assert_memory_equal(p + 18 * PAGE, rig.image + 18 * PAGE, PAGE);
    for (unsigned i = 0; i < PAGE; i++) {
        assert_int_equal(p[17 * PAGE + i], 0x11);
        assert_int_equal(p[30 * PAGE + i], 0x33);
    }
    assert_int_equal(stats().fetched, 2);
    assert_int_equal(stats().there, 1);
    /* The one after a page that is there, both of bytes that are not zeros. */
    assert_int_equal(madvise(p + 19 * PAGE, PAGE, MADV_DONTNEED), 0);
    assert_memory_equal(p + 16 * PAGE, rig.image + 16 * PAGE, PAGE);
    assert_memory_equal(p + 18 * PAGE, rig.image + 18 * PAGE, 12 * PAGE);
    assert_int_equal(stats().fetched, 3);
    /* A fill doesn't bring back what the caller did not want; a touch does. */
    assert_int_equal(madvise(p, 64 * PAGE, MADV_DONTNEED), 0);
    assert_int_equal(tn_uffd_fill(&rig.u), 0);
    WAIT_FOR(GET(rig.filled) == 1);
    assert_int_equal(stats().fetched, 6);
    assert_memory_equal(p, rig.image, 64 * PAGE);
    assert_int_equal(stats().fetched, 7);
    assert_int_equal(stats().there, 4);
}

/* ---- what can't be had -------------------------------------------------------------------- */

static void *touch_what_fails(void *arg)
{
    struct toucher *who = arg;

    for (uint32_t i = 0; i < who->touches; i++) {
        uint64_t page = test_random(&who->seed) % (rig.cfg.size / PAGE), at = page * PAGE;
        bool lost = at >= GET(rig.from) && at < GET(rig.to);
        static const uint8_t zeros[PAGE];

        if (memcmp(rig.cfg.ptr + at, lost ? zeros : rig.image + at, PAGE) != 0)
            who->wrong++;
        if (lost && GET(rig.failed[at / rig.cfg.chunk]) != 1) /* told before the touch returned */
            who->wrong++;
    }
    INC(who->done);
    return NULL;
}

static void a_fetch_that_fails_is_told_and_lets_all_go(void **state)
{
    struct toucher who[TOUCHES];

    (void)state;
    NEED_UFFD();
    make(64 * 4 * PAGE, 4 * PAGE);
    rig.err = -12345; /* not one of ours */
    rig.from = 10 * rig.cfg.chunk;
    rig.to = 50 * rig.cfg.chunk;
    assert_int_equal(tn_uffd_init(&rig.u, &rig.cfg), 0);
    memset(who, 0, sizeof(who));
    for (unsigned n = 0; n < TOUCHES; n++) {
        who[n].seed = 11 + n;
        who[n].touches = 3000;
        go(&who[n], touch_what_fails);
    }
    for (unsigned n = 0; n < TOUCHES; n++)
        WAIT_FOR(GET(who[n].done));
    for (unsigned n = 0; n < TOUCHES; n++) {
        pthread_join(who[n].thread, NULL);
        assert_int_equal(who[n].wrong, 0);
    }
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(GET(rig.failed[i]), i >= 10 && i < 50 ? 1 : 0);
    assert_int_equal(GET(rig.failed_err), -12345);
    assert_int_equal(stats().errors, 40);
    assert_int_equal(stats().there, 64);
    /* Once discarded, it can be had again. */
    SET(rig.to, 0);
    assert_int_equal(madvise(rig.cfg.ptr, rig.cfg.size, MADV_DONTNEED), 0);
    assert_memory_equal(rig.cfg.ptr, rig.image, rig.cfg.size);
}

static void what_the_kernel_refuses_is_a_failed_chunk(void **state)
{
    static const struct {
        int copies, zeros, unregisters; /* how often each is refused */
        uint32_t told;                  /* calls of failed */
        bool lost;                      /* zeros are seen */
    } row[] = {
        {1, 0, 0, 1, true},  /* no page for the bytes: zeros */
        {1, 1, 0, 1, true},  /* none for the zeros either: ordinary memory */
        {1, 1, 1, 1, false}, /* nor that: the touch is made again, and served */
        {2, 2, 2, 2, false},
    };

    NEED_UFFD();
    for (size_t i = 0; i < COUNT(row); i++) {
        struct toucher who[TOUCHES];

        begin(32 * PAGE, 16 * PAGE);
        refuse(0, UFFDIO_COPY, ENOMEM, row[i].copies);
        refuse(1, UFFDIO_ZEROPAGE, ENOMEM, row[i].zeros);
        refuse(2, UFFDIO_UNREGISTER, ENOMEM, row[i].unregisters);
        SET(rig.gate, 1);
        memset(who, 0, sizeof(who));
        for (unsigned n = 0; n < TOUCHES; n++) {
            who[n].first = 16 + 3 * n; /* not one of zeros */
            go(&who[n], touch_a_page);
        }
        for (unsigned n = 0; n < TOUCHES; n++)
            WAIT_FOR(GET(who[n].about));
        usleep(20000);
        SET(rig.gate, 0);
        for (unsigned n = 0; n < TOUCHES; n++) {
            pthread_join(who[n].thread, NULL);
            assert_int_equal(who[n].wrong, row[i].lost);
        }
        assert_int_equal(GET(rig.failed[0]), 0);
        assert_int_equal(GET(rig.failed[1]), row[i].told);
        assert_int_equal(GET(rig.failed_err), TN_ESYS);
        assert_int_equal(GET(rig.failed_errno), ENOMEM);
        assert_int_equal(stats().errors, row[i].told);
        assert_int_equal(stats().there, 1);
        assert_memory_equal(rig.cfg.ptr, rig.image, 16 * PAGE); /* the other chunk */
        rig_down(state);
    }
}

static void a_mapping_that_changes_is_tried_again(void **state)
{
    (void)state;
    NEED_UFFD();
    begin(32 * PAGE, 16 * PAGE);
    refuse(0, UFFDIO_COPY, EAGAIN, 7);
    refuse(1, UFFDIO_ZEROPAGE, EAGAIN, 7);
    assert_memory_equal(rig.cfg.ptr, rig.image, 32 * PAGE);
    assert_int_equal(GET(refusals[0].times), 0);
    assert_int_equal(GET(refusals[1].times), 0);
    assert_int_equal(stats().errors, 0);
    assert_int_equal(stats().fetched, 2);
}

static void a_mapping_that_changes_for_ever_can_be_closed(void **state)
{
    struct toucher one;

    (void)state;
    NEED_UFFD();
    begin(32 * PAGE, 16 * PAGE);
    refuse(0, UFFDIO_COPY, EAGAIN, 1 << 30);
    memset(&one, 0, sizeof(one));
    go(&one, touch_a_page);
    WAIT_FOR(GET(refusals[0].times) < 1 << 30);
    assert_int_equal(GET(one.done), 0);
    tn_uffd_close(&rig.u);
    pthread_join(one.thread, NULL);
    assert_int_equal(one.wrong, 1);
}

/* ---- fill --------------------------------------------------------------------------------- */

static void a_fill_fetches_the_rest_once(void **state)
{
    (void)state;
    NEED_UFFD();
    begin(MIB + PAGE, 16 * PAGE);
    assert_memory_equal(rig.cfg.ptr + 32 * PAGE, rig.image + 32 * PAGE, PAGE);
    assert_int_equal(stats().there, 1);
    assert_int_equal(tn_uffd_fill(&rig.u), 0);
    WAIT_FOR(GET(rig.filled) == 1);
    assert_int_equal(GET(rig.filled_err), 0);
    assert_int_equal(stats().there, 17);
    assert_int_equal(stats().fetched, 17);
    assert_int_equal(stats().faults, 1);
    /* The source is not needed any more. */
    SET(rig.to, rig.cfg.size);
    SET(rig.err, TN_ESYS);
    assert_memory_equal(rig.cfg.ptr, rig.image, rig.cfg.size);
    assert_int_equal(GET(rig.calls), 17);
    /* Nothing is left to do; the end is told all the same. */
    assert_int_equal(tn_uffd_fill(&rig.u), 0);
    WAIT_FOR(GET(rig.filled) == 2);
    assert_int_equal(GET(rig.filled_err), 0);
    assert_int_equal(GET(rig.calls), 17);
    assert_int_equal(GET(rig.wrong), 0);
}

static void a_touch_goes_before_a_fill(void **state)
{
    struct toucher one;

    (void)state;
    NEED_UFFD();
    begin(MIB, 16 * PAGE);
    SET(rig.gate, 1);
    assert_int_equal(tn_uffd_fill(&rig.u), 0);
    WAIT_FOR(GET(rig.calls) == 1); /* chunk 0 */
    memset(&one, 0, sizeof(one));
    one.first = 255;
    go(&one, touch_a_page);
    WAIT_FOR(GET(one.about));
    usleep(20000);
    SET(rig.from, 16 * PAGE); /* what a fill would fetch next fails, and ends it */
    SET(rig.to, 32 * PAGE);
    SET(rig.err, TN_EAGAIN);
    SET(rig.gate, 0);
    pthread_join(one.thread, NULL);
    assert_int_equal(one.wrong, 0);
    WAIT_FOR(GET(rig.filled) == 1);
    assert_int_equal(GET(rig.filled_err), TN_EAGAIN);
    assert_int_equal(GET(rig.filled_there), 2);
    assert_int_equal(stats().there, 2);
    assert_int_equal(stats().faults, 1);
    /* It took nothing from anyone: it goes on, and the chunk can still be had. */
    assert_int_equal(GET(rig.failed[1]), 0);
    SET(rig.to, 0);
    assert_memory_equal(rig.cfg.ptr + 16 * PAGE, rig.image + 16 * PAGE, 16 * PAGE);
    assert_int_equal(tn_uffd_fill(&rig.u), 0);
    WAIT_FOR(GET(rig.filled) == 2);
    assert_int_equal(GET(rig.filled_err), 0);
    assert_int_equal(stats().there, 16);
    assert_int_equal(stats().errors, 1);
    assert_memory_equal(rig.cfg.ptr, rig.image, rig.cfg.size);
}

static void a_fill_is_ended_by_close(void **state)
{
    (void)state;
    NEED_UFFD();
    begin(8 * MIB, PAGE);
    assert_int_equal(tn_uffd_fill(&rig.u), 0);
    WAIT_FOR(GET(rig.calls) > 0);
    tn_uffd_close(&rig.u);
    if (GET(rig.calls) < 2048)
        assert_int_equal(GET(rig.filled), 0);
    for (uint64_t at = 0; at < 8 * MIB; at += PAGE) {
        static const uint8_t zeros[PAGE];
        bool there = at / PAGE < GET(rig.calls);

        assert_memory_equal(rig.cfg.ptr + at, there ? rig.image + at : zeros, PAGE);
    }
}

/* ---- fork, close, leaks ------------------------------------------------------------------- */

static int a_childs_view(void)
{
    static const uint8_t zeros[PAGE];

    if (memcmp(rig.cfg.ptr, rig.image, 16 * PAGE) != 0)
        return 2;
    rig.cfg.ptr[0] ^= 1; /* its own */
    return memcmp(rig.cfg.ptr + 16 * PAGE, zeros, PAGE) == 0 ? 0 : 3;
}

static void a_forked_child_has_what_was_there(void **state)
{
    (void)state;
    NEED_UFFD();
    begin(64 * PAGE, 16 * PAGE);
    assert_memory_equal(rig.cfg.ptr, rig.image, 16 * PAGE);
    assert_int_equal(in_child(a_childs_view), 0);
    assert_memory_equal(rig.cfg.ptr, rig.image, 64 * PAGE);
    assert_int_equal(stats().there, 4);
}

static void *close_it(void *arg)
{
    tn_uffd_close(&rig.u);
    INC(*(uint32_t *)arg);
    return NULL;
}

/* Threads wait for chunk 0, which is being fetched, and for chunks 1 to 3, which nobody will. */
static void close_with_threads_that_wait(bool forked)
{
    struct toucher who[TOUCHES];
    pthread_t closer;
    uint32_t closed = 0;
    int pipes[2];
    pid_t pid = -1;

    begin(64 * PAGE, 16 * PAGE);
    SET(rig.gate, 1);
    memset(who, 0, sizeof(who));
    for (unsigned n = 0; n < TOUCHES; n++) {
        who[n].first = 16 * n + 1; /* not one of zeros: 1, 17, 33, 49 */
        if (who[n].first % 3 == 2)
            who[n].first++;
        go(&who[n], touch_a_page);
        if (n == 0)
            WAIT_FOR(GET(rig.calls) == 1);
    }
    for (unsigned n = 0; n < TOUCHES; n++)
        WAIT_FOR(GET(who[n].about));
    usleep(20000);
    if (forked) { /* a child that keeps the descriptor */
        assert_int_equal(pipe(pipes), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            char c;
            close(pipes[1]);
            _exit(read(pipes[0], &c, 1) == 0 ? 0 : 1);
        }
        close(pipes[0]);
    }
    assert_int_equal(pthread_create(&closer, NULL, close_it, &closed), 0);
    WAIT_FOR(GET(rig.u.stop));
    usleep(20000);
    assert_int_equal(GET(closed), 0); /* the fetch is awaited */
    SET(rig.gate, 0);
    WAIT_FOR(GET(closed));
    pthread_join(closer, NULL);
    for (unsigned n = 0; n < TOUCHES; n++) {
        WAIT_FOR(GET(who[n].done));
        pthread_join(who[n].thread, NULL);
        assert_int_equal(who[n].wrong, n > 0);
    }
    assert_int_equal(GET(rig.calls), 1);
    if (forked) {
        int status;
        close(pipes[1]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
}

static void a_thread_that_waits_is_let_go_by_close(void **state)
{
    NEED_UFFD();
    close_with_threads_that_wait(false);
    rig_down(state);
    close_with_threads_that_wait(true);
}

static void a_thousand_leave_nothing_behind(void **state)
{
    unsigned open, running;
    unsigned long pages = 0;

    (void)state;
    NEED_UFFD();
    make(64 * PAGE, 16 * PAGE);
    open = fds();
    running = threads();
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(tn_uffd_init(&rig.u, &rig.cfg), 0);
        if (i % 2)
            assert_int_equal(rig.cfg.ptr[i % 64 * PAGE], rig.image[i % 64 * PAGE]);
        if (i % 3 == 0)
            assert_int_equal(tn_uffd_fill(&rig.u), 0);
        tn_uffd_close(&rig.u);
        if (i == 9) /* libc keeps a stack or two */
            pages = statm(0);
    }
    WAIT_FOR(threads() == running); /* the last one is joined, but may be dying yet */
    assert_int_equal(fds(), open);
    assert_int_equal(GET(rig.wrong), 0);
#ifdef SANITIZED
    (void)pages;
#else
    assert_int_equal(statm(0), pages);
#endif
}

static void idle_costs_no_cpu(void **state)
{
    double used;

    (void)state;
    NEED_UFFD();
    begin(64 * PAGE, 16 * PAGE);
    assert_memory_equal(rig.cfg.ptr, rig.image, 32 * PAGE);
    assert_int_equal(tn_uffd_fill(&rig.u), 0);
    WAIT_FOR(GET(rig.filled) == 1);
    used = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID);
    usleep(300000);
    used = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID) - used;
    assert_true(used < 0.02);
}

/* ---- a guest ------------------------------------------------------------------------------ */

#define FAR 0x40000u

/* Sums words of 16 pages, writes a byte of another page, goes on in yet another one. */
static const uint8_t guest_near[] = {
    0xb8, 0x00,      0x20,             /* mov ax, 0x2000 */
    0x8e, 0xd8,                        /* mov ds, ax */
    0x31, 0xf6,                        /* xor si, si */
    0x31, 0xdb,                        /* xor bx, bx */
    0x03, 0x1c,                        /* add bx, [si] */
    0x81, 0xc6,      0x00, 0x10,       /* add si, 0x1000 */
    0x75, 0xf8,                        /* jnz to the add */
    0x89, 0xd8,                        /* mov ax, bx */
    0xe7, PORT_EXIT,                   /* out PORT_EXIT, ax */
    0xb8, 0x00,      0x30,             /* mov ax, 0x3000 */
    0x8e, 0xd8,                        /* mov ds, ax */
    0xc6, 0x06,      0x02, 0x00, 0x5a, /* mov byte [2], 0x5a */
    0xea, 0x00,      0x00, 0x00, 0x40, /* jmp 0x4000:0 */
};
static const uint8_t guest_far[] = {
    0xb0, 'k',       /* mov al, 'k' */
    0xe6, PORT_EXIT, /* out PORT_EXIT, al */
    0xf4,            /* hlt */
};

/* The machine of kvm_guest.h, its RAM filled from the rig's image. */
static void machine(uint32_t chunk)
{
    make(RAM, chunk);
    munmap(rig.cfg.ptr, RAM);
    rig.cfg.ptr = NULL;
    memcpy(rig.image + GUEST, guest_near, sizeof(guest_near));
    memcpy(rig.image + FAR, guest_far, sizeof(guest_far));
    start(NULL, 1, NO_CHIPS);
    rig.cfg.ptr = m.ram;
    assert_int_equal(tn_uffd_init(&rig.u, &rig.cfg), 0);
    assert_int_equal(tn_kvm_x86_get_sregs(&m.cpu[0], &m.reset), 0);
    enter();
}

static uint64_t guest_sum(void)
{
    uint64_t sum = 0;

    for (unsigned n = 0; n < 16; n++)
        sum += test_le(rig.image + 0x20000 + n * PAGE, 2);
    return sum & 0xffff;
}

static int machine_down(void **state)
{
    stop(state); /* unmaps RAM under tn_uffd, which must bear it */
    rig.cfg.ptr = NULL;
    return rig_down(state);
}

static void a_guest_runs_in_memory_that_is_not_there(void **state)
{
    static const uint32_t chunk[] = {PAGE, 64 * KIB, MIB};

    NEED_KVM();
    NEED_UFFD();
    for (size_t i = 0; i < COUNT(chunk); i++) {
        machine(chunk[i]);
        out(PORT_EXIT, 2, guest_sum());
        out(PORT_EXIT, 1, 'k');
        assert_true(stats().there < stats().chunks);
        rig.image[0x30002] = 0x5a;
        assert_memory_equal(m.ram, rig.image, RAM);
        assert_int_equal(GET(rig.wrong), 0);
        machine_down(state);
    }
}

/* What an embedder does: sees to it that no vCPU goes on with zeros. */
static void stop_the_machine(void)
{
    SET(t.quit, 1);
    tn_kvm_interrupt(&m.cpu[0]);
    pthread_kill(t.thread[0], KICK);
}

static void a_guest_whose_memory_is_lost_is_stopped_in_time(void **state)
{
    (void)state;
    NEED_KVM();
    NEED_UFFD();
    machine(64 * KIB);
    rig.on_failed = stop_the_machine;
    SET(rig.from, FAR);
    SET(rig.to, FAR + 64 * KIB);
    SET(rig.err, TN_ETRUNC);
    out(PORT_EXIT, 2, guest_sum());
    SET(rig.gate, 1); /* until the thread has a name */
    threads_start();
    SET(rig.gate, 0);
    pthread_join(t.thread[0], NULL);
    assert_int_equal(GET(t.failed), 0);
    assert_true(GET(t.interrupts) > 0);
    assert_int_equal(GET(t.result), 0);
    assert_int_equal(GET(rig.failed[FAR / (64 * KIB)]), 1);
    assert_int_equal(GET(rig.failed_err), TN_ETRUNC);
    assert_int_equal(m.ram[0x30002], 0x5a); /* what it did before */
}

#define U(name) cmocka_unit_test_setup_teardown(name, rig_up, rig_down)
#define K(name) cmocka_unit_test_setup_teardown(name, rig_up, machine_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        U(bad_cfgs_are_refused),
        U(memory_of_another_kind_is_refused),
        U(a_second_one_over_the_same_memory_is_refused),
        U(no_permission_is_a_named_error),
        U(no_userfaultfd_is_a_named_error),
        U(the_device_is_the_second_way),
        U(no_descriptor_is_an_error_and_leaks_nothing),
        U(what_the_kernel_refuses_at_init_is_named),
        U(no_memory_is_an_error_and_leaks_nothing),
        U(a_closed_one_takes_no_calls),
        U(random_touches_of_threads_see_the_image),
        U(what_was_there_before_is_dropped),
        U(host_memory_is_what_is_filled),
        U(threads_that_want_one_chunk_share_one_fetch),
        U(a_first_touch_by_a_system_call_is_served),
        U(signals_to_a_thread_that_waits_ask_for_nothing_twice),
        U(pages_of_zeros_take_no_memory),
        U(discarded_pages_are_fetched_again),
        U(a_fetch_that_fails_is_told_and_lets_all_go),
        U(what_the_kernel_refuses_is_a_failed_chunk),
        U(a_mapping_that_changes_is_tried_again),
        U(a_mapping_that_changes_for_ever_can_be_closed),
        U(a_fill_fetches_the_rest_once),
        U(a_touch_goes_before_a_fill),
        U(a_fill_is_ended_by_close),
        U(a_forked_child_has_what_was_there),
        U(a_thread_that_waits_is_let_go_by_close),
        U(a_thousand_leave_nothing_behind),
        U(idle_costs_no_cpu),
        K(a_guest_runs_in_memory_that_is_not_there),
        K(a_guest_whose_memory_is_lost_is_stopped_in_time),
    };

    kvm_open();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
