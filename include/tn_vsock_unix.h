/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vsock_unix - the host side of a virtio socket device, over Unix sockets.
 *
 * WHAT
 *   A program on the host connects to the socket at PATH, writes "CONNECT port\n", and reads "OK
 *   host-port\n" once a program in the guest that listens there has taken the connection; if none
 *   does, it reads the end. When a program in the guest connects to CID 2, port P, it gets whoever
 *   listens at PATH_P. Half closes and credit go through; who does not read makes the other wait.
 *
 * USAGE
 *   static struct tn_vsock_unix u;
 *   static struct tn_virtio_vsock vsock;
 *   static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
 *   ---
 *   static uint8_t ram[1u << 16];
 *   static struct tn_virtio_vsock_conn conn[256];
 *   struct tn_mem_region table[1];
 *   struct tn_mem mem;
 *   struct tn_loop loop;
 *   struct tn_virtio_vsock_cfg dev = {
 *       &mem, 128, TN_VIRTIO_F_RING, 3, true, 65536, 0, conn, 256, &tn_vsock_unix_ops, &u};
 *   struct tn_vsock_unix_cfg cfg = {"/run/vm0.vsock", &vsock, &lock, &loop, 256, true};
 *
 *   tn_mem_init(&mem, table, 1);
 *   if (tn_mem_add(&mem, 0, ram, sizeof(ram)) < 0 || tn_virtio_vsock_init(&vsock, &dev) < 0 ||
 *       tn_loop_init(&loop) < 0)
 *       return 1;
 *   if (tn_vsock_unix_init(&u, &cfg) < 0) {
 *       perror(u.path);
 *       return 2;
 *   }
 *   tn_loop_run(&loop);
 *   tn_vsock_unix_close(&u);
 *
 * COMPOSITION
 *   Give the device tn_vsock_unix_ops, and the struct, which is zero or closed until init, as their
 *   ctx. init comes before a guest runs, or anew after a restore; close after it has stopped.
 *   Seqpacket connections go the same way: a program on the host connects to PATH.seqpacket, a
 *   socket of type SOCK_SEQPACKET, and line and answer are messages; the guest gets whoever
 *   listens at PATH_P with that type.
 *
 * GUEST TRUST
 *   A guest has cfg.conns sockets of the host's at most, those that still hand out what it sent
 *   before it closed among them, and buf_alloc bytes buffered for each; it is refused what exceeds
 *   them. It chooses a number in the name of a socket, nothing else of it. Programs on the host
 *   that can reach PATH are trusted to connect; a line that is not as above closes the connection.
 *
 * MEMORY
 *   init maps what cfg.conns connections need, twice buf_alloc and a little for each, which takes
 *   memory when it is used and gives it back when its connection ends. close unmaps it.
 *
 * THREADS
 *   init and close are called on the loop's thread, or while it does not run, without the lock. The
 *   loop's callbacks take cfg.lock, which guards the device too. The device's callbacks come under
 *   it, on any thread.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Virtual I/O Device (VIRTIO) 1.2, section 5.10.
 *
 * LIMITS
 *   Linux. PATH has at most TN_VSOCK_UNIX_PATH_MAX bytes. A socket that is there at PATH is an
 *   error, EADDRINUSE. The end of a record (SEQ_EOR) and empty messages are not passed on: to a
 *   reader of a Unix socket the latter are the end. A program that connects and writes no line
 *   holds one of cfg.conns until it goes.
 */
#ifndef TN_VSOCK_UNIX_H
#define TN_VSOCK_UNIX_H

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
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/types.h>
#include <sys/un.h>

#include "tn_loop.h"
#include "tn_virtio_vsock.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_VSOCK_UNIX_PATH_MAX  96u         /* bytes of PATH, so that PATH_4294967295 fits */
#define TN_VSOCK_UNIX_PORT      0x40000000u /* ports of the host's ends, from here on */
#define TN_VSOCK_UNIX_CONNS_MAX 16384u

struct tn_vsock_unix_cfg {
    const char *path;
    struct tn_virtio_vsock *device; /* whose ops are tn_vsock_unix_ops; outlives this */
    pthread_mutex_t *lock;          /* guards the device, and this */
    struct tn_loop *loop;
    uint32_t conns; /* sockets at a time, 1 to TN_VSOCK_UNIX_CONNS_MAX */
    bool seqpacket; /* listen at PATH.seqpacket too */
};

struct tn_vsock_unix;

/* One connection: a socket, and what waits between it and the guest. */
struct tn_vsock_unix_conn {
    struct tn_loop_source source; /* fd -1: none */
    struct tn_vsock_unix *u;
    struct tn_virtio_vsock_conn *conn; /* NULL: the guest has none */
    uint8_t *out;                      /* from the guest: a ring of buf_alloc bytes, */
    uint8_t *eom;                      /* a bit for each that ends a message, */
    uint8_t *in;                       /* and bytes for it, as many */
    uint32_t out_at;
    uint32_t out_len;
    uint32_t whole; /* messages in out that have ended */
    uint32_t in_at;
    uint32_t in_len;
    uint64_t dial_until; /* when a listener whose queue is full is given up */
    uint32_t next;       /* of those that are ready */
    uint32_t link;       /* of those that are free */
    uint8_t state;
    uint8_t peer_shut; /* by the guest */
    bool seqpacket;
    bool listed;   /* ready */
    bool added;    /* to the loop */
    bool touched;  /* its memory was */
    bool in_end;   /* the socket has no more */
    bool out_end;  /* the socket takes no more */
    bool out_shut; /* shutdown(2) told it that nothing more comes */
    bool in_shut;  /* and that nothing is wanted */
    bool hup;      /* who had its other end is gone */
};

/* A socket that listens. */
struct tn_vsock_unix_listener {
    struct tn_loop_source source; /* fd -1: none */
    struct tn_vsock_unix *u;
    char path[108];
    bool made; /* the file at path is this socket's, */
    dev_t dev; /* known by these */
    ino_t ino;
    bool seqpacket;
};

struct tn_vsock_unix {
    struct tn_vsock_unix_cfg cfg;
    char path[108]; /* cfg.path; after an error of init, the path that it is about */
    struct tn_vsock_unix_listener listener[2];
    struct tn_loop_event wake; /* something is ready, or the device has more */
    struct tn_loop_timer tick; /* the device's */
    struct tn_loop_timer retry;
    struct tn_vsock_unix_conn *conn; /* cfg.conns of them, */
    uint8_t *map;                    /* in this mapping, */
    size_t map_len;
    size_t stride; /* with as many bytes of buffers each */
    uint32_t free;
    uint32_t used;
    uint32_t ready; /* the first of a queue, */
    uint32_t last;  /* and the last */
    uint32_t port;  /* of the next connection from the host */
    bool woken;     /* wake is signalled */
    bool again;     /* the device has more */
    bool full;      /* the listeners wait for a free connection */
    bool paused;    /* they wait for the host to have descriptors or memory */
    bool open;
};

/*
 * Listens at cfg->path, and serves the device's connections from now on. Returns 0; TN_EINVAL:
 * something is missing, outside the limits, or the path is too long; TN_ESYS: u->path cannot be
 * listened at, or there is no memory, or no descriptor; the loop's errors. *u is then closed.
 */
TN_API int tn_vsock_unix_init(struct tn_vsock_unix *u, const struct tn_vsock_unix_cfg *cfg);

/*
 * Resets all connections of the device, and closes all that init and they opened; the files at
 * PATH go if they are still those that init made. Nothing on what is closed.
 */
TN_API void tn_vsock_unix_close(struct tn_vsock_unix *u);

/* What the device calls, under the lock. */
TN_API void tn_vsock_unix_request(void *ctx, struct tn_virtio_vsock_conn *conn);
TN_API void tn_vsock_unix_opened(void *ctx, struct tn_virtio_vsock_conn *conn);
TN_API void tn_vsock_unix_data(void *ctx, struct tn_virtio_vsock_conn *conn,
                               const struct tn_iov *iov, uint32_t n, uint32_t len, uint32_t flags);
TN_API void tn_vsock_unix_shutdown(void *ctx, struct tn_virtio_vsock_conn *conn, uint32_t flags);
TN_API void tn_vsock_unix_closed(void *ctx, struct tn_virtio_vsock_conn *conn,
                                 enum tn_virtio_vsock_why why);
TN_API void tn_vsock_unix_room(void *ctx, struct tn_virtio_vsock_conn *conn);
TN_API void tn_vsock_unix_again(void *ctx);
TN_API void tn_vsock_unix_later(void *ctx, uint64_t ns);
TN_API uint64_t tn_vsock_unix_now(void *ctx);

static const struct tn_virtio_vsock_ops tn_vsock_unix_ops = {
    tn_vsock_unix_request,  tn_vsock_unix_opened, tn_vsock_unix_data,
    tn_vsock_unix_shutdown, tn_vsock_unix_closed, tn_vsock_unix_room,
    tn_vsock_unix_again,    tn_vsock_unix_later,  tn_vsock_unix_now};

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#ifdef __cplusplus
} /* the system's headers have their own */
#endif
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#ifdef __cplusplus
extern "C" {
#endif

#define TN_VSOCK_UNIX_NONE_  0xffffffffu
#define TN_VSOCK_UNIX_BATCH_ 64u /* connections, or accepts, before others' turn */
/* Nanoseconds between two tries to reach a listener that is busy; until it is given up; and between
   two tries to accept when the host has no descriptors. */
#define TN_VSOCK_UNIX_DIAL_    10000000u
#define TN_VSOCK_UNIX_GIVE_UP_ 2000000000u
#define TN_VSOCK_UNIX_PAUSE_   100000000u

/* States of a connection. */
#define TN_VSOCK_UNIX_FREE_  0u
#define TN_VSOCK_UNIX_LINE_  1u /* the program has not said which port */
#define TN_VSOCK_UNIX_WAIT_  2u /* the guest has not answered */
#define TN_VSOCK_UNIX_CALL_  3u /* the guest wants one, and nobody was called yet */
#define TN_VSOCK_UNIX_OPEN_  4u
#define TN_VSOCK_UNIX_DRAIN_ 5u /* the guest has closed; what it sent still goes out */
#define TN_VSOCK_UNIX_GONE_  6u /* to be closed by the loop's thread */

static inline uint32_t tn_vsock_unix_size_(const struct tn_vsock_unix *u)
{
    return u->cfg.device->cfg.buf_alloc;
}

static inline void tn_vsock_unix_wake_(struct tn_vsock_unix *u)
{
    if (u->woken || !u->open)
        return;
    u->woken = true;
    (void)tn_loop_event_signal(&u->wake);
}

/* The loop's thread will look at a connection. */
static inline void tn_vsock_unix_ready_(struct tn_vsock_unix_conn *c)
{
    struct tn_vsock_unix *u = c->u;
    uint32_t i = (uint32_t)(c - u->conn);

    if (!c->listed) {
        c->listed = true;
        c->next = TN_VSOCK_UNIX_NONE_;
        if (u->ready == TN_VSOCK_UNIX_NONE_)
            u->ready = i;
        else
            u->conn[u->last].next = i;
        u->last = i;
    }
    tn_vsock_unix_wake_(u);
}

static inline struct tn_vsock_unix_conn *tn_vsock_unix_take_(struct tn_vsock_unix *u, uint8_t state,
                                                             bool seqpacket)
{
    struct tn_vsock_unix_conn *c;

    if (!u->open || u->free == TN_VSOCK_UNIX_NONE_)
        return NULL;
    c = &u->conn[u->free];
    u->free = c->link;
    u->used++;
    c->conn = NULL;
    c->out_at = 0;
    c->out_len = 0;
    c->whole = 0;
    c->in_at = 0;
    c->in_len = 0;
    c->dial_until = 0;
    c->state = state;
    c->peer_shut = 0;
    c->seqpacket = seqpacket;
    c->in_end = false;
    c->out_end = false;
    c->out_shut = false;
    c->in_shut = false;
    c->hup = false;
    return c;
}

/* ---- what waits for the socket ---- */

static inline bool tn_vsock_unix_ends_(const struct tn_vsock_unix_conn *c, uint32_t at)
{
    return (c->eom[at / 8] >> at % 8 & 1) != 0;
}

/* The place of the ring's byte number n. */
static inline uint32_t tn_vsock_unix_at_(const struct tn_vsock_unix_conn *c, uint32_t n)
{
    uint32_t size = tn_vsock_unix_size_(c->u);

    return n < size - c->out_at ? c->out_at + n : n - (size - c->out_at);
}

/* Whether the ring ends in mid-message. */
static inline bool tn_vsock_unix_begun_(const struct tn_vsock_unix_conn *c)
{
    return c->out_len > 0 && !tn_vsock_unix_ends_(c, tn_vsock_unix_at_(c, c->out_len - 1));
}

static inline void tn_vsock_unix_end_message_(struct tn_vsock_unix_conn *c)
{
    uint32_t at = tn_vsock_unix_at_(c, c->out_len - 1);

    c->eom[at / 8] |= (uint8_t)(1u << at % 8);
    c->whole++;
}

/* Adds bytes; the device gives no more than there is room for. */
static inline void tn_vsock_unix_append_(struct tn_vsock_unix_conn *c, const uint8_t *bytes,
                                         size_t len)
{
    uint32_t size = tn_vsock_unix_size_(c->u);

    c->touched = true;
    while (len > 0 && c->out_len < size) {
        uint32_t at = tn_vsock_unix_at_(c, c->out_len);
        uint32_t run = (at < c->out_at ? c->out_at : size) - at;

        if (run > len)
            run = (uint32_t)len;
        memcpy(c->out + at, bytes, run);
        if (c->seqpacket) /* of a message that has not ended */
            for (uint32_t i = at; i < at + run; i++)
                c->eom[i / 8] &= (uint8_t) ~(1u << i % 8);
        c->out_len += run;
        bytes += run;
        len -= run;
    }
}

/* Takes len bytes away, which the guest may send again. */
static inline void tn_vsock_unix_drop_(struct tn_vsock_unix_conn *c, uint32_t len)
{
    c->out_at = tn_vsock_unix_at_(c, len);
    c->out_len -= len;
    if (c->conn)
        tn_virtio_vsock_consumed(c->u->cfg.device, c->conn, len);
}

/* The socket takes no more: what waits for it is dropped, and so is what will come. */
static inline void tn_vsock_unix_out_end_(struct tn_vsock_unix_conn *c)
{
    c->out_end = true;
    c->whole = 0;
    tn_vsock_unix_drop_(c, c->out_len);
    if (c->conn)
        tn_virtio_vsock_shutdown(c->u->cfg.device, c->conn, TN_VIRTIO_VSOCK_SHUT_RCV);
}

/* Sends; returns how many bytes went, 0: the socket is full, < 0: it takes no more. */
static inline ssize_t tn_vsock_unix_write_(const struct tn_vsock_unix_conn *c,
                                           const struct iovec *iov, size_t n)
{
    struct msghdr msg;
    ssize_t r;

    memset(&msg, 0, sizeof(msg));
    msg.msg_iov = (struct iovec *)iov;
    msg.msg_iovlen = n;
    r = sendmsg(c->source.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (r < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOBUFS))
        return 0;
    return r;
}

/* Bytes of the ring that may go in one piece: all, or a message; 0: none. */
static inline uint32_t tn_vsock_unix_piece_(const struct tn_vsock_unix_conn *c)
{
    uint32_t n = 0;

    if (!c->seqpacket)
        return c->out_len;
    if (c->whole == 0)
        return 0;
    while (n + 1 < c->out_len && !tn_vsock_unix_ends_(c, tn_vsock_unix_at_(c, n)))
        n++;
    return n + 1;
}

static inline void tn_vsock_unix_out_(struct tn_vsock_unix_conn *c)
{
    uint32_t size = tn_vsock_unix_size_(c->u), piece;
    struct iovec iov[2];
    ssize_t r;

    while (!c->out_end && (piece = tn_vsock_unix_piece_(c)) > 0) {
        iov[0].iov_base = c->out + c->out_at;
        iov[0].iov_len = piece < size - c->out_at ? piece : size - c->out_at;
        iov[1].iov_base = c->out;
        iov[1].iov_len = piece - iov[0].iov_len;
        r = tn_vsock_unix_write_(c, iov, 2);
        if (r < 0) {
            tn_vsock_unix_out_end_(c);
            break;
        }
        if (r == 0)
            break;
        c->whole -= c->seqpacket;
        tn_vsock_unix_drop_(c, (uint32_t)r);
    }
    if ((c->peer_shut & TN_VIRTIO_VSOCK_SHUT_SEND) != 0 && tn_vsock_unix_piece_(c) == 0 &&
        !c->out_end && !c->out_shut) {
        c->out_shut = true;
        (void)shutdown(c->source.fd, SHUT_WR);
    }
}

/* ---- what waits for the guest ---- */

/* The guest's end is reset, and the socket closed. */
static inline void tn_vsock_unix_fail_(struct tn_vsock_unix_conn *c)
{
    if (c->conn)
        tn_virtio_vsock_reset(c->u->cfg.device, c->conn);
    c->conn = NULL;
    c->state = TN_VSOCK_UNIX_GONE_;
}

static inline void tn_vsock_unix_push_(struct tn_vsock_unix_conn *c)
{
    struct tn_iov iov;
    size_t n;

    if (c->in_len == 0)
        return;
    iov.base = c->in + c->in_at;
    iov.len = c->in_len;
    n = tn_virtio_vsock_send(c->u->cfg.device, c->conn, &iov, 1, TN_VIRTIO_VSOCK_SEQ_EOM);
    c->in_at += (uint32_t)n;
    c->in_len -= (uint32_t)n;
}

/* One read of the socket's, once all that it gave before has gone. */
static inline void tn_vsock_unix_in_(struct tn_vsock_unix_conn *c)
{
    struct tn_virtio_vsock *device = c->u->cfg.device;
    uint32_t size = tn_vsock_unix_size_(c->u);
    ssize_t n;

    if ((c->peer_shut & TN_VIRTIO_VSOCK_SHUT_RCV) != 0 && !c->in_shut) {
        c->in_shut = true;
        c->in_end = true;
        c->in_len = 0;
        (void)shutdown(c->source.fd, SHUT_RD);
    }
    tn_vsock_unix_push_(c);
    if (c->in_len > 0 || c->in_end)
        return;
    n = recv(c->source.fd, c->in, size, MSG_DONTWAIT | (c->seqpacket ? MSG_TRUNC : 0));
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0 || (c->seqpacket && (size_t)n > tn_virtio_vsock_message_max(device, c->conn)) ||
        (size_t)n > size) {
        tn_vsock_unix_fail_(c);
        return;
    }
    if (n == 0) {
        c->in_end = true;
        tn_virtio_vsock_shutdown(device, c->conn, TN_VIRTIO_VSOCK_SHUT_SEND);
        return;
    }
    c->touched = true;
    c->in_at = 0;
    c->in_len = (uint32_t)n;
    tn_vsock_unix_push_(c);
}

/* ---- how connections begin ---- */

/* A port for this end that no other connection has. */
static inline int tn_vsock_unix_connect_(struct tn_vsock_unix_conn *c, uint32_t port)
{
    struct tn_vsock_unix *u = c->u;
    uint16_t type = c->seqpacket ? TN_VIRTIO_VSOCK_SEQPACKET : TN_VIRTIO_VSOCK_STREAM;
    int r = TN_EEXIST;

    for (uint32_t i = 0; i <= u->cfg.device->cfg.conns && r == TN_EEXIST; i++) {
        u->port = u->port < 2 * TN_VSOCK_UNIX_PORT - 1 ? u->port + 1 : TN_VSOCK_UNIX_PORT;
        r = tn_virtio_vsock_connect(u->cfg.device, port, u->port, type, c, &c->conn);
    }
    return r;
}

/* Reads no further than a line can be long; what comes behind it is the guest's. */
static inline void tn_vsock_unix_line_(struct tn_vsock_unix_conn *c)
{
    uint32_t port = 0;
    ssize_t n;
    int r;

    c->touched = true;
    n = recv(c->source.fd, c->in + c->in_len, TN_VIRTIO_VSOCK_LINE - c->in_len,
             MSG_DONTWAIT | (c->seqpacket ? MSG_TRUNC : 0));
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || n > (ssize_t)(TN_VIRTIO_VSOCK_LINE - c->in_len)) {
        c->state = TN_VSOCK_UNIX_GONE_;
        return;
    }
    c->in_len += (uint32_t)n;
    r = tn_virtio_vsock_connect_line(c->in, c->in_len, &port);
    if (r == 0 && !c->seqpacket)
        return;
    if (r <= 0 || (c->seqpacket && (uint32_t)r < c->in_len) ||
        tn_vsock_unix_connect_(c, port) < 0) {
        c->state = TN_VSOCK_UNIX_GONE_;
        return;
    }
    c->in_at = (uint32_t)r;
    c->in_len -= (uint32_t)r;
    c->state = TN_VSOCK_UNIX_WAIT_;
}

static inline void tn_vsock_unix_on_socket_(void *ctx, uint32_t events);

/* Makes a connection of a socket, which is closed if that fails. */
static inline int tn_vsock_unix_watch_(struct tn_vsock_unix_conn *c, int fd)
{
    int size = (int)tn_vsock_unix_size_(c->u), r;

    if (c->seqpacket) /* a message goes in one piece, or never */
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    c->source.fd = fd;
    c->source.events = EPOLLIN;
    c->source.fn = tn_vsock_unix_on_socket_;
    c->source.ctx = c;
    r = tn_loop_add(c->u->cfg.loop, &c->source);
    if (r < 0) {
        close(fd);
        c->source.fd = -1;
    }
    c->added = r >= 0;
    return r;
}

/* Calls whoever listens at PATH_port. */
static inline void tn_vsock_unix_dial_(struct tn_vsock_unix_conn *c)
{
    struct tn_vsock_unix *u = c->u;
    struct sockaddr_un to;
    uint64_t now = tn_vsock_unix_now(u);
    int fd = socket(
        AF_UNIX, (c->seqpacket ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    memset(&to, 0, sizeof(to));
    to.sun_family = AF_UNIX;
    (void)snprintf(to.sun_path, sizeof(to.sun_path), "%.96s_%u", u->path,
                   (unsigned)c->conn->host_port);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0) {
        int err = errno;

        close(fd);
        fd = -1;
        if (c->dial_until == 0)
            c->dial_until = now + TN_VSOCK_UNIX_GIVE_UP_;
        if ((err == EAGAIN || err == EINTR) && now < c->dial_until) {
            (void)tn_loop_timer_arm(&u->retry, TN_VSOCK_UNIX_DIAL_, 0);
            return;
        }
    }
    if (fd < 0 || tn_vsock_unix_watch_(c, fd) < 0) {
        tn_vsock_unix_fail_(c);
        return;
    }
    c->state = TN_VSOCK_UNIX_OPEN_;
    (void)tn_virtio_vsock_accept(u->cfg.device, c->conn);
}

/* ---- the loop's thread, under the lock ---- */

static inline void tn_vsock_unix_listen_(struct tn_vsock_unix *u)
{
    for (unsigned i = 0; i < 2; i++)
        if (u->listener[i].source.fd >= 0)
            (void)tn_loop_mod(u->cfg.loop, &u->listener[i].source,
                              u->full || u->paused ? 0 : (uint32_t)EPOLLIN);
}

static inline void tn_vsock_unix_release_(struct tn_vsock_unix_conn *c)
{
    struct tn_vsock_unix *u = c->u;

    if (c->added)
        (void)tn_loop_remove(u->cfg.loop, &c->source);
    c->added = false;
    if (c->source.fd >= 0)
        close(c->source.fd);
    c->source.fd = -1;
    if (c->touched)
        (void)madvise(c->out, u->stride, MADV_DONTNEED);
    c->touched = false;
    c->state = TN_VSOCK_UNIX_FREE_;
    c->link = u->free;
    u->free = (uint32_t)(c - u->conn);
    u->used--;
    if (u->full) {
        u->full = false;
        tn_vsock_unix_listen_(u);
    }
}

/* What a connection has to be called for. Only who has read the end waits for a hang-up alone. */
static inline uint32_t tn_vsock_unix_events_(const struct tn_vsock_unix_conn *c)
{
    uint32_t events = 0;

    if (c->state == TN_VSOCK_UNIX_LINE_)
        return EPOLLIN;
    if (c->state == TN_VSOCK_UNIX_DRAIN_)
        return EPOLLOUT;
    if (c->state != TN_VSOCK_UNIX_OPEN_)
        return 0;
    if (c->in_len == 0 && !c->in_end)
        events |= (uint32_t)EPOLLIN;
    if (!c->out_end && tn_vsock_unix_piece_(c) > 0)
        events |= (uint32_t)EPOLLOUT;
    if (events == 0 && c->in_end && c->in_len == 0 && !c->hup)
        events = EPOLLPRI;
    return events;
}

/* Moves what can be moved, then waits for just what is still needed. */
static inline void tn_vsock_unix_turn_(struct tn_vsock_unix_conn *c)
{
    switch (c->state) {
    case TN_VSOCK_UNIX_LINE_:
        tn_vsock_unix_line_(c);
        break;
    case TN_VSOCK_UNIX_CALL_:
        tn_vsock_unix_dial_(c);
        break;
    case TN_VSOCK_UNIX_OPEN_:
        tn_vsock_unix_out_(c);
        tn_vsock_unix_in_(c);
        if (c->state == TN_VSOCK_UNIX_OPEN_ && c->hup && c->in_end && c->in_len == 0) {
            if (!c->out_end)
                tn_vsock_unix_out_end_(c);
            tn_virtio_vsock_shutdown(c->u->cfg.device, c->conn, TN_VIRTIO_VSOCK_SHUT_BOTH);
        }
        break;
    case TN_VSOCK_UNIX_DRAIN_:
        tn_vsock_unix_out_(c);
        if (c->out_end || tn_vsock_unix_piece_(c) == 0)
            c->state = TN_VSOCK_UNIX_GONE_;
        break;
    default:
        break;
    }
    if (c->state == TN_VSOCK_UNIX_GONE_)
        tn_vsock_unix_release_(c);
    else if (c->added && c->source.events != tn_vsock_unix_events_(c))
        (void)tn_loop_mod(c->u->cfg.loop, &c->source, tn_vsock_unix_events_(c));
}

static inline void tn_vsock_unix_on_socket_(void *ctx, uint32_t events)
{
    struct tn_vsock_unix_conn *c = (struct tn_vsock_unix_conn *)ctx;

    pthread_mutex_lock(c->u->cfg.lock);
    if ((events & ((uint32_t)EPOLLHUP | (uint32_t)EPOLLERR)) != 0)
        c->hup = true;
    tn_vsock_unix_turn_(c);
    pthread_mutex_unlock(c->u->cfg.lock);
}

static inline void tn_vsock_unix_on_wake_(void *ctx, uint64_t count)
{
    struct tn_vsock_unix *u = (struct tn_vsock_unix *)ctx;

    (void)count;
    pthread_mutex_lock(u->cfg.lock);
    u->woken = false;
    if (u->again) {
        u->again = false;
        (void)tn_virtio_vsock_flush(u->cfg.device);
    }
    for (unsigned n = 0; n < TN_VSOCK_UNIX_BATCH_ && u->ready != TN_VSOCK_UNIX_NONE_; n++) {
        struct tn_vsock_unix_conn *c = &u->conn[u->ready];

        u->ready = c->next;
        c->listed = false;
        tn_vsock_unix_turn_(c);
    }
    if (u->ready != TN_VSOCK_UNIX_NONE_ || u->again)
        tn_vsock_unix_wake_(u);
    pthread_mutex_unlock(u->cfg.lock);
}

static inline void tn_vsock_unix_on_tick_(void *ctx, uint64_t expirations)
{
    struct tn_vsock_unix *u = (struct tn_vsock_unix *)ctx;

    (void)expirations;
    pthread_mutex_lock(u->cfg.lock);
    tn_virtio_vsock_tick(u->cfg.device);
    pthread_mutex_unlock(u->cfg.lock);
}

static inline void tn_vsock_unix_on_retry_(void *ctx, uint64_t expirations)
{
    struct tn_vsock_unix *u = (struct tn_vsock_unix *)ctx;

    (void)expirations;
    pthread_mutex_lock(u->cfg.lock);
    for (uint32_t i = 0; i < u->cfg.conns; i++)
        if (u->conn[i].state == TN_VSOCK_UNIX_CALL_)
            tn_vsock_unix_ready_(&u->conn[i]);
    if (u->paused) {
        u->paused = false;
        tn_vsock_unix_listen_(u);
    }
    pthread_mutex_unlock(u->cfg.lock);
}

/* Accepts one program; false: that is all for now. */
static inline bool tn_vsock_unix_accept_(struct tn_vsock_unix_listener *l)
{
    struct tn_vsock_unix *u = l->u;
    struct tn_vsock_unix_conn *c;
    int fd, err;

    if (u->free == TN_VSOCK_UNIX_NONE_) {
        u->full = true;
        tn_vsock_unix_listen_(u);
        return false;
    }
    fd = accept4(l->source.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    err = errno;
    if (fd < 0 && (err == EMFILE || err == ENFILE || err == ENOBUFS || err == ENOMEM)) {
        u->paused = true;
        tn_vsock_unix_listen_(u);
        (void)tn_loop_timer_arm(&u->retry, TN_VSOCK_UNIX_PAUSE_, 0);
    }
    if (fd < 0)
        return err == ECONNABORTED || err == EINTR;
    c = tn_vsock_unix_take_(u, TN_VSOCK_UNIX_LINE_, l->seqpacket);
    if (tn_vsock_unix_watch_(c, fd) < 0)
        tn_vsock_unix_release_(c);
    return true;
}

static inline void tn_vsock_unix_on_accept_(void *ctx, uint32_t events)
{
    struct tn_vsock_unix_listener *l = (struct tn_vsock_unix_listener *)ctx;
    unsigned n = 0;

    (void)events;
    pthread_mutex_lock(l->u->cfg.lock);
    while (n < TN_VSOCK_UNIX_BATCH_ && tn_vsock_unix_accept_(l))
        n++;
    pthread_mutex_unlock(l->u->cfg.lock);
}

/* ---- the device's calls, under the lock, on any thread ---- */

TN_API void tn_vsock_unix_request(void *ctx, struct tn_virtio_vsock_conn *conn)
{
    struct tn_vsock_unix *u = (struct tn_vsock_unix *)ctx;
    bool seqpacket = conn->type == TN_VIRTIO_VSOCK_SEQPACKET;
    struct tn_vsock_unix_conn *c = tn_vsock_unix_take_(u, TN_VSOCK_UNIX_CALL_, seqpacket);

    if (!c) {
        if (u->cfg.device) /* init was called before */
            tn_virtio_vsock_reset(u->cfg.device, conn);
        return;
    }
    c->conn = conn;
    conn->host = c;
    tn_vsock_unix_ready_(c);
}

/* The socket is empty yet: it takes so few bytes, or is broken. */
TN_API void tn_vsock_unix_opened(void *ctx, struct tn_virtio_vsock_conn *conn)
{
    struct tn_vsock_unix_conn *c = (struct tn_vsock_unix_conn *)conn->host;
    char line[32];
    int n = snprintf(line, sizeof(line), "OK %u\n", (unsigned)conn->host_port);

    (void)ctx;
    c->state = TN_VSOCK_UNIX_OPEN_;
    if (send(c->source.fd, line, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) != n)
        tn_vsock_unix_fail_(c);
    tn_vsock_unix_ready_(c);
}

TN_API void tn_vsock_unix_data(void *ctx, struct tn_virtio_vsock_conn *conn,
                               const struct tn_iov *iov, uint32_t n, uint32_t len, uint32_t flags)
{
    struct tn_vsock_unix *u = (struct tn_vsock_unix *)ctx;
    struct tn_vsock_unix_conn *c = (struct tn_vsock_unix_conn *)conn->host;
    bool end = (flags & TN_VIRTIO_VSOCK_SEQ_EOM) != 0;
    const void *v = iov;
    ssize_t sent = 0;

    if (!c->out_end && c->out_len == 0 && len > 0 && (!c->seqpacket || end)) {
        sent = tn_vsock_unix_write_(c, (const struct iovec *)v, n);
        if (sent < 0) {
            tn_vsock_unix_out_end_(c);
            tn_vsock_unix_ready_(c);
        }
    }
    if (c->out_end || (len > 0 && sent == (ssize_t)len)) {
        tn_virtio_vsock_consumed(u->cfg.device, conn, len);
        return;
    }
    tn_virtio_vsock_consumed(u->cfg.device, conn, (uint32_t)sent);
    for (uint32_t i = 0; i < n; i++) {
        size_t skip = (size_t)sent < iov[i].len ? (size_t)sent : iov[i].len;

        sent -= (ssize_t)skip;
        tn_vsock_unix_append_(c, iov[i].base + skip, iov[i].len - skip);
    }
    if (end && tn_vsock_unix_begun_(c))
        tn_vsock_unix_end_message_(c);
    tn_vsock_unix_ready_(c);
}

TN_API void tn_vsock_unix_shutdown(void *ctx, struct tn_virtio_vsock_conn *conn, uint32_t flags)
{
    struct tn_vsock_unix_conn *c = (struct tn_vsock_unix_conn *)conn->host;

    (void)ctx;
    c->peer_shut = (uint8_t)flags;
    tn_vsock_unix_ready_(c);
}

/* What the guest sent before it closed still goes out; what it was sent does not come back. */
TN_API void tn_vsock_unix_closed(void *ctx, struct tn_virtio_vsock_conn *conn,
                                 enum tn_virtio_vsock_why why)
{
    struct tn_vsock_unix_conn *c = (struct tn_vsock_unix_conn *)conn->host;

    (void)ctx;
    if (!c)
        return;
    c->conn = NULL;
    c->state = why == TN_VIRTIO_VSOCK_WHY_DONE && c->state == TN_VSOCK_UNIX_OPEN_
                   ? TN_VSOCK_UNIX_DRAIN_
                   : TN_VSOCK_UNIX_GONE_;
    tn_vsock_unix_ready_(c);
}

TN_API void tn_vsock_unix_room(void *ctx, struct tn_virtio_vsock_conn *conn)
{
    (void)ctx;
    tn_vsock_unix_ready_((struct tn_vsock_unix_conn *)conn->host);
}

TN_API void tn_vsock_unix_again(void *ctx)
{
    struct tn_vsock_unix *u = (struct tn_vsock_unix *)ctx;

    u->again = true;
    tn_vsock_unix_wake_(u);
}

TN_API void tn_vsock_unix_later(void *ctx, uint64_t ns)
{
    struct tn_vsock_unix *u = (struct tn_vsock_unix *)ctx;

    if (u->open)
        (void)tn_loop_timer_arm(&u->tick, ns, 0);
}

TN_API uint64_t tn_vsock_unix_now(void *ctx)
{
    struct timespec t;

    (void)ctx;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- begin and end ---- */

/* Listens at u->path. */
static inline int tn_vsock_unix_bind_(struct tn_vsock_unix *u, struct tn_vsock_unix_listener *l,
                                      bool seqpacket)
{
    struct sockaddr_un at;
    struct stat st;

    l->seqpacket = seqpacket;
    l->source.fn = tn_vsock_unix_on_accept_;
    l->source.ctx = l;
    l->source.events = EPOLLIN;
    l->source.fd = socket(
        AF_UNIX, (seqpacket ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    memset(&at, 0, sizeof(at));
    at.sun_family = AF_UNIX;
    memcpy(at.sun_path, u->path, sizeof(at.sun_path));
    if (l->source.fd < 0 || bind(l->source.fd, (const struct sockaddr *)&at, sizeof(at)) < 0)
        return TN_ESYS;
    memcpy(l->path, u->path, sizeof(l->path));
    l->made = lstat(l->path, &st) == 0;
    l->dev = l->made ? st.st_dev : 0;
    l->ino = l->made ? st.st_ino : 0;
    if (listen(l->source.fd, SOMAXCONN) < 0)
        return TN_ESYS;
    return tn_loop_add(u->cfg.loop, &l->source);
}

static inline void tn_vsock_unix_unbind_(struct tn_vsock_unix_listener *l)
{
    struct stat st;

    if (l->source.fd < 0)
        return;
    (void)tn_loop_remove(l->u->cfg.loop, &l->source);
    close(l->source.fd);
    l->source.fd = -1;
    if (l->made && lstat(l->path, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_dev == l->dev &&
        st.st_ino == l->ino)
        (void)unlink(l->path);
    l->made = false;
}

static inline int tn_vsock_unix_map_(struct tn_vsock_unix *u)
{
    size_t size = tn_vsock_unix_size_(u), page = 4096, table;
    void *map;

    u->stride = (2 * size + (size + 7) / 8 + page - 1) / page * page;
    table = (u->cfg.conns * sizeof(*u->conn) + page - 1) / page * page;
    u->map_len = table + u->cfg.conns * u->stride;
    map = mmap(NULL, u->map_len, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return TN_ESYS;
    u->map = (uint8_t *)map;
    u->conn = (struct tn_vsock_unix_conn *)map;
    u->free = 0;
    for (uint32_t i = 0; i < u->cfg.conns; i++) {
        struct tn_vsock_unix_conn *c = &u->conn[i];

        c->u = u;
        c->source.fd = -1;
        c->out = u->map + table + i * u->stride;
        c->in = c->out + size;
        c->eom = c->in + size;
        c->link = i + 1 < u->cfg.conns ? i + 1 : TN_VSOCK_UNIX_NONE_;
    }
    return TN_OK;
}

TN_API int tn_vsock_unix_init(struct tn_vsock_unix *u, const struct tn_vsock_unix_cfg *cfg)
{
    size_t len = cfg->path ? strlen(cfg->path) : 0;
    int r, saved;

    memset(u, 0, sizeof(*u));
    u->listener[0].source.fd = -1;
    u->listener[1].source.fd = -1;
    if (len == 0 || len > TN_VSOCK_UNIX_PATH_MAX || !cfg->device || !cfg->lock || !cfg->loop ||
        cfg->conns == 0 || cfg->conns > TN_VSOCK_UNIX_CONNS_MAX)
        return TN_EINVAL;
    u->cfg = *cfg;
    u->wake.source.fd = -1;
    u->tick.source.fd = -1;
    u->retry.source.fd = -1;
    u->listener[0].u = u;
    u->listener[1].u = u;
    u->ready = TN_VSOCK_UNIX_NONE_;
    u->last = TN_VSOCK_UNIX_NONE_;
    u->port = TN_VSOCK_UNIX_PORT - 1;
    memcpy(u->path, cfg->path, len + 1);
    r = tn_vsock_unix_map_(u);
    if (r >= 0)
        r = tn_loop_event_init(&u->wake, cfg->loop, tn_vsock_unix_on_wake_, u);
    if (r >= 0)
        r = tn_loop_timer_init(&u->tick, cfg->loop, tn_vsock_unix_on_tick_, u);
    if (r >= 0)
        r = tn_loop_timer_init(&u->retry, cfg->loop, tn_vsock_unix_on_retry_, u);
    if (r >= 0 && cfg->seqpacket) {
        memcpy(u->path + len, ".seqpacket", sizeof(".seqpacket"));
        r = tn_vsock_unix_bind_(u, &u->listener[1], true);
    }
    if (r >= 0) {
        memset(u->path + len, 0, sizeof(u->path) - len);
        r = tn_vsock_unix_bind_(u, &u->listener[0], false);
    }
    if (r < 0) {
        saved = errno;
        tn_vsock_unix_close(u);
        errno = saved;
        return r;
    }
    pthread_mutex_lock(cfg->lock);
    u->open = true;
    u->again = true; /* a guest may run already */
    tn_vsock_unix_wake_(u);
    pthread_mutex_unlock(cfg->lock);
    return TN_OK;
}

TN_API void tn_vsock_unix_close(struct tn_vsock_unix *u)
{
    if (!u->cfg.loop)
        return;
    tn_vsock_unix_unbind_(&u->listener[0]);
    tn_vsock_unix_unbind_(&u->listener[1]);
    pthread_mutex_lock(u->cfg.lock);
    if (u->open)
        tn_virtio_vsock_reset_all(u->cfg.device);
    u->open = false;
    for (uint32_t i = 0; u->map && i < u->cfg.conns; i++)
        if (u->conn[i].state != TN_VSOCK_UNIX_FREE_)
            tn_vsock_unix_release_(&u->conn[i]);
    pthread_mutex_unlock(u->cfg.lock);
    tn_loop_event_close(&u->wake);
    tn_loop_timer_close(&u->tick);
    tn_loop_timer_close(&u->retry);
    if (u->map)
        (void)munmap(u->map, u->map_len);
    u->map = NULL;
    u->conn = NULL;
    u->cfg.loop = NULL;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VSOCK_UNIX_H */
