/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_virtio_vsock - a virtio socket device: streams and messages between guest and host.
 *
 * WHAT
 *   Connections by ports, in both directions, in a table of the caller's; credit both ways, orderly
 *   and half closes, resets. What a connection leads to on the host is behind a table of functions:
 *   bytes from the guest are handed over as pointers into its memory, bytes for it go straight into
 *   the buffers that its driver gave. No payload is stored here.
 *
 * USAGE
 *   static struct tn_virtio_vsock vsock;
 *   static void request(void *ctx, struct tn_virtio_vsock_conn *conn)
 *   {
 *       (void)ctx;
 *       tn_virtio_vsock_accept(&vsock, conn);
 *   }
 *   static void opened(void *ctx, struct tn_virtio_vsock_conn *conn)
 *   {
 *       (void)ctx, (void)conn;
 *   }
 *   static void data(void *ctx, struct tn_virtio_vsock_conn *conn, const struct tn_iov *iov,
 *                    uint32_t n, uint32_t len, uint32_t flags)
 *   {
 *       (void)ctx, (void)flags;
 *       (void)tn_virtio_vsock_send(&vsock, conn, iov, n, 0);
 *       tn_virtio_vsock_consumed(&vsock, conn, len);
 *   }
 *   static void shut(void *ctx, struct tn_virtio_vsock_conn *conn, uint32_t flags)
 *   {
 *       (void)ctx, (void)flags;
 *       tn_virtio_vsock_reset(&vsock, conn);
 *   }
 *   static void closed(void *ctx, struct tn_virtio_vsock_conn *conn, enum tn_virtio_vsock_why why)
 *   {
 *       (void)ctx, (void)conn, (void)why;
 *   }
 *   static void again(void *ctx)
 *   {
 *       *(bool *)ctx = true;
 *   }
 *   static void later(void *ctx, uint64_t ns)
 *   {
 *       (void)ctx, (void)ns;
 *   }
 *   static uint64_t now(void *ctx)
 *   {
 *       (void)ctx;
 *       return 0;
 *   }
 *   static const struct tn_virtio_vsock_ops echo = {request, opened, data,  shut, closed,
 *                                                   opened,  again,  later, now};
 *   ---
 *   static uint8_t ram[1u << 16];
 *   static struct tn_virtio_vsock_conn conn[16];
 *   struct tn_mem_region table[1];
 *   struct tn_mem mem;
 *   bool turn = false;
 *   struct tn_virtio_vsock_cfg cfg = {&mem, 64,   TN_VIRTIO_F_RING, 3,     true,
 *                                     65536, 0, conn, 16, &echo, &turn};
 *
 *   tn_mem_init(&mem, table, 1);
 *   if (tn_mem_add(&mem, 0, ram, sizeof(ram)) < 0 || tn_virtio_vsock_init(&vsock, &cfg) < 0)
 *       return 1;
 *   if (turn)
 *       tn_virtio_vsock_flush(&vsock);
 *
 * COMPOSITION
 *   A transport serves vsock.virtio; tn_vsock_unix is a host side. The callbacks may call all
 *   functions of the third group below, and nothing else here; those call no op but again, later
 *   and now. A connection is the host side's from its request op, or from tn_virtio_vsock_connect,
 *   until its closed op, or until the host side resets it. again asks for tn_virtio_vsock_flush in
 *   the next turn of the event loop, later for tn_virtio_vsock_tick after some time.
 *
 * GUEST TRUST
 *   Rings and packets are hostile, and a saved state may be. A header is copied once. A guest has
 *   cfg.conns connections at most, further requests are reset. More than buf_alloc bytes that the
 *   host side has not consumed reset their connection, as nonsense on one does; for what belongs to
 *   none at most TN_VIRTIO_VSOCK_ORPHANS resets wait, then packets wait in the ring until the guest
 *   gives buffers. What is sent and not read by the guest is limited by its buf_alloc and by
 *   send_max. TN_VIRTIO_VSOCK_TURN bytes, or one ring of packets, are a turn. A guest that chooses
 *   ports which share a bucket has its own packets looked up in up to cfg.conns steps.
 *
 * MEMORY
 *   struct tn_virtio_vsock, and cfg.conn: about 100 bytes a connection, both the caller's. They
 *   hold pointers and indices into each other: they stay where they are.
 *
 * THREADS
 *   One call at a time on one struct, the transport's calls among them. Callbacks run inside them.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Virtual I/O Device (VIRTIO) 1.2, section 5.10: queues 0 (rx), 1 (tx) and 2 (event),
 *   VIRTIO_VSOCK_F_STREAM and VIRTIO_VSOCK_F_SEQPACKET.
 *
 * LIMITS
 *   The guest reaches the host, CID 2, and no other. A message is at most buf_alloc bytes long.
 *   Connections are not saved: a restored guest is told that they are gone (5.10.6.7.1). A chain
 *   whose buffers cross more borders of RAM regions than TN_VIRTIO_VSOCK_QUEUE_MAX counts as a
 *   broken ring.
 */
#ifndef TN_VIRTIO_VSOCK_H
#define TN_VIRTIO_VSOCK_H

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
#include "tn_vsock.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_VIRTIO_VSOCK_ID          19u
#define TN_VIRTIO_VSOCK_F_STREAM    1ull
#define TN_VIRTIO_VSOCK_F_SEQPACKET 2ull
#define TN_VIRTIO_VSOCK_RX          0u /* queues (5.10.2) */
#define TN_VIRTIO_VSOCK_TX          1u
#define TN_VIRTIO_VSOCK_EVENT       2u
#define TN_VIRTIO_VSOCK_QUEUES      3u
#define TN_VIRTIO_VSOCK_QUEUE_MAX   256u          /* descriptors of a queue */
#define TN_VIRTIO_VSOCK_CONFIG      8u            /* bytes of configuration space (5.10.4) */
#define TN_VIRTIO_VSOCK_HDR         TN_VSOCK_HDR  /* bytes before a packet's payload (5.10.6) */
#define TN_VIRTIO_VSOCK_HOST        TN_VSOCK_HOST /* the host's CID */
#define TN_VIRTIO_VSOCK_PORT_ANY    0xffffffffu   /* no port */
#define TN_VIRTIO_VSOCK_CONNS_MAX   32768u
#define TN_VIRTIO_VSOCK_BUF_MIN     4096u /* bytes, of buf_alloc and send_max */
#define TN_VIRTIO_VSOCK_BUF_MAX     (16u << 20)
#define TN_VIRTIO_VSOCK_ORPHANS     64u         /* resets that wait, and belong to no connection */
#define TN_VIRTIO_VSOCK_TURN        262144u     /* bytes of the guest's before others' turn */
#define TN_VIRTIO_VSOCK_TIMEOUT     2000000000u /* ns that the guest has to answer */
#define TN_VIRTIO_VSOCK_LINE        19u         /* bytes of a line "CONNECT port\n" at most */
#define TN_VIRTIO_VSOCK_VERSION     1           /* of struct tn_virtio_vsock_state */

/* enum virtio_vsock_op, type, and flags (5.10.6). */
#define TN_VIRTIO_VSOCK_OP_INVALID        0u
#define TN_VIRTIO_VSOCK_OP_REQUEST        1u
#define TN_VIRTIO_VSOCK_OP_RESPONSE       2u
#define TN_VIRTIO_VSOCK_OP_RST            3u
#define TN_VIRTIO_VSOCK_OP_SHUTDOWN       4u
#define TN_VIRTIO_VSOCK_OP_RW             5u
#define TN_VIRTIO_VSOCK_OP_CREDIT_UPDATE  6u
#define TN_VIRTIO_VSOCK_OP_CREDIT_REQUEST 7u
#define TN_VIRTIO_VSOCK_STREAM            1u
#define TN_VIRTIO_VSOCK_SEQPACKET         2u
#define TN_VIRTIO_VSOCK_SHUT_RCV          1u /* who says so will not receive any more */
#define TN_VIRTIO_VSOCK_SHUT_SEND         2u
#define TN_VIRTIO_VSOCK_SHUT_BOTH         3u
#define TN_VIRTIO_VSOCK_SEQ_EOM           1u /* the end of a message */
#define TN_VIRTIO_VSOCK_SEQ_EOR           2u /* the end of a record, as its sender means it */

/* Why a connection is gone. */
enum tn_virtio_vsock_why {
    TN_VIRTIO_VSOCK_WHY_DONE = 0, /* both directions were shut down */
    TN_VIRTIO_VSOCK_WHY_RESET,    /* the guest reset or refused it, or broke its rules */
    TN_VIRTIO_VSOCK_WHY_TIMEOUT,  /* the guest did not answer in time */
    TN_VIRTIO_VSOCK_WHY_GONE      /* the device was reset or restored, or has a new CID */
};

/* A connection. The host side reads the first five fields, and writes host. */
struct tn_virtio_vsock_conn {
    void *host; /* the host side's own */
    uint32_t guest_port;
    uint32_t host_port;
    uint16_t type;      /* TN_VIRTIO_VSOCK_STREAM, TN_VIRTIO_VSOCK_SEQPACKET */
    uint8_t peer_shut;  /* TN_VIRTIO_VSOCK_SHUT_..., by the guest */
    uint8_t local_shut; /* the same, by the host */
    uint8_t state;
    uint8_t pending; /* a bit for each packet that waits for a buffer */
    bool blocked;    /* the host side was told that there is no room: ops.room is owed a call */
    bool asked;      /* for credit, since there was none */
    /* Bytes, counted modulo 2^32 (5.10.6.3). To the guest: */
    uint32_t peer_buf_alloc;
    uint32_t peer_fwd_cnt;
    uint32_t tx_cnt;
    /* From the guest: */
    uint32_t rx_cnt;
    uint32_t fwd_cnt;
    uint32_t told_fwd_cnt; /* what the guest knows of it */
    uint32_t message;      /* bytes of a message that has not ended */
    uint64_t deadline;     /* of the guest's answer; 0: none is awaited */
    /* Indices into the table. */
    uint32_t bucket;  /* the first connection whose hash is this one's index */
    uint32_t chain;   /* the next with the same hash, or the next free one */
    uint32_t next[2]; /* in the lists of those with packets, and of those that wait for buffers */
    uint32_t prev[2];
    bool listed[2];
};

/* What the host side does; all of them are there. */
struct tn_virtio_vsock_ops {
    /*
     * The guest wants conn->host_port: call tn_virtio_vsock_accept or tn_virtio_vsock_reset, now or
     * later.
     */
    void (*request)(void *ctx, struct tn_virtio_vsock_conn *conn);
    /* The guest took what tn_virtio_vsock_connect asked for. */
    void (*opened)(void *ctx, struct tn_virtio_vsock_conn *conn);
    /*
     * The guest sent len bytes, which n iovecs have; they are its memory still, until this returns.
     * All are taken: there are never more than buf_alloc that tn_virtio_vsock_consumed was not told
     * of. flags: of a seqpacket, SEQ_EOM and SEQ_EOR; len is 0 only if a message ends with it.
     */
    void (*data)(void *ctx, struct tn_virtio_vsock_conn *conn, const struct tn_iov *iov, uint32_t n,
                 uint32_t len, uint32_t flags);
    /* The guest will not send, or not receive, any more; flags is all that it said so far. */
    void (*shutdown)(void *ctx, struct tn_virtio_vsock_conn *conn, uint32_t flags);
    /* The connection is gone; conn is not the host side's any longer. */
    void (*closed)(void *ctx, struct tn_virtio_vsock_conn *conn, enum tn_virtio_vsock_why why);
    /* tn_virtio_vsock_send took less than it was given, and may take more now. */
    void (*room)(void *ctx, struct tn_virtio_vsock_conn *conn);
    /* Call tn_virtio_vsock_flush, after others had their turn. */
    void (*again)(void *ctx);
    /* Call tn_virtio_vsock_tick in ns nanoseconds, in place of what was asked before. */
    void (*later)(void *ctx, uint64_t ns);
    /* A clock that does not go back, in nanoseconds. */
    uint64_t (*now)(void *ctx);
};

struct tn_virtio_vsock_cfg {
    const struct tn_mem *mem; /* the guest's RAM; outlives the device */
    uint16_t queue_size;      /* a power of two up to TN_VIRTIO_VSOCK_QUEUE_MAX */
    uint64_t ring_features;   /* those of TN_VIRTIO_F_RING to offer */
    uint64_t guest_cid;       /* 3 to 0xfffffffe */
    bool seqpacket;           /* offer it */
    uint32_t buf_alloc; /* bytes that the host side buffers for a connection (BUF_MIN, BUF_MAX) */
    uint32_t send_max; /* bytes of one that the guest may leave unread; 0: 256 KiB, as Linux' own */
    struct tn_virtio_vsock_conn *conn; /* the table, */
    uint32_t conns;                    /* of so many, 1 to TN_VIRTIO_VSOCK_CONNS_MAX */
    const struct tn_virtio_vsock_ops *ops;
    void *ctx; /* handed to them */
};

/* A reset for what belongs to no connection. */
struct tn_virtio_vsock_orphan {
    uint64_t cid; /* that the guest wrote to */
    uint32_t host_port;
    uint32_t guest_port;
    uint16_t type;
};

struct tn_virtio_vsock {
    struct tn_virtio virtio;
    struct tn_virtio_queue queue[TN_VIRTIO_VSOCK_QUEUES];
    struct tn_virtio_vsock_cfg cfg;
    uint8_t config[TN_VIRTIO_VSOCK_CONFIG];
    struct tn_virtio_vsock_orphan orphan[TN_VIRTIO_VSOCK_ORPHANS]; /* a ring, */
    uint32_t orphan_at;                                            /* from here */
    uint32_t orphans;
    uint32_t used; /* connections that are not free */
    uint32_t free; /* the first free one */
    uint32_t head[2];
    uint32_t tail[2];
    uint64_t deadline; /* for which later was called; 0: none */
    uint64_t dropped;  /* packets that were not answered: short ones, and those of another CID */
    bool event;        /* a transport reset event waits for a buffer */
    bool waiting;      /* packets of the guest wait for another turn */
    bool stuck;        /* they wait until resets have gone out */
    bool busy;         /* inside the device: what is pending goes out at the end */
};

struct tn_virtio_vsock_state {
    uint32_t version; /* TN_VIRTIO_VSOCK_VERSION */
    uint32_t zero;
    uint64_t guest_cid;
    struct tn_virtio_state virtio;
};

/*
 * Makes a device that was just reset. Returns 0; TN_EINVAL when something is missing or outside the
 * limits above.
 */
TN_API int tn_virtio_vsock_init(struct tn_virtio_vsock *d, const struct tn_virtio_vsock_cfg *cfg);

/* ---- for the event loop ---- */

/*
 * Goes on with what waits: packets of the guest for another turn, packets for it, the event, room
 * calls; after a restore, too. Returns 1 if packets of the guest wait for another turn, else 0.
 */
TN_API int tn_virtio_vsock_flush(struct tn_virtio_vsock *d);

/*
 * The time that later named has come: connections whose answer is overdue are closed. Too early or
 * too often does no harm.
 */
TN_API void tn_virtio_vsock_tick(struct tn_virtio_vsock *d);

/*
 * Closes all connections, and tells the guest so by a transport reset event (5.10.6.7).
 */
TN_API void tn_virtio_vsock_reset_all(struct tn_virtio_vsock *d);

/*
 * Another CID, for the copy of a guest: resets all connections, and the guest reads the CID anew.
 * Returns 0, also when it is the CID already, which changes nothing, or TN_EINVAL.
 */
TN_API int tn_virtio_vsock_set_cid(struct tn_virtio_vsock *d, uint64_t guest_cid);

/*
 * Copies the state out; connections are not in it.
 */
TN_API void tn_virtio_vsock_save(const struct tn_virtio_vsock *d,
                                 struct tn_virtio_vsock_state *out);

/*
 * Takes a saved state over: all connections are closed, and if a driver runs the device it will be
 * told so by a transport reset event; then call tn_virtio_vsock_set_cid, if need be, and
 * tn_virtio_vsock_flush. Returns 0; TN_EUNSUP for another version, TN_EFORMAT for a state that no
 * device can be in (d is unchanged), and the errors of tn_virtio_restore (connections are closed).
 */
TN_API int tn_virtio_vsock_restore(struct tn_virtio_vsock *d,
                                   const struct tn_virtio_vsock_state *from);

/* ---- for the host side; a connection that is not its own any more is left alone ---- */

/*
 * Asks the guest for a connection to guest_port; either opened or closed will be called. host is
 * for conn->host. Returns 0; TN_ESTATE: no driver runs the device; TN_EUNSUP: it has no such type;
 * TN_EEXIST: there is one of the same ports and type; TN_ENOSPC: the table is full.
 */
TN_API int tn_virtio_vsock_connect(struct tn_virtio_vsock *d, uint32_t guest_port,
                                   uint32_t host_port, uint16_t type, void *host,
                                   struct tn_virtio_vsock_conn **conn);

/*
 * Says yes to the guest's request. Returns 0, or TN_ESTATE: there is none.
 */
TN_API int tn_virtio_vsock_accept(struct tn_virtio_vsock *d, struct tn_virtio_vsock_conn *conn);

/*
 * How many bytes the guest would take, if it has given buffers enough. 0 also before a connection
 * is open, and when it is shut in this direction.
 */
TN_API uint32_t tn_virtio_vsock_room(const struct tn_virtio_vsock *d,
                                     const struct tn_virtio_vsock_conn *conn);

/*
 * The longest message that the guest can ever take, in bytes: 0 before the connection is open.
 */
TN_API uint32_t tn_virtio_vsock_message_max(const struct tn_virtio_vsock *d,
                                            const struct tn_virtio_vsock_conn *conn);

/*
 * Sends the bytes of n iovecs. flags go with the last byte, if it is taken: of a seqpacket, SEQ_EOM
 * and SEQ_EOR. Returns how many bytes it took. If there are others, of which the caller gives the
 * rest again, of a message too, wait for ops.room, unless the guest has shut that direction down.
 */
TN_API size_t tn_virtio_vsock_send(struct tn_virtio_vsock *d, struct tn_virtio_vsock_conn *conn,
                                   const struct tn_iov *iov, uint32_t n, uint32_t flags);

/*
 * The host side is done with so many bytes that data gave it: the guest may send as many.
 */
TN_API void tn_virtio_vsock_consumed(struct tn_virtio_vsock *d, struct tn_virtio_vsock_conn *conn,
                                     uint32_t len);

/*
 * The host side will not send, or not receive, any more; what comes for it is dropped. When both
 * are said, closed will be called.
 */
TN_API void tn_virtio_vsock_shutdown(struct tn_virtio_vsock *d, struct tn_virtio_vsock_conn *conn,
                                     uint32_t flags);

/*
 * Resets a connection, or refuses a request; conn is not the host side's any longer.
 */
TN_API void tn_virtio_vsock_reset(struct tn_virtio_vsock *d, struct tn_virtio_vsock_conn *conn);

/*@ logic integer tn_virtio_vsock_word(integer i) =
      i == 0 || i == 5 ? 'C' : i == 1 ? 'O' : i == 2 || i == 3 ? 'N' : i == 4 ? 'E' :
      i == 6 ? 'T' : ' ';
    logic integer tn_virtio_vsock_number(uint8_t *p, integer end) =
      end <= 8 ? 0 : 10 * tn_virtio_vsock_number(p, end - 1) + p[end - 1] - '0';
    predicate tn_virtio_vsock_line(uint8_t *p, integer n) = 9 <= n <= 18 && p[n] == '\n' &&
      (\forall integer j; 0 <= j < 8 ==> p[j] == tn_virtio_vsock_word(j)) &&
      (\forall integer j; 8 <= j < n ==> '0' <= p[j] <= '9') && (n > 9 ==> p[8] != '0') &&
      tn_virtio_vsock_number(p, n) < 4294967295; */

/*
 * The line by which a program on the host asks for a port of the guest: "CONNECT ", a decimal
 * number without leading zeros, below TN_VIRTIO_VSOCK_PORT_ANY, and '\n'. Returns how many bytes
 * the line has, what follows is none of its business; 0: it is not complete, and right so far;
 * TN_EFORMAT. *port is 0 unless it is complete.
 */
/*@ requires \valid_read(bytes + (0 .. len - 1)) && \valid(port);
    requires \separated(port, bytes + (0 .. len - 1));
    assigns *port;
    ensures \result > 0 ==> \result <= len &&
      tn_virtio_vsock_line((uint8_t *)bytes, \result - 1) &&
      *port == tn_virtio_vsock_number((uint8_t *)bytes, \result - 1);
    ensures \forall integer n; n < len && tn_virtio_vsock_line((uint8_t *)bytes, n) ==>
      \result == n + 1;
    ensures \result <= 0 ==> *port == 0 && (\result == 0 || \result == TN_EFORMAT);
    ensures \result == 0 ==> len < TN_VIRTIO_VSOCK_LINE; */
TN_API int tn_virtio_vsock_connect_line(const uint8_t *bytes, size_t len, uint32_t *port);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#define TN_VIRTIO_VSOCK_IOV_      (2 * TN_VIRTIO_VSOCK_QUEUE_MAX)
#define TN_VIRTIO_VSOCK_NONE_     0xffffffffu /* no index */
#define TN_VIRTIO_VSOCK_SEND_MAX_ 262144u
#define TN_VIRTIO_VSOCK_ROOMS_    64u /* calls of ops.room before others' turn */

/* States of a connection. */
#define TN_VIRTIO_VSOCK_FREE_   0u
#define TN_VIRTIO_VSOCK_ASKED_  1u /* by the guest; the host side has not answered */
#define TN_VIRTIO_VSOCK_ASKING_ 2u /* the guest has not answered */
#define TN_VIRTIO_VSOCK_OPEN_   3u
#define TN_VIRTIO_VSOCK_DEAD_   4u /* nobody's: only its RST is still to be sent */

/* Packets that wait, in the order in which they go. */
#define TN_VIRTIO_VSOCK_P_REQUEST_  1u
#define TN_VIRTIO_VSOCK_P_RESPONSE_ 2u
#define TN_VIRTIO_VSOCK_P_CREDIT_   4u /* CREDIT_UPDATE */
#define TN_VIRTIO_VSOCK_P_ASK_      8u /* CREDIT_REQUEST */
#define TN_VIRTIO_VSOCK_P_SHUTDOWN_ 16u
#define TN_VIRTIO_VSOCK_P_RST_      32u

/* Lists. */
#define TN_VIRTIO_VSOCK_PENDING_ 0u /* connections with packets that wait */
#define TN_VIRTIO_VSOCK_ROOM_    1u /* connections to be told that there is room */

/* ---- the table ---- */

static inline uint32_t tn_virtio_vsock_index_(const struct tn_virtio_vsock *d,
                                              const struct tn_virtio_vsock_conn *c)
{
    return (uint32_t)(c - d->cfg.conn);
}

static inline uint32_t tn_virtio_vsock_hash_(const struct tn_virtio_vsock *d, uint32_t guest_port,
                                             uint32_t host_port, uint16_t type)
{
    uint64_t h = ((uint64_t)guest_port << 32 | host_port) + type;

    h = (h ^ h >> 29) * 0x9e3779b97f4a7c15ull;
    return (uint32_t)(h >> 32) % d->cfg.conns;
}

static inline struct tn_virtio_vsock_conn *tn_virtio_vsock_find_(const struct tn_virtio_vsock *d,
                                                                 uint32_t guest_port,
                                                                 uint32_t host_port, uint16_t type)
{
    uint32_t i = d->cfg.conn[tn_virtio_vsock_hash_(d, guest_port, host_port, type)].bucket;

    while (i != TN_VIRTIO_VSOCK_NONE_) {
        struct tn_virtio_vsock_conn *c = &d->cfg.conn[i];

        if (c->guest_port == guest_port && c->host_port == host_port && c->type == type)
            return c;
        i = c->chain;
    }
    return NULL;
}

/* To the end of a list, unless it is in it. */
static inline void tn_virtio_vsock_list_(struct tn_virtio_vsock *d, struct tn_virtio_vsock_conn *c,
                                         unsigned list)
{
    uint32_t i = tn_virtio_vsock_index_(d, c), tail = d->tail[list];

    if (c->listed[list])
        return;
    c->listed[list] = true;
    c->prev[list] = tail;
    c->next[list] = TN_VIRTIO_VSOCK_NONE_;
    if (tail == TN_VIRTIO_VSOCK_NONE_)
        d->head[list] = i;
    else
        d->cfg.conn[tail].next[list] = i;
    d->tail[list] = i;
}

static inline void tn_virtio_vsock_unlist_(struct tn_virtio_vsock *d,
                                           struct tn_virtio_vsock_conn *c, unsigned list)
{
    uint32_t next = c->next[list], prev = c->prev[list];

    if (!c->listed[list])
        return;
    c->listed[list] = false;
    if (prev == TN_VIRTIO_VSOCK_NONE_)
        d->head[list] = next;
    else
        d->cfg.conn[prev].next[list] = next;
    if (next == TN_VIRTIO_VSOCK_NONE_)
        d->tail[list] = prev;
    else
        d->cfg.conn[next].prev[list] = prev;
}

static inline void tn_virtio_vsock_pend_(struct tn_virtio_vsock *d, struct tn_virtio_vsock_conn *c,
                                         unsigned packet)
{
    c->pending |= (uint8_t)packet;
    tn_virtio_vsock_list_(d, c, TN_VIRTIO_VSOCK_PENDING_);
}

/* A new connection; NULL: the table is full. */
static inline struct tn_virtio_vsock_conn *tn_virtio_vsock_take_(struct tn_virtio_vsock *d,
                                                                 uint32_t guest_port,
                                                                 uint32_t host_port, uint16_t type,
                                                                 uint8_t state)
{
    struct tn_virtio_vsock_conn *c;
    uint32_t at = tn_virtio_vsock_hash_(d, guest_port, host_port, type), i = d->free, bucket;

    if (i == TN_VIRTIO_VSOCK_NONE_)
        return NULL;
    c = &d->cfg.conn[i];
    d->free = c->chain;
    d->used++;
    bucket = c->bucket; /* not this connection's own */
    __builtin_memset(c, 0, sizeof(*c));
    c->bucket = bucket;
    c->guest_port = guest_port;
    c->host_port = host_port;
    c->type = type;
    c->state = state;
    c->chain = d->cfg.conn[at].bucket;
    d->cfg.conn[at].bucket = i;
    return c;
}

static inline void tn_virtio_vsock_free_(struct tn_virtio_vsock *d, struct tn_virtio_vsock_conn *c)
{
    uint32_t i = tn_virtio_vsock_index_(d, c);
    uint32_t *link =
        &d->cfg.conn[tn_virtio_vsock_hash_(d, c->guest_port, c->host_port, c->type)].bucket;

    while (*link != i)
        link = &d->cfg.conn[*link].chain;
    *link = c->chain;
    tn_virtio_vsock_unlist_(d, c, TN_VIRTIO_VSOCK_PENDING_);
    tn_virtio_vsock_unlist_(d, c, TN_VIRTIO_VSOCK_ROOM_);
    c->state = TN_VIRTIO_VSOCK_FREE_;
    c->chain = d->free;
    d->free = i;
    d->used--;
}

/* Nobody's from now on; its RST is all that it still has to send. */
static inline void tn_virtio_vsock_die_(struct tn_virtio_vsock *d, struct tn_virtio_vsock_conn *c)
{
    c->state = TN_VIRTIO_VSOCK_DEAD_;
    c->pending = 0;
    c->deadline = 0;
    tn_virtio_vsock_unlist_(d, c, TN_VIRTIO_VSOCK_ROOM_);
    tn_virtio_vsock_pend_(d, c, TN_VIRTIO_VSOCK_P_RST_);
}

/* Ends a connection of the host side's, which is told; rst: the guest is told too. */
static inline void tn_virtio_vsock_end_(struct tn_virtio_vsock *d, struct tn_virtio_vsock_conn *c,
                                        enum tn_virtio_vsock_why why, bool rst)
{
    tn_virtio_vsock_die_(d, c);
    d->cfg.ops->closed(d->cfg.ctx, c, why);
    c->host = NULL;
    if (!rst)
        tn_virtio_vsock_free_(d, c);
}

/* Whether a connection is one that the host side may use. */
static inline bool tn_virtio_vsock_theirs_(const struct tn_virtio_vsock *d,
                                           const struct tn_virtio_vsock_conn *c)
{
    return tn_virtio_live(&d->virtio) && c->state != TN_VIRTIO_VSOCK_FREE_ &&
           c->state != TN_VIRTIO_VSOCK_DEAD_;
}

/* All connections are gone, without a word to the guest. */
static inline void tn_virtio_vsock_clear_(struct tn_virtio_vsock *d)
{
    bool busy = d->busy;

    d->busy = true;
    d->orphans = 0;
    d->waiting = false;
    d->stuck = false;
    for (uint32_t i = 0; i < d->cfg.conns && d->used > 0; i++) {
        struct tn_virtio_vsock_conn *c = &d->cfg.conn[i];

        if (c->state == TN_VIRTIO_VSOCK_DEAD_)
            tn_virtio_vsock_free_(d, c);
        else if (c->state != TN_VIRTIO_VSOCK_FREE_)
            tn_virtio_vsock_end_(d, c, TN_VIRTIO_VSOCK_WHY_GONE, false);
    }
    d->busy = busy;
}

/* ---- to the guest ---- */

/*
 * The driver broke a queue's rules. One that it has not enabled is no such case. Connections end in
 * the next turn, since this may be inside a call of the host side's.
 */
static inline void tn_virtio_vsock_broken_(struct tn_virtio_vsock *d, int err)
{
    if (err == TN_ESTATE)
        return;
    tn_virtio_needs_reset(&d->virtio);
    d->cfg.ops->again(d->cfg.ctx);
}

/*
 * Pops the next chain of a queue for writing with room for need bytes, and returns smaller ones;
 * *left is how many pops it still has. Returns 1, or 0: there is none.
 */
static inline int tn_virtio_vsock_rx_(struct tn_virtio_vsock *d, uint32_t queue,
                                      struct tn_virtq_chain *chain, struct tn_iov *iov,
                                      uint32_t need, uint32_t *left)
{
    struct tn_virtq *q = &d->queue[queue].q;
    int r;

    while (*left > 0 && tn_virtio_live(&d->virtio)) {
        --*left;
        r = tn_virtq_pop(q, chain, iov, TN_VIRTIO_VSOCK_IOV_);
        if (r > 0 && chain->readable > 0)
            r = TN_EPROTO;
        if (r < 0)
            tn_virtio_vsock_broken_(d, r);
        if (r <= 0)
            return 0;
        if (chain->writable_len >= need)
            return 1;
        (void)tn_virtq_push(q, chain, 0);
    }
    return 0;
}

/* Writes a header, and returns the chain with len bytes of payload, which are there already. */
static inline void tn_virtio_vsock_put_(struct tn_virtio_vsock *d,
                                        const struct tn_virtq_chain *chain,
                                        const struct tn_vsock_hdr *hdr)
{
    uint8_t bytes[TN_VIRTIO_VSOCK_HDR];

    tn_vsock_hdr_put(hdr, bytes);
    (void)tn_iov_scatter(chain->iov, chain->writable, 0, bytes, sizeof(bytes));
    (void)tn_virtq_push(&d->queue[TN_VIRTIO_VSOCK_RX].q, chain, TN_VIRTIO_VSOCK_HDR + hdr->len);
}

/* The header of a packet of a connection's, which tells the guest all of our credit. */
static inline void tn_virtio_vsock_hdr_(const struct tn_virtio_vsock *d,
                                        struct tn_virtio_vsock_conn *c, uint16_t op,
                                        struct tn_vsock_hdr *hdr)
{
    hdr->src_cid = TN_VIRTIO_VSOCK_HOST;
    hdr->dst_cid = d->cfg.guest_cid;
    hdr->src_port = c->host_port;
    hdr->dst_port = c->guest_port;
    hdr->len = 0;
    hdr->type = c->type;
    hdr->op = op;
    hdr->flags = 0;
    hdr->buf_alloc = d->cfg.buf_alloc;
    hdr->fwd_cnt = c->fwd_cnt;
    c->told_fwd_cnt = c->fwd_cnt;
    c->pending &= (uint8_t)~TN_VIRTIO_VSOCK_P_CREDIT_;
}

/* Takes the first packet that waits away from a connection; returns its op. */
static inline uint16_t tn_virtio_vsock_first_(struct tn_virtio_vsock_conn *c)
{
    static const uint8_t op[] = {
        TN_VIRTIO_VSOCK_OP_REQUEST,       TN_VIRTIO_VSOCK_OP_RESPONSE,
        TN_VIRTIO_VSOCK_OP_CREDIT_UPDATE, TN_VIRTIO_VSOCK_OP_CREDIT_REQUEST,
        TN_VIRTIO_VSOCK_OP_SHUTDOWN,      TN_VIRTIO_VSOCK_OP_RST};
    unsigned bit = 0;

    while (bit < 5 && (c->pending >> bit & 1) == 0)
        bit++;
    c->pending &= (uint8_t) ~(1u << bit);
    return op[bit];
}

/* Sends what waits, but payload, as far as the guest has given buffers. */
static inline void tn_virtio_vsock_send_pending_(struct tn_virtio_vsock *d)
{
    struct tn_iov iov[TN_VIRTIO_VSOCK_IOV_];
    struct tn_virtq_chain chain;
    struct tn_vsock_hdr hdr;
    uint32_t left = d->cfg.queue_size;
    uint16_t op;

    while (d->orphans > 0 || d->head[TN_VIRTIO_VSOCK_PENDING_] != TN_VIRTIO_VSOCK_NONE_) {
        struct tn_virtio_vsock_conn *c;

        if (d->orphans == 0 && d->cfg.conn[d->head[TN_VIRTIO_VSOCK_PENDING_]].pending == 0) {
            /* a packet with payload has told what was to be told */
            tn_virtio_vsock_unlist_(d, &d->cfg.conn[d->head[TN_VIRTIO_VSOCK_PENDING_]],
                                    TN_VIRTIO_VSOCK_PENDING_);
            continue;
        }
        if (tn_virtio_vsock_rx_(d, TN_VIRTIO_VSOCK_RX, &chain, iov, TN_VIRTIO_VSOCK_HDR, &left) ==
            0)
            break;
        if (d->orphans > 0) {
            const struct tn_virtio_vsock_orphan *o = &d->orphan[d->orphan_at];

            __builtin_memset(&hdr, 0, sizeof(hdr));
            hdr.src_cid = o->cid;
            hdr.dst_cid = d->cfg.guest_cid;
            hdr.src_port = o->host_port;
            hdr.dst_port = o->guest_port;
            hdr.type = o->type;
            hdr.op = TN_VIRTIO_VSOCK_OP_RST;
            d->orphan_at = (d->orphan_at + 1) % TN_VIRTIO_VSOCK_ORPHANS;
            d->orphans--;
            tn_virtio_vsock_put_(d, &chain, &hdr);
            continue;
        }
        c = &d->cfg.conn[d->head[TN_VIRTIO_VSOCK_PENDING_]];
        op = tn_virtio_vsock_first_(c);
        tn_virtio_vsock_hdr_(d, c, op, &hdr);
        if (op == TN_VIRTIO_VSOCK_OP_SHUTDOWN)
            hdr.flags = c->local_shut;
        tn_virtio_vsock_put_(d, &chain, &hdr);
        if (c->state == TN_VIRTIO_VSOCK_DEAD_)
            tn_virtio_vsock_free_(d, c);
    }
}

/* Tells the guest that its connections are gone (5.10.6.7), or waits for a buffer to do so. */
static inline void tn_virtio_vsock_gone_(struct tn_virtio_vsock *d)
{
    static const uint8_t transport_reset[4] = {0, 0, 0, 0}; /* its id is 0 */
    struct tn_virtq *q = &d->queue[TN_VIRTIO_VSOCK_EVENT].q;
    struct tn_iov iov[TN_VIRTIO_VSOCK_IOV_];
    struct tn_virtq_chain chain;
    uint32_t left = d->cfg.queue_size;

    if (tn_virtio_vsock_rx_(d, TN_VIRTIO_VSOCK_EVENT, &chain, iov, sizeof(transport_reset), &left) >
        0) {
        d->event = false;
        (void)tn_iov_scatter(iov, chain.writable, 0, transport_reset, sizeof(transport_reset));
        (void)tn_virtq_push(q, &chain, sizeof(transport_reset));
    } else if (tn_virtio_live(&d->virtio) && tn_virtq_notify_enable(q)) {
        d->cfg.ops->again(d->cfg.ctx);
    }
    tn_virtio_signal(&d->virtio, TN_VIRTIO_VSOCK_EVENT);
}

static inline void tn_virtio_vsock_event_(struct tn_virtio_vsock *d)
{
    if (d->event && tn_virtio_live(&d->virtio))
        tn_virtio_vsock_gone_(d);
}

/* Sends what a call has made pending, and waits for buffers if they are wanted. */
static inline void tn_virtio_vsock_settle_(struct tn_virtio_vsock *d)
{
    struct tn_virtq *q = &d->queue[TN_VIRTIO_VSOCK_RX].q;

    if (d->busy || !tn_virtio_live(&d->virtio))
        return;
    tn_virtio_vsock_send_pending_(d);
    if (!tn_virtio_live(&d->virtio))
        return;
    tn_virtio_signal(&d->virtio, TN_VIRTIO_VSOCK_RX);
    if (!d->stuck && d->orphans == 0 &&
        d->head[TN_VIRTIO_VSOCK_PENDING_] == TN_VIRTIO_VSOCK_NONE_ &&
        d->head[TN_VIRTIO_VSOCK_ROOM_] == TN_VIRTIO_VSOCK_NONE_)
        tn_virtq_notify_disable(q);
    else if (tn_virtq_notify_enable(q) || (d->stuck && d->orphans < TN_VIRTIO_VSOCK_ORPHANS))
        d->cfg.ops->again(d->cfg.ctx);
}

/* Control packets first, then those who wait with payload, as long as there are buffers. */
static inline void tn_virtio_vsock_rooms_(struct tn_virtio_vsock *d)
{
    bool busy = d->busy;

    d->busy = true;
    tn_virtio_vsock_send_pending_(d);
    for (uint32_t n = 0; n < TN_VIRTIO_VSOCK_ROOMS_; n++) {
        struct tn_virtio_vsock_conn *c;
        uint32_t i = d->head[TN_VIRTIO_VSOCK_ROOM_];

        if (i == TN_VIRTIO_VSOCK_NONE_ || !tn_virtio_live(&d->virtio) ||
            !tn_virtq_pending(&d->queue[TN_VIRTIO_VSOCK_RX].q))
            break;
        c = &d->cfg.conn[i];
        tn_virtio_vsock_unlist_(d, c, TN_VIRTIO_VSOCK_ROOM_);
        c->blocked = false;
        d->cfg.ops->room(d->cfg.ctx, c);
    }
    d->busy = busy;
}

/* ---- from the guest ---- */

/* A reset for what belongs to no connection; there is room for it. RST is not answered. */
static inline void tn_virtio_vsock_orphan_(struct tn_virtio_vsock *d,
                                           const struct tn_vsock_hdr *hdr)
{
    struct tn_virtio_vsock_orphan *o =
        &d->orphan[(d->orphan_at + d->orphans) % TN_VIRTIO_VSOCK_ORPHANS];

    if (hdr->op == TN_VIRTIO_VSOCK_OP_RST || d->orphans >= TN_VIRTIO_VSOCK_ORPHANS)
        return;
    o->cid = hdr->dst_cid;
    o->host_port = hdr->dst_port;
    o->guest_port = hdr->src_port;
    o->type = hdr->type;
    d->orphans++;
}

/* Stream connections are there whatever was negotiated (5.10.3). */
static inline bool tn_virtio_vsock_has_type_(const struct tn_virtio_vsock *d, uint16_t type)
{
    return type == TN_VIRTIO_VSOCK_STREAM ||
           (type == TN_VIRTIO_VSOCK_SEQPACKET &&
            tn_virtio_has(&d->virtio, TN_VIRTIO_VSOCK_F_SEQPACKET));
}

/* Whether the host side may send. */
static inline bool tn_virtio_vsock_sends_(const struct tn_virtio_vsock_conn *c)
{
    return c->state == TN_VIRTIO_VSOCK_OPEN_ && (c->local_shut & TN_VIRTIO_VSOCK_SHUT_SEND) == 0 &&
           (c->peer_shut & TN_VIRTIO_VSOCK_SHUT_RCV) == 0;
}

static inline uint32_t tn_virtio_vsock_window_(const struct tn_virtio_vsock *d,
                                               const struct tn_virtio_vsock_conn *c)
{
    return tn_vsock_credit(c->peer_buf_alloc, d->cfg.send_max, c->tx_cnt, c->peer_fwd_cnt);
}

/* Bytes were forwarded; tells the guest, if it is short of them. */
static inline void tn_virtio_vsock_forwarded_(struct tn_virtio_vsock *d,
                                              struct tn_virtio_vsock_conn *c, uint32_t len)
{
    c->fwd_cnt = tn_vsock_forward(c->rx_cnt, c->fwd_cnt, len);
    if ((c->peer_shut & TN_VIRTIO_VSOCK_SHUT_SEND) == 0 &&
        tn_vsock_owes(d->cfg.buf_alloc, c->told_fwd_cnt, c->fwd_cnt))
        tn_virtio_vsock_pend_(d, c, TN_VIRTIO_VSOCK_P_CREDIT_);
}

/* Payload on an open connection; false: it breaks the rules. */
static inline bool tn_virtio_vsock_rw_(struct tn_virtio_vsock *d, struct tn_virtio_vsock_conn *c,
                                       const struct tn_vsock_hdr *hdr, struct tn_iov *iov,
                                       uint32_t n)
{
    bool seqpacket = c->type == TN_VIRTIO_VSOCK_SEQPACKET;
    uint32_t flags =
        seqpacket ? hdr->flags & (TN_VIRTIO_VSOCK_SEQ_EOM | TN_VIRTIO_VSOCK_SEQ_EOR) : 0;
    uint32_t first;

    if ((c->peer_shut & TN_VIRTIO_VSOCK_SHUT_SEND) != 0 ||
        !tn_vsock_fits(d->cfg.buf_alloc, c->rx_cnt, c->fwd_cnt, hdr->len))
        return false;
    if (seqpacket) {
        if (hdr->len > d->cfg.buf_alloc - c->message)
            return false;
        c->message = (flags & TN_VIRTIO_VSOCK_SEQ_EOM) != 0 ? 0 : c->message + hdr->len;
    }
    c->rx_cnt = tn_vsock_step(c->rx_cnt, hdr->len);
    if ((c->local_shut & TN_VIRTIO_VSOCK_SHUT_RCV) != 0) {
        tn_virtio_vsock_forwarded_(d, c, hdr->len);
    } else if (hdr->len > 0 || (flags & TN_VIRTIO_VSOCK_SEQ_EOM) != 0) {
        n = tn_iov_cut(iov, n, TN_VIRTIO_VSOCK_HDR, hdr->len, &first);
        d->cfg.ops->data(d->cfg.ctx, c, iov + first, n, hdr->len, flags);
    }
    return true;
}

/* A packet for a connection that there is; false: it breaks the rules. */
static inline bool tn_virtio_vsock_conn_(struct tn_virtio_vsock *d, struct tn_virtio_vsock_conn *c,
                                         const struct tn_vsock_hdr *hdr, struct tn_iov *iov,
                                         uint32_t n)
{
    uint8_t shut;

    c->peer_buf_alloc = hdr->buf_alloc;
    c->peer_fwd_cnt = hdr->fwd_cnt;
    if (tn_virtio_vsock_window_(d, c) > 0) {
        c->asked = false;
        if (c->blocked)
            tn_virtio_vsock_list_(d, c, TN_VIRTIO_VSOCK_ROOM_);
    }
    if (hdr->op == TN_VIRTIO_VSOCK_OP_RESPONSE && c->state == TN_VIRTIO_VSOCK_ASKING_ &&
        (c->pending & TN_VIRTIO_VSOCK_P_REQUEST_) == 0) {
        c->state = TN_VIRTIO_VSOCK_OPEN_;
        c->deadline = 0;
        d->cfg.ops->opened(d->cfg.ctx, c);
        return true;
    }
    if (c->state != TN_VIRTIO_VSOCK_OPEN_)
        return false;
    switch (hdr->op) {
    case TN_VIRTIO_VSOCK_OP_SHUTDOWN:
        shut = c->peer_shut | (uint8_t)(hdr->flags & TN_VIRTIO_VSOCK_SHUT_BOTH);
        if (shut == c->peer_shut)
            return true;
        c->peer_shut = shut;
        if (shut == TN_VIRTIO_VSOCK_SHUT_BOTH)
            tn_virtio_vsock_end_(d, c, TN_VIRTIO_VSOCK_WHY_DONE, true);
        else
            d->cfg.ops->shutdown(d->cfg.ctx, c, shut);
        return true;
    case TN_VIRTIO_VSOCK_OP_RW:
        return tn_virtio_vsock_rw_(d, c, hdr, iov, n);
    case TN_VIRTIO_VSOCK_OP_CREDIT_UPDATE:
        return true;
    case TN_VIRTIO_VSOCK_OP_CREDIT_REQUEST:
        tn_virtio_vsock_pend_(d, c, TN_VIRTIO_VSOCK_P_CREDIT_);
        return true;
    default:
        return false;
    }
}

/* One packet of the guest's, whose header is a copy; n iovecs have all of it. */
static inline void tn_virtio_vsock_packet_(struct tn_virtio_vsock *d,
                                           const struct tn_vsock_hdr *hdr, struct tn_iov *iov,
                                           uint32_t n)
{
    struct tn_virtio_vsock_conn *c;

    if (hdr->src_cid != d->cfg.guest_cid) {
        d->dropped++;
        return;
    }
    if (hdr->dst_cid != TN_VIRTIO_VSOCK_HOST || !tn_virtio_vsock_has_type_(d, hdr->type)) {
        tn_virtio_vsock_orphan_(d, hdr);
        return;
    }
    c = tn_virtio_vsock_find_(d, hdr->src_port, hdr->dst_port, hdr->type);
    if (!c) {
        if (hdr->op == TN_VIRTIO_VSOCK_OP_REQUEST)
            c = tn_virtio_vsock_take_(d, hdr->src_port, hdr->dst_port, hdr->type,
                                      TN_VIRTIO_VSOCK_ASKED_);
        if (!c) {
            tn_virtio_vsock_orphan_(d, hdr);
            return;
        }
        c->peer_buf_alloc = hdr->buf_alloc;
        c->peer_fwd_cnt = hdr->fwd_cnt;
        d->cfg.ops->request(d->cfg.ctx, c);
        return;
    }
    if (c->state == TN_VIRTIO_VSOCK_DEAD_)
        return;
    if (hdr->op == TN_VIRTIO_VSOCK_OP_RST)
        tn_virtio_vsock_end_(d, c,
                             c->local_shut == TN_VIRTIO_VSOCK_SHUT_BOTH ? TN_VIRTIO_VSOCK_WHY_DONE
                                                                        : TN_VIRTIO_VSOCK_WHY_RESET,
                             false);
    else if (!tn_virtio_vsock_conn_(d, c, hdr, iov, n))
        tn_virtio_vsock_end_(d, c, TN_VIRTIO_VSOCK_WHY_RESET, true);
}

/* Takes packets until the queue is empty, resets wait for buffers, or the turn is over. */
static inline void tn_virtio_vsock_serve_(struct tn_virtio_vsock *d)
{
    struct tn_virtq *q = &d->queue[TN_VIRTIO_VSOCK_TX].q;
    struct tn_iov iov[TN_VIRTIO_VSOCK_IOV_];
    struct tn_virtq_chain chain;
    struct tn_vsock_hdr hdr;
    uint8_t bytes[TN_VIRTIO_VSOCK_HDR];
    uint32_t left = TN_VIRTIO_VSOCK_TURN, chains = d->cfg.queue_size;
    int r;

    d->busy = true;
    d->waiting = false;
    d->stuck = false;
    tn_virtq_notify_disable(q);
    while (tn_virtio_live(&d->virtio)) {
        if (d->orphans == TN_VIRTIO_VSOCK_ORPHANS) {
            tn_virtio_vsock_send_pending_(d);
            if (d->orphans == TN_VIRTIO_VSOCK_ORPHANS) {
                d->stuck = true;
                break;
            }
        }
        if (chains == 0 || left == 0) {
            d->waiting = tn_virtq_notify_enable(q);
            break;
        }
        chains--;
        r = tn_virtq_pop(q, &chain, iov, TN_VIRTIO_VSOCK_IOV_);
        if (r > 0 && chain.writable > 0)
            r = TN_EPROTO;
        if (r < 0) {
            tn_virtio_vsock_broken_(d, r);
            break;
        }
        if (r == 0) {
            if (!tn_virtq_notify_enable(q))
                break;
            continue;
        }
        left -= chain.readable_len < left ? chain.readable_len : left;
        if (chain.readable_len < TN_VIRTIO_VSOCK_HDR) {
            d->dropped++;
        } else {
            (void)tn_iov_gather(iov, chain.readable, 0, bytes, sizeof(bytes));
            tn_vsock_hdr_get(&hdr, bytes);
            if (hdr.op == TN_VIRTIO_VSOCK_OP_RW && !tn_vsock_whole(chain.readable_len, hdr.len))
                hdr.op = TN_VIRTIO_VSOCK_OP_INVALID;
            tn_virtio_vsock_packet_(d, &hdr, iov, chain.readable);
        }
        (void)tn_virtq_push(q, &chain, 0);
    }
    d->busy = false;
    if (!tn_virtio_live(&d->virtio))
        return;
    tn_virtio_signal(&d->virtio, TN_VIRTIO_VSOCK_TX);
    if (d->waiting)
        d->cfg.ops->again(d->cfg.ctx);
}

/* The driver may have filled the queues before it set DRIVER_OK. */
static inline int tn_virtio_vsock_on_activate_(void *ctx)
{
    struct tn_virtio_vsock *d = (struct tn_virtio_vsock *)ctx;

    d->cfg.ops->again(d->cfg.ctx);
    return TN_OK;
}

static inline void tn_virtio_vsock_on_reset_(void *ctx)
{
    struct tn_virtio_vsock *d = (struct tn_virtio_vsock *)ctx;

    d->event = false;
    tn_virtio_vsock_clear_(d);
}

static inline void tn_virtio_vsock_on_notify_(void *ctx, uint32_t queue)
{
    struct tn_virtio_vsock *d = (struct tn_virtio_vsock *)ctx;

    if (queue == TN_VIRTIO_VSOCK_EVENT) {
        tn_virtio_vsock_event_(d);
        return;
    }
    if (queue == TN_VIRTIO_VSOCK_TX)
        tn_virtio_vsock_serve_(d);
    tn_virtio_vsock_rooms_(d);
    tn_virtio_vsock_settle_(d);
}

static const struct tn_virtio_ops tn_virtio_vsock_ops_ = {NULL, tn_virtio_vsock_on_activate_,
                                                          tn_virtio_vsock_on_reset_,
                                                          tn_virtio_vsock_on_notify_, NULL};

/* ---- the API ---- */

static inline bool tn_virtio_vsock_cfg_ok_(const struct tn_virtio_vsock_cfg *cfg)
{
    const struct tn_virtio_vsock_ops *ops = cfg->ops;
    uint32_t send_max = cfg->send_max > 0 ? cfg->send_max : TN_VIRTIO_VSOCK_SEND_MAX_;

    if (!cfg->mem || !cfg->conn || !ops || !ops->request || !ops->opened || !ops->data ||
        !ops->shutdown || !ops->closed || !ops->room || !ops->again || !ops->later || !ops->now)
        return false;
    return cfg->queue_size <= TN_VIRTIO_VSOCK_QUEUE_MAX && cfg->conns > 0 &&
           cfg->conns <= TN_VIRTIO_VSOCK_CONNS_MAX && cfg->buf_alloc >= TN_VIRTIO_VSOCK_BUF_MIN &&
           cfg->buf_alloc <= TN_VIRTIO_VSOCK_BUF_MAX && send_max >= TN_VIRTIO_VSOCK_BUF_MIN &&
           send_max <= TN_VIRTIO_VSOCK_BUF_MAX && tn_vsock_cid_ok(cfg->guest_cid) &&
           (cfg->ring_features & ~TN_VIRTIO_F_RING) == 0;
}

TN_API int tn_virtio_vsock_init(struct tn_virtio_vsock *d, const struct tn_virtio_vsock_cfg *cfg)
{
    struct tn_virtio_cfg v;

    if (!tn_virtio_vsock_cfg_ok_(cfg))
        return TN_EINVAL;
    __builtin_memset(d, 0, sizeof(*d));
    d->cfg = *cfg;
    if (d->cfg.send_max == 0)
        d->cfg.send_max = TN_VIRTIO_VSOCK_SEND_MAX_;
    tn_put_(d->config, 8, cfg->guest_cid);
    for (uint32_t i = 0; i < cfg->conns; i++) {
        __builtin_memset(&cfg->conn[i], 0, sizeof(cfg->conn[i]));
        cfg->conn[i].bucket = TN_VIRTIO_VSOCK_NONE_;
        cfg->conn[i].chain = i + 1 < cfg->conns ? i + 1 : TN_VIRTIO_VSOCK_NONE_;
    }
    for (unsigned i = 0; i < 2; i++) {
        d->head[i] = TN_VIRTIO_VSOCK_NONE_;
        d->tail[i] = TN_VIRTIO_VSOCK_NONE_;
    }
    v.device_id = TN_VIRTIO_VSOCK_ID;
    v.features = TN_VIRTIO_VSOCK_F_STREAM | cfg->ring_features;
    if (cfg->seqpacket)
        v.features |= TN_VIRTIO_VSOCK_F_SEQPACKET;
    v.queue_size = cfg->queue_size;
    v.queues = TN_VIRTIO_VSOCK_QUEUES;
    v.queue = d->queue;
    v.mem = cfg->mem;
    v.config = d->config;
    v.config_len = TN_VIRTIO_VSOCK_CONFIG;
    v.ops = &tn_virtio_vsock_ops_;
    v.ctx = d;
    return tn_virtio_init(&d->virtio, &v);
}

TN_API int tn_virtio_vsock_flush(struct tn_virtio_vsock *d)
{
    if (!tn_virtio_live(&d->virtio)) {
        tn_virtio_vsock_clear_(d);
        return 0;
    }
    tn_virtio_vsock_event_(d);
    tn_virtio_vsock_serve_(d);
    tn_virtio_vsock_rooms_(d);
    tn_virtio_vsock_settle_(d);
    return d->waiting;
}

/* The guest has so long for its answer. */
static inline void tn_virtio_vsock_await_(struct tn_virtio_vsock *d, struct tn_virtio_vsock_conn *c)
{
    c->deadline = d->cfg.ops->now(d->cfg.ctx) + TN_VIRTIO_VSOCK_TIMEOUT;
    if (d->deadline != 0)
        return; /* which is earlier */
    d->deadline = c->deadline;
    d->cfg.ops->later(d->cfg.ctx, TN_VIRTIO_VSOCK_TIMEOUT);
}

TN_API void tn_virtio_vsock_tick(struct tn_virtio_vsock *d)
{
    uint64_t now = d->cfg.ops->now(d->cfg.ctx), next = 0;

    d->busy = true;
    for (uint32_t i = 0; i < d->cfg.conns && d->used > 0; i++) {
        struct tn_virtio_vsock_conn *c = &d->cfg.conn[i];

        if (!tn_virtio_vsock_theirs_(d, c) || c->deadline == 0)
            continue;
        if (c->deadline <= now)
            tn_virtio_vsock_end_(d, c, TN_VIRTIO_VSOCK_WHY_TIMEOUT,
                                 (c->pending & TN_VIRTIO_VSOCK_P_REQUEST_) == 0);
        else if (next == 0 || c->deadline < next)
            next = c->deadline;
    }
    d->busy = false;
    d->deadline = next;
    if (next > 0)
        d->cfg.ops->later(d->cfg.ctx, next - now);
    tn_virtio_vsock_settle_(d);
}

TN_API void tn_virtio_vsock_reset_all(struct tn_virtio_vsock *d)
{
    tn_virtio_vsock_clear_(d);
    d->event = tn_virtio_live(&d->virtio);
    tn_virtio_vsock_event_(d);
}

TN_API int tn_virtio_vsock_set_cid(struct tn_virtio_vsock *d, uint64_t guest_cid)
{
    if (!tn_vsock_cid_ok(guest_cid))
        return TN_EINVAL;
    if (guest_cid == d->cfg.guest_cid)
        return TN_OK;
    d->cfg.guest_cid = guest_cid;
    tn_put_(d->config, 8, guest_cid);
    tn_virtio_config_changed(&d->virtio);
    tn_virtio_vsock_reset_all(d);
    return TN_OK;
}

TN_API void tn_virtio_vsock_save(const struct tn_virtio_vsock *d, struct tn_virtio_vsock_state *out)
{
    out->version = TN_VIRTIO_VSOCK_VERSION;
    out->zero = 0;
    out->guest_cid = d->cfg.guest_cid;
    tn_virtio_save(&d->virtio, &out->virtio);
}

/*@ predicate tn_virtio_vsock_idle(struct tn_virtq_state *ring) =
      ring->next_avail == ring->next_used || ring->error != 0; */

/* Whether a queue can be so: between calls the device holds no chain, unless its ring is broken. */
/*@ requires \valid_read(ring);
    assigns \nothing;
    ensures \result != 0 <==> tn_virtio_vsock_idle((struct tn_virtq_state *)ring); */
static inline bool tn_virtio_vsock_idle_(const struct tn_virtq_state *ring)
{
    return ring->next_avail == ring->next_used || ring->error != 0;
}

/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result != 0 <==> s->zero == 0 && 2 < s->guest_cid < 4294967295 &&
      tn_virtio_vsock_idle(&s->virtio.queue[TN_VIRTIO_VSOCK_RX].ring) &&
      tn_virtio_vsock_idle(&s->virtio.queue[TN_VIRTIO_VSOCK_TX].ring) &&
      tn_virtio_vsock_idle(&s->virtio.queue[TN_VIRTIO_VSOCK_EVENT].ring); */
static inline bool tn_virtio_vsock_valid_(const struct tn_virtio_vsock_state *s)
{
    return s->zero == 0 && tn_vsock_cid_ok(s->guest_cid) &&
           tn_virtio_vsock_idle_(&s->virtio.queue[TN_VIRTIO_VSOCK_RX].ring) &&
           tn_virtio_vsock_idle_(&s->virtio.queue[TN_VIRTIO_VSOCK_TX].ring) &&
           tn_virtio_vsock_idle_(&s->virtio.queue[TN_VIRTIO_VSOCK_EVENT].ring);
}

TN_API int tn_virtio_vsock_restore(struct tn_virtio_vsock *d,
                                   const struct tn_virtio_vsock_state *from)
{
    struct tn_virtio_vsock_state copy = *from;
    int r;

    if (copy.version != TN_VIRTIO_VSOCK_VERSION)
        return TN_EUNSUP;
    if (!tn_virtio_vsock_valid_(&copy))
        return TN_EFORMAT;
    r = tn_virtio_restore(&d->virtio, &copy.virtio);
    if (r < 0) {
        if (!tn_virtio_live(&d->virtio))
            tn_virtio_vsock_clear_(d);
        return r;
    }
    d->cfg.guest_cid = copy.guest_cid;
    tn_put_(d->config, 8, copy.guest_cid);
    tn_virtio_vsock_clear_(d);
    d->event = tn_virtio_live(&d->virtio);
    return TN_OK;
}

TN_API int tn_virtio_vsock_connect(struct tn_virtio_vsock *d, uint32_t guest_port,
                                   uint32_t host_port, uint16_t type, void *host,
                                   struct tn_virtio_vsock_conn **conn)
{
    struct tn_virtio_vsock_conn *c;

    *conn = NULL;
    if (!tn_virtio_live(&d->virtio))
        return TN_ESTATE;
    if (!tn_virtio_vsock_has_type_(d, type))
        return TN_EUNSUP;
    if (tn_virtio_vsock_find_(d, guest_port, host_port, type))
        return TN_EEXIST;
    c = tn_virtio_vsock_take_(d, guest_port, host_port, type, TN_VIRTIO_VSOCK_ASKING_);
    if (!c)
        return TN_ENOSPC;
    c->host = host;
    *conn = c;
    tn_virtio_vsock_pend_(d, c, TN_VIRTIO_VSOCK_P_REQUEST_);
    tn_virtio_vsock_await_(d, c);
    tn_virtio_vsock_settle_(d);
    return TN_OK;
}

TN_API int tn_virtio_vsock_accept(struct tn_virtio_vsock *d, struct tn_virtio_vsock_conn *conn)
{
    if (!tn_virtio_vsock_theirs_(d, conn) || conn->state != TN_VIRTIO_VSOCK_ASKED_)
        return TN_ESTATE;
    conn->state = TN_VIRTIO_VSOCK_OPEN_;
    tn_virtio_vsock_pend_(d, conn, TN_VIRTIO_VSOCK_P_RESPONSE_);
    tn_virtio_vsock_settle_(d);
    return TN_OK;
}

TN_API uint32_t tn_virtio_vsock_room(const struct tn_virtio_vsock *d,
                                     const struct tn_virtio_vsock_conn *conn)
{
    if (!tn_virtio_vsock_theirs_(d, conn) || !tn_virtio_vsock_sends_(conn))
        return 0;
    return tn_virtio_vsock_window_(d, conn);
}

TN_API uint32_t tn_virtio_vsock_message_max(const struct tn_virtio_vsock *d,
                                            const struct tn_virtio_vsock_conn *conn)
{
    if (conn->state != TN_VIRTIO_VSOCK_OPEN_)
        return 0;
    return conn->peer_buf_alloc < d->cfg.send_max ? conn->peer_buf_alloc : d->cfg.send_max;
}

/* Copies len bytes of n iovecs, from off on, to behind a packet's header. */
static inline void tn_virtio_vsock_payload_(const struct tn_virtq_chain *chain,
                                            const struct tn_iov *iov, uint32_t n, size_t off,
                                            size_t len)
{
    uint32_t i = tn_iov_skip(iov, n, &off);

    for (size_t done = 0; i < n && done < len; i++, off = 0) {
        size_t run = iov[i].len - off < len - done ? iov[i].len - off : len - done;

        done += tn_iov_scatter(chain->iov, chain->writable, TN_VIRTIO_VSOCK_HDR + done,
                               iov[i].base + off, run);
    }
}

TN_API size_t tn_virtio_vsock_send(struct tn_virtio_vsock *d, struct tn_virtio_vsock_conn *conn,
                                   const struct tn_iov *iov, uint32_t n, uint32_t flags)
{
    struct tn_iov to[TN_VIRTIO_VSOCK_IOV_];
    struct tn_virtq_chain chain;
    struct tn_vsock_hdr hdr;
    uint32_t left = d->cfg.queue_size, window;
    size_t total = tn_iov_total(iov, n), done = 0;

    if (!tn_virtio_vsock_theirs_(d, conn) || !tn_virtio_vsock_sends_(conn))
        return 0;
    tn_virtio_vsock_send_pending_(d); /* a RESPONSE comes before */
    while (done < total && (conn->pending & TN_VIRTIO_VSOCK_P_RESPONSE_) == 0) {
        window = tn_virtio_vsock_window_(d, conn);
        if (window == 0 || tn_virtio_vsock_rx_(d, TN_VIRTIO_VSOCK_RX, &chain, to,
                                               TN_VIRTIO_VSOCK_HDR + 1, &left) == 0)
            break;
        tn_virtio_vsock_hdr_(d, conn, TN_VIRTIO_VSOCK_OP_RW, &hdr);
        hdr.len = tn_vsock_payload(total - done, window, chain.writable_len);
        tn_virtio_vsock_payload_(&chain, iov, n, done, hdr.len);
        done += hdr.len;
        if (done == total && conn->type == TN_VIRTIO_VSOCK_SEQPACKET)
            hdr.flags = flags & (TN_VIRTIO_VSOCK_SEQ_EOM | TN_VIRTIO_VSOCK_SEQ_EOR);
        conn->tx_cnt = tn_vsock_step(conn->tx_cnt, hdr.len);
        tn_virtio_vsock_put_(d, &chain, &hdr);
    }
    if (done < total) {
        conn->blocked = true;
        if (tn_virtio_vsock_window_(d, conn) > 0) {
            tn_virtio_vsock_list_(d, conn, TN_VIRTIO_VSOCK_ROOM_);
        } else if (!conn->asked) {
            conn->asked = true;
            tn_virtio_vsock_pend_(d, conn, TN_VIRTIO_VSOCK_P_ASK_);
        }
    }
    tn_virtio_vsock_settle_(d);
    return done;
}

TN_API void tn_virtio_vsock_consumed(struct tn_virtio_vsock *d, struct tn_virtio_vsock_conn *conn,
                                     uint32_t len)
{
    if (!tn_virtio_vsock_theirs_(d, conn))
        return;
    tn_virtio_vsock_forwarded_(d, conn, len);
    tn_virtio_vsock_settle_(d);
}

TN_API void tn_virtio_vsock_shutdown(struct tn_virtio_vsock *d, struct tn_virtio_vsock_conn *conn,
                                     uint32_t flags)
{
    uint8_t shut = conn->local_shut | (uint8_t)(flags & TN_VIRTIO_VSOCK_SHUT_BOTH);

    if (!tn_virtio_vsock_theirs_(d, conn) || conn->state != TN_VIRTIO_VSOCK_OPEN_ ||
        shut == conn->local_shut)
        return;
    conn->local_shut = shut;
    tn_virtio_vsock_pend_(d, conn, TN_VIRTIO_VSOCK_P_SHUTDOWN_);
    if (shut == TN_VIRTIO_VSOCK_SHUT_BOTH)
        tn_virtio_vsock_await_(d, conn);
    tn_virtio_vsock_settle_(d);
}

TN_API void tn_virtio_vsock_reset(struct tn_virtio_vsock *d, struct tn_virtio_vsock_conn *conn)
{
    if (!tn_virtio_vsock_theirs_(d, conn))
        return;
    conn->host = NULL;
    if (conn->state == TN_VIRTIO_VSOCK_ASKING_ &&
        (conn->pending & TN_VIRTIO_VSOCK_P_REQUEST_) != 0) {
        tn_virtio_vsock_free_(d, conn); /* the guest never heard of it */
        return;
    }
    tn_virtio_vsock_die_(d, conn);
    tn_virtio_vsock_settle_(d);
}

/* "CONNECT ", byte for byte; 0 behind it. */
/*@ assigns \nothing;
    ensures i == 0 ==> \result == 'C';
    ensures i == 1 ==> \result == 'O';
    ensures i == 2 || i == 3 ==> \result == 'N';
    ensures i == 4 ==> \result == 'E';
    ensures i == 5 ==> \result == 'C';
    ensures i == 6 ==> \result == 'T';
    ensures i == 7 ==> \result == ' '; */
static inline uint8_t tn_virtio_vsock_word_(size_t i)
{
    switch (i) {
    case 0:
    case 5:
        return 'C';
    case 1:
        return 'O';
    case 2:
    case 3:
        return 'N';
    case 4:
        return 'E';
    case 6:
        return 'T';
    case 7:
        return ' ';
    default:
        return 0;
    }
}

TN_API int tn_virtio_vsock_connect_line(const uint8_t *bytes, size_t len, uint32_t *port)
{
    uint64_t value = 0;
    size_t i;

    *port = 0;
    /*@ loop invariant 0 <= i <= 8 && i <= len;
        loop invariant \forall integer j; 0 <= j < i ==> bytes[j] == tn_virtio_vsock_word(j);
        loop assigns i;
        loop variant 8 - i; */
    for (i = 0; i < 8; i++) {
        if (i == len)
            return 0;
        if (bytes[i] != tn_virtio_vsock_word_(i))
            return TN_EFORMAT;
    }
    /*@ loop invariant 8 <= i <= 18 && i <= len;
        loop invariant \forall integer j; 8 <= j < i ==> '0' <= bytes[j] <= '9';
        loop invariant value == tn_virtio_vsock_number((uint8_t *)bytes, i);
        loop invariant (i <= 8 ==> value == 0) && (i <= 9 ==> value <= 9) &&
          (i <= 10 ==> value <= 99) && (i <= 11 ==> value <= 999) && (i <= 12 ==> value <= 9999) &&
          (i <= 13 ==> value <= 99999) && (i <= 14 ==> value <= 999999) &&
          (i <= 15 ==> value <= 9999999) && (i <= 16 ==> value <= 99999999) &&
          (i <= 17 ==> value <= 999999999) && value <= 9999999999;
        loop invariant i > 9 ==> bytes[8] != '0';
        loop assigns i, value;
        loop variant 18 - i; */
    for (; i < len; i++) {
        if (bytes[i] == '\n') {
            if (i == 8 || value >= TN_VIRTIO_VSOCK_PORT_ANY)
                return TN_EFORMAT;
            *port = (uint32_t)value;
            return (int)i + 1;
        }
        if (bytes[i] < '0' || bytes[i] > '9' || i == TN_VIRTIO_VSOCK_LINE - 1 ||
            (i == 9 && bytes[8] == '0'))
            return TN_EFORMAT;
        value = 10 * value + (uint64_t)(bytes[i] - '0');
    }
    return 0;
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VIRTIO_VSOCK_H */
