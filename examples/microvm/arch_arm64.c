/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What there is to say on arm64. */
#ifdef __aarch64__
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "arch.h"
#include "microvm.h"
#include "tn_strerror.h"

const char *const arch_boot[] = {"auto", "linux", NULL};

void arch_say_boot(const struct microvm *m)
{
    if (m->args.boot == 0 && m->args.say_boot)
        fprintf(stderr, "microvm: --boot auto: linux\n");
}

int arch_say_load(const struct microvm *m, int err)
{
    const struct tn_boot_arm64_info *info = &m->vm.board.info;

    switch (info->stage) {
    case TN_BOOT_ARM64_AT_KERNEL:
    case TN_BOOT_ARM64_AT_PLACE:
        fprintf(stderr, "microvm: %s: %s (RAM is %" PRIu64 " MiB)\n", m->args.kernel,
                tn_strerror_loader(info->detail), m->args.memory >> 20);
        return EXIT_INPUT;
    case TN_VM_ARM64_AT_CMDLINE:
        fprintf(stderr, "microvm: --cmdline: %zu bytes; the kernel takes %u\n",
                strlen(m->args.cmdline), TN_VM_ARM64_MAX_CMDLINE);
        return EXIT_USAGE;
    case TN_BOOT_ARM64_AT_INITRD:
        fprintf(stderr,
                "microvm: %s: %zu bytes do not fit beside the kernel in %" PRIu64 " MiB of RAM\n",
                m->args.initrd, m->initrd.len, m->args.memory >> 20);
        return EXIT_INPUT;
    default:
        fprintf(stderr, "microvm: %s\n", tn_strerror(err));
        return EXIT_HOST;
    }
}

void arch_say_lack(const char *dir, const struct tn_vm_arch_lack *lack)
{
    fprintf(stderr, "microvm: %s: this host lacks ", dir);
    switch (lack->kind) {
    case TN_KVM_ARM64_LACK_FEATURE:
        fprintf(stderr,
                "features of KVM_ARM_VCPU_INIT, bits 0x%" PRIx64
                ", which the snapshot was taken with\n",
                lack->want);
        break;
    case TN_KVM_ARM64_LACK_COUNTER:
        fprintf(stderr,
                "a counter of %" PRIu64 " Hz, which the snapshot was taken with; here it is "
                "%" PRIu64 " Hz\n",
                lack->want, lack->have);
        break;
    default:
        fprintf(stderr, "the register 0x%" PRIx64 ", which is 0x%" PRIx64 " in the snapshot\n",
                lack->id, lack->want);
        break;
    }
}

bool arch_say_kvm(const char *name, const struct tn_vm_arch_refused *refused, int sys)
{
    static const char *const part[] = {"nothing",  "lengths", "registers", "events",
                                       "activity", "time",    "GIC"};
    uint32_t i = refused->part < sizeof(part) / sizeof(part[0]) ? refused->part : 0;

    if (refused->part == TN_KVM_ARM64_PART_NONE)
        return false;
    if (refused->part == TN_KVM_ARM64_PART_REGS)
        fprintf(stderr, "microvm: %sKVM refuses 0x%" PRIx64 " for register 0x%" PRIx64 ": %s\n",
                name, refused->data, refused->id, strerror(sys));
    else
        fprintf(stderr, "microvm: %sKVM refuses the %s of a vCPU: %s\n", name, part[i],
                strerror(sys));
    return true;
}
#endif
