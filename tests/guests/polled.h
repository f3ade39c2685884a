/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A guest's console without interrupts, and how it ends. */
#ifndef TENON_GUESTS_POLLED_H
#define TENON_GUESTS_POLLED_H

#include "ports.h"

static inline void put(char c)
{
    while (!(inb(UART + 5) & 0x20))
        ;
    outb(UART, (uint8_t)c);
}

static inline void print(const char *s)
{
    while (*s)
        put(*s++);
}

static inline void number(uint64_t n)
{
    char text[24];
    int i = 23;

    text[i] = 0;
    do
        text[--i] = (char)('0' + n % 10);
    while (n /= 10);
    print(text + i);
}

static inline void power_off(void)
{
    outb(0x601, 5 << 2 | 1 << 5); /* SLP_TYP 5, SLP_EN */
}

/* "bad" and a line number: something is not as it must be. */
static inline void check(int ok, uint64_t line)
{
    if (ok)
        return;
    print("bad ");
    number(line);
    put('\n');
    power_off();
}
#define CHECK(ok) check((ok) != 0, __LINE__)

#endif
