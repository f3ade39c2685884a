/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_cmdline.h"

#include "test.h"

enum op { ADD, TEXT, INIT };

/* One call: what goes in, what it returns, and the whole string after it. */
struct step {
    enum op op;
    const char *key, *value;
    int err;
    const char *after;
};

static int run(struct tn_cmdline *c, const struct step *s)
{
    switch (s->op) {
    case ADD:
        return tn_cmdline_add(c, s->key, s->value);
    case TEXT:
        return tn_cmdline_add_text(c, s->key);
    default:
        return tn_cmdline_add_init(c, s->key);
    }
}

/* Every step of a table, each time in a buffer that starts with what `start` says. */
static void check(const char *start, const struct step *s, size_t n, bool chained)
{
    char buf[128];
    struct tn_cmdline c;

    for (size_t i = 0; i < n; i++) {
        if (i == 0 || !chained) {
            tn_cmdline_init(&c, buf, sizeof(buf));
            assert_int_equal(tn_cmdline_add_text(&c, start), TN_OK);
        }
        assert_int_equal(run(&c, &s[i]), s[i].err);
        assert_string_equal(c.buf, s[i].after ? s[i].after : start);
        assert_int_equal(c.len, strlen(c.buf));
    }
}

static void what_the_kernel_would_misread_is_refused(void **state)
{
    static const struct step t[] = {
        {ADD, NULL, "v", TN_EINVAL, NULL},
        {ADD, "", "v", TN_EINVAL, NULL},
        {ADD, "", NULL, TN_EINVAL, NULL},
        {ADD, "--", NULL, TN_EINVAL, NULL},
        {ADD, "--", "v", TN_EINVAL, NULL},
        {ADD, "k k", "v", TN_EINVAL, NULL},
        {ADD, "k ", "v", TN_EINVAL, NULL},
        {ADD, "k=", "v", TN_EINVAL, NULL},
        {ADD, "k=v", NULL, TN_EINVAL, NULL},
        {ADD, "k\"", "v", TN_EINVAL, NULL},
        {ADD, "'k", "v", TN_EINVAL, NULL},
        {ADD, "k\n", "v", TN_EINVAL, NULL},
        {ADD, "k\x7f", "v", TN_EINVAL, NULL},
        {ADD, "k\xa0", "v", TN_EINVAL, NULL},
        {ADD, "k\x80", NULL, TN_EINVAL, NULL},
        {ADD, "k", "\"", TN_EINVAL, NULL},
        {ADD, "k", "a\"b", TN_EINVAL, NULL},
        {ADD, "k", "a\nb", TN_EINVAL, NULL},
        {ADD, "k", "a\tb", TN_EINVAL, NULL},
        {ADD, "k", "\x1b[0m", TN_EINVAL, NULL},
        {ADD, "k", "\x7f", TN_EINVAL, NULL},
        {TEXT, NULL, NULL, TN_EINVAL, NULL},
        {TEXT, "a=\"b c", NULL, TN_EINVAL, NULL},
        {TEXT, "\"", NULL, TN_EINVAL, NULL},
        {TEXT, "a \"b\" \"c", NULL, TN_EINVAL, NULL},
        {TEXT, "a\nb", NULL, TN_EINVAL, NULL},
        {TEXT, "a\tb", NULL, TN_EINVAL, NULL},
        {TEXT, "a\x7f", NULL, TN_EINVAL, NULL},
        {TEXT, "a=x\xa0y", NULL, TN_EINVAL, NULL},
        {TEXT, "a -- b -- c", NULL, TN_EINVAL, NULL},
        {TEXT, "-- --", NULL, TN_EINVAL, NULL},
        {TEXT, "a \"--\" b", NULL, TN_EINVAL, NULL}, /* the kernel would end the parameters here */
        {TEXT, "ok -- \"open", NULL, TN_EINVAL, NULL},
        {INIT, NULL, NULL, TN_EINVAL, NULL},
        {INIT, "", NULL, TN_EINVAL, NULL},
        {INIT, "--", NULL, TN_EINVAL, NULL},
        {INIT, "a\"b", NULL, TN_EINVAL, NULL},
        {INIT, "a\nb", NULL, TN_EINVAL, NULL},
    };

    (void)state;
    check("", t, COUNT(t), false);
    check("ro", t, COUNT(t), false);
    check("ro -- s", t, COUNT(t), false);
    check("-- s", t, COUNT(t), false);
}

static void every_byte_is_taken_or_refused_as_stated(void **state)
{
    (void)state;
    for (unsigned byte = 1; byte < 256; byte++) {
        const char s[] = {'k', (char)byte, 0};
        bool control = byte < ' ' || byte == 0x7f;
        bool key = byte > ' ' && byte < 0x7f && byte != '=' && byte != '"' && byte != '\'';
        char buf[16];
        struct tn_cmdline c;

        tn_cmdline_init(&c, buf, sizeof(buf));
        assert_int_equal(tn_cmdline_add(&c, s, NULL), key ? TN_OK : TN_EINVAL);
        tn_cmdline_init(&c, buf, sizeof(buf));
        assert_int_equal(tn_cmdline_add(&c, "x", s), control || byte == '"' ? TN_EINVAL : TN_OK);
        if (byte == ' ' || byte == 0xa0)
            assert_true(buf[2] == '"' && buf[5] == '"' && c.len == 6);
        tn_cmdline_init(&c, buf, sizeof(buf));
        assert_int_equal(tn_cmdline_add_text(&c, s),
                         control || byte == '"' || byte == 0xa0 ? TN_EINVAL : TN_OK);
    }
}

static void words_are_joined(void **state)
{
    static const struct step t[] = {
        {TEXT, "", NULL, TN_OK, ""},
        {TEXT, "   ", NULL, TN_OK, ""},
        {TEXT, "--", NULL, TN_OK, ""},
        {ADD, "console", "ttyS0", TN_OK, "console=ttyS0"},
        {ADD, "quiet", NULL, TN_OK, "console=ttyS0 quiet"},
        {ADD, "e", "", TN_OK, "console=ttyS0 quiet e="},
        {ADD, "d", "a b", TN_OK, "console=ttyS0 quiet e= d=\"a b\""},
        {TEXT, "  x=1   y=\"2 -- 3\"  ", NULL, TN_OK,
         "console=ttyS0 quiet e= d=\"a b\" x=1   y=\"2 -- 3\""},
    };

    (void)state;
    check("", t, COUNT(t), true);
}

static void boot_parameters_stay_before_the_dashes(void **state)
{
    static const struct step t[] = {
        {INIT, "single", NULL, TN_OK, "-- single"},
        {ADD, "a", "1", TN_OK, "a=1 -- single"},
        {INIT, "x y", NULL, TN_OK, "a=1 -- single \"x y\""},
        {ADD, "b", NULL, TN_OK, "a=1 b -- single \"x y\""},
        {TEXT, "c d -- e  f ", NULL, TN_OK, "a=1 b c d -- single \"x y\" e  f"},
        {TEXT, "-- g", NULL, TN_OK, "a=1 b c d -- single \"x y\" e  f g"},
        {TEXT, "h --", NULL, TN_OK, "a=1 b c d h -- single \"x y\" e  f g"},
        {TEXT, "--x ---", NULL, TN_OK, "a=1 b c d h --x --- -- single \"x y\" e  f g"},
    };
    static const struct step text_first[] = {
        {TEXT, "-- a", NULL, TN_OK, "-- a"},
        {TEXT, "b -- c", NULL, TN_OK, "b -- a c"},
        {ADD, "d", "e f", TN_OK, "b d=\"e f\" -- a c"},
    };

    (void)state;
    check("", t, COUNT(t), true);
    check("", text_first, COUNT(text_first), true);
}

/* Each call against every capacity, in a buffer of exactly that many bytes. */
static void d07_the_nul_has_its_room(void **state)
{
    static const char *const starts[] = {"", "ro", "-- s", "ro -- s"};
    static const struct step calls[] = {
        {ADD, "key", NULL, 0, NULL},    {ADD, "key", "", 0, NULL},
        {ADD, "key", "value", 0, NULL}, {ADD, "key", "a b", 0, NULL},
        {TEXT, "a b", NULL, 0, NULL},   {TEXT, "a -- b", NULL, 0, NULL},
        {TEXT, "-- b", NULL, 0, NULL},  {INIT, "b", NULL, 0, NULL},
        {INIT, "b c", NULL, 0, NULL},
    };

    (void)state;
    for (size_t s = 0; s < COUNT(starts); s++) {
        for (size_t i = 0; i < COUNT(calls); i++) {
            size_t need = 0, before = strlen(starts[s]);
            char big[64];
            struct tn_cmdline c;

            tn_cmdline_init(&c, big, sizeof(big));
            assert_int_equal(tn_cmdline_add_text(&c, starts[s]), TN_OK);
            assert_int_equal(run(&c, &calls[i]), TN_OK);
            need = c.len + 1;
            for (size_t cap = before + 1; cap <= need + 1; cap++) {
                char *buf = malloc(cap);
                bool fits = cap >= need;

                tn_cmdline_init(&c, buf, cap);
                assert_int_equal(tn_cmdline_add_text(&c, starts[s]), TN_OK);
                assert_int_equal(run(&c, &calls[i]), fits ? TN_OK : TN_ENOSPC);
                assert_string_equal(c.buf, fits ? big : starts[s]);
                assert_true(c.len + 1 <= cap);
                free(buf);
            }
        }
    }
}

static void without_a_buffer_nothing_fits(void **state)
{
    struct tn_cmdline c;

    (void)state;
    tn_cmdline_init(&c, NULL, 0);
    assert_int_equal(tn_cmdline_add(&c, "k", NULL), TN_ENOSPC);
    assert_int_equal(tn_cmdline_add_text(&c, "k"), TN_ENOSPC);
    assert_int_equal(tn_cmdline_add_text(&c, "-- k"), TN_ENOSPC);
    assert_int_equal(tn_cmdline_add_init(&c, "k"), TN_ENOSPC);
    assert_int_equal(c.len, 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_kernel_would_misread_is_refused),
        cmocka_unit_test(every_byte_is_taken_or_refused_as_stated),
        cmocka_unit_test(d07_the_nul_has_its_room),
        cmocka_unit_test(without_a_buffer_nothing_fits),
        cmocka_unit_test(words_are_joined),
        cmocka_unit_test(boot_parameters_stay_before_the_dashes),
    };

    return cmocka_run_group_tests_name("cmdline", tests, NULL, NULL);
}
