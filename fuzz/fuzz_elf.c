/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_loader's ELF side. Input: a byte, the ranges, then (byte even) a script that makes a valid
 * kernel of up to 24 segments and notes and corrupts a few numbers in it, or (odd) a whole file.
 */
#include "loader.h"

enum { LEN = 0x2000, NOTES = 0x800, BYTES = 0x1000 };

static size_t put_note(uint8_t *image, size_t at, struct fz *z)
{
    static const char names[][8] = {"Xen", "GNU", "Linux", "Xe", "Xen!"};
    uint8_t how = fz_u8(z);
    uint32_t namesz = how < 0x80 ? 4 : fz_u8(z) % 9, descsz = how % 8 < 6 ? how % 2 * 4 + 4 : how;
    uint32_t type = how % 4 == 3 ? fz_u8(z) : 18;

    tn_put_(image + at, 4, namesz);
    tn_put_(image + at + 4, 4, descsz);
    tn_put_(image + at + 8, 4, type);
    memcpy(image + at + 12, names[how % 5], 8);
    at += 12 + (namesz + 3) / 4 * 4;
    tn_put_(image + at, 8, how % 32 == 31 ? fz_u64(z) : 0x100000 + fz_u16(z));
    return at + (descsz + 3) / 4 * 4;
}

static void put_phdr(uint8_t *at, uint32_t type, uint64_t off, uint64_t paddr, uint64_t filesz,
                     uint64_t memsz)
{
    tn_put_(at, 4, type);
    tn_put_(at + 8, 8, off);
    tn_put_(at + 16, 8, 0xffffffff80000000ull + paddr);
    tn_put_(at + 24, 8, paddr);
    tn_put_(at + 32, 8, filesz);
    tn_put_(at + 40, 8, memsz);
    tn_put_(at + 48, 8, paddr % 16 == 0 ? 8 : 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t ident[] = {0x7f, 'E', 'L', 'F', 2, 1, 1};
    uint8_t image[LEN] = {0}, how;
    struct ranges r;
    struct fz z;
    uint64_t gpa = 0x100000;
    size_t end = NOTES;
    uint32_t n = 0, segs;

    fz_init(&z, data, size);
    how = fz_u8(&z);
    loader_ranges(&z, &r);
    if (how % 2) {
        loader_properties(z.data, z.left, &r);
        return 0;
    }
    memcpy(image, ident, sizeof(ident));
    tn_put_(image + 16, 2, 2 + how / 2 % 2);
    tn_put_(image + 18, 2, how == 0x40 ? 183 : how == 0x80 ? 243 : 62);
    tn_put_(image + 24, 8, how / 4 % 2 ? gpa : gpa + fz_u16(&z));
    tn_put_(image + 32, 8, 64);
    tn_put_(image + 54, 2, 56);
    for (uint8_t notes = fz_u8(&z) % 16; notes > 0 && end < BYTES - 300; notes--)
        end = put_note(image, end, &z);
    put_phdr(image + 64 + 56 * n++, 4, NOTES, 0, end - NOTES, end - NOTES);
    for (segs = 1 + fz_u8(&z) % (how / 8 % 2 ? 24 : 4); segs > 0; segs--) {
        uint64_t filesz = fz_range(&z, 0, LEN - BYTES), memsz = filesz + fz_u16(&z);
        uint64_t at = fz_range(&z, BYTES, LEN - filesz);
        uint32_t slot = n++;

        if (fz_u8(&z) % 4 == 0 && slot > 1) { /* out of order */
            memcpy(image + 64 + 56 * slot, image + 64 + 56 * (slot - 1), 56);
            slot--;
        }
        put_phdr(image + 64 + 56 * slot, 1, at, gpa, filesz, memsz);
        gpa += memsz + (uint64_t)fz_u8(&z) * 16;
    }
    tn_put_(image + 56, 2, n);
    loader_corrupt(&z, image, BYTES);
    loader_properties(image, fz_u8(&z) ? LEN : fz_range(&z, 0, LEN), &r);
    return 0;
}
