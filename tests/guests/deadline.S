/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A timer's interrupts: the local APIC's timer in TSC deadline mode, each deadline 5 million cycles
 * ahead; ends with the fifth.
 */
#include "guest.inc"

    .globl _start
_start:
    enter32
    gate 0x40, tick
    load_idt
    lapic_on
    xorl %ebx, %ebx
    movl $0x40040, LAPIC + 0x320 /* TSC deadline, vector 0x40 */
1:  rdtsc
    addl $5000000, %eax
    adcl $0, %edx
    movl $0x6e0, %ecx
    wrmsr
    leal 1(%ebx), %esi
2:  sti
    hlt
    cmpl %esi, %ebx
    jb 2b
    cli
    cmpl $5, %ebx
    jb 1b
    movb %bl, %al
    finish

tick:
    incl %ebx
    movl $0, LAPIC + 0xb0
    from_interrupt
    tables32
