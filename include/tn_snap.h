/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_snap - a snapshot's state file: sections, their digests, a manifest, and a MAC if wanted.
 *
 * WHAT
 *   A writer that puts numbers and bytes into sections, field by field, and a reader that believes
 *   nothing: it checks the whole container at once, and then hands out sections to get the fields
 *   from. The manifest also has the digests of guest memory, chunk by chunk, so that memory which
 *   is loaded lazily can be checked lazily.
 *
 * USAGE
 *   static const struct tn_snap_known known[] = {{0x100, 1}};
 *   uint8_t file[1024];
 *   struct tn_snap_writer w;
 *   struct tn_snap_section s;
 *   struct tn_snap snap;
 *   int64_t len;
 *   uint32_t divisor;
 *
 *   tn_snap_begin(&w, file, sizeof(file));
 *   tn_snap_section_begin(&w, 0x100, 1, 0, TN_SNAP_REQUIRED);
 *   tn_snap_put_u32(&w, 115200);
 *   tn_snap_section_end(&w);
 *   len = tn_snap_finish(&w, NULL, NULL);
 *   if (len < 0)
 *       return 1;
 *   if (tn_snap_open(&snap, file, (size_t)len, NULL, known, 1) < 0)
 *       return 2;
 *   if (tn_snap_find(&snap, 0x100, 0, &s) != 1)
 *       return 3;
 *   divisor = tn_snap_get_u32(&s);
 *   if (tn_snap_section_done(&s) < 0 || divisor == 0)
 *       return 4;
 *
 * COMPOSITION
 *   Includes tn_sha256. Device models never include this: who joins them to a machine writes their
 *   saved states, numbers the section types (in the order in which they are restored, with gaps),
 *   and gives what was read to their restore functions, which check what the fields mean.
 *
 * GUEST TRUST
 *   A file may be hostile, with right digests: what digests say is that the bytes are those that
 *   somebody wrote; only the MAC says who. No length or count of the file is used before it is
 *   compared with the bytes that there are; no loop runs longer than those; nothing is allocated.
 *   The bytes must not change while the reader is in use: read the file, don't map what others may
 *   write to.
 *
 * MEMORY
 *   The caller owns the bytes; struct tn_snap and struct tn_snap_section point into them, and copy
 *   nothing. Both sides may use one buffer, one after the other.
 *
 * THREADS
 *   One thread at a time per writer and per section. A struct tn_snap is only read once it is open:
 *   any number of threads may find sections and check chunks.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   docs/snapshot-format.md, version 1, byte by byte.
 *
 * LIMITS
 *   At most TN_SNAP_SECTIONS sections. Nothing is compressed or encrypted. Sections are in
 *   ascending order of type and instance, so that equal states are equal bytes.
 */
#ifndef TN_SNAP_H
#define TN_SNAP_H

/* -- tenon common block: the same bytes in every header (make check-common) -- */
/* clang-format off */
#ifndef TN_COMMON
#define TN_COMMON
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#if !defined(TN_API) && defined(TN_DECL_ONLY)
#define TN_API extern
#elif !defined(TN_API)
#define TN_API static inline
#endif
enum tn_err { TN_OK = 0, /* or a useful positive value; tn_strerror.h has a sentence for each */
    /* the caller's fault */ TN_EINVAL = -1, TN_ENOSPC = -2, TN_ESTATE = -3, TN_EEXIST = -4,
    /* the guest's, or a file's */ TN_EADDR = -32, TN_EFORMAT = -33, TN_ETRUNC = -34,
    TN_ERANGE = -35, TN_EOVERLAP = -36, TN_EMACHINE = -37, TN_EENTRY = -38, TN_ENOFIT = -39,
    TN_EUNSUP = -40, TN_EPROTO = -41, /* the environment's; errno tells */ TN_ESYS = -64,
    TN_EAGAIN = -65, TN_ENODEV = -66, /* ours */ TN_EBUG = -96 };
struct tn_iov { uint8_t *base; size_t len; }; /* memory in this process; as struct iovec */
/*@ requires n <= 8 && \valid_read(p + (0 .. n - 1)); assigns \nothing; */
static inline uint64_t tn_get_(const volatile uint8_t *p, unsigned n) /* little-endian load */
{
    uint64_t v = 0;
    /*@ loop invariant n <= \at(n, Pre); loop assigns n, v; loop variant n; */
    while (n > 0) v = v << 8 | p[--n];
    return v;
}
/*@ requires n <= 8 && \valid(p + (0 .. n - 1)); assigns p[0 .. n - 1]; */
static inline void tn_put_(uint8_t *p, unsigned n, uint64_t v) /* little-endian store */
{
    /*@ loop invariant i <= n; loop assigns i, p[0 .. n - 1]; loop variant n - i; */
    for (unsigned i = 0; i < n; i++) p[i] = (uint8_t)(v >> 8 * i);
}
#endif /* TN_COMMON */
/* clang-format on */

#include "tn_sha256.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_SNAP_VERSION   1u          /* of the format, the newest that can be read */
#define TN_SNAP_HEADER    32u         /* bytes before the first section */
#define TN_SNAP_SECTION   56u         /* bytes before a section's payload */
#define TN_SNAP_SECTIONS  65536u      /* in a file, the container's own two with them */
#define TN_SNAP_KEY_MIN   16u         /* bytes: a shorter key is no secret */
#define TN_SNAP_TYPE_MAX  0xfffffeffu /* types 1 to this are the caller's, others the format's */
#define TN_SNAP_CHUNK_MIN 4096u       /* bytes of memory to a digest, a power of two */
#define TN_SNAP_CHUNK_MAX 0x40000000u
#define TN_SNAP_ID        32u /* bytes of a snapshot's name */

/* A section's flags: a reader that does not know it must refuse the file. Otherwise it skips it. */
#define TN_SNAP_REQUIRED 1u

/* A section that the caller can read, in all its versions up to this one. */
struct tn_snap_known {
    uint32_t type;
    uint32_t version;
};

/* A secret that writer and reader share; HMAC-SHA-256 over the whole file is made with it. */
struct tn_snap_key {
    const uint8_t *bytes;
    size_t len; /* TN_SNAP_KEY_MIN at least */
};

/*
 * What the manifest says of the guest memory that belongs to the state: as it is once the snapshot
 * is restored, a diff applied. chunk is how many bytes each digest is of, a power of two; the last
 * chunk may be shorter. No memory: all of it 0.
 */
struct tn_snap_memory {
    uint64_t len;               /* bytes */
    uint32_t chunk;             /* bytes, TN_SNAP_CHUNK_MIN .. TN_SNAP_CHUNK_MAX */
    const uint8_t *digests;     /* TN_SHA256_LEN bytes for each chunk, in order */
    uint8_t parent[TN_SNAP_ID]; /* the name of the snapshot that this is a diff of; 0: of none */
};

struct tn_snap_writer {
    uint8_t *buf;
    size_t cap;
    size_t len;
    size_t section; /* where the open section's header is; 0: none is open */
    uint64_t last;  /* the last section's type and instance */
    uint32_t sections;
    int err;                /* the first error; 0: none */
    uint8_t id[TN_SNAP_ID]; /* the snapshot's name, after tn_snap_finish */
    struct tn_sha256 sha;
};

/* A file that holds: every digest is right. */
struct tn_snap {
    const uint8_t *bytes;
    size_t end;        /* where the sections that are the caller's end */
    uint32_t sections; /* how many those are */
    uint32_t version;  /* of the format */
    size_t at;         /* after a failed tn_snap_open: the offset of the section that is at fault */
    const struct tn_snap_known *known;
    size_t known_count;
    struct tn_snap_memory memory; /* digests points into the file */
    uint8_t id[TN_SNAP_ID];       /* the snapshot's name: the digest of its manifest */
    bool keyed;                   /* its MAC is right */
    struct tn_sha256 sha;
};

/* A section that is read from its beginning to its end. */
struct tn_snap_section {
    uint32_t type;
    uint32_t instance; /* such as the number of the vCPU */
    uint32_t version;
    uint32_t flags;
    bool known; /* the caller's list has it */
    const uint8_t *bytes;
    size_t len;
    size_t pos; /* bytes that were read */
    int err;    /* the first error; 0: none */
};

/*@ predicate tn_snap_writer_ok(struct tn_snap_writer *w) =
      w->len <= w->cap && \valid(w->buf + (0 .. w->cap - 1)) &&
      (w->err == 0 ==> w->len >= TN_SNAP_HEADER) &&
      \separated(w, w->buf + (0 .. w->cap - 1)) &&
      (w->section != 0 ==> w->section <= w->len && w->len - w->section >= TN_SNAP_SECTION);
    predicate tn_snap_section_ok(struct tn_snap_section *s) =
      s->pos <= s->len && \separated(s, s->bytes + (0 .. s->len - 1)) &&
      (s->err == 0 ==> \valid_read(s->bytes + (-TN_SNAP_SECTION .. s->len - 1)));
    logic integer tn_snap_order(integer type, integer instance) = type * 0x100000000 + instance;
*/

/*
 * Writing. The first mistake sticks: what comes after it does nothing, and tn_snap_finish returns
 * it. The errors: TN_ENOSPC, cap is too small, or there are TN_SNAP_SECTIONS; TN_EINVAL, a type,
 * version, flag, key or chunk size that the format has not; TN_EEXIST, a section for the second
 * time; TN_ESTATE, one out of order, or anything between two sections.
 */

/* Starts a file in the cap bytes at buf. */
TN_API void tn_snap_begin(struct tn_snap_writer *w, uint8_t *buf, size_t cap);

/*
 * A section: version is of its fields, 1 or above; instance tells those of one type apart. Types
 * ascend, and instances within a type.
 */
TN_API void tn_snap_section_begin(struct tn_snap_writer *w, uint32_t type, uint32_t version,
                                  uint32_t instance, uint32_t flags);
TN_API void tn_snap_section_end(struct tn_snap_writer *w);

/* The next field, little-endian, nothing between it and the last. */
TN_API void tn_snap_put_u8(struct tn_snap_writer *w, uint8_t value);
TN_API void tn_snap_put_u16(struct tn_snap_writer *w, uint16_t value);
TN_API void tn_snap_put_u32(struct tn_snap_writer *w, uint32_t value);
TN_API void tn_snap_put_u64(struct tn_snap_writer *w, uint64_t value);
TN_API void tn_snap_put_bytes(struct tn_snap_writer *w, const void *bytes, size_t len);

/* Room for len bytes, zeroed, that the caller fills before tn_snap_section_end; NULL: an error. */
TN_API uint8_t *tn_snap_put_space(struct tn_snap_writer *w, size_t len);

/* Makes err the writer's error, if it has none yet. */
/*@ requires \valid(w) && err < 0;
    assigns w->err;
    ensures w->err == (\old(w->err) != 0 ? \old(w->err) : err); */
TN_API void tn_snap_fail(struct tn_snap_writer *w, int err);

/*
 * Ends the file: the digests of memory (NULL: there is none), the manifest, and a MAC where there
 * is a key. Returns the file's length, or the first error; after one, buf holds no file.
 */
TN_API int64_t tn_snap_finish(struct tn_snap_writer *w, const struct tn_snap_memory *memory,
                              const struct tn_snap_key *key);

/*
 * Checks the whole file, all but the meaning of the caller's fields. known are the sections that
 * the caller can read; it must live as long as r. known NULL is for programs that only look: none
 * is refused for being unknown, and tn_snap_find finds none. Returns 0, or
 *   TN_EFORMAT  no snapshot; a field that has to be 0 is not; sections out of order; bytes after
 *               the end
 *   TN_ETRUNC   the file, or a section's payload, is shorter than what is announced
 *   TN_EUNSUP   the format, a flag or a required section is of a version from the future, or of a
 *               type that the caller does not know
 *   TN_EOVERLAP a section is there twice
 *   TN_ERANGE   a number is outside its range: sections, chunk size, length of memory
 *   TN_EPROTO   a digest is wrong; the MAC is wrong, or missing though there is a key, or there
 *               without a key to check it
 *   TN_EINVAL   the key is too short
 * and then r->at tells where, and the rest of r is empty.
 */
TN_API int tn_snap_open(struct tn_snap *r, const uint8_t *bytes, size_t len,
                        const struct tn_snap_key *key, const struct tn_snap_known *known,
                        size_t known_count);

/*
 * The section of that type and instance. Returns 1; 0: there is none that the caller knows, and s
 * is an empty section whose error is TN_ESTATE.
 */
TN_API int tn_snap_find(const struct tn_snap *r, uint32_t type, uint32_t instance,
                        struct tn_snap_section *s);

/*
 * Walks through all the sections, those that are not known with them: *at is 0 at first. Returns
 * 1, or 0 at the end.
 */
TN_API int tn_snap_next(const struct tn_snap *r, size_t *at, struct tn_snap_section *s);

/*
 * The next field. At the section's end or after an error: 0, and the section's error is TN_ETRUNC.
 */
/*@ requires \valid(s) && tn_snap_section_ok(s);
    assigns s->pos, s->err;
    ensures tn_snap_section_ok(s) && s->pos - \old(s->pos) <= 1; */
TN_API uint8_t tn_snap_get_u8(struct tn_snap_section *s);
TN_API uint16_t tn_snap_get_u16(struct tn_snap_section *s);
TN_API uint32_t tn_snap_get_u32(struct tn_snap_section *s);
TN_API uint64_t tn_snap_get_u64(struct tn_snap_section *s);

/* A field of one byte that is 0 or 1; otherwise the section's error is TN_ERANGE. */
TN_API bool tn_snap_get_bool(struct tn_snap_section *s);

/*
 * A number of elements, 4 bytes, that are each at least `each` bytes long and follow. Above max the
 * section's error is TN_ERANGE; above what the section has bytes for, TN_ETRUNC. Returns 0 then.
 */
/*@ requires \valid(s) && tn_snap_section_ok(s);
    assigns s->pos, s->err;
    ensures tn_snap_section_ok(s);
    ensures \result <= max && \result * each <= s->len - s->pos;
    ensures \old(s->err) != 0 ==> \result == 0 && s->err == \old(s->err); */
TN_API uint32_t tn_snap_get_count(struct tn_snap_section *s, uint32_t max, uint32_t each);

/* The next len bytes, copied; zeroes if they are not there. */
TN_API void tn_snap_get_bytes(struct tn_snap_section *s, void *dst, size_t len);

/* The next len bytes where they are in the file; NULL if they are not there. */
/*@ requires \valid(s) && tn_snap_section_ok(s);
    assigns s->pos, s->err;
    ensures tn_snap_section_ok(s);
    ensures \result == \null || (\result == s->bytes + \old(s->pos) &&
      \valid_read(\result + (0 .. len - 1)) && s->pos == \old(s->pos) + len);
    ensures \result == \null ==> s->err != 0 && s->pos == \old(s->pos);
    ensures \result != \null ==> s->err == 0;
    ensures \old(s->err) == 0 ==> (\result == \null <==> len > s->len - \old(s->pos));
    ensures \old(s->err) == 0 && \result == \null ==> s->err == TN_ETRUNC;
    ensures \old(s->err) != 0 ==> \result == \null && s->err == \old(s->err); */
TN_API const uint8_t *tn_snap_get_ptr(struct tn_snap_section *s, size_t len);

/* How many bytes are still to be read. */
/*@ requires \valid_read(s) && s->pos <= s->len;
    assigns \nothing;
    ensures \result == s->len - s->pos; */
TN_API size_t tn_snap_section_left(const struct tn_snap_section *s);

/* Makes err the section's error, if it has none yet: for a field whose value is not acceptable. */
/*@ requires \valid(s) && err < 0;
    assigns s->err;
    ensures s->err == (\old(s->err) != 0 ? \old(s->err) : err); */
TN_API void tn_snap_section_fail(struct tn_snap_section *s, int err);

/*
 * Call it after the last field, before any is used. Returns 0; the section's first error; or
 * TN_EFORMAT when bytes are left over.
 */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result == (s->err != 0 ? s->err : s->pos != s->len ? TN_EFORMAT : 0); */
TN_API int tn_snap_section_done(const struct tn_snap_section *s);

/*
 * How many chunks the memory has, and the length of chunk number i; 0 if there is no such chunk.
 */
/*@ requires \valid_read(m);
    assigns \nothing;
    ensures m->chunk == 0 ==> \result == 0;
    ensures m->chunk > 0 ==> \result * m->chunk >= m->len &&
      (m->len > 0 ==> (\result - 1) * m->chunk < m->len) && (m->len == 0 ==> \result == 0); */
TN_API uint64_t tn_snap_chunks(const struct tn_snap_memory *m);
/*@ requires \valid_read(m);
    assigns \nothing;
    ensures \result <= m->chunk;
    ensures \result > 0 <==> m->chunk > 0 && i * m->chunk < m->len;
    ensures \result > 0 ==> i * m->chunk + \result <= m->len &&
      (\result < m->chunk ==> i * m->chunk + \result == m->len); */
TN_API size_t tn_snap_chunk_len(const struct tn_snap_memory *m, uint64_t i);

/*
 * Whether the bytes, of the length that tn_snap_chunk_len says, are those of chunk number i.
 * Returns 0; TN_EPROTO: they are not; TN_EINVAL: there is no such chunk.
 */
TN_API int tn_snap_chunk_check(const struct tn_snap *r, uint64_t i, const uint8_t *bytes);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#define TN_SNAP_MAGIC_         0x706e736e6f6e6574u /* "tenonsnp" */
#define TN_SNAP_KEYED_         1u                  /* the header's flag: the file ends with a MAC */
#define TN_SNAP_TYPE_CHUNKS_   0xfffffffeu
#define TN_SNAP_TYPE_MANIFEST_ 0xffffffffu
#define TN_SNAP_MANIFEST_      112u /* bytes of its payload */
#define TN_SNAP_OWN_VERSION_   1u   /* of both of the format's own sections */

/* Whether n is a size that chunks may have. */
/*@ assigns \nothing;
    ensures \result != 0 ==> TN_SNAP_CHUNK_MIN <= n <= TN_SNAP_CHUNK_MAX; */
static inline bool tn_snap_chunk_ok_(uint32_t n)
{
    return n >= TN_SNAP_CHUNK_MIN && n <= TN_SNAP_CHUNK_MAX && (n & (n - 1)) == 0;
}

TN_API uint64_t tn_snap_chunks(const struct tn_snap_memory *m)
{
    if (m->chunk == 0)
        return 0;
    return m->len / m->chunk + (m->len % m->chunk > 0 ? 1 : 0);
}

TN_API size_t tn_snap_chunk_len(const struct tn_snap_memory *m, uint64_t i)
{
    uint64_t left;

    if (m->chunk == 0 || i > m->len / m->chunk)
        return 0;
    left = m->len - i * m->chunk;
    return left < m->chunk ? (size_t)left : m->chunk;
}

/* ---- the writer ---- */

TN_API void tn_snap_fail(struct tn_snap_writer *w, int err)
{
    if (w->err == 0)
        w->err = err;
}

/* Takes n bytes of the buffer; returns where they begin. */
/*@ requires \valid(w) && tn_snap_writer_ok(w);
    assigns w->len, w->err;
    ensures tn_snap_writer_ok(w);
    ensures \result == \null <==> w->err != 0;
    ensures \old(w->err) != 0 ==> w->err == \old(w->err);
    ensures w->err == 0 ==> \old(w->err) == 0 && w->len == \old(w->len) + n &&
      \result == w->buf + \old(w->len);
    ensures w->err != 0 ==> w->len == \old(w->len); */
static inline uint8_t *tn_snap_take_(struct tn_snap_writer *w, size_t n)
{
    uint8_t *p;

    if (w->err)
        return NULL;
    if (n > w->cap - w->len) {
        tn_snap_fail(w, TN_ENOSPC);
        return NULL;
    }
    p = w->buf + w->len;
    w->len += n;
    return p;
}

/* The same for a field. */
/*@ requires \valid(w) && tn_snap_writer_ok(w);
    assigns w->len, w->err;
    ensures tn_snap_writer_ok(w);
    ensures \result == \null <==> w->err != 0;
    ensures w->err == 0 ==> \old(w->err) == 0 && w->section != 0 &&
      w->len == \old(w->len) + n && \result == w->buf + \old(w->len);
    ensures w->err != 0 ==> w->len == \old(w->len); */
static inline uint8_t *tn_snap_field_(struct tn_snap_writer *w, size_t n)
{
    if (w->section == 0)
        tn_snap_fail(w, TN_ESTATE);
    return tn_snap_take_(w, n);
}

/*@ requires n <= 8 && \valid(w) && tn_snap_writer_ok(w);
    assigns w->len, w->err, w->buf[w->len .. w->cap - 1];
    ensures tn_snap_writer_ok(w);
    ensures w->err == 0 ==> w->len == \old(w->len) + n && w->section != 0;
    ensures w->err != 0 ==> w->len == \old(w->len);
    ensures \forall integer i; 0 <= i < w->cap && (i < \old(w->len) || i >= w->len) ==>
      w->buf[i] == \old(w->buf[i]); */
static inline void tn_snap_put_(struct tn_snap_writer *w, unsigned n, uint64_t v)
{
    uint8_t *p = tn_snap_field_(w, n);

    if (p)
        tn_put_(p, n, v);
}

TN_API void tn_snap_put_u8(struct tn_snap_writer *w, uint8_t value)
{
    tn_snap_put_(w, 1, value);
}

TN_API void tn_snap_put_u16(struct tn_snap_writer *w, uint16_t value)
{
    tn_snap_put_(w, 2, value);
}

TN_API void tn_snap_put_u32(struct tn_snap_writer *w, uint32_t value)
{
    tn_snap_put_(w, 4, value);
}

TN_API void tn_snap_put_u64(struct tn_snap_writer *w, uint64_t value)
{
    tn_snap_put_(w, 8, value);
}

TN_API void tn_snap_put_bytes(struct tn_snap_writer *w, const void *bytes, size_t len)
{
    uint8_t *p = tn_snap_field_(w, len);

    if (p && len > 0)
        __builtin_memcpy(p, bytes, len);
}

TN_API uint8_t *tn_snap_put_space(struct tn_snap_writer *w, size_t len)
{
    uint8_t *p = tn_snap_field_(w, len);

    if (p && len > 0)
        __builtin_memset(p, 0, len);
    return p;
}

TN_API void tn_snap_begin(struct tn_snap_writer *w, uint8_t *buf, size_t cap)
{
    w->buf = buf;
    w->cap = cap;
    w->len = cap < TN_SNAP_HEADER ? 0 : TN_SNAP_HEADER;
    w->section = 0;
    w->last = 0;
    w->sections = 0;
    w->err = cap < TN_SNAP_HEADER ? TN_ENOSPC : 0;
    __builtin_memset(w->id, 0, sizeof(w->id));
    tn_sha256_init(&w->sha);
    if (w->len > 0)
        __builtin_memset(buf, 0, w->len); /* no file until tn_snap_finish */
}

/* A section's header; its length and its digest come when it ends. */
static inline void tn_snap_head_put_(struct tn_snap_writer *w, uint32_t type, uint32_t version,
                                     uint32_t instance, uint32_t flags)
{
    uint64_t order = (uint64_t)type << 32 | instance;
    size_t at = w->len;
    uint8_t *p;

    if (w->section != 0 || order < w->last)
        tn_snap_fail(w, TN_ESTATE);
    if (order == w->last)
        tn_snap_fail(w, TN_EEXIST);
    /* The last one is the manifest's. */
    if (w->sections + (type == TN_SNAP_TYPE_MANIFEST_ ? 0u : 1u) >= TN_SNAP_SECTIONS)
        tn_snap_fail(w, TN_ENOSPC);
    p = tn_snap_take_(w, TN_SNAP_SECTION);
    if (!p)
        return;
    tn_put_(p, 4, type);
    tn_put_(p + 4, 4, instance);
    tn_put_(p + 8, 4, version);
    tn_put_(p + 12, 4, flags);
    w->section = at;
    w->last = order;
    w->sections++;
}

TN_API void tn_snap_section_begin(struct tn_snap_writer *w, uint32_t type, uint32_t version,
                                  uint32_t instance, uint32_t flags)
{
    if (type == 0 || type > TN_SNAP_TYPE_MAX || version == 0 || flags > TN_SNAP_REQUIRED)
        tn_snap_fail(w, TN_EINVAL);
    tn_snap_head_put_(w, type, version, instance, flags);
}

TN_API void tn_snap_section_end(struct tn_snap_writer *w)
{
    uint8_t *head;
    size_t len;

    if (w->section == 0)
        tn_snap_fail(w, TN_ESTATE);
    if (w->err)
        return;
    head = w->buf + w->section;
    len = w->len - w->section - TN_SNAP_SECTION;
    tn_put_(head + 16, 8, len);
    tn_sha256_reset(&w->sha);
    tn_sha256_update(&w->sha, head + TN_SNAP_SECTION, len);
    tn_sha256_final(&w->sha, head + 24);
    w->section = 0;
}

static inline void tn_snap_mac_(const uint8_t *bytes, size_t len, const struct tn_snap_key *key,
                                uint8_t mac[TN_SHA256_LEN])
{
    struct tn_sha256_hmac h;

    tn_sha256_hmac_init(&h, key->bytes, key->len);
    tn_sha256_hmac_update(&h, bytes, len);
    tn_sha256_hmac_final(&h, mac);
}

/* The section with the digests of memory. */
static inline void tn_snap_put_chunks_(struct tn_snap_writer *w, const struct tn_snap_memory *m)
{
    uint64_t chunks = tn_snap_chunks(m);

    if (m->len == 0 && m->chunk == 0)
        return;
    if (m->len == 0 || !tn_snap_chunk_ok_(m->chunk) || !m->digests)
        tn_snap_fail(w, TN_EINVAL);
    else if (chunks > w->cap / TN_SHA256_LEN)
        tn_snap_fail(w, TN_ENOSPC);
    tn_snap_head_put_(w, TN_SNAP_TYPE_CHUNKS_, TN_SNAP_OWN_VERSION_, 0, TN_SNAP_REQUIRED);
    if (w->err)
        return;
    tn_snap_put_bytes(w, m->digests, (size_t)chunks * TN_SHA256_LEN);
    tn_snap_section_end(w);
}

/*
 * The digest of the header and of the headers of the sections that end at end: with the digests in
 * them it is one of the whole state, and no byte is hashed twice.
 */
static inline void tn_snap_state_(struct tn_snap_writer *w, size_t end, uint8_t *digest)
{
    tn_sha256_reset(&w->sha);
    tn_sha256_update(&w->sha, w->buf, TN_SNAP_HEADER);
    for (size_t at = TN_SNAP_HEADER; at < end;
         at += TN_SNAP_SECTION + (size_t)tn_get_(w->buf + at + 16, 8))
        tn_sha256_update(&w->sha, w->buf + at, TN_SNAP_SECTION);
    tn_sha256_final(&w->sha, digest);
}

TN_API int64_t tn_snap_finish(struct tn_snap_writer *w, const struct tn_snap_memory *memory,
                              const struct tn_snap_key *key)
{
    size_t end, at, mac = key ? TN_SHA256_LEN : 0;
    uint8_t *p;

    if (key && key->len < TN_SNAP_KEY_MIN)
        tn_snap_fail(w, TN_EINVAL);
    if (memory)
        tn_snap_put_chunks_(w, memory);
    end = w->len;
    tn_snap_head_put_(w, TN_SNAP_TYPE_MANIFEST_, TN_SNAP_OWN_VERSION_, 0, TN_SNAP_REQUIRED);
    at = w->len;
    p = tn_snap_take_(w, TN_SNAP_MANIFEST_ + mac);
    if (!p)
        return w->err;
    w->len = at + TN_SNAP_MANIFEST_; /* the section ends before the MAC */
    tn_put_(w->buf, 8, TN_SNAP_MAGIC_);
    tn_put_(w->buf + 8, 4, TN_SNAP_VERSION);
    tn_put_(w->buf + 12, 4, key ? TN_SNAP_KEYED_ : 0);
    tn_put_(w->buf + 16, 8, w->len + mac);
    tn_put_(w->buf + 24, 4, w->sections);
    __builtin_memset(p, 0, TN_SNAP_MANIFEST_);
    if (memory) {
        tn_put_(p, 8, memory->len);
        tn_put_(p + 8, 4, memory->chunk);
        if (memory->len > 0) {
            size_t list = (size_t)tn_snap_chunks(memory) * TN_SHA256_LEN;

            __builtin_memcpy(p + 16, w->buf + end - list - TN_SHA256_LEN, TN_SHA256_LEN);
        }
        __builtin_memcpy(p + 48, memory->parent, TN_SNAP_ID);
    }
    tn_snap_state_(w, end, p + 80);
    tn_snap_section_end(w);
    __builtin_memcpy(w->id, p - TN_SHA256_LEN, TN_SNAP_ID);
    if (key)
        tn_snap_mac_(w->buf, w->len, key, p + TN_SNAP_MANIFEST_);
    w->len += mac;
    w->err = TN_ESTATE; /* whatever comes now */
    return (int64_t)w->len;
}

/* ---- a section's fields ---- */

TN_API void tn_snap_section_fail(struct tn_snap_section *s, int err)
{
    if (s->err == 0)
        s->err = err;
}

TN_API size_t tn_snap_section_left(const struct tn_snap_section *s)
{
    return s->len - s->pos;
}

TN_API const uint8_t *tn_snap_get_ptr(struct tn_snap_section *s, size_t len)
{
    const uint8_t *p;

    if (s->err)
        return NULL;
    if (len > s->len - s->pos) {
        tn_snap_section_fail(s, TN_ETRUNC);
        return NULL;
    }
    p = s->bytes + s->pos;
    s->pos += len;
    return p;
}

/*@ requires n <= 8 && \valid(s) && tn_snap_section_ok(s);
    assigns s->pos, s->err;
    ensures tn_snap_section_ok(s);
    ensures \old(s->err) == 0 && n <= s->len - \old(s->pos) ==>
      s->err == 0 && s->pos == \old(s->pos) + n;
    ensures \old(s->err) == 0 && n > s->len - \old(s->pos) ==>
      s->err == TN_ETRUNC && s->pos == \old(s->pos) && \result == 0;
    ensures \old(s->err) != 0 ==>
      s->err == \old(s->err) && s->pos == \old(s->pos) && \result == 0; */
static inline uint64_t tn_snap_get_(struct tn_snap_section *s, unsigned n)
{
    const uint8_t *p = tn_snap_get_ptr(s, n);

    return p ? tn_get_(p, n) : 0;
}

TN_API uint8_t tn_snap_get_u8(struct tn_snap_section *s)
{
    return (uint8_t)(tn_snap_get_(s, 1) % 0x100);
}

TN_API uint16_t tn_snap_get_u16(struct tn_snap_section *s)
{
    return (uint16_t)tn_snap_get_(s, 2);
}

TN_API uint32_t tn_snap_get_u32(struct tn_snap_section *s)
{
    return (uint32_t)tn_snap_get_(s, 4);
}

TN_API uint64_t tn_snap_get_u64(struct tn_snap_section *s)
{
    return tn_snap_get_(s, 8);
}

TN_API bool tn_snap_get_bool(struct tn_snap_section *s)
{
    uint8_t value = tn_snap_get_u8(s);

    if (value > 1)
        tn_snap_section_fail(s, TN_ERANGE);
    return value == 1;
}

TN_API uint32_t tn_snap_get_count(struct tn_snap_section *s, uint32_t max, uint32_t each)
{
    uint64_t count = tn_snap_get_(s, 4) % 0x100000000;

    if (count > max) {
        tn_snap_section_fail(s, TN_ERANGE);
        return 0;
    }
    if (each > 0 && count > (s->len - s->pos) / each) {
        tn_snap_section_fail(s, TN_ETRUNC);
        return 0;
    }
    return (uint32_t)count;
}

TN_API void tn_snap_get_bytes(struct tn_snap_section *s, void *dst, size_t len)
{
    const uint8_t *p = tn_snap_get_ptr(s, len);

    if (len == 0)
        return;
    if (p)
        __builtin_memcpy(dst, p, len);
    else
        __builtin_memset(dst, 0, len);
}

TN_API int tn_snap_section_done(const struct tn_snap_section *s)
{
    if (s->err)
        return s->err;
    return s->pos == s->len ? 0 : TN_EFORMAT;
}

/* ---- the reader ---- */

/* What the header says. */
struct tn_snap_head_ {
    size_t body; /* the file's length without the MAC */
    uint32_t version;
    uint32_t sections; /* all of them, the manifest with them */
    bool keyed;
};

/* Whether the bytes begin as a snapshot does, as far as there are any. */
/*@ requires \valid_read(bytes + (0 .. len - 1));
    assigns \nothing; */
static inline bool tn_snap_magic_ok_(const uint8_t *bytes, size_t len)
{
    uint64_t magic = TN_SNAP_MAGIC_;

    /*@ loop invariant 0 <= i <= 8 && i <= len;
        loop assigns i, magic;
        loop variant 8 - i; */
    for (unsigned i = 0; i < 8 && i < len; i++) {
        if (bytes[i] != magic % 256)
            return false;
        magic /= 256;
    }
    return true;
}

/*@ requires \valid_read(bytes + (0 .. len - 1)) && \valid(h);
    requires \separated(h, bytes + (0 .. len - 1));
    assigns *h;
    ensures \result == 0 || \result == TN_EFORMAT || \result == TN_ETRUNC ||
      \result == TN_EUNSUP || \result == TN_ERANGE;
    ensures \result == 0 ==> len >= TN_SNAP_HEADER && 1 <= h->version <= TN_SNAP_VERSION &&
      TN_SNAP_HEADER <= h->body && h->body == (h->keyed ? len - TN_SHA256_LEN : len);
    ensures \result == 0 ==> 1 <= h->sections <= TN_SNAP_SECTIONS &&
      h->sections * TN_SNAP_SECTION <= h->body - TN_SNAP_HEADER; */
static inline int tn_snap_header_(const uint8_t *bytes, size_t len, struct tn_snap_head_ *h)
{
    uint64_t flags, total;

    if (!tn_snap_magic_ok_(bytes, len))
        return TN_EFORMAT;
    if (len < TN_SNAP_HEADER)
        return TN_ETRUNC;
    h->version = (uint32_t)(tn_get_(bytes + 8, 4) % 0x100000000);
    flags = tn_get_(bytes + 12, 4);
    total = tn_get_(bytes + 16, 8);
    h->sections = (uint32_t)(tn_get_(bytes + 24, 4) % 0x100000000);
    if (h->version == 0)
        return TN_EFORMAT;
    if (h->version > TN_SNAP_VERSION || flags > TN_SNAP_KEYED_)
        return TN_EUNSUP;
    if (tn_get_(bytes + 28, 4) != 0)
        return TN_EFORMAT;
    if (len < total)
        return TN_ETRUNC;
    if (len > total)
        return TN_EFORMAT;
    h->keyed = flags == TN_SNAP_KEYED_;
    h->body = len;
    if (h->keyed) {
        if (len < TN_SNAP_HEADER + TN_SHA256_LEN)
            return TN_ETRUNC;
        h->body = len - TN_SHA256_LEN;
    }
    if (h->sections == 0 || h->sections > TN_SNAP_SECTIONS)
        return TN_ERANGE;
    if (h->sections > (h->body - TN_SNAP_HEADER) / TN_SNAP_SECTION)
        return TN_ETRUNC;
    return 0;
}

/* The section whose header is at `at`, in the first end bytes of the file. */
/*@ requires at <= end && \valid_read(bytes + (0 .. end - 1)) && \valid(s);
    requires \separated(s, bytes + (0 .. end - 1));
    assigns *s;
    ensures \result == 0 || \result == TN_ETRUNC;
    ensures \result == 0 ==> tn_snap_section_ok(s) && s->pos == 0 && s->err == 0 &&
      s->bytes == bytes + at + TN_SNAP_SECTION && at + TN_SNAP_SECTION + s->len <= end; */
static inline int tn_snap_step_(const uint8_t *bytes, size_t end, size_t at,
                                struct tn_snap_section *s)
{
    const uint8_t *p = bytes + at;
    uint64_t len;

    if (end - at < TN_SNAP_SECTION)
        return TN_ETRUNC;
    len = tn_get_(p + 16, 8);
    if (len > end - at - TN_SNAP_SECTION)
        return TN_ETRUNC;
    s->type = (uint32_t)(tn_get_(p, 4) % 0x100000000);
    s->instance = (uint32_t)(tn_get_(p + 4, 4) % 0x100000000);
    s->version = (uint32_t)(tn_get_(p + 8, 4) % 0x100000000);
    s->flags = (uint32_t)(tn_get_(p + 12, 4) % 0x100000000);
    s->known = false;
    s->bytes = p + TN_SNAP_SECTION;
    s->len = (size_t)len;
    s->pos = 0;
    s->err = 0;
    return 0;
}

/* Whether a section may follow the one of type and instance *order, whose place it takes there. */
/*@ requires \valid_read(s) && \valid(order) && \separated(s, order);
    assigns *order;
    ensures \result == 0 || \result == TN_EFORMAT || \result == TN_EOVERLAP;
    ensures \result == 0 <==> s->type > 0 && s->version > 0 &&
      tn_snap_order(s->type, s->instance) > \old(*order);
    ensures \result == TN_EOVERLAP ==> tn_snap_order(s->type, s->instance) == \old(*order);
    ensures \result == 0 ==> *order == tn_snap_order(s->type, s->instance); */
static inline int tn_snap_follows_(const struct tn_snap_section *s, uint64_t *order)
{
    uint64_t was = *order;

    if (s->type == 0 || s->version == 0)
        return TN_EFORMAT;
    *order = (uint64_t)s->type * 0x100000000 + s->instance;
    if (*order == was)
        return TN_EOVERLAP;
    return *order > was ? 0 : TN_EFORMAT;
}

/* Whether a section's payload has the digest that its header says. */
/*@ requires \valid(sha) && \valid_read(s) && \valid_read(s->bytes + (-32 .. s->len - 1));
    requires \separated(sha, s, s->bytes + (-32 .. s->len - 1)) && s->len < 0x1000000000000000;
    assigns sha->h[0 .. 7], sha->len, sha->block[0 .. 63];
    ensures \result == 0 || \result == TN_EPROTO; */
static inline int tn_snap_digest_(struct tn_sha256 *sha, const struct tn_snap_section *s)
{
    uint8_t digest[TN_SHA256_LEN];

    tn_sha256_reset(sha);
    tn_sha256_update(sha, s->bytes, s->len);
    tn_sha256_final(sha, digest);
    return tn_sha256_equal(digest, s->bytes - TN_SHA256_LEN) ? 0 : TN_EPROTO;
}

/*
 * Goes through all the sections: they are as many as the header says, each lies whole in the file,
 * they are in order, nothing is between or behind them, and their digests hold. Finds where the
 * format's own sections begin, and the digest of the state.
 */
/*@ requires \valid(r) && \valid(state + (0 .. 31)) && end >= TN_SNAP_HEADER;
    requires \valid_read(r->bytes + (0 .. end - 1)) && count <= TN_SNAP_SECTIONS;
    requires end < 0x1000000000000000;
    requires \separated(r, state + (0 .. 31), r->bytes + (0 .. end - 1));
    assigns r->at, r->end, r->sections, r->sha, state[0 .. 31];
    ensures r->at <= end;
    ensures \result == 0 ==> TN_SNAP_HEADER <= r->end <= end && r->sections <= count; */
static inline int tn_snap_walk_(struct tn_snap *r, size_t end, uint32_t count, uint8_t *state)
{
    struct tn_sha256 heads = r->sha;
    struct tn_snap_section s;
    size_t at = TN_SNAP_HEADER;
    uint64_t order = 0;
    bool own = false;
    int err;

    r->at = at;
    r->end = end;
    r->sections = count;
    tn_sha256_reset(&heads);
    tn_sha256_update(&heads, r->bytes, TN_SNAP_HEADER);
    /*@ loop invariant 0 <= i <= count && TN_SNAP_HEADER <= at <= end;
        loop invariant r->bytes == \at(r->bytes, Pre) && heads.len <= at;
        loop invariant TN_SNAP_HEADER <= r->end <= end && r->sections <= count && r->at <= end;
        loop assigns i, at, order, own, err, s, heads, r->at, r->end, r->sections, r->sha;
        loop variant count - i; */
    for (uint32_t i = 0; i < count; i++) {
        r->at = at;
        err = tn_snap_step_(r->bytes, end, at, &s);
        if (err == 0)
            err = tn_snap_follows_(&s, &order);
        if (err == 0)
            err = tn_snap_digest_(&r->sha, &s);
        if (err)
            return err;
        if (s.type >= TN_SNAP_TYPE_CHUNKS_ && !own) {
            own = true;
            r->end = at;
            r->sections = i;
        }
        if (i + 1 < count)
            tn_sha256_update(&heads, r->bytes + at, TN_SNAP_SECTION);
        at += TN_SNAP_SECTION + s.len;
    }
    r->at = at;
    tn_sha256_final(&heads, state);
    return at == end ? 0 : TN_EFORMAT;
}

/* Whether a section is one of the format's own, and of that type. */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result == 0 ==> s->type == type && s->instance == 0 && s->flags == TN_SNAP_REQUIRED &&
      1 <= s->version <= TN_SNAP_OWN_VERSION_; */
static inline int tn_snap_own_(const struct tn_snap_section *s, uint32_t type)
{
    if (s->type != type || s->instance != 0 || s->flags != TN_SNAP_REQUIRED || s->version == 0)
        return TN_EFORMAT;
    return s->version > TN_SNAP_OWN_VERSION_ ? TN_EUNSUP : 0;
}

/* Checks what the manifest says of memory against the section with the digests; len 0: none. */
/*@ requires \valid_read(m) && \valid_read(root + (0 .. 31)) && \valid_read(list);
    requires list->len > 0 ==> \valid_read(list->bytes + (-32 .. list->len - 1));
    assigns \nothing;
    ensures \result == 0 ==> (m->len == 0 <==> m->chunk == 0) &&
      (m->len > 0 ==> TN_SNAP_CHUNK_MIN <= m->chunk <= TN_SNAP_CHUNK_MAX &&
        list->len % 32 == 0 && list->len / 32 * m->chunk >= m->len &&
        (list->len / 32 - 1) * m->chunk < m->len); */
static inline int tn_snap_memory_(const struct tn_snap_memory *m, const uint8_t *root,
                                  const struct tn_snap_section *list)
{
    const uint8_t none[TN_SHA256_LEN] = {0};

    if (m->len == 0) {
        if (m->chunk != 0 || list->len != 0)
            return TN_ERANGE;
        return tn_sha256_equal(root, none) ? 0 : TN_EPROTO;
    }
    if (!tn_snap_chunk_ok_(m->chunk) || list->len % TN_SHA256_LEN > 0 ||
        list->len / TN_SHA256_LEN != tn_snap_chunks(m))
        return TN_ERANGE;
    return tn_sha256_equal(root, list->bytes - TN_SHA256_LEN) ? 0 : TN_EPROTO;
}

/* Reads the manifest, and the digests of memory that are before it; the sections end at end. */
static inline int tn_snap_manifest_(struct tn_snap *r, size_t end, const uint8_t *state)
{
    struct tn_snap_section list, s;
    const uint8_t *root, *parent, *states;
    int err;

    r->at = r->end;
    if (tn_snap_step_(r->bytes, end, r->at, &s) < 0)
        return TN_EFORMAT; /* the last section is another */
    list = s;
    list.len = 0;
    if (s.type == TN_SNAP_TYPE_CHUNKS_) {
        list.len = s.len;
        err = s.len > 0 ? tn_snap_own_(&s, TN_SNAP_TYPE_CHUNKS_) : TN_EFORMAT;
        if (err)
            return err;
        r->at += TN_SNAP_SECTION + s.len;
        if (tn_snap_step_(r->bytes, end, r->at, &s) < 0)
            return TN_EFORMAT;
    }
    err = tn_snap_own_(&s, TN_SNAP_TYPE_MANIFEST_);
    if (err)
        return err;
    if (end - r->at - TN_SNAP_SECTION != s.len || s.len != TN_SNAP_MANIFEST_)
        return TN_EFORMAT;
    __builtin_memcpy(r->id, s.bytes - TN_SNAP_ID, TN_SNAP_ID);
    r->memory.len = tn_snap_get_u64(&s);
    r->memory.chunk = tn_snap_get_u32(&s);
    if (tn_snap_get_u32(&s) != 0)
        return TN_EFORMAT;
    root = tn_snap_get_ptr(&s, TN_SHA256_LEN);
    parent = tn_snap_get_ptr(&s, TN_SNAP_ID);
    states = tn_snap_get_ptr(&s, TN_SHA256_LEN);
    if (tn_snap_section_done(&s) < 0 || !root || !parent || !states)
        return TN_EBUG; /* its length was checked */
    if (!tn_sha256_equal(states, state))
        return TN_EPROTO;
    err = tn_snap_memory_(&r->memory, root, &list);
    if (err)
        return err;
    r->memory.digests = list.len > 0 ? list.bytes : NULL;
    __builtin_memcpy(r->memory.parent, parent, TN_SNAP_ID);
    return 0;
}

/* Whether the caller can read a section. */
/*@ requires \valid_read(s) && \valid_read(known + (0 .. count - 1));
    assigns \nothing;
    ensures \result != 0 <==> (\exists integer i; 0 <= i < count && known[i].type == s->type &&
      s->version <= known[i].version); */
static inline bool tn_snap_knows_(const struct tn_snap_known *known, size_t count,
                                  const struct tn_snap_section *s)
{
    /*@ loop invariant 0 <= i <= count;
        loop invariant \forall integer k; 0 <= k < i ==>
          known[k].type != s->type || s->version > known[k].version;
        loop assigns i;
        loop variant count - i; */
    for (size_t i = 0; i < count; i++) {
        if (known[i].type == s->type && s->version <= known[i].version)
            return true;
    }
    return false;
}

/* Whether nothing that is required is unknown. All of the file is as it was written, by now. */
static inline int tn_snap_all_known_(struct tn_snap *r)
{
    struct tn_snap_section s;
    size_t at = 0;

    for (r->at = TN_SNAP_HEADER; tn_snap_next(r, &at, &s) > 0; r->at = at) {
        if (s.flags > TN_SNAP_REQUIRED)
            return TN_EUNSUP;
        if (r->known && !s.known && s.flags == TN_SNAP_REQUIRED)
            return TN_EUNSUP;
    }
    return 0;
}

static inline int tn_snap_check_(struct tn_snap *r, size_t len, const struct tn_snap_key *key)
{
    uint8_t digest[TN_SHA256_LEN];
    struct tn_snap_head_ h;
    int err;

    if (key && key->len < TN_SNAP_KEY_MIN)
        return TN_EINVAL;
    err = tn_snap_header_(r->bytes, len, &h);
    if (err)
        return err;
    if (h.keyed != (key != NULL))
        return TN_EPROTO;
    if (key) {
        tn_snap_mac_(r->bytes, h.body, key, digest);
        if (!tn_sha256_equal(digest, r->bytes + h.body))
            return TN_EPROTO;
    }
    r->version = h.version;
    r->keyed = h.keyed;
    err = tn_snap_walk_(r, h.body, h.sections, digest);
    if (err == 0)
        err = tn_snap_manifest_(r, h.body, digest);
    return err == 0 ? tn_snap_all_known_(r) : err;
}

TN_API int tn_snap_open(struct tn_snap *r, const uint8_t *bytes, size_t len,
                        const struct tn_snap_key *key, const struct tn_snap_known *known,
                        size_t known_count)
{
    size_t at;
    int err;

    __builtin_memset(r, 0, sizeof(*r));
    tn_sha256_init(&r->sha);
    r->bytes = bytes;
    r->known = known;
    r->known_count = known ? known_count : 0;
    err = tn_snap_check_(r, len, key);
    at = r->at;
    if (err)
        __builtin_memset(r, 0, sizeof(*r));
    r->at = err ? at : 0;
    return err;
}

TN_API int tn_snap_next(const struct tn_snap *r, size_t *at, struct tn_snap_section *s)
{
    size_t from = *at > 0 ? *at : TN_SNAP_HEADER;

    if (from >= r->end || tn_snap_step_(r->bytes, r->end, from, s) < 0) {
        __builtin_memset(s, 0, sizeof(*s));
        s->err = TN_ESTATE;
        return 0;
    }
    s->known = tn_snap_knows_(r->known, r->known_count, s);
    *at = from + TN_SNAP_SECTION + s->len;
    return 1;
}

TN_API int tn_snap_find(const struct tn_snap *r, uint32_t type, uint32_t instance,
                        struct tn_snap_section *s)
{
    size_t at = 0;

    while (tn_snap_next(r, &at, s) > 0) {
        if (s->type == type && s->instance == instance && s->known)
            return 1;
    }
    return 0;
}

TN_API int tn_snap_chunk_check(const struct tn_snap *r, uint64_t i, const uint8_t *bytes)
{
    size_t len = tn_snap_chunk_len(&r->memory, i);
    uint8_t digest[TN_SHA256_LEN];
    struct tn_sha256 sha = r->sha;

    if (len == 0)
        return TN_EINVAL;
    tn_sha256_reset(&sha);
    tn_sha256_update(&sha, bytes, len);
    tn_sha256_final(&sha, digest);
    return tn_sha256_equal(digest, r->memory.digests + (size_t)i * TN_SHA256_LEN) ? 0 : TN_EPROTO;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_SNAP_H */
