/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vsock_vhost, and tn_vm_vsock with it: against a model of the kernel's side, which serves the
 * rings, knows who has which CID, and fails at any call; then against the kernel itself, skipped by
 * name where it has no vhost-vsock.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h> /* it needs sys/socket.h before it */

static int test_open(const char *path, int flags);
static int test_ioctl(int fd, unsigned long request, ...);
static int test_close(int fd);

#define open(path, flags) test_open(path, flags)
#define close(fd)         test_close(fd)
#define ioctl             test_ioctl
#include "tn_vsock_vhost.h"
#undef open
#undef close
#undef ioctl
#include "tn_vm_vsock.h"

#include "test.h"
#include "virtio_driver.h"

#define MIB   (1u << 20)
#define CAN   (TN_VIRTIO_F_VERSION_1 | TN_VIRTIO_F_EVENT_IDX | TN_VIRTIO_F_INDIRECT_DESC | SEQ)
#define SEQ   TN_VIRTIO_VSOCK_F_SEQPACKET
#define CID   1000u
#define TAKEN 77u /* another guest's, always */
#define RX    TN_VIRTIO_VSOCK_RX
#define TX    TN_VIRTIO_VSOCK_TX
#define EVENT TN_VIRTIO_VSOCK_EVENT
#define BUF   0x80000u /* buffers, a page each, from here on */

/* ---- a model of the kernel's side --------------------------------------------------------- */

struct instance {
    bool open, owner, running;
    uint64_t cid, features;
    uint32_t regions;
    struct vhost_memory_region region[2];
    struct {
        uint32_t num, base;
        struct vhost_vring_addr addr;
        int kick, call, err;
        struct tn_virtq q; /* while it runs */
    } ring[2];
};

static struct model {
    bool on; /* else calls go to the kernel */
    int open_error;
    uint64_t can;
    struct instance at[64]; /* by descriptor */
    unsigned opened, calls, fail_at;
    unsigned long failed;
} model;

static struct rig {
    struct tn_mem_region table[2];
    struct tn_mem mem;
    uint8_t *ram;
    uint64_t dirty[MIB / 4096 / 64];
    struct tn_vsock_vhost_cfg cfg;
    struct tn_vsock_vhost d;
    struct vd g;
    int kick[2], call;
    unsigned turns, asked, interrupts[4]; /* the last: the configuration */
    int fds;
} r;

static void model_on(uint64_t can)
{
    memset(&model, 0, sizeof(model));
    model.on = true;
    model.can = can;
}

static int no(int error)
{
    errno = error;
    return -1;
}

static int test_open(const char *path, int flags)
{
    int fd;

    if (!model.on)
        return open(path, flags);
    assert_string_equal(path, "/dev/vhost-vsock");
    if (model.open_error)
        return no(model.open_error);
    fd = open("/dev/null", flags);
    assert_in_range(fd, 0, COUNT(model.at) - 1);
    memset(&model.at[fd], 0, sizeof(model.at[fd]));
    model.at[fd].open = true;
    for (int i = 0; i < 2; i++)
        model.at[fd].ring[i].kick = model.at[fd].ring[i].call = model.at[fd].ring[i].err = -1;
    model.opened++;
    return fd;
}

static int test_close(int fd)
{
    if (model.on)
        memset(&model.at[fd], 0, sizeof(model.at[fd]));
    return close(fd);
}

/* The kernel begins to serve a ring, or ends. */
static int model_run(struct instance *k, bool run)
{
    for (uint32_t i = 0; i < 2; i++) {
        struct tn_virtq_state s;

        if (!run) {
            k->ring[i].base = k->ring[i].q.next_avail;
            continue;
        }
        memset(&s, 0, sizeof(s));
        s.version = TN_VIRTQ_VERSION;
        s.desc = k->ring[i].addr.desc_user_addr - (uintptr_t)r.ram;
        s.driver = k->ring[i].addr.avail_user_addr - (uintptr_t)r.ram;
        s.device = k->ring[i].addr.used_user_addr - (uintptr_t)r.ram;
        s.size = (uint16_t)k->ring[i].num;
        s.next_avail = s.next_used = (uint16_t)k->ring[i].base;
        s.started = 1;
        s.event_idx = (k->features & TN_VIRTIO_F_EVENT_IDX) != 0;
        s.indirect = (k->features & TN_VIRTIO_F_INDIRECT_DESC) != 0;
        tn_virtq_init(&k->ring[i].q);
        if (k->regions != 1 || tn_virtq_restore(&k->ring[i].q, &r.mem, &s) < 0)
            return no(EFAULT);
    }
    k->running = run;
    return 0;
}

static int model_cid(struct instance *k, uint64_t cid)
{
    if (cid <= 2 || cid >= UINT32_MAX)
        return no(EINVAL);
    for (size_t i = 0; i < COUNT(model.at); i++)
        if (cid == TAKEN || (model.at[i].open && &model.at[i] != k && model.at[i].cid == cid))
            return no(EADDRINUSE);
    k->cid = cid;
    return 0;
}

static int model_ioctl(struct instance *k, unsigned long request, void *arg)
{
    const struct vhost_memory *m = arg;
    struct vhost_vring_state *s = arg;
    struct vhost_vring_file *f = arg;
    struct vhost_vring_addr *a = arg;

    switch (request) {
    case VHOST_SET_OWNER:
        k->owner = true;
        return 0;
    case VHOST_GET_FEATURES:
        *(uint64_t *)arg = model.can;
        return 0;
    case VHOST_SET_FEATURES:
        k->features = *(uint64_t *)arg;
        return k->features & ~model.can ? no(EOPNOTSUPP) : 0;
    case VHOST_SET_MEM_TABLE:
        k->regions = m->nregions;
        assert_in_range(k->regions, 0, COUNT(k->region));
        memcpy(k->region, m->regions, m->nregions * sizeof(m->regions[0]));
        return 0;
    case VHOST_VSOCK_SET_GUEST_CID:
        return model_cid(k, *(uint64_t *)arg);
    case VHOST_VSOCK_SET_RUNNING:
        return model_run(k, *(int *)arg);
    case VHOST_SET_VRING_NUM:
        assert_false(k->running);
        k->ring[s->index].num = s->num;
        return 0;
    case VHOST_SET_VRING_BASE:
        assert_false(k->running);
        k->ring[s->index].base = s->num;
        return 0;
    case VHOST_GET_VRING_BASE:
        assert_false(k->running); /* it would run on */
        s->num = k->ring[s->index].base;
        return 0;
    case VHOST_SET_VRING_ADDR:
        k->ring[a->index].addr = *a;
        return 0;
    case VHOST_SET_VRING_KICK:
        k->ring[f->index].kick = f->fd;
        return 0;
    case VHOST_SET_VRING_CALL:
        k->ring[f->index].call = f->fd;
        return 0;
    case VHOST_SET_VRING_ERR:
        k->ring[f->index].err = f->fd;
        return 0;
    default:
        return no(ENOTTY);
    }
}

static int test_ioctl(int fd, unsigned long request, ...)
{
    struct instance *k = &model.at[fd];
    va_list args;
    void *arg;

    va_start(args, request);
    arg = va_arg(args, void *);
    va_end(args);
    if (!model.on)
        return ioctl(fd, request, arg);
    assert_true(k->open);
    assert_true(k->owner || request == VHOST_SET_OWNER);
    model.calls++;
    if (model.calls == model.fail_at) {
        model.failed = request;
        return no(EIO);
    }
    return model_ioctl(k, request, arg);
}

/* The instance that the device has; NULL: it is closed. */
static struct instance *kernel(void)
{
    return r.d.vhost.fd < 0 ? NULL : &model.at[r.d.vhost.fd];
}

static bool runs(void)
{
    return kernel() && kernel()->running;
}

/* Has the kernel take a chain of queue i, and return it with len bytes. */
static void kernel_moves(uint32_t i, uint32_t len)
{
    struct tn_virtq_chain chain;
    struct tn_iov iov[8];

    assert_true(runs());
    assert_int_equal(tn_virtq_pop(&kernel()->ring[i].q, &chain, iov, COUNT(iov)), 1);
    assert_int_equal(tn_virtq_push(&kernel()->ring[i].q, &chain, len), 0);
}

/* ---- the rig: memory, a device, its driver ------------------------------------------------ */

static int fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static uint64_t count(int fd)
{
    uint64_t n = 0;

    return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static void again(void *ctx)
{
    assert_ptr_equal(ctx, &r);
    r.turns++;
}

static void events(void *ctx, int kick[TN_VHOST_RINGS], int *call)
{
    assert_ptr_equal(ctx, &r);
    r.asked++;
    kick[0] = r.kick[0];
    kick[1] = r.kick[1];
    *call = r.call;
}

static void interrupt(void *ctx, uint32_t queue)
{
    (void)ctx;
    r.interrupts[queue == TN_VIRTIO_CONFIG ? 3 : queue]++;
}

static void memory_up(void)
{
    memset(&r, 0, sizeof(r));
    r.fds = fds();
    r.ram = aligned_alloc(4096, MIB);
    assert_non_null(r.ram);
    memset(r.ram, 0, MIB);
    tn_mem_init(&r.mem, r.table, COUNT(r.table));
    assert_int_equal(tn_mem_add(&r.mem, 0, r.ram, MIB), 0);
    assert_int_equal(tn_mem_track(&r.mem, 0, r.dirty), 0);
    r.kick[0] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    r.kick[1] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    r.call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    r.cfg.mem = &r.mem;
    r.cfg.queue_size = 64;
    r.cfg.ring_features = TN_VIRTIO_F_RING;
    r.cfg.guest_cid = CID;
    r.cfg.seqpacket = true;
    r.cfg.again = again;
    r.cfg.events = events;
    r.cfg.ctx = &r;
    r.d.vhost.fd = -1;
    vd_init(&r.g, &r.d.virtio, r.ram, 0, 0x1000);
}

static void memory_down(void)
{
    vd_free(&r.g);
    close(r.kick[0]);
    close(r.kick[1]);
    close(r.call);
    free(r.ram);
    assert_int_equal(fds(), r.fds);
    model.on = false;
}

static void device_up(void)
{
    assert_int_equal(tn_vsock_vhost_init(&r.d, &r.cfg), 0);
    tn_virtio_connect(&r.d.virtio, interrupt, NULL);
}

static void rig_up(void)
{
    memory_up();
    model_on(CAN);
    device_up();
}

static void rig_down(void)
{
    tn_vsock_vhost_close(&r.d);
    tn_vsock_vhost_close(&r.d);
    assert_int_equal(r.d.vhost.fd, -1);
    memory_down();
}

/* A driver that runs the device, whose queues the kernel has. */
static void driver_up(void)
{
    assert_true(vd_up(&r.g, ~0ull, 3, 16));
    tn_vsock_vhost_flush(&r.d);
    assert_true(runs());
    memset(r.interrupts, 0, sizeof(r.interrupts));
}

/* Gives queue i buffer n, of len bytes. */
static void give(uint32_t i, uint32_t n, uint32_t len, bool write)
{
    const struct vqd_buf buf = {BUF + 4096 * (32 * i + n % 32), len, write};

    assert_true(vd_add(&r.g, i, &buf, 1) >= 0);
}

static uint32_t taken(uint32_t i)
{
    uint32_t len = 0;

    assert_true(vd_reap(&r.g, i, &len) >= 0);
    return len;
}

static void none(uint32_t i)
{
    uint32_t len;

    assert_int_equal(vd_reap(&r.g, i, &len), -1);
}

static void save(struct tn_virtio_vsock_state *s)
{
    memset(s, 0xee, sizeof(*s));
    tn_vsock_vhost_save(&r.d, s);
}

/* ---- the model ---------------------------------------------------------------------------- */

static void refuses_what_makes_no_device(void **state)
{
    struct tn_vsock_vhost_cfg good;

    (void)state;
    memory_up();
    model_on(CAN);
    good = r.cfg;
#define BAD(field, value, claims)                                       \
    do {                                                                \
        r.cfg = good;                                                   \
        r.cfg.field = (value);                                          \
        model.opened = 0;                                               \
        assert_int_equal(tn_vsock_vhost_init(&r.d, &r.cfg), TN_EINVAL); \
        assert_int_equal(r.d.vhost.fd, -1);                             \
        assert_int_equal(model.opened, claims);                         \
        tn_vsock_vhost_close(&r.d);                                     \
    } while (0)
    BAD(mem, NULL, 0);
    BAD(again, NULL, 0);
    BAD(events, NULL, 0);
    BAD(queue_size, 512, 0);
    BAD(queue_size, 0, 1);
    BAD(queue_size, 48, 1);
    BAD(ring_features, TN_VIRTIO_F_IN_ORDER, 0);
    BAD(guest_cid, 0, 0);
    BAD(guest_cid, 2, 0);
    BAD(guest_cid, 0xffffffff, 0);
    BAD(guest_cid, 1ull << 32 | CID, 0);
    memory_down();
}

static void says_why_the_kernel_refuses(void **state)
{
    static const struct {
        int open_error;
        uint64_t can, cid;
        int result;
        enum tn_vhost_phase phase;
    } row[] = {
        {ENOENT, CAN, CID, TN_ENODEV, TN_VHOST_OPEN},
        {ENODEV, CAN, CID, TN_ENODEV, TN_VHOST_OPEN},
        {EACCES, CAN, CID, TN_ESYS, TN_VHOST_OPEN},
        {0, CAN & ~TN_VIRTIO_F_VERSION_1, CID, TN_EUNSUP, TN_VHOST_CAN},
        {0, CAN, TAKEN, TN_EEXIST, TN_VHOST_CID},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        memory_up();
        model_on(row[i].can);
        model.open_error = row[i].open_error;
        r.cfg.guest_cid = row[i].cid;
        assert_int_equal(tn_vsock_vhost_init(&r.d, &r.cfg), row[i].result);
        assert_int_equal(r.d.vhost.phase, row[i].phase);
        if (row[i].result == TN_ESYS)
            assert_int_equal(errno, row[i].open_error);
        rig_down();
    }
}

static void offers_what_the_kernel_has(void **state)
{
    static const struct {
        uint64_t can, rings;
        bool seqpacket;
        uint64_t offered;
    } row[] = {
        {CAN, TN_VIRTIO_F_RING, true, CAN | 1},
        {CAN, TN_VIRTIO_F_RING, false, (CAN | 1) & ~SEQ},
        {CAN & ~SEQ, TN_VIRTIO_F_RING, true, (CAN | 1) & ~SEQ},
        {CAN, 0, true, TN_VIRTIO_F_VERSION_1 | SEQ | 1},
        {CAN & ~TN_VIRTIO_F_EVENT_IDX, TN_VIRTIO_F_RING, true, (CAN | 1) & ~TN_VIRTIO_F_EVENT_IDX},
        {CAN | TN_VIRTIO_F_RING_PACKED, TN_VIRTIO_F_RING, true, CAN | 1},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        memory_up();
        model_on(row[i].can);
        r.cfg.ring_features = row[i].rings;
        r.cfg.seqpacket = row[i].seqpacket;
        device_up();
        assert_int_equal(r.d.virtio.cfg.features, row[i].offered);
        assert_int_equal(r.d.virtio.cfg.device_id, TN_VIRTIO_VSOCK_ID);
        assert_int_equal(tn_virtio_config_read(&r.d.virtio, 0, 4), CID);
        assert_int_equal(tn_virtio_config_read(&r.d.virtio, 4, 4), 0);
        assert_int_equal(kernel()->cid, CID);
        rig_down();
    }
}

static void hands_over_when_the_loop_comes(void **state)
{
    unsigned calls;

    (void)state;
    rig_up();
    tn_vsock_vhost_flush(&r.d);
    assert_int_equal(r.asked, 0); /* no driver */
    assert_true(vd_up(&r.g, ~0ull, 3, 16));
    assert_int_equal(r.turns, 1);
    vd_kick(&r.g, RX);
    vd_kick(&r.g, TX);
    assert_false(runs());
    tn_vsock_vhost_flush(&r.d);
    assert_true(runs());
    assert_int_equal(r.asked, 1);
    assert_int_equal(kernel()->features, CAN);
    assert_int_equal(kernel()->region[0].userspace_addr, (uintptr_t)r.ram);
    assert_int_equal(kernel()->region[0].memory_size, MIB);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(kernel()->ring[i].addr.desc_user_addr, (uintptr_t)r.ram + r.g.q[i].desc);
        assert_int_equal(kernel()->ring[i].num, 16);
        assert_int_equal(kernel()->ring[i].kick, r.kick[i]);
        assert_int_equal(kernel()->ring[i].call, r.call);
        assert_int_equal(count(r.kick[i]), 1); /* for what waits */
    }
    calls = model.calls;
    tn_vsock_vhost_flush(&r.d);
    tn_vsock_vhost_wake(&r.d);
    assert_int_equal(model.calls, calls); /* it has them */
    assert_int_equal(r.turns, 1);
    rig_down();
}

static void hands_nothing_over_without_both_queues(void **state)
{
    (void)state;
    rig_up();
    assert_true(vd_up(&r.g, ~0ull, 1, 16));
    tn_vsock_vhost_flush(&r.d);
    assert_int_equal(r.asked, 0);
    assert_int_equal(vd_status(&r.g), 15);
    assert_true(vd_up(&r.g, ~0ull, 2, 16));
    tn_vsock_vhost_flush(&r.d);
    assert_true(runs()); /* the event queue may be missing */
    assert_int_equal(tn_vsock_vhost_set_cid(&r.d, CID + 1), 0);
    tn_vsock_vhost_flush(&r.d);
    assert_int_equal(vd_status(&r.g), 15);
    rig_down();
}

static void takes_back_at_a_reset(void **state)
{
    (void)state;
    rig_up();
    for (uint32_t round = 0; round < 3; round++) {
        driver_up();
        for (uint32_t n = 0; n <= round; n++) {
            give(RX, n, 100, true);
            kernel_moves(RX, 10 + n);
        }
        vd_reset(&r.g);
        assert_false(runs());
        assert_false(r.d.queue[RX].q.started);
        assert_false(r.d.queue[TX].q.started);
        for (int i = 0; i < 2; i++)
            assert_int_equal(kernel()->ring[i].kick, -1);
        assert_int_equal(r.interrupts[RX] + r.interrupts[TX], 0);
        tn_vsock_vhost_flush(&r.d);
        assert_false(runs());
        for (uint32_t n = 0; n <= round; n++)
            assert_int_equal(taken(RX), 10 + n);
    }
    assert_int_equal(model.opened, 1);
    assert_int_equal(r.asked, 3);
    rig_down();
}

static void stands_still_and_goes_on(void **state)
{
    (void)state;
    rig_up();
    driver_up();
    for (uint32_t round = 0; round < 40; round++) {
        give(RX, round, 100, true);
        give(TX, round, 50, false);
        kernel_moves(RX, 30);
        if (round % 2 == 0)
            kernel_moves(TX, 0);
        assert_int_equal(r.interrupts[RX], round);
        tn_vsock_vhost_quiesce(&r.d);
        tn_vsock_vhost_quiesce(&r.d);
        assert_false(runs());
        assert_int_equal(r.interrupts[RX], round + 1); /* it may not have seen the kernel's */
        assert_int_equal(r.interrupts[TX], round + 1);
        assert_int_equal(r.d.queue[RX].q.next_avail, round + 1);
        assert_int_equal(r.d.queue[RX].q.next_used, round + 1);
        assert_int_equal(r.d.queue[TX].q.next_avail, round + (round + 1) % 2);
        tn_vsock_vhost_flush(&r.d);
        assert_false(runs());
        tn_vsock_vhost_wake(&r.d);
        assert_true(runs());
        assert_int_equal(taken(RX), 30);
        if (round % 2 == 1)
            kernel_moves(TX, 0);
        taken(TX);
    }
    /* A driver that comes while it stands still. */
    tn_vsock_vhost_quiesce(&r.d);
    assert_true(vd_up(&r.g, ~0ull, 3, 16));
    tn_vsock_vhost_flush(&r.d);
    assert_false(runs());
    tn_vsock_vhost_wake(&r.d);
    assert_true(runs());
    assert_int_equal(model.opened, 1);
    rig_down();
}

static uint64_t dirty_pages(void)
{
    uint64_t all[COUNT(r.dirty)] = {0};

    return (uint64_t)tn_mem_take_dirty(&r.mem, 0, all);
}

static void all_memory_counts_as_written(void **state)
{
    (void)state;
    rig_up();
    tn_vsock_vhost_quiesce(&r.d);
    tn_vsock_vhost_wake(&r.d);
    assert_int_equal(dirty_pages(), 0); /* the kernel never had it */
    driver_up();
    dirty_pages();
    tn_vsock_vhost_quiesce(&r.d);
    assert_int_equal(dirty_pages(), MIB / 4096);
    tn_vsock_vhost_quiesce(&r.d);
    assert_int_equal(dirty_pages(), 0);
    tn_vsock_vhost_wake(&r.d);
    vd_reset(&r.g);
    assert_int_equal(dirty_pages(), MIB / 4096);
    driver_up();
    dirty_pages();
    tn_vsock_vhost_close(&r.d);
    assert_int_equal(dirty_pages(), MIB / 4096);
    rig_down();
}

static void restored(void)
{
    struct tn_virtio_vsock_state s;

    tn_vsock_vhost_quiesce(&r.d);
    save(&s);
    assert_int_equal(tn_vsock_vhost_restore(&r.d, &s), 0);
    tn_vsock_vhost_wake(&r.d);
}

static void tells_of_lost_connections(void **state)
{
    (void)state;
    rig_up();
    driver_up();
    for (uint32_t n = 0; n < 4; n++)
        give(EVENT, n, n < 2 ? n : 100, true);
    vd_kick(&r.g, EVENT);
    none(EVENT); /* nothing is to be told */
    memset(r.ram + BUF + 4096 * 66, 0xee, 4096);
    restored();
    assert_int_equal(taken(EVENT), 0); /* too small */
    assert_int_equal(taken(EVENT), 0);
    assert_int_equal(taken(EVENT), 4);
    assert_int_equal(test_le(r.ram + BUF + 4096 * 66, 8), 0xeeeeeeee00000000); /* id 0 */
    vd_kick(&r.g, EVENT);
    none(EVENT); /* once */
    assert_int_equal(r.interrupts[EVENT], 1);
    restored();
    assert_int_equal(taken(EVENT), 4);
    restored();
    none(EVENT); /* no buffer yet */
    give(EVENT, 4, 3, true);
    vd_kick(&r.g, EVENT);
    assert_int_equal(taken(EVENT), 0);
    give(EVENT, 5, 4, true);
    tn_vsock_vhost_quiesce(&r.d);
    vd_kick(&r.g, EVENT);
    none(EVENT);
    tn_vsock_vhost_wake(&r.d);
    assert_int_equal(taken(EVENT), 4);
    restored();
    vd_reset(&r.g); /* that driver will not be told */
    driver_up();
    give(EVENT, 0, 4, true);
    vd_kick(&r.g, EVENT);
    none(EVENT);
    rig_down();
}

/* Chains that are too small cannot keep the loop. */
static void takes_turns_with_small_buffers(void **state)
{
    const struct vqd_buf buf = {BUF, 1, true};

    (void)state;
    rig_up();
    r.g.start = 0x1000;
    assert_true(vd_up(&r.g, ~0ull, 3, 64));
    tn_vsock_vhost_flush(&r.d);
    r.turns = 0;
    restored();
    for (int i = 0; i < 64; i++)
        assert_true(vd_add(&r.g, EVENT, &buf, 1) >= 0);
    vd_kick(&r.g, EVENT);
    assert_int_equal(r.turns, 1);
    for (int i = 0; i < 64; i++)
        assert_int_equal(taken(EVENT), 0);
    give(EVENT, 0, 4, true);
    tn_vsock_vhost_flush(&r.d);
    assert_int_equal(taken(EVENT), 4);
    rig_down();
}

static void a_broken_event_queue_ends_all(void **state)
{
    (void)state;
    for (int how = 0; how < 2; how++) {
        rig_up();
        driver_up();
        restored();
        if (how == 0) {
            give(EVENT, 0, 100, false);
        } else {
            give(EVENT, 0, 100, true);
            vqd_desc(&r.g.q[EVENT], r.g.q[EVENT].desc, 2 * MIB, 100, VQD_WRITE, 0);
        }
        vd_kick(&r.g, EVENT);
        assert_int_equal(vd_status(&r.g), 15 | TN_VIRTIO_S_NEEDS_RESET);
        assert_false(runs());
        assert_int_equal(r.interrupts[3], 1);
        tn_vsock_vhost_flush(&r.d);
        assert_false(runs());
        driver_up();
        rig_down();
    }
}

static void a_new_cid_is_claimed_first(void **state)
{
    uint32_t generation;
    int fd;

    (void)state;
    rig_up();
    assert_int_equal(tn_vsock_vhost_set_cid(&r.d, CID + 1), 0); /* no driver */
    assert_int_equal(r.turns, 0);
    assert_int_equal(kernel()->cid, CID + 1);
    driver_up();
    give(RX, 0, 100, true);
    give(EVENT, 0, 100, true);
    kernel_moves(RX, 44);
    generation = r.d.virtio.generation;
    fd = r.d.vhost.fd;
    assert_int_equal(tn_vsock_vhost_set_cid(&r.d, CID + 1), 0);
    assert_int_equal(tn_vsock_vhost_set_cid(&r.d, 2), TN_EINVAL);
    assert_int_equal(tn_vsock_vhost_set_cid(&r.d, 0xffffffff), TN_EINVAL);
    assert_int_equal(tn_vsock_vhost_set_cid(&r.d, TAKEN), TN_EEXIST);
    model.open_error = EMFILE;
    assert_int_equal(tn_vsock_vhost_set_cid(&r.d, CID), TN_ESYS);
    assert_int_equal(errno, EMFILE);
    model.open_error = 0;
    assert_int_equal(r.d.vhost.fd, fd);
    assert_true(runs());
    assert_int_equal(r.d.virtio.generation, generation);
    assert_int_equal(r.interrupts[3], 0);
    assert_int_equal(r.turns, 1); /* the driver's */
    r.turns = 0;

    assert_int_equal(tn_vsock_vhost_set_cid(&r.d, CID), 0);
    assert_int_equal(r.turns, 1);
    assert_int_equal(kernel()->cid, CID);
    assert_false(model.at[fd].open); /* its connections are reset */
    assert_int_equal(tn_virtio_config_read(&r.d.virtio, 0, 4), CID);
    assert_int_equal(r.d.virtio.generation, generation + 1);
    assert_int_equal(r.interrupts[3], 1);
    none(EVENT);
    tn_vsock_vhost_flush(&r.d);
    assert_true(runs());
    assert_int_equal(kernel()->ring[RX].base, 1);
    assert_int_equal(taken(EVENT), 4);
    assert_int_equal(taken(RX), 44);
    give(RX, 1, 100, true);
    kernel_moves(RX, 45);
    assert_int_equal(taken(RX), 45);
    rig_down();
}

static void refuses_states_that_cannot_be(void **state)
{
    struct tn_virtio_vsock_state good, s, after;

    (void)state;
    rig_up();
    driver_up();
    give(RX, 0, 100, true);
    kernel_moves(RX, 44);
    tn_vsock_vhost_quiesce(&r.d);
    save(&good);
    assert_int_equal(good.guest_cid, CID);
    assert_int_equal(good.virtio.queue[RX].ring.next_used, 1);
#define WRONG(result, field, value)                                 \
    do {                                                            \
        s = good;                                                   \
        s.field = (value);                                          \
        assert_int_equal(tn_vsock_vhost_restore(&r.d, &s), result); \
        save(&after);                                               \
        assert_memory_equal(&after, &good, sizeof(good));           \
        assert_non_null(kernel());                                  \
    } while (0)
    WRONG(TN_EUNSUP, version, 0);
    WRONG(TN_EUNSUP, version, 2);
    WRONG(TN_EFORMAT, zero, 1);
    WRONG(TN_EFORMAT, guest_cid, 2);
    WRONG(TN_EFORMAT, guest_cid, 0xffffffff);
    WRONG(TN_EFORMAT, guest_cid, 1ull << 32);
    WRONG(TN_EFORMAT, virtio.queue[RX].ring.next_avail, 2);
    WRONG(TN_EFORMAT, virtio.queue[TX].ring.next_used, 0xffff);
    WRONG(TN_EFORMAT, virtio.queue[EVENT].ring.next_avail, 1);
    WRONG(TN_EUNSUP, virtio.version, 0);
    WRONG(TN_EUNSUP, virtio.device_id, 1);
    WRONG(TN_EUNSUP, virtio.queues, 2);
    WRONG(TN_EUNSUP, virtio.features, good.virtio.features | TN_VIRTIO_F_RING_PACKED);
    WRONG(TN_EFORMAT, virtio.status, 16);
    WRONG(TN_EFORMAT, virtio.queue[RX].ring.started, 0);
    WRONG(TN_EFORMAT, virtio.queue[RX].ring.desc, 16);
    /* One that is found out late leaves a device that was reset. */
    s = good;
    s.virtio.queue[RX].desc = s.virtio.queue[RX].ring.desc = MIB - 16;
    assert_int_equal(tn_vsock_vhost_restore(&r.d, &s), TN_EADDR);
    assert_int_equal(tn_virtio_status_read(&r.d.virtio), 0);
    tn_vsock_vhost_wake(&r.d);
    assert_false(runs());
    assert_int_equal(tn_vsock_vhost_restore(&r.d, &good), 0);
    tn_vsock_vhost_wake(&r.d);
    assert_int_equal(kernel()->ring[RX].base, 1);
    rig_down();
}

static void the_restored_has_the_cid_that_it_is_given(void **state)
{
    struct tn_virtio_vsock_state s;

    (void)state;
    rig_up();
    driver_up();
    give(EVENT, 0, 100, true);
    tn_vsock_vhost_quiesce(&r.d);
    save(&s);

    /* Another one, as a clone: its CID is claimed already, the guest is told in the end. */
    tn_vsock_vhost_close(&r.d);
    r.cfg.guest_cid = CID + 5;
    device_up();
    assert_int_equal(tn_vsock_vhost_restore(&r.d, &s), 0);
    assert_int_equal(model.opened, 2);
    assert_int_equal(kernel()->cid, CID + 5);
    assert_int_equal(tn_virtio_config_read(&r.d.virtio, 0, 4), CID);
    r.turns = r.interrupts[3] = 0;
    assert_int_equal(tn_vsock_vhost_set_cid(&r.d, CID + 5), 0);
    assert_int_equal(model.opened, 2);
    assert_int_equal(tn_virtio_config_read(&r.d.virtio, 0, 4), CID + 5);
    assert_int_equal(r.interrupts[3], 1);
    tn_vsock_vhost_flush(&r.d); /* the loop's turn is too early */
    assert_false(runs());
    none(EVENT);
    tn_vsock_vhost_wake(&r.d);
    assert_true(runs());
    assert_int_equal(taken(EVENT), 4);
    assert_int_equal(tn_vsock_vhost_set_cid(&r.d, CID + 5), 0);
    assert_true(runs());

    /* The same one anew: the host's connections do not outlive that. */
    give(EVENT, 1, 100, true);
    tn_vsock_vhost_quiesce(&r.d);
    save(&s);
    assert_int_equal(tn_vsock_vhost_restore(&r.d, &s), 0);
    assert_null(kernel());
    assert_int_equal(tn_vsock_vhost_set_cid(&r.d, CID + 5), 0);
    assert_int_equal(model.opened, 3);
    assert_int_equal(r.interrupts[3], 1); /* the guest knows that one */
    tn_vsock_vhost_wake(&r.d);
    assert_true(runs());
    assert_int_equal(taken(EVENT), 4);

    /* Who does not say which gets the state's. */
    s.guest_cid = CID + 6;
    assert_int_equal(tn_vsock_vhost_restore(&r.d, &s), 0);
    tn_vsock_vhost_wake(&r.d);
    assert_true(runs());
    assert_int_equal(kernel()->cid, CID + 6);
    tn_vsock_vhost_close(&r.d);
    device_up();
    assert_int_equal(kernel()->cid, CID + 5);
    assert_int_equal(tn_vsock_vhost_restore(&r.d, &s), 0);
    assert_int_equal(kernel()->cid, CID + 5);
    tn_vsock_vhost_wake(&r.d);
    assert_true(runs());
    assert_int_equal(kernel()->cid, CID + 6);
    s.guest_cid = TAKEN;
    assert_int_equal(tn_vsock_vhost_restore(&r.d, &s), 0);
    tn_vsock_vhost_wake(&r.d);
    assert_int_equal(vd_status(&r.g), 15 | TN_VIRTIO_S_NEEDS_RESET);
    assert_int_equal(tn_vsock_vhost_set_cid(&r.d, CID), 0);
    driver_up();
    rig_down();
}

/* ---- the other kind: tn_virtio_vsock ---- */

static void no_conn(void *ctx, struct tn_virtio_vsock_conn *conn)
{
    (void)ctx, (void)conn;
}

static void no_data(void *ctx, struct tn_virtio_vsock_conn *conn, const struct tn_iov *iov,
                    uint32_t n, uint32_t len, uint32_t flags)
{
    (void)ctx, (void)conn, (void)iov, (void)n, (void)len, (void)flags;
}

static void no_shutdown(void *ctx, struct tn_virtio_vsock_conn *conn, uint32_t flags)
{
    (void)ctx, (void)conn, (void)flags;
}

static void no_closed(void *ctx, struct tn_virtio_vsock_conn *conn, enum tn_virtio_vsock_why why)
{
    (void)ctx, (void)conn, (void)why;
}

static void no_again(void *ctx)
{
    (void)ctx;
}

static void no_later(void *ctx, uint64_t ns)
{
    (void)ctx, (void)ns;
}

static uint64_t no_now(void *ctx)
{
    (void)ctx;
    return 0;
}

static const struct tn_virtio_vsock_ops no_ops = {
    no_conn, no_conn, no_data, no_shutdown, no_closed, no_conn, no_again, no_later, no_now};

static void a_state_moves_between_the_kinds(void **state)
{
    static struct tn_virtio_vsock other;
    static struct tn_virtio_vsock_conn conn[4];
    struct tn_virtio_vsock_state s, t;
    struct tn_virtio_vsock_cfg cfg;

    (void)state;
    rig_up();
    memset(&cfg, 0, sizeof(cfg));
    cfg.mem = &r.mem;
    cfg.queue_size = r.cfg.queue_size;
    cfg.ring_features = TN_VIRTIO_F_RING;
    cfg.guest_cid = CID + 9;
    cfg.seqpacket = true;
    cfg.buf_alloc = 65536;
    cfg.conn = conn;
    cfg.conns = COUNT(conn);
    cfg.ops = &no_ops;
    assert_int_equal(tn_virtio_vsock_init(&other, &cfg), 0);
    driver_up();
    for (uint32_t n = 0; n < 3; n++) {
        give(RX, n, 100, true);
        give(EVENT, n, 100, true);
    }
    kernel_moves(RX, 44);
    kernel_moves(RX, 44);
    for (int round = 0; round < 3; round++) {
        tn_vsock_vhost_quiesce(&r.d);
        save(&s);
        assert_int_equal(tn_virtio_vsock_restore(&other, &s), 0);
        memset(&t, 0xdd, sizeof(t));
        tn_virtio_vsock_save(&other, &t);
        assert_memory_equal(&s, &t, sizeof(s));
        tn_virtio_vsock_flush(&other);
        tn_virtio_vsock_save(&other, &t);
        assert_int_equal(tn_vsock_vhost_restore(&r.d, &t), 0);
        save(&s);
        assert_memory_equal(&s, &t, sizeof(s));
        if (round == 0) {
            assert_int_equal(taken(EVENT), 4);
            assert_int_equal(taken(RX), 44);
            assert_int_equal(taken(RX), 44);
        }
        tn_vsock_vhost_wake(&r.d);
        assert_true(runs());
        give(RX, 3, 100, true);
        kernel_moves(RX, 46);
        assert_int_equal(taken(RX), 46);
    }
    assert_int_equal(taken(EVENT), 4);
    assert_int_equal(taken(EVENT), 4);
    /* Packed rings are not the kernel's. */
    r.g.v = &other.virtio;
    assert_true(vd_up(&r.g, TN_VIRTIO_F_RING_PACKED, 3, 16));
    tn_virtio_vsock_save(&other, &t);
    assert_int_equal(tn_vsock_vhost_restore(&r.d, &t), TN_EUNSUP);
    rig_down();
}

/* Each call of the kernel's fails once; a reset always leads back. */
static void ends_well_when_a_call_fails(void **state)
{
    (void)state;
    for (unsigned n = 1;; n++) {
        unsigned init;

        rig_up();
        init = model.calls;
        model.fail_at = init + n;
        assert_true(vd_up(&r.g, ~0ull, 3, 16));
        tn_vsock_vhost_flush(&r.d);
        if (model.failed == 0) {
            assert_true(runs());
            tn_vsock_vhost_quiesce(&r.d);
        }
        if (model.failed == 0) {
            rig_down();
            assert_true(n > 12);
            break;
        }
        if (vd_status(&r.g) == 15) { /* a descriptor that stays with the kernel until next time */
            assert_int_equal(model.failed == VHOST_SET_VRING_KICK ||
                                 model.failed == VHOST_SET_VRING_CALL ||
                                 model.failed == VHOST_SET_VRING_ERR,
                             1);
        } else {
            assert_int_equal(vd_status(&r.g), 15 | TN_VIRTIO_S_NEEDS_RESET);
            assert_null(kernel());
        }
        tn_vsock_vhost_wake(&r.d);
        driver_up();
        assert_int_equal(kernel()->cid, CID);
        rig_down();
    }
}

/* ---- in a machine's place, without a machine ---- */

struct place {
    struct tn_loop loop;
    struct tn_vm_vsock vsock;
    struct tn_vm_vsock_cfg cfg;
    unsigned notified[3];
};
static struct place p;

static void irq(void *ctx, bool level)
{
    (void)ctx, (void)level;
}

static void on_notified(void *ctx, uint64_t n)
{
    (void)n;
    p.notified[(uintptr_t)ctx]++;
}

static void place_up(void)
{
    struct tn_vm_virtio *slot = &p.vsock.slot;

    memset(&p, 0, sizeof(p));
    p.cfg.cid = CID;
    p.cfg.vhost = true;
    assert_int_equal(tn_loop_init(&p.loop), 0);
    assert_int_equal(tn_vm_vsock_init(&p.vsock, &p.cfg, TN_VIRTIO_F_RING, &r.mem), 0);
    assert_ptr_equal(tn_vm_vsock_virtio(&p.vsock), &p.vsock.kernel.virtio);
    pthread_mutex_init(&slot->lock, NULL);
    slot->v = tn_vm_vsock_virtio(&p.vsock);
    slot->irq = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_int_equal(tn_virtio_mmio_init(&slot->mmio, slot->v, irq, NULL), 0);
    for (uintptr_t i = 0; i < 3; i++) {
        slot->notify[i].slot = slot;
        assert_int_equal(
            tn_loop_event_init(&slot->notify[i].event, &p.loop, on_notified, (void *)i), 0);
    }
    assert_int_equal(tn_vm_vsock_listen(&p.vsock, &p.loop), 0);
    r.g.v = slot->v;
}

static void turn(void)
{
    while (tn_loop_step(&p.loop, 0) > 0)
        ;
}

static void in_a_place_the_loop_lets_go(void **state)
{
    struct tn_virtio_vsock_state s;
    struct instance *k;

    (void)state;
    memory_up();
    model_on(CAN);
    memset(&p, 0, sizeof(p));
    p.cfg.cid = CID;
    p.cfg.vhost = true;
    p.cfg.path = "/tmp/x";
    assert_int_equal(tn_vm_vsock_init(&p.vsock, &p.cfg, 0, &r.mem), TN_EINVAL);
    tn_vm_vsock_close(&p.vsock);
    p.cfg.path = "";
    p.cfg.cid = 2;
    assert_int_equal(tn_vm_vsock_init(&p.vsock, &p.cfg, 0, &r.mem), TN_EINVAL);
    p.cfg.cid = TAKEN;
    assert_int_equal(tn_vm_vsock_init(&p.vsock, &p.cfg, 0, &r.mem), TN_EEXIST);
    model.open_error = ENOENT;
    p.cfg.cid = CID;
    assert_int_equal(tn_vm_vsock_init(&p.vsock, &p.cfg, 0, &r.mem), TN_ENODEV);
    tn_vm_vsock_close(&p.vsock);
    model.open_error = 0;

    place_up();
    assert_int_equal(p.vsock.slot.mmio.always, 0);
    assert_true(vd_up(&r.g, ~0ull, 3, 16));
    k = &model.at[p.vsock.kernel.vhost.fd];
    for (unsigned i = 0; i < 3; i++)
        tn_loop_event_signal(&p.vsock.slot.notify[i].event);
    assert_false(k->running);
    turn();
    assert_true(k->running);
    assert_int_equal(p.vsock.slot.mmio.always, TN_VIRTIO_MMIO_INT_VRING);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(k->ring[i].kick, p.vsock.slot.notify[i].event.source.fd);
        assert_int_equal(k->ring[i].call, p.vsock.slot.irq);
        assert_true(count(k->ring[i].kick) > 0);
    }
    memset(p.notified, 0, sizeof(p.notified));
    for (unsigned i = 0; i < 3; i++)
        tn_loop_event_signal(&p.vsock.slot.notify[i].event);
    turn();
    assert_int_equal(p.notified[0] + p.notified[1], 0);
    assert_int_equal(p.notified[2], 1);

    tn_vm_vsock_quiesce(&p.vsock);
    assert_false(k->running);
    pthread_mutex_lock(&p.vsock.slot.lock);
    tn_vm_vsock_save(&p.vsock, &s);
    s.guest_cid = CID + 1;
    assert_int_equal(tn_vm_vsock_restore(&p.vsock, &s), 0);
    assert_int_equal(tn_vm_vsock_set_cid(&p.vsock, CID), 0);
    pthread_mutex_unlock(&p.vsock.slot.lock);
    turn();
    k = &model.at[p.vsock.kernel.vhost.fd];
    assert_false(k->running);
    tn_vm_vsock_wake(&p.vsock);
    assert_true(k->running);
    assert_int_equal(k->cid, CID);
    tn_vm_vsock_close(&p.vsock);
    tn_vm_vsock_close(&p.vsock);
    tn_loop_close(&p.loop);
    memory_down();
}

/* ---- the kernel --------------------------------------------------------------------------- */

static int call_guest(uint32_t cid, uint32_t port)
{
    int s = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), result;
    struct sockaddr_vm addr;

    memset(&addr, 0, sizeof(addr));
    addr.svm_family = AF_VSOCK;
    addr.svm_cid = cid;
    addr.svm_port = port;
    assert_true(s >= 0);
    result = connect(s, (struct sockaddr *)&addr, sizeof(addr));
    assert_true(result == -1 && errno == EINPROGRESS);
    return s;
}

/* The next packet for the guest, which the kernel interrupts for. */
static const uint8_t *packet(uint32_t *len)
{
    struct pollfd poller = {r.call, POLLIN, 0};
    int id = -1;

    for (int tries = 0; tries < 3 && id < 0; tries++) {
        id = vd_reap(&r.g, RX, len);
        if (id < 0 && poll(&poller, 1, 5000) == 1)
            count(r.call);
    }
    assert_true(id >= 0);
    if (r.g.q[RX].event_idx)
        vqd_interrupt_at(&r.g.q[RX], r.g.q[RX].reaped);
    return r.ram + vqd_get(&r.g.q[RX], r.g.q[RX].desc + 16u * (unsigned)id, 8);
}

static void the_kernel_moves_packets(void **state)
{
    uint32_t cid = 0x10000u + (uint32_t)getpid(), len = 0;
    struct tn_vsock_vhost_cfg cfg;
    struct tn_vsock_vhost second;
    uint8_t answer[44];
    const uint8_t *got;
    struct pollfd poller;
    uint64_t one = 1;
    int s;

    (void)state;
    if (access("/dev/vhost-vsock", R_OK | W_OK) != 0)
        SKIP("/dev/vhost-vsock is missing or may not be opened");
    memory_up();
    r.cfg.guest_cid = cid;
    device_up();
    cfg = r.cfg;
    assert_int_equal(tn_vsock_vhost_init(&second, &cfg), TN_EEXIST);
    assert_true(vd_up(&r.g, ~0ull, 3, 16));
    for (uint32_t n = 0; n < 4; n++) {
        give(RX, n, 4096, true);
        give(EVENT, n, 64, true);
    }
    tn_vsock_vhost_flush(&r.d);
    for (uint32_t round = 0; round < 2; round++) {
        s = call_guest(cid, 1234 + round);
        got = packet(&len);
        assert_int_equal(len, 44);
        assert_int_equal(test_le(got, 8), 2);
        assert_int_equal(test_le(got + 8, 8), cid);
        assert_int_equal(test_le(got + 20, 4), 1234 + round);
        assert_int_equal(test_le(got + 30, 2), TN_VIRTIO_VSOCK_OP_REQUEST);

        /* The guest says yes, and the host hears it, though all was taken back in between. */
        tn_vsock_vhost_quiesce(&r.d);
        tn_vsock_vhost_wake(&r.d);
        memset(answer, 0, sizeof(answer));
        tn_put_(answer, 8, cid);
        tn_put_(answer + 8, 8, 2);
        tn_put_(answer + 16, 4, 1234 + round);
        memcpy(answer + 20, got + 16, 4);
        tn_put_(answer + 28, 2, 1);
        tn_put_(answer + 30, 2, TN_VIRTIO_VSOCK_OP_RESPONSE);
        tn_put_(answer + 36, 4, 65536);
        memcpy(r.ram + BUF + 4096 * (32 + round), answer, sizeof(answer));
        give(TX, round, sizeof(answer), false);
        assert_int_equal(write(r.kick[TX], &one, sizeof(one)), sizeof(one));
        poller.fd = s;
        poller.events = POLLOUT;
        assert_int_equal(poll(&poller, 1, 5000), 1);
        assert_int_equal(poller.revents & (POLLOUT | POLLHUP | POLLERR), POLLOUT);

        /* Another CID, or another state, is the end of it for the host, too. */
        if (round == 0) {
            assert_int_equal(tn_vsock_vhost_set_cid(&r.d, ++cid), 0);
            tn_vsock_vhost_flush(&r.d);
        } else {
            restored();
        }
        poller.events = POLLIN;
        assert_int_equal(poll(&poller, 1, 5000), 1);
        assert_int_equal(recv(s, answer, 1, 0), -1);
        assert_int_equal(errno, ECONNRESET);
        assert_int_equal(taken(EVENT), 4);
        close(s);
    }
    rig_down();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_makes_no_device),
        cmocka_unit_test(says_why_the_kernel_refuses),
        cmocka_unit_test(refuses_states_that_cannot_be),
        cmocka_unit_test(offers_what_the_kernel_has),
        cmocka_unit_test(hands_over_when_the_loop_comes),
        cmocka_unit_test(hands_nothing_over_without_both_queues),
        cmocka_unit_test(takes_back_at_a_reset),
        cmocka_unit_test(stands_still_and_goes_on),
        cmocka_unit_test(all_memory_counts_as_written),
        cmocka_unit_test(tells_of_lost_connections),
        cmocka_unit_test(takes_turns_with_small_buffers),
        cmocka_unit_test(a_broken_event_queue_ends_all),
        cmocka_unit_test(a_new_cid_is_claimed_first),
        cmocka_unit_test(the_restored_has_the_cid_that_it_is_given),
        cmocka_unit_test(a_state_moves_between_the_kinds),
        cmocka_unit_test(ends_well_when_a_call_fails),
        cmocka_unit_test(in_a_place_the_loop_lets_go),
        cmocka_unit_test(the_kernel_moves_packets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
