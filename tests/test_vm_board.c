/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_vm_board.h"

#include "test.h"

#include <fcntl.h>
#include <signal.h>

/* The console between pipes and a UART whose guest is the test. */
struct board {
    struct tn_loop loop;
    struct tn_uart uart;
    struct tn_vm_console con;
    pthread_mutex_t lock;
    int in[2], out[2];
};

static void no_irq(void *ctx, bool level)
{
    (void)ctx;
    (void)level;
}

static void board_open(struct board *b)
{
    const struct tn_uart_cfg cfg = {&b->con, tn_vm_console_tx, no_irq, tn_vm_console_room, false};

    memset(b, 0, sizeof(*b));
    pthread_mutex_init(&b->lock, NULL);
    assert_int_equal(pipe2(b->in, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(pipe2(b->out, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(tn_loop_init(&b->loop), 0);
    assert_int_equal(tn_uart_init(&b->uart, &cfg), 0);
    tn_uart_write(&b->uart, TN_UART_FCR, TN_UART_FCR_ENABLE);
}

static void board_close(struct board *b)
{
    tn_vm_console_close(&b->con);
    tn_vm_console_close(&b->con); /* twice does no harm */
    tn_loop_close(&b->loop);
    for (int i = 0; i < 2; i++) {
        close(b->in[i]);
        close(b->out[i]);
    }
}

static int console(struct board *b, int in, int out)
{
    return tn_vm_console_init(&b->con, &tn_vm_uart_port, &b->uart, &b->lock, &b->loop, in, out);
}

static bool guest_may_write(struct board *b)
{
    return tn_uart_read(&b->uart, TN_UART_LSR) & TN_UART_LSR_THRE;
}

/* The guest writes 0, 1, 2 ... until a small pipe is full, and the UART too. Returns how many. */
static size_t fill_output(struct board *b)
{
    size_t sent = 0;

    assert_true(fcntl(b->out[1], F_SETPIPE_SZ, 4096) > 0);
    assert_int_equal(console(b, -1, b->out[1]), 0);
    while (sent < 100000 && guest_may_write(b))
        tn_uart_write(&b->uart, TN_UART_THR, (uint8_t)sent++);
    assert_in_range(sent, 4096, 4200);
    return sent;
}

static void turns(struct board *b, int n)
{
    while (n-- > 0)
        tn_loop_step(&b->loop, 5);
}

static uint8_t guest_reads(struct board *b)
{
    uint8_t byte;

    pthread_mutex_lock(&b->lock);
    byte = tn_uart_read(&b->uart, TN_UART_RBR);
    pthread_mutex_unlock(&b->lock);
    return byte;
}

static bool guest_may_read(struct board *b)
{
    bool ready;

    pthread_mutex_lock(&b->lock);
    ready = tn_uart_read(&b->uart, TN_UART_LSR) & TN_UART_LSR_DR;
    pthread_mutex_unlock(&b->lock);
    return ready;
}

/* C26: a source that is faster than the guest waits; the guest gets all of it, in order. */
static void c26_input_waits_for_room(void **state)
{
    static struct board b;
    int left;

    (void)state;
    board_open(&b);
    assert_int_equal(console(&b, b.in[0], b.out[1]), 0);
    for (int i = 0; i < 1000; i++) {
        uint8_t byte = (uint8_t)i;

        assert_int_equal(write(b.in[1], &byte, 1), 1);
    }
    turns(&b, 10);
    assert_int_equal(b.uart.state.rx_count, TN_UART_FIFO);
    for (int i = 0; i < 1000; i++) {
        for (int tries = 0; tries < 10 && !guest_may_read(&b); tries++)
            turns(&b, 1);
        assert_int_equal(guest_reads(&b), (uint8_t)i);
    }
    turns(&b, 2);
    assert_false(guest_may_read(&b));
    left = tn_loop_step(&b.loop, 0);
    assert_int_equal(left, 0);
    board_close(&b);
}

static void output_waits_for_the_reader(void **state)
{
    static struct board b;
    static uint8_t drain[1 << 17];
    size_t sent, got = 0;
    ssize_t n;

    (void)state;
    board_open(&b);
    sent = fill_output(&b);
    assert_true(b.con.out_blocked);
    turns(&b, 5); /* nobody reads: nothing moves */
    assert_false(guest_may_write(&b));
    while (got < sent) {
        n = read(b.out[0], drain + got, sizeof(drain) - got);
        got += n > 0 ? (size_t)n : 0;
        turns(&b, 1);
    }
    assert_int_equal(got, sent);
    for (size_t i = 0; i < got; i++)
        assert_int_equal(drain[i], (uint8_t)i);
    assert_true(guest_may_write(&b));
    board_close(&b);
}

static void close_hands_out_what_waits(void **state)
{
    static struct board b;
    static uint8_t drain[1 << 17];
    size_t sent, got = 0;
    ssize_t n;

    (void)state;
    board_open(&b);
    sent = fill_output(&b);
    got = (size_t)read(b.out[0], drain, 4096);
    tn_vm_console_close(&b.con);
    n = read(b.out[0], drain + got, sizeof(drain) - got);
    assert_int_equal(got + (size_t)n, sent);
    board_close(&b);
}

/* C21, rule 11: an ended input, a lost reader, a full receiver, a full output: nothing spins. */
static void c21_nothing_spins(void **state)
{
    static struct board b;

    (void)state;
    for (int how = 0; how < 4; how++) {
        int calls = 0;

        board_open(&b);
        if (how == 3)
            (void)fill_output(&b);
        else
            assert_int_equal(console(&b, b.in[0], b.out[1]), 0);
        if (how == 0) {
            close(b.in[1]);
        } else if (how == 1) {
            signal(SIGPIPE, SIG_IGN);
            close(b.out[0]);
            tn_uart_write(&b.uart, TN_UART_THR, 'x');
            assert_int_equal(b.con.error, EPIPE);
            tn_uart_write(&b.uart, TN_UART_THR, 'y'); /* the guest goes on */
            assert_true(guest_may_write(&b));
        } else if (how == 2) {
            for (int i = 0; i < 100; i++)
                assert_int_equal(write(b.in[1], "x", 1), 1);
        }
        for (int i = 0; i < 20; i++)
            calls += tn_loop_step(&b.loop, 2);
        assert_true(calls < 15);
        calls = 0;
        for (int i = 0; i < 20; i++)
            calls += tn_loop_step(&b.loop, 2);
        assert_int_equal(calls, 0);
        if (how == 0)
            b.in[1] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (how == 1)
            b.out[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        board_close(&b);
    }
}

static void without_descriptors_bytes_are_dropped(void **state)
{
    static struct board b;

    (void)state;
    board_open(&b);
    assert_int_equal(console(&b, -1, -1), 0);
    for (int i = 0; i < 1000; i++) {
        tn_uart_write(&b.uart, TN_UART_THR, 'x');
        assert_true(guest_may_write(&b));
    }
    board_close(&b);
}

static void bad_descriptors_are_refused(void **state)
{
    static struct board b;

    (void)state;
    board_open(&b);
    assert_int_equal(console(&b, 987, -1), TN_ESYS);
    assert_int_equal(console(&b, b.in[0], b.in[0]), TN_EEXIST);
    assert_int_equal(console(&b, b.in[0], b.out[1]), 0);
    board_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(c26_input_waits_for_room),
        cmocka_unit_test(output_waits_for_the_reader),
        cmocka_unit_test(close_hands_out_what_waits),
        cmocka_unit_test(c21_nothing_spins),
        cmocka_unit_test(without_descriptors_bytes_are_dropped),
        cmocka_unit_test(bad_descriptors_are_refused),
    };

    return cmocka_run_group_tests_name("vm_board", tests, NULL, NULL);
}
