/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_strerror.h"

#include "tn_loader.h"

#include "test.h"

/* The enumerators as the header spells them, read from its text: none can be forgotten here. */
struct code {
    char name[32];
    int value;
};

static struct code codes[64];
static size_t count;

static char *header_text(void)
{
    static const char *const dirs[] = {"", "../", "../../"};
    char path[512], *text;
    const char *slash = strrchr(__FILE__, '/');
    int dir = slash ? (int)(slash - __FILE__) + 1 : 0;
    FILE *f = NULL;
    size_t n;

    snprintf(path, sizeof(path), "%.*s../include/tn_strerror.h", dir, __FILE__);
    f = fopen(path, "r");
    for (size_t i = 0; !f && i < COUNT(dirs); i++) {
        snprintf(path, sizeof(path), "%sinclude/tn_strerror.h", dirs[i]);
        f = fopen(path, "r");
    }
    assert_non_null(f);
    text = calloc(1, 1 << 20);
    assert_non_null(text);
    n = fread(text, 1, (1 << 20) - 1, f);
    assert_in_range(n, 1, (1 << 20) - 2);
    fclose(f);
    return text;
}

static int read_codes(void **state)
{
    char *text = header_text();
    char *p = strstr(text, "enum tn_err {");
    char *end = p ? strstr(p, "};") : NULL;

    (void)state;
    assert_non_null(end);
    *end = '\0';
    p += strlen("enum tn_err {");
    while ((p = strstr(p, "TN_")) != NULL) {
        struct code c;
        int used = 0;
        if (sscanf(p, "%31[A-Z_0-9] = %d%n", c.name, &c.value, &used) == 2 && used > 0) {
            assert_true(count < COUNT(codes));
            codes[count++] = c;
        }
        p += 3;
    }
    free(text);
    assert_in_range(count, 19, COUNT(codes));
    return 0;
}

static void numbers_that_are_no_error(void **state)
{
    static const int unknown[] = {-5,   -31,  -42,  -63,  -67,   -95,       -97,
                                  -127, -128, -129, -256, -4096, INT32_MIN, INT32_MIN + 1};
    static const int success[] = {0, 1, 32, 4096, INT32_MAX};

    (void)state;
    for (size_t i = 0; i < COUNT(unknown); i++) {
        assert_string_equal(tn_strerror(unknown[i]), "unknown error");
        assert_string_equal(tn_errname(unknown[i]), "unknown");
    }
    for (size_t i = 0; i < COUNT(success); i++) {
        assert_string_equal(tn_strerror(success[i]), "success");
        assert_string_equal(tn_errname(success[i]), "TN_OK");
    }
}

static void every_enumerator_has_its_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < count; i++)
        assert_string_equal(tn_errname(codes[i].value), codes[i].name);
}

static void every_enumerator_has_a_sentence_of_its_own(void **state)
{
    (void)state;
    for (size_t i = 0; i < count; i++) {
        const char *s = tn_strerror(codes[i].value);
        assert_string_not_equal(s, "unknown error");
        assert_in_range(strlen(s), 7, 90);
        assert_true(s[strlen(s) - 1] != '.');
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(s, tn_strerror(codes[j].value));
    }
}

/* Nothing but the enumerators has a sentence: the list can't keep one that was taken away. */
static void nothing_else_has_one(void **state)
{
    size_t known = 0;

    (void)state;
    for (int err = -1000; err <= 0; err++)
        known += strcmp(tn_errname(err), "unknown") != 0;
    assert_int_equal(known, count);
}

/* The groups of the enumeration are the first word of the sentence. */
static void a_sentence_says_whose_fault(void **state)
{
    static const struct {
        int from, to;
        const char *who;
    } groups[] = {
        {-31, -1, "caller: "},
        {-63, -32, "guest or file: "},
        {-95, -64, "environment: "},
        {-127, -96, "tenon: "},
    };

    (void)state;
    for (size_t i = 0; i < count; i++) {
        bool found = codes[i].value == 0;
        for (size_t g = 0; g < COUNT(groups); g++) {
            if (codes[i].value < groups[g].from || codes[i].value > groups[g].to)
                continue;
            assert_memory_equal(tn_strerror(codes[i].value), groups[g].who, strlen(groups[g].who));
            found = true;
        }
        assert_true(found);
    }
}

/* Every detail of tn_loader.h has a sentence of its own, found by reading that header's enum. */
static void every_loader_detail_has_a_sentence(void **state)
{
    static const uint32_t last[] = {TN_LOADER_ZSTD,        TN_LOADER_PVH_ENTRY,
                                    TN_LOADER_BZ_ADDR,     TN_LOADER_IMAGE_ADDR,
                                    TN_LOADER_PLACE_ENTRY, TN_LOADER_ZBOOT_OTHER};
    static const uint32_t first[] = {TN_LOADER_NONE,         TN_LOADER_ELF_TRUNC,
                                     TN_LOADER_BZ_BOOT_FLAG, TN_LOADER_IMAGE_TRUNC,
                                     TN_LOADER_PLACE_RAM,    TN_LOADER_ZBOOT_GZIP};
    size_t known = 0;

    (void)state;
    for (size_t g = 0; g < COUNT(first); g++) {
        for (uint32_t d = first[g]; d <= last[g]; d++, known++)
            assert_string_not_equal(tn_strerror_loader(d), "unknown detail");
        assert_string_equal(tn_strerror_loader(last[g] + 1), "unknown detail");
    }
    assert_int_equal(known, 14 + 24 + 11 + 6 + 6 + 7);
    assert_string_equal(tn_strerror_loader(UINT32_MAX), "unknown detail");
    assert_non_null(strstr(tn_strerror_loader(TN_LOADER_SEG_FILESZ), "p_filesz"));
    assert_non_null(strstr(tn_strerror_loader(TN_LOADER_PVH_SIZE), "PVH note"));
    assert_non_null(strstr(tn_strerror_loader(TN_LOADER_BZ_LOW), "zImage"));
    assert_non_null(strstr(tn_strerror_loader(TN_LOADER_BZ_ADDR), "pref_address + init_size"));
    assert_non_null(strstr(tn_strerror_loader(TN_LOADER_IMAGE_ADDR), "text_offset"));
    assert_non_null(strstr(tn_strerror_loader(TN_LOADER_ZBOOT_ZSTD), "zstd -dc"));
    assert_non_null(strstr(tn_strerror_loader(TN_LOADER_IS_RISCV), "riscv64"));
    assert_non_null(strstr(tn_strerror_loader(TN_LOADER_PLACE_NONE), "init_size"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_that_are_no_error),
        cmocka_unit_test(every_enumerator_has_its_name),
        cmocka_unit_test(every_enumerator_has_a_sentence_of_its_own),
        cmocka_unit_test(nothing_else_has_one),
        cmocka_unit_test(a_sentence_says_whose_fault),
        cmocka_unit_test(every_loader_detail_has_a_sentence),
    };

    return cmocka_run_group_tests_name("strerror", tests, read_codes, NULL);
}
