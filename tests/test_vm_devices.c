/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_vm_devices.h"

#include "vm_guest.h"

#include <sys/un.h>

#include "test.h"
#include "virtio_driver.h"
#include "vm_far.h"

/*
 * The devices of a description, driven through the bus by a driver of the test's own, with KVM's
 * eventfds signalled by hand: no vCPU runs. tests/test_vm_virtio.c has them with a guest.
 */

#define RAM    (4u << 20)
#define WINDOW 0xd0000000ull
#define DISK   65536u   /* bytes */
#define AREA   0x40000u /* of the RAM for each device: rings, then buffers from BUFFER on */
#define BUFFER 0x10000u

struct rig {
    struct tn_loop loop;
    struct tn_kvm_vm vm;
    struct tn_bus bus;
    struct tn_bus_range range[32];
    struct tn_mem mem;
    struct tn_mem_region table[1];
    struct tn_vm_place place;
    struct tn_vm_cfg cfg;
    struct tn_vm_disk_cfg disk[TN_VM_MAX_DISKS + 1];
    struct tn_vm_devices d;
    int before; /* open descriptors */
};

static uint8_t ram[RAM] __attribute__((aligned(4096)));

/* A driver of one device. */
struct driver {
    struct rig *rig;
    struct tn_vm_virtio *slot;
    uint32_t at; /* its number */
    struct vd d;
};

static void rig_open(struct rig *r)
{
    NEED_KVM();
    alarm(240);
    memset(r, 0, sizeof(*r));
    memset(ram, 0, sizeof(ram));
    assert_int_equal(tn_loop_init(&r->loop), 0);
    assert_int_equal(tn_kvm_vm_init(&kvm, &r->vm), 0);
    assert_int_equal(tn_kvm_x86_irqchip_full(&r->vm), 0);
    tn_mem_init(&r->mem, r->table, 1);
    assert_int_equal(tn_mem_add(&r->mem, 0, ram, RAM), 0);
    tn_bus_init(&r->bus, r->range, COUNT(r->range));
    r->place.vm = &r->vm;
    r->place.mmio = &r->bus;
    r->place.gpa = WINDOW;
    r->place.gsi = 16;
    r->place.gsis = 8;
    r->cfg.disk = r->disk;
    r->cfg.virtio_in = r->cfg.virtio_out = -1;
    r->before = count_fds();
}

static int rig_try(struct rig *r)
{
    return tn_vm_devices_init(&r->d, &r->cfg, &r->mem, &r->loop, &r->place);
}

static void rig_join(struct rig *r)
{
    assert_int_equal(rig_try(r), 0);
}

/* Closes the devices: whatever they opened is closed then. */
static void rig_part(struct rig *r)
{
    tn_vm_devices_close(&r->d);
    assert_int_equal(count_fds(), r->before);
}

/* KVM has the ioeventfds of a VM until it is closed: another round of devices needs another. */
static void rig_renew(struct rig *r)
{
    tn_kvm_vm_close(&r->vm);
    assert_int_equal(tn_kvm_vm_init(&kvm, &r->vm), 0);
    assert_int_equal(tn_kvm_x86_irqchip_full(&r->vm), 0);
    tn_bus_init(&r->bus, r->range, COUNT(r->range));
    r->before = count_fds();
}

static void rig_close(struct rig *r)
{
    rig_part(r);
    tn_vm_devices_close(&r->d); /* once more: nothing */
    tn_kvm_vm_close(&r->vm);
    tn_loop_close(&r->loop);
    alarm(0);
}

/* ---- the driver ---- */

static uint64_t bus_read(void *ctx, uint64_t off, unsigned width)
{
    struct driver *g = ctx;

    return tn_bus_read(&g->rig->bus, WINDOW + TN_VM_PLACE_STRIDE * g->at + off, width, NULL);
}

static void bus_write(void *ctx, uint64_t off, unsigned width, uint64_t value)
{
    struct driver *g = ctx;

    if (off == TN_VIRTIO_MMIO_QUEUE_NOTIFY) /* as KVM does it */
        (void)eventfd_write(g->slot->notify[value].event.source.fd, 1);
    else
        assert_true(tn_bus_write(&g->rig->bus, WINDOW + TN_VM_PLACE_STRIDE * g->at + off, width,
                                 value, NULL));
}

static void drive(struct driver *g, struct rig *r, struct tn_vm_virtio *slot, uint32_t at,
                  uint32_t queues, uint64_t want)
{
    g->rig = r;
    g->slot = slot;
    g->at = at;
    vd_init(&g->d, slot->v, ram, 0, AREA * at);
    vd_mmio(&g->d, bus_read, bus_write, g);
    assert_true(vd_up(&g->d, want, queues, 64));
}

static void drive_disk(struct driver *g, struct rig *r, uint32_t i)
{
    drive(g, r, &r->d.disk[i].slot, i, r->d.disk[i].blk.cfg.queues, ~0ull);
}

/* Serves the loop until queue has an answer, whose id it returns. */
static int answer(struct driver *g, uint32_t queue, uint32_t *len)
{
    double end = seconds(CLOCK_MONOTONIC) + 60;
    int id;

    while ((id = vd_reap(&g->d, queue, len)) == -1 && seconds(CLOCK_MONOTONIC) < end)
        tn_loop_step(&g->rig->loop, 10);
    assert_true(id >= 0);
    return id;
}

static uint8_t *data_of(struct driver *g, uint32_t n)
{
    return ram + AREA * g->at + BUFFER + 4096 * n;
}

/* Adds a buffer of a page. */
static void data_add(struct driver *g, uint32_t queue, uint32_t n, uint32_t len, bool write)
{
    const struct vqd_buf buf = {AREA * g->at + BUFFER + 4096ull * n, len, write};

    assert_true(vd_add(&g->d, queue, &buf, 1) >= 0);
}

/* The RAM as a balloon knows it. */
static void ram_pages(struct tn_hostmem *pages)
{
    memset(pages, 0, sizeof(*pages));
    pages->ptr = ram;
    pages->size = RAM;
    pages->page = 4096;
    pages->fd = -1;
    pages->how = TN_HOSTMEM_PRIVATE;
    pages->anon = true;
}

/* Adds request n of a disk: a header, len bytes of data, a status. */
static void disk_add(struct driver *g, uint32_t queue, uint32_t n, uint32_t type, uint64_t sector,
                     uint32_t len)
{
    uint64_t at = AREA * g->at + BUFFER + 4096ull * n;
    bool in = type == TN_VIRTIO_BLK_T_IN || type == TN_VIRTIO_BLK_T_GET_ID;
    struct vqd_buf buf[3] = {{at + 2048, 16, false}, {at, len, in}, {at + 2064, 1, true}};

    memset(ram + at + 2048, 0, 16);
    tn_put_(ram + at + 2048, 4, type);
    tn_put_(ram + at + 2056, 8, sector);
    ram[at + 2064] = 0xee;
    if (len == 0)
        buf[1] = buf[2];
    assert_true(vd_add(&g->d, queue, buf, len ? 3 : 2) >= 0);
}

static uint8_t status_of(struct driver *g, uint32_t n)
{
    return data_of(g, n)[2064];
}

/* One request, to its end. Returns its status. */
static uint8_t disk_do(struct driver *g, uint32_t queue, uint32_t type, uint64_t sector,
                       uint32_t len)
{
    uint32_t used;

    disk_add(g, queue, 0, type, sector, len);
    vd_kick(&g->d, queue);
    (void)answer(g, queue, &used);
    return status_of(g, 0);
}

static uint8_t disk_write(struct driver *g, uint64_t sector, int fill)
{
    memset(data_of(g, 0), fill, 512);
    return disk_do(g, 0, TN_VIRTIO_BLK_T_OUT, sector, 512);
}

/* The byte that fills a sector, as the guest reads it; -1: it is not filled by one. */
static int disk_read(struct driver *g, uint64_t sector)
{
    uint8_t *bytes = data_of(g, 0);

    memset(bytes, 0x5a, 512);
    assert_int_equal(disk_do(g, 0, TN_VIRTIO_BLK_T_IN, sector, 512), 0);
    return memcmp(bytes, bytes + 1, 511) == 0 ? bytes[0] : -1;
}

/* ---- descriptions ---- */

static void too_many(void **state)
{
    static struct rig r;

    (void)state;
    rig_open(&r);
    for (unsigned i = 0; i <= TN_VM_MAX_DISKS; i++)
        r.disk[i].path = "/dev/null";
    r.cfg.disks = TN_VM_MAX_DISKS + 1;
    assert_int_equal(rig_try(&r), TN_EINVAL);
    assert_int_equal(r.d.refused, 0);
    assert_null(r.d.loop);
    r.cfg.disks = UINT32_MAX;
    assert_int_equal(rig_try(&r), TN_EINVAL);
    rig_close(&r);
}

static void how_many(void **state)
{
    static const struct {
        uint32_t disks, count;
        bool console, rng;
    } rows[] = {{0, 0, false, false},
                {0, 1, true, false},
                {0, 1, false, true},
                {3, 3, false, false},
                {16, 18, true, true}};

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct tn_vm_cfg cfg;

        memset(&cfg, 0, sizeof(cfg));
        cfg.disks = rows[i].disks;
        cfg.virtio_console = rows[i].console;
        cfg.rng = rows[i].rng;
        assert_int_equal(tn_vm_devices_count(&cfg), rows[i].count);
    }
}

/* A disk that can't be had is named, and nothing stays open: neither its own nor the others'. */
static void refused_disks(void **state)
{
    static struct rig r;
    static const struct {
        const char *name;
        int expected, error;
    } rows[] = {
        {"missing", TN_ESYS, ENOENT},
        {"directory", TN_ESYS, EISDIR},
        {"read-only directory", TN_EINVAL, 0},
        {"odd", TN_ERANGE, 0},
        {"empty", TN_ERANGE, 0},
        {"locked", TN_EEXIST, 0},
        {"overlay of nothing", TN_ESYS, ENOENT},
        {"no overlay", TN_EFORMAT, 0},
        {"overlay locked", TN_EEXIST, 0},
        {"overlay in no directory", TN_ESYS, ENOENT},
        {"overlay missing, read-only", TN_ESYS, ENOENT},
        {"burst alone", TN_EINVAL, 0},
        {"twice", TN_EEXIST, 0},
    };

    (void)state;
    rig_open(&r);
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (uint32_t at = 0; at < 3; at += 2) {
            struct tn_vm_disk_cfg *bad = &r.disk[at];
            const char *good = file_of("good", DISK, 1);
            char path[128];
            int fd = -1;

            memset(r.disk, 0, sizeof(r.disk));
            r.cfg.disks = at + 1;
            r.cfg.rng = r.cfg.virtio_console = true;
            r.disk[0].path = file_of("first", DISK, 1);
            r.disk[1].path = file_of("second", DISK, 1);
            r.disk[1].read_only = true;
            bad->path = good;
            snprintf(path, sizeof(path), "%s/none/such", dir);
            switch (i) {
            case 0:
                bad->path = path;
                break;
            case 1:
            case 2:
                bad->path = dir;
                bad->read_only = i == 2;
                break;
            case 3:
                bad->path = file_of("odd", 513, 1);
                break;
            case 4:
                bad->path = file_of("empty", 0, 1);
                break;
            case 5:
                fd = open(good, O_RDWR | O_CLOEXEC);
                assert_int_equal(tn_file_lock_(fd, F_RDLCK), 0);
                break;
            case 6:
                bad->path = path;
                bad->overlay = file_of("over", 0, 0);
                break;
            case 7:
                bad->overlay = file_of("over", DISK, 1);
                break;
            case 8:
                bad->overlay = file_of("over", 0, 1);
                fd = open(bad->overlay, O_RDWR | O_CLOEXEC);
                assert_int_equal(tn_file_lock_(fd, F_RDLCK), 0);
                break;
            case 9:
                bad->overlay = path;
                break;
            case 10:
                bad->overlay = file_of("over", 0, 1);
                unlink(bad->overlay);
                bad->read_only = true;
                break;
            case 11:
                bad->rate.ops_per_s = 5;
                bad->rate.bytes_burst = 5;
                break;
            default:
                r.disk[at + 1] = *bad;
                r.cfg.disks++;
                break;
            }
            errno = 0;
            assert_int_equal(rig_try(&r), rows[i].expected);
            if (rows[i].error)
                assert_int_equal(errno, rows[i].error);
            assert_int_equal(r.d.refused, at + (i == 12 ? 2 : 1));
            assert_null(r.d.loop);
            assert_null(r.d.disk);
            if (fd >= 0)
                close(fd);
            assert_int_equal(count_fds(), r.before);
            rig_renew(&r);
        }
    }
    rig_close(&r);
}

/* However few descriptors there are: an error, and none lost. */
static void no_descriptors(void **state)
{
    static struct rig r;
    struct rlimit all, few;
    int got = -1, errors = 0;

    (void)state;
    rig_open(&r);
    r.cfg.disks = 2;
    r.cfg.rng = r.cfg.virtio_console = true;
    r.disk[0].path = file_of("plain", DISK, 1);
    r.disk[1].path = file_of("base", DISK, 1);
    r.disk[1].overlay = file_of("over", 0, 1);
    getrlimit(RLIMIT_NOFILE, &all);
    for (rlim_t n = 0; n < 100 && got < 0; n++) {
        int first = dup(0);

        close(first);
        few = all;
        few.rlim_cur = (rlim_t)first + n;
        setrlimit(RLIMIT_NOFILE, &few);
        got = rig_try(&r);
        setrlimit(RLIMIT_NOFILE, &all);
        if (got < 0) {
            errors++;
            assert_int_equal(got, TN_ESYS);
            assert_null(r.d.loop);
            assert_int_equal(count_fds(), r.before);
            rig_renew(&r);
        }
    }
    assert_int_equal(got, 0);
    assert_true(errors > 10);
    rig_close(&r);
}

/* What cannot be joined to the loop or KVM is an error, for each kind of device. */
static void refused_places(void **state)
{
    static struct rig r;

    (void)state;
    for (uint32_t i = 0; i < 5; i++) {
        int pipes[2];

        rig_open(&r);
        assert_int_equal(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
        r.disk[0].path = file_of("disk", DISK, 1);
        r.cfg.disks = i == 0;
        r.cfg.virtio_console = i == 1 || i >= 3;
        r.cfg.rng = i == 2;
        if (i < 3)
            tn_bus_init(&r.bus, r.range, 0);
        if (i == 3) /* a descriptor that is none */
            r.cfg.virtio_in = 999;
        if (i == 4) { /* one for both, which epoll refuses */
            r.cfg.virtio_in = r.cfg.virtio_out = pipes[0];
            r.cfg.virtio_out = 999;
        }
        assert_true(rig_try(&r) < 0);
        assert_int_equal(r.d.refused, i == 0);
        assert_null(r.d.loop);
        close(pipes[0]);
        close(pipes[1]);
        rig_close(&r);
    }
}

/* ---- disks ---- */

static void an_overlay_takes_the_writes(void **state)
{
    static struct rig r;
    static struct driver g;
    uint8_t sector[512];
    struct stat st;

    (void)state;
    rig_open(&r);
    r.cfg.disks = 1;
    r.disk[0].path = file_of("base", DISK, 'b');
    r.disk[0].overlay = file_of("over", 0, 0);
    unlink(r.disk[0].overlay);
    for (int round = 0; round < 2; round++) {
        rig_join(&r);
        assert_true(r.d.disk[0].overlaid);
        assert_int_equal(stat(r.disk[0].overlay, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        drive_disk(&g, &r, 0);
        assert_int_equal(disk_read(&g, 9), round ? 'n' : 'b');
        assert_int_equal(disk_write(&g, 9, 'n'), 0);
        assert_int_equal(disk_read(&g, 9), 'n');
        assert_int_equal(disk_read(&g, 10), 'b');
        vd_free(&g.d);
        rig_part(&r);
        assert_int_equal(r.d.lost, 0);
        rig_renew(&r);
    }
    file_read(r.disk[0].path, sector, sizeof(sector), 9 * 512);
    for (size_t i = 0; i < sizeof(sector); i++)
        assert_int_equal(sector[i], 'b');
    /* Two machines on one base; the overlay that is only read is not written. */
    r.disk[1] = r.disk[0];
    r.disk[1].overlay = file_of("over2", 0, 0);
    r.cfg.disks = 2;
    rig_join(&r);
    rig_part(&r);
    rig_renew(&r);
    r.cfg.disks = 1;
    r.disk[0].read_only = true;
    rig_join(&r);
    drive_disk(&g, &r, 0);
    assert_int_equal(disk_read(&g, 9), 'n');
    assert_int_equal(disk_write(&g, 9, 'x'), TN_VIRTIO_BLK_S_IOERR);
    vd_free(&g.d);
    rig_close(&r);
}

/* What an overlay could not make durable at the end is told. */
static void lost_writes_are_told(void **state)
{
    static struct rig r;
    static struct driver g;
    struct rlimit all, few;

    (void)state;
    rig_open(&r);
    signal(SIGXFSZ, SIG_IGN);
    r.cfg.disks = 2;
    r.disk[0].path = file_of("base", DISK, 'b');
    r.disk[0].overlay = file_of("over", 0, 0);
    r.disk[1].path = file_of("plain", DISK, 'b');
    rig_join(&r);
    drive_disk(&g, &r, 0);
    assert_int_equal(disk_write(&g, 9, 'n'), 0);
    getrlimit(RLIMIT_FSIZE, &all);
    few = all;
    few.rlim_cur = 512;
    setrlimit(RLIMIT_FSIZE, &few);
    tn_vm_devices_close(&r.d);
    setrlimit(RLIMIT_FSIZE, &all);
    assert_int_equal(r.d.lost, TN_ESYS);
    vd_free(&g.d);
    rig_close(&r);
}

static void a_read_only_disk(void **state)
{
    static struct rig r;
    static struct driver g[2];

    (void)state;
    rig_open(&r);
    r.cfg.disks = 2;
    r.disk[0].path = r.disk[1].path = file_of("shared", DISK, 's');
    r.disk[0].read_only = r.disk[1].read_only = true;
    rig_join(&r);
    for (uint32_t i = 0; i < 2; i++) {
        drive_disk(&g[i], &r, i);
        assert_true(g[i].d.features & TN_VIRTIO_BLK_F_RO);
        assert_int_equal(disk_write(&g[i], 0, 'x'), TN_VIRTIO_BLK_S_IOERR);
        assert_int_equal(disk_do(&g[i], 0, TN_VIRTIO_BLK_T_FLUSH, 0, 0), 0);
    }
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(disk_read(&g[i], 0), 's');
        vd_free(&g[i].d);
    }
    rig_close(&r);
}

static void the_serial_number(void **state)
{
    static const struct {
        const char *id, *read;
    } rows[] = {{NULL, ""},
                {"", ""},
                {"disk-1", "disk-1"},
                {"12345678901234567890", "12345678901234567890"},
                {"123456789012345678901", "12345678901234567890"}};
    static struct rig r;
    static struct driver g;

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        char expected[20] = {0};

        rig_open(&r);
        r.cfg.disks = 1;
        r.disk[0].path = file_of("disk", DISK, 1);
        r.disk[0].id = rows[i].id;
        rig_join(&r);
        drive_disk(&g, &r, 0);
        memset(data_of(&g, 0), 0xee, 20);
        assert_int_equal(disk_do(&g, 0, TN_VIRTIO_BLK_T_GET_ID, 0, 20), 0);
        memcpy(expected, rows[i].read, strlen(rows[i].read));
        assert_memory_equal(data_of(&g, 0), expected, 20);
        vd_free(&g.d);
        rig_close(&r);
    }
}

/* A queue for each vCPU, four at most, all of them served; and the rings that were asked for. */
static void queues_and_rings(void **state)
{
    static const struct {
        uint32_t cpus, queues;
        bool packed, no_indirect, no_event_idx;
    } rows[] = {{0, 1, false, false, false},
                {1, 1, true, false, false},
                {3, 3, false, true, false},
                {4, 4, false, false, true},
                {254, 4, true, true, true}};
    static struct rig r;
    static struct driver g;

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint64_t rings = (rows[i].packed ? TN_VIRTIO_F_RING_PACKED : 0) |
                         (rows[i].no_indirect ? 0 : TN_VIRTIO_F_INDIRECT_DESC) |
                         (rows[i].no_event_idx ? 0 : TN_VIRTIO_F_EVENT_IDX);

        rig_open(&r);
        r.cfg.disks = 1;
        r.disk[0].path = file_of("disk", DISK, 7);
        r.cfg.virtio_console = r.cfg.rng = true;
        r.cfg.cpus = rows[i].cpus;
        r.cfg.packed = rows[i].packed;
        r.cfg.no_indirect = rows[i].no_indirect;
        r.cfg.no_event_idx = rows[i].no_event_idx;
        rig_join(&r);
        assert_int_equal(r.d.hvc->slot.v->cfg.features & TN_VIRTIO_F_RING, rings);
        assert_int_equal(r.d.rng->slot.v->cfg.features & TN_VIRTIO_F_RING, rings);
        assert_int_equal(r.d.disk[0].slot.v->cfg.features & TN_VIRTIO_F_RING, rings);
        drive_disk(&g, &r, 0);
        assert_int_equal(bus_read(&g, 0x100 + 34, 2), rows[i].queues);
        for (uint32_t q = 0; q < rows[i].queues; q++) {
            memset(data_of(&g, 0), 0, 512);
            assert_int_equal(disk_do(&g, q, TN_VIRTIO_BLK_T_IN, 3, 512), 0);
            assert_int_equal(data_of(&g, 0)[511], 7);
        }
        vd_free(&g.d);
        rig_close(&r);
    }
}

/* A limit is kept: so many requests, or bytes, can't be done faster. */
static void a_limited_disk(void **state)
{
    static const struct {
        struct tn_rate_cfg rate;
        double least; /* seconds for 16 requests of 512 bytes */
    } rows[] = {{{0, 0, 50, 1}, 0.3}, {{20480, 512, 0, 0}, 0.375}, {{1 << 30, 0, 50, 1}, 0.3}};
    static struct rig r;
    static struct driver g;
    uint32_t used;

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        double began, cpu;

        rig_open(&r);
        r.cfg.disks = 1;
        r.disk[0].path = file_of("disk", DISK, 7);
        r.disk[0].rate = rows[i].rate;
        rig_join(&r);
        drive_disk(&g, &r, 0);
        began = seconds(CLOCK_MONOTONIC);
        cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
        for (uint32_t n = 0; n < 16; n++)
            disk_add(&g, 0, n, TN_VIRTIO_BLK_T_IN, n, 512);
        vd_kick(&g.d, 0);
        for (uint32_t n = 0; n < 16; n++)
            (void)answer(&g, 0, &used);
        assert_true(seconds(CLOCK_MONOTONIC) - began >= rows[i].least);
        assert_true(seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu < rows[i].least); /* it waits */
        for (uint32_t n = 0; n < 16; n++)
            assert_int_equal(status_of(&g, n), 0);
        vd_free(&g.d);
        rig_close(&r);
    }
}

/* Closed, or reset by the driver, with requests in the kernel and in the rings. */
static void ended_in_the_midst_of_requests(void **state)
{
    static struct rig r;
    static struct driver g;

    (void)state;
    for (uint32_t i = 0; i < 12; i++) {
        rig_open(&r);
        r.cfg.disks = 1;
        r.cfg.cpus = 4;
        r.disk[0].path = file_of("disk", DISK, 7);
        r.disk[0].overlay = i % 2 ? file_of("over", 0, 0) : NULL;
        if (i % 3 == 1) {
            r.disk[0].rate.ops_per_s = 1;
            r.disk[0].rate.ops_burst = 3;
        }
        rig_join(&r);
        drive_disk(&g, &r, 0);
        for (uint32_t n = 0; n < 40; n++)
            disk_add(&g, n % 4, n, n % 3 ? TN_VIRTIO_BLK_T_OUT : TN_VIRTIO_BLK_T_IN, n, 512);
        for (uint32_t q = 0; q < 4; q++)
            vd_kick(&g.d, q);
        for (uint32_t n = 0; n < i / 2; n++)
            tn_loop_step(&r.loop, 0);
        if (i % 4 >= 2) {
            vd_reset(&g.d);
            assert_int_equal(vd_status(&g.d), 0);
            assert_true(vd_up(&g.d, ~0ull, 4, 64));
            if (i % 3 != 1)
                assert_int_equal(disk_write(&g, 1, 3), 0);
        }
        vd_free(&g.d);
        rig_part(&r);
        assert_int_equal(r.d.lost, 0);
        assert_int_equal(tn_loop_step(&r.loop, 0), 0);
        rig_close(&r);
    }
}

/* ---- the console ---- */

struct pipes {
    int in[2], out[2];
};

static void hvc_open(struct rig *r, struct pipes *p, struct driver *g)
{
    rig_open(r);
    assert_int_equal(pipe2(p->in, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(pipe2(p->out, O_CLOEXEC | O_NONBLOCK), 0);
    assert_true(fcntl(p->out[1], F_SETPIPE_SZ, 4096) > 0);
    r->before = count_fds();
    r->cfg.virtio_console = true;
    r->cfg.virtio_in = p->in[0];
    r->cfg.virtio_out = p->out[1];
    r->cfg.cols = 80;
    r->cfg.rows = 24;
    rig_join(r);
    drive(g, r, &r->d.hvc->slot, 0, 2, ~0ull);
}

static void hvc_close(struct rig *r, struct pipes *p, struct driver *g)
{
    vd_free(&g->d);
    rig_part(r);
    for (int i = 0; i < 2; i++) {
        close(p->in[i]);
        close(p->out[i]);
    }
    r->before = count_fds();
    rig_close(r);
}

static uint8_t byte_at(uint64_t n)
{
    return (uint8_t)(n * 2654435761u >> 16);
}

/* 300,000 bytes through a pipe of 4 KiB with a slow reader: none lost, none twice, no spinning. */
static void output_waits_for_its_reader(void **state)
{
    static struct rig r;
    static struct pipes p;
    static struct driver g;
    uint64_t sent = 0, got = 0;
    uint8_t bytes[700];
    uint32_t used, slots = 0;
    double cpu;
    ssize_t n;

    (void)state;
    hvc_open(&r, &p, &g);
    while (got < 300000) {
        while (slots < 16 && sent < 300000) {
            struct vqd_buf buf = {BUFFER + 4096ull * (sent / 2000 % 16), 2000, false};

            for (uint32_t i = 0; i < 2000; i++)
                ram[buf.addr + i] = byte_at(sent + i);
            assert_true(vd_add(&g.d, 1, &buf, 1) >= 0);
            sent += 2000;
            slots++;
        }
        vd_kick(&g.d, 1);
        for (int i = 0; i < 3; i++)
            tn_loop_step(&r.loop, 0);
        while (vd_reap(&g.d, 1, &used) >= 0)
            slots--;
        if (got == 0) { /* nobody reads: it stands still, and costs nothing */
            assert_true(slots > 10);
            cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
            for (int i = 0; i < 3; i++)
                tn_loop_step(&r.loop, 100);
            assert_true(seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu < 0.1);
        }
        n = read(p.out[0], bytes, sizeof(bytes));
        for (ssize_t i = 0; i < n; i++)
            assert_int_equal(bytes[i], byte_at(got + (uint64_t)i));
        got += n > 0 ? (uint64_t)n : 0;
    }
    hvc_close(&r, &p, &g);
}

/* What the transmitter holds at the end is handed out as far as the output takes it. */
static void output_at_the_end(void **state)
{
    static struct rig r;
    static struct pipes p;
    static struct driver g;
    const struct vqd_buf buf = {BUFFER, 12, false};
    char text[16] = {0};

    (void)state;
    hvc_open(&r, &p, &g);
    memcpy(ram + BUFFER, "last words.\n", 12);
    assert_true(vd_add(&g.d, 1, &buf, 1) >= 0);
    vd_kick(&g.d, 1);
    tn_vm_devices_close(&r.d); /* before the loop has had a turn */
    assert_int_equal(read(p.out[0], text, sizeof(text)), 12);
    assert_string_equal(text, "last words.\n");
    hvc_close(&r, &p, &g);
}

/* Input is read only while the guest has room for it: what it has not asked for stays outside. */
static void input_waits_for_the_guest(void **state)
{
    static struct rig r;
    static struct pipes p;
    static struct driver g;
    uint64_t sent = 0, got = 0;
    double cpu;
    int pending = 0;

    (void)state;
    hvc_open(&r, &p, &g);
    while (got < 100000) {
        uint8_t bytes[1000];
        uint32_t used;
        ssize_t n;
        int id;

        for (uint32_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = byte_at(sent + i);
        n = write(p.in[1], bytes, sizeof(bytes));
        sent += n > 0 ? (uint64_t)n : 0;
        if (got == 0 && sent > 60000) { /* no buffer yet: nothing was read, nothing spins */
            cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
            for (int i = 0; i < 3; i++)
                tn_loop_step(&r.loop, 100);
            assert_true(seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu < 0.1);
            assert_int_equal(fcntl(p.in[0], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
        }
        if (sent < 50000) {
            tn_loop_step(&r.loop, 0);
            continue;
        }
        while (pending < 4) { /* chain id's buffer is known by its id: ids go round */
            struct vqd_buf buf = {0, 7, true};

            buf.addr = BUFFER + 64ull * g.d.q[0].id[g.d.q[0].id_head];
            assert_true(vd_add(&g.d, 0, &buf, 1) >= 0);
            pending++;
        }
        vd_kick(&g.d, 0);
        tn_loop_step(&r.loop, 1);
        while ((id = vd_reap(&g.d, 0, &used)) >= 0) {
            assert_in_range(used, 1, 7);
            for (uint32_t i = 0; i < used; i++)
                assert_int_equal(ram[BUFFER + 64 * (uint32_t)id + i], byte_at(got++));
            pending--;
        }
    }
    hvc_close(&r, &p, &g);
}

static void a_new_size_is_told(void **state)
{
    static struct rig r;
    static struct pipes p;
    static struct driver g;

    (void)state;
    hvc_open(&r, &p, &g);
    assert_int_equal(bus_read(&g, 0x100, 4), 80 | 24 << 16);
    pthread_mutex_lock(&r.d.hvc->slot.lock);
    tn_virtio_console_resize(&r.d.hvc->model, 132, 50);
    pthread_mutex_unlock(&r.d.hvc->slot.lock);
    assert_int_equal(bus_read(&g, 0x100, 4), 132 | 50 << 16);
    assert_int_equal(bus_read(&g, 0x60, 4), TN_VIRTIO_MMIO_INT_CONFIG);
    assert_int_equal(bus_read(&g, 0xfc, 4), 1);
    hvc_close(&r, &p, &g);
}

/* ---- entropy ---- */

static void entropy(void **state)
{
    static struct rig r;
    static struct driver g;
    const struct vqd_buf buf[2] = {{BUFFER, 4096, true}, {BUFFER + 8192, 100, true}};
    uint32_t used, zeroes = 0;

    (void)state;
    rig_open(&r);
    r.cfg.rng = true;
    rig_join(&r);
    drive(&g, &r, &r.d.rng->slot, 0, 1, ~0ull);
    assert_true(vd_add(&g.d, 0, buf, 2) >= 0);
    vd_kick(&g.d, 0);
    (void)answer(&g, 0, &used);
    assert_in_range(used, 1, 4196);
    for (uint32_t i = 0; i < used && i < 4096; i++)
        zeroes += ram[BUFFER + i] == 0;
    assert_true(zeroes < used / 8 + 4);
    /* What was added before the driver was ready is served without a notification. */
    vd_reset(&g.d);
    assert_true(vd_negotiate(&g.d, ~0ull));
    assert_true(vd_queues(&g.d, 1, 64));
    assert_true(vd_add(&g.d, 0, buf, 1) >= 0);
    vd_set_status(&g.d, 15);
    (void)answer(&g, 0, &used);
    vd_free(&g.d);
    rig_close(&r);
}

/* ---- networks, sockets, a balloon: their own tests have all but that they are joined ---- */

/* A path for a socket device. */
static const char *sock_path(void)
{
    static char path[96];

    snprintf(path, sizeof(path), "%s/sock", dir);
    return path;
}

/* Which one was refused is told, and at what, and nothing of the others stays. */
static void refused_networks(void **state)
{
    static struct rig r;
    static struct tn_vm_net_cfg net[TN_VM_MAX_NETS + 1];
    int end[2];

    (void)state;
    rig_open(&r);
    far_sockets(TN_VM_NET_PAIR, end);
    r.before += 2;
    r.cfg.net = net;
    r.cfg.nets = TN_VM_MAX_NETS + 1;
    assert_int_equal(rig_try(&r), TN_EINVAL);
    r.cfg.nets = UINT32_MAX;
    assert_int_equal(rig_try(&r), TN_EINVAL);
    for (uint32_t how = 0; how < 9; how++) {
        uint32_t at = 1 + how / 3; /* the third is refused for its place, or all three work */

        rig_renew(&r);
        memset(net, 0, sizeof(net));
        r.cfg.nets = 3;
        for (uint32_t i = 0; i < 3; i++) {
            net[i].kind = TN_VM_NET_PAIR;
            net[i].fd = end[i % 2];
        }
        if (how % 3 == 0)
            net[at - 1].mtu = 67;
        if (how % 3 == 1)
            net[at - 1].kind = TN_VM_NET_TAP, net[at - 1].name = "a-name-of-16-byt";
        if (how % 3 == 2)
            tn_bus_init(&r.bus, r.range, at - 1);
        assert_true(rig_try(&r) < 0);
        assert_int_equal(r.d.refused_net, at);
        assert_int_equal(r.d.phase, how % 3 == 1 ? TN_TAP_LONG : TN_TAP_DONE);
        assert_null(r.d.loop);
        rig_part(&r);
        assert_int_equal(fcntl(end[0], F_GETFD), FD_CLOEXEC); /* ours still */
    }
    for (int i = 0; i < 2; i++)
        close(end[i]);
    r.before -= 2;
    rig_close(&r);
}

static void refused_sockets_and_balloons(void **state)
{
    static struct rig r;
    struct tn_hostmem pages;

    (void)state;
    rig_open(&r);
    r.cfg.vsock.cid = 2;
    r.cfg.vsock.path = sock_path();
    assert_int_equal(rig_try(&r), TN_EINVAL);
    assert_true(r.d.refused_vsock);
    rig_renew(&r);
    r.cfg.vsock.cid = 42;
    r.cfg.vsock.path = dir; /* there already */
    assert_int_equal(rig_try(&r), TN_ESYS);
    assert_true(r.d.refused_vsock);
    rig_renew(&r);
    memset(&r.cfg.vsock, 0, sizeof(r.cfg.vsock));
    r.cfg.balloon = true;
    r.cfg.balloon_size = 3 << 12;
    assert_int_equal(rig_try(&r), TN_EINVAL); /* whose memory? */
    assert_false(r.d.refused_vsock);
    rig_renew(&r);
    ram_pages(&pages);
    r.place.ram = &pages;
    r.cfg.balloon_size = 100;
    assert_int_equal(rig_try(&r), TN_EINVAL);
    rig_close(&r);
}

/* All three through the bus and KVM's eventfds, at rest and awake, and closed. */
static void those_that_talk_to_the_world(void **state)
{
    static struct rig r;
    static struct driver g[3];
    struct tn_vm_net_cfg net;
    struct tn_hostmem pages;
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int end[2], fd;
    uint32_t used;

    (void)state;
    rig_open(&r);
    memset(&net, 0, sizeof(net));
    far_sockets(TN_VM_NET_PAIR, end);
    net.kind = TN_VM_NET_PAIR;
    net.fd = end[0];
    r.cfg.net = &net;
    r.cfg.nets = 1;
    r.cfg.vsock.cid = 42;
    r.cfg.vsock.path = sock_path();
    ram_pages(&pages);
    r.place.ram = &pages;
    r.cfg.balloon = true;
    r.cfg.balloon_size = 3 << 12;
    assert_int_equal(tn_vm_devices_count(&r.cfg), 3);
    r.before++;
    rig_join(&r);
    close(end[0]);
    drive(&g[0], &r, &r.d.net[0].slot, 0, 3, ~0ull);
    drive(&g[1], &r, &r.d.vsock->slot, 1, 3, ~0ull);
    drive(&g[2], &r, &r.d.balloon->slot, 2, 4, ~0ull);
    assert_int_equal(bus_read(&g[1], 0x100, 4), 42);
    assert_int_equal(bus_read(&g[2], 0x100, 4), 3);
    /* A frame each way. */
    data_add(&g[0], 0, 0, 2048, true);
    data_add(&g[0], 0, 1, 2048, true);
    vd_kick(&g[0].d, 0);
    assert_true(far_send(end[1], TN_VM_NET_PAIR, 5));
    (void)answer(&g[0], 0, &used);
    assert_int_equal(used, MESSAGE);
    assert_int_equal(frame_number(data_of(&g[0], 0) + TN_NET_HDR), 5);
    memset(data_of(&g[0], 2), 0, TN_NET_HDR);
    frame_make(data_of(&g[0], 2) + TN_NET_HDR, 6);
    data_add(&g[0], 1, 2, MESSAGE, false);
    vd_kick(&g[0].d, 1);
    (void)answer(&g[0], 1, &used);
    assert_int_equal(far_take(end[1], TN_VM_NET_PAIR), 6);
    /* A program asks for a port. */
    data_add(&g[1], 0, 0, 4096, true);
    vd_kick(&g[1].d, 0);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(to.sun_path, sizeof(to.sun_path), "%s", sock_path());
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    assert_int_equal(write(fd, "CONNECT 1234\n", 13), 13);
    (void)answer(&g[1], 0, &used);
    assert_int_equal(used, TN_VIRTIO_VSOCK_HDR);
    assert_int_equal(tn_get_(data_of(&g[1], 0) + 20, 4), 1234);
    close(fd);
    /* A page goes back. */
    memset(ram + 0x300000, 0xaa, 0x3000);
    tn_put_(data_of(&g[2], 0), 4, 0x301);
    data_add(&g[2], 0, 0, 4, false);
    vd_kick(&g[2].d, 0);
    (void)answer(&g[2], 0, &used);
    for (uint32_t i = 0x300; i < 0x303; i++)
        assert_int_equal(ram[i * 4096 + 17], i == 0x301 ? 0 : 0xaa);
    /* At rest the buffers are the driver's; what came meanwhile is there afterwards. */
    tn_vm_devices_quiesce(&r.d);
    assert_int_equal(tn_virtq_in_flight(&r.d.net[0].model.queue[0].q), 0);
    assert_true(far_send(end[1], TN_VM_NET_PAIR, 7));
    data_add(&g[2], 0, 0, 4, false); /* not notified */
    for (int i = 0; i < 5; i++)
        tn_loop_step(&r.loop, 2);
    assert_int_equal(vd_reap(&g[0].d, 0, &used), -1);
    assert_int_equal(vd_reap(&g[2].d, 0, &used), -1);
    tn_vm_devices_wake(&r.d);
    (void)answer(&g[0], 0, &used);
    assert_int_equal(frame_number(data_of(&g[0], 1) + TN_NET_HDR), 7);
    (void)answer(&g[2], 0, &used);
    for (int i = 0; i < 3; i++)
        vd_free(&g[i].d);
    rig_part(&r);
    assert_int_equal(recv(end[1], &used, 4, MSG_DONTWAIT), 0); /* it is gone */
    assert_int_equal(access(to.sun_path, F_OK), -1);
    close(end[1]);
    r.before--;
    rig_close(&r);
}

/* ---- threads ---- */

static const char *accesses(struct driver *g)
{
    uint64_t random = 3;

    for (int i = 0; i < 300; i++) {
        uint32_t used;

        if (i % 40 == 39) {
            vd_reset(&g->d);
            if (!vd_up(&g->d, ~0ull, g->d.queues, 64))
                return "the device did not come up";
        }
        disk_add(g, 0, 0, test_random(&random) % 2 ? TN_VIRTIO_BLK_T_OUT : TN_VIRTIO_BLK_T_IN,
                 test_random(&random) % 100, 512);
        vd_kick(&g->d, 0);
        if (i % 40 == 38) /* the reset comes while it is under way */
            continue;
        while (vd_reap(&g->d, 0, &used) == -1) {
            (void)bus_read(g, 0x60, 4);
            bus_write(g, 0x64, 4, 1);
        }
        if (status_of(g, 0) != 0)
            return "a request failed";
    }
    return NULL;
}

static void *vcpu_main(void *arg)
{
    struct driver *g = arg;
    const char *why = accesses(g);

    tn_loop_stop(&g->rig->loop);
    return (void *)(uintptr_t)why;
}

/* Registers on a vCPU's thread, queues on the loop's; resets while requests are under way. */
static void a_vcpu_beside_the_loop(void **state)
{
    static struct rig r;
    static struct driver g;
    pthread_t thread;
    void *why = NULL;

    (void)state;
    rig_open(&r);
    r.cfg.disks = 1;
    r.cfg.cpus = 2;
    r.disk[0].path = file_of("disk", DISK, 7);
    rig_join(&r);
    drive_disk(&g, &r, 0);
    assert_int_equal(pthread_create(&thread, NULL, vcpu_main, &g), 0);
    assert_int_equal(tn_loop_run(&r.loop), 0);
    pthread_join(thread, &why);
    if (why)
        fail_msg("%s", (const char *)why);
    vd_free(&g.d);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(too_many),
        cmocka_unit_test(refused_disks),
        cmocka_unit_test(no_descriptors),
        cmocka_unit_test(refused_places),
        cmocka_unit_test(how_many),
        cmocka_unit_test(an_overlay_takes_the_writes),
        cmocka_unit_test(lost_writes_are_told),
        cmocka_unit_test(a_read_only_disk),
        cmocka_unit_test(the_serial_number),
        cmocka_unit_test(queues_and_rings),
        cmocka_unit_test(a_limited_disk),
        cmocka_unit_test(ended_in_the_midst_of_requests),
        cmocka_unit_test(output_waits_for_its_reader),
        cmocka_unit_test(output_at_the_end),
        cmocka_unit_test(input_waits_for_the_guest),
        cmocka_unit_test(a_new_size_is_told),
        cmocka_unit_test(entropy),
        cmocka_unit_test(refused_networks),
        cmocka_unit_test(refused_sockets_and_balloons),
        cmocka_unit_test(those_that_talk_to_the_world),
        cmocka_unit_test(a_vcpu_beside_the_loop),
    };

    return cmocka_run_group_tests_name("vm_devices", tests, guests_setup, guests_teardown);
}
