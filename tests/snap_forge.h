/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Snapshots that no writer of ours makes: put together by hand from docs/snapshot-format.md, and
 * sealed again (every length and digest that can be made right is) after somebody changed them.
 * For the unit test and the fuzz harness of tn_snap. Offsets are numbers here, on purpose.
 */
#ifndef TENON_SNAP_FORGE_H
#define TENON_SNAP_FORGE_H

#include "tn_snap.h"

#include <string.h>

struct forge {
    uint8_t *buf;
    size_t cap;
    size_t len;
};

static inline void forge_begin(struct forge *f, uint8_t *buf, size_t cap)
{
    f->buf = buf;
    f->cap = cap;
    f->len = 32;
    memset(buf, 0, cap);
    memcpy(buf, "tenonsnp", 8);
    tn_put_(buf + 8, 4, 1);
}

/* Appends a section; does nothing when there is no room. */
static inline void forge_section(struct forge *f, uint32_t type, uint32_t instance,
                                 uint32_t version, uint32_t flags, const void *payload, size_t len)
{
    uint8_t *p = f->buf + f->len;

    if (f->cap - f->len < 56 || f->cap - f->len - 56 < len)
        return;
    tn_put_(p, 4, type);
    tn_put_(p + 4, 4, instance);
    tn_put_(p + 8, 4, version);
    tn_put_(p + 12, 4, flags);
    tn_put_(p + 16, 8, len);
    if (len > 0)
        memcpy(p + 56, payload, len);
    f->len += 56 + len;
    tn_put_(f->buf + 24, 4, tn_get_(f->buf + 24, 4) + 1);
}

/* The manifest; the digests in it come with forge_seal. */
static inline void forge_manifest(struct forge *f, uint64_t memory, uint32_t chunk)
{
    uint8_t payload[112] = {0};

    tn_put_(payload, 8, memory);
    tn_put_(payload + 8, 4, chunk);
    forge_section(f, 0xffffffff, 0, 1, 1, payload, sizeof(payload));
}

/*
 * Makes the file's length, its digests and its MAC right, as far as its sections can be followed.
 * What else is wrong stays wrong. With fit, a manifest's root is that of the section before it.
 */
static inline void forge_seal(uint8_t *p, size_t len, const struct tn_snap_key *key, bool fit)
{
    static const uint8_t none[32];
    const uint8_t *root = none;
    struct tn_sha256_hmac mac;
    struct tn_sha256 state, one;
    size_t end = len, at = 32;
    uint64_t n;

    if (len < 32)
        return;
    tn_put_(p + 16, 8, len);
    if (key) {
        if (len < 64)
            return;
        tn_put_(p + 12, 4, 1);
        end = len - 32;
    }
    tn_sha256_init(&state);
    tn_sha256_update(&state, p, 32);
    while (end - at >= 56) {
        n = tn_get_(p + at + 16, 8);
        if (n > end - at - 56)
            break;
        if (tn_get_(p + at, 4) == 0xffffffff && n >= 112) {
            struct tn_sha256 copy = state;

            if (fit)
                memcpy(p + at + 56 + 16, root, 32);
            tn_sha256_final(&copy, p + at + 56 + 80);
        }
        one = state; /* knows the CPU already: to ask it for each section is slow */
        tn_sha256_reset(&one);
        tn_sha256_update(&one, p + at + 56, (size_t)n);
        tn_sha256_final(&one, p + at + 24);
        tn_sha256_update(&state, p + at, 56);
        if (tn_get_(p + at, 4) == 0xfffffffe)
            root = p + at + 24;
        at += 56 + (size_t)n;
    }
    if (key) {
        tn_sha256_hmac_init(&mac, key->bytes, key->len);
        tn_sha256_hmac_update(&mac, p, end);
        tn_sha256_hmac_final(&mac, p + end);
    }
}

/* The end of a forged file; returns its length. */
static inline size_t forge_end(struct forge *f, const struct tn_snap_key *key)
{
    if (key && f->cap - f->len >= 32)
        f->len += 32;
    forge_seal(f->buf, f->len, key, true);
    return f->len;
}

#endif
