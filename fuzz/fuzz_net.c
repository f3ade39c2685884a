/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Headers of frames, any bytes. Properties: the codec keeps them; a header that passes points to
 * nothing outside of its frame, opens no more than was allowed, and passes again as it is; one that
 * opens nothing always passes.
 */
#include "tn_net.h"

#include "fuzz.h"

static uint32_t open_by(const struct tn_net_hdr *h)
{
    uint32_t ecn = h->gso_type >= 0x80 ? TN_NET_ECN : 0;

    if ((h->flags & 1) == 0)
        return 0;
    switch (h->gso_type) {
    case 0:
        return TN_NET_CSUM;
    case 1:
    case 0x81:
        return TN_NET_CSUM | TN_NET_TSO4 | ecn;
    case 4:
    case 0x84:
        return TN_NET_CSUM | TN_NET_TSO6 | ecn;
    case 3:
        return TN_NET_CSUM | TN_NET_UFO;
    case 5:
        return TN_NET_CSUM | TN_NET_USO;
    default:
        return ~0u;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fz z;

    fz_init(&z, data, size);
    while (z.left > 0) {
        uint8_t wire[TN_NET_HDR] = {0}, out[TN_NET_HDR];
        uint32_t offloads = fz_u8(&z), len = fz_u16(&z), end;
        struct tn_net_hdr h, was, again;
        int r;

        if (offloads & 0x80)
            len += 18;
        fz_bytes(&z, wire, sizeof(wire));
        tn_net_hdr_get(&h, wire);
        tn_net_hdr_put(&h, out);
        FZ_ASSERT(memcmp(wire, out, sizeof(out)) == 0);
        was = h;
        r = tn_net_hdr_check(&h, offloads % 64, len);
        FZ_ASSERT(r == TN_OK || r == TN_EPROTO || r == TN_ERANGE);
        if (r != TN_OK) {
            FZ_ASSERT((was.flags & 1) != 0 || was.gso_type != 0);
            continue;
        }
        FZ_ASSERT((open_by(&h) & ~(offloads % 64)) == 0);
        FZ_ASSERT(h.flags == (was.flags & 3) && h.gso_type == was.gso_type && h.num_buffers == 0);
        end = (uint32_t)h.csum_start + h.csum_offset + 2;
        FZ_ASSERT((h.flags & 1) ? end <= len : end == 2);
        if (h.gso_type == 0)
            FZ_ASSERT(h.hdr_len == 0 && h.gso_size == 0);
        else
            FZ_ASSERT((h.flags & 1) && h.gso_size > 0 && h.csum_start < h.hdr_len &&
                      h.hdr_len <= len);
        again = h;
        FZ_ASSERT(tn_net_hdr_check(&again, offloads % 64, len) == TN_OK);
        FZ_ASSERT(memcmp(&again, &h, sizeof(h)) == 0);
    }
    return 0;
}
