/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vhost: against a model of the kernel's side, which knows what vhost refuses and in which
 * order, and fails at any call; then against the kernel itself, with a TAP in a network namespace
 * of this process, skipped by name where it has no vhost.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/vhost.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static int test_open(const char *path, int flags);
static int test_ioctl(int fd, unsigned long request, ...);

#define open(path, flags) test_open(path, flags)
#define ioctl             test_ioctl
#include "tn_vhost.h"
#undef open
#undef ioctl
#include "tn_tap.h"

#include "test.h"
#include "virtq_driver.h"

#define MIB  (1u << 20)
#define CAN  (TN_VIRTIO_F_VERSION_1 | TN_VIRTIO_F_EVENT_IDX | TN_VIRTIO_F_INDIRECT_DESC)
#define MRG  (1ull << 15)
#define LOG  (1ull << VHOST_F_LOG_ALL)
#define SEQ  (1ull << 1)
#define HIGH (1ull << 32) /* guest address of the second region */

/* ---- a model of the kernel's side --------------------------------------------------------- */

static struct model {
    bool on; /* else calls go to the kernel */
    int fd, open_error;
    uint64_t can;
    bool owner, memory;
    uint64_t features, log, cid;
    int running;
    uint32_t regions;
    struct vhost_memory_region region[TN_VHOST_REGIONS];
    struct {
        uint32_t num, base;
        struct vhost_vring_addr addr;
        int kick, call, err;
        int backend; /* -1: none */
    } ring[2];
    unsigned calls, fail_at; /* fail_at: 0: never */
    unsigned long failed, last;
} model;

static void model_on(uint64_t can)
{
    memset(&model, 0, sizeof(model));
    model.on = true;
    model.fd = -1;
    model.can = can;
    for (int i = 0; i < 2; i++)
        model.ring[i].kick = model.ring[i].call = model.ring[i].err = model.ring[i].backend = -1;
}

static int test_open(const char *path, int flags)
{
    if (!model.on)
        return open(path, flags);
    assert_true(flags & O_CLOEXEC);
    if (model.open_error) {
        errno = model.open_error;
        if (model.open_error == EINTR)
            model.open_error = 0;
        return -1;
    }
    model.fd = open("/dev/null", flags);
    return model.fd;
}

static int no(int error)
{
    errno = error;
    return -1;
}

/* Whether a guest's range is memory, and its host address is right. */
static bool known(uint64_t host, uint64_t len)
{
    for (uint32_t i = 0; i < model.regions; i++)
        if (host >= model.region[i].userspace_addr &&
            host - model.region[i].userspace_addr <= model.region[i].memory_size - len)
            return true;
    return false;
}

static bool rings_right(uint32_t i)
{
    return known(model.ring[i].addr.desc_user_addr, 16ull * model.ring[i].num) &&
           known(model.ring[i].addr.avail_user_addr, 6 + 2ull * model.ring[i].num) &&
           known(model.ring[i].addr.used_user_addr, 6 + 8ull * model.ring[i].num) && model.memory &&
           model.features != 0;
}

static int model_ring(unsigned long request, void *arg)
{
    struct vhost_vring_state *s = arg;
    struct vhost_vring_file *f = arg;
    struct vhost_vring_addr *a = arg;
    bool busy;

    if (s->index > 1)
        return no(ENOBUFS);
    busy = model.ring[s->index].backend >= 0 || model.running;
    switch (request) {
    case VHOST_SET_VRING_NUM:
        if (busy)
            return no(EBUSY);
        if (s->num == 0 || s->num > 0xffff || (s->num & (s->num - 1)) != 0)
            return no(EINVAL);
        model.ring[s->index].num = s->num;
        return 0;
    case VHOST_SET_VRING_BASE:
        if (busy)
            return no(EBUSY);
        if (s->num > 0xffff)
            return no(EINVAL);
        model.ring[s->index].base = s->num;
        return 0;
    case VHOST_GET_VRING_BASE:
        assert_false(busy); /* it would run on */
        s->num = model.ring[s->index].base;
        return 0;
    case VHOST_SET_VRING_ADDR:
        if ((a->flags & ~(1u << VHOST_VRING_F_LOG)) != 0)
            return no(EOPNOTSUPP);
        if (a->avail_user_addr % 2 != 0 || a->used_user_addr % 4 != 0 || a->log_guest_addr % 4 != 0)
            return no(EINVAL);
        model.ring[a->index].addr = *a;
        return 0;
    case VHOST_SET_VRING_KICK:
        model.ring[f->index].kick = f->fd;
        return 0;
    case VHOST_SET_VRING_CALL:
        model.ring[f->index].call = f->fd;
        return 0;
    case VHOST_SET_VRING_ERR:
        model.ring[f->index].err = f->fd;
        return 0;
    case VHOST_NET_SET_BACKEND:
        if (f->fd >= 0 && !rings_right(f->index))
            return no(EFAULT);
        model.ring[f->index].backend = f->fd;
        return 0;
    default:
        return no(ENOTTY);
    }
}

static int model_ioctl(unsigned long request, void *arg)
{
    model.calls++;
    if (model.calls == model.fail_at) {
        model.failed = request;
        return no(EIO);
    }
    model.last = request;
    if (request == VHOST_SET_OWNER) {
        if (model.owner)
            return no(EBUSY);
        model.owner = true;
        return 0;
    }
    if (request == VHOST_GET_FEATURES) {
        *(uint64_t *)arg = model.can;
        return 0;
    }
    if (!model.owner)
        return no(EPERM);
    switch (request) {
    case VHOST_SET_FEATURES:
        model.features = *(uint64_t *)arg;
        if ((model.features & ~model.can) != 0)
            return no(EOPNOTSUPP);
        return (model.features & LOG) != 0 && model.log == 0 ? no(EFAULT) : 0;
    case VHOST_SET_MEM_TABLE: {
        const struct vhost_memory *m = arg;

        assert_int_equal(m->padding, 0);
        model.memory = true;
        model.regions = m->nregions;
        if (m->nregions > TN_VHOST_REGIONS)
            return no(E2BIG);
        memcpy(model.region, m->regions, m->nregions * sizeof(m->regions[0]));
        for (uint32_t i = 0; i < m->nregions; i++)
            assert_int_equal(m->regions[i].flags_padding, 0);
        return 0;
    }
    case VHOST_SET_LOG_BASE:
        model.log = *(uint64_t *)arg;
        return 0;
    case VHOST_VSOCK_SET_GUEST_CID:
        model.cid = *(uint64_t *)arg;
        return model.cid <= 2 ? no(EINVAL) : model.cid == 77 ? no(EADDRINUSE) : 0;
    case VHOST_VSOCK_SET_RUNNING:
        if (*(int *)arg && (!rings_right(0) || !rings_right(1)))
            return no(EFAULT);
        model.running = *(int *)arg;
        return 0;
    default:
        return model_ring(request, arg);
    }
}

static int test_ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    void *arg;

    va_start(args, request);
    arg = va_arg(args, void *);
    va_end(args);
    if (!model.on)
        return ioctl(fd, request, arg);
    assert_int_equal(fd, model.fd);
    return model_ioctl(request, arg);
}

/* ---- the rig: memory, a driver's rings ---------------------------------------------------- */

static struct rig {
    struct tn_mem_region table[TN_VHOST_REGIONS + 1];
    struct tn_mem mem;
    uint8_t *low, *high; /* 2 MiB at 0, 1 MiB at HIGH */
    uint64_t dirty[2][8];
    struct vqd d[2];
    struct tn_virtq q[2];
    int kick[2], call[2], err;
    struct tn_vhost v;
    uint64_t *log;
    size_t words;
    int fds;
} r;

static int fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static uint8_t *map(size_t len)
{
    uint8_t *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_true(p != MAP_FAILED);
    return p;
}

/* A driver that has set two queues of 16 up, and what the device would hand over. */
static void rig_up(bool event_idx)
{
    struct tn_virtq_cfg cfg = {0, 0, 0, 16, false, event_idx, true, false};
    uint64_t at = 0x1000;

    memset(&r, 0, sizeof(r));
    r.fds = fds();
    r.low = map(2 * MIB);
    r.high = map(MIB);
    tn_mem_init(&r.mem, r.table, COUNT(r.table));
    assert_int_equal(tn_mem_add(&r.mem, 0, r.low, 2 * MIB), 0);
    assert_int_equal(tn_mem_add(&r.mem, HIGH, r.high, MIB), 0);
    assert_int_equal(tn_mem_track(&r.mem, 0, r.dirty[0]), 0);
    assert_int_equal(tn_mem_track(&r.mem, 1, r.dirty[1]), 0);
    r.words = tn_vhost_log_words(&r.mem);
    assert_int_equal(r.words, (HIGH + MIB) / 4096 / 64);
    r.log = (uint64_t *)(void *)map(r.words * 8);
    for (int i = 0; i < 2; i++) {
        at = vqd_init(&r.d[i], r.low, 0, at, 16, false, event_idx);
        cfg.desc = r.d[i].desc;
        cfg.driver = r.d[i].driver;
        cfg.device = r.d[i].device;
        tn_virtq_init(&r.q[i]);
        assert_int_equal(tn_virtq_start(&r.q[i], &r.mem, &cfg), 0);
        r.kick[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        r.call[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    }
    r.err = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    r.v.fd = -1;
}

static void rig_down(void)
{
    tn_vhost_close(&r.v);
    tn_vhost_close(&r.v);
    for (int i = 0; i < 2; i++) {
        close(r.kick[i]);
        close(r.call[i]);
        vqd_free(&r.d[i]);
    }
    close(r.err);
    munmap(r.low, 2 * MIB);
    munmap(r.high, MIB);
    munmap(r.log, r.words * 8);
    assert_int_equal(fds(), r.fds);
    model.on = false;
}

static uint64_t count(int fd)
{
    uint64_t n = 0;

    return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static void state_of(uint32_t i, struct tn_virtq_state *s)
{
    memset(s, 0xee, sizeof(*s));
    tn_virtq_save(&r.q[i], s);
}

static int start(uint32_t i, const struct tn_virtq_state *s)
{
    return tn_vhost_start(&r.v, i, s, r.kick[i], r.call[i], r.err);
}

/* ---- the model ---------------------------------------------------------------------------- */

static void opens_or_says_why_not(void **state)
{
    static const struct {
        int error, result;
    } row[] = {{ENOENT, TN_ENODEV}, {ENODEV, TN_ENODEV}, {ENXIO, TN_ENODEV},
               {EACCES, TN_ESYS},   {EMFILE, TN_ESYS},   {EINTR, 0}};

    (void)state;
    rig_up(false);
    for (size_t i = 0; i < COUNT(row); i++) {
        model_on(CAN);
        model.open_error = row[i].error;
        assert_int_equal(tn_vhost_net_init(&r.v, 9), row[i].result);
        assert_int_equal(r.v.phase, row[i].result ? TN_VHOST_OPEN : TN_VHOST_DONE);
        if (row[i].result == TN_ESYS)
            assert_int_equal(errno, row[i].error);
        tn_vhost_close(&r.v);
    }
    model_on(CAN & ~TN_VIRTIO_F_VERSION_1);
    assert_int_equal(tn_vhost_net_init(&r.v, 9), TN_EUNSUP);
    assert_int_equal(r.v.phase, TN_VHOST_CAN);
    assert_int_equal(r.v.fd, -1);
    for (uint32_t cid = 0; cid < 3; cid++) {
        model_on(CAN);
        assert_int_equal(tn_vhost_vsock_init(&r.v, cid), TN_EINVAL);
        assert_int_equal(r.v.phase, TN_VHOST_CID);
        assert_int_equal(r.v.fd, -1);
    }
    model_on(CAN);
    assert_int_equal(tn_vhost_vsock_init(&r.v, 77), TN_EEXIST);
    for (unsigned n = 1; n <= 4; n++) {
        model_on(CAN);
        model.fail_at = n;
        assert_int_equal(tn_vhost_vsock_init(&r.v, 1000), n < 4 ? TN_ESYS : 0);
        assert_int_equal(r.v.fd, n < 4 ? -1 : model.fd);
        tn_vhost_close(&r.v);
    }
    assert_int_equal(model.cid, 1000);
    rig_down();
}

static void offers_what_the_kernel_has(void **state)
{
    static const struct {
        uint64_t can, offered, left;
        bool vsock;
    } row[] = {
        {CAN, CAN, CAN, false},
        {CAN, TN_VIRTIO_F_RING, TN_VIRTIO_F_RING & ~TN_VIRTIO_F_RING_PACKED, false},
        {CAN | TN_VIRTIO_F_RING_PACKED, TN_VIRTIO_F_RING_PACKED, 0, false},
        {CAN | TN_VIRTIO_F_IN_ORDER, TN_VIRTIO_F_IN_ORDER, 0, false},
        {CAN | TN_VIRTIO_F_ACCESS_PLATFORM, TN_VIRTIO_F_ACCESS_PLATFORM, 0, false},
        {CAN & ~TN_VIRTIO_F_EVENT_IDX, CAN, CAN & ~TN_VIRTIO_F_EVENT_IDX, false},
        {CAN, MRG | 0x23, 0x23, false}, /* MAC, CSUM and the like are not its business */
        {CAN | MRG, MRG | 0x23, MRG | 0x23, false},
        {CAN, SEQ | MRG, MRG, true},
        {CAN | SEQ, SEQ | 1, SEQ | 1, true},
    };

    (void)state;
    rig_up(false);
    for (size_t i = 0; i < COUNT(row); i++) {
        model_on(row[i].can);
        if (row[i].vsock)
            assert_int_equal(tn_vhost_vsock_init(&r.v, 3), 0);
        else
            assert_int_equal(tn_vhost_net_init(&r.v, 9), 0);
        if (tn_vhost_features(&r.v, row[i].offered) != row[i].left)
            fail_msg("row %zu", i);
        tn_vhost_close(&r.v);
    }
    rig_down();
}

static void refuses_a_setup_that_cannot_be(void **state)
{
    struct tn_mem none;

    (void)state;
    rig_up(false);
    assert_int_equal(tn_vhost_setup(&r.v, &r.mem, CAN, NULL, 0), TN_ESTATE);
    model_on(CAN);
    assert_int_equal(tn_vhost_net_init(&r.v, 9), 0);
    assert_int_equal(tn_vhost_setup(&r.v, &r.mem, CAN | TN_VIRTIO_F_RING_PACKED, NULL, 0),
                     TN_EUNSUP);
    assert_int_equal(tn_vhost_setup(&r.v, &r.mem, CAN | MRG, NULL, 0), TN_EUNSUP);
    assert_int_equal(tn_vhost_setup(&r.v, &r.mem, CAN, r.log, r.words), TN_EUNSUP);
    assert_int_equal(model.memory, false);
    model.can |= LOG;
    tn_vhost_close(&r.v);
    model.owner = false;
    assert_int_equal(tn_vhost_net_init(&r.v, 9), 0);
    assert_int_equal(tn_vhost_setup(&r.v, &r.mem, CAN, r.log, r.words - 1), TN_ENOSPC);
    assert_int_equal(r.v.phase, TN_VHOST_LOG);
    assert_int_equal(tn_vhost_setup(&r.v, &r.mem, CAN, r.log, r.words), 0);
    assert_int_equal(r.v.phase, TN_VHOST_DONE);
    assert_int_equal(model.features, CAN | LOG);
    assert_int_equal(model.log, (uintptr_t)r.log);
    assert_int_equal(tn_vhost_setup(&r.v, &r.mem, CAN | 0x23, NULL, 0), 0);
    assert_int_equal(model.features, CAN); /* a device's own features are not told */
    assert_int_equal(model.regions, 2);
    assert_int_equal(model.region[0].guest_phys_addr, 0);
    assert_int_equal(model.region[0].memory_size, 2 * MIB);
    assert_int_equal(model.region[0].userspace_addr, (uintptr_t)r.low);
    assert_int_equal(model.region[1].guest_phys_addr, HIGH);
    assert_int_equal(model.region[1].memory_size, MIB);
    assert_int_equal(model.region[1].userspace_addr, (uintptr_t)r.high);
    for (uint32_t i = 0; r.mem.count < TN_VHOST_REGIONS; i++)
        assert_int_equal(tn_mem_add(&r.mem, 2 * HIGH + i * 8192, r.high, 4096), 0);
    assert_int_equal(tn_vhost_setup(&r.v, &r.mem, CAN, NULL, 0), 0);
    assert_int_equal(model.regions, TN_VHOST_REGIONS);
    assert_int_equal(tn_mem_add(&r.mem, 3 * HIGH, r.high, 4096), 0);
    assert_int_equal(tn_vhost_setup(&r.v, &r.mem, CAN, NULL, 0), TN_ENOSPC);
    assert_int_equal(r.v.phase, TN_VHOST_MEMORY);
    tn_mem_init(&none, r.table, 0);
    assert_int_equal(tn_vhost_log_words(&none), 0);
    rig_down();
}

static void refuses_queues_that_it_cannot_take(void **state)
{
    struct tn_virtq_state good, s, out;

    (void)state;
    rig_up(false);
    state_of(0, &good);
    model_on(CAN);
    assert_int_equal(start(0, &good), TN_ESTATE); /* closed */
    assert_int_equal(tn_vhost_net_init(&r.v, 9), 0);
    assert_int_equal(start(0, &good), TN_ESTATE); /* no memory yet */
    assert_int_equal(tn_vhost_setup(&r.v, &r.mem, CAN, NULL, 0), 0);
    assert_int_equal(tn_vhost_take_log(&r.v), TN_ESTATE);
    model.calls = 0;
    assert_int_equal(tn_vhost_start(&r.v, 2, &good, 0, 0, 0), TN_EINVAL);
    assert_int_equal(tn_vhost_stop(&r.v, 2, &out), TN_EINVAL);
    memset(&out, 0xee, sizeof(out));
    assert_int_equal(tn_vhost_stop(&r.v, 0, &out), TN_ESTATE);
    assert_int_equal(out.version | out.size | out.next_avail, 0);
#define BAD(result, field, value)               \
    do {                                        \
        s = good;                               \
        s.field = (value);                      \
        assert_int_equal(start(0, &s), result); \
    } while (0)
    BAD(TN_EUNSUP, packed, 1);
    BAD(TN_EUNSUP, in_order, 1);
    BAD(TN_ESTATE, started, 0);
    BAD(TN_ESTATE, error, TN_EPROTO);
    BAD(TN_ESTATE, next_avail, 1);
    BAD(TN_ESTATE, next_used, 0xffff);
    BAD(TN_ERANGE, size, 0);
    BAD(TN_ERANGE, size, 15);
    BAD(TN_ERANGE, size, 32769);
    BAD(TN_EADDR, desc, 2 * MIB - 255);
    BAD(TN_EADDR, desc, 2 * MIB - 240);
    BAD(TN_EADDR, desc, 0x1008);
    BAD(TN_EADDR, driver, 0x1001);
    BAD(TN_EADDR, driver, 2 * MIB - 36);
    BAD(TN_EADDR, device, 0x1002);
    BAD(TN_EADDR, device, 2 * MIB - 132);
    BAD(TN_EADDR, device, UINT64_MAX - 3);
    BAD(TN_EADDR, desc, HIGH - 16);
    assert_int_equal(model.calls, 0);
    s = good; /* the last that there is room for */
    s.desc = HIGH + MIB - 256;
    s.driver = 2 * MIB - 38;
    s.device = 2 * MIB - 136;
    assert_int_equal(start(0, &s), 0);
    assert_int_equal(model.ring[0].addr.desc_user_addr, (uintptr_t)r.high + MIB - 256);
    assert_int_equal(start(0, &good), TN_ESTATE); /* it runs */
    assert_int_equal(tn_vhost_setup(&r.v, &r.mem, CAN, NULL, 0), TN_ESTATE);
    rig_down();
}

static void hands_a_network_over_and_takes_it_back(void **state)
{
    struct tn_virtq_state s[2], out;

    (void)state;
    rig_up(true);
    model_on(CAN | LOG);
    assert_int_equal(tn_vhost_net_init(&r.v, 9), 0);
    for (int logs = 0; logs < 2; logs++) {
        assert_int_equal(tn_vhost_setup(&r.v, &r.mem, CAN, logs ? r.log : NULL, logs ? r.words : 0),
                         0);
        for (uint32_t i = 0; i < 2; i++) {
            r.q[i].next_avail = r.q[i].next_used = (uint16_t)(65530 + i);
            state_of(i, &s[i]);
            assert_int_equal(start(i, &s[i]), 0);
            assert_int_equal(model.ring[i].num, 16);
            assert_int_equal(model.ring[i].base, 65530 + i);
            assert_int_equal(model.ring[i].addr.index, i);
            assert_int_equal(model.ring[i].addr.desc_user_addr, (uintptr_t)r.low + s[i].desc);
            assert_int_equal(model.ring[i].addr.avail_user_addr, (uintptr_t)r.low + s[i].driver);
            assert_int_equal(model.ring[i].addr.used_user_addr, (uintptr_t)r.low + s[i].device);
            assert_int_equal(model.ring[i].addr.flags, logs ? 1 << VHOST_VRING_F_LOG : 0);
            assert_int_equal(model.ring[i].addr.log_guest_addr, logs ? s[i].device : 0);
            assert_int_equal(model.ring[i].kick, r.kick[i]);
            assert_int_equal(model.ring[i].call, r.call[i]);
            assert_int_equal(model.ring[i].err, r.err);
            assert_int_equal(model.ring[i].backend, 9);
            assert_int_equal(model.last, VHOST_NET_SET_BACKEND); /* when all else is there */
            assert_int_equal(count(r.kick[i]), 1);
            assert_int_equal(count(r.call[i]), 0);
        }
        for (uint32_t i = 0; i < 2; i++) {
            model.ring[i].base = 5 + i; /* the driver went on beyond 65535 */
            if (logs) {
                r.log[0] |= 1ull << 7; /* as the kernel does */
                r.log[HIGH / 4096 / 64] |= 1ull << 63;
            }
            assert_int_equal(tn_vhost_stop(&r.v, i, &out), 0);
            assert_int_equal(out.next_avail, 5 + i);
            assert_int_equal(out.next_used, 5 + i);
            assert_int_equal(out.unsignalled, 0);
            s[i].next_avail = s[i].next_used = out.next_avail;
            s[i].unsignalled = 0;
            assert_memory_equal(&out, &s[i], sizeof(out));
            assert_int_equal(tn_virtq_restore(&r.q[i], &r.mem, &out), 0);
            assert_int_equal(model.ring[i].backend, -1);
            assert_int_equal(model.ring[i].kick, -1);
            assert_int_equal(model.ring[i].call, -1);
            assert_int_equal(model.ring[i].err, -1);
            assert_int_equal(r.dirty[0][0], logs ? 1u << 7 : 0);
            assert_int_equal(r.dirty[1][0], logs ? 1ull << 63 : 0);
            assert_int_equal(r.log[0], 0);
            memset(r.dirty, 0, sizeof(r.dirty));
            assert_int_equal(tn_vhost_stop(&r.v, i, &out), TN_ESTATE);
        }
    }
    rig_down();
}

static void hands_sockets_over_when_both_are_there(void **state)
{
    struct tn_virtq_state s[2], out;

    (void)state;
    rig_up(true);
    model_on(CAN | LOG | SEQ);
    assert_int_equal(tn_vhost_vsock_init(&r.v, 42), 0);
    assert_int_equal(tn_vhost_setup(&r.v, &r.mem, CAN | SEQ, r.log, r.words), 0);
    for (int again = 0; again < 2; again++)
        for (uint32_t first = 0; first < 2; first++) {
            state_of(0, &s[0]);
            state_of(1, &s[1]);
            assert_int_equal(start(first, &s[first]), 0);
            assert_int_equal(model.running, 0);
            assert_int_equal(start(1 - first, &s[1 - first]), 0);
            assert_int_equal(model.running, 1);
            assert_int_equal(model.features, CAN | SEQ | LOG);
            assert_int_equal(tn_vhost_take_log(&r.v), 3 * MIB / 4096);
            assert_int_equal(r.dirty[0][7], ~0ull);
            assert_int_equal(r.dirty[1][3], ~0ull);
            assert_int_equal(tn_vhost_stop(&r.v, first, &out), 0);
            assert_int_equal(model.running, 0);
            assert_int_equal(tn_vhost_stop(&r.v, 1 - first, &out), 0);
            assert_int_equal(tn_vhost_stop(&r.v, first, &out), TN_ESTATE);
        }
    rig_down();
}

static void ends_as_it_began_when_a_call_fails(void **state)
{
    (void)state;
    for (int vsock = 0; vsock < 2; vsock++)
        for (unsigned n = 1;; n++) {
            struct tn_virtq_state s, out;
            unsigned before;
            int result[7], at = 0;

            rig_up(false);
            model_on(CAN | LOG);
            model.fail_at = n;
            result[at++] = vsock ? tn_vhost_vsock_init(&r.v, 3) : tn_vhost_net_init(&r.v, 9);
            result[at++] = tn_vhost_setup(&r.v, &r.mem, CAN, r.log, r.words);
            for (uint32_t i = 0; i < 2; i++) {
                state_of(i, &s);
                result[at++] = start(i, &s);
                if (result[at - 1] < 0) {
                    assert_false(r.v.started[i]);
                    assert_int_equal(model.ring[i].backend, -1);
                    assert_int_equal(model.running, 0);
                    assert_int_equal(count(r.kick[i]), 0);
                }
            }
            before = model.calls;
            for (uint32_t i = 0; i < 2; i++)
                result[at++] = tn_vhost_stop(&r.v, i, &out);
            if (model.failed == 0) {
                for (int i = 0; i < at; i++)
                    assert_int_equal(result[i], 0);
                rig_down();
                break;
            }
            if (n <= before || model.failed == VHOST_GET_VRING_BASE ||
                model.failed == VHOST_NET_SET_BACKEND || model.failed == VHOST_VSOCK_SET_RUNNING) {
                int i = 0;

                while (i < at && result[i] == 0)
                    i++;
                assert_true(i < at);
                assert_int_equal(result[i], TN_ESYS);
            } /* else it was a descriptor that stays with the kernel until the next start */
            rig_down();
        }
}

/* ---- the kernel --------------------------------------------------------------------------- */

#define FRAME 200u

static bool kernel_has(const char *path)
{
    return access(path, R_OK | W_OK) == 0;
}

static void up(const char *name)
{
    struct ifreq f = {0};
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    snprintf(f.ifr_name, sizeof(f.ifr_name), "%s", name);
    assert_int_equal(ioctl(s, SIOCGIFFLAGS, &f), 0);
    f.ifr_flags |= IFF_UP;
    assert_int_equal(ioctl(s, SIOCSIFFLAGS, &f), 0);
    for (int i = 0; i < 5000 && !(f.ifr_flags & IFF_RUNNING); i++, usleep(1000))
        assert_int_equal(ioctl(s, SIOCGIFFLAGS, &f), 0);
    close(s);
}

static int host(const char *name)
{
    struct sockaddr_ll addr = {0};
    struct timeval limit = {5, 0};
    int one = 1, s = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(0x88b5));

    assert_true(s >= 0);
    addr.sll_family = AF_PACKET;
    addr.sll_protocol = htons(0x88b5);
    addr.sll_ifindex = (int)if_nametoindex(name);
    assert_int_equal(setsockopt(s, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)), 0);
    assert_int_equal(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
    assert_int_equal(bind(s, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return s;
}

static void ether(uint8_t *frame, unsigned seed)
{
    memset(frame, 0xff, 6);
    memset(frame + 6, 0x02, 6);
    frame[12] = 0x88;
    frame[13] = 0xb5;
    for (unsigned i = 14; i < FRAME; i++)
        frame[i] = (uint8_t)(seed * 31 + i);
}

static void kick(uint32_t i)
{
    uint64_t one = 1;

    if (vqd_must_kick(&r.d[i]))
        assert_int_equal(write(r.kick[i], &one, sizeof(one)), sizeof(one));
}

/* Waits until the kernel interrupts for queue i, and takes one chain back; returns its id. */
static int used(uint32_t i, uint32_t *len)
{
    struct pollfd p = {r.call[i], POLLIN, 0};
    int id;

    for (int tries = 0; tries < 3; tries++) {
        id = vqd_reap(&r.d[i], len);
        if (id >= 0) {
            if (r.d[i].event_idx)
                vqd_interrupt_at(&r.d[i], r.d[i].reaped);
            return id;
        }
        assert_true(id == -1);
        if (poll(&p, 1, 5000) == 1)
            count(r.call[i]);
    }
    return -1;
}

/* Where the buffers of a queue's n-th chain are: in the second region. */
static uint64_t buffer(uint32_t i, unsigned n)
{
    return HIGH + i * 0x40000ull + (n % 16) * 0x4000;
}

static void frames_both_ways(int s, unsigned from, unsigned to)
{
    uint8_t frame[FRAME], got[2048];

    for (unsigned n = from; n < to; n++) {
        struct vqd_buf out[2] = {{buffer(1, n), 12, false}, {buffer(1, n) + 0x1000, FRAME, false}};
        struct vqd_buf in = {buffer(0, n), 2048, true};
        uint8_t *there = r.high + (buffer(1, n) - HIGH), *rx;
        uint32_t len = 0;

        ether(frame, n);
        memset(there, 0, 12);
        memcpy(there + 0x1000, frame, FRAME);
        assert_true(vqd_add(&r.d[1], out, 2) >= 0);
        kick(1);
        assert_int_equal(recv(s, got, sizeof(got), 0), FRAME);
        assert_memory_equal(got, frame, FRAME);
        assert_true(used(1, &len) >= 0);

        rx = r.high + (buffer(0, n) - HIGH);
        memset(rx, 0xee, 2048);
        assert_int_equal(send(s, frame, FRAME, 0), FRAME);
        do { /* the kernel speaks by itself, too */
            assert_true(vqd_add(&r.d[0], &in, 1) >= 0);
            kick(0);
            assert_true(used(0, &len) >= 0);
        } while (rx[12 + 12] != 0x88 || rx[12 + 13] != 0xb5);
        assert_int_equal(len, 12 + FRAME);
        assert_memory_equal(rx + 12, frame, FRAME);
        assert_int_equal(rx[12 + FRAME], 0xee);
    }
}

static void kernel_moves_frames(bool event_idx)
{
    struct tn_tap_cfg cfg = {"tapv", false, true, NULL, 1, 0};
    uint64_t features;
    struct tn_tap tap;
    int s;

    rig_up(event_idx);
    assert_int_equal(tn_tap_init(&tap, &cfg), 0);
    up("tapv");
    s = host("tapv");
    assert_int_equal(tn_vhost_net_init(&r.v, tap.fd[0]), 0);
    features = tn_vhost_features(&r.v, TN_VIRTIO_F_RING | TN_VIRTIO_F_VERSION_1);
    assert_true(features & TN_VIRTIO_F_VERSION_1);
    if (!event_idx)
        features &= ~TN_VIRTIO_F_EVENT_IDX;
    for (unsigned round = 0; round < 4; round++) {
        struct tn_virtq_state q[2], out;
        bool logs = round % 2 == 1;

        assert_int_equal(
            tn_vhost_setup(&r.v, &r.mem, features, logs ? r.log : NULL, logs ? r.words : 0), 0);
        memset(r.dirty, 0, sizeof(r.dirty));
        for (uint32_t i = 0; i < 2; i++) {
            state_of(i, &q[i]);
            assert_int_equal(start(i, &q[i]), 0);
        }
        frames_both_ways(s, round * 20, round * 20 + 20);
        for (uint32_t i = 0; i < 2; i++) {
            assert_int_equal(tn_vhost_stop(&r.v, i, &out), 0);
            assert_int_equal(out.next_avail, (uint16_t)r.d[i].reaped);
            assert_int_equal(out.next_used, (uint16_t)r.d[i].reaped);
            assert_int_equal(tn_virtq_restore(&r.q[i], &r.mem, &out), 0);
        }
        if (logs) { /* buffers of the receive queue, and both used rings, and nothing else */
            for (unsigned n = 0; n < 16; n++) {
                uint64_t page = (buffer(0, n) - HIGH) / 4096;

                assert_true(r.dirty[1][page / 64] >> page % 64 & 1);
                page = (buffer(1, n) - HIGH) / 4096;
                assert_false(r.dirty[1][page / 64] >> page % 64 & 1);
            }
            for (int i = 0; i < 2; i++)
                assert_true(r.dirty[0][0] >> r.d[i].device / 4096 & 1);
            assert_int_equal(r.dirty[0][1], 0);
        } else {
            assert_int_equal(r.dirty[1][0], 0);
        }
    }
    close(s);
    tn_tap_close(&tap);
    rig_down();
}

static void kernel_has_net(void)
{
    if (!kernel_has("/dev/vhost-net") || !kernel_has("/dev/net/tun"))
        SKIP("/dev/vhost-net or /dev/net/tun is missing or may not be opened");
    if (unshare(CLONE_NEWNET) < 0)
        SKIP("a network namespace cannot be made");
}

static void vhost_net_moves_frames(void **state)
{
    (void)state;
    kernel_has_net();
    kernel_moves_frames(false);
}

static void vhost_net_moves_frames_by_event_index(void **state)
{
    (void)state;
    kernel_has_net();
    kernel_moves_frames(true);
}

/* What waited in the ring is served without a kick; a broken ring is told by err. */
static void vhost_net_begins_where_the_ring_stands(void **state)
{
    struct tn_tap_cfg cfg = {"tapv", false, true, NULL, 1, 0};
    struct vqd_buf out[2] = {{buffer(1, 0), 12, false}, {buffer(1, 0) + 0x1000, FRAME, false}};
    struct vqd_buf nowhere = {3 * HIGH, 100, false};
    struct pollfd p = {0, POLLIN, 0};
    struct tn_virtq_state q, back;
    uint8_t frame[FRAME], got[2048];
    struct tn_tap tap;
    int s;

    (void)state;
    kernel_has_net();
    rig_up(false);
    assert_int_equal(tn_tap_init(&tap, &cfg), 0);
    up("tapv");
    s = host("tapv");
    assert_int_equal(tn_vhost_net_init(&r.v, tap.fd[0]), 0);
    assert_int_equal(tn_vhost_setup(&r.v, &r.mem, TN_VIRTIO_F_VERSION_1, NULL, 0), 0);
    ether(frame, 1);
    memcpy(r.high + (out[1].addr - HIGH), frame, FRAME);
    assert_true(vqd_add(&r.d[1], out, 2) >= 0);
    state_of(1, &q);
    assert_int_equal(start(1, &q), 0);
    assert_int_equal(recv(s, got, sizeof(got), 0), FRAME);
    assert_memory_equal(got, frame, FRAME);
    assert_true(vqd_add(&r.d[1], &nowhere, 1) >= 0);
    kick(1);
    p.fd = r.err;
    assert_int_equal(poll(&p, 1, 5000), 1);
    assert_int_equal(tn_vhost_stop(&r.v, 1, &back), 0);
    assert_int_equal(back.next_avail, 1);
    close(s);
    tn_tap_close(&tap);
    rig_down();
}

static void vhost_vsock_asks_the_guest(void **state)
{
    struct sockaddr_vm addr = {0};
    struct tn_virtq_state q[2], out;
    struct tn_vhost other;
    uint32_t cid = 0x10000u + (uint32_t)getpid();
    int result, s;

    (void)state;
    if (!kernel_has("/dev/vhost-vsock"))
        SKIP("/dev/vhost-vsock is missing or may not be opened");
    rig_up(false);
    assert_int_equal(tn_vhost_vsock_init(&r.v, 2), TN_EINVAL);
    assert_int_equal(tn_vhost_vsock_init(&r.v, cid), 0);
    assert_int_equal(tn_vhost_vsock_init(&other, cid), TN_EEXIST);
    assert_int_equal(other.fd, -1);
    for (unsigned round = 0; round < 3; round++) {
        struct vqd_buf in = {buffer(0, round), 4096, true};
        uint8_t *rx = r.high + (in.addr - HIGH);
        uint32_t len = 0;

        assert_int_equal(tn_vhost_setup(&r.v, &r.mem, TN_VIRTIO_F_VERSION_1, NULL, 0), 0);
        for (uint32_t i = 0; i < 2; i++) {
            state_of(i, &q[i]);
            assert_int_equal(start(i, &q[i]), 0);
        }
        s = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        assert_true(s >= 0);
        addr.svm_family = AF_VSOCK;
        addr.svm_cid = cid;
        addr.svm_port = 1234 + round;
        result = connect(s, (struct sockaddr *)&addr, sizeof(addr));
        assert_true(result == -1 && errno == EINPROGRESS);
        assert_true(vqd_add(&r.d[0], &in, 1) >= 0);
        kick(0);
        assert_true(used(0, &len) >= 0);
        assert_int_equal(len, 44);                 /* struct virtio_vsock_hdr, 5.10.6 */
        assert_int_equal(test_le(rx, 8), 2);       /* src_cid: the host */
        assert_int_equal(test_le(rx + 8, 8), cid); /* dst_cid */
        assert_int_equal(test_le(rx + 20, 4), 1234 + round);
        assert_int_equal(test_le(rx + 30, 2), 1); /* VIRTIO_VSOCK_OP_REQUEST */
        for (uint32_t i = 0; i < 2; i++) {
            assert_int_equal(tn_vhost_stop(&r.v, i, &out), 0);
            assert_int_equal(out.next_avail, i == 0 ? round + 1 : 0);
            assert_int_equal(tn_virtq_restore(&r.q[i], &r.mem, &out), 0);
        }
        close(s);
        { /* what the host's socket says at its end, the next round may hear first */
            tn_vhost_close(&r.v);
            assert_int_equal(tn_vhost_vsock_init(&r.v, cid), 0);
        }
    }
    rig_down();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_or_says_why_not),
        cmocka_unit_test(offers_what_the_kernel_has),
        cmocka_unit_test(refuses_a_setup_that_cannot_be),
        cmocka_unit_test(refuses_queues_that_it_cannot_take),
        cmocka_unit_test(hands_a_network_over_and_takes_it_back),
        cmocka_unit_test(hands_sockets_over_when_both_are_there),
        cmocka_unit_test(ends_as_it_began_when_a_call_fails),
        cmocka_unit_test(vhost_net_moves_frames),
        cmocka_unit_test(vhost_net_moves_frames_by_event_index),
        cmocka_unit_test(vhost_net_begins_where_the_ring_stands),
        cmocka_unit_test(vhost_vsock_asks_the_guest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
