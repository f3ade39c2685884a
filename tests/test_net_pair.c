/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_net_pair: two ends, of which one, at times, is a hostile process with a socket.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
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

static ssize_t test_recvmsg(int fd, struct msghdr *msg, int flags)
{
    return stands_in() ? -1 : recvmsg(fd, msg, flags);
}

static int test_socketpair(int domain, int type, int protocol, int *ends)
{
    return stands_in() ? -1 : socketpair(domain, type, protocol, ends);
}

static int test_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    return stands_in() ? -1 : setsockopt(fd, level, name, value, len);
}

#define sendmsg    test_sendmsg
#define recvmsg    test_recvmsg
#define socketpair test_socketpair
#define setsockopt test_setsockopt
#include "tn_net_pair.h"
#undef sendmsg
#undef recvmsg
#undef socketpair
#undef setsockopt

#include "test.h"

#define MAX TN_NET_FRAME_MAX
#define ALL (TN_NET_CSUM | TN_NET_TSO4 | TN_NET_TSO6 | TN_NET_ECN | TN_NET_UFO | TN_NET_USO)

static struct tn_net_pair a, b;
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

static void join(uint32_t offloads)
{
    int ends[2];

    assert_int_equal(tn_net_pair_sockets(ends), 0);
    assert_true(fcntl(ends[0], F_GETFD) & FD_CLOEXEC);
    memset(&a, 0xa5, sizeof(a));
    memset(&b, 0xa5, sizeof(b));
    assert_int_equal(tn_net_pair_init(&a, ends[0], offloads), 0);
    assert_int_equal(tn_net_pair_init(&b, ends[1], offloads), 0);
    assert_int_equal(a.net.pairs, 1);
    assert_int_equal(a.net.tx_offloads, offloads | TN_NET_CSUM);
    assert_int_equal(a.net.rx_offloads, offloads | TN_NET_CSUM);
    assert_int_equal(a.net.ops->fd(a.net.ctx, 0), ends[0]);
    assert_int_equal(a.net.ops->fd(a.net.ctx, 1), -1);
}

static void part(void)
{
    tn_net_pair_close(&a);
    tn_net_pair_close(&a);
    tn_net_pair_close(&b);
    assert_int_equal(a.net.ops->fd(a.net.ctx, 0), -1);
}

static void fill(uint8_t *p, size_t len, unsigned seed)
{
    uint64_t state = seed + 1;

    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(test_random(&state) >> 32);
}

static int64_t take(struct tn_net_pair *p, struct tn_net_hdr *hdr, size_t cap)
{
    struct tn_iov iov[3] = {{got, cap / 3}, {got, 0}, {got + cap / 3, cap - cap / 3}};

    memset(hdr, 0xee, sizeof(*hdr));
    return p->net.ops->recv(p->net.ctx, 0, hdr, iov, 3);
}

static int give(struct tn_net_pair *p, const struct tn_net_hdr *hdr, uint32_t len)
{
    struct tn_iov iov[3] = {{frame, len / 2}, {frame, 0}, {frame + len / 2, MAX}};
    struct tn_net_hdr none = {0};

    return p->net.ops->send(p->net.ctx, 0, hdr ? hdr : &none, iov, 3, len);
}

static int set(struct tn_net_pair *p, uint32_t offloads)
{
    return p->net.ops->set(p->net.ctx, offloads, 1);
}

/* ---- what is refused ---------------------------------------------------------------------- */

static void refuses_what_is_no_such_socket(void **state)
{
    int before = fds(), ends[2], fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct tn_net_hdr hdr;

    (void)state;
    assert_int_equal(tn_net_pair_init(&a, fd, 0), TN_EINVAL);
    assert_int_equal(a.fd, -1);
    assert_int_equal(close(fd), 0);
    assert_int_equal(tn_net_pair_init(&a, -1, 0), TN_ESYS);
    assert_int_equal(errno, EBADF);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(socketpair(AF_UNIX, i ? SOCK_DGRAM : SOCK_STREAM, 0, ends), 0);
        assert_int_equal(tn_net_pair_init(&a, ends[0], 0), TN_EINVAL);
        close(ends[0]);
        close(ends[1]);
    }
    assert_int_equal(tn_net_pair_sockets(ends), 0);
    assert_int_equal(tn_net_pair_init(&a, ends[0], 1u << 6), TN_EINVAL);
    assert_int_equal(take(&a, &hdr, 60), TN_ESYS);
    assert_int_equal(give(&a, NULL, 60), TN_ESYS);
    stand_in.times = 1;
    stand_in.error = EMFILE;
    assert_int_equal(tn_net_pair_sockets(ends), TN_ESYS);
    assert_int_equal(errno, EMFILE);
    stand_in.times = 1; /* a buffer that stays as it is */
    errno = 0;
    assert_int_equal(tn_net_pair_init(&a, ends[0], 0), 0);
    assert_int_equal(errno, 0);
    tn_net_pair_close(&a);
    close(ends[1]);
    assert_int_equal(fds(), before);
}

static void refuses_the_askers_mistakes(void **state)
{
    struct tn_net_hdr hdr = {0};
    struct tn_iov iov = {frame, 60};
    const struct tn_net_ops *ops;

    (void)state;
    join(TN_NET_TSO4);
    ops = a.net.ops;
    assert_int_equal(ops->send(&a, 1, &hdr, &iov, 1, 60), TN_EINVAL);
    assert_int_equal(ops->send(&a, 0, &hdr, &iov, 1, 61), TN_EINVAL);
    assert_int_equal(ops->send(&a, 0, &hdr, &iov, 1, 0), TN_EINVAL);
    assert_int_equal(ops->send(&a, 0, &hdr, &iov, 1, MAX + 1), TN_EINVAL);
    assert_int_equal(ops->send(&a, 0, &hdr, &iov, TN_NET_IOVS + 1, 60), TN_EINVAL);
    assert_int_equal(ops->recv(&b, 1, &hdr, &iov, 1), TN_EINVAL);
    assert_int_equal(ops->recv(&b, 0, &hdr, &iov, TN_NET_IOVS + 1), TN_EINVAL);
    assert_int_equal(ops->set(&a, TN_NET_TSO6, 1), TN_EINVAL);
    assert_int_equal(ops->set(&a, 0, 2), TN_EINVAL);
    assert_int_equal(ops->set(&a, 0, 0), TN_EINVAL);
    assert_int_equal(take(&b, &hdr, MAX), TN_EAGAIN);
    part();
}

/* ---- frames ------------------------------------------------------------------------------- */

static void moves_frames_and_headers(void **state)
{
    static const uint32_t len[] = {1, 14, 60, 1514, 9000, MAX};
    struct tn_net_hdr in, out;

    (void)state;
    join(ALL);
    assert_int_equal(set(&a, ALL), 0);
    assert_int_equal(set(&b, ALL), 0);
    for (size_t i = 0; i < COUNT(len); i++)
        for (int way = 0; way < 2; way++) {
            memset(&out, 0, sizeof(out));
            if (len[i] >= 1514) {
                struct tn_net_hdr tso = {TN_NET_HDR_F_NEEDS_CSUM,
                                         TN_NET_HDR_GSO_TCPV4 | TN_NET_HDR_GSO_ECN,
                                         54,
                                         1400,
                                         34,
                                         16,
                                         0};

                out = tso;
            }
            fill(frame, len[i], (unsigned)i);
            assert_int_equal(take(way ? &a : &b, &in, MAX), TN_EAGAIN);
            assert_int_equal(give(way ? &b : &a, &out, len[i]), 0);
            assert_int_equal(take(way ? &a : &b, &in, MAX), len[i]);
            assert_memory_equal(got, frame, len[i]);
            assert_memory_equal(&in, &out, sizeof(in));
        }
    part();
}

static void drops_what_does_not_fit(void **state)
{
    struct tn_net_hdr hdr;

    (void)state;
    join(0);
    fill(frame, 1514, 3);
    for (uint32_t cap = 1513; cap <= 1515; cap++) {
        assert_int_equal(give(&a, NULL, 1514), 0);
        assert_int_equal(give(&a, NULL, 60), 0);
        memset(got, 0xee, sizeof(got));
        assert_int_equal(take(&b, &hdr, cap), cap < 1514 ? TN_ETRUNC : 1514);
        assert_int_equal(got[cap], 0xee);
        assert_int_equal(take(&b, &hdr, cap), 60);
        assert_memory_equal(got, frame, 60);
    }
    assert_int_equal(b.lost, 1);
    part();
}

static uint32_t add16(const uint8_t *p, size_t len)
{
    uint32_t s = 0;

    for (size_t i = 0; i < len; i++)
        s += i % 2 == 0 ? (uint32_t)p[i] << 8 : p[i];
    while (s > 0xffff)
        s = (s & 0xffff) + (s >> 16);
    return s;
}

/* A checksum that the receiver does not take open is made, wherever iovecs and places are. */
static void makes_checksums_that_are_not_taken_open(void **state)
{
    uint64_t random = 5;

    (void)state;
    join(0);
    for (int i = 0; i < 2000; i++) {
        uint32_t len = 40 + (uint32_t)(test_random(&random) >> 33) % (i % 50 ? 1400 : 60000);
        uint32_t start = (uint32_t)(test_random(&random) >> 33) % (len - 2);
        uint32_t offset = (uint32_t)(test_random(&random) >> 33) % (len - 1 - start);
        struct tn_net_hdr out = {TN_NET_HDR_F_NEEDS_CSUM, 0, 0, 0, (uint16_t)start,
                                 (uint16_t)offset,        0};
        struct tn_net_hdr in;
        uint32_t sum, place = start + offset;
        uint32_t cut =
            i % 4 < 3 ? place + (uint32_t)(i % 4) : (uint32_t)(test_random(&random) >> 33) % len;
        uint8_t one[2] = {0xee, 0xee}; /* the iovecs do not touch */
        struct tn_iov iov[3] = {{got, cut}, {one, 1}, {got + cut + 1, MAX - cut}};

        fill(frame, len, (unsigned)i);
        if (i % 3 == 0) /* a sum of 0, which UDP may not have */
            memset(frame + start, i % 2 ? 0xff : 0, len - start);
        assert_int_equal(give(&a, &out, len), 0);
        memset(&in, 0xee, sizeof(in));
        memset(got, 0xee, sizeof(got));
        assert_int_equal(b.net.ops->recv(&b, 0, &in, iov, 3), len);
        assert_int_equal(in.flags | in.gso_type | in.csum_start | in.csum_offset, 0);
        sum = ~add16(frame + start, len - start) & 0xffff;
        sum = sum ? sum : 0xffff;
        frame[start + offset] = (uint8_t)(sum >> 8);
        frame[start + offset + 1] = (uint8_t)sum;
        assert_true(cut >= len || got[cut] == 0xee);
        if (cut < len)
            got[cut] = one[0];
        assert_memory_equal(got, frame, len);
        assert_int_equal(got[len], 0xee);
        assert_int_equal(one[1], 0xee);
    }
    part();
}

static void leaves_open_what_was_asked_for_only(void **state)
{
    static const struct {
        const char *name;
        uint32_t accepts;
        struct tn_net_hdr out;
        int64_t result;
    } row[] = {
        {"checksum taken", TN_NET_CSUM, {1, 0, 0, 0, 34, 6, 0}, 200},
        {"valid taken", TN_NET_CSUM, {2, 0, 0, 0, 0, 0, 0}, 200},
        {"valid not taken", 0, {2, 0, 0, 0, 0, 0, 0}, 200},
        {"segments taken", TN_NET_CSUM | TN_NET_TSO6, {1, 4, 74, 100, 54, 16, 0}, 200},
        {"segments not taken", TN_NET_CSUM | TN_NET_TSO4, {1, 4, 74, 100, 54, 16, 0}, TN_ETRUNC},
        {"not without checksums", TN_NET_TSO6, {1, 4, 74, 100, 54, 16, 0}, TN_ETRUNC},
        {"ECN not taken", TN_NET_CSUM | TN_NET_TSO6, {1, 0x84, 74, 100, 54, 16, 0}, TN_ETRUNC},
        {"USO not taken", TN_NET_CSUM | TN_NET_UFO, {1, 5, 42, 100, 34, 6, 0}, TN_ETRUNC},
        {"start beyond", TN_NET_CSUM, {1, 0, 0, 0, 199, 0, 0}, TN_ETRUNC},
        {"start beyond, to be made", 0, {1, 0, 0, 0, 199, 0, 0}, TN_ETRUNC},
        {"offset beyond, to be made", 0, {1, 0, 0, 0, 65535, 65535, 0}, TN_ETRUNC},
        {"unknown type", ALL, {1, 7, 42, 100, 34, 6, 0}, TN_ETRUNC},
        {"no size", ALL, {1, 1, 42, 0, 34, 6, 0}, TN_ETRUNC},
        {"segments without checksum", ALL, {0, 1, 42, 100, 34, 6, 0}, TN_ETRUNC},
    };
    struct tn_net_hdr in;

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        join(ALL);
        fill(frame, 200, (unsigned)i);
        assert_int_equal(set(&b, row[i].accepts), 0);
        assert_int_equal(give(&a, &row[i].out, 200), 0);
        if (take(&b, &in, MAX) != row[i].result)
            fail_msg("%s", row[i].name);
        assert_int_equal(b.lost, row[i].result < 0);
        if (row[i].result < 0 || row[i].accepts == 0)
            assert_int_equal(in.flags | in.gso_type | in.csum_start, 0);
        else
            assert_memory_equal(&in, &row[i].out, sizeof(in));
        assert_int_equal(give(&a, NULL, 60), 0); /* and it goes on */
        assert_int_equal(take(&b, &in, MAX), 60);
        part();
    }
}

/* ---- the other end ------------------------------------------------------------------------ */

static void loses_nothing_when_the_peer_stops(void **state)
{
    enum { FRAMES = 2000 };
    struct pollfd p = {0, POLLOUT, 0};
    uint64_t random = 3;
    int sent = 0, seen = 0, waits = 0;

    (void)state;
    join(0);
    p.fd = a.fd;
    while (seen < FRAMES) {
        struct tn_net_hdr hdr;
        int r = 0, before = sent;
        uint64_t n = test_random(&random) >> 58;

        while (sent < FRAMES && r == 0) {
            uint32_t len = 14 + (uint32_t)sent * 37 % 60000;

            fill(frame, len, (unsigned)sent);
            r = give(&a, NULL, len);
            if (r == 0)
                sent++;
        }
        if (r != 0) {
            assert_int_equal(r, TN_EAGAIN);
            if (before < sent)
                assert_int_equal(poll(&p, 1, 0), 0);
            waits++;
        }
        for (; n > 0 && seen < sent; n--, seen++) {
            uint32_t len = 14 + (uint32_t)seen * 37 % 60000;

            assert_int_equal(take(&b, &hdr, MAX), len);
            fill(frame, len, (unsigned)seen);
            assert_memory_equal(got, frame, len);
        }
    }
    assert_true(waits > 10);
    assert_int_equal(a.lost | b.lost, 0);
    part();
}

static void ends_when_the_peer_does(void **state)
{
    struct tn_net_hdr hdr;

    (void)state;
    join(0);
    fill(frame, 60, 1);
    assert_int_equal(give(&a, NULL, 60), 0);
    tn_net_pair_close(&a);
    assert_int_equal(take(&b, &hdr, MAX), 60); /* what was sent before arrives */
    assert_int_equal(take(&b, &hdr, MAX), TN_ESYS);
    assert_int_equal(errno, EPIPE);
    assert_true(b.end);
    assert_int_equal(b.net.ops->fd(b.net.ctx, 0), -1);
    assert_int_equal(give(&b, NULL, 60), TN_ESYS);
    assert_int_equal(give(&a, NULL, 60), TN_ESYS);
    assert_int_equal(take(&a, &hdr, MAX), TN_ESYS);
    part();
    join(0);
    tn_net_pair_close(&a);
    assert_int_equal(give(&b, NULL, 60), TN_ESYS); /* and no SIGPIPE */
    assert_true(b.end);
    part();
}

/* A process that has the other end, and no tn_net_pair. */
static void bears_a_hostile_peer(void **state)
{
    uint8_t bytes[100] = {0}, *big = malloc(200000);
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec v = {bytes, 72};
    struct msghdr msg = {0};
    struct cmsghdr *c;
    struct tn_net_hdr hdr;
    int before, peer;

    (void)state;
    assert_non_null(big);
    memset(big, 0, 200000);
    join(0);
    peer = a.fd;
    for (size_t n = 1; n <= TN_NET_HDR; n++) { /* no frame */
        assert_int_equal(send(peer, bytes, n, 0), n);
        assert_int_equal(take(&b, &hdr, MAX), TN_ETRUNC);
        assert_int_equal(b.lost, n);
        assert_int_equal(hdr.flags | hdr.gso_type | hdr.csum_start, 0);
    }
    assert_int_equal(send(peer, bytes, TN_NET_HDR + 1, 0), TN_NET_HDR + 1);
    assert_int_equal(take(&b, &hdr, MAX), 1);
    memset(got, 0xee, sizeof(got));
    assert_int_equal(send(peer, big, TN_NET_HDR + MAX + 1, 0), TN_NET_HDR + MAX + 1);
    {
        struct tn_iov iov = {got, sizeof(got)}; /* more than the largest frame */

        assert_int_equal(b.net.ops->recv(&b, 0, &hdr, &iov, 1), TN_ETRUNC);
        assert_int_equal(got[MAX], 0xee);
    }
    /* descriptors that it sends are closed */
    before = fds();
    msg.msg_iov = &v;
    msg.msg_iovlen = 1;
    msg.msg_control = control;
    msg.msg_controllen = sizeof(control);
    c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &peer, sizeof(int));
    assert_int_equal(sendmsg(peer, &msg, 0), 72);
    assert_int_equal(take(&b, &hdr, MAX), 60);
    assert_int_equal(fds(), before);
    for (uint64_t r = 9, i = 0; i < 20000; i++) { /* any bytes */
        size_t n = 1 + (test_random(&r) >> 40) % sizeof(bytes);
        int64_t result;

        fill(bytes, n, (unsigned)i);
        assert_int_equal(send(peer, bytes, n, 0), n);
        result = take(&b, &hdr, MAX);
        assert_true(result == TN_ETRUNC || result == (int64_t)n - TN_NET_HDR);
        assert_int_equal(hdr.flags | hdr.gso_type, 0);
    }
    assert_int_equal(send(peer, bytes, 0, 0), 0); /* nothing at all is the end */
    assert_int_equal(take(&b, &hdr, MAX), TN_ESYS);
    part();
    free(big);
}

static void knows_what_a_socket_answers(void **state)
{
    static const struct {
        int error, times, send, recv;
    } row[] = {{EINTR, 3, 0, 60},           {EAGAIN, 1, TN_EAGAIN, TN_EAGAIN},
               {ENOBUFS, 1, 0, TN_EAGAIN},  {ENOMEM, 1, 0, TN_EAGAIN},
               {EMSGSIZE, 1, 0, TN_ESYS},   {ECONNRESET, 1, TN_ESYS, TN_ESYS},
               {EBADF, 1, TN_ESYS, TN_ESYS}};
    struct tn_net_hdr hdr;

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++)
        for (int what = 0; what < 2; what++) {
            int result = what ? row[i].recv : row[i].send;

            join(0);
            assert_int_equal(give(&a, NULL, 60), 0);
            stand_in.error = row[i].error;
            stand_in.times = row[i].times;
            if (what)
                assert_int_equal(take(&b, &hdr, MAX), result);
            else
                assert_int_equal(give(&b, NULL, 60), result);
            assert_int_equal(stand_in.times, 0);
            assert_int_equal(b.end, result == TN_ESYS);
            part();
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_is_no_such_socket),
        cmocka_unit_test(refuses_the_askers_mistakes),
        cmocka_unit_test(moves_frames_and_headers),
        cmocka_unit_test(drops_what_does_not_fit),
        cmocka_unit_test(makes_checksums_that_are_not_taken_open),
        cmocka_unit_test(leaves_open_what_was_asked_for_only),
        cmocka_unit_test(loses_nothing_when_the_peer_stops),
        cmocka_unit_test(ends_when_the_peer_does),
        cmocka_unit_test(bears_a_hostile_peer),
        cmocka_unit_test(knows_what_a_socket_answers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
