/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A bare-metal guest with two drivers for the virtio devices that talk to the world outside:
 * networks, sockets, a balloon. One is hostile on purpose, the other is good. An ELF kernel as
 * virtio.c; its command line is "world SEED TRICKS STEPS". It says "ready", sleeps, and then does
 * what each byte tells that it receives:
 *
 *   h   TRICKS wicked sequences on each device, then STEPS random steps on all; prints "over"
 *   g   resets each device, as a good driver does, and works with it (below); prints "good"
 *   q   switches off
 *
 * and sleeps again, until an interrupt: nothing is polled for but in h. "bad" and a line number
 * tell that something was not as it must be. What a good driver does:
 *
 *   network   prints "frames"; then FRAMES frames of type 0x88b5 to its address are sent back,
 *             addresses exchanged, the other bytes complemented
 *   socket    connects to the host's port 77, prints "dial", and takes a connection to its port
 *             1234; what comes is sent back, complemented, until both are shut down
 *   balloon   writes PAGES pages and prints "full"; then, at a byte each, puts them into the
 *             balloon ("flat"), takes them out and writes them again ("back"), reports them as free
 *             ("free"), writes them
 *
 * What devices write to lies from SANDBOX on, as in virtio.c. Every second time a good driver takes
 * all features that help it, else none but the rings'.
 */
#include "mmio.h"
#include "polled.h"

#define DEVICES 4u
#define QUEUES  5u
#define PIN     4u /* the UART's */
#define VECTOR  0x40u
#define SANDBOX 0x400000ul
#define DATA    0x500000ul /* the hostile driver's buffers: 64 of BLOB bytes */
#define BLOB    0x11000ul
#define SPARE   0x960000ul /* for the balloon */
#define PAGES   1024u
#define SANE    0xe00000ul /* the good driver's rings and buffers: 512 KiB for each device */
#define RAM_END 0x1000000ul
#define SIZE    32u /* descriptors of the good driver's queues */
#define FRAMES  40u

#define NET     1u
#define BALLOON 5u
#define VSOCK   19u

#define F_INDIRECT (1ull << 28)
#define F_EVENT    (1ull << 29)
#define F_VERSION  (1ull << 32)
#define F_PACKED   (1ull << 34)

#define D_NEXT     1u
#define D_WRITE    2u
#define D_INDIRECT 4u

static inline volatile uint8_t *at8(uint64_t at)
{
    return (volatile uint8_t *)at;
}

static inline volatile uint16_t *at16(uint64_t at)
{
    return (volatile uint16_t *)at;
}

static inline volatile uint32_t *at32(uint64_t at)
{
    return (volatile uint32_t *)at;
}

static inline volatile uint64_t *at64(uint64_t at)
{
    return (volatile uint64_t *)at;
}

static inline void fence(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void zero(uint64_t at, uint64_t len)
{
    uint64_t words = len / 8;

    __asm__ volatile("rep stosq" : "+D"(at), "+c"(words) : "a"(0ul) : "memory");
}

static uint32_t devices, kind[DEVICES];

static uint32_t queues_of(uint32_t dev)
{
    return kind[dev] == BALLOON ? 5 : 3;
}

/* ---- interrupts ---- */

static void on_device(void)
{
    for (uint32_t i = 0; i < devices; i++) {
        uint32_t why = rd(i, INTERRUPT);

        if (why)
            wr(i, INTERRUPT_ACK, why);
    }
    lapic(0xb0, 0);
}

static volatile uint8_t typed[16];
static volatile uint32_t typed_in, typed_out;

static void on_uart(void)
{
    while (!(inb(UART + 2) & 1)) {
        while (inb(UART + 5) & 1)
            typed[typed_in++ % 16] = inb(UART);
        (void)inb(UART + 6);
    }
    lapic(0xb0, 0);
}

struct frame;
__attribute__((interrupt)) static void device_handler(struct frame *f)
{
    (void)f;
    on_device();
}

__attribute__((interrupt)) static void uart_handler(struct frame *f)
{
    (void)f;
    on_uart();
}

static uint64_t idt[2 * 128];

static void gate(uint32_t pin, uint32_t vector, uint64_t fn)
{
    volatile uint32_t *ioapic = (volatile uint32_t *)0xfec00000ul;
    uint16_t cs;

    __asm__ volatile("mov %%cs, %0" : "=r"(cs));
    idt[2 * vector] =
        (fn & 0xffff) | (uint64_t)cs << 16 | 0x8e00ull << 32 | (fn >> 16 & 0xffff) << 48;
    idt[2 * vector + 1] = fn >> 32;
    ioapic[0] = 0x10 + 2 * pin + 1;
    ioapic[4] = 0;
    ioapic[0] = 0x10 + 2 * pin;
    ioapic[4] = vector; /* edge, fixed */
}

static void interrupts(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) at = {sizeof(idt) - 1, (uint64_t)idt};

    for (uint32_t i = 0; i < devices; i++)
        gate(GSI + i, VECTOR + i, (uint64_t)device_handler);
    gate(PIN, VECTOR + 8, (uint64_t)uart_handler);
    __asm__ volatile("lidt %0" : : "m"(at));
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    lapic(0xf0, 0x1ff);   /* on; the spurious vector */
    outb(UART + 4, 0x0b); /* interrupts reach the pin */
    outb(UART + 1, 1);    /* when a byte was received */
}

static uint8_t receive(void)
{
    while (typed_in == typed_out)
        halt();
    return typed[typed_out++ % 16];
}

/* ---- rings ---- */

struct piece {
    uint64_t at;
    uint32_t len;
    uint32_t write; /* D_WRITE, or 0 */
};

/* A queue of a driver's, in 16 KiB of memory. */
struct queue {
    uint32_t dev, n, size;
    uint64_t desc, driver, device;
    int packed;
    uint16_t next; /* split: the available index; packed: where the next descriptor goes */
    uint16_t seen; /* the same for what was used */
    uint16_t wrap, seen_wrap;
    uint16_t count[64]; /* packed: descriptors of each chain, by its id */
};

static void ring_init(struct queue *q, uint32_t dev, uint32_t n, uint64_t at, uint32_t size,
                      int packed)
{
    q->dev = dev;
    q->n = n;
    q->size = size;
    q->desc = at;
    q->driver = at + 0x1000;
    q->device = at + 0x2000;
    q->packed = packed;
    q->next = q->seen = 0;
    q->wrap = q->seen_wrap = 1;
    zero(at, 64 * 16);
    zero(at + 0x1000, 256);
    zero(at + 0x2000, 64 * 8 + 16);
}

static void ring_registers(const struct queue *q)
{
    wr(q->dev, QUEUE_SEL, q->n);
    wr(q->dev, QUEUE_NUM, q->size);
    wr(q->dev, QUEUE_DESC, (uint32_t)q->desc);
    wr(q->dev, QUEUE_DRIVER, (uint32_t)q->driver);
    wr(q->dev, QUEUE_DEVICE, (uint32_t)q->device);
    wr(q->dev, QUEUE_READY, 1);
}

static void kick(const struct queue *q)
{
    wr(q->dev, QUEUE_NOTIFY, q->n);
}

/* tail: flags and next, or id and flags. */
static void describe(uint64_t d, const struct piece *p, uint32_t tail)
{
    *at64(d) = p->at;
    *at32(d + 8) = p->len;
    *at32(d + 12) = tail;
}

/*
 * Adds a chain. Split: it has the descriptors id to id + n - 1, which are free. Returns the address
 * of its first descriptor.
 */
static uint64_t add(struct queue *q, uint16_t id, const struct piece *p, uint32_t n)
{
    uint64_t first;
    uint32_t head = 0;

    if (!q->packed) {
        for (uint32_t i = 0; i < n; i++) {
            uint32_t flags = p[i].write | (i + 1 < n ? D_NEXT : 0);

            describe(q->desc + 16 * ((id + i) % q->size), &p[i],
                     flags | (id + i + 1) % q->size << 16);
        }
        *at16(q->driver + 4 + 2 * (q->next % q->size)) = id;
        fence();
        *at16(q->driver + 2) = ++q->next;
        return q->desc + 16 * (id % q->size);
    }
    first = q->desc + 16 * q->next;
    q->count[id % 64] = (uint16_t)n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t flags = p[i].write | (i + 1 < n ? D_NEXT : 0) | (q->wrap ? 0x80u : 0x8000u);

        if (i == 0)
            head = flags; /* last of all */
        describe(q->desc + 16 * q->next, &p[i],
                 id | (uint32_t)(i == 0 ? *at16(first + 14) : flags) << 16);
        if (++q->next == q->size) {
            q->next = 0;
            q->wrap ^= 1;
        }
    }
    fence();
    *at16(first + 14) = (uint16_t)head;
    return first;
}

static int take_packed(struct queue *q, uint32_t *len)
{
    uint64_t at = q->desc + 16 * q->seen;
    uint16_t flags = *at16(at + 14), id;

    if ((flags >> 15 & 1) != q->seen_wrap || (flags >> 7 & 1) != q->seen_wrap)
        return -1;
    id = *at16(at + 12);
    *len = *at32(at + 8);
    q->seen = (uint16_t)(q->seen + q->count[id % 64]);
    if (q->seen >= q->size) {
        q->seen = (uint16_t)(q->seen - q->size);
        q->seen_wrap ^= 1;
    }
    return id;
}

/* Takes a used chain: its id, or -1. The device is to interrupt for the next. */
static int take(struct queue *q, uint32_t *len)
{
    if (!q->packed) {
        uint64_t at = q->device + 4 + 8 * (q->seen % q->size);

        if (*at16(q->device + 2) == q->seen) {
            *at16(q->driver + 4 + 2 * q->size) = q->seen; /* used_event */
            fence();
            if (*at16(q->device + 2) == q->seen)
                return -1;
        }
        q->seen++;
        *len = *at32(at + 4);
        return (int)*at32(at);
    }
    return take_packed(q, len);
}

/* Waits for a chain to be used, by interrupt. */
static int await(struct queue *q, uint32_t *len)
{
    int id;

    while ((id = take(q, len)) < 0)
        halt();
    return id;
}

/* ---- a good driver ---- */

static uint64_t offered(uint32_t dev)
{
    uint64_t f;

    wr(dev, DEVICE_SEL, 1);
    f = (uint64_t)rd(dev, DEVICE_FEAT) << 32;
    wr(dev, DEVICE_SEL, 0);
    return f | rd(dev, DEVICE_FEAT);
}

static void choose(uint32_t dev, uint64_t f)
{
    wr(dev, DRIVER_SEL, 0);
    wr(dev, DRIVER_FEAT, (uint32_t)f);
    wr(dev, DRIVER_SEL, 1);
    wr(dev, DRIVER_FEAT, (uint32_t)(f >> 32));
}

static struct queue ours[QUEUES];

static uint64_t sane(uint32_t dev, uint64_t off)
{
    return SANE + 0x80000 * dev + off;
}

/* Brings a device up from whatever it was. Returns the features. */
static uint64_t up(uint32_t dev, uint64_t want)
{
    uint64_t f;

    wr(dev, STATUS, 0);
    CHECK(rd(dev, STATUS) == 0 && rd(dev, INTERRUPT) == 0);
    wr(dev, STATUS, 1);
    wr(dev, STATUS, 3);
    f = offered(dev);
    CHECK(f & F_VERSION);
    f &= want | F_VERSION | F_PACKED;
    choose(dev, f);
    wr(dev, STATUS, 11);
    CHECK(rd(dev, STATUS) == 11);
    for (uint32_t q = 0; q < queues_of(dev); q++) {
        ring_init(&ours[q], dev, q, sane(dev, 0x4000 * q), SIZE, (f & F_PACKED) != 0);
        wr(dev, QUEUE_SEL, q);
        CHECK(rd(dev, QUEUE_READY) == 0);
        if (kind[dev] != BALLOON || q != 3) /* there is no hinting */
            ring_registers(&ours[q]);
    }
    wr(dev, STATUS, 15);
    CHECK(rd(dev, STATUS) == 15);
    return f;
}

static void copy(uint64_t to, uint64_t from, uint32_t len)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(len) : : "memory");
}

static void give(struct queue *q, uint16_t id, uint64_t at, uint32_t len)
{
    struct piece p = {at, len, D_WRITE};

    (void)add(q, id, &p, 1);
}

/* Sends pieces, and waits until the device has read them. */
static void put_out(struct queue *q, const struct piece *p, uint32_t n)
{
    uint32_t len;

    (void)add(q, 0, p, n);
    kick(q);
    CHECK(await(q, &len) == 0);
    CHECK(len == 0);
}

#define NET_HDR 12u

static void good_net(uint32_t dev, int all)
{
    /* CSUM, GUEST_CSUM, GUEST_TSO4, HOST_TSO4, MRG_RXBUF */
    uint64_t f = up(dev, all ? 0x8883ull | F_EVENT | F_INDIRECT | 1ull << 5 : 1ull << 5);
    uint64_t rx = sane(dev, 0x20000), whole = sane(dev, 0x40000);
    uint32_t size = f & 1ull << 15 ? 1024 : 2048, frames = 0, len;
    uint8_t mac[6];

    for (uint32_t i = 0; i < 6; i++)
        mac[i] = *at8(WINDOW + dev * STRIDE + CONFIG + i);
    CHECK((f & 1ull << 5) && mac[0] == 2);
    for (uint32_t i = 0; i < SIZE; i++)
        give(&ours[0], (uint16_t)i, rx + 2048 * i, size);
    kick(&ours[0]);
    print("frames\n");
    while (frames < FRAMES) {
        int id = await(&ours[0], &len);
        uint64_t at = rx + 2048 * (uint32_t)id;
        uint32_t total = len, buffers = *at16(at + 10), mine = 1;

        CHECK(id >= 0 && id < (int)SIZE && len >= NET_HDR && len <= size && buffers >= 1);
        copy(whole, at, len);
        give(&ours[0], (uint16_t)id, at, size);
        for (; buffers > 1; buffers--) { /* they come together */
            id = take(&ours[0], &len);
            CHECK(id >= 0 && id < (int)SIZE && len <= size && total + len <= 0x20000);
            copy(whole + total, rx + 2048 * (uint32_t)id, len);
            total += len;
            give(&ours[0], (uint16_t)id, rx + 2048 * (uint32_t)id, size);
        }
        kick(&ours[0]);
        for (uint32_t i = 0; i < 6; i++)
            mine &= *at8(whole + NET_HDR + i) == mac[i];
        if (!mine || total < NET_HDR + 14 || *at16(whole + NET_HDR + 12) != 0xb588)
            continue; /* somebody else's */
        for (uint64_t i = 0; i < 6; i++) {
            *at8(whole + NET_HDR + i) = *at8(whole + NET_HDR + 6 + i);
            *at8(whole + NET_HDR + 6 + i) = mac[i];
        }
        for (uint64_t i = whole + NET_HDR + 14; i < whole + total; i++)
            *at8(i) = (uint8_t) ~*at8(i);
        if (frames++ % 2) {
            struct piece p = {whole, total, 0};

            put_out(&ours[1], &p, 1);
        } else {
            struct piece p[3] = {{whole, 5, 0},
                                 {whole + 5, NET_HDR, 0},
                                 {whole + 5 + NET_HDR, total - 5 - NET_HDR, 0}};

            put_out(&ours[1], p, 3);
        }
    }
}

#define VS_HDR   44u
#define VS_ALLOC 4096u

enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, UPDATE, ASK };

/* An end of a connection; what came and is still to be sent back is at fifo, a ring of VS_ALLOC. */
struct conn {
    uint32_t port, host_port, alloc, fwd, sent, ours, len, state; /* 0: none; 1: open; 2: gone */
    uint64_t fifo;
};

static uint64_t cid_of(uint32_t dev)
{
    return rd(dev, CONFIG) | (uint64_t)rd(dev, CONFIG + 4) << 32;
}

static void packet(uint64_t at, uint64_t cid, uint32_t port, uint32_t host_port, uint32_t len,
                   uint32_t op)
{
    *at64(at) = cid;
    *at64(at + 8) = 2;
    *at32(at + 16) = port;
    *at32(at + 20) = host_port;
    *at32(at + 24) = len;
    *at32(at + 28) = 1 | op << 16;
    *at32(at + 32) = 0;
    *at32(at + 36) = VS_ALLOC;
    *at32(at + 40) = 0;
}

static void tell(struct conn *c, uint64_t out, uint64_t cid, uint32_t len, uint32_t op)
{
    struct piece p[2] = {{out, VS_HDR, 0}, {out + 64, len, 0}};

    packet(out, cid, c->port, c->host_port, len, op);
    *at32(out + 32) = op == SHUTDOWN ? 3 : 0;
    *at32(out + 40) = c->ours;
    put_out(&ours[1], p, len ? 2 : 1);
}

/* Sends back as much as the host takes. */
static void answer(struct conn *c, uint64_t out, uint64_t cid)
{
    while (c->state == 1 && c->len > 0) {
        uint32_t credit = c->alloc - (c->sent - c->fwd), n = c->len < 900 ? c->len : 900;

        CHECK(credit <= c->alloc); /* it can't forward what it did not get */
        n = n < credit ? n : credit;
        if (n == 0)
            return;
        for (uint32_t i = 0; i < n; i++)
            *at8(out + 64 + i) = (uint8_t) ~*at8(c->fifo + (c->ours + i) % VS_ALLOC);
        c->ours += n;
        c->len -= n;
        c->sent += n;
        tell(c, out, cid, n, RW);
    }
}

/* The next packet; before it sleeps it sends back what it has, so that the host uses its credit. */
static int next_packet(struct conn *c, uint64_t out, uint64_t cid, uint32_t *len)
{
    int id;

    while ((id = take(&ours[0], len)) < 0) {
        answer(&c[0], out, cid);
        answer(&c[1], out, cid);
        if ((id = take(&ours[0], len)) >= 0)
            break;
        halt();
    }
    return id;
}

static void good_vsock(uint32_t dev, int all)
{
    uint64_t rx = sane(dev, 0x20000), out = sane(dev, 0x40000), cid;
    struct conn c[2] = {{5000, 77, 0, 0, 0, 0, 0, 0, sane(dev, 0x50000)},
                        {1234, 0, 0, 0, 0, 0, 0, 0, sane(dev, 0x52000)}};
    uint32_t len;

    (void)up(dev, all ? 3 | F_EVENT | F_INDIRECT : 0);
    cid = cid_of(dev);
    for (uint32_t i = 0; i < SIZE; i++)
        give(&ours[0], (uint16_t)i, rx + 1024 * i, all ? 700 : 1024);
    kick(&ours[0]);
    give(&ours[2], 0, sane(dev, 0x54000), 8);
    kick(&ours[2]);
    tell(&c[0], out, cid, 0, REQUEST);
    print("dial\n"); /* the other one */
    while (c[0].state + c[1].state < 4) {
        int id = next_packet(c, out, cid, &len);
        uint64_t at = rx + 1024 * (uint32_t)id;
        uint32_t op = *at16(at + 30), n = *at32(at + 24);
        struct conn *to = *at32(at + 20) == 1234 ? &c[1] : &c[0];

        CHECK(id >= 0 && id < (int)SIZE && len == VS_HDR + n && *at16(at + 28) == 1);
        CHECK(*at64(at) == 2 && *at64(at + 8) == cid && *at32(at + 20) == to->port);
        to->alloc = *at32(at + 36);
        to->fwd = *at32(at + 40);
        if (op == REQUEST) {
            CHECK(to == &c[1] && to->state == 0);
            to->host_port = *at32(at + 16);
            to->state = 1;
            tell(to, out, cid, 0, RESPONSE);
        }
        CHECK(*at32(at + 16) == to->host_port);
        if (op == RESPONSE) {
            CHECK(to == &c[0] && to->state == 0);
            to->state = 1;
        } else if (op == RW) {
            CHECK(to->state == 1 && n <= VS_ALLOC - to->len); /* it keeps to our credit */
            for (uint32_t i = 0; i < n; i++)
                *at8(to->fifo + (to->ours + to->len + i) % VS_ALLOC) = *at8(at + VS_HDR + i);
            to->len += n;
        } else if (op == ASK) {
            tell(to, out, cid, 0, UPDATE);
        } else if (op == SHUTDOWN) {
            if (to->state == 1)
                tell(to, out, cid, 0, RST);
            to->state = 2;
        } else if (op == RST) {
            CHECK(to->state == 2);
        }
        give(&ours[0], (uint16_t)id, at, all ? 700 : 1024);
        kick(&ours[0]);
    }
}

static void write_pages(uint64_t what)
{
    for (uint64_t i = 0; i < PAGES; i++) {
        *at64(SPARE + 4096 * i) = what + i;
        *at64(SPARE + 4096 * i + 4088) = what - i;
    }
}

static int pages_hold(uint64_t what, uint64_t step)
{
    for (uint64_t i = 0; i < PAGES; i++)
        if (*at64(SPARE + 4096 * i) != what + step * i ||
            *at64(SPARE + 4096 * i + 4088) != what - step * i)
            return 0;
    return 1;
}

static void good_balloon(uint32_t dev, int all)
{
    uint64_t list = sane(dev, 0x20000), f;
    struct piece stats = {list + 0x4000, 20, 0}, most = {list, 3000 * 4, 0};
    uint32_t len;

    (void)up(dev, 0x22);
    for (uint32_t i = 0; i < 3000; i++) /* no two are neighbours: it will not be done with them */
        *at32(list + 4 * i) = (uint32_t)(SPARE / 4096) + 2 * i % PAGES;
    (void)add(&ours[0], 0, &most, 1);
    kick(&ours[0]);
    f = up(dev, all ? 0x32 | F_EVENT : 0x22); /* STATS_VQ, PAGE_POISON, PAGE_REPORTING */
    CHECK(f & 0x20);
    *at16(stats.at) = 5; /* MEMTOT */
    *at64(stats.at + 2) = RAM_END;
    *at16(stats.at + 10) = 4; /* MEMFREE */
    *at64(stats.at + 12) = PAGES * 4096;
    (void)add(&ours[2], 0, &stats, 1);
    kick(&ours[2]);
    for (uint32_t i = 0; i < PAGES; i++)
        *at32(list + 4 * i) = (uint32_t)(SPARE / 4096) + i;
    write_pages(0x1111);
    print("full\n");
    (void)receive();
    for (uint32_t i = 0; i < 4; i++) {
        struct piece p = {list + PAGES * i, PAGES, 0};

        put_out(&ours[0], &p, 1);
    }
    wr(dev, CONFIG + 4, PAGES); /* actual */
    print("flat\n");
    (void)receive();
    for (uint32_t i = 0; i < 4; i++) {
        struct piece p = {list + PAGES * i, PAGES, 0};

        put_out(&ours[1], &p, 1);
    }
    wr(dev, CONFIG + 4, 0);
    CHECK(pages_hold(0, 0));
    write_pages(0x2222);
    CHECK(pages_hold(0x2222, 1));
    print("back\n");
    (void)receive();
    give(&ours[4], 0, SPARE, PAGES * 4096);
    kick(&ours[4]);
    CHECK(await(&ours[4], &len) == 0);
    print("free\n");
    (void)receive();
    CHECK(pages_hold(0, 0));
    write_pages(0x3333);
    CHECK(pages_hold(0x3333, 1));
}

static void good(int all)
{
    for (uint32_t i = 0; i < devices; i++) {
        if (kind[i] == NET)
            good_net(i, all);
        else if (kind[i] == VSOCK)
            good_vsock(i, all);
        else
            good_balloon(i, all);
        CHECK(rd(i, STATUS) == 15);
    }
}

/* ---- a hostile one: what it writes ---- */

static uint64_t state;

static uint64_t rnd(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static uint32_t below(uint32_t n)
{
    return (uint32_t)(rnd() >> 16) % n;
}

/* One time in n something else. */
static uint64_t or_else(uint64_t good, uint64_t n, uint64_t bad)
{
    return rnd() % n ? good : bad;
}

#define PICK(list) ((list)[below(sizeof(list) / sizeof((list)[0]))])

/* Where there is no RAM for devices, or where it ends; and lengths at every limit. */
static uint64_t nowhere(void)
{
    static const uint64_t list[] = {0, SANDBOX, RAM_END, WINDOW, 0xfec00000, 0xfee00000};

    return below(3) ? PICK(list) - 16 + below(32) : ~0ull << below(64);
}

static uint32_t limit(void)
{
    static const uint32_t list[] = {
        0,       1,          2,          3,          4,         5,      7,      8,      9,
        10,      11,         12,         13,         14,        15,     16,     25,     26,
        27,      43,         44,         45,         60,        63,     64,     65,     1514,
        1526,    4095,       4096,       4097,       65535,     65536,  65553,  65565,  65566,
        65580,   65581,      0xb00000,   0xc00000,   0x8000,    0x7fff, 0xfffe, 0xffff, 0x10001,
        1 << 24, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff};

    return PICK(list);
}

static uint64_t blob(void)
{
    return DATA + BLOB * below(64);
}

static uint64_t cids[DEVICES];

static uint32_t fill_net(uint32_t q, struct piece *p)
{
    static const uint16_t rx[] = {0, 1, 11, 12, 13, 25, 26, 512, 1526, 2048, 4096, 65535};
    static const uint8_t gso[] = {0, 0, 1, 3, 4, 5, 0x80, 0x81, 0x84, 0x85, 2, 0xff};
    static const uint32_t tables[] = {0, 1, 2, 63, 64, 65, 0x2aaaaaab, 0x80000000, 0xffffffff};
    uint64_t at = blob(), r = rnd();
    uint32_t len = (uint32_t)or_else(60 + below(1500), 3, limit() % BLOB), n, cut;

    if (q == 0) {
        p[0] = (struct piece){at, PICK(rx), D_WRITE};
        p[1] = (struct piece){at + 0x8000, PICK(rx) % 0x8000u, D_WRITE};
        return 1 + (r & 1);
    }
    if (q == 1) {
        zero(at, NET_HDR + 4);
        if (r & 3) { /* else it may go out as it is */
            *at8(at) = (uint8_t)or_else(r >> 2 & 1, 8, r >> 8);
            *at8(at + 1) = PICK(gso);
        }
        for (uint32_t i = 2; *at16(at) != 0 && i < 12; i += 2) {
            uint32_t off = (uint32_t)or_else(below(50), 4, limit());

            *at16(at + i) = (uint16_t)or_else(off, 4, len - NET_HDR - below(4));
        }
        cut = below(3) ? below(16) : below(len + 1);
        cut = cut < len ? cut : len;
        p[0] = (struct piece){at, cut, 0};
        p[1] = (struct piece){at + cut, (len - cut) / 2, 0};
        p[2] = (struct piece){at + cut + (len - cut) / 2, (len - cut + 1) / 2, 0};
        return 3;
    }
    *at8(at) = (uint8_t)or_else(r & 7, 8, r >> 8);
    *at8(at + 1) = (uint8_t)or_else(r >> 3 & 7, 8, r >> 16);
    *at64(at + 2) = or_else(r >> 20 & 7, 2, rnd());
    n = 2 + below(12);
    if (*at8(at) == 1) { /* tables of addresses, and lies about how many there are */
        uint32_t uni = PICK(tables), multi = PICK(tables);

        *at8(at + 1) = r >> 3 & 1;
        *at32(at + 2) = uni;
        n = 10 + (uint32_t)or_else(6 * (uni % 128 + multi % 128), 3, below(400));
        *at32(at + 6 + 6 * (uni % 128)) = multi;
    }
    p[0] = (struct piece){at, 1, 0};
    p[1] = (struct piece){at + 1, (uint32_t)or_else(n - 1, 8, limit() % BLOB), 0};
    p[2] = (struct piece){at + BLOB - 8, (uint32_t)or_else(1, 8, below(3)), D_WRITE};
    return (uint32_t)or_else(3, 8, 1 + below(2));
}

static uint32_t fill_vsock(uint32_t dev, uint32_t q, struct piece *p)
{
    static const uint32_t rx[] = {0, 1, 43, 44, 45, 100, 1024, 4096, 65536};
    static const uint32_t ports[] = {7, 7, 8, 9, 77, 0, 0xffffffff};
    static const uint32_t allocs[] = {0, 1, 4096, 65536, 0x7fffffff, 0x80000000, 0xffffffff};
    uint64_t at = blob(), r = rnd();
    uint32_t len;

    if (q != 1) {
        p[0] = (struct piece){at, q == 0 ? PICK(rx) : limit() % 64, D_WRITE};
        return 1;
    }
    len = r & 3 ? below(200) : limit() % (BLOB - 64);
    packet(at, or_else(cids[dev], 16, limit()), (uint32_t)or_else(below(24), 16, rnd()),
           (uint32_t)or_else(PICK(ports), 8, 0x40000000 + below(32)),
           (uint32_t)or_else(len, 8, limit()), (uint32_t)or_else(1 + below(7), 16, limit()));
    *at64(at + 8) = or_else(2, 16, limit());
    *at16(at + 28) = (uint16_t)or_else(1 + below(2), 16, limit());
    *at32(at + 32) = (uint32_t)or_else(below(4), 8, rnd());
    *at32(at + 36) = PICK(allocs);
    *at32(at + 40) = (uint32_t)or_else(below(3000), 2, limit());
    p[0] = (struct piece){at, (uint32_t)or_else(VS_HDR, 16, below(64)), 0};
    p[1] = (struct piece){at + VS_HDR, len, 0};
    return len ? 2 : 1;
}

static uint32_t fill_balloon(uint32_t q, struct piece *p)
{
    static const uint32_t counts[] = {1, 2, 3, 16, 17, 255, 257};
    uint32_t n = (uint32_t)or_else(PICK(counts), 64, 3072), how = below(7), first = below(4096);
    uint64_t at = blob(), r = rnd();

    if (q == 2) {
        for (uint32_t i = 0; i < 12; i++)
            *at16(at + 10 * i) = (uint16_t)or_else(i, 3, rnd());
        p[0] = (struct piece){at, (uint32_t)or_else(120, 2, limit() % BLOB), 0};
        return 1;
    }
    if (q > 2) {
        p[0] = (struct piece){or_else(at + below(8192), 3, SANDBOX),
                              or_else(limit() % BLOB, 3, 0) ? below(BLOB)
                                                            : (uint32_t)(RAM_END - SANDBOX),
                              r & 15 ? D_WRITE : 0};
        return 1;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t page = how == 0   ? first + i
                        : how == 1 ? first - i
                        : how == 2 ? (uint32_t)(SANDBOX / 4096) + i /* all there is, rings too */
                        : how == 3 ? (uint32_t)(SANDBOX / 4096) + i / 2
                        : how == 4 ? (uint32_t)(RAM_END / 4096) - 2 + i
                        : how == 5 ? (uint32_t)nowhere() - i
                                   : (uint32_t)rnd();
        *at32(at + 4 * i) = page;
    }
    p[0] = (struct piece){at, 4 * n - (r & 7 ? 0 : below(4)), 0};
    p[1] = (struct piece){at, (uint32_t)or_else(4, 2, BLOB), 0};
    return 1 + (r >> 8 & 1);
}

/* A request as the device's type has it, but for what or_else says. */
static uint32_t fill(uint32_t dev, uint32_t q, struct piece *p)
{
    uint32_t n = kind[dev] == NET     ? fill_net(q, p)
                 : kind[dev] == VSOCK ? fill_vsock(dev, q, p)
                                      : fill_balloon(q, p);

    if (below(64) == 0)
        p[below(n)].write ^= D_WRITE;
    if (below(64) == 0)
        p[below(n)].at = nowhere();
    if (below(64) == 0)
        p[below(n)].len = limit();
    return n;
}

/* ---- its rings ---- */

static struct queue bad[DEVICES][QUEUES];

static uint64_t bad_at(uint32_t dev, uint32_t q)
{
    return SANDBOX + 0x4000 * (QUEUES * dev + q);
}

enum { FAIR, FOUL, WHOLE }; /* the rings are in order; or may not be; with all features, too */

/* Brings a device up, most times as it should be: else no ring would ever be read. */
static void rise(uint32_t dev, int how)
{
    int foul = how == FOUL;
    uint64_t f;

    wr(dev, STATUS, 0);
    CHECK(rd(dev, STATUS) == 0 && rd(dev, INTERRUPT) == 0); /* this much is sure */
    wr(dev, STATUS, 3);
    f = offered(dev);
    f &= or_else(~0ull, 2, how == WHOLE ? ~0ull : rnd() | 0x7ull << 32);
    f = or_else(f, 2, f & ~F_PACKED);
    if (foul)
        f = or_else(f, 24, f ^ 1ull << below(64)) | (kind[dev] == VSOCK ? 1 : 0);
    choose(dev, f);
    wr(dev, STATUS, 11);
    if (rd(dev, STATUS) != 11 && below(8)) { /* features that need others, say */
        f &= F_VERSION | F_PACKED | F_EVENT | F_INDIRECT | (kind[dev] == NET ? 0x60000 : 3);
        wr(dev, STATUS, 0);
        wr(dev, STATUS, 3);
        choose(dev, f & offered(dev));
        wr(dev, STATUS, 11);
    }
    if (kind[dev] == VSOCK)
        cids[dev] = cid_of(dev);
    for (uint32_t q = 0; q < queues_of(dev); q++) {
        struct queue *r = &bad[dev][q];

        ring_init(r, dev, q, bad_at(dev, q), 8u << below(4), (f & F_PACKED) != 0);
        if (foul && below(40) == 0)
            r->size = limit();
        if (foul && below(40) == 0)
            r->driver = or_else(r->desc + limit() % 0x4000, 2, nowhere());
        if (foul && below(40) == 0)
            r->device = or_else(r->desc + limit() % 0x4000, 2, nowhere());
        if (how == WHOLE || below(16))
            ring_registers(r);
        if (foul && below(40) == 0)
            wr(dev, QUEUE_DESC + 4 + 16 * below(3), (uint32_t)rnd());
        ring_init(r, dev, q, bad_at(dev, q), r->size & 64 ? 64 : r->size & 32 ? 32 : 8, r->packed);
    }
    wr(dev, STATUS, 15);
}

/* A while for the device to look at what it was given; back to life if that broke it. */
static void look(uint32_t dev)
{
    for (uint32_t i = 0; i < 200; i++)
        fence();
    if (rd(dev, STATUS) & 0xc0 || below(16) == 0)
        rise(dev, FAIR);
}

/* ---- its tricks ---- */

/* One field of a proper chain is another. */
static void trick_descriptor(uint32_t dev, struct queue *q)
{
    static const uint16_t flags[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 0x80, 0x8000, 0x8080, 0xffff};
    struct piece p[4];
    uint64_t d = add(q, 0, p, fill(dev, q->n, p));

    switch (below(6)) {
    case 0:
        *at64(d) = nowhere();
        break;
    case 1:
        *at32(d + 8) = limit();
        break;
    case 2:
        *at64(d) = RAM_END - limit() % 0x10000;
        *at32(d + 8) = 0x10000;
        break;
    case 3:
        *at16(d + 12) = PICK(flags);
        break;
    case 4:
        *at16(d + 14) = PICK(flags);
        break;
    default:
        *at16(d + 12 + 2 * (rnd() & 1)) = (uint16_t)limit();
        break;
    }
    kick(q);
}

/* Chains that come back to themselves, or never end. */
static void trick_loop(uint32_t dev, struct queue *q)
{
    uint32_t n = 1 + below(q->size);

    (void)dev;
    for (uint32_t i = 0; i < q->size; i++) {
        struct piece p = {DATA + BLOB * (i % 64), 64, q->n == 1 ? 0 : D_WRITE};

        describe(q->desc + 16 * i, &p,
                 q->packed ? i | (D_NEXT | p.write | (q->wrap ? 0x80u : 0x8000u)) << 16
                           : D_NEXT | p.write | (i + 1) % n << 16);
    }
    *at16(q->driver + 4 + 2 * (q->next % q->size)) = (uint16_t)below(n);
    *at16(q->driver + 2) = (uint16_t)(q->next + 1);
    kick(q);
}

/* A table of descriptors: too long, too short, in a table, with a loop, nowhere. */
static void trick_indirect(uint32_t dev, struct queue *q)
{
    struct piece p[4], t = {blob(), 0, D_INDIRECT};
    uint32_t n = fill(dev, q->n, p), how = below(8);
    uint64_t d;

    for (uint32_t i = 0; i < n; i++)
        describe(t.at + 16 * i, &p[i],
                 q->packed ? i | p[i].write << 16
                           : p[i].write | (i + 1 < n ? D_NEXT : 0) | (i + 1) << 16);
    t.len = 16 * n;
    if (how == 0)
        t.len = limit();
    if (how == 1)
        *at16(t.at + 16 * (n - 1) + 12) = D_NEXT; /* beyond the table, or back */
    if (how == 2)
        *at16(t.at + (q->packed ? 14 : 12)) |= D_INDIRECT;
    if (how == 3)
        t.at = nowhere();
    if (how == 4)
        t.at = q->desc; /* the ring itself */
    d = add(q, 1, &t, 1);
    if (how == 5)
        *at16(d + (q->packed ? 14 : 12)) |= D_NEXT | D_WRITE;
    kick(q);
}

/* The indices, the flags and the event indices of both sides. */
static void trick_index(uint32_t dev, struct queue *q)
{
    struct piece p[4];

    (void)add(q, 0, p, fill(dev, q->n, p));
    switch (below(6)) {
    case 0:
        *at16(q->driver + 2) = (uint16_t)(q->next + limit());
        break;
    case 1:
        *at16(q->driver + 4 + 2 * below(q->size)) = (uint16_t)limit();
        break;
    case 2:
        *at32(q->driver) = (uint32_t)rnd(); /* packed: the event suppression structure */
        *at16(q->driver + 4 + 2 * q->size) = (uint16_t)limit();
        break;
    case 3:
        *at16(q->device + 2) = (uint16_t)limit();
        *at16(q->device + 4 + 8 * q->size) = (uint16_t)limit();
        break;
    case 4:
        for (uint32_t i = 0; i < q->size; i++) /* all at once, again and again */
            *at16(q->driver + 4 + 2 * i) = 0;
        *at16(q->driver + 2) = (uint16_t)(q->next + q->size);
        break;
    default:
        for (uint32_t i = 0; i < q->size; i++)
            *at16(q->desc + 16 * i + 14) ^= 0x8080;
        break;
    }
    kick(q);
}

/* A ring full of requests, and notifications without end, of queues that there are not, too. */
static void trick_storm(uint32_t dev, struct queue *q)
{
    for (uint32_t i = 0; i < 24; i++) {
        struct piece p[4];

        (void)fill(dev, q->n, p);
        if (i < q->size)
            (void)add(q, (uint16_t)i, p, 1);
        wr(dev, QUEUE_NOTIFY, i % 4 ? q->n : limit());
    }
}

/* The device is reset, a queue is, or is moved, with requests under way. */
static void trick_reset(uint32_t dev, struct queue *q)
{
    struct piece p[4];

    (void)add(q, 0, p, fill(dev, q->n, p));
    kick(q);
    wr(dev, QUEUE_SEL, (uint32_t)or_else(q->n, 4, limit()));
    switch (below(5)) {
    case 0:
        wr(dev, QUEUE_READY, 0);
        wr(dev, QUEUE_DESC, (uint32_t)nowhere());
        wr(dev, QUEUE_READY, 1);
        break;
    case 1:
        wr(dev, 0xc0, 1); /* there is no reset of a queue */
        break;
    case 2:
        wr(dev, STATUS, 0);
        break;
    case 3:
        wr(dev, STATUS, 128);
        kick(q);
        break;
    default:
        wr(dev, STATUS, limit());
        break;
    }
    kick(q);
    rise(dev, below(2) ? FAIR : FOUL);
}

/* Features, states and the configuration as they must not be. */
static void trick_features(uint32_t dev, struct queue *q)
{
    static const uint8_t steps[] = {0, 1, 2, 3, 4, 7, 8, 9, 11, 15, 64, 128, 255};

    (void)q;
    for (uint32_t i = 0; i < 12; i++) {
        if (below(2))
            choose(dev, or_else(offered(dev) ^ 1ull << below(64), 3, rnd()));
        wr(dev, STATUS, PICK(steps));
        if (below(2))
            wr(dev, CONFIG + 4 * below(8), limit());
        else
            *at8(WINDOW + STRIDE * dev + CONFIG + below(32)) = (uint8_t)limit();
    }
    rise(dev, FOUL);
}

/* Requests that are in order, one after the other: what they say is not. */
static void trick_requests(uint32_t dev, struct queue *q)
{
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t n = (uint32_t)or_else(q->n, 2, below(queues_of(dev))), len;
        struct queue *r = &bad[dev][n];
        struct piece p[4];

        (void)add(r, (uint16_t)(i % 4 * 4), p, fill(dev, n, p));
        if (i % 4 == 3) {
            kick(r);
            for (uint32_t k = 0; k < 50 && take(r, &len) < 0; k++)
                fence();
        }
    }
    kick(q);
}

/* As many connections as there are ports, to listeners that take them or never do. */
static void trick_connections(uint32_t dev, struct queue *q)
{
    static uint32_t port = 10000;
    struct queue *tx = &bad[dev][1];
    uint32_t to = 7 + below(3), len;

    (void)q;
    for (uint32_t i = 0; i < 12; i++) {
        for (uint32_t k = 0; k < tx->size; k++) {
            struct piece p = {DATA + 64 * k, VS_HDR, 0};

            packet(p.at, cids[dev], port++, to, 0, REQUEST);
            (void)add(tx, (uint16_t)k, &p, 1);
        }
        kick(tx);
        if (i % 2)
            trick_requests(dev, &bad[dev][0]);
        for (uint32_t k = 0; k < 100 && take(tx, &len) < 0; k++)
            fence();
    }
}

/* A connection to one who does not read, and more than its credit allows. */
static void trick_credit(uint32_t dev, struct queue *q)
{
    static uint32_t port = 5000000;
    struct queue *tx = &bad[dev][1];
    struct piece p[2] = {{DATA, VS_HDR, 0}, {DATA + BLOB, 0, 0}};
    uint32_t len;

    (void)q;
    for (uint32_t i = 0; i < tx->size && i < 8; i++) {
        struct piece room = {DATA + BLOB * (8 + i), 4096, D_WRITE};

        (void)add(&bad[dev][0], (uint16_t)i, &room, 1);
    }
    kick(&bad[dev][0]);
    port++;
    for (uint32_t i = 0; i < 40; i++) {
        p[1].len = i ? 0x2000 : 0;
        packet(DATA, cids[dev], port, 9, p[1].len, i ? RW : REQUEST);
        *at32(DATA + 36) = 0xffffffff; /* send as much as you like: nothing is read */
        (void)add(tx, 0, p, i ? 2 : 1);
        kick(tx);
        for (uint32_t k = 0; k < (i ? 100 : 3000) && take(i ? tx : &bad[dev][0], &len) < 0; k++)
            fence(); /* first for the answer */
    }
}

/* All pages there are: upwards, downwards, each twice; the ring, the list and the rest of them. */
static void trick_pages(uint32_t dev, struct queue *q)
{
    uint32_t first = (uint32_t)(SANDBOX / 4096), pages = (uint32_t)(RAM_END / 4096) - first;
    struct piece p = {blob(), 4 * pages, 0};
    uint32_t how = below(3);

    q = &bad[dev][below(2)];
    for (uint32_t i = 0; i < pages; i++)
        *at32(p.at + 4 * i) = how == 0 ? first + i : how == 1 ? first + pages - i : first + i / 2;
    (void)add(q, 0, &p, 1);
    kick(q);
    p = (struct piece){SANDBOX + below(4096), (uint32_t)(RAM_END - SANDBOX) - 4096, D_WRITE};
    (void)add(&bad[dev][4], 0, &p, 1);
    kick(&bad[dev][4]);
}

/* Frames in order but for their headers, with all offloads; then commands, most of them wrong. */
static void trick_headers(uint32_t dev, struct queue *q)
{
    static const uint8_t gso[] = {0, 0, 0, 1, 1, 4, 5, 0x81, 3, 0xff};
    uint32_t len = 60 + below(40), used;
    const uint32_t list[] = {0, 14, 34, len / 2, len - 3, len - 2, len - 1, len, 0xffff};
    struct piece p = {blob(), NET_HDR + len, 0};

    rise(dev, WHOLE);
    q = &bad[dev][1];
    for (uint32_t i = 0; i < 32; i++) {
        *at8(p.at) = i % 8 != 0;
        *at8(p.at + 1) = PICK(gso);
        for (uint32_t k = 2; k < 12; k += 2)
            *at16(p.at + k) = (uint16_t)PICK(list);
        (void)add(q, 0, &p, 1);
        kick(q);
        for (uint32_t k = 0; k < 100 && take(q, &used) < 0; k++)
            fence();
    }
    trick_requests(dev, &bad[dev][2]);
}

static void command(uint32_t dev, uint32_t class, uint32_t what, uint64_t data, uint32_t len)
{
    struct piece p[2] = {{DATA, 2 + len, 0}, {DATA + 64, 1, D_WRITE}};
    uint32_t used;

    *at16(DATA) = (uint16_t)(class | what << 8);
    *at64(DATA + 2) = data;
    (void)add(&bad[dev][2], 0, p, 2);
    kick(&bad[dev][2]);
    for (uint32_t k = 0; k < 1000 && take(&bad[dev][2], &used) < 0; k++)
        fence();
}

/* What it leaves behind: a broken ring; or a network that hears nothing, and full rings. */
static void last_trick(uint32_t dev, int broken)
{
    rise(dev, WHOLE);
    if (broken) {
        trick_loop(dev, &bad[dev][0]);
        return;
    }
    if (kind[dev] == NET) {
        command(dev, 0, 0, 0, 1);          /* not promiscuous */
        command(dev, 1, 1, 0x7f54321e, 6); /* another address */
    } else if (kind[dev] == VSOCK) {
        trick_credit(dev, &bad[dev][1]);
    }
    for (uint32_t q = 0; q < queues_of(dev); q++)
        trick_storm(dev, &bad[dev][q]);
}

static void hostile_tricks(uint32_t dev, uint64_t tricks)
{
    static void (*const common[])(uint32_t, struct queue *) = {
        trick_descriptor, trick_loop,  trick_indirect, trick_index,
        trick_storm,      trick_reset, trick_features, trick_requests};

    rise(dev, FAIR);
    for (uint64_t i = 0; i < tricks; i++) {
        struct queue *q = &bad[dev][i / 9 % queues_of(dev)];

        if (i % 9 < 8)
            common[i % 9](dev, q);
        else if (kind[dev] == VSOCK && i / 9 % 2 == 0)
            trick_connections(dev, q);
        else if (kind[dev] == VSOCK)
            trick_credit(dev, q);
        else if (kind[dev] == BALLOON)
            trick_pages(dev, q);
        else
            trick_headers(dev, q);
        look(dev);
    }
}

/* ---- its random steps ---- */

static void stray(uint32_t dev)
{
    uint64_t r = rnd(), at = WINDOW + dev * STRIDE;

    at += r & 1 ? (r >> 8) % 0x104 & ~3ull : CONFIG + (r >> 8) % 64;
    if ((r >> 16 & 15) == 0)
        at += r >> 20 & 3;
    switch (r >> 32 & 7) {
    case 0:
        (void)*at8(at);
        (void)*at32(at);
        break;
    case 1:
        *at8(at) = (uint8_t)limit();
        break;
    case 2:
        *at16(at) = (uint16_t)limit();
        break;
    case 3:
        *at64(at) = rnd();
        break;
    default:
        *at32(at) = limit();
        break;
    }
}

/* Where rings and buffers are. */
static void scribble(uint32_t dev)
{
    uint64_t r = rnd();
    uint64_t at = r & 3 ? bad_at(dev, below(QUEUES)) + below(4) * 0x1000 + below(66) * 16
                        : blob() + below(256);

    if (r & 4) {
        *at64(at) = or_else(blob(), 2, nowhere());
        *at32(at + 8) = limit();
        *at32(at + 12) = (uint32_t)(r >> 32) & 0x8087000f;
    } else {
        *at16(at + (r >> 8 & 14)) = (uint16_t)or_else(limit(), 2, rnd());
    }
}

static void hostile_steps(uint64_t steps)
{
    for (uint64_t n = 0; n < steps; n++) {
        uint32_t dev = below(devices), q = below(queues_of(dev)), what = below(64), len;
        struct queue *r = &bad[dev][q];
        struct piece p[4];

        if (what == 0 || (what < 12 && (rd(dev, STATUS) & 0xc0))) {
            rise(dev, FOUL);
            n += 10;
        } else if (what < 3) {
            wr(dev, INTERRUPT_ACK, rd(dev, INTERRUPT));
        } else if (what < 7) {
            wr(dev, QUEUE_NOTIFY, (uint32_t)or_else(q, 8, limit()));
        } else if (what < 16) {
            stray(dev);
        } else if (what < 24) {
            scribble(dev);
        } else {
            (void)add(r, (uint16_t)(n % 8), p, fill(dev, q, p));
            if (what & 1)
                kick(r);
            (void)take(r, &len);
        }
    }
}

/* ---- */

static const char *next_number(const char *s, uint64_t *n)
{
    *n = 0;
    while (*s && (*s < '0' || *s > '9'))
        s++;
    while (*s >= '0' && *s <= '9')
        *n = *n * 10 + (uint64_t)(*s++ - '0');
    return s;
}

void world(const uint8_t *zero_page);
void world(const uint8_t *zero_page)
{
    const char *line = (const char *)(uintptr_t) * (const uint32_t *)(zero_page + CMDLINE);
    uint64_t seed, tricks, steps;
    int all = 0;

    line = next_number(line, &seed);
    line = next_number(line, &tricks);
    (void)next_number(line, &steps);
    state = seed * 0x9e3779b97f4a7c15ull | 1;
    for (; devices < DEVICES && rd(devices, MAGIC_REG) == 0x74726976; devices++) {
        kind[devices] = rd(devices, DEVICE_ID);
        CHECK(kind[devices] == NET || kind[devices] == VSOCK || kind[devices] == BALLOON);
    }
    CHECK(devices > 0);
    interrupts();
    print("ready\n");
    for (;;) {
        switch (receive()) {
        case 'h':
            for (uint32_t i = 0; i < devices; i++)
                hostile_tricks(i, tricks);
            hostile_steps(steps);
            for (uint32_t i = 0; i < devices; i++)
                last_trick(i, !all);
            print("over\n");
            break;
        case 'g':
            good(all);
            all = !all;
            print("good\n");
            break;
        case 'q':
            power_off();
            break;
        default:
            break;
        }
    }
}

/* RSI is the zero page; the stack is the boot code's. */
__asm__(".globl _start\n_start: mov %rsi, %rdi\n call world\n1: hlt\n jmp 1b\n");
