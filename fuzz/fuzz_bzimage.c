/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_loader's bzImage side. Input: a byte, the ranges, then (byte even) a script that makes a valid
 * setup header of any protocol and corrupts a few numbers in it, or (odd) a whole file.
 */
#include "loader.h"

enum { LEN = 0x3000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t image[LEN] = {0}, how, log2;
    uint64_t sects, setup;
    struct ranges r;
    struct fz z;

    fz_init(&z, data, size);
    how = fz_u8(&z);
    loader_ranges(&z, &r);
    if (how % 2) {
        loader_properties(z.data, z.left, &r);
        return 0;
    }
    sects = fz_range(&z, 0, 8);
    setup = ((sects ? sects : 4) + 1) * 512;
    log2 = (uint8_t)fz_range(&z, 12, 24);
    image[0x1f1] = (uint8_t)sects;
    tn_put_(image + 0x1f4, 4, fz_range(&z, 0x21, (LEN - setup) / 16));
    tn_put_(image + 0x1fe, 2, 0xaa55);
    image[0x200] = 0xeb;
    image[0x201] = (uint8_t)fz_range(&z, 0x62, 0x7f);
    memcpy(image + 0x202, "HdrS", 4);
    tn_put_(image + 0x206, 2, how / 64 % 2 ? fz_range(&z, 0x0200, 0x0210) : 0x20c);
    tn_put_(image + 0x214, 4, how / 128 ? fz_u32(&z) : 0x100000);
    image[0x211] = 1;
    tn_put_(image + 0x22c, 4, how / 2 % 2 ? 0x7fffffff : fz_u32(&z));
    tn_put_(image + 0x230, 4, 1u << log2);
    image[0x234] = how / 4 % 4 != 0;
    image[0x235] = log2;
    tn_put_(image + 0x236, 2, how == 0xfe ? 0 : 1 + (how / 16 % 2u) * 2);
    tn_put_(image + 0x238, 4, 2047);
    tn_put_(image + 0x258, 8, fz_range(&z, 0, 0x100) << log2);
    tn_put_(image + 0x260, 4, (uint64_t)fz_u16(&z) << 8);
    if (how / 32 % 2) { /* the fields that matter are few: corrupt them more often than others */
        loader_corrupt(&z, image + 0x1f0, 0x80);
    } else {
        loader_corrupt(&z, image, 0x280);
    }
    loader_properties(image, fz_u8(&z) ? LEN : fz_range(&z, 0, LEN), &r);
    return 0;
}
