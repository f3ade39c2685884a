/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What every bare-metal guest in C has: ports, the local APIC, and where things are. */
#ifndef TENON_GUESTS_PORTS_H
#define TENON_GUESTS_PORTS_H

#include <stdint.h>

#define UART    0x3f8
#define CMDLINE 0x228 /* of the zero page: the command line's address */

static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void lapic(uint32_t reg, uint32_t value)
{
    *(volatile uint32_t *)(0xfee00000ul + reg) = value;
}

/* Interrupts are off but in here: no wake-up between a look and the halt is lost. */
static inline void halt(void)
{
    __asm__ volatile("sti; hlt; cli" : : : "memory");
}

#endif
