/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Consoles' output that passes through microvm on its way: to look for a text in it, or because
 * many machines share a terminal. A pump is a pipe that a machine writes to; what comes out of it
 * goes to an outlet, which is patient with a slow reader: its pumps wait, and so do their machines.
 * A pump's struct outlives its outlet.
 */
#ifndef MICROVM_OUTPUT_H
#define MICROVM_OUTPUT_H

#include "args.h"
#include "tn_loop.h"

#define OUTPUT_HIGH 65536u /* bytes that an outlet holds before pumps wait */
#define OUTPUT_LINE 512u   /* bytes of a line that are kept together */

struct pump;

struct outlet {
    struct tn_loop *loop;
    struct tn_loop_source source; /* its events wait for room; fd -1: closed */
    bool polled;                  /* false for a regular file */
    uint8_t *held;                /* what fd did not take yet: [from, end) */
    size_t from, end, cap;
    struct pump *waiting;          /* pumps that wait for room */
    struct pump *partial;          /* those that have the beginning of a line */
    struct tn_loop_timer show;     /* lets it be seen */
    const struct pump *unfinished; /* whose line has been begun on the terminal; NULL: none's */
    int error;                     /* errno of the first write that failed; all is dropped since */
};

struct pump {
    struct outlet *to;
    struct tn_loop_source source; /* fd: the pipe's end to read; -1: closed */
    int in;                       /* the end to write, for a machine; the pump closes it */
    void (*seen)(void *ctx, const uint8_t *bytes, size_t len); /* NULL: nobody asks */
    void *ctx;
    char prefix[16]; /* of each line; empty: bytes pass as they come */
    uint8_t line[OUTPUT_LINE];
    size_t len;
    bool waits, is_partial; /* in the outlet's lists */
    struct pump *next_waiting, *next_partial;
};

/* A text that is looked for in a stream of bytes. */
struct match {
    const char *text;
    size_t len;
    size_t at;               /* how much of it the stream ends with */
    uint16_t back[MAX_TEXT]; /* how much of it text[0 .. i] ends with, i + 1 excepted */
};

/*
 * Both return 0 or TN_ESYS, and are closed after an error. fd is the caller's. The prefix of pump k
 * is "[k] "; k < 0: it has none.
 */
int outlet_open(struct outlet *o, struct tn_loop *loop, int fd);
int pump_open(struct pump *p, struct outlet *to, int k);

/*
 * Takes all that is in the pipe now, whatever the outlet holds.
 */
void pump_drain(struct pump *p);

/*
 * No more comes from the machine; the pump goes on until the pipe is empty, and closes itself.
 */
void pump_end(struct pump *p);

/*
 * Closes it at once: what is in the pipe, and what is written to it later, is lost. Nothing on a
 * closed one.
 */
void pump_close(struct pump *p);

/*
 * Whether all is written that was to be; or never will be.
 */
bool outlet_empty(const struct outlet *o);

/*
 * Whether pumps had better wait.
 */
bool outlet_full(const struct outlet *o);

void outlet_close(struct outlet *o);

void match_init(struct match *m, const char *text);

/* Whether the text ends in these bytes, which follow those of the last call. */
bool match_bytes(struct match *m, const uint8_t *bytes, size_t len);

#endif
