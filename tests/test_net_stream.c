/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_net_stream, on real sockets: streams that are cut everywhere, hostile lengths, peers that stop
 * reading or go away, and come back. What a socket answers seldom is had by standing in for its
 * system calls.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

/* The next times transfers, and other calls, fail so. */
static struct {
    int times;
    int error;
} stand_in;

static int stands_in(void)
{
    if (stand_in.times == 0)
        return 0;
    stand_in.times--;
    errno = stand_in.error;
    return 1;
}

static ssize_t test_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    return stands_in() ? -1 : sendmsg(fd, msg, flags);
}

static ssize_t test_recv(int fd, void *buf, size_t len, int flags)
{
    return stands_in() ? -1 : recv(fd, buf, len, flags);
}

static int test_socket(int domain, int type, int protocol)
{
    return stands_in() ? -1 : socket(domain, type, protocol);
}

#define sendmsg                   test_sendmsg
#define recv(fd, buf, len, flags) test_recv(fd, buf, len, flags) /* tn_net_ops has one, too */
#define socket                    test_socket
#include "tn_net_stream.h"
#undef sendmsg
#undef recv
#undef socket

#include "test.h"
#include "tn_vm_net.h"

#define MAX TN_NET_FRAME_MAX

static struct tn_net_stream stream; /* too large for a stack */
static int peer = -1;
static uint8_t frame[MAX + 8], got[MAX + 8];

static int fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void join(int sndbuf)
{
    struct tn_net_stream_cfg cfg = {NULL, -1};
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    if (sndbuf > 0)
        assert_int_equal(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof(sndbuf)), 0);
    cfg.fd = ends[0];
    peer = ends[1];
    memset(&stream, 0xa5, sizeof(stream));
    assert_int_equal(tn_net_stream_init(&stream, &cfg), 0);
    assert_false(stream.end);
    assert_int_equal(stream.net.pairs, 1);
    assert_int_equal(stream.net.tx_offloads | stream.net.rx_offloads, 0);
    assert_int_equal(stream.net.ops->fd(stream.net.ctx, 0), ends[0]);
    assert_int_equal(stream.net.ops->fd(stream.net.ctx, 1), -1);
}

static void part(void)
{
    tn_net_stream_close(&stream);
    tn_net_stream_close(&stream);
    assert_true(stream.end);
    assert_int_equal(stream.net.ops->fd(stream.net.ctx, 0), -1);
    if (peer >= 0)
        close(peer);
    peer = -1;
}

static void fill(uint8_t *p, size_t len, unsigned seed)
{
    uint64_t state = seed + 1;

    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(test_random(&state) >> 32);
}

static void put32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static void peer_write(const void *bytes, size_t len)
{
    assert_int_equal(send(peer, bytes, len, MSG_DONTWAIT), len);
}

static int64_t take(size_t cap)
{
    struct tn_iov iov[3] = {{got, cap / 3}, {got, 0}, {got + cap / 3, cap - cap / 3}};
    struct tn_net_hdr hdr;
    int64_t n;

    memset(&hdr, 0xee, sizeof(hdr));
    n = stream.net.ops->recv(stream.net.ctx, 0, &hdr, iov, 3);
    assert_int_equal(hdr.flags | hdr.gso_type | hdr.gso_size | hdr.csum_start | hdr.num_buffers, 0);
    return n;
}

static int give(const uint8_t *bytes, uint32_t len)
{
    uint8_t *p = (uint8_t *)(uintptr_t)bytes;
    struct tn_iov iov[3] = {{p, len / 2}, {p, 0}, {p + len / 2, MAX}};
    struct tn_net_hdr hdr = {0};

    return stream.net.ops->send(stream.net.ctx, 0, &hdr, iov, 3, len);
}

/* ---- what is refused ---------------------------------------------------------------------- */

static void refuses_what_is_no_stream(void **state)
{
    char longer[200], path[108];
    struct tn_net_stream_cfg cfg = {"", -1};
    int before = fds(), ends[2], fd;

    (void)state;
    assert_int_equal(tn_net_stream_init(&stream, &cfg), TN_EINVAL);
    memset(longer, 'a', sizeof(longer));
    longer[sizeof(longer) - 1] = 0;
    cfg.path = longer;
    assert_int_equal(tn_net_stream_init(&stream, &cfg), TN_EINVAL);
    longer[108] = 0;
    assert_int_equal(tn_net_stream_init(&stream, &cfg), TN_EINVAL);
    longer[107] = 0;
    assert_int_equal(tn_net_stream_init(&stream, &cfg), TN_ESYS);
    assert_int_equal(errno, ENOENT);
    snprintf(path, sizeof(path), "/proc/self/exe");
    cfg.path = path;
    assert_int_equal(tn_net_stream_init(&stream, &cfg), TN_ESYS);
    stand_in.times = 1;
    stand_in.error = EMFILE;
    assert_int_equal(tn_net_stream_init(&stream, &cfg), TN_ESYS);
    assert_int_equal(errno, EMFILE);
    cfg.path = NULL;
    assert_int_equal(tn_net_stream_init(&stream, &cfg), TN_ESYS);
    assert_int_equal(errno, EBADF);
    fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    cfg.fd = fd;
    assert_int_equal(tn_net_stream_init(&stream, &cfg), TN_EINVAL);
    assert_true(stream.end);
    assert_int_equal(stream.fd, -1);
    assert_int_equal(close(fd), 0); /* still ours */
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
    cfg.fd = ends[0];
    assert_int_equal(tn_net_stream_init(&stream, &cfg), TN_EINVAL);
    assert_int_equal(take(60), TN_ESYS);
    assert_int_equal(give(frame, 60), TN_ESYS);
    close(ends[0]);
    close(ends[1]);
    assert_int_equal(fds(), before);
}

static void refuses_the_askers_mistakes(void **state)
{
    struct tn_iov iov = {frame, 60};
    struct tn_net_hdr hdr = {TN_NET_HDR_F_NEEDS_CSUM, 0, 0, 0, 0, 0, 0};
    const struct tn_net_ops *ops;

    (void)state;
    join(0);
    ops = stream.net.ops;
    assert_int_equal(ops->send(&stream, 0, &hdr, &iov, 1, 60), TN_EINVAL);
    hdr.flags = 0;
    hdr.gso_type = TN_NET_HDR_GSO_TCPV4;
    assert_int_equal(ops->send(&stream, 0, &hdr, &iov, 1, 60), TN_EINVAL);
    hdr.gso_type = 0;
    assert_int_equal(ops->send(&stream, 1, &hdr, &iov, 1, 60), TN_EINVAL);
    assert_int_equal(ops->send(&stream, 0, &hdr, &iov, 1, 61), TN_EINVAL);
    assert_int_equal(ops->send(&stream, 0, &hdr, &iov, 1, 0), TN_EINVAL);
    assert_int_equal(ops->send(&stream, 0, &hdr, &iov, 1, MAX + 1), TN_EINVAL);
    assert_int_equal(ops->send(&stream, 0, &hdr, &iov, TN_NET_IOVS + 1, 60), TN_EINVAL);
    assert_int_equal(ops->recv(&stream, 1, &hdr, &iov, 1), TN_EINVAL);
    assert_int_equal(ops->recv(&stream, 0, &hdr, &iov, TN_NET_IOVS + 1), TN_EINVAL);
    assert_int_equal(ops->set(&stream, TN_NET_CSUM, 1), TN_EINVAL);
    assert_int_equal(ops->set(&stream, 0, 2), TN_EINVAL);
    assert_int_equal(ops->set(&stream, 0, 0), TN_EINVAL);
    assert_int_equal(ops->set(&stream, 0, 1), 0);
    assert_int_equal(recv(peer, got, sizeof(got), MSG_DONTWAIT), -1); /* nothing was sent */
    part();
}

/* ---- a peer that is cut, or hostile ------------------------------------------------------- */

static void takes_a_stream_byte_by_byte(void **state)
{
    static const uint32_t len[] = {1, 2, 3, 4, 5, 14, 60, 255, 256, 257, 1514};
    uint8_t bytes[4 + 1514];

    (void)state;
    join(0);
    assert_int_equal(take(MAX), TN_EAGAIN);
    for (size_t i = 0; i < COUNT(len); i++) {
        put32(bytes, len[i]);
        fill(bytes + 4, len[i], len[i]);
        for (uint32_t k = 0; k < 4 + len[i]; k++) {
            assert_int_equal(take(MAX), TN_EAGAIN);
            peer_write(bytes + k, 1);
        }
        assert_int_equal(take(MAX), len[i]);
        assert_memory_equal(got, bytes + 4, len[i]);
    }
    assert_int_equal(take(MAX), TN_EAGAIN);
    part();
}

/* Three frames in one go, cut in two at any place: as many come as are there, and poll knows. */
static void takes_a_stream_that_is_cut_anywhere(void **state)
{
    static const uint32_t len[] = {14, 1, 300};
    uint8_t bytes[3 * 4 + 315], want[315];
    size_t all = 0;

    (void)state;
    fill(want, sizeof(want), 7);
    for (size_t i = 0, at = 0; i < 3; at += len[i++]) {
        put32(bytes + all, len[i]);
        memcpy(bytes + all + 4, want + at, len[i]);
        all += 4 + len[i];
    }
    for (size_t cut = 0; cut <= all; cut++) {
        size_t i = 0, end = 0, at = 0;

        join(0);
        for (int half = 0; half < 2; half++) {
            struct pollfd p = {stream.fd, POLLIN, 0};

            if (half == 0)
                peer_write(bytes, cut);
            else
                peer_write(bytes + cut, all - cut);
            while (i < 3 && end + 4 + len[i] <= (half ? all : cut)) {
                assert_int_equal(poll(&p, 1, 0), 1); /* as long as there is one */
                assert_int_equal(take(MAX), len[i]);
                assert_memory_equal(got, want + at, len[i]);
                end += 4 + len[i];
                at += len[i++];
            }
            assert_int_equal(take(MAX), TN_EAGAIN);
        }
        assert_int_equal(i, 3);
        part();
    }
}

static void ends_at_a_hostile_length(void **state)
{
    static const uint32_t bad[] = {0, MAX + 1, 0x7fffffff, 0x80000000, 0xffffffff, 0x00020000};
    uint8_t bytes[64];

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        for (int after = 0; after < 2; after++) {
            size_t n = 0;

            join(0);
            if (after) {
                put32(bytes, 20);
                fill(bytes + 4, 20, 1);
                n = 24;
            }
            put32(bytes + n, bad[i]);
            peer_write(bytes, n + 4);
            peer_write("more", 4);
            if (after) { /* what came before is right */
                assert_int_equal(take(MAX), 20);
                assert_memory_equal(got, bytes + 4, 20);
            }
            assert_int_equal(take(MAX), TN_ESYS);
            assert_int_equal(errno, EPROTO);
            assert_true(stream.end);
            assert_int_equal(stream.error, EPROTO);
            assert_int_equal(stream.net.ops->fd(stream.net.ctx, 0), -1);
            assert_int_equal(take(MAX), TN_ESYS);
            assert_int_equal(give(frame, 60), TN_ESYS);
            assert_int_equal(errno, EPROTO);
            part();
        }
}

static void ends_when_the_peer_does(void **state)
{
    uint8_t bytes[] = {0, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0, 1};

    (void)state;
    for (size_t n = 0; n <= sizeof(bytes); n++)
        for (int half = 0; half < 2; half++) {
            join(0);
            peer_write(bytes, n);
            if (half)
                assert_int_equal(shutdown(peer, SHUT_WR), 0);
            else
                assert_int_equal(close(peer), 0);
            if (n >= 9)
                assert_int_equal(take(MAX), 5);
            errno = 0;
            while (take(MAX) == TN_EAGAIN) /* the part of a frame that is there */
                continue;
            assert_int_equal(take(MAX), TN_ESYS);
            assert_int_equal(errno, EPIPE);
            assert_true(stream.end);
            assert_int_equal(stream.error, 0);
            if (!half)
                peer = -1;
            assert_int_equal(give(frame, 60), TN_ESYS); /* and no SIGPIPE */
            part();
        }
    join(0); /* the first to see it is send */
    close(peer);
    peer = -1;
    assert_int_equal(give(frame, 60), TN_ESYS);
    assert_int_equal(stream.error, EPIPE);
    part();
}

static void drops_what_does_not_fit(void **state)
{
    uint8_t bytes[4];

    (void)state;
    join(0);
    fill(frame, MAX, 3);
    for (uint32_t cap = 1513; cap <= 1515; cap++) {
        put32(bytes, 1514);
        peer_write(bytes, 4);
        peer_write(frame, 1514);
        put32(bytes, 60);
        peer_write(bytes, 4);
        peer_write(frame, 60);
        memset(got, 0xee, sizeof(got));
        assert_int_equal(take(cap), cap < 1514 ? TN_ETRUNC : 1514);
        assert_int_equal(got[cap], 0xee);
        assert_int_equal(take(cap), 60);
        assert_memory_equal(got, frame, 60);
    }
    put32(bytes, MAX); /* the largest that there is */
    peer_write(bytes, 4);
    peer_write(frame, MAX);
    assert_int_equal(take(MAX), MAX);
    assert_memory_equal(got, frame, MAX);
    assert_int_equal(take(0), TN_EAGAIN);
    put32(bytes, 1);
    peer_write(bytes, 4);
    peer_write(frame, 1);
    assert_int_equal(take(0), TN_ETRUNC);
    assert_int_equal(take(MAX), TN_EAGAIN);
    part();
}

/* ---- a peer that stops reading ------------------------------------------------------------ */

/* Reads what is there, at most len bytes, behind what was read. */
static size_t drain(uint8_t *to, size_t len)
{
    ssize_t n = recv(peer, to, len, MSG_DONTWAIT);

    return n > 0 ? (size_t)n : 0;
}

static void loses_and_tears_nothing_when_the_peer_stops(void **state)
{
    enum { FRAMES = 3000 };
    static uint8_t seen[4 + MAX + 4];
    uint32_t len[FRAMES];
    uint64_t random = 1;
    size_t have = 0, waits = 0;
    int sent = 0, seen_frames = 0;

    (void)state;
    join(4096);
    for (int i = 0; i < FRAMES; i++) {
        uint64_t r = test_random(&random) >> 20;

        len[i] = (uint32_t)(r % 16 == 0 ? 1 + (r >> 8) % MAX : 14 + (r >> 8) % 1501);
    }
    while (seen_frames < FRAMES) {
        uint64_t r = test_random(&random) >> 20;

        for (uint64_t n = r % 8; n > 0 && sent < FRAMES; n--) {
            int got_one;

            fill(frame, len[sent], (unsigned)sent);
            got_one = give(frame, len[sent]);
            if (got_one == TN_EAGAIN) {
                waits++;
                break; /* given again next time */
            }
            assert_int_equal(got_one, 0);
            sent++;
        }
        for (uint64_t n = r >> 4 & 3; n > 0; n--) {
            uint32_t l;

            have += drain(seen + have, sizeof(seen) - have < ((r >> 8) & 0x3fff) + 1
                                           ? sizeof(seen) - have
                                           : ((r >> 8) & 0x3fff) + 1);
            while (have >= 4) {
                l = (uint32_t)seen[0] << 24 | (uint32_t)seen[1] << 16 | (uint32_t)seen[2] << 8 |
                    seen[3];
                assert_int_equal(l, len[seen_frames]);
                if (have < 4 + l)
                    break;
                fill(got, l, (unsigned)seen_frames);
                assert_memory_equal(seen + 4, got, l);
                memmove(seen, seen + 4 + l, have - 4 - l);
                have -= 4 + l;
                seen_frames++;
                assert_true(seen_frames <= sent + 1);
            }
        }
    }
    assert_int_equal(sent, FRAMES);
    assert_int_equal(have, 0);
    assert_true(waits > 100);
    part();
}

/* Sends until the socket has taken a part of a frame; returns how many went before it. */
static unsigned until_torn(void)
{
    unsigned n = 0;

    fill(frame, MAX, 11);
    while (give(frame, MAX) == 0)
        n++;
    assert_true(stream.tx_len > 0);
    assert_int_equal(give(frame, MAX), TN_EAGAIN);
    return n;
}

static void goes_on_with_the_frame_that_was_torn(void **state)
{
    static uint8_t seen[64 * (4 + MAX)], other[1000];

    (void)state;
    fill(other, sizeof(other), 12);
    for (int how = 0; how < 3; how++) {
        unsigned n;
        size_t have = 0, more, whole;
        int r;

        join(20000);
        n = until_torn();
        whole = (n + 1) * (size_t)(4 + MAX);
        assert_true(whole + 4 + sizeof(other) <= sizeof(seen));
        if (how == 2) /* the guest changes it under our hands: the length is kept all the same */
            memset(frame, 0x77, MAX);
        do {
            while ((more = drain(seen + have, sizeof(seen) - have)) > 0)
                have += more;
            r = how == 1 ? give(other, sizeof(other)) : give(frame, MAX);
        } while (r == TN_EAGAIN);
        assert_int_equal(r, 0);
        while ((more = drain(seen + have, sizeof(seen) - have)) > 0)
            have += more;
        if (how == 2) {
            assert_true(have >= whole);
            assert_int_equal(seen[whole - 4 - MAX + 1], 1); /* MAX is 0x00010011 */
            assert_int_equal(seen[whole - 4 - MAX + 3], 0x11);
            if (have > whole) /* a changed one is another one */
                assert_int_equal(seen[whole + 1], 1);
        } else {
            fill(frame, MAX, 11);
            for (unsigned i = 0; i <= n; i++)
                assert_memory_equal(seen + i * (size_t)(4 + MAX) + 4, frame, MAX);
            assert_int_equal(have, whole + (how == 1 ? 4 + sizeof(other) : 0));
            if (how == 1)
                assert_memory_equal(seen + whole + 4, other, sizeof(other));
        }
        part();
    }
}

static void waits_for_room_as_poll_does(void **state)
{
    struct pollfd p = {0, POLLOUT, 0};

    (void)state;
    join(4096);
    p.fd = stream.fd;
    until_torn();
    assert_int_equal(poll(&p, 1, 0), 0);
    while (drain(got, sizeof(got)) > 0)
        continue;
    assert_int_equal(poll(&p, 1, 0), 1);
    part();
}

static void knows_what_a_socket_answers(void **state)
{
    static const struct {
        int error, times, send, recv;
    } row[] = {
        {EINTR, 3, 0, 2},
        {EAGAIN, 1, TN_EAGAIN, TN_EAGAIN},
        {ENOBUFS, 1, TN_EAGAIN, TN_EAGAIN},
        {ENOMEM, 1, TN_EAGAIN, TN_EAGAIN},
        {ECONNRESET, 1, TN_ESYS, TN_ESYS},
        {EBADF, 1, TN_ESYS, TN_ESYS},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++)
        for (int what = 0; what < 2; what++) {
            join(0);
            peer_write("\0\0\0\2hi", 6);
            stand_in.error = row[i].error;
            stand_in.times = row[i].times;
            if (what)
                assert_int_equal(take(MAX), row[i].recv);
            else
                assert_int_equal(give(frame, 60), row[i].send);
            assert_int_equal(stand_in.times, 0);
            assert_int_equal(stream.end, (what ? row[i].recv : row[i].send) == TN_ESYS);
            assert_int_equal(stream.error, stream.end ? row[i].error : 0);
            if (what && row[i].recv == TN_EAGAIN)
                assert_int_equal(take(MAX), 2);
            part();
        }
}

/* ---- by name ------------------------------------------------------------------------------ */

/* A socket with a name, and whoever listens there; -1: nobody. */
static struct {
    struct sockaddr_un addr;
    char dir[40];
    int fd;
} host = {.fd = -1};

static void host_listens(int backlog)
{
    host.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(host.fd, (struct sockaddr *)&host.addr, sizeof(host.addr)), 0);
    assert_int_equal(listen(host.fd, backlog), 0);
}

static void host_leaves(void)
{
    assert_int_equal(close(host.fd), 0);
    host.fd = -1;
    assert_int_equal(unlink(host.addr.sun_path), 0);
}

static int host_opens(void **state)
{
    (void)state;
    strcpy(host.dir, "/tmp/tn_net_stream.XXXXXX");
    assert_non_null(mkdtemp(host.dir));
    host.addr.sun_family = AF_UNIX;
    snprintf(host.addr.sun_path, sizeof(host.addr.sun_path), "%s/sock", host.dir);
    return 0;
}

static int host_closes(void **state)
{
    (void)state;
    if (peer >= 0)
        close(peer);
    peer = -1;
    if (host.fd >= 0)
        host_leaves();
    return rmdir(host.dir);
}

static void join_by_name(void)
{
    struct tn_net_stream_cfg cfg = {host.addr.sun_path, -1};

    memset(&stream, 0xa5, sizeof(stream));
    assert_int_equal(tn_net_stream_init(&stream, &cfg), 0);
    peer = accept(host.fd, NULL, NULL);
    assert_true(peer >= 0);
}

/* The peer goes, and the stream hears of it. */
static void leave(void)
{
    close(peer);
    peer = -1;
    while (!stream.end)
        assert_int_equal(take(MAX), TN_EAGAIN); /* it may come back */
    assert_int_equal(stream.net.ops->fd(stream.net.ctx, 0), -1);
}

/* A frame goes each way, whole. */
static void both_ways(unsigned seed)
{
    fill(frame, 60, seed);
    assert_int_equal(give(frame, 60), 0);
    assert_int_equal(recv(peer, got, sizeof(got), 0), 64);
    assert_memory_equal(got, "\0\0\0\74", 4);
    assert_memory_equal(got + 4, frame, 60);
    peer_write(got, 64);
    memset(got, 0, 64);
    assert_int_equal(take(MAX), 60);
    assert_memory_equal(got, frame, 60);
}

static void connects_and_connects_again(void **state)
{
    struct tn_net_stream_cfg cfg = {host.addr.sun_path, -1};
    int before = fds(), l;

    (void)state;
    l = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(l, (struct sockaddr *)&host.addr, sizeof(host.addr)), 0);
    assert_int_equal(tn_net_stream_init(&stream, &cfg), TN_ESYS); /* nobody listens yet */
    assert_int_equal(errno, ECONNREFUSED);
    assert_int_equal(tn_net_stream_retry(&stream), TN_ESTATE);
    assert_int_equal(listen(l, 1), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tn_net_stream_init(&stream, &cfg), 0);
        assert_true(fcntl(stream.fd, F_GETFD) & FD_CLOEXEC);
        peer = accept(l, NULL, NULL);
        assert_true(peer >= 0);
        both_ways((unsigned)i);
        peer_write("\0\0\0\20half", 8); /* nothing of it comes back with the next one */
        assert_int_equal(take(MAX), TN_EAGAIN);
        part();
    }
    close(l);
    unlink(host.addr.sun_path);
    assert_int_equal(fds(), before);
}

static void connects_anew_only_what_has_a_name_and_has_ended(void **state)
{
    int fd;

    (void)state;
    join(0); /* a given fd */
    assert_int_equal(tn_net_stream_retry(&stream), TN_ESTATE);
    close(peer);
    peer = -1;
    while (take(MAX) != TN_ESYS)
        continue;
    fd = stream.fd;
    assert_int_equal(tn_net_stream_retry(&stream), TN_ESTATE);
    assert_true(stream.end);
    assert_int_equal(stream.fd, fd);
    assert_int_equal(take(MAX), TN_ESYS);
    part();
    assert_int_equal(tn_net_stream_retry(&stream), TN_ESTATE);
    host_listens(1);
    join_by_name();
    fd = stream.fd;
    assert_int_equal(tn_net_stream_retry(&stream), TN_ESTATE); /* it goes on */
    assert_int_equal(stream.fd, fd);
    both_ways(1);
    leave();
    part(); /* closed while nobody is there */
    assert_int_equal(tn_net_stream_retry(&stream), TN_ESTATE);
    assert_int_equal(stream.fd, -1);
    assert_int_equal(take(MAX), TN_ESYS);
}

static void waits_longer_each_time_until_a_frame_comes(void **state)
{
    static const uint64_t wait[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000};
    int before = fds(), open;

    (void)state;
    host_listens(1);
    join_by_name();
    both_ways(1);
    open = fds();
    host_leaves();
    leave();
    assert_int_equal(stream.error, 0);
    for (size_t i = 0; i < COUNT(wait); i++) {
        assert_int_equal(stream.retry, wait[i] * 1000000);
        assert_int_equal(tn_net_stream_retry(&stream), TN_ESYS);
        assert_int_equal(errno, ENOENT);
        assert_true(stream.end);
        assert_int_equal(take(MAX), TN_EAGAIN);
        assert_int_equal(give(frame, 60), TN_ESYS); /* is lost, and not kept for later */
        assert_int_equal(stream.net.ops->fd(stream.net.ctx, 0), -1);
    }
    host_listens(1);
    stand_in.times = 1;
    stand_in.error = EMFILE;
    assert_int_equal(tn_net_stream_retry(&stream), TN_ESYS);
    assert_int_equal(errno, EMFILE);
    for (int i = 0; i < 5; i++) { /* who takes a connection and closes it is no better */
        assert_int_equal(stream.retry, 5000000000u);
        assert_int_equal(tn_net_stream_retry(&stream), 0);
        assert_false(stream.end);
        peer = accept(host.fd, NULL, NULL);
        peer_write("\0\0\0\20half", 8);
        assert_int_equal(fds(), open);
        leave();
    }
    assert_int_equal(tn_net_stream_retry(&stream), 0);
    peer = accept(host.fd, NULL, NULL);
    assert_int_equal(take(MAX), TN_EAGAIN);
    both_ways(2);
    assert_int_equal(stream.retry, 100000000u);
    assert_int_equal(fds(), open);
    part();
    host_leaves();
    assert_int_equal(fds(), before);
}

/* What either side began on the old connection is no part of the new one. */
static void begins_anew_with_a_whole_frame(void **state)
{
    int sndbuf = 20000;

    (void)state;
    host_listens(1);
    join_by_name();
    assert_int_equal(setsockopt(stream.fd, SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof(sndbuf)), 0);
    for (unsigned i = 0; i < 4; i++) {
        static const uint8_t bytes[] = {0, 0, 0, 9, 1, 2, 3};

        if (i & 1)
            (void)until_torn();
        if (i & 2) {
            peer_write(bytes, 1 + i * 2);
            assert_int_equal(take(MAX), TN_EAGAIN);
            assert_int_equal(stream.rx_len, 1 + i * 2);
        }
        leave();
        assert_int_equal(tn_net_stream_retry(&stream), 0);
        assert_true(fcntl(stream.fd, F_GETFD) & FD_CLOEXEC);
        peer = accept(host.fd, NULL, NULL);
        both_ways(i);
        assert_int_equal(setsockopt(stream.fd, SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof(sndbuf)), 0);
    }
    part();
}

static void leaves_a_hostile_peer_and_comes_again(void **state)
{
    (void)state;
    host_listens(1);
    join_by_name();
    both_ways(1);
    peer_write("\0\2\0\0....", 8);
    assert_int_equal(take(MAX), TN_EAGAIN);
    assert_true(stream.end);
    assert_int_equal(stream.error, EPROTO);
    assert_int_equal(give(frame, 60), TN_ESYS);
    assert_int_equal(errno, EPROTO);
    assert_int_equal(tn_net_stream_retry(&stream), 0);
    assert_int_equal(stream.error, 0);
    assert_true(read(peer, got, 1) <= 0); /* the old one is closed */
    close(peer);
    peer = accept(host.fd, NULL, NULL);
    both_ways(2);
    part();
}

/* A listener that is busy is nobody: nothing waits for it. */
static void does_not_wait_for_a_busy_listener(void **state)
{
    int other[8], n = 0;

    (void)state;
    host_listens(0);
    join_by_name();
    leave();
    for (; n < 8; n++) {
        other[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (connect(other[n], (struct sockaddr *)&host.addr, sizeof(host.addr)) < 0)
            break;
    }
    assert_true(n < 8);
    assert_int_equal(tn_net_stream_retry(&stream), TN_ESYS);
    assert_int_equal(errno, EAGAIN);
    assert_true(stream.end);
    for (int i = 0; i <= n; i++)
        close(other[i]);
    for (int i = 0; i < n; i++)
        close(accept(host.fd, NULL, NULL));
    assert_int_equal(tn_net_stream_retry(&stream), 0);
    peer = accept(host.fd, NULL, NULL);
    both_ways(3);
    part();
}

/* ---- in a machine ------------------------------------------------------------------------- */

static struct tn_vm_net net;

static bool link_is_up(void)
{
    return (tn_virtio_config_read(&net.model.virtio, 6, 2) & TN_VIRTIO_NET_S_LINK_UP) != 0;
}

/* What the model does when frames may come: nobody drives it here. */
static int64_t look(void)
{
    struct tn_iov iov = {got, MAX};
    struct tn_net_hdr hdr;

    return net.model.net.ops->recv(net.model.net.ctx, 0, &hdr, &iov, 1);
}

static double seconds(void)
{
    return (double)tn_vm_net_now_(NULL) / 1e9;
}

/* Turns of the loop until the link is as it is to be; returns whether that came within 5 s. */
static bool until_link(struct tn_loop *loop, bool up)
{
    double end = seconds() + 5;

    while (link_is_up() != up && seconds() < end)
        assert_true(tn_loop_step(loop, 100) >= 0);
    return link_is_up() == up;
}

static void tells_of_the_link_and_goes_on_in_a_machine(void **state)
{
    static struct tn_virtio_net_state saved;
    struct tn_mem_region table[1];
    struct tn_vm_net_cfg cfg;
    struct tn_loop loop;
    struct tn_mem mem;
    int before = fds(), ends[2];
    double then;

    (void)state;
    tn_mem_init(&mem, table, 1);
    assert_int_equal(tn_loop_init(&loop), 0);
    host_listens(1);
    memset(&cfg, 0, sizeof(cfg));
    cfg.kind = TN_VM_NET_STREAM;
    cfg.fd = -1;
    cfg.name = host.addr.sun_path;
    assert_int_equal(tn_vm_net_init(&net, &cfg, TN_VIRTIO_F_RING, &mem, &loop), 0);
    peer = accept(host.fd, NULL, NULL);
    assert_true(link_is_up());
    for (int i = 0; i < 3; i++) {
        assert_int_equal(look(), TN_EAGAIN);
        close(peer);
        if (i == 1)
            host_leaves();
        assert_int_equal(look(), TN_EAGAIN);
        tn_vm_net_wake(&net);
        assert_false(link_is_up());
        tn_virtio_net_save(&net.model, &saved);
        then = seconds();
        if (i == 1) { /* nobody is there at first */
            for (int k = 0; k < 4; k++)
                assert_true(tn_loop_step(&loop, 100) >= 0);
            assert_false(link_is_up());
            host_listens(1);
        }
        assert_true(until_link(&loop, true));
        assert_true(seconds() - then > 0.09);
        peer = accept(host.fd, NULL, NULL);
        peer_write("\0\0\0\4four", 8);
        assert_int_equal(look(), 4);
    }
    assert_int_equal(tn_virtio_net_restore(&net.model, &saved), 0);
    assert_false(link_is_up()); /* one that was saved without a peer has one now */
    tn_vm_net_wake(&net);
    assert_true(link_is_up());
    close(peer); /* and it is closed while a try is due */
    assert_int_equal(look(), TN_EAGAIN);
    tn_vm_net_wake(&net);
    tn_vm_net_close(&net);
    host_leaves();
    /* A given fd: the link stays down, and nobody is called. */
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    cfg.name = NULL;
    cfg.fd = ends[0];
    assert_int_equal(tn_vm_net_init(&net, &cfg, TN_VIRTIO_F_RING, &mem, &loop), 0);
    close(ends[0]);
    assert_true(link_is_up());
    close(ends[1]);
    assert_int_equal(look(), TN_ESYS);
    tn_vm_net_wake(&net);
    assert_false(link_is_up());
    then = seconds();
    while (seconds() - then < 0.3)
        assert_true(tn_loop_step(&loop, 50) >= 0);
    assert_false(link_is_up());
    tn_vm_net_close(&net);
    tn_loop_close(&loop);
    peer = -1;
    assert_int_equal(fds(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_is_no_stream),
        cmocka_unit_test(refuses_the_askers_mistakes),
        cmocka_unit_test(takes_a_stream_byte_by_byte),
        cmocka_unit_test(takes_a_stream_that_is_cut_anywhere),
        cmocka_unit_test(ends_at_a_hostile_length),
        cmocka_unit_test(ends_when_the_peer_does),
        cmocka_unit_test(drops_what_does_not_fit),
        cmocka_unit_test(loses_and_tears_nothing_when_the_peer_stops),
        cmocka_unit_test(goes_on_with_the_frame_that_was_torn),
        cmocka_unit_test(waits_for_room_as_poll_does),
        cmocka_unit_test(knows_what_a_socket_answers),
        cmocka_unit_test_setup_teardown(connects_and_connects_again, host_opens, host_closes),
        cmocka_unit_test_setup_teardown(connects_anew_only_what_has_a_name_and_has_ended,
                                        host_opens, host_closes),
        cmocka_unit_test_setup_teardown(waits_longer_each_time_until_a_frame_comes, host_opens,
                                        host_closes),
        cmocka_unit_test_setup_teardown(begins_anew_with_a_whole_frame, host_opens, host_closes),
        cmocka_unit_test_setup_teardown(leaves_a_hostile_peer_and_comes_again, host_opens,
                                        host_closes),
        cmocka_unit_test_setup_teardown(does_not_wait_for_a_busy_listener, host_opens, host_closes),
        cmocka_unit_test_setup_teardown(tells_of_the_link_and_goes_on_in_a_machine, host_opens,
                                        host_closes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
