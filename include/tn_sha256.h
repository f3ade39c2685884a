/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_sha256 - SHA-256 and HMAC-SHA-256 of bytes that come in pieces.
 *
 * WHAT
 *   The hash of FIPS 180-4 and the keyed MAC of FIPS 198-1, with the SHA instructions of x86-64
 *   where the CPU has them and in plain C elsewhere, and a comparison that takes the same time
 *   whatever it finds. The digests of many chunks are made side by side: 16 with AVX-512, otherwise
 *   two with the SHA instructions.
 *
 * USAGE
 *   const uint8_t key[16] = {1, 2, 3};
 *   uint8_t digest[TN_SHA256_LEN], mac[TN_SHA256_LEN];
 *   struct tn_sha256_hmac h;
 *   struct tn_sha256 s;
 *
 *   tn_sha256_init(&s);
 *   tn_sha256_update(&s, (const uint8_t *)"ab", 2);
 *   tn_sha256_update(&s, (const uint8_t *)"c", 1);
 *   tn_sha256_final(&s, digest);
 *   tn_sha256_hmac_init(&h, key, sizeof(key));
 *   tn_sha256_hmac_update(&h, digest, sizeof(digest));
 *   tn_sha256_hmac_final(&h, mac);
 *   if (tn_sha256_equal(digest, mac))
 *       return 1;
 *
 * COMPOSITION
 *   tn_snap's digests and MAC are made with it.
 *
 * GUEST TRUST
 *   Any bytes may be hashed. Time depends on their number only, in all forms of the code.
 *
 * MEMORY
 *   struct tn_sha256 is all there is; it may be copied, and so hashed on from in two ways. A
 *   struct tn_sha256_hmac holds what is as good as the key, until tn_sha256_hmac_final clears it.
 *
 * THREADS
 *   One call at a time on one struct.
 *
 * CONFIG
 *   TN_SHA256_PORTABLE: plain C only, for code that must not touch vector registers. Compiled with
 *   -msha -msse4.1, the SHA instructions are used without asking for them, and AVX-512 only with
 *   -mavx512f.
 *
 * SPEC
 *   FIPS 180-4: 4.1.2 functions, 4.2.2 constants, 5.1.1 padding, 5.3.3 initial value, 6.2.2
 *   computation. FIPS 198-1 (and RFC 2104): section 4.
 *
 * LIMITS
 *   A message is below 2^61 bytes. Other than plain C needs gcc 12 or clang to compile. The
 *   init functions ask CPUID three times, which takes some microseconds inside a virtual machine:
 *   hash many small things with one struct, which tn_sha256_final makes ready for the next.
 */
#ifndef TN_SHA256_H
#define TN_SHA256_H

/* -- tenon common block: the same bytes in every header (make check-common) -- */
/* clang-format off */
#ifndef TN_COMMON
#define TN_COMMON
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#if !defined(TN_API) && defined(TN_DECL_ONLY)
#define TN_API extern
#elif !defined(TN_API)
#define TN_API static inline
#endif
enum tn_err { TN_OK = 0, /* or a useful positive value; tn_strerror.h has a sentence for each */
    /* the caller's fault */ TN_EINVAL = -1, TN_ENOSPC = -2, TN_ESTATE = -3, TN_EEXIST = -4,
    /* the guest's, or a file's */ TN_EADDR = -32, TN_EFORMAT = -33, TN_ETRUNC = -34,
    TN_ERANGE = -35, TN_EOVERLAP = -36, TN_EMACHINE = -37, TN_EENTRY = -38, TN_ENOFIT = -39,
    TN_EUNSUP = -40, TN_EPROTO = -41, /* the environment's; errno tells */ TN_ESYS = -64,
    TN_EAGAIN = -65, TN_ENODEV = -66, /* ours */ TN_EBUG = -96 };
struct tn_iov { uint8_t *base; size_t len; }; /* memory in this process; as struct iovec */
/*@ requires n <= 8 && \valid_read(p + (0 .. n - 1)); assigns \nothing; */
static inline uint64_t tn_get_(const volatile uint8_t *p, unsigned n) /* little-endian load */
{
    uint64_t v = 0;
    /*@ loop invariant n <= \at(n, Pre); loop assigns n, v; loop variant n; */
    while (n > 0) v = v << 8 | p[--n];
    return v;
}
/*@ requires n <= 8 && \valid(p + (0 .. n - 1)); assigns p[0 .. n - 1]; */
static inline void tn_put_(uint8_t *p, unsigned n, uint64_t v) /* little-endian store */
{
    /*@ loop invariant i <= n; loop assigns i, p[0 .. n - 1]; loop variant n - i; */
    for (unsigned i = 0; i < n; i++) p[i] = (uint8_t)(v >> 8 * i);
}
#endif /* TN_COMMON */
/* clang-format on */

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_SHA256_LEN   32u /* bytes of a digest, and of a MAC */
#define TN_SHA256_BLOCK 64u /* bytes that are hashed at a time */

/* A hash under way. */
struct tn_sha256 {
    uint32_t h[8];                  /* H(i): the hash of the whole blocks so far */
    uint64_t len;                   /* bytes so far */
    uint8_t block[TN_SHA256_BLOCK]; /* the last len % 64 of them */
    bool instructions;              /* the CPU has the SHA instructions */
    bool vectors;                   /* it has AVX-512 */
};

struct tn_sha256_hmac {
    struct tn_sha256 inner;
    struct tn_sha256 outer;
};

/*@ logic integer tn_sha256_count(integer len, integer chunk) =
      len / chunk + (len % chunk > 0 ? 1 : 0); */

/*
 * Starts a hash; asks the CPU what it can do.
 */
TN_API void tn_sha256_init(struct tn_sha256 *s);

/*
 * Starts a new hash with a struct that was initialised once.
 */
/*@ requires \valid(s);
    assigns s->h[0 .. 7], s->len;
    ensures s->len == 0;
    ensures s->h[0] == 0x6a09e667 && s->h[1] == 0xbb67ae85 && s->h[2] == 0x3c6ef372 &&
      s->h[3] == 0xa54ff53a && s->h[4] == 0x510e527f && s->h[5] == 0x9b05688c &&
      s->h[6] == 0x1f83d9ab && s->h[7] == 0x5be0cd19; */
TN_API void tn_sha256_reset(struct tn_sha256 *s);

/*
 * Hashes len bytes more. Where the pieces of a message are cut does not matter.
 */
/*@ requires \valid(s) && \valid_read(bytes + (0 .. len - 1));
    requires \separated(s, bytes + (0 .. len - 1));
    requires s->len + len < 0x2000000000000000;
    assigns s->h[0 .. 7], s->len, s->block[0 .. 63];
    ensures s->len == \old(s->len) + len;
    ensures \old(s->len) % 64 + len < 64 ==>
      (\forall integer i; 0 <= i < \old(s->len) % 64 ==> s->block[i] == \old(s->block[i])) &&
      (\forall integer i; 0 <= i < len ==> s->block[\old(s->len) % 64 + i] == bytes[i]);
    ensures \old(s->len) % 64 + len >= 64 ==>
      (\forall integer i; 0 <= i < s->len % 64 ==> s->block[i] == bytes[len - s->len % 64 + i]); */
TN_API void tn_sha256_update(struct tn_sha256 *s, const uint8_t *bytes, size_t len);

/*
 * The digest; s is as after tn_sha256_reset.
 */
/*@ requires \valid(s) && \valid(digest + (0 .. 31)) && \separated(s, digest + (0 .. 31));
    requires s->len < 0x2000000000000000;
    assigns s->h[0 .. 7], s->len, digest[0 .. 31];
    ensures s->len == 0; */
TN_API void tn_sha256_final(struct tn_sha256 *s, uint8_t digest[TN_SHA256_LEN]);

/*
 * All of it for bytes that are in one piece.
 */
TN_API void tn_sha256_of(const uint8_t *bytes, size_t len, uint8_t digest[TN_SHA256_LEN]);

/*
 * The digests of the chunks of len bytes, one behind the other: each is of chunk bytes, above 0,
 * but the last of what is left. Many take less time than one after the other. s was initialised
 * once; it is only read, to know what the CPU can do.
 */
/*@ requires \valid_read(s) && 0 < chunk && len < 0x100000000000000;
    requires \valid_read(bytes + (0 .. len - 1));
    requires \valid(digests + (0 .. 32 * tn_sha256_count(len, chunk) - 1));
    requires \separated(digests + (0 .. 32 * tn_sha256_count(len, chunk) - 1), s,
      bytes + (0 .. len - 1));
    assigns digests[0 .. 32 * tn_sha256_count(len, chunk) - 1]; */
TN_API void tn_sha256_chunks(const struct tn_sha256 *s, const uint8_t *bytes, size_t len,
                             size_t chunk, uint8_t *digests);

/*
 * HMAC-SHA-256 under a key of any length: 32 bytes of it are enough, below 16 are too few to be
 * secret. final clears the struct. (FIPS 198-1, section 4)
 */
TN_API void tn_sha256_hmac_init(struct tn_sha256_hmac *m, const uint8_t *key, size_t len);
TN_API void tn_sha256_hmac_update(struct tn_sha256_hmac *m, const uint8_t *bytes, size_t len);
TN_API void tn_sha256_hmac_final(struct tn_sha256_hmac *m, uint8_t mac[TN_SHA256_LEN]);

/*
 * Whether two digests are equal, in a time that does not tell where they differ.
 */
/*@ requires \valid_read(a + (0 .. 31)) && \valid_read(b + (0 .. 31));
    assigns \nothing;
    ensures \result != 0 <==> (\forall integer i; 0 <= i < 32 ==> a[i] == b[i]); */
TN_API bool tn_sha256_equal(const uint8_t a[TN_SHA256_LEN], const uint8_t b[TN_SHA256_LEN]);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#if defined(__x86_64__) && !defined(TN_SHA256_PORTABLE) && !defined(__FRAMAC__) && \
    (defined(__clang__) || __GNUC__ >= 12)
#define TN_SHA256_X86_ 1
#endif

/* The constants K of 4.2.2. */
static const uint32_t tn_sha256_k_[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

/*@ requires 1 <= n <= 31;
    assigns \nothing; */
static inline uint32_t tn_sha256_rotr_(uint32_t x, unsigned n)
{
    return x >> n | x << (32 - n);
}

/* Hashes n blocks, in plain C. (6.2.2) */
/*@ requires \valid(h + (0 .. 7)) && \valid_read(p + (0 .. 64 * n - 1)) && n <= 0x3ffffffffffffff;
    requires \separated(h + (0 .. 7), p + (0 .. 64 * n - 1));
    assigns h[0 .. 7]; */
static inline void tn_sha256_blocks_c_(uint32_t h[8], const uint8_t *p, size_t n)
{
    uint32_t w[64], v[8], t1, t2;

    /*@ loop invariant n <= \at(n, Pre) && p == \at(p, Pre) + 64 * (\at(n, Pre) - n);
        loop assigns n, p, h[0 .. 7], w[0 .. 63], v[0 .. 7], t1, t2;
        loop variant n; */
    for (; n > 0; n--, p += 64) {
        /*@ loop invariant 0 <= i <= 16;
            loop assigns i, w[0 .. 63];
            loop variant 16 - i; */
        for (unsigned i = 0; i < 16; i++)
            w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 |
                   (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
        /*@ loop invariant 16 <= i <= 64;
            loop assigns i, t1, t2, w[0 .. 63];
            loop variant 64 - i; */
        for (unsigned i = 16; i < 64; i++) {
            t1 = tn_sha256_rotr_(w[i - 15], 7) ^ tn_sha256_rotr_(w[i - 15], 18) ^ w[i - 15] >> 3;
            t2 = tn_sha256_rotr_(w[i - 2], 17) ^ tn_sha256_rotr_(w[i - 2], 19) ^ w[i - 2] >> 10;
            w[i] = w[i - 16] + t1 + w[i - 7] + t2;
        }
        /*@ loop invariant 0 <= i <= 8;
            loop assigns i, v[0 .. 7];
            loop variant 8 - i; */
        for (unsigned i = 0; i < 8; i++)
            v[i] = h[i];
        /*@ loop invariant 0 <= i <= 64;
            loop assigns i, t1, t2, v[0 .. 7];
            loop variant 64 - i; */
        for (unsigned i = 0; i < 64; i++) {
            t1 = tn_sha256_rotr_(v[4], 6) ^ tn_sha256_rotr_(v[4], 11) ^ tn_sha256_rotr_(v[4], 25);
            t1 += v[7] + (v[6] ^ (v[4] & (v[5] ^ v[6]))) + tn_sha256_k_[i] + w[i];
            t2 = tn_sha256_rotr_(v[0], 2) ^ tn_sha256_rotr_(v[0], 13) ^ tn_sha256_rotr_(v[0], 22);
            t2 += (v[0] & v[1]) | (v[2] & (v[0] | v[1]));
            v[7] = v[6];
            v[6] = v[5];
            v[5] = v[4];
            v[4] = v[3] + t1;
            v[3] = v[2];
            v[2] = v[1];
            v[1] = v[0];
            v[0] = t1 + t2;
        }
        /*@ loop invariant 0 <= i <= 8;
            loop assigns i, h[0 .. 7];
            loop variant 8 - i; */
        for (unsigned i = 0; i < 8; i++)
            h[i] += v[i];
    }
}

#ifdef TN_SHA256_X86_
typedef int tn_sha256_int_ __attribute__((vector_size(16))); /* what the compilers' builtins take */
typedef uint32_t tn_sha256_v4_ __attribute__((vector_size(16)));
typedef char tn_sha256_v16_ __attribute__((vector_size(16)));
#define TN_SHA256_TARGET_ __attribute__((target("sha,sse4.1,ssse3")))

/* Whether the CPU has SHA, SSE4.1 and SSSE3; and AVX-512F, which the kernel also has to allow. */
static inline void tn_sha256_ask_cpu_(struct tn_sha256 *s)
{
    uint32_t a = 0, b, c = 0, d, features, xcr0 = 0;

    s->instructions = s->vectors = false;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (a < 7)
        return;
    a = 1;
    c = 0;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    features = c;
    a = 7;
    c = 0;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    s->instructions =
        (b & 1u << 29) != 0 && (features & 1u << 9) != 0 && (features & 1u << 19) != 0;
    if ((features & 1u << 27) != 0) /* there is XGETBV */
        __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(d) : "c"(0));
    s->vectors = (b & 1u << 16) != 0 && (xcr0 & 0xe6) == 0xe6;
}

/* Four words of the message, which is big-endian. */
TN_SHA256_TARGET_ static inline tn_sha256_v4_ tn_sha256_load_(const uint8_t *p)
{
    tn_sha256_v16_ v;

    __builtin_memcpy(&v, p, 16);
    return (tn_sha256_v4_)__builtin_shufflevector(v, v, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15,
                                                  14, 13, 12);
}

/* Four rounds: those of the words w, whose constants are at k. */
TN_SHA256_TARGET_ static inline void tn_sha256_rounds_(tn_sha256_v4_ *abef, tn_sha256_v4_ *cdgh,
                                                       tn_sha256_v4_ w, const uint32_t *k)
{
    tn_sha256_v4_ wk;

    __builtin_memcpy(&wk, k, 16);
    wk += w;
    *cdgh = (tn_sha256_v4_)__builtin_ia32_sha256rnds2((tn_sha256_int_)*cdgh, (tn_sha256_int_)*abef,
                                                      (tn_sha256_int_)wk);
    wk = __builtin_shufflevector(wk, wk, 2, 3, 2, 3);
    *abef = (tn_sha256_v4_)__builtin_ia32_sha256rnds2((tn_sha256_int_)*abef, (tn_sha256_int_)*cdgh,
                                                      (tn_sha256_int_)wk);
}

/* The four words of the schedule that follow w0 to w3. */
TN_SHA256_TARGET_ static inline tn_sha256_v4_ tn_sha256_next_(tn_sha256_v4_ w0, tn_sha256_v4_ w1,
                                                              tn_sha256_v4_ w2, tn_sha256_v4_ w3)
{
    w0 = (tn_sha256_v4_)__builtin_ia32_sha256msg1((tn_sha256_int_)w0, (tn_sha256_int_)w1);
    w0 += __builtin_shufflevector(w2, w3, 1, 2, 3, 4);
    return (tn_sha256_v4_)__builtin_ia32_sha256msg2((tn_sha256_int_)w0, (tn_sha256_int_)w3);
}

/* A hash under way: the instructions hold its state as two vectors of their own. */
struct tn_sha256_x86_ {
    tn_sha256_v4_ abef, cdgh;     /* after the rounds so far */
    tn_sha256_v4_ abef0, cdgh0;   /* before the block */
    tn_sha256_v4_ w0, w1, w2, w3; /* the words of the next 16 rounds */
};

TN_SHA256_TARGET_ static inline void tn_sha256_get_(struct tn_sha256_x86_ *x, const uint32_t h[8])
{
    tn_sha256_v4_ abcd, efgh;

    __builtin_memcpy(&abcd, h, 16);
    __builtin_memcpy(&efgh, h + 4, 16);
    x->abef = __builtin_shufflevector(abcd, efgh, 5, 4, 1, 0);
    x->cdgh = __builtin_shufflevector(abcd, efgh, 7, 6, 3, 2);
}

TN_SHA256_TARGET_ static inline void tn_sha256_put_(const struct tn_sha256_x86_ *x, uint32_t h[8])
{
    tn_sha256_v4_ abcd = __builtin_shufflevector(x->abef, x->cdgh, 3, 2, 7, 6);
    tn_sha256_v4_ efgh = __builtin_shufflevector(x->abef, x->cdgh, 1, 0, 5, 4);

    __builtin_memcpy(h, &abcd, 16);
    __builtin_memcpy(h + 4, &efgh, 16);
}

TN_SHA256_TARGET_ static inline void tn_sha256_block_begin_(struct tn_sha256_x86_ *x,
                                                            const uint8_t *p)
{
    x->abef0 = x->abef;
    x->cdgh0 = x->cdgh;
    x->w0 = tn_sha256_load_(p);
    x->w1 = tn_sha256_load_(p + 16);
    x->w2 = tn_sha256_load_(p + 32);
    x->w3 = tn_sha256_load_(p + 48);
}

/* Rounds i to i + 15 of a block, and the words of those that follow. */
TN_SHA256_TARGET_ static inline void tn_sha256_sixteen_(struct tn_sha256_x86_ *x, unsigned i)
{
    tn_sha256_rounds_(&x->abef, &x->cdgh, x->w0, tn_sha256_k_ + i);
    tn_sha256_rounds_(&x->abef, &x->cdgh, x->w1, tn_sha256_k_ + i + 4);
    tn_sha256_rounds_(&x->abef, &x->cdgh, x->w2, tn_sha256_k_ + i + 8);
    tn_sha256_rounds_(&x->abef, &x->cdgh, x->w3, tn_sha256_k_ + i + 12);
    if (i < 48) {
        x->w0 = tn_sha256_next_(x->w0, x->w1, x->w2, x->w3);
        x->w1 = tn_sha256_next_(x->w1, x->w2, x->w3, x->w0);
        x->w2 = tn_sha256_next_(x->w2, x->w3, x->w0, x->w1);
        x->w3 = tn_sha256_next_(x->w3, x->w0, x->w1, x->w2);
    }
}

TN_SHA256_TARGET_ static inline void tn_sha256_block_end_(struct tn_sha256_x86_ *x)
{
    x->abef += x->abef0;
    x->cdgh += x->cdgh0;
}

TN_SHA256_TARGET_ static inline void tn_sha256_blocks_x86_(uint32_t h[8], const uint8_t *p,
                                                           size_t n)
{
    struct tn_sha256_x86_ x;

    tn_sha256_get_(&x, h);
    for (; n > 0; n--, p += 64) {
        tn_sha256_block_begin_(&x, p);
        for (unsigned i = 0; i < 64; i += 16)
            tn_sha256_sixteen_(&x, i);
        tn_sha256_block_end_(&x);
    }
    tn_sha256_put_(&x, h);
}

/* n blocks of each of two messages: while one waits for a result, the other goes on. */
TN_SHA256_TARGET_ static inline void tn_sha256_two_x86_(struct tn_sha256 two[2], const uint8_t *p,
                                                        size_t stride, size_t n)
{
    struct tn_sha256_x86_ x, y;

    tn_sha256_get_(&x, two[0].h);
    tn_sha256_get_(&y, two[1].h);
    for (; n > 0; n--, p += 64) {
        tn_sha256_block_begin_(&x, p);
        tn_sha256_block_begin_(&y, p + stride);
        for (unsigned i = 0; i < 64; i += 16) {
            tn_sha256_sixteen_(&x, i);
            tn_sha256_sixteen_(&y, i);
        }
        tn_sha256_block_end_(&x);
        tn_sha256_block_end_(&y);
    }
    tn_sha256_put_(&x, two[0].h);
    tn_sha256_put_(&y, two[1].h);
}

typedef uint32_t tn_sha256_row_ __attribute__((vector_size(64))); /* a word of 16 messages */
#define TN_SHA256_TARGET_16_  __attribute__((target("avx512f")))
#define TN_SHA256_ROTR_(x, n) ((x) >> (n) | (x) << (32 - (n)))

/* Two rows, of which the half exchange places whose columns' number has or has not the bit d. */
#define TN_SHA256_EVEN_(i, d) ((i) & (d) ? 16 + (i) - (d) : (i))
#define TN_SHA256_ODD_(i, d)  ((i) & (d) ? 16 + (i) : (i) + (d))
#define TN_SHA256_MIX_(x, y, of, d)                                                           \
    __builtin_shufflevector(x, y, of(0, d), of(1, d), of(2, d), of(3, d), of(4, d), of(5, d), \
                            of(6, d), of(7, d), of(8, d), of(9, d), of(10, d), of(11, d),     \
                            of(12, d), of(13, d), of(14, d), of(15, d))
#define TN_SHA256_TRANSPOSE_(w, d)                                                          \
    _Pragma("GCC unroll 16") for (unsigned i = 0; i < 16; i++)                              \
    {                                                                                       \
        if ((i & (d)) == 0) {                                                               \
            tn_sha256_row_ even = TN_SHA256_MIX_((w)[i], (w)[i | (d)], TN_SHA256_EVEN_, d); \
                                                                                            \
            (w)[i | (d)] = TN_SHA256_MIX_((w)[i], (w)[i | (d)], TN_SHA256_ODD_, d);         \
            (w)[i] = even;                                                                  \
        }                                                                                   \
    }

/* The 16 words of a block, each of 16 messages that are stride bytes apart. */
TN_SHA256_TARGET_16_ static inline void tn_sha256_rows_(tn_sha256_row_ w[16], const uint8_t *p,
                                                        size_t stride)
{
#pragma GCC unroll 16
    for (unsigned i = 0; i < 16; i++)
        __builtin_memcpy(&w[i], p + i * stride, 64);
    TN_SHA256_TRANSPOSE_(w, 1)
    TN_SHA256_TRANSPOSE_(w, 2)
    TN_SHA256_TRANSPOSE_(w, 4)
    TN_SHA256_TRANSPOSE_(w, 8)
#pragma GCC unroll 16
    for (unsigned i = 0; i < 16; i++) /* they are big-endian */
        w[i] = (TN_SHA256_ROTR_(w[i], 8) & 0xff00ff00u) | (TN_SHA256_ROTR_(w[i], 24) & 0x00ff00ffu);
}

/* n blocks of each of 16 messages, as tn_sha256_blocks_c_ does it. */
TN_SHA256_TARGET_16_ static inline void tn_sha256_16_x86_(struct tn_sha256 lane[16],
                                                          const uint8_t *p, size_t stride, size_t n)
{
    tn_sha256_row_ h[8], v[8], w[16], t1, t2;

    for (unsigned i = 0; i < 128; i++)
        h[i / 16][i % 16] = lane[i % 16].h[i / 16];
    for (; n > 0; n--, p += 64) {
        tn_sha256_rows_(w, p, stride);
        for (unsigned i = 0; i < 8; i++)
            v[i] = h[i];
        for (unsigned k = 0; k < 64; k += 16) {
#pragma GCC unroll 16
            for (unsigned i = 0; i < 16; i++) {
                t1 = TN_SHA256_ROTR_(v[4], 6) ^ TN_SHA256_ROTR_(v[4], 11) ^
                     TN_SHA256_ROTR_(v[4], 25);
                t1 += v[7] + (v[6] ^ (v[4] & (v[5] ^ v[6]))) + tn_sha256_k_[k + i] + w[i];
                t2 = TN_SHA256_ROTR_(v[0], 2) ^ TN_SHA256_ROTR_(v[0], 13) ^
                     TN_SHA256_ROTR_(v[0], 22);
                t2 += (v[0] & v[1]) | (v[2] & (v[0] | v[1]));
                v[7] = v[6];
                v[6] = v[5];
                v[5] = v[4];
                v[4] = v[3] + t1;
                v[3] = v[2];
                v[2] = v[1];
                v[1] = v[0];
                v[0] = t1 + t2;
            }
            if (k == 48)
                break;
#pragma GCC unroll 16
            for (unsigned i = 0; i < 16; i++) { /* the words of the next 16 rounds */
                t1 = w[(i + 1) % 16];
                t1 = TN_SHA256_ROTR_(t1, 7) ^ TN_SHA256_ROTR_(t1, 18) ^ t1 >> 3;
                t2 = w[(i + 14) % 16];
                t2 = TN_SHA256_ROTR_(t2, 17) ^ TN_SHA256_ROTR_(t2, 19) ^ t2 >> 10;
                w[i] += t1 + w[(i + 9) % 16] + t2;
            }
        }
        for (unsigned i = 0; i < 8; i++)
            h[i] += v[i];
    }
    for (unsigned i = 0; i < 128; i++)
        lane[i % 16].h[i / 16] = h[i / 16][i % 16];
}
#endif

/*@ requires \valid(s) && \valid_read(p + (0 .. 64 * n - 1)) && n <= 0x3ffffffffffffff;
    requires \separated(s->h + (0 .. 7), p + (0 .. 64 * n - 1));
    assigns s->h[0 .. 7]; */
static inline void tn_sha256_blocks_(struct tn_sha256 *s, const uint8_t *p, size_t n)
{
#ifdef TN_SHA256_X86_
    if (s->instructions) {
        tn_sha256_blocks_x86_(s->h, p, n);
        return;
    }
#endif
    tn_sha256_blocks_c_(s->h, p, n);
}

/* n blocks of each of one, two or 16 messages, which are stride bytes apart. */
/*@ requires lanes == 1 || lanes == 2 || lanes == 16;
    requires \valid(lane + (0 .. lanes - 1)) && n <= 0x3ffffffffffffff;
    requires 64 * n <= stride < 0x200000000000000;
    requires \valid_read(p + (0 .. lanes * stride - 1));
    requires \separated(lane + (0 .. lanes - 1), p + (0 .. lanes * stride - 1));
    assigns lane[0 .. lanes - 1].h[0 .. 7]; */
static inline void tn_sha256_lanes_(struct tn_sha256 *lane, size_t lanes, const uint8_t *p,
                                    size_t stride, size_t n)
{
#ifdef TN_SHA256_X86_
    if (lanes == 16 && lane->vectors) {
        tn_sha256_16_x86_(lane, p, stride, n);
        return;
    }
    if (lanes == 2 && lane->instructions) {
        tn_sha256_two_x86_(lane, p, stride, n);
        return;
    }
#endif
    /*@ loop invariant 0 <= i <= lanes;
        loop assigns i, lane[0 .. lanes - 1].h[0 .. 7];
        loop variant lanes - i; */
    for (size_t i = 0; i < lanes; i++)
        tn_sha256_blocks_(&lane[i], p + i * stride, n);
}

/*@ requires \valid(dst + (0 .. n - 1)) && \valid_read(src + (0 .. n - 1));
    requires \separated(dst + (0 .. n - 1), src + (0 .. n - 1));
    assigns dst[0 .. n - 1];
    ensures \forall integer i; 0 <= i < n ==> dst[i] == src[i]; */
static inline void tn_sha256_copy_(uint8_t *dst, const uint8_t *src, size_t n)
{
    /*@ loop invariant 0 <= i <= n;
        loop invariant \forall integer k; 0 <= k < i ==> dst[k] == src[k];
        loop assigns i, dst[0 .. n - 1];
        loop variant n - i; */
    for (size_t i = 0; i < n; i++)
        dst[i] = src[i];
}

TN_API void tn_sha256_init(struct tn_sha256 *s)
{
#if defined(TN_SHA256_X86_) && defined(__SHA__) && defined(__SSE4_1__)
    s->instructions = true;
#ifdef __AVX512F__
    s->vectors = true;
#else
    s->vectors = false;
#endif
#elif defined(TN_SHA256_X86_)
    tn_sha256_ask_cpu_(s);
#else
    s->instructions = s->vectors = false;
#endif
    tn_sha256_reset(s);
}

TN_API void tn_sha256_reset(struct tn_sha256 *s)
{
    s->h[0] = 0x6a09e667;
    s->h[1] = 0xbb67ae85;
    s->h[2] = 0x3c6ef372;
    s->h[3] = 0xa54ff53a;
    s->h[4] = 0x510e527f;
    s->h[5] = 0x9b05688c;
    s->h[6] = 0x1f83d9ab;
    s->h[7] = 0x5be0cd19;
    s->len = 0;
}

TN_API void tn_sha256_update(struct tn_sha256 *s, const uint8_t *bytes, size_t len)
{
    size_t fill = s->len % 64u, n = 64 - fill;
    const uint8_t *p = bytes;

    s->len += len;
    if (len < n) { /* they wait until the block is whole */
        tn_sha256_copy_(s->block + fill, p, len);
        return;
    }
    if (fill > 0) {
        tn_sha256_copy_(s->block + fill, p, n);
        tn_sha256_blocks_(s, s->block, 1);
        p += n;
        len -= n;
    }
    //@ assert len % 64 == s->len % 64;
    tn_sha256_blocks_(s, p, len / 64);
    tn_sha256_copy_(s->block, p + len / 64 * 64, len % 64);
}

/* A 64-bit number, big-endian. */
/*@ requires \valid(p + (0 .. 7));
    assigns p[0 .. 7];
    ensures p[0] == v / 0x100000000000000 && p[1] == v / 0x1000000000000 % 256 &&
      p[2] == v / 0x10000000000 % 256 && p[3] == v / 0x100000000 % 256 &&
      p[4] == v / 0x1000000 % 256 && p[5] == v / 0x10000 % 256 && p[6] == v / 0x100 % 256 &&
      p[7] == v % 256; */
static inline void tn_sha256_put_u64_(uint8_t *p, uint64_t v)
{
    p[0] = (uint8_t)(v / 0x100000000000000);
    p[1] = (uint8_t)(v / 0x1000000000000 % 256);
    p[2] = (uint8_t)(v / 0x10000000000 % 256);
    p[3] = (uint8_t)(v / 0x100000000 % 256);
    p[4] = (uint8_t)(v / 0x1000000 % 256);
    p[5] = (uint8_t)(v / 0x10000 % 256);
    p[6] = (uint8_t)(v / 0x100 % 256);
    p[7] = (uint8_t)(v % 256);
}

/*
 * Completes the fill bytes at end that are the last of a message of len bytes: a bit, zeroes, and
 * the length in bits. Returns whether that makes one block or two. (5.1.1)
 */
/*@ requires fill <= 63 && \valid(end + (0 .. 127)) && len < 0x2000000000000000;
    assigns end[fill .. 127];
    ensures \result == (fill < 56 ? 1 : 2);
    ensures end[fill] == 0x80;
    ensures \forall integer i; fill < i < 64 * \result - 8 ==> end[i] == 0;
    ensures \let v = 8 * len; \let at = 64 * \result - 8;
      end[at] == v / 0x100000000000000 && end[at + 1] == v / 0x1000000000000 % 256 &&
      end[at + 2] == v / 0x10000000000 % 256 && end[at + 3] == v / 0x100000000 % 256 &&
      end[at + 4] == v / 0x1000000 % 256 && end[at + 5] == v / 0x10000 % 256 &&
      end[at + 6] == v / 0x100 % 256 && end[at + 7] == v % 256; */
static inline size_t tn_sha256_pad_(uint8_t *end, size_t fill, uint64_t len)
{
    size_t blocks = fill < 56 ? 1 : 2;

    //@ assert blocks == 1 || blocks == 2;
    end[fill] = 0x80;
    /*@ loop invariant fill + 1 <= i <= 64 * blocks - 8;
        loop invariant \forall integer k; fill < k < i ==> end[k] == 0;
        loop assigns i, end[fill + 1 .. 127];
        loop variant 128 - i; */
    for (size_t i = fill + 1; i < 64 * blocks - 8; i++)
        end[i] = 0;
    tn_sha256_put_u64_(end + 64 * blocks - 8, 8 * len);
    return blocks;
}

TN_API void tn_sha256_final(struct tn_sha256 *s, uint8_t digest[TN_SHA256_LEN])
{
    uint8_t end[2 * TN_SHA256_BLOCK];
    size_t fill = s->len % 64u;

    tn_sha256_copy_(end, s->block, fill);
    tn_sha256_blocks_(s, end, tn_sha256_pad_(end, fill, s->len));
    /*@ loop invariant 0 <= i <= 32;
        loop assigns i, digest[0 .. 31];
        loop variant 32 - i; */
    for (unsigned i = 0; i < 32; i++)
        digest[i] = (uint8_t)(s->h[i / 4] >> (24 - i % 4 * 8));
    tn_sha256_reset(s);
}

TN_API void tn_sha256_of(const uint8_t *bytes, size_t len, uint8_t digest[TN_SHA256_LEN])
{
    struct tn_sha256 s;

    tn_sha256_init(&s);
    tn_sha256_update(&s, bytes, len);
    tn_sha256_final(&s, digest);
}

/* What is left of a message of len bytes, whose whole blocks were hashed; its digest. */
/*@ requires \valid(s) && len < 0x100000000000000;
    requires \valid_read(p + (0 .. len - 1)) && \valid(digest + (0 .. 31));
    requires \separated(s, p + (0 .. len - 1)) && \separated(s, digest + (0 .. 31));
    assigns *s, digest[0 .. 31];
    ensures s->len == 0; */
static inline void tn_sha256_rest_(struct tn_sha256 *s, const uint8_t *p, size_t len,
                                   uint8_t *digest)
{
    size_t rest = len % 64;

    s->len = len - rest;
    tn_sha256_update(s, p + (len - rest), rest);
    tn_sha256_final(s, digest);
}

/* How many chunks are hashed at a time, of those that len bytes begin with. */
/*@ requires \valid_read(s) && 0 < chunk;
    assigns \nothing;
    ensures \result == 1 || \result == 2 || \result == 16;
    ensures \result > 1 ==> \result * chunk <= len; */
static inline size_t tn_sha256_at_a_time_(const struct tn_sha256 *s, size_t len, size_t chunk)
{
    if (s->vectors && len / 16 >= chunk)
        return 16;
    return s->instructions && len / 2 >= chunk ? 2 : 1;
}

TN_API void tn_sha256_chunks(const struct tn_sha256 *s, const uint8_t *bytes, size_t len,
                             size_t chunk, uint8_t *digests)
{
    struct tn_sha256 lane[16];
    size_t lanes, n;

    //@ ghost size_t left = len / chunk + (len % chunk > 0 ? 1 : 0); // chunks
    //@ assert len == len / chunk * chunk + len % chunk;
    //@ assert len > 0 ==> (left - 1) * chunk < len <= left * chunk;
    /*@ loop invariant 0 <= i <= 16;
        loop invariant \forall integer k; 0 <= k < i ==> lane[k].len == 0;
        loop assigns i, lane[0 .. 15];
        loop variant 16 - i; */
    for (unsigned i = 0; i < 16; i++) {
        lane[i] = *s;
        tn_sha256_reset(&lane[i]);
    }
    /*@ loop invariant bytes + len == \at(bytes + len, Pre) && len <= \at(len, Pre);
        loop invariant digests + 32 * left == \at(digests, Pre) +
          32 * tn_sha256_count(\at(len, Pre), chunk);
        loop invariant left <= tn_sha256_count(\at(len, Pre), chunk);
        loop invariant len == 0 <==> left == 0;
        loop invariant len > 0 ==> (left - 1) * chunk < len <= left * chunk;
        loop invariant \forall integer k; 0 <= k < 16 ==> lane[k].len == 0;
        loop assigns len, left, lanes, n, bytes, digests, lane[0 .. 15],
          \at(digests, Pre)[0 .. 32 * tn_sha256_count(\at(len, Pre), chunk) - 1];
        loop variant len; */
    while (len > 0) {
        lanes = tn_sha256_at_a_time_(s, len, chunk);
        n = len < chunk ? len : chunk;
        tn_sha256_lanes_(lane, lanes, bytes, n, n / 64);
        /*@ loop invariant bytes + len == \at(bytes + len, Pre) && len <= \at(len, Pre);
            loop invariant digests + 32 * left == \at(digests, Pre) +
              32 * tn_sha256_count(\at(len, Pre), chunk);
            loop invariant left <= tn_sha256_count(\at(len, Pre), chunk);
            loop invariant len == 0 <==> left == 0;
            loop invariant len > 0 ==> (left - 1) * chunk < len <= left * chunk;
            loop invariant \forall integer k; 0 <= k < 16 ==> lane[k].len == 0;
            loop invariant 0 <= i <= lanes && len <= \at(len, LoopEntry);
            loop invariant i > 0 ==> len < \at(len, LoopEntry);
            loop invariant (lanes - i) * n <= len;
            loop invariant n < chunk ==> len == (i == 0 ? n : 0);
            loop assigns i, len, left, bytes, digests, lane[0 .. 15],
              \at(digests, Pre)[0 .. 32 * tn_sha256_count(\at(len, Pre), chunk) - 1];
            loop variant lanes - i; */
        for (size_t i = 0; i < lanes; i++) {
            //@ assert n <= len;
            tn_sha256_rest_(&lane[i], bytes, n, digests);
            bytes += n;
            len -= n;
            digests += TN_SHA256_LEN;
            //@ ghost left--;
        }
    }
}

/* Clears what must not stay in memory, in a way that is not optimised out. */
static inline void tn_sha256_wipe_(void *p, size_t len)
{
    volatile uint8_t *byte = (volatile uint8_t *)p;

    for (size_t i = 0; i < len; i++)
        byte[i] = 0;
}

TN_API void tn_sha256_hmac_init(struct tn_sha256_hmac *m, const uint8_t *key, size_t len)
{
    uint8_t pad[TN_SHA256_BLOCK] = {0};

    tn_sha256_init(&m->inner);
    if (len > sizeof(pad)) {
        tn_sha256_update(&m->inner, key, len);
        tn_sha256_final(&m->inner, pad);
    } else if (len > 0) {
        tn_sha256_copy_(pad, key, len);
    }
    m->outer = m->inner;
    for (unsigned i = 0; i < sizeof(pad); i++)
        pad[i] ^= 0x36;
    tn_sha256_update(&m->inner, pad, sizeof(pad));
    for (unsigned i = 0; i < sizeof(pad); i++)
        pad[i] ^= 0x36 ^ 0x5c;
    tn_sha256_update(&m->outer, pad, sizeof(pad));
    tn_sha256_wipe_(pad, sizeof(pad));
}

TN_API void tn_sha256_hmac_update(struct tn_sha256_hmac *m, const uint8_t *bytes, size_t len)
{
    tn_sha256_update(&m->inner, bytes, len);
}

TN_API void tn_sha256_hmac_final(struct tn_sha256_hmac *m, uint8_t mac[TN_SHA256_LEN])
{
    tn_sha256_final(&m->inner, mac);
    tn_sha256_update(&m->outer, mac, TN_SHA256_LEN);
    tn_sha256_final(&m->outer, mac);
    tn_sha256_wipe_(m, sizeof(*m));
}

TN_API bool tn_sha256_equal(const uint8_t a[TN_SHA256_LEN], const uint8_t b[TN_SHA256_LEN])
{
    uint32_t above = 0, below = 0;

    /*@ loop invariant 0 <= i <= 32 && above <= i && below <= i;
        loop invariant above + below == 0 <==>
          (\forall integer k; 0 <= k < i ==> a[k] == b[k]);
        loop assigns i, above, below;
        loop variant 32 - i; */
    for (unsigned i = 0; i < TN_SHA256_LEN; i++) {
        above += (255u + a[i] - b[i]) / 256; /* 1 if a[i] is above b[i]; no branch */
        below += (255u + b[i] - a[i]) / 256;
    }
    return above + below == 0;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_SHA256_H */
