/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The driver's side of a virtqueue, for tests, harnesses and benchmarks: lays a ring out in RAM,
 * adds chains, takes used ones back. Written from the specification alone; of tn_virtq.h it uses
 * nothing. Guest address 0 is ram[0], unless base says otherwise.
 */
#ifndef TENON_VIRTQ_DRIVER_H
#define TENON_VIRTQ_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct vqd_buf {
    uint64_t addr;
    uint32_t len;
    bool write;
};

struct vqd {
    uint8_t *ram;  /* where guest address base is */
    uint64_t base; /* a multiple of 4 KiB */
    uint64_t desc, driver, device;
    uint32_t size;
    bool packed, event_idx;
    uint32_t free;       /* descriptors */
    uint16_t *id;        /* a queue of free ids: descriptors (split) or buffer ids (packed) */
    uint32_t id_head;    /* next to take */
    uint32_t id_count;   /* how many are free */
    uint16_t *chain_len; /* by id: descriptors of the ring that it holds; 0: the driver's */
    uint16_t *link;      /* split, by descriptor: the next of its chain */
    uint64_t added;      /* chains (split) or descriptors (packed) made available, ever */
    uint64_t reaped;     /* the same, taken back */
    uint64_t kicked;     /* added, when vqd_must_kick was last asked */
};

static inline uint8_t *vqd_at(const struct vqd *d, uint64_t gpa)
{
    return d->ram + (gpa - d->base);
}

/* Rings have their alignment, and whole accesses to it; an indirect table may lie anywhere. */
static inline bool vqd_is_whole(const void *p, unsigned width)
{
    return width == 2 && (uintptr_t)p % 2 == 0;
}

static inline void vqd_put(const struct vqd *d, uint64_t gpa, unsigned width, uint64_t value)
{
    void *p = vqd_at(d, gpa);

    if (vqd_is_whole(p, width))
        __atomic_store_n((uint16_t *)p, (uint16_t)value, __ATOMIC_RELEASE);
    else
        memcpy(p, &value, width);
}

static inline uint64_t vqd_get(const struct vqd *d, uint64_t gpa, unsigned width)
{
    void *p = vqd_at(d, gpa);
    uint64_t value = 0;

    if (vqd_is_whole(p, width))
        return __atomic_load_n((uint16_t *)p, __ATOMIC_ACQUIRE);
    memcpy(&value, p, width);
    return value;
}

#define VQD_NEXT     1u
#define VQD_WRITE    2u
#define VQD_INDIRECT 4u

/* Writes a descriptor of either format anywhere; extra is next (split) or id (packed). */
static inline void vqd_desc(const struct vqd *d, uint64_t gpa, uint64_t addr, uint32_t len,
                            uint16_t flags, uint16_t extra)
{
    vqd_put(d, gpa, 8, addr);
    vqd_put(d, gpa + 8, 4, len);
    vqd_put(d, gpa + (d->packed ? 12 : 14), 2, extra);
    vqd_put(d, gpa + (d->packed ? 14 : 12), 2, flags);
}

static inline uint64_t vqd_desc_bytes(uint32_t size)
{
    return 16ull * size;
}

static inline uint64_t vqd_driver_bytes(bool packed, uint32_t size)
{
    return packed ? 4 : 6 + 2ull * size;
}

static inline uint64_t vqd_device_bytes(bool packed, uint32_t size)
{
    return packed ? 4 : 6 + 8ull * size;
}

/* Lays the areas out one after the other from gpa on, zeroed. Returns the first address behind. */
static inline uint64_t vqd_init(struct vqd *d, uint8_t *ram, uint64_t base, uint64_t gpa,
                                uint32_t size, bool packed, bool event_idx)
{
    memset(d, 0, sizeof(*d));
    d->ram = ram;
    d->base = base;
    d->size = size;
    d->packed = packed;
    d->event_idx = event_idx;
    d->desc = (gpa + 15) / 16 * 16;
    d->driver = d->desc + vqd_desc_bytes(size);
    d->device = (d->driver + vqd_driver_bytes(packed, size) + 3) / 4 * 4;
    memset(vqd_at(d, d->desc), 0, vqd_desc_bytes(size));
    memset(vqd_at(d, d->driver), 0, vqd_driver_bytes(packed, size));
    memset(vqd_at(d, d->device), 0, vqd_device_bytes(packed, size));
    d->id = calloc(size, sizeof(*d->id));
    d->link = calloc(size, sizeof(*d->link));
    d->chain_len = calloc(size, sizeof(*d->chain_len));
    if (!d->id || !d->link || !d->chain_len)
        abort();
    for (uint32_t i = 0; i < size; i++)
        d->id[i] = (uint16_t)i;
    d->id_count = size;
    d->free = size;
    return d->device + vqd_device_bytes(packed, size);
}

static inline void vqd_free(struct vqd *d)
{
    free(d->id);
    free(d->link);
    free(d->chain_len);
    d->id = d->link = d->chain_len = NULL;
}

static inline uint16_t vqd_take_id_(struct vqd *d)
{
    uint16_t id = d->id[d->id_head];

    d->id_head = (d->id_head + 1) % d->size;
    d->id_count--;
    return id;
}

static inline void vqd_give_id_(struct vqd *d, uint16_t id)
{
    d->id[(d->id_head + d->id_count) % d->size] = id;
    d->id_count++;
}

/* AVAIL and USED of a descriptor made available as the count-th ever. */
static inline uint16_t vqd_avail_flags(const struct vqd *d, uint64_t count)
{
    return count / d->size % 2 == 0 ? 0x0080 : 0x8000;
}

/* A position of a packed ring with its wrap counter, as event suppression has it. */
static inline uint16_t vqd_off_wrap(const struct vqd *d, uint64_t count)
{
    return (uint16_t)(count % d->size | (count / d->size % 2 == 0 ? 0x8000u : 0u));
}

static inline void vqd_table_(struct vqd *d, uint64_t table, const struct vqd_buf *buf, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint16_t flags = buf[i].write ? VQD_WRITE : 0;

        if (!d->packed && i + 1 < n)
            flags |= VQD_NEXT;
        vqd_desc(d, table + 16ull * i, buf[i].addr, buf[i].len, flags,
                 d->packed ? 0 : (uint16_t)(i + 1 < n ? i + 1 : 0));
    }
}

/*
 * Makes a chain of n buffers available; the last indirect of them through a table at that address,
 * when it is not 0 (packed: all n or none). Returns its id, or -1 when there is no room.
 */
static inline int vqd_add_table(struct vqd *d, const struct vqd_buf *buf, uint32_t n,
                                uint64_t table, uint32_t indirect)
{
    uint32_t direct = table ? n - indirect : n, takes = direct + (table ? 1 : 0), i;
    uint16_t head, id, flags, head_flags = 0;

    if (takes == 0 || takes > d->free || d->id_count == 0 || (d->packed && table && direct > 0))
        return -1;
    if (table)
        vqd_table_(d, table, buf + direct, indirect);
    d->free -= takes;
    if (!d->packed) {
        head = id = vqd_take_id_(d);
        d->chain_len[head] = (uint16_t)takes;
        for (i = 0; i < takes; i++) {
            bool last = i + 1 == takes;
            uint16_t next = last ? 0 : vqd_take_id_(d);
            bool to_table = table && last;

            flags = (uint16_t)(last ? 0 : VQD_NEXT);
            if (to_table)
                flags |= VQD_INDIRECT;
            else if (buf[i].write)
                flags |= VQD_WRITE;
            vqd_desc(d, d->desc + 16ull * id, to_table ? table : buf[i].addr,
                     to_table ? 16 * indirect : buf[i].len, flags, next);
            d->link[id] = next;
            id = next;
        }
        vqd_put(d, d->driver + 4 + 2 * (d->added % d->size), 2, head);
        d->added++;
        vqd_put(d, d->driver + 2, 2, (uint16_t)d->added);
        return head;
    }
    id = vqd_take_id_(d);
    d->chain_len[id] = (uint16_t)takes;
    for (i = 0; i < takes; i++) {
        uint64_t at = d->desc + 16 * ((d->added + i) % d->size);

        flags = vqd_avail_flags(d, d->added + i);
        flags |= table ? VQD_INDIRECT : buf[i].write ? VQD_WRITE : 0;
        flags |= i + 1 < takes ? VQD_NEXT : 0;
        vqd_put(d, at, 8, table ? table : buf[i].addr);
        vqd_put(d, at + 8, 4, table ? 16 * indirect : buf[i].len);
        vqd_put(d, at + 12, 2, id);
        if (i == 0)
            head_flags = flags;
        else
            vqd_put(d, at + 14, 2, flags);
    }
    vqd_put(d, d->desc + 16 * (d->added % d->size) + 14, 2, head_flags);
    d->added += takes;
    return id;
}

static inline int vqd_add(struct vqd *d, const struct vqd_buf *buf, uint32_t n)
{
    return vqd_add_table(d, buf, n, 0, 0);
}

/* Whether the device wants to hear of what was added since this was last asked. */
static inline bool vqd_must_kick(struct vqd *d)
{
    uint64_t old = d->kicked, count;
    uint16_t wish;

    d->kicked = d->added;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!d->packed && !d->event_idx)
        return (vqd_get(d, d->device, 2) & 1) == 0;
    if (d->packed) {
        wish = vqd_get(d, d->device + 2, 2) & 3;
        if (wish != 2)
            return wish == 0;
        wish = (uint16_t)vqd_get(d, d->device, 2);
        for (count = old; count < d->added; count++)
            if (vqd_off_wrap(d, count) == wish)
                return true;
        return false;
    }
    wish = (uint16_t)vqd_get(d, d->device + 4 + 8ull * d->size, 2);
    for (count = old; count < d->added; count++)
        if ((uint16_t)count == wish)
            return true;
    return false;
}

/* Takes one used chain back. Returns its id, -1: none, -2: the device wrote nonsense. */
static inline int vqd_reap(struct vqd *d, uint32_t *len)
{
    uint32_t id, n;
    uint64_t at;

    if (d->packed) {
        bool wrap = d->reaped / d->size % 2 == 0;
        uint16_t flags;

        at = d->desc + 16 * (d->reaped % d->size);
        flags = (uint16_t)vqd_get(d, at + 14, 2);
        if (d->reaped == d->added || (flags & 0x8080) != (wrap ? 0x8080 : 0))
            return -1;
        id = (uint32_t)vqd_get(d, at + 12, 2);
        *len = flags & VQD_WRITE ? (uint32_t)vqd_get(d, at + 8, 4) : 0;
    } else {
        if ((uint16_t)d->reaped == vqd_get(d, d->device + 2, 2))
            return -1;
        at = d->device + 4 + 8 * (d->reaped % d->size);
        id = (uint32_t)vqd_get(d, at, 4);
        *len = (uint32_t)vqd_get(d, at + 4, 4);
    }
    if (id >= d->size || d->chain_len[id] == 0)
        return -2;
    n = d->chain_len[id];
    d->chain_len[id] = 0;
    d->free += n;
    if (d->packed) {
        d->reaped += n;
        vqd_give_id_(d, (uint16_t)id);
        return (int)id;
    }
    d->reaped++;
    for (uint32_t i = 0, one = id; i < n; i++) {
        vqd_give_id_(d, (uint16_t)one);
        one = d->link[one];
    }
    return (int)id;
}

/* Asks for interrupts: never, always, or once the used count reaches beyond count. */
static inline void vqd_interrupts(struct vqd *d, bool on)
{
    if (d->packed)
        vqd_put(d, d->driver + 2, 2, on ? 0 : 1);
    else
        vqd_put(d, d->driver, 2, on ? 0 : 1);
}

static inline void vqd_interrupt_at(struct vqd *d, uint64_t count)
{
    if (d->packed) {
        vqd_put(d, d->driver, 2, vqd_off_wrap(d, count));
        vqd_put(d, d->driver + 2, 2, 2);
    } else {
        vqd_put(d, d->driver + 4 + 2ull * d->size, 2, (uint16_t)count);
    }
}

#endif
