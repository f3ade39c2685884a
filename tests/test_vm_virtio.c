/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_vm_virtio.h"

#include "vm_guest.h"

#include "test.h"
#include "virtio_driver.h"

/*
 * A device's place in a machine, with a device of the test's own, and with those of tn_vm_devices;
 * the guest is tests/guests/virtio.c.
 */

#define WINDOW 0xd0000000ull
#define STRIDE 0x1000u
#define ID     42u

/* ---- a device that fills what it is given with its count ---- */

struct probe {
    struct tn_virtio v;
    struct tn_virtio_queue queue[3];
    struct tn_vm_virtio slot;
    pthread_t thread;  /* that served the last notification */
    uint32_t notified; /* atomic */
    uint32_t resets, last;
};

static void probe_reset(void *ctx)
{
    ((struct probe *)ctx)->resets++;
}

static void probe_notify(void *ctx, uint32_t queue)
{
    struct probe *p = ctx;
    struct tn_virtq *q = &p->queue[queue].q;
    struct tn_virtq_chain chain;
    struct tn_iov iov[4];

    p->thread = pthread_self();
    p->last = queue;
    (void)__atomic_add_fetch(&p->notified, 1, __ATOMIC_RELAXED);
    while (tn_virtq_pop(q, &chain, iov, 4) > 0) {
        memset(iov[0].base, (int)p->notified, iov[0].len);
        assert_int_equal(tn_virtq_push(q, &chain, (uint32_t)iov[0].len), 0);
    }
    tn_virtio_signal(&p->v, queue);
}

static const struct tn_virtio_ops probe_ops = {NULL, NULL, probe_reset, probe_notify, NULL};

static void probe_init(struct probe *p, const struct tn_mem *mem, uint32_t queues)
{
    struct tn_virtio_cfg cfg;

    memset(p, 0, sizeof(*p));
    memset(&cfg, 0, sizeof(cfg));
    cfg.device_id = ID;
    cfg.queue_size = 8;
    cfg.queues = queues;
    cfg.queue = p->queue;
    cfg.mem = mem;
    cfg.ops = &probe_ops;
    cfg.ctx = p;
    assert_int_equal(tn_virtio_init(&p->v, &cfg), 0);
}

/* A place in a machine that does not run. */
struct place {
    struct tn_loop loop;
    struct tn_kvm_vm vm;
    struct tn_bus bus;
    struct tn_bus_range range[2];
    struct tn_mem mem;
    struct tn_mem_region table[1];
    struct probe p;
};

static void place_open(struct place *at, uint32_t queues)
{
    NEED_KVM();
    memset(at, 0, sizeof(*at));
    assert_int_equal(tn_loop_init(&at->loop), 0);
    assert_int_equal(tn_kvm_vm_init(&kvm, &at->vm), 0);
    assert_int_equal(tn_kvm_x86_irqchip_full(&at->vm), 0);
    tn_mem_init(&at->mem, at->table, 1);
    tn_bus_init(&at->bus, at->range, 2);
    probe_init(&at->p, &at->mem, queues);
}

static int place_join(struct place *at, uint64_t gpa, uint32_t gsi)
{
    return tn_vm_virtio_init(&at->p.slot, &at->p.v, &at->vm, &at->loop, &at->bus, gpa, gsi);
}

static void place_close(struct place *at)
{
    tn_vm_virtio_close(&at->p.slot);
    tn_kvm_vm_close(&at->vm);
    tn_loop_close(&at->loop);
}

static uint64_t get(struct place *at, uint64_t off, unsigned width)
{
    return tn_bus_read(&at->bus, WINDOW + off, width, NULL);
}

static void registers_through_the_bus(void **state)
{
    static struct place at;
    static const struct {
        uint64_t off;
        unsigned width;
        uint64_t value;
    } rows[] = {
        {0x000, 4, 0x74726976}, {0x004, 4, 2}, {0x008, 4, ID},
        {0x034, 4, 8},          {0x000, 1, 0}, {0x002, 2, 0},
        {0x000, 8, 0},          {0x070, 4, 0}, {TN_VIRTIO_MMIO_SIZE, 4, ~0u},
        {0x1fc, 4, 0},
    };

    (void)state;
    place_open(&at, 1);
    assert_int_equal(place_join(&at, WINDOW, 16), 0);
    for (size_t i = 0; i < COUNT(rows); i++)
        assert_int_equal(get(&at, rows[i].off, rows[i].width) & 0xffffffff, rows[i].value);
    (void)tn_bus_write(&at.bus, WINDOW + 0x70, 4, 1, NULL);
    assert_int_equal(get(&at, 0x70, 4), 1);
    (void)tn_bus_write(&at.bus, WINDOW + 0x70, 4, 0, NULL);
    assert_int_equal(at.p.resets, 1);
    place_close(&at);
    assert_int_equal(at.p.resets, 2);
}

/* What can't be had is an error, and nothing stays open but the range that was there before. */
static void refusals_leave_nothing(void **state)
{
    static struct place at;
    static const struct tn_bus_ops none = {NULL, NULL};
    struct rlimit all, few;
    int before, errors = 0, r = -1, fd;

    (void)state;
    place_open(&at, 3);
    before = count_fds();

    /* KVM takes no interrupt */
    fd = at.vm.fd;
    at.vm.fd = -1;
    assert_int_equal(place_join(&at, WINDOW, 16), TN_ESYS);
    assert_int_equal(errno, EBADF);
    at.vm.fd = fd;
    assert_null(at.p.slot.v);
    assert_int_equal(count_fds(), before);

    /* the window is taken */
    assert_int_equal(tn_bus_add(&at.bus, WINDOW + 0x1100, 4, &none, NULL), 0);
    assert_true(place_join(&at, WINDOW + 0x1000, 16) < 0);
    assert_null(at.p.slot.v);
    assert_int_equal(count_fds(), before);

    /* a queue's address signals another eventfd already: KVM refuses */
    fd = eventfd(0, EFD_CLOEXEC);
    assert_int_equal(
        tn_kvm_ioeventfd(&at.vm, WINDOW + 0x2050, 4, fd, KVM_IOEVENTFD_FLAG_DATAMATCH, 2), 0);
    assert_int_equal(place_join(&at, WINDOW + 0x2000, 16), TN_ESYS);
    assert_int_equal(errno, EEXIST);
    close(fd);
    assert_int_equal(count_fds(), before);

    /* no descriptors: each of those that it needs is the one that is missing */
    getrlimit(RLIMIT_NOFILE, &all);
    for (rlim_t n = 0; n < 64 && r < 0; n++) {
        int first = dup(0);

        few = all;
        few.rlim_cur = (rlim_t)first + n;
        close(first);
        setrlimit(RLIMIT_NOFILE, &few);
        r = place_join(&at, WINDOW + 0x4000 + 0x1000 * n, 16); /* KVM keeps an ioeventfd */
        setrlimit(RLIMIT_NOFILE, &all);
        assert_true(r == 0 || r == TN_ESYS);
        errors += r < 0;
        tn_vm_virtio_close(&at.p.slot);
        assert_int_equal(count_fds(), before);
    }
    assert_int_equal(r, 0);
    assert_true(errors >= 4);       /* of the interrupt, and of each queue */
    tn_vm_virtio_close(&at.p.slot); /* once more: nothing */
    place_close(&at);
}

static uint64_t bus_get(void *ctx, uint64_t off, unsigned width)
{
    return get(ctx, off, width);
}

static void bus_put(void *ctx, uint64_t off, unsigned width, uint64_t value)
{
    struct place *at = ctx;

    assert_int_equal(tn_bus_write(&at->bus, WINDOW + off, width, value, NULL), 1);
}

/* The eventfd that KVM signals is served on the loop's thread, with the number of its queue. */
static void notifications_reach_their_queue(void **state)
{
    static struct place at;
    static struct vd d;
    static uint8_t ram[1 << 16] __attribute__((aligned(4096)));
    const struct vqd_buf buf = {0x8000, 16, true};
    uint32_t len;

    (void)state;
    place_open(&at, 3);
    assert_int_equal(tn_mem_add(&at.mem, 0, ram, sizeof(ram)), 0);
    assert_int_equal(place_join(&at, WINDOW, 16), 0);
    for (uint32_t q = 0; q < 3; q++) {
        assert_int_equal(eventfd_write(at.p.slot.notify[q].event.source.fd, 5), 0);
        assert_int_equal(tn_loop_step(&at.loop, 100), 1);
    }
    assert_int_equal(at.p.notified, 0); /* no driver: nothing is served */
    vd_init(&d, &at.p.v, ram, 0, 0x1000);
    vd_mmio(&d, bus_get, bus_put, &at);
    assert_true(vd_up(&d, TN_VIRTIO_F_RING, 3, 8));
    for (uint32_t q = 0; q < 3; q++) {
        assert_true(vd_add(&d, q, &buf, 1) >= 0);
        assert_int_equal(eventfd_write(at.p.slot.notify[q].event.source.fd, 5), 0);
        assert_int_equal(at.p.notified, q);
        assert_int_equal(tn_loop_step(&at.loop, 100), 1);
        assert_int_equal(at.p.notified, q + 1);
        assert_int_equal(at.p.last, q);
        assert_true(vd_reap(&d, q, &len) >= 0);
        assert_int_equal(len, 16);
        assert_int_equal(get(&at, 0x60, 4), 1);
    }
    vd_kick(&d, 1); /* by the register, where KVM has no ioeventfd */
    assert_int_equal(at.p.notified, 4);
    assert_int_equal(at.p.last, 1);
    /* A notification that nobody has served yet when the device goes. */
    assert_int_equal(eventfd_write(at.p.slot.notify[0].event.source.fd, 1), 0);
    tn_vm_virtio_close(&at.p.slot);
    assert_int_equal(tn_virtio_status_read(&at.p.v), 0);
    assert_int_equal(tn_loop_step(&at.loop, 0), 0);
    assert_int_equal(at.p.notified, 4);
    vd_free(&d);
    place_close(&at);
}

/* The guest's notification comes without an exit, the interrupt goes to it and wakes it. */
static void a_round_through_the_guest(void **state)
{
    static struct bench b;
    static struct probe p;
    struct tn_vm_place place;
    int before;

    (void)state;
    before = count_fds();
    bench_open(&b, "ping");
    bench_create(&b);
    probe_init(&p, &b.vm.mem, 1);
    tn_vm_x86_place(&b.vm.board, &place);
    assert_int_equal(
        tn_vm_virtio_init(&p.slot, &p.v, place.vm, &b.loop, place.mmio, place.gpa, place.gsi), 0);
    assert_int_equal(tn_vm_start(&b.vm), 0);
    assert_int_equal(run_to_end(&b), TN_VM_POWEROFF);
    assert_non_null(strstr(b.seen, "ping\npong 64 1\npong 64 2\n"));
    assert_int_equal(p.notified, 2);
    assert_true(pthread_equal(p.thread, pthread_self()));
    tn_vm_virtio_close(&p.slot);
    bench_close(&b);
    assert_int_equal(count_fds(), before);
}

/* ---- with the devices of a whole machine ---- */

static struct tn_vm_disk_cfg disks[TN_VM_MAX_DISKS];

static void disks_of(struct bench *b, uint32_t n, size_t len)
{
    memset(disks, 0, sizeof(disks));
    for (uint32_t i = 0; i < n; i++) {
        char name[16];

        snprintf(name, sizeof(name), "disk%u", i);
        disks[i].path = file_of(name, len, 0);
    }
    b->cfg.disk = disks;
    b->cfg.disks = n;
}

static const uint8_t *find(const uint8_t *at, size_t len, const void *what, size_t n)
{
    return memmem(at, len, what, n);
}

/* What the tables and the command line tell the guest of each device. */
static void told_of_all(struct bench *b, uint32_t n)
{
    const uint8_t *acpi = b->vm.ram.ptr + TN_BOOT_X86_ACPI, *at = acpi;
    const char *line = (const char *)b->vm.ram.ptr + TN_BOOT_X86_CMDLINE;
    uint32_t found = 0;

    while ((at = find(at, TN_BOOT_X86_ACPI_SIZE - (size_t)(at - acpi), "LNRO0005", 9)) != NULL) {
        uint8_t memory[12] = {0x86, 9, 0, 1}, irq[9] = {0x89, 6, 0, 0xb, 1};
        char word[64];

        tn_put_(memory + 4, 4, WINDOW + STRIDE * found);
        tn_put_(memory + 8, 4, 0x200);
        tn_put_(irq + 5, 4, 16 + found % 8);
        assert_non_null(find(at, 80, memory, sizeof(memory)));
        assert_non_null(find(at, 80, irq, sizeof(irq)));
        snprintf(word, sizeof(word), " virtio_mmio.device=512@0x%llx:%u",
                 (unsigned long long)(WINDOW + STRIDE * found), 16 + found % 8);
        assert_non_null(strstr(line, word));
        found++;
        at++;
    }
    assert_int_equal(found, n);
    for (at = (const uint8_t *)line, found = 0; at != NULL; found++)
        at = (const uint8_t *)strstr((const char *)at + 1, "virtio_mmio.device=");
    assert_int_equal(found, n + 1);
}

/* 18 devices on 8 interrupts: all are found, and work, at the same time. */
static void sixteen_disks_a_console_and_entropy(void **state)
{
    static struct bench b;
    int before, hvc[2];
    char text[64] = {0};

    (void)state;
    before = count_fds();
    bench_open(&b, "all");
    assert_int_equal(pipe2(hvc, O_CLOEXEC | O_NONBLOCK), 0);
    disks_of(&b, 16, 65536);
    b.cfg.virtio_console = b.cfg.rng = true;
    b.cfg.virtio_in = -1;
    b.cfg.virtio_out = hvc[1];
    bench_create(&b);
    told_of_all(&b, 18);
    assert_int_equal(tn_vm_start(&b.vm), 0);
    assert_int_equal(run_to_end(&b), TN_VM_POWEROFF);
    assert_non_null(strstr(b.seen, "all 18\n"));
    assert_int_equal(read(hvc[0], text, sizeof(text) - 1), 22);
    assert_string_equal(text, "hvc speaks\nhvc speaks\n");
    bench_close(&b);
    for (uint32_t i = 0; i < 16; i++) {
        uint8_t sector[512];

        file_read(disks[i].path, sector, sizeof(sector), (5 + i) * 512);
        for (uint32_t k = 0; k < 64; k++)
            assert_int_equal(tn_get_(sector + 8 * k, 8), (i + 1) * 0x9e3779b97f4a7c15ull + k);
    }
    close(hvc[0]);
    close(hvc[1]);
    assert_int_equal(count_fds(), before);
}

static void each_kind_has_its_window(void **state)
{
    static struct bench b;
    static const char *const lines[] = {"probe\n\n",       "probe\n4 \n",      "probe\n3 \n",
                                        "probe\n3 4 \n",   "probe\n2 2 \n",    "probe\n2 2 4 \n",
                                        "probe\n2 2 3 \n", "probe\n2 2 3 4 \n"};

    (void)state;
    for (unsigned i = 0; i < COUNT(lines); i++) {
        bench_open(&b, "probe");
        if (i & 4)
            disks_of(&b, 2, 4096);
        b.cfg.virtio_console = i & 2;
        b.cfg.rng = i & 1;
        b.cfg.virtio_in = b.cfg.virtio_out = -1;
        bench_create(&b);
        assert_int_equal(tn_vm_start(&b.vm), 0);
        assert_int_equal(run_to_end(&b), TN_VM_POWEROFF);
        assert_string_equal(b.seen, lines[i]);
        bench_close(&b);
    }
}

/* Killed with requests under way, again and again: no descriptor stays, nothing hangs. */
static void killed_in_the_midst_of_requests(void **state)
{
    static struct bench b;
    int before;

    (void)state;
    NEED_KVM();
    before = count_fds();
    for (int i = 0; i < 6; i++) {
        bench_open(&b, "flood");
        b.cfg.cpus = 1 + (uint32_t)i % 2;
        disks_of(&b, 1, 65536);
        disks[0].overlay = i % 3 == 2 ? file_of("over", 0, 0) : NULL;
        bench_create(&b);
        assert_int_equal(tn_vm_start(&b.vm), 0);
        until_seen(&b, ".");
        serve(&b, i * 7);
        if (i % 2)
            assert_int_equal(tn_vm_kill(&b.vm), 0);
        bench_close(&b);
        assert_int_equal(b.vm.devices.lost, 0);
        assert_int_equal(count_fds(), before);
    }
}

/* Pauses at random moments lose no request: the guest checks what it reads. */
static void pauses_between_requests(void **state)
{
    static struct bench b;
    uint64_t random = 11;

    (void)state;
    bench_open(&b, "io");
    disks_of(&b, 1, 65536);
    bench_create(&b);
    assert_int_equal(tn_vm_start(&b.vm), 0);
    until_seen(&b, "io\n.");
    for (int i = 0; i < 100; i++) {
        tn_loop_step(&b.loop, (int)(test_random(&random) % 3));
        assert_int_equal(tn_vm_pause(&b.vm), 0);
        if (test_random(&random) % 2)
            tn_loop_step(&b.loop, 0); /* the devices go on */
        assert_int_equal(tn_vm_resume(&b.vm), 0);
    }
    until_seen(&b, "..");
    assert_int_equal(write(b.in[1], "q", 1), 1);
    assert_int_equal(run_to_end(&b), TN_VM_POWEROFF);
    assert_non_null(strstr(b.seen, "\ndone\n"));
    bench_close(&b);
}

static void a_new_size_interrupts_the_guest(void **state)
{
    static struct bench b;

    (void)state;
    bench_open(&b, "size");
    b.cfg.virtio_console = true;
    b.cfg.virtio_in = b.cfg.virtio_out = -1;
    b.cfg.cols = 80;
    b.cfg.rows = 25;
    bench_create(&b);
    assert_int_equal(tn_vm_start(&b.vm), 0);
    until_seen(&b, "size\n80x25\n");
    tn_vm_resize(&b.vm, 80, 25); /* no change */
    tn_vm_resize(&b.vm, 132, 43);
    until_seen(&b, "\n132x43\n");
    tn_vm_resize(&b.vm, 0, 0);
    assert_int_equal(run_to_end(&b), TN_VM_POWEROFF);
    assert_string_equal(b.seen, "size\n80x25\n132x43\n");
    bench_close(&b);
    tn_vm_resize(&b.vm, 1, 1); /* a closed machine, and one without a console */
    bench_open(&b, "probe");
    bench_create(&b);
    tn_vm_resize(&b.vm, 1, 1);
    bench_close(&b);
}

/*
 * A driver that keeps to nothing: TENON_SEED is another's number. The devices know the RAM from
 * 4 MiB on only, so what they write can't hurt the guest's own code. The disk works afterwards
 * for a driver that resets it, and the devices that are left as they are cost no CPU (rule 11).
 */
static void b10_hostile(uint64_t seed, uint32_t steps, bool packed)
{
    static struct bench b;
    const char *asked = getenv("TENON_SEED");
    char words[64], text[4096];
    double began = seconds(CLOCK_MONOTONIC), until, cpu;
    int hvc_in[2], hvc_out[2], n = 0;

    if (asked)
        seed = strtoull(asked, NULL, 0);
    snprintf(words, sizeof(words), "hostile %llu %u", (unsigned long long)seed, steps);
    bench_open(&b, words);
    printf("# TENON_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    assert_int_equal(pipe2(hvc_in, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(pipe2(hvc_out, O_CLOEXEC | O_NONBLOCK), 0);
    assert_true(fcntl(hvc_out[1], F_SETPIPE_SZ, 4096) > 0);
    disks_of(&b, 1, 65536);
    b.cfg.virtio_console = b.cfg.rng = true;
    b.cfg.virtio_in = hvc_in[0];
    b.cfg.virtio_out = hvc_out[1];
    b.cfg.packed = packed;
    bench_create(&b);
    assert_int_equal(b.vm.mem.count, 1);
    b.vm.mem.region[0].gpa += 4u << 20;
    b.vm.mem.region[0].host += 4u << 20;
    b.vm.mem.region[0].size -= 4u << 20;
    assert_int_equal(tn_vm_start(&b.vm), 0);
    while (!strstr(b.seen, "over\n") && tn_vm_wait(&b.vm, 0) == TN_EAGAIN) {
        tn_loop_step(&b.loop, 5);
        collect(&b);
        if (++n % 8 == 0) { /* a reader that comes and goes, input that trickles */
            (void)!read(hvc_out[0], text, sizeof(text));
            (void)!write(hvc_in[1], "input", 5);
        }
    }
    until_seen(&b, "over\n");
    until = seconds(CLOCK_MONOTONIC) + 5; /* until what was asked for is done */
    for (n = 0; n < 20 && seconds(CLOCK_MONOTONIC) < until; n++) {
        (void)!read(hvc_out[0], text, sizeof(text));
        if (tn_loop_step(&b.loop, 1) > 0)
            n = 0;
    }
    assert_int_equal(write(b.in[1], "g", 1), 1);
    until_seen(&b, "good\n");
    printf("# %.1f s\n", seconds(CLOCK_MONOTONIC) - began);
    fflush(stdout);
    serve(&b, 50);
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (n = 0; n < 10; n++)
        tn_loop_step(&b.loop, 100);
    began = seconds(CLOCK_MONOTONIC);
    while (seconds(CLOCK_MONOTONIC) - began < 1)
        tn_loop_step(&b.loop, 100);
    assert_true(seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu < 0.1);
    assert_int_equal(tn_vm_wait(&b.vm, 0), TN_EAGAIN);
    bench_close(&b);
    for (n = 0; n < 2; n++) {
        close(hvc_in[n]);
        close(hvc_out[n]);
    }
}

static void b10_a_hostile_driver(void **state)
{
    (void)state;
    b10_hostile(42, 100000, true); /* offered: it takes either kind of ring */
}

static void b10_a_hostile_driver_of_split_rings(void **state)
{
    (void)state;
    b10_hostile(20261121, 20000, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals_leave_nothing),
        cmocka_unit_test(registers_through_the_bus),
        cmocka_unit_test(notifications_reach_their_queue),
        cmocka_unit_test(a_round_through_the_guest),
        cmocka_unit_test(each_kind_has_its_window),
        cmocka_unit_test(sixteen_disks_a_console_and_entropy),
        cmocka_unit_test(killed_in_the_midst_of_requests),
        cmocka_unit_test(pauses_between_requests),
        cmocka_unit_test(a_new_size_interrupts_the_guest),
        cmocka_unit_test(b10_a_hostile_driver),
        cmocka_unit_test(b10_a_hostile_driver_of_split_rings),
    };

    return cmocka_run_group_tests_name("vm_virtio", tests, guests_setup, guests_teardown);
}
