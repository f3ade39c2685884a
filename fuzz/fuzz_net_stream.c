/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A peer's bytes in arbitrary cuts, and a socket that takes and gives as much as it likes, against
 * a model. Properties: the frames that come are those that the bytes hold, in order, none early,
 * none late, and as long as there is one, the socket is readable; a hostile length ends the stream,
 * and nothing comes after an end; nothing is written beyond the iovecs; what went out is at any
 * time the beginning of the frames that were taken, whole and in order, each once, but for one
 * that was begun and not given again, which goes out too.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fuzz.h"

#define WIRE (1u << 20) /* bytes of either direction that are remembered */
#define FD   12345

/* ---- the socket --------------------------------------------------------------------------- */

static struct {
    uint8_t in[WIRE];  /* what the peer has sent */
    size_t fed, taken; /* bytes of it, and of them read */
    size_t give;       /* a read gives no more at once */
    bool over;         /* the peer has closed */
    uint8_t out[WIRE]; /* what has reached the peer */
    size_t sent, room; /* bytes of it; that are still taken */
    int error, times;  /* the next calls fail so */
    bool cut;          /* a read gave less than there was */
} sock;

static bool fails(void)
{
    if (sock.times == 0)
        return false;
    sock.times--;
    errno = sock.error;
    return true;
}

static ssize_t fuzz_recv(int fd, void *buf, size_t len, int flags)
{
    size_t n = sock.fed - sock.taken;

    FZ_ASSERT(fd == FD && len > 0 && (flags & MSG_DONTWAIT));
    if (fails())
        return -1;
    if (n == 0 && sock.over)
        return 0;
    if (n == 0) {
        errno = EAGAIN;
        return -1;
    }
    n = n < len ? n : len;
    if (n > sock.give) {
        n = sock.give;
        sock.cut = true;
    }
    memcpy(buf, sock.in + sock.taken, n);
    sock.taken += n;
    return (ssize_t)n;
}

static ssize_t fuzz_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    size_t done = 0;

    FZ_ASSERT(fd == FD && (flags & MSG_DONTWAIT) && (flags & MSG_NOSIGNAL));
    if (fails())
        return -1;
    if (sock.room == 0) {
        errno = EAGAIN;
        return -1;
    }
    for (size_t i = 0; i < msg->msg_iovlen; i++) {
        size_t n = msg->msg_iov[i].iov_len < sock.room ? msg->msg_iov[i].iov_len : sock.room;

        FZ_ASSERT(sock.sent + n <= WIRE);
        if (n > 0)
            memcpy(sock.out + sock.sent, msg->msg_iov[i].iov_base, n);
        sock.sent += n;
        sock.room -= n;
        done += n;
    }
    return (ssize_t)done;
}

static int fuzz_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    FZ_ASSERT(fd == FD && level == SOL_SOCKET && name == SO_TYPE && *len == sizeof(int));
    *(int *)value = SOCK_STREAM;
    return 0;
}

static int fuzz_close(int fd)
{
    FZ_ASSERT(fd == FD);
    return 0;
}

#define recv(fd, buf, len, flags) fuzz_recv(fd, buf, len, flags)
#define sendmsg                   fuzz_sendmsg
#define getsockopt                fuzz_getsockopt
#define close                     fuzz_close
#include "tn_net_stream.h"
#undef recv
#undef sendmsg
#undef getsockopt
#undef close

/* ---- the model ---------------------------------------------------------------------------- */

static struct tn_net_stream s;
static uint8_t want[WIRE];             /* what has to go out */
static size_t wants;                   /* bytes of it */
static uint8_t torn[TN_NET_FRAME_MAX]; /* the frame that was begun and is to be given again */
static uint32_t torn_len;              /* 0: none */
static size_t at;                      /* of sock.in: the next frame's length */
static bool ended;
static uint8_t frame[TN_NET_FRAME_MAX + 1], got[TN_NET_FRAME_MAX + 1];

static void begin(void)
{
    struct tn_net_stream_cfg cfg = {NULL, FD};

    sock.fed = sock.taken = sock.sent = at = wants = 0;
    sock.over = false;
    sock.times = 0;
    sock.give = WIRE;
    sock.room = 0;
    torn_len = 0;
    ended = false;
    FZ_ASSERT(tn_net_stream_init(&s, &cfg) == 0);
}

static void end(int error)
{
    ended = true;
    FZ_ASSERT(s.end && (error < 0 || s.error == error));
    FZ_ASSERT(s.net.ops->fd(s.net.ctx, 0) == -1);
}

static void feed(const uint8_t *bytes, size_t len)
{
    if (len > WIRE - sock.fed || sock.over)
        return;
    memcpy(sock.in + sock.fed, bytes, len);
    sock.fed += len;
}

static void feed_frame(uint32_t len, uint32_t body, uint8_t seed)
{
    uint8_t prefix[4] = {(uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8),
                         (uint8_t)len};

    if (body > sizeof(frame))
        body = sizeof(frame);
    memset(frame, seed, body);
    feed(prefix, 4);
    feed(frame, body);
}

static void take(uint32_t cap, uint32_t first)
{
    struct tn_iov iov[3];
    struct tn_net_hdr hdr;
    int times = sock.times;
    bool failing = times > 0;
    size_t have = sock.fed - at;
    uint32_t len = 0;
    int64_t n;

    first = first < cap ? first : cap;
    iov[0].base = got;
    iov[0].len = first;
    iov[1].base = got;
    iov[1].len = 0;
    iov[2].base = got + first;
    iov[2].len = cap - first;
    got[cap] = 0x5a;
    if (have >= 4)
        len = (uint32_t)sock.in[at] << 24 | (uint32_t)sock.in[at + 1] << 16 |
              (uint32_t)sock.in[at + 2] << 8 | sock.in[at + 3];
    if (!ended && have >= 4 && len > 0 && len <= TN_NET_FRAME_MAX && have - 4 >= len)
        FZ_ASSERT(sock.taken < sock.fed); /* poll says that there is one */
    sock.cut = false;
    n = s.net.ops->recv(s.net.ctx, 0, &hdr, iov, 3);
    FZ_ASSERT(got[cap] == 0x5a);
    FZ_ASSERT(hdr.flags == 0 && hdr.gso_type == 0 && hdr.num_buffers == 0);
    if (ended) {
        FZ_ASSERT(n == TN_ESYS);
        return;
    }
    if (n == TN_ESYS && sock.times < times && sock.error == ECONNRESET) {
        end(ECONNRESET);
        return;
    }
    if (n > 0 || n == TN_ETRUNC) {
        FZ_ASSERT(have >= 4 && len > 0 && len <= TN_NET_FRAME_MAX && have - 4 >= len);
        FZ_ASSERT(n == (len <= cap ? (int64_t)len : TN_ETRUNC));
        FZ_ASSERT(n < 0 || memcmp(got, sock.in + at + 4, len) == 0);
        at += 4 + len;
        return;
    }
    if (n == TN_ESYS) {
        if (have >= 4 && (len == 0 || len > TN_NET_FRAME_MAX)) {
            end(EPROTO);
        } else {
            FZ_ASSERT(sock.over && sock.taken == sock.fed && (have < 4 || have - 4 < len));
            end(0);
        }
        return;
    }
    FZ_ASSERT(n == TN_EAGAIN);
    /* There is none, or the socket did not give it. */
    if (!sock.cut && !failing)
        FZ_ASSERT(have < 4 || (len > 0 && len <= TN_NET_FRAME_MAX && have - 4 < len));
}

static void must_go_out(uint32_t len)
{
    uint8_t prefix[4] = {(uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8),
                         (uint8_t)len};

    memcpy(want + wants, prefix, 4);
    memcpy(want + wants + 4, frame, len);
    wants += 4 + len;
}

static void give(uint32_t len, uint8_t seed, bool open)
{
    struct tn_iov iov[2];
    struct tn_net_hdr hdr;
    size_t before;
    bool same;
    int n;

    if (wants + len + TN_NET_FRAME_MAX + 8 > WIRE)
        return;
    memset(&hdr, 0, sizeof(hdr));
    hdr.flags = open ? TN_NET_HDR_F_NEEDS_CSUM : 0;
    if (len > 0 && len <= TN_NET_FRAME_MAX)
        memset(frame, seed, len);
    iov[0].base = frame;
    iov[0].len = len / 3;
    iov[1].base = frame + len / 3;
    iov[1].len = sizeof(frame) - len / 3;
    if (len > sizeof(frame))
        iov[1].len = iov[0].len = 1;
    same = torn_len > 0 && torn_len == len && memcmp(torn, frame, len) == 0;
    before = wants;
    n = s.net.ops->send(s.net.ctx, 0, &hdr, iov, 2, len);
    if (ended) {
        FZ_ASSERT(n == TN_ESYS);
        return;
    }
    if (open || len == 0 || len > TN_NET_FRAME_MAX) {
        FZ_ASSERT(n == TN_EINVAL);
        return;
    }
    if (n == TN_ESYS) {
        end(ECONNRESET);
        FZ_ASSERT(sock.error == ECONNRESET);
        return;
    }
    FZ_ASSERT(n == 0 || n == TN_EAGAIN);
    if (torn_len > 0 && sock.sent >= before)
        torn_len = 0; /* the rest of it is out */
    else if (torn_len > 0)
        FZ_ASSERT(n == TN_EAGAIN);
    if (torn_len == 0 && same) {
        FZ_ASSERT(n == 0 && sock.sent == before);
    } else if (torn_len == 0 && (n == 0 || sock.sent > before)) {
        must_go_out(len);
        FZ_ASSERT(n < 0 || sock.sent == wants);
        if (n < 0) {
            FZ_ASSERT(sock.sent < wants);
            memcpy(torn, frame, len);
            torn_len = len;
        }
    }
}

static void check(void)
{
    FZ_ASSERT(sock.sent <= wants && memcmp(sock.out, want, sock.sent) == 0);
    FZ_ASSERT(s.rx_len <= sizeof(s.rx) && s.tx_len <= sizeof(s.tx) && s.tx_at <= s.tx_len);
    FZ_ASSERT(s.end == ended);
    if (sock.sent == wants && wants > WIRE / 4)
        sock.sent = wants = 0;
    if (at == sock.fed && sock.taken == sock.fed && s.rx_len == 0 && at > WIRE / 4)
        at = sock.fed = sock.taken = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int errors[] = {EINTR, EAGAIN, ENOBUFS, ECONNRESET};
    uint8_t bytes[64];
    struct fz z;

    fz_init(&z, data, size);
    begin();
    for (unsigned op = 0; op < 1024 && z.left > 0; op++) {
        uint8_t what = fz_u8(&z);
        uint32_t len;

        switch (what >> 4) {
        case 0:
        case 1: /* any bytes */
            feed(bytes, fz_bytes(&z, bytes, what & 31));
            break;
        case 2: /* a frame of a few bytes */
            feed_frame(1 + (what & 15u), 1 + (what & 15u), what);
            break;
        case 3: /* of any length, that has perhaps fewer bytes, or more */
            len = fz_take(&z, what & 1 ? 3 : 2) & 0xffffff;
            feed_frame(len, what & 2 ? len : len / 2 + (what & 12u), what);
            break;
        case 4: /* zeros, as pieces of a large one */
            len = fz_u16(&z);
            memset(frame, 0, len);
            feed(frame, len);
            break;
        case 5:
        case 6:
        case 7:
            take(what & 1 ? TN_NET_FRAME_MAX : fz_u8(&z), what & 2 ? 1 : 4000);
            break;
        case 8:
            sock.give = what & 1 ? WIRE : 1 + fz_u8(&z);
            break;
        case 9:
        case 10:
            give(1 + fz_u8(&z), what & 3, what == 0xaf);
            break;
        case 11:
            give(fz_take(&z, what & 1 ? 3 : 2) & 0x1ffff, what & 2, false);
            break;
        case 12:
        case 13:
            sock.room = what & 1 ? fz_u16(&z) : fz_u8(&z);
            if (what & 2)
                sock.room *= 4;
            break;
        case 14:
            sock.error = errors[what & 3];
            sock.times = (what >> 2 & 3) + (sock.error == EINTR);
            break;
        default:
            if (what == 0xff) {
                tn_net_stream_close(&s);
                begin();
            } else if (what & 1) {
                sock.over = true;
            } else {
                FZ_ASSERT(s.net.ops->set(s.net.ctx, 0, 1) == 0);
            }
            break;
        }
        check();
    }
    tn_net_stream_close(&s);
    return 0;
}
