/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Programs on the host, as far as tests need them: Unix sockets that connect, listen, say and hear.
 * None of them waits.
 */
#ifndef TENON_UNIX_SOCKET_H
#define TENON_UNIX_SOCKET_H

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "test.h"

static inline int unix_socket(int type)
{
    int fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    return fd;
}

static inline struct sockaddr_un unix_address(const char *path)
{
    struct sockaddr_un at;

    memset(&at, 0, sizeof(at));
    at.sun_family = AF_UNIX;
    assert_true((size_t)snprintf(at.sun_path, sizeof(at.sun_path), "%s", path) <
                sizeof(at.sun_path));
    return at;
}

/* A socket that is connected to a path. */
static inline int unix_dial(const char *path, int type)
{
    struct sockaddr_un at = unix_address(path);
    int fd = unix_socket(type);

    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    return fd;
}

/* One that listens there. */
static inline int unix_listener(const char *path, int type, int backlog)
{
    struct sockaddr_un at = unix_address(path);
    int fd = unix_socket(type);

    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(fd, backlog), 0);
    return fd;
}

static inline void say(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* What can be read now, with a zero behind it; -1: nothing, 0: the end. */
static inline ssize_t hear(int fd, char *buf, size_t len)
{
    ssize_t n = read(fd, buf, len - 1);

    if (n < 0 && errno == ECONNRESET)
        n = 0;
    if (n < 0)
        assert_int_equal(errno, EAGAIN);
    buf[n > 0 ? n : 0] = 0;
    return n;
}

#endif
