/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A network namespace of this process, for tests of what is on the kernel's interfaces, and the
 * host's side of those.
 */
#ifndef TENON_NETNS_H
#define TENON_NETNS_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test.h"

/* From now on this thread is in a new one. Returns NULL, or why there are no TAPs here. */
static inline const char *netns_new(void)
{
    int fd;

    if (unshare(CLONE_NEWNET) < 0)
        return "a network namespace cannot be made";
    fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return "/dev/net/tun is missing or may not be opened";
    close(fd);
    fd = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!write(fd, "1", 1); /* if not, it speaks by itself, and has to be passed over */
        close(fd);
    }
    return NULL;
}

static inline void up(const char *name, bool on)
{
    struct ifreq r = {0};
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    assert_true(s >= 0);
    snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
    assert_int_equal(ioctl(s, SIOCGIFFLAGS, &r), 0);
    r.ifr_flags = (short)(on ? r.ifr_flags | IFF_UP : r.ifr_flags & ~IFF_UP);
    if (ioctl(s, SIOCSIFFLAGS, &r) < 0)
        fail_msg("%s cannot be brought up or down: %s", name, strerror(errno));
    close(s);
}

/* Waits until frames pass. */
static inline void running(const char *name)
{
    struct ifreq r = {0};
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    assert_true(s >= 0);
    snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
    for (int tries = 0; tries < 5000 && !(r.ifr_flags & IFF_RUNNING); tries++, usleep(1000))
        assert_int_equal(ioctl(s, SIOCGIFFLAGS, &r), 0);
    assert_true(r.ifr_flags & IFF_RUNNING);
    close(s);
}

/* Removes an interface, as `ip link del` does. */
static inline void delete (const char *name)
{
    struct {
        struct nlmsghdr n;
        struct ifinfomsg i;
    } m = {{sizeof(m), RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0}, {0}};
    struct {
        struct nlmsghdr n;
        struct nlmsgerr e;
        uint8_t more[256];
    } answer;
    int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    assert_true(s >= 0);
    m.i.ifi_index = (int)if_nametoindex(name);
    assert_int_equal(send(s, &m, sizeof(m), 0), sizeof(m));
    assert_true(recv(s, &answer, sizeof(answer), 0) > 0);
    assert_int_equal(answer.e.error, 0);
    close(s);
}

/* A packet socket on an interface, whose frames have the header in front. */
static inline int host(const char *name)
{
    struct sockaddr_ll addr = {0};
    struct timeval limit = {2, 0};
    int one = 1, s = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));

    assert_true(s >= 0);
    addr.sll_family = AF_PACKET;
    addr.sll_protocol = htons(ETH_P_ALL);
    addr.sll_ifindex = (int)if_nametoindex(name);
    assert_int_equal(setsockopt(s, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)), 0);
    assert_int_equal(setsockopt(s, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)), 0);
    assert_int_equal(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
    assert_int_equal(bind(s, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return s;
}

#endif
