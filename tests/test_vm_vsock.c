/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A socket device and its Unix sockets on an event loop, without a machine: the guest is the
 * test's, and so are the programs on the host. What a description may not say, what happens to
 * files that are there already, and that nobody who stands still, goes away or begins anew makes
 * the loop spin, or leaves anything behind.
 */
#include "tn_vm_vsock.h"

#include "vm_alone.h"
#include "vsock_driver.h"

#include <sys/stat.h>

#define CID  42u
#define PORT 1234u /* of the program in the guest */

struct rig {
    struct alone a;
    uint8_t *ram;
    struct tn_vm_vsock vsock;
    struct tn_vm_vsock_cfg cfg;
    char path[300];
    struct vsd v;
    unsigned changes; /* of the configuration, that the driver was told of */
};

static const struct {
    int type;
    uint16_t guest;
    const char *suffix;
} types[] = {{SOCK_STREAM, TN_VIRTIO_VSOCK_STREAM, ""},
             {SOCK_SEQPACKET, TN_VIRTIO_VSOCK_SEQPACKET, ".seqpacket"}};

static struct rig *rig_new(void)
{
    struct rig *r = calloc(1, sizeof(*r));

    assert_non_null(r);
    alone_open(&r->a);
    r->ram = alone_ram(&r->a, 0, VSD_RAM, 0);
    temp_path(r->path, "v");
    r->cfg.cid = CID;
    r->cfg.path = r->path;
    return r;
}

static int rig_try(struct rig *r, uint64_t ring_features)
{
    int result = tn_vm_vsock_init(&r->vsock, &r->cfg, ring_features, &r->a.mem);

    return result < 0 ? result : tn_vm_vsock_listen(&r->vsock, &r->a.loop);
}

static void lock(struct rig *r)
{
    pthread_mutex_lock(&r->vsock.slot.lock);
}

static void unlock(struct rig *r)
{
    pthread_mutex_unlock(&r->vsock.slot.lock);
}

/* A driver, which gives so many buffers for packets, and two for events. */
static void rig_up(struct rig *r, uint32_t buffers)
{
    lock(r);
    assert_true(vsd_up(&r->v, ~0ull, 128));
    for (uint32_t i = 0; i < 2; i++) {
        const struct vqd_buf event = {VSD_EVENT + 8 * i, 8, true};

        assert_true(vd_add(&r->v.d, 2, &event, 1) >= 0);
    }
    vd_kick(&r->v.d, 2);
    vsd_fill(&r->v, buffers);
    unlock(r);
}

static void rig_join(struct rig *r, uint64_t ring_features)
{
    assert_int_equal(rig_try(r, ring_features), 0);
    tn_virtio_connect(&r->vsock.model.virtio, count_changes, &r->changes);
    vsd_init(&r->v, &r->vsock.model.virtio, r->ram, r->cfg.cid);
}

static struct rig *rig_open(uint64_t ring_features, uint32_t conns)
{
    struct rig *r = rig_new();

    r->cfg.conns = conns;
    rig_join(r, ring_features);
    rig_up(r, 16);
    return r;
}

/* How many files there are in the directory of the case. */
static int count_files(void)
{
    DIR *d = opendir(temp_dir);
    int n = -2;

    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void rig_close(struct rig *r)
{
    vsd_free(&r->v);
    tn_vm_vsock_close(&r->vsock);
    tn_vm_vsock_close(&r->vsock); /* nothing */
    assert_null(r->vsock.conn);
    assert_null(r->vsock.cfg.path);
    free(r->ram); /* nobody has it any more */
    alone_close(&r->a);
    free(r);
}

/* ---- the guest ---- */

/* The next packet, when it has come. */
static int guest_hears(struct rig *r, struct vs_hdr *h, uint8_t *payload)
{
    int n;

    lock(r);
    n = vsd_recv(&r->v, h, payload);
    unlock(r);
    return n;
}

/* The next packet must be this one. */
static void must_come(struct rig *r, uint16_t op, struct vs_hdr *h)
{
    UNTIL(&r->a.loop, guest_hears(r, h, NULL) >= 0);
    if (h->op != op)
        fail_msg("it is %u, not %u", h->op, op);
    assert_int_equal(h->dst_cid, r->v.cid);
    assert_int_equal(h->src_cid, TN_VIRTIO_VSOCK_HOST);
}

static void guest_says(struct rig *r, struct vs_end *e, uint16_t op, uint32_t flags)
{
    lock(r);
    assert_true(vs_op(e, op, flags));
    unlock(r);
}

static void guest_sends(struct rig *r, struct vs_end *e, const char *text)
{
    lock(r);
    assert_true(vs_rw(e, text, (uint32_t)strlen(text), TN_VIRTIO_VSOCK_SEQ_EOM));
    unlock(r);
}

/* A transport reset event, when it has come; what it says. */
static uint64_t event(struct rig *r)
{
    uint32_t len = 0;

    UNTIL(&r->a.loop, vd_reap(&r->v.d, 2, &len) >= 0);
    assert_int_equal(len, 4);
    return tn_get_(r->ram + VSD_EVENT, 4);
}

static bool no_event(struct rig *r)
{
    uint32_t len;

    return vd_reap(&r->v.d, 2, &len) == -1;
}

/* ---- programs on the host ---- */

static const char *path_of(struct rig *r, const char *suffix)
{
    static char path[320];

    snprintf(path, sizeof(path), "%s%s", r->path, suffix);
    return path;
}

static void must_hear(struct rig *r, int fd, const char *want)
{
    char buf[256];

    UNTIL(&r->a.loop, hear(fd, buf, sizeof(buf)) >= 0);
    assert_string_equal(buf, want);
}

/* A program that has a connection to one in the guest. */
static int joined(struct rig *r, size_t t, struct vs_end *e)
{
    int fd = unix_dial(path_of(r, types[t].suffix), types[t].type);
    struct vs_hdr h;
    char want[32];

    r->a.fds++;
    say(fd, "CONNECT 1234\n");
    must_come(r, VS_REQUEST, &h);
    assert_int_equal(h.dst_port, PORT);
    assert_int_equal(h.type, types[t].guest);
    assert_int_equal(h.buf_alloc, TN_VM_VSOCK_BUFFER);
    *e = (struct vs_end){&r->v, PORT, h.src_port, h.type, 65536, 0, 0, 0, h.buf_alloc, 0};
    guest_says(r, e, VS_RESPONSE, 0);
    snprintf(want, sizeof(want), "OK %u\n", h.src_port);
    must_hear(r, fd, want);
    return fd;
}

/* A program in the guest that has one to a listener on the host; the host's end. */
static int reached(struct rig *r, size_t t, int server, uint32_t port, struct vs_end *e)
{
    struct vs_hdr h;
    int fd = -1;

    *e = (struct vs_end){&r->v, PORT, port, types[t].guest, 65536, 0, 0, 0, 0, 0};
    guest_says(r, e, VS_REQUEST, 0);
    must_come(r, VS_RESPONSE, &h);
    assert_int_equal(h.src_port, port);
    vs_heard(e, &h);
    UNTIL(&r->a.loop, (fd = accept4(server, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
    r->a.fds++;
    return fd;
}

static void leave(struct rig *r, int fd)
{
    close(fd);
    r->a.fds--;
}

/* The program closes its end, and the guest says that it has seen that. */
static void part(struct rig *r, int fd, struct vs_end *e)
{
    struct vs_hdr h;

    leave(r, fd);
    do
        UNTIL(&r->a.loop, guest_hears(r, &h, NULL) >= 0);
    while (h.op != VS_RST && (h.op != VS_SHUTDOWN || h.flags != TN_VIRTIO_VSOCK_SHUT_BOTH));
    if (h.op == VS_SHUTDOWN)
        guest_says(r, e, VS_RST, 0);
}

/* Some bytes each way. */
static void it_works(struct rig *r, int fd, struct vs_end *e)
{
    uint8_t bytes[VSD_SLOT];
    struct vs_hdr h;

    say(fd, "hello");
    do
        UNTIL(&r->a.loop, guest_hears(r, &h, bytes) >= 0);
    while (h.op == VS_UPDATE);
    assert_int_equal(h.op, VS_RW);
    assert_int_equal(h.len, 5);
    assert_memory_equal(bytes, "hello", 5);
    vs_heard(e, &h);
    e->fwd_cnt = e->rx_cnt;
    guest_sends(r, e, "and you");
    must_hear(r, fd, "and you");
}

/* ---- what is refused ---- */

#define VHOST (1ull << 63) /* beside rings */

static void a_bad_description_is_refused(void **state)
{
    static const struct {
        uint32_t cid, conns;
        bool path;
        uint64_t rings;
        int want;
    } rows[] = {
        {0, 1, true, 0, TN_EINVAL},
        {1, 1, true, 0, TN_EINVAL},
        {2, 1, true, 0, TN_EINVAL},
        {UINT32_MAX, 1, true, 0, TN_EINVAL},
        {3, 1, false, 0, TN_EINVAL},
        {3, 0, false, 0, TN_EINVAL},
        {3, TN_VSOCK_UNIX_CONNS_MAX + 1, true, 0, TN_EINVAL},
        {3, UINT32_MAX, true, 0, TN_EINVAL},
        {3, 1, true, TN_VIRTIO_F_VERSION_1, TN_EINVAL},
        {3, 1, true, 1, TN_EINVAL},
        {3, 1, true, VHOST, TN_EINVAL}, /* the kernel's have no path */
        {3, 1, true, TN_VIRTIO_F_RING, 0},
        {UINT32_MAX - 1, TN_VSOCK_UNIX_CONNS_MAX, true, 0, 0},
        {3, 0, true, 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct rig *r = rig_new();
        int got;

        r->cfg.cid = rows[i].cid;
        r->cfg.conns = rows[i].conns;
        r->cfg.path = rows[i].path ? r->path : NULL;
        r->cfg.vhost = rows[i].rings & VHOST;
        memset(&r->vsock, 0xee, sizeof(r->vsock));
        got = tn_vm_vsock_init(&r->vsock, &r->cfg, rows[i].rings & ~VHOST, &r->a.mem);
        if (got != rows[i].want)
            fail_msg("row %zu: %d", i, got);
        assert_int_equal(!r->vsock.conn, got < 0);
        assert_int_equal(!r->vsock.cfg.path, got < 0);
        assert_int_equal(open_fds(), r->a.fds); /* not before it is to listen */
        assert_int_equal(count_files(), 0);
        rig_close(r);
    }
}

/* Makes what is in the way at a path; returns a descriptor to keep open, or -1. */
static int obstacle(int what, const char *path)
{
    int fd;

    switch (what) {
    case 0:
        return unix_listener(path, SOCK_STREAM, 1);
    case 1: /* left by one that is gone */
        close(unix_listener(path, SOCK_STREAM, 1));
        return -1;
    case 2:
        put_file(path, (const uint8_t *)"text", 4);
        return -1;
    case 3:
        assert_int_equal(mkdir(path, 0700), 0);
        return -1;
    case 4:
        assert_int_equal(symlink("nowhere", path), 0);
        return -1;
    default:
        fd = unix_socket(SOCK_SEQPACKET);
        close(fd);
        return unix_listener(path, SOCK_SEQPACKET, 1);
    }
}

/* Where something is already nothing is made, and what is there stays as it was. */
static void a_path_that_is_taken(void **state)
{
    (void)state;
    for (int what = 0; what < 6; what++) {
        for (size_t t = 0; t < COUNT(types); t++) {
            struct rig *r = rig_new();
            char path[320];
            struct stat before, after;
            int fd;

            snprintf(path, sizeof(path), "%s", path_of(r, types[t].suffix));
            fd = obstacle(what, path);
            assert_int_equal(lstat(path, &before), 0);
            assert_int_equal(tn_vm_vsock_init(&r->vsock, &r->cfg, 0, &r->a.mem), 0);
            errno = 0;
            assert_int_equal(tn_vm_vsock_listen(&r->vsock, &r->a.loop), TN_ESYS);
            assert_int_equal(errno, EADDRINUSE);
            assert_string_equal(r->vsock.host.path, path);
            tn_vm_vsock_close(&r->vsock);
            assert_int_equal(lstat(path, &after), 0);
            assert_true(before.st_ino == after.st_ino && before.st_mode == after.st_mode);
            assert_int_equal(count_files(), 1);
            if (fd >= 0) {
                assert_int_equal(accept(fd, NULL, NULL), -1); /* nor was it called */
                assert_int_equal(errno, EAGAIN);
                close(fd);
            }
            if (unlink(path) < 0)
                assert_int_equal(rmdir(path), 0);
            rig_join(r, 0); /* with nothing in the way */
            rig_close(r);
            assert_int_equal(count_files(), 0);
        }
    }
}

static void a_path_that_cannot_be(void **state)
{
    static const struct {
        size_t len;
        const char *prefix;
        int want, error;
    } rows[] = {
        {0, "", TN_EINVAL, 0},
        {TN_VSOCK_UNIX_PATH_MAX + 1, "/tmp/", TN_EINVAL, 0},
        {250, "/tmp/", TN_EINVAL, 0},
        {60, "/nowhere/", TN_ESYS, ENOENT},
        {60, "/dev/null/", TN_ESYS, ENOTDIR},
        {TN_VSOCK_UNIX_PATH_MAX, "/tmp/", 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct rig *r = rig_new();
        int got;

        memset(r->path, 'x', rows[i].len);
        r->path[rows[i].len] = 0;
        memcpy(r->path, rows[i].prefix, strlen(rows[i].prefix));
        if (i == COUNT(rows) - 1) /* this process' own */
            snprintf(r->path + 5, 12, "%011d", (int)getpid());
        r->path[rows[i].len > 16 ? 16 : rows[i].len] = rows[i].len > 16 ? 'x' : 0;
        assert_int_equal(tn_vm_vsock_init(&r->vsock, &r->cfg, 0, &r->a.mem), 0);
        errno = 0;
        got = tn_vm_vsock_listen(&r->vsock, &r->a.loop);
        if (got != rows[i].want || (rows[i].error && errno != rows[i].error))
            fail_msg("row %zu: %d (errno %d)", i, got, errno);
        assert_int_equal(open_fds() > r->a.fds, got == 0);
        tn_vm_vsock_close(&r->vsock);
        assert_int_equal(access(r->path, F_OK), -1);
        rig_close(r);
    }
}

static void no_descriptors(void **state)
{
    struct rig *r = rig_new();
    int got = -1, errors = 0;

    (void)state;
    for (int n = 0; got < 0; n++) {
        assert_int_equal(tn_vm_vsock_init(&r->vsock, &r->cfg, 0, &r->a.mem), 0);
        limit_fds(n);
        got = tn_vm_vsock_listen(&r->vsock, &r->a.loop);
        limit_fds(-1);
        if (got == 0)
            break;
        errors++;
        assert_int_equal(got, TN_ESYS);
        assert_int_equal(errno, EMFILE);
        tn_vm_vsock_close(&r->vsock);
        assert_int_equal(open_fds(), r->a.fds);
        assert_int_equal(count_files(), 0);
    }
    assert_true(errors >= 5);
    rig_close(r);
    {
        struct tn_loop none; /* one that is closed */

        r = rig_new();
        memset(&none, 0, sizeof(none));
        none.epfd = none.wake_fd = -1;
        assert_int_equal(tn_vm_vsock_init(&r->vsock, &r->cfg, 0, &r->a.mem), 0);
        assert_int_equal(tn_vm_vsock_listen(&r->vsock, &none), TN_ESYS);
        tn_vm_vsock_close(&r->vsock);
        assert_int_equal(open_fds(), r->a.fds);
        assert_int_equal(count_files(), 0);
        rig_close(r);
    }
}

/* ---- what is made ---- */

static void it_is_as_described(void **state)
{
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct rig *r = rig_new();
        char path[300];
        uint64_t f;

        r->cfg.conns = i % 2 ? 7 : 0;
        assert_int_equal(tn_vm_vsock_init(&r->vsock, &r->cfg, rings[i / 2], &r->a.mem), 0);
        memcpy(path, r->path, sizeof(path));
        memset(r->path, 'x', 20); /* its own is another string */
        assert_string_equal(r->vsock.cfg.path, path);
        assert_int_equal(r->vsock.cfg.conns, i % 2 ? 7 : TN_VM_VSOCK_CONNS);
        assert_int_equal(r->vsock.model.cfg.conns, r->vsock.cfg.conns);
        assert_int_equal(r->vsock.cfg.cid, CID);
        f = r->vsock.model.virtio.cfg.features;
        assert_int_equal(f & TN_VIRTIO_F_RING, rings[i / 2]);
        assert_true(f & TN_VIRTIO_VSOCK_F_SEQPACKET);
        assert_int_equal(tn_get_(r->vsock.model.config, 8), CID);
        assert_int_equal(count_files(), 0);
        assert_int_equal(tn_vm_vsock_listen(&r->vsock, &r->a.loop), 0);
        assert_int_equal(count_files(), 2);
        memcpy(r->path, path, sizeof(path));
        if (i == 3) { /* somebody else's by now: it stays */
            assert_int_equal(unlink(path), 0);
            put_file(path, (const uint8_t *)"text", 4);
        }
        at_rest(&r->a.loop);
        tn_vm_vsock_close(&r->vsock);
        assert_int_equal(count_files(), i == 3);
        (void)unlink(path);
        rig_close(r);
    }
}

/* ---- connections ---- */

static void a_program_reaches_a_port(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rings) * COUNT(types); i++) {
        struct rig *r = rig_open(rings[i / 2], 4);
        struct vs_end e;
        struct vs_hdr h;
        char text[8];
        int fd;

        for (int round = 0; round < 6; round++) { /* more than there can be at a time */
            fd = joined(r, i % 2, &e);
            it_works(r, fd, &e);
            it_works(r, fd, &e);
            at_rest(&r->a.loop);
            part(r, fd, &e);
        }
        /* Nobody listens at the port; a line that is none. */
        fd = unix_dial(path_of(r, types[i % 2].suffix), types[i % 2].type);
        say(fd, "CONNECT 7\n");
        must_come(r, VS_REQUEST, &h);
        assert_int_equal(h.dst_port, 7);
        e = (struct vs_end){&r->v, 7, h.src_port, h.type, 0, 0, 0, 0, 0, 0};
        guest_says(r, &e, VS_RST, 0);
        UNTIL(&r->a.loop, hear(fd, text, sizeof(text)) == 0);
        close(fd);
        fd = unix_dial(path_of(r, types[i % 2].suffix), types[i % 2].type);
        say(fd, "CONNECT x\n");
        UNTIL(&r->a.loop, hear(fd, text, sizeof(text)) == 0);
        close(fd);
        settle(&r->a.loop);
        assert_int_equal(guest_hears(r, &h, NULL), -1);
        assert_int_equal(r->vsock.model.used, 0);
        rig_close(r);
    }
}

static void the_guest_reaches_a_socket(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rings) * COUNT(types); i++) {
        struct rig *r = rig_open(rings[i / 2], 0);
        int server = unix_listener(path_of(r, "_77"), types[i % 2].type, 8), fd[4];
        struct vs_end e[4], alone;
        struct vs_hdr h;
        char text[8];

        r->a.fds++;
        for (uint32_t k = 0; k < 4; k++) { /* several at a time, from ports of their own */
            fd[k] = reached(r, i % 2, server, 77, &e[k]);
            if (k < 3)
                guest_says(r, &e[k], VS_SHUTDOWN, 0);
            it_works(r, fd[k], &e[k]);
            guest_says(r, &e[k], VS_RST, 0);
            UNTIL(&r->a.loop, hear(fd[k], text, sizeof(text)) == 0);
            leave(r, fd[k]);
        }
        /* Nobody listens there; nobody at all, or one of the other type. */
        for (uint32_t k = 0; k < 2; k++) {
            alone =
                (struct vs_end){&r->v, PORT, 77 + k, types[(i + 1) % 2].guest, 0, 0, 0, 0, 0, 0};
            guest_says(r, &alone, VS_REQUEST, 0);
            must_come(r, VS_RST, &h);
            assert_int_equal(h.src_port, 77 + k);
            assert_int_equal(h.type, alone.type);
        }
        assert_int_equal(accept(server, NULL, NULL), -1);
        at_rest(&r->a.loop);
        assert_int_equal(r->vsock.model.used, 0);
        close(server);
        r->a.fds--;
        unlink(path_of(r, "_77"));
        rig_close(r);
    }
}

/* One more than there may be waits at the door, and costs nothing. */
static void as_many_as_there_may_be(void **state)
{
    struct rig *r = rig_open(TN_VIRTIO_F_RING, 2);
    struct vs_end e[3];
    struct vs_hdr h;
    int fd[3];

    (void)state;
    fd[0] = joined(r, 0, &e[0]);
    fd[1] = joined(r, 1, &e[1]);
    fd[2] = unix_dial(r->path, SOCK_STREAM);
    say(fd[2], "CONNECT 1234\n");
    at_rest(&r->a.loop);
    assert_int_equal(guest_hears(r, &h, NULL), -1);
    part(r, fd[0], &e[0]);
    must_come(r, VS_REQUEST, &h);
    assert_int_equal(h.dst_port, PORT);
    it_works(r, fd[1], &e[1]);
    leave(r, fd[1]);
    close(fd[2]);
    settle(&r->a.loop);
    rig_close(r);
}

/* ---- those who stand still ---- */

static char pattern(size_t i)
{
    return (char)(i * 7 + (i >> 8) * 3);
}

/* The program does not read: the guest runs out of credit, all is kept, and it costs nothing. */
static void a_program_that_does_not_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rings) * COUNT(types); i++) {
        struct rig *r = rig_open(rings[i / 2], 0);
        static char bytes[4000], got[8000];
        size_t sent = 0, read_ = 0;
        struct vs_end e;
        struct vs_hdr h;
        int fd = joined(r, i % 2, &e), idle = 0;

        while (idle < 3) {
            uint32_t n = vs_credit(&e) < 4000 ? vs_credit(&e) : 4000;
            bool ok;

            for (uint32_t k = 0; k < n; k++)
                bytes[k] = pattern(sent + k);
            lock(r);
            ok = n > 0 && vs_rw(&e, bytes, n, TN_VIRTIO_VSOCK_SEQ_EOM);
            unlock(r);
            sent += ok ? n : 0;
            idle = ok ? 0 : idle + 1;
            settle(&r->a.loop);
            while (guest_hears(r, &h, NULL) >= 0)
                vs_heard(&e, &h);
        }
        assert_true(sent >= TN_VM_VSOCK_BUFFER);
        at_rest(&r->a.loop);
        while (read_ < sent) {
            ssize_t n = read(fd, got, sizeof(got));

            for (ssize_t k = 0; k < n; k++)
                assert_int_equal(got[k], pattern(read_ + (size_t)k));
            read_ += n > 0 ? (size_t)n : 0;
            if (n < 0)
                (void)tn_loop_step(&r->a.loop, 5);
            while (guest_hears(r, &h, NULL) >= 0)
                vs_heard(&e, &h);
        }
        assert_true(vs_credit(&e) >= TN_VM_VSOCK_BUFFER / 2); /* it may go on */
        at_rest(&r->a.loop);
        it_works(r, fd, &e);
        leave(r, fd);
        settle(&r->a.loop);
        rig_close(r);
    }
}

/* The guest gives no buffers: what the program sends stays outside. */
static void a_guest_that_gives_no_buffers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rings); i++) {
        struct rig *r = rig_open(rings[i], 0);
        static char bytes[3000];
        uint8_t got[VSD_SLOT];
        size_t sent = 0, came = 0;
        struct vs_end e;
        struct vs_hdr h;
        int fd = joined(r, 0, &e), idle = 0;

        r->v.keep = true; /* it gives none back */
        while (idle < 3) {
            ssize_t n;

            for (size_t k = 0; k < sizeof(bytes); k++)
                bytes[k] = pattern(sent + k);
            n = write(fd, bytes, sizeof(bytes));
            sent += n > 0 ? (size_t)n : 0;
            idle = n > 0 ? 0 : idle + 1;
            settle(&r->a.loop);
        }
        at_rest(&r->a.loop);
        assert_true(sent > 100000);
        r->v.keep = false;
        while (came < sent) {
            int n = guest_hears(r, &h, got);

            if (n < 0) {
                lock(r);
                vsd_fill(&r->v, 8);
                unlock(r);
                (void)tn_loop_step(&r->a.loop, 5);
                continue;
            }
            vs_heard(&e, &h);
            for (int k = 0; k < n; k++)
                assert_int_equal((char)got[k], pattern(came + (size_t)k));
            came += (size_t)n;
            e.fwd_cnt = e.rx_cnt;
            if (n > 0)
                guest_says(r, &e, VS_UPDATE, 0);
        }
        at_rest(&r->a.loop);
        it_works(r, fd, &e);
        leave(r, fd);
        settle(&r->a.loop);
        rig_close(r);
    }
}

/* The program goes, with bytes under way both ways: the guest is told, and then it is quiet. */
static void c21_a_program_that_goes(void **state)
{
    (void)state;
    for (size_t i = 0; i < 8; i++) {
        struct rig *r = rig_open(rings[i / 4], 0);
        struct vs_end e;
        int fd = joined(r, i % 2, &e);

        if (i & 2) {
            say(fd, "last words");
            guest_sends(r, &e, "never read");
        }
        part(r, fd, &e);
        at_rest(&r->a.loop);
        assert_int_equal(r->vsock.model.used, 0);
        assert_int_equal(r->vsock.host.used, 0);
        rig_close(r);
    }
}

/* ---- those who begin anew ---- */

/* The driver resets the device: each program reads the end, and another driver finds it empty. */
static void a_driver_that_begins_anew(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rings) * COUNT(types); i++) {
        struct rig *r = rig_open(rings[i / 2], 0);
        int server = unix_listener(path_of(r, "_77"), types[i % 2].type, 8), fd[4];
        struct vs_end e[3];
        struct vs_hdr h;
        char text[64];

        r->a.fds++;
        for (int round = 0; round < 4; round++) {
            fd[0] = joined(r, i % 2, &e[0]);
            fd[1] = reached(r, i % 2, server, 77, &e[1]);
            fd[2] = unix_dial(path_of(r, types[i % 2].suffix), types[i % 2].type); /* no line */
            fd[3] = unix_dial(path_of(r, types[i % 2].suffix), types[i % 2].type);
            say(fd[3], "CONNECT 9\n"); /* no answer */
            if (round % 2)
                settle(&r->a.loop);
            guest_sends(r, &e[1], "and then");
            say(fd[0], "unheard");
            alone_reset(&r->vsock.slot.lock, &r->v.d);
            memset(r->ram, 0xee, VSD_RAM);
            for (int k = 0; k < 4; k++) {
                if (k == 2)
                    continue;
                if (k == 1)
                    UNTIL(&r->a.loop, hear(fd[k], text, sizeof(text)) >= 0); /* what was sent */
                if (k != 1 || text[0])
                    UNTIL(&r->a.loop, hear(fd[k], text, sizeof(text)) == 0);
                close(fd[k]);
            }
            say(fd[2], "CONNECT 9\n"); /* there is no guest */
            UNTIL(&r->a.loop, hear(fd[2], text, sizeof(text)) == 0);
            close(fd[2]);
            r->a.fds -= 2;
            at_rest(&r->a.loop);
            assert_int_equal(r->vsock.model.used, 0);
            assert_int_equal(r->vsock.host.used, 0);
            for (uint32_t k = 0; k < VSD_RAM; k += 251)
                assert_int_equal(r->ram[k], 0xee);
            memset(r->ram, 0, VSD_RAM);
            rig_up(r, 16);
            assert_int_equal(guest_hears(r, &h, NULL), -1);
        }
        close(server);
        r->a.fds--;
        unlink(path_of(r, "_77"));
        rig_close(r);
    }
}

/* Another CID: all connections end, the guest is told, and goes on under the new one. */
static void another_cid(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rings); i++) {
        struct rig *r = rig_open(rings[i], 0);
        static const uint32_t bad[] = {0, 1, 2, UINT32_MAX};
        struct vs_end e, old;
        struct vs_hdr h;
        char text[32];
        int fd = joined(r, 0, &e);

        for (size_t k = 0; k < COUNT(bad); k++) {
            lock(r);
            assert_int_equal(tn_vm_vsock_set_cid(&r->vsock, bad[k]), TN_EINVAL);
            unlock(r);
        }
        lock(r);
        assert_int_equal(tn_vm_vsock_set_cid(&r->vsock, CID), 0); /* nothing new */
        unlock(r);
        it_works(r, fd, &e);
        assert_true(no_event(r));
        lock(r);
        assert_int_equal(tn_vm_vsock_set_cid(&r->vsock, 77), 0);
        unlock(r);
        assert_int_equal(event(r), 0); /* transport reset */
        assert_int_equal(tn_get_(r->vsock.model.config, 8), 77);
        UNTIL(&r->a.loop, hear(fd, text, sizeof(text)) == 0);
        leave(r, fd);
        while (guest_hears(r, &h, NULL) >= 0)
            ;
        old = e;
        guest_says(r, &old, VS_UPDATE, 0); /* it has not seen it yet: nobody hears that */
        settle(&r->a.loop);
        r->v.cid = 77;
        fd = joined(r, 1, &e);
        it_works(r, fd, &e);
        leave(r, fd);
        settle(&r->a.loop);
        rig_close(r);
    }
}

/* Saved with a connection open, and restored: that one is gone, the guest is told, all goes on. */
static void saved_and_restored(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rings) * 2; i++) {
        struct rig *r = rig_open(rings[i / 2], 0);
        struct tn_virtio_vsock_state s;
        struct vs_end e;
        struct vs_hdr h;
        struct vsd guest;
        uint8_t *ram;
        char text[32];
        int fd = joined(r, 0, &e);

        it_works(r, fd, &e);
        lock(r);
        tn_vm_vsock_save(&r->vsock, &s);
        guest = r->v;
        ram = test_exact(r->ram, VSD_RAM);
        unlock(r);
        if (i % 2) { /* in another device, at the same path */
            tn_vm_vsock_close(&r->vsock);
            assert_int_equal(hear(fd, text, sizeof(text)), 0);
            rig_join(r, rings[i / 2]);
            guest.d.v = &r->vsock.model.virtio;
        }
        r->v = guest;
        memcpy(r->ram, ram, VSD_RAM);
        free(ram);
        lock(r);
        assert_int_equal(tn_vm_vsock_restore(&r->vsock, &s), 0);
        unlock(r);
        /* What waits goes on with wake, and not before: no loop has turned. */
        assert_true(no_event(r));
        tn_vm_vsock_wake(&r->vsock);
        assert_false(no_event(r));
        assert_int_equal(tn_get_(r->ram + VSD_EVENT, 4), 0);
        if (i % 2 == 0)
            UNTIL(&r->a.loop, hear(fd, text, sizeof(text)) == 0);
        leave(r, fd);
        settle(&r->a.loop);
        assert_int_equal(guest_hears(r, &h, NULL), -1);
        fd = joined(r, 1, &e);
        it_works(r, fd, &e);
        tn_vm_vsock_wake(&r->vsock); /* too often does no harm */
        at_rest(&r->a.loop);
        leave(r, fd);
        settle(&r->a.loop);
        rig_close(r);
    }
}

/* A packet that was in the ring when the state was saved is served by wake. */
static void packets_that_wait_for_wake(void **state)
{
    struct rig *r = rig_open(TN_VIRTIO_F_RING, 0);
    struct tn_virtio_vsock_state s;
    struct vs_end e = {&r->v, PORT, 99, TN_VIRTIO_VSOCK_STREAM, 0, 0, 0, 0, 0, 0};
    struct vs_hdr h;

    (void)state;
    settle(&r->a.loop);
    vs_hdr_of(&e, VS_REQUEST, 0, 0, &h);
    assert_true(vsd_queue(&r->v, &h, NULL, 0)); /* it is not notified */
    settle(&r->a.loop);
    assert_int_equal(guest_hears(r, &h, NULL), -1);
    lock(r);
    tn_vm_vsock_save(&r->vsock, &s);
    assert_int_equal(tn_vm_vsock_restore(&r->vsock, &s), 0);
    unlock(r);
    tn_vm_vsock_wake(&r->vsock);
    must_come(r, VS_RST, &h); /* nobody listens at PATH_99 */
    assert_int_equal(h.src_port, 99);
    rig_close(r);
}

/* ---- the end ---- */

static void closed_in_the_midst(void **state)
{
    uint64_t random = 0xc105e;

    (void)state;
    for (unsigned round = 0; round < 120; round++) {
        struct rig *r = rig_open(rings[round % 2], 1 + round % 9);
        int server = unix_listener(path_of(r, "_77"), SOCK_STREAM, 8), fd[12];
        struct vs_end e = {&r->v, PORT, 77, TN_VIRTIO_VSOCK_STREAM, 4096, 0, 0, 0, 0, 0};
        struct vs_hdr h;
        char text[64];

        for (size_t k = 0; k < COUNT(fd); k++) {
            size_t t = test_random(&random) % 2;

            fd[k] = unix_dial(path_of(r, types[t].suffix), types[t].type);
            if (test_random(&random) % 4)
                say(fd[k], k % 3 ? "CONNECT 5\n" : "CONNECT");
            for (uint64_t n = test_random(&random) % 3; n > 0; n--)
                (void)tn_loop_step(&r->a.loop, 0);
            if (k % 4 == 3) {
                e.port++;
                guest_says(r, &e, VS_REQUEST, 0);
            }
            if (round % 2 && guest_hears(r, &h, NULL) >= 0 && h.op == VS_REQUEST) {
                struct vs_end to = {&r->v, h.dst_port, h.src_port, h.type,      4096,
                                    0,     0,          0,          h.buf_alloc, 0};

                guest_says(r, &to, VS_RESPONSE, 0);
                guest_sends(r, &to, "unheard");
            }
        }
        vsd_free(&r->v);
        tn_vm_vsock_close(&r->vsock);
        for (size_t k = 0; k < COUNT(fd); k++) {
            ssize_t n;

            do /* what it was told before, then the end; it may not have been taken at all */
                n = hear(fd[k], text, sizeof(text));
            while (n > 0);
            assert_int_equal(n, 0);
            close(fd[k]);
        }
        close(server);
        unlink(path_of(r, "_77"));
        assert_int_equal(count_files(), 0);
        rig_close(r);
    }
}

/* ---- two threads ---- */

/* The guest on a thread of its own, as a vCPU is; now and then its driver begins anew. */
static void a_guest_beside_the_loop(void **state)
{
    struct rig *r = rig_open(TN_VIRTIO_F_RING, 0);
    double end = seconds(CLOCK_MONOTONIC) + HANG;
    unsigned echoes = 0;
    pthread_t thread;
    void *result;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, loop_main, &r->a.loop), 0);
    for (unsigned round = 0; round < 60; round++) {
        size_t t = round % 2;
        int fd = unix_dial(path_of(r, types[t].suffix), types[t].type);
        struct vs_end e = {0};
        char text[64];
        bool said = false;

        say(fd, "CONNECT 1234\n");
        for (;;) {
            uint8_t bytes[VSD_SLOT];
            struct vs_hdr h;
            ssize_t n = hear(fd, text, sizeof(text));

            if (n == 0)
                break; /* its driver began anew */
            if (n > 0 && strstr(text, "you")) {
                echoes++;
                break;
            }
            if (n > 0 && !said) {
                said = true;
                say(fd, "hello");
            }
            if (guest_hears(r, &h, bytes) >= 0) {
                if (h.op == VS_REQUEST) {
                    e = (struct vs_end){&r->v, PORT, h.src_port, h.type,      65536,
                                        0,     0,    0,          h.buf_alloc, 0};
                    guest_says(r, &e, VS_RESPONSE, 0);
                } else if (h.op == VS_RW && h.src_port == e.host_port) {
                    guest_sends(r, &e, "you");
                } else if (h.op == VS_SHUTDOWN) {
                    struct vs_end to = {&r->v, h.dst_port, h.src_port, h.type, 0, 0, 0, 0, 0, 0};

                    guest_says(r, &to, VS_RST, 0);
                }
                if (round % 10 == 9) {
                    alone_reset(&r->vsock.slot.lock, &r->v.d);
                    rig_up(r, 16);
                }
            }
            tn_vm_vsock_wake(&r->vsock);
            assert_true(seconds(CLOCK_MONOTONIC) < end);
        }
        close(fd);
    }
    assert_int_equal(echoes, 54);
    tn_loop_stop(&r->a.loop);
    pthread_join(thread, &result);
    assert_int_equal((intptr_t)result, 0);
    settle(&r->a.loop);
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ALONE(a_bad_description_is_refused),
        ALONE(a_path_that_is_taken),
        ALONE(a_path_that_cannot_be),
        ALONE(no_descriptors),
        ALONE(it_is_as_described),
        ALONE(a_program_reaches_a_port),
        ALONE(the_guest_reaches_a_socket),
        ALONE(as_many_as_there_may_be),
        ALONE(a_program_that_does_not_read),
        ALONE(a_guest_that_gives_no_buffers),
        ALONE(c21_a_program_that_goes),
        ALONE(a_driver_that_begins_anew),
        ALONE(another_cid),
        ALONE(saved_and_restored),
        ALONE(packets_that_wait_for_wake),
        ALONE(closed_in_the_midst),
        ALONE(a_guest_beside_the_loop),
    };

    cmocka_set_test_filter(getenv("TENON_TEST"));
    return cmocka_run_group_tests_name("vm_vsock", tests, NULL, NULL);
}
