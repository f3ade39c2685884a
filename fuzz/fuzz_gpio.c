/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Sequences of register accesses, lines that change, saves and restores of good and of broken
 * states. Properties, line by line: a level is the wire's or the guest's; an edge is seen where it
 * was asked for, and stays until it is cleared; the interrupt line is MIS; accesses that are no
 * register's do nothing; save, restore, save gives the same record; a restored wreck does not
 * crash, and is refused or valid.
 */
#include "tn_gpio.h"

#include "fuzz.h"

struct rig {
    struct tn_gpio gpio;
    bool line;
};

static void on_irq(void *ctx, bool level)
{
    struct rig *r = ctx;

    FZ_ASSERT(level != r->line);
    r->line = level;
}

static bool bit(unsigned value, unsigned line)
{
    return value >> line & 1;
}

static void check(const struct rig *r)
{
    const struct tn_gpio_state *s = &r->gpio.state;
    uint64_t data = tn_gpio_read(&r->gpio, 0x3fc, 4), ris = tn_gpio_read(&r->gpio, TN_GPIO_RIS, 4);
    uint64_t mis = tn_gpio_read(&r->gpio, TN_GPIO_MIS, 4);

    FZ_ASSERT(tn_gpio_valid_(s));
    FZ_ASSERT(data <= 0xff && ris <= 0xff && mis == (ris & s->ie));
    FZ_ASSERT(r->line == (mis != 0) && r->line == r->gpio.level);
    for (unsigned i = 0; i < TN_GPIO_LINES; i++) {
        bool output = bit(s->dir, i), level = !output && bit(s->in, i) == bit(s->iev, i);

        FZ_ASSERT(bit((unsigned)data, i) == bit(output ? s->out : s->in, i));
        FZ_ASSERT(bit((unsigned)ris, i) == (bit(s->is, i) ? level : bit(s->edges, i)));
    }
}

static void set(struct rig *r, unsigned line, bool level)
{
    struct tn_gpio_state a = r->gpio.state, *s = &r->gpio.state;
    unsigned in = a.in, edges = a.edges;

    tn_gpio_set(&r->gpio, line, level);
    if (line < TN_GPIO_LINES) {
        in = (in & ~(1u << line)) | (unsigned)level << line;
        if (in != a.in && !bit(a.dir, line) && !bit(a.is, line) &&
            (bit(a.ibe, line) || bit(a.iev, line) == level))
            edges |= 1u << line;
    }
    FZ_ASSERT(s->in == in && s->edges == edges);
    a.in = s->in;
    a.edges = s->edges;
    FZ_ASSERT(memcmp(&a, s, sizeof(a)) == 0);
}

static void write_register(struct rig *r, uint64_t off, unsigned width, uint64_t value)
{
    struct tn_gpio_state a = r->gpio.state;
    uint8_t low = (uint8_t)value,
            *kept[] = {&a.dir, &a.is, &a.ibe, &a.iev, &a.ie, NULL, NULL, NULL, &a.afsel};

    if ((width == 1 || width == 2 || width == 4) && off % 4 == 0) {
        unsigned mask = (unsigned)(off >> 2 & 0xff) & a.dir;

        if (off < TN_GPIO_DIR)
            a.out = (uint8_t)((a.out & ~mask) | (low & mask));
        else if (off == TN_GPIO_IC)
            a.edges &= (uint8_t)~low;
        else if (off <= TN_GPIO_AFSEL && kept[(off - TN_GPIO_DIR) / 4])
            *kept[(off - TN_GPIO_DIR) / 4] = low;
    }
    tn_gpio_write(&r->gpio, off, width, value);
    FZ_ASSERT(memcmp(&a, &r->gpio.state, sizeof(a)) == 0);
}

static void read_register(const struct rig *r, uint64_t off, unsigned width)
{
    uint64_t value = tn_gpio_read(&r->gpio, off, width);

    FZ_ASSERT(value <= 0xff);
    if ((width != 1 && width != 2 && width != 4) || off % 4 != 0 || off >= TN_GPIO_SIZE)
        FZ_ASSERT(value == 0);
    else if (off < TN_GPIO_DIR)
        FZ_ASSERT(value == (tn_gpio_read(&r->gpio, 0x3fc, 1) & off >> 2));
}

static void save_restore(const struct rig *r)
{
    struct tn_gpio_cfg cfg = r->gpio.cfg;
    struct tn_gpio_state a, b;
    struct rig other;

    memset(&other, 0, sizeof(other));
    cfg.ctx = &other;
    tn_gpio_save(&r->gpio, &a);
    FZ_ASSERT(tn_gpio_init(&other.gpio, &cfg) == 0);
    FZ_ASSERT(tn_gpio_restore(&other.gpio, &a) == 0);
    check(&other);
    tn_gpio_save(&other.gpio, &b);
    FZ_ASSERT(memcmp(&a, &b, sizeof(a)) == 0 && other.line == r->line);
}

static void restore(struct rig *r, const struct tn_gpio_state *from)
{
    struct tn_gpio_state before = r->gpio.state;
    bool taken = tn_gpio_restore(&r->gpio, from) == 0;

    FZ_ASSERT(memcmp(&r->gpio.state, taken ? from : &before, sizeof(before)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tn_gpio_state state;
    struct rig r;
    struct fz z;
    struct tn_gpio_cfg cfg = {&r, on_irq};
    uint64_t off;

    fz_init(&z, data, size);
    memset(&r, 0, sizeof(r));
    FZ_ASSERT(tn_gpio_init(&r.gpio, &cfg) == 0);
    for (unsigned op = 0; op < 4096 && z.left > 0; op++) {
        uint8_t what = fz_u8(&z);

        switch (what >> 4) {
        case 0:
        case 1:
        case 2:
            set(&r, what & 7, what >> 3 & 1);
            break;
        case 3:
            set(&r, fz_u8(&z), what & 1);
            break;
        case 4:
        case 5:
        case 6:
        case 7:
            write_register(&r, TN_GPIO_DIR + (what & 15u) * 4, 1u << (what >> 4) % 3, fz_u8(&z));
            break;
        case 8:
            off = fz_u8(&z);
            write_register(&r, off << 2, 1, fz_u8(&z));
            break;
        case 9:
            read_register(&r, fz_u16(&z) % 0x1100, 1u << what % 4);
            break;
        case 10:
            off = fz_u64(&z);
            write_register(&r, off, what & 15, fz_u64(&z));
            read_register(&r, off, what & 15);
            break;
        case 11:
            write_register(&r, fz_u16(&z) % 0x1100, what & 15, fz_u32(&z));
            break;
        case 12:
            if (what & 1)
                tn_gpio_reset(&r.gpio);
            else
                save_restore(&r);
            break;
        case 13:
            tn_gpio_save(&r.gpio, &state);
            fz_spoil(&z, &state, sizeof(state), 1 + (what & 3u));
            restore(&r, &state);
            break;
        default:
            memset(&state, 0, sizeof(state));
            fz_bytes(&z, &state, sizeof(state));
            if (what & 1) {
                state.version = TN_GPIO_VERSION;
                memset(state.zero, 0, sizeof(state.zero));
            }
            restore(&r, &state);
            break;
        }
        check(&r);
    }
    return 0;
}
