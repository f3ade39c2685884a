/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Whatever the host refuses while a machine is saved, restored or forked: the answer is an error by
 * name, nothing is left open, mapped, allocated or in the file system, the machine that was there
 * runs on, and the same call works the next time.
 */
#include "fault.h"

#include "tn_vm_fork.h"

#include "tn_strerror.h"
#include "vm_clone.h"

/*
 * A machine and what is made of it. The plain one has a serial console, and a guest that echoes;
 * the busy one has a disk with an overlay, hvc0 and entropy, two vCPUs, and a guest that writes to
 * the disk and reads it back all the time.
 */
struct rig {
    uint32_t id;
    bool busy;
    struct tn_loop loop;
    struct con con[3]; /* vm's, clone's, third's */
    struct tn_loop_source heard[3];
    int hvc[3][2]; /* their hvc0's input */
    struct tn_vm vm;
    struct tn_vm clone; /* what most operations make */
    struct tn_vm third; /* a clone of a clone */
    uint32_t lines[3];  /* they have echoed */
    const char *base, *overlay[3];
    const char *whole, *diff, *keyed; /* snapshots of vm */
    uint32_t lines_whole, lines_diff;
    struct tn_vm_image image, image_diff; /* of them, opened */
    struct tn_vm_image made;
    const char *dir; /* where the next snapshot goes */
    uint32_t depth;  /* of the diffs so far */
};

static struct rig *rigs[2]; /* the plain one, the busy one; NULL: not yet, or a test failed on it */
static const struct tn_snap_key key = {(const uint8_t *)"0123456789abcdef0123456789abcdef", 32};

enum held { AS_BEFORE, AS_AT_FIRST, NO_MATTER };

/* What an operation is to do in particular; of a clone also enum tn_vm_memory. */
enum how {
    AS_DIFF = 1, /* snapshot */
    LAZILY = 1,  /* open */
    KEYED = 2,
    NO_BASE = 4, /* snapshot: there was none before */
    TRACK = 4,   /* clone */
    RESTORE = 8, /* not one more */
    OF_DIFF = 16,
    BOOTED = 32 /* take: the machine is no clone */
};

struct op {
    const char *name;
    void (*setup)(struct rig *rig, const struct op *op);  /* once for each kind of call */
    void (*before)(struct rig *rig, const struct op *op); /* each time */
    int (*run)(struct rig *rig, const struct op *op);
    void (*proof)(struct rig *rig, const struct op *op); /* after a success, that it was one */
    void (*after)(struct rig *rig, const struct op *op, int result);
    void (*teardown)(struct rig *rig, const struct op *op);
    uint32_t how;   /* for run */
    enum held held; /* what is open after an error */
    bool asks;      /* it asks the host what it can: that it cannot tell is an answer */
    bool digests;   /* it makes digests: with fewer threads if need be */
    bool again;     /* after an error, it is to be tried again on the same machine */
    bool busy;      /* the rig to use where one must do */
    bool all;       /* what others do, too: every call fails once */
};

/* ---- machines ---- */

/* How many requests the disk has answered. */
static uint16_t answered(struct tn_vm *vm)
{
    struct tn_vm_disk *disk = &vm->devices.disk[0];
    uint16_t n;

    pthread_mutex_lock(&disk->slot.lock);
    n = disk->blk.queue[0].q.next_used;
    pthread_mutex_unlock(&disk->slot.lock);
    return n;
}

static void alive(struct rig *rig, struct tn_vm *vm, unsigned i)
{
    struct con *con = &rig->con[i];
    char line[32];

    con_cut(con, 0);
    if (rig->busy) {
        uint16_t begin = answered(vm);
        double end = seconds(CLOCK_MONOTONIC) + HANG;

        /* A round of the guest: a write, a read, and a look at what it has read. */
        while ((uint16_t)(answered(vm) - begin) < 4) {
            tn_loop_step(&rig->loop, 1);
            (void)con_take(con);
            if (strstr(con->seen, "bad") || seconds(CLOCK_MONOTONIC) > end)
                fail_msg("the guest hangs, or said: %s", con->seen);
        }
        return;
    }
    snprintf(line, sizeof(line), "%u: x\n", ++rig->lines[i]);
    con_type(con, "x\n");
    hear(vm, &rig->loop, con, 0, line);
}

static void describe_rig(struct tn_vm_cfg *cfg, struct tn_vm_disk_cfg *disk, struct rig *rig,
                         unsigned i)
{
    describe(cfg, &rig->con[i], "echo", 1);
    if (!rig->busy)
        return;
    memset(disk, 0, sizeof(*disk));
    disk->path = rig->base;
    disk->overlay = rig->overlay[i];
    cfg->kernel = kernel; /* of vm_guest.h: virtio.elf */
    cfg->kernel_len = kernel_len;
    cfg->cmdline = "io";
    cfg->cpus = 2;
    cfg->disk = disk;
    cfg->disks = 1;
    cfg->virtio_console = cfg->rng = true;
    cfg->virtio_in = rig->hvc[i][0];
    cfg->virtio_out = rig->con[i].out[1];
}

static void own_rig(struct tn_vm_clone_cfg *cfg, struct tn_vm_disk_cfg *disk, struct rig *rig,
                    unsigned i)
{
    own(cfg, &rig->con[i]);
    if (!rig->busy)
        return;
    memset(disk, 0, sizeof(*disk));
    disk->overlay = rig->overlay[i];
    cfg->disk = disk;
    cfg->disks = 1;
    cfg->virtio_in = rig->hvc[i][0];
    cfg->virtio_out = rig->con[i].out[1];
}

/* A machine that runs, and is paused once it has begun. */
static void boot_rig(struct rig *rig, struct tn_vm *vm, unsigned i, bool track)
{
    struct tn_vm_disk_cfg disk;
    struct tn_vm_cfg cfg;

    describe_rig(&cfg, &disk, rig, i);
    cfg.track_dirty = track;
    rig->lines[i] = 0;
    con_cut(&rig->con[i], 0);
    assert_int_equal(tn_vm_init(vm, &kvm, &rig->loop, &cfg), 0);
    assert_int_equal(tn_vm_start(vm), 0);
    hear(vm, &rig->loop, &rig->con[i], 0, rig->busy ? "io\n" : "ready\n");
    alive(rig, vm, i);
    assert_int_equal(tn_vm_pause(vm), 0);
}

static int fork_rig(struct rig *rig, struct tn_vm *vm, const struct tn_vm_image *image, unsigned i,
                    uint32_t how)
{
    struct tn_vm_disk_cfg disk;
    struct tn_vm_clone_cfg cfg;

    own_rig(&cfg, &disk, rig, i);
    cfg.memory = how & 3;
    cfg.track_dirty = how & TRACK;
    return how & RESTORE ? tn_vm_restore(vm, &kvm, &rig->loop, image, &cfg)
                         : tn_vm_fork(vm, &kvm, &rig->loop, image, &cfg);
}

static void close_rig(struct rig *rig, struct tn_vm *vm, unsigned i)
{
    tn_vm_close(vm);
    if (rig->busy)
        unlink(rig->overlay[i]);
}

/* A clone that was made, but not started. */
static void clone_lives(struct rig *rig, struct tn_vm *vm, unsigned i, uint32_t lines)
{
    rig->lines[i] = lines;
    assert_int_equal(tn_vm_start(vm), 0);
    alive(rig, vm, i);
}

/* The machine that there was from the beginning runs on. */
static void vm_lives(struct rig *rig)
{
    assert_int_equal(tn_vm_resume(&rig->vm), 0);
    alive(rig, &rig->vm, 0);
    assert_int_equal(tn_vm_pause(&rig->vm), 0);
}

/* The image is one of the memory that vm has now. A busy machine's may have changed since. */
static void same_memory(const struct rig *rig, const struct tn_vm_image *image,
                        const struct tn_vm *vm)
{
    uint8_t *bytes = malloc(vm->ram.size);

    assert_non_null(bytes);
    assert_int_equal(image->state.machine.memory, vm->ram.size);
    assert_int_equal(tn_vm_image_read(image, 0, bytes, vm->ram.size), 0);
    if (!rig->busy)
        assert_int_equal(memcmp(bytes, vm->ram.ptr, vm->ram.size), 0);
    free(bytes);
}

static void snapshot(struct rig *rig, const char *path, bool diff, const struct tn_snap_key *with)
{
    struct tn_vm_snapshot_cfg cfg;

    memset(&cfg, 0, sizeof(cfg));
    cfg.dir = path;
    cfg.diff = diff;
    cfg.key = with;
    assert_int_equal(tn_vm_snapshot(&rig->vm, &cfg), 0);
}

static int open_image(struct tn_vm_image *image, const char *path, bool lazy,
                      const struct tn_snap_key *with)
{
    struct tn_vm_image_cfg cfg;

    memset(&cfg, 0, sizeof(cfg));
    cfg.dir = path;
    cfg.lazy = lazy;
    cfg.key = with;
    return tn_vm_image_open(image, &kvm, &cfg);
}

static void on_heard(void *ctx, uint32_t events)
{
    (void)con_take((struct con *)ctx);
    (void)events;
}

static const char *path_of(const struct rig *rig, const char *name)
{
    char *path = strdup(name_of("rig%u-%s", rig->id, name));

    assert_non_null(path);
    return path;
}

static void rig_open(struct rig *rig, bool disks)
{
    static const char *const overlays[3] = {"overlay0", "overlay1", "overlay2"};
    static uint32_t rigs_made;
    char name[32];

    rig->busy = disks;
    rig->id = rigs_made++;
    assert_int_equal(tn_loop_init(&rig->loop), 0);
    for (unsigned i = 0; i < 3; i++) {
        con_open(&rig->con[i]);
        rig->overlay[i] = path_of(rig, overlays[i]);
        assert_int_equal(pipe2(rig->hvc[i], O_CLOEXEC | O_NONBLOCK), 0);
        rig->heard[i].fd = rig->con[i].out[0];
        rig->heard[i].events = EPOLLIN;
        rig->heard[i].fn = on_heard;
        rig->heard[i].ctx = &rig->con[i];
        assert_int_equal(tn_loop_add(&rig->loop, &rig->heard[i]), 0);
    }
    snprintf(name, sizeof(name), "disk%u", rig->id);
    rig->base = disks ? strdup(file_of(name, 256 << 10, 7)) : NULL;
    rig->whole = path_of(rig, "whole");
    rig->diff = path_of(rig, "diff");
    rig->keyed = path_of(rig, "keyed");
    boot_rig(rig, &rig->vm, 0, true);
    snapshot(rig, rig->keyed, false, &key);
    snapshot(rig, rig->whole, false, NULL);
    rig->lines_whole = rig->lines[0];
    assert_int_equal(open_image(&rig->image, rig->whole, false, NULL), 0);
    same_memory(rig, &rig->image, &rig->vm);
    vm_lives(rig);
    snapshot(rig, rig->diff, true, NULL);
    rig->lines_diff = rig->lines[0];
    assert_int_equal(open_image(&rig->image_diff, rig->diff, false, NULL), 0);
    same_memory(rig, &rig->image_diff, &rig->vm);
}

static void rig_close(struct rig *rig)
{
    tn_vm_image_close(&rig->image);
    tn_vm_image_close(&rig->image_diff);
    close_rig(rig, &rig->vm, 0);
    remove_dir(rig->whole);
    remove_dir(rig->diff);
    remove_dir(rig->keyed);
    tn_loop_close(&rig->loop);
    for (unsigned i = 0; i < 3; i++) {
        con_close(&rig->con[i]);
        close(rig->hvc[i][0]);
        close(rig->hvc[i][1]);
        free((void *)(uintptr_t)rig->overlay[i]);
    }
    free((void *)(uintptr_t)rig->base);
    free((void *)(uintptr_t)rig->whole);
    free((void *)(uintptr_t)rig->diff);
    free((void *)(uintptr_t)rig->keyed);
}

/* ---- the operations ---- */

/* init: a machine from scratch. */

static int run_init(struct rig *rig, const struct op *op)
{
    struct tn_vm_disk_cfg disk;
    struct tn_vm_cfg cfg;

    (void)op;
    describe_rig(&cfg, &disk, rig, 1);
    con_cut(&rig->con[1], 0);
    return tn_vm_init(&rig->clone, &kvm, &rig->loop, &cfg);
}

static void proof_init(struct rig *rig, const struct op *op)
{
    (void)op;
    rig->lines[1] = 0;
    assert_int_equal(tn_vm_start(&rig->clone), 0);
    hear(&rig->clone, &rig->loop, &rig->con[1], 0, rig->busy ? "io\n" : "ready\n");
    alive(rig, &rig->clone, 1);
}

static void after_init(struct rig *rig, const struct op *op, int result)
{
    (void)op;
    if (result >= 0)
        tn_vm_close(&rig->clone);
    assert_false(rig->clone.open);
    if (rig->busy)
        unlink(rig->overlay[1]); /* one that is there is opened the next time */
}

/* fork, restore, start, prepare, adopt, reset: clones of what rig_open has written. */

static const struct tn_vm_image *image_of(const struct rig *rig, const struct op *op)
{
    return op->how & OF_DIFF ? &rig->image_diff : &rig->image;
}

static int run_fork(struct rig *rig, const struct op *op)
{
    return fork_rig(rig, &rig->clone, image_of(rig, op), 1, op->how);
}

static void before_clone(struct rig *rig, const struct op *op)
{
    assert_int_equal(run_fork(rig, op), 0);
}

static void proof_fork(struct rig *rig, const struct op *op)
{
    clone_lives(rig, &rig->clone, 1, op->how & OF_DIFF ? rig->lines_diff : rig->lines_whole);
}

static void after_fork(struct rig *rig, const struct op *op, int result)
{
    (void)op;
    if (result >= 0)
        close_rig(rig, &rig->clone, 1);
    assert_false(rig->clone.open);
    if (rig->busy)
        assert_int_equal(access(rig->overlay[1], F_OK), -1);
}

static int run_start(struct rig *rig, const struct op *op)
{
    (void)op;
    return tn_vm_start(&rig->clone);
}

static void proof_start(struct rig *rig, const struct op *op)
{
    (void)op;
    rig->lines[1] = rig->lines_whole;
    alive(rig, &rig->clone, 1);
}

static void after_start(struct rig *rig, const struct op *op, int result)
{
    (void)op;
    if (result < 0) {
        assert_int_equal(tn_vm_state_read(&rig->clone), TN_VM_FAILED);
        assert_int_equal(tn_vm_wait(&rig->clone, 0), TN_VM_ERROR);
        assert_int_equal(rig->clone.end.err, result);
    }
    close_rig(rig, &rig->clone, 1);
}

static int run_prepare(struct rig *rig, const struct op *op)
{
    return tn_vm_prepare(&rig->clone, &kvm, &rig->loop, image_of(rig, op));
}

static int run_adopt(struct rig *rig, const struct op *op)
{
    struct tn_vm_disk_cfg disk;
    struct tn_vm_clone_cfg cfg;

    (void)op;
    own_rig(&cfg, &disk, rig, 1);
    return tn_vm_adopt(&rig->clone, &cfg);
}

static void before_adopt(struct rig *rig, const struct op *op)
{
    assert_int_equal(run_prepare(rig, op), 0);
}

static void proof_prepare(struct rig *rig, const struct op *op)
{
    assert_int_equal(run_adopt(rig, op), 0);
    proof_fork(rig, op);
}

static void after_adopt(struct rig *rig, const struct op *op, int result)
{
    (void)op;
    if (result < 0) {
        assert_false(rig->clone.open);
        if (rig->busy)
            assert_int_equal(access(rig->overlay[1], F_OK), -1);
    }
    close_rig(rig, &rig->clone, 1);
}

static void before_reset(struct rig *rig, const struct op *op)
{
    before_clone(rig, op);
    assert_int_equal(tn_vm_start(&rig->clone), 0);
    assert_int_equal(tn_vm_pause(&rig->clone), 0);
}

static void after_reset(struct rig *rig, const struct op *op, int result)
{
    (void)op;
    if (result < 0) /* it is half one machine and half another */
        assert_int_equal(tn_vm_start(&rig->clone), TN_ESTATE);
    close_rig(rig, &rig->clone, 1);
}

static void after_reaper(struct rig *rig, const struct op *op, int result)
{
    (void)op;
    (void)result;
    close_rig(rig, &rig->clone, 1);
}

static int run_reset(struct rig *rig, const struct op *op)
{
    (void)op;
    return tn_vm_reset(&rig->clone);
}

/* reaper: threads that close a clone. */

static int run_reaper(struct rig *rig, const struct op *op)
{
    struct tn_vm_reaper reaper;
    int r = tn_vm_reaper_init(&reaper);

    (void)op;
    if (r < 0)
        return r;
    tn_vm_close_to(&rig->clone, &reaper);
    tn_vm_reaper_close(&reaper);
    return r;
}

static void proof_reaper(struct rig *rig, const struct op *op)
{
    (void)op;
    assert_false(rig->clone.open);
}

/* snapshot: a directory, under the same name until it succeeds. */

static void forget_base(struct rig *rig, const struct op *op)
{
    (void)op;
    tn_vm_base_close_(rig->vm.base);
    rig->vm.base = NULL;
}

static void setup_snapshot(struct rig *rig, const struct op *op)
{
    rig->dir = path_of(rig, "next");
    if (op->how & NO_BASE)
        forget_base(rig, op);
}

static int run_snapshot(struct rig *rig, const struct op *op)
{
    struct tn_vm_snapshot_cfg cfg;

    memset(&cfg, 0, sizeof(cfg));
    cfg.dir = rig->dir;
    cfg.diff = op->how & AS_DIFF;
    cfg.sync = true;
    cfg.key = op->how & KEYED ? &key : NULL;
    return tn_vm_snapshot(&rig->vm, &cfg);
}

static void proof_snapshot(struct rig *rig, const struct op *op)
{
    assert_int_equal(open_image(&rig->made, rig->dir, false, op->how & KEYED ? &key : NULL), 0);
    same_memory(rig, &rig->made, &rig->vm);
    if (!(op->how & AS_DIFF) || rig->depth % 4 == 0) { /* there are many diffs */
        assert_int_equal(fork_rig(rig, &rig->clone, &rig->made, 1, 0), 0);
        clone_lives(rig, &rig->clone, 1, rig->lines[0]);
        close_rig(rig, &rig->clone, 1);
    }
    tn_vm_image_close(&rig->made);
}

/* What a snapshot that failed may leave is a directory that is empty. */
static void after_snapshot(struct rig *rig, const struct op *op, int result)
{
    if (result < 0 && access(rig->dir, F_OK) == 0)
        assert_int_equal(fault_entries(rig->dir), 2);
    if (op->how & NO_BASE)
        forget_base(rig, op);
    if (result >= 0)
        remove_dir(rig->dir);
}

static void teardown_snapshot(struct rig *rig, const struct op *op)
{
    (void)op;
    remove_dir(rig->dir);
    free((void *)(uintptr_t)rig->dir);
}

/* A diff is of the last snapshot, which must be kept. */
static void next_diff(struct rig *rig)
{
    char name[32];

    snprintf(name, sizeof(name), "chain%u", rig->depth++);
    free((void *)(uintptr_t)rig->dir);
    rig->dir = path_of(rig, name);
}

static void setup_diff(struct rig *rig, const struct op *op)
{
    (void)op;
    rig->depth = 0;
    rig->dir = NULL;
    next_diff(rig);
    snapshot(rig, rig->dir, false, NULL);
    next_diff(rig);
}

static void teardown_diff(struct rig *rig, const struct op *op)
{
    char name[32];

    (void)op;
    while (rig->depth > 0) {
        const char *path;

        snprintf(name, sizeof(name), "chain%u", --rig->depth);
        path = path_of(rig, name);
        remove_dir(path);
        free((void *)(uintptr_t)path);
    }
    free((void *)(uintptr_t)rig->dir);
}

static void after_diff(struct rig *rig, const struct op *op, int result)
{
    if (result < 0 && access(rig->dir, F_OK) == 0)
        assert_int_equal(fault_entries(rig->dir), 2);
    if (result < 0)
        return;
    if (rig->depth < TN_VM_IMAGE_LAYERS / 2) {
        next_diff(rig);
    } else {
        teardown_diff(rig, op);
        setup_diff(rig, op);
    }
}

/* open: an image of a directory. */

static int run_open(struct rig *rig, const struct op *op)
{
    return open_image(&rig->made,
                      op->how & OF_DIFF ? rig->diff
                      : op->how & KEYED ? rig->keyed
                                        : rig->whole,
                      op->how & LAZILY, op->how & KEYED ? &key : NULL);
}

static void proof_open(struct rig *rig, const struct op *op)
{
    assert_int_equal(fork_rig(rig, &rig->clone, &rig->made, 1, 0), 0);
    proof_fork(rig, op);
    close_rig(rig, &rig->clone, 1);
}

static void after_open(struct rig *rig, const struct op *op, int result)
{
    (void)op;
    if (result >= 0)
        tn_vm_image_close(&rig->made);
    assert_int_equal(rig->made.layers, 0);
    assert_null(rig->made.state.arch.cpu);
    assert_null(rig->made.dir);
}

/* take: an image of a machine that goes on: clone, which was booted or forked. */

static void setup_take(struct rig *rig, const struct op *op)
{
    if (op->how & BOOTED) {
        boot_rig(rig, &rig->clone, 1, false);
        return;
    }
    before_clone(rig, op);
    proof_fork(rig, op);
    assert_int_equal(tn_vm_pause(&rig->clone), 0);
}

/* One whose memory is a file still. */
static void before_take(struct rig *rig, const struct op *op)
{
    if (op->how & BOOTED && rig->clone.ram.how != TN_HOSTMEM_SHARED) {
        close_rig(rig, &rig->clone, 1);
        boot_rig(rig, &rig->clone, 1, false);
    }
}

static int run_take(struct rig *rig, const struct op *op)
{
    (void)op;
    return tn_vm_image_take(&rig->made, &rig->clone, rig->busy ? dir : NULL);
}

static void proof_take(struct rig *rig, const struct op *op)
{
    struct tn_vm_image second;

    (void)op;
    same_memory(rig, &rig->made, &rig->clone);
    assert_int_equal(fork_rig(rig, &rig->third, &rig->made, 2, 0), 0);
    clone_lives(rig, &rig->third, 2, rig->lines[1]);
    close_rig(rig, &rig->third, 2);
    /* The machine knows still what its memory is made of. */
    assert_int_equal(tn_vm_image_take(&second, &rig->clone, rig->busy ? dir : NULL), 0);
    same_memory(rig, &second, &rig->clone);
    tn_vm_image_close(&second);
}

static void after_take(struct rig *rig, const struct op *op, int result)
{
    after_open(rig, op, result);
    assert_int_equal(tn_vm_resume(&rig->clone), 0);
    alive(rig, &rig->clone, 1);
    assert_int_equal(tn_vm_pause(&rig->clone), 0);
}

static void teardown_take(struct rig *rig, const struct op *op)
{
    (void)op;
    close_rig(rig, &rig->clone, 1);
}

#define FORK     .run = run_fork, .proof = proof_fork, .after = after_fork
#define OPEN     .run = run_open, .proof = proof_open, .after = after_open
#define SNAPSHOT .run = run_snapshot, .proof = proof_snapshot
#define TAKE                                                                          \
    .setup = setup_take, .before = before_take, .run = run_take, .proof = proof_take, \
    .after = after_take, .teardown = teardown_take, .asks = true

static const struct op ops[] = {
    {.name = "init", .run = run_init, .proof = proof_init, .after = after_init, .asks = true},
    {.name = "snapshot",
     SNAPSHOT,
     .setup = setup_snapshot,
     .after = after_snapshot,
     .teardown = teardown_snapshot,
     .asks = true,
     .digests = true,
     .all = true},
    {.name = "snapshot_first",
     SNAPSHOT,
     .setup = setup_snapshot,
     .after = after_snapshot,
     .teardown = teardown_snapshot,
     .how = KEYED | NO_BASE,
     .held = NO_MATTER,
     .asks = true,
     .digests = true,
     .busy = true},
    {.name = "snapshot_diff",
     SNAPSHOT,
     .setup = setup_diff,
     .after = after_diff,
     .teardown = teardown_diff,
     .how = AS_DIFF,
     .asks = true,
     .digests = true,
     .again = true},
    {.name = "open", OPEN, .asks = true, .digests = true},
    {.name = "open_lazy_keyed", OPEN, .how = LAZILY | KEYED, .asks = true},
    {.name = "open_diff", OPEN, .how = OF_DIFF, .asks = true, .digests = true, .busy = true},
    {.name = "restore", FORK, .how = RESTORE, .busy = true},
    {.name = "fork_map", FORK, .all = true},
    {.name = "fork_map_diff_track", FORK, .how = TRACK | OF_DIFF},
    {.name = "fork_copy", FORK, .how = TN_VM_MEMORY_COPY | OF_DIFF},
    {.name = "fork_lazy", FORK, .how = TN_VM_MEMORY_LAZY},
    {.name = "prepare", .run = run_prepare, .proof = proof_prepare, .after = after_fork},
    {.name = "adopt",
     .before = before_adopt,
     .run = run_adopt,
     .proof = proof_fork,
     .after = after_adopt,
     .held = AS_AT_FIRST,
     .busy = true},
    {.name = "start",
     .before = before_clone,
     .run = run_start,
     .proof = proof_start,
     .after = after_start,
     .busy = true},
    {.name = "reset",
     .before = before_reset,
     .run = run_reset,
     .proof = proof_fork,
     .after = after_reset,
     .held = NO_MATTER,
     .busy = true,
     .all = true},
    {.name = "reaper",
     .before = before_clone,
     .run = run_reaper,
     .proof = proof_reaper,
     .after = after_reaper,
     .busy = true},
    {.name = "take", TAKE, .how = BOOTED, .again = true, .all = true},
    {.name = "take_of_fork", TAKE, .busy = true},
    {.name = "take_of_copy", TAKE, .how = TN_VM_MEMORY_COPY},
    {.name = "take_of_lazy", TAKE, .how = TN_VM_MEMORY_LAZY},
};

/* ---- the faults ---- */

/* Calls that there is a way without, which the proof then looks at. */
static bool may_do_without(const struct op *op, enum fault_kind kind, unsigned long what)
{
    switch (kind) {
    case FAULT_LSEEK: /* a file has bytes everywhere then */
        return true;
    case FAULT_IOCTL: /* what is not told is not there; a level, which the chips have too */
        return what == KVM_CHECK_EXTENSION || what == KVM_HAS_DEVICE_ATTR ||
               ((uint32_t)what == KVM_IRQ_LINE && what >> 32 != TN_VM_X86_GED_GSI) ||
               what == TN_HOSTMEM_SCAN_ ||
               (op->asks && (what == KVM_GET_DEVICE_ATTR || what == KVM_SET_DEVICE_ATTR));
    case FAULT_OPEN: /* a reset looks at every page then */
        return (what & FAULT_OPEN_PAGEMAP) != 0;
    case FAULT_MMAP: /* the ring's */
        return (what & MAP_POPULATE) != 0;
    case FAULT_SYSCALL:
        return what == SYS_io_uring_setup || what == SYS_io_uring_enter;
    case FAULT_ALLOC: /* digests are made by the threads that there are, if need be by one */
        return (op->digests && what == TN_VM_IMAGE_BATCH_) || op->run == run_reaper;
    case FAULT_THREAD:
        return op->digests || op->run == run_reaper;
    case FAULT_READ: /* of an eventfd, or of a touch: they are there the next time */
    case FAULT_WRITE:
        return true;
    default:
        return false;
    }
}

static void named(const struct op *op, uint64_t n, int result, int error)
{
    bool known = strcmp(tn_strerror(result), tn_strerror(-12345)) != 0;

    if (result >= 0 || !known || result == TN_EBUG)
        fail_msg("%s: %s %" PRIu64 " (%lx) fails, and the result is %d", op->name,
                 fault_row[faults.kind].name, n, faults.what, result);
    if (result == TN_ESYS && error != fault_row[faults.kind].error)
        fail_msg("%s: %s %" PRIu64 " (%lx) fails, and errno is %d", op->name,
                 fault_row[faults.kind].name, n, faults.what, error);
}

static void holds(const struct rig *rig, const struct op *op, uint64_t n, const char *when,
                  const struct fault_holds *before)
{
    struct fault_holds now;

    if (!fault_same(before, rig->loop.epfd, &now))
        fail_msg("%s: %s %" PRIu64 " (%lx): %s: descriptors %d %d, watched %d %d, threads %d %d, "
                 "named %d %d, allocations %" PRId64 " %" PRId64 ", mappings %u %u, bytes %" PRIu64
                 " %" PRIu64,
                 op->name, fault_row[faults.kind].name, n, faults.what, when, before->fds, now.fds,
                 before->watched, now.watched, before->threads, now.threads, before->named,
                 now.named, before->allocations, now.allocations, before->maps, now.maps,
                 before->mapped, now.mapped);
}

/* A lazy machine may only find out when it touches its memory: then it ends before it begins. */
static bool ended(struct rig *rig, int *result, int *error)
{
    struct tn_vm *vm = &rig->clone;

    if (*result < 0 || !vm->open || vm->end.reason != TN_VM_ERROR)
        return false;
    assert_int_equal(tn_vm_start(vm), 0);
    assert_int_equal(tn_vm_wait(vm, -1), TN_VM_ERROR);
    *result = vm->end.err;
    *error = vm->end.sys_errno;
    return true;
}

/* One call with one fault. Returns whether there was a call to fail. */
static bool once(struct rig *rig, const struct op *op, enum fault_kind kind, uint64_t n,
                 enum fault_mode mode)
{
    struct fault_holds first, before;
    int result, error;
    bool hit, late;

    fault_hold(&first, rig->loop.epfd);
    if (op->before)
        op->before(rig, op);
    fault_hold(&before, rig->loop.epfd);
    fault_arm(kind, n, mode);
    errno = 0;
    result = op->run(rig, op);
    error = errno;
    hit = fault_disarm();
    late =
        hit && op->how == TN_VM_MEMORY_LAZY && op->run == run_fork && ended(rig, &result, &error);
    if (result < 0) {
        if (!hit || mode != FAULT_FAIL)
            fail_msg("%s: %s %" PRIu64 " (mode %u): result %d, errno %d", op->name,
                     fault_row[kind].name, n, mode, result, error);
        named(op, n, result, error);
        if (!late && op->held != NO_MATTER)
            holds(rig, op, n, "after the error", op->held == AS_BEFORE ? &before : &first);
        if (op->again) {
            result = op->run(rig, op);
            assert_int_equal(result, 0);
            op->proof(rig, op);
        }
    } else {
        if (hit && mode == FAULT_FAIL && !may_do_without(op, kind, faults.what))
            fail_msg("%s: %s %" PRIu64 " (%lx) fails, and nobody minds", op->name,
                     fault_row[kind].name, n, faults.what);
        op->proof(rig, op);
    }
    op->after(rig, op, late ? 0 : result);
    if (op->run == run_snapshot)
        vm_lives(rig);
    if (!op->setup)
        holds(rig, op, n, "in the end", &first);
    return hit;
}

/* All up to some, then fewer; with TENON_LONG all. */
static uint64_t next(const struct op *op, uint64_t n)
{
    return is_long() || n < (op->all ? 64 : 6) ? n + 1 : n + n / 2;
}

/* One call without a fault: how many calls of each kind it makes. */
static void learn(struct rig *rig, const struct op *op, uint64_t seen[FAULT_KINDS])
{
    if (op->setup)
        op->setup(rig, op);
    (void)once(rig, op, FAULT_KINDS, 0, FAULT_FAIL);
    memcpy(seen, faults.seen, sizeof(faults.seen));
    if (op->teardown)
        op->teardown(rig, op);
}

static void every_fault(struct rig *rig, const struct op *op)
{
    uint64_t seen[FAULT_KINDS];

    learn(rig, op, seen);
    for (unsigned kind = 0; kind < FAULT_KINDS; kind++) {
        double begin = seconds(CLOCK_MONOTONIC);
        struct fault_holds first;
        unsigned tried = 0;
        uint64_t n = 1;

        if (seen[kind] == 0 || kind == FAULT_RING) /* a disk does not get over it: see below */
            continue;
        fault_hold(&first, rig->loop.epfd);
        if (op->setup)
            op->setup(rig, op);
        for (; n <= seen[kind] && once(rig, op, kind, n, FAULT_FAIL); n = next(op, n))
            tried++;
        if (op->teardown)
            op->teardown(rig, op);
        holds(rig, op, n, "after all", &first);
        vm_lives(rig);
        if (getenv("TENON_VERBOSE"))
            printf("%-20s %-16s %3u of %3u in %.0f ms\n", op->name, fault_row[kind].name, tried,
                   (unsigned)seen[kind], 1e3 * (seconds(CLOCK_MONOTONIC) - begin));
    }
}

static void every_cut(struct rig *rig, const struct op *op)
{
    static const struct {
        enum fault_kind kind;
        enum fault_mode mode;
    } cut[] = {{FAULT_PREAD, FAULT_INTERRUPT},
               {FAULT_PREAD, FAULT_SHORT},
               {FAULT_PWRITE, FAULT_INTERRUPT},
               {FAULT_PWRITE, FAULT_SHORT},
               {FAULT_READ, FAULT_INTERRUPT}};
    uint64_t seen[FAULT_KINDS];

    learn(rig, op, seen);
    for (unsigned i = 0; i < COUNT(cut); i++) {
        enum fault_mode mode = cut[i].mode;
        enum fault_kind kind = cut[i].kind;
        uint64_t n = 0; /* all of them */

        if (seen[kind] == 0)
            continue;
        if (op->setup)
            op->setup(rig, op);
        for (; n <= (is_long() ? seen[kind] : 1) && once(rig, op, kind, n, mode); n++)
            ;
        if (op->teardown)
            op->teardown(rig, op);
    }
}

/*
 * A flush that failed may have lost what the guest has written: from then on the disk never says
 * that anything is durable, neither to the guest nor to a snapshot.
 */
static void lost_writes(struct rig *rig, const struct op *op)
{
    struct fault_holds before;

    op->setup(rig, op);
    forget_base(rig, op);
    fault_hold(&before, rig->loop.epfd);
    for (unsigned i = 0; i < 2; i++) {
        fault_arm(FAULT_RING, i == 0 ? 1 : UINT64_MAX, FAULT_FAIL);
        assert_int_equal(op->run(rig, op), TN_ESYS);
        assert_int_equal(fault_disarm(), i == 0);
        assert_int_equal(fault_entries(rig->dir), 2);
        forget_base(rig, op);
        holds(rig, op, 1, "after the error", &before);
    }
    assert_int_equal(tn_vm_resume(&rig->vm), 0);
    op->teardown(rig, op);
    rig_close(rig);
    memset(rig, 0, sizeof(*rig));
    rig_open(rig, true);
}

/* ---- the tests ---- */

struct test_of {
    bool busy;
    const struct op *op;
    void (*run)(struct rig *rig, const struct op *op);
    char name[64];
};

static void test_of(void **state)
{
    const struct test_of *test = *state;
    struct rig *rig = rigs[test->busy];

    NEED_KVM();
    alarm(is_long() ? 3600 : 240); /* against hangs */
    (void)fault_disarm();
    rigs[test->busy] = NULL;
    if (!rig) {
        rig = calloc(1, sizeof(*rig));
        assert_non_null(rig);
        rig_open(rig, test->busy);
    }
    test->run(rig, test->op);
    rigs[test->busy] = rig;
    alarm(0);
}

static int setup(void **state)
{
    if (clone_setup(state) < 0)
        return -1;
    faults.stranger = tn_vm_cpu_main_;
    return 0;
}

static int teardown(void **state)
{
    for (unsigned i = 0; i < 2; i++) {
        if (rigs[i])
            rig_close(rigs[i]);
        free(rigs[i]);
    }
    return clone_teardown(state);
}

int main(int argc, char **argv)
{
    static struct test_of of[4 * COUNT(ops) + 1];
    static struct CMUnitTest tests[4 * COUNT(ops) + 1];
    size_t n = 0;

    for (size_t i = 0; i <= 4 * COUNT(ops); i++) {
        struct test_of *t = &of[n];

        t->op = i < 4 * COUNT(ops) ? &ops[i / 4] : &ops[1];
        t->busy = i < 4 * COUNT(ops) ? i % 2 : true;
        t->run = i == 4 * COUNT(ops) ? lost_writes : i % 4 < 2 ? every_fault : every_cut;
        if (!is_long() && t->run != lost_writes && t->op->busy != t->busy)
            continue;
        snprintf(t->name, sizeof(t->name), "%s_%s_%s", t->op->name, t->busy ? "busy" : "plain",
                 t->run == every_fault ? "fails"
                 : t->run == every_cut ? "cut_short"
                                       : "lost_writes");
        tests[n].name = t->name;
        tests[n].test_func = test_of;
        tests[n++].initial_state = t;
    }
    if (argc > 1) /* such as fork_* */
        cmocka_set_test_filter(argv[1]);
    return _cmocka_run_group_tests("vm_fault", tests, n, setup, teardown);
}
