/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_cmdline - a kernel command line, built word by word in a bounded buffer.
 *
 * WHAT
 *   Appends boot parameters, a user's own words and arguments for init to one NUL-terminated
 *   string; quotes values that need it; refuses what the kernel would split or read otherwise than
 *   it was meant. Boot parameters stay before the `--`, whenever they are added.
 *
 * USAGE
 *   char buf[2048];
 *   struct tn_cmdline c;
 *
 *   tn_cmdline_init(&c, buf, sizeof(buf));
 *   if (tn_cmdline_add(&c, "console", "ttyS0") < 0 || tn_cmdline_add(&c, "quiet", NULL) < 0 ||
 *       tn_cmdline_add_text(&c, "root=/dev/vda -- single") < 0 ||
 *       tn_cmdline_add(&c, "panic", "-1") < 0)
 *       return 1;
 *   if (__builtin_strcmp(c.buf, "console=ttyS0 quiet root=/dev/vda panic=-1 -- single") != 0)
 *       return 1;
 *
 * COMPOSITION
 *   Glue adds what the devices need (tn_virtio_mmio's device=, console=, earlycon=); tn_boot_x86,
 *   tn_boot_arm64 or tn_fdt put the string where the kernel looks. cap is the smaller of the buffer
 *   and of the kernel's own limit: a bzImage states it as cmdline_size, which leaves out the NUL.
 *
 * GUEST TRUST
 *   Nothing here comes from the guest. Keys, values and words may come from a user, unchecked.
 *
 * MEMORY
 *   The caller owns the buffer; strings are copied. A string passed in must not lie in the buffer.
 *
 * THREADS
 *   One at a time per struct tn_cmdline.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Linux, Documentation/admin-guide/kernel-parameters.rst (quotes, `--`) and lib/cmdline.c,
 *   next_arg(); Documentation/arch/x86/boot.rst, "The Kernel Command Line".
 *
 * LIMITS
 *   The kernel has no escape for a double quote, so none can be inside a value. It takes 32
 *   arguments for init at most; they are not counted here.
 */
#ifndef TN_CMDLINE_H
#define TN_CMDLINE_H

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

/* The string so far. With arguments for init it is: boot parameters, `--`, arguments. */
struct tn_cmdline {
    char *buf;   /* always NUL-terminated */
    size_t cap;  /* bytes of buf */
    size_t len;  /* bytes of the string, without the NUL; len + 1 <= cap */
    size_t boot; /* bytes of it up to where ` --` starts; len when there is no `--` */
};

/*@ predicate tn_cmdline_ok(struct tn_cmdline *c) =
      c->boot <= c->len < c->cap && \valid(c->buf + (0 .. c->cap - 1)) && c->buf[c->len] == 0 &&
      \separated(c, c->buf + (0 .. c->cap - 1));
*/

/*
 * Starts an empty string in the caller's buffer of cap bytes. With cap 0 nothing is written, and
 * nothing can be added.
 */
/*@ requires \valid(c) && \valid(buf + (0 .. cap - 1)) && \separated(c, buf + (0 .. cap - 1));
    assigns *c, buf[0];
    ensures cap > 0 ==> tn_cmdline_ok(c) && c->len == 0;
    ensures c->buf == buf && c->cap == cap; */
TN_API void tn_cmdline_init(struct tn_cmdline *c, char *buf, size_t cap);

/*
 * Adds the boot parameter key=value, or key alone when value is NULL. A value with a space in it
 * gets double quotes. Returns 0; TN_EINVAL when the kernel would not read back that key and value:
 * the key is empty, `--`, or has a byte in it that is a space, `=`, a quote or not printable ASCII;
 * the value has a double quote or a control character in it. TN_ENOSPC when it does not fit. After
 * an error the string is as it was.
 */
TN_API int tn_cmdline_add(struct tn_cmdline *c, const char *key, const char *value);

/*
 * Adds a user's words, as they are: boot parameters and, after a word `--`, arguments for init.
 * Returns 0; TN_EINVAL for a control character, an open double quote, a second `--` or one in
 * quotes. TN_ENOSPC when they do not fit. After an error the string is as it was.
 */
TN_API int tn_cmdline_add_text(struct tn_cmdline *c, const char *words);

/*
 * Adds an argument for init, after the `--`, which it adds first if there is none; in double quotes
 * if it has a space in it. Returns 0; TN_EINVAL when it is empty, `--`, or has a double quote or a
 * control character in it. TN_ENOSPC when it does not fit. After an error the string is as it was.
 */
TN_API int tn_cmdline_add_init(struct tn_cmdline *c, const char *arg);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

TN_API void tn_cmdline_init(struct tn_cmdline *c, char *buf, size_t cap)
{
    c->buf = buf;
    c->cap = cap;
    c->len = 0;
    c->boot = 0;
    if (cap > 0)
        buf[0] = 0;
}

/* The bytes that still fit, with the NUL accounted for (D07). */
/*@ requires \valid_read(c) && (c->cap == 0 || c->len < c->cap);
    assigns \nothing;
    ensures c->cap == 0 ==> \result == 0;
    ensures c->cap > 0 ==> c->len + \result + 1 == c->cap; */
static inline size_t tn_cmdline_room_(const struct tn_cmdline *c)
{
    return c->cap > 0 ? c->cap - 1 - c->len : 0;
}

/* Puts n bytes in at `at` and moves what follows, NUL included, up. The caller saw the room. */
/*@ requires \valid(c) && tn_cmdline_ok(c);
    requires at <= c->len && n <= c->cap - 1 - c->len;
    requires \valid_read(src + (0 .. n - 1));
    requires \separated(src + (0 .. n - 1), c->buf + (0 .. c->cap - 1));
    requires \separated(src + (0 .. n - 1), c);
    assigns c->len, c->buf[at .. c->len + n];
    ensures tn_cmdline_ok(c) && c->len == \old(c->len) + n;
    ensures \forall integer i; 0 <= i < n ==> c->buf[at + i] == src[i];
    ensures \forall integer i; at <= i <= \old(c->len) ==> c->buf[i + n] == \old(c->buf[i]); */
static inline void tn_cmdline_insert_(struct tn_cmdline *c, size_t at, const char *src, size_t n)
{
    size_t i;

    /*@ loop invariant at <= i <= c->len + 1;
        loop invariant \forall integer k; i <= k <= c->len ==>
          c->buf[k + n] == \at(c->buf[k], Pre);
        loop invariant \forall integer k; at <= k < i ==> c->buf[k] == \at(c->buf[k], Pre);
        loop assigns i, c->buf[at + n .. c->len + n];
        loop variant i; */
    for (i = c->len + 1; i > at; i--)
        c->buf[i - 1 + n] = c->buf[i - 1];
    /*@ loop invariant 0 <= i <= n;
        loop invariant \forall integer k; 0 <= k < i ==> c->buf[at + k] == src[k];
        loop invariant \forall integer k; at <= k <= c->len ==>
          c->buf[k + n] == \at(c->buf[k], Pre);
        loop assigns i, c->buf[at .. at + n - 1];
        loop variant n - i; */
    for (i = 0; i < n; i++)
        c->buf[at + i] = src[i];
    c->len += n;
}

/* Appends to the boot parameters. */
/*@ requires \valid(c) && tn_cmdline_ok(c);
    requires n <= c->cap - 1 - c->len;
    requires \valid_read(src + (0 .. n - 1));
    requires \separated(src + (0 .. n - 1), c->buf + (0 .. c->cap - 1));
    requires \separated(src + (0 .. n - 1), c);
    assigns c->len, c->boot, c->buf[c->boot .. c->len + n];
    ensures tn_cmdline_ok(c) && c->len == \old(c->len) + n && c->boot == \old(c->boot) + n; */
static inline void tn_cmdline_boot_(struct tn_cmdline *c, const char *src, size_t n)
{
    tn_cmdline_insert_(c, c->boot, src, n);
    c->boot += n;
}

/* The space between the boot parameters so far and the next one, or between that and the `--`. */
static inline void tn_cmdline_next_boot_(struct tn_cmdline *c)
{
    if (c->boot > 0)
        tn_cmdline_boot_(c, " ", 1);
    else if (c->len > 0)
        tn_cmdline_insert_(c, 0, " ", 1);
}

/* How many bytes tn_cmdline_next_init_ adds to a string of len bytes. */
static inline size_t tn_cmdline_init_need_(const struct tn_cmdline *c, size_t len)
{
    return c->boot < c->len ? 1 : len > 0 ? 4 : 3;
}

/* The `--`, if it is not there yet, and the space after it or after the last argument. */
static inline void tn_cmdline_next_init_(struct tn_cmdline *c)
{
    if (c->boot < c->len)
        tn_cmdline_insert_(c, c->len, " ", 1);
    else if (c->len > 0)
        tn_cmdline_insert_(c, c->len, " -- ", 4);
    else
        tn_cmdline_insert_(c, 0, "-- ", 3);
}

static inline bool tn_cmdline_control_(char byte)
{
    return (unsigned char)byte < ' ' || byte == 0x7f;
}

/* What splits words: a space, and the byte that the kernel's isspace() takes for Latin-1's. */
static inline bool tn_cmdline_space_(char byte)
{
    return byte == ' ' || (unsigned char)byte == 0xa0;
}

static inline bool tn_cmdline_dashes_(const char *s)
{
    return s[0] == '-' && s[1] == '-' && !s[2];
}

/* Whether s can be a key; *n is its length. */
static inline bool tn_cmdline_key_(const char *s, size_t *n)
{
    *n = 0;
    if (!s || tn_cmdline_dashes_(s))
        return false;
    for (; s[*n]; ++*n)
        if (s[*n] <= ' ' || s[*n] >= 0x7f || s[*n] == '=' || s[*n] == '"' || s[*n] == '\'')
            return false;
    return *n > 0;
}

/* Whether s can be a value; *n is its length, *quote whether it needs quotes. */
static inline bool tn_cmdline_value_(const char *s, size_t *n, bool *quote)
{
    *quote = false;
    for (*n = 0; s[*n]; ++*n) {
        if (tn_cmdline_control_(s[*n]) || s[*n] == '"')
            return false;
        *quote = *quote || tn_cmdline_space_(s[*n]);
    }
    return true;
}

TN_API int tn_cmdline_add(struct tn_cmdline *c, const char *key, const char *value)
{
    size_t room = tn_cmdline_room_(c);
    size_t klen, vlen = 0, extra = c->len > 0;
    bool quote = false;

    if (!tn_cmdline_key_(key, &klen) || (value && !tn_cmdline_value_(value, &vlen, &quote)))
        return TN_EINVAL;
    if (value)
        extra += quote ? 3 : 1;
    if (klen > room || vlen > room - klen || extra > room - klen - vlen)
        return TN_ENOSPC;
    tn_cmdline_next_boot_(c);
    tn_cmdline_boot_(c, key, klen);
    if (value) {
        tn_cmdline_boot_(c, "=\"", quote ? 2 : 1);
        tn_cmdline_boot_(c, value, vlen);
        tn_cmdline_boot_(c, "\"", quote ? 1 : 0);
    }
    return TN_OK;
}

/*
 * Steps *i over one word, or over the spaces at the end. Returns its length, 0 when there is none,
 * TN_EINVAL for what tn_cmdline_add_text refuses in a word.
 */
static inline int tn_cmdline_word_(const char *s, size_t *i, size_t *start)
{
    bool quoted = false;

    while (s[*i] == ' ')
        ++*i;
    for (*start = *i; s[*i] && (quoted || s[*i] != ' '); ++*i) {
        if (tn_cmdline_control_(s[*i]) || (!quoted && tn_cmdline_space_(s[*i])))
            return TN_EINVAL;
        quoted = quoted != (s[*i] == '"');
    }
    if (quoted)
        return TN_EINVAL;
    return *i > *start;
}

TN_API int tn_cmdline_add_text(struct tn_cmdline *c, const char *words)
{
    size_t room = tn_cmdline_room_(c);
    size_t from[2] = {0, 0}, n[2] = {0, 0}; /* boot parameters, arguments for init */
    size_t i = 0, start, need = 0;
    unsigned part = 0;
    int err;

    if (!words)
        return TN_EINVAL;
    while ((err = tn_cmdline_word_(words, &i, &start)) > 0) {
        const char *w = words + start;

        if (i - start == 4 && w[0] == '"' && w[1] == '-' && w[2] == '-' && w[3] == '"')
            return TN_EINVAL; /* the kernel takes the quotes off before it looks for `--` */
        if (i - start == 2 && w[0] == '-' && w[1] == '-') {
            if (part++ > 0)
                return TN_EINVAL;
            continue;
        }
        if (n[part] == 0)
            from[part] = start;
        n[part] = i - from[part];
    }
    if (err < 0)
        return err;
    if (n[0] > 0)
        need = n[0] + (c->len > 0);
    if (n[1] > 0)
        need += n[1] + tn_cmdline_init_need_(c, c->len + need);
    if (need > room)
        return TN_ENOSPC;
    if (n[0] > 0) {
        tn_cmdline_next_boot_(c);
        tn_cmdline_boot_(c, words + from[0], n[0]);
    }
    if (n[1] > 0) {
        tn_cmdline_next_init_(c);
        tn_cmdline_insert_(c, c->len, words + from[1], n[1]);
    }
    return TN_OK;
}

TN_API int tn_cmdline_add_init(struct tn_cmdline *c, const char *arg)
{
    size_t room = tn_cmdline_room_(c);
    size_t extra = tn_cmdline_init_need_(c, c->len), n;
    bool quote;

    if (!arg || !arg[0] || tn_cmdline_dashes_(arg) || !tn_cmdline_value_(arg, &n, &quote))
        return TN_EINVAL;
    extra += quote ? 2 : 0;
    if (n > room || extra > room - n)
        return TN_ENOSPC;
    tn_cmdline_next_init_(c);
    tn_cmdline_insert_(c, c->len, "\"", quote ? 1 : 0);
    tn_cmdline_insert_(c, c->len, arg, n);
    tn_cmdline_insert_(c, c->len, "\"", quote ? 1 : 0);
    return TN_OK;
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif
