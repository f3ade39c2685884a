/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vm_devices - the virtio devices that a machine's description asks for.
 *
 * WHAT
 *   Makes disks, a console, an entropy source, network devices, a socket device and a memory
 *   balloon out of struct tn_vm_cfg: each is a model, a backend, and a place on the machine's bus.
 *
 * USAGE
 *   static struct tn_vm_devices devices;
 *   static struct tn_bus_range range[1];
 *   struct tn_bus mmio;
 *   struct tn_mem_region table[1];
 *   struct tn_mem mem;
 *   struct tn_loop loop;
 *   struct tn_kvm kvm;
 *   struct tn_kvm_vm vm;
 *   struct tn_vm_cfg cfg;
 *   struct tn_vm_place place = {&vm, &mmio, NULL, false, 0xd0000000, 16, 8};
 *
 *   memset(&cfg, 0, sizeof(cfg));
 *   cfg.rng = true;
 *   tn_mem_init(&mem, table, 1);
 *   tn_bus_init(&mmio, range, 1);
 *   if (tn_loop_init(&loop) < 0 || tn_kvm_open(&kvm, NULL) < 0 || tn_kvm_vm_init(&kvm, &vm) < 0)
 *       return 1;
 *   if (tn_vm_devices_init(&devices, &cfg, &mem, &loop, &place) < 0)
 *       return 3;
 *   tn_vm_devices_close(&devices);
 *
 * COMPOSITION
 *   tn_vm holds one; its board says where devices lie, and tells the guest in its tables. Another
 *   kind of device is another row of tn_vm_devices_init.
 *
 * GUEST TRUST
 *   All that a guest says is checked by the models.
 *
 * MEMORY
 *   The caller owns struct tn_vm_devices, which does not move while it is open; the disks are one
 *   allocation.
 *
 * THREADS
 *   Each device has the lock of its place. init and close: on the loop's thread, or while it does
 *   not run, and no vCPU does.
 *
 * CONFIG
 *   TN_VM_DISK_DEPTH: requests of a disk under way at once.
 *
 * LIMITS
 *   Without io_uring a disk's requests are served one after the other on the loop's thread, as are
 *   discards and zeroing on a block device or where the file system has no call for them: a guest
 *   can keep the loop, and every machine on it, as long as its disk takes. A device's reset waits
 *   for the requests under way, on the vCPU's thread. A disk's slots are about 300 KiB of memory.
 */
#ifndef TN_VM_DEVICES_H
#define TN_VM_DEVICES_H

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
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <time.h>

#include "tn_bus.h"
#include "tn_file.h"
#include "tn_file_overlay.h"
#include "tn_kvm.h"
#include "tn_loop.h"
#include "tn_mem.h"
#include "tn_rate.h"
#include "tn_virtio_blk.h"
#include "tn_virtio_console.h"
#include "tn_virtio_rng.h"
#include "tn_vm_balloon.h"
#include "tn_vm_board.h"
#include "tn_vm_net.h"
#include "tn_vm_virtio.h"
#include "tn_vm_vsock.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#ifndef TN_VM_DISK_DEPTH
#define TN_VM_DISK_DEPTH 128u
#endif
#define TN_VM_PLACE_STRIDE 0x1000u /* bytes from one device's window to the next */

/* Where a board puts devices: the first one's window and interrupt. */
struct tn_vm_place {
    struct tn_kvm_vm *vm;
    struct tn_bus *mmio;
    struct tn_hostmem *ram; /* for a balloon: what all of mem lies in */
    bool lazy;              /* a userfaultfd fills it */
    uint64_t gpa;
    uint32_t gsi;
    uint32_t gsis; /* how many there are: the device after the last one shares the first */
};

struct tn_vm_disk {
    struct tn_vm_virtio slot;
    struct tn_virtio_blk blk;
    struct tn_virtio_blk_slot request[TN_VM_DISK_DEPTH];
    struct tn_rate rate;
    struct tn_loop_timer timer;
    bool overlaid; /* overlay is open, else file */
    struct tn_file file;
    struct tn_file_overlay overlay;
    struct tn_loop_source done[2]; /* fn NULL: not watched */
    struct tn_vm_disk_cfg cfg;     /* as it was made; its strings are the disk's own */
};

struct tn_vm_hvc {
    struct tn_vm_virtio slot;
    struct tn_virtio_console model;
    struct tn_vm_console console;
};

struct tn_vm_rng {
    struct tn_vm_virtio slot;
    struct tn_virtio_rng model;
    struct tn_loop_timer timer;
};

struct tn_vm_devices {
    struct tn_loop *loop; /* NULL: closed */
    struct tn_vm_disk *disk;
    uint32_t disks;
    struct tn_vm_hvc *hvc; /* NULL: none, as those below */
    struct tn_vm_rng *rng;
    struct tn_vm_net *net;
    uint32_t nets;
    struct tn_vm_vsock *vsock;
    struct tn_vm_balloon *balloon;
    uint32_t refused;        /* after an error of a disk: its number + 1 */
    uint32_t refused_net;    /* after an error of a network device, likewise; */
    enum tn_tap_phase phase; /* if it is on a TAP: at what */
    bool refused_vhost;      /* because of vhost */
    bool refused_vsock;
    bool packed; /* as in the description */
    bool no_indirect;
    bool no_event_idx;
    int lost; /* enum tn_err of a disk whose last writes failed, in close */
};

/*
 * How many virtio devices cfg asks for. They lie at place.gpa + i * TN_VM_PLACE_STRIDE with the
 * interrupt place.gsi + i % place.gsis.
 */
TN_API uint32_t tn_vm_devices_count(const struct tn_vm_cfg *cfg);

/*
 * Makes and joins them all. Returns 0; TN_EINVAL for more than TN_VM_MAX_DISKS disks or
 * TN_VM_MAX_NETS networks; for a disk (d->refused) the errors of tn_file_init or
 * tn_file_overlay_init, TN_EINVAL for a burst without its rate; for a network (d->refused_net)
 * those of tn_vm_net_init; for the socket device (d->refused_vsock) of tn_vm_vsock_init and
 * tn_vm_vsock_listen; TN_EINVAL for a balloon of another size than tn_vm_balloon_init takes; else
 * those of tn_vm_virtio_init, tn_vm_console_init. All is closed then.
 */
TN_API int tn_vm_devices_init(struct tn_vm_devices *d, const struct tn_vm_cfg *cfg,
                              const struct tn_mem *mem, struct tn_loop *loop,
                              const struct tn_vm_place *place);

/*
 * Brings the devices to rest, so that their state can be saved: the disks' requests under way are
 * answered, no other is begun. On the loop's thread, or while it does not run, and with the vCPUs
 * at rest; until tn_vm_devices_wake, which goes on with what waits, also after a restore.
 */
TN_API void tn_vm_devices_quiesce(struct tn_vm_devices *d);
TN_API void tn_vm_devices_wake(struct tn_vm_devices *d);

/*
 * Makes durable, in its file, all that was written to a disk that is at rest. Returns 0, or the
 * result of TN_DISK_FLUSH.
 */
TN_API int tn_vm_disk_flush(struct tn_vm_disk *disk);

/*
 * Ends all I/O and closes what init opened; d->lost tells of writes that never reached a disk.
 */
TN_API void tn_vm_devices_close(struct tn_vm_devices *d);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#define TN_VM_QUEUE_SIZE   256u       /* descriptors of a disk's queue */
#define TN_VM_DISK_QUEUES  4u         /* one for each vCPU, but not more */
#define TN_VM_RNG_RETRY_NS 100000000u /* between two tries of a source that has nothing */

static inline uint64_t tn_vm_now_(void *ctx)
{
    struct timespec t;

    (void)ctx;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The ring features to offer. */
static inline uint64_t tn_vm_ring_(const struct tn_vm_cfg *cfg)
{
    return (cfg->packed ? TN_VIRTIO_F_RING_PACKED : 0) |
           (cfg->no_indirect ? 0 : TN_VIRTIO_F_INDIRECT_DESC) |
           (cfg->no_event_idx ? 0 : TN_VIRTIO_F_EVENT_IDX);
}

/* ---- disks ---- */

static inline void tn_vm_disk_wake_(void *ctx, uint64_t ns)
{
    (void)tn_loop_timer_arm(&((struct tn_vm_disk *)ctx)->timer, ns, 0);
}

static inline void tn_vm_disk_on_timer_(void *ctx, uint64_t expirations)
{
    struct tn_vm_disk *disk = (struct tn_vm_disk *)ctx;

    (void)expirations;
    pthread_mutex_lock(&disk->slot.lock);
    tn_virtio_blk_wake(&disk->blk);
    pthread_mutex_unlock(&disk->slot.lock);
}

static inline void tn_vm_disk_on_done_(void *ctx, uint32_t events)
{
    struct tn_vm_disk *disk = (struct tn_vm_disk *)ctx;

    (void)events;
    pthread_mutex_lock(&disk->slot.lock);
    tn_virtio_blk_hold(&disk->blk);
    if (disk->overlaid)
        tn_file_overlay_complete(&disk->overlay);
    else
        tn_file_complete(&disk->file);
    tn_virtio_blk_release(&disk->blk);
    pthread_mutex_unlock(&disk->slot.lock);
}

static inline int tn_vm_disk_watch_(struct tn_vm_disk *disk, struct tn_loop *loop, uint32_t i,
                                    int fd)
{
    int r;

    if (fd < 0)
        return TN_OK;
    disk->done[i].fd = fd;
    disk->done[i].events = EPOLLIN;
    disk->done[i].fn = tn_vm_disk_on_done_;
    disk->done[i].ctx = disk;
    r = tn_loop_add(loop, &disk->done[i]);
    if (r < 0)
        disk->done[i].fn = NULL;
    return r;
}

static inline int tn_vm_disk_watch_all_(struct tn_vm_disk *disk, struct tn_loop *loop)
{
    int r = tn_vm_disk_watch_(disk, loop, 0,
                              tn_file_fd(disk->overlaid ? &disk->overlay.base : &disk->file));

    if (r >= 0 && disk->overlaid)
        r = tn_vm_disk_watch_(disk, loop, 1, tn_file_fd(&disk->overlay.over));
    return r;
}

static inline void tn_vm_disk_unwatch_(struct tn_vm_disk *disk, struct tn_loop *loop)
{
    for (uint32_t i = 0; i < 2; i++) {
        if (disk->done[i].fn)
            (void)tn_loop_remove(loop, &disk->done[i]);
        disk->done[i].fn = NULL;
    }
}

/* Keeps cfg with strings of its own. */
static inline int tn_vm_disk_keep_(struct tn_vm_disk *disk, const struct tn_vm_disk_cfg *cfg)
{
    disk->cfg = *cfg;
    disk->cfg.path = strdup(cfg->path);
    disk->cfg.overlay = cfg->overlay ? strdup(cfg->overlay) : NULL;
    disk->cfg.id = strdup(cfg->id ? cfg->id : "");
    return disk->cfg.path && disk->cfg.id && (disk->cfg.overlay || !cfg->overlay) ? TN_OK : TN_ESYS;
}

/* Opens what holds the disk's bytes. */
static inline int tn_vm_disk_open_(struct tn_vm_disk *disk, const struct tn_vm_disk_cfg *cfg)
{
    struct tn_file_overlay_cfg overlay;
    int r;

    memset(&overlay, 0, sizeof(overlay));
    overlay.base.path = cfg->path;
    overlay.base.fd = -1;
    overlay.base.read_only = cfg->read_only || cfg->overlay;
    overlay.base.direct = cfg->direct;
    if (!cfg->overlay)
        return tn_file_init(&disk->file, &overlay.base);
    overlay.overlay = overlay.base;
    overlay.overlay.path = cfg->overlay;
    overlay.overlay.read_only = cfg->read_only;
    overlay.create = !cfg->read_only;
    r = tn_file_overlay_init(&disk->overlay, &overlay);
    disk->overlaid = r >= 0;
    return r;
}

static inline int tn_vm_disk_init_(struct tn_vm_disk *disk, const struct tn_vm_cfg *vm,
                                   const struct tn_vm_disk_cfg *cfg, const struct tn_mem *mem,
                                   struct tn_loop *loop)
{
    struct tn_virtio_blk_cfg blk;
    int r;

    disk->timer.source.fd = disk->file.fd = -1;
    r = tn_vm_disk_keep_(disk, cfg);
    if (r >= 0)
        r = tn_vm_disk_open_(disk, cfg);
    if (r < 0)
        return r;
    memset(&blk, 0, sizeof(blk));
    blk.mem = mem;
    blk.queue_size = TN_VM_QUEUE_SIZE;
    blk.ring_features = tn_vm_ring_(vm);
    blk.disk = disk->overlaid ? &disk->overlay.overlay.disk : &disk->file.disk;
    blk.id = disk->cfg.id;
    blk.queues = vm->cpus > TN_VM_DISK_QUEUES ? TN_VM_DISK_QUEUES : vm->cpus ? vm->cpus : 1;
    blk.slot = disk->request;
    blk.slots = TN_VM_DISK_DEPTH;
    blk.ctx = disk;
    blk.wake = tn_vm_disk_wake_;
    blk.now = tn_vm_now_;
    if (cfg->rate.bytes_per_s || cfg->rate.ops_per_s || cfg->rate.bytes_burst ||
        cfg->rate.ops_burst) {
        r = tn_rate_init(&disk->rate, &cfg->rate, tn_vm_now_(NULL));
        blk.rate = &disk->rate;
    }
    if (r >= 0)
        r = tn_virtio_blk_init(&disk->blk, &blk);
    if (r >= 0)
        r = tn_loop_timer_init(&disk->timer, loop, tn_vm_disk_on_timer_, disk);
    return r < 0 ? r : tn_vm_disk_watch_all_(disk, loop);
}

static inline int tn_vm_disk_close_(struct tn_vm_disk *disk, struct tn_loop *loop)
{
    tn_vm_disk_unwatch_(disk, loop);
    tn_loop_timer_close(&disk->timer);
    tn_vm_virtio_close(&disk->slot);
    free((void *)(uintptr_t)disk->cfg.path);
    free((void *)(uintptr_t)disk->cfg.overlay);
    free((void *)(uintptr_t)disk->cfg.id);
    if (disk->overlaid)
        return tn_file_overlay_close(&disk->overlay);
    tn_file_close(&disk->file);
    return TN_OK;
}

static inline void tn_vm_disk_on_flushed_(struct tn_disk_req *req, int result)
{
    *(int *)req->ctx = result;
}

TN_API int tn_vm_disk_flush(struct tn_vm_disk *disk)
{
    struct tn_disk *to = disk->overlaid ? &disk->overlay.overlay.disk : &disk->file.disk;
    struct tn_disk_req req;
    int result = TN_EBUG;

    memset(&req, 0, sizeof(req));
    req.op = TN_DISK_FLUSH;
    req.done = tn_vm_disk_on_flushed_;
    req.ctx = &result;
    pthread_mutex_lock(&disk->slot.lock);
    to->ops->submit(to->ctx, &req);
    to->ops->kick(to->ctx);
    to->ops->drain(to->ctx);
    pthread_mutex_unlock(&disk->slot.lock);
    return result;
}

/* ---- the console ---- */

static inline void tn_vm_hvc_again_(void *ctx)
{
    tn_vm_console_again(&((struct tn_vm_hvc *)ctx)->console);
}

static inline void tn_vm_hvc_room_(void *ctx)
{
    tn_vm_console_room(&((struct tn_vm_hvc *)ctx)->console);
}

static inline size_t tn_vm_hvc_tx_(void *ctx, const uint8_t *bytes, size_t len)
{
    return tn_vm_console_tx(&((struct tn_vm_hvc *)ctx)->console, bytes, len);
}

static inline size_t tn_vm_hvc_push_(void *model, const uint8_t *bytes, size_t len)
{
    return tn_virtio_console_push((struct tn_virtio_console *)model, bytes, len);
}

static inline size_t tn_vm_hvc_space_(void *model)
{
    return tn_virtio_console_room((struct tn_virtio_console *)model);
}

static inline void tn_vm_hvc_flush_(void *model)
{
    (void)tn_virtio_console_flush((struct tn_virtio_console *)model);
}

static const struct tn_vm_port_ops tn_vm_hvc_port_ = {tn_vm_hvc_push_, tn_vm_hvc_space_,
                                                      tn_vm_hvc_flush_};

static inline int tn_vm_hvc_init_(struct tn_vm_hvc *hvc, const struct tn_vm_cfg *vm,
                                  const struct tn_mem *mem)
{
    struct tn_virtio_console_cfg cfg;

    memset(&cfg, 0, sizeof(cfg));
    cfg.mem = mem;
    cfg.queue_size = TN_VIRTIO_CONSOLE_QUEUE_MAX;
    cfg.ring_features = tn_vm_ring_(vm);
    cfg.ctx = hvc;
    cfg.tx = tn_vm_hvc_tx_;
    cfg.room = tn_vm_hvc_room_;
    cfg.again = tn_vm_hvc_again_;
    cfg.cols = vm->cols;
    cfg.rows = vm->rows;
    return tn_virtio_console_init(&hvc->model, &cfg);
}

/* ---- entropy ---- */

/* Before the host's pool is ready there is nothing: the request waits, and is tried again. */
static inline int64_t tn_vm_rng_fill_(void *ctx, uint8_t *buf, size_t len)
{
    ssize_t n = getrandom(buf, len, GRND_NONBLOCK);

    if (n <= 0)
        (void)tn_loop_timer_arm(&((struct tn_vm_rng *)ctx)->timer, TN_VM_RNG_RETRY_NS, 0);
    return n;
}

static inline void tn_vm_rng_wake_(void *ctx, uint64_t ns)
{
    (void)tn_loop_timer_arm(&((struct tn_vm_rng *)ctx)->timer, ns, 0);
}

static inline void tn_vm_rng_on_timer_(void *ctx, uint64_t expirations)
{
    struct tn_vm_rng *rng = (struct tn_vm_rng *)ctx;

    (void)expirations;
    pthread_mutex_lock(&rng->slot.lock);
    tn_virtio_rng_wake(&rng->model);
    pthread_mutex_unlock(&rng->slot.lock);
}

static inline int tn_vm_rng_init_(struct tn_vm_rng *rng, const struct tn_vm_cfg *vm,
                                  const struct tn_mem *mem, struct tn_loop *loop)
{
    struct tn_virtio_rng_cfg cfg;
    int r;

    rng->timer.source.fd = -1;
    memset(&cfg, 0, sizeof(cfg));
    cfg.mem = mem;
    cfg.queue_size = TN_VIRTIO_RNG_QUEUE_MAX;
    cfg.ring_features = tn_vm_ring_(vm);
    cfg.ctx = rng;
    cfg.fill = tn_vm_rng_fill_;
    cfg.wake = tn_vm_rng_wake_;
    r = tn_virtio_rng_init(&rng->model, &cfg);
    return r < 0 ? r : tn_loop_timer_init(&rng->timer, loop, tn_vm_rng_on_timer_, rng);
}

/* ---- all of them ---- */

TN_API uint32_t tn_vm_devices_count(const struct tn_vm_cfg *cfg)
{
    return cfg->disks + cfg->virtio_console + cfg->rng + cfg->nets + (cfg->vsock.cid != 0) +
           cfg->balloon;
}

/* Puts the device number *i into its place. */
static inline int tn_vm_devices_place_(struct tn_vm_virtio *slot, struct tn_virtio *v,
                                       struct tn_loop *loop, const struct tn_vm_place *place,
                                       uint32_t *i)
{
    uint64_t gpa = place->gpa + (uint64_t)*i * TN_VM_PLACE_STRIDE;
    uint32_t gsi = place->gsi + *i % place->gsis;

    (*i)++;
    return tn_vm_virtio_init(slot, v, place->vm, loop, place->mmio, gpa, gsi);
}

/* Those that talk to the world outside. */
static inline int tn_vm_devices_net_(struct tn_vm_devices *d, const struct tn_vm_cfg *cfg,
                                     const struct tn_mem *mem, struct tn_loop *loop,
                                     const struct tn_vm_place *place, uint32_t *at)
{
    int r = TN_OK;

    if (cfg->nets > TN_VM_MAX_NETS)
        return TN_EINVAL;
    if (cfg->nets > 0) {
        d->net = (struct tn_vm_net *)calloc(cfg->nets, sizeof(*d->net));
        if (!d->net)
            return TN_ESYS;
    }
    for (uint32_t i = 0; r >= 0 && i < cfg->nets; i++) {
        struct tn_vm_net *net = &d->net[i];

        d->nets = i + 1;
        r = tn_vm_net_init(net, &cfg->net[i], tn_vm_ring_(cfg), mem, loop);
        if (r >= 0)
            r = tn_vm_devices_place_(&net->slot, &net->model.virtio, loop, place, at);
        if (r < 0) {
            d->refused_net = i + 1;
            d->phase = cfg->net[i].kind <= TN_VM_NET_MACVTAP ? net->back.tap.phase : TN_TAP_DONE;
            d->refused_vhost = net->no_vhost;
        }
    }
    if (r >= 0 && cfg->vsock.cid != 0) {
        d->vsock = (struct tn_vm_vsock *)calloc(1, sizeof(*d->vsock));
        r = d->vsock ? tn_vm_vsock_init(d->vsock, &cfg->vsock, tn_vm_ring_(cfg), mem) : TN_ESYS;
        if (r >= 0)
            r = tn_vm_devices_place_(&d->vsock->slot, tn_vm_vsock_virtio(d->vsock), loop, place,
                                     at);
        if (r >= 0)
            r = tn_vm_vsock_listen(d->vsock, loop);
        d->refused_vsock = r < 0;
    }
    return r;
}

static inline int tn_vm_devices_make_(struct tn_vm_devices *d, const struct tn_vm_cfg *cfg,
                                      const struct tn_mem *mem, struct tn_loop *loop,
                                      const struct tn_vm_place *place)
{
    uint32_t at = 0;
    int r = TN_OK;

    d->packed = cfg->packed;
    d->no_indirect = cfg->no_indirect;
    d->no_event_idx = cfg->no_event_idx;
    if (cfg->disks > TN_VM_MAX_DISKS)
        return TN_EINVAL;
    if (cfg->disks > 0) {
        d->disk = (struct tn_vm_disk *)calloc(cfg->disks, sizeof(*d->disk));
        if (!d->disk)
            return TN_ESYS;
    }
    for (uint32_t i = 0; i < cfg->disks; i++) {
        struct tn_vm_disk *disk = &d->disk[i];

        d->disks = i + 1;
        r = tn_vm_disk_init_(disk, cfg, &cfg->disk[i], mem, loop);
        if (r >= 0)
            r = tn_vm_devices_place_(&disk->slot, &disk->blk.virtio, loop, place, &at);
        if (r < 0) {
            d->refused = i + 1;
            return r;
        }
    }
    if (cfg->virtio_console) {
        d->hvc = (struct tn_vm_hvc *)calloc(1, sizeof(*d->hvc));
        r = d->hvc ? tn_vm_hvc_init_(d->hvc, cfg, mem) : TN_ESYS;
        if (r >= 0)
            r = tn_vm_devices_place_(&d->hvc->slot, &d->hvc->model.virtio, loop, place, &at);
        if (r >= 0)
            r = tn_vm_console_init(&d->hvc->console, &tn_vm_hvc_port_, &d->hvc->model,
                                   &d->hvc->slot.lock, loop, cfg->virtio_in, cfg->virtio_out);
    }
    if (r >= 0 && cfg->rng) {
        d->rng = (struct tn_vm_rng *)calloc(1, sizeof(*d->rng));
        r = d->rng ? tn_vm_rng_init_(d->rng, cfg, mem, loop) : TN_ESYS;
        if (r >= 0)
            r = tn_vm_devices_place_(&d->rng->slot, &d->rng->model.virtio, loop, place, &at);
    }
    if (r >= 0)
        r = tn_vm_devices_net_(d, cfg, mem, loop, place, &at);
    if (r >= 0 && cfg->balloon) {
        if (!place->ram)
            return TN_EINVAL;
        d->balloon = (struct tn_vm_balloon *)calloc(1, sizeof(*d->balloon));
        r = d->balloon ? tn_vm_balloon_init(d->balloon, cfg->balloon_size, tn_vm_ring_(cfg), mem,
                                            place->ram, loop)
                       : TN_ESYS;
        if (r >= 0) {
            d->balloon->lazy = place->lazy;
            r = tn_vm_devices_place_(&d->balloon->slot, &d->balloon->model.virtio, loop, place,
                                     &at);
        }
    }
    return r;
}

TN_API int tn_vm_devices_init(struct tn_vm_devices *d, const struct tn_vm_cfg *cfg,
                              const struct tn_mem *mem, struct tn_loop *loop,
                              const struct tn_vm_place *place)
{
    int r, saved;

    memset(d, 0, sizeof(*d));
    d->loop = loop;
    r = tn_vm_devices_make_(d, cfg, mem, loop, place);
    if (r < 0) {
        saved = errno;
        tn_vm_devices_close(d);
        errno = saved;
    }
    return r;
}

TN_API void tn_vm_devices_quiesce(struct tn_vm_devices *d)
{
    for (uint32_t i = 0; i < d->disks; i++) {
        pthread_mutex_lock(&d->disk[i].slot.lock);
        tn_virtio_blk_quiesce(&d->disk[i].blk);
        pthread_mutex_unlock(&d->disk[i].slot.lock);
    }
    for (uint32_t i = 0; i < d->nets; i++)
        tn_vm_net_quiesce(&d->net[i]);
    if (d->vsock)
        tn_vm_vsock_quiesce(d->vsock);
}

TN_API void tn_vm_devices_wake(struct tn_vm_devices *d)
{
    for (uint32_t i = 0; i < d->disks; i++) {
        pthread_mutex_lock(&d->disk[i].slot.lock);
        tn_virtio_blk_wake(&d->disk[i].blk);
        pthread_mutex_unlock(&d->disk[i].slot.lock);
    }
    if (d->hvc) {
        pthread_mutex_lock(&d->hvc->slot.lock);
        (void)tn_virtio_console_flush(&d->hvc->model);
        pthread_mutex_unlock(&d->hvc->slot.lock);
    }
    if (d->rng) {
        pthread_mutex_lock(&d->rng->slot.lock);
        tn_virtio_rng_wake(&d->rng->model);
        pthread_mutex_unlock(&d->rng->slot.lock);
    }
    for (uint32_t i = 0; i < d->nets; i++)
        tn_vm_net_wake(&d->net[i]);
    if (d->vsock)
        tn_vm_vsock_wake(d->vsock);
    if (d->balloon)
        tn_vm_balloon_wake(d->balloon);
}

TN_API void tn_vm_devices_close(struct tn_vm_devices *d)
{
    if (!d->loop)
        return;
    for (uint32_t i = 0; i < d->disks; i++) {
        int r = tn_vm_disk_close_(&d->disk[i], d->loop);

        if (r < 0)
            d->lost = r;
    }
    free(d->disk);
    d->disk = NULL;
    d->disks = 0;
    if (d->hvc) {
        tn_vm_console_close(&d->hvc->console);
        tn_vm_virtio_close(&d->hvc->slot);
        free(d->hvc);
        d->hvc = NULL;
    }
    if (d->rng) {
        tn_loop_timer_close(&d->rng->timer);
        tn_vm_virtio_close(&d->rng->slot);
        free(d->rng);
        d->rng = NULL;
    }
    for (uint32_t i = 0; i < d->nets; i++)
        tn_vm_net_close(&d->net[i]);
    free(d->net);
    d->net = NULL;
    d->nets = 0;
    if (d->vsock) {
        tn_vm_vsock_close(d->vsock);
        free(d->vsock);
        d->vsock = NULL;
    }
    if (d->balloon) {
        tn_vm_balloon_close(d->balloon);
        free(d->balloon);
        d->balloon = NULL;
    }
    d->loop = NULL;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VM_DEVICES_H */
