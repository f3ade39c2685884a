/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The first byte tells what the others are: a document, or calls of the writer. Properties of a
 * document: it is taken if and only if a recursive checker, written apart from the header, takes
 * it, but for the limits and for keys that are there twice; no prefix of it is anything but taken
 * or truncated; tokens nest, and lie inside it; what the writer makes of them parses to the same
 * tokens, and is the same bytes when that is done again; no two keys of an object are equal. Of
 * calls: what is finished is a document, and fits into exactly its room and into no less.
 */
#include "tn_json.h"

#include "fuzz.h"

#define TOKENS 2048u
#define ROOM   (1u << 16)

/* -- the checker: what it returns is behind what it was to find; NULL: that isn't there -- */

struct doc {
    const uint8_t *end;
    unsigned deepest;
};

static const uint8_t *skip(const struct doc *d, const uint8_t *p)
{
    while (p < d->end && (*p == 0x20 || *p == 0x09 || *p == 0x0a || *p == 0x0d))
        p++;
    return p;
}

static int hex4(const struct doc *d, const uint8_t *p)
{
    char text[5] = {0};

    if (d->end - p < 4)
        return -1;
    memcpy(text, p, 4);
    if (strspn(text, "0123456789abcdefABCDEF") != 4)
        return -1;
    return (int)strtol(text, NULL, 16);
}

/* A row of the table in RFC 3629 section 4: the bounds of each byte. */
static const uint8_t utf8[][9] = {
    {1, 0x20, 0x7f},
    {2, 0xc2, 0xdf, 0x80, 0xbf},
    {3, 0xe0, 0xe0, 0xa0, 0xbf, 0x80, 0xbf},
    {3, 0xe1, 0xec, 0x80, 0xbf, 0x80, 0xbf},
    {3, 0xed, 0xed, 0x80, 0x9f, 0x80, 0xbf},
    {3, 0xee, 0xef, 0x80, 0xbf, 0x80, 0xbf},
    {4, 0xf0, 0xf0, 0x90, 0xbf, 0x80, 0xbf, 0x80, 0xbf},
    {4, 0xf1, 0xf3, 0x80, 0xbf, 0x80, 0xbf, 0x80, 0xbf},
    {4, 0xf4, 0xf4, 0x80, 0x8f, 0x80, 0xbf, 0x80, 0xbf},
};

static const uint8_t *string(const struct doc *d, const uint8_t *p)
{
    if (p == d->end || *p++ != '"')
        return NULL;
    while (p < d->end && *p != '"') {
        unsigned row, i;

        if (*p == '\\') {
            int unit;

            if (d->end - p < 2)
                return NULL;
            if (p[1] != 'u') {
                if (!p[1] || !strchr("\"\\/bfnrt", p[1]))
                    return NULL;
                p += 2;
                continue;
            }
            unit = hex4(d, p + 2);
            if (unit < 0 || (unit >= 0xdc00 && unit <= 0xdfff))
                return NULL;
            p += 6;
            if (unit >= 0xd800 && unit <= 0xdbff) {
                if (d->end - p < 2 || p[0] != '\\' || p[1] != 'u')
                    return NULL;
                unit = hex4(d, p + 2);
                if (unit < 0xdc00 || unit > 0xdfff)
                    return NULL;
                p += 6;
            }
            continue;
        }
        for (row = 0; row < sizeof(utf8) / sizeof(utf8[0]); row++) {
            const uint8_t *u = utf8[row];

            if (d->end - p < u[0])
                continue;
            for (i = 0; i < u[0] && p[i] >= u[1 + 2 * i] && p[i] <= u[2 + 2 * i]; i++)
                ;
            if (i == u[0])
                break;
        }
        if (row == sizeof(utf8) / sizeof(utf8[0]))
            return NULL;
        p += utf8[row][0];
    }
    return p < d->end ? p + 1 : NULL;
}

static const uint8_t *digits(const struct doc *d, const uint8_t *p)
{
    const uint8_t *from = p;

    while (p < d->end && *p >= '0' && *p <= '9')
        p++;
    return p > from ? p : NULL;
}

static const uint8_t *number(const struct doc *d, const uint8_t *p)
{
    if (p < d->end && *p == '-')
        p++;
    if (p < d->end && *p == '0')
        p++;
    else
        p = digits(d, p);
    if (p && p < d->end && *p == '.')
        p = digits(d, p + 1);
    if (p && p < d->end && (*p | 0x20) == 'e') {
        p++;
        if (p < d->end && (*p == '+' || *p == '-'))
            p++;
        p = digits(d, p);
    }
    return p;
}

static const uint8_t *value(struct doc *d, const uint8_t *p, unsigned depth)
{
    static const char *const word[] = {"null", "true", "false"};
    bool object;

    for (unsigned i = 0; i < 3; i++)
        if ((size_t)(d->end - p) >= strlen(word[i]) && !memcmp(p, word[i], strlen(word[i])))
            return p + strlen(word[i]);
    if (p == d->end)
        return NULL;
    if (*p == '"')
        return string(d, p);
    if (*p != '[' && *p != '{')
        return number(d, p);
    object = *p == '{';
    if (++depth > d->deepest)
        d->deepest = depth;
    if (depth > 1000)
        return NULL;
    p = skip(d, p + 1);
    if (p < d->end && *p == (object ? '}' : ']'))
        return p + 1;
    for (;;) {
        if (object) {
            p = string(d, p);
            if (!p)
                return NULL;
            p = skip(d, p);
            if (p == d->end || *p != ':')
                return NULL;
            p = skip(d, p + 1);
        }
        p = value(d, p, depth);
        if (!p)
            return NULL;
        p = skip(d, p);
        if (p == d->end)
            return NULL;
        if (*p == (object ? '}' : ']'))
            return p + 1;
        if (*p != ',')
            return NULL;
        p = skip(d, p + 1);
    }
}

static bool is_json(const uint8_t *data, size_t size, unsigned *depth)
{
    struct doc d = {data + size, 0};
    const uint8_t *p = value(&d, skip(&d, data), 0);

    *depth = d.deepest;
    return p && skip(&d, p) == d.end;
}

/* -- documents -- */

/* Checks the tokens of a value, and writes what they say. Returns the index behind it. */
static uint32_t walk(const struct tn_json *j, struct tn_json_writer *w, uint32_t at, unsigned depth)
{
    const struct tn_json_token *t = &j->tokens[at];
    uint32_t next = 0, behind = at + 1, n = 0;
    char *text;
    int64_t len;
    uint64_t u;
    int64_t i;

    FZ_ASSERT(at < j->count && t->start <= j->len && t->len <= j->len - t->start);
    FZ_ASSERT(t->next > at && t->next <= j->count && depth <= TN_JSON_DEPTH);
    switch ((enum tn_json_type)t->type) {
    case TN_JSON_NULL:
        tn_json_put_null(w);
        break;
    case TN_JSON_FALSE:
    case TN_JSON_TRUE:
        tn_json_put_bool(w, t->type == TN_JSON_TRUE);
        break;
    case TN_JSON_NUMBER:
        tn_json_put_raw(w, j->text + t->start, t->len);
        if (tn_json_get_u64(j, at, &u) == TN_OK && j->text[t->start] != '-') {
            char spelt[24];

            FZ_ASSERT(snprintf(spelt, sizeof(spelt), "%llu", (unsigned long long)u) ==
                          (int)t->len &&
                      !memcmp(spelt, j->text + t->start, t->len));
        }
        if (tn_json_get_i64(j, at, &i) == TN_OK && i != 0) {
            char spelt[24];

            FZ_ASSERT(snprintf(spelt, sizeof(spelt), "%lld", (long long)i) == (int)t->len &&
                      !memcmp(spelt, j->text + t->start, t->len));
        }
        break;
    case TN_JSON_STRING:
        text = (char *)malloc(t->size + 1);
        FZ_ASSERT(t->size <= t->len);
        len = tn_json_get_string(j, at, text, t->size + 1);
        FZ_ASSERT(len == TN_EFORMAT || len == t->size);
        if (len >= 0) {
            FZ_ASSERT(strlen(text) == t->size && tn_json_is(j, at, text));
            tn_json_put_string(w, text);
        } else { /* U+0000 is in it: as it is */
            tn_json_put_raw(w, j->text + t->start - 1, t->len + 2);
        }
        FZ_ASSERT(t->size == 0 || tn_json_get_string(j, at, text, t->size) < 0);
        free(text);
        break;
    default:
        if (t->type == TN_JSON_OBJECT)
            tn_json_put_object(w);
        else
            tn_json_put_array(w);
        while (tn_json_next(j, at, &next)) {
            if (t->type == TN_JSON_OBJECT) {
                char *key = (char *)malloc(j->tokens[behind].size + 1);

                FZ_ASSERT(tn_json_type(j, behind) == TN_JSON_STRING && next == behind + 1);
                len = tn_json_get_string(j, behind, key, j->tokens[behind].size + 1);
                if (len >= 0) {
                    FZ_ASSERT(tn_json_member(j, at, key) == next);
                    tn_json_put_key(w, key);
                } else {
                    tn_json_put_key(w, "not written");
                    w->err = TN_EUNSUP;
                }
                free(key);
                behind++;
            }
            FZ_ASSERT(next == behind);
            behind = walk(j, w, next, depth + 1);
            n++;
        }
        tn_json_put_end(w);
        FZ_ASSERT(n == t->size && behind == t->next);
        FZ_ASSERT(t->type == TN_JSON_ARRAY || n <= TN_JSON_MEMBERS);
        break;
    }
    FZ_ASSERT(behind == t->next);
    return behind;
}

/* Takes fields as a specification's parser does. */
static void fields(const struct tn_json *j, uint32_t at)
{
    static const char *const choices[] = {"", "b", "None"};
    struct tn_json_object o, inner;
    uint32_t v32 = 0;
    uint64_t v64 = 0;
    bool b = false;
    char text[4];

    tn_json_open(&o, j, at);
    if (tn_json_take_u32(&o, "a", TN_JSON_MAY, 1, 9, &v32))
        FZ_ASSERT(v32 >= 1 && v32 <= 9);
    tn_json_take_u64(&o, "b", TN_JSON_OR_NULL, 0, UINT64_MAX, &v64);
    tn_json_take_bool(&o, "c", TN_JSON_MAY, &b);
    if (tn_json_take_string(&o, "d", TN_JSON_MAY, text, sizeof(text)))
        FZ_ASSERT(strlen(text) < sizeof(text));
    if (tn_json_take_choice(&o, "e", TN_JSON_MAY, choices, 3, &v32))
        FZ_ASSERT(v32 < 3);
    if (tn_json_take_object(&o, "f", TN_JSON_MAY, &inner))
        tn_json_take_value(&inner, "a", TN_JSON_MUST, &v32);
    if (tn_json_take_array(&o, "g", TN_JSON_MAY, 1, 2, &v32))
        FZ_ASSERT(tn_json_element(j, v32, 0) != TN_JSON_ABSENT &&
                  tn_json_element(j, v32, 2) == TN_JSON_ABSENT);
    if (tn_json_close(&o) == TN_OK)
        FZ_ASSERT(j->tokens[at].size <= 7);
    else
        FZ_ASSERT(o.detail >= TN_JSON_UNKNOWN && o.at <= j->len);
}

static bool parse(struct tn_json *j, const void *text, size_t len, struct tn_json_token *tokens,
                  size_t cap)
{
    int err = tn_json_parse(j, text, len, tokens, cap);

    FZ_ASSERT(err == TN_OK || err == TN_EFORMAT || err == TN_ETRUNC || err == TN_ENOFIT);
    FZ_ASSERT(j->count <= cap && (err == TN_OK) == (j->count > 0));
    FZ_ASSERT((err == TN_OK) == (j->detail == TN_JSON_FINE) && j->at <= len);
    FZ_ASSERT(err != TN_ETRUNC || j->at == len);
    return err == TN_OK;
}

static void document(const uint8_t *data, size_t size, size_t cap)
{
    static struct tn_json_token tokens[TOKENS], again[TOKENS];
    static char first[ROOM], second[ROOM];
    struct tn_json_token *exact = (struct tn_json_token *)malloc(cap * sizeof(*exact) + 1);
    struct tn_json j, k;
    struct tn_json_writer w;
    unsigned depth;
    bool fine, reference = is_json(data, size, &depth);
    int64_t len, len2;

    parse(&j, data, size, exact, cap);
    free(exact);
    fine = parse(&j, data, size, tokens, TOKENS);
    if (!fine) {
        FZ_ASSERT(!reference || j.detail == TN_JSON_DUPLICATE ||
                  (j.detail >= TN_JSON_TOO_LARGE && j.detail <= TN_JSON_TOO_WIDE));
        FZ_ASSERT(j.detail != TN_JSON_TOO_DEEP || depth > TN_JSON_DEPTH);
        return;
    }
    FZ_ASSERT(reference && depth <= TN_JSON_DEPTH);
    for (uint32_t i = 0; i < j.count && i < 64; i++)
        fields(&j, i);
    tn_json_begin(&w, first, sizeof(first));
    FZ_ASSERT(walk(&j, &w, TN_JSON_ROOT, 0) == j.count);
    len = tn_json_finish(&w);
    FZ_ASSERT(len > 0 || len == TN_ENOSPC || len == TN_EUNSUP);
    if (len > 0) {
        FZ_ASSERT(parse(&k, first, (size_t)len, again, TOKENS) && k.count == j.count);
        for (uint32_t i = 0; i < j.count; i++)
            FZ_ASSERT(again[i].type == tokens[i].type && again[i].size == tokens[i].size &&
                      again[i].next == tokens[i].next);
        tn_json_begin(&w, second, sizeof(second));
        walk(&k, &w, TN_JSON_ROOT, 0);
        len2 = tn_json_finish(&w);
        FZ_ASSERT(len2 == len && !memcmp(first, second, (size_t)len));
    }
    for (size_t cut = size < 200 ? size : 200; cut-- > 0;) {
        uint8_t *prefix = (uint8_t *)malloc(cut ? cut : 1);

        if (cut)
            memcpy(prefix, data, cut);
        FZ_ASSERT(parse(&k, prefix, cut, again, TOKENS) || k.detail == TN_JSON_ENDS ||
                  k.detail == TN_JSON_EMPTY);
        free(prefix);
    }
}

/* -- calls -- */

static int64_t calls(const uint8_t *data, size_t size, char *buf, size_t cap)
{
    struct tn_json_writer w;
    struct fz z;

    fz_init(&z, data, size);
    tn_json_begin(&w, buf, cap);
    while (z.left > 0) {
        char text[32];
        unsigned n;
        int err = w.err;

        switch (fz_u8(&z) % 12) {
        case 0:
            tn_json_put_object(&w);
            break;
        case 1:
            tn_json_put_array(&w);
            break;
        case 2:
        case 3:
            tn_json_put_end(&w);
            break;
        case 4:
        case 5:
            n = (unsigned)fz_bytes(&z, text, fz_u8(&z) % 32u);
            text[n < 31 ? n : 31] = 0;
            tn_json_put_key(&w, text);
            break;
        case 6:
            n = (unsigned)fz_bytes(&z, text, fz_u8(&z) % 32u);
            tn_json_put_text(&w, text, n);
            break;
        case 7:
            tn_json_put_u64(&w, fz_u64(&z));
            break;
        case 8:
            tn_json_put_i64(&w, (int64_t)fz_u64(&z));
            break;
        case 9:
            tn_json_put_bool(&w, fz_u8(&z) & 1);
            break;
        case 10:
            tn_json_put_raw(&w, "1.5", 3);
            break;
        default:
            tn_json_put_null(&w);
            break;
        }
        FZ_ASSERT(w.len <= cap && w.depth <= TN_JSON_DEPTH && w.buf == buf && w.cap == cap);
        FZ_ASSERT(err == 0 || w.err == err);
    }
    /* what is open ends */
    while (w.err == 0 && w.depth > 0) {
        if (w.key)
            tn_json_put_null(&w);
        tn_json_put_end(&w);
    }
    return tn_json_finish(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tn_json_token tokens[TOKENS];
    static char buf[ROOM];
    struct tn_json j;
    unsigned depth;
    char *exact;
    int64_t len;
    uint8_t *copy;

    if (size == 0 || size > 8192)
        return 0;
    if (data[0] < 0x80) {
        copy = (uint8_t *)malloc(size);
        memcpy(copy, data, size);
        document(copy + 1, size - 1, data[0]);
        free(copy);
        return 0;
    }
    len = calls(data + 1, size - 1, buf, sizeof(buf));
    if (len < 0)
        return 0;
    FZ_ASSERT(is_json((const uint8_t *)buf, (size_t)len, &depth) && depth <= TN_JSON_DEPTH);
    FZ_ASSERT(parse(&j, buf, (size_t)len, tokens, TOKENS) || j.detail == TN_JSON_DUPLICATE ||
              j.detail == TN_JSON_TOO_WIDE || j.detail == TN_JSON_TOO_MANY);
    exact = (char *)malloc((size_t)len);
    FZ_ASSERT(calls(data + 1, size - 1, exact, (size_t)len) == len &&
              !memcmp(exact, buf, (size_t)len));
    FZ_ASSERT(calls(data + 1, size - 1, exact, (size_t)len - 1) == TN_ENOSPC);
    free(exact);
    return 0;
}
