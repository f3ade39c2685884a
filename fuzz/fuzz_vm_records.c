/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The sections of a machine, with right digests: of hostile bytes, or of a state that models were
 * brought into and a hostile hand changed. Each is read, restored into models of its kind, and the
 * models run on. Properties: a file that is refused leaves a void record; what is read is written
 * again byte by byte; so is what is restored, saved and written; a restored wreck harms nobody, and
 * after its reset a driver brings it up again.
 */
#include "tn_vm_records.h"

#include "../tests/snap_forge.h"
#include "fuzz.h"
#include "../tests/virtio_driver.h"

#define ROOM   32768u
#define RAM    0x4000u
#define RINGS  0x1000u
#define DATA   0x3000u
#define QUEUES 2u
#define SLOTS  2u
#define PARTS  10u
#define XSAVE  256u

/* One of each model; those of an input's kind are used. */
struct models {
    struct tn_uart uart;
    struct tn_i8042 i8042;
    struct tn_rate rate;
    struct tn_virtio toy;
    struct tn_virtio_queue queue[QUEUES];
    struct tn_virtio_mmio mmio;
    struct tn_virtio_blk blk;
    struct tn_virtio_blk_slot slot[SLOTS];
    struct tn_virtio_console console;
    struct tn_virtio_rng rng;
    struct vd d;
};

static struct models models;
static struct tn_mem mem;
static struct tn_mem_region region[1];
static uint8_t *ram;
static uint8_t sink; /* how much of each write the host takes, 255: all */
static uint64_t now;

static size_t on_tx(void *ctx, const uint8_t *bytes, size_t len)
{
    uint8_t last = 0;

    (void)ctx;
    for (size_t i = 0; i < len; i++)
        last ^= bytes[i];
    return sink == 255 ? len : last % 2 + sink < len ? sink : len;
}

static void on_line(void *ctx, bool level)
{
    (void)ctx;
    (void)level;
}

static void on_event(void *ctx)
{
    (void)ctx;
}

static void on_wake(void *ctx, uint64_t ns)
{
    (void)ctx;
    (void)ns;
}

static int64_t on_fill(void *ctx, uint8_t *buf, size_t len)
{
    (void)ctx;
    memset(buf, 4, len);
    return sink == 0 ? 0 : (int64_t)len;
}

static void be_submit(void *ctx, struct tn_disk_req *req)
{
    (void)ctx;
    for (uint32_t i = 0; req->op == TN_DISK_READ && i < req->iovs; i++)
        memset(req->iov[i].base, 0xd1, req->iov[i].len);
    req->done(req, TN_OK);
}

static const struct tn_disk_ops be_ops = {be_submit, on_event, on_event};
static const struct tn_disk disk = {&be_ops, NULL, 64 * 512, 512, 512, 0, true, true, false};
static const struct tn_virtio_ops toy_ops = {NULL, NULL, NULL, NULL, NULL};

/* ---- the kinds: a state that models come into; what is restored, saved and goes on ---- */

static void grow_machine(struct fz *z, void *state)
{
    struct tn_vm_machine_record *r = state;

    fz_bytes(z, r, sizeof(*r));
    r->flags &= TN_VM_MACHINE_FLAGS;
}

static void grow_disk(struct fz *z, void *state)
{
    struct tn_vm_disk_record *r = state;

    r->size = fz_u64(z);
    r->read_only = fz_u8(z) & 1;
    r->overlaid = fz_u8(z) & 1;
    memset(r->id, 'i', fz_u8(z) % sizeof(r->id));
    memset(r->path, 'p', fz_u16(z) % sizeof(r->path));
    memset(r->overlay, 'o', fz_u8(z));
    r->rate.bytes_per_s = fz_u32(z);
}

static void grow_time(struct fz *z, void *state)
{
    fz_bytes(z, state, sizeof(struct tn_kvm_x86_time));
}

static void grow_vcpu(struct fz *z, void *state)
{
    struct tn_kvm_x86_vcpu_state *s = state;

    s->cpuid.nent = fz_u8(z) % 5u;
    s->xcrs.nr_xcrs = fz_u8(z) % 3u;
    s->msr_count = fz_u8(z) % 5u;
    s->xsave_len = fz_u8(z);
    fz_bytes(z, s->xsave, XSAVE);
    fz_bytes(z, &s->regs, sizeof(s->regs));
    fz_bytes(z, s->cpuid.entries, 5 * sizeof(s->cpuid.entries[0]));
    fz_bytes(z, s->msr, 5 * sizeof(s->msr[0]));
}

static void grow_chips(struct fz *z, void *state)
{
    struct tn_kvm_x86_vm_state *s = state;

    fz_bytes(z, s, sizeof(*s));
    for (uint32_t i = 0; i < 3; i++)
        s->chip[i].chip_id = i;
}

static void uart_run(struct fz *z)
{
    for (unsigned n = fz_u8(z) % 32u; n > 0; n--) {
        uint8_t what = fz_u8(z);

        if (what & 0x80)
            tn_uart_write(&models.uart, what % 8u, fz_u8(z));
        else if (what & 0x40)
            (void)tn_uart_push(&models.uart, &what, 1);
        else if (what & 0x20)
            (void)tn_uart_flush(&models.uart);
        else
            (void)tn_uart_read(&models.uart, what % 8u);
    }
}

static void grow_uart(struct fz *z, void *state)
{
    uart_run(z);
    tn_uart_save(&models.uart, state);
}

static int again_uart(struct fz *z, void *state)
{
    int err = tn_uart_restore(&models.uart, state);

    (void)z;
    tn_uart_save(&models.uart, state);
    return err;
}

static void i8042_run(struct fz *z)
{
    for (unsigned n = fz_u8(z) % 32u; n > 0; n--) {
        uint8_t what = fz_u8(z);

        if (what & 0x80)
            tn_i8042_write(&models.i8042, what & 4, fz_u8(z));
        else if (what & 0x40)
            (void)tn_i8042_ctrl_alt_del(&models.i8042);
        else
            (void)tn_i8042_read(&models.i8042, what & 4);
    }
}

static void grow_i8042(struct fz *z, void *state)
{
    i8042_run(z);
    tn_i8042_save(&models.i8042, state);
}

static int again_i8042(struct fz *z, void *state)
{
    int err = tn_i8042_restore(&models.i8042, state);

    (void)z;
    tn_i8042_save(&models.i8042, state);
    return err;
}

static void rate_run(struct fz *z)
{
    for (unsigned n = fz_u8(z) % 8u; n > 0; n--) {
        now += fz_u32(z);
        (void)tn_rate_take(&models.rate, now, fz_u32(z));
    }
}

static void grow_rate(struct fz *z, void *state)
{
    rate_run(z);
    tn_rate_save(&models.rate, now, state);
}

static int again_rate(struct fz *z, void *state)
{
    int err;

    now = fz_u64(z);
    err = tn_rate_restore(&models.rate, now, state);
    tn_rate_save(&models.rate, now, state);
    return err;
}

/* Up, with requests in the rings and some of them served. */
static void virtio_run(struct fz *z, struct tn_virtio *v)
{
    uint8_t kind = fz_u8(z);

    vd_init(&models.d, v, ram, 0, RINGS);
    if (kind & 1)
        FZ_ASSERT(vd_up(&models.d, fz_u64(z), v->cfg.queues, 8));
    else if (kind & 2)
        FZ_ASSERT(vd_negotiate(&models.d, fz_u64(z)));
    else if (kind & 4)
        vd_set_status(&models.d, fz_u8(z));
    FZ_ASSERT(models.d.end <= DATA);
    for (unsigned n = kind >> 4; n > 0 && models.d.queues > 0; n--) {
        uint8_t what = fz_u8(z);
        struct vqd_buf buf[2] = {{DATA + what, 16, false},
                                 {DATA + 0x800, what & 1 ? 513 : 3u * what, true}};
        uint32_t queue = what % models.d.queues;

        (void)vd_add(&models.d, queue, buf + (what >> 4 & 1),
                     what & 0x10 ? 1 : 1 + (what >> 5 & 1));
        if (what & 0x80)
            vd_kick(&models.d, queue);
    }
    if (kind & 8)
        tn_virtio_needs_reset(v);
}

/* After a restore: whatever its state, the driver may go on, and may begin anew. */
static void virtio_goes_on(struct fz *z, struct tn_virtio *v)
{
    for (uint32_t i = 0; i <= v->cfg.queues; i++)
        tn_virtio_notify(v, i);
    (void)tn_virtio_config_read(v, fz_u8(z), 4);
    tn_virtio_config_write(v, fz_u8(z), 1, fz_u8(z));
    tn_virtio_status_write(v, fz_u8(z));
    vd_free(&models.d);
    vd_init(&models.d, v, ram, 0, RINGS);
    FZ_ASSERT(vd_up(&models.d, ~0ull, v->cfg.queues, 8));
    vd_free(&models.d);
}

static void grow_virtio(struct fz *z, void *state)
{
    virtio_run(z, &models.toy);
    tn_virtio_save(&models.toy, state);
}

static int again_virtio(struct fz *z, void *state)
{
    int err = tn_virtio_restore(&models.toy, state);

    (void)z;
    tn_virtio_save(&models.toy, state);
    return err;
}

static void grow_mmio(struct fz *z, void *state)
{
    virtio_run(z, &models.toy);
    for (unsigned n = fz_u8(z) % 16u; n > 0; n--)
        tn_virtio_mmio_write(&models.mmio, 4u * fz_u8(z), 4, fz_u32(z));
    tn_virtio_mmio_save(&models.mmio, state);
}

static int again_mmio(struct fz *z, void *state)
{
    int err = tn_virtio_mmio_restore(&models.mmio, state);

    (void)z;
    tn_virtio_mmio_save(&models.mmio, state);
    for (uint32_t off = 0; off < TN_VIRTIO_MMIO_SIZE; off += 4)
        (void)tn_virtio_mmio_read(&models.mmio, off, 4);
    return err;
}

static void grow_blk(struct fz *z, void *state)
{
    virtio_run(z, &models.blk.virtio);
    tn_virtio_blk_quiesce(&models.blk);
    tn_virtio_blk_save(&models.blk, state);
}

static int again_blk(struct fz *z, void *state)
{
    int err = tn_virtio_blk_restore(&models.blk, state);

    tn_virtio_blk_save(&models.blk, state);
    tn_virtio_blk_wake(&models.blk);
    virtio_goes_on(z, &models.blk.virtio);
    return err;
}

static void grow_console(struct fz *z, void *state)
{
    virtio_run(z, &models.console.virtio);
    if (sink & 1)
        (void)tn_virtio_console_push(&models.console, &sink, 1);
    tn_virtio_console_save(&models.console, state);
}

static int again_console(struct fz *z, void *state)
{
    int err = tn_virtio_console_restore(&models.console, state);

    tn_virtio_console_save(&models.console, state);
    (void)tn_virtio_console_flush(&models.console);
    tn_virtio_console_resize(&models.console, 80, 25);
    virtio_goes_on(z, &models.console.virtio);
    return err;
}

static void grow_rng(struct fz *z, void *state)
{
    virtio_run(z, &models.rng.virtio);
    tn_virtio_rng_save(&models.rng, state);
}

static int again_rng(struct fz *z, void *state)
{
    int err = tn_virtio_rng_restore(&models.rng, state);

    tn_virtio_rng_save(&models.rng, state);
    tn_virtio_rng_wake(&models.rng);
    virtio_goes_on(z, &models.rng.virtio);
    return err;
}

struct kind {
    size_t size;
    void (*grow)(struct fz *z, void *state);
    /* Restores, and saves again what is there then. NULL: there is no model. */
    int (*again)(struct fz *z, void *state);
    void (*put)(struct tn_snap_writer *w, const void *from);
    int (*get)(const struct tn_snap *snap, void *out);
    uint32_t type[PARTS];
};

#define BOTH(name, record)                                             \
    static void put_##name(struct tn_snap_writer *w, const void *from) \
    {                                                                  \
        tn_vm_put_##name(w, 0, (const record *)from);                  \
    }                                                                  \
    static int get_##name(const struct tn_snap *snap, void *out)       \
    {                                                                  \
        return tn_vm_get_##name(snap, 0, (record *)out);               \
    }
BOTH(machine, struct tn_vm_machine_record)
BOTH(disk, struct tn_vm_disk_record)
BOTH(time, struct tn_kvm_x86_time)
BOTH(chips, struct tn_kvm_x86_vm_state)
BOTH(uart, struct tn_uart_state)
BOTH(i8042, struct tn_i8042_state)
BOTH(virtio_mmio, struct tn_virtio_mmio_state)
BOTH(virtio, struct tn_virtio_state)
BOTH(virtio_blk, struct tn_virtio_blk_state)
BOTH(virtio_console, struct tn_virtio_console_state)
BOTH(virtio_rng, struct tn_virtio_rng_state)
BOTH(rate, struct tn_rate_state)

static void put_vcpu(struct tn_snap_writer *w, const void *from)
{
    tn_vm_put_vcpus(w, (const struct tn_kvm_x86_vcpu_state *)from, 1);
}

static int get_vcpu(const struct tn_snap *snap, void *out)
{
    return tn_vm_get_vcpu(snap, 0, (struct tn_kvm_x86_vcpu_state *)out);
}

#define KIND(record, name, grow, again, ...)                 \
    {                                                        \
        sizeof(record), grow, again, put_##name, get_##name, \
        {                                                    \
            __VA_ARGS__                                      \
        }                                                    \
    }
static const struct kind kinds[] = {
    KIND(struct tn_vm_machine_record, machine, grow_machine, NULL, TN_VM_SEC_MACHINE),
    KIND(struct tn_vm_disk_record, disk, grow_disk, NULL, TN_VM_SEC_DISK),
    KIND(struct tn_kvm_x86_time, time, grow_time, NULL, TN_VM_SEC_TIME),
    KIND(struct tn_kvm_x86_vcpu_state, vcpu, grow_vcpu, NULL, TN_VM_SEC_VCPU_CPUID,
         TN_VM_SEC_VCPU_SREGS, TN_VM_SEC_VCPU_REGS, TN_VM_SEC_VCPU_XCRS, TN_VM_SEC_VCPU_XSAVE,
         TN_VM_SEC_VCPU_LAPIC, TN_VM_SEC_VCPU_DEBUGREGS, TN_VM_SEC_VCPU_TSC, TN_VM_SEC_VCPU_MSRS,
         TN_VM_SEC_VCPU_EVENTS),
    KIND(struct tn_kvm_x86_vm_state, chips, grow_chips, NULL, TN_VM_SEC_PIC_MASTER,
         TN_VM_SEC_PIC_SLAVE, TN_VM_SEC_IOAPIC, TN_VM_SEC_PIT),
    KIND(struct tn_uart_state, uart, grow_uart, again_uart, TN_VM_SEC_UART),
    KIND(struct tn_i8042_state, i8042, grow_i8042, again_i8042, TN_VM_SEC_I8042),
    KIND(struct tn_virtio_mmio_state, virtio_mmio, grow_mmio, again_mmio, TN_VM_SEC_VIRTIO_MMIO),
    KIND(struct tn_virtio_state, virtio, grow_virtio, again_virtio, TN_VM_SEC_VIRTIO),
    KIND(struct tn_virtio_blk_state, virtio_blk, grow_blk, again_blk, TN_VM_SEC_VIRTIO_BLK),
    KIND(struct tn_virtio_console_state, virtio_console, grow_console, again_console,
         TN_VM_SEC_VIRTIO_CONSOLE),
    KIND(struct tn_virtio_rng_state, virtio_rng, grow_rng, again_rng, TN_VM_SEC_VIRTIO_RNG),
    KIND(struct tn_rate_state, rate, grow_rate, again_rate, TN_VM_SEC_RATE),
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* Makes the models new. */
static void begin(void)
{
    struct tn_uart_cfg uart = {NULL, on_tx, on_line, NULL, false};
    struct tn_i8042_cfg i8042 = {NULL, on_event, on_line};
    struct tn_rate_cfg limit = {1 << 20, 4096, 1000, 8};
    struct tn_virtio_cfg toy = {63, TN_VIRTIO_F_RING, 16,  QUEUES, models.queue, &mem, NULL,
                                0,  &toy_ops,         NULL};
    struct tn_virtio_blk_cfg blk = {
        &mem,  16,   TN_VIRTIO_F_RING, &disk, "fuzz", QUEUES, models.slot,
        SLOTS, NULL, on_wake,          NULL,  NULL};
    struct tn_virtio_console_cfg console = {&mem, 16, TN_VIRTIO_F_RING, NULL, on_tx, NULL, on_event,
                                            80,   24};
    struct tn_virtio_rng_cfg rng = {&mem, 16, TN_VIRTIO_F_RING, NULL, on_fill, on_wake, NULL, NULL};

    vd_free(&models.d);
    memset(&models, 0, sizeof(models));
    FZ_ASSERT(tn_uart_init(&models.uart, &uart) == 0);
    FZ_ASSERT(tn_i8042_init(&models.i8042, &i8042) == 0);
    FZ_ASSERT(tn_rate_init(&models.rate, &limit, now) == 0);
    FZ_ASSERT(tn_virtio_init(&models.toy, &toy) == 0);
    FZ_ASSERT(tn_virtio_mmio_init(&models.mmio, &models.toy, on_line, NULL) == 0);
    FZ_ASSERT(tn_virtio_blk_init(&models.blk, &blk) == 0);
    FZ_ASSERT(tn_virtio_console_init(&models.console, &console) == 0);
    FZ_ASSERT(tn_virtio_rng_init(&models.rng, &rng) == 0);
}

/* Room for a record; a vCPU's extended state is beside it. */
static void *record(const struct kind *k, unsigned which)
{
    static uint8_t xsave[2][XSAVE];
    uint8_t *out = (uint8_t *)malloc(k->size);

    FZ_ASSERT(out);
    memset(out, which ? 0xa5 : 0, k->size);
    if (k->grow == grow_vcpu) {
        memset(xsave[which], which ? 0xa5 : 0, XSAVE);
        ((struct tn_kvm_x86_vcpu_state *)out)->xsave = xsave[which];
        ((struct tn_kvm_x86_vcpu_state *)out)->xsave_cap = XSAVE;
    }
    return out;
}

static void must_be_void(const struct kind *k, uint8_t *out)
{
    if (k->grow == grow_vcpu) {
        struct tn_kvm_x86_vcpu_state *s = (struct tn_kvm_x86_vcpu_state *)out;

        for (size_t i = 0; i < XSAVE; i++)
            FZ_ASSERT(s->xsave[i] == 0);
        FZ_ASSERT(s->xsave_cap == XSAVE);
        s->xsave = NULL;
        s->xsave_cap = 0;
    }
    FZ_ASSERT(out[0] == 0 && memcmp(out, out + 1, k->size - 1) == 0);
}

/* Writes a record, and holds it against the file that it is from. */
static void must_be_same(const struct kind *k, const struct tn_snap *snap, const void *state)
{
    static uint8_t file[ROOM];
    struct tn_snap_section s, old;
    struct tn_snap_writer w;
    size_t at = TN_SNAP_HEADER;

    tn_snap_begin(&w, file, sizeof(file));
    k->put(&w, state);
    FZ_ASSERT(w.err == 0);
    for (unsigned i = 0; i < PARTS && k->type[i]; i++) {
        FZ_ASSERT(tn_snap_find(snap, k->type[i], 0, &old) == 1);
        FZ_ASSERT(w.len - at >= TN_SNAP_SECTION);
        FZ_ASSERT(tn_get_(file + at, 4) == k->type[i] && tn_get_(file + at + 8, 4) == old.version);
        s.len = (size_t)tn_get_(file + at + 16, 8);
        at += TN_SNAP_SECTION;
        FZ_ASSERT(s.len == old.len && memcmp(file + at, old.bytes, s.len) == 0);
        at += s.len;
    }
    FZ_ASSERT(at == w.len);
}

/* A file of sections of any bytes, cut where the input says. */
static size_t hostile(struct fz *z, const struct kind *k, uint8_t *file)
{
    static uint8_t payload[ROOM];
    struct forge f;

    forge_begin(&f, file, ROOM);
    for (unsigned i = 0; i < PARTS && k->type[i]; i++) {
        bool last = i + 1 == PARTS || !k->type[i + 1];
        size_t len = fz_bytes(z, payload, last ? ROOM / 2 : fz_u16(z) % (ROOM / 16));

        forge_section(&f, k->type[i], 0, 1, TN_SNAP_REQUIRED, payload, len);
    }
    forge_manifest(&f, 0, 0);
    return f.len;
}

/* A file of a state that models were brought into, with a few bytes changed. */
static size_t spoilt(struct fz *z, const struct kind *k, uint8_t *file, uint8_t changes)
{
    void *state = record(k, 0);
    struct tn_snap_writer w;
    struct tn_snap snap;
    const struct tn_snap_known *known;
    size_t count;
    int64_t len;

    k->grow(z, state);
    tn_snap_begin(&w, file, ROOM);
    k->put(&w, state);
    len = tn_snap_finish(&w, NULL, NULL);
    FZ_ASSERT(len > 0);
    free(state);
    if (changes == 0) { /* what was saved is read, and restored */
        known = tn_vm_known(&count);
        state = record(k, 1);
        FZ_ASSERT(tn_snap_open(&snap, file, (size_t)len, NULL, known, count) == 0);
        FZ_ASSERT(k->get(&snap, state) == 0);
        FZ_ASSERT(!k->again || k->again(z, state) == 0);
        free(state);
    }
    for (; changes > 0; changes--) {
        size_t at = TN_SNAP_HEADER + fz_u16(z) % ((size_t)len - TN_SNAP_HEADER);

        file[at] = fz_u8(z);
    }
    return (size_t)len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t file[ROOM];
    const struct tn_snap_known *known;
    const struct kind *k;
    struct tn_snap snap;
    uint8_t *exact, *out, how;
    struct fz z;
    size_t len, count;
    int err;

    fz_init(&z, data, size);
    ram = (uint8_t *)calloc(1, RAM);
    FZ_ASSERT(ram);
    tn_mem_init(&mem, region, 1);
    FZ_ASSERT(tn_mem_add(&mem, 0, ram, RAM) == 0);
    now = 0;
    begin();
    k = &kinds[fz_u8(&z) % KINDS];
    how = fz_u8(&z);
    sink = how & 0x80 ? 255 : fz_u8(&z);
    len = how & 1 ? hostile(&z, k, file) : spoilt(&z, k, file, how >> 1 & 15);
    forge_seal(file, len, NULL, true);
    exact = (uint8_t *)malloc(len);
    FZ_ASSERT(exact);
    memcpy(exact, file, len);
    known = tn_vm_known(&count);
    if (tn_snap_open(&snap, exact, len, NULL, known, count) == 0) {
        out = record(k, 1);
        err = k->get(&snap, out);
        if (err < 0) {
            must_be_void(k, out);
        } else {
            must_be_same(k, &snap, out);
            begin();
            if (k->again && k->again(&z, out) == 0)
                must_be_same(k, &snap, out);
            uart_run(&z);
            i8042_run(&z);
            rate_run(&z);
            virtio_goes_on(&z, &models.toy);
        }
        free(out);
    }
    vd_free(&models.d);
    free(exact);
    free(ram);
    return 0;
}
