/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Loads XMM7, tells on PORT_READY, and then tells XMM7 on PORT_EVENT in four parts, for good.
 */
#include "guest.inc"

    .code16
    .globl _start
_start:
    movw %cs, %ax
    movw %ax, %ds
    movl %cr4, %eax
    orl $0x200, %eax /* OSFXSR */
    movl %eax, %cr4
    movups (value - _start), %xmm7
    outb %al, $PORT_READY
1:  movups %xmm7, (copy - _start)
    movw $(copy - _start), %si
    movw $4, %cx
2:  lodsl
    outl %eax, $PORT_EVENT
    loop 2b
    jmp 1b

    .balign 16
value:
    .long 0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c
copy:
    .long 0, 0, 0, 0
