/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The other CPUs: CPU 0 looks for the MP table in 0xf0000 to 0xfffff, starts every other enabled
 * processor in it by INIT and a start-up IPI, and waits for it. Each one tells its APIC's id on
 * PORT_EVENT and halts for good. The result is how many CPUs are up, 0xff without an MP table.
 */
#include "guest.inc"

    .code16
    .globl _start
_start:
    movw %cs, %ax
    movw %ax, %ds
    movw $1, %ax
    lock xaddw %ax, ticket - _start
    movw %ax, %bp /* 0: the first to come here */
    enter32
    testw %bp, %bp
    jz first

    lapic_on
    movl LAPIC + 0x20, %eax
    shrl $24, %eax
    outb %al, $PORT_EVENT
    lock incl online
1:  cli
    hlt
    jmp 1b

first:
    lapic_on
    movl $0xf0000, %esi
2:  cmpl $0x5f504d5f, (%esi) /* "_MP_" */
    je 3f
    addl $16, %esi
    cmpl $0x100000, %esi
    jb 2b
    movb $0xff, %al
    finish
3:  movl 4(%esi), %esi
    cmpl $0x504d4350, (%esi) /* "PCMP" */
    jne bad
    movzwl 34(%esi), %ecx /* entries; those of processors come first */
    addl $44, %esi
4:  testl %ecx, %ecx
    jz done
    cmpb $0, (%esi)
    jne done
    movb 3(%esi), %al
    andb $3, %al /* enabled, and not the boot processor */
    cmpb $1, %al
    jne 6f
    movl online, %edi
    movzbl 1(%esi), %eax
    shll $24, %eax
    movl %eax, LAPIC + 0x310
    movl $0x4500, LAPIC + 0x300
    movl %eax, LAPIC + 0x310
    movl $(0x4600 + (GUEST_BASE >> 12)), LAPIC + 0x300
5:  pause
    cmpl online, %edi
    je 5b
6:  addl $20, %esi
    decl %ecx
    jmp 4b
bad:
    movb $0xfe, %al
    finish
done:
    movb online, %al
    finish

    .balign 4
online:
    .long 1
ticket:
    .word 0
    tables32
