/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_vm.h"

#include "vm_guest.h"

#include <sys/socket.h>
#include <sys/un.h>

#include "test.h"

/*
 * Drivers that are hostile to networks, sockets and balloons, in a guest of its own
 * (tests/guests/world.c), with a world outside that is none too friendly. After each round of it a
 * good driver resets the devices and works with them, and what it sends is checked byte for byte.
 * Devices cost no CPU when nobody asks for anything, whatever state they were left in, and no
 * descriptor or memory stays behind. TENON_SEED, TENON_TRICKS and TENON_STEPS are other numbers.
 *
 * The devices know the RAM from 4 MiB on only, so what they write can't hurt the guest's own code.
 */

#define NET     1u
#define VSOCK   2u
#define BALLOON 4u

#define ROUNDS 3
#ifndef HANG
#define HANG 100.0 /* seconds until somebody is said to have come to a halt */
#endif
#define CONNS   64u
#define ENDS    24u /* programs of the host's, on sockets */
#define FRAMES  40u /* as the guest has them, with the numbers below */
#define PAGES   1024u
#define STREAM  20000u
#define MESSAGE (TN_NET_HDR + TN_NET_FRAME_MAX)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static const uint8_t mac[6] = {2, 0, 0, 0, 7, 9};

struct outside {
    struct bench b;
    struct tn_vm_net_cfg net;
    int far; /* of the network; -1: none */
    char path[96];
    int listener[3]; /* at ports 7 to 9: takes all; takes none; takes all, and reads nothing */
    struct {
        int fd; /* -1: none */
        bool mute;
    } end[ENDS];
    uint64_t random;
    uint32_t frames; /* that came in the storms */
    uint32_t taken;  /* connections, likewise */
};

static uint32_t dice(struct outside *o, uint32_t n)
{
    return (uint32_t)(test_random(&o->random) >> 16) % n;
}

static uint64_t asked(const char *name, uint64_t value)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 0) : value;
}

/* Seconds of CPU that all threads have had. */
static double cpu_seconds(void)
{
    struct rusage r;

    assert_int_equal(getrusage(RUSAGE_SELF, &r), 0);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
           (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

/* KiB of this process that are neither a file's nor the guest's. */
static long anonymous(void)
{
    char line[128];
    long kib = -1;
    FILE *f = fopen("/proc/self/status", "r");

    while (f && fgets(line, sizeof(line), f))
        (void)sscanf(line, "RssAnon: %ld", &kib);
    if (f)
        fclose(f);
    return kib;
}

/* KiB of RAM that the guest has of the host's. */
static long resident(const struct outside *o)
{
    struct stat st;

    assert_int_equal(fstat(o->b.vm.ram.fd, &st), 0);
    return (long)st.st_blocks / 2;
}

/* ---- the world outside ---- */

static void address_of(const struct outside *o, uint32_t port, struct sockaddr_un *at)
{
    memset(at, 0, sizeof(*at));
    at->sun_family = AF_UNIX;
    if (port)
        snprintf(at->sun_path, sizeof(at->sun_path), "%s_%u", o->path, port);
    else
        snprintf(at->sun_path, sizeof(at->sun_path), "%s", o->path);
}

static int listen_at(const struct outside *o, uint32_t port, int backlog)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un at;

    address_of(o, port, &at);
    (void)unlink(at.sun_path);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(fd, backlog), 0);
    return fd;
}

/* A program that asks for a port of the guest; -1: the device's queue is full. */
static int dial(const struct outside *o, const char *line)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un to;

    address_of(o, 0, &to);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
        assert_int_equal(errno, EAGAIN);
        close(fd);
        return -1;
    }
    assert_int_equal(send(fd, line, strlen(line), MSG_NOSIGNAL), (ssize_t)strlen(line));
    return fd;
}

static void outside_open(struct outside *o, unsigned what, uint64_t seed)
{
    int end[2];

    o->random = seed | 1;
    o->far = -1;
    for (uint32_t i = 0; i < ENDS; i++)
        o->end[i].fd = -1;
    if (what & NET) {
        assert_int_equal(tn_net_pair_sockets(end), 0);
        o->net.kind = TN_VM_NET_PAIR;
        o->net.fd = end[0];
        o->far = end[1];
        o->net.mtu = 1500;
        memcpy(o->net.mac, mac, 6);
        o->b.cfg.net = &o->net;
        o->b.cfg.nets = 1;
    }
    if (what & VSOCK) {
        snprintf(o->path, sizeof(o->path), "%s/vsock", dir);
        for (uint32_t i = 0; i < 3; i++)
            o->listener[i] = listen_at(o, 7 + i, i == 1 ? 1 : 64);
        o->b.cfg.vsock.cid = 42;
        o->b.cfg.vsock.path = o->path;
        o->b.cfg.vsock.conns = CONNS;
    }
    o->b.cfg.balloon = (what & BALLOON) != 0;
}

static void outside_close(struct outside *o)
{
    if (o->far >= 0)
        close(o->far);
    for (uint32_t i = 0; i < 3 && o->path[0]; i++)
        close(o->listener[i]);
}

/* A frame that reaches the network names nothing beyond itself, and only what was offered. */
static void frame_check(const uint8_t *p, size_t n)
{
    uint32_t len = (uint32_t)n - TN_NET_HDR, gso = p[1];
    uint64_t hdr_len = tn_get_(p + 2, 2), size = tn_get_(p + 4, 2), start = tn_get_(p + 6, 2);
    uint64_t offset = tn_get_(p + 8, 2);

    assert_in_range(n, TN_NET_HDR + TN_NET_ETH, MESSAGE);
    assert_in_range(p[0], 0, 1);
    assert_int_equal(tn_get_(p + 10, 2), 0);
    if (p[0])
        assert_in_range(start + offset + 2, 2, len);
    else
        assert_int_equal(start + offset, 0);
    if (gso == 0) {
        assert_int_equal(size + hdr_len, 0);
        return;
    }
    assert_true(gso == 1 || gso == 4 || gso == 5 || gso == 0x81 || gso == 0x84);
    assert_int_equal(p[0], 1);
    assert_true(size > 0 && start < hdr_len && hdr_len <= len);
}

static bool far_takes(struct outside *o)
{
    static uint8_t bytes[MESSAGE + 1];
    ssize_t n = recv(o->far, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n <= 0)
        return false;
    frame_check(bytes, (size_t)n);
    o->frames++;
    return true;
}

static void far_sends(struct outside *o)
{
    static const uint32_t lens[] = {1,    11,   12,   13,   25,    26,   72,
                                    1526, 1527, 1530, 9000, 65565, 65566};
    static uint8_t bytes[MESSAGE + 1];
    uint32_t len = lens[dice(o, COUNT(lens))];

    memset(bytes, 0, TN_NET_HDR);
    if (dice(o, 2)) {
        for (uint32_t i = 0; i < TN_NET_HDR; i++)
            bytes[i] = (uint8_t)dice(o, i % 2 ? 3 : 256);
    }
    memset(bytes + TN_NET_HDR, (int)dice(o, 256), 18);
    (void)!send(o->far, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void play_net(struct outside *o, uint32_t turn)
{
    if (turn / 32 % 4 != 3) { /* a reader that comes and goes */
        for (int i = 0; i < 32 && far_takes(o); i++)
            ;
    }
    for (uint32_t i = dice(o, 4); i > 0; i--)
        far_sends(o);
}

/* A new end of a connection; one that is in its place goes. */
static void end_is(struct outside *o, int fd, bool mute)
{
    uint32_t i = dice(o, ENDS);

    if (fd < 0)
        return;
    if (o->end[i].fd >= 0)
        close(o->end[i].fd);
    o->end[i].fd = fd;
    o->end[i].mute = mute;
}

static void ends_take(struct outside *o)
{
    for (uint32_t i = 0; i < 3; i += 2) {
        for (int k = 0; k < 8; k++) {
            int fd = accept4(o->listener[i], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

            o->taken += fd >= 0;
            end_is(o, fd, i == 2);
        }
    }
}

static void play_vsock(struct outside *o, uint32_t turn)
{
    struct tn_vm_vsock *vsock = o->b.vm.devices.vsock;
    static uint8_t bytes[65536];
    char line[64];

    ends_take(o);
    pthread_mutex_lock(&vsock->slot.lock);
    for (uint32_t i = 0; i < CONNS; i++) /* what is not read is no more than it may be */
        assert_in_range(vsock->conn[i].rx_cnt - vsock->conn[i].fwd_cnt, 0, TN_VM_VSOCK_BUFFER);
    pthread_mutex_unlock(&vsock->slot.lock);
    if (turn % 4 == 0) {
        snprintf(line, sizeof(line), dice(o, 8) ? "CONNECT %u\n" : "CONNECT  %u", dice(o, 24));
        end_is(o, dial(o, line), dice(o, 4) == 0);
    }
    for (uint32_t i = 0; i < ENDS; i++) {
        int fd = o->end[i].fd;

        if (fd < 0)
            continue;
        if (!o->end[i].mute && dice(o, 2))
            (void)!recv(fd, bytes, dice(o, sizeof(bytes)), 0);
        if (dice(o, 4) == 0)
            (void)!send(fd, bytes, dice(o, sizeof(bytes)), MSG_NOSIGNAL);
        if (dice(o, 64) == 0)
            (void)shutdown(fd, (int)dice(o, 3));
        if (dice(o, 64) == 0) {
            close(fd);
            o->end[i].fd = -1;
        }
    }
}

static void play_balloon(struct outside *o, uint32_t turn)
{
    struct tn_vm_balloon *balloon = o->b.vm.devices.balloon;

    if (turn % 8)
        return;
    pthread_mutex_lock(&balloon->slot.lock);
    (void)tn_virtio_balloon_resize(&balloon->model, dice(o, 4000));
    (void)tn_virtio_balloon_stats_ask(&balloon->model);
    assert_true(tn_virtio_balloon_actual(&balloon->model) <= 3072);
    pthread_mutex_unlock(&balloon->slot.lock);
}

/* ---- the guest ---- */

/* Has the guest do something. */
static void type(struct outside *o, char c)
{
    collect(&o->b);
    o->b.len = 0;
    o->b.seen[0] = 0;
    assert_int_equal(write(o->b.in[1], &c, 1), 1);
}

/* One turn of the loop; whether the guest has not said text yet. */
static bool waits(struct outside *o, const char *text, double end)
{
    tn_loop_step(&o->b.loop, 5);
    collect(&o->b);
    if (strstr(o->b.seen, text))
        return false;
    if (strstr(o->b.seen, "bad ") || tn_vm_wait(&o->b.vm, 0) != TN_EAGAIN ||
        seconds(CLOCK_MONOTONIC) > end)
        fail_msg("no \"%.*s\"; the guest said: %s", (int)strlen(text) - 1, text, o->b.seen);
    return true;
}

static void hear(struct outside *o, const char *text)
{
    double end = seconds(CLOCK_MONOTONIC) + HANG;

    while (waits(o, text, end))
        ;
}

/* Serves the loop until nothing more comes, for a while; the host's programs leave. */
static void settle(struct outside *o)
{
    double end = seconds(CLOCK_MONOTONIC) + HANG;

    for (int n = 0; n < 30; n++) {
        if (seconds(CLOCK_MONOTONIC) > end)
            fail_msg("it does not come to rest");
        if (o->path[0])
            ends_take(o);
        for (uint32_t i = 0; i < ENDS; i++) {
            if (o->end[i].fd >= 0)
                n = close(o->end[i].fd);
            o->end[i].fd = -1;
        }
        while (o->far >= 0 && far_takes(o))
            n = 0;
        if (tn_loop_step(&o->b.loop, 2) > 0)
            n = 0;
        collect(&o->b);
    }
}

/* Nothing happens for so long, and takes no more of the CPU than that. */
static void idle(struct outside *o, double span, double most)
{
    double cpu = cpu_seconds(), end = seconds(CLOCK_MONOTONIC) + span;
    uint32_t turns = 0;

    while (seconds(CLOCK_MONOTONIC) < end) {
        tn_loop_step(&o->b.loop, 100);
        turns++;
    }
    cpu = cpu_seconds() - cpu;
    if (cpu >= most)
        fail_msg("%.3f s of CPU in %.1f s, %u turns", cpu, span, turns);
}

/* All that the devices were told is wrong, and nobody is there but for them. */
static void storm(struct outside *o, unsigned what)
{
    double end = seconds(CLOCK_MONOTONIC) + HANG;
    int before = count_fds();

    type(o, 'h');
    for (uint32_t turn = 0; waits(o, "over\n", end); turn++) {
        if (what & NET)
            play_net(o, turn);
        if (what & VSOCK)
            play_vsock(o, turn);
        if (what & BALLOON)
            play_balloon(o, turn);
        if (turn % 32 == 0)
            assert_in_range(count_fds() - before, 0, ENDS + CONNS);
    }
    settle(o);
    if (what & NET) { /* frames that nobody will ever take */
        for (int i = 0; i < 20; i++)
            far_sends(o);
        serve(&o->b, 50);
    }
    idle(o, 0.3, 0.05);
    settle(o);
}

/* ---- what a good driver does, as seen from outside ---- */

/* Frame n: to the guest. Returns its length, with the header. */
static uint32_t frame_make(struct outside *o, uint8_t *p, uint32_t n, bool all)
{
    uint32_t len = n % 8 == 1 ? 14 : n % 8 == 2 ? 1514 : 14 + dice(o, 1501);
    bool large = all && n % 10 == 5;

    if (large)
        len = 20000 + n;
    memset(p, 0, TN_NET_HDR);
    if (large || (all && n % 4 == 3 && len >= 60)) {
        p[0] = TN_NET_HDR_F_NEEDS_CSUM;
        tn_put_(p + 6, 2, 34);
        tn_put_(p + 8, 2, 16);
    }
    if (large) {
        p[1] = TN_NET_HDR_GSO_TCPV4;
        tn_put_(p + 2, 2, 54);
        tn_put_(p + 4, 2, 1448);
    }
    for (uint32_t i = 0; i < len; i++)
        p[TN_NET_HDR + i] = (uint8_t)(test_random(&o->random) >> 24);
    memcpy(p + TN_NET_HDR, mac, 6);
    p[TN_NET_HDR + 6] &= 0xfe;
    p[TN_NET_HDR + 12] = 0x88;
    p[TN_NET_HDR + 13] = 0xb5;
    return TN_NET_HDR + len;
}

/* The same as it comes back. */
static void frame_answer(uint8_t *p, uint32_t len)
{
    memcpy(p + TN_NET_HDR, p + TN_NET_HDR + 6, 6);
    memcpy(p + TN_NET_HDR + 6, mac, 6);
    for (uint32_t i = TN_NET_HDR + 14; i < len; i++)
        p[i] = (uint8_t)~p[i];
}

static void good_net(struct outside *o, bool all)
{
    static uint8_t sent[4][MESSAGE], got[MESSAGE];
    double end = seconds(CLOCK_MONOTONIC) + HANG;
    uint32_t len[4], n = 0, back = 0;

    hear(o, "frames\n");
    serve(&o->b, 20); /* it sleeps: an interrupt has to wake it */
    while (back < FRAMES) {
        ssize_t r;

        if (n < FRAMES && n - back < 4 && dice(o, 2)) {
            len[n % 4] = frame_make(o, sent[n % 4], n, all);
            assert_int_equal(send(o->far, sent[n % 4], len[n % 4], MSG_NOSIGNAL), len[n % 4]);
            frame_answer(sent[n % 4], len[n % 4]);
            n++;
        }
        r = recv(o->far, got, sizeof(got), MSG_DONTWAIT);
        if (r > 0) {
            assert_true(back < n);
            assert_int_equal(r, len[back % 4]);
            assert_memory_equal(got, sent[back % 4], len[back % 4]);
            back++;
        } else if (strstr(o->b.seen, "good\n")) {
            fail_msg("%u frames came back", back);
        } else {
            (void)waits(o, "good\n", end);
        }
    }
}

static void good_vsock(struct outside *o, int listener)
{
    static uint8_t sent[2][STREAM];
    double end = seconds(CLOCK_MONOTONIC) + HANG;
    uint32_t out[2] = {0, 0}, back[2] = {0, 0};
    int fd[2] = {-1, -1};
    char line[64] = "";

    hear(o, "dial\n");
    fd[1] = dial(o, "CONNECT 1234\n");
    assert_true(fd[1] >= 0);
    while (fd[0] < 0 || !strchr(line, '\n')) {
        (void)waits(o, "good\n", end);
        if (fd[0] < 0)
            fd[0] = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        (void)!recv(fd[1], line + strlen(line), 1, 0);
    }
    assert_memory_equal(line, "OK ", 3);
    for (uint32_t i = 0; i < 2 * STREAM; i++)
        sent[i % 2][i / 2] = (uint8_t)(test_random(&o->random) >> 24);
    while (back[0] < STREAM || back[1] < STREAM) {
        (void)waits(o, "good\n", end);
        for (int i = 0; i < 2; i++) {
            uint32_t some = 1 + dice(o, 5000);
            uint8_t bytes[4096];
            ssize_t r = send(fd[i], sent[i] + out[i],
                             some < STREAM - out[i] ? some : STREAM - out[i], MSG_NOSIGNAL);

            if (r > 0)
                out[i] += (uint32_t)r;
            while ((r = recv(fd[i], bytes, sizeof(bytes), 0)) > 0) {
                assert_in_range(r, 1, STREAM - back[i]);
                for (ssize_t k = 0; k < r; k++)
                    assert_int_equal(bytes[k], (uint8_t)~sent[i][back[i]++]);
            }
            assert_true(r < 0 && errno == EAGAIN);
        }
    }
    close(fd[0]);
    close(fd[1]);
}

static void good_balloon(struct outside *o)
{
    struct tn_vm_balloon *balloon = o->b.vm.devices.balloon;
    const long all = PAGES * 4, slack = 64; /* KiB */
    struct tn_virtio_balloon_stats stats;
    long full;

    hear(o, "full\n");
    full = resident(o);
    type(o, '.');
    hear(o, "flat\n");
    assert_in_range(resident(o), full - all - slack, full - all + slack);
    pthread_mutex_lock(&balloon->slot.lock);
    assert_int_equal(tn_virtio_balloon_actual(&balloon->model), PAGES);
    tn_virtio_balloon_stats_read(&balloon->model, &stats);
    pthread_mutex_unlock(&balloon->slot.lock);
    assert_int_equal(stats.given, 1u << 4 | 1u << 5);
    assert_int_equal(stats.value[4], PAGES * 4096);
    assert_int_equal(stats.value[5], 16u << 20);
    type(o, '.');
    hear(o, "back\n");
    assert_in_range(resident(o), full - slack, full + slack);
    type(o, '.');
    hear(o, "free\n");
    assert_in_range(resident(o), full - all - slack, full - all + slack);
    type(o, '.');
}

static void work(struct outside *o, unsigned what, bool all)
{
    struct sockaddr_un at;
    int listener = -1;

    if (what & VSOCK)
        listener = listen_at(o, 77, 4);
    type(o, 'g');
    if (what & NET)
        good_net(o, all);
    if (what & VSOCK)
        good_vsock(o, listener);
    if (what & BALLOON)
        good_balloon(o);
    hear(o, "good\n");
    if (what & VSOCK) {
        close(listener);
        address_of(o, 77, &at);
        assert_int_equal(unlink(at.sun_path), 0);
    }
    settle(o);
    if (what & BALLOON)
        assert_in_range(resident(o), PAGES * 4, 16 << 10);
}

/* ---- */

static void hostile(unsigned what, bool packed, uint64_t seed, uint32_t tricks, uint32_t steps)
{
    static struct outside o;
    double began = seconds(CLOCK_MONOTONIC), cpu = cpu_seconds();
    long memory = 0;
    int before, fds = 0;
    char words[96];

    seed = asked("TENON_SEED", seed);
    snprintf(words, sizeof(words), "world %llu %llu %llu", (unsigned long long)seed,
             (unsigned long long)asked("TENON_TRICKS", tricks),
             (unsigned long long)asked("TENON_STEPS", steps));
    memset(&o, 0, sizeof(o));
    before = count_fds();
    bench_open(&o.b, words);
    printf("# TENON_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    outside_open(&o, what, seed);
    o.b.cfg.packed = packed;
    bench_create(&o.b);
    if (what & NET)
        close(o.net.fd);
    assert_int_equal(o.b.vm.mem.count, 1);
    o.b.vm.mem.region[0].gpa += 4u << 20;
    o.b.vm.mem.region[0].host += 4u << 20;
    o.b.vm.mem.region[0].size -= 4u << 20;
    assert_int_equal(tn_vm_start(&o.b.vm), 0);
    hear(&o, "ready\n");
    for (int round = 0; round < ROUNDS; round++) {
        alarm(240);
        storm(&o, what);
        work(&o, what, round % 2);
        printf("# round %d: %d descriptors, %ld KiB, %.1f s, %.1f of CPU\n", round, count_fds(),
               anonymous(), seconds(CLOCK_MONOTONIC) - began, cpu_seconds() - cpu);
        fflush(stdout);
        if (round == 0) { /* all that is made once has been made */
            fds = count_fds();
            memory = anonymous();
        }
        assert_int_equal(count_fds(), fds);
        if (!SANITIZED)
            assert_in_range(anonymous(), 0, memory + 512);
    }
    idle(&o, 1, 0.05);
    /* It was not all for nothing. */
    if (what & NET) {
        assert_true(o.frames > 0);
        assert_true(o.b.vm.devices.net[0].model.tx_dropped > 0);
        assert_true(o.b.vm.devices.net[0].model.rx_dropped > 0);
    }
    if (what & VSOCK)
        assert_true(o.taken > 0);
    if (what & BALLOON) {
        assert_true(o.b.vm.devices.balloon->model.inflated > PAGES * ROUNDS);
        assert_true(o.b.vm.devices.balloon->model.foreign > 0);
    }
    printf("# %u frames, %u connections\n", o.frames, o.taken);
    type(&o, 'q');
    assert_int_equal(run_to_end(&o.b), TN_VM_POWEROFF);
    bench_close(&o.b);
    outside_close(&o);
    assert_int_equal(count_fds(), before);
}

static void c09_a_hostile_network_driver(void **state)
{
    (void)state;
    hostile(NET, false, 1, 45, 1000);
}

static void c09_a_hostile_network_driver_of_packed_rings(void **state)
{
    (void)state;
    hostile(NET, true, 2, 45, 1000);
}

static void c18_a_hostile_socket_driver(void **state)
{
    (void)state;
    hostile(VSOCK, false, 3, 45, 1000);
}

static void c18_a_hostile_socket_driver_of_packed_rings(void **state)
{
    (void)state;
    hostile(VSOCK, true, 4, 45, 1000);
}

static void c23_a_hostile_balloon_driver(void **state)
{
    (void)state;
    hostile(BALLOON, false, 5, 45, 1000);
}

static void c23_a_hostile_balloon_driver_of_packed_rings(void **state)
{
    (void)state;
    hostile(BALLOON, true, 6, 45, 1000);
}

static void c21_all_of_them_at_once(void **state)
{
    (void)state;
    hostile(NET | VSOCK | BALLOON, true, 7, 27, 2000);
}

static int setup(void **state)
{
    const char *guests = getenv("TENON_GUESTS");
    char path[512];
    FILE *f;

    if (guests_setup(state) < 0)
        return -1;
    snprintf(path, sizeof(path), "%s/world.elf", guests ? guests : "build/guests");
    f = fopen(path, "rb");
    if (!f)
        missing = "the guest is not built: make guests";
    if (f && kernel) {
        kernel_len = fread(kernel, 1, 1 << 20, f);
        fclose(f);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(c09_a_hostile_network_driver),
        cmocka_unit_test(c09_a_hostile_network_driver_of_packed_rings),
        cmocka_unit_test(c18_a_hostile_socket_driver),
        cmocka_unit_test(c18_a_hostile_socket_driver_of_packed_rings),
        cmocka_unit_test(c23_a_hostile_balloon_driver),
        cmocka_unit_test(c23_a_hostile_balloon_driver_of_packed_rings),
        cmocka_unit_test(c21_all_of_them_at_once),
    };

    return cmocka_run_group_tests_name("vm_hostile", tests, setup, guests_teardown);
}
