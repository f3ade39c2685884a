/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_vsock_unix.h"

#include "temp_dir.h"
#include "unix_socket.h"
#include "vsock_driver.h"

#include <poll.h>
#include <signal.h>
#include <sys/resource.h>

#define CONNS 160u
#define BUF   16384u
#define CID   5u
#define ENDS  256

/* A program in the guest: one end of a connection. */
struct end {
    struct vs_end e;
    bool used, open, rst;
    bool hold;       /* it does not read */
    bool any;        /* what it reads is not the pattern */
    uint32_t shut;   /* what the host said */
    uint64_t rx, tx; /* bytes of the pattern */
    uint64_t want;   /* to send, of the pattern */
    bool finish;     /* then to say that this was all */
    char text[1024]; /* the first that it read */
    size_t text_len;
    unsigned messages;
};

/* A guest, its device, and the host side on a loop. */
struct rig {
    struct tn_loop loop;
    pthread_mutex_t lock;
    struct tn_virtio_vsock dev;
    struct tn_virtio_vsock_conn table[CONNS];
    struct tn_vsock_unix u;
    struct tn_mem_region region[1];
    struct tn_mem mem;
    uint8_t *ram;
    struct vsd v;
    char path[300];
    struct end end[ENDS];
    uint32_t listens; /* a port in the guest; 0: none */
    bool mute;        /* requests get no answer */
    bool hold;        /* what it accepts does not read */
    unsigned accepted;
};

static uint8_t pat(uint64_t i)
{
    return (uint8_t)(i * 7 + (i >> 8) * 3 + (i >> 16));
}

static int unix_open(struct rig *r, uint32_t conns, bool seqpacket)
{
    struct tn_vsock_unix_cfg cfg = {r->path, &r->dev, &r->lock, &r->loop, conns, seqpacket};

    return tn_vsock_unix_init(&r->u, &cfg);
}

static struct rig *rig_closed(void)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct tn_virtio_vsock_cfg cfg;

    assert_non_null(r);
    pthread_mutex_init(&r->lock, NULL);
    r->ram = aligned_alloc(4096, (VSD_RAM + 4095) / 4096 * 4096);
    assert_non_null(r->ram);
    memset(r->ram, 0, VSD_RAM);
    tn_mem_init(&r->mem, r->region, 1);
    assert_int_equal(tn_mem_add(&r->mem, 0, r->ram, VSD_RAM / 4096 * 4096), 0);
    cfg = (struct tn_virtio_vsock_cfg){&r->mem,  256,   TN_VIRTIO_F_RING,   CID,  true, BUF, 0,
                                       r->table, CONNS, &tn_vsock_unix_ops, &r->u};
    assert_int_equal(tn_virtio_vsock_init(&r->dev, &cfg), 0);
    assert_int_equal(tn_loop_init(&r->loop), 0);
    temp_path(r->path, "v");
    vsd_init(&r->v, &r->dev.virtio, r->ram, CID);
    return r;
}

static struct rig *rig_new(uint32_t conns)
{
    struct rig *r = rig_closed();

    assert_int_equal(unix_open(r, conns, true), 0);
    assert_true(vsd_up(&r->v, TN_VIRTIO_F_EVENT_IDX | TN_VIRTIO_VSOCK_F_SEQPACKET, 128));
    vsd_fill(&r->v, 48);
    return r;
}

static void rig_free(struct rig *r)
{
    tn_vsock_unix_close(&r->u);
    tn_vsock_unix_close(&r->u); /* twice does no harm */
    tn_loop_close(&r->loop);
    pthread_mutex_destroy(&r->lock);
    vsd_free(&r->v);
    free(r->ram);
    free(r);
}

/* ---- the guest ---- */

static struct end *end_new(struct rig *r, uint32_t port, uint32_t host_port, uint16_t type)
{
    for (int i = 0; i < ENDS; i++) {
        struct end *p = &r->end[i];

        if (p->used)
            continue;
        memset(p, 0, sizeof(*p));
        p->used = true;
        p->e = (struct vs_end){&r->v, port, host_port, type, BUF, 0, 0, 0, 0, 0};
        return p;
    }
    fail();
    return NULL;
}

static struct end *end_find(struct rig *r, const struct vs_hdr *h)
{
    for (int i = 0; i < ENDS; i++) {
        struct end *p = &r->end[i];

        if (p->used && p->e.port == h->dst_port && p->e.host_port == h->src_port &&
            p->e.type == h->type && !p->rst)
            return p;
    }
    return NULL;
}

static void end_send(struct end *p, const void *bytes, uint32_t len, uint32_t flags)
{
    assert_true(vs_credit(&p->e) >= len);
    assert_true(vs_rw(&p->e, bytes, len, flags));
}

static struct end *guest_connect(struct rig *r, uint32_t port, uint32_t host_port, uint16_t type)
{
    struct end *p;

    pthread_mutex_lock(&r->lock);
    p = end_new(r, port, host_port, type);
    assert_true(vs_op(&p->e, VS_REQUEST, 0));
    pthread_mutex_unlock(&r->lock);
    return p;
}

static void end_op(struct rig *r, struct end *p, uint16_t op, uint32_t flags)
{
    pthread_mutex_lock(&r->lock);
    assert_true(vs_op(&p->e, op, flags));
    pthread_mutex_unlock(&r->lock);
    if (op == VS_RST)
        p->rst = true;
}

static void guest_read(struct end *p, const struct vs_hdr *h, const uint8_t *bytes)
{
    assert_true(p->open);
    assert_true((uint32_t)(p->e.rx_cnt - p->e.fwd_cnt) <= BUF); /* the host keeps to our credit */
    for (uint32_t i = 0; i < h->len && p->text_len < sizeof(p->text) - 1; i++)
        p->text[p->text_len++] = (char)bytes[i];
    for (uint32_t i = 0; i < h->len; i++, p->rx++)
        if (!p->any && bytes[i] != pat(p->rx) && p->rx >= sizeof(p->text))
            fail_msg("byte %llu", (unsigned long long)p->rx);
    p->messages += h->flags & 1;
    if (!p->hold) {
        p->e.fwd_cnt = p->e.rx_cnt;
        vs_op(&p->e, VS_UPDATE, 0);
    }
}

/* Takes what came, and sends what it may; returns whether there was anything. The lock is held. */
static bool guest_turn_locked(struct rig *r)
{
    uint8_t bytes[VSD_SLOT];
    struct vs_hdr h;
    bool any = false;

    while (vsd_recv(&r->v, &h, bytes) >= 0) {
        struct end *p = end_find(r, &h);

        any = true;
        assert_int_equal(h.dst_cid, CID);
        if (h.op == VS_REQUEST) {
            struct vs_end none = {&r->v, h.dst_port, h.src_port, h.type, 0, 0, 0, 0, 0, 0};

            assert_null(p);
            if (r->mute)
                continue;
            if (h.dst_port != r->listens) {
                assert_true(vs_op(&none, VS_RST, 0));
                continue;
            }
            p = end_new(r, h.dst_port, h.src_port, h.type);
            p->open = true;
            p->hold = r->hold;
            vs_heard(&p->e, &h);
            r->accepted++;
            assert_true(vs_op(&p->e, VS_RESPONSE, 0));
            continue;
        }
        if (!p) {
            assert_int_equal(h.op, VS_RST);
            continue;
        }
        vs_heard(&p->e, &h);
        switch (h.op) {
        case VS_RESPONSE:
            p->open = true;
            break;
        case VS_RST:
            p->rst = true;
            p->open = false;
            break;
        case VS_SHUTDOWN:
            p->shut = h.flags;
            if (h.flags == 3 && !p->hold) {
                vs_op(&p->e, VS_RST, 0);
                p->rst = true;
                p->open = false;
            }
            break;
        case VS_RW:
            guest_read(p, &h, bytes);
            break;
        case VS_ASK:
            vs_op(&p->e, VS_UPDATE, 0);
            break;
        default:
            break;
        }
    }
    for (int i = 0; i < ENDS; i++) {
        struct end *p = &r->end[i];

        while (p->used && p->open && p->tx < p->want) {
            uint32_t n = vs_credit(&p->e);

            n = n < 4000 ? n : 4000;
            n = n < p->want - p->tx ? n : (uint32_t)(p->want - p->tx);
            for (uint32_t k = 0; k < n; k++)
                bytes[k] = pat(p->tx + k);
            if (n == 0 || !vs_rw(&p->e, bytes, n, 0))
                break;
            p->tx += n;
            any = true;
        }
        if (p->used && p->open && p->finish && p->tx == p->want) {
            p->finish = false;
            vs_op(&p->e, VS_SHUTDOWN, 2);
        }
    }
    return any;
}

static bool guest_turn(struct rig *r)
{
    bool any;

    pthread_mutex_lock(&r->lock);
    any = guest_turn_locked(r);
    pthread_mutex_unlock(&r->lock);
    return any;
}

/* Until nothing happens any more. */
static void pump(struct rig *r)
{
    for (int i = 0; i < 100000; i++) {
        int n = tn_loop_step(&r->loop, 0);
        bool any = guest_turn(r);

        assert_true(n >= 0);
        if (n == 0 && !any)
            return;
    }
    fail_msg("it never ends");
}

/* Steps both until cond, which is asked once a step. */
#define UNTIL(r, cond)                                         \
    do {                                                       \
        bool ok_ = false;                                      \
        for (int i_ = 0; i_ < 4000 && !(ok_ = (cond)); i_++) { \
            tn_loop_step(&(r)->loop, 1);                       \
            guest_turn(r);                                     \
        }                                                      \
        if (!ok_)                                              \
            fail_msg("it never comes: %s", #cond);             \
    } while (0)

/* ---- programs on the host ---- */

static struct sockaddr_un address(struct rig *r, const char *suffix)
{
    char path[320];

    snprintf(path, sizeof(path), "%s%s", r->path, suffix);
    return unix_address(path);
}

static int client(struct rig *r)
{
    return unix_dial(r->path, SOCK_STREAM);
}

static int listener(struct rig *r, const char *suffix, int type, int backlog)
{
    return unix_listener(address(r, suffix).sun_path, type, backlog);
}

static void unlisten(struct rig *r, const char *suffix, int fd)
{
    struct sockaddr_un a = address(r, suffix);

    close(fd);
    assert_int_equal(unlink(a.sun_path), 0);
}

static void must_hear(struct rig *r, int fd, const char *want)
{
    char buf[256];
    ssize_t n = -1;

    UNTIL(r, (n = hear(fd, buf, sizeof(buf))) >= 0);
    assert_string_equal(buf, want);
}

static void must_end(struct rig *r, int fd)
{
    char buf[64];
    ssize_t n = -1;

    UNTIL(r, (n = hear(fd, buf, sizeof(buf))) >= 0);
    assert_int_equal(n, 0);
}

/* A program of the host's has a connection to one of the guest's, port 52. */
static int joined(struct rig *r, struct end **end)
{
    int fd = client(r);
    char buf[64];
    unsigned before = r->accepted;
    unsigned long port;

    r->listens = 52;
    say(fd, "CONNECT 52\n");
    UNTIL(r, r->accepted == before + 1);
    UNTIL(r, hear(fd, buf, sizeof(buf)) > 0);
    assert_memory_equal(buf, "OK ", 3);
    port = strtoul(buf + 3, NULL, 10);
    *end = NULL;
    for (int i = 0; i < ENDS; i++)
        if (r->end[i].used && !r->end[i].rst && r->end[i].e.host_port == port)
            *end = &r->end[i];
    assert_non_null(*end);
    return fd;
}

/* Nothing is left of any connection, nor of its memory. */
static void must_be_quiet(struct rig *r)
{
    size_t buffers = r->u.map_len - r->u.cfg.conns * r->u.stride;
    unsigned char page[8192];

    pump(r);
    assert_true(r->u.cfg.conns * r->u.stride / 4096 <= sizeof(page));
    assert_int_equal(mincore(r->u.map + buffers, r->u.cfg.conns * r->u.stride, page), 0);
    for (size_t i = 0; i < r->u.cfg.conns * r->u.stride / 4096; i++)
        assert_int_equal(page[i] & 1, 0);
    assert_int_equal(r->u.used, 0);
    assert_int_equal(r->dev.used, 0);
    assert_int_equal(tn_loop_step(&r->loop, 0), 0);
}

/* ---- tests ---- */

static void a_bad_cfg_is_refused(void **state)
{
    struct rig *r = rig_closed();
    struct tn_vsock_unix_cfg good = {r->path, &r->dev, &r->lock, &r->loop, 8, false}, cfg;
    char longest[TN_VSOCK_UNIX_PATH_MAX + 2];

    (void)state;
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = 0;
    for (int i = 0; i < 8; i++) {
        cfg = good;
        switch (i) {
        case 0:
            cfg.path = NULL;
            break;
        case 1:
            cfg.path = "";
            break;
        case 2:
            cfg.path = longest;
            break;
        case 3:
            cfg.device = NULL;
            break;
        case 4:
            cfg.lock = NULL;
            break;
        case 5:
            cfg.loop = NULL;
            break;
        case 6:
            cfg.conns = 0;
            break;
        default:
            cfg.conns = TN_VSOCK_UNIX_CONNS_MAX + 1;
        }
        assert_int_equal(tn_vsock_unix_init(&r->u, &cfg), TN_EINVAL);
        tn_vsock_unix_close(&r->u);
    }
    rig_free(r);
}

static void errors_name_the_path(void **state)
{
    struct rig *r = rig_closed();
    char wrong[300], second[300];
    struct stat st;
    int fd;

    (void)state;
    snprintf(wrong, sizeof(wrong), "%s", r->path);
    temp_path(r->path, "none/v");
    assert_int_equal(unix_open(r, 8, false), TN_ESYS);
    assert_int_equal(errno, ENOENT);
    assert_string_equal(r->u.path, r->path);
    /* What is there already is not touched. */
    temp_path(r->path, "v");
    put_file(r->path, (const uint8_t *)"mine", 4);
    assert_int_equal(unix_open(r, 8, false), TN_ESYS);
    assert_int_equal(errno, EADDRINUSE);
    assert_int_equal(stat(r->path, &st), 0);
    assert_int_equal(st.st_size, 4);
    unlink(r->path);
    /* Of two sockets, the one that fails; the other goes again. */
    temp_path(second, "v.seqpacket");
    put_file(second, (const uint8_t *)"mine", 4);
    assert_int_equal(unix_open(r, 8, true), TN_ESYS);
    assert_string_equal(r->u.path, second);
    assert_int_equal(access(r->path, F_OK), -1);
    unlink(second);
    /* A socket of somebody else in its place stays. */
    assert_int_equal(unix_open(r, 8, true), 0);
    unlink(r->path);
    fd = listener(r, "", SOCK_STREAM, 1);
    tn_vsock_unix_close(&r->u);
    assert_int_equal(access(second, F_OK), -1);
    unlisten(r, "", fd);
    rig_free(r);
}

static void c20_a_line_that_is_not_right_closes(void **state)
{
    static const char *const line[] = {
        "GET / HTTP/1.0\r\n\r\n",
        "CONNECT\n",
        "CONNECT \n",
        "CONNECT 4294967295\n",
        "CONNECT 052\n",
        "CONNECT 52\r\n",
        "connect 52\n",
        "CONNECT 1 2\n",
        "CONNECT 99999999999\n",
        "CONNECT 12345678901234567890123456789012345678901234567890\n",
        "CONNECT -1\n",
        "\n",
    };
    struct rig *r = rig_new(8);

    (void)state;
    r->listens = 52;
    for (size_t i = 0; i < COUNT(line); i++) {
        int fd = client(r);

        say(fd, line[i]);
        must_end(r, fd);
        close(fd);
    }
    /* One that ends too early. */
    for (int how = 0; how < 2; how++) {
        int fd = client(r);

        say(fd, "CONNECT 5");
        pump(r);
        if (how == 0) {
            shutdown(fd, SHUT_WR);
            must_end(r, fd);
        }
        close(fd);
        must_be_quiet(r);
    }
    assert_int_equal(r->accepted, 0);
    rig_free(r);
}

static void a_program_of_the_hosts_connects(void **state)
{
    static const char text[] = "CONNECT 52\n";
    struct rig *r = rig_new(8);
    struct end *p;
    int fd = client(r);

    (void)state;
    /* Nobody listens. */
    say(fd, "CONNECT 53\n");
    must_end(r, fd);
    close(fd);
    must_be_quiet(r);
    /* Byte by byte. */
    r->listens = 52;
    fd = client(r);
    for (size_t i = 0; i < sizeof(text) - 1; i++) {
        assert_int_equal(r->accepted, 0);
        assert_int_equal(write(fd, text + i, 1), 1);
        pump(r);
    }
    must_hear(r, fd, "OK 1073741825\n");
    assert_int_equal(r->accepted, 1);
    p = &r->end[0];
    say(fd, "hello");
    UNTIL(r, p->text_len == 5);
    assert_string_equal(p->text, "hello");
    end_send(p, "world", 5, 0);
    must_hear(r, fd, "world");
    close(fd);
    must_be_quiet(r);
    /* The line and more in one piece. */
    fd = client(r);
    say(fd, "CONNECT 52\nCONNECT 53\nthis is all the guest's, and longer than a line");
    must_hear(r, fd, "OK 1073741826\n");
    UNTIL(r, r->end[1].text_len == 58);
    assert_string_equal(r->end[1].text,
                        "CONNECT 53\nthis is all the guest's, and longer than a line");
    close(fd);
    must_be_quiet(r);
    rig_free(r);
}

/* The guest's driver runs, but nobody answers: it ends after two seconds, and not before. */
static void an_answer_that_does_not_come(void **state)
{
    struct rig *r = rig_new(8);
    int fd = client(r);
    uint64_t begin = tn_vsock_unix_now(NULL), took;

    (void)state;
    r->mute = true;
    say(fd, "CONNECT 52\n");
    must_end(r, fd);
    took = tn_vsock_unix_now(NULL) - begin;
    assert_in_range(took, 1900000000u, 3500000000u);
    close(fd);
    must_be_quiet(r);
    /* Without a driver there is nothing to wait for. */
    pthread_mutex_lock(&r->lock);
    vd_reset(&r->v.d);
    pthread_mutex_unlock(&r->lock);
    fd = client(r);
    say(fd, "CONNECT 52\n");
    must_end(r, fd);
    close(fd);
    rig_free(r);
}

static void the_guest_connects(void **state)
{
    struct rig *r = rig_new(8);
    struct end *p = guest_connect(r, 3000, 80, 1);
    int at, fd = -1;

    (void)state;
    UNTIL(r, p->rst); /* nobody is there */
    at = listener(r, "_80", SOCK_STREAM, 4);
    p = guest_connect(r, 3000, 80, 1);
    UNTIL(r, p->open);
    UNTIL(r, (fd = accept(at, NULL, NULL)) >= 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    end_send(p, "hello", 5, 0);
    must_hear(r, fd, "hello");
    say(fd, "world");
    UNTIL(r, p->text_len == 5);
    end_op(r, p, VS_SHUTDOWN, 3);
    must_end(r, fd);
    UNTIL(r, p->rst);
    close(fd);
    unlisten(r, "_80", at);
    must_be_quiet(r);
    rig_free(r);
}

/* A listener whose queue is full is tried again, and given up after a while. */
static void a_busy_listener(void **state)
{
    struct rig *r = rig_new(8);
    int at = listener(r, "_80", SOCK_STREAM, 0), fd[3] = {-1, -1, -1};
    struct end *p[3];

    (void)state;
    for (uint32_t i = 0; i < 3; i++)
        p[i] = guest_connect(r, 3000 + i, 80, 1);
    pump(r);
    assert_true(p[0]->open && !p[2]->open && !p[2]->rst);
    for (int i = 0; i < 3; i++) {
        UNTIL(r, (fd[i] = accept(at, NULL, NULL)) >= 0);
        close(fd[i]);
    }
    assert_true(p[1]->open || p[1]->rst);
    UNTIL(r, p[2]->rst && r->u.used == 0);
    for (uint32_t i = 0; i < 3; i++)
        p[i] = guest_connect(r, 4000 + i, 80, 1);
    UNTIL(r, p[2]->rst); /* nobody took it */
    assert_false(p[0]->rst);
    end_op(r, p[0], VS_SHUTDOWN, 3);
    end_op(r, p[1], VS_RST, 0);
    unlisten(r, "_80", at);
    must_be_quiet(r);
    rig_free(r);
}

static void half_closes_go_through(void **state)
{
    struct rig *r = rig_new(8);
    struct end *p;
    int fd = joined(r, &p);

    (void)state;
    /* The host says that it has sent all; it still hears the answer. */
    say(fd, "request");
    shutdown(fd, SHUT_WR);
    UNTIL(r, p->shut == 2);
    assert_string_equal(p->text, "request");
    pump(r);
    assert_false(p->rst);
    end_send(p, "answer", 6, 0);
    end_op(r, p, VS_SHUTDOWN, 3);
    must_hear(r, fd, "answer");
    must_end(r, fd);
    UNTIL(r, p->rst);
    close(fd);
    must_be_quiet(r);
    /* The guest says so first. */
    fd = joined(r, &p);
    end_send(p, "request", 7, 0);
    end_op(r, p, VS_SHUTDOWN, 2);
    must_hear(r, fd, "request");
    must_end(r, fd);
    say(fd, "answer");
    UNTIL(r, p->text_len == 6);
    assert_false(p->rst);
    close(fd);
    UNTIL(r, p->rst);
    must_be_quiet(r);
    /* The guest does not want to hear any more. */
    fd = joined(r, &p);
    end_op(r, p, VS_SHUTDOWN, 1);
    pump(r);
    assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
    assert_int_equal(errno, EPIPE);
    end_send(p, "still", 5, 0);
    must_hear(r, fd, "still");
    end_op(r, p, VS_SHUTDOWN, 3);
    must_end(r, fd);
    close(fd);
    must_be_quiet(r);
    /* The host does not. */
    fd = joined(r, &p);
    shutdown(fd, SHUT_RD);
    end_send(p, "lost", 4, 0);
    UNTIL(r, p->shut & 1);
    say(fd, "heard");
    UNTIL(r, p->text_len == 5);
    close(fd);
    UNTIL(r, p->rst);
    must_be_quiet(r);
    /* Half closed by the host, then gone: the guest, which only waits, hears of it. */
    fd = joined(r, &p);
    shutdown(fd, SHUT_WR);
    UNTIL(r, p->shut == 2);
    pump(r);
    close(fd);
    UNTIL(r, p->shut == 3);
    must_be_quiet(r);
    rig_free(r);
}

static void resets_go_through(void **state)
{
    struct rig *r = rig_new(8);
    struct end *p;
    int fd = joined(r, &p);

    (void)state;
    end_op(r, p, VS_RST, 0);
    must_end(r, fd);
    close(fd);
    must_be_quiet(r);
    /* A program that goes without having read all. */
    fd = joined(r, &p);
    end_send(p, "unread", 6, 0);
    pump(r);
    close(fd);
    UNTIL(r, p->rst);
    must_be_quiet(r);
    /* The guest never confirms that it is over: after a while it is all the same. */
    r->hold = true;
    fd = joined(r, &p);
    close(fd);
    UNTIL(r, p->shut == 3);
    UNTIL(r, p->rst);
    must_be_quiet(r);
    rig_free(r);
}

/* One end on the host: reads the pattern, writes it, as far as it goes. */
struct stream {
    int fd;
    uint64_t rx, tx, want;
    bool end;
};

static void stream_turn(struct stream *s, size_t most)
{
    uint8_t buf[8192];
    ssize_t n;

    n = read(s->fd, buf, most < sizeof(buf) ? most : sizeof(buf));
    s->end = s->end || n == 0;
    for (ssize_t i = 0; i < n; i++, s->rx++)
        if (buf[i] != pat(s->rx))
            fail_msg("byte %llu", (unsigned long long)s->rx);
    if (s->tx == s->want)
        return;
    for (size_t i = 0; i < sizeof(buf); i++)
        buf[i] = pat(s->tx + i);
    n = send(s->fd, buf, s->want - s->tx < sizeof(buf) ? s->want - s->tx : sizeof(buf),
             MSG_NOSIGNAL);
    if (n > 0)
        s->tx += (uint64_t)n;
    if (s->tx == s->want)
        shutdown(s->fd, SHUT_WR);
}

/* 64 MiB each way over windows of 16 KiB. */
static void sixty_four_mebibytes_each_way(void **state)
{
    const uint64_t total = 64u << 20;
    struct rig *r = rig_new(8);
    struct end *p;
    struct stream s = {joined(r, &p), 0, 0, 64u << 20, false};
    int size = 4608;

    (void)state;
    setsockopt(s.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    p->want = total;
    p->finish = true;
    for (int i = 0; i < 4000000 && !(s.end && p->shut & 2 && p->rx == total); i++) {
        stream_turn(&s, 8192);
        tn_loop_step(&r->loop, 0);
        guest_turn(r);
    }
    assert_true(s.end);
    assert_int_equal(s.rx, total);
    assert_int_equal(p->rx, total);
    assert_true(p->shut & 2);
    close(s.fd);
    UNTIL(r, p->rst);
    must_be_quiet(r);
    rig_free(r);
}

static void a_hundred_at_once(void **state)
{
    struct rig *r = rig_new(CONNS);
    struct stream s[100];
    struct end *p[100];
    int at = listener(r, "_99", SOCK_STREAM, 4);
    unsigned done = 0;

    (void)state;
    for (uint32_t i = 0; i < 100; i++) {
        s[i] = (struct stream){-1, 0, 0, 200000, false};
        if (i % 2) {
            s[i].fd = joined(r, &p[i]);
        } else {
            p[i] = guest_connect(r, 20000 + i, 99, 1);
            UNTIL(r, (s[i].fd = accept4(at, NULL, NULL, SOCK_NONBLOCK)) >= 0);
        }
        p[i]->want = 200000;
        p[i]->finish = true;
    }
    for (int t = 0; t < 100000 && done < 100; t++) {
        done = 0;
        for (int i = 0; i < 100; i++) {
            stream_turn(&s[i], 500 + (size_t)(i * 80));
            done += s[i].end && p[i]->shut & 2;
        }
        tn_loop_step(&r->loop, 0);
        guest_turn(r);
    }
    for (int i = 0; i < 100; i++) {
        assert_int_equal(s[i].rx, 200000);
        assert_int_equal(p[i]->rx, 200000);
        close(s[i].fd);
    }
    unlisten(r, "_99", at);
    must_be_quiet(r);
    rig_free(r);
}

static void a_thousand_opened_and_closed(void **state)
{
    struct rig *r = rig_new(16);
    int at = listener(r, "_99", SOCK_STREAM, 4), fds = open_fds();

    (void)state;
    for (uint32_t i = 0; i < 1000; i++) {
        struct end *p;
        int fd = -1;

        if (i % 2) {
            fd = joined(r, &p);
        } else {
            p = guest_connect(r, 20000 + i, 99, 1);
            UNTIL(r, (fd = accept4(at, NULL, NULL, SOCK_NONBLOCK)) >= 0);
        }
        end_send(p, "bye", 3, 0);
        end_op(r, p, VS_SHUTDOWN, 3);
        must_hear(r, fd, "bye");
        must_end(r, fd);
        close(fd);
        UNTIL(r, p->rst);
        p->used = false;
    }
    pump(r);
    assert_int_equal(open_fds(), fds);
    unlisten(r, "_99", at);
    must_be_quiet(r);
    rig_free(r);
}

/* Who does not read holds up its own connection only, and costs no time and no memory. */
static void c21_a_reader_that_stops(void **state)
{
    struct rig *r = rig_new(8);
    struct end *p, *q;
    int fd = joined(r, &p), other;
    struct stream s = {fd, 0, 0, 0, false};
    struct tn_vsock_unix_conn *c = NULL;
    uint64_t sent;
    int size = 1; /* the least that there is: a write may go in part */

    (void)state;
    setsockopt(r->u.conn[0].source.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    p->want = 2000;
    pump(r);
    p->want = 10u << 20;
    pump(r);
    sent = p->tx;
    assert_in_range(sent, BUF, 1u << 20); /* a socket's worth, and buf_alloc */
    assert_int_equal(vs_credit(&p->e), 0);
    for (uint32_t i = 0; i < 8; i++)
        if (r->u.conn[i].out_len > 0)
            c = &r->u.conn[i];
    assert_non_null(c);
    assert_in_range(c->out_len, 3 * BUF / 4, BUF); /* what is not told yet is not free */
    for (int i = 0; i < 100; i++) {
        assert_int_equal(tn_loop_step(&r->loop, 0), 0); /* nobody is woken */
        assert_false(guest_turn(r));
    }
    assert_int_equal(p->tx, sent);
    other = joined(r, &q);
    end_send(q, "alive", 5, 0);
    must_hear(r, other, "alive");
    close(other);
    for (int i = 0; i < 1000000 && s.rx < p->want; i++) { /* it reads on */
        stream_turn(&s, 8192);
        tn_loop_step(&r->loop, 0);
        guest_turn(r);
    }
    assert_int_equal(s.rx, 10u << 20);
    pump(r);
    for (uint32_t i = 0; i < CONNS; i++) /* all that was read is free again */
        assert_int_equal(r->table[i].rx_cnt, r->table[i].fwd_cnt);
    close(fd);
    must_be_quiet(r);
    /* The guest does not read: the program on the host has to wait. */
    r->hold = true;
    s = (struct stream){joined(r, &p), 0, 0, 10u << 20, false};
    for (int i = 0; i < 2000; i++) {
        stream_turn(&s, 1);
        pump(r);
    }
    assert_int_equal(p->rx, BUF);
    assert_in_range(s.tx, BUF, 1u << 20);
    assert_int_equal(tn_loop_step(&r->loop, 0), 0);
    p->hold = false; /* and now it does */
    p->e.fwd_cnt = p->e.rx_cnt;
    end_op(r, p, VS_UPDATE, 0);
    for (int i = 0; i < 1000000 && p->rx < 10u << 20; i++) {
        stream_turn(&s, 1);
        tn_loop_step(&r->loop, 0);
        guest_turn(r);
    }
    assert_int_equal(p->rx, 10u << 20);
    UNTIL(r, p->shut == 2);
    close(s.fd);
    must_be_quiet(r);
    rig_free(r);
}

/* What the guest sent before it closed arrives, though the reader takes its time. */
static void what_was_sent_before_the_end_arrives(void **state)
{
    struct rig *r = rig_new(8);
    struct end *p;
    struct stream s = {joined(r, &p), 0, 0, 0, false};
    uint64_t sent;

    (void)state;
    p->want = 10u << 20;
    pump(r);
    sent = p->tx;
    p->want = sent;
    end_op(r, p, VS_SHUTDOWN, 3);
    UNTIL(r, p->rst); /* the guest need not wait */
    assert_int_equal(r->dev.used, 0);
    assert_int_equal(r->u.used, 1);
    for (int i = 0; i < 100000 && !s.end; i++) {
        stream_turn(&s, 8192);
        tn_loop_step(&r->loop, 0);
    }
    assert_int_equal(s.rx, sent);
    close(s.fd);
    must_be_quiet(r);
    /* Nobody reads it, ever: it goes with the reader. */
    s = (struct stream){joined(r, &p), 0, 0, 0, false};
    p->want = 10u << 20;
    pump(r);
    end_op(r, p, VS_SHUTDOWN, 3);
    pump(r);
    assert_int_equal(r->u.used, 1);
    close(s.fd);
    must_be_quiet(r);
    rig_free(r);
}

static void c18_a_flood_is_reset(void **state)
{
    struct rig *r = rig_new(8);
    struct end *p, *q;
    int fd = joined(r, &p), other;
    uint8_t bytes[4096] = {0};

    (void)state;
    other = joined(r, &q);
    pthread_mutex_lock(&r->lock);
    for (int i = 0; i < 1000; i++)
        vs_rw(&p->e, bytes, sizeof(bytes), 0);
    pthread_mutex_unlock(&r->lock);
    UNTIL(r, p->rst);
    pump(r);
    end_send(q, "alive", 5, 0);
    must_hear(r, other, "alive");
    close(fd);
    close(other);
    must_be_quiet(r);
    rig_free(r);
}

static void c19_connections_are_capped(void **state)
{
    struct rig *r = rig_new(4);
    struct end *p[6];
    int at = listener(r, "_99", SOCK_STREAM, 64), fd[2], n = 0;
    char buf[64];

    (void)state;
    for (uint32_t i = 0; i < 6; i++)
        p[i] = guest_connect(r, 20000 + i, 99, 1);
    pump(r);
    for (int i = 0; i < 6; i++)
        n += p[i]->open;
    assert_int_equal(n, 4);
    assert_true(p[4]->rst && p[5]->rst);
    /* Programs on the host wait until one has gone. */
    r->listens = 52;
    for (int i = 0; i < 2; i++) {
        fd[i] = client(r);
        say(fd[i], "CONNECT 52\n");
    }
    pump(r);
    assert_int_equal(r->accepted, 0);
    assert_int_equal(tn_loop_step(&r->loop, 0), 0);
    end_op(r, p[0], VS_RST, 0);
    UNTIL(r, r->accepted == 1);
    pump(r);
    assert_int_equal(r->accepted, 1);
    end_op(r, p[1], VS_SHUTDOWN, 3);
    UNTIL(r, r->accepted == 2);
    for (int i = 0; i < 2; i++) {
        UNTIL(r, hear(fd[i], buf, sizeof(buf)) > 0);
        close(fd[i]);
    }
    end_op(r, p[2], VS_RST, 0);
    end_op(r, p[3], VS_RST, 0);
    unlisten(r, "_99", at);
    must_be_quiet(r);
    rig_free(r);
}

/* The host has no descriptors: listening waits, without a loop that spins. */
static void c19_no_descriptors(void **state)
{
    struct rig *r = rig_new(64);
    struct rlimit was, few;
    int fd = client(r), dummy[64], n = 0;
    struct end *p;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    few = was;
    few.rlim_cur = (rlim_t)open_fds() + 8;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    while (n < 64 && (dummy[n] = dup(fd)) >= 0)
        n++;
    r->listens = 52;
    say(fd, "CONNECT 52\n");
    for (int i = 0; i < 20; i++)
        tn_loop_step(&r->loop, 0);
    assert_int_equal(tn_loop_step(&r->loop, 0), 0);
    p = guest_connect(r, 1, 99, 1); /* a listener there may be, but no socket */
    UNTIL(r, p->rst);
    while (n > 0)
        close(dummy[--n]);
    UNTIL(r, r->accepted == 1);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    close(fd);
    must_be_quiet(r);
    rig_free(r);
}

static void messages_keep_their_boundaries(void **state)
{
    struct rig *r = rig_new(8);
    int at = listener(r, "_77", SOCK_SEQPACKET, 4), fd = -1;
    struct end *p = guest_connect(r, 3000, 77, 2), *q;
    struct sockaddr_un a = address(r, ".seqpacket");
    static uint8_t big[BUF + 1], buf[2 * BUF];
    unsigned n = 0;

    (void)state;
    UNTIL(r, (fd = accept4(at, NULL, NULL, SOCK_NONBLOCK)) >= 0);
    UNTIL(r, p->open);
    end_send(p, "on", 2, 0);
    pump(r);
    assert_int_equal(recv(fd, buf, sizeof(buf), 0), -1); /* it has not ended */
    end_send(p, "e", 1, 1);
    end_send(p, "", 0, 1); /* an empty one is not passed on */
    end_send(p, "two", 3, 0);
    end_send(p, "", 0, 1);
    pump(r);
    assert_int_equal(recv(fd, buf, sizeof(buf), 0), 3);
    assert_memory_equal(buf, "one", 3);
    assert_int_equal(recv(fd, buf, sizeof(buf), 0), 3);
    assert_memory_equal(buf, "two", 3);
    /* Many, small and large, faster than they are read. */
    for (unsigned sent = 0, got = 0; got < 3000;) {
        uint32_t len = 1 + sent * 37 % 3000;
        ssize_t k;

        if (sent < 3000 && vs_credit(&p->e) >= len) {
            memset(big, (int)sent, len);
            pthread_mutex_lock(&r->lock);
            end_send(p, big, len, 1);
            pthread_mutex_unlock(&r->lock);
            sent++;
            if (sent % 100 != 0)
                continue;
        }
        pump(r);
        while ((k = recv(fd, buf, sizeof(buf), 0)) > 0) {
            assert_int_equal(k, 1 + got * 37 % 3000);
            assert_int_equal(buf[0], (uint8_t)got);
            assert_int_equal(buf[k - 1], (uint8_t)got);
            got++;
        }
    }
    /* The other way. */
    p->any = true;
    for (n = 0; n < 200; n++) {
        size_t len = 1 + n * 83 % BUF;

        p->text_len = 0;
        memset(big, (int)('a' + n % 26), len);
        p->rx = 0;
        assert_int_equal(send(fd, big, len, 0), len);
        UNTIL(r, p->messages == n + 1);
        assert_int_equal(p->rx, len);
        assert_int_equal(p->text[0], 'a' + n % 26);
    }
    end_op(r, p, VS_SHUTDOWN, 3);
    UNTIL(r, recv(fd, buf, sizeof(buf), 0) == 0);
    close(fd);
    unlisten(r, "_77", at);
    must_be_quiet(r);
    /* A program of the host's connects; its line is a message. */
    r->listens = 52;
    fd = unix_socket(SOCK_SEQPACKET);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    say(fd, "CONNECT 52\n");
    UNTIL(r, recv(fd, buf, sizeof(buf), 0) == 14);
    say(fd, "three");
    UNTIL(r, r->accepted == 1);
    q = NULL;
    for (int i = 0; i < ENDS; i++)
        if (r->end[i].used && r->end[i].open)
            q = &r->end[i];
    assert_non_null(q);
    UNTIL(r, q->messages == 1);
    assert_string_equal(q->text, "three");
    assert_int_equal(q->e.type, 2);
    /* A message that the guest could never take. */
    assert_int_equal(send(fd, big, BUF + 1, 0), BUF + 1);
    UNTIL(r, q->rst);
    close(fd);
    must_be_quiet(r);
    q = guest_connect(r, 3001, 77, 2); /* one with a smaller buffer */
    at = listener(r, "_78", SOCK_SEQPACKET, 4);
    UNTIL(r, q->rst);
    pthread_mutex_lock(&r->lock);
    q = end_new(r, 3002, 78, 2);
    q->e.buf_alloc = 1000;
    vs_op(&q->e, VS_REQUEST, 0);
    pthread_mutex_unlock(&r->lock);
    UNTIL(r, (fd = accept4(at, NULL, NULL, SOCK_NONBLOCK)) >= 0);
    q->any = true;
    assert_int_equal(send(fd, big, 1000, 0), 1000);
    UNTIL(r, q->messages == 1);
    assert_int_equal(q->rx, 1000);
    assert_int_equal(send(fd, big, 1001, 0), 1001);
    UNTIL(r, q->rst);
    close(fd);
    unlisten(r, "_78", at);
    must_be_quiet(r);
    for (int i = 0; i < 3; i++) { /* a line in two messages, and one with more in it */
        static const char *const line[] = {"CONNECT 5", "CONNECT 52\nx", "CONNECT 52\n 0123456789"};

        fd = unix_socket(SOCK_SEQPACKET);
        assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
        say(fd, line[i]);
        UNTIL(r, recv(fd, buf, sizeof(buf), 0) == 0);
        close(fd);
    }
    must_be_quiet(r);
    rig_free(r);
}

/* As after a restore: connections are gone, listeners live on. */
static void after_a_transport_reset_all_goes_on(void **state)
{
    struct rig *r = rig_new(8);
    struct tn_virtio_vsock_state saved;
    struct end *p;
    int fd;

    (void)state;
    for (int i = 0; i < 10; i++) {
        fd = joined(r, &p);
        pthread_mutex_lock(&r->lock);
        if (i % 3 == 0) {
            tn_virtio_vsock_save(&r->dev, &saved);
            assert_int_equal(tn_virtio_vsock_restore(&r->dev, &saved), 0);
            tn_virtio_vsock_flush(&r->dev);
        } else if (i % 3 == 1) {
            tn_virtio_vsock_reset_all(&r->dev);
        } else {
            assert_true(vsd_up(&r->v, TN_VIRTIO_VSOCK_F_SEQPACKET, 64));
            vsd_fill(&r->v, 40);
        }
        memset(r->end, 0, sizeof(r->end));
        pthread_mutex_unlock(&r->lock);
        must_end(r, fd);
        close(fd);
        pump(r);
        assert_int_equal(r->u.used, 0);
    }
    fd = joined(r, &p);
    end_send(p, "alive", 5, 0);
    must_hear(r, fd, "alive");
    tn_vsock_unix_close(&r->u); /* with a connection that is open */
    assert_int_equal(r->dev.used, 0);
    must_end(r, fd);
    close(fd);
    /* A guest that asks now is refused, and served again when the host is there. */
    p = guest_connect(r, 9, 9, 1);
    guest_turn(r);
    assert_true(p->rst);
    assert_int_equal(unix_open(r, 8, false), 0);
    fd = joined(r, &p);
    close(fd);
    must_be_quiet(r);
    rig_free(r);
}

/* ---- two threads ---- */

static void *loop_thread(void *arg)
{
    assert_int_equal(tn_loop_run(&((struct rig *)arg)->loop), 0);
    return NULL;
}

/* The loop on a thread of its own, the guest on another, as a vCPU is. */
static void the_guest_runs_beside_the_loop(void **state)
{
    struct rig *r = rig_new(32);
    struct stream s[8];
    int at = listener(r, "_99", SOCK_STREAM, 8);
    pthread_t thread;
    unsigned done = 0;

    (void)state;
    for (int i = 0; i < 8; i++)
        s[i] = (struct stream){-1, 0, 0, 300000, false};
    assert_int_equal(pthread_create(&thread, NULL, loop_thread, r), 0);
    for (uint32_t i = 0; i < 8; i++) {
        struct end *p = guest_connect(r, 20000 + i, 99, 1);

        p->want = 300000;
        p->finish = true;
        while ((s[i].fd = accept4(at, NULL, NULL, SOCK_NONBLOCK)) < 0)
            guest_turn(r);
    }
    for (int t = 0; t < 2000000 && done < 8; t++) {
        done = 0;
        for (int i = 0; i < 8; i++) {
            stream_turn(&s[i], 8192);
            done += s[i].end && r->end[i].shut & 2;
        }
        guest_turn(r);
    }
    assert_int_equal(done, 8);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(s[i].rx, 300000);
        assert_int_equal(r->end[i].rx, 300000);
        close(s[i].fd);
    }
    for (int i = 0; i < 8; i++)
        while (!r->end[i].rst)
            guest_turn(r);
    tn_loop_stop(&r->loop);
    pthread_join(thread, NULL);
    unlisten(r, "_99", at);
    must_be_quiet(r);
    rig_free(r);
}

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_DFL); /* nothing raises it */
    return temp_make();
}

static int teardown(void **state)
{
    (void)state;
    return temp_remove();
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_bad_cfg_is_refused),
        T(errors_name_the_path),
        T(c20_a_line_that_is_not_right_closes),
        T(a_program_of_the_hosts_connects),
        T(an_answer_that_does_not_come),
        T(the_guest_connects),
        T(a_busy_listener),
        T(half_closes_go_through),
        T(resets_go_through),
        T(sixty_four_mebibytes_each_way),
        T(a_hundred_at_once),
        T(a_thousand_opened_and_closed),
        T(c21_a_reader_that_stops),
        T(what_was_sent_before_the_end_arrives),
        T(c18_a_flood_is_reset),
        T(c19_connections_are_capped),
        T(c19_no_descriptors),
        T(messages_keep_their_boundaries),
        T(after_a_transport_reset_all_goes_on),
        T(the_guest_runs_beside_the_loop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
