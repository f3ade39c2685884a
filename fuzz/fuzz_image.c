/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_loader's Image side, and what it names but does not load. Input: a byte, the ranges, then
 * (byte even) a script that makes the header of an arm64 or riscv64 Image, or of an EFI zboot one,
 * and corrupts a few numbers in it, or (odd) a whole file.
 */
#include "loader.h"

enum { LEN = 0x400 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char zboot[][8] = {"gzip", "lzma", "xzkern", "lzo", "lz4", "zstd22", "zip"};
    uint8_t image[LEN] = {0}, how;
    struct ranges r;
    struct fz z;

    fz_init(&z, data, size);
    how = fz_u8(&z);
    loader_ranges(&z, &r);
    if (how % 2) {
        loader_properties(z.data, z.left, &r);
        return 0;
    }
    memcpy(image, "MZ", 2);
    tn_put_(image + 8, 8, fz_range(&z, 0, 8) << 21);                      /* text_offset */
    tn_put_(image + 16, 8, how / 8 % 2 ? 0 : (uint64_t)fz_u16(&z) << 12); /* image_size */
    tn_put_(image + 24, 8, fz_u8(&z) & 0xeu);                             /* flags */
    if (how / 2 % 2) {
        tn_put_(image + 32, 4, 2 + how / 16 % 2); /* version */
        memcpy(image + 56, "RSC\x05", 4);
    } else {
        memcpy(image + 56, "ARM\x64", 4);
    }
    if (how / 4 % 8 == 7) {
        memcpy(image + 4, "zimg", 4);
        memcpy(image + 24, zboot[fz_u8(&z) % 7], 8);
    }
    loader_corrupt(&z, image, 64);
    loader_properties(image, fz_u8(&z) ? LEN : fz_range(&z, 0, LEN), &r);
    return 0;
}
