/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Each kind of record is described a second time here, as docs/snapshot-format.md has it: a
 * function that fills the struct from a stream of numbers, in the order and the widths of the
 * payload's fields. What it takes from the stream is the payload; part_end says where a section of
 * several ends.
 */
#include "tn_vm_records.h"

#include "snap_forge.h"
#include "test.h"

#define ROOM  65536u
#define PARTS 10u
#define XSAVE 100u

/* Numbers whose bytes count upwards, with every byte that was handed out. */
struct stream {
    uint32_t version; /* 1: without what came later */
    uint8_t next;
    uint8_t bytes[ROOM];
    size_t len;
    size_t end[PARTS]; /* of each section that is complete */
    unsigned parts;
};

static void part_end(struct stream *p)
{
    assert_true(p->parts < PARTS);
    p->end[p->parts++] = p->len;
}

static uint64_t is(struct stream *p, unsigned n, uint64_t value)
{
    assert_true(n <= 8 && n <= ROOM - p->len);
    tn_put_(p->bytes + p->len, n, value);
    p->len += n;
    return value;
}

static uint64_t take(struct stream *p, unsigned n)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < n; i++)
        value |= (uint64_t)p->next++ << 8 * i;
    return is(p, n, value);
}

static uint8_t u8(struct stream *p)
{
    return (uint8_t)take(p, 1);
}
static uint16_t u16(struct stream *p)
{
    return (uint16_t)take(p, 2);
}
static uint32_t u32(struct stream *p)
{
    return (uint32_t)take(p, 4);
}
static uint64_t u64(struct stream *p)
{
    return take(p, 8);
}
static uint8_t truth(struct stream *p, bool v)
{
    return (uint8_t)is(p, 1, v);
}
static uint32_t count(struct stream *p, uint32_t n)
{
    return (uint32_t)is(p, 4, n);
}
static void bytes(struct stream *p, void *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)out)[i] = u8(p);
}
static void string(struct stream *p, char *out, uint32_t len)
{
    count(p, len);
    for (uint32_t i = 0; i < len; i++)
        out[i] = (char)is(p, 1, 'a' + i % 26);
}

/* ---- what there is to save ---- */

static void some_machine(struct stream *p, void *out)
{
    struct tn_vm_machine_record *r = out;

    r->memory = u64(p);
    r->cpus = u32(p);
    r->flags = (uint32_t)is(p, 4, 0x2d);
    r->genid_gpa = u64(p);
    r->asked = u32(p);
    r->cols = u16(p);
    r->rows = u16(p);
}

static void some_limits(struct stream *p, struct tn_rate_cfg *rate)
{
    rate->bytes_per_s = u64(p);
    rate->bytes_burst = u64(p);
    rate->ops_per_s = u64(p);
    rate->ops_burst = u64(p);
}

static void some_disk(struct stream *p, void *out)
{
    struct tn_vm_disk_record *r = out;

    r->size = u64(p);
    r->read_only = truth(p, false);
    r->overlaid = truth(p, true);
    r->direct = truth(p, true);
    string(p, r->id, 20);
    string(p, r->path, 40);
    string(p, r->overlay, 50);
    some_limits(p, &r->rate);
}

static void some_net(struct stream *p, void *out)
{
    struct tn_vm_net_record *r = out;

    r->kind = u32(p);
    r->pairs = u32(p);
    bytes(p, r->mac, 6);
    r->mtu = u16(p);
    r->hide = u64(p);
    string(p, r->name, 30);
    some_limits(p, &r->tx_rate);
    some_limits(p, &r->rx_rate);
    if (p->version >= 2)
        r->vhost = truth(p, true);
}

static void some_vsock(struct stream *p, void *out)
{
    struct tn_vm_vsock_record *r = out;

    r->cid = u32(p);
    r->conns = u32(p);
    string(p, r->path, 30);
    if (p->version >= 2)
        r->vhost = truth(p, true);
}

static void some_balloon(struct stream *p, void *out)
{
    ((struct tn_vm_balloon_record *)out)->size = u64(p);
}

static void some_uart(struct stream *p, void *out)
{
    struct tn_uart_state *s = out;

    s->version = 1;
    s->ier = u8(p);
    s->fcr = u8(p);
    s->lcr = u8(p);
    s->mcr = u8(p);
    s->scr = u8(p);
    s->dll = u8(p);
    s->dlm = u8(p);
    s->overrun = truth(p, true);
    s->delta = u8(p);
    s->thre = truth(p, false);
    s->timeout = truth(p, true);
    s->rx_count = u8(p);
    s->tx_count = u8(p);
    bytes(p, s->tx, 16);
    for (unsigned i = 0; i < 16; i++)
        s->rx[i] = u16(p);
}

static void some_i8042(struct stream *p, void *out)
{
    struct tn_i8042_state *s = out;

    s->version = 1;
    s->ctr = u8(p);
    s->outport = u8(p);
    s->pending = u8(p);
    s->kbd = u8(p);
    s->command = truth(p, true);
    s->full = truth(p, false);
    s->answer = u8(p);
    s->scanning = truth(p, true);
    s->set = u8(p);
    s->leds = u8(p);
    s->last = u8(p);
    s->sent = u8(p);
    s->count = u8(p);
    bytes(p, s->fifo, 16);
}

static void some_rtc(struct stream *p, void *out)
{
    struct tn_rtc_state *s = out;

    s->version = 1;
    s->match = u32(p);
    s->load = u32(p);
    s->offset = u32(p);
    s->alarm = u64(p);
    s->imsc = u8(p);
    s->ris = u8(p);
}

static void some_gpio(struct stream *p, void *out)
{
    struct tn_gpio_state *s = out;

    s->version = 1;
    s->in = u8(p);
    s->out = u8(p);
    s->dir = u8(p);
    s->is = u8(p);
    s->ibe = u8(p);
    s->iev = u8(p);
    s->ie = u8(p);
    s->edges = u8(p);
    s->afsel = u8(p);
}

static void some_virtio_mmio(struct stream *p, void *out)
{
    struct tn_virtio_mmio_state *s = out;

    s->version = 1;
    s->device_features_sel = u32(p);
    s->driver_features_sel = u32(p);
    s->queue_sel = u32(p);
    s->shm_sel = u32(p);
    s->interrupt_status = u32(p);
}

static void some_virtio(struct stream *p, void *out)
{
    struct tn_virtio_state *s = out;

    s->version = 1;
    s->device_id = u32(p);
    s->features = u64(p);
    s->generation = u32(p);
    s->status = u8(p);
    s->queues = count(p, 16);
    for (unsigned i = 0; i < 16; i++) {
        struct tn_virtio_queue_state *q = &s->queue[i];

        q->desc = u64(p);
        q->driver = u64(p);
        q->device = u64(p);
        q->size = u16(p);
        q->ready = truth(p, i & 1);
        q->ring.version = 1;
        q->ring.unsignalled = u32(p);
        q->ring.desc = u64(p);
        q->ring.driver = u64(p);
        q->ring.device = u64(p);
        q->ring.size = u16(p);
        q->ring.next_avail = u16(p);
        q->ring.next_used = u16(p);
        q->ring.started = truth(p, i & 1);
        q->ring.packed = truth(p, i & 2);
        q->ring.event_idx = truth(p, i & 4);
        q->ring.indirect = truth(p, i & 8);
        q->ring.in_order = truth(p, !(i & 1));
        q->ring.error = (int32_t)u32(p);
    }
}

static void some_virtio_blk(struct stream *p, void *out)
{
    struct tn_virtio_blk_state *s = out;

    s->version = 1;
    s->writeback = u32(p);
    s->capacity = u64(p);
    some_virtio(p, &s->virtio);
}

static void some_virtio_console(struct stream *p, void *out)
{
    struct tn_virtio_console_state *s = out;

    s->version = 1;
    s->tx_off = u32(p);
    s->cols = u16(p);
    s->rows = u16(p);
    some_virtio(p, &s->virtio);
}

static void some_virtio_rng(struct stream *p, void *out)
{
    struct tn_virtio_rng_state *s = out;

    s->version = 1;
    some_virtio(p, &s->virtio);
}

static void some_virtio_net(struct stream *p, void *out)
{
    struct tn_virtio_net_state *s = out;

    s->version = 1;
    s->active = u16(p);
    s->link_up = truth(p, true);
    s->announce = truth(p, false);
    s->offloads = u64(p);
    bytes(p, s->mac, 6);
    s->mode = u8(p);
    s->uni = u8(p);
    s->multi = u8(p);
    bytes(p, s->table, sizeof(s->table));
    bytes(p, s->vlan, sizeof(s->vlan));
    some_virtio(p, &s->virtio);
}

static void some_virtio_vsock(struct stream *p, void *out)
{
    struct tn_virtio_vsock_state *s = out;

    s->version = 1;
    s->guest_cid = u64(p);
    some_virtio(p, &s->virtio);
}

static void some_virtio_balloon(struct stream *p, void *out)
{
    struct tn_virtio_balloon_state *s = out;

    s->version = 1;
    s->num_pages = u32(p);
    s->actual = u32(p);
    s->free_page_hint_cmd_id = u32(p);
    s->poison_val = u32(p);
    s->next_id = u32(p);
    s->run = u32(p);
    for (unsigned i = 0; i < TN_VIRTIO_BALLOON_QUEUES; i++)
        s->off[i] = u32(p);
    some_virtio(p, &s->virtio);
}

static void some_rate(struct stream *p, void *out)
{
    struct tn_rate_state *s = out;

    s->version = 1;
    s->bytes_nano = u32(p);
    s->bytes_missing = u64(p);
    s->ops_missing = u64(p);
    s->ops_nano = u32(p);
}

static void some_time(struct stream *p, void *out)
{
    struct tn_kvm_x86_time *s = out;

    s->host_tsc = u64(p);
    s->realtime_ns = u64(p);
    s->kvmclock_ns = u64(p);
}

static void some_segment(struct stream *p, struct kvm_segment *s)
{
    s->base = u64(p);
    s->limit = u32(p);
    s->selector = u16(p);
    s->type = u8(p);
    s->present = u8(p);
    s->dpl = u8(p);
    s->db = u8(p);
    s->s = u8(p);
    s->l = u8(p);
    s->g = u8(p);
    s->avl = u8(p);
    s->unusable = u8(p);
}

static void some_sregs(struct stream *p, struct kvm_sregs2 *s)
{
    struct kvm_segment *const segment[] = {&s->cs, &s->ds, &s->es, &s->fs,
                                           &s->gs, &s->ss, &s->tr, &s->ldt};

    for (unsigned i = 0; i < 8; i++)
        some_segment(p, segment[i]);
    s->gdt.base = u64(p);
    s->gdt.limit = u16(p);
    s->idt.base = u64(p);
    s->idt.limit = u16(p);
    s->cr0 = u64(p);
    s->cr2 = u64(p);
    s->cr3 = u64(p);
    s->cr4 = u64(p);
    s->cr8 = u64(p);
    s->efer = u64(p);
    s->apic_base = u64(p);
    s->flags = u64(p);
    for (unsigned i = 0; i < 4; i++)
        s->pdptrs[i] = u64(p);
}

static void some_regs(struct stream *p, struct kvm_regs *s)
{
    __u64 *const reg[] = {&s->rax, &s->rbx, &s->rcx, &s->rdx, &s->rsi, &s->rdi,
                          &s->rsp, &s->rbp, &s->r8,  &s->r9,  &s->r10, &s->r11,
                          &s->r12, &s->r13, &s->r14, &s->r15, &s->rip, &s->rflags};

    for (unsigned i = 0; i < COUNT(reg); i++)
        *reg[i] = u64(p);
}

static void some_events(struct stream *p, struct kvm_vcpu_events *s)
{
    s->exception.injected = u8(p);
    s->exception.nr = u8(p);
    s->exception.has_error_code = u8(p);
    s->exception.pending = u8(p);
    s->exception.error_code = u32(p);
    s->interrupt.injected = u8(p);
    s->interrupt.nr = u8(p);
    s->interrupt.soft = u8(p);
    s->interrupt.shadow = u8(p);
    s->nmi.injected = u8(p);
    s->nmi.pending = u8(p);
    s->nmi.masked = u8(p);
    s->sipi_vector = u32(p);
    s->flags = u32(p);
    s->smi.smm = u8(p);
    s->smi.pending = u8(p);
    s->smi.smm_inside_nmi = u8(p);
    s->smi.latched_init = u8(p);
    s->triple_fault.pending = u8(p);
    s->exception_has_payload = u8(p);
    s->exception_payload = u64(p);
}

static void some_vcpu(struct stream *p, void *out)
{
    static uint8_t xsave[XSAVE];
    struct tn_kvm_x86_vcpu_state *s = out;

    s->cpuid.nent = count(p, 3);
    for (unsigned i = 0; i < 3; i++) {
        struct kvm_cpuid_entry2 *e = &s->cpuid.entries[i];

        e->function = u32(p);
        e->index = u32(p);
        e->flags = u32(p);
        e->eax = u32(p);
        e->ebx = u32(p);
        e->ecx = u32(p);
        e->edx = u32(p);
    }
    part_end(p);
    some_sregs(p, &s->sregs);
    part_end(p);
    some_regs(p, &s->regs);
    part_end(p);
    s->xcrs.flags = u32(p);
    s->xcrs.nr_xcrs = count(p, 2);
    for (unsigned i = 0; i < 2; i++) {
        s->xcrs.xcrs[i].xcr = u32(p);
        s->xcrs.xcrs[i].value = u64(p);
    }
    part_end(p);
    s->xsave = xsave;
    s->xsave_cap = XSAVE;
    s->xsave_len = count(p, XSAVE);
    bytes(p, xsave, XSAVE);
    part_end(p);
    bytes(p, s->lapic.regs, 1024);
    part_end(p);
    for (unsigned i = 0; i < 4; i++)
        s->debugregs.db[i] = u64(p);
    s->debugregs.dr6 = u64(p);
    s->debugregs.dr7 = u64(p);
    s->debugregs.flags = u64(p);
    part_end(p);
    s->tsc_khz = u32(p);
    s->tsc_offset = u64(p);
    part_end(p);
    s->msr_count = count(p, 4);
    for (unsigned i = 0; i < 4; i++) {
        s->msr[i].index = u32(p);
        s->msr[i].data = u64(p);
    }
    part_end(p);
    some_events(p, &s->events);
    s->mp_state = u32(p);
}

static void some_pic(struct stream *p, struct kvm_pic_state *s)
{
    s->last_irr = u8(p);
    s->irr = u8(p);
    s->imr = u8(p);
    s->isr = u8(p);
    s->priority_add = u8(p);
    s->irq_base = u8(p);
    s->read_reg_select = u8(p);
    s->poll = u8(p);
    s->special_mask = u8(p);
    s->init_state = u8(p);
    s->auto_eoi = u8(p);
    s->rotate_on_auto_eoi = u8(p);
    s->special_fully_nested_mode = u8(p);
    s->init4 = u8(p);
    s->elcr = u8(p);
    s->elcr_mask = u8(p);
}

static void some_chips(struct stream *p, void *out)
{
    struct tn_kvm_x86_vm_state *s = out;
    struct kvm_ioapic_state *ioapic = &s->chip[2].chip.ioapic;

    some_pic(p, &s->chip[0].chip.pic);
    part_end(p);
    s->chip[1].chip_id = 1;
    some_pic(p, &s->chip[1].chip.pic);
    part_end(p);
    s->chip[2].chip_id = 2;
    ioapic->base_address = u64(p);
    ioapic->ioregsel = u32(p);
    ioapic->id = u32(p);
    ioapic->irr = u32(p);
    for (unsigned i = 0; i < 24; i++)
        ioapic->redirtbl[i].bits = u64(p);
    part_end(p);
    for (unsigned i = 0; i < 3; i++) {
        struct kvm_pit_channel_state *c = &s->pit.channels[i];

        c->count = u32(p);
        c->latched_count = u16(p);
        c->count_latched = u8(p);
        c->status_latched = u8(p);
        c->status = u8(p);
        c->read_state = u8(p);
        c->write_state = u8(p);
        c->write_latch = u8(p);
        c->rw_mode = u8(p);
        c->mode = u8(p);
        c->bcd = u8(p);
        c->gate = u8(p);
        c->count_load_time = (__s64)u64(p);
    }
    s->pit.flags = u32(p);
}

/* ---- bytes of the structs that are no part of the state ---- */

#define IN(at, type, field) \
    ((at) >= offsetof(type, field) && (at)-offsetof(type, field) < sizeof(((type *)0)->field))
/* Of an array of a struct's: the part of an element, or the elements from n on. */
#define IN_EACH(at, type, array, element, field)                                   \
    (IN(at, type, array) &&                                                        \
     ((at)-offsetof(type, array)) % sizeof(element) >= offsetof(element, field) && \
     ((at)-offsetof(type, array)) % sizeof(element) - offsetof(element, field) <   \
         sizeof(((element *)0)->field))
#define IN_FROM(at, type, array, n) \
    (IN(at, type, array) && (at) >= offsetof(type, array) + (n) * sizeof(((type *)0)->array[0]))

/*
 * HOLE: reserved, padding, or of an element that is not there; zero after a get. OURS: what the
 * caller keeps there.
 */
enum where { STATE, HOLE, OURS };

static enum where hole_if(bool hole)
{
    return hole ? HOLE : STATE;
}

static enum where no_hole(size_t at)
{
    (void)at;
    return STATE;
}

static enum where disk_hole(size_t at) /* behind the strings */
{
    return hole_if(IN_FROM(at, struct tn_vm_disk_record, path, 41) ||
                   IN_FROM(at, struct tn_vm_disk_record, overlay, 51));
}

static enum where uart_hole(size_t at)
{
    return hole_if(IN(at, struct tn_uart_state, zero));
}

static enum where i8042_hole(size_t at)
{
    return hole_if(IN(at, struct tn_i8042_state, zero));
}

static enum where rtc_hole(size_t at)
{
    return hole_if(IN(at, struct tn_rtc_state, zero));
}

static enum where gpio_hole(size_t at)
{
    return hole_if(IN(at, struct tn_gpio_state, zero));
}

static enum where virtio_hole(size_t at)
{
    return hole_if(
        IN(at, struct tn_virtio_state, zero) ||
        IN_EACH(at, struct tn_virtio_state, queue, struct tn_virtio_queue_state, zero) ||
        IN_EACH(at, struct tn_virtio_state, queue, struct tn_virtio_queue_state, ring.zero));
}

static enum where blk_hole(size_t at)
{
    return hole_if(IN(at, struct tn_virtio_blk_state, virtio) &&
                   virtio_hole(at - offsetof(struct tn_virtio_blk_state, virtio)) == HOLE);
}

static enum where console_hole(size_t at)
{
    return hole_if(IN(at, struct tn_virtio_console_state, zero) ||
                   (IN(at, struct tn_virtio_console_state, virtio) &&
                    virtio_hole(at - offsetof(struct tn_virtio_console_state, virtio)) == HOLE));
}

static enum where rng_hole(size_t at)
{
    return hole_if(IN(at, struct tn_virtio_rng_state, zero) ||
                   (IN(at, struct tn_virtio_rng_state, virtio) &&
                    virtio_hole(at - offsetof(struct tn_virtio_rng_state, virtio)) == HOLE));
}

static enum where net_hole(size_t at)
{
    return hole_if(IN_FROM(at, struct tn_vm_net_record, name, 31) ||
                   at > offsetof(struct tn_vm_net_record, vhost));
}

static enum where vsock_hole(size_t at)
{
    return hole_if(IN_FROM(at, struct tn_vm_vsock_record, path, 31) ||
                   at > offsetof(struct tn_vm_vsock_record, vhost));
}

static enum where virtio_net_hole(size_t at)
{
    return hole_if(IN(at, struct tn_virtio_net_state, zero) ||
                   (IN(at, struct tn_virtio_net_state, virtio) &&
                    virtio_hole(at - offsetof(struct tn_virtio_net_state, virtio)) == HOLE));
}

static enum where virtio_vsock_hole(size_t at)
{
    return hole_if(IN(at, struct tn_virtio_vsock_state, zero) ||
                   (IN(at, struct tn_virtio_vsock_state, virtio) &&
                    virtio_hole(at - offsetof(struct tn_virtio_vsock_state, virtio)) == HOLE));
}

static enum where virtio_balloon_hole(size_t at)
{
    return hole_if(IN(at, struct tn_virtio_balloon_state, virtio) &&
                   virtio_hole(at - offsetof(struct tn_virtio_balloon_state, virtio)) == HOLE);
}

static enum where rate_hole(size_t at)
{
    return hole_if(IN(at, struct tn_rate_state, zero));
}

static bool sregs_hole(size_t at)
{
    for (size_t s = 0; s < 8; s++) { /* the segments lie behind each other */
        size_t start = s * sizeof(struct kvm_segment);

        if (at >= start && IN(at - start, struct kvm_segment, padding))
            return true;
    }
    return IN(at, struct kvm_sregs2, gdt.padding) || IN(at, struct kvm_sregs2, idt.padding);
}

static enum where vcpu_hole(size_t at)
{
    typedef struct tn_kvm_x86_vcpu_state vcpu;

    if (IN(at, vcpu, xsave) || IN(at, vcpu, xsave_cap))
        return OURS;
    return hole_if(IN(at, vcpu, cpuid.padding) || IN_FROM(at, vcpu, cpuid.entries, 3) ||
                   IN_EACH(at, vcpu, cpuid.entries, struct kvm_cpuid_entry2, padding) ||
                   (IN(at, vcpu, sregs) && sregs_hole(at - offsetof(vcpu, sregs))) ||
                   IN_FROM(at, vcpu, xcrs.xcrs, 2) || IN(at, vcpu, xcrs.padding) ||
                   IN_EACH(at, vcpu, xcrs.xcrs, struct kvm_xcr, reserved) ||
                   IN(at, vcpu, debugregs.reserved) || IN(at, vcpu, events.nmi.pad) ||
                   IN(at, vcpu, events.reserved) ||
                   (at >= offsetof(vcpu, msr_count) + 4 && at < offsetof(vcpu, msr)) ||
                   IN_FROM(at, vcpu, msr, 4) ||
                   IN_EACH(at, vcpu, msr, struct kvm_msr_entry, reserved));
}

static enum where chips_hole(size_t at)
{
    typedef struct tn_kvm_x86_vm_state chips;

    for (size_t i = 0; i < 3; i++) {
        if (!IN(at, chips, chip[i]))
            continue;
        at -= offsetof(chips, chip[i]);
        if (!IN(at, struct kvm_irqchip, chip))
            return hole_if(IN(at, struct kvm_irqchip, pad));
        if (i < 2)
            return hole_if(!IN(at, struct kvm_irqchip, chip.pic));
        return hole_if(!IN(at, struct kvm_irqchip, chip.ioapic) ||
                       IN(at, struct kvm_irqchip, chip.ioapic.pad));
    }
    return hole_if(IN(at, chips, pit.reserved));
}

/* ---- all kinds ---- */

struct kind {
    const char *name;
    size_t size;
    void (*some)(struct stream *p, void *out);
    enum where (*where)(size_t at);
    void (*put)(struct tn_snap_writer *w, uint32_t instance, const void *from);
    int (*get)(const struct tn_snap *snap, uint32_t instance, void *out);
    uint32_t instance;
    uint32_t type[PARTS]; /* of its sections; 0: no more */
};

#define BOTH(name, record)                                                                \
    static void put_##name(struct tn_snap_writer *w, uint32_t instance, const void *from) \
    {                                                                                     \
        tn_vm_put_##name(w, instance, (const record *)from);                              \
    }                                                                                     \
    static int get_##name(const struct tn_snap *snap, uint32_t instance, void *out)       \
    {                                                                                     \
        return tn_vm_get_##name(snap, instance, (record *)out);                           \
    }
BOTH(machine, struct tn_vm_machine_record)
BOTH(disk, struct tn_vm_disk_record)
BOTH(net, struct tn_vm_net_record)
BOTH(vsock, struct tn_vm_vsock_record)
BOTH(balloon, struct tn_vm_balloon_record)
BOTH(time, struct tn_kvm_x86_time)
BOTH(chips, struct tn_kvm_x86_vm_state)
BOTH(uart, struct tn_uart_state)
BOTH(i8042, struct tn_i8042_state)
BOTH(rtc, struct tn_rtc_state)
BOTH(gpio, struct tn_gpio_state)
BOTH(virtio_mmio, struct tn_virtio_mmio_state)
BOTH(virtio, struct tn_virtio_state)
BOTH(virtio_blk, struct tn_virtio_blk_state)
BOTH(virtio_console, struct tn_virtio_console_state)
BOTH(virtio_rng, struct tn_virtio_rng_state)
BOTH(virtio_net, struct tn_virtio_net_state)
BOTH(virtio_vsock, struct tn_virtio_vsock_state)
BOTH(virtio_balloon, struct tn_virtio_balloon_state)
BOTH(rate, struct tn_rate_state)

static void put_vcpu(struct tn_snap_writer *w, uint32_t instance, const void *from)
{
    assert_int_equal(instance, 0);
    tn_vm_put_vcpus(w, (const struct tn_kvm_x86_vcpu_state *)from, 1);
}

static int get_vcpu(const struct tn_snap *snap, uint32_t instance, void *out)
{
    return tn_vm_get_vcpu(snap, instance, (struct tn_kvm_x86_vcpu_state *)out);
}

#define KIND(name, record, hole, instance, ...)                                     \
    {                                                                               \
#name, sizeof(record), some_##name, hole, put_##name, get_##name, instance, \
        {                                                                           \
            __VA_ARGS__                                                             \
        }                                                                           \
    }
/* In the order of their types; the numbers are the format's. */
static const struct kind kinds[] = {
    KIND(machine, struct tn_vm_machine_record, no_hole, 0, 0x100),
    KIND(disk, struct tn_vm_disk_record, disk_hole, 3, 0x110),
    KIND(net, struct tn_vm_net_record, net_hole, 2, 0x120),
    KIND(vsock, struct tn_vm_vsock_record, vsock_hole, 0, 0x130),
    KIND(balloon, struct tn_vm_balloon_record, no_hole, 0, 0x140),
    KIND(time, struct tn_kvm_x86_time, no_hole, 0, 0x180),
    KIND(vcpu, struct tn_kvm_x86_vcpu_state, vcpu_hole, 0, 0x200, 0x210, 0x220, 0x230, 0x240, 0x250,
         0x260, 0x270, 0x280, 0x290),
    KIND(chips, struct tn_kvm_x86_vm_state, chips_hole, 0, 0x300, 0x310, 0x320, 0x330),
    KIND(uart, struct tn_uart_state, uart_hole, 0, 0x400),
    KIND(i8042, struct tn_i8042_state, i8042_hole, 0, 0x410),
    KIND(rtc, struct tn_rtc_state, rtc_hole, 0, 0x420),
    KIND(gpio, struct tn_gpio_state, gpio_hole, 0, 0x430),
    KIND(virtio_mmio, struct tn_virtio_mmio_state, no_hole, 3, 0x500),
    KIND(virtio, struct tn_virtio_state, virtio_hole, 7, 0x510),
    KIND(virtio_blk, struct tn_virtio_blk_state, blk_hole, 3, 0x520),
    KIND(virtio_console, struct tn_virtio_console_state, console_hole, 4, 0x530),
    KIND(virtio_rng, struct tn_virtio_rng_state, rng_hole, 5, 0x540),
    KIND(virtio_net, struct tn_virtio_net_state, virtio_net_hole, 6, 0x550),
    KIND(virtio_vsock, struct tn_virtio_vsock_state, virtio_vsock_hole, 7, 0x560),
    KIND(virtio_balloon, struct tn_virtio_balloon_state, virtio_balloon_hole, 8, 0x570),
    KIND(rate, struct tn_rate_state, rate_hole, 3, 0x580),
};

static struct stream stream = {.version = 2};

/* The state of a kind that the stream makes, on the heap; its payloads are stream.bytes. */
static void *some(const struct kind *k)
{
    uint8_t *state = calloc(1, k->size);

    if (!state)
        abort();
    stream.len = 0;
    stream.parts = 0;
    stream.next = (uint8_t)(k->type[0] / 16 + 1);
    k->some(&stream, state);
    part_end(&stream);
    assert_true(stream.parts == PARTS || k->type[stream.parts] == 0);
    return state;
}

/* Bytes of no meaning, before a get. */
static void blank(const struct kind *k, void *out)
{
    static uint8_t xsave[XSAVE];
    struct tn_kvm_x86_vcpu_state *vcpu = out;

    memset(out, 0xa5, k->size);
    if (k->some == some_vcpu) {
        memset(xsave, 0xa5, sizeof(xsave));
        vcpu->xsave = xsave;
        vcpu->xsave_cap = sizeof(xsave);
    }
}

static void assert_void(const struct kind *k, const void *out)
{
    const struct tn_kvm_x86_vcpu_state *vcpu = out;
    const uint8_t *byte = out;
    bool clear = true;

    for (size_t i = 0; i < k->size; i++)
        clear &= byte[i] == 0 || k->where(i) == OURS;
    for (size_t i = 0; k->some == some_vcpu && i < XSAVE; i++)
        clear &= vcpu->xsave[i] == 0;
    assert_true(clear);
}

static uint32_t newest_of(uint32_t type)
{
    size_t n;
    const struct tn_snap_known *known = tn_vm_known(&n);

    for (size_t i = 0; i < n; i++) {
        if (known[i].type == type)
            return known[i].version;
    }
    return 0;
}

static const uint8_t *part_of(unsigned part, size_t *len)
{
    size_t from = part > 0 ? stream.end[part - 1] : 0;

    *len = stream.end[part] - from;
    return stream.bytes + from;
}

/*
 * A file of a kind's sections, as the stream has them but for one, with right digests. Returns its
 * length.
 */
static size_t forged(uint8_t *file, const struct kind *k, unsigned part, uint32_t version,
                     uint32_t flags, const uint8_t *payload, size_t len)
{
    struct forge f;

    forge_begin(&f, file, stream.len + len + 1024);
    for (unsigned i = 0; i < stream.parts; i++) {
        size_t n;
        const uint8_t *p = part_of(i, &n);

        if (i == part)
            forge_section(&f, k->type[i], k->instance, version, flags, payload, len);
        else
            forge_section(&f, k->type[i], k->instance, newest_of(k->type[i]), 1, p, n);
    }
    forge_manifest(&f, 0, 0);
    return forge_end(&f, NULL);
}

static int open_known(struct tn_snap *snap, const uint8_t *file, size_t len)
{
    size_t n;
    const struct tn_snap_known *known = tn_vm_known(&n);

    return tn_snap_open(snap, file, len, NULL, known, n);
}

/* Reads a kind with one payload replaced from an exact copy of a file. */
static int try_get(const struct kind *k, unsigned part, const uint8_t *payload, size_t len,
                   void *out)
{
    static uint8_t file[2 * ROOM + 1024];
    size_t n = forged(file, k, part, part < PARTS ? newest_of(k->type[part]) : 1, 1, payload, len);
    uint8_t *exact = test_exact(file, n);
    struct tn_snap snap;
    int err;

    blank(k, out);
    assert_int_equal(open_known(&snap, exact, n), 0);
    err = k->get(&snap, k->instance, out);
    free(exact);
    if (err)
        assert_void(k, out);
    return err;
}

/* Writes a state. Returns the writer's error, or 0 and the payloads, one behind the other. */
static int try_put(const struct kind *k, const void *state, const uint8_t **payload, size_t *len)
{
    static uint8_t file[ROOM];
    static struct tn_snap_writer begun; /* knows the CPU: to ask it each time is slow */
    struct tn_snap_writer w;
    size_t at = TN_SNAP_HEADER;

    if (!begun.buf)
        tn_snap_begin(&begun, file, sizeof(file));
    w = begun;
    k->put(&w, k->instance, state);
    *payload = file;
    *len = 0;
    for (unsigned i = 0; w.err == 0 && i < PARTS && k->type[i]; i++) {
        const uint8_t *head = file + at;
        size_t n = (size_t)test_le(head + 16, 8);

        assert_int_equal(test_le(head, 4), k->type[i]);
        assert_int_equal(test_le(head + 4, 4), k->instance);
        assert_int_equal(test_le(head + 8, 4), newest_of(k->type[i]));
        assert_int_equal(test_le(head + 12, 4), TN_SNAP_REQUIRED);
        memmove(file + *len, head + TN_SNAP_SECTION, n);
        *len += n;
        at += TN_SNAP_SECTION + n;
    }
    assert_true(w.err < 0 || at == w.len);
    return w.err;
}

/* ---- what is refused ---- */

static void e07_cut_at_every_length_a_section_is_refused(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT(kinds); i++) {
        void *out = some(&kinds[i]);

        for (unsigned part = 0; part < stream.parts; part++) {
            size_t len;
            const uint8_t *payload = part_of(part, &len);

            for (size_t cut = 0; cut < len; cut++)
                assert_int_equal(try_get(&kinds[i], part, payload, cut, out), TN_ETRUNC);
            assert_int_equal(try_get(&kinds[i], part, payload, len, out), 0);
            for (size_t more = 1; more < 5; more++)
                assert_int_equal(try_get(&kinds[i], part, payload, len + more, out), TN_EFORMAT);
        }
        free(out);
    }
}

/* Whatever a byte is: what get takes, put writes again. */
static void e07_changed_bytes_are_refused_or_are_the_state(void **unused)
{
    static const uint8_t nasty[] = {0, 2, 0x80, 0xff};
    unsigned taken = 0, refused = 0;

    (void)unused;
    for (size_t i = 0; i < COUNT(kinds); i++) {
        const struct kind *k = &kinds[i];
        void *out = some(k);
        const uint8_t *payload, *first;
        size_t len, n;

        first = part_of(0, &n);
        for (size_t at = 0; at < stream.len; at++) {
            uint8_t was = stream.bytes[at];

            stream.bytes[at] = nasty[at % COUNT(nasty)];
            if (try_get(k, 0, first, n, out) == 0) {
                assert_int_equal(try_put(k, out, &payload, &len), 0);
                assert_int_equal(len, stream.len);
                assert_memory_equal(payload, stream.bytes, len);
                taken++;
            } else {
                refused++;
            }
            stream.bytes[at] = was;
        }
        free(out);
    }
    assert_true(taken > 1000 && refused > 100);
}

/* One field of a payload that no get may take. */
struct bad {
    const char *kind;
    unsigned part;
    size_t at;
    unsigned width;
    uint64_t value;
    int err;
};

static const struct bad bads[] = {
    {"machine", 0, 12, 4, 0x40, TN_ERANGE}, /* flags */
    {"machine", 0, 12, 4, 0x80000000, TN_ERANGE},
    {"disk", 0, 8, 1, 2, TN_ERANGE},
    {"disk", 0, 9, 1, 0xff, TN_ERANGE},
    {"disk", 0, 10, 1, 2, TN_ERANGE},
    {"disk", 0, 11, 4, 21, TN_ERANGE}, /* the id's length */
    {"disk", 0, 11, 4, 0xffffffff, TN_ERANGE},
    {"disk", 0, 15, 1, 0, TN_EFORMAT}, /* a zero in it */
    {"disk", 0, 34, 1, 0, TN_EFORMAT},
    {"disk", 0, 35, 4, 4096, TN_ERANGE}, /* the path's length */
    {"disk", 0, 35, 4, 4095, TN_ETRUNC},
    {"disk", 0, 35, 4, 0x80000000, TN_ERANGE},
    {"disk", 0, 39, 1, 0, TN_EFORMAT},
    {"disk", 0, 79, 4, 4096, TN_ERANGE}, /* the overlay's length */
    {"disk", 0, 79, 4, 83, TN_ETRUNC},
    {"disk", 0, 132, 1, 0, TN_EFORMAT},
    {"vcpu", 0, 0, 4, 257, TN_ERANGE}, /* cpuid */
    {"vcpu", 0, 0, 4, 256, TN_ETRUNC},
    {"vcpu", 0, 0, 4, 4, TN_ETRUNC},
    {"vcpu", 0, 0, 4, 2, TN_EFORMAT},
    {"vcpu", 0, 0, 4, 0xffffffff, TN_ERANGE},
    {"vcpu", 3, 4, 4, 17, TN_ERANGE}, /* xcrs */
    {"vcpu", 3, 4, 4, 16, TN_ETRUNC},
    {"vcpu", 3, 4, 4, 1, TN_EFORMAT},
    {"vcpu", 4, 0, 4, XSAVE + 1, TN_ERANGE}, /* xsave */
    {"vcpu", 4, 0, 4, 0xffffffff, TN_ERANGE},
    {"vcpu", 4, 0, 4, XSAVE - 1, TN_EFORMAT},
    {"vcpu", 8, 0, 4, 513, TN_ERANGE}, /* msrs */
    {"vcpu", 8, 0, 4, 512, TN_ETRUNC},
    {"vcpu", 8, 0, 4, 0x80000000, TN_ERANGE},
    {"uart", 0, 7, 1, 2, TN_ERANGE},
    {"uart", 0, 9, 1, 2, TN_ERANGE},
    {"uart", 0, 10, 1, 0x80, TN_ERANGE},
    {"i8042", 0, 4, 1, 2, TN_ERANGE},
    {"i8042", 0, 5, 1, 2, TN_ERANGE},
    {"i8042", 0, 7, 1, 2, TN_ERANGE},
    {"virtio", 0, 17, 4, 17, TN_ERANGE}, /* queues */
    {"virtio", 0, 17, 4, 0xffffffff, TN_ERANGE},
    {"virtio", 0, 17, 4, 15, TN_EFORMAT},
    {"virtio", 0, 21 + 26, 1, 2, TN_ERANGE}, /* ready */
    {"virtio", 0, 21 + 61, 1, 2, TN_ERANGE}, /* started */
    {"virtio", 0, 21 + 65, 1, 2, TN_ERANGE}, /* in_order */
    {"virtio", 0, 21 + 15 * 70 + 62, 1, 2, TN_ERANGE},
    {"virtio_blk", 0, 12 + 17, 4, 0x01000000, TN_ERANGE},
    {"virtio_console", 0, 8 + 17, 4, 17, TN_ERANGE},
    {"virtio_rng", 0, 17, 4, 17, TN_ERANGE},
    {"virtio_net", 0, 2, 1, 2, TN_ERANGE}, /* link_up */
    {"virtio_net", 0, 3, 1, 2, TN_ERANGE}, /* announce */
    {"virtio_net", 0, 917 + 17, 4, 17, TN_ERANGE},
    {"virtio_vsock", 0, 8 + 17, 4, 17, TN_ERANGE},
    {"virtio_balloon", 0, 44 + 17, 4, 17, TN_ERANGE},
};

static const struct kind *kind_of(const char *name)
{
    for (size_t i = 0; i < COUNT(kinds); i++) {
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    }
    fail_msg("no kind %s", name);
    return NULL;
}

static void e02_e03_fields_out_of_their_range(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT(bads); i++) {
        const struct bad *b = &bads[i];
        const struct kind *k = kind_of(b->kind);
        void *out = some(k);
        size_t len;
        const uint8_t *payload = part_of(b->part, &len);
        int err;

        tn_put_(stream.bytes + (payload - stream.bytes) + b->at, b->width, b->value);
        err = try_get(k, b->part, payload, len, out);
        if (err != b->err)
            fail_msg("%s, section %u, at %zu: %d", k->name, b->part, b->at, err);
        free(out);
    }
}

/* As many queues as fit in the payload, not one more, however large the count is. */
static void e02_a_count_of_queues_without_queues(void **unused)
{
    const struct kind *k = kind_of("virtio");
    void *out = some(k);

    (void)unused;
    for (uint32_t n = 0; n <= 16; n++) {
        tn_put_(stream.bytes + 17, 4, n);
        for (uint32_t have = 0; have <= 16; have++)
            assert_int_equal(try_get(k, 0, stream.bytes, 21 + 70 * have, out), have < n ? TN_ETRUNC
                                                                               : have > n
                                                                                   ? TN_EFORMAT
                                                                                   : 0);
    }
    free(out);
}

static void a_section_that_is_not_there(void **unused)
{
    static uint8_t file[2 * ROOM];

    (void)unused;
    for (size_t i = 0; i < COUNT(kinds); i++) {
        const struct kind *k = &kinds[i], *other = &kinds[(i + 1) % COUNT(kinds)];
        void *out = some(other);
        struct tn_snap snap;
        size_t len;

        len = forged(file, other, PARTS, 0, 0, NULL, 0);
        free(out);
        out = some(k);
        blank(k, out);
        assert_int_equal(open_known(&snap, file, len), 0);
        assert_int_equal(k->get(&snap, k->instance, out), TN_ESTATE);
        assert_void(k, out);
        len = forged(file, k, PARTS, 0, 0, NULL, 0);
        assert_int_equal(open_known(&snap, file, len), 0);
        assert_int_equal(k->get(&snap, k->instance + 1, out), TN_ESTATE);
        assert_int_equal(k->get(&snap, k->instance, out), 0);
        /* From the future, and nobody needs it. */
        for (unsigned part = 0; part < stream.parts; part++) {
            len = forged(file, k, part, newest_of(k->type[part]) + 1, 0, stream.bytes, 4);
            assert_int_equal(open_known(&snap, file, len), 0);
            blank(k, out);
            assert_int_equal(k->get(&snap, k->instance, out), TN_ESTATE);
            assert_void(k, out);
        }
        free(out);
    }
}

static void a_version_from_the_future(void **unused)
{
    static uint8_t file[2 * ROOM];
    struct tn_snap_known later[64];
    size_t n;
    const struct tn_snap_known *known = tn_vm_known(&n);

    (void)unused;
    assert_true(n <= COUNT(later));
    for (size_t i = 0; i < n; i++) {
        later[i].type = known[i].type;
        later[i].version = known[i].version + 2;
    }
    for (size_t i = 0; i < COUNT(kinds); i++) {
        const struct kind *k = &kinds[i];
        void *out = some(k);
        struct tn_snap snap;

        for (unsigned part = 0; part < stream.parts; part++) {
            size_t len;
            const uint8_t *payload = part_of(part, &len);

            len = forged(file, k, part, newest_of(k->type[part]) + 1, 1, payload, len);
            assert_int_equal(open_known(&snap, file, len), TN_EUNSUP);
            assert_int_equal(tn_snap_open(&snap, file, len, NULL, later, n), 0);
            blank(k, out);
            assert_int_equal(k->get(&snap, k->instance, out), TN_EUNSUP);
            assert_void(k, out);
        }
        free(out);
    }
}

/* What a section can't say is not written. */
static void put_refuses_what_get_would(void **unused)
{
    static struct tn_vm_disk_record disk;
    static struct tn_virtio_state virtio;
    static struct tn_kvm_x86_vcpu_state vcpu;
    static struct tn_kvm_x86_vm_state chips;
    static struct tn_vm_machine_record machine;
    static struct tn_uart_state uart;
    static struct tn_rate_state rate;
    const uint8_t *payload;
    uint8_t xsave[8] = {0};
    size_t len;

    (void)unused;
#define REFUSED(record) \
    assert_int_equal(try_put(kind_of(#record), &record, &payload, &len), TN_EINVAL)
#define WRITTEN(record) assert_int_equal(try_put(kind_of(#record), &record, &payload, &len), 0)
    WRITTEN(machine);
    machine.flags = 0x40;
    REFUSED(machine);

    memset(disk.id, 'x', 20);
    memset(disk.path, 'x', 4095);
    memset(disk.overlay, 'x', 4095);
    WRITTEN(disk);
    disk.id[20] = 'x';
    REFUSED(disk);
    disk.id[20] = 0;
    disk.path[4095] = 'x';
    REFUSED(disk);
    disk.path[4095] = 0;
    disk.overlay[4095] = 'x';
    REFUSED(disk);

    WRITTEN(vcpu);
    vcpu.xsave = xsave;
    vcpu.xsave_cap = vcpu.xsave_len = sizeof(xsave);
    vcpu.cpuid.nent = TN_KVM_MAX_CPUID;
    vcpu.xcrs.nr_xcrs = KVM_MAX_XCRS;
    vcpu.msr_count = TN_KVM_X86_STATE_MSRS;
    WRITTEN(vcpu);
    vcpu.cpuid.nent++;
    REFUSED(vcpu);
    vcpu.cpuid.nent = 0;
    vcpu.xcrs.nr_xcrs++;
    REFUSED(vcpu);
    vcpu.xcrs.nr_xcrs = 0;
    vcpu.msr_count++;
    REFUSED(vcpu);
    vcpu.msr_count = 0;
    vcpu.xsave_len++;
    REFUSED(vcpu);
    vcpu.xsave_len = SIZE_MAX;
    REFUSED(vcpu);

    REFUSED(chips);
    chips.chip[1].chip_id = 1;
    REFUSED(chips);
    chips.chip[2].chip_id = 2;
    WRITTEN(chips);
    chips.chip[0].chip_id = 1;
    REFUSED(chips);

    REFUSED(uart);
    uart.version = 1;
    WRITTEN(uart);
    uart.thre = 2;
    REFUSED(uart);

    virtio.version = 1;
    WRITTEN(virtio);
    virtio.queues = 1;
    REFUSED(virtio);
    virtio.queue[0].ring.version = 1;
    WRITTEN(virtio);
    virtio.queue[0].ready = 0x80;
    REFUSED(virtio);
    virtio.queue[0].ready = 1;
    virtio.queues = 17;
    REFUSED(virtio);
    virtio.queues = UINT32_MAX;
    REFUSED(virtio);

    rate.version = 2;
    REFUSED(rate);
#undef REFUSED
#undef WRITTEN
}

/* The writer's own errors: no room, out of order, twice. */
static void the_writers_errors_stay_its_own(void **unused)
{
    static uint8_t file[4096];
    struct tn_snap_writer w;
    struct tn_rate_state rate = {1, 2, 3, 4, 5, 0};
    int64_t len;

    (void)unused;
    tn_snap_begin(&w, file, sizeof(file));
    tn_vm_put_rate(&w, 0, &rate);
    len = tn_snap_finish(&w, NULL, NULL);
    assert_true(len > 0);
    for (size_t cap = 0; cap < (size_t)len; cap++) {
        tn_snap_begin(&w, file, cap);
        tn_vm_put_rate(&w, 0, &rate);
        assert_int_equal(tn_snap_finish(&w, NULL, NULL), TN_ENOSPC);
    }
    tn_snap_begin(&w, file, sizeof(file));
    tn_vm_put_rate(&w, 1, &rate);
    tn_vm_put_rate(&w, 1, &rate);
    assert_int_equal(w.err, TN_EEXIST);
    tn_snap_begin(&w, file, sizeof(file));
    tn_vm_put_rate(&w, 1, &rate);
    tn_vm_put_rate(&w, 0, &rate);
    assert_int_equal(w.err, TN_ESTATE);
}

/* ---- what is written and read ---- */

static void the_payload_is_the_formats(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT(kinds); i++) {
        void *state = some(&kinds[i]);
        const uint8_t *payload;
        size_t len;

        assert_int_equal(try_put(&kinds[i], state, &payload, &len), 0);
        assert_int_equal(len, stream.len);
        assert_memory_equal(payload, stream.bytes, len);
        free(state);
    }
}

static void assert_same(const struct kind *k, const void *out, const void *state)
{
    const uint8_t *a = out, *b = state;

    for (size_t at = 0; at < k->size; at++) {
        if (a[at] != b[at] && k->where(at) != OURS)
            fail_msg("%s: byte %zu of the struct", k->name, at);
    }
    if (k->some == some_vcpu) {
        const struct tn_kvm_x86_vcpu_state *in = out, *from = state;

        assert_int_equal(in->xsave_cap, XSAVE);
        assert_ptr_not_equal(in->xsave, from->xsave);
        assert_memory_equal(in->xsave, from->xsave, XSAVE);
    }
}

static void what_is_written_is_read(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT(kinds); i++) {
        const struct kind *k = &kinds[i];
        void *state = some(k), *out = malloc(k->size);

        assert_non_null(out);
        assert_int_equal(try_get(k, PARTS, NULL, 0, out), 0);
        assert_same(k, out, state);
        free(state);
        free(out);
    }
}

/*
 * A field that was forgotten, today or when a struct grows, changes nothing here. put changes
 * nothing of what it writes.
 */
static void every_byte_of_a_record_counts(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT(kinds); i++) {
        const struct kind *k = &kinds[i];
        uint8_t *state = some(k), *copy = test_exact(state, k->size);
        const uint8_t *payload;
        size_t len;

        for (size_t at = 0; at < k->size; at++) {
            enum where where = k->where(at);
            bool counts;

            if (where == OURS)
                continue;
            state[at] ^= 1;
            counts = try_put(k, state, &payload, &len) < 0 || len != stream.len ||
                     memcmp(payload, stream.bytes, len) != 0;
            state[at] ^= 1;
            if (counts == (where == HOLE))
                fail_msg("%s: byte %zu of the struct is %s", k->name, at,
                         counts ? "no hole" : "not in the section");
        }
        assert_memory_equal(state, copy, k->size);
        free(state);
        free(copy);
    }
}

/* Only the queues that there are. */
static void queues_that_are_not_there_are_zero(void **unused)
{
    const struct kind *k = kind_of("virtio");
    struct tn_virtio_state *s = some(k);
    static struct tn_virtio_state out;
    static const struct tn_virtio_queue_state none;
    const uint8_t *payload;
    size_t len;

    (void)unused;
    for (uint32_t n = 0; n <= 16; n++) {
        s->queues = n;
        assert_int_equal(try_put(k, s, &payload, &len), 0);
        assert_int_equal(len, 21 + 70 * n);
        assert_int_equal(try_get(k, 0, payload, len, &out), 0);
        assert_int_equal(out.queues, n);
        for (uint32_t i = 0; i < 16; i++)
            assert_memory_equal(&out.queue[i], i < n ? &s->queue[i] : &none, sizeof(none));
    }
    free(s);
}

static void the_longest_strings_and_none(void **unused)
{
    const struct kind *k = kind_of("disk");
    struct tn_vm_disk_record *r = some(k);
    static struct tn_vm_disk_record out;
    const uint8_t *payload;
    size_t len;

    (void)unused;
    memset(r->path, 'p', 4095);
    memset(r->overlay, 'o', 4095);
    assert_int_equal(try_put(k, r, &payload, &len), 0);
    assert_int_equal(len, 11 + 24 + 2 * 4099 + 32);
    assert_int_equal(try_get(k, 0, payload, len, &out), 0);
    assert_memory_equal(&out, r, sizeof(out));
    r->id[0] = r->path[0] = r->overlay[0] = 0; /* the rest of the arrays is nobody's */
    assert_int_equal(try_put(k, r, &payload, &len), 0);
    assert_int_equal(len, 11 + 12 + 32);
    assert_int_equal(try_get(k, 0, payload, len, &out), 0);
    assert_int_equal(out.rate.ops_burst, r->rate.ops_burst);
    for (size_t i = 0; i < 4096; i++)
        assert_true(out.path[i] == 0 && out.overlay[i] == 0 && out.id[i % 21] == 0);
    free(r);
}

/* Extended state of any length up to what the caller has room for; none at all. */
static void extended_state_of_any_length(void **unused)
{
    static uint8_t file[ROOM], from[20000], to[20000];
    static const size_t lens[] = {0, 1, 576, 4096, 11008, sizeof(from)};
    static struct tn_kvm_x86_vcpu_state in, out;
    struct tn_snap_writer w;
    struct tn_snap snap;

    (void)unused;
    for (size_t i = 0; i < sizeof(from); i++)
        from[i] = (uint8_t)(i % 251 + 1);
    for (size_t i = 0; i < COUNT(lens); i++) {
        int64_t len;

        in.xsave = lens[i] > 0 ? from : NULL;
        in.xsave_cap = in.xsave_len = lens[i];
        tn_snap_begin(&w, file, sizeof(file));
        tn_vm_put_vcpus(&w, &in, 1);
        len = tn_snap_finish(&w, NULL, NULL);
        assert_int_equal(open_known(&snap, file, (size_t)len), 0);
        memset(to, 0xa5, sizeof(to));
        out.xsave = lens[i] > 0 ? to : NULL;
        out.xsave_cap = lens[i];
        assert_int_equal(tn_vm_get_vcpu(&snap, 0, &out), 0);
        assert_int_equal(out.xsave_len, lens[i]);
        assert_memory_equal(to, from, lens[i]);
        assert_true(lens[i] == sizeof(to) || to[lens[i]] == 0xa5);
        if (lens[i] == 0)
            continue;
        out.xsave_cap = lens[i] - 1;
        assert_int_equal(tn_vm_get_vcpu(&snap, 0, &out), TN_ERANGE);
        assert_int_equal(out.xsave_len, 0);
        assert_ptr_equal(out.xsave, to);
        for (size_t n = 0; n < lens[i]; n++)
            assert_int_equal(to[n], n < lens[i] - 1 ? 0 : from[n]);
    }
}

/* Their sections are in the order of the format, all of one type together. */
static void many_vcpus(void **unused)
{
    static uint8_t file[ROOM], xsave[3][64], to[64];
    static struct tn_kvm_x86_vcpu_state in[3], out;
    struct tn_snap_writer w;
    struct tn_snap snap;
    int64_t len;

    (void)unused;
    for (uint32_t i = 0; i < 3; i++) {
        memset(xsave[i], (int)i + 1, sizeof(xsave[i]));
        in[i].xsave = xsave[i];
        in[i].xsave_cap = sizeof(xsave[i]);
        in[i].xsave_len = 10 + i;
        in[i].regs.rip = 0x1000 + i;
        in[i].mp_state = i;
        in[i].msr_count = i;
        in[i].msr[0].index = 0x10 + i;
    }
    tn_snap_begin(&w, file, sizeof(file));
    tn_vm_put_vcpus(&w, in, 3);
    len = tn_snap_finish(&w, NULL, NULL);
    assert_int_equal(open_known(&snap, file, (size_t)len), 0);
    assert_int_equal(snap.sections, 30);
    out.xsave = to;
    out.xsave_cap = sizeof(to);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(tn_vm_get_vcpu(&snap, i, &out), 0);
        assert_int_equal(out.regs.rip, 0x1000 + i);
        assert_int_equal(out.mp_state, i);
        assert_int_equal(out.msr_count, i);
        assert_int_equal(out.msr[0].index, i ? 0x10 + i : 0);
        assert_int_equal(out.xsave_len, 10 + i);
        assert_memory_equal(to, xsave[i], 10 + i);
    }
    assert_int_equal(tn_vm_get_vcpu(&snap, 3, &out), TN_ESTATE);
}

static size_t no_sink(void *ctx, const uint8_t *some_bytes, size_t len)
{
    (void)ctx;
    (void)some_bytes;
    return len == 0;
}

static void no_line(void *ctx, bool level)
{
    (void)ctx;
    (void)level;
}

/* A port in mid-character. */
static void a_model_goes_on_as_it_was(void **unused)
{
    static uint8_t file[1024];
    struct tn_uart_cfg cfg = {NULL, no_sink, no_line, NULL, false};
    struct tn_uart_state state;
    struct tn_uart a, b;
    struct tn_snap_writer w;
    struct tn_snap snap;
    int64_t len;

    (void)unused;
    assert_int_equal(tn_uart_init(&a, &cfg), 0);
    assert_int_equal(tn_uart_init(&b, &cfg), 0);
    tn_uart_write(&a, TN_UART_FCR, TN_UART_FCR_ENABLE);
    assert_int_equal(tn_uart_push(&a, (const uint8_t *)"input", 5), 5);
    for (unsigned i = 0; i < 3; i++)
        tn_uart_write(&a, TN_UART_THR, (uint8_t)('x' + i));
    tn_uart_save(&a, &state);
    tn_snap_begin(&w, file, sizeof(file));
    tn_vm_put_uart(&w, 0, &state);
    len = tn_snap_finish(&w, NULL, NULL);
    assert_int_equal(open_known(&snap, file, (size_t)len), 0);
    memset(&state, 0xa5, sizeof(state));
    assert_int_equal(tn_vm_get_uart(&snap, 0, &state), 0);
    assert_int_equal(tn_uart_restore(&b, &state), 0);
    assert_memory_equal(&b.state, &a.state, sizeof(a.state));
    assert_int_equal(tn_uart_read(&b, TN_UART_RBR), 'i');
}

/* All types once, ascending; each kind's are there, and two that have no record here. */
static void the_known_sections(void **unused)
{
    size_t n, found = 0, types = 0;
    const struct tn_snap_known *known = tn_vm_known(&n);

    (void)unused;
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(known[i].version,
                         known[i].type == 0x120 || known[i].type == 0x130 ? 2 : 1);
        assert_true(i == 0 || known[i].type > known[i - 1].type);
    }
    for (size_t k = 0; k < COUNT(kinds); k++) {
        for (size_t i = 0; i < PARTS && kinds[k].type[i]; i++) {
            types++;
            for (size_t j = 0; j < n; j++)
                found += kinds[k].type[i] == known[j].type;
        }
    }
    assert_int_equal(found, types);
    assert_int_equal(n, types + 2);
}

/* ---- the fixture ---- */

static const struct {
    const char *path;
    uint32_t version; /* of its sections, at most */
    size_t kinds;     /* as fixture_of has it */
} fixtures[] = {{"tests/fixtures/machine-v1.state", 2, 0},
                {"tests/fixtures/devices-v1.state", 1, 1},
                {"tests/fixtures/devices-v2.state", 2, 1}};

/* In which of them a kind is: what came later is in the others. */
static size_t fixture_of(const struct kind *k)
{
    static const uint32_t later[] = {0x120, 0x130, 0x140, 0x550, 0x560, 0x570};

    for (size_t i = 0; i < COUNT(later); i++) {
        if (k->type[0] == later[i])
            return 1;
    }
    return k->type[0] == 0x420 || k->type[0] == 0x430 ? 2 : 0; /* arm64's are in none */
}

/* A file with one of each section of a fixture. Returns its length. */
static int64_t make(size_t fixture, uint8_t *buf, size_t cap)
{
    struct tn_snap_writer w;

    tn_snap_begin(&w, buf, cap);
    for (size_t i = 0; i < COUNT(kinds); i++) {
        void *state;

        if (fixture_of(&kinds[i]) != fixtures[fixture].kinds)
            continue;
        state = some(&kinds[i]);
        kinds[i].put(&w, kinds[i].instance, state);
        free(state);
    }
    return tn_snap_finish(&w, NULL, NULL);
}

static void loads(size_t fixture)
{
    const char *path = fixtures[fixture].path;
    static uint8_t buf[ROOM], made[ROOM];
    FILE *f = fopen(path, "rb");
    struct tn_snap snap;
    size_t len;

    if (!f)
        fail_msg("%s can't be read", path);
    len = fread(buf, 1, sizeof(buf), f);
    fclose(f);
    assert_int_equal(open_known(&snap, buf, len), 0);
    for (size_t i = 0; i < COUNT(kinds); i++) {
        const struct kind *k = &kinds[i];
        void *state, *out;

        if (fixture_of(k) != fixtures[fixture].kinds)
            continue;
        stream.version = fixtures[fixture].version;
        state = some(k);
        stream.version = 2;
        out = malloc(k->size);
        assert_non_null(out);
        blank(k, out);
        assert_int_equal(k->get(&snap, k->instance, out), 0);
        assert_same(k, out, state);
        free(state);
        free(out);
    }
    if (fixtures[fixture].version == 2) { /* all its sections are written in that version */
        assert_int_equal(make(fixture, made, sizeof(made)), len);
        assert_memory_equal(buf, made, len);
    }
}

/* The files of older versions, as they are in the repository, load for ever. */
static void e07_the_fixtures_load(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT(fixtures); i++)
        loads(i);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(e07_cut_at_every_length_a_section_is_refused),
        cmocka_unit_test(e07_changed_bytes_are_refused_or_are_the_state),
        cmocka_unit_test(e02_e03_fields_out_of_their_range),
        cmocka_unit_test(e02_a_count_of_queues_without_queues),
        cmocka_unit_test(a_section_that_is_not_there),
        cmocka_unit_test(a_version_from_the_future),
        cmocka_unit_test(put_refuses_what_get_would),
        cmocka_unit_test(the_writers_errors_stay_its_own),
        cmocka_unit_test(the_payload_is_the_formats),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(every_byte_of_a_record_counts),
        cmocka_unit_test(queues_that_are_not_there_are_zero),
        cmocka_unit_test(the_longest_strings_and_none),
        cmocka_unit_test(extended_state_of_any_length),
        cmocka_unit_test(many_vcpus),
        cmocka_unit_test(a_model_goes_on_as_it_was),
        cmocka_unit_test(the_known_sections),
        cmocka_unit_test(e07_the_fixtures_load),
    };

    if (argc == 3) { /* writes a fixture of the newest version: test_vm_records 0|2 FILE */
        static uint8_t buf[ROOM];
        int64_t len = make(strcmp(argv[1], "0") == 0 ? 0 : 2, buf, sizeof(buf));
        FILE *f = fopen(argv[2], "wb");

        return f && len > 0 && fwrite(buf, (size_t)len, 1, f) == 1 && fclose(f) == 0 ? 0 : 1;
    }
    return cmocka_run_group_tests_name("vm_records", tests, NULL, NULL);
}
