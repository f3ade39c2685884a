/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What every test_X.c includes after its own header: cmocka, with the headers that it wants first,
 * and the few helpers that several tests share.
 */
#ifndef TENON_TEST_H
#define TENON_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Ends a test that can't run here; tests/run.sh shows the reason with the test's name. */
#define SKIP(reason)                         \
    do {                                     \
        printf("# skipped: %s\n", (reason)); \
        fflush(stdout);                      \
        skip();                              \
    } while (0)

#ifdef _WIN32
/* There is none, and no test needs more than malloc's 16 bytes of alignment. */
#define aligned_alloc(align, size) malloc(size)
#endif

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Whether qemu-user runs this, as tests/cross/target says: it has no use for some of Linux. */
static inline bool test_emulated(void)
{
    return getenv("TENON_EMULATED") != NULL;
}

/* The most that a test may map, without touching it: qemu-user takes memory for each page. */
static inline uint64_t test_most(void)
{
    return test_emulated() ? 1ull << 33 : SIZE_MAX / 2;
}

/* xorshift64*: the same numbers on every run and every host. */
static inline uint64_t test_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

/* A copy on the heap of exactly len bytes, so that a sanitizer sees one byte too many. */
static inline uint8_t *test_exact(const void *bytes, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);

    if (!copy)
        abort();
    if (len)
        memcpy(copy, bytes, len);
    return copy;
}

/* A little-endian number of n bytes. */
static inline uint64_t test_le(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < n; i++)
        v |= (uint64_t)p[i] << 8 * i;
    return v;
}

/* The checksum of firmware tables: 0 when it is right. */
static inline unsigned test_sum(const uint8_t *p, size_t n)
{
    unsigned s = 0;

    for (size_t i = 0; i < n; i++)
        s += p[i];
    return s % 256;
}

#endif
