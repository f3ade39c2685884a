/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A connection's bytes, after 8 that choose limits and cuts; then a response made of the same
 * bytes. Properties: how the bytes are cut changes nothing; no more is taken than was given; what
 * is handed out keeps the rules of a request, and its body has the length that it says; after a
 * request that keeps the connection a good one parses; after an error nothing is taken; a response
 * has the lines that were asked for, and no other.
 */
#include "tn_http.h"

#include "fuzz.h"

/* What happened, so that two ways to cut the same bytes can be compared. */
struct seen {
    uint64_t hash;
    size_t used;
    unsigned requests;
    bool idle, ended;
    int err;
};

static void mix(struct seen *s, const void *bytes, size_t len)
{
    const uint8_t *p = (const uint8_t *)bytes;

    for (size_t i = 0; i < len; i++)
        s->hash = (s->hash ^ p[i]) * 0x100000001b3ull;
    s->hash = (s->hash ^ len) * 0x100000001b3ull;
}

static bool plain(const char *s, bool space)
{
    for (; *s; s++)
        if (*s < 0x20 || *s == 0x7f || (*s == ' ' && !space))
            return false;
    return true;
}

static void check_request(struct tn_http *h, struct seen *s)
{
    const struct tn_http_cfg *cfg = &h->cfg;
    const char *name, *value;
    size_t at = 0, fields = 0, hosts = 0, length = 0, n;
    bool close = false, keep = false;

    FZ_ASSERT(h->method <= TN_HTTP_OPTIONS && h->minor <= 1);
    FZ_ASSERT(h->path == cfg->head && h->path[0] == '/' && strlen(h->path) <= cfg->max_target);
    for (const char *p = h->path; *p; p++)
        FZ_ASSERT((uint8_t)*p >= 0x20 && *p != 0x7f);
    if (h->query)
        FZ_ASSERT(h->query == h->path + strlen(h->path) + 1 && plain(h->query, false));
    mix(s, &h->method, 1);
    mix(s, &h->minor, 1);
    mix(s, &h->keep, sizeof(h->keep));
    mix(s, h->path, strlen(h->path));
    if (h->query)
        mix(s, h->query, strlen(h->query));
    while (tn_http_each(h, &at, &name, &value)) {
        n = strlen(value);
        FZ_ASSERT(name >= cfg->head && value > name && value + n < cfg->head + cfg->head_cap);
        FZ_ASSERT(*name && plain(name, false) && strlen(name) + 1 + n <= cfg->max_field);
        for (const char *p = name; *p; p++)
            FZ_ASSERT(!strchr("\"(),/:;<=>?@[\\]{}", *p) && !(*p >= 'A' && *p <= 'Z'));
        for (const char *p = value; *p; p++)
            FZ_ASSERT((*p >= 0x20 && *p < 0x7f) || *p == '\t');
        FZ_ASSERT(!n || (value[0] > ' ' && value[n - 1] > ' '));
        FZ_ASSERT(strcmp(name, "transfer-encoding") != 0);
        if (strcmp(name, "host") == 0)
            hosts++;
        if (strcmp(name, "expect") == 0)
            FZ_ASSERT(n == 12);
        if (strcmp(name, "content-length") == 0) {
            FZ_ASSERT(length++ == 0 && n > 0 && strspn(value, "0123456789") == n);
            FZ_ASSERT(strtoull(value, NULL, 10) == h->body_len);
        }
        if (strcmp(name, "connection") == 0) {
            keep = true;
            close = close || strstr(value, "close") != NULL;
        }
        mix(s, name, strlen(name));
        mix(s, value, n);
        fields++;
    }
    FZ_ASSERT(fields <= cfg->max_fields && hosts <= 1 && (hosts == 1 || h->minor == 0));
    FZ_ASSERT(h->body_len <= cfg->body_cap && (length == 1 || h->body_len == 0));
    if (!keep)
        FZ_ASSERT(h->keep == (h->minor == 1));
    if (h->minor == 1 && !close)
        FZ_ASSERT(h->keep);
    mix(s, h->body, h->body_len);
    s->requests++;
}

/* Pushes a piece, from memory of exactly its size. False when the connection ended. */
static bool feed(struct tn_http *h, struct seen *s, const uint8_t *bytes, size_t len)
{
    size_t done = 0, used;
    bool more = true;

    while (more && done < len) {
        uint8_t *piece = (uint8_t *)malloc(len - done);
        int got;

        FZ_ASSERT(piece != NULL);
        memcpy(piece, bytes + done, len - done);
        got = tn_http_push(h, piece, len - done, &used);
        free(piece);
        FZ_ASSERT(used <= len - done);
        done += used;
        s->used += used;
        if (got == TN_HTTP_MORE) {
            FZ_ASSERT(done == len && !h->path && !h->body);
            continue;
        }
        mix(s, &got, sizeof(got));
        if (got == TN_HTTP_CONTINUE)
            continue;
        if (got == TN_HTTP_REQUEST) {
            check_request(h, s);
            more = tn_http_next(h);
            FZ_ASSERT(!more || tn_http_idle(h));
        } else {
            FZ_ASSERT(got == TN_EFORMAT || got == TN_ERANGE || got == TN_EUNSUP);
            FZ_ASSERT(h->status >= 400 && h->why != TN_HTTP_OK && !h->keep && !h->path);
            FZ_ASSERT(tn_http_push(h, bytes, len, &used) == got && used == 0);
            mix(s, &h->status, sizeof(h->status));
            mix(s, &h->why, 1);
            s->err = got;
            more = false;
            if (bytes[0] & 1)
                FZ_ASSERT(!tn_http_next(h));
        }
    }
    if (!more) {
        FZ_ASSERT(tn_http_push(h, bytes, len, &used) < 0 && used == 0);
        s->ended = true;
    }
    return more;
}

static void good_one(struct tn_http *h)
{
    static const char wire[] = "GET /a HTTP/1.0\r\n\r\n";
    size_t used;

    if (h->cfg.head_cap < sizeof(wire) || h->cfg.max_target < 2)
        return;
    FZ_ASSERT(tn_http_push(h, (const uint8_t *)wire, sizeof(wire) - 1, &used) == TN_HTTP_REQUEST);
    FZ_ASSERT(used == sizeof(wire) - 1 && strcmp(h->path, "/a") == 0 && !h->query);
    FZ_ASSERT(h->method == TN_HTTP_GET && h->minor == 0 && !h->keep && h->body_len == 0);
}

static void talk(struct seen *s, const struct tn_http_cfg *with, const uint8_t *bytes, size_t len,
                 uint32_t cuts)
{
    struct tn_http_cfg cfg = *with;
    struct tn_http h;
    size_t at = 0, n;

    memset(s, 0, sizeof(*s));
    cfg.head = (char *)malloc(cfg.head_cap);
    cfg.body = (uint8_t *)malloc(cfg.body_cap + 1);
    FZ_ASSERT(cfg.head && cfg.body && tn_http_init(&h, &cfg) == 0);
    while (at < len && !s->ended) {
        cuts = cuts * 1664525u + 1013904223u;
        n = cuts % 3 == 0 ? 1 : 1 + (cuts >> 8) % 97;
        if (with->head || n > len - at) /* all in one */
            n = len - at;
        feed(&h, s, bytes + at, n);
        at += n;
    }
    s->idle = tn_http_idle(&h);
    if (s->idle && (len == 0 || !s->ended) && h.size == 0)
        good_one(&h);
    free(cfg.head);
    free(cfg.body);
}

/* A response whose fields are the fuzzer's strings. */
static void respond(struct fz *z)
{
    uint8_t buf[512], *exact;
    struct tn_http_out o;
    size_t cap = (size_t)fz_range(z, 0, sizeof(buf)), lines = 0, len;
    unsigned status = fz_u16(z) % 700u, fields = fz_u8(z) % 4u, want = 4;
    char name[24], value[24], *end;
    bool head = fz_u8(z) & 1;
    int err;

    exact = (uint8_t *)malloc(cap + 1);
    FZ_ASSERT(exact != NULL);
    tn_http_out_init(&o, exact, cap);
    tn_http_out_status(&o, status, head);
    for (unsigned i = 0; i < fields; i++) {
        memset(name, 0, sizeof(name));
        memset(value, 0, sizeof(value));
        fz_bytes(z, name, fz_u8(z) % sizeof(name));
        fz_bytes(z, value, fz_u8(z) % sizeof(value));
        tn_http_out_field(&o, name, value);
        want++;
    }
    len = status == 204 || status == 304 ? 0 : fz_u8(z) % 32u;
    err = tn_http_out_body(&o, NULL, "0123456789abcdef0123456789abcdef", len, head);
    FZ_ASSERT(err == o.err && (err == 0) == (o.len > 0) && o.len <= cap);
    FZ_ASSERT(err == 0 || err == TN_EINVAL || err == TN_ENOSPC || err == TN_ESTATE);
    if (err == 0) {
        exact[o.len] = 0;
        FZ_ASSERT(strlen((char *)exact) == o.len && memcmp(exact, "HTTP/1.1 ", 9) == 0);
        for (char *p = (char *)exact; (p = strchr(p, '\n')) != NULL; p++, lines++)
            FZ_ASSERT(p[-1] == '\r');
        if (status == 204 || status == 304)
            want--;
        end = strstr((char *)exact, "\r\n\r\n");
        FZ_ASSERT(lines == want && end);
        FZ_ASSERT((size_t)((char *)exact + o.len - (end + 4)) == (head ? 0 : len));
    }
    len = o.len;
    tn_http_out_field(&o, "a", "b");
    FZ_ASSERT(o.err < 0 && o.len == len);
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char some[1];
    struct tn_http_cfg cfg;
    struct seen whole, cut;
    struct fz z;
    uint16_t seed;
    uint8_t small;

    fz_init(&z, data, size);
    memset(&cfg, 0, sizeof(cfg));
    small = fz_u8(&z);
    cfg.head_cap = small & 1 ? 1 + fz_u8(&z) : 2048 + fz_u8(&z);
    cfg.body_cap = fz_u8(&z);
    cfg.max_target = fz_u8(&z);
    cfg.max_fields = fz_u8(&z) % 16u;
    cfg.max_field = fz_u8(&z);
    seed = fz_u16(&z);
    cfg.head = some; /* all in one piece */
    talk(&whole, &cfg, z.data, z.left, 0);
    cfg.head = NULL;
    talk(&cut, &cfg, z.data, z.left, seed);
    FZ_ASSERT(whole.hash == cut.hash && whole.used == cut.used && whole.err == cut.err);
    FZ_ASSERT(whole.requests == cut.requests && whole.idle == cut.idle);
    FZ_ASSERT(whole.ended == cut.ended && whole.used <= z.left);
    FZ_ASSERT(whole.ended || whole.used == z.left);
    respond(&z);
    return 0;
}
