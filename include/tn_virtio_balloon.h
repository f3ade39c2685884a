/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_virtio_balloon - a virtio memory balloon: the guest's free pages go back to the host.
 *
 * WHAT
 *   The guest gives pages into a balloon of the size that the host asks for, and takes them back;
 *   it reports pages that are free just now; it says how its memory is used; and it hints at what a
 *   snapshot need not hold. All of these end in functions of the caller's with checked ranges of
 *   guest RAM.
 *
 * USAGE
 *   static int discard(void *ctx, uint64_t gpa, uint64_t len, bool zero)
 *   {
 *       (void)zero;
 *       __builtin_memset((uint8_t *)ctx + gpa, 0, len);
 *       return 0;
 *   }
 *   static void again(void *ctx)
 *   {
 *       (void)ctx;
 *   }
 *   ---
 *   static uint8_t ram[1u << 16];
 *   static struct tn_virtio_balloon balloon;
 *   struct tn_mem_region table[1];
 *   struct tn_mem mem;
 *   struct tn_virtio_balloon_stats stats;
 *   struct tn_virtio_balloon_cfg cfg = {&mem, 64, TN_VIRTIO_F_RING, TN_VIRTIO_BALLOON_F_STATS_VQ,
 *                                       0,    ram, discard, NULL, NULL, NULL, again};
 *
 *   tn_mem_init(&mem, table, 1);
 *   if (tn_mem_add(&mem, 0, ram, sizeof(ram)) < 0 || tn_virtio_balloon_init(&balloon, &cfg) < 0)
 *       return 1;
 *   if (tn_virtio_balloon_resize(&balloon, 4) < 0)
 *       return 2;
 *   if (tn_virtio_balloon_stats_ask(&balloon) == 0)
 *       tn_virtio_balloon_stats_read(&balloon, &stats);
 *   if (tn_virtio_balloon_turn(&balloon))
 *       return 3;
 *
 * COMPOSITION
 *   A transport serves balloon.virtio. again asks for tn_virtio_balloon_turn in the next turn of
 *   the event loop. No callback may call anything here.
 *
 *   What discard must leave behind. With zero, each byte of the range is afterwards 0 or what it
 *   was before: the guest counts on freed pages being zero (PAGE_POISON with a poison_val of 0).
 *   Without, the guest takes any bytes, and so a copy-on-write view may show again what it was made
 *   from, which takes neither memory nor another mapping. In both cases the host addresses stay
 *   mapped all the time, since the rings and requests under way may be in the range. On Linux:
 *     anonymous memory      MADV_DONTNEED: zeros
 *     a shared memfd        MADV_REMOVE: zeros, in all its mappings
 *     a private file view   MADV_DONTNEED brings the file's bytes back; with zero leave it alone,
 *                           and return an error
 *     a userfaultfd's       the same: a dropped page is fetched again
 *     larger host pages     only those that lie whole in the range; the rest stays as it is
 *   which is what tn_hostmem_zero and tn_hostmem_discard do, the range cut to whole pages of the
 *   host's first. The range is marked dirty in mem here, after discard.
 *
 *   A hint promises less: the guest may use and write a hinted page at any time, also before hint
 *   is called. Only one that it has not written since tn_virtio_balloon_hint_start may be left out
 *   of a snapshot. So: start the dirty log, note which pages to save, hint_start; take out of the
 *   note what hint is called with; at the pause put back what the dirty log has; save; hint_done.
 *   Nothing may be discarded for a hint.
 *
 *   Before tn_virtio_balloon_save: nothing. A chain served in part is in its ring, as is the
 *   buffer for the next statistics. A fork needs nothing either.
 *
 * GUEST TRUST
 *   The rings, all page numbers, ranges and statistics, actual, poison_val and a saved state may be
 *   hostile. The callbacks get whole pages of 4 KiB inside one region of RAM. Page numbers that are
 *   no RAM are passed over and counted. A queue's turn ends after TN_VIRTIO_BALLOON_TURN; the rest
 *   of a chain, GiBs of page numbers maybe, waits for the next. A guest may inflate pages that it
 *   uses, rings included, and may use pages in the balloon: nobody but itself is harmed, and
 *   nothing here shows how much memory the host got back. Buffers of the direction that a queue has
 *   no use for are passed over; a broken ring sets DEVICE_NEEDS_RESET.
 *
 * MEMORY
 *   struct tn_virtio_balloon is all there is. It holds pointers into itself: it stays where it is.
 *
 * THREADS
 *   One call at a time on one struct, the transport's calls among them. Callbacks run inside them.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Virtual I/O Device (VIRTIO) 1.2, section 5.5: all of it but the legacy interface. 5.5.2 gives
 *   each queue a number of its own; Linux counts only the queues that it uses, so that reporting_vq
 *   may be its queue 2. Both work: a driver that enables a queue which it negotiated no feature for
 *   is one that counts.
 *
 * LIMITS
 *   Pages of 4 KiB below 16 TiB can be inflated, as the interface has it. Linux reports free pages
 *   only to queues of 32 descriptors or more; with pages that it initialises, only where
 *   PAGE_POISON is offered too. Statistics of tags from TN_VIRTIO_BALLOON_STATS on are not kept. A
 *   chain whose buffers cross more borders of RAM regions than TN_VIRTIO_BALLOON_QUEUE_MAX counts
 *   as a broken ring.
 */
#ifndef TN_VIRTIO_BALLOON_H
#define TN_VIRTIO_BALLOON_H

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

#include "tn_iov.h"
#include "tn_mem.h"
#include "tn_virtio.h"
#include "tn_virtq.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_VIRTIO_BALLOON_ID        5u
#define TN_VIRTIO_BALLOON_PAGE      4096u /* bytes; whatever the guest's pages are (5.5.6) */
#define TN_VIRTIO_BALLOON_QUEUES    5u
#define TN_VIRTIO_BALLOON_QUEUE_MAX 128u   /* descriptors of a queue */
#define TN_VIRTIO_BALLOON_CONFIG    16u    /* bytes of configuration space (5.5.4) */
#define TN_VIRTIO_BALLOON_TURN      16384u /* pages of one queue before others' turn */
#define TN_VIRTIO_BALLOON_CALL      16u    /* pages that a page number, a range count more */
#define TN_VIRTIO_BALLOON_STATS     16u    /* tags of statistics that are kept */
#define TN_VIRTIO_BALLOON_ENTRIES   64u    /* statistics of a buffer that are looked at */
#define TN_VIRTIO_BALLOON_VERSION   1      /* of struct tn_virtio_balloon_state */

/* Queues (5.5.2); in struct tn_virtio_balloon each has this number, whatever the driver's is. */
#define TN_VIRTIO_BALLOON_INFLATE   0u
#define TN_VIRTIO_BALLOON_DEFLATE   1u
#define TN_VIRTIO_BALLOON_STATSQ    2u
#define TN_VIRTIO_BALLOON_FREE_PAGE 3u
#define TN_VIRTIO_BALLOON_REPORTING 4u

/* Feature bits (5.5.3). */
#define TN_VIRTIO_BALLOON_F_MUST_TELL_HOST (1ull << 0)
#define TN_VIRTIO_BALLOON_F_STATS_VQ       (1ull << 1)
#define TN_VIRTIO_BALLOON_F_DEFLATE_ON_OOM (1ull << 2)
#define TN_VIRTIO_BALLOON_F_FREE_PAGE_HINT (1ull << 3)
#define TN_VIRTIO_BALLOON_F_PAGE_POISON    (1ull << 4)
#define TN_VIRTIO_BALLOON_F_PAGE_REPORTING (1ull << 5)
#define TN_VIRTIO_BALLOON_F_ALL            0x3full

/* Tags of statistics (5.5.6.4, and those that Linux has beyond). Bytes, or events since boot. */
#define TN_VIRTIO_BALLOON_S_SWAP_IN        0u
#define TN_VIRTIO_BALLOON_S_SWAP_OUT       1u
#define TN_VIRTIO_BALLOON_S_MAJFLT         2u
#define TN_VIRTIO_BALLOON_S_MINFLT         3u
#define TN_VIRTIO_BALLOON_S_MEMFREE        4u
#define TN_VIRTIO_BALLOON_S_MEMTOT         5u
#define TN_VIRTIO_BALLOON_S_AVAIL          6u
#define TN_VIRTIO_BALLOON_S_CACHES         7u
#define TN_VIRTIO_BALLOON_S_HTLB_PGALLOC   8u
#define TN_VIRTIO_BALLOON_S_HTLB_PGFAIL    9u
#define TN_VIRTIO_BALLOON_S_OOM_KILL       10u
#define TN_VIRTIO_BALLOON_S_ALLOC_STALL    11u
#define TN_VIRTIO_BALLOON_S_ASYNC_SCAN     12u
#define TN_VIRTIO_BALLOON_S_DIRECT_SCAN    13u
#define TN_VIRTIO_BALLOON_S_ASYNC_RECLAIM  14u
#define TN_VIRTIO_BALLOON_S_DIRECT_RECLAIM 15u

/* Reserved values of free_page_hint_cmd_id (5.5.6.5). */
#define TN_VIRTIO_BALLOON_CMD_ID_STOP 0u
#define TN_VIRTIO_BALLOON_CMD_ID_DONE 1u

/* How far a run of free page hinting is. */
enum tn_virtio_balloon_run {
    TN_VIRTIO_BALLOON_RUN_NONE = 0, /* none was started, or it was stopped, or is done */
    TN_VIRTIO_BALLOON_RUN_ASKED,    /* started; the driver has not answered yet */
    TN_VIRTIO_BALLOON_RUN_OPEN,     /* its hints reach the caller */
    TN_VIRTIO_BALLOON_RUN_OVER      /* the driver has no more of them */
};

/* What cfg.event tells of, bits. */
#define TN_VIRTIO_BALLOON_E_ACTUAL 1u /* the driver wrote actual */
#define TN_VIRTIO_BALLOON_E_STATS  2u /* statistics have come */
#define TN_VIRTIO_BALLOON_E_HINT   4u /* the run of hinting is OPEN, or OVER */

struct tn_virtio_balloon_cfg {
    const struct tn_mem *mem; /* the guest's RAM; outlives the device */
    uint16_t queue_size;      /* a power of two up to TN_VIRTIO_BALLOON_QUEUE_MAX */
    uint64_t ring_features;   /* those of TN_VIRTIO_F_RING to offer */
    uint64_t features;        /* those of TN_VIRTIO_BALLOON_F_ALL to offer */
    uint32_t num_pages;       /* the balloon's size at first */
    void *ctx;
    /*
     * The guest does without len bytes at gpa, whole pages inside one region of mem. zero: they
     * must be 0 or as they were afterwards; see COMPOSITION. < 0: it failed, they are as they were,
     * or zero.
     */
    int (*discard)(void *ctx, uint64_t gpa, uint64_t len, bool zero);
    /*
     * The guest will use such a range again; it waits for that with MUST_TELL_HOST, which a driver
     * has to accept if it is offered. < 0: it failed, as the guest may find out. May be NULL.
     */
    int (*undiscard)(void *ctx, uint64_t gpa, uint64_t len);
    /* Such a range was free at some time since hint_start. NULL: FREE_PAGE_HINT is not offered. */
    void (*hint)(void *ctx, uint64_t gpa, uint64_t len);
    /* Something is new, bits TN_VIRTIO_BALLOON_E_*. May be NULL. */
    void (*event)(void *ctx, uint32_t what);
    /* More waits than one turn may take: call tn_virtio_balloon_turn, after others had theirs. */
    void (*again)(void *ctx);
};

/* The latest statistics, as the driver gave them. */
struct tn_virtio_balloon_stats {
    uint32_t given; /* bit n: value[n] was given, else it is 0 */
    uint64_t value[TN_VIRTIO_BALLOON_STATS];
};

/* Read-only to callers, except through the functions. */
struct tn_virtio_balloon {
    struct tn_virtio virtio;
    struct tn_virtio_queue queue[TN_VIRTIO_BALLOON_QUEUES];
    struct tn_virtio_balloon_cfg cfg;
    uint8_t config[TN_VIRTIO_BALLOON_CONFIG];
    uint32_t off[TN_VIRTIO_BALLOON_QUEUES];   /* bytes of the chain at the head that are served */
    uint32_t index[TN_VIRTIO_BALLOON_QUEUES]; /* the driver's number of each queue */
    bool waiting;                             /* a queue's turn ended before its work */
    bool held;         /* the buffer for the next statistics is at the head of the statsq */
    uint8_t run;       /* enum tn_virtio_balloon_run */
    uint32_t next_id;  /* free_page_hint_cmd_id of the next run */
    uint64_t inflated; /* pages discarded since init: of the balloon, */
    uint64_t reported; /* and of reports */
    uint64_t failed;   /* pages that discard or undiscard failed for */
    uint64_t foreign;  /* page numbers that were no RAM */
    struct tn_virtio_balloon_stats stats;
};

struct tn_virtio_balloon_state {
    uint32_t version; /* TN_VIRTIO_BALLOON_VERSION */
    uint32_t num_pages;
    uint32_t actual;
    uint32_t free_page_hint_cmd_id;
    uint32_t poison_val;
    uint32_t next_id;
    uint32_t run;
    uint32_t off[TN_VIRTIO_BALLOON_QUEUES];
    struct tn_virtio_state virtio;
};

/*
 * Makes a device that was just reset. Returns 0; TN_EINVAL when mem, discard or again is missing,
 * or hint beside FREE_PAGE_HINT, for more num_pages than RAM has, a queue size or features outside
 * the limits.
 */
TN_API int tn_virtio_balloon_init(struct tn_virtio_balloon *b,
                                  const struct tn_virtio_balloon_cfg *cfg);

/*
 * The balloon's size is to be so many pages of 4 KiB: tells the driver, which follows as far and as
 * fast as it likes. Returns 0, or TN_EINVAL for more than RAM has.
 */
TN_API int tn_virtio_balloon_resize(struct tn_virtio_balloon *b, uint32_t pages);

/*
 * The pages that the driver says are in the balloon; no more than RAM has. It may be a lie.
 */
TN_API uint32_t tn_virtio_balloon_actual(const struct tn_virtio_balloon *b);

/*
 * Serves all queues, one turn each: again asked for it, or the device was restored. Returns 1 while
 * more waits, and again was called; else 0.
 */
TN_API int tn_virtio_balloon_turn(struct tn_virtio_balloon *b);

/*
 * Asks the driver for new statistics; cfg.event says when they have come. Returns 0; TN_ESTATE
 * without a driver that has STATS_VQ; TN_EAGAIN while the driver has not answered before.
 */
TN_API int tn_virtio_balloon_stats_ask(struct tn_virtio_balloon *b);

/*
 * The latest statistics since the last reset of the device; none after a restore until turn.
 */
TN_API void tn_virtio_balloon_stats_read(const struct tn_virtio_balloon *b,
                                         struct tn_virtio_balloon_stats *out);

/*
 * Starts a run of free page hinting, in place of one that runs: a new free_page_hint_cmd_id.
 * Returns 0, or TN_ESTATE without a driver that has FREE_PAGE_HINT.
 */
TN_API int tn_virtio_balloon_hint_start(struct tn_virtio_balloon *b);

/*
 * Ends it: no hint reaches the caller from now on. After stop the driver keeps the pages that it
 * has hinted at, until the next run is done; after done it uses them. Nothing without a driver that
 * has FREE_PAGE_HINT.
 */
TN_API void tn_virtio_balloon_hint_stop(struct tn_virtio_balloon *b);
TN_API void tn_virtio_balloon_hint_done(struct tn_virtio_balloon *b);

/*
 * Copies the state out. Statistics are not in it: the driver's buffer is read again.
 */
TN_API void tn_virtio_balloon_save(const struct tn_virtio_balloon *b,
                                   struct tn_virtio_balloon_state *out);

/*
 * Takes a saved state over; then call tn_virtio_balloon_turn, tn_virtio_balloon_resize with the
 * size of today, and tn_virtio_balloon_hint_done unless somebody goes on with the run. Returns 0;
 * TN_EUNSUP for another version, TN_EFORMAT for a state that no balloon can be in (b is unchanged),
 * and the errors of tn_virtio_restore.
 */
TN_API int tn_virtio_balloon_restore(struct tn_virtio_balloon *b,
                                     const struct tn_virtio_balloon_state *from);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#define TN_VIRTIO_BALLOON_IOV_  (2 * TN_VIRTIO_BALLOON_QUEUE_MAX)
#define TN_VIRTIO_BALLOON_PFNS_ 256u        /* page numbers that are copied at once */
#define TN_VIRTIO_BALLOON_CUT_  512u        /* pages: a long range is cut at multiples of 2 MiB */
#define TN_VIRTIO_BALLOON_NONE_ 0xffffffffu /* a queue that there is not */
#define TN_VIRTIO_BALLOON_STAT_ 10u         /* bytes of one statistic (5.5.6.3) */
#define TN_VIRTIO_BALLOON_ID_0_ 0x80000000u /* the first free_page_hint_cmd_id */

/* Where the fields of struct virtio_balloon_config are (5.5.4). */
#define TN_VIRTIO_BALLOON_AT_NUM_PAGES_ 0u
#define TN_VIRTIO_BALLOON_AT_ACTUAL_    4u
#define TN_VIRTIO_BALLOON_AT_CMD_ID_    8u
#define TN_VIRTIO_BALLOON_AT_POISON_    12u

/* Some pages of RAM that follow each other; len 0: none. */
struct tn_virtio_balloon_range_ {
    uint64_t gpa;
    uint64_t len;
};

/*@ predicate tn_virtio_balloon_whole(struct tn_mem *m, integer gpa, integer len) =
      len > 0 && gpa % 4096 == 0 && len % 4096 == 0 &&
      \exists integer i; tn_mem_in(m, i, gpa, len); */

/* Where a page of the guest is. False: it is not RAM, or not whole in one region. */
/*@ requires \valid_read(m) && tn_mem_ok((struct tn_mem *)m) && \valid(gpa);
    requires \separated(gpa, m, m->region + (0 .. m->cap - 1));
    assigns *gpa;
    ensures *gpa == pfn * 4096;
    ensures \result ==> tn_virtio_balloon_whole((struct tn_mem *)m, *gpa, 4096);
    ensures !\result ==> \forall integer i; !tn_mem_in((struct tn_mem *)m, i, *gpa, 4096); */
static inline bool tn_virtio_balloon_page_(const struct tn_mem *m, uint32_t pfn, uint64_t *gpa)
{
    *gpa = (uint64_t)pfn * TN_VIRTIO_BALLOON_PAGE;
    return tn_mem_ptr(m, *gpa, TN_VIRTIO_BALLOON_PAGE) != NULL;
}

/* Joins a page to a range that it touches, on either side, or lies in already. False: neither. */
/*@ requires \valid(r) && r->gpa <= TN_MEM_LIMIT && r->len <= TN_MEM_LIMIT && r->len > 0;
    requires r->gpa % 4096 == 0 && r->len % 4096 == 0 && gpa % 4096 == 0 && gpa <= TN_MEM_LIMIT;
    assigns *r;
    ensures \result <==> \old(r->gpa) <= gpa + 4096 && gpa <= \old(r->gpa) + \old(r->len);
    ensures !\result ==> r->gpa == \old(r->gpa) && r->len == \old(r->len);
    ensures \result ==> r->gpa == \min(\old(r->gpa), gpa) &&
      r->gpa + r->len == \max(\old(r->gpa) + \old(r->len), gpa + 4096);
    ensures r->gpa % 4096 == 0 && r->len % 4096 == 0; */
static inline bool tn_virtio_balloon_join_(struct tn_virtio_balloon_range_ *r, uint64_t gpa)
{
    if (gpa < r->gpa) {
        if (r->gpa - gpa > TN_VIRTIO_BALLOON_PAGE)
            return false;
        r->gpa = gpa;
        r->len += TN_VIRTIO_BALLOON_PAGE;
        return true;
    }
    if (gpa - r->gpa > r->len)
        return false;
    if (gpa - r->gpa == r->len)
        r->len += TN_VIRTIO_BALLOON_PAGE;
    return true;
}

/* The same, where both lie in one region; into an empty range always. */
/*@ requires \valid_read(m) && tn_mem_ok((struct tn_mem *)m) && \valid(r);
    requires \separated(r, m, m->region + (0 .. m->cap - 1));
    requires r->len == 0 || tn_virtio_balloon_whole((struct tn_mem *)m, r->gpa, r->len);
    requires tn_virtio_balloon_whole((struct tn_mem *)m, gpa, 4096);
    assigns *r;
    ensures \result ==> \let first = r->gpa; \let bytes = r->len;
      \at(tn_virtio_balloon_whole((struct tn_mem *)m, first, bytes), Pre);
    ensures \result ==> r->gpa <= gpa && gpa + 4096 <= r->gpa + r->len;
    ensures \result && \old(r->len) > 0 ==> r->gpa == \min(\old(r->gpa), gpa) &&
      r->gpa + r->len == \max(\old(r->gpa) + \old(r->len), gpa + 4096);
    ensures !\result ==> r->gpa == \old(r->gpa) && r->len == \old(r->len) && r->len > 0; */
static inline bool tn_virtio_balloon_add_(const struct tn_mem *m,
                                          struct tn_virtio_balloon_range_ *r, uint64_t gpa)
{
    struct tn_virtio_balloon_range_ next = *r;

    if (next.len == 0) {
        next.gpa = gpa;
        next.len = TN_VIRTIO_BALLOON_PAGE;
    } else if (!tn_virtio_balloon_join_(&next, gpa) || !tn_mem_ptr(m, next.gpa, next.len)) {
        return false;
    }
    /*@ assert one: tn_virtio_balloon_whole((struct tn_mem *)m, next.gpa, next.len); */
    r->gpa = next.gpa;
    r->len = next.len;
    return true;
}

/* How many whole pages lie in [gpa, gpa + len), and how many bytes before the first of them. */
/*@ requires gpa <= TN_MEM_LIMIT && \valid(head);
    assigns *head;
    ensures *head < 4096 && (gpa + *head) % 4096 == 0;
    ensures \result > 0 ==> *head + \result * 4096 <= len;
    ensures len < *head + (\result + 1) * 4096; */
static inline uint64_t tn_virtio_balloon_inner_(uint64_t gpa, uint64_t len, uint64_t *head)
{
    uint64_t over = gpa % TN_VIRTIO_BALLOON_PAGE;

    *head = over > 0 ? TN_VIRTIO_BALLOON_PAGE - over : 0;
    return len > *head ? (len - *head) / TN_VIRTIO_BALLOON_PAGE : 0;
}

/*
 * How many of a range's pages, the first of number first, are served when left is what the turn
 * has: all of them, else up to a multiple of 2 MiB, so that a huge page stays whole; 0: none now.
 */
/*@ requires first <= TN_MEM_LIMIT;
    assigns \nothing;
    ensures \result <= pages && \result <= left;
    ensures \result == pages || \result == 0 || (first + \result) % 512 == 0;
    ensures pages > 0 && left >= 512 ==> \result > 0; */
static inline uint32_t tn_virtio_balloon_take_(uint64_t first, uint64_t pages, uint32_t left)
{
    uint32_t beyond;

    if (pages <= left)
        return (uint32_t)pages;
    beyond = (uint32_t)((first + left) % TN_VIRTIO_BALLOON_CUT_);
    return left > beyond ? left - beyond : 0;
}

/*
 * The number that the driver has for a queue: its own (5.5.2), or how many of the queues before it
 * there are, if the driver counts so. ready: bit n: it enabled queue n, a thing that only the
 * latter does with a number whose feature is not negotiated.
 */
/*@ requires role < TN_VIRTIO_BALLOON_QUEUES;
    assigns \nothing;
    ensures role <= 1 ==> \result == role;
    ensures \result == TN_VIRTIO_BALLOON_NONE_ || \result <= role;
    ensures role == 2 ==> (\result == TN_VIRTIO_BALLOON_NONE_ <==> (features & 2) == 0);
    ensures role == 3 ==> (\result == TN_VIRTIO_BALLOON_NONE_ <==> (features & 8) == 0);
    ensures role == 4 ==> (\result == TN_VIRTIO_BALLOON_NONE_ <==> (features & 32) == 0);
    ensures \result != TN_VIRTIO_BALLOON_NONE_ && role > 1 ==> \result >= 2;
    ensures role == 4 && \result == 3 ==> (features & 2) == 0 || (features & 8) == 0;
    ensures role == 4 && \result == 2 ==> (features & 2) == 0 && (features & 8) == 0;
    ensures role == 3 && \result == 2 ==> (features & 2) == 0; */
static inline uint32_t tn_virtio_balloon_index_(uint64_t features, uint32_t ready, uint32_t role)
{
    bool stats = (features & TN_VIRTIO_BALLOON_F_STATS_VQ) != 0;
    bool hint = (features & TN_VIRTIO_BALLOON_F_FREE_PAGE_HINT) != 0;
    bool report = (features & TN_VIRTIO_BALLOON_F_PAGE_REPORTING) != 0;
    bool counts = (!stats && (ready & 1u << TN_VIRTIO_BALLOON_STATSQ) != 0) ||
                  (!hint && (ready & 1u << TN_VIRTIO_BALLOON_FREE_PAGE) != 0);

    if ((role == TN_VIRTIO_BALLOON_STATSQ && !stats) ||
        (role == TN_VIRTIO_BALLOON_FREE_PAGE && !hint) ||
        (role == TN_VIRTIO_BALLOON_REPORTING && !report))
        return TN_VIRTIO_BALLOON_NONE_;
    if (counts && role > TN_VIRTIO_BALLOON_FREE_PAGE && !hint)
        role--;
    if (counts && role > TN_VIRTIO_BALLOON_STATSQ && !stats)
        role--;
    return role;
}

/* What a run of hinting is after the driver sent id; current is the device's. */
/*@ requires run <= TN_VIRTIO_BALLOON_RUN_OVER;
    assigns \nothing;
    ensures \result == TN_VIRTIO_BALLOON_RUN_OPEN <==>
      run != TN_VIRTIO_BALLOON_RUN_NONE && id == current && id >= 2;
    ensures run == TN_VIRTIO_BALLOON_RUN_NONE <==> \result == TN_VIRTIO_BALLOON_RUN_NONE;
    ensures \result <= TN_VIRTIO_BALLOON_RUN_OVER; */
static inline uint8_t tn_virtio_balloon_answer_(uint8_t run, uint32_t id, uint32_t current)
{
    if (run == TN_VIRTIO_BALLOON_RUN_NONE)
        return run;
    if (id == current && id > TN_VIRTIO_BALLOON_CMD_ID_DONE)
        return TN_VIRTIO_BALLOON_RUN_OPEN;
    if (run != TN_VIRTIO_BALLOON_RUN_OPEN)
        return run; /* the end of an earlier run */
    return id == TN_VIRTIO_BALLOON_CMD_ID_STOP ? TN_VIRTIO_BALLOON_RUN_OVER
                                               : TN_VIRTIO_BALLOON_RUN_ASKED;
}

/* The command id after id: never a reserved one. */
/*@ assigns \nothing;
    ensures \result >= 2;
    ensures id >= 1 && id != UINT32_MAX ==> \result == id + 1; */
static inline uint32_t tn_virtio_balloon_id_after_(uint32_t id)
{
    return id > TN_VIRTIO_BALLOON_CMD_ID_STOP && id < UINT32_MAX ? id + 1 : TN_VIRTIO_BALLOON_ID_0_;
}

/* Reads n statistics; those of unknown tags are passed over, the last one of a tag counts. */
/*@ requires n <= TN_VIRTIO_BALLOON_ENTRIES && \valid_read(p + (0 .. 10 * n - 1)) && \valid(out);
    requires \separated(out, p + (0 .. 10 * n - 1));
    assigns *out;
    ensures out->given < 65536;
    ensures n == 0 ==> out->given == 0 && \forall integer k; 0 <= k < 16 ==> out->value[k] == 0; */
static inline void tn_virtio_balloon_parse_(const uint8_t *p, uint32_t n,
                                            struct tn_virtio_balloon_stats *out)
{
    uint32_t tag, i;
    uint16_t bits = 0; /* of TN_VIRTIO_BALLOON_STATS */

    /*@ loop invariant 0 <= i <= 16 && \forall integer k; 0 <= k < i ==> out->value[k] == 0;
        loop assigns i, out->value[0 .. 15];
        loop variant 16 - i; */
    for (i = 0; i < TN_VIRTIO_BALLOON_STATS; i++)
        out->value[i] = 0;
    /*@ loop invariant 0 <= i <= n && (i == 0 ==> bits == 0 &&
          \forall integer k; 0 <= k < 16 ==> out->value[k] == 0);
        loop assigns i, tag, bits, out->value[0 .. 15];
        loop variant n - i; */
    for (i = 0; i < n; i++) {
        tag = (uint32_t)tn_get_(p + i * TN_VIRTIO_BALLOON_STAT_, 2);
        if (tag >= TN_VIRTIO_BALLOON_STATS)
            continue;
        bits = (uint16_t)(bits | 0x8000u >> (15 - tag));
        out->value[tag] = tn_get_(p + i * TN_VIRTIO_BALLOON_STAT_ + 2, 8);
    }
    out->given = bits;
}

/* RAM in pages, as far as 32 bits can say. */
static inline uint32_t tn_virtio_balloon_ram_(const struct tn_mem *m)
{
    uint64_t pages = 0;

    for (uint32_t i = 0; i < m->count && pages < UINT32_MAX; i++)
        pages += m->region[i].size / TN_VIRTIO_BALLOON_PAGE;
    return pages < UINT32_MAX ? (uint32_t)pages : UINT32_MAX;
}

/* Where the guest sees len bytes of this process. False: it does not. */
static inline bool tn_virtio_balloon_gpa_(const struct tn_mem *m, const uint8_t *host, uint64_t len,
                                          uint64_t *gpa)
{
    for (uint32_t i = 0; i < m->count; i++) {
        const struct tn_mem_region *r = &m->region[i];
        uint64_t at = (uint64_t)((uintptr_t)host - (uintptr_t)r->host);

        if (at < r->size && len <= r->size - at) {
            *gpa = r->gpa + at;
            return true;
        }
    }
    *gpa = 0;
    return false;
}

static inline uint32_t tn_virtio_balloon_get_(const struct tn_virtio_balloon *b, uint32_t field)
{
    return (uint32_t)tn_get_(b->config + field, 4);
}

static inline void tn_virtio_balloon_tell_(struct tn_virtio_balloon *b, uint32_t what)
{
    if (b->cfg.event)
        b->cfg.event(b->cfg.ctx, what);
}

/* Finds the queues of a driver that has enabled them. */
static inline void tn_virtio_balloon_map_(struct tn_virtio_balloon *b)
{
    uint32_t ready = 0, i;

    for (i = 0; i < TN_VIRTIO_BALLOON_QUEUES; i++)
        ready |= (uint32_t)b->queue[i].ready << i;
    for (i = 0; i < TN_VIRTIO_BALLOON_QUEUES; i++)
        b->index[i] = tn_virtio_balloon_index_(b->virtio.features, ready, i);
}

/* The ring of a queue; NULL unless the device runs and there is one. */
static inline struct tn_virtq *tn_virtio_balloon_queue_(struct tn_virtio_balloon *b, uint32_t role)
{
    if (!tn_virtio_live(&b->virtio) || b->index[role] >= TN_VIRTIO_BALLOON_QUEUES)
        return NULL;
    return &b->queue[b->index[role]].q;
}

/* Nothing will go on where it was. */
static inline void tn_virtio_balloon_forget_(struct tn_virtio_balloon *b)
{
    __builtin_memset(b->off, 0, sizeof(b->off));
    b->waiting = false;
    b->held = false;
}

/* The driver broke a queue's rules. One that it has not enabled is no such case. */
static inline void tn_virtio_balloon_broken_(struct tn_virtio_balloon *b, int err)
{
    if (err == TN_ESTATE)
        return;
    tn_virtio_balloon_forget_(b);
    tn_virtio_needs_reset(&b->virtio);
}

static inline void tn_virtio_balloon_discard_(struct tn_virtio_balloon *b, uint64_t gpa,
                                              uint64_t len, bool zero, uint64_t *count)
{
    if (b->cfg.discard(b->cfg.ctx, gpa, len, zero) < 0)
        b->failed += len / TN_VIRTIO_BALLOON_PAGE;
    else
        *count += len / TN_VIRTIO_BALLOON_PAGE;
    tn_mem_mark(b->cfg.mem, gpa, len);
}

/* Hands a range of the inflateq or the deflateq over, and empties it. */
static inline void tn_virtio_balloon_flush_(struct tn_virtio_balloon *b, uint32_t role,
                                            struct tn_virtio_balloon_range_ *r)
{
    if (r->len == 0)
        return;
    if (role == TN_VIRTIO_BALLOON_INFLATE)
        tn_virtio_balloon_discard_(b, r->gpa, r->len, false, &b->inflated);
    else if (b->cfg.undiscard(b->cfg.ctx, r->gpa, r->len) < 0)
        b->failed += r->len / TN_VIRTIO_BALLOON_PAGE;
    r->len = 0;
}

/*
 * Serves the page numbers of a chain from byte off on, as long as *left lasts. Returns how far it
 * got: readable_len when all was done.
 */
static inline uint32_t tn_virtio_balloon_pages_(struct tn_virtio_balloon *b, uint32_t role,
                                                const struct tn_virtq_chain *chain, uint32_t off,
                                                uint32_t *left)
{
    uint8_t copy[4 * TN_VIRTIO_BALLOON_PFNS_];
    struct tn_virtio_balloon_range_ run = {0, 0};
    uint32_t n, share;
    uint64_t gpa;

    if (role == TN_VIRTIO_BALLOON_DEFLATE && !b->cfg.undiscard)
        return chain->readable_len;
    /* When the chain was left in the ring the driver may have made it shorter. */
    while (*left > TN_VIRTIO_BALLOON_CALL && off < chain->readable_len) {
        share = *left / (TN_VIRTIO_BALLOON_CALL + 1);
        share = share < TN_VIRTIO_BALLOON_PFNS_ ? share : TN_VIRTIO_BALLOON_PFNS_;
        n = (uint32_t)tn_iov_gather(chain->iov, chain->readable, off, copy, 4 * share) / 4;
        for (uint32_t i = 0; i < n; i++) {
            if (!tn_virtio_balloon_page_(b->cfg.mem, (uint32_t)tn_get_(copy + 4 * i, 4), &gpa)) {
                b->foreign++;
                continue;
            }
            if (!tn_virtio_balloon_add_(b->cfg.mem, &run, gpa)) {
                tn_virtio_balloon_flush_(b, role, &run);
                (void)tn_virtio_balloon_add_(b->cfg.mem, &run, gpa);
            }
        }
        *left -= n * (TN_VIRTIO_BALLOON_CALL + 1);
        off = n < share ? chain->readable_len : off + 4 * n; /* a part of a number is no number */
    }
    tn_virtio_balloon_flush_(b, role, &run);
    return off;
}

/* What is done with a free range of the guest's; *report counts pages. */
static inline void tn_virtio_balloon_free_(struct tn_virtio_balloon *b, uint32_t role, uint64_t gpa,
                                           uint64_t len)
{
    if (role == TN_VIRTIO_BALLOON_FREE_PAGE)
        b->cfg.hint(b->cfg.ctx, gpa, len);
    else
        tn_virtio_balloon_discard_(
            b, gpa, len, tn_virtio_has(&b->virtio, TN_VIRTIO_BALLOON_F_PAGE_POISON), &b->reported);
}

/* As tn_virtio_balloon_pages_, of the ranges that the writable part of a chain is. */
static inline uint32_t tn_virtio_balloon_ranges_(struct tn_virtio_balloon *b, uint32_t role,
                                                 const struct tn_virtq_chain *chain, uint32_t off,
                                                 uint32_t *left)
{
    const struct tn_iov *iov = chain->iov + chain->readable;
    uint32_t at = 0, n; /* at: bytes of the iovecs before this one */
    uint64_t gpa, head, pages;

    for (uint32_t i = 0; i < chain->writable; at += (uint32_t)iov[i].len, i++) {
        uint32_t skip = off - at, len = (uint32_t)iov[i].len;

        if (skip >= len)
            continue;
        if (*left <= TN_VIRTIO_BALLOON_CALL)
            return off;
        *left -= TN_VIRTIO_BALLOON_CALL;
        pages = 0;
        if (tn_virtio_balloon_gpa_(b->cfg.mem, iov[i].base + skip, len - skip, &gpa))
            pages = tn_virtio_balloon_inner_(gpa, len - skip, &head);
        if (pages > 0) {
            n = tn_virtio_balloon_take_((gpa + head) / TN_VIRTIO_BALLOON_PAGE, pages, *left);
            if (n == 0)
                return off;
            tn_virtio_balloon_free_(b, role, gpa + head, (uint64_t)n * TN_VIRTIO_BALLOON_PAGE);
            *left -= n;
            if (n < pages)
                return off + (uint32_t)head + n * TN_VIRTIO_BALLOON_PAGE;
        }
        off = at + len;
    }
    return chain->writable_len;
}

/* Whether reported pages may change: only to poison_val, if there is one, and then only to 0. */
static inline bool tn_virtio_balloon_reports_(const struct tn_virtio_balloon *b)
{
    return !tn_virtio_has(&b->virtio, TN_VIRTIO_BALLOON_F_PAGE_POISON) ||
           tn_virtio_balloon_get_(b, TN_VIRTIO_BALLOON_AT_POISON_) == 0;
}

/* The command id in front of hints, in a chain of its own or not (5.5.6.5). */
static inline void tn_virtio_balloon_command_(struct tn_virtio_balloon *b,
                                              const struct tn_virtq_chain *chain)
{
    uint8_t copy[4];
    uint8_t was = b->run;

    if (tn_iov_gather(chain->iov, chain->readable, 0, copy, 4) < 4)
        return;
    b->run = tn_virtio_balloon_answer_(was, (uint32_t)tn_get_(copy, 4),
                                       tn_virtio_balloon_get_(b, TN_VIRTIO_BALLOON_AT_CMD_ID_));
    if (b->run != was && b->run != TN_VIRTIO_BALLOON_RUN_ASKED)
        tn_virtio_balloon_tell_(b, TN_VIRTIO_BALLOON_E_HINT);
}

/* Serves a chain from byte off on. Returns whether it is done; else *off is where to go on. */
static inline bool tn_virtio_balloon_chain_(struct tn_virtio_balloon *b, uint32_t role,
                                            const struct tn_virtq_chain *chain, uint32_t *off,
                                            uint32_t *left)
{
    if (role <= TN_VIRTIO_BALLOON_DEFLATE) {
        *off = tn_virtio_balloon_pages_(b, role, chain, *off, left);
        return *off >= chain->readable_len;
    }
    if (role == TN_VIRTIO_BALLOON_FREE_PAGE) {
        if (*off == 0)
            tn_virtio_balloon_command_(b, chain);
        if (b->run != TN_VIRTIO_BALLOON_RUN_OPEN)
            return true;
    } else if (!tn_virtio_balloon_reports_(b)) {
        return true;
    }
    *off = tn_virtio_balloon_ranges_(b, role, chain, *off, left);
    return *off >= chain->writable_len;
}

/* Serves a queue, all but the statsq, until it is empty or the turn is over: then true. */
static inline bool tn_virtio_balloon_serve_(struct tn_virtio_balloon *b, uint32_t role)
{
    struct tn_virtq *q = tn_virtio_balloon_queue_(b, role);
    struct tn_iov iov[TN_VIRTIO_BALLOON_IOV_];
    struct tn_virtq_chain chain;
    uint32_t left = TN_VIRTIO_BALLOON_TURN, chains = b->cfg.queue_size;
    bool over = false;
    int r;

    if (!q)
        return false;
    tn_virtq_notify_disable(q);
    for (;;) {
        if (chains == 0 || left <= TN_VIRTIO_BALLOON_CALL) {
            over = tn_virtq_notify_enable(q);
            break;
        }
        chains--;
        r = tn_virtq_pop(q, &chain, iov, TN_VIRTIO_BALLOON_IOV_);
        if (r < 0) {
            tn_virtio_balloon_broken_(b, r);
            break;
        }
        if (r == 0) {
            b->off[role] = 0; /* a chain that was begun is still there, unless a state lied */
            if (!tn_virtq_notify_enable(q))
                break;
            continue;
        }
        if (!tn_virtio_balloon_chain_(b, role, &chain, &b->off[role], &left)) {
            (void)tn_virtq_unpop(q, &chain);
            over = true;
            break;
        }
        b->off[role] = 0;
        (void)tn_virtq_push(q, &chain, 0);
    }
    tn_virtio_signal(&b->virtio, b->index[role]);
    return over;
}

/*
 * Reads the buffer that is to be returned for the next statistics, and leaves it in the ring.
 * Returns whether there is more to look at in the next turn.
 */
static inline bool tn_virtio_balloon_listen_(struct tn_virtio_balloon *b)
{
    struct tn_virtq *q = tn_virtio_balloon_queue_(b, TN_VIRTIO_BALLOON_STATSQ);
    uint8_t copy[TN_VIRTIO_BALLOON_STAT_ * TN_VIRTIO_BALLOON_ENTRIES];
    struct tn_iov iov[TN_VIRTIO_BALLOON_IOV_];
    struct tn_virtq_chain chain;
    uint32_t len;
    int r;

    if (!q || b->held)
        return false;
    tn_virtq_notify_disable(q);
    r = tn_virtq_pop(q, &chain, iov, TN_VIRTIO_BALLOON_IOV_);
    if (r < 0)
        tn_virtio_balloon_broken_(b, r);
    if (r <= 0)
        return r == 0 && tn_virtq_notify_enable(q);
    len = (uint32_t)tn_iov_gather(iov, chain.readable, 0, copy, sizeof(copy));
    tn_virtio_balloon_parse_(copy, len / TN_VIRTIO_BALLOON_STAT_, &b->stats);
    (void)tn_virtq_unpop(q, &chain);
    b->held = true;
    tn_virtio_balloon_tell_(b, TN_VIRTIO_BALLOON_E_STATS);
    return false;
}

static inline bool tn_virtio_balloon_any_(struct tn_virtio_balloon *b, uint32_t role)
{
    return role == TN_VIRTIO_BALLOON_STATSQ ? tn_virtio_balloon_listen_(b)
                                            : tn_virtio_balloon_serve_(b, role);
}

static inline bool tn_virtio_balloon_on_accept_(void *ctx, uint64_t features)
{
    const struct tn_virtio_balloon *b = (const struct tn_virtio_balloon *)ctx;

    return (b->cfg.features & ~features & TN_VIRTIO_BALLOON_F_MUST_TELL_HOST) == 0;
}

/* The driver may have filled the queues before it set DRIVER_OK. */
static inline int tn_virtio_balloon_on_activate_(void *ctx)
{
    struct tn_virtio_balloon *b = (struct tn_virtio_balloon *)ctx;

    tn_virtio_balloon_map_(b);
    b->waiting = true;
    b->cfg.again(b->cfg.ctx);
    return TN_OK;
}

/* What is the driver's begins anew; num_pages is not. */
static inline void tn_virtio_balloon_on_reset_(void *ctx)
{
    struct tn_virtio_balloon *b = (struct tn_virtio_balloon *)ctx;

    tn_virtio_balloon_forget_(b);
    __builtin_memset(&b->stats, 0, sizeof(b->stats));
    __builtin_memset(b->config + TN_VIRTIO_BALLOON_AT_ACTUAL_, 0,
                     TN_VIRTIO_BALLOON_CONFIG - TN_VIRTIO_BALLOON_AT_ACTUAL_);
    b->run = TN_VIRTIO_BALLOON_RUN_NONE;
}

static inline void tn_virtio_balloon_on_notify_(void *ctx, uint32_t queue)
{
    struct tn_virtio_balloon *b = (struct tn_virtio_balloon *)ctx;

    for (uint32_t role = 0; role < TN_VIRTIO_BALLOON_QUEUES; role++) {
        if (b->index[role] == queue && tn_virtio_balloon_any_(b, role)) {
            b->waiting = true;
            b->cfg.again(b->cfg.ctx);
        }
    }
}

/* Whether width bytes at off, all in the configuration space, are in the 4 of a field. */
/*@ requires off <= TN_VIRTIO_BALLOON_CONFIG && width <= 4 && field <= TN_VIRTIO_BALLOON_CONFIG;
    assigns \nothing;
    ensures \result <==> field <= off && off + width <= field + 4; */
static inline bool tn_virtio_balloon_in_(uint32_t off, unsigned width, uint32_t field)
{
    return off >= field && off + width <= field + 4;
}

static inline void tn_virtio_balloon_on_config_write_(void *ctx, uint32_t off, unsigned width,
                                                      uint32_t value)
{
    struct tn_virtio_balloon *b = (struct tn_virtio_balloon *)ctx;
    bool actual = tn_virtio_balloon_in_(off, width, TN_VIRTIO_BALLOON_AT_ACTUAL_);

    /* poison_val is given once, before DRIVER_OK (5.5.6.6.1). */
    if (!actual && (!tn_virtio_balloon_in_(off, width, TN_VIRTIO_BALLOON_AT_POISON_) ||
                    !tn_virtio_has(&b->virtio, TN_VIRTIO_BALLOON_F_PAGE_POISON) ||
                    !tn_virtio_queue_open(&b->virtio)))
        return;
    tn_put_(b->config + off, width, value);
    if (actual)
        tn_virtio_balloon_tell_(b, TN_VIRTIO_BALLOON_E_ACTUAL);
}

static const struct tn_virtio_ops tn_virtio_balloon_ops_ = {
    tn_virtio_balloon_on_accept_, tn_virtio_balloon_on_activate_, tn_virtio_balloon_on_reset_,
    tn_virtio_balloon_on_notify_, tn_virtio_balloon_on_config_write_};

TN_API int tn_virtio_balloon_init(struct tn_virtio_balloon *b,
                                  const struct tn_virtio_balloon_cfg *cfg)
{
    struct tn_virtio_cfg v;

    if (!cfg->mem || !cfg->discard || !cfg->again ||
        cfg->queue_size > TN_VIRTIO_BALLOON_QUEUE_MAX ||
        (cfg->ring_features & ~TN_VIRTIO_F_RING) != 0 ||
        (cfg->features & ~TN_VIRTIO_BALLOON_F_ALL) != 0 ||
        ((cfg->features & TN_VIRTIO_BALLOON_F_FREE_PAGE_HINT) != 0 && !cfg->hint) ||
        cfg->num_pages > tn_virtio_balloon_ram_(cfg->mem))
        return TN_EINVAL;
    __builtin_memset(b, 0, sizeof(*b));
    b->cfg = *cfg;
    b->next_id = TN_VIRTIO_BALLOON_ID_0_;
    tn_put_(b->config + TN_VIRTIO_BALLOON_AT_NUM_PAGES_, 4, cfg->num_pages);
    v.device_id = TN_VIRTIO_BALLOON_ID;
    v.features = cfg->features | cfg->ring_features;
    v.queue_size = cfg->queue_size;
    v.queues = TN_VIRTIO_BALLOON_QUEUES;
    v.queue = b->queue;
    v.mem = cfg->mem;
    v.config = b->config;
    v.config_len = TN_VIRTIO_BALLOON_CONFIG;
    v.ops = &tn_virtio_balloon_ops_;
    v.ctx = b;
    return tn_virtio_init(&b->virtio, &v);
}

TN_API int tn_virtio_balloon_resize(struct tn_virtio_balloon *b, uint32_t pages)
{
    if (pages > tn_virtio_balloon_ram_(b->cfg.mem))
        return TN_EINVAL;
    if (pages == tn_virtio_balloon_get_(b, TN_VIRTIO_BALLOON_AT_NUM_PAGES_))
        return TN_OK;
    tn_put_(b->config + TN_VIRTIO_BALLOON_AT_NUM_PAGES_, 4, pages);
    tn_virtio_config_changed(&b->virtio);
    return TN_OK;
}

TN_API uint32_t tn_virtio_balloon_actual(const struct tn_virtio_balloon *b)
{
    uint32_t said = tn_virtio_balloon_get_(b, TN_VIRTIO_BALLOON_AT_ACTUAL_);
    uint32_t ram = tn_virtio_balloon_ram_(b->cfg.mem);

    return said < ram ? said : ram;
}

TN_API int tn_virtio_balloon_turn(struct tn_virtio_balloon *b)
{
    bool over = false;

    for (uint32_t role = 0; role < TN_VIRTIO_BALLOON_QUEUES; role++)
        over |= tn_virtio_balloon_any_(b, role);
    b->waiting = over && tn_virtio_live(&b->virtio);
    if (b->waiting)
        b->cfg.again(b->cfg.ctx);
    return b->waiting;
}

TN_API int tn_virtio_balloon_stats_ask(struct tn_virtio_balloon *b)
{
    struct tn_virtq *q = tn_virtio_balloon_queue_(b, TN_VIRTIO_BALLOON_STATSQ);
    struct tn_iov iov[TN_VIRTIO_BALLOON_IOV_];
    struct tn_virtq_chain chain;
    int r;

    if (!q)
        return TN_ESTATE;
    if (!b->held)
        return TN_EAGAIN;
    b->held = false;
    r = tn_virtq_pop(q, &chain, iov, TN_VIRTIO_BALLOON_IOV_);
    if (r <= 0) { /* the driver took it back, which it may not */
        tn_virtio_balloon_broken_(b, TN_EPROTO);
        return TN_ESTATE;
    }
    (void)tn_virtq_push(q, &chain, 0);
    tn_virtio_signal(&b->virtio, b->index[TN_VIRTIO_BALLOON_STATSQ]);
    if (tn_virtio_balloon_listen_(b)) {
        b->waiting = true;
        b->cfg.again(b->cfg.ctx);
    }
    return TN_OK;
}

TN_API void tn_virtio_balloon_stats_read(const struct tn_virtio_balloon *b,
                                         struct tn_virtio_balloon_stats *out)
{
    *out = b->stats;
}

/* A new command id, if there is a driver that it says something to. */
static inline int tn_virtio_balloon_say_(struct tn_virtio_balloon *b, uint32_t id, uint8_t run)
{
    if (!tn_virtio_balloon_queue_(b, TN_VIRTIO_BALLOON_FREE_PAGE))
        return TN_ESTATE;
    b->run = run;
    if (id != tn_virtio_balloon_get_(b, TN_VIRTIO_BALLOON_AT_CMD_ID_)) {
        tn_put_(b->config + TN_VIRTIO_BALLOON_AT_CMD_ID_, 4, id);
        tn_virtio_config_changed(&b->virtio);
    }
    return TN_OK;
}

TN_API int tn_virtio_balloon_hint_start(struct tn_virtio_balloon *b)
{
    int r = tn_virtio_balloon_say_(b, b->next_id, TN_VIRTIO_BALLOON_RUN_ASKED);

    if (r == TN_OK)
        b->next_id = tn_virtio_balloon_id_after_(b->next_id);
    return r;
}

TN_API void tn_virtio_balloon_hint_stop(struct tn_virtio_balloon *b)
{
    (void)tn_virtio_balloon_say_(b, TN_VIRTIO_BALLOON_CMD_ID_STOP, TN_VIRTIO_BALLOON_RUN_NONE);
}

TN_API void tn_virtio_balloon_hint_done(struct tn_virtio_balloon *b)
{
    (void)tn_virtio_balloon_say_(b, TN_VIRTIO_BALLOON_CMD_ID_DONE, TN_VIRTIO_BALLOON_RUN_NONE);
}

TN_API void tn_virtio_balloon_save(const struct tn_virtio_balloon *b,
                                   struct tn_virtio_balloon_state *out)
{
    bool live = tn_virtio_live(&b->virtio);

    out->version = TN_VIRTIO_BALLOON_VERSION;
    out->num_pages = tn_virtio_balloon_get_(b, TN_VIRTIO_BALLOON_AT_NUM_PAGES_);
    out->actual = tn_virtio_balloon_get_(b, TN_VIRTIO_BALLOON_AT_ACTUAL_);
    out->free_page_hint_cmd_id = tn_virtio_balloon_get_(b, TN_VIRTIO_BALLOON_AT_CMD_ID_);
    out->poison_val = tn_virtio_balloon_get_(b, TN_VIRTIO_BALLOON_AT_POISON_);
    out->next_id = b->next_id;
    out->run = b->run;
    for (uint32_t i = 0; i < TN_VIRTIO_BALLOON_QUEUES; i++)
        out->off[i] = live ? b->off[i] : 0;
    tn_virtio_save(&b->virtio, &out->virtio);
}

/*@ predicate tn_virtio_balloon_idle(struct tn_virtq_state *ring) =
      ring->next_avail == ring->next_used || ring->error != 0;
    predicate tn_virtio_balloon_runs(struct tn_virtq_state *ring) =
      ring->started == 1 && ring->error == 0; */

/* Whether a queue can be so: between calls no chain is held, unless the ring is broken. */
/*@ requires \valid_read(ring);
    assigns \nothing;
    ensures \result != 0 <==> tn_virtio_balloon_idle((struct tn_virtq_state *)ring); */
static inline bool tn_virtio_balloon_idle_(const struct tn_virtq_state *ring)
{
    return ring->next_avail == ring->next_used || ring->error != 0;
}

/* Whether the chain at a queue's head can be begun, at byte off. */
/*@ requires \valid_read(s) && role < TN_VIRTIO_BALLOON_QUEUES;
    assigns \nothing;
    ensures \result && off != 0 ==> role != TN_VIRTIO_BALLOON_STATSQ && s->status == 15 &&
      \exists integer i; 0 <= i <= role &&
        tn_virtio_balloon_runs((struct tn_virtq_state *)&s->queue[i].ring);
    ensures \result && role <= 1 ==> off % 4 == 0;
    ensures off == 0 ==> \result; */
static inline bool tn_virtio_balloon_begun_(const struct tn_virtio_state *s, uint32_t ready,
                                            uint32_t role, uint32_t off)
{
    uint32_t index = tn_virtio_balloon_index_(s->features, ready, role);

    if (off == 0)
        return true;
    if (role == TN_VIRTIO_BALLOON_STATSQ || index == TN_VIRTIO_BALLOON_NONE_ || s->status != 15 ||
        (role <= TN_VIRTIO_BALLOON_DEFLATE && off % 4 != 0))
        return false;
    return s->queue[index].ring.started == 1 && s->queue[index].ring.error == 0;
}

/* Whether what is the driver's, and the run of hinting, can be so at this status (5.5.4). */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result ==> s->run <= TN_VIRTIO_BALLOON_RUN_OVER && s->next_id >= 2 &&
      (s->run == TN_VIRTIO_BALLOON_RUN_NONE <==> s->free_page_hint_cmd_id < 2);
    ensures \result && s->free_page_hint_cmd_id != 0 ==>
      s->virtio.status % 64 == 15 && (s->virtio.features & 8) != 0;
    ensures \result && s->poison_val != 0 ==>
      s->virtio.status % 64 >= 11 && (s->virtio.features & 16) != 0;
    ensures \result && s->actual != 0 ==> s->virtio.status % 64 >= 11; */
static inline bool tn_virtio_balloon_fields_(const struct tn_virtio_balloon_state *s)
{
    uint8_t progress = s->virtio.status % 64u;
    bool has_id = s->free_page_hint_cmd_id > TN_VIRTIO_BALLOON_CMD_ID_DONE;

    if (s->run > TN_VIRTIO_BALLOON_RUN_OVER || has_id != (s->run != TN_VIRTIO_BALLOON_RUN_NONE) ||
        s->next_id <= TN_VIRTIO_BALLOON_CMD_ID_DONE)
        return false;
    if (s->free_page_hint_cmd_id != 0 &&
        (progress != 15 || (s->virtio.features & TN_VIRTIO_BALLOON_F_FREE_PAGE_HINT) == 0))
        return false;
    if (s->poison_val != 0 &&
        (progress < 11 || (s->virtio.features & TN_VIRTIO_BALLOON_F_PAGE_POISON) == 0))
        return false;
    return s->actual == 0 || progress >= 11;
}

/* Whether what is the balloon's own can be so. */
static inline bool tn_virtio_balloon_valid_(const struct tn_virtio_balloon *b,
                                            const struct tn_virtio_balloon_state *s)
{
    uint32_t ready = 0, i;

    if (!tn_virtio_balloon_fields_(s) || s->num_pages > tn_virtio_balloon_ram_(b->cfg.mem))
        return false;
    for (i = 0; i < TN_VIRTIO_BALLOON_QUEUES; i++) {
        ready |= (uint32_t)(s->virtio.queue[i].ready != 0) << i;
        if (!tn_virtio_balloon_idle_(&s->virtio.queue[i].ring))
            return false;
    }
    for (i = 0; i < TN_VIRTIO_BALLOON_QUEUES; i++) {
        if (!tn_virtio_balloon_begun_(&s->virtio, ready, i, s->off[i]))
            return false;
    }
    return true;
}

TN_API int tn_virtio_balloon_restore(struct tn_virtio_balloon *b,
                                     const struct tn_virtio_balloon_state *from)
{
    struct tn_virtio_balloon_state copy = *from;
    int r;

    if (copy.version != TN_VIRTIO_BALLOON_VERSION)
        return TN_EUNSUP;
    if (!tn_virtio_balloon_valid_(b, &copy))
        return TN_EFORMAT;
    r = tn_virtio_restore(&b->virtio, &copy.virtio);
    if (r < 0) {
        if (tn_virtio_status_read(&b->virtio) == 0)
            tn_virtio_balloon_on_reset_(b);
        return r;
    }
    tn_virtio_balloon_on_reset_(b);
    tn_virtio_balloon_map_(b);
    tn_put_(b->config + TN_VIRTIO_BALLOON_AT_NUM_PAGES_, 4, copy.num_pages);
    tn_put_(b->config + TN_VIRTIO_BALLOON_AT_ACTUAL_, 4, copy.actual);
    tn_put_(b->config + TN_VIRTIO_BALLOON_AT_CMD_ID_, 4, copy.free_page_hint_cmd_id);
    tn_put_(b->config + TN_VIRTIO_BALLOON_AT_POISON_, 4, copy.poison_val);
    b->next_id = copy.next_id;
    b->run = (uint8_t)copy.run;
    for (uint32_t i = 0; i < TN_VIRTIO_BALLOON_QUEUES; i++)
        b->off[i] = copy.off[i];
    b->waiting = tn_virtio_live(&b->virtio);
    return TN_OK;
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VIRTIO_BALLOON_H */
