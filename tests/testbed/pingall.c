/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Sends an ICMP echo request of each size from 0 to 65507 bytes, and holds every byte of each
 * answer against what was sent. In: pingall ADDRESS MTU [SECONDS [SEED]]. Out: one line, exit 0; or
 * what is missing or differs, exit 1.
 *
 * First come those of 0 to 2000 bytes, those within 9 bytes of where another fragment of MTU bytes
 * begins, and the last 100; then the others, shuffled by SEED, as many as SECONDS are enough for
 * (0: all of them). A few are under way at a time, the next one when one is answered. Linux drops
 * an echo that it has no memory for: what is not answered is asked again, twice at most, and
 * counted.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SIZES   65508u
#define HEAD    8u     /* bytes of an ICMP header */
#define FLIGHT  16u    /* requests under way, at most, */
#define BYTES   32768u /* and their bytes, of more than one: Linux drops what it has no room for */
#define PATIENT 5000   /* ms until the next answer */
#define TRIES   3      /* of a size, */
#define LOST    16     /* and of all, those that are not the first */
#define PRIME   65521u

static uint8_t table[PRIME + SIZES];
static uint8_t out[HEAD + SIZES], in[60 + HEAD + SIZES];
static uint8_t asked[SIZES], answered[SIZES]; /* how often */

/* What a request of that size holds: no two have the same beginning. */
static const uint8_t *payload(uint32_t size)
{
    return table + (uint64_t)size * 40503u % PRIME;
}

static uint16_t checksum(const uint8_t *p, size_t len)
{
    uint64_t sum = 0;

    for (; len >= 8; len -= 8, p += 8) {
        uint64_t v;

        memcpy(&v, p, 8);
        sum += (uint32_t)v + (v >> 32);
    }
    for (size_t i = 0; i < len; i++)
        sum += (uint32_t)p[i] << i % 2 * 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* Sizes in the order in which they are sent; returns how many have to be. */
static uint32_t sort(uint32_t *order, uint32_t mtu, uint64_t seed)
{
    uint32_t part = (mtu - 20) / 8 * 8, first = 0, rest = SIZES;

    for (uint32_t size = 0; size < SIZES; size++) {
        if (size <= 2000 || size >= SIZES - 100 || (size + HEAD + 9) % part <= 18)
            order[first++] = size;
        else
            order[--rest] = size;
    }
    for (uint32_t i = SIZES; i-- > first + 1;) {
        uint32_t k, size = order[i];

        seed = seed * 6364136223846793005u + 1442695040888963407u;
        k = first + (uint32_t)(seed >> 33) % (i + 1 - first);
        order[i] = order[k];
        order[k] = size;
    }
    return first;
}

static long seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long)t.tv_sec;
}

static int fail(const char *what)
{
    perror(what);
    return 1;
}

static void request(int fd, uint32_t size, uint16_t id)
{
    uint16_t sum;

    memset(out, 0, HEAD);
    out[0] = 8;
    out[4] = (uint8_t)(id >> 8);
    out[5] = (uint8_t)id;
    out[6] = (uint8_t)(size >> 8);
    out[7] = (uint8_t)size;
    memcpy(out + HEAD, payload(size), size);
    sum = checksum(out, HEAD + size);
    memcpy(out + 2, &sum, 2);
    if (send(fd, out, HEAD + size, 0) != (ssize_t)(HEAD + size)) {
        fprintf(stderr, "pingall: %u bytes cannot be sent: %s\n", size, strerror(errno));
        exit(1);
    }
    asked[size]++;
}

/* Takes the next packet. Returns the size of the request that it answers; -1: it answers none. */
static int64_t answer(int fd, uint16_t id)
{
    ssize_t n = recv(fd, in, sizeof(in), 0);
    size_t head = (size_t)(in[0] & 15) * 4, len;
    const uint8_t *icmp = in + head;
    uint32_t size;

    if (n < (ssize_t)(head + HEAD) || icmp[0] != 0 || (icmp[4] << 8 | icmp[5]) != id)
        return -1;
    len = (size_t)n - head - HEAD;
    size = (uint32_t)icmp[6] << 8 | icmp[7];
    if (size >= SIZES || answered[size] >= asked[size])
        printf("pingall: there is an answer of %u bytes that is one too many\n", size);
    else if (len != size)
        printf("pingall: the answer to %u bytes has %zu\n", size, len);
    else if (checksum(icmp, HEAD + len) != 0)
        printf("pingall: the answer to %u bytes has a wrong checksum\n", size);
    else if (memcmp(icmp + HEAD, payload(size), size) != 0)
        printf("pingall: the answer to %u bytes has others\n", size);
    else
        return size;
    exit(1);
}

int main(int argc, char **argv)
{
    static uint32_t order[SIZES];
    uint32_t mtu = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0;
    long limit = argc > 3 ? strtol(argv[3], NULL, 10) : 0;
    uint64_t seed = argc > 4 ? strtoull(argv[4], NULL, 10) : 1;
    uint32_t flight = 0, bytes = 0, sent = 0, again = 0, least;
    uint16_t id = (uint16_t)getpid();
    struct sockaddr_in to = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP), room = 8 << 20;
    uint32_t only = ~1u; /* echo replies */
    uint64_t x = 88172645463325252ull;
    long begun;

    if (mtu < 68 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) {
        fprintf(stderr, "usage: pingall ADDRESS MTU [SECONDS [SEED]]\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof(table); i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        table[i] = (uint8_t)(x >> 32);
    }
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) < 0 ||
        setsockopt(fd, SOL_RAW, 1 /* ICMP_FILTER */, &only, sizeof(only)) < 0 ||
        connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0)
        return fail("pingall");
    least = sort(order, mtu, seed);
    begun = seconds();
    for (;;) {
        int more = sent < least || (sent < SIZES && (limit == 0 || seconds() - begun < limit));
        struct pollfd p = {fd, POLLIN, 0};
        int64_t size;

        if (!more && flight == 0)
            break;
        if (more && flight < FLIGHT && (flight == 0 || bytes + order[sent] <= BYTES)) {
            request(fd, order[sent], id);
            bytes += order[sent++];
            flight++;
        } else if (poll(&p, 1, PATIENT) <= 0) {
            for (uint32_t i = 0; i < SIZES; i++) {
                if (asked[i] == 0 || answered[i] > 0)
                    continue;
                if (asked[i] == TRIES || again == LOST) {
                    printf("pingall: no answer to %u bytes; %u sizes were sent, %u of them again\n",
                           i, sent, again);
                    return 1;
                }
                request(fd, i, id);
                again++;
            }
        } else if ((size = answer(fd, id)) >= 0 && answered[size]++ == 0) {
            bytes -= (uint32_t)size;
            flight--;
        }
    }
    printf("pingall: of %u sizes %u, each echoed byte for byte, %u asked again, in %ld s (seed "
           "%llu)\n",
           SIZES, sent, again, seconds() - begun, (unsigned long long)seed);
    return 0;
}
