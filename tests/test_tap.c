/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_tap, on the kernel's TAPs, in a network namespace of this process; skipped by name where there
 * are none, or they may not be made. The host's side is a packet socket. What the kernel refuses
 * seldom is had by standing in for its system calls.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault.h"

/* The next times transfers fail so. */
static struct {
    int times;
    int error;
} stand_in;

static ssize_t test_writev(int fd, const struct iovec *iov, int n)
{
    if (stand_in.times > 0) {
        stand_in.times--;
        errno = stand_in.error;
        return -1;
    }
    return writev(fd, iov, n);
}

static ssize_t test_readv(int fd, const struct iovec *iov, int n)
{
    if (stand_in.times > 0) {
        stand_in.times--;
        errno = stand_in.error;
        return -1;
    }
    return readv(fd, iov, n);
}

#define writev test_writev
#define readv  test_readv
#include "tn_tap.h"
#undef writev
#undef readv

#include "netns.h"

#define ETHERTYPE 0x88b5 /* for local experiments: nobody else sends it */
#define FRAME_LEN 1514u

static const char *missing; /* why the cases are skipped */

#define NEEDS_TAP          \
    do {                   \
        if (missing)       \
            SKIP(missing); \
    } while (0)

/* ---- the namespace, and the host's side --------------------------------------------------- */

/* Each case has a namespace of its own, so that none is in the way of the next one. */
static int setup(void **state)
{
    (void)state;
    missing = netns_new();
    return 0;
}

/* Whether a frame is of this test: the kernel speaks by itself, IPv6 for one. */
static bool ours(const uint8_t *frame)
{
    return frame[6] == 0x02 && frame[11] == 0x02;
}

/* The header of a packet socket is the one of 10 bytes, in this order. */
struct wire {
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset;
};

static void host_send(int s, const struct wire *w, const uint8_t *frame, size_t len)
{
    struct wire none = {0};
    struct iovec v[2] = {{(void *)(uintptr_t)(w ? w : &none), sizeof(*w)},
                         {(void *)(uintptr_t)frame, len}};

    if (writev(s, v, 2) != (ssize_t)(sizeof(*w) + len))
        fail_msg("the host cannot send: %s", strerror(errno));
}

/* The next of our frames that the host sees, and its header: bytes, 0 when there is none. */
static size_t host_recv(int s, struct wire *w, uint8_t *frame, size_t cap)
{
    struct iovec v[2] = {{w, sizeof(*w)}, {frame, cap}};
    ssize_t n;

    do
        n = readv(s, v, 2);
    while (n > 24 && !ours(frame));
    return n > (ssize_t)sizeof(*w) ? (size_t)n - sizeof(*w) : 0;
}

/* The next of the host's frames that we get; 0: there is none for a while. */
static int64_t guest_recv(struct tn_tap *t, uint32_t pair, struct tn_net_hdr *hdr, uint8_t *frame,
                          size_t cap)
{
    struct tn_iov iov = {frame, cap};
    int64_t n;

    for (int tries = 0; tries < 200; tries++) {
        n = t->net.ops->recv(t->net.ctx, pair, hdr, &iov, 1);
        if (n == TN_EAGAIN)
            usleep(500);
        else if (n < 0 || ours(frame))
            return n;
    }
    return 0;
}

/* An Ethernet frame of len bytes that nobody on the way knows. */
static void ether(uint8_t *frame, size_t len, uint8_t seed)
{
    memset(frame, 0xff, 6);
    memset(frame + 6, 0x02, 6);
    frame[12] = ETHERTYPE >> 8;
    frame[13] = ETHERTYPE & 0xff;
    for (size_t i = 14; i < len; i++)
        frame[i] = (uint8_t)(seed + i);
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

static void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

/* The sum of a pseudo header: of IPv4 if its type says so, else of IPv6. */
static uint32_t pseudo(const uint8_t *frame, uint8_t protocol, uint32_t len)
{
    bool v4 = frame[13] == 0;
    uint8_t p[40] = {0};

    memcpy(p, frame + (v4 ? 26 : 22), v4 ? 8 : 32);
    p[35] = protocol;
    put16(p + 38, len);
    return add16(p, sizeof(p));
}

/*
 * UDP (17) or TCP (6) with len bytes of payload, ports by flow; its checksum is left open: the
 * pseudo header's sum is in its place. Returns the frame's length.
 */
static uint32_t packet(uint8_t *frame, bool v6, uint8_t protocol, uint32_t len, uint16_t flow)
{
    static const uint8_t from[] = {10, 77, 0, 2}, to[] = {10, 77, 0, 1};
    uint32_t head = protocol == 17 ? 8 : 20, l3 = v6 ? 40 : 20;
    uint8_t *ip = frame + 14, *l4 = ip + l3;

    memset(frame, 0, 14 + l3 + head);
    ether(frame, 14, 0);
    put16(frame + 12, v6 ? ETH_P_IPV6 : ETH_P_IP);
    if (v6) {
        ip[0] = 0x60;
        put16(ip + 4, head + len);
        ip[6] = protocol;
        ip[7] = 64;
        ip[8] = ip[24] = 0xfd;
        ip[23] = 2;
        ip[39] = 1;
    } else {
        ip[0] = 0x45;
        put16(ip + 2, 20 + head + len);
        ip[8] = 64;
        ip[9] = protocol;
        memcpy(ip + 12, from, 4);
        memcpy(ip + 16, to, 4);
        put16(ip + 10, ~add16(ip, 20));
    }
    put16(l4, 4000u + flow);
    put16(l4 + 2, 5000);
    if (protocol == 17) {
        put16(l4 + 4, head + len);
    } else {
        l4[12] = 0x50;
        l4[13] = 0x10; /* ACK */
    }
    put16(l4 + (protocol == 17 ? 6 : 16), pseudo(frame, protocol, head + len));
    for (uint32_t i = 0; i < len; i++)
        l4[head + i] = (uint8_t)(i * 7 + flow);
    return 14 + l3 + head + len;
}

/* Whether the checksum of such a frame is complete. */
static bool whole(const uint8_t *frame, uint32_t len)
{
    bool v4 = frame[13] == 0;
    uint32_t l4 = v4 ? 34 : 54,
             s = pseudo(frame, frame[v4 ? 23 : 20], len - l4) + add16(frame + l4, len - l4);

    return (s & 0xffff) + (s >> 16) == 0xffff;
}

static void open_tap(struct tn_tap *t, const char *name, uint32_t pairs)
{
    struct tn_tap_cfg cfg = {name, false, true, NULL, pairs, 0};
    int r = tn_tap_init(t, &cfg);

    if (r < 0)
        fail_msg("%s: %d at %d: %s", name, r, (int)t->phase, strerror(errno));
    assert_int_equal(t->phase, TN_TAP_DONE);
    up(name, true);
    running(name);
    assert_int_equal(t->active, 1);
    assert_int_equal(t->offloads, 0);
}

static int send_one(struct tn_tap *t, uint32_t pair, const struct tn_net_hdr *hdr,
                    const uint8_t *frame, uint32_t len)
{
    struct tn_net_hdr none = {0};
    struct tn_iov iov = {(uint8_t *)(uintptr_t)frame, len};

    return t->net.ops->send(t->net.ctx, pair, hdr ? hdr : &none, &iov, 1, len);
}

static int set(struct tn_tap *t, uint32_t offloads, uint32_t pairs)
{
    return t->net.ops->set(t->net.ctx, offloads, pairs);
}

static int open_fd(unsigned flags, const char *name)
{
    struct ifreq r = {0};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

    assert_true(fd >= 0);
    snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
    r.ifr_flags = (short)flags;
    if (flags != 0)
        assert_int_equal(ioctl(fd, TUNSETIFF, &r), 0);
    return fd;
}

static int fds(void)
{
    return fault_entries("/proc/self/fd");
}

/* ---- what is refused ---------------------------------------------------------------------- */

static void refuses_what_is_no_name(void **state)
{
    static const char *const names[] = {"",
                                        "a/b",
                                        "tap%d",
                                        ".",
                                        "..",
                                        "a b",
                                        "a\nb",
                                        "tap0:1",
                                        "\x7f/",
                                        "abcdefghijklmnop",
                                        "\t",
                                        "%",
                                        "abcdefghijklmnopqrstuvwxyz"};
    struct tn_tap_cfg cfg = {NULL, false, true, NULL, 1, 0};
    struct tn_tap t;
    int before = fds();

    (void)state;
    assert_int_equal(tn_tap_init(&t, &cfg), TN_EINVAL);
    assert_int_equal(t.phase, TN_TAP_PAIRS);
    for (size_t i = 0; i < COUNT(names); i++) {
        cfg.name = names[i];
        assert_int_equal(tn_tap_init(&t, &cfg), TN_EINVAL);
        assert_int_equal(t.phase, TN_TAP_LONG);
        assert_int_equal(t.fd[0], -1);
    }
    cfg.name = "tap0";
    cfg.pairs = TN_TAP_QUEUES + 1;
    assert_int_equal(tn_tap_init(&t, &cfg), TN_EINVAL);
    assert_int_equal(t.phase, TN_TAP_PAIRS);
    tn_tap_close(&t);
    assert_int_equal(fds(), before);
}

static void refuses_what_is_not_there(void **state)
{
    struct tn_tap_cfg cfg = {"tapnone", false, false, NULL, 1, 0};
    struct tn_tap t, u;
    int before;

    (void)state;
    NEEDS_TAP;
    before = fds();
    assert_int_equal(tn_tap_init(&t, &cfg), TN_ENODEV);
    assert_int_equal(t.phase, TN_TAP_LOOK);
    assert_int_equal(if_nametoindex("tapnone"), 0);
    cfg.macvtap = cfg.create = true; /* a macvtap is never made */
    assert_int_equal(tn_tap_init(&t, &cfg), TN_ENODEV);
    assert_int_equal(t.phase, TN_TAP_LOOK);
    cfg.macvtap = false;
    cfg.name = "lo"; /* no TAP */
    assert_int_equal(tn_tap_init(&t, &cfg), TN_EINVAL);
    assert_int_equal(t.phase, TN_TAP_ATTACH);
    open_tap(&u, "tapa", 1);
    cfg.name = "tapa"; /* open already */
    assert_int_equal(tn_tap_init(&t, &cfg), TN_EEXIST);
    assert_int_equal(t.phase, TN_TAP_ATTACH);
    cfg.pairs = 2; /* not with several queues */
    assert_int_equal(tn_tap_init(&t, &cfg), TN_EINVAL);
    assert_int_equal(t.phase, TN_TAP_ATTACH);
    cfg.pairs = 1;
    cfg.macvtap = true; /* no macvtap */
    assert_int_equal(tn_tap_init(&t, &cfg), TN_ENODEV);
    assert_int_equal(t.phase, TN_TAP_OPEN);
    tn_tap_close(&u);
    assert_int_equal(fds(), before);
}

/* In a child that may not: what of, exit status 0 when it is as it should be. */
static void child_may_not(bool user)
{
    struct tn_tap_cfg cfg = {"tapchild", false, true, NULL, 1, 0};
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0}};
    struct tn_tap t;
    pid_t pid = fork();
    int status = 0;

    if (pid == 0) {
        if (user && setuid(65534) < 0)
            _exit(2);
        if (!user && syscall(SYS_capset, &head, none) < 0)
            _exit(3);
        if (tn_tap_init(&t, &cfg) != TN_ESYS)
            _exit(4);
        if (user) /* where /dev/net/tun is for everybody, the interface is not */
            _exit((errno == EACCES && t.phase == TN_TAP_OPEN) ||
                          (errno == EPERM && t.phase == TN_TAP_ATTACH)
                      ? 0
                      : 5);
        _exit(errno == EPERM && t.phase == TN_TAP_ATTACH ? 0 : 6);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void refuses_who_may_not(void **state)
{
    (void)state;
    NEEDS_TAP;
    child_may_not(true);
    child_may_not(false);
}

static void refuses_descriptors_that_are_no_taps(void **state)
{
    enum { TAP = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
    static const struct {
        const char *name;
        unsigned flags;
    } bad[] = {
        {"no interface", 0},
        {"a TUN", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR},
        {"no header", IFF_TAP | IFF_NO_PI},
    };
    int pair[2], two[2];
    struct tn_tap_cfg cfg = {NULL, false, false, two, 1, 0};
    struct tn_tap t;

    (void)state;
    NEEDS_TAP;
    for (size_t i = 0; i < COUNT(bad); i++) {
        two[0] = open_fd(bad[i].flags, "tapbad");
        if (tn_tap_init(&t, &cfg) != TN_EINVAL || t.phase != TN_TAP_IDENTIFY)
            fail_msg("%s", bad[i].name);
        assert_int_equal(t.fd[0], -1);
        assert_int_equal(close(two[0]), 0); /* it is ours still */
    }
    assert_int_equal(pipe(pair), 0);
    two[0] = pair[0];
    assert_int_equal(tn_tap_init(&t, &cfg), TN_EINVAL);
    assert_int_equal(t.phase, TN_TAP_IDENTIFY);
    two[0] = -1;
    assert_int_equal(tn_tap_init(&t, &cfg), TN_ESYS);
    close(pair[0]);
    close(pair[1]);
    two[0] = open_fd(TAP | IFF_MULTI_QUEUE, "tapone");
    two[1] = open_fd(TAP | IFF_MULTI_QUEUE, "taptwo");
    cfg.pairs = 2;
    assert_int_equal(tn_tap_init(&t, &cfg), TN_EINVAL);
    close(two[0]);
    close(two[1]);
}

/* ---- frames ------------------------------------------------------------------------------- */

static void moves_frames_both_ways(void **state)
{
    static const uint32_t len[] = {14, 15, 60, 61, 1513, 1514};
    static const size_t cut[][4] = {{1514, 0, 0, 0}, {1, 13, 0, 1500}, {14, 1, 1, 1498}};
    uint8_t frame[FRAME_LEN], got[FRAME_LEN + 64];
    struct tn_net_hdr hdr = {0};
    struct tn_tap t;
    struct wire w;
    int s;

    (void)state;
    NEEDS_TAP;
    open_tap(&t, "tap0", 1);
    s = host("tap0");
    assert_int_equal(t.net.pairs, 1);
    assert_int_equal(t.net.ops->fd(t.net.ctx, 0), t.fd[0]);
    assert_int_equal(t.net.ops->fd(t.net.ctx, 1), -1);
    for (size_t i = 0; i < COUNT(len); i++)
        for (size_t c = 0; c < COUNT(cut); c++) {
            struct tn_iov iov[4];
            size_t at = 0;
            int64_t n;

            ether(frame, len[i], (uint8_t)(i + c));
            for (size_t k = 0; k < 4; at += cut[c][k++]) {
                iov[k].base = frame + at;
                iov[k].len = cut[c][k];
            }
            memset(&hdr, 0, sizeof(hdr));
            assert_int_equal(t.net.ops->send(t.net.ctx, 0, &hdr, iov, 4, len[i]), 0);
            assert_int_equal(host_recv(s, &w, got, sizeof(got)), len[i]);
            assert_memory_equal(got, frame, len[i]);

            host_send(s, NULL, frame, len[i]);
            for (at = 0; at < 4; at++)
                iov[at].base = got + (iov[at].base - frame);
            do {
                memset(got, 0xee, sizeof(got));
                memset(&hdr, 0xee, sizeof(hdr));
                n = t.net.ops->recv(t.net.ctx, 0, &hdr, iov, 4);
            } while (n == TN_EAGAIN || (n > 0 && !ours(got)));
            assert_int_equal(n, len[i]);
            assert_memory_equal(got, frame, len[i]);
            assert_int_equal(got[len[i]], 0xee);
            assert_int_equal(hdr.flags | hdr.gso_type | hdr.gso_size | hdr.num_buffers, 0);
        }
    assert_int_equal(t.lost[0], 0);
    close(s);
    tn_tap_close(&t);
    assert_int_equal(if_nametoindex("tap0"), 0);
}

static void cuts_no_frame(void **state)
{
    uint8_t frame[FRAME_LEN], got[FRAME_LEN];
    struct tn_net_hdr hdr;
    struct tn_tap t;
    int s;

    (void)state;
    NEEDS_TAP;
    open_tap(&t, "tap0", 1);
    s = host("tap0");
    for (uint32_t room = 200; room <= 202; room++) {
        ether(frame, 201, (uint8_t)room);
        host_send(s, NULL, frame, 201);
        ether(frame, 100, 9);
        host_send(s, NULL, frame, 100);
        memset(got, 0xee, sizeof(got));
        for (;;) {
            int64_t n = guest_recv(&t, 0, &hdr, got, room);

            if (n == TN_ETRUNC && !ours(got))
                continue;
            assert_int_equal(n, room < 201 ? TN_ETRUNC : 201);
            break;
        }
        assert_int_equal(got[room], 0xee);
        assert_int_equal(guest_recv(&t, 0, &hdr, got, sizeof(got)), 100);
        assert_memory_equal(got, frame, 100);
    }
    close(s);
    tn_tap_close(&t);
}

static void takes_many_iovecs_and_no_more(void **state)
{
    static struct tn_iov iov[TN_NET_IOVS + 1];
    uint8_t frame[FRAME_LEN] = {0}, got[FRAME_LEN] = {0};
    struct tn_net_hdr hdr = {0};
    struct tn_tap t;
    struct wire w;
    int64_t n;
    int s;

    (void)state;
    NEEDS_TAP;
    open_tap(&t, "tap0", 1);
    s = host("tap0");
    ether(frame, TN_NET_IOVS, 5);
    for (size_t i = 0; i < COUNT(iov); i++) {
        iov[i].base = frame + i;
        iov[i].len = 1;
    }
    assert_int_equal(t.net.ops->send(t.net.ctx, 0, &hdr, iov, TN_NET_IOVS + 1, TN_NET_IOVS),
                     TN_EINVAL);
    assert_int_equal(t.net.ops->send(t.net.ctx, 0, &hdr, iov, TN_NET_IOVS, TN_NET_IOVS), 0);
    assert_int_equal(host_recv(s, &w, got, sizeof(got)), TN_NET_IOVS);
    assert_memory_equal(got, frame, TN_NET_IOVS);
    host_send(s, NULL, got, TN_NET_IOVS);
    for (size_t i = 0; i < COUNT(iov); i++)
        iov[i].base = got + i;
    assert_int_equal(t.net.ops->recv(t.net.ctx, 0, &hdr, iov, TN_NET_IOVS + 1), TN_EINVAL);
    do
        n = t.net.ops->recv(t.net.ctx, 0, &hdr, iov, TN_NET_IOVS);
    while (n == TN_EAGAIN || (n > 0 && !ours(got)));
    assert_int_equal(n, TN_NET_IOVS);
    assert_memory_equal(got, frame, TN_NET_IOVS);
    /* the asker's mistakes */
    assert_int_equal(t.net.ops->send(t.net.ctx, 0, &hdr, iov, 1, 0), TN_EINVAL);
    assert_int_equal(t.net.ops->send(t.net.ctx, 0, &hdr, iov, 20, 21), TN_EINVAL);
    assert_int_equal(t.net.ops->send(t.net.ctx, 0, &hdr, iov, 1, TN_NET_FRAME_MAX + 1), TN_EINVAL);
    assert_int_equal(send_one(&t, 1, NULL, frame, 60), TN_EINVAL);
    assert_int_equal(t.net.ops->recv(t.net.ctx, 1, &hdr, iov, 1), TN_EINVAL);
    close(s);
    tn_tap_close(&t);
}

static void says_again_when_there_is_none_or_no_room(void **state)
{
    static const struct {
        int error, times, send, recv;
        uint64_t lost;
    } row[] = {
        {EAGAIN, 1, TN_EAGAIN, TN_EAGAIN, 0}, {EINTR, 3, 0, TN_EAGAIN, 0},
        {ENOBUFS, 1, 0, TN_ESYS, 1},          {ENOMEM, 1, 0, TN_ESYS, 1},
        {EINVAL, 1, 0, TN_ESYS, 1},           {EBADFD, 1, TN_ESYS, TN_ESYS, 0},
        {EBADF, 1, TN_ESYS, TN_ESYS, 0},
    };
    uint8_t frame[60], got[FRAME_LEN];
    struct tn_net_hdr hdr;
    struct tn_tap t;
    struct wire w;
    int s;

    (void)state;
    NEEDS_TAP;
    open_tap(&t, "tap0", 1);
    s = host("tap0");
    while (guest_recv(&t, 0, &hdr, got, sizeof(got)) != 0)
        continue;
    for (size_t i = 0; i < COUNT(row); i++) {
        uint64_t lost = t.lost[0];

        ether(frame, sizeof(frame), (uint8_t)i);
        stand_in.error = row[i].error;
        stand_in.times = row[i].times;
        assert_int_equal(send_one(&t, 0, NULL, frame, sizeof(frame)), row[i].send);
        assert_int_equal(stand_in.times, 0);
        assert_int_equal(t.lost[0] - lost, row[i].lost);
        if (row[i].error == EINTR) { /* it is sent, once */
            assert_int_equal(host_recv(s, &w, got, sizeof(got)), sizeof(frame));
            assert_memory_equal(got, frame, sizeof(frame));
        }
        stand_in.times = row[i].times;
        {
            struct tn_iov iov = {got, sizeof(got)};

            assert_int_equal(t.net.ops->recv(t.net.ctx, 0, &hdr, &iov, 1), row[i].recv);
        }
        assert_int_equal(stand_in.times, 0);
    }
    up("tap0", false); /* a cable that is pulled out: frames are lost, and nothing else */
    assert_int_equal(send_one(&t, 0, NULL, frame, sizeof(frame)), 0);
    assert_int_equal(t.lost[0], 4);
    up("tap0", true);
    running("tap0");
    close(s);
    s = host("tap0"); /* the old one has an error to tell, ENETDOWN */
    assert_int_equal(send_one(&t, 0, NULL, frame, sizeof(frame)), 0);
    assert_int_equal(host_recv(s, &w, got, sizeof(got)), sizeof(frame));
    close(s);
    tn_tap_close(&t);
}

static void knows_when_the_interface_is_gone(void **state)
{
    uint8_t frame[60];
    struct tn_net_hdr hdr;
    struct tn_iov iov = {frame, sizeof(frame)};
    struct tn_tap t;

    (void)state;
    NEEDS_TAP;
    open_tap(&t, "tap0", 2);
    ether(frame, sizeof(frame), 0);
    assert_int_equal(set(&t, 0, 2), 0);
    delete ("tap0");
    assert_int_equal(send_one(&t, 0, NULL, frame, sizeof(frame)), TN_ESYS);
    assert_int_equal(t.net.ops->recv(t.net.ctx, 0, &hdr, &iov, 1), TN_ESYS);
    assert_int_equal(t.net.ops->recv(t.net.ctx, 1, &hdr, &iov, 1), TN_ESYS);
    assert_int_equal(set(&t, 0, 1), TN_ESYS);
    assert_int_equal(t.active, 2);
    tn_tap_close(&t);
    tn_tap_close(&t);
    assert_int_equal(t.net.ops->fd(t.net.ctx, 0), -1);
    assert_int_equal(t.net.ops->recv(t.net.ctx, 0, &hdr, &iov, 1), TN_ESYS);
    assert_int_equal(send_one(&t, 0, NULL, frame, sizeof(frame)), TN_EINVAL);
    assert_int_equal(set(&t, 0, 1), TN_ESYS);
}

/* ---- offloads ----------------------------------------------------------------------------- */

static void set_rejects_what_it_does_not_offer(void **state)
{
    struct tn_tap t;

    (void)state;
    NEEDS_TAP;
    open_tap(&t, "tap0", 1);
    assert_int_equal(set(&t, 1u << 6, 1), TN_EINVAL);
    assert_int_equal(set(&t, 0, 0), TN_EINVAL);
    assert_int_equal(set(&t, 0, 2), TN_EINVAL);
    for (uint32_t o = 0; o < 64; o++)
        if ((o & ~t.net.rx_offloads) == 0) {
            assert_int_equal(set(&t, o, 1), 0);
            assert_int_equal(t.offloads, o);
        }
    tn_tap_close(&t);
}

/* Whether a checksum that the host leaves open comes open. */
static bool comes_open(struct tn_tap *t, int s)
{
    uint8_t frame[FRAME_LEN], got[FRAME_LEN];
    uint32_t len = packet(frame, false, 17, 100, 1);
    struct wire w = {TN_NET_HDR_F_NEEDS_CSUM, 0, 0, 0, 34, 6};
    struct tn_net_hdr hdr;

    host_send(s, &w, frame, len);
    for (uint32_t p = 0; p < t->net.pairs * 50; p++, usleep(200)) {
        struct tn_iov iov = {got, sizeof(got)};

        if (t->net.ops->recv(t->net.ctx, p % t->net.pairs, &hdr, &iov, 1) != len || !ours(got))
            continue;
        assert_int_equal(whole(got, len), (hdr.flags & TN_NET_HDR_F_NEEDS_CSUM) == 0);
        return hdr.flags & TN_NET_HDR_F_NEEDS_CSUM;
    }
    fail_msg("the frame does not come");
    return false;
}

/* A frame whose work is left open, both ways: what comes out is as far done as was asked for. */
static void leaves_open_what_was_asked_for(void **state)
{
    static const struct {
        const char *name;
        bool v6;
        uint8_t protocol, gso;
        uint32_t need; /* to leave it in one piece */
    } row[] = {
        {"checksum", false, 17, TN_NET_HDR_GSO_NONE, TN_NET_CSUM},
        {"checksum, IPv6", true, 17, TN_NET_HDR_GSO_NONE, TN_NET_CSUM},
        {"TSO4", false, 6, TN_NET_HDR_GSO_TCPV4, TN_NET_CSUM | TN_NET_TSO4},
        {"TSO6", true, 6, TN_NET_HDR_GSO_TCPV6, TN_NET_CSUM | TN_NET_TSO6},
        {"TSO4 ECN", false, 6, TN_NET_HDR_GSO_TCPV4 | TN_NET_HDR_GSO_ECN,
         TN_NET_CSUM | TN_NET_TSO4 | TN_NET_ECN},
        {"USO", false, 17, TN_NET_HDR_GSO_UDP_L4, TN_NET_CSUM | TN_NET_USO},
        {"USO, IPv6", true, 17, TN_NET_HDR_GSO_UDP_L4, TN_NET_CSUM | TN_NET_USO},
    };
    static const uint32_t asked[] = {0, TN_NET_CSUM, TN_NET_CSUM | TN_NET_TSO4,
                                     TN_NET_CSUM | TN_NET_TSO4 | TN_NET_ECN, 0xffffffff};
    uint8_t frame[FRAME_LEN], got[FRAME_LEN + 1];
    struct tn_tap t;
    int s;

    (void)state;
    NEEDS_TAP;
    open_tap(&t, "tap0", 1);
    s = host("tap0");
    assert_true(t.net.tx_offloads & TN_NET_CSUM);
    assert_int_equal(t.net.tx_offloads, t.net.rx_offloads);
    assert_false(comes_open(&t, s));
    for (size_t i = 0; i < COUNT(row); i++) {
        uint32_t head = row[i].protocol == 17 ? 8 : 20, payload = row[i].gso ? 300 : 100;
        uint32_t len = packet(frame, row[i].v6, row[i].protocol, payload, (uint16_t)i);
        uint32_t l4 = row[i].v6 ? 54 : 34;
        struct tn_net_hdr hdr = {TN_NET_HDR_F_NEEDS_CSUM,
                                 row[i].gso,
                                 (uint16_t)(l4 + head),
                                 row[i].gso ? 100 : 0,
                                 (uint16_t)l4,
                                 row[i].protocol == 17 ? 6 : 16,
                                 0};
        struct wire w = {hdr.flags,    hdr.gso_type,   hdr.hdr_len,
                         hdr.gso_size, hdr.csum_start, hdr.csum_offset};

        if ((row[i].need & ~t.net.tx_offloads) != 0) {
            print_message("# this kernel has no %s\n", row[i].name);
            continue;
        }
        if (row[i].gso & TN_NET_HDR_GSO_ECN)
            frame[l4 + 13] |= 0x80; /* CWR */
        assert_int_equal(tn_net_hdr_check(&hdr, t.net.tx_offloads, len), 0);
        for (size_t a = 0; a < COUNT(asked); a++) { /* to the guest */
            uint32_t can = asked[a] & t.net.rx_offloads;
            bool one = (row[i].need & ~can) == 0;
            uint32_t pieces = one || !row[i].gso ? 1 : 3, each = payload / pieces;

            assert_int_equal(set(&t, can, 1), 0);
            host_send(s, &w, frame, len);
            for (uint32_t p = 0; p < pieces; p++) {
                struct tn_net_hdr h;
                int64_t n = guest_recv(&t, 0, &h, got, sizeof(got));

                if (n != l4 + head + each)
                    fail_msg("%s, asked %u: %d bytes", row[i].name, can, (int)n);
                assert_memory_equal(got + l4 + head, frame + l4 + head + p * each, each);
                assert_int_equal(tn_net_hdr_check(&h, can, (uint32_t)n), 0);
                if (can & TN_NET_CSUM) {
                    assert_true(h.flags & TN_NET_HDR_F_NEEDS_CSUM || whole(got, (uint32_t)n));
                } else {
                    assert_int_equal(h.flags & TN_NET_HDR_F_NEEDS_CSUM, 0);
                    assert_true(whole(got, (uint32_t)n));
                }
                if (one) {
                    assert_int_equal(h.flags & TN_NET_HDR_F_NEEDS_CSUM, 1);
                    assert_int_equal(h.gso_type, row[i].gso);
                    assert_int_equal(h.gso_size, hdr.gso_size);
                    assert_int_equal(h.csum_start, l4);
                    assert_int_equal(h.csum_offset, hdr.csum_offset);
                    assert_false(whole(got, (uint32_t)n));
                }
                assert_int_equal(h.num_buffers, 0);
            }
        }
        /* from the guest: whatever was asked for, the host understands it */
        assert_int_equal(set(&t, 0, 1), 0);
        assert_int_equal(send_one(&t, 0, &hdr, frame, len), 0);
        assert_int_equal(host_recv(s, &w, got, sizeof(got)), len);
        assert_memory_equal(got, frame, len);
        assert_int_equal(w.flags & TN_NET_HDR_F_NEEDS_CSUM, 1);
        assert_int_equal(w.gso_type, row[i].gso);
        assert_int_equal(w.gso_size, hdr.gso_size);
        assert_int_equal(w.csum_start, l4);
        assert_int_equal(w.csum_offset, hdr.csum_offset);
    }
    close(s);
    tn_tap_close(&t);
}

/* Segments as large as the host has them, in pages. */
static void moves_the_largest_segments(void **state)
{
    enum { PAYLOAD = 65535 - 54 }; /* the host makes its own of more */
    static uint8_t frame[17 * 4096], got[17 * 4096];
    struct tn_net_hdr hdr = {TN_NET_HDR_F_NEEDS_CSUM, TN_NET_HDR_GSO_TCPV4, 54, 1460, 34, 16, 0};
    struct wire w = {hdr.flags, hdr.gso_type, 54, 1460, 34, 16};
    struct tn_iov iov[17];
    struct tn_tap t;
    uint32_t len;
    int64_t n;
    int s;

    (void)state;
    NEEDS_TAP;
    open_tap(&t, "tap0", 1);
    s = host("tap0");
    if (!(t.net.tx_offloads & TN_NET_TSO4))
        SKIP("this kernel's TAP takes no segments");
    len = packet(frame, false, 6, PAYLOAD, 3);
    assert_int_equal(len, 54 + PAYLOAD);
    for (size_t i = 0; i < COUNT(iov); i++) {
        iov[i].base = frame + i * 4096;
        iov[i].len = 4096;
    }
    assert_int_equal(t.net.ops->send(t.net.ctx, 0, &hdr, iov, 17, len), 0);
    assert_int_equal(host_recv(s, &w, got, sizeof(got)), len);
    assert_memory_equal(got, frame, len);
    assert_int_equal(w.gso_size, 1460);
    assert_int_equal(set(&t, TN_NET_CSUM | TN_NET_TSO4, 1), 0);
    memset(got, 0, sizeof(got));
    host_send(s, &w, frame, len);
    for (size_t i = 0; i < COUNT(iov); i++)
        iov[i].base = got + i * 4096;
    do
        n = t.net.ops->recv(t.net.ctx, 0, &hdr, iov, 17);
    while (n == TN_EAGAIN || (n > 0 && !ours(got)));
    assert_int_equal(n, len);
    assert_memory_equal(got, frame, len);
    assert_int_equal(hdr.gso_type, TN_NET_HDR_GSO_TCPV4);
    assert_int_equal(hdr.gso_size, 1460);
    close(s);
    tn_tap_close(&t);
}

/* The host's own stack takes what the guest left open for what it says. */
static void the_host_finishes_what_the_guest_left_open(void **state)
{
    struct sockaddr_in addr = {0};
    struct timeval limit = {2, 0};
    uint8_t frame[FRAME_LEN], got[FRAME_LEN];
    struct ifreq r = {0};
    struct tn_net_hdr hdr = {TN_NET_HDR_F_NEEDS_CSUM, 0, 0, 0, 34, 6, 0};
    struct tn_tap t;
    uint32_t len;
    int s;

    (void)state;
    NEEDS_TAP;
    open_tap(&t, "tap0", 1);
    s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(s >= 0);
    snprintf(r.ifr_name, sizeof(r.ifr_name), "tap0");
    addr.sin_family = AF_INET;
    addr.sin_addr.s_addr = htonl(0x0a4d0001);
    addr.sin_port = htons(5000);
    memcpy(&r.ifr_addr, &addr, sizeof(addr));
    assert_int_equal(ioctl(s, SIOCSIFADDR, &r), 0);
    assert_int_equal(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
    assert_int_equal(bind(s, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(ioctl(s, SIOCGIFHWADDR, &r), 0);
    len = packet(frame, false, 17, 300, 1);
    memcpy(frame, r.ifr_hwaddr.sa_data, 6);
    assert_int_equal(send_one(&t, 0, &hdr, frame, len), 0);
    assert_int_equal(recv(s, got, sizeof(got), 0), 300);
    assert_memory_equal(got, frame + 42, 300);
    if (t.net.tx_offloads & TN_NET_USO) {
        hdr.gso_type = TN_NET_HDR_GSO_UDP_L4;
        hdr.gso_size = 100;
        hdr.hdr_len = 42;
        assert_int_equal(send_one(&t, 0, &hdr, frame, len), 0);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(recv(s, got, sizeof(got), 0), 100);
            assert_memory_equal(got, frame + 42 + 100 * i, 100);
        }
    }
    if (t.net.tx_offloads & TN_NET_UFO) { /* fragments, which the host joins */
        hdr.gso_type = TN_NET_HDR_GSO_UDP;
        hdr.gso_size = 96;
        hdr.hdr_len = 42;
        assert_int_equal(send_one(&t, 0, &hdr, frame, len), 0);
        assert_int_equal(recv(s, got, sizeof(got), 0), 300);
        assert_memory_equal(got, frame + 42, 300);
    }
    hdr.flags = hdr.gso_type = 0; /* and then the open checksum is a wrong one */
    hdr.gso_size = 0;
    assert_int_equal(send_one(&t, 0, &hdr, frame, len), 0);
    assert_int_equal(recv(s, got, sizeof(got), MSG_DONTWAIT), -1);
    close(s);
    tn_tap_close(&t);
}

static void offers_what_the_kernel_takes(void **state)
{
    struct tn_tap_cfg cfg = {"tap0", false, true, NULL, 1, 0};
    static const uint32_t all[] = {TN_NET_CSUM, TN_NET_TSO4, TN_NET_TSO6,
                                   TN_NET_ECN,  TN_NET_UFO,  TN_NET_USO};
    uint64_t first = 0;
    struct tn_tap t;
    uint32_t can;

    (void)state;
    NEEDS_TAP;
    for (uint64_t n = 1; first == 0; n++) { /* which of the ioctls is the first of these */
        fault_arm(FAULT_IOCTL, n, FAULT_FAIL);
        tn_tap_init(&t, &cfg);
        assert_true(fault_disarm());
        if (faults.what == TUNSETOFFLOAD)
            first = n;
        tn_tap_close(&t);
    }
    assert_int_equal(tn_tap_init(&t, &cfg), 0);
    can = t.net.rx_offloads;
    tn_tap_close(&t);
    for (size_t i = 0; i < COUNT(all); i++) {
        fault_arm(FAULT_IOCTL, first + i, FAULT_FAIL);
        assert_int_equal(tn_tap_init(&t, &cfg), 0);
        assert_true(fault_disarm());
        if (i == 0) /* none without checksums */
            assert_int_equal(t.net.rx_offloads, 0);
        else if (all[i] != TN_NET_TSO4) /* ECN is probed with TSO4 */
            assert_int_equal(t.net.rx_offloads, can & ~all[i]);
        assert_int_equal(t.net.tx_offloads, t.net.rx_offloads);
        tn_tap_close(&t);
    }
}

/* ---- several queues ----------------------------------------------------------------------- */

/* Sends flows from the host, and counts where they arrive. */
static uint32_t spread(struct tn_tap *t, int s, uint32_t *at)
{
    uint8_t frame[FRAME_LEN], got[FRAME_LEN];
    struct tn_net_hdr hdr;
    struct tn_iov iov = {got, sizeof(got)};
    uint32_t sum = 0;
    int64_t n;

    memset(at, 0, TN_TAP_QUEUES * sizeof(*at));
    for (uint16_t f = 0; f < 64; f++)
        host_send(s, NULL, frame, packet(frame, false, 17, 20, f));
    for (int tries = 0; tries < 100 && sum < 64; tries++, usleep(500))
        for (uint32_t p = 0; p < t->net.pairs; p++)
            while ((n = t->net.ops->recv(t->net.ctx, p, &hdr, &iov, 1)) > 0)
                if (ours(got)) {
                    at[p]++;
                    sum++;
                }
    return sum;
}

static void spreads_frames_over_the_active_pairs(void **state)
{
    static const uint32_t pairs[] = {1, 4, 8, 3, 1, 2, 8, 1};
    uint32_t at[TN_TAP_QUEUES], used;
    uint8_t frame[60], got[FRAME_LEN];
    struct tn_tap t;
    struct wire w;
    int s;

    (void)state;
    NEEDS_TAP;
    open_tap(&t, "tap0", 8);
    s = host("tap0");
    for (size_t i = 0; i < COUNT(pairs); i++) {
        assert_int_equal(set(&t, 0, pairs[i]), 0);
        assert_int_equal(t.active, pairs[i]);
        assert_int_equal(spread(&t, s, at), 64);
        used = 0;
        for (uint32_t p = 0; p < 8; p++) {
            used += at[p] > 0;
            assert_true(p < pairs[i] || at[p] == 0);
            assert_int_equal(t.net.ops->fd(t.net.ctx, p), p < pairs[i] ? t.fd[p] : -1);
            ether(frame, sizeof(frame), (uint8_t)p);
            if (p < pairs[i]) {
                assert_int_equal(send_one(&t, p, NULL, frame, sizeof(frame)), 0);
                assert_int_equal(host_recv(s, &w, got, sizeof(got)), sizeof(frame));
                assert_memory_equal(got, frame, sizeof(frame));
            } else {
                assert_int_equal(send_one(&t, p, NULL, frame, sizeof(frame)), TN_EINVAL);
            }
        }
        assert_true(pairs[i] == 1 ? used == 1 : used > 1);
    }
    close(s);
    tn_tap_close(&t);
}

static void attaches_to_one_that_is_there(void **state)
{
    struct tn_tap_cfg cfg = {"tapkeep", false, false, NULL, 1, 0};
    unsigned flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    struct tn_tap t;
    int fd;

    (void)state;
    NEEDS_TAP;
    for (int several = 0; several < 2; several++) {
        fd = open_fd(flags | (several ? IFF_MULTI_QUEUE : 0), "tapkeep");
        assert_int_equal(ioctl(fd, TUNSETPERSIST, 1), 0);
        close(fd);
        cfg.pairs = 1;
        assert_int_equal(tn_tap_init(&t, &cfg), 0);
        assert_string_equal(t.name, "tapkeep");
        tn_tap_close(&t);
        cfg.pairs = 3;
        assert_int_equal(tn_tap_init(&t, &cfg), several ? 0 : TN_EINVAL);
        tn_tap_close(&t);
        assert_true(if_nametoindex("tapkeep") > 0);
        delete ("tapkeep");
    }
}

static void takes_descriptors_that_are_open(void **state)
{
    unsigned flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
    int fd[2], s;
    struct tn_tap_cfg cfg = {NULL, false, false, fd, 2, 4096};
    uint32_t at[TN_TAP_QUEUES];
    struct tn_tap t;

    (void)state;
    NEEDS_TAP;
    fd[0] = open_fd(flags, "tapgiven");
    fd[1] = open_fd(flags, "tapgiven");
    assert_int_equal(tn_tap_init(&t, &cfg), 0);
    assert_string_equal(t.name, "tapgiven");
    assert_int_equal(t.fd[1], fd[1]);
    assert_true(fcntl(fd[0], F_GETFL) & O_NONBLOCK);
    up("tapgiven", true);
    running("tapgiven");
    s = host("tapgiven");
    assert_int_equal(set(&t, 0, 2), 0);
    assert_int_equal(spread(&t, s, at), 64);
    assert_true(at[0] > 0 && at[1] > 0);
    assert_int_equal(ioctl(fd[0], TUNGETSNDBUF, &at[0]), 0);
    assert_int_equal(at[0], 4096);
    close(s);
    tn_tap_close(&t);
    assert_int_equal(close(fd[0]), -1); /* they were ours */
}

/* ---- each system call fails --------------------------------------------------------------- */

static void ends_as_it_began_when_a_call_fails(void **state)
{
    static const enum fault_kind kinds[] = {FAULT_IOCTL, FAULT_OPEN, FAULT_FCNTL};
    struct tn_tap_cfg cfg = {"tap0", false, true, NULL, 3, 0};
    struct tn_tap t;
    int before, r;

    (void)state;
    NEEDS_TAP;
    before = fds();
    for (size_t k = 0; k < COUNT(kinds); k++)
        for (uint64_t n = 1;; n++) {
            fault_arm(kinds[k], n, FAULT_FAIL);
            r = tn_tap_init(&t, &cfg);
            if (!fault_disarm()) {
                assert_int_equal(r, 0);
                assert_true(n > 1);
                tn_tap_close(&t);
                break;
            }
            if (r == 0) { /* an offload less */
                assert_int_equal(faults.what, TUNSETOFFLOAD);
                tn_tap_close(&t);
            } else {
                assert_true(t.phase > TN_TAP_LOOK);
                assert_int_equal(r, TN_ESYS);
                assert_int_equal(errno, fault_row[kinds[k]].error);
            }
            assert_int_equal(fds(), before);
            assert_int_equal(if_nametoindex("tap0"), 0);
            r = tn_tap_init(&t, &cfg);
            assert_int_equal(r, 0); /* and nothing is in the way of the next one */
            tn_tap_close(&t);
        }
    fault_arm(FAULT_OPEN, 1, FAULT_INTERRUPT);
    assert_int_equal(tn_tap_init(&t, &cfg), 0);
    assert_true(fault_disarm());
    tn_tap_close(&t);
}

static void set_that_fails_changes_nothing(void **state)
{
    static const uint32_t from[] = {1, 4, 2}, to[] = {4, 1, 4};
    uint32_t at[TN_TAP_QUEUES];
    struct tn_tap t;
    int s;

    (void)state;
    NEEDS_TAP;
    open_tap(&t, "tap0", 4);
    s = host("tap0");
    for (size_t i = 0; i < COUNT(from); i++)
        for (uint64_t n = 1;; n++) {
            int r;

            assert_int_equal(set(&t, 0, from[i]), 0);
            fault_arm(FAULT_IOCTL, n, FAULT_FAIL);
            r = set(&t, TN_NET_CSUM, to[i]);
            if (!fault_disarm()) {
                assert_int_equal(r, 0);
                assert_int_equal(t.active, to[i]);
                assert_true(n >= 3);
                break;
            }
            assert_int_equal(r, TN_ESYS);
            assert_int_equal(errno, EIO);
            assert_int_equal(t.active, from[i]);
            assert_int_equal(t.offloads, 0);
            assert_false(comes_open(&t, s));
            assert_int_equal(spread(&t, s, at), 64);
            for (uint32_t p = from[i]; p < 4; p++)
                assert_int_equal(at[p], 0);
        }
    close(s);
    tn_tap_close(&t);
}

/* ---- macvtap ------------------------------------------------------------------------------ */

static void moves_frames_through_a_macvtap(void **state)
{
    struct tn_tap_cfg cfg = {"mvt0", true, false, NULL, 2, 0};
    uint8_t frame[FRAME_LEN], got[FRAME_LEN];
    struct tn_net_hdr hdr;
    char node[40];
    struct tn_tap t, u;
    struct wire w;
    int s, before;

    (void)state;
    NEEDS_TAP;
    if (system("ip link add v0 type veth peer name v1 2>/dev/null && "
               "ip link add mvt0 link v0 type macvtap mode bridge 2>/dev/null") != 0 ||
        if_nametoindex("v1") == 0 || if_nametoindex("mvt0") == 0)
        SKIP("no macvtap, veth or `ip` here");
    snprintf(node, sizeof(node), "/dev/tap%u", if_nametoindex("mvt0"));
    if (access(node, R_OK) < 0) {
        delete ("v0");
        SKIP("a macvtap has no node in /dev here");
    }
    before = fds();
    for (uint64_t n = 1;; n++) {
        int r;

        fault_arm(FAULT_IOCTL, n, FAULT_FAIL);
        r = tn_tap_init(&t, &cfg);
        if (!fault_disarm()) {
            assert_int_equal(r, 0);
            break;
        }
        if (r == 0)
            tn_tap_close(&t);
        assert_int_equal(fds(), before);
    }
    assert_string_equal(t.name, "mvt0");
    up("v0", true);
    up("v1", true);
    up("mvt0", true);
    running("v0");
    running("v1");
    running("mvt0");
    s = host("v1");
    for (int i = 0; i < 10; i++) {
        ether(frame, FRAME_LEN, (uint8_t)i);
        assert_int_equal(send_one(&t, 0, NULL, frame, FRAME_LEN), 0);
        assert_int_equal(host_recv(s, &w, got, sizeof(got)), FRAME_LEN);
        assert_memory_equal(got, frame, FRAME_LEN);
        host_send(s, NULL, frame, FRAME_LEN);
        assert_int_equal(guest_recv(&t, 0, &hdr, got, sizeof(got)), FRAME_LEN);
        assert_memory_equal(got, frame, FRAME_LEN);
    }
    assert_true(t.net.rx_offloads & TN_NET_CSUM);
    assert_int_equal(set(&t, t.net.rx_offloads, 2), 0);
    assert_int_equal(set(&t, 0, 1), 0);
    cfg.name = "v0"; /* not the macvtap itself */
    assert_true(tn_tap_init(&u, &cfg) < 0);
    assert_true(u.phase == TN_TAP_OPEN || u.phase == TN_TAP_IDENTIFY);
    close(s);
    tn_tap_close(&t);
    delete ("v0");
    assert_int_equal(fds(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(refuses_what_is_no_name, setup),
        cmocka_unit_test_setup(refuses_what_is_not_there, setup),
        cmocka_unit_test_setup(refuses_who_may_not, setup),
        cmocka_unit_test_setup(refuses_descriptors_that_are_no_taps, setup),
        cmocka_unit_test_setup(moves_frames_both_ways, setup),
        cmocka_unit_test_setup(cuts_no_frame, setup),
        cmocka_unit_test_setup(takes_many_iovecs_and_no_more, setup),
        cmocka_unit_test_setup(says_again_when_there_is_none_or_no_room, setup),
        cmocka_unit_test_setup(knows_when_the_interface_is_gone, setup),
        cmocka_unit_test_setup(set_rejects_what_it_does_not_offer, setup),
        cmocka_unit_test_setup(leaves_open_what_was_asked_for, setup),
        cmocka_unit_test_setup(moves_the_largest_segments, setup),
        cmocka_unit_test_setup(the_host_finishes_what_the_guest_left_open, setup),
        cmocka_unit_test_setup(offers_what_the_kernel_takes, setup),
        cmocka_unit_test_setup(spreads_frames_over_the_active_pairs, setup),
        cmocka_unit_test_setup(attaches_to_one_that_is_there, setup),
        cmocka_unit_test_setup(takes_descriptors_that_are_open, setup),
        cmocka_unit_test_setup(ends_as_it_began_when_a_call_fails, setup),
        cmocka_unit_test_setup(set_that_fails_changes_nothing, setup),
        cmocka_unit_test_setup(moves_frames_through_a_macvtap, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
