/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A loop with a timer and standard input: counts seconds and echoes lines until end of file,
 * ^C, or ten seconds without a line.
 *
 *   (sleep 2; echo hello; sleep 1) | loop
 */
#include "tn_loop.h"

#include <signal.h>
#include <stdio.h>

struct demo {
    struct tn_loop loop;
    struct tn_loop_timer timer;
    struct tn_loop_source in;
    unsigned quiet; /* seconds since the last input */
};

static struct demo demo; /* one for the signal handler to find */

static void on_tick(void *ctx, uint64_t expirations)
{
    struct demo *d = (struct demo *)ctx;

    d->quiet += (unsigned)expirations;
    printf("%u s without input\n", d->quiet);
    if (d->quiet >= 10)
        tn_loop_stop(&d->loop);
}

static void on_input(void *ctx, uint32_t events)
{
    struct demo *d = (struct demo *)ctx;
    char text[256];
    ssize_t n = read(d->in.fd, text, sizeof(text)); /* EPOLLHUP, too, reads as the end */

    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        tn_loop_remove(&d->loop, &d->in);
        tn_loop_stop(&d->loop);
        return;
    }
    d->quiet = 0;
    printf("%zd bytes: %.*s", n, (int)n, text);
}

static void on_signal(int number)
{
    (void)number;
    tn_loop_stop(&demo.loop);
}

static int run(struct demo *d)
{
    struct sigaction action = {.sa_handler = on_signal};
    int rc;

    d->in.fd = STDIN_FILENO;
    d->in.events = EPOLLIN;
    d->in.fn = on_input;
    d->in.ctx = d;
    rc = tn_loop_add(&d->loop, &d->in);
    if (rc < 0) {
        fprintf(stderr, "loop: cannot watch standard input: %s\n",
                errno == EPERM ? "it is a file" : "is it open?");
        return rc;
    }
    rc = tn_loop_timer_arm(&d->timer, 1000000000, 1000000000);
    if (rc < 0)
        return rc;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    return tn_loop_run(&d->loop);
}

int main(void)
{
    int rc;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (tn_loop_init(&demo.loop) < 0)
        return 1;
    rc = tn_loop_timer_init(&demo.timer, &demo.loop, on_tick, &demo);
    if (rc == 0) {
        rc = run(&demo);
        tn_loop_timer_close(&demo.timer);
    }
    tn_loop_close(&demo.loop);
    return rc < 0;
}
