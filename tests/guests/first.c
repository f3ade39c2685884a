/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The shortest way to a guest's first byte, for any VMM that boots by PVH: prints '!' on the serial
 * port, then halts for ever.
 */
__asm__(".section .note.Xen, \"a\", @note\n"
        ".align 4\n"
        ".long 4, 4, 18\n" /* XEN_ELFNOTE_PHYS32_ENTRY */
        ".asciz \"Xen\"\n"
        ".long _start\n"
        ".text\n"
        ".code32\n"
        ".globl _start\n"
        "_start: mov $0x3f8, %dx\n"
        "mov $'!', %al\n"
        "out %al, (%dx)\n"
        "1: cli\n"
        "hlt\n"
        "jmp 1b\n");
