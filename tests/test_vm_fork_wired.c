/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Clones of a machine with networks, sockets and a balloon: what each must be given of its own, and
 * what it may not have; what was under way when its image was taken; what its guest is told. The
 * guest's side of the devices is the test's. tests/test_vm_fork.c has all else of tn_vm_fork.
 */
#include "vm_forked.h"

/* A machine with all of them, whose guest is the test: its vCPU only sleeps, if it runs at all. */
static void make_wired(struct wires *w, struct drivers *g)
{
    struct tn_vm_cfg cfg;

    wires_open(w);
    describe_wired(&cfg, &con, "wait", w, name_of("sock"));
    assert_int_equal(tn_vm_init(&vm, &kvm, &loop, &cfg), 0);
    drivers_up(g, &vm, w);
}

static void own_wires(struct tn_vm_clone_cfg *cfg, const struct con *c, const struct wires *w,
                      const char *path, uint32_t cid)
{
    own(cfg, c);
    cfg->net = w->net;
    cfg->nets = WIRES;
    cfg->vsock.path = path;
    cfg->vsock.cid = cid;
}

enum how { FORK, ADOPT, RESTORE, HOWS };

static int clone_by(enum how how, struct tn_vm *m, const struct tn_vm_image *from,
                    const struct tn_vm_clone_cfg *cfg)
{
    if (how == ADOPT)
        assert_int_equal(tn_vm_prepare(m, &kvm, &loop, from), 0);
    return how == ADOPT  ? tn_vm_adopt(m, cfg)
           : how == FORK ? tn_vm_fork(m, &kvm, &loop, from, cfg)
                         : tn_vm_restore(m, &kvm, &loop, from, cfg);
}

/* What a clone must be given, and what it may not have. */
static void shared_networks_are_refused(void **state)
{
    static char endless[200];
    static const struct {
        const char *path; /* "": none is given */
        uint32_t nets;    /* 0: they are not given */
        uint32_t cid;
        uint32_t kind; /* of the second, if it is not 0 */
        int more, restore;
        uint32_t net; /* which one it was then; 0: none */
    } rows[] = {
        {"mysk", 0, 9, 0, TN_ESTATE, TN_ESYS, 1}, /* nothing says where they are */
        {"", 0, 9, 0, TN_ESTATE, TN_ESYS, 1},
        {"", 3, 9, 0, TN_ESTATE, TN_ESYS, 0}, /* in use */
        {"mysk", 1, 9, 0, TN_EINVAL, TN_EINVAL, 0},
        {"mysk", 2, 9, 0, TN_EINVAL, TN_EINVAL, 0},
        {"mysk", 4, 9, 0, TN_EINVAL, TN_EINVAL, 0},
        {"mysk", UINT32_MAX, 9, 0, TN_EINVAL, TN_EINVAL, 0},
        {"mysk", 3, 2, 0, TN_EINVAL, TN_EINVAL, 0},
        {"mysk", 3, UINT32_MAX, 0, TN_EINVAL, TN_EINVAL, 0},
        {"mysk", 3, 9, 99, TN_EINVAL, TN_EINVAL, 2},
        {"mysk", 3, 9, TN_VM_NET_STREAM, TN_EINVAL, TN_EINVAL, 2}, /* on a pair */
        {"sock", 3, 9, 0, TN_ESYS, TN_ESYS, 0},                    /* the parent's very own */
        {"file", 3, 9, 0, TN_ESYS, TN_ESYS, 0},
        {"not/there", 3, 9, 0, TN_ESYS, TN_ESYS, 0},
        {endless, 3, 9, 0, TN_EINVAL, TN_EINVAL, 0},
    };
    struct tn_vm_clone_cfg cfg;
    struct wires wires, w;
    struct drivers g;
    int fds, files;

    (void)state;
    NEED_KVM();
    memset(endless, 'x', sizeof(endless) - 1);
    file_of("file", 10, 1);
    make_wired(&wires, &g);
    assert_int_equal(tn_vm_image_take(&image, &vm, dir), 0);
    fds = count_fds();
    files = count_files();
    for (size_t i = 0; i < COUNT(rows) * HOWS; i++) {
        enum how how = (enum how)(i % HOWS);
        int want = how == RESTORE ? rows[i / HOWS].restore : rows[i / HOWS].more, r;
        char path[300];

        snprintf(path, sizeof(path), "%s/%s", dir, rows[i / HOWS].path);
        wires_open(&w);
        own_wires(&cfg, &kid_con[0], &w, *rows[i / HOWS].path ? path : NULL, rows[i / HOWS].cid);
        cfg.nets = rows[i / HOWS].nets;
        if (cfg.nets == 0)
            cfg.net = NULL;
        if (rows[i / HOWS].kind)
            w.net[1].kind = rows[i / HOWS].kind;
        r = clone_by(how, &kid[0], &image, &cfg);
        /* What is there already may be TN_EEXIST, or the system's word. */
        if (r != want && !(want == TN_ESYS && r == TN_EEXIST))
            fail_msg("row %zu, way %d: %d, not %d (errno %d)", i / HOWS, how, r, want, errno);
        assert_int_equal(tn_vm_state_read(&kid[0]), TN_VM_CLOSED);
        for (uint32_t k = 0; k < WIRES; k++) { /* ours still, and nobody else's */
            assert_int_equal(fcntl(w.net[k].fd, F_GETFD), FD_CLOEXEC);
            assert_false(wire_held(&w, k));
        }
        if (want != TN_ESTATE && rows[i / HOWS].nets == WIRES) {
            if (rows[i / HOWS].net)
                assert_int_equal(kid[0].devices.refused_net, rows[i / HOWS].net);
            else
                assert_true(kid[0].devices.refused_vsock);
        }
        wires_close(&w);
        assert_int_equal(count_fds(), fds);
        assert_int_equal(count_files(), files);
        assert_true(listens(name_of("sock")));
    }
    assert_int_equal(cid_of(&vm), 42);
    drivers_go_on(&g, &wires, name_of("sock")); /* none of that has harmed it */
    /* A machine that has none of them takes no rows for any. */
    tn_vm_image_close(&image);
    tn_vm_close(&vm);
    drivers_free(&g);
    wires_close(&wires);
    ready("wait", 1);
    take(&image, &vm);
    wires_open(&w);
    own_wires(&cfg, &kid_con[0], &w, name_of("mysk"), 9);
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), TN_EINVAL);
    cfg.nets = 0;
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), 0);
    assert_null(kid[0].devices.vsock);
    assert_false(listens(name_of("mysk")));
    wires_close(&w);
}

/* Sockets of another kind than the parent's; a CID is one guest's on the whole host. */
static void sockets_by_vhost_need_a_cid(void **state)
{
    uint32_t own = 0x10000u + (uint32_t)getpid(), cid[] = {0, 2, own};
    bool has = access("/dev/vhost-vsock", R_OK | W_OK) == 0;
    struct tn_vm_clone_cfg cfg;
    struct tn_vm_state s;
    struct wires wires, w;
    struct drivers g;

    (void)state;
    NEED_KVM();
    make_wired(&wires, &g);
    assert_int_equal(tn_vm_image_take(&image, &vm, dir), 0);
    for (uint32_t i = 0; i < COUNT(cid) * HOWS; i++) {
        enum how how = (enum how)(i % HOWS);
        uint32_t n = cid[i / HOWS];
        int r;

        wires_open(&w);
        own_wires(&cfg, &kid_con[0], &w, n == 2 ? name_of("mysk") : NULL, n == 2 ? own : n);
        cfg.vsock.vhost = true;
        r = clone_by(how, &kid[0], &image, &cfg);
        if (n == 0 && how != RESTORE) {
            assert_int_equal(r, TN_ESTATE);
        } else if (n == 2) {
            assert_int_equal(r, TN_EINVAL); /* a path and vhost */
        } else if (!has) {
            assert_true(r == TN_ENODEV || r == TN_ESYS);
            assert_true(kid[0].devices.refused_vsock);
        } else {
            assert_int_equal(r, 0);
            tn_vm_devices_quiesce(&kid[0].devices);
            assert_int_equal(tn_vm_state_save(&s, &kid[0]), 0);
            tn_vm_devices_wake(&kid[0].devices);
            assert_true(s.vsock->record.vhost);
            assert_string_equal(s.vsock->record.path, "");
            assert_int_equal(s.vsock->record.cid, n ? n : 42);
            assert_int_equal(s.vsock->model.guest_cid, n ? n : 42);
            tn_vm_state_close(&s);
            tn_vm_close(&kid[0]);
        }
        wires_close(&w);
    }
    drivers_go_on(&g, &wires, name_of("sock"));
    drivers_free(&g);
    wires_close(&wires);
}

static void worlds_of_their_own(void **state)
{
    struct tn_vm_clone_cfg cfg;
    struct tn_vm_reaper reaper;
    struct drivers g, then, kid_g;
    struct wires wires, w[KIDS];
    struct tn_vm_state s;
    char path[KIDS][100];

    (void)state;
    NEED_KVM();
    make_wired(&wires, &g);
    assert_int_equal(tn_vm_image_take(&image, &vm, dir), 0);
    drivers_clone(&then, &g, &vm);
    for (int i = 0; i < KIDS; i++) {
        uint32_t cid = i == 1 ? 0 : 100 + (uint32_t)i; /* 0: the image's */

        snprintf(path[i], sizeof(path[i]), "%s/sock%d", dir, i);
        wires_open(&w[i]);
        memset(w[i].net[0].mac, 2, 6); /* what the guest knows is the image's */
        w[i].net[0].mtu = 100;
        w[i].net[0].hide = ~0ull;
        own_wires(&cfg, &kid_con[i], &w[i], path[i], cid);
        cfg.vsock.conns = 1;
        assert_int_equal(clone_by((enum how)(i % HOWS), &kid[i], &image, &cfg), 0);
        assert_int_equal(kid[i].devices.vsock->cfg.conns, 100);
    }
    for (int i = 0; i < KIDS; i++) {
        uint32_t cid = i == 1 ? 42 : 100 + (uint32_t)i;

        assert_int_equal(cid_of(&kid[i]), cid);
        assert_int_equal(cid_of(&vm), 42);
        for (int again = 0; again < 3; again++) {
            drivers_clone(&kid_g, &then, &kid[i]);
            drivers_go_on(&kid_g, &w[i], path[i]);
            assert_int_equal(tn_vm_state_save(&s, &kid[i]), 0);
            assert_int_equal(s.vsock->record.cid, cid);
            assert_int_equal(s.vsock->model.guest_cid, cid);
            assert_string_equal(s.vsock->record.path, path[i]);
            tn_vm_state_close(&s);
            drivers_free(&kid_g);
            if (again == 1) { /* after it has run, too */
                assert_int_equal(tn_vm_start(&kid[i]), 0);
                assert_int_equal(tn_vm_pause(&kid[i]), 0);
            }
            assert_int_equal(tn_vm_reset(&kid[i]), 0);
            assert_int_equal(cid_of(&kid[i]), cid);
            assert_true(listens(path[i]));
        }
        for (uint32_t k = 0; k < WIRES; k++) /* nobody else heard of that */
            assert_true(far_takes(&wires, k) < 0 && far_takes(&w[(i + 1) % KIDS], k) < 0);
    }
    drivers_go_on(&g, &wires, name_of("sock"));
    /* A clone's clone has what the clone had. */
    assert_int_equal(tn_vm_image_take(&second, &kid[0], dir), 0);
    assert_int_equal(second.state.vsock->record.cid, 100);
    tn_vm_close(&kid[1]);
    assert_false(listens(path[1]));
    wires_close(&w[1]);
    wires_open(&w[1]);
    own_wires(&cfg, &kid_con[1], &w[1], path[1], 0);
    assert_int_equal(tn_vm_fork(&kid[1], &kvm, &loop, &second, &cfg), 0);
    assert_int_equal(cid_of(&kid[1]), 100);
    drivers_clone(&kid_g, &then, &kid[1]);
    drivers_go_on(&kid_g, &w[1], path[1]);
    drivers_free(&kid_g);
    /* The reaper has nothing to do with them. */
    memset(&reaper, 0, sizeof(reaper));
    assert_int_equal(tn_vm_reaper_init(&reaper), 0);
    for (int i = 0; i < KIDS; i++) {
        tn_vm_close_to(&kid[i], &reaper);
        assert_false(listens(path[i]));
        for (uint32_t k = 0; k < WIRES; k++)
            assert_false(wire_held(&w[i], k));
        wires_close(&w[i]);
    }
    tn_vm_reaper_close(&reaper);
    assert_true(listens(name_of("sock")));
    tn_vm_close(&vm);
    drivers_free(&g);
    drivers_free(&then);
    wires_close(&wires);
}

/* The machine goes on that was saved, on what its record names: nobody gives it anything. */
static void by_the_names_of_the_record(void **state)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct tn_vm_clone_cfg cfg;
    struct tn_vm_cfg made;
    struct wires w, none;
    struct wd g, then;

    (void)state;
    NEED_KVM();
    snprintf(at.sun_path, sizeof(at.sun_path), "%s/passt", dir);
    assert_int_equal(bind(server, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(server, 4), 0);
    memset(&w, 0, sizeof(w));
    describe(&made, &con, "wait", 1);
    w.net[STREAM].kind = TN_VM_NET_STREAM;
    w.net[STREAM].name = at.sun_path;
    made.net = &w.net[STREAM];
    made.nets = 1;
    made.vsock.cid = 42;
    made.vsock.path = name_of("sock");
    assert_int_equal(tn_vm_init(&vm, &kvm, &loop, &made), 0);
    w.far[STREAM] = accept4(server, NULL, NULL, SOCK_CLOEXEC);
    assert_true(w.far[STREAM] >= 0);
    wd_up(&g, &vm, 0, 3);
    wd_add(&g, 0, 0, 2048, true);
    vd_kick(&g.d, 0);
    assert_int_equal(tn_vm_image_take(&image, &vm, dir), 0);
    wd_clone(&then, &g, &vm);
    assert_string_equal(image.state.net[0].record.name, at.sun_path);
    own(&cfg, &kid_con[0]);
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), TN_ESTATE);
    cfg.vsock.path = name_of("mysk");
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), TN_ESTATE);
    cfg.vsock.path = NULL;
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), TN_ESTATE);
    assert_int_equal(accept4(server, NULL, NULL, SOCK_CLOEXEC), -1); /* nobody came */
    tn_vm_close(&vm);
    vd_free(&g.d);
    close(w.far[STREAM]);
    assert_int_equal(tn_vm_restore(&kid[0], &kvm, &loop, &image, &cfg), 0);
    w.far[STREAM] = accept4(server, NULL, NULL, SOCK_CLOEXEC);
    assert_true(w.far[STREAM] >= 0);
    assert_true(listens(name_of("sock")));
    wd_clone(&g, &then, &kid[0]);
    far_sends(&w, STREAM, 5);
    assert_int_equal(wd_answer(&g, 0), MESSAGE);
    assert_int_equal(wd_got(&g, 0), 5);
    wd_send(&g, 1, 6);
    vd_kick(&g.d, 1);
    (void)wd_answer(&g, 1);
    assert_int_equal(far_hears(&w, STREAM, &loop), 6);
    vd_free(&g.d);
    tn_vm_close(&kid[0]);
    close(w.far[STREAM]);
    /* A fork has a network of another kind then. */
    wires_open(&none);
    own_wires(&cfg, &kid_con[1], &none, name_of("own"), 0);
    cfg.nets = 1;
    assert_int_equal(tn_vm_fork(&kid[1], &kvm, &loop, &image, &cfg), 0);
    wd_clone(&g, &then, &kid[1]);
    far_sends(&none, 0, 8);
    (void)wd_answer(&g, 0);
    assert_int_equal(wd_got(&g, 0), 8);
    vd_free(&g.d);
    vd_free(&then.d);
    tn_vm_close(&kid[1]);
    wires_close(&none);
    close(server);
    unlink(at.sun_path);
}

/* A parent's connection is not its clone's: that one's guest is told so, its own is not. */
static void connections_stay_with_the_parent(void **state)
{
    struct wires wires, w;
    struct drivers g;
    struct tn_vm_clone_cfg cfg;
    struct wd *vsock, then, clone;
    uint8_t packet[TN_VIRTIO_VSOCK_HDR], text[32];
    uint32_t port;
    int fd, mine;

    (void)state;
    NEED_KVM();
    make_wired(&wires, &g);
    vsock = &g.at[AT_VSOCK];
    wd_add(vsock, 2, 30, 8, true); /* for events */
    wd_add(vsock, 2, 31, 8, true);
    vd_kick(&vsock->d, 2);
    fd = dial(name_of("sock"), "CONNECT 77\n");
    (void)wd_answer(vsock, 0);
    memcpy(packet, wd_page(vsock, 0), sizeof(packet));
    port = (uint32_t)tn_get_(packet + 16, 4);
    tn_put_(packet, 8, 42);
    tn_put_(packet + 8, 8, 2);
    tn_put_(packet + 16, 4, 77);
    tn_put_(packet + 20, 4, port);
    tn_put_(packet + 30, 2, TN_VIRTIO_VSOCK_OP_RESPONSE);
    tn_put_(packet + 36, 4, 4096); /* buf_alloc */
    memcpy(wd_page(vsock, 32), packet, sizeof(packet));
    wd_add(vsock, 1, 32, sizeof(packet), false);
    vd_kick(&vsock->d, 1);
    (void)wd_answer(vsock, 1);
    for (double end = seconds(CLOCK_MONOTONIC) + HANG;
         recv(fd, text, sizeof(text), MSG_DONTWAIT) < 3;) { /* OK */
        tn_loop_step(&loop, 10);
        assert_true(seconds(CLOCK_MONOTONIC) < end);
    }
    assert_int_equal(tn_vm_image_take(&image, &vm, dir), 0);
    wd_clone(&then, vsock, &vm);
    wires_open(&w);
    own_wires(&cfg, &kid_con[0], &w, name_of("own"), 9);
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), 0);
    for (int again = 0; again < 3; again++) {
        wd_clone(&clone, &then, &kid[0]);
        assert_int_equal(wd_answer(&clone, 2), 4);
        assert_int_equal(tn_get_(wd_page(&clone, 30), 4), 0); /* transport reset: see the CID */
        assert_int_equal(cid_of(&kid[0]), 9);
        mine = dial(name_of("own"), "CONNECT 78\n");
        (void)wd_answer(&clone, 0);
        assert_int_equal(tn_get_(wd_page(&clone, 1) + 20, 4), 78);
        vd_free(&clone.d);
        assert_int_equal(tn_vm_reset(&kid[0]), 0);
        for (int i = 0; i < 5; i++)
            tn_loop_step(&loop, 1);
        assert_int_equal(recv(mine, text, sizeof(text), MSG_DONTWAIT), 0); /* it asked another */
        close(mine);
    }
    /* The parent's goes on. */
    assert_int_equal(write(fd, "hello", 5), 5);
    assert_int_equal(wd_answer(vsock, 0), TN_VIRTIO_VSOCK_HDR + 5);
    assert_memory_equal(wd_page(vsock, 1) + TN_VIRTIO_VSOCK_HDR, "hello", 5);
    assert_int_equal(vd_reap(&vsock->d, 2, &port), -1);
    close(fd);
    vd_free(&then.d);
    tn_vm_close(&kid[0]);
    tn_vm_close(&vm);
    drivers_free(&g);
    wires_close(&w);
    wires_close(&wires);
}

/* Whether a vector is asked for of a machine's vCPU; KVM brings it there when it likes. */
static bool asked_for(struct tn_vm *m, uint8_t vector)
{
    double end = seconds(CLOCK_MONOTONIC) + HANG;
    struct tn_vm_state s;
    bool yes;

    do {
        assert_int_equal(tn_vm_state_save(&s, m), 0);
        yes = ((uint8_t *)s.arch.cpu[0].lapic.regs)[0x200 + vector / 32 * 16 + vector % 32 / 8] >>
                  vector % 8 &
              1;
        tn_vm_state_close(&s);
    } while (!yes && seconds(CLOCK_MONOTONIC) < end);
    return yes;
}

/* What a device of a clone has to say reaches its guest, also what it says at its birth. */
static void clones_hear_their_devices(void **state)
{
    struct wires wires, w;
    struct drivers g;
    struct tn_vm_clone_cfg cfg;
    struct tn_vm_cfg made;

    (void)state;
    NEED_KVM();
    wires_open(&wires);
    describe_wired(&made, &con, "wait", &wires, name_of("sock"));
    assert_int_equal(tn_vm_init(&vm, &kvm, &loop, &made), 0);
    assert_int_equal(tn_vm_start(&vm), 0);
    hear(&vm, &loop, &con, 0, "ready\n");
    drivers_up(&g, &vm, &wires);
    wd_add(&g.at[AT_VSOCK], 2, 30, 8, true); /* for an event */
    take(&image, &vm);
    /* This guest would have the first network as vector 0x3e, the sockets as 0x3f. */
    image.state.arch.chips.chip[KVM_IRQCHIP_IOAPIC]
        .chip.ioapic.redirtbl[TN_VM_X86_VIRTIO_GSI]
        .bits = 0x3e;
    image.state.arch.chips.chip[KVM_IRQCHIP_IOAPIC]
        .chip.ioapic.redirtbl[TN_VM_X86_VIRTIO_GSI + AT_VSOCK]
        .bits = 0x3f;
    wires_open(&w);
    own_wires(&cfg, &kid_con[0], &w, name_of("own"), 9);
    assert_int_equal(tn_vm_fork(&kid[0], &kvm, &loop, &image, &cfg), 0);
    for (int again = 0; again < 2; again++) {
        struct wd clone;

        assert_true(asked_for(&kid[0], 0x3f));
        wd_clone(&clone, &g.at[0], &kid[0]);
        vqd_interrupt_at(&clone.d.q[0], clone.d.q[0].reaped);
        far_sends(&w, 0, 3);
        (void)wd_answer(&clone, 0);
        vd_free(&clone.d);
        assert_true(asked_for(&kid[0], 0x3e));
        assert_int_equal(tn_vm_reset(&kid[0]), 0);
    }
    tn_vm_close(&kid[0]);
    tn_vm_close(&vm);
    drivers_free(&g);
    wires_close(&w);
    wires_close(&wires);
}

#define QUEUED 20u /* frames to send in a ring, and buffers for others: pages 0.. and QUEUED.. */

/* Reaps so many buffers, which is all there are. */
static void come_back(struct wd *g, uint32_t queue, uint32_t want)
{
    uint32_t len;

    while (want-- > 0)
        (void)wd_answer(g, queue);
    assert_int_equal(vd_reap(&g->d, queue, &len), -1);
}

/*
 * A machine whose driver has queued as many frames and buffers, of which so many are done with: the
 * rest comes and goes on its own network, each once.
 */
static void the_rest(struct tn_vm *m, const struct wd *from, const struct wires *w,
                     uint32_t received, uint32_t sent)
{
    struct wd g;

    wd_clone(&g, from, m);
    for (uint32_t i = received; i < QUEUED; i++)
        far_sends(w, 0, 1000 + i);
    for (uint32_t i = sent; i < QUEUED; i++)
        assert_int_equal(far_hears(w, 0, &loop), i);
    come_back(&g, 0, QUEUED);
    come_back(&g, 1, QUEUED);
    for (uint32_t i = 0; i < QUEUED; i++)
        assert_int_equal(wd_got(&g, i), i < received ? i : 1000 + i);
    for (int i = 0; i < 3; i++)
        tn_loop_step(&loop, 1);
    assert_int_equal(far_takes(w, 0), -1); /* nothing twice */
    vd_free(&g.d);
}

/* Frames come and go while the machine is taken: each clone has what was in its rings. */
static void frames_under_way(void **state)
{
    uint64_t random = asked("TENON_SEED", 0xf4a3e);
    const int little = 1;
    unsigned busy = 0;

    (void)state;
    NEED_KVM();
    for (int round = 0; round < (is_long() ? 300 : 12); round++) {
        uint32_t received, sent, came = 0, taken = 0;
        struct wires wires, w[HOWS];
        struct tn_vm_cfg made;
        struct wd g;

        wires_open(&wires);
        describe_wired(&made, &con, "wait", &wires, name_of("sock"));
        made.packed = round % 2;
        con_cut(&con, 0);
        assert_int_equal(tn_vm_init(&vm, &kvm, &loop, &made), 0);
        assert_int_equal(tn_vm_start(&vm), 0);
        hear(&vm, &loop, &con, 0, "ready\n");
        /* Few frames fit: the device has to wait, with more of them in its hands. */
        assert_int_equal(setsockopt(wires.net[0].fd, SOL_SOCKET, SO_SNDBUF, &little, sizeof(int)),
                         0);
        wd_up(&g, &vm, 0, 3);
        for (uint32_t i = 0; i < QUEUED; i++) {
            wd_add(&g, 0, i, 2048, true);
            wd_send(&g, QUEUED + i, i);
        }
        for (uint64_t n = test_random(&random) % 40; n > 0; n--) {
            uint64_t what = test_random(&random) % 5;

            if (what == 0 && came < QUEUED)
                far_sends(&wires, 0, came++);
            else if (what == 1 && taken < QUEUED)
                taken += far_takes(&wires, 0) >= 0;
            else if (what < 4)
                vd_kick(&g.d, what & 1);
            else
                tn_loop_step(&loop, 0);
        }
        assert_int_equal(tn_vm_pause(&vm), 0);
        tn_vm_devices_quiesce(&vm.devices);
        while (far_takes(&wires, 0) >= 0)
            taken++;
        assert_int_equal(tn_vm_image_take(&image, &vm, dir), 0);
        received = image.state.net[0].model.virtio.queue[0].ring.next_used & 0x7fffu;
        sent = image.state.net[0].model.virtio.queue[1].ring.next_used & 0x7fffu;
        assert_int_equal(sent, taken);
        assert_true(received <= came);
        busy += sent > 0 && sent < QUEUED;
        assert_int_equal(tn_vm_resume(&vm), 0);
        for (int i = 0; i < HOWS; i++) {
            struct tn_vm_clone_cfg cfg;

            wires_open(&w[i]);
            own_wires(&cfg, &kid_con[i], &w[i], name_of("sock%d", i), 0);
            assert_int_equal(clone_by((enum how)i, &kid[i], &image, &cfg), 0);
            if (round % 4 < 2)
                assert_int_equal(tn_vm_start(&kid[i]), 0);
        }
        the_rest(&vm, &g, &wires, came, taken);
        for (int again = 0; again < 2; again++) {
            for (int i = 0; i < HOWS; i++) {
                the_rest(&kid[i], &g, &w[i], received, sent);
                (void)tn_vm_pause(&kid[i]);
                assert_int_equal(tn_vm_reset(&kid[i]), 0);
            }
        }
        for (int i = 0; i < HOWS; i++) {
            tn_vm_close(&kid[i]);
            wires_close(&w[i]);
        }
        tn_vm_image_close(&image);
        tn_vm_close(&vm);
        vd_free(&g.d);
        wires_close(&wires);
    }
    printf("# %u of them with frames that had to wait\n", busy);
    assert_true(busy > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(shared_networks_are_refused),
        CASE(sockets_by_vhost_need_a_cid),
        CASE(worlds_of_their_own),
        CASE(by_the_names_of_the_record),
        CASE(connections_stay_with_the_parent),
        CASE(clones_hear_their_devices),
        CASE(frames_under_way),
    };

    cmocka_set_test_filter(getenv("TENON_TEST"));
    return cmocka_run_group_tests_name("vm_fork_wired", tests, clone_setup, clone_teardown);
}
