/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_http - HTTP/1.1 for a control socket: a strict incremental parser, a writer of responses.
 *
 * WHAT
 *   Takes a client's bytes as they come and says when a request is whole, when the client waits for
 *   100 Continue, or with which status it has to be refused. Requests may follow one another on a
 *   connection, pipelined or not. The writer puts a status line, fields and a body together.
 *
 * USAGE
 *   static const char wire[] = "PUT /actions HTTP/1.1\r\nHost: localhost\r\n"
 *                              "Content-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\n";
 *   ---
 *   char head[4096];
 *   uint8_t body[1024], reply[512];
 *   struct tn_http_cfg cfg = {head, sizeof(head), body, sizeof(body), 0, 0, 0};
 *   struct tn_http http;
 *   struct tn_http_out out;
 *   size_t used;
 *   int got;
 *
 *   if (tn_http_init(&http, &cfg) < 0)
 *       return 1;
 *   tn_http_out_init(&out, reply, sizeof(reply));
 *   got = tn_http_push(&http, (const uint8_t *)wire, sizeof(wire) - 1, &used);
 *   if (got < 0) {
 *       tn_http_out_status(&out, http.status, false);
 *       tn_http_out_body(&out, NULL, NULL, 0, false);
 *   } else if (got == TN_HTTP_CONTINUE) {
 *       tn_http_out_continue(&out);
 *   } else if (got == TN_HTTP_REQUEST && http.method == TN_HTTP_PUT && http.body_len == 2) {
 *       tn_http_out_status(&out, 204, http.keep);
 *       tn_http_out_field(&out, "Server", "tenon");
 *       tn_http_out_body(&out, NULL, NULL, 0, false);
 *       if (out.err < 0 || !tn_http_next(&http))
 *           return 1;
 *   }
 *   if (tn_http_push(&http, (const uint8_t *)wire + used, 4, &used) != TN_HTTP_MORE)
 *       return 1;
 *
 * COMPOSITION
 *   A connection is a socket, a struct tn_http and a struct tn_http_out. Read bytes, push them, act
 *   on what push returns, and push those that it left (not used); send out.len bytes of out.buf.
 *   Timeouts are the caller's: tn_http_idle tells one between requests, to be closed silently, from
 *   one amid a request, which 408 answers. After an error, or when tn_http_next says false, send
 *   what waits and close. The body is often tn_json's to read.
 *
 * GUEST TRUST
 *   Every byte pushed may be hostile. Nothing of a refused request is handed out. How the bytes are
 *   cut into pushes never changes a result. Time is linear in the bytes.
 *
 * MEMORY
 *   The caller owns the buffers. A request's strings lie in cfg.head, its body in cfg.body; they
 *   stay until tn_http_next. What is pushed must not lie in either.
 *
 * THREADS
 *   One at a time per struct.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   RFC 9112 (HTTP/1.1): 2.2 lines, 3 request line, 3.2 target and Host, 5 fields, 6 length, 9
 *   connections. RFC 9110: 5.6.2 tokens, 10.1.1 Expect, 15 status codes. RFC 3986: 2.1 escapes, 3.3
 *   paths, 3.4 queries.
 *
 * LIMITS
 *   Stricter than RFC 9112 on purpose: no Transfer-Encoding (501), no absolute, authority or
 *   asterisk form of a target, no bytes over 0x7e in fields, no line folding, no lone LF, only one
 *   Content-Length, with one number; no escape of a control character or of `/` in a path. No Date
 *   field is written, since there is no clock here. The port in Host is not looked at.
 */
#ifndef TN_HTTP_H
#define TN_HTTP_H

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

#define TN_HTTP_MAX_TARGET 2048u /* what zeros in a struct tn_http_cfg stand for */
#define TN_HTTP_MAX_FIELDS 64u
#define TN_HTTP_MAX_FIELD  4096u

enum tn_http_method {
    TN_HTTP_GET,
    TN_HTTP_PUT,
    TN_HTTP_PATCH,
    TN_HTTP_POST,
    TN_HTTP_DELETE,
    TN_HTTP_HEAD,
    TN_HTTP_OPTIONS,
};

/* What tn_http_push returns when nothing is wrong. */
enum tn_http_event {
    TN_HTTP_MORE = 0,     /* all was taken; the request is not whole yet */
    TN_HTTP_CONTINUE = 1, /* the client waits for 100 Continue before it sends the body */
    TN_HTTP_REQUEST = 2,  /* a request is whole */
};

/* Why a request was refused, for a log; status tells how to answer. */
enum tn_http_why {
    TN_HTTP_OK,
    TN_HTTP_BAD_LINE_END,    /* 400: CR without LF, LF without CR */
    TN_HTTP_BAD_METHOD,      /* 400: no token, or no space behind it */
    TN_HTTP_BAD_TARGET,      /* 400: not in origin form, or a byte that no URI has */
    TN_HTTP_BAD_ESCAPE,      /* 400: % without two digits, or of a control character or `/` */
    TN_HTTP_BAD_VERSION,     /* 400: not HTTP/digit.digit */
    TN_HTTP_BAD_NAME,        /* 400: a field's name is no token; white space before the colon */
    TN_HTTP_BAD_VALUE,       /* 400: a byte in a field's value that is not visible ASCII or space */
    TN_HTTP_FOLDED,          /* 400: a line that begins with white space */
    TN_HTTP_BAD_LENGTH,      /* 400: Content-Length is no number */
    TN_HTTP_TWO_LENGTHS,     /* 400: Content-Length twice, even if they agree */
    TN_HTTP_BAD_ENCODING,    /* 400: Transfer-Encoding beside Content-Length, or in HTTP/1.0 */
    TN_HTTP_BAD_CONNECTION,  /* 400: Connection is no list of tokens */
    TN_HTTP_BAD_HOST,        /* 400: a byte in Host that no host and port have */
    TN_HTTP_TWO_HOSTS,       /* 400: Host twice */
    TN_HTTP_NO_HOST,         /* 400: none in HTTP/1.1 */
    TN_HTTP_LARGE_BODY,      /* 413: Content-Length beyond cfg.body_cap */
    TN_HTTP_LONG_TARGET,     /* 414: beyond cfg.max_target */
    TN_HTTP_UNMET,           /* 417: Expect is not 100-continue */
    TN_HTTP_MANY_FIELDS,     /* 431: beyond cfg.max_fields */
    TN_HTTP_LONG_FIELD,      /* 431: beyond cfg.max_field */
    TN_HTTP_LARGE_HEAD,      /* 431: beyond cfg.head_cap */
    TN_HTTP_UNKNOWN_METHOD,  /* 501 */
    TN_HTTP_ENCODED,         /* 501: Transfer-Encoding */
    TN_HTTP_UNKNOWN_VERSION, /* 505: not HTTP/1.1 nor 1.0 */
};

struct tn_http_cfg {
    char *head;        /* the caller's: where a request's strings are kept */
    size_t head_cap;   /* bytes of it; also the most that a request line and fields have */
    uint8_t *body;     /* the caller's; NULL with body_cap 0 */
    size_t body_cap;   /* bytes of it; also the most that a body has */
    size_t max_target; /* the most bytes of a target as it is sent; 0: TN_HTTP_MAX_TARGET */
    size_t max_fields; /* the most fields; 0: TN_HTTP_MAX_FIELDS */
    size_t max_field;  /* the most bytes of a field without its CRLF; 0: TN_HTTP_MAX_FIELD */
};

/*
 * A connection's requests, one at a time. All up to `body_len` is void unless the last push
 * returned TN_HTTP_REQUEST, `status` and `why` unless it failed; what follows is private.
 */
struct tn_http {
    uint8_t method;      /* enum tn_http_method */
    uint8_t minor;       /* of HTTP/1.minor: 0 or 1 */
    bool keep;           /* whether the connection stays after the response (RFC 9112, 9.3) */
    const char *path;    /* unescaped, begins with `/`, NUL-terminated */
    const char *query;   /* what was behind the `?`, as it was sent; NULL when there was no `?` */
    const uint8_t *body; /* cfg.body */
    size_t body_len;     /* bytes of it */

    uint16_t status; /* with which a refused request is answered */
    uint8_t why;     /* enum tn_http_why */

    struct tn_http_cfg cfg; /* without zeros in its limits */
    uint8_t state;          /* enum tn_http_state_ */
    uint8_t known;          /* which field this is: enum tn_http_known_ */
    uint8_t escape;         /* digits of an escape that are still to come */
    uint8_t value;          /* of the digit before */
    uint8_t seen;           /* TN_HTTP_SEEN_... */
    uint8_t word_len;       /* bytes of word */
    char word[8];           /* the method, or the version */
    size_t size;            /* bytes of the head that came */
    size_t at;              /* bytes of cfg.head in use */
    size_t mark;            /* of them, those before the query, or before a field's value */
    size_t end;             /* of them, those without white space at the end */
    size_t query_at;        /* where the query is in cfg.head; 0 when there is none */
    size_t fields_at;       /* where the fields are */
    size_t fields;          /* how many there are */
    size_t count;           /* bytes of this target or field */
    uint64_t length;        /* Content-Length; UINT64_MAX for what is not less */
    size_t body_at;         /* bytes of the body that came */
};

/*
 * Ready for the first request of a connection. Copies cfg. Returns 0; TN_EINVAL without a head
 * buffer, or without a body buffer whose body_cap is not 0.
 */
TN_API int tn_http_init(struct tn_http *h, const struct tn_http_cfg *cfg);

/*
 * Takes bytes of the connection; *used says how many, at most len. Returns an enum tn_http_event:
 * TN_HTTP_MORE, with all of them taken; TN_HTTP_CONTINUE, once per request, after which the rest is
 * pushed as ever; TN_HTTP_REQUEST, as often as it is called until tn_http_next, and no byte beyond
 * the request is taken. Or an error, with h->status and h->why set: TN_EFORMAT (400), TN_ERANGE
 * (413, 414, 431), TN_EUNSUP (417, 501, 505), and from then on the same, with *used 0. TN_ESTATE
 * once tn_http_next has said false.
 */
TN_API int tn_http_push(struct tn_http *h, const uint8_t *bytes, size_t len, size_t *used);

/*
 * After the response to a request: true when the next one may be pushed; false when the connection
 * has to be closed, or when there was no whole request.
 */
TN_API bool tn_http_next(struct tn_http *h);

/* Whether no byte of a request has come yet. */
TN_API bool tn_http_idle(const struct tn_http *h);

/*
 * The value of the first field of that name, which is given in lower case; NULL when there is none.
 * White space around it is gone. Only when a request is whole.
 */
TN_API const char *tn_http_field(const struct tn_http *h, const char *name);

/*
 * The fields of a whole request, one by one: start with *at 0; false after the last. *name is in
 * lower case. Both strings are NUL-terminated.
 */
TN_API bool tn_http_each(const struct tn_http *h, size_t *at, const char **name,
                         const char **value);

/* Responses, written into the caller's buffer one after another. */
struct tn_http_out {
    uint8_t *buf;  /* the caller's */
    size_t cap;    /* bytes of it */
    size_t len;    /* bytes to send, once a response is whole */
    int err;       /* 0, or the first error: TN_EINVAL, TN_ENOSPC, TN_ESTATE; then all is refused */
    size_t whole;  /* private from here on: bytes of buf that whole responses have */
    unsigned code; /* the status of a response that was begun; 0 between responses */
};

/* No response yet, and no error. */
TN_API void tn_http_out_init(struct tn_http_out *o, void *buf, size_t cap);

/*
 * The interim response 100 Continue (RFC 9110, 15.2.1), between responses. After an error this and
 * the three below do nothing, and len is that of the responses that were whole before.
 */
TN_API void tn_http_out_continue(struct tn_http_out *o);

/*
 * Begins a response: status line and Connection. status is 200 to 599; keep is struct tn_http's, or
 * false for the last one.
 */
TN_API void tn_http_out_status(struct tn_http_out *o, unsigned status, bool keep);

/*
 * A field, after the status. TN_EINVAL: the name is no token, or is one of those that frame a
 * message (Connection, Content-Length, Content-Type, Transfer-Encoding); the value has other bytes
 * than visible ASCII and spaces in it (so that no value makes a field or response of its own).
 */
TN_API void tn_http_out_field(struct tn_http_out *o, const char *name, const char *value);

/*
 * Ends a response: Content-Type when type is not NULL, Content-Length, an empty line and len bytes
 * of body. The answer to HEAD has their number, not them. 204 and 304 have no body: TN_EINVAL with
 * one, or with a type. Returns 0, or o->err.
 */
TN_API int tn_http_out_body(struct tn_http_out *o, const char *type, const void *body, size_t len,
                            bool head);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* What the next byte is of. Up to TN_HTTP_IN_HEAD_LF_ it is the head's. */
enum tn_http_state_ {
    TN_HTTP_IN_METHOD_,
    TN_HTTP_IN_EMPTY_LF_, /* one empty line before a request is let through (section 2.2) */
    TN_HTTP_IN_TARGET_,
    TN_HTTP_IN_VERSION_,
    TN_HTTP_IN_LINE_LF_,
    TN_HTTP_IN_NAME_,
    TN_HTTP_IN_VALUE_,
    TN_HTTP_IN_FIELD_LF_,
    TN_HTTP_IN_HEAD_LF_,
    TN_HTTP_ASKED_, /* the head is whole, the client waits for 100 Continue */
    TN_HTTP_IN_BODY_,
    TN_HTTP_WHOLE_,
    TN_HTTP_REFUSED_,
    TN_HTTP_CLOSED_,
};

enum tn_http_known_ {
    TN_HTTP_OTHER_,
    TN_HTTP_CONNECTION_,
    TN_HTTP_LENGTH_,
    TN_HTTP_EXPECT_,
    TN_HTTP_HOST_,
    TN_HTTP_ENCODING_,
};

#define TN_HTTP_SEEN_LENGTH_   1u
#define TN_HTTP_SEEN_ENCODING_ 2u
#define TN_HTTP_SEEN_HOST_     4u
#define TN_HTTP_SEEN_EXPECT_   8u
#define TN_HTTP_SEEN_CLOSE_    16u
#define TN_HTTP_SEEN_KEEP_     32u

/*@ predicate tn_http_memory(struct tn_http *h) =
      \valid(h) && \valid(h->cfg.head + (0 .. h->cfg.head_cap - 1)) &&
      \valid(h->cfg.body + (0 .. h->cfg.body_cap - 1)) &&
      \separated(h, h->cfg.head + (0 .. h->cfg.head_cap - 1),
                 h->cfg.body + (0 .. h->cfg.body_cap - 1));
    predicate tn_http_places(struct tn_http *h) =
      h->at <= h->size <= h->cfg.head_cap && h->mark <= h->end <= h->at &&
      h->query_at <= h->at && h->fields_at <= h->at &&
      (h->state == TN_HTTP_IN_NAME_ || h->state == TN_HTTP_IN_VALUE_ ==>
         h->query_at <= h->mark && h->fields_at <= h->mark);
    predicate tn_http_counts(struct tn_http *h) =
      h->state <= TN_HTTP_CLOSED_ && h->value <= 15 && h->escape <= 2 && h->word_len <= 8 &&
      (h->state <= TN_HTTP_IN_EMPTY_LF_ ==> h->count == 0 && h->word_len <= 7) &&
      h->fields <= h->cfg.max_fields &&
      (h->state == TN_HTTP_IN_NAME_ && h->count > 0 ==> h->fields < h->cfg.max_fields) &&
      (h->state == TN_HTTP_IN_VALUE_ ==> h->fields < h->cfg.max_fields) &&
      (h->state == TN_HTTP_IN_TARGET_ ==> h->count <= h->cfg.max_target) &&
      (h->state == TN_HTTP_IN_NAME_ || h->state == TN_HTTP_IN_VALUE_ ==>
         h->count <= h->cfg.max_field);
    predicate tn_http_lengths(struct tn_http *h) =
      (h->state <= TN_HTTP_ASKED_ ==> h->body_at == 0) &&
      (h->state == TN_HTTP_ASKED_ || h->state == TN_HTTP_IN_BODY_ ==>
         h->body_at < h->length <= h->cfg.body_cap) &&
      (h->state == TN_HTTP_WHOLE_ ==> h->body_at == h->length <= h->cfg.body_cap);
    predicate tn_http_ok(struct tn_http *h) =
      tn_http_places(h) && tn_http_counts(h) && tn_http_lengths(h);
    predicate tn_http_cfg_kept{A, B}(struct tn_http *h) =
      \at(h->cfg.head, A) == \at(h->cfg.head, B) && \at(h->cfg.body, A) == \at(h->cfg.body, B) &&
      \at(h->cfg.head_cap, A) == \at(h->cfg.head_cap, B) &&
      \at(h->cfg.body_cap, A) == \at(h->cfg.body_cap, B) &&
      \at(h->cfg.max_target, A) == \at(h->cfg.max_target, B) &&
      \at(h->cfg.max_fields, A) == \at(h->cfg.max_fields, B) &&
      \at(h->cfg.max_field, A) == \at(h->cfg.max_field, B);
    logic integer tn_http_decimal(char *s, integer n) =
      n <= 0 ? 0 : 10 * tn_http_decimal(s, n - 1) + (s[n - 1] - '0'); */

/*@ assigns \nothing;
    ensures \result != 0 <==> '0' <= c <= '9'; */
static inline bool tn_http_is_digit_(char c)
{
    return c >= '0' && c <= '9';
}

/*@ assigns \nothing;
    ensures 'A' <= c <= 'Z' ==> \result == c + 32;
    ensures !('A' <= c <= 'Z') ==> \result == c; */
static inline char tn_http_lower_(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/*@ assigns \nothing;
    ensures \result != 0 ==> '0' <= c <= 'z'; */
static inline bool tn_http_is_alnum_(char c)
{
    char low = tn_http_lower_(c);

    return tn_http_is_digit_(c) || (low >= 'a' && low <= 'z');
}

/* What a method, a field's name and an option of Connection are made of (RFC 9110, 5.6.2). */
/*@ assigns \nothing;
    ensures \result != 0 ==> '!' <= c <= '~'; */
static inline bool tn_http_is_token_(char c)
{
    if (tn_http_is_alnum_(c) || c == '!' || (c >= '#' && c <= '\'') || c == '*' || c == '+')
        return true;
    return c == '-' || c == '.' || (c >= '^' && c <= '`') || c == '|' || c == '~';
}

/* What stands in a path or query without an escape (RFC 3986, 3.3 and 3.4), and the `%` of one. */
/*@ assigns \nothing;
    ensures \result != 0 ==> '!' <= c <= '~'; */
static inline bool tn_http_is_uri_(char c)
{
    if (tn_http_is_alnum_(c) || c == '!' || (c >= '$' && c <= '/') || c == ':' || c == ';')
        return true;
    return c == '=' || c == '?' || c == '@' || c == '_' || c == '~';
}

/* The bytes of a host and port (RFC 9110, 7.2). */
/*@ assigns \nothing;
    ensures \result != 0 ==> '!' <= c <= '~'; */
static inline bool tn_http_is_host_(char c)
{
    if (c == '[' || c == ']')
        return true;
    return c != '/' && c != '?' && c != '@' && tn_http_is_uri_(c);
}

/*@ assigns \nothing;
    ensures \result != 0 <==> c == ' ' || c == '\t'; */
static inline bool tn_http_is_space_(char c)
{
    return c == ' ' || c == '\t';
}

/*@ assigns \nothing;
    ensures \result != 0 <==> '!' <= c <= '~'; */
static inline bool tn_http_is_visible_(char c)
{
    return c > ' ' && c < 0x7f;
}

/* The value of a hexadecimal digit, 16 for anything else. */
/*@ assigns \nothing;
    ensures \result <= 16;
    ensures '0' <= c <= '9' ==> \result == c - '0';
    ensures 'a' <= c <= 'f' ==> \result == c - 'a' + 10;
    ensures 'A' <= c <= 'F' ==> \result == c - 'A' + 10; */
static inline uint8_t tn_http_hex_(char c)
{
    char low = tn_http_lower_(c);

    if (tn_http_is_digit_(c))
        return (uint8_t)(c - '0');
    return low >= 'a' && low <= 'f' ? (uint8_t)(low - 'a' + 10) : 16;
}

/* Whether n bytes, in any case, are the m of a string in lower case. */
/*@ requires \valid_read(s + (0 .. n - 1)) && \valid_read(lower + (0 .. m - 1));
    assigns \nothing;
    ensures \result != 0 ==> n == m; */
static inline bool tn_http_same_(const char *s, size_t n, const char *lower, size_t m)
{
    if (n != m)
        return false;
    /*@ loop invariant 0 <= i <= n;
        loop assigns i;
        loop variant n - i; */
    for (size_t i = 0; i < n; i++)
        if (tn_http_lower_(s[i]) != lower[i])
            return false;
    return true;
}

/* Copies between buffers that do not overlap. */
/*@ requires \valid(to + (0 .. n - 1)) && \valid_read(from + (0 .. n - 1));
    requires \separated(to + (0 .. n - 1), from + (0 .. n - 1));
    assigns to[0 .. n - 1];
    ensures \forall integer i; 0 <= i < n ==> to[i] == from[i]; */
static inline void tn_http_copy_(uint8_t *to, const uint8_t *from, size_t n)
{
    /*@ loop invariant 0 <= i <= n;
        loop invariant \forall integer j; 0 <= j < i ==> to[j] == from[j];
        loop assigns i, to[0 .. n - 1];
        loop variant n - i; */
    for (size_t i = 0; i < n; i++)
        to[i] = from[i];
}

/*@ assigns \nothing;
    ensures 400 <= \result <= 505; */
static inline uint16_t tn_http_status_(uint8_t why)
{
    if (why <= TN_HTTP_NO_HOST)
        return 400;
    switch (why) {
    case TN_HTTP_LARGE_BODY:
        return 413;
    case TN_HTTP_LONG_TARGET:
        return 414;
    case TN_HTTP_UNMET:
        return 417;
    case TN_HTTP_MANY_FIELDS:
    case TN_HTTP_LONG_FIELD:
    case TN_HTTP_LARGE_HEAD:
        return 431;
    case TN_HTTP_UNKNOWN_VERSION:
        return 505;
    default:
        return 501;
    }
}

static inline int tn_http_err_(uint16_t status)
{
    if (status == 400)
        return TN_EFORMAT;
    return status == 413 || status == 414 || status == 431 ? TN_ERANGE : TN_EUNSUP;
}

/*@ requires \valid(h);
    assigns h->state, h->why, h->status, h->keep;
    ensures h->state == TN_HTTP_REFUSED_ && h->why == why && !h->keep && h->status >= 400; */
static inline void tn_http_refuse_(struct tn_http *h, uint8_t why)
{
    h->state = TN_HTTP_REFUSED_;
    h->why = why;
    h->status = tn_http_status_(why);
    h->keep = false;
}

/* Ready for a request. */
/*@ requires \valid(h);
    assigns *h;
    ensures tn_http_cfg_kept{Pre, Post}(h);
    ensures tn_http_places(h);
    ensures tn_http_counts(h);
    ensures tn_http_lengths(h);
    ensures h->state == TN_HTTP_IN_METHOD_ && h->size == 0; */
static inline void tn_http_clear_(struct tn_http *h)
{
    h->method = TN_HTTP_GET;
    h->minor = 0;
    h->keep = false;
    h->path = NULL;
    h->query = NULL;
    h->body = NULL;
    h->body_len = 0;
    h->status = 0;
    h->why = TN_HTTP_OK;
    h->state = TN_HTTP_IN_METHOD_;
    h->known = TN_HTTP_OTHER_;
    h->escape = 0;
    h->value = 0;
    h->seen = 0;
    h->word_len = 0;
    h->size = 0;
    h->at = 0;
    h->mark = 0;
    h->end = 0;
    h->query_at = 0;
    h->fields_at = 0;
    h->fields = 0;
    h->count = 0;
    h->length = 0;
    h->body_at = 0;
}

/* Keeps a byte of the head. There is room: each byte that came keeps one at most. */
/*@ requires tn_http_memory(h) && h->at < h->cfg.head_cap;
    assigns h->at, h->cfg.head[h->at];
    ensures h->at == \old(h->at) + 1 && h->cfg.head[h->at - 1] == c; */
static inline void tn_http_keep_(struct tn_http *h, char c)
{
    h->cfg.head[h->at] = c;
    h->at++;
}

/* One byte of a method or version; false when the word is full. */
/*@ requires \valid(h) && most <= 8;
    assigns h->word_len, h->word[0 .. 7];
    ensures \result != 0 <==> \old(h->word_len) < most;
    ensures h->word_len == \old(h->word_len) + (\result != 0 ? 1 : 0);
    ensures \result != 0 ==> h->word[\old(h->word_len)] == c; */
static inline bool tn_http_word_(struct tn_http *h, char c, uint8_t most)
{
    if (h->word_len >= most)
        return false;
    h->word[h->word_len] = c;
    h->word_len++;
    return true;
}

/* Methods are in upper case, always (RFC 9110, 9.1). Returns -1 for an unknown one. */
/*@ requires len <= 7 && \valid_read(word + (0 .. len - 1));
    assigns \nothing;
    ensures -1 <= \result <= TN_HTTP_OPTIONS; */
static inline int tn_http_find_method_(const char *word, size_t len)
{
    static const char name[][8] = {"GET", "PUT", "PATCH", "POST", "DELETE", "HEAD", "OPTIONS"};

    /*@ loop invariant 0 <= m <= TN_HTTP_OPTIONS + 1;
        loop assigns m;
        loop variant TN_HTTP_OPTIONS + 1 - m; */
    for (int m = 0; m < (int)(sizeof(name) / sizeof(name[0])); m++) {
        size_t i = 0;

        /*@ loop invariant 0 <= i <= len;
            loop assigns i;
            loop variant len - i; */
        while (i < len && name[m][i] == word[i])
            i++;
        if (i == len && !name[m][i])
            return m;
    }
    return -1;
}

/*@ requires tn_http_memory(h) && tn_http_ok(h) && h->at < h->size;
    requires h->state == TN_HTTP_IN_METHOD_;
    assigns *h, h->cfg.head[0 .. h->cfg.head_cap - 1];
    ensures tn_http_cfg_kept{Pre, Post}(h);
    ensures tn_http_places(h);
    ensures tn_http_counts(h);
    ensures tn_http_lengths(h);
    ensures h->size == \old(h->size); */
static inline void tn_http_in_method_(struct tn_http *h, char c)
{
    int method;

    if (c == '\r' && h->size == 1) {
        h->state = TN_HTTP_IN_EMPTY_LF_;
    } else if (c == '\n') {
        tn_http_refuse_(h, TN_HTTP_BAD_LINE_END);
    } else if (c == ' ' && h->word_len > 0) {
        method = tn_http_find_method_(h->word, h->word_len);
        if (method < 0) {
            tn_http_refuse_(h, TN_HTTP_UNKNOWN_METHOD);
        } else {
            h->method = (uint8_t)method;
            h->word_len = 0;
            h->state = TN_HTTP_IN_TARGET_;
        }
    } else if (!tn_http_is_token_(c)) {
        tn_http_refuse_(h, TN_HTTP_BAD_METHOD);
    } else if (!tn_http_word_(h, c, 7)) { /* longer than OPTIONS */
        tn_http_refuse_(h, TN_HTTP_UNKNOWN_METHOD);
    }
}

/* A digit of an escape. A path keeps the byte that it stands for, a query the escape. */
/*@ requires tn_http_memory(h) && tn_http_ok(h) && h->at < h->size;
    requires h->state == TN_HTTP_IN_TARGET_ && 1 <= h->escape <= 2;
    assigns *h, h->cfg.head[0 .. h->cfg.head_cap - 1];
    ensures tn_http_cfg_kept{Pre, Post}(h);
    ensures tn_http_places(h);
    ensures tn_http_counts(h);
    ensures tn_http_lengths(h);
    ensures h->size == \old(h->size); */
static inline void tn_http_in_escape_(struct tn_http *h, char c)
{
    uint8_t digit = tn_http_hex_(c), byte;

    if (digit > 15) {
        tn_http_refuse_(h, TN_HTTP_BAD_ESCAPE);
        return;
    }
    byte = (uint8_t)(h->value * 16 + digit);
    h->escape--;
    h->value = digit;
    if (h->query_at > 0)
        tn_http_keep_(h, c);
    if (h->escape > 0)
        return;
    if (byte < ' ' || byte == 0x7f || (byte == '/' && h->query_at == 0))
        tn_http_refuse_(h, TN_HTTP_BAD_ESCAPE);
    else if (h->query_at == 0)
        tn_http_keep_(h, (char)byte);
}

/*@ requires tn_http_memory(h) && tn_http_ok(h) && h->at < h->size;
    requires h->state == TN_HTTP_IN_TARGET_;
    assigns *h, h->cfg.head[0 .. h->cfg.head_cap - 1];
    ensures tn_http_cfg_kept{Pre, Post}(h);
    ensures tn_http_places(h);
    ensures tn_http_counts(h);
    ensures tn_http_lengths(h);
    ensures h->size == \old(h->size); */
static inline void tn_http_in_target_(struct tn_http *h, char c)
{
    if (c == '\n') {
        tn_http_refuse_(h, TN_HTTP_BAD_LINE_END);
    } else if (c == '\r') {
        tn_http_refuse_(h, TN_HTTP_BAD_VERSION); /* HTTP/0.9 has none */
    } else if (c == ' ' && h->count > 0) {
        if (h->escape > 0) {
            tn_http_refuse_(h, TN_HTTP_BAD_ESCAPE);
        } else {
            tn_http_keep_(h, 0);
            h->state = TN_HTTP_IN_VERSION_;
        }
    } else if (h->count >= h->cfg.max_target) {
        tn_http_refuse_(h, TN_HTTP_LONG_TARGET);
    } else if (h->escape > 0) {
        h->count++;
        tn_http_in_escape_(h, c);
    } else if (!tn_http_is_uri_(c) || (h->count == 0 && c != '/')) {
        tn_http_refuse_(h, TN_HTTP_BAD_TARGET);
    } else {
        h->count++;
        if (c == '%') {
            h->escape = 2;
            h->value = 0;
        }
        if (c == '?' && h->query_at == 0) {
            tn_http_keep_(h, 0);
            h->query_at = h->at;
        } else if (c != '%' || h->query_at > 0) {
            tn_http_keep_(h, c);
        }
    }
}

/* The minor of HTTP/1.minor; more than 1 for another version, -1 for none (section 2.3). */
/*@ requires \valid_read(w + (0 .. 7));
    assigns \nothing;
    ensures -1 <= \result <= 10;
    ensures 0 <= \result <= 1 ==> len == 8 && w[5] == '1' && w[7] == '0' + \result; */
static inline int tn_http_minor_(const char *w, size_t len)
{
    if (len != 8 || w[0] != 'H' || w[1] != 'T' || w[2] != 'T' || w[3] != 'P' || w[4] != '/')
        return -1;
    if (!tn_http_is_digit_(w[5]) || w[6] != '.' || !tn_http_is_digit_(w[7]))
        return -1;
    return w[5] == '1' ? w[7] - '0' : 10;
}

/*@ requires tn_http_memory(h) && tn_http_ok(h) && h->at < h->size;
    requires h->state == TN_HTTP_IN_VERSION_;
    assigns *h, h->cfg.head[0 .. h->cfg.head_cap - 1];
    ensures tn_http_cfg_kept{Pre, Post}(h);
    ensures tn_http_places(h);
    ensures tn_http_counts(h);
    ensures tn_http_lengths(h);
    ensures h->size == \old(h->size); */
static inline void tn_http_in_version_(struct tn_http *h, char c)
{
    int minor;

    if (c == '\n') {
        tn_http_refuse_(h, TN_HTTP_BAD_LINE_END);
    } else if (c != '\r') {
        if (!tn_http_word_(h, c, 8))
            tn_http_refuse_(h, TN_HTTP_BAD_VERSION);
    } else {
        minor = tn_http_minor_(h->word, h->word_len);
        if (minor < 0) {
            tn_http_refuse_(h, TN_HTTP_BAD_VERSION);
        } else if (minor > 1) {
            tn_http_refuse_(h, TN_HTTP_UNKNOWN_VERSION);
        } else {
            h->minor = (uint8_t)minor;
            h->state = TN_HTTP_IN_LINE_LF_;
        }
    }
}

/* The line after this one. */
/*@ requires \valid(h) && tn_http_ok(h) && h->state <= TN_HTTP_IN_HEAD_LF_;
    assigns h->mark, h->end, h->count, h->known, h->state;
    ensures tn_http_places(h);
    ensures tn_http_counts(h);
    ensures tn_http_lengths(h);
    ensures h->state == TN_HTTP_IN_NAME_ && h->count == 0; */
static inline void tn_http_line_(struct tn_http *h)
{
    h->mark = h->at;
    h->end = h->at;
    h->count = 0;
    h->known = TN_HTTP_OTHER_;
    h->state = TN_HTTP_IN_NAME_;
}

/* The fields that mean something here. */
/*@ requires \valid_read(name + (0 .. n - 1));
    assigns \nothing;
    ensures \result <= TN_HTTP_ENCODING_; */
static inline uint8_t tn_http_known_(const char *name, size_t n)
{
    if (tn_http_same_(name, n, "connection", 10))
        return TN_HTTP_CONNECTION_;
    if (tn_http_same_(name, n, "content-length", 14))
        return TN_HTTP_LENGTH_;
    if (tn_http_same_(name, n, "expect", 6))
        return TN_HTTP_EXPECT_;
    if (tn_http_same_(name, n, "host", 4))
        return TN_HTTP_HOST_;
    return tn_http_same_(name, n, "transfer-encoding", 17) ? TN_HTTP_ENCODING_ : TN_HTTP_OTHER_;
}

/*@ requires tn_http_memory(h) && tn_http_ok(h) && h->at < h->size;
    requires h->state == TN_HTTP_IN_NAME_;
    assigns *h, h->cfg.head[0 .. h->cfg.head_cap - 1];
    ensures tn_http_cfg_kept{Pre, Post}(h);
    ensures tn_http_places(h);
    ensures tn_http_counts(h);
    ensures tn_http_lengths(h);
    ensures h->size == \old(h->size); */
static inline void tn_http_in_name_(struct tn_http *h, char c)
{
    if (c == '\n') {
        tn_http_refuse_(h, TN_HTTP_BAD_LINE_END);
    } else if (h->count == 0 && c == '\r') {
        h->state = TN_HTTP_IN_HEAD_LF_;
    } else if (h->count == 0 && tn_http_is_space_(c)) {
        tn_http_refuse_(h, TN_HTTP_FOLDED);
    } else if (h->count == 0 && h->fields >= h->cfg.max_fields) {
        tn_http_refuse_(h, TN_HTTP_MANY_FIELDS);
    } else if (h->count >= h->cfg.max_field) {
        tn_http_refuse_(h, TN_HTTP_LONG_FIELD);
    } else if (c == ':' && h->count > 0) {
        h->count++;
        h->known = tn_http_known_(h->cfg.head + h->mark, h->at - h->mark);
        tn_http_keep_(h, 0);
        h->mark = h->at;
        h->end = h->at;
        h->state = TN_HTTP_IN_VALUE_;
    } else if (!tn_http_is_token_(c)) {
        tn_http_refuse_(h, TN_HTTP_BAD_NAME);
    } else {
        h->count++;
        tn_http_keep_(h, tn_http_lower_(c));
    }
}

/* n with a decimal digit behind it, UINT64_MAX for all that does not fit. */
/*@ requires digit <= 9;
    assigns \nothing;
    ensures \result == \min(n * 10 + digit, UINT64_MAX); */
static inline uint64_t tn_http_digit_(uint64_t n, uint8_t digit)
{
    if (n > (UINT64_MAX - digit) / 10)
        return UINT64_MAX;
    return n * 10 + digit;
}

/* Content-Length: digits only, 1 or more (RFC 9110, 8.6). */
/*@ requires \valid_read(s + (0 .. n - 1)) && \valid(number);
    requires \separated(number, s + (0 .. n - 1));
    assigns *number;
    ensures \result != 0 <==> n > 0 && \forall integer i; 0 <= i < n ==> '0' <= s[i] <= '9';
    ensures \result != 0 ==>
      *number == \min(tn_http_decimal((char *)s, n), UINT64_MAX);
    ensures \result == 0 ==> *number == 0; */
static inline bool tn_http_number_(const char *s, size_t n, uint64_t *number)
{
    *number = 0;
    /*@ loop invariant 0 <= i <= n;
        loop invariant \forall integer j; 0 <= j < i ==> '0' <= s[j] <= '9';
        loop invariant *number == \min(tn_http_decimal((char *)s, i), UINT64_MAX);
        loop invariant tn_http_decimal((char *)s, i) >= 0;
        loop assigns i, *number;
        loop variant n - i; */
    for (size_t i = 0; i < n; i++) {
        if (!tn_http_is_digit_(s[i])) {
            *number = 0;
            return false;
        }
        *number = tn_http_digit_(*number, (uint8_t)(s[i] - '0'));
    }
    return n > 0;
}

/* Connection: options with commas between them, of which two mean something (section 9.6). */
/*@ requires \valid(h) && \valid_read(s + (0 .. n - 1)) && \separated(h, s + (0 .. n - 1));
    assigns h->seen; */
static inline bool tn_http_connection_(struct tn_http *h, const char *s, size_t n)
{
    size_t i = 0, from;
    bool comma = true;

    /*@ loop invariant 0 <= i <= n;
        loop assigns i, from, comma, h->seen;
        loop variant n - i; */
    while (i < n) {
        if (s[i] == ',' || tn_http_is_space_(s[i])) {
            comma = comma || s[i] == ',';
            i++;
            continue;
        }
        from = i;
        /*@ loop invariant from <= i <= n;
            loop assigns i;
            loop variant n - i; */
        while (i < n && tn_http_is_token_(s[i]))
            i++;
        if (i == from || !comma)
            return false;
        comma = false;
        if (tn_http_same_(s + from, i - from, "close", 5))
            h->seen |= TN_HTTP_SEEN_CLOSE_;
        else if (tn_http_same_(s + from, i - from, "keep-alive", 10))
            h->seen |= TN_HTTP_SEEN_KEEP_;
    }
    return true;
}

/*@ requires \valid_read(s + (0 .. n - 1));
    assigns \nothing;
    ensures \result != 0 ==> \forall integer i; 0 <= i < n ==> '!' <= s[i] <= '~'; */
static inline bool tn_http_host_(const char *s, size_t n)
{
    /*@ loop invariant 0 <= i <= n;
        loop invariant \forall integer j; 0 <= j < i ==> '!' <= s[j] <= '~';
        loop assigns i;
        loop variant n - i; */
    for (size_t i = 0; i < n; i++)
        if (!tn_http_is_host_(s[i]))
            return false;
    return true;
}

/* What a field of n bytes says. Returns why the request is refused, or TN_HTTP_OK. */
/*@ requires \valid(h) && \valid_read(s + (0 .. n - 1)) && \separated(h, s + (0 .. n - 1));
    assigns h->seen, h->length;
    ensures h->known == TN_HTTP_LENGTH_ && (\old(h->seen) & TN_HTTP_SEEN_LENGTH_) != 0 ==>
      \result == TN_HTTP_TWO_LENGTHS;
    ensures h->known == TN_HTTP_LENGTH_ && \result == TN_HTTP_OK ==>
      h->length == \min(tn_http_decimal((char *)s, n), UINT64_MAX);
    ensures h->known != TN_HTTP_LENGTH_ ==> h->length == \old(h->length); */
static inline uint8_t tn_http_take_(struct tn_http *h, const char *s, size_t n)
{
    switch (h->known) {
    case TN_HTTP_CONNECTION_:
        return tn_http_connection_(h, s, n) ? TN_HTTP_OK : TN_HTTP_BAD_CONNECTION;
    case TN_HTTP_LENGTH_:
        if (h->seen & TN_HTTP_SEEN_LENGTH_)
            return TN_HTTP_TWO_LENGTHS;
        h->seen |= TN_HTTP_SEEN_LENGTH_;
        return tn_http_number_(s, n, &h->length) ? TN_HTTP_OK : TN_HTTP_BAD_LENGTH;
    case TN_HTTP_EXPECT_:
        h->seen |= TN_HTTP_SEEN_EXPECT_;
        return tn_http_same_(s, n, "100-continue", 12) ? TN_HTTP_OK : TN_HTTP_UNMET;
    case TN_HTTP_HOST_:
        if (h->seen & TN_HTTP_SEEN_HOST_)
            return TN_HTTP_TWO_HOSTS;
        h->seen |= TN_HTTP_SEEN_HOST_;
        return tn_http_host_(s, n) ? TN_HTTP_OK : TN_HTTP_BAD_HOST;
    case TN_HTTP_ENCODING_:
        h->seen |= TN_HTTP_SEEN_ENCODING_;
        return TN_HTTP_OK;
    default:
        return TN_HTTP_OK;
    }
}

/* A field is whole: without the white space behind it, it is kept. */
/*@ requires tn_http_memory(h) && tn_http_ok(h) && h->at < h->size;
    requires h->state == TN_HTTP_IN_VALUE_;
    assigns *h, h->cfg.head[0 .. h->cfg.head_cap - 1];
    ensures tn_http_cfg_kept{Pre, Post}(h);
    ensures tn_http_places(h);
    ensures tn_http_counts(h);
    ensures tn_http_lengths(h);
    ensures h->size == \old(h->size); */
static inline void tn_http_field_end_(struct tn_http *h)
{
    uint8_t why = tn_http_take_(h, h->cfg.head + h->mark, h->end - h->mark);

    if (why != TN_HTTP_OK) {
        tn_http_refuse_(h, why);
        return;
    }
    h->at = h->end;
    tn_http_keep_(h, 0);
    h->fields++;
    h->state = TN_HTTP_IN_FIELD_LF_;
}

/*@ requires tn_http_memory(h) && tn_http_ok(h) && h->at < h->size;
    requires h->state == TN_HTTP_IN_VALUE_;
    assigns *h, h->cfg.head[0 .. h->cfg.head_cap - 1];
    ensures tn_http_cfg_kept{Pre, Post}(h);
    ensures tn_http_places(h);
    ensures tn_http_counts(h);
    ensures tn_http_lengths(h);
    ensures h->size == \old(h->size); */
static inline void tn_http_in_value_(struct tn_http *h, char c)
{
    if (c == '\n') {
        tn_http_refuse_(h, TN_HTTP_BAD_LINE_END);
    } else if (c == '\r') {
        tn_http_field_end_(h);
    } else if (h->count >= h->cfg.max_field) {
        tn_http_refuse_(h, TN_HTTP_LONG_FIELD);
    } else if (tn_http_is_visible_(c)) {
        h->count++;
        tn_http_keep_(h, c);
        h->end = h->at;
    } else if (tn_http_is_space_(c)) {
        h->count++;
        if (h->end > h->mark)
            tn_http_keep_(h, c);
    } else {
        tn_http_refuse_(h, TN_HTTP_BAD_VALUE);
    }
}

/* The head is whole: how long the body is (section 6.3), and whether it may come. */
/*@ requires tn_http_memory(h) && tn_http_ok(h);
    requires h->state <= TN_HTTP_IN_HEAD_LF_;
    assigns h->state, h->why, h->status, h->keep;
    ensures tn_http_places(h);
    ensures tn_http_counts(h);
    ensures tn_http_lengths(h);
    ensures h->state == TN_HTTP_WHOLE_ ==> h->length == 0;
    ensures h->state == TN_HTTP_ASKED_ || h->state == TN_HTTP_IN_BODY_ ==>
      0 < h->length <= h->cfg.body_cap;
    ensures (h->seen & TN_HTTP_SEEN_ENCODING_) != 0 ==> h->state == TN_HTTP_REFUSED_;
    ensures h->state >= TN_HTTP_ASKED_; */
static inline void tn_http_head_end_(struct tn_http *h)
{
    if (h->seen & TN_HTTP_SEEN_ENCODING_) {
        if (h->minor == 0 || h->seen & TN_HTTP_SEEN_LENGTH_)
            tn_http_refuse_(h, TN_HTTP_BAD_ENCODING);
        else
            tn_http_refuse_(h, TN_HTTP_ENCODED);
    } else if (h->minor > 0 && !(h->seen & TN_HTTP_SEEN_HOST_)) {
        tn_http_refuse_(h, TN_HTTP_NO_HOST);
    } else if (h->length > h->cfg.body_cap) {
        tn_http_refuse_(h, TN_HTTP_LARGE_BODY);
    } else {
        if (!(h->seen & TN_HTTP_SEEN_CLOSE_))
            h->keep = h->minor > 0 || h->seen & TN_HTTP_SEEN_KEEP_;
        if (h->length == 0)
            h->state = TN_HTTP_WHOLE_;
        else if (h->minor > 0 && h->seen & TN_HTTP_SEEN_EXPECT_)
            h->state = TN_HTTP_ASKED_;
        else
            h->state = TN_HTTP_IN_BODY_;
    }
}

/* The LF of a CR. */
/*@ requires tn_http_memory(h) && tn_http_ok(h) && h->at < h->size;
    requires h->state <= TN_HTTP_IN_HEAD_LF_;
    assigns *h, h->cfg.head[0 .. h->cfg.head_cap - 1];
    ensures tn_http_cfg_kept{Pre, Post}(h);
    ensures tn_http_places(h);
    ensures tn_http_counts(h);
    ensures tn_http_lengths(h);
    ensures h->size == \old(h->size); */
static inline void tn_http_in_lf_(struct tn_http *h, char c)
{
    if (c != '\n') {
        tn_http_refuse_(h, TN_HTTP_BAD_LINE_END);
        return;
    }
    switch (h->state) {
    case TN_HTTP_IN_EMPTY_LF_:
        h->state = TN_HTTP_IN_METHOD_;
        break;
    case TN_HTTP_IN_LINE_LF_:
        h->fields_at = h->at;
        tn_http_line_(h);
        break;
    case TN_HTTP_IN_FIELD_LF_:
        tn_http_line_(h);
        break;
    default:
        tn_http_head_end_(h);
        break;
    }
}

/* One byte of the head. */
/*@ requires tn_http_memory(h) && tn_http_ok(h) && h->state <= TN_HTTP_IN_HEAD_LF_;
    assigns *h, h->cfg.head[0 .. h->cfg.head_cap - 1];
    ensures tn_http_cfg_kept{Pre, Post}(h);
    ensures tn_http_places(h);
    ensures tn_http_counts(h);
    ensures tn_http_lengths(h);
    ensures h->state != TN_HTTP_REFUSED_ ==> h->size == \old(h->size) + 1; */
static inline void tn_http_byte_(struct tn_http *h, char c)
{
    if (h->size >= h->cfg.head_cap) {
        tn_http_refuse_(h,
                        h->state == TN_HTTP_IN_TARGET_ ? TN_HTTP_LONG_TARGET : TN_HTTP_LARGE_HEAD);
        return;
    }
    h->size++;
    switch (h->state) {
    case TN_HTTP_IN_METHOD_:
        tn_http_in_method_(h, c);
        break;
    case TN_HTTP_IN_TARGET_:
        tn_http_in_target_(h, c);
        break;
    case TN_HTTP_IN_VERSION_:
        tn_http_in_version_(h, c);
        break;
    case TN_HTTP_IN_NAME_:
        tn_http_in_name_(h, c);
        break;
    case TN_HTTP_IN_VALUE_:
        tn_http_in_value_(h, c);
        break;
    default:
        tn_http_in_lf_(h, c);
        break;
    }
}

/* What of len bytes belongs to the body; returns how many. */
/*@ requires tn_http_memory(h) && tn_http_ok(h) && h->state == TN_HTTP_IN_BODY_;
    requires \valid_read(bytes + (0 .. len - 1));
    requires \separated(bytes + (0 .. len - 1), h);
    requires \separated(bytes + (0 .. len - 1), h->cfg.body + (0 .. h->cfg.body_cap - 1));
    assigns h->state, h->body_at, h->cfg.body[0 .. h->cfg.body_cap - 1];
    ensures tn_http_places(h);
    ensures tn_http_counts(h);
    ensures tn_http_lengths(h);
    ensures \result == \min(len, \old(h->length - h->body_at));
    ensures h->body_at == \old(h->body_at) + \result;
    ensures h->state == (h->body_at == h->length ? TN_HTTP_WHOLE_ : TN_HTTP_IN_BODY_);
    ensures \forall integer i; 0 <= i < \result ==>
      h->cfg.body[\old(h->body_at) + i] == bytes[i];
    ensures \forall integer i; 0 <= i < \old(h->body_at) ==>
      h->cfg.body[i] == \old(h->cfg.body[i]); */
static inline size_t tn_http_body_(struct tn_http *h, const uint8_t *bytes, size_t len)
{
    size_t left = (size_t)h->length - h->body_at, n = len < left ? len : left;

    tn_http_copy_(h->cfg.body + h->body_at, bytes, n);
    h->body_at += n;
    if (n == left)
        h->state = TN_HTTP_WHOLE_;
    return n;
}

/* Takes the head's part of len bytes; returns how many that was. */
/*@ requires tn_http_memory(h) && tn_http_ok(h);
    requires \valid_read(bytes + (0 .. len - 1));
    requires \separated(bytes + (0 .. len - 1), h);
    requires \separated(bytes + (0 .. len - 1), h->cfg.head + (0 .. h->cfg.head_cap - 1));
    assigns *h, h->cfg.head[0 .. h->cfg.head_cap - 1];
    ensures tn_http_cfg_kept{Pre, Post}(h);
    ensures tn_http_places(h);
    ensures tn_http_counts(h);
    ensures tn_http_lengths(h);
    ensures \result <= len;
    ensures h->state <= TN_HTTP_IN_HEAD_LF_ ==> \result == len;
    ensures \old(h->state) > TN_HTTP_IN_HEAD_LF_ ==>
      \result == 0 && h->state == \old(h->state); */
static inline size_t tn_http_feed_(struct tn_http *h, const uint8_t *bytes, size_t len)
{
    size_t n = 0;

    /*@ ghost char *head = h->cfg.head; size_t cap = h->cfg.head_cap; */
    /*@ loop invariant 0 <= n <= len && tn_http_memory(h);
        loop invariant tn_http_places(h);
        loop invariant tn_http_counts(h);
        loop invariant tn_http_lengths(h);
        loop invariant tn_http_cfg_kept{Pre, Here}(h);
        loop invariant \at(h->state, Pre) > TN_HTTP_IN_HEAD_LF_ ==>
          n == 0 && h->state == \at(h->state, Pre);
        loop assigns n, *h, head[0 .. cap - 1];
        loop variant len - n; */
    while (n < len && h->state <= TN_HTTP_IN_HEAD_LF_) {
        tn_http_byte_(h, (char)bytes[n]);
        n++;
    }
    return n;
}

TN_API int tn_http_init(struct tn_http *h, const struct tn_http_cfg *cfg)
{
    if (!cfg->head || cfg->head_cap == 0 || (!cfg->body && cfg->body_cap > 0))
        return TN_EINVAL;
    h->cfg = *cfg;
    if (h->cfg.max_target == 0)
        h->cfg.max_target = TN_HTTP_MAX_TARGET;
    if (h->cfg.max_fields == 0)
        h->cfg.max_fields = TN_HTTP_MAX_FIELDS;
    if (h->cfg.max_field == 0)
        h->cfg.max_field = TN_HTTP_MAX_FIELD;
    tn_http_clear_(h);
    return 0;
}

TN_API int tn_http_push(struct tn_http *h, const uint8_t *bytes, size_t len, size_t *used)
{
    size_t n = tn_http_feed_(h, bytes, len);

    if (n < len && h->state == TN_HTTP_IN_BODY_)
        n += tn_http_body_(h, bytes + n, len - n);
    *used = n;
    switch (h->state) {
    case TN_HTTP_ASKED_:
        h->state = TN_HTTP_IN_BODY_;
        return TN_HTTP_CONTINUE;
    case TN_HTTP_WHOLE_:
        h->path = h->cfg.head;
        h->query = h->query_at > 0 ? h->cfg.head + h->query_at : NULL;
        h->body = h->cfg.body;
        h->body_len = h->body_at;
        return TN_HTTP_REQUEST;
    case TN_HTTP_REFUSED_:
        return tn_http_err_(h->status);
    case TN_HTTP_CLOSED_:
        return TN_ESTATE;
    default:
        return TN_HTTP_MORE;
    }
}

TN_API bool tn_http_next(struct tn_http *h)
{
    bool keep = h->state == TN_HTTP_WHOLE_ && h->keep;

    tn_http_clear_(h);
    if (!keep)
        h->state = TN_HTTP_CLOSED_;
    return keep;
}

TN_API bool tn_http_idle(const struct tn_http *h)
{
    return h->state == TN_HTTP_IN_METHOD_ && h->word_len == 0;
}

TN_API bool tn_http_each(const struct tn_http *h, size_t *at, const char **name, const char **value)
{
    size_t i = *at > 0 ? *at : h->fields_at;

    *name = NULL;
    *value = NULL;
    if (h->state != TN_HTTP_WHOLE_ || i >= h->at)
        return false;
    *name = h->cfg.head + i;
    while (h->cfg.head[i])
        i++;
    i++;
    *value = h->cfg.head + i;
    while (h->cfg.head[i])
        i++;
    *at = i + 1;
    return true;
}

TN_API const char *tn_http_field(const struct tn_http *h, const char *name)
{
    const char *each, *value;
    size_t at = 0, len = 0;

    while (name[len])
        len++;
    while (tn_http_each(h, &at, &each, &value))
        if (tn_http_same_(each, (size_t)(value - each) - 1, name, len))
            return value;
    return NULL;
}

/*@ predicate tn_http_out_ok(struct tn_http_out *o) =
      o->whole <= o->len <= o->cap && \valid(o->buf + (0 .. o->cap - 1)) &&
      \separated(o, o->buf + (0 .. o->cap - 1)) && (o->err != 0 ==> o->len == o->whole); */

/* An error: what was not whole is gone, and nothing more is written. */
/*@ requires \valid(o) && tn_http_out_ok(o) && err != 0;
    assigns o->err, o->len, o->code;
    ensures tn_http_out_ok(o) && o->err != 0 && o->len == o->whole && o->code == 0;
    ensures \old(o->err) != 0 ==> o->err == \old(o->err); */
static inline void tn_http_out_fail_(struct tn_http_out *o, int err)
{
    if (o->err == 0)
        o->err = err;
    o->len = o->whole;
    o->code = 0;
}

/*@ requires \valid(o) && tn_http_out_ok(o);
    requires \valid_read(bytes + (0 .. len - 1));
    requires \separated(bytes + (0 .. len - 1), o->buf + (0 .. o->cap - 1));
    requires \separated(bytes + (0 .. len - 1), o);
    assigns o->err, o->len, o->code, o->buf[o->len .. o->len + len - 1];
    ensures tn_http_out_ok(o);
    ensures \old(o->err) != 0 ==> o->err == \old(o->err) && o->len == \old(o->len);
    ensures \old(o->err) == 0 ==> (o->err == 0 <==> len <= o->cap - \old(o->len));
    ensures o->err == 0 ==> o->len == \old(o->len) + len;
    ensures o->err == 0 ==>
      \forall integer i; 0 <= i < len ==> o->buf[\old(o->len) + i] == bytes[i]; */
static inline void tn_http_out_put_(struct tn_http_out *o, const uint8_t *bytes, size_t len)
{
    if (o->err != 0)
        return;
    if (len > o->cap - o->len) {
        tn_http_out_fail_(o, TN_ENOSPC);
        return;
    }
    tn_http_copy_(o->buf + o->len, bytes, len);
    o->len += len;
}

static inline void tn_http_out_text_(struct tn_http_out *o, const char *text)
{
    size_t n = 0;

    while (text[n])
        n++;
    tn_http_out_put_(o, (const uint8_t *)text, n);
}

/*@ requires \valid(o) && tn_http_out_ok(o);
    assigns o->err, o->len, o->code, o->buf[o->len .. o->len + 19];
    ensures tn_http_out_ok(o);
    ensures o->err == 0 ==> \old(o->len) < o->len <= \old(o->len) + 20; */
static inline void tn_http_out_number_(struct tn_http_out *o, uint64_t n)
{
    uint8_t digits[20];
    size_t at = sizeof(digits);

    /*@ loop invariant 1 <= at <= 20;
        loop assigns at, n, digits[0 .. 19];
        loop variant at; */
    do {
        at--;
        digits[at] = (uint8_t)('0' + n % 10);
        n /= 10;
    } while (n > 0 && at > 0);
    tn_http_out_put_(o, digits + at, sizeof(digits) - at);
}

static inline void tn_http_out_line_(struct tn_http_out *o, const char *name, const char *value)
{
    tn_http_out_text_(o, name);
    tn_http_out_text_(o, ": ");
    tn_http_out_text_(o, value);
    tn_http_out_text_(o, "\r\n");
}

/* A value that stays in its line. */
static inline bool tn_http_out_value_(const char *s)
{
    if (!s)
        return false;
    for (; *s; s++)
        if (*s != ' ' && !tn_http_is_visible_(*s))
            return false;
    return true;
}

/* A name that is the caller's to use; those that frame a message are this writer's. */
static inline bool tn_http_out_name_(const char *s)
{
    size_t n = 0;

    if (!s)
        return false;
    for (; s[n]; n++)
        if (!tn_http_is_token_(s[n]))
            return false;
    return n > 0 && !tn_http_same_(s, n, "connection", 10) &&
           !tn_http_same_(s, n, "content-length", 14) && !tn_http_same_(s, n, "content-type", 12) &&
           !tn_http_same_(s, n, "transfer-encoding", 17);
}

/* The phrase of a status (RFC 9110, 15); none is fine, too. */
static inline const char *tn_http_phrase_(unsigned status)
{
    switch (status) {
    case 200:
        return "OK";
    case 201:
        return "Created";
    case 202:
        return "Accepted";
    case 204:
        return "No Content";
    case 304:
        return "Not Modified";
    case 400:
        return "Bad Request";
    case 401:
        return "Unauthorized";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 406:
        return "Not Acceptable";
    case 408:
        return "Request Timeout";
    case 409:
        return "Conflict";
    case 411:
        return "Length Required";
    case 413:
        return "Content Too Large";
    case 414:
        return "URI Too Long";
    case 415:
        return "Unsupported Media Type";
    case 417:
        return "Expectation Failed";
    case 429:
        return "Too Many Requests";
    case 431:
        return "Request Header Fields Too Large";
    case 500:
        return "Internal Server Error";
    case 501:
        return "Not Implemented";
    case 503:
        return "Service Unavailable";
    case 505:
        return "HTTP Version Not Supported";
    default:
        return "";
    }
}

TN_API void tn_http_out_init(struct tn_http_out *o, void *buf, size_t cap)
{
    o->buf = (uint8_t *)buf;
    o->cap = cap;
    o->len = 0;
    o->err = 0;
    o->whole = 0;
    o->code = 0;
}

TN_API void tn_http_out_continue(struct tn_http_out *o)
{
    if (o->code != 0)
        tn_http_out_fail_(o, TN_ESTATE);
    tn_http_out_text_(o, "HTTP/1.1 100 Continue\r\n\r\n");
    o->whole = o->len;
}

TN_API void tn_http_out_status(struct tn_http_out *o, unsigned status, bool keep)
{
    if (o->code != 0)
        tn_http_out_fail_(o, TN_ESTATE);
    else if (status < 200 || status > 599)
        tn_http_out_fail_(o, TN_EINVAL);
    tn_http_out_text_(o, "HTTP/1.1 ");
    tn_http_out_number_(o, status);
    tn_http_out_text_(o, " ");
    tn_http_out_text_(o, tn_http_phrase_(status));
    tn_http_out_text_(o, "\r\n");
    tn_http_out_line_(o, "Connection", keep ? "keep-alive" : "close");
    if (o->err == 0)
        o->code = status;
}

TN_API void tn_http_out_field(struct tn_http_out *o, const char *name, const char *value)
{
    if (o->code == 0)
        tn_http_out_fail_(o, TN_ESTATE);
    else if (!tn_http_out_name_(name) || !tn_http_out_value_(value))
        tn_http_out_fail_(o, TN_EINVAL);
    else
        tn_http_out_line_(o, name, value);
}

TN_API int tn_http_out_body(struct tn_http_out *o, const char *type, const void *body, size_t len,
                            bool head)
{
    bool none = o->code == 204 || o->code == 304;

    if (o->code == 0)
        tn_http_out_fail_(o, TN_ESTATE);
    else if ((none && (type || len > 0)) || (type && !tn_http_out_value_(type)) ||
             (!body && len > 0 && !head))
        tn_http_out_fail_(o, TN_EINVAL);
    if (o->err != 0)
        return o->err;
    if (type)
        tn_http_out_line_(o, "Content-Type", type);
    if (!none) {
        tn_http_out_text_(o, "Content-Length: ");
        tn_http_out_number_(o, len);
        tn_http_out_text_(o, "\r\n");
    }
    tn_http_out_text_(o, "\r\n");
    if (!head)
        tn_http_out_put_(o, (const uint8_t *)body, len);
    o->whole = o->len; /* after an error they are the same already */
    o->code = 0;
    return o->err;
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif
