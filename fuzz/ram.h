/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The RAM of a harness whose guest is a driver: three regions, each an allocation of its own, so
 * that a sanitizer sees one byte too many. What lies in it is found here without tn_mem.
 */
#ifndef TENON_FUZZ_RAM_H
#define TENON_FUZZ_RAM_H

#include "tn_mem.h"
#include "fuzz.h"

#define REGIONS 3

struct ram_region {
    uint64_t gpa, size;
};

struct ram {
    const struct ram_region *region;
    uint8_t *host[REGIONS];
    struct tn_mem_region table[REGIONS];
    struct tn_mem mem;
};

/* region: REGIONS of them, which stay. The RAM is zeros. */
static inline void ram_init(struct ram *m, const struct ram_region *region)
{
    m->region = region;
    tn_mem_init(&m->mem, m->table, REGIONS);
    for (unsigned i = 0; i < REGIONS; i++) {
        m->host[i] = (uint8_t *)calloc(1, region[i].size);
        FZ_ASSERT(m->host[i]);
        FZ_ASSERT(tn_mem_add(&m->mem, region[i].gpa, m->host[i], region[i].size) == 0);
    }
}

static inline void ram_free(struct ram *m)
{
    for (unsigned i = 0; i < REGIONS; i++)
        free(m->host[i]);
}

/* Where len bytes at gpa are; NULL: not all of them in one region. */
static inline uint8_t *ram_at(const struct ram *m, uint64_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < REGIONS; i++) {
        const struct ram_region *region = &m->region[i];

        if (gpa >= region->gpa && len <= region->size && gpa - region->gpa <= region->size - len)
            return m->host[i] + (gpa - region->gpa);
    }
    return NULL;
}

/* Whether these bytes of the host, one at least, are all in one region. */
static inline bool ram_holds(const struct ram *m, const uint8_t *bytes, size_t len)
{
    for (unsigned i = 0; i < REGIONS; i++) {
        uintptr_t off = (uintptr_t)bytes - (uintptr_t)m->host[i];

        if (off < m->region[i].size)
            return len > 0 && len <= m->region[i].size - off;
    }
    return false;
}

#endif
