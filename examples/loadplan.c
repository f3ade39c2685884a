/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * loadplan FILE: what a kernel file would put where in a guest, where it starts and what it needs,
 * or which check refused it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tn_loader.h"
#include "tn_strerror.h"

static uint8_t *read_file(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    size_t room = 1u << 20;
    uint8_t *bytes = malloc(room);

    *len = 0;
    while (f && bytes) {
        uint8_t *more;

        *len += fread(bytes + *len, 1, room - *len, f);
        if (*len < room)
            break;
        room *= 2;
        more = realloc(bytes, room);
        if (!more)
            free(bytes);
        bytes = more;
    }
    if (!f || !bytes || ferror(f)) {
        perror(path);
        exit(2);
    }
    fclose(f);
    return bytes;
}

int main(int argc, char **argv)
{
    struct tn_loader_plan plan;
    uint8_t *image;
    size_t len;
    int err;

    if (argc != 2) {
        fprintf(stderr, "usage: loadplan FILE\n");
        return 2;
    }
    image = read_file(argv[1], &len);
    err = tn_loader_parse_for(image, len, TN_LOADER_EM_ANY, &plan);
    free(image);
    if (err < 0) {
        fprintf(stderr, "%s: %s: %s (check %u", argv[1], tn_errname(err),
                tn_strerror_loader(plan.detail), plan.detail);
        fprintf(stderr,
                plan.where == 0                       ? ")\n"
                : plan.detail >= TN_LOADER_ZBOOT_GZIP ? ", payload at %u)\n"
                                                      : ", program header %u)\n",
                plan.where);
        return 1;
    }

    printf("format    %s, for %s\n",
           plan.format == TN_LOADER_BZIMAGE ? "bzImage"
           : plan.format == TN_LOADER_IMAGE ? "Image"
                                            : "ELF64",
           plan.machine == TN_LOADER_EM_X86_64    ? "x86-64"
           : plan.machine == TN_LOADER_EM_AARCH64 ? "arm64"
                                                  : "riscv64");
    if (plan.boot_version)
        printf("protocol  %u.%02u, setup header %llu bytes at 0x%llx\n", plan.boot_version >> 8,
               plan.boot_version & 0xffu, (unsigned long long)plan.setup_len,
               (unsigned long long)plan.setup_off);
    for (uint32_t i = 0; i < plan.nsegs; i++)
        printf("segment   0x%09llx..0x%09llx  0x%08llx bytes from 0x%08llx\n",
               (unsigned long long)plan.seg[i].gpa,
               (unsigned long long)(plan.seg[i].gpa + plan.seg[i].mem_size - 1),
               (unsigned long long)plan.seg[i].file_size, (unsigned long long)plan.seg[i].file_off);
    if (plan.has_linux64)
        printf("entry     0x%llx, 64-bit Linux protocol\n", (unsigned long long)plan.linux64_entry);
    if (plan.has_linux32)
        printf("entry     0x%llx, 32-bit Linux protocol\n", (unsigned long long)plan.linux32_entry);
    if (plan.has_fdt)
        printf("entry     0x%llx, with a device tree\n", (unsigned long long)plan.fdt_entry);
    if (plan.has_pvh)
        printf("entry     0x%llx, PVH\n", (unsigned long long)plan.pvh_entry);
    printf("needs     0x%llx bytes from 0x%llx on\n", (unsigned long long)plan.init_size,
           (unsigned long long)plan.seg[0].gpa);
    if (plan.relocatable)
        printf("movable   upwards, by multiples of 0x%llx%s\n", (unsigned long long)plan.align,
               plan.above_4g ? ", above 4 GiB too" : "");
    printf("initrd    at or below 0x%llx\n", (unsigned long long)plan.initrd_max);
    printf("cmdline   at most %u characters\n", plan.cmdline_max);
    return 0;
}
