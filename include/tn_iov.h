/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_iov - bytes between a buffer of the caller's and memory that lies in pieces.
 *
 * WHAT
 *   Copies out of a list of struct tn_iov, or into it, from any byte of it on; finds a byte; cuts a
 *   part out of a list; counts its bytes. What a device does with a request's buffers, which a
 *   driver may cut anywhere.
 *
 * USAGE
 *   uint8_t one[3] = {1, 2, 3}, two[5] = {0}, header[4];
 *   struct tn_iov iov[2] = {{one, sizeof(one)}, {two, sizeof(two)}};
 *   uint32_t first, n;
 *
 *   if (tn_iov_total(iov, 2) != 8 || tn_iov_gather(iov, 2, 0, header, 4) < 4)
 *       return 1;
 *   if (tn_iov_scatter(iov, 2, 6, header, 4) != 2 || two[3] != 1)
 *       return 2;
 *   n = tn_iov_cut(iov, 2, 4, 3, &first);
 *   if (n != 1 || iov[first].base != two + 1 || iov[first].len != 3)
 *       return 3;
 *
 * COMPOSITION
 *   tn_virtq gives such lists, for each chain that a driver has made available; the models of
 *   devices read headers out of them, and write headers and data into them. A struct iovec of the
 *   host's system has the same layout.
 *
 * GUEST TRUST
 *   The bytes may be a guest's, and change at any time: gather copies each once, and the compiler
 *   does not look again. Pieces may be empty, and overlap each other. The lists themselves are the
 *   caller's: checked before, not changed by the guest any more. off and len may be any numbers.
 *
 * MEMORY
 *   All of it is the caller's; nothing is kept. Nothing is marked dirty.
 *
 * THREADS
 *   Any number of calls at a time, on lists that nobody changes.
 *
 * CONFIG
 *   none.
 *
 * LIMITS
 *   Of bytes that are in the buffer and in the pieces both, any mixture is copied.
 */
#ifndef TN_IOV_H
#define TN_IOV_H

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

/*@ logic integer tn_iov_bytes{L}(struct tn_iov *iov, integer i, integer n) =
      i >= n ? 0 : iov[i].len + \max(0, tn_iov_bytes(iov, i + 1, n));
    logic integer tn_iov_byte{L}(struct tn_iov *iov, integer i, integer n, integer k) =
      i >= n ? 0 : k < iov[i].len ? iov[i].base[k] :
      tn_iov_byte(iov, i + 1, n, k - iov[i].len);
    predicate tn_iov_ok{L}(struct tn_iov *iov, integer n) = \valid_read(iov + (0 .. n - 1)) &&
      \forall integer i; 0 <= i < n ==> \valid(iov[i].base + (0 .. iov[i].len - 1)); */

/*
 * How many bytes n iovecs have; SIZE_MAX if that is no size.
 */
/*@ requires \valid_read(iov + (0 .. n - 1));
    assigns \nothing;
    ensures \result == \min(tn_iov_bytes((struct tn_iov *)iov, 0, n), SIZE_MAX); */
TN_API size_t tn_iov_total(const struct tn_iov *iov, uint32_t n);

/*
 * Returns which of n iovecs has byte *off of them, and sets *off to its place in that one. If none
 * has, returns n, and *off is how far behind the last byte it is.
 */
/*@ requires \valid_read(iov + (0 .. n - 1)) && \valid(off) && \separated(off, iov + (0 .. n - 1));
    assigns *off;
    ensures \result <= n && *off <= \old(*off);
    ensures \result < n ==> *off < iov[\result].len;
    ensures tn_iov_bytes{Pre}((struct tn_iov *)iov, 0, n) - \old(*off) ==
      tn_iov_bytes{Pre}((struct tn_iov *)iov, \result, n) - *off;
    ensures \forall integer k; \old(*off) <= k ==>
      tn_iov_byte{Pre}((struct tn_iov *)iov, 0, n, k) ==
      tn_iov_byte{Pre}((struct tn_iov *)iov, \result, n, k - (\old(*off) - *off)); */
TN_API uint32_t tn_iov_skip(const struct tn_iov *iov, uint32_t n, size_t *off);

/*
 * Copies len bytes out of n iovecs, from byte off of them on. Returns how many bytes: fewer when
 * there are no more.
 */
/*@ requires tn_iov_ok((struct tn_iov *)iov, n) && \valid(dst + (0 .. len - 1));
    requires \separated(dst + (0 .. len - 1), iov + (0 .. n - 1));
    requires \forall integer i; 0 <= i < n ==>
      \separated(dst + (0 .. len - 1), iov[i].base + (0 .. iov[i].len - 1));
    assigns dst[0 .. len - 1];
    ensures \result ==
      \min(len, \max(0, tn_iov_bytes{Pre}((struct tn_iov *)iov, 0, n) - off));
    ensures \forall integer k; 0 <= k < \result ==>
      dst[k] == tn_iov_byte{Pre}((struct tn_iov *)iov, 0, n, off + k); */
TN_API size_t tn_iov_gather(const struct tn_iov *iov, uint32_t n, size_t off, uint8_t *dst,
                            size_t len);

/*
 * Copies len bytes into n iovecs, from byte off of them on. Returns how many bytes: fewer when
 * there is no more room.
 */
/*@ requires tn_iov_ok((struct tn_iov *)iov, n) && \valid_read(src + (0 .. len - 1));
    requires \forall integer i; 0 <= i < n ==>
      \separated(src + (0 .. len - 1), iov[i].base + (0 .. iov[i].len - 1));
    assigns { iov[i].base[k] | integer i, k; 0 <= i < n && 0 <= k < iov[i].len };
    ensures \result ==
      \min(len, \max(0, tn_iov_bytes{Pre}((struct tn_iov *)iov, 0, n) - off)); */
TN_API size_t tn_iov_scatter(const struct tn_iov *iov, uint32_t n, size_t off, const uint8_t *src,
                             size_t len);

/*
 * Cuts n iovecs down to the len bytes from byte off of them on, or as many as there are. Returns
 * how many iovecs have them, of which *first is the first; the others are not changed.
 */
/*@ requires \valid(iov + (0 .. n - 1)) && \valid(first) && \separated(first, iov + (0 .. n - 1));
    assigns *first, iov[0 .. n - 1];
    ensures *first + \result <= n && (len == 0 ==> \result == 0);
    ensures *first < n ==> \let f = *first;
      \let k = off - (tn_iov_bytes{Pre}(iov, 0, n) - tn_iov_bytes{Pre}(iov, f, n));
      0 <= k < \at(iov[f].len, Pre) && iov[f].base == \at(iov[f].base, Pre) + k &&
      iov[f].len <= \at(iov[f].len, Pre) - k;
    ensures \forall integer i; 0 <= i < n && i != *first ==>
      iov[i].base == \old(iov[i].base) && iov[i].len <= \old(iov[i].len);
    ensures \forall integer i; *first <= i < *first + \result ==> iov[i].len <= len; */
TN_API uint32_t tn_iov_cut(struct tn_iov *iov, uint32_t n, size_t off, size_t len, uint32_t *first);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

TN_API size_t tn_iov_total(const struct tn_iov *iov, uint32_t n)
{
    size_t sum = 0;

    /*@ loop invariant 0 <= i <= n;
        loop invariant sum + tn_iov_bytes((struct tn_iov *)iov, i, n) ==
          tn_iov_bytes((struct tn_iov *)iov, 0, n);
        loop assigns i, sum;
        loop variant n - i; */
    for (uint32_t i = 0; i < n; i++) {
        if (iov[i].len > SIZE_MAX - sum)
            return SIZE_MAX;
        sum += iov[i].len;
    }
    return sum;
}

TN_API uint32_t tn_iov_skip(const struct tn_iov *iov, uint32_t n, size_t *off)
{
    size_t at = *off;
    uint32_t i;

    /*@ loop invariant 0 <= i <= n && at <= *off;
        loop invariant tn_iov_bytes((struct tn_iov *)iov, 0, n) - *off ==
          tn_iov_bytes((struct tn_iov *)iov, i, n) - at;
        loop invariant \forall integer k; *off <= k ==>
          tn_iov_byte((struct tn_iov *)iov, 0, n, k) ==
          tn_iov_byte((struct tn_iov *)iov, i, n, k - (*off - at));
        loop assigns i, at;
        loop variant n - i; */
    for (i = 0; i < n && at >= iov[i].len; i++)
        at -= iov[i].len;
    *off = at;
    return i;
}

/* Copies len bytes from src + from to dst + to. */
/*@ requires to + len <= SIZE_MAX && from + len <= SIZE_MAX;
    requires \valid(dst + (to .. to + len - 1)) && \valid_read(src + (from .. from + len - 1));
    requires \separated(dst + (to .. to + len - 1), src + (from .. from + len - 1));
    assigns dst[to .. to + len - 1];
    ensures \forall integer i; to <= i < to + len ==> dst[i] == \old(src[i - to + from]); */
static inline void tn_iov_copy_(uint8_t *dst, size_t to, const uint8_t *src, size_t from,
                                size_t len)
{
#ifdef __FRAMAC__
    /*@ loop invariant 0 <= i <= len;
        loop invariant \forall integer j; to <= j < to + i ==>
          dst[j] == \at(src[j - to + from], Pre);
        loop assigns i, dst[to .. to + len - 1];
        loop variant len - i; */
    for (size_t i = 0; i < len; i++)
        dst[to + i] = src[from + i];
#else
    if (len > 0) /* an empty piece may be nowhere */
        __builtin_memmove(dst + to, src + from, len);
#endif
}

TN_API size_t tn_iov_gather(const struct tn_iov *iov, uint32_t n, size_t off, uint8_t *dst,
                            size_t len)
{
    uint32_t i = tn_iov_skip(iov, n, &off);
    size_t done = 0;

    /*@ loop invariant i <= n && done <= len && (i < n && done < len ==> off <= iov[i].len);
        loop invariant done < len ==>
          tn_iov_bytes{Pre}((struct tn_iov *)iov, 0, n) - \at(off, Pre) - done ==
          tn_iov_bytes{Pre}((struct tn_iov *)iov, i, n) - off;
        loop invariant 0 < done ==>
          done <= tn_iov_bytes{Pre}((struct tn_iov *)iov, 0, n) - \at(off, Pre);
        loop invariant done > 0 && done < len ==> off == 0;
        loop invariant done < len ==> \forall integer k; \at(off, Pre) + done <= k ==>
          tn_iov_byte{Pre}((struct tn_iov *)iov, 0, n, k) ==
          tn_iov_byte{Pre}((struct tn_iov *)iov, i, n, k - (\at(off, Pre) + done - off));
        loop invariant \forall integer k; 0 <= k < done ==>
          dst[k] == tn_iov_byte{Pre}((struct tn_iov *)iov, 0, n, \at(off, Pre) + k);
        loop assigns i, off, done, dst[0 .. len - 1];
        loop variant n - i; */
    for (; i < n && done < len; i++) {
        size_t run = iov[i].len - off < len - done ? iov[i].len - off : len - done;

        /*@ assert here: \forall integer k; off <= k < off + run ==>
              iov[i].base[k] == tn_iov_byte{Pre}((struct tn_iov *)iov, i, n, k); */
        tn_iov_copy_(dst, done, iov[i].base, off, run);
        /*@ assert there: \forall integer k; done <= k < done + run ==>
              dst[k] == tn_iov_byte{Pre}((struct tn_iov *)iov, i, n, k - done + off); */
        done += run;
        off = 0;
    }
#ifndef __FRAMAC__
    __atomic_signal_fence(__ATOMIC_SEQ_CST); /* the compiler may not go back for a second look */
#endif
    return done;
}

TN_API size_t tn_iov_scatter(const struct tn_iov *iov, uint32_t n, size_t off, const uint8_t *src,
                             size_t len)
{
    uint32_t i = tn_iov_skip(iov, n, &off);
    size_t done = 0;

    /*@ loop invariant i <= n && done <= len && (i < n && done < len ==> off <= iov[i].len);
        loop invariant done < len ==>
          tn_iov_bytes{Pre}((struct tn_iov *)iov, 0, n) - \at(off, Pre) - done ==
          tn_iov_bytes{Pre}((struct tn_iov *)iov, i, n) - off;
        loop invariant 0 < done ==>
          done <= tn_iov_bytes{Pre}((struct tn_iov *)iov, 0, n) - \at(off, Pre);
        loop invariant done > 0 && done < len ==> off == 0;
        loop assigns i, off, done,
          { iov[j].base[k] | integer j, k; 0 <= j < n && 0 <= k < iov[j].len };
        loop variant n - i; */
    for (; i < n && done < len; i++) {
        size_t run = iov[i].len - off < len - done ? iov[i].len - off : len - done;

        tn_iov_copy_(iov[i].base, off, src, done, run);
        done += run;
        off = 0;
    }
    return done;
}

TN_API uint32_t tn_iov_cut(struct tn_iov *iov, uint32_t n, size_t off, size_t len, uint32_t *first)
{
    uint32_t at = tn_iov_skip(iov, n, &off), i;

    if (at < n) {
        iov[at].base += off;
        iov[at].len -= off;
    }
    /*@ loop invariant at <= i <= n && len <= \at(len, Pre) && (\at(len, Pre) == 0 ==> i == at);
        loop invariant \forall integer j; 0 <= j < n && j != at ==>
          iov[j].base == \at(iov[j].base, Pre) && iov[j].len <= \at(iov[j].len, Pre);
        loop invariant \forall integer j; 0 <= j < n && j == at ==>
          iov[j].base == \at(iov[j].base, Pre) + off && iov[j].len <= \at(iov[j].len, Pre) - off;
        loop invariant \forall integer j; at <= j < i ==> iov[j].len <= \at(len, Pre);
        loop assigns i, len, iov[at .. n - 1];
        loop variant n - i; */
    for (i = at; i < n && len > 0; i++) {
        if (iov[i].len > len)
            iov[i].len = len;
        len -= iov[i].len;
    }
    *first = at;
    return i - at;
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_IOV_H */
