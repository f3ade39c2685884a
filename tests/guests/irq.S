/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Interrupts from outside: vectors 0x30 to 0x3f each tell their number on PORT_EVENT, then end the
 * interrupt. Pin 5 of the I/O APIC is vector 0x35, level-triggered; pin 6 is 0x36, edge. Says so on
 * PORT_READY and sleeps; vector 0x3f ends it.
 */
#include "guest.inc"

    .globl _start
_start:
    enter32
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    gate (0x30 + \n), (stubs + 8 * \n)
    .endr
    load_idt
    lapic_on
    movl $0x10000, LAPIC + 0x350 /* LINT0: the PICs are not listened to */
    movl $0x1a, IOAPIC /* redirection 5: high word first */
    movl $0x8035, %eax
    call route
    movl $0x1c, IOAPIC
    movl $0x36, %eax
    call route
    movb $1, %al
    outb %al, $PORT_READY
1:  sti
    hlt
    jmp 1b

    /* The low word of the entry that the selector names, with the high word zero. */
route:
    movl IOAPIC, %edx
    incl %edx
    movl %edx, IOAPIC
    movl $0, IOAPIC + 0x10
    decl %edx
    movl %edx, IOAPIC
    movl %eax, IOAPIC + 0x10
    ret

    .balign 8
stubs:
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .balign 8
    pushl $(0x30 + \n)
    jmp common
    .endr
common:
    xchgl %eax, (%esp)
    outb %al, $PORT_EVENT
    movl $0, LAPIC + 0xb0
    cmpb $0x3f, %al
    jne 2f
    finish
2:  popl %eax
    from_interrupt
    tables32
