/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Copies standard input to standard output, no faster than so many bytes a second. BURST bytes, or
 * what comes in one second, may pass at once.
 *
 *   rate 1000000 <image >/dev/ttyUSB0
 */
#include "tn_rate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * TN_RATE_SECOND + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t ns)
{
    struct timespec t = {(time_t)(ns / TN_RATE_SECOND), (long)(ns % TN_RATE_SECOND)};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        continue;
}

static int write_all(const uint8_t *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDOUT_FILENO, bytes, len);

        if (n < 0 && errno != EINTR)
            return -1;
        if (n > 0) {
            bytes += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

static int copy(struct tn_rate *rate, size_t chunk)
{
    static uint8_t bytes[65536];
    ssize_t n;

    for (;;) {
        n = read(STDIN_FILENO, bytes, chunk < sizeof(bytes) ? chunk : sizeof(bytes));
        if (n == 0)
            return 0;
        if (n < 0) {
            if (errno == EINTR)
                continue;
            fprintf(stderr, "rate: standard input: %s\n", strerror(errno));
            return 1;
        }
        for (;;) {
            uint64_t at = now(), wait = tn_rate_take(rate, at, (uint64_t)n);

            if (wait == 0)
                break;
            sleep_until(wait > UINT64_MAX - at ? UINT64_MAX : at + wait);
        }
        if (write_all(bytes, (size_t)n) < 0) {
            fprintf(stderr, "rate: standard output: %s\n", strerror(errno));
            return 1;
        }
    }
}

/* A decimal number above 0, or 0. */
static uint64_t number(const char *text)
{
    char *end;
    uintmax_t value;

    errno = 0;
    value = strtoumax(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == 0 && errno == 0 ? value : 0;
}

int main(int argc, char **argv)
{
    struct tn_rate_cfg cfg = {0, 0, 0, 0};
    struct tn_rate rate;
    bool help = argc == 2 && strcmp(argv[1], "--help") == 0;

    if (argc >= 2)
        cfg.bytes_per_s = number(argv[1]);
    if (argc == 3)
        cfg.bytes_burst = number(argv[2]);
    if (cfg.bytes_per_s == 0 || argc > 3 || (argc == 3 && cfg.bytes_burst == 0)) {
        fprintf(help ? stdout : stderr, "usage: rate BYTES_PER_S [BURST] <input >output\n"
                                        "Copies standard input to standard output, no faster.\n");
        return help ? 0 : 2;
    }
    if (tn_rate_init(&rate, &cfg, now()) < 0)
        return 1;
    return copy(&rate, rate.bytes.burst < 65536 ? (size_t)rate.bytes.burst : 65536);
}
