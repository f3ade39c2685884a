/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A network in memory, as tn_net.h wants it, for tests, harnesses and benchmarks of what asks one:
 * keeps the frames that it is given, brings those that the test has put, and refuses when told to.
 */
#ifndef TENON_NET_SIM_H
#define TENON_NET_SIM_H

#include "tn_net.h"

#include <stdlib.h>
#include <string.h>

#define SIM_PAIRS  7
#define SIM_FRAMES 1024 /* that wait, of each pair and way */

struct sim_frame {
    struct tn_net_hdr hdr;
    uint32_t len;
    uint8_t *bytes;
};

struct sim_queue {
    struct sim_frame frame[SIM_FRAMES]; /* from head on, a ring */
    uint32_t head, count;
};

struct net_sim {
    struct tn_net net;
    struct sim_queue in[SIM_PAIRS];  /* for recv */
    struct sim_queue out[SIM_PAIRS]; /* from send */
    uint64_t room;                   /* frames that send takes before TN_EAGAIN */
    int send_error, recv_error, set_error;
    uint32_t offloads, pairs, sets; /* of set */
    unsigned sends, recvs, cut;     /* calls; frames that recv had no room for */
    void (*on_send)(void *ctx, const struct tn_iov *iov, uint32_t iovs);
    void *on_send_ctx;
};

static inline bool sim_add(struct sim_queue *q, const struct tn_net_hdr *hdr, uint8_t *bytes,
                           uint32_t len)
{
    struct sim_frame *f = &q->frame[(q->head + q->count) % SIM_FRAMES];

    if (q->count == SIM_FRAMES)
        return false;
    f->hdr = *hdr;
    f->len = len;
    f->bytes = bytes;
    q->count++;
    return true;
}

static inline void sim_drop(struct sim_queue *q)
{
    free(q->frame[q->head].bytes);
    q->head = (q->head + 1) % SIM_FRAMES;
    q->count--;
}

static inline struct sim_frame *sim_first(struct sim_queue *q)
{
    return q->count > 0 ? &q->frame[q->head] : NULL;
}

/* Puts a frame for recv. */
static inline bool sim_put(struct net_sim *s, uint32_t pair, const struct tn_net_hdr *hdr,
                           const void *bytes, uint32_t len)
{
    static const struct tn_net_hdr none;
    uint8_t *copy = (uint8_t *)malloc(len ? len : 1);

    if (!copy)
        abort();
    if (len)
        memcpy(copy, bytes, len);
    if (sim_add(&s->in[pair], hdr ? hdr : &none, copy, len))
        return true;
    free(copy);
    return false;
}

static inline int sim_send(void *ctx, uint32_t pair, const struct tn_net_hdr *hdr,
                           const struct tn_iov *iov, uint32_t iovs, uint32_t len)
{
    struct net_sim *s = (struct net_sim *)ctx;
    uint8_t *copy;
    uint32_t at = 0;

    s->sends++;
    if (s->send_error)
        return s->send_error;
    if (s->room == 0)
        return TN_EAGAIN;
    s->room--;
    copy = (uint8_t *)malloc(len);
    if (!copy)
        abort();
    for (uint32_t i = 0; i < iovs; i++) {
        if (iov[i].len > len - at)
            abort(); /* len is a lie */
        memcpy(copy + at, iov[i].base, iov[i].len);
        at += (uint32_t)iov[i].len;
    }
    if (at != len)
        abort();
    if (!sim_add(&s->out[pair], hdr, copy, len))
        free(copy);
    if (s->on_send)
        s->on_send(s->on_send_ctx, iov, iovs);
    return TN_OK;
}

static inline int64_t sim_recv(void *ctx, uint32_t pair, struct tn_net_hdr *hdr,
                               const struct tn_iov *iov, uint32_t iovs)
{
    struct net_sim *s = (struct net_sim *)ctx;
    struct sim_frame *f = sim_first(&s->in[pair]);
    uint32_t at = 0;
    int64_t len;

    s->recvs++;
    if (s->recv_error)
        return s->recv_error;
    if (!f)
        return TN_EAGAIN;
    *hdr = f->hdr;
    len = f->len;
    for (uint32_t i = 0; i < iovs && at < f->len; i++) {
        size_t n = iov[i].len < f->len - at ? iov[i].len : f->len - at;

        memcpy(iov[i].base, f->bytes + at, n);
        at += (uint32_t)n;
    }
    if (at < f->len) {
        s->cut++;
        len = TN_ETRUNC;
    }
    sim_drop(&s->in[pair]);
    return len;
}

static inline int sim_set(void *ctx, uint32_t offloads, uint32_t pairs)
{
    struct net_sim *s = (struct net_sim *)ctx;

    s->sets++;
    if (s->set_error)
        return s->set_error;
    if (pairs == 0 || pairs > s->net.pairs || (offloads & ~s->net.rx_offloads) != 0)
        abort();
    s->offloads = offloads;
    s->pairs = pairs;
    return TN_OK;
}

static inline int sim_fd(void *ctx, uint32_t pair)
{
    (void)ctx;
    (void)pair;
    return -1;
}

static inline void sim_init(struct net_sim *s, uint32_t tx_offloads, uint32_t rx_offloads,
                            uint32_t pairs)
{
    static const struct tn_net_ops ops = {sim_send, sim_recv, sim_set, sim_fd};

    memset(s, 0, sizeof(*s));
    s->net.ops = &ops;
    s->net.ctx = s;
    s->net.tx_offloads = tx_offloads;
    s->net.rx_offloads = rx_offloads;
    s->net.pairs = pairs;
    s->room = UINT64_MAX;
}

static inline void sim_free(struct net_sim *s)
{
    for (unsigned i = 0; i < SIM_PAIRS; i++) {
        while (s->in[i].count > 0)
            sim_drop(&s->in[i]);
        while (s->out[i].count > 0)
            sim_drop(&s->out[i]);
    }
}

#endif
