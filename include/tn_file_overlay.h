/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_file_overlay - a copy-on-write disk of two files: a base that is only read, and an overlay.
 *
 * WHAT
 *   Opens both files, makes the overlay if that is wished, validates it, keeps its bitmap in
 *   anonymous memory (no file is mapped: one that is cut off gives errors, never SIGBUS), and joins
 *   tn_overlay with two tn_files.
 *
 * USAGE
 *   struct tn_file_overlay_cfg cfg = {{"base.raw", -1, true, false, false, false, 0},
 *                                     {"vm1.overlay", -1, false, false, false, false, 0},
 *                                     true,
 *                                     NULL};
 *   static struct tn_file_overlay o;
 *
 *   if (tn_file_overlay_init(&o, &cfg) < 0)
 *       return 1;
 *   o.overlay.disk.ops->drain(o.overlay.disk.ctx);
 *   if (tn_file_overlay_close(&o) < 0)
 *       return 2;
 *
 * COMPOSITION
 *   o.overlay.disk is what tn_virtio_blk asks. Watch tn_file_fd(&o.base) and tn_file_fd(&o.over)
 *   for EPOLLIN, and call tn_file_overlay_complete when one is readable; without io_uring there is
 *   no fd and nothing to call. Any number of overlays may share a base.
 *
 * GUEST TRUST
 *   The overlay file may be hostile, see tn_overlay; it names no other file. The base is opened for
 *   reading only: nothing writes to it.
 *
 * MEMORY
 *   The caller owns the struct (about 25 KiB) and keeps it where it is from init to close. It maps
 *   a byte for 2 KiB of disk, of which only what is used becomes memory.
 *
 * THREADS
 *   One call at a time on one struct.
 *
 * CONFIG
 *   cfg.base and cfg.overlay are as tn_file's, with base.read_only understood. cfg.create: an
 *   overlay file that is missing (mode 0600, never through a symbolic link), or empty, is made.
 *   cfg.base_id: TN_OVERLAY_ID bytes that tell this base from others, kept in a new overlay and
 *   compared with an old one's; NULL: zeroes, and not compared.
 *
 * LIMITS
 *   Direct access works where the file takes blocks of 512 bytes. A base that changes while it has
 *   overlays changes under them; its lock keeps tenon itself from that, and nobody else.
 */
#ifndef TN_FILE_OVERLAY_H
#define TN_FILE_OVERLAY_H

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

#include "tn_disk.h"
#include "tn_file.h"
#include "tn_overlay.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

struct tn_file_overlay_cfg {
    struct tn_file_cfg base;    /* read_only is understood */
    struct tn_file_cfg overlay; /* read_only: a disk that is only read */
    bool create;                /* an overlay that is missing or empty is made */
    const uint8_t *base_id;     /* TN_OVERLAY_ID bytes, or NULL: not known */
};

/* Use overlay.disk, and the fds of base and over; the rest is the functions'. */
struct tn_file_overlay {
    struct tn_file base;
    struct tn_file over;
    struct tn_overlay overlay;
    uint8_t *memory; /* the bitmap and its work memory; NULL: closed */
    uint64_t memory_len;
};

/*
 * Opens, or makes, the overlay of a base. Returns 0, and else
 * - what tn_file_init of the base or the overlay returns: TN_EEXIST for one that is locked,
 *   TN_ERANGE for an odd length, TN_ESYS and the others;
 * - what tn_overlay_parse returns: TN_EFORMAT, TN_EUNSUP, TN_ETRUNC, TN_ERANGE, TN_EOVERLAP;
 * - TN_ENOFIT: the base is not as large as when the overlay was made;
 * - TN_EMACHINE: the overlay is of another base, by base_id;
 * - TN_EINVAL: direct access wants blocks of more than 512 bytes.
 * After an error *o is closed, the base was not touched, a new overlay file is gone again, and fds
 * of cfg are the caller's.
 */
TN_API int tn_file_overlay_init(struct tn_file_overlay *o, const struct tn_file_overlay_cfg *cfg);

/*
 * Takes what the kernel has finished of both files. Any time.
 */
TN_API void tn_file_overlay_complete(struct tn_file_overlay *o);

/*
 * Waits for what is under way, makes all that was written durable, and closes. Returns 0, also on
 * a closed one; TN_ESYS, TN_ENOSPC: not all is durable (it is closed all the same).
 */
TN_API int tn_file_overlay_close(struct tn_file_overlay *o);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* All len bytes at offset, or TN_ETRUNC. */
static inline int tn_file_overlay_read_(const struct tn_file *f, uint8_t *bytes, uint64_t len,
                                        uint64_t offset)
{
    struct tn_iov iov = {bytes, (size_t)len};
    struct tn_disk_req req;

    __builtin_memset(&req, 0, sizeof(req));
    req.op = TN_DISK_READ;
    req.offset = offset;
    req.len = len;
    req.iov = &iov;
    req.iovs = 1;
    return tn_file_plain_(f, &req, 0);
}

/* Reads the bitmap where the file has any bytes of it; the rest is holes, and 0. */
static inline int tn_file_overlay_bitmap_(const struct tn_file *f,
                                          const struct tn_overlay_layout *layout, uint8_t *bitmap)
{
    uint64_t at = layout->bitmap_offset, end = at + layout->bitmap_len, to;
    off_t seek;
    int result = 0;

    while (result == 0 && at < end) {
        seek = lseek(f->fd, (off_t)at, SEEK_DATA);
        if (seek < 0 && errno == ENXIO)
            return 0; /* no data up to the file's end */
        if (seek > (off_t)at)
            at = (uint64_t)seek - (uint64_t)seek % TN_OVERLAY_PAGE;
        if (at >= end)
            return 0;
        seek = lseek(f->fd, (off_t)at, SEEK_HOLE);
        to = seek > (off_t)at
                 ? ((uint64_t)seek + TN_OVERLAY_PAGE - 1) / TN_OVERLAY_PAGE * TN_OVERLAY_PAGE
                 : at + TN_OVERLAY_PAGE;
        if (to > end)
            to = end;
        result = tn_file_overlay_read_(f, bitmap + (at - layout->bitmap_offset), to - at, at);
        at = to;
    }
    return result;
}

/* Makes an empty file the overlay of a base of size bytes. */
static inline int tn_file_overlay_make_(int fd, uint64_t size, const uint8_t *base_id)
{
    struct tn_overlay_layout layout;
    uint8_t *page = tn_file_map_(-1, TN_OVERLAY_HEADER, 0); /* aligned, for O_DIRECT */
    struct iovec iov = {page, TN_OVERLAY_HEADER};
    int result, saved;

    if (!page)
        return TN_ESYS;
    result = tn_overlay_build(&layout, size, base_id, page, TN_OVERLAY_HEADER);
    /* The header comes last: a file without it is no overlay. */
    if (result == 0 && ftruncate(fd, (off_t)layout.file_len) < 0)
        result = TN_ESYS;
    if (result == 0 && TN_FILE_PWRITEV(fd, &iov, 1, 0) != (ssize_t)TN_OVERLAY_HEADER)
        result = errno == ENOSPC ? TN_ENOSPC : TN_ESYS;
    if (result == 0 && fsync(fd) < 0)
        result = TN_ESYS;
    saved = errno;
    if (result < 0 && ftruncate(fd, 0) < 0) /* empty again, so that it can be made later */
        saved = errno;
    munmap(page, TN_OVERLAY_HEADER);
    errno = saved;
    return result;
}

/* Opens the overlay file, and makes it if need be; *made gets whether its name is new. */
static inline int tn_file_overlay_open_(struct tn_file_overlay *o,
                                        const struct tn_file_overlay_cfg *cfg, bool *made)
{
    struct tn_file_cfg file = cfg->overlay;
    struct stat stat;
    bool locked = false, mine = false;
    int result = 0, saved;

    if (file.path) {
        file.fd = tn_file_open_(&file, 0);
        if (file.fd < 0 && errno == ENOENT && cfg->create && !file.read_only) {
            file.fd = tn_file_open_(&file, O_CREAT | O_EXCL | O_NOFOLLOW);
            *made = file.fd >= 0;
        }
        if (file.fd < 0)
            return file.direct && errno == EINVAL ? TN_ENODEV : TN_ESYS;
        file.path = NULL;
    }
    if (fstat(file.fd, &stat) < 0)
        result = TN_ESYS;
    else if (S_ISREG(stat.st_mode) && stat.st_size == 0 && cfg->create && !file.read_only) {
        if (!file.no_lock)
            result = tn_file_lock_(file.fd, F_WRLCK);
        locked = !file.no_lock && result == 0;
        /* Who had the lock until now may have made it, or removed it. */
        if (result == 0 && fstat(file.fd, &stat) < 0)
            result = TN_ESYS;
        if (result == 0 && cfg->overlay.path && stat.st_nlink == 0)
            result = TN_EEXIST;
        if (result == 0 && (fcntl(file.fd, F_GETFL) & O_APPEND))
            result = TN_EINVAL;
        mine = result == 0 && stat.st_size == 0;
        if (mine)
            result = tn_file_overlay_make_(file.fd, o->base.disk.size, cfg->base_id);
    }
    *made = *made && mine; /* its name is ours to remove only under the lock */
    if (result == 0)
        result = tn_file_init(&o->over, &file);
    saved = errno;
    if (result < 0 && *made)
        unlink(cfg->overlay.path);
    if (result < 0 && cfg->overlay.path)
        close(file.fd);
    else if (result < 0 && locked)
        tn_file_lock_(file.fd, F_UNLCK);
    errno = saved;
    return result;
}

/* Reads and checks the header, and starts the disk. */
static inline int tn_file_overlay_begin_(struct tn_file_overlay *o,
                                         const struct tn_file_overlay_cfg *cfg)
{
    struct tn_overlay_layout layout;
    uint8_t *page;
    int result;

    if (o->over.disk.block_size != TN_DISK_SECTOR || o->base.disk.block_size != TN_DISK_SECTOR)
        return TN_EINVAL;
    if (o->over.disk.size < TN_OVERLAY_HEADER)
        return TN_ETRUNC;
    page = tn_file_map_(-1, TN_OVERLAY_HEADER, 0);
    if (!page)
        return TN_ESYS;
    result = tn_file_overlay_read_(&o->over, page, TN_OVERLAY_HEADER, 0);
    if (result == 0)
        result = tn_overlay_parse(&layout, page, TN_OVERLAY_HEADER, o->over.disk.size);
    munmap(page, TN_OVERLAY_HEADER);
    if (result < 0)
        return result;
    if (layout.size != o->base.disk.size)
        return TN_ENOFIT;
    if (cfg->base_id && __builtin_memcmp(cfg->base_id, layout.base_id, TN_OVERLAY_ID) != 0)
        return TN_EMACHINE;
    o->memory_len = layout.bitmap_len + tn_overlay_work(&layout);
    if (o->memory_len > SIZE_MAX / 2) { /* addresses of 32 bits: mmap would take what is left */
        errno = ENOMEM;
        return TN_ESYS;
    }
    o->memory = (uint8_t *)mmap(NULL, (size_t)o->memory_len, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (o->memory == (uint8_t *)MAP_FAILED) {
        o->memory = NULL;
        return TN_ESYS;
    }
    result = tn_file_overlay_bitmap_(&o->over, &layout, o->memory);
    /* What an earlier run left in the host's cache becomes durable before it is relied on. */
    if (result == 0 && !o->over.disk.read_only)
        result = tn_file_flush_(&o->over);
    if (result < 0)
        return result;
    return tn_overlay_init(&o->overlay, &layout, &o->base.disk, &o->over.disk, o->memory,
                           o->memory + layout.bitmap_len);
}

TN_API int tn_file_overlay_init(struct tn_file_overlay *o, const struct tn_file_overlay_cfg *cfg)
{
    struct tn_file_cfg base = cfg->base;
    bool made = false;
    int result, saved;

    o->memory = NULL;
    o->over.fd = -1;
    o->over.ring = -1;
    base.read_only = true;
    result = tn_file_init(&o->base, &base);
    if (result < 0)
        return result;
    result = tn_file_overlay_open_(o, cfg, &made);
    if (result == 0) {
        result = tn_file_overlay_begin_(o, cfg);
        if (result == 0)
            return 0;
        saved = errno;
        if (made)
            unlink(cfg->overlay.path);
        errno = saved;
    }
    saved = errno;
    if (o->memory)
        munmap(o->memory, (size_t)o->memory_len);
    o->memory = NULL;
    if (!cfg->overlay.path)
        o->over.keep = true;
    if (!cfg->base.path)
        o->base.keep = true;
    tn_file_close(&o->over);
    tn_file_close(&o->base);
    errno = saved;
    return result;
}

TN_API void tn_file_overlay_complete(struct tn_file_overlay *o)
{
    tn_file_complete(&o->base);
    tn_file_complete(&o->over);
}

static inline void tn_file_overlay_done_(struct tn_disk_req *req, int result)
{
    *(int *)req->ctx = result;
}

TN_API int tn_file_overlay_close(struct tn_file_overlay *o)
{
    struct tn_disk_req req;
    int result = 0, saved;

    if (!o->memory)
        return 0;
    tn_overlay_drain_(&o->overlay);
    __builtin_memset(&req, 0, sizeof(req));
    req.op = TN_DISK_FLUSH;
    req.done = tn_file_overlay_done_;
    req.ctx = &result;
    if (!o->overlay.disk.read_only) {
        tn_overlay_submit_(&o->overlay, &req);
        tn_overlay_drain_(&o->overlay);
    }
    saved = errno;
    munmap(o->memory, (size_t)o->memory_len);
    o->memory = NULL;
    tn_file_close(&o->over);
    tn_file_close(&o->base);
    errno = saved;
    return result;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_FILE_OVERLAY_H */
