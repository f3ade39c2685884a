/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_tap - a network device's frames, to and from a TAP or macvtap interface of the host.
 *
 * WHAT
 *   Opens the queues of an interface by its name, or takes descriptors that are open already; finds
 *   out which offloads the kernel can do; and moves one frame per system call, with the header of
 *   12 bytes in front, straight from and to the iovecs.
 *
 * USAGE
 *   struct tn_tap_cfg cfg = {"tap0", false, false, NULL, 1, 0};
 *   struct tn_net_hdr hdr;
 *   uint8_t frame[1514];
 *   struct tn_iov iov = {frame, sizeof(frame)};
 *   struct tn_tap tap;
 *   int64_t len;
 *
 *   if (tn_tap_init(&tap, &cfg) < 0)
 *       return tap.phase == TN_TAP_LOOK ? 1 : 2;
 *   len = tap.net.ops->recv(tap.net.ctx, 0, &hdr, &iov, 1);
 *   tn_tap_close(&tap);
 *   if (len < 0 && len != TN_EAGAIN)
 *       return 3;
 *
 * COMPOSITION
 *   tap.net is what tn_virtio_net asks; tn_loop watches what net.ops->fd returns. tap.fd[i] is what
 *   tn_vhost takes instead, and nobody asks net for frames then; set stays of use.
 *
 * GUEST TRUST
 *   Headers were checked by the asker (tn_net.h); what the kernel does not like in a frame all the
 *   same is lost there. The bytes are not looked at.
 *
 * MEMORY
 *   The caller owns struct tn_tap and keeps it where it is from init to close. A call takes 16 KiB
 *   of stack.
 *
 * THREADS
 *   As tn_net.h has it: one call at a time on one pair; init, close and set alone.
 *
 * CONFIG
 *   It wants _GNU_SOURCE, and defines it where it is the first header.
 *
 * SPEC
 *   Linux: Documentation/networking/tuntap.rst, <linux/if_tun.h>.
 *
 * LIMITS
 *   Linux 4.0; segments of UDP from 6.2 on. The interface is neither brought up nor given an
 *   address or an MTU. TN_NET_IOVS iovecs. A macvtap's device node is looked for in /dev. A TAP
 *   among fds that was opened without IFF_NO_PI is not found out: the kernel does not tell.
 */
#ifndef TN_TAP_H
#define TN_TAP_H

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

#include "tn_net.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_TAP_QUEUES 8u  /* most queue pairs */
#define TN_TAP_NAME   16u /* bytes of a name with its end */

/* What tn_tap_init was at when it failed. */
enum tn_tap_phase {
    TN_TAP_DONE,     /* it did not fail */
    TN_TAP_PAIRS,    /* the number of pairs */
    TN_TAP_LONG,     /* the name: none, 16 bytes or more, or with a character that none has */
    TN_TAP_LOOK,     /* finding the interface by its name */
    TN_TAP_OPEN,     /* opening /dev/net/tun, or /dev/tapN for a macvtap */
    TN_TAP_ATTACH,   /* attaching to the interface: TUNSETIFF */
    TN_TAP_IDENTIFY, /* whether it is a TAP with a header, the one that was asked for: TUNGETIFF */
    TN_TAP_BLOCKING, /* making an fd non-blocking */
    TN_TAP_HEADER,   /* TUNSETVNETHDRSZ, TUNSETVNETLE */
    TN_TAP_SNDBUF,   /* TUNSETSNDBUF */
    TN_TAP_OFFLOAD,  /* TUNSETOFFLOAD */
    TN_TAP_QUEUE,    /* TUNSETQUEUE */
};

struct tn_tap_cfg {
    const char *name; /* of the interface, in the caller's network namespace; NULL: fds */
    bool macvtap;     /* name is a macvtap's */
    bool create;      /* a TAP that does not exist is made; it goes at close */
    const int *fds;   /* pairs queues of one TAP, with IFF_NO_PI, IFF_VNET_HDR; ours after init */
    uint32_t pairs;   /* 1 to TN_TAP_QUEUES; 0: 1 */
    int sndbuf;       /* bytes on their way before send says TN_EAGAIN; 0: no limit */
};

/* An open interface. Use net; the rest is the functions'. */
struct tn_tap {
    struct tn_net net;
    int fd[TN_TAP_QUEUES];        /* -1: none */
    uint64_t lost[TN_TAP_QUEUES]; /* frames that the kernel refused */
    uint32_t active;              /* pairs that frames come to */
    uint32_t offloads;            /* that these frames may have open */
    enum tn_tap_phase phase;
    char name[TN_TAP_NAME];
};

/*
 * Opens an interface with one active pair and no offloads open, and fills in t->net. Returns 0;
 * else t->phase says at what it failed, *t is closed and cfg->fds are the caller's still:
 * TN_EINVAL: pairs, name, or what is open or named so is no TAP, has no header, or not as many
 * queues; TN_ENODEV: no such interface, or a kernel without TAPs; TN_EEXIST: somebody else has it;
 * TN_ESYS: EPERM and EACCES, where privileges are missing, and all else.
 */
TN_API int tn_tap_init(struct tn_tap *t, const struct tn_tap_cfg *cfg);

/*
 * Closes all queues. Nothing on a closed one. errno is kept.
 */
TN_API void tn_tap_close(struct tn_tap *t);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#ifdef __cplusplus
} /* the system's headers have their own */
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>
#if defined(__GLIBC__) && !defined(__USE_GNU)
#error "tn_tap.h: compile with -D_GNU_SOURCE, or include it before the system's headers"
#endif
#ifdef __cplusplus
extern "C" {
#endif

#define TN_TAP_USO4_ 0x20u /* TUN_F_USO4, which headers before 6.2 do not have */
#define TN_TAP_USO6_ 0x40u /* TUN_F_USO6 */

/* What the kernel calls offloads; those that it would not take without another are left out. */
static inline unsigned long tn_tap_flags_(uint32_t offloads)
{
    unsigned long flags = 0;

    if ((offloads & TN_NET_CSUM) == 0)
        return 0;
    flags = TUN_F_CSUM;
    if (offloads & TN_NET_TSO4)
        flags |= TUN_F_TSO4;
    if (offloads & TN_NET_TSO6)
        flags |= TUN_F_TSO6;
    if ((offloads & TN_NET_ECN) && (offloads & (TN_NET_TSO4 | TN_NET_TSO6)))
        flags |= TUN_F_TSO_ECN;
    if (offloads & TN_NET_UFO)
        flags |= TUN_F_UFO;
    if (offloads & TN_NET_USO)
        flags |= TN_TAP_USO4_ | TN_TAP_USO6_;
    return flags;
}

/* The iovecs of one system call: the header, len bytes of iov or all of it, one to spare. */
static inline int tn_tap_vector_(struct iovec *v, uint8_t *wire, const struct tn_iov *iov,
                                 uint32_t iovs, uint64_t len, uint64_t *got)
{
    int n = 1;

    v[0].iov_base = wire;
    v[0].iov_len = TN_NET_HDR;
    *got = 0;
    for (uint32_t i = 0; i < iovs && *got < len; i++) {
        v[n].iov_base = iov[i].base;
        v[n].iov_len = iov[i].len < len - *got ? iov[i].len : (size_t)(len - *got);
        *got += v[n++].iov_len;
    }
    return n;
}

static inline int tn_tap_send_(void *ctx, uint32_t pair, const struct tn_net_hdr *hdr,
                               const struct tn_iov *iov, uint32_t iovs, uint32_t len)
{
    struct tn_tap *t = (struct tn_tap *)ctx;
    struct iovec v[TN_NET_IOVS + 2];
    uint8_t wire[TN_NET_HDR];
    uint64_t got;
    ssize_t n;
    int count;

    if (pair >= t->active || iovs > TN_NET_IOVS || len == 0 || len > TN_NET_FRAME_MAX)
        return TN_EINVAL;
    tn_net_hdr_put(hdr, wire);
    count = tn_tap_vector_(v, wire, iov, iovs, len, &got);
    if (got < len)
        return TN_EINVAL;
    do
        n = writev(t->fd[pair], v, count);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return TN_EAGAIN;
    if (n < 0 && (errno == EBADFD || errno == EBADF || errno == ENODEV || errno == ENXIO))
        return TN_ESYS; /* the interface is gone */
    if (n < 0)
        t->lost[pair]++; /* it is down, out of memory, or does not know this protocol */
    return 0;
}

static inline int64_t tn_tap_recv_(void *ctx, uint32_t pair, struct tn_net_hdr *hdr,
                                   const struct tn_iov *iov, uint32_t iovs)
{
    struct tn_tap *t = (struct tn_tap *)ctx;
    struct iovec v[TN_NET_IOVS + 2];
    uint8_t wire[TN_NET_HDR], spare;
    uint64_t room;
    ssize_t n;
    int count;

    __builtin_memset(hdr, 0, sizeof(*hdr));
    if (pair >= t->net.pairs || iovs > TN_NET_IOVS)
        return TN_EINVAL;
    if (pair >= t->active)
        return t->active > 0 ? TN_EAGAIN : TN_ESYS;
    count = tn_tap_vector_(v, wire, iov, iovs, TN_NET_FRAME_MAX, &room);
    v[count].iov_base = &spare; /* the kernel does not say that it cut a frame off */
    v[count++].iov_len = 1;
    do
        n = readv(t->fd[pair], v, count);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? TN_EAGAIN : TN_ESYS;
    if (n <= (ssize_t)TN_NET_HDR || (uint64_t)n > TN_NET_HDR + room)
        return TN_ETRUNC;
    tn_net_hdr_get(hdr, wire);
    hdr->num_buffers = 0;
    return n - (ssize_t)TN_NET_HDR;
}

/* Attaches pair i, or detaches it. */
static inline int tn_tap_queue_(const struct tn_tap *t, uint32_t i, bool attach)
{
    struct ifreq r;

    __builtin_memset(&r, 0, sizeof(r));
    r.ifr_flags = (short)(attach ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE);
    return ioctl(t->fd[i], TUNSETQUEUE, &r) < 0 ? TN_ESYS : 0;
}

/* Has frames come to the first pairs pairs; as before after an error. */
static inline int tn_tap_queues_(struct tn_tap *t, uint32_t pairs)
{
    uint32_t was = t->active;
    int saved;

    while (t->active != pairs) {
        bool attach = t->active < pairs;

        if (tn_tap_queue_(t, attach ? t->active : t->active - 1, attach) == 0) {
            t->active = attach ? t->active + 1 : t->active - 1;
            continue;
        }
        saved = errno;
        while (t->active != was) {
            attach = t->active < was;
            if (tn_tap_queue_(t, attach ? t->active : t->active - 1, attach) < 0)
                break; /* what active says is true still */
            t->active = attach ? t->active + 1 : t->active - 1;
        }
        errno = saved;
        return TN_ESYS;
    }
    return 0;
}

static inline int tn_tap_offload_(const struct tn_tap *t, uint32_t offloads)
{
    return ioctl(t->fd[0], TUNSETOFFLOAD, tn_tap_flags_(offloads)) < 0 ? TN_ESYS : 0;
}

static inline int tn_tap_set_(void *ctx, uint32_t offloads, uint32_t pairs)
{
    struct tn_tap *t = (struct tn_tap *)ctx;
    int saved;

    if ((offloads & ~t->net.rx_offloads) != 0 || pairs == 0 || pairs > t->net.pairs)
        return TN_EINVAL;
    if (tn_tap_offload_(t, offloads) < 0)
        return TN_ESYS;
    if (tn_tap_queues_(t, pairs) < 0) {
        saved = errno;
        tn_tap_offload_(t, t->offloads);
        errno = saved;
        return TN_ESYS;
    }
    t->offloads = offloads;
    return 0;
}

static inline int tn_tap_fd_(void *ctx, uint32_t pair)
{
    const struct tn_tap *t = (const struct tn_tap *)ctx;

    return pair < t->active ? t->fd[pair] : -1; /* a detached queue reports EPOLLERR for ever */
}

/* What an error of the kernel's means to who names an interface. */
static inline int tn_tap_error_(void)
{
    switch (errno) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
        return TN_ENODEV;
    case EBUSY:
        return TN_EEXIST;
    case EINVAL: /* no TAP; a TAP with other flags */
    case E2BIG:  /* no more queues */
    case ENOTTY: /* not even an interface */
    case EBADFD: /* attached to none */
        return TN_EINVAL;
    default:
        return TN_ESYS;
    }
}

/* Whether an interface may be named so; '%' would make the kernel choose a number. */
static inline bool tn_tap_name_ok_(const char *name)
{
    size_t n = 0;

    for (; name[n] != '\0'; n++)
        if (n >= TN_TAP_NAME - 1 || name[n] == '/' || name[n] == '%' || name[n] == ':' ||
            (unsigned char)name[n] <= ' ')
            return false;
    return n > 0 && !(name[0] == '.' && (n == 1 || (n == 2 && name[1] == '.')));
}

/* Opens pair i of the interface that has this index, 0 where it is still to be made. */
static inline int tn_tap_open_(struct tn_tap *t, uint32_t i, bool macvtap, unsigned index)
{
    char path[32] = "/dev/net/tun";
    unsigned flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    struct ifreq r;
    int got;

    if (t->net.pairs > 1)
        flags |= IFF_MULTI_QUEUE;
    if (macvtap)
        snprintf(path, sizeof(path), "/dev/tap%u", index);
    t->phase = TN_TAP_OPEN;
    do
        t->fd[i] = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    while (t->fd[i] < 0 && errno == EINTR);
    if (t->fd[i] < 0)
        return tn_tap_error_();
    t->phase = TN_TAP_ATTACH;
    for (;;) {
        __builtin_memset(&r, 0, sizeof(r));
        __builtin_memcpy(r.ifr_name, t->name, TN_TAP_NAME);
        r.ifr_flags = (short)flags;
        got = ioctl(t->fd[i], TUNSETIFF, &r);
        if (got == 0)
            return 0;
        if (errno != EINVAL || (flags & IFF_MULTI_QUEUE) != 0)
            return tn_tap_error_();
        flags |= IFF_MULTI_QUEUE; /* one of several queues, then */
    }
}

/* Checks what is open as pair i, and sets it up. */
static inline int tn_tap_adopt_(struct tn_tap *t, uint32_t i, int sndbuf)
{
    unsigned wanted = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    int flags, size = (int)TN_NET_HDR, one = 1;
    struct ifreq r;

    t->phase = TN_TAP_IDENTIFY;
    __builtin_memset(&r, 0, sizeof(r));
    if (ioctl(t->fd[i], TUNGETIFF, &r) < 0)
        return tn_tap_error_();
    r.ifr_name[TN_TAP_NAME - 1] = '\0';
    if (t->name[0] == '\0')
        __builtin_memcpy(t->name, r.ifr_name, TN_TAP_NAME);
    if (__builtin_strcmp(t->name, r.ifr_name) != 0 ||
        ((unsigned short)r.ifr_flags & wanted) != wanted)
        return TN_EINVAL;
    t->phase = TN_TAP_BLOCKING;
    flags = fcntl(t->fd[i], F_GETFL);
    if (flags < 0 || fcntl(t->fd[i], F_SETFL, flags | O_NONBLOCK) < 0)
        return TN_ESYS;
    t->phase = TN_TAP_HEADER;
    if (ioctl(t->fd[i], TUNSETVNETHDRSZ, &size) < 0 || ioctl(t->fd[i], TUNSETVNETLE, &one) < 0)
        return TN_ESYS;
    t->phase = TN_TAP_SNDBUF;
    return ioctl(t->fd[i], TUNSETSNDBUF, &sndbuf) < 0 ? TN_ESYS : 0;
}

/* Finds out what the kernel can do. */
static inline int tn_tap_probe_(struct tn_tap *t)
{
    static const uint32_t more[] = {TN_NET_TSO4, TN_NET_TSO6, TN_NET_ECN, TN_NET_UFO, TN_NET_USO};
    uint32_t can = TN_NET_CSUM;

    t->phase = TN_TAP_OFFLOAD;
    if (tn_tap_offload_(t, can) == 0) {
        for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++)
            if (tn_tap_offload_(t, can | more[i]) == 0)
                can |= more[i];
        t->net.tx_offloads = can; /* the kernel takes the same in what is written */
        t->net.rx_offloads = can;
    }
    return tn_tap_offload_(t, 0);
}

static inline int tn_tap_init_(struct tn_tap *t, const struct tn_tap_cfg *cfg)
{
    uint32_t i, pairs = cfg->pairs > 0 ? cfg->pairs : 1;
    unsigned index = 0;
    int result;

    t->phase = TN_TAP_PAIRS;
    if (pairs > TN_TAP_QUEUES || (!cfg->name && !cfg->fds))
        return TN_EINVAL;
    t->net.pairs = pairs;
    if (cfg->name) {
        t->phase = TN_TAP_LONG;
        if (!tn_tap_name_ok_(cfg->name))
            return TN_EINVAL;
        __builtin_memcpy(t->name, cfg->name, __builtin_strlen(cfg->name));
        t->phase = TN_TAP_LOOK;
        index = if_nametoindex(t->name);
        if (index == 0 && (errno != ENODEV || cfg->macvtap || !cfg->create))
            return tn_tap_error_();
    }
    for (i = 0; i < pairs; i++) {
        result = 0;
        if (cfg->name)
            result = tn_tap_open_(t, i, cfg->macvtap, index);
        else
            t->fd[i] = cfg->fds[i];
        if (result == 0)
            result = tn_tap_adopt_(t, i, cfg->sndbuf > 0 ? cfg->sndbuf : INT_MAX);
        if (result < 0)
            return result;
    }
    result = tn_tap_probe_(t);
    if (result < 0)
        return result;
    t->phase = TN_TAP_QUEUE;
    t->active = pairs;
    return tn_tap_queues_(t, 1);
}

TN_API int tn_tap_init(struct tn_tap *t, const struct tn_tap_cfg *cfg)
{
    static const struct tn_net_ops ops = {tn_tap_send_, tn_tap_recv_, tn_tap_set_, tn_tap_fd_};
    enum tn_tap_phase phase;
    int result;

    __builtin_memset(t, 0, sizeof(*t));
    for (uint32_t i = 0; i < TN_TAP_QUEUES; i++)
        t->fd[i] = -1;
    result = tn_tap_init_(t, cfg);
    if (result == 0) {
        t->phase = TN_TAP_DONE;
        t->net.ops = &ops;
        t->net.ctx = t;
        return 0;
    }
    for (uint32_t i = 0; i < TN_TAP_QUEUES && !cfg->name; i++)
        t->fd[i] = -1; /* still the caller's */
    phase = t->phase;
    tn_tap_close(t);
    t->phase = phase;
    return result;
}

TN_API void tn_tap_close(struct tn_tap *t)
{
    int saved = errno;

    for (uint32_t i = 0; i < TN_TAP_QUEUES; i++) {
        if (t->fd[i] >= 0)
            close(t->fd[i]);
        t->fd[i] = -1;
    }
    t->active = 0;
    errno = saved;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_TAP_H */
