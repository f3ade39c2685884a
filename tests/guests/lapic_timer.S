/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A timer's interrupts without PIC or PIT: the local APIC's timer, periodic; ends with the fifth.
 */
#include "guest.inc"

    .globl _start
_start:
    enter32
    gate 0x40, tick
    load_idt
    lapic_on
    xorl %ebx, %ebx
    movl $0xb, LAPIC + 0x3e0     /* divide by 1 */
    movl $0x20040, LAPIC + 0x320 /* periodic, vector 0x40 */
    movl $5000000, LAPIC + 0x380
1:  sti
    hlt
    cmpl $5, %ebx
    jb 1b
    cli
    movb %bl, %al
    finish

tick:
    incl %ebx
    movl $0, LAPIC + 0xb0
    from_interrupt
    tables32
