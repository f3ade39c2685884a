/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A file of hostile bytes; the same with its digests made right; and one that is written by the
 * writer from a script, read back, changed in a few places, and opened with and without its digests
 * made right. Properties: what the writer makes opens and reads back equal, whatever its order of
 * calls, or the writer says its error and no file is there; a file that is changed and not sealed
 * again is refused; in what opens, sections ascend, lie inside the file and do not overlap, as many
 * as the reader says; fields stay inside their sections; nothing required is unknown; the digests
 * of memory are as many as its chunks; the refused leave an empty reader.
 */
#include "tn_snap.h"

#include "../tests/snap_forge.h"
#include "fuzz.h"

#define ROOM 4096u

static const struct tn_snap_key key = {(const uint8_t *)"0123456789abcdef", 16};
static const struct tn_snap_known known[] = {{1, 1}, {2, 3}, {3, UINT32_MAX}, {0x1000, 1}};
#define KNOWN (sizeof(known) / sizeof(known[0]))

/* Takes a section apart as the script says; every pointer must lie inside it. */
static void read_fields(struct fz *z, struct tn_snap_section s)
{
    for (unsigned op = 0; op < 16; op++) {
        size_t pos = s.pos, len;
        const uint8_t *p;
        uint8_t what = fz_u8(z), dst[64];
        uint32_t count, max;
        int err = s.err;

        switch (what % 8) {
        case 0:
            tn_snap_get_u8(&s);
            break;
        case 1:
            tn_snap_get_u16(&s);
            break;
        case 2:
            tn_snap_get_u32(&s);
            break;
        case 3:
            tn_snap_get_u64(&s);
            break;
        case 4:
            tn_snap_get_bool(&s);
            break;
        case 5:
            max = fz_u32(z);
            what = fz_u8(z);
            count = tn_snap_get_count(&s, max, what);
            FZ_ASSERT(count <= max && (uint64_t)count * what <= tn_snap_section_left(&s));
            break;
        case 6:
            tn_snap_get_bytes(&s, dst, what / 4);
            break;
        default:
            len = what < 64 ? fz_u8(z) : (size_t)fz_u64(z);
            p = tn_snap_get_ptr(&s, len);
            FZ_ASSERT(!p || (p == s.bytes + pos && len <= s.len - pos));
            FZ_ASSERT(p || s.err < 0);
            break;
        }
        FZ_ASSERT(s.pos >= pos && s.pos <= s.len);
        FZ_ASSERT(err == 0 || (s.err == err && s.pos == pos));
        FZ_ASSERT(tn_snap_section_left(&s) == s.len - s.pos);
    }
    FZ_ASSERT((tn_snap_section_done(&s) == 0) == (s.err == 0 && s.pos == s.len));
}

/* Opens an exact copy of the bytes and goes through all that there is. */
static int examine(struct fz *z, const uint8_t *bytes, size_t len, const struct tn_snap_key *k,
                   bool look)
{
    uint8_t *exact = (uint8_t *)malloc(len ? len : 1);
    const struct tn_snap_known *list = look ? NULL : known;
    struct tn_snap_section s, same;
    struct tn_snap r;
    uint64_t order = 0, sum = 0;
    uint32_t sections = 0;
    size_t at = 0, end = 32;
    int err;

    if (!exact)
        return 0;
    if (len > 0)
        memcpy(exact, bytes, len);
    err = tn_snap_open(&r, exact, len, k, list, KNOWN);
    FZ_ASSERT(err <= 0);
    FZ_ASSERT(err == 0 || (r.end == 0 && !r.bytes && !r.memory.digests && r.at <= len));
    while (tn_snap_next(&r, &at, &s) > 0) {
        uint64_t now = (uint64_t)s.type << 32 | s.instance;

        FZ_ASSERT(now > order && s.version > 0);
        order = now;
        FZ_ASSERT(s.bytes == exact + end + 56 && s.len <= len - end - 56);
        end += 56 + s.len;
        FZ_ASSERT(at == end && ++sections <= len / 56);
        FZ_ASSERT(s.known || look || !(s.flags & TN_SNAP_REQUIRED));
        FZ_ASSERT(tn_snap_find(&r, s.type, s.instance, &same) == s.known);
        FZ_ASSERT(!s.known || memcmp(&s.bytes, &same.bytes, sizeof(s.bytes)) == 0);
        for (size_t i = 0; i < s.len; i++)
            sum += s.bytes[i];
        if (sections <= 4)
            read_fields(z, s);
    }
    FZ_ASSERT(sections == r.sections && (err < 0 || end == r.end));
    if (err == 0) {
        uint64_t chunks = tn_snap_chunks(&r.memory);

        FZ_ASSERT(chunks <= len / 32 && (chunks == 0) == (r.memory.len == 0));
        FZ_ASSERT(chunks == 0 || (r.memory.digests >= exact + 32 &&
                                  r.memory.digests + 32 * chunks <= exact + len));
        for (uint64_t i = 0; i < 32 * chunks; i++)
            sum += r.memory.digests[i];
        FZ_ASSERT(tn_snap_chunk_len(&r.memory, chunks) == 0);
        FZ_ASSERT(chunks == 0 || tn_snap_chunk_len(&r.memory, chunks - 1) > 0);
        if (chunks > 0 && r.memory.chunk <= 65536) {
            static const uint8_t zero[65536];
            uint8_t digest[32];

            tn_sha256_of(zero, tn_snap_chunk_len(&r.memory, 0), digest);
            FZ_ASSERT((tn_snap_chunk_check(&r, 0, zero) == 0) ==
                      (memcmp(digest, r.memory.digests, 32) == 0));
        }
        FZ_ASSERT(r.keyed == (k != NULL));
    }
    free(exact);
    return sum == UINT64_MAX ? 1 : err;
}

/* What the script had the writer write. */
struct model {
    struct {
        uint32_t type, instance, version, flags;
        size_t from, len;
    } section[32];
    unsigned sections;
    uint8_t bytes[ROOM];
    size_t len;
    bool readable; /* a reader of ours knows all that is required */
};

static void model_put(struct model *m, const void *bytes, size_t len)
{
    if (len > sizeof(m->bytes) - m->len)
        len = sizeof(m->bytes) - m->len; /* more than the writer's buffer has */
    if (len > 0)
        memcpy(m->bytes + m->len, bytes, len);
    m->len += len;
}

static void put_field(struct fz *z, struct tn_snap_writer *w, struct model *m, uint8_t what)
{
    uint64_t v = fz_take(z, what % 8u);
    uint8_t bytes[32], *p;
    size_t n = what / 8u;

    memset(bytes, 0, sizeof(bytes));
    tn_put_(bytes, 8, v);
    switch (what % 6) {
    case 0:
        tn_snap_put_u8(w, (uint8_t)v);
        n = 1;
        break;
    case 1:
        tn_snap_put_u16(w, (uint16_t)v);
        n = 2;
        break;
    case 2:
        tn_snap_put_u32(w, (uint32_t)v);
        n = 4;
        break;
    case 3:
        tn_snap_put_u64(w, v);
        n = 8;
        break;
    case 4:
        tn_snap_put_bytes(w, bytes, n);
        break;
    default:
        p = tn_snap_put_space(w, n);
        FZ_ASSERT((p == NULL) == (w->err != 0));
        if (p && n > 0)
            memcpy(p, bytes, n);
        break;
    }
    if (w->err == 0)
        model_put(m, bytes, n);
}

static void written(struct fz *z)
{
    static uint8_t buf[ROOM], digests[32 * 32];
    static struct model m;
    const struct tn_snap_key *k;
    struct tn_snap_section s;
    struct tn_snap_memory memory, *mem = NULL;
    struct tn_snap_writer w;
    struct tn_snap r;
    uint8_t flags = fz_u8(z), changes;
    size_t cap = flags & 1 ? fz_u16(z) % (ROOM + 1) : ROOM;
    bool open = false, changed = false;
    int64_t len;

    memset(&m, 0, sizeof(m));
    memset(buf, 0xa5, sizeof(buf));
    m.readable = true;
    k = flags & 2 ? &key : NULL;
    tn_snap_begin(&w, buf, cap);
    for (unsigned op = 0; op < 200; op++) {
        uint8_t what = fz_u8(z);

        if (what % 16 == 0)
            break;
        if (what % 16 < 4) {
            uint32_t type = what & 0x80 ? fz_u32(z) : fz_u8(z) % 8u, version = fz_u8(z) % 5u;
            uint32_t instance = what & 0x40 ? fz_u32(z) : fz_u8(z), f = what >> 4 & 1;
            bool knows = false;

            tn_snap_section_begin(&w, type, version, instance, f);
            if (w.err < 0 || m.sections == 32)
                continue;
            open = true;
            m.section[m.sections].type = type;
            m.section[m.sections].version = version;
            m.section[m.sections].instance = instance;
            m.section[m.sections].flags = f;
            m.section[m.sections].from = m.len;
            m.sections++;
            for (size_t i = 0; i < KNOWN; i++)
                knows |= known[i].type == type && known[i].version >= version;
            m.readable &= knows || f == 0;
        } else if (what % 16 < 7) {
            tn_snap_section_end(&w);
            if (w.err == 0) {
                m.section[m.sections - 1].len = m.len - m.section[m.sections - 1].from;
                open = false;
            }
        } else {
            put_field(z, &w, &m, fz_u8(z));
        }
        FZ_ASSERT(w.len <= cap);
        if (m.sections == 32)
            break;
    }
    if (open && w.err == 0 && !(flags & 4)) {
        tn_snap_section_end(&w);
        m.section[m.sections - 1].len = m.len - m.section[m.sections - 1].from;
    }
    memset(&memory, 0, sizeof(memory));
    if (flags & 8) {
        fz_bytes(z, digests, sizeof(digests) / 32);
        memory.len = flags & 16 ? fz_u64(z) : fz_range(z, 1, 32 * 4096);
        memory.chunk = flags & 32 ? fz_u32(z) : 4096;
        memory.digests = digests;
        memory.parent[7] = flags;
        /* The caller's promise: as many digests as there are chunks. */
        if (tn_snap_chunks(&memory) <= 32 || tn_snap_chunks(&memory) > ROOM / 32)
            mem = &memory;
    }
    len = tn_snap_finish(&w, mem, k);
    for (size_t i = cap; i < ROOM; i++)
        FZ_ASSERT(buf[i] == 0xa5);
    if (len < 0) {
        FZ_ASSERT(examine(z, buf, cap, k, false) < 0);
        return;
    }
    FZ_ASSERT((size_t)len <= cap);
    FZ_ASSERT(examine(z, buf, (size_t)len, k, true) == 0);
    FZ_ASSERT(examine(z, buf, (size_t)len, k, false) == (m.readable ? 0 : TN_EUNSUP));
    FZ_ASSERT(examine(z, buf, (size_t)len, k ? NULL : &key, true) == TN_EPROTO);
    if (m.sections < 32) {
        size_t at = 0;

        FZ_ASSERT(tn_snap_open(&r, buf, (size_t)len, k, NULL, 0) == 0);
        FZ_ASSERT(r.sections == m.sections && memcmp(r.id, w.id, 32) == 0);
        for (unsigned i = 0; i < m.sections; i++) {
            FZ_ASSERT(tn_snap_next(&r, &at, &s) == 1);
            FZ_ASSERT(s.type == m.section[i].type && s.instance == m.section[i].instance);
            FZ_ASSERT(s.version == m.section[i].version && s.flags == m.section[i].flags);
            FZ_ASSERT(s.len == m.section[i].len);
            FZ_ASSERT(memcmp(s.bytes, m.bytes + m.section[i].from, s.len) == 0);
        }
        FZ_ASSERT(r.memory.len == memory.len || !mem);
        FZ_ASSERT(memcmp(r.memory.parent, memory.parent, 32) == 0 || !mem);
    }

    changes = fz_u8(z);
    for (unsigned i = 0; i < changes % 8u; i++) {
        size_t at = fz_u16(z) % (size_t)len;
        uint8_t value = fz_u8(z);

        if (changes & 8) /* mostly headers: after the file's, and of its first section */
            at %= 96;
        changed |= buf[at] != value;
        buf[at] = value;
    }
    /* Two changes of one byte may have undone each other: then it is the file that was written. */
    if (changed && changes % 8u == 1) {
        FZ_ASSERT(examine(z, buf, (size_t)len, k, true) < 0);
        FZ_ASSERT(examine(z, buf, (size_t)len, k, false) < 0);
    }
    forge_seal(buf, (size_t)len, k, changes & 16);
    examine(z, buf, (size_t)len, k, changes & 32);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t file[65536];
    const struct tn_snap_key *k;
    uint8_t how;
    struct fz z;
    size_t len;

    fz_init(&z, data, size);
    how = fz_u8(&z);
    k = how & 4 ? &key : NULL;
    if (how % 4 < 2) {
        written(&z);
        return 0;
    }
    if (z.left > sizeof(file))
        return 0;
    len = z.left;
    if (len > 0)
        memcpy(file, z.data, len);
    if (how % 4 == 3)
        forge_seal(file, len, k, how & 8);
    examine(&z, file, len, k, how & 16);
    return 0;
}
