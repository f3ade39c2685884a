/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A sequence: each number follows from the one before, half of which is in a register and half in
 * memory; each is told on PORT_EVENT, for good.
 */
#include "guest.inc"

    .code16
    .globl _start
_start:
    movl $1, %ebx
1:  movl %cs:(seed - _start), %eax
    imull $1664525, %eax, %eax
    addl %ebx, %eax
    rorl $7, %ebx
    xorl %eax, %ebx
    incl %ebx
    movw %cs, %dx
    movw %dx, %ds
    movl %eax, (seed - _start)
    outl %eax, $PORT_EVENT
    jmp 1b

    .balign 4
seed:
    .long 12345
