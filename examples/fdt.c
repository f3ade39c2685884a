/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Prints the device tree of a machine as microvm has it, a blob for dtc or for microvm --dtb.
 * Usage: fdt arm64|riscv64|x86 [CPUS [MEMORY-MIB [VIRTIO-DEVICES [BOOTARGS]]]] > FILE
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tn_fdt.h"
#include "tn_strerror.h"

static struct tn_fdt_range ram[2];

static void x86(struct tn_fdt_cfg *cfg, uint64_t memory)
{
    const uint64_t hole = 0xc0000000;

    cfg->machine = TN_FDT_X86;
    ram[0].size = memory < hole ? memory : hole;
    if (memory > hole) {
        ram[1].gpa = 0x100000000;
        ram[1].size = memory - hole;
        cfg->nram = 2;
    }
    cfg->chip[0] = (struct tn_fdt_range){0xfec00000, 0x1000}; /* I/O APIC */
    cfg->chip[1] = (struct tn_fdt_range){0xfee00000, 0x1000}; /* local APIC */
    cfg->uart = (struct tn_fdt_dev){0x3f8, 8, 4};
    cfg->virtio_first = (struct tn_fdt_dev){0xd0000000, 0x1000, 16};
    cfg->virtio_irqs = 8;
}

static void arm64(struct tn_fdt_cfg *cfg, uint64_t memory)
{
    cfg->machine = TN_FDT_ARM64;
    ram[0] = (struct tn_fdt_range){0x40000000, memory};
    cfg->gic = 3;
    cfg->chip[0] = (struct tn_fdt_range){0x8000000, 0x10000};
    cfg->chip[1] = (struct tn_fdt_range){0x8100000, 0x20000ull * cfg->cpus};
    cfg->uart = (struct tn_fdt_dev){0x10000000, 8, 0};
    cfg->rtc = (struct tn_fdt_dev){0x10001000, 0x1000, 1};
    cfg->gpio = (struct tn_fdt_dev){0x10002000, 0x1000, 2};
    cfg->genid = (struct tn_fdt_dev){0x401f0000, 0x10000, 3};
    cfg->virtio_first = (struct tn_fdt_dev){0x10010000, 0x1000, 16};
    cfg->virtio_irqs = 48;
}

/* There is no such machine yet, but guests of other hypervisors find their way about it. */
static void riscv64(struct tn_fdt_cfg *cfg, uint64_t memory)
{
    cfg->machine = TN_FDT_RISCV64;
    ram[0] = (struct tn_fdt_range){0x80000000, memory};
    cfg->chip[0] = (struct tn_fdt_range){0xc000000, 0x4000000}; /* PLIC */
    cfg->uart = (struct tn_fdt_dev){0x10000000, 8, 10};
    cfg->virtio_first = (struct tn_fdt_dev){0x10010000, 0x1000, 16};
    cfg->virtio_irqs = 48;
    cfg->timebase = 10000000;
    cfg->isa = "rv64imafdc";
}

int main(int argc, char **argv)
{
    static uint8_t blob[TN_FDT_MAX] __attribute__((aligned(8)));
    struct tn_fdt_cfg cfg;
    uint64_t memory = argc > 3 ? strtoull(argv[3], NULL, 0) << 20 : 256ull << 20;
    int64_t len;

    memset(&cfg, 0, sizeof(cfg));
    cfg.cpus = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 0) : 1;
    cfg.ram = ram;
    cfg.nram = 1;
    cfg.virtio = argc > 4 ? (uint32_t)strtoul(argv[4], NULL, 0) : 0;
    cfg.virtio_stride = 0x1000;
    cfg.bootargs = argc > 5 ? argv[5] : NULL;
    if (argc > 1 && strcmp(argv[1], "x86") == 0) {
        x86(&cfg, memory);
    } else if (argc > 1 && strcmp(argv[1], "arm64") == 0) {
        arm64(&cfg, memory);
    } else if (argc > 1 && strcmp(argv[1], "riscv64") == 0) {
        riscv64(&cfg, memory);
    } else {
        fputs("usage: fdt arm64|riscv64|x86 [CPUS [MEMORY-MIB [VIRTIO-DEVICES [BOOTARGS]]]]\n",
              stderr);
        return 2;
    }
    len = tn_fdt_build(&cfg, blob, sizeof(blob));
    if (len < 0) {
        fprintf(stderr, "fdt: %s\n", tn_strerror((int)len));
        return 1;
    }
    return fwrite(blob, 1, (size_t)len, stdout) == (size_t)len && fflush(stdout) == 0 ? 0 : 1;
}
