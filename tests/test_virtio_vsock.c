/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_virtio_vsock.h"

#include "virtio_rig.h"
#include "vsock_driver.h"

#define CONNS 32u
#define BUF   65536u
#define CID   7u
#define NS    1000000ull

/* A device, a host side that notes what it is told, and a guest. */
struct rig {
    struct tn_virtio_vsock dev;
    struct tn_virtio_vsock_conn table[CONNS];
    struct tn_mem_region region[1];
    struct tn_mem mem;
    uint8_t *ram;
    struct vsd v;
    struct tn_virtio_vsock_conn *conn; /* the latest */
    bool refuse, hold, gulp;           /* requests; data is consumed at once */
    bool scribble;                     /* over the packet, while it is handled */
    bool echo;
    unsigned requests, opened, datas, shuts, closes, rooms, agains, laters, config_irq;
    uint32_t shut, flags;
    enum tn_virtio_vsock_why why;
    uint64_t clock, due;
    uint8_t got[1u << 20];
    size_t got_len;
    size_t turn, turn_max; /* bytes between two calls of ours */
};

static void on_request(void *ctx, struct tn_virtio_vsock_conn *conn)
{
    struct rig *r = ctx;

    r->requests++;
    r->conn = conn;
    conn->host = r;
    if (r->scribble)
        memset(r->ram + VSD_TX, 0xff, 44);
    if (r->refuse)
        tn_virtio_vsock_reset(&r->dev, conn);
    else if (!r->hold)
        assert_int_equal(tn_virtio_vsock_accept(&r->dev, conn), 0);
}

static void on_opened(void *ctx, struct tn_virtio_vsock_conn *conn)
{
    struct rig *r = ctx;

    assert_ptr_equal(conn->host, r);
    r->conn = conn;
    r->opened++;
}

static void on_data(void *ctx, struct tn_virtio_vsock_conn *conn, const struct tn_iov *iov,
                    uint32_t n, uint32_t len, uint32_t flags)
{
    struct rig *r = ctx;
    size_t sum = 0;

    assert_ptr_equal(conn->host, r);
    r->datas++;
    r->flags = flags;
    for (uint32_t i = 0; i < n; i++) {
        assert_true(iov[i].len > 0);
        assert_true(iov[i].base >= r->ram && iov[i].base + iov[i].len <= r->ram + VSD_RAM);
        if (r->got_len + sum + iov[i].len <= sizeof(r->got))
            memcpy(r->got + r->got_len + sum, iov[i].base, iov[i].len);
        sum += iov[i].len;
    }
    assert_int_equal(sum, len);
    r->got_len = r->got_len + sum <= sizeof(r->got) ? r->got_len + sum : 0;
    r->turn += len;
    r->turn_max = r->turn > r->turn_max ? r->turn : r->turn_max;
    if (r->scribble)
        for (uint32_t i = 0; i < VSD_SLOTS; i++)
            memset(r->ram + VSD_TX + i * VSD_SLOT, 0xff, 44);
    if (r->echo)
        (void)tn_virtio_vsock_send(&r->dev, conn, iov, n, flags);
    if (r->gulp)
        tn_virtio_vsock_consumed(&r->dev, conn, len);
}

static void on_shutdown(void *ctx, struct tn_virtio_vsock_conn *conn, uint32_t flags)
{
    struct rig *r = ctx;

    assert_ptr_equal(conn->host, r);
    r->shuts++;
    r->shut = flags;
}

static void on_closed(void *ctx, struct tn_virtio_vsock_conn *conn, enum tn_virtio_vsock_why why)
{
    struct rig *r = ctx;
    struct tn_iov iov = {r->got, 1};

    assert_ptr_equal(conn->host, r);
    r->closes++;
    r->why = why;
    /* It is not ours any more. */
    assert_int_equal(tn_virtio_vsock_send(&r->dev, conn, &iov, 1, 0), 0);
    assert_int_equal(tn_virtio_vsock_accept(&r->dev, conn), TN_ESTATE);
    tn_virtio_vsock_consumed(&r->dev, conn, 1);
    tn_virtio_vsock_shutdown(&r->dev, conn, TN_VIRTIO_VSOCK_SHUT_BOTH);
    tn_virtio_vsock_reset(&r->dev, conn);
}

static void on_room(void *ctx, struct tn_virtio_vsock_conn *conn)
{
    struct rig *r = ctx;

    assert_ptr_equal(conn->host, r);
    r->conn = conn;
    r->rooms++;
}

static void on_again(void *ctx)
{
    ((struct rig *)ctx)->agains++;
}

static void on_later(void *ctx, uint64_t ns)
{
    struct rig *r = ctx;

    r->laters++;
    r->due = r->clock + ns;
}

static uint64_t on_now(void *ctx)
{
    return ((struct rig *)ctx)->clock;
}

static const struct tn_virtio_vsock_ops ops = {
    on_request, on_opened, on_data, on_shutdown, on_closed, on_room, on_again, on_later, on_now};

static void on_irq(void *ctx, uint32_t queue)
{
    if (queue == TN_VIRTIO_CONFIG)
        ((struct rig *)ctx)->config_irq++;
}

static struct tn_virtio_vsock_cfg good_cfg(struct rig *r)
{
    struct tn_virtio_vsock_cfg cfg = {
        &r->mem, 256, TN_VIRTIO_F_RING, CID, true, BUF, 0, r->table, CONNS, &ops, r};

    return cfg;
}

static struct rig *rig_new(void)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct tn_virtio_vsock_cfg cfg;

    assert_non_null(r);
    r->ram = aligned_alloc(4096, (VSD_RAM + 4095) / 4096 * 4096);
    assert_non_null(r->ram);
    memset(r->ram, 0, VSD_RAM);
    tn_mem_init(&r->mem, r->region, 1);
    assert_int_equal(tn_mem_add(&r->mem, 0, r->ram, VSD_RAM / 4096 * 4096), 0);
    cfg = good_cfg(r);
    memset(&r->dev, 0xee, sizeof(r->dev));
    memset(r->table, 0xee, sizeof(r->table));
    assert_int_equal(tn_virtio_vsock_init(&r->dev, &cfg), 0);
    tn_virtio_connect(&r->dev.virtio, on_irq, r);
    vsd_init(&r->v, &r->dev.virtio, r->ram, CID);
    r->clock = 1000;
    return r;
}

static void rig_free(struct rig *r)
{
    vsd_free(&r->v);
    free(r->ram);
    free(r);
}

static struct rig *rig_up(uint64_t features)
{
    struct rig *r = rig_new();

    assert_true(vsd_up(&r->v, features, 64));
    r->agains = 0;
    return r;
}

static struct rig *rig_plain(void)
{
    struct rig *r = rig_up(TN_VIRTIO_VSOCK_F_SEQPACKET | TN_VIRTIO_F_EVENT_IDX);

    vsd_fill(&r->v, 32);
    return r;
}

static struct vs_end end_of(struct rig *r, uint32_t port, uint32_t host_port, uint16_t type)
{
    struct vs_end e = {&r->v, port, host_port, type, BUF, 0, 0, 0, 0, 0};

    return e;
}

/* The next packet must be this for that end. */
static int expect(struct vs_end *e, uint16_t op, uint8_t *payload)
{
    struct vs_hdr h;
    int n = vsd_recv(e->v, &h, payload);

    assert_true(n >= 0);
    assert_int_equal(h.op, op);
    assert_int_equal(h.src_cid, 2);
    assert_int_equal(h.dst_cid, e->v->cid);
    assert_int_equal(h.src_port, e->host_port);
    assert_int_equal(h.dst_port, e->port);
    assert_int_equal(h.type, e->type);
    assert_int_equal(h.len, n);
    if (op != VS_RST)
        assert_int_equal(h.buf_alloc, BUF);
    vs_heard(e, &h);
    return n;
}

static void nothing(struct rig *r)
{
    struct vs_hdr h;

    assert_int_equal(vsd_recv(&r->v, &h, NULL), -1);
}

/* The guest connects, and it is accepted. */
static struct vs_end open_one(struct rig *r, uint32_t port, uint16_t type)
{
    struct vs_end e = end_of(r, port, 1024, type);
    unsigned before = r->requests;

    assert_true(vs_op(&e, VS_REQUEST, 0));
    assert_int_equal(r->requests, before + 1);
    assert_int_equal(r->conn->guest_port, port);
    assert_int_equal(r->conn->host_port, 1024);
    assert_int_equal(r->conn->type, type);
    expect(&e, VS_RESPONSE, NULL);
    return e;
}

/* The table is consistent: all that is used can be found, all that is free is in the list. */
static void check_table(struct rig *r)
{
    const struct tn_virtio_vsock *d = &r->dev;
    uint32_t used = 0, free_ones = 0, i;

    for (i = d->free; i != 0xffffffffu; i = r->table[i].chain) {
        assert_int_equal(r->table[i].state, 0);
        assert_true(++free_ones <= CONNS);
    }
    for (i = 0; i < CONNS; i++) {
        const struct tn_virtio_vsock_conn *c = &r->table[i];

        if (c->state == 0)
            continue;
        used++;
        assert_ptr_equal(tn_virtio_vsock_find_(d, c->guest_port, c->host_port, c->type), c);
    }
    assert_int_equal(used, d->used);
    assert_int_equal(used + free_ones, CONNS);
}

/* After whatever was before, a driver that behaves is served. */
static void works_again(struct rig *r)
{
    struct vs_end e;
    uint8_t bytes[VSD_SLOT];
    struct tn_iov iov = {bytes, 5};

    r->refuse = r->hold = r->scribble = r->echo = false;
    r->gulp = true;
    r->v.keep = false;
    r->v.cid = r->dev.cfg.guest_cid;
    r->v.size = 4096;
    assert_true(vsd_up(&r->v, TN_VIRTIO_VSOCK_F_SEQPACKET, 64));
    assert_int_equal(r->dev.used, 0);
    vsd_fill(&r->v, 16);
    e = open_one(r, 5000, TN_VIRTIO_VSOCK_STREAM);
    r->got_len = 0;
    assert_true(vs_rw(&e, "hello", 5, 0));
    assert_int_equal(r->got_len, 5);
    assert_memory_equal(r->got, "hello", 5);
    memcpy(bytes, "world", 5);
    assert_int_equal(tn_virtio_vsock_send(&r->dev, r->conn, &iov, 1, 0), 5);
    memset(bytes, 0, sizeof(bytes));
    assert_int_equal(expect(&e, VS_RW, bytes), 5);
    assert_memory_equal(bytes, "world", 5);
    vs_op(&e, VS_SHUTDOWN, 3);
    expect(&e, VS_RST, NULL);
    assert_int_equal(r->dev.used, 0);
    check_table(r);
}

static void must_be_broken(struct rig *r)
{
    assert_int_equal(tn_virtio_status_read(&r->dev.virtio), 15 | TN_VIRTIO_S_NEEDS_RESET);
    tn_virtio_vsock_flush(&r->dev);
    assert_int_equal(r->dev.used, 0);
}

/* ---- refusals ---- */

static void a_bad_cfg_is_refused(void **state)
{
    struct rig *r = rig_new();
    struct tn_virtio_vsock *d = malloc(sizeof(*d));
    struct tn_virtio_vsock_ops part;

    (void)state;
    for (int i = 0; i < 17; i++) {
        struct tn_virtio_vsock_cfg cfg = good_cfg(r);

        switch (i) {
        case 0:
            cfg.mem = NULL;
            break;
        case 1:
            cfg.conn = NULL;
            break;
        case 2:
            cfg.ops = NULL;
            break;
        case 3:
            cfg.conns = 0;
            break;
        case 4:
            cfg.conns = TN_VIRTIO_VSOCK_CONNS_MAX + 1;
            break;
        case 5:
            cfg.buf_alloc = TN_VIRTIO_VSOCK_BUF_MIN - 1;
            break;
        case 6:
            cfg.buf_alloc = TN_VIRTIO_VSOCK_BUF_MAX + 1;
            break;
        case 7:
            cfg.send_max = TN_VIRTIO_VSOCK_BUF_MIN - 1;
            break;
        case 8:
            cfg.send_max = TN_VIRTIO_VSOCK_BUF_MAX + 1;
            break;
        case 9:
            cfg.guest_cid = 2;
            break;
        case 10:
            cfg.guest_cid = 0xffffffffu;
            break;
        case 11:
            cfg.guest_cid = 1ull << 32 | 3;
            break;
        case 12:
            cfg.queue_size = 0;
            break;
        case 13:
            cfg.queue_size = 96;
            break;
        case 14:
            cfg.queue_size = 2 * TN_VIRTIO_VSOCK_QUEUE_MAX;
            break;
        case 15:
            cfg.ring_features = TN_VIRTIO_F_VERSION_1;
            break;
        default:
            cfg.guest_cid = 0;
        }
        assert_int_equal(tn_virtio_vsock_init(d, &cfg), TN_EINVAL);
    }
    for (size_t i = 0; i < sizeof(ops) / sizeof(void (*)(void)); i++) { /* each op is needed */
        struct tn_virtio_vsock_cfg cfg = good_cfg(r);

        part = ops;
        memset((uint8_t *)&part + i * sizeof(void (*)(void)), 0, sizeof(void (*)(void)));
        cfg.ops = &part;
        assert_int_equal(tn_virtio_vsock_init(d, &cfg), TN_EINVAL);
    }
    free(d);
    rig_free(r);
}

static void the_cid_is_in_the_configuration(void **state)
{
    struct rig *r = rig_new();

    (void)state;
    assert_int_equal(tn_virtio_config_read(&r->dev.virtio, 0, 4), CID);
    assert_int_equal(tn_virtio_config_read(&r->dev.virtio, 4, 4), 0);
    assert_int_equal(tn_virtio_config_read(&r->dev.virtio, 8, 1), 0);
    assert_int_equal(tn_virtio_features_read(&r->dev.virtio, 0) & 0xffffff, 3);
    works_again(r);
    rig_free(r);
}

/* What the guest must not say, and what it gets for it. */
static void what_belongs_to_no_connection_is_reset_or_dropped(void **state)
{
    static const struct {
        uint64_t src_cid, dst_cid;
        uint16_t type, op;
        bool rst;
    } row[] = {
        {CID, 2, 1, VS_RW, true},
        {CID, 2, 1, VS_RESPONSE, true},
        {CID, 2, 1, VS_SHUTDOWN, true},
        {CID, 2, 1, VS_UPDATE, true},
        {CID, 2, 1, VS_ASK, true},
        {CID, 2, 1, 0, true},
        {CID, 2, 1, 8, true},
        {CID, 2, 1, 0xffff, true},
        {CID, 2, 1, VS_RST, false}, /* RST is not answered */
        {CID, 2, 0, VS_REQUEST, true},
        {CID, 2, 3, VS_REQUEST, true},
        {CID, 2, 3, VS_RST, false},
        {CID, 0, 1, VS_REQUEST, true},
        {CID, 1, 1, VS_REQUEST, true},
        {CID, 9, 1, VS_REQUEST, true},
        {CID, CID, 1, VS_REQUEST, true},
        {CID, UINT64_MAX, 1, VS_RST, false},
        {CID, 1ull << 32 | 2, 1, VS_REQUEST, true},
        {CID + 1, 2, 1, VS_REQUEST, false}, /* of somebody else */
        {2, 2, 1, VS_REQUEST, false},
        {1ull << 32 | CID, 2, 1, VS_REQUEST, false},
    };
    struct rig *r = rig_plain();

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct vs_hdr h = {row[i].src_cid, row[i].dst_cid, 11, 22, 0,
                           row[i].type,    row[i].op,      0,  99, 0},
                      a;

        assert_true(vsd_send(&r->v, &h, NULL, 0));
        if (row[i].rst) {
            assert_int_equal(vsd_recv(&r->v, &a, NULL), 0);
            assert_int_equal(a.op, VS_RST);
            assert_true(a.src_cid == row[i].dst_cid && a.dst_cid == CID);
            assert_true(a.src_port == 22 && a.dst_port == 11 && a.type == row[i].type);
        }
        nothing(r);
    }
    assert_int_equal(r->requests, 0);
    assert_int_equal(r->dev.dropped, 3);
    works_again(r);
    rig_free(r);
}

static void short_packets_are_dropped(void **state)
{
    struct rig *r = rig_plain();
    struct vs_end e = open_one(r, 1, TN_VIRTIO_VSOCK_STREAM);
    struct vs_hdr h;

    (void)state;
    for (uint32_t len = 0; len < 44; len++) {
        struct vqd_buf buf = {VSD_TX, len, false};

        vs_hdr_of(&e, VS_RST, 0, 0, &h);
        vs_encode(r->ram + VSD_TX, &h);
        assert_true(vd_add(&r->v.d, 1, &buf, 1) >= 0);
        vsd_kick(&r->v);
        vsd_reap_tx(&r->v);
    }
    assert_int_equal(r->dev.dropped, 44);
    assert_int_equal(r->closes, 0);
    nothing(r);
    rig_free(r);
}

/* A payload that claims more than its chain has resets its connection. */
static void a_length_beyond_the_chain_is_refused(void **state)
{
    static const struct {
        uint32_t len, have;
        bool ok;
    } row[] = {{10, 10, true}, {9, 10, true},           {11, 10, false},
               {1, 0, false},  {UINT32_MAX, 10, false}, {UINT32_MAX - 43, 10, false},
               {0, 10, true}};

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct rig *r = rig_plain();
        struct vs_end e = open_one(r, 1, TN_VIRTIO_VSOCK_STREAM);
        struct vs_hdr h;

        vs_hdr_of(&e, VS_RW, row[i].len, 0, &h);
        assert_true(vsd_send(&r->v, &h, "0123456789", row[i].have));
        assert_int_equal(r->got_len, row[i].ok ? row[i].len : 0);
        assert_int_equal(r->closes, !row[i].ok);
        if (!row[i].ok) {
            assert_int_equal(r->why, TN_VIRTIO_VSOCK_WHY_RESET);
            expect(&e, VS_RST, NULL);
        }
        nothing(r);
        works_again(r);
        rig_free(r);
    }
}

/* What makes no sense on a connection resets it. */
static void nonsense_on_a_connection_resets_it(void **state)
{
    static const uint16_t op[] = {0, VS_REQUEST, VS_RESPONSE, 8, 0xffff};

    (void)state;
    for (size_t i = 0; i < COUNT(op); i++) {
        struct rig *r = rig_plain();
        struct vs_end e = open_one(r, 1, TN_VIRTIO_VSOCK_STREAM);

        vs_op(&e, op[i], 0);
        assert_int_equal(r->closes, 1);
        assert_int_equal(r->why, TN_VIRTIO_VSOCK_WHY_RESET);
        expect(&e, VS_RST, NULL);
        nothing(r);
        check_table(r);
        rig_free(r);
    }
}

static void data_before_the_answer_resets(void **state)
{
    struct rig *r = rig_plain();
    struct vs_end e = end_of(r, 1, 2, TN_VIRTIO_VSOCK_STREAM);

    (void)state;
    r->hold = true;
    vs_op(&e, VS_REQUEST, 0);
    nothing(r);
    vs_rw(&e, "x", 1, 0);
    assert_int_equal(r->closes, 1);
    expect(&e, VS_RST, NULL);
    assert_int_equal(tn_virtio_vsock_accept(&r->dev, r->conn), TN_ESTATE);
    nothing(r);
    rig_free(r);
}

static void sending_after_saying_that_one_will_not_resets(void **state)
{
    struct rig *r = rig_plain();
    struct vs_end e = open_one(r, 1, TN_VIRTIO_VSOCK_STREAM);

    (void)state;
    vs_op(&e, VS_SHUTDOWN, TN_VIRTIO_VSOCK_SHUT_SEND);
    vs_rw(&e, "x", 1, 0);
    assert_int_equal(r->closes, 1);
    assert_int_equal(r->datas, 0);
    expect(&e, VS_RST, NULL);
    rig_free(r);
}

static void seqpacket_has_to_be_negotiated(void **state)
{
    struct rig *r = rig_up(0);
    struct vs_end e = end_of(r, 1, 2, TN_VIRTIO_VSOCK_SEQPACKET);
    struct tn_virtio_vsock_conn *c;

    (void)state;
    vsd_fill(&r->v, 8);
    vs_op(&e, VS_REQUEST, 0);
    expect(&e, VS_RST, NULL);
    assert_int_equal(r->requests, 0);
    assert_int_equal(tn_virtio_vsock_connect(&r->dev, 1, 2, TN_VIRTIO_VSOCK_SEQPACKET, r, &c),
                     TN_EUNSUP);
    assert_null(c);
    assert_int_equal(tn_virtio_vsock_connect(&r->dev, 1, 2, 3, r, &c), TN_EUNSUP);
    e.type = TN_VIRTIO_VSOCK_STREAM; /* is there always */
    vs_op(&e, VS_REQUEST, 0);
    expect(&e, VS_RESPONSE, NULL);
    rig_free(r);
}

static void a32_buffers_of_the_wrong_direction_break_the_device(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct rig *r = rig_plain();
        struct vqd_buf buf[2] = {{VSD_TX, 44, false}, {VSD_TX + 64, 10, true}};
        struct tn_virtio_vsock_conn *c;

        open_one(r, 1, TN_VIRTIO_VSOCK_STREAM);
        c = r->conn;
        switch (i) {
        case 0: /* a packet with a part for writing */
            assert_true(vd_add(&r->v.d, 1, buf, 2) >= 0);
            break;
        case 1: /* for writing first (A32) */
            buf[0].write = true;
            buf[1].write = false;
            assert_true(vd_add(&r->v.d, 1, buf, 2) >= 0);
            break;
        case 2:                          /* a buffer for the device to write that is for reading */
            for (int n = 0; n < 32; n++) /* those before it are used up */
                tn_virtio_vsock_pend_(&r->dev, c, TN_VIRTIO_VSOCK_P_CREDIT_),
                    tn_virtio_vsock_consumed(&r->dev, c, 0);
            assert_true(vd_add(&r->v.d, 0, buf, 1) >= 0);
            tn_virtio_vsock_pend_(&r->dev, c, TN_VIRTIO_VSOCK_P_CREDIT_);
            break;
        default: /* an event's */
            assert_true(vd_add(&r->v.d, 2, buf, 1) >= 0);
            r->dev.event = true;
        }
        vd_kick(&r->v.d, i < 2 ? 1 : i == 2 ? 0 : 2);
        assert_true(r->config_irq > 0);
        must_be_broken(r);
        assert_int_equal(r->closes, 1);
        assert_int_equal(r->why, TN_VIRTIO_VSOCK_WHY_GONE);
        works_again(r);
        rig_free(r);
    }
}

static void a26_the_header_is_copied_once(void **state)
{
    struct rig *r = rig_plain();
    struct vs_end e;

    (void)state;
    r->scribble = true;
    r->gulp = true;
    e = open_one(r, 77, TN_VIRTIO_VSOCK_STREAM);
    for (int i = 0; i < 10; i++)
        vs_rw(&e, "abc", 3, 0);
    assert_int_equal(r->got_len, 30);
    assert_int_equal(r->conn->rx_cnt, 30);
    assert_int_equal(r->closes, 0);
    nothing(r);
    rig_free(r);
}

/* ---- connections ---- */

static void a_guest_connects_talks_and_closes(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(all_rings); i++) {
        struct rig *r = rig_up(all_rings[i] | TN_VIRTIO_VSOCK_F_SEQPACKET);
        uint8_t bytes[VSD_SLOT] = "ping", back[VSD_SLOT];
        struct tn_iov iov[3] = {{bytes, 1}, {bytes + 1, 0}, {bytes + 1, 3}};
        struct vs_end e;

        vsd_fill(&r->v, 16);
        e = open_one(r, 40000, TN_VIRTIO_VSOCK_STREAM);
        vs_rw(&e, "hello", 5, 3);
        assert_int_equal(r->got_len, 5);
        assert_memory_equal(r->got, "hello", 5);
        assert_int_equal(r->flags, 0); /* a stream has none */
        assert_int_equal(tn_virtio_vsock_send(&r->dev, r->conn, iov, 3, 3), 4);
        assert_int_equal(expect(&e, VS_RW, back), 4);
        assert_memory_equal(back, "ping", 4);
        assert_int_equal(e.peer_fwd, 0);
        tn_virtio_vsock_consumed(&r->dev, r->conn, 5);
        nothing(r); /* so little is not worth a packet */
        vs_op(&e, VS_ASK, 0);
        expect(&e, VS_UPDATE, NULL);
        assert_int_equal(e.peer_fwd, 5);
        vs_op(&e, VS_SHUTDOWN, 2);
        assert_int_equal(r->shut, 2);
        vs_op(&e, VS_SHUTDOWN, 2);
        assert_int_equal(r->shuts, 1);
        assert_int_equal(r->closes, 0);
        vs_op(&e, VS_SHUTDOWN, 1);
        assert_int_equal(r->closes, 1);
        assert_int_equal(r->why, TN_VIRTIO_VSOCK_WHY_DONE);
        expect(&e, VS_RST, NULL);
        nothing(r);
        assert_int_equal(r->dev.used, 0);
        works_again(r);
        rig_free(r);
    }
}

static void packets_come_in_pieces(void **state)
{
    struct rig *r = rig_up(TN_VIRTIO_VSOCK_F_SEQPACKET);
    struct vs_end e;
    struct vqd_buf buf[49];
    struct tn_iov iov = {r->got, 200};
    struct vs_hdr h;
    uint32_t len;

    (void)state;
    vsd_fill(&r->v, 1);
    r->v.keep = true;
    e = open_one(r, 1, TN_VIRTIO_VSOCK_STREAM);
    vs_hdr_of(&e, VS_RW, 9, 0, &h);
    vs_encode(r->ram + VSD_TX, &h);
    memcpy(r->ram + VSD_TX + 44, "123456789", 9);
    for (uint32_t i = 0; i < 44; i++) /* byte by byte, but for the last, which has payload, too */
        buf[i] = (struct vqd_buf){VSD_TX + i, i < 43 ? 1 : 3, false};
    buf[44] = (struct vqd_buf){VSD_TX + 46, 0, false};
    buf[45] = (struct vqd_buf){VSD_TX + 46, 6, false};
    buf[46] = (struct vqd_buf){VSD_TX + 52, 100, false}; /* longer than it says */
    assert_true(vd_add(&r->v.d, 1, buf, 47) >= 0);
    vsd_kick(&r->v);
    assert_int_equal(r->got_len, 9);
    assert_memory_equal(r->got, "123456789", 9);
    for (uint32_t i = 0; i < 200; i++)
        r->got[i] = (uint8_t)(i + 1);
    buf[0] = (struct vqd_buf){VSD_RX, 1, true};
    buf[1] = (struct vqd_buf){VSD_RX + 1, 42, true};
    buf[2] = (struct vqd_buf){VSD_RX + 43, 5, true};
    buf[3] = (struct vqd_buf){VSD_RX + 48, 0, true};
    buf[4] = (struct vqd_buf){VSD_RX + 48, 300, true};
    assert_true(vd_add(&r->v.d, 0, buf, 5) >= 0);
    assert_int_equal(tn_virtio_vsock_send(&r->dev, r->conn, &iov, 1, 0), 200);
    assert_true(vd_reap(&r->v.d, 0, &len) >= 0);
    assert_int_equal(len, 244);
    vs_decode(r->ram + VSD_RX, &h);
    assert_true(h.op == VS_RW && h.len == 200 && h.dst_port == 1);
    assert_memory_equal(r->ram + VSD_RX + 44, r->got, 200);
    assert_int_equal(r->ram[VSD_RX + 244], 0);
    rig_free(r);
}

/* Those who wait for buffers get them in turn; one that ends meanwhile leaves the others alone. */
static void who_waits_is_served_in_turn(void **state)
{
    struct rig *r = rig_plain();
    struct tn_virtio_vsock_conn *c[4];
    struct tn_iov iov = {r->got, 10};
    struct vs_end e[4];
    struct vs_hdr h;

    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        e[i] = open_one(r, i, TN_VIRTIO_VSOCK_STREAM);
        c[i] = r->conn;
    }
    r->v.keep = true;
    while (tn_virtio_vsock_send(&r->dev, c[0], &iov, 1, 0) == 10)
        ;
    for (uint32_t i = 1; i < 4; i++)
        assert_int_equal(tn_virtio_vsock_send(&r->dev, c[i], &iov, 1, 0), 0);
    vs_op(&e[1], VS_RST, 0);
    while (vsd_recv(&r->v, &h, NULL) >= 0)
        ;
    for (uint32_t i = 0; i < 4; i++) {
        if (i == 1)
            continue;
        r->rooms = 0;
        vsd_fill(&r->v, 1);
        assert_int_equal(r->rooms, i == 0 ? 3 : 0); /* nobody took it at the first */
        assert_int_equal(tn_virtio_vsock_send(&r->dev, c[i], &iov, 1, 0), 10);
        expect(&e[i], VS_RW, NULL);
    }
    /* Packets that wait, and ends among them. */
    for (uint32_t i = 0; i < 4; i++)
        if (i != 1)
            vs_op(&e[i], VS_ASK, 0);
    vs_op(&e[2], VS_RST, 0);
    tn_virtio_vsock_reset(&r->dev, c[0]);
    check_table(r);
    vsd_fill(&r->v, 2);
    expect(&e[0], VS_RST, NULL);
    expect(&e[3], VS_UPDATE, NULL);
    tn_virtio_vsock_reset(&r->dev, c[3]); /* its RST waits when all is reset */
    tn_virtio_vsock_reset_all(&r->dev);
    assert_int_equal(r->dev.used, 0);
    check_table(r);
    works_again(r);
    rig_free(r);
}

static void the_host_connects_and_closes(void **state)
{
    struct rig *r = rig_plain();
    struct vs_end e = end_of(r, 52, 7000, TN_VIRTIO_VSOCK_STREAM);
    struct tn_virtio_vsock_conn *c, *d;
    struct tn_iov iov = {r->got, 3};

    (void)state;
    assert_int_equal(tn_virtio_vsock_connect(&r->dev, 52, 7000, 1, r, &c), 0);
    assert_int_equal(r->due, 1000 + TN_VIRTIO_VSOCK_TIMEOUT);
    assert_int_equal(tn_virtio_vsock_connect(&r->dev, 52, 7000, 1, r, &d), TN_EEXIST);
    assert_null(d);
    assert_int_equal(tn_virtio_vsock_send(&r->dev, c, &iov, 1, 0), 0);
    assert_int_equal(tn_virtio_vsock_room(&r->dev, c), 0);
    expect(&e, VS_REQUEST, NULL);
    vs_op(&e, VS_RESPONSE, 0);
    assert_int_equal(r->opened, 1);
    assert_int_equal(tn_virtio_vsock_room(&r->dev, c), BUF);
    tn_virtio_vsock_shutdown(&r->dev, c, 2);
    expect(&e, VS_SHUTDOWN, NULL);
    assert_int_equal(tn_virtio_vsock_send(&r->dev, c, &iov, 1, 0), 0);
    vs_rw(&e, "ab", 2, 0);
    assert_int_equal(r->got_len, 2);
    tn_virtio_vsock_shutdown(&r->dev, c, 1);
    expect(&e, VS_SHUTDOWN, NULL);
    vs_rw(&e, "cd", 2, 0); /* was under way: it is dropped */
    assert_int_equal(r->got_len, 2);
    assert_int_equal(r->closes, 0);
    vs_op(&e, VS_RST, 0);
    assert_int_equal(r->closes, 1);
    assert_int_equal(r->why, TN_VIRTIO_VSOCK_WHY_DONE);
    nothing(r);
    assert_int_equal(r->dev.used, 0);
    rig_free(r);
}

/* A guest that does not answer: the connection ends by the clock. */
static void an_answer_that_does_not_come_is_not_awaited_for_ever(void **state)
{
    struct rig *r = rig_plain();
    struct vs_end e = end_of(r, 52, 1, TN_VIRTIO_VSOCK_STREAM), f = e;
    struct tn_virtio_vsock_conn *c;

    (void)state;
    assert_int_equal(tn_virtio_vsock_connect(&r->dev, 52, 1, 1, r, &c), 0);
    r->clock += 500 * NS;
    f.host_port = 2;
    assert_int_equal(tn_virtio_vsock_connect(&r->dev, 52, 2, 1, r, &c), 0);
    assert_int_equal(r->laters, 1);
    expect(&e, VS_REQUEST, NULL);
    expect(&f, VS_REQUEST, NULL);
    tn_virtio_vsock_tick(&r->dev); /* too early */
    assert_int_equal(r->closes, 0);
    r->clock = r->due;
    assert_int_equal(r->clock, 1000 + TN_VIRTIO_VSOCK_TIMEOUT);
    tn_virtio_vsock_tick(&r->dev);
    assert_int_equal(r->closes, 1);
    assert_int_equal(r->why, TN_VIRTIO_VSOCK_WHY_TIMEOUT);
    expect(&e, VS_RST, NULL);
    assert_int_equal(r->due, 1000 + 500 * NS + TN_VIRTIO_VSOCK_TIMEOUT);
    assert_int_equal(r->dev.deadline, r->due);
    vs_op(&e, VS_RESPONSE, 0); /* too late */
    expect(&e, VS_RST, NULL);
    vs_op(&f, VS_RESPONSE, 0); /* in time */
    r->clock = r->due;
    tn_virtio_vsock_tick(&r->dev);
    assert_int_equal(r->closes, 1);
    tn_virtio_vsock_shutdown(&r->dev, c, 3); /* nor is the answer to that awaited for ever */
    expect(&f, VS_SHUTDOWN, NULL);
    r->clock = r->due;
    tn_virtio_vsock_tick(&r->dev);
    assert_int_equal(r->closes, 2);
    expect(&f, VS_RST, NULL);
    assert_int_equal(r->dev.used, 0);
    assert_int_equal(r->dev.deadline, 0);
    rig_free(r);
}

static void refusals_both_ways(void **state)
{
    struct rig *r = rig_plain();
    struct vs_end e = end_of(r, 9, 8, TN_VIRTIO_VSOCK_STREAM);
    struct tn_virtio_vsock_conn *c;

    (void)state;
    r->refuse = true;
    vs_op(&e, VS_REQUEST, 0);
    assert_int_equal(r->requests, 1);
    assert_int_equal(r->closes, 0); /* the host side knows */
    expect(&e, VS_RST, NULL);
    assert_int_equal(tn_virtio_vsock_connect(&r->dev, 9, 8, 1, r, &c), 0);
    expect(&e, VS_REQUEST, NULL);
    vs_op(&e, VS_RST, 0);
    assert_int_equal(r->closes, 1);
    assert_int_equal(r->why, TN_VIRTIO_VSOCK_WHY_RESET);
    nothing(r);
    assert_int_equal(r->dev.used, 0);
    /* One that was never sent needs no RST. */
    r->v.keep = true;
    while (r->v.d.q[0].added != r->v.d.q[0].reaped)
        if (tn_virtio_vsock_connect(&r->dev, 9, 8, 1, r, &c) == 0) {
            struct vs_hdr h;

            tn_virtio_vsock_reset(&r->dev, c);
            while (vsd_recv(&r->v, &h, NULL) >= 0)
                ;
        }
    assert_int_equal(tn_virtio_vsock_connect(&r->dev, 9, 8, 1, r, &c), 0);
    tn_virtio_vsock_reset(&r->dev, c);
    assert_int_equal(r->dev.used, 0);
    r->v.keep = false;
    vsd_fill(&r->v, 8);
    nothing(r);
    rig_free(r);
}

static void a_thousand_connections_opened_and_closed(void **state)
{
    struct rig *r = rig_plain();

    (void)state;
    r->gulp = true;
    for (uint32_t i = 0; i < 1000; i++) {
        struct vs_end e = open_one(r, i, i % 2 ? 1 : 2);

        vs_rw(&e, "x", 1, 1);
        vs_op(&e, VS_SHUTDOWN, 3);
        expect(&e, VS_RST, NULL);
        if (i % 100 == 0)
            check_table(r);
    }
    assert_int_equal(r->got_len, 1000);
    assert_int_equal(r->dev.used, 0);
    check_table(r);
    rig_free(r);
}

/* ---- credit ---- */

/* The guest floods: what exceeds the buffer ends the connection, and is not handed on. */
static void c18_a_flood_beyond_the_credit_is_reset(void **state)
{
    struct rig *r = rig_plain();
    struct vs_end e = open_one(r, 1, TN_VIRTIO_VSOCK_STREAM);
    uint8_t bytes[4096] = {1};

    (void)state;
    for (uint32_t i = 0; i < BUF / 4096; i++)
        vs_rw(&e, bytes, 4096, 0);
    assert_int_equal(r->got_len, BUF);
    assert_int_equal(r->closes, 0);
    tn_virtio_vsock_consumed(&r->dev, r->conn, 1);
    vs_rw(&e, bytes, 1, 0);
    assert_int_equal(r->closes, 0);
    vs_rw(&e, bytes, 1, 0);
    assert_int_equal(r->closes, 1);
    assert_int_equal(r->got_len, BUF + 1);
    expect(&e, VS_RST, NULL);
    works_again(r);
    rig_free(r);
}

/* Consuming more than there was gives no credit away. */
static void the_host_cannot_forward_more_than_it_was_given(void **state)
{
    struct rig *r = rig_plain();
    struct vs_end e = open_one(r, 1, TN_VIRTIO_VSOCK_STREAM);

    (void)state;
    vs_rw(&e, "abc", 3, 0);
    tn_virtio_vsock_consumed(&r->dev, r->conn, UINT32_MAX);
    assert_int_equal(r->conn->fwd_cnt, 3);
    rig_free(r);
}

/* A guest that claims a buffer without end gets send_max bytes; one without credit none. */
static void c17_the_guests_buffer_is_believed_up_to_a_limit(void **state)
{
    static const struct {
        uint32_t buf_alloc, want;
    } row[] = {{UINT32_MAX, 262144}, {262145, 262144}, {1000, 1000}, {1, 1}, {0, 0}};
    static uint8_t bytes[300000];

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct rig *r = rig_plain();
        struct vs_end e = end_of(r, 1, 1024, TN_VIRTIO_VSOCK_STREAM);
        struct tn_iov iov = {bytes, sizeof(bytes)};
        size_t sent = 0, n;
        struct vs_hdr h;
        int got;

        e.buf_alloc = row[i].buf_alloc;
        vs_op(&e, VS_REQUEST, 0);
        expect(&e, VS_RESPONSE, NULL);
        do {
            n = tn_virtio_vsock_send(&r->dev, r->conn, &iov, 1, 0);
            sent += n;
            while ((got = vsd_recv(&r->v, &h, NULL)) >= 0)
                assert_true(h.op == VS_RW || h.op == VS_ASK);
        } while (n > 0);
        assert_int_equal(sent, row[i].want);
        r->rooms = 0;
        e.fwd_cnt = (uint32_t)sent; /* it was read */
        e.buf_alloc += e.buf_alloc == 0;
        vs_op(&e, VS_UPDATE, 0);
        assert_int_equal(r->rooms, 1);
        rig_free(r);
    }
}

/* A guest that lies about what it has read cannot make it more. */
static void fwd_cnt_out_of_range_gives_no_credit(void **state)
{
    static const uint32_t fwd[] = {1, 100, 0x7fffffff, 0x80000000u, UINT32_MAX - BUF};
    struct rig *r = rig_plain();
    struct vs_end e = open_one(r, 1, TN_VIRTIO_VSOCK_STREAM);

    (void)state;
    for (size_t i = 0; i < COUNT(fwd); i++) {
        e.fwd_cnt = fwd[i];
        vs_op(&e, VS_UPDATE, 0);
        assert_int_equal(tn_virtio_vsock_room(&r->dev, r->conn), 0);
    }
    e.fwd_cnt = 0;
    vs_op(&e, VS_UPDATE, 0);
    assert_int_equal(tn_virtio_vsock_room(&r->dev, r->conn), BUF);
    rig_free(r);
}

/* Counters pass 2^32 both ways. */
static void counters_wrap(void **state)
{
    struct rig *r = rig_plain();
    struct vs_end e = open_one(r, 1, TN_VIRTIO_VSOCK_STREAM);
    struct tn_virtio_vsock_conn *c = r->conn;
    uint8_t bytes[4096] = {7};
    struct tn_iov iov = {bytes, 4000};
    struct vs_hdr h;

    (void)state;
    r->gulp = true;
    c->tx_cnt = c->peer_fwd_cnt = e.fwd_cnt = e.rx_cnt = UINT32_MAX - 10000;
    c->rx_cnt = c->fwd_cnt = c->told_fwd_cnt = e.peer_fwd = e.tx_cnt = UINT32_MAX - 10000;
    for (int i = 0; i < 50; i++) {
        assert_true(vs_credit(&e) >= 4096);
        vs_rw(&e, bytes, 4096, 0);
        assert_int_equal(tn_virtio_vsock_send(&r->dev, c, &iov, 1, 0), 4000);
        while (vsd_recv(&r->v, &h, NULL) >= 0)
            vs_heard(&e, &h);
        e.fwd_cnt = e.rx_cnt;
    }
    assert_int_equal(r->closes, 0);
    assert_int_equal(r->got_len, 50 * 4096);
    assert_int_equal(e.rx_cnt, UINT32_MAX - 10000 + 50 * 4000);
    rig_free(r);
}

/* The guest is told in time, and not for each byte. */
static void credit_comes_back_in_quarters(void **state)
{
    struct rig *r = rig_plain();
    struct vs_end e = open_one(r, 1, TN_VIRTIO_VSOCK_STREAM);
    uint8_t bytes[1024] = {1};
    struct vs_hdr h;
    uint32_t sent = 0;
    unsigned updates = 0;

    (void)state;
    r->gulp = true;
    while (sent < 64 * BUF) {
        assert_true(vs_credit(&e) >= 3 * BUF / 4 - 1024);
        vs_rw(&e, bytes, sizeof(bytes), 0);
        sent += (uint32_t)sizeof(bytes);
        while (vsd_recv(&r->v, &h, NULL) >= 0) {
            assert_int_equal(h.op, VS_UPDATE);
            vs_heard(&e, &h);
            updates++;
        }
    }
    assert_int_equal(updates, 64 * 4);
    rig_free(r);
}

/* Without credit the device asks for it, once; and again only after it had some. */
static void credit_is_asked_for_once(void **state)
{
    struct rig *r = rig_plain();
    struct vs_end e = end_of(r, 1, 1024, TN_VIRTIO_VSOCK_STREAM);
    uint8_t bytes[200] = {1};
    struct tn_iov iov = {bytes, sizeof(bytes)};

    (void)state;
    e.buf_alloc = 100;
    vs_op(&e, VS_REQUEST, 0);
    expect(&e, VS_RESPONSE, NULL);
    assert_int_equal(tn_virtio_vsock_send(&r->dev, r->conn, &iov, 1, 0), 100);
    assert_int_equal(expect(&e, VS_RW, bytes), 100);
    expect(&e, VS_ASK, NULL);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(tn_virtio_vsock_send(&r->dev, r->conn, &iov, 1, 0), 0);
        vs_op(&e, VS_UPDATE, 0); /* it has none */
    }
    nothing(r);
    assert_int_equal(r->rooms, 0);
    e.fwd_cnt = 100;
    vs_op(&e, VS_UPDATE, 0);
    assert_int_equal(r->rooms, 1);
    vs_op(&e, VS_UPDATE, 0);
    assert_int_equal(r->rooms, 1); /* it was told */
    assert_int_equal(tn_virtio_vsock_send(&r->dev, r->conn, &iov, 1, 0), 100);
    expect(&e, VS_RW, bytes);
    expect(&e, VS_ASK, NULL);
    rig_free(r);
}

/* ---- bounds ---- */

static void c19_the_table_is_a_cap(void **state)
{
    struct rig *r = rig_plain();
    struct tn_virtio_vsock_conn *c;

    (void)state;
    for (uint32_t i = 0; i < CONNS; i++)
        open_one(r, i, 1);
    check_table(r);
    for (uint32_t i = 0; i < 500; i++) {
        struct vs_end e = end_of(r, CONNS + i, 1024, 1);

        vs_op(&e, VS_REQUEST, 0);
        expect(&e, VS_RST, NULL);
    }
    assert_int_equal(r->requests, CONNS);
    assert_int_equal(tn_virtio_vsock_connect(&r->dev, 1, 2, 1, r, &c), TN_ENOSPC);
    for (uint32_t i = 0; i < CONNS; i += 2) {
        struct vs_end e = end_of(r, i, 1024, 1);

        vs_op(&e, VS_RST, 0);
    }
    check_table(r);
    assert_int_equal(r->dev.used, CONNS / 2);
    open_one(r, 5555, 1);
    works_again(r);
    rig_free(r);
}

/* Without buffers for replies packets stay in the ring, and nothing is lost (5.10.6.3). */
static void replies_wait_for_buffers_and_packets_for_replies(void **state)
{
    struct rig *r = rig_up(TN_VIRTIO_F_EVENT_IDX);
    struct vs_end one = end_of(r, 1, 1024, 1);
    uint32_t sent = 0, resets = 0;
    struct vs_hdr h;

    (void)state;
    vs_op(&one, VS_REQUEST, 0); /* accepted; its RESPONSE waits */
    assert_int_equal(r->requests, 1);
    h = (struct vs_hdr){CID, 2, 0, 3, 0, 1, VS_RW, 0, 0, 0};
    for (uint32_t i = 0; i < 3 * TN_VIRTIO_VSOCK_ORPHANS; i++) {
        h.src_port = 1000 + i;
        sent += vsd_send(&r->v, &h, NULL, 0);
    }
    assert_int_equal(r->dev.orphans, TN_VIRTIO_VSOCK_ORPHANS);
    assert_true(r->dev.stuck);
    assert_in_range(sent, TN_VIRTIO_VSOCK_ORPHANS, 2 * TN_VIRTIO_VSOCK_ORPHANS);
    r->v.keep = true;
    r->agains = 0;
    vsd_fill(&r->v, 1);
    assert_true(r->agains > 0); /* a reply has gone: the next packet can be looked at */
    for (int turn = 0; turn < 300; turn++) {
        vsd_fill(&r->v, 1);
        if (r->agains > 0) {
            r->agains = 0;
            tn_virtio_vsock_flush(&r->dev);
        }
        while (vsd_recv(&r->v, &h, NULL) >= 0) {
            if (h.dst_port == 1)
                assert_int_equal(h.op, VS_RESPONSE);
            else
                assert_int_equal(h.dst_port, 1000 + resets++);
        }
    }
    assert_int_equal(resets, sent);
    assert_int_equal(r->dev.orphans, 0);
    assert_false(r->dev.stuck);
    assert_int_equal(r->conn->state, TN_VIRTIO_VSOCK_OPEN_);
    assert_int_equal(r->conn->pending, 0);
    rig_free(r);
}

/* Resets of live connections wait too, and the connection is not there for anybody else. */
static void resets_of_connections_are_not_lost(void **state)
{
    struct rig *r = rig_plain();
    struct vs_end e[CONNS];
    struct vs_hdr h;

    (void)state;
    for (uint32_t i = 0; i < CONNS; i++)
        e[i] = open_one(r, i, 1);
    r->v.keep = true;
    while (r->v.d.q[0].added > r->v.d.q[0].reaped) { /* take all buffers away */
        vs_op(&e[0], VS_ASK, 0);
        while (vsd_recv(&r->v, &h, NULL) >= 0)
            ;
    }
    for (uint32_t i = 0; i < CONNS; i++)
        vs_op(&e[i], VS_SHUTDOWN, 3);
    assert_int_equal(r->closes, CONNS);
    assert_int_equal(r->dev.used, CONNS);
    check_table(r);
    vs_rw(&e[3], "x", 1, 0); /* too late: it is being reset */
    r->v.keep = false;
    vsd_fill(&r->v, 4);
    for (uint32_t i = 0; i < CONNS; i++)
        expect(&e[i], VS_RST, NULL);
    nothing(r);
    assert_int_equal(r->dev.used, 0);
    check_table(r);
    rig_free(r);
}

static void c14_a_turn_is_bounded(void **state)
{
    struct rig *r = rig_plain();
    struct vs_end e = open_one(r, 1, TN_VIRTIO_VSOCK_STREAM);
    static struct vqd_buf buf[64];
    unsigned turns = 0;
    struct vs_hdr h;

    (void)state;
    /* Each packet is a chain over the same 16 KiB again and again. */
    r->gulp = true;
    vs_hdr_of(&e, VS_RW, 60000, 0, &h);
    vs_encode(r->ram + VSD_TX, &h);
    buf[0] = (struct vqd_buf){VSD_TX, 44, false};
    for (int i = 1; i < 6; i++)
        buf[i] = (struct vqd_buf){VSD_TX + 64, 12000, false};
    while (vd_add(&r->v.d, 1, buf, 6) >= 0)
        ;
    r->turn = r->agains = 0;
    vd_kick(&r->v.d, 1);
    while (r->agains > 0) {
        r->turn = r->agains = 0;
        tn_virtio_vsock_flush(&r->dev);
        turns++;
    }
    assert_int_equal(r->got_len, 10 * 60000);
    assert_int_equal(turns, 1);
    assert_in_range(r->turn_max, TN_VIRTIO_VSOCK_TURN, TN_VIRTIO_VSOCK_TURN + 60000);
    rig_free(r);
}

/* C21: nothing asks for another turn when nothing can be done. */
static void c21_an_idle_device_asks_for_nothing(void **state)
{
    struct rig *r = rig_up(TN_VIRTIO_F_EVENT_IDX);
    struct vs_end e = end_of(r, 1, 1024, 1);
    uint8_t bytes[100] = {0};
    struct tn_iov iov = {bytes, sizeof(bytes)};

    (void)state;
    vs_op(&e, VS_REQUEST, 0);
    (void)tn_virtio_vsock_send(&r->dev, r->conn, &iov, 1, 0);
    tn_virtio_vsock_reset_all(&r->dev); /* an event without a buffer */
    r->agains = 0;
    for (int i = 0; i < 10; i++) {
        tn_virtio_vsock_flush(&r->dev);
        assert_int_equal(r->agains, 0);
    }
    rig_free(r);
}

/* C21: after N times of saving, and of restoring, the way to the guest opens again. */
static void c21_the_way_in_opens_again_after_each_pause(void **state)
{
    struct rig *r = rig_plain();
    struct tn_virtio_vsock_state saved;
    uint8_t bytes[VSD_SLOT] = "data";
    struct tn_iov iov = {bytes, 4};
    struct vqd_buf ev = {VSD_EVENT, 8, true};

    (void)state;
    for (uint32_t i = 0; i < 50; i++) {
        struct vs_end e = open_one(r, i, 1);
        struct vs_hdr h;

        r->v.keep = true;
        while (tn_virtio_vsock_send(&r->dev, r->conn, &iov, 1, 0) == 4)
            ; /* no buffers any more */
        tn_virtio_vsock_save(&r->dev, &saved);
        if (i % 2 == 0) {
            uint32_t len = 99;

            assert_true(vd_add(&r->v.d, 2, &ev, 1) >= 0);
            assert_int_equal(tn_virtio_vsock_restore(&r->dev, &saved), 0);
            assert_int_equal(r->why, TN_VIRTIO_VSOCK_WHY_GONE);
            assert_int_equal(r->dev.used, 0);
            memset(r->ram + VSD_EVENT, 0xff, 8);
            tn_virtio_vsock_flush(&r->dev);
            assert_true(vd_reap(&r->v.d, 2, &len) >= 0);
            assert_int_equal(len, 4);
            assert_int_equal(test_le(r->ram + VSD_EVENT, 8), 0xffffffff00000000ull);
        }
        r->rooms = 0;
        while (vsd_recv(&r->v, &h, bytes) >= 0)
            ;
        r->v.keep = false;
        vsd_fill(&r->v, 32);
        assert_int_equal(r->rooms, i % 2);
        if (i % 2 == 1) {
            assert_int_equal(tn_virtio_vsock_send(&r->dev, r->conn, &iov, 1, 0), 4);
            expect(&e, VS_RW, bytes);
            vs_op(&e, VS_RST, 0);
        }
    }
    assert_int_equal(r->dev.used, 0);
    rig_free(r);
}

/* ---- messages ---- */

static void messages_keep_their_boundaries(void **state)
{
    struct rig *r = rig_plain();
    struct vs_end e = open_one(r, 1, TN_VIRTIO_VSOCK_SEQPACKET);
    static uint8_t bytes[20000], back[20000 + VSD_SLOT];
    struct tn_iov iov = {bytes, sizeof(bytes)};
    struct vs_hdr h;
    uint32_t at = 0;
    int n;

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 13 + i / 256);
    vs_rw(&e, "one", 3, 0);
    assert_int_equal(r->flags, 0);
    vs_rw(&e, "two", 3, 1);
    assert_int_equal(r->flags, 1);
    vs_rw(&e, "x", 1, 3);
    assert_int_equal(r->flags, 3);
    vs_rw(&e, "x", 1, 0xfffffffcu);
    assert_int_equal(r->flags, 0);
    vs_rw(&e, "", 0, 1); /* ends the message */
    assert_int_equal(r->flags, 1);
    assert_int_equal(r->datas, 5);
    vs_rw(&e, "", 0, 0); /* is nothing */
    assert_int_equal(r->datas, 5);
    assert_int_equal(tn_virtio_vsock_message_max(&r->dev, r->conn), BUF);
    assert_int_equal(tn_virtio_vsock_send(&r->dev, r->conn, &iov, 1, 3), sizeof(bytes));
    while ((n = vsd_recv(&r->v, &h, back + at)) >= 0) {
        at += (uint32_t)n;
        assert_int_equal(h.flags, at == sizeof(bytes) ? 3 : 0);
    }
    assert_int_equal(at, sizeof(bytes));
    assert_memory_equal(bytes, back, sizeof(bytes));
    rig_free(r);
}

static void a_message_has_a_longest_length(void **state)
{
    struct rig *r = rig_plain();
    struct vs_end e = open_one(r, 1, TN_VIRTIO_VSOCK_SEQPACKET);
    uint8_t bytes[4096] = {0};

    (void)state;
    r->gulp = true; /* credit is there, all the same */
    for (uint32_t i = 0; i < BUF / 4096; i++)
        vs_rw(&e, bytes, 4096, 0);
    assert_int_equal(r->closes, 0);
    vs_rw(&e, bytes, 1, 1);
    assert_int_equal(r->closes, 1);
    rig_free(r);
}

/* ---- the end of all ---- */

static void c04_a_reset_ends_all_connections(void **state)
{
    struct rig *r = rig_plain();
    struct tn_virtio_vsock_conn *old[8];
    uint8_t *copy = malloc(VSD_RAM);
    struct tn_iov iov = {r->got, 100};

    (void)state;
    for (uint32_t i = 0; i < 8; i++) {
        open_one(r, i, 1);
        old[i] = r->conn;
    }
    vd_reset(&r->v.d);
    assert_int_equal(r->closes, 8);
    assert_int_equal(r->why, TN_VIRTIO_VSOCK_WHY_GONE);
    assert_int_equal(r->dev.used, 0);
    memcpy(copy, r->ram, VSD_RAM);
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(tn_virtio_vsock_send(&r->dev, old[i], &iov, 1, 0), 0);
        tn_virtio_vsock_consumed(&r->dev, old[i], 10);
        tn_virtio_vsock_shutdown(&r->dev, old[i], 3);
        tn_virtio_vsock_reset(&r->dev, old[i]);
        assert_int_equal(tn_virtio_vsock_room(&r->dev, old[i]), 0);
    }
    tn_virtio_vsock_flush(&r->dev);
    tn_virtio_vsock_tick(&r->dev);
    assert_memory_equal(copy, r->ram, VSD_RAM); /* nothing of the guest's memory is used */
    free(copy);
    works_again(r);
    rig_free(r);
}

static void another_cid_for_a_copy(void **state)
{
    struct rig *r = rig_plain();
    struct vs_end e = open_one(r, 1, 1);
    struct vqd_buf ev[3] = {{VSD_EVENT, 2, true}, {VSD_EVENT, 4, true}};
    uint32_t len, generation = r->dev.virtio.generation;

    (void)state;
    assert_int_equal(tn_virtio_vsock_set_cid(&r->dev, 2), TN_EINVAL);
    assert_int_equal(tn_virtio_vsock_set_cid(&r->dev, CID), 0);
    assert_int_equal(r->closes, 0);
    assert_int_equal(tn_virtio_vsock_set_cid(&r->dev, 9), 0);
    assert_int_equal(r->closes, 1);
    assert_int_not_equal(generation, r->dev.virtio.generation);
    assert_int_equal(tn_virtio_config_read(&r->dev.virtio, 0, 4), 9);
    nothing(r); /* no RST: the event says it */
    /* The event waits for a buffer that it fits in. */
    assert_true(vd_add(&r->v.d, 2, &ev[0], 1) >= 0);
    vd_kick(&r->v.d, 2);
    assert_true(vd_reap(&r->v.d, 2, &len) >= 0);
    assert_int_equal(len, 0);
    assert_true(vd_add(&r->v.d, 2, &ev[1], 1) >= 0);
    memset(r->ram + VSD_EVENT, 0xff, 4);
    assert_true(vqd_must_kick(&r->v.d.q[2]));
    vd_kick(&r->v.d, 2);
    assert_true(vd_reap(&r->v.d, 2, &len) >= 0);
    assert_int_equal(len, 4);
    assert_int_equal(test_le(r->ram + VSD_EVENT, 4), 0);
    assert_true(vd_add(&r->v.d, 2, &ev[1], 1) >= 0); /* one is enough */
    vd_kick(&r->v.d, 2);
    assert_true(vd_reap(&r->v.d, 2, &len) < 0);
    vs_rw(&e, "old", 3, 0); /* from before: of a stranger */
    nothing(r);
    e.v->cid = 9;
    open_one(r, 2, 1);
    rig_free(r);
}

static void a_state_that_cannot_be_is_refused(void **state)
{
    struct rig *r = rig_plain();
    struct tn_virtio_vsock_state good, bad;

    (void)state;
    open_one(r, 1, 1);
    tn_virtio_vsock_save(&r->dev, &good);
    for (int i = 0; i < 8; i++) {
        int want = TN_EFORMAT;

        bad = good;
        switch (i) {
        case 0:
            bad.version++;
            want = TN_EUNSUP;
            break;
        case 1:
            bad.zero = 1;
            break;
        case 2:
            bad.guest_cid = 2;
            break;
        case 3:
            bad.guest_cid = UINT64_MAX;
            break;
        case 4:
        case 5:
        case 6:
            bad.virtio.queue[i - 4].ring.next_avail++;
            break;
        default:
            bad.virtio.queues = 2;
            want = TN_EUNSUP;
        }
        assert_int_equal(tn_virtio_vsock_restore(&r->dev, &bad), want);
        assert_int_equal(r->closes, 0);
    }
    bad = good;
    bad.virtio.queue[0].ring.desc = bad.virtio.queue[0].desc = 1ull << 40; /* not in RAM */
    assert_int_equal(tn_virtio_vsock_restore(&r->dev, &bad), TN_EADDR);
    assert_int_equal(r->closes, 1);
    assert_int_equal(r->dev.used, 0);
    works_again(r);
    rig_free(r);
}

static void save_and_restore_are_the_same(void **state)
{
    struct rig *r = rig_plain();
    struct tn_virtio_vsock_state one, two;

    (void)state;
    open_one(r, 1, 1);
    memset(&one, 0x11, sizeof(one));
    memset(&two, 0x22, sizeof(two));
    tn_virtio_vsock_save(&r->dev, &one);
    assert_int_equal(tn_virtio_vsock_restore(&r->dev, &one), 0);
    tn_virtio_vsock_save(&r->dev, &two);
    assert_memory_equal(&one, &two, sizeof(one));
    assert_true(r->dev.event);
    vd_reset(&r->v.d);
    assert_false(r->dev.event);
    tn_virtio_vsock_save(&r->dev, &one); /* of a device without a driver */
    assert_int_equal(tn_virtio_vsock_restore(&r->dev, &one), 0);
    assert_false(r->dev.event);
    works_again(r);
    rig_free(r);
}

/* ---- all of it, at random ---- */

#define ENDS 6

static void random_sequences(void **state)
{
    uint64_t seed = 20260712;
    struct rig *r = rig_plain();
    struct {
        struct vs_end e;
        bool open;
        uint8_t sent, want; /* the next byte of each way */
        uint32_t had;       /* bytes that the host has not consumed */
    } m[ENDS] = {0};

    (void)state;
    for (int step = 0; step < 60000; step++) {
        unsigned i = (unsigned)(test_random(&seed) % ENDS), what = test_random(&seed) % 8;
        struct tn_virtio_vsock_conn *c = tn_virtio_vsock_find_(&r->dev, i, 1024, 1);
        uint8_t bytes[VSD_SLOT];
        uint32_t len = (uint32_t)(test_random(&seed) % 4000);
        struct tn_iov iov = {bytes, len};
        size_t n;
        struct vs_hdr h;
        int got;

        if (!m[i].open) {
            memset(&m[i], 0, sizeof(m[i]));
            m[i].e = open_one(r, i, 1);
            m[i].open = true;
            continue;
        }
        assert_non_null(c);
        switch (what) {
        case 0:
        case 1: /* the guest sends, within its credit */
            if (len > vs_credit(&m[i].e))
                len = vs_credit(&m[i].e);
            for (uint32_t k = 0; k < len; k++)
                bytes[k] = m[i].sent++;
            r->got_len = 0;
            assert_true(vs_rw(&m[i].e, bytes, len, 0));
            assert_int_equal(r->got_len, len);
            assert_memory_equal(r->got, bytes, len);
            m[i].had += len;
            assert_true(m[i].had <= BUF);
            break;
        case 2:
        case 3: /* the host is done with some */
            len = len < m[i].had ? len : m[i].had;
            tn_virtio_vsock_consumed(&r->dev, c, len);
            m[i].had -= len;
            break;
        case 4:
        case 5: /* the host sends; the guest has read it all */
            for (uint32_t k = 0; k < len; k++)
                bytes[k] = (uint8_t)(m[i].want + k);
            m[i].e.fwd_cnt = m[i].e.rx_cnt;
            vs_op(&m[i].e, VS_UPDATE, 0);
            n = tn_virtio_vsock_send(&r->dev, c, &iov, 1, 0);
            assert_int_equal(n, len);
            break;
        case 6:
            vs_op(&m[i].e, VS_ASK, 0);
            break;
        default:
            if (len < 200) { /* one of many ends */
                vs_op(&m[i].e, len % 2 ? VS_RST : VS_SHUTDOWN, 3);
                m[i].open = false;
            }
        }
        while ((got = vsd_recv(&r->v, &h, bytes)) >= 0) {
            unsigned to = h.dst_port;

            assert_true(to < ENDS);
            if (h.op == VS_RST) {
                assert_false(m[to].open);
                continue;
            }
            vs_heard(&m[to].e, &h);
            if (h.op == VS_RW)
                for (int k = 0; k < got; k++)
                    assert_int_equal(bytes[k], m[to].want++);
        }
        assert_int_equal(m[i].open ? c->rx_cnt - c->fwd_cnt : 0, m[i].open ? m[i].had : 0);
        check_table(r);
    }
    works_again(r);
    rig_free(r);
}

/* ---- the line ---- */

static void c20_the_connect_line(void **state)
{
    static const struct {
        const char *line;
        int want;
        uint32_t port;
    } row[] = {
        {"CONNECT 0\n", 10, 0},
        {"CONNECT 52\n", 11, 52},
        {"CONNECT 52\nmore", 11, 52},
        {"CONNECT 1024\n\n", 13, 1024},
        {"CONNECT 4294967294\n", 19, 4294967294u},
        {"", 0, 0},
        {"C", 0, 0},
        {"CONNECT", 0, 0},
        {"CONNECT ", 0, 0},
        {"CONNECT 1", 0, 0},
        {"CONNECT 4294967294", 0, 0},
        {"CONNECT 4294967295\n", TN_EFORMAT, 0},
        {"CONNECT 4294967296\n", TN_EFORMAT, 0},
        {"CONNECT 9999999999\n", TN_EFORMAT, 0},
        {"CONNECT 42949672940\n", TN_EFORMAT, 0},
        {"CONNECT 42949672940", TN_EFORMAT, 0},
        {"CONNECT 18446744073709551617\n", TN_EFORMAT, 0},
        {"CONNECT \n", TN_EFORMAT, 0},
        {"CONNECT\n", TN_EFORMAT, 0},
        {"CONNECT 00\n", TN_EFORMAT, 0},
        {"CONNECT 052\n", TN_EFORMAT, 0},
        {"CONNECT  52\n", TN_EFORMAT, 0},
        {"CONNECT 52 \n", TN_EFORMAT, 0},
        {"CONNECT 52\r\n", TN_EFORMAT, 0},
        {"CONNECT -1\n", TN_EFORMAT, 0},
        {"CONNECT +1\n", TN_EFORMAT, 0},
        {"CONNECT 0x10\n", TN_EFORMAT, 0},
        {"connect 52\n", TN_EFORMAT, 0},
        {" CONNECT 52\n", TN_EFORMAT, 0},
        {"CONNECT\t52\n", TN_EFORMAT, 0},
        {"CONNECX", TN_EFORMAT, 0},
        {"\n", TN_EFORMAT, 0},
        {"GET / HTTP/1.1\r\n", TN_EFORMAT, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        size_t len = strlen(row[i].line);
        uint8_t *copy = test_exact(row[i].line, len);
        uint32_t port = 77;

        assert_int_equal(tn_virtio_vsock_connect_line(copy, len, &port), row[i].want);
        assert_int_equal(port, row[i].port);
        free(copy);
    }
    for (size_t at = 0; at < 11; at++) { /* a NUL, or any byte, is not let through */
        uint8_t line[11] = "CONNECT 52";
        uint32_t port;

        line[10] = '\n';
        line[at] = 0;
        assert_int_equal(tn_virtio_vsock_connect_line(line, 11, &port), TN_EFORMAT);
        line[at] = 0xff;
        assert_int_equal(tn_virtio_vsock_connect_line(line, 11, &port), TN_EFORMAT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bad_cfg_is_refused),
        cmocka_unit_test(the_cid_is_in_the_configuration),
        cmocka_unit_test(what_belongs_to_no_connection_is_reset_or_dropped),
        cmocka_unit_test(short_packets_are_dropped),
        cmocka_unit_test(a_length_beyond_the_chain_is_refused),
        cmocka_unit_test(nonsense_on_a_connection_resets_it),
        cmocka_unit_test(data_before_the_answer_resets),
        cmocka_unit_test(sending_after_saying_that_one_will_not_resets),
        cmocka_unit_test(seqpacket_has_to_be_negotiated),
        cmocka_unit_test(a32_buffers_of_the_wrong_direction_break_the_device),
        cmocka_unit_test(a26_the_header_is_copied_once),
        cmocka_unit_test(a_guest_connects_talks_and_closes),
        cmocka_unit_test(packets_come_in_pieces),
        cmocka_unit_test(who_waits_is_served_in_turn),
        cmocka_unit_test(the_host_connects_and_closes),
        cmocka_unit_test(an_answer_that_does_not_come_is_not_awaited_for_ever),
        cmocka_unit_test(refusals_both_ways),
        cmocka_unit_test(a_thousand_connections_opened_and_closed),
        cmocka_unit_test(c18_a_flood_beyond_the_credit_is_reset),
        cmocka_unit_test(the_host_cannot_forward_more_than_it_was_given),
        cmocka_unit_test(c17_the_guests_buffer_is_believed_up_to_a_limit),
        cmocka_unit_test(fwd_cnt_out_of_range_gives_no_credit),
        cmocka_unit_test(counters_wrap),
        cmocka_unit_test(credit_comes_back_in_quarters),
        cmocka_unit_test(credit_is_asked_for_once),
        cmocka_unit_test(c19_the_table_is_a_cap),
        cmocka_unit_test(replies_wait_for_buffers_and_packets_for_replies),
        cmocka_unit_test(resets_of_connections_are_not_lost),
        cmocka_unit_test(c14_a_turn_is_bounded),
        cmocka_unit_test(c21_an_idle_device_asks_for_nothing),
        cmocka_unit_test(c21_the_way_in_opens_again_after_each_pause),
        cmocka_unit_test(messages_keep_their_boundaries),
        cmocka_unit_test(a_message_has_a_longest_length),
        cmocka_unit_test(c04_a_reset_ends_all_connections),
        cmocka_unit_test(another_cid_for_a_copy),
        cmocka_unit_test(a_state_that_cannot_be_is_refused),
        cmocka_unit_test(save_and_restore_are_the_same),
        cmocka_unit_test(random_sequences),
        cmocka_unit_test(c20_the_connect_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
