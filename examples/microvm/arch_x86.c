/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What there is to say on x86-64. */
#ifdef __x86_64__
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "arch.h"
#include "microvm.h"
#include "tn_strerror.h"

const char *const arch_boot[] = {"auto", "linux64", "pvh", "linux32", NULL}; /* tn_boot_x86_proto */

void arch_say_boot(const struct microvm *m)
{
    uint32_t proto = m->vm.board.boot.proto;

    if (m->args.boot == TN_BOOT_X86_AUTO && (m->args.say_boot || proto != TN_BOOT_X86_LINUX64))
        fprintf(stderr, "microvm: --boot auto: %s\n", arch_boot[proto]);
}

int arch_say_load(const struct microvm *m, int err)
{
    const struct tn_boot_x86_info *info = &m->vm.board.info;

    switch (info->stage) {
    case TN_BOOT_X86_AT_KERNEL:
    case TN_BOOT_X86_AT_PLACE:
        fprintf(stderr, "microvm: %s: %s (RAM is %" PRIu64 " MiB)\n", m->args.kernel,
                tn_strerror_loader(info->detail), m->args.memory >> 20);
        return EXIT_INPUT;
    case TN_BOOT_X86_AT_PROTO:
        fprintf(stderr, "microvm: %s: the image does not offer the protocol of --boot %s\n",
                m->args.kernel, arch_boot[m->args.boot]);
        return EXIT_INPUT;
    case TN_BOOT_X86_AT_CMDLINE:
        fprintf(stderr, "microvm: --cmdline: %zu bytes; the kernel takes fewer\n",
                strlen(m->args.cmdline));
        return EXIT_USAGE;
    case TN_BOOT_X86_AT_INITRD:
        fprintf(stderr,
                "microvm: %s: %zu bytes do not fit beside the kernel in %" PRIu64 " MiB of RAM\n",
                m->args.initrd, m->initrd.len, m->args.memory >> 20);
        return EXIT_INPUT;
    case TN_BOOT_X86_AT_FDT:
        if (err == TN_ERANGE)
            fprintf(stderr, "microvm: %s: %zu bytes; a device tree has %llu at most\n", m->args.dtb,
                    m->dtb.len, TN_BOOT_X86_FDT_SIZE - 16);
        else
            fprintf(stderr, "microvm: %s: %s\n", m->args.dtb,
                    err == TN_EFORMAT ? "no device tree blob, or not all of one"
                                      : "neither PVH nor a boot protocol before 2.09 can take it");
        return EXIT_INPUT;
    default:
        fprintf(stderr, "microvm: %s\n", tn_strerror(err));
        return EXIT_HOST;
    }
}

void arch_say_lack(const char *dir, const struct tn_vm_arch_lack *lack)
{
    static const char *const reg[] = {"EAX", "EBX", "ECX", "EDX"};

    fprintf(stderr, "microvm: %s: this host lacks ", dir);
    switch (lack->kind) {
    case TN_KVM_X86_LACK_VENDOR:
        fprintf(stderr,
                "the CPU: it is another maker's (CPUID leaf 0 EBX 0x%" PRIx64
                ", the snapshot's is 0x%" PRIx64 ")\n",
                lack->have, lack->want);
        break;
    case TN_KVM_X86_LACK_FEATURE:
        fprintf(stderr,
                "CPUID leaf 0x%" PRIx32 ", %" PRIu32 " %s bits 0x%" PRIx64
                ", which the snapshot was taken with\n",
                lack->function, lack->index, reg[lack->reg & 3], lack->want);
        break;
    case TN_KVM_X86_LACK_LIMIT:
        fprintf(stderr,
                "a CPUID leaf 0x%" PRIx32 " %s of %" PRIu64 ", which the snapshot was taken with; "
                "here it is %" PRIu64 "\n",
                lack->function, reg[lack->reg & 3], lack->want, lack->have);
        break;
    case TN_KVM_X86_LACK_XSAVE:
        fprintf(stderr,
                "XSAVE component %" PRIu32 " at offset %" PRIu64
                ", which the snapshot was taken with; here it is at %" PRIu64 "\n",
                lack->index, lack->want, lack->have);
        break;
    case TN_KVM_X86_LACK_MSR:
        fprintf(stderr, "MSR 0x%" PRIx32 ", which is 0x%" PRIx64 " in the snapshot\n", lack->msr,
                lack->want);
        break;
    default:
        fprintf(stderr,
                "a TSC of %" PRIu64 " kHz, which the snapshot was taken with; here it is %" PRIu64
                " kHz, and cannot be scaled\n",
                lack->want, lack->have);
        break;
    }
}

bool arch_say_kvm(const char *name, const struct tn_vm_arch_refused *refused, int sys)
{
    static const char *const part[] = {"nothing", "lengths", "segments", "registers",
                                       "XCRs",    "XSAVE",   "APIC",     "debug registers",
                                       "TSC",     "MSRs",    "events",   "activity"};
    uint32_t i = refused->part < sizeof(part) / sizeof(part[0]) ? refused->part : 0;

    if (refused->part == TN_KVM_X86_PART_NONE)
        return false;
    if (refused->part == TN_KVM_X86_PART_MSRS && sys == EINVAL)
        fprintf(stderr, "microvm: %sKVM refuses 0x%" PRIx64 " for MSR 0x%" PRIx32 "\n", name,
                refused->data, refused->msr);
    else
        fprintf(stderr, "microvm: %sKVM refuses the %s of a vCPU: %s\n", name, part[i],
                strerror(sys));
    return true;
}
#endif
