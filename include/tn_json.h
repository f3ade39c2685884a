/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_json - a strict JSON reader over tokens, and a writer.
 *
 * WHAT
 *   Turns a whole document into an array of tokens, checks all of it while it does (grammar, UTF-8,
 *   escapes, nesting, keys that are there twice), and hands out members, elements, strings and
 *   integers. An object can be read field by field, as a table of them: what is missing, of the
 *   wrong type, out of range or unknown is one error at the end, with the name of the field. The
 *   writer puts values one after the other into a buffer; commas and escapes are its own business.
 *
 * USAGE
 *   static const char body[] = "{\"vcpu_count\": 2, \"mem_size_mib\": 128}";
 *   static const char *const pages[] = {"None", "2M"};
 *   struct tn_json_token tokens[64];
 *   struct tn_json_object o;
 *   struct tn_json_writer w;
 *   struct tn_json json;
 *   uint32_t vcpus, mib, huge = 0;
 *   bool smt = false;
 *   char answer[64];
 *
 *   if (tn_json_parse(&json, body, sizeof(body) - 1, tokens, 64) < 0)
 *       return (int)json.detail; // json.at is the offset
 *   tn_json_open(&o, &json, TN_JSON_ROOT);
 *   tn_json_take_u32(&o, "vcpu_count", TN_JSON_MUST, 1, 32, &vcpus);
 *   tn_json_take_u32(&o, "mem_size_mib", TN_JSON_MUST, 1, 1 << 20, &mib);
 *   tn_json_take_bool(&o, "smt", TN_JSON_MAY, &smt);
 *   tn_json_take_choice(&o, "huge_pages", TN_JSON_MAY, pages, 2, &huge);
 *   if (tn_json_close(&o) < 0)
 *       return (int)o.detail; // o.key is the field, o.min and o.max its range
 *
 *   tn_json_begin(&w, answer, sizeof(answer));
 *   tn_json_put_object(&w);
 *   tn_json_put_key(&w, "vcpu_count");
 *   tn_json_put_u64(&w, vcpus);
 *   tn_json_put_end(&w);
 *   if (tn_json_finish(&w) < 0)
 *       return 1;
 *
 * COMPOSITION
 *   tn_http has the body of a request; a specification's parser takes fields from it. tn_strerror
 *   has a sentence for each detail.
 *
 * GUEST TRUST
 *   A document is hostile. It is read once, front to back, without recursion; its size, its depth,
 *   its tokens and the members of an object are capped. The bytes must not change as long as the
 *   tokens are in use: they are looked at again for strings and numbers.
 *
 * MEMORY
 *   The caller owns the document, the tokens, and what strings are copied to. Tokens hold offsets,
 *   and nothing is allocated. The tokens are written by tn_json_parse alone.
 *
 * THREADS
 *   One thread at a time per struct tn_json_object and per writer. A struct tn_json is only read
 *   once it is parsed: by any number of threads.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   RFC 8259; RFC 3629 section 4 for UTF-8. Where RFC 8259 leaves a choice: duplicate names, lone
 *   surrogates and a byte order mark are refused; a document may be any value.
 *
 * LIMITS
 *   TN_JSON_BYTES, TN_JSON_DEPTH, TN_JSON_MEMBERS. Finding duplicates costs at most half of
 *   TN_JSON_MEMBERS steps for each byte of a key. Numbers are integers, or else text. The writer
 *   does not look for duplicates, nor into what is put raw.
 */
#ifndef TN_JSON_H
#define TN_JSON_H

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

#define TN_JSON_BYTES   0x100000u  /* of a document */
#define TN_JSON_DEPTH   32u        /* how deep objects and arrays may nest, the outermost counted */
#define TN_JSON_MEMBERS 256u       /* of one object */
#define TN_JSON_ROOT    0u         /* the index of the document's value */
#define TN_JSON_ABSENT  UINT32_MAX /* the index of a value that is not there */

enum tn_json_type {
    TN_JSON_NONE, /* of a value that is not there; no token has it */
    TN_JSON_NULL,
    TN_JSON_FALSE,
    TN_JSON_TRUE,
    TN_JSON_NUMBER,
    TN_JSON_STRING,
    TN_JSON_ARRAY,
    TN_JSON_OBJECT
};

/*
 * A value. The tokens are in the document's order; a member is the token of its key, a string, and
 * right after it that of its value.
 */
struct tn_json_token {
    uint8_t type;   /* enum tn_json_type */
    uint32_t start; /* the offset of its first byte; a string's: after the quote */
    uint32_t len;   /* its bytes; a string's: without the quotes, as they are in the document */
    uint32_t size;  /* an object's members, an array's elements, a string's bytes once unescaped */
    uint32_t next;  /* the index of the token after it and all that is in it */
};

/* What is wrong. tn_strerror has the sentences. */
enum tn_json_detail {
    TN_JSON_FINE = 0,
    /* of a document; at is the offset of the byte, or in a string the character, that is wrong */
    TN_JSON_EMPTY = 1,      /* nothing, or white space alone */
    TN_JSON_ENDS = 2,       /* it ends inside a value */
    TN_JSON_TOO_LARGE = 3,  /* above TN_JSON_BYTES */
    TN_JSON_TOO_DEEP = 4,   /* above TN_JSON_DEPTH */
    TN_JSON_TOO_MANY = 5,   /* tokens: above the caller's capacity */
    TN_JSON_TOO_WIDE = 6,   /* members: above TN_JSON_MEMBERS */
    TN_JSON_VALUE = 7,      /* a value has to begin here */
    TN_JSON_KEY = 8,        /* a key has to begin here */
    TN_JSON_COLON = 9,      /* a colon is missing after a key */
    TN_JSON_COMMA = 10,     /* a comma, or the end of the object or array, is missing */
    TN_JSON_AFTER = 11,     /* something other than white space follows the document */
    TN_JSON_LITERAL = 12,   /* not true, false or null */
    TN_JSON_DIGIT = 13,     /* a number lacks a digit here, or has a zero in front */
    TN_JSON_CONTROL = 14,   /* a control character in a string */
    TN_JSON_ESCAPE = 15,    /* an unknown escape, or not four hexadecimal digits */
    TN_JSON_SURROGATE = 16, /* half of a surrogate pair */
    TN_JSON_UTF8 = 17,      /* not UTF-8 */
    TN_JSON_DUPLICATE = 18, /* the object has this key already */
    /* of a field */
    TN_JSON_UNKNOWN = 32, /* the object has a key that nobody asked for; name is its index */
    TN_JSON_MISSING = 33,
    TN_JSON_NOT_OBJECT = 34,
    TN_JSON_NOT_ARRAY = 35,
    TN_JSON_NOT_STRING = 36,
    TN_JSON_NOT_NUMBER = 37,
    TN_JSON_NOT_BOOL = 38,
    TN_JSON_NOT_INTEGER = 39, /* a fraction or an exponent */
    TN_JSON_RANGE = 40,       /* below min or above max */
    TN_JSON_LONG = 41,        /* a string of more than max bytes */
    TN_JSON_HAS_NUL = 42,     /* a string with U+0000 in it */
    TN_JSON_CHOICE = 43,      /* not one of the strings that it may be */
    TN_JSON_COUNT = 44,       /* fewer elements than min or more than max */
    TN_JSON_REFUSED = 45      /* the caller's tn_json_refuse */
};

/* A document that was parsed. */
struct tn_json {
    const uint8_t *text;
    uint32_t len; /* bytes of text */
    const struct tn_json_token *tokens;
    uint32_t count;  /* of tokens; 0: an error */
    uint32_t at;     /* after an error: the offset where it was found */
    uint32_t detail; /* enum tn_json_detail */
};

/*
 * Parses the len bytes at text into at most cap tokens. Returns 0; or
 *   TN_EFORMAT  it is not JSON, or a key is twice in an object
 *   TN_ETRUNC   it ends too early
 *   TN_ENOFIT   it is above TN_JSON_BYTES, TN_JSON_DEPTH, TN_JSON_MEMBERS or cap
 * and then j->at and j->detail say more, and j has no values. (RFC 8259 section 2)
 */
TN_API int tn_json_parse(struct tn_json *j, const void *text, size_t len,
                         struct tn_json_token *tokens, size_t cap);

/*
 * Values are named by the index of their token. Any index is a fair argument: one that is none, as
 * TN_JSON_ABSENT, is a value of type TN_JSON_NONE.
 */
TN_API enum tn_json_type tn_json_type(const struct tn_json *j, uint32_t value);

/* The value of an object's member; TN_JSON_ABSENT: there is none, or it is no object. */
TN_API uint32_t tn_json_member(const struct tn_json *j, uint32_t object, const char *key);

/* An array's element, from 0 on; TN_JSON_ABSENT: there is none, or it is no array. */
TN_API uint32_t tn_json_element(const struct tn_json *j, uint32_t array, uint32_t n);

/*
 * Walks through the elements of an array or the members of an object: *value is 0 at first, and
 * then the value; a member's key is the string *value - 1. Returns false at the end.
 */
TN_API bool tn_json_next(const struct tn_json *j, uint32_t container, uint32_t *value);

/* Whether a value is this string, once unescaped. */
TN_API bool tn_json_is(const struct tn_json *j, uint32_t value, const char *text);

/*
 * A string, unescaped, into cap bytes, with a NUL after it. Returns its length; TN_EFORMAT when it
 * is no string or has U+0000 in it; TN_ENOFIT when it is longer than cap - 1. After an error buf is
 * an empty string, if cap is not 0.
 */
TN_API int64_t tn_json_get_string(const struct tn_json *j, uint32_t value, char *buf, size_t cap);

/*
 * An integer. Returns 0; TN_EFORMAT when it is no number, or has a fraction or an exponent;
 * TN_ERANGE when the type does not hold it. After an error *out is 0.
 */
TN_API int tn_json_get_u64(const struct tn_json *j, uint32_t value, uint64_t *out);
TN_API int tn_json_get_i64(const struct tn_json *j, uint32_t value, int64_t *out);

/* true or false. Returns 0, or TN_EFORMAT, and *out is false. */
TN_API int tn_json_get_bool(const struct tn_json *j, uint32_t value, bool *out);

/*
 * An object, field by field. The first mistake sticks: what comes after it does nothing, and
 * tn_json_close returns it; key, at and detail tell what is wrong with what. Each take returns
 * whether the field is there and right; if it is not there, what was to take it is left as it was,
 * so that defaults go there beforehand.
 */
struct tn_json_object {
    const struct tn_json *json;
    uint32_t object; /* its index */
    uint32_t taken[TN_JSON_MEMBERS / 32];
    int err;         /* the first error; 0: none. What follows is of that. */
    uint32_t detail; /* enum tn_json_detail */
    uint32_t at;     /* the offset of the value; of the object, if the value is missing */
    uint32_t name;   /* the index of a key that is unknown */
    const char *key; /* the field's name, as the caller gave it; NULL: the object's, or name */
    uint64_t min;    /* what an integer may be, a string's bytes or an array's elements; else 0 */
    uint64_t max;
};

/* What a field's absence means; or-ed with TN_JSON_OR_NULL, null is the same as absence. */
#define TN_JSON_MAY     0u
#define TN_JSON_MUST    1u
#define TN_JSON_OR_NULL 2u

/* Begins to read the object that value is. j lives as long as o, and so do the keys. */
TN_API void tn_json_open(struct tn_json_object *o, const struct tn_json *j, uint32_t value);

/* Fields that are integers in min .. max, both of them allowed. */
TN_API bool tn_json_take_u32(struct tn_json_object *o, const char *key, unsigned flags,
                             uint32_t min, uint32_t max, uint32_t *out);
TN_API bool tn_json_take_u64(struct tn_json_object *o, const char *key, unsigned flags,
                             uint64_t min, uint64_t max, uint64_t *out);

TN_API bool tn_json_take_bool(struct tn_json_object *o, const char *key, unsigned flags, bool *out);

/* A string without U+0000, and a NUL after it; of cap - 1 bytes at most. */
TN_API bool tn_json_take_string(struct tn_json_object *o, const char *key, unsigned flags,
                                char *buf, size_t cap);

/* One of count strings; *out is its number. */
TN_API bool tn_json_take_choice(struct tn_json_object *o, const char *key, unsigned flags,
                                const char *const *choices, uint32_t count, uint32_t *out);

/* An object, which is then opened; an array of min .. max elements, or a value of any type. */
TN_API bool tn_json_take_object(struct tn_json_object *o, const char *key, unsigned flags,
                                struct tn_json_object *out);
TN_API bool tn_json_take_array(struct tn_json_object *o, const char *key, unsigned flags,
                               uint32_t min, uint32_t max, uint32_t *out);
TN_API bool tn_json_take_value(struct tn_json_object *o, const char *key, unsigned flags,
                               uint32_t *out);

/*
 * For a field that was taken, but that the caller finds wrong: makes that the error, TN_ERANGE and
 * TN_JSON_REFUSED, if there is none yet.
 */
TN_API void tn_json_refuse(struct tn_json_object *o, const char *key);

/*
 * Call it after the last field, before any is used. Returns 0; TN_EFORMAT when a field is of the
 * wrong type, missing or unknown; TN_ERANGE when its value is not one of those allowed.
 */
TN_API int tn_json_close(struct tn_json_object *o);

/*
 * Writing: an object's key before each of its values. The first mistake sticks: what comes after it
 * does nothing, and tn_json_finish returns it. TN_ENOSPC: cap is too small, or it nests deeper than
 * TN_JSON_DEPTH; TN_EINVAL: a string is not UTF-8, or what is put raw is empty; TN_ESTATE: a value
 * without a key in an object, a key anywhere else, an end too many or too few, no value at all or a
 * second one.
 */
struct tn_json_writer {
    char *buf;
    size_t cap;
    size_t len;
    uint32_t depth;
    uint32_t objects; /* a bit for each depth: it is an object */
    bool comma;       /* one is due before what comes next */
    bool key;         /* a key was the last */
    int err;          /* the first error; 0: none */
};

/*@ predicate tn_json_writer_ok(struct tn_json_writer *w) =
      w->len <= w->cap && w->depth <= TN_JSON_DEPTH && \valid(w->buf + (0 .. w->cap - 1)) &&
      \separated(w, w->buf + (0 .. w->cap - 1));
*/

/* Starts a document in the cap bytes at buf. */
TN_API void tn_json_begin(struct tn_json_writer *w, char *buf, size_t cap);

TN_API void tn_json_put_object(struct tn_json_writer *w);
TN_API void tn_json_put_array(struct tn_json_writer *w);
TN_API void tn_json_put_end(struct tn_json_writer *w); /* of the innermost of these */
TN_API void tn_json_put_key(struct tn_json_writer *w, const char *key);
TN_API void tn_json_put_string(struct tn_json_writer *w, const char *text);
TN_API void tn_json_put_text(struct tn_json_writer *w, const void *text, size_t len);
TN_API void tn_json_put_u64(struct tn_json_writer *w, uint64_t value);
TN_API void tn_json_put_i64(struct tn_json_writer *w, int64_t value);
TN_API void tn_json_put_bool(struct tn_json_writer *w, bool value);
TN_API void tn_json_put_null(struct tn_json_writer *w);

/* A value that is JSON already, as it is; not empty. */
TN_API void tn_json_put_raw(struct tn_json_writer *w, const void *json, size_t len);

/* The document's length, no NUL after it; or the first error. */
TN_API int64_t tn_json_finish(const struct tn_json_writer *w);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* What may come next, but white space. */
#define TN_JSON_WANT_VALUE_   0u
#define TN_JSON_WANT_ELEMENT_ 1u /* a value, or the end of an array that is empty so far */
#define TN_JSON_WANT_KEY_     2u
#define TN_JSON_WANT_MEMBER_  3u /* a key, or the end of an object that is empty so far */
#define TN_JSON_WANT_COLON_   4u
#define TN_JSON_WANT_COMMA_   5u /* a comma, or the end of what is open */
#define TN_JSON_WANT_NOTHING_ 6u

/* A document while it is parsed. */
struct tn_json_scan_ {
    const uint8_t *text;
    struct tn_json_token *tokens;
    uint32_t len;
    uint32_t cap;
    uint32_t count;
    uint32_t pos;
    uint32_t want;
    uint32_t depth;
    uint32_t detail;
    uint32_t at;
    uint32_t open[TN_JSON_DEPTH]; /* the tokens of what is open, the innermost last */
};

/*@ predicate tn_json_tokens_ok{L}(struct tn_json_token *t, integer count, integer pos) =
      \forall integer i; 0 <= i < count ==>
        i < t[i].next <= count && t[i].start <= pos && t[i].len <= pos - t[i].start &&
        t[i].size <= TN_JSON_MEMBERS + count + pos;
    predicate tn_json_scan_ok{L}(struct tn_json_scan_ *s) =
      s->pos <= s->len <= TN_JSON_BYTES && s->count <= s->cap <= TN_JSON_BYTES &&
      s->depth <= TN_JSON_DEPTH && \valid_read(s->text + (0 .. s->len - 1)) &&
      \valid(s->tokens + (0 .. s->cap - 1)) && \separated(s, s->tokens + (0 .. s->cap - 1)) &&
      \separated(s->text + (0 .. s->len - 1), s->tokens + (0 .. s->cap - 1)) &&
      \separated(s, s->text + (0 .. s->len - 1)) &&
      (\forall integer k; 0 <= k < s->depth ==> s->open[k] < s->count) &&
      tn_json_tokens_ok(s->tokens, s->count, s->pos);
*/

/* ---- characters ---- */

/*@ assigns \nothing; ensures \result <==> '0' <= c <= '9'; */
static inline bool tn_json_digit_(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/*@ assigns \nothing; ensures \result <==> c == ' ' || c == 0x09 || c == 0x0a || c == 0x0d; */
static inline bool tn_json_white_(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* The value of a hexadecimal digit; 16: it is none. */
/*@ assigns \nothing; ensures \result <= 16; */
static inline uint32_t tn_json_hex_(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - (uint32_t)'0';
    if (c >= 'a' && c <= 'f')
        return c - (uint32_t)'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - (uint32_t)'A' + 10;
    return 16;
}

/*
 * One character in UTF-8, of the left bytes at p. Returns how many it takes, and its code point; 0
 * when it is none, and *detail is TN_JSON_UTF8, or TN_JSON_ENDS if it could still become one.
 * (RFC 3629 section 4)
 */
/*@ requires left > 0 && \valid_read(p + (0 .. left - 1)) && \valid(code) && \valid(detail);
    requires \separated(code, detail, p + (0 .. left - 1));
    assigns *code, *detail;
    ensures \result <= 4 && \result <= left;
    ensures \result > 0 ==> *code <= 0x10ffff && (*code < 0xd800 || *code > 0xdfff);
    ensures \result > 0 ==> (\result == 1 <==> *code < 0x80);
    ensures \result == 2 ==> 0x80 <= *code < 0x800;
    ensures \result == 3 ==> 0x800 <= *code < 0x10000;
    ensures \result == 4 ==> 0x10000 <= *code;
    ensures \result == 1 ==> *code == p[0];
    ensures \result == 0 ==> *detail == TN_JSON_UTF8 || *detail == TN_JSON_ENDS; */
static inline uint32_t tn_json_utf8_(const uint8_t *p, size_t left, uint32_t *code,
                                     uint32_t *detail)
{
    uint8_t lead = p[0];
    uint32_t n = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4, i;
    uint32_t c = n == 1 ? lead : n == 2 ? lead % 32u : n == 3 ? lead % 16u : lead % 8u;
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;

    *code = 0;
    *detail = TN_JSON_UTF8;
    if ((lead >= 0x80 && lead < 0xc2) || lead > 0xf4)
        return 0;
    /*@ loop invariant 1 <= i <= n && i <= left;
        loop invariant low >= 0x80 && high <= 0xbf && *detail == TN_JSON_UTF8;
        loop invariant i == 1 && n == 1 ==> c == lead;
        loop invariant i == 1 && n == 2 ==> 2 <= c < 32;
        loop invariant i == 1 && n == 3 ==> c < 16 && (c == 0 ==> low == 0xa0) &&
          (c == 13 ==> high == 0x9f);
        loop invariant i == 1 && n == 4 ==> c <= 4 && (c == 0 ==> low == 0x90) &&
          (c == 4 ==> high == 0x8f);
        loop invariant i == 2 && n == 2 ==> 0x80 <= c < 0x800;
        loop invariant i == 2 && n == 3 ==> 0x20 <= c < 0x400 && (c < 0x360 || c > 0x37f);
        loop invariant i == 2 && n == 4 ==> 0x10 <= c < 0x110;
        loop invariant i == 3 && n == 3 ==> 0x800 <= c < 0x10000 && (c < 0xd800 || c > 0xdfff);
        loop invariant i == 3 && n == 4 ==> 0x400 <= c < 0x4400;
        loop invariant i == 4 ==> 0x10000 <= c < 0x110000;
        loop assigns i, c, low, high, *detail;
        loop variant n - i; */
    for (i = 1; i < n; i++) {
        if (i == left) {
            *detail = TN_JSON_ENDS;
            return 0;
        }
        if (p[i] < low || p[i] > high)
            return 0;
        c = c * 64 + (p[i] - 0x80u);
        low = 0x80;
        high = 0xbf;
    }
    *code = c;
    return n;
}

/* Puts a character into out, in UTF-8. Returns how many bytes it takes. */
/*@ requires code <= 0x10ffff && \valid(out + (0 .. 3));
    assigns out[0 .. 3];
    ensures 1 <= \result <= 4;
    ensures \result == 1 <==> code < 0x80;
    ensures \result == 1 ==> out[0] == code;
    ensures \result == 2 <==> 0x80 <= code < 0x800;
    ensures \result == 3 <==> 0x800 <= code < 0x10000; */
static inline uint32_t tn_json_encode_(uint32_t code, uint8_t *out)
{
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (uint8_t)(0xc0 + code / 64);
        out[1] = (uint8_t)(0x80 + code % 64);
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (uint8_t)(0xe0 + code / 4096);
        out[1] = (uint8_t)(0x80 + code / 64 % 64);
        out[2] = (uint8_t)(0x80 + code % 64);
        return 3;
    }
    out[0] = (uint8_t)(0xf0 + code / 262144);
    out[1] = (uint8_t)(0x80 + code / 4096 % 64);
    out[2] = (uint8_t)(0x80 + code / 64 % 64);
    out[3] = (uint8_t)(0x80 + code % 64);
    return 4;
}

/* The \uXXXX at p. Returns 0, TN_JSON_ENDS or TN_JSON_ESCAPE. */
/*@ requires \valid_read(p + (0 .. left - 1)) && \valid(unit);
    requires \separated(unit, p + (0 .. left - 1));
    assigns *unit;
    ensures \result == TN_JSON_FINE || \result == TN_JSON_ENDS || \result == TN_JSON_ESCAPE;
    ensures \result == TN_JSON_FINE ==> left >= 6 && *unit <= 0xffff; */
static inline uint32_t tn_json_unit_(const uint8_t *p, size_t left, uint32_t *unit)
{
    uint32_t v = 0, i;

    *unit = 0;
    /*@ loop invariant 0 <= i <= 6 && i <= left;
        loop invariant (i <= 2 ==> v == 0) && (i == 3 ==> v < 16) && (i == 4 ==> v < 256) &&
          (i == 5 ==> v < 4096) && (i == 6 ==> v < 65536);
        loop assigns i, v;
        loop variant 6 - i; */
    for (i = 0; i < 6; i++) {
        uint32_t digit;

        if (i == left)
            return TN_JSON_ENDS;
        digit = i == 0 ? p[i] != '\\' : i == 1 ? p[i] != 'u' : tn_json_hex_(p[i]);
        if (digit > 15 || (i < 2 && digit > 0))
            return TN_JSON_ESCAPE;
        v = v * 16 + digit;
    }
    *unit = v;
    return TN_JSON_FINE;
}

/* The escape at p, of more than one byte, the first a backslash; as tn_json_char_. */
/*@ requires left > 0 && \valid_read(p + (0 .. left - 1)) && \valid(code) && \valid(detail);
    requires \separated(code, detail, p + (0 .. left - 1));
    assigns *code, *detail;
    ensures \result <= 12 && \result <= left && \result != 1;
    ensures \result > 0 ==> *code <= 0x10ffff && (*code < 0xd800 || *code > 0xdfff);
    ensures 0 < \result < 12 ==> *code < 0x10000;
    ensures 0 < \result < 6 ==> *code < 0x80;
    ensures \result == 0 ==> TN_JSON_ENDS <= *detail <= TN_JSON_UTF8; */
static inline uint32_t tn_json_escape_(const uint8_t *p, size_t left, uint32_t *code,
                                       uint32_t *detail)
{
    uint32_t low;

    *code = 0;
    *detail = TN_JSON_ENDS;
    if (left < 2)
        return 0;
    switch (p[1]) {
    case '"':
    case '\\':
    case '/':
        *code = p[1];
        return 2;
    case 'b':
        *code = '\b';
        return 2;
    case 'f':
        *code = '\f';
        return 2;
    case 'n':
        *code = '\n';
        return 2;
    case 'r':
        *code = '\r';
        return 2;
    case 't':
        *code = '\t';
        return 2;
    default:
        break;
    }
    *detail = tn_json_unit_(p, left, code);
    if (*detail)
        return 0;
    if (*code < 0xd800 || *code > 0xdfff)
        return 6;
    *detail = TN_JSON_SURROGATE;
    if (*code > 0xdbff)
        return 0;
    *detail = tn_json_unit_(p + 6, left - 6, &low);
    if (*detail == TN_JSON_ESCAPE)
        *detail = TN_JSON_SURROGATE;
    if (*detail)
        return 0;
    *detail = TN_JSON_SURROGATE;
    if (low < 0xdc00 || low > 0xdfff)
        return 0;
    *code = 0x10000 + (*code - 0xd800) * 0x400 + (low - 0xdc00);
    return 12;
}

/*
 * One character of a string, as it is or escaped, of the left bytes at p. Returns how many it
 * takes, and its code point; 0 when it is none, and *detail tells why. (RFC 8259 section 7)
 */
/*@ requires left > 0 && \valid_read(p + (0 .. left - 1)) && \valid(code) && \valid(detail);
    requires \separated(code, detail, p + (0 .. left - 1));
    assigns *code, *detail;
    ensures \result <= 12 && \result <= left;
    ensures \result > 0 ==> *code <= 0x10ffff && (*code < 0xd800 || *code > 0xdfff);
    ensures \result > 0 ==> (\result == 1 ==> *code < 0x80) && (\result == 2 ==> *code < 0x800) &&
      (\result < 4 ==> *code < 0x10000);
    ensures \result == 0 ==> TN_JSON_ENDS <= *detail <= TN_JSON_UTF8;
    ensures p[0] < 0x20 ==> \result == 0 && *detail == TN_JSON_CONTROL; */
static inline uint32_t tn_json_char_(const uint8_t *p, size_t left, uint32_t *code,
                                     uint32_t *detail)
{
    if (p[0] == '\\')
        return tn_json_escape_(p, left, code, detail);
    if (p[0] >= 0x20)
        return tn_json_utf8_(p, left, code, detail);
    *code = 0;
    *detail = TN_JSON_CONTROL;
    return 0;
}

/* ---- the tokenizer: *pos is where to begin, and then where it ended or what is wrong ---- */

/*
 * A string whose quote was read. Returns 0, and *pos is that of the other quote; or what is wrong.
 * *size is its bytes once unescaped.
 */
/*@ requires *pos <= len <= TN_JSON_BYTES && \valid_read(text + (0 .. len - 1));
    requires \valid(pos) && \valid(size) && \separated(pos, size, text + (0 .. len - 1));
    assigns *pos, *size;
    ensures \old(*pos) <= *pos <= len && *size <= *pos - \old(*pos);
    ensures \result == TN_JSON_FINE ==> *pos < len && text[*pos] == '"';
    ensures \result <= TN_JSON_UTF8; */
static inline uint32_t tn_json_string_(const uint8_t *text, uint32_t len, uint32_t *pos,
                                       uint32_t *size)
{
    *size = 0;
    /*@ loop invariant \at(*pos, Pre) <= *pos <= len && *size <= *pos - \at(*pos, Pre);
        loop assigns *pos, *size;
        loop variant len - *pos; */
    while (*pos < len) {
        uint32_t code, detail, n;

        if (text[*pos] == '"')
            return TN_JSON_FINE;
        n = tn_json_char_(text + *pos, len - *pos, &code, &detail);
        if (n == 0) {
            if (detail == TN_JSON_ENDS)
                *pos = len;
            return detail;
        }
        *pos += n;
        *size += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    }
    return TN_JSON_ENDS;
}

/* One digit or more. */
/*@ requires *pos <= len <= TN_JSON_BYTES && \valid_read(text + (0 .. len - 1)) && \valid(pos);
    requires \separated(pos, text + (0 .. len - 1));
    assigns *pos;
    ensures \old(*pos) <= *pos <= len;
    ensures \result == TN_JSON_FINE <==> *pos > \old(*pos);
    ensures \result == TN_JSON_FINE || \result == TN_JSON_DIGIT || \result == TN_JSON_ENDS;
    ensures *pos < len ==> !('0' <= text[*pos] <= '9');
    ensures \forall integer i; \old(*pos) <= i < *pos ==> '0' <= text[i] <= '9'; */
static inline uint32_t tn_json_digits_(const uint8_t *text, uint32_t len, uint32_t *pos)
{
    uint32_t from = *pos;

    /*@ loop invariant from <= *pos <= len;
        loop invariant \forall integer i; from <= i < *pos ==> '0' <= text[i] <= '9';
        loop assigns *pos;
        loop variant len - *pos; */
    while (*pos < len && tn_json_digit_(text[*pos]))
        ++*pos;
    return *pos > from ? TN_JSON_FINE : *pos < len ? TN_JSON_DIGIT : TN_JSON_ENDS;
}

/* (RFC 8259 section 6) */
/*@ requires *pos < len <= TN_JSON_BYTES && \valid_read(text + (0 .. len - 1)) && \valid(pos);
    requires \separated(pos, text + (0 .. len - 1));
    assigns *pos;
    ensures \old(*pos) <= *pos <= len;
    ensures \result == TN_JSON_FINE ==> *pos > \old(*pos);
    ensures \result <= TN_JSON_UTF8; */
static inline uint32_t tn_json_number_(const uint8_t *text, uint32_t len, uint32_t *pos)
{
    uint32_t detail, first;

    if (text[*pos] == '-')
        ++*pos;
    first = *pos;
    detail = tn_json_digits_(text, len, pos);
    if (detail)
        return detail;
    if (text[first] == '0' && *pos - first > 1) {
        *pos = first + 1;
        return TN_JSON_DIGIT;
    }
    if (*pos < len && text[*pos] == '.') {
        ++*pos;
        detail = tn_json_digits_(text, len, pos);
        if (detail)
            return detail;
    }
    if (*pos < len && (text[*pos] == 'e' || text[*pos] == 'E')) {
        ++*pos;
        if (*pos < len && (text[*pos] == '+' || text[*pos] == '-'))
            ++*pos;
        return tn_json_digits_(text, len, pos);
    }
    return TN_JSON_FINE;
}

/* A word of n bytes. */
/*@ requires *pos < len <= TN_JSON_BYTES && \valid_read(text + (0 .. len - 1)) && \valid(pos);
    requires 0 < n <= 5 && \valid_read(word + (0 .. n - 1));
    requires \separated(pos, text + (0 .. len - 1)) && \separated(pos, word + (0 .. n - 1));
    assigns *pos;
    ensures \old(*pos) <= *pos <= len && *pos - \old(*pos) <= n;
    ensures \result == TN_JSON_FINE <==> *pos - \old(*pos) == n;
    ensures \forall integer i; 0 <= i < *pos - \old(*pos) ==>
      text[\old(*pos) + i] == (uint8_t)word[i];
    ensures \result <= TN_JSON_UTF8; */
static inline uint32_t tn_json_word_(const uint8_t *text, uint32_t len, uint32_t *pos,
                                     const char *word, uint32_t n)
{
    uint32_t i;

    /*@ loop invariant 0 <= i <= n && *pos == \at(*pos, Pre) + i && *pos <= len;
        loop invariant \forall integer k; 0 <= k < i ==>
          text[\at(*pos, Pre) + k] == (uint8_t)word[k];
        loop assigns i, *pos;
        loop variant n - i; */
    for (i = 0; i < n; i++) {
        if (*pos == len)
            return TN_JSON_ENDS;
        if (text[*pos] != (uint8_t)word[i])
            return TN_JSON_LITERAL;
        ++*pos;
    }
    return TN_JSON_FINE;
}

/*@ requires \valid(s) && tn_json_scan_ok(s);
    assigns s->detail, s->at;
    ensures tn_json_scan_ok(s);
    ensures !\result && s->detail == detail && s->at == at; */
static inline bool tn_json_fail_(struct tn_json_scan_ *s, uint32_t detail, uint32_t at)
{
    s->detail = detail;
    s->at = at;
    return false;
}

/* A token of what was read, and in an array one element more. Returns false: there is no room. */
/*@ requires \valid(s) && tn_json_scan_ok(s) && start <= s->pos && len <= s->pos - start;
    requires size <= s->pos;
    assigns s->detail, s->at, s->count, s->tokens[0 .. s->cap - 1];
    ensures tn_json_scan_ok(s);
    ensures \result ==> \old(s->count) < s->cap && s->count == \old(s->count) + 1;
    ensures !\result ==> s->count == \old(s->count) && s->detail == TN_JSON_TOO_MANY; */
static inline bool tn_json_add_(struct tn_json_scan_ *s, uint8_t type, uint32_t start, uint32_t len,
                                uint32_t size)
{
    struct tn_json_token *t = s->tokens;

    if (s->count >= s->cap)
        return tn_json_fail_(s, TN_JSON_TOO_MANY, start);
    t[s->count].type = type;
    t[s->count].start = start;
    t[s->count].len = len;
    t[s->count].size = size;
    t[s->count].next = s->count + 1;
    s->count++;
    /*@ assert tn_json_tokens_ok(t, s->count, s->pos); */
    /*@ assert \forall integer i; 0 <= i < s->count ==>
          t[i].size < TN_JSON_MEMBERS + s->count + s->pos; */
    /*@ assert \forall integer k; 0 <= k < s->depth ==> s->open[k] < s->count; */
    if (s->depth > 0 && t[s->open[s->depth - 1]].type == TN_JSON_ARRAY)
        t[s->open[s->depth - 1]].size++;
    /*@ assert \forall integer i; 0 <= i < s->count ==>
          t[i].size <= TN_JSON_MEMBERS + s->count + s->pos; */
    /*@ assert tn_json_tokens_ok(t, s->count, s->pos); */
    /*@ assert \forall integer k; 0 <= k < s->depth ==> s->open[k] < s->count; */
    return true;
}

/* What may follow a value. */
/*@ requires \valid(s) && tn_json_scan_ok(s);
    assigns s->want;
    ensures tn_json_scan_ok(s); */
static inline void tn_json_after_(struct tn_json_scan_ *s)
{
    s->want = s->depth > 0 ? TN_JSON_WANT_COMMA_ : TN_JSON_WANT_NOTHING_;
}

/* A brace or bracket that opens. */
/*@ requires \valid(s) && tn_json_scan_ok(s) && s->pos < s->len;
    assigns *s, s->tokens[0 .. s->cap - 1];
    ensures tn_json_scan_ok(s) && s->cap == \old(s->cap) && s->len == \old(s->len) &&
      s->text == \old(s->text) && s->tokens == \old(s->tokens);
    ensures \result ==> s->pos == \old(s->pos) + 1 && s->depth == \old(s->depth) + 1;
    ensures !\result ==> s->depth == \old(s->depth); */
static inline bool tn_json_down_(struct tn_json_scan_ *s, uint8_t type)
{
    if (s->depth >= TN_JSON_DEPTH)
        return tn_json_fail_(s, TN_JSON_TOO_DEEP, s->pos);
    s->pos++;
    /*@ assert tn_json_tokens_ok(s->tokens, s->count, \at(s->pos, Pre)); */
    if (!tn_json_add_(s, type, s->pos - 1, 1, 0))
        return false;
    s->open[s->depth] = s->count - 1;
    /*@ assert tn_json_tokens_ok(s->tokens, s->count, s->pos); */
    s->depth++;
    /*@ assert tn_json_tokens_ok(s->tokens, s->count, s->pos); */
    s->want = type == TN_JSON_OBJECT ? TN_JSON_WANT_MEMBER_ : TN_JSON_WANT_ELEMENT_;
    return true;
}

/* A brace or bracket that closes: the token has all between the two. */
/*@ requires \valid(s) && tn_json_scan_ok(s) && s->pos < s->len && s->depth > 0;
    assigns *s, s->tokens[0 .. s->cap - 1];
    ensures tn_json_scan_ok(s) && s->cap == \old(s->cap) && s->len == \old(s->len) &&
      s->text == \old(s->text) && s->tokens == \old(s->tokens);
    ensures \result && s->pos == \old(s->pos) + 1 && s->depth == \old(s->depth) - 1; */
static inline bool tn_json_up_(struct tn_json_scan_ *s)
{
    struct tn_json_token *t = s->tokens + s->open[s->depth - 1];

    s->pos++;
    t->len = s->pos - t->start;
    t->next = s->count;
    s->depth--;
    tn_json_after_(s);
    return true;
}

/* A string of the document as two bounds; the next character, TN_JSON_ABSENT at its end. */
/*@ requires *pos <= end && \valid_read(text + (0 .. end - 1)) && \valid(pos);
    requires \separated(pos, text + (0 .. end - 1));
    assigns *pos;
    ensures \old(*pos) <= *pos <= end;
    ensures \result != TN_JSON_ABSENT ==> *pos > \old(*pos) && \result <= 0x10ffff; */
static inline uint32_t tn_json_step_(const uint8_t *text, uint32_t end, uint32_t *pos)
{
    uint32_t code, detail, n;

    if (*pos == end)
        return TN_JSON_ABSENT;
    n = tn_json_char_(text + *pos, end - *pos, &code, &detail);
    *pos += n;
    return n > 0 ? code : TN_JSON_ABSENT;
}

/* Whether two strings are the same once unescaped. */
/*@ requires \valid_read(a) && \valid_read(b) && \valid_read(text + (0 .. len - 1));
    requires a->start <= len && a->len <= len - a->start;
    requires b->start <= len && b->len <= len - b->start;
    assigns \nothing; */
static inline bool tn_json_same_(const uint8_t *text, uint32_t len, const struct tn_json_token *a,
                                 const struct tn_json_token *b)
{
    uint32_t i = a->start, j = b->start, one, two;

    (void)len;
    if (a->size != b->size)
        return false;
    /*@ loop invariant a->start <= i <= a->start + a->len;
        loop invariant b->start <= j <= b->start + b->len;
        loop assigns i, j, one, two;
        loop variant a->start + a->len - i; */
    do {
        one = tn_json_step_(text, a->start + a->len, &i);
        two = tn_json_step_(text, b->start + b->len, &j);
        if (one != two)
            return false;
    } while (one != TN_JSON_ABSENT);
    return true;
}

/* Whether the last token, a key, is in its object already. */
/*@ requires \valid(s) && tn_json_scan_ok(s) && s->count > 0 && object < s->count;
    assigns \nothing; */
static inline bool tn_json_twice_(const struct tn_json_scan_ *s, uint32_t object)
{
    const struct tn_json_token *t = s->tokens;
    uint32_t key = s->count - 1, k;

    /*@ loop invariant object < k <= s->count;
        loop assigns k;
        loop variant s->count - k; */
    for (k = object + 1; k < key; k = t[k + 1].next)
        if (tn_json_same_(s->text, s->len, &t[k], &t[key]))
            return true;
    return false;
}

/* A string that is a value or a key. */
/*@ requires \valid(s) && tn_json_scan_ok(s) && s->pos < s->len;
    assigns *s, s->tokens[0 .. s->cap - 1];
    ensures tn_json_scan_ok(s) && s->cap == \old(s->cap) && s->len == \old(s->len) &&
      s->text == \old(s->text) && s->tokens == \old(s->tokens) && s->depth == \old(s->depth);
    ensures \result ==> s->pos > \old(s->pos) && s->count == \old(s->count) + 1; */
static inline bool tn_json_quoted_(struct tn_json_scan_ *s)
{
    uint32_t start = s->pos + 1, end = start, size = 0, detail;

    detail = tn_json_string_(s->text, s->len, &end, &size);
    if (detail)
        return tn_json_fail_(s, detail, end);
    s->pos = end + 1;
    /*@ assert tn_json_tokens_ok(s->tokens, s->count, \at(s->pos, Pre)); */
    return tn_json_add_(s, TN_JSON_STRING, start, end - start, size);
}

/* A number, or one of the three words. */
/*@ requires \valid(s) && tn_json_scan_ok(s) && s->pos < s->len;
    assigns *s, s->tokens[0 .. s->cap - 1];
    ensures tn_json_scan_ok(s) && s->cap == \old(s->cap) && s->len == \old(s->len) &&
      s->text == \old(s->text) && s->tokens == \old(s->tokens) && s->depth == \old(s->depth);
    ensures \result ==> s->pos > \old(s->pos) && s->count == \old(s->count) + 1; */
static inline bool tn_json_plain_(struct tn_json_scan_ *s)
{
    uint8_t c = s->text[s->pos], type = TN_JSON_NUMBER;
    uint32_t start = s->pos, end = start, detail;

    if (c == 'n') {
        type = TN_JSON_NULL;
        detail = tn_json_word_(s->text, s->len, &end, "null", 4);
    } else if (c == 't') {
        type = TN_JSON_TRUE;
        detail = tn_json_word_(s->text, s->len, &end, "true", 4);
    } else if (c == 'f') {
        type = TN_JSON_FALSE;
        detail = tn_json_word_(s->text, s->len, &end, "false", 5);
    } else if (c == '-' || tn_json_digit_(c)) {
        detail = tn_json_number_(s->text, s->len, &end);
    } else {
        detail = TN_JSON_VALUE;
    }
    if (detail)
        return tn_json_fail_(s, detail, end);
    s->pos = end;
    /*@ assert tn_json_tokens_ok(s->tokens, s->count, \at(s->pos, Pre)); */
    return tn_json_add_(s, type, start, end - start, 0);
}

/*@ requires \valid(s) && tn_json_scan_ok(s) && s->pos < s->len;
    assigns *s, s->tokens[0 .. s->cap - 1];
    ensures tn_json_scan_ok(s) && s->cap == \old(s->cap) && s->len == \old(s->len) &&
      s->text == \old(s->text) && s->tokens == \old(s->tokens);
    ensures \result ==> s->pos > \old(s->pos); */
static inline bool tn_json_any_(struct tn_json_scan_ *s)
{
    if (s->text[s->pos] == '{')
        return tn_json_down_(s, TN_JSON_OBJECT);
    if (s->text[s->pos] == '[')
        return tn_json_down_(s, TN_JSON_ARRAY);
    if (s->text[s->pos] == '"' ? !tn_json_quoted_(s) : !tn_json_plain_(s))
        return false;
    tn_json_after_(s);
    return true;
}

/* The key of a member that the innermost object did not have so far. */
/*@ requires \valid(s) && tn_json_scan_ok(s) && s->pos < s->len && s->depth > 0;
    assigns *s, s->tokens[0 .. s->cap - 1];
    ensures tn_json_scan_ok(s) && s->cap == \old(s->cap) && s->len == \old(s->len) &&
      s->text == \old(s->text) && s->tokens == \old(s->tokens) && s->depth == \old(s->depth);
    ensures \result ==> s->pos > \old(s->pos); */
static inline bool tn_json_name_(struct tn_json_scan_ *s)
{
    uint32_t object = s->open[s->depth - 1], start = s->pos;

    if (s->text[start] != '"')
        return tn_json_fail_(s, TN_JSON_KEY, start);
    if (s->tokens[object].size >= TN_JSON_MEMBERS)
        return tn_json_fail_(s, TN_JSON_TOO_WIDE, start);
    s->tokens[object].size++;
    /*@ assert tn_json_tokens_ok(s->tokens, s->count, s->pos); */
    if (!tn_json_quoted_(s))
        return false;
    if (tn_json_twice_(s, object))
        return tn_json_fail_(s, TN_JSON_DUPLICATE, start);
    s->want = TN_JSON_WANT_COLON_;
    return true;
}

/* What comes next, and is not white space. */
/*@ requires \valid(s) && tn_json_scan_ok(s) && s->pos < s->len;
    assigns *s, s->tokens[0 .. s->cap - 1];
    ensures tn_json_scan_ok(s) && s->cap == \old(s->cap) && s->len == \old(s->len) &&
      s->text == \old(s->text) && s->tokens == \old(s->tokens);
    ensures \result ==> s->pos > \old(s->pos); */
static inline bool tn_json_token_(struct tn_json_scan_ *s)
{
    uint8_t c = s->text[s->pos];
    bool object = s->depth > 0 && s->tokens[s->open[s->depth - 1]].type == TN_JSON_OBJECT;

    if (s->depth > 0 && c == (object ? '}' : ']') &&
        (s->want == TN_JSON_WANT_COMMA_ || s->want == TN_JSON_WANT_ELEMENT_ ||
         s->want == TN_JSON_WANT_MEMBER_))
        return tn_json_up_(s);
    if (s->want == TN_JSON_WANT_VALUE_ || s->want == TN_JSON_WANT_ELEMENT_)
        return tn_json_any_(s);
    if (s->depth == 0)
        return tn_json_fail_(s, TN_JSON_AFTER, s->pos);
    if (s->want == TN_JSON_WANT_KEY_ || s->want == TN_JSON_WANT_MEMBER_)
        return tn_json_name_(s);
    if (s->want == TN_JSON_WANT_COLON_) {
        if (c != ':')
            return tn_json_fail_(s, TN_JSON_COLON, s->pos);
        s->want = TN_JSON_WANT_VALUE_;
    } else {
        if (c != ',')
            return tn_json_fail_(s, TN_JSON_COMMA, s->pos);
        s->want = object ? TN_JSON_WANT_KEY_ : TN_JSON_WANT_VALUE_;
    }
    s->pos++;
    return true;
}

/* All of it. */
/*@ requires \valid(s) && tn_json_scan_ok(s);
    assigns *s, s->tokens[0 .. s->cap - 1];
    ensures tn_json_scan_ok(s) && s->cap == \old(s->cap) && s->len == \old(s->len) &&
      s->text == \old(s->text) && s->tokens == \old(s->tokens);
    ensures \result ==> s->pos == s->len; */
static inline bool tn_json_all_(struct tn_json_scan_ *s)
{
    /*@ loop invariant tn_json_scan_ok(s) && s->cap == \at(s->cap, Pre) &&
          s->len == \at(s->len, Pre) && s->text == \at(s->text, Pre) &&
          s->tokens == \at(s->tokens, Pre);
        loop assigns *s, s->tokens[0 .. \at(s->cap, Pre) - 1];
        loop variant s->len - s->pos; */
    while (s->pos < s->len) {
        if (tn_json_white_(s->text[s->pos]))
            s->pos++;
        else if (!tn_json_token_(s))
            return false;
    }
    if (s->want == TN_JSON_WANT_NOTHING_)
        return true;
    return tn_json_fail_(s, s->count > 0 ? TN_JSON_ENDS : TN_JSON_EMPTY, s->pos);
}

/* Whose fault a detail of the document is. */
/*@ assigns \nothing;
    ensures \result == TN_EFORMAT || \result == TN_ETRUNC || \result == TN_ENOFIT; */
static inline int tn_json_err_(uint32_t detail)
{
    if (detail == TN_JSON_EMPTY || detail == TN_JSON_ENDS)
        return TN_ETRUNC;
    return detail >= TN_JSON_TOO_LARGE && detail <= TN_JSON_TOO_WIDE ? TN_ENOFIT : TN_EFORMAT;
}

TN_API int tn_json_parse(struct tn_json *j, const void *text, size_t len,
                         struct tn_json_token *tokens, size_t cap)
{
    struct tn_json_scan_ s;

    j->text = (const uint8_t *)text;
    j->tokens = tokens;
    j->len = 0;
    j->count = 0;
    j->at = 0;
    j->detail = TN_JSON_FINE;
    if (len > TN_JSON_BYTES) {
        j->at = TN_JSON_BYTES;
        j->detail = TN_JSON_TOO_LARGE;
        return TN_ENOFIT;
    }
    s.text = j->text;
    s.tokens = tokens;
    s.len = (uint32_t)len;
    s.cap = cap < TN_JSON_BYTES ? (uint32_t)cap : TN_JSON_BYTES;
    s.count = 0;
    s.pos = 0;
    s.want = TN_JSON_WANT_VALUE_;
    s.depth = 0;
    s.detail = TN_JSON_FINE;
    s.at = 0;
    if (!tn_json_all_(&s)) {
        j->at = s.at;
        j->detail = s.detail;
        return tn_json_err_(s.detail);
    }
    j->len = s.len;
    j->count = s.count;
    return TN_OK;
}

/* ---- values ---- */

TN_API enum tn_json_type tn_json_type(const struct tn_json *j, uint32_t value)
{
    return value < j->count ? (enum tn_json_type)j->tokens[value].type : TN_JSON_NONE;
}

TN_API bool tn_json_next(const struct tn_json *j, uint32_t container, uint32_t *value)
{
    enum tn_json_type type = tn_json_type(j, container);
    uint32_t next = container + 1;

    if (type != TN_JSON_ARRAY && type != TN_JSON_OBJECT)
        return false;
    if (*value > container)
        next = *value < j->count ? j->tokens[*value].next : j->count;
    next += type == TN_JSON_OBJECT;
    if (next >= j->tokens[container].next)
        return false;
    *value = next;
    return true;
}

/* Whether the code points of a string are those of text, whose end is a NUL. */
static inline bool tn_json_equals_(const struct tn_json *j, const struct tn_json_token *t,
                                   const char *text)
{
    uint32_t pos = t->start, code;

    while ((code = tn_json_step_(j->text, t->start + t->len, &pos)) != TN_JSON_ABSENT) {
        uint8_t bytes[4];
        uint32_t n = tn_json_encode_(code, bytes);

        for (uint32_t i = 0; i < n; i++, text++)
            if (bytes[i] == 0 || (uint8_t)*text != bytes[i])
                return false;
    }
    return *text == 0;
}

TN_API bool tn_json_is(const struct tn_json *j, uint32_t value, const char *text)
{
    return tn_json_type(j, value) == TN_JSON_STRING && tn_json_equals_(j, &j->tokens[value], text);
}

TN_API uint32_t tn_json_member(const struct tn_json *j, uint32_t object, const char *key)
{
    uint32_t value = 0;

    if (tn_json_type(j, object) != TN_JSON_OBJECT)
        return TN_JSON_ABSENT;
    while (tn_json_next(j, object, &value))
        if (tn_json_is(j, value - 1, key))
            return value;
    return TN_JSON_ABSENT;
}

TN_API uint32_t tn_json_element(const struct tn_json *j, uint32_t array, uint32_t n)
{
    uint32_t value = 0;

    if (tn_json_type(j, array) != TN_JSON_ARRAY)
        return TN_JSON_ABSENT;
    while (tn_json_next(j, array, &value))
        if (n-- == 0)
            return value;
    return TN_JSON_ABSENT;
}

/*
 * Unescapes the string between two bounds into cap bytes, cap not 0, NUL and all. Returns its
 * length; TN_EFORMAT: U+0000; TN_ENOFIT: no room.
 */
/*@ requires pos <= end <= TN_JSON_BYTES && \valid_read(text + (0 .. end - 1));
    requires cap > 0 && \valid(buf + (0 .. cap - 1));
    requires \separated(buf + (0 .. cap - 1), text + (0 .. end - 1));
    assigns buf[0 .. cap - 1];
    ensures \result >= 0 ==> \result < cap && buf[\result] == 0;
    ensures \result < 0 ==> buf[0] == 0 && (\result == TN_EFORMAT || \result == TN_ENOFIT); */
static inline int64_t tn_json_unescape_(const uint8_t *text, uint32_t pos, uint32_t end, char *buf,
                                        size_t cap)
{
    size_t len = 0;

    /*@ loop invariant pos <= end && len < cap && len <= 4 * (pos - \at(pos, Pre));
        loop invariant pos >= \at(pos, Pre);
        loop assigns pos, len, buf[0 .. cap - 1];
        loop variant end - pos; */
    while (pos < end) {
        uint8_t bytes[4];
        uint32_t code = tn_json_step_(text, end, &pos), n, i;

        if (code == TN_JSON_ABSENT)
            break;
        if (code == 0) {
            buf[0] = 0;
            return TN_EFORMAT;
        }
        n = tn_json_encode_(code, bytes);
        if (n > cap - 1 - len) {
            buf[0] = 0;
            return TN_ENOFIT;
        }
        /*@ loop invariant 0 <= i <= n;
            loop assigns i, buf[len .. len + n - 1];
            loop variant n - i; */
        for (i = 0; i < n; i++)
            buf[len + i] = (char)bytes[i];
        len += n;
    }
    buf[len] = 0;
    return (int64_t)len;
}

TN_API int64_t tn_json_get_string(const struct tn_json *j, uint32_t value, char *buf, size_t cap)
{
    const struct tn_json_token *t;

    if (cap > 0)
        buf[0] = 0;
    if (tn_json_type(j, value) != TN_JSON_STRING)
        return TN_EFORMAT;
    if (cap == 0)
        return TN_ENOFIT;
    t = &j->tokens[value];
    return tn_json_unescape_(j->text, t->start, t->start + t->len, buf, cap);
}

/* The number that digits are. Returns 0; TN_EFORMAT: there are other bytes; TN_ERANGE. */
/*@ requires pos <= end && \valid_read(text + (pos .. end - 1)) && \valid(out);
    requires \separated(out, text + (pos .. end - 1));
    assigns *out;
    ensures \result == TN_OK || \result == TN_EFORMAT || \result == TN_ERANGE;
    ensures \result == TN_OK ==> \forall integer i; pos <= i < end ==> '0' <= text[i] <= '9';
    ensures \result != TN_OK ==> *out == 0; */
static inline int tn_json_decimal_(const uint8_t *text, uint32_t pos, uint32_t end, uint64_t *out)
{
    uint64_t v = 0;
    uint32_t i;
    int err = TN_OK;

    *out = 0;
    /*@ loop invariant pos <= i <= end;
        loop invariant \forall integer k; pos <= k < i ==> '0' <= text[k] <= '9';
        loop invariant err == TN_OK || err == TN_ERANGE;
        loop assigns i, v, err;
        loop variant end - i; */
    for (i = pos; i < end; i++) {
        uint8_t digit;

        if (!tn_json_digit_(text[i]))
            return TN_EFORMAT;
        digit = (uint8_t)(text[i] - '0');
        if (v > UINT64_MAX / 10 || v * 10 > UINT64_MAX - digit)
            err = TN_ERANGE;
        else
            v = v * 10 + digit;
    }
    if (err == TN_OK)
        *out = v;
    return err;
}

/* The magnitude of an integer and its sign. */
static inline int tn_json_integer_(const struct tn_json *j, uint32_t value, uint64_t *out,
                                   bool *negative)
{
    const struct tn_json_token *t;

    *out = 0;
    *negative = false;
    if (tn_json_type(j, value) != TN_JSON_NUMBER)
        return TN_EFORMAT;
    t = &j->tokens[value];
    *negative = j->text[t->start] == '-';
    return tn_json_decimal_(j->text, t->start + *negative, t->start + t->len, out);
}

TN_API int tn_json_get_u64(const struct tn_json *j, uint32_t value, uint64_t *out)
{
    bool negative;
    int err = tn_json_integer_(j, value, out, &negative);

    if (err == TN_OK && negative && *out > 0) {
        *out = 0;
        return TN_ERANGE;
    }
    return err;
}

TN_API int tn_json_get_i64(const struct tn_json *j, uint32_t value, int64_t *out)
{
    uint64_t v;
    bool negative;
    int err = tn_json_integer_(j, value, &v, &negative);

    *out = 0;
    if (err < 0)
        return err;
    if (v > (uint64_t)INT64_MAX + negative)
        return TN_ERANGE;
    if (!negative)
        *out = (int64_t)v;
    else if (v > 0)
        *out = -(int64_t)(v - 1) - 1;
    return TN_OK;
}

TN_API int tn_json_get_bool(const struct tn_json *j, uint32_t value, bool *out)
{
    enum tn_json_type type = tn_json_type(j, value);

    *out = type == TN_JSON_TRUE;
    return type == TN_JSON_TRUE || type == TN_JSON_FALSE ? TN_OK : TN_EFORMAT;
}

/* ---- fields ---- */

/* The first byte of a value, a string's quote too. */
static inline uint32_t tn_json_offset_(const struct tn_json *j, uint32_t value)
{
    return value < j->count ? j->tokens[value].start - (j->tokens[value].type == TN_JSON_STRING)
                            : 0;
}

/* Makes detail of the field at value the error, if there is none yet. Returns false. */
static inline bool tn_json_wrong_(struct tn_json_object *o, const char *key, uint32_t value,
                                  uint32_t detail, uint64_t min, uint64_t max)
{
    if (o->err)
        return false;
    o->err = detail >= TN_JSON_RANGE && detail != TN_JSON_HAS_NUL ? TN_ERANGE : TN_EFORMAT;
    o->detail = detail;
    o->at = tn_json_offset_(o->json, value);
    o->key = key;
    o->min = min;
    o->max = max;
    return false;
}

TN_API void tn_json_open(struct tn_json_object *o, const struct tn_json *j, uint32_t value)
{
    o->json = j;
    o->object = value;
    for (uint32_t i = 0; i < TN_JSON_MEMBERS / 32; i++)
        o->taken[i] = 0;
    o->err = TN_OK;
    o->detail = TN_JSON_FINE;
    o->at = 0;
    o->name = TN_JSON_ABSENT;
    o->key = NULL;
    o->min = 0;
    o->max = 0;
    if (tn_json_type(j, value) != TN_JSON_OBJECT)
        tn_json_wrong_(o, NULL, value, TN_JSON_NOT_OBJECT, 0, 0);
}

/* Finds a field. Returns whether there is one to take. */
static inline bool tn_json_field_(struct tn_json_object *o, const char *key, unsigned flags,
                                  uint32_t *value)
{
    uint32_t n;

    *value = 0;
    if (o->err)
        return false;
    for (n = 0; n < TN_JSON_MEMBERS && tn_json_next(o->json, o->object, value); n++) {
        if (!tn_json_is(o->json, *value - 1, key))
            continue;
        o->taken[n / 32] |= 1u << n % 32;
        if ((flags & TN_JSON_OR_NULL) == 0 || tn_json_type(o->json, *value) != TN_JSON_NULL)
            return true;
        break;
    }
    if (flags & TN_JSON_MUST)
        tn_json_wrong_(o, key, o->object, TN_JSON_MISSING, 0, 0);
    return false;
}

TN_API bool tn_json_take_u64(struct tn_json_object *o, const char *key, unsigned flags,
                             uint64_t min, uint64_t max, uint64_t *out)
{
    uint32_t value;
    uint64_t v;
    int err;

    if (!tn_json_field_(o, key, flags, &value))
        return false;
    if (tn_json_type(o->json, value) != TN_JSON_NUMBER)
        return tn_json_wrong_(o, key, value, TN_JSON_NOT_NUMBER, min, max);
    err = tn_json_get_u64(o->json, value, &v);
    if (err == TN_EFORMAT)
        return tn_json_wrong_(o, key, value, TN_JSON_NOT_INTEGER, min, max);
    if (err < 0 || v < min || v > max)
        return tn_json_wrong_(o, key, value, TN_JSON_RANGE, min, max);
    *out = v;
    return true;
}

TN_API bool tn_json_take_u32(struct tn_json_object *o, const char *key, unsigned flags,
                             uint32_t min, uint32_t max, uint32_t *out)
{
    uint64_t v;

    if (!tn_json_take_u64(o, key, flags, min, max, &v))
        return false;
    *out = (uint32_t)v;
    return true;
}

TN_API bool tn_json_take_bool(struct tn_json_object *o, const char *key, unsigned flags, bool *out)
{
    uint32_t value;
    bool v;

    if (!tn_json_field_(o, key, flags, &value))
        return false;
    if (tn_json_get_bool(o->json, value, &v) < 0)
        return tn_json_wrong_(o, key, value, TN_JSON_NOT_BOOL, 0, 0);
    *out = v;
    return true;
}

TN_API bool tn_json_take_string(struct tn_json_object *o, const char *key, unsigned flags,
                                char *buf, size_t cap)
{
    uint32_t value;
    int64_t len;

    if (!tn_json_field_(o, key, flags, &value))
        return false;
    if (tn_json_type(o->json, value) != TN_JSON_STRING)
        return tn_json_wrong_(o, key, value, TN_JSON_NOT_STRING, 0, 0);
    len = tn_json_get_string(o->json, value, buf, cap);
    if (len == TN_EFORMAT)
        return tn_json_wrong_(o, key, value, TN_JSON_HAS_NUL, 0, 0);
    if (len < 0)
        return tn_json_wrong_(o, key, value, TN_JSON_LONG, 0, cap > 0 ? cap - 1 : 0);
    return true;
}

TN_API bool tn_json_take_choice(struct tn_json_object *o, const char *key, unsigned flags,
                                const char *const *choices, uint32_t count, uint32_t *out)
{
    uint32_t value;

    if (!tn_json_field_(o, key, flags, &value))
        return false;
    if (tn_json_type(o->json, value) != TN_JSON_STRING)
        return tn_json_wrong_(o, key, value, TN_JSON_NOT_STRING, 0, 0);
    for (uint32_t i = 0; i < count; i++) {
        if (tn_json_is(o->json, value, choices[i])) {
            *out = i;
            return true;
        }
    }
    return tn_json_wrong_(o, key, value, TN_JSON_CHOICE, 0, 0);
}

TN_API bool tn_json_take_object(struct tn_json_object *o, const char *key, unsigned flags,
                                struct tn_json_object *out)
{
    uint32_t value;

    if (!tn_json_field_(o, key, flags, &value))
        return false;
    if (tn_json_type(o->json, value) != TN_JSON_OBJECT)
        return tn_json_wrong_(o, key, value, TN_JSON_NOT_OBJECT, 0, 0);
    tn_json_open(out, o->json, value);
    return true;
}

TN_API bool tn_json_take_array(struct tn_json_object *o, const char *key, unsigned flags,
                               uint32_t min, uint32_t max, uint32_t *out)
{
    uint32_t value, size;

    if (!tn_json_field_(o, key, flags, &value))
        return false;
    if (tn_json_type(o->json, value) != TN_JSON_ARRAY)
        return tn_json_wrong_(o, key, value, TN_JSON_NOT_ARRAY, min, max);
    size = o->json->tokens[value].size;
    if (size < min || size > max)
        return tn_json_wrong_(o, key, value, TN_JSON_COUNT, min, max);
    *out = value;
    return true;
}

TN_API bool tn_json_take_value(struct tn_json_object *o, const char *key, unsigned flags,
                               uint32_t *out)
{
    uint32_t value;

    if (!tn_json_field_(o, key, flags, &value))
        return false;
    *out = value;
    return true;
}

TN_API void tn_json_refuse(struct tn_json_object *o, const char *key)
{
    uint32_t value = tn_json_member(o->json, o->object, key);

    tn_json_wrong_(o, key, value == TN_JSON_ABSENT ? o->object : value, TN_JSON_REFUSED, 0, 0);
}

TN_API int tn_json_close(struct tn_json_object *o)
{
    uint32_t value = 0, n;

    for (n = 0; o->err == 0 && n < TN_JSON_MEMBERS && tn_json_next(o->json, o->object, &value);
         n++) {
        if ((o->taken[n / 32] >> n % 32 & 1) == 0) {
            tn_json_wrong_(o, NULL, value - 1, TN_JSON_UNKNOWN, 0, 0);
            o->name = value - 1;
        }
    }
    return o->err;
}

/* ---- the writer ---- */

TN_API void tn_json_begin(struct tn_json_writer *w, char *buf, size_t cap)
{
    w->buf = buf;
    w->cap = cap;
    w->len = 0;
    w->depth = 0;
    w->objects = 0;
    w->comma = false;
    w->key = false;
    w->err = TN_OK;
}

TN_API int64_t tn_json_finish(const struct tn_json_writer *w)
{
    if (w->err)
        return w->err;
    return w->depth == 0 && w->comma ? (int64_t)w->len : (int64_t)TN_ESTATE;
}

/*@ requires \valid(w) && err < 0;
    assigns w->err;
    ensures w->err == (\old(w->err) != 0 ? \old(w->err) : err); */
static inline void tn_json_stop_(struct tn_json_writer *w, int err)
{
    if (w->err == 0)
        w->err = err;
}

/* Appends n bytes. */
/*@ requires \valid(w) && tn_json_writer_ok(w) && \valid_read(bytes + (0 .. n - 1));
    requires \separated(bytes + (0 .. n - 1), w->buf + (0 .. w->cap - 1));
    requires \separated(bytes + (0 .. n - 1), w);
    assigns w->len, w->err, w->buf[w->len .. w->cap - 1];
    ensures tn_json_writer_ok(w);
    ensures w->err == 0 ==> \old(w->err) == 0 && w->len == \old(w->len) + n &&
      \forall integer i; 0 <= i < n ==> w->buf[\old(w->len) + i] == bytes[i];
    ensures w->err != 0 ==> w->len == \old(w->len);
    ensures \old(w->err) != 0 ==> w->err == \old(w->err); */
static inline void tn_json_append_(struct tn_json_writer *w, const char *bytes, size_t n)
{
    size_t i;

    if (w->err)
        return;
    if (n > w->cap - w->len) {
        tn_json_stop_(w, TN_ENOSPC);
        return;
    }
    /*@ loop invariant 0 <= i <= n;
        loop invariant \forall integer k; 0 <= k < i ==> w->buf[w->len + k] == bytes[k];
        loop assigns i, w->buf[w->len .. w->len + n - 1];
        loop variant n - i; */
    for (i = 0; i < n; i++)
        w->buf[w->len + i] = bytes[i];
    w->len += n;
}

/* Whether what is innermost is an object. */
/*@ requires \valid_read(w) && w->depth <= TN_JSON_DEPTH;
    assigns \nothing;
    ensures w->depth == 0 ==> !\result; */
static inline bool tn_json_inside_(const struct tn_json_writer *w)
{
    return w->depth > 0 && (w->objects >> (w->depth - 1)) % 2 == 1;
}

/* Before a value: whether one may stand here, and its comma. */
/*@ requires \valid(w) && tn_json_writer_ok(w);
    assigns w->len, w->err, w->comma, w->key, w->buf[w->len .. w->cap - 1];
    ensures tn_json_writer_ok(w) && w->len >= \old(w->len);
    ensures w->err == 0 ==> w->comma && !w->key && \old(w->err) == 0; */
static inline void tn_json_before_(struct tn_json_writer *w)
{
    if (tn_json_inside_(w) != w->key || (w->depth == 0 && w->comma))
        tn_json_stop_(w, TN_ESTATE);
    if (w->comma)
        tn_json_append_(w, ",", 1);
    w->comma = true;
    w->key = false;
}

/*@ requires \valid(w) && tn_json_writer_ok(w);
    assigns *w, w->buf[w->len .. w->cap - 1];
    ensures tn_json_writer_ok(w) && w->depth - \old(w->depth) <= 1; */
static inline void tn_json_down_to_(struct tn_json_writer *w, bool object)
{
    tn_json_before_(w);
    if (w->depth >= TN_JSON_DEPTH)
        tn_json_stop_(w, TN_ENOSPC);
    if (w->err)
        return;
    tn_json_append_(w, object ? "{" : "[", 1);
    w->objects &= ~(1u << w->depth);
    if (object)
        w->objects |= 1u << w->depth;
    w->depth++;
    w->comma = false;
}

TN_API void tn_json_put_object(struct tn_json_writer *w)
{
    tn_json_down_to_(w, true);
}

TN_API void tn_json_put_array(struct tn_json_writer *w)
{
    tn_json_down_to_(w, false);
}

TN_API void tn_json_put_end(struct tn_json_writer *w)
{
    if (w->depth == 0 || w->key)
        tn_json_stop_(w, TN_ESTATE);
    if (w->err)
        return;
    tn_json_append_(w, tn_json_inside_(w) ? "}" : "]", 1);
    w->depth--;
    w->comma = true;
}

/* A string in its quotes: escaped is what has to be, and nothing else. */
static inline void tn_json_quote_(struct tn_json_writer *w, const uint8_t *text, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    size_t i = 0;

    tn_json_append_(w, "\"", 1);
    while (i < len && w->err == 0) {
        uint32_t code, detail, n = tn_json_utf8_(text + i, len - i, &code, &detail);

        if (n == 0) {
            tn_json_stop_(w, TN_EINVAL);
        } else if (code == '"' || code == '\\') {
            char pair[2] = {'\\', (char)code};

            tn_json_append_(w, pair, 2);
        } else if (code < 0x20) {
            char escape[6] = {'\\', 'u', '0', '0', digits[code / 16], digits[code % 16]};

            tn_json_append_(w, escape, 6);
        } else {
            tn_json_append_(w, (const char *)text + i, n);
        }
        i += n;
    }
    tn_json_append_(w, "\"", 1);
}

TN_API void tn_json_put_key(struct tn_json_writer *w, const char *key)
{
    if (!tn_json_inside_(w) || w->key)
        tn_json_stop_(w, TN_ESTATE);
    if (w->err)
        return;
    if (w->comma)
        tn_json_append_(w, ",", 1);
    tn_json_quote_(w, (const uint8_t *)key, __builtin_strlen(key));
    tn_json_append_(w, ":", 1);
    w->comma = false;
    w->key = true;
}

TN_API void tn_json_put_text(struct tn_json_writer *w, const void *text, size_t len)
{
    tn_json_before_(w);
    tn_json_quote_(w, (const uint8_t *)text, len);
}

TN_API void tn_json_put_string(struct tn_json_writer *w, const char *text)
{
    tn_json_put_text(w, text, __builtin_strlen(text));
}

TN_API void tn_json_put_raw(struct tn_json_writer *w, const void *json, size_t len)
{
    if (len == 0)
        tn_json_stop_(w, TN_EINVAL);
    tn_json_before_(w);
    tn_json_append_(w, (const char *)json, len);
}

/* The digits of a number, at the end of 20 bytes. Returns how many they are. */
/*@ requires \valid(out + (0 .. 19));
    assigns out[0 .. 19];
    ensures 1 <= \result <= 20;
    ensures \forall integer i; 20 - \result <= i < 20 ==> '0' <= out[i] <= '9'; */
static inline uint32_t tn_json_spell_(uint64_t v, char *out)
{
    uint32_t n = 0;

    /*@ loop invariant n < 20;
        loop invariant \forall integer i; 20 - n <= i < 20 ==> '0' <= out[i] <= '9';
        loop assigns n, v, out[0 .. 19];
        loop variant 20 - n; */
    do {
        n++;
        out[20 - n] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0 && n < 20);
    return n;
}

TN_API void tn_json_put_u64(struct tn_json_writer *w, uint64_t value)
{
    char digits[20];
    uint32_t n = tn_json_spell_(value, digits);

    tn_json_before_(w);
    tn_json_append_(w, digits + (20 - n), n);
}

TN_API void tn_json_put_i64(struct tn_json_writer *w, int64_t value)
{
    char digits[20];
    uint32_t n = tn_json_spell_(value < 0 ? (uint64_t) - (value + 1) + 1 : (uint64_t)value, digits);

    tn_json_before_(w);
    if (value < 0)
        tn_json_append_(w, "-", 1);
    tn_json_append_(w, digits + (20 - n), n);
}

TN_API void tn_json_put_bool(struct tn_json_writer *w, bool value)
{
    tn_json_before_(w);
    tn_json_append_(w, value ? "true" : "false", value ? 4 : 5);
}

TN_API void tn_json_put_null(struct tn_json_writer *w)
{
    tn_json_before_(w);
    tn_json_append_(w, "null", 4);
}

#endif /* TN_DECL_ONLY */

#ifdef __cplusplus
}
#endif

#endif /* TN_JSON_H */
