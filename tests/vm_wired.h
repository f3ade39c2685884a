/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the tests of tn_vm_state, tn_vm_image and tn_vm_fork share about devices that talk to the
 * world outside: a machine with networks, sockets and a balloon, the far ends of its networks, and
 * the guest's side of the devices, which the test plays itself, through the machine's bus.
 */
#ifndef TENON_VM_WIRED_H
#define TENON_VM_WIRED_H

#include "vm_clone.h"

#include <sys/un.h>

#include "virtio_driver.h"
#include "vm_far.h"

#define WIRES      3u    /* network devices: two on pairs of sockets, one on a stream */
#define STREAM     2u    /* that one */
#define AT_VSOCK   WIRES /* places of a machine that has no more than these */
#define AT_BALLOON (WIRES + 1)
#define PLACES     (WIRES + 2)
#define RINGS      0xa00000u /* in RAM that no guest uses: rings of each place, */
#define AREA       0x40000u
#define BUFFER     0x10000u  /* and buffers of a page each, from here on */
#define SPARE      0xf00000u /* pages for the balloon */
#define PAGE       4096u

/* ---- networks ---- */

struct wires {
    struct tn_vm_net_cfg net[WIRES];
    int far[WIRES];
};

static inline void wires_open(struct wires *w)
{
    int end[2];

    memset(w, 0, sizeof(*w));
    for (uint32_t i = 0; i < WIRES; i++) {
        w->net[i].kind = i == STREAM ? TN_VM_NET_STREAM : TN_VM_NET_PAIR;
        far_sockets(w->net[i].kind, end);
        w->net[i].fd = end[0];
        w->far[i] = end[1];
    }
}

/* Closes our near end of a network, of which a machine has a copy if it has the network. */
static inline void wire_let_go(struct wires *w, uint32_t i)
{
    if (w->net[i].fd >= 0)
        assert_int_equal(close(w->net[i].fd), 0);
    w->net[i].fd = -1;
}

/* Whether a machine still has its end of a network. */
static inline bool wire_held(struct wires *w, uint32_t i)
{
    char byte;

    wire_let_go(w, i);
    return recv(w->far[i], &byte, 1, MSG_DONTWAIT | MSG_PEEK) != 0;
}

static inline void wires_close(struct wires *w)
{
    for (uint32_t i = 0; i < WIRES; i++) {
        wire_let_go(w, i);
        close(w->far[i]);
    }
}

/* A machine with all of them; what a row of a clone does not say is different for each. */
static inline void describe_wired(struct tn_vm_cfg *cfg, struct con *c, const char *words,
                                  struct wires *w, const char *path)
{
    describe(cfg, c, words, 1);
    for (uint32_t i = 0; i < WIRES; i++) {
        memcpy(w->net[i].mac, "\2\0\0\0\7", 5);
        w->net[i].mac[5] = (uint8_t)i;
        w->net[i].mtu = (uint16_t)(1400 + i);
    }
    w->net[0].tx_rate.bytes_per_s = w->net[0].rx_rate.ops_per_s = 1u << 30;
    w->net[1].hide = TN_VIRTIO_NET_F_MRG_RXBUF;
    cfg->net = w->net;
    cfg->nets = WIRES;
    cfg->vsock.cid = 42;
    cfg->vsock.path = path;
    cfg->vsock.conns = 100;
    cfg->balloon = true;
    cfg->balloon_size = 3 * PAGE;
}

/* ---- the driver of one device ---- */

struct wd {
    struct tn_vm *vm;
    uint32_t at;
    struct vd d;
};

static inline uint64_t wd_read(void *ctx, uint64_t off, unsigned width)
{
    struct wd *g = ctx;

    return tn_bus_read(&g->vm->board.mmio, TN_VM_X86_VIRTIO + TN_VM_PLACE_STRIDE * g->at + off,
                       width, NULL);
}

static inline void wd_write(void *ctx, uint64_t off, unsigned width, uint64_t value)
{
    struct wd *g = ctx;

    assert_true(tn_bus_write(&g->vm->board.mmio,
                             TN_VM_X86_VIRTIO + TN_VM_PLACE_STRIDE * g->at + off, width, value,
                             NULL));
}

/* Only to read and write registers. */
static inline void wd_at(struct wd *g, struct tn_vm *m, uint32_t at)
{
    memset(g, 0, sizeof(*g));
    g->vm = m;
    g->at = at;
}

static inline void wd_up(struct wd *g, struct tn_vm *m, uint32_t at, uint32_t queues)
{
    wd_at(g, m, at);
    vd_init(&g->d, NULL, m->ram.ptr, 0, RINGS + AREA * at);
    vd_mmio(&g->d, wd_read, wd_write, g);
    assert_true(vd_up(&g->d, ~0ull, queues, 64));
    tn_mem_mark(&m->mem, RINGS + AREA * at, BUFFER); /* for diffs: no vCPU wrote it */
}

/* The same driver in a clone: what it knows, and the clone's memory. */
static inline void wd_clone(struct wd *g, const struct wd *from, struct tn_vm *m)
{
    *g = *from;
    g->vm = m;
    g->d.ctx = g;
    g->d.ram = m->ram.ptr;
    for (uint32_t i = 0; i < g->d.queues; i++) {
        struct vqd *q = &g->d.q[i];
        size_t len = q->size * sizeof(*q->id);

        q->ram = m->ram.ptr;
        q->id = (uint16_t *)(void *)test_exact(q->id, len);
        q->link = (uint16_t *)(void *)test_exact(q->link, len);
        q->chain_len = (uint16_t *)(void *)test_exact(q->chain_len, len);
    }
}

static inline uint64_t wd_gpa(const struct wd *g, uint32_t n)
{
    return RINGS + AREA * g->at + BUFFER + PAGE * (uint64_t)n;
}

static inline uint8_t *wd_page(const struct wd *g, uint32_t n)
{
    return g->vm->ram.ptr + wd_gpa(g, n);
}

static inline void wd_add(struct wd *g, uint32_t queue, uint32_t n, uint32_t len, bool write)
{
    const struct vqd_buf buf = {wd_gpa(g, n), len, write};

    assert_true(vd_add(&g->d, queue, &buf, 1) >= 0);
    tn_mem_mark(&g->vm->mem, RINGS + AREA * g->at, BUFFER);
    if (!write)
        tn_mem_mark(&g->vm->mem, buf.addr, len);
}

/* Serves the loop until queue has an answer; its length. */
static inline uint32_t wd_answer(struct wd *g, uint32_t queue)
{
    double end = seconds(CLOCK_MONOTONIC) + HANG;
    uint32_t len = 0;
    int id;

    while ((id = vd_reap(&g->d, queue, &len)) == -1) {
        if (seconds(CLOCK_MONOTONIC) > end)
            fail_msg("place %u, queue %u: no answer", g->at, queue);
        tn_loop_step(g->vm->loop, 10);
    }
    assert_true(id >= 0);
    return len;
}

/* ---- frames ---- */

static inline void far_sends(const struct wires *w, uint32_t i, uint32_t n)
{
    assert_true(far_send(w->far[i], w->net[i].kind, n));
}

static inline int64_t far_takes(const struct wires *w, uint32_t i)
{
    return far_take(w->far[i], w->net[i].kind);
}

/* As far_takes, when it has come. */
static inline int64_t far_hears(const struct wires *w, uint32_t i, struct tn_loop *loop)
{
    double end = seconds(CLOCK_MONOTONIC) + HANG;
    int64_t n;

    while ((n = far_takes(w, i)) < 0 && seconds(CLOCK_MONOTONIC) < end)
        tn_loop_step(loop, 10);
    return n;
}

/* The driver has frame n sent, from buffer page; it is not notified yet. */
static inline void wd_send(struct wd *g, uint32_t page, uint32_t n)
{
    memset(wd_page(g, page), 0, TN_NET_HDR);
    frame_make(wd_page(g, page) + TN_NET_HDR, n);
    wd_add(g, 1, page, MESSAGE, false);
}

/* The number of the frame that came into buffer page. */
static inline uint32_t wd_got(const struct wd *g, uint32_t page)
{
    return frame_number(wd_page(g, page) + TN_NET_HDR);
}

/* A frame each way through a network that is at rest, with no buffer in its ring. */
static inline void wire_works(struct wd *g, const struct wires *w, uint32_t n)
{
    wd_add(g, 0, 40, 2048, true);
    vd_kick(&g->d, 0);
    far_sends(w, g->at, n);
    assert_int_equal(wd_answer(g, 0), MESSAGE);
    assert_int_equal(wd_got(g, 40), n);
    wd_send(g, 41, n + 1);
    vd_kick(&g->d, 1);
    (void)wd_answer(g, 1);
    assert_int_equal(far_hears(w, g->at, g->vm->loop), n + 1);
}

/* ---- the balloon ---- */

/* Puts page number n of the spare ones into the balloon. */
static inline void inflate(struct wd *g, uint32_t n)
{
    tn_put_(wd_page(g, 0), 4, SPARE / PAGE + n);
    wd_add(g, 0, 0, 4, false);
    vd_kick(&g->d, 0);
    (void)wd_answer(g, 0);
}

/* ---- sockets ---- */

static inline uint64_t cid_of(struct tn_vm *m)
{
    struct wd g;

    wd_at(&g, m, AT_VSOCK);
    return wd_read(&g, 0x100, 4) | wd_read(&g, 0x104, 4) << 32;
}

/* A program on the host that asks for a port of the guest. */
static inline int dial(const char *path, const char *words)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    assert_int_equal(write(fd, words, strlen(words)), (ssize_t)strlen(words));
    return fd;
}

/* Whether both sockets of a device are there, or none. */
static inline bool listens(const char *path)
{
    char other[512];
    bool there = access(path, F_OK) == 0;

    snprintf(other, sizeof(other), "%s.seqpacket", path);
    assert_int_equal(access(other, F_OK) == 0, there);
    return there;
}

/* The files in the test's directory. */
static inline int count_files(void)
{
    DIR *d = opendir(dir);
    int n = 0;

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* ---- all of them ---- */

struct drivers {
    struct wd at[PLACES];
};

/*
 * Brings all devices up but network 1, which no driver has found yet, and gives each something that
 * a state has to have: requests that were answered, and some that wait.
 */
static inline void drivers_up(struct drivers *g, struct tn_vm *m, const struct wires *w)
{
    memset(g, 0, sizeof(*g));
    for (uint32_t i = 0; i < PLACES; i++) {
        if (i == 1)
            wd_at(&g->at[i], m, i);
        else
            wd_up(&g->at[i], m, i, i == AT_BALLOON ? 4 : 3);
    }
    for (uint32_t i = 0; i < WIRES; i += 2) {
        wire_works(&g->at[i], w, 100 * i);
        for (uint32_t k = 0; k < 3; k++) /* nobody sends: they wait */
            wd_add(&g->at[i], 0, k, 2048, true);
        vd_kick(&g->at[i].d, 0);
    }
    for (uint32_t k = 0; k < 3; k++)
        wd_add(&g->at[AT_VSOCK], 0, k, PAGE, true);
    vd_kick(&g->at[AT_VSOCK].d, 0);
    inflate(&g->at[AT_BALLOON], 2);
    wd_write(&g->at[AT_BALLOON], 0x104, 4, 1); /* actual */
    for (int i = 0; i < 5; i++)
        tn_loop_step(m->loop, 1);
}

static inline void drivers_clone(struct drivers *g, const struct drivers *from, struct tn_vm *m)
{
    for (uint32_t i = 0; i < PLACES; i++)
        wd_clone(&g->at[i], &from->at[i], m);
}

static inline void drivers_free(struct drivers *g)
{
    for (uint32_t i = 0; i < PLACES; i++)
        vd_free(&g->at[i].d);
}

/* After drivers_up, wherever that went: what waited is there, and goes on. */
static inline void drivers_go_on(struct drivers *g, const struct wires *w, const char *path)
{
    struct wd *vsock = &g->at[AT_VSOCK];
    int fd;

    for (uint32_t i = 0; i < WIRES; i += 2) {
        for (uint32_t k = 0; k < 3; k++) {
            far_sends(w, i, 7 + k);
            (void)wd_answer(&g->at[i], 0);
            assert_int_equal(wd_got(&g->at[i], k), 7 + k);
        }
        wire_works(&g->at[i], w, 20);
    }
    wd_up(&g->at[1], g->at[1].vm, 1, 3); /* it is found at last */
    assert_false(g->at[1].d.features & TN_VIRTIO_NET_F_MRG_RXBUF);
    wire_works(&g->at[1], w, 30);
    for (uint32_t i = 0; i < WIRES; i++) {
        assert_int_equal(wd_read(&g->at[i], 0x105, 1), i); /* of the MAC address */
        assert_int_equal(wd_read(&g->at[i], 0x10a, 2), 1400 + i);
    }
    fd = dial(path, "CONNECT 1234\n");
    assert_int_equal(wd_answer(vsock, 0), TN_VIRTIO_VSOCK_HDR);
    assert_int_equal(tn_get_(wd_page(vsock, 0) + 20, 4), 1234);
    assert_int_equal(tn_get_(wd_page(vsock, 0) + 8, 8), cid_of(vsock->vm)); /* to whom */
    close(fd);
    assert_int_equal(wd_read(&g->at[AT_BALLOON], 0x100, 4), 3);
    assert_int_equal(wd_read(&g->at[AT_BALLOON], 0x104, 4), 1);
    inflate(&g->at[AT_BALLOON], 4);
}

#endif
