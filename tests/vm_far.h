/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The far end of a machine's network, for tests: pairs of sockets as tn_vm_net takes them, and
 * frames that know their number.
 */
#ifndef TENON_VM_FAR_H
#define TENON_VM_FAR_H

#include "tn_vm_net.h"

#include <sys/socket.h>

#include "test.h"

#define FRAME   60u                  /* bytes of a frame, */
#define MESSAGE (TN_NET_HDR + FRAME) /* and with its header */

/* Both ends for a network of that kind. */
static inline void far_sockets(uint32_t kind, int end[2])
{
    if (kind == TN_VM_NET_STREAM)
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, end),
                         0);
    else
        assert_int_equal(tn_net_pair_sockets(end), 0);
}

/* Frame n: to everybody, with a number. */
static inline void frame_make(uint8_t frame[FRAME], uint32_t n)
{
    memset(frame, 0, FRAME);
    memset(frame, 0xff, 6);
    frame[6] = 2;
    tn_put_(frame + 14, 4, n);
    memset(frame + 18, (int)n, FRAME - 18);
}

/* The number of a frame, which is whole. */
static inline uint32_t frame_number(const uint8_t *frame)
{
    uint32_t n = (uint32_t)tn_get_(frame + 14, 4);
    uint8_t want[FRAME];

    frame_make(want, n);
    assert_memory_equal(frame, want, FRAME);
    return n;
}

/* Bytes of a message before its frame: on a stream a length instead of the header. */
static inline uint32_t far_before(uint32_t kind)
{
    return kind == TN_VM_NET_STREAM ? TN_NET_STREAM_LEN : TN_NET_HDR;
}

/* Sends frame n to the machine, if there is room. */
static inline bool far_send(int fd, uint32_t kind, uint32_t n)
{
    uint8_t bytes[MESSAGE] = {0};
    uint32_t before = far_before(kind);
    ssize_t sent;

    if (kind == TN_VM_NET_STREAM)
        bytes[before - 1] = FRAME;
    frame_make(bytes + before, n);
    sent = send(fd, bytes, before + FRAME, MSG_DONTWAIT | MSG_NOSIGNAL);
    assert_true(sent == before + FRAME || (sent < 0 && errno == EAGAIN));
    return sent > 0;
}

/* Takes one frame from the machine; its number, or -1: there is none, or not all of it. */
static inline int64_t far_take(int fd, uint32_t kind)
{
    uint32_t before = far_before(kind);
    uint8_t bytes[MESSAGE];
    ssize_t n = recv(fd, bytes, before + FRAME, MSG_DONTWAIT | MSG_PEEK);

    if (n < 0 && errno == EAGAIN)
        return -1;
    if (kind == TN_VM_NET_STREAM && n > 0 && n < before + FRAME)
        return -1;
    assert_int_equal(n, before + FRAME);
    assert_int_equal(recv(fd, bytes, before + FRAME, MSG_DONTWAIT), n);
    return frame_number(bytes + before);
}

#endif
