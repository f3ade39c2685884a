/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The guest's side of a virtio socket device for tests and harnesses: buffers for both queues,
 * packets as the specification has them (5.10.6), and one end of a connection with its credit.
 * Over virtio_driver.h.
 *
 *   struct vsd v;
 *
 *   vsd_init(&v, &dev.virtio, ram, 3);            ram: VSD_RAM bytes, guest address 0
 *   assert_true(vsd_up(&v, TN_VIRTIO_F_RING | 2, 64));
 *   vsd_fill(&v, 16);                             so many buffers for the device to write
 *   vsd_send(&v, &hdr, "hello", 5);
 *   n = vsd_recv(&v, &hdr, payload);              -1: there is nothing
 */
#ifndef TENON_VSOCK_DRIVER_H
#define TENON_VSOCK_DRIVER_H

#include "virtio_driver.h"

#define VSD_SLOTS 64u     /* of each queue */
#define VSD_RX    0x8000u /* the slots are from here on, */
#define VSD_SLOT  0x1100u /* of so many bytes, */
#define VSD_TX    (VSD_RX + VSD_SLOTS * VSD_SLOT)
#define VSD_EVENT (VSD_TX + VSD_SLOTS * VSD_SLOT)
#define VSD_RAM   (VSD_EVENT + 0x1000u)
#define VSD_DATA  (VSD_SLOT - 64u) /* bytes of payload at most */

enum { VS_REQUEST = 1, VS_RESPONSE, VS_RST, VS_SHUTDOWN, VS_RW, VS_UPDATE, VS_ASK };

struct vs_hdr {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port, len;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
};

struct vsd {
    struct vd d;
    uint64_t cid;
    uint32_t size;             /* of a buffer for the device */
    uint32_t slot[256];        /* by id of a chain of queue 0 */
    uint32_t spare[VSD_SLOTS]; /* slots that the device does not have */
    uint32_t spares, tx;
    bool keep; /* received buffers are not given back at once */
};

static inline void vs_put(uint8_t *p, unsigned n, uint64_t v)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static inline uint64_t vs_get(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;

    while (n-- > 0)
        v = v << 8 | p[n];
    return v;
}

static inline void vs_encode(uint8_t *p, const struct vs_hdr *h)
{
    vs_put(p, 8, h->src_cid);
    vs_put(p + 8, 8, h->dst_cid);
    vs_put(p + 16, 4, h->src_port);
    vs_put(p + 20, 4, h->dst_port);
    vs_put(p + 24, 4, h->len);
    vs_put(p + 28, 2, h->type);
    vs_put(p + 30, 2, h->op);
    vs_put(p + 32, 4, h->flags);
    vs_put(p + 36, 4, h->buf_alloc);
    vs_put(p + 40, 4, h->fwd_cnt);
}

static inline void vs_decode(const uint8_t *p, struct vs_hdr *h)
{
    h->src_cid = vs_get(p, 8);
    h->dst_cid = vs_get(p + 8, 8);
    h->src_port = (uint32_t)vs_get(p + 16, 4);
    h->dst_port = (uint32_t)vs_get(p + 20, 4);
    h->len = (uint32_t)vs_get(p + 24, 4);
    h->type = (uint16_t)vs_get(p + 28, 2);
    h->op = (uint16_t)vs_get(p + 30, 2);
    h->flags = (uint32_t)vs_get(p + 32, 4);
    h->buf_alloc = (uint32_t)vs_get(p + 36, 4);
    h->fwd_cnt = (uint32_t)vs_get(p + 40, 4);
}

static inline void vsd_init(struct vsd *v, struct tn_virtio *dev, uint8_t *ram, uint64_t cid)
{
    memset(v, 0, sizeof(*v));
    vd_init(&v->d, dev, ram, 0, 0x1000);
    v->cid = cid;
    v->size = 4096;
}

/* Brings the device up, with three queues of size descriptors, up to 256. */
static inline bool vsd_up(struct vsd *v, uint64_t want, uint16_t size)
{
    v->spares = v->tx = 0;
    for (uint32_t i = 0; i < VSD_SLOTS; i++)
        v->spare[v->spares++] = i;
    return vd_up(&v->d, want, 3, size);
}

static inline void vsd_free(struct vsd *v)
{
    vd_free(&v->d);
}

/* Gives the device up to n buffers of v->size bytes; returns how many there was room for. */
static inline uint32_t vsd_give(struct vsd *v, uint32_t n)
{
    uint32_t given = 0;

    while (given < n && v->spares > 0) {
        uint32_t slot = v->spare[v->spares - 1];
        struct vqd_buf buf = {VSD_RX + slot * VSD_SLOT, v->size, true};
        int id = vd_add(&v->d, 0, &buf, 1);

        if (id < 0)
            break;
        v->slot[id] = slot;
        v->spares--;
        given++;
    }
    return given;
}

static inline void vsd_fill(struct vsd *v, uint32_t n)
{
    if (vsd_give(v, n) > 0 && vqd_must_kick(&v->d.q[0]))
        vd_kick(&v->d, 0);
}

/* Takes the chains back that the device has read. */
static inline void vsd_reap_tx(struct vsd *v)
{
    uint32_t len;

    while (vd_reap(&v->d, 1, &len) >= 0)
        ;
}

/* Puts a packet into the ring, header and payload in two buffers; false: there is no room. */
static inline bool vsd_queue(struct vsd *v, const struct vs_hdr *h, const void *data, uint32_t len)
{
    uint32_t at = VSD_TX + v->tx % VSD_SLOTS * VSD_SLOT;
    struct vqd_buf buf[2] = {{at, 44, false}, {at + 64, len, false}};

    vsd_reap_tx(v);
    if (len > VSD_DATA || v->d.q[1].added - v->d.q[1].reaped >= VSD_SLOTS || v->d.q[1].free < 2)
        return false;
    vs_encode(v->d.ram + at, h);
    if (len > 0)
        memcpy(v->d.ram + at + 64, data, len);
    if (vd_add(&v->d, 1, buf, len > 0 ? 2 : 1) < 0)
        return false;
    v->tx++;
    return true;
}

static inline void vsd_kick(struct vsd *v)
{
    if (vqd_must_kick(&v->d.q[1]))
        vd_kick(&v->d, 1);
}

static inline bool vsd_send(struct vsd *v, const struct vs_hdr *h, const void *data, uint32_t len)
{
    bool ok = vsd_queue(v, h, data, len);

    vsd_kick(v);
    vsd_reap_tx(v);
    return ok;
}

/* The next packet from the device; returns the bytes of its payload, -1: there is none. */
static inline int vsd_recv(struct vsd *v, struct vs_hdr *h, uint8_t *payload)
{
    uint32_t len = 0, slot;
    int id = vd_reap(&v->d, 0, &len);

    if (id < 0)
        return -1;
    slot = v->slot[id];
    v->spare[v->spares++] = slot;
    if (len < 44) {
        memset(h, 0, sizeof(*h)); /* it was too small */
        return -2;
    }
    vs_decode(v->d.ram + VSD_RX + slot * VSD_SLOT, h);
    if (payload)
        memcpy(payload, v->d.ram + VSD_RX + slot * VSD_SLOT + 44, len - 44);
    if (!v->keep)
        vsd_fill(v, 1);
    return (int)len - 44;
}

/* One end of a connection. */
struct vs_end {
    struct vsd *v;
    uint32_t port, host_port;
    uint16_t type;
    uint32_t buf_alloc, fwd_cnt, rx_cnt, tx_cnt, peer_alloc, peer_fwd;
};

static inline void vs_hdr_of(const struct vs_end *e, uint16_t op, uint32_t len, uint32_t flags,
                             struct vs_hdr *h)
{
    struct vs_hdr hdr = {e->v->cid, 2,  e->port, e->host_port, len,
                         e->type,   op, flags,   e->buf_alloc, e->fwd_cnt};

    *h = hdr;
}

static inline uint32_t vs_credit(const struct vs_end *e)
{
    uint32_t used = e->tx_cnt - e->peer_fwd;

    return used < e->peer_alloc ? e->peer_alloc - used : 0;
}

static inline bool vs_op(struct vs_end *e, uint16_t op, uint32_t flags)
{
    struct vs_hdr h;

    vs_hdr_of(e, op, 0, flags, &h);
    return vsd_send(e->v, &h, NULL, 0);
}

/* Payload, whatever the credit is. */
static inline bool vs_rw(struct vs_end *e, const void *data, uint32_t len, uint32_t flags)
{
    struct vs_hdr h;

    vs_hdr_of(e, VS_RW, len, flags, &h);
    if (!vsd_send(e->v, &h, data, len))
        return false;
    e->tx_cnt += len;
    return true;
}

/* What a packet for this end says of credit. */
static inline void vs_heard(struct vs_end *e, const struct vs_hdr *h)
{
    e->peer_alloc = h->buf_alloc;
    e->peer_fwd = h->fwd_cnt;
    if (h->op == VS_RW)
        e->rx_cnt += h->len;
}

#endif
