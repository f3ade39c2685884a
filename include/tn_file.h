/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_file - a disk over a raw file or a block device, by io_uring or without it.
 *
 * WHAT
 *   Byte n of the disk is byte n of the file: what the bytes are is never looked at, so no guest
 *   can make a file into another format, or name another file. Requests go to the kernel in
 *   batches; where io_uring is missing or forbidden, they are done at once by plain system calls.
 *
 * USAGE
 *   static void on_done(struct tn_disk_req *req, int result)
 *   {
 *       *(int *)req->ctx = result;
 *   }
 *   ---
 *   static uint8_t sector[512];
 *   struct tn_file_cfg cfg = {"disk.raw", -1, false, false, false, false, 0};
 *   struct tn_iov iov = {sector, sizeof(sector)};
 *   int result = 1;
 *   struct tn_disk_req req = {TN_DISK_READ, 0, 0, 512, &iov, 1, on_done, &result, NULL, {0, 0}};
 *   struct tn_file file;
 *
 *   if (tn_file_init(&file, &cfg) < 0)
 *       return 1;
 *   file.disk.ops->submit(file.disk.ctx, &req);
 *   file.disk.ops->kick(file.disk.ctx);
 *   file.disk.ops->drain(file.disk.ctx);
 *   tn_file_close(&file);
 *
 * COMPOSITION
 *   file.disk is what tn_virtio_blk or tn_overlay asks. Watch tn_file_fd for EPOLLIN, and call
 *   tn_file_complete when it is readable. done may submit and kick; it may not drain or close.
 *
 * GUEST TRUST
 *   Offsets, lengths and iovecs may be a guest's: each request is checked by tn_disk_check, and the
 *   bytes may change while they are moved. One that floods waits: at most cfg.depth requests are
 *   in the kernel, the others in a list that is made of them.
 *
 * MEMORY
 *   The caller owns struct tn_file and keeps it where it is from init to close. It maps the rings
 *   (about 10 KiB at the default depth), and 64 KiB for bounces with O_DIRECT.
 *
 * THREADS
 *   One call at a time on one struct. done is called inside submit, kick, drain, tn_file_complete.
 *
 * CONFIG
 *   cfg.direct: O_DIRECT. disk.block_size is then what the file wants, and a request whose iovecs
 *   are not aligned goes through a bounce buffer, synchronously; so does the rest of a short one.
 *   cfg.depth: requests in the kernel at once; 0: 64; at most 4096.
 *   Tests may define TN_FILE_PREADV, TN_FILE_PWRITEV, TN_FILE_FDATASYNC, TN_FILE_FALLOCATE,
 *   TN_FILE_IOCTL, TN_FILE_FSTAT, TN_FILE_SETUP, TN_FILE_ENTER (as the system calls) and
 *   TN_FILE_RESULT(req, res), the kernel's answer to a request, before the include.
 *   It wants _GNU_SOURCE, and defines it where it is the first header.
 *
 * SPEC
 *   Linux: io_uring_setup(2), io_uring_enter(2), fallocate(2), open(2) "O_DIRECT", fcntl(2) "Open
 *   file description locks".
 *
 * LIMITS
 *   Linux, 5.6 for io_uring. The file's size is the disk's, for good: a file that shrinks later
 *   makes reads fail. DISCARD and ZERO of a block device are synchronous. The lock is advisory, and
 *   two inits on one open file description do not exclude each other.
 */
#ifndef TN_FILE_H
#define TN_FILE_H

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

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_FILE_DEPTH     64u
#define TN_FILE_DEPTH_MAX 4096u

struct tn_file_cfg {
    const char *path; /* NULL: fd */
    int fd;           /* open for reading, and for writing unless read_only; ours after init */
    bool read_only;
    bool direct;    /* past the host's page cache; an fd has O_DIRECT already then */
    bool no_uring;  /* plain system calls, each done inside submit */
    bool no_lock;   /* for file systems without locks */
    uint32_t depth; /* requests in the kernel at once; 0: TN_FILE_DEPTH */
};

/* An open file. Use disk; the rest is the functions'. */
struct tn_file {
    struct tn_disk disk;
    int fd;                          /* -1: closed */
    int ring;                        /* the io_uring, or -1: none */
    bool block_dev;                  /* a block device, not a regular file */
    bool locked;                     /* by tn_file_init */
    bool keep;                       /* close leaves fd open */
    bool direct;                     /* the file has O_DIRECT */
    bool lost;                       /* a flush has failed, which the kernel says once */
    bool starting;                   /* inside tn_file_start_ */
    bool reaping;                    /* inside tn_file_reap_ */
    uint32_t align;                  /* of a buffer's address, with direct */
    uint32_t depth;                  /* most requests in the kernel */
    uint32_t inflight;               /* in the rings: queued ones, too */
    uint32_t queued;                 /* in the submission ring, not yet seen by the kernel */
    struct tn_disk_req *head, *tail; /* not begun */
    uint8_t *bounce;                 /* with direct */
    uint8_t *rings;                  /* the mapped rings */
    uint8_t *sqes;                   /* struct io_uring_sqe [] */
    size_t rings_len, sqes_len;      /* bytes mapped */
    uint32_t *sq_head, *sq_tail, *sq_array, *cq_head, *cq_tail;
    uint32_t sq_mask, cq_mask;
    uint8_t *cqes; /* struct io_uring_cqe [] */
};

/*
 * Opens a file as a disk and locks it: shared if read_only, else for itself alone. Fills in
 * f->disk: its size is the file's. Returns 0; TN_EINVAL: neither a regular file nor a block device,
 * a depth above the limit, an fd whose mode does not fit cfg; TN_ERANGE: the size is 0 or no
 * multiple of disk.block_size (512, or more with direct); TN_EEXIST: somebody else has locked it;
 * TN_ENODEV: the file cannot do O_DIRECT; TN_ESYS. After an error *f is closed and cfg->fd is still
 * the caller's.
 */
TN_API int tn_file_init(struct tn_file *f, const struct tn_file_cfg *cfg);

/*
 * The fd to watch for EPOLLIN; -1 when there is none, since every request is done inside submit.
 */
TN_API int tn_file_fd(const struct tn_file *f);

/*
 * Takes what the kernel has finished, calls done for it, and hands the kernel what waited. It may
 * be called at any time.
 */
TN_API void tn_file_complete(struct tn_file *f);

/*
 * Waits for the requests under way, as drain does, unlocks and closes. Nothing on a closed one.
 * Data that no FLUSH followed may be in the host's cache only. errno is kept.
 */
TN_API void tn_file_close(struct tn_file *f);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#ifdef __cplusplus
} /* the system's headers have their own */
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#if defined(__GLIBC__) && !defined(__USE_GNU)
#error "tn_file.h: compile with -D_GNU_SOURCE, or include it before the system's headers"
#endif
#if defined(__GLIBC__) && __SIZEOF_LONG__ < 8 && !defined(__USE_FILE_OFFSET64)
#error "tn_file.h: compile with -D_FILE_OFFSET_BITS=64: offsets in files have 64 bits"
#endif
#ifdef __cplusplus
extern "C" {
#endif

#ifndef TN_FILE_PREADV
#define TN_FILE_PREADV preadv
#endif
#ifndef TN_FILE_PWRITEV
#define TN_FILE_PWRITEV pwritev
#endif
#ifndef TN_FILE_FDATASYNC
#define TN_FILE_FDATASYNC fdatasync
#endif
#ifndef TN_FILE_FALLOCATE
#define TN_FILE_FALLOCATE fallocate
#endif
#ifndef TN_FILE_IOCTL
#define TN_FILE_IOCTL ioctl
#endif
#ifndef TN_FILE_FSTAT
#define TN_FILE_FSTAT fstat
#endif
#ifndef TN_FILE_SETUP
#define TN_FILE_SETUP(entries, params) (int)syscall(SYS_io_uring_setup, entries, params)
#endif
#ifndef TN_FILE_ENTER
#define TN_FILE_ENTER(fd, submit, wait, flags) \
    (int)syscall(SYS_io_uring_enter, fd, submit, wait, flags, NULL, 0)
#endif
#ifndef TN_FILE_RESULT
#define TN_FILE_RESULT(req, res) (res)
#endif

#define TN_FILE_WINDOW_   64u            /* iovecs of one plain system call */
#define TN_FILE_IOV_MAX_  1024u          /* of one that the ring takes: the kernel's limit */
#define TN_FILE_BYTES_    0x7ffff000u    /* of one transfer, likewise */
#define TN_FILE_BOUNCE_   65536u         /* bytes */
#define TN_FILE_CHUNK_    (256ull << 20) /* of a block device's DISCARD or ZERO, bytes */
#define TN_FILE_TRIES_    100u           /* after EAGAIN, a millisecond apart */
#define TN_FILE_DIOALIGN_ 0x00002000u    /* STATX_DIOALIGN, Linux 6.1 */
#define TN_FILE_DIO_MEM_  0x98u          /* stx_dio_mem_align in struct statx */
#define TN_FILE_DIO_OFF_  0x9cu          /* stx_dio_offset_align */

/* What an error of the kernel's means to the asker. */
static inline int tn_file_error_(int error)
{
    errno = error;
    return error == ENOSPC || error == EDQUOT ? TN_ENOSPC : TN_ESYS;
}

/* One plain transfer of at most all of iov: bytes, > 0; or an error with errno set. */
static inline ssize_t tn_file_once_(const struct tn_file *f, uint32_t op, const struct tn_iov *iov,
                                    uint32_t iovs, uint64_t offset)
{
    const struct iovec *v = (const struct iovec *)(const void *)iov;
    uint32_t tries = 0;
    ssize_t n;

    for (;;) {
        n = op == TN_DISK_READ ? TN_FILE_PREADV(f->fd, v, (int)iovs, (off_t)offset)
                               : TN_FILE_PWRITEV(f->fd, v, (int)iovs, (off_t)offset);
        if (n > 0)
            return n;
        if (n == 0) {
            errno = EIO; /* the file ends inside the disk: it was cut off */
            return -1;
        }
        if (errno == EAGAIN && tries++ < TN_FILE_TRIES_)
            poll(NULL, 0, 1);
        else if (errno != EINTR)
            return -1;
    }
}

/* Moves the bytes of a READ or WRITE from byte at on. */
static inline int tn_file_move_(const struct tn_file *f, const struct tn_disk_req *req, uint64_t at)
{
    struct tn_iov window[TN_FILE_WINDOW_];
    struct tn_disk_pos pos = {0, 0};
    uint64_t got;
    uint32_t n;
    ssize_t moved;

    tn_disk_skip(req->iov, req->iovs, &pos, at);
    while (at < req->len) {
        struct tn_disk_pos from = pos;

        n = tn_disk_slice(req->iov, req->iovs, &pos,
                          req->len - at < TN_FILE_BYTES_ ? req->len - at : TN_FILE_BYTES_, window,
                          TN_FILE_WINDOW_, &got);
        if (n == 0)
            return tn_file_error_(EINVAL); /* the iovecs are shorter than len says */
        moved = tn_file_once_(f, req->op, window, n, req->offset + at);
        if (moved < 0)
            return tn_file_error_(errno);
        if ((uint64_t)moved < got) {
            pos = from;
            tn_disk_skip(req->iov, req->iovs, &pos, (uint64_t)moved);
        }
        at += (uint64_t)moved;
    }
    return 0;
}

/* The same through the bounce buffer, in whole blocks; at is rounded down to one. */
static inline int tn_file_bounce_(const struct tn_file *f, const struct tn_disk_req *req,
                                  uint64_t at)
{
    struct tn_disk_pos pos = {0, 0};
    struct tn_iov piece;
    uint64_t part, done;
    ssize_t moved;

    at -= at % f->disk.block_size;
    tn_disk_skip(req->iov, req->iovs, &pos, at);
    for (; at < req->len; at += part) {
        part = req->len - at < TN_FILE_BOUNCE_ ? req->len - at : TN_FILE_BOUNCE_;
        if (req->op == TN_DISK_WRITE &&
            tn_disk_copy(req->op, req->iov, req->iovs, &pos, f->bounce, (size_t)part) < part)
            return tn_file_error_(EINVAL);
        for (done = 0; done < part; done += (uint64_t)moved) {
            piece.base = f->bounce + done;
            piece.len = (size_t)(part - done);
            moved = tn_file_once_(f, req->op, &piece, 1, req->offset + at + done);
            if (moved < 0)
                return tn_file_error_(errno);
            moved -= moved % (ssize_t)f->disk.block_size;
            if (moved == 0)
                return tn_file_error_(EIO);
        }
        if (req->op == TN_DISK_READ &&
            tn_disk_copy(req->op, req->iov, req->iovs, &pos, f->bounce, (size_t)part) < part)
            return tn_file_error_(EINVAL);
    }
    return 0;
}

/* Writes zeroes over [offset, offset + len). */
static inline int tn_file_zeroes_(const struct tn_file *f, uint64_t offset, uint64_t len)
{
    static const uint8_t zeroes[4096] __attribute__((aligned(4096))) = {0};
    struct tn_iov iov[16];
    ssize_t moved;
    uint32_t n;

    while (len > 0) {
        for (n = 0; n < 16 && n * sizeof(zeroes) < len; n++) {
            iov[n].base = (uint8_t *)(uintptr_t)zeroes; /* only read */
            iov[n].len = len - n * sizeof(zeroes) < sizeof(zeroes)
                             ? (size_t)(len - n * sizeof(zeroes))
                             : sizeof(zeroes);
        }
        moved = tn_file_once_(f, TN_DISK_WRITE, iov, n, offset);
        if (moved < 0)
            return tn_file_error_(errno);
        if (f->direct) {
            moved -= moved % (ssize_t)f->disk.block_size;
            if (moved == 0)
                return tn_file_error_(EIO);
        }
        offset += (uint64_t)moved;
        len -= (uint64_t)moved;
    }
    return 0;
}

static inline int tn_file_allocate_(const struct tn_file *f, int mode, uint64_t offset,
                                    uint64_t len)
{
    int got;

    do
        got = TN_FILE_FALLOCATE(f->fd, mode, (off_t)offset, (off_t)len);
    while (got < 0 && errno == EINTR);
    return got;
}

/* BLKDISCARD or BLKZEROOUT, in parts, since neither can be interrupted. */
static inline int tn_file_device_(const struct tn_file *f, unsigned long what, uint64_t offset,
                                  uint64_t len)
{
    uint64_t range[2];
    int got = 0;

    for (; len > 0 && got == 0; offset += range[1], len -= range[1]) {
        range[0] = offset;
        range[1] = len < TN_FILE_CHUNK_ ? len : TN_FILE_CHUNK_;
        do
            got = TN_FILE_IOCTL(f->fd, what, range);
        while (got < 0 && errno == EINTR);
    }
    return got;
}

static inline bool tn_file_unsupported_(int error)
{
    return error == EOPNOTSUPP || error == ENOSYS || error == ENOTTY;
}

#define TN_FILE_PUNCH_ (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

/* fallocate's mode for a DISCARD or a ZERO. */
static inline int tn_file_mode_(const struct tn_disk_req *req)
{
    return req->op == TN_DISK_DISCARD || (req->flags & TN_DISK_F_UNMAP)
               ? TN_FILE_PUNCH_
               : FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
}

/* DISCARD and ZERO. */
static inline int tn_file_clear_(const struct tn_file *f, const struct tn_disk_req *req)
{
    int got;

    if (f->block_dev)
        got = tn_file_device_(f, req->op == TN_DISK_DISCARD ? BLKDISCARD : BLKZEROOUT, req->offset,
                              req->len);
    else
        got = tn_file_allocate_(f, tn_file_mode_(req), req->offset, req->len);
    if (got == 0)
        return 0;
    /* Part of a logical block: nothing to give back, but something to write. */
    if (f->block_dev && errno == EINVAL)
        return req->op == TN_DISK_ZERO ? tn_file_zeroes_(f, req->offset, req->len) : 0;
    if (!tn_file_unsupported_(errno))
        return tn_file_error_(errno);
    return req->op == TN_DISK_ZERO ? tn_file_zeroes_(f, req->offset, req->len) : TN_EUNSUP;
}

static inline int tn_file_flush_(const struct tn_file *f)
{
    int got;

    do
        got = TN_FILE_FDATASYNC(f->fd);
    while (got < 0 && errno == EINTR);
    return got < 0 ? tn_file_error_(errno) : 0;
}

/* Whether the kernel takes the request's iovecs as they are; only O_DIRECT is particular. */
static inline bool tn_file_aligned_(const struct tn_file *f, const struct tn_disk_req *req)
{
    for (uint32_t i = 0; f->direct && i < req->iovs; i++) {
        if ((uintptr_t)req->iov[i].base % f->align || req->iov[i].len % f->disk.block_size)
            return false;
    }
    return true;
}

/* Does a request, or of a READ or WRITE what follows byte at, by plain system calls. */
static inline int tn_file_plain_(const struct tn_file *f, const struct tn_disk_req *req,
                                 uint64_t at)
{
    int result;

    switch (req->op) {
    case TN_DISK_READ:
    case TN_DISK_WRITE:
        if (f->direct && (at > 0 || !tn_file_aligned_(f, req)))
            result = tn_file_bounce_(f, req, at);
        else
            result = tn_file_move_(f, req, at);
        break;
    case TN_DISK_FLUSH:
        return f->disk.read_only ? 0 : tn_file_flush_(f);
    default:
        result = req->len > 0 ? tn_file_clear_(f, req) : 0;
        break;
    }
    if (result == 0 && req->op != TN_DISK_READ && (req->flags & TN_DISK_F_FUA))
        result = tn_file_flush_(f);
    return result;
}

/* Whether a request is better done by plain system calls, or can't be done otherwise. */
static inline bool tn_file_is_plain_(const struct tn_file *f, const struct tn_disk_req *req)
{
    switch (req->op) {
    case TN_DISK_READ:
    case TN_DISK_WRITE:
        return f->ring < 0 || req->len == 0 || !tn_file_aligned_(f, req);
    case TN_DISK_FLUSH:
        return f->ring < 0 || f->disk.read_only;
    default:
        return f->ring < 0 || req->len == 0 || f->block_dev;
    }
}

/* Puts a request into the submission ring. There is room: it has depth slots or more. */
static inline void tn_file_queue_(struct tn_file *f, struct tn_disk_req *req)
{
    uint32_t tail = *f->sq_tail, i = tail & f->sq_mask; /* only this side writes the tail */
    struct io_uring_sqe *sqe = (struct io_uring_sqe *)(void *)f->sqes + i;
    bool one = req->iovs == 1 && req->iov[0].len <= TN_FILE_BYTES_;

    __builtin_memset(sqe, 0, sizeof(*sqe));
    sqe->fd = f->fd;
    sqe->user_data = (uintptr_t)req;
    if (req->op == TN_DISK_FLUSH || req->scratch[0] == 1) {
        sqe->opcode = IORING_OP_FSYNC;
        sqe->fsync_flags = IORING_FSYNC_DATASYNC;
    } else if (req->op == TN_DISK_READ || req->op == TN_DISK_WRITE) {
        if (req->op == TN_DISK_READ)
            sqe->opcode = one ? IORING_OP_READ : IORING_OP_READV;
        else
            sqe->opcode = one ? IORING_OP_WRITE : IORING_OP_WRITEV;
        sqe->off = req->offset;
        sqe->addr = one ? (uintptr_t)req->iov[0].base : (uintptr_t)req->iov;
        sqe->len = one                            ? (uint32_t)req->iov[0].len
                   : req->iovs < TN_FILE_IOV_MAX_ ? req->iovs
                                                  : TN_FILE_IOV_MAX_;
        if (req->op == TN_DISK_WRITE && (req->flags & TN_DISK_F_FUA))
            sqe->rw_flags = RWF_DSYNC;
    } else {
        sqe->opcode = IORING_OP_FALLOCATE;
        sqe->off = req->offset;
        sqe->addr = req->len;
        sqe->len = (uint32_t)tn_file_mode_(req);
    }
    f->sq_array[i] = i;
    __atomic_store_n(f->sq_tail, tail + 1, __ATOMIC_RELEASE);
    f->queued++;
    f->inflight++;
}

/* After a flush that failed, pages may be clean that are not in the file: no later one succeeds. */
static inline void tn_file_tell_(struct tn_file *f, struct tn_disk_req *req, int result)
{
    bool flush = req->op == TN_DISK_FLUSH,
         durable = flush || (req->op != TN_DISK_READ && (req->flags & TN_DISK_F_FUA));

    if (durable && (result == TN_ESYS || (flush && result == TN_ENOSPC)))
        f->lost = true;
    req->done(req, durable && result == 0 && f->lost ? TN_ESYS : result);
}

/* Begins what waits, as far as there is room. */
static inline void tn_file_start_(struct tn_file *f)
{
    struct tn_disk_req *req;
    int result;

    if (f->starting)
        return; /* called from done: the loop below goes on */
    f->starting = true;
    while (f->head && f->inflight < f->depth) {
        req = f->head;
        f->head = req->next;
        req->next = NULL;
        result = tn_disk_check(&f->disk, req);
        if (result == 0 && req->scratch[1] == 0 && !tn_file_is_plain_(f, req)) {
            tn_file_queue_(f, req);
            continue;
        }
        if (result == 0)
            result = tn_file_plain_(f, req, 0);
        tn_file_tell_(f, req, result);
    }
    f->starting = false;
}

/* The kernel has answered a request: finishes what it left over, and calls done. */
static inline void tn_file_answer_(struct tn_file *f, struct tn_disk_req *req, int answer)
{
    bool moves = req->op == TN_DISK_READ || req->op == TN_DISK_WRITE;
    int res = TN_FILE_RESULT(req, answer), result = 0;

    if (res == -EAGAIN || res == -EINTR || res == -ECANCELED || res == -EFAULT || res == -EINVAL ||
        res == -EOPNOTSUPP) {
        /* Not now, not by the ring, or the thread that submitted it has ended. */
        result = tn_file_plain_(f, req, 0);
    } else if (res < 0) {
        result = tn_file_error_(-res);
    } else if (moves && (uint32_t)res < req->len) {
        result = tn_file_plain_(f, req, (uint32_t)res);
    } else if (!moves && req->op != TN_DISK_FLUSH && (req->flags & TN_DISK_F_FUA) &&
               req->scratch[0] == 0) {
        req->scratch[0] = 1;
        tn_file_queue_(f, req);
        return;
    }
    tn_file_tell_(f, req, result);
}

/* Takes the answers that are there now, and begins what waited for room. */
static inline void tn_file_reap_(struct tn_file *f)
{
    const struct io_uring_cqe *cqe;
    struct tn_disk_req *req;
    uint32_t head, tail;
    int res;

    if (f->reaping)
        return;
    f->reaping = true;
    tail = __atomic_load_n(f->cq_tail, __ATOMIC_ACQUIRE);
    for (head = *f->cq_head; head != tail; head++) {
        cqe = (const struct io_uring_cqe *)(const void *)f->cqes + (head & f->cq_mask);
        req = (struct tn_disk_req *)(uintptr_t)cqe->user_data;
        res = cqe->res;
        __atomic_store_n(f->cq_head, head + 1, __ATOMIC_RELEASE);
        f->inflight--;
        tn_file_answer_(f, req, res);
    }
    f->reaping = false;
    tn_file_start_(f);
}

/* The kernel does not take what is queued: takes it back, to be done by plain system calls. */
static inline void tn_file_take_back_(struct tn_file *f)
{
    uint32_t head = __atomic_load_n(f->sq_head, __ATOMIC_ACQUIRE), tail = *f->sq_tail;
    struct tn_disk_req *req;

    for (; head != tail && f->queued > 0; tail--, f->queued--, f->inflight--) {
        const struct io_uring_sqe *sqe =
            (const struct io_uring_sqe *)(const void *)f->sqes + ((tail - 1) & f->sq_mask);

        req = (struct tn_disk_req *)(uintptr_t)sqe->user_data;
        req->scratch[1] = 1;
        req->next = f->head;
        if (!f->head)
            f->tail = req;
        f->head = req;
    }
    __atomic_store_n(f->sq_tail, tail, __ATOMIC_RELEASE);
    f->queued = 0;
    tn_file_start_(f);
}

/* Gives the kernel what is queued; wait: returns when there is an answer, too. */
static inline void tn_file_enter_(struct tn_file *f, bool wait)
{
    struct pollfd poll_fd = {f->ring, POLLIN, 0};
    int got;

    while (f->queued > 0 || wait) {
        got = TN_FILE_ENTER(f->ring, f->queued, wait ? 1 : 0, wait ? IORING_ENTER_GETEVENTS : 0);
        if (got >= 0) {
            f->queued -= (uint32_t)got < f->queued ? (uint32_t)got : f->queued;
            if (got == 0 && f->queued > 0)
                tn_file_take_back_(f);
            wait = false;
        } else if (errno == EINTR) {
            continue;
        } else if (f->queued > 0) {
            tn_file_take_back_(f);
            wait = wait && f->inflight > 0;
        } else {
            poll(&poll_fd, 1, 10); /* an answer comes without the call, too */
            wait = false;
        }
    }
}

static inline void tn_file_submit_(void *ctx, struct tn_disk_req *req)
{
    struct tn_file *f = (struct tn_file *)ctx;

    req->next = NULL;
    req->scratch[0] = 0; /* 1: the transfer is done, the flush that makes it durable is not */
    req->scratch[1] = 0; /* 1: not by the ring */
    if (f->head)
        f->tail->next = req;
    else
        f->head = req;
    f->tail = req;
    tn_file_start_(f);
}

static inline void tn_file_kick_(void *ctx)
{
    struct tn_file *f = (struct tn_file *)ctx;

    if (f->ring < 0 || f->queued == 0)
        return;
    tn_file_enter_(f, false);
    tn_file_reap_(f); /* what the page cache had is done already */
    tn_file_enter_(f, false);
}

static inline void tn_file_drain_(void *ctx)
{
    struct tn_file *f = (struct tn_file *)ctx;

    tn_file_start_(f);
    while (f->inflight > 0) {
        tn_file_enter_(f, true);
        tn_file_reap_(f);
    }
}

TN_API int tn_file_fd(const struct tn_file *f)
{
    return f->ring;
}

TN_API void tn_file_complete(struct tn_file *f)
{
    if (f->ring < 0)
        return;
    tn_file_reap_(f);
    tn_file_enter_(f, false);
}

/* Ends the ring, if there is one. */
static inline void tn_file_no_ring_(struct tn_file *f)
{
    int saved = errno;

    if (f->rings)
        munmap(f->rings, f->rings_len);
    if (f->sqes)
        munmap(f->sqes, f->sqes_len);
    if (f->ring >= 0)
        close(f->ring);
    f->rings = NULL;
    f->sqes = NULL;
    f->ring = -1;
    errno = saved;
}

static inline uint8_t *tn_file_map_(int fd, size_t len, off_t at)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
                   fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED | MAP_POPULATE, fd, at);

    return p == MAP_FAILED ? NULL : (uint8_t *)p;
}

/* Sets the ring up; whatever is missing, the file then goes without. */
static inline void tn_file_ring_(struct tn_file *f)
{
    struct io_uring_params p;
    size_t sq, cq;

    __builtin_memset(&p, 0, sizeof(p));
    f->ring = TN_FILE_SETUP(f->depth, &p);
    if (f->ring < 0)
        return;
    sq = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
    cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    f->rings_len = sq > cq ? sq : cq;
    f->sqes_len = p.sq_entries * sizeof(struct io_uring_sqe);
    if (!(p.features & IORING_FEAT_SINGLE_MMAP) || !(p.features & IORING_FEAT_SUBMIT_STABLE) ||
        p.sq_entries < f->depth || p.cq_entries < f->depth) {
        tn_file_no_ring_(f);
        return;
    }
    f->rings = tn_file_map_(f->ring, f->rings_len, IORING_OFF_SQ_RING);
    f->sqes = tn_file_map_(f->ring, f->sqes_len, IORING_OFF_SQES);
    if (!f->rings || !f->sqes) {
        tn_file_no_ring_(f);
        return;
    }
    f->sq_head = (uint32_t *)(void *)(f->rings + p.sq_off.head);
    f->sq_tail = (uint32_t *)(void *)(f->rings + p.sq_off.tail);
    f->sq_array = (uint32_t *)(void *)(f->rings + p.sq_off.array);
    f->sq_mask = *(uint32_t *)(void *)(f->rings + p.sq_off.ring_mask);
    f->cq_head = (uint32_t *)(void *)(f->rings + p.cq_off.head);
    f->cq_tail = (uint32_t *)(void *)(f->rings + p.cq_off.tail);
    f->cq_mask = *(uint32_t *)(void *)(f->rings + p.cq_off.ring_mask);
    f->cqes = f->rings + p.cq_off.cqes;
}

/* Locks the whole file until it is closed: F_RDLCK, F_WRLCK; or no longer: F_UNLCK. */
static inline int tn_file_lock_(int fd, int type)
{
    struct flock lock;

    __builtin_memset(&lock, 0, sizeof(lock));
    lock.l_type = (short)type;
    lock.l_whence = SEEK_SET;
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? TN_EEXIST : TN_ESYS;
}

/* A power of two from 512 to 4096 that is at least v; 4096 if there is none. */
static inline uint32_t tn_file_block_(uint64_t v)
{
    return v <= 512 ? 512 : v <= 1024 ? 1024 : v <= 2048 ? 2048 : 4096;
}

/* What O_DIRECT wants of this file. */
static inline int tn_file_direct_(struct tn_file *f, uint32_t sector)
{
    uint8_t stat[256] = {0};

    f->align = 4096;
    f->disk.block_size = f->block_dev ? tn_file_block_(sector) : 4096;
    if (syscall(SYS_statx, f->fd, "", AT_EMPTY_PATH, TN_FILE_DIOALIGN_, stat) == 0 &&
        (tn_get_(stat, 4) & TN_FILE_DIOALIGN_)) {
        f->align = (uint32_t)tn_get_(stat + TN_FILE_DIO_MEM_, 4);
        sector = (uint32_t)tn_get_(stat + TN_FILE_DIO_OFF_, 4);
        if (f->align == 0 || f->align > 4096 || sector == 0 || sector > 4096)
            return TN_ENODEV;
        f->disk.block_size = tn_file_block_(sector);
    }
    f->bounce = tn_file_map_(-1, TN_FILE_BOUNCE_, 0);
    return f->bounce ? 0 : TN_ESYS;
}

/* Looks at the open file, and fills in the disk. */
static inline int tn_file_look_(struct tn_file *f, const struct tn_file_cfg *cfg)
{
    struct stat stat;
    unsigned physical = 512;
    int flags = fcntl(f->fd, F_GETFL), sector = 512, result;
    uint64_t size;

    if (flags < 0 || TN_FILE_FSTAT(f->fd, &stat) < 0)
        return TN_ESYS;
    f->block_dev = S_ISBLK(stat.st_mode);
    f->direct = flags & O_DIRECT;
    if ((!f->block_dev && !S_ISREG(stat.st_mode)) || (cfg->direct && !f->direct) ||
        (flags & O_ACCMODE) == O_WRONLY || (flags & O_PATH) ||
        (!cfg->read_only && (flags & O_APPEND)) || /* pwrite would write at the end */
        (!cfg->read_only && (flags & O_ACCMODE) == O_RDONLY))
        return TN_EINVAL;
    size = (uint64_t)stat.st_size;
    if (f->block_dev && (TN_FILE_IOCTL(f->fd, BLKGETSIZE64, &size) < 0 ||
                         TN_FILE_IOCTL(f->fd, BLKSSZGET, &sector) < 0 ||
                         TN_FILE_IOCTL(f->fd, BLKPBSZGET, &physical) < 0))
        return TN_ESYS;
    if (!f->block_dev && stat.st_blksize > 0)
        physical = (unsigned)stat.st_blksize;
    f->disk.ctx = f;
    f->disk.size = size;
    f->disk.block_size = 512;
    f->disk.read_only = cfg->read_only;
    if (f->direct) {
        result = tn_file_direct_(f, (uint32_t)sector);
        if (result < 0)
            return result;
    }
    f->disk.physical_block = tn_file_block_(physical);
    if (f->disk.physical_block < f->disk.block_size)
        f->disk.physical_block = f->disk.block_size;
    if (size == 0 || size > INT64_MAX || size % f->disk.block_size)
        return TN_ERANGE;
    if (!cfg->no_lock) {
        result = tn_file_lock_(f->fd, cfg->read_only ? F_RDLCK : F_WRLCK);
        if (result < 0)
            return result;
        f->locked = true;
    }
    f->disk.zero = !cfg->read_only;
    /* Whether holes can be punched, tried behind the end, where nothing is. */
    f->disk.discard =
        !cfg->read_only &&
        (f->block_dev || tn_file_allocate_(f, TN_FILE_PUNCH_, size, f->disk.block_size) == 0);
    return 0;
}

/* Opens by name. A FIFO must not block us, and O_NONBLOCK must not stay. */
static inline int tn_file_open_(const struct tn_file_cfg *cfg, int more)
{
    int fd, flags = (cfg->read_only ? O_RDONLY : O_RDWR) | (cfg->direct ? O_DIRECT : 0) | more;
    int saved;

    do
        fd = open(cfg->path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
    while (fd < 0 && errno == EINTR);
    if (fd < 0 || fcntl(fd, F_SETFL, cfg->direct ? O_DIRECT : 0) == 0)
        return fd;
    saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

TN_API int tn_file_init(struct tn_file *f, const struct tn_file_cfg *cfg)
{
    static const struct tn_disk_ops ops = {tn_file_submit_, tn_file_kick_, tn_file_drain_};
    int result, saved;

    __builtin_memset(f, 0, sizeof(*f));
    f->fd = -1;
    f->ring = -1;
    f->depth = cfg->depth > 0 ? cfg->depth : TN_FILE_DEPTH;
    if (f->depth > TN_FILE_DEPTH_MAX)
        return TN_EINVAL;
    f->fd = cfg->path ? tn_file_open_(cfg, 0) : cfg->fd;
    if (f->fd < 0)
        return cfg->path && cfg->direct && errno == EINVAL ? TN_ENODEV : TN_ESYS;
    result = tn_file_look_(f, cfg);
    if (result == 0) {
        f->disk.ops = &ops;
        if (!cfg->no_uring)
            tn_file_ring_(f);
        return 0;
    }
    saved = errno;
    if (f->bounce)
        munmap(f->bounce, TN_FILE_BOUNCE_);
    if (cfg->path)
        close(f->fd);
    __builtin_memset(f, 0, sizeof(*f));
    f->fd = -1;
    f->ring = -1;
    errno = saved;
    return result;
}

TN_API void tn_file_close(struct tn_file *f)
{
    int saved = errno;

    if (f->fd < 0)
        return;
    tn_file_drain_(f);
    tn_file_no_ring_(f);
    if (f->bounce)
        munmap(f->bounce, TN_FILE_BOUNCE_);
    f->bounce = NULL;
    if (f->locked)
        tn_file_lock_(f->fd, F_UNLCK); /* there may be other descriptors of this open file */
    if (!f->keep)
        close(f->fd);
    f->fd = -1;
    errno = saved;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_FILE_H */
