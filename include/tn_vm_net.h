/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vm_net - a network device of a machine: the model, what carries its frames, and the event loop
 * between them.
 *
 * WHAT
 *   Opens the backend that a description names, makes the device on it, and polls the backend's
 *   descriptors for what the device waits for. When the peer of a stream is gone the link goes
 *   down; one with a name is connected to anew, after 0.1 s first, every 5 s at last, and the link
 *   goes up again. With vhost the host's kernel moves the frames between a TAP and the driver's
 *   queues; this only hands the queues over.
 *
 * USAGE
 *   static struct tn_vm_net net;
 *   struct tn_vm_net_cfg cfg;
 *   struct tn_mem_region table[1];
 *   struct tn_mem mem;
 *   struct tn_loop loop;
 *   int end[2];
 *
 *   memset(&cfg, 0, sizeof(cfg));
 *   tn_mem_init(&mem, table, 1);
 *   if (tn_loop_init(&loop) < 0 || tn_net_pair_sockets(end) < 0)
 *       return 1;
 *   cfg.kind = TN_VM_NET_PAIR;
 *   cfg.fd = end[0];
 *   if (tn_vm_net_init(&net, &cfg, TN_VIRTIO_F_RING, &mem, &loop) < 0)
 *       return 2;
 *   close(end[0]);
 *   tn_vm_net_close(&net);
 *
 * COMPOSITION
 *   tn_vm_devices makes those of a machine: tn_vm_net_init, then tn_vm_virtio_init of net.slot with
 *   net.model.virtio. It saves and restores net.model under the slot's lock.
 *
 * GUEST TRUST
 *   All that a guest says is checked by the model.
 *
 * MEMORY
 *   The caller owns struct tn_vm_net, which does not move while it is open, and cfg.fd, of which
 *   this makes a copy. A pair of queues has about 90 KiB, a stream's buffers 128 KiB.
 *
 * THREADS
 *   The slot's lock guards the model and the backend. init and close on the loop's thread, or while
 *   it does not run. The driver's frames move on the loop's thread.
 *
 * CONFIG
 *   none.
 *
 * LIMITS
 *   All queue pairs are served by the loop's one thread, or by a kernel thread each with vhost,
 *   which serves a queue that its driver breaks no more, without a word. That a stream has ended is
 *   found out when something is received from it: not while the driver gives no buffers.
 */
#ifndef TN_VM_NET_H
#define TN_VM_NET_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* for layer 3; of use only before the first system header */
#endif

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

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "tn_loop.h"
#include "tn_mem.h"
#include "tn_net.h"
#include "tn_net_pair.h"
#include "tn_net_stream.h"
#include "tn_rate.h"
#include "tn_tap.h"
#include "tn_vhost.h"
#include "tn_virtio_net.h"
#include "tn_vm_board.h"
#include "tn_vm_virtio.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_VM_NET_QUEUE 256u /* descriptors of a queue */

struct tn_vm_net;

/* A pair's descriptor in the loop. */
struct tn_vm_net_port {
    struct tn_vm_net *net;
    struct tn_loop_source source; /* fd -1: none */
    bool readable;                /* what the device wants to be told of */
    bool writable;
};

struct tn_vm_net {
    struct tn_vm_virtio slot;
    struct tn_virtio_net model;
    struct tn_virtio_net_pair *pair;
    struct tn_vm_net_port port[TN_VIRTIO_NET_PAIRS_MAX];
    struct tn_loop *loop; /* NULL: closed */
    struct tn_loop_timer timer;
    struct tn_loop_timer retry; /* a stream with a name */
    struct tn_loop_event wake;  /* another thread changed what is to be polled for */
    struct tn_rate tx_rate;
    struct tn_rate rx_rate;
    struct tn_vm_net_cfg cfg; /* as it was made; name is its own, mac the one that it has, fd -1 */
    bool retrying;            /* retry is armed */
    struct tn_vhost *vhost;   /* one for each pair; NULL: this serves the queues */
    uint64_t *log;            /* what the kernel writes, for memory that is tracked; else NULL */
    bool no_vhost;            /* init failed, of vhost */
    bool turning;             /* the loop's thread is inside, and polls as wished afterwards */
    bool opened;              /* the backend */
    union {
        struct tn_tap tap; /* tap.phase tells why it was refused */
        struct tn_net_stream stream;
        struct tn_net_pair pair;
    } back;
};

/*
 * Opens the backend, and makes the device on it, without a place. Returns 0; the error of the
 * backend's init, or of vhost's (net->no_vhost says so); TN_EINVAL for a number of pairs, a MAC
 * address, an MTU or a burst outside its limits, and for vhost with rates or without a TAP;
 * TN_ESYS. *net is closed then.
 */
TN_API int tn_vm_net_init(struct tn_vm_net *net, const struct tn_vm_net_cfg *cfg,
                          uint64_t ring_features, const struct tn_mem *mem, struct tn_loop *loop);

/*
 * Gives back what the device has taken of the guest's, and lets it go on. The slot's lock is not
 * held.
 */
TN_API void tn_vm_net_quiesce(struct tn_vm_net *net);
TN_API void tn_vm_net_wake(struct tn_vm_net *net);

/*
 * Takes the device out of its place, and closes all. Nothing on a closed one.
 */
TN_API void tn_vm_net_close(struct tn_vm_net *net);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

static inline uint64_t tn_vm_net_now_(void *ctx)
{
    struct timespec t;

    (void)ctx;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline const struct tn_net *tn_vm_net_back_(const struct tn_vm_net *net)
{
    return net->cfg.kind == TN_VM_NET_STREAM ? &net->back.stream.net
           : net->cfg.kind == TN_VM_NET_PAIR ? &net->back.pair.net
                                             : &net->back.tap.net;
}

/*
 * Polls for what the device wants; a pair's descriptor comes and goes as pairs are switched on and
 * off. On the loop's thread, with the lock.
 */
static inline void tn_vm_net_poll_(struct tn_vm_net *net)
{
    const struct tn_net *back = tn_vm_net_back_(net);

    for (uint32_t i = 0; i < net->cfg.pairs; i++) {
        struct tn_vm_net_port *port = &net->port[i];
        struct tn_loop_source *source = &port->source;
        uint32_t events =
            (port->readable ? (uint32_t)EPOLLIN : 0) | (port->writable ? (uint32_t)EPOLLOUT : 0);
        int fd = back->ops->fd(back->ctx, i);

        if (fd == source->fd) {
            if (fd >= 0 && events != source->events)
                (void)tn_loop_mod(net->loop, source, events);
            continue;
        }
        if (source->fd >= 0)
            (void)tn_loop_remove(net->loop, source);
        source->fd = fd;
        source->events = events;
        if (fd >= 0 && tn_loop_add(net->loop, source) < 0)
            source->fd = -1;
    }
}

/* The link is up as long as a stream is, and one with a name will be tried again. */
static inline void tn_vm_net_carrier_(struct tn_vm_net *net)
{
    const struct tn_net_stream *stream = &net->back.stream;

    if (net->cfg.kind != TN_VM_NET_STREAM)
        return;
    if (stream->end && net->cfg.name && !net->retrying)
        net->retrying = tn_loop_timer_arm(&net->retry, stream->retry, 0) >= 0;
    tn_virtio_net_link(&net->model, !stream->end);
}

static inline void tn_vm_net_enter_(struct tn_vm_net *net)
{
    pthread_mutex_lock(&net->slot.lock);
    net->turning = true;
}

static inline void tn_vm_net_leave_(struct tn_vm_net *net)
{
    tn_vm_net_carrier_(net);
    tn_vm_net_poll_(net);
    net->turning = false;
    pthread_mutex_unlock(&net->slot.lock);
}

static inline void tn_vm_net_on_port_(void *ctx, uint32_t events)
{
    struct tn_vm_net_port *port = (struct tn_vm_net_port *)ctx;
    struct tn_vm_net *net = port->net;
    uint32_t pair = (uint32_t)(port - net->port);

    tn_vm_net_enter_(net);
    if (events & ~(uint32_t)EPOLLOUT)
        tn_virtio_net_receive(&net->model, pair);
    if (events & ~(uint32_t)EPOLLIN)
        tn_virtio_net_transmit(&net->model, pair);
    tn_vm_net_leave_(net);
}

static inline void tn_vm_net_on_timer_(void *ctx, uint64_t expirations)
{
    (void)expirations;
    tn_vm_net_wake((struct tn_vm_net *)ctx);
}

static inline void tn_vm_net_on_retry_(void *ctx, uint64_t expirations)
{
    struct tn_vm_net *net = (struct tn_vm_net *)ctx;

    (void)expirations;
    tn_vm_net_enter_(net);
    net->retrying = false;
    (void)tn_net_stream_retry(&net->back.stream);
    tn_vm_net_leave_(net);
}

static inline void tn_vm_net_on_wake_(void *ctx, uint64_t count)
{
    struct tn_vm_net *net = (struct tn_vm_net *)ctx;

    (void)count;
    tn_vm_net_enter_(net);
    tn_vm_net_leave_(net);
}

/* ---- what the model calls ---- */

static inline void tn_vm_net_later_(void *ctx, uint64_t ns)
{
    (void)tn_loop_timer_arm(&((struct tn_vm_net *)ctx)->timer, ns, 0);
}

static inline void tn_vm_net_want_(void *ctx, uint32_t pair, bool readable, bool writable)
{
    struct tn_vm_net *net = (struct tn_vm_net *)ctx;

    net->port[pair].readable = readable;
    net->port[pair].writable = writable;
    if (!net->turning)
        (void)tn_loop_event_signal(&net->wake);
}

/* ---- vhost ---- */

static inline int tn_vm_net_take_back_(void *ctx, uint32_t pair, struct tn_virtq_state q[2])
{
    struct tn_vm_net *net = (struct tn_vm_net *)ctx;
    struct tn_vhost *v = &net->vhost[pair];
    int r = TN_OK;

    for (uint32_t i = 0; i < 2 && r == TN_OK; i++)
        r = tn_vhost_stop(v, i, &q[i]);
    if (r < 0)
        tn_vhost_close(v);
    return r;
}

/*
 * The kernel listens to the queues' notifications, and interrupts, by itself. The loop need not
 * know of these queues again: what a driver notifies before they are handed over counts as well.
 */
static inline int tn_vm_net_hand_over_(void *ctx, uint32_t pair, const struct tn_virtq_state q[2])
{
    struct tn_vm_net *net = (struct tn_vm_net *)ctx;
    const struct tn_mem *mem = net->model.cfg.mem;
    struct tn_vhost *v = &net->vhost[pair];
    int r = TN_OK;

    if (v->fd < 0)
        r = tn_vhost_net_init(v, net->back.tap.fd[pair]);
    if (r == TN_OK)
        r = tn_vhost_setup(v, mem, net->model.virtio.features, net->log,
                           net->log ? tn_vhost_log_words(mem) : 0);
    for (uint32_t i = 0; i < 2 && r == TN_OK; i++) {
        struct tn_loop_source *kick = &net->slot.notify[2 * pair + i].event.source;

        (void)tn_loop_mod(net->loop, kick, 0);
        r = tn_vhost_start(v, i, &q[i], kick->fd, net->slot.irq, -1);
        if (r < 0)
            tn_vhost_close(v);
    }
    net->slot.mmio.always = TN_VIRTIO_MMIO_INT_VRING;
    return r;
}

/* Opens it for each pair, and finds out what the kernel can do. */
static inline int tn_vm_net_vhost_(struct tn_vm_net *net, struct tn_virtio_net_cfg *model)
{
    int r = TN_OK;

    net->vhost = (struct tn_vhost *)calloc(net->cfg.pairs, sizeof(*net->vhost));
    if (!net->vhost)
        return TN_ESYS;
    for (uint32_t i = 0; i < net->cfg.pairs; i++)
        net->vhost[i].fd = -1;
    for (uint32_t i = 0; i < net->cfg.pairs && r == TN_OK; i++)
        r = tn_vhost_net_init(&net->vhost[i], net->back.tap.fd[i]);
    net->no_vhost = r < 0;
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < model->mem->count && !net->log; i++) {
        if (!model->mem->region[i].dirty)
            continue;
        net->log = (uint64_t *)calloc(tn_vhost_log_words(model->mem), sizeof(*net->log));
        if (!net->log)
            return TN_ESYS;
    }
    model->ring_features = tn_vhost_features(net->vhost, model->ring_features);
    model->hide |= ~tn_vhost_features(net->vhost, ~0ull);
    model->hand_over = tn_vm_net_hand_over_;
    model->take_back = tn_vm_net_take_back_;
    return TN_OK;
}

/* ---- the backend ---- */

static inline int tn_vm_net_open_(struct tn_vm_net *net, const struct tn_vm_net_cfg *cfg)
{
    struct tn_net_stream_cfg stream;
    struct tn_tap_cfg tap;
    int r = TN_EINVAL, fd = -1, saved;

    /* A copy: whether the caller's is to be closed does not depend on how far this comes. */
    if (cfg->kind >= TN_VM_NET_STREAM && !cfg->name) {
        fd = fcntl(cfg->fd, F_DUPFD_CLOEXEC, 0);
        if (fd < 0)
            return TN_ESYS;
    }
    switch (cfg->kind) {
    case TN_VM_NET_TAP:
    case TN_VM_NET_MACVTAP:
        memset(&tap, 0, sizeof(tap));
        tap.name = cfg->name;
        tap.macvtap = cfg->kind == TN_VM_NET_MACVTAP;
        tap.create = !tap.macvtap;
        tap.pairs = cfg->pairs;
        r = cfg->name ? tn_tap_init(&net->back.tap, &tap) : TN_EINVAL;
        break;
    case TN_VM_NET_STREAM:
        memset(&stream, 0, sizeof(stream));
        stream.path = cfg->name;
        stream.fd = fd;
        r = tn_net_stream_init(&net->back.stream, &stream);
        break;
    case TN_VM_NET_PAIR:
        r = tn_net_pair_init(&net->back.pair, fd,
                             TN_NET_TSO4 | TN_NET_TSO6 | TN_NET_ECN | TN_NET_USO);
        break;
    default:
        break;
    }
    net->opened = r >= 0;
    if (r < 0 && fd >= 0) {
        saved = errno;
        close(fd);
        errno = saved;
    }
    return r;
}

static inline void tn_vm_net_shut_(struct tn_vm_net *net)
{
    if (!net->opened)
        return;
    if (net->cfg.kind == TN_VM_NET_STREAM)
        tn_net_stream_close(&net->back.stream);
    else if (net->cfg.kind == TN_VM_NET_PAIR)
        tn_net_pair_close(&net->back.pair);
    else
        tn_tap_close(&net->back.tap);
    net->opened = false;
}

/* ---- init and close ---- */

static inline bool tn_vm_net_limited_(const struct tn_rate_cfg *rate)
{
    return rate->bytes_per_s || rate->bytes_burst || rate->ops_per_s || rate->ops_burst;
}

/*
 * The address of a device that was given none: a macvtap's own, since it gets no frames for others;
 * else one that nobody has by birth, with the second lowest bit of its first byte set.
 */
static inline int tn_vm_net_mac_(struct tn_vm_net *net)
{
    uint8_t *mac = net->cfg.mac;
    struct ifreq own;

    for (int i = 0; i < 6; i++) {
        if (mac[i] != 0)
            return TN_OK;
    }
    if (net->cfg.kind == TN_VM_NET_MACVTAP) {
        memset(&own, 0, sizeof(own));
        if (ioctl(net->back.tap.fd[0], SIOCGIFHWADDR, &own) < 0)
            return TN_ESYS;
        memcpy(mac, own.ifr_hwaddr.sa_data, 6);
        return TN_OK;
    }
    if (getrandom(mac, 6, 0) != 6)
        return TN_ESYS;
    mac[0] = (uint8_t)((mac[0] & 0xfcu) | 2u);
    return TN_OK;
}

static inline int tn_vm_net_make_(struct tn_vm_net *net, const struct tn_vm_net_cfg *cfg,
                                  uint64_t ring_features, const struct tn_mem *mem)
{
    struct tn_virtio_net_cfg model;
    int r;

    net->cfg = *cfg;
    net->cfg.pairs = cfg->pairs ? cfg->pairs : 1;
    net->cfg.name = cfg->name ? strdup(cfg->name) : NULL;
    if (cfg->name && !net->cfg.name)
        return TN_ESYS;
    if (net->cfg.pairs > TN_VIRTIO_NET_PAIRS_MAX ||
        (net->cfg.pairs > 1 && cfg->kind >= TN_VM_NET_STREAM) ||
        (cfg->vhost && (cfg->kind >= TN_VM_NET_STREAM || tn_vm_net_limited_(&cfg->tx_rate) ||
                        tn_vm_net_limited_(&cfg->rx_rate))))
        return TN_EINVAL;
    net->cfg.fd = -1;
    r = tn_vm_net_open_(net, cfg);
    if (r >= 0)
        r = tn_vm_net_mac_(net);
    if (r < 0)
        return r;
    net->pair = (struct tn_virtio_net_pair *)calloc(net->cfg.pairs, sizeof(*net->pair));
    if (!net->pair)
        return TN_ESYS;
    memset(&model, 0, sizeof(model));
    model.mem = mem;
    model.queue_size = TN_VM_NET_QUEUE;
    model.ring_features = ring_features;
    model.hide = cfg->hide;
    model.net = tn_vm_net_back_(net);
    model.pair = net->pair;
    model.pairs = net->cfg.pairs;
    memcpy(model.mac, net->cfg.mac, 6);
    model.mtu = cfg->mtu;
    model.link_up = true;
    model.ctx = net;
    model.now = tn_vm_net_now_;
    model.wake = tn_vm_net_later_;
    model.poll = tn_vm_net_want_;
    if (cfg->vhost)
        r = tn_vm_net_vhost_(net, &model);
    if (r >= 0 && tn_vm_net_limited_(&cfg->tx_rate)) {
        r = tn_rate_init(&net->tx_rate, &cfg->tx_rate, tn_vm_net_now_(NULL));
        model.tx_rate = &net->tx_rate;
    }
    if (r >= 0 && tn_vm_net_limited_(&cfg->rx_rate)) {
        r = tn_rate_init(&net->rx_rate, &cfg->rx_rate, tn_vm_net_now_(NULL));
        model.rx_rate = &net->rx_rate;
    }
    if (r >= 0)
        r = tn_virtio_net_init(&net->model, &model);
    if (r >= 0)
        r = tn_loop_timer_init(&net->timer, net->loop, tn_vm_net_on_timer_, net);
    if (r >= 0 && cfg->kind == TN_VM_NET_STREAM && cfg->name)
        r = tn_loop_timer_init(&net->retry, net->loop, tn_vm_net_on_retry_, net);
    if (r >= 0)
        r = tn_loop_event_init(&net->wake, net->loop, tn_vm_net_on_wake_, net);
    return r;
}

TN_API int tn_vm_net_init(struct tn_vm_net *net, const struct tn_vm_net_cfg *cfg,
                          uint64_t ring_features, const struct tn_mem *mem, struct tn_loop *loop)
{
    int r, saved;

    memset(net, 0, sizeof(*net));
    net->loop = loop;
    net->timer.source.fd = net->retry.source.fd = net->wake.source.fd = -1;
    for (uint32_t i = 0; i < TN_VIRTIO_NET_PAIRS_MAX; i++) {
        net->port[i].net = net;
        net->port[i].source.fd = -1;
        net->port[i].source.fn = tn_vm_net_on_port_;
        net->port[i].source.ctx = &net->port[i];
    }
    r = tn_vm_net_make_(net, cfg, ring_features, mem);
    if (r < 0) {
        saved = errno;
        tn_vm_net_close(net);
        errno = saved;
    }
    return r;
}

TN_API void tn_vm_net_quiesce(struct tn_vm_net *net)
{
    tn_vm_net_enter_(net);
    tn_virtio_net_quiesce(&net->model);
    tn_vm_net_leave_(net);
}

TN_API void tn_vm_net_wake(struct tn_vm_net *net)
{
    tn_vm_net_enter_(net);
    tn_virtio_net_wake(&net->model);
    tn_vm_net_leave_(net);
}

TN_API void tn_vm_net_close(struct tn_vm_net *net)
{
    if (!net->loop)
        return;
    tn_vm_virtio_close(&net->slot);
    for (uint32_t i = 0; i < TN_VIRTIO_NET_PAIRS_MAX; i++) {
        if (net->port[i].source.fd >= 0)
            (void)tn_loop_remove(net->loop, &net->port[i].source);
    }
    tn_loop_event_close(&net->wake);
    tn_loop_timer_close(&net->timer);
    tn_loop_timer_close(&net->retry);
    for (uint32_t i = 0; net->vhost && i < net->cfg.pairs; i++)
        tn_vhost_close(&net->vhost[i]);
    tn_vm_net_shut_(net);
    free(net->vhost);
    free(net->log);
    free(net->pair);
    free((void *)(uintptr_t)net->cfg.name);
    net->vhost = NULL;
    net->log = NULL;
    net->pair = NULL;
    net->cfg.name = NULL;
    net->loop = NULL;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VM_NET_H */
