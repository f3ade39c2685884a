/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What microvm says in terms of its architecture: arch_x86.c or arch_arm64.c has it. */
#ifndef MICROVM_ARCH_H
#define MICROVM_ARCH_H

#include "tn_vm_arch.h"

struct microvm;

/* Of --help, and of what is wrong with an option. */
#ifdef __x86_64__
#define ARCH_HELP_KERNEL "an uncompressed vmlinux (ELF) or a bzImage (vmlinuz)"
#define ARCH_RAM         "16M to 1T, a multiple of 4K"
#define ARCH_CPUS        "1 to 254"
#define ARCH_CPUS_WHY    ": APIC ids have eight bits, 255 is all of them, and one is the I/O APIC's"
#define ARCH_HELP_BOOT                                                         \
    "linux64, pvh, linux32, or auto: the first of these that the image has,\n" \
    "                    and says which; default: auto, says it if it is not linux64\n"
#define ARCH_BOOT     "auto, linux64, pvh or linux32"
#define ARCH_HELP_DTB "  --dtb FILE        a device tree blob, for a kernel that is built with OF\n"
#else
#define ARCH_HELP_KERNEL "an Image, as an unpacked vmlinuz is"
#define ARCH_RAM         "16M to 1023G, a multiple of 64K"
#define ARCH_CPUS        "1 to 512"
#define ARCH_CPUS_WHY    ", 8 where the host has a GICv2 only"
#define ARCH_HELP_BOOT   "linux, with a device tree, or auto, which is the same\n"
#define ARCH_BOOT        "auto or linux"
#define ARCH_HELP_DTB    ""
#endif

/* --boot's words, NULL after the last; the number of each is tn_vm_cfg.boot. */
extern const char *const arch_boot[];

/* Which boot protocol --boot auto has picked, where that is worth a line. */
void arch_say_boot(const struct microvm *m);

/* Why kernel, initrd or command line were refused: what, and the limit; the code to exit with. */
int arch_say_load(const struct microvm *m, int err);

/* What this host has not got that the CPUs of the snapshot in dir have. */
void arch_say_lack(const char *dir, const struct tn_vm_arch_lack *lack);

/* The part of a state that KVM did not take, whether there is one; name says whose. */
bool arch_say_kvm(const char *name, const struct tn_vm_arch_refused *refused, int sys);

#endif
