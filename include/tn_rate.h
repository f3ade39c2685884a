/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_rate - a rate limit: token buckets of bytes and of operations, exact to the nanosecond.
 *
 * WHAT
 *   Two buckets that fill at a constant rate up to a burst. An operation takes one token from the
 *   one and a token for each of its bytes from the other, or nothing from either; then the caller
 *   is told how many nanoseconds to wait. Fractions of a token are carried, so nothing drifts.
 *
 * USAGE
 *   struct tn_rate_cfg cfg = {1000000, 64 * 1024, 0, 0};
 *   struct tn_rate rate;
 *   uint64_t now = 5, wait;
 *
 *   if (tn_rate_init(&rate, &cfg, now) < 0)
 *       return 1;
 *   wait = tn_rate_take(&rate, now, 64 * 1024);
 *   if (wait != 0 || tn_rate_take(&rate, now, 1) != 1000)
 *       return 1;
 *   if (tn_rate_take(&rate, now + 1000, 1) != 0)
 *       return 1;
 *
 * COMPOSITION
 *   A device model asks tn_rate_take before each request. When it has to wait it leaves the request
 *   where it is, and asks the caller for a call so many nanoseconds later: one timer a device.
 *
 * GUEST TRUST
 *   The size of an operation may be the guest's, and a saved state a hostile file's. No size can
 *   overflow anything. One that the guest makes larger than the burst costs it as long a wait.
 *
 * MEMORY
 *   struct tn_rate is all there is; it may be copied and moved.
 *
 * THREADS
 *   One call at a time on one struct.
 *
 * CONFIG
 *   none.
 *
 * LIMITS
 *   Clock values are nanoseconds of a clock that does not go backwards; when it does all the same,
 *   no time passes until it is again where it was. Nothing is handed out in an order: whoever asks
 *   at the right moment has it. A full bucket earns nothing: with a burst of one operation, the
 *   part of a nanosecond by which each wait is rounded up is lost.
 */
#ifndef TN_RATE_H
#define TN_RATE_H

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

#define TN_RATE_SECOND  1000000000u /* nanoseconds */
#define TN_RATE_VERSION 1           /* of struct tn_rate_state */

/* A rate of 0 is no limit, a burst of 0 is what comes in one second. */
struct tn_rate_cfg {
    uint64_t bytes_per_s;
    uint64_t bytes_burst; /* bytes */
    uint64_t ops_per_s;
    uint64_t ops_burst; /* operations */
};

/* A bucket lacks missing tokens to be full, of which nano billionths of one have come already. */
struct tn_rate_bucket {
    uint64_t rate; /* tokens a second; 0: no limit */
    uint64_t burst;
    uint64_t missing; /* above burst: a debt */
    uint32_t nano;    /* below 10^9; 0 when nothing is missing */
};

struct tn_rate {
    struct tn_rate_bucket bytes;
    struct tn_rate_bucket ops;
    uint64_t now_ns; /* the latest time that it was told */
};

/* What the buckets lack; times and limits are not in it. */
struct tn_rate_state {
    uint32_t version; /* TN_RATE_VERSION */
    uint32_t bytes_nano;
    uint64_t bytes_missing;
    uint64_t ops_missing;
    uint32_t ops_nano;
    uint32_t zero;
};

/*@ predicate tn_rate_ok(struct tn_rate_bucket *b) =
      b->nano < TN_RATE_SECOND && (b->missing == 0 ==> b->nano == 0) &&
      (b->rate == 0 ==> b->missing == 0);
    logic integer tn_rate_lack(struct tn_rate_bucket *b) = b->missing * TN_RATE_SECOND - b->nano;
    logic integer tn_rate_full(struct tn_rate_bucket *b, integer n) =
      n < b->burst ? (b->burst - n) * TN_RATE_SECOND : 0;
    predicate tn_rate_may(struct tn_rate_bucket *b, integer n, integer ns) =
      b->rate == 0 || n == 0 || tn_rate_lack(b) - b->rate * ns <= tn_rate_full(b, n);
*/

/*
 * Starts with full buckets. Returns 0; TN_EINVAL for a burst without a rate.
 */
TN_API int tn_rate_init(struct tn_rate *r, const struct tn_rate_cfg *cfg, uint64_t now_ns);

/*
 * Takes one operation of so many bytes at now_ns. Returns 0 when it was taken; else nothing was,
 * and the result is the number of nanoseconds after which this call returns 0, and before which it
 * does not, if no other succeeds until then. UINT64_MAX: that long, or longer.
 *
 * An operation larger than the burst passes when the bucket is full, and leaves a debt: in any time
 * of t seconds no more than burst + rate * t passes, and the excess of the last one. An operation
 * of no bytes passes however large the debt in bytes is.
 */
TN_API uint64_t tn_rate_take(struct tn_rate *r, uint64_t now_ns, uint64_t bytes);

/*
 * Copies out what the buckets lack at now_ns.
 */
TN_API void tn_rate_save(const struct tn_rate *r, uint64_t now_ns, struct tn_rate_state *out);

/*
 * Takes it over at now_ns, of a clock that need not be the one of the save; the limits stay those
 * of r's tn_rate_init, and what was saved for one that is none here is dropped. Returns 0;
 * TN_EUNSUP for another version, TN_EFORMAT for a state that no bucket can be in (r is unchanged).
 */
TN_API int tn_rate_restore(struct tn_rate *r, uint64_t now_ns, const struct tn_rate_state *from);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/*@ lemma tn_rate_above: \forall integer a, b, d; a >= 0 && d > 0 && b > a / d ==> b * d > a;
    lemma tn_rate_times: \forall integer a, b, d; d >= 0 && a <= b ==> d * a <= d * b;
    lemma tn_rate_cancel: \forall integer a, b, d; d > 0 && a * d <= b * d ==> a <= b;
    lemma tn_rate_grow: \forall integer a, m; a >= 0 && m >= 1 ==> a <= a * m;
    lemma tn_rate_halve: \forall integer a, m, h; m == 2 * h || m == 2 * h + 1 ==>
      a * m == (a + a) * h + (m == 2 * h ? 0 : a); */

/*
 * The tokens that come in ns nanoseconds, at most 2^64 - 1; *nano is the fraction before and after
 * it, in billionths.
 */
/*@ requires \valid(nano) && *nano < TN_RATE_SECOND;
    assigns *nano;
    ensures *nano < TN_RATE_SECOND;
    ensures \result < UINT64_MAX ==>
      \result * TN_RATE_SECOND + *nano == rate * ns + \old(*nano);
    ensures \result == UINT64_MAX ==> rate * ns + \old(*nano) >= UINT64_MAX * TN_RATE_SECOND; */
static inline uint64_t tn_rate_gain_(uint64_t rate, uint64_t ns, uint32_t *nano)
{
    uint64_t s = ns / TN_RATE_SECOND, rest = ns % TN_RATE_SECOND;
    uint64_t part = rate % TN_RATE_SECOND * rest + *nano;
    uint64_t whole = rate / TN_RATE_SECOND * rest + part / TN_RATE_SECOND;

    /*@ assert rate * rest == rate / TN_RATE_SECOND * TN_RATE_SECOND * rest +
          rate % TN_RATE_SECOND * rest; */
    /*@ assert rate * rest + *nano == whole * TN_RATE_SECOND + part % TN_RATE_SECOND; */
    /*@ assert rate * ns == rate * s * TN_RATE_SECOND + rate * rest; */
    *nano = (uint32_t)(part % TN_RATE_SECOND);
    if (s > 0 && rate > (UINT64_MAX - whole) / s) {
        /*@ assert rate * s + whole > UINT64_MAX; */
        return UINT64_MAX;
    }
    return rate * s + whole;
}

/* Lets ns nanoseconds pass. */
/*@ requires \valid(b) && tn_rate_ok(b);
    assigns b->missing, b->nano;
    ensures tn_rate_ok(b);
    ensures tn_rate_lack(b) == \max(0, \old(tn_rate_lack(b)) - b->rate * ns); */
static inline void tn_rate_fill_(struct tn_rate_bucket *b, uint64_t ns)
{
    uint32_t nano = b->nano;
    uint64_t gain = tn_rate_gain_(b->rate, ns, &nano);

    if (gain >= b->missing) {
        b->missing = 0;
        b->nano = 0;
    } else {
        b->missing -= gain;
        b->nano = nano;
    }
}

/* How many tokens, the fraction not counted, have to come before n can be taken. */
/*@ requires \valid_read(b) && tn_rate_ok((struct tn_rate_bucket *)b);
    assigns \nothing;
    ensures \result == 0 <==> tn_rate_may((struct tn_rate_bucket *)b, n, 0);
    ensures \result > 0 ==> b->rate > 0 && n > 0 &&
      \result * TN_RATE_SECOND - b->nano ==
        tn_rate_lack((struct tn_rate_bucket *)b) - tn_rate_full((struct tn_rate_bucket *)b, n); */
static inline uint64_t tn_rate_short_(const struct tn_rate_bucket *b, uint64_t n)
{
    uint64_t allowed = n < b->burst ? b->burst - n : 0;

    if (b->rate == 0 || n == 0)
        return 0;
    return b->missing > allowed ? b->missing - allowed : 0;
}

/* whole + part / den, the denominator being known and above part. */
struct tn_rate_frac_ {
    uint64_t whole;
    uint64_t part;
};

/*@ logic integer tn_rate_parts(struct tn_rate_frac_ f, integer den) = f.whole * den + f.part; */

/*@ requires a.part < den && b.part < den && a.whole + b.whole < UINT64_MAX;
    assigns \nothing;
    ensures \result.part < den;
    ensures tn_rate_parts(\result, den) == tn_rate_parts(a, den) + tn_rate_parts(b, den); */
static inline struct tn_rate_frac_ tn_rate_add_(struct tn_rate_frac_ a, struct tn_rate_frac_ b,
                                                uint64_t den)
{
    struct tn_rate_frac_ sum;

    sum.whole = a.whole + b.whole;
    if (a.part >= den - b.part) {
        sum.whole++;
        sum.part = a.part - (den - b.part);
    } else {
        sum.part = a.part + b.part;
    }
    return sum;
}

/* num * 10^9 / den, for num up to den: 64 bits do not hold the product, doubling and adding do. */
/*@ requires 0 < num <= den;
    assigns \nothing;
    ensures \result.part < den && \result.whole <= TN_RATE_SECOND;
    ensures tn_rate_parts(\result, den) == num * TN_RATE_SECOND; */
static inline struct tn_rate_frac_ tn_rate_scale_(uint64_t num, uint64_t den)
{
    struct tn_rate_frac_ sum, power;

    sum.whole = 0;
    sum.part = 0;
    power.whole = num / den;
    power.part = num % den;
    /*@ loop invariant sum.part < den && power.part < den;
        loop invariant tn_rate_parts(sum, den) + tn_rate_parts(power, den) * left ==
          num * TN_RATE_SECOND;
        loop invariant left <= TN_RATE_SECOND && sum.whole <= TN_RATE_SECOND;
        loop invariant left > 0 ==> power.whole <= TN_RATE_SECOND;
        loop assigns left, sum, power;
        loop variant left; */
    for (uint32_t left = TN_RATE_SECOND; left > 0; left /= 2) {
        if (left % 2 == 1)
            sum = tn_rate_add_(sum, power, den);
        power = tn_rate_add_(power, power, den);
        /*@ assert tn_rate_parts(sum, den) + tn_rate_parts(power, den) * (left / 2) ==
              num * TN_RATE_SECOND; */
        /*@ assert sum.whole * den <= TN_RATE_SECOND * den; */
        /*@ assert left / 2 > 0 ==> power.whole * den <= TN_RATE_SECOND * den; */
    }
    return sum;
}

/* Nanoseconds until n tokens have come, a fraction of the first being there: rounded up. */
/*@ requires rate > 0 && n > 0 && nano < TN_RATE_SECOND;
    assigns \nothing;
    ensures \result > 0 && rate * (\result - 1) < n * TN_RATE_SECOND - nano;
    ensures \result < UINT64_MAX ==> rate * \result >= n * TN_RATE_SECOND - nano; */
static inline uint64_t tn_rate_wait_(uint64_t rate, uint64_t n, uint32_t nano)
{
    uint64_t s = (n - 1) / rate, ns;
    struct tn_rate_frac_ f = tn_rate_scale_((n - 1) % rate + 1, rate);

    if (f.part > nano)
        ns = f.whole + 1;
    else
        ns = f.whole - (nano - f.part) / rate;
    /*@ assert f.whole * rate + f.part == ((n - 1) % rate + 1) * TN_RATE_SECOND; */
    /*@ assert rate * ns >= f.whole * rate + f.part - nano > rate * (ns - 1); */
    /*@ assert n * TN_RATE_SECOND ==
          rate * (s * TN_RATE_SECOND) + f.whole * rate + f.part; */
    /*@ assert rate * (s * TN_RATE_SECOND + ns - 1) < n * TN_RATE_SECOND - nano; */
    if (s > (UINT64_MAX - ns) / TN_RATE_SECOND) {
        /*@ assert s * TN_RATE_SECOND + ns > UINT64_MAX; */
        /*@ assert rate * (UINT64_MAX - 1) <= rate * (s * TN_RATE_SECOND + ns - 1); */
        return UINT64_MAX;
    }
    return s * TN_RATE_SECOND + ns;
}

/* Nanoseconds until n tokens can be taken; UINT64_MAX: that long, or longer. */
/*@ requires \valid_read(b) && tn_rate_ok((struct tn_rate_bucket *)b);
    assigns \nothing;
    ensures \result < UINT64_MAX ==> tn_rate_may((struct tn_rate_bucket *)b, n, \result);
    ensures \result > 0 ==> !tn_rate_may((struct tn_rate_bucket *)b, n, \result - 1); */
static inline uint64_t tn_rate_delay_(const struct tn_rate_bucket *b, uint64_t n)
{
    uint64_t lack = tn_rate_short_(b, n);

    return lack == 0 ? 0 : tn_rate_wait_(b->rate, lack, b->nano);
}

/* Takes n tokens that tn_rate_delay_ says may be taken now. */
/*@ requires \valid(b) && tn_rate_ok(b) && tn_rate_may(b, n, 0);
    assigns b->missing;
    ensures tn_rate_ok(b);
    ensures tn_rate_lack(b) == \old(tn_rate_lack(b)) + (b->rate == 0 ? 0 : n * TN_RATE_SECOND); */
static inline void tn_rate_use_(struct tn_rate_bucket *b, uint64_t n)
{
    if (b->rate > 0)
        b->missing += n;
}

static inline void tn_rate_pass_(struct tn_rate *r, uint64_t now_ns)
{
    if (now_ns <= r->now_ns)
        return;
    tn_rate_fill_(&r->bytes, now_ns - r->now_ns);
    tn_rate_fill_(&r->ops, now_ns - r->now_ns);
    r->now_ns = now_ns;
}

TN_API int tn_rate_init(struct tn_rate *r, const struct tn_rate_cfg *cfg, uint64_t now_ns)
{
    if ((cfg->bytes_per_s == 0 && cfg->bytes_burst > 0) ||
        (cfg->ops_per_s == 0 && cfg->ops_burst > 0))
        return TN_EINVAL;
    r->bytes.rate = cfg->bytes_per_s;
    r->bytes.burst = cfg->bytes_burst > 0 ? cfg->bytes_burst : cfg->bytes_per_s;
    r->bytes.missing = 0;
    r->bytes.nano = 0;
    r->ops.rate = cfg->ops_per_s;
    r->ops.burst = cfg->ops_burst > 0 ? cfg->ops_burst : cfg->ops_per_s;
    r->ops.missing = 0;
    r->ops.nano = 0;
    r->now_ns = now_ns;
    return 0;
}

TN_API uint64_t tn_rate_take(struct tn_rate *r, uint64_t now_ns, uint64_t bytes)
{
    uint64_t wait, ops, behind;

    tn_rate_pass_(r, now_ns);
    wait = tn_rate_delay_(&r->bytes, bytes);
    ops = tn_rate_delay_(&r->ops, 1);
    if (ops > wait)
        wait = ops;
    if (wait > 0) {
        behind = r->now_ns - now_ns; /* a clock that went back has to come here again first */
        return wait > UINT64_MAX - behind ? UINT64_MAX : wait + behind;
    }
    tn_rate_use_(&r->bytes, bytes);
    tn_rate_use_(&r->ops, 1);
    return 0;
}

TN_API void tn_rate_save(const struct tn_rate *r, uint64_t now_ns, struct tn_rate_state *out)
{
    struct tn_rate copy = *r;

    tn_rate_pass_(&copy, now_ns);
    out->version = TN_RATE_VERSION;
    out->bytes_missing = copy.bytes.missing;
    out->bytes_nano = copy.bytes.nano;
    out->ops_missing = copy.ops.missing;
    out->ops_nano = copy.ops.nano;
    out->zero = 0;
}

static inline bool tn_rate_valid_(uint64_t missing, uint32_t nano)
{
    return nano < TN_RATE_SECOND && (missing > 0 || nano == 0);
}

TN_API int tn_rate_restore(struct tn_rate *r, uint64_t now_ns, const struct tn_rate_state *from)
{
    struct tn_rate_state copy = *from;

    if (copy.version != TN_RATE_VERSION)
        return TN_EUNSUP;
    if (!tn_rate_valid_(copy.bytes_missing, copy.bytes_nano) ||
        !tn_rate_valid_(copy.ops_missing, copy.ops_nano) || copy.zero != 0)
        return TN_EFORMAT;
    r->bytes.missing = r->bytes.rate > 0 ? copy.bytes_missing : 0;
    r->bytes.nano = r->bytes.rate > 0 ? copy.bytes_nano : 0;
    r->ops.missing = r->ops.rate > 0 ? copy.ops_missing : 0;
    r->ops.nano = r->ops.rate > 0 ? copy.ops_nano : 0;
    r->now_ns = now_ns;
    return 0;
}
#endif
#ifdef __cplusplus
}
#endif
#endif
