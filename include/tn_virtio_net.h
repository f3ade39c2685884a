/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_virtio_net - a virtio network device over any backend that speaks tn_net.
 *
 * WHAT
 *   Ethernet frames each way, straight between the driver's buffers and the backend: checksum and
 *   segmentation offloads, mergeable receive buffers, several pairs of queues, the filters that a
 *   driver sets through the control queue, link status, and a rate limit for each direction.
 *
 * USAGE
 *   static int hole_send(void *ctx, uint32_t pair, const struct tn_net_hdr *hdr,
 *                        const struct tn_iov *iov, uint32_t iovs, uint32_t len)
 *   {
 *       (void)ctx, (void)pair, (void)hdr, (void)iov, (void)iovs, (void)len;
 *       return TN_OK;
 *   }
 *   static int64_t hole_recv(void *ctx, uint32_t pair, struct tn_net_hdr *hdr,
 *                            const struct tn_iov *iov, uint32_t iovs)
 *   {
 *       (void)ctx, (void)pair, (void)hdr, (void)iov, (void)iovs;
 *       return TN_EAGAIN;
 *   }
 *   static int hole_set(void *ctx, uint32_t offloads, uint32_t pairs)
 *   {
 *       (void)ctx, (void)offloads, (void)pairs;
 *       return TN_OK;
 *   }
 *   static int hole_fd(void *ctx, uint32_t pair)
 *   {
 *       (void)ctx, (void)pair;
 *       return -1;
 *   }
 *   static void poll_for(void *ctx, uint32_t pair, bool readable, bool writable)
 *   {
 *       (void)ctx, (void)pair, (void)readable, (void)writable;
 *   }
 *   static void wake(void *ctx, uint64_t ns)
 *   {
 *       *(uint64_t *)ctx = ns;
 *   }
 *   static uint64_t now(void *ctx)
 *   {
 *       (void)ctx;
 *       return 0;
 *   }
 *   ---
 *   static const struct tn_net_ops hole = {hole_send, hole_recv, hole_set, hole_fd};
 *   static const struct tn_net net = {&hole, NULL, 0, 0, 1};
 *   static struct tn_virtio_net_pair pair[1];
 *   static struct tn_virtio_net dev;
 *   static uint8_t ram[1u << 16];
 *   struct tn_mem_region table[1];
 *   struct tn_mem mem;
 *   uint64_t timer = UINT64_MAX;
 *   struct tn_virtio_net_cfg cfg = {&mem, 256, TN_VIRTIO_F_RING, 0, &net, pair, 1,
 *                                   {2, 0, 0, 0, 0, 1}, 1500, true, NULL, NULL, &timer, now,
 *                                   wake, poll_for, NULL, NULL};
 *
 *   tn_mem_init(&mem, table, 1);
 *   if (tn_mem_add(&mem, 0, ram, sizeof(ram)) < 0 || tn_virtio_net_init(&dev, &cfg) < 0)
 *       return 1;
 *   if (timer != UINT64_MAX)
 *       tn_virtio_net_wake(&dev);
 *
 * COMPOSITION
 *   A transport serves dev.virtio. The event loop polls the descriptor that the backend names for
 *   each pair, for what poll asks: readable leads to tn_virtio_net_receive, writable to
 *   tn_virtio_net_transmit. wake asks for a call of tn_virtio_net_wake so many nanoseconds later,
 *   not from inside. Before a snapshot: tn_virtio_net_quiesce, tn_virtio_net_save. No callback and
 *   no backend may call anything here. With hand_over and take_back, the queues of the frames are
 *   served by somebody else, the kernel's vhost say: see struct tn_virtio_net_cfg.
 *
 * GUEST TRUST
 *   The rings, headers, control commands and a saved state may be hostile; so may the headers and
 *   frames that the backend brings. A header is copied once, and checked by tn_net_hdr_check before
 *   it goes on, either way. A frame that makes no sense is dropped and counted, and its chain comes
 *   back; buffers of the wrong direction, which 5.1.6 forbids, and a control command without room
 *   for its answer set DEVICE_NEEDS_RESET, as a broken ring does. A call moves no more than
 *   TN_VIRTIO_NET_TURN for each queue, whatever the guest adds.
 *
 * MEMORY
 *   The caller gives the pairs, about 90 KiB each: buffers that were popped for frames to come, and
 *   room for one frame that came when there were few. They, and the struct, stay where they are.
 *
 * THREADS
 *   One call at a time on one struct, the transport's calls among them. Callbacks run inside them.
 *
 * CONFIG
 *   none; TN_VIRTIO_MAX_QUEUES of tn_virtio.h limits the pairs.
 *
 * SPEC
 *   Virtual I/O Device (VIRTIO) 1.2, section 5.1; of VIRTIO 1.3, the UDP segments (F_GUEST_USO4,
 *   F_GUEST_USO6, F_HOST_USO). The features are those that are defined below.
 *
 * LIMITS
 *   No RSS, no hash reports, no notification coalescing, no RSC. A chain of more than
 *   TN_VIRTIO_NET_IOVS pieces counts as a broken ring. A rate is charged for a frame before the
 *   next of that pair: a burst may be one frame a pair larger. A frame that is received and then
 *   dropped may have been written to buffers that are not marked dirty: nothing may be read from
 *   them. With mergeable buffers, a frame larger than all that the driver has given waits
 *   TN_VIRTIO_NET_HOLD for more, and is lost then.
 */
#ifndef TN_VIRTIO_NET_H
#define TN_VIRTIO_NET_H

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
#include "tn_net.h"
#include "tn_net_filter.h"
#include "tn_rate.h"
#include "tn_virtio.h"
#include "tn_virtq.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_VIRTIO_NET_ID        1u
#define TN_VIRTIO_NET_PAIRS_MAX ((TN_VIRTIO_MAX_QUEUES - 1) / 2)
#define TN_VIRTIO_NET_QUEUE_MAX 1024u /* descriptors of a queue */
#define TN_VIRTIO_NET_IOVS      1000u /* pieces of a frame: what writev takes, with a header */
#define TN_VIRTIO_NET_WINDOW    64u   /* receive chains popped ahead */
#define TN_VIRTIO_NET_MACS      TN_NET_FILTER_MACS /* addresses of both tables of the filter */
#define TN_VIRTIO_NET_COMMANDS  16u                /* of the control queue in one turn */
#define TN_VIRTIO_NET_TURN      (1u << 20) /* bytes, a frame counting 2 KiB more than it has */
#define TN_VIRTIO_NET_HOLD      100000000u /* nanoseconds that a frame waits for buffers */
#define TN_VIRTIO_NET_CONFIG    12u        /* bytes of the configuration space (5.1.4) */
#define TN_VIRTIO_NET_VERSION   1          /* of struct tn_virtio_net_state */

/* Feature bits (5.1.3). */
#define TN_VIRTIO_NET_F_CSUM                (1ull << 0)
#define TN_VIRTIO_NET_F_GUEST_CSUM          (1ull << 1)
#define TN_VIRTIO_NET_F_CTRL_GUEST_OFFLOADS (1ull << 2)
#define TN_VIRTIO_NET_F_MTU                 (1ull << 3)
#define TN_VIRTIO_NET_F_MAC                 (1ull << 5)
#define TN_VIRTIO_NET_F_GUEST_TSO4          (1ull << 7)
#define TN_VIRTIO_NET_F_GUEST_TSO6          (1ull << 8)
#define TN_VIRTIO_NET_F_GUEST_ECN           (1ull << 9)
#define TN_VIRTIO_NET_F_GUEST_UFO           (1ull << 10)
#define TN_VIRTIO_NET_F_HOST_TSO4           (1ull << 11)
#define TN_VIRTIO_NET_F_HOST_TSO6           (1ull << 12)
#define TN_VIRTIO_NET_F_HOST_ECN            (1ull << 13)
#define TN_VIRTIO_NET_F_HOST_UFO            (1ull << 14)
#define TN_VIRTIO_NET_F_MRG_RXBUF           (1ull << 15)
#define TN_VIRTIO_NET_F_STATUS              (1ull << 16)
#define TN_VIRTIO_NET_F_CTRL_VQ             (1ull << 17)
#define TN_VIRTIO_NET_F_CTRL_RX             (1ull << 18)
#define TN_VIRTIO_NET_F_CTRL_VLAN           (1ull << 19)
#define TN_VIRTIO_NET_F_CTRL_RX_EXTRA       (1ull << 20)
#define TN_VIRTIO_NET_F_GUEST_ANNOUNCE      (1ull << 21)
#define TN_VIRTIO_NET_F_MQ                  (1ull << 22)
#define TN_VIRTIO_NET_F_CTRL_MAC_ADDR       (1ull << 23)
#define TN_VIRTIO_NET_F_GUEST_USO4          (1ull << 54)
#define TN_VIRTIO_NET_F_GUEST_USO6          (1ull << 55)
#define TN_VIRTIO_NET_F_HOST_USO            (1ull << 56)

/* status of the configuration space (5.1.4) */
#define TN_VIRTIO_NET_S_LINK_UP  1u
#define TN_VIRTIO_NET_S_ANNOUNCE 2u

/* Classes and commands of the control queue, and its answers (5.1.6.5). */
#define TN_VIRTIO_NET_CTRL_RX       0u
#define TN_VIRTIO_NET_RX_PROMISC    0u
#define TN_VIRTIO_NET_RX_ALLMULTI   1u
#define TN_VIRTIO_NET_RX_ALLUNI     2u
#define TN_VIRTIO_NET_RX_NOMULTI    3u
#define TN_VIRTIO_NET_RX_NOUNI      4u
#define TN_VIRTIO_NET_RX_NOBCAST    5u
#define TN_VIRTIO_NET_CTRL_MAC      1u
#define TN_VIRTIO_NET_MAC_TABLE_SET 0u
#define TN_VIRTIO_NET_MAC_ADDR_SET  1u
#define TN_VIRTIO_NET_CTRL_VLAN     2u
#define TN_VIRTIO_NET_VLAN_ADD      0u
#define TN_VIRTIO_NET_VLAN_DEL      1u
#define TN_VIRTIO_NET_CTRL_ANNOUNCE 3u
#define TN_VIRTIO_NET_ANNOUNCE_ACK  0u
#define TN_VIRTIO_NET_CTRL_MQ       4u
#define TN_VIRTIO_NET_MQ_PAIRS_SET  0u
#define TN_VIRTIO_NET_CTRL_OFFLOADS 5u
#define TN_VIRTIO_NET_OFFLOADS_SET  0u
#define TN_VIRTIO_NET_OK            0u
#define TN_VIRTIO_NET_ERR           1u

/* A pair of queues; of no use to callers. */
struct tn_virtio_net_pair {
    uint32_t first;   /* of the window, the receive chains that were popped ahead: chain[first] */
    uint32_t chains;  /* in it */
    uint32_t end;     /* of their iovecs */
    uint32_t held;    /* bytes of a frame that waits for buffers; 0: there is none */
    uint64_t room;    /* bytes of all chains */
    uint64_t until;   /* when it has waited too long; 0: it does not wait yet */
    uint64_t rx_owed; /* bytes of the last frame, for which the rate was not yet charged */
    uint64_t tx_owed;
    struct tn_net_hdr hdr; /* of the frame that waits */
    bool rx_work;          /* to be served in the next turn */
    bool tx_work;
    bool tx_look;  /* to be looked at in the next turn, since notifications are off */
    bool starved;  /* receiving waits for the driver's notification */
    bool dead;     /* the backend will bring no more frames */
    bool away;     /* handed over */
    bool readable; /* what was asked to be polled for */
    bool writable;
    struct tn_virtq_chain chain[2 * TN_VIRTIO_NET_WINDOW];
    struct tn_iov iov[TN_VIRTIO_NET_IOVS]; /* theirs, one after the other */
    uint8_t frame[TN_NET_FRAME_MAX];       /* the one that waits */
};

struct tn_virtio_net_cfg {
    const struct tn_mem *mem;        /* the guest's RAM; outlives the device */
    uint16_t queue_size;             /* a power of two up to TN_VIRTIO_NET_QUEUE_MAX */
    uint64_t ring_features;          /* those of TN_VIRTIO_F_RING to offer */
    uint64_t hide;                   /* features not to offer, and so none that needs them */
    const struct tn_net *net;        /* copied; the backend outlives the device */
    struct tn_virtio_net_pair *pair; /* the caller's, any bytes */
    uint32_t pairs;                  /* of them; up to TN_VIRTIO_NET_PAIRS_MAX and net->pairs */
    uint8_t mac[6];                  /* of one station, not of a group, and not 0 */
    uint16_t mtu;                    /* bytes, 68 or more; 0: the driver is not told, 1500 counts */
    bool link_up;
    struct tn_rate *tx_rate; /* limits in frames and bytes, the caller's; NULL: none */
    struct tn_rate *rx_rate;
    void *ctx;
    uint64_t (*now)(void *ctx); /* nanoseconds, of a clock that does not go back */
    /*
     * Call tn_virtio_net_wake in ns nanoseconds, in place of what was asked before; 0: after others
     * had their turn.
     */
    void (*wake)(void *ctx, uint64_t ns);
    /* Poll the backend's descriptor of a pair for this from now on, and for nothing else. */
    void (*poll)(void *ctx, uint32_t pair, bool readable, bool writable);
    /*
     * Both NULL: the device serves all queues. Else those of a pair that is in use are handed over,
     * if the driver enabled both, from tn_virtio_net_wake and nowhere else: q[0] to receive, q[1]
     * to transmit. The backend is only told by set what the driver can do with. Returns 0; an error
     * sets DEVICE_NEEDS_RESET, and leaves the queues the device's. There is no filter then, so that
     * CTRL_RX and CTRL_VLAN are not offered.
     */
    int (*hand_over)(void *ctx, uint32_t pair, const struct tn_virtq_state q[2]);
    /*
     * Takes a pair that was handed over back, from any function: nobody else uses it when this
     * returns, with where it stands, and nothing in flight. Returns 0; an error: that is not known,
     * and DEVICE_NEEDS_RESET is set.
     */
    int (*take_back)(void *ctx, uint32_t pair, struct tn_virtq_state q[2]);
};

struct tn_virtio_net {
    struct tn_virtio virtio;
    struct tn_virtio_queue queue[TN_VIRTIO_MAX_QUEUES];
    struct tn_virtio_net_cfg cfg;
    struct tn_net net;
    struct tn_net_filter filter;
    uint64_t offloads;    /* the GUEST_ features that are switched on */
    uint32_t tx_offloads; /* what may be open in frames, as tn_net.h has it */
    uint32_t rx_offloads;
    uint32_t hdr_len;    /* bytes before each frame */
    uint32_t need;       /* bytes of buffers for the largest frame that may come, at least */
    uint32_t active;     /* pairs in use */
    bool mrg;            /* MRG_RXBUF */
    bool set;            /* the backend was told something other than after a reset */
    bool command_work;   /* the control queue is to be served in the next turn */
    uint64_t timer;      /* that wake was last called with; UINT64_MAX: not since its call came */
    uint64_t rx_dropped; /* frames that made no sense, did not fit, or found no taker */
    uint64_t tx_dropped;
    uint64_t rx_filtered; /* frames that the driver did not want */
    uint8_t config[TN_VIRTIO_NET_CONFIG];
};

struct tn_virtio_net_state {
    uint32_t version; /* TN_VIRTIO_NET_VERSION */
    uint16_t active;
    uint8_t link_up;   /* 0 or 1 */
    uint8_t announce;  /* 0 or 1 */
    uint64_t offloads; /* feature bits */
    uint8_t mac[6];    /* as the rest, of struct tn_net_filter */
    uint8_t mode;
    uint8_t uni;
    uint8_t multi;
    uint8_t zero[7];
    uint8_t table[TN_VIRTIO_NET_MACS][6]; /* unused entries are zero */
    uint8_t vlan[512];
    struct tn_virtio_state virtio;
};

/*
 * Makes a device that was just reset. Returns 0; TN_EINVAL when mem, net, pair or a function is
 * missing, for a queue size, a number of pairs, a MAC address, an MTU or ring features outside the
 * limits; the backend's error of set.
 */
TN_API int tn_virtio_net_init(struct tn_virtio_net *n, const struct tn_virtio_net_cfg *cfg);

/*
 * The descriptor of a pair is readable: moves frames to the driver until there are none, no
 * buffers, or no share of the turn or rate is left.
 */
TN_API void tn_virtio_net_receive(struct tn_virtio_net *n, uint32_t pair);

/*
 * The descriptor of a pair is writable: goes on with the driver's frames.
 */
TN_API void tn_virtio_net_transmit(struct tn_virtio_net *n, uint32_t pair);

/*
 * Goes on with all that waits for time or a turn: the time that wake named has come, or the device
 * was restored, or is to run again after tn_virtio_net_quiesce. Too early or too often does no
 * harm.
 */
TN_API void tn_virtio_net_wake(struct tn_virtio_net *n);

/*
 * The link goes up or down; the driver is told. While it is down what the driver sends is lost, and
 * nothing is received.
 */
TN_API void tn_virtio_net_link(struct tn_virtio_net *n, bool up);

/*
 * Asks the driver to announce itself to the network, which moved (5.1.6.5.4): after a restore, say.
 * Nothing happens without GUEST_ANNOUNCE.
 */
TN_API void tn_virtio_net_announce(struct tn_virtio_net *n);

/*
 * Gives the device another address, for a fork that is to differ. Until FEATURES_OK the driver
 * finds it in the configuration space; one that runs keeps the address it knows until the device
 * is reset. Returns 0 when it counts at once, 1 when it does from the reset on; TN_EINVAL: a
 * group's address, or 0.
 */
TN_API int tn_virtio_net_set_mac(struct tn_virtio_net *n, const uint8_t mac[6]);

/*
 * Gives all buffers back that were taken ahead, and asks for no polling: nothing moves until
 * tn_virtio_net_wake, whatever the driver does. A frame that waits for buffers is lost.
 */
TN_API void tn_virtio_net_quiesce(struct tn_virtio_net *n);

/*
 * Copies the state out, after tn_virtio_net_quiesce. The rates are not in it.
 */
TN_API void tn_virtio_net_save(const struct tn_virtio_net *n, struct tn_virtio_net_state *out);

/*
 * Takes a saved state over, and tells the backend; then call tn_virtio_net_wake. The driver goes on
 * with the address and link that it had; cfg's address is the one after a reset. Returns 0;
 * TN_EUNSUP for another version, or features that are not offered here; TN_EFORMAT for a state that
 * no device can be in, or that was saved with buffers taken; the errors of tn_virtio_restore, and
 * of the backend's set (the device is as after a reset).
 */
TN_API int tn_virtio_net_restore(struct tn_virtio_net *n, const struct tn_virtio_net_state *from);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#define TN_VIRTIO_NET_GUEST_                                                                \
    (TN_VIRTIO_NET_F_GUEST_CSUM | TN_VIRTIO_NET_F_GUEST_TSO4 | TN_VIRTIO_NET_F_GUEST_TSO6 | \
     TN_VIRTIO_NET_F_GUEST_ECN | TN_VIRTIO_NET_F_GUEST_UFO | TN_VIRTIO_NET_F_GUEST_USO4 |   \
     TN_VIRTIO_NET_F_GUEST_USO6)
#define TN_VIRTIO_NET_GSO_ (TN_NET_TSO4 | TN_NET_TSO6 | TN_NET_UFO | TN_NET_USO)

/* Bytes of the header with these features (5.1.6). HASH_REPORT, which needs more, is none here. */
/*@ assigns \nothing;
    ensures \result == 10 || \result == TN_NET_HDR;
    ensures (features & (1 << 32)) != 0 ==> \result == TN_NET_HDR; */
static inline uint32_t tn_virtio_net_hdr_len_(uint64_t features)
{
    if ((features & TN_VIRTIO_F_VERSION_1) != 0 || (features & TN_VIRTIO_NET_F_MRG_RXBUF) != 0)
        return TN_NET_HDR;
    return 10;
}

/* The features without those that need one which is not there (5.1.3.1). */
static inline uint64_t tn_virtio_net_closed_(uint64_t f)
{
    if ((f & TN_VIRTIO_NET_F_GUEST_CSUM) == 0)
        f &= ~TN_VIRTIO_NET_GUEST_;
    if ((f & (TN_VIRTIO_NET_F_GUEST_TSO4 | TN_VIRTIO_NET_F_GUEST_TSO6)) == 0)
        f &= ~TN_VIRTIO_NET_F_GUEST_ECN;
    if ((f & TN_VIRTIO_NET_F_CSUM) == 0)
        f &= ~(TN_VIRTIO_NET_F_HOST_TSO4 | TN_VIRTIO_NET_F_HOST_TSO6 | TN_VIRTIO_NET_F_HOST_ECN |
               TN_VIRTIO_NET_F_HOST_UFO | TN_VIRTIO_NET_F_HOST_USO);
    if ((f & (TN_VIRTIO_NET_F_HOST_TSO4 | TN_VIRTIO_NET_F_HOST_TSO6)) == 0)
        f &= ~TN_VIRTIO_NET_F_HOST_ECN;
    if ((f & TN_VIRTIO_NET_F_CTRL_VQ) == 0)
        f &= ~(TN_VIRTIO_NET_F_CTRL_RX | TN_VIRTIO_NET_F_CTRL_VLAN | TN_VIRTIO_NET_F_CTRL_RX_EXTRA |
               TN_VIRTIO_NET_F_GUEST_ANNOUNCE | TN_VIRTIO_NET_F_MQ | TN_VIRTIO_NET_F_CTRL_MAC_ADDR);
    if ((f & TN_VIRTIO_NET_F_CTRL_RX) == 0)
        f &= ~TN_VIRTIO_NET_F_CTRL_RX_EXTRA;
    return f;
}

/* What may be open in the driver's frames. */
static inline uint32_t tn_virtio_net_tx_offloads_(uint64_t f)
{
    return ((f & TN_VIRTIO_NET_F_CSUM) != 0 ? TN_NET_CSUM : 0) |
           ((f & TN_VIRTIO_NET_F_HOST_TSO4) != 0 ? TN_NET_TSO4 : 0) |
           ((f & TN_VIRTIO_NET_F_HOST_TSO6) != 0 ? TN_NET_TSO6 : 0) |
           ((f & TN_VIRTIO_NET_F_HOST_ECN) != 0 ? TN_NET_ECN : 0) |
           ((f & TN_VIRTIO_NET_F_HOST_UFO) != 0 ? TN_NET_UFO : 0) |
           ((f & TN_VIRTIO_NET_F_HOST_USO) != 0 ? TN_NET_USO : 0);
}

/* And in those for it: no segments without checksums, UDP's over both versions of IP or none. */
/*@ assigns \nothing;
    ensures (f & 2) == 0 ==> \result == 0; */
static inline uint32_t tn_virtio_net_rx_offloads_(uint64_t f)
{
    if ((f & TN_VIRTIO_NET_F_GUEST_CSUM) == 0)
        return 0;
    return TN_NET_CSUM | ((f & TN_VIRTIO_NET_F_GUEST_TSO4) != 0 ? TN_NET_TSO4 : 0) |
           ((f & TN_VIRTIO_NET_F_GUEST_TSO6) != 0 ? TN_NET_TSO6 : 0) |
           ((f & TN_VIRTIO_NET_F_GUEST_ECN) != 0 ? TN_NET_ECN : 0) |
           ((f & TN_VIRTIO_NET_F_GUEST_UFO) != 0 ? TN_NET_UFO : 0) |
           ((f & TN_VIRTIO_NET_F_GUEST_USO4) != 0 && (f & TN_VIRTIO_NET_F_GUEST_USO6) != 0
                ? TN_NET_USO
                : 0);
}

/* Takes a frame of so many bytes out of what is left of a turn. */
/*@ requires \valid(left);
    assigns *left;
    ensures \old(*left) > 0 ==> *left < \old(*left);
    ensures *left == (\old(*left) >= bytes + 2048 ? \old(*left) - (bytes + 2048) : 0); */
static inline void tn_virtio_net_spend_(uint32_t *left, uint32_t bytes)
{
    *left = *left >= 2048u && bytes <= *left - 2048u ? *left - 2048u - bytes : 0;
}

/* ---- the filter ---- */

/*
 * Whether two tables are len bytes long, the first of which has uni addresses, the other multi
 * (5.1.6.5.2).
 */
/*@ assigns \nothing;
    ensures \result <==> len == 8 + 6 * uni + 6 * multi; */
static inline bool tn_virtio_net_tables_(uint32_t len, uint32_t uni, uint32_t multi)
{
    uint32_t rest;

    if (len < 8 || uni > (len - 8) / 6)
        return false;
    rest = len - 8 - 6 * uni;
    return rest % 6 == 0 && rest / 6 == multi;
}

/* The filter as it is after a reset: all frames pass until the driver says otherwise. */
static inline void tn_virtio_net_open_filter_(struct tn_virtio_net *n)
{
    (void)tn_net_filter_init(&n->filter, n->cfg.mac);
    __builtin_memcpy(n->config, n->cfg.mac, 6);
}

/* ---- what is waited for ---- */

static inline void tn_virtio_net_want_(struct tn_virtio_net *n, uint32_t pair, bool readable,
                                       bool writable)
{
    struct tn_virtio_net_pair *p = &n->cfg.pair[pair];

    if (p->readable == readable && p->writable == writable)
        return;
    p->readable = readable;
    p->writable = writable;
    n->cfg.poll(n->cfg.ctx, pair, readable, writable);
}

/* Asks for the next turn in ns nanoseconds, unless it comes before. */
static inline void tn_virtio_net_later_(struct tn_virtio_net *n, uint64_t ns)
{
    if (ns < n->timer) {
        n->timer = ns;
        n->cfg.wake(n->cfg.ctx, ns);
    }
}

/* Charges the rate for the last frame. Returns how long the next has to wait for that; 0: go on. */
static inline uint64_t tn_virtio_net_delay_(struct tn_virtio_net *n, struct tn_rate *rate,
                                            uint64_t *owed)
{
    uint64_t ns;

    if (!rate || *owed == 0)
        return 0;
    ns = tn_rate_take(rate, n->cfg.now(n->cfg.ctx), *owed);
    if (ns == 0)
        *owed = 0;
    return ns;
}

/*
 * The queues of a pair are the device's again. Who served them interrupted by itself: the driver is
 * told once more, since it may not have seen the last time.
 */
static inline void tn_virtio_net_take_back_(struct tn_virtio_net *n, uint32_t pair)
{
    struct tn_virtq_state q[2];
    int r;

    if (!n->cfg.pair[pair].away)
        return;
    n->cfg.pair[pair].away = false;
    r = n->cfg.take_back(n->cfg.ctx, pair, q);
    if (!tn_virtio_live(&n->virtio))
        return;
    for (uint32_t i = 0; i < 2 && r == 0; i++) {
        r = tn_virtq_restore(&n->queue[2 * pair + i].q, n->cfg.mem, &q[i]);
        tn_virtio_interrupt_(&n->virtio, 2 * pair + i);
    }
    if (r < 0)
        tn_virtio_needs_reset(&n->virtio);
}

/* Lets a pair go: its buffers are the driver's again, and nothing is waited for. */
static inline void tn_virtio_net_release_(struct tn_virtio_net *n, uint32_t pair)
{
    struct tn_virtio_net_pair *p = &n->cfg.pair[pair];

    tn_virtio_net_take_back_(n, pair);
    while (p->chains > 0)
        (void)tn_virtq_unpop(&n->queue[2 * pair].q, &p->chain[p->first + --p->chains]);
    p->first = 0;
    p->end = 0;
    p->room = 0;
    p->held = 0;
    p->starved = false;
    p->rx_work = true;
    p->tx_work = true;
    tn_virtio_net_want_(n, pair, false, false);
}

static inline void tn_virtio_net_release_all_(struct tn_virtio_net *n)
{
    for (uint32_t i = 0; i < n->cfg.pairs; i++)
        tn_virtio_net_release_(n, i);
}

/* The driver broke a queue's rules. One that it has not enabled is no such case. */
static inline void tn_virtio_net_broken_(struct tn_virtio_net *n, int err)
{
    if (err == TN_ESTATE)
        return;
    tn_virtio_needs_reset(&n->virtio);
    tn_virtio_net_release_all_(n);
}

/* Hands a pair over, once, whose queues the driver enabled both. */
static inline void tn_virtio_net_hand_over_(struct tn_virtio_net *n, uint32_t pair)
{
    struct tn_virtio_net_pair *p = &n->cfg.pair[pair];
    struct tn_virtq_state q[2];
    int r;

    if (!p->rx_work || !tn_virtio_live(&n->virtio) || n->config[6] % 2u != TN_VIRTIO_NET_S_LINK_UP)
        return;
    p->rx_work = false;
    for (uint32_t i = 0; i < 2; i++) {
        tn_virtq_save(&n->queue[2 * pair + i].q, &q[i]);
        if (q[i].started == 0)
            return;
    }
    r = n->cfg.hand_over(n->cfg.ctx, pair, q);
    p->away = r == 0;
    if (r < 0) {
        tn_virtio_needs_reset(&n->virtio);
        tn_virtio_net_release_all_(n);
    }
}

/* ---- receiving ---- */

/* Moves the window to the front of its arrays. Returns whether that makes room. */
static inline bool tn_virtio_net_compact_(struct tn_virtio_net_pair *p)
{
    uint32_t from;

    if (p->first == 0)
        return false;
    from = (uint32_t)(p->chain[p->first].iov - p->iov);
    for (uint32_t i = from; i < p->end; i++)
        p->iov[i - from] = p->iov[i];
    for (uint32_t i = 0; i < p->chains; i++) {
        p->chain[i] = p->chain[p->first + i];
        p->chain[i].iov -= from;
    }
    p->first = 0;
    p->end -= from;
    return true;
}

/*
 * Pops buffers until there is room for the largest frame. Returns whether there are as many as
 * there can be; if not, the driver may give more.
 */
static inline bool tn_virtio_net_fill_(struct tn_virtio_net *n, uint32_t pair, uint32_t *left)
{
    struct tn_virtio_net_pair *p = &n->cfg.pair[pair];
    struct tn_virtq *q = &n->queue[2 * pair].q;
    uint32_t least = n->mrg ? n->hdr_len : n->hdr_len + TN_NET_ETH;
    uint32_t most = n->mrg ? TN_VIRTIO_NET_WINDOW : 1u;

    while (*left > 0 && p->chains < most && p->room < n->need) {
        struct tn_virtq_chain *c = &p->chain[p->first + p->chains];
        int r;

        if (p->first + p->chains == 2 * TN_VIRTIO_NET_WINDOW && tn_virtio_net_compact_(p))
            continue;
        r = tn_virtq_pop(q, c, p->iov + p->end, (uint16_t)(TN_VIRTIO_NET_IOVS - p->end));
        if (r == TN_ENOSPC && p->chains > 0) {
            if (tn_virtio_net_compact_(p))
                continue;
            return true;
        }
        if (r > 0 && c->readable > 0)
            r = TN_EPROTO;
        if (r < 0)
            tn_virtio_net_broken_(n, r);
        if (r <= 0)
            return r == 0 && tn_virtq_in_flight(q) == q->cfg.size;
        if (c->writable_len < least) {
            if (p->chains > 0) { /* after those before it, since buffers are used in order */
                (void)tn_virtq_unpop(q, c);
                return true;
            }
            (void)tn_virtq_push(q, c, 0);
            tn_virtio_net_spend_(left, 0);
            continue;
        }
        p->chains++;
        p->end += c->writable;
        p->room += c->writable_len;
    }
    return p->chains == most || p->room >= n->need;
}

/* Takes k chains out of the window. */
static inline void tn_virtio_net_used_(struct tn_virtio_net_pair *p, uint32_t k)
{
    for (uint32_t i = 0; i < k; i++)
        p->room -= p->chain[p->first + i].writable_len;
    p->first += k;
    p->chains -= k;
    if (p->chains == 0) {
        p->first = 0;
        p->end = 0;
    }
}

/* How much of len bytes goes into a chain of room bytes. */
/*@ assigns \nothing;
    ensures \result == \min(room, len); */
static inline uint32_t tn_virtio_net_share_(uint32_t room, uint32_t len)
{
    return room < len ? room : len;
}

/*
 * Returns as many chains as header and frame take; the frame is in them, or there is none. The
 * header, which tells how many they are, comes before the driver sees any of them (C11).
 */
static inline void tn_virtio_net_give_(struct tn_virtio_net *n, uint32_t pair,
                                       struct tn_net_hdr *hdr, uint32_t len)
{
    struct tn_virtio_net_pair *p = &n->cfg.pair[pair];
    const struct tn_virtq_chain *c = &p->chain[p->first];
    uint32_t written[TN_VIRTIO_NET_WINDOW], left = n->hdr_len + len, k = 0;
    uint8_t bytes[TN_NET_HDR];

    written[0] = 0; /* there is one, which gcc cannot know */
    while (k < p->chains && left > 0) {
        written[k] = tn_virtio_net_share_(c[k].writable_len, left);
        left -= written[k];
        k++;
    }
    hdr->num_buffers = (uint16_t)k;
    tn_net_hdr_put(hdr, bytes);
    (void)tn_iov_scatter(c->iov, c->writable, 0, bytes, n->hdr_len);
    (void)tn_virtq_push_many(&n->queue[2 * pair].q, c, written, (uint16_t)k);
    tn_virtio_net_used_(p, k);
}

/*
 * Whether a frame that came may go to the driver: it has a header that the driver can do with, and
 * is none that it does not want. head is a copy of how it begins.
 */
static inline bool tn_virtio_net_admit_(struct tn_virtio_net *n, struct tn_net_hdr *hdr,
                                        const uint8_t *head, uint32_t len)
{
    uint32_t most = n->cfg.mtu + TN_NET_ETH + (tn_net_filter_is_tagged(head) ? 4u : 0);

    if (len < TN_NET_ETH || len > TN_NET_FRAME_MAX ||
        tn_net_hdr_check(hdr, n->rx_offloads, len) < 0 ||
        (hdr->gso_type == TN_NET_HDR_GSO_NONE && len > most &&
         (n->virtio.features & TN_VIRTIO_NET_F_MTU) != 0)) { /* 5.1.4.1 */
        n->rx_dropped++;
        return false;
    }
    if ((n->rx_offloads & TN_NET_CSUM) == 0)
        hdr->flags = 0; /* 5.1.6.4.1 */
    if (!tn_net_filter_wants(&n->filter, head)) {
        n->rx_filtered++;
        return false;
    }
    return true;
}

/* The next frame, straight into the window, and to the driver. Returns what recv did. */
static inline int64_t tn_virtio_net_direct_(struct tn_virtio_net *n, uint32_t pair)
{
    struct tn_virtio_net_pair *p = &n->cfg.pair[pair];
    struct tn_iov *iov = p->iov + (p->chain[p->first].iov - p->iov), kept;
    uint32_t iovs = (uint32_t)(p->iov + p->end - iov), i;
    uint8_t head[TN_NET_FILTER_HEAD] = {0};
    struct tn_net_hdr hdr;
    size_t off = n->hdr_len;
    int64_t len;

    __builtin_memset(&hdr, 0, sizeof(hdr));
    i = tn_iov_skip(iov, iovs, &off);
    kept = iov[i];
    iov[i].base += off;
    iov[i].len -= off;
    len = n->net.ops->recv(n->net.ctx, pair, &hdr, iov + i, iovs - i);
    if (len > 0)
        (void)tn_iov_gather(iov + i, iovs - i, 0, head, sizeof(head));
    iov[i] = kept;
    if (len >= 0 && (uint64_t)len > p->room - n->hdr_len)
        len = TN_EBUG;
    if (len >= 0 && tn_virtio_net_admit_(n, &hdr, head, (uint32_t)len))
        tn_virtio_net_give_(n, pair, &hdr, (uint32_t)len);
    if (len == TN_ETRUNC && !n->mrg) { /* it would be in the way of all the others */
        __builtin_memset(&hdr, 0, sizeof(hdr));
        tn_virtio_net_give_(n, pair, &hdr, 0);
    }
    return len;
}

/* The next frame, to where it can wait for buffers. Returns what recv did. */
static inline int64_t tn_virtio_net_hold_(struct tn_virtio_net *n, uint32_t pair)
{
    struct tn_virtio_net_pair *p = &n->cfg.pair[pair];
    struct tn_iov iov = {p->frame, sizeof(p->frame)};
    uint8_t head[TN_NET_FILTER_HEAD] = {0};
    int64_t len;

    __builtin_memset(&p->hdr, 0, sizeof(p->hdr));
    len = n->net.ops->recv(n->net.ctx, pair, &p->hdr, &iov, 1);
    if (len > (int64_t)sizeof(p->frame))
        len = TN_EBUG;
    if (len < 0)
        return len;
    __builtin_memcpy(head, p->frame, len < (int64_t)sizeof(head) ? (size_t)len : sizeof(head));
    if (tn_virtio_net_admit_(n, &p->hdr, head, (uint32_t)len)) {
        p->held = (uint32_t)len;
        p->until = 0;
    }
    return len;
}

/*
 * A frame waits. Gives it to the driver if it fits; full: no more buffers can come, so that it is
 * lost if not. Returns whether it still waits.
 */
static inline bool tn_virtio_net_waits_(struct tn_virtio_net *n, uint32_t pair, bool full)
{
    struct tn_virtio_net_pair *p = &n->cfg.pair[pair];
    uint64_t now;

    if (p->chains > 0 && p->room >= (uint64_t)n->hdr_len + p->held) {
        const struct tn_iov *iov = p->chain[p->first].iov;

        (void)tn_iov_scatter(iov, (uint32_t)(p->iov + p->end - iov), n->hdr_len, p->frame, p->held);
        tn_virtio_net_give_(n, pair, &p->hdr, p->held);
        p->held = 0;
        return false;
    }
    now = n->cfg.now(n->cfg.ctx);
    if (p->until == 0)
        p->until = now > UINT64_MAX - TN_VIRTIO_NET_HOLD ? UINT64_MAX : now + TN_VIRTIO_NET_HOLD;
    if (full || now >= p->until) {
        n->rx_dropped++;
        p->held = 0;
        return false;
    }
    p->rx_work = true;
    tn_virtio_net_later_(n, p->until - now);
    return true;
}

/* Receives until something is missing. Returns whether that is a frame. */
static inline bool tn_virtio_net_frames_(struct tn_virtio_net *n, uint32_t pair)
{
    struct tn_virtio_net_pair *p = &n->cfg.pair[pair];
    struct tn_virtq *q = &n->queue[2 * pair].q;
    uint32_t left = TN_VIRTIO_NET_TURN;
    bool full;

    for (;;) {
        uint64_t ns = tn_virtio_net_delay_(n, n->cfg.rx_rate, &p->rx_owed);
        int64_t len;

        if (left == 0 || ns > 0) {
            p->rx_work = true;
            tn_virtio_net_later_(n, ns);
            return ns == 0;
        }
        full = tn_virtio_net_fill_(n, pair, &left);
        if (!tn_virtio_live(&n->virtio))
            return false;
        if (p->held > 0 && !tn_virtio_net_waits_(n, pair, full))
            continue;
        if (p->held > 0 || p->chains == 0) {
            if (!tn_virtq_notify_enable(q)) {
                p->starved = true;
                return false;
            }
            tn_virtq_notify_disable(q);
            tn_virtio_net_spend_(&left, 0);
            continue;
        }
        len = full && (p->room >= n->need || !n->mrg) ? tn_virtio_net_direct_(n, pair)
                                                      : tn_virtio_net_hold_(n, pair);
        if (len == TN_EAGAIN)
            return true;
        if (len < 0)
            n->rx_dropped++;
        if (len < 0 && len != TN_ETRUNC) {
            p->dead = true;
            return false;
        }
        p->rx_owed = len > 0 ? (uint64_t)len : 0;
        tn_virtio_net_spend_(&left, (uint32_t)p->rx_owed);
    }
}

static inline void tn_virtio_net_rx_(struct tn_virtio_net *n, uint32_t pair)
{
    struct tn_virtio_net_pair *p = &n->cfg.pair[pair];
    bool live = tn_virtio_live(&n->virtio), readable = false;

    p->rx_work = false;
    p->starved = false;
    if (live && !p->dead && n->config[6] % 2u == TN_VIRTIO_NET_S_LINK_UP) {
        tn_virtq_notify_disable(&n->queue[2 * pair].q);
        readable = tn_virtio_net_frames_(n, pair);
        tn_virtio_signal(&n->virtio, 2 * pair);
        live = tn_virtio_live(&n->virtio);
    }
    tn_virtio_net_want_(n, pair, readable && live, p->writable && live);
}

/* ---- sending ---- */

/* Sends the frame of a chain, whose iovecs it may change. TN_EAGAIN: the backend has no room. */
static inline int tn_virtio_net_send_(struct tn_virtio_net *n, uint32_t pair,
                                      const struct tn_virtq_chain *c, struct tn_iov *iov)
{
    uint32_t len = c->readable_len - n->hdr_len, first, iovs;
    uint8_t bytes[TN_NET_HDR] = {0};
    struct tn_net_hdr hdr;
    int r = TN_ERANGE;

    if (c->readable_len >= n->hdr_len + TN_NET_ETH && len <= TN_NET_FRAME_MAX &&
        n->config[6] % 2u == TN_VIRTIO_NET_S_LINK_UP) {
        (void)tn_iov_gather(iov, c->readable, 0, bytes, n->hdr_len);
        tn_net_hdr_get(&hdr, bytes);
        hdr.flags &= TN_NET_HDR_F_NEEDS_CSUM; /* 5.1.6.2.1: no other has a meaning here */
        r = tn_net_hdr_check(&hdr, n->tx_offloads, len);
    }
    if (r == TN_OK) {
        iovs = tn_iov_cut(iov, c->readable, n->hdr_len, len, &first);
        r = n->net.ops->send(n->net.ctx, pair, &hdr, iov + first, iovs, len);
        if (r != TN_EAGAIN)
            n->cfg.pair[pair].tx_owed = len;
    }
    if (r != TN_OK && r != TN_EAGAIN)
        n->tx_dropped++;
    return r;
}

/*
 * Sends until something is missing. Returns whether that is room in the backend. When all is sent
 * the driver may be about to add more: it is asked to notify in the next turn, if there is none.
 */
static inline bool tn_virtio_net_chains_(struct tn_virtio_net *n, uint32_t pair)
{
    struct tn_virtio_net_pair *p = &n->cfg.pair[pair];
    struct tn_virtq *q = &n->queue[2 * pair + 1].q;
    struct tn_iov iov[TN_VIRTIO_NET_IOVS];
    struct tn_virtq_chain chain;
    uint32_t left = TN_VIRTIO_NET_TURN;
    bool moved = false;

    for (;;) {
        uint64_t ns = tn_virtio_net_delay_(n, n->cfg.tx_rate, &p->tx_owed);
        int r;

        if (left == 0 || ns > 0) {
            p->tx_work = true;
            tn_virtio_net_later_(n, ns);
            return false;
        }
        r = tn_virtq_pop(q, &chain, iov, TN_VIRTIO_NET_IOVS);
        if (r > 0 && chain.writable > 0)
            r = TN_EPROTO;
        if (r < 0)
            tn_virtio_net_broken_(n, r);
        if (r == 0 && moved) {
            p->tx_look = true;
            tn_virtio_net_later_(n, 0);
            return false;
        }
        if (r < 0 || (r == 0 && !tn_virtq_notify_enable(q)))
            return false;
        if (r == 0) {
            tn_virtq_notify_disable(q);
            tn_virtio_net_spend_(&left, 0);
            continue;
        }
        if (tn_virtio_net_send_(n, pair, &chain, iov) == TN_EAGAIN) {
            (void)tn_virtq_unpop(q, &chain);
            return true;
        }
        moved = true;
        (void)tn_virtq_push(q, &chain, 0);
        tn_virtio_net_spend_(&left, chain.readable_len);
    }
}

static inline void tn_virtio_net_tx_(struct tn_virtio_net *n, uint32_t pair)
{
    struct tn_virtio_net_pair *p = &n->cfg.pair[pair];
    bool live = tn_virtio_live(&n->virtio), writable = false;

    p->tx_work = false;
    p->tx_look = false;
    if (live) {
        tn_virtq_notify_disable(&n->queue[2 * pair + 1].q);
        writable = tn_virtio_net_chains_(n, pair);
        tn_virtio_signal(&n->virtio, 2 * pair + 1);
        live = tn_virtio_live(&n->virtio);
    }
    tn_virtio_net_want_(n, pair, p->readable && live, writable && live);
}

/* ---- the control queue ---- */

/* Tells the backend what the driver can do with now. */
static inline int tn_virtio_net_apply_(struct tn_virtio_net *n, uint64_t offloads, uint32_t active)
{
    uint32_t open = tn_virtio_net_rx_offloads_(offloads);
    int r = n->net.ops->set(n->net.ctx, open, active);

    if (r < 0)
        return r;
    n->set = true;
    n->offloads = offloads;
    n->rx_offloads = open;
    n->need = n->hdr_len + ((open & TN_VIRTIO_NET_GSO_) != 0
                                ? TN_NET_FRAME_MAX
                                : (n->cfg.mtu != 0 ? n->cfg.mtu : 1500u) + TN_NET_ETH + 4u);
    n->active = active;
    return TN_OK;
}

/* What follows from the features, at DRIVER_OK and at a restore. */
static inline void tn_virtio_net_features_(struct tn_virtio_net *n)
{
    uint64_t f = n->virtio.features;

    n->hdr_len = tn_virtio_net_hdr_len_(f);
    n->mrg = (f & TN_VIRTIO_NET_F_MRG_RXBUF) != 0;
    n->filter.vlans = (f & TN_VIRTIO_NET_F_CTRL_VLAN) != 0;
    n->tx_offloads = tn_virtio_net_tx_offloads_(f);
}

/* MAC_TABLE_SET, whose data are the len bytes of a chain from byte 2 on. False: it is wrong. */
static inline bool tn_virtio_net_tables_set_(struct tn_virtio_net *n,
                                             const struct tn_virtq_chain *c, uint32_t len)
{
    uint8_t bytes[4] = {0}, mac[2][6 * TN_NET_FILTER_MACS];
    uint32_t uni, multi;

    (void)tn_iov_gather(c->iov, c->readable, 2, bytes, 4);
    uni = (uint32_t)tn_get_(bytes, 4);
    if (len < 8 || uni > (len - 8) / 6)
        return false;
    (void)tn_iov_gather(c->iov, c->readable, 6 + 6 * (size_t)uni, bytes, 4);
    multi = (uint32_t)tn_get_(bytes, 4);
    if (!tn_virtio_net_tables_(len, uni, multi))
        return false;
    if (uni <= TN_NET_FILTER_MACS)
        (void)tn_iov_gather(c->iov, c->readable, 6, mac[0], 6 * (size_t)uni);
    if (multi <= TN_NET_FILTER_MACS)
        (void)tn_iov_gather(c->iov, c->readable, 10 + 6 * (size_t)uni, mac[1], 6 * (size_t)multi);
    tn_net_filter_set_tables(&n->filter, mac[0], uni, mac[1], multi);
    return true;
}

/* The number of pairs that the driver uses (5.1.6.5.5). */
static inline bool tn_virtio_net_pairs_set_(struct tn_virtio_net *n, uint32_t pairs)
{
    if (pairs < 1 || pairs > n->cfg.pairs)
        return false;
    for (uint32_t i = pairs; i < n->active; i++) /* before the backend lets them go */
        tn_virtio_net_release_(n, i);
    tn_virtio_net_later_(n, 0);
    return tn_virtio_net_apply_(n, n->offloads, pairs) == TN_OK;
}

/* Carries out one command, all of whose data is in a chain (5.1.6.5). False: it makes no sense. */
static inline bool tn_virtio_net_command_(struct tn_virtio_net *n, const struct tn_virtq_chain *c)
{
    uint64_t f = n->virtio.features, number;
    uint32_t len = c->readable_len - 2;
    uint8_t data[10] = {0};

    if (c->readable_len < 2)
        return false;
    (void)tn_iov_gather(c->iov, c->readable, 0, data, sizeof(data));
    number = len <= 8 ? tn_get_(data + 2, len) : 0;
    switch (data[0] << 8 | data[1]) {
    case TN_VIRTIO_NET_CTRL_RX << 8 | TN_VIRTIO_NET_RX_ALLUNI:
    case TN_VIRTIO_NET_CTRL_RX << 8 | TN_VIRTIO_NET_RX_NOMULTI:
    case TN_VIRTIO_NET_CTRL_RX << 8 | TN_VIRTIO_NET_RX_NOUNI:
    case TN_VIRTIO_NET_CTRL_RX << 8 | TN_VIRTIO_NET_RX_NOBCAST:
        if ((f & TN_VIRTIO_NET_F_CTRL_RX_EXTRA) == 0)
            return false;
    /* fall through */
    case TN_VIRTIO_NET_CTRL_RX << 8 | TN_VIRTIO_NET_RX_PROMISC:
    case TN_VIRTIO_NET_CTRL_RX << 8 | TN_VIRTIO_NET_RX_ALLMULTI:
        return (f & TN_VIRTIO_NET_F_CTRL_RX) != 0 && len == 1 && number <= 1 &&
               tn_net_filter_set_mode(&n->filter, 1u << data[1], number == 1) == TN_OK;
    case TN_VIRTIO_NET_CTRL_MAC << 8 | TN_VIRTIO_NET_MAC_TABLE_SET:
        return (f & TN_VIRTIO_NET_F_CTRL_RX) != 0 && tn_virtio_net_tables_set_(n, c, len);
    case TN_VIRTIO_NET_CTRL_MAC << 8 | TN_VIRTIO_NET_MAC_ADDR_SET:
        if ((f & TN_VIRTIO_NET_F_CTRL_MAC_ADDR) == 0 || len != 6 ||
            tn_net_filter_set_mac(&n->filter, data + 2) < 0)
            return false;
        __builtin_memcpy(n->config, data + 2, 6);
        return true;
    case TN_VIRTIO_NET_CTRL_VLAN << 8 | TN_VIRTIO_NET_VLAN_ADD:
    case TN_VIRTIO_NET_CTRL_VLAN << 8 | TN_VIRTIO_NET_VLAN_DEL:
        return (f & TN_VIRTIO_NET_F_CTRL_VLAN) != 0 && len == 2 &&
               tn_net_filter_set_vlan(&n->filter, (uint32_t)number,
                                      data[1] == TN_VIRTIO_NET_VLAN_ADD) == TN_OK;
    case TN_VIRTIO_NET_CTRL_ANNOUNCE << 8 | TN_VIRTIO_NET_ANNOUNCE_ACK:
        if ((f & TN_VIRTIO_NET_F_GUEST_ANNOUNCE) == 0 || len != 0)
            return false;
        n->config[6] &= (uint8_t)~TN_VIRTIO_NET_S_ANNOUNCE;
        return true;
    case TN_VIRTIO_NET_CTRL_MQ << 8 | TN_VIRTIO_NET_MQ_PAIRS_SET:
        return (f & TN_VIRTIO_NET_F_MQ) != 0 && len == 2 &&
               tn_virtio_net_pairs_set_(n, (uint32_t)number);
    case TN_VIRTIO_NET_CTRL_OFFLOADS << 8 | TN_VIRTIO_NET_OFFLOADS_SET:
        return (f & TN_VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) != 0 && len == 8 &&
               (number & ~(f & TN_VIRTIO_NET_GUEST_)) == 0 &&
               tn_virtio_net_apply_(n, number, n->active) == TN_OK;
    default:
        return false;
    }
}

/* Which queue is the control queue: the one behind all pairs that the driver knows of (5.1.2). */
/*@ requires pairs <= TN_VIRTIO_MAX_QUEUES;
    assigns \nothing;
    ensures \result == ((features & (1 << 22)) != 0 ? 2 * pairs : 2); */
static inline uint32_t tn_virtio_net_control_at_(uint64_t features, uint32_t pairs)
{
    return (features & TN_VIRTIO_NET_F_MQ) != 0 ? 2 * pairs : 2u;
}

static inline void tn_virtio_net_control_(struct tn_virtio_net *n)
{
    uint32_t at = tn_virtio_net_control_at_(n->virtio.features, n->cfg.pairs);
    struct tn_virtq *q = &n->queue[at].q;
    struct tn_iov iov[TN_VIRTIO_NET_IOVS];
    struct tn_virtq_chain chain;
    uint32_t left = TN_VIRTIO_NET_COMMANDS;
    bool done;

    n->command_work = false;
    if (!tn_virtio_live(&n->virtio) || !tn_virtio_has(&n->virtio, TN_VIRTIO_NET_F_CTRL_VQ))
        return;
    for (;;) {
        int r;

        if (left-- == 0) {
            n->command_work = true;
            tn_virtio_net_later_(n, 0);
            break;
        }
        r = tn_virtq_pop(q, &chain, iov, TN_VIRTIO_NET_IOVS);
        if (r > 0 && chain.writable == 0)
            r = TN_EPROTO;
        if (r < 0)
            tn_virtio_net_broken_(n, r);
        if (r < 0 || (r == 0 && !tn_virtq_notify_enable(q)))
            break;
        if (r == 0)
            continue;
        done = tn_virtio_net_command_(n, &chain);
        *(volatile uint8_t *)iov[chain.readable].base = !done; /* OK, or ERR */
        (void)tn_virtq_push(q, &chain, 1);
    }
    tn_virtio_signal(&n->virtio, at);
}

/* ---- what the transport calls ---- */

static inline bool tn_virtio_net_on_accept_(void *ctx, uint64_t features)
{
    (void)ctx;
    return tn_virtio_net_closed_(features) == features;
}

/* The driver may have filled the queues before it set DRIVER_OK. */
static inline int tn_virtio_net_on_activate_(void *ctx)
{
    struct tn_virtio_net *n = (struct tn_virtio_net *)ctx;

    tn_virtio_net_features_(n);
    tn_virtio_net_release_all_(n);
    n->command_work = true;
    tn_virtio_net_later_(n, 0);
    return tn_virtio_net_apply_(n, n->virtio.features & TN_VIRTIO_NET_GUEST_, 1);
}

static inline void tn_virtio_net_on_reset_(void *ctx)
{
    struct tn_virtio_net *n = (struct tn_virtio_net *)ctx;

    tn_virtio_net_release_all_(n);
    for (uint32_t i = 0; i < n->cfg.pairs; i++)
        n->cfg.pair[i].dead = false;
    if (n->set)
        (void)tn_virtio_net_apply_(n, 0, 1);
    n->set = false;
    n->offloads = 0;
    n->active = 1;
    n->config[6] &= TN_VIRTIO_NET_S_LINK_UP;
    n->command_work = false;
    tn_virtio_net_open_filter_(n);
}

static inline void tn_virtio_net_on_notify_(void *ctx, uint32_t queue)
{
    struct tn_virtio_net *n = (struct tn_virtio_net *)ctx;
    struct tn_virtio_net_pair *p;

    if (tn_virtio_has(&n->virtio, TN_VIRTIO_NET_F_CTRL_VQ) &&
        queue == tn_virtio_net_control_at_(n->virtio.features, n->cfg.pairs)) {
        if (!n->command_work)
            tn_virtio_net_control_(n);
        return;
    }
    if (queue / 2 >= n->active || n->cfg.hand_over)
        return;
    p = &n->cfg.pair[queue / 2];
    if (queue % 2 == 0 && p->starved)
        tn_virtio_net_rx_(n, queue / 2);
    if (queue % 2 == 1 && !p->writable && !p->tx_work)
        tn_virtio_net_tx_(n, queue / 2);
}

static const struct tn_virtio_ops tn_virtio_net_ops_ = {
    tn_virtio_net_on_accept_, tn_virtio_net_on_activate_, tn_virtio_net_on_reset_,
    tn_virtio_net_on_notify_, NULL};

/* ---- the functions of part 1 ---- */

/* All that backend and cfg allow. */
static inline uint64_t tn_virtio_net_offer_(const struct tn_virtio_net_cfg *cfg)
{
    uint32_t tx = cfg->net->tx_offloads, rx = cfg->net->rx_offloads;
    uint64_t f = TN_VIRTIO_NET_F_MAC | TN_VIRTIO_NET_F_STATUS | TN_VIRTIO_NET_F_MRG_RXBUF |
                 TN_VIRTIO_NET_F_CTRL_VQ | TN_VIRTIO_NET_F_CTRL_RX | TN_VIRTIO_NET_F_CTRL_RX_EXTRA |
                 TN_VIRTIO_NET_F_CTRL_VLAN | TN_VIRTIO_NET_F_CTRL_MAC_ADDR |
                 TN_VIRTIO_NET_F_GUEST_ANNOUNCE;

    if (cfg->hand_over)
        f &= ~(TN_VIRTIO_NET_F_CTRL_RX | TN_VIRTIO_NET_F_CTRL_RX_EXTRA | TN_VIRTIO_NET_F_CTRL_VLAN);
    f |= cfg->mtu != 0 ? TN_VIRTIO_NET_F_MTU : 0;
    f |= cfg->pairs > 1 ? TN_VIRTIO_NET_F_MQ : 0;
    f |= (tx & TN_NET_CSUM) != 0 ? TN_VIRTIO_NET_F_CSUM : 0;
    f |= (tx & TN_NET_TSO4) != 0 ? TN_VIRTIO_NET_F_HOST_TSO4 : 0;
    f |= (tx & TN_NET_TSO6) != 0 ? TN_VIRTIO_NET_F_HOST_TSO6 : 0;
    f |= (tx & TN_NET_ECN) != 0 ? TN_VIRTIO_NET_F_HOST_ECN : 0;
    f |= (tx & TN_NET_UFO) != 0 ? TN_VIRTIO_NET_F_HOST_UFO : 0;
    f |= (tx & TN_NET_USO) != 0 ? TN_VIRTIO_NET_F_HOST_USO : 0;
    f |= (rx & TN_NET_CSUM) != 0 ? TN_VIRTIO_NET_F_GUEST_CSUM : 0;
    f |= (rx & TN_NET_TSO4) != 0 ? TN_VIRTIO_NET_F_GUEST_TSO4 : 0;
    f |= (rx & TN_NET_TSO6) != 0 ? TN_VIRTIO_NET_F_GUEST_TSO6 : 0;
    f |= (rx & TN_NET_ECN) != 0 ? TN_VIRTIO_NET_F_GUEST_ECN : 0;
    f |= (rx & TN_NET_UFO) != 0 ? TN_VIRTIO_NET_F_GUEST_UFO : 0;
    f |= (rx & TN_NET_USO) != 0 ? TN_VIRTIO_NET_F_GUEST_USO4 | TN_VIRTIO_NET_F_GUEST_USO6 : 0;
    f = tn_virtio_net_closed_(f & ~cfg->hide);
    if ((f & TN_VIRTIO_NET_F_GUEST_CSUM) != 0 && (f & TN_VIRTIO_NET_F_CTRL_VQ) != 0)
        f |= TN_VIRTIO_NET_F_CTRL_GUEST_OFFLOADS & ~cfg->hide;
    return f;
}

TN_API int tn_virtio_net_init(struct tn_virtio_net *n, const struct tn_virtio_net_cfg *cfg)
{
    struct tn_virtio_cfg v;
    int r;

    if (!cfg->mem || !cfg->net || !cfg->net->ops || !cfg->pair || !cfg->now || !cfg->wake ||
        !cfg->poll || !cfg->hand_over != !cfg->take_back ||
        cfg->queue_size > TN_VIRTIO_NET_QUEUE_MAX || cfg->pairs == 0 ||
        cfg->pairs > TN_VIRTIO_NET_PAIRS_MAX || cfg->pairs > cfg->net->pairs ||
        !tn_net_filter_is_station(cfg->mac) || (cfg->mtu != 0 && cfg->mtu < 68) ||
        (cfg->ring_features & ~TN_VIRTIO_F_RING) != 0)
        return TN_EINVAL;
    __builtin_memset(n, 0, sizeof(*n));
    for (uint32_t i = 0; i < cfg->pairs; i++) /* the large arrays stay untouched */
        __builtin_memset(&cfg->pair[i], 0, offsetof(struct tn_virtio_net_pair, chain));
    n->cfg = *cfg;
    n->net = *cfg->net;
    n->timer = UINT64_MAX;
    n->active = 1;
    tn_virtio_net_open_filter_(n);
    n->config[6] = cfg->link_up ? TN_VIRTIO_NET_S_LINK_UP : 0;
    tn_put_(n->config + 8, 2, cfg->pairs);
    tn_put_(n->config + 10, 2, cfg->mtu);
    v.device_id = TN_VIRTIO_NET_ID;
    v.features = cfg->ring_features | tn_virtio_net_offer_(cfg);
    v.queue_size = cfg->queue_size;
    v.queues = 2 * cfg->pairs + 1;
    v.queue = n->queue;
    v.mem = cfg->mem;
    v.config = n->config;
    v.config_len = sizeof(n->config);
    v.ops = &tn_virtio_net_ops_;
    v.ctx = n;
    r = tn_virtio_init(&n->virtio, &v);
    return r < 0 ? r : n->net.ops->set(n->net.ctx, 0, 1);
}

TN_API void tn_virtio_net_receive(struct tn_virtio_net *n, uint32_t pair)
{
    if (pair < n->active && !n->cfg.hand_over)
        tn_virtio_net_rx_(n, pair);
    else if (pair < n->cfg.pairs)
        tn_virtio_net_want_(n, pair, false, false);
}

TN_API void tn_virtio_net_transmit(struct tn_virtio_net *n, uint32_t pair)
{
    if (pair < n->active && !n->cfg.hand_over)
        tn_virtio_net_tx_(n, pair);
    else if (pair < n->cfg.pairs)
        tn_virtio_net_want_(n, pair, false, false);
}

TN_API void tn_virtio_net_wake(struct tn_virtio_net *n)
{
    n->timer = UINT64_MAX;
    if (n->command_work)
        tn_virtio_net_control_(n);
    for (uint32_t i = 0; i < n->active && n->cfg.hand_over; i++)
        tn_virtio_net_hand_over_(n, i);
    for (uint32_t i = 0; i < n->active && !n->cfg.hand_over; i++) {
        if (n->cfg.pair[i].tx_work || n->cfg.pair[i].tx_look)
            tn_virtio_net_tx_(n, i);
        if (n->cfg.pair[i].rx_work)
            tn_virtio_net_rx_(n, i);
    }
}

TN_API void tn_virtio_net_link(struct tn_virtio_net *n, bool up)
{
    if ((n->config[6] % 2u == TN_VIRTIO_NET_S_LINK_UP) == up)
        return;
    n->config[6] ^= TN_VIRTIO_NET_S_LINK_UP;
    tn_virtio_net_release_all_(n);
    if (tn_virtio_live(&n->virtio))
        tn_virtio_net_later_(n, 0);
    tn_virtio_config_changed(&n->virtio);
}

TN_API void tn_virtio_net_announce(struct tn_virtio_net *n)
{
    if (!tn_virtio_has(&n->virtio, TN_VIRTIO_NET_F_GUEST_ANNOUNCE))
        return;
    n->config[6] |= TN_VIRTIO_NET_S_ANNOUNCE;
    tn_virtio_config_changed(&n->virtio);
}

TN_API int tn_virtio_net_set_mac(struct tn_virtio_net *n, const uint8_t mac[6])
{
    if (!tn_net_filter_is_station(mac))
        return TN_EINVAL;
    __builtin_memcpy(n->cfg.mac, mac, 6);
    if ((tn_virtio_status_read(&n->virtio) & TN_VIRTIO_S_FEATURES_OK) != 0)
        return 1;
    tn_virtio_net_open_filter_(n);
    tn_virtio_config_changed(&n->virtio);
    return TN_OK;
}

TN_API void tn_virtio_net_quiesce(struct tn_virtio_net *n)
{
    tn_virtio_net_release_all_(n);
    n->command_work = true;
}

TN_API void tn_virtio_net_save(const struct tn_virtio_net *n, struct tn_virtio_net_state *out)
{
    __builtin_memset(out, 0, sizeof(*out));
    out->version = TN_VIRTIO_NET_VERSION;
    out->active = (uint16_t)n->active;
    out->link_up = n->config[6] & TN_VIRTIO_NET_S_LINK_UP;
    out->announce = (n->config[6] & TN_VIRTIO_NET_S_ANNOUNCE) != 0;
    out->offloads = n->offloads;
    __builtin_memcpy(out->mac, n->filter.mac, 6);
    out->mode = n->filter.mode;
    out->uni = n->filter.uni;
    out->multi = n->filter.multi;
    __builtin_memcpy(out->table, n->filter.table, sizeof(out->table));
    __builtin_memcpy(out->vlan, n->filter.vlan, sizeof(out->vlan));
    tn_virtio_save(&n->virtio, &out->virtio);
}

/*@ predicate tn_virtio_net_idle(struct tn_virtq_state *q) =
      q->started != 1 || q->error != 0 || q->next_avail == q->next_used; */

/* Whether all queues are as after tn_virtio_net_quiesce: a buffer taken would never come back. */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result <==> \forall integer i; 0 <= i < TN_VIRTIO_MAX_QUEUES ==>
      tn_virtio_net_idle((struct tn_virtq_state *)&s->queue[i].ring); */
static inline bool tn_virtio_net_idle_(const struct tn_virtio_state *s)
{
    /*@ loop invariant i <= TN_VIRTIO_MAX_QUEUES;
        loop invariant \forall integer k; 0 <= k < i ==>
          tn_virtio_net_idle((struct tn_virtq_state *)&s->queue[k].ring);
        loop assigns i;
        loop variant TN_VIRTIO_MAX_QUEUES - i; */
    for (uint32_t i = 0; i < TN_VIRTIO_MAX_QUEUES; i++) {
        const struct tn_virtq_state *ring = &s->queue[i].ring;

        if (ring->started == 1 && ring->error == TN_OK && ring->next_avail != ring->next_used)
            return false;
    }
    return true;
}

/*
 * Whether what is the device's own can be so with these features: whatever a command sets is as
 * after a reset without the feature of the command. pairs is how many there are.
 */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result ==> s->link_up <= 1 && s->announce <= 1 && 1 <= s->active <= pairs &&
      s->uni + s->multi <= TN_VIRTIO_NET_MACS;
    ensures \result && (features & (1 << 22)) == 0 ==> s->active == 1;
    ensures \result && (features & (1 << 18)) == 0 ==>
      s->mode == 1 && s->uni == 0 && s->multi == 0; */
static inline bool tn_virtio_net_valid_(const struct tn_virtio_net_state *s, uint64_t features,
                                        uint32_t pairs)
{
    uint32_t modes = (features & TN_VIRTIO_NET_F_CTRL_RX) == 0         ? 0
                     : (features & TN_VIRTIO_NET_F_CTRL_RX_EXTRA) == 0 ? 0xc3u
                                                                       : 0xffu;

    if (s->link_up > 1 || s->announce > 1 || s->active < 1 || s->active > pairs ||
        (uint32_t)s->uni + s->multi > TN_VIRTIO_NET_MACS)
        return false;
    if (((features & TN_VIRTIO_NET_F_MQ) == 0 && s->active != 1) ||
        ((features & TN_VIRTIO_NET_F_GUEST_ANNOUNCE) == 0 && s->announce != 0) ||
        (s->offloads & ~(features & TN_VIRTIO_NET_GUEST_)) != 0)
        return false;
    if (modes == 0)
        return s->mode == 1u << TN_VIRTIO_NET_RX_PROMISC && s->uni == 0 && s->multi == 0;
    return (s->mode & ~modes) == 0;
}

TN_API int tn_virtio_net_restore(struct tn_virtio_net *n, const struct tn_virtio_net_state *from)
{
    struct tn_virtio_net_state s = *from;
    uint64_t f = (s.virtio.status & TN_VIRTIO_S_DRIVER_OK) != 0 ? s.virtio.features : 0;
    uint32_t macs = (uint32_t)s.uni + s.multi;
    int r;

    if (s.version != TN_VIRTIO_NET_VERSION)
        return TN_EUNSUP;
    if (!tn_virtio_net_valid_(&s, f, n->cfg.pairs) || !tn_virtio_net_idle_(&s.virtio) ||
        !tn_net_filter_is_station(s.mac) || !tn_virtio_zero_(s.zero, sizeof(s.zero)) ||
        !tn_virtio_zero_((const uint8_t *)s.table + 6 * macs, sizeof(s.table) - 6 * macs) ||
        ((f & TN_VIRTIO_NET_F_CTRL_VLAN) == 0 && !tn_virtio_zero_(s.vlan, sizeof(s.vlan))))
        return TN_EFORMAT;
    tn_virtio_net_release_all_(n);
    r = tn_virtio_restore(&n->virtio, &s.virtio);
    if (r < 0) {
        if (tn_virtio_status_read(&n->virtio) == 0)
            tn_virtio_net_on_reset_(n);
        return r;
    }
    tn_virtio_net_on_reset_(n);
    tn_virtio_net_features_(n);
    if ((s.virtio.status & TN_VIRTIO_S_DRIVER_OK) != 0)
        r = tn_virtio_net_apply_(n, s.offloads, s.active);
    if (r < 0) {
        tn_virtio_status_write(&n->virtio, 0);
        return r;
    }
    __builtin_memcpy(n->filter.mac, s.mac, 6);
    __builtin_memcpy(n->config, s.mac, 6);
    n->filter.mode = s.mode;
    n->filter.uni = s.uni;
    n->filter.multi = s.multi;
    __builtin_memcpy(n->filter.table, s.table, sizeof(s.table));
    __builtin_memcpy(n->filter.vlan, s.vlan, sizeof(s.vlan));
    n->config[6] = (uint8_t)(s.link_up | (s.announce != 0 ? TN_VIRTIO_NET_S_ANNOUNCE : 0));
    n->command_work = true;
    return TN_OK;
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VIRTIO_NET_H */
