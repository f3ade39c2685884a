/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_net - what a network device asks of whatever carries its frames.
 *
 * WHAT
 *   The contract between a device's model and a backend: an Ethernet frame, the header that says
 *   which of its checksums and segments are still to be made, and the functions that move both. And
 *   the check of such a header, which either side may have from somebody hostile.
 *
 * USAGE
 *   static int hole_send(void *ctx, uint32_t pair, const struct tn_net_hdr *hdr,
 *                        const struct tn_iov *iov, uint32_t iovs, uint32_t len)
 *   {
 *       (void)pair, (void)hdr, (void)iov, (void)iovs;
 *       *(uint64_t *)ctx += len;
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
 *   ---
 *   static const struct tn_net_ops hole = {hole_send, hole_recv, hole_set, hole_fd};
 *   uint64_t bytes = 0;
 *   struct tn_net net = {&hole, &bytes, 0, 0, 1};
 *   uint8_t wire[TN_NET_HDR] = {0}, frame[60] = {0};
 *   struct tn_iov iov = {frame, sizeof(frame)};
 *   struct tn_net_hdr hdr;
 *
 *   tn_net_hdr_get(&hdr, wire);
 *   if (tn_net_hdr_check(&hdr, net.tx_offloads, sizeof(frame)) < 0)
 *       return 1;
 *   if (net.ops->send(net.ctx, 0, &hdr, &iov, 1, sizeof(frame)) < 0 || bytes != 60)
 *       return 2;
 *
 * COMPOSITION
 *   tn_virtio_net asks; tn_tap, tn_net_stream and tn_net_pair answer. Whoever owns the event loop
 *   polls the descriptor that fd names: readable means that recv may have a frame, writable that
 *   send, which had no room, may have some.
 *
 * GUEST TRUST
 *   The asker calls tn_net_hdr_check before each send: a backend may rely on it. What recv returned
 *   comes from the host's network or from another guest: the asker checks that header too. The
 *   bytes behind iov are the guest's, and may change while they are moved: who looks into a frame
 *   copies first.
 *
 * MEMORY
 *   The asker owns header and iovecs for the time of a call. The backend owns struct tn_net, and
 *   fills it in once.
 *
 * THREADS
 *   One call at a time on one pair, and set and nothing else at its time.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Virtual I/O Device (VIRTIO) 1.2, section 5.1.6: struct virtio_net_hdr, whose fields, flags and
 *   types the header has; VIRTIO 1.3 for UDP segments.
 *
 * LIMITS
 *   No hash reports: the header is the one of 12 bytes.
 */
#ifndef TN_NET_H
#define TN_NET_H

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

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_NET_HDR       12u    /* bytes of the header on its way */
#define TN_NET_ETH       14u    /* bytes of an Ethernet header, the least that a frame has */
#define TN_NET_FRAME_MAX 65553u /* bytes of the largest frame, before it is segmented: IPv6, VLAN */
#define TN_NET_IOVS      1022u  /* most iovecs of one call: the kernel takes 1024 */

/* What may be left to do in a frame; what a side can do of it, one bit each. */
#define TN_NET_CSUM 1u  /* a checksum */
#define TN_NET_TSO4 2u  /* segments of TCP over IPv4 */
#define TN_NET_TSO6 4u  /* over IPv6 */
#define TN_NET_ECN  8u  /* segments of TCP with CWR set */
#define TN_NET_UFO  16u /* fragments of UDP */
#define TN_NET_USO  32u /* segments of UDP, over IPv4 and IPv6 */

/* flags */
#define TN_NET_HDR_F_NEEDS_CSUM 1u /* the checksum from csum_start on goes to + csum_offset */
#define TN_NET_HDR_F_DATA_VALID 2u /* the checksums were found right */

/* gso_type */
#define TN_NET_HDR_GSO_NONE   0u
#define TN_NET_HDR_GSO_TCPV4  1u
#define TN_NET_HDR_GSO_UDP    3u
#define TN_NET_HDR_GSO_TCPV6  4u
#define TN_NET_HDR_GSO_UDP_L4 5u
#define TN_NET_HDR_GSO_ECN    0x80u /* added to one of TCP */

/* Offsets are bytes of the frame, which begins behind the header. */
struct tn_net_hdr {
    uint8_t flags;
    uint8_t gso_type;
    uint16_t hdr_len;  /* headers to copy to each segment; a hint */
    uint16_t gso_size; /* bytes of payload of each segment */
    uint16_t csum_start;
    uint16_t csum_offset;
    uint16_t num_buffers; /* to the guest: chains that the frame takes */
};

struct tn_net_ops {
    /*
     * Sends a frame of len bytes, which iov holds. Returns 0: it was taken, if only to be lost on
     * the way; TN_EAGAIN: there is no room now, it is to be given again; any other error: nobody
     * will ever take it.
     */
    int (*send)(void *ctx, uint32_t pair, const struct tn_net_hdr *hdr, const struct tn_iov *iov,
                uint32_t iovs, uint32_t len);
    /*
     * Puts the next frame into iov. Returns its length, 1 or more; TN_EAGAIN: there is none;
     * TN_ETRUNC: it was larger than iov, or nothing that can be taken, and is gone; TN_ESYS: none
     * will ever come again. num_buffers is nothing that it sets.
     */
    int64_t (*recv)(void *ctx, uint32_t pair, struct tn_net_hdr *hdr, const struct tn_iov *iov,
                    uint32_t iovs);
    /*
     * From now on the frames that recv returns may have these offloads open, some of rx_offloads,
     * and come to the first pairs pairs, 1 or more. Returns 0, or TN_ESYS: it stays as it was.
     */
    int (*set)(void *ctx, uint32_t offloads, uint32_t pairs);
    /*
     * The descriptor to poll for a pair; -1: none, as for a pair that frames do not come to. To be
     * asked again after each set, and after a TN_ESYS.
     */
    int (*fd)(void *ctx, uint32_t pair);
};

/* A network, as its backend describes it. */
struct tn_net {
    const struct tn_net_ops *ops;
    void *ctx;            /* the backend */
    uint32_t tx_offloads; /* what may be open in frames that it is given */
    uint32_t rx_offloads; /* what it can leave open, when it is asked to */
    uint32_t pairs;       /* queue pairs, 1 or more */
};

/*@ logic integer tn_net_gso(integer type) = type % 128 == 1 ? TN_NET_TSO4
      : type % 128 == 4 ? TN_NET_TSO6 : type == 3 ? TN_NET_UFO : type == 5 ? TN_NET_USO : 0;
    predicate tn_net_hdr_fits(struct tn_net_hdr *h, integer len) =
      (h->flags % 2 == 1 ==> h->csum_start + h->csum_offset + 2 <= len) &&
      (h->gso_type != 0 ==> h->flags % 2 == 1 && h->gso_size > 0 && h->csum_start < h->hdr_len &&
        h->hdr_len <= len);
*/

/*
 * The header out of, and into, the bytes of 5.1.6, little-endian.
 */
/*@ requires \valid(h) && \valid_read(bytes + (0 .. TN_NET_HDR - 1));
    requires \separated(h, bytes + (0 .. TN_NET_HDR - 1));
    assigns *h; */
TN_API void tn_net_hdr_get(struct tn_net_hdr *h, const uint8_t *bytes);
/*@ requires \valid_read(h) && \valid(bytes + (0 .. TN_NET_HDR - 1));
    requires \separated(h, bytes + (0 .. TN_NET_HDR - 1));
    assigns bytes[0 .. TN_NET_HDR - 1]; */
TN_API void tn_net_hdr_put(const struct tn_net_hdr *h, uint8_t *bytes);

/*
 * Whether a frame of len bytes may have this header where no more than offloads may be open:
 * nothing that it points to lies outside of the frame, and what a field means without its flag is
 * not there (5.1.6.2). A hdr_len that is smaller than what has to be in it is made larger, one that
 * is too large is cut (a hint, 5.1.6.2): *h is then right for any backend. num_buffers and unknown
 * flags become 0. Returns 0; TN_EPROTO for a type, or a checksum, that may not be open; TN_ERANGE
 * for an offset beyond the frame, or segments of no bytes (*h is then void).
 */
/*@ requires \valid(h);
    assigns *h;
    ensures \result == TN_OK || \result == TN_EPROTO || \result == TN_ERANGE;
    ensures \result == TN_OK ==> tn_net_hdr_fits(h, len);
    ensures \result == TN_OK && h->flags % 2 == 1 ==> (offloads & TN_NET_CSUM) != 0;
    ensures \result == TN_OK && h->gso_type % 128 == 1 ==> (offloads & TN_NET_TSO4) != 0;
    ensures \result == TN_OK && h->gso_type % 128 == 4 ==> (offloads & TN_NET_TSO6) != 0;
    ensures \result == TN_OK && h->gso_type == 3 ==> (offloads & TN_NET_UFO) != 0;
    ensures \result == TN_OK && h->gso_type == 5 ==> (offloads & TN_NET_USO) != 0;
    ensures \result == TN_OK && h->gso_type >= 128 ==> (offloads & TN_NET_ECN) != 0;
    ensures \result == TN_OK ==> h->gso_type == 0 || tn_net_gso(h->gso_type) != 0; */
TN_API int tn_net_hdr_check(struct tn_net_hdr *h, uint32_t offloads, uint32_t len);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

TN_API void tn_net_hdr_get(struct tn_net_hdr *h, const uint8_t *bytes)
{
    h->flags = bytes[0];
    h->gso_type = bytes[1];
    h->hdr_len = (uint16_t)tn_get_(bytes + 2, 2);
    h->gso_size = (uint16_t)tn_get_(bytes + 4, 2);
    h->csum_start = (uint16_t)tn_get_(bytes + 6, 2);
    h->csum_offset = (uint16_t)tn_get_(bytes + 8, 2);
    h->num_buffers = (uint16_t)tn_get_(bytes + 10, 2);
}

TN_API void tn_net_hdr_put(const struct tn_net_hdr *h, uint8_t *bytes)
{
    bytes[0] = h->flags;
    bytes[1] = h->gso_type;
    tn_put_(bytes + 2, 2, h->hdr_len);
    tn_put_(bytes + 4, 2, h->gso_size);
    tn_put_(bytes + 6, 2, h->csum_start);
    tn_put_(bytes + 8, 2, h->csum_offset);
    tn_put_(bytes + 10, 2, h->num_buffers);
}

/* Whether segments of a type may be open; an unknown one may not. */
/*@ assigns \nothing;
    ensures \result != 0 ==> tn_net_gso(type) != 0;
    ensures \result != 0 && type % 128 == 1 ==> (offloads & TN_NET_TSO4) != 0;
    ensures \result != 0 && type % 128 == 4 ==> (offloads & TN_NET_TSO6) != 0;
    ensures \result != 0 && type == 3 ==> (offloads & TN_NET_UFO) != 0;
    ensures \result != 0 && type == 5 ==> (offloads & TN_NET_USO) != 0; */
static inline bool tn_net_may_(uint32_t offloads, uint8_t type)
{
    switch (type) {
    case TN_NET_HDR_GSO_TCPV4:
    case TN_NET_HDR_GSO_TCPV4 | TN_NET_HDR_GSO_ECN:
        return (offloads & TN_NET_TSO4) != 0;
    case TN_NET_HDR_GSO_TCPV6:
    case TN_NET_HDR_GSO_TCPV6 | TN_NET_HDR_GSO_ECN:
        return (offloads & TN_NET_TSO6) != 0;
    case TN_NET_HDR_GSO_UDP:
        return (offloads & TN_NET_UFO) != 0;
    case TN_NET_HDR_GSO_UDP_L4:
        return (offloads & TN_NET_USO) != 0;
    default:
        return false;
    }
}

TN_API int tn_net_hdr_check(struct tn_net_hdr *h, uint32_t offloads, uint32_t len)
{
    uint32_t least;

    h->num_buffers = 0;
    h->flags %= 4u; /* the two that there are */
    if (h->flags % 2u != TN_NET_HDR_F_NEEDS_CSUM) {
        h->csum_start = 0;
        h->csum_offset = 0;
    } else {
        if ((offloads & TN_NET_CSUM) == 0)
            return TN_EPROTO;
        if (len < 2 || h->csum_start > len - 2 || h->csum_offset > len - 2 - h->csum_start)
            return TN_ERANGE;
    }
    if (h->gso_type == TN_NET_HDR_GSO_NONE) {
        h->gso_size = 0;
        h->hdr_len = 0;
        return TN_OK;
    }
    /* Each segment needs a checksum of its own, so its place must be known (5.1.6.2.1). */
    if (!tn_net_may_(offloads, h->gso_type) || h->flags % 2u != TN_NET_HDR_F_NEEDS_CSUM)
        return TN_EPROTO;
    if (h->gso_type >= TN_NET_HDR_GSO_ECN && (offloads & TN_NET_ECN) == 0)
        return TN_EPROTO;
    if (h->gso_size == 0)
        return TN_ERANGE;
    least = (uint32_t)h->csum_start + h->csum_offset + 2;
    if (h->hdr_len < least)
        h->hdr_len = (uint16_t)(least < 65535 ? least : 65535);
    if (h->hdr_len > len)
        h->hdr_len = (uint16_t)len;
    return h->csum_start < h->hdr_len ? TN_OK : TN_ERANGE;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_NET_H */
