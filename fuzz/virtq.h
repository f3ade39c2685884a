/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the harnesses of tn_virtq share: a driver that is mostly honest, a hostile hand that writes
 * anywhere in RAM at any time, and a device that pops, pushes, saves and restores. Properties: what
 * is popped lies in RAM; a push changes its used element and the index, and not another byte; what
 * is in flight is counted right and never exceeds the ring; geometry is frozen; outputs are void
 * after an error; save, restore, save are the same, and a restored wreck works as any other.
 */
#ifndef TENON_FUZZ_VIRTQ_H
#define TENON_FUZZ_VIRTQ_H

#include "tn_virtq.h"
#include "ram.h"
#include "../tests/virtq_driver.h"

#define FLIGHTS 16
#define CAP     24

static const struct ram_region region[REGIONS] = {
    {0, 0x4000}, {0x4000, 0x2000}, {0x10000000, 0x1000}};

struct rig {
    struct ram ram;
    uint8_t *copy[REGIONS];
    uint64_t dirty[1];
    struct tn_virtq q;
    struct tn_virtq_cfg cfg; /* as started */
    bool packed, started, broken;
    struct vqd d;
    struct tn_virtq_chain chain[FLIGHTS]; /* in flight, the oldest first */
    struct tn_iov iov[FLIGHTS][CAP];
    unsigned slot[FLIGHTS]; /* of iov */
    unsigned flights;
    uint32_t lost; /* in flight before a restore: nobody will push them */
};

static bool same_cfg(const struct tn_virtq_cfg *a, const struct tn_virtq_cfg *b)
{
    return a->desc == b->desc && a->driver == b->driver && a->device == b->device &&
           a->size == b->size && a->packed == b->packed && a->event_idx == b->event_idx &&
           a->indirect == b->indirect && a->in_order == b->in_order;
}

static uint64_t any_gpa(struct fz *z)
{
    uint8_t kind = fz_u8(z);

    if (kind < 160)
        return fz_u16(z) % 0x6000;
    if (kind < 200)
        return region[kind % REGIONS].gpa + region[kind % REGIONS].size - fz_u8(z) % 32;
    return kind < 220 ? region[2].gpa + fz_u16(z) % 0x1100 : fz_u64(z);
}

/* What the queue says of itself agrees with what was done to it. */
static void check(struct rig *r)
{
    uint32_t flying = r->lost;

    FZ_ASSERT(r->q.started == r->started);
    if (!r->started) {
        FZ_ASSERT(tn_virtq_in_flight(&r->q) == 0);
        return;
    }
    FZ_ASSERT(same_cfg(&r->q.cfg, &r->cfg));
    FZ_ASSERT((r->q.error != 0) == r->broken);
    for (unsigned i = 0; i < r->flights; i++)
        flying += r->cfg.packed ? r->chain[i].descs : 1;
    FZ_ASSERT(tn_virtq_in_flight(&r->q) == flying);
    FZ_ASSERT(flying <= r->cfg.size);
}

static void forget(struct rig *r, unsigned i)
{
    unsigned slot = r->slot[i];

    r->flights--;
    for (; i < r->flights; i++) {
        r->chain[i] = r->chain[i + 1];
        r->slot[i] = r->slot[i + 1];
    }
    r->slot[r->flights] = slot;
}

static void stop(struct rig *r)
{
    struct tn_virtq_chain old = r->chain[0];
    bool had = r->flights > 0;

    tn_virtq_stop(&r->q);
    r->started = r->broken = false;
    r->flights = 0;
    r->lost = 0;
    if (had)
        FZ_ASSERT(tn_virtq_push(&r->q, &old, 0) == TN_ESTATE);
}

static void start(struct rig *r, struct fz *z)
{
    static const uint16_t sizes[] = {1, 2, 3, 4, 5, 8, 16, 255, 256, 64};
    uint8_t kind = fz_u8(z), flags = fz_u8(z);
    uint16_t size = sizes[kind % 10];
    struct tn_virtq_cfg cfg;
    int err;

    if (!r->packed && (size & (size - 1)))
        size = 8;
    vqd_free(&r->d);
    vqd_init(&r->d, r->ram.host[0], 0, 0x100 * (kind / 10 % 4), size, r->packed, flags & 1);
    cfg.desc = r->d.desc;
    cfg.driver = r->d.driver;
    cfg.device = r->d.device;
    cfg.size = size;
    cfg.packed = r->packed;
    cfg.event_idx = flags & 1;
    cfg.indirect = !(flags & 2);
    cfg.in_order = flags & 4;
    if (flags & 8) { /* any geometry */
        cfg.size = fz_u16(z);
        cfg.desc = any_gpa(z);
        cfg.driver = any_gpa(z);
        cfg.device = any_gpa(z);
    }
    err = tn_virtq_start(&r->q, &r->ram.mem, &cfg);
    if (r->started) {
        FZ_ASSERT(err == TN_ESTATE);
        return;
    }
    if (!(flags & 8))
        FZ_ASSERT(err == TN_OK);
    r->started = err == TN_OK;
    r->broken = false;
    r->cfg = cfg;
}

static void add(struct rig *r, struct fz *z)
{
    struct vqd_buf buf[4];
    uint8_t kind = fz_u8(z);
    unsigned n = 1 + kind % 4, readable = kind / 4 % 5;

    for (unsigned i = 0; i < n; i++) {
        buf[i].addr = any_gpa(z);
        buf[i].len = fz_u8(z) == 0 ? fz_u32(z) : fz_u16(z) % 300;
        buf[i].write = i >= readable;
    }
    if (kind & 0x20) {
        uint64_t table = 0x2000 + fz_u8(z) * 16u;

        vqd_add_table(&r->d, buf, n, table, r->packed ? n : 1 + kind / 64 % n);
    } else {
        vqd_add(&r->d, buf, n);
    }
}

static void pop(struct rig *r, struct fz *z)
{
    unsigned at = r->flights;
    struct tn_virtq_chain *c = &r->chain[at];
    struct tn_iov *iov = r->iov[r->slot[at]];
    uint8_t cap = fz_u8(z) % (CAP + 8);
    uint64_t sum[2] = {0, 0};
    bool pending = tn_virtq_pending(&r->q);
    int n;

    if (at == FLIGHTS - 1)
        return;
    cap = cap > CAP ? CAP : cap;
    n = tn_virtq_pop(&r->q, c, iov, cap);
    FZ_ASSERT(pending == (n != 0));
    if (n != 1) {
        FZ_ASSERT(!c->iov && !c->readable_len && !c->writable_len && !c->readable && !c->writable);
        FZ_ASSERT(n == 0 || n == TN_EPROTO || n == TN_EADDR || n == TN_ENOSPC || n == TN_ESTATE);
        FZ_ASSERT((n == TN_ESTATE) == !r->started);
        FZ_ASSERT(!r->broken || n == TN_EPROTO || n == TN_EADDR);
        r->broken = r->broken || n == TN_EPROTO || n == TN_EADDR;
        return;
    }
    FZ_ASSERT(c->readable + c->writable <= cap && c->id < r->cfg.size && c->iov == iov);
    for (unsigned i = 0; i < c->readable + c->writable; i++) {
        FZ_ASSERT(ram_holds(&r->ram, iov[i].base, iov[i].len));
        sum[i >= c->readable] += iov[i].len;
    }
    FZ_ASSERT(sum[0] == c->readable_len && sum[1] == c->writable_len);
    r->flights++;
}

/* Pushes up to 4 chains, and compares all of RAM with what it should be then. */
static void push(struct rig *r, struct fz *z)
{
    struct tn_virtq_chain chain[4];
    uint32_t written[4];
    uint8_t kind = fz_u8(z);
    unsigned n = 1 + kind % 4, i;
    uint16_t at = r->q.next_used;
    int err;

    if (r->flights == 0)
        return;
    for (i = 0; i < n && r->flights > 0; i++) {
        unsigned which = r->cfg.in_order ? 0 : fz_u8(z) % r->flights;

        chain[i] = r->chain[which];
        written[i] = fz_u32(z);
        if (written[i] > chain[i].writable_len)
            FZ_ASSERT(tn_virtq_push(&r->q, &chain[i], written[i]) < 0);
        written[i] = (uint32_t)(written[i] % (chain[i].writable_len + 1ull));
        for (unsigned k = 0; written[i] > 0 && k < chain[i].writable; k++)
            memset(chain[i].iov[chain[i].readable + k].base, kind, 1);
        if (!r->broken)
            forget(r, which);
    }
    n = i;
    for (i = 0; i < REGIONS; i++)
        memcpy(r->copy[i], r->ram.host[i], region[i].size);
    err = n == 1 ? tn_virtq_push(&r->q, chain, written[0])
                 : tn_virtq_push_many(&r->q, chain, written, (uint16_t)n);
    FZ_ASSERT(err == (r->broken ? TN_ESTATE : TN_OK));
    for (i = 0; i < n && !r->broken; i++) {
        uint8_t *p;

        if (r->packed) {
            uint64_t word = written[i] | (uint64_t)chain[i].id << 32;
            uint32_t pos = at % 32768u, wrap = at / 32768u;

            word |= (uint64_t)((written[i] ? 2u : 0) | (wrap ? 0x8080u : 0)) << 48;
            p = ram_at(&r->ram, r->cfg.desc + 16 * pos + 8, 8);
            FZ_ASSERT(memcmp(p, &word, 8) == 0);
            pos += chain[i].descs;
            if (pos >= r->cfg.size) {
                pos -= r->cfg.size;
                wrap = !wrap;
            }
            at = (uint16_t)(pos | wrap << 15);
        } else {
            uint32_t elem[2] = {chain[i].id, written[i]};

            p = ram_at(&r->ram, r->cfg.device + 4 + 8 * (at % r->cfg.size), 8);
            FZ_ASSERT(memcmp(p, elem, 8) == 0);
            at++;
        }
        for (unsigned k = 0; k < REGIONS; k++) /* this change was expected */
            if ((uintptr_t)p - (uintptr_t)r->ram.host[k] < region[k].size)
                memcpy(r->copy[k] + (p - r->ram.host[k]), p, 8);
    }
    if (!r->broken && !r->packed) {
        uint8_t *p = ram_at(&r->ram, r->cfg.device + 2, 2);

        FZ_ASSERT(memcmp(p, &at, 2) == 0); /* moved by exactly n */
        for (unsigned k = 0; k < REGIONS; k++)
            if ((uintptr_t)p - (uintptr_t)r->ram.host[k] < region[k].size)
                memcpy(r->copy[k] + (p - r->ram.host[k]), p, 2);
    }
    FZ_ASSERT(r->q.next_used == at);
    for (i = 0; i < REGIONS; i++)
        FZ_ASSERT(memcmp(r->copy[i], r->ram.host[i], region[i].size) == 0);
}

static void save_and_restore(struct rig *r, struct fz *z)
{
    struct tn_virtq_state one, two;
    uint8_t kind = fz_u8(z);
    int err;

    memset(&one, 0x5a, sizeof(one));
    memset(&two, 0xa5, sizeof(two));
    tn_virtq_save(&r->q, &one);
    if (kind & 1) { /* a wreck */
        uint8_t byte[sizeof(one)];

        memcpy(byte, &one, sizeof(one));
        for (unsigned i = 0; i < kind / 32u + 1u; i++)
            byte[fz_u8(z) % sizeof(one)] = fz_u8(z);
        memcpy(&one, byte, sizeof(one));
    }
    err = tn_virtq_restore(&r->q, &r->ram.mem, &one);
    r->flights = 0;
    r->lost = 0;
    r->started = r->broken = false;
    if (err != TN_OK) {
        FZ_ASSERT(kind & 1);
        return;
    }
    tn_virtq_save(&r->q, &two);
    FZ_ASSERT(memcmp(&one, &two, sizeof(one)) == 0);
    r->started = one.started;
    if (!r->started)
        return;
    r->broken = one.error != 0;
    r->cfg.desc = one.desc;
    r->cfg.driver = one.driver;
    r->cfg.device = one.device;
    r->cfg.size = one.size;
    r->cfg.packed = one.packed;
    r->cfg.event_idx = one.event_idx;
    r->cfg.indirect = one.indirect;
    r->cfg.in_order = one.in_order;
    r->packed = one.packed;
    r->lost = tn_virtq_in_flight(&r->q);
    FZ_ASSERT(r->lost <= r->cfg.size);
    if (r->lost > 0 && r->cfg.in_order)
        stop(r); /* nobody can push what comes first */
}

static void hostile(struct rig *r, struct fz *z)
{
    uint8_t kind = fz_u8(z);
    uint64_t gpa;
    uint8_t *p;

    switch (kind % 4) {
    case 0: /* a descriptor of the ring */
        gpa = r->d.desc + 16 * (fz_u8(z) % r->d.size);
        vqd_desc(&r->d, gpa, any_gpa(z), fz_u32(z), fz_u16(z), fz_u16(z));
        break;
    case 1: /* the available ring, or the event suppression */
        gpa = r->d.driver + fz_u8(z) % vqd_driver_bytes(r->d.packed, r->d.size);
        *vqd_at(&r->d, gpa) = fz_u8(z);
        break;
    case 2:
        vqd_put(&r->d, r->d.driver + 2, 2, fz_u16(z));
        break;
    default:
        gpa = any_gpa(z);
        p = ram_at(&r->ram, gpa, 8);
        if (p)
            fz_bytes(z, p, 8);
    }
}

static void run(const uint8_t *data, size_t size, bool packed)
{
    static struct rig r;
    struct fz z;
    uint32_t len;

    memset(&r, 0, sizeof(r));
    fz_init(&z, data, size);
    ram_init(&r.ram, region);
    for (unsigned i = 0; i < REGIONS; i++) {
        r.copy[i] = malloc(region[i].size);
        FZ_ASSERT(r.copy[i]);
    }
    for (unsigned i = 0; i < FLIGHTS; i++)
        r.slot[i] = i;
    tn_virtq_init(&r.q);
    r.packed = packed;
    start(&r, &z);
    for (unsigned op = 0; op < 600 && z.left > 0; op++) {
        switch (fz_u8(&z) % 16) {
        case 0:
        case 1:
        case 2:
            add(&r, &z);
            break;
        case 3:
        case 4:
        case 5:
            pop(&r, &z);
            break;
        case 6:
        case 7:
            push(&r, &z);
            break;
        case 8:
            vqd_reap(&r.d, &len);
            break;
        case 9:
            if (tn_virtq_notify_enable(&r.q))
                FZ_ASSERT(tn_virtq_pending(&r.q));
            break;
        case 10:
            tn_virtq_notify_disable(&r.q);
            tn_virtq_should_signal(&r.q);
            break;
        case 11:
            if (r.flights > 0 && !r.broken) {
                struct tn_virtq_chain *c = &r.chain[r.flights - 1];
                int err = tn_virtq_unpop(&r.q, c);

                FZ_ASSERT(err == TN_OK || err == TN_EINVAL);
                if (err == TN_OK)
                    r.flights--;
            }
            break;
        case 12:
            save_and_restore(&r, &z);
            break;
        case 13:
            if (fz_u8(&z) % 2)
                stop(&r);
            start(&r, &z);
            break;
        case 14:
            if (fz_u8(&z) % 8 == 0) {
                tn_virtq_break(&r.q);
                r.broken = r.started;
            }
            if (fz_u8(&z) % 2)
                tn_mem_track(&r.ram.mem, fz_u8(&z) % REGIONS, r.dirty);
            break;
        default:
            hostile(&r, &z);
        }
        check(&r);
    }
    vqd_free(&r.d);
    ram_free(&r.ram);
    for (unsigned i = 0; i < REGIONS; i++)
        free(r.copy[i]);
}

#endif
