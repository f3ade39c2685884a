/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Tells its time-stamp counter on PORT_EVENT, the lower half and then the upper one, for good.
 */
#include "guest.inc"

    .code16
    .globl _start
_start:
1:  rdtsc
    outl %eax, $PORT_EVENT
    movl %edx, %eax
    outl %eax, $PORT_EVENT
    jmp 1b
