/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_fdt. Input: a machine that is valid, of a few numbers, and edits of its fields: with few of
 * them most are still valid. Properties: the result is an error that fits, or a whole tree in the
 * room that there was; the same again; and one byte less is too little.
 */
#include "tn_fdt.h"

#include "fuzz.h"

static _Alignas(8) uint8_t tree[TN_FDT_MAX], again[TN_FDT_MAX];

/* A field takes a number that is near what it was, near a power of two, or any. */
static uint64_t number(struct fz *z, uint64_t was)
{
    uint8_t how = fz_u8(z);

    switch (how % 4) {
    case 0:
        return was + fz_u8(z) - 128;
    case 1:
        return (1ull << fz_u8(z) % 64) + (uint64_t)(how / 4 % 3) - 1;
    case 2:
        return fz_u16(z);
    default:
        return fz_u64(z);
    }
}

static void edit(struct fz *z, struct tn_fdt_cfg *cfg, struct tn_fdt_range *ram, uint64_t *reg)
{
    struct tn_fdt_dev *dev[] = {&cfg->uart, &cfg->rtc, &cfg->virtio_first, &cfg->gpio, &cfg->genid};
    uint8_t at = fz_u8(z);
    unsigned i = at / 16 % 4, d = at / 16 % 5;

    switch (at % 16) {
    case 0:
        cfg->machine = (uint32_t)number(z, cfg->machine);
        break;
    case 1:
        cfg->cpus = (uint32_t)(number(z, cfg->cpus) % (TN_FDT_MAX_CPUS + 2));
        break;
    case 2:
        reg[fz_u16(z) % TN_FDT_MAX_CPUS] = number(z, 0);
        cfg->cpu_reg = reg;
        break;
    case 3:
        ram[i].gpa = number(z, ram[i].gpa);
        break;
    case 4:
        ram[i].size = number(z, ram[i].size);
        break;
    case 5:
        cfg->gic = (uint32_t)number(z, cfg->gic);
        break;
    case 6:
        cfg->chip[i % 2].gpa = number(z, cfg->chip[i % 2].gpa);
        break;
    case 7:
        cfg->chip[i % 2].size = number(z, cfg->chip[i % 2].size);
        break;
    case 8:
        dev[d]->gpa = number(z, dev[d]->gpa);
        break;
    case 9:
        dev[d]->size = number(z, dev[d]->size);
        break;
    case 10:
        dev[d]->irq = (uint32_t)number(z, dev[d]->irq);
        break;
    case 11:
        cfg->virtio = (uint32_t)number(z, cfg->virtio);
        break;
    case 12:
        cfg->virtio_stride = number(z, cfg->virtio_stride);
        break;
    case 13:
        cfg->virtio_irqs = (uint32_t)number(z, cfg->virtio_irqs);
        break;
    case 14:
        if (i % 2)
            cfg->initrd_gpa = number(z, cfg->initrd_gpa);
        else
            cfg->initrd_len = number(z, cfg->initrd_len);
        break;
    default:
        if (i == 0)
            cfg->timebase = fz_u32(z);
        else if (i == 1)
            cfg->mmu = (uint32_t)number(z, cfg->mmu);
        else if (i == 2)
            cfg->kaslr_seed = fz_u64(z);
        else
            cfg->uart_clock = fz_u32(z);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t seed[TN_FDT_MAX_SEED];
    struct tn_fdt_range ram[4] = {{0x40000000, 0x10000000},
                                  {0x60000000, 0x10000000},
                                  {0x100000000, 0x40000000},
                                  {0x200000000, 0x1000}};
    uint64_t reg[TN_FDT_MAX_CPUS];
    char bootargs[300] = {0}, isa[64] = "rv64i";
    struct tn_fdt_cfg cfg = {0};
    int64_t n;
    struct fz z;

    fz_init(&z, data, size);
    for (uint32_t i = 0; i < TN_FDT_MAX_CPUS; i++)
        reg[i] = i;
    cfg.machine = 1 + fz_u8(&z) % 3;
    cfg.cpus = 1 + fz_u8(&z) % 8;
    cfg.ram = ram;
    cfg.nram = 1 + fz_u8(&z) % 4;
    cfg.gic = cfg.machine == TN_FDT_ARM64 ? 2 + fz_u8(&z) % 2 : 0;
    cfg.chip[0].gpa = 0x8000000;
    cfg.chip[0].size = 0x1000000;
    if (cfg.machine != TN_FDT_RISCV64) {
        cfg.chip[1].gpa = 0x10000000;
        cfg.chip[1].size = 0x4000000;
    }
    cfg.uart.gpa = cfg.machine == TN_FDT_X86 ? 0x3f8 : 0xa000000;
    cfg.uart.size = fz_u8(&z) % 2 ? 8 : 0;
    cfg.uart.irq = 1;
    if (cfg.machine == TN_FDT_ARM64) {
        uint8_t with = fz_u8(&z);

        cfg.rtc.gpa = 0xb000000;
        cfg.rtc.size = with & 1 ? 0x1000 : 0;
        cfg.rtc.irq = 2;
        cfg.gpio.gpa = 0xb001000;
        cfg.gpio.size = with & 2 ? 0x1000 : 0;
        cfg.gpio.irq = 3;
        cfg.genid.gpa = with & 4 ? 0x401f0000 : 0xb010000;
        cfg.genid.size = with & 8 ? 0x10000 : 0;
        cfg.genid.irq = 4;
    }
    cfg.virtio = fz_u8(&z) % 16;
    cfg.virtio_first.gpa = 0x20000000;
    cfg.virtio_first.size = 0x200;
    cfg.virtio_first.irq = 5;
    cfg.virtio_stride = 0x200;
    cfg.virtio_irqs = fz_u8(&z) % 20;
    if (cfg.machine == TN_FDT_RISCV64) {
        cfg.timebase = 10000000;
        cfg.isa = isa;
        fz_bytes(&z, isa + 5, fz_u8(&z) % 8);
    }
    if (fz_u8(&z) % 2) {
        cfg.bootargs = bootargs;
        fz_bytes(&z, bootargs, fz_u8(&z));
    }
    cfg.initrd_gpa = 0x48000000;
    cfg.initrd_len = fz_u16(&z);
    cfg.rng_seed = seed;
    cfg.rng_seed_len = fz_u16(&z) % (TN_FDT_MAX_SEED + 2);
    for (unsigned edits = fz_u8(&z) % 8; edits > 0; edits--)
        edit(&z, &cfg, ram, reg);

    n = tn_fdt_build(&cfg, tree, sizeof(tree));
    FZ_ASSERT(n == TN_EINVAL || (n > 0 && n <= TN_FDT_MAX));
    if (n > 0) {
        FZ_ASSERT(fdt_check_full(tree, (size_t)n) == 0 && fdt_totalsize(tree) == n);
        FZ_ASSERT(tn_fdt_build(&cfg, again, (size_t)n) == n && memcmp(tree, again, (size_t)n) == 0);
        FZ_ASSERT(tn_fdt_build(&cfg, again, (size_t)n - 1) == TN_ENOSPC);
    }
    return 0;
}
