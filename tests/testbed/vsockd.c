/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Sockets between a guest and its host, for both of them: a server that echoes what many clients
 * send at once, and clients that hold what comes back against what they sent.
 *
 *   vsockd serve TYPE ADDRESS [TYPE ADDRESS]...  echoes until it is killed
 *   vsockd many TYPE ADDRESS N                   N connections at once, each with words of its own
 *   vsockd churn TYPE ADDRESS N                  N, opened and closed one after the other
 *   vsockd move TYPE ADDRESS MIB                 so many MiB, each way at the same time
 *   vsockd messages seqpacket ADDRESS N          N messages of 1 byte to 64 KiB, each one whole
 *   vsockd trip TYPE ADDRESS N                   the median round trip of one byte
 *
 * TYPE is stream or seqpacket. ADDRESS is CID:PORT, PATH of a Unix socket, or PATH=PORT, the
 * guest's port behind tn_vsock_unix's; a server in a guest has the CID 4294967295, which is any.
 * Out: one line, exit 0; or what went wrong, exit 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#define BACKLOG 256
#define CONNS   1024
#define MESSAGE 65536u /* bytes, at most */
#define PRIME   65521u
#define FLIGHT  16u /* messages under way */

/* Bytes at any place of a stream: its period is no multiple of a buffer's size. */
static uint8_t table[PRIME + MESSAGE];

static void die(const char *format, ...)
{
    int error = errno;
    va_list ap;

    va_start(ap, format);
    printf("vsockd: ");
    vprintf(format, ap);
    printf(" (%s)\n", strerror(error));
    va_end(ap);
    exit(1);
}

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- addresses ---- */

struct target {
    int type;
    struct sockaddr_storage addr;
    socklen_t len;
    uint32_t port; /* to ask for, in a line; 0: none */
};

static struct target target(const char *type, const char *name)
{
    struct target t = {.type = SOCK_STREAM, .len = sizeof(struct sockaddr_un)};
    struct sockaddr_un *un = (struct sockaddr_un *)&t.addr;
    struct sockaddr_vm *vm = (struct sockaddr_vm *)&t.addr;
    unsigned cid, port;
    size_t n = strcspn(name, "=");

    if (strcmp(type, "seqpacket") == 0)
        t.type = SOCK_SEQPACKET;
    else if (strcmp(type, "stream") != 0)
        die("%s is no type", type);
    if (sscanf(name, "%u:%u", &cid, &port) == 2) {
        vm->svm_family = AF_VSOCK;
        vm->svm_cid = cid;
        vm->svm_port = port;
        t.len = sizeof(*vm);
        return t;
    }
    if (n >= sizeof(un->sun_path))
        die("%s is too long", name);
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, name, n);
    t.port = name[n] ? (uint32_t)strtoul(name + n + 1, NULL, 10) : 0;
    return t;
}

/* ---- the server ---- */

struct conn {
    int fd;
    int type;
    int listens;
    int over; /* no more will come */
    uint32_t at, len;
    uint8_t *buf;
};

static struct conn conns[CONNS];
static uint8_t message[MESSAGE + 1];

static void watch(int ep, struct conn *c, int how)
{
    struct epoll_event ev = {.events = c->len > 0 ? EPOLLOUT : EPOLLIN, .data.ptr = c};

    if (epoll_ctl(ep, how, c->fd, &ev) < 0)
        die("epoll_ctl");
}

static struct conn *add(int ep, int fd, int type, int listens)
{
    for (unsigned i = 0; i < CONNS; i++) {
        struct conn *c = &conns[i];

        if (c->fd >= 0)
            continue;
        *c = (struct conn){.fd = fd, .type = type, .listens = listens, .buf = c->buf};
        if (!c->buf)
            c->buf = malloc(MESSAGE);
        watch(ep, c, EPOLL_CTL_ADD);
        return c;
    }
    die("more than %d connections", CONNS);
    return NULL;
}

/*
 * A message goes back in one call that may wait: Linux sends a part of one where there is no room
 * for it all, and returns EAGAIN, if it may not.
 */
static int echo_message(struct conn *c)
{
    ssize_t n = recv(c->fd, message, sizeof(message), MSG_DONTWAIT | MSG_TRUNC);

    if (n < 0 && errno == EAGAIN)
        return 1;
    if (n > (ssize_t)MESSAGE)
        die("a message of %zd bytes", n);
    return n > 0 && send(c->fd, message, (size_t)n, MSG_NOSIGNAL) == n;
}

/* Returns 0 when the connection is over. */
static int echo(int ep, struct conn *c)
{
    ssize_t n;

    if (c->type == SOCK_SEQPACKET)
        return echo_message(c);
    if (c->len == 0) {
        n = recv(c->fd, c->buf, MESSAGE, MSG_DONTWAIT);
        if (n <= 0)
            return n < 0 && errno == EAGAIN;
        c->at = 0;
        c->len = (uint32_t)n;
    }
    n = send(c->fd, c->buf + c->at, c->len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN)
        return 0;
    if (n > 0) {
        c->at += (uint32_t)n;
        c->len -= (uint32_t)n;
    }
    watch(ep, c, EPOLL_CTL_MOD);
    return 1;
}

static void serve(int argc, char **argv)
{
    struct epoll_event ev[64];
    int ep = epoll_create1(EPOLL_CLOEXEC);

    for (unsigned i = 0; i < CONNS; i++)
        conns[i].fd = -1;
    for (int i = 0; i + 1 < argc; i += 2) {
        struct target t = target(argv[i], argv[i + 1]);
        int fd = socket(t.addr.ss_family, t.type | SOCK_CLOEXEC, 0);

        if (fd < 0 || bind(fd, (struct sockaddr *)&t.addr, t.len) < 0 || listen(fd, BACKLOG) < 0)
            die("%s %s", argv[i], argv[i + 1]);
        add(ep, fd, t.type, 1);
    }
    printf("vsockd: serves\n");
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(ep, ev, 64, -1);

        for (int i = 0; i < n; i++) {
            struct conn *c = ev[i].data.ptr;

            if (c->listens) {
                int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC);

                if (fd >= 0)
                    add(ep, fd, c->type, 0);
            } else if (!echo(ep, c)) {
                close(c->fd);
                c->fd = -1;
            }
        }
    }
}

/* ---- clients ---- */

static void send_all(int fd, const void *bytes, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = send(fd, (const uint8_t *)bytes + at, len - at, MSG_NOSIGNAL);

        if (n <= 0)
            die("%zu of %zu bytes were sent", at, len);
        at += (size_t)n;
    }
}

/* Reads len bytes, or one message of so many. */
static void expect(int fd, int type, const uint8_t *bytes, size_t len)
{
    static uint8_t got[MESSAGE + 1];
    size_t at = 0;

    while (at < len) {
        ssize_t n = recv(fd, got + at, type == SOCK_STREAM ? len - at : sizeof(got),
                         type == SOCK_STREAM ? 0 : MSG_TRUNC);

        if (n <= 0)
            die("%zu of %zu bytes came back", at, len);
        at += (size_t)n;
        if (type == SOCK_SEQPACKET && at != len)
            die("a message of %zu bytes came back with %zu", len, at);
    }
    if (memcmp(got, bytes, len) != 0)
        die("other bytes than those %zu came back", len);
}

static int begin(const struct target *t)
{
    int fd = socket(t->addr.ss_family, t->type | SOCK_CLOEXEC, 0);
    char line[32];

    if (fd < 0 || connect(fd, (const struct sockaddr *)&t->addr, t->len) < 0)
        die("no connection");
    if (t->port)
        send_all(fd, line, (size_t)snprintf(line, sizeof(line), "CONNECT %u\n", t->port));
    return fd;
}

static void begun(const struct target *t, int fd)
{
    char line[32];
    size_t n = 0;

    if (!t->port)
        return;
    if (t->type == SOCK_SEQPACKET) {
        ssize_t r = recv(fd, line, sizeof(line), 0);

        n = r > 0 ? (size_t)r : 0;
    } else {
        while (n < sizeof(line) && recv(fd, line + n, 1, 0) == 1 && line[n++] != '\n')
            continue;
    }
    if (n < 5 || memcmp(line, "OK ", 3) != 0 || line[n - 1] != '\n')
        die("%zu bytes, which are not OK, for an answer", n);
}

static int open_one(const struct target *t)
{
    int fd = begin(t);

    begun(t, fd);
    return fd;
}

/* All are open before the first one says a word; each says more than the one before. */
static void many(const struct target *t, unsigned n)
{
    int *fd = calloc(n, sizeof(*fd));
    uint8_t byte;

    for (unsigned i = 0; i < n; i++)
        fd[i] = begin(t);
    for (unsigned i = 0; i < n; i++)
        begun(t, fd[i]);
    for (unsigned i = 0; i < n; i++)
        send_all(fd[i], table + i * 7, 1 + i * 13);
    for (unsigned i = n; i-- > 0;)
        expect(fd[i], t->type, table + i * 7, 1 + i * 13);
    for (unsigned i = 0; i < n; i++) {
        shutdown(fd[i], SHUT_WR);
        if (recv(fd[i], &byte, 1, 0) != 0)
            die("connection %u does not end", i);
        close(fd[i]);
    }
    free(fd);
    printf("vsockd: %u connections at once, each echoed\n", n);
}

/* Every other one is closed without waiting for the other end's. */
static void churn(const struct target *t, unsigned n)
{
    double from = seconds();
    uint8_t byte;

    for (unsigned i = 0; i < n; i++) {
        int fd = open_one(t);

        send_all(fd, table + i, 16);
        expect(fd, t->type, table + i, 16);
        if (i % 2) {
            shutdown(fd, SHUT_WR);
            if (recv(fd, &byte, 1, 0) != 0)
                die("connection %u does not end", i);
        }
        close(fd);
    }
    printf("vsockd: %u connections opened and closed in %.1f s\n", n, seconds() - from);
}

/* What comes back is held against the table, from its place in the stream on. */
static void move(const struct target *t, uint64_t mib)
{
    uint64_t sent = 0, got = 0, all = mib << 20;
    static uint8_t in[MESSAGE];
    double from = seconds();
    int fd = open_one(t);

    while (got < all) {
        struct pollfd p = {fd, (short)(sent < all ? POLLIN | POLLOUT : POLLIN), 0};
        ssize_t n;

        if (poll(&p, 1, 60000) <= 0)
            die("nothing moves after %llu bytes", (unsigned long long)got);
        if (sent < all && (p.revents & POLLOUT)) {
            uint64_t left = all - sent;

            n = send(fd, table + sent % PRIME, left < MESSAGE ? left : MESSAGE,
                     MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n < 0 && errno != EAGAIN)
                die("%llu bytes were sent", (unsigned long long)sent);
            sent += n > 0 ? (uint64_t)n : 0;
            if (sent == all)
                shutdown(fd, SHUT_WR);
        }
        if (!(p.revents & (POLLIN | POLLHUP | POLLERR)))
            continue;
        n = recv(fd, in, sizeof(in), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            die("%llu bytes came back", (unsigned long long)got);
        if (n > 0 && ((uint64_t)n > sent - got || memcmp(in, table + got % PRIME, (size_t)n) != 0))
            die("what came back differs after %llu bytes", (unsigned long long)got);
        got += n > 0 ? (uint64_t)n : 0;
    }
    if (recv(fd, in, 1, 0) != 0)
        die("more came back than was sent");
    close(fd);
    printf("vsockd: %llu MiB each way, the same bytes, in %.1f s\n", (unsigned long long)mib,
           seconds() - from);
}

static uint32_t message_size(unsigned i)
{
    static const uint32_t edge[] = {1,    2,    3,    63,   64,    65,    4095,  4096,  4097,
                                    3776, 3777, 4052, 8191, 16384, 32767, 65535, 65536, 1};
    static uint64_t x = 0x9e3779b97f4a7c15ull;

    if (i < sizeof(edge) / sizeof(edge[0]))
        return edge[i];
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return 1 + (uint32_t)((x >> 20) % (MESSAGE >> x % 16));
}

/* Several are under way, but no more bytes of them than one message may have. */
static void messages(const struct target *t, unsigned n)
{
    uint32_t size[FLIGHT], next = message_size(0);
    unsigned sent = 0, got = 0;
    uint64_t bytes = 0, all = 0;
    int fd = open_one(t);

    while (got < n) {
        if (sent < n && sent - got < FLIGHT && (sent == got || bytes + next <= MESSAGE)) {
            if (send(fd, table + sent, next, MSG_NOSIGNAL) != (ssize_t)next)
                die("message %u, of %u bytes, cannot be sent", sent, next);
            bytes += next;
            all += next;
            size[sent++ % FLIGHT] = next;
            next = message_size(sent);
        } else {
            expect(fd, t->type, table + got, size[got % FLIGHT]);
            bytes -= size[got++ % FLIGHT];
        }
    }
    close(fd);
    printf("vsockd: %u messages of 1 to %u bytes, %llu KiB, each way, each one whole\n", n, MESSAGE,
           (unsigned long long)all >> 10);
}

static int later(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void trip(const struct target *t, unsigned n)
{
    double *took = calloc(n, sizeof(*took));
    int fd = open_one(t);

    for (unsigned i = 0; i < n; i++) {
        double from = seconds();

        send_all(fd, table + i % PRIME, 1);
        expect(fd, t->type, table + i % PRIME, 1);
        took[i] = seconds() - from;
    }
    qsort(took, n, sizeof(*took), later);
    printf("%.0f us\n", took[n / 2] * 1e6);
    free(took);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    uint64_t x = 88172645463325252ull;
    struct target t;
    unsigned n;

    for (size_t i = 0; i < sizeof(table); i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        table[i] = (uint8_t)(x >> 32);
    }
    /* The table repeats where it ends. */
    memcpy(table + PRIME, table, MESSAGE < PRIME ? MESSAGE : PRIME);
    for (size_t i = 2 * (size_t)PRIME; i < sizeof(table); i++)
        table[i] = table[i - PRIME];
    if (argc >= 4 && strcmp(what, "serve") == 0)
        serve(argc - 2, argv + 2);
    if (argc != 5) {
        fprintf(stderr, "usage: vsockd serve|many|churn|move|messages|trip TYPE ADDRESS [N]\n");
        return 2;
    }
    alarm(400); /* whoever waits for ever has failed */
    t = target(argv[2], argv[3]);
    n = (unsigned)strtoul(argv[4], NULL, 10);
    if (strcmp(what, "many") == 0)
        many(&t, n);
    else if (strcmp(what, "churn") == 0)
        churn(&t, n);
    else if (strcmp(what, "move") == 0)
        move(&t, n);
    else if (strcmp(what, "messages") == 0)
        messages(&t, n);
    else if (strcmp(what, "trip") == 0)
        trip(&t, n);
    else
        die("%s", what);
    return 0;
}
