/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A triple fault: an undefined instruction, with an IDT that has no entry.
 */
#include "guest.inc"

    .globl _start
_start:
    enter32
    pushl $0
    pushw $0
    lidtl (%esp)
    ud2
    tables32
