/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * hello: the smallest VMM. One page of memory, one vCPU in real mode, whose program writes "Hello"
 * to a port and halts.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "tn_kvm.h"
#include "tn_kvm_x86.h"
#include "tn_strerror.h"

static const uint8_t program[] = {
    0xbe, 0x0c, 0x10,                /*   mov $text, %si  */
    0xba, 0xe9, 0x00,                /*   mov $0xe9, %dx  */
    0xb9, 0x06, 0x00,                /*   mov $6, %cx     */
    0xf3, 0x6e,                      /*   rep outsb       */
    0xf4,                            /*   hlt             */
    'H',  'e',  'l',  'l', 'o', '\n' /* text:             */
};

int main(void)
{
    struct tn_kvm kvm;
    struct tn_kvm_vm vm;
    struct tn_kvm_vcpu vcpu;
    struct tn_kvm_exit e;
    struct kvm_sregs sregs;
    struct kvm_regs regs;
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int r;

    if (page == MAP_FAILED || (r = tn_kvm_open(&kvm, NULL)) < 0 ||
        (r = tn_kvm_vm_init(&kvm, &vm)) < 0 ||
        (r = tn_kvm_set_slot(&vm, 0, 0x1000, 4096, page, 0)) < 0 ||
        (r = tn_kvm_vcpu_init(&kvm, &vm, &vcpu, 0)) < 0 ||
        (r = tn_kvm_x86_get_sregs(&vcpu, &sregs)) < 0) {
        perror("hello: no virtual machine");
        return 1;
    }
    memcpy(page, program, sizeof(program));
    sregs.cs.base = sregs.cs.selector = 0;
    memset(&regs, 0, sizeof(regs));
    regs.rip = 0x1000;
    regs.rflags = 2;
    r = tn_kvm_x86_set_sregs(&vcpu, &sregs);
    if (r >= 0)
        r = tn_kvm_x86_set_regs(&vcpu, &regs);
    while (r >= 0 && (r = tn_kvm_run(&vcpu, &e)) >= 0 && e.kind == TN_KVM_EXIT_IO)
        fwrite(e.io.data, e.io.size, e.io.count, stdout);
    if (r < 0 || e.kind != TN_KVM_EXIT_HLT) {
        fprintf(stderr, "hello: %s\n", r < 0 ? tn_strerror(r) : "the guest did not halt");
        return 1;
    }
    tn_kvm_vcpu_close(&vcpu);
    tn_kvm_vm_close(&vm);
    tn_kvm_close(&kvm);
    return 0;
}
