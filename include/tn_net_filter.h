/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_net_filter - which of the frames that come a network card's driver wants.
 *
 * WHAT
 *   The receive filter of a network card: its own address, tables of others, modes that let all
 *   frames of a kind in or keep them out, and the VLANs whose tagged frames pass. It is that of
 *   virtio-net (5.1.6.5.1 to 5.1.6.5.3), and what the filters of other cards come down to.
 *
 * USAGE
 *   static const uint8_t own[6] = {2, 0, 0, 0, 0, 1}, group[6] = {0x33, 0x33, 0, 0, 0, 1};
 *   uint8_t head[TN_NET_FILTER_HEAD] = {0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0};
 *   struct tn_net_filter filter;
 *
 *   if (tn_net_filter_init(&filter, own) < 0 || !tn_net_filter_wants(&filter, head))
 *       return 1;
 *   tn_net_filter_set_mode(&filter, TN_NET_FILTER_PROMISC, false);
 *   if (tn_net_filter_wants(&filter, head))
 *       return 2;
 *   tn_net_filter_set_tables(&filter, NULL, 0, group, 1);
 *   if (!tn_net_filter_wants(&filter, head))
 *       return 3;
 *
 * COMPOSITION
 *   A model of a card has the functions change it as the driver says, and asks for each frame that
 *   comes. tn_virtio_net does.
 *
 * GUEST TRUST
 *   What the driver says is checked here: numbers of any size do no harm, and a table that is too
 *   long lets all of its kind in. head is a copy: a frame that others write to is not looked at. Of
 *   a filter that was saved, check uni + multi <= TN_NET_FILTER_MACS before it is used.
 *
 * MEMORY
 *   struct tn_net_filter, 906 bytes, is all there is, without pointers.
 *
 * THREADS
 *   One call at a time on one struct; any number of tn_net_filter_wants.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Virtual I/O Device (VIRTIO) 1.2, section 5.1.6.5; IEEE 802.1Q, the tag.
 *
 * LIMITS
 *   Of a frame with several tags, the first counts, if its type is 0x8100.
 */
#ifndef TN_NET_FILTER_H
#define TN_NET_FILTER_H

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

#define TN_NET_FILTER_MACS 64u /* addresses of both tables */
#define TN_NET_FILTER_HEAD 18u /* bytes of a frame that are looked at: two addresses, a tag */

/* Modes; bit n is command n of virtio-net's class VIRTIO_NET_CTRL_RX. */
#define TN_NET_FILTER_PROMISC    1u /* all frames pass */
#define TN_NET_FILTER_ALLMULTI   2u
#define TN_NET_FILTER_ALLUNI     4u
#define TN_NET_FILTER_NOMULTI    8u /* none of them, whatever else says; broadcasts are not meant */
#define TN_NET_FILTER_NOUNI      16u
#define TN_NET_FILTER_NOBCAST    32u
#define TN_NET_FILTER_MODES      63u  /* those above, which may be set */
#define TN_NET_FILTER_UNI_OVER   64u  /* the table of unicast addresses did not fit */
#define TN_NET_FILTER_MULTI_OVER 128u /* the one of multicast addresses */

struct tn_net_filter {
    uint8_t mac[6]; /* the card's own */
    uint8_t mode;   /* TN_NET_FILTER_... */
    uint8_t uni;    /* table[0 .. uni - 1]: unicast */
    uint8_t multi;  /* the next ones: multicast */
    bool vlans;     /* of tagged frames, those pass that vlan names; the caller sets it */
    uint8_t table[TN_NET_FILTER_MACS][6];
    uint8_t vlan[512]; /* bit n: VLAN n */
};

/*@ predicate tn_net_filter_same(uint8_t *a, uint8_t *b) =
      \forall integer i; 0 <= i < 6 ==> a[i] == b[i];
    predicate tn_net_filter_listed(struct tn_net_filter *f, integer from, integer to,
                                   uint8_t *mac) =
      \exists integer i; from <= i < to && tn_net_filter_same(&f->table[i][0], mac);
    predicate tn_net_filter_all(uint8_t *a) = \forall integer i; 0 <= i < 6 ==> a[i] == 255;
    predicate tn_net_filter_station(uint8_t *mac) =
      mac[0] % 2 == 0 && \exists integer i; 0 <= i < 6 && mac[i] != 0;
    predicate tn_net_filter_tagged(uint8_t *head) = head[12] == 0x81 && head[13] == 0;
    predicate tn_net_filter_vlan(struct tn_net_filter *f, integer vid) =
      vid == 0 || (f->vlan[vid / 8] >> (vid % 8)) % 2 == 1; */

/*
 * Whether it is the address of one station: not of a group, and not 0.
 */
/*@ requires \valid_read(mac + (0 .. 5));
    assigns \nothing;
    ensures \result <==> tn_net_filter_station((uint8_t *)mac); */
TN_API bool tn_net_filter_is_station(const uint8_t mac[6]);

/*
 * Whether a frame that begins so has a tag.
 */
/*@ requires \valid_read(head + (0 .. TN_NET_FILTER_HEAD - 1));
    assigns \nothing;
    ensures \result <==> tn_net_filter_tagged((uint8_t *)head); */
TN_API bool tn_net_filter_is_tagged(const uint8_t head[TN_NET_FILTER_HEAD]);

/*
 * Makes a filter that lets all frames in, as after a reset: PROMISC is set, the rest is empty.
 * Returns 0; TN_EINVAL unless mac is a station's, with the rest done.
 */
TN_API int tn_net_filter_init(struct tn_net_filter *f, const uint8_t mac[6]);

/*
 * Gives the card another address. Returns 0, or TN_EINVAL unless it is a station's.
 */
/*@ requires \valid(f) && \valid_read(mac + (0 .. 5)) && \separated(f, mac + (0 .. 5));
    assigns f->mac[0 .. 5];
    ensures \result == TN_OK || \result == TN_EINVAL;
    ensures \result == TN_OK <==> tn_net_filter_station{Pre}((uint8_t *)mac);
    ensures \result == TN_OK ==> tn_net_filter_same(&f->mac[0], (uint8_t *)mac);
    ensures \result != TN_OK ==> \forall integer i; 0 <= i < 6 ==> f->mac[i] == \old(f->mac[i]); */
TN_API int tn_net_filter_set_mac(struct tn_net_filter *f, const uint8_t mac[6]);

/*
 * Switches modes on or off. Returns 0, or TN_EINVAL for others than TN_NET_FILTER_MODES.
 */
/*@ requires \valid(f);
    assigns f->mode;
    ensures \result == TN_OK <==> mode < 64;
    ensures \result == TN_OK && on ==> f->mode == (uint8_t)(\old(f->mode) | mode);
    ensures \result != TN_OK ==> f->mode == \old(f->mode); */
TN_API int tn_net_filter_set_mode(struct tn_net_filter *f, uint32_t mode, bool on);

/*
 * Sets both tables, of unis and multis addresses, 6 bytes each. A table that does not fit, the
 * second beside the first, is empty, is not read, and lets all frames of its kind in.
 */
/*@ requires \valid(f);
    requires unis <= TN_NET_FILTER_MACS ==> \valid_read(uni + (0 .. 6 * unis - 1)) &&
      \separated(f, uni + (0 .. 6 * unis - 1));
    requires multis <= TN_NET_FILTER_MACS ==> \valid_read(multi + (0 .. 6 * multis - 1)) &&
      \separated(f, multi + (0 .. 6 * multis - 1));
    assigns f->mode, f->uni, f->multi, f->table[0 .. TN_NET_FILTER_MACS - 1][0 .. 5];
    ensures f->uni == (unis <= TN_NET_FILTER_MACS ? unis : 0);
    ensures f->multi == (multis <= TN_NET_FILTER_MACS - f->uni ? multis : 0);
    ensures f->mode == \old(f->mode) % TN_NET_FILTER_UNI_OVER +
      (f->uni == unis ? 0 : TN_NET_FILTER_UNI_OVER) +
      (f->multi == multis ? 0 : TN_NET_FILTER_MULTI_OVER); */
TN_API void tn_net_filter_set_tables(struct tn_net_filter *f, const uint8_t *uni, uint32_t unis,
                                     const uint8_t *multi, uint32_t multis);

/*
 * Lets the tagged frames of a VLAN in, or keeps them out. Returns 0, or TN_EINVAL: no such VLAN.
 */
/*@ requires \valid(f);
    assigns f->vlan[0 .. 511];
    ensures \result == TN_OK <==> vid < 4096;
    ensures \result == TN_OK || \result == TN_EINVAL;
    ensures \forall integer i; 0 <= i < 512 && i != vid / 8 ==> f->vlan[i] == \old(f->vlan[i]); */
TN_API int tn_net_filter_set_vlan(struct tn_net_filter *f, uint32_t vid, bool on);

/*
 * Whether a frame that begins so is wanted; what it does not have of these bytes is 0.
 */
/*@ requires \valid_read(f) && f->uni + f->multi <= TN_NET_FILTER_MACS;
    requires \valid_read(head + (0 .. TN_NET_FILTER_HEAD - 1));
    assigns \nothing;
    ensures (f->mode & 1) != 0 ==> \result;
    ensures (f->mode & 1) == 0 && f->vlans && tn_net_filter_tagged((uint8_t *)head) &&
      !tn_net_filter_vlan((struct tn_net_filter *)f, (head[14] * 256 + head[15]) % 4096) ==>
      !\result;
    ensures \result && (f->mode & 1) == 0 && head[0] % 2 == 0 ==> (f->mode & 16) == 0 &&
      ((f->mode & 68) != 0 || tn_net_filter_same((uint8_t *)&f->mac[0], (uint8_t *)head) ||
       tn_net_filter_listed((struct tn_net_filter *)f, 0, f->uni, (uint8_t *)head));
    ensures \result && (f->mode & 1) == 0 && tn_net_filter_all((uint8_t *)head) ==>
      (f->mode & 32) == 0;
    ensures \result && (f->mode & 1) == 0 && head[0] % 2 == 1 &&
      !tn_net_filter_all((uint8_t *)head) ==> (f->mode & 8) == 0 && ((f->mode & 130) != 0 ||
        tn_net_filter_listed((struct tn_net_filter *)f, f->uni, f->uni + f->multi,
                             (uint8_t *)head)); */
TN_API bool tn_net_filter_wants(const struct tn_net_filter *f,
                                const uint8_t head[TN_NET_FILTER_HEAD]);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

TN_API bool tn_net_filter_is_station(const uint8_t mac[6])
{
    return mac[0] % 2u == 0 && (mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5]) != 0;
}

TN_API bool tn_net_filter_is_tagged(const uint8_t head[TN_NET_FILTER_HEAD])
{
    return head[12] == 0x81 && head[13] == 0;
}

/*@ requires \valid(dst + (0 .. 5)) && \valid_read(mac + (0 .. 5));
    requires \separated(dst + (0 .. 5), mac + (0 .. 5));
    assigns dst[0 .. 5];
    ensures \forall integer i; 0 <= i < 6 ==> dst[i] == \old(mac[i]); */
static inline void tn_net_filter_copy_(uint8_t *dst, const uint8_t *mac)
{
    /*@ loop invariant 0 <= i <= 6 && \forall integer j; 0 <= j < i ==> dst[j] == \at(mac[j], Pre);
        loop assigns i, dst[0 .. 5];
        loop variant 6 - i; */
    for (unsigned i = 0; i < 6; i++)
        dst[i] = mac[i];
}

TN_API int tn_net_filter_set_mac(struct tn_net_filter *f, const uint8_t mac[6])
{
    if (!tn_net_filter_is_station(mac))
        return TN_EINVAL;
    tn_net_filter_copy_(f->mac, mac);
    return TN_OK;
}

TN_API int tn_net_filter_init(struct tn_net_filter *f, const uint8_t mac[6])
{
    __builtin_memset(f, 0, sizeof(*f));
    f->mode = TN_NET_FILTER_PROMISC;
    return tn_net_filter_set_mac(f, mac);
}

TN_API int tn_net_filter_set_mode(struct tn_net_filter *f, uint32_t mode, bool on)
{
    if (mode > TN_NET_FILTER_MODES)
        return TN_EINVAL;
    f->mode = (uint8_t)(on ? f->mode | mode : f->mode & ~mode);
    return TN_OK;
}

TN_API void tn_net_filter_set_tables(struct tn_net_filter *f, const uint8_t *uni, uint32_t unis,
                                     const uint8_t *multi, uint32_t multis)
{
    static const uint8_t none[6] = {0};
    uint32_t first = unis <= TN_NET_FILTER_MACS ? unis : 0;
    uint32_t end = multis <= TN_NET_FILTER_MACS - first ? first + multis : first;

    /*@ loop invariant 0 <= i <= TN_NET_FILTER_MACS;
        loop assigns i, f->table[0 .. TN_NET_FILTER_MACS - 1][0 .. 5];
        loop variant TN_NET_FILTER_MACS - i; */
    for (uint32_t i = 0; i < TN_NET_FILTER_MACS; i++)
        tn_net_filter_copy_(f->table[i], i < first ? uni + 6 * i
                                         : i < end ? multi + 6 * (i - first)
                                                   : none);
    f->uni = (uint8_t)first;
    f->multi = (uint8_t)(end - first);
    f->mode =
        (uint8_t)(f->mode % TN_NET_FILTER_UNI_OVER + (f->uni == unis ? 0 : TN_NET_FILTER_UNI_OVER) +
                  (f->multi == multis ? 0 : TN_NET_FILTER_MULTI_OVER));
}

TN_API int tn_net_filter_set_vlan(struct tn_net_filter *f, uint32_t vid, bool on)
{
    uint8_t bit = (uint8_t)(0x80u >> (7u - vid % 8u));

    if (vid > 4095)
        return TN_EINVAL;
    f->vlan[vid / 8] = (uint8_t)(on ? f->vlan[vid / 8] | bit : f->vlan[vid / 8] & ~bit);
    return TN_OK;
}

/*@ requires \valid_read(a + (0 .. 5)) && \valid_read(b + (0 .. 5));
    assigns \nothing;
    ensures \result <==> tn_net_filter_same((uint8_t *)a, (uint8_t *)b); */
static inline bool tn_net_filter_same_(const uint8_t *a, const uint8_t *b)
{
    return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && a[4] == b[4] &&
           a[5] == b[5];
}

/* Whether table[from .. to - 1] has an address. */
/*@ requires \valid_read(f) && from <= to <= TN_NET_FILTER_MACS && \valid_read(mac + (0 .. 5));
    assigns \nothing;
    ensures \result <==>
      tn_net_filter_listed((struct tn_net_filter *)f, from, to, (uint8_t *)mac); */
static inline bool tn_net_filter_listed_(const struct tn_net_filter *f, uint32_t from, uint32_t to,
                                         const uint8_t *mac)
{
    /*@ loop invariant from <= i <= to &&
          !tn_net_filter_listed((struct tn_net_filter *)f, from, i, (uint8_t *)mac);
        loop assigns i;
        loop variant to - i; */
    for (uint32_t i = from; i < to; i++) {
        if (tn_net_filter_same_(f->table[i], mac))
            return true;
    }
    return false;
}

/* Whether frames of a VLAN pass; number 0 is a tag of priority alone. */
/*@ requires \valid_read(f) && vid < 4096;
    assigns \nothing;
    ensures \result <==> tn_net_filter_vlan((struct tn_net_filter *)f, vid); */
static inline bool tn_net_filter_vlan_(const struct tn_net_filter *f, uint32_t vid)
{
    return vid == 0 || (f->vlan[vid / 8u] >> vid % 8u) % 2 == 1;
}

TN_API bool tn_net_filter_wants(const struct tn_net_filter *f,
                                const uint8_t head[TN_NET_FILTER_HEAD])
{
    if ((f->mode & TN_NET_FILTER_PROMISC) != 0)
        return true;
    if (f->vlans && tn_net_filter_is_tagged(head) &&
        !tn_net_filter_vlan_(f, (head[14] * 256u + head[15]) % 4096u))
        return false;
    if (head[0] % 2u == 0)
        return (f->mode & TN_NET_FILTER_NOUNI) == 0 &&
               ((f->mode & (TN_NET_FILTER_ALLUNI | TN_NET_FILTER_UNI_OVER)) != 0 ||
                tn_net_filter_same_(f->mac, head) || tn_net_filter_listed_(f, 0, f->uni, head));
    if (head[0] == 0xff && head[1] == 0xff && head[2] == 0xff && head[3] == 0xff &&
        head[4] == 0xff && head[5] == 0xff)
        return (f->mode & TN_NET_FILTER_NOBCAST) == 0;
    return (f->mode & TN_NET_FILTER_NOMULTI) == 0 &&
           ((f->mode & (TN_NET_FILTER_ALLMULTI | TN_NET_FILTER_MULTI_OVER)) != 0 ||
            tn_net_filter_listed_(f, f->uni, (uint32_t)f->uni + f->multi, head));
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_NET_FILTER_H */
