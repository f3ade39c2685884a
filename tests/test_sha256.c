/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_sha256.h"

#include "test.h"

#include <unistd.h>

static void hex(const uint8_t *bytes, char *text)
{
    for (unsigned i = 0; i < TN_SHA256_LEN; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

/* The digest by either form of the code. */
static void digest(const void *bytes, size_t len, bool portable, uint8_t *out)
{
    struct tn_sha256 s;

    tn_sha256_init(&s);
    if (portable)
        s.instructions = false;
    tn_sha256_update(&s, bytes, len);
    tn_sha256_final(&s, out);
}

static void same(const void *bytes, size_t len, const char *want)
{
    uint8_t out[TN_SHA256_LEN];
    char got[65];

    for (unsigned portable = 0; portable < 2; portable++) {
        digest(bytes, len, portable, out);
        hex(out, got);
        assert_string_equal(got, want);
    }
}

/* The four forms of the code, the last in plain C. Returns whether this CPU has it. */
static bool form(unsigned i, struct tn_sha256 *s)
{
    bool wanted[2] = {i % 2 == 0, i < 2};

    tn_sha256_init(s);
    if ((wanted[0] && !s->instructions) || (wanted[1] && !s->vectors))
        return false;
    s->instructions = wanted[0];
    s->vectors = wanted[1];
    return true;
}

static void the_vectors_of_the_standard(void **state)
{
    char *million = malloc(1000000);

    (void)state;
    assert_non_null(million);
    memset(million, 'a', 1000000);
    same(NULL, 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    same("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    same("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    same("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmno"
         "ijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
         112, "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
    same(million, 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(million);
}

/* HMAC: the cases of RFC 4231 that are not truncated. */
static void the_vectors_of_hmac(void **state)
{
    static const struct {
        int key, data; /* bytes that are all the same, if text is NULL; -1: 1, 2, 3 ... */
        size_t key_len, data_len;
        const char *key_text, *data_text, *mac;
    } row[] = {
        {0x0b, 0, 20, 0, NULL, "Hi There",
         "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
        {0, 0, 0, 0, "Jefe", "what do ya want for nothing?",
         "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
        {0xaa, 0xdd, 20, 50, NULL, NULL,
         "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
        {-1, 0xcd, 25, 50, NULL, NULL,
         "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"},
        {0xaa, 0, 131, 0, NULL, "Test Using Larger Than Block-Size Key - Hash Key First",
         "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
        {0xaa, 0, 131, 0, NULL,
         "This is a test using a larger than block-size key and a larger than block-size data. The "
         "key needs to be hashed before being used by the HMAC algorithm.",
         "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"},
        {0, 0, 0, 0, "", "", "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        uint8_t key[131], data[200], mac[TN_SHA256_LEN];
        size_t key_len = row[i].key_text ? strlen(row[i].key_text) : row[i].key_len;
        size_t len = row[i].data_text ? strlen(row[i].data_text) : row[i].data_len;
        struct tn_sha256_hmac m;
        char got[65];

        for (unsigned k = 0; k < sizeof(key); k++)
            key[k] = (uint8_t)(row[i].key < 0 ? (int)k + 1 : row[i].key);
        memset(data, row[i].data, sizeof(data));
        if (row[i].key_text)
            memcpy(key, row[i].key_text, key_len);
        if (row[i].data_text)
            memcpy(data, row[i].data_text, len);
        tn_sha256_hmac_init(&m, key, key_len);
        tn_sha256_hmac_update(&m, data, len / 3);
        tn_sha256_hmac_update(&m, data + len / 3, len - len / 3);
        tn_sha256_hmac_final(&m, mac);
        hex(mac, got);
        assert_string_equal(got, row[i].mac);
        for (size_t k = 0; k < sizeof(m); k++)
            assert_int_equal(((uint8_t *)&m)[k], 0);
    }
}

static void a_key_of_65_bytes_is_its_digest(void **state)
{
    uint8_t key[65], short_key[TN_SHA256_LEN], a[TN_SHA256_LEN], b[TN_SHA256_LEN];
    struct tn_sha256_hmac m;

    (void)state;
    memset(key, 7, sizeof(key));
    tn_sha256_of(key, 65, short_key);
    for (size_t len = 64; len <= 65; len++) {
        tn_sha256_hmac_init(&m, key, len);
        tn_sha256_hmac_final(&m, a);
        tn_sha256_hmac_init(&m, short_key, sizeof(short_key));
        tn_sha256_hmac_final(&m, b);
        assert_int_equal(tn_sha256_equal(a, b), len == 65);
    }
}

/* Wherever a message is cut, in two and into pieces of every length, its digest is the same. */
static void pieces_do_not_matter(void **state)
{
    uint8_t bytes[300], want[TN_SHA256_LEN], got[TN_SHA256_LEN];
    uint64_t seed = 1;
    struct tn_sha256 s;

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)test_random(&seed);
    tn_sha256_init(&s);
    for (size_t len = 0; len <= sizeof(bytes); len += len < 140 ? 1 : 32) {
        uint8_t *exact = test_exact(bytes, len);

        digest(exact, len, true, want);
        for (size_t cut = 0; cut <= len; cut++) {
            tn_sha256_update(&s, exact, cut);
            tn_sha256_update(&s, exact + cut, len - cut);
            tn_sha256_final(&s, got);
            assert_true(tn_sha256_equal(want, got));
        }
        for (size_t piece = 1; piece <= len; piece++) {
            for (size_t at = 0; at < len; at += piece)
                tn_sha256_update(&s, exact + at, len - at < piece ? len - at : piece);
            tn_sha256_final(&s, got);
            assert_memory_equal(want, got, sizeof(got));
        }
        free(exact);
    }
}

static void a_copy_goes_on_by_itself(void **state)
{
    uint8_t a[TN_SHA256_LEN], b[TN_SHA256_LEN], want[TN_SHA256_LEN];
    struct tn_sha256 s, copy;

    (void)state;
    tn_sha256_init(&s);
    tn_sha256_update(&s, (const uint8_t *)"ab", 2);
    copy = s;
    tn_sha256_update(&s, (const uint8_t *)"c", 1);
    tn_sha256_final(&s, a);
    tn_sha256_update(&copy, (const uint8_t *)"c", 1);
    tn_sha256_final(&copy, b);
    tn_sha256_of((const uint8_t *)"abc", 3, want);
    assert_memory_equal(a, want, sizeof(a));
    assert_memory_equal(b, want, sizeof(b));
}

static void both_forms_agree(void **state)
{
    const size_t most = 3u << 20;
    uint8_t *bytes, a[TN_SHA256_LEN], b[TN_SHA256_LEN];
    uint64_t seed = 2;
    struct tn_sha256 s;

    (void)state;
    tn_sha256_init(&s);
    if (!s.instructions)
        SKIP("this CPU has no SHA instructions");
    bytes = malloc(most);
    assert_non_null(bytes);
    for (size_t i = 0; i < most; i++)
        bytes[i] = (uint8_t)test_random(&seed);
    for (size_t len = 0; len <= most; len = len < 1000 ? len + 1 : len * 3 + 7) {
        digest(bytes, len, false, a);
        digest(bytes, len, true, b);
        assert_memory_equal(a, b, sizeof(a));
    }
    free(bytes);
}

/* The chunks of len bytes in each form of the code; what is around the digests is not touched. */
static void chunks(const uint8_t *bytes, size_t len, size_t chunk)
{
    size_t count = len / chunk + (len % chunk > 0);
    uint8_t *want = malloc(TN_SHA256_LEN * count + 1), *got = malloc(TN_SHA256_LEN * count + 1);
    uint8_t *exact = test_exact(bytes, len);
    struct tn_sha256 s, before;

    assert_true(want && got);
    for (size_t i = 0; i < count; i++)
        digest(bytes + i * chunk, i + 1 < count ? chunk : len - i * chunk, true,
               want + i * TN_SHA256_LEN);
    for (unsigned i = 0; i < 4; i++) {
        if (!form(i, &s))
            continue;
        tn_sha256_update(&s, bytes, len < 70 ? len : 70); /* what it is at does not matter */
        before = s;
        memset(got, 0xee, TN_SHA256_LEN * count + 1);
        tn_sha256_chunks(&s, exact, len, chunk, got);
        if (memcmp(want, got, TN_SHA256_LEN * count) != 0)
            fail_msg("form %u, %zu bytes in chunks of %zu", i, len, chunk);
        assert_int_equal(got[TN_SHA256_LEN * count], 0xee);
        assert_memory_equal(&s, &before, sizeof(s));
    }
    free(exact);
    free(want);
    free(got);
}

static void chunks_are_as_one_after_the_other(void **state)
{
    static const size_t count[] = {0, 1, 2, 3, 4, 5, 15, 16, 17, 18, 19, 31, 32, 33, 34, 35};
    static const size_t large[] = {4096, 4097, 65536};
    const size_t most = 35u << 16;
    uint8_t *bytes = malloc(most);
    uint64_t seed = 4;

    (void)state;
    assert_non_null(bytes);
    for (size_t i = 0; i < most; i++)
        bytes[i] = (uint8_t)test_random(&seed);
    for (size_t chunk = 1; chunk <= 200; chunk++) {
        for (size_t i = 0; i < COUNT(count); i++)
            chunks(bytes, count[i] * chunk, chunk);
        for (size_t rest = 1; rest < chunk; rest += 1 + chunk / 20)
            chunks(bytes, count[rest % COUNT(count)] * chunk + rest, chunk);
    }
    for (size_t i = 0; i < COUNT(large); i++) {
        for (size_t len = 0; len <= most; len += 1 + test_random(&seed) % (large[i] * 9))
            chunks(bytes, len, large[i]);
        for (size_t n = 1; n <= 34; n++)
            chunks(bytes, n * large[i], large[i]);
    }
    chunks(bytes, 1000, SIZE_MAX);
    free(bytes);
}

/* A million letters a, 19 times: 16 side by side, two, and one. */
static void chunks_of_the_vectors_of_the_standard(void **state)
{
    const size_t million = 1000000;
    uint8_t *bytes = malloc(19 * million), out[19 * TN_SHA256_LEN];
    struct tn_sha256 s;
    char got[65];

    (void)state;
    assert_non_null(bytes);
    memset(bytes, 'a', 19 * million);
    for (unsigned i = 0; i < 4; i++) {
        if (!form(i, &s))
            continue;
        memset(out, 0, sizeof(out));
        tn_sha256_chunks(&s, bytes, 19 * million, million, out);
        for (unsigned k = 0; k < 19; k++) {
            hex(out + k * TN_SHA256_LEN, got);
            assert_string_equal(got,
                                "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
        }
    }
    free(bytes);
}

/* Files of 0 to 300 bytes and of some MiB, as the program sha256sum has it. */
#ifdef _WIN32
static void as_sha256sum_has_it(void **state)
{
    (void)state;
    SKIP("there is no sha256sum");
}
#else
static void as_sha256sum_has_it(void **state)
{
    char dir[] = "/tmp/tenon-sha256-XXXXXX", path[64], line[256], got[65];
    uint64_t seed = 3;
    uint8_t out[TN_SHA256_LEN], *bytes = malloc(5u << 20);
    size_t len, lines = 0;
    FILE *f;

    (void)state;
    assert_non_null(bytes);
    if (system("command -v sha256sum >/dev/null") != 0) {
        free(bytes);
        SKIP("there is no sha256sum");
    }
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < 5u << 20; i++)
        bytes[i] = (uint8_t)test_random(&seed);
    for (unsigned i = 0; i <= 304; i++) {
        len = i <= 300 ? i : (size_t)(1 + test_random(&seed) % (5u << 20));
        snprintf(path, sizeof(path), "%s/%u", dir, i);
        f = fopen(path, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(bytes, 1, len, f), len);
        fclose(f);
    }
    snprintf(line, sizeof(line), "cd %s && exec sha256sum *", dir);
    f = popen(line, "r");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        FILE *one;

        line[strcspn(line, "\n")] = 0;
        assert_true(strlen(line) > 66);
        snprintf(path, sizeof(path), "%s/%.20s", dir, line + 66);
        one = fopen(path, "rb");
        assert_non_null(one);
        len = fread(bytes, 1, 5u << 20, one);
        fclose(one);
        unlink(path);
        line[64] = 0;
        for (unsigned portable = 0; portable < 2; portable++) {
            digest(bytes, len, portable, out);
            hex(out, got);
            assert_string_equal(got, line);
        }
        lines++;
    }
    pclose(f);
    rmdir(dir);
    free(bytes);
    assert_int_equal(lines, 305);
}
#endif

static void equal_sees_every_bit(void **state)
{
    uint8_t a[TN_SHA256_LEN], b[TN_SHA256_LEN];

    (void)state;
    memset(a, 0x5a, sizeof(a));
    memcpy(b, a, sizeof(a));
    assert_true(tn_sha256_equal(a, b));
    for (unsigned bit = 0; bit < 8 * TN_SHA256_LEN; bit++) {
        b[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(tn_sha256_equal(a, b));
        b[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

/* The length's eight bytes, which short messages leave at zero. */
static void the_padding_has_all_of_the_length(void **state)
{
    static const uint8_t want[8] = {0x09, 0x1a, 0x2b, 0x3c, 0x4d, 0x5e, 0x6f, 0x78};
    uint8_t end[2 * TN_SHA256_BLOCK];

    (void)state;
    for (size_t fill = 0; fill < 64; fill++) {
        size_t blocks;

        memset(end, 0xee, sizeof(end));
        blocks = tn_sha256_pad_(end, fill, 0x0123456789abcdef);
        assert_int_equal(blocks, fill <= 55 ? 1 : 2);
        for (size_t i = 0; i < fill; i++)
            assert_int_equal(end[i], 0xee);
        assert_int_equal(end[fill], 0x80);
        for (size_t i = fill + 1; i < 64 * blocks - 8; i++)
            assert_int_equal(end[i], 0);
        assert_memory_equal(end + 64 * blocks - 8, want, 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_vectors_of_the_standard),
        cmocka_unit_test(the_vectors_of_hmac),
        cmocka_unit_test(a_key_of_65_bytes_is_its_digest),
        cmocka_unit_test(pieces_do_not_matter),
        cmocka_unit_test(a_copy_goes_on_by_itself),
        cmocka_unit_test(both_forms_agree),
        cmocka_unit_test(chunks_are_as_one_after_the_other),
        cmocka_unit_test(chunks_of_the_vectors_of_the_standard),
        cmocka_unit_test(as_sha256sum_has_it),
        cmocka_unit_test(equal_sees_every_bit),
        cmocka_unit_test(the_padding_has_all_of_the_length),
    };

    return cmocka_run_group_tests_name("sha256", tests, NULL, NULL);
}
