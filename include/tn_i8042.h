/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_i8042 - a PC's keyboard controller and a keyboard: the guest's way to reset the machine, and
 * the machine's way to ask the guest to shut down.
 *
 * WHAT
 *   Ports 0x60 and 0x64 as far as Linux's i8042 and atkbd drivers go: they find a controller with
 *   a keyboard and without a mouse, and wait for nothing. The keyboard has one thing to say:
 *   ctrl-alt-del, which a Linux guest takes as a request to reboot.
 *
 * USAGE
 *   static void reset(void *ctx)
 *   {
 *       *(bool *)ctx = true;
 *   }
 *   static void line(void *ctx, bool level)
 *   {
 *       (void)ctx;
 *       (void)level;
 *   }
 *   ---
 *   bool stop = false;
 *   struct tn_i8042_cfg cfg = {&stop, reset, line};
 *   struct tn_i8042 kbd;
 *
 *   if (tn_i8042_init(&kbd, &cfg) < 0)
 *       return 1;
 *   tn_i8042_write(&kbd, TN_I8042_COMMAND, 0xfe);
 *   if (!stop)
 *       return 1;
 *   if (tn_i8042_ctrl_alt_del(&kbd) < 0)
 *       return 1;
 *
 * COMPOSITION
 *   A bus handler turns byte accesses at 0x60 + n into tn_i8042_read and tn_i8042_write at offset
 *   n, for n = 0 and 4; the line is ISA interrupt 1. reset may call tn_i8042_reset; no callback
 *   may call anything else here.
 *
 * GUEST TRUST
 *   Offsets and values may be the guest's, unchecked; a saved state may be a hostile file's. What
 *   the guest makes the keyboard say, and does not read, is at most TN_I8042_FIFO bytes: an answer
 *   that does not fit is dropped.
 *
 * MEMORY
 *   struct tn_i8042 is all there is; it may be copied and moved between calls.
 *
 * THREADS
 *   One call at a time on one struct; the caller has the lock. Callbacks run inside the call.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   IBM Personal System/2 Hardware Interface Technical Reference (1988): "Keyboard and Auxiliary
 *   Device Controller" (controller commands, command byte, status register, output port) and
 *   "Keyboards (101- and 102-Key)" (keyboard commands, scan codes).
 *
 * LIMITS
 *   No mouse: its port tests as stuck and cannot be enabled. The line is raised for what the
 *   keyboard says, not for the controller's own answers, which drivers poll for; such an answer
 *   goes ahead of the keyboard's bytes and replaces one that was not read. With translation on
 *   (the reset state) ctrl-alt-del comes in scan code set 1, otherwise in the set that the guest
 *   chose, 1 or 2; the keyboard refuses set 3. The keyboard's answers, its identity for one, are
 *   not translated. No A20 gate: the bit can be written and does nothing.
 */
#ifndef TN_I8042_H
#define TN_I8042_H

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

#define TN_I8042_DATA    0 /* port 0x60 */
#define TN_I8042_STATUS  4 /* port 0x64, read */
#define TN_I8042_COMMAND 4 /* port 0x64, write */

#define TN_I8042_STATUS_OBF     0x01 /* a byte waits at TN_I8042_DATA */
#define TN_I8042_STATUS_SYS     0x04 /* the self test has passed */
#define TN_I8042_STATUS_CMD     0x08 /* the last write was a command */
#define TN_I8042_STATUS_KEYLOCK 0x10 /* the keyboard is not locked */

#define TN_I8042_CTR_KBDINT 0x01 /* the keyboard interrupts */
#define TN_I8042_CTR_SYS    0x04
#define TN_I8042_CTR_KBDDIS 0x10 /* the keyboard's clock is stopped */
#define TN_I8042_CTR_AUXDIS 0x20 /* the mouse's is: always 1 */
#define TN_I8042_CTR_XLATE  0x40 /* scan codes are translated to set 1 */

#define TN_I8042_FIFO    16 /* bytes that the keyboard keeps */
#define TN_I8042_VERSION 1  /* of struct tn_i8042_state */

struct tn_i8042_cfg {
    void *ctx;
    /* The guest resets the machine; the last thing that tn_i8042_write does. */
    void (*reset)(void *ctx);
    /* The interrupt line; called when the level changes. It is low at first. */
    void (*irq)(void *ctx, bool level);
};

/* All that guest and host can change; the oldest byte is at index 0, free slots are 0. */
struct tn_i8042_state {
    uint32_t version; /* TN_I8042_VERSION */
    uint8_t ctr;      /* the command byte; AUXDIS is set, bit 7 is clear */
    uint8_t outport;  /* the output port; bit 0, reset, is 1 */
    uint8_t pending;  /* the controller's command that waits for a byte, or 0 */
    uint8_t kbd;      /* the keyboard's command that waits for a byte, or 0 */
    uint8_t command;  /* 0 or 1: STATUS_CMD */
    uint8_t full;     /* 0 or 1: an answer of the controller's waits */
    uint8_t answer;   /* that answer, or 0 */
    uint8_t scanning; /* 0 or 1: the keyboard reports keys */
    uint8_t set;      /* scan code set, 1 or 2 */
    uint8_t leds;     /* 0 to 7 */
    uint8_t last;     /* the byte last read from TN_I8042_DATA */
    uint8_t sent;     /* the byte that the keyboard sent last, for its resend command */
    uint8_t count;    /* bytes in fifo */
    uint8_t zero[3];
    uint8_t fifo[TN_I8042_FIFO];
};

struct tn_i8042 {
    struct tn_i8042_cfg cfg;
    struct tn_i8042_state state;
    bool level; /* what cfg.irq was last told */
};

/*@ predicate tn_i8042_wants(integer c) = 0x60 <= c <= 0x7f || 0xd1 <= c <= 0xd4;
    predicate tn_i8042_kbd_wants(integer c) = c == 0xed || c == 0xf0 || c == 0xf3;
    predicate tn_i8042_ok(struct tn_i8042_state *s) =
      s->version == TN_I8042_VERSION && s->ctr < 128 && s->ctr / 32 % 2 == 1 &&
      s->outport % 2 == 1 &&
      (s->pending == 0 || tn_i8042_wants(s->pending)) &&
      (s->kbd == 0 || tn_i8042_kbd_wants(s->kbd)) &&
      s->command <= 1 && s->full <= 1 && (s->full == 0 ==> s->answer == 0) &&
      s->scanning <= 1 && 1 <= s->set <= 2 && s->leds <= 7 && s->count <= TN_I8042_FIFO &&
      s->zero[0] == 0 && s->zero[1] == 0 && s->zero[2] == 0 &&
      (\forall integer i; s->count <= i < TN_I8042_FIFO ==> s->fifo[i] == 0);
*/

/*
 * Starts a controller as firmware leaves it: tested, the keyboard on, with interrupt and
 * translation. Returns 0; TN_EINVAL when reset or irq is missing.
 */
TN_API int tn_i8042_init(struct tn_i8042 *dev, const struct tn_i8042_cfg *cfg);

/*
 * Back to that state, the line low.
 */
TN_API void tn_i8042_reset(struct tn_i8042 *dev);

/*
 * The guest reads or writes a byte at port 0x60 + off. Offsets other than TN_I8042_DATA and
 * TN_I8042_COMMAND read 0xff and ignore what is written.
 */
TN_API uint8_t tn_i8042_read(struct tn_i8042 *dev, unsigned off);
TN_API void tn_i8042_write(struct tn_i8042 *dev, unsigned off, uint8_t value);

/*
 * Presses ctrl, alt and del, and lets them go. Returns 0; TN_ESTATE when the guest has turned the
 * keyboard off, TN_ENOSPC when it has not read what came before (nothing is queued).
 */
TN_API int tn_i8042_ctrl_alt_del(struct tn_i8042 *dev);

/*
 * Copies the state out.
 */
/*@ requires \valid_read(dev) && \valid(out) && \separated(dev, out);
    assigns *out;
    ensures *out == dev->state; */
TN_API void tn_i8042_save(const struct tn_i8042 *dev, struct tn_i8042_state *out);

/*
 * Takes a saved state over, and sets the line to its level. Returns 0; TN_EUNSUP for another
 * version, TN_EFORMAT for a state that no guest can reach (dev is unchanged).
 */
TN_API int tn_i8042_restore(struct tn_i8042 *dev, const struct tn_i8042_state *from);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* All below that works on a struct tn_i8042_state calls nobody; the callbacks are at the end. */

/* Whether a command of the controller's wants a byte. */
/*@ assigns \nothing;
    ensures \result != 0 <==> tn_i8042_wants(c); */
static inline bool tn_i8042_wants_(uint8_t c)
{
    return (c >= 0x60 && c <= 0x7f) || (c >= 0xd1 && c <= 0xd4);
}

/* Whether a command of the keyboard's does: set LEDs, scan code set, typematic rate. */
/*@ assigns \nothing;
    ensures \result != 0 <==> tn_i8042_kbd_wants(c); */
static inline bool tn_i8042_kbd_wants_(uint8_t c)
{
    return c == 0xed || c == 0xf0 || c == 0xf3;
}

/* Whether every field is one that a guest's accesses can lead to. */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result != 0 <==> tn_i8042_ok((struct tn_i8042_state *)s); */
static inline bool tn_i8042_valid_(const struct tn_i8042_state *s)
{
    if (s->version != TN_I8042_VERSION || s->ctr > 127 || s->ctr / 32 % 2 != 1 ||
        s->outport % 2 != 1)
        return false;
    if (s->pending != 0 && !tn_i8042_wants_(s->pending))
        return false;
    if (s->kbd != 0 && !tn_i8042_kbd_wants_(s->kbd))
        return false;
    if (s->command > 1 || s->full > 1 || (s->full == 0 && s->answer != 0) || s->scanning > 1 ||
        s->set < 1 || s->set > 2 || s->leds > 7 || s->count > TN_I8042_FIFO)
        return false;
    if (s->zero[0] != 0 || s->zero[1] != 0 || s->zero[2] != 0)
        return false;
    /*@ loop invariant s->count <= i <= TN_I8042_FIFO;
        loop invariant \forall integer j; s->count <= j < i ==> s->fifo[j] == 0;
        loop assigns i;
        loop variant TN_I8042_FIFO - i; */
    for (unsigned i = s->count; i < TN_I8042_FIFO; i++) {
        if (s->fifo[i] != 0)
            return false;
    }
    return true;
}

/* Empties the keyboard's FIFO. */
/*@ requires \valid(s);
    assigns s->count, s->fifo[0 .. TN_I8042_FIFO - 1];
    ensures s->count == 0;
    ensures \forall integer i; 0 <= i < TN_I8042_FIFO ==> s->fifo[i] == 0; */
static inline void tn_i8042_drop_(struct tn_i8042_state *s)
{
    s->count = 0;
    /*@ loop invariant 0 <= i <= TN_I8042_FIFO;
        loop invariant \forall integer j; 0 <= j < i ==> s->fifo[j] == 0;
        loop assigns i, s->fifo[0 .. TN_I8042_FIFO - 1];
        loop variant TN_I8042_FIFO - i; */
    for (unsigned i = 0; i < TN_I8042_FIFO; i++)
        s->fifo[i] = 0;
}

/* The state that firmware leaves. */
/*@ requires \valid(s);
    assigns *s;
    ensures tn_i8042_ok(s); */
static inline void tn_i8042_clear_(struct tn_i8042_state *s)
{
    s->version = TN_I8042_VERSION;
    s->ctr = TN_I8042_CTR_KBDINT | TN_I8042_CTR_SYS | TN_I8042_CTR_AUXDIS | TN_I8042_CTR_XLATE;
    s->outport = 0xcf;
    s->pending = 0;
    s->kbd = 0;
    s->command = 0;
    s->full = 0;
    s->answer = 0;
    s->scanning = 1;
    s->set = 2;
    s->leds = 0;
    s->last = 0;
    s->sent = 0;
    s->zero[0] = 0;
    s->zero[1] = 0;
    s->zero[2] = 0;
    tn_i8042_drop_(s);
}

/* The keyboard says a byte; one that does not fit is dropped. */
/*@ requires \valid(s) && tn_i8042_ok(s);
    assigns s->count, s->fifo[0 .. TN_I8042_FIFO - 1];
    ensures tn_i8042_ok(s);
    ensures \old(s->count) < TN_I8042_FIFO ==>
      s->count == \old(s->count) + 1 && s->fifo[s->count - 1] == byte;
    ensures \old(s->count) == TN_I8042_FIFO ==> s->count == TN_I8042_FIFO;
    ensures \forall integer i; 0 <= i < \old(s->count) ==> s->fifo[i] == \old(s->fifo[i]); */
static inline void tn_i8042_say_(struct tn_i8042_state *s, uint8_t byte)
{
    if (s->count >= TN_I8042_FIFO)
        return;
    s->fifo[s->count] = byte;
    s->count++;
}

/* The controller answers a command. */
/*@ requires \valid(s) && tn_i8042_ok(s);
    assigns s->full, s->answer;
    ensures tn_i8042_ok(s) && s->full == 1 && s->answer == byte; */
static inline void tn_i8042_answer_(struct tn_i8042_state *s, uint8_t byte)
{
    s->full = 1;
    s->answer = byte;
}

/* Whether a byte of the keyboard's is the next that a read of the data port gives. */
/*@ requires \valid_read(s) && tn_i8042_ok((struct tn_i8042_state *)s);
    assigns \nothing;
    ensures \result != 0 ==> s->count > 0 && s->full == 0; */
static inline bool tn_i8042_kbd_next_(const struct tn_i8042_state *s)
{
    return !s->full && s->count > 0 && !(s->ctr & TN_I8042_CTR_KBDDIS);
}

/* The interrupt line. */
/*@ requires \valid_read(s) && tn_i8042_ok((struct tn_i8042_state *)s);
    assigns \nothing;
    ensures \result != 0 ==> s->count > 0 && s->full == 0 && (s->ctr & 1) != 0; */
static inline bool tn_i8042_level_(const struct tn_i8042_state *s)
{
    return (s->ctr & 1) != 0 && tn_i8042_kbd_next_(s);
}

/* Takes the keyboard's oldest byte. */
/*@ requires \valid(s) && tn_i8042_ok(s) && s->count > 0;
    assigns s->last, s->sent, s->count, s->fifo[0 .. TN_I8042_FIFO - 1];
    ensures tn_i8042_ok(s);
    ensures s->count == \old(s->count) - 1 && s->last == \old(s->fifo[0]);
    ensures \forall integer i; 0 <= i < s->count ==> s->fifo[i] == \old(s->fifo[i + 1]); */
static inline void tn_i8042_take_(struct tn_i8042_state *s)
{
    uint8_t byte = s->fifo[0], count = s->count;

    /*@ loop invariant 1 <= i <= count;
        loop invariant \forall integer j; 0 <= j < i - 1 ==>
          s->fifo[j] == \at(s->fifo[j + 1], Pre);
        loop invariant \forall integer j; i - 1 <= j < TN_I8042_FIFO ==>
          s->fifo[j] == \at(s->fifo[j], Pre);
        loop assigns i, s->fifo[0 .. TN_I8042_FIFO - 1];
        loop variant count - i; */
    for (unsigned i = 1; i < count; i++)
        s->fifo[i - 1] = s->fifo[i];
    s->fifo[count - 1] = 0;
    s->count--;
    s->last = byte;
    s->sent = byte;
}

/* The guest's read of a port. */
/*@ requires \valid(s) && tn_i8042_ok(s);
    assigns s->full, s->answer, s->last, s->sent, s->count, s->fifo[0 .. TN_I8042_FIFO - 1];
    ensures tn_i8042_ok(s);
    ensures off != TN_I8042_DATA ==> s->count == \old(s->count) && s->full == \old(s->full);
    ensures s->count == \old(s->count) || s->count == \old(s->count) - 1;
    ensures off == TN_I8042_DATA && \old(s->full) == 1 ==>
      \result == \old(s->answer) && s->full == 0 && s->count == \old(s->count);
    ensures s->count != \old(s->count) ==> \result == \old(s->fifo[0]);
    ensures s->count != \old(s->count) ==>
      \forall integer i; 0 <= i < s->count ==> s->fifo[i] == \old(s->fifo[i + 1]);
    ensures off != TN_I8042_DATA && off != TN_I8042_STATUS ==> \result == 0xff; */
static inline uint8_t tn_i8042_get_(struct tn_i8042_state *s, unsigned off)
{
    if (off == TN_I8042_STATUS)
        return (uint8_t)((s->full || tn_i8042_kbd_next_(s) ? TN_I8042_STATUS_OBF : 0) |
                         (s->ctr & TN_I8042_CTR_SYS ? TN_I8042_STATUS_SYS : 0) |
                         (s->command ? TN_I8042_STATUS_CMD : 0) | TN_I8042_STATUS_KEYLOCK);
    if (off != TN_I8042_DATA)
        return 0xff;
    if (s->full) {
        s->last = s->answer;
        s->full = 0;
        s->answer = 0;
    } else if (tn_i8042_kbd_next_(s)) {
        tn_i8042_take_(s);
    }
    return s->last;
}

/*
 * The keyboard gets a byte: a command, or what a command waits for. Returns what it answers, the
 * first byte in bits 0-7; no byte of an answer is zero.
 */
/*@ requires \valid(s) && tn_i8042_ok(s);
    assigns s->kbd, s->scanning, s->set, s->leds, s->count, s->fifo[0 .. TN_I8042_FIFO - 1];
    ensures tn_i8042_ok(s) && s->count <= \old(s->count); */
static inline uint32_t tn_i8042_obey_(struct tn_i8042_state *s, uint8_t value)
{
    uint8_t command = s->kbd;

    s->kbd = 0;
    switch (command) {
    case 0xed: /* set LEDs */
        s->leds = value % 8u;
        return 0xfa;
    case 0xf0: /* select a scan code set, 0 asks for it */
        if (value == 0)
            return 0xfau + 256u * s->set;
        if (value > 2)
            return 0xfe;
        s->set = value;
        return 0xfa;
    case 0xf3: /* typematic rate: nothing repeats here */
        return 0xfa;
    default:
        break;
    }
    if (tn_i8042_kbd_wants_(value)) {
        s->kbd = value;
        return 0xfa;
    }
    switch (value) {
    case 0xee: /* echo */
        return 0xee;
    case 0xf2: /* identify */
        return 0x83abfa;
    case 0xf4: /* enable */
    case 0xf5: /* defaults, and disable */
    case 0xf6: /* defaults */
        tn_i8042_drop_(s);
        if (value != 0xf4)
            s->set = 2;
        if (value != 0xf6)
            s->scanning = value == 0xf4;
        return 0xfa;
    case 0xff: /* reset, and the basic assurance test */
        tn_i8042_drop_(s);
        s->set = 2;
        s->leds = 0;
        s->scanning = 1;
        return 0xaafa;
    default: /* resend: an error, from a keyboard */
        return 0xfe;
    }
}

/* The keyboard gets a byte, and answers. */
/*@ requires \valid(s) && tn_i8042_ok(s);
    assigns s->kbd, s->scanning, s->set, s->leds, s->count, s->fifo[0 .. TN_I8042_FIFO - 1];
    ensures tn_i8042_ok(s); */
static inline void tn_i8042_kbd_(struct tn_i8042_state *s, uint8_t value)
{
    uint32_t answer = tn_i8042_obey_(s, value);

    /*@ loop invariant tn_i8042_ok(s);
        loop assigns answer, s->count, s->fifo[0 .. TN_I8042_FIFO - 1];
        loop variant answer; */
    for (; answer > 0; answer /= 256u)
        tn_i8042_say_(s, (uint8_t)(answer % 256u));
}

/* A byte for port 0x60; true: the guest resets the machine. */
/*@ requires \valid(s) && tn_i8042_ok(s);
    assigns *s;
    ensures tn_i8042_ok(s);
    ensures \result != 0 <==> \old(s->pending) == 0xd1 && value % 2 == 0; */
static inline bool tn_i8042_data_(struct tn_i8042_state *s, uint8_t value)
{
    uint8_t command = s->pending;

    s->pending = 0;
    s->command = 0;
    switch (command) {
    case 0:
        if (value == 0xfe && s->kbd == 0)
            tn_i8042_say_(s, s->sent); /* resend */
        else
            tn_i8042_kbd_(s, value);
        return false;
    case 0x60: /* write the command byte: bit 7 stays clear, AUXDIS set */
        s->ctr = (uint8_t)(value % 32u + 32u + value / 64u % 2u * 64u);
        return false;
    case 0xd1: /* write the output port */
        s->outport = (uint8_t)(value / 2u * 2u + 1u);
        return value % 2u == 0;
    case 0xd2: /* as if the keyboard had said it */
        tn_i8042_say_(s, value);
        return false;
    case 0xd3: /* as if a mouse had: there is none, so the guest sees it come from elsewhere */
        tn_i8042_answer_(s, value);
        return false;
    default: /* 0x61 to 0x7f: memory that is not there; 0xd4: the mouse */
        return false;
    }
}

/* A command for port 0x64; true: the guest resets the machine. */
/*@ requires \valid(s) && tn_i8042_ok(s);
    assigns *s;
    ensures tn_i8042_ok(s);
    ensures \result != 0 <==> value >= 0xf0 && value % 2 == 0;
    ensures s->count == \old(s->count); */
static inline bool tn_i8042_command_(struct tn_i8042_state *s, uint8_t value)
{
    s->pending = 0;
    s->command = 1;
    if (value >= 0xf0) /* pulses the output port's bits 0-3 that are 0 here */
        return value % 2u == 0;
    if (tn_i8042_wants_(value)) {
        s->pending = value;
        return false;
    }
    switch (value) {
    case 0x20: /* read the command byte */
        tn_i8042_answer_(s, s->ctr);
        break;
    case 0xa9: /* test the mouse's lines: stuck */
        tn_i8042_answer_(s, 0x02);
        break;
    case 0xaa: /* self test, which sets SYS */
        s->ctr = (uint8_t)(s->ctr / 8u * 8u + 4u + s->ctr % 4u);
        tn_i8042_answer_(s, 0x55);
        break;
    case 0xab: /* test the keyboard's lines */
        tn_i8042_answer_(s, 0x00);
        break;
    case 0xad: /* keyboard off, on */
        s->ctr = (uint8_t)(s->ctr / 32u * 32u + 16u + s->ctr % 16u);
        break;
    case 0xae:
        s->ctr = (uint8_t)(s->ctr / 32u * 32u + s->ctr % 16u);
        break;
    case 0xc0: /* read the input port: the keyboard is not locked */
        tn_i8042_answer_(s, 0x80);
        break;
    case 0xd0: /* read the output port */
        tn_i8042_answer_(s, s->outport);
        break;
    case 0xe0: /* read the test inputs */
        tn_i8042_answer_(s, 0x00);
        break;
    default:
        if (value > 0x20 && value < 0x40) /* memory that is not there */
            tn_i8042_answer_(s, 0x00);
        break;
    }
    return false;
}

/* The guest's write of a port; true: it resets the machine. */
/*@ requires \valid(s) && tn_i8042_ok(s);
    assigns *s;
    ensures tn_i8042_ok(s);
    ensures off != TN_I8042_DATA && off != TN_I8042_COMMAND ==> \result == 0; */
static inline bool tn_i8042_put_(struct tn_i8042_state *s, unsigned off, uint8_t value)
{
    if (off == TN_I8042_COMMAND)
        return tn_i8042_command_(s, value);
    return off == TN_I8042_DATA && tn_i8042_data_(s, value);
}

/* The keyboard says all n bytes. */
/*@ requires \valid(s) && tn_i8042_ok(s) && s->count + n <= TN_I8042_FIFO;
    requires \valid_read(bytes + (0 .. n - 1)) && \separated(s, bytes + (0 .. n - 1));
    assigns s->count, s->fifo[0 .. TN_I8042_FIFO - 1];
    ensures tn_i8042_ok(s) && s->count == \old(s->count) + n;
    ensures \forall integer i; 0 <= i < \old(s->count) ==> s->fifo[i] == \old(s->fifo[i]); */
static inline void tn_i8042_say_all_(struct tn_i8042_state *s, const uint8_t *bytes, unsigned n)
{
    /*@ loop invariant 0 <= i <= n && tn_i8042_ok(s);
        loop invariant s->count == \at(s->count, Pre) + i;
        loop invariant \forall integer j; 0 <= j < \at(s->count, Pre) ==>
          s->fifo[j] == \at(s->fifo[j], Pre);
        loop assigns i, s->count, s->fifo[0 .. TN_I8042_FIFO - 1];
        loop variant n - i; */
    for (unsigned i = 0; i < n; i++)
        tn_i8042_say_(s, bytes[i]);
}

/* Ctrl, alt and del, down and up again. */
/*@ requires \valid(s) && tn_i8042_ok(s);
    assigns s->count, s->fifo[0 .. TN_I8042_FIFO - 1];
    ensures tn_i8042_ok(s);
    ensures \result == 0 || \result == TN_ESTATE || \result == TN_ENOSPC;
    ensures \result == 0 ==>
      s->count == \old(s->count) + (s->set == 1 || s->ctr >= 64 ? 8 : 11) && s->scanning == 1;
    ensures \result < 0 ==> s->count == \old(s->count);
    ensures \forall integer i; 0 <= i < \old(s->count) ==> s->fifo[i] == \old(s->fifo[i]); */
static inline int tn_i8042_keys_(struct tn_i8042_state *s)
{
    const uint8_t set1[8] = {0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d};
    const uint8_t set2[11] = {0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0, 0x71, 0xf0, 0x11, 0xf0, 0x14};
    bool one = s->set == 1 || s->ctr >= 64; /* XLATE */

    if (!s->scanning || (s->ctr & TN_I8042_CTR_KBDDIS))
        return TN_ESTATE;
    if (s->count > TN_I8042_FIFO - (one ? 8 : 11))
        return TN_ENOSPC;
    if (one)
        tn_i8042_say_all_(s, set1, 8);
    else
        tn_i8042_say_all_(s, set2, 11);
    return 0;
}

/* Tells the caller of a new level. */
static inline void tn_i8042_line_(struct tn_i8042 *dev, bool level)
{
    if (level == dev->level)
        return;
    dev->level = level;
    dev->cfg.irq(dev->cfg.ctx, level);
}

TN_API int tn_i8042_init(struct tn_i8042 *dev, const struct tn_i8042_cfg *cfg)
{
    if (!cfg->reset || !cfg->irq)
        return TN_EINVAL;
    dev->cfg = *cfg;
    tn_i8042_clear_(&dev->state);
    dev->level = false;
    return 0;
}

TN_API void tn_i8042_reset(struct tn_i8042 *dev)
{
    tn_i8042_clear_(&dev->state);
    tn_i8042_line_(dev, false);
}

TN_API uint8_t tn_i8042_read(struct tn_i8042 *dev, unsigned off)
{
    uint8_t value = tn_i8042_get_(&dev->state, off);

    /* The line falls between two bytes, since the interrupt controller waits for an edge. */
    if (off == TN_I8042_DATA)
        tn_i8042_line_(dev, false);
    tn_i8042_line_(dev, tn_i8042_level_(&dev->state));
    return value;
}

TN_API void tn_i8042_write(struct tn_i8042 *dev, unsigned off, uint8_t value)
{
    bool reset = tn_i8042_put_(&dev->state, off, value);

    tn_i8042_line_(dev, tn_i8042_level_(&dev->state));
    if (reset)
        dev->cfg.reset(dev->cfg.ctx);
}

TN_API int tn_i8042_ctrl_alt_del(struct tn_i8042 *dev)
{
    int r = tn_i8042_keys_(&dev->state);

    tn_i8042_line_(dev, tn_i8042_level_(&dev->state));
    return r;
}

TN_API void tn_i8042_save(const struct tn_i8042 *dev, struct tn_i8042_state *out)
{
    *out = dev->state;
}

TN_API int tn_i8042_restore(struct tn_i8042 *dev, const struct tn_i8042_state *from)
{
    struct tn_i8042_state copy = *from;

    if (copy.version != TN_I8042_VERSION)
        return TN_EUNSUP;
    if (!tn_i8042_valid_(&copy))
        return TN_EFORMAT;
    dev->state = copy;
    tn_i8042_line_(dev, tn_i8042_level_(&dev->state));
    return 0;
}
#endif
#ifdef __cplusplus
}
#endif
#endif
