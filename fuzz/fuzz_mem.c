/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A stream of operations on a small guest, against a flat model of it: one byte per guest byte, and
 * whether it is RAM. Properties: what the model holds, a range translates iff the model says so, an
 * error changes nothing, the dirty bits are exactly the pages written.
 */
#include "tn_mem.h"

#include "fuzz.h"

#define PAGE  4096u
#define PAGES 80u /* guest pages that the model covers */
#define BYTES (PAGES * PAGE)
#define CAP   6u

static uint8_t model[BYTES];
static bool ram[PAGES], touched[PAGES];

static uint64_t any_gpa(struct fz *z)
{
    uint64_t gpa = fz_range(z, 0, PAGES) * PAGE + (uint64_t)(int64_t)(int8_t)fz_u8(z);

    return fz_u8(z) % 16 == 0 ? fz_u64(z) : gpa;
}

static uint64_t any_len(struct fz *z)
{
    switch (fz_u8(z) % 8) {
    case 0:
        return fz_u64(z);
    case 1:
        return 0 - (uint64_t)fz_u16(z);
    case 2:
    case 3:
        return fz_range(z, 0, 70 * PAGE);
    default:
        return fz_u8(z);
    }
}

/* The model's answer to tn_mem_holds. */
static bool holds(uint64_t gpa, uint64_t len)
{
    if (len == 0)
        return true;
    if (gpa >= BYTES || len > BYTES - gpa)
        return false;
    for (uint64_t p = gpa / PAGE; p <= (gpa + len - 1) / PAGE; p++)
        if (!ram[p])
            return false;
    return true;
}

static void touch(uint64_t gpa, uint64_t len)
{
    if (len == 0 || gpa >= BYTES)
        return;
    if (len > BYTES - gpa)
        len = BYTES - gpa;
    for (uint64_t p = gpa / PAGE; p <= (gpa + len - 1) / PAGE; p++)
        touched[p] = touched[p] || ram[p];
}

static void check_dirty(struct tn_mem *m)
{
    for (uint32_t i = 0; i < m->count; i++) {
        const struct tn_mem_region *r = &m->region[i];
        uint64_t out[2] = {0, 0}, n = 0;
        int64_t bits = tn_mem_take_dirty(m, i, out);

        for (uint64_t p = 0; p < 128; p++) {
            bool set = out[p / 64] >> p % 64 & 1;

            FZ_ASSERT(set == (p < r->size / PAGE && touched[r->gpa / PAGE + p]));
            n += set;
        }
        FZ_ASSERT(bits == (int64_t)n);
        FZ_ASSERT(tn_mem_take_dirty(m, i, out) == 0);
    }
    memset(touched, 0, sizeof(touched));
}

static void step(struct tn_mem *m, struct fz *z)
{
    static uint8_t buf[BYTES];
    struct tn_mem_piece piece[CAP];
    unsigned op = fz_u8(z) % 8;
    uint64_t gpa = any_gpa(z), len = any_len(z), value = 77, at;
    bool good = holds(gpa, len);
    uint32_t cap = fz_u8(z) % (CAP + 1);
    unsigned width = fz_u8(z) % 10;
    uint8_t *p;
    int n;

    FZ_ASSERT(tn_mem_holds(m, gpa, len) == good);
    switch (op) {
    case 0:
        p = tn_mem_ptr(m, gpa, len);
        FZ_ASSERT(!p || (good && len > 0 && memcmp(p, model + gpa, len) == 0));
        n = tn_mem_split(m, gpa, len, piece, CAP);
        FZ_ASSERT(!p == !(good && n == 1));
        break;
    case 1:
        n = tn_mem_split(m, gpa, len, piece, cap);
        FZ_ASSERT(good ? n >= 0 || n == TN_ENOSPC : n == TN_EADDR);
        at = gpa;
        for (int i = 0; i < n; i++) {
            FZ_ASSERT(piece[i].len > 0 && piece[i].len <= gpa + len - at);
            FZ_ASSERT(memcmp(piece[i].host, model + at, piece[i].len) == 0);
            at += piece[i].len;
        }
        FZ_ASSERT(n < 0 || at == gpa + len);
        break;
    case 2:
        if (len > BYTES)
            break;
        memset(buf, 0xcc, len);
        FZ_ASSERT(tn_mem_read(m, gpa, buf, len) == (good ? TN_OK : TN_EADDR));
        for (uint64_t i = 0; i < len; i++)
            FZ_ASSERT(buf[i] == (good ? model[gpa + i] : 0));
        break;
    case 3:
        if (len > BYTES)
            break;
        for (uint64_t i = 0; i < len; i++)
            buf[i] = (uint8_t)(i * 7 + cap);
        FZ_ASSERT(tn_mem_write(m, gpa, buf, len) == (good ? TN_OK : TN_EADDR));
        if (good && len > 0)
            memcpy(model + gpa, buf, len);
        if (good)
            touch(gpa, len);
        break;
    case 4:
        FZ_ASSERT(tn_mem_fill(m, gpa, (uint8_t)cap, len) == (good ? TN_OK : TN_EADDR));
        if (good && len > 0)
            memset(model + gpa, (int)cap, len);
        if (good)
            touch(gpa, len);
        break;
    case 5:
    case 6:
        good = width == 1 || width == 2 || width == 4 || width == 8;
        n = op == 5 ? tn_mem_load(m, gpa, width, &value) : tn_mem_store(m, gpa, width, len);
        FZ_ASSERT((n == TN_EINVAL) == !good);
        good = good && gpa % width == 0 && holds(gpa, width);
        FZ_ASSERT((n == TN_OK) == good);
        if (op == 5)
            FZ_ASSERT(value == (good ? tn_get_(model + gpa, width) : 0));
        else if (good)
            tn_put_(model + gpa, width, len);
        if (op == 6 && good)
            touch(gpa, width);
        break;
    default:
        tn_mem_mark(m, gpa, len);
        touch(gpa, len);
        check_dirty(m);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tn_mem_region table[CAP];
    uint64_t bitmap[CAP][2];
    uint8_t *host[CAP];
    uint32_t hosts = 0;
    struct tn_mem m;
    struct fz z;

    fz_init(&z, data, size);
    memset(model, 0, sizeof(model));
    memset(ram, 0, sizeof(ram));
    memset(touched, 0, sizeof(touched));
    memset(bitmap, 0, sizeof(bitmap));
    tn_mem_init(&m, table, CAP);
    for (unsigned tries = fz_u8(&z) % 10; tries > 0; tries--) {
        uint64_t gpa = fz_range(&z, 0, PAGES - 1) * PAGE, pages = fz_range(&z, 0, 70);
        uint64_t odd = fz_u8(&z) % 16 == 0 ? fz_u64(&z) : 0;
        uint8_t *bytes = hosts < CAP ? calloc(pages + 1, PAGE) : NULL;
        bool overlap = false;
        int err;

        if (!bytes)
            break;
        if (pages > PAGES - gpa / PAGE)
            pages = PAGES - gpa / PAGE;
        err = tn_mem_add(&m, gpa + odd, bytes, pages * PAGE);
        if (odd || pages == 0) {
            if (err != TN_OK) {
                free(bytes);
                continue;
            }
            free(bytes); /* a region far away: the model does not cover it */
            goto out;
        }
        for (uint64_t p = 0; p < pages; p++)
            overlap = overlap || ram[gpa / PAGE + p];
        FZ_ASSERT((err == TN_EEXIST) == overlap);
        FZ_ASSERT(err == TN_OK || overlap);
        if (err != TN_OK) {
            free(bytes);
            continue;
        }
        memset(&ram[gpa / PAGE], 1, pages);
        free(bytes);
        /* Exactly as many bytes as the region has, so that ASan sees one too many. */
        host[hosts] = calloc(pages, PAGE);
        if (!host[hosts])
            abort();
        for (uint32_t i = 0; i < m.count; i++)
            if (table[i].gpa == gpa)
                table[i].host = host[hosts];
        hosts++;
    }
    for (uint32_t i = 0; i < m.count; i++)
        FZ_ASSERT(tn_mem_track(&m, i, bitmap[i]) == TN_OK);
    for (unsigned steps = 0; z.left > 0 && steps < 200; steps++)
        step(&m, &z);
    check_dirty(&m);
    for (uint64_t p = 0; p < PAGES; p++) {
        uint8_t *at = tn_mem_ptr(&m, p * PAGE, PAGE);

        FZ_ASSERT(!at == !ram[p]);
        FZ_ASSERT(!at || memcmp(at, model + p * PAGE, PAGE) == 0);
    }
out:
    while (hosts > 0)
        free(host[--hosts]);
    return 0;
}
