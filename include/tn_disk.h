/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_disk - what a block device asks of whatever holds its bytes.
 *
 * WHAT
 *   The contract between a device's model and a backend: a request, which the asker owns, and the
 *   three functions that take it. The model checks what the guest said; the backend moves bytes.
 *
 * USAGE
 *   static void on_done(struct tn_disk_req *req, int result)
 *   {
 *       *(int *)req->ctx = result;
 *   }
 *   static void zeroes_submit(void *ctx, struct tn_disk_req *req)
 *   {
 *       (void)ctx;
 *       for (uint32_t i = 0; req->op == TN_DISK_READ && i < req->iovs; i++)
 *           __builtin_memset(req->iov[i].base, 0, req->iov[i].len);
 *       req->done(req, req->op == TN_DISK_READ ? TN_OK : TN_EUNSUP);
 *   }
 *   static void zeroes_nothing(void *ctx)
 *   {
 *       (void)ctx;
 *   }
 *   ---
 *   static const struct tn_disk_ops zeroes = {zeroes_submit, zeroes_nothing, zeroes_nothing};
 *   struct tn_disk disk = {&zeroes, NULL, 1u << 20, 512, 512, 512, true, false, false};
 *   uint8_t sector[512];
 *   struct tn_iov iov = {sector, sizeof(sector)};
 *   int result = 1;
 *   struct tn_disk_req req = {TN_DISK_READ, 0, 0, 512, &iov, 1, on_done, &result, NULL, {0, 0}};
 *
 *   if (tn_disk_check(&disk, &req) < 0)
 *       return 1;
 *   disk.ops->submit(disk.ctx, &req);
 *   disk.ops->kick(disk.ctx);
 *   disk.ops->drain(disk.ctx);
 *   if (result != TN_OK)
 *       return 2;
 *
 * COMPOSITION
 *   tn_virtio_blk asks, tn_file and tn_overlay answer; an overlay is an asker of its own parts.
 *
 * GUEST TRUST
 *   The asker calls tn_disk_check before each submit: a backend may rely on the range. The bytes
 *   behind iov are the guest's, and may change while they are moved.
 *
 * MEMORY
 *   The asker owns request and iovecs, which stay as they are until done is called. The backend
 *   owns struct tn_disk, and fills it in once.
 *
 * THREADS
 *   One call at a time on one disk; done is called on the thread that calls a function of the disk,
 *   or of the event loop that serves it.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   None: it is tenon's own.
 *
 * LIMITS
 *   No cancelling: who cannot wait for done drains the disk. No order between requests under way
 *   at the same time, not even where their ranges overlap.
 */
#ifndef TN_DISK_H
#define TN_DISK_H

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

#define TN_DISK_SECTOR 512u /* bytes; offsets and lengths are multiples of it */

enum tn_disk_op {
    TN_DISK_READ,
    TN_DISK_WRITE,
    TN_DISK_FLUSH,   /* what was done before is durable: offset and len are 0 */
    TN_DISK_DISCARD, /* the range's bytes no longer matter */
    TN_DISK_ZERO     /* the range reads as zeroes from now on */
};

#define TN_DISK_F_FUA   1u /* WRITE, DISCARD, ZERO: durable before it is done */
#define TN_DISK_F_UNMAP 2u /* ZERO: the range's storage may be given back */

/* Filled in by the asker, who does not touch it between submit and done. */
struct tn_disk_req {
    uint32_t op;              /* enum tn_disk_op */
    uint32_t flags;           /* TN_DISK_F_* */
    uint64_t offset;          /* bytes from the start of the disk */
    uint64_t len;             /* bytes */
    const struct tn_iov *iov; /* READ: where to; WRITE: where from; their lengths sum to len */
    uint32_t iovs;
    /*
     * Called once. result: 0; TN_ENOSPC: no room where the disk is kept; TN_EUNSUP: the backend
     * cannot do op; TN_ESYS: the host's storage failed. req is the asker's again, and may be
     * submitted anew from inside.
     */
    void (*done)(struct tn_disk_req *req, int result);
    void *ctx;                /* the asker's */
    struct tn_disk_req *next; /* the backend's, while it has the request */
    uint64_t scratch[2];      /* the backend's, likewise */
};

struct tn_disk_ops {
    /*
     * Takes a request, always; done is called later, or before this returns.
     */
    void (*submit)(void *ctx, struct tn_disk_req *req);
    /*
     * Called once after each batch of submits: nothing waits for more to come.
     */
    void (*kick)(void *ctx);
    /*
     * Returns when no request is under way; it calls done for each that was.
     */
    void (*drain)(void *ctx);
};

/* A disk, as its backend describes it. */
struct tn_disk {
    const struct tn_disk_ops *ops;
    void *ctx;               /* the backend */
    uint64_t size;           /* bytes, a multiple of block_size */
    uint32_t block_size;     /* bytes that a request's range is a multiple of: 512 to 4096 */
    uint32_t physical_block; /* bytes that are written as one; a power of two >= block_size */
    uint32_t optimal;        /* bytes of a request that is served best; 0: any */
    bool read_only;          /* only READ and FLUSH are served */
    bool discard;            /* DISCARD is served */
    bool zero;               /* ZERO is served */
};

/* A place in a list of iovecs: {0, 0} is its start. */
struct tn_disk_pos {
    uint32_t iov; /* index */
    size_t off;   /* bytes into it, less than its length unless that is 0 */
};

/*@ logic boolean tn_disk_serves(struct tn_disk *d, integer op) =
      op == TN_DISK_READ || op == TN_DISK_FLUSH ||
      (!d->read_only && (op == TN_DISK_WRITE || (op == TN_DISK_DISCARD && d->discard) ||
                         (op == TN_DISK_ZERO && d->zero)));
    predicate tn_disk_pos_ok(struct tn_iov *iov, integer iovs, struct tn_disk_pos *p) =
      p->iov <= iovs && (p->iov < iovs ==> p->off <= iov[p->iov].len) &&
      (p->iov == iovs ==> p->off == 0);
*/

/*
 * Whether disk can take req: a known op that it serves, a range of whole blocks inside the disk.
 * The iovecs are not looked at. Returns 0; TN_EUNSUP for an op that the disk does not serve;
 * TN_ERANGE for the range.
 */
/*@ requires \valid_read(disk) && \valid_read(req);
    assigns \nothing;
    ensures \result == TN_OK || \result == TN_EUNSUP || \result == TN_ERANGE;
    ensures \result == TN_EUNSUP <==> !tn_disk_serves((struct tn_disk *)disk, req->op);
    ensures \result == TN_OK && req->op == TN_DISK_FLUSH ==> req->offset == 0 && req->len == 0;
    ensures \result == TN_OK ==> req->offset + req->len <= disk->size || req->op == TN_DISK_FLUSH;
    ensures \result == TN_OK && req->op != TN_DISK_FLUSH ==> disk->block_size > 0 &&
      req->offset % disk->block_size == 0 && req->len % disk->block_size == 0; */
TN_API int tn_disk_check(const struct tn_disk *disk, const struct tn_disk_req *req);

/*
 * For backends: the next part of a list of iovecs. Puts at most cap pieces of at most len bytes in
 * all at out, and moves pos behind them. Returns how many pieces it put; *got gets their bytes, 0
 * at the end of the list only (or cap or len is 0). Pieces are not empty.
 */
/*@ requires \valid_read(iov + (0 .. iovs - 1)) && \valid(pos) && \valid(out + (0 .. cap - 1)) &&
      \valid(got) && \separated(iov + (0 .. iovs - 1), pos, out + (0 .. cap - 1), got);
    requires tn_disk_pos_ok((struct tn_iov *)iov, iovs, pos);
    assigns *pos, *got, out[0 .. cap - 1];
    ensures \result <= cap && *got <= len;
    ensures \forall integer i; 0 <= i < \result ==> 0 < out[i].len <= *got;
    ensures tn_disk_pos_ok((struct tn_iov *)iov, iovs, pos);
    ensures \old(pos->iov) <= pos->iov && (*got > 0 <==> \result > 0);
    ensures \result < cap ==> pos->iov == iovs || *got == len; */
TN_API uint32_t tn_disk_slice(const struct tn_iov *iov, uint32_t iovs, struct tn_disk_pos *pos,
                              uint64_t len, struct tn_iov *out, uint32_t cap, uint64_t *got);

/*
 * For backends: passes over len bytes of a list of iovecs, or over all that is left.
 */
TN_API void tn_disk_skip(const struct tn_iov *iov, uint32_t iovs, struct tn_disk_pos *pos,
                         uint64_t len);

/*
 * For backends: copies len bytes at *bytes out of a list of iovecs (TN_DISK_WRITE), or into it
 * (TN_DISK_READ), and moves pos behind them. Returns how many bytes: fewer at the list's end.
 */
TN_API size_t tn_disk_copy(uint32_t op, const struct tn_iov *iov, uint32_t iovs,
                           struct tn_disk_pos *pos, uint8_t *bytes, size_t len);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

TN_API int tn_disk_check(const struct tn_disk *disk, const struct tn_disk_req *req)
{
    switch (req->op) {
    case TN_DISK_READ:
        break;
    case TN_DISK_FLUSH:
        return req->offset == 0 && req->len == 0 ? TN_OK : TN_ERANGE;
    case TN_DISK_WRITE:
        if (disk->read_only)
            return TN_EUNSUP;
        break;
    case TN_DISK_DISCARD:
        if (disk->read_only || !disk->discard)
            return TN_EUNSUP;
        break;
    case TN_DISK_ZERO:
        if (disk->read_only || !disk->zero)
            return TN_EUNSUP;
        break;
    default:
        return TN_EUNSUP;
    }
    if (disk->block_size == 0 || req->offset % disk->block_size || req->len % disk->block_size)
        return TN_ERANGE;
    return req->len <= disk->size && req->offset <= disk->size - req->len ? TN_OK : TN_ERANGE;
}

TN_API uint32_t tn_disk_slice(const struct tn_iov *iov, uint32_t iovs, struct tn_disk_pos *pos,
                              uint64_t len, struct tn_iov *out, uint32_t cap, uint64_t *got)
{
    uint32_t i = pos->iov, n = 0;
    size_t off = pos->off, left;
    uint64_t sum = 0;

    /*@ loop invariant \at(pos->iov, Pre) <= i <= iovs && n <= cap && sum <= len;
        loop invariant i < iovs ==> off <= iov[i].len;
        loop invariant i == iovs ==> off == 0;
        loop invariant sum > 0 <==> n > 0;
        loop invariant \forall integer k; 0 <= k < n ==> 0 < out[k].len <= sum;
        loop assigns i, n, off, left, sum, out[0 .. cap - 1];
        loop variant iovs - i; */
    while (i < iovs && n < cap && sum < len) {
        left = iov[i].len - off;
        if (left > len - sum) {
            left = (size_t)(len - sum);
            out[n].base = iov[i].base + off;
            out[n].len = left;
            off += left;
            n++;
            sum = len;
            break;
        }
        if (left > 0) {
            out[n].base = iov[i].base + off;
            out[n].len = left;
            sum += left;
            n++;
        }
        i++;
        off = 0;
    }
    pos->iov = i;
    pos->off = off;
    *got = sum;
    return n;
}

TN_API void tn_disk_skip(const struct tn_iov *iov, uint32_t iovs, struct tn_disk_pos *pos,
                         uint64_t len)
{
    struct tn_iov piece;
    uint64_t got;

    while (len > 0 && tn_disk_slice(iov, iovs, pos, len, &piece, 1, &got) > 0)
        len -= got;
}

TN_API size_t tn_disk_copy(uint32_t op, const struct tn_iov *iov, uint32_t iovs,
                           struct tn_disk_pos *pos, uint8_t *bytes, size_t len)
{
    struct tn_iov piece;
    size_t sum = 0;
    uint64_t got;

    while (sum < len && tn_disk_slice(iov, iovs, pos, len - sum, &piece, 1, &got) > 0) {
        if (op == TN_DISK_READ)
            __builtin_memcpy(piece.base, bytes + sum, piece.len);
        else
            __builtin_memcpy(bytes + sum, piece.base, piece.len);
        sum += piece.len;
    }
    return sum;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_DISK_H */
