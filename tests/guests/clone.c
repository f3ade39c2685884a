/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The machine that snapshots, restores and forks are tested with: an ELF kernel for the 64-bit
 * Linux boot protocol. What it prints depends on its command line and its input alone, never on
 * time: so it must be the same bytes however often the machine stood still on its way. A timer or
 * an interrupt that got lost is a hang; "bad" and a line number tell of anything else.
 *
 *   stream N [L]  N vCPUs (1 to 4) print L lines (1000) in turn: the line's number, the vCPU, 64
 *                 bits; then "done", and off. See "stream" below for what is under way meanwhile.
 *   echo          "ready"; then each line that is received, numbered: "1: text"; one that begins
 *                 with 'q' switches off
 *   dirty P       "ready"; then for each byte b that is received: writes P pages from PAGES on,
 *                 prints b and a checksum of the pages before and after; 'q' switches off
 *   pages         "ready"; then adds one to each of 64 pages for ever, and prints how often every
 *                 1000 rounds; for each byte b that is received prints "answer b" and how often;
 *                 "torn" and off when the pages do not agree; 'q' switches off
 *   wait          "ready"; then "X" for each byte that is received; 'q' switches off
 *
 * All output and input is by interrupt. P pages take 3 stores each: begin, middle, end.
 */
#include "ports.h"

#define PAGES  0x400000ul
#define PAGE   4096ul
#define LAPIC  0xfee00000ul
#define IOAPIC 0xfec00000ul
#define PIN    4u       /* the UART's, of the I/O APIC */
#define START  0x40000u /* where the other vCPUs begin, in real mode */
#define CPUS   4u
#define TICK   1000000u /* of the local APIC's timer: 1 ms in KVM */
#define PIT    2386u    /* of 1193182 Hz: 2 ms */

#define V_PIC   0x20u /* 16 of them */
#define V_TIMER 0x30u
#define V_UART  0x31u
#define V_TAKEN 0x32u /* vCPU 0 has taken a line */
#define V_STRAY 0x3fu
#define V_POST  0x40u /* + n: vCPU n has a line */
#define VECTORS 0x50u

static inline void eoi(void)
{
    lapic(0xb0, 0);
}

static inline void interrupts_off(void)
{
    __asm__ volatile("cli" : : : "memory");
}

static inline void interrupts_on(void)
{
    __asm__ volatile("sti" : : : "memory");
}

/* Sleeps until a condition holds that an interrupt makes true; no wake-up is lost in between. */
#define WAIT(condition)                                     \
    do {                                                    \
        interrupts_off();                                   \
        while (!(condition))                                \
            __asm__ volatile("sti; hlt; cli" ::: "memory"); \
        interrupts_on();                                    \
    } while (0)

/* ---- the vCPUs ---- */

static struct cpu {
    volatile uint64_t ticks;  /* of its local APIC's timer */
    volatile uint64_t posted; /* lines that it announced to vCPU 0, counted there */
    volatile uint64_t taken;  /* lines that vCPU 0 took, counted here */
    volatile uint64_t line;   /* the line's number */
    volatile uint64_t value;
    uint64_t state;
    volatile uint32_t up;
} __attribute__((aligned(64))) cpus[CPUS];
static uint8_t stacks[CPUS][8192] __attribute__((aligned(16)));
static uint64_t cpu_count, lines;
static int has_deadline;

static uint32_t self(void)
{
    return (*(volatile uint32_t *)(LAPIC + 0x20) >> 24) % CPUS;
}

static void ipi(uint32_t to, uint32_t what)
{
    lapic(0x310, to << 24);
    lapic(0x300, what);
}

/*
 * Prepares the next tick. Four at a time come of the periodic timer, then four by deadline, then
 * four one by one; each vCPU begins with another kind.
 */
static void arm(uint32_t n)
{
    uint64_t ticks = cpus[n].ticks + 4 * n;
    uint32_t kind = ticks / 4 % 3, low, high;

    if (kind == 0 && ticks % 4 != 0 && cpus[n].ticks != 0)
        return;
    if (kind == 1 && has_deadline) {
        lapic(0x320, 2u << 17 | V_TIMER);
        (void)*(volatile uint32_t *)(LAPIC + 0x320); /* the mode comes before the deadline */
        __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
        low += 2 * TICK;
        high += low < 2 * TICK;
        __asm__ volatile("wrmsr" : : "c"(0x6e0), "a"(low), "d"(high));
        return;
    }
    lapic(0x320, (kind == 0 ? 1u << 17 : 0) | V_TIMER);
    lapic(0x3e0, 0xb); /* divide by 1 */
    lapic(0x380, TICK);
}

static void wait_tick(uint32_t n)
{
    uint64_t before = cpus[n].ticks;

    WAIT(cpus[n].ticks != before);
}

/* ---- the UART ---- */

static uint8_t tx[256], rx[256];
static volatile uint8_t tx_head, tx_tail, rx_head, rx_tail; /* head is where the next byte goes */
static uint8_t ier = 1;                                     /* received data */

static void uart_interrupt(void)
{
    uint8_t why;

    while (!((why = inb(UART + 2)) & 1)) {
        switch (why & 0xe) {
        case 0x2: /* the FIFO is empty */
            for (uint32_t i = 0; i < 16 && tx_tail != tx_head; i++)
                outb(UART, tx[tx_tail++]);
            if (tx_tail == tx_head)
                outb(UART + 1, ier &= 0xfd);
            break;
        case 0x4:
        case 0xc:
            while (inb(UART + 5) & 1) {
                uint8_t c = inb(UART);

                if ((uint8_t)(rx_head + 1) != rx_tail)
                    rx[rx_head++] = c;
            }
            break;
        default:
            inb(UART + 5);
            inb(UART + 6);
            break;
        }
    }
}

static void put(char c)
{
    WAIT((uint8_t)(tx_head + 1) != tx_tail);
    interrupts_off();
    tx[tx_head++] = (uint8_t)c;
    if (!(ier & 2))
        outb(UART + 1, ier |= 2);
    interrupts_on();
}

static uint8_t get(void)
{
    WAIT(rx_tail != rx_head);
    return rx[rx_tail++];
}

static void print(const char *s)
{
    while (*s)
        put(*s++);
}

static void hex(uint64_t n, int digits)
{
    while (digits-- > 0)
        put("0123456789abcdef"[n >> 4 * digits & 15]);
}

static void number(uint64_t n)
{
    char text[24];
    int i = 23;

    text[i] = 0;
    do
        text[--i] = (char)('0' + n % 10);
    while (n /= 10);
    print(text + i);
}

static void power_off(void)
{
    WAIT(tx_head == tx_tail);
    while (!(inb(UART + 5) & 0x40))
        ;
    outb(0x601, 5 << 2 | 1 << 5); /* SLP_TYP 5, SLP_EN */
}

static void check(int ok, uint64_t line)
{
    if (ok)
        return;
    print("bad ");
    number(line);
    put('\n');
    power_off();
}
#define CHECK(ok) check((ok) != 0, __LINE__)

/* ---- interrupts ---- */

static volatile uint64_t pit_ticks;

static void on_timer(void)
{
    uint32_t n = self();

    cpus[n].ticks++;
    arm(n);
    eoi();
}

static void on_uart(void)
{
    uart_interrupt();
    eoi();
}

static void on_taken(void)
{
    cpus[self()].taken++;
    eoi();
}

static void on_post(uint32_t from)
{
    cpus[from].posted++;
    eoi();
}

static void on_pit(void)
{
    pit_ticks++;
    outb(0x20, 0x20);
}

struct frame;
#define HANDLER(name, call)                                           \
    __attribute__((interrupt)) static void do_##name(struct frame *f) \
    {                                                                 \
        (void)f;                                                      \
        call;                                                         \
    }
HANDLER(timer, on_timer())
HANDLER(uart, on_uart())
HANDLER(taken, on_taken())
HANDLER(post1, on_post(1))
HANDLER(post2, on_post(2))
HANDLER(post3, on_post(3))
HANDLER(pit, on_pit())
HANDLER(stray, (void)0)

static uint64_t idt[2 * VECTORS];
static struct {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed)) idt_at = {sizeof(idt) - 1, (uint64_t)idt};

static void gate(uint32_t vector, void (*handler)(struct frame *))
{
    uint64_t fn = (uint64_t)handler;
    uint16_t cs;

    __asm__ volatile("mov %%cs, %0" : "=r"(cs));
    idt[2 * vector] =
        (fn & 0xffff) | (uint64_t)cs << 16 | 0x8e00ull << 32 | (fn >> 16 & 0xffff) << 48;
    idt[2 * vector + 1] = fn >> 32;
}

static void pics(uint8_t open)
{
    static const uint8_t words[][2] = {{0x20, 0x11}, {0xa0, 0x11}, {0x21, V_PIC}, {0xa1, V_PIC + 8},
                                       {0x21, 4},    {0xa1, 2},    {0x21, 1},     {0xa1, 1}};

    for (uint32_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        outb(words[i][0], words[i][1]);
    outb(0x21, (uint8_t)~open);
    outb(0xa1, 0xff);
}

/* What each vCPU does for itself. */
static void listen(int first)
{
    __asm__ volatile("lidt %0" : : "m"(idt_at));
    lapic(0xf0, 0x100 | V_STRAY);
    lapic(0x350, first ? 0x700 : 0x10000); /* LINT0: the PICs' */
}

/* The UART's pin: to vCPU 0, by edge or level. */
static void interrupts(int level)
{
    volatile uint32_t *ioapic = (volatile uint32_t *)IOAPIC;

    for (uint32_t i = 0; i < 16; i++)
        gate(V_PIC + i, do_stray);
    gate(V_PIC, do_pit);
    gate(V_TIMER, do_timer);
    gate(V_UART, do_uart);
    gate(V_TAKEN, do_taken);
    gate(V_POST + 1, do_post1);
    gate(V_POST + 2, do_post2);
    gate(V_POST + 3, do_post3);
    gate(V_STRAY, do_stray);
    pics(0);
    listen(1);
    ioapic[0] = 0x10 + 2 * PIN + 1;
    ioapic[4] = 0;
    ioapic[0] = 0x10 + 2 * PIN;
    ioapic[4] = V_UART | (level ? 1u << 15 : 0);
    outb(UART + 2, 0xc7); /* FIFOs on and empty; 14 bytes make it speak up */
    outb(UART + 4, 0x0b);
    outb(UART + 1, ier);
    interrupts_on();
}

/* ---- stream: everything at once ---- */

/*
 * Each vCPU works on 64 bits of its own, and hands line after line to vCPU 0: writes it down,
 * announces it by an interrupt, sleeps until another tells that it was taken. Every 16 lines it
 * sleeps until its local APIC's timer has ticked; vCPU 0 every 64 lines until the PIT has, whose
 * interrupts come through the PIC. The UART's pin is edge-triggered with one vCPU, else level.
 */
static uint64_t work(struct cpu *c)
{
    for (int i = 0; i < 16; i++)
        c->state = c->state * 6364136223846793005ull + 1442695040888963407ull;
    return c->state;
}

void other(void);
void other(void)
{
    uint32_t n = self();
    struct cpu *c = &cpus[n];
    uint64_t done = 0;

    listen(0);
    c->up = 1;
    arm(n);
    interrupts_on();
    for (uint64_t line = n; line < lines; line += cpu_count) {
        c->value = work(c);
        c->line = line;
        ipi(0, V_POST + n);
        done++;
        WAIT(c->taken == done);
        if (done % 16 == 0)
            wait_tick(n);
    }
    interrupts_off();
    for (;;)
        __asm__ volatile("hlt");
}

/* From real mode at START to other(), with the first vCPU's page tables. */
__asm__(".pushsection .data\n"
        ".set at, 0x40000\n"
        ".globl tramp, tramp_end, tramp_cr3, tramp_stack\n"
        "tramp: .code16\n"
        "cli\n"
        "xorw %ax, %ax\n"
        "movw $at >> 4, %ax\n"
        "movw %ax, %ds\n"
        "lgdtl tramp_gdt_at - tramp\n"
        "movl %cr0, %eax\n"
        "orb $1, %al\n"
        "movl %eax, %cr0\n"
        "ljmpl $8, $at + (tramp32 - tramp)\n"
        ".code32\n"
        "tramp32: movw $0x18, %ax\n"
        "movw %ax, %ds\n"
        "movw %ax, %es\n"
        "movw %ax, %ss\n"
        "movl %cr4, %eax\n"
        "orl $0x20, %eax\n" /* PAE */
        "movl %eax, %cr4\n"
        "movl at + (tramp_cr3 - tramp), %eax\n"
        "movl %eax, %cr3\n"
        "movl $0xc0000080, %ecx\n" /* EFER.LME */
        "rdmsr\n"
        "orl $0x100, %eax\n"
        "wrmsr\n"
        "movl %cr0, %eax\n"
        "orl $0x80000000, %eax\n"
        "movl %eax, %cr0\n"
        "ljmpl $0x10, $at + (tramp64 - tramp)\n"
        ".code64\n"
        "tramp64: movq at + (tramp_stack - tramp), %rsp\n"
        "movq $other, %rax\n"
        "callq *%rax\n"
        ".balign 8\n"
        "tramp_gdt: .quad 0, 0x00cf9b000000ffff, 0x00af9b000000ffff, 0x00cf93000000ffff\n"
        "tramp_gdt_at: .word 31\n"
        ".long at + (tramp_gdt - tramp)\n"
        ".balign 8\n"
        "tramp_cr3: .quad 0\n"
        "tramp_stack: .quad 0\n"
        "tramp_end:\n"
        ".popsection\n");
extern uint8_t tramp[], tramp_end[];
extern uint64_t tramp_cr3, tramp_stack;

static void start(uint32_t n)
{
    __asm__ volatile("mov %%cr3, %0" : "=r"(tramp_cr3));
    tramp_stack = (uint64_t)stacks[n] + sizeof(stacks[n]);
    for (uint32_t i = 0; i < (uint32_t)(tramp_end - tramp); i++)
        ((volatile uint8_t *)(uintptr_t)START)[i] = ((volatile uint8_t *)tramp)[i];
    ipi(n, 0x4500);               /* INIT */
    ipi(n, 0x4600 | START >> 12); /* start-up */
    for (uint32_t i = 0; i < 1000 && !cpus[n].up; i++)
        __asm__ volatile("pause");
    if (!cpus[n].up)
        ipi(n, 0x4600 | START >> 12); /* nothing on one that has started */
    while (!cpus[n].up)
        __asm__ volatile("pause");
}

static void stream(void)
{
    uint32_t a = 1, b, c, d;

    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d) : "c"(0));
    has_deadline = c >> 24 & 1;
    pics(1);
    outb(0x43, 0x34); /* channel 0, mode 2 */
    outb(0x40, PIT & 0xff);
    outb(0x40, PIT >> 8);
    for (uint32_t n = 0; n < cpu_count; n++)
        cpus[n].state = n + 1;
    interrupts_off();
    arm(0);
    interrupts_on();
    for (uint32_t n = 1; n < cpu_count; n++)
        start(n);
    for (uint64_t line = 0; line < lines; line++) {
        uint32_t n = (uint32_t)(line % cpu_count);
        struct cpu *from = &cpus[n];
        uint64_t value;

        if (n == 0) {
            value = work(from);
        } else {
            WAIT(from->posted == line / cpu_count + 1);
            CHECK(from->line == line);
            value = from->value;
            ipi(n, V_TAKEN);
        }
        hex(line, 6);
        put(' ');
        hex(n, 1);
        put(' ');
        hex(value, 16);
        put('\n');
        if (line % 16 == 15)
            wait_tick(0);
        if (line % 64 == 63) {
            uint64_t before = pit_ticks;

            WAIT(pit_ticks != before);
        }
    }
    print("done\n");
}

/* ---- the rest ---- */

static void echo(void)
{
    char text[128];
    uint64_t n = 0;
    uint32_t len = 0;

    for (;;) {
        char c = (char)get();

        if (c == 'q' && len == 0)
            return;
        if (c != '\n') {
            if (len < sizeof(text) - 1)
                text[len++] = c;
            continue;
        }
        text[len] = 0;
        len = 0;
        number(++n);
        print(": ");
        print(text);
        put('\n');
    }
}

static volatile uint64_t *word(uint64_t page, uint32_t third)
{
    static const uint32_t at[3] = {0, PAGE / 2, PAGE - 8};

    return (volatile uint64_t *)(PAGES + page * PAGE + at[third]);
}

static uint64_t checksum(uint64_t pages)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < pages; i++)
        for (uint32_t k = 0; k < 3; k++)
            sum = (sum << 7 | sum >> 57) ^ *word(i, k);
    return sum;
}

static void dirty(uint64_t pages)
{
    uint8_t b;

    while ((b = get()) != 'q') {
        put((char)b);
        put(' ');
        hex(checksum(pages), 16);
        for (uint64_t i = 0; i < pages; i++)
            for (uint32_t k = 0; k < 3; k++)
                *word(i, k) = b * 0x9e3779b97f4a7c15ull + 3 * i + k;
        put(' ');
        hex(checksum(pages), 16);
        put('\n');
    }
}

static void same_pages(uint64_t n)
{
    for (uint64_t i = 0; i < 64; i++) {
        if (*word(i, 0) != n) {
            print("torn\n");
            power_off();
        }
    }
}

/* The count is in a register as well: memory must agree with the vCPU, not only with itself. */
static void pages(void)
{
    for (uint64_t n = 0;;) {
        same_pages(n);
        for (uint64_t i = 0; i < 64; i++)
            ++*word(i, 0);
        same_pages(++n);
        if (n % 1000 == 0) {
            number(n);
            put('\n');
        }
        while (rx_tail != rx_head) {
            char c = (char)get();

            if (c == 'q')
                return;
            print("answer ");
            put(c);
            put(' ');
            number(n);
            put('\n');
        }
    }
}

/* Whether the command line's first word is this one; what follows it. */
static const char *is(const char *line, const char *name)
{
    while (*name && *line == *name) {
        line++;
        name++;
    }
    return *name == 0 && (*line == ' ' || *line == 0) ? line : 0;
}

static const char *next_number(const char *s, uint64_t *n)
{
    *n = 0;
    while (*s == ' ')
        s++;
    while (*s >= '0' && *s <= '9')
        *n = *n * 10 + (uint64_t)(*s++ - '0');
    return s;
}

void clone(const uint8_t *zero_page);
void clone(const uint8_t *zero_page)
{
    const char *line = (const char *)(uintptr_t) * (const uint32_t *)(zero_page + CMDLINE), *rest;
    uint64_t n = 0;

    if ((rest = is(line, "stream")) != 0) {
        rest = next_number(rest, &cpu_count);
        next_number(rest, &lines);
        lines = lines ? lines : 1000;
    }
    interrupts(cpu_count > 1);
    if (rest) {
        CHECK(cpu_count >= 1 && cpu_count <= CPUS);
        stream();
        power_off();
    }
    print("ready\n");
    if (is(line, "echo"))
        echo();
    if ((rest = is(line, "dirty")) != 0) {
        next_number(rest, &n);
        dirty(n);
    }
    if (is(line, "pages"))
        pages();
    if (is(line, "wait"))
        while (get() != 'q')
            put('X');
    power_off();
}

/* RSI is the zero page. */
__asm__(".globl _start\n"
        "_start: lea stacks+8192(%rip), %rsp\n"
        "mov %rsi, %rdi\n"
        "call clone\n"
        "1: hlt\n"
        "jmp 1b\n");
