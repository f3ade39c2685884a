/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vm_image - what clones are made of: a machine's state and its memory, in a directory or taken
 * from a machine that goes on.
 *
 * WHAT
 *   tn_vm_snapshot writes a machine that is paused into a directory: whole, or only what has
 *   changed since the last time. tn_vm_image_open reads one back, believes nothing of it, and
 *   checks it all.
 *   tn_vm_image_take makes an image of a machine in this process without copying its memory: the
 *   memory becomes the image's, and the machine goes on with a copy-on-write view of it.
 *
 *   a directory has
 *     state           sections of tn_vm_state, digests, manifest: docs/snapshot-format.md
 *     memory          the RAM; of a diff the pages that it has, one behind the other
 *     disk0.overlay   what was written to the first disk, if it has an overlay; and so on
 *
 * USAGE
 *   struct tn_vm vm;
 *   struct tn_vm_image image;
 *   struct tn_vm_snapshot_cfg cfg;
 *   struct tn_vm_image_cfg open;
 *
 *   memset(&vm, 0, sizeof(vm)); // a machine that was started, and paused
 *   memset(&cfg, 0, sizeof(cfg));
 *   memset(&open, 0, sizeof(open));
 *   cfg.dir = open.dir = "/var/lib/vm/golden";
 *   if (tn_vm_snapshot(&vm, &cfg) < 0)
 *       return 1;
 *   if (tn_vm_image_open(&image, NULL, &open) < 0)
 *       return 2; // image.fault says which file, and what of it
 *   tn_vm_image_close(&image);
 *
 * COMPOSITION
 *   tn_vm_fork makes machines of an image.
 *
 * GUEST TRUST
 *   Every file may be hostile. Lengths are compared with what the file has, before anything is
 *   allocated for them; all digests are checked, also those of memory, unless that is left to the
 *   clones that load it lazily. Without a key they only say that the directory is what somebody
 *   wrote: see tn_snap.
 *
 * MEMORY
 *   An image owns descriptors, its state and the digests; it outlives its clones. Its files must
 *   not change while it is open: memory is mapped, and checked only once.
 *
 * THREADS
 *   snapshot and take: on the thread of the machine's loop, or while it does not run. An open image
 *   is only read, by any number of threads. snapshot and open start threads for the digests and
 *   join them.
 *
 * CONFIG
 *   TN_VM_IMAGE_CHUNK: bytes of memory to a digest.
 *
 * LIMITS
 *   A chain of diffs has at most TN_VM_IMAGE_LAYERS members.
 */
#ifndef TN_VM_IMAGE_H
#define TN_VM_IMAGE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* for layer 3; of use only before the first system header */
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
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tn_hostmem.h"
#include "tn_sha256.h"
#include "tn_snap.h"
#include "tn_vm.h"
#include "tn_vm_records.h"
#include "tn_vm_state.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#ifndef TN_VM_IMAGE_CHUNK
#define TN_VM_IMAGE_CHUNK (64u << 10)
#endif
#define TN_VM_IMAGE_LAYERS 64u
#define TN_VM_IMAGE_PAGE   4096u      /* the unit of diffs, bytes */
#define TN_VM_IMAGE_STATE  (1u << 30) /* bytes of a state file that are still read */

/* Pages [first, first + count) of memory, in a file from its page at on. */
struct tn_vm_run {
    uint64_t first;
    uint64_t count;
    uint64_t at;
};

/* A file with some of memory's pages: ascending runs, none of which meet. */
struct tn_vm_layer {
    struct tn_vm_golden *file;
    struct tn_vm_run *run;
    uint32_t runs;
};

/* What was wrong, after an error. */
struct tn_vm_fault {
    const char *file;            /* "state", "memory", "disk"; NULL: none of them */
    uint64_t at;                 /* in state or memory: the offset; of a disk: its number */
    uint32_t depth;              /* 0: this directory; 1: that of the parent; ... */
    struct tn_vm_arch_lack lack; /* with TN_EUNSUP and no file: what this host lacks */
};

struct tn_vm_image {
    struct tn_vm_state state;
    struct tn_vm_layer layer[TN_VM_IMAGE_LAYERS]; /* what is above counts; the lowest has all */
    uint32_t layers;
    int overlay[TN_VM_MAX_DISKS]; /* what was written to each disk; -1: it has no overlay */
    struct tn_snap_memory memory; /* digests is the image's own; NULL: it was taken, not opened */
    uint8_t id[TN_SNAP_ID];       /* the snapshot's name; 0: it was taken */
    char *dir;                    /* where it is; NULL: it was taken */
    struct tn_vm_fault fault;
};

struct tn_vm_snapshot_cfg {
    const char *dir; /* made; if it is there, it is empty */
    bool
        diff; /* only what has changed since the last snapshot, or since the machine was restored */
    bool sync;                     /* all is durable before it returns */
    const struct tn_snap_key *key; /* NULL: no MAC */
};

struct tn_vm_image_cfg {
    const char *dir;
    const char *parent;            /* where the parent of a diff is; NULL: as the diff says */
    bool lazy;                     /* don't read the memory now: clones check it as they load it */
    const struct tn_snap_key *key; /* NULL: there is no MAC */
};

/*
 * Writes the machine, which is paused or was not started yet; it is paused still afterwards. The
 * state file comes last, under its name only when it is whole. Returns 0;
 *   TN_EINVAL  no directory is named
 *   TN_EEXIST  it is there, and not empty
 *   TN_ESTATE  the machine runs, or has ended; a diff without track_dirty or without a parent
 *   TN_ESYS    the file system, or KVM, refuses; also a disk that could not be flushed
 * and then the directory has no state file, and the machine may be resumed.
 */
TN_API int tn_vm_snapshot(struct tn_vm *vm, const struct tn_vm_snapshot_cfg *cfg);

/*
 * Opens and checks a directory; with kvm (or NULL) also that this host has what the vCPUs need.
 * Returns 0, or with image->fault telling where, and all else of *image closed:
 *   TN_ESYS     a file is not there, or can't be read
 *   TN_ETRUNC   a file is too short; TN_EFORMAT: too long, or not what it should be
 *   TN_EPROTO   a digest or the MAC is wrong; the parent is another one than the diff's
 *   TN_EUNSUP   a version from the future; fault.lack: this host lacks something
 *   TN_ERANGE   numbers outside the limits, a chain too long
 *   and the others of tn_snap_open and tn_vm_state_parse.
 */
TN_API int tn_vm_image_open(struct tn_vm_image *image, const struct tn_kvm *kvm,
                            const struct tn_vm_image_cfg *cfg);

/*
 * Makes an image of a machine that is paused, or was not started yet; it may be resumed right
 * after. dir is where copies of the disks' overlays are kept, without a name; NULL: the machine has
 * no disk with an overlay. It takes no longer for more memory, only for more pages that the machine
 * has written since it was itself cloned. Returns 0; TN_ESTATE; TN_EINVAL: there are overlays, and
 * no dir; TN_ESYS. *image is closed then, and the machine as before.
 */
TN_API int tn_vm_image_take(struct tn_vm_image *image, struct tn_vm *vm, const char *dir);

/*
 * Copies bytes [off, off + len) of the memory to buf, both multiples of TN_VM_IMAGE_PAGE. Returns
 * 0; TN_ETRUNC: a file has become shorter; TN_ESYS.
 */
TN_API int tn_vm_image_read(const struct tn_vm_image *image, uint64_t off, uint8_t *buf,
                            size_t len);

/*
 * Closes what it has; nothing on a closed one, or on a zeroed struct.
 */
TN_API void tn_vm_image_close(struct tn_vm_image *image);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* ---- files ---- */

/* All len bytes at off, past interruptions; TN_ETRUNC: the file ends before. */
static inline int tn_vm_pread_(int fd, void *buf, size_t len, uint64_t off)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = pread(fd, (uint8_t *)buf + done, len - done, (off_t)(off + done));

        if (n == 0)
            return TN_ETRUNC;
        if (n < 0 && errno != EINTR)
            return TN_ESYS;
        done += n > 0 ? (size_t)n : 0;
    }
    return TN_OK;
}

static inline int tn_vm_pwrite_(int fd, const void *buf, size_t len, uint64_t off)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = pwrite(fd, (const uint8_t *)buf + done, len - done, (off_t)(off + done));

        if (n < 0 && errno != EINTR)
            return TN_ESYS;
        done += n > 0 ? (size_t)n : 0;
    }
    return TN_OK;
}

/*
 * The next bytes of fd, from *at on, that are not a hole: [*at, *end), end no further than limit.
 * Returns 1, or 0 when there are no more. A file system that knows no holes has data everywhere.
 */
static inline int tn_vm_data_(int fd, uint64_t *at, uint64_t *end, uint64_t limit)
{
    off_t data = lseek(fd, (off_t)*at, SEEK_DATA), hole;

    *end = limit;
    if (*at >= limit || (data < 0 && errno == ENXIO))
        return 0;
    if (data < 0)
        return 1;
    if ((uint64_t)data >= limit)
        return 0;
    *at = (uint64_t)data;
    hole = lseek(fd, data, SEEK_HOLE);
    if (hole > data && (uint64_t)hole < limit)
        *end = (uint64_t)hole;
    return 1;
}

/* Whether there is nothing but a hole; where it ends is not asked, which may take long to tell. */
static inline bool tn_vm_hole_(int fd, uint64_t at, uint64_t len)
{
    off_t data = lseek(fd, (off_t)at, SEEK_DATA);

    return data < 0 ? errno == ENXIO : (uint64_t)data >= at + len;
}

/* A regular file of dir, to read; it is never one that a symbolic link points to. */
static inline int tn_vm_openat_(int dir, const char *name, uint64_t *size)
{
    struct stat st;
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), r, saved;

    if (fd < 0)
        return TN_ESYS;
    r = fstat(fd, &st);
    saved = r < 0 ? errno : EINVAL;
    if (r < 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        errno = saved;
        return TN_ESYS;
    }
    *size = (uint64_t)st.st_size;
    return fd;
}

/* A new file of dir. */
static inline int tn_vm_createat_(int dir, const char *name)
{
    int fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    return fd < 0 ? TN_ESYS : fd;
}

/* Copies a file with its holes; to is empty. */
static inline int tn_vm_copy_(int from, int to, uint64_t size)
{
    uint64_t at = 0, end;
    uint8_t *buf;
    int r = ftruncate(to, (off_t)size) < 0 ? TN_ESYS : TN_OK;

    buf = (uint8_t *)malloc(TN_VM_IMAGE_CHUNK);
    if (!buf)
        r = TN_ESYS;
    while (r >= 0 && tn_vm_data_(from, &at, &end, size)) {
        while (r >= 0 && at < end) {
            size_t n = end - at < TN_VM_IMAGE_CHUNK ? (size_t)(end - at) : TN_VM_IMAGE_CHUNK;

            r = tn_vm_pread_(from, buf, n, at);
            if (r >= 0)
                r = tn_vm_pwrite_(to, buf, n, at);
            at += n;
        }
    }
    free(buf);
    return r;
}

static inline bool tn_vm_zero_(const uint8_t *bytes, size_t len)
{
    return len == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0);
}

/* ---- layers ---- */

static inline void tn_vm_layer_close_(struct tn_vm_layer *l)
{
    tn_vm_golden_put_(l->file);
    free(l->run);
    memset(l, 0, sizeof(*l));
}

/* A layer with room for n runs, of a file that it takes over in any case. */
static inline int tn_vm_layer_init_(struct tn_vm_layer *l, struct tn_vm_golden *file, uint32_t n)
{
    memset(l, 0, sizeof(*l));
    l->file = file;
    l->run = (struct tn_vm_run *)calloc(n ? n : 1, sizeof(*l->run));
    l->runs = n;
    if (l->file && l->run)
        return TN_OK;
    tn_vm_layer_close_(l);
    return TN_ESYS;
}

/* The first run that ends after page; l->runs: none does. */
static inline uint32_t tn_vm_layer_find_(const struct tn_vm_layer *l, uint64_t page)
{
    uint32_t low = 0, high = l->runs;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;

        if (l->run[mid].first + l->run[mid].count <= page)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Copies what a layer has of [off, off + len) into buf. */
static inline int tn_vm_layer_read_(const struct tn_vm_layer *l, uint64_t off, uint8_t *buf,
                                    size_t len)
{
    uint64_t page = off / TN_VM_IMAGE_PAGE, end = page + len / TN_VM_IMAGE_PAGE;
    int r = TN_OK;

    for (uint32_t i = tn_vm_layer_find_(l, page); r >= 0 && i < l->runs; i++) {
        const struct tn_vm_run *run = &l->run[i];
        uint64_t from = run->first > page ? run->first : page;
        uint64_t to = run->first + run->count < end ? run->first + run->count : end;

        if (from >= end)
            break;
        r = tn_vm_pread_(l->file->fd, buf + (from - page) * TN_VM_IMAGE_PAGE,
                         (to - from) * TN_VM_IMAGE_PAGE,
                         (run->at + from - run->first) * TN_VM_IMAGE_PAGE);
    }
    return r;
}

TN_API int tn_vm_image_read(const struct tn_vm_image *image, uint64_t off, uint8_t *buf, size_t len)
{
    int r = TN_OK;

    for (uint32_t i = 0; r >= 0 && i < image->layers; i++)
        r = tn_vm_layer_read_(&image->layer[i], off, buf, len);
    return r;
}

/* ---- sets of pages ---- */

static inline uint64_t *tn_vm_pages_(uint64_t size)
{
    return (uint64_t *)calloc(size / TN_VM_IMAGE_PAGE / 64 + 1, sizeof(uint64_t));
}

static inline bool tn_vm_page_(const uint64_t *set, uint64_t page)
{
    return set[page / 64] >> page % 64 & 1;
}

static inline void tn_vm_page_add_(uint64_t *set, uint64_t first, uint64_t end)
{
    for (; first < end; first++)
        set[first / 64] |= 1ull << first % 64;
}

/* The runs of a set; run NULL: only how many there are. */
static inline uint32_t tn_vm_runs_(const uint64_t *set, uint64_t pages, struct tn_vm_run *run)
{
    uint64_t at = 0;
    uint32_t n = 0;

    for (uint64_t i = 0; i < pages;) {
        uint64_t first = i;

        if (set[i / 64] == 0) { /* most of most sets */
            i = (i / 64 + 1) * 64;
            continue;
        }
        while (i < pages && tn_vm_page_(set, i))
            i++;
        if (i > first) {
            if (run) {
                run[n].first = first;
                run[n].count = i - first;
                run[n].at = at;
            }
            at += i - first;
            n++;
        } else {
            i++;
        }
    }
    return n;
}

/* Adds the pages that a file of memory has bytes for. */
static inline void tn_vm_pages_of_file_(uint64_t *set, int fd, uint64_t size)
{
    uint64_t at = 0, end;

    for (; tn_vm_data_(fd, &at, &end, size); at = end)
        tn_vm_page_add_(set, at / TN_VM_IMAGE_PAGE,
                        (end + TN_VM_IMAGE_PAGE - 1) / TN_VM_IMAGE_PAGE);
}

/* The pages of a machine's memory that may be other than zero; the others are not touched. */
static inline int tn_vm_pages_present_(const struct tn_vm *vm, uint64_t *set)
{
    int64_t r = 0;

    if (vm->lazy)
        tn_vm_page_add_(set, 0, vm->ram.size / TN_VM_IMAGE_PAGE);
    else if (vm->ram.how == TN_HOSTMEM_SHARED)
        tn_vm_pages_of_file_(set, vm->ram.fd, vm->ram.size);
    else
        r = tn_hostmem_own(&vm->ram, set);
    if (r >= 0 && vm->golden)
        tn_vm_pages_of_file_(set, vm->golden->fd, vm->ram.size);
    return r < 0 ? (int)r : TN_OK;
}

/* The pages that were written since the last call, by the guest and by the host, are added. */
static inline int tn_vm_pages_dirty_(struct tn_vm *vm, uint64_t *set)
{
    int r = TN_OK;

    for (uint32_t i = 0; r >= 0 && i < vm->mem.count; i++) {
        const struct tn_mem_region *region = &vm->mem.region[i];
        uint64_t first = (uint64_t)(region->host - vm->ram.ptr) / TN_VM_IMAGE_PAGE;
        uint64_t pages = region->size / TN_VM_IMAGE_PAGE;
        uint64_t *bits = tn_vm_pages_(region->size);

        r = bits ? tn_kvm_dirty_log(&vm->kvm_vm, i, bits) : TN_ESYS;
        if (r >= 0 && tn_mem_take_dirty(&vm->mem, i, bits) < 0)
            r = TN_EBUG;
        for (uint64_t p = 0; r >= 0 && p < pages; p++) {
            if (tn_vm_page_(bits, p))
                tn_vm_page_add_(set, first + p, first + p + 1);
        }
        free(bits);
    }
    return r;
}

/* ---- digests of memory, by several threads ---- */

/* Memory is worked on in batches of so many bytes: 16 chunks. */
#define TN_VM_IMAGE_BATCH_ (16 * TN_VM_IMAGE_CHUNK)

struct tn_vm_chunks_ {
    uint64_t len;  /* bytes of memory */
    uint64_t next; /* atomic: the next batch to take */
    int err;       /* atomic: the first error */
    int sys_errno;
    uint64_t bad; /* and where its chunk begins */
    /* Bytes [*at, end), one batch; after an error *at is the chunk. */
    int (*fn)(struct tn_vm_chunks_ *c, uint8_t *buf, uint64_t *at, uint64_t end);

    struct tn_sha256 sha;
    uint8_t zeroes[2][TN_SHA256_LEN]; /* the digests of a whole chunk of them, and of the last */
    uint8_t *digests;
    const struct tn_vm *vm; /* whose memory is written */
    const uint64_t *set;    /* pages that count */
    int fd;
    const struct tn_vm_image *image; /* whose memory is checked */
};

static inline void *tn_vm_chunks_main_(void *arg)
{
    struct tn_vm_chunks_ *c = (struct tn_vm_chunks_ *)arg;
    uint8_t *buf = (uint8_t *)malloc(TN_VM_IMAGE_BATCH_);
    uint64_t at;

    while (!__atomic_load_n(&c->err, __ATOMIC_RELAXED) &&
           (at = __atomic_fetch_add(&c->next, TN_VM_IMAGE_BATCH_, __ATOMIC_RELAXED)) < c->len) {
        uint64_t end = c->len - at < TN_VM_IMAGE_BATCH_ ? c->len : at + TN_VM_IMAGE_BATCH_;
        int none = 0, r = buf ? c->fn(c, buf, &at, end) : TN_ESYS;

        if (r < 0 && __atomic_compare_exchange_n(&c->err, &none, r, false, __ATOMIC_RELAXED,
                                                 __ATOMIC_RELAXED)) {
            c->sys_errno = errno;
            c->bad = at;
        }
    }
    free(buf);
    return NULL;
}

static inline void tn_vm_digest_(struct tn_sha256 *sha, const uint8_t *bytes, size_t len,
                                 uint8_t *out)
{
    tn_sha256_reset(sha);
    tn_sha256_update(sha, bytes, len);
    tn_sha256_final(sha, out);
}

/* fn for each batch, on this thread and on one for each further CPU, three at most. */
static inline int tn_vm_chunks_run_(struct tn_vm_chunks_ *c)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    pthread_t thread[3];
    uint8_t *zeroes = (uint8_t *)calloc(1, TN_VM_IMAGE_CHUNK);
    int n = 0;

    if (!zeroes)
        return TN_ESYS;
    tn_sha256_init(&c->sha);
    tn_vm_digest_(&c->sha, zeroes, TN_VM_IMAGE_CHUNK, c->zeroes[0]);
    tn_vm_digest_(&c->sha, zeroes, c->len % TN_VM_IMAGE_CHUNK, c->zeroes[1]);
    free(zeroes);
    while (n < 3 && n + 1 < cpus && c->len / TN_VM_IMAGE_BATCH_ > (unsigned)n + 1 &&
           pthread_create(&thread[n], NULL, tn_vm_chunks_main_, c) == 0)
        n++;
    (void)tn_vm_chunks_main_(c);
    while (n > 0)
        pthread_join(thread[--n], NULL);
    if (c->err)
        errno = c->sys_errno;
    return c->err;
}

/* How much there is of the chunk at `at`, up to end. */
static inline size_t tn_vm_chunk_len_(uint64_t at, uint64_t end)
{
    return end - at < TN_VM_IMAGE_CHUNK ? (size_t)(end - at) : TN_VM_IMAGE_CHUNK;
}

/* Where the digest of a chunk is, among those of all. */
static inline size_t tn_vm_digest_at_(uint64_t chunk)
{
    return (size_t)(chunk / TN_VM_IMAGE_CHUNK * TN_SHA256_LEN);
}

/* The digest of a chunk of that length that is all zero. */
static inline const uint8_t *tn_vm_zeroes_(const struct tn_vm_chunks_ *c, size_t len)
{
    return c->zeroes[len < TN_VM_IMAGE_CHUNK];
}

/* The digests of bytes [from, to) of memory, and the bytes into the file. */
static inline int tn_vm_chunks_put_(struct tn_vm_chunks_ *c, uint64_t from, uint64_t to)
{
    const uint8_t *bytes = c->vm->ram.ptr + from;

    tn_sha256_chunks(&c->sha, bytes, to - from, TN_VM_IMAGE_CHUNK,
                     c->digests + tn_vm_digest_at_(from));
    return c->fd < 0 ? TN_OK : tn_vm_pwrite_(c->fd, bytes, to - from, from);
}

/* Chunks that are all zero stay out of the file; of a diff, those that have not changed as well. */
static inline int tn_vm_chunks_write_(struct tn_vm_chunks_ *c, uint8_t *buf, uint64_t *at,
                                      uint64_t end)
{
    uint64_t from = *at; /* of what is to be put */
    int r = TN_OK;

    (void)buf;
    for (size_t len; r >= 0 && *at < end; *at += len) {
        bool any = false;

        len = tn_vm_chunk_len_(*at, end);
        for (uint64_t p = *at; p < *at + len && !any; p += TN_VM_IMAGE_PAGE)
            any = tn_vm_page_(c->set, p / TN_VM_IMAGE_PAGE);
        if (any && !tn_vm_zero_(c->vm->ram.ptr + *at, len))
            continue;
        if (any || c->fd >= 0) /* otherwise the parent's digest is right still */
            memcpy(c->digests + tn_vm_digest_at_(*at), tn_vm_zeroes_(c, len), TN_SHA256_LEN);
        r = tn_vm_chunks_put_(c, from, *at);
        from = *at + len;
    }
    return r < 0 ? r : tn_vm_chunks_put_(c, from, end);
}

static inline int tn_vm_chunks_check_(struct tn_vm_chunks_ *c, uint8_t *buf, uint64_t *at,
                                      uint64_t end)
{
    uint8_t found[TN_VM_IMAGE_BATCH_ / TN_VM_IMAGE_CHUNK * TN_SHA256_LEN];
    const struct tn_vm_image *image = c->image;
    uint64_t begin = *at, from = *at; /* of what is to be digested */
    int r;

    for (size_t len; *at < end; *at += len) {
        uint8_t *bytes = buf + (*at - begin);
        bool hole;

        len = tn_vm_chunk_len_(*at, end);
        hole = image->layers == 1 && tn_vm_hole_(image->layer[0].file->fd, *at, len);
        r = hole ? TN_OK : tn_vm_image_read(image, *at, bytes, len);
        if (r < 0)
            return r;
        if (!hole && !tn_vm_zero_(bytes, len))
            continue;
        memcpy(found + tn_vm_digest_at_(*at - begin), tn_vm_zeroes_(c, len), TN_SHA256_LEN);
        tn_sha256_chunks(&c->sha, buf + (from - begin), *at - from, TN_VM_IMAGE_CHUNK,
                         found + tn_vm_digest_at_(from - begin));
        from = *at + len;
    }
    tn_sha256_chunks(&c->sha, buf + (from - begin), end - from, TN_VM_IMAGE_CHUNK,
                     found + tn_vm_digest_at_(from - begin));
    for (*at = begin; *at < end; *at += TN_VM_IMAGE_CHUNK) {
        if (!tn_sha256_equal(image->memory.digests + tn_vm_digest_at_(*at),
                             found + tn_vm_digest_at_(*at - begin)))
            return TN_EPROTO;
    }
    return TN_OK;
}

/* ---- the disks' overlays ---- */

/*
 * A digest of a file's bytes that does not depend on where its holes are: over the offsets and
 * bytes of its blocks that are not all zero, and its length.
 */
static inline int tn_vm_sparse_digest_(int fd, uint64_t size, uint8_t out[TN_SHA256_LEN])
{
    uint64_t at = 0, next = 0, end;
    struct tn_sha256 sha;
    uint8_t number[8];
    uint8_t *buf = (uint8_t *)malloc(TN_VM_IMAGE_CHUNK);
    int r = buf ? TN_OK : TN_ESYS;

    tn_sha256_init(&sha);
    while (r >= 0 && tn_vm_data_(fd, &at, &end, size)) {
        at -= at % TN_VM_IMAGE_CHUNK;
        for (at = at < next ? next : at; r >= 0 && at < end; at = next) {
            size_t n = size - at < TN_VM_IMAGE_CHUNK ? (size_t)(size - at) : TN_VM_IMAGE_CHUNK;

            r = tn_vm_pread_(fd, buf, n, at);
            if (r >= 0 && !tn_vm_zero_(buf, n)) {
                tn_put_(number, 8, at);
                tn_sha256_update(&sha, number, 8);
                tn_sha256_update(&sha, buf, n);
            }
            next = at + n;
        }
    }
    tn_put_(number, 8, size);
    tn_sha256_update(&sha, number, 8);
    tn_sha256_final(&sha, out);
    free(buf);
    return r;
}

/* Copies what was written to a disk, which is at rest, to an empty file; *size gets its length. */
static inline int tn_vm_overlay_copy_(struct tn_vm_disk *disk, int to, uint64_t *size)
{
    int from = disk->overlay.over.fd;
    struct stat st;

    if (tn_vm_disk_flush(disk) < 0 || fstat(from, &st) < 0)
        return TN_ESYS;
    *size = (uint64_t)st.st_size;
    return tn_vm_copy_(from, to, *size);
}

static inline void tn_vm_overlay_name_(char name[32], uint32_t disk)
{
    (void)snprintf(name, 32, "disk%u.overlay", disk);
}

/* ---- an image of a machine that goes on ---- */

/* The pages of a set, one behind the other in a new memfd. */
static inline int tn_vm_take_pages_(struct tn_vm_layer *l, const struct tn_vm *vm,
                                    const uint64_t *set)
{
    uint64_t pages = vm->ram.size / TN_VM_IMAGE_PAGE;
    int r = tn_vm_layer_init_(l, tn_vm_golden_init_(memfd_create("tenon-pages", MFD_CLOEXEC)),
                              tn_vm_runs_(set, pages, NULL));

    if (r < 0)
        return r;
    (void)tn_vm_runs_(set, pages, l->run);
    for (uint32_t i = 0; r >= 0 && i < l->runs; i++)
        r = tn_vm_pwrite_(l->file->fd, vm->ram.ptr + l->run[i].first * TN_VM_IMAGE_PAGE,
                          l->run[i].count * TN_VM_IMAGE_PAGE, l->run[i].at * TN_VM_IMAGE_PAGE);
    return r;
}

/* The memory of a machine that is a private view already: its file, and the pages of its own. */
static inline int tn_vm_take_own_(struct tn_vm_image *image, struct tn_vm *vm)
{
    uint64_t size = vm->ram.size;
    uint64_t *set = tn_vm_pages_(size);
    int fd, r;

    if (!set)
        return TN_ESYS;
    if (vm->golden) {
        r = tn_vm_layer_init_(&image->layer[0], tn_vm_golden_get_(vm->golden), 1);
    } else {
        fd = memfd_create("tenon-ram", MFD_CLOEXEC);
        if (fd >= 0 && ftruncate(fd, (off_t)size) < 0) {
            close(fd);
            fd = -1;
        }
        r = tn_vm_layer_init_(&image->layer[0], tn_vm_golden_init_(fd), 1);
    }
    if (r >= 0) {
        image->layers = 1;
        image->layer[0].run[0].count = size / TN_VM_IMAGE_PAGE;
        if (vm->lazy)
            tn_vm_page_add_(set, 0, size / TN_VM_IMAGE_PAGE);
        else
            r = tn_hostmem_own(&vm->ram, set) < 0 ? TN_ESYS : TN_OK;
    }
    if (r >= 0)
        r = tn_vm_take_pages_(&image->layer[1], vm, set);
    image->layers = 2; /* those that are not there are closed */
    free(set);
    return r;
}

static inline int tn_vm_take_memory_(struct tn_vm_image *image, struct tn_vm *vm)
{
    struct tn_vm_golden *file;
    struct tn_hostmem golden;
    int r;

    if (vm->ram.how != TN_HOSTMEM_SHARED)
        return tn_vm_take_own_(image, vm);
    /* Before the memory is parted: then no error can lose the machine's own file any more. */
    file = tn_vm_golden_new_();
    r = tn_vm_layer_init_(&image->layer[0], file, 1);
    if (r < 0)
        return r;
    image->layers = 1;
    image->layer[0].run[0].count = vm->ram.size / TN_VM_IMAGE_PAGE;
    r = tn_hostmem_part(&vm->ram, &golden);
    if (r < 0)
        return r;
    file->fd = golden.fd;
    golden.fd = -1;
    tn_hostmem_close(&golden);
    vm->golden = tn_vm_golden_get_(file);
    return TN_OK;
}

static inline int tn_vm_take_disks_(struct tn_vm_image *image, struct tn_vm *vm, const char *dir)
{
    uint64_t size;
    int r = TN_OK;

    for (uint32_t i = 0; r >= 0 && i < vm->devices.disks; i++) {
        struct tn_vm_disk *disk = &vm->devices.disk[i];

        if (!disk->overlaid)
            continue;
        if (!dir)
            return TN_EINVAL;
        image->overlay[i] = open(dir, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
        r = image->overlay[i] < 0 ? TN_ESYS : tn_vm_overlay_copy_(disk, image->overlay[i], &size);
    }
    return r;
}

static inline void tn_vm_image_void_(struct tn_vm_image *image)
{
    memset(image, 0, sizeof(*image));
    for (uint32_t i = 0; i < TN_VM_MAX_DISKS; i++)
        image->overlay[i] = -1;
}

TN_API void tn_vm_image_close(struct tn_vm_image *image)
{
    struct tn_vm_fault fault = image->fault;
    int saved = errno;

    if (!image->state.arch.cpu && image->layers == 0) /* closed; also a struct that is all zero */
        return;
    tn_vm_state_close(&image->state);
    for (uint32_t i = 0; i < image->layers; i++)
        tn_vm_layer_close_(&image->layer[i]);
    for (uint32_t i = 0; i < TN_VM_MAX_DISKS; i++) {
        if (image->overlay[i] >= 0)
            close(image->overlay[i]);
    }
    free((void *)(uintptr_t)image->memory.digests);
    free(image->dir);
    tn_vm_image_void_(image);
    image->fault = fault;
    errno = saved;
}

TN_API int tn_vm_image_take(struct tn_vm_image *image, struct tn_vm *vm, const char *dir)
{
    int r;

    tn_vm_image_void_(image);
    tn_vm_devices_quiesce(&vm->devices);
    r = tn_vm_state_save(&image->state, vm);
    if (r >= 0)
        r = tn_vm_take_disks_(image, vm, dir);
    if (r >= 0)
        r = tn_vm_take_memory_(image, vm);
    tn_vm_devices_wake(&vm->devices);
    if (r < 0)
        tn_vm_image_close(image);
    return r;
}

/* ---- writing a directory ---- */

/* What a snapshot in the making has. */
struct tn_vm_writing_ {
    struct tn_vm *vm;
    const struct tn_vm_snapshot_cfg *cfg;
    int dir;
    char *path; /* where that is, from the root on */
    struct tn_vm_state state;
    uint64_t *set;    /* pages: that may not be zero; of a diff those that have changed */
    uint8_t *digests; /* of all memory's chunks */
    uint32_t runs;    /* of a diff */
    struct {
        uint64_t size;
        uint8_t digest[TN_SHA256_LEN];
    } overlay[TN_VM_MAX_DISKS];
    uint8_t id[TN_SNAP_ID];
};

static inline int tn_vm_sync_(const struct tn_vm_writing_ *w, int fd)
{
    return w->cfg->sync && fsync(fd) < 0 ? TN_ESYS : TN_OK;
}

/* TN_EEXIST: there is something in a directory, whatever it is. */
static inline int tn_vm_empty_(int dir)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = TN_OK, saved;
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;

    if (!list) {
        if (fd >= 0)
            close(fd);
        return TN_ESYS;
    }
    while (r >= 0 && (errno = 0, e = readdir(list))) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            r = TN_EEXIST;
    }
    if (r >= 0 && errno)
        r = TN_ESYS;
    saved = errno;
    closedir(list);
    errno = saved;
    return r;
}

/* The directory, which is new or empty. */
static inline int tn_vm_write_dir_(struct tn_vm_writing_ *w)
{
    int r;

    if (!w->cfg->dir || !*w->cfg->dir)
        return TN_EINVAL;
    if (mkdir(w->cfg->dir, 0700) < 0 && errno != EEXIST)
        return TN_ESYS;
    w->dir = open(w->cfg->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (w->dir < 0)
        return TN_ESYS;
    r = tn_vm_empty_(w->dir);
    if (r < 0)
        return r;
    w->path = realpath(w->cfg->dir, NULL);
    return w->path ? TN_OK : TN_ESYS;
}

static inline int tn_vm_write_memory_(struct tn_vm_writing_ *w)
{
    struct tn_vm *vm = w->vm;
    uint64_t pages = vm->ram.size / TN_VM_IMAGE_PAGE;
    struct tn_vm_run *run = NULL;
    struct tn_vm_chunks_ c;
    int fd = tn_vm_createat_(w->dir, "memory"), r;

    if (fd < 0)
        return fd;
    memset(&c, 0, sizeof(c));
    c.len = vm->ram.size;
    c.fn = tn_vm_chunks_write_;
    c.digests = w->digests;
    c.vm = vm;
    c.set = w->set;
    c.fd = w->cfg->diff ? -1 : fd;
    r = !w->cfg->diff && ftruncate(fd, (off_t)vm->ram.size) < 0 ? TN_ESYS : tn_vm_chunks_run_(&c);
    if (r >= 0 && w->cfg->diff) {
        w->runs = tn_vm_runs_(w->set, pages, NULL);
        run = (struct tn_vm_run *)calloc(w->runs + 1, sizeof(*run));
        if (!run)
            r = TN_ESYS;
        else
            (void)tn_vm_runs_(w->set, pages, run);
        for (uint32_t i = 0; r >= 0 && i < w->runs; i++)
            r = tn_vm_pwrite_(fd, vm->ram.ptr + run[i].first * TN_VM_IMAGE_PAGE,
                              run[i].count * TN_VM_IMAGE_PAGE, run[i].at * TN_VM_IMAGE_PAGE);
    }
    free(run);
    if (r >= 0)
        r = tn_vm_sync_(w, fd);
    close(fd);
    return r;
}

static inline int tn_vm_write_overlays_(struct tn_vm_writing_ *w)
{
    char name[32];
    int r = TN_OK;

    for (uint32_t i = 0; r >= 0 && i < w->vm->devices.disks; i++) {
        struct tn_vm_disk *disk = &w->vm->devices.disk[i];
        int fd;

        if (!disk->overlaid) {
            r = disk->blk.disk.read_only || tn_vm_disk_flush(disk) >= 0 ? TN_OK : TN_ESYS;
            continue;
        }
        tn_vm_overlay_name_(name, i);
        fd = tn_vm_createat_(w->dir, name);
        if (fd < 0)
            return fd;
        r = tn_vm_overlay_copy_(disk, fd, &w->overlay[i].size);
        if (r >= 0)
            r = tn_vm_sparse_digest_(fd, w->overlay[i].size, w->overlay[i].digest);
        if (r >= 0)
            r = tn_vm_sync_(w, fd);
        close(fd);
    }
    return r;
}

/* The sections beside those of the state. */
static inline void tn_vm_write_sections_(const struct tn_vm_writing_ *w, struct tn_snap_writer *out)
{
    uint64_t pages = w->vm->ram.size / TN_VM_IMAGE_PAGE;

    for (uint32_t i = 0; i < w->vm->devices.disks; i++) {
        if (w->vm->devices.disk[i].overlaid) {
            tn_snap_section_begin(out, TN_VM_SEC_OVERLAY, 1, i, TN_SNAP_REQUIRED);
            tn_snap_put_u64(out, w->overlay[i].size);
            tn_snap_put_bytes(out, w->overlay[i].digest, TN_SHA256_LEN);
            tn_snap_section_end(out);
        }
    }
    if (w->cfg->diff) {
        struct tn_vm_run *run = (struct tn_vm_run *)calloc(w->runs + 1, sizeof(*run));
        uint32_t len = (uint32_t)strlen(w->vm->base->dir);

        if (!run) {
            tn_snap_fail(out, TN_ESYS);
            return;
        }
        (void)tn_vm_runs_(w->set, pages, run);
        tn_snap_section_begin(out, TN_VM_SEC_DIFF, 1, 0, TN_SNAP_REQUIRED);
        tn_snap_put_u32(out, len);
        tn_snap_put_bytes(out, w->vm->base->dir, len);
        tn_snap_put_u32(out, w->runs);
        for (uint32_t i = 0; i < w->runs; i++) {
            tn_snap_put_u64(out, run[i].first);
            tn_snap_put_u64(out, run[i].count);
        }
        tn_snap_section_end(out);
        free(run);
    }
}

/* The state file: made under another name, so that one that is there is whole. */
static inline int tn_vm_write_state_(struct tn_vm_writing_ *w)
{
    uint64_t chunks = (w->vm->ram.size + TN_VM_IMAGE_CHUNK - 1) / TN_VM_IMAGE_CHUNK;
    size_t cap = tn_vm_state_size(&w->state) + chunks * TN_SHA256_LEN + w->runs * 16u + PATH_MAX +
                 TN_VM_MAX_DISKS * 256u;
    uint8_t *buf = (uint8_t *)malloc(cap);
    struct tn_snap_memory memory;
    struct tn_snap_writer out;
    int64_t len;
    int fd = -1, r;

    if (!buf)
        return TN_ESYS;
    memset(&memory, 0, sizeof(memory));
    memory.len = w->vm->ram.size;
    memory.chunk = TN_VM_IMAGE_CHUNK;
    memory.digests = w->digests;
    if (w->cfg->diff)
        memcpy(memory.parent, w->vm->base->id, sizeof(memory.parent));
    tn_snap_begin(&out, buf, cap);
    tn_vm_state_build(&w->state, &out);
    tn_vm_write_sections_(w, &out);
    len = tn_snap_finish(&out, &memory, w->cfg->key);
    memcpy(w->id, out.id, sizeof(w->id));
    r = len < 0 ? (int)len : TN_OK;
    if (r >= 0)
        r = fd = tn_vm_createat_(w->dir, "state.part");
    if (r >= 0)
        r = tn_vm_pwrite_(fd, buf, (size_t)len, 0);
    if (r >= 0)
        r = tn_vm_sync_(w, fd);
    if (r >= 0 && renameat(w->dir, "state.part", w->dir, "state") < 0)
        r = TN_ESYS;
    if (r >= 0)
        r = tn_vm_sync_(w, w->dir);
    if (fd >= 0)
        close(fd);
    free(buf);
    return r;
}

/* From now on a diff is of the snapshot that was just written. */
static inline void tn_vm_write_base_(struct tn_vm_writing_ *w)
{
    struct tn_vm_base *base = w->vm->base;

    if (!base)
        return;
    free(base->dir);
    free(base->digests);
    base->dir = w->path;
    base->digests = w->digests;
    w->path = NULL;
    w->digests = NULL;
    memcpy(base->id, w->id, sizeof(base->id));
    memset(base->set, 0, w->vm->ram.size / TN_VM_IMAGE_PAGE / 64 * 8 + 8);
}

/* Which pages count, and the digests to begin with. */
static inline int tn_vm_write_begin_(struct tn_vm_writing_ *w)
{
    struct tn_vm *vm = w->vm;
    size_t words = vm->ram.size / TN_VM_IMAGE_PAGE / 64 + 1;
    uint64_t chunks = (vm->ram.size + TN_VM_IMAGE_CHUNK - 1) / TN_VM_IMAGE_CHUNK;
    bool tracks = vm->dirty[0] != NULL;
    int r;

    if (w->cfg->diff && !(vm->base && vm->base->dir))
        return TN_ESTATE;
    w->set = tn_vm_pages_(vm->ram.size);
    w->digests = (uint8_t *)calloc(chunks, TN_SHA256_LEN);
    if (tracks && !vm->base)
        vm->base = tn_vm_base_init_(words * 8);
    if (!w->set || !w->digests || (tracks && !vm->base))
        return TN_ESYS;
    /* What is taken out of the log is kept until a snapshot has it. */
    r = tracks ? tn_vm_pages_dirty_(vm, vm->base->set) : TN_OK;
    if (r < 0)
        return r;
    if (!w->cfg->diff)
        return tn_vm_pages_present_(vm, w->set);
    memcpy(w->set, vm->base->set, words * 8);
    memcpy(w->digests, vm->base->digests, chunks * TN_SHA256_LEN);
    return TN_OK;
}

/* Removes what a snapshot that failed has left. */
static inline void tn_vm_write_undo_(const struct tn_vm_writing_ *w)
{
    char name[32];
    int saved = errno;

    (void)unlinkat(w->dir, "state.part", 0);
    (void)unlinkat(w->dir, "state", 0);
    (void)unlinkat(w->dir, "memory", 0);
    for (uint32_t i = 0; i < w->vm->devices.disks; i++) {
        tn_vm_overlay_name_(name, i);
        (void)unlinkat(w->dir, name, 0);
    }
    errno = saved;
}

TN_API int tn_vm_snapshot(struct tn_vm *vm, const struct tn_vm_snapshot_cfg *cfg)
{
    struct tn_vm_writing_ w;
    int r;

    memset(&w, 0, sizeof(w));
    w.vm = vm;
    w.cfg = cfg;
    w.dir = -1;
    tn_vm_devices_quiesce(&vm->devices);
    r = tn_vm_state_save(&w.state, vm);
    if (r >= 0)
        r = tn_vm_write_begin_(&w);
    if (r >= 0)
        r = tn_vm_write_dir_(&w);
    if (r >= 0) {
        r = tn_vm_write_memory_(&w);
        if (r >= 0)
            r = tn_vm_write_overlays_(&w);
        if (r >= 0)
            r = tn_vm_write_state_(&w);
        if (r >= 0)
            tn_vm_write_base_(&w);
        else
            tn_vm_write_undo_(&w);
    }
    tn_vm_devices_wake(&vm->devices);
    if (w.dir >= 0)
        close(w.dir);
    free(w.path);
    free(w.set);
    free(w.digests);
    tn_vm_state_close(&w.state);
    return r;
}

/* ---- opening a directory ---- */

static inline int tn_vm_fault_(struct tn_vm_image *image, const char *file, uint64_t at, int err)
{
    image->fault.file = file;
    image->fault.at = at;
    return err;
}

/* A directory that is looked at: one of a chain of diffs. */
struct tn_vm_reading_ {
    int dir;
    uint8_t *bytes; /* of the state file */
    struct tn_snap snap;
};

static inline void tn_vm_read_close_(struct tn_vm_reading_ *in)
{
    if (in->dir >= 0)
        close(in->dir);
    free(in->bytes);
    in->bytes = NULL;
    in->dir = -1;
}

static inline int tn_vm_read_state_(struct tn_vm_image *image, struct tn_vm_reading_ *in,
                                    const char *path, const struct tn_snap_key *key)
{
    const struct tn_snap_known *known;
    uint64_t size = 0;
    size_t count;
    int fd = -1, r;

    memset(in, 0, sizeof(*in));
    in->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    r = in->dir < 0 ? TN_ESYS : TN_OK;
    if (r >= 0)
        r = fd = tn_vm_openat_(in->dir, "state", &size);
    if (r >= 0 && size > TN_VM_IMAGE_STATE)
        r = TN_ERANGE;
    if (r >= 0) {
        in->bytes = (uint8_t *)malloc(size + 1);
        r = in->bytes ? tn_vm_pread_(fd, in->bytes, size, 0) : TN_ESYS;
    }
    if (fd >= 0)
        close(fd);
    if (r >= 0) {
        known = tn_vm_known(&count);
        r = tn_snap_open(&in->snap, in->bytes, size, key, known, count);
        image->fault.at = in->snap.at;
    }
    if (r >= 0 && in->snap.memory.chunk != TN_VM_IMAGE_CHUNK)
        r = TN_EUNSUP;
    return r < 0 ? tn_vm_fault_(image, "state", image->fault.at, r) : r;
}

/* The runs of a diff, which ascend and lie inside memory; parent gets where that is said to be. */
static inline int tn_vm_read_diff_(struct tn_vm_layer *l, struct tn_snap_section *s, uint64_t pages,
                                   char parent[PATH_MAX])
{
    uint32_t len = tn_snap_get_count(s, PATH_MAX - 1, 1), runs;
    uint64_t next = 0, at = 0;

    tn_snap_get_bytes(s, parent, len);
    parent[len] = 0;
    runs = tn_snap_get_count(s, UINT32_MAX, 16);
    if (s->err)
        return s->err;
    free(l->run);
    l->run = (struct tn_vm_run *)calloc(runs + 1u, sizeof(*l->run));
    if (!l->run)
        return TN_ESYS;
    l->runs = runs;
    for (uint32_t i = 0; i < runs; i++) {
        struct tn_vm_run *run = &l->run[i];

        run->first = tn_snap_get_u64(s);
        run->count = tn_snap_get_u64(s);
        run->at = at;
        if (run->first < next || run->count == 0 || run->first >= pages ||
            run->count > pages - run->first)
            return TN_ERANGE;
        next = run->first + run->count;
        at += run->count;
    }
    return tn_snap_section_done(s);
}

/* The memory file of a directory, as a layer. Returns 1 if there is a parent below it. */
static inline int tn_vm_read_layer_(struct tn_vm_image *image, struct tn_vm_layer *l,
                                    struct tn_vm_reading_ *in, char parent[PATH_MAX])
{
    static const uint8_t none[TN_SNAP_ID] = {0};
    uint64_t pages = in->snap.memory.len / TN_VM_IMAGE_PAGE, have = pages, size = 0;
    bool diff = memcmp(in->snap.memory.parent, none, sizeof(none)) != 0;
    struct tn_snap_section s;
    int fd = tn_vm_openat_(in->dir, "memory", &size), r;

    if (fd < 0)
        return tn_vm_fault_(image, "memory", 0, fd);
    r = tn_vm_layer_init_(l, tn_vm_golden_init_(fd), 1);
    if (r < 0)
        return r;
    l->run[0].count = pages;
    if (tn_snap_find(&in->snap, TN_VM_SEC_DIFF, 0, &s) != diff)
        return tn_vm_fault_(image, "state", 0, TN_EFORMAT);
    if (diff) {
        r = tn_vm_read_diff_(l, &s, pages, parent);
        if (r < 0)
            return tn_vm_fault_(image, "state", (uint64_t)(s.bytes - in->bytes), r);
        have = l->runs ? l->run[l->runs - 1].at + l->run[l->runs - 1].count : 0;
    }
    if (size != have * TN_VM_IMAGE_PAGE)
        return tn_vm_fault_(image, "memory",
                            size < have * TN_VM_IMAGE_PAGE ? size : have * TN_VM_IMAGE_PAGE,
                            size < have * TN_VM_IMAGE_PAGE ? TN_ETRUNC : TN_EFORMAT);
    return diff;
}

/* The chain of memory files below the first, whose state file is in *in; that one is kept. */
static inline int tn_vm_read_layers_(struct tn_vm_image *image, struct tn_vm_reading_ *in,
                                     const struct tn_vm_image_cfg *cfg)
{
    char *path = (char *)malloc(PATH_MAX);
    struct tn_vm_reading_ below = *in;
    uint8_t parent[TN_SNAP_ID];
    int r = path ? 1 : TN_ESYS;

    for (uint32_t depth = 0; r > 0; depth++) {
        image->fault.depth = depth;
        if (depth == TN_VM_IMAGE_LAYERS) {
            r = tn_vm_fault_(image, "state", 0, TN_ERANGE);
            break;
        }
        if (depth > 0) {
            r = tn_vm_read_state_(image, &below, depth == 1 && cfg->parent ? cfg->parent : path,
                                  cfg->key);
            if (r >= 0 && (memcmp(below.snap.id, parent, sizeof(parent)) != 0 ||
                           below.snap.memory.len != in->snap.memory.len))
                r = tn_vm_fault_(image, "state", 0, TN_EPROTO);
        }
        if (r >= 0) {
            r = tn_vm_read_layer_(image, &image->layer[depth], &below, path);
            image->layers = depth + 1;
            memcpy(parent, below.snap.memory.parent, sizeof(parent));
        }
        if (depth > 0)
            tn_vm_read_close_(&below);
    }
    free(path);
    if (r >= 0)
        image->fault.depth = 0;
    for (uint32_t i = 0; r >= 0 && i < image->layers / 2; i++) { /* the lowest comes first */
        struct tn_vm_layer swap = image->layer[i];

        image->layer[i] = image->layer[image->layers - 1 - i];
        image->layer[image->layers - 1 - i] = swap;
    }
    return r;
}

static inline int tn_vm_read_overlays_(struct tn_vm_image *image, const struct tn_vm_reading_ *in)
{
    for (uint32_t i = 0; i < image->state.disks; i++) {
        uint8_t want[TN_SHA256_LEN], found[TN_SHA256_LEN];
        struct tn_snap_section s;
        uint64_t size, have = 0;
        char name[32];
        int r;

        if (tn_snap_find(&in->snap, TN_VM_SEC_OVERLAY, i, &s) !=
            image->state.disk[i].record.overlaid)
            return tn_vm_fault_(image, "state", 0, TN_EFORMAT);
        if (!image->state.disk[i].record.overlaid)
            continue;
        size = tn_snap_get_u64(&s);
        tn_snap_get_bytes(&s, want, sizeof(want));
        r = tn_snap_section_done(&s);
        if (r < 0)
            return tn_vm_fault_(image, "state", (uint64_t)(s.bytes - in->bytes), r);
        tn_vm_overlay_name_(name, i);
        r = image->overlay[i] = tn_vm_openat_(in->dir, name, &have);
        if (r >= 0 && have != size)
            r = have < size ? TN_ETRUNC : TN_EFORMAT;
        if (r >= 0)
            r = tn_vm_sparse_digest_(image->overlay[i], size, found);
        if (r >= 0 && !tn_sha256_equal(want, found))
            r = TN_EPROTO;
        if (r < 0)
            return tn_vm_fault_(image, "disk", i, r);
    }
    return TN_OK;
}

/* All that one directory says; the memory's bytes are not looked at. */
static inline int tn_vm_read_all_(struct tn_vm_image *image, struct tn_vm_reading_ *in,
                                  const struct tn_kvm *kvm, const struct tn_vm_image_cfg *cfg)
{
    uint64_t chunks;
    uint8_t *digests;
    int r = tn_vm_read_state_(image, in, cfg->dir, cfg->key);

    if (r < 0)
        return r;
    r = tn_vm_state_parse(&image->state, &in->snap);
    if (r >= 0 && image->state.machine.memory != in->snap.memory.len)
        r = TN_EFORMAT;
    if (r < 0)
        return tn_vm_fault_(image, "state", 0, r);
    if (kvm)
        r = tn_vm_arch_state_host(&image->state.arch, kvm);
    if (kvm && r >= 0)
        r = tn_vm_arch_state_check(&image->state.arch, &image->fault.lack);
    if (r >= 0)
        r = tn_vm_read_layers_(image, in, cfg);
    if (r >= 0)
        r = tn_vm_read_overlays_(image, in);
    if (r < 0)
        return r;
    image->memory = in->snap.memory;
    image->memory.digests = NULL;
    memcpy(image->id, in->snap.id, sizeof(image->id));
    chunks = tn_snap_chunks(&image->memory);
    image->dir = realpath(cfg->dir, NULL);
    if (!image->dir)
        return TN_ESYS;
    digests = (uint8_t *)malloc(chunks * TN_SHA256_LEN);
    if (!digests)
        return TN_ESYS;
    memcpy(digests, in->snap.memory.digests, chunks * TN_SHA256_LEN);
    image->memory.digests = digests;
    return TN_OK;
}

TN_API int tn_vm_image_open(struct tn_vm_image *image, const struct tn_kvm *kvm,
                            const struct tn_vm_image_cfg *cfg)
{
    struct tn_vm_reading_ in;
    struct tn_vm_chunks_ c;
    int r;

    tn_vm_image_void_(image);
    in.dir = -1;
    in.bytes = NULL;
    r = cfg->dir ? tn_vm_read_all_(image, &in, kvm, cfg) : TN_EINVAL;
    tn_vm_read_close_(&in);
    if (r >= 0 && !cfg->lazy) {
        memset(&c, 0, sizeof(c));
        c.len = image->memory.len;
        c.fn = tn_vm_chunks_check_;
        c.image = image;
        r = tn_vm_chunks_run_(&c);
        if (r < 0)
            (void)tn_vm_fault_(image, "memory", c.bad, r);
    }
    if (r < 0)
        tn_vm_image_close(image);
    return r;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VM_IMAGE_H */
