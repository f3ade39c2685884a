/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_gpio - a PrimeCell PL061 GPIO controller: eight lines, which may interrupt.
 *
 * WHAT
 *   The registers of the GPIO controller that arm64 machines have, as Linux's gpio-pl061 driver and
 *   the AMBA bus expect them. Its lines are wires to things such as a power button: the caller says
 *   what level each has, and the guest has an interrupt of the levels or edges that it chooses.
 *
 * USAGE
 *   static void line(void *ctx, bool level)
 *   {
 *       *(bool *)ctx = level;
 *   }
 *   ---
 *   bool irq = false;
 *   struct tn_gpio_cfg cfg = {&irq, line};
 *   struct tn_gpio gpio;
 *
 *   if (tn_gpio_init(&gpio, &cfg) < 0)
 *       return 1;
 *   tn_gpio_write(&gpio, TN_GPIO_IBE, 1, 1u << 3);
 *   tn_gpio_write(&gpio, TN_GPIO_IE, 1, 1u << 3);
 *   tn_gpio_set(&gpio, 3, true); // the interrupt line is high now
 *   if (!irq || tn_gpio_read(&gpio, TN_GPIO_MIS, 1) != 1u << 3)
 *       return 1;
 *   tn_gpio_write(&gpio, TN_GPIO_IC, 1, 1u << 3);
 *
 * COMPOSITION
 *   A bus handler passes accesses to TN_GPIO_SIZE bytes on, the offset within them. What is wired
 *   to a line calls tn_gpio_set. irq must not call anything here.
 *
 * GUEST TRUST
 *   Offsets, widths and values may be the guest's, unchecked; a saved state may be a hostile
 *   file's. An access costs at most one call of irq.
 *
 * MEMORY
 *   struct tn_gpio is all there is; it may be copied and moved between calls.
 *
 * THREADS
 *   One call at a time on one struct; the caller has the lock. irq runs inside the call.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   ARM PrimeCell General Purpose Input/Output (PL061) Technical Reference Manual, ARM DDI 0190,
 *   chapter 3 (registers) and section 2.3 (interrupt detection).
 *
 * LIMITS
 *   Nothing is wired to what the guest drives: the levels of lines that are outputs are read back,
 *   and are in the saved state. A line that is an output raises no interrupt. GPIOAFSEL is kept,
 *   and does nothing; no integration test registers. Accesses are of 8, 16 or 32 bits at a
 *   register's address, and see its 8 bits: others read 0 and ignore what is written.
 */
#ifndef TN_GPIO_H
#define TN_GPIO_H

/* -- tenon common block: the same bytes in every header (make check-common) -- */
/* clang-format off */
#ifndef TN_COMMON
#define TN_COMMON
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#if !defined(TN_API) && defined(TN_DECL_ONLY)
#define TN_API extern
#elif !defined(TN_API)
#define TN_API static inline
#endif
enum tn_err { TN_OK = 0, /* or a useful positive value; tn_strerror.h has a sentence for each */
    /* the caller's fault */ TN_EINVAL = -1, TN_ENOSPC = -2, TN_ESTATE = -3, TN_EEXIST = -4,
    /* the guest's, or a file's */ TN_EADDR = -32, TN_EFORMAT = -33, TN_ETRUNC = -34,
    TN_ERANGE = -35, TN_EOVERLAP = -36, TN_EMACHINE = -37, TN_EENTRY = -38, TN_ENOFIT = -39,
    TN_EUNSUP = -40, TN_EPROTO = -41, /* the environment's; errno tells */ TN_ESYS = -64,
    TN_EAGAIN = -65, TN_ENODEV = -66, /* ours */ TN_EBUG = -96 };
struct tn_iov { uint8_t *base; size_t len; }; /* memory in this process; as struct iovec */
/*@ requires n <= 8 && \valid_read(p + (0 .. n - 1)); assigns \nothing; */
static inline uint64_t tn_get_(const volatile uint8_t *p, unsigned n) /* little-endian load */
{
    uint64_t v = 0;
    /*@ loop invariant n <= \at(n, Pre); loop assigns n, v; loop variant n; */
    while (n > 0) v = v << 8 | p[--n];
    return v;
}
/*@ requires n <= 8 && \valid(p + (0 .. n - 1)); assigns p[0 .. n - 1]; */
static inline void tn_put_(uint8_t *p, unsigned n, uint64_t v) /* little-endian store */
{
    /*@ loop invariant i <= n; loop assigns i, p[0 .. n - 1]; loop variant n - i; */
    for (unsigned i = 0; i < n; i++) p[i] = (uint8_t)(v >> 8 * i);
}
#endif /* TN_COMMON */
/* clang-format on */

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

/* Register offsets (table 3-1); a bit in each for each line. */
#define TN_GPIO_DATA  0x000 /* levels, to 0x3fc: bits 9:2 of the address say of which lines */
#define TN_GPIO_DIR   0x400 /* 1: an output */
#define TN_GPIO_IS    0x404 /* interrupt sense: 1: a level; 0: an edge */
#define TN_GPIO_IBE   0x408 /* both edges; 0: the one that IEV says */
#define TN_GPIO_IEV   0x40c /* event: 1: rising edge, high level; 0: falling edge, low level */
#define TN_GPIO_IE    0x410 /* interrupt mask: those of RIS that make the interrupt */
#define TN_GPIO_RIS   0x414 /* raw interrupt status, read */
#define TN_GPIO_MIS   0x418 /* masked interrupt status, read */
#define TN_GPIO_IC    0x41c /* interrupt clear, of edges; write */
#define TN_GPIO_AFSEL 0x420 /* alternate function select */
#define TN_GPIO_ID    0xfe0 /* GPIOPeriphID0-3 and GPIOPCellID0-3, a byte in each word, read */

#define TN_GPIO_LINES   8u
#define TN_GPIO_SIZE    0x1000 /* bytes of guest physical space */
#define TN_GPIO_VERSION 1      /* of struct tn_gpio_state */

struct tn_gpio_cfg {
    void *ctx;
    /* The interrupt line, GPIOINTR; called when the level changes. It is low at first. */
    void (*irq)(void *ctx, bool level);
};

/* Every register; a bit for each line. */
struct tn_gpio_state {
    uint32_t version; /* TN_GPIO_VERSION */
    uint8_t in;       /* what tn_gpio_set said */
    uint8_t out;      /* what the guest wrote to GPIODATA when the line was an output */
    uint8_t dir;
    uint8_t is;
    uint8_t ibe;
    uint8_t iev;
    uint8_t ie;
    uint8_t edges; /* seen, and not cleared by IC; they count while IS is 0 */
    uint8_t afsel;
    uint8_t zero[3];
};

struct tn_gpio {
    struct tn_gpio_cfg cfg;
    struct tn_gpio_state state;
    bool level; /* what cfg.irq was last told */
};

/*@ predicate tn_gpio_ok(struct tn_gpio_state *s) =
      s->version == TN_GPIO_VERSION && s->zero[0] == 0 && s->zero[1] == 0 && s->zero[2] == 0;

    logic integer tn_gpio_levels(struct tn_gpio_state *s) =
      (uint8_t)((s->out & s->dir) | (s->in & ~s->dir));

    logic integer tn_gpio_raw(struct tn_gpio_state *s) =
      (uint8_t)((s->edges & ~s->is) | (s->is & ~s->dir & ~(s->in ^ s->iev)));
*/

/*
 * Starts a controller in its reset state: all lines are inputs, and low; no interrupt. Returns 0;
 * TN_EINVAL when irq is missing.
 */
TN_API int tn_gpio_init(struct tn_gpio *gpio, const struct tn_gpio_cfg *cfg);

/*
 * Back to that state, but for the levels that tn_gpio_set gave.
 */
TN_API void tn_gpio_reset(struct tn_gpio *gpio);

/*
 * The guest reads or writes width bytes at offset off. What is no access of a register, as LIMITS
 * has it, reads 0 and ignores what is written; of value the low 8 bits count.
 */
TN_API uint64_t tn_gpio_read(const struct tn_gpio *gpio, uint64_t off, unsigned width);
TN_API void tn_gpio_write(struct tn_gpio *gpio, uint64_t off, unsigned width, uint64_t value);

/*
 * What is wired to a line, 0 to 7, drives it high or low; there are no others. While the guest has
 * it as an output this does nothing that the guest sees.
 */
TN_API void tn_gpio_set(struct tn_gpio *gpio, unsigned line, bool level);

/*
 * Copies the state out.
 */
/*@ requires \valid_read(gpio) && \valid(out) && \separated(gpio, out);
    assigns *out;
    ensures *out == gpio->state; */
TN_API void tn_gpio_save(const struct tn_gpio *gpio, struct tn_gpio_state *out);

/*
 * Takes a saved state over, the levels of what was wired with it, and sets the interrupt line.
 * Returns 0; TN_EUNSUP for another version, TN_EFORMAT for a state that no guest can reach (gpio is
 * unchanged).
 */
TN_API int tn_gpio_restore(struct tn_gpio *gpio, const struct tn_gpio_state *from);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* All below that works on a struct tn_gpio_state calls nobody; the callback is at the end. */

/* Whether every field is one that a guest's accesses can lead to: of registers any value is. */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result != 0 <==> tn_gpio_ok((struct tn_gpio_state *)s); */
static inline bool tn_gpio_valid_(const struct tn_gpio_state *s)
{
    return s->version == TN_GPIO_VERSION && s->zero[0] == 0 && s->zero[1] == 0 && s->zero[2] == 0;
}

/* The reset state, with the levels that the lines have. */
/*@ requires \valid(s);
    assigns *s;
    ensures tn_gpio_ok(s) && s->in == in;
    ensures s->out == 0 && s->dir == 0 && s->is == 0 && s->ibe == 0 && s->iev == 0;
    ensures s->ie == 0 && s->edges == 0 && s->afsel == 0; */
static inline void tn_gpio_clear_(struct tn_gpio_state *s, uint8_t in)
{
    s->version = TN_GPIO_VERSION;
    s->in = in;
    s->out = 0;
    s->dir = 0;
    s->is = 0;
    s->ibe = 0;
    s->iev = 0;
    s->ie = 0;
    s->edges = 0;
    s->afsel = 0;
    s->zero[0] = 0;
    s->zero[1] = 0;
    s->zero[2] = 0;
}

/* The levels of the lines, whoever drives them. */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result == tn_gpio_levels((struct tn_gpio_state *)s);
    ensures s->dir == 0 ==> \result == s->in; */
static inline uint8_t tn_gpio_levels_(const struct tn_gpio_state *s)
{
    return (uint8_t)((s->out & s->dir) | (s->in & ~s->dir));
}

/* RIS: the edges that were seen, and the levels that are (section 2.3). */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result == tn_gpio_raw((struct tn_gpio_state *)s);
    ensures s->is == 0 ==> \result == s->edges;
    ensures s->is == 0xff && s->dir == 0xff ==> \result == 0; */
static inline uint8_t tn_gpio_raw_(const struct tn_gpio_state *s)
{
    return (uint8_t)((s->edges & ~s->is) | (s->is & ~s->dir & ~(s->in ^ s->iev)));
}

/* The interrupt line: whether any bit of MIS is set. */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result != 0 <==> (tn_gpio_raw((struct tn_gpio_state *)s) & s->ie) != 0; */
static inline bool tn_gpio_level_(const struct tn_gpio_state *s)
{
    return (tn_gpio_raw_(s) & s->ie) != 0;
}

/* The lines have new levels, of which inputs see the edges that they are to see. */
/*@ requires \valid(s);
    assigns s->in, s->edges;
    ensures s->in == in;
    ensures s->edges == (uint8_t)(\old(s->edges) |
      ((\old(s->in) ^ in) & ~s->dir & ~s->is & (s->ibe | ~(in ^ s->iev))));
    ensures in == \old(s->in) ==> s->edges == \old(s->edges);
    ensures s->is == 0xff ==> s->edges == \old(s->edges); */
static inline void tn_gpio_move_(struct tn_gpio_state *s, uint8_t in)
{
    int wanted = s->ibe | ~(in ^ s->iev);

    s->edges = (uint8_t)(s->edges | ((s->in ^ in) & ~s->dir & ~s->is & wanted));
    s->in = in;
}

/* A register's value (chapter 3). */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures off < TN_GPIO_DIR && off % 4 == 0 ==>
      \result == (tn_gpio_levels((struct tn_gpio_state *)s) & (off / 4));
    ensures off == TN_GPIO_DIR ==> \result == s->dir;
    ensures off == TN_GPIO_IS ==> \result == s->is;
    ensures off == TN_GPIO_IBE ==> \result == s->ibe;
    ensures off == TN_GPIO_IEV ==> \result == s->iev;
    ensures off == TN_GPIO_IE ==> \result == s->ie;
    ensures off == TN_GPIO_RIS ==> \result == tn_gpio_raw((struct tn_gpio_state *)s);
    ensures off == TN_GPIO_MIS ==>
      \result == (tn_gpio_raw((struct tn_gpio_state *)s) & s->ie);
    ensures off == TN_GPIO_AFSEL ==> \result == s->afsel;
    ensures off == TN_GPIO_IC || TN_GPIO_AFSEL < off < TN_GPIO_ID ==> \result == 0;
    ensures off % 4 != 0 || off >= TN_GPIO_SIZE ==> \result == 0; */
static inline uint8_t tn_gpio_get_(const struct tn_gpio_state *s, uint64_t off)
{
    /* Part 0x061 of designer 0x41 (ARM), revision 0; then what every PrimeCell says. */
    const uint8_t id[8] = {0x61, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1};

    if (off % 4 != 0 || off >= TN_GPIO_SIZE)
        return 0;
    if (off < TN_GPIO_DIR)
        return (uint8_t)(tn_gpio_levels_(s) & (off / 4));
    switch (off) {
    case TN_GPIO_DIR:
        return s->dir;
    case TN_GPIO_IS:
        return s->is;
    case TN_GPIO_IBE:
        return s->ibe;
    case TN_GPIO_IEV:
        return s->iev;
    case TN_GPIO_IE:
        return s->ie;
    case TN_GPIO_RIS:
        return tn_gpio_raw_(s);
    case TN_GPIO_MIS:
        return tn_gpio_raw_(s) & s->ie;
    case TN_GPIO_AFSEL:
        return s->afsel;
    default:
        break;
    }
    return off < TN_GPIO_ID ? 0 : id[(off - TN_GPIO_ID) / 4];
}

/* A register is written. Of GPIODATA only lines that are outputs take their bit. */
/*@ requires \valid(s) && tn_gpio_ok(s);
    assigns s->out, s->dir, s->is, s->ibe, s->iev, s->ie, s->edges, s->afsel;
    ensures tn_gpio_ok(s);
    ensures off == TN_GPIO_DIR ==> s->dir == value;
    ensures off == TN_GPIO_IS ==> s->is == value;
    ensures off == TN_GPIO_IBE ==> s->ibe == value;
    ensures off == TN_GPIO_IEV ==> s->iev == value;
    ensures off == TN_GPIO_IE ==> s->ie == value;
    ensures off == TN_GPIO_AFSEL ==> s->afsel == value;
    ensures off == TN_GPIO_IC ==> s->edges == (uint8_t)(\old(s->edges) & ~value);
    ensures off < TN_GPIO_DIR && off % 4 == 0 ==>
      s->out == (uint8_t)((\old(s->out) & ~(uint8_t)(s->dir & (off / 4))) |
                          (value & (uint8_t)(s->dir & (off / 4))));
    ensures off != TN_GPIO_DIR ==> s->dir == \old(s->dir);
    ensures off != TN_GPIO_IS ==> s->is == \old(s->is);
    ensures off != TN_GPIO_IBE ==> s->ibe == \old(s->ibe);
    ensures off != TN_GPIO_IEV ==> s->iev == \old(s->iev);
    ensures off != TN_GPIO_IE ==> s->ie == \old(s->ie);
    ensures off != TN_GPIO_AFSEL ==> s->afsel == \old(s->afsel);
    ensures off != TN_GPIO_IC ==> s->edges == \old(s->edges);
    ensures off >= TN_GPIO_DIR || off % 4 != 0 ==> s->out == \old(s->out); */
static inline void tn_gpio_put_(struct tn_gpio_state *s, uint64_t off, uint8_t value)
{
    if (off < TN_GPIO_DIR && off % 4 == 0) {
        uint8_t mask = (uint8_t)(s->dir & (off / 4));

        s->out = (uint8_t)((s->out & ~mask) | (value & mask));
        return;
    }
    switch (off) {
    case TN_GPIO_DIR:
        s->dir = value;
        break;
    case TN_GPIO_IS:
        s->is = value;
        break;
    case TN_GPIO_IBE:
        s->ibe = value;
        break;
    case TN_GPIO_IEV:
        s->iev = value;
        break;
    case TN_GPIO_IE:
        s->ie = value;
        break;
    case TN_GPIO_IC:
        s->edges = (uint8_t)(s->edges & ~value);
        break;
    case TN_GPIO_AFSEL:
        s->afsel = value;
        break;
    default:
        break;
    }
}

static inline bool tn_gpio_width_ok_(unsigned width)
{
    return width == 1 || width == 2 || width == 4;
}

static inline void tn_gpio_tell_(struct tn_gpio *gpio)
{
    bool level = tn_gpio_level_(&gpio->state);

    if (level == gpio->level)
        return;
    gpio->level = level;
    gpio->cfg.irq(gpio->cfg.ctx, level);
}

TN_API int tn_gpio_init(struct tn_gpio *gpio, const struct tn_gpio_cfg *cfg)
{
    if (!cfg->irq)
        return TN_EINVAL;
    gpio->cfg = *cfg;
    tn_gpio_clear_(&gpio->state, 0);
    gpio->level = false;
    return 0;
}

TN_API void tn_gpio_reset(struct tn_gpio *gpio)
{
    tn_gpio_clear_(&gpio->state, gpio->state.in);
    tn_gpio_tell_(gpio);
}

TN_API uint64_t tn_gpio_read(const struct tn_gpio *gpio, uint64_t off, unsigned width)
{
    return tn_gpio_width_ok_(width) ? tn_gpio_get_(&gpio->state, off) : 0;
}

TN_API void tn_gpio_write(struct tn_gpio *gpio, uint64_t off, unsigned width, uint64_t value)
{
    if (!tn_gpio_width_ok_(width))
        return;
    tn_gpio_put_(&gpio->state, off, (uint8_t)(value & 0xff));
    tn_gpio_tell_(gpio);
}

TN_API void tn_gpio_set(struct tn_gpio *gpio, unsigned line, bool level)
{
    unsigned bit = line < TN_GPIO_LINES ? 1u << line : 0, in = gpio->state.in;

    tn_gpio_move_(&gpio->state, (uint8_t)(level ? in | bit : in & ~bit));
    tn_gpio_tell_(gpio);
}

TN_API void tn_gpio_save(const struct tn_gpio *gpio, struct tn_gpio_state *out)
{
    *out = gpio->state;
}

TN_API int tn_gpio_restore(struct tn_gpio *gpio, const struct tn_gpio_state *from)
{
    struct tn_gpio_state copy = *from;

    if (copy.version != TN_GPIO_VERSION)
        return TN_EUNSUP;
    if (!tn_gpio_valid_(&copy))
        return TN_EFORMAT;
    gpio->state = copy;
    tn_gpio_tell_(gpio);
    return 0;
}
#endif
#ifdef __cplusplus
}
#endif
#endif
