/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * hello: the smallest VMM. One page of memory and one vCPU, whose program writes "Hello" where
 * nothing but this program listens, and halts: on x86 to a port, in real mode; on arm64 to an
 * address without memory, and it asks to be switched off.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "tn_kvm.h"
#include "tn_kvm_arm64.h"
#include "tn_kvm_x86.h"
#include "tn_strerror.h"

#ifdef __x86_64__
#define PAGE 0x1000 /* its address, and its size */
#define HALT TN_KVM_EXIT_HLT

static const uint8_t program[] = {
    0xbe, 0x0c, 0x10,                /*   mov $text, %si  */
    0xba, 0xe9, 0x00,                /*   mov $0xe9, %dx  */
    0xb9, 0x06, 0x00,                /*   mov $6, %cx     */
    0xf3, 0x6e,                      /*   rep outsb       */
    0xf4,                            /*   hlt             */
    'H',  'e',  'l',  'l', 'o', '\n' /* text:             */
};

static int point_to_it(const struct tn_kvm_vm *vm, struct tn_kvm_vcpu *vcpu)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs;
    int r = tn_kvm_x86_get_sregs(vcpu, &sregs);

    (void)vm;
    sregs.cs.base = sregs.cs.selector = 0;
    memset(&regs, 0, sizeof(regs));
    regs.rip = PAGE;
    regs.rflags = 2;
    if (r >= 0)
        r = tn_kvm_x86_set_sregs(vcpu, &sregs);
    return r < 0 ? r : tn_kvm_x86_set_regs(vcpu, &regs);
}
#else
#define PAGE 0x10000 /* its address, and its size: the largest that a host has */
#define HALT TN_KVM_EXIT_SYSTEM_EVENT

static const uint32_t program[] = {
    0x10000121,             /*        adr  x1, text                 */
    0x52920002,             /*        mov  w2, #0x9000              */
    0x38401420,             /* again: ldrb w0, [x1], #1             */
    0x34000060,             /*        cbz  w0, off                  */
    0x39000040,             /*        strb w0, [x2]                 */
    0x17fffffd,             /*        b    again                    */
    0x52800100,             /* off:   movz w0, #8                   */
    0x72b08000,             /*        movk w0, #0x8400, lsl #16     */
    0xd4000002,             /*        hvc  #0: PSCI's SYSTEM_OFF    */
    0x6c6c6548, 0x00000a6f, /* text:  .asciz "Hello\n"              */
};

static int point_to_it(const struct tn_kvm_vm *vm, struct tn_kvm_vcpu *vcpu)
{
    static const struct tn_boot_arm64_cpu at = {PAGE, 0};
    int r = tn_kvm_arm64_vcpu_init(vm, vcpu, 1u << KVM_ARM_VCPU_PSCI_0_2);

    return r < 0 ? r : tn_kvm_arm64_set_boot(vcpu, &at);
}
#endif

int main(void)
{
    struct tn_kvm kvm;
    struct tn_kvm_vm vm;
    struct tn_kvm_vcpu vcpu;
    struct tn_kvm_exit e;
    void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int r;

    if (page == MAP_FAILED || (r = tn_kvm_open(&kvm, NULL)) < 0 ||
        (r = tn_kvm_vm_init(&kvm, &vm)) < 0 ||
        (r = tn_kvm_set_slot(&vm, 0, PAGE, PAGE, page, 0)) < 0 ||
        (r = tn_kvm_vcpu_init(&kvm, &vm, &vcpu, 0)) < 0 || (r = point_to_it(&vm, &vcpu)) < 0) {
        perror("hello: no virtual machine");
        return 1;
    }
    memcpy(page, program, sizeof(program));
    while ((r = tn_kvm_run(&vcpu, &e)) >= 0) {
        if (e.kind == TN_KVM_EXIT_IO)
            fwrite(e.io.data, e.io.size, e.io.count, stdout);
        else if (e.kind == TN_KVM_EXIT_MMIO)
            fwrite(e.mmio.data, e.mmio.len, 1, stdout);
        else
            break;
    }
    if (r < 0 || e.kind != HALT) {
        fprintf(stderr, "hello: %s\n", r < 0 ? tn_strerror(r) : "the guest did not halt");
        return 1;
    }
    tn_kvm_vcpu_close(&vcpu);
    tn_kvm_vm_close(&vm);
    tn_kvm_close(&kvm);
    return 0;
}
