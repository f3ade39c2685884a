/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A balloon and a driver that is honest until a hostile hand writes into its memory. Properties:
 * what reaches the callbacks is whole pages in one region of RAM, and no more of them than a turn
 * has; of an honest driver's pages exactly those that it named, before their chain comes back; each
 * chain comes back once, in order; a driver that notifies only when it has to waits for nothing; an
 * idle balloon asks for no turn; hints come only while a run is open; statistics are those given;
 * no chain is held between calls; save, restore, save are the same, and the restored device goes
 * on; a restored wreck does not crash; after a reset an honest driver is served again.
 */
#include "tn_virtio_balloon.h"

#include "virtio_guest.h"

#define LIST     0x4000u /* page numbers, the same from each start on, up to LIST_END */
#define LIST_END 0x7000u
#define STATS    0x7000u /* what the statsq's buffers hold */
#define IDS      0x7f00u /* the ids of the hint queue, one for each of its chains */
#define WAIT     12u     /* chains of a queue at most */
#define QUEUES   5u
#define PAGE     4096u

/* Pages 0 to 7 are the driver's own; it gives away those from 8 on. */
static const struct ram_region region[REGIONS] = {
    {0, 0x8000}, {0x8000, 0x8000}, {0x100000, 0x1000}};

/* A page of RAM as a bit: 0 to 15, and page 256 as 16. */
typedef uint32_t pages;

struct sent {
    int id;
    pages named;
    uint32_t given; /* statistics */
};

struct rig {
    struct tn_virtio_balloon b;
    struct guest guest;
    uint64_t offered;
    bool again, fail, counts;
    uint64_t calls, moved;  /* since the last check, */
    uint64_t queues;        /* and how many queues can have had a turn in it */
    unsigned index[QUEUES]; /* the driver's number of each queue, or QUEUES: none */
    struct sent sent[QUEUES][WAIT];
    unsigned waiting[QUEUES], slot[QUEUES];
    pages seen[QUEUES]; /* since the queue was empty last */
    bool asked;         /* the statsq's buffer is to come back */
};

static pages bit(uint64_t gpa)
{
    return gpa < 0x10000 ? 1u << gpa / PAGE : gpa == 0x100000 ? 1u << 16 : 0;
}

/* What the driver has named on a queue, and not got back. */
static pages named(const struct rig *r, unsigned role)
{
    pages all = 0;

    for (unsigned i = 0; i < r->waiting[role]; i++)
        all |= r->sent[role][i].named;
    return all;
}

static void range(struct rig *r, unsigned roles, uint64_t gpa, uint64_t len)
{
    uint8_t *host = ram_at(&r->guest.ram, gpa, len);
    pages may = 0;

    FZ_ASSERT(len > 0 && gpa % PAGE == 0 && len % PAGE == 0 && host);
    FZ_ASSERT(tn_virtio_live(&r->b.virtio));
    r->calls++;
    r->moved += len / PAGE;
    for (unsigned role = 0; role < QUEUES; role++)
        may |= roles >> role & 1 ? named(r, role) : 0;
    for (uint64_t at = gpa; at < gpa + len; at += PAGE) {
        if (r->guest.honest)
            FZ_ASSERT(bit(at) & may);
        for (unsigned role = 0; role < QUEUES; role++)
            r->seen[role] |= roles >> role & 1 ? bit(at) : 0;
    }
    if (roles & (1u << TN_VIRTIO_BALLOON_INFLATE | 1u << TN_VIRTIO_BALLOON_REPORTING))
        memset(host, 0, len); /* rings and lists of a hostile driver, too */
}

static int on_discard(void *ctx, uint64_t gpa, uint64_t len, bool zero)
{
    struct rig *r = ctx;
    bool poison = tn_virtio_has(&r->b.virtio, TN_VIRTIO_BALLOON_F_PAGE_POISON);

    FZ_ASSERT(!zero || (poison && tn_virtio_config_read(&r->b.virtio, 12, 4) == 0));
    range(r, zero ? 16 : poison ? 1 : 17, gpa, len);
    return r->fail ? TN_ESYS : 0;
}

static int on_undiscard(void *ctx, uint64_t gpa, uint64_t len)
{
    range(ctx, 2, gpa, len);
    return 0;
}

static void on_hint(void *ctx, uint64_t gpa, uint64_t len)
{
    struct rig *r = ctx;

    FZ_ASSERT(r->b.run == TN_VIRTIO_BALLOON_RUN_OPEN);
    FZ_ASSERT(tn_virtio_config_read(&r->b.virtio, 8, 4) > 1);
    range(r, 8, gpa, len);
}

static void on_event(void *ctx, uint32_t what)
{
    struct rig *r = ctx;

    FZ_ASSERT(what == TN_VIRTIO_BALLOON_E_ACTUAL || what == TN_VIRTIO_BALLOON_E_STATS ||
              what == TN_VIRTIO_BALLOON_E_HINT);
    if (what == TN_VIRTIO_BALLOON_E_STATS && r->guest.honest) {
        unsigned first = r->asked ? 1 : 0; /* the one before it is on its way back */

        FZ_ASSERT(r->waiting[2] > first);
        FZ_ASSERT(r->b.stats.given == r->sent[2][first].given);
        for (unsigned i = 0; i < TN_VIRTIO_BALLOON_STATS; i++)
            FZ_ASSERT(r->b.stats.value[i] == (r->b.stats.given >> i & 1 ? 1000 + i : 0));
    }
}

static void on_again(void *ctx)
{
    ((struct rig *)ctx)->again = true;
}

static void check(struct rig *r)
{
    bool live = tn_virtio_live(&r->b.virtio);

    FZ_ASSERT(r->calls <= r->queues * (TN_VIRTIO_BALLOON_TURN / (TN_VIRTIO_BALLOON_CALL + 1)));
    FZ_ASSERT(r->moved + r->calls * TN_VIRTIO_BALLOON_CALL <= r->queues * TN_VIRTIO_BALLOON_TURN);
    r->calls = r->moved = 0;
    r->queues = 1;
    FZ_ASSERT(live || (!r->b.waiting && !r->b.held) || r->b.virtio.status & 128);
    FZ_ASSERT(tn_virtio_balloon_actual(&r->b) <= 17);
    for (unsigned i = 0; i < QUEUES; i++) {
        FZ_ASSERT(!live || r->b.off[i] == 0 || r->b.waiting);
        FZ_ASSERT(!live || tn_virtq_in_flight(&r->b.queue[i].q) == 0);
    }
    if (r->guest.honest)
        FZ_ASSERT(live);
}

static void turn(struct rig *r)
{
    r->again = false;
    r->queues = 4;
    FZ_ASSERT(tn_virtio_balloon_turn(&r->b) == r->again);
    check(r);
}

/* Reset and bring-up by an honest driver, which numbers its queues as it likes. */
static void start(struct rig *r, uint64_t ring, uint64_t features, uint16_t size, uint32_t poison)
{
    static const uint64_t has[QUEUES] = {0, 0, 2, 8, 32};
    uint8_t *host = r->guest.ram.host[0];
    unsigned next = 0, ready = 0;

    if (!(ring & TN_VIRTIO_F_RING_PACKED)) /* the size is a power of two then */
        while (size & (size - 1))
            size &= (uint16_t)(size - 1);
    features = (features & TN_VIRTIO_BALLOON_F_ALL) | TN_VIRTIO_BALLOON_F_MUST_TELL_HOST;
    for (uint32_t i = 0; i < (LIST_END - LIST) / 4; i++) {
        uint32_t pfn = 8 + (i % 64 < 40 ? i % 16 : (64 - i % 64) % 8);

        if (i % 64 == 63)
            pfn = i % 128 == 63 ? 256 : 0xfffff000u + i;
        if (i / 1024 == 1)
            pfn = 8 + i % 4 * 2; /* no two touch */
        tn_put_(host + LIST + 4 * i, 4, pfn);
    }
    FZ_ASSERT(vd_negotiate(&r->guest.d, (ring & TN_VIRTIO_F_RING) | features));
    FZ_ASSERT(vd_queues(&r->guest.d, QUEUES, size));
    for (unsigned i = 0; i < QUEUES; i++) {
        bool there = has[i] == 0 || (features & has[i]);

        r->index[i] = !there ? QUEUES : r->counts ? next++ : i;
        ready |= there ? 1u << r->index[i] : 0;
        r->waiting[i] = 0;
        r->seen[i] = 0;
    }
    for (unsigned i = 0; i < QUEUES; i++)
        r->b.queue[i].ready = ready >> i & 1;
    tn_virtio_config_write(&r->b.virtio, 12, 4, poison);
    vd_set_status(&r->guest.d, 15);
    FZ_ASSERT(vd_status(&r->guest.d) == 15 && r->again);
    r->guest.honest = true;
    r->asked = false;
}

static void kick(struct rig *r, unsigned role, bool anyway)
{
    if (r->index[role] < QUEUES)
        guest_kick(&r->guest, r->index[role], anyway);
    check(r);
}

/* A chain for the inflateq or the deflateq: n numbers from the list, in up to three buffers. */
static uint32_t pick_numbers(struct rig *r, struct fz *z, struct vqd_buf *buf, uint32_t most,
                             struct sent *s)
{
    uint32_t first = fz_u16(z) % ((LIST_END - LIST) / 4), n = fz_u8(z);
    uint32_t at = LIST + 4 * first, len, bufs = 0;

    n = n < 192 ? n : (n - 191) * 50;
    if (n > (LIST_END - at) / 4)
        n = (LIST_END - at) / 4;
    for (uint32_t i = 0; i < n; i++)
        s->named |= bit(tn_get_(r->guest.ram.host[0] + at + 4 * i, 4) * PAGE);
    for (len = 4 * n; bufs < most; bufs++) {
        uint32_t part = bufs == most - 1 ? len : fz_u8(z) * (len / 256 + 1);

        part = part < len ? part : len;
        buf[bufs].addr = at;
        buf[bufs].len = part;
        buf[bufs].write = false;
        at += part;
        len -= part;
    }
    return bufs;
}

/* Ranges for the hint queue and the reporting queue: from page 8 on, not aligned. */
static uint32_t pick_ranges(struct fz *z, struct vqd_buf *buf, struct sent *s, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t from = fz_u16(z) % 0x8000;
        uint64_t to = from + fz_u16(z) % (0x8001 - from);

        if (fz_u8(z) % 4 == 0) {
            from = from / PAGE * PAGE;
            to = to / PAGE * PAGE;
        }
        buf[i].addr = 0x8000 + from;
        buf[i].len = (uint32_t)(to - from);
        buf[i].write = true;
        for (from = (from + PAGE - 1) / PAGE * PAGE; from + PAGE <= to; from += PAGE)
            s->named |= bit(0x8000 + from);
    }
    return n;
}

static uint32_t pick_stats(struct rig *r, struct fz *z, struct vqd_buf *buf, struct sent *s)
{
    uint8_t *p = r->guest.ram.host[0] + STATS + 0x100 * (r->slot[2] % WAIT);
    uint32_t n = fz_u8(z) % 24;

    for (uint32_t i = 0; i < n; i++) {
        unsigned tag = fz_u8(z) % 20;

        tn_put_(p + 10 * i, 2, tag);
        tn_put_(p + 10 * i + 2, 8, 1000 + tag);
        s->given |= tag < TN_VIRTIO_BALLOON_STATS ? 1u << tag : 0;
    }
    buf[0].addr = STATS + 0x100 * (r->slot[2] % WAIT);
    buf[0].len = 10 * n + n % 3;
    buf[0].write = false;
    return 1;
}

static void add(struct rig *r, struct fz *z, unsigned role)
{
    struct vqd *d = &r->guest.d.q[r->index[role] % QUEUES];
    uint32_t current = tn_virtio_config_read(&r->b.virtio, 8, 4), n;
    uint32_t most = d->size < BUFS ? d->size : BUFS; /* a table has no more either */
    struct sent s = {0, 0, 0};
    struct vqd_buf buf[BUFS];
    uint8_t kind = fz_u8(z);
    uint64_t table = TABLES + 48u * (role * WAIT + r->slot[role] % WAIT);

    if (r->index[role] == QUEUES || r->waiting[role] == WAIT)
        return;
    if (role == 2) {
        if (r->guest.honest && r->waiting[2] > (r->asked ? 1 : 0))
            return; /* one at a time (5.5.6.3) */
        n = pick_stats(r, z, buf, &s);
    } else if (role < 2) {
        n = pick_numbers(r, z, buf, most, &s);
    } else if (role == 3 && kind & 0x10) {
        uint32_t at = IDS + 4 * (r->slot[3] % WAIT);

        tn_put_(r->guest.ram.host[0] + at, 4, kind & 8 ? current : fz_u8(z) % 3);
        buf[0].addr = at;
        buf[0].len = 4;
        buf[0].write = false;
        n = kind & 4 ? 1 + pick_ranges(z, buf + 1, &s, most - 1) : 1;
    } else {
        n = pick_ranges(z, buf, &s, 1 + kind % most);
    }
    if (!(kind & 0x80) || !(r->guest.d.features & TN_VIRTIO_F_INDIRECT_DESC))
        table = 0;
    s.id = vqd_add_table(d, buf, n, table, table ? n : 0);
    if (s.id < 0)
        return;
    if (r->waiting[role] == 0)
        r->seen[role] = 0;
    r->slot[role]++;
    r->sent[role][r->waiting[role]++] = s;
    if (!(kind & 0x40))
        kick(r, role, kind & 0x20);
}

/* Takes back what the device has returned: all of it in order, once. */
static void reap(struct rig *r, unsigned role)
{
    uint32_t len;
    int id;

    if (!r->guest.honest || r->index[role] == QUEUES)
        return;
    while ((id = vd_reap(&r->guest.d, r->index[role], &len)) != -1) {
        const struct sent *s = &r->sent[role][0];

        FZ_ASSERT(r->waiting[role] > 0 && id == s->id && len == 0);
        if (role < 2 || (role == 4 && tn_virtio_balloon_reports_(&r->b)))
            FZ_ASSERT((s->named & ~r->seen[role]) == 0);
        if (role == 2) {
            FZ_ASSERT(r->asked);
            r->asked = false;
        }
        r->waiting[role]--;
        memmove(r->sent[role], r->sent[role] + 1, r->waiting[role] * sizeof(*s));
    }
}

static void ask(struct rig *r)
{
    int err;

    reap(r, 2);
    if (r->guest.honest && r->b.held)
        r->asked = true;
    err = tn_virtio_balloon_stats_ask(&r->b);
    FZ_ASSERT(err == 0 || err == TN_ESTATE || err == TN_EAGAIN);
    if (r->guest.honest)
        FZ_ASSERT(r->asked == (err == 0) && (err != TN_ESTATE || r->index[2] == QUEUES));
    reap(r, 2);
    FZ_ASSERT(!r->guest.honest || !r->asked);
    check(r);
}

static void hint(struct rig *r, unsigned what)
{
    bool can = tn_virtio_live(&r->b.virtio) && r->b.index[3] < QUEUES;
    int err = 0;

    if (what % 4 < 2)
        err = tn_virtio_balloon_hint_start(&r->b);
    else if (what % 4 == 2)
        tn_virtio_balloon_hint_stop(&r->b);
    else
        tn_virtio_balloon_hint_done(&r->b);
    FZ_ASSERT(err == (can || what % 4 >= 2 ? 0 : TN_ESTATE));
}

static void device(struct rig *r)
{
    struct tn_virtio_balloon_cfg cfg = {&r->guest.ram.mem,
                                        16,
                                        TN_VIRTIO_F_RING,
                                        TN_VIRTIO_BALLOON_F_ALL,
                                        3,
                                        r,
                                        on_discard,
                                        on_undiscard,
                                        on_hint,
                                        on_event,
                                        on_again};

    memset(&r->b, 0xee, sizeof(r->b));
    FZ_ASSERT(tn_virtio_balloon_init(&r->b, &cfg) == 0);
}

static void save_restore(struct rig *r, struct fz *z, bool wreck)
{
    struct tn_virtio_balloon_state one, two;
    int err;

    memset(&one, 0x5a, sizeof(one));
    memset(&two, 0xa5, sizeof(two));
    tn_virtio_balloon_save(&r->b, &one);
    if (wreck)
        guest_wreck(&r->guest, z, &one, 48 + 32 + QUEUES * sizeof(one.virtio.queue[0]));
    else
        device(r);
    err = tn_virtio_balloon_restore(&r->b, &one);
    if (err < 0) {
        FZ_ASSERT(wreck || !r->guest.honest);
        return;
    }
    tn_virtio_balloon_save(&r->b, &two);
    FZ_ASSERT(memcmp(&one, &two, sizeof(one)) == 0);
    turn(r);
}

/* An honest driver gets everything that is its due, without a superfluous call of anybody's. */
static void finish(struct rig *r)
{
    struct fz z;
    unsigned turns = 0;

    r->fail = false;
    if (!r->guest.honest)
        start(r, r->guest.d.features, r->guest.d.features, 8, 0);
    fz_init(&z, NULL, 0);
    for (unsigned role = 0; role < QUEUES; role++)
        kick(r, role, false);
    if (r->b.waiting)
        r->again = true;
    while (r->again) {
        turn(r);
        FZ_ASSERT(++turns < 2000);
    }
    for (unsigned role = 0; role < QUEUES; role++) {
        reap(r, role);
        FZ_ASSERT(r->waiting[role] == (role == 2 && r->b.held));
    }
    if (r->b.held)
        ask(r);
    for (unsigned role = 0; role < QUEUES; role++) {
        add(r, &z, role);
        kick(r, role, false);
    }
    FZ_ASSERT(r->b.held == (r->index[2] < QUEUES));
    turn(r);
    FZ_ASSERT(!r->again);
    for (unsigned role = 0; role < QUEUES; role++) {
        reap(r, role);
        FZ_ASSERT(r->waiting[role] == (role == 2 && r->b.held));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rig r;
    struct fz z;
    uint64_t ring;
    uint8_t flags;

    memset(&r, 0, sizeof(r));
    fz_init(&z, data, size);
    guest_init(&r.guest, region, &r.b.virtio);
    device(&r);
    flags = fz_u8(&z);
    r.queues = 1;
    r.counts = flags & 1;
    r.fail = flags & 2;
    ring = (uint64_t)fz_u8(&z) << 28;
    start(&r, ring, fz_u8(&z), (uint16_t)(1 + flags / 4 % 16), flags & 0x40 ? 0xaa : 0);
    for (unsigned op = 0; op < 600 && z.left > 0; op++) {
        uint8_t what = fz_u8(&z);
        uint32_t off, value;

        switch (what % 16) {
        case 0:
        case 1:
            add(&r, &z, 0);
            break;
        case 2:
            add(&r, &z, 1);
            break;
        case 3:
            add(&r, &z, 2);
            break;
        case 4:
            add(&r, &z, 3);
            break;
        case 5:
            add(&r, &z, 4);
            break;
        case 6:
            reap(&r, what / 16 % QUEUES);
            break;
        case 7:
            kick(&r, what / 16 % QUEUES, true);
            break;
        case 8:
            turn(&r);
            break;
        case 9:
            ask(&r);
            break;
        case 10:
            hint(&r, what / 16);
            break;
        case 11:
            if (tn_virtio_balloon_resize(&r.b, fz_u8(&z)) == 0)
                FZ_ASSERT(tn_virtio_config_read(&r.b.virtio, 0, 4) <= 17);
            break;
        case 12:
            off = fz_u8(&z);
            value = fz_u32(&z);
            tn_virtio_config_write(&r.b.virtio, off, 1u << what / 16 % 4, value);
            break;
        case 13:
            save_restore(&r, &z, what & 0x10);
            break;
        case 14:
            r.counts = what & 0x10;
            ring = (uint64_t)fz_u8(&z) << 28;
            value = fz_u8(&z);
            start(&r, ring, value, (uint16_t)(1 + fz_u8(&z) % 16), what & 0x20 ? 0xaa : 0);
            break;
        default:
            guest_hostile(&r.guest, &z);
        }
        check(&r);
    }
    finish(&r);
    guest_free(&r.guest);
    return 0;
}
