/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vm_fork - machines made from an image: restored, forked by the thousand, put back in place.
 *
 * WHAT
 *   tn_vm_restore makes the machine go on that was saved; tn_vm_fork makes one more, with an
 *   identity of its own. What makes them cheap is that their memory is a copy-on-write view of the
 *   image's. tn_vm_prepare makes what does not depend on the clone ahead of time: a pool is an
 *   array of machines that were prepared. tn_vm_reset puts a clone back to where it began.
 *
 *     image ----> prepare ----> adopt ----> start        a pool, warm
 *           ----------- fork -----------> start          cold
 *                                   ^-- reset <-- pause, or the end
 *
 * USAGE
 *   struct tn_kvm kvm;
 *   struct tn_loop loop;
 *   struct tn_vm_image image;
 *   static struct tn_vm clone[2];
 *   struct tn_vm_image_cfg open;
 *   struct tn_vm_clone_cfg cfg;
 *
 *   memset(&open, 0, sizeof(open));
 *   memset(&cfg, 0, sizeof(cfg));
 *   open.dir = "/var/lib/vm/golden";
 *   cfg.console_in = -1;
 *   cfg.console_out = 1;
 *   if (tn_kvm_open(&kvm, NULL) < 0 || tn_loop_init(&loop) < 0)
 *       return 1;
 *   if (tn_vm_image_open(&image, &kvm, &open) < 0)
 *       return 2;
 *   for (int i = 0; i < 2; i++) {
 *       if (tn_vm_fork(&clone[i], &kvm, &loop, &image, &cfg) < 0 || tn_vm_start(&clone[i]) < 0)
 *           return 3;
 *   }
 *   while (tn_vm_wait(&clone[0], 0) == TN_EAGAIN)
 *       tn_loop_step(&loop, 100);
 *   tn_vm_close(&clone[0]);
 *   tn_vm_close(&clone[1]);
 *   tn_vm_image_close(&image);
 *
 * COMPOSITION
 *   Glue over tn_vm_image, tn_vm_state and tn_uffd. To fork a machine that runs: tn_vm_pause,
 *   tn_vm_image_take, tn_vm_resume; the image's clones have what was there at that moment, and
 *   nobody sees what another one writes.
 *
 * GUEST TRUST
 *   A state that a device or KVM refuses is an error before anything runs. What makes clones
 *   dangerous is what they share: each gets a new generation id, on whose notification a guest's
 *   kernel mixes up its entropy; a disk that may be written must be the clone's own.
 *
 * MEMORY
 *   As in tn_vm. A clone has 4 KiB for each page that it writes.
 *
 * THREADS
 *   As tn_vm_init. Several threads may make clones of one image, each on a loop of its own.
 *   struct tn_vm_reaper has threads that close what takes the kernel milliseconds to close.
 *
 * CONFIG
 *   TN_VM_REAPER_THREADS: threads of a reaper. The kernel waits for grace periods while it closes a
 *   VM, and those that wait at the same time share them.
 *
 * LIMITS
 *   Time: a clone's clocks go on as if it had run since the save, so that its wall clock is right;
 *   with cfg.stopped they go on from the save. Lazy memory needs what tn_uffd needs.
 */
#ifndef TN_VM_FORK_H
#define TN_VM_FORK_H

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
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tn_hostmem.h"
#include "tn_kvm.h"
#include "tn_uffd.h"
#include "tn_vm.h"
#include "tn_vm_image.h"
#include "tn_vm_records.h"
#include "tn_vm_state.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

/* Where a clone's memory comes from. */
enum tn_vm_memory {
    TN_VM_MEMORY_MAP = 0, /* a copy-on-write view of the image's file */
    TN_VM_MEMORY_LAZY,    /* each chunk is read, and checked, when it is touched first */
    TN_VM_MEMORY_COPY     /* all of it is read now; the image's files are not needed any more */
};

/* What a clone has of its own. */
struct tn_vm_clone_cfg {
    int console_in; /* the serial console's, if the image has one: as in struct tn_vm_cfg */
    int console_out;
    int virtio_in; /* hvc0's */
    int virtio_out;
    uint16_t cols; /* of hvc0's terminal; 0: as it was saved */
    uint16_t rows;
    /*
     * A row for each disk of the image; NULL: files where the image says, and only if no disk may
     * be written. For a disk with an overlay, overlay is a file that is not there yet: it is made,
     * with what was written before the save. path NULL: as the image says; read_only, direct, id
     * and rate are always the image's.
     */
    const struct tn_vm_disk_cfg *disk;
    uint32_t disks;
    /*
     * A row for each network device of the image: kind, vhost, name and fd of this clone's own,
     * which are as in struct tn_vm_net_cfg.
     * NULL: the one that the image names, and only for the machine that goes on (tn_vm_restore).
     * The rest of a row is the image's: its guest knows it.
     */
    const struct tn_vm_net_cfg *net;
    uint32_t nets;
    /*
     * If the image has a socket device: where this clone's is, path or vhost; neither: as the image
     * says. cid 0: the image's. Only tn_vm_restore takes the image's path, or with vhost its CID.
     * conns is always the image's.
     */
    struct tn_vm_vsock_cfg vsock;
    uint32_t memory;  /* enum tn_vm_memory */
    int signal;       /* as in struct tn_vm_cfg */
    bool track_dirty; /* likewise */
    bool stopped;     /* the clocks stood still since the save */
};

/*
 * Makes the machine go on that was saved; there is to be no other. Its generation id is the saved
 * one, and a disk without an overlay is the very file. *vm is CREATED then. Returns 0, or an error
 * that leaves nothing behind:
 *   TN_EINVAL   the image was opened without kvm; rows for other disks than it has
 *   TN_EEXIST   an overlay's file is there already; a disk is in use
 *   TN_ESTATE   a row for a disk that may be written is missing, or has no overlay
 *   TN_ETRUNC   a file of the image has become shorter
 *   TN_ESYS     the host refuses memory, a VM, a vCPU, a descriptor; or KVM a value (vm->refused)
 *   and those of tn_vm_state_restore, and of the disks (vm->devices.refused) as in tn_vm_init.
 */
TN_API int tn_vm_restore(struct tn_vm *vm, struct tn_kvm *kvm, struct tn_loop *loop,
                         const struct tn_vm_image *image, const struct tn_vm_clone_cfg *cfg);

/*
 * Makes one more machine: with a new generation id, of which its guest is notified. Also
 *   TN_ESTATE   a disk may be written and has no overlay: clones cannot share it; a network, or
 *               the sockets' path, or with vhost their CID, was not given
 *   TN_EUNSUP   the guest was never told where its generation id is
 */
TN_API int tn_vm_fork(struct tn_vm *vm, struct tn_kvm *kvm, struct tn_loop *loop,
                      const struct tn_vm_image *image, const struct tn_vm_clone_cfg *cfg);

/*
 * The two halves of tn_vm_fork. prepare makes VM, memory, interrupt chips, vCPUs and their threads,
 * which wait. adopt gives one that was prepared, and nothing else yet, its devices, its identity
 * and the time. After an error of adopt it is closed. TN_EINVAL for other memory than
 * TN_VM_MEMORY_MAP, and for track_dirty. cfg.signal is the default.
 */
TN_API int tn_vm_prepare(struct tn_vm *vm, struct tn_kvm *kvm, struct tn_loop *loop,
                         const struct tn_vm_image *image);
TN_API int tn_vm_adopt(struct tn_vm *vm, const struct tn_vm_clone_cfg *cfg);

/*
 * Puts a clone that is paused, has ended, or has not started yet, back to where its image was, with
 * yet another generation id; it is CREATED then, and to be started. Its overlays are made anew; the
 * consoles go on. On the loop's thread, or while it does not run. Returns 0; TN_ESTATE: it is no
 * clone, it runs, or its memory is no view (TN_VM_MEMORY_MAP); the errors of tn_vm_state_restore,
 * after which it does not start: it can be reset again, or closed.
 */
TN_API int tn_vm_reset(struct tn_vm *vm);

#ifndef TN_VM_REAPER_THREADS
#define TN_VM_REAPER_THREADS 8 /* 1 or more */
#endif

/* Threads that close what the kernel takes long to close. */
struct tn_vm_reaper {
    pthread_t thread[TN_VM_REAPER_THREADS];
    uint32_t threads;           /* that there are; 0: closed */
    pthread_mutex_t queue_lock; /* guards what follows */
    pthread_cond_t queue_cond;
    struct tn_vm_rest *first;
    bool stop;
};

/*
 * Starts the threads. Returns 0 also when the host refuses some of them, but not all: TN_ESYS, and
 * *reaper is closed.
 */
TN_API int tn_vm_reaper_init(struct tn_vm_reaper *reaper);

/*
 * tn_vm_close, but for KVM's objects and the memory, which the reaper closes soon.
 */
TN_API void tn_vm_close_to(struct tn_vm *vm, struct tn_vm_reaper *reaper);

/*
 * Closes all that it was given, and ends.
 */
TN_API void tn_vm_reaper_close(struct tn_vm_reaper *reaper);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* ---- memory ---- */

/* Brings the pages of the layers above the lowest, of which ram is a view. */
static inline int tn_vm_clone_pages_(struct tn_vm *vm, const struct tn_vm_image *image)
{
    int r = TN_OK;

    for (uint32_t i = 1; r >= 0 && i < image->layers; i++)
        r = tn_vm_layer_read_(&image->layer[i], 0, vm->ram.ptr, vm->ram.size);
    return r;
}

/* What fills a clone's memory; tn_vm_close frees it by its first member. */
struct tn_vm_lazy_ {
    struct tn_uffd uffd;
    struct tn_vm *vm;
    const struct tn_vm_image *image;
    struct tn_sha256 sha;
};

static inline int tn_vm_lazy_fetch_(void *ctx, uint64_t off, uint8_t *buf, size_t len)
{
    const struct tn_vm_lazy_ *lazy = (const struct tn_vm_lazy_ *)ctx;
    const struct tn_vm_image *image = lazy->image;
    struct tn_sha256 sha = lazy->sha;
    uint8_t digest[TN_SHA256_LEN];
    int r = tn_vm_image_read(image, off, buf, len);

    if (r < 0 || !image->memory.digests)
        return r;
    tn_vm_digest_(&sha, buf, len, digest);
    return tn_sha256_equal(digest, image->memory.digests + off / TN_VM_IMAGE_CHUNK * TN_SHA256_LEN)
               ? TN_OK
               : TN_EPROTO;
}

/* The machine ends before anybody sees the zeroes that stand for what could not be had. */
static inline void tn_vm_lazy_failed_(void *ctx, uint64_t off, int err)
{
    struct tn_vm_end end;

    memset(&end, 0, sizeof(end));
    end.reason = TN_VM_ERROR;
    end.err = err;
    end.sys_errno = errno;
    end.detail[0] = off;
    tn_vm_finish_(((struct tn_vm_lazy_ *)ctx)->vm, &end);
}

static inline int tn_vm_clone_lazy_(struct tn_vm *vm, const struct tn_vm_image *image)
{
    struct tn_vm_lazy_ *lazy;
    struct tn_uffd_cfg cfg;
    int r;

    lazy = (struct tn_vm_lazy_ *)calloc(1, sizeof(*lazy));
    if (!lazy)
        return TN_ESYS;
    lazy->vm = vm;
    lazy->image = image;
    tn_sha256_init(&lazy->sha);
    memset(&cfg, 0, sizeof(cfg));
    cfg.ptr = vm->ram.ptr;
    cfg.size = vm->ram.size;
    cfg.chunk = TN_VM_IMAGE_CHUNK;
    cfg.ctx = lazy;
    cfg.fetch = tn_vm_lazy_fetch_;
    cfg.failed = tn_vm_lazy_failed_;
    r = tn_uffd_init(&lazy->uffd, &cfg);
    if (r >= 0)
        vm->lazy = &lazy->uffd;
    else
        free(lazy);
    return r;
}

static inline int tn_vm_clone_memory_(struct tn_vm *vm, const struct tn_vm_image *image,
                                      uint32_t how)
{
    uint64_t size = image->state.machine.memory;
    struct tn_vm_golden *golden = image->layer[0].file;
    struct tn_hostmem_cfg cfg;
    int r;

    if (how == TN_VM_MEMORY_MAP) {
        r = tn_hostmem_map(&vm->ram, golden->fd, 0, size, TN_HOSTMEM_PRIVATE);
        if (r >= 0)
            vm->golden = tn_vm_golden_get_(golden);
        return r < 0 ? r : tn_vm_clone_pages_(vm, image);
    }
    if (how != TN_VM_MEMORY_LAZY && how != TN_VM_MEMORY_COPY)
        return TN_EINVAL;
    memset(&cfg, 0, sizeof(cfg));
    cfg.size = size;
    cfg.anon = true;
    r = tn_hostmem_init(&vm->ram, &cfg);
    if (r < 0)
        return r;
    return how == TN_VM_MEMORY_LAZY ? tn_vm_clone_lazy_(vm, image)
                                    : tn_vm_image_read(image, 0, vm->ram.ptr, size);
}

/* ---- identity ---- */

/* Whether the clone's sockets are the kernel's. */
static inline bool tn_vm_clone_vhost_(const struct tn_vm_image *image,
                                      const struct tn_vm_clone_cfg *cfg)
{
    return cfg->vsock.vhost || (!cfg->vsock.path && image->state.vsock->record.vhost);
}

/* Whether the clone has all that it must not share. */
static inline int tn_vm_clone_check_(const struct tn_vm_image *image,
                                     const struct tn_vm_clone_cfg *cfg, bool more)
{
    const struct tn_vm_state *s = &image->state;

    if ((cfg->disk && cfg->disks != s->disks) || (cfg->net && cfg->nets != s->nets))
        return TN_EINVAL;
    if (more &&
        ((s->nets > 0 && !cfg->net) ||
         (s->vsock && (tn_vm_clone_vhost_(image, cfg) ? !cfg->vsock.cid : !cfg->vsock.path))))
        return TN_ESTATE;
    if (more && s->machine.genid_gpa == 0)
        return TN_EUNSUP;
    for (uint32_t i = 0; i < s->disks; i++) {
        const struct tn_vm_disk_record *disk = &s->disk[i].record;

        if (disk->read_only)
            continue;
        if (disk->overlaid ? !cfg->disk || !cfg->disk[i].overlay : more)
            return TN_ESTATE;
    }
    return TN_OK;
}

/* Makes an overlay with what the image's has; path is not there. */
static inline int tn_vm_clone_overlay_(const char *path, int from)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int r = fstat(from, &st) < 0 ? TN_ESYS : TN_OK, saved;

    if (fd < 0)
        return errno == EEXIST ? TN_EEXIST : TN_ESYS;
    if (r >= 0)
        r = tn_vm_copy_(from, fd, (uint64_t)st.st_size);
    saved = errno;
    close(fd);
    if (r < 0)
        unlink(path);
    errno = saved;
    return r;
}

/* The disks' description; the overlays are made. *made: how many disks are done. */
static inline int tn_vm_clone_disks_(struct tn_vm_disk_cfg disk[TN_VM_MAX_DISKS],
                                     const struct tn_vm_image *image,
                                     const struct tn_vm_clone_cfg *cfg, uint32_t *made)
{
    int r = TN_OK;

    memset(disk, 0, TN_VM_MAX_DISKS * sizeof(*disk));
    for (uint32_t i = 0; r >= 0 && i < image->state.disks; i++) {
        const struct tn_vm_disk_record *from = &image->state.disk[i].record;

        disk[i].path = cfg->disk && cfg->disk[i].path ? cfg->disk[i].path : from->path;
        disk[i].id = from->id;
        disk[i].read_only = from->read_only;
        disk[i].direct = from->direct;
        disk[i].rate = from->rate;
        if (from->overlaid) {
            disk[i].overlay = cfg->disk ? cfg->disk[i].overlay : from->overlay;
            if (!from->read_only)
                r = tn_vm_clone_overlay_(disk[i].overlay, image->overlay[i]);
        }
        *made = r < 0 ? i : i + 1;
    }
    return r;
}

/* Removes the overlays that were made for the first n disks. errno is kept. */
static inline void tn_vm_clone_unlink_(const struct tn_vm_image *image,
                                       const struct tn_vm_clone_cfg *cfg, uint32_t n)
{
    int saved = errno;

    for (uint32_t i = 0; i < n; i++) {
        if (image->state.disk[i].record.overlaid && !image->state.disk[i].record.read_only)
            (void)unlink(cfg->disk[i].overlay);
    }
    errno = saved;
}

/* The networks' description. */
static inline void tn_vm_clone_nets_(struct tn_vm_net_cfg net[TN_VM_MAX_NETS],
                                     const struct tn_vm_image *image,
                                     const struct tn_vm_clone_cfg *cfg)
{
    memset(net, 0, TN_VM_MAX_NETS * sizeof(*net));
    for (uint32_t i = 0; i < image->state.nets; i++) {
        const struct tn_vm_net_record *from = &image->state.net[i].record;

        net[i].kind = cfg->net ? cfg->net[i].kind : from->kind;
        net[i].vhost = cfg->net ? cfg->net[i].vhost : from->vhost;
        net[i].name = cfg->net ? cfg->net[i].name : from->name;
        net[i].fd = cfg->net ? cfg->net[i].fd : -1;
        net[i].pairs = from->pairs;
        memcpy(net[i].mac, from->mac, sizeof(net[i].mac));
        net[i].mtu = from->mtu;
        net[i].hide = from->hide;
        net[i].tx_rate = from->tx_rate;
        net[i].rx_rate = from->rx_rate;
    }
}

/* Devices for the clone, with its own disks, networks and consoles. */
static inline int tn_vm_clone_devices_(struct tn_vm *vm, const struct tn_vm_image *image,
                                       const struct tn_vm_clone_cfg *from)
{
    const struct tn_vm_machine_record *m = &image->state.machine;
    const struct tn_vm_vsock_saved *vsock = image->state.vsock;
    struct tn_vm_disk_cfg disk[TN_VM_MAX_DISKS];
    struct tn_vm_net_cfg net[TN_VM_MAX_NETS];
    struct tn_vm_cfg cfg;
    uint32_t made = 0;
    int r = tn_vm_clone_disks_(disk, image, from, &made);

    memset(&cfg, 0, sizeof(cfg));
    cfg.memory = m->memory;
    cfg.cpus = m->cpus;
    cfg.console = m->flags & TN_VM_MACHINE_CONSOLE;
    cfg.console_in = from->console_in;
    cfg.console_out = from->console_out;
    cfg.virtio_console = m->flags & TN_VM_MACHINE_VIRTIO_CONSOLE;
    cfg.virtio_in = from->virtio_in;
    cfg.virtio_out = from->virtio_out;
    cfg.cols = image->state.hvc.cols;
    cfg.rows = image->state.hvc.rows;
    cfg.rng = m->flags & TN_VM_MACHINE_RNG;
    cfg.packed = m->flags & TN_VM_MACHINE_PACKED;
    cfg.no_indirect = m->flags & TN_VM_MACHINE_NO_INDIRECT;
    cfg.no_event_idx = m->flags & TN_VM_MACHINE_NO_EVENT_IDX;
    cfg.disk = disk;
    cfg.disks = image->state.disks;
    tn_vm_clone_nets_(net, image, from);
    cfg.net = net;
    cfg.nets = image->state.nets;
    if (vsock) {
        cfg.vsock.cid = from->vsock.cid ? from->vsock.cid : vsock->record.cid;
        cfg.vsock.vhost = tn_vm_clone_vhost_(image, from);
        cfg.vsock.path =
            from->vsock.path || cfg.vsock.vhost ? from->vsock.path : vsock->record.path;
        cfg.vsock.conns = vsock->record.conns;
    }
    cfg.balloon = image->state.balloon != NULL;
    cfg.balloon_size = cfg.balloon ? image->state.balloon->record.size : 0;
    if (r < 0)
        vm->devices.refused = made + 1;
    else
        r = tn_vm_devices_(vm, &cfg, vm->loop);
    if (r < 0)
        tn_vm_clone_unlink_(image, from, made);
    return r;
}

/* ---- making clones ---- */

/* Its first diff is of the image. */
static inline int tn_vm_clone_base_(struct tn_vm *vm, const struct tn_vm_image *image)
{
    uint64_t chunks = tn_snap_chunks(&image->memory);
    struct tn_vm_base *base =
        tn_vm_base_init_((vm->ram.size / TN_VM_IMAGE_PAGE / 64 + 1) * sizeof(uint64_t));

    vm->base = base;
    if (!base)
        return TN_ESYS;
    base->dir = strdup(image->dir);
    base->digests = (uint8_t *)malloc(chunks * TN_SHA256_LEN);
    if (!base->dir || !base->digests)
        return TN_ESYS;
    memcpy(base->id, image->id, sizeof(base->id));
    memcpy(base->digests, image->memory.digests, chunks * TN_SHA256_LEN);
    return TN_OK;
}

/* All that is the same for all clones of an image. */
static inline int tn_vm_clone_begin_(struct tn_vm *vm, struct tn_kvm *kvm, struct tn_loop *loop,
                                     const struct tn_vm_image *image,
                                     const struct tn_vm_clone_cfg *cfg)
{
    const struct tn_vm_state *s = &image->state;
    int r = tn_vm_open_(vm, kvm, loop, cfg->signal);

    vm->from = s;
    vm->image = image;
    if (r >= 0 && (!tn_vm_arch_state_known(&s->arch) ||
                   s->machine.cpus > (uint32_t)tn_kvm_cap(kvm, KVM_CAP_MAX_VCPUS)))
        r = TN_EINVAL;
    if (r >= 0)
        r = tn_vm_clone_memory_(vm, image, cfg->memory);
    if (r >= 0)
        r = tn_vm_ram_(vm, cfg->track_dirty);
    if (r >= 0)
        r = tn_vm_kvm_(vm, s->machine.cpus);
    for (uint32_t i = 0; r >= 0 && i < vm->cpus; i++)
        r = tn_vm_arch_state_vcpu(&vm->board, &s->arch, &vm->cpu[i].vcpu);
    return r;
}

/* Goes on with what the devices have to do; also with what a transmitter holds, and input. */
static inline void tn_vm_clone_wake_(struct tn_vm *vm)
{
    struct tn_vm_hvc *hvc = vm->devices.hvc;

    tn_vm_devices_wake(&vm->devices);
    if (vm->board.console.loop) {
        pthread_mutex_lock(&vm->board.device_lock);
        tn_vm_console_again(&vm->board.console);
        pthread_mutex_unlock(&vm->board.device_lock);
    }
    if (hvc) {
        pthread_mutex_lock(&hvc->slot.lock);
        tn_vm_console_again(&hvc->console);
        pthread_mutex_unlock(&hvc->slot.lock);
    }
}

/* The rest. more: it is one more machine, not the one that was saved. */
static inline int tn_vm_clone_end_(struct tn_vm *vm, const struct tn_vm_clone_cfg *cfg, bool more)
{
    int r = tn_vm_clone_devices_(vm, vm->image, cfg);

    if (r < 0)
        return r;
    vm->stopped_clock = cfg->stopped;
    r = tn_vm_state_restore(vm, vm->from, cfg->stopped);
    if (r >= 0 && more)
        r = tn_vm_arch_new_id(&vm->board, &vm->mem);
    if (r < 0) {
        tn_vm_clone_unlink_(vm->image, cfg, vm->from->disks);
        return r;
    }
    tn_vm_clone_wake_(vm);
    if (cfg->cols || cfg->rows)
        tn_vm_resize(vm, cfg->cols, cfg->rows);
    return TN_OK;
}

static inline int tn_vm_clone_(struct tn_vm *vm, struct tn_kvm *kvm, struct tn_loop *loop,
                               const struct tn_vm_image *image, const struct tn_vm_clone_cfg *cfg,
                               bool more)
{
    int r = tn_vm_clone_check_(image, cfg, more);

    if (r < 0) {
        memset(vm, 0, sizeof(*vm));
        return r;
    }
    r = tn_vm_clone_begin_(vm, kvm, loop, image, cfg);
    if (r >= 0 && cfg->track_dirty && image->dir)
        r = tn_vm_clone_base_(vm, image);
    if (r >= 0)
        r = tn_vm_clone_end_(vm, cfg, more);
    return r < 0 ? tn_vm_undo_(vm, r) : TN_OK;
}

TN_API int tn_vm_restore(struct tn_vm *vm, struct tn_kvm *kvm, struct tn_loop *loop,
                         const struct tn_vm_image *image, const struct tn_vm_clone_cfg *cfg)
{
    return tn_vm_clone_(vm, kvm, loop, image, cfg, false);
}

TN_API int tn_vm_fork(struct tn_vm *vm, struct tn_kvm *kvm, struct tn_loop *loop,
                      const struct tn_vm_image *image, const struct tn_vm_clone_cfg *cfg)
{
    return tn_vm_clone_(vm, kvm, loop, image, cfg, true);
}

/*
 * All that a vCPU's first run has the kernel make, at a cost that is not the clone's then: it ends
 * at once, in its reset state, which has no code. The others of a machine wait for a start-up IPI.
 */
static inline void tn_vm_clone_warm_(struct tn_vm *vm)
{
    struct tn_kvm_exit e;

    (void)tn_kvm_run(&vm->cpu[0].vcpu, &e);
}

TN_API int tn_vm_prepare(struct tn_vm *vm, struct tn_kvm *kvm, struct tn_loop *loop,
                         const struct tn_vm_image *image)
{
    struct tn_vm_clone_cfg cfg;
    int r;

    memset(&cfg, 0, sizeof(cfg));
    r = tn_vm_clone_begin_(vm, kvm, loop, image, &cfg);
    if (r >= 0)
        tn_vm_clone_warm_(vm);
    if (r >= 0)
        r = tn_vm_arch_state_warm(&vm->from->arch, vm->cpu, &vm->refused);
    vm->vcpu_flags = TN_VM_ARCH_TIMED;
    if (r >= 0) {
        pthread_mutex_lock(&vm->state_lock);
        errno = tn_vm_threads_(vm);
        r = errno ? TN_ESYS : TN_OK;
        pthread_mutex_unlock(&vm->state_lock);
    }
    return r < 0 ? tn_vm_undo_(vm, r) : TN_OK;
}

TN_API int tn_vm_adopt(struct tn_vm *vm, const struct tn_vm_clone_cfg *cfg)
{
    int r;

    if (!vm->open || !vm->image || vm->state != TN_VM_CREATED || vm->restored)
        return TN_ESTATE;
    r = tn_vm_clone_check_(vm->image, cfg, true);
    if (r >= 0 && (cfg->memory != TN_VM_MEMORY_MAP || cfg->track_dirty))
        r = TN_EINVAL;
    if (r >= 0)
        r = tn_vm_clone_end_(vm, cfg, true);
    return r < 0 ? tn_vm_undo_(vm, r) : TN_OK;
}

/* ---- back to the beginning ---- */

/* A disk's overlay as the image has it; the model keeps its backend's place. */
static inline int tn_vm_reset_disk_(struct tn_vm *vm, struct tn_vm_disk *disk, int from)
{
    struct tn_loop *loop = vm->devices.loop;
    int r;

    if (!disk->overlaid || disk->cfg.read_only)
        return TN_OK;
    tn_vm_disk_unwatch_(disk, loop);
    (void)tn_file_overlay_close(&disk->overlay); /* what was lost was to go anyway */
    disk->overlaid = false;
    (void)unlink(disk->cfg.overlay);
    r = tn_vm_clone_overlay_(disk->cfg.overlay, from);
    if (r >= 0)
        r = tn_vm_disk_open_(disk, &disk->cfg);
    return r < 0 ? r : tn_vm_disk_watch_all_(disk, loop);
}

/* The next diff is of the image again, and what was written before counts no more. */
static inline int tn_vm_reset_base_(struct tn_vm *vm)
{
    int r;

    tn_vm_base_close_(vm->base);
    vm->base = NULL;
    if (!vm->dirty[0] || !vm->image->dir)
        return TN_OK;
    r = tn_vm_clone_base_(vm, vm->image);
    if (r >= 0)
        r = tn_vm_pages_dirty_(vm, vm->base->set);
    if (r >= 0)
        memset(vm->base->set, 0, (vm->ram.size / TN_VM_IMAGE_PAGE / 64 + 1) * sizeof(uint64_t));
    return r;
}

TN_API int tn_vm_reset(struct tn_vm *vm)
{
    uint32_t state = tn_vm_state_read(vm);
    bool ended = state == TN_VM_STOPPED || state == TN_VM_FAILED;
    int r = TN_OK;

    if (state == TN_VM_CLOSED || state == TN_VM_RUNNING || !vm->golden || !vm->restored)
        return TN_ESTATE;
    if (ended)
        tn_vm_join_(vm);
    tn_vm_devices_quiesce(&vm->devices);
    vm->torn = true;
    if (ended)
        r = tn_vm_arch_state_drop(vm->cpu, vm->cpus); /* what their last accesses left undone */
    if (r >= 0)
        r = tn_hostmem_forget(&vm->ram, vm->golden->pid == getpid() ? vm->golden->pagemap : -1);
    if (r >= 0)
        r = tn_vm_clone_pages_(vm, vm->image);
    if (r >= 0)
        r = tn_vm_reset_base_(vm);
    for (uint32_t i = 0; r >= 0 && i < vm->devices.disks; i++)
        r = tn_vm_reset_disk_(vm, &vm->devices.disk[i], vm->image->overlay[i]);
    pthread_mutex_lock(&vm->state_lock);
    vm->state = TN_VM_CREATED;
    memset(&vm->end, 0, sizeof(vm->end));
    vm->fresh = true;
    pthread_mutex_unlock(&vm->state_lock);
    vm->vcpu_flags = TN_VM_ARCH_LAZY; /* KVM has taken these values before */
    if (r >= 0)
        r = tn_vm_state_restore(vm, vm->from, vm->stopped_clock);
    if (r >= 0)
        r = tn_vm_arch_new_id(&vm->board, &vm->mem);
    vm->torn = r < 0;
    if (r >= 0)
        tn_vm_clone_wake_(vm);
    return r;
}

/* ---- the reaper ---- */

static inline void *tn_vm_reaper_main_(void *arg)
{
    struct tn_vm_reaper *reaper = (struct tn_vm_reaper *)arg;
    struct tn_vm_rest *rest;

    pthread_mutex_lock(&reaper->queue_lock);
    for (;;) {
        while (!reaper->first && !reaper->stop)
            pthread_cond_wait(&reaper->queue_cond, &reaper->queue_lock);
        rest = reaper->first;
        if (!rest)
            break;
        reaper->first = rest->next;
        pthread_mutex_unlock(&reaper->queue_lock);
        tn_vm_close_rest_(rest);
        free(rest);
        pthread_mutex_lock(&reaper->queue_lock);
    }
    pthread_mutex_unlock(&reaper->queue_lock);
    return NULL;
}

TN_API int tn_vm_reaper_init(struct tn_vm_reaper *reaper)
{
    sigset_t all, old;
    int error = 0;

    memset(reaper, 0, sizeof(*reaper));
    pthread_mutex_init(&reaper->queue_lock, NULL);
    pthread_cond_init(&reaper->queue_cond, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (!error && reaper->threads < TN_VM_REAPER_THREADS) {
        error = pthread_create(&reaper->thread[reaper->threads], NULL, tn_vm_reaper_main_, reaper);
        reaper->threads += !error;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (reaper->threads > 0)
        return TN_OK;
    pthread_cond_destroy(&reaper->queue_cond);
    pthread_mutex_destroy(&reaper->queue_lock);
    errno = error;
    return TN_ESYS;
}

TN_API void tn_vm_close_to(struct tn_vm *vm, struct tn_vm_reaper *reaper)
{
    struct tn_vm_rest *rest = (struct tn_vm_rest *)calloc(1, sizeof(*rest));

    if (!rest || !vm->open || reaper->threads == 0) {
        free(rest);
        tn_vm_close(vm);
        return;
    }
    tn_vm_close_front_(vm, rest);
    pthread_mutex_lock(&reaper->queue_lock);
    rest->next = reaper->first;
    reaper->first = rest;
    pthread_cond_signal(&reaper->queue_cond);
    pthread_mutex_unlock(&reaper->queue_lock);
}

TN_API void tn_vm_reaper_close(struct tn_vm_reaper *reaper)
{
    if (reaper->threads == 0)
        return;
    pthread_mutex_lock(&reaper->queue_lock);
    reaper->stop = true;
    pthread_cond_broadcast(&reaper->queue_cond);
    pthread_mutex_unlock(&reaper->queue_lock);
    while (reaper->threads > 0)
        pthread_join(reaper->thread[--reaper->threads], NULL);
    pthread_cond_destroy(&reaper->queue_cond);
    pthread_mutex_destroy(&reaper->queue_lock);
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VM_FORK_H */
