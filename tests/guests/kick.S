/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Writes that a test may take by ioeventfds: a byte to port 0x500; words 1 and 2 to port 0x502;
 * double words 7 and 8 to MMIO + 0x50; one to MMIO + 0x60 as byte,
 * word and double word.
 */
#include "guest.inc"

    .globl _start
_start:
    enter64
    movw $0x500, %dx
    movb $9, %al
    outb %al, %dx
    movw $0x502, %dx
    movw $1, %ax
    outw %ax, %dx
    movw $2, %ax
    outw %ax, %dx
    movl $MMIO, %ebx
    movl $7, 0x50(%rbx)
    movl $8, 0x50(%rbx)
    movb $1, 0x60(%rbx)
    movw $1, 0x60(%rbx)
    movl $1, 0x60(%rbx)
    movb $1, %al
    finish
    tables64
