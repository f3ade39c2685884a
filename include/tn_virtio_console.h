/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_virtio_console - a virtio console of one port: bytes each way, and the terminal's size.
 *
 * WHAT
 *   What Linux calls hvc0. Bytes that the guest sends go to a function of the caller's, bytes for
 *   the guest go straight into the buffers that its driver has given. Nothing is stored between:
 *   when either side has no room the bytes stay where they are.
 *
 * USAGE
 *   static size_t sink(void *ctx, const uint8_t *bytes, size_t len)
 *   {
 *       (void)ctx;
 *       (void)bytes;
 *       return len;
 *   }
 *   static void again(void *ctx)
 *   {
 *       *(bool *)ctx = true;
 *   }
 *   ---
 *   static uint8_t ram[1u << 16];
 *   static struct tn_virtio_console con;
 *   struct tn_mem_region table[1];
 *   struct tn_mem mem;
 *   bool turn = false;
 *   struct tn_virtio_console_cfg cfg = {&mem, 64, TN_VIRTIO_F_RING, &turn, sink, NULL, again,
 *                                       80, 25};
 *
 *   tn_mem_init(&mem, table, 1);
 *   if (tn_mem_add(&mem, 0, ram, sizeof(ram)) < 0 || tn_virtio_console_init(&con, &cfg) < 0)
 *       return 1;
 *   if (tn_virtio_console_push(&con, (const uint8_t *)"ls\n", 3) < 3)
 *       tn_virtio_console_resize(&con, 132, 43);
 *   if (turn)
 *       tn_virtio_console_flush(&con);
 *
 * COMPOSITION
 *   A transport serves con.virtio. As with tn_uart: when tx takes fewer bytes than it was given,
 *   call tn_virtio_console_flush once the sink can take more; when tn_virtio_console_push takes
 *   fewer than it was given, or tn_virtio_console_room is 0, stop reading the source until room is
 *   called. again asks for tn_virtio_console_flush in the next turn of the event loop. tx and room
 *   may call tn_virtio_console_push; no callback may call anything else here.
 *
 * GUEST TRUST
 *   The rings are hostile, and a saved state may be. A guest that sends without end has
 *   TN_VIRTIO_CONSOLE_TURN bytes a turn and costs no memory; limiting its rate is the sink's work
 *   (tn_rate). A guest that does not read costs nothing: the source has to wait. A chain with
 *   buffers of the wrong direction, which 5.3.6.1 forbids, sets DEVICE_NEEDS_RESET, as a broken
 *   ring does. A chain of no bytes is returned.
 *
 * MEMORY
 *   struct tn_virtio_console is all there is. It holds pointers into itself: it stays where it is.
 *
 * THREADS
 *   One call at a time on one struct, the transport's calls among them. Callbacks run inside them.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Virtual I/O Device (VIRTIO) 1.2, section 5.3: queues 0 (receiveq) and 1 (transmitq),
 *   VIRTIO_CONSOLE_F_SIZE.
 *
 * LIMITS
 *   No VIRTIO_CONSOLE_F_MULTIPORT, no emergency write. A chain whose buffers cross more borders of
 *   RAM regions than TN_VIRTIO_CONSOLE_QUEUE_MAX counts as a broken ring.
 */
#ifndef TN_VIRTIO_CONSOLE_H
#define TN_VIRTIO_CONSOLE_H

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

#include "tn_iov.h"
#include "tn_mem.h"
#include "tn_virtio.h"
#include "tn_virtq.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_VIRTIO_CONSOLE_ID        3u
#define TN_VIRTIO_CONSOLE_F_SIZE    1ull
#define TN_VIRTIO_CONSOLE_RX        0u /* queues (5.3.2) */
#define TN_VIRTIO_CONSOLE_TX        1u
#define TN_VIRTIO_CONSOLE_QUEUES    2u
#define TN_VIRTIO_CONSOLE_QUEUE_MAX 128u   /* descriptors of a queue */
#define TN_VIRTIO_CONSOLE_CONFIG    12u    /* bytes of configuration space (5.3.4) */
#define TN_VIRTIO_CONSOLE_TURN      65536u /* bytes that the guest may send before others' turn */
#define TN_VIRTIO_CONSOLE_VERSION   1      /* of struct tn_virtio_console_state */

struct tn_virtio_console_cfg {
    const struct tn_mem *mem; /* the guest's RAM; outlives the device */
    uint16_t queue_size;      /* a power of two up to TN_VIRTIO_CONSOLE_QUEUE_MAX */
    uint64_t ring_features;   /* those of TN_VIRTIO_F_RING to offer */
    void *ctx;
    /* Takes bytes from the guest, a copy of them; returns how many, 0 to len. */
    size_t (*tx)(void *ctx, const uint8_t *bytes, size_t len);
    /* The guest had no room for input, and has some now: push again. May be NULL. */
    void (*room)(void *ctx);
    /* More waits than one turn may take: call tn_virtio_console_flush, after others had theirs. */
    void (*again)(void *ctx);
    uint16_t cols; /* of the terminal; 0: not known */
    uint16_t rows;
};

struct tn_virtio_console {
    struct tn_virtio virtio;
    struct tn_virtio_queue queue[TN_VIRTIO_CONSOLE_QUEUES];
    struct tn_virtio_console_cfg cfg;
    uint8_t config[TN_VIRTIO_CONSOLE_CONFIG];
    uint32_t tx_off; /* bytes of the chain at the head of the transmitq that tx has taken */
    bool waiting;    /* output waits for a flush */
    bool blocked;    /* the source was told that there is no room: cfg.room is owed a call */
    bool sending;    /* inside cfg.tx */
};

struct tn_virtio_console_state {
    uint32_t version; /* TN_VIRTIO_CONSOLE_VERSION */
    uint32_t tx_off;
    uint16_t cols;
    uint16_t rows;
    uint32_t zero;
    struct tn_virtio_state virtio;
};

/*
 * Makes a device that was just reset. Returns 0; TN_EINVAL when mem, tx or again is missing, for a
 * queue size or for ring features outside the limits.
 */
TN_API int tn_virtio_console_init(struct tn_virtio_console *c,
                                  const struct tn_virtio_console_cfg *cfg);

/*
 * Writes bytes into the driver's receive buffers, and interrupts it. Returns how many it took, 0
 * unless a driver runs the device. The caller keeps the others, and waits for cfg.room.
 */
TN_API size_t tn_virtio_console_push(struct tn_virtio_console *c, const uint8_t *bytes, size_t len);

/*
 * How many bytes tn_virtio_console_push takes now, at least: what the first buffer has room for. If
 * it is 0, cfg.room will be called.
 */
TN_API size_t tn_virtio_console_room(struct tn_virtio_console *c);

/*
 * Hands the bytes that tx refused to tx again, and goes on with what waits behind them; after a
 * restore, also calls cfg.room if there is room. Returns 1 while output waits, else 0.
 */
TN_API int tn_virtio_console_flush(struct tn_virtio_console *c);

/*
 * The terminal's size has changed: tells the driver (5.3.4).
 */
TN_API void tn_virtio_console_resize(struct tn_virtio_console *c, uint16_t cols, uint16_t rows);

/*
 * Copies the state out. What tx has not taken is in the guest's memory still.
 */
TN_API void tn_virtio_console_save(const struct tn_virtio_console *c,
                                   struct tn_virtio_console_state *out);

/*
 * Takes a saved state over; then call tn_virtio_console_flush, and tn_virtio_console_resize with
 * the size of today's terminal. Returns 0; TN_EUNSUP for another version, TN_EFORMAT for a state
 * that no console can be in (c is unchanged), and the errors of tn_virtio_restore.
 */
TN_API int tn_virtio_console_restore(struct tn_virtio_console *c,
                                     const struct tn_virtio_console_state *from);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#define TN_VIRTIO_CONSOLE_IOV_  (2 * TN_VIRTIO_CONSOLE_QUEUE_MAX)
#define TN_VIRTIO_CONSOLE_COPY_ 1024u /* bytes that one call of tx gets at most */

/* How many bytes of the next copy go to the sink: no more than a call or the turn may have. */
/*@ assigns \nothing;
    ensures \result <= left && \result <= TN_VIRTIO_CONSOLE_COPY_;
    ensures \result == left || \result == TN_VIRTIO_CONSOLE_COPY_; */
static inline size_t tn_virtio_console_share_(uint32_t left)
{
    return left < TN_VIRTIO_CONSOLE_COPY_ ? left : TN_VIRTIO_CONSOLE_COPY_;
}

/* What a sink took that was offered len bytes, whatever it says. */
/*@ assigns \nothing;
    ensures \result == \min(said, len); */
static inline uint32_t tn_virtio_console_took_(size_t said, uint32_t len)
{
    return said < len ? (uint32_t)said : len;
}

/* struct virtio_console_config without max_nr_ports and emerg_wr, which stay 0 (5.3.4). */
/*@ requires \valid(config + (0 .. 3));
    assigns config[0 .. 3]; */
static inline void tn_virtio_console_config_(uint8_t *config, uint16_t cols, uint16_t rows)
{
    tn_put_(config, 2, cols);
    tn_put_(config + 2, 2, rows);
}

/* Output will not go on where it was. */
static inline void tn_virtio_console_forget_(struct tn_virtio_console *c)
{
    c->tx_off = 0;
    c->waiting = false;
}

/* The driver broke a queue's rules. One that it has not enabled is no such case. */
static inline void tn_virtio_console_broken_(struct tn_virtio_console *c, int err)
{
    if (err == TN_ESTATE)
        return;
    tn_virtio_console_forget_(c);
    tn_virtio_needs_reset(&c->virtio);
}

/*
 * Pops the next receive chain with room, and returns those without any; *left is how many pops it
 * still has. Returns 1, or 0: there is none.
 */
static inline int tn_virtio_console_rx_(struct tn_virtio_console *c, struct tn_virtq_chain *chain,
                                        struct tn_iov *iov, uint32_t *left)
{
    struct tn_virtq *q = &c->queue[TN_VIRTIO_CONSOLE_RX].q;
    int r;

    while (*left > 0 && tn_virtio_live(&c->virtio)) {
        --*left;
        r = tn_virtq_pop(q, chain, iov, TN_VIRTIO_CONSOLE_IOV_);
        if (r > 0 && chain->readable > 0)
            r = TN_EPROTO;
        if (r < 0)
            tn_virtio_console_broken_(c, r);
        if (r <= 0)
            return 0;
        if (chain->writable_len > 0)
            return 1;
        (void)tn_virtq_push(q, chain, 0);
    }
    return 0;
}

/* The source will wait. If there are buffers all the same, it waits for the next turn. */
static inline void tn_virtio_console_block_(struct tn_virtio_console *c)
{
    c->blocked = true;
    if (tn_virtio_live(&c->virtio) && tn_virtq_notify_enable(&c->queue[TN_VIRTIO_CONSOLE_RX].q))
        c->cfg.again(c->cfg.ctx);
}

/* Lets a source that waits push, if there are buffers. */
static inline void tn_virtio_console_unblock_(struct tn_virtio_console *c)
{
    struct tn_virtq *q = &c->queue[TN_VIRTIO_CONSOLE_RX].q;

    if (!tn_virtio_live(&c->virtio))
        return;
    if (c->blocked) {
        if (!tn_virtq_notify_enable(q))
            return;
        c->blocked = false;
        if (c->cfg.room)
            c->cfg.room(c->cfg.ctx);
    }
    if (!c->blocked)
        tn_virtq_notify_disable(q);
}

/*
 * Offers a transmit chain to tx, from off on, at most *left bytes. Returns how far it got: less
 * than the chain's length when the sink has enough, or *left is used up.
 */
static inline uint32_t tn_virtio_console_offer_(struct tn_virtio_console *c,
                                                const struct tn_virtq_chain *chain, uint32_t off,
                                                uint32_t *left)
{
    uint8_t copy[TN_VIRTIO_CONSOLE_COPY_];
    uint32_t len, n;

    /* When the chain was left in the ring the driver may have made it shorter. */
    while (*left > 0 && off < chain->readable_len) {
        len = (uint32_t)tn_iov_gather(chain->iov, chain->readable, off, copy,
                                      tn_virtio_console_share_(*left));
        n = tn_virtio_console_took_(c->cfg.tx(c->cfg.ctx, copy, len), len);
        off += n;
        *left -= n;
        if (n < len || !tn_virtio_live(&c->virtio))
            break;
    }
    return off;
}

/* Sends until the queue is empty, the sink has enough, or the turn is over. */
static inline void tn_virtio_console_send_(struct tn_virtio_console *c)
{
    struct tn_virtq *q = &c->queue[TN_VIRTIO_CONSOLE_TX].q;
    struct tn_iov iov[TN_VIRTIO_CONSOLE_IOV_];
    struct tn_virtq_chain chain;
    uint32_t left = TN_VIRTIO_CONSOLE_TURN, chains = c->cfg.queue_size, off;
    bool over = false;
    int r;

    if (c->sending)
        return;
    if (!tn_virtio_live(&c->virtio)) {
        tn_virtio_console_forget_(c);
        return;
    }
    c->sending = true;
    c->waiting = false;
    tn_virtq_notify_disable(q);
    for (;;) {
        if (chains == 0 || left == 0) {
            over = tn_virtq_notify_enable(q);
            c->waiting = over;
            break;
        }
        chains--;
        r = tn_virtq_pop(q, &chain, iov, TN_VIRTIO_CONSOLE_IOV_);
        if (r > 0 && chain.writable > 0)
            r = TN_EPROTO;
        if (r < 0) {
            tn_virtio_console_broken_(c, r);
            break;
        }
        if (r == 0) {
            c->tx_off = 0; /* a chain that was begun is still there, unless a state lied */
            if (!tn_virtq_notify_enable(q))
                break;
            continue;
        }
        off = tn_virtio_console_offer_(c, &chain, c->tx_off, &left);
        if (!tn_virtio_live(&c->virtio))
            break; /* tx pushed, and the receiveq was broken */
        if (off < chain.readable_len) {
            (void)tn_virtq_unpop(q, &chain);
            c->tx_off = off;
            c->waiting = true;
            over = left == 0;
            break;
        }
        c->tx_off = 0;
        (void)tn_virtq_push(q, &chain, 0);
    }
    c->sending = false;
    if (tn_virtio_live(&c->virtio))
        tn_virtio_signal(&c->virtio, TN_VIRTIO_CONSOLE_TX);
    if (over)
        c->cfg.again(c->cfg.ctx);
}

/* The driver may have filled the queues before it set DRIVER_OK. */
static inline int tn_virtio_console_on_activate_(void *ctx)
{
    struct tn_virtio_console *c = (struct tn_virtio_console *)ctx;

    c->cfg.again(c->cfg.ctx);
    return TN_OK;
}

static inline void tn_virtio_console_on_reset_(void *ctx)
{
    tn_virtio_console_forget_((struct tn_virtio_console *)ctx);
}

static inline void tn_virtio_console_on_notify_(void *ctx, uint32_t queue)
{
    struct tn_virtio_console *c = (struct tn_virtio_console *)ctx;

    if (queue == TN_VIRTIO_CONSOLE_TX)
        tn_virtio_console_send_(c);
    else
        tn_virtio_console_unblock_(c);
}

static const struct tn_virtio_ops tn_virtio_console_ops_ = {NULL, tn_virtio_console_on_activate_,
                                                            tn_virtio_console_on_reset_,
                                                            tn_virtio_console_on_notify_, NULL};

TN_API int tn_virtio_console_init(struct tn_virtio_console *c,
                                  const struct tn_virtio_console_cfg *cfg)
{
    struct tn_virtio_cfg v;

    if (!cfg->mem || !cfg->tx || !cfg->again || cfg->queue_size > TN_VIRTIO_CONSOLE_QUEUE_MAX ||
        (cfg->ring_features & ~TN_VIRTIO_F_RING) != 0)
        return TN_EINVAL;
    __builtin_memset(c, 0, sizeof(*c));
    c->cfg = *cfg;
    tn_virtio_console_config_(c->config, cfg->cols, cfg->rows);
    v.device_id = TN_VIRTIO_CONSOLE_ID;
    v.features = TN_VIRTIO_CONSOLE_F_SIZE | cfg->ring_features;
    v.queue_size = cfg->queue_size;
    v.queues = TN_VIRTIO_CONSOLE_QUEUES;
    v.queue = c->queue;
    v.mem = cfg->mem;
    v.config = c->config;
    v.config_len = TN_VIRTIO_CONSOLE_CONFIG;
    v.ops = &tn_virtio_console_ops_;
    v.ctx = c;
    return tn_virtio_init(&c->virtio, &v);
}

TN_API size_t tn_virtio_console_push(struct tn_virtio_console *c, const uint8_t *bytes, size_t len)
{
    struct tn_iov iov[TN_VIRTIO_CONSOLE_IOV_];
    struct tn_virtq_chain chain;
    uint32_t left = c->cfg.queue_size, n;
    size_t took = 0;

    while (took < len && tn_virtio_console_rx_(c, &chain, iov, &left) > 0) {
        n = (uint32_t)tn_iov_scatter(iov, chain.writable, 0, bytes + took, len - took);
        (void)tn_virtq_push(&c->queue[TN_VIRTIO_CONSOLE_RX].q, &chain, n);
        took += n;
    }
    if (tn_virtio_live(&c->virtio))
        tn_virtio_signal(&c->virtio, TN_VIRTIO_CONSOLE_RX);
    if (took < len)
        tn_virtio_console_block_(c);
    return took;
}

TN_API size_t tn_virtio_console_room(struct tn_virtio_console *c)
{
    struct tn_iov iov[TN_VIRTIO_CONSOLE_IOV_];
    struct tn_virtq_chain chain;
    uint32_t left = c->cfg.queue_size;

    if (tn_virtio_console_rx_(c, &chain, iov, &left) > 0) {
        (void)tn_virtq_unpop(&c->queue[TN_VIRTIO_CONSOLE_RX].q, &chain);
        return chain.writable_len;
    }
    tn_virtio_console_block_(c);
    return 0;
}

TN_API int tn_virtio_console_flush(struct tn_virtio_console *c)
{
    tn_virtio_console_send_(c);
    tn_virtio_console_unblock_(c);
    return c->waiting;
}

TN_API void tn_virtio_console_resize(struct tn_virtio_console *c, uint16_t cols, uint16_t rows)
{
    if (tn_get_(c->config, 2) == cols && tn_get_(c->config + 2, 2) == rows)
        return;
    tn_virtio_console_config_(c->config, cols, rows);
    tn_virtio_config_changed(&c->virtio);
}

TN_API void tn_virtio_console_save(const struct tn_virtio_console *c,
                                   struct tn_virtio_console_state *out)
{
    out->version = TN_VIRTIO_CONSOLE_VERSION;
    out->tx_off = tn_virtio_live(&c->virtio) ? c->tx_off : 0;
    out->cols = (uint16_t)tn_get_(c->config, 2);
    out->rows = (uint16_t)tn_get_(c->config + 2, 2);
    out->zero = 0;
    tn_virtio_save(&c->virtio, &out->virtio);
}

/*@ predicate tn_virtio_console_idle(struct tn_virtq_state *ring) =
      ring->next_avail == ring->next_used || ring->error != 0;
    predicate tn_virtio_console_ok(struct tn_virtio_console_state *s) =
      s->zero == 0 && tn_virtio_console_idle(&s->virtio.queue[TN_VIRTIO_CONSOLE_RX].ring) &&
      tn_virtio_console_idle(&s->virtio.queue[TN_VIRTIO_CONSOLE_TX].ring) &&
      (s->tx_off == 0 || (s->virtio.status < TN_VIRTIO_S_NEEDS_RESET &&
        s->virtio.queue[TN_VIRTIO_CONSOLE_TX].ring.started == 1 &&
        s->virtio.queue[TN_VIRTIO_CONSOLE_TX].ring.error == 0)); */

/* Whether a queue can be so: between calls a console holds no chain, unless its ring is broken. */
/*@ requires \valid_read(ring);
    assigns \nothing;
    ensures \result != 0 <==> tn_virtio_console_idle((struct tn_virtq_state *)ring); */
static inline bool tn_virtio_console_idle_(const struct tn_virtq_state *ring)
{
    return ring->next_avail == ring->next_used || ring->error != 0;
}

/* Whether what is the console's own can be so: only a queue that runs has a chain begun. */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result != 0 <==> tn_virtio_console_ok((struct tn_virtio_console_state *)s); */
static inline bool tn_virtio_console_valid_(const struct tn_virtio_console_state *s)
{
    const struct tn_virtq_state *rx = &s->virtio.queue[TN_VIRTIO_CONSOLE_RX].ring;
    const struct tn_virtq_state *tx = &s->virtio.queue[TN_VIRTIO_CONSOLE_TX].ring;

    if (s->zero != 0 || !tn_virtio_console_idle_(rx) || !tn_virtio_console_idle_(tx))
        return false;
    return s->tx_off == 0 ||
           (s->virtio.status < TN_VIRTIO_S_NEEDS_RESET && tx->started == 1 && tx->error == 0);
}

TN_API int tn_virtio_console_restore(struct tn_virtio_console *c,
                                     const struct tn_virtio_console_state *from)
{
    struct tn_virtio_console_state copy = *from;
    int r;

    if (copy.version != TN_VIRTIO_CONSOLE_VERSION)
        return TN_EUNSUP;
    if (!tn_virtio_console_valid_(&copy))
        return TN_EFORMAT;
    r = tn_virtio_restore(&c->virtio, &copy.virtio);
    if (r < 0) {
        if (!tn_virtio_live(&c->virtio))
            tn_virtio_console_forget_(c);
        return r;
    }
    tn_virtio_console_config_(c->config, copy.cols, copy.rows);
    c->tx_off = copy.tx_off;
    c->waiting = copy.tx_off > 0;
    c->blocked = true;
    return TN_OK;
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VIRTIO_CONSOLE_H */
