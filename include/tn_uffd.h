/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_uffd - memory that is filled when it is touched first, from a source that the caller names.
 *
 * WHAT
 *   A machine made from a snapshot can run before its memory is there. A touch of a page that is
 *   missing, by a vCPU, a device model, or a system call in the kernel, waits while a thread of
 *   tn_uffd has the caller fetch the chunk around it, from a file, a network, another process, and
 *   puts it in place (userfaultfd). Pages of zeros take no memory. The rest can be fetched in the
 *   background. With nothing to fetch the thread sleeps.
 *
 * USAGE
 *   static int fetch(void *ctx, uint64_t off, uint8_t *buf, size_t len)
 *   {
 *       return pread(*(int *)ctx, buf, len, (off_t)off) == (ssize_t)len ? 0 : TN_ESYS;
 *   }
 *
 *   static void failed(void *ctx, uint64_t off, int err)
 *   {
 *       (void)ctx, (void)off;
 *       _exit(-err);
 *   }
 *   ---
 *   struct tn_uffd_cfg cfg = {0};
 *   struct tn_uffd lazy;
 *   int image = open("/tmp/memory", O_RDONLY);
 *
 *   cfg.size = 64u << 20;
 *   cfg.ptr = (uint8_t *)mmap(NULL, cfg.size, PROT_READ | PROT_WRITE,
 *                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
 *   cfg.chunk = 64u << 10;
 *   cfg.ctx = &image;
 *   cfg.fetch = fetch;
 *   cfg.failed = failed;
 *   if (tn_uffd_init(&lazy, &cfg) < 0)
 *       return 1;
 *   cfg.ptr[0] += cfg.ptr[12345];
 *   tn_uffd_close(&lazy);
 *
 * COMPOSITION
 *   The memory is tn_hostmem_init's with anon set, and goes to tn_kvm's slots and tn_mem as any
 *   other does, before or after tn_uffd_init. failed sets a machine's end and interrupts its
 *   vCPUs. When the machine is done: its threads end, tn_uffd_close, then the memory is unmapped.
 *
 * GUEST TRUST
 *   A guest decides what is touched when, so which chunks are fetched and in what order; not
 *   where from, nor how much at once. One thread fetches, one chunk at a time: all that a guest
 *   can delay is itself. Where it can have pages discarded (a balloon), it can have them fetched
 *   again and again: bound the rate of that in the device, or in fetch.
 *
 * MEMORY
 *   The struct is the caller's, and stays where it is until tn_uffd_close. So do the mapping, which
 *   is not moved, unmapped or replaced meanwhile, and the source. tn_uffd maps a buffer of one
 *   chunk, and a bit for each chunk. Pages that the caller discards (MADV_DONTNEED,
 *   tn_hostmem_discard) are missing again, and are fetched again.
 *
 * THREADS
 *   A thread of its own, with all signals blocked, calls fetch, failed and filled, one at a time.
 *   They must not touch the memory, which nobody would fill for them, nor wait for a thread that
 *   may: it may wait for them. tn_uffd_close is called by one thread, and not from a callback;
 *   tn_uffd_fill and tn_uffd_get_stats by any while it is open.
 *   A child of fork(2) has the pages that were there, zeros for all others, and no use for the
 *   struct, which it must not close; madvise(MADV_DONTFORK) keeps the memory out of it.
 *
 * CONFIG
 *   none at compile time. Link with -pthread. It wants _GNU_SOURCE, and defines it where it is the
 *   first header.
 *
 * LIMITS
 *   64-bit Linux 4.11. Touches by system calls and by KVM happen in the kernel, so the unprivileged
 *   kind of userfaultfd (UFFD_USER_MODE_ONLY) won't do. The process needs one of: CAP_SYS_PTRACE;
 *   sysctl vm.unprivileged_userfaultfd=1; permission to open /dev/userfaultfd (Linux 6.1).
 *   Private anonymous memory of small or transparent huge pages; it is filled in small pages.
 *   A thread that waits for a page in the kernel (in KVM_RUN, too) may take no signal until the
 *   page is there, and may use up CPU time for as long as one is pending.
 */
#ifndef TN_UFFD_H
#define TN_UFFD_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* of use only before the first system header */
#endif

/* -- tenon common block: the same bytes in every header (make check-common) -- */
/* clang-format off */
#ifndef TN_COMMON
#define TN_COMMON
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#if !defined(TN_API) && defined(TN_DECL_ONLY)
#define TN_API extern
#elif !defined(TN_API)
#define TN_API static inline
#endif
enum tn_err { TN_OK = 0, /* or a useful positive value; tn_strerror.h has a sentence for each */
    /* the caller's fault */ TN_EINVAL = -1, TN_ENOSPC = -2, TN_ESTATE = -3, TN_EEXIST = -4,
    /* the guest's, or a file's */ TN_EADDR = -32, TN_EFORMAT = -33, TN_ETRUNC = -34,
    TN_ERANGE = -35, TN_EOVERLAP = -36, TN_EMACHINE = -37, TN_EENTRY = -38, TN_ENOFIT = -39,
    TN_EUNSUP = -40, TN_EPROTO = -41, /* the environment's; errno tells */ TN_ESYS = -64,
    TN_EAGAIN = -65, TN_ENODEV = -66, /* ours */ TN_EBUG = -96 };
struct tn_iov { uint8_t *base; size_t len; }; /* memory in this process; as struct iovec */
/*@ requires n <= 8 && \valid_read(p + (0 .. n - 1)); assigns \nothing; */
static inline uint64_t tn_get_(const volatile uint8_t *p, unsigned n) /* little-endian load */
{
    uint64_t v = 0;
    /*@ loop invariant n <= \at(n, Pre); loop assigns n, v; loop variant n; */
    while (n > 0) v = v << 8 | p[--n];
    return v;
}
/*@ requires n <= 8 && \valid(p + (0 .. n - 1)); assigns p[0 .. n - 1]; */
static inline void tn_put_(uint8_t *p, unsigned n, uint64_t v) /* little-endian store */
{
    /*@ loop invariant i <= n; loop assigns i, p[0 .. n - 1]; loop variant n - i; */
    for (unsigned i = 0; i < n; i++) p[i] = (uint8_t)(v >> 8 * i);
}
#endif /* TN_COMMON */
/* clang-format on */

#include <pthread.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

/* What is filled, and from where. Zero what is not used. */
struct tn_uffd_cfg {
    uint8_t *ptr;   /* page-aligned: a private anonymous mapping, all of it */
    uint64_t size;  /* bytes; a multiple of the page */
    uint32_t chunk; /* bytes fetched at a time: a power of two, a page or more; the last one is
                       shorter where size is no multiple of it */
    void *ctx;

    /*
     * Writes the memory's bytes [off, off + len) to buf, which is page-aligned. off is a multiple
     * of chunk. Returns 0, or an error of the caller's own, not 0, that failed and filled are
     * given. It must return at some time: tn_uffd_close waits for it.
     */
    int (*fetch)(void *ctx, uint64_t off, uint8_t *buf, size_t len);

    /*
     * The chunk at off, which someone waits for, could not be had: err is fetch's, or TN_ESYS with
     * errno when the kernel had no memory for it. When this returns, the threads that wait are let
     * go, and see zeros: see to it first that no guest runs on them (ask its vCPUs to stop; don't
     * wait for them). Not called again for the chunk, unless its pages are discarded.
     */
    void (*failed)(void *ctx, uint64_t off, int err);

    /*
     * Optional. The end of what tn_uffd_fill began: 0 when every chunk is there; else the error of
     * a fetch, at which it stopped. What is missing is still fetched when touched.
     */
    void (*filled)(void *ctx, int err);
};

/* Since tn_uffd_init. */
struct tn_uffd_stats {
    uint64_t chunks;  /* in the memory */
    uint64_t there;   /* of them, those that were put in place, or failed */
    uint64_t fetched; /* calls of fetch that succeeded; more than there, after a discard */
    uint64_t errors;  /* those that did not, and chunks the kernel had no memory for */
    uint64_t faults;  /* touches for which a chunk was to be fetched; others may wait for it, too */
};

/* Memory and the thread that fills it. All is tn_uffd's. */
struct tn_uffd {
    struct tn_uffd_cfg cfg;
    struct tn_uffd_stats stats; /* atomic, but for chunks */
    int fd;                     /* the userfaultfd; -1: closed */
    int wake_fd;                /* an eventfd: ends the thread's sleep */
    int stop;                   /* atomic */
    int fill;                   /* atomic: tn_uffd_fill was called */
    bool registered;            /* the kernel has it that the memory is fd's */
    bool started;               /* there is a thread to join */
    pthread_t thread;
    uint64_t page;   /* bytes */
    uint64_t next;   /* the thread's: where the fill goes on, in chunks */
    uint8_t *buf;    /* the thread's: a chunk, on its way */
    uint8_t *bits;   /* the thread's: a bit for each chunk, 1: there */
    uint64_t mapped; /* bytes at buf, bits included */
};

/*
 * Makes all of the memory missing, what it held is dropped, and starts the thread that fills it.
 * Returns 0; TN_EINVAL for a cfg that is not as told above, or memory that is not all mapped,
 * private and anonymous, or is locked (mlock); TN_EEXIST, errno EBUSY: a userfaultfd has some of
 * it already; TN_ENODEV: the kernel has no userfaultfd; TN_ESYS, with EPERM when it may not be
 * used (see LIMITS). After an error *u is closed, and what the memory held may be lost.
 */
TN_API int tn_uffd_init(struct tn_uffd *u, const struct tn_uffd_cfg *cfg);

/*
 * Has the thread fetch what was never there, in ascending order, whenever nobody waits for a page.
 * Returns at once; cfg.filled tells the end. While a fill goes on, another call is the same one.
 * Returns 0; TN_ESTATE: closed.
 */
TN_API int tn_uffd_fill(struct tn_uffd *u);

/*
 * The counters now, which are not of one moment. What is counted is over: a touch that had to wait
 * goes on after that, and the chunk's bytes at the source are not being read any more. Zeros when
 * closed.
 */
TN_API void tn_uffd_get_stats(const struct tn_uffd *u, struct tn_uffd_stats *stats);

/*
 * Ends and joins the thread, after the fetch that it is in. Whoever waits for a page is let go:
 * what is not there yet is zeros from then on. The memory stays mapped. Nothing on a closed one.
 * errno is kept.
 */
TN_API void tn_uffd_close(struct tn_uffd *u);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#ifdef __cplusplus
} /* the system's headers have their own */
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__GLIBC__) && !defined(__USE_MISC)
#error "tn_uffd.h: compile with -D_GNU_SOURCE, or include it before the system's headers"
#endif
#ifdef __cplusplus
extern "C" {
#endif

#define TN_UFFD_NEW_ _IO(0xaa, 0x00) /* USERFAULTFD_IOC_NEW: headers before 6.1 lack it */
#define TN_UFFD_NEEDS_ \
    ((1ull << _UFFDIO_COPY) | (1ull << _UFFDIO_ZEROPAGE) | (1ull << _UFFDIO_WAKE))
#define TN_UFFD_MAX_ (1ull << 62)

static inline void tn_uffd_add_(uint64_t *counter, uint64_t n)
{
    (void)__atomic_fetch_add(counter, n, __ATOMIC_RELEASE);
}

static inline bool tn_uffd_stopping_(const struct tn_uffd *u)
{
    return __atomic_load_n(&u->stop, __ATOMIC_ACQUIRE) != 0;
}

/* Ends the thread's sleep: it looks at stop and fill. A full eventfd does so, too. */
static inline void tn_uffd_kick_(const struct tn_uffd *u)
{
    uint64_t one = 1;
    ssize_t n = write(u->wake_fd, &one, sizeof(one));

    (void)n;
}

static inline uint64_t tn_uffd_len_(const struct tn_uffd *u, uint64_t off)
{
    uint64_t rest = u->cfg.size - off;

    return rest < u->cfg.chunk ? rest : u->cfg.chunk;
}

static inline struct uffdio_range tn_uffd_range_(const struct tn_uffd *u, uint64_t off,
                                                 uint64_t len)
{
    struct uffdio_range r;

    r.start = (uint64_t)(uintptr_t)u->cfg.ptr + off;
    r.len = len;
    return r;
}

/*
 * One call for a run of pages: a copy of src, or zeros where that is NULL. Returns the bytes that
 * are in place now, or TN_ESYS with errno.
 */
static inline int64_t tn_uffd_try_(const struct tn_uffd *u, uint64_t off, const uint8_t *src,
                                   uint64_t len)
{
    struct uffdio_range range = tn_uffd_range_(u, off, len);
    struct uffdio_copy copy;
    struct uffdio_zeropage zero;
    int64_t done;
    int rc;

    __builtin_memset(&copy, 0, sizeof(copy));
    __builtin_memset(&zero, 0, sizeof(zero));
    if (src) {
        copy.dst = range.start;
        copy.src = (uint64_t)(uintptr_t)src;
        copy.len = range.len;
        copy.mode = UFFDIO_COPY_MODE_DONTWAKE;
        rc = ioctl(u->fd, UFFDIO_COPY, &copy);
        done = copy.copy;
    } else {
        zero.range = range;
        zero.mode = UFFDIO_ZEROPAGE_MODE_DONTWAKE;
        rc = ioctl(u->fd, UFFDIO_ZEROPAGE, &zero);
        done = zero.zeropage;
    }
    if (rc == 0)
        return (int64_t)len;
    if (errno == EAGAIN && done > 0)
        return done; /* cut short: the call for the rest tells why */
    return TN_ESYS;
}

/* A run of pages, but for those that are there. Returns 0, TN_ESYS. */
static inline int tn_uffd_run_(const struct tn_uffd *u, uint64_t off, const uint8_t *src,
                               uint64_t len)
{
    while (len > 0) {
        int64_t done = tn_uffd_try_(u, off, src, len);
        uint64_t n = (uint64_t)done;

        if (done < 0 && errno == EAGAIN) { /* the mapping is changing */
            if (tn_uffd_stopping_(u))
                return 0;
            sched_yield();
            continue;
        }
        if (done < 0 && errno != EEXIST)
            return TN_ESYS;
        if (done < 0)
            n = u->page;
        off += n;
        src = src ? src + n : NULL;
        len -= n;
    }
    return 0;
}

static inline bool tn_uffd_blank_(const struct tn_uffd *u, const uint8_t *p)
{
    uint64_t first;

    __builtin_memcpy(&first, p, sizeof(first));
    return first == 0 && __builtin_memcmp(p, p + sizeof(first), u->page - sizeof(first)) == 0;
}

/*
 * Puts buf (or zeros), len bytes, where they belong, in runs of pages that are all zeros or all
 * not. Wakes nobody yet. Returns 0, TN_ESYS.
 */
static inline int tn_uffd_place_(const struct tn_uffd *u, uint64_t off, uint64_t len, bool zeros)
{
    int rc = 0;

    for (uint64_t at = 0, end; at < len && rc == 0; at = end) {
        bool blank = zeros || tn_uffd_blank_(u, u->buf + at);

        end = at + u->page;
        while (end < len && (zeros || tn_uffd_blank_(u, u->buf + end) == blank))
            end += u->page;
        rc = tn_uffd_run_(u, off + at, blank ? NULL : u->buf + at, end - at);
    }
    return rc;
}

/* Lets go who waits for the chunk at off. A touch that still finds nothing waits again. */
static inline void tn_uffd_wake_(const struct tn_uffd *u, uint64_t off)
{
    struct uffdio_range range = tn_uffd_range_(u, off, tn_uffd_len_(u, off));

    (void)ioctl(u->fd, UFFDIO_WAKE, &range);
}

static inline bool tn_uffd_there_(const struct tn_uffd *u, uint64_t n)
{
    return (u->bits[n / 8] >> n % 8 & 1) != 0;
}

static inline void tn_uffd_mark_(struct tn_uffd *u, uint64_t off)
{
    uint64_t n = off / u->cfg.chunk;

    if (!tn_uffd_there_(u, n))
        tn_uffd_add_(&u->stats.there, 1);
    u->bits[n / 8] = (uint8_t)(u->bits[n / 8] | 1u << n % 8);
}

/* Fetches the chunk at off and puts it in place. Returns 0, fetch's error, TN_ESYS. */
static inline int tn_uffd_chunk_(struct tn_uffd *u, uint64_t off)
{
    uint64_t len = tn_uffd_len_(u, off);
    int rc = u->cfg.fetch(u->cfg.ctx, off, u->buf, (size_t)len);

    if (rc == 0)
        rc = tn_uffd_place_(u, off, len, false);
    tn_uffd_add_(rc == 0 ? &u->stats.fetched : &u->stats.errors, 1);
    if (rc == 0) {
        tn_uffd_mark_(u, off);
        tn_uffd_wake_(u, off);
    }
    return rc;
}

/*
 * The chunk at off is lost. Whoever waits for it must come free: with zeros; or, where the kernel
 * has no memory for those either, by a touch of memory that is no longer ours.
 */
static inline void tn_uffd_lost_(struct tn_uffd *u, uint64_t off, int err)
{
    uint64_t len = tn_uffd_len_(u, off);
    struct uffdio_range range = tn_uffd_range_(u, off, len);

    u->cfg.failed(u->cfg.ctx, off, err);
    tn_uffd_mark_(u, off);
    if (tn_uffd_place_(u, off, len, true) < 0)
        (void)ioctl(u->fd, UFFDIO_UNREGISTER, &range); /* refused: all is tried again */
    tn_uffd_wake_(u, off);
}

/*
 * Whether the page at off of a chunk that was there is missing, since it was discarded. If not,
 * nobody waits: a thread with a signal pending asks again and again until the page is there, and
 * the last time may overlap that.
 */
static inline bool tn_uffd_gone_(const struct tn_uffd *u, uint64_t off)
{
    unsigned char in = 0;

    return mincore(u->cfg.ptr + off, u->page, &in) < 0 || (in & 1) == 0;
}

/*
 * Serves one touch. Messages are read one by one: what is put in place takes back the messages of
 * all who wait for it, so that none asks for what is there. Returns whether there was one.
 */
static inline bool tn_uffd_fault_(struct tn_uffd *u)
{
    struct uffd_msg msg;
    uint64_t at, off;
    int rc;

    if (read(u->fd, &msg, sizeof(msg)) != (ssize_t)sizeof(msg))
        return false;
    at = (uint64_t)msg.arg.pagefault.address - (uint64_t)(uintptr_t)u->cfg.ptr;
    if (msg.event != UFFD_EVENT_PAGEFAULT || at >= u->cfg.size)
        return true;
    at &= ~(u->page - 1);
    off = at & ~(uint64_t)(u->cfg.chunk - 1);
    if (tn_uffd_there_(u, off / u->cfg.chunk) && !tn_uffd_gone_(u, at)) {
        tn_uffd_wake_(u, off);
        return true;
    }
    tn_uffd_add_(&u->stats.faults, 1);
    rc = tn_uffd_chunk_(u, off);
    if (rc != 0)
        tn_uffd_lost_(u, off, rc);
    return true;
}

/* One step of a fill. A fetch that fails ends it, and takes nothing from anyone. */
static inline void tn_uffd_step_(struct tn_uffd *u)
{
    int rc = 0;

    while (u->next < u->stats.chunks && tn_uffd_there_(u, u->next))
        u->next++;
    if (u->next < u->stats.chunks) {
        rc = tn_uffd_chunk_(u, u->next * u->cfg.chunk);
        if (rc == 0)
            return;
    }
    __atomic_store_n(&u->fill, 0, __ATOMIC_RELEASE);
    if (u->cfg.filled)
        u->cfg.filled(u->cfg.ctx, rc);
}

static inline void tn_uffd_sleep_(const struct tn_uffd *u)
{
    struct pollfd fds[2];
    uint64_t count;
    ssize_t n;

    fds[0].fd = u->fd;
    fds[1].fd = u->wake_fd;
    fds[0].events = fds[1].events = POLLIN;
    fds[0].revents = fds[1].revents = 0;
    if (poll(fds, 2, -1) > 0 && fds[1].revents != 0) {
        n = read(u->wake_fd, &count, sizeof(count));
        (void)n;
    }
}

static inline void *tn_uffd_main_(void *arg)
{
    struct tn_uffd *u = (struct tn_uffd *)arg;

    while (!tn_uffd_stopping_(u)) {
        if (tn_uffd_fault_(u))
            continue;
        if (__atomic_load_n(&u->fill, __ATOMIC_ACQUIRE))
            tn_uffd_step_(u);
        else
            tn_uffd_sleep_(u);
    }
    return NULL;
}

/* A userfaultfd that sees the kernel's touches too. -1 with errno: ENOSYS, EPERM, EMFILE ... */
static inline int tn_uffd_open_(void)
{
    int flags = O_CLOEXEC | O_NONBLOCK;
    int fd = (int)syscall(SYS_userfaultfd, flags);
    int why = errno;
    int dev;

    if (fd >= 0 || (why != EPERM && why != ENOSYS))
        return fd;
    dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (dev >= 0) {
        fd = ioctl(dev, TN_UFFD_NEW_, flags);
        close(dev);
    }
    errno = why;
    return fd;
}

static inline bool tn_uffd_cfg_ok_(const struct tn_uffd_cfg *c, uint64_t page)
{
    return c->fetch && c->failed && c->chunk >= page && (c->chunk & (c->chunk - 1)) == 0 &&
           c->ptr && (uint64_t)(uintptr_t)c->ptr % page == 0 && c->size > 0 &&
           c->size <= TN_UFFD_MAX_ && c->size % page == 0;
}

/* Takes the memory over: from here on all of it is missing. Returns 0 or an error, with errno. */
static inline int tn_uffd_register_(struct tn_uffd *u)
{
    struct uffdio_api api;
    struct uffdio_register reg;

    __builtin_memset(&api, 0, sizeof(api));
    __builtin_memset(&reg, 0, sizeof(reg));
    api.api = UFFD_API;
    if (ioctl(u->fd, UFFDIO_API, &api) < 0)
        return TN_ENODEV;
    reg.range = tn_uffd_range_(u, 0, u->cfg.size);
    reg.mode = UFFDIO_REGISTER_MODE_MISSING;
    if (ioctl(u->fd, UFFDIO_REGISTER, &reg) < 0) {
        if (errno == EBUSY)
            return TN_EEXIST;
        return errno == ENOMEM ? TN_ESYS : TN_EINVAL;
    }
    u->registered = true;
    /* MADV_FREE is refused for all but private anonymous memory, and both for holes. */
    if ((reg.ioctls & TN_UFFD_NEEDS_) != TN_UFFD_NEEDS_ ||
        madvise(u->cfg.ptr, u->cfg.size, MADV_FREE) < 0 ||
        madvise(u->cfg.ptr, u->cfg.size, MADV_DONTNEED) < 0)
        return TN_EINVAL;
    return 0;
}

/* The thread's buffer and bits: zeroed, and no memory until they are used. */
static inline int tn_uffd_map_(struct tn_uffd *u)
{
    uint64_t buf = tn_uffd_len_(u, 0);
    uint64_t size = buf + u->stats.chunks / 8 + 1;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);

    if (p == MAP_FAILED)
        return TN_ESYS;
    u->buf = (uint8_t *)p;
    u->bits = u->buf + buf;
    u->mapped = size;
    return 0;
}

static inline int tn_uffd_start_(struct tn_uffd *u)
{
    sigset_t all, old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    errno = pthread_create(&u->thread, NULL, tn_uffd_main_, u);
    u->started = errno == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return u->started ? 0 : TN_ESYS;
}

TN_API int tn_uffd_init(struct tn_uffd *u, const struct tn_uffd_cfg *cfg)
{
    long page = sysconf(_SC_PAGESIZE);
    int rc;

    __builtin_memset(u, 0, sizeof(*u));
    u->fd = u->wake_fd = -1;
    u->cfg = *cfg;
    u->page = page > 0 ? (uint64_t)page : 4096;
    if (!tn_uffd_cfg_ok_(cfg, u->page))
        return TN_EINVAL;
    u->stats.chunks = (cfg->size - 1) / cfg->chunk + 1;
    u->fd = tn_uffd_open_();
    rc = u->fd >= 0 ? 0 : errno == ENOSYS ? TN_ENODEV : TN_ESYS;
    if (rc == 0) {
        u->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        rc = u->wake_fd < 0 ? TN_ESYS : tn_uffd_map_(u);
    }
    if (rc == 0)
        rc = tn_uffd_register_(u);
    if (rc == 0)
        rc = tn_uffd_start_(u);
    if (rc < 0)
        tn_uffd_close(u);
    return rc;
}

TN_API int tn_uffd_fill(struct tn_uffd *u)
{
    if (u->fd < 0)
        return TN_ESTATE;
    __atomic_store_n(&u->fill, 1, __ATOMIC_RELEASE);
    tn_uffd_kick_(u);
    return 0;
}

TN_API void tn_uffd_get_stats(const struct tn_uffd *u, struct tn_uffd_stats *stats)
{
    stats->chunks = u->stats.chunks;
    stats->there = __atomic_load_n(&u->stats.there, __ATOMIC_ACQUIRE);
    stats->fetched = __atomic_load_n(&u->stats.fetched, __ATOMIC_ACQUIRE);
    stats->errors = __atomic_load_n(&u->stats.errors, __ATOMIC_ACQUIRE);
    stats->faults = __atomic_load_n(&u->stats.faults, __ATOMIC_ACQUIRE);
}

TN_API void tn_uffd_close(struct tn_uffd *u)
{
    struct uffdio_range range = tn_uffd_range_(u, 0, u->cfg.size);
    int saved = errno;

    if (u->started) {
        __atomic_store_n(&u->stop, 1, __ATOMIC_RELEASE);
        tn_uffd_kick_(u);
        pthread_join(u->thread, NULL);
    }
    /*
     * The last close would do that, too, but a child of fork(2) may keep the fd open. Never where
     * the memory is another userfaultfd's: kernels did take it from that one.
     */
    if (u->registered)
        (void)ioctl(u->fd, UFFDIO_UNREGISTER, &range);
    if (u->fd >= 0)
        close(u->fd);
    if (u->wake_fd >= 0)
        close(u->wake_fd);
    if (u->buf)
        munmap(u->buf, u->mapped);
    __builtin_memset(u, 0, sizeof(*u));
    u->fd = u->wake_fd = -1;
    errno = saved;
}

#endif /* TN_DECL_ONLY */

#ifdef __cplusplus
}
#endif

#endif /* TN_UFFD_H */
