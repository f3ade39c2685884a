/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define TURN    4096u      /* bytes that a pump reads before others have their turn */
#define SHOW_NS 100000000u /* how long the beginning of a line waits for its end */

/* ---- the outlet ---- */

static void outlet_fail(struct outlet *o, int error)
{
    o->error = o->error ? o->error : error;
    o->from = o->end = 0;
}

/* Room for len more bytes. */
static bool make_room(struct outlet *o, size_t len)
{
    size_t cap = o->cap ? o->cap : OUTPUT_HIGH;
    uint8_t *held;

    if (o->from > 0) {
        memmove(o->held, o->held + o->from, o->end - o->from);
        o->end -= o->from;
        o->from = 0;
    }
    while (cap - o->end < len)
        cap *= 2;
    if (cap == o->cap)
        return true;
    held = realloc(o->held, cap);
    if (!held)
        return false;
    o->held = held;
    o->cap = cap;
    return true;
}

static void put(struct outlet *o, const void *bytes, size_t len)
{
    if (o->error || len == 0)
        return;
    if (o->cap - o->end < len && !make_room(o, len)) {
        outlet_fail(o, ENOMEM);
        return;
    }
    memcpy(o->held + o->end, bytes, len);
    o->end += len;
}

/* Writes what can be written, and waits for what is still needed. */
static void flush(struct outlet *o)
{
    while (o->from < o->end) {
        ssize_t n = write(o->source.fd, o->held + o->from, o->end - o->from);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN)
            outlet_fail(o, errno);
        if (n < 0)
            break;
        o->from += (size_t)n;
    }
    if (o->polled)
        (void)tn_loop_mod(o->loop, &o->source, o->from < o->end ? EPOLLOUT : 0);
    while (o->waiting && !outlet_full(o)) {
        struct pump *p = o->waiting;

        o->waiting = p->next_waiting;
        p->waits = false;
        if (p->source.fd >= 0)
            (void)tn_loop_mod(o->loop, &p->source, EPOLLIN);
    }
}

static void on_room(void *ctx, uint32_t events)
{
    struct outlet *o = ctx;

    if (events & (EPOLLERR | EPOLLHUP) && !(events & EPOLLOUT))
        outlet_fail(o, EIO); /* nobody is there, and it would be said for ever */
    flush(o);
}

/* ---- lines ---- */

/* Part of a line, or all of it, to the terminal. */
static void show(struct pump *p, const uint8_t *bytes, size_t len)
{
    struct outlet *o = p->to;

    if (len == 0)
        return;
    if (o->unfinished != p) {
        if (o->unfinished)
            put(o, "\n", 1);
        put(o, p->prefix, strlen(p->prefix));
    }
    put(o, bytes, len);
    o->unfinished = bytes[len - 1] == '\n' ? NULL : p;
}

static void show_line(struct pump *p)
{
    show(p, p->line, p->len);
    p->len = 0;
}

static void on_show(void *ctx, uint64_t expirations)
{
    struct outlet *o = ctx;

    (void)expirations;
    while (o->partial) {
        struct pump *p = o->partial;

        o->partial = p->next_partial;
        p->is_partial = false;
        show_line(p);
    }
    flush(o);
}

static void put_lines(struct pump *p, const uint8_t *bytes, size_t len)
{
    struct outlet *o = p->to;

    for (size_t i = 0; i < len; i++) {
        p->line[p->len++] = bytes[i];
        if (bytes[i] == '\n' || p->len == sizeof(p->line))
            show_line(p);
    }
    if (p->len == 0 || p->is_partial)
        return;
    if (!o->partial)
        (void)tn_loop_timer_arm(&o->show, SHOW_NS, 0);
    p->next_partial = o->partial;
    p->is_partial = true;
    o->partial = p;
}

/* ---- pumps ---- */

/* Up to TURN bytes; false: there are none now. */
static bool take(struct pump *p)
{
    uint8_t bytes[TURN];
    ssize_t n = p->source.fd < 0 ? -1 : read(p->source.fd, bytes, sizeof(bytes));

    if (n <= 0) {
        if (n == 0)
            pump_close(p);
        return false;
    }
    if (p->seen)
        p->seen(p->ctx, bytes, (size_t)n);
    if (p->prefix[0])
        put_lines(p, bytes, (size_t)n);
    else
        put(p->to, bytes, (size_t)n);
    return true;
}

static void on_bytes(void *ctx, uint32_t events)
{
    struct pump *p = ctx;
    struct outlet *o = p->to;

    (void)events;
    if (take(p) && !p->waits && outlet_full(o)) {
        (void)tn_loop_mod(o->loop, &p->source, 0);
        p->waits = true;
        p->next_waiting = o->waiting;
        o->waiting = p;
    }
    flush(o);
}

int pump_open(struct pump *p, struct outlet *to, int k)
{
    int fds[2], r;

    memset(p, 0, sizeof(*p));
    p->to = to;
    p->in = p->source.fd = -1;
    if (k >= 0)
        snprintf(p->prefix, sizeof(p->prefix), "[%d] ", k);
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return TN_ESYS;
    p->source.fd = fds[0];
    p->source.events = EPOLLIN;
    p->source.fn = on_bytes;
    p->source.ctx = p;
    p->in = fds[1];
    r = tn_loop_add(to->loop, &p->source);
    if (r < 0) {
        close(fds[0]);
        p->source.fd = -1;
        pump_end(p);
    }
    return r;
}

void pump_drain(struct pump *p)
{
    while (take(p))
        continue;
    flush(p->to);
}

void pump_end(struct pump *p)
{
    if (p->in >= 0)
        close(p->in);
    p->in = -1;
}

void pump_close(struct pump *p)
{
    struct outlet *o = p->to;

    pump_end(p);
    if (p->source.fd < 0)
        return;
    (void)tn_loop_remove(o->loop, &p->source);
    close(p->source.fd);
    p->source.fd = -1;
    show_line(p);
    if (o->unfinished == p && p->prefix[0])
        show(p, (const uint8_t *)"\n", 1);
    flush(o);
}

int outlet_open(struct outlet *o, struct tn_loop *loop, int fd)
{
    int r;

    memset(o, 0, sizeof(*o));
    o->loop = loop;
    o->source.fd = fd;
    o->source.fn = on_room;
    o->source.ctx = o;
    o->show.source.fd = -1;
    r = tn_loop_add(loop, &o->source);
    o->polled = r >= 0;
    if (r < 0 && errno == EPERM) /* a regular file: it is always ready */
        r = TN_OK;
    if (r >= 0)
        r = tn_loop_timer_init(&o->show, loop, on_show, o);
    if (r < 0)
        outlet_close(o);
    return r;
}

bool outlet_empty(const struct outlet *o)
{
    return o->from == o->end;
}

bool outlet_full(const struct outlet *o)
{
    return o->end - o->from >= OUTPUT_HIGH;
}

void outlet_close(struct outlet *o)
{
    if (!o->loop)
        return;
    if (o->polled)
        (void)tn_loop_remove(o->loop, &o->source);
    tn_loop_timer_close(&o->show);
    free(o->held);
    memset(o, 0, sizeof(*o));
    o->source.fd = -1;
}

/* ---- a text in a stream ---- */

void match_init(struct match *m, const char *text)
{
    size_t at = 0;

    memset(m, 0, sizeof(*m));
    m->text = text;
    m->len = strlen(text);
    for (size_t i = 1; i < m->len; i++) {
        while (at > 0 && text[at] != text[i])
            at = m->back[at - 1];
        at += text[at] == text[i];
        m->back[i] = (uint16_t)at;
    }
}

bool match_bytes(struct match *m, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        while (m->at > 0 && (uint8_t)m->text[m->at] != bytes[i])
            m->at = m->back[m->at - 1];
        m->at += (uint8_t)m->text[m->at] == bytes[i];
        if (m->at == m->len) {
            m->at = m->back[m->at - 1];
            return true;
        }
    }
    return false;
}
