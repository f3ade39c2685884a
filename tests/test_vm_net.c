/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A network device and its backend on an event loop, without a machine: the driver is the test's,
 * and so is the far end, of a pair of sockets, a stream or a TAP. What a description may not say,
 * whose descriptor is whose, and that nobody who stands still, goes away or begins anew makes the
 * loop spin, or loses what it need not lose.
 */
#include "tn_vm_net.h"

#include "netns.h"
#include "vm_alone.h"
#include "vm_far.h"

#define RAM   0x100000u
#define SLOTS 128u /* descriptors of a queue, and buffers of 2 KiB for each */
#define RX    0x40000u
#define TX    0x80000u
#define SLOT  2048u

struct rig {
    struct alone a;
    uint8_t *ram;
    struct tn_vm_net net;
    struct tn_vm_net_cfg cfg;
    struct vd d;
    int far;
    uint32_t given, got;   /* buffers for frames to come, and those that have */
    uint32_t queued, sent; /* frames of the driver's, and those that it has back */
    unsigned changes;      /* of the configuration, that the driver was told of */
};

static const uint32_t kinds[] = {TN_VM_NET_PAIR, TN_VM_NET_STREAM};

static struct rig *rig_new(void)
{
    struct rig *r = calloc(1, sizeof(*r));

    assert_non_null(r);
    alone_open(&r->a);
    r->ram = alone_ram(&r->a, 0, RAM, 0);
    r->far = -1;
    return r;
}

/* A description of a network of that kind, whose far end is the test's. */
static void rig_wire(struct rig *r, uint32_t kind)
{
    int end[2];

    far_sockets(kind, end);
    r->cfg.kind = kind;
    r->cfg.fd = end[0];
    r->far = end[1];
    r->a.fds++;
}

static int rig_try(struct rig *r, uint64_t ring_features)
{
    return tn_vm_net_init(&r->net, &r->cfg, ring_features, &r->a.mem, &r->a.loop);
}

static void rig_up(struct rig *r)
{
    r->given = r->got = r->queued = r->sent = 0;
    alone_up(&r->net.slot.lock, &r->d, ~0ull, 3, SLOTS);
}

static void rig_join(struct rig *r, uint64_t ring_features)
{
    assert_int_equal(rig_try(r, ring_features), 0);
    tn_virtio_connect(&r->net.model.virtio, count_changes, &r->changes);
    vd_init(&r->d, &r->net.model.virtio, r->ram, 0, 0x1000);
}

/* All of it, with a driver. */
static struct rig *rig_open(uint32_t kind, uint64_t ring_features)
{
    struct rig *r = rig_new();

    rig_wire(r, kind);
    rig_join(r, ring_features);
    assert_int_equal(close(r->cfg.fd), 0); /* there is a copy */
    rig_up(r);
    return r;
}

/* A backend that holds few frames. */
static struct rig *rig_narrow(uint32_t kind, uint64_t ring_features)
{
    struct rig *r = rig_open(kind, ring_features);
    int fd = kind == TN_VM_NET_PAIR ? r->net.back.pair.fd : r->net.back.stream.fd, little = 1;

    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &little, sizeof(little)), 0);
    assert_int_equal(setsockopt(r->far, SOL_SOCKET, SO_SNDBUF, &little, sizeof(little)), 0);
    return r;
}

static void far_gone(struct rig *r)
{
    if (r->far >= 0) {
        close(r->far);
        r->a.fds--;
    }
    r->far = -1;
}

static void rig_close(struct rig *r)
{
    vd_free(&r->d);
    tn_vm_net_close(&r->net);
    tn_vm_net_close(&r->net); /* nothing */
    assert_null(r->net.loop);
    free(r->ram); /* nobody has it any more */
    far_gone(r);
    alone_close(&r->a);
    free(r);
}

/* ---- the driver ---- */

static void kick(struct rig *r, uint32_t queue)
{
    alone_kick(&r->net.slot.lock, &r->d, queue);
}

/* Adds n buffers for frames, of which the device is not told yet. */
static void give(struct rig *r, uint32_t n)
{
    while (n-- > 0) {
        const struct vqd_buf buf = {RX + r->given++ % SLOTS * SLOT, SLOT, true};

        assert_true(vd_add(&r->d, 0, &buf, 1) >= 0);
    }
}

/* The number of the next frame that has come; -1: none. */
static int64_t take(struct rig *r)
{
    const uint8_t *at = r->ram + RX + r->got % SLOTS * SLOT;
    uint32_t len;

    if (vd_reap(&r->d, 0, &len) == -1)
        return -1;
    r->got++;
    assert_int_equal(len, MESSAGE);
    return frame_number(at + TN_NET_HDR);
}

/* Adds frame n, likewise. */
static void queue(struct rig *r, uint32_t n)
{
    const struct vqd_buf buf = {TX + r->queued++ % SLOTS * SLOT, MESSAGE, false};

    memset(r->ram + buf.addr, 0, TN_NET_HDR);
    frame_make(r->ram + buf.addr + TN_NET_HDR, n);
    assert_true(vd_add(&r->d, 1, &buf, 1) >= 0);
}

/* How many of its frames the driver has back. */
static uint32_t sent(struct rig *r)
{
    uint32_t len;

    while (vd_reap(&r->d, 1, &len) != -1)
        r->sent++;
    return r->sent;
}

static bool far_sends(struct rig *r, uint32_t n)
{
    return far_send(r->far, r->cfg.kind, n);
}

static int64_t far_takes(struct rig *r)
{
    return far_take(r->far, r->cfg.kind);
}

/* A frame each way through a network that is at rest, and whose rings are empty. */
static void it_works(struct rig *r, uint32_t n)
{
    int64_t is = -1;

    assert_int_equal(r->given, r->got);
    give(r, 1);
    kick(r, 0);
    assert_true(far_sends(r, n));
    UNTIL(&r->a.loop, (is = take(r)) >= 0);
    assert_int_equal(is, n);
    queue(r, n + 1);
    kick(r, 1);
    UNTIL(&r->a.loop, sent(r) == r->queued);
    UNTIL(&r->a.loop, (is = far_takes(r)) >= 0);
    assert_int_equal(is, n + 1);
}

/* ---- what is refused ---- */

enum field {
    KIND,
    NAME,
    FD,
    PAIRS,
    VHOST,
    MAC,
    MTU,
    TX_BYTES,
    TX_OPS,
    RX_BYTES,
    RX_OPS,
    RINGS,
    LOOP
};

/* What cfg.fd is then. */
enum { NONE = 1, CLOSED, PIPE, A_FILE, SEQPACKET, STREAM, DGRAM };

static int descriptor(uint64_t what)
{
    char path[300];
    int fds[2];

    switch (what) {
    case NONE:
        return -1;
    case CLOSED:
        return 9999;
    case PIPE:
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        break;
    case A_FILE:
        temp_path(path, "file");
        put_file(path, (const uint8_t *)path, 10);
        fds[0] = open(path, O_RDWR | O_CLOEXEC);
        unlink(path);
        return fds[0];
    default:
        assert_int_equal(socketpair(AF_UNIX,
                                    (what == SEQPACKET ? SOCK_SEQPACKET
                                     : what == DGRAM   ? SOCK_DGRAM
                                                       : SOCK_STREAM) |
                                        SOCK_CLOEXEC,
                                    0, fds),
                         0);
        break;
    }
    close(fds[1]);
    return fds[0];
}

static void a_bad_description_is_refused(void **state)
{
    static char endless[200];
    static const struct {
        uint32_t kind;
        enum field field;
        uint64_t value;
        const char *name;
        int want, error;
    } rows[] = {
        {TN_VM_NET_PAIR, KIND, TN_VM_NET_PAIR + 1, NULL, TN_EINVAL, 0},
        {TN_VM_NET_PAIR, KIND, UINT32_MAX, NULL, TN_EINVAL, 0},
        {TN_VM_NET_PAIR, FD, NONE, NULL, TN_ESYS, EBADF},
        {TN_VM_NET_PAIR, FD, CLOSED, NULL, TN_ESYS, EBADF},
        {TN_VM_NET_PAIR, FD, PIPE, NULL, TN_EINVAL, 0},
        {TN_VM_NET_PAIR, FD, A_FILE, NULL, TN_EINVAL, 0},
        {TN_VM_NET_PAIR, FD, STREAM, NULL, TN_EINVAL, 0},
        {TN_VM_NET_PAIR, FD, DGRAM, NULL, TN_EINVAL, 0},
        {TN_VM_NET_STREAM, FD, NONE, NULL, TN_ESYS, EBADF},
        {TN_VM_NET_STREAM, FD, CLOSED, NULL, TN_ESYS, EBADF},
        {TN_VM_NET_STREAM, FD, PIPE, NULL, TN_EINVAL, 0},
        {TN_VM_NET_STREAM, FD, A_FILE, NULL, TN_EINVAL, 0},
        {TN_VM_NET_STREAM, FD, SEQPACKET, NULL, TN_EINVAL, 0},
        {TN_VM_NET_STREAM, FD, DGRAM, NULL, TN_EINVAL, 0},
        {TN_VM_NET_STREAM, NAME, 0, "", TN_EINVAL, 0},
        {TN_VM_NET_STREAM, NAME, 0, endless, TN_EINVAL, 0},
        {TN_VM_NET_STREAM, NAME, 0, "/nowhere/passt", TN_ESYS, ENOENT},
        {TN_VM_NET_STREAM, NAME, 0, "left", TN_ESYS, ECONNREFUSED}, /* by one that is gone */
        {TN_VM_NET_TAP, NAME, 0, NULL, TN_EINVAL, 0},
        {TN_VM_NET_TAP, NAME, 0, "", TN_EINVAL, 0},
        {TN_VM_NET_TAP, NAME, 0, "a-name-of-16-byt", TN_EINVAL, 0},
        {TN_VM_NET_TAP, NAME, 0, "a/b", TN_EINVAL, 0},
        {TN_VM_NET_MACVTAP, NAME, 0, NULL, TN_EINVAL, 0},
        {TN_VM_NET_MACVTAP, NAME, 0, "a-name-of-16-byt", TN_EINVAL, 0},
        {TN_VM_NET_TAP, PAIRS, TN_VIRTIO_NET_PAIRS_MAX + 1, "tn", TN_EINVAL, 0},
        {TN_VM_NET_TAP, PAIRS, UINT32_MAX, "tn", TN_EINVAL, 0},
        {TN_VM_NET_PAIR, PAIRS, 2, NULL, TN_EINVAL, 0},
        {TN_VM_NET_STREAM, PAIRS, 2, NULL, TN_EINVAL, 0},
        {TN_VM_NET_PAIR, PAIRS, UINT32_MAX, NULL, TN_EINVAL, 0},
        {TN_VM_NET_PAIR, VHOST, 1, NULL, TN_EINVAL, 0}, /* the kernel knows TAPs alone */
        {TN_VM_NET_STREAM, VHOST, 1, NULL, TN_EINVAL, 0},
        {TN_VM_NET_PAIR, MAC, 0x01, NULL, TN_EINVAL, 0}, /* of a group */
        {TN_VM_NET_PAIR, MAC, 0xff, NULL, TN_EINVAL, 0},
        {TN_VM_NET_STREAM, MAC, 0x03, NULL, TN_EINVAL, 0},
        {TN_VM_NET_PAIR, MTU, 1, NULL, TN_EINVAL, 0},
        {TN_VM_NET_PAIR, MTU, 67, NULL, TN_EINVAL, 0},
        {TN_VM_NET_PAIR, TX_BYTES, 1, NULL, TN_EINVAL, 0}, /* bursts without a rate */
        {TN_VM_NET_PAIR, TX_OPS, 1, NULL, TN_EINVAL, 0},
        {TN_VM_NET_PAIR, RX_BYTES, 1, NULL, TN_EINVAL, 0},
        {TN_VM_NET_PAIR, RX_OPS, UINT64_MAX, NULL, TN_EINVAL, 0},
        {TN_VM_NET_PAIR, RINGS, TN_VIRTIO_F_VERSION_1, NULL, TN_EINVAL, 0},
        {TN_VM_NET_STREAM, RINGS, 1, NULL, TN_EINVAL, 0},
        {TN_VM_NET_PAIR, LOOP, 0, NULL, TN_ESYS, EBADF}, /* one that is closed */
        {TN_VM_NET_STREAM, LOOP, 0, NULL, TN_ESYS, EBADF},
    };
    struct tn_loop none;

    (void)state;
    memset(endless, 'x', sizeof(endless) - 1);
    memset(&none, 0, sizeof(none));
    none.epfd = none.wake_fd = -1;
    for (size_t i = 0; i < COUNT(rows) + COUNT(kinds); i++) {
        size_t k = i < COUNT(rows) ? i : 0; /* beyond: nothing is wrong */
        uint32_t kind = i < COUNT(rows) ? rows[i].kind : kinds[i - COUNT(rows)];
        struct rig *r = rig_new();
        uint64_t ring_features = TN_VIRTIO_F_RING, value = rows[k].value;
        char path[300];
        int fds, got;

        rig_wire(r, kind == TN_VM_NET_STREAM ? kind : TN_VM_NET_PAIR);
        r->cfg.kind = kind;
        r->cfg.mac[5] = 1;
        switch (i < COUNT(rows) ? rows[i].field : MTU) {
        case KIND:
            r->cfg.kind = (uint32_t)value;
            break;
        case FD:
            close(r->cfg.fd);
            r->cfg.fd = descriptor(value);
            break;
        case PAIRS:
            r->cfg.pairs = (uint32_t)value;
            break;
        case VHOST:
            r->cfg.vhost = true;
            break;
        case MAC:
            r->cfg.mac[0] = (uint8_t)value;
            break;
        case MTU:
            r->cfg.mtu = i < COUNT(rows) ? (uint16_t)value : 68;
            break;
        case TX_BYTES:
            r->cfg.tx_rate.bytes_burst = value;
            break;
        case TX_OPS:
            r->cfg.tx_rate.ops_burst = value;
            break;
        case RX_BYTES:
            r->cfg.rx_rate.bytes_burst = value;
            break;
        case RX_OPS:
            r->cfg.rx_rate.ops_burst = value;
            break;
        case RINGS:
            ring_features = value;
            break;
        default:
            break;
        }
        if (i < COUNT(rows) && rows[i].name && strcmp(rows[i].name, "left") == 0) {
            temp_path(path, "left");
            close(unix_listener(path, SOCK_STREAM, 1));
            r->cfg.name = path;
        } else if (i < COUNT(rows)) {
            r->cfg.name = rows[i].name;
        }
        fds = open_fds();
        errno = 0;
        got = tn_vm_net_init(&r->net, &r->cfg, ring_features, &r->a.mem,
                             i < COUNT(rows) && rows[i].field == LOOP ? &none : &r->a.loop);
        if (i >= COUNT(rows)) {
            assert_int_equal(got, 0);
            tn_vm_net_close(&r->net);
        } else if (got != rows[i].want || (rows[i].error && errno != rows[i].error)) {
            fail_msg("row %zu: %d, not %d (errno %d)", i, got, rows[i].want, errno);
        }
        assert_null(r->net.loop);
        assert_int_equal(open_fds(), fds);
        if (r->cfg.fd >= 0 && r->cfg.fd != 9999)
            assert_int_equal(close(r->cfg.fd), 0); /* it is ours still */
        if (r->cfg.name == path)
            unlink(path);
        rig_close(r);
    }
}

/* On what phase a TAP was refused is told. */
static void a_refused_tap_says_where(void **state)
{
    static const struct {
        uint32_t kind, pairs;
        const char *name;
        enum tn_tap_phase phase;
    } rows[] = {{TN_VM_NET_TAP, 1, "a-name-of-16-byt", TN_TAP_LONG},
                {TN_VM_NET_MACVTAP, 1, "a b", TN_TAP_LONG},
                {TN_VM_NET_MACVTAP, 1, "tn-nowhere", TN_TAP_LOOK}};

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct rig *r = rig_new();

        r->cfg.kind = rows[i].kind;
        r->cfg.pairs = rows[i].pairs;
        r->cfg.name = rows[i].name;
        assert_true(rig_try(r, 0) < 0);
        assert_int_equal(r->net.back.tap.phase, rows[i].phase);
        rig_close(r);
    }
}

/* However few descriptors there are: an error, none lost, and the caller has its own. */
static void no_descriptors(void **state)
{
    char path[300];
    int server;

    (void)state;
    temp_path(path, "passt");
    server = unix_listener(path, SOCK_STREAM, 64);
    for (int how = 0; how < 3; how++) {
        struct rig *r = rig_new();
        int got = -1, errors = 0;

        rig_wire(r, how ? TN_VM_NET_STREAM : TN_VM_NET_PAIR);
        r->cfg.name = how == 2 ? path : NULL;
        for (int n = 0; got < 0; n++) {
            int fds = open_fds();

            limit_fds(n);
            got = rig_try(r, TN_VIRTIO_F_RING);
            limit_fds(-1);
            if (got == 0)
                break;
            errors++;
            assert_int_equal(got, TN_ESYS);
            assert_int_equal(errno, EMFILE);
            assert_null(r->net.loop);
            assert_int_equal(open_fds(), fds);
        }
        assert_true(errors >= 3); /* the backend, a timer, an event */
        assert_int_equal(close(r->cfg.fd), 0);
        rig_close(r);
    }
    close(server);
    unlink(path);
}

/* ---- what is made ---- */

/* The copy is the device's own: neither end of the one is an end of the other. */
static void the_descriptor_stays_the_callers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(kinds); i++) {
        struct rig *r = rig_new();
        char byte = 1;
        int own;

        rig_wire(r, kinds[i]);
        rig_join(r, TN_VIRTIO_F_RING);
        assert_int_equal(r->net.cfg.fd, -1);
        own = i == 0 ? r->net.back.pair.fd : r->net.back.stream.fd;
        assert_true(own != r->cfg.fd);
        assert_int_equal(fcntl(own, F_GETFD), FD_CLOEXEC);
        tn_vm_net_close(&r->net);
        assert_int_equal(fcntl(r->cfg.fd, F_GETFD), FD_CLOEXEC);
        assert_int_equal(send(r->cfg.fd, &byte, 1, 0), 1); /* the far end has not heard of it */
        assert_int_equal(recv(r->far, &byte, 1, MSG_DONTWAIT), 1);
        /* Again, of the same. */
        rig_join(r, TN_VIRTIO_F_RING);
        assert_int_equal(close(r->cfg.fd), 0);
        rig_up(r);
        it_works(r, 1);
        tn_vm_net_close(&r->net);
        assert_int_equal(recv(r->far, &byte, 1, MSG_DONTWAIT), 0);
        far_gone(r);
        /* Closed while it polls, and the caller keeps its own: the loop has forgotten it. */
        vd_free(&r->d);
        rig_wire(r, kinds[i]);
        rig_join(r, TN_VIRTIO_F_RING);
        rig_up(r);
        give(r, 3);
        kick(r, 0);
        settle(&r->a.loop);
        assert_true(r->net.port[0].source.events != 0);
        tn_vm_net_close(&r->net);
        assert_true(far_sends(r, 1));
        assert_int_equal(tn_loop_step(&r->a.loop, 10), 0);
        assert_int_equal(close(r->cfg.fd), 0);
        rig_close(r);
    }
}

static void it_is_as_described(void **state)
{
    static const uint8_t mac[6] = {2, 4, 6, 8, 10, 12};
    uint8_t made[2][6];
    struct rig *r;
    uint64_t f;

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        r = rig_new();
        rig_wire(r, kinds[i % 2]);
        if (i < 2)
            memcpy(r->cfg.mac, mac, 6);
        r->cfg.mtu = i % 2 ? 0 : 9000;
        r->cfg.hide = i % 2 ? TN_VIRTIO_NET_F_MRG_RXBUF : TN_VIRTIO_NET_F_CTRL_VQ;
        rig_join(r, rings[i % 2]);
        close(r->cfg.fd);
        f = r->net.model.virtio.cfg.features;
        assert_int_equal(f & TN_VIRTIO_F_RING, rings[i % 2]);
        assert_int_equal(!(f & TN_VIRTIO_NET_F_MRG_RXBUF), i % 2);
        assert_int_equal(!(f & TN_VIRTIO_NET_F_CTRL_VQ), i % 2 == 0);
        assert_int_equal(!(f & TN_VIRTIO_NET_F_MTU), i % 2);
        /* On a pair segments stay whole; on a stream all is done. */
        assert_int_equal(!(f & TN_VIRTIO_NET_F_HOST_USO), i % 2);
        assert_int_equal(!(f & TN_VIRTIO_NET_F_GUEST_TSO6), i % 2);
        assert_int_equal(!(f & TN_VIRTIO_NET_F_CSUM), i % 2);
        assert_int_equal(r->net.model.virtio.cfg.queue_size, TN_VM_NET_QUEUE);
        assert_int_equal(r->net.cfg.pairs, 1);
        assert_int_equal(r->net.cfg.mtu, r->cfg.mtu);
        assert_int_equal(tn_get_(r->net.model.config + 10, 2), r->cfg.mtu);
        assert_int_equal(r->net.model.config[6], TN_VIRTIO_NET_S_LINK_UP);
        assert_memory_equal(r->net.model.config, r->net.cfg.mac, 6);
        if (i < 2)
            assert_memory_equal(r->net.cfg.mac, mac, 6);
        else
            memcpy(made[i - 2], r->net.cfg.mac, 6);
        rig_close(r);
    }
    assert_int_equal(made[0][0] & 3, 2); /* one that nobody has by birth, of one station */
    assert_int_equal(made[1][0] & 3, 2);
    assert_memory_not_equal(made[0], made[1], 6);
}

/* A stream by its path: the string is the device's own. */
static void a_stream_by_its_path(void **state)
{
    char path[300];
    struct rig *r = rig_new();
    int server;

    (void)state;
    temp_path(path, "passt");
    server = unix_listener(path, SOCK_STREAM, 4);
    r->a.fds++;
    r->cfg.kind = TN_VM_NET_STREAM;
    r->cfg.name = path;
    r->cfg.fd = 0; /* nothing that counts */
    rig_join(r, TN_VIRTIO_F_RING);
    unlink(path);
    assert_true(r->net.cfg.name != path);
    assert_string_equal(r->net.cfg.name, path);
    r->far = accept4(server, NULL, NULL, SOCK_CLOEXEC);
    r->a.fds++;
    rig_up(r);
    it_works(r, 1);
    close(server);
    r->a.fds--;
    rig_close(r);
}

/* ---- frames ---- */

static void frames_both_ways(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(kinds) * COUNT(rings); i++) {
        struct rig *r = rig_open(kinds[i % 2], rings[i / 2]);

        for (uint32_t n = 0; n < 10; n++)
            it_works(r, 2 * n);
        alone_reset(&r->net.slot.lock, &r->d); /* the driver leaves, and comes back */
        rig_up(r);
        it_works(r, 100);
        at_rest(&r->a.loop); /* c21: nothing to do is nothing to do */
        /* Many at once, which one turn does not do alone. */
        give(r, SLOTS);
        kick(r, 0);
        for (uint32_t n = 0; n < SLOTS; n++) {
            assert_true(far_sends(r, n));
            queue(r, n);
        }
        kick(r, 1);
        for (uint32_t n = 0; n < SLOTS; n++) {
            int64_t is = -1;

            UNTIL(&r->a.loop, (is = take(r)) >= 0);
            assert_int_equal(is, n);
            UNTIL(&r->a.loop, (is = far_takes(r)) >= 0);
            assert_int_equal(is, n);
        }
        assert_int_equal(sent(r), r->queued);
        at_rest(&r->a.loop);
        rig_close(r);
    }
}

/* Buffers that the driver gives before it is ready are served without a word from it. */
static void what_was_there_before_the_driver_was_ready(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(kinds) * COUNT(rings); i++) {
        struct rig *r = rig_open(kinds[i % 2], rings[i / 2]);

        alone_reset(&r->net.slot.lock, &r->d);
        assert_true(far_sends(r, 5));
        at_rest(&r->a.loop);
        pthread_mutex_lock(&r->net.slot.lock);
        assert_true(vd_negotiate(&r->d, ~0ull));
        assert_true(vd_queues(&r->d, 3, SLOTS));
        pthread_mutex_unlock(&r->net.slot.lock);
        give(r, 3);
        queue(r, 6);
        at_rest(&r->a.loop);
        assert_int_equal(take(r), -1);
        pthread_mutex_lock(&r->net.slot.lock);
        vd_set_status(&r->d, 15);
        pthread_mutex_unlock(&r->net.slot.lock);
        UNTIL(&r->a.loop, sent(r) == 1);
        settle(&r->a.loop);
        assert_int_equal(take(r), 5);
        assert_int_equal(far_takes(r), 6);
        rig_close(r);
    }
}

/* ---- those who stand still ---- */

/* The far end does not read: the driver's frames wait, in order, and cost nothing. */
static void a_far_end_that_does_not_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(kinds) * COUNT(rings); i++) {
        struct rig *r = rig_narrow(kinds[i % 2], rings[i / 2]);
        uint32_t n = 0;

        for (uint32_t k = 0; k < SLOTS; k++)
            queue(r, k);
        kick(r, 1);
        at_rest(&r->a.loop);
        assert_in_range(sent(r), 1, SLOTS - 10);
        assert_true(r->net.port[0].writable);
        /* Meanwhile frames come, and other notifications change nothing. */
        give(r, 1);
        kick(r, 0);
        assert_true(far_sends(r, 7));
        kick(r, 1);
        settle(&r->a.loop);
        assert_int_equal(take(r), 7);
        at_rest(&r->a.loop);
        while (n < SLOTS) {
            int64_t is = -1;

            UNTIL(&r->a.loop, (is = far_takes(r)) >= 0);
            assert_int_equal(is, n++);
        }
        UNTIL(&r->a.loop, sent(r) == SLOTS);
        assert_int_equal(far_takes(r), -1);
        at_rest(&r->a.loop);
        assert_false(r->net.port[0].writable);
        it_works(r, 1000);
        rig_close(r);
    }
}

/* The guest gives no buffers: what comes stays outside, in order, and costs nothing. */
static void a_guest_that_gives_no_buffers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(kinds) * COUNT(rings); i++) {
        struct rig *r = rig_narrow(kinds[i % 2], rings[i / 2]);
        uint32_t n = 0;
        int64_t is = -1;

        while (far_sends(r, n))
            n++;
        assert_in_range(n, 2, SLOTS - 2);
        at_rest(&r->a.loop);
        assert_false(far_sends(r, n)); /* nobody took any */
        assert_false(r->net.port[0].readable);
        give(r, 1);
        kick(r, 0);
        settle(&r->a.loop);
        at_rest(&r->a.loop);
        assert_int_equal(take(r), 0);
        assert_int_equal(take(r), -1);
        give(r, SLOTS - 1);
        kick(r, 0);
        for (uint32_t k = 1; k < n; k++) {
            UNTIL(&r->a.loop, (is = take(r)) >= 0);
            assert_int_equal(is, k);
        }
        assert_true(far_sends(r, 77));
        UNTIL(&r->a.loop, (is = take(r)) >= 0);
        assert_int_equal(is, 77);
        rig_close(r);
    }
}

/* The far end goes away, whatever is under way: from then on it costs nothing (c21). */
static void c21_nobody_at_the_far_end(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(kinds) * 8; i++) {
        struct rig *r = rig_narrow(kinds[i % 2], rings[i / 8]);
        uint32_t n = 0;

        if (i & 2) { /* frames wait for it */
            while (n < SLOTS)
                queue(r, n++);
            kick(r, 1);
            settle(&r->a.loop);
        }
        if (i & 4) { /* for the guest */
            for (uint32_t k = 0; k < 3; k++)
                assert_true(far_sends(r, k));
        } else {
            give(r, 3);
            kick(r, 0);
            settle(&r->a.loop);
        }
        far_gone(r);
        settle(&r->a.loop);
        if (i & 4) {
            give(r, 8);
            kick(r, 0);
        }
        if (n < SLOTS) {
            queue(r, n++);
            kick(r, 1);
        }
        UNTIL(&r->a.loop, sent(r) == n); /* the driver goes on */
        settle(&r->a.loop);
        assert_int_equal(turns(&r->a.loop, 60), 0);
        assert_true(r->net.port[0].source.fd < 0 || r->net.port[0].source.events == 0);
        /* A driver that begins anew is none the wiser. */
        alone_reset(&r->net.slot.lock, &r->d);
        rig_up(r);
        give(r, 1);
        kick(r, 0);
        queue(r, 1);
        kick(r, 1);
        UNTIL(&r->a.loop, sent(r) == 1);
        settle(&r->a.loop);
        assert_int_equal(turns(&r->a.loop, 30), 0);
        tn_vm_net_quiesce(&r->net);
        tn_vm_net_wake(&r->net);
        settle(&r->a.loop);
        assert_int_equal(turns(&r->a.loop, 30), 0);
        assert_int_equal(r->net.port[0].source.fd, -1);
        assert_int_equal(r->net.model.config[6], kinds[i % 2] == TN_VM_NET_PAIR); /* the link */
        rig_close(r);
    }
}

/* ---- limits ---- */

/* A limit is kept by the loop's timer: no faster, much slower neither, and nothing spins. */
static void limits_are_kept(void **state)
{
    static const struct {
        bool tx, rx;
        struct tn_rate_cfg rate;
        double least; /* seconds for 20 frames */
    } rows[] = {
        {true, false, {0, 0, 100, 1}, 0.17},       {false, true, {0, 0, 100, 1}, 0.17},
        {true, false, {6000, 60, 0, 0}, 0.17},     {false, true, {6000, 60, 0, 0}, 0.17},
        {true, false, {0, 0, 1000000, 0}, 0},      {false, true, {0, 0, 1000000, 0}, 0},
        {true, true, {1 << 30, 0, 100, 10}, 0.07},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows) * 2; i++) {
        struct rig *r = rig_new();
        double began, took;
        unsigned called = 0;
        uint32_t in = 0, out = 0;
        bool first = false;

        rig_wire(r, kinds[i % 2]);
        if (rows[i / 2].tx)
            r->cfg.tx_rate = rows[i / 2].rate;
        if (rows[i / 2].rx)
            r->cfg.rx_rate = rows[i / 2].rate;
        rig_join(r, TN_VIRTIO_F_RING);
        close(r->cfg.fd);
        rig_up(r);
        began = seconds(CLOCK_MONOTONIC);
        give(r, 20);
        kick(r, 0);
        for (uint32_t n = 0; n < 20; n++) {
            queue(r, n);
            assert_true(far_sends(r, n));
        }
        kick(r, 1);
        while (in < 20 || out < 20) {
            uint32_t before = in;

            called += (unsigned)tn_loop_step(&r->a.loop, 100);
            while (far_takes(r) == out)
                out++;
            while (take(r) == in)
                in++;
            took = seconds(CLOCK_MONOTONIC) - began;
            if (before < 20 && in == 20 && out < 20 && !rows[i / 2].rx)
                first = true;
            assert_true(took < HANG);
        }
        took = seconds(CLOCK_MONOTONIC) - began;
        assert_true(took >= rows[i / 2].least);
        if (rows[i / 2].least > 0 && !rows[i / 2].rx)
            assert_true(first); /* the other way has no limit */
        assert_in_range(called, 1, 120);
        settle(&r->a.loop);
        rig_close(r);
    }
}

/* ---- the link ---- */

static void link_up_and_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rings); i++) {
        struct rig *r = rig_open(TN_VM_NET_PAIR, rings[i]);
        unsigned told = r->changes;

        give(r, 8);
        kick(r, 0);
        settle(&r->a.loop);
        for (unsigned down = 0; down < 6; down++) {
            pthread_mutex_lock(&r->net.slot.lock);
            tn_virtio_net_link(&r->net.model, down % 2);
            tn_virtio_net_link(&r->net.model, down % 2); /* nothing new */
            pthread_mutex_unlock(&r->net.slot.lock);
            assert_int_equal(r->changes, ++told);
            assert_int_equal(r->net.model.config[6], down % 2);
            if (down % 2) { /* up: what was sent to it meanwhile is there */
                UNTIL(&r->a.loop, take(r) == down - 1);
                queue(r, down);
                kick(r, 1);
                UNTIL(&r->a.loop, far_takes(r) == down);
            } else { /* down: what is sent is lost, and nothing comes */
                assert_true(far_sends(r, down));
                queue(r, down);
                kick(r, 1);
                settle(&r->a.loop);
                assert_int_equal(sent(r), r->queued);
                assert_int_equal(far_takes(r), -1);
                assert_int_equal(take(r), -1);
                assert_int_equal(tn_virtq_in_flight(&r->net.model.queue[0].q), 0);
                at_rest(&r->a.loop);
            }
        }
        rig_close(r);
    }
}

/* Whether the driver knows the link to be up. */
static bool link_of(struct rig *r)
{
    return r->net.model.config[6] & TN_VIRTIO_NET_S_LINK_UP;
}

/* The link of a stream goes down with its peer; one with a name comes up with the next. */
static void a_stream_that_comes_back(void **state)
{
    char path[300];
    struct rig *r = rig_new();
    int server;

    (void)state;
    temp_path(path, "passt");
    server = unix_listener(path, SOCK_STREAM, 4);
    r->a.fds++;
    r->cfg.kind = TN_VM_NET_STREAM;
    r->cfg.name = path;
    rig_join(r, TN_VIRTIO_F_RING);
    rig_up(r);
    for (unsigned round = 0; round < 4; round++) {
        unsigned told = r->changes;

        UNTIL(&r->a.loop, (r->far = accept4(server, NULL, NULL, SOCK_CLOEXEC)) >= 0);
        r->a.fds++;
        UNTIL(&r->a.loop, link_of(r));
        it_works(r, 10 * round);
        if (round % 2) { /* in the midst of frames */
            give(r, 1);
            kick(r, 0);
            assert_true(far_sends(r, 5));
            queue(r, 6);
            kick(r, 1);
        }
        told = r->changes;
        far_gone(r);
        give(r, 1);
        kick(r, 0);
        UNTIL(&r->a.loop, !link_of(r));
        assert_int_equal(r->changes, told + 1);
        queue(r, 7); /* is lost */
        kick(r, 1);
        UNTIL(&r->a.loop, sent(r) == r->queued);
        if (round == 2) { /* nobody is there for a while: it asks seldom */
            close(server);
            unlink(path);
            assert_in_range(turns(&r->a.loop, 400), 1, 8);
            server = unix_listener(path, SOCK_STREAM, 4);
        }
        alone_reset(&r->net.slot.lock, &r->d);
        rig_up(r);
        assert_false(link_of(r));
    }
    close(server);
    r->a.fds--;
    unlink(path);
    rig_close(r); /* while it waits for the next try */
}

/* ---- rest ---- */

/* At rest nothing moves, and the driver's buffers are its own; what came meanwhile is not lost. */
static void rest_and_go_on(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(kinds) * COUNT(rings); i++) {
        struct rig *r = rig_narrow(kinds[i % 2], rings[i / 2]);
        int64_t is = -1;
        uint32_t before;

        give(r, 10);
        for (uint32_t n = 0; n < SLOTS; n++)
            queue(r, n);
        kick(r, 0);
        kick(r, 1);
        settle(&r->a.loop);
        before = sent(r);
        assert_true(tn_virtq_in_flight(&r->net.model.queue[0].q) > 0);
        tn_vm_net_quiesce(&r->net);
        assert_int_equal(tn_virtq_in_flight(&r->net.model.queue[0].q), 0);
        assert_int_equal(tn_virtq_in_flight(&r->net.model.queue[1].q), 0);
        assert_false(r->net.port[0].readable || r->net.port[0].writable);
        assert_int_equal(r->net.port[0].source.events, 0); /* at once: no event was needed */
        for (uint32_t n = 0; n < 3; n++)
            assert_true(far_sends(r, n));
        for (uint32_t n = 0; n < before; n++)
            assert_int_equal(far_takes(r), n); /* there is room again */
        assert_int_equal(turns(&r->a.loop, 50), 0);
        assert_int_equal(take(r), -1);
        assert_int_equal(sent(r), before);
        tn_vm_net_wake(&r->net);
        for (uint32_t n = 0; n < 3; n++) {
            UNTIL(&r->a.loop, (is = take(r)) >= 0);
            assert_int_equal(is, n);
        }
        for (uint32_t n = before; n < SLOTS; n++) {
            UNTIL(&r->a.loop, (is = far_takes(r)) >= 0);
            assert_int_equal(is, n);
        }
        UNTIL(&r->a.loop, sent(r) == SLOTS);
        tn_vm_net_wake(&r->net); /* too often does no harm */
        at_rest(&r->a.loop);
        rig_close(r);
    }
}

/* Frames come and go while the state is saved: in another device the rest goes on, each once. */
static void saved_under_way(void **state)
{
    uint64_t random = 0x5a7e;
    unsigned waited = 0;

    (void)state;
    for (unsigned round = 0; round < 120; round++) {
        struct rig *r = rig_narrow(kinds[round % 2], rings[round / 2 % 2]);
        struct tn_virtio_net_state s;
        uint32_t came = 0, taken = 0, was_sent, was_got;
        struct vd driver;
        int64_t is = -1;

        give(r, 40);
        for (uint32_t n = 0; n < 40; n++)
            queue(r, n);
        for (uint64_t n = test_random(&random) % 40; n > 0; n--) {
            switch (test_random(&random) % 5) {
            case 0:
                came += far_sends(r, came);
                break;
            case 1:
                taken += far_takes(r) == taken;
                break;
            case 2:
            case 3:
                kick(r, n % 2);
                break;
            default:
                (void)tn_loop_step(&r->a.loop, 0);
                break;
            }
        }
        tn_vm_net_quiesce(&r->net);
        pthread_mutex_lock(&r->net.slot.lock);
        tn_virtio_net_save(&r->net.model, &s);
        pthread_mutex_unlock(&r->net.slot.lock);
        was_sent = sent(r);
        while (far_takes(r) == taken)
            taken++;
        assert_int_equal(taken, was_sent);
        for (was_got = 0; (is = take(r)) >= 0; was_got++)
            assert_int_equal(is, was_got);
        assert_true(was_got <= came);
        waited += was_sent > 0 && was_sent < 40;
        driver = r->d;
        tn_vm_net_close(&r->net);
        far_gone(r);
        /* The same driver goes on, which knows nothing of it. */
        rig_wire(r, kinds[round % 2]);
        rig_join(r, rings[round / 2 % 2]);
        close(r->cfg.fd);
        r->d = driver;
        r->d.v = &r->net.model.virtio;
        pthread_mutex_lock(&r->net.slot.lock);
        assert_int_equal(tn_virtio_net_restore(&r->net.model, &s), 0);
        pthread_mutex_unlock(&r->net.slot.lock);
        for (uint32_t n = was_got; n < 40; n++)
            assert_true(far_sends(r, n));
        tn_vm_net_wake(&r->net);
        for (uint32_t n = was_got; n < 40; n++) {
            UNTIL(&r->a.loop, (is = take(r)) >= 0);
            assert_int_equal(is, n);
        }
        for (uint32_t n = was_sent; n < 40; n++) {
            UNTIL(&r->a.loop, (is = far_takes(r)) >= 0);
            assert_int_equal(is, n);
        }
        UNTIL(&r->a.loop, sent(r) == 40);
        assert_int_equal(far_takes(r), -1);
        it_works(r, 500);
        settle(&r->a.loop);
        rig_close(r);
    }
    assert_true(waited > 10);
}

/* ---- ends in the midst ---- */

/* Sends and gives at random, so that something is under way everywhere. */
static void get_busy(struct rig *r, uint64_t *random)
{
    uint32_t n = 0;

    give(r, (uint32_t)(test_random(random) % 20));
    for (uint64_t k = test_random(random) % 60; k > 0; k--)
        queue(r, n++);
    for (uint64_t k = test_random(random) % 10; k > 0; k--)
        (void)far_sends(r, n++);
    kick(r, 0);
    kick(r, 1);
    for (uint64_t k = test_random(random) % 6; k > 0; k--)
        (void)tn_loop_step(&r->a.loop, 0);
}

static void a_driver_that_begins_anew(void **state)
{
    uint64_t random = 0xde5e7;

    (void)state;
    for (size_t i = 0; i < COUNT(kinds) * COUNT(rings); i++) {
        struct rig *r = rig_narrow(kinds[i % 2], rings[i / 2]);

        for (unsigned round = 0; round < 60; round++) {
            get_busy(r, &random);
            alone_reset(&r->net.slot.lock, &r->d);
            memset(r->ram, 0xee, RAM); /* it may do with it what it likes */
            (void)far_sends(r, 1);
            settle(&r->a.loop);
            if (round % 10 == 0)
                at_rest(&r->a.loop);
            for (uint32_t k = 0; k < RAM; k += 509)
                assert_int_equal(r->ram[k], 0xee);
            assert_int_equal(r->net.port[0].source.events, 0);
            memset(r->ram, 0, RAM);
            while (recv(r->far, (uint8_t[2000]){0}, 2000, MSG_DONTWAIT) > 0)
                ;
            rig_up(r);
            give(r, 50); /* what was sent to the one before */
            kick(r, 0);
            settle(&r->a.loop);
            while (take(r) >= 0)
                ;
            while (r->given > r->got) {
                assert_true(far_sends(r, 3));
                UNTIL(&r->a.loop, take(r) == 3);
            }
        }
        if (kinds[i % 2] == TN_VM_NET_PAIR)
            it_works(r, 9);
        rig_close(r);
    }
}

/* A limit's timer, an event and a frame are under way when it is closed: nothing comes after. */
static void closed_in_the_midst(void **state)
{
    uint64_t random = 0xc105e;

    (void)state;
    for (unsigned round = 0; round < 200; round++) {
        struct rig *r = rig_new();
        int little = 1;

        rig_wire(r, kinds[round % 2]);
        if (round % 3 == 0) {
            r->cfg.tx_rate.ops_per_s = r->cfg.rx_rate.ops_per_s = 2000;
            r->cfg.tx_rate.ops_burst = r->cfg.rx_rate.ops_burst = 1;
        }
        assert_int_equal(setsockopt(r->far, SOL_SOCKET, SO_SNDBUF, &little, sizeof(little)), 0);
        rig_join(r, rings[round / 2 % 2]);
        assert_int_equal(setsockopt(r->cfg.fd, SOL_SOCKET, SO_SNDBUF, &little, sizeof(little)), 0);
        close(r->cfg.fd);
        rig_up(r);
        get_busy(r, &random);
        if (round % 5 == 0)
            tn_vm_net_quiesce(&r->net);
        if (round % 7 == 0)
            far_gone(r);
        rig_close(r);
    }
}

/* ---- two threads ---- */

/* The driver on a thread of its own, as a vCPU is, and the far end with it. */
static void a_driver_beside_the_loop(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(kinds) * COUNT(rings); i++) {
        struct rig *r = rig_narrow(kinds[i % 2], rings[i / 2]);
        double end = seconds(CLOCK_MONOTONIC) + HANG;
        pthread_t thread;
        void *result;

        assert_int_equal(pthread_create(&thread, NULL, loop_main, &r->a.loop), 0);
        for (unsigned round = 0; round < 6; round++) {
            uint32_t in = 0, out = 0, to = 0;

            while (in < 500 || out < 500) {
                if (r->given - r->got < 20)
                    give(r, 20);
                kick(r, 0);
                while (r->queued < 500 && r->queued - sent(r) < 30)
                    queue(r, r->queued);
                kick(r, 1);
                if (to < 500)
                    to += far_sends(r, to);
                while (far_takes(r) == out)
                    out++;
                while (take(r) == in)
                    in++;
                if (round == 3 && in > 200 && out > 200) {
                    tn_vm_net_wake(&r->net);
                    break; /* in the midst */
                }
                assert_true(seconds(CLOCK_MONOTONIC) < end);
            }
            alone_reset(&r->net.slot.lock, &r->d);
            while (far_takes(r) >= 0)
                ;
            if (round == 3)
                break;
            rig_up(r);
        }
        tn_loop_stop(&r->a.loop);
        pthread_join(thread, &result);
        assert_int_equal((intptr_t)result, 0);
        settle(&r->a.loop);
        rig_close(r);
    }
}

/* ---- TAPs ---- */

/* Sends a command of one number to a device of two pairs of queues; its answer. */
static uint8_t command(struct rig *r, uint8_t class, uint8_t number, uint16_t value)
{
    const struct vqd_buf buf[2] = {{TX, 4, false}, {TX + 64, 1, true}};
    uint32_t len;

    r->ram[TX] = class;
    r->ram[TX + 1] = number;
    tn_put_(r->ram + TX + 2, 2, value);
    r->ram[TX + 64] = 0xee;
    assert_true(vd_add(&r->d, 4, buf, 2) >= 0);
    kick(r, 4);
    UNTIL(&r->a.loop, vd_reap(&r->d, 4, &len) >= 0);
    return r->ram[TX + 64];
}

/* Pairs that are switched on and off come to the loop and leave it. */
static void pairs_of_a_tap(void **state)
{
    struct rig *r = rig_new();
    const char *missing = netns_new();
    char name[16] = "tn0";
    uint8_t bytes[256];
    int s;

    (void)state;
    if (missing) {
        rig_close(r);
        SKIP(missing);
    }
    r->cfg.kind = TN_VM_NET_TAP;
    r->cfg.name = name;
    r->cfg.pairs = 2;
    r->cfg.fd = 0; /* nothing that counts */
    rig_join(r, TN_VIRTIO_F_RING);
    assert_true(if_nametoindex("tn0") > 0);
    name[0] = 'x';
    assert_string_equal(r->net.cfg.name, "tn0");
    up("tn0", true);
    running("tn0");
    s = host("tn0");
    r->a.fds++;
    alone_up(&r->net.slot.lock, &r->d, ~0ull, 5, SLOTS);
    for (int round = 0; round < 3; round++) {
        uint8_t frame[TN_NET_HDR - 2 + FRAME] = {0}; /* a packet socket's header has 10 bytes */

        give(r, 4);
        kick(r, 0);
        settle(&r->a.loop);
        assert_true(r->net.port[0].source.fd >= 0);
        assert_int_equal(r->net.port[1].source.fd, -1);
        frame_make(frame + 10, 40);
        assert_int_equal(send(s, frame, sizeof(frame), 0), sizeof(frame));
        UNTIL(&r->a.loop, take(r) == 40);
        queue(r, 41);
        kick(r, 1);
        UNTIL(&r->a.loop, sent(r) == r->queued);
        assert_int_equal(recv(s, bytes, sizeof(bytes), 0), sizeof(frame));
        assert_int_equal(frame_number(bytes + 10), 41);
        at_rest(&r->a.loop);
        assert_int_equal(command(r, TN_VIRTIO_NET_CTRL_MQ, TN_VIRTIO_NET_MQ_PAIRS_SET, 2),
                         TN_VIRTIO_NET_OK);
        settle(&r->a.loop);
        assert_true(r->net.port[1].source.fd >= 0);
        assert_true(r->net.port[1].source.fd != r->net.port[0].source.fd);
        at_rest(&r->a.loop);
        if (round == 0) {
            assert_int_equal(command(r, TN_VIRTIO_NET_CTRL_MQ, TN_VIRTIO_NET_MQ_PAIRS_SET, 1),
                             TN_VIRTIO_NET_OK);
            settle(&r->a.loop);
            while (r->given > r->got) {
                assert_int_equal(send(s, frame, sizeof(frame), 0), sizeof(frame));
                UNTIL(&r->a.loop, take(r) == 40);
            }
        } else { /* a reset does it, too */
            alone_reset(&r->net.slot.lock, &r->d);
            settle(&r->a.loop);
            r->given = r->got = r->queued = r->sent = 0;
            alone_up(&r->net.slot.lock, &r->d, ~0ull, 5, SLOTS);
        }
        settle(&r->a.loop);
        assert_int_equal(r->net.port[1].source.fd, -1);
    }
    delete ("tn0"); /* somebody removes it: that costs nothing */
    settle(&r->a.loop);
    assert_int_equal(turns(&r->a.loop, 50), 0);
    close(s);
    r->a.fds--;
    rig_close(r);
    assert_int_equal(if_nametoindex("tn0"), 0);
}

/* A macvtap gets no frames but for its own address, which is the device's then. */
static void the_address_of_a_macvtap(void **state)
{
    const char *missing = netns_new();
    struct ifreq own = {0};
    struct rig *r;
    char node[40];
    int s;

    (void)state;
    if (missing)
        SKIP(missing);
    if (system("ip link add v0 type veth peer name v1 2>/dev/null && "
               "ip link add mvt0 link v0 type macvtap mode bridge 2>/dev/null") != 0 ||
        if_nametoindex("mvt0") == 0)
        SKIP("no macvtap, veth or `ip` here");
    snprintf(node, sizeof(node), "/dev/tap%u", if_nametoindex("mvt0"));
    if (access(node, R_OK) < 0) {
        delete ("v0");
        SKIP("a macvtap has no node in /dev here");
    }
    s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(own.ifr_name, sizeof(own.ifr_name), "mvt0");
    assert_int_equal(ioctl(s, SIOCGIFHWADDR, &own), 0);
    close(s);
    r = rig_new();
    r->cfg.kind = TN_VM_NET_MACVTAP;
    r->cfg.name = "mvt0";
    rig_join(r, TN_VIRTIO_F_RING);
    assert_memory_equal(r->net.cfg.mac, own.ifr_hwaddr.sa_data, 6);
    assert_memory_equal(r->net.model.config, own.ifr_hwaddr.sa_data, 6);
    rig_close(r);
    r = rig_new();
    r->cfg.kind = TN_VM_NET_MACVTAP;
    r->cfg.name = "mvt0";
    r->cfg.mac[0] = 2;
    rig_join(r, TN_VIRTIO_F_RING); /* unless it was given another */
    assert_memory_equal(r->net.cfg.mac, "\2\0\0\0\0\0", 6);
    rig_close(r);
    delete ("v0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ALONE(a_bad_description_is_refused),
        ALONE(a_refused_tap_says_where),
        ALONE(no_descriptors),
        ALONE(the_descriptor_stays_the_callers),
        ALONE(it_is_as_described),
        ALONE(a_stream_by_its_path),
        ALONE(frames_both_ways),
        ALONE(what_was_there_before_the_driver_was_ready),
        ALONE(a_far_end_that_does_not_read),
        ALONE(a_guest_that_gives_no_buffers),
        ALONE(c21_nobody_at_the_far_end),
        ALONE(limits_are_kept),
        ALONE(link_up_and_down),
        ALONE(a_stream_that_comes_back),
        ALONE(rest_and_go_on),
        ALONE(saved_under_way),
        ALONE(a_driver_that_begins_anew),
        ALONE(closed_in_the_midst),
        ALONE(a_driver_beside_the_loop),
        ALONE(pairs_of_a_tap),
        ALONE(the_address_of_a_macvtap),
    };

    cmocka_set_test_filter(getenv("TENON_TEST"));
    return cmocka_run_group_tests_name("vm_net", tests, NULL, NULL);
}
