/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_json.h"

#include "test.h"

#define CAP 600u

static struct tn_json_token tokens[CAP];

/* Parses a copy that a sanitizer watches the ends of; it lives until the next call. */
static int parse_in(struct tn_json *j, const void *text, size_t len, size_t cap)
{
    static uint8_t *copy;

    free(copy);
    copy = test_exact(text, len);
    return tn_json_parse(j, copy, len, tokens, cap);
}

static int parse(struct tn_json *j, const char *text)
{
    return parse_in(j, text, strlen(text), CAP);
}

/* A document with bytes in it that no C string has. */
#define BYTES(s) s, sizeof(s) - 1

struct bad {
    const char *text;
    size_t len;
    int err;
    uint32_t at, detail;
};

static void check_bad(const struct bad *t, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct tn_json j;
        int err = parse_in(&j, t[i].text, t[i].len, CAP);

        if (err != t[i].err || j.at != t[i].at || j.detail != t[i].detail)
            fail_msg("%s: %d at %u, detail %u", t[i].text, err, j.at, j.detail);
        assert_int_equal(j.count, 0);
        assert_int_equal(tn_json_type(&j, TN_JSON_ROOT), TN_JSON_NONE);
    }
}

static void what_is_no_json_is_refused_where_it_is_wrong(void **state)
{
    static const struct bad t[] = {
        /* what has to be a value */
        {BYTES("}"), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES("]"), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES(","), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES(":"), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES("*"), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES("'a'"), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES("a"), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES("/**/1"), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES("//\n1"), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES("#1"), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES("NaN"), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES("Infinity"), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES("undefined"), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES("True"), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES("\0"), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES("\x7f"), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES("\xef\xbb\xbf{}"), TN_EFORMAT, 0, TN_JSON_VALUE}, /* a byte order mark */
        {BYTES("\xff\xfe{\0}\0"), TN_EFORMAT, 0, TN_JSON_VALUE}, /* UTF-16 */
        {BYTES("{\0}\0"), TN_EFORMAT, 1, TN_JSON_KEY},
        {BYTES("\xe2\x81\xa0[]"), TN_EFORMAT, 0, TN_JSON_VALUE}, /* U+2060 is no white space */
        {BYTES("\xc2\xa0[]"), TN_EFORMAT, 0, TN_JSON_VALUE},     /* nor is U+00A0 */
        {BYTES("\f[]"), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES("\v[]"), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES("[\f]"), TN_EFORMAT, 1, TN_JSON_VALUE},
        /* arrays */
        {BYTES("[,]"), TN_EFORMAT, 1, TN_JSON_VALUE},
        {BYTES("[1,]"), TN_EFORMAT, 3, TN_JSON_VALUE},
        {BYTES("[,1]"), TN_EFORMAT, 1, TN_JSON_VALUE},
        {BYTES("[1,,2]"), TN_EFORMAT, 3, TN_JSON_VALUE},
        {BYTES("[1 2]"), TN_EFORMAT, 3, TN_JSON_COMMA},
        {BYTES("[1:2]"), TN_EFORMAT, 2, TN_JSON_COMMA},
        {BYTES("[\"a\":1]"), TN_EFORMAT, 4, TN_JSON_COMMA},
        {BYTES("[1}"), TN_EFORMAT, 2, TN_JSON_COMMA},
        {BYTES("[}"), TN_EFORMAT, 1, TN_JSON_VALUE},
        {BYTES("[\"\"],"), TN_EFORMAT, 4, TN_JSON_AFTER},
        {BYTES("[1]]"), TN_EFORMAT, 3, TN_JSON_AFTER},
        {BYTES("[][]"), TN_EFORMAT, 2, TN_JSON_AFTER},
        {BYTES("[1"), TN_ETRUNC, 2, TN_JSON_ENDS},
        {BYTES("[1,"), TN_ETRUNC, 3, TN_JSON_ENDS},
        {BYTES("[\n"), TN_ETRUNC, 2, TN_JSON_ENDS},
        {BYTES("[3[4]]"), TN_EFORMAT, 2, TN_JSON_COMMA},
        {BYTES("[a]"), TN_EFORMAT, 1, TN_JSON_VALUE},
        {BYTES("<.>"), TN_EFORMAT, 0, TN_JSON_VALUE},
        /* objects */
        {BYTES("{]"), TN_EFORMAT, 1, TN_JSON_KEY},
        {BYTES("{,}"), TN_EFORMAT, 1, TN_JSON_KEY},
        {BYTES("{1:2}"), TN_EFORMAT, 1, TN_JSON_KEY},
        {BYTES("{a:2}"), TN_EFORMAT, 1, TN_JSON_KEY},
        {BYTES("{'a':2}"), TN_EFORMAT, 1, TN_JSON_KEY},
        {BYTES("{null:2}"), TN_EFORMAT, 1, TN_JSON_KEY},
        {BYTES("{[]:2}"), TN_EFORMAT, 1, TN_JSON_KEY},
        {BYTES("{\"a\"}"), TN_EFORMAT, 4, TN_JSON_COLON},
        {BYTES("{\"a\",1}"), TN_EFORMAT, 4, TN_JSON_COLON},
        {BYTES("{\"a\" 1}"), TN_EFORMAT, 5, TN_JSON_COLON},
        {BYTES("{\"a\"=1}"), TN_EFORMAT, 4, TN_JSON_COLON},
        {BYTES("{\"a\"::1}"), TN_EFORMAT, 5, TN_JSON_VALUE},
        {BYTES("{\"a\":}"), TN_EFORMAT, 5, TN_JSON_VALUE},
        {BYTES("{\"a\":1,}"), TN_EFORMAT, 7, TN_JSON_KEY},
        {BYTES("{\"a\":1,,}"), TN_EFORMAT, 7, TN_JSON_KEY},
        {BYTES("{\"a\":1 \"b\":2}"), TN_EFORMAT, 7, TN_JSON_COMMA},
        {BYTES("{\"a\":1]"), TN_EFORMAT, 6, TN_JSON_COMMA},
        {BYTES("{\"a\":1:2}"), TN_EFORMAT, 6, TN_JSON_COMMA},
        {BYTES("{}}"), TN_EFORMAT, 2, TN_JSON_AFTER},
        {BYTES("{\"a\":\"b\"}#"), TN_EFORMAT, 9, TN_JSON_AFTER},
        {BYTES("{\"a\":\"b\"}/**/"), TN_EFORMAT, 9, TN_JSON_AFTER},
        {BYTES("{}\0"), TN_EFORMAT, 2, TN_JSON_AFTER},
        /* words */
        {BYTES("nul"), TN_ETRUNC, 3, TN_JSON_ENDS},
        {BYTES("nulL"), TN_EFORMAT, 3, TN_JSON_LITERAL},
        {BYTES("truth"), TN_EFORMAT, 3, TN_JSON_LITERAL},
        {BYTES("fals "), TN_EFORMAT, 4, TN_JSON_LITERAL},
        {BYTES("nullx"), TN_EFORMAT, 4, TN_JSON_AFTER},
        {BYTES("[truefalse]"), TN_EFORMAT, 5, TN_JSON_COMMA},
        {BYTES("true true"), TN_EFORMAT, 5, TN_JSON_AFTER},
        /* numbers */
        {BYTES("-"), TN_ETRUNC, 1, TN_JSON_ENDS},
        {BYTES("--1"), TN_EFORMAT, 1, TN_JSON_DIGIT},
        {BYTES("+1"), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES("- 1"), TN_EFORMAT, 1, TN_JSON_DIGIT},
        {BYTES("-a"), TN_EFORMAT, 1, TN_JSON_DIGIT},
        {BYTES("-Infinity"), TN_EFORMAT, 1, TN_JSON_DIGIT},
        {BYTES("01"), TN_EFORMAT, 1, TN_JSON_DIGIT},
        {BYTES("-01"), TN_EFORMAT, 2, TN_JSON_DIGIT},
        {BYTES("00"), TN_EFORMAT, 1, TN_JSON_DIGIT},
        {BYTES("-00.5"), TN_EFORMAT, 2, TN_JSON_DIGIT},
        {BYTES(".5"), TN_EFORMAT, 0, TN_JSON_VALUE},
        {BYTES("-.5"), TN_EFORMAT, 1, TN_JSON_DIGIT},
        {BYTES("1."), TN_ETRUNC, 2, TN_JSON_ENDS},
        {BYTES("[1.]"), TN_EFORMAT, 3, TN_JSON_DIGIT},
        {BYTES("1.e1"), TN_EFORMAT, 2, TN_JSON_DIGIT},
        {BYTES("0.1.2"), TN_EFORMAT, 3, TN_JSON_AFTER},
        {BYTES("1e"), TN_ETRUNC, 2, TN_JSON_ENDS},
        {BYTES("1e+"), TN_ETRUNC, 3, TN_JSON_ENDS},
        {BYTES("[1e+]"), TN_EFORMAT, 4, TN_JSON_DIGIT},
        {BYTES("1e+-2"), TN_EFORMAT, 3, TN_JSON_DIGIT},
        {BYTES("1ea"), TN_EFORMAT, 2, TN_JSON_DIGIT},
        {BYTES("1e1.5"), TN_EFORMAT, 3, TN_JSON_AFTER},
        {BYTES("0x10"), TN_EFORMAT, 1, TN_JSON_AFTER},
        {BYTES("1_000"), TN_EFORMAT, 1, TN_JSON_AFTER},
        {BYTES("1 000"), TN_EFORMAT, 2, TN_JSON_AFTER},
        {BYTES("12L"), TN_EFORMAT, 2, TN_JSON_AFTER},
        {BYTES("\xef\xbc\x91"), TN_EFORMAT, 0, TN_JSON_VALUE}, /* U+FF11, a digit, but wide */
        /* strings */
        {BYTES("\""), TN_ETRUNC, 1, TN_JSON_ENDS},
        {BYTES("\"a"), TN_ETRUNC, 2, TN_JSON_ENDS},
        {BYTES("\"\\\""), TN_ETRUNC, 3, TN_JSON_ENDS},
        {BYTES("\"\\"), TN_ETRUNC, 2, TN_JSON_ENDS},
        {BYTES("\"a'"), TN_ETRUNC, 3, TN_JSON_ENDS},
        {BYTES("\"a\"b"), TN_EFORMAT, 3, TN_JSON_AFTER},
        {BYTES("\"a\0b\""), TN_EFORMAT, 2, TN_JSON_CONTROL},
        {BYTES("\"a\nb\""), TN_EFORMAT, 2, TN_JSON_CONTROL},
        {BYTES("\"\t\""), TN_EFORMAT, 1, TN_JSON_CONTROL},
        {BYTES("\"\x1f\""), TN_EFORMAT, 1, TN_JSON_CONTROL},
        {BYTES("\"\\\n\""), TN_EFORMAT, 1, TN_JSON_ESCAPE},
        {BYTES("\"\\\0\""), TN_EFORMAT, 1, TN_JSON_ESCAPE},
        {BYTES("\"\\x00\""), TN_EFORMAT, 1, TN_JSON_ESCAPE},
        {BYTES("\"\\a\""), TN_EFORMAT, 1, TN_JSON_ESCAPE},
        {BYTES("\"\\v\""), TN_EFORMAT, 1, TN_JSON_ESCAPE},
        {BYTES("\"\\'\""), TN_EFORMAT, 1, TN_JSON_ESCAPE},
        {BYTES("\"\\0\""), TN_EFORMAT, 1, TN_JSON_ESCAPE},
        {BYTES("\"\\U0041\""), TN_EFORMAT, 1, TN_JSON_ESCAPE},
        {BYTES("\"\\u\""), TN_EFORMAT, 1, TN_JSON_ESCAPE},
        {BYTES("\"\\u004\""), TN_EFORMAT, 1, TN_JSON_ESCAPE},
        {BYTES("\"\\u00g0\""), TN_EFORMAT, 1, TN_JSON_ESCAPE},
        {BYTES("\"\\u+041\""), TN_EFORMAT, 1, TN_JSON_ESCAPE},
        {BYTES("\"\\u{41}\""), TN_EFORMAT, 1, TN_JSON_ESCAPE},
        {BYTES("\"\\u 041\""), TN_EFORMAT, 1, TN_JSON_ESCAPE},
        {BYTES("[\"\\uD800\\\xc3\xa9\"]"), TN_EFORMAT, 2, TN_JSON_SURROGATE},
        {BYTES("\"\\\xf0\x9f\x98\x80\""), TN_EFORMAT, 1, TN_JSON_ESCAPE},
    };

    (void)state;
    check_bad(t, COUNT(t));
}

static void e14_lone_surrogates_are_refused(void **state)
{
    static const struct bad t[] = {
        {BYTES("\"\\ud800\""), TN_EFORMAT, 1, TN_JSON_SURROGATE},
        {BYTES("\"a\\udbff\""), TN_EFORMAT, 2, TN_JSON_SURROGATE},
        {BYTES("\"\\udc00\""), TN_EFORMAT, 1, TN_JSON_SURROGATE},
        {BYTES("\"\\uDFFF\""), TN_EFORMAT, 1, TN_JSON_SURROGATE},
        {BYTES("\"\\ud800x\""), TN_EFORMAT, 1, TN_JSON_SURROGATE},
        {BYTES("\"\\ud800\\n\""), TN_EFORMAT, 1, TN_JSON_SURROGATE},
        {BYTES("\"\\ud800\\u\""), TN_EFORMAT, 1, TN_JSON_SURROGATE},
        {BYTES("\"\\ud800\\u1\""), TN_EFORMAT, 1, TN_JSON_SURROGATE},
        {BYTES("\"\\ud800\\u0041\""), TN_EFORMAT, 1, TN_JSON_SURROGATE},
        {BYTES("\"\\ud800\\ud800\""), TN_EFORMAT, 1, TN_JSON_SURROGATE},
        {BYTES("\"\\ud800\\udbff\""), TN_EFORMAT, 1, TN_JSON_SURROGATE},
        {BYTES("\"\\ud800\\ue000\""), TN_EFORMAT, 1, TN_JSON_SURROGATE},
        {BYTES("\"\\udc00\\ud800\""), TN_EFORMAT, 1, TN_JSON_SURROGATE},
        {BYTES("\"\\ud83d\\ude00\\ud83d\""), TN_EFORMAT, 13, TN_JSON_SURROGATE},
        {BYTES("\"\\ud800"), TN_ETRUNC, 7, TN_JSON_ENDS},
        {BYTES("\"\\ud800\\udc0"), TN_ETRUNC, 12, TN_JSON_ENDS},
        {BYTES("\"\xed\xa0\x80\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xed\xbf\xbf\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xed\xa0\xbd\xed\xb8\x80\""), TN_EFORMAT, 1, TN_JSON_UTF8}, /* CESU-8 */
        {BYTES("{\"\\ud800\":1}"), TN_EFORMAT, 2, TN_JSON_SURROGATE},
    };

    (void)state;
    check_bad(t, COUNT(t));
}

/* RFC 3629's own examples and those next to its bounds. */
static void what_is_no_utf8_is_refused(void **state)
{
    static const struct bad t[] = {
        {BYTES("\"\x80\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xbf\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xc0\x80\""), TN_EFORMAT, 1, TN_JSON_UTF8}, /* an overlong NUL */
        {BYTES("\"\xc0\xaf\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xc1\xbf\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xe0\x80\xaf\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xe0\x9f\xbf\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xf0\x80\x80\xaf\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xf0\x8f\xbf\xbf\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xf4\x90\x80\x80\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xf5\x80\x80\x80\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xf8\x88\x80\x80\x80\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xfc\x83\xbf\xbf\xbf\xbf\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xfe\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xff\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xc3\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xc3(\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xe2\x82\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xe2\x28\xa1\""), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"ab\xf0\x9f\x98\""), TN_EFORMAT, 3, TN_JSON_UTF8},
        {BYTES("\"\xe9t\xe9\""), TN_EFORMAT, 1, TN_JSON_UTF8}, /* Latin-1 */
        {BYTES("{\"\xff\":1}"), TN_EFORMAT, 2, TN_JSON_UTF8},
        /* cut off: TN_ETRUNC where it could still have become a character, else not */
        {BYTES("\"\xc3"), TN_ETRUNC, 2, TN_JSON_ENDS},
        {BYTES("\"\xf4\x8f\xbf"), TN_ETRUNC, 4, TN_JSON_ENDS},
        {BYTES("\"\xe0"), TN_ETRUNC, 2, TN_JSON_ENDS},
        {BYTES("\"\xed\x9f"), TN_ETRUNC, 3, TN_JSON_ENDS},
        {BYTES("\"\xe0\x9f"), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xed\xa0"), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xf0\x8f"), TN_EFORMAT, 1, TN_JSON_UTF8},
        {BYTES("\"\xf4\x90"), TN_EFORMAT, 1, TN_JSON_UTF8},
    };

    (void)state;
    check_bad(t, COUNT(t));
}

static void e14_a_key_that_is_there_twice_is_refused(void **state)
{
    static const struct bad t[] = {
        {BYTES("{\"a\":1,\"a\":1}"), TN_EFORMAT, 7, TN_JSON_DUPLICATE},
        {BYTES("{\"a\":1,\"b\":2,\"a\":3}"), TN_EFORMAT, 13, TN_JSON_DUPLICATE},
        {BYTES("{\"\":1,\"\":1}"), TN_EFORMAT, 6, TN_JSON_DUPLICATE},
        {BYTES("{\"a\":1,\"\\u0061\":2}"), TN_EFORMAT, 7, TN_JSON_DUPLICATE},
        {BYTES("{\"\\u00E9\":1,\"\xc3\xa9\":2}"), TN_EFORMAT, 12, TN_JSON_DUPLICATE},
        {BYTES("{\"\\ud83d\\ude00\":1,\"\xf0\x9f\x98\x80\":2}"), TN_EFORMAT, 18, TN_JSON_DUPLICATE},
        {BYTES("{\"\\/\":1,\"/\":2}"), TN_EFORMAT, 8, TN_JSON_DUPLICATE},
        {BYTES("{\"\\u0000\":1,\"\\u0000\":2}"), TN_EFORMAT, 12, TN_JSON_DUPLICATE},
        {BYTES("[{\"x\":{\"a\":[{},[]],\"b\":{\"a\":1},\"a\":2}}]"), TN_EFORMAT, 31,
         TN_JSON_DUPLICATE},
        {BYTES("{\"a\":{\"a\":{}},\"a\":{}}"), TN_EFORMAT, 14, TN_JSON_DUPLICATE},
    };
    static const char *const fine[] = {
        "{\"a\":{\"a\":{\"a\":[{\"a\":1},{\"a\":2}]}}}",
        "{\"a\":1,\"A\":2,\"aa\":3,\"a \":4,\"\":5,\"a\\u0000\":6}",
        "{\"\xc3\xa9\":1,\"e\xcc\x81\":2}", /* another form of it is another key */
        "{\"x\":\"y\",\"y\":\"x\"}",
        "{\"a\":\"b\",\"c\":\"b\",\"b\":\"a\"}",
    };
    struct tn_json j;

    (void)state;
    check_bad(t, COUNT(t));
    for (size_t i = 0; i < COUNT(fine); i++)
        assert_int_equal(parse(&j, fine[i]), TN_OK);
}

static void nothing_is_no_document(void **state)
{
    static const struct bad t[] = {
        {BYTES(""), TN_ETRUNC, 0, TN_JSON_EMPTY},
        {BYTES(" "), TN_ETRUNC, 1, TN_JSON_EMPTY},
        {BYTES(" \t\r\n"), TN_ETRUNC, 4, TN_JSON_EMPTY},
    };
    struct tn_json j;

    (void)state;
    check_bad(t, COUNT(t));
    assert_int_equal(tn_json_parse(&j, NULL, 0, NULL, 0), TN_ETRUNC);
    assert_int_equal(j.detail, TN_JSON_EMPTY);
}

/* What RFC 8259 allows, whatever it looks like. */
static void what_is_json_is_taken(void **state)
{
    static const struct {
        const char *text;
        enum tn_json_type type;
        uint32_t count, size;
    } t[] = {
        {"[]", TN_JSON_ARRAY, 1, 0},
        {" [ ] ", TN_JSON_ARRAY, 1, 0},
        {"{}", TN_JSON_OBJECT, 1, 0},
        {"\r\n{\t}\n", TN_JSON_OBJECT, 1, 0},
        {"null", TN_JSON_NULL, 1, 0},
        {"true", TN_JSON_TRUE, 1, 0},
        {"false", TN_JSON_FALSE, 1, 0},
        {"0", TN_JSON_NUMBER, 1, 0},
        {"-0", TN_JSON_NUMBER, 1, 0},
        {"-0.0", TN_JSON_NUMBER, 1, 0},
        {"-0e0", TN_JSON_NUMBER, 1, 0},
        {"10", TN_JSON_NUMBER, 1, 0},
        {"0e+1", TN_JSON_NUMBER, 1, 0},
        {"1E22", TN_JSON_NUMBER, 1, 0},
        {"1e400", TN_JSON_NUMBER, 1, 0},
        {"-1e+9999", TN_JSON_NUMBER, 1, 0},
        {"1.5e-99999999999", TN_JSON_NUMBER, 1, 0},
        {"123123123123123123123123123123", TN_JSON_NUMBER, 1, 0},
        {"0.00000000000000000000000000000000000000001", TN_JSON_NUMBER, 1, 0},
        {"\"\"", TN_JSON_STRING, 1, 0},
        {"\"\x7f\"", TN_JSON_STRING, 1, 1},
        {"\"/\"", TN_JSON_STRING, 1, 1},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", TN_JSON_STRING, 1, 8},
        {"\"\\u0000\"", TN_JSON_STRING, 1, 1},
        {"\"\\uaBcD\"", TN_JSON_STRING, 1, 3},
        {"\"\\uD7FF\\uE000\\uFFFE\\uffff\"", TN_JSON_STRING, 1, 12},
        {"\"\\u007f\\u0080\\u07ff\\u0800\"", TN_JSON_STRING, 1, 8},
        {"\"\\ud800\\udc00\\uDBFF\\uDFFF\"", TN_JSON_STRING, 1, 8},
        {"\"\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\"", TN_JSON_STRING, 1, 10},
        {"\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80\"", TN_JSON_STRING, 1, 14},
        {"\"\xef\xbb\xbf\xe2\x80\xa8\"", TN_JSON_STRING, 1, 6}, /* U+FEFF, U+2028 */
        {"\"\\\\u0000\"", TN_JSON_STRING, 1, 6},
        {"[1,2,3]", TN_JSON_ARRAY, 4, 3},
        {"[[],[[]],{}]", TN_JSON_ARRAY, 5, 3},
        {"[null , 1,\"1\", {}]", TN_JSON_ARRAY, 5, 4},
        {"{\"a\":1}", TN_JSON_OBJECT, 3, 1},
        {"{ \"a\" : [ 1 , { \"b\" : null } ] , \"c\" : { } }", TN_JSON_OBJECT, 9, 2},
        {"{\"\":0}", TN_JSON_OBJECT, 3, 1},
        {"{\"asd\":\"sdf\", \"dfg\":\"fgh\"}", TN_JSON_OBJECT, 5, 2},
        {"[1e1,0.1e-1,-1,1.0]", TN_JSON_ARRAY, 5, 4},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++) {
        struct tn_json j;

        if (parse(&j, t[i].text) != TN_OK)
            fail_msg("%s: at %u, detail %u", t[i].text, j.at, j.detail);
        assert_int_equal(tn_json_type(&j, TN_JSON_ROOT), t[i].type);
        assert_int_equal(j.count, t[i].count);
        assert_int_equal(tokens[0].size, t[i].size);
        assert_int_equal(tokens[0].next, j.count);
    }
}

static void tokens_are_as_stated(void **state)
{
    static const char text[] = " {\"k\":[-1.5, \"\"], \"\\u006b2\":true,\"n\":{} }\n";
    static const struct tn_json_token want[] = {
        {TN_JSON_OBJECT, 1, 40, 3, 9}, {TN_JSON_STRING, 3, 1, 1, 2},  {TN_JSON_ARRAY, 6, 10, 2, 5},
        {TN_JSON_NUMBER, 7, 4, 0, 4},  {TN_JSON_STRING, 14, 0, 0, 5}, {TN_JSON_STRING, 19, 7, 2, 6},
        {TN_JSON_TRUE, 28, 4, 0, 7},   {TN_JSON_STRING, 34, 1, 1, 8}, {TN_JSON_OBJECT, 37, 2, 0, 9},
    };
    struct tn_json j;

    (void)state;
    assert_int_equal(parse(&j, text), TN_OK);
    assert_int_equal(j.count, COUNT(want));
    for (size_t i = 0; i < COUNT(want); i++) {
        assert_int_equal(tokens[i].type, want[i].type);
        assert_int_equal(tokens[i].start, want[i].start);
        assert_int_equal(tokens[i].len, want[i].len);
        assert_int_equal(tokens[i].size, want[i].size);
        assert_int_equal(tokens[i].next, want[i].next);
    }
}

/* -- limits -- */

static char *nested(unsigned depth, const char *open, const char *inside, const char *shut)
{
    size_t a = strlen(open), b = strlen(shut);
    char *text = malloc(depth * (a + b) + strlen(inside) + 1), *p = text;

    for (unsigned i = 0; i < depth; i++, p += a)
        memcpy(p, open, a);
    p += sprintf(p, "%s", inside);
    for (unsigned i = 0; i < depth; i++, p += b)
        memcpy(p, shut, b);
    *p = 0;
    return text;
}

static void e14_depth_is_capped(void **state)
{
    static const struct {
        const char *open, *shut;
    } t[] = {{"[", "]"}, {"{\"a\":", "}"}, {"[{\"\":", "}]"}};

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++) {
        unsigned levels = i == 2 ? 2 : 1;
        char *text = nested(TN_JSON_DEPTH / levels, t[i].open, "1", t[i].shut);
        struct tn_json j;

        assert_int_equal(parse(&j, text), TN_OK);
        free(text);
        text = nested(TN_JSON_DEPTH / levels, t[i].open, "[]", t[i].shut);
        assert_int_equal(parse(&j, text), TN_ENOFIT);
        assert_int_equal(j.detail, TN_JSON_TOO_DEEP);
        assert_int_equal(j.at, TN_JSON_DEPTH / levels * strlen(t[i].open));
        free(text);
    }
}

static void e14_a_million_brackets_are_no_recursion(void **state)
{
    static char text[1000000];
    struct tn_json j;

    (void)state;
    memset(text, '[', sizeof(text));
    assert_int_equal(tn_json_parse(&j, text, sizeof(text), tokens, CAP), TN_ENOFIT);
    assert_int_equal(j.detail, TN_JSON_TOO_DEEP);
    assert_int_equal(j.at, TN_JSON_DEPTH);
}

static void e14_size_is_capped(void **state)
{
    char *text = malloc(TN_JSON_BYTES + 1);
    struct tn_json j;

    (void)state;
    memset(text, ' ', TN_JSON_BYTES + 1);
    text[TN_JSON_BYTES - 1] = '0';
    assert_int_equal(tn_json_parse(&j, text, TN_JSON_BYTES, tokens, CAP), TN_OK);
    assert_int_equal(tokens[0].start, TN_JSON_BYTES - 1);
    assert_int_equal(tn_json_parse(&j, text, TN_JSON_BYTES + 1, tokens, CAP), TN_ENOFIT);
    assert_int_equal(j.detail, TN_JSON_TOO_LARGE);
    assert_int_equal(tn_json_parse(&j, text, SIZE_MAX, tokens, CAP), TN_ENOFIT);
    assert_int_equal(j.count, 0);
    text[0] = '"';
    memset(text + 1, 'x', TN_JSON_BYTES - 2);
    text[TN_JSON_BYTES - 1] = '"';
    assert_int_equal(tn_json_parse(&j, text, TN_JSON_BYTES, tokens, CAP), TN_OK);
    assert_int_equal(tokens[0].size, TN_JSON_BYTES - 2);
    free(text);
}

static void e14_tokens_are_capped(void **state)
{
    static const char text[] = "{\"a\":[1,{\"b\":2}],\"c\":\"d\"}";
    static const uint32_t at[] = {0, 2, 5, 6, 8, 10, 13, 18, 22};
    struct tn_json j;

    (void)state;
    for (size_t cap = 0; cap < COUNT(at); cap++) {
        struct tn_json_token *exact = malloc(cap ? cap * sizeof(*exact) : 1);

        assert_int_equal(tn_json_parse(&j, text, sizeof(text) - 1, exact, cap), TN_ENOFIT);
        assert_int_equal(j.detail, TN_JSON_TOO_MANY);
        assert_int_equal(j.at, at[cap]);
        free(exact);
    }
    assert_int_equal(tn_json_parse(&j, text, sizeof(text) - 1, tokens, COUNT(at)), TN_OK);
    assert_int_equal(tn_json_parse(&j, text, sizeof(text) - 1, tokens, SIZE_MAX), TN_OK);
}

static void e14_members_are_capped(void **state)
{
    char *text = malloc(16 * (TN_JSON_MEMBERS + 1)), *p = text;
    struct tn_json_token *many = malloc(2 * (TN_JSON_MEMBERS + 2) * sizeof(*many));
    struct tn_json_object o;
    struct tn_json j;
    char key[16];
    uint32_t v;

    (void)state;
    p += sprintf(p, "{");
    for (unsigned i = 0; i < TN_JSON_MEMBERS; i++)
        p += sprintf(p, "\"%u\":%u,", i, i);
    p[-1] = '}';
    assert_int_equal(tn_json_parse(&j, text, (size_t)(p - text), many, 2 * TN_JSON_MEMBERS + 1),
                     TN_OK);
    assert_int_equal(many[0].size, TN_JSON_MEMBERS);
    tn_json_open(&o, &j, TN_JSON_ROOT);
    for (unsigned i = 0; i < TN_JSON_MEMBERS; i++) {
        sprintf(key, "%u", i);
        assert_true(tn_json_take_u32(&o, key, TN_JSON_MUST, i, i, &v));
    }
    assert_int_equal(tn_json_close(&o), TN_OK);
    p[-1] = ',';
    p += sprintf(p, "\"last\":0}");
    assert_int_equal(tn_json_parse(&j, text, (size_t)(p - text), many, 2 * TN_JSON_MEMBERS + 3),
                     TN_ENOFIT);
    assert_int_equal(j.detail, TN_JSON_TOO_WIDE);
    assert_memory_equal(text + j.at, "\"last\"", 6);
    free(text);
    free(many);
}

/* An array has as many elements as there are tokens. */
static void an_array_may_be_longer(void **state)
{
    char text[2 * 500 + 1];
    uint32_t value = 0, n = 0;
    struct tn_json j;

    (void)state;
    memset(text, 0, sizeof(text));
    for (unsigned i = 0; i < 500; i++)
        memcpy(text + 2 * i, i ? ",7" : "[7", 2);
    text[1000] = ']';
    assert_int_equal(parse_in(&j, text, 1001, CAP), TN_OK);
    assert_int_equal(tokens[0].size, 500);
    while (tn_json_next(&j, TN_JSON_ROOT, &value))
        n++;
    assert_int_equal(n, 500);
    assert_int_equal(tn_json_element(&j, TN_JSON_ROOT, 499), 500);
    assert_int_equal(tn_json_element(&j, TN_JSON_ROOT, 500), TN_JSON_ABSENT);
}

/* -- documents that are spoiled -- */

static const char whole[] =
    "{\"a\\u00e9\\ud83d\\ude00\": [1, -2.5e+3, true, false, null, \"\xc3\xa9"
    "\xe2\x82\xac\xf0\x9f\x98\x80\\n\"],\n \"b\": {\"c\": {}, \"d\": []}}";

static void a_document_cut_at_any_byte_is_truncated(void **state)
{
    struct tn_json j;

    (void)state;
    assert_int_equal(parse(&j, whole), TN_OK);
    for (size_t len = 0; len < sizeof(whole) - 1; len++) {
        assert_int_equal(parse_in(&j, whole, len, CAP), TN_ETRUNC);
        assert_int_equal(j.detail, len ? TN_JSON_ENDS : TN_JSON_EMPTY);
        assert_int_equal(j.at, len);
        assert_int_equal(j.count, 0);
    }
}

/* All that a reader of tokens relies on. */
static void check_tokens(const struct tn_json *j)
{
    for (uint32_t i = 0; i < j->count; i++) {
        const struct tn_json_token *t = &j->tokens[i];
        uint32_t value = 0, n = 0;

        assert_true(t->start <= j->len && t->len <= j->len - t->start);
        assert_true(t->next > i && t->next <= j->count);
        while (tn_json_next(j, i, &value)) {
            assert_true(value > i && value < t->next);
            n++;
        }
        if (t->type == TN_JSON_ARRAY || t->type == TN_JSON_OBJECT)
            assert_int_equal(n, t->size);
    }
}

static void a_document_with_any_byte_replaced_holds_or_is_refused(void **state)
{
    unsigned taken = 0, refused = 0;

    (void)state;
    for (size_t at = 0; at < sizeof(whole) - 1; at++) {
        for (unsigned byte = 0; byte < 256; byte++) {
            char text[sizeof(whole)];
            struct tn_json j;
            int err;

            memcpy(text, whole, sizeof(whole));
            text[at] = (char)byte;
            err = parse_in(&j, text, sizeof(whole) - 1, CAP);
            if (err == TN_OK) {
                check_tokens(&j);
                taken++;
                assert_int_equal(j.detail, TN_JSON_FINE);
            } else {
                assert_int_equal(j.count, 0);
                assert_true(j.detail != TN_JSON_FINE);
                assert_true(j.at <= sizeof(whole) - 1);
                refused++;
            }
            /* a control character that is no white space is nowhere right */
            if (byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r')
                assert_true(err < 0);
        }
    }
    assert_true(taken > 1000 && refused > 1000);
}

/* Every byte, in a string and after a backslash. */
static void every_byte_in_a_string_is_taken_or_refused_as_stated(void **state)
{
    (void)state;
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[] = {'"', (char)byte, '"'}, escaped[] = {'"', '\\', (char)byte, '"'};
        bool fine = byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
        struct tn_json j;

        assert_int_equal(parse_in(&j, text, 3, CAP) == TN_OK, fine);
        fine = byte != 0 && strchr("\"\\/bfnrt", (int)byte);
        assert_int_equal(parse_in(&j, escaped, 4, CAP) == TN_OK, fine);
    }
}

/* Every code point, as it is and escaped, is the same string; surrogates are none. */
static void every_code_point_is_a_character_but_surrogates(void **state)
{
    (void)state;
    for (uint32_t c = 1; c <= 0x110000; c += c < 0x11000 ? 1 : 0xfff) {
        bool fine = c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
        char plain[8] = {'"'}, escaped[20], got[8];
        struct tn_json j;
        unsigned n = 1;

        if (c < 0x20 || c == '"' || c == '\\')
            continue;
        if (c < 0x80) {
            plain[n++] = (char)c;
        } else {
            unsigned more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;

            plain[n++] = (char)(0xff00u >> (more + 1) | c >> 6 * more);
            while (more-- > 0)
                plain[n++] = (char)(0x80 | (c >> 6 * more & 0x3f));
        }
        plain[n++] = '"';
        assert_int_equal(parse_in(&j, plain, n, CAP), fine ? TN_OK : TN_EFORMAT);
        if (!fine)
            continue;
        assert_int_equal(tn_json_get_string(&j, 0, got, sizeof(got)), n - 2);
        assert_memory_equal(got, plain + 1, n - 2);
        if (c < 0x10000)
            sprintf(escaped, "\"\\u%04x\"", c);
        else
            sprintf(escaped, "\"\\u%04X\\u%04X\"", 0xd800 + ((c - 0x10000) >> 10),
                    0xdc00 + ((c - 0x10000) & 0x3ff));
        assert_int_equal(parse(&j, escaped), TN_OK);
        assert_int_equal(tokens[0].size, n - 2);
        assert_int_equal(tn_json_get_string(&j, 0, got, sizeof(got)), n - 2);
        assert_memory_equal(got, plain + 1, n - 2);
        assert_true(tn_json_is(&j, 0, got));
    }
}

/* -- values -- */

static void integers_are_exact_and_in_range(void **state)
{
    static const struct {
        const char *text;
        int u_err, i_err;
        uint64_t u;
        int64_t i;
    } t[] = {
        {"0", TN_OK, TN_OK, 0, 0},
        {"-0", TN_OK, TN_OK, 0, 0},
        {"7", TN_OK, TN_OK, 7, 7},
        {"-1", TN_ERANGE, TN_OK, 0, -1},
        {"9223372036854775807", TN_OK, TN_OK, INT64_MAX, INT64_MAX},
        {"9223372036854775808", TN_OK, TN_ERANGE, 1ull << 63, 0},
        {"-9223372036854775807", TN_ERANGE, TN_OK, 0, -INT64_MAX},
        {"-9223372036854775808", TN_ERANGE, TN_OK, 0, INT64_MIN},
        {"-9223372036854775809", TN_ERANGE, TN_ERANGE, 0, 0},
        {"18446744073709551615", TN_OK, TN_ERANGE, UINT64_MAX, 0},
        {"18446744073709551616", TN_ERANGE, TN_ERANGE, 0, 0},
        {"18446744073709551619", TN_ERANGE, TN_ERANGE, 0, 0},
        {"18446744073709551620", TN_ERANGE, TN_ERANGE, 0, 0},
        {"20000000000000000000", TN_ERANGE, TN_ERANGE, 0, 0},
        {"36893488147419103233", TN_ERANGE, TN_ERANGE, 0, 0}, /* 2^65 + 1 */
        {"100000000000000000000000000000000000000", TN_ERANGE, TN_ERANGE, 0, 0},
        {"1.0", TN_EFORMAT, TN_EFORMAT, 0, 0},
        {"1e2", TN_EFORMAT, TN_EFORMAT, 0, 0},
        {"-1E2", TN_EFORMAT, TN_EFORMAT, 0, 0},
        {"1e400", TN_EFORMAT, TN_EFORMAT, 0, 0},
        {"0e0", TN_EFORMAT, TN_EFORMAT, 0, 0},
        {"99999999999999999999999999.5", TN_EFORMAT, TN_EFORMAT, 0, 0},
        {"\"1\"", TN_EFORMAT, TN_EFORMAT, 0, 0},
        {"true", TN_EFORMAT, TN_EFORMAT, 0, 0},
        {"null", TN_EFORMAT, TN_EFORMAT, 0, 0},
        {"[1]", TN_EFORMAT, TN_EFORMAT, 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++) {
        struct tn_json j;
        uint64_t u = 99;
        int64_t v = 99;

        assert_int_equal(parse(&j, t[i].text), TN_OK);
        assert_int_equal(tn_json_get_u64(&j, 0, &u), t[i].u_err);
        assert_int_equal(tn_json_get_i64(&j, 0, &v), t[i].i_err);
        assert_true(u == t[i].u && v == t[i].i);
    }
}

static void e14_a_nul_in_a_path_is_refused(void **state)
{
    static const char *const t[] = {"\"\\u0000\"", "\"/dev/vda\\u0000.img\"", "\"x\\u0000\""};
    char buf[64];

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++) {
        struct tn_json j;

        memset(buf, 'x', sizeof(buf));
        assert_int_equal(parse(&j, t[i]), TN_OK);
        assert_int_equal(tn_json_get_string(&j, 0, buf, sizeof(buf)), TN_EFORMAT);
        assert_int_equal(buf[0], 0);
        assert_false(tn_json_is(&j, 0, ""));
        assert_false(tn_json_is(&j, 0, "/dev/vda"));
        assert_false(tn_json_is(&j, 0, "x"));
    }
}

static void a_string_fits_with_its_nul_or_is_refused(void **state)
{
    static const struct {
        const char *text, *want;
    } t[] = {
        {"\"\"", ""},
        {"\"abc\"", "abc"},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"},
        {"\"x\\u00e9y\\u20acz\\ud83d\\ude00\"", "x\xc3\xa9y\xe2\x82\xacz\xf0\x9f\x98\x80"},
        {"\"\xc3\xa9\xe2\x82\xac\"", "\xc3\xa9\xe2\x82\xac"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++) {
        size_t need = strlen(t[i].want) + 1;
        struct tn_json j;

        assert_int_equal(parse(&j, t[i].text), TN_OK);
        assert_int_equal(tokens[0].size, need - 1);
        assert_int_equal(tn_json_get_string(&j, 0, NULL, 0), TN_ENOFIT);
        for (size_t cap = 1; cap <= need + 1; cap++) {
            char *buf = malloc(cap);

            buf[0] = 'x';
            assert_int_equal(tn_json_get_string(&j, 0, buf, cap),
                             cap < need ? (int64_t)TN_ENOFIT : (int64_t)need - 1);
            assert_string_equal(buf, cap < need ? "" : t[i].want);
            free(buf);
        }
        assert_true(tn_json_is(&j, 0, t[i].want));
        assert_false(tn_json_is(&j, 0, "abcd"));
        assert_false(tn_json_is(&j, 0, "ab"));
    }
}

static void members_and_elements_are_found(void **state)
{
    static const char text[] =
        "{\"a\": [10, [11], {\"a\": 12}], \"\\u0062\": {\"c\": 13}, \"\": 14}";
    uint32_t a, value = 0, n = 0;
    struct tn_json j;
    char key[8];
    uint64_t v;

    (void)state;
    assert_int_equal(parse(&j, text), TN_OK);
    a = tn_json_member(&j, TN_JSON_ROOT, "a");
    assert_int_equal(tn_json_type(&j, a), TN_JSON_ARRAY);
    assert_int_equal(tn_json_get_u64(&j, tn_json_element(&j, a, 0), &v), TN_OK);
    assert_int_equal(v, 10);
    v = tn_json_element(&j, tn_json_element(&j, a, 1), 0);
    assert_int_equal(tn_json_get_u64(&j, (uint32_t)v, &v), TN_OK);
    assert_int_equal(v, 11);
    v = tn_json_member(&j, tn_json_element(&j, a, 2), "a");
    assert_int_equal(tn_json_get_u64(&j, (uint32_t)v, &v), TN_OK);
    assert_int_equal(v, 12);
    v = tn_json_member(&j, tn_json_member(&j, TN_JSON_ROOT, "b"), "c");
    assert_int_equal(tn_json_get_u64(&j, (uint32_t)v, &v), TN_OK);
    assert_int_equal(v, 13);
    assert_int_equal(tn_json_get_u64(&j, tn_json_member(&j, 0, ""), &v), TN_OK);
    assert_int_equal(v, 14);
    while (tn_json_next(&j, TN_JSON_ROOT, &value)) {
        static const char *const keys[] = {"a", "b", ""};

        assert_true(tn_json_get_string(&j, value - 1, key, sizeof(key)) >= 0);
        assert_string_equal(key, keys[n++]);
    }
    assert_int_equal(n, 3);
}

/* A value that is not there has nothing, and leads to nothing. */
static void what_is_not_there_is_of_no_type(void **state)
{
    static const uint32_t none[] = {TN_JSON_ABSENT, 5, 1000, TN_JSON_ABSENT - 1};
    struct tn_json j;
    uint64_t u;
    int64_t i;
    bool b;
    char buf[4];

    (void)state;
    assert_int_equal(parse(&j, "{\"a\": [true]}"), TN_OK);
    assert_int_equal(tn_json_member(&j, TN_JSON_ROOT, "b"), TN_JSON_ABSENT);
    assert_int_equal(tn_json_member(&j, 2, "a"), TN_JSON_ABSENT);
    assert_int_equal(tn_json_element(&j, TN_JSON_ROOT, 0), TN_JSON_ABSENT);
    assert_int_equal(tn_json_element(&j, 2, 1), TN_JSON_ABSENT);
    assert_int_equal(tn_json_element(&j, 2, UINT32_MAX), TN_JSON_ABSENT);
    for (size_t n = 0; n < COUNT(none); n++) {
        uint32_t value = 0;

        assert_int_equal(tn_json_type(&j, none[n]), TN_JSON_NONE);
        assert_int_equal(tn_json_member(&j, none[n], "a"), TN_JSON_ABSENT);
        assert_int_equal(tn_json_element(&j, none[n], 0), TN_JSON_ABSENT);
        assert_false(tn_json_next(&j, none[n], &value));
        value = none[n];
        assert_false(tn_json_next(&j, TN_JSON_ROOT, &value));
        assert_false(tn_json_is(&j, none[n], "a"));
        assert_int_equal(tn_json_get_u64(&j, none[n], &u), TN_EFORMAT);
        assert_int_equal(tn_json_get_i64(&j, none[n], &i), TN_EFORMAT);
        assert_int_equal(tn_json_get_bool(&j, none[n], &b), TN_EFORMAT);
        assert_int_equal(tn_json_get_string(&j, none[n], buf, 4), TN_EFORMAT);
    }
    assert_int_equal(tn_json_get_bool(&j, 3, &b), TN_OK);
    assert_true(b);
}

/* -- fields -- */

struct machine {
    uint32_t vcpus, mib, pages, drives;
    uint64_t seed;
    bool smt;
    char path[8];
    uint64_t rate;
};

static const char *const pages[] = {"None", "2M", "1G"};

static int read_machine(struct tn_json_object *o, const struct tn_json *j, struct machine *m)
{
    struct tn_json_object limit;

    tn_json_open(o, j, TN_JSON_ROOT);
    tn_json_take_u32(o, "vcpus", TN_JSON_MUST, 1, 32, &m->vcpus);
    tn_json_take_u32(o, "mib", TN_JSON_MAY, 16, UINT32_MAX, &m->mib);
    tn_json_take_u64(o, "seed", TN_JSON_MAY | TN_JSON_OR_NULL, 0, UINT64_MAX, &m->seed);
    tn_json_take_bool(o, "smt", TN_JSON_MAY, &m->smt);
    tn_json_take_choice(o, "pages", TN_JSON_MAY, pages, COUNT(pages), &m->pages);
    tn_json_take_string(o, "path", TN_JSON_MUST | TN_JSON_OR_NULL, m->path, sizeof(m->path));
    tn_json_take_array(o, "drives", TN_JSON_MAY, 1, 2, &m->drives);
    if (tn_json_take_object(o, "limit", TN_JSON_MAY, &limit)) {
        tn_json_take_u64(&limit, "rate", TN_JSON_MUST, 0, 100, &m->rate);
        if (tn_json_close(&limit) < 0)
            tn_json_refuse(o, "limit");
    }
    return tn_json_close(o);
}

static void a_field_that_is_wrong_is_named(void **state)
{
    static const struct {
        const char *text;
        int err;
        uint32_t detail, at;
        const char *key;
        uint64_t min, max;
    } t[] = {
        {"[]", TN_EFORMAT, TN_JSON_NOT_OBJECT, 0, NULL, 0, 0},
        {" 1", TN_EFORMAT, TN_JSON_NOT_OBJECT, 1, NULL, 0, 0},
        {"\"a\"", TN_EFORMAT, TN_JSON_NOT_OBJECT, 0, NULL, 0, 0},
        {" {}", TN_EFORMAT, TN_JSON_MISSING, 1, "vcpus", 0, 0},
        {"{\"VCPUS\":1}", TN_EFORMAT, TN_JSON_MISSING, 0, "vcpus", 0, 0},
        {"{\"vcpus\":0}", TN_ERANGE, TN_JSON_RANGE, 9, "vcpus", 1, 32},
        {"{\"vcpus\":33}", TN_ERANGE, TN_JSON_RANGE, 9, "vcpus", 1, 32},
        {"{\"vcpus\":-1}", TN_ERANGE, TN_JSON_RANGE, 9, "vcpus", 1, 32},
        {"{\"vcpus\":4294967297}", TN_ERANGE, TN_JSON_RANGE, 9, "vcpus", 1, 32},
        {"{\"vcpus\":18446744073709551617}", TN_ERANGE, TN_JSON_RANGE, 9, "vcpus", 1, 32},
        {"{\"vcpus\":1.0}", TN_EFORMAT, TN_JSON_NOT_INTEGER, 9, "vcpus", 1, 32},
        {"{\"vcpus\":1e400}", TN_EFORMAT, TN_JSON_NOT_INTEGER, 9, "vcpus", 1, 32},
        {"{\"vcpus\":\"1\"}", TN_EFORMAT, TN_JSON_NOT_NUMBER, 9, "vcpus", 1, 32},
        {"{\"vcpus\":null}", TN_EFORMAT, TN_JSON_NOT_NUMBER, 9, "vcpus", 1, 32},
        {"{\"vcpus\":1,\"mib\":15}", TN_ERANGE, TN_JSON_RANGE, 17, "mib", 16, UINT32_MAX},
        {"{\"vcpus\":1}", TN_EFORMAT, TN_JSON_MISSING, 0, "path", 0, 0},
        {"{\"vcpus\":1,\"path\":null}", TN_EFORMAT, TN_JSON_MISSING, 0, "path", 0, 0},
        {"{\"vcpus\":1,\"path\":1}", TN_EFORMAT, TN_JSON_NOT_STRING, 18, "path", 0, 0},
        {"{\"vcpus\":1,\"path\":\"12345678\"}", TN_ERANGE, TN_JSON_LONG, 18, "path", 0, 7},
        {"{\"vcpus\":1,\"path\":\"a\\u0000\"}", TN_EFORMAT, TN_JSON_HAS_NUL, 18, "path", 0, 0},
        {"{\"vcpus\":1,\"smt\":0}", TN_EFORMAT, TN_JSON_NOT_BOOL, 17, "smt", 0, 0},
        {"{\"vcpus\":1,\"smt\":null}", TN_EFORMAT, TN_JSON_NOT_BOOL, 17, "smt", 0, 0},
        {"{\"vcpus\":1,\"pages\":2}", TN_EFORMAT, TN_JSON_NOT_STRING, 19, "pages", 0, 0},
        {"{\"vcpus\":1,\"pages\":\"2m\"}", TN_ERANGE, TN_JSON_CHOICE, 19, "pages", 0, 0},
        {"{\"vcpus\":1,\"path\":\"\",\"drives\":{}}", TN_EFORMAT, TN_JSON_NOT_ARRAY, 30, "drives",
         1, 2},
        {"{\"vcpus\":1,\"path\":\"\",\"drives\":[]}", TN_ERANGE, TN_JSON_COUNT, 30, "drives", 1, 2},
        {"{\"vcpus\":1,\"path\":\"\",\"drives\":[1,2,3]}", TN_ERANGE, TN_JSON_COUNT, 30, "drives",
         1, 2},
        {"{\"vcpus\":1,\"path\":\"\",\"limit\":[]}", TN_EFORMAT, TN_JSON_NOT_OBJECT, 29, "limit", 0,
         0},
        {"{\"vcpus\":1,\"path\":\"\",\"limit\":{}}", TN_ERANGE, TN_JSON_REFUSED, 29, "limit", 0, 0},
        {"{\"vcpus\":1,\"path\":\"\",\"more\":1}", TN_EFORMAT, TN_JSON_UNKNOWN, 21, NULL, 0, 0},
        {"{\"more\":1,\"vcpus\":1,\"path\":\"\"}", TN_EFORMAT, TN_JSON_UNKNOWN, 1, NULL, 0, 0},
        /* the first one asked for is the one that is named */
        {"{\"more\":1,\"smt\":1,\"vcpus\":99}", TN_ERANGE, TN_JSON_RANGE, 26, "vcpus", 1, 32},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++) {
        struct tn_json_object o;
        struct machine m;
        struct tn_json j;

        memset(&m, 0, sizeof(m));
        assert_int_equal(parse(&j, t[i].text), TN_OK);
        if (read_machine(&o, &j, &m) != t[i].err || o.detail != t[i].detail || o.at != t[i].at)
            fail_msg("%s: %d, detail %u at %u", t[i].text, o.err, o.detail, o.at);
        assert_int_equal(o.err, t[i].err);
        assert_true(o.min == t[i].min && o.max == t[i].max);
        if (t[i].key)
            assert_string_equal(o.key, t[i].key);
        else
            assert_null(o.key);
        if (o.detail == TN_JSON_UNKNOWN)
            assert_true(tn_json_is(&j, o.name, "more"));
        else
            assert_int_equal(o.name, TN_JSON_ABSENT);
    }
}

static void fields_are_taken_and_defaults_stay(void **state)
{
    struct machine m = {9, 9, 9, 9, 9, true, "dflt", 9};
    struct tn_json_object o;
    struct tn_json j;

    (void)state;
    assert_int_equal(parse(&j, "{\"path\":\"x\",\"seed\":null,\"vcpus\":32}"), TN_OK);
    assert_int_equal(read_machine(&o, &j, &m), TN_OK);
    assert_true(m.vcpus == 32 && m.mib == 9 && m.pages == 9 && m.seed == 9 && m.smt);
    assert_string_equal(m.path, "x");
    assert_int_equal(parse(&j, "{\"path\":\"1234567\",\"seed\":18446744073709551615,\"vcpus\":1,"
                               "\"smt\":false,\"mib\":4294967295,\"pa\\u0067es\":\"1\\u0047\","
                               "\"drives\":[1,{}],\"limit\":{\"rate\":100}}"),
                     TN_OK);
    assert_int_equal(read_machine(&o, &j, &m), TN_OK);
    assert_true(m.vcpus == 1 && m.mib == UINT32_MAX && m.pages == 2 && m.seed == UINT64_MAX);
    assert_string_equal(m.path, "1234567");
    assert_true(!m.smt && m.rate == 100);
    assert_int_equal(tn_json_type(&j, m.drives), TN_JSON_ARRAY);
}

static void the_first_mistake_sticks_and_nothing_is_taken_after_it(void **state)
{
    struct tn_json_object o;
    struct tn_json j;
    uint32_t v = 5;
    bool b = false;

    (void)state;
    assert_int_equal(parse(&j, "{\"a\":1,\"b\":true,\"c\":3}"), TN_OK);
    tn_json_open(&o, &j, TN_JSON_ROOT);
    assert_true(tn_json_take_value(&o, "c", TN_JSON_MUST, &v));
    assert_int_equal(v, 6);
    assert_false(tn_json_take_u32(&o, "a", TN_JSON_MUST, 2, 3, &v));
    assert_false(tn_json_take_bool(&o, "b", TN_JSON_MUST, &b));
    assert_false(tn_json_take_u32(&o, "nowhere", TN_JSON_MUST, 2, 3, &v));
    tn_json_refuse(&o, "b");
    assert_true(v == 6 && !b);
    assert_int_equal(tn_json_close(&o), TN_ERANGE);
    assert_string_equal(o.key, "a");
    assert_int_equal(o.detail, TN_JSON_RANGE);
}

/* -- the writer -- */

static void put(struct tn_json_writer *w, const char *script)
{
    for (; *script; script++) {
        switch (*script) {
        case '{':
            tn_json_put_object(w);
            break;
        case '[':
            tn_json_put_array(w);
            break;
        case '.':
            tn_json_put_end(w);
            break;
        case 'k':
            tn_json_put_key(w, "k");
            break;
        case 's':
            tn_json_put_string(w, "s");
            break;
        case 'n':
            tn_json_put_null(w);
            break;
        case 't':
            tn_json_put_bool(w, true);
            break;
        case 'f':
            tn_json_put_bool(w, false);
            break;
        case 'r':
            tn_json_put_raw(w, "[0.5]", 5);
            break;
        case 'e':
            tn_json_put_raw(w, "", 0);
            break;
        case '-':
            tn_json_put_i64(w, -1);
            break;
        case 'x':
            tn_json_put_text(w, "\xff", 1);
            break;
        default:
            tn_json_put_u64(w, (uint64_t)(*script - '0'));
            break;
        }
    }
}

static void what_makes_no_document_is_an_error(void **state)
{
    static const struct {
        const char *script;
        int err;
    } t[] = {
        {"", TN_ESTATE},        {"{", TN_ESTATE},     {"[", TN_ESTATE},     {".", TN_ESTATE},
        {"1.", TN_ESTATE},      {"12", TN_ESTATE},    {"[..", TN_ESTATE},   {"[.1", TN_ESTATE},
        {"k", TN_ESTATE},       {"k1", TN_ESTATE},    {"[k1.", TN_ESTATE},  {"{1.", TN_ESTATE},
        {"{k.", TN_ESTATE},     {"{kk1.", TN_ESTATE}, {"{k12.", TN_ESTATE}, {"{s1.", TN_ESTATE},
        {"{[..", TN_ESTATE},    {"{k1n.", TN_ESTATE}, {"{.[.", TN_ESTATE},  {"{k[k", TN_ESTATE},
        {"[{k1..k", TN_ESTATE}, {"x", TN_EINVAL},     {"[x.", TN_EINVAL},   {"e", TN_EINVAL},
        {"[x..", TN_EINVAL},    {"[..x", TN_ESTATE},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++) {
        struct tn_json_writer w;
        char buf[64];

        tn_json_begin(&w, buf, sizeof(buf));
        put(&w, t[i].script);
        if (tn_json_finish(&w) != t[i].err)
            fail_msg("%s: %d", t[i].script, (int)tn_json_finish(&w));
    }
}

static const struct {
    const char *script, *text;
} documents[] = {
    {"1", "1"},
    {"s", "\"s\""},
    {"[.", "[]"},
    {"{.", "{}"},
    {"[1[2.{k3.n.", "[1,[2],{\"k\":3},null]"},
    {"{k{k{...", "{\"k\":{\"k\":{}}}"},
    {"{k[{.[..k-.", "{\"k\":[{},[]],\"k\":-1}"},
    {"[tfn-0srr.", "[true,false,null,-1,0,\"s\",[0.5],[0.5]]"},
    {"[[[[...1.", "[[[[]]],1]"},
};

static void documents_are_written_into_exactly_their_room(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(documents); i++) {
        struct tn_json_writer w;
        char buf[64];
        int64_t len;

        tn_json_begin(&w, buf, sizeof(buf));
        put(&w, documents[i].script);
        len = tn_json_finish(&w);
        assert_int_equal(len, strlen(documents[i].text));
        assert_memory_equal(buf, documents[i].text, (size_t)len);
        for (size_t cap = 0; cap <= (size_t)len; cap++) {
            char *exact = malloc(cap ? cap : 1);

            tn_json_begin(&w, exact, cap);
            put(&w, documents[i].script);
            assert_int_equal(tn_json_finish(&w), cap < (size_t)len ? TN_ENOSPC : len);
            assert_true(w.len <= cap);
            free(exact);
        }
    }
}

static void numbers_are_written_exactly(void **state)
{
    static const struct {
        int64_t i;
        const char *text;
    } t[] = {
        {0, "0"},
        {-1, "-1"},
        {10, "10"},
        {INT64_MAX, "9223372036854775807"},
        {INT64_MIN, "-9223372036854775808"},
        {INT64_MIN + 1, "-9223372036854775807"},
    };
    struct tn_json_writer w;
    char buf[32];

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++) {
        tn_json_begin(&w, buf, sizeof(buf));
        tn_json_put_i64(&w, t[i].i);
        assert_int_equal(tn_json_finish(&w), strlen(t[i].text));
        assert_memory_equal(buf, t[i].text, strlen(t[i].text));
    }
    tn_json_begin(&w, buf, sizeof(buf));
    tn_json_put_u64(&w, UINT64_MAX);
    assert_int_equal(tn_json_finish(&w), 20);
    assert_memory_equal(buf, "18446744073709551615", 20);
}

static void what_is_written_nests_as_deep_as_what_is_read(void **state)
{
    struct tn_json_writer w;
    struct tn_json j;
    char buf[256];

    (void)state;
    for (unsigned depth = TN_JSON_DEPTH; depth <= TN_JSON_DEPTH + 1; depth++) {
        tn_json_begin(&w, buf, sizeof(buf));
        for (unsigned i = 0; i < depth; i++) {
            if (i % 3)
                tn_json_put_array(&w);
            else
                tn_json_put_object(&w);
            if (i % 3 == 0 && i + 1 < depth)
                tn_json_put_key(&w, "");
        }
        for (unsigned i = 0; i < depth; i++)
            tn_json_put_end(&w);
        if (depth > TN_JSON_DEPTH) {
            assert_int_equal(tn_json_finish(&w), TN_ENOSPC);
        } else {
            assert_true(tn_json_finish(&w) > 0);
            assert_int_equal(parse_in(&j, buf, w.len, CAP), TN_OK);
        }
    }
}

/* Every character, as a string and as a key, is read back as it was. */
static void strings_are_escaped_and_read_back(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 0x80; c++) {
        const uint8_t text[] = {'<', (uint8_t)c, '>', 0xc3, 0xa9, 0};
        struct tn_json_writer w;
        struct tn_json j;
        char buf[64], got[16];

        tn_json_begin(&w, buf, sizeof(buf));
        tn_json_put_array(&w);
        tn_json_put_text(&w, text, 5);
        if (c > 0) {
            tn_json_put_object(&w);
            tn_json_put_key(&w, (const char *)text);
            tn_json_put_string(&w, (const char *)text);
            tn_json_put_end(&w);
        }
        tn_json_put_end(&w);
        assert_true(tn_json_finish(&w) > 0);
        assert_int_equal(parse_in(&j, buf, w.len, CAP), TN_OK);
        assert_int_equal(tokens[1].size, 5);
        if (c == 0) {
            assert_int_equal(tn_json_get_string(&j, 1, got, sizeof(got)), TN_EFORMAT);
            continue;
        }
        assert_int_equal(tn_json_get_string(&j, 1, got, sizeof(got)), 5);
        assert_memory_equal(got, text, 6);
        assert_true(tn_json_is(&j, 3, (const char *)text));
        assert_true(tn_json_is(&j, tn_json_member(&j, 2, (const char *)text), got));
        /* no more escapes than there have to be */
        assert_int_equal(tokens[1].len - 4, c < 0x20 ? 6 : c == '"' || c == '\\' ? 2 : 1);
    }
}

static void text_that_is_no_utf8_is_not_written(void **state)
{
    static const char *const t[] = {"\xff", "a\xc3", "\xed\xa0\x80", "\xc0\x80",
                                    "\xf4\x90\x80\x80"};
    struct tn_json_writer w;
    char buf[64];

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++) {
        tn_json_begin(&w, buf, sizeof(buf));
        tn_json_put_string(&w, t[i]);
        assert_int_equal(tn_json_finish(&w), TN_EINVAL);
        tn_json_begin(&w, buf, sizeof(buf));
        tn_json_put_object(&w);
        tn_json_put_key(&w, t[i]);
        tn_json_put_null(&w);
        tn_json_put_end(&w);
        assert_int_equal(tn_json_finish(&w), TN_EINVAL);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_json_is_refused_where_it_is_wrong),
        cmocka_unit_test(e14_lone_surrogates_are_refused),
        cmocka_unit_test(what_is_no_utf8_is_refused),
        cmocka_unit_test(e14_a_key_that_is_there_twice_is_refused),
        cmocka_unit_test(nothing_is_no_document),
        cmocka_unit_test(e14_depth_is_capped),
        cmocka_unit_test(e14_a_million_brackets_are_no_recursion),
        cmocka_unit_test(e14_size_is_capped),
        cmocka_unit_test(e14_tokens_are_capped),
        cmocka_unit_test(e14_members_are_capped),
        cmocka_unit_test(a_document_cut_at_any_byte_is_truncated),
        cmocka_unit_test(a_document_with_any_byte_replaced_holds_or_is_refused),
        cmocka_unit_test(every_byte_in_a_string_is_taken_or_refused_as_stated),
        cmocka_unit_test(every_code_point_is_a_character_but_surrogates),
        cmocka_unit_test(e14_a_nul_in_a_path_is_refused),
        cmocka_unit_test(integers_are_exact_and_in_range),
        cmocka_unit_test(what_is_not_there_is_of_no_type),
        cmocka_unit_test(a_field_that_is_wrong_is_named),
        cmocka_unit_test(the_first_mistake_sticks_and_nothing_is_taken_after_it),
        cmocka_unit_test(what_makes_no_document_is_an_error),
        cmocka_unit_test(text_that_is_no_utf8_is_not_written),
        cmocka_unit_test(what_is_json_is_taken),
        cmocka_unit_test(tokens_are_as_stated),
        cmocka_unit_test(an_array_may_be_longer),
        cmocka_unit_test(a_string_fits_with_its_nul_or_is_refused),
        cmocka_unit_test(members_and_elements_are_found),
        cmocka_unit_test(fields_are_taken_and_defaults_stay),
        cmocka_unit_test(documents_are_written_into_exactly_their_room),
        cmocka_unit_test(numbers_are_written_exactly),
        cmocka_unit_test(what_is_written_nests_as_deep_as_what_is_read),
        cmocka_unit_test(strings_are_escaped_and_read_back),
    };

    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
