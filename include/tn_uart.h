/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_uart - a 16550A serial port: registers, two 16-byte FIFOs, one interrupt line.
 *
 * WHAT
 *   The eight registers that a PC's COM port has, as Linux's 8250 driver and earlier ones expect
 *   them. Bytes the guest sends go straight to a function of the caller's; bytes for the guest are
 *   pushed in, as many as the receiver has room for. Nothing is timed: a character takes no time.
 *
 * USAGE
 *   static size_t sink(void *ctx, const uint8_t *bytes, size_t len)
 *   {
 *       (void)ctx;
 *       (void)bytes;
 *       return len;
 *   }
 *   static void line(void *ctx, bool level)
 *   {
 *       (void)ctx;
 *       (void)level;
 *   }
 *   ---
 *   struct tn_uart_cfg cfg = {NULL, sink, line, NULL, false};
 *   struct tn_uart uart;
 *
 *   if (tn_uart_init(&uart, &cfg) < 0)
 *       return 1;
 *   tn_uart_write(&uart, TN_UART_THR, 'A');
 *   if (!(tn_uart_read(&uart, TN_UART_LSR) & TN_UART_LSR_THRE))
 *       tn_uart_flush(&uart);
 *   if (tn_uart_push(&uart, (const uint8_t *)"ls\n", 3) < 3)
 *       return 1;
 *
 * COMPOSITION
 *   A bus handler turns byte accesses at 0x3f8 + n into tn_uart_read and tn_uart_write of register
 *   n. When tx takes fewer bytes than it was given, call tn_uart_flush once the sink can take more.
 *   When tn_uart_push takes fewer than it was given, or fills the receiver, stop reading the
 *   source until room is called. room may call tn_uart_push; tx may call tn_uart_push; no callback
 *   may call anything else here.
 *
 * GUEST TRUST
 *   Register numbers and values may be the guest's, unchecked; a saved state may be a hostile
 *   file's. A guest that floods the transmitter costs one call of tx a byte and no memory: limiting
 *   the rate is the sink's work (tn_rate). One that does not read costs 16 bytes.
 *
 * MEMORY
 *   struct tn_uart is all there is; it may be copied and moved between calls.
 *
 * THREADS
 *   One call at a time on one struct; the caller has the lock. Callbacks run inside the call.
 *
 * CONFIG
 *   cfg.timer: false, the default, raises the character-timeout interrupt as soon as a byte waits
 *   below the trigger level, so that one pressed key reaches the guest without a timer. True: the
 *   caller has a timer, and calls tn_uart_tick.
 *
 * SPEC
 *   PC16550D data sheet (National Semiconductor, 1995), section 8 (registers, FIFO operation,
 *   interrupts, loopback), table II (register bits), table III (reset), table IV (interrupts).
 *
 * LIMITS
 *   The interrupt line is gated as in a PC: it is low unless MCR has OUT2 set and LOOP clear; Linux
 *   sets OUT2 for every port that has an interrupt. Outside loopback CTS, DSR and DCD are on and RI
 *   is off. No parity or framing errors, no DMA modes, no word length or speed; LCR's break bit
 *   does nothing. Output is lost only when the guest clears the transmitter FIFO or writes THR when
 *   LSR.THRE says no, the FIFO is full and the sink still refuses; tn_uart.dropped counts the
 *   latter. A THR write that empties at once leaves a pending THRE interrupt pending, without a
 *   pulse on the line.
 */
#ifndef TN_UART_H
#define TN_UART_H

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

/* Register numbers (table II). */
#define TN_UART_RBR 0 /* receiver buffer, read */
#define TN_UART_THR 0 /* transmitter holding, write */
#define TN_UART_DLL 0 /* divisor latch, low half, with LCR.DLAB */
#define TN_UART_IER 1 /* interrupt enable */
#define TN_UART_DLM 1 /* divisor latch, high half, with LCR.DLAB */
#define TN_UART_IIR 2 /* interrupt identification, read */
#define TN_UART_FCR 2 /* FIFO control, write */
#define TN_UART_LCR 3 /* line control */
#define TN_UART_MCR 4 /* modem control */
#define TN_UART_LSR 5 /* line status */
#define TN_UART_MSR 6 /* modem status */
#define TN_UART_SCR 7 /* scratch */

#define TN_UART_IER_RDI  0x01 /* received data, and the character timeout */
#define TN_UART_IER_THRI 0x02 /* transmitter empty */
#define TN_UART_IER_RLSI 0x04 /* line status */
#define TN_UART_IER_MSI  0x08 /* modem status */

#define TN_UART_IIR_NONE    0x01
#define TN_UART_IIR_RLSI    0x06
#define TN_UART_IIR_RDI     0x04
#define TN_UART_IIR_TIMEOUT 0x0c
#define TN_UART_IIR_THRI    0x02
#define TN_UART_IIR_MSI     0x00
#define TN_UART_IIR_FIFO    0xc0 /* FIFOs are enabled */

#define TN_UART_FCR_ENABLE   0x01
#define TN_UART_FCR_CLEAR_RX 0x02
#define TN_UART_FCR_CLEAR_TX 0x04 /* bits 6-7: trigger level 1, 4, 8, 14 */

#define TN_UART_LCR_DLAB 0x80

#define TN_UART_MCR_DTR  0x01
#define TN_UART_MCR_RTS  0x02
#define TN_UART_MCR_OUT1 0x04
#define TN_UART_MCR_OUT2 0x08
#define TN_UART_MCR_LOOP 0x10

#define TN_UART_LSR_DR   0x01 /* a byte waits for the guest */
#define TN_UART_LSR_OE   0x02
#define TN_UART_LSR_BI   0x10
#define TN_UART_LSR_THRE 0x20 /* the transmitter's FIFO is empty: the guest may write 16 bytes */
#define TN_UART_LSR_TEMT 0x40
#define TN_UART_LSR_FIFO 0x80 /* an error waits in the receiver's FIFO */

#define TN_UART_FIFO    16 /* bytes, each way */
#define TN_UART_VERSION 1  /* of struct tn_uart_state */

struct tn_uart_cfg {
    void *ctx;
    /* Takes bytes from the guest; returns how many, 0 to len. */
    size_t (*tx)(void *ctx, const uint8_t *bytes, size_t len);
    /* The interrupt line; called when the level changes. It is low at first. */
    void (*irq)(void *ctx, bool level);
    /* The receiver was full, or in loopback, and is empty now: push again. May be NULL. */
    void (*room)(void *ctx);
    /* The caller calls tn_uart_tick. */
    bool timer;
};

/* Every register, and what waits in the FIFOs; the oldest byte is at index 0, free slots are 0. */
struct tn_uart_state {
    uint32_t version; /* TN_UART_VERSION */
    uint8_t ier;
    uint8_t fcr; /* 0, or FCR_ENABLE and the trigger bits */
    uint8_t lcr;
    uint8_t mcr;
    uint8_t scr;
    uint8_t dll;
    uint8_t dlm;
    uint8_t overrun; /* 0 or 1: LSR.OE */
    uint8_t delta;   /* MSR bits 0-3 */
    uint8_t thre;    /* 0 or 1: the THRE interrupt is pending */
    uint8_t timeout; /* 0 or 1: tn_uart_tick found bytes waiting */
    uint8_t rx_count;
    uint8_t tx_count;
    uint8_t zero[3];
    uint8_t tx[TN_UART_FIFO];
    uint16_t rx[TN_UART_FIFO]; /* a byte, or 0x100: a break */
};

struct tn_uart {
    struct tn_uart_cfg cfg;
    struct tn_uart_state state;
    uint64_t dropped; /* bytes written to THR with the FIFO full and the sink refusing */
    bool level;       /* what cfg.irq was last told */
    bool blocked;     /* the receiver was found without room: cfg.room is owed a call */
    bool sending;     /* inside cfg.tx */
};

/*@ logic integer tn_uart_cap(integer fcr) = fcr == 0 ? 1 : TN_UART_FIFO;
    predicate tn_uart_ok(struct tn_uart_state *s) =
      s->version == TN_UART_VERSION && s->ier <= 15 && (s->fcr == 0 || s->fcr % 64 == 1) &&
      s->mcr <= 31 && s->overrun <= 1 && s->delta <= 15 && s->thre <= 1 && s->timeout <= 1 &&
      s->rx_count <= tn_uart_cap(s->fcr) && s->tx_count <= tn_uart_cap(s->fcr) &&
      (s->thre == 1 ==> (s->ier & 2) != 0 && s->tx_count == 0) &&
      (s->timeout == 1 ==> s->fcr != 0 && s->rx_count > 0) &&
      s->zero[0] == 0 && s->zero[1] == 0 && s->zero[2] == 0 &&
      (\forall integer i; 0 <= i < TN_UART_FIFO ==> s->rx[i] <= 0x100) &&
      (\forall integer i; s->rx_count <= i < TN_UART_FIFO ==> s->rx[i] == 0) &&
      (\forall integer i; s->tx_count <= i < TN_UART_FIFO ==> s->tx[i] == 0);
*/

/*
 * Starts a port in its reset state, the line low. Returns 0; TN_EINVAL when tx or irq is missing.
 */
TN_API int tn_uart_init(struct tn_uart *u, const struct tn_uart_cfg *cfg);

/*
 * The MR pin (table III). The sink is offered the bytes that wait for it, the rest are gone. The
 * divisor is 1, as firmware leaves a port at 115200 baud.
 */
TN_API void tn_uart_reset(struct tn_uart *u);

/*
 * The guest reads or writes register reg (section 8). A register above 7 reads 0xff and ignores
 * what is written.
 */
TN_API uint8_t tn_uart_read(struct tn_uart *u, unsigned reg);
TN_API void tn_uart_write(struct tn_uart *u, unsigned reg, uint8_t value);

/*
 * Pushes bytes into the receiver. Returns how many it took: 0 to 16, to 1 without the guest's
 * enabling the FIFO, 0 in loopback. The caller keeps the others, and waits for cfg.room.
 */
TN_API size_t tn_uart_push(struct tn_uart *u, const uint8_t *bytes, size_t len);

/*
 * How many bytes tn_uart_push would take now.
 */
TN_API size_t tn_uart_room(const struct tn_uart *u);

/*
 * Hands the bytes that tx refused to tx again. Returns how many wait still.
 */
TN_API int tn_uart_flush(struct tn_uart *u);

/*
 * Four character times have passed without a byte coming or going: raises the character-timeout
 * interrupt if bytes wait (section 8, FIFO interrupt mode). For cfg.timer only, as long as
 * tn_uart_room is below TN_UART_FIFO; more often does no harm.
 */
TN_API void tn_uart_tick(struct tn_uart *u);

/*
 * The line breaks: the receiver gets a zero byte with LSR.BI. Returns 0; TN_ENOSPC when there is
 * no room for it now.
 */
TN_API int tn_uart_break(struct tn_uart *u);

/*
 * Copies the state out.
 */
/*@ requires \valid_read(u) && \valid(out) && \separated(u, out);
    assigns *out;
    ensures *out == u->state; */
TN_API void tn_uart_save(const struct tn_uart *u, struct tn_uart_state *out);

/*
 * Takes a saved state over, and sets the line to its level; call tn_uart_flush for bytes that
 * waited for the sink. Returns 0; TN_EUNSUP for another version, TN_EFORMAT for a state that no
 * guest can reach (u is unchanged).
 */
TN_API int tn_uart_restore(struct tn_uart *u, const struct tn_uart_state *from);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* All below that works on a struct tn_uart_state calls nobody; the callbacks are at the end. */

/* Bytes that either FIFO holds at most. */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result == tn_uart_cap(s->fcr); */
static inline uint8_t tn_uart_cap_(const struct tn_uart_state *s)
{
    return s->fcr == 0 ? 1 : TN_UART_FIFO;
}

/* How many bytes the outside world may push. */
/*@ requires \valid_read(s) && tn_uart_ok((struct tn_uart_state *)s);
    assigns \nothing;
    ensures \result == (s->mcr >= TN_UART_MCR_LOOP ? 0 : tn_uart_cap(s->fcr) - s->rx_count);
    ensures \result <= TN_UART_FIFO; */
static inline size_t tn_uart_room_(const struct tn_uart_state *s)
{
    return s->mcr >= TN_UART_MCR_LOOP ? 0 : (size_t)(tn_uart_cap_(s) - s->rx_count);
}

/* Whether every field is one that a guest's accesses can lead to. */
/*@ requires \valid_read(s);
    assigns \nothing;
    ensures \result != 0 <==> tn_uart_ok((struct tn_uart_state *)s); */
static inline bool tn_uart_valid_(const struct tn_uart_state *s)
{
    if (s->version != TN_UART_VERSION || s->ier > 15 || (s->fcr != 0 && s->fcr % 64 != 1) ||
        s->mcr > 31 || s->overrun > 1 || s->delta > 15 || s->thre > 1 || s->timeout > 1)
        return false;
    if (s->rx_count > tn_uart_cap_(s) || s->tx_count > tn_uart_cap_(s))
        return false;
    if (s->thre == 1 && ((s->ier & 2) == 0 || s->tx_count > 0))
        return false;
    if (s->timeout == 1 && (s->fcr == 0 || s->rx_count == 0))
        return false;
    if (s->zero[0] != 0 || s->zero[1] != 0 || s->zero[2] != 0)
        return false;
    /*@ loop invariant 0 <= i <= TN_UART_FIFO;
        loop invariant \forall integer j; 0 <= j < i ==> s->rx[j] <= 0x100;
        loop invariant \forall integer j; s->rx_count <= j < i ==> s->rx[j] == 0;
        loop invariant \forall integer j; s->tx_count <= j < i ==> s->tx[j] == 0;
        loop assigns i;
        loop variant TN_UART_FIFO - i; */
    for (unsigned i = 0; i < TN_UART_FIFO; i++) {
        if (s->rx[i] > 0x100 || (i >= s->rx_count && s->rx[i] != 0) ||
            (i >= s->tx_count && s->tx[i] != 0))
            return false;
    }
    return true;
}

/* The state after MR (table III). */
/*@ requires \valid(s);
    assigns *s;
    ensures tn_uart_ok(s); */
static inline void tn_uart_clear_(struct tn_uart_state *s)
{
    s->version = TN_UART_VERSION;
    s->ier = 0;
    s->fcr = 0;
    s->lcr = 0;
    s->mcr = 0;
    s->scr = 0;
    s->dll = 1;
    s->dlm = 0;
    s->overrun = 0;
    s->delta = 0;
    s->thre = 0;
    s->timeout = 0;
    s->rx_count = 0;
    s->tx_count = 0;
    s->zero[0] = 0;
    s->zero[1] = 0;
    s->zero[2] = 0;
    /*@ loop invariant 0 <= i <= TN_UART_FIFO;
        loop invariant \forall integer j; 0 <= j < i ==> s->rx[j] == 0 && s->tx[j] == 0;
        loop assigns i, s->rx[0 .. TN_UART_FIFO - 1], s->tx[0 .. TN_UART_FIFO - 1];
        loop variant TN_UART_FIFO - i; */
    for (unsigned i = 0; i < TN_UART_FIFO; i++) {
        s->rx[i] = 0;
        s->tx[i] = 0;
    }
}

/* Appends to the receiver; entry is a byte, or 0x100 for a break. */
/*@ requires \valid(s) && tn_uart_ok(s) && s->rx_count < tn_uart_cap(s->fcr) && entry <= 0x100;
    assigns s->rx_count, s->rx[0 .. TN_UART_FIFO - 1];
    ensures tn_uart_ok(s) && s->rx_count == \old(s->rx_count) + 1;
    ensures s->rx[s->rx_count - 1] == entry;
    ensures \forall integer i; 0 <= i < \old(s->rx_count) ==> s->rx[i] == \old(s->rx[i]); */
static inline void tn_uart_rx_put_(struct tn_uart_state *s, uint16_t entry)
{
    s->rx[s->rx_count] = entry;
    s->rx_count++;
}

/* Takes the receiver's oldest byte; 0 when there is none. */
/*@ requires \valid(s) && tn_uart_ok(s);
    assigns s->rx_count, s->timeout, s->rx[0 .. TN_UART_FIFO - 1];
    ensures tn_uart_ok(s);
    ensures s->rx_count == (\old(s->rx_count) == 0 ? 0 : \old(s->rx_count) - 1);
    ensures \result == (\old(s->rx_count) == 0 ? 0 : \old(s->rx[0]) % 256);
    ensures \forall integer i; 0 <= i < s->rx_count ==> s->rx[i] == \old(s->rx[i + 1]); */
static inline uint8_t tn_uart_rx_get_(struct tn_uart_state *s)
{
    uint8_t byte = (uint8_t)(s->rx[0] % 256u), count = s->rx_count;

    if (count == 0)
        return 0;
    /*@ loop invariant 1 <= i <= count;
        loop invariant \forall integer j; 0 <= j < i - 1 ==> s->rx[j] == \at(s->rx[j + 1], Pre);
        loop invariant \forall integer j; i - 1 <= j < TN_UART_FIFO ==>
          s->rx[j] == \at(s->rx[j], Pre);
        loop assigns i, s->rx[0 .. TN_UART_FIFO - 1];
        loop variant count - i; */
    for (unsigned i = 1; i < count; i++)
        s->rx[i - 1] = s->rx[i];
    s->rx[count - 1] = 0;
    s->rx_count--;
    s->timeout = 0;
    return byte;
}

/* Forgets what the receiver holds. */
/*@ requires \valid(s) && tn_uart_ok(s);
    assigns s->rx_count, s->timeout, s->rx[0 .. TN_UART_FIFO - 1];
    ensures tn_uart_ok(s) && s->rx_count == 0; */
static inline void tn_uart_rx_clear_(struct tn_uart_state *s)
{
    /*@ loop invariant 0 <= i <= TN_UART_FIFO;
        loop invariant \forall integer j; 0 <= j < i ==> s->rx[j] == 0;
        loop assigns i, s->rx[0 .. TN_UART_FIFO - 1];
        loop variant TN_UART_FIFO - i; */
    for (unsigned i = 0; i < TN_UART_FIFO; i++)
        s->rx[i] = 0;
    s->rx_count = 0;
    s->timeout = 0;
}

/* If the transmitter is empty now, its interrupt is pending. */
/*@ requires \valid(s) && tn_uart_ok(s);
    assigns s->thre;
    ensures tn_uart_ok(s);
    ensures s->tx_count == 0 && (s->ier & 2) != 0 ==> s->thre == 1; */
static inline void tn_uart_tx_idle_(struct tn_uart_state *s)
{
    if (s->tx_count == 0 && (s->ier & 2) != 0)
        s->thre = 1;
}

/* Appends to the transmitter; false when it is full. */
/*@ requires \valid(s) && tn_uart_ok(s);
    assigns s->tx_count, s->thre, s->tx[0 .. TN_UART_FIFO - 1];
    ensures tn_uart_ok(s);
    ensures \result != 0 <==> \old(s->tx_count) < tn_uart_cap(s->fcr);
    ensures \result != 0 ==>
      s->tx_count == \old(s->tx_count) + 1 && s->tx[s->tx_count - 1] == byte;
    ensures \result == 0 ==> s->tx_count == \old(s->tx_count);
    ensures \forall integer i; 0 <= i < \old(s->tx_count) ==> s->tx[i] == \old(s->tx[i]); */
static inline bool tn_uart_tx_put_(struct tn_uart_state *s, uint8_t byte)
{
    if (s->tx_count >= tn_uart_cap_(s))
        return false;
    s->tx[s->tx_count] = byte;
    s->tx_count++;
    s->thre = 0;
    return true;
}

/* Removes the n oldest bytes of the transmitter, which the sink took. */
/*@ requires \valid(s) && tn_uart_ok(s) && n <= s->tx_count;
    assigns s->tx_count, s->tx[0 .. TN_UART_FIFO - 1];
    ensures tn_uart_ok(s) && s->tx_count == \old(s->tx_count) - n;
    ensures \forall integer i; 0 <= i < s->tx_count ==> s->tx[i] == \old(s->tx[i + n]); */
static inline void tn_uart_tx_drop_(struct tn_uart_state *s, uint8_t n)
{
    uint8_t left = (uint8_t)(s->tx_count - n);

    /*@ loop invariant 0 <= i <= left;
        loop invariant \forall integer j; 0 <= j < i ==> s->tx[j] == \at(s->tx[j + n], Pre);
        loop invariant \forall integer j; i <= j < TN_UART_FIFO ==>
          s->tx[j] == \at(s->tx[j], Pre);
        loop assigns i, s->tx[0 .. TN_UART_FIFO - 1];
        loop variant left - i; */
    for (unsigned i = 0; i < left; i++)
        s->tx[i] = s->tx[i + n];
    /*@ loop invariant left <= i <= TN_UART_FIFO;
        loop invariant \forall integer j; 0 <= j < left ==> s->tx[j] == \at(s->tx[j + n], Pre);
        loop invariant \forall integer j; left <= j < i ==> s->tx[j] == 0;
        loop assigns i, s->tx[0 .. TN_UART_FIFO - 1];
        loop variant TN_UART_FIFO - i; */
    for (unsigned i = left; i < TN_UART_FIFO; i++)
        s->tx[i] = 0;
    s->tx_count = left;
}

/* A byte written to THR in loopback: the receiver has it, or overruns (section 8.4). */
/*@ requires \valid(s) && tn_uart_ok(s);
    assigns s->rx_count, s->overrun, s->thre, s->rx[0 .. TN_UART_FIFO - 1];
    ensures tn_uart_ok(s); */
static inline void tn_uart_loop_(struct tn_uart_state *s, uint8_t byte)
{
    if (s->rx_count < tn_uart_cap_(s)) {
        tn_uart_rx_put_(s, byte);
    } else {
        s->overrun = 1;
        if (s->fcr == 0) /* without the FIFO the new byte takes the old one's place */
            s->rx[0] = byte;
    }
    tn_uart_tx_idle_(s);
}

/* The bytes that fit, from the outside world to the receiver. */
/*@ requires \valid(s) && tn_uart_ok(s) && \valid_read(bytes + (0 .. len - 1));
    requires \separated(s, bytes + (0 .. len - 1));
    assigns s->rx_count, s->rx[0 .. TN_UART_FIFO - 1];
    ensures tn_uart_ok(s);
    ensures \result <= len && s->rx_count == \old(s->rx_count) + \result;
    ensures s->mcr >= TN_UART_MCR_LOOP ==> \result == 0;
    ensures s->mcr < TN_UART_MCR_LOOP ==>
      \result == \min(len, tn_uart_cap(s->fcr) - \old(s->rx_count));
    ensures \forall integer i; 0 <= i < \result ==>
      s->rx[\old(s->rx_count) + i] == bytes[i];
    ensures \forall integer i; 0 <= i < \old(s->rx_count) ==> s->rx[i] == \old(s->rx[i]); */
static inline size_t tn_uart_push_(struct tn_uart_state *s, const uint8_t *bytes, size_t len)
{
    size_t room = tn_uart_room_(s), n = len < room ? len : room;

    /*@ loop invariant 0 <= i <= n && tn_uart_ok(s);
        loop invariant s->rx_count == \at(s->rx_count, Pre) + i;
        loop invariant \forall integer j; 0 <= j < i ==>
          s->rx[\at(s->rx_count, Pre) + j] == bytes[j];
        loop invariant \forall integer j; 0 <= j < \at(s->rx_count, Pre) ==>
          s->rx[j] == \at(s->rx[j], Pre);
        loop assigns i, s->rx_count, s->rx[0 .. TN_UART_FIFO - 1];
        loop variant n - i; */
    for (size_t i = 0; i < n; i++)
        tn_uart_rx_put_(s, bytes[i]);
    return n;
}

/* MSR bits 4-7 for an MCR: the outputs in loopback, a peer that is ready otherwise (table II). */
/*@ requires mcr <= 31;
    assigns \nothing;
    ensures mcr < TN_UART_MCR_LOOP ==> \result == 0xb0; */
static inline uint8_t tn_uart_lines_(uint8_t mcr)
{
    unsigned lines = 0;

    if (mcr < TN_UART_MCR_LOOP)
        return 0xb0;
    if (mcr & TN_UART_MCR_RTS)
        lines |= 0x10; /* CTS */
    if (mcr & TN_UART_MCR_DTR)
        lines |= 0x20; /* DSR */
    if (mcr & TN_UART_MCR_OUT1)
        lines |= 0x40; /* RI */
    if (mcr & TN_UART_MCR_OUT2)
        lines |= 0x80; /* DCD */
    return (uint8_t)lines;
}

/* How many bytes raise the received-data interrupt (section 8.3, FCR bits 6-7). */
/*@ requires \valid_read(s) && tn_uart_ok((struct tn_uart_state *)s);
    assigns \nothing;
    ensures 1 <= \result <= 14 && (s->fcr < 64 ==> \result == 1); */
static inline uint8_t tn_uart_trigger_(const struct tn_uart_state *s)
{
    if (s->fcr < 64)
        return 1;
    return s->fcr < 128 ? 4 : s->fcr < 192 ? 8 : 14;
}

/* The interrupt with the highest priority (table IV), as IIR bits 0-3. */
/*@ requires \valid_read(s) && tn_uart_ok((struct tn_uart_state *)s);
    assigns \nothing;
    ensures \result == TN_UART_IIR_THRI ==> s->thre == 1;
    ensures s->ier == 0 ==> \result == TN_UART_IIR_NONE;
    ensures (s->ier & 1) != 0 && s->rx_count > 0 && !timer ==>
      \result == TN_UART_IIR_RLSI || \result == TN_UART_IIR_RDI || \result == TN_UART_IIR_TIMEOUT;
    ensures \result == TN_UART_IIR_NONE || \result == TN_UART_IIR_RLSI ||
      \result == TN_UART_IIR_RDI || \result == TN_UART_IIR_TIMEOUT ||
      \result == TN_UART_IIR_THRI || \result == TN_UART_IIR_MSI; */
static inline uint8_t tn_uart_iir_(const struct tn_uart_state *s, bool timer)
{
    if (s->ier == 0)
        return TN_UART_IIR_NONE;
    if ((s->ier & 4) != 0 && (s->overrun || (s->rx_count > 0 && s->rx[0] > 255)))
        return TN_UART_IIR_RLSI;
    if ((s->ier & 1) != 0 && s->rx_count > 0) {
        if (s->rx_count >= tn_uart_trigger_(s))
            return TN_UART_IIR_RDI;
        if (s->timeout || !timer)
            return TN_UART_IIR_TIMEOUT;
    }
    if (s->thre)
        return TN_UART_IIR_THRI;
    if ((s->ier & 8) != 0 && s->delta)
        return TN_UART_IIR_MSI;
    return TN_UART_IIR_NONE;
}

/* The interrupt line: INTR, through the gate that OUT2 opens on a PC. */
/*@ requires \valid_read(s) && tn_uart_ok((struct tn_uart_state *)s);
    assigns \nothing;
    ensures \result != 0 ==> (s->mcr & 8) != 0 && s->mcr < TN_UART_MCR_LOOP && s->ier != 0; */
static inline bool tn_uart_level_(const struct tn_uart_state *s, bool timer)
{
    return (s->mcr & 8) != 0 && s->mcr < TN_UART_MCR_LOOP &&
           tn_uart_iir_(s, timer) != TN_UART_IIR_NONE;
}

/* The line status register (table II). */
/*@ requires \valid_read(s) && tn_uart_ok((struct tn_uart_state *)s);
    assigns \nothing; */
static inline uint8_t tn_uart_lsr_(const struct tn_uart_state *s)
{
    unsigned lsr = s->tx_count == 0 ? TN_UART_LSR_THRE | TN_UART_LSR_TEMT : 0u;

    if (s->overrun)
        lsr |= TN_UART_LSR_OE;
    if (s->rx_count > 0) {
        lsr |= TN_UART_LSR_DR;
        if (s->rx[0] > 255)
            lsr |= TN_UART_LSR_BI;
        /*@ loop invariant 0 <= i <= s->rx_count;
            loop assigns i, lsr;
            loop variant s->rx_count - i; */
        for (unsigned i = 0; i < s->rx_count; i++) {
            if (s->fcr != 0 && s->rx[i] > 255)
                lsr |= TN_UART_LSR_FIFO;
        }
    }
    return (uint8_t)lsr;
}

/* The guest's read of a register. */
/*@ requires \valid(s) && tn_uart_ok(s);
    assigns *s;
    ensures tn_uart_ok(s);
    ensures reg >= 8 ==> \result == 0xff;
    ensures reg != 0 ==> s->rx_count == \old(s->rx_count);
    ensures s->rx_count <= \old(s->rx_count);
    ensures s->tx_count == \old(s->tx_count) && s->fcr == \old(s->fcr) && s->ier == \old(s->ier) &&
      s->mcr == \old(s->mcr); */
static inline uint8_t tn_uart_get_(struct tn_uart_state *s, unsigned reg, bool timer)
{
    uint8_t value;

    switch (reg) {
    case TN_UART_RBR:
        return s->lcr >= TN_UART_LCR_DLAB ? s->dll : tn_uart_rx_get_(s);
    case TN_UART_IER:
        return s->lcr >= TN_UART_LCR_DLAB ? s->dlm : s->ier;
    case TN_UART_IIR:
        value = tn_uart_iir_(s, timer);
        if (value == TN_UART_IIR_THRI)
            s->thre = 0;
        return s->fcr == 0 ? value : (uint8_t)(value + TN_UART_IIR_FIFO);
    case TN_UART_LCR:
        return s->lcr;
    case TN_UART_MCR:
        return s->mcr;
    case TN_UART_LSR:
        value = tn_uart_lsr_(s);
        s->overrun = 0;
        if (s->rx[0] > 255)
            s->rx[0] = 0; /* the byte that comes with it stays */
        return value;
    case TN_UART_MSR:
        value = (uint8_t)(tn_uart_lines_(s->mcr) | s->delta);
        s->delta = 0;
        return value;
    case TN_UART_SCR:
        return s->scr;
    default:
        return 0xff;
    }
}

/* The guest's write of a register, except THR, whose bytes leave. */
/*@ requires \valid(s) && tn_uart_ok(s);
    assigns *s;
    ensures tn_uart_ok(s);
    ensures reg != TN_UART_FCR ==>
      s->rx_count == \old(s->rx_count) && s->tx_count == \old(s->tx_count) &&
      s->fcr == \old(s->fcr);
    ensures s->rx_count <= \old(s->rx_count) && s->tx_count <= \old(s->tx_count); */
static inline void tn_uart_put_(struct tn_uart_state *s, unsigned reg, uint8_t value)
{
    uint8_t before, after, changed;

    switch (reg) {
    case TN_UART_DLL:
        if (s->lcr >= TN_UART_LCR_DLAB)
            s->dll = value;
        break;
    case TN_UART_IER:
        if (s->lcr >= TN_UART_LCR_DLAB) {
            s->dlm = value;
            break;
        }
        before = s->ier;
        s->ier = value % 16u;
        if ((s->ier & 2) == 0)
            s->thre = 0;
        else if ((before & 2) == 0)
            tn_uart_tx_idle_(s);
        break;
    case TN_UART_FCR:
        /* The other bits count only together with the enable bit; a change of it clears both. */
        after = value % 2u == 1 ? (uint8_t)(value / 64u * 64u + 1) : 0;
        changed = (after == 0) != (s->fcr == 0);
        if (changed || (after != 0 && (value & TN_UART_FCR_CLEAR_RX)))
            tn_uart_rx_clear_(s);
        if ((changed || (after != 0 && (value & TN_UART_FCR_CLEAR_TX))) && s->tx_count > 0) {
            tn_uart_tx_drop_(s, s->tx_count);
            tn_uart_tx_idle_(s);
        }
        s->fcr = after;
        break;
    case TN_UART_LCR:
        s->lcr = value;
        break;
    case TN_UART_MCR:
        before = tn_uart_lines_(s->mcr);
        s->mcr = value % 32u;
        after = tn_uart_lines_(s->mcr);
        changed = (uint8_t)((before ^ after) / 16u);
        if (after & 0x40)
            changed = (uint8_t)(changed & 0x0b); /* RI counts when it goes away */
        s->delta = (uint8_t)((s->delta | changed) % 16u);
        break;
    case TN_UART_SCR:
        s->scr = value;
        break;
    default:
        break;
    }
}

/* Tells the caller what has changed; last in each function, since cfg.room may push. */
static inline void tn_uart_sync_(struct tn_uart *u)
{
    bool level = tn_uart_level_(&u->state, u->cfg.timer);

    if (level != u->level) {
        u->level = level;
        u->cfg.irq(u->cfg.ctx, level);
    }
    if (tn_uart_room_(&u->state) == 0) {
        u->blocked = true;
    } else if (u->blocked && u->state.rx_count == 0) {
        u->blocked = false;
        if (u->cfg.room)
            u->cfg.room(u->cfg.ctx);
    }
}

/* Offers the sink what waits. */
static inline void tn_uart_drain_(struct tn_uart *u)
{
    struct tn_uart_state *s = &u->state;
    size_t n;

    if (s->tx_count == 0 || u->sending)
        return;
    u->sending = true;
    n = u->cfg.tx(u->cfg.ctx, s->tx, s->tx_count);
    u->sending = false;
    if (n == 0)
        return;
    tn_uart_tx_drop_(s, n < s->tx_count ? (uint8_t)n : s->tx_count);
    tn_uart_tx_idle_(s);
}

/* A byte written to THR: straight to the sink, into the FIFO if it is refused. */
static inline void tn_uart_send_(struct tn_uart *u, uint8_t byte)
{
    struct tn_uart_state *s = &u->state;
    size_t n;

    if (s->mcr >= TN_UART_MCR_LOOP) {
        tn_uart_loop_(s, byte);
        return;
    }
    if (s->tx_count >= tn_uart_cap_(s))
        tn_uart_drain_(u); /* the guest did not wait: the sink may be ready by now */
    if (s->tx_count == 0 && !u->sending) {
        u->sending = true;
        n = u->cfg.tx(u->cfg.ctx, &byte, 1);
        u->sending = false;
        if (n > 0) {
            tn_uart_tx_idle_(s);
            return;
        }
    }
    if (!tn_uart_tx_put_(s, byte))
        u->dropped++;
}

TN_API int tn_uart_init(struct tn_uart *u, const struct tn_uart_cfg *cfg)
{
    if (!cfg->tx || !cfg->irq)
        return TN_EINVAL;
    u->cfg = *cfg;
    tn_uart_clear_(&u->state);
    u->dropped = 0;
    u->level = false;
    u->blocked = false;
    u->sending = false;
    return 0;
}

TN_API void tn_uart_reset(struct tn_uart *u)
{
    tn_uart_drain_(u);
    tn_uart_clear_(&u->state);
    tn_uart_sync_(u);
}

TN_API uint8_t tn_uart_read(struct tn_uart *u, unsigned reg)
{
    uint8_t value = tn_uart_get_(&u->state, reg, u->cfg.timer);

    tn_uart_sync_(u);
    return value;
}

TN_API void tn_uart_write(struct tn_uart *u, unsigned reg, uint8_t value)
{
    if (reg == TN_UART_THR && u->state.lcr < TN_UART_LCR_DLAB) {
        tn_uart_send_(u, value);
    } else {
        if (reg == TN_UART_FCR)
            tn_uart_drain_(u); /* on the wire they would have left before the FIFO is cleared */
        tn_uart_put_(&u->state, reg, value);
    }
    tn_uart_sync_(u);
}

TN_API size_t tn_uart_push(struct tn_uart *u, const uint8_t *bytes, size_t len)
{
    size_t n = tn_uart_push_(&u->state, bytes, len);

    tn_uart_sync_(u);
    return n;
}

TN_API size_t tn_uart_room(const struct tn_uart *u)
{
    return tn_uart_room_(&u->state);
}

TN_API int tn_uart_flush(struct tn_uart *u)
{
    tn_uart_drain_(u);
    tn_uart_sync_(u);
    return u->state.tx_count;
}

TN_API void tn_uart_tick(struct tn_uart *u)
{
    if (u->state.fcr != 0 && u->state.rx_count > 0)
        u->state.timeout = 1;
    tn_uart_sync_(u);
}

TN_API int tn_uart_break(struct tn_uart *u)
{
    if (tn_uart_room_(&u->state) == 0)
        return TN_ENOSPC;
    tn_uart_rx_put_(&u->state, 0x100);
    tn_uart_sync_(u);
    return 0;
}

TN_API void tn_uart_save(const struct tn_uart *u, struct tn_uart_state *out)
{
    *out = u->state;
}

TN_API int tn_uart_restore(struct tn_uart *u, const struct tn_uart_state *from)
{
    struct tn_uart_state copy = *from;

    if (copy.version != TN_UART_VERSION)
        return TN_EUNSUP;
    if (!tn_uart_valid_(&copy))
        return TN_EFORMAT;
    u->state = copy;
    tn_uart_sync_(u);
    return 0;
}
#endif
#ifdef __cplusplus
}
#endif
#endif
