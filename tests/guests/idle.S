/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Nothing to do: says so on PORT_READY, and sleeps for good with interrupts on.
 */
#include "guest.inc"

    .code16
    .globl _start
_start:
    movb $1, %al
    outb %al, $PORT_READY
1:  sti
    hlt
    jmp 1b
