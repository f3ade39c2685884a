/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "term.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#define ESCAPE 0x01 /* Ctrl-A */

/* What exit() and a fatal signal need to put the terminal back; one terminal, one process. */
static struct termios saved;
static volatile sig_atomic_t raw;

static void restore_terminal(void)
{
    if (raw) {
        raw = 0;
        tcsetattr(STDIN_FILENO, TCSANOW, &saved);
    }
}

static void on_fatal(int signal)
{
    restore_terminal();
    raise(signal); /* SA_RESETHAND: for good this time */
}

static void make_raw(void)
{
    static const int fatal[] = {SIGABRT, SIGBUS, SIGFPE, SIGHUP, SIGILL, SIGQUIT, SIGSEGV};
    struct sigaction sa;
    struct termios t;

    if (tcgetattr(STDIN_FILENO, &saved) < 0)
        return;
    memset(&sa, 0, sizeof(sa));
    sa.sa_handler = on_fatal;
    sa.sa_flags = (int)SA_RESETHAND;
    for (size_t i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++)
        sigaction(fatal[i], &sa, NULL);
    atexit(restore_terminal);
    t = saved;
    cfmakeraw(&t);
    t.c_oflag |= OPOST; /* messages of ours still begin at the left */
    raw = 1;
    tcsetattr(STDIN_FILENO, TCSANOW, &t);
}

/*
 * A descriptor for the same pipe or terminal that is non-blocking by itself: setting the flag on
 * the inherited one would set it for every process that shares it. Regular files need none.
 */
static int reopen(int fd, const char *path)
{
    struct stat st;
    int n = -1;

    if (fstat(fd, &st) == 0 && !S_ISREG(st.st_mode))
        n = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return n >= 0 ? n : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

/* Moves held keys into the pipe, and waits for the side that has to act next. */
static void forward(struct term *t)
{
    ssize_t n = t->nheld ? write(t->pipe.fd, t->held, t->nheld) : 0;

    if (n > 0) {
        t->nheld -= (size_t)n;
        memmove(t->held, t->held + n, t->nheld);
    }
    (void)tn_loop_mod(t->loop, &t->pipe, t->nheld ? EPOLLOUT : 0);
    (void)tn_loop_mod(t->loop, &t->keys, t->nheld ? 0 : EPOLLIN);
}

static void on_pipe(void *ctx, uint32_t events)
{
    (void)events;
    forward(ctx);
}

static void on_keys(void *ctx, uint32_t events)
{
    struct term *t = ctx;
    uint8_t bytes[sizeof(t->held)];
    ssize_t n = read(t->keys.fd, bytes, sizeof(bytes));

    (void)events;
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        (void)tn_loop_remove(t->loop, &t->keys);
        (void)tn_loop_remove(t->loop, &t->pipe);
        t->watching = false;
        return;
    }
    for (ssize_t i = 0; i < n; i++) {
        bool leave = t->escaped && (bytes[i] == 'x' || bytes[i] == 'X');

        if (leave)
            t->leave(t->ctx);
        if (!leave && (t->escaped || bytes[i] != ESCAPE))
            t->held[t->nheld++] = bytes[i];
        t->escaped = !t->escaped && bytes[i] == ESCAPE;
    }
    forward(t);
}

static int watch_terminal(struct term *t)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return TN_ESYS;
    t->in = fds[0];
    t->keys.fd = STDIN_FILENO;
    t->keys.events = EPOLLIN;
    t->keys.fn = on_keys;
    t->keys.ctx = t;
    t->pipe.fd = fds[1];
    t->pipe.events = 0;
    t->pipe.fn = on_pipe;
    t->pipe.ctx = t;
    if (tn_loop_add(t->loop, &t->keys) < 0)
        return TN_ESYS;
    if (tn_loop_add(t->loop, &t->pipe) < 0) {
        (void)tn_loop_remove(t->loop, &t->keys);
        return TN_ESYS;
    }
    t->watching = true;
    make_raw();
    return TN_OK;
}

static int failed(const char *what)
{
    fprintf(stderr, "microvm: console %s: %s\n", what, strerror(errno));
    return EXIT_INPUT;
}

static int open_pty(int *in, int *out, const char *whose)
{
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    struct termios mode;

    if (fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0 || tcgetattr(fd, &mode) < 0)
        return failed("pty");
    cfmakeraw(&mode);
    tcsetattr(fd, TCSANOW, &mode);
    *in = fd;
    *out = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    fprintf(stderr, "microvm: %sthe console is %s\n", whose, ptsname(fd));
    return -1;
}

static int open_file(int *out, const char *path)
{
    *out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_CLOEXEC, 0644);
    return *out < 0 ? failed(path) : -1;
}

static int open_console(struct term *t, const struct args *args)
{
    switch (args->console) {
    case CONSOLE_NONE:
        break;
    case CONSOLE_PTY:
        return open_pty(&t->in, &t->out, "");
    case CONSOLE_FILE:
        return open_file(&t->out, args->console_path);
    case CONSOLE_STDIO:
        t->out = reopen(STDOUT_FILENO, "/proc/self/fd/1");
        if (t->out < 0)
            return failed("stdio");
        if (isatty(STDIN_FILENO)) {
            if (watch_terminal(t) < 0)
                return failed("stdio");
        } else {
            t->in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3); /* -1 where stdin is closed */
        }
        break;
    }
    return -1;
}

int term_open(struct term *t, const struct args *args, struct tn_loop *loop,
              void (*leave)(void *ctx), void *ctx)
{
    int code;

    memset(t, 0, sizeof(*t));
    t->loop = loop;
    t->leave = leave;
    t->ctx = ctx;
    t->in = t->out = t->out_too = t->pipe.fd = -1;
    if (args->forks && args->console != CONSOLE_STDIO)
        return -1; /* the clones have their own */
    code = open_console(t, args);
    if (code < 0 && t->out >= 0)
        t->out_too = fcntl(t->out, F_DUPFD_CLOEXEC, 3);
    return code < 0 && t->out >= 0 && t->out_too < 0 ? failed("stdio") : code;
}

int term_open_clone(const struct args *args, uint32_t k, int *in, int *out)
{
    char whose[32], *path;
    int code = -1;

    if (args->console == CONSOLE_PTY) {
        snprintf(whose, sizeof(whose), "clone %u: ", k);
        code = open_pty(in, out, whose);
    } else if (args->console == CONSOLE_FILE) {
        if (asprintf(&path, "%s.%u", args->console_path, k) < 0)
            return failed(args->console_path);
        code = open_file(out, path);
        free(path);
    }
    return code;
}

void term_size(const struct term *t, uint16_t *cols, uint16_t *rows)
{
    struct winsize size;

    memset(&size, 0, sizeof(size));
    if (t->out >= 0)
        (void)ioctl(t->out, TIOCGWINSZ, &size);
    *cols = size.ws_col;
    *rows = size.ws_row;
}

void term_close(struct term *t)
{
    if (t->watching) {
        (void)tn_loop_remove(t->loop, &t->keys);
        (void)tn_loop_remove(t->loop, &t->pipe);
    }
    if (t->pipe.fd >= 0)
        close(t->pipe.fd);
    if (t->in >= 0)
        close(t->in);
    if (t->out >= 0)
        close(t->out);
    if (t->out_too >= 0)
        close(t->out_too);
    restore_terminal();
}
