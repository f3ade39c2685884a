/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * MMIO: writes and reads of 1, 2, 4, 8 bytes; what a read gave is written 0x100 further up; writes
 * and reads across the border of two pages, which KVM hands out in two parts; a string move; and a
 * write to memory that the test made read-only, at 0xa0000.
 */
#include "guest.inc"

    .globl _start
_start:
    enter64
    movl $MMIO, %ebx
    movb $0x11, (%rbx)
    movw $0x2222, 2(%rbx)
    movl $0x44444444, 4(%rbx)
    movq $0x1122334455667788, %rax
    movq %rax, 8(%rbx)

    movb 0x200(%rbx), %al
    movb %al, 0x300(%rbx)
    movw 0x202(%rbx), %ax
    movw %ax, 0x302(%rbx)
    movl 0x204(%rbx), %eax
    movl %eax, 0x304(%rbx)
    movq 0x208(%rbx), %rax
    movq %rax, 0x308(%rbx)

    movl $0x33221100, 0xffd(%rbx)
    movl 0x1ffe(%rbx), %eax
    movl %eax, 0x400(%rbx)
    movq 0x2ff9(%rbx), %rax
    movq %rax, 0x408(%rbx)

    leaq text(%rip), %rsi
    leaq 0x500(%rbx), %rdi
    movl $4, %ecx
    cld
    rep movsb

    movb $0x77, 0xa0000
    movb 0xa0000, %al
    finish

text:
    .ascii "word"
    tables64
