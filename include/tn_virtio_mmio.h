/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_virtio_mmio - the memory-mapped transport: one virtio device behind 512 bytes of registers.
 *
 * WHAT
 *   The register file of virtio over MMIO, version 2, for any struct tn_virtio: control registers
 *   in the first 256 bytes of the window, the device's configuration space in the other 256. One
 *   interrupt, for edge- and for level-triggered lines.
 *
 * USAGE
 *   static void line(void *ctx, bool level)
 *   {
 *       *(bool *)ctx = level;
 *   }
 *   ---
 *   static struct tn_virtio_queue queue[1];
 *   static const struct tn_virtio_ops ops;
 *   struct tn_mem_region table[1];
 *   struct tn_virtio_mmio mmio;
 *   struct tn_virtio v;
 *   struct tn_mem mem;
 *   struct tn_virtio_cfg cfg = {63, TN_VIRTIO_F_RING, 64, 1, queue, &mem, NULL, 0, &ops, NULL};
 *   bool level = false;
 *
 *   tn_mem_init(&mem, table, 1);
 *   if (tn_virtio_init(&v, &cfg) < 0 || tn_virtio_mmio_init(&mmio, &v, line, &level) < 0)
 *       return 1;
 *   if (tn_virtio_mmio_read(&mmio, TN_VIRTIO_MMIO_MAGIC_VALUE, 4) != TN_VIRTIO_MMIO_MAGIC)
 *       return 1;
 *   tn_virtio_mmio_write(&mmio, TN_VIRTIO_MMIO_STATUS, 4, TN_VIRTIO_S_ACKNOWLEDGE);
 *
 * COMPOSITION
 *   A bus handler of TN_VIRTIO_MMIO_SIZE bytes calls tn_virtio_mmio_read and tn_virtio_mmio_write
 *   with the offset in the window. A write of QueueNotify may be an ioeventfd instead, whose owner
 *   calls tn_virtio_notify. irq(ctx, true) is called for each event: an edge-triggered user pulses
 *   its line, a level-triggered one raises it, and lowers it at irq(ctx, false). irq may call
 *   nothing here. A reset from outside is a write of 0 to Status, too.
 *
 * GUEST TRUST
 *   Offset, width and value may be the guest's, unchecked, in any order of accesses; a saved state
 *   may be a hostile file's. What the specification forbids the driver (4.2.2.2) reads as 0, and
 *   is ignored when it is written. The bus hands over accesses inside the window; one outside is
 *   treated the same way.
 *
 * MEMORY
 *   struct tn_virtio_mmio is all there is; it stays in place while the device is in use.
 *
 * THREADS
 *   One call at a time on one struct and its device; the caller has the lock. irq runs inside the
 *   call.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Virtual I/O Device (VIRTIO) 1.2, sections 4.2.2 (registers), 4.2.3 (initialisation,
 *   notifications), 2.5 (configuration space). What 4.2.2.2 leaves open is decided here: control
 *   registers are served in aligned accesses of 4 bytes, the configuration space in aligned ones of
 *   1, 2 and 4; a register that is only for writing reads as 0; QueueNum above 65535 is as wrong as
 *   0 is; QueueReady takes 0 and 1.
 *
 * LIMITS
 *   No legacy registers (version 1), no shared memory region, no QueueReset. 256 bytes of
 *   configuration space. QueueReady cannot be cleared after DRIVER_OK: a reset stops the queues.
 */
#ifndef TN_VIRTIO_MMIO_H
#define TN_VIRTIO_MMIO_H

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
#include "tn_virtio.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_VIRTIO_MMIO_SIZE   0x200u      /* bytes of the window */
#define TN_VIRTIO_MMIO_MAGIC  0x74726976u /* "virt" */
#define TN_VIRTIO_MMIO_VENDOR 0x4e4f4e54u /* "TNON" */
#define TN_VIRTIO_MMIO_RECORD 1           /* version of struct tn_virtio_mmio_state */

/* Offsets (4.2.2); the comment says what the driver may do. */
#define TN_VIRTIO_MMIO_MAGIC_VALUE         0x000u /* read */
#define TN_VIRTIO_MMIO_VERSION             0x004u /* read: 2 */
#define TN_VIRTIO_MMIO_DEVICE_ID           0x008u /* read */
#define TN_VIRTIO_MMIO_VENDOR_ID           0x00cu /* read */
#define TN_VIRTIO_MMIO_DEVICE_FEATURES     0x010u /* read */
#define TN_VIRTIO_MMIO_DEVICE_FEATURES_SEL 0x014u /* write */
#define TN_VIRTIO_MMIO_DRIVER_FEATURES     0x020u /* write */
#define TN_VIRTIO_MMIO_DRIVER_FEATURES_SEL 0x024u /* write */
#define TN_VIRTIO_MMIO_QUEUE_SEL           0x030u /* write */
#define TN_VIRTIO_MMIO_QUEUE_NUM_MAX       0x034u /* read */
#define TN_VIRTIO_MMIO_QUEUE_NUM           0x038u /* write */
#define TN_VIRTIO_MMIO_QUEUE_READY         0x044u /* both */
#define TN_VIRTIO_MMIO_QUEUE_NOTIFY        0x050u /* write */
#define TN_VIRTIO_MMIO_INTERRUPT_STATUS    0x060u /* read */
#define TN_VIRTIO_MMIO_INTERRUPT_ACK       0x064u /* write */
#define TN_VIRTIO_MMIO_STATUS              0x070u /* both */
#define TN_VIRTIO_MMIO_QUEUE_DESC_LOW      0x080u /* write */
#define TN_VIRTIO_MMIO_QUEUE_DESC_HIGH     0x084u /* write */
#define TN_VIRTIO_MMIO_QUEUE_DRIVER_LOW    0x090u /* write */
#define TN_VIRTIO_MMIO_QUEUE_DRIVER_HIGH   0x094u /* write */
#define TN_VIRTIO_MMIO_QUEUE_DEVICE_LOW    0x0a0u /* write */
#define TN_VIRTIO_MMIO_QUEUE_DEVICE_HIGH   0x0a4u /* write */
#define TN_VIRTIO_MMIO_SHM_SEL             0x0acu /* write */
#define TN_VIRTIO_MMIO_SHM_LEN_LOW         0x0b0u /* read: -1, there is none */
#define TN_VIRTIO_MMIO_SHM_LEN_HIGH        0x0b4u
#define TN_VIRTIO_MMIO_SHM_BASE_LOW        0x0b8u
#define TN_VIRTIO_MMIO_SHM_BASE_HIGH       0x0bcu
#define TN_VIRTIO_MMIO_QUEUE_RESET         0x0c0u /* reads 0 without VIRTIO_F_RING_RESET */
#define TN_VIRTIO_MMIO_CONFIG_GENERATION   0x0fcu /* read */
#define TN_VIRTIO_MMIO_CONFIG              0x100u /* both: the configuration space */

/* InterruptStatus and InterruptACK. */
#define TN_VIRTIO_MMIO_INT_VRING  1u /* buffers were used */
#define TN_VIRTIO_MMIO_INT_CONFIG 2u /* the configuration or the status changed */

/* Read-only to callers, except through the functions, and always. */
struct tn_virtio_mmio {
    struct tn_virtio *v;
    void (*irq)(void *ctx, bool level);
    void *ctx;
    uint32_t device_features_sel;
    uint32_t driver_features_sel;
    uint32_t queue_sel;
    uint32_t shm_sel;
    uint32_t interrupt_status; /* 0 to 3 */
    /*
     * What InterruptStatus has as well, acknowledged or not: TN_VIRTIO_MMIO_INT_VRING when somebody
     * else, the kernel's vhost say, interrupts for the device; else 0.
     */
    uint32_t always;
};

/* What is saved of the transport; struct tn_virtio_state has the rest. */
struct tn_virtio_mmio_state {
    uint32_t version; /* TN_VIRTIO_MMIO_RECORD */
    uint32_t device_features_sel;
    uint32_t driver_features_sel;
    uint32_t queue_sel;
    uint32_t shm_sel;
    uint32_t interrupt_status;
};

/*
 * Puts a device behind the registers, and joins it to them by tn_virtio_connect. irq gets true for
 * each new event, even when the one before it is not acknowledged yet, and false when the last one
 * is, or the device is reset. Returns 0; TN_EINVAL when v or irq is missing.
 */
TN_API int tn_virtio_mmio_init(struct tn_virtio_mmio *m, struct tn_virtio *v,
                               void (*irq)(void *ctx, bool level), void *ctx);

/*
 * The driver reads width bytes at off in the window. What is not a register, or cannot be read so,
 * is 0.
 */
/*@ requires \valid_read(m) && \valid(m->v) && tn_virtio_readable(m->v);
    assigns \nothing;
    ensures off >= TN_VIRTIO_MMIO_SIZE ==> \result == 0;
    ensures off < 0x100 && (width != 4 || off % 4 != 0) ==> \result == 0;
    ensures off >= 0x100 && (!(width == 1 || width == 2 || width == 4) || off % width != 0 ||
      off - 0x100 + width > m->v->cfg.config_len) ==> \result == 0;
    ensures off == 0x000 && width == 4 ==> \result == 0x74726976;
    ensures off == 0x004 && width == 4 ==> \result == 2;
    ensures off == 0x060 && width == 4 ==> \result == (m->interrupt_status | m->always);
    ensures off == 0x070 && width == 4 ==> \result == m->v->status; */
TN_API uint64_t tn_virtio_mmio_read(const struct tn_virtio_mmio *m, uint64_t off, unsigned width);

/*
 * The driver writes the low width bytes of value. What is not a register, or cannot be written so
 * or now, changes nothing.
 */
TN_API void tn_virtio_mmio_write(struct tn_virtio_mmio *m, uint64_t off, unsigned width,
                                 uint64_t value);

/*
 * Copies the state out; the device's is saved by tn_virtio_save.
 */
/*@ requires \valid_read(m) && \valid(out) && \separated(m, out);
    assigns *out;
    ensures out->version == TN_VIRTIO_MMIO_RECORD && out->queue_sel == m->queue_sel &&
      out->device_features_sel == m->device_features_sel && out->shm_sel == m->shm_sel &&
      out->driver_features_sel == m->driver_features_sel &&
      out->interrupt_status == m->interrupt_status; */
TN_API void tn_virtio_mmio_save(const struct tn_virtio_mmio *m, struct tn_virtio_mmio_state *out);

/*
 * Takes a saved state over. irq gets true if an event is not acknowledged, false if there is none
 * and there was one. Returns 0; TN_EUNSUP for another version, TN_EFORMAT for a state that no
 * driver can reach (m is unchanged).
 */
TN_API int tn_virtio_mmio_restore(struct tn_virtio_mmio *m,
                                  const struct tn_virtio_mmio_state *from);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* Whether an access is to one control register. */
/*@ assigns \nothing;
    ensures \result <==> off < 0x100 && width == 4 && off % 4 == 0; */
static inline bool tn_virtio_mmio_control_(uint64_t off, unsigned width)
{
    return off < TN_VIRTIO_MMIO_CONFIG && width == 4 && off % 4 == 0;
}

/* Whether an access is to the configuration space, aligned and whole in the window. */
/*@ assigns \nothing;
    ensures \result <==> 0x100 <= off < 0x200 && (width == 1 || width == 2 || width == 4) &&
      off % width == 0;
    ensures \result ==> off + width <= 0x200; */
static inline bool tn_virtio_mmio_config_(uint64_t off, unsigned width)
{
    return off >= TN_VIRTIO_MMIO_CONFIG && off < TN_VIRTIO_MMIO_SIZE &&
           (width == 1 || width == 2 || width == 4) && off % width == 0;
}

/* One half of a 64-bit register. */
/*@ assigns \nothing;
    ensures \result == old / 4294967296 * 4294967296 + value; */
static inline uint64_t tn_virtio_mmio_low_(uint64_t old, uint32_t value)
{
    return old - old % 0x100000000u + value;
}

/*@ assigns \nothing;
    ensures \result == value * 4294967296 + old % 4294967296; */
static inline uint64_t tn_virtio_mmio_high_(uint64_t old, uint32_t value)
{
    return value * 0x100000000u + old % 0x100000000u;
}

/* A write to a register of a queue that the driver sets up; an enabled one only lets go. */
/*@ requires \valid(q);
    assigns q->desc, q->driver, q->device, q->size, q->ready;
    ensures \old(q->ready) != 0 || reg == TN_VIRTIO_MMIO_QUEUE_READY ==> q->desc == \old(q->desc) &&
      q->driver == \old(q->driver) && q->device == \old(q->device) && q->size == \old(q->size);
    ensures reg != TN_VIRTIO_MMIO_QUEUE_READY || value > 1 ==> q->ready == \old(q->ready);
    ensures reg == TN_VIRTIO_MMIO_QUEUE_READY && value <= 1 ==> q->ready == value;
    ensures \old(q->ready) == 0 && reg == TN_VIRTIO_MMIO_QUEUE_NUM ==>
      q->size == (value <= 0xffff ? value : 0);
    ensures reg != TN_VIRTIO_MMIO_QUEUE_NUM ==> q->size == \old(q->size);
    ensures reg != TN_VIRTIO_MMIO_QUEUE_DESC_LOW && reg != TN_VIRTIO_MMIO_QUEUE_DESC_HIGH ==>
      q->desc == \old(q->desc);
    ensures reg != TN_VIRTIO_MMIO_QUEUE_DRIVER_LOW && reg != TN_VIRTIO_MMIO_QUEUE_DRIVER_HIGH ==>
      q->driver == \old(q->driver);
    ensures reg != TN_VIRTIO_MMIO_QUEUE_DEVICE_LOW && reg != TN_VIRTIO_MMIO_QUEUE_DEVICE_HIGH ==>
      q->device == \old(q->device);
    ensures \old(q->ready) == 0 && reg == TN_VIRTIO_MMIO_QUEUE_DESC_HIGH ==>
      q->desc == value * 4294967296 + \old(q->desc) % 4294967296;
    ensures \old(q->ready) == 0 && reg == TN_VIRTIO_MMIO_QUEUE_DEVICE_LOW ==>
      q->device == \old(q->device) / 4294967296 * 4294967296 + value; */
static inline void tn_virtio_mmio_queue_put_(struct tn_virtio_queue *q, uint32_t reg,
                                             uint32_t value)
{
    if (reg == TN_VIRTIO_MMIO_QUEUE_READY && value <= 1)
        q->ready = value == 1;
    if (q->ready)
        return;
    switch (reg) {
    case TN_VIRTIO_MMIO_QUEUE_NUM:
        q->size = value <= 0xffffu ? (uint16_t)value : 0;
        break;
    case TN_VIRTIO_MMIO_QUEUE_DESC_LOW:
        q->desc = tn_virtio_mmio_low_(q->desc, value);
        break;
    case TN_VIRTIO_MMIO_QUEUE_DESC_HIGH:
        q->desc = tn_virtio_mmio_high_(q->desc, value);
        break;
    case TN_VIRTIO_MMIO_QUEUE_DRIVER_LOW:
        q->driver = tn_virtio_mmio_low_(q->driver, value);
        break;
    case TN_VIRTIO_MMIO_QUEUE_DRIVER_HIGH:
        q->driver = tn_virtio_mmio_high_(q->driver, value);
        break;
    case TN_VIRTIO_MMIO_QUEUE_DEVICE_LOW:
        q->device = tn_virtio_mmio_low_(q->device, value);
        break;
    case TN_VIRTIO_MMIO_QUEUE_DEVICE_HIGH:
        q->device = tn_virtio_mmio_high_(q->device, value);
        break;
    default:
        break;
    }
}

/* What the transport keeps, as after a reset of the device. */
/*@ requires \valid(m);
    assigns m->device_features_sel, m->driver_features_sel, m->queue_sel, m->shm_sel,
      m->interrupt_status;
    ensures m->queue_sel == 0 && m->interrupt_status == 0 && m->device_features_sel == 0 &&
      m->driver_features_sel == 0 && m->shm_sel == 0; */
static inline void tn_virtio_mmio_clear_(struct tn_virtio_mmio *m)
{
    m->device_features_sel = 0;
    m->driver_features_sel = 0;
    m->queue_sel = 0;
    m->shm_sel = 0;
    m->interrupt_status = 0;
}

/* The driver's acknowledgement. Returns whether it was the last. */
/*@ requires \valid(m);
    assigns m->interrupt_status;
    ensures m->interrupt_status == (\old(m->interrupt_status) & (uint32_t)~value);
    ensures \old(m->interrupt_status) == 3 && value == 1 ==> m->interrupt_status == 2;
    ensures \old(m->interrupt_status) == 3 && value == 2 ==> m->interrupt_status == 1;
    ensures \result <==> \old(m->interrupt_status) != 0 && m->interrupt_status == 0; */
static inline bool tn_virtio_mmio_ack_(struct tn_virtio_mmio *m, uint32_t value)
{
    uint32_t before = m->interrupt_status;

    m->interrupt_status = before & ~value;
    return before != 0 && m->interrupt_status == 0;
}

/* tn_virtio interrupts. */
static inline void tn_virtio_mmio_interrupt_(void *ctx, uint32_t queue)
{
    struct tn_virtio_mmio *m = (struct tn_virtio_mmio *)ctx;

    m->interrupt_status |=
        queue == TN_VIRTIO_CONFIG ? TN_VIRTIO_MMIO_INT_CONFIG : TN_VIRTIO_MMIO_INT_VRING;
    m->irq(m->ctx, true);
}

TN_API int tn_virtio_mmio_init(struct tn_virtio_mmio *m, struct tn_virtio *v,
                               void (*irq)(void *ctx, bool level), void *ctx)
{
    if (!v || !irq)
        return TN_EINVAL;
    m->v = v;
    m->irq = irq;
    m->ctx = ctx;
    m->always = 0;
    tn_virtio_mmio_clear_(m);
    tn_virtio_connect(v, tn_virtio_mmio_interrupt_, m);
    return 0;
}

/* A control register as the driver reads it. */
/*@ requires \valid_read(m) && \valid(m->v) && tn_virtio_readable(m->v);
    assigns \nothing;
    ensures reg == 0x000 ==> \result == 0x74726976;
    ensures reg == 0x004 ==> \result == 2;
    ensures reg == 0x008 ==> \result == m->v->cfg.device_id;
    ensures reg == 0x010 && m->device_features_sel > 1 ==> \result == 0;
    ensures (reg == 0x034 || reg == 0x044) && m->queue_sel >= m->v->cfg.queues ==> \result == 0;
    ensures reg == 0x034 && m->queue_sel < m->v->cfg.queues ==>
      \result == m->v->cfg.queue_size;
    ensures reg == 0x044 && m->queue_sel < m->v->cfg.queues ==>
      (\result == 1 <==> m->v->cfg.queue[m->queue_sel].ready != 0) && \result <= 1;
    ensures reg == 0x060 ==> \result == (m->interrupt_status | m->always);
    ensures reg == 0x070 ==> \result == m->v->status;
    ensures reg == 0x0b0 ==> \result == 0xffffffff;
    ensures reg == 0x0fc ==> \result == m->v->generation;
    ensures reg == 0x014 || reg == 0x020 || reg == 0x038 || reg == 0x050 || reg == 0x064 ||
      reg == 0x080 || reg == 0x0c0 ==> \result == 0; */
static inline uint32_t tn_virtio_mmio_get_(const struct tn_virtio_mmio *m, uint32_t reg)
{
    const struct tn_virtio_queue *q = tn_virtio_queue_ptr(m->v, m->queue_sel);

    switch (reg) {
    case TN_VIRTIO_MMIO_MAGIC_VALUE:
        return TN_VIRTIO_MMIO_MAGIC;
    case TN_VIRTIO_MMIO_VERSION:
        return 2;
    case TN_VIRTIO_MMIO_DEVICE_ID:
        return m->v->cfg.device_id;
    case TN_VIRTIO_MMIO_VENDOR_ID:
        return TN_VIRTIO_MMIO_VENDOR;
    case TN_VIRTIO_MMIO_DEVICE_FEATURES:
        return tn_virtio_features_read(m->v, m->device_features_sel);
    case TN_VIRTIO_MMIO_QUEUE_NUM_MAX:
        return q ? m->v->cfg.queue_size : 0;
    case TN_VIRTIO_MMIO_QUEUE_READY:
        return q && q->ready ? 1 : 0;
    case TN_VIRTIO_MMIO_INTERRUPT_STATUS:
        return m->interrupt_status | m->always;
    case TN_VIRTIO_MMIO_STATUS:
        return tn_virtio_status_read(m->v);
    case TN_VIRTIO_MMIO_SHM_LEN_LOW:
    case TN_VIRTIO_MMIO_SHM_LEN_HIGH:
    case TN_VIRTIO_MMIO_SHM_BASE_LOW:
    case TN_VIRTIO_MMIO_SHM_BASE_HIGH:
        return 0xffffffffu;
    case TN_VIRTIO_MMIO_CONFIG_GENERATION:
        return m->v->generation;
    default:
        return 0;
    }
}

TN_API uint64_t tn_virtio_mmio_read(const struct tn_virtio_mmio *m, uint64_t off, unsigned width)
{
    if (tn_virtio_mmio_control_(off, width))
        return tn_virtio_mmio_get_(m, (uint32_t)off);
    if (tn_virtio_mmio_config_(off, width))
        return tn_virtio_config_read(m->v, (uint32_t)(off - TN_VIRTIO_MMIO_CONFIG), width);
    return 0;
}

/* The driver's write of the status; one of 0 resets the transport with the device. */
static inline void tn_virtio_mmio_status_(struct tn_virtio_mmio *m, uint32_t value)
{
    bool was;

    if (value > 0xffu)
        return;
    tn_virtio_status_write(m->v, (uint8_t)value);
    if (value != 0)
        return;
    was = m->interrupt_status != 0;
    tn_virtio_mmio_clear_(m);
    if (was)
        m->irq(m->ctx, false);
}

TN_API void tn_virtio_mmio_write(struct tn_virtio_mmio *m, uint64_t off, unsigned width,
                                 uint64_t value)
{
    uint32_t word = (uint32_t)value;
    struct tn_virtio_queue *q;

    if (tn_virtio_mmio_config_(off, width)) {
        tn_virtio_config_write(m->v, (uint32_t)(off - TN_VIRTIO_MMIO_CONFIG), width, word);
        return;
    }
    if (!tn_virtio_mmio_control_(off, width))
        return;
    switch ((uint32_t)off) {
    case TN_VIRTIO_MMIO_DEVICE_FEATURES_SEL:
        m->device_features_sel = word;
        break;
    case TN_VIRTIO_MMIO_DRIVER_FEATURES:
        tn_virtio_features_write(m->v, m->driver_features_sel, word);
        break;
    case TN_VIRTIO_MMIO_DRIVER_FEATURES_SEL:
        m->driver_features_sel = word;
        break;
    case TN_VIRTIO_MMIO_QUEUE_SEL:
        m->queue_sel = word;
        break;
    case TN_VIRTIO_MMIO_QUEUE_NOTIFY:
        tn_virtio_notify(m->v, word);
        break;
    case TN_VIRTIO_MMIO_INTERRUPT_ACK:
        if (tn_virtio_mmio_ack_(m, word))
            m->irq(m->ctx, false);
        break;
    case TN_VIRTIO_MMIO_STATUS:
        tn_virtio_mmio_status_(m, word);
        break;
    case TN_VIRTIO_MMIO_SHM_SEL:
        m->shm_sel = word;
        break;
    default:
        q = tn_virtio_queue_ptr(m->v, m->queue_sel);
        if (q && tn_virtio_queue_open(m->v))
            tn_virtio_mmio_queue_put_(q, (uint32_t)off, word);
        break;
    }
}

TN_API void tn_virtio_mmio_save(const struct tn_virtio_mmio *m, struct tn_virtio_mmio_state *out)
{
    out->version = TN_VIRTIO_MMIO_RECORD;
    out->device_features_sel = m->device_features_sel;
    out->driver_features_sel = m->driver_features_sel;
    out->queue_sel = m->queue_sel;
    out->shm_sel = m->shm_sel;
    out->interrupt_status = m->interrupt_status;
}

TN_API int tn_virtio_mmio_restore(struct tn_virtio_mmio *m, const struct tn_virtio_mmio_state *from)
{
    struct tn_virtio_mmio_state s = *from;
    bool was = m->interrupt_status != 0;

    if (s.version != TN_VIRTIO_MMIO_RECORD)
        return TN_EUNSUP;
    if (s.interrupt_status > (TN_VIRTIO_MMIO_INT_VRING | TN_VIRTIO_MMIO_INT_CONFIG))
        return TN_EFORMAT;
    m->device_features_sel = s.device_features_sel;
    m->driver_features_sel = s.driver_features_sel;
    m->queue_sel = s.queue_sel;
    m->shm_sel = s.shm_sel;
    m->interrupt_status = s.interrupt_status;
    if (s.interrupt_status != 0 || was)
        m->irq(m->ctx, s.interrupt_status != 0);
    return 0;
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VIRTIO_MMIO_H */
