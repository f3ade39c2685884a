/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Busy for good: never exits by itself. Interrupts go on when a byte other than zero is read from
 * PORT_READY first.
 */
#include "guest.inc"

    .code16
    .globl _start
_start:
    inb $PORT_READY, %al
    testb %al, %al
    jz 1f
    sti
1:  jmp 1b
