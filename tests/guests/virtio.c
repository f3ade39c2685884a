/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A bare-metal guest with a driver for virtio over MMIO: an ELF kernel as machine.c, one word of
 * whose command line says what to do. Devices are looked for from WINDOW on. It prints the word
 * first; "bad" and a line number tell that something was not as it must be.
 *
 *   probe         print the device id of each window
 *   all           a request of every device at once, each waited for by interrupt
 *   ping          device 0, of one queue: two rounds of one buffer, each waited for by interrupt
 *   io            write and read disk 0 back, until a byte is received
 *   flood         keep the queue of disk 0 full for ever
 *   size          print the size of console 0, whenever it changes, until a byte is received
 *   hostile SEED STEPS   random accesses, rings, addresses; then, when a byte is received, bring
 *                 the disk up, write and read; then halt for ever
 *
 * All but the last then switch the machine off. What devices write to lies from SANDBOX on, so that
 * a machine whose devices only know the RAM from there on cannot hurt the guest's own code.
 */
#include "mmio.h"
#include "polled.h"

#define WINDOWS 32u
#define GSIS    8u
#define VECTOR  0x40u
#define SANDBOX 0x400000ul
#define SANE    0xe00000ul /* where the good driver's rings are: 64 KiB for each device */
#define RAM_END 0x1000000ul
#define SIZE    8u /* descriptors of a queue */

static int received(void)
{
    return inb(UART + 5) & 1 ? (inb(UART), 1) : 0;
}

/* ---- interrupts ---- */

static struct {
    volatile uint32_t queue, config, spurious;
} irqs[WINDOWS + 1];
static uint32_t devices;

static void on_gsi(uint32_t line)
{
    int none = 1;

    for (uint32_t i = line; i < devices; i += GSIS) {
        uint32_t why = rd(i, INTERRUPT);

        if (why == 0)
            continue;
        none = 0;
        wr(i, INTERRUPT_ACK, why);
        irqs[i].queue += why & 1;
        irqs[i].config += why >> 1 & 1;
    }
    irqs[WINDOWS].spurious += (uint32_t)none; /* two devices' edges, one handler: no harm */
    lapic(0xb0, 0);                           /* the end of it */
}

struct frame;
#define HANDLER(n)                                                      \
    __attribute__((interrupt)) static void handler_##n(struct frame *f) \
    {                                                                   \
        (void)f;                                                        \
        on_gsi(n);                                                      \
    }
HANDLER(0)
HANDLER(1)
HANDLER(2)
HANDLER(3)
HANDLER(4)
HANDLER(5)
HANDLER(6)
HANDLER(7)

static void (*const handlers[GSIS])(struct frame *) = {handler_0, handler_1, handler_2, handler_3,
                                                       handler_4, handler_5, handler_6, handler_7};

static uint64_t idt[2 * 128];

static void interrupts(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) at = {sizeof(idt) - 1, (uint64_t)idt};
    volatile uint32_t *ioapic = (volatile uint32_t *)0xfec00000ul;
    uint16_t cs;

    __asm__ volatile("mov %%cs, %0" : "=r"(cs));
    for (uint32_t i = 0; i < GSIS; i++) {
        uint64_t fn = (uint64_t)handlers[i];

        idt[2 * (VECTOR + i)] =
            (fn & 0xffff) | (uint64_t)cs << 16 | 0x8e00ull << 32 | (fn >> 16 & 0xffff) << 48;
        idt[2 * (VECTOR + i) + 1] = fn >> 32;
        ioapic[0] = 0x10 + 2 * (GSI + i) + 1;
        ioapic[4] = 0;
        ioapic[0] = 0x10 + 2 * (GSI + i);
        ioapic[4] = VECTOR + i; /* edge, fixed */
    }
    __asm__ volatile("lidt %0" : : "m"(at));
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    lapic(0xf0, 0x1ff); /* on; the spurious vector */
}

/* ---- a good driver ---- */

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

/* A queue's memory: 16 KiB. */
struct ring {
    struct desc desc[SIZE];
    volatile uint16_t avail_flags, avail_idx, avail[SIZE], avail_event;
    uint8_t pad[1024 - SIZE * 16 - 6 - 2 * SIZE];
    volatile uint16_t used_flags, used_idx;
    struct {
        volatile uint32_t id, len;
    } used[SIZE];
    volatile uint16_t used_event;
};

/* A device's memory: its queues, then its buffers. */
static struct ring *ring(uint32_t dev, uint32_t queue)
{
    return (struct ring *)(SANE + dev * 0x10000ul + queue * 0x2000);
}

static volatile uint8_t *buffer(uint32_t dev, uint32_t n)
{
    return (volatile uint8_t *)(SANE + dev * 0x10000ul + 0x8000 + n * 0x400);
}

static void up(uint32_t dev, uint32_t queues)
{
    wr(dev, STATUS, 0);
    CHECK(rd(dev, STATUS) == 0);
    wr(dev, STATUS, 1);
    wr(dev, STATUS, 3);
    wr(dev, DRIVER_SEL, 0);
    wr(dev, DRIVER_FEAT, rd(dev, DEVICE_ID) == 3 ? 1 : 0); /* the console's size */
    wr(dev, DRIVER_SEL, 1);
    wr(dev, DRIVER_FEAT, 1); /* VERSION_1 */
    wr(dev, STATUS, 11);
    CHECK(rd(dev, STATUS) == 11);
    for (uint32_t q = 0; q < queues; q++) {
        struct ring *r = ring(dev, q);

        for (uint64_t *p = (uint64_t *)r; p < (uint64_t *)(r + 1); p++)
            *p = 0;
        wr(dev, QUEUE_SEL, q);
        CHECK(rd(dev, QUEUE_READY) == 0);
        wr(dev, QUEUE_NUM, SIZE);
        wr(dev, QUEUE_DESC, (uint32_t)(uint64_t)r->desc);
        wr(dev, QUEUE_DESC + 4, 0);
        wr(dev, QUEUE_DRIVER, (uint32_t)(uint64_t)&r->avail_flags);
        wr(dev, QUEUE_DRIVER + 4, 0);
        wr(dev, QUEUE_DEVICE, (uint32_t)(uint64_t)&r->used_flags);
        wr(dev, QUEUE_DEVICE + 4, 0);
        wr(dev, QUEUE_READY, 1);
    }
    wr(dev, STATUS, 15);
    CHECK(rd(dev, STATUS) == 15);
}

static void describe(struct ring *r, uint16_t i, volatile uint8_t *at, uint32_t len, uint16_t flags)
{
    r->desc[i].addr = (uint64_t)at;
    r->desc[i].len = len;
    r->desc[i].flags = flags;
    r->desc[i].next = (uint16_t)(i + 1);
}

static void publish(uint32_t dev, uint32_t queue, uint16_t head)
{
    struct ring *r = ring(dev, queue);

    r->avail[r->avail_idx % SIZE] = head;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    r->avail_idx++;
    wr(dev, QUEUE_NOTIFY, queue);
}

/* One request of three buffers, at descriptor head. */
static void disk(uint32_t dev, int write, uint64_t sector, uint16_t head, uint32_t data)
{
    volatile uint8_t *h = buffer(dev, data);
    struct ring *r = ring(dev, 0);

    *(volatile uint32_t *)h = write ? 1 : 0;
    *(volatile uint32_t *)(h + 4) = 0;
    *(volatile uint64_t *)(h + 8) = sector;
    h[16] = 0xee;
    describe(r, head, h, 16, 1);
    describe(r, (uint16_t)(head + 1), h + 0x100, 512, write ? 1 : 3);
    describe(r, (uint16_t)(head + 2), h + 16, 1, 2);
    publish(dev, 0, head);
}

static int used(uint32_t dev, uint32_t queue)
{
    return *(volatile uint16_t *)&ring(dev, queue)->used_idx ==
           *(volatile uint16_t *)&ring(dev, queue)->avail_idx;
}

static void pattern(uint32_t dev, uint32_t data, uint64_t seed)
{
    volatile uint64_t *p = (volatile uint64_t *)(buffer(dev, data) + 0x100);

    for (uint32_t i = 0; i < 64; i++)
        p[i] = seed * 0x9e3779b97f4a7c15ull + i;
}

static int same(uint32_t dev, uint32_t data, uint64_t seed)
{
    volatile uint64_t *p = (volatile uint64_t *)(buffer(dev, data) + 0x100);

    for (uint32_t i = 0; i < 64; i++)
        if (p[i] != seed * 0x9e3779b97f4a7c15ull + i)
            return 0;
    return 1;
}

static void disk_wait(uint32_t dev, int write, uint64_t sector, uint32_t data)
{
    disk(dev, write, sector, 0, data);
    for (uint32_t i = 0; !used(dev, 0); i++)
        CHECK(i < 400000000);
    CHECK(buffer(dev, data)[16] == 0);
}

static void probe(void)
{
    for (uint32_t i = 0; i < devices; i++) {
        CHECK(rd(i, 4) == 2);
        number(rd(i, DEVICE_ID));
        put(' ');
    }
    put('\n');
}

/* All requests are made before the first is waited for: interrupts that are shared coincide. */
static void ask(uint32_t dev, uint32_t id, int write)
{
    static const char text[] = "hvc speaks\n";

    if (id == 2) {
        if (write)
            pattern(dev, 0, dev + 1);
        disk(dev, write, 5 + dev, 0, write ? 0 : 1);
    } else if (id == 3) {
        for (uint32_t i = 0; i < sizeof(text) - 1; i++)
            buffer(dev, 0)[i] = (uint8_t)text[i];
        describe(ring(dev, 1), 0, buffer(dev, 0), sizeof(text) - 1, 0);
        publish(dev, 1, 0);
    } else {
        describe(ring(dev, 0), 0, buffer(dev, 0), 64, 2);
        publish(dev, 0, 0);
    }
}

static void all(void)
{
    interrupts();
    for (uint32_t i = 0; i < devices; i++)
        up(i, rd(i, DEVICE_ID) == 3 ? 2 : 1);
    for (int write = 1; write >= 0; write--) {
        for (uint32_t i = 0; i < devices; i++)
            ask(i, rd(i, DEVICE_ID), write);
        for (uint32_t i = 0; i < devices; i++)
            while (irqs[i].queue < 2u - (uint32_t)write || !used(i, rd(i, DEVICE_ID) == 3))
                halt();
    }
    for (uint32_t i = 0; i < devices; i++) {
        if (rd(i, DEVICE_ID) == 2) {
            CHECK(buffer(i, 0)[16] == 0 && buffer(i, 1)[16] == 0);
            CHECK(same(i, 1, i + 1));
        }
        if (rd(i, DEVICE_ID) == 4) {
            uint32_t sum = 0;

            CHECK(ring(i, 0)->used[0].len == 64);
            for (uint32_t k = 0; k < 64; k++)
                sum += buffer(i, 0)[k];
            CHECK(sum != 0);
        }
    }
    print("all ");
    number(devices);
    put('\n');
}

static void ping(void)
{
    interrupts();
    up(0, 1);
    for (uint32_t i = 1; i <= 2; i++) {
        describe(ring(0, 0), 0, buffer(0, 0), 64, 2);
        publish(0, 0, 0);
        while (irqs[0].queue < i)
            halt();
        CHECK(used(0, 0));
        print("pong ");
        number(ring(0, 0)->used[i - 1].len);
        put(' ');
        number(buffer(0, 0)[0]);
        put('\n');
    }
}

static void io(void)
{
    uint64_t n = 0;

    up(0, 1);
    while (!received()) {
        pattern(0, 0, n);
        disk_wait(0, 1, n % 64, 0);
        disk_wait(0, 0, n % 64, 1);
        CHECK(same(0, 1, n));
        if (n++ % 16 == 0)
            put('.');
    }
    print("\ndone\n");
}

static void flood(void)
{
    struct ring *r = ring(0, 0);
    uint16_t added = 0;

    up(0, 1);
    put('.');
    for (uint64_t n = 0;; n++) {
        disk(0, 1, n % 64, added++ % 2 ? 3 : 0, (uint32_t)(n % 2));
        while ((uint16_t)(added - r->used_idx) >= 2)
            ;
    }
}

static void size(void)
{
    uint32_t before = 0;

    interrupts();
    up(0, 2);
    for (;;) {
        number(rd(0, CONFIG) & 0xffff);
        put('x');
        number(rd(0, CONFIG) >> 16);
        put('\n');
        while (irqs[0].config == before)
            halt();
        before = irqs[0].config;
        if ((rd(0, CONFIG) & 0xffff) == 0)
            return;
    }
}

/* ---- a hostile one ---- */

static uint64_t state;

static uint64_t rnd(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Mostly in the sandbox, else anywhere: windows, chips, holes, both ends of the address space. */
static uint64_t address(void)
{
    uint64_t r = rnd(), at = SANDBOX + (r >> 8) % (RAM_END - SANDBOX);

    switch (r & 15) {
    case 0:
        return WINDOW + (r >> 8) % (4 * STRIDE);
    case 1:
        return (r >> 8 & 1 ? 0xfee00000ul : 0xfec00000ul) + (r >> 10) % 0x1000;
    case 2:
        return 0ul - (r >> 8) % 0x2000;
    case 3:
        return RAM_END - 0x1000 + (r >> 8) % 0x2000;
    case 4:
        return r >> 8;
    case 5:
        return (r >> 8) % SANDBOX; /* the guest's own */
    case 6:
        return at;
    default:
        return SANDBOX + (r >> 8) % 32 * 0x1000; /* where they meet */
    }
}

static uint32_t value(void)
{
    uint64_t r = rnd();

    switch (r & 7) {
    case 0:
        return (uint32_t)(r >> 8);
    case 1:
        return 0xffffffffu - (uint32_t)(r >> 8 & 1);
    case 2:
        return 1u << (r >> 8 & 31);
    case 3:
        return (uint32_t)address();
    default:
        return (uint32_t)(r >> 8 & 15);
    }
}

static const uint8_t regs[] = {0x00, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x20, 0x24, 0x30, 0x34,
                               0x38, 0x44, 0x50, 0x60, 0x64, 0x70, 0x80, 0x84, 0x90, 0x94,
                               0xa0, 0xa4, 0xac, 0xb0, 0xb4, 0xb8, 0xbc, 0xc0, 0xfc};

static void stray(uint32_t dev)
{
    uint64_t r = rnd();
    uint64_t at = WINDOW + dev * STRIDE;

    if ((r & 7) < 5)
        at += regs[(r >> 8) % sizeof(regs)];
    else if ((r & 7) < 7)
        at += CONFIG + (r >> 8) % 64;
    else
        at += (r >> 8) % 0x220;
    if ((r >> 16 & 15) == 0)
        at += r >> 20 & 3;
    if ((r >> 24 & 7) == 0) {
        (void)*(volatile uint32_t *)at;
        (void)*(volatile uint8_t *)at;
        return;
    }
    switch (r >> 32 & 7) {
    case 0:
        *(volatile uint8_t *)at = (uint8_t)value();
        break;
    case 1:
        *(volatile uint16_t *)at = (uint16_t)value();
        break;
    case 2:
        *(volatile uint64_t *)at = rnd();
        break;
    default:
        *(volatile uint32_t *)at = value();
        break;
    }
}

/* What a ring of the hostile driver's was meant to be. */
static struct {
    uint64_t desc, driver, device;
    uint32_t size, next;
    int packed;
} mine[4][2];
static uint32_t kind[4]; /* device ids */

/* One time in n something else. */
static uint64_t or_else(uint64_t good, uint64_t n, uint64_t bad)
{
    return rnd() % n ? good : bad;
}

static void zero(uint64_t at, uint32_t len)
{
    for (uint64_t end = at + len; at < end; at += 8)
        *(volatile uint64_t *)at = 0;
}

/* Brings a device up, most times as it should be: else no ring would ever be read. */
static uint32_t rise(uint32_t dev)
{
    uint32_t steps = 12, high;

    wr(dev, STATUS, 0);
    wr(dev, STATUS, 1);
    wr(dev, STATUS, 3);
    wr(dev, 0x14, 0);
    wr(dev, DRIVER_SEL, 0);
    wr(dev, DRIVER_FEAT, rd(dev, 0x10) & (uint32_t)or_else(0xffffffff, 2, rnd()));
    wr(dev, 0x14, 1);
    high = rd(dev, 0x10) & (uint32_t)or_else(7, 2, 1);
    wr(dev, DRIVER_SEL, 1);
    wr(dev, DRIVER_FEAT, (uint32_t)or_else(high, 16, value()));
    wr(dev, STATUS, 11);
    for (uint32_t q = 0; q < 2; q++) {
        uint64_t at = SANDBOX + (2 * dev + q) * 0x4000;

        mine[dev][q].desc = at;
        mine[dev][q].driver = at + 0x1000;
        mine[dev][q].device = at + 0x2000;
        mine[dev][q].size = 8u << rnd() % 4;
        mine[dev][q].next = 0;
        mine[dev][q].packed = high >> 2 & 1;
        zero(at, 64 * 16);
        zero(at + 0x1000, 256);
        zero(at + 0x2000, 16);
        wr(dev, QUEUE_SEL, q);
        wr(dev, QUEUE_NUM, (uint32_t)or_else(mine[dev][q].size, 32, value()));
        wr(dev, QUEUE_DESC, (uint32_t)or_else(at, 24, address()));
        wr(dev, QUEUE_DRIVER, (uint32_t)or_else(at + 0x1000, 24, address()));
        wr(dev, QUEUE_DEVICE, (uint32_t)or_else(at + 0x2000, 24, address()));
        if (rnd() % 24 == 0)
            wr(dev, QUEUE_DESC + 4 + (uint32_t)rnd() % 3 * 16, (uint32_t)(address() >> 32));
        wr(dev, QUEUE_READY, 1);
        steps += 6;
    }
    wr(dev, STATUS, 15);
    return steps;
}

/* A descriptor at place i of a ring; last: of its chain. */
static void link(uint32_t dev, uint32_t q, uint32_t i, uint64_t addr, uint32_t len, uint32_t flags,
                 int last)
{
    uint32_t size = mine[dev][q].size, at = i % size;
    volatile uint8_t *d = (volatile uint8_t *)(mine[dev][q].desc + 16 * at);

    flags |= last ? 0 : 1;
    *(volatile uint64_t *)d = or_else(addr, 48, address());
    *(volatile uint32_t *)(d + 8) = (uint32_t)or_else(len, 48, value());
    if (mine[dev][q].packed) {
        *(volatile uint16_t *)(d + 12) = (uint16_t)at;
        flags |= i / size % 2 ? 0x8000 : 0x80;
        *(volatile uint16_t *)(d + 14) = (uint16_t)or_else(flags, 64, flags ^ value());
    } else {
        *(volatile uint16_t *)(d + 12) = (uint16_t)or_else(flags, 64, value());
        *(volatile uint16_t *)(d + 14) = (uint16_t)or_else((at + 1) % size, 64, value());
    }
}

/* A request as the device's type has it, but for what or_else says. Returns how many steps. */
static uint32_t add(uint32_t dev)
{
    uint64_t r = rnd(), data = SANDBOX + 0x100000 + (r & 63) * 0x1000, header = data + 0xf00;
    uint32_t q = kind[dev] == 3 ? r >> 8 & 1 : 0, i = mine[dev][q].next, n = 0;
    uint64_t driver = mine[dev][q].driver;
    int indirect = (r >> 56 & 15) == 0;

    if (mine[dev][q].size == 0)
        return 0;
    if (indirect) { /* a table of whatever lies there */
        link(dev, q, i + n++, data, 16 * (1 + (r >> 9 & 7)), 4, 1);
    } else if (kind[dev] == 2) {
        uint32_t type = (uint32_t)or_else(r >> 9 & 1, 4, r >> 10 & 15);

        *(volatile uint32_t *)header = type;
        *(volatile uint64_t *)(header + 8) = or_else(r >> 16 & 127, 16, rnd());
        link(dev, q, i + n++, header, 16, 0, 0);
        if (type != 4)
            link(dev, q, i + n++, data, 512 * (1 + (r >> 24 & 3)), type == 1 || type > 8 ? 0 : 2,
                 0);
        link(dev, q, i + n++, header + 32, 1, 2, 1);
    } else {
        uint32_t chain = 1 + (r >> 12 & 1);

        for (uint32_t k = 0; k < chain; k++)
            link(dev, q, i + n++, data + 512 * k, 1 + (r >> 16 & 1023),
                 kind[dev] == 3 && q == 1 ? 0 : 2, k + 1 == chain);
    }
    if (!mine[dev][q].packed) {
        uint16_t idx = *(volatile uint16_t *)(driver + 2);

        *(volatile uint16_t *)(driver + 4 + 2 * (idx % mine[dev][q].size)) =
            (uint16_t)or_else(i % mine[dev][q].size, 48, value());
        *(volatile uint16_t *)(driver + 2) = (uint16_t)or_else(idx + 1u, 64, value());
    }
    mine[dev][q].next = i + n;
    if (r >> 60 & 3)
        wr(dev, QUEUE_NOTIFY, q);
    return n + 1;
}

/* Scribbles where rings, tables and data are. */
static void scribble(void)
{
    uint64_t r = rnd(), at;

    if (r & 7)
        at = SANDBOX + 0x100000 + (r >> 8 & 63) * 0x1000 + (r >> 16 & 7) * 16;
    else
        at = SANDBOX + (r >> 8 & 31) * 0x1000 + (r >> 16 & 63) * 16;
    switch (r >> 24 & 3) {
    case 0:
        *(volatile uint64_t *)at = rnd();
        break;
    case 1:
        *(volatile uint16_t *)(at + (r >> 32 & 7)) = (uint16_t)value();
        break;
    default:
        *(volatile uint64_t *)at = address();
        *(volatile uint32_t *)(at + 8) = r >> 26 & 3 ? (uint32_t)(r >> 32) % 0x1000 : value();
        *(volatile uint16_t *)(at + 12) = (uint16_t)(r >> 28 & 7);
        *(volatile uint16_t *)(at + 14) = (uint16_t)(r >> 44 & 15);
        break;
    }
}

static void hostile(uint64_t seed, uint64_t steps)
{
    uint32_t disk_at = 0;

    state = seed ? seed : 1;
    CHECK(devices >= 1 && devices <= 4);
    for (uint32_t i = 0; i < devices; i++)
        kind[i] = rd(i, DEVICE_ID);
    while (kind[disk_at] != 2)
        disk_at++;
    for (uint64_t n = 0; n < steps;) {
        uint64_t r = rnd();
        uint32_t dev = (uint32_t)(r >> 8) % devices;

        n++;
        switch (r & 63) {
        case 0:
        case 1:
            n += rise(dev);
            break;
        case 2:
        case 3:
            wr(dev, QUEUE_NOTIFY, (uint32_t)or_else(r >> 24 & 1, 16, value()));
            break;
        case 4:
        case 5:
            wr(dev, INTERRUPT_ACK, rd(dev, INTERRUPT));
            break;
        case 6:
        case 7:
        case 8:
        case 9:
        case 10:
        case 11:
        case 12:
        case 13:
            scribble();
            break;
        case 14:
        case 15:
        case 16:
        case 17:
            stray(dev);
            break;
        default:
            n += add(dev);
            break;
        }
    }
    print("over\n");
    while (!received())
        ;
    up(disk_at, 1);
    pattern(disk_at, 0, seed);
    disk_wait(disk_at, 1, 7, 0);
    disk_wait(disk_at, 0, 7, 1);
    CHECK(same(disk_at, 1, seed));
    print("good\n");
    __asm__ volatile("1: cli; hlt; jmp 1b");
}

/* ---- */

static const char *next_number(const char *s, uint64_t *n)
{
    *n = 0;
    while (*s == ' ')
        s++;
    while (*s >= '0' && *s <= '9')
        *n = *n * 10 + (uint64_t)(*s++ - '0');
    return s;
}

/* Whether the command line's first word is this one; what follows it. */
static const char *is(const char *line, const char *word)
{
    while (*word && *line == *word) {
        line++;
        word++;
    }
    return *word == 0 && (*line == ' ' || *line == 0) ? line : 0;
}

void virtio(const uint8_t *zero_page);
void virtio(const uint8_t *zero_page)
{
    const char *line = (const char *)(uintptr_t) * (const uint32_t *)(zero_page + CMDLINE), *rest;
    uint64_t seed, steps;

    while (devices < WINDOWS && rd(devices, MAGIC_REG) == 0x74726976)
        devices++;
    for (const char *c = line; *c && *c != ' '; c++)
        put(*c);
    put('\n');
    if (is(line, "probe"))
        probe();
    if (is(line, "all"))
        all();
    if (is(line, "ping"))
        ping();
    if (is(line, "io"))
        io();
    if (is(line, "flood"))
        flood();
    if (is(line, "size"))
        size();
    if ((rest = is(line, "hostile")) != 0) {
        rest = next_number(rest, &seed);
        next_number(rest, &steps);
        hostile(seed, steps);
    }
    power_off();
}

/* RSI is the zero page; the stack is the boot code's. */
__asm__(".globl _start\n_start: mov %rsi, %rdi\n call virtio\n1: hlt\n jmp 1b\n");
