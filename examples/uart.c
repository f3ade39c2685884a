/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A serial port with no machine around it: standard input is what comes down the line, standard
 * output what the port sends. In the guest's place stands a driver that answers interrupts and
 * sends each byte back in upper case. Ends at the end of the input.
 *
 *   echo hello | uart
 */
#include "tn_uart.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct port {
    struct tn_uart uart;
    bool interrupt;
    int error; /* why standard output takes nothing any more, or 0 */
};

/* The port's surroundings. */

static size_t on_tx(void *ctx, const uint8_t *bytes, size_t len)
{
    struct port *p = ctx;
    ssize_t n;

    do
        n = write(STDOUT_FILENO, bytes, len);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN)
        p->error = errno;
    return n < 0 ? 0 : (size_t)n;
}

static void on_irq(void *ctx, bool level)
{
    ((struct port *)ctx)->interrupt = level;
}

/* The driver: it knows of nothing but registers. */

static void driver_start(struct tn_uart *u)
{
    tn_uart_write(u, TN_UART_FCR, TN_UART_FCR_ENABLE);
    tn_uart_write(u, TN_UART_MCR, TN_UART_MCR_DTR | TN_UART_MCR_RTS | TN_UART_MCR_OUT2);
    tn_uart_write(u, TN_UART_IER, TN_UART_IER_RDI);
}

static void driver_interrupt(struct tn_uart *u)
{
    uint8_t lsr = tn_uart_read(u, TN_UART_LSR);

    if (!(lsr & TN_UART_LSR_THRE))
        return; /* the byte stays in the receiver until the last one has left */
    if (lsr & TN_UART_LSR_DR)
        tn_uart_write(u, TN_UART_THR, (uint8_t)toupper(tn_uart_read(u, TN_UART_RBR)));
}

static int run(struct port *p)
{
    uint8_t bytes[4096];
    ssize_t n;

    driver_start(&p->uart);
    while ((n = read(STDIN_FILENO, bytes, sizeof(bytes))) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            fprintf(stderr, "uart: standard input: %s\n", strerror(errno));
            return 1;
        }
        for (size_t at = 0; at < (size_t)n || p->interrupt;) {
            at += tn_uart_push(&p->uart, bytes + at, (size_t)n - at);
            if (p->interrupt)
                driver_interrupt(&p->uart);
            while (tn_uart_flush(&p->uart) > 0) {
                struct pollfd out = {STDOUT_FILENO, POLLOUT, 0};

                if (p->error) {
                    fprintf(stderr, "uart: standard output: %s\n", strerror(p->error));
                    return 1;
                }
                poll(&out, 1, -1);
            }
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    static struct port port;
    const struct tn_uart_cfg cfg = {&port, on_tx, on_irq, NULL, false};

    if (argc > 1) {
        bool help = strcmp(argv[1], "--help") == 0;

        fprintf(help ? stdout : stderr, "usage: uart <input >output\n"
                                        "Sends standard input back in upper case, through a model "
                                        "of a 16550A serial port.\n");
        return help ? 0 : 2;
    }
    if (tn_uart_init(&port.uart, &cfg) < 0)
        return 1;
    return run(&port);
}
