/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vhost - queues that the host's kernel serves: vhost-net and vhost-vsock.
 *
 * WHAT
 *   Hands the split queues of a network device (one pair) or of a socket device (receive and
 *   transmit) to the kernel, with guest memory, a descriptor to be kicked by and one to interrupt
 *   with; and takes them back, with where they stand.
 *
 * USAGE
 *   static int hand_over(struct tn_vhost *v, const struct tn_mem *mem, uint64_t features,
 *                        const struct tn_virtq *q, const int *kick, const int *call)
 *   {
 *       struct tn_virtq_state state;
 *       int result = tn_vhost_setup(v, mem, features, NULL, 0);
 *
 *       for (uint32_t i = 0; i < TN_VHOST_RINGS && result == 0; i++) {
 *           tn_virtq_save(&q[i], &state);
 *           result = tn_vhost_start(v, i, &state, kick[i], call[i], -1);
 *       }
 *       return result;
 *   }
 *   ---
 *   struct tn_vhost v;
 *
 *   if (tn_vhost_vsock_init(&v, 3) < 0)
 *       return v.phase == TN_VHOST_CID ? 1 : 2;
 *   if (tn_vhost_features(&v, TN_VIRTIO_F_RING) & TN_VIRTIO_F_RING_PACKED)
 *       return 3;
 *   tn_vhost_close(&v);
 *
 * COMPOSITION
 *   The device offers what tn_vhost_features leaves of its features. When the driver activates it,
 *   it calls tn_vhost_setup and tn_vhost_start with what tn_virtq_save says, and touches the queues
 *   no more; to save its state, and at a reset, it calls tn_vhost_stop, whose state goes to
 *   tn_virtq_restore, or to a later start. kick is the queue's ioeventfd, call an irqfd; of
 *   vhost-net, a queue of tn_tap is the other side. The control queue of a network device and the
 *   event queue of a socket device stay with the device.
 *
 * GUEST TRUST
 *   The kernel reads the rings, and bears a hostile driver; it reaches the memory of tn_mem alone.
 *   A ring that it finds broken it serves no more, and signals err, if there is one.
 *
 * MEMORY
 *   The caller owns all; memory, log and descriptors outlive the time from start to stop.
 *
 * THREADS
 *   One call at a time on one struct. The kernel has a thread of its own, and works for the process
 *   that called init: not for a child of it.
 *
 * CONFIG
 *   log of tn_vhost_setup: for memory whose writes tn_mem tracks. It wants _GNU_SOURCE, and
 *   defines it where it is the first header.
 *
 * SPEC
 *   Linux: <linux/vhost.h>. Virtual I/O Device (VIRTIO) 1.2, sections 2.7, 5.1, 5.10.
 *
 * LIMITS
 *   Linux. Split queues, without VIRTIO_F_IN_ORDER; packed ones are TN_EUNSUP. A queue with chains
 *   in flight is not handed over. 64 regions of memory. vhost-vsock does not log what it writes
 *   into buffers: with a log, all of memory counts as written then. No rate limits, no statistics.
 */
#ifndef TN_VHOST_H
#define TN_VHOST_H

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

#include "tn_mem.h"
#include "tn_virtio.h"
#include "tn_virtq.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_VHOST_RINGS   2u  /* queues of one struct: receive, transmit */
#define TN_VHOST_REGIONS 64u /* most regions of memory */

/* What a function was at when it failed. */
enum tn_vhost_phase {
    TN_VHOST_DONE,     /* it did not fail */
    TN_VHOST_OPEN,     /* opening /dev/vhost-net or /dev/vhost-vsock */
    TN_VHOST_OWNER,    /* VHOST_SET_OWNER */
    TN_VHOST_CAN,      /* VHOST_GET_FEATURES, or one is missing that has to be there */
    TN_VHOST_CID,      /* VHOST_VSOCK_SET_GUEST_CID */
    TN_VHOST_MEMORY,   /* VHOST_SET_MEM_TABLE */
    TN_VHOST_LOG,      /* VHOST_SET_LOG_BASE */
    TN_VHOST_FEATURES, /* VHOST_SET_FEATURES */
    TN_VHOST_RING,     /* VHOST_SET_VRING_NUM, _BASE and _ADDR */
    TN_VHOST_EVENTS,   /* VHOST_SET_VRING_KICK, _CALL and _ERR */
    TN_VHOST_RUN,      /* VHOST_NET_SET_BACKEND, VHOST_VSOCK_SET_RUNNING */
    TN_VHOST_STOP,     /* the same at the end, and VHOST_GET_VRING_BASE */
};

/* The functions'; phase may be read. */
struct tn_vhost {
    int fd;       /* -1: closed */
    int tap;      /* vhost-net: the TAP's queue; the caller's */
    bool vsock;   /* vhost-vsock */
    bool running; /* vhost-vsock: the kernel serves the queues */
    bool started[TN_VHOST_RINGS];
    enum tn_vhost_phase phase;
    uint64_t can;             /* features of the kernel's */
    uint64_t features;        /* that it was told */
    const struct tn_mem *mem; /* NULL: not set up */
    uint64_t *log;            /* one bit a page from guest address 0 on; NULL: none */
    size_t words;
    struct tn_virtq_state ring[TN_VHOST_RINGS]; /* as they were started */
};

/*
 * Opens vhost-net for one pair of queues, whose frames go to and come from a TAP's queue (tn_tap's
 * fd[i], with a header of 12 bytes). Returns 0; TN_ENODEV: there is no vhost-net; TN_EUNSUP: the
 * kernel lacks VERSION_1; TN_ESYS. After an error *v is closed.
 */
TN_API int tn_vhost_net_init(struct tn_vhost *v, int tap);

/*
 * Opens vhost-vsock for a guest whose context id is cid, 3 or more. Returns 0; TN_EINVAL: no such
 * cid; TN_EEXIST: another guest has it; the rest as above.
 */
TN_API int tn_vhost_vsock_init(struct tn_vhost *v, uint32_t cid);

/*
 * What of the features that a device would offer may be offered: without those of its rings that
 * the kernel does not have. Never VIRTIO_F_RING_PACKED or _IN_ORDER.
 */
TN_API uint64_t tn_vhost_features(const struct tn_vhost *v, uint64_t offered);

/*
 * Words of a log of this memory.
 */
TN_API size_t tn_vhost_log_words(const struct tn_mem *mem);

/*
 * Tells the kernel guest memory and the features that the driver accepted; again, when either has
 * changed. log has words zeroed words, or is NULL: the kernel's writes are not marked dirty then.
 * Returns 0; TN_ESTATE: a queue runs; TN_EUNSUP: a feature of the rings that the kernel does not
 * have, or a log, which it cannot keep; TN_ENOSPC: too many regions, or a log that is too short;
 * TN_ESYS.
 */
TN_API int tn_vhost_setup(struct tn_vhost *v, const struct tn_mem *mem, uint64_t features,
                          uint64_t *log, size_t words);

/*
 * Hands queue i (0: receive, 1: transmit) over, as tn_virtq_save described it; of vhost-vsock, both
 * run when both were handed over. kick is signalled once, for what waits already. err may be -1;
 * so may call, when nobody is to be interrupted. Returns 0; TN_EINVAL: no such i; TN_ESTATE: not
 * set up, it runs, the queue is stopped, broken, or has chains in flight; TN_EUNSUP: a packed queue
 * or one in order; TN_ERANGE, TN_EADDR: size and areas, as tn_virtq_start has it; TN_ESYS. After
 * an error the queue is not the kernel's.
 */
TN_API int tn_vhost_start(struct tn_vhost *v, uint32_t i, const struct tn_virtq_state *q, int kick,
                          int call, int err);

/*
 * Takes queue i back: when this returns, the kernel uses neither the queue nor its descriptors. *q
 * is then where it stands, without chains in flight. With a log, what was written is marked dirty.
 * Returns 0; TN_EINVAL; TN_ESTATE: it does not run; TN_ESYS, which only a close then helps: *q is
 * zero.
 */
TN_API int tn_vhost_stop(struct tn_vhost *v, uint32_t i, struct tn_virtq_state *q);

/*
 * Marks what the kernel has written since the last time, while it runs. Returns how many pages;
 * TN_ESTATE without a log.
 */
TN_API int64_t tn_vhost_take_log(struct tn_vhost *v);

/*
 * Ends it all; queues that run are lost. Nothing on a closed one. errno is kept.
 */
TN_API void tn_vhost_close(struct tn_vhost *v);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#ifdef __cplusplus
} /* the system's headers have their own */
#endif
#include <errno.h>
#include <fcntl.h>
#ifndef VIRTIO_RING_NO_LEGACY
#define VIRTIO_RING_NO_LEGACY 1 /* functions that are not C++ */
#endif
#include <linux/vhost.h>
#include <sys/ioctl.h>
#include <unistd.h>
#if defined(__GLIBC__) && !defined(__USE_GNU)
#error "tn_vhost.h: compile with -D_GNU_SOURCE, or include it before the system's headers"
#endif
#ifdef __cplusplus
extern "C" {
#endif

#define TN_VHOST_MRG_RXBUF_ \
    (1ull << 15)                        /* VIRTIO_NET_F_MRG_RXBUF: how many buffers a frame takes */
#define TN_VHOST_SEQPACKET_ (1ull << 1) /* VIRTIO_VSOCK_F_SEQPACKET */
#define TN_VHOST_LOG_ALL_   (1ull << VHOST_F_LOG_ALL)

/* The features that are the kernel's business, since it reads the rings and the headers in them. */
static inline uint64_t tn_vhost_mask_(const struct tn_vhost *v)
{
    uint64_t mask = TN_VIRTIO_F_RING | TN_VIRTIO_F_VERSION_1 | TN_VIRTIO_F_IN_ORDER |
                    TN_VIRTIO_F_ACCESS_PLATFORM | TN_VIRTIO_F_ORDER_PLATFORM;

    return mask | (v->vsock ? TN_VHOST_SEQPACKET_ : TN_VHOST_MRG_RXBUF_);
}

/* Those of them that it may have. ACCESS_PLATFORM would make it ask for translations. */
static inline uint64_t tn_vhost_can_(const struct tn_vhost *v)
{
    return v->can & tn_vhost_mask_(v) &
           ~(TN_VIRTIO_F_RING_PACKED | TN_VIRTIO_F_IN_ORDER | TN_VIRTIO_F_ACCESS_PLATFORM);
}

static inline int tn_vhost_open_(struct tn_vhost *v, const char *path)
{
    v->phase = TN_VHOST_OPEN;
    do
        v->fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    while (v->fd < 0 && errno == EINTR);
    if (v->fd < 0)
        return errno == ENOENT || errno == ENODEV || errno == ENXIO ? TN_ENODEV : TN_ESYS;
    v->phase = TN_VHOST_OWNER;
    if (ioctl(v->fd, VHOST_SET_OWNER, NULL) < 0)
        return TN_ESYS;
    v->phase = TN_VHOST_CAN;
    if (ioctl(v->fd, VHOST_GET_FEATURES, &v->can) < 0)
        return TN_ESYS;
    return (v->can & TN_VIRTIO_F_VERSION_1) != 0 ? 0 : TN_EUNSUP;
}

static inline void tn_vhost_clear_(struct tn_vhost *v, bool vsock, int tap)
{
    __builtin_memset(v, 0, sizeof(*v));
    v->fd = -1;
    v->tap = tap;
    v->vsock = vsock;
}

static inline int tn_vhost_opened_(struct tn_vhost *v, int result)
{
    if (result == 0)
        v->phase = TN_VHOST_DONE;
    else
        tn_vhost_close(v);
    return result;
}

TN_API int tn_vhost_net_init(struct tn_vhost *v, int tap)
{
    tn_vhost_clear_(v, false, tap);
    return tn_vhost_opened_(v, tn_vhost_open_(v, "/dev/vhost-net"));
}

TN_API int tn_vhost_vsock_init(struct tn_vhost *v, uint32_t cid)
{
    uint64_t guest = cid;
    int result;

    tn_vhost_clear_(v, true, -1);
    result = tn_vhost_open_(v, "/dev/vhost-vsock");
    if (result == 0) {
        v->phase = TN_VHOST_CID;
        if (ioctl(v->fd, VHOST_VSOCK_SET_GUEST_CID, &guest) < 0)
            result = errno == EINVAL ? TN_EINVAL : errno == EADDRINUSE ? TN_EEXIST : TN_ESYS;
    }
    return tn_vhost_opened_(v, result);
}

TN_API uint64_t tn_vhost_features(const struct tn_vhost *v, uint64_t offered)
{
    return offered & (tn_vhost_can_(v) | ~tn_vhost_mask_(v));
}

TN_API size_t tn_vhost_log_words(const struct tn_mem *mem)
{
    const struct tn_mem_region *last;

    if (mem->count == 0)
        return 0;
    last = &mem->region[mem->count - 1];
    return (size_t)TN_MEM_DIRTY_WORDS(last->gpa + last->size);
}

/* The table of memory, as the kernel wants it. */
static inline int tn_vhost_memory_(const struct tn_vhost *v, const struct tn_mem *mem)
{
    union {
        struct vhost_memory head;
        uint8_t bytes[sizeof(struct vhost_memory) +
                      TN_VHOST_REGIONS * sizeof(struct vhost_memory_region)];
    } table;
    struct vhost_memory_region r;

    __builtin_memset(&table, 0, sizeof(table));
    if (mem->count > TN_VHOST_REGIONS)
        return TN_ENOSPC;
    table.head.nregions = mem->count;
    for (uint32_t i = 0; i < mem->count; i++) {
        __builtin_memset(&r, 0, sizeof(r));
        r.guest_phys_addr = mem->region[i].gpa;
        r.memory_size = mem->region[i].size;
        r.userspace_addr = (uintptr_t)mem->region[i].host;
        __builtin_memcpy(table.bytes + sizeof(struct vhost_memory) + i * sizeof(r), &r, sizeof(r));
    }
    return ioctl(v->fd, VHOST_SET_MEM_TABLE, &table) < 0 ? TN_ESYS : 0;
}

TN_API int tn_vhost_setup(struct tn_vhost *v, const struct tn_mem *mem, uint64_t features,
                          uint64_t *log, size_t words)
{
    uint64_t wanted = features & tn_vhost_mask_(v), base = (uintptr_t)log;
    int result;

    v->phase = TN_VHOST_CAN;
    if (v->fd < 0 || v->started[0] || v->started[1])
        return TN_ESTATE;
    v->mem = NULL;
    if ((wanted & ~tn_vhost_can_(v)) != 0 || (log && (v->can & TN_VHOST_LOG_ALL_) == 0))
        return TN_EUNSUP;
    v->phase = TN_VHOST_MEMORY;
    result = tn_vhost_memory_(v, mem);
    if (result < 0)
        return result;
    if (log) {
        v->phase = TN_VHOST_LOG;
        if (words < tn_vhost_log_words(mem))
            return TN_ENOSPC;
        if (ioctl(v->fd, VHOST_SET_LOG_BASE, &base) < 0)
            return TN_ESYS;
        wanted |= TN_VHOST_LOG_ALL_;
    }
    v->phase = TN_VHOST_FEATURES;
    if (ioctl(v->fd, VHOST_SET_FEATURES, &wanted) < 0)
        return TN_ESYS;
    v->features = wanted;
    v->mem = mem;
    v->log = log;
    v->words = words;
    v->phase = TN_VHOST_DONE;
    return 0;
}

static inline int tn_vhost_state_(const struct tn_vhost *v, unsigned long request, uint32_t i,
                                  uint32_t *num)
{
    struct vhost_vring_state s = {i, *num};
    int got = ioctl(v->fd, request, &s);

    *num = s.num;
    return got < 0 ? TN_ESYS : 0;
}

static inline int tn_vhost_file_(const struct tn_vhost *v, unsigned long request, uint32_t i,
                                 int fd)
{
    struct vhost_vring_file f = {i, fd};

    return ioctl(v->fd, request, &f) < 0 ? TN_ESYS : 0;
}

/* Has the kernel begin, or end, to serve queue i; of vhost-vsock, both. */
static inline int tn_vhost_run_(struct tn_vhost *v, uint32_t i, bool run)
{
    int on = run;

    if (!v->vsock)
        return tn_vhost_file_(v, VHOST_NET_SET_BACKEND, i, run ? v->tap : -1);
    if (run ? !v->started[1 - i] : !v->running)
        return 0; /* the other one is still missing; or it was taken back before */
    if (ioctl(v->fd, VHOST_VSOCK_SET_RUNNING, &on) < 0)
        return TN_ESYS;
    v->running = run;
    return 0;
}

/* Takes the descriptors of queue i away again. */
static inline void tn_vhost_unbind_(const struct tn_vhost *v, uint32_t i)
{
    int saved = errno;

    tn_vhost_file_(v, VHOST_SET_VRING_KICK, i, -1);
    tn_vhost_file_(v, VHOST_SET_VRING_CALL, i, -1);
    tn_vhost_file_(v, VHOST_SET_VRING_ERR, i, -1);
    errno = saved;
}

/* Whether the kernel can take this queue over; its areas are then in *addr. */
static inline int tn_vhost_check_(const struct tn_vhost *v, const struct tn_virtq_state *q,
                                  struct vhost_vring_addr *addr)
{
    uint8_t *desc, *driver, *device;

    if (q->packed || q->in_order)
        return TN_EUNSUP;
    if (q->started == 0 || q->error != TN_OK || q->next_avail != q->next_used)
        return TN_ESTATE;
    if (q->size == 0 || q->size > TN_VIRTQ_SIZE_MAX || (q->size & (q->size - 1)) != 0)
        return TN_ERANGE;
    desc = tn_mem_ptr(v->mem, q->desc, 16ull * q->size);
    driver = tn_mem_ptr(v->mem, q->driver, 2ull * q->size + 6);
    device = tn_mem_ptr(v->mem, q->device, 8ull * q->size + 6);
    if (!desc || !driver || !device || q->desc % 16 != 0 || q->driver % 2 != 0 ||
        q->device % 4 != 0)
        return TN_EADDR;
    addr->desc_user_addr = (uintptr_t)desc;
    addr->avail_user_addr = (uintptr_t)driver;
    addr->used_user_addr = (uintptr_t)device;
    if (v->log) {
        addr->flags = 1u << VHOST_VRING_F_LOG;
        addr->log_guest_addr = q->device;
    }
    return 0;
}

TN_API int tn_vhost_start(struct tn_vhost *v, uint32_t i, const struct tn_virtq_state *q, int kick,
                          int call, int err)
{
    struct vhost_vring_addr addr;
    uint32_t size = q->size, base = q->next_avail;
    uint64_t one = 1;
    int result;

    v->phase = TN_VHOST_RING;
    if (i >= TN_VHOST_RINGS)
        return TN_EINVAL;
    if (v->fd < 0 || !v->mem || v->started[i])
        return TN_ESTATE;
    __builtin_memset(&addr, 0, sizeof(addr));
    addr.index = i;
    result = tn_vhost_check_(v, q, &addr);
    if (result < 0)
        return result;
    if (tn_vhost_state_(v, VHOST_SET_VRING_NUM, i, &size) < 0 ||
        tn_vhost_state_(v, VHOST_SET_VRING_BASE, i, &base) < 0 ||
        ioctl(v->fd, VHOST_SET_VRING_ADDR, &addr) < 0)
        return TN_ESYS;
    v->phase = TN_VHOST_EVENTS;
    if (tn_vhost_file_(v, VHOST_SET_VRING_KICK, i, kick) < 0 ||
        tn_vhost_file_(v, VHOST_SET_VRING_CALL, i, call) < 0 ||
        tn_vhost_file_(v, VHOST_SET_VRING_ERR, i, err) < 0) {
        tn_vhost_unbind_(v, i);
        return TN_ESYS;
    }
    v->phase = TN_VHOST_RUN;
    if (tn_vhost_run_(v, i, true) < 0) {
        tn_vhost_unbind_(v, i);
        return TN_ESYS;
    }
    v->started[i] = true;
    v->ring[i] = *q;
    v->phase = TN_VHOST_DONE;
    if (write(kick, &one, sizeof(one)) < 0)
        errno = EAGAIN; /* full: it is signalled already */
    return 0;
}

TN_API int64_t tn_vhost_take_log(struct tn_vhost *v)
{
    int64_t pages = 0;

    if (!v->mem || !v->log)
        return TN_ESTATE;
    for (uint32_t i = 0; v->vsock && i < v->mem->count; i++) {
        tn_mem_mark(v->mem, v->mem->region[i].gpa, v->mem->region[i].size);
        pages += (int64_t)(v->mem->region[i].size / TN_MEM_PAGE);
    }
    for (size_t w = 0; !v->vsock && w < v->words; w++) {
        uint64_t bits = __atomic_exchange_n(&v->log[w], 0, __ATOMIC_SEQ_CST);

        for (; bits != 0; bits &= bits - 1, pages++)
            tn_mem_mark(v->mem, (w * 64 + (unsigned)__builtin_ctzll(bits)) * TN_MEM_PAGE,
                        TN_MEM_PAGE);
    }
    return pages;
}

TN_API int tn_vhost_stop(struct tn_vhost *v, uint32_t i, struct tn_virtq_state *q)
{
    uint32_t base = 0;
    int result;

    __builtin_memset(q, 0, sizeof(*q));
    v->phase = TN_VHOST_STOP;
    if (i >= TN_VHOST_RINGS)
        return TN_EINVAL;
    if (!v->started[i])
        return TN_ESTATE;
    result = tn_vhost_run_(v, i, false);
    if (result == 0)
        result = tn_vhost_state_(v, VHOST_GET_VRING_BASE, i, &base);
    if (result < 0)
        return result;
    tn_vhost_unbind_(v, i);
    v->started[i] = false;
    if (v->log)
        tn_vhost_take_log(v);
    *q = v->ring[i];
    q->next_avail = (uint16_t)base;
    q->next_used = (uint16_t)base; /* the kernel returns what it took before it ends */
    q->unsignalled = 0;
    v->phase = TN_VHOST_DONE;
    return 0;
}

TN_API void tn_vhost_close(struct tn_vhost *v)
{
    int saved = errno;

    if (v->fd >= 0)
        close(v->fd);
    v->fd = -1;
    v->running = v->started[0] = v->started[1] = false;
    v->mem = NULL;
    errno = saved;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VHOST_H */
