/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_hostmem - the host's memory behind guest RAM: files in memory, huge pages, and cheap
 * copy-on-write views of them.
 *
 * WHAT
 *   Makes memory (a memfd, or anonymous; small pages, transparent or reserved huge ones), maps a
 *   snapshot's file, gives a copy-on-write view of either to a fork, and reserves address space
 *   into which views are mapped later, which is what makes a pooled fork cheap. Memory that the
 *   host cannot give is an error with errno, at once, and not a SIGBUS later on.
 *
 * USAGE
 *   struct tn_hostmem_cfg cfg = {0};
 *   struct tn_hostmem golden, fork;
 *
 *   cfg.size = 64u << 20;
 *   if (tn_hostmem_init(&golden, &cfg) < 0)
 *       return 1;
 *   golden.ptr[0] = 1;
 *   if (tn_hostmem_view(&fork, &golden) < 0) {
 *       tn_hostmem_close(&golden);
 *       return 1;
 *   }
 *   fork.ptr[0] = 2;
 *   tn_hostmem_discard(&fork, 0, fork.page);
 *   tn_hostmem_close(&fork);
 *   tn_hostmem_close(&golden);
 *
 * COMPOSITION
 *   ptr and size go to tn_mem_add and to tn_kvm's memory slots; fd goes to a vhost-user backend or
 *   is written out as a snapshot. Close after the VM's fds: a slot must not outlive its memory.
 *
 * GUEST TRUST
 *   A guest reaches the bytes, never these functions. The offset and size of tn_hostmem_map and
 *   tn_hostmem_map_at may come from a file's header: they are checked against the file's length.
 *   A file that is truncated after it was mapped raises SIGBUS on the next touch, as for any
 *   mapping; a memfd of tn_hostmem_init is sealed against that.
 *
 * MEMORY
 *   The struct is the caller's; what it describes belongs to it until tn_hostmem_close. A view
 *   needs nothing of its source but the file, so they close in any order.
 *
 * THREADS
 *   One thread at a time per struct. Views of one source may be made by many threads at once.
 *
 * CONFIG
 *   none at compile time. It wants _GNU_SOURCE, and defines it where it is the first header.
 *
 * LIMITS
 *   64-bit Linux; cfg.prealloc needs 5.14, cfg.huge with tn_hostmem_discard 5.18. No userfaultfd.
 *   What no call can see is memory that the host overcommits: without cfg.prealloc, the kernel may
 *   run out of it when a page is touched first.
 */
#ifndef TN_HOSTMEM_H
#define TN_HOSTMEM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* memfd_create, fallocate; of use only before the first system header */
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

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

/* What pages cfg.huge asks for. */
enum tn_hostmem_huge {
    TN_HOSTMEM_HUGE_NONE = 0, /* the host's small pages */
    TN_HOSTMEM_HUGE_THP, /* transparent: aligned to 2 MiB and madvised; a hint, never an error */
    TN_HOSTMEM_HUGE_2M,  /* from the host's pool of 2 MiB pages */
    TN_HOSTMEM_HUGE_1G   /* from the host's pool of 1 GiB pages */
};

/* What a mapping is. */
enum tn_hostmem_how {
    TN_HOSTMEM_NONE = 0, /* closed */
    TN_HOSTMEM_SHARED,   /* writes go to the file */
    TN_HOSTMEM_PRIVATE,  /* copy on write: the file is never written; or anonymous */
    TN_HOSTMEM_READ,     /* read-only */
    TN_HOSTMEM_RESERVED  /* addresses only (tn_hostmem_reserve); any touch is a SIGSEGV */
};

/* Zero means the default everywhere, but size must be given. */
struct tn_hostmem_cfg {
    uint64_t size;    /* bytes; a multiple of the page that huge asks for */
    uint32_t huge;    /* enum tn_hostmem_huge */
    bool anon;        /* no file behind it: it cannot be viewed, nor shared with a process */
    bool prealloc;    /* every page is taken from the host now, or the call fails */
    bool guard;       /* a page that faults follows the last byte */
    const char *name; /* shown in /proc/PID/maps; NULL: "tenon"; not for anon */
};

/* Memory in this process. Read the fields; the functions write them. */
struct tn_hostmem {
    uint8_t *ptr;    /* the first byte, page-aligned; NULL when closed */
    uint64_t size;   /* bytes */
    uint64_t page;   /* bytes: the unit of discard and of map_at */
    uint64_t align;  /* bytes: what ptr is a multiple of */
    uint64_t offset; /* of ptr in the file */
    uint64_t guard;  /* bytes that fault after the last one */
    int fd;          /* the memfd, owned; -1: none (anonymous, a view, a mapped file) */
    uint32_t how;    /* enum tn_hostmem_how */
    bool anon;       /* no file is behind it: what is discarded reads as zeros */
};

/*
 * Makes new zeroed memory as cfg says: a memfd mapped shared and sealed against growing and
 * shrinking, or with cfg->anon private anonymous memory. Small and transparent pages are not
 * reserved: 1 TiB maps on a small host where vm.overcommit_memory allows; pages of a pool are
 * reserved. Returns 0; TN_EINVAL for a size that is 0, above 2^62 or no multiple of the page, or
 * an unknown huge; TN_ESYS when the host refuses: ENOMEM (an empty pool, RLIMIT_AS, overcommit),
 * EFBIG (RLIMIT_FSIZE), EMFILE and so on. After an error *m is closed.
 */
TN_API int tn_hostmem_init(struct tn_hostmem *m, const struct tn_hostmem_cfg *cfg);

/*
 * Makes a copy-on-write view of all of src, which must have an fd. It sees src's bytes as they are
 * when a page is first touched, and as they change until the view writes that page: stop writing
 * to src first, or let tn_hostmem_freeze see to it. Pages of a pool are reserved again for a view.
 * Returns 0; TN_EINVAL: src has no fd; TN_ESYS. After an error *view is closed.
 */
TN_API int tn_hostmem_view(struct tn_hostmem *view, const struct tn_hostmem *src);

/*
 * Maps size bytes at offset of a regular file, shared, private or read-only (enum tn_hostmem_how);
 * the caller keeps the fd, and may close it at once. Returns 0; TN_ETRUNC when the file ends
 * before offset + size; TN_EINVAL for a size of 0, an offset or size that is no multiple of the
 * page, another how, or a file that is not regular; TN_ESYS. After an error *m is closed.
 */
TN_API int tn_hostmem_map(struct tn_hostmem *m, int fd, uint64_t offset, uint64_t size,
                          uint32_t how);

/*
 * Reserves size bytes of addresses, a multiple of align (0: the small page; else a power of two,
 * 2 MiB for huge pages), and no memory. KVM takes a slot over a reservation: what
 * tn_hostmem_map_at puts there later is what the guest then sees. Returns 0, TN_EINVAL, TN_ESYS.
 * After an error *m is closed.
 */
TN_API int tn_hostmem_reserve(struct tn_hostmem *m, uint64_t size, uint64_t align);

/*
 * Maps a file, as tn_hostmem_map does, over bytes [at, at + size) of a reservation, in one step:
 * what was mapped there before is gone. at is a multiple of the file's page. Returns 0; TN_EINVAL
 * also when r is no reservation or the range is not inside it. After an error the range is as
 * before, except that after TN_ESYS it may be reserved again, with nothing mapped.
 */
TN_API int tn_hostmem_map_at(struct tn_hostmem *r, uint64_t at, int fd, uint64_t offset,
                             uint64_t size, uint32_t how);

/*
 * Takes away what is mapped in [at, at + size) of a reservation, which stays reserved. Returns 0,
 * TN_EINVAL, TN_ESYS.
 */
TN_API int tn_hostmem_unmap_at(struct tn_hostmem *r, uint64_t at, uint64_t size);

/*
 * Drops the pages of [at, at + len), multiples of m->page; not a byte is read or written.
 * Private: what was written is forgotten, the file's bytes are back (zeros where anonymous); the
 * same in a reservation. Shared: the file itself is emptied, and reads as zeros here and in every
 * view that has not written the page. Returns 0 (len may be 0); TN_EINVAL for a range outside m;
 * TN_ESTATE: m is read-only or closed; TN_ESYS.
 */
TN_API int tn_hostmem_discard(struct tn_hostmem *m, uint64_t at, uint64_t len);

/*
 * tn_hostmem_discard where that leaves zeros: of a memfd, for all that map it, and of anonymous
 * memory; not of memory that a userfaultfd fills. Returns 0 (len may be 0); TN_EUNSUP for a private
 * mapping of a file or a reservation, where the file's bytes would be back, and which is as it was:
 * zeros of its own would take more memory, not less; TN_EINVAL, TN_ESTATE, TN_ESYS as there.
 */
TN_API int tn_hostmem_zero(struct tn_hostmem *m, uint64_t at, uint64_t len);

/*
 * tn_hostmem_discard of all of a private mapping. If few pages were written, only they are touched:
 * the others stay mapped, and a guest need not fault them in again. pagemap: /proc/self/pagemap as
 * this process (no parent of it) has opened it; -1: none, and all pages go. So they do before Linux
 * 6.7. Returns 0; TN_ESTATE: m is not private; TN_ESYS.
 */
TN_API int tn_hostmem_forget(struct tn_hostmem *m, int pagemap);

/*
 * Makes a memfd read-only for good, here (m->ptr stays where it is, how becomes TN_HOSTMEM_READ)
 * and for everyone, so that no view's bytes can change behind it. Returns 0; TN_ESTATE: m is not a
 * shared memfd of tn_hostmem_init; TN_ESYS, with EBUSY while something else maps it writable or
 * has its pages pinned: m is then as before.
 */
TN_API int tn_hostmem_freeze(struct tn_hostmem *m);

/*
 * Parts what a memfd holds now from what is written to it later: *golden is a read-only mapping of
 * the bytes as they are, for good, and owns the memfd; m stays at its address, as a copy-on-write
 * view of them. It takes no longer for more memory. Nobody writes meanwhile. Returns 0; the errors
 * of tn_hostmem_freeze: m is as before and *golden is closed.
 */
TN_API int tn_hostmem_part(struct tn_hostmem *m, struct tn_hostmem *golden);

/*
 * Sets a bit in own, (size / small page + 63) / 64 words, for each small page of a private mapping
 * that is a copy of its own, written to since it was mapped or discarded; the other bits are
 * cleared. Nobody writes meanwhile. Returns their number; TN_ESTATE: m is neither private nor
 * reserved; TN_ESYS: /proc is not there.
 */
TN_API int64_t tn_hostmem_own(const struct tn_hostmem *m, uint64_t *own);

/*
 * Unmaps, closes the fd, and marks *m closed; nothing on a closed one. errno is kept.
 */
TN_API void tn_hostmem_close(struct tn_hostmem *m);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#ifdef __cplusplus
} /* the system's headers have their own */
#endif
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>
#if defined(__GLIBC__) && !defined(__USE_MISC)
#error "tn_hostmem.h: compile with -D_GNU_SOURCE, or include it before the system's headers"
#endif
#if defined(__GLIBC__) && __SIZEOF_LONG__ < 8 && !defined(__USE_FILE_OFFSET64)
#error "tn_hostmem.h: compile with -D_FILE_OFFSET_BITS=64: offsets in files have 64 bits"
#endif
#ifdef __cplusplus
extern "C" {
#endif

/* Kernel ABI by number: headers older than the kernel, or without _GNU_SOURCE, lack them. */
#define TN_HOSTMEM_MFD_CLOEXEC_ 0x0001u
#define TN_HOSTMEM_MFD_SEALING_ 0x0002u
#define TN_HOSTMEM_MFD_HUGETLB_ 0x0004u
#define TN_HOSTMEM_2M_          (21u << 26) /* log2 of the page, as MFD_ and MAP_ flags hold it */
#define TN_HOSTMEM_1G_          (30u << 26)
#define TN_HOSTMEM_ADD_SEALS_   1033
#define TN_HOSTMEM_SEAL_SHRINK_ 0x0002
#define TN_HOSTMEM_SEAL_GROW_   0x0004
#define TN_HOSTMEM_SEAL_WRITE_  0x0008
#define TN_HOSTMEM_NOREPLACE_   0x100000 /* MAP_FIXED_NOREPLACE */
#define TN_HOSTMEM_POPULATE_    23       /* MADV_POPULATE_WRITE */
#define TN_HOSTMEM_HUGETLBFS_   0x958458f6
#define TN_HOSTMEM_LIMIT_       (1ull << 62)

/* PAGEMAP_SCAN (Linux 6.7): which pages of a range are of some kind, without a look at each. */
struct tn_hostmem_run_ {
    uint64_t start; /* addresses */
    uint64_t end;
    uint64_t kinds;
};
struct tn_hostmem_scan_ {
    uint64_t size; /* of this struct */
    uint64_t flags;
    uint64_t start;
    uint64_t end;
    uint64_t walk_end; /* where it stopped */
    uint64_t vec;
    uint64_t vec_len;
    uint64_t max_pages;
    uint64_t inverted;
    uint64_t all;
    uint64_t any;
    uint64_t result;
};
#define TN_HOSTMEM_SCAN_    _IOWR('f', 16, struct tn_hostmem_scan_)
#define TN_HOSTMEM_FILE_    4u /* PAGE_IS_FILE */
#define TN_HOSTMEM_PRESENT_ 8u
#define TN_HOSTMEM_SWAPPED_ 16u
#define TN_HOSTMEM_RUNS_    32u

static inline uint64_t tn_hostmem_small_(void)
{
    long page = sysconf(_SC_PAGESIZE);

    return page > 0 ? (uint64_t)page : 4096;
}

static inline void tn_hostmem_void_(struct tn_hostmem *m)
{
    m->ptr = NULL;
    m->size = 0;
    m->page = tn_hostmem_small_();
    m->align = m->page;
    m->offset = 0;
    m->guard = 0;
    m->fd = -1;
    m->how = TN_HOSTMEM_NONE;
    m->anon = false;
}

/* Whether size bytes can have addresses, which may have 32 bits: mmap would take what is left of a
 * number that has more. If not, errno says so. */
static inline bool tn_hostmem_fits_(uint64_t size)
{
    if (size > SIZE_MAX / 2) {
        errno = ENOMEM;
        return false;
    }
    return true;
}

/* Addresses without memory: size bytes at a multiple of align; NULL with errno. */
static inline uint8_t *tn_hostmem_span_(uint64_t size, uint64_t align)
{
    uint64_t slack = align - tn_hostmem_small_();
    uint64_t head;
    uint8_t *p;

    if (!tn_hostmem_fits_(size) || !tn_hostmem_fits_(slack) || !tn_hostmem_fits_(size + slack))
        return NULL;
    p = (uint8_t *)mmap(NULL, size + slack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                        -1, 0);
    if (p == (uint8_t *)MAP_FAILED)
        return NULL;
    head = (0 - (uint64_t)(uintptr_t)p) & (align - 1);
    if (head > 0)
        munmap(p, head);
    if (slack > head)
        munmap(p + head + size, slack - head);
    return p + head;
}

/*
 * mmap of m->size bytes with m's alignment and guard, into m->ptr. Small pages are not reserved;
 * those of a pool are, or a touch would raise SIGBUS once the pool is empty. Only a writable
 * mapping uses up any.
 */
static inline int tn_hostmem_mmap_(struct tn_hostmem *m, int prot, int flags, int fd)
{
    bool pool = m->page > tn_hostmem_small_();
    uint8_t *at = NULL;
    void *p;

    if (!tn_hostmem_fits_(m->size))
        return TN_ESYS;
    if (!pool || !(prot & PROT_WRITE))
        flags |= MAP_NORESERVE;
    if (m->guard > 0 || m->align > m->page) {
        at = tn_hostmem_span_(m->size + m->guard, m->align);
        if (!at)
            return TN_ESYS;
        flags |= MAP_FIXED;
    }
    p = mmap(at, m->size, prot, flags, fd, (off_t)m->offset);
    if (p == MAP_FAILED) {
        int saved = errno;
        /* Only the guard: the kernel may have unmapped the rest, for another thread to take. */
        if (m->guard > 0)
            munmap(at + m->size, m->guard);
        errno = saved;
        return TN_ESYS;
    }
    m->ptr = (uint8_t *)p;
    return 0;
}

static inline void tn_hostmem_hint_(const struct tn_hostmem *m)
{
    int saved = errno;

    if (m->align > m->page)
        madvise(m->ptr, m->size, MADV_HUGEPAGE);
    errno = saved;
}

/* A memfd of size bytes that can't change its size any more; -1 with errno. */
static inline int tn_hostmem_memfd_(const char *name, uint64_t size, unsigned flags)
{
    struct rlimit limit;
    int fd, saved;

    /* Beyond this limit ftruncate would raise SIGXFSZ, which ends the process. */
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        size > limit.rlim_cur) {
        errno = EFBIG;
        return -1;
    }
    flags |= TN_HOSTMEM_MFD_CLOEXEC_ | TN_HOSTMEM_MFD_SEALING_;
    fd = (int)syscall(SYS_memfd_create, name, flags);
    if (fd < 0)
        return -1;
    if (ftruncate(fd, (off_t)size) == 0 &&
        fcntl(fd, TN_HOSTMEM_ADD_SEALS_, TN_HOSTMEM_SEAL_SHRINK_ | TN_HOSTMEM_SEAL_GROW_) == 0)
        return fd;
    saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static inline int tn_hostmem_populate_(const struct tn_hostmem *m)
{
    long rc;

    if (madvise(m->ptr, m->size, TN_HOSTMEM_POPULATE_) == 0)
        return 0;
    if (errno != EINVAL || m->fd < 0)
        return TN_ESYS;
    do /* an older kernel: the file can at least be given its pages */
        rc = syscall(SYS_fallocate, m->fd, 0, (off_t)0, (off_t)m->size);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? TN_ESYS : 0;
}

TN_API int tn_hostmem_init(struct tn_hostmem *m, const struct tn_hostmem_cfg *cfg)
{
    unsigned pages = 0;
    int rc;

    tn_hostmem_void_(m);
    switch (cfg->huge) {
    case TN_HOSTMEM_HUGE_NONE:
        break;
    case TN_HOSTMEM_HUGE_THP:
        m->align = m->align > 2u << 20 ? m->align : 2u << 20;
        break;
    case TN_HOSTMEM_HUGE_2M:
        m->page = m->align = 2u << 20;
        pages = TN_HOSTMEM_2M_;
        break;
    case TN_HOSTMEM_HUGE_1G:
        m->page = m->align = 1u << 30;
        pages = TN_HOSTMEM_1G_;
        break;
    default:
        return TN_EINVAL;
    }
    if (cfg->size == 0 || cfg->size > TN_HOSTMEM_LIMIT_ || cfg->size % m->page != 0) {
        tn_hostmem_void_(m);
        return TN_EINVAL;
    }
    m->size = cfg->size;
    m->guard = cfg->guard ? tn_hostmem_small_() : 0;
    if (cfg->anon) {
        int flags = MAP_PRIVATE | MAP_ANONYMOUS;
        if (pages != 0)
            flags |= MAP_HUGETLB | (int)pages;
        m->how = TN_HOSTMEM_PRIVATE;
        m->anon = true;
        rc = tn_hostmem_mmap_(m, PROT_READ | PROT_WRITE, flags, -1);
    } else {
        m->how = TN_HOSTMEM_SHARED;
        if (pages != 0)
            pages |= TN_HOSTMEM_MFD_HUGETLB_;
        m->fd = tn_hostmem_memfd_(cfg->name ? cfg->name : "tenon", m->size, pages);
        rc = m->fd < 0 ? TN_ESYS : tn_hostmem_mmap_(m, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd);
    }
    if (rc == 0) {
        if (cfg->huge == TN_HOSTMEM_HUGE_THP)
            tn_hostmem_hint_(m);
        if (cfg->prealloc)
            rc = tn_hostmem_populate_(m);
    }
    if (rc < 0)
        tn_hostmem_close(m);
    return rc;
}

TN_API int tn_hostmem_view(struct tn_hostmem *view, const struct tn_hostmem *src)
{
    int rc;

    tn_hostmem_void_(view);
    if (src->fd < 0)
        return TN_EINVAL;
    view->size = src->size;
    view->page = src->page;
    view->align = src->align;
    view->offset = src->offset;
    view->how = TN_HOSTMEM_PRIVATE;
    rc = tn_hostmem_mmap_(view, PROT_READ | PROT_WRITE, MAP_PRIVATE, src->fd);
    if (rc < 0)
        tn_hostmem_void_(view);
    return rc;
}

/* mmap's protection and flags for how; 0 for one that no file can be mapped with. */
static inline int tn_hostmem_flags_(uint32_t how, int *prot)
{
    *prot = how == TN_HOSTMEM_READ ? PROT_READ : PROT_READ | PROT_WRITE;
    if (how == TN_HOSTMEM_SHARED)
        return MAP_SHARED;
    return how == TN_HOSTMEM_PRIVATE || how == TN_HOSTMEM_READ ? MAP_PRIVATE : 0;
}

/* Checks that [offset, offset + size) of the file can be mapped; *page is the file's page. */
static inline int tn_hostmem_check_(int fd, uint64_t offset, uint64_t size, uint64_t *page)
{
    struct stat st;
    struct statfs fs;

    *page = tn_hostmem_small_();
    if (fstat(fd, &st) < 0)
        return TN_ESYS;
    if (!S_ISREG(st.st_mode))
        return TN_EINVAL;
    if (fstatfs(fd, &fs) == 0 && (uint32_t)fs.f_type == TN_HOSTMEM_HUGETLBFS_ && fs.f_bsize > 0)
        *page = (uint64_t)fs.f_bsize;
    if (size == 0 || size % *page != 0 || offset % *page != 0)
        return TN_EINVAL;
    if (offset > (uint64_t)st.st_size || size > (uint64_t)st.st_size - offset)
        return TN_ETRUNC;
    return 0;
}

TN_API int tn_hostmem_map(struct tn_hostmem *m, int fd, uint64_t offset, uint64_t size,
                          uint32_t how)
{
    int prot, flags = tn_hostmem_flags_(how, &prot);
    int rc;

    tn_hostmem_void_(m);
    if (flags == 0)
        return TN_EINVAL;
    rc = tn_hostmem_check_(fd, offset, size, &m->page);
    if (rc == 0) {
        m->align = m->page;
        m->size = size;
        m->offset = offset;
        m->how = how;
        rc = tn_hostmem_mmap_(m, prot, flags, fd);
    }
    if (rc < 0)
        tn_hostmem_void_(m);
    return rc;
}

TN_API int tn_hostmem_reserve(struct tn_hostmem *m, uint64_t size, uint64_t align)
{
    uint8_t *p;

    tn_hostmem_void_(m);
    if (align == 0)
        align = m->page;
    if (align < m->page || align > TN_HOSTMEM_LIMIT_ || (align & (align - 1)) != 0 || size == 0 ||
        size > TN_HOSTMEM_LIMIT_ || size % align != 0)
        return TN_EINVAL;
    p = tn_hostmem_span_(size, align);
    if (!p)
        return TN_ESYS;
    m->ptr = p;
    m->size = size;
    m->align = align;
    m->how = TN_HOSTMEM_RESERVED;
    return 0;
}

/* Whether [at, at + len) lies in m and consists of whole units of page. */
static inline bool tn_hostmem_in_(const struct tn_hostmem *m, uint64_t at, uint64_t len,
                                  uint64_t page)
{
    return len <= m->size && at <= m->size - len && at % page == 0 && len % page == 0;
}

TN_API int tn_hostmem_map_at(struct tn_hostmem *r, uint64_t at, int fd, uint64_t offset,
                             uint64_t size, uint32_t how)
{
    int prot, flags = tn_hostmem_flags_(how, &prot);
    uint64_t page;
    int rc, saved;

    if (flags == 0 || r->how != TN_HOSTMEM_RESERVED || !tn_hostmem_in_(r, at, size, r->page))
        return TN_EINVAL;
    rc = tn_hostmem_check_(fd, offset, size, &page);
    if (rc < 0)
        return rc;
    if ((uint64_t)(uintptr_t)(r->ptr + at) % page != 0)
        return TN_EINVAL;
    if (page == r->page || how == TN_HOSTMEM_READ)
        flags |= MAP_NORESERVE;
    if (mmap(r->ptr + at, size, prot, flags | MAP_FIXED, fd, (off_t)offset) != MAP_FAILED)
        return 0;
    /* The kernel may have unmapped the range before it failed: never leave a hole for others. */
    saved = errno;
    (void)mmap(r->ptr + at, size, PROT_NONE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | TN_HOSTMEM_NOREPLACE_, -1, 0);
    errno = saved;
    return TN_ESYS;
}

TN_API int tn_hostmem_unmap_at(struct tn_hostmem *r, uint64_t at, uint64_t size)
{
    if (r->how != TN_HOSTMEM_RESERVED || size == 0 || !tn_hostmem_in_(r, at, size, r->page))
        return TN_EINVAL;
    if (mmap(r->ptr + at, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
             -1, 0) == MAP_FAILED)
        return TN_ESYS;
    return 0;
}

/*
 * The runs of pages in [*at, end) of a private mapping that are copies of its own: the first
 * TN_HOSTMEM_RUNS_ of them, and *at moves to where the look ended. Returns how many, or -1.
 */
static inline int tn_hostmem_runs_(const struct tn_hostmem *m, int pagemap, uint64_t *at,
                                   uint64_t end, struct tn_hostmem_run_ *run)
{
    struct tn_hostmem_scan_ scan;
    int n;

    __builtin_memset(&scan, 0, sizeof(scan));
    scan.size = sizeof(scan);
    scan.start = (uint64_t)(uintptr_t)m->ptr + *at;
    scan.end = (uint64_t)(uintptr_t)m->ptr + end;
    scan.vec = (uint64_t)(uintptr_t)run;
    scan.vec_len = TN_HOSTMEM_RUNS_;
    scan.inverted = TN_HOSTMEM_FILE_;
    scan.all = TN_HOSTMEM_FILE_;
    scan.any = scan.result = TN_HOSTMEM_PRESENT_ | TN_HOSTMEM_SWAPPED_;
    n = ioctl(pagemap, TN_HOSTMEM_SCAN_, &scan);
    if (n >= 0)
        *at = scan.walk_end - (uint64_t)(uintptr_t)m->ptr;
    return n;
}

TN_API int tn_hostmem_discard(struct tn_hostmem *m, uint64_t at, uint64_t len)
{
    if (m->how == TN_HOSTMEM_NONE || m->how == TN_HOSTMEM_READ)
        return TN_ESTATE;
    if (!tn_hostmem_in_(m, at, len, m->page))
        return TN_EINVAL;
    if (len > 0 &&
        madvise(m->ptr + at, len, m->how == TN_HOSTMEM_SHARED ? MADV_REMOVE : MADV_DONTNEED) < 0)
        return TN_ESYS;
    return 0;
}

TN_API int tn_hostmem_zero(struct tn_hostmem *m, uint64_t at, uint64_t len)
{
    if (m->how == TN_HOSTMEM_RESERVED || (m->how == TN_HOSTMEM_PRIVATE && !m->anon))
        return tn_hostmem_in_(m, at, len, m->page) ? TN_EUNSUP : TN_EINVAL;
    return tn_hostmem_discard(m, at, len);
}

TN_API int tn_hostmem_forget(struct tn_hostmem *m, int pagemap)
{
    struct tn_hostmem_run_ run[TN_HOSTMEM_RUNS_];
    uint64_t at = 0;
    int n;

    if (m->how != TN_HOSTMEM_PRIVATE)
        return TN_ESTATE;
    n = pagemap < 0 ? -1 : tn_hostmem_runs_(m, pagemap, &at, m->size, run);
    if (n < 0 || at < m->size)
        return tn_hostmem_discard(m, 0, m->size);
    for (int i = 0; i < n; i++) {
        if (madvise((void *)(uintptr_t)run[i].start, run[i].end - run[i].start, MADV_DONTNEED) < 0)
            return TN_ESYS;
    }
    return 0;
}

/* Seals the memfd, and leaves m a private mapping of it with that protection. */
static inline int tn_hostmem_seal_(struct tn_hostmem *m, int prot)
{
    int small = m->page == tn_hostmem_small_() ? MAP_NORESERVE : 0;
    int reserve = prot & PROT_WRITE ? small : MAP_NORESERVE;
    int saved;

    if (m->how != TN_HOSTMEM_SHARED || m->fd < 0)
        return TN_ESTATE;
    /* The seal is refused while a shared mapping exists that may be written, ours included. */
    if (mmap(m->ptr, m->size, prot, MAP_PRIVATE | MAP_FIXED | reserve, m->fd, 0) == MAP_FAILED)
        return TN_ESYS;
    if (fcntl(m->fd, TN_HOSTMEM_ADD_SEALS_, TN_HOSTMEM_SEAL_WRITE_) == 0) {
        m->how = prot & PROT_WRITE ? TN_HOSTMEM_PRIVATE : TN_HOSTMEM_READ;
        return 0;
    }
    saved = errno;
    if (mmap(m->ptr, m->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | small, m->fd, 0) ==
        MAP_FAILED)
        m->how = TN_HOSTMEM_READ; /* cannot be told from frozen here, and is as safe */
    tn_hostmem_hint_(m);
    errno = saved;
    return TN_ESYS;
}

TN_API int tn_hostmem_freeze(struct tn_hostmem *m)
{
    return tn_hostmem_seal_(m, PROT_READ);
}

TN_API int tn_hostmem_part(struct tn_hostmem *m, struct tn_hostmem *golden)
{
    int rc = TN_ESTATE;

    tn_hostmem_void_(golden);
    if (m->how == TN_HOSTMEM_SHARED && m->fd >= 0)
        rc = tn_hostmem_map(golden, m->fd, 0, m->size, TN_HOSTMEM_READ);
    if (rc < 0)
        return rc;
    rc = tn_hostmem_seal_(m, PROT_READ | PROT_WRITE);
    if (rc < 0) {
        tn_hostmem_close(golden);
        return rc;
    }
    golden->fd = m->fd;
    golden->align = m->align;
    m->fd = -1;
    tn_hostmem_hint_(m);
    return 0;
}

/* As tn_hostmem_own, of a kernel that does not scan: a look at each page's entry. */
static inline int64_t tn_hostmem_own_each_(const struct tn_hostmem *m, int pagemap, uint64_t *own)
{
    uint64_t entry[512]; /* a page's: bit 63 present, 62 swapped, 61 of a file */
    uint64_t small = tn_hostmem_small_(), pages = m->size / small, count = 0;
    uint64_t first = (uint64_t)(uintptr_t)m->ptr / small;

    for (uint64_t i = 0; i < pages;) {
        uint64_t want = pages - i < 512 ? pages - i : 512;
        ssize_t n = pread(pagemap, entry, want * 8, (off_t)((first + i) * 8));

        if (n < 8) {
            errno = n < 0 ? errno : EIO;
            return TN_ESYS;
        }
        for (uint64_t k = 0; k < (uint64_t)n / 8; k++, i++) {
            if (entry[k] >> 62 != 0 && (entry[k] >> 61 & 1) == 0) {
                own[i / 64] |= 1ull << i % 64;
                count++;
            }
        }
    }
    return (int64_t)count;
}

TN_API int64_t tn_hostmem_own(const struct tn_hostmem *m, uint64_t *own)
{
    struct tn_hostmem_run_ run[TN_HOSTMEM_RUNS_];
    uint64_t small = tn_hostmem_small_(), at = 0;
    int64_t count = 0;
    int fd, n = 0, saved;

    if (m->how != TN_HOSTMEM_PRIVATE && m->how != TN_HOSTMEM_RESERVED)
        return TN_ESTATE;
    fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return TN_ESYS;
    __builtin_memset(own, 0, (m->size / small + 63) / 64 * 8);
    while (n >= 0 && at < m->size) {
        n = tn_hostmem_runs_(m, fd, &at, m->size, run);
        for (int i = 0; i < n; i++) {
            uint64_t page = (run[i].start - (uint64_t)(uintptr_t)m->ptr) / small;
            uint64_t end = page + (run[i].end - run[i].start) / small;

            for (; page < end; page++, count++)
                own[page / 64] |= 1ull << page % 64;
        }
    }
    if (n < 0) {
        __builtin_memset(own, 0, (m->size / small + 63) / 64 * 8);
        count = tn_hostmem_own_each_(m, fd, own);
    }
    saved = errno;
    close(fd);
    errno = saved;
    return count;
}

TN_API void tn_hostmem_close(struct tn_hostmem *m)
{
    int saved = errno;

    if (m->ptr)
        munmap(m->ptr, m->size + m->guard);
    if (m->fd >= 0)
        close(m->fd);
    tn_hostmem_void_(m);
    errno = saved;
}

#endif /* TN_DECL_ONLY */

#ifdef __cplusplus
}
#endif

#endif /* TN_HOSTMEM_H */
