/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Ports: OUT and IN of 1, 2, 4 bytes with the port in DX and in the instruction; what IN gave is
 * written back to the next port up by 0x100; then string instructions of all widths.
 */
#include "guest.inc"

    .code16
    .globl _start
_start:
    movw %cs, %ax
    movw %ax, %ds
    movw %ax, %es
    cld

    movb $0x11, %al
    outb %al, $0x70
    movw $0x2222, %ax
    outw %ax, $0x72
    movl $0x44444444, %eax
    outl %eax, $0x74
    movw $0x1234, %dx
    movb $0x5a, %al
    outb %al, %dx
    movw $0xffff, %dx
    outb %al, %dx
    movw $0x1236, %dx
    movw $0xa55a, %ax
    outw %ax, %dx
    movw $0x1238, %dx
    movl $0xdeadbeef, %eax
    outl %eax, %dx

    xorl %eax, %eax
    movw $0x300, %dx
    inb %dx, %al
    incb %dh
    outb %al, %dx
    movw $0x302, %dx
    inw %dx, %ax
    incb %dh
    outw %ax, %dx
    movw $0x304, %dx
    inl %dx, %eax
    incb %dh
    outl %eax, %dx

    movw $0x500, %dx
    movw $(bytes - _start), %si
    movw $13, %cx
    rep outsb
    movw $0x502, %dx
    movw $(bytes - _start), %si
    movw $5, %cx
    rep outsw
    movw $0x504, %dx
    movw $(bytes - _start), %si
    movw $3, %cx
    rep outsl

    movw $0x600, %dx
    movw $(room - _start), %di
    movw $7, %cx
    rep insb
    movw $0x602, %dx
    movw $(room - _start + 8), %di
    movw $6, %cx
    rep insw
    movw $0x604, %dx
    movw $(room - _start + 20), %di
    movw $5, %cx
    rep insl
    movw $0x700, %dx
    movw $(room - _start), %si
    movw $40, %cx
    rep outsb

    movb $1, %al
    finish

bytes:
    .ascii "0123456789abcdef"
room:
    .zero 40
