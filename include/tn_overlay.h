/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_overlay - copy on write: a disk made of a base that is only read and a sparse overlay.
 *
 * WHAT
 *   The format of an overlay file (a header, a bitmap, the data at their own place), its validator,
 *   and the disk over the two parts. The bitmap has a bit per sector, so that every request is
 *   whole bits and nothing is ever copied up: a write goes to the overlay, and its bits are set.
 *
 * USAGE
 *   static void part_submit(void *ctx, struct tn_disk_req *req)
 *   {
 *       (void)ctx;
 *       req->done(req, TN_OK);
 *   }
 *   static void part_nothing(void *ctx)
 *   {
 *       (void)ctx;
 *   }
 *   ---
 *   static const struct tn_disk_ops ops = {part_submit, part_nothing, part_nothing};
 *   static uint8_t header[TN_OVERLAY_HEADER], bitmap[4096], work[8192];
 *   static struct tn_overlay overlay;
 *   struct tn_overlay_layout layout;
 *   struct tn_disk base = {&ops, NULL, 1u << 20, 512, 512, 0, true, false, false};
 *   struct tn_disk over = base;
 *
 *   if (tn_overlay_build(&layout, base.size, NULL, header, sizeof(header)) < 0)
 *       return 1;
 *   over.size = layout.file_len;
 *   over.read_only = false;
 *   if (tn_overlay_parse(&layout, header, sizeof(header), over.size) < 0 ||
 *       layout.bitmap_len > sizeof(bitmap) || tn_overlay_work(&layout) > sizeof(work))
 *       return 2;
 *   if (tn_overlay_init(&overlay, &layout, &base, &over, bitmap, work) < 0)
 *       return 3;
 *   overlay.disk.ops->drain(overlay.disk.ctx);
 *
 * COMPOSITION
 *   base and over are any two disks; tn_file_overlay joins it with tn_file. The caller reads the
 *   bitmap out of the file before init; from then on it is written back by FLUSH.
 *
 * GUEST TRUST
 *   A header and a bitmap may be a hostile file's: the header names no other file, each of its
 *   numbers is checked against the file's length, and a bit that is set wrongly shows what the
 *   overlay holds at the sector's place. Requests are checked by tn_disk_check.
 *
 * MEMORY
 *   The caller owns everything: struct tn_overlay (about 20 KiB) stays where it is from init on;
 *   the bitmap, one byte for 4 KiB of disk; as much again and a little more as work. Both are
 *   touched only where the disk is written, and so may be mapped memory without a page behind it.
 *
 * THREADS
 *   One call at a time on one overlay and its two parts.
 *
 * CONFIG
 *   TN_OVERLAY_SUBS, parts of requests that are under way at once, 32; TN_OVERLAY_IOVS, iovecs of
 *   one part, 32: a request whose ends cut iovecs in two, and that has more, goes in several parts.
 *
 * SPEC
 *   None: the format is tenon's own. Little-endian, at byte 0 of the file: "tenonovl", version (4
 *   bytes), header size (4), disk size (8), bitmap offset (8), bitmap length (8), data offset (8),
 *   the base's name for itself (32); zeroes up to 4096. Bit s % 8 of byte s / 8 of the bitmap says
 *   that sector s is the overlay's; its bytes are at the data offset + 512 * s.
 *
 * LIMITS
 *   Both parts have blocks of 512 bytes. The base has the disk's size. A FLUSH or an FUA write is
 *   durable with its bits: data, flush, bitmap, flush, so that no crash shows a bit without its
 *   data. After a flush that failed all later ones fail: what is durable is not known any more.
 */
#ifndef TN_OVERLAY_H
#define TN_OVERLAY_H

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

#include "tn_disk.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#ifndef TN_OVERLAY_SUBS
#define TN_OVERLAY_SUBS 32
#endif
#ifndef TN_OVERLAY_IOVS
#define TN_OVERLAY_IOVS 32
#endif

#define TN_OVERLAY_HEADER  4096u        /* bytes of a header */
#define TN_OVERLAY_PAGE    4096u        /* bytes: what bitmap and data are aligned to */
#define TN_OVERLAY_VERSION 1u           /* of the format */
#define TN_OVERLAY_ID      32u          /* bytes of a base's name for itself */
#define TN_OVERLAY_MAX     (1ull << 56) /* bytes of a disk, at most */

/* What a header says; bytes, from the start of the file. */
struct tn_overlay_layout {
    uint64_t size;          /* of the disk, and of its base */
    uint64_t bitmap_offset; /* a multiple of TN_OVERLAY_PAGE, behind the header */
    uint64_t bitmap_len;    /* likewise; a bit per sector, rounded up */
    uint64_t data_offset;   /* likewise; behind the bitmap */
    uint64_t file_len;      /* data_offset + size: the least length of the file */
    uint8_t base_id[TN_OVERLAY_ID];
};

/*@ logic integer tn_overlay_bitmap(integer size) =
      (size / 512 + 32767) / 32768 * TN_OVERLAY_PAGE;
    logic integer tn_overlay_bit(integer k) = k == 0 ? 1 : k == 1 ? 2 : k == 2 ? 4 : k == 3 ? 8 :
      k == 4 ? 16 : k == 5 ? 32 : k == 6 ? 64 : 128;
    predicate tn_overlay_has(integer byte, integer k) = byte / tn_overlay_bit(k) % 2 == 1;
    predicate tn_overlay_is_set{L}(uint8_t *bitmap, integer s) =
      tn_overlay_has(\at(bitmap[s / 8], L), s % 8);
    predicate tn_overlay_ok(struct tn_overlay_layout *l) =
      0 < l->size <= TN_OVERLAY_MAX && l->size % 512 == 0 &&
      l->bitmap_offset >= TN_OVERLAY_HEADER && l->bitmap_offset % TN_OVERLAY_PAGE == 0 &&
      l->bitmap_len == tn_overlay_bitmap(l->size) &&
      l->data_offset % TN_OVERLAY_PAGE == 0 &&
      l->bitmap_offset + l->bitmap_len <= l->data_offset &&
      l->data_offset + l->size == l->file_len;
*/

/*
 * Makes the header of a new overlay for a disk of size bytes; base_id, TN_OVERLAY_ID bytes or NULL
 * for zeroes, is what the caller knows the base by: it is kept, and never looked at. The file is
 * the header and zeroes up to layout->file_len. Returns 0; TN_ENOSPC: cap is below
 * TN_OVERLAY_HEADER; TN_ERANGE: size is 0, no multiple of 512, or above TN_OVERLAY_MAX.
 */
TN_API int tn_overlay_build(struct tn_overlay_layout *layout, uint64_t size, const uint8_t *base_id,
                            uint8_t *header, size_t cap);

/*
 * Reads the first len bytes of a file of file_len bytes. Returns 0; TN_ETRUNC: len is below
 * TN_OVERLAY_HEADER, or the file ends inside what the header announces; TN_EFORMAT: no overlay, or
 * bytes that should be 0; TN_EUNSUP: another version; TN_ERANGE, TN_EOVERLAP: a number that cannot
 * be. After an error *layout is zeroes.
 */
TN_API int tn_overlay_parse(struct tn_overlay_layout *layout, const uint8_t *header, size_t len,
                            uint64_t file_len);

/*
 * Bytes of work memory that tn_overlay_init wants for a layout.
 */
/*@ requires \valid_read(layout) && tn_overlay_ok((struct tn_overlay_layout *)layout);
    assigns \nothing;
    ensures \result >= layout->bitmap_len + 2 * ((layout->bitmap_len / TN_OVERLAY_PAGE + 7) / 8); */
TN_API uint64_t tn_overlay_work(const struct tn_overlay_layout *layout);

/*
 * Whether bit s is set.
 */
/*@ requires \valid_read(bitmap + s / 8);
    assigns \nothing;
    ensures \result != 0 <==> tn_overlay_is_set((uint8_t *)bitmap, s); */
TN_API bool tn_overlay_test(const uint8_t *bitmap, uint64_t s);

/*
 * Sets n bits from bit s on. Returns whether one of them was clear.
 */
/*@ requires s <= TN_OVERLAY_MAX && n <= TN_OVERLAY_MAX;
    requires n > 0 ==> \valid(bitmap + (s / 8 .. (s + n - 1) / 8));
    assigns bitmap[s / 8 .. (s + n - 1) / 8];
    ensures \forall integer b; (s + 7) / 8 <= b < (s + n) / 8 ==> bitmap[b] == 0xff; */
TN_API bool tn_overlay_set(uint8_t *bitmap, uint64_t s, uint64_t n);

/*
 * How many of n bits from bit s on are as bit s is, which *set gets: 1 to n. 0 when n is 0.
 */
/*@ requires s <= TN_OVERLAY_MAX && n <= TN_OVERLAY_MAX;
    requires n > 0 ==> \valid_read(bitmap + (s / 8 .. (s + n - 1) / 8));
    requires \valid(set) && \separated(set, bitmap + (s / 8 .. (s + n - 1) / 8));
    assigns *set;
    ensures \result <= n && (n > 0 ==> \result > 0);
    ensures \forall integer k; s <= k < s + \result ==>
      (tn_overlay_is_set((uint8_t *)bitmap, k) <==> *set != 0);
    ensures 0 < \result < n ==>
      (tn_overlay_is_set((uint8_t *)bitmap, s + \result) <==> *set == 0); */
TN_API uint64_t tn_overlay_run(const uint8_t *bitmap, uint64_t s, uint64_t n, bool *set);

/* A part of a request, under way. */
struct tn_overlay_sub {
    struct tn_disk_req req;
    struct tn_overlay *overlay;
    struct tn_disk_req *parent;
    struct tn_overlay_sub *next; /* free ones */
    bool bounced;                /* it goes through u.bounce */
    struct tn_disk_pos pos;      /* bounced: where in the parent's iovecs */
    struct tn_iov one;           /* bounced: u.bounce */
    union {
        struct tn_iov iov[TN_OVERLAY_IOVS];
        uint8_t bounce[TN_DISK_SECTOR];
    } u;
};

struct tn_overlay_list {
    struct tn_disk_req *head, *tail;
};

/* An overlay. Use disk; the rest is the functions'. */
struct tn_overlay {
    struct tn_disk disk;
    struct tn_disk base;
    struct tn_disk over;
    struct tn_overlay_layout layout;
    uint8_t *live;    /* the bitmap as reads see it */
    uint8_t *stable;  /* its pages as they are written to the file: only what is durable */
    uint8_t *dirty;   /* a bit per page of live: it has bits that the file has not */
    uint8_t *writing; /* the flush under way has taken the page into stable */
    uint64_t pages;
    uint64_t dirty_pages;
    struct tn_overlay_sub *free;
    struct tn_overlay_list wait;     /* not begun; the first may be half begun */
    struct tn_overlay_list finished; /* all parts are done */
    struct tn_overlay_list next;     /* for the next flush */
    struct tn_overlay_list now;      /* for the flush under way */
    struct tn_disk_pos pos;          /* wait.head's: how far it has begun */
    uint64_t begun;                  /* likewise, bytes */
    uint64_t under_way;              /* parts, and meta */
    struct tn_disk_req meta;         /* the flush's own request */
    struct tn_iov meta_iov;
    uint64_t page;   /* the flush: next page to look at */
    int meta_result; /* its last request's */
    uint32_t stage;  /* of the flush */
    bool meta_busy;  /* its request is under way */
    bool lost;       /* a flush has failed */
    bool running;    /* inside tn_overlay_run_all_ */
    struct tn_overlay_sub sub[TN_OVERLAY_SUBS];
};

/*
 * Makes o->disk out of base and over, of which it keeps copies. bitmap has layout->bitmap_len
 * bytes, the file's; work has tn_overlay_work(layout) bytes, all 0. A read-only over makes a
 * read-only disk. Returns 0; TN_EINVAL: base or over has blocks of more than 512 bytes; TN_ERANGE:
 * base is not of the layout's size; TN_ETRUNC: over is shorter than the layout.
 */
TN_API int tn_overlay_init(struct tn_overlay *o, const struct tn_overlay_layout *layout,
                           const struct tn_disk *base, const struct tn_disk *over, uint8_t *bitmap,
                           uint8_t *work);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* Bit s of a bitmap, in its byte. */
/*@ assigns \nothing;
    ensures \result == tn_overlay_bit(s % 8); */
static inline uint8_t tn_overlay_bit_(uint64_t s)
{
    switch (s % 8) {
    case 0:
        return 1;
    case 1:
        return 2;
    case 2:
        return 4;
    case 3:
        return 8;
    case 4:
        return 16;
    case 5:
        return 32;
    case 6:
        return 64;
    default:
        return 128;
    }
}

/* Bytes of the bitmap of a disk of size bytes. */
/*@ requires size <= TN_OVERLAY_MAX;
    assigns \nothing;
    ensures \result == tn_overlay_bitmap(size); */
static inline uint64_t tn_overlay_bitmap_(uint64_t size)
{
    return (size / TN_DISK_SECTOR + 32767) / 32768 * TN_OVERLAY_PAGE;
}

/* Whether the numbers of a layout can be those of a file of file_len bytes. */
/*@ requires \valid_read(l);
    assigns \nothing;
    ensures \result == TN_OK || \result == TN_ERANGE || \result == TN_EOVERLAP ||
      \result == TN_ETRUNC;
    ensures \result == TN_OK <==>
      tn_overlay_ok((struct tn_overlay_layout *)l) && l->file_len <= file_len; */
static inline int tn_overlay_valid_(const struct tn_overlay_layout *l, uint64_t file_len)
{
    if (l->size == 0 || l->size > TN_OVERLAY_MAX || l->size % TN_DISK_SECTOR > 0)
        return TN_ERANGE;
    if (l->bitmap_offset % TN_OVERLAY_PAGE > 0 || l->data_offset % TN_OVERLAY_PAGE > 0 ||
        l->bitmap_len != tn_overlay_bitmap_(l->size))
        return TN_ERANGE;
    if (l->bitmap_offset < TN_OVERLAY_HEADER || l->bitmap_offset > l->data_offset ||
        l->bitmap_len > l->data_offset - l->bitmap_offset)
        return TN_EOVERLAP;
    if (l->data_offset > file_len || l->size > file_len - l->data_offset)
        return TN_ETRUNC;
    return l->file_len == l->data_offset + l->size ? TN_OK : TN_ERANGE;
}

/* The layout of a new overlay. */
/*@ requires \valid(l);
    requires 0 < size <= TN_OVERLAY_MAX && size % 512 == 0;
    assigns *l;
    ensures tn_overlay_ok(l) && l->size == size; */
static inline void tn_overlay_plan_(struct tn_overlay_layout *l, uint64_t size)
{
    l->size = size;
    l->bitmap_offset = TN_OVERLAY_HEADER;
    l->bitmap_len = tn_overlay_bitmap_(size);
    l->data_offset = l->bitmap_offset + l->bitmap_len;
    l->file_len = l->data_offset + size;
}

/* The numbers of a header, as they are. */
/*@ requires \valid(l) && \valid_read(h + (0 .. TN_OVERLAY_HEADER - 1)) &&
      \separated(l, h + (0 .. TN_OVERLAY_HEADER - 1));
    assigns *l; */
static inline void tn_overlay_get_(struct tn_overlay_layout *l, const uint8_t *h)
{
    l->size = tn_get_(h + 16, 8);
    l->bitmap_offset = tn_get_(h + 24, 8);
    l->bitmap_len = tn_get_(h + 32, 8);
    l->data_offset = tn_get_(h + 40, 8);
    /* Any sum is taken here, and refused by the validator. */
    l->file_len = l->size <= TN_OVERLAY_MAX && l->data_offset <= UINT64_MAX - TN_OVERLAY_MAX
                      ? l->data_offset + l->size
                      : 0;
    /*@ loop invariant 0 <= i <= TN_OVERLAY_ID;
        loop assigns i, l->base_id[0 .. TN_OVERLAY_ID - 1];
        loop variant TN_OVERLAY_ID - i; */
    for (uint32_t i = 0; i < TN_OVERLAY_ID; i++)
        l->base_id[i] = h[48 + i];
}

/* The bytes of a header around the numbers. */
/*@ requires \valid_read(h + (0 .. TN_OVERLAY_HEADER - 1));
    assigns \nothing;
    ensures \result == TN_OK || \result == TN_EFORMAT || \result == TN_EUNSUP;
    ensures \result == TN_OK ==>
      (\forall integer i; 80 <= i < TN_OVERLAY_HEADER ==> h[i] == 0); */
static inline int tn_overlay_frame_(const uint8_t *h)
{
    static const uint8_t magic[8] = {'t', 'e', 'n', 'o', 'n', 'o', 'v', 'l'};

    /*@ loop invariant 0 <= i <= 8;
        loop assigns i;
        loop variant 8 - i; */
    for (uint32_t i = 0; i < 8; i++) {
        if (h[i] != magic[i])
            return TN_EFORMAT;
    }
    if (tn_get_(h + 8, 4) != TN_OVERLAY_VERSION)
        return TN_EUNSUP;
    if (tn_get_(h + 12, 4) != TN_OVERLAY_HEADER)
        return TN_EFORMAT;
    /*@ loop invariant 80 <= i <= TN_OVERLAY_HEADER;
        loop invariant \forall integer k; 80 <= k < i ==> h[k] == 0;
        loop assigns i;
        loop variant TN_OVERLAY_HEADER - i; */
    for (uint32_t i = 80; i < TN_OVERLAY_HEADER; i++) {
        if (h[i] != 0)
            return TN_EFORMAT;
    }
    return TN_OK;
}

TN_API int tn_overlay_parse(struct tn_overlay_layout *layout, const uint8_t *header, size_t len,
                            uint64_t file_len)
{
    struct tn_overlay_layout l;
    int result;

    __builtin_memset(layout, 0, sizeof(*layout));
    if (len < TN_OVERLAY_HEADER || file_len < TN_OVERLAY_HEADER)
        return TN_ETRUNC;
    result = tn_overlay_frame_(header);
    if (result < 0)
        return result;
    tn_overlay_get_(&l, header);
    result = tn_overlay_valid_(&l, file_len);
    if (result == 0)
        *layout = l;
    return result;
}

TN_API int tn_overlay_build(struct tn_overlay_layout *layout, uint64_t size, const uint8_t *base_id,
                            uint8_t *header, size_t cap)
{
    static const uint8_t magic[8] = {'t', 'e', 'n', 'o', 'n', 'o', 'v', 'l'};

    __builtin_memset(layout, 0, sizeof(*layout));
    if (cap < TN_OVERLAY_HEADER)
        return TN_ENOSPC;
    if (size == 0 || size > TN_OVERLAY_MAX || size % TN_DISK_SECTOR)
        return TN_ERANGE;
    tn_overlay_plan_(layout, size);
    if (base_id)
        __builtin_memcpy(layout->base_id, base_id, TN_OVERLAY_ID);
    __builtin_memset(header, 0, TN_OVERLAY_HEADER);
    __builtin_memcpy(header, magic, sizeof(magic));
    tn_put_(header + 8, 4, TN_OVERLAY_VERSION);
    tn_put_(header + 12, 4, TN_OVERLAY_HEADER);
    tn_put_(header + 16, 8, layout->size);
    tn_put_(header + 24, 8, layout->bitmap_offset);
    tn_put_(header + 32, 8, layout->bitmap_len);
    tn_put_(header + 40, 8, layout->data_offset);
    __builtin_memcpy(header + 48, layout->base_id, TN_OVERLAY_ID);
    return 0;
}

/* Bytes of a bitmap of the bitmap's pages, twice of which are at the end of work. */
/*@ requires \valid_read(layout) && tn_overlay_ok((struct tn_overlay_layout *)layout);
    assigns \nothing;
    ensures \result * 8 > layout->bitmap_len / TN_OVERLAY_PAGE;
    ensures \result <= layout->bitmap_len / 32768 + 1; */
static inline uint64_t tn_overlay_marks_(const struct tn_overlay_layout *layout)
{
    return layout->bitmap_len / TN_OVERLAY_PAGE / 8 + 1;
}

TN_API uint64_t tn_overlay_work(const struct tn_overlay_layout *layout)
{
    return layout->bitmap_len + 2 * tn_overlay_marks_(layout);
}

TN_API bool tn_overlay_test(const uint8_t *bitmap, uint64_t s)
{
    return bitmap[s / 8] / tn_overlay_bit_(s) % 2 == 1;
}

/* A byte of a bitmap with one bit more. */
/*@ assigns \nothing;
    ensures tn_overlay_has(byte, s % 8) ==> \result == byte;
    ensures !tn_overlay_has(byte, s % 8) ==>
      \result == (uint8_t)(byte + tn_overlay_bit(s % 8)); */
static inline uint8_t tn_overlay_with_(uint8_t byte, uint64_t s)
{
    uint8_t bit = tn_overlay_bit_(s);

    return byte / bit % 2 == 1 ? byte : (uint8_t)(byte + bit);
}

TN_API bool tn_overlay_set(uint8_t *bitmap, uint64_t s, uint64_t n)
{
    uint64_t end = s + n;
    uint8_t byte;
    bool changed = false;

    /*@ loop invariant \at(s, Pre) <= s <= end;
        loop invariant s % 8 == 0 || s / 8 < (\at(s, Pre) + 7) / 8 || end - s / 8 * 8 < 8;
        loop invariant \forall integer b; (\at(s, Pre) + 7) / 8 <= b < s / 8 ==>
          bitmap[b] == 0xff;
        loop assigns s, byte, changed, bitmap[\at(s, Pre) / 8 .. (end - 1) / 8];
        loop variant end - s; */
    while (s < end) {
        if (s % 8 == 0 && end - s >= 8)
            byte = 0xff;
        else
            byte = tn_overlay_with_(bitmap[s / 8], s);
        if (bitmap[s / 8] != byte) {
            bitmap[s / 8] = byte;
            changed = true;
        }
        s += s % 8 == 0 && end - s >= 8 ? 8 : 1;
    }
    return changed;
}

TN_API uint64_t tn_overlay_run(const uint8_t *bitmap, uint64_t s, uint64_t n, bool *set)
{
    uint64_t end = s + n, at = s;
    uint8_t whole;
    bool first = n > 0 && tn_overlay_test(bitmap, s);

    //@ assert \forall integer k; 0 <= k < 8 ==> tn_overlay_has(255, k);
    //@ assert \forall integer k; 0 <= k < 8 ==> !tn_overlay_has(0, k);
    *set = first;
    whole = first ? 0xff : 0;
    /*@ loop invariant s <= at <= end;
        loop invariant \forall integer k; s <= k < at ==>
          (tn_overlay_is_set((uint8_t *)bitmap, k) <==> first != 0);
        loop assigns at;
        loop variant end - at; */
    while (at < end) {
        if (at % 8 == 0 && end - at >= 8 && bitmap[at / 8] == whole) {
            //@ assert \forall integer k; at <= k < at + 8 ==> k / 8 == at / 8;
            at += 8;
        } else if (tn_overlay_test(bitmap, at) == first) {
            at++;
        } else {
            break;
        }
    }
    return at - s;
}

/* ---- the disk. Every change of state ends in tn_overlay_run_all_, and never calls itself. ---- */

enum tn_overlay_stage {
    TN_OVERLAY_IDLE_,
    TN_OVERLAY_DATA_,  /* the data are made durable */
    TN_OVERLAY_BITS_,  /* the bitmap's pages are written */
    TN_OVERLAY_FINAL_, /* they are made durable */
    TN_OVERLAY_TELL_   /* who asked for it is told */
};

static inline void tn_overlay_run_all_(struct tn_overlay *o);

static inline void tn_overlay_append_(struct tn_overlay_list *list, struct tn_disk_req *req)
{
    req->next = NULL;
    if (list->head)
        list->tail->next = req;
    else
        list->head = req;
    list->tail = req;
}

static inline struct tn_disk_req *tn_overlay_take_(struct tn_overlay_list *list)
{
    struct tn_disk_req *req = list->head;

    list->head = req->next;
    req->next = NULL;
    return req;
}

/*
 * While the overlay has a request: scratch[0] is the number of its parts that are under way;
 * scratch[1] its result's absolute value, and this when it is durable as soon as it is done.
 */
#define TN_OVERLAY_THROUGH_ 0x80000000u

static inline int tn_overlay_result_(const struct tn_disk_req *req)
{
    return -(int)(req->scratch[1] & (TN_OVERLAY_THROUGH_ - 1));
}

static inline void tn_overlay_fail_(struct tn_disk_req *req, int result)
{
    if (result < 0 && tn_overlay_result_(req) == 0)
        req->scratch[1] |= (uint32_t)-result;
}

/* What was begun in a completion, no asker will kick. */
static inline void tn_overlay_kick_(void *ctx)
{
    struct tn_overlay *o = (struct tn_overlay *)ctx;

    o->base.ops->kick(o->base.ctx);
    o->over.ops->kick(o->over.ctx);
}

static inline void tn_overlay_sub_done_(struct tn_disk_req *req, int result)
{
    struct tn_overlay_sub *sub = (struct tn_overlay_sub *)req->ctx;
    struct tn_overlay *o = sub->overlay;
    struct tn_disk_req *parent = sub->parent;

    if (result == 0 && sub->bounced)
        tn_disk_copy(req->op, parent->iov, parent->iovs, &sub->pos, sub->u.bounce, TN_DISK_SECTOR);
    sub->next = o->free;
    o->free = sub;
    o->under_way--;
    if (result == TN_ESYS && (req->flags & TN_DISK_F_FUA))
        o->lost = true; /* it may have taken the error of what was written before */
    tn_overlay_fail_(parent, result);
    parent->scratch[0]--;
    if (parent->scratch[0] == 0 && parent != o->wait.head)
        tn_overlay_append_(&o->finished, parent);
    if (!o->running) {
        tn_overlay_run_all_(o);
        tn_overlay_kick_(o);
    }
}

/*
 * Gives part of the request at the head of the list to base or over: len bytes from o->begun on,
 * or fewer, where its iovecs are many.
 */
static inline void tn_overlay_part_(struct tn_overlay *o, bool to_over, uint64_t len)
{
    struct tn_disk_req *parent = o->wait.head;
    struct tn_overlay_sub *sub = o->free;
    const struct tn_disk *to = to_over ? &o->over : &o->base;
    struct tn_disk_pos from = o->pos;
    uint64_t got;

    o->free = sub->next;
    sub->parent = parent;
    sub->bounced = false;
    sub->req.op = parent->op;
    sub->req.flags = parent->flags & ~TN_DISK_F_FUA;
    if (parent->scratch[1] & TN_OVERLAY_THROUGH_)
        sub->req.flags |= TN_DISK_F_FUA;
    if (parent->op == TN_DISK_ZERO)
        sub->req.flags |= TN_DISK_F_UNMAP; /* an overlay is sparse */
    sub->req.iov = parent->iov;
    sub->req.iovs = parent->iovs;
    if (len < parent->len) { /* only a READ goes in parts */
        sub->req.iov = sub->u.iov;
        sub->req.iovs = tn_disk_slice(parent->iov, parent->iovs, &o->pos, len, sub->u.iov,
                                      TN_OVERLAY_IOVS, &got);
        if (got % TN_DISK_SECTOR > 0) {
            /* Whole sectors of it; what follows them is for the next part. */
            got -= got % TN_DISK_SECTOR;
            o->pos = from;
            sub->req.iovs = tn_disk_slice(parent->iov, parent->iovs, &o->pos, got, sub->u.iov,
                                          TN_OVERLAY_IOVS, &got);
        }
        len = got;
        if (len == 0) {
            /* Not one sector is in so many iovecs. */
            len = TN_DISK_SECTOR;
            sub->bounced = true;
            sub->pos = from;
            sub->one.base = sub->u.bounce;
            sub->one.len = TN_DISK_SECTOR;
            sub->req.iov = &sub->one;
            sub->req.iovs = 1;
            tn_disk_skip(parent->iov, parent->iovs, &o->pos, len);
        }
    }
    sub->req.offset = parent->offset + o->begun + (to_over ? o->layout.data_offset : 0);
    sub->req.len = len;
    o->begun += len;
    parent->scratch[0]++;
    o->under_way++;
    to->ops->submit(to->ctx, &sub->req);
}

/* Whether what is written to n sectors from s on is durable without a change of the bitmap. */
static inline bool tn_overlay_settled_(const struct tn_overlay *o, uint64_t s, uint64_t n)
{
    bool set;

    return !o->lost && o->dirty_pages == 0 && o->stage == TN_OVERLAY_IDLE_ &&
           tn_overlay_run(o->live, s, n, &set) == n && set;
}

/* The request at the head of the list goes on its way, as far as it can. */
static inline bool tn_overlay_begin_(struct tn_overlay *o)
{
    struct tn_disk_req *req = o->wait.head;
    uint64_t s, n;
    bool over = true, moved = false;
    int result;

    if (o->begun == 0 && req->scratch[0] == 0) {
        result = tn_disk_check(&o->disk, req);
        if (result == 0 && req->op == TN_DISK_FLUSH) {
            tn_overlay_append_(&o->next, tn_overlay_take_(&o->wait));
            return true;
        }
        tn_overlay_fail_(req, result);
        if (result == 0 && req->op != TN_DISK_READ && (req->flags & TN_DISK_F_FUA) &&
            tn_overlay_settled_(o, req->offset / TN_DISK_SECTOR, req->len / TN_DISK_SECTOR))
            req->scratch[1] |= TN_OVERLAY_THROUGH_;
    }
    while (tn_overlay_result_(req) == 0 && o->begun < req->len && o->free) {
        n = (req->len - o->begun) / TN_DISK_SECTOR;
        s = (req->offset + o->begun) / TN_DISK_SECTOR;
        if (req->op == TN_DISK_READ)
            n = tn_overlay_run(o->live, s, n, &over);
        tn_overlay_part_(o, over, n * TN_DISK_SECTOR);
        moved = true;
    }
    if (tn_overlay_result_(req) == 0 && o->begun < req->len)
        return moved;
    req = tn_overlay_take_(&o->wait);
    o->begun = 0;
    o->pos.iov = 0;
    o->pos.off = 0;
    if (req->scratch[0] == 0)
        tn_overlay_append_(&o->finished, req);
    return true;
}

/* The sectors are the overlay's from now on. */
static inline void tn_overlay_own_(struct tn_overlay *o, uint64_t s, uint64_t n)
{
    const uint64_t bits = 8ull * TN_OVERLAY_PAGE;
    uint64_t part;

    for (; n > 0; s += part, n -= part) {
        part = bits - s % bits;
        if (part > n)
            part = n;
        if (tn_overlay_set(o->live, s, part) && tn_overlay_set(o->dirty, s / bits, 1))
            o->dirty_pages++;
    }
}

/* All parts of a request are done. */
static inline void tn_overlay_end_(struct tn_overlay *o, struct tn_disk_req *req)
{
    int result = tn_overlay_result_(req);

    if (result == 0 && req->op != TN_DISK_READ) {
        tn_overlay_own_(o, req->offset / TN_DISK_SECTOR, req->len / TN_DISK_SECTOR);
        if ((req->flags & TN_DISK_F_FUA) && !(req->scratch[1] & TN_OVERLAY_THROUGH_)) {
            tn_overlay_append_(&o->next, req);
            return;
        }
    }
    req->done(req, result);
}

static inline void tn_overlay_meta_done_(struct tn_disk_req *req, int result)
{
    struct tn_overlay *o = (struct tn_overlay *)req->ctx;

    o->meta_busy = false;
    o->meta_result = result;
    o->under_way--;
    if (!o->running) {
        tn_overlay_run_all_(o);
        tn_overlay_kick_(o);
    }
}

/* The flush's own request: of the overlay's data, or len bytes of its bitmap from offset on. */
static inline void tn_overlay_meta_(struct tn_overlay *o, uint64_t offset, uint64_t len)
{
    o->meta_iov.base = o->stable + offset;
    o->meta_iov.len = (size_t)len;
    o->meta.op = len > 0 ? TN_DISK_WRITE : TN_DISK_FLUSH;
    o->meta.flags = 0;
    o->meta.offset = len > 0 ? o->layout.bitmap_offset + offset : 0;
    o->meta.len = len;
    o->meta.iov = &o->meta_iov;
    o->meta.iovs = len > 0;
    o->meta_busy = true;
    o->under_way++;
    o->over.ops->submit(o->over.ctx, &o->meta);
}

/* The next pages of a bitmap of pages that are marked, from o->page on: how many, from *first. */
static inline uint64_t tn_overlay_marked_(const struct tn_overlay *o, const uint8_t *marks,
                                          uint64_t from, uint64_t *first)
{
    bool set = false;
    uint64_t n = 0;

    while (from < o->pages) {
        n = tn_overlay_run(marks, from, o->pages - from, &set);
        if (set)
            break;
        from += n;
    }
    *first = from;
    return set ? n : 0;
}

/* Takes the dirty pages, as they are now: all their bits are of data that the flush will cover. */
static inline void tn_overlay_snapshot_(struct tn_overlay *o)
{
    uint64_t first = 0, n;

    if (o->dirty_pages == 0)
        return;
    while ((n = tn_overlay_marked_(o, o->dirty, first, &first)) > 0) {
        __builtin_memcpy(o->stable + first * TN_OVERLAY_PAGE, o->live + first * TN_OVERLAY_PAGE,
                         (size_t)n * TN_OVERLAY_PAGE);
        tn_overlay_set(o->writing, first, n);
        first += n;
    }
    __builtin_memset(o->dirty, 0, (size_t)tn_overlay_marks_(&o->layout));
    o->dirty_pages = 0;
}

/* The flush ends; without success its pages are dirty again. */
static inline void tn_overlay_flushed_(struct tn_overlay *o)
{
    uint64_t first = 0, n;

    while ((n = tn_overlay_marked_(o, o->writing, first, &first)) > 0) {
        for (; n > 0; n--, first++) {
            if (o->meta_result < 0 && tn_overlay_set(o->dirty, first, 1))
                o->dirty_pages++;
        }
    }
    __builtin_memset(o->writing, 0, (size_t)tn_overlay_marks_(&o->layout));
    o->stage = TN_OVERLAY_TELL_;
}

/* One step of the flush. Returns whether there was one to take. */
static inline bool tn_overlay_flush_(struct tn_overlay *o)
{
    struct tn_disk_req *req;
    uint64_t n;

    if (o->meta_busy)
        return false;
    switch (o->stage) {
    case TN_OVERLAY_IDLE_:
        if (!o->next.head)
            return false;
        o->now = o->next;
        o->next.head = NULL;
        o->meta_result = TN_ESYS;
        if (o->lost) {
            o->stage = TN_OVERLAY_TELL_;
            return true;
        }
        tn_overlay_snapshot_(o);
        o->stage = TN_OVERLAY_DATA_;
        tn_overlay_meta_(o, 0, 0);
        return true;
    case TN_OVERLAY_DATA_:
        if (o->lost)
            o->meta_result = TN_ESYS;
        o->lost = o->meta_result < 0;
        o->page = 0;
        o->stage = TN_OVERLAY_BITS_;
        if (o->lost)
            tn_overlay_flushed_(o);
        return true;
    case TN_OVERLAY_BITS_:
        n = o->meta_result < 0 ? 0 : tn_overlay_marked_(o, o->writing, o->page, &o->page);
        if (n > 0) {
            if (n > 256)
                n = 256;
            tn_overlay_meta_(o, o->page * TN_OVERLAY_PAGE, n * TN_OVERLAY_PAGE);
            o->page += n;
        } else if (o->meta_result < 0 || tn_overlay_marked_(o, o->writing, 0, &n) == 0) {
            tn_overlay_flushed_(o); /* without a bit to write, that was all */
        } else {
            o->stage = TN_OVERLAY_FINAL_;
            tn_overlay_meta_(o, 0, 0);
        }
        return true;
    case TN_OVERLAY_FINAL_:
        if (o->lost)
            o->meta_result = TN_ESYS;
        o->lost = o->meta_result < 0;
        tn_overlay_flushed_(o);
        return true;
    default:
        if (!o->now.head) {
            o->stage = TN_OVERLAY_IDLE_;
            return true;
        }
        req = tn_overlay_take_(&o->now);
        req->done(req, o->meta_result);
        return true;
    }
}

/* Does what can be done now. */
static inline void tn_overlay_run_all_(struct tn_overlay *o)
{
    if (o->running)
        return;
    o->running = true;
    for (;;) {
        if (o->finished.head)
            tn_overlay_end_(o, tn_overlay_take_(&o->finished));
        else if (!tn_overlay_flush_(o) && (!o->wait.head || !tn_overlay_begin_(o)))
            break;
    }
    o->running = false;
}

static inline void tn_overlay_submit_(void *ctx, struct tn_disk_req *req)
{
    struct tn_overlay *o = (struct tn_overlay *)ctx;

    req->scratch[0] = 0;
    req->scratch[1] = 0;
    tn_overlay_append_(&o->wait, req);
    tn_overlay_run_all_(o);
}

static inline void tn_overlay_drain_(void *ctx)
{
    struct tn_overlay *o = (struct tn_overlay *)ctx;

    while (o->under_way > 0) {
        o->base.ops->drain(o->base.ctx);
        o->over.ops->drain(o->over.ctx);
    }
}

TN_API int tn_overlay_init(struct tn_overlay *o, const struct tn_overlay_layout *layout,
                           const struct tn_disk *base, const struct tn_disk *over, uint8_t *bitmap,
                           uint8_t *work)
{
    static const struct tn_disk_ops ops = {tn_overlay_submit_, tn_overlay_kick_, tn_overlay_drain_};

    __builtin_memset(o, 0, sizeof(*o));
    if (base->block_size != TN_DISK_SECTOR || over->block_size != TN_DISK_SECTOR)
        return TN_EINVAL;
    if (base->size != layout->size)
        return TN_ERANGE;
    if (over->size < layout->file_len)
        return TN_ETRUNC;
    o->disk = *over;
    o->disk.ops = &ops;
    o->disk.ctx = o;
    o->disk.size = layout->size;
    if (o->disk.physical_block < base->physical_block)
        o->disk.physical_block = base->physical_block;
    o->base = *base;
    o->over = *over;
    o->layout = *layout;
    o->pages = layout->bitmap_len / TN_OVERLAY_PAGE;
    o->live = bitmap;
    o->stable = work;
    o->dirty = work + layout->bitmap_len;
    o->writing = o->dirty + tn_overlay_marks_(layout);
    for (uint32_t i = 0; i < TN_OVERLAY_SUBS; i++) {
        o->sub[i].overlay = o;
        o->sub[i].req.done = tn_overlay_sub_done_;
        o->sub[i].req.ctx = &o->sub[i];
        o->sub[i].next = o->free;
        o->free = &o->sub[i];
    }
    o->meta.done = tn_overlay_meta_done_;
    o->meta.ctx = o;
    return 0;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_OVERLAY_H */
