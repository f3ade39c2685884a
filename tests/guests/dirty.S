/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Writes one byte to each of some pages from 1 MiB on, reports on PORT_EVENT, writes to others,
 * reports again, and so on: pages 0, 3, 64, 127; then 5; then none; then ends.
 */
#include "guest.inc"

    .globl _start
_start:
    enter32
    movl $0x100000, %ebx
    movb $1, (%ebx)
    movb $1, 0x3fff(%ebx)
    movb $1, 0x40000(%ebx)
    movb $1, 0x7f800(%ebx)
    outb %al, $PORT_EVENT
    movb $1, 0x5123(%ebx)
    outb %al, $PORT_EVENT
    movb 0x9000(%ebx), %al
    movb $1, %al
    finish
    tables32
