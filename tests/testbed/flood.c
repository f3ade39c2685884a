/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * How many small datagrams a second arrive, whose sender sends as fast as it can.
 * Usage: flood serve               answers at UDP port 5300, for ever
 *        flood to ADDRESS MS       sends to it for so many milliseconds
 *        flood from ADDRESS MS     has it send
 * Prints datagrams a second. Both ends' own words begin with '?', what is counted with 'x'.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT 5300
#define SIZE 64

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void blast(int s, const struct sockaddr_in *to, double seconds)
{
    char bytes[SIZE] = "x";

    for (double end = now() + seconds; now() < end;)
        sendto(s, bytes, SIZE, 0, (const struct sockaddr *)to, sizeof(*to));
}

/* "?": how many came since the last time. "?SECONDS": sends as long. */
static void serve(int s)
{
    unsigned long count = 0;

    for (;;) {
        char bytes[SIZE + 1] = "";
        struct sockaddr_in from;
        socklen_t len = sizeof(from);
        ssize_t n = recvfrom(s, bytes, SIZE, 0, (struct sockaddr *)&from, &len);

        if (n > 0 && bytes[0] == 'x') {
            count++;
        } else if (n > 1) {
            blast(s, &from, atof(bytes + 1));
        } else if (n == 1) {
            int size = snprintf(bytes, sizeof(bytes), "?%lu", count);

            sendto(s, bytes, (size_t)size, 0, (struct sockaddr *)&from, len);
            count = 0;
        }
    }
}

/* What came since the last time; asks until there is an answer. */
static long ask(int s)
{
    char bytes[SIZE + 1] = "";

    for (int i = 0; i < 100; i++) {
        send(s, "?", 1, 0);
        while (recv(s, bytes, SIZE, 0) > 0)
            if (bytes[0] == '?')
                return atol(bytes + 1);
    }
    return -1;
}

int main(int argc, char **argv)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    struct timeval patience = {.tv_usec = 500000};
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    double seconds = argc > 3 ? atof(argv[3]) / 1000 : 0, start, end;
    long count = 0;
    char bytes[SIZE];

    if (argc == 2 && bind(s, (struct sockaddr *)&at, sizeof(at)) == 0)
        serve(s);
    if (argc != 4 || !inet_aton(argv[2], &at.sin_addr) ||
        connect(s, (struct sockaddr *)&at, sizeof(at)) < 0)
        return 2;
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (ask(s) < 0)
        return 1;
    start = end = now();
    if (strcmp(argv[1], "to") == 0) {
        blast(s, &at, seconds);
        end = now();
        count = ask(s);
    } else {
        int n = snprintf(bytes, sizeof(bytes), "?%f", seconds + 0.2);

        send(s, bytes, (size_t)n, 0);
        while (recv(s, bytes, SIZE, 0) == SIZE && (end = now()) < start + seconds)
            count++;
    }
    if (count <= 0)
        return 1;
    printf("%.0f\n", (double)count / (end - start));
    return 0;
}
