/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_snap.h"

#include "snap_forge.h"
#include "test.h"

#define ROOM   4096
#define CHUNK  4096u
#define MEMORY 10000u /* bytes: two chunks and a part */

static const struct tn_snap_key key = {(const uint8_t *)"a key of 32 bytes, for the tests", 32};
static const struct tn_snap_key other = {(const uint8_t *)"a key of 32 bytes, not the tests", 32};

/* What the tests can read. */
static const struct tn_snap_known known[] = {{0x100, 1}, {0x200, 3}, {0x300, 2}};

static uint8_t memory[MEMORY];
static uint8_t digests[3 * TN_SHA256_LEN];

static void memory_make(struct tn_snap_memory *m)
{
    for (size_t i = 0; i < MEMORY; i++)
        memory[i] = (uint8_t)(i * 7 + i / 256);
    memset(m, 0, sizeof(*m));
    m->len = MEMORY;
    m->chunk = CHUNK;
    m->digests = digests;
    for (unsigned i = 0; i < 3; i++)
        tn_sha256_of(memory + i * CHUNK, tn_snap_chunk_len(m, i), digests + 32 * i);
    for (unsigned i = 0; i < TN_SNAP_ID; i++)
        m->parent[i] = (uint8_t)(0xf0 + i);
}

/* A small snapshot with a bit of everything. Returns its length. */
static int64_t make(uint8_t *buf, size_t cap, const struct tn_snap_key *k)
{
    struct tn_snap_memory m;
    struct tn_snap_writer w;
    uint8_t *space;

    memory_make(&m);
    tn_snap_begin(&w, buf, cap);
    for (uint32_t cpu = 0; cpu < 2; cpu++) {
        tn_snap_section_begin(&w, 0x100, 1, cpu, TN_SNAP_REQUIRED);
        tn_snap_put_u8(&w, (uint8_t)(0x11 + cpu));
        tn_snap_put_u16(&w, 0x2233);
        tn_snap_put_u32(&w, 0x44556677);
        tn_snap_put_u64(&w, 0x8899aabbccddeeff);
        tn_snap_put_bytes(&w, "bytes", 5);
        tn_snap_section_end(&w);
    }
    tn_snap_section_begin(&w, 0x200, 3, 0, 0);
    tn_snap_put_u32(&w, 2);
    space = tn_snap_put_space(&w, 16);
    if (space)
        memset(space, 0xab, 15);
    tn_snap_section_end(&w);
    tn_snap_section_begin(&w, 0x300, 1, 7, TN_SNAP_REQUIRED);
    tn_snap_section_end(&w);
    return tn_snap_finish(&w, &m, k);
}

/* Opens an exact copy, so that a sanitizer sees one byte too many; on success reads all of it. */
static int try_open(const uint8_t *bytes, size_t len, const struct tn_snap_key *k)
{
    uint8_t *exact = test_exact(bytes, len);
    struct tn_snap_section s;
    struct tn_snap r;
    size_t at = 0, sum = 0;
    uint32_t sections = 0;
    int err = tn_snap_open(&r, exact, len, k, known, COUNT(known));

    while (tn_snap_next(&r, &at, &s) > 0) {
        const uint8_t *p = tn_snap_get_ptr(&s, s.len);

        sections++;
        assert_non_null(p);
        assert_true(p >= exact && (size_t)(p - exact) <= len - s.len);
        for (size_t i = 0; i < s.len; i++)
            sum += p[i];
        assert_int_equal(tn_snap_section_done(&s), 0);
        assert_true(sections <= len / TN_SNAP_SECTION);
    }
    assert_int_equal(sections, r.sections);
    for (uint64_t i = 0; i < tn_snap_chunks(&r.memory); i++) {
        for (unsigned k2 = 0; k2 < 32; k2++)
            sum += r.memory.digests[32 * i + k2];
    }
    if (err < 0) { /* outputs are void */
        assert_int_equal(r.end, 0);
        assert_int_equal(r.memory.len, 0);
        assert_int_equal(tn_snap_find(&r, 0x100, 0, &s), 0);
        assert_true(r.at <= len);
    }
    free(exact);
    return sum == SIZE_MAX ? 1 : err;
}

/* ---- the file as a whole ---- */

static void e07_cut_at_every_length_it_is_refused(void **state)
{
    static uint8_t buf[ROOM];

    (void)state;
    for (unsigned keyed = 0; keyed < 2; keyed++) {
        const struct tn_snap_key *k = keyed ? &key : NULL;
        size_t len = (size_t)make(buf, sizeof(buf), k);

        assert_int_equal(try_open(buf, len, k), 0);
        for (size_t cut = 0; cut < len; cut++)
            assert_int_equal(try_open(buf, cut, k), TN_ETRUNC);
        for (size_t more = 1; more < 100; more++)
            assert_int_equal(try_open(buf, len + more, k), TN_EFORMAT);
    }
}

static void e07_every_flipped_bit_is_refused(void **state)
{
    static uint8_t buf[ROOM];
    unsigned errors[128] = {0};

    (void)state;
    for (unsigned keyed = 0; keyed < 2; keyed++) {
        const struct tn_snap_key *k = keyed ? &key : NULL;
        size_t len = (size_t)make(buf, sizeof(buf), k);

        for (size_t bit = 0; bit < 8 * len; bit++) {
            int err;

            buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
            err = try_open(buf, len, k);
            assert_true(err < 0 && err > -128);
            errors[-err]++;
            if (keyed && bit / 8 >= TN_SNAP_HEADER)
                assert_int_equal(err, TN_EPROTO); /* by the MAC, before anything is parsed */
            buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        assert_int_equal(try_open(buf, len, k), 0);
    }
    assert_true(errors[-TN_EPROTO] > 0 && errors[-TN_EFORMAT] > 0 && errors[-TN_ETRUNC] > 0 &&
                errors[-TN_EUNSUP] > 0);
}

/* The same where whoever changed the file made its digests right: it is refused or it is sound. */
static void e07_changed_and_sealed_again_nothing_breaks(void **state)
{
    static const uint64_t nasty[] = {0,      1,          0x7f,       0xff,       0x1000,
                                     0xffff, 0x7fffffff, 0x80000000, 0xffffffc8, 0xffffffff};
    static uint8_t buf[ROOM], copy[ROOM];
    unsigned taken = 0, refused = 0;

    (void)state;
    for (unsigned keyed = 0; keyed < 2; keyed++) {
        const struct tn_snap_key *k = keyed ? &key : NULL;
        size_t len = (size_t)make(buf, sizeof(buf), k);

        forge_seal(buf, len, k, true);
        assert_int_equal(try_open(buf, len, k), 0);
        for (size_t cut = 0; cut < len; cut++) {
            memcpy(copy, buf, len);
            forge_seal(copy, cut, k, true);
            assert_true(try_open(copy, cut, k) < 0);
        }
        for (size_t bit = 0; bit < 8 * len; bit++) {
            memcpy(copy, buf, len);
            copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
            forge_seal(copy, len, k, bit % 2);
            if (try_open(copy, len, k) == 0)
                taken++;
            else
                refused++;
        }
        for (size_t at = 0; at + 4 <= len; at += 4) {
            for (size_t i = 0; i < 2 * COUNT(nasty); i++) {
                memcpy(copy, buf, len);
                tn_put_(copy + at, i < COUNT(nasty) || at + 8 > len ? 4 : 8,
                        nasty[i % COUNT(nasty)] * (i < COUNT(nasty) ? 1 : 0x100000001u));
                forge_seal(copy, len, k, true);
                if (try_open(copy, len, k) == 0)
                    taken++;
                else
                    refused++;
            }
        }
    }
    assert_true(taken > 1000 && refused > 1000);
}

static void what_is_no_snapshot_is_refused(void **state)
{
    uint8_t zero[256] = {0};
    struct tn_snap r;

    (void)state;
    assert_int_equal(tn_snap_open(&r, NULL, 0, NULL, known, COUNT(known)), TN_ETRUNC);
    for (size_t len = 1; len <= sizeof(zero); len++)
        assert_int_equal(try_open(zero, len, NULL), TN_EFORMAT);
    assert_int_equal(try_open((const uint8_t *)"tenonovl", 8, NULL), TN_EFORMAT);
    assert_int_equal(try_open((const uint8_t *)"tenon", 5, NULL), TN_ETRUNC);
}

/* ---- forged files: their digests are right, something else is not ---- */

struct forged {
    const char *name;
    int err;
    void (*make)(struct forge *f);
    unsigned at; /* number of the section that is at fault; 0 for the first, or for none */
};

#define FORGED(name, ...)             \
    static void name(struct forge *f) \
    {                                 \
        __VA_ARGS__;                  \
    }
#define SEC(type, instance, version, flags) \
    forge_section(f, (type), (instance), (version), (flags), "abcd", 4)
#define END() forge_manifest(f, 0, 0)

FORGED(f_good, SEC(0x100, 0, 1, 1); SEC(0x100, 1, 1, 1); END())
FORGED(f_only_manifest, END())
FORGED(f_old_version, SEC(0x200, 0, 1, 1); END())
FORGED(f_newest_version, SEC(0x200, 0, 3, 1); END())
FORGED(f_future_required, SEC(0x100, 0, 1, 1); SEC(0x200, 0, 4, 1); END())
FORGED(f_future_optional, SEC(0x100, 0, 1, 1); SEC(0x200, 0, 4, 0); END())
FORGED(f_far_future, SEC(0x200, 0, 0xffffffff, 1); END())
FORGED(f_unknown_required, SEC(0x100, 0, 1, 1); SEC(0x101, 0, 1, 1); END())
FORGED(f_unknown_optional, SEC(0xff, 0, 1, 0); SEC(0x100, 0, 1, 1); SEC(0x101, 9, 77, 0); END())
FORGED(f_reserved_required, SEC(0xffffff00, 0, 1, 1); END())
FORGED(f_reserved_optional, SEC(0xfffffffd, 0, 1, 0); END())
FORGED(f_unknown_flag, SEC(0x100, 0, 1, 3); END())
FORGED(f_unknown_flag_optional, SEC(0x100, 0, 1, 0x80000000); END())
FORGED(f_version_0, SEC(0x100, 0, 0, 1); END())
FORGED(f_type_0, SEC(0, 1, 1, 1); END())
FORGED(f_type_0_instance_0, SEC(0, 0, 1, 1); END())
FORGED(f_twice, SEC(0x100, 0, 1, 1); SEC(0x100, 0, 1, 1); END())
FORGED(f_twice_optional, SEC(0x400, 5, 1, 0); SEC(0x400, 5, 2, 0); END())
FORGED(f_twice_apart, SEC(0x100, 0, 1, 1); SEC(0x200, 0, 1, 1); SEC(0x100, 0, 1, 1); END())
FORGED(f_types_descend, SEC(0x200, 0, 1, 1); SEC(0x100, 0, 1, 1); END())
FORGED(f_instances_descend, SEC(0x100, 1, 1, 1); SEC(0x100, 0, 1, 1); END())
FORGED(f_no_manifest, SEC(0x100, 0, 1, 1))
FORGED(f_nothing, (void)f)
FORGED(f_manifest_twice, END(); END())
FORGED(f_manifest_first, END(); SEC(0x100, 0, 1, 1))
FORGED(f_manifest_instance, END(); tn_put_(f->buf + 32 + 4, 4, 1))
FORGED(f_manifest_future, END(); tn_put_(f->buf + 32 + 8, 4, 2))
FORGED(f_manifest_optional, END(); tn_put_(f->buf + 32 + 12, 4, 0))
FORGED(f_manifest_reserved, END(); tn_put_(f->buf + 32 + 56 + 12, 4, 1))
FORGED(f_manifest_longer, uint8_t p[113] = {0}; forge_section(f, 0xffffffff, 0, 1, 1, p, 113))
FORGED(f_manifest_shorter, uint8_t p[111] = {0}; forge_section(f, 0xffffffff, 0, 1, 1, p, 111))
FORGED(f_behind_manifest, END(); f->len += 8)
FORGED(f_one_section_less, SEC(0x100, 0, 1, 1); END(); tn_put_(f->buf + 24, 4, 1))
FORGED(f_one_section_more, SEC(0x100, 0, 1, 1); END(); tn_put_(f->buf + 24, 4, 3))
FORGED(f_sections_65537, END(); tn_put_(f->buf + 24, 4, 65537))
FORGED(f_sections_65536, END(); tn_put_(f->buf + 24, 4, 65536))
FORGED(f_sections_0, END(); tn_put_(f->buf + 24, 4, 0))
FORGED(f_format_2, END(); tn_put_(f->buf + 8, 4, 2))
FORGED(f_format_0, END(); tn_put_(f->buf + 8, 4, 0))
FORGED(f_header_flag, END(); tn_put_(f->buf + 12, 4, 2))
FORGED(f_header_reserved, END(); tn_put_(f->buf + 28, 4, 1))
FORGED(f_payload_too_long, SEC(0x100, 0, 1, 1); END(); tn_put_(f->buf + 32 + 16, 8, 173))
FORGED(f_payload_wraps, SEC(0x100, 0, 1, 1); END();
       tn_put_(f->buf + 32 + 16, 8, 0xffffffffffffffc8))

/* With memory: 3 chunks of 4096 bytes, or what the row says. */
static uint8_t list[32 * 8];
#define CHUNKS(instance, len) forge_section(f, 0xfffffffe, (instance), 1, 1, list, (len))
FORGED(f_memory, CHUNKS(0, 96); forge_manifest(f, 10000, 4096))
FORGED(f_memory_exact, CHUNKS(0, 96); forge_manifest(f, 3 * 4096, 4096))
FORGED(f_memory_least, CHUNKS(0, 96); forge_manifest(f, 2 * 4096 + 1, 4096))
FORGED(f_memory_longer, CHUNKS(0, 96); forge_manifest(f, 3 * 4096 + 1, 4096))
FORGED(f_memory_shorter, CHUNKS(0, 96); forge_manifest(f, 2 * 4096, 4096))
FORGED(f_memory_huge, CHUNKS(0, 96); forge_manifest(f, UINT64_MAX, 4096))
FORGED(f_memory_wraps, CHUNKS(0, 96); forge_manifest(f, 0x8000000000000000, 0x40000000))
FORGED(f_chunk_0, CHUNKS(0, 96); forge_manifest(f, 10000, 0))
FORGED(f_chunk_small, CHUNKS(0, 96); forge_manifest(f, 6144, 2048))
FORGED(f_chunk_not_power, CHUNKS(0, 96); forge_manifest(f, 15000, 5000))
FORGED(f_chunk_large, CHUNKS(0, 32); forge_manifest(f, 1, 0x80000000))
FORGED(f_chunk_largest, CHUNKS(0, 32); forge_manifest(f, 1, 0x40000000))
FORGED(f_list_not_whole, CHUNKS(0, 97); forge_manifest(f, 10000, 4096))
FORGED(f_list_missing, forge_manifest(f, 10000, 4096))
FORGED(f_list_unasked, CHUNKS(0, 96); forge_manifest(f, 0, 0))
FORGED(f_list_unasked_chunk, CHUNKS(0, 96); forge_manifest(f, 0, 4096))
FORGED(f_chunk_unasked, forge_manifest(f, 0, 4096))
FORGED(f_list_empty, CHUNKS(0, 0); forge_manifest(f, 0, 0))
FORGED(f_list_twice, CHUNKS(0, 96); CHUNKS(1, 96); forge_manifest(f, 10000, 4096))
FORGED(f_list_instance, CHUNKS(1, 96); forge_manifest(f, 10000, 4096))
FORGED(f_list_future, CHUNKS(0, 96); tn_put_(f->buf + 32 + 8, 4, 2); forge_manifest(f, 10000, 4096))
FORGED(f_list_alone, CHUNKS(0, 96))

static const struct forged forged[] = {
    {"good", 0, f_good, 0},
    {"only a manifest", 0, f_only_manifest, 0},
    {"an old version", 0, f_old_version, 0},
    {"the newest version", 0, f_newest_version, 0},
    {"from the future, required", TN_EUNSUP, f_future_required, 1},
    {"from the future, optional", 0, f_future_optional, 0},
    {"from the far future", TN_EUNSUP, f_far_future, 0},
    {"unknown, required", TN_EUNSUP, f_unknown_required, 1},
    {"unknown, optional", 0, f_unknown_optional, 0},
    {"reserved, required", TN_EUNSUP, f_reserved_required, 0},
    {"reserved, optional", 0, f_reserved_optional, 0},
    {"unknown flag", TN_EUNSUP, f_unknown_flag, 0},
    {"unknown flag, optional", TN_EUNSUP, f_unknown_flag_optional, 0},
    {"section version 0", TN_EFORMAT, f_version_0, 0},
    {"type 0", TN_EFORMAT, f_type_0, 0},
    {"type 0, instance 0", TN_EFORMAT, f_type_0_instance_0, 0},
    {"twice", TN_EOVERLAP, f_twice, 1},
    {"twice, optional", TN_EOVERLAP, f_twice_optional, 1},
    {"twice, apart", TN_EFORMAT, f_twice_apart, 2},
    {"types descend", TN_EFORMAT, f_types_descend, 1},
    {"instances descend", TN_EFORMAT, f_instances_descend, 1},
    {"no manifest", TN_EFORMAT, f_no_manifest, 0},
    {"nothing", TN_ERANGE, f_nothing, 0},
    {"manifest twice", TN_EOVERLAP, f_manifest_twice, 1},
    {"manifest first", TN_EFORMAT, f_manifest_first, 1},
    {"manifest's instance", TN_EFORMAT, f_manifest_instance, 0},
    {"manifest from the future", TN_EUNSUP, f_manifest_future, 0},
    {"manifest optional", TN_EFORMAT, f_manifest_optional, 0},
    {"manifest's reserved field", TN_EFORMAT, f_manifest_reserved, 0},
    {"manifest too long", TN_EFORMAT, f_manifest_longer, 0},
    {"manifest too short", TN_EFORMAT, f_manifest_shorter, 0},
    {"bytes behind the manifest", TN_EFORMAT, f_behind_manifest, 1},
    {"one section less", TN_EFORMAT, f_one_section_less, 1},
    {"one section more", TN_ETRUNC, f_one_section_more, 2},
    {"65537 sections", TN_ERANGE, f_sections_65537, 0},
    {"65536 sections announced", TN_ETRUNC, f_sections_65536, 0},
    {"0 sections", TN_ERANGE, f_sections_0, 0},
    {"format 2", TN_EUNSUP, f_format_2, 0},
    {"format 0", TN_EFORMAT, f_format_0, 0},
    {"a header flag", TN_EUNSUP, f_header_flag, 0},
    {"the header's reserved field", TN_EFORMAT, f_header_reserved, 0},
    {"a payload too long", TN_ETRUNC, f_payload_too_long, 0},
    {"e02: a payload that wraps", TN_ETRUNC, f_payload_wraps, 0},
    {"memory", 0, f_memory, 0},
    {"memory, whole chunks", 0, f_memory_exact, 0},
    {"memory, one byte in the last chunk", 0, f_memory_least, 0},
    {"e04: memory longer", TN_ERANGE, f_memory_longer, 1},
    {"e04: memory shorter", TN_ERANGE, f_memory_shorter, 1},
    {"memory of 2^64-1 bytes", TN_ERANGE, f_memory_huge, 1},
    {"memory of 2^63 bytes", TN_ERANGE, f_memory_wraps, 1},
    {"chunk 0", TN_ERANGE, f_chunk_0, 1},
    {"chunk 2048", TN_ERANGE, f_chunk_small, 1},
    {"chunk 5000", TN_ERANGE, f_chunk_not_power, 1},
    {"chunk 2 GiB", TN_ERANGE, f_chunk_large, 1},
    {"chunk 1 GiB", 0, f_chunk_largest, 0},
    {"digests cut", TN_ERANGE, f_list_not_whole, 1},
    {"e02: no digests", TN_ERANGE, f_list_missing, 0},
    {"digests of nothing", TN_ERANGE, f_list_unasked, 1},
    {"digests of nothing, in chunks", TN_ERANGE, f_list_unasked_chunk, 1},
    {"chunks of nothing", TN_ERANGE, f_chunk_unasked, 0},
    {"an empty list", TN_EFORMAT, f_list_empty, 0},
    {"digests twice", TN_EFORMAT, f_list_twice, 1},
    {"digests' instance", TN_EFORMAT, f_list_instance, 0},
    {"digests from the future", TN_EUNSUP, f_list_future, 0},
    {"digests without a manifest", TN_EFORMAT, f_list_alone, 1},
};

static void e03_e07_forged_files_with_right_digests(void **state)
{
    static uint8_t buf[ROOM];
    struct tn_snap r;

    (void)state;
    for (size_t i = 0; i < 2 * COUNT(forged); i++) {
        const struct forged *row = &forged[i / 2];
        const struct tn_snap_key *k = i % 2 ? &key : NULL;
        size_t len, want = 0;
        struct forge f;
        int err;

        forge_begin(&f, buf, sizeof(buf));
        row->make(&f);
        len = forge_end(&f, k);
        if (row->make == f_header_flag)
            tn_put_(buf + 12, 4, k ? 3 : 2);
        err = try_open(buf, len, k);
        if (err != row->err)
            fail_msg("%s: %d, not %d", row->name, err, row->err);
        err = tn_snap_open(&r, buf, len, k, known, COUNT(known));
        if (row->at > 0) {
            for (want = 32; want + 56 < len && row->at > 0;) {
                unsigned n = row->at;

                for (want = 32; n > 0; n--)
                    want += 56 + (size_t)tn_get_(buf + want + 16, 8);
                break;
            }
            if (r.at != want)
                fail_msg("%s: at %zu, not %zu", row->name, r.at, want);
        }
        assert_true(err == row->err && (err < 0 || r.keyed == (k != NULL)));
    }
}

static void the_state_digest_joins_the_sections(void **state)
{
    static uint8_t buf[ROOM], swapped[ROOM];
    struct forge f;
    size_t len;

    (void)state;
    /* Two instances change places with their headers' digests: each payload's digest holds. */
    forge_begin(&f, buf, sizeof(buf));
    forge_section(&f, 0x100, 0, 1, 1, "aaaa", 4);
    forge_section(&f, 0x100, 1, 1, 1, "bbbb", 4);
    forge_manifest(&f, 0, 0);
    len = forge_end(&f, NULL);
    assert_int_equal(try_open(buf, len, NULL), 0);
    memcpy(swapped, buf, len);
    memcpy(swapped + 32 + 24, buf + 92 + 24, 36);
    memcpy(swapped + 92 + 24, buf + 32 + 24, 36);
    assert_int_equal(try_open(swapped, len, NULL), TN_EPROTO);
    /* And a section is left out. */
    memcpy(swapped, buf, 32);
    memcpy(swapped + 32, buf + 92, len - 92);
    tn_put_(swapped + 16, 8, len - 60);
    tn_put_(swapped + 24, 4, 2);
    assert_int_equal(try_open(swapped, len - 60, NULL), TN_EPROTO);
}

static void the_root_is_that_of_the_digests(void **state)
{
    static uint8_t buf[ROOM];

    (void)state;
    for (unsigned with = 0; with < 2; with++) {
        struct forge f;
        size_t len;

        forge_begin(&f, buf, sizeof(buf));
        if (with)
            forge_section(&f, 0xfffffffe, 0, 1, 1, list, 96);
        forge_manifest(&f, with ? 10000 : 0, with ? 4096 : 0);
        len = forge_end(&f, NULL);
        assert_int_equal(try_open(buf, len, NULL), 0);
        for (size_t at = len - 96; at < len - 64; at++) {
            buf[at] ^= 1;
            forge_seal(buf, len, NULL, false);
            assert_int_equal(try_open(buf, len, NULL), TN_EPROTO);
            buf[at] ^= 1;
        }
        forge_seal(buf, len, NULL, false);
        assert_int_equal(try_open(buf, len, NULL), 0);
    }
}

/* ---- digests, memory and keys ---- */

static void e04_memory_is_checked_chunk_by_chunk(void **state)
{
    static uint8_t buf[ROOM], bad[CHUNK];
    struct tn_snap r;
    int64_t len = make(buf, sizeof(buf), NULL);
    static const size_t lens[] = {CHUNK, CHUNK, MEMORY - 2 * CHUNK};

    (void)state;
    assert_true(len > 0);
    assert_int_equal(tn_snap_open(&r, buf, (size_t)len, NULL, known, COUNT(known)), 0);
    assert_int_equal(r.memory.len, MEMORY);
    assert_int_equal(r.memory.chunk, CHUNK);
    assert_int_equal(tn_snap_chunks(&r.memory), 3);
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(tn_snap_chunk_len(&r.memory, i), lens[i]);
        assert_int_equal(tn_snap_chunk_check(&r, i, memory + i * CHUNK), 0);
        for (size_t bit = 0; bit < 8 * lens[i]; bit += 1 + bit % 97) {
            memcpy(bad, memory + i * CHUNK, lens[i]);
            bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(tn_snap_chunk_check(&r, i, bad), TN_EPROTO);
        }
    }
    assert_int_equal(tn_snap_chunk_check(&r, 0, memory + CHUNK), TN_EPROTO);
    assert_int_equal(tn_snap_chunk_check(&r, 1, memory), TN_EPROTO);
    assert_int_equal(tn_snap_chunk_check(&r, 3, memory), TN_EINVAL);
    assert_int_equal(tn_snap_chunk_check(&r, UINT64_MAX, memory), TN_EINVAL);
    assert_int_equal(tn_snap_chunk_len(&r.memory, UINT64_MAX / CHUNK), 0);
}

static void chunks_of_memories_of_any_length(void **state)
{
    static const uint64_t lens[] = {0,    1,    4095,       4096,       4097,
                                    8191, 8192, 1ull << 40, UINT64_MAX, UINT64_MAX - 4095};
    struct tn_snap_memory m;

    (void)state;
    memset(&m, 0, sizeof(m));
    assert_int_equal(tn_snap_chunks(&m), 0);
    assert_int_equal(tn_snap_chunk_len(&m, 0), 0);
    for (size_t i = 0; i < COUNT(lens); i++) {
        for (m.chunk = 4096; m.chunk <= 0x40000000; m.chunk *= 2) {
            uint64_t n;

            m.len = lens[i];
            n = tn_snap_chunks(&m);
            assert_int_equal(n, m.len / m.chunk + (m.len % m.chunk != 0));
            assert_int_equal(tn_snap_chunk_len(&m, n), 0);
            assert_int_equal(tn_snap_chunk_len(&m, UINT64_MAX), 0);
            if (n > 0) {
                size_t last = tn_snap_chunk_len(&m, n - 1);

                assert_int_equal((n - 1) * m.chunk + last, m.len);
                assert_true(last > 0);
                assert_int_equal(tn_snap_chunk_len(&m, 0), n > 1 ? m.chunk : last);
            }
        }
    }
}

static void e04_a_mac_needs_its_key_and_a_key_a_mac(void **state)
{
    static uint8_t buf[ROOM];
    uint8_t long_key[200];
    struct tn_snap_key k;
    struct tn_snap r;
    size_t len = (size_t)make(buf, sizeof(buf), &key);

    (void)state;
    assert_int_equal(tn_snap_open(&r, buf, len, &key, known, COUNT(known)), 0);
    assert_true(r.keyed);
    assert_int_equal(try_open(buf, len, &other), TN_EPROTO);
    assert_int_equal(try_open(buf, len, NULL), TN_EPROTO);
    k = key;
    for (k.len = 0; k.len < TN_SNAP_KEY_MIN; k.len++)
        assert_int_equal(try_open(buf, len, &k), TN_EINVAL);
    for (; k.len < key.len; k.len++)
        assert_int_equal(try_open(buf, len, &k), TN_EPROTO);
    /* The MAC taken away, by somebody who has no key. */
    tn_put_(buf + 12, 4, 0);
    forge_seal(buf, len - 32, NULL, true);
    assert_int_equal(try_open(buf, len - 32, NULL), 0);
    assert_int_equal(try_open(buf, len - 32, &key), TN_EPROTO);
    /* Put on by somebody with another key. */
    len = (size_t)make(buf, sizeof(buf), &key);
    forge_seal(buf, len, &other, true);
    assert_int_equal(try_open(buf, len, &key), TN_EPROTO);
    assert_int_equal(try_open(buf, len, &other), 0);
    memset(long_key, 0x77, sizeof(long_key));
    k.bytes = long_key;
    k.len = sizeof(long_key);
    len = (size_t)make(buf, sizeof(buf), &k);
    assert_int_equal(try_open(buf, len, &k), 0);
}

static void a_snapshots_name_is_that_of_all_it_has(void **state)
{
    static uint8_t buf[ROOM];
    struct tn_snap_memory m;
    struct tn_snap_writer w;
    uint8_t id[6][TN_SNAP_ID];
    struct tn_snap r;
    int64_t len = 0;

    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        memory_make(&m);
        tn_snap_begin(&w, buf, sizeof(buf));
        tn_snap_section_begin(&w, 0x100, 1, i == 1, TN_SNAP_REQUIRED);
        tn_snap_put_u8(&w, i == 2);
        tn_snap_section_end(&w);
        if (i == 3)
            digests[70]++;
        if (i == 4)
            m.parent[31]++;
        if (i == 5)
            m.len++;
        len = tn_snap_finish(&w, &m, NULL);
        assert_true(len > 0);
        assert_int_equal(tn_snap_open(&r, buf, (size_t)len, NULL, known, COUNT(known)), 0);
        assert_memory_equal(r.id, w.id, TN_SNAP_ID);
        assert_memory_equal(r.memory.parent, m.parent, TN_SNAP_ID);
        memcpy(id[i], w.id, TN_SNAP_ID);
        for (unsigned k = 0; k < i; k++)
            assert_memory_not_equal(id[i], id[k], TN_SNAP_ID);
    }
}

/* ---- sections and fields ---- */

static void what_is_written_is_read(void **state)
{
    static uint8_t buf[ROOM];
    int64_t len = make(buf, sizeof(buf), NULL);
    struct tn_snap_section s;
    struct tn_snap r;
    uint8_t bytes[5];

    (void)state;
    assert_int_equal(tn_snap_open(&r, buf, (size_t)len, NULL, known, COUNT(known)), 0);
    assert_int_equal(r.sections, 4);
    assert_int_equal(r.version, TN_SNAP_VERSION);
    assert_false(r.keyed);
    for (uint32_t cpu = 0; cpu < 2; cpu++) {
        assert_int_equal(tn_snap_find(&r, 0x100, cpu, &s), 1);
        assert_int_equal(s.instance, cpu);
        assert_int_equal(s.version, 1);
        assert_int_equal(tn_snap_section_done(&s), TN_EFORMAT);
        assert_int_equal(tn_snap_section_left(&s), 20);
        assert_int_equal(tn_snap_get_u8(&s), 0x11 + cpu);
        assert_int_equal(tn_snap_get_u16(&s), 0x2233);
        assert_int_equal(tn_snap_get_u32(&s), 0x44556677);
        assert_int_equal(tn_snap_get_u64(&s), 0x8899aabbccddeeff);
        assert_int_equal(tn_snap_section_left(&s), 5);
        tn_snap_get_bytes(&s, bytes, 5);
        assert_memory_equal(bytes, "bytes", 5);
        assert_int_equal(tn_snap_section_done(&s), 0);
    }
    assert_int_equal(tn_snap_find(&r, 0x200, 0, &s), 1);
    assert_int_equal(tn_snap_get_count(&s, 2, 8), 2);
    assert_int_equal(tn_snap_get_u64(&s), 0xabababababababab);
    assert_int_equal(tn_snap_get_u64(&s), 0x00ababababababab);
    assert_int_equal(tn_snap_section_done(&s), 0);
    assert_int_equal(tn_snap_find(&r, 0x300, 7, &s), 1);
    assert_int_equal(tn_snap_section_done(&s), 0);
    for (unsigned i = 0; i < 3; i++) {
        static const uint32_t absent[3][2] = {{0x100, 2}, {0x101, 0}, {0xffffffff, 0}};

        assert_int_equal(tn_snap_find(&r, absent[i][0], absent[i][1], &s), 0);
        assert_int_equal(tn_snap_get_u32(&s), 0);
        assert_null(tn_snap_get_ptr(&s, 0));
        assert_int_equal(tn_snap_section_done(&s), TN_ESTATE);
    }
}

static void sections_that_are_not_known_are_not_found(void **state)
{
    static uint8_t buf[ROOM];
    struct tn_snap_section s;
    struct tn_snap r;
    struct forge f;
    size_t at = 0, len;
    unsigned n = 0;

    (void)state;
    forge_begin(&f, buf, sizeof(buf));
    f_unknown_optional(&f);
    len = forge_end(&f, NULL);
    assert_int_equal(tn_snap_open(&r, buf, len, NULL, known, COUNT(known)), 0);
    assert_int_equal(tn_snap_find(&r, 0xff, 0, &s), 0);
    assert_int_equal(tn_snap_find(&r, 0x101, 9, &s), 0);
    assert_int_equal(tn_snap_find(&r, 0x100, 0, &s), 1);
    while (tn_snap_next(&r, &at, &s) > 0) {
        assert_int_equal(s.known, s.type == 0x100);
        n++;
    }
    assert_int_equal(n, 3);
    assert_int_equal(tn_snap_next(&r, &at, &s), 0);
    forge_begin(&f, buf, sizeof(buf));
    f_future_optional(&f);
    len = forge_end(&f, NULL);
    assert_int_equal(tn_snap_open(&r, buf, len, NULL, known, COUNT(known)), 0);
    assert_int_equal(tn_snap_find(&r, 0x200, 0, &s), 0);
    /* Who only looks sees everything, and finds nothing. */
    forge_begin(&f, buf, sizeof(buf));
    f_unknown_required(&f);
    len = forge_end(&f, NULL);
    assert_int_equal(tn_snap_open(&r, buf, len, NULL, known, 0), TN_EUNSUP);
    assert_int_equal(tn_snap_open(&r, buf, len, NULL, NULL, 5), 0);
    assert_int_equal(tn_snap_find(&r, 0x100, 0, &s), 0);
    at = 0;
    assert_int_equal(tn_snap_next(&r, &at, &s), 1);
    assert_false(s.known);
}

static void section_of(struct tn_snap_section *s, uint8_t *bytes, size_t len)
{
    static uint8_t buf[ROOM];
    static struct tn_snap r;
    struct forge f;

    forge_begin(&f, buf, sizeof(buf));
    forge_section(&f, 0x100, 0, 1, 1, bytes, len);
    forge_manifest(&f, 0, 0);
    assert_int_equal(tn_snap_open(&r, buf, forge_end(&f, NULL), NULL, known, COUNT(known)), 0);
    assert_int_equal(tn_snap_find(&r, 0x100, 0, s), 1);
}

static void e02_a_count_is_held_against_the_bytes(void **state)
{
    static const struct {
        uint32_t count, max, each;
        int err;
    } row[] = {
        {0, 0, 8, 0},
        {2, 2, 8, 0},
        {2, UINT32_MAX, 8, 0},
        {1, 2, 16, 0},
        {3, 2, 1, TN_ERANGE},
        {3, 3, 8, TN_ETRUNC},
        {1, 1, 17, TN_ETRUNC},
        {0x20000000, UINT32_MAX, 8, TN_ETRUNC},
        {0x80000001, UINT32_MAX, 2, TN_ETRUNC},
        {UINT32_MAX, UINT32_MAX, 1, TN_ETRUNC},
        {UINT32_MAX, UINT32_MAX, UINT32_MAX, TN_ETRUNC},
        {UINT32_MAX, UINT32_MAX, 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct tn_snap_section s;
        uint8_t bytes[20] = {0};

        tn_put_(bytes, 4, row[i].count);
        section_of(&s, bytes, sizeof(bytes));
        assert_int_equal(tn_snap_get_count(&s, row[i].max, row[i].each),
                         row[i].err ? 0 : row[i].count);
        assert_int_equal(s.err, row[i].err);
    }
}

static void e02_fields_beyond_the_end_are_zero(void **state)
{
    uint8_t bytes[8] = {1, 2, 3, 4, 5, 6, 7, 8}, dst[16];
    struct tn_snap_section s;

    (void)state;
    for (size_t len = 0; len <= 8; len++) {
        section_of(&s, bytes, len);
        assert_int_equal(tn_snap_get_u64(&s), len < 8 ? 0 : 0x0807060504030201);
        assert_int_equal(s.err, len < 8 ? TN_ETRUNC : 0);
        assert_int_equal(tn_snap_get_u8(&s), 0);
        assert_int_equal(tn_snap_section_done(&s), TN_ETRUNC);
        section_of(&s, bytes, len);
        memset(dst, 0xee, sizeof(dst));
        tn_snap_get_bytes(&s, NULL, 0);
        assert_int_equal(s.err, 0);
        tn_snap_get_bytes(&s, dst, len + 1);
        for (size_t i = 0; i < sizeof(dst); i++)
            assert_int_equal(dst[i], i <= len ? 0 : 0xee);
        assert_int_equal(tn_snap_section_done(&s), TN_ETRUNC);
        section_of(&s, bytes, len);
        assert_null(tn_snap_get_ptr(&s, SIZE_MAX));
        assert_null(tn_snap_get_ptr(&s, 0));
        assert_int_equal(tn_snap_get_u16(&s), 0);
        assert_int_equal(tn_snap_get_u32(&s), 0);
        assert_int_equal(tn_snap_get_count(&s, 9, 0), 0);
        assert_int_equal(tn_snap_section_done(&s), TN_ETRUNC);
    }
}

static void the_first_error_of_a_section_stays(void **state)
{
    uint8_t bytes[3] = {0, 1, 2};
    struct tn_snap_section s;

    (void)state;
    section_of(&s, bytes, 3);
    assert_false(tn_snap_get_bool(&s));
    assert_true(tn_snap_get_bool(&s));
    assert_int_equal(tn_snap_section_done(&s), TN_EFORMAT);
    assert_false(tn_snap_get_bool(&s));
    assert_int_equal(tn_snap_section_done(&s), TN_ERANGE);
    tn_snap_section_fail(&s, TN_EMACHINE);
    assert_int_equal(tn_snap_section_done(&s), TN_ERANGE);
    section_of(&s, bytes, 3);
    tn_snap_section_fail(&s, TN_EMACHINE);
    tn_snap_get_u64(&s);
    assert_int_equal(tn_snap_section_done(&s), TN_EMACHINE);
    assert_int_equal(s.pos, 0);
}

/* ---- the writer ---- */

static void a_buffer_may_be_exact_and_never_too_small(void **state)
{
    static uint8_t buf[ROOM];

    (void)state;
    for (unsigned keyed = 0; keyed < 2; keyed++) {
        const struct tn_snap_key *k = keyed ? &key : NULL;
        int64_t len = make(buf, sizeof(buf), k);

        for (size_t cap = 0; cap <= (size_t)len; cap++) {
            uint8_t *exact = test_exact(buf, cap);

            memset(exact, 0xee, cap); /* what was there before does not show */
            assert_int_equal(make(exact, cap, k), cap == (size_t)len ? len : TN_ENOSPC);
            if (cap == (size_t)len)
                assert_memory_equal(exact, buf, cap);
            else
                assert_true(try_open(exact, cap, k) < 0);
            free(exact);
        }
    }
}

struct wrong {
    const char *name;
    int err;
    void (*make)(struct tn_snap_writer *w);
};

#define WRITE(name, ...)                       \
    static void name(struct tn_snap_writer *w) \
    {                                          \
        __VA_ARGS__;                           \
    }
#define BEGIN(type, instance) tn_snap_section_begin(w, (type), 1, (instance), TN_SNAP_REQUIRED)

/* Not known to the compiler, which would warn. */
static size_t huge(void)
{
    volatile size_t n = SIZE_MAX;

    return n;
}

WRITE(w_type_0, tn_snap_section_begin(w, 0, 1, 1, 0))
WRITE(w_type_own, tn_snap_section_begin(w, 0xffffff00, 1, 0, 0))
WRITE(w_version_0, tn_snap_section_begin(w, 5, 0, 0, 0))
WRITE(w_flags, tn_snap_section_begin(w, 5, 1, 0, 2))
WRITE(w_twice, BEGIN(5, 1); tn_snap_section_end(w); BEGIN(5, 1))
WRITE(w_order, BEGIN(5, 1); tn_snap_section_end(w); BEGIN(5, 0))
WRITE(w_types, BEGIN(5, 1); tn_snap_section_end(w); BEGIN(4, 2))
WRITE(w_nested, BEGIN(5, 1); BEGIN(6, 0))
WRITE(w_field, tn_snap_put_u8(w, 1))
WRITE(w_between, BEGIN(5, 1); tn_snap_section_end(w); tn_snap_put_u64(w, 1))
WRITE(w_bytes, tn_snap_put_bytes(w, "", 0))
WRITE(w_space, assert_null(tn_snap_put_space(w, 0)))
WRITE(w_end, tn_snap_section_end(w))
WRITE(w_fail, tn_snap_fail(w, TN_EBUG))
WRITE(w_huge, BEGIN(5, 0); assert_null(tn_snap_put_space(w, huge())))

static void the_writers_mistakes_have_names(void **state)
{
    static const struct wrong wrong[] = {
        {"type 0", TN_EINVAL, w_type_0},
        {"the format's own type", TN_EINVAL, w_type_own},
        {"version 0", TN_EINVAL, w_version_0},
        {"unknown flag", TN_EINVAL, w_flags},
        {"twice", TN_EEXIST, w_twice},
        {"instances out of order", TN_ESTATE, w_order},
        {"types out of order", TN_ESTATE, w_types},
        {"a section in a section", TN_ESTATE, w_nested},
        {"a field without a section", TN_ESTATE, w_field},
        {"a field between sections", TN_ESTATE, w_between},
        {"no bytes without a section", TN_ESTATE, w_bytes},
        {"no space without a section", TN_ESTATE, w_space},
        {"an end without a beginning", TN_ESTATE, w_end},
        {"the caller's own", TN_EBUG, w_fail},
        {"more than there is", TN_ENOSPC, w_huge},
    };
    static uint8_t buf[ROOM];
    struct tn_snap_writer w;

    (void)state;
    for (size_t i = 0; i < COUNT(wrong); i++) {
        make(buf, sizeof(buf), NULL); /* what a buffer held before is no file any more */
        tn_snap_begin(&w, buf, sizeof(buf));
        wrong[i].make(&w);
        if (w.err != wrong[i].err)
            fail_msg("%s: %d, not %d", wrong[i].name, w.err, wrong[i].err);
        tn_snap_section_begin(&w, 0x7000, 1, 0, 0);
        tn_snap_put_u32(&w, 1);
        tn_snap_section_end(&w);
        tn_snap_fail(&w, TN_EADDR);
        assert_int_equal(tn_snap_finish(&w, NULL, NULL), wrong[i].err);
        assert_true(try_open(buf, sizeof(buf), NULL) < 0);
    }
}

static void finish_checks_what_it_is_given(void **state)
{
    static const struct {
        uint64_t len;
        uint32_t chunk;
        bool digests;
        int err;
    } row[] = {
        {0, 4096, true, TN_EINVAL},          {1, 0, true, TN_EINVAL},
        {1, 2048, true, TN_EINVAL},          {1, 4097, true, TN_EINVAL},
        {1, 0x80000000, true, TN_EINVAL},    {1, 4096, false, TN_EINVAL},
        {UINT64_MAX, 4096, true, TN_ENOSPC}, {1 << 20, 4096, true, TN_ENOSPC},
    };
    static uint8_t buf[ROOM];
    struct tn_snap_key k = key;
    struct tn_snap_memory m;
    struct tn_snap_writer w;

    (void)state;
    memory_make(&m);
    for (size_t i = 0; i < COUNT(row); i++) {
        m.len = row[i].len;
        m.chunk = row[i].chunk;
        m.digests = row[i].digests ? digests : NULL;
        tn_snap_begin(&w, buf, sizeof(buf));
        assert_int_equal(tn_snap_finish(&w, &m, NULL), row[i].err);
        assert_true(try_open(buf, sizeof(buf), NULL) < 0);
    }
    k.len = TN_SNAP_KEY_MIN - 1;
    tn_snap_begin(&w, buf, sizeof(buf));
    assert_int_equal(tn_snap_finish(&w, NULL, &k), TN_EINVAL);
    tn_snap_begin(&w, buf, sizeof(buf));
    tn_snap_section_begin(&w, 5, 1, 0, 0);
    assert_int_equal(tn_snap_finish(&w, NULL, NULL), TN_ESTATE);
    tn_snap_begin(&w, buf, sizeof(buf));
    assert_int_equal(tn_snap_finish(&w, NULL, NULL), 32 + 56 + 112);
    assert_int_equal(tn_snap_finish(&w, NULL, NULL), TN_ESTATE);
    assert_int_equal(try_open(buf, 32 + 56 + 112, NULL), 0);
}

static void as_many_sections_as_there_may_be(void **state)
{
    size_t cap = 32 + 56 * (size_t)TN_SNAP_SECTIONS + 112;
    uint8_t *buf = malloc(cap + 56);
    const struct tn_snap_known all = {7, 1};
    struct tn_snap_writer w;
    struct tn_snap r;

    (void)state;
    assert_non_null(buf);
    for (uint32_t n = TN_SNAP_SECTIONS - 1; n <= TN_SNAP_SECTIONS; n++) {
        tn_snap_begin(&w, buf, cap + 56);
        for (uint32_t i = 0; i < n; i++) {
            tn_snap_section_begin(&w, 7, 1, i, TN_SNAP_REQUIRED);
            tn_snap_section_end(&w);
        }
        if (n == TN_SNAP_SECTIONS) {
            assert_int_equal(tn_snap_finish(&w, NULL, NULL), TN_ENOSPC);
        } else {
            assert_int_equal(tn_snap_finish(&w, NULL, NULL), cap);
            assert_int_equal(tn_snap_open(&r, buf, cap, NULL, &all, 1), 0);
            assert_int_equal(r.sections, n);
        }
    }
    free(buf);
}

/* Random files: written, read, written again: the same bytes. */
static void save_restore_save_gives_the_same_bytes(void **state)
{
    static uint8_t a[ROOM], b[ROOM], payload[512];
    static const struct tn_snap_known all[] = {{1, 9}, {2, 9}, {3, 9}, {4, 9}};
    uint64_t seed = 11;

    (void)state;
    for (unsigned round = 0; round < 500; round++) {
        struct tn_snap_section s;
        struct tn_snap_memory m;
        struct tn_snap_writer w;
        struct tn_snap r;
        const struct tn_snap_key *k = round % 2 ? &key : NULL;
        int64_t len;
        size_t at = 0;

        memory_make(&m);
        tn_snap_begin(&w, a, sizeof(a));
        for (uint32_t type = 1; type <= 4; type++) {
            for (uint32_t i = 0; i < test_random(&seed) % 4; i++) {
                size_t n = test_random(&seed) % 200;

                for (size_t c = 0; c < n; c++)
                    payload[c] = (uint8_t)test_random(&seed);
                tn_snap_section_begin(&w, type, 1 + (uint32_t)(test_random(&seed) % 9), i,
                                      test_random(&seed) % 2);
                tn_snap_put_bytes(&w, payload, n);
                tn_snap_section_end(&w);
            }
        }
        len = tn_snap_finish(&w, round % 3 ? &m : NULL, k);
        assert_true(len > 0);
        assert_int_equal(tn_snap_open(&r, a, (size_t)len, k, all, COUNT(all)), 0);
        tn_snap_begin(&w, b, sizeof(b));
        while (tn_snap_next(&r, &at, &s) > 0) {
            size_t n = tn_snap_section_left(&s);

            assert_true(s.known);
            tn_snap_section_begin(&w, s.type, s.version, s.instance, s.flags);
            tn_snap_put_bytes(&w, tn_snap_get_ptr(&s, n), n);
            tn_snap_section_end(&w);
        }
        assert_int_equal(tn_snap_finish(&w, &r.memory, k), len);
        assert_memory_equal(a, b, (size_t)len);
    }
}

/* By hand, from the format's description: what the writer makes. */
static void the_writers_bytes_are_the_formats(void **state)
{
    static uint8_t buf[ROOM], by_hand[ROOM];
    int64_t len = make(buf, sizeof(buf), &key);
    uint8_t payload[112] = {0};
    struct forge f;

    (void)state;
    forge_begin(&f, by_hand, sizeof(by_hand));
    forge_section(&f, 0x100, 0, 1, 1,
                  "\x11\x33\x22\x77\x66\x55\x44\xff\xee\xdd\xcc\xbb\xaa\x99\x88"
                  "bytes",
                  20);
    forge_section(&f, 0x100, 1, 1, 1,
                  "\x12\x33\x22\x77\x66\x55\x44\xff\xee\xdd\xcc\xbb\xaa\x99\x88"
                  "bytes",
                  20);
    payload[0] = 2;
    memset(payload + 4, 0xab, 15);
    forge_section(&f, 0x200, 0, 3, 0, payload, 20);
    forge_section(&f, 0x300, 7, 1, 1, NULL, 0);
    forge_section(&f, 0xfffffffe, 0, 1, 1, digests, sizeof(digests));
    memset(payload, 0, sizeof(payload));
    tn_put_(payload, 8, MEMORY);
    tn_put_(payload + 8, 4, CHUNK);
    for (unsigned i = 0; i < 32; i++)
        payload[48 + i] = (uint8_t)(0xf0 + i);
    forge_section(&f, 0xffffffff, 0, 1, 1, payload, 112);
    assert_int_equal(forge_end(&f, &key), len);
    assert_memory_equal(buf, by_hand, (size_t)len);
}

/* Files of version 1, as they are in the repository, load for ever. */
static void e07_the_fixtures_of_version_1_load(void **state)
{
    static const char *const path[] = {"tests/fixtures/snap-v1.state",
                                       "tests/fixtures/snap-v1-keyed.state"};
    static uint8_t buf[ROOM], made[ROOM];

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        const struct tn_snap_key *k = i ? &key : NULL;
        FILE *f = fopen(path[i], "rb");
        struct tn_snap_section s;
        struct tn_snap r;
        size_t len;

        if (!f)
            fail_msg("%s can't be read", path[i]);
        len = fread(buf, 1, sizeof(buf), f);
        fclose(f);
        assert_int_equal(tn_snap_open(&r, buf, len, k, known, COUNT(known)), 0);
        assert_int_equal(r.version, 1);
        assert_int_equal(r.sections, 4);
        assert_int_equal(tn_snap_find(&r, 0x100, 1, &s), 1);
        assert_int_equal(tn_snap_get_u8(&s), 0x12);
        assert_int_equal(tn_snap_get_u16(&s), 0x2233);
        assert_int_equal(tn_snap_find(&r, 0x200, 0, &s), 1);
        assert_int_equal(s.version, 3);
        assert_int_equal(tn_snap_get_count(&s, 9, 8), 2);
        assert_int_equal(tn_snap_find(&r, 0x300, 7, &s), 1);
        assert_int_equal(r.memory.len, MEMORY);
        assert_int_equal(make(made, sizeof(made), k), len);
        for (unsigned c = 0; c < 3; c++)
            assert_int_equal(tn_snap_chunk_check(&r, c, memory + c * CHUNK), 0);
        /* As long as version 1 is what is written. */
        if (TN_SNAP_VERSION == 1)
            assert_memory_equal(buf, made, len);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(e07_cut_at_every_length_it_is_refused),
        cmocka_unit_test(e07_every_flipped_bit_is_refused),
        cmocka_unit_test(e07_changed_and_sealed_again_nothing_breaks),
        cmocka_unit_test(what_is_no_snapshot_is_refused),
        cmocka_unit_test(e03_e07_forged_files_with_right_digests),
        cmocka_unit_test(the_state_digest_joins_the_sections),
        cmocka_unit_test(the_root_is_that_of_the_digests),
        cmocka_unit_test(e04_memory_is_checked_chunk_by_chunk),
        cmocka_unit_test(chunks_of_memories_of_any_length),
        cmocka_unit_test(e04_a_mac_needs_its_key_and_a_key_a_mac),
        cmocka_unit_test(a_snapshots_name_is_that_of_all_it_has),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(sections_that_are_not_known_are_not_found),
        cmocka_unit_test(e02_a_count_is_held_against_the_bytes),
        cmocka_unit_test(e02_fields_beyond_the_end_are_zero),
        cmocka_unit_test(the_first_error_of_a_section_stays),
        cmocka_unit_test(a_buffer_may_be_exact_and_never_too_small),
        cmocka_unit_test(the_writers_mistakes_have_names),
        cmocka_unit_test(finish_checks_what_it_is_given),
        cmocka_unit_test(as_many_sections_as_there_may_be),
        cmocka_unit_test(save_restore_save_gives_the_same_bytes),
        cmocka_unit_test(the_writers_bytes_are_the_formats),
        cmocka_unit_test(e07_the_fixtures_of_version_1_load),
    };

    if (argc == 3) { /* writes the fixture: test_snap plain|keyed FILE */
        static uint8_t buf[ROOM];
        int64_t len = make(buf, sizeof(buf), strcmp(argv[1], "keyed") == 0 ? &key : NULL);
        FILE *f = fopen(argv[2], "wb");

        return f && len > 0 && fwrite(buf, (size_t)len, 1, f) == 1 && fclose(f) == 0 ? 0 : 1;
    }
    return cmocka_run_group_tests_name("snap", tests, NULL, NULL);
}
