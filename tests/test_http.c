/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_http.h"

#include "test.h"

#define HOST "Host: x\r\n"

/* What a connection was seen to do, as text: a line for each event. */
struct seen {
    char text[16384];
    size_t len;
    size_t used; /* bytes that were taken */
};

static void say(struct seen *s, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(s->text + s->len, sizeof(s->text) - s->len, format, args);
    va_end(args);
    assert_true(n >= 0 && (size_t)n < sizeof(s->text) - s->len);
    s->len += (size_t)n;
}

static void say_request(struct seen *s, const struct tn_http *h)
{
    static const char *const method[] = {"GET",    "PUT",  "PATCH",  "POST",
                                         "DELETE", "HEAD", "OPTIONS"};
    const char *name, *value;
    size_t at = 0;

    say(s, "%s %s", method[h->method], h->path);
    if (h->query)
        say(s, "?%s", h->query);
    say(s, " 1.%u %s", h->minor, h->keep ? "keep" : "close");
    while (tn_http_each(h, &at, &name, &value))
        say(s, " %s=%s", name, value);
    assert_null(name);
    assert_null(value);
    if (h->body_len > 0)
        say(s, " {%.*s}", (int)h->body_len, (const char *)h->body);
    say(s, "\n");
}

/* Pushes one piece, from memory of exactly that size. False when no more can come. */
static bool feed(struct tn_http *h, struct seen *s, const char *wire, size_t len)
{
    size_t done = 0, used;
    bool more = true;

    while (more && done < len) {
        uint8_t *piece = test_exact(wire + done, len - done);
        int got = tn_http_push(h, piece, len - done, &used), again;

        assert_true(used <= len - done);
        done += used;
        s->used += used;
        switch (got) {
        case TN_HTTP_MORE:
            assert_int_equal(done, len);
            assert_null(h->path);
            break;
        case TN_HTTP_CONTINUE:
            say(s, "continue\n");
            break;
        case TN_HTTP_REQUEST:
            assert_int_equal(tn_http_push(h, piece, len, &used), TN_HTTP_REQUEST);
            assert_int_equal(used, 0);
            say_request(s, h);
            more = tn_http_next(h);
            if (!more) {
                assert_int_equal(tn_http_push(h, piece, len, &used), TN_ESTATE);
                assert_int_equal(used, 0);
                assert_false(tn_http_next(h));
            } else {
                assert_true(tn_http_idle(h));
            }
            break;
        default:
            say(s, "refused %u why %u err %d\n", h->status, h->why, got);
            assert_null(h->path);
            assert_null(h->body);
            assert_false(h->keep);
            again = tn_http_push(h, piece, len, &used);
            assert_int_equal(again, got);
            assert_int_equal(used, 0);
            assert_false(tn_http_idle(h));
            more = false;
            break;
        }
        free(piece);
    }
    return more;
}

static const struct tn_http_cfg limits = {NULL, 512, NULL, 64, 0, 0, 0};

/* A connection of its own, with buffers of exactly the size, that gets len bytes cut in pieces. */
static void talk(struct seen *s, const struct tn_http_cfg *with, const char *wire, size_t len,
                 size_t first, size_t piece)
{
    struct tn_http_cfg cfg = *with;
    struct tn_http h;
    size_t at = 0, n = first;

    memset(s, 0, sizeof(*s));
    cfg.head = malloc(cfg.head_cap);
    cfg.body = malloc(cfg.body_cap ? cfg.body_cap : 1);
    assert_non_null(cfg.head);
    assert_non_null(cfg.body);
    assert_int_equal(tn_http_init(&h, &cfg), 0);
    while (at < len) {
        n = n < len - at ? n : len - at;
        if (!feed(&h, s, wire + at, n))
            break;
        at += n;
        n = piece;
    }
    free(cfg.head);
    free(cfg.body);
}

/* The same bytes whole, one by one, and cut in two anywhere: the same happens. */
static void same_however_cut(struct seen *s, const struct tn_http_cfg *cfg, const char *wire,
                             size_t len)
{
    static struct seen cut;

    talk(s, cfg, wire, len, len, len);
    talk(&cut, cfg, wire, len, 1, 1);
    assert_string_equal(cut.text, s->text);
    assert_int_equal(cut.used, s->used);
    for (size_t i = 1; i < len; i++) {
        talk(&cut, cfg, wire, len, i, len);
        assert_string_equal(cut.text, s->text);
        assert_int_equal(cut.used, s->used);
    }
}

struct refusal {
    const char *wire;
    unsigned status;
    enum tn_http_why why;
};

static void refused(const struct tn_http_cfg *cfg, const struct refusal *row, size_t rows)
{
    static struct seen s;
    char want[64];

    for (size_t i = 0; i < rows; i++) {
        int err = row[i].status == 400 ? TN_EFORMAT : TN_EUNSUP;

        if (row[i].status == 413 || row[i].status == 414 || row[i].status == 431)
            err = TN_ERANGE;
        snprintf(want, sizeof(want), "refused %u why %u err %d\n", row[i].status, row[i].why, err);
        same_however_cut(&s, cfg, row[i].wire, strlen(row[i].wire));
        if (strcmp(s.text, want) != 0)
            print_message("row %zu: %s\n", i, row[i].wire);
        assert_string_equal(s.text, want);
    }
}

struct success {
    const char *wire, *want;
};

static void taken(const struct tn_http_cfg *cfg, const struct success *row, size_t rows)
{
    static struct seen s;

    for (size_t i = 0; i < rows; i++) {
        same_however_cut(&s, cfg, row[i].wire, strlen(row[i].wire));
        if (strcmp(s.text, row[i].want) != 0)
            print_message("row %zu: %s\n", i, row[i].wire);
        assert_string_equal(s.text, row[i].want);
    }
}

static void buffers_are_needed(void **state)
{
    char head[16];
    uint8_t body[16];
    const struct tn_http_cfg bad[] = {
        {NULL, 16, body, 16, 0, 0, 0},
        {head, 0, body, 16, 0, 0, 0},
        {head, 16, NULL, 1, 0, 0, 0},
    };
    const struct tn_http_cfg good = {head, 16, NULL, 0, 0, 0, 0};
    struct tn_http h;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(tn_http_init(&h, &bad[i]), TN_EINVAL);
    assert_int_equal(tn_http_init(&h, &good), 0);
    assert_int_equal(h.cfg.max_target, TN_HTTP_MAX_TARGET);
    assert_int_equal(h.cfg.max_fields, TN_HTTP_MAX_FIELDS);
    assert_int_equal(h.cfg.max_field, TN_HTTP_MAX_FIELD);
}

static void request_lines_that_are_none(void **state)
{
    static const struct refusal row[] = {
        {"\n", 400, TN_HTTP_BAD_LINE_END},
        {"\r\n\r\n", 400, TN_HTTP_BAD_METHOD},
        {"\rG", 400, TN_HTTP_BAD_LINE_END},
        {" GET / HTTP/1.1\r\n", 400, TN_HTTP_BAD_METHOD},
        {"\tGET / HTTP/1.1\r\n", 400, TN_HTTP_BAD_METHOD},
        {"GET\t/ HTTP/1.1\r\n", 400, TN_HTTP_BAD_METHOD},
        {"GET\r\n", 400, TN_HTTP_BAD_METHOD},
        {"GET\n", 400, TN_HTTP_BAD_LINE_END},
        {"G(T / HTTP/1.1\r\n", 400, TN_HTTP_BAD_METHOD},
        {"\x16\x03\x01\x02", 400, TN_HTTP_BAD_METHOD}, /* TLS */
        {"\x80", 400, TN_HTTP_BAD_METHOD},
        {"get / HTTP/1.1\r\n", 501, TN_HTTP_UNKNOWN_METHOD},
        {"GE / HTTP/1.1\r\n", 501, TN_HTTP_UNKNOWN_METHOD},
        {"GETS / HTTP/1.1\r\n", 501, TN_HTTP_UNKNOWN_METHOD},
        {"TRACE / HTTP/1.1\r\n", 501, TN_HTTP_UNKNOWN_METHOD},
        {"CONNECT x:1 HTTP/1.1\r\n", 501, TN_HTTP_UNKNOWN_METHOD},
        {"OPTIONSX", 501, TN_HTTP_UNKNOWN_METHOD},
        {"PROPPATCH / HTTP/1.1\r\n", 501, TN_HTTP_UNKNOWN_METHOD},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 501, TN_HTTP_UNKNOWN_METHOD},
        {"GET  / HTTP/1.1\r\n", 400, TN_HTTP_BAD_TARGET},
        {"GET x HTTP/1.1\r\n", 400, TN_HTTP_BAD_TARGET},
        {"GET ?x HTTP/1.1\r\n", 400, TN_HTTP_BAD_TARGET},
        {"GET http://x/ HTTP/1.1\r\n", 400, TN_HTTP_BAD_TARGET},
        {"OPTIONS * HTTP/1.1\r\n", 400, TN_HTTP_BAD_TARGET},
        {"GET /a#b HTTP/1.1\r\n", 400, TN_HTTP_BAD_TARGET},
        {"GET /a\"b HTTP/1.1\r\n", 400, TN_HTTP_BAD_TARGET},
        {"GET /a\\b HTTP/1.1\r\n", 400, TN_HTTP_BAD_TARGET},
        {"GET /<> HTTP/1.1\r\n", 400, TN_HTTP_BAD_TARGET},
        {"GET /a\tb HTTP/1.1\r\n", 400, TN_HTTP_BAD_TARGET},
        {"GET /\x7f HTTP/1.1\r\n", 400, TN_HTTP_BAD_TARGET},
        {"GET /\xc3\xa4 HTTP/1.1\r\n", 400, TN_HTTP_BAD_TARGET},
        {"GET /?a^b HTTP/1.1\r\n", 400, TN_HTTP_BAD_TARGET},
        {"GET /?a#b HTTP/1.1\r\n", 400, TN_HTTP_BAD_TARGET},
        {"GET /\n", 400, TN_HTTP_BAD_LINE_END},
        {"GET / HTTP/1.1\n", 400, TN_HTTP_BAD_LINE_END},
        {"GET / HTTP/1.1\rX", 400, TN_HTTP_BAD_LINE_END},
        {"GET / HTTP/1.1\r\r\n", 400, TN_HTTP_BAD_LINE_END},
        {"GET /\r\n", 400, TN_HTTP_BAD_VERSION}, /* HTTP/0.9 */
        {"GET / \r\n", 400, TN_HTTP_BAD_VERSION},
        {"GET /  HTTP/1.1\r\n", 400, TN_HTTP_BAD_VERSION},
        {"GET / HTTP/1.1 \r\n", 400, TN_HTTP_BAD_VERSION},
        {"GET / HTTP/1.10\r\n", 400, TN_HTTP_BAD_VERSION},
        {"GET / HTTP/1\r\n", 400, TN_HTTP_BAD_VERSION},
        {"GET / HTTP/11\r\n", 400, TN_HTTP_BAD_VERSION},
        {"GET / http/1.1\r\n", 400, TN_HTTP_BAD_VERSION},
        {"GET / HTTP/x.1\r\n", 400, TN_HTTP_BAD_VERSION},
        {"GET / HTTP/1.x\r\n", 400, TN_HTTP_BAD_VERSION},
        {"GET / HTTP-1.1\r\n", 400, TN_HTTP_BAD_VERSION},
        {"GET / HTTP/1-1\r\n", 400, TN_HTTP_BAD_VERSION},
        {"GET / XTTP/1.1\r\n", 400, TN_HTTP_BAD_VERSION},
        {"GET / HXTP/1.1\r\n", 400, TN_HTTP_BAD_VERSION},
        {"GET / HTXP/1.1\r\n", 400, TN_HTTP_BAD_VERSION},
        {"GET / HTTX/1.1\r\n", 400, TN_HTTP_BAD_VERSION},
        {"GET /a b HTTP/1.1\r\n", 400, TN_HTTP_BAD_VERSION},
        {"GET / HTTP/0.9\r\n", 505, TN_HTTP_UNKNOWN_VERSION},
        {"GET / HTTP/1.2\r\n", 505, TN_HTTP_UNKNOWN_VERSION},
        {"GET / HTTP/2.0\r\n", 505, TN_HTTP_UNKNOWN_VERSION},
    };

    (void)state;
    refused(&limits, row, COUNT(row));
}

static void e14_escapes_are_strict(void **state)
{
    static const struct refusal bad[] = {
        {"GET /%00 HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
        {"GET /a%00b HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
        {"GET /?a=%00 HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
        {"GET /% HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
        {"GET /%4 HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
        {"GET /%4g HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
        {"GET /%g4 HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
        {"GET /%%41 HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
        {"GET /%u0041 HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
        {"GET /%-1 HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
        {"GET /%?x HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
        {"GET /%4?x HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
        {"GET /a%2fb HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
        {"GET /a%2Fb HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
        {"GET /%0d%0aX:y HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
        {"GET /%1f HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
        {"GET /%7f HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
        {"GET /?%0a HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
        {"GET /?% HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
        {"GET /?%4x HTTP/1.1\r\n", 400, TN_HTTP_BAD_ESCAPE},
    };
    static const struct success good[] = {
        {"GET /%41%5a%7A%7e HTTP/1.0\r\n\r\n", "GET /AZz~ 1.0 close\n"},
        {"GET /%20%3f%25%23 HTTP/1.0\r\n\r\n", "GET / ?%# 1.0 close\n"},
        {"GET /%2541 HTTP/1.0\r\n\r\n", "GET /%41 1.0 close\n"}, /* once, not twice */
        {"GET /%c3%A4 HTTP/1.0\r\n\r\n", "GET /\xc3\xa4 1.0 close\n"},
        {"GET /%ff HTTP/1.0\r\n\r\n", "GET /\xff 1.0 close\n"},
        {"GET /?a=%41%2f HTTP/1.0\r\n\r\n", "GET /?a=%41%2f 1.0 close\n"},
        {"GET /? HTTP/1.0\r\n\r\n", "GET /? 1.0 close\n"},
        {"GET /a/b?c?d/e HTTP/1.0\r\n\r\n", "GET /a/b?c?d/e 1.0 close\n"},
        {"GET /-._~!$&'()*+,;=:@?-._~!$&'()*+,;=:@/? HTTP/1.0\r\n\r\n",
         "GET /-._~!$&'()*+,;=:@?-._~!$&'()*+,;=:@/? 1.0 close\n"},
    };

    (void)state;
    refused(&limits, bad, COUNT(bad));
    taken(&limits, good, COUNT(good));
}

static void fields_that_are_none(void **state)
{
#define LINE "GET / HTTP/1.1\r\nHost: x\r\n"
    static const struct refusal row[] = {
        {LINE "\n", 400, TN_HTTP_BAD_LINE_END},
        {LINE "\rX", 400, TN_HTTP_BAD_LINE_END},
        {LINE "\r\r", 400, TN_HTTP_BAD_LINE_END},
        {LINE "a: b\n\r\n", 400, TN_HTTP_BAD_LINE_END},
        {LINE "a: b\rc: d\r\n", 400, TN_HTTP_BAD_LINE_END},
        {LINE "a: b\r\r\n", 400, TN_HTTP_BAD_LINE_END},
        {LINE "a\n", 400, TN_HTTP_BAD_LINE_END},
        {LINE "a: b\r\n c\r\n\r\n", 400, TN_HTTP_FOLDED},
        {LINE "a: b\r\n\tc\r\n\r\n", 400, TN_HTTP_FOLDED},
        {LINE " \r\n\r\n", 400, TN_HTTP_FOLDED},
        {"GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400, TN_HTTP_FOLDED},
        {LINE "a : b\r\n\r\n", 400, TN_HTTP_BAD_NAME},
        {LINE "a\t: b\r\n\r\n", 400, TN_HTTP_BAD_NAME},
        {LINE ": b\r\n\r\n", 400, TN_HTTP_BAD_NAME},
        {LINE "a b: c\r\n\r\n", 400, TN_HTTP_BAD_NAME},
        {LINE "a\r\n\r\n", 400, TN_HTTP_BAD_NAME},
        {LINE "a(b): c\r\n\r\n", 400, TN_HTTP_BAD_NAME},
        {LINE "a\x01: c\r\n\r\n", 400, TN_HTTP_BAD_NAME},
        {LINE "\xc3\xa4: c\r\n\r\n", 400, TN_HTTP_BAD_NAME},
        {LINE "a: \x01\r\n\r\n", 400, TN_HTTP_BAD_VALUE},
        {LINE "a: \x7f\r\n\r\n", 400, TN_HTTP_BAD_VALUE},
        {LINE "a: \xc3\xa4\r\n\r\n", 400, TN_HTTP_BAD_VALUE},
        {LINE "a: b\x1b[2J\r\n\r\n", 400, TN_HTTP_BAD_VALUE},
    };
    static struct seen s;
    static const char nul[] = LINE "a: b\0c\r\n\r\n";
    static const char nul_name[] = LINE "a\0: b\r\n\r\n";

    (void)state;
    refused(&limits, row, COUNT(row));
    same_however_cut(&s, &limits, nul, sizeof(nul) - 1);
    assert_string_equal(s.text, "refused 400 why 7 err -33\n");
    assert_int_equal(TN_HTTP_BAD_VALUE, 7);
    same_however_cut(&s, &limits, nul_name, sizeof(nul_name) - 1);
    assert_string_equal(s.text, "refused 400 why 6 err -33\n");
}

static void e14_lengths_that_smuggle(void **state)
{
#define PUT "PUT / HTTP/1.1\r\nHost: x\r\n"
    static const struct refusal row[] = {
        {PUT "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, TN_HTTP_BAD_ENCODING},
        {PUT "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400, TN_HTTP_BAD_ENCODING},
        {PUT "Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n", 400, TN_HTTP_BAD_ENCODING},
        {"PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, TN_HTTP_BAD_ENCODING},
        {PUT "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501, TN_HTTP_ENCODED},
        {PUT "transfer-encoding:\txchunked\r\n\r\n", 501, TN_HTTP_ENCODED},
        {PUT "TRANSFER-ENCODING: identity\r\n\r\n", 501, TN_HTTP_ENCODED},
        {PUT "Transfer-Encoding:\r\n\r\n", 501, TN_HTTP_ENCODED},
        {PUT "Transfer-Encoding : chunked\r\n\r\n", 400, TN_HTTP_BAD_NAME},
        {PUT "Transfer-Encoding\r\n : chunked\r\n\r\n", 400, TN_HTTP_BAD_NAME},
        {PUT "X: y\r\n Transfer-Encoding: chunked\r\n\r\n", 400, TN_HTTP_FOLDED},
        {PUT "X: y\nTransfer-Encoding: chunked\r\n\r\n", 400, TN_HTTP_BAD_LINE_END},
        {PUT "X: y\rTransfer-Encoding: chunked\r\n\r\n", 400, TN_HTTP_BAD_LINE_END},
        {PUT "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, TN_HTTP_TWO_LENGTHS},
        {PUT "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 400, TN_HTTP_TWO_LENGTHS},
        {PUT "Content-Length: 1\r\ncontent-length: 1\r\n\r\n", 400, TN_HTTP_TWO_LENGTHS},
        {PUT "Content-Length: 0\r\nContent-Length: 0\r\n\r\n", 400, TN_HTTP_TWO_LENGTHS},
        {PUT "Content-Length: 1, 1\r\n\r\n", 400, TN_HTTP_BAD_LENGTH},
        {PUT "Content-Length: 1,\r\n\r\n", 400, TN_HTTP_BAD_LENGTH},
        {PUT "Content-Length:\r\n\r\n", 400, TN_HTTP_BAD_LENGTH},
        {PUT "Content-Length: \t \r\n\r\n", 400, TN_HTTP_BAD_LENGTH},
        {PUT "Content-Length: -1\r\n\r\n", 400, TN_HTTP_BAD_LENGTH},
        {PUT "Content-Length: +1\r\n\r\n", 400, TN_HTTP_BAD_LENGTH},
        {PUT "Content-Length: -0\r\n\r\n", 400, TN_HTTP_BAD_LENGTH},
        {PUT "Content-Length: 1 1\r\n\r\n", 400, TN_HTTP_BAD_LENGTH},
        {PUT "Content-Length: 0x1\r\n\r\n", 400, TN_HTTP_BAD_LENGTH},
        {PUT "Content-Length: 1e1\r\n\r\n", 400, TN_HTTP_BAD_LENGTH},
        {PUT "Content-Length: 1.\r\n\r\n", 400, TN_HTTP_BAD_LENGTH},
        {PUT "Content-Length: \"1\"\r\n\r\n", 400, TN_HTTP_BAD_LENGTH},
        {PUT "Content-Length: one\r\n\r\n", 400, TN_HTTP_BAD_LENGTH},
        {PUT "Content-Length: 1;\r\n\r\n", 400, TN_HTTP_BAD_LENGTH},
        {PUT "Content-Length: 65\r\n\r\n", 413, TN_HTTP_LARGE_BODY},
        {PUT "Content-Length: 4294967296\r\n\r\n", 413, TN_HTTP_LARGE_BODY},
        {PUT "Content-Length: 4294967297\r\n\r\n", 413, TN_HTTP_LARGE_BODY},
        {PUT "Content-Length: 18446744073709551615\r\n\r\n", 413, TN_HTTP_LARGE_BODY},
        {PUT "Content-Length: 18446744073709551616\r\n\r\n", 413, TN_HTTP_LARGE_BODY},
        {PUT "Content-Length: 18446744073709551617\r\n\r\n", 413, TN_HTTP_LARGE_BODY},
        {PUT "Content-Length: 184467440737095516160\r\n\r\n", 413, TN_HTTP_LARGE_BODY},
        {PUT "Content-Length: 99999999999999999999999999999999999999\r\n\r\n", 413,
         TN_HTTP_LARGE_BODY},
        {PUT "Content-Length: 65\r\nExpect: 100-continue\r\n\r\n", 413, TN_HTTP_LARGE_BODY},
    };
    static const struct success good[] = {
        {PUT "Content-Length: \t 2 \t\r\n\r\nab", "PUT / 1.1 keep host=x content-length=2 {ab}\n"},
        {PUT "Content-Length:0002\r\n\r\nab", "PUT / 1.1 keep host=x content-length=0002 {ab}\n"},
        {PUT "Content-Length:00000000000000000000002\r\n\r\nab",
         "PUT / 1.1 keep host=x content-length=00000000000000000000002 {ab}\n"},
        {PUT "Content-Length:0\r\n\r\n", "PUT / 1.1 keep host=x content-length=0\n"},
        {PUT "X-Content-Length: 7\r\nContent-Lengt: 8\r\nContent-Lengths: 9\r\n\r\n",
         "PUT / 1.1 keep host=x x-content-length=7 content-lengt=8 content-lengths=9\n"},
    };

    (void)state;
    refused(&limits, row, COUNT(row));
    taken(&limits, good, COUNT(good));
}

static void host_connection_and_expect_are_checked(void **state)
{
#define GET "GET / HTTP/1.1\r\n"
    static const struct refusal row[] = {
        {GET "\r\n", 400, TN_HTTP_NO_HOST},
        {GET "Hosts: x\r\n\r\n", 400, TN_HTTP_NO_HOST},
        {GET HOST HOST "\r\n", 400, TN_HTTP_TWO_HOSTS},
        {GET "Host:\r\nHOST:\r\n\r\n", 400, TN_HTTP_TWO_HOSTS},
        {"GET / HTTP/1.0\r\n" HOST HOST "\r\n", 400, TN_HTTP_TWO_HOSTS},
        {GET "Host: a b\r\n\r\n", 400, TN_HTTP_BAD_HOST},
        {GET "Host: a/b\r\n\r\n", 400, TN_HTTP_BAD_HOST},
        {GET "Host: u@b\r\n\r\n", 400, TN_HTTP_BAD_HOST},
        {GET "Host: b?\r\n\r\n", 400, TN_HTTP_BAD_HOST},
        {GET "Host: b#\r\n\r\n", 400, TN_HTTP_BAD_HOST},
        {GET HOST "Connection: a b\r\n\r\n", 400, TN_HTTP_BAD_CONNECTION},
        {GET HOST "Connection: close keep-alive\r\n\r\n", 400, TN_HTTP_BAD_CONNECTION},
        {GET HOST "Connection: a;b\r\n\r\n", 400, TN_HTTP_BAD_CONNECTION},
        {GET HOST "Connection: \"close\"\r\n\r\n", 400, TN_HTTP_BAD_CONNECTION},
        {GET HOST "Expect: 100\r\n\r\n", 417, TN_HTTP_UNMET},
        {GET HOST "Expect:\r\n\r\n", 417, TN_HTTP_UNMET},
        {GET HOST "Expect: 100-continue, x\r\n\r\n", 417, TN_HTTP_UNMET},
        {GET HOST "Expect: 100-continued\r\n\r\n", 417, TN_HTTP_UNMET},
        {GET HOST "Expect: 100-continue\r\nExpect: x\r\n\r\n", 417, TN_HTTP_UNMET},
    };
    static const struct success good[] = {
        {GET "Host:\r\n\r\n", "GET / 1.1 keep host=\n"},
        {GET "Host: [::1]:8080\r\n\r\n", "GET / 1.1 keep host=[::1]:8080\n"},
        {GET "hOST: a-b.c%41_~\r\n\r\n", "GET / 1.1 keep host=a-b.c%41_~\n"},
        {GET HOST "Connection: close\r\n\r\n", "GET / 1.1 close host=x connection=close\n"},
        {GET HOST "Connection: CLOSE\r\n\r\n", "GET / 1.1 close host=x connection=CLOSE\n"},
        {GET HOST "Connection: keep-alive\r\n\r\n",
         "GET / 1.1 keep host=x connection=keep-alive\n"},
        {GET HOST "Connection: ,, a ,\tclose,\r\n\r\n",
         "GET / 1.1 close host=x connection=,, a ,\tclose,\n"},
        {GET HOST "Connection:\r\n\r\n", "GET / 1.1 keep host=x connection=\n"},
        {GET HOST "Connection: closed\r\n\r\n", "GET / 1.1 keep host=x connection=closed\n"},
        {GET HOST "Connection: clos\r\n\r\n", "GET / 1.1 keep host=x connection=clos\n"},
        {GET HOST "Connection: keep-alive\r\nConnection: close\r\n\r\n",
         "GET / 1.1 close host=x connection=keep-alive connection=close\n"},
        {"GET / HTTP/1.0\r\n\r\n", "GET / 1.0 close\n"},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
         "GET / 1.0 keep connection=Keep-Alive\n"},
        {"GET / HTTP/1.0\r\nConnection: close, keep-alive\r\n\r\n",
         "GET / 1.0 close connection=close, keep-alive\n"},
        {PUT "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
         "continue\nPUT / 1.1 keep host=x expect=100-continue content-length=2 {ab}\n"},
        {PUT "Content-Length: 2\r\nEXPECT: 100-Continue\r\n\r\nab",
         "continue\nPUT / 1.1 keep host=x content-length=2 expect=100-Continue {ab}\n"},
        /* nothing to wait for, or nobody who does */
        {PUT "Expect: 100-continue\r\n\r\n", "PUT / 1.1 keep host=x expect=100-continue\n"},
        {"PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na",
         "PUT / 1.0 close expect=100-continue content-length=1 {a}\n"},
    };

    (void)state;
    refused(&limits, row, COUNT(row));
    taken(&limits, good, COUNT(good));
}

static void good_requests(void **state)
{
    static const struct success row[] = {
        {"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n",
         "GET / 1.1 keep host=localhost user-agent=curl/8.5.0 accept=*/*\n"},
        {"PUT /boot-source HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{\"a\"}",
         "PUT /boot-source 1.1 keep host=x content-length=5 {{\"a\"}}\n"},
        {"PATCH /vm HTTP/1.0\r\n\r\n", "PATCH /vm 1.0 close\n"},
        {"POST /forks HTTP/1.0\r\n\r\n", "POST /forks 1.0 close\n"},
        {"DELETE /forks/7 HTTP/1.0\r\n\r\n", "DELETE /forks/7 1.0 close\n"},
        {"HEAD / HTTP/1.0\r\n\r\n", "HEAD / 1.0 close\n"},
        {"OPTIONS / HTTP/1.0\r\n\r\n", "OPTIONS / 1.0 close\n"},
        {"\r\nGET / HTTP/1.0\r\n\r\n", "GET / 1.0 close\n"},
        {"GET / HTTP/1.0\r\nA:\r\nB: \t \r\nC:  d \t e  \r\n\r\n",
         "GET / 1.0 close a= b= c=d \t e\n"},
        {"GET / HTTP/1.0\r\n!#$%&'*+-.^_`|~09aZ: \x21~\r\n\r\n",
         "GET / 1.0 close !#$%&'*+-.^_`|~09az=!~\n"},
        {"GET / HTTP/1.0\r\na:::b\r\n\r\n", "GET / 1.0 close a=::b\n"},
        {"GET /.././/a HTTP/1.0\r\n\r\n", "GET /.././/a 1.0 close\n"},
    };

    (void)state;
    taken(&limits, row, COUNT(row));
}

static void e14_pipelines(void **state)
{
    static const struct success row[] = {
        {LINE "\r\n" PUT "Content-Length: 3\r\n\r\nabc" LINE "\r\n",
         "GET / 1.1 keep host=x\nPUT / 1.1 keep host=x content-length=3 {abc}\n"
         "GET / 1.1 keep host=x\n"},
        {PUT "Content-Length: 3\r\n\r\nabc\r\n" LINE "\r\n", /* a CRLF too many after a body */
         "PUT / 1.1 keep host=x content-length=3 {abc}\nGET / 1.1 keep host=x\n"},
        {LINE "\r\nX", "GET / 1.1 keep host=x\n"},
        {LINE "\r\n\n", "GET / 1.1 keep host=x\nrefused 400 why 1 err -33\n"},
        {LINE "Connection: close\r\n\r\n" LINE "\r\n", "GET / 1.1 close host=x connection=close\n"},
        {"GET / HTTP/1.0\r\n\r\n" LINE "\r\n", "GET / 1.0 close\n"},
        {PUT "Expect: 100-continue\r\nContent-Length: 1\r\n\r\na" PUT
             "Expect: 100-continue\r\nContent-Length: 1\r\n\r\nb",
         "continue\nPUT / 1.1 keep host=x expect=100-continue content-length=1 {a}\n"
         "continue\nPUT / 1.1 keep host=x expect=100-continue content-length=1 {b}\n"},
        /* what stays of one request must not be seen in the next */
        {"PUT /a?b HTTP/1.1\r\n" HOST "Content-Length: 1\r\nConnection: keep-alive\r\n\r\na"
         "GET / HTTP/1.0\r\n\r\n",
         "PUT /a?b 1.1 keep host=x content-length=1 connection=keep-alive {a}\n"
         "GET / 1.0 close\n"},
        /* a body is bytes, whatever they look like */
        {PUT "Content-Length: 18\r\n\r\nGET / HTTP/1.0\r\n\r\n" LINE "\r\n",
         "PUT / 1.1 keep host=x content-length=18 {GET / HTTP/1.0\r\n\r\n}\n"
         "GET / 1.1 keep host=x\n"},
        {PUT "Content-Length: 1\r\n\r\nab", "PUT / 1.1 keep host=x content-length=1 {a}\n"},
        {"GET / HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\nab" LINE "\r\n",
         "GET / 1.1 keep host=x content-length=2 {ab}\nGET / 1.1 keep host=x\n"},
    };
    static char many[64 * 32];
    static struct seen s;
    size_t len = 0, lines = 0;

    (void)state;
    taken(&limits, row, COUNT(row));
    for (unsigned i = 0; i < 64; i++) {
        int n = snprintf(many + len, sizeof(many) - len, "GET /%u HTTP/1.1\r\nHost:\r\n\r\n", i);

        assert_true(n > 0);
        len += (size_t)n;
    }
    for (size_t piece = 1; piece < 40; piece++) {
        talk(&s, &limits, many, len, piece, piece);
        assert_int_equal(s.used, len);
        for (lines = 0, len = 0; len < s.len; len++)
            lines += s.text[len] == '\n';
        assert_int_equal(lines, 64);
        len = s.used;
    }
}

/* A request that ends anywhere is no request, and tells that it was begun. */
static void e14_truncated_at_each_byte(void **state)
{
    static const char wire[] = "\r\nPUT /a%41?b=%42 HTTP/1.1\r\nHost: x\r\nA: \r\n"
                               "Expect: 100-continue\r\nContent-Length: 4\r\n\r\nabcd";
    char head[256];
    uint8_t body[8];
    struct tn_http_cfg cfg = {head, sizeof(head), body, sizeof(body), 0, 0, 0};
    struct tn_http h;
    size_t used, at, end = sizeof(wire) - 1;
    int got;

    (void)state;
    for (size_t len = 0; len <= end; len++) {
        assert_int_equal(tn_http_init(&h, &cfg), 0);
        assert_true(tn_http_idle(&h));
        at = 0;
        do {
            got = tn_http_push(&h, (const uint8_t *)wire + at, len - at, &used);
            at += used;
        } while (got == TN_HTTP_CONTINUE);
        assert_int_equal(at, len);
        assert_int_equal(got, len == end ? TN_HTTP_REQUEST : TN_HTTP_MORE);
        assert_int_equal(tn_http_idle(&h), len == 0 || len == 2);
        if (len < end) {
            const char *name, *value;

            at = 0;
            assert_null(h.path);
            assert_null(h.query);
            assert_null(h.body);
            assert_null(tn_http_field(&h, "host"));
            assert_false(tn_http_each(&h, &at, &name, &value));
            assert_false(tn_http_next(&h));
            assert_int_equal(tn_http_push(&h, (const uint8_t *)wire, 5, &used), TN_ESTATE);
            assert_int_equal(used, 0);
        }
    }
}

/* One request whose parts have the lengths that are asked for. */
static size_t build(char *wire, size_t cap, size_t target, size_t fields, size_t field, size_t body)
{
    size_t len = 0;

    memcpy(wire, "PUT /", 5);
    len = 5;
    for (size_t i = 1; i < target; i++)
        wire[len++] = 'a';
    len += (size_t)snprintf(wire + len, cap - len, " HTTP/1.1\r\nHost:\r\nContent-Length:%zu\r\n",
                            body);
    for (size_t i = 2; i < fields; i++) {
        memcpy(wire + len, "a:", 2);
        len += 2;
        for (size_t k = 2; k < field; k++)
            wire[len++] = 'b';
        wire[len++] = '\r';
        wire[len++] = '\n';
    }
    wire[len++] = '\r';
    wire[len++] = '\n';
    for (size_t i = 0; i < body; i++)
        wire[len++] = 'c';
    assert_true(len < cap);
    return len;
}

static void e14_limits_below_at_and_above(void **state)
{
    static char wire[8192];
    static struct seen s;
    static const struct {
        size_t target, fields, field, body;
        const char *want; /* NULL: it is taken */
    } row[] = {
        {29, 5, 39, 9, NULL},
        {30, 5, 39, 9, NULL},
        {31, 5, 39, 9, "refused 414 why 17 err -35\n"},
        {29, 6, 39, 9, NULL},
        {29, 7, 39, 9, "refused 431 why 19 err -35\n"},
        {29, 5, 40, 9, NULL},
        {29, 5, 41, 9, "refused 431 why 20 err -35\n"},
        {29, 5, 39, 10, NULL},
        {29, 5, 39, 11, "refused 413 why 16 err -35\n"},
        {29, 5, 39, 0, NULL},
    };
    struct tn_http_cfg cfg = {NULL, 512, NULL, 10, 30, 6, 40};
    size_t len, head;

    (void)state;
    assert_int_equal(TN_HTTP_LARGE_BODY, 16);
    for (size_t i = 0; i < COUNT(row); i++) {
        len = build(wire, sizeof(wire), row[i].target, row[i].fields, row[i].field, row[i].body);
        same_however_cut(&s, &cfg, wire, len);
        if (row[i].want) {
            assert_string_equal(s.text, row[i].want);
        } else {
            assert_memory_equal(s.text, "PUT /aaa", 8);
            assert_int_equal(s.used, len);
        }
    }
    /* The head as a whole: each cap up to what it takes, and one more. */
    len = build(wire, sizeof(wire), 20, 5, 20, 3);
    head = len - 3;
    for (cfg.head_cap = 1; cfg.head_cap <= head + 1; cfg.head_cap++) {
        const char *want = cfg.head_cap >= 4 && cfg.head_cap < 25 ? "refused 414 why 17 err -35\n"
                                                                  : "refused 431 why 21 err -35\n";
        talk(&s, &cfg, wire, len, len, len);
        if (cfg.head_cap >= head)
            assert_int_equal(s.used, len);
        else
            assert_string_equal(s.text, want);
        if (cfg.head_cap < head)
            assert_int_equal(s.used, cfg.head_cap + 1);
    }
    /* The same head, byte for byte in a buffer that it fills. */
    cfg.head_cap = head;
    same_however_cut(&s, &cfg, wire, len);
    assert_int_equal(s.used, len);
    /* A body buffer of none at all. */
    cfg.body_cap = 0;
    len = build(wire, sizeof(wire), 20, 5, 20, 1);
    talk(&s, &cfg, wire, len, len, len);
    assert_string_equal(s.text, "refused 413 why 16 err -35\n");
    len = build(wire, sizeof(wire), 20, 5, 20, 0);
    talk(&s, &cfg, wire, len, len, len);
    assert_memory_equal(s.text, "PUT /aaa", 8);
}

/* A method, a target and a field that never end cost no more than their limits. */
static void e14_a_megabyte_of_anything(void **state)
{
    static const struct {
        const char *start;
        char fill;
        unsigned status;
        size_t used;
    } row[] = {
        {"", 'A', 501, 8},
        {"", '\r', 400, 2},
        {"GET /", 'a', 414, 5 + 2048},
        {"GET /?", 'a', 414, 5 + 2048},
        {"GET /%", '4', 414, 5 + 2048},
        {"GET / ", 'H', 400, 6 + 9},
        {LINE, 'a', 431, sizeof(LINE) + 4096},
        {LINE "a:", 'b', 431, sizeof(LINE) + 4096},
        {LINE "a:", ' ', 431, sizeof(LINE) + 4096},
        {LINE "Content-Length:", '9', 431, sizeof(LINE) + 4096},
        {LINE "Connection:", ',', 431, sizeof(LINE) + 4096},
    };
    enum { LEN = 1 << 20 };
    struct tn_http_cfg cfg = {NULL, 16384, NULL, 64, 0, 0, 0};
    static struct seen s;
    char *wire = malloc(LEN), want[32];

    (void)state;
    assert_non_null(wire);
    for (size_t i = 0; i < COUNT(row); i++) {
        memset(wire, row[i].fill, LEN);
        memcpy(wire, row[i].start, strlen(row[i].start));
        talk(&s, &cfg, wire, LEN, LEN, LEN);
        snprintf(want, sizeof(want), "refused %u", row[i].status);
        assert_memory_equal(s.text, want, strlen(want));
        assert_int_equal(s.used, row[i].used);
        talk(&s, &cfg, wire, LEN, 1000, 7);
        assert_int_equal(s.used, row[i].used);
    }
    /* Fields that are short, without end. */
    memcpy(wire, LINE, sizeof(LINE) - 1);
    for (size_t at = sizeof(LINE) - 1; at + 4 <= LEN; at += 4)
        memcpy(wire + at, "a:\r\n", 4);
    talk(&s, &cfg, wire, LEN - 4, LEN - 4, 1);
    assert_string_equal(s.text, "refused 431 why 19 err -35\n");
    cfg.max_fields = SIZE_MAX;
    talk(&s, &cfg, wire, LEN - 4, LEN - 4, 1);
    assert_string_equal(s.text, "refused 431 why 21 err -35\n");
    free(wire);
}

static void fields_are_found_by_name(void **state)
{
    static const char wire[] = "GET /x HTTP/1.1\r\nHost: h\r\nX-Metadata-Token:  t \r\n"
                               "Accept: a\r\nAccept: b\r\nEmpty:\r\n\r\n";
    char head[256];
    struct tn_http_cfg cfg = {head, sizeof(head), NULL, 0, 0, 0, 0};
    struct tn_http h;
    size_t used;

    (void)state;
    assert_int_equal(tn_http_init(&h, &cfg), 0);
    assert_int_equal(tn_http_push(&h, (const uint8_t *)wire, sizeof(wire) - 1, &used),
                     TN_HTTP_REQUEST);
    assert_string_equal(tn_http_field(&h, "x-metadata-token"), "t");
    assert_string_equal(tn_http_field(&h, "accept"), "a");
    assert_string_equal(tn_http_field(&h, "empty"), "");
    assert_null(tn_http_field(&h, "emp"));
    assert_null(tn_http_field(&h, "t"));
    assert_null(tn_http_field(&h, "/x"));
    assert_null(tn_http_field(&h, ""));
    assert_int_equal(h.body_len, 0);
    assert_true(tn_http_next(&h));
    assert_null(tn_http_field(&h, "host"));
}

/* Every byte in every place: split or not, the same, and never out of bounds. */
static void e14_every_byte_replaced(void **state)
{
    static const char wire[] = "PUT /a%41?b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                               "Content-Length: 3\r\n\r\nabc";
    enum { LEN = sizeof(wire) - 1 };
    static struct seen whole, cut;
    char bad[LEN];

    (void)state;
    for (size_t at = 0; at < LEN; at++) {
        for (unsigned byte = 0; byte < 256; byte++) {
            memcpy(bad, wire, LEN);
            bad[at] = (char)byte;
            talk(&whole, &limits, bad, LEN, LEN, LEN);
            talk(&cut, &limits, bad, LEN, 1, 1);
            assert_string_equal(cut.text, whole.text);
            assert_int_equal(cut.used, whole.used);
            if (bad[at] == '\n' && wire[at] != '\n' && at < LEN - 3)
                assert_memory_equal(whole.text, "refused 400", 11);
        }
    }
}

static void responses(void **state)
{
    static const char *const each[] = {
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nServer: tenon\r\n"
        "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 12345\r\n\r\n",
        "HTTP/1.1 405 Method Not Allowed\r\nConnection: close\r\nAllow: GET, PUT\r\n"
        "Content-Length: 0\r\n\r\n",
    };
    size_t ends[COUNT(each)], total = 0;
    char want[512];

    (void)state;
    for (size_t i = 0; i < COUNT(each); i++) {
        memcpy(want + total, each[i], strlen(each[i]));
        total += strlen(each[i]);
        ends[i] = total;
    }
    for (size_t cap = 0; cap <= total; cap++) {
        uint8_t *buf = test_exact(want, cap);
        struct tn_http_out o;
        size_t whole = 0;
        int last = 0;

        memset(buf, 0xee, cap);
        tn_http_out_init(&o, buf, cap);
        tn_http_out_continue(&o);
        tn_http_out_status(&o, 200, true);
        tn_http_out_field(&o, "Server", "tenon");
        tn_http_out_body(&o, "application/json", "{}", 2, false);
        tn_http_out_status(&o, 204, true);
        tn_http_out_body(&o, NULL, NULL, 0, false);
        tn_http_out_status(&o, 200, true);
        tn_http_out_body(&o, NULL, NULL, 12345, true);
        tn_http_out_status(&o, 405, false);
        tn_http_out_field(&o, "Allow", "GET, PUT");
        last = tn_http_out_body(&o, NULL, NULL, 0, false);
        assert_int_equal(last, cap < total ? TN_ENOSPC : 0);
        assert_int_equal(o.err, last);
        for (size_t i = 0; i < COUNT(ends); i++)
            if (ends[i] <= cap)
                whole = ends[i];
        assert_int_equal(o.len, whole); /* never part of a response */
        assert_memory_equal(buf, want, whole);
        free(buf);
    }
}

static void e14_no_response_can_be_split(void **state)
{
    static const struct {
        const char *name, *value;
        int err;
    } row[] = {
        {"A", "b", 0},
        {"A", "", 0},
        {"A", "b c", 0},
        {"", "b", TN_EINVAL},
        {NULL, "b", TN_EINVAL},
        {"A", NULL, TN_EINVAL},
        {"A", "b\r\nC: d", TN_EINVAL},
        {"A", "b\r", TN_EINVAL},
        {"A", "b\n", TN_EINVAL},
        {"A", "\tb", TN_EINVAL},
        {"A", "\x7f", TN_EINVAL},
        {"A", "\xc3\xa4", TN_EINVAL},
        {"A:", "b", TN_EINVAL},
        {"A ", "b", TN_EINVAL},
        {"A\r\nB", "c", TN_EINVAL},
        {"Content-Length", "1", TN_EINVAL},
        {"content-length", "1", TN_EINVAL},
        {"Content-Type", "a/b", TN_EINVAL},
        {"Connection", "close", TN_EINVAL},
        {"Transfer-Encoding", "chunked", TN_EINVAL},
    };
    uint8_t buf[256], before[256];
    struct tn_http_out o;
    size_t len;

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        tn_http_out_init(&o, buf, sizeof(buf));
        tn_http_out_status(&o, 200, true);
        tn_http_out_body(&o, NULL, "x", 1, false);
        len = o.len;
        tn_http_out_status(&o, 200, true);
        tn_http_out_field(&o, row[i].name, row[i].value);
        assert_int_equal(tn_http_out_body(&o, NULL, NULL, 0, false), row[i].err);
        assert_true(row[i].err ? o.len == len : o.len > len);
        /* an error stays */
        len = o.len;
        memcpy(before, buf, sizeof(buf));
        if (row[i].err) {
            tn_http_out_continue(&o);
            tn_http_out_status(&o, 200, true);
            tn_http_out_field(&o, "A", "b");
            assert_int_equal(tn_http_out_body(&o, NULL, "y", 1, false), row[i].err);
            assert_int_equal(o.len, len);
            assert_memory_equal(before, buf, sizeof(buf));
        }
    }
    tn_http_out_init(&o, buf, sizeof(buf));
    tn_http_out_status(&o, 200, true);
    assert_int_equal(tn_http_out_body(&o, "a/b\r\nX: y", NULL, 0, false), TN_EINVAL);
}

static void responses_have_an_order(void **state)
{
    static const unsigned bad[] = {0, 1, 99, 100, 101, 199, 600, 1000, UINT32_MAX};
    uint8_t buf[512];
    struct tn_http_out o;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        tn_http_out_init(&o, buf, sizeof(buf));
        tn_http_out_status(&o, bad[i], true);
        assert_int_equal(o.err, TN_EINVAL);
        assert_int_equal(o.len, 0);
    }
    tn_http_out_init(&o, buf, sizeof(buf));
    tn_http_out_field(&o, "A", "b"); /* before a status */
    assert_int_equal(o.err, TN_ESTATE);
    tn_http_out_init(&o, buf, sizeof(buf));
    assert_int_equal(tn_http_out_body(&o, NULL, NULL, 0, false), TN_ESTATE);
    tn_http_out_init(&o, buf, sizeof(buf));
    tn_http_out_status(&o, 200, true);
    tn_http_out_status(&o, 200, true); /* two */
    assert_int_equal(o.err, TN_ESTATE);
    tn_http_out_init(&o, buf, sizeof(buf));
    tn_http_out_status(&o, 200, true);
    tn_http_out_continue(&o); /* amid one */
    assert_int_equal(o.err, TN_ESTATE);
    assert_int_equal(o.len, 0);
    /* 204 and 304 have neither body nor type nor length */
    for (unsigned i = 0; i < 2; i++) {
        tn_http_out_init(&o, buf, sizeof(buf));
        tn_http_out_status(&o, i ? 204 : 304, true);
        assert_int_equal(tn_http_out_body(&o, NULL, "x", 1, false), TN_EINVAL);
        tn_http_out_init(&o, buf, sizeof(buf));
        tn_http_out_status(&o, i ? 204 : 304, true);
        assert_int_equal(tn_http_out_body(&o, "a/b", NULL, 0, false), TN_EINVAL);
        assert_int_equal(o.len, 0);
    }
    tn_http_out_init(&o, buf, sizeof(buf));
    tn_http_out_status(&o, 200, true);
    assert_int_equal(tn_http_out_body(&o, NULL, NULL, 1, false), TN_EINVAL); /* a body of nothing */
}

/* What is refused is answered with a phrase, and any status without one can be written. */
static void every_status_can_be_written(void **state)
{
    static const unsigned refusals[] = {400, 408, 413, 414, 417, 431, 501, 505};
    uint8_t buf[256];
    struct tn_http_out o;
    char want[128];
    int n;

    (void)state;
    for (unsigned status = 200; status < 600; status++) {
        tn_http_out_init(&o, buf, sizeof(buf));
        tn_http_out_status(&o, status, false);
        n = snprintf(want, sizeof(want), "HTTP/1.1 %u %s\r\nConnection: close\r\n", status,
                     tn_http_phrase_(status));
        assert_int_equal(o.len, n);
        assert_memory_equal(buf, want, (size_t)n);
        assert_int_equal(o.err, 0);
    }
    for (size_t i = 0; i < COUNT(refusals); i++)
        assert_true(tn_http_phrase_(refusals[i])[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffers_are_needed),
        cmocka_unit_test(request_lines_that_are_none),
        cmocka_unit_test(e14_escapes_are_strict),
        cmocka_unit_test(fields_that_are_none),
        cmocka_unit_test(e14_lengths_that_smuggle),
        cmocka_unit_test(host_connection_and_expect_are_checked),
        cmocka_unit_test(good_requests),
        cmocka_unit_test(e14_pipelines),
        cmocka_unit_test(e14_truncated_at_each_byte),
        cmocka_unit_test(e14_limits_below_at_and_above),
        cmocka_unit_test(e14_a_megabyte_of_anything),
        cmocka_unit_test(fields_are_found_by_name),
        cmocka_unit_test(e14_every_byte_replaced),
        cmocka_unit_test(responses),
        cmocka_unit_test(e14_no_response_can_be_split),
        cmocka_unit_test(responses_have_an_order),
        cmocka_unit_test(every_status_can_be_written),
    };

    return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}
