/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_uart.h"

#include "test.h"

/* A port whose surroundings are recorded. */
struct rig {
    struct tn_uart u;
    uint8_t out[65536];
    size_t out_len;
    size_t accept; /* bytes that the sink takes before it refuses */
    size_t calls;  /* of tx */
    bool line;
    unsigned edges; /* rising ones */
    unsigned rooms;
    const uint8_t *source; /* what the room callback pushes on from */
    size_t source_len;
    const uint8_t *echo; /* what the sink pushes into the receiver */
};

static size_t rig_tx(void *ctx, const uint8_t *bytes, size_t len)
{
    struct rig *r = ctx;
    size_t n = len < r->accept ? len : r->accept;

    r->calls++;
    memcpy(r->out + r->out_len, bytes, n);
    r->out_len += n;
    r->accept -= n;
    if (r->echo)
        tn_uart_push(&r->u, r->echo, 1);
    return n;
}

static void rig_irq(void *ctx, bool level)
{
    struct rig *r = ctx;

    assert_true(level != r->line); /* only changes are told */
    r->line = level;
    r->edges += level;
}

static void rig_room(void *ctx)
{
    struct rig *r = ctx;
    size_t n;

    r->rooms++;
    if (r->source_len == 0)
        return;
    n = tn_uart_push(&r->u, r->source, r->source_len);
    r->source += n;
    r->source_len -= n;
}

static void rig_init(struct rig *r, bool timer)
{
    struct tn_uart_cfg cfg = {r, rig_tx, rig_irq, rig_room, timer};

    memset(r, 0, sizeof(*r));
    r->accept = sizeof(r->out);
    assert_int_equal(tn_uart_init(&r->u, &cfg), 0);
}

static uint8_t rd(struct rig *r, unsigned reg)
{
    return tn_uart_read(&r->u, reg);
}

static void wr(struct rig *r, unsigned reg, unsigned value)
{
    tn_uart_write(&r->u, reg, (uint8_t)value);
}

static void a_sink_and_a_line_are_needed(void **state)
{
    struct tn_uart_cfg cfg = {NULL, NULL, rig_irq, NULL, false};
    struct tn_uart u;

    (void)state;
    assert_int_equal(tn_uart_init(&u, &cfg), TN_EINVAL);
    cfg.tx = rig_tx;
    cfg.irq = NULL;
    assert_int_equal(tn_uart_init(&u, &cfg), TN_EINVAL);
}

static void the_reset_values_are_those_of_table_3(void **state)
{
    static const uint8_t want[8] = {0, 0, 0x01, 0, 0, 0x60, 0xb0, 0};
    struct rig r;

    (void)state;
    rig_init(&r, false);
    for (int round = 0; round < 2; round++) {
        for (unsigned reg = 0; reg < 8; reg++)
            assert_int_equal(rd(&r, reg), want[reg]);
        wr(&r, TN_UART_LCR, 0x80);
        assert_int_equal(rd(&r, TN_UART_DLL) | rd(&r, TN_UART_DLM) << 8, 1);
        for (unsigned reg = 0; reg < 8; reg++)
            wr(&r, reg, 0xff & ~(reg == TN_UART_MCR ? TN_UART_MCR_LOOP : 0u));
        wr(&r, TN_UART_LCR, 0);
        wr(&r, TN_UART_IER, 0x0f);
        assert_true(r.line);
        tn_uart_push(&r.u, (const uint8_t *)"abc", 3);
        tn_uart_reset(&r.u);
        assert_false(r.line);
    }
}

static void b03_registers_beyond_the_eighth_do_nothing(void **state)
{
    static const unsigned regs[] = {8, 9, 255, 256, 0x80000000u, ~0u};
    struct tn_uart_state before, after;
    struct rig r;

    (void)state;
    rig_init(&r, false);
    tn_uart_save(&r.u, &before);
    for (size_t i = 0; i < COUNT(regs); i++) {
        assert_int_equal(rd(&r, regs[i]), 0xff);
        wr(&r, regs[i], 0xa5);
    }
    tn_uart_save(&r.u, &after);
    assert_memory_equal(&before, &after, sizeof(before));
    assert_int_equal(r.calls, 0);
}

static void registers_keep_the_bits_that_exist(void **state)
{
    static const struct {
        unsigned reg, lcr, mask;
    } row[] = {
        {TN_UART_IER, 0, 0x0f}, {TN_UART_LCR, 0, 0xff},    {TN_UART_MCR, 0, 0x1f},
        {TN_UART_SCR, 0, 0xff}, {TN_UART_DLL, 0x80, 0xff}, {TN_UART_DLM, 0x80, 0xff},
    };
    struct rig r;

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        for (unsigned v = 0; v < 256; v++) {
            rig_init(&r, false);
            wr(&r, TN_UART_LCR, row[i].lcr);
            wr(&r, row[i].reg, v);
            assert_int_equal(rd(&r, row[i].reg), v & row[i].mask);
            assert_int_equal(r.out_len, 0);
        }
    }
    rig_init(&r, false);
    wr(&r, TN_UART_LSR, 0xff); /* read-only */
    wr(&r, TN_UART_MSR, 0xff);
    assert_int_equal(rd(&r, TN_UART_LSR), 0x60);
    assert_int_equal(rd(&r, TN_UART_MSR), 0xb0);
}

static void fcr_needs_its_enable_bit(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r, false);
    assert_int_equal(rd(&r, TN_UART_IIR), 0x01);
    wr(&r, TN_UART_FCR, 0xce); /* everything but the enable bit */
    assert_int_equal(rd(&r, TN_UART_IIR), 0x01);
    assert_int_equal(tn_uart_room(&r.u), 1);
    for (unsigned trigger = 0; trigger < 4; trigger++) {
        wr(&r, TN_UART_FCR, trigger << 6 | 1);
        assert_int_equal(rd(&r, TN_UART_IIR), 0xc1);
        assert_int_equal(tn_uart_room(&r.u), 16);
        assert_int_equal(r.u.state.fcr, trigger << 6 | 1);
    }
    wr(&r, TN_UART_FCR, 0xff); /* DMA mode and reserved bits are not kept */
    assert_int_equal(r.u.state.fcr, 0xc1);
}

static void b14_c26_the_receiver_is_bounded_and_pushes_back(void **state)
{
    uint8_t bytes[100], *exact;
    struct rig r;

    (void)state;
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    rig_init(&r, false);
    assert_int_equal(tn_uart_push(&r.u, bytes, 0), 0);
    assert_int_equal(tn_uart_push(&r.u, bytes, sizeof(bytes)), 1); /* no FIFO yet */
    assert_int_equal(tn_uart_push(&r.u, bytes, 1), 0);
    assert_int_equal(rd(&r, TN_UART_RBR), 0);
    assert_int_equal(r.rooms, 1);
    wr(&r, TN_UART_FCR, 1);
    for (size_t len = 0; len <= sizeof(bytes); len++) {
        size_t want = len < 16 ? len : 16;

        exact = test_exact(bytes, len);
        assert_int_equal(tn_uart_push(&r.u, exact, len), want);
        free(exact);
        assert_int_equal(tn_uart_room(&r.u), 16 - want);
        assert_int_equal(tn_uart_push(&r.u, bytes, 100), 16 - want);
        assert_int_equal(tn_uart_push(&r.u, bytes, 1), 0);
        assert_int_equal(tn_uart_break(&r.u), TN_ENOSPC);
        assert_false(rd(&r, TN_UART_LSR) & TN_UART_LSR_OE);
        for (size_t i = 0; i < want; i++)
            assert_int_equal(rd(&r, TN_UART_RBR), i);
        for (size_t i = want; i < 16; i++)
            assert_int_equal(rd(&r, TN_UART_RBR), i - want);
        assert_false(rd(&r, TN_UART_LSR) & TN_UART_LSR_DR);
        assert_int_equal(rd(&r, TN_UART_RBR), 0); /* nothing there */
    }
}

static void c26_room_feeds_the_receiver_until_the_source_is_dry(void **state)
{
    uint8_t bytes[1000];
    uint64_t seed = 1;
    struct rig r;
    size_t n, got = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)test_random(&seed);
    for (int fifo = 0; fifo < 2; fifo++) {
        rig_init(&r, false);
        wr(&r, TN_UART_FCR, (unsigned)fifo);
        n = tn_uart_push(&r.u, bytes, sizeof(bytes));
        r.source = bytes + n;
        r.source_len = sizeof(bytes) - n;
        for (got = 0; rd(&r, TN_UART_LSR) & TN_UART_LSR_DR; got++)
            assert_int_equal(rd(&r, TN_UART_RBR), bytes[got]);
        assert_int_equal(got, sizeof(bytes));
        assert_int_equal(r.source_len, 0);
        /* 62 fillings of 16 and the last 8; the last byte leaves an idle port, not a call. */
        assert_int_equal(r.rooms, fifo ? 62 : 1000);
    }
}

static void room_is_called_only_after_there_was_none(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r, false);
    wr(&r, TN_UART_FCR, 1);
    r.rooms = 0;
    for (int i = 0; i < 5; i++) {
        tn_uart_push(&r.u, (const uint8_t *)"x", 1);
        rd(&r, TN_UART_RBR);
    }
    assert_int_equal(r.rooms, 0);
    tn_uart_push(&r.u, (const uint8_t *)"0123456789abcdefg", 17);
    wr(&r, TN_UART_FCR, 1 | TN_UART_FCR_CLEAR_RX);
    assert_int_equal(r.rooms, 1);
    assert_int_equal(tn_uart_room(&r.u), 16);
    tn_uart_push(&r.u, (const uint8_t *)"0123456789abcdefg", 17);
    tn_uart_reset(&r.u);
    assert_int_equal(r.rooms, 2);
}

static void no_room_callback_is_fine(void **state)
{
    struct tn_uart_cfg cfg;
    struct rig r;

    (void)state;
    rig_init(&r, false);
    cfg = r.u.cfg;
    cfg.room = NULL;
    assert_int_equal(tn_uart_init(&r.u, &cfg), 0);
    assert_int_equal(tn_uart_push(&r.u, (const uint8_t *)"ab", 2), 1);
    assert_int_equal(rd(&r, TN_UART_RBR), 'a');
    assert_int_equal(r.rooms, 0);
}

static void a_ready_sink_gets_each_byte_at_once(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r, false);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(rd(&r, TN_UART_LSR), 0x60);
        wr(&r, TN_UART_THR, i);
        assert_int_equal(r.out_len, i + 1);
        assert_int_equal(r.out[i], i & 0xff);
    }
    assert_int_equal(r.u.dropped, 0);
}

static void c27_a_guest_that_heeds_thre_loses_no_output(void **state)
{
    uint64_t seed = 7;
    struct rig r;
    unsigned sent = 0;

    (void)state;
    rig_init(&r, false);
    wr(&r, TN_UART_FCR, 1);
    while (sent < 20000) {
        r.accept = test_random(&seed) % 9;
        if (rd(&r, TN_UART_LSR) & TN_UART_LSR_THRE)
            for (unsigned i = 0; i < 16; i++)
                wr(&r, TN_UART_THR, sent++);
        if (test_random(&seed) % 2) {
            int waiting = tn_uart_flush(&r.u);

            assert_int_equal(waiting, sent - r.out_len);
            assert_int_equal(!!(rd(&r, TN_UART_LSR) & TN_UART_LSR_THRE), waiting == 0);
        }
    }
    r.accept = 16;
    assert_int_equal(tn_uart_flush(&r.u), 0);
    assert_int_equal(r.out_len, sent);
    for (unsigned i = 0; i < sent; i++)
        assert_int_equal(r.out[i], i & 0xff);
    assert_int_equal(r.u.dropped, 0);
}

static void c27_what_does_not_fit_is_counted(void **state)
{
    struct rig r;

    (void)state;
    for (int fifo = 0; fifo < 2; fifo++) {
        unsigned cap = fifo ? 16 : 1;

        rig_init(&r, false);
        wr(&r, TN_UART_FCR, (unsigned)fifo);
        r.accept = 0;
        for (unsigned i = 0; i < cap + 5; i++)
            wr(&r, TN_UART_THR, i);
        assert_int_equal(r.u.dropped, 5);
        r.accept = 3; /* a full FIFO asks the sink first */
        wr(&r, TN_UART_THR, 0x55);
        assert_int_equal(r.u.dropped, 5);
        r.accept = 100;
        assert_int_equal(tn_uart_flush(&r.u), 0);
        assert_int_equal(r.out_len, cap + 1);
        assert_int_equal(r.out[cap], 0x55);
        for (unsigned i = 0; i < cap; i++)
            assert_int_equal(r.out[i], i);
    }
}

static void clearing_the_transmitter_asks_the_sink_first(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r, false);
    wr(&r, TN_UART_FCR, 1);
    wr(&r, TN_UART_IER, TN_UART_IER_THRI);
    rd(&r, TN_UART_IIR);
    r.accept = 0;
    for (unsigned i = 0; i < 10; i++)
        wr(&r, TN_UART_THR, i);
    assert_int_equal(rd(&r, TN_UART_IIR), 0xc1);
    r.accept = 4;
    wr(&r, TN_UART_FCR, 1 | TN_UART_FCR_CLEAR_TX);
    assert_int_equal(r.out_len, 4);
    assert_int_equal(rd(&r, TN_UART_LSR), 0x60);
    assert_int_equal(rd(&r, TN_UART_IIR), 0xc2); /* it became empty */
    r.accept = 100;
    assert_int_equal(tn_uart_flush(&r.u), 0);
    assert_int_equal(r.out_len, 4);
}

static size_t liar_tx(void *ctx, const uint8_t *bytes, size_t len)
{
    (void)ctx;
    (void)bytes;
    return len > 1 ? SIZE_MAX : 0;
}

static void a_sink_that_claims_too_much_is_cut(void **state)
{
    struct tn_uart_cfg cfg;
    struct rig r;

    (void)state;
    rig_init(&r, false);
    cfg = r.u.cfg;
    cfg.tx = liar_tx;
    tn_uart_init(&r.u, &cfg);
    wr(&r, TN_UART_FCR, 1);
    wr(&r, TN_UART_THR, 'a');
    wr(&r, TN_UART_THR, 'b');
    assert_int_equal(r.u.state.tx_count, 2);
    assert_int_equal(tn_uart_flush(&r.u), 0);
}

static void b11_a_sink_may_push_an_echo(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r, false);
    wr(&r, TN_UART_FCR, 1);
    r.echo = (const uint8_t *)"E";
    for (int i = 0; i < 20; i++)
        wr(&r, TN_UART_THR, 'x');
    assert_int_equal(r.out_len, 20);
    assert_int_equal(tn_uart_room(&r.u), 0);
    assert_int_equal(rd(&r, TN_UART_RBR), 'E');
}

static size_t nested_tx(void *ctx, const uint8_t *bytes, size_t len)
{
    struct rig *r = ctx;

    r->calls++;
    (void)bytes;
    tn_uart_flush(&r->u);
    tn_uart_write(&r->u, TN_UART_THR, 'n');
    return len;
}

static void b11_a_sink_that_writes_does_not_recurse(void **state)
{
    struct tn_uart_cfg cfg;
    struct rig r;

    (void)state;
    rig_init(&r, false);
    cfg = r.u.cfg;
    cfg.tx = nested_tx;
    tn_uart_init(&r.u, &cfg);
    wr(&r, TN_UART_FCR, 1);
    wr(&r, TN_UART_THR, 'a');
    assert_int_equal(r.calls, 1);
    assert_true(tn_uart_valid_(&r.u.state));
}

/* The four sources together, then taken away one by one (table IV). */
static void interrupts_have_priorities(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r, false);
    wr(&r, TN_UART_MCR, TN_UART_MCR_LOOP); /* the modem lines fall: deltas */
    wr(&r, TN_UART_MCR, TN_UART_MCR_OUT2);
    wr(&r, TN_UART_FCR, 0x41); /* trigger level 4 */
    assert_int_equal(tn_uart_break(&r.u), 0);
    tn_uart_push(&r.u, (const uint8_t *)"abcd", 4);
    assert_int_equal(rd(&r, TN_UART_IIR), 0xc1);
    wr(&r, TN_UART_IER, 0x0f);
    assert_true(r.line);
    assert_int_equal(rd(&r, TN_UART_IIR), 0xc6);
    assert_int_equal(rd(&r, TN_UART_LSR), 0xf1);
    assert_int_equal(rd(&r, TN_UART_LSR), 0x61);
    assert_int_equal(rd(&r, TN_UART_IIR), 0xc4);
    assert_int_equal(rd(&r, TN_UART_RBR), 0);
    assert_int_equal(rd(&r, TN_UART_IIR), 0xc4);
    assert_int_equal(rd(&r, TN_UART_RBR), 'a');
    assert_int_equal(rd(&r, TN_UART_IIR), 0xcc); /* three: below the trigger level */
    assert_int_equal(rd(&r, TN_UART_IIR), 0xcc);
    for (int i = 0; i < 3; i++)
        assert_int_equal(rd(&r, TN_UART_RBR), 'b' + i);
    assert_int_equal(rd(&r, TN_UART_IIR), 0xc2);
    assert_true(r.line);
    assert_int_equal(rd(&r, TN_UART_IIR), 0xc0);
    assert_int_equal(rd(&r, TN_UART_MSR), 0xbb);
    assert_int_equal(rd(&r, TN_UART_IIR), 0xc1);
    assert_int_equal(rd(&r, TN_UART_MSR), 0xb0);
    assert_false(r.line);
    assert_int_equal(r.edges, 1);
}

static void each_enable_bit_gates_its_own_source(void **state)
{
    static const struct {
        unsigned ier, iir;
    } row[] = {{1, 0xc4}, {2, 0xc2}, {4, 0xc6}, {8, 0xc0}, {0, 0xc1}};
    struct rig r;

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        rig_init(&r, false);
        wr(&r, TN_UART_MCR, TN_UART_MCR_LOOP);
        wr(&r, TN_UART_MCR, TN_UART_MCR_OUT2);
        wr(&r, TN_UART_FCR, 1);
        tn_uart_break(&r.u);
        wr(&r, TN_UART_IER, row[i].ier);
        assert_int_equal(r.line, row[i].ier != 0);
        assert_int_equal(rd(&r, TN_UART_IIR), row[i].iir);
        wr(&r, TN_UART_IER, 0);
        assert_false(r.line);
    }
}

static void the_trigger_levels_are_1_4_8_14(void **state)
{
    static const unsigned level[] = {1, 4, 8, 14};
    struct rig r;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        rig_init(&r, true);
        wr(&r, TN_UART_MCR, TN_UART_MCR_OUT2);
        wr(&r, TN_UART_FCR, i << 6 | 1);
        wr(&r, TN_UART_IER, TN_UART_IER_RDI);
        for (unsigned n = 1; n <= 16; n++) {
            tn_uart_push(&r.u, (const uint8_t *)"x", 1);
            assert_int_equal(rd(&r, TN_UART_IIR), n >= level[i] ? 0xc4 : 0xc1);
            assert_int_equal(r.line, n >= level[i]);
        }
    }
}

static void one_key_interrupts_without_a_timer(void **state)
{
    struct rig r;

    (void)state;
    for (unsigned fcr = 0; fcr < 4; fcr++) {
        rig_init(&r, false);
        wr(&r, TN_UART_MCR, TN_UART_MCR_OUT2);
        wr(&r, TN_UART_FCR, fcr << 6 | 1);
        wr(&r, TN_UART_IER, TN_UART_IER_RDI);
        assert_false(r.line);
        for (int i = 0; i < 3; i++) {
            tn_uart_push(&r.u, (const uint8_t *)"k", 1);
            assert_true(r.line);
            assert_int_equal(rd(&r, TN_UART_IIR), fcr == 0 ? 0xc4 : 0xcc);
            assert_true(r.line); /* reading IIR does not clear it */
            assert_int_equal(rd(&r, TN_UART_RBR), 'k');
            assert_false(r.line);
        }
    }
}

static void with_a_timer_the_timeout_waits_for_it(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r, true);
    tn_uart_tick(&r.u);
    tn_uart_push(&r.u, (const uint8_t *)"x", 1);
    tn_uart_tick(&r.u); /* no FIFO: no timeout */
    assert_int_equal(r.u.state.timeout, 0);
    wr(&r, TN_UART_MCR, TN_UART_MCR_OUT2);
    wr(&r, TN_UART_FCR, 0x81);
    wr(&r, TN_UART_IER, TN_UART_IER_RDI);
    tn_uart_tick(&r.u);
    assert_false(r.line);
    tn_uart_push(&r.u, (const uint8_t *)"ab", 2);
    assert_false(r.line);
    tn_uart_tick(&r.u);
    assert_true(r.line);
    assert_int_equal(rd(&r, TN_UART_IIR), 0xcc);
    assert_int_equal(rd(&r, TN_UART_RBR), 'a'); /* clears it (section 8, FIFO interrupt mode) */
    assert_false(r.line);
    tn_uart_tick(&r.u);
    assert_true(r.line);
    wr(&r, TN_UART_FCR, 0x81 | TN_UART_FCR_CLEAR_RX);
    assert_false(r.line);
}

static void a_break_is_seen_when_it_is_the_oldest(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r, false);
    wr(&r, TN_UART_FCR, 1);
    tn_uart_push(&r.u, (const uint8_t *)"a", 1);
    assert_int_equal(tn_uart_break(&r.u), 0);
    tn_uart_push(&r.u, (const uint8_t *)"b", 1);
    assert_int_equal(rd(&r, TN_UART_LSR), 0xe1); /* an error waits, but not at the top */
    assert_int_equal(rd(&r, TN_UART_RBR), 'a');
    assert_int_equal(rd(&r, TN_UART_LSR), 0xf1);
    assert_int_equal(rd(&r, TN_UART_LSR), 0x61);
    assert_int_equal(rd(&r, TN_UART_RBR), 0);
    assert_int_equal(rd(&r, TN_UART_LSR), 0x61);
    assert_int_equal(rd(&r, TN_UART_RBR), 'b');
    wr(&r, TN_UART_FCR, 0);
    assert_int_equal(tn_uart_break(&r.u), 0);
    assert_int_equal(rd(&r, TN_UART_LSR), 0x71); /* bit 7 belongs to the FIFOs */
}

static void out2_gates_the_line(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r, false);
    wr(&r, TN_UART_IER, TN_UART_IER_THRI);
    assert_false(r.line);
    wr(&r, TN_UART_MCR, TN_UART_MCR_OUT2);
    assert_true(r.line);
    wr(&r, TN_UART_MCR, TN_UART_MCR_OUT2 | TN_UART_MCR_LOOP); /* the pin is off in loopback */
    assert_false(r.line);
    assert_int_equal(rd(&r, TN_UART_IIR), 0x02);
}

static void loopback_joins_the_modem_lines(void **state)
{
    static const struct {
        unsigned mcr, msr;
    } row[] = {{0x10, 0x00}, {0x11, 0x20}, {0x12, 0x10}, {0x14, 0x40},
               {0x18, 0x80}, {0x1f, 0xf0}, {0x1a, 0x90}, {0x0f, 0xb0}};
    struct rig r;

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        rig_init(&r, false);
        wr(&r, TN_UART_MCR, row[i].mcr);
        rd(&r, TN_UART_MSR);
        assert_int_equal(rd(&r, TN_UART_MSR), row[i].msr);
    }
    rig_init(&r, false);
    wr(&r, TN_UART_MCR, 0x10);
    assert_int_equal(rd(&r, TN_UART_MSR), 0x0b); /* CTS, DSR, DCD fell */
    wr(&r, TN_UART_MCR, 0x14);
    assert_int_equal(rd(&r, TN_UART_MSR), 0x40); /* RI's rise does not count */
    wr(&r, TN_UART_MCR, 0x10);
    assert_int_equal(rd(&r, TN_UART_MSR), 0x04); /* its fall does */
    wr(&r, TN_UART_MCR, 0x13);
    assert_int_equal(rd(&r, TN_UART_MSR), 0x33);
}

static void loopback_sends_to_the_receiver_only(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r, false);
    wr(&r, TN_UART_FCR, 1);
    wr(&r, TN_UART_IER, TN_UART_IER_THRI);
    wr(&r, TN_UART_MCR, TN_UART_MCR_LOOP);
    rd(&r, TN_UART_IIR);
    assert_int_equal(tn_uart_room(&r.u), 0);
    assert_int_equal(tn_uart_push(&r.u, (const uint8_t *)"z", 1), 0); /* cut off */
    assert_int_equal(tn_uart_break(&r.u), TN_ENOSPC);
    for (unsigned i = 0; i < 16; i++)
        wr(&r, TN_UART_THR, 'a' + i);
    assert_int_equal(rd(&r, TN_UART_IIR), 0xc2);
    assert_int_equal(rd(&r, TN_UART_LSR), 0x61);
    wr(&r, TN_UART_THR, 'q');
    assert_int_equal(rd(&r, TN_UART_LSR), 0x63); /* overrun: the new one is lost */
    assert_int_equal(rd(&r, TN_UART_LSR), 0x61);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(rd(&r, TN_UART_RBR), 'a' + i);
    assert_int_equal(r.out_len, 0);
    assert_int_equal(r.rooms, 0);
    r.source = (const uint8_t *)"z";
    r.source_len = 1;
    wr(&r, TN_UART_MCR, 0);
    assert_int_equal(r.rooms, 1);
    assert_int_equal(rd(&r, TN_UART_RBR), 'z');

    rig_init(&r, false); /* without FIFOs the old byte is lost */
    wr(&r, TN_UART_MCR, TN_UART_MCR_LOOP);
    wr(&r, TN_UART_THR, '1');
    wr(&r, TN_UART_THR, '2');
    assert_int_equal(rd(&r, TN_UART_LSR), 0x63);
    assert_int_equal(rd(&r, TN_UART_RBR), '2');
}

/* The reads and writes by which Linux's 8250 driver finds a 16550A, and not a relative of it. */
static void linux_finds_a_16550a(void **state)
{
    struct rig r;
    uint8_t mcr, a, b;

    (void)state;
    rig_init(&r, false);
    /* Is there a port? */
    wr(&r, TN_UART_IER, 0);
    assert_int_equal(rd(&r, TN_UART_IER) & 0x0f, 0);
    wr(&r, TN_UART_IER, 0x0f);
    assert_int_equal(rd(&r, TN_UART_IER), 0x0f);
    wr(&r, TN_UART_IER, 0);
    /* Loopback. */
    mcr = rd(&r, TN_UART_MCR);
    wr(&r, TN_UART_MCR, TN_UART_MCR_LOOP | 0x0a);
    assert_int_equal(rd(&r, TN_UART_MSR) & 0xf0, 0x90);
    wr(&r, TN_UART_MCR, mcr);
    /* An EFR behind LCR = 0xbf: 16650 and later. */
    wr(&r, TN_UART_LCR, 0xbf);
    wr(&r, 2, 0);
    wr(&r, TN_UART_LCR, 0);
    wr(&r, TN_UART_FCR, 1);
    assert_int_equal(rd(&r, TN_UART_IIR) >> 6, 3);
    wr(&r, TN_UART_LCR, 0x80);
    assert_int_not_equal(rd(&r, 2), 0); /* not an EFR */
    wr(&r, TN_UART_LCR, 0xbf);
    assert_int_not_equal(rd(&r, 2), 0);
    /* A bank behind LCR = 0xe0 where the loopback bit is mirrored: National's SuperIO. */
    wr(&r, TN_UART_LCR, 0);
    a = rd(&r, TN_UART_MCR);
    wr(&r, TN_UART_LCR, 0xe0);
    b = rd(&r, 2);
    assert_false((a ^ b) & TN_UART_MCR_LOOP);
    wr(&r, TN_UART_LCR, 0);
    wr(&r, TN_UART_MCR, a ^ TN_UART_MCR_LOOP);
    wr(&r, TN_UART_LCR, 0xe0);
    assert_false((a ^ rd(&r, 2)) & TN_UART_MCR_LOOP);
    wr(&r, TN_UART_LCR, 0);
    wr(&r, TN_UART_MCR, a);
    /* 64-byte FIFOs, with and without DLAB: 16750. */
    wr(&r, TN_UART_FCR, 0x21);
    assert_int_equal(rd(&r, TN_UART_IIR) >> 5, 6);
    wr(&r, TN_UART_FCR, 0x01);
    wr(&r, TN_UART_LCR, 0x80);
    wr(&r, TN_UART_FCR, 0x21);
    assert_int_equal(rd(&r, TN_UART_IIR) >> 5, 6);
    wr(&r, TN_UART_FCR, 0x01);
    wr(&r, TN_UART_LCR, 0);
    /* IER bit 6: XScale. */
    wr(&r, TN_UART_IER, 0x40);
    assert_false(rd(&r, TN_UART_IER) & 0x40);
    /* Start-up: the transmitter's interrupt comes each time that it is enabled. */
    for (int i = 0; i < 2; i++) {
        wr(&r, TN_UART_IER, TN_UART_IER_THRI);
        assert_int_equal(rd(&r, TN_UART_IIR), 0xc2);
        assert_int_equal(rd(&r, TN_UART_IIR), 0xc1);
        wr(&r, TN_UART_IER, 0);
        assert_int_equal(rd(&r, TN_UART_IIR), 0xc1);
    }
    wr(&r, TN_UART_IER, TN_UART_IER_THRI);
    assert_true(rd(&r, TN_UART_LSR) & TN_UART_LSR_TEMT);
    assert_false(rd(&r, TN_UART_IIR) & TN_UART_IIR_NONE);
}

/* Linux's transmit loop: an edge for each 16 bytes, until there is nothing left to send. */
static void an_interrupt_driven_sender_is_never_stuck(void **state)
{
    struct rig r;
    unsigned left = 1000, sent = 0, interrupts = 0;
    uint64_t seed = 3;

    (void)state;
    rig_init(&r, false);
    wr(&r, TN_UART_FCR, 1);
    wr(&r, TN_UART_MCR, TN_UART_MCR_OUT2);
    wr(&r, TN_UART_IER, TN_UART_IER_THRI);
    while (left > 0) {
        unsigned before = r.edges;

        assert_true(r.line);
        for (interrupts++; !(rd(&r, TN_UART_IIR) & TN_UART_IIR_NONE) && left > 0;) {
            r.accept = test_random(&seed) % 20;
            assert_true(rd(&r, TN_UART_LSR) & TN_UART_LSR_THRE);
            for (unsigned i = 0; i < 16 && left > 0; i++, left--)
                wr(&r, TN_UART_THR, sent++);
        }
        if (left == 0)
            break;
        assert_false(r.line);
        r.accept = 16;
        assert_int_equal(tn_uart_flush(&r.u), 0);
        assert_true(r.line && r.edges > before);
    }
    r.accept = 16;
    tn_uart_flush(&r.u);
    assert_int_equal(r.out_len, 1000);
    assert_int_equal(r.u.dropped, 0);
    assert_true(interrupts > 1);
}

static void save_and_restore_give_the_same_port(void **state)
{
    struct tn_uart_state a, b;
    struct rig r, s;

    (void)state;
    rig_init(&r, false);
    rig_init(&s, false);
    wr(&r, TN_UART_FCR, 0xc1);
    wr(&r, TN_UART_MCR, TN_UART_MCR_OUT2);
    wr(&r, TN_UART_IER, 0x05);
    tn_uart_push(&r.u, (const uint8_t *)"hello", 5);
    r.accept = 0;
    wr(&r, TN_UART_THR, 'w');
    wr(&r, TN_UART_THR, 'x');
    tn_uart_save(&r.u, &a);
    assert_int_equal(tn_uart_restore(&s.u, &a), 0);
    tn_uart_save(&s.u, &b);
    assert_memory_equal(&a, &b, sizeof(a));
    assert_true(s.line);
    assert_int_equal(rd(&s, TN_UART_IIR), 0xcc);
    assert_int_equal(rd(&s, TN_UART_RBR), 'h');
}

static void e06_output_in_flight_survives_a_restore(void **state)
{
    struct tn_uart_state saved;
    struct rig r, s;

    (void)state;
    rig_init(&r, false);
    rig_init(&s, false);
    wr(&r, TN_UART_FCR, 1);
    r.accept = 2;
    for (unsigned i = 0; i < 7; i++)
        wr(&r, TN_UART_THR, '0' + i);
    tn_uart_save(&r.u, &saved);
    assert_int_equal(tn_uart_restore(&s.u, &saved), 0);
    assert_int_equal(tn_uart_flush(&s.u), 0);
    assert_int_equal(s.out_len, 5);
    assert_memory_equal(s.out, "23456", 5);
}

static void e01_e03_a_crafted_state_is_refused(void **state)
{
    static const struct {
        size_t at;
        uint8_t value;
    } row[] = {
        {offsetof(struct tn_uart_state, ier), 0x10},
        {offsetof(struct tn_uart_state, ier), 0xff},
        {offsetof(struct tn_uart_state, fcr), 0x02},
        {offsetof(struct tn_uart_state, fcr), 0x40},
        {offsetof(struct tn_uart_state, fcr), 0x21},
        {offsetof(struct tn_uart_state, fcr), 0x00}, /* with more than one byte waiting */
        {offsetof(struct tn_uart_state, mcr), 0x20},
        {offsetof(struct tn_uart_state, overrun), 2},
        {offsetof(struct tn_uart_state, delta), 0x10},
        {offsetof(struct tn_uart_state, thre), 1}, /* while the FIFO holds bytes */
        {offsetof(struct tn_uart_state, thre), 2},
        {offsetof(struct tn_uart_state, timeout), 2},
        {offsetof(struct tn_uart_state, rx_count), 17},
        {offsetof(struct tn_uart_state, rx_count), 0xff},
        {offsetof(struct tn_uart_state, rx_count), 1}, /* fewer than there are */
        {offsetof(struct tn_uart_state, tx_count), 17},
        {offsetof(struct tn_uart_state, tx_count), 0x80},
        {offsetof(struct tn_uart_state, tx_count), 0},
        {offsetof(struct tn_uart_state, zero), 1},
        {offsetof(struct tn_uart_state, zero) + 2, 1},
        {offsetof(struct tn_uart_state, tx) + 15, 1},
        {offsetof(struct tn_uart_state, rx) + 1, 2},
        {offsetof(struct tn_uart_state, rx) + 31, 1},
        {offsetof(struct tn_uart_state, rx) + 1, 1}, /* 0x141: a break with a byte in it */
    };
    struct tn_uart_state good, bad, after;
    struct rig r;

    (void)state;
    assert_int_equal(sizeof(good), 68); /* no padding: what is saved is all there is */
    rig_init(&r, false);
    wr(&r, TN_UART_FCR, 1);
    wr(&r, TN_UART_IER, TN_UART_IER_THRI);
    tn_uart_push(&r.u, (const uint8_t *)"AB", 2);
    r.accept = 0;
    wr(&r, TN_UART_THR, 'C');
    wr(&r, TN_UART_THR, 'D');
    tn_uart_save(&r.u, &good);
    assert_int_equal(tn_uart_restore(&r.u, &good), 0);
    for (size_t i = 0; i < COUNT(row); i++) {
        bad = good;
        ((uint8_t *)&bad)[row[i].at] = row[i].value;
        assert_int_equal(tn_uart_restore(&r.u, &bad), TN_EFORMAT);
        tn_uart_save(&r.u, &after);
        assert_memory_equal(&good, &after, sizeof(good));
    }
    for (uint32_t version = 0; version < 4; version++) {
        bad = good;
        bad.version = version == 1 ? UINT32_MAX : version;
        assert_int_equal(tn_uart_restore(&r.u, &bad), TN_EUNSUP);
    }
    bad = good; /* THRE pending though not enabled */
    bad.ier = 0;
    bad.thre = 1;
    bad.tx_count = 0;
    memset(bad.tx, 0, sizeof(bad.tx));
    assert_int_equal(tn_uart_restore(&r.u, &bad), TN_EFORMAT);
    bad = good; /* a timeout with nothing to wait for */
    bad.timeout = 1;
    assert_int_equal(tn_uart_restore(&r.u, &bad), 0);
    bad.rx_count = 0;
    memset(bad.rx, 0, sizeof(bad.rx));
    assert_int_equal(tn_uart_restore(&r.u, &bad), TN_EFORMAT);
}

/* Every single-byte change of a state is either refused or a state that behaves. */
static void e07_every_flipped_bit_is_harmless(void **state)
{
    struct tn_uart_state good, bad;
    struct rig r;
    unsigned taken = 0;

    (void)state;
    rig_init(&r, false);
    wr(&r, TN_UART_FCR, 1);
    tn_uart_push(&r.u, (const uint8_t *)"AB", 2);
    tn_uart_save(&r.u, &good);
    for (size_t bit = 0; bit < 8 * sizeof(good); bit++) {
        bad = good;
        ((uint8_t *)&bad)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        rig_init(&r, false);
        if (tn_uart_restore(&r.u, &bad) < 0)
            continue;
        taken++;
        for (unsigned reg = 0; reg < 8; reg++) {
            rd(&r, reg);
            wr(&r, reg, 0x5a);
            assert_true(tn_uart_valid_(&r.u.state));
        }
    }
    assert_true(taken > 16 && taken < 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sink_and_a_line_are_needed),
        cmocka_unit_test(the_reset_values_are_those_of_table_3),
        cmocka_unit_test(b03_registers_beyond_the_eighth_do_nothing),
        cmocka_unit_test(registers_keep_the_bits_that_exist),
        cmocka_unit_test(fcr_needs_its_enable_bit),
        cmocka_unit_test(b14_c26_the_receiver_is_bounded_and_pushes_back),
        cmocka_unit_test(c26_room_feeds_the_receiver_until_the_source_is_dry),
        cmocka_unit_test(room_is_called_only_after_there_was_none),
        cmocka_unit_test(no_room_callback_is_fine),
        cmocka_unit_test(a_ready_sink_gets_each_byte_at_once),
        cmocka_unit_test(c27_a_guest_that_heeds_thre_loses_no_output),
        cmocka_unit_test(c27_what_does_not_fit_is_counted),
        cmocka_unit_test(clearing_the_transmitter_asks_the_sink_first),
        cmocka_unit_test(a_sink_that_claims_too_much_is_cut),
        cmocka_unit_test(b11_a_sink_may_push_an_echo),
        cmocka_unit_test(b11_a_sink_that_writes_does_not_recurse),
        cmocka_unit_test(interrupts_have_priorities),
        cmocka_unit_test(each_enable_bit_gates_its_own_source),
        cmocka_unit_test(the_trigger_levels_are_1_4_8_14),
        cmocka_unit_test(one_key_interrupts_without_a_timer),
        cmocka_unit_test(with_a_timer_the_timeout_waits_for_it),
        cmocka_unit_test(a_break_is_seen_when_it_is_the_oldest),
        cmocka_unit_test(out2_gates_the_line),
        cmocka_unit_test(loopback_joins_the_modem_lines),
        cmocka_unit_test(loopback_sends_to_the_receiver_only),
        cmocka_unit_test(linux_finds_a_16550a),
        cmocka_unit_test(an_interrupt_driven_sender_is_never_stuck),
        cmocka_unit_test(save_and_restore_give_the_same_port),
        cmocka_unit_test(e06_output_in_flight_survives_a_restore),
        cmocka_unit_test(e01_e03_a_crafted_state_is_refused),
        cmocka_unit_test(e07_every_flipped_bit_is_harmless),
    };

    return cmocka_run_group_tests_name("uart", tests, NULL, NULL);
}
