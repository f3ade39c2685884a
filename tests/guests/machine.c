/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A bare-metal guest for whole machines: an ELF kernel for the 64-bit Linux boot protocol, one word
 * of whose command line says what to do. It prints the word first.
 *
 *   off, reset, kbd-reset, panic, triple   end the machine that way
 *   idle          halt for ever, with interrupts off
 *   spin          burn the CPU
 *   count         print numbers without end
 *   echo          print what is received, until 'q'; then off
 *   ram           print the end of RAM below 4 GiB and above; then off
 */
#include "polled.h"

#define E820_AT 0x2d0
#define E820_N  0x1e8

static void print_hex(uint64_t n)
{
    for (int shift = 60; shift >= 0; shift -= 4)
        put("0123456789abcdef"[n >> shift & 15]);
}

static int is(const char *word, const char *other)
{
    while (*word && *word == *other) {
        word++;
        other++;
    }
    return *word == *other;
}

static void echo(void)
{
    for (;;) {
        uint8_t c;

        while (!(inb(UART + 5) & 1))
            ;
        c = inb(UART);
        if (c == 'q')
            return;
        put((char)c);
    }
}

static void count(void)
{
    for (uint64_t n = 0;; n++) {
        print_hex(n);
        put('\n');
    }
}

static void ram(const uint8_t *zero_page)
{
    uint64_t low = 0, high = 0;

    for (unsigned i = 0; i < zero_page[E820_N]; i++) {
        const uint8_t *e = zero_page + E820_AT + 20 * i;
        uint64_t end = *(const volatile uint64_t *)e + *(const volatile uint64_t *)(e + 8);

        if (*(const volatile uint32_t *)(e + 16) != 1)
            continue;
        if (end <= 1ull << 32)
            low = end;
        else
            high = end;
    }
    print_hex(low);
    put(' ');
    print_hex(high);
    put('\n');
}

static void triple_fault(void)
{
    static const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) none = {0, 0};

    __asm__ volatile("lidt %0; ud2" : : "m"(none));
}

void machine(const uint8_t *zero_page);
void machine(const uint8_t *zero_page)
{
    const char *word = (const char *)(uintptr_t) * (const uint32_t *)(zero_page + CMDLINE);

    print(word);
    put('\n');
    if (is(word, "idle"))
        __asm__ volatile("1: cli; hlt; jmp 1b");
    if (is(word, "spin"))
        for (;;)
            ;
    if (is(word, "count"))
        count();
    if (is(word, "echo"))
        echo();
    if (is(word, "ram"))
        ram(zero_page);
    if (is(word, "triple"))
        triple_fault();
    if (is(word, "panic"))
        outb(0x505, 1);
    if (is(word, "reset"))
        outb(0x600, 1);
    if (is(word, "kbd-reset"))
        outb(0x64, 0xfe);
    power_off();
}

/* RSI is the zero page; the stack is the boot code's. */
__asm__(".globl _start\n_start: mov %rsi, %rdi\n call machine\n1: hlt\n jmp 1b\n");
