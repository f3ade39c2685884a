/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_aml - a checked encoder of AML, the byte code of ACPI's namespace.
 *
 * WHAT
 *   Appends one term after the other to a buffer: scopes, devices, methods, names, data, resource
 *   templates, operation regions and a small set of statements. Lengths and checksums are filled
 *   in when a level ends, in their shortest form. The first mistake sticks: what comes after it
 *   does nothing, and tn_aml_finish returns it, so that a description needs one check at its end.
 *
 * USAGE
 *   uint8_t body[512];
 *   struct tn_aml a;
 *
 *   tn_aml_init(&a, body, sizeof(body));
 *   tn_aml_scope_begin(&a, "\\_SB");
 *   tn_aml_device_begin(&a, "COM1");
 *   tn_aml_hid(&a, "PNP0501");
 *   tn_aml_name(&a, "_CRS");
 *   tn_aml_resources_begin(&a);
 *   tn_aml_io(&a, 0x3f8, 8);
 *   tn_aml_interrupt(&a, 4, TN_AML_EDGE);
 *   tn_aml_end(&a);
 *   tn_aml_end(&a);
 *   tn_aml_end(&a);
 *   if (tn_aml_finish(&a) < 0)
 *       return 1;
 *
 * COMPOSITION
 *   tn_acpi takes the bytes as the body of the DSDT, and has the descriptions of common devices.
 *
 * GUEST TRUST
 *   Nothing is read from the guest. Strings and numbers are the caller's, and are checked where
 *   AML's form depends on them.
 *
 * MEMORY
 *   The caller owns the buffer. A level that ends moves its contents up by the few bytes of its
 *   length; nothing beyond cap is ever touched, and cap may be exactly the final size.
 *
 * THREADS
 *   One thread at a time per struct tn_aml.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   ACPI 6.5: 20.2.2 names, 20.2.3 data, 20.2.4 PkgLength, 20.2.5 terms, 6.4 resource descriptors,
 *   19.3.4 EISA ids.
 *
 * LIMITS
 *   Levels nest TN_AML_DEPTH deep; a level holds less than 256 MiB, a package 255 elements. The
 *   order of terms is checked, not what names refer to. No loops, mutexes or references.
 */
#ifndef TN_AML_H
#define TN_AML_H

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

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_AML_DEPTH 16u /* how deep begin .. end may nest */

/* A level: what lies between a begin and its end. */
struct tn_aml_level {
    size_t start;  /* where its contents begin */
    uint32_t want; /* the kinds of the operands still to come, 2 bits each, the next lowest */
    uint8_t owed;  /* how many those are */
    uint8_t kind;
    uint8_t count; /* a package's elements */
    bool code;     /* inside a method */
};

/* The encoder. The caller reads buf alone, after tn_aml_finish. */
struct tn_aml {
    uint8_t *buf;
    size_t cap;
    size_t len;
    size_t if_end; /* where an If has just ended; 0: none has */
    uint32_t depth;
    int err; /* the first error; 0: none */
    struct tn_aml_level level[TN_AML_DEPTH + 1];
};

/*@ predicate tn_aml_ok(struct tn_aml *a) =
      a->len <= a->cap && a->depth <= TN_AML_DEPTH && \valid(a->buf + (0 .. a->cap - 1)) &&
      \separated(a, a->buf + (0 .. a->cap - 1));
    predicate tn_aml_name_char(integer c) =
      'A' <= c <= 'Z' || '0' <= c <= '9' || c == '_';
    logic integer tn_aml_decode{L}(uint8_t *p, integer n) =
      n == 1 ? \at(p[0], L) :
      n == 2 ? \at(p[0] % 16 + 16 * p[1], L) :
      n == 3 ? \at(p[0] % 16 + 16 * p[1] + 4096 * p[2], L) :
      \at(p[0] % 16 + 16 * p[1] + 4096 * p[2] + 1048576 * p[3], L);
*/

/*
 * Starts an empty description in the cap bytes at buf.
 */
/*@ requires \valid(a);
    assigns *a;
    ensures a->buf == buf && a->cap == cap && a->len == 0 && a->depth == 0 && a->err == 0; */
TN_API void tn_aml_init(struct tn_aml *a, uint8_t *buf, size_t cap);

/*
 * The number of bytes written, or the first error: TN_ENOSPC, no room left in buf, in the nesting,
 * or in a length or count of AML; TN_EINVAL, a bad name, string or number; TN_ESTATE, a term where
 * none of its kind may stand, or a level or an operand that is missing or one too many.
 */
TN_API int64_t tn_aml_finish(const struct tn_aml *a);

/*
 * Makes err the encoder's error, if it has none yet. For descriptions built on this one.
 */
/*@ requires \valid(a);
    assigns a->err;
    ensures a->err == (\old(a->err) != 0 ? \old(a->err) : err); */
TN_API void tn_aml_fail(struct tn_aml *a, int err);

/*
 * Levels. Each begin needs its tn_aml_end. A path is segments of 1 to 4 of A-Z, 0-9 and _, not
 * beginning with a digit, parted by dots, after an optional root \ or parents ^. (20.2.2, 20.2.5)
 */
TN_API void tn_aml_scope_begin(struct tn_aml *a, const char *path);
TN_API void tn_aml_device_begin(struct tn_aml *a, const char *path);
TN_API void tn_aml_method_begin(struct tn_aml *a, const char *path, unsigned args, bool serialized);
TN_API void tn_aml_end(struct tn_aml *a);

/*
 * A name. The one data object that comes next is its value: an integer, string, buffer, package or
 * resource template. (20.2.5.1)
 */
TN_API void tn_aml_name(struct tn_aml *a, const char *path);

/*
 * Data objects: operands of statements, a name's value, elements of packages. A string is of ASCII
 * characters; an EISA id, such as "PNP0501", is 3 of A-Z and 4 of 0-9 and A-F. (20.2.3, 19.3.4)
 */
TN_API void tn_aml_integer(struct tn_aml *a, uint64_t value);
TN_API void tn_aml_string(struct tn_aml *a, const char *text);
TN_API void tn_aml_buffer(struct tn_aml *a, const void *bytes, size_t len);
TN_API void tn_aml_eisaid(struct tn_aml *a, const char *id);
TN_API void tn_aml_package_begin(struct tn_aml *a);

/*
 * The names _HID, from an EISA id or an ACPI id such as "LNRO0005" (4 of A-Z and 0-9, then 4 of
 * 0-9 and A-F), and _UID. (6.1.5, 6.1.12)
 */
TN_API void tn_aml_hid(struct tn_aml *a, const char *id);
TN_API void tn_aml_uid(struct tn_aml *a, uint64_t uid);

/*
 * A resource template, for _CRS: the descriptors between this and tn_aml_end, which adds the end
 * tag and its checksum. Ranges are of at least one byte and do not wrap. (6.4)
 */
TN_API void tn_aml_resources_begin(struct tn_aml *a);
TN_API void tn_aml_memory32(struct tn_aml *a, uint32_t base, uint32_t size, bool writable);
TN_API void tn_aml_memory64(struct tn_aml *a, uint64_t base, uint64_t size, bool writable);
TN_API void tn_aml_io(struct tn_aml *a, uint16_t port, uint8_t count);

/* An ISA line 0..15 (edge, active high), and a global interrupt with TN_AML_EDGE .. flags. */
TN_API void tn_aml_irq(struct tn_aml *a, unsigned line);
TN_API void tn_aml_interrupt(struct tn_aml *a, uint32_t gsi, unsigned flags);
#define TN_AML_LEVEL  0x00u /* level-triggered, active high, exclusive */
#define TN_AML_EDGE   0x02u
#define TN_AML_LOW    0x04u
#define TN_AML_SHARED 0x08u
#define TN_AML_WAKE   0x10u

/*
 * An operation region, and the fields in it, from its first bit on: between field_begin and
 * tn_aml_end, units of 1 to 2^28-1 bits with a name of one segment, or without one. (20.2.5.2)
 */
TN_API void tn_aml_region(struct tn_aml *a, const char *path, uint8_t space, uint64_t offset,
                          uint64_t len);
TN_API void tn_aml_field_begin(struct tn_aml *a, const char *region, unsigned flags);
TN_API void tn_aml_field_unit(struct tn_aml *a, const char *name, uint32_t bits);
TN_API void tn_aml_field_skip(struct tn_aml *a, uint32_t bits);
#define TN_AML_SPACE_MEMORY  0u
#define TN_AML_SPACE_IO      1u
#define TN_AML_ACCESS_ANY    0u
#define TN_AML_ACCESS_BYTE   1u
#define TN_AML_ACCESS_WORD   2u
#define TN_AML_ACCESS_DWORD  3u
#define TN_AML_ACCESS_QWORD  4u
#define TN_AML_FIELD_LOCK    0x10u
#define TN_AML_UPDATE_ONES   0x20u /* bits of the unit that are not the field's: 1, not kept */
#define TN_AML_UPDATE_ZEROES 0x40u

/*
 * Statements, in methods only. Each is followed by its operands, in the order given here: a term
 * is a data object, a reference, or an operator or call with its own operands.
 * (20.2.5.3, 20.2.5.4, 20.2.6)
 */
TN_API void tn_aml_return(struct tn_aml *a);     /* a term */
TN_API void tn_aml_store(struct tn_aml *a);      /* a term; the reference that takes it */
TN_API void tn_aml_notify(struct tn_aml *a);     /* a reference; a term */
TN_API void tn_aml_if_begin(struct tn_aml *a);   /* a term; then statements, and tn_aml_end */
TN_API void tn_aml_else_begin(struct tn_aml *a); /* right after the end of an If; statements */
TN_API void tn_aml_call(struct tn_aml *a, const char *path, unsigned args); /* 0..7 terms */

/* Operators: two terms (NOT: one); the arithmetic ones then a reference, or tn_aml_discard. */
enum tn_aml_op {
    TN_AML_LAND = 0x90,
    TN_AML_LOR = 0x91,
    TN_AML_LNOT = 0x92,
    TN_AML_EQUAL = 0x93,
    TN_AML_GREATER = 0x94,
    TN_AML_LESS = 0x95,
    TN_AML_ADD = 0x72,
    TN_AML_SUBTRACT = 0x74,
    TN_AML_MULTIPLY = 0x77,
    TN_AML_SHIFT_LEFT = 0x79,
    TN_AML_SHIFT_RIGHT = 0x7a,
    TN_AML_AND = 0x7b,
    TN_AML_OR = 0x7d,
    TN_AML_XOR = 0x7f
};
TN_API void tn_aml_operator(struct tn_aml *a, enum tn_aml_op op);
TN_API void tn_aml_discard(struct tn_aml *a);

/* References: an object, a local variable 0..7, an argument 0..6. A path may be an element too. */
TN_API void tn_aml_path(struct tn_aml *a, const char *path);
TN_API void tn_aml_local(struct tn_aml *a, unsigned n);
TN_API void tn_aml_arg(struct tn_aml *a, unsigned n);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* Where a term may stand: the first four are operands, as struct tn_aml_level's want has them. */
#define TN_AML_TERM_      0u
#define TN_AML_SUPER_     1u /* a reference */
#define TN_AML_DATA_      2u
#define TN_AML_TARGET_    3u /* a reference, or none */
#define TN_AML_ELEMENT_   4u
#define TN_AML_OBJECTS_   5u /* a level of named objects */
#define TN_AML_CODE_      6u /* the same, in a method: statements too */
#define TN_AML_RESOURCES_ 7u
#define TN_AML_FIELDS_    8u

/* Sets of them: where a data object may stand, and so on. */
#define TN_AML_IS_DATA_      (1u << TN_AML_TERM_ | 1u << TN_AML_DATA_ | 1u << TN_AML_ELEMENT_)
#define TN_AML_IS_REFERENCE_ (1u << TN_AML_TERM_ | 1u << TN_AML_SUPER_ | 1u << TN_AML_TARGET_)
#define TN_AML_IS_OBJECT_    (1u << TN_AML_OBJECTS_ | 1u << TN_AML_CODE_)
#define TN_AML_IS_STATEMENT_ (1u << TN_AML_CODE_)
#define TN_AML_IS_TERM_      (1u << TN_AML_TERM_ | 1u << TN_AML_CODE_)

/* The kinds of levels. */
#define TN_AML_KIND_TERMS_     0u
#define TN_AML_KIND_IF_        1u
#define TN_AML_KIND_PACKAGE_   2u
#define TN_AML_KIND_RESOURCES_ 3u
#define TN_AML_KIND_FIELDS_    4u

TN_API void tn_aml_init(struct tn_aml *a, uint8_t *buf, size_t cap)
{
    a->buf = buf;
    a->cap = cap;
    a->len = 0;
    a->if_end = 0;
    a->depth = 0;
    a->err = 0;
    a->level[0].start = 0;
    a->level[0].want = 0;
    a->level[0].owed = 0;
    a->level[0].kind = TN_AML_KIND_TERMS_;
    a->level[0].count = 0;
    a->level[0].code = false;
}

TN_API int64_t tn_aml_finish(const struct tn_aml *a)
{
    if (a->err)
        return a->err;
    return a->depth == 0 && a->level[0].owed == 0 ? (int64_t)a->len : (int64_t)TN_ESTATE;
}

TN_API void tn_aml_fail(struct tn_aml *a, int err)
{
    if (a->err == 0)
        a->err = err;
}

/* Appends the low n bytes of v. */
/*@ requires n <= 8 && \valid(a) && tn_aml_ok(a);
    assigns a->len, a->err, a->buf[a->len .. a->cap - 1];
    ensures tn_aml_ok(a);
    ensures a->err == 0 ==> \old(a->err) == 0 && a->len == \old(a->len) + n;
    ensures a->err != 0 ==> a->len == \old(a->len);
    ensures \old(a->err) != 0 ==> a->err == \old(a->err);
    ensures \forall integer i; 0 <= i < a->cap && (i < \old(a->len) || i >= a->len) ==>
      a->buf[i] == \old(a->buf[i]); */
static inline void tn_aml_put_(struct tn_aml *a, unsigned n, uint64_t v)
{
    if (a->err)
        return;
    if (n > a->cap - a->len) {
        tn_aml_fail(a, TN_ENOSPC);
        return;
    }
    tn_put_(a->buf + a->len, n, v);
    a->len += n;
}

/* Appends n bytes of the caller's. */
/*@ requires \valid(a) && tn_aml_ok(a) && \valid_read(bytes + (0 .. n - 1));
    requires \separated(bytes + (0 .. n - 1), a, a->buf + (0 .. a->cap - 1));
    assigns a->len, a->err, a->buf[a->len .. a->cap - 1];
    ensures tn_aml_ok(a);
    ensures a->err == 0 ==> a->len == \old(a->len) + n &&
      \forall integer i; 0 <= i < n ==> a->buf[\old(a->len) + i] == bytes[i];
    ensures \forall integer i; 0 <= i < a->cap && (i < \old(a->len) || i >= a->len) ==>
      a->buf[i] == \old(a->buf[i]); */
static inline void tn_aml_copy_(struct tn_aml *a, const uint8_t *bytes, size_t n)
{
    uint8_t *p;

    if (a->err)
        return;
    if (n > a->cap - a->len) {
        tn_aml_fail(a, TN_ENOSPC);
        return;
    }
    p = a->buf + a->len;
    /*@ loop invariant 0 <= i <= n;
        loop invariant \forall integer k; 0 <= k < i ==> p[k] == bytes[k];
        loop assigns i, p[0 .. n - 1];
        loop variant n - i; */
    for (size_t i = 0; i < n; i++)
        p[i] = bytes[i];
    a->len += n;
}

/* Moves what lies from at on up by n bytes. */
/*@ requires \valid(a) && tn_aml_ok(a) && at <= a->len;
    assigns a->len, a->err, a->buf[at .. a->cap - 1];
    ensures tn_aml_ok(a);
    ensures a->err == 0 ==> a->len == \old(a->len) + n &&
      \forall integer i; at <= i < \old(a->len) ==> a->buf[i + n] == \old(a->buf[i]);
    ensures a->err != 0 ==> a->len == \old(a->len);
    ensures \forall integer i; 0 <= i < a->cap && (i < at || i >= a->len) ==>
      a->buf[i] == \old(a->buf[i]); */
static inline void tn_aml_gap_(struct tn_aml *a, size_t at, size_t n)
{
    uint8_t *buf = a->buf;

    if (a->err)
        return;
    if (n > a->cap - a->len) {
        tn_aml_fail(a, TN_ENOSPC);
        return;
    }
    /*@ loop invariant at <= i <= a->len;
        loop invariant \forall integer k; i <= k < a->len ==> buf[k + n] == \at(a->buf[k], Pre);
        loop invariant \forall integer k; 0 <= k < i ==> buf[k] == \at(a->buf[k], Pre);
        loop invariant \forall integer k; a->len + n <= k < a->cap ==>
          buf[k] == \at(a->buf[k], Pre);
        loop assigns i, buf[at .. a->cap - 1];
        loop variant i; */
    for (size_t i = a->len; i > at; i--)
        buf[i - 1 + n] = buf[i - 1];
    a->len += n;
}

/* How many bytes a PkgLength takes that is to say v. 0: v is too big. (20.2.4) */
/*@ assigns \nothing;
    ensures \result == (v <= 0x3f ? 1 : v <= 0xfff ? 2 : v <= 0xfffff ? 3 :
      v <= 0xfffffff ? 4 : 0); */
static inline unsigned tn_aml_width_(uint64_t v)
{
    if (v <= 0x3f)
        return 1;
    if (v <= 0xfff)
        return 2;
    if (v <= 0xfffff)
        return 3;
    return v <= 0xfffffff ? 4 : 0;
}

/* The same where the length counts its own bytes, too, as that of a level does. */
/*@ assigns \nothing;
    ensures 0 <= \result <= 4;
    ensures \result == 0 <==> body > 0xfffffff - 4;
    ensures \result > 0 ==> body + \result <=
      (\result == 1 ? 0x3f : \result == 2 ? 0xfff : \result == 3 ? 0xfffff : 0xfffffff); */
static inline unsigned tn_aml_own_width_(uint64_t body)
{
    if (body <= 0x3f - 1)
        return 1;
    if (body <= 0xfff - 2)
        return 2;
    if (body <= 0xfffff - 3)
        return 3;
    return body <= 0xfffffff - 4 ? 4 : 0;
}

/* The PkgLength v in n bytes. (20.2.4) */
/*@ requires 1 <= n <= 4 && \valid(p + (0 .. n - 1));
    requires v <= (n == 1 ? 0x3f : n == 2 ? 0xfff : n == 3 ? 0xfffff : 0xfffffff);
    assigns p[0 .. n - 1];
    ensures tn_aml_decode(p, n) == v;
    ensures p[0] / 64 == n - 1; */
static inline void tn_aml_length_(uint8_t *p, unsigned n, uint32_t v)
{
    uint32_t rest = v / 16;

    if (n == 1) {
        p[0] = (uint8_t)v;
        return;
    }
    p[0] = (uint8_t)((n - 1) * 64 + v % 16);
    /*@ assert p[0] % 16 == v % 16 && p[0] / 64 == n - 1; */
    p[1] = (uint8_t)(rest % 256);
    rest /= 256;
    /*@ assert v == p[0] % 16 + 16 * p[1] + 4096 * rest; */
    if (n > 2) {
        p[2] = (uint8_t)(rest % 256);
        rest /= 256;
    }
    /*@ assert n > 2 ==> v == p[0] % 16 + 16 * p[1] + 4096 * p[2] + 1048576 * rest; */
    if (n > 3)
        p[3] = (uint8_t)rest;
}

/* Whether the term may stand here; if so, the operand or element that it is is taken as given. */
/*@ requires \valid(a) && tn_aml_ok(a);
    assigns a->err, a->level[a->depth];
    ensures tn_aml_ok(a);
    ensures \result == true <==> a->err == 0;
    ensures \old(a->err) != 0 ==> a->err == \old(a->err);
    ensures a->err == 0 ==> \old(a->err) == 0; */
static inline bool tn_aml_take_(struct tn_aml *a, unsigned where)
{
    struct tn_aml_level *l = &a->level[a->depth];
    unsigned here;

    if (a->err)
        return false;
    if (l->kind == TN_AML_KIND_PACKAGE_)
        here = TN_AML_ELEMENT_;
    else if (l->kind == TN_AML_KIND_RESOURCES_)
        here = TN_AML_RESOURCES_;
    else if (l->kind == TN_AML_KIND_FIELDS_)
        here = TN_AML_FIELDS_;
    else if (l->owed > 0)
        here = l->want % 4;
    else
        here = l->code ? TN_AML_CODE_ : TN_AML_OBJECTS_;
    if ((where >> here & 1) == 0) {
        tn_aml_fail(a, TN_ESTATE);
        return false;
    }
    if (here == TN_AML_ELEMENT_) {
        if (l->count == 255) {
            tn_aml_fail(a, TN_ENOSPC);
            return false;
        }
        l->count++;
    } else if (here <= TN_AML_TARGET_) {
        l->owed--;
        l->want /= 4;
    }
    return true;
}

/* One more operand is to come, before those already owed. */
/*@ requires \valid(a) && tn_aml_ok(a) && kind < 4;
    assigns a->err, a->level[a->depth];
    ensures tn_aml_ok(a);
    ensures a->err == 0 ==> \old(a->err) == 0; */
static inline void tn_aml_owe_(struct tn_aml *a, unsigned kind)
{
    struct tn_aml_level *l = &a->level[a->depth];

    if (a->err)
        return;
    if (l->owed >= 16) {
        tn_aml_fail(a, TN_ENOSPC);
        return;
    }
    l->want = l->want % 0x40000000 * 4 + kind;
    l->owed++;
}

/* A level starts here; its length comes when it ends. */
/*@ requires \valid(a) && tn_aml_ok(a) && kind <= 4;
    assigns a->err, a->depth, a->level[0 .. TN_AML_DEPTH];
    ensures tn_aml_ok(a);
    ensures a->err == 0 ==> \old(a->err) == 0 && a->depth == \old(a->depth) + 1; */
static inline void tn_aml_begin_(struct tn_aml *a, unsigned kind, bool code)
{
    struct tn_aml_level *l;

    if (a->err)
        return;
    if (a->depth >= TN_AML_DEPTH) {
        tn_aml_fail(a, TN_ENOSPC);
        return;
    }
    a->depth++;
    l = &a->level[a->depth];
    l->start = a->len;
    l->want = 0;
    l->owed = 0;
    l->kind = (uint8_t)kind;
    l->count = 0;
    l->code = code;
}

/* The length of the name segment at s, 1 to 4; 0: there is none. (20.2.2) */
/*@ requires \exists integer n; 0 <= n && s[n] == 0 && \valid_read(s + (0 .. n));
    assigns \nothing;
    ensures 0 <= \result <= 4;
    ensures \forall integer k; 0 <= k < \result ==> tn_aml_name_char(s[k]);
    ensures \result > 0 ==> !('0' <= s[0] <= '9');
    ensures 0 < \result < 4 ==> !tn_aml_name_char(s[\result]);
    ensures \result == 0 ==> !tn_aml_name_char(s[0]) || '0' <= s[0] <= '9'; */
static inline unsigned tn_aml_segment_(const char *s)
{
    unsigned n = 0;

    if (s[0] >= '0' && s[0] <= '9')
        return 0;
    /*@ loop invariant 0 <= n <= 4;
        loop invariant \forall integer k; 0 <= k < n ==> tn_aml_name_char(s[k]);
        loop assigns n;
        loop variant 4 - n; */
    while (n < 4 && ((s[n] >= 'A' && s[n] <= 'Z') || (s[n] >= '0' && s[n] <= '9') || s[n] == '_'))
        n++;
    return n;
}

/* A segment of n characters, padded to 4. */
static inline void tn_aml_put_segment_(struct tn_aml *a, const char *s, unsigned n)
{
    for (unsigned i = 0; i < 4; i++)
        tn_aml_put_(a, 1, i < n ? (uint8_t)s[i] : (uint8_t)'_');
}

/* A NameString; a bare prefix, such as the root alone, names a thing that is there. (20.2.2) */
static inline void tn_aml_put_path_(struct tn_aml *a, const char *path, bool bare)
{
    const char *s = path, *first;
    unsigned n, count = 0;

    if (*s == '\\') {
        tn_aml_put_(a, 1, (uint8_t)*s++);
    } else {
        while (*s == '^')
            tn_aml_put_(a, 1, (uint8_t)*s++);
    }
    if (*s == 0 && s != path && bare) {
        tn_aml_put_(a, 1, 0);
        return;
    }
    for (first = s;; s++) {
        n = tn_aml_segment_(s);
        s += n;
        count++;
        if (n == 0 || count > 255 || (*s != 0 && *s != '.')) {
            tn_aml_fail(a, TN_EINVAL);
            return;
        }
        if (*s == 0)
            break;
    }
    if (count == 2)
        tn_aml_put_(a, 1, 0x2e);
    else if (count > 2)
        tn_aml_put_(a, 2, 0x2f | count << 8);
    for (s = first; count > 0; count--, s += n + 1) {
        n = tn_aml_segment_(s);
        tn_aml_put_segment_(a, s, n);
    }
}

/* An integer in its shortest form. (20.2.3) */
static inline void tn_aml_put_integer_(struct tn_aml *a, uint64_t v)
{
    unsigned n = v > 0xffffffff ? 8 : v > 0xffff ? 4 : v > 0xff ? 2 : 1;

    if (v > 1)
        tn_aml_put_(a, 1, n == 8 ? 0x0e : n == 4 ? 0x0c : n == 2 ? 0x0b : 0x0a);
    tn_aml_put_(a, n, v); /* ZeroOp and OneOp are their own values */
}

/* A byte of op code, or ExtOpPrefix and one. */
static inline void tn_aml_put_op_(struct tn_aml *a, unsigned op)
{
    if (op > 0xff)
        tn_aml_put_(a, 1, op >> 8);
    tn_aml_put_(a, 1, op & 0xff);
}

/* The bytes at start are a buffer's or a level's: puts what goes before them in its place. */
static inline void tn_aml_close_(struct tn_aml *a, size_t start, const uint8_t *head, unsigned n)
{
    uint8_t length[4];
    uint64_t body = (uint64_t)(a->len - start) + n;
    unsigned width = tn_aml_own_width_(body);

    if (width == 0) {
        tn_aml_fail(a, TN_ENOSPC);
        return;
    }
    tn_aml_length_(length, width, (uint32_t)body + width);
    tn_aml_gap_(a, start, (size_t)width + n);
    if (a->err)
        return;
    for (unsigned i = 0; i < width; i++)
        a->buf[start + i] = length[i];
    for (unsigned i = 0; i < n; i++)
        a->buf[start + width + i] = head[i];
}

/* The same for a buffer's bytes, behind BufferSize and PkgLength. (20.2.5.4) */
static inline void tn_aml_close_buffer_(struct tn_aml *a, size_t start)
{
    uint8_t head[9];
    uint64_t size = (uint64_t)(a->len - start);
    unsigned n = size > 0xffffffff ? 8 : size > 0xffff ? 4 : size > 0xff ? 2 : 1;
    unsigned prefix = size > 1;

    head[0] = n == 8 ? 0x0e : n == 4 ? 0x0c : n == 2 ? 0x0b : 0x0a;
    tn_put_(head + prefix, n, size);
    tn_aml_close_(a, start, head, n + prefix);
}

TN_API void tn_aml_scope_begin(struct tn_aml *a, const char *path)
{
    if (!tn_aml_take_(a, 1u << TN_AML_OBJECTS_))
        return;
    tn_aml_put_op_(a, 0x10);
    tn_aml_begin_(a, TN_AML_KIND_TERMS_, false);
    tn_aml_put_path_(a, path, true);
}

TN_API void tn_aml_device_begin(struct tn_aml *a, const char *path)
{
    if (!tn_aml_take_(a, TN_AML_IS_OBJECT_))
        return;
    tn_aml_put_op_(a, 0x5b82);
    tn_aml_begin_(a, TN_AML_KIND_TERMS_, false);
    tn_aml_put_path_(a, path, false);
}

TN_API void tn_aml_method_begin(struct tn_aml *a, const char *path, unsigned args, bool serialized)
{
    if (!tn_aml_take_(a, TN_AML_IS_OBJECT_))
        return;
    if (args > 7)
        tn_aml_fail(a, TN_EINVAL);
    tn_aml_put_op_(a, 0x14);
    tn_aml_begin_(a, TN_AML_KIND_TERMS_, true);
    tn_aml_put_path_(a, path, false);
    tn_aml_put_(a, 1, args | (serialized ? 8u : 0u));
}

/* The end tag and the checksum of the descriptors. (6.4.2.9) */
static inline void tn_aml_end_tag_(struct tn_aml *a, size_t start)
{
    unsigned sum = 0;

    tn_aml_put_(a, 1, 0x79);
    for (size_t i = start; i < a->len; i++)
        sum += a->buf[i];
    tn_aml_put_(a, 1, (256 - sum % 256) % 256);
}

TN_API void tn_aml_end(struct tn_aml *a)
{
    const struct tn_aml_level *l = &a->level[a->depth];
    uint8_t count = l->count;

    if (a->err)
        return;
    if (a->depth == 0 || l->owed > 0) {
        tn_aml_fail(a, TN_ESTATE);
        return;
    }
    a->depth--;
    if (l->kind == TN_AML_KIND_RESOURCES_) {
        tn_aml_end_tag_(a, l->start);
        tn_aml_close_buffer_(a, l->start);
    } else {
        tn_aml_close_(a, l->start, &count, l->kind == TN_AML_KIND_PACKAGE_ ? 1 : 0);
    }
    if (l->kind == TN_AML_KIND_IF_)
        a->if_end = a->len;
}

TN_API void tn_aml_name(struct tn_aml *a, const char *path)
{
    if (!tn_aml_take_(a, TN_AML_IS_OBJECT_))
        return;
    tn_aml_put_op_(a, 0x08);
    tn_aml_put_path_(a, path, false);
    tn_aml_owe_(a, TN_AML_DATA_);
}

TN_API void tn_aml_integer(struct tn_aml *a, uint64_t value)
{
    if (tn_aml_take_(a, TN_AML_IS_DATA_))
        tn_aml_put_integer_(a, value);
}

TN_API void tn_aml_string(struct tn_aml *a, const char *text)
{
    if (!tn_aml_take_(a, TN_AML_IS_DATA_))
        return;
    tn_aml_put_op_(a, 0x0d);
    for (; *text != 0; text++) {
        if ((uint8_t)*text > 0x7f)
            tn_aml_fail(a, TN_EINVAL);
        tn_aml_put_(a, 1, (uint8_t)*text);
    }
    tn_aml_put_(a, 1, 0);
}

TN_API void tn_aml_buffer(struct tn_aml *a, const void *bytes, size_t len)
{
    size_t start;

    if (!tn_aml_take_(a, TN_AML_IS_DATA_))
        return;
    tn_aml_put_op_(a, 0x11);
    start = a->len;
    tn_aml_copy_(a, (const uint8_t *)bytes, len);
    if (a->err == 0)
        tn_aml_close_buffer_(a, start);
}

/* The value of a hexadecimal digit, in capitals; 16: it is none. */
/*@ assigns \nothing;
    ensures 0 <= \result <= 16;
    ensures '0' <= c <= '9' ==> \result == c - '0';
    ensures 'A' <= c <= 'F' ==> \result == c - 'A' + 10;
    ensures \result == 16 <==> !('0' <= c <= '9' || 'A' <= c <= 'F'); */
static inline unsigned tn_aml_digit_(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    return c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10 : 16;
}

/* The EISA id as the number that AML has for it; false: it is none. (19.3.4) */
static inline bool tn_aml_eisaid_(const char *id, uint32_t *value)
{
    uint32_t v = 0;
    unsigned i;

    *value = 0;
    for (i = 0; i < 3; i++) {
        if (id[i] < 'A' || id[i] > 'Z')
            return false;
        v = v << 5 | (uint32_t)(id[i] - '@');
    }
    for (; i < 7; i++) {
        if (tn_aml_digit_(id[i]) > 15)
            return false;
        v = v << 4 | tn_aml_digit_(id[i]);
    }
    if (id[7] != 0)
        return false;
    *value = v >> 24 | (v >> 8 & 0xff00) | (v & 0xff00) << 8 | v << 24;
    return true;
}

TN_API void tn_aml_eisaid(struct tn_aml *a, const char *id)
{
    uint32_t value;

    if (!tn_aml_take_(a, TN_AML_IS_DATA_))
        return;
    if (!tn_aml_eisaid_(id, &value))
        tn_aml_fail(a, TN_EINVAL);
    tn_aml_put_integer_(a, value);
}

TN_API void tn_aml_package_begin(struct tn_aml *a)
{
    if (!tn_aml_take_(a, TN_AML_IS_DATA_))
        return;
    tn_aml_put_op_(a, 0x12);
    tn_aml_begin_(a, TN_AML_KIND_PACKAGE_, false);
}

/* Whether it is an ACPI id. (6.1.5) */
static inline bool tn_aml_acpiid_(const char *id)
{
    unsigned i;

    for (i = 0; i < 8; i++) {
        if (tn_aml_digit_(id[i]) > 15 && (i > 3 || id[i] < 'A' || id[i] > 'Z'))
            return false;
    }
    return id[8] == 0;
}

TN_API void tn_aml_hid(struct tn_aml *a, const char *id)
{
    uint32_t value;

    tn_aml_name(a, "_HID");
    if (tn_aml_eisaid_(id, &value))
        tn_aml_integer(a, value);
    else if (tn_aml_acpiid_(id))
        tn_aml_string(a, id);
    else
        tn_aml_fail(a, TN_EINVAL);
}

TN_API void tn_aml_uid(struct tn_aml *a, uint64_t uid)
{
    tn_aml_name(a, "_UID");
    tn_aml_integer(a, uid);
}

TN_API void tn_aml_resources_begin(struct tn_aml *a)
{
    if (!tn_aml_take_(a, TN_AML_IS_DATA_))
        return;
    tn_aml_put_op_(a, 0x11);
    tn_aml_begin_(a, TN_AML_KIND_RESOURCES_, false);
}

TN_API void tn_aml_memory32(struct tn_aml *a, uint32_t base, uint32_t size, bool writable)
{
    if (!tn_aml_take_(a, 1u << TN_AML_RESOURCES_))
        return;
    if (size == 0 || size - 1 > UINT32_MAX - base)
        tn_aml_fail(a, TN_EINVAL);
    tn_aml_put_(a, 4, 0x86 | 9u << 8 | (writable ? 1u << 24 : 0));
    tn_aml_put_(a, 4, base);
    tn_aml_put_(a, 4, size);
}

TN_API void tn_aml_memory64(struct tn_aml *a, uint64_t base, uint64_t size, bool writable)
{
    if (!tn_aml_take_(a, 1u << TN_AML_RESOURCES_))
        return;
    if (size == 0 || size - 1 > UINT64_MAX - base)
        tn_aml_fail(a, TN_EINVAL);
    tn_aml_put_(a, 3, 0x8a | 43u << 8);
    tn_aml_put_(a, 3, 0x0d00u | (writable ? 1u << 16 : 0)); /* memory; consumed, both ends fixed */
    tn_aml_put_(a, 8, 0);
    tn_aml_put_(a, 8, base);
    tn_aml_put_(a, 8, base + (size - 1));
    tn_aml_put_(a, 8, 0);
    tn_aml_put_(a, 8, size);
}

TN_API void tn_aml_io(struct tn_aml *a, uint16_t port, uint8_t count)
{
    if (!tn_aml_take_(a, 1u << TN_AML_RESOURCES_))
        return;
    if (count == 0 || count - 1 > 0xffff - port)
        tn_aml_fail(a, TN_EINVAL);
    tn_aml_put_(a, 2, 0x0147); /* all 16 address bits are decoded */
    tn_aml_put_(a, 2, port);
    tn_aml_put_(a, 2, port);
    tn_aml_put_(a, 2, 0x01u | (unsigned)count << 8);
}

TN_API void tn_aml_irq(struct tn_aml *a, unsigned line)
{
    if (!tn_aml_take_(a, 1u << TN_AML_RESOURCES_))
        return;
    if (line > 15) {
        tn_aml_fail(a, TN_EINVAL);
        return;
    }
    tn_aml_put_(a, 1, 0x22);
    tn_aml_put_(a, 2, 1u << line);
}

TN_API void tn_aml_interrupt(struct tn_aml *a, uint32_t gsi, unsigned flags)
{
    if (!tn_aml_take_(a, 1u << TN_AML_RESOURCES_))
        return;
    if ((flags & ~(TN_AML_EDGE | TN_AML_LOW | TN_AML_SHARED | TN_AML_WAKE)) != 0)
        tn_aml_fail(a, TN_EINVAL);
    tn_aml_put_(a, 3, 0x89 | 6u << 8);
    tn_aml_put_(a, 2, 0x0100u | flags | 1u); /* one interrupt, consumed */
    tn_aml_put_(a, 4, gsi);
}

TN_API void tn_aml_region(struct tn_aml *a, const char *path, uint8_t space, uint64_t offset,
                          uint64_t len)
{
    if (!tn_aml_take_(a, TN_AML_IS_OBJECT_))
        return;
    if (len == 0 || len - 1 > UINT64_MAX - offset)
        tn_aml_fail(a, TN_EINVAL);
    tn_aml_put_op_(a, 0x5b80);
    tn_aml_put_path_(a, path, false);
    tn_aml_put_(a, 1, space);
    tn_aml_put_integer_(a, offset);
    tn_aml_put_integer_(a, len);
}

TN_API void tn_aml_field_begin(struct tn_aml *a, const char *region, unsigned flags)
{
    if (!tn_aml_take_(a, TN_AML_IS_OBJECT_))
        return;
    if (flags > 0x5f || (flags & 0x0f) > TN_AML_ACCESS_QWORD)
        tn_aml_fail(a, TN_EINVAL);
    tn_aml_put_op_(a, 0x5b81);
    tn_aml_begin_(a, TN_AML_KIND_FIELDS_, false);
    tn_aml_put_path_(a, region, false);
    tn_aml_put_(a, 1, flags);
}

static inline void tn_aml_put_bits_(struct tn_aml *a, uint32_t bits)
{
    uint8_t length[4];
    unsigned width = tn_aml_width_(bits);

    if (bits == 0 || width == 0) {
        tn_aml_fail(a, TN_EINVAL);
        return;
    }
    tn_aml_length_(length, width, bits);
    tn_aml_copy_(a, length, width);
}

TN_API void tn_aml_field_unit(struct tn_aml *a, const char *name, uint32_t bits)
{
    unsigned n;

    if (!tn_aml_take_(a, 1u << TN_AML_FIELDS_))
        return;
    n = tn_aml_segment_(name);
    if (n == 0 || name[n] != 0)
        tn_aml_fail(a, TN_EINVAL);
    tn_aml_put_segment_(a, name, n);
    tn_aml_put_bits_(a, bits);
}

TN_API void tn_aml_field_skip(struct tn_aml *a, uint32_t bits)
{
    if (!tn_aml_take_(a, 1u << TN_AML_FIELDS_))
        return;
    tn_aml_put_(a, 1, 0);
    tn_aml_put_bits_(a, bits);
}

TN_API void tn_aml_return(struct tn_aml *a)
{
    if (!tn_aml_take_(a, TN_AML_IS_STATEMENT_))
        return;
    tn_aml_put_op_(a, 0xa4);
    tn_aml_owe_(a, TN_AML_TERM_);
}

TN_API void tn_aml_store(struct tn_aml *a)
{
    if (!tn_aml_take_(a, TN_AML_IS_TERM_))
        return;
    tn_aml_put_op_(a, 0x70);
    tn_aml_owe_(a, TN_AML_SUPER_);
    tn_aml_owe_(a, TN_AML_TERM_);
}

TN_API void tn_aml_notify(struct tn_aml *a)
{
    if (!tn_aml_take_(a, TN_AML_IS_STATEMENT_))
        return;
    tn_aml_put_op_(a, 0x86);
    tn_aml_owe_(a, TN_AML_TERM_);
    tn_aml_owe_(a, TN_AML_SUPER_);
}

TN_API void tn_aml_if_begin(struct tn_aml *a)
{
    if (!tn_aml_take_(a, TN_AML_IS_STATEMENT_))
        return;
    tn_aml_put_op_(a, 0xa0);
    tn_aml_begin_(a, TN_AML_KIND_IF_, true);
    tn_aml_owe_(a, TN_AML_TERM_);
}

TN_API void tn_aml_else_begin(struct tn_aml *a)
{
    if (!tn_aml_take_(a, TN_AML_IS_STATEMENT_))
        return;
    if (a->if_end != a->len)
        tn_aml_fail(a, TN_ESTATE);
    tn_aml_put_op_(a, 0xa1);
    tn_aml_begin_(a, TN_AML_KIND_TERMS_, true);
}

TN_API void tn_aml_call(struct tn_aml *a, const char *path, unsigned args)
{
    if (!tn_aml_take_(a, TN_AML_IS_TERM_))
        return;
    if (args > 7) {
        tn_aml_fail(a, TN_EINVAL);
        return;
    }
    tn_aml_put_path_(a, path, false);
    for (; args > 0; args--)
        tn_aml_owe_(a, TN_AML_TERM_);
}

TN_API void tn_aml_operator(struct tn_aml *a, enum tn_aml_op op)
{
    if (!tn_aml_take_(a, TN_AML_IS_TERM_))
        return;
    switch (op) {
    case TN_AML_ADD:
    case TN_AML_SUBTRACT:
    case TN_AML_MULTIPLY:
    case TN_AML_SHIFT_LEFT:
    case TN_AML_SHIFT_RIGHT:
    case TN_AML_AND:
    case TN_AML_OR:
    case TN_AML_XOR:
        tn_aml_owe_(a, TN_AML_TARGET_);
        tn_aml_owe_(a, TN_AML_TERM_);
        break;
    case TN_AML_LAND:
    case TN_AML_LOR:
    case TN_AML_EQUAL:
    case TN_AML_GREATER:
    case TN_AML_LESS:
        tn_aml_owe_(a, TN_AML_TERM_);
        break;
    case TN_AML_LNOT:
        break;
    default:
        tn_aml_fail(a, TN_EINVAL);
        return;
    }
    tn_aml_owe_(a, TN_AML_TERM_);
    tn_aml_put_op_(a, (unsigned)op);
}

TN_API void tn_aml_discard(struct tn_aml *a)
{
    if (tn_aml_take_(a, 1u << TN_AML_TARGET_))
        tn_aml_put_(a, 1, 0);
}

TN_API void tn_aml_path(struct tn_aml *a, const char *path)
{
    if (tn_aml_take_(a, TN_AML_IS_REFERENCE_ | 1u << TN_AML_ELEMENT_))
        tn_aml_put_path_(a, path, false);
}

TN_API void tn_aml_local(struct tn_aml *a, unsigned n)
{
    if (!tn_aml_take_(a, TN_AML_IS_REFERENCE_))
        return;
    if (n > 7)
        tn_aml_fail(a, TN_EINVAL);
    tn_aml_put_op_(a, 0x60 + n);
}

TN_API void tn_aml_arg(struct tn_aml *a, unsigned n)
{
    if (!tn_aml_take_(a, TN_AML_IS_REFERENCE_))
        return;
    if (n > 6)
        tn_aml_fail(a, TN_EINVAL);
    tn_aml_put_op_(a, 0x68 + n);
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif
