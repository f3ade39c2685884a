/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_net_pair - a cable between the network devices of two VMs, in one process or in two.
 *
 * WHAT
 *   A pair of sockets, one for each device. A message is the header of 12 bytes and a frame, so
 *   what one guest leaves open the other may take open: large segments cross in one piece. A
 *   checksum that the receiver does not take open is made here.
 *
 * USAGE
 *   struct tn_net_pair a, b;
 *   uint8_t bytes[60] = {0}, got[60];
 *   struct tn_iov out = {bytes, sizeof(bytes)}, in = {got, sizeof(got)};
 *   struct tn_net_hdr hdr = {0, 0, 0, 0, 0, 0, 0};
 *   int ends[2];
 *
 *   if (tn_net_pair_sockets(ends) < 0 || tn_net_pair_init(&a, ends[0], 0) < 0 ||
 *       tn_net_pair_init(&b, ends[1], 0) < 0)
 *       return 1;
 *   if (a.net.ops->send(a.net.ctx, 0, &hdr, &out, 1, 60) < 0 ||
 *       b.net.ops->recv(b.net.ctx, 0, &hdr, &in, 1) != 60)
 *       return 2;
 *   tn_net_pair_close(&a);
 *   tn_net_pair_close(&b);
 *
 * COMPOSITION
 *   net of either end is what a tn_virtio_net asks; tn_loop watches what net.ops->fd returns. The
 *   other end may go to another process, by fork or SCM_RIGHTS.
 *
 * GUEST TRUST
 *   The peer may be hostile: what it sends that is no header and frame, or leaves open what was
 *   not asked for, is dropped and counted; the asker checks the offsets of what remains. It can
 *   fill the socket, and nothing more.
 *
 * MEMORY
 *   The caller owns struct tn_net_pair and keeps it where it is from init to close. A call takes 16
 *   KiB of stack.
 *
 * THREADS
 *   One call at a time on one struct. The two ends are independent.
 *
 * CONFIG
 *   It wants _GNU_SOURCE, and defines it where it is the first header.
 *
 * LIMITS
 *   Linux. One pair of queues. Segments are not made here: a frame of more segments than its
 *   receiver takes is lost, so only guests that are known to take them are given offloads.
 */
#ifndef TN_NET_PAIR_H
#define TN_NET_PAIR_H

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

/* One end. Use net and what is before fd; the rest is the functions'. */
struct tn_net_pair {
    struct tn_net net;
    bool end;          /* no frame will ever come or go: the other end is closed */
    uint64_t lost;     /* frames that the other end sent, and nobody can take */
    int fd;            /* -1: closed */
    uint32_t offloads; /* what frames may have open that are received */
};

/*
 * Makes two ends. Returns 0, or TN_ESYS.
 *
 * SOCK_SEQPACKET, since it keeps the messages whole, as SOCK_DGRAM does, but tells when the other
 * end is closed, and holds as many messages as fit its bytes, not ten.
 */
TN_API int tn_net_pair_sockets(int fds[2]);

/*
 * Makes a network of one end; fd is ours then. offloads, of TN_NET_TSO4 and those after it, is
 * what both guests may leave open beside checksums. Returns 0; TN_EINVAL: fd is not such a socket,
 * or an offload that does not exist; TN_ESYS. After an error fd is still the caller's.
 */
TN_API int tn_net_pair_init(struct tn_net_pair *p, int fd, uint32_t offloads);

/*
 * Closes this end. Nothing on a closed one. errno is kept.
 */
TN_API void tn_net_pair_close(struct tn_net_pair *p);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#ifdef __cplusplus
} /* the system's headers have their own */
#endif
#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#if defined(__GLIBC__) && !defined(__USE_GNU)
#error "tn_net_pair.h: compile with -D_GNU_SOURCE, or include it before the system's headers"
#endif
#ifdef __cplusplus
extern "C" {
#endif

#define TN_NET_PAIR_BUFFER_ (1 << 20) /* bytes on their way, where the system allows as many */
#define TN_NET_PAIR_ALL_ \
    (TN_NET_CSUM | TN_NET_TSO4 | TN_NET_TSO6 | TN_NET_ECN | TN_NET_UFO | TN_NET_USO)

static inline int tn_net_pair_end_(struct tn_net_pair *p)
{
    p->end = true;
    errno = EPIPE;
    return TN_ESYS;
}

/* The iovecs of one message: the header, and len bytes of iov or all of it. */
static inline size_t tn_net_pair_vector_(struct iovec *v, uint8_t *wire, const struct tn_iov *iov,
                                         uint32_t iovs, uint32_t len, uint32_t *got)
{
    size_t n = 1;

    v[0].iov_base = wire;
    v[0].iov_len = TN_NET_HDR;
    *got = 0;
    for (uint32_t i = 0; i < iovs && *got < len; i++) {
        v[n].iov_base = iov[i].base;
        v[n].iov_len = iov[i].len < len - *got ? iov[i].len : len - *got;
        *got += (uint32_t)v[n++].iov_len;
    }
    return n;
}

static inline int tn_net_pair_send_(void *ctx, uint32_t pair, const struct tn_net_hdr *hdr,
                                    const struct tn_iov *iov, uint32_t iovs, uint32_t len)
{
    struct tn_net_pair *p = (struct tn_net_pair *)ctx;
    struct iovec v[TN_NET_IOVS + 1];
    uint8_t wire[TN_NET_HDR];
    struct msghdr msg;
    uint32_t got;
    ssize_t n;

    if (p->end)
        return tn_net_pair_end_(p);
    if (pair != 0 || iovs > TN_NET_IOVS || len == 0 || len > TN_NET_FRAME_MAX)
        return TN_EINVAL;
    tn_net_hdr_put(hdr, wire);
    __builtin_memset(&msg, 0, sizeof(msg));
    msg.msg_iov = v;
    msg.msg_iovlen = tn_net_pair_vector_(v, wire, iov, iovs, len, &got);
    if (got < len)
        return TN_EINVAL;
    do
        n = sendmsg(p->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return TN_EAGAIN;
    if (n < 0 && errno != ENOBUFS && errno != ENOMEM && errno != EMSGSIZE)
        return tn_net_pair_end_(p);
    return 0; /* if not, it is lost on the way */
}

/* Makes the checksum of a frame whose header was checked (5.1.6.2): the guest's bytes decide it. */
static inline void tn_net_pair_csum_(const struct tn_net_hdr *hdr, const struct iovec *v,
                                     size_t count, uint32_t len)
{
    uint32_t at = 0, place = (uint32_t)hdr->csum_start + hdr->csum_offset;
    uint64_t sum = 0;

    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < v[i].iov_len && at < len; k++, at++)
            if (at >= hdr->csum_start)
                sum += (uint64_t)((const uint8_t *)v[i].iov_base)[k]
                       << ((at - hdr->csum_start) % 2 == 0 ? 8 : 0);
    while (sum > 0xffff)
        sum = (sum & 0xffff) + (sum >> 16);
    sum = sum == 0xffff ? sum : ~sum & 0xffff; /* 0 would mean that there is none (RFC 768) */
    at = 0;
    for (size_t i = 0; i < count; at += (uint32_t)v[i++].iov_len) {
        if (place >= at && place - at < v[i].iov_len)
            ((uint8_t *)v[i].iov_base)[place - at] = (uint8_t)(sum >> 8);
        if (place + 1 >= at && place + 1 - at < v[i].iov_len)
            ((uint8_t *)v[i].iov_base)[place + 1 - at] = (uint8_t)sum;
    }
}

static inline int64_t tn_net_pair_recv_(void *ctx, uint32_t pair, struct tn_net_hdr *hdr,
                                        const struct tn_iov *iov, uint32_t iovs)
{
    struct tn_net_pair *p = (struct tn_net_pair *)ctx;
    struct iovec v[TN_NET_IOVS + 1];
    uint8_t wire[TN_NET_HDR];
    struct msghdr msg;
    uint32_t room, len;
    ssize_t n;

    __builtin_memset(hdr, 0, sizeof(*hdr));
    if (pair != 0 || iovs > TN_NET_IOVS)
        return TN_EINVAL;
    if (p->end)
        return tn_net_pair_end_(p);
    __builtin_memset(&msg, 0, sizeof(msg));
    msg.msg_iov = v;
    msg.msg_iovlen = tn_net_pair_vector_(v, wire, iov, iovs, TN_NET_FRAME_MAX, &room);
    do
        n = recvmsg(p->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM))
        return TN_EAGAIN;
    if (n <= 0)
        return tn_net_pair_end_(p);
    if (n <= (ssize_t)TN_NET_HDR || (msg.msg_flags & MSG_TRUNC) != 0) {
        p->lost++;
        return TN_ETRUNC;
    }
    len = (uint32_t)n - TN_NET_HDR;
    tn_net_hdr_get(hdr, wire);
    if (tn_net_hdr_check(hdr, p->offloads | TN_NET_CSUM, len) < 0) {
        __builtin_memset(hdr, 0, sizeof(*hdr));
        p->lost++;
        return TN_ETRUNC;
    }
    if ((p->offloads & TN_NET_CSUM) == 0) {
        if ((hdr->flags & TN_NET_HDR_F_NEEDS_CSUM) != 0)
            tn_net_pair_csum_(hdr, v + 1, msg.msg_iovlen - 1, len);
        __builtin_memset(hdr, 0, sizeof(*hdr));
    }
    return (int64_t)len;
}

static inline int tn_net_pair_set_(void *ctx, uint32_t offloads, uint32_t pairs)
{
    struct tn_net_pair *p = (struct tn_net_pair *)ctx;

    if ((offloads & ~p->net.rx_offloads) != 0 || pairs != 1)
        return TN_EINVAL;
    p->offloads = offloads & TN_NET_CSUM ? offloads : 0; /* segments have checksums open */
    return 0;
}

static inline int tn_net_pair_fd_(void *ctx, uint32_t pair)
{
    const struct tn_net_pair *p = (const struct tn_net_pair *)ctx;

    return pair == 0 && !p->end ? p->fd : -1;
}

TN_API int tn_net_pair_sockets(int fds[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0 ? TN_ESYS : 0;
}

TN_API int tn_net_pair_init(struct tn_net_pair *p, int fd, uint32_t offloads)
{
    static const struct tn_net_ops ops = {tn_net_pair_send_, tn_net_pair_recv_, tn_net_pair_set_,
                                          tn_net_pair_fd_};
    int type = 0, size = TN_NET_PAIR_BUFFER_, saved = errno;
    socklen_t len = sizeof(type);

    __builtin_memset(p, 0, sizeof(*p));
    p->net.ops = &ops;
    p->net.ctx = p;
    p->net.tx_offloads = p->net.rx_offloads = TN_NET_CSUM | offloads;
    p->net.pairs = 1;
    p->end = true;
    p->fd = -1;
    if ((offloads & ~TN_NET_PAIR_ALL_) != 0)
        return TN_EINVAL;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
        return errno == ENOTSOCK ? TN_EINVAL : TN_ESYS;
    if (type != SOCK_SEQPACKET)
        return TN_EINVAL;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) < 0)
        errno = saved; /* as it is, then */
    p->fd = fd;
    p->end = false;
    return 0;
}

TN_API void tn_net_pair_close(struct tn_net_pair *p)
{
    int saved = errno;

    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
    p->end = true;
    errno = saved;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_NET_PAIR_H */
