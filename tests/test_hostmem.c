/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_hostmem.h"

#include "test.h"

#include <dirent.h>
#include <sys/wait.h>

#define PAGE 4096u
#define MIB  (1ull << 20)
#define GIB  (1ull << 30)

static int zero_fd; /* the kernel probes an address for us, without a signal */

static bool can_read(const void *p)
{
    int pipes[2];
    bool ok;

    assert_int_equal(pipe(pipes), 0);
    ok = write(pipes[1], p, 1) == 1;
    close(pipes[0]);
    close(pipes[1]);
    return ok;
}

/* Destroys the byte. */
static bool can_write(void *p)
{
    void *volatile hidden = p; /* else gcc warns of a null that is meant */

    return read(zero_fd, hidden, 1) == 1;
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

/* Bytes of address space, by the kernel's count. */
static unsigned long vm_pages(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long n = 0;

    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lu", &n), 1);
    fclose(f);
    return n;
}

static long meminfo(const char *field)
{
    FILE *f = fopen("/proc/meminfo", "r");
    char line[128];
    long value = -1;

    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        if (strncmp(line, field, strlen(field)) == 0)
            value = atol(line + strlen(field));
    fclose(f);
    return value;
}

static void is_closed(const struct tn_hostmem *m)
{
    assert_null(m->ptr);
    assert_int_equal(m->size, 0);
    assert_int_equal(m->fd, -1);
    assert_int_equal(m->how, TN_HOSTMEM_NONE);
    assert_int_equal(m->guard, 0);
    assert_int_equal(m->offset, 0);
}

static struct tn_hostmem_cfg sized(uint64_t size)
{
    struct tn_hostmem_cfg cfg = {.size = size};

    return cfg;
}

static void make(struct tn_hostmem *m, uint64_t size)
{
    struct tn_hostmem_cfg cfg = sized(size);

    assert_int_equal(tn_hostmem_init(m, &cfg), 0);
}

/* A temporary file of size bytes; each page begins with its number + 1. */
static int file_of(uint64_t size)
{
    char path[] = "/tmp/tn_hostmem.XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    unlink(path);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    for (uint64_t at = 0; at < size; at += PAGE) {
        uint8_t number = (uint8_t)(at / PAGE + 1);
        assert_int_equal(pwrite(fd, &number, 1, (off_t)at), 1);
    }
    return fd;
}

/* ---- what is refused ---------------------------------------------------------------------- */

static void bad_sizes_are_refused(void **state)
{
    static const struct {
        uint64_t size;
        uint32_t huge;
    } bad[] = {
        {0, TN_HOSTMEM_HUGE_NONE},
        {1, TN_HOSTMEM_HUGE_NONE},
        {PAGE - 1, TN_HOSTMEM_HUGE_NONE},
        {PAGE + 1, TN_HOSTMEM_HUGE_NONE},
        {1ull << 63, TN_HOSTMEM_HUGE_NONE},
        {(1ull << 62) + PAGE, TN_HOSTMEM_HUGE_NONE},
        {UINT64_MAX, TN_HOSTMEM_HUGE_NONE},
        {UINT64_MAX & ~(uint64_t)(PAGE - 1), TN_HOSTMEM_HUGE_NONE},
        {0, TN_HOSTMEM_HUGE_THP},
        {PAGE + 1, TN_HOSTMEM_HUGE_THP},
        {PAGE, TN_HOSTMEM_HUGE_2M},
        {3 * MIB, TN_HOSTMEM_HUGE_2M},
        {UINT64_MAX & ~(2 * MIB - 1), TN_HOSTMEM_HUGE_2M},
        {2 * MIB, TN_HOSTMEM_HUGE_1G},
        {MIB, TN_HOSTMEM_HUGE_1G + 1},
        {MIB, UINT32_MAX},
    };
    unsigned before = fds();

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        for (int anon = 0; anon < 2; anon++) {
            struct tn_hostmem m;
            struct tn_hostmem_cfg cfg = sized(bad[i].size);
            cfg.huge = bad[i].huge;
            cfg.anon = anon != 0;
            assert_int_equal(tn_hostmem_init(&m, &cfg), TN_EINVAL);
            is_closed(&m);
            tn_hostmem_close(&m);
        }
    }
    assert_int_equal(fds(), before);
}

static void more_than_the_address_space_is_an_error_of_the_host(void **state)
{
    (void)state;
    for (int anon = 0; anon < 2; anon++) {
        struct tn_hostmem m;
        struct tn_hostmem_cfg cfg = sized(1ull << 60);
        cfg.anon = anon != 0;
        errno = 0;
        assert_int_equal(tn_hostmem_init(&m, &cfg), TN_ESYS);
        assert_int_equal(errno, ENOMEM);
        is_closed(&m);
    }
}

static void an_empty_pool_of_huge_pages_is_an_error_at_once(void **state)
{
    uint64_t more = ((uint64_t)meminfo("HugePages_Total:") + 1) * 2 * MIB;
    unsigned before = fds();
    unsigned long pages = vm_pages();

    (void)state;
    if (meminfo("Hugepagesize:") != 2048 || meminfo("HugePages_Surp:") != 0)
        SKIP("this host has no 2 MiB pages, or lends them out");
    for (int i = 0; i < 64; i++) {
        struct tn_hostmem m;
        struct tn_hostmem_cfg cfg = sized(more);
        cfg.huge = TN_HOSTMEM_HUGE_2M;
        cfg.anon = i % 2 != 0;
        cfg.guard = true;
        errno = 0;
        assert_int_equal(tn_hostmem_init(&m, &cfg), TN_ESYS);
        assert_int_equal(errno, ENOMEM);
        is_closed(&m);
        cfg.size = 1024 * GIB;
        cfg.huge = TN_HOSTMEM_HUGE_1G;
        errno = 0;
        assert_int_equal(tn_hostmem_init(&m, &cfg), TN_ESYS);
        assert_int_not_equal(errno, 0);
        is_closed(&m);
    }
    assert_int_equal(fds(), before);
    assert_true(vm_pages() <= pages + 16);
}

static int set_limit(int resource, const struct rlimit *limit)
{
    switch (resource) { /* constants: the parameter's type differs between C libraries */
    case RLIMIT_AS:
        return setrlimit(RLIMIT_AS, limit);
    case RLIMIT_FSIZE:
        return setrlimit(RLIMIT_FSIZE, limit);
    default:
        return setrlimit(RLIMIT_NOFILE, limit);
    }
}

/* Runs in a child: the limit is its own. Exits with errno, or with 200 and above. */
static void limited(int resource, rlim_t to, uint64_t size)
{
    struct rlimit limit = {to, to};
    struct tn_hostmem m;
    struct tn_hostmem_cfg cfg = sized(size);

    if (set_limit(resource, &limit) < 0)
        _exit(200);
    errno = 0;
    if (tn_hostmem_init(&m, &cfg) != TN_ESYS)
        _exit(201);
    if (m.ptr || m.fd != -1)
        _exit(202);
    _exit(errno);
}

static void limits_of_the_process_are_errors_not_signals(void **state)
{
    static const struct {
        int resource;
        rlim_t to;
        int error;
    } limits[] = {
        {RLIMIT_AS, 1 << 20, ENOMEM},
        {RLIMIT_FSIZE, 1 << 20, EFBIG},
        {RLIMIT_NOFILE, 3, EMFILE},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(limits); i++) {
        int status;
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            limited(limits[i].resource, limits[i].to, 64 * MIB);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status)); /* RLIMIT_FSIZE: no SIGXFSZ */
        assert_int_equal(WEXITSTATUS(status), limits[i].error);
    }
}

static void a_name_too_long_is_an_error(void **state)
{
    struct tn_hostmem m;
    struct tn_hostmem_cfg cfg = sized(PAGE);
    char name[300];

    (void)state;
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    cfg.name = name;
    assert_int_equal(tn_hostmem_init(&m, &cfg), TN_ESYS);
    is_closed(&m);
}

/* ---- new memory --------------------------------------------------------------------------- */

static void a_memfd_is_zeroed_named_and_sealed(void **state)
{
    struct tn_hostmem m;
    struct tn_hostmem_cfg cfg = sized(MIB);
    char link[64], name[64] = {0};
    struct stat st;
    uint8_t byte = 7;

    (void)state;
    cfg.name = "ram of vm 3";
    assert_int_equal(tn_hostmem_init(&m, &cfg), 0);
    assert_int_equal(m.size, MIB);
    assert_int_equal(m.how, TN_HOSTMEM_SHARED);
    assert_int_equal((uintptr_t)m.ptr % PAGE, 0);
    for (size_t i = 0; i < MIB; i += 511)
        assert_int_equal(m.ptr[i], 0);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", m.fd);
    assert_true(readlink(link, name, sizeof(name) - 1) > 0);
    assert_non_null(strstr(name, "memfd:ram of vm 3"));
    assert_int_equal(fcntl(m.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);

    errno = 0; /* a file that shrinks would raise SIGBUS in us */
    assert_int_equal(ftruncate(m.fd, PAGE), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(m.fd, 2 * MIB), -1);
    assert_int_equal(fstat(m.fd, &st), 0);
    assert_int_equal(st.st_size, MIB);

    assert_int_equal(pwrite(m.fd, &byte, 1, 5000), 1); /* shared with the file, both ways */
    assert_int_equal(m.ptr[5000], 7);
    m.ptr[5001] = 8;
    assert_int_equal(pread(m.fd, &byte, 1, 5001), 1);
    assert_int_equal(byte, 8);
    tn_hostmem_close(&m);
    is_closed(&m);
}

static void anonymous_memory_has_no_file(void **state)
{
    struct tn_hostmem m, view;
    struct tn_hostmem_cfg cfg = sized(MIB);
    unsigned before = fds();

    (void)state;
    cfg.anon = true;
    assert_int_equal(tn_hostmem_init(&m, &cfg), 0);
    assert_int_equal(fds(), before);
    assert_int_equal(m.fd, -1);
    assert_int_equal(m.how, TN_HOSTMEM_PRIVATE);
    m.ptr[0] = 1;
    m.ptr[MIB - 1] = 2;
    assert_int_equal(tn_hostmem_view(&view, &m), TN_EINVAL);
    is_closed(&view);
    assert_int_equal(tn_hostmem_freeze(&m), TN_ESTATE);
    assert_int_equal(tn_hostmem_discard(&m, 0, PAGE), 0);
    assert_int_equal(m.ptr[0], 0);
    assert_int_equal(m.ptr[MIB - 1], 2);
    tn_hostmem_close(&m);
}

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer) || __SIZEOF_POINTER__ < 8
#define ROOM 0 /* its shadow memory, or its size, leaves no 1 TiB of addresses free */
#else
#define ROOM 1
#endif

static int overcommit(void)
{
    FILE *f = fopen("/proc/sys/vm/overcommit_memory", "r");
    int policy = -1;

    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d", &policy), 1);
    fclose(f);
    return policy;
}

static void a_tebibyte_maps_on_a_small_host(void **state)
{
    (void)state;
    for (int anon = 0; anon < 2; anon++) {
        struct tn_hostmem m;
        struct tn_hostmem_cfg cfg = sized(1024 * GIB);
        int rc;
        cfg.anon = anon != 0;
        errno = 0;
        rc = tn_hostmem_init(&m, &cfg);
        if (rc < 0) { /* only where the host's policy is to commit no more than it has */
            assert_int_equal(rc, TN_ESYS);
            assert_int_equal(errno, ENOMEM);
            assert_true(!ROOM || overcommit() == 2);
            continue;
        }
        m.ptr[0] = 1;
        m.ptr[m.size - 1] = 2;
        assert_int_equal(m.ptr[m.size / 2], 0);
        tn_hostmem_close(&m);
    }
}

static void prealloc_takes_every_page_now(void **state)
{
    (void)state;
    for (int anon = 0; anon < 2; anon++) {
        struct tn_hostmem m;
        struct tn_hostmem_cfg cfg = sized(2 * MIB);
        unsigned char in_core[512];
        struct stat st;
        cfg.anon = anon != 0;
        assert_int_equal(tn_hostmem_init(&m, &cfg), 0);
        assert_int_equal(mincore(m.ptr, m.size, in_core), 0);
        for (size_t i = 0; i < COUNT(in_core); i++)
            assert_int_equal(in_core[i] & 1, 0);
        tn_hostmem_close(&m);

        cfg.prealloc = true;
        if (tn_hostmem_init(&m, &cfg) < 0 && errno == EINVAL)
            SKIP("this kernel has no MADV_POPULATE_WRITE");
        assert_int_equal(mincore(m.ptr, m.size, in_core), 0);
        for (size_t i = 0; i < COUNT(in_core); i++)
            assert_int_equal(in_core[i] & 1, 1);
        if (!anon) {
            assert_int_equal(fstat(m.fd, &st), 0);
            assert_true((uint64_t)st.st_blocks * 512 >= m.size);
        }
        assert_int_equal(m.ptr[12345], 0);
        tn_hostmem_close(&m);
    }
}

static void transparent_huge_pages_are_aligned(void **state)
{
    unsigned long before;
    struct tn_hostmem m[8], view;

    (void)state;
    before = vm_pages();
    for (size_t i = 0; i < COUNT(m); i++) {
        struct tn_hostmem_cfg cfg = sized(2 * MIB + i * PAGE); /* sizes need not be */
        cfg.huge = TN_HOSTMEM_HUGE_THP;
        cfg.anon = i % 2 != 0;
        cfg.guard = i % 4 < 2;
        assert_int_equal(tn_hostmem_init(&m[i], &cfg), 0);
        assert_int_equal((uintptr_t)m[i].ptr % (2 * MIB), 0);
        memset(m[i].ptr, (int)i, m[i].size);
    }
    assert_int_equal(tn_hostmem_view(&view, &m[4]), 0);
    assert_int_equal((uintptr_t)view.ptr % (2 * MIB), 0);
    assert_int_equal(view.ptr[view.size - 1], 4);
    tn_hostmem_close(&view);
    for (size_t i = 0; i < COUNT(m); i++) {
        assert_int_equal(m[i].ptr[m[i].size - 1], i);
        tn_hostmem_close(&m[i]);
    }
    assert_true(vm_pages() <= before + 16); /* the slack of the alignment went back */
}

static void a_pool_of_huge_pages(void **state)
{
    struct tn_hostmem m, view, pool;
    struct tn_hostmem_cfg cfg = sized(2 * MIB);

    (void)state;
    if (meminfo("Hugepagesize:") != 2048 || meminfo("HugePages_Free:") < 3)
        SKIP("fewer than 3 free 2 MiB pages in the host's pool");
    cfg.huge = TN_HOSTMEM_HUGE_2M;
    cfg.prealloc = true;
    cfg.guard = true;
    assert_int_equal(tn_hostmem_init(&m, &cfg), 0);
    assert_int_equal(m.page, 2 * MIB);
    m.ptr[0] = 1;
    assert_false(can_read(m.ptr + m.size));
    assert_int_equal(tn_hostmem_view(&view, &m), 0);
    view.ptr[0] = 2;
    assert_int_equal(m.ptr[0], 1);
    assert_int_equal(tn_hostmem_discard(&view, 0, PAGE), TN_EINVAL);
    assert_int_equal(tn_hostmem_discard(&view, 0, 2 * MIB), 0);
    assert_int_equal(view.ptr[0], 1);
    assert_int_equal(tn_hostmem_reserve(&pool, 4 * MIB, 2 * MIB), 0);
    assert_int_equal(tn_hostmem_map_at(&pool, PAGE, m.fd, 0, 2 * MIB, TN_HOSTMEM_PRIVATE),
                     TN_EINVAL);
    assert_int_equal(tn_hostmem_map_at(&pool, 2 * MIB, m.fd, 0, PAGE, TN_HOSTMEM_PRIVATE),
                     TN_EINVAL);
    assert_int_equal(tn_hostmem_map_at(&pool, 2 * MIB, m.fd, 0, 2 * MIB, TN_HOSTMEM_PRIVATE), 0);
    assert_int_equal(pool.ptr[2 * MIB], 1);
    tn_hostmem_close(&pool);
    tn_hostmem_close(&view);
    assert_int_equal(tn_hostmem_freeze(&m), 0);
    assert_int_equal(m.ptr[0], 1);
    tn_hostmem_close(&m);
}

static void a_guard_follows_the_last_byte(void **state)
{
    unsigned long before = vm_pages();

    (void)state;
    for (int i = 0; i < 64; i++) {
        struct tn_hostmem m;
        struct tn_hostmem_cfg cfg = sized(3 * PAGE);
        cfg.guard = true;
        cfg.anon = (i & 1) != 0;
        cfg.huge = i & 2 ? TN_HOSTMEM_HUGE_THP : TN_HOSTMEM_HUGE_NONE;
        assert_int_equal(tn_hostmem_init(&m, &cfg), 0);
        assert_int_equal(m.size, 3 * PAGE);
        assert_true(can_write(m.ptr + m.size - 1));
        assert_false(can_read(m.ptr + m.size));
        assert_false(can_write(m.ptr + m.size));
        tn_hostmem_close(&m);
    }
    assert_true(vm_pages() <= before + 16);
}

/* ---- views -------------------------------------------------------------------------------- */

static void a_view_copies_on_write(void **state)
{
    struct tn_hostmem golden, a, b, again;

    (void)state;
    make(&golden, MIB);
    memset(golden.ptr, 1, MIB);
    assert_int_equal(tn_hostmem_view(&a, &golden), 0);
    assert_int_equal(tn_hostmem_view(&b, &golden), 0);
    assert_int_equal(a.how, TN_HOSTMEM_PRIVATE);
    assert_int_equal(a.size, MIB);
    a.ptr[0] = 2;
    b.ptr[0] = 3;
    assert_int_equal(golden.ptr[0], 1);
    assert_int_equal(a.ptr[0], 2);
    assert_int_equal(b.ptr[0], 3);
    assert_int_equal(tn_hostmem_view(&again, &a), TN_EINVAL); /* what a wrote is in no file */
    is_closed(&again);

    tn_hostmem_close(&golden); /* the view lives on its own */
    assert_int_equal(a.ptr[MIB - 1], 1);
    assert_int_equal(a.ptr[0], 2);
    tn_hostmem_close(&a);
    tn_hostmem_close(&b);
    assert_int_equal(tn_hostmem_view(&a, &golden), TN_EINVAL); /* closed */
}

static void a_view_takes_no_fd(void **state)
{
    struct tn_hostmem golden, view[100];
    unsigned before;

    (void)state;
    make(&golden, 16 * MIB);
    before = fds();
    for (size_t i = 0; i < COUNT(view); i++)
        assert_int_equal(tn_hostmem_view(&view[i], &golden), 0);
    assert_int_equal(fds(), before);
    for (size_t i = 0; i < COUNT(view); i++)
        tn_hostmem_close(&view[i]);
    tn_hostmem_close(&golden);
}

static void a_frozen_memfd_never_changes(void **state)
{
    struct tn_hostmem golden, view;
    uint8_t byte = 9;
    uint8_t *ptr;
    void *other;

    (void)state;
    make(&golden, MIB);
    ptr = golden.ptr;
    golden.ptr[100] = 1;

    other = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, golden.fd, 0);
    assert_true(other != MAP_FAILED);
    errno = 0;
    assert_int_equal(tn_hostmem_freeze(&golden), TN_ESYS);
    assert_int_equal(errno, EBUSY);
    assert_int_equal(golden.how, TN_HOSTMEM_SHARED);
    golden.ptr[101] = 2;
    assert_int_equal(pread(golden.fd, &byte, 1, 101), 1);
    assert_int_equal(byte, 2);
    munmap(other, PAGE);

    assert_int_equal(tn_hostmem_view(&view, &golden), 0);
    assert_int_equal(tn_hostmem_freeze(&golden), 0);
    assert_ptr_equal(golden.ptr, ptr);
    assert_int_equal(golden.how, TN_HOSTMEM_READ);
    assert_int_equal(golden.ptr[100], 1);
    assert_false(can_write(golden.ptr));
    assert_int_equal(pwrite(golden.fd, &byte, 1, 0), -1);
    assert_int_equal(tn_hostmem_discard(&golden, 0, PAGE), TN_ESTATE);
    assert_int_equal(tn_hostmem_freeze(&golden), TN_ESTATE);
    view.ptr[100] = 3;
    assert_int_equal(golden.ptr[100], 1);
    tn_hostmem_close(&view);
    assert_int_equal(tn_hostmem_view(&view, &golden), 0);
    assert_int_equal(view.ptr[101], 2);
    view.ptr[100] = 3;
    tn_hostmem_close(&view);
    tn_hostmem_close(&golden);
    assert_int_equal(tn_hostmem_freeze(&golden), TN_ESTATE);
}

/* ---- discard ------------------------------------------------------------------------------ */

static void a10_discard_checks_the_whole_range(void **state)
{
    struct tn_hostmem golden, view;
    static const uint64_t bad[][2] = {
        {0, MIB + PAGE},
        {PAGE, MIB},
        {MIB, PAGE},
        {MIB + PAGE, 0},
        {1, PAGE},
        {0, PAGE - 1},
        {PAGE, 1},
        {UINT64_MAX - PAGE + 1, PAGE},
        {UINT64_MAX - PAGE + 1, 2 * PAGE},
        {PAGE, UINT64_MAX - PAGE + 1},
        {0, UINT64_MAX},
        {1ull << 63, 1ull << 63},
    };

    (void)state;
    make(&golden, MIB);
    memset(golden.ptr, 1, MIB);
    assert_int_equal(tn_hostmem_view(&view, &golden), 0);
    memset(view.ptr, 2, MIB);
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(tn_hostmem_discard(&view, bad[i][0], bad[i][1]), TN_EINVAL);
        assert_int_equal(tn_hostmem_discard(&golden, bad[i][0], bad[i][1]), TN_EINVAL);
    }
    assert_int_equal(tn_hostmem_discard(&view, MIB, 0), 0);
    assert_int_equal(tn_hostmem_discard(&view, 0, 0), 0);
    for (size_t i = 0; i < MIB; i += PAGE) {
        assert_int_equal(golden.ptr[i], 1);
        assert_int_equal(view.ptr[i], 2);
    }
    tn_hostmem_close(&view);
    tn_hostmem_close(&golden);
    assert_int_equal(tn_hostmem_discard(&golden, 0, 0), TN_ESTATE);
}

static void discard_of_a_view_brings_the_golden_bytes_back(void **state)
{
    struct tn_hostmem golden, view;

    (void)state;
    make(&golden, MIB);
    memset(golden.ptr, 1, MIB);
    assert_int_equal(tn_hostmem_view(&view, &golden), 0);
    memset(view.ptr, 2, MIB);
    assert_int_equal(tn_hostmem_discard(&view, 4 * PAGE, 2 * PAGE), 0);
    for (size_t page = 0; page < MIB / PAGE; page++)
        assert_int_equal(view.ptr[page * PAGE + 17], page == 4 || page == 5 ? 1 : 2);
    assert_int_equal(tn_hostmem_discard(&view, 0, MIB), 0);
    assert_memory_equal(view.ptr, golden.ptr, MIB);
    tn_hostmem_close(&view);
    tn_hostmem_close(&golden);
}

static void discard_of_a_memfd_gives_its_pages_back(void **state)
{
    struct tn_hostmem golden, view;
    struct stat st;

    (void)state;
    make(&golden, MIB);
    memset(golden.ptr, 1, MIB);
    assert_int_equal(tn_hostmem_view(&view, &golden), 0);
    view.ptr[0] = 2;
    assert_int_equal(tn_hostmem_discard(&golden, 0, MIB), 0);
    assert_int_equal(fstat(golden.fd, &st), 0);
    assert_int_equal(st.st_size, MIB);
    assert_true((uint64_t)st.st_blocks * 512 < MIB / 2);
    assert_int_equal(golden.ptr[0], 0);
    assert_int_equal(view.ptr[0], 2);
    assert_int_equal(view.ptr[PAGE], 0);
    tn_hostmem_close(&view);
    tn_hostmem_close(&golden);
}

/* ---- zero --------------------------------------------------------------------------------- */

static void a10_zero_checks_the_whole_range(void **state)
{
    struct tn_hostmem_cfg cfg = {0};
    struct tn_hostmem m[4]; /* a memfd, a view of it, anonymous memory, a reservation */
    static const uint64_t bad[][2] = {
        {0, MIB + PAGE}, {MIB, PAGE},  {MIB + PAGE, 0}, {1, PAGE},
        {PAGE, 1},       {0, MIB - 1}, {0, UINT64_MAX}, {UINT64_MAX - PAGE + 1, PAGE},
    };

    (void)state;
    cfg.size = MIB;
    cfg.anon = true;
    make(&m[0], MIB);
    memset(m[0].ptr, 1, MIB);
    assert_int_equal(tn_hostmem_view(&m[1], &m[0]), 0);
    assert_int_equal(tn_hostmem_init(&m[2], &cfg), 0);
    assert_int_equal(tn_hostmem_reserve(&m[3], MIB, 0), 0);
    memset(m[2].ptr, 1, MIB);
    for (unsigned k = 0; k < 4; k++) {
        for (size_t i = 0; i < COUNT(bad); i++)
            assert_int_equal(tn_hostmem_zero(&m[k], bad[i][0], bad[i][1]), TN_EINVAL);
        assert_int_equal(tn_hostmem_zero(&m[k], MIB, 0), k % 2 ? TN_EUNSUP : 0);
        for (size_t i = 0; k < 3 && i < MIB; i++)
            assert_int_equal(m[k].ptr[i], 1);
    }
    for (unsigned k = 4; k-- > 0;) {
        tn_hostmem_close(&m[k]);
        assert_int_equal(tn_hostmem_zero(&m[k], 0, 0), TN_ESTATE);
    }
}

static void zero_leaves_zeros_and_gives_memory_back(void **state)
{
    struct tn_hostmem_cfg cfg = {0};
    struct tn_hostmem m, view;
    unsigned char in[512];
    struct stat st;

    (void)state;
    for (unsigned k = 0; k < 4; k++) {
        cfg.size = 2 * MIB;
        cfg.anon = k % 2;
        cfg.huge = k / 2 ? TN_HOSTMEM_HUGE_THP : TN_HOSTMEM_HUGE_NONE;
        assert_int_equal(tn_hostmem_init(&m, &cfg), 0);
        assert_int_equal(m.anon, k % 2);
        memset(m.ptr, 1, 2 * MIB);
        if (!m.anon) {
            assert_int_equal(tn_hostmem_view(&view, &m), 0);
            assert_false(view.anon);
            view.ptr[5 * PAGE] = 3;
        }
        assert_int_equal(tn_hostmem_zero(&m, 4 * PAGE, 2 * PAGE), 0);
        for (size_t page = 0; page < 2 * MIB / PAGE; page++) {
            assert_int_equal(m.ptr[page * PAGE], page == 4 || page == 5 ? 0 : 1);
            assert_int_equal(m.ptr[page * PAGE + PAGE - 1], page == 4 || page == 5 ? 0 : 1);
        }
        if (!m.anon) { /* its own copy stays, what it shared is zero as well */
            assert_int_equal(view.ptr[4 * PAGE], 0);
            assert_int_equal(view.ptr[5 * PAGE], 3);
        }
        assert_int_equal(tn_hostmem_zero(&m, 0, 2 * MIB), 0);
        if (m.anon) {
            assert_int_equal(mincore(m.ptr, 2 * MIB, in), 0);
            for (size_t page = 0; page < 512; page++)
                assert_int_equal(in[page] & 1, 0);
        } else {
            assert_int_equal(fstat(m.fd, &st), 0);
            assert_true((uint64_t)st.st_blocks * 512 < MIB);
            tn_hostmem_close(&view);
        }
        for (size_t i = 0; i < 2 * MIB; i++)
            assert_int_equal(m.ptr[i], 0);
        tn_hostmem_close(&m);
        assert_false(m.anon);
    }
}

/* Where the file's bytes would show again, nothing is done. */
static void zero_is_refused_for_copies_of_a_file(void **state)
{
    struct tn_hostmem golden, m, view;

    (void)state;
    make(&m, MIB);
    memset(m.ptr, 1, MIB);
    assert_int_equal(tn_hostmem_view(&view, &m), 0);
    memset(view.ptr, 2, PAGE);
    assert_int_equal(tn_hostmem_zero(&view, 0, MIB), TN_EUNSUP);
    assert_int_equal(view.ptr[0], 2);
    assert_int_equal(view.ptr[PAGE], 1);
    tn_hostmem_close(&view);

    assert_int_equal(tn_hostmem_part(&m, &golden), 0); /* no longer shared */
    assert_int_equal(tn_hostmem_zero(&m, 0, PAGE), TN_EUNSUP);
    assert_int_equal(tn_hostmem_zero(&golden, 0, PAGE), TN_ESTATE);
    assert_int_equal(m.ptr[0], 1);
    tn_hostmem_close(&m);

    assert_int_equal(tn_hostmem_map(&m, golden.fd, 0, MIB, TN_HOSTMEM_PRIVATE), 0);
    assert_int_equal(tn_hostmem_zero(&m, 0, PAGE), TN_EUNSUP);
    tn_hostmem_close(&m);

    assert_int_equal(tn_hostmem_reserve(&m, MIB, 0), 0);
    assert_int_equal(tn_hostmem_map_at(&m, 0, golden.fd, 0, MIB, TN_HOSTMEM_PRIVATE), 0);
    assert_int_equal(tn_hostmem_zero(&m, 0, PAGE), TN_EUNSUP);
    assert_int_equal(m.ptr[0], 1);
    tn_hostmem_close(&m);
    tn_hostmem_close(&golden);
}

/* ---- files -------------------------------------------------------------------------------- */

static void e07_a_file_shorter_than_claimed(void **state)
{
    static const struct {
        uint64_t offset, size;
        int rc;
    } cases[] = {
        {0, 8 * PAGE, 0},
        {7 * PAGE, PAGE, 0},
        {0, 9 * PAGE, TN_ETRUNC},
        {PAGE, 8 * PAGE, TN_ETRUNC},
        {8 * PAGE, PAGE, TN_ETRUNC},
        {9 * PAGE, PAGE, TN_ETRUNC},
        {1ull << 63, PAGE, TN_ETRUNC},
        {UINT64_MAX - PAGE + 1, PAGE, TN_ETRUNC},
        {UINT64_MAX - PAGE + 1, 2 * PAGE, TN_ETRUNC},
        {PAGE, UINT64_MAX - PAGE + 1, TN_ETRUNC},
        {0, UINT64_MAX - PAGE + 1, TN_ETRUNC},
        {0, 0, TN_EINVAL},
        {0, 1, TN_EINVAL},
        {0, PAGE + 1, TN_EINVAL},
        {1, PAGE, TN_EINVAL},
        {512, PAGE, TN_EINVAL},
    };
    static const uint32_t hows[] = {TN_HOSTMEM_SHARED, TN_HOSTMEM_PRIVATE, TN_HOSTMEM_READ};
    struct tn_hostmem pool;
    int fd = file_of(8 * PAGE + 100); /* the last, partial page does not count */

    (void)state;
    assert_int_equal(tn_hostmem_reserve(&pool, 16 * PAGE, 0), 0);
    for (size_t i = 0; i < COUNT(cases); i++) {
        for (size_t h = 0; h < COUNT(hows); h++) {
            struct tn_hostmem m;
            assert_int_equal(tn_hostmem_map(&m, fd, cases[i].offset, cases[i].size, hows[h]),
                             cases[i].rc);
            if (cases[i].rc == 0) {
                assert_int_equal(m.ptr[0], cases[i].offset / PAGE + 1);
                assert_int_equal(m.ptr[m.size - PAGE], (cases[i].offset + cases[i].size) / PAGE);
                assert_int_equal(m.fd, -1);
                assert_int_equal(m.how, hows[h]);
                assert_int_equal(m.offset, cases[i].offset);
                tn_hostmem_close(&m);
            }
            is_closed(&m);
            if (cases[i].size <= pool.size && cases[i].rc == TN_ETRUNC) {
                assert_int_equal(
                    tn_hostmem_map_at(&pool, 0, fd, cases[i].offset, cases[i].size, hows[h]),
                    TN_ETRUNC);
                assert_false(can_read(pool.ptr));
            }
        }
    }
    tn_hostmem_close(&pool);
    close(fd);
}

static void what_is_no_file_is_refused(void **state)
{
    struct tn_hostmem m;
    int pipes[2], dir = open("/tmp", O_RDONLY | O_DIRECTORY);
    int fd = file_of(PAGE);
    static const uint32_t hows[] = {TN_HOSTMEM_NONE, TN_HOSTMEM_RESERVED, 5, UINT32_MAX};

    (void)state;
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(tn_hostmem_map(&m, pipes[0], 0, PAGE, TN_HOSTMEM_PRIVATE), TN_EINVAL);
    assert_int_equal(tn_hostmem_map(&m, dir, 0, PAGE, TN_HOSTMEM_PRIVATE), TN_EINVAL);
    assert_int_equal(tn_hostmem_map(&m, zero_fd, 0, PAGE, TN_HOSTMEM_PRIVATE), TN_EINVAL);
    errno = 0;
    assert_int_equal(tn_hostmem_map(&m, -1, 0, PAGE, TN_HOSTMEM_PRIVATE), TN_ESYS);
    assert_int_equal(errno, EBADF);
    is_closed(&m);
    for (size_t i = 0; i < COUNT(hows); i++) {
        assert_int_equal(tn_hostmem_map(&m, fd, 0, PAGE, hows[i]), TN_EINVAL);
        is_closed(&m);
    }
    close(pipes[0]);
    close(pipes[1]);
    close(dir);
    close(fd);
}

static void how_a_file_is_mapped(void **state)
{
    struct tn_hostmem m;
    int fd = file_of(4 * PAGE);
    char path[64];
    uint8_t byte;
    int ro;

    (void)state;
    assert_int_equal(tn_hostmem_map(&m, fd, PAGE, 2 * PAGE, TN_HOSTMEM_PRIVATE), 0);
    m.ptr[0] = 99;
    assert_int_equal(pread(fd, &byte, 1, PAGE), 1);
    assert_int_equal(byte, 2);
    assert_int_equal(tn_hostmem_discard(&m, 0, PAGE), 0);
    assert_int_equal(m.ptr[0], 2);
    assert_int_equal(tn_hostmem_freeze(&m), TN_ESTATE);
    tn_hostmem_close(&m);

    assert_int_equal(tn_hostmem_map(&m, fd, PAGE, 2 * PAGE, TN_HOSTMEM_SHARED), 0);
    m.ptr[0] = 99;
    assert_int_equal(pread(fd, &byte, 1, PAGE), 1);
    assert_int_equal(byte, 99);
    assert_int_equal(tn_hostmem_freeze(&m), TN_ESTATE); /* not its own memfd */
    tn_hostmem_close(&m);

    assert_int_equal(tn_hostmem_map(&m, fd, PAGE, 2 * PAGE, TN_HOSTMEM_READ), 0);
    assert_int_equal(m.ptr[0], 99);
    assert_false(can_write(m.ptr));
    assert_int_equal(tn_hostmem_discard(&m, 0, PAGE), TN_ESTATE);
    tn_hostmem_close(&m);

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    ro = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(ro >= 0);
    errno = 0;
    assert_int_equal(tn_hostmem_map(&m, ro, 0, PAGE, TN_HOSTMEM_SHARED), TN_ESYS);
    assert_int_equal(errno, EACCES);
    is_closed(&m);
    assert_int_equal(tn_hostmem_map(&m, ro, 0, PAGE, TN_HOSTMEM_PRIVATE), 0);
    m.ptr[0] = 1;
    tn_hostmem_close(&m);
    close(ro);
    close(fd);
}

/* ---- reservations ------------------------------------------------------------------------- */

static void reservations_are_checked(void **state)
{
    static const uint64_t bad[][2] = {
        {0, 0},
        {1, 0},
        {PAGE, 1},
        {PAGE, 2048},
        {3 * PAGE, 3 * PAGE},
        {PAGE, 2 * MIB},
        {3 * MIB, 2 * MIB},
        {UINT64_MAX - PAGE + 1, 0},
        {(1ull << 62) + PAGE, 0},
        {1ull << 63, 1ull << 63},
        {PAGE, UINT64_MAX},
    };
    struct tn_hostmem r;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(tn_hostmem_reserve(&r, bad[i][0], bad[i][1]), TN_EINVAL);
        is_closed(&r);
    }
    errno = 0;
    assert_int_equal(tn_hostmem_reserve(&r, 1ull << 62, 1ull << 62), TN_ESYS);
    assert_int_equal(errno, ENOMEM);
    is_closed(&r);
    for (uint64_t align = PAGE; align <= (ROOM ? GIB : GIB / 4); align *= 2) {
        unsigned long before = vm_pages();
        assert_int_equal(tn_hostmem_reserve(&r, 2 * align, align), 0);
        assert_int_equal((uintptr_t)r.ptr % align, 0);
        assert_int_equal(r.how, TN_HOSTMEM_RESERVED);
        assert_in_range(vm_pages() - before, 2 * align / PAGE, 2 * align / PAGE + 64);
        assert_false(can_read(r.ptr));
        assert_false(can_read(r.ptr + r.size - 1));
        tn_hostmem_close(&r);
    }
}

static void a_pooled_fork(void **state)
{
    struct tn_hostmem golden, pool;
    uint8_t *ptr;

    (void)state;
    make(&golden, MIB);
    memset(golden.ptr, 1, MIB);
    assert_int_equal(tn_hostmem_reserve(&pool, 3 * MIB, 0), 0);
    ptr = pool.ptr;
    for (int round = 0; round < 3; round++) {
        assert_int_equal(tn_hostmem_map_at(&pool, MIB, golden.fd, 0, MIB, TN_HOSTMEM_PRIVATE), 0);
        assert_ptr_equal(pool.ptr, ptr);
        assert_false(can_read(ptr + MIB - 1));
        assert_false(can_read(ptr + 2 * MIB));
        assert_int_equal(ptr[MIB], 1);
        memset(ptr + MIB, 2, MIB);
        assert_int_equal(golden.ptr[0], 1);
        assert_int_equal(tn_hostmem_discard(&pool, MIB + PAGE, PAGE), 0);
        assert_int_equal(ptr[MIB + PAGE], 1);
        assert_int_equal(ptr[MIB], 2);
        if (round == 1)
            continue; /* the next one maps over it: a fresh fork, in one call */
        assert_int_equal(tn_hostmem_unmap_at(&pool, MIB, MIB), 0);
        assert_false(can_read(ptr + MIB));
    }
    tn_hostmem_close(&golden);
    tn_hostmem_close(&pool);
    assert_false(can_read(ptr + MIB));
}

static void a10_map_at_stays_inside_the_reservation(void **state)
{
    static const uint64_t bad[][2] = {
        {0, 5 * PAGE},
        {PAGE, 4 * PAGE},
        {4 * PAGE, PAGE},
        {1, PAGE},
        {5 * PAGE, PAGE},
        {UINT64_MAX - PAGE + 1, PAGE},
        {UINT64_MAX - PAGE + 1, 2 * PAGE},
        {0, 0},
        {0, UINT64_MAX - PAGE + 1},
    };
    struct tn_hostmem golden, pool;

    (void)state;
    make(&golden, 8 * PAGE);
    memset(golden.ptr, 1, golden.size);
    assert_int_equal(tn_hostmem_reserve(&pool, 4 * PAGE, 0), 0);
    assert_int_equal(tn_hostmem_map_at(&pool, 0, golden.fd, 0, 4 * PAGE, TN_HOSTMEM_PRIVATE), 0);
    memset(pool.ptr, 2, pool.size);
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(
            tn_hostmem_map_at(&pool, bad[i][0], golden.fd, 0, bad[i][1], TN_HOSTMEM_PRIVATE),
            TN_EINVAL);
        assert_int_equal(tn_hostmem_unmap_at(&pool, bad[i][0], bad[i][1]), TN_EINVAL);
    }
    assert_int_equal(tn_hostmem_map_at(&golden, 0, golden.fd, 0, PAGE, TN_HOSTMEM_PRIVATE),
                     TN_EINVAL); /* no reservation */
    assert_int_equal(tn_hostmem_unmap_at(&golden, 0, PAGE), TN_EINVAL);
    for (size_t i = 0; i < pool.size; i += PAGE)
        assert_int_equal(pool.ptr[i], 2);
    tn_hostmem_close(&pool);
    assert_int_equal(tn_hostmem_map_at(&pool, 0, golden.fd, 0, PAGE, TN_HOSTMEM_PRIVATE),
                     TN_EINVAL);
    tn_hostmem_close(&golden);
}

static void a_failed_map_at_leaves_no_hole(void **state)
{
    struct tn_hostmem golden, pool;
    char path[64];
    unsigned long before;
    int ro, file, unmappable;

    (void)state;
    make(&golden, MIB);
    golden.ptr[0] = 1;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", golden.fd);
    ro = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(tn_hostmem_reserve(&pool, MIB, 0), 0);
    assert_int_equal(tn_hostmem_map_at(&pool, 0, golden.fd, 0, MIB, TN_HOSTMEM_PRIVATE), 0);
    pool.ptr[0] = 2;
    before = vm_pages();
    errno = 0;
    assert_int_equal(tn_hostmem_map_at(&pool, 0, ro, 0, MIB, TN_HOSTMEM_SHARED), TN_ESYS);
    assert_int_equal(errno, EACCES);
    assert_int_equal(vm_pages(), before); /* mapped or reserved, but not free for others */
    file = file_of(PAGE);
    assert_int_equal(tn_hostmem_map_at(&pool, 0, file, 0, 2 * PAGE, TN_HOSTMEM_PRIVATE), TN_ETRUNC);
    assert_int_equal(tn_hostmem_map_at(&pool, 0, file, 0, PAGE, 77), TN_EINVAL);
    assert_int_equal(tn_hostmem_map_at(&pool, 0, zero_fd, 0, PAGE, TN_HOSTMEM_PRIVATE), TN_EINVAL);
    assert_int_equal(pool.ptr[0], 2);
    unmappable = open("/proc/self/fd/../statm", O_RDONLY); /* regular, says fstat; mmap: no */
    if (unmappable >= 0) {
        assert_int_not_equal(tn_hostmem_map_at(&pool, 0, unmappable, 0, PAGE, TN_HOSTMEM_PRIVATE),
                             0);
        close(unmappable);
    }
    assert_int_equal(vm_pages(), before);
    close(file);
    close(ro);
    tn_hostmem_close(&pool);
    tn_hostmem_close(&golden);
}

static void close_is_for_good_and_keeps_errno(void **state)
{
    struct tn_hostmem m;
    unsigned before = fds();
    unsigned long pages = vm_pages();

    (void)state;
    make(&m, 64 * MIB);
    errno = 4242;
    tn_hostmem_close(&m);
    tn_hostmem_close(&m);
    assert_int_equal(errno, 4242);
    errno = 0;
    is_closed(&m);
    assert_int_equal(fds(), before);
    assert_true(vm_pages() <= pages + 16);
}

static int open_probes(void **state)
{
    (void)state;
    zero_fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    return zero_fd < 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_sizes_are_refused),
        cmocka_unit_test(more_than_the_address_space_is_an_error_of_the_host),
        cmocka_unit_test(an_empty_pool_of_huge_pages_is_an_error_at_once),
        cmocka_unit_test(limits_of_the_process_are_errors_not_signals),
        cmocka_unit_test(a_name_too_long_is_an_error),
        cmocka_unit_test(a_memfd_is_zeroed_named_and_sealed),
        cmocka_unit_test(anonymous_memory_has_no_file),
        cmocka_unit_test(a_tebibyte_maps_on_a_small_host),
        cmocka_unit_test(prealloc_takes_every_page_now),
        cmocka_unit_test(transparent_huge_pages_are_aligned),
        cmocka_unit_test(a_pool_of_huge_pages),
        cmocka_unit_test(a_guard_follows_the_last_byte),
        cmocka_unit_test(a_view_copies_on_write),
        cmocka_unit_test(a_view_takes_no_fd),
        cmocka_unit_test(a_frozen_memfd_never_changes),
        cmocka_unit_test(a10_discard_checks_the_whole_range),
        cmocka_unit_test(discard_of_a_view_brings_the_golden_bytes_back),
        cmocka_unit_test(discard_of_a_memfd_gives_its_pages_back),
        cmocka_unit_test(a10_zero_checks_the_whole_range),
        cmocka_unit_test(zero_leaves_zeros_and_gives_memory_back),
        cmocka_unit_test(zero_is_refused_for_copies_of_a_file),
        cmocka_unit_test(e07_a_file_shorter_than_claimed),
        cmocka_unit_test(what_is_no_file_is_refused),
        cmocka_unit_test(how_a_file_is_mapped),
        cmocka_unit_test(reservations_are_checked),
        cmocka_unit_test(a_pooled_fork),
        cmocka_unit_test(a10_map_at_stays_inside_the_reservation),
        cmocka_unit_test(a_failed_map_at_leaves_no_hole),
        cmocka_unit_test(close_is_for_good_and_keeps_errno),
    };

    return cmocka_run_group_tests_name("hostmem", tests, open_probes, NULL);
}
