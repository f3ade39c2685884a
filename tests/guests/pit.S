/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A timer's interrupts: the PIT at 200 Hz through the PIC, in real mode; sleeps in HLT between
 * ticks, and ends with the fifth.
 */
#include "guest.inc"

    .code16
    .globl _start
_start:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %ss
    movw $0x7000, %sp
    movw $(tick - _start), 4 * 0x20
    movw %cs, 4 * 0x20 + 2

    movb $0x11, %al /* ICW1: cascade, ICW4 follows */
    outb %al, $0x20
    movb $0x20, %al /* vectors from 0x20 */
    outb %al, $0x21
    movb $4, %al
    outb %al, $0x21
    movb $1, %al
    outb %al, $0x21
    movb $0xfe, %al /* IRQ 0 only */
    outb %al, $0x21

    movb $0x34, %al /* channel 0, both bytes, rate generator */
    outb %al, $0x43
    movw $5966, %ax
    outb %al, $0x40
    movb %ah, %al
    outb %al, $0x40

    xorw %bx, %bx
1:  sti
    hlt
    cmpw $5, %bx
    jb 1b
    cli
    movb %bl, %al
    finish

tick:
    pushw %ax
    incw %bx
    movb $0x20, %al
    outb %al, $0x20
    popw %ax
    iretw
