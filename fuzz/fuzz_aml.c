/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A stream of terms into the encoder. Properties: nothing is written beyond cap; the first error
 * stays; what is finished without one is AML that a reader of its own walks to its last byte, each
 * length being right and in its shortest form; the same terms fit a buffer of exactly that size,
 * and no smaller one.
 */
#include "tn_aml.h"

#include "fuzz.h"

#define ROOM      8192
#define MAX_TERMS 1000

/* -- the reader: AML by the specification's grammar, as far as the encoder goes -- */

struct walk {
    const uint8_t *p;
    const uint8_t *end;
};

static uint8_t byte(struct walk *w)
{
    FZ_ASSERT(w->p < w->end);
    return *w->p++;
}

static uint64_t number(struct walk *w, unsigned n)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < n; i++)
        v |= (uint64_t)byte(w) << 8 * i;
    return v;
}

/* A PkgLength's value. */
static uint32_t length(struct walk *w)
{
    uint8_t lead = byte(w);
    unsigned more = lead >> 6;
    uint32_t v = lead & 0x3f;

    if (more) {
        FZ_ASSERT((lead & 0x30) == 0);
        v = (uint32_t)(lead & 0x0f) | (uint32_t)number(w, more) << 4;
        FZ_ASSERT(v > (more == 1 ? 0x3fu : more == 2 ? 0xfffu : 0xfffffu));
    }
    return v;
}

/* What the PkgLength here spans, behind it; a length whose own bytes made it longer is right. */
static struct walk package(struct walk *w)
{
    const uint8_t *start = w->p;
    struct walk in;
    unsigned more = *start >> 6;
    uint32_t v;

    if (more) { /* only "shortest", counting its own bytes: one byte fewer would not have done */
        struct walk copy = *w;

        FZ_ASSERT((byte(&copy) & 0x30) == 0);
        v = (uint32_t)(*start & 0x0f) | (uint32_t)number(&copy, more) << 4;
        FZ_ASSERT(v - 1 > (more == 1 ? 0x3fu : more == 2 ? 0xfffu : 0xfffffu));
        w->p = copy.p;
    } else {
        v = byte(w);
    }
    FZ_ASSERT(v <= (size_t)(w->end - start));
    in.p = w->p;
    in.end = start + v;
    FZ_ASSERT(in.p <= in.end);
    w->p = in.end;
    return in;
}

static void segment(struct walk *w, uint8_t name[4])
{
    for (unsigned i = 0; i < 4; i++) {
        name[i] = byte(w);
        FZ_ASSERT((name[i] >= 'A' && name[i] <= 'Z') || name[i] == '_' ||
                  (i > 0 && name[i] >= '0' && name[i] <= '9'));
    }
}

/* A NameString; returns how many arguments a call by that name has: F0 .. F7 have as many. */
static unsigned path(struct walk *w, bool bare)
{
    uint8_t name[4] = {0};
    unsigned n = 1;
    bool prefix = false;

    FZ_ASSERT(w->p < w->end);
    if (*w->p == '\\') {
        prefix = true;
        w->p++;
    } else {
        for (; w->p < w->end && *w->p == '^'; w->p++)
            prefix = true;
    }
    FZ_ASSERT(w->p < w->end);
    if (*w->p == 0) {
        FZ_ASSERT(bare && prefix);
        w->p++;
        return 0;
    }
    if (*w->p == 0x2e) {
        w->p++;
        n = 2;
    } else if (*w->p == 0x2f) {
        w->p++;
        n = byte(w);
        FZ_ASSERT(n > 2);
    }
    for (; n > 0; n--)
        segment(w, name);
    return name[0] == 'F' && name[1] >= '0' && name[1] <= '7' ? name[1] - '0' : 0;
}

static void integer(struct walk *w)
{
    uint8_t op = byte(w);
    uint64_t v;

    switch (op) {
    case 0x00:
    case 0x01:
        return;
    case 0x0a:
        v = number(w, 1);
        FZ_ASSERT(v > 1);
        return;
    case 0x0b:
        v = number(w, 2);
        FZ_ASSERT(v > 0xff);
        return;
    case 0x0c:
        v = number(w, 4);
        FZ_ASSERT(v > 0xffff);
        return;
    case 0x0e:
        v = number(w, 8);
        FZ_ASSERT(v > 0xffffffff);
        return;
    default:
        FZ_ASSERT(false && "an integer");
    }
}

/* Resource descriptors, to the end tag. */
static void resources(struct walk w)
{
    const uint8_t *start = w.p;
    uint8_t sum = 0;

    for (;;) {
        uint8_t tag = byte(&w);

        if (tag == 0x79)
            break;
        FZ_ASSERT(tag == 0x86 || tag == 0x8a || tag == 0x89 || tag == 0x47 || tag == 0x22);
        for (uint64_t n = tag & 0x80 ? number(&w, 2) : tag & 7u; n > 0; n--)
            byte(&w);
    }
    byte(&w);
    FZ_ASSERT(w.p == w.end);
    for (; start < w.end; start++)
        sum = (uint8_t)(sum + *start);
    FZ_ASSERT(sum == 0);
}

/* A buffer: a template, unless its first byte is 0xee, with which the harness marks its own. */
static void buffer(struct walk *w)
{
    struct walk in, size;
    uint64_t n;

    byte(w);
    in = package(w);
    FZ_ASSERT(in.p < in.end);
    size = in;
    integer(&in);
    n = *size.p < 2 ? *size.p : 0;
    if (*size.p >= 2) {
        size.end = in.p;
        size.p++;
        n = number(&size, (unsigned)(size.end - size.p));
    }
    FZ_ASSERT(n == (size_t)(in.end - in.p));
    if (n > 0 && *in.p != 0xee)
        resources(in);
}

static void term(struct walk *w);

static void terms(struct walk w)
{
    bool after_if = false;

    while (w.p < w.end) {
        FZ_ASSERT(*w.p != 0xa1 || after_if);
        after_if = *w.p == 0xa0;
        term(&w);
    }
}

static void data(struct walk *w)
{
    FZ_ASSERT(w->p < w->end);
    switch (*w->p) {
    case 0x0d:
        w->p++;
        while (byte(w) != 0)
            FZ_ASSERT(w->p[-1] < 0x80);
        return;
    case 0x11:
        buffer(w);
        return;
    case 0x12: {
        struct walk in;
        unsigned n;

        w->p++;
        in = package(w);
        for (n = byte(&in); n > 0; n--) {
            FZ_ASSERT(in.p < in.end);
            if (*in.p >= 0x2e)
                path(&in, false);
            else
                data(&in);
        }
        FZ_ASSERT(in.p == in.end);
        return;
    }
    default:
        integer(w);
    }
}

/* A SuperName; a Target may be none. */
static void reference(struct walk *w, bool none)
{
    FZ_ASSERT(w->p < w->end);
    if ((*w->p >= 0x60 && *w->p <= 0x6e) || (none && *w->p == 0))
        w->p++;
    else
        path(w, false);
}

static void field(struct walk in)
{
    uint8_t name[4];

    path(&in, false);
    FZ_ASSERT((byte(&in) & 0x8f) <= 4);
    while (in.p < in.end) {
        if (*in.p == 0)
            in.p++;
        else
            segment(&in, name);
        FZ_ASSERT(length(&in) > 0);
    }
}

static void term(struct walk *w)
{
    struct walk in;
    unsigned op;

    FZ_ASSERT(w->p < w->end);
    op = *w->p;
    if ((op >= 'A' && op <= 'Z') || op == '_' || op == '\\' || op == '^' || op == '.' ||
        op == '/') {
        for (unsigned n = path(w, false); n > 0; n--)
            term(w);
        return;
    }
    if (op == 0 || op == 1 || (op >= 0x0a && op <= 0x0e) || op == 0x11 || op == 0x12) {
        data(w);
        return;
    }
    w->p++;
    if (op == 0x5b)
        op = 0x5b00u | byte(w);
    switch (op) {
    case 0x08:
        path(w, false);
        data(w);
        break;
    case 0x10:
    case 0x5b82:
        in = package(w);
        path(&in, op == 0x10);
        terms(in);
        break;
    case 0x14:
        in = package(w);
        path(&in, false);
        FZ_ASSERT(byte(&in) < 0x10);
        terms(in);
        break;
    case 0x5b80:
        path(w, false);
        byte(w);
        integer(w);
        integer(w);
        break;
    case 0x5b81:
        field(package(w));
        break;
    case 0xa0:
        in = package(w);
        term(&in);
        terms(in);
        break;
    case 0xa1:
        terms(package(w));
        break;
    case 0xa4:
    case 0x92:
        term(w);
        break;
    case 0x70:
        term(w);
        reference(w, false);
        break;
    case 0x86:
        reference(w, false);
        term(w);
        break;
    case 0x90:
    case 0x91:
    case 0x93:
    case 0x94:
    case 0x95:
        term(w);
        term(w);
        break;
    case 0x72:
    case 0x74:
    case 0x77:
    case 0x79:
    case 0x7a:
    case 0x7b:
    case 0x7d:
    case 0x7f:
        term(w);
        term(w);
        reference(w, true);
        break;
    default:
        FZ_ASSERT(op >= 0x60 && op <= 0x6e);
    }
}

/* -- the script -- */

/* A path, sometimes a bad one; no segment of it begins with F. */
static const char *pick(struct fz *z, char text[32])
{
    static const char *const good[] = {"DEV",   "_CRS",      "\\_SB",   "\\_SB.PCI0", "^A",
                                       "A.B.C", "\\A.B.C.D", "^^^X0_9", "_SB.PWRB",   "Z"};
    static const char set[] = "AZ_09.^\\Ba ";
    unsigned n = fz_u8(z);

    if (n < 0xe0)
        return good[n % 10];
    n %= 32;
    for (unsigned i = 0; i < n; i++)
        text[i] = set[fz_range(z, 0, sizeof(set) - 2)];
    text[n] = 0;
    return text;
}

static void one(struct tn_aml *a, struct fz *z)
{
    static const char call[8][3] = {"F0", "F1", "F2", "F3", "F4", "F5", "F6", "F7"};
    static const uint8_t operator_[] = {0x90, 0x91, 0x92, 0x93, 0x94, 0x95, 0x72,
                                        0x74, 0x77, 0x79, 0x7a, 0x7b, 0x7d, 0x7f};
    static const char *const id[] = {"PNP0501", "LNRO0005", "ACPI0007", "PNP0C0C", "bad", ""};
    char text[32];
    unsigned n;

    switch (fz_range(z, 0, 37)) {
    case 0:
        tn_aml_scope_begin(a, pick(z, text));
        break;
    case 1:
        tn_aml_device_begin(a, pick(z, text));
        break;
    case 2:
        n = fz_u8(z);
        tn_aml_method_begin(a, pick(z, text), n % 9, n & 16);
        break;
    case 3:
    case 4:
    case 5:
    case 6:
        tn_aml_end(a);
        break;
    case 7:
    case 8:
        tn_aml_name(a, pick(z, text));
        break;
    case 9:
        tn_aml_integer(a, fz_u64(z) >> fz_range(z, 0, 63));
        break;
    case 10:
        tn_aml_integer(a, fz_u8(z));
        break;
    case 11:
        n = (unsigned)fz_bytes(z, text, fz_range(z, 0, 31));
        text[n] = 0;
        tn_aml_string(a, text);
        break;
    case 12: {
        size_t size = fz_range(z, 0, 5000);
        uint8_t *bytes = (uint8_t *)malloc(size + 1);

        memset(bytes, 0xee, size + 1);
        tn_aml_buffer(a, bytes, size);
        free(bytes);
        break;
    }
    case 13:
        tn_aml_eisaid(a, id[fz_range(z, 0, 5)]);
        break;
    case 14:
    case 15:
        tn_aml_package_begin(a);
        break;
    case 16:
        tn_aml_hid(a, id[fz_range(z, 0, 5)]);
        break;
    case 17:
        tn_aml_uid(a, fz_u16(z));
        break;
    case 18:
        tn_aml_name(a, "_CRS");
        tn_aml_resources_begin(a);
        break;
    case 19:
        tn_aml_memory32(a, fz_u32(z), fz_u16(z), fz_u8(z) & 1);
        break;
    case 20:
        tn_aml_memory64(a, fz_u64(z), fz_u16(z), fz_u8(z) & 1);
        break;
    case 21:
        tn_aml_io(a, fz_u16(z), fz_u8(z));
        break;
    case 22:
        tn_aml_irq(a, (unsigned)fz_range(z, 0, 16));
        break;
    case 23:
        tn_aml_interrupt(a, fz_u32(z), fz_u8(z) & 0x1f & ~1u);
        break;
    case 24:
        tn_aml_region(a, pick(z, text), fz_u8(z), fz_u32(z), fz_u16(z));
        break;
    case 25:
        tn_aml_field_begin(a, pick(z, text), fz_u8(z) & 0x73);
        break;
    case 26:
        tn_aml_field_unit(a, pick(z, text), fz_u32(z) >> fz_range(z, 3, 31));
        break;
    case 27:
        tn_aml_field_skip(a, fz_u32(z) >> fz_range(z, 3, 31));
        break;
    case 28:
        tn_aml_return(a);
        break;
    case 29:
        tn_aml_store(a);
        break;
    case 30:
        tn_aml_notify(a);
        break;
    case 31:
        tn_aml_if_begin(a);
        break;
    case 32:
        tn_aml_else_begin(a);
        break;
    case 33:
        n = (unsigned)fz_range(z, 0, 8);
        tn_aml_call(a, call[n % 8], n);
        break;
    case 34:
        tn_aml_operator(a, (enum tn_aml_op)operator_[fz_range(z, 0, sizeof(operator_) - 1)]);
        break;
    case 35:
        tn_aml_discard(a);
        break;
    case 36:
        tn_aml_path(a, pick(z, text));
        break;
    default:
        n = fz_u8(z);
        if (n & 0x80)
            tn_aml_local(a, n % 9);
        else
            tn_aml_arg(a, n % 8);
        break;
    }
}

/*
 * Runs the script. With forgive, the encoder is put back to what it was before a term that it
 * refused, and that term is marked; a term that is marked is passed over.
 */
static int64_t run(const uint8_t *data, size_t size, uint8_t *buf, size_t cap, bool forgive,
                   bool refused[MAX_TERMS])
{
    static uint8_t saved[ROOM];
    struct tn_aml a, before;
    struct fz z;

    fz_init(&z, data, size);
    tn_aml_init(&a, buf, cap);
    for (unsigned n = 0; z.left > 0 && n < MAX_TERMS; n++) {
        bool failed = a.err != 0;

        if (refused[n]) {
            before = a;
            before.err = TN_EBUG;
            one(&before, &z);
            continue;
        }
        if (forgive) {
            before = a;
            if (a.len)
                memcpy(saved, buf, a.len);
        }
        one(&a, &z);
        FZ_ASSERT(a.buf == buf && a.cap == cap && a.len <= cap && a.depth <= TN_AML_DEPTH);
        FZ_ASSERT(a.err <= 0);
        if (failed) {
            FZ_ASSERT(a.err == before.err && a.len == before.len);
        } else if (a.err && forgive && a.err != TN_ENOSPC) {
            if (before.len)
                memcpy(buf, saved, before.len);
            a = before;
            refused[n] = true;
        } else if (a.err) {
            before = a;
        }
    }
    for (unsigned n = 0; n < 100 && (a.depth > 0 || a.level[0].owed > 0) && a.err == 0; n++) {
        unsigned kind = a.level[a.depth].want % 4; /* what is owed comes now */

        if (a.level[a.depth].owed == 0)
            tn_aml_end(&a);
        else if (kind == 0 || kind == 2)
            tn_aml_integer(&a, 2);
        else
            tn_aml_path(&a, "END");
    }
    FZ_ASSERT(a.err != 0 || tn_aml_finish(&a) == (int64_t)a.len);
    return tn_aml_finish(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t cap;
    bool forgive, refused[MAX_TERMS] = {false};
    uint8_t *buf, *exact;
    int64_t len;

    if (size < 3)
        return 0;
    cap = (data[0] | (size_t)data[1] << 8) % (ROOM + 1);
    forgive = data[2] & 1;
    data += 3;
    size -= 3;
    buf = (uint8_t *)malloc(cap ? cap : 1);
    len = run(data, size, buf, cap, forgive, refused);
    if (len >= 0) {
        struct walk w = {buf, buf + len};

        terms(w);
        exact = (uint8_t *)malloc(len ? (size_t)len : 1);
        FZ_ASSERT(run(data, size, exact, (size_t)len, false, refused) == len);
        FZ_ASSERT(len == 0 || memcmp(buf, exact, (size_t)len) == 0);
        if (len > 0)
            FZ_ASSERT(run(data, size, exact, (size_t)len - 1, false, refused) == TN_ENOSPC);
        free(exact);
    }
    free(buf);
    return 0;
}
