/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The host's side of the console: where its bytes come from and go to, a terminal in raw mode and
 * back, and the escape character.
 */
#ifndef MICROVM_TERM_H
#define MICROVM_TERM_H

#include "args.h"
#include "tn_loop.h"

struct term {
    struct tn_loop *loop;
    int in;      /* for the machine's console; -1: none */
    int out;     /* non-blocking where it can be; -1: none */
    int out_too; /* the same once more, for a second console */

    /* A terminal on stdin: its keys pass through here, and on to `in` by a pipe. */
    struct tn_loop_source keys;
    struct tn_loop_source pipe;
    bool watching;
    bool escaped;     /* Ctrl-A was the last key */
    uint8_t held[64]; /* keys that the pipe did not take yet */
    size_t nheld;
    void (*leave)(void *ctx); /* Ctrl-A X */
    void *ctx;
};

/*
 * Opens the console that args asks for. Returns -1, or the code to exit with after one line on
 * stderr.
 */
int term_open(struct term *t, const struct args *args, struct tn_loop *loop,
              void (*leave)(void *ctx), void *ctx);

/*
 * The console of clone k where it has one of its own, a pty or a file; else *in and *out stay. The
 * descriptors are the caller's. Returns as term_open, which opens nothing of that with --forks.
 */
int term_open_clone(const struct args *args, uint32_t k, int *in, int *out);

/*
 * The terminal's size; 0 by 0 where the console is none.
 */
void term_size(const struct term *t, uint16_t *cols, uint16_t *rows);

/*
 * Closes it, and puts the terminal back. The terminal is also put back by any exit() and by the
 * signals that end a process.
 */
void term_close(struct term *t);

#endif
