/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_net_stream - a network device's frames over a stream socket, as passt and QEMU speak.
 *
 * WHAT
 *   Each frame is its length, 32 bits in network order, and its bytes. A program at the other end,
 *   passt for one, is then the guest's network, without any privilege. Offloads do not exist here:
 *   every frame has its checksums.
 *
 * USAGE
 *   static struct tn_net_stream stream;
 *   struct tn_net_stream_cfg cfg = {"/run/passt.sock", -1};
 *   struct tn_net_hdr hdr;
 *   uint8_t frame[1514];
 *   struct tn_iov iov = {frame, sizeof(frame)};
 *   int64_t len;
 *
 *   if (tn_net_stream_init(&stream, &cfg) < 0)
 *       return 1;
 *   len = stream.net.ops->recv(stream.net.ctx, 0, &hdr, &iov, 1);
 *   if (len == TN_ESYS && stream.error == EPROTO)
 *       return 2;
 *   tn_net_stream_close(&stream);
 *
 * COMPOSITION
 *   stream.net is what tn_virtio_net asks; tn_loop watches what net.ops->fd returns, which is
 *   another descriptor, or none, after each call that sets stream.end or clears it. When it is set,
 *   a stream with a path waits for stream.retry nanoseconds, with the link down, and asks
 *   tn_net_stream_retry, again and again; until then recv says that there is no frame, and what is
 *   sent is lost. tn_vm_net does so. One that was given an fd stays ended.
 *
 * GUEST TRUST
 *   The peer is not trusted either: a length of 0, or above TN_NET_FRAME_MAX, ends the stream. It
 *   has one frame in memory, whatever it sends and however it is cut. A frame that is on its way
 *   goes whole, with the length that was said, even if a guest changes its bytes.
 *
 * MEMORY
 *   The caller owns struct tn_net_stream, 128 KiB, and keeps it where it is from init to close; the
 *   path is copied. A call takes 16 KiB of stack.
 *
 * THREADS
 *   One call at a time on one struct.
 *
 * CONFIG
 *   It wants _GNU_SOURCE, and defines it where it is the first header.
 *
 * LIMITS
 *   Linux. One pair of queues. A frame of which the socket has taken a part is said to be taken
 *   only with the rest, TN_EAGAIN until then; if another one is given after that, both go. A frame
 *   that either side began and did not end is lost with the connection.
 */
#ifndef TN_NET_STREAM_H
#define TN_NET_STREAM_H

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

#include "tn_iov.h"
#include "tn_net.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_NET_STREAM_LEN 4u /* bytes of a length */

/* Nanoseconds before the first try to connect anew; each wait is twice the last, up to the most. */
#define TN_NET_STREAM_RETRY     100000000u
#define TN_NET_STREAM_RETRY_MAX 5000000000u

struct tn_net_stream_cfg {
    const char *path; /* of a Unix socket to connect to; NULL: fd */
    int fd;           /* a connected stream socket; ours after init */
};

/* A connection. Use net and the three that follow; the rest is the functions'. */
struct tn_net_stream {
    struct tn_net net;
    bool end;        /* no frame will come or go, unless tn_net_stream_retry finds somebody */
    int error;       /* why: an errno, EPROTO for a length; 0: the peer has closed */
    uint64_t retry;  /* nanoseconds to wait before that */
    char path[108];  /* to connect to; "": a given fd, or closed */
    int fd;          /* -1: closed */
    uint32_t rx_len; /* bytes in rx: a length, its frame, the next length */
    uint32_t tx_len; /* bytes in tx: a length and its frame, of which a part is sent; 0: none */
    uint32_t tx_at;  /* bytes of it that are sent */
    uint8_t rx[TN_NET_STREAM_LEN + TN_NET_FRAME_MAX + TN_NET_STREAM_LEN];
    uint8_t tx[TN_NET_STREAM_LEN + TN_NET_FRAME_MAX];
};

/*
 * Connects, or takes what is connected, and fills in s->net. Returns 0; TN_EINVAL: a path that is
 * empty or longer than 107 bytes, or an fd that is no stream socket; TN_ESYS: ENOENT and
 * ECONNREFUSED where nobody listens, EAGAIN where too many wait. After an error *s is closed and
 * cfg->fd is still the caller's.
 */
TN_API int tn_net_stream_init(struct tn_net_stream *s, const struct tn_net_stream_cfg *cfg);

/*
 * Connects anew, once s->end is set, to the path that init was given; closes the old descriptor,
 * which no loop watches any more. Returns 0, and s->end is false; TN_ESTATE: it has not ended, or
 * has no path; TN_ESYS: as init, and s->end stays. In either case s->retry, the wait before the
 * next call, is longer than it was, until a frame has come.
 */
TN_API int tn_net_stream_retry(struct tn_net_stream *s);

/*
 * Closes the connection; what the peer does not have yet of a frame is lost. Nothing on a closed
 * one. errno is kept.
 */
TN_API void tn_net_stream_close(struct tn_net_stream *s);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#ifdef __cplusplus
} /* the system's headers have their own */
#endif
#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>
#if defined(__GLIBC__) && !defined(__USE_GNU)
#error "tn_net_stream.h: compile with -D_GNU_SOURCE, or include it before the system's headers"
#endif
#ifdef __cplusplus
extern "C" {
#endif

/* The length at p, in network order. */
static inline uint32_t tn_net_stream_get_(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Nothing more comes or goes: error is why. */
static inline int tn_net_stream_end_(struct tn_net_stream *s, int error)
{
    if (!s->end)
        s->error = error;
    s->end = true;
    errno = s->error != 0 ? s->error : EPIPE;
    return TN_ESYS;
}

/* The same, for recv: on a path somebody may come back, and there is just no frame now. */
static inline int tn_net_stream_over_(struct tn_net_stream *s, int error)
{
    int result = tn_net_stream_end_(s, error);

    return s->path[0] != '\0' ? TN_EAGAIN : result;
}

/* Sends what iov holds, as far as there is room: bytes, TN_EAGAIN for none, TN_ESYS. */
static inline int64_t tn_net_stream_put_(struct tn_net_stream *s, struct iovec *iov, size_t iovs)
{
    struct msghdr msg;
    ssize_t n;

    __builtin_memset(&msg, 0, sizeof(msg));
    msg.msg_iov = iov;
    msg.msg_iovlen = iovs;
    do
        n = sendmsg(s->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n >= 0)
        return n;
    if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM)
        return TN_EAGAIN;
    return tn_net_stream_end_(s, errno);
}

/* Sends the rest of the frame that is on its way. Returns 0 when there is no more of it. */
static inline int tn_net_stream_flush_(struct tn_net_stream *s)
{
    struct iovec v;
    int64_t n;

    while (s->tx_at < s->tx_len) {
        v.iov_base = s->tx + s->tx_at;
        v.iov_len = s->tx_len - s->tx_at;
        n = tn_net_stream_put_(s, &v, 1);
        if (n < 0)
            return (int)n;
        s->tx_at += (uint32_t)n;
    }
    return 0;
}

/* Whether the iovecs hold the frame in tx. */
static inline bool tn_net_stream_same_(const struct tn_net_stream *s, const struct iovec *v,
                                       size_t count)
{
    uint32_t at = 0;

    for (size_t i = 0; i < count; at += (uint32_t)v[i++].iov_len)
        if (v[i].iov_len > s->tx_len - at ||
            __builtin_memcmp(s->tx + at, v[i].iov_base, v[i].iov_len) != 0)
            return false;
    return at == s->tx_len;
}

static inline int tn_net_stream_send_(void *ctx, uint32_t pair, const struct tn_net_hdr *hdr,
                                      const struct tn_iov *iov, uint32_t iovs, uint32_t len)
{
    struct tn_net_stream *s = (struct tn_net_stream *)ctx;
    uint8_t prefix[TN_NET_STREAM_LEN] = {(uint8_t)(len >> 24), (uint8_t)(len >> 16),
                                         (uint8_t)(len >> 8), (uint8_t)len};
    struct iovec v[TN_NET_IOVS + 1];
    size_t count = 1;
    uint32_t at = 0;
    int64_t n;
    bool same;
    int result;

    if (s->end)
        return tn_net_stream_end_(s, 0);
    if (pair != 0 || iovs > TN_NET_IOVS || len == 0 || len > TN_NET_FRAME_MAX ||
        (hdr->flags & TN_NET_HDR_F_NEEDS_CSUM) != 0 || hdr->gso_type != TN_NET_HDR_GSO_NONE)
        return TN_EINVAL;
    v[0].iov_base = prefix;
    v[0].iov_len = sizeof(prefix);
    for (uint32_t i = 0; i < iovs && at < len; i++) {
        v[count].iov_base = iov[i].base;
        v[count].iov_len = iov[i].len < len - at ? iov[i].len : len - at;
        at += (uint32_t)v[count++].iov_len;
    }
    if (at < len)
        return TN_EINVAL;
    if (s->tx_len > 0) {
        result = tn_net_stream_flush_(s);
        if (result < 0)
            return result;
        same = tn_net_stream_same_(s, v, count);
        s->tx_len = 0;
        s->tx_at = 0;
        if (same)
            return 0; /* the one that did not fit before */
    }
    n = tn_net_stream_put_(s, v, count);
    if (n < 0 || (uint64_t)n == sizeof(prefix) + len)
        return n < 0 ? (int)n : 0;
    for (size_t i = 0; i < count; s->tx_len += (uint32_t)v[i++].iov_len)
        __builtin_memcpy(s->tx + s->tx_len, v[i].iov_base, v[i].iov_len);
    s->tx_at = (uint32_t)n;
    return TN_EAGAIN;
}

/* Reads on, to want bytes in rx: 0, or TN_EAGAIN: they are not there (yet); TN_ESYS. */
static inline int tn_net_stream_fill_(struct tn_net_stream *s, uint32_t want)
{
    ssize_t n;

    if (s->rx_len >= want)
        return 0;
    do
        n = recv(s->fd, s->rx + s->rx_len, want - s->rx_len, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM))
        return TN_EAGAIN;
    if (n <= 0)
        return tn_net_stream_over_(s, n < 0 ? errno : 0);
    s->rx_len += (uint32_t)n;
    return s->rx_len >= want ? 0 : TN_EAGAIN;
}

/*
 * One read gets the rest of a frame and the length of the next one, never a frame more: as long as
 * there is one to be had, the socket is readable.
 */
static inline int64_t tn_net_stream_recv_(void *ctx, uint32_t pair, struct tn_net_hdr *hdr,
                                          const struct tn_iov *iov, uint32_t iovs)
{
    struct tn_net_stream *s = (struct tn_net_stream *)ctx;
    uint32_t len, whole;
    size_t at;
    int result;

    __builtin_memset(hdr, 0, sizeof(*hdr));
    if (pair != 0 || iovs > TN_NET_IOVS)
        return TN_EINVAL;
    if (s->end)
        return tn_net_stream_over_(s, 0);
    result = tn_net_stream_fill_(s, TN_NET_STREAM_LEN);
    if (result < 0)
        return result;
    len = tn_net_stream_get_(s->rx);
    if (len == 0 || len > TN_NET_FRAME_MAX)
        return tn_net_stream_over_(s, EPROTO);
    whole = TN_NET_STREAM_LEN + len;
    result = tn_net_stream_fill_(s, whole + TN_NET_STREAM_LEN);
    if (s->rx_len < whole)
        return result;
    at = tn_iov_scatter(iov, iovs, 0, s->rx + TN_NET_STREAM_LEN, len);
    s->retry = TN_NET_STREAM_RETRY;
    s->rx_len -= whole;
    __builtin_memmove(s->rx, s->rx + whole, s->rx_len);
    return at < len ? (int64_t)TN_ETRUNC : (int64_t)len;
}

static inline int tn_net_stream_set_(void *ctx, uint32_t offloads, uint32_t pairs)
{
    (void)ctx;
    return offloads == 0 && pairs == 1 ? 0 : TN_EINVAL;
}

static inline int tn_net_stream_fd_(void *ctx, uint32_t pair)
{
    const struct tn_net_stream *s = (const struct tn_net_stream *)ctx;

    return pair == 0 && !s->end ? s->fd : -1;
}

static inline int tn_net_stream_connect_(const char *path)
{
    struct sockaddr_un addr;
    int fd, saved;

    __builtin_memset(&addr, 0, sizeof(addr));
    addr.sun_family = AF_UNIX;
    __builtin_memcpy(addr.sun_path, path, __builtin_strlen(path));
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)(const void *)&addr, sizeof(addr)) == 0)
        return fd;
    saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

TN_API int tn_net_stream_init(struct tn_net_stream *s, const struct tn_net_stream_cfg *cfg)
{
    static const struct tn_net_ops ops = {tn_net_stream_send_, tn_net_stream_recv_,
                                          tn_net_stream_set_, tn_net_stream_fd_};
    socklen_t len = sizeof(int);
    int type = 0;

    __builtin_memset(s, 0, sizeof(*s));
    s->net.ops = &ops;
    s->net.ctx = s;
    s->net.pairs = 1;
    s->end = true;
    s->retry = TN_NET_STREAM_RETRY;
    s->fd = -1;
    if (cfg->path) {
        if (cfg->path[0] == '\0' || __builtin_strlen(cfg->path) >= sizeof(s->path))
            return TN_EINVAL;
        s->fd = tn_net_stream_connect_(cfg->path);
        if (s->fd < 0)
            return TN_ESYS;
        __builtin_memcpy(s->path, cfg->path, __builtin_strlen(cfg->path));
    } else {
        if (getsockopt(cfg->fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
            return errno == ENOTSOCK ? TN_EINVAL : TN_ESYS;
        if (type != SOCK_STREAM)
            return TN_EINVAL;
        s->fd = cfg->fd;
    }
    s->end = false;
    return 0;
}

TN_API int tn_net_stream_retry(struct tn_net_stream *s)
{
    if (!s->end || s->path[0] == '\0')
        return TN_ESTATE;
    s->retry = s->retry < TN_NET_STREAM_RETRY_MAX / 2 ? 2 * s->retry : TN_NET_STREAM_RETRY_MAX;
    if (s->fd >= 0)
        close(s->fd);
    s->fd = tn_net_stream_connect_(s->path);
    if (s->fd < 0)
        return TN_ESYS;
    s->rx_len = 0;
    s->tx_len = 0;
    s->tx_at = 0;
    s->error = 0;
    s->end = false;
    return 0;
}

TN_API void tn_net_stream_close(struct tn_net_stream *s)
{
    int saved = errno;

    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    s->path[0] = '\0';
    tn_net_stream_end_(s, 0);
    errno = saved;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_NET_STREAM_H */
