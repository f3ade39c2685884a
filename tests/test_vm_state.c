/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_vm_state.h"

#include "snap_forge.h"
#include "vm_wired.h"

/* ---- how much is asked of the heap ---- */

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define NO_COUNT 1
#endif
#endif
#ifdef NO_COUNT
#define SLOW true
#else
#define SLOW false
#endif
static size_t heap; /* bytes asked for since somebody set it to 0 */
#ifndef NO_COUNT
void *__libc_malloc(size_t len);
void *__libc_calloc(size_t n, size_t len);

void *malloc(size_t len)
{
    __atomic_fetch_add(&heap, len, __ATOMIC_RELAXED);
    return __libc_malloc(len);
}

void *calloc(size_t n, size_t len)
{
    __atomic_fetch_add(&heap, n * len, __ATOMIC_RELAXED);
    return __libc_calloc(n, len);
}
#endif

/* ---- machines and their states ---- */

static struct tn_loop loop;
static struct con con, hvc;
static struct tn_vm vm, other;
static struct tn_vm_image image;

static int open_up(void **state)
{
    (void)state;
    alarm(300);
    memset(&vm, 0, sizeof(vm));
    memset(&other, 0, sizeof(other));
    con_open(&con);
    con_open(&hvc);
    return tn_loop_init(&loop);
}

static int shut(void **state)
{
    (void)state;
    tn_vm_close(&vm);
    tn_vm_close(&other);
    tn_vm_image_close(&image);
    tn_loop_close(&loop);
    con_close(&con);
    con_close(&hvc);
    alarm(0);
    return 0;
}

static void serve_for_a_while(void)
{
    for (int i = 0; i < 30; i++) {
        tn_loop_step(&loop, 1);
        (void)con_take(&con);
        (void)con_take(&hvc);
    }
}

/* The file that a machine's state makes; no memory. */
static uint8_t *file_of_state(const struct tn_vm_state *s, size_t *len)
{
    size_t cap = tn_vm_state_size(s);
    uint8_t *buf = malloc(cap);
    struct tn_snap_writer w;
    int64_t n;

    assert_non_null(buf);
    tn_snap_begin(&w, buf, cap);
    tn_vm_state_build(s, &w);
    n = tn_snap_finish(&w, NULL, NULL);
    if (n <= 0)
        fail_msg("a state that can't be written: %d", w.err);
    *len = (size_t)n;
    return buf;
}

static int open_file(struct tn_snap *snap, const uint8_t *bytes, size_t len)
{
    const struct tn_snap_known *known;
    size_t count;

    known = tn_vm_known(&count);
    return tn_snap_open(snap, bytes, len, NULL, known, count);
}

static int parse(struct tn_vm_state *s, const uint8_t *bytes, size_t len)
{
    struct tn_snap snap;
    int r = open_file(&snap, bytes, len);

    memset(s, 0, sizeof(*s));
    return r < 0 ? r : tn_vm_state_parse(s, &snap);
}

/* Fails where two state files differ; with timers, but for what a timer that runs may change. */
static void same_files(const char *what, const uint8_t *a, size_t a_len, const uint8_t *b,
                       size_t b_len, bool timers)
{
    struct tn_snap x, y;
    struct tn_snap_section s, t;
    size_t at[2] = {0, 0};

    if (!timers && a_len == b_len && memcmp(a, b, a_len) == 0)
        return;
    assert_int_equal(open_file(&x, a, a_len), 0);
    assert_int_equal(open_file(&y, b, b_len), 0);
    while (tn_snap_next(&x, &at[0], &s)) {
        assert_int_equal(tn_snap_next(&y, &at[1], &t), 1);
        if (s.type != t.type || s.instance != t.instance || s.len != t.len)
            fail_msg("%s: section %#x.%u is %#x.%u", what, s.type, s.instance, t.type, t.instance);
        for (size_t i = 0; i < s.len; i++) {
            bool lapic = timers && s.type == TN_VM_SEC_VCPU_LAPIC &&
                         ((i >= 0x390 && i < 0x394) || (i >= 0x200 && i < 0x280));
            bool rate = timers && s.type == TN_VM_SEC_RATE;
            bool chip = timers && ((s.type == TN_VM_SEC_PIC_MASTER && i < 2) ||
                                   (s.type == TN_VM_SEC_IOAPIC && i >= 16 && i < 20));

            if (s.bytes[i] != t.bytes[i] && !lapic && !chip && !rate)
                fail_msg("%s: section %#x.%u differs at %zu: %#x is %#x", what, s.type, s.instance,
                         i, s.bytes[i], t.bytes[i]);
        }
    }
    assert_int_equal(tn_snap_next(&y, &at[1], &t), 0);
    if (!timers)
        fail_msg("%s: the sections are the same, the files are not", what);
}

/* ---- save -> restore -> save ---- */

/* Fails where the memory of two directories differs. */
static void same_memories(const char *what, const char *a, const char *b)
{
    const char *const from[] = {a, b};
    uint8_t *bytes[2];
    size_t len[2];

    for (int i = 0; i < 2; i++) {
        char path[200];

        snprintf(path, sizeof(path), "%s/memory", from[i]);
        bytes[i] = slurp(path, &len[i]);
        assert_int_equal(len[i], RAM);
    }
    for (size_t i = 0; i < RAM; i++) {
        if (bytes[0][i] != bytes[1][i])
            fail_msg("%s: memory differs at %#zx: %#x is %#x", what, i, bytes[0][i], bytes[1][i]);
    }
    free(bytes[0]);
    free(bytes[1]);
}

/* Pauses, saves, restores, saves again, and lets the second machine go on to its end. */
static void save_restore_save(const char *what, const struct tn_vm_disk_cfg *row,
                              const struct wires *wires, bool timers, const char *then)
{
    const char *first = name_of("first"), *second = name_of("second");
    struct tn_vm_snapshot_cfg to;
    struct tn_vm_image_cfg from;
    struct tn_vm_clone_cfg cfg;
    uint8_t *file[2];
    size_t len[2], seen;
    char path[200];

    assert_int_equal(tn_vm_pause(&vm), 0);
    /* What the devices were asked is done, also if the guest had not yet notified them of it. */
    tn_vm_devices_quiesce(&vm.devices);
    tn_vm_devices_wake(&vm.devices);
    serve_for_a_while();
    memset(&to, 0, sizeof(to));
    memset(&from, 0, sizeof(from));
    from.dir = to.dir = first;
    assert_int_equal(tn_vm_snapshot(&vm, &to), 0);
    assert_int_equal(tn_vm_image_open(&image, &kvm, &from), 0);
    seen = con.len;
    tn_vm_close(&vm);
    con_cut(&con, seen);
    if (row)
        assert_int_equal(unlink(row->overlay), 0); /* it comes back at the same place */
    own(&cfg, &con);
    cfg.virtio_in = hvc.in[0];
    cfg.virtio_out = hvc.out[1];
    cfg.stopped = true;
    cfg.disk = row;
    cfg.disks = row ? 1 : 0;
    cfg.net = wires ? wires->net : NULL;
    cfg.nets = wires ? WIRES : 0;
    assert_int_equal(tn_vm_restore(&other, &kvm, &loop, &image, &cfg), 0);
    to.dir = second;
    assert_int_equal(tn_vm_snapshot(&other, &to), 0);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/state", i ? second : first);
        file[i] = slurp(path, &len[i]);
    }
    if (!timers)
        same_memories(what, first, second);
    same_files(what, file[0], len[0], file[1], len[1], timers);
    free(file[0]);
    free(file[1]);
    assert_int_equal(tn_vm_start(&other), 0);
    if (then)
        con_type(&con, then);
    assert_int_equal(finish(&other, &loop, &con), TN_VM_POWEROFF);
    if (strstr(con.seen, "bad "))
        fail_msg("%s: %s", what, con.seen);
    tn_vm_close(&other);
    tn_vm_image_close(&image);
    remove_dir(first);
    remove_dir(second);
}

static void same_bytes_at_rest(void **state)
{
    static const char *const words[] = {"wait", "echo", "dirty 100", "pages"};

    (void)state;
    NEED_KVM();
    for (size_t i = 0; i < COUNT(words); i++) {
        uint32_t cpus = i % 2 ? 4 : 1;

        con_cut(&con, 0);
        boot(&vm, &loop, &con, words[i], cpus, false);
        hear(&vm, &loop, &con, 0, "ready\n");
        if (i % 2) /* keys that nobody reads */
            assert_int_equal(tn_vm_ctrl_alt_del(&vm), 0);
        save_restore_save(words[i], NULL, NULL, false, "q");
    }
}

static void same_bytes_of_an_hour_ago(void **state)
{
    struct tn_vm_state s;

    /* The time of a machine that was restored and has not run is that of its save. */
    (void)state;
    NEED_KVM();
    boot(&vm, &loop, &con, "wait", 1, false);
    hear(&vm, &loop, &con, 0, "ready\n");
    assert_int_equal(tn_vm_pause(&vm), 0);
    assert_int_equal(tn_vm_image_take(&image, &vm, NULL), 0);
    tn_vm_close(&vm);
    for (int real = 0; real < 2; real++) {
        struct tn_vm_clone_cfg cfg;

        own(&cfg, &con);
        cfg.stopped = !real;
        assert_int_equal(tn_vm_restore(&other, &kvm, &loop, &image, &cfg), 0);
        assert_int_equal(tn_vm_state_save(&s, &other), 0);
        assert_memory_equal(&s.arch.time, &image.state.arch.time, sizeof(s.arch.time));
        assert_int_equal(s.arch.cpu[0].tsc_offset, image.state.arch.cpu[0].tsc_offset);
        tn_vm_state_close(&s);
        /* Once it has run, time has gone by. */
        assert_int_equal(tn_vm_start(&other), 0);
        assert_int_equal(tn_vm_pause(&other), 0);
        assert_int_equal(tn_vm_state_save(&s, &other), 0);
        assert_true(s.arch.time.realtime_ns > image.state.arch.time.realtime_ns);
        assert_true(s.arch.time.kvmclock_ns >= image.state.arch.time.kvmclock_ns);
        tn_vm_state_close(&s);
        tn_vm_close(&other);
    }
}

static void same_bytes_but_for_timers(void **state)
{
    (void)state;
    NEED_KVM();
    for (uint32_t cpus = 1; cpus <= 4; cpus += 3) {
        con_cut(&con, 0);
        boot(&vm, &loop, &con, cpus == 1 ? "stream 1 40" : "stream 4 40", cpus, false);
        hear(&vm, &loop, &con, 0, "000014 ");
        save_restore_save("stream", NULL, NULL, true, NULL);
        assert_non_null(strstr(con.seen, "\ndone\n"));
    }
}

static void same_bytes_of_devices(void **state)
{
    (void)state;
    NEED_KVM();
    for (uint32_t cpus = 1; cpus <= 4; cpus += 3) {
        struct tn_vm_disk_cfg disk;
        struct tn_vm_cfg cfg;

        memset(&disk, 0, sizeof(disk));
        disk.path = file_of("base", 65536, 0x5a);
        disk.overlay = name_of("over%u", cpus);
        disk.id = "serial number";
        disk.rate.ops_per_s = 100000;
        con_cut(&con, 0);
        describe(&cfg, &con, "io", cpus);
        cfg.kernel = kernel;
        cfg.kernel_len = kernel_len;
        cfg.disk = &disk;
        cfg.disks = 1;
        cfg.virtio_console = cfg.rng = true;
        cfg.virtio_in = hvc.in[0];
        cfg.virtio_out = hvc.out[1];
        cfg.cols = 80;
        cfg.rows = 25;
        assert_int_equal(tn_vm_init(&vm, &kvm, &loop, &cfg), 0);
        assert_int_equal(tn_vm_start(&vm), 0);
        hear(&vm, &loop, &con, 0, "io\n..");
        save_restore_save("io", &disk, NULL, false, "x");
        assert_non_null(strstr(con.seen, "\ndone\n"));
        unlink(disk.overlay);
    }
}

/* All devices are in use, and the disk may do one request a second: the second one waits. */
static void wait_for_the_disk(struct tn_vm_disk_cfg *disk)
{
    struct tn_virtio_rng_state rng;
    struct tn_vm_cfg cfg;

    memset(disk, 0, sizeof(*disk));
    disk->path = file_of("base", 65536, 0x5a);
    disk->overlay = name_of("over");
    disk->rate.ops_per_s = disk->rate.ops_burst = 1;
    describe(&cfg, &con, "all", 1);
    cfg.kernel = kernel;
    cfg.kernel_len = kernel_len;
    cfg.disk = disk;
    cfg.disks = 1;
    cfg.virtio_console = cfg.rng = true;
    cfg.virtio_in = hvc.in[0];
    cfg.virtio_out = hvc.out[1];
    cfg.cols = 132;
    cfg.rows = 43;
    con_cut(&con, 0);
    assert_int_equal(tn_vm_init(&vm, &kvm, &loop, &cfg), 0);
    assert_int_equal(tn_vm_start(&vm), 0);
    do { /* until the console and the entropy were asked twice */
        tn_loop_step(&loop, 1);
        (void)con_take(&con);
        (void)con_take(&hvc);
        pthread_mutex_lock(&vm.devices.rng->slot.lock);
        tn_virtio_rng_save(&vm.devices.rng->model, &rng);
        pthread_mutex_unlock(&vm.devices.rng->slot.lock);
    } while (tn_vm_wait(&vm, 0) == TN_EAGAIN && rng.virtio.queue[0].ring.next_used < 2);
    assert_null(strstr(con.seen, "all 3"));
}

static void same_bytes_of_devices_that_wait(void **state)
{
    struct tn_vm_disk_cfg disk;

    (void)state;
    NEED_KVM();
    wait_for_the_disk(&disk);
    save_restore_save("all", &disk, NULL, true, NULL);
    assert_non_null(strstr(con.seen, "all 3\n"));
    unlink(disk.overlay);
}

/* Networks, sockets and a balloon; the far ends of the networks are others' afterwards. */
static void same_bytes_of_the_world_outside(void **state)
{
    struct wires wires, again;
    struct drivers g;
    struct tn_vm_cfg cfg;

    (void)state;
    NEED_KVM();
    for (int packed = 0; packed < 2; packed++) {
        con_cut(&con, 0);
        wires_open(&wires);
        wires_open(&again);
        describe_wired(&cfg, &con, "echo", &wires, name_of("sock"));
        cfg.packed = packed;
        assert_int_equal(tn_vm_init(&vm, &kvm, &loop, &cfg), 0);
        assert_int_equal(tn_vm_start(&vm), 0);
        hear(&vm, &loop, &con, 0, "ready\n");
        drivers_up(&g, &vm, &wires);
        assert_int_equal(g.at[0].d.q[0].packed, packed);
        /* As after a restore: connections are gone, and there is no buffer to say so. */
        pthread_mutex_lock(&vm.devices.vsock->slot.lock);
        assert_int_equal(tn_virtio_vsock_set_cid(&vm.devices.vsock->model, 43), 0);
        assert_int_equal(tn_virtio_vsock_set_cid(&vm.devices.vsock->model, 42), 0);
        pthread_mutex_unlock(&vm.devices.vsock->slot.lock);
        save_restore_save("world outside", NULL, &again, false, "q");
        assert_false(listens(cfg.vsock.path));
        drivers_free(&g);
        wires_close(&wires);
        wires_close(&again);
    }
}

/* The machine that was saved goes on with what waited. */
static void devices_wait_no_longer(void **state)
{
    struct tn_vm_snapshot_cfg to;
    struct tn_vm_disk_cfg disk;

    (void)state;
    NEED_KVM();
    for (int taken = 0; taken < 2; taken++) {
        wait_for_the_disk(&disk);
        assert_int_equal(tn_vm_pause(&vm), 0);
        memset(&to, 0, sizeof(to));
        to.dir = name_of("first");
        if (taken)
            assert_int_equal(tn_vm_image_take(&image, &vm, dir), 0);
        else
            assert_int_equal(tn_vm_snapshot(&vm, &to), 0);
        assert_int_equal(tn_vm_resume(&vm), 0);
        assert_int_equal(finish(&vm, &loop, &con), TN_VM_POWEROFF);
        assert_non_null(strstr(con.seen, "all 3\n"));
        tn_vm_close(&vm);
        remove_dir(to.dir);
        unlink(disk.overlay);
    }
}

/* ---- the state as a value ---- */

static void only_at_rest(void **state)
{
    struct tn_vm_snapshot_cfg to;
    struct tn_vm_state s;

    (void)state;
    NEED_KVM();
    memset(&to, 0, sizeof(to));
    to.dir = name_of("none");
    memset(&s, 0xee, sizeof(s));
    assert_int_equal(tn_vm_state_save(&s, &vm), TN_ESTATE); /* closed */
    assert_null(s.arch.cpu);
    boot(&vm, &loop, &con, "wait", 1, true);
    for (int over = 0; over < 2; over++) {
        memset(&s, 0xee, sizeof(s));
        assert_int_equal(tn_vm_state_save(&s, &vm), TN_ESTATE);
        assert_null(s.arch.cpu);
        assert_int_equal(tn_vm_image_take(&image, &vm, NULL), TN_ESTATE);
        for (int diff = 0; diff < 2; diff++) {
            to.diff = diff;
            assert_int_equal(tn_vm_snapshot(&vm, &to), TN_ESTATE);
            assert_int_equal(access(to.dir, F_OK), -1);
        }
        if (over)
            continue;
        hear(&vm, &loop, &con, 0, "ready\n");
        con_type(&con, "q");
        assert_int_equal(finish(&vm, &loop, &con), TN_VM_POWEROFF);
    }
}

static void not_started_is_a_state_too(void **state)
{
    struct tn_vm_clone_cfg clone;
    struct tn_vm_cfg cfg;

    (void)state;
    NEED_KVM();
    describe(&cfg, &con, "echo", 4);
    assert_int_equal(tn_vm_init(&vm, &kvm, &loop, &cfg), 0);
    assert_int_equal(tn_vm_image_take(&image, &vm, NULL), 0);
    own(&clone, &con);
    tn_vm_close(&vm);
    assert_int_equal(tn_vm_fork(&other, &kvm, &loop, &image, &clone), 0);
    assert_int_equal(tn_vm_start(&other), 0);
    hear(&other, &loop, &con, 0, "ready\n");
    con_type(&con, "abc\nq");
    assert_int_equal(finish(&other, &loop, &con), TN_VM_POWEROFF);
    assert_string_equal(con.seen, "ready\n1: abc\n");
}

/* A state into a machine of another make. */
static void another_make(void **state)
{
    struct tn_vm_state s;
    struct tn_vm_cfg cfg;

    (void)state;
    NEED_KVM();
    boot(&vm, &loop, &con, "wait", 1, false);
    hear(&vm, &loop, &con, 0, "ready\n");
    assert_int_equal(tn_vm_pause(&vm), 0);
    assert_int_equal(tn_vm_state_save(&s, &vm), 0);
    tn_vm_close(&vm);
    for (int i = 0; i < 8; i++) {
        struct tn_vm_disk_cfg disk;
        struct wires wires;

        memset(&disk, 0, sizeof(disk));
        wires_open(&wires);
        disk.path = file_of("base", 4096, 0);
        describe(&cfg, &con, "wait", i == 0 ? 2 : 1);
        cfg.memory += i == 1 ? 4096 : 0;
        cfg.disk = &disk;
        cfg.disks = i == 2 ? 1 : 0;
        cfg.rng = i == 3;
        cfg.virtio_console = i == 4;
        cfg.net = wires.net;
        cfg.nets = i == 5 ? 1 : 0;
        cfg.vsock.cid = i == 6 ? 3 : 0;
        cfg.vsock.path = name_of("sock");
        cfg.balloon = i == 7;
        assert_int_equal(tn_vm_init(&other, &kvm, &loop, &cfg), 0);
        assert_int_equal(tn_vm_state_restore(&other, &s, true), TN_EINVAL);
        tn_vm_close(&other);
        wires_close(&wires);
    }
    tn_vm_state_close(&s);
    tn_vm_state_close(&s); /* nothing */
}

/* And one of a machine with all of them, where one of each kind is missing. */
static void one_is_missing(void **state)
{
    struct tn_vm_state s;
    struct tn_vm_cfg cfg;

    (void)state;
    NEED_KVM();
    for (int i = -1; i < 3; i++) {
        struct wires wires;

        wires_open(&wires);
        describe_wired(&cfg, &con, "wait", &wires, name_of("sock"));
        cfg.nets -= i == 0;
        cfg.vsock.cid = i == 1 ? 0 : 42;
        cfg.balloon = i != 2;
        assert_int_equal(tn_vm_init(&other, &kvm, &loop, &cfg), 0);
        if (i < 0)
            assert_int_equal(tn_vm_state_save(&s, &other), 0);
        else
            assert_int_equal(tn_vm_state_restore(&other, &s, true), TN_EINVAL);
        tn_vm_close(&other);
        wires_close(&wires);
    }
    tn_vm_state_close(&s);
}

/* ---- tampering ---- */

static uint8_t *golden;
static size_t golden_len;

/* The file of a machine with a bit of everything, whose image is left for clones. */
static void make_golden(bool devices)
{
    struct tn_vm_disk_cfg disk;
    struct wires wires;
    struct tn_vm_cfg cfg;

    memset(&disk, 0, sizeof(disk));
    disk.path = file_of("base", 65536, 0);
    disk.read_only = true;
    wires_open(&wires);
    if (devices)
        describe_wired(&cfg, &con, "wait", &wires, name_of("sock"));
    else
        describe(&cfg, &con, "stream 1 100000", 1);
    if (devices) {
        cfg.disk = &disk;
        cfg.disks = 1;
        cfg.virtio_console = cfg.rng = true;
    }
    assert_int_equal(tn_vm_init(&vm, &kvm, &loop, &cfg), 0);
    assert_int_equal(tn_vm_start(&vm), 0);
    hear(&vm, &loop, &con, 0, devices ? "ready" : "000003");
    assert_int_equal(tn_vm_pause(&vm), 0);
    assert_int_equal(tn_vm_image_take(&image, &vm, NULL), 0);
    tn_vm_close(&vm);
    wires_close(&wires);
    golden = file_of_state(&image.state, &golden_len);
}

/* Opens and parses bytes that must be refused. */
static void refused(const uint8_t *bytes, size_t len, const char *what, size_t at)
{
    uint8_t *exact = test_exact(bytes, len);
    struct tn_vm_state s;
    int r;

    heap = 0;
    r = parse(&s, exact, len);
    if (r >= 0)
        fail_msg("%s at %zu of %zu: accepted", what, at, len);
    if (s.arch.cpu || s.disk || s.arch.xsave || s.net || s.vsock || s.balloon)
        fail_msg("%s at %zu: not closed", what, at);
    if (heap > 4 * len + 65536)
        fail_msg("%s at %zu: %zu bytes of heap for %zu", what, at, heap, len);
    free(exact);
}

static void cut_anywhere(void **state)
{
    (void)state;
    NEED_KVM();
    make_golden(true);
    for (size_t len = 0; len < golden_len; len++)
        refused(golden, len, "cut", len);
    free(golden);
}

static void flipped_anywhere(void **state)
{
    uint64_t random = 1;
    uint8_t *copy;

    (void)state;
    NEED_KVM();
    make_golden(true);
    copy = malloc(golden_len);
    assert_non_null(copy);
    memcpy(copy, golden, golden_len);
    for (size_t i = 0; i < golden_len; i++) {
        bool all = is_long() || !SLOW || i < 32 || golden_len - i < 300;

        for (unsigned bit = 0; bit < 8; bit++) {
            if (!all && bit != test_random(&random) % 8)
                continue;
            copy[i] ^= (uint8_t)(1u << bit);
            refused(copy, golden_len, "flip", i);
            copy[i] = golden[i];
        }
    }
    free(copy);
    free(golden);
}

/* Where the sections are: up to the manifest. */
struct part {
    size_t at, len; /* with its header */
};

static size_t parts_of(const uint8_t *bytes, size_t len, struct part *part, size_t max)
{
    size_t at = 32, n = 0;

    while (len - at >= 56 && n < max) {
        part[n].at = at;
        part[n].len = 56 + (size_t)test_le(bytes + at + 16, 8);
        at += part[n++].len;
    }
    return n;
}

/* The file with its sections in another order, sealed again. */
static size_t arrange(uint8_t *out, const struct part *part, const size_t *order, size_t n)
{
    size_t len = 32;

    memcpy(out, golden, 32);
    for (size_t i = 0; i < n; i++) {
        memcpy(out + len, golden + part[order[i]].at, part[order[i]].len);
        len += part[order[i]].len;
    }
    tn_put_(out + 24, 4, n);
    forge_seal(out, len, NULL, true);
    return len;
}

static void sections_elsewhere(void **state)
{
    struct part part[160];
    size_t order[129] = {0}, n, len;
    struct tn_vm_state s;
    uint8_t *out;

    (void)state;
    NEED_KVM();
    make_golden(true);
    n = parts_of(golden, golden_len, part, COUNT(part));
    assert_true(n > 20 && n < COUNT(part));
    out = calloc(2, golden_len);
    assert_non_null(out);
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    len = arrange(out, part, order, n);
    assert_int_equal(len, golden_len);
    assert_memory_equal(out, golden, len); /* forging makes what the writer does */
    assert_int_equal(parse(&s, out, len), 0);
    tn_vm_state_close(&s);
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;

        for (size_t j = 0; j < n; j++) { /* missing */
            if (j != i)
                order[k++] = j;
        }
        refused(out, arrange(out, part, order, k), "missing", i);
        for (size_t j = k = 0; j < n; j++) { /* twice */
            order[k++] = j;
            if (j == i)
                order[k++] = j;
        }
        refused(out, arrange(out, part, order, k), "twice", i);
        for (size_t j = 0; j < n; j++) /* the next one comes first */
            order[j] = j;
        if (i + 1 < n) {
            order[i] = i + 1;
            order[i + 1] = i;
            refused(out, arrange(out, part, order, n), "swapped", i);
            order[i] = i;
            order[i + 1] = i + 1;
        }
        if (i + 1 == n)
            continue; /* the manifest has a version of its own */
        for (unsigned what = 0; what < 4; what++) {
            len = arrange(out, part, order, n);
            if (what == 0)
                tn_put_(out + part[i].at + 8, 4, 3); /* version */
            else if (what == 1)
                tn_put_(out + part[i].at + 12, 4, 3); /* a flag from the future */
            else if (what == 2)
                tn_put_(out + part[i].at + 4, 4, 0xfffffff0); /* another instance */
            else
                tn_put_(out + part[i].at + 8, 4, 0);
            forge_seal(out, len, NULL, true);
            refused(out, len, "from the future", i);
        }
    }
    free(out);
    free(golden);
}

/* A file of many CPUs of which there is next to nothing. */
static void little_for_little(void **state)
{
    static uint8_t machine[32], room[4 << 20], lapic[1024], xsave[1 << 20];
    struct tn_vm_state s;
    struct forge f;
    size_t len;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        tn_put_(machine, 8, RAM);
        tn_put_(machine + 8, 4, i == 3 ? UINT32_MAX : 254);
        forge_begin(&f, room, sizeof(room));
        forge_section(&f, 0x100, 0, 1, 1, machine, sizeof(machine));
        for (uint32_t n = 0; n < 254; n++)
            forge_section(&f, 0x240, n, 1, 1, xsave, n == 7 && i > 0 ? sizeof(xsave) : 0);
        for (uint32_t n = 0; n < 254 && i == 2; n++)
            forge_section(&f, 0x250, n, 1, 1, lapic, sizeof(lapic));
        forge_manifest(&f, 0, 0);
        len = forge_end(&f, NULL);
        heap = 0;
        assert_true(parse(&s, room, len) < 0);
        if (heap > 24 * len)
            fail_msg("%u: %zu bytes of heap for %zu", i, heap, len);
    }
}

/* ---- values that no save writes, sealed as if one had ---- */

/* One edit of a field of one of the sections before the manifest. */
static void edit(uint8_t *bytes, const struct part *part, size_t n, uint64_t *random)
{
    static const uint64_t values[] = {0,          1,           0x7f,       0x80,       0xff,
                                      0xffff,     0x7fffffff,  0x80000000, UINT32_MAX, INT64_MAX,
                                      UINT64_MAX, 0x100000000, 0xfee00000};
    const struct part *p = &part[test_random(random) % (n - 1)];
    unsigned width = 1u << test_random(random) % 4;
    size_t at;

    if (p->len < 56 + 8)
        return;
    at = p->at + 56 + test_random(random) % (p->len - 56 - 7);
    if (test_random(random) % 3 == 0)
        bytes[at] ^= (uint8_t)(1u << test_random(random) % 8);
    else if (test_random(random) % 2)
        tn_put_(bytes + at, width, test_random(random));
    else
        tn_put_(bytes + at, width, values[test_random(random) % COUNT(values)]);
}

/* Whether the machine can be had; then it runs for a moment, and must still obey. */
static bool try_it(struct tn_vm *to, bool made, uint64_t seed, uint64_t us)
{
    struct tn_vm_clone_cfg cfg;
    double end;
    int r;

    own(&cfg, &con);
    r = made ? tn_vm_reset(to) : tn_vm_restore(to, &kvm, &loop, &image, &cfg);
    if (r >= 0)
        assert_int_equal(tn_vm_start(to), 0);
    else if (r != TN_ESYS && r != TN_EFORMAT && r != TN_EUNSUP && r != TN_ERANGE && r != TN_EINVAL)
        fail_msg("seed %#llx: %d, errno %d", (unsigned long long)seed, r, errno);
    if (r < 0)
        return false;
    end = seconds(CLOCK_MONOTONIC) + (double)us / 1e6;
    while (seconds(CLOCK_MONOTONIC) < end && tn_vm_wait(to, 0) == TN_EAGAIN) {
        tn_loop_step(&loop, 0);
        (void)con_take(&con);
    }
    con.len = 0;
    if (tn_vm_pause(to) < 0) {
        r = tn_vm_wait(to, 10000);
        if (r <= 0)
            fail_msg("seed %#llx: it does not end: %d", (unsigned long long)seed, r);
        if (r == TN_VM_ERROR && to->end.err >= 0)
            fail_msg("seed %#llx: an error without a name", (unsigned long long)seed);
    }
    return true;
}

static void forged_states_harm_nobody(void **state)
{
    uint64_t seed = asked("TENON_SEED", 0xf0), rounds = is_long() ? 40000 : 1000;
    unsigned parsed = 0, ran = 0, made = 0;
    struct part part[160];
    uint8_t *bytes;
    size_t n;

    (void)state;
    NEED_KVM();
    make_golden(false);
    n = parts_of(golden, golden_len, part, COUNT(part));
    bytes = malloc(golden_len);
    assert_non_null(bytes);
    for (uint64_t i = 0; i < rounds; i++) {
        uint64_t random = seed + i;
        struct tn_vm_state s, keep = image.state;
        bool again = i % 8 != 0 && other.open;

        (void)test_random(&random);
        memcpy(bytes, golden, golden_len);
        for (uint64_t k = test_random(&random) % 3 + 1; k > 0; k--)
            edit(bytes, part, n, &random);
        forge_seal(bytes, golden_len, NULL, true);
        heap = 0;
        if (parse(&s, bytes, golden_len) < 0)
            continue;
        if (heap > 8 * golden_len)
            fail_msg("seed %#llx: %zu bytes of heap", (unsigned long long)random, heap);
        parsed++;
        if (s.machine.memory == keep.machine.memory && s.machine.cpus == keep.machine.cpus) {
            if (!again)
                tn_vm_close(&other);
            made += !again;
            s.arch.host = keep.arch.host;
            image.state = s;
            if (try_it(&other, again, seed + i, test_random(&random) % 1500))
                ran++;
            else
                tn_vm_close(&other);
            image.state = keep;
        }
        tn_vm_state_close(&s);
    }
    printf("# of %llu states %u were read, %u ran, %u machines were made\n",
           (unsigned long long)rounds, parsed, ran, made);
    assert_true(parsed > rounds / 4 && ran > rounds / 16);
    tn_vm_close(&other);
    /* And the image is as good as before. */
    assert_true(try_it(&other, false, 0, 20000));
    assert_int_equal(tn_vm_state_read(&other), TN_VM_PAUSED);
    free(bytes);
    free(golden);
}

/* ---- networks, sockets and balloons that no save writes ---- */

/* The fields that a hostile state may have; value is put where the row says. */
enum field {
    NET_KIND,
    NET_PAIRS,
    NET_MAC,
    NET_MTU,
    NET_NAME, /* a long one */
    NET_RATE,
    NET_ACTIVE,
    NET_UNI,
    NET_MODE,
    NET_FEATURES,
    NET_QUEUES,
    NET_MMIO, /* no field of it is checked: any value is fine */
    VSOCK_CID,
    VSOCK_CONNS,
    VSOCK_PATH,
    VSOCK_LONG,
    VSOCK_MODEL,
    VSOCK_ID,
    BALLOON_SIZE,
    BALLOON_PAGES,
    BALLOON_OFF,
    BALLOON_ID
};

static void forge_field(struct tn_vm_state *s, enum field field, uint64_t value)
{
    struct tn_vm_net_saved *net = &s->net[1];

    switch (field) {
    case NET_KIND:
        net->record.kind = (uint32_t)value;
        break;
    case NET_PAIRS:
        net->record.pairs = (uint32_t)value;
        break;
    case NET_MAC:
        net->record.mac[0] = (uint8_t)value;
        break;
    case NET_MTU:
        net->record.mtu = (uint16_t)value;
        break;
    case NET_NAME:
        memset(net->record.name, '/', value);
        break;
    case NET_RATE:
        net->record.rx_rate.ops_burst = value;
        break;
    case NET_ACTIVE:
        net->model.active = (uint16_t)value;
        break;
    case NET_UNI:
        net->model.uni = (uint8_t)value;
        break;
    case NET_MODE:
        net->model.mode = (uint8_t)value;
        break;
    case NET_FEATURES:
        net->model.virtio.features |= value;
        net->model.virtio.status =
            TN_VIRTIO_S_ACKNOWLEDGE | TN_VIRTIO_S_DRIVER | TN_VIRTIO_S_FEATURES_OK;
        break;
    case NET_QUEUES:
        net->model.virtio.queues = (uint32_t)value;
        break;
    case NET_MMIO:
        net->mmio.queue_sel = net->mmio.device_features_sel = (uint32_t)value;
        break;
    case VSOCK_CID:
        s->vsock->record.cid = (uint32_t)value;
        break;
    case VSOCK_CONNS:
        s->vsock->record.conns = (uint32_t)value;
        break;
    case VSOCK_PATH:
        s->vsock->record.path[0] = 0;
        break;
    case VSOCK_LONG:
        memset(s->vsock->record.path, '/', value);
        break;
    case VSOCK_MODEL:
        s->vsock->model.guest_cid = value;
        break;
    case VSOCK_ID:
        s->vsock->model.virtio.device_id = (uint32_t)value;
        break;
    case BALLOON_SIZE:
        s->balloon->record.size = value;
        break;
    case BALLOON_PAGES:
        s->balloon->model.num_pages = (uint32_t)value;
        break;
    case BALLOON_OFF:
        s->balloon->model.off[0] = (uint32_t)value;
        break;
    default:
        s->balloon->model.virtio.device_id = (uint32_t)value;
        break;
    }
}

/* Takes the machine's state through a file, with one field as somebody else would have it. */
static struct tn_vm_state forged(enum field field, uint64_t value)
{
    struct tn_vm_state s, out;
    uint8_t *bytes;
    size_t len;

    assert_int_equal(parse(&s, golden, golden_len), 0);
    forge_field(&s, field, value);
    bytes = file_of_state(&s, &len);
    assert_int_equal(parse(&out, bytes, len), 0);
    free(bytes);
    out.arch.host = image.state.arch.host;
    tn_vm_state_close(&s);
    return out;
}

/* An image of a machine that never ran, with no disk that could be missing. */
static void make_wired(bool up)
{
    struct drivers g;
    struct wires wires;
    struct tn_vm_cfg cfg;

    wires_open(&wires);
    describe_wired(&cfg, &con, "wait", &wires, name_of("sock"));
    assert_int_equal(tn_vm_init(&vm, &kvm, &loop, &cfg), 0);
    if (up) {
        drivers_up(&g, &vm, &wires);
        drivers_free(&g);
    }
    assert_int_equal(tn_vm_image_take(&image, &vm, NULL), 0);
    tn_vm_close(&vm);
    wires_close(&wires);
    golden = file_of_state(&image.state, &golden_len);
}

static void forged_networks_harm_nobody(void **state)
{
    static const struct {
        enum field field;
        uint64_t value;
        int want;   /* where networks are given; */
        int record; /* where the record is all there is, if that is another */
    } rows[] = {
        {NET_KIND, 99, 0, TN_EINVAL},
        {NET_KIND, UINT32_MAX, 0, TN_EINVAL},
        {NET_KIND, TN_VM_NET_TAP, 0, TN_EINVAL},    /* a name is missing */
        {NET_KIND, TN_VM_NET_STREAM, 0, TN_EINVAL}, /* likewise */
        {NET_PAIRS, 0, 0, TN_ESYS},                 /* is one */
        {NET_PAIRS, 2, TN_EINVAL, 0},
        {NET_PAIRS, 1000, TN_EINVAL, 0},
        {NET_PAIRS, UINT32_MAX, TN_EINVAL, 0},
        {NET_MAC, 3, TN_EINVAL, TN_ESYS},
        {NET_MAC, 0xff, TN_EINVAL, TN_ESYS},
        {NET_MTU, 67, TN_EINVAL, TN_ESYS},
        {NET_NAME, 4095, 0, TN_ESYS}, /* a pair has no name */
        {NET_RATE, 1, TN_EINVAL, TN_ESYS},
        {NET_ACTIVE, 0, TN_EFORMAT, TN_ESYS},
        {NET_ACTIVE, 2, TN_EFORMAT, TN_ESYS},
        {NET_UNI, 255, TN_EFORMAT, TN_ESYS},
        {NET_MODE, 2, TN_EFORMAT, TN_ESYS},
        {NET_FEATURES, TN_VIRTIO_NET_F_MRG_RXBUF, TN_EUNSUP, TN_ESYS}, /* it is hidden */
        {NET_QUEUES, 2, TN_EUNSUP, TN_ESYS},
        {NET_MMIO, UINT32_MAX, 0, TN_ESYS},
        {VSOCK_CID, 0, TN_EINVAL, 0},
        {VSOCK_CID, 2, TN_EINVAL, 0},
        {VSOCK_CID, UINT32_MAX, TN_EINVAL, 0},
        {VSOCK_CONNS, UINT32_MAX, TN_EINVAL, 0},
        {VSOCK_PATH, 0, TN_EINVAL, 0},
        {VSOCK_LONG, 4095, TN_EINVAL, 0},
        {VSOCK_MODEL, 2, TN_EFORMAT, 0},
        {VSOCK_MODEL, 1ull << 32, TN_EFORMAT, 0},
        {VSOCK_MODEL, 7, 0, 0},
        {VSOCK_ID, 3, TN_EUNSUP, 0},
        {BALLOON_SIZE, 100, TN_EINVAL, 0},
        {BALLOON_SIZE, RAM + PAGE, TN_EINVAL, 0},
        {BALLOON_SIZE, UINT64_MAX - PAGE + 1, TN_EINVAL, 0},
        {BALLOON_PAGES, RAM / PAGE + 1, TN_EFORMAT, 0},
        {BALLOON_OFF, 4, TN_EFORMAT, 0},
        {BALLOON_ID, 1, TN_EUNSUP, 0},
    };
    int fds, files;

    (void)state;
    NEED_KVM();
    make_wired(false);
    fds = count_fds();
    files = count_files();
    for (size_t i = 0; i < 2 * COUNT(rows); i++) {
        bool given = i % 2 == 0;
        int want = rows[i / 2].want, r;
        struct tn_vm_state keep = image.state;
        struct tn_vm_clone_cfg cfg;
        struct wires wires;

        if (!given) { /* of the networks that were given open none can be had again */
            if (rows[i / 2].field >= VSOCK_CID)
                continue;
            want = rows[i / 2].record ? rows[i / 2].record : want;
        }
        wires_open(&wires);
        own(&cfg, &con);
        cfg.net = given ? wires.net : NULL;
        cfg.nets = WIRES;
        image.state = forged(rows[i / 2].field, rows[i / 2].value);
        if (!given) { /* so the first one is given up, and the second is what matters */
            image.state.net[0] = image.state.net[1];
            image.state.nets = 1;
        }
        r = tn_vm_restore(&other, &kvm, &loop, &image, &cfg);
        if (r != want)
            fail_msg("row %zu, %s: %d, not %d (errno %d)", i / 2, given ? "given" : "by the record",
                     r, want, errno);
        assert_int_equal(tn_vm_state_read(&other), r < 0 ? TN_VM_CLOSED : TN_VM_CREATED);
        if (r < 0 && rows[i / 2].field < NET_ACTIVE)
            assert_int_equal(other.devices.refused_net, given ? 2 : 1);
        if (r == 0 && rows[i / 2].field == NET_PAIRS)
            assert_int_equal(other.devices.net[1].cfg.pairs, 1);
        if (r == 0) /* whatever the model was told */
            assert_int_equal(cid_of(&other), image.state.vsock->record.cid);
        tn_vm_close(&other);
        tn_vm_state_close(&image.state);
        image.state = keep;
        wires_close(&wires);
        assert_int_equal(count_fds(), fds);
        assert_int_equal(count_files(), files);
    }
    free(golden);
}

/* As above with fields at random, of devices whose drivers run; they are used for a moment. */
static void forged_drivers_harm_nobody(void **state)
{
    uint64_t seed = asked("TENON_SEED", 0xd7), rounds = is_long() ? 10000 : 100;
    struct part part[160], edited[160];
    unsigned parsed = 0, ran = 0;
    int fds, files;
    uint8_t *bytes;
    size_t n, edits = 0;

    (void)state;
    NEED_KVM();
    make_wired(true);
    n = parts_of(golden, golden_len, part, COUNT(part));
    for (size_t i = 0; i < n; i++) {
        uint64_t type = test_le(golden + part[i].at, 4);

        if ((type > TN_VM_SEC_DISK && type < TN_VM_SEC_TIME) || type >= TN_VM_SEC_VIRTIO_MMIO ||
            i + 1 == n)
            edited[edits++] = part[i];
    }
    assert_true(edits > 3 * PLACES - 3);
    bytes = malloc(golden_len);
    assert_non_null(bytes);
    fds = count_fds();
    files = count_files();
    for (uint64_t i = 0; i < rounds; i++) {
        struct tn_vm_state s, keep = image.state;
        struct tn_vm_clone_cfg cfg;
        uint64_t random = seed + i;
        struct wires w;
        int r;

        (void)test_random(&random);
        memcpy(bytes, golden, golden_len);
        for (uint64_t k = test_random(&random) % 3 + 1; k > 0; k--)
            edit(bytes, edited, edits, &random);
        forge_seal(bytes, golden_len, NULL, true);
        if (parse(&s, bytes, golden_len) < 0)
            continue;
        parsed++;
        s.arch.host = keep.arch.host;
        image.state = s;
        wires_open(&w);
        own(&cfg, &con);
        cfg.net = w.net;
        cfg.nets = WIRES;
        cfg.vsock.path = name_of("own");
        r = tn_vm_restore(&other, &kvm, &loop, &image, &cfg);
        if (r < 0 && r != TN_EFORMAT && r != TN_EUNSUP && r != TN_EINVAL && r != TN_EADDR)
            fail_msg("seed %#llx: %d, errno %d", (unsigned long long)seed + i, r, errno);
        if (r >= 0) {
            int fd = dial(name_of("own"), "CONNECT 5\n");

            ran++;
            for (uint32_t k = 0; k < WIRES; k++)
                far_sends(&w, k, k);
            for (int k = 0; k < 5; k++)
                tn_loop_step(&loop, 0);
            tn_vm_devices_quiesce(&other.devices);
            tn_vm_devices_wake(&other.devices);
            close(fd);
        }
        tn_vm_close(&other);
        image.state = keep;
        tn_vm_state_close(&s);
        wires_close(&w);
        assert_int_equal(count_fds(), fds);
        assert_int_equal(count_files(), files);
    }
    printf("# of %llu states %u were read, %u ran\n", (unsigned long long)rounds, parsed, ran);
    assert_true(parsed > rounds / 4 && ran > rounds / 16 && ran < parsed);
    free(bytes);
    free(golden);
}

/* As many as there may be, and more. */
static void too_many_of_them(void **state)
{
    struct tn_vm_net_saved many[TN_VM_MAX_NETS + 1];
    struct tn_vm_state s, out;
    uint8_t *bytes;
    size_t len;

    (void)state;
    NEED_KVM();
    make_wired(false);
    s = image.state;
    s.net = many;
    for (uint32_t i = 0; i < COUNT(many); i++)
        many[i] = image.state.net[i % WIRES];
    for (uint32_t n = 0; n <= COUNT(many); n++) {
        s.nets = n;
        bytes = file_of_state(&s, &len);
        assert_int_equal(parse(&out, bytes, len), n > TN_VM_MAX_NETS ? TN_ERANGE : 0);
        assert_int_equal(out.nets, n > TN_VM_MAX_NETS ? 0 : n);
        for (uint32_t i = 0; i < out.nets; i++) /* each is in its place */
            assert_int_equal(out.net[i].record.mac[5], i % WIRES);
        tn_vm_state_close(&out);
        free(bytes);
    }
    free(golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, open_up, shut)
        CASE(only_at_rest),
        CASE(another_make),
        CASE(one_is_missing),
        CASE(cut_anywhere),
        CASE(flipped_anywhere),
        CASE(sections_elsewhere),
        CASE(little_for_little),
        CASE(forged_networks_harm_nobody),
        CASE(forged_drivers_harm_nobody),
        CASE(too_many_of_them),
        CASE(forged_states_harm_nobody),
        CASE(not_started_is_a_state_too),
        CASE(same_bytes_at_rest),
        CASE(same_bytes_of_an_hour_ago),
        CASE(same_bytes_but_for_timers),
        CASE(same_bytes_of_devices),
        CASE(same_bytes_of_devices_that_wait),
        CASE(same_bytes_of_the_world_outside),
        CASE(devices_wait_no_longer),
    };

    cmocka_set_test_filter(getenv("TENON_TEST"));
    return cmocka_run_group_tests_name("vm_state", tests, clone_setup, clone_teardown);
}
