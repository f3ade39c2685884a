/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Calls with arbitrary strings, in a buffer of exactly cap bytes. After each call the string is
 * split as the kernel splits it. Properties: NUL-terminated within cap; an error changes nothing;
 * a parameter that was taken is read back as that key and value, before the `--`, exactly once more
 * than before; nothing that was there before is lost or read differently.
 */
#include "tn_cmdline.h"

#include "fuzz.h"

#define CAP   400u
#define WORDS 256u

/* A word as the kernel hands it on: quotes off, split at the first `=`. val NULL: there is none. */
struct word {
    const char *key, *val;
    bool init; /* after the `--` */
};

static bool space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (uint8_t)c == 0xa0;
}

/* Splits text, in place, by the rules of admin-guide/kernel-parameters and next_arg(). */
static unsigned split(char *text, struct word *word)
{
    unsigned words = 0;
    bool init = false;

    for (;;) {
        bool open = false;
        char *start, *equals = NULL, *p;

        while (space(*text))
            text++;
        if (!*text)
            return words;
        start = text;
        for (p = text; *p && (open || !space(*p)); p++) {
            if (*p == '"')
                open = !open;
            if (*p == '=' && !equals && p > start + (*start == '"'))
                equals = p;
        }
        FZ_ASSERT(!open);
        text = *p ? p + 1 : p;
        *p = 0;
        if (*start == '"') {
            start++;
            if (p > start && p[-1] == '"')
                *--p = 0;
        }
        FZ_ASSERT(words < WORDS);
        word[words].key = start;
        word[words].val = NULL;
        if (equals) {
            *equals++ = 0;
            if (*equals == '"') {
                equals++;
                if (p > equals && p[-1] == '"')
                    p[-1] = 0;
                else if (p == equals)
                    equals = p; /* a lone quote that is already off */
            }
            word[words].val = equals;
        } else if (strcmp(start, "--") == 0) {
            FZ_ASSERT(!init);
            init = true;
            continue;
        }
        word[words++].init = init;
    }
}

static bool same(const struct word *a, const struct word *b)
{
    return a->init == b->init && strcmp(a->key, b->key) == 0 && !a->val == !b->val &&
           (!a->val || strcmp(a->val, b->val) == 0);
}

/* A string of up to 40 bytes, mostly from what matters to a command line. */
static void any_string(struct fz *z, char *s)
{
    static const char pool[] = "aZ9-=\"  --.,_/'\\\xa0\xc3\t\n\x7f";
    unsigned n = fz_u8(z) % 40;

    for (unsigned i = 0; i < n; i++) {
        uint8_t b = fz_u8(z);

        s[i] = b < 128 ? pool[b % (sizeof(pool) - 1)] : b < 192 ? (char)('a' + b % 26) : (char)b;
        if (!s[i])
            s[i] = 'x';
    }
    s[n] = 0;
}

static void step(struct tn_cmdline *c, struct fz *z)
{
    static struct word was[WORDS], is[WORDS];
    char before[CAP], old[CAP], now[CAP], key[41], value[41];
    unsigned op = fz_u8(z) % 4, olds, news, k = 0;
    size_t len = c->len;
    int err;

    memcpy(before, c->buf, len + 1);
    any_string(z, key);
    any_string(z, value);
    err = op == 0   ? tn_cmdline_add(c, key, value)
          : op == 1 ? tn_cmdline_add(c, key, NULL)
          : op == 2 ? tn_cmdline_add_text(c, key)
                    : tn_cmdline_add_init(c, key);
    FZ_ASSERT(err == TN_OK || err == TN_EINVAL || err == TN_ENOSPC);
    FZ_ASSERT(c->len < c->cap && strlen(c->buf) == c->len && c->boot <= c->len);
    if (err != TN_OK) {
        FZ_ASSERT(c->len == len && memcmp(before, c->buf, len + 1) == 0);
        return;
    }
    memcpy(old, before, len + 1);
    memcpy(now, c->buf, c->len + 1);
    olds = split(old, was);
    news = split(now, is);
    for (unsigned i = 0; i < news; i++) { /* the old words, in their order, are among the new */
        if (k < olds && same(&was[k], &is[i]))
            k++;
    }
    FZ_ASSERT(k == olds);
    if (op <= 1) {
        struct word w = {key, op == 0 ? value : NULL, false};
        unsigned at = 0;

        FZ_ASSERT(news == olds + 1);
        while (at < olds && !was[at].init)
            at++;
        FZ_ASSERT(same(&is[at], &w));
    } else if (op == 3) {
        char flat[128];

        FZ_ASSERT(news == olds + 1 && is[news - 1].init);
        snprintf(flat, sizeof(flat), "%s%s%s", is[news - 1].key, is[news - 1].val ? "=" : "",
                 is[news - 1].val ? is[news - 1].val : "");
        FZ_ASSERT(strcmp(flat, key) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tn_cmdline c;
    struct fz z;
    size_t cap;
    char *buf;

    fz_init(&z, data, size);
    cap = fz_range(&z, 1, CAP);
    buf = malloc(cap);
    if (!buf)
        return 0;
    tn_cmdline_init(&c, buf, cap);
    for (unsigned steps = 0; z.left > 0 && steps < 100; steps++)
        step(&c, &z);
    free(buf);
    return 0;
}
