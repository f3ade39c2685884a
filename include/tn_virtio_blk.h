/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_virtio_blk - a virtio block device over any disk that speaks tn_disk.
 *
 * WHAT
 *   Reads, writes, flushes, discards and zeroes, of any shape that virtio allows: header, data and
 *   status may be cut into descriptors anywhere. Several queues, many requests under way at once,
 *   a write cache that the driver can turn off, and a rate limit.
 *
 * USAGE
 *   static void submit(void *ctx, struct tn_disk_req *req)
 *   {
 *       (void)ctx;
 *       for (uint32_t i = 0; req->op == TN_DISK_READ && i < req->iovs; i++)
 *           __builtin_memset(req->iov[i].base, 0, req->iov[i].len);
 *       req->done(req, req->op == TN_DISK_READ ? TN_OK : TN_EUNSUP);
 *   }
 *   static void nothing(void *ctx)
 *   {
 *       (void)ctx;
 *   }
 *   static void wake(void *ctx, uint64_t ns)
 *   {
 *       *(uint64_t *)ctx = ns;
 *   }
 *   ---
 *   static const struct tn_disk_ops zeroes = {submit, nothing, nothing};
 *   static const struct tn_disk disk = {&zeroes, NULL, 1u << 20, 512, 512, 0, true, false, false};
 *   static struct tn_virtio_blk_slot slot[8];
 *   static struct tn_virtio_blk blk;
 *   static uint8_t ram[1u << 16];
 *   struct tn_mem_region table[1];
 *   struct tn_mem mem;
 *   uint64_t timer = UINT64_MAX;
 *   struct tn_virtio_blk_cfg cfg = {&mem, 64, TN_VIRTIO_F_RING, &disk, "tenon0", 1, slot, 8,
 *                                   &timer, wake, NULL, NULL};
 *
 *   tn_mem_init(&mem, table, 1);
 *   if (tn_mem_add(&mem, 0, ram, sizeof(ram)) < 0 || tn_virtio_blk_init(&blk, &cfg) < 0)
 *       return 1;
 *   if (timer != UINT64_MAX)
 *       tn_virtio_blk_wake(&blk);
 *
 * COMPOSITION
 *   A transport serves blk.virtio. wake asks for a call of tn_virtio_blk_wake so many nanoseconds
 *   later, by the event loop, not from inside. Around a function of the backend that finishes many
 *   requests, tn_virtio_blk_hold and tn_virtio_blk_release make one batch of them: one kick of the
 *   disk, one interrupt. Before a snapshot: tn_virtio_blk_quiesce, tn_virtio_blk_save. No callback
 *   may call anything here but the backend's done.
 *
 * GUEST TRUST
 *   The rings, all requests and a saved state may be hostile. Headers and segments are copied once;
 *   every range that reaches the disk lies inside it. A request that makes no sense is answered
 *   with an error; one that leaves no place for the answer, or is longer than the driver was told,
 *   sets DEVICE_NEEDS_RESET. A queue's turn ends after TN_VIRTIO_BLK_TURN, whatever the guest adds;
 *   its last request is served whole, however long it is (less than 4 GiB).
 *
 * MEMORY
 *   The caller gives the slots, one for each request under way: about 2 KiB each. The struct and
 *   its slots hold pointers to each other: both stay where they are.
 *
 * THREADS
 *   One call at a time on one struct, the transport's calls and the backend's done among them.
 *   Callbacks run inside them.
 *
 * CONFIG
 *   TN_VIRTIO_BLK_SEGS, 126: data segments of a request that the driver is told (seg_max); at most
 *   1000, so that as many of the largest stay below 4 GiB, which no chain exceeds.
 *
 * SPEC
 *   Virtual I/O Device (VIRTIO) 1.2, section 5.2: IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES;
 *   F_SIZE_MAX, F_SEG_MAX, F_RO, F_BLK_SIZE, F_FLUSH, F_TOPOLOGY, F_CONFIG_WCE, F_MQ, F_DISCARD,
 *   F_WRITE_ZEROES.
 *
 * LIMITS
 *   No geometry, no SCSI passthrough, no secure erase, no zones. On a disk of larger blocks, a
 *   request of part of one fails. The rate counts requests and the bytes in their descriptors, not
 *   the sectors that DISCARD and WRITE_ZEROES name. A read that a reset cuts off may have written
 *   to the guest's buffers, which are not marked dirty then: nothing may be read from them.
 */
#ifndef TN_VIRTIO_BLK_H
#define TN_VIRTIO_BLK_H

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
#include "tn_mem.h"
#include "tn_rate.h"
#include "tn_virtio.h"
#include "tn_virtq.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#ifndef TN_VIRTIO_BLK_SEGS
#define TN_VIRTIO_BLK_SEGS 126u
#endif
#if TN_VIRTIO_BLK_SEGS > 1000
#error "TN_VIRTIO_BLK_SEGS is above 1000"
#endif
#define TN_VIRTIO_BLK_IOVS      (TN_VIRTIO_BLK_SEGS + 8u) /* header, status, borders of regions */
#define TN_VIRTIO_BLK_ID        2u                        /* the device's id */
#define TN_VIRTIO_BLK_ID_LEN    20u                       /* bytes of GET_ID's answer */
#define TN_VIRTIO_BLK_SIZE_MAX  (1u << 22) /* bytes of a segment that the driver is told */
#define TN_VIRTIO_BLK_RANGES    8u         /* segments of DISCARD and WRITE_ZEROES */
#define TN_VIRTIO_BLK_RANGE_MAX (1u << 16) /* sectors of such a segment: 32 MiB */
#define TN_VIRTIO_BLK_TURN      (1u << 22) /* bytes, a request counting 4 KiB more than it has */
#define TN_VIRTIO_BLK_CONFIG    60u        /* bytes of the configuration space */
#define TN_VIRTIO_BLK_VERSION   1          /* of struct tn_virtio_blk_state */

/* Feature bits (5.2.3). */
#define TN_VIRTIO_BLK_F_SIZE_MAX     (1ull << 1)
#define TN_VIRTIO_BLK_F_SEG_MAX      (1ull << 2)
#define TN_VIRTIO_BLK_F_RO           (1ull << 5)
#define TN_VIRTIO_BLK_F_BLK_SIZE     (1ull << 6)
#define TN_VIRTIO_BLK_F_FLUSH        (1ull << 9)
#define TN_VIRTIO_BLK_F_TOPOLOGY     (1ull << 10)
#define TN_VIRTIO_BLK_F_CONFIG_WCE   (1ull << 11)
#define TN_VIRTIO_BLK_F_MQ           (1ull << 12)
#define TN_VIRTIO_BLK_F_DISCARD      (1ull << 13)
#define TN_VIRTIO_BLK_F_WRITE_ZEROES (1ull << 14)

/* Types of requests, and their status (5.2.6). */
#define TN_VIRTIO_BLK_T_IN           0u
#define TN_VIRTIO_BLK_T_OUT          1u
#define TN_VIRTIO_BLK_T_FLUSH        4u
#define TN_VIRTIO_BLK_T_GET_ID       8u
#define TN_VIRTIO_BLK_T_DISCARD      11u
#define TN_VIRTIO_BLK_T_WRITE_ZEROES 13u
#define TN_VIRTIO_BLK_S_OK           0u
#define TN_VIRTIO_BLK_S_IOERR        1u
#define TN_VIRTIO_BLK_S_UNSUPP       2u

struct tn_virtio_blk;

/* A segment of DISCARD or WRITE_ZEROES, checked. */
struct tn_virtio_blk_range {
    uint64_t offset; /* bytes */
    uint64_t len;
    uint32_t flags; /* TN_DISK_F_UNMAP */
};

/* A request under way; of no use to callers. */
struct tn_virtio_blk_slot {
    struct tn_virtio_blk *blk;
    struct tn_virtio_blk_slot *next; /* among the free ones, or the finished ones */
    struct tn_disk_req req;
    struct tn_virtq_chain chain;
    struct tn_iov iov[TN_VIRTIO_BLK_IOVS];
    struct tn_virtio_blk_range range[TN_VIRTIO_BLK_RANGES];
    uint32_t ranges; /* of DISCARD and WRITE_ZEROES; 0 for other requests */
    uint32_t at;     /* which of them is under way */
    uint32_t queue;
    int result; /* that done was called with */
};

struct tn_virtio_blk_cfg {
    const struct tn_mem *mem;        /* the guest's RAM; outlives the device */
    uint16_t queue_size;             /* a power of two from 4 on */
    uint64_t ring_features;          /* those of TN_VIRTIO_F_RING to offer */
    const struct tn_disk *disk;      /* copied; the backend outlives the device */
    const char *id;                  /* up to 20 bytes, the rest is dropped; NULL: none */
    uint32_t queues;                 /* 1 to TN_VIRTIO_MAX_QUEUES */
    struct tn_virtio_blk_slot *slot; /* the caller's, any bytes */
    uint32_t slots;                  /* requests under way at once, all queues together */
    void *ctx;
    /*
     * Call tn_virtio_blk_wake in ns nanoseconds, in place of what was asked before; 0: after others
     * had their turn.
     */
    void (*wake)(void *ctx, uint64_t ns);
    struct tn_rate *rate;       /* the limit of requests and bytes, the caller's; NULL: none */
    uint64_t (*now)(void *ctx); /* rate's clock, nanoseconds; may be NULL without rate */
};

struct tn_virtio_blk {
    struct tn_virtio virtio;
    struct tn_virtio_queue queue[TN_VIRTIO_MAX_QUEUES];
    struct tn_virtio_blk_cfg cfg;
    struct tn_disk disk;
    struct tn_virtio_blk_slot *free;     /* the slots of no request */
    struct tn_virtio_blk_slot *finished; /* those that done was called for, in order */
    struct tn_virtio_blk_slot **end;     /* where the next of them goes */
    uint64_t errors;                     /* requests that were answered with IOERR or UNSUPP */
    uint32_t work;                       /* bit n: queue n may have requests */
    uint32_t signal;                     /* bit n: queue n has pushed, and not signalled */
    uint32_t first;                      /* the queue whose turn is first */
    uint32_t busy;                       /* requests are begun at the end of it, not in done */
    bool kick;                           /* the disk was given requests since its last kick */
    bool limited;                        /* the rate has said when to go on */
    uint8_t id[TN_VIRTIO_BLK_ID_LEN];
    uint8_t config[TN_VIRTIO_BLK_CONFIG];
};

struct tn_virtio_blk_state {
    uint32_t version;   /* TN_VIRTIO_BLK_VERSION */
    uint32_t writeback; /* 0 or 1 */
    uint64_t capacity;  /* sectors */
    struct tn_virtio_state virtio;
};

/*
 * Makes a device that was just reset. Returns 0; TN_EINVAL when mem, disk, slots or wake is
 * missing, or now beside a rate, for a disk that does not keep to tn_disk.h, a queue size, a number
 * of queues or ring features outside the limits.
 */
TN_API int tn_virtio_blk_init(struct tn_virtio_blk *b, const struct tn_virtio_blk_cfg *cfg);

/*
 * Goes on with the requests that wait: the time that wake named has come, or the device was
 * restored, or is to run again after tn_virtio_blk_quiesce. Too early or too often does no harm.
 */
TN_API void tn_virtio_blk_wake(struct tn_virtio_blk *b);

/*
 * Between hold and release requests that finish are only noted; release answers them, begins those
 * that waited, and interrupts once. Pairs may be nested.
 */
TN_API void tn_virtio_blk_hold(struct tn_virtio_blk *b);
TN_API void tn_virtio_blk_release(struct tn_virtio_blk *b);

/*
 * Drains the disk, and answers all requests under way. No other is begun: those that wait stay in
 * the rings until tn_virtio_blk_wake or the driver's next notification. Not between hold and
 * release.
 */
TN_API void tn_virtio_blk_quiesce(struct tn_virtio_blk *b);

/*
 * The disk has another size now, in bytes: the driver is told. Returns 0, or TN_EINVAL for a size
 * that is no multiple of the disk's block_size.
 */
TN_API int tn_virtio_blk_resize(struct tn_virtio_blk *b, uint64_t size);

/*
 * Copies the state out, after tn_virtio_blk_quiesce. The rate and the disk's content are not in it.
 */
TN_API void tn_virtio_blk_save(const struct tn_virtio_blk *b, struct tn_virtio_blk_state *out);

/*
 * Takes a saved state over; then call tn_virtio_blk_wake. Requests under way are answered first.
 * Returns 0; TN_EUNSUP: another version, or a disk of another size; TN_EFORMAT: a state that no
 * device can be in, or saved with requests under way; the errors of tn_virtio_restore.
 */
TN_API int tn_virtio_blk_restore(struct tn_virtio_blk *b, const struct tn_virtio_blk_state *from);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* Whether a disk is as tn_disk.h says. */
/*@ requires \valid_read(d);
    assigns \nothing;
    ensures \result ==> 512 <= d->block_size <= 4096 && d->size % d->block_size == 0 &&
      d->physical_block >= d->block_size; */
static inline bool tn_virtio_blk_disk_ok_(const struct tn_disk *d)
{
    uint32_t blocks;

    if (d->block_size != 512 && d->block_size != 1024 && d->block_size != 2048 &&
        d->block_size != 4096)
        return false;
    blocks = d->physical_block / d->block_size;
    return d->size % d->block_size == 0 && d->physical_block % d->block_size == 0 && blocks > 0 &&
           blocks <= 32768 && (blocks & (blocks - 1)) == 0; /* min_io_size has 16 bits */
}

/* Where a request of len bytes from sector on lies on a disk of size bytes (C01, C02). */
/*@ requires \valid(offset);
    assigns *offset;
    ensures \result == TN_OK || \result == TN_ERANGE;
    ensures \result == TN_OK <==> len % 512 == 0 && sector * 512 + len <= size;
    ensures \result == TN_OK ==> *offset == sector * 512;
    ensures \result != TN_OK ==> *offset == 0; */
static inline int tn_virtio_blk_offset_(uint64_t size, uint64_t sector, uint64_t len,
                                        uint64_t *offset)
{
    *offset = 0;
    if (len % TN_DISK_SECTOR || sector > size / TN_DISK_SECTOR ||
        len > size - sector * TN_DISK_SECTOR)
        return TN_ERANGE;
    *offset = sector * TN_DISK_SECTOR;
    return TN_OK;
}

/* How many segments len bytes of data are; TN_EFORMAT: none, more than told, or a part of one. */
/*@ assigns \nothing;
    ensures \result == TN_EFORMAT || (1 <= \result <= TN_VIRTIO_BLK_RANGES && len == 16 * \result);
    ensures \result == TN_EFORMAT ==> len % 16 != 0 || len == 0 || len > 16 * TN_VIRTIO_BLK_RANGES;
*/
static inline int tn_virtio_blk_ranges_(uint64_t len)
{
    if (len == 0 || len % 16u || len / 16u > TN_VIRTIO_BLK_RANGES)
        return TN_EFORMAT;
    return (int)(len / 16u);
}

/* Checks one segment; op is what it is for. TN_EUNSUP: a flag that is unknown there (5.2.6.2). */
/*@ requires op == TN_DISK_DISCARD || op == TN_DISK_ZERO;
    requires \valid(out);
    assigns *out;
    ensures \result == TN_OK || \result == TN_ERANGE || \result == TN_EUNSUP;
    ensures \result == TN_EUNSUP <==> flags > 1 || (flags == 1 && op == TN_DISK_DISCARD);
    ensures \result == TN_OK ==> out->offset == sector * 512 && out->len == sectors * 512 &&
      sectors <= TN_VIRTIO_BLK_RANGE_MAX && out->offset + out->len <= size &&
      out->flags == (flags == 1 ? TN_DISK_F_UNMAP : 0);
    ensures \result != TN_OK ==> out->offset == 0 && out->len == 0 && out->flags == 0; */
static inline int tn_virtio_blk_range_(uint64_t size, uint32_t op, uint64_t sector,
                                       uint32_t sectors, uint32_t flags,
                                       struct tn_virtio_blk_range *out)
{
    uint64_t len = (uint64_t)sectors * TN_DISK_SECTOR, offset;

    out->offset = 0;
    out->len = 0;
    out->flags = 0;
    if (flags > (op == TN_DISK_ZERO ? 1u : 0u))
        return TN_EUNSUP;
    if (sectors > TN_VIRTIO_BLK_RANGE_MAX ||
        tn_virtio_blk_offset_(size, sector, len, &offset) != TN_OK)
        return TN_ERANGE;
    out->offset = offset;
    out->len = len;
    out->flags = flags ? TN_DISK_F_UNMAP : 0;
    return TN_OK;
}

/* Takes the header, all that lies before pos, off n iovecs. Returns the first that has more. */
/*@ requires \valid_read(pos) && pos->iov <= n && \valid(iov + (0 .. n - 1));
    requires \separated(pos, iov + (0 .. n - 1));
    requires pos->iov < n ==> pos->off <= iov[pos->iov].len && \valid(iov[pos->iov].base +
      (0 .. iov[pos->iov].len - 1));
    assigns iov[pos->iov];
    ensures \result == pos->iov <= n;
    ensures pos->iov < n ==>
      iov[pos->iov].base == \old(iov[pos->iov].base) + pos->off &&
      iov[pos->iov].len == \old(iov[pos->iov].len) - pos->off; */
static inline uint32_t tn_virtio_blk_cut_header_(struct tn_iov *iov, uint32_t n,
                                                 const struct tn_disk_pos *pos)
{
    if (pos->iov < n) {
        iov[pos->iov].base += pos->off;
        iov[pos->iov].len -= pos->off;
    }
    return pos->iov;
}

/* Takes the status, the last byte, off n iovecs. Returns how many still hold something. */
/*@ requires n > 0 && \valid(iov + (0 .. n - 1)) && iov[n - 1].len > 0;
    assigns iov[n - 1].len;
    ensures iov[n - 1].len == \old(iov[n - 1].len) - 1;
    ensures \result == (iov[n - 1].len > 0 ? n : n - 1); */
static inline uint32_t tn_virtio_blk_cut_status_(struct tn_iov *iov, uint32_t n)
{
    iov[n - 1].len--;
    return iov[n - 1].len > 0 ? n : n - 1;
}

/* What the driver is told of the disk's result (5.2.6). */
/*@ assigns \nothing;
    ensures \result == TN_VIRTIO_BLK_S_OK <==> result == TN_OK;
    ensures \result == TN_VIRTIO_BLK_S_UNSUPP <==> result == TN_EUNSUP;
    ensures \result <= 2; */
static inline uint8_t tn_virtio_blk_status_(int result)
{
    if (result == TN_OK)
        return TN_VIRTIO_BLK_S_OK;
    return result == TN_EUNSUP ? TN_VIRTIO_BLK_S_UNSUPP : TN_VIRTIO_BLK_S_IOERR;
}

/* Takes a request of so many bytes out of what is left of a turn. */
/*@ requires \valid(left);
    assigns *left;
    ensures \old(*left) > 0 ==> *left < \old(*left);
    ensures *left == (\old(*left) >= bytes + 4096 ? \old(*left) - (bytes + 4096) : 0); */
static inline void tn_virtio_blk_spend_(uint32_t *left, uint64_t bytes)
{
    *left = *left >= 4096u && bytes <= *left - 4096u ? (uint32_t)(*left - 4096u - bytes) : 0;
}

/* Zeroes what follows the first skip bytes of n iovecs. */
static inline void tn_virtio_blk_blank_(const struct tn_iov *iov, uint32_t n, uint64_t skip)
{
    struct tn_disk_pos pos = {0, 0};
    struct tn_iov piece;
    uint64_t got;

    tn_disk_skip(iov, n, &pos, skip);
    while (tn_disk_slice(iov, n, &pos, UINT64_MAX, &piece, 1, &got) > 0)
        __builtin_memset(piece.base, 0, piece.len);
}

/* Whether a request's chain can still be answered: a reset takes all of them back (C04). */
static inline bool tn_virtio_blk_current_(const struct tn_virtio_blk *b,
                                          const struct tn_virtio_blk_slot *s)
{
    const struct tn_virtq *q = &b->queue[s->queue].q;

    return tn_virtio_live(&b->virtio) && q->started && q->error == TN_OK &&
           s->chain.generation == q->generation;
}

static inline void tn_virtio_blk_release_slot_(struct tn_virtio_blk *b,
                                               struct tn_virtio_blk_slot *s)
{
    s->next = b->free;
    b->free = s;
}

static inline struct tn_virtio_blk_slot *tn_virtio_blk_next_finished_(struct tn_virtio_blk *b)
{
    struct tn_virtio_blk_slot *s = b->finished;

    if (s) {
        b->finished = s->next;
        if (!b->finished)
            b->end = &b->finished;
    }
    return s;
}

static inline void tn_virtio_blk_finish_(struct tn_virtio_blk_slot *s, int result)
{
    struct tn_virtio_blk *b = s->blk;

    s->result = result;
    s->next = NULL;
    *b->end = s;
    b->end = &s->next;
}

/*
 * Gives a request back to the driver. All of its writable part counts as used, since the status is
 * its last byte (2.7.8.2): what holds no data is zeroed before, so that this is no lie.
 */
static inline void tn_virtio_blk_answer_(struct tn_virtio_blk *b, struct tn_virtio_blk_slot *s)
{
    struct tn_iov *in = s->iov + s->chain.readable, *last = in + s->chain.writable - 1;
    uint8_t status = tn_virtio_blk_status_(s->result);

    if (tn_virtio_blk_current_(b, s)) {
        if (s->result != TN_OK || s->req.op != TN_DISK_READ)
            tn_virtio_blk_blank_(in, s->chain.writable, 0);
        else if (s->req.len < s->chain.writable_len - 1u)
            tn_virtio_blk_blank_(in, s->chain.writable, s->req.len);
        *(volatile uint8_t *)(last->base + last->len) = status;
        last->len++;
        (void)tn_virtq_push(&b->queue[s->queue].q, &s->chain, s->chain.writable_len);
        b->signal |= 1u << s->queue;
        b->errors += status != TN_VIRTIO_BLK_S_OK;
    }
    tn_virtio_blk_release_slot_(b, s);
}

/* Whether written data may wait for a flush; if not, each write is durable (5.2.5.2). */
static inline bool tn_virtio_blk_writeback_(const struct tn_virtio_blk *b)
{
    return tn_virtio_has(&b->virtio, TN_VIRTIO_BLK_F_FLUSH) &&
           (!tn_virtio_has(&b->virtio, TN_VIRTIO_BLK_F_CONFIG_WCE) || b->config[32] == 1);
}

/* Hands the disk a request, or the next segment of one. */
static inline void tn_virtio_blk_submit_(struct tn_virtio_blk *b, struct tn_virtio_blk_slot *s)
{
    int r;

    if (s->ranges > 0) {
        s->req.offset = s->range[s->at].offset;
        s->req.len = s->range[s->at].len;
        s->req.flags = s->range[s->at].flags;
    }
    if (s->req.op != TN_DISK_READ && s->req.op != TN_DISK_FLUSH && !tn_virtio_blk_writeback_(b))
        s->req.flags |= TN_DISK_F_FUA;
    r = tn_disk_check(&b->disk, &s->req);
    if (r != TN_OK || (s->req.len == 0 && s->req.op != TN_DISK_FLUSH)) {
        tn_virtio_blk_finish_(s, r);
        return;
    }
    b->kick = true;
    b->disk.ops->submit(b->disk.ctx, &s->req);
}

/* Goes on with what has finished. */
static inline void tn_virtio_blk_settle_(struct tn_virtio_blk *b)
{
    struct tn_virtio_blk_slot *s;

    while ((s = tn_virtio_blk_next_finished_(b)) != NULL) {
        if (s->result == TN_OK && s->at + 1 < s->ranges && tn_virtio_blk_current_(b, s)) {
            s->at++;
            tn_virtio_blk_submit_(b, s);
        } else {
            tn_virtio_blk_answer_(b, s);
        }
    }
}

/* Copies the segments out of n iovecs and checks all of them, before the first is acted on. */
static inline int tn_virtio_blk_segments_(struct tn_virtio_blk *b, struct tn_virtio_blk_slot *s,
                                          uint32_t n, struct tn_disk_pos *pos, uint64_t len)
{
    uint8_t seg[16 * TN_VIRTIO_BLK_RANGES];
    int count = tn_virtio_blk_ranges_(len), r;

    if (count < 0)
        return count;
    (void)tn_disk_copy(TN_DISK_WRITE, s->iov, n, pos, seg, (size_t)len);
    for (int i = 0; i < count; i++) {
        const uint8_t *p = seg + 16 * i;

        r = tn_virtio_blk_range_(b->disk.size, s->req.op, tn_get_(p, 8),
                                 (uint32_t)tn_get_(p + 8, 4), (uint32_t)tn_get_(p + 12, 4),
                                 &s->range[i]);
        if (r != TN_OK)
            return r;
    }
    s->ranges = (uint32_t)count;
    return TN_OK;
}

/* The driver's type of request as the disk's; TN_EUNSUP: none (C03), or not negotiated. */
/*@ assigns \nothing;
    ensures \result == TN_EUNSUP || TN_DISK_READ <= \result <= TN_DISK_ZERO;
    ensures \result == TN_DISK_READ <==> type == 0 || type == 8;
    ensures \result == TN_DISK_WRITE <==> type == 1;
    ensures \result == TN_DISK_FLUSH <==> type == 4;
    ensures \result == TN_DISK_DISCARD <==> type == 11 && (features & (1 << 13)) != 0;
    ensures \result == TN_DISK_ZERO <==> type == 13 && (features & (1 << 14)) != 0; */
static inline int tn_virtio_blk_op_(uint32_t type, uint64_t features)
{
    switch (type) {
    case TN_VIRTIO_BLK_T_IN:
    case TN_VIRTIO_BLK_T_GET_ID:
        return TN_DISK_READ;
    case TN_VIRTIO_BLK_T_OUT:
        return TN_DISK_WRITE;
    case TN_VIRTIO_BLK_T_FLUSH:
        return TN_DISK_FLUSH;
    case TN_VIRTIO_BLK_T_DISCARD:
        if (features & TN_VIRTIO_BLK_F_DISCARD)
            return TN_DISK_DISCARD;
        break;
    case TN_VIRTIO_BLK_T_WRITE_ZEROES:
        if (features & TN_VIRTIO_BLK_F_WRITE_ZEROES)
            return TN_DISK_ZERO;
        break;
    default:
        break;
    }
    return TN_EUNSUP;
}

/* Begins a request that has a whole header and a place for the status. */
static inline void tn_virtio_blk_begin_(struct tn_virtio_blk *b, struct tn_virtio_blk_slot *s,
                                        uint32_t queue)
{
    struct tn_disk_pos pos = {0, 0};
    uint8_t header[16];
    uint32_t in = s->chain.readable, type, n;
    uint64_t sector, out_len = s->chain.readable_len - 16u, in_len = s->chain.writable_len - 1u;
    int r;

    (void)tn_disk_copy(TN_DISK_WRITE, s->iov, in, &pos, header, sizeof(header));
    type = (uint32_t)tn_get_(header, 4);
    sector = tn_get_(header + 8, 8);
    n = tn_virtio_blk_cut_status_(s->iov + in, s->chain.writable);
    r = tn_virtio_blk_op_(type, b->virtio.features);
    s->queue = queue;
    s->ranges = 0;
    s->at = 0;
    s->req.op = r < 0 ? (uint32_t)TN_DISK_FLUSH : (uint32_t)r;
    s->req.flags = 0;
    s->req.offset = 0;
    s->req.len = 0;
    s->req.iov = NULL;
    s->req.iovs = 0;
    if (r >= 0)
        r = TN_OK;
    if (r == TN_OK && type == TN_VIRTIO_BLK_T_GET_ID) {
        pos.iov = 0;
        pos.off = 0;
        s->req.len = tn_disk_copy(TN_DISK_READ, s->iov + in, n, &pos, b->id, sizeof(b->id));
        tn_virtio_blk_finish_(s, TN_OK);
        return;
    }
    if (r == TN_OK && s->req.op == TN_DISK_READ) {
        s->req.iov = s->iov + in;
        s->req.iovs = n;
        s->req.len = in_len;
        r = tn_virtio_blk_offset_(b->disk.size, sector, in_len, &s->req.offset);
    } else if (r == TN_OK && s->req.op == TN_DISK_WRITE) {
        n = tn_virtio_blk_cut_header_(s->iov, in, &pos);
        s->req.iov = s->iov + n;
        s->req.iovs = in - n;
        s->req.len = out_len;
        r = b->disk.read_only
                ? TN_ESYS /* which IOERR is for (5.2.6.2) */
                : tn_virtio_blk_offset_(b->disk.size, sector, out_len, &s->req.offset);
    } else if (r == TN_OK && s->req.op != TN_DISK_FLUSH) {
        r = tn_virtio_blk_segments_(b, s, in, &pos, out_len);
    }
    if (r == TN_OK)
        tn_virtio_blk_submit_(b, s);
    else
        tn_virtio_blk_finish_(s, r);
}

/* Nanoseconds until the rate lets a request pass; 0: it was counted. */
static inline uint64_t tn_virtio_blk_delay_(struct tn_virtio_blk *b, uint64_t bytes)
{
    return b->cfg.rate ? tn_rate_take(b->cfg.rate, b->cfg.now(b->cfg.ctx), bytes) : 0;
}

/* Begins a queue's requests until there are none, no slots, no turn left, or the rate says no. */
static inline void tn_virtio_blk_serve_(struct tn_virtio_blk *b, uint32_t index, uint32_t *left)
{
    struct tn_virtq *q = &b->queue[index].q;
    struct tn_virtio_blk_slot *s;
    uint64_t bytes, wait;
    int n;

    if (!(b->work >> index & 1u) || b->limited || !tn_virtio_live(&b->virtio))
        return;
    tn_virtq_notify_disable(q);
    while (*left > 0 && (s = b->free) != NULL) {
        n = tn_virtq_pop(q, &s->chain, s->iov, (uint16_t)TN_VIRTIO_BLK_IOVS);
        if (n == 0) {
            if (!tn_virtq_notify_enable(q)) {
                b->work &= ~(1u << index);
                return;
            }
            tn_virtq_notify_disable(q);
            tn_virtio_blk_spend_(left, 0);
            continue;
        }
        if (n == TN_ESTATE) { /* a queue that the driver has not enabled */
            b->work &= ~(1u << index);
            return;
        }
        if (n < 0 || s->chain.readable_len < 16 || s->chain.writable_len == 0) {
            tn_virtio_needs_reset(&b->virtio);
            return;
        }
        bytes = (uint64_t)s->chain.readable_len + s->chain.writable_len - 17u;
        wait = tn_virtio_blk_delay_(b, bytes);
        if (wait > 0) {
            (void)tn_virtq_unpop(q, &s->chain);
            b->limited = true;
            b->cfg.wake(b->cfg.ctx, wait);
            return;
        }
        b->free = s->next;
        tn_virtio_blk_begin_(b, s, index);
        tn_virtio_blk_spend_(left, bytes);
    }
}

static inline void tn_virtio_blk_kick_(struct tn_virtio_blk *b)
{
    if (b->kick) {
        b->kick = false;
        b->disk.ops->kick(b->disk.ctx);
    }
}

static inline void tn_virtio_blk_signal_(struct tn_virtio_blk *b)
{
    uint32_t which = b->signal;

    b->signal = 0;
    for (uint32_t i = 0; which >> i != 0; i++) {
        if ((which >> i & 1u) && tn_virtio_live(&b->virtio))
            tn_virtio_signal(&b->virtio, i);
    }
}

/*
 * Answers what has finished, and begins what waits: one turn, however it comes about. The loop ends
 * since each round takes from left, or goes on with a request that has few segments.
 */
static inline void tn_virtio_blk_turn_(struct tn_virtio_blk *b)
{
    uint32_t left[TN_VIRTIO_MAX_QUEUES], queues = b->cfg.queues;

    if (b->busy > 0)
        return;
    b->busy++;
    for (uint32_t i = 0; i < queues; i++)
        left[i] = TN_VIRTIO_BLK_TURN;
    do {
        tn_virtio_blk_settle_(b);
        for (uint32_t i = 0; i < queues; i++) {
            uint32_t index = (b->first + i) % queues;

            tn_virtio_blk_serve_(b, index, &left[index]);
        }
        tn_virtio_blk_kick_(b);
    } while (b->finished);
    b->first = (b->first + 1) % queues;
    b->busy--;
    tn_virtio_blk_signal_(b);
    /* Work and a slot for it: the turn is over. Without a slot a request's end is the next one. */
    if (b->work != 0 && b->free && !b->limited && tn_virtio_live(&b->virtio))
        b->cfg.wake(b->cfg.ctx, 0);
}

/* It may be called inside submit: nothing but a note is made then. */
static inline void tn_virtio_blk_on_done_(struct tn_disk_req *req, int result)
{
    struct tn_virtio_blk_slot *s = (struct tn_virtio_blk_slot *)req->ctx;

    tn_virtio_blk_finish_(s, result);
    tn_virtio_blk_turn_(s->blk);
}

/* Without FLUSH there is no cache to write back (5.2.5.2). */
static inline bool tn_virtio_blk_on_accept_(void *ctx, uint64_t features)
{
    struct tn_virtio_blk *b = (struct tn_virtio_blk *)ctx;

    b->config[32] = (features & TN_VIRTIO_BLK_F_FLUSH) != 0;
    return true;
}

static inline uint32_t tn_virtio_blk_all_(const struct tn_virtio_blk *b)
{
    return (uint32_t)((1ull << b->cfg.queues) - 1);
}

/* The driver may have filled the queues before it set DRIVER_OK. */
static inline int tn_virtio_blk_on_activate_(void *ctx)
{
    struct tn_virtio_blk *b = (struct tn_virtio_blk *)ctx;

    b->work = tn_virtio_blk_all_(b);
    b->cfg.wake(b->cfg.ctx, 0);
    return TN_OK;
}

static inline void tn_virtio_blk_on_reset_(void *ctx)
{
    struct tn_virtio_blk *b = (struct tn_virtio_blk *)ctx;
    struct tn_virtio_blk_slot *s;

    b->busy++;
    tn_virtio_blk_kick_(b);
    b->disk.ops->drain(b->disk.ctx);
    while ((s = tn_virtio_blk_next_finished_(b)) != NULL)
        tn_virtio_blk_release_slot_(b, s);
    b->busy--;
    b->work = 0;
    b->signal = 0;
    b->first = 0;
    b->limited = false;
    b->config[32] = 1;
}

static inline void tn_virtio_blk_on_notify_(void *ctx, uint32_t queue)
{
    struct tn_virtio_blk *b = (struct tn_virtio_blk *)ctx;

    b->work |= 1u << queue;
    tn_virtio_blk_turn_(b);
}

/* writeback is the one field that a driver may write (5.2.5.1). */
static inline void tn_virtio_blk_on_config_(void *ctx, uint32_t off, unsigned width, uint32_t value)
{
    struct tn_virtio_blk *b = (struct tn_virtio_blk *)ctx;

    if (off == 32 && width == 1 && value <= 1 &&
        tn_virtio_has(&b->virtio, TN_VIRTIO_BLK_F_CONFIG_WCE))
        b->config[32] = (uint8_t)value;
}

static const struct tn_virtio_ops tn_virtio_blk_ops_ = {
    tn_virtio_blk_on_accept_, tn_virtio_blk_on_activate_, tn_virtio_blk_on_reset_,
    tn_virtio_blk_on_notify_, tn_virtio_blk_on_config_};

static inline uint64_t tn_virtio_blk_features_(const struct tn_virtio_blk *b)
{
    uint64_t f = TN_VIRTIO_BLK_F_SIZE_MAX | TN_VIRTIO_BLK_F_SEG_MAX | TN_VIRTIO_BLK_F_BLK_SIZE |
                 TN_VIRTIO_BLK_F_FLUSH | TN_VIRTIO_BLK_F_TOPOLOGY;

    if (b->cfg.queues > 1)
        f |= TN_VIRTIO_BLK_F_MQ;
    if (b->disk.read_only)
        return f | TN_VIRTIO_BLK_F_RO;
    if (b->disk.discard)
        f |= TN_VIRTIO_BLK_F_DISCARD;
    if (b->disk.zero)
        f |= TN_VIRTIO_BLK_F_WRITE_ZEROES;
    return f | TN_VIRTIO_BLK_F_CONFIG_WCE;
}

/* Fills in the configuration space (5.2.4). */
static inline void tn_virtio_blk_config_(struct tn_virtio_blk *b)
{
    uint32_t block = b->disk.block_size, segs = b->cfg.queue_size - 2u, exp = 0;
    uint8_t *c = b->config;

    while (block << exp < b->disk.physical_block)
        exp++;
    tn_put_(c, 8, b->disk.size / TN_DISK_SECTOR);
    tn_put_(c + 8, 4, TN_VIRTIO_BLK_SIZE_MAX);
    tn_put_(c + 12, 4, segs < TN_VIRTIO_BLK_SEGS ? segs : TN_VIRTIO_BLK_SEGS);
    tn_put_(c + 20, 4, block);
    c[24] = (uint8_t)exp;
    tn_put_(c + 26, 2, b->disk.physical_block / block);
    tn_put_(c + 28, 4, b->disk.optimal / block);
    c[32] = 1;
    tn_put_(c + 34, 2, b->cfg.queues);
    if (b->disk.discard) {
        tn_put_(c + 36, 4, TN_VIRTIO_BLK_RANGE_MAX);
        tn_put_(c + 40, 4, TN_VIRTIO_BLK_RANGES);
        tn_put_(c + 44, 4, block / TN_DISK_SECTOR);
    }
    if (b->disk.zero) {
        tn_put_(c + 48, 4, TN_VIRTIO_BLK_RANGE_MAX);
        tn_put_(c + 52, 4, TN_VIRTIO_BLK_RANGES);
        c[56] = 1; /* it may unmap */
    }
}

TN_API int tn_virtio_blk_init(struct tn_virtio_blk *b, const struct tn_virtio_blk_cfg *cfg)
{
    struct tn_virtio_cfg v;

    if (!cfg->mem || !cfg->disk || !cfg->disk->ops || !tn_virtio_blk_disk_ok_(cfg->disk) ||
        !cfg->slot || cfg->slots == 0 || !cfg->wake || (cfg->rate && !cfg->now) ||
        cfg->queue_size < 4 || cfg->queues > TN_VIRTIO_MAX_QUEUES ||
        (cfg->ring_features & ~TN_VIRTIO_F_RING) != 0)
        return TN_EINVAL;
    __builtin_memset(b, 0, sizeof(*b));
    b->cfg = *cfg;
    b->disk = *cfg->disk;
    b->end = &b->finished;
    for (uint32_t i = cfg->slots; i-- > 0;) {
        struct tn_virtio_blk_slot *s = &cfg->slot[i];

        __builtin_memset(s, 0, sizeof(*s));
        s->blk = b;
        s->req.done = tn_virtio_blk_on_done_;
        s->req.ctx = s;
        tn_virtio_blk_release_slot_(b, s);
    }
    for (uint32_t i = 0; cfg->id && i < sizeof(b->id) && cfg->id[i] != '\0'; i++)
        b->id[i] = (uint8_t)cfg->id[i];
    tn_virtio_blk_config_(b);
    v.device_id = TN_VIRTIO_BLK_ID;
    v.features = cfg->ring_features | tn_virtio_blk_features_(b);
    v.queue_size = cfg->queue_size;
    v.queues = cfg->queues;
    v.queue = b->queue;
    v.mem = cfg->mem;
    v.config = b->config;
    v.config_len = sizeof(b->config);
    v.ops = &tn_virtio_blk_ops_;
    v.ctx = b;
    return tn_virtio_init(&b->virtio, &v);
}

TN_API void tn_virtio_blk_wake(struct tn_virtio_blk *b)
{
    b->limited = false;
    tn_virtio_blk_turn_(b);
}

TN_API void tn_virtio_blk_hold(struct tn_virtio_blk *b)
{
    b->busy++;
}

TN_API void tn_virtio_blk_release(struct tn_virtio_blk *b)
{
    b->busy--;
    tn_virtio_blk_turn_(b);
}

TN_API void tn_virtio_blk_quiesce(struct tn_virtio_blk *b)
{
    b->busy++;
    do {
        tn_virtio_blk_kick_(b);
        b->disk.ops->drain(b->disk.ctx);
        tn_virtio_blk_settle_(b);
    } while (b->kick);
    b->busy--;
    tn_virtio_blk_signal_(b);
}

TN_API int tn_virtio_blk_resize(struct tn_virtio_blk *b, uint64_t size)
{
    if (size % b->disk.block_size)
        return TN_EINVAL;
    b->disk.size = size;
    tn_put_(b->config, 8, size / TN_DISK_SECTOR);
    tn_virtio_config_changed(&b->virtio);
    return TN_OK;
}

TN_API void tn_virtio_blk_save(const struct tn_virtio_blk *b, struct tn_virtio_blk_state *out)
{
    out->version = TN_VIRTIO_BLK_VERSION;
    out->writeback = b->config[32];
    out->capacity = b->disk.size / TN_DISK_SECTOR;
    tn_virtio_save(&b->virtio, &out->virtio);
}

/*@ predicate tn_virtio_blk_idle(struct tn_virtq_state *q) =
      q->started != 1 || q->error != 0 || q->next_avail == q->next_used; */

/* Whether all is so after tn_virtio_blk_quiesce: nothing under way would ever be answered (E06). */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result <==> s->writeback <= 1 && \forall integer i; 0 <= i < TN_VIRTIO_MAX_QUEUES ==>
      tn_virtio_blk_idle(&s->virtio.queue[i].ring); */
static inline bool tn_virtio_blk_valid_(const struct tn_virtio_blk_state *s)
{
    if (s->writeback > 1)
        return false;
    /*@ loop invariant i <= TN_VIRTIO_MAX_QUEUES;
        loop invariant \forall integer k; 0 <= k < i ==>
          tn_virtio_blk_idle(&s->virtio.queue[k].ring);
        loop assigns i;
        loop variant TN_VIRTIO_MAX_QUEUES - i; */
    for (uint32_t i = 0; i < TN_VIRTIO_MAX_QUEUES; i++) {
        const struct tn_virtq_state *ring = &s->virtio.queue[i].ring;

        if (ring->started == 1 && ring->error == TN_OK && ring->next_avail != ring->next_used)
            return false;
    }
    return true;
}

TN_API int tn_virtio_blk_restore(struct tn_virtio_blk *b, const struct tn_virtio_blk_state *from)
{
    struct tn_virtio_blk_state copy = *from;
    uint8_t writeback = b->config[32];
    int r;

    if (copy.version != TN_VIRTIO_BLK_VERSION || copy.capacity != b->disk.size / TN_DISK_SECTOR)
        return TN_EUNSUP;
    if (!tn_virtio_blk_valid_(&copy))
        return TN_EFORMAT;
    tn_virtio_blk_quiesce(b);
    r = tn_virtio_restore(&b->virtio, &copy.virtio);
    if (r < 0) {
        b->config[32] = writeback; /* a state's features may have been accepted */
        if (tn_virtio_status_read(&b->virtio) == 0)
            tn_virtio_blk_on_reset_(b);
        return r;
    }
    b->config[32] = (uint8_t)copy.writeback;
    b->work = tn_virtio_blk_all_(b);
    b->signal = b->work; /* of what was pushed before the save */
    b->first = 0;
    b->limited = false;
    return TN_OK;
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VIRTIO_BLK_H */
