/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vm_state - the whole state of a machine but its memory, as a value.
 *
 * WHAT
 *   Takes the state of a machine that stands still, puts it into another machine of the same make
 *   (or back into the same), and turns it into the sections of a tn_snap file and back: vCPUs,
 *   interrupt chips, clocks, and all devices.
 *
 * USAGE
 *   struct tn_vm vm;
 *   struct tn_vm_state state;
 *
 *   memset(&vm, 0, sizeof(vm)); // of tn_vm_init, and paused, or not started yet
 *   if (tn_vm_state_save(&state, &vm) < 0)
 *       return 1;
 *   if (tn_vm_state_restore(&vm, &state, true) < 0)
 *       return 2;
 *   tn_vm_state_close(&state);
 *
 * COMPOSITION
 *   tn_vm_image keeps one beside the memory that it belongs to; tn_vm_fork makes machines of it.
 *   tn_vm_records has the fields.
 *
 * GUEST TRUST
 *   A state that was read from a file may hold anything that its fields can: how many CPUs, disks
 *   and bytes of memory there are is checked here; the rest by the models, as if the guest had
 *   written it, and by KVM. A machine that refused a state is not to be run.
 *
 * MEMORY
 *   A value owns what it allocates, about 40 KiB for each vCPU, until tn_vm_state_close. What is
 *   read from a file is allocated only after the file was found to have it.
 *
 * THREADS
 *   save and restore: on the thread of the machine's loop, or while it does not run, with all vCPUs
 *   at rest.
 *
 * CONFIG
 *   none.
 *
 * LIMITS
 *   The disks' content is not in it, nor are the backends' descriptors. The routes of interrupts
 *   are those that the interrupt chips are made with; tn_vm never changes them.
 */
#ifndef TN_VM_STATE_H
#define TN_VM_STATE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* for layer 3; of use only before the first system header */
#endif

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
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tn_snap.h"
#include "tn_vm.h"
#include "tn_vm_arch.h"
#include "tn_vm_records.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

/* A virtio device's registers, and of a disk all there is. */
struct tn_vm_disk_saved {
    struct tn_vm_disk_record record;
    struct tn_virtio_mmio_state mmio;
    struct tn_virtio_blk_state blk;
    struct tn_rate_state rate;
};

struct tn_vm_net_saved {
    struct tn_vm_net_record record;
    struct tn_virtio_mmio_state mmio;
    struct tn_virtio_net_state model;
};

struct tn_vm_vsock_saved {
    struct tn_vm_vsock_record record;
    struct tn_virtio_mmio_state mmio;
    struct tn_virtio_vsock_state model;
};

struct tn_vm_balloon_saved {
    struct tn_vm_balloon_record record;
    struct tn_virtio_mmio_state mmio;
    struct tn_virtio_balloon_state model;
};

struct tn_vm_state {
    struct tn_vm_machine_record machine;
    struct tn_vm_arch_state arch; /* vCPUs, chips, clocks, ports */
    struct tn_vm_disk_saved *disk;
    uint32_t disks;
    struct tn_virtio_mmio_state hvc_mmio; /* with TN_VM_MACHINE_VIRTIO_CONSOLE */
    struct tn_virtio_console_state hvc;
    struct tn_virtio_mmio_state rng_mmio; /* with TN_VM_MACHINE_RNG */
    struct tn_virtio_rng_state rng;
    struct tn_vm_net_saved *net;
    uint32_t nets;
    struct tn_vm_vsock_saved *vsock;     /* NULL: there is none */
    struct tn_vm_balloon_saved *balloon; /* likewise */
};

/*
 * Takes the state of a machine that is paused, or was not started yet, and whose devices are at
 * rest (tn_vm_devices_quiesce). Returns 0; TN_ESTATE: the machine is in another state, or a clone
 * that was only prepared; TN_ESYS. *s is closed then.
 */
TN_API int tn_vm_state_save(struct tn_vm_state *s, struct tn_vm *vm);

/*
 * Puts it into a machine of the same make, whose vCPUs are at rest and were made for the state
 * (tn_vm_arch_state_vcpu); then call tn_vm_devices_wake. stopped: the guest's time stood still
 * since the save; else it went by as on the host. Returns 0, or the first error of KVM
 * (vm->refused) or of a device's restore.
 */
TN_API int tn_vm_state_restore(struct tn_vm *vm, const struct tn_vm_state *s, bool stopped);

/*
 * Writes all sections, but those of a diff; the error is the writer's.
 */
TN_API void tn_vm_state_build(const struct tn_vm_state *s, struct tn_snap_writer *w);

/*
 * Reads them all. Returns 0; TN_EFORMAT: a section is missing, or one too many is there; TN_ERANGE:
 * memory, CPUs or disks outside the board's limits; TN_ESYS: no memory; the errors of tn_vm_get_*.
 * *s is closed then.
 */
TN_API int tn_vm_state_parse(struct tn_vm_state *s, const struct tn_snap *snap);

/*
 * How many bytes tn_vm_state_build needs at most, with the container around them.
 */
TN_API size_t tn_vm_state_size(const struct tn_vm_state *s);

TN_API void tn_vm_state_close(struct tn_vm_state *s);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* How many there are of what a machine may have none of. */
struct tn_vm_state_count_ {
    uint32_t disks;
    uint32_t nets;
    uint32_t vsocks;
    uint32_t balloons;
};

/* Room for the devices. */
static inline int tn_vm_state_alloc_(struct tn_vm_state *s, const struct tn_vm_state_count_ *n)
{
    s->disk = (struct tn_vm_disk_saved *)calloc(n->disks ? n->disks : 1, sizeof(*s->disk));
    s->net = (struct tn_vm_net_saved *)calloc(n->nets ? n->nets : 1, sizeof(*s->net));
    if (n->vsocks > 0)
        s->vsock = (struct tn_vm_vsock_saved *)calloc(1, sizeof(*s->vsock));
    if (n->balloons > 0)
        s->balloon = (struct tn_vm_balloon_saved *)calloc(1, sizeof(*s->balloon));
    if (!s->disk || !s->net || !s->vsock != (n->vsocks == 0) || !s->balloon != (n->balloons == 0))
        return TN_ESYS;
    s->disks = n->disks;
    s->nets = n->nets;
    return TN_OK;
}

TN_API void tn_vm_state_close(struct tn_vm_state *s)
{
    int saved = errno;

    tn_vm_arch_state_close(&s->arch);
    free(s->disk);
    free(s->net);
    free(s->vsock);
    free(s->balloon);
    memset(s, 0, sizeof(*s));
    errno = saved;
}

/* ---- save ---- */

static inline void tn_vm_state_save_disk_(struct tn_vm_disk_saved *out, struct tn_vm_disk *disk)
{
    struct tn_vm_disk_record *r = &out->record;

    r->size = disk->blk.disk.size;
    r->read_only = disk->blk.disk.read_only;
    r->overlaid = disk->overlaid;
    r->direct = disk->cfg.direct;
    r->rate = disk->cfg.rate;
    (void)snprintf(r->id, sizeof(r->id), "%s", disk->cfg.id);
    (void)snprintf(r->path, sizeof(r->path), "%s", disk->cfg.path);
    if (disk->cfg.overlay)
        (void)snprintf(r->overlay, sizeof(r->overlay), "%s", disk->cfg.overlay);
    pthread_mutex_lock(&disk->slot.lock);
    tn_virtio_mmio_save(&disk->slot.mmio, &out->mmio);
    tn_virtio_blk_save(&disk->blk, &out->blk);
    if (disk->blk.cfg.rate)
        tn_rate_save(&disk->rate, tn_vm_now_(NULL), &out->rate);
    else
        out->rate.version = TN_RATE_VERSION;
    pthread_mutex_unlock(&disk->slot.lock);
}

static inline void tn_vm_state_save_net_(struct tn_vm_net_saved *out, struct tn_vm_net *net)
{
    struct tn_vm_net_record *r = &out->record;

    r->kind = net->cfg.kind;
    r->vhost = net->cfg.vhost;
    r->pairs = net->cfg.pairs;
    memcpy(r->mac, net->cfg.mac, sizeof(r->mac));
    r->mtu = net->cfg.mtu;
    r->hide = net->cfg.hide;
    r->tx_rate = net->cfg.tx_rate;
    r->rx_rate = net->cfg.rx_rate;
    if (net->cfg.name)
        (void)snprintf(r->name, sizeof(r->name), "%s", net->cfg.name);
    pthread_mutex_lock(&net->slot.lock);
    tn_virtio_mmio_save(&net->slot.mmio, &out->mmio);
    tn_virtio_net_save(&net->model, &out->model);
    pthread_mutex_unlock(&net->slot.lock);
}

static inline void tn_vm_state_save_vsock_(struct tn_vm_vsock_saved *out, struct tn_vm_vsock *vsock)
{
    out->record.cid = vsock->cfg.cid;
    out->record.conns = vsock->cfg.conns;
    out->record.vhost = vsock->cfg.vhost;
    if (vsock->cfg.path)
        (void)snprintf(out->record.path, sizeof(out->record.path), "%s", vsock->cfg.path);
    pthread_mutex_lock(&vsock->slot.lock);
    tn_virtio_mmio_save(&vsock->slot.mmio, &out->mmio);
    tn_vm_vsock_save(vsock, &out->model);
    pthread_mutex_unlock(&vsock->slot.lock);
}

static inline void tn_vm_state_save_balloon_(struct tn_vm_balloon_saved *out,
                                             struct tn_vm_balloon *balloon)
{
    pthread_mutex_lock(&balloon->slot.lock);
    tn_virtio_mmio_save(&balloon->slot.mmio, &out->mmio);
    tn_virtio_balloon_save(&balloon->model, &out->model);
    pthread_mutex_unlock(&balloon->slot.lock);
    out->record.size = (uint64_t)out->model.num_pages * TN_VIRTIO_BALLOON_PAGE;
}

static inline void tn_vm_state_save_devices_(struct tn_vm_state *s, struct tn_vm *vm)
{
    struct tn_vm_devices *d = &vm->devices;

    pthread_mutex_lock(&vm->board.device_lock);
    s->machine.asked = vm->board.asked;
    pthread_mutex_unlock(&vm->board.device_lock);
    for (uint32_t i = 0; i < s->disks; i++)
        tn_vm_state_save_disk_(&s->disk[i], &d->disk[i]);
    if (d->hvc) {
        pthread_mutex_lock(&d->hvc->slot.lock);
        tn_virtio_mmio_save(&d->hvc->slot.mmio, &s->hvc_mmio);
        tn_virtio_console_save(&d->hvc->model, &s->hvc);
        pthread_mutex_unlock(&d->hvc->slot.lock);
    }
    if (d->rng) {
        pthread_mutex_lock(&d->rng->slot.lock);
        tn_virtio_mmio_save(&d->rng->slot.mmio, &s->rng_mmio);
        tn_virtio_rng_save(&d->rng->model, &s->rng);
        pthread_mutex_unlock(&d->rng->slot.lock);
    }
    for (uint32_t i = 0; i < s->nets; i++)
        tn_vm_state_save_net_(&s->net[i], &d->net[i]);
    if (d->vsock)
        tn_vm_state_save_vsock_(s->vsock, d->vsock);
    if (d->balloon)
        tn_vm_state_save_balloon_(s->balloon, d->balloon);
}

/* What the machine is made of. */
static inline void tn_vm_state_save_machine_(struct tn_vm_machine_record *m, const struct tn_vm *vm)
{
    const struct tn_vm_devices *d = &vm->devices;

    m->memory = vm->ram.size;
    m->cpus = vm->cpus;
    m->flags = (vm->board.console.loop ? TN_VM_MACHINE_CONSOLE : 0) |
               (d->hvc ? TN_VM_MACHINE_VIRTIO_CONSOLE : 0) | (d->rng ? TN_VM_MACHINE_RNG : 0) |
               (d->packed ? TN_VM_MACHINE_PACKED : 0) |
               (d->no_indirect ? TN_VM_MACHINE_NO_INDIRECT : 0) |
               (d->no_event_idx ? TN_VM_MACHINE_NO_EVENT_IDX : 0);
    m->genid_gpa = TN_VM_ARCH_GENID_GPA;
}

TN_API int tn_vm_state_save(struct tn_vm_state *s, struct tn_vm *vm)
{
    const struct tn_vm_devices *d = &vm->devices;
    uint32_t state = tn_vm_state_read(vm);
    struct tn_vm_state_count_ n = {d->disks, d->nets, d->vsock != NULL, d->balloon != NULL};
    int r;

    memset(s, 0, sizeof(*s));
    if ((state != TN_VM_PAUSED && state != TN_VM_CREATED) || (vm->image && !vm->restored) ||
        vm->torn)
        return TN_ESTATE;
    if (vm->from)
        s->arch.host = vm->from->arch.host;
    else if ((r = tn_vm_arch_state_host(&s->arch, vm->kvm)) < 0)
        return r;
    r = tn_vm_state_alloc_(s, &n);
    if (r >= 0) {
        tn_vm_state_save_machine_(&s->machine, vm);
        tn_vm_state_save_devices_(s, vm);
        r = tn_vm_arch_state_save(&s->arch, &vm->board, vm->cpu, vm->cpus);
    }
    /* No time has gone by for a guest that has not run since it was restored. */
    if (r >= 0 && vm->fresh && vm->from)
        tn_vm_arch_state_since(&s->arch, &vm->from->arch);
    if (r < 0)
        tn_vm_state_close(s);
    return r;
}

/* ---- restore ---- */

static inline int tn_vm_state_restore_slot_(struct tn_vm_virtio *slot,
                                            const struct tn_virtio_mmio_state *from)
{
    return slot->v ? tn_virtio_mmio_restore(&slot->mmio, from) : TN_EINVAL;
}

static inline int tn_vm_state_restore_disk_(struct tn_vm_disk *disk,
                                            const struct tn_vm_disk_saved *from)
{
    int r;

    pthread_mutex_lock(&disk->slot.lock);
    r = tn_virtio_blk_restore(&disk->blk, &from->blk);
    if (r >= 0)
        r = tn_vm_state_restore_slot_(&disk->slot, &from->mmio);
    if (r >= 0 && disk->blk.cfg.rate)
        r = tn_rate_restore(&disk->rate, tn_vm_now_(NULL), &from->rate);
    pthread_mutex_unlock(&disk->slot.lock);
    return r;
}

static inline int tn_vm_state_restore_net_(struct tn_vm_net *net,
                                           const struct tn_vm_net_saved *from)
{
    int r;

    pthread_mutex_lock(&net->slot.lock);
    r = tn_virtio_net_restore(&net->model, &from->model);
    if (r >= 0)
        r = tn_vm_state_restore_slot_(&net->slot, &from->mmio);
    pthread_mutex_unlock(&net->slot.lock);
    return r;
}

/* Its connections are gone; the guest is told so when it is woken. */
static inline int tn_vm_state_restore_vsock_(struct tn_vm_vsock *vsock,
                                             const struct tn_vm_vsock_saved *from)
{
    int r;

    pthread_mutex_lock(&vsock->slot.lock);
    r = tn_vm_vsock_restore(vsock, &from->model);
    if (r >= 0)
        r = tn_vm_state_restore_slot_(&vsock->slot, &from->mmio);
    pthread_mutex_unlock(&vsock->slot.lock);
    return r;
}

/* The CID that it has now: the guest is told at once, which is only heard with the chips' state. */
static inline int tn_vm_state_cid_(struct tn_vm_vsock *vsock)
{
    int r;

    pthread_mutex_lock(&vsock->slot.lock);
    r = tn_vm_vsock_set_cid(vsock, vsock->cfg.cid);
    pthread_mutex_unlock(&vsock->slot.lock);
    return r;
}

static inline int tn_vm_state_restore_balloon_(struct tn_vm_balloon *balloon,
                                               const struct tn_vm_balloon_saved *from)
{
    int r;

    pthread_mutex_lock(&balloon->slot.lock);
    r = tn_virtio_balloon_restore(&balloon->model, &from->model);
    if (r >= 0)
        r = tn_vm_state_restore_slot_(&balloon->slot, &from->mmio);
    if (r >= 0)
        tn_virtio_balloon_hint_done(&balloon->model);
    pthread_mutex_unlock(&balloon->slot.lock);
    return r;
}

/*
 * The devices come first: they set the interrupt lines' levels, and the chips' own state, which
 * says what of that they have seen, then replaces what the chips made of it.
 */
static inline int tn_vm_state_restore_devices_(struct tn_vm *vm, const struct tn_vm_state *s)
{
    struct tn_vm_devices *d = &vm->devices;
    int r;

    pthread_mutex_lock(&vm->board.device_lock);
    vm->board.asked = s->machine.asked;
    pthread_mutex_unlock(&vm->board.device_lock);
    r = tn_vm_arch_state_ports(&vm->board, &s->arch);
    if (d->disks != s->disks || !d->hvc != !(s->machine.flags & TN_VM_MACHINE_VIRTIO_CONSOLE) ||
        !d->rng != !(s->machine.flags & TN_VM_MACHINE_RNG) || d->nets != s->nets ||
        !d->vsock != !s->vsock || !d->balloon != !s->balloon)
        return TN_EINVAL;
    for (uint32_t i = 0; r >= 0 && i < s->disks; i++)
        r = tn_vm_state_restore_disk_(&d->disk[i], &s->disk[i]);
    if (r >= 0 && d->hvc) {
        pthread_mutex_lock(&d->hvc->slot.lock);
        r = tn_virtio_console_restore(&d->hvc->model, &s->hvc);
        if (r >= 0)
            r = tn_vm_state_restore_slot_(&d->hvc->slot, &s->hvc_mmio);
        pthread_mutex_unlock(&d->hvc->slot.lock);
    }
    if (r >= 0 && d->rng) {
        pthread_mutex_lock(&d->rng->slot.lock);
        r = tn_virtio_rng_restore(&d->rng->model, &s->rng);
        if (r >= 0)
            r = tn_vm_state_restore_slot_(&d->rng->slot, &s->rng_mmio);
        pthread_mutex_unlock(&d->rng->slot.lock);
    }
    for (uint32_t i = 0; r >= 0 && i < s->nets; i++)
        r = tn_vm_state_restore_net_(&d->net[i], &s->net[i]);
    if (r >= 0 && d->vsock)
        r = tn_vm_state_restore_vsock_(d->vsock, s->vsock);
    if (r >= 0 && d->balloon)
        r = tn_vm_state_restore_balloon_(d->balloon, s->balloon);
    return r;
}

TN_API int tn_vm_state_restore(struct tn_vm *vm, const struct tn_vm_state *s, bool stopped)
{
    uint32_t flags = vm->vcpu_flags;
    int r;

    if (vm->cpus != s->machine.cpus || vm->ram.size != s->machine.memory)
        return TN_EINVAL;
    r = vm->restored ? tn_vm_arch_state_still(&vm->board) : TN_OK;
    vm->restored = true;
    vm->vcpu_flags = 0;
    if (r >= 0)
        r = tn_vm_state_restore_devices_(vm, s);
    if (r >= 0)
        r = tn_vm_arch_state_cpus(&vm->board, &s->arch, vm->cpu, stopped, flags, &vm->refused);
    return r >= 0 && s->vsock ? tn_vm_state_cid_(vm->devices.vsock) : r;
}

/* ---- to and from sections ---- */

TN_API size_t tn_vm_state_size(const struct tn_vm_state *s)
{
    return (32u << 10) + s->disks * (sizeof(*s->disk) + 1024) + s->nets * (sizeof(*s->net) + 1024) +
           sizeof(*s->vsock) + sizeof(*s->balloon) + tn_vm_arch_state_size(&s->arch);
}

TN_API void tn_vm_state_build(const struct tn_vm_state *s, struct tn_snap_writer *w)
{
    uint32_t hvc = s->disks, rng = hvc + !!(s->machine.flags & TN_VM_MACHINE_VIRTIO_CONSOLE);
    uint32_t net = rng + !!(s->machine.flags & TN_VM_MACHINE_RNG), vsock = net + s->nets;
    uint32_t balloon = vsock + (s->vsock != NULL);

    tn_vm_put_machine(w, 0, &s->machine);
    for (uint32_t i = 0; i < s->disks; i++)
        tn_vm_put_disk(w, i, &s->disk[i].record);
    for (uint32_t i = 0; i < s->nets; i++)
        tn_vm_put_net(w, i, &s->net[i].record);
    if (s->vsock)
        tn_vm_put_vsock(w, 0, &s->vsock->record);
    if (s->balloon)
        tn_vm_put_balloon(w, 0, &s->balloon->record);
    tn_vm_arch_state_build(&s->arch, w);
    for (uint32_t i = 0; i < s->disks; i++)
        tn_vm_put_virtio_mmio(w, i, &s->disk[i].mmio);
    if (rng > hvc)
        tn_vm_put_virtio_mmio(w, hvc, &s->hvc_mmio);
    if (s->machine.flags & TN_VM_MACHINE_RNG)
        tn_vm_put_virtio_mmio(w, rng, &s->rng_mmio);
    for (uint32_t i = 0; i < s->nets; i++)
        tn_vm_put_virtio_mmio(w, net + i, &s->net[i].mmio);
    if (s->vsock)
        tn_vm_put_virtio_mmio(w, vsock, &s->vsock->mmio);
    if (s->balloon)
        tn_vm_put_virtio_mmio(w, balloon, &s->balloon->mmio);
    for (uint32_t i = 0; i < s->disks; i++)
        tn_vm_put_virtio_blk(w, i, &s->disk[i].blk);
    if (rng > hvc)
        tn_vm_put_virtio_console(w, hvc, &s->hvc);
    if (s->machine.flags & TN_VM_MACHINE_RNG)
        tn_vm_put_virtio_rng(w, rng, &s->rng);
    for (uint32_t i = 0; i < s->nets; i++)
        tn_vm_put_virtio_net(w, net + i, &s->net[i].model);
    if (s->vsock)
        tn_vm_put_virtio_vsock(w, vsock, &s->vsock->model);
    if (s->balloon)
        tn_vm_put_virtio_balloon(w, balloon, &s->balloon->model);
    for (uint32_t i = 0; i < s->disks; i++)
        tn_vm_put_rate(w, i, &s->disk[i].rate);
}

/* How many sections of a type there are, and of all that are known. */
static inline uint32_t tn_vm_state_sections_(const struct tn_snap *snap, uint32_t type)
{
    struct tn_snap_section s;
    uint32_t n = 0;
    size_t at = 0;

    while (tn_snap_next(snap, &at, &s))
        n += s.known && (type == 0 ? s.type < TN_VM_SEC_OVERLAY : s.type == type);
    return n;
}

/* Numbers that the others hang on. */
static inline int tn_vm_state_parse_machine_(struct tn_vm_state *s, const struct tn_snap *snap)
{
    struct tn_loader_range ram[TN_VM_ARCH_RAM];
    struct tn_vm_machine_record m;
    struct tn_vm_state_count_ n = {tn_vm_state_sections_(snap, TN_VM_SEC_DISK),
                                   tn_vm_state_sections_(snap, TN_VM_SEC_NET),
                                   tn_vm_state_sections_(snap, TN_VM_SEC_VSOCK),
                                   tn_vm_state_sections_(snap, TN_VM_SEC_BALLOON)};
    int r = tn_vm_get_machine(snap, 0, &m);

    if (r < 0)
        return r;
    if (m.cpus == 0 || m.cpus > TN_VM_ARCH_MAX_CPUS || n.disks > TN_VM_MAX_DISKS ||
        n.nets > TN_VM_MAX_NETS || m.asked > TN_VM_ERROR || m.memory > SIZE_MAX / 2 ||
        tn_vm_arch_ram(m.memory, ram) < 0 ||
        (m.genid_gpa != 0 && m.genid_gpa != TN_VM_ARCH_GENID_GPA))
        return TN_ERANGE;
    s->machine = m;
    return tn_vm_state_alloc_(s, &n);
}

/* The virtio devices, each at its place; *n counts the sections. */
static inline int tn_vm_state_parse_virtio_(struct tn_vm_state *s, const struct tn_snap *snap,
                                            uint32_t *n)
{
    uint32_t place = 0;
    int r = TN_OK;

    for (; r >= 0 && place < s->disks; place++) {
        struct tn_vm_disk_saved *disk = &s->disk[place];

        r = tn_vm_get_disk(snap, place, &disk->record);
        if (r >= 0)
            r = tn_vm_get_virtio_mmio(snap, place, &disk->mmio);
        if (r >= 0)
            r = tn_vm_get_virtio_blk(snap, place, &disk->blk);
        if (r >= 0)
            r = tn_vm_get_rate(snap, place, &disk->rate);
        *n += 4;
    }
    if (r >= 0 && s->machine.flags & TN_VM_MACHINE_VIRTIO_CONSOLE) {
        r = tn_vm_get_virtio_mmio(snap, place, &s->hvc_mmio);
        if (r >= 0)
            r = tn_vm_get_virtio_console(snap, place++, &s->hvc);
        *n += 2;
    }
    if (r >= 0 && s->machine.flags & TN_VM_MACHINE_RNG) {
        r = tn_vm_get_virtio_mmio(snap, place, &s->rng_mmio);
        if (r >= 0)
            r = tn_vm_get_virtio_rng(snap, place++, &s->rng);
        *n += 2;
    }
    for (uint32_t i = 0; r >= 0 && i < s->nets; i++) {
        r = tn_vm_get_net(snap, i, &s->net[i].record);
        if (r >= 0)
            r = tn_vm_get_virtio_mmio(snap, place, &s->net[i].mmio);
        if (r >= 0)
            r = tn_vm_get_virtio_net(snap, place++, &s->net[i].model);
        *n += 3;
    }
    if (r >= 0 && s->vsock) {
        r = tn_vm_get_vsock(snap, 0, &s->vsock->record);
        if (r >= 0)
            r = tn_vm_get_virtio_mmio(snap, place, &s->vsock->mmio);
        if (r >= 0)
            r = tn_vm_get_virtio_vsock(snap, place++, &s->vsock->model);
        *n += 3;
    }
    if (r >= 0 && s->balloon) {
        r = tn_vm_get_balloon(snap, 0, &s->balloon->record);
        if (r >= 0)
            r = tn_vm_get_virtio_mmio(snap, place, &s->balloon->mmio);
        if (r >= 0)
            r = tn_vm_get_virtio_balloon(snap, place, &s->balloon->model);
        *n += 3;
    }
    return r;
}

TN_API int tn_vm_state_parse(struct tn_vm_state *s, const struct tn_snap *snap)
{
    uint32_t n = 1; /* the machine's */
    int r;

    memset(s, 0, sizeof(*s));
    r = tn_vm_state_parse_machine_(s, snap);
    if (r >= 0)
        r = tn_vm_arch_state_parse(&s->arch, snap, s->machine.cpus, &n);
    if (r >= 0)
        r = tn_vm_state_parse_virtio_(s, snap, &n);
    if (r == TN_ESTATE || (r >= 0 && n != tn_vm_state_sections_(snap, 0)))
        r = TN_EFORMAT;
    if (r < 0)
        tn_vm_state_close(s);
    return r;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VM_STATE_H */
