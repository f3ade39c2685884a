/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vsock - a virtio socket's packet header, and its arithmetic of credit.
 *
 * WHAT
 *   The 44 bytes before each packet's payload, to and from a struct; and the counts by which each
 *   side knows how much the other may send: bytes modulo 2^32, which a hostile guest sets as it
 *   likes. What both a device's model and a backend of the host's need, without either.
 *
 * USAGE
 *   uint8_t wire[TN_VSOCK_HDR];
 *   struct tn_vsock_hdr hdr = {3, TN_VSOCK_HOST, 1024, 80, 5, 1, 5, 0, 65536, 100}, copy;
 *   uint32_t sent = 200;
 *
 *   tn_vsock_hdr_put(&hdr, wire);
 *   tn_vsock_hdr_get(&copy, wire);
 *   if (!tn_vsock_cid_ok(copy.src_cid) || !tn_vsock_whole(TN_VSOCK_HDR + 5, copy.len))
 *       return 1;
 *   if (tn_vsock_credit(copy.buf_alloc, 4096, sent, copy.fwd_cnt) != 4096 - 100)
 *       return 2;
 *   sent = tn_vsock_step(sent, copy.len);
 *
 * COMPOSITION
 *   tn_virtio_vsock has it for the packets of its rings.
 *
 * GUEST TRUST
 *   All numbers may be hostile: none of the functions wraps, and none gives more credit than limit
 *   or buffer allow.
 *
 * MEMORY
 *   All of it is the caller's.
 *
 * THREADS
 *   Any number of calls at a time.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Virtual I/O Device (VIRTIO) 1.2, section 5.10.6.
 *
 * LIMITS
 *   What op, type and flags say is not looked at.
 */
#ifndef TN_VSOCK_H
#define TN_VSOCK_H

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

#define TN_VSOCK_HDR  44u  /* bytes before a packet's payload */
#define TN_VSOCK_HOST 2ull /* the host's CID */

/* struct virtio_vsock_hdr (5.10.6). */
struct tn_vsock_hdr {
    uint64_t src_cid;
    uint64_t dst_cid;
    uint32_t src_port;
    uint32_t dst_port;
    uint32_t len;
    uint16_t type;
    uint16_t op;
    uint32_t flags;
    uint32_t buf_alloc;
    uint32_t fwd_cnt;
};

/*
 * How far it is from one count to a later one, modulo 2^32 as all counts here.
 */
/*@ assigns \nothing;
    ensures \result == (from <= to ? to - from : to + 4294967296 - from); */
TN_API uint32_t tn_vsock_distance(uint32_t from, uint32_t to);

/*
 * A count, n further.
 */
/*@ assigns \nothing;
    ensures \result == (count + n) % 4294967296; */
TN_API uint32_t tn_vsock_step(uint32_t count, uint32_t n);

/*
 * How many bytes may be sent to somebody with a buffer of peer_buf_alloc bytes, of which the last
 * tx_cnt - peer_fwd_cnt sent may be in it still (5.10.6.3); never so many that more than limit are.
 */
/*@ assigns \nothing;
    ensures \let used = (tx_cnt - peer_fwd_cnt) % 4294967296 < 0
                          ? (tx_cnt - peer_fwd_cnt) % 4294967296 + 4294967296
                          : (tx_cnt - peer_fwd_cnt) % 4294967296;
            \let window = \min(peer_buf_alloc, limit);
            \result == \max(0, window - used) && \result <= peer_buf_alloc && \result <= limit &&
            (\result > 0 ==> used + \result <= peer_buf_alloc && used + \result <= limit); */
TN_API uint32_t tn_vsock_credit(uint32_t peer_buf_alloc, uint32_t limit, uint32_t tx_cnt,
                                uint32_t peer_fwd_cnt);

/*
 * Whether len bytes more fit in a buffer of buf_alloc, where rx_cnt - fwd_cnt are.
 */
/*@ assigns \nothing;
    ensures \result != 0 <==>
      (fwd_cnt <= rx_cnt ? rx_cnt - fwd_cnt : rx_cnt + 4294967296 - fwd_cnt) + len <= buf_alloc; */
TN_API bool tn_vsock_fits(uint32_t buf_alloc, uint32_t rx_cnt, uint32_t fwd_cnt, uint32_t len);

/*
 * fwd_cnt after somebody says that he is done with len bytes: never beyond rx_cnt.
 */
/*@ assigns \nothing;
    ensures \let used = fwd_cnt <= rx_cnt ? rx_cnt - fwd_cnt : rx_cnt + 4294967296 - fwd_cnt;
            \result == (fwd_cnt + \min(used, len)) % 4294967296; */
TN_API uint32_t tn_vsock_forward(uint32_t rx_cnt, uint32_t fwd_cnt, uint32_t len);

/*
 * Whether the peer is to hear how much was forwarded: it was told of a quarter of the buffer less.
 */
/*@ assigns \nothing;
    ensures \result != 0 <==>
      (told <= fwd_cnt ? fwd_cnt - told : fwd_cnt + 4294967296 - told) >= buf_alloc / 4; */
TN_API bool tn_vsock_owes(uint32_t buf_alloc, uint32_t told, uint32_t fwd_cnt);

/*
 * The payload of the next packet: what is left to send, and what credit and a buffer of room bytes
 * allow, of which the header takes the first.
 */
/*@ assigns \nothing;
    ensures \result == \min(left, \min(credit, \max(0, room - TN_VSOCK_HDR))); */
TN_API uint32_t tn_vsock_payload(size_t left, uint32_t credit, uint32_t room);

/*
 * A header of TN_VSOCK_HDR bytes at p, as the bytes are on the ring, from and to a struct.
 */
/*@ requires \valid(out) && \valid_read(p + (0 .. TN_VSOCK_HDR - 1));
    requires \separated(out, p + (0 .. TN_VSOCK_HDR - 1));
    assigns *out; */
TN_API void tn_vsock_hdr_get(struct tn_vsock_hdr *out, const uint8_t *p);

/*@ requires \valid_read(hdr) && \valid(p + (0 .. TN_VSOCK_HDR - 1));
    requires \separated(hdr, p + (0 .. TN_VSOCK_HDR - 1));
    assigns p[0 .. TN_VSOCK_HDR - 1]; */
TN_API void tn_vsock_hdr_put(const struct tn_vsock_hdr *hdr, uint8_t *p);

/*
 * Whether a packet of total bytes has a header, and a payload of len.
 */
/*@ assigns \nothing;
    ensures \result != 0 <==> TN_VSOCK_HDR + len <= total; */
TN_API bool tn_vsock_whole(uint32_t total, uint32_t len);

/*
 * Whether a guest can have this CID: 0, 1, 2 and the last are not for guests (5.10.4).
 */
/*@ assigns \nothing;
    ensures \result != 0 <==> 2 < cid < 4294967295; */
TN_API bool tn_vsock_cid_ok(uint64_t cid);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

TN_API uint32_t tn_vsock_distance(uint32_t from, uint32_t to)
{
    return from <= to ? to - from : 0xffffffffu - (from - to) + 1u;
}

TN_API uint32_t tn_vsock_step(uint32_t count, uint32_t n)
{
    return n <= 0xffffffffu - count ? count + n : n - (0xffffffffu - count) - 1u;
}

TN_API uint32_t tn_vsock_credit(uint32_t peer_buf_alloc, uint32_t limit, uint32_t tx_cnt,
                                uint32_t peer_fwd_cnt)
{
    uint32_t window = peer_buf_alloc < limit ? peer_buf_alloc : limit;
    uint32_t used = tn_vsock_distance(peer_fwd_cnt, tx_cnt);

    return used < window ? window - used : 0;
}

TN_API bool tn_vsock_fits(uint32_t buf_alloc, uint32_t rx_cnt, uint32_t fwd_cnt, uint32_t len)
{
    uint32_t used = tn_vsock_distance(fwd_cnt, rx_cnt);

    return used <= buf_alloc && len <= buf_alloc - used;
}

TN_API uint32_t tn_vsock_forward(uint32_t rx_cnt, uint32_t fwd_cnt, uint32_t len)
{
    uint32_t used = tn_vsock_distance(fwd_cnt, rx_cnt);

    return tn_vsock_step(fwd_cnt, len < used ? len : used);
}

TN_API bool tn_vsock_owes(uint32_t buf_alloc, uint32_t told, uint32_t fwd_cnt)
{
    return tn_vsock_distance(told, fwd_cnt) >= buf_alloc / 4;
}

TN_API uint32_t tn_vsock_payload(size_t left, uint32_t credit, uint32_t room)
{
    uint32_t len = room > TN_VSOCK_HDR ? room - TN_VSOCK_HDR : 0;

    if (len > credit)
        len = credit;
    return left < len ? (uint32_t)left : len;
}

TN_API void tn_vsock_hdr_get(struct tn_vsock_hdr *out, const uint8_t *p)
{
    out->src_cid = tn_get_(p, 8);
    out->dst_cid = tn_get_(p + 8, 8);
    out->src_port = (uint32_t)tn_get_(p + 16, 4);
    out->dst_port = (uint32_t)tn_get_(p + 20, 4);
    out->len = (uint32_t)tn_get_(p + 24, 4);
    out->type = (uint16_t)tn_get_(p + 28, 2);
    out->op = (uint16_t)tn_get_(p + 30, 2);
    out->flags = (uint32_t)tn_get_(p + 32, 4);
    out->buf_alloc = (uint32_t)tn_get_(p + 36, 4);
    out->fwd_cnt = (uint32_t)tn_get_(p + 40, 4);
}

TN_API void tn_vsock_hdr_put(const struct tn_vsock_hdr *hdr, uint8_t *p)
{
    tn_put_(p, 8, hdr->src_cid);
    tn_put_(p + 8, 8, hdr->dst_cid);
    tn_put_(p + 16, 4, hdr->src_port);
    tn_put_(p + 20, 4, hdr->dst_port);
    tn_put_(p + 24, 4, hdr->len);
    tn_put_(p + 28, 2, hdr->type);
    tn_put_(p + 30, 2, hdr->op);
    tn_put_(p + 32, 4, hdr->flags);
    tn_put_(p + 36, 4, hdr->buf_alloc);
    tn_put_(p + 40, 4, hdr->fwd_cnt);
}

TN_API bool tn_vsock_whole(uint32_t total, uint32_t len)
{
    return total >= TN_VSOCK_HDR && len <= total - TN_VSOCK_HDR;
}

TN_API bool tn_vsock_cid_ok(uint64_t cid)
{
    return cid > TN_VSOCK_HOST && cid < 0xffffffffu;
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VSOCK_H */
