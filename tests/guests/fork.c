/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The machine that the fork benchmarks clone: an ELF kernel for the 64-bit Linux boot protocol. Its
 * command line is "fork D". It prints "ready", then for ever, with interrupts off: writes D pages
 * from PAGES on, prints '.', prints ','; writes the pages, prints ':', prints ';'. The port is
 * written without a look at its status: nothing lies between a clone's first instruction and its
 * first output but what the snapshot's place says. Stopped after '.' the next output comes at once,
 * and the one after it when the pages are written.
 *
 * What is at STOP, which the host may change while the machine stands still, makes it sleep for
 * good: 1 after ',', 2 after ':'.
 */
#include "ports.h"

#define STOP  0x3ff000ul
#define PAGES 0x400000ul
#define PAGE  4096u

static inline void stop_if(uint64_t n)
{
    while (*(volatile uint64_t *)STOP == n)
        __asm__ volatile("hlt");
}

static inline void write_pages(uint64_t pages, uint64_t n)
{
    for (uint64_t i = 0; i < pages; i++)
        *(volatile uint64_t *)(PAGES + i * PAGE) = n;
}

void fork_guest(const uint8_t *zero_page);
void fork_guest(const uint8_t *zero_page)
{
    const char *word = (const char *)(uintptr_t) * (const uint32_t *)(zero_page + CMDLINE);
    uint64_t pages = 0;

    while (*word && *word != ' ')
        word++;
    while (*word == ' ')
        word++;
    while (*word >= '0' && *word <= '9')
        pages = pages * 10 + (uint64_t)(*word++ - '0');
    for (const char *s = "ready\n"; *s; s++)
        outb(UART, (uint8_t)*s);
    *(volatile uint64_t *)STOP = 0;
    for (uint64_t n = 1;; n++) {
        write_pages(pages, n);
        outb(UART, '.');
        outb(UART, ',');
        stop_if(1);
        write_pages(pages, n);
        outb(UART, ':');
        stop_if(2);
        outb(UART, ';');
    }
}

/* RSI is the zero page; the stack is the boot code's. */
__asm__(".globl _start\n_start: mov %rsi, %rdi\n call fork_guest\n1: hlt\n jmp 1b\n");
