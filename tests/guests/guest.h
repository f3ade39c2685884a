/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the tiny guests share. Each is loaded at GUEST_BASE and entered there in real mode, with CS
 * 0x1000:0, interrupts off; it has RAM from 0 to 1 MiB, uses general registers only, and ends by a
 * byte to PORT_EXIT. After that byte it spins in HLT.
 */
#ifndef TENON_GUEST_H
#define TENON_GUEST_H

#define GUEST_BASE 0x10000
#define PORT_EXIT  0xf4 /* the last byte: a result */
#define PORT_READY 0xe8 /* a byte: the guest is set up, and waits */
#define PORT_EVENT 0xe9 /* a byte: something came */

#define MMIO   0xd0000000 /* no slot is here */
#define LAPIC  0xfee00000
#define IOAPIC 0xfec00000
#define STACK  0x90000
#define IDT    0x80000
#define CODE32 0x08
#define DATA   0x10
#define CODE64 0x18

#ifdef __ASSEMBLER__

.macro finish outb % al,
    $PORT_EXIT 9 : hlt jmp 9b
                       .endm

                       /* From real mode to flat 32-bit protected mode. */
                       .macro enter32.code16 cli lgdtl %
        cs : (guest_gdt_ptr - _start) movl % cr0,
    % eax orb $1, % al movl % eax, % cr0 ljmpl $CODE32, $8f.code32 8 : movw $DATA, % ax movw % ax,
    % ds movw % ax, % es movw % ax, % ss movl $STACK,
    %
        esp.endm

            /* On to 64-bit mode, the low 4 GiB mapped one to one. */
            .macro enter64 enter32 movl
        % cr4,
    % eax orl $0x20, %
                         eax /* PAE */
                         movl
                         % eax,
    % cr4 movl $guest_pml4, % eax movl % eax, % cr3 movl $0xc0000080, % ecx /* EFER.LME */
                                                                          rdmsr orl $0x100,
    % eax wrmsr movl % cr0, % eax orl $0x80000000, % eax movl % eax, % cr0 ljmpl $CODE64,
    $7f.code64 7
    :.endm

         /* Enables the local APIC; 32-bit mode. */
         .macro lapic_on movl $0x1ff,
    LAPIC +
        0xf0.endm

            /* Data that enter32 needs, and what enter64 needs on top: at the end of the guest. */
            .macro tables32.balign 8 guest_gdt
    :.quad 0.quad 0x00cf9b000000ffff.quad 0x00cf93000000ffff.quad 0x00af9b000000ffff guest_gdt_ptr
    :.word 31.long guest_gdt
            .endm

            .macro tables64 tables32.balign 4096 guest_pml4 :.quad guest_pdpt
        + 3.zero 4088 guest_pdpt :.quad guest_pd + 3,
    guest_pd + 0x1003, guest_pd + 0x2003, guest_pd + 0x3003.zero 4064 guest_pd :.set guest_page,
    0x83.rept 2048.quad guest_page.set guest_page,
    guest_page +
        0x200000.endr
            .endm

            /* A gate for vector in the IDT (32-bit), and the IDT itself; eax, ebx are lost. */
            .macro gate vector,
    handler movl $\handler, % eax movw % ax, IDT + 8 * \vector movw $CODE32,
    IDT + 8 * \vector + 2 movw $0x8e00, IDT + 8 * \vector + 4 shrl $16, % eax movw % ax,
    IDT + 8 * \vector +
        6.endm

            /* IRET, in 32-bit mode, but for the flags: KVM's emulator has none there. Whoever was
     * interrupted turns interrupts on again. */
            .macro from_interrupt lretl $4
            .endm

            .macro load_idt pushl $IDT pushw $0x7ff lidtl(% esp) addl $6,
    % esp.endm

#endif
#endif
