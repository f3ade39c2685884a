/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What every harness shares: a reader that turns the fuzzer's bytes into numbers (zeros once they
 * run out, so that every input is a valid script), and the assertion that marks a finding.
 */
#ifndef TENON_FUZZ_H
#define TENON_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FZ_ASSERT(cond)                                                                 \
    do {                                                                                \
        if (!(cond)) {                                                                  \
            fprintf(stderr, "%s:%d: property broken: %s\n", __FILE__, __LINE__, #cond); \
            abort();                                                                    \
        }                                                                               \
    } while (0)

struct fz {
    const uint8_t *data;
    size_t left;
};

static inline void fz_init(struct fz *z, const uint8_t *data, size_t size)
{
    z->data = data;
    z->left = size;
}

static inline uint64_t fz_take(struct fz *z, unsigned bytes)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < bytes && z->left > 0; i++, z->left--)
        v |= (uint64_t)*z->data++ << 8 * i;
    return v;
}

static inline uint8_t fz_u8(struct fz *z)
{
    return (uint8_t)fz_take(z, 1);
}

static inline uint16_t fz_u16(struct fz *z)
{
    return (uint16_t)fz_take(z, 2);
}

static inline uint32_t fz_u32(struct fz *z)
{
    return (uint32_t)fz_take(z, 4);
}

static inline uint64_t fz_u64(struct fz *z)
{
    return fz_take(z, 8);
}

/* A number in lo..hi, both included. */
static inline uint64_t fz_range(struct fz *z, uint64_t lo, uint64_t hi)
{
    uint64_t v = fz_take(z, hi - lo > 0xffff ? 8 : 2);

    return hi - lo == UINT64_MAX ? v : lo + v % (hi - lo + 1);
}

/* Copies up to len bytes; returns how many there were. */
static inline size_t fz_bytes(struct fz *z, void *dst, size_t len)
{
    size_t n = len < z->left ? len : z->left;

    if (n)
        memcpy(dst, z->data, n);
    z->data += n;
    z->left -= n;
    return n;
}

/* Edits count bytes of a record, which has at most 256, as somebody does who wants to break in. */
static inline void fz_spoil(struct fz *z, void *record, size_t len, unsigned count)
{
    uint8_t *byte = (uint8_t *)record;

    while (count-- > 0) {
        size_t at = fz_u8(z) % len;

        byte[at] = fz_u8(z);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
