/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the tests of tn_vm_state, tn_vm_image and tn_vm_fork share: machines with the guest of
 * tests/guests/clone.c, their consoles, and what those said.
 */
#ifndef TENON_VM_CLONE_H
#define TENON_VM_CLONE_H

#include "tn_vm_fork.h"

#include "vm_guest.h"

#include <sys/wait.h>

#define RAM (16ull << 20)
#ifndef HANG
#define HANG 60.0 /* seconds without any progress: it has come to a halt */
#endif

static uint8_t *clone_elf;
static size_t clone_len;
static unsigned long fds_before;

static inline int clone_setup(void **state)
{
    const char *guests = getenv("TENON_GUESTS");
    char path[512];
    FILE *f;

    if (guests_setup(state) < 0)
        return -1;
    snprintf(path, sizeof(path), "%s/clone.elf", guests ? guests : "build/guests");
    f = fopen(path, "rb");
    if (!f) {
        missing = "the guest is not built: make guests";
        return 0;
    }
    clone_elf = malloc(1 << 20);
    clone_len = clone_elf ? fread(clone_elf, 1, 1 << 20, f) : 0;
    fclose(f);
    fds_before = (unsigned long)count_fds();
    return 0;
}

static inline int clone_teardown(void **state)
{
    free(clone_elf);
    return guests_teardown(state);
}

/* A number that the environment may set. */
static inline uint64_t asked(const char *name, uint64_t value)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 0) : value;
}

static inline bool is_long(void)
{
    return getenv("TENON_LONG") != NULL;
}

/* A name in the directory of the test; it lasts for a while. */
static inline const char *name_of(const char *format, ...) __attribute__((format(printf, 1, 2)));
static inline const char *name_of(const char *format, ...)
{
    static char names[64][160];
    static unsigned next;
    char *p = names[next++ % 64];
    int at = snprintf(p, sizeof(names[0]), "%s/", dir);
    va_list args;

    va_start(args, format);
    vsnprintf(p + at, sizeof(names[0]) - (size_t)at, format, args);
    va_end(args);
    return p;
}

/* Removes a directory with the files in it. */
static inline void remove_dir(const char *path)
{
    char name[512];
    struct dirent *e;
    DIR *d = opendir(path);

    while (d && (e = readdir(d))) {
        snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && unlink(name) < 0)
            (void)rmdir(name);
    }
    if (d)
        closedir(d);
    (void)rmdir(path);
}

/* All of a file, on the heap. */
static inline uint8_t *slurp(const char *path, size_t *len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    uint8_t *bytes;

    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    *len = (size_t)st.st_size;
    bytes = malloc(*len + 1);
    assert_non_null(bytes);
    assert_int_equal(pread(fd, bytes, *len, 0), (ssize_t)*len);
    close(fd);
    return bytes;
}

/* A file with these bytes; what was there is gone, whatever it was. */
static inline void spill(const char *path, const uint8_t *bytes, size_t len)
{
    int fd;

    (void)unlink(path);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), (ssize_t)len);
    close(fd);
}

/* ---- a console ---- */

struct con {
    int in[2], out[2];
    char *seen; /* all that came out, and a zero */
    size_t len;
    size_t cap;
    size_t skip; /* bytes of our own at the front of the pipe */
};

static inline void con_open(struct con *c)
{
    memset(c, 0, sizeof(*c));
    c->cap = 1 << 16;
    c->seen = calloc(1, c->cap);
    assert_non_null(c->seen);
    assert_int_equal(pipe2(c->in, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(pipe2(c->out, O_CLOEXEC | O_NONBLOCK), 0);
}

static inline void con_close(struct con *c)
{
    for (int i = 0; i < 2; i++) {
        close(c->in[i]);
        close(c->out[i]);
    }
    free(c->seen);
    memset(c, 0, sizeof(*c));
}

/* Takes what has come out; returns how much that is. */
static inline size_t con_take(struct con *c)
{
    size_t before = c->len;
    ssize_t n;

    for (;;) {
        if (c->cap - c->len < 8192) {
            c->cap *= 2;
            c->seen = realloc(c->seen, c->cap);
            assert_non_null(c->seen);
        }
        n = read(c->out[0], c->seen + c->len, c->skip ? c->skip : c->cap - 1 - c->len);
        if (n <= 0)
            break;
        if (c->skip)
            c->skip -= (size_t)n;
        else
            c->len += (size_t)n;
    }
    c->seen[c->len] = 0;
    return c->len - before;
}

/* Forgets what has come out since it was so long. */
static inline void con_cut(struct con *c, size_t len)
{
    (void)con_take(c);
    c->len = len;
    c->seen[len] = 0;
}

static inline void con_type(const struct con *c, const char *text)
{
    assert_int_equal(write(c->in[1], text, strlen(text)), (ssize_t)strlen(text));
}

/* ---- machines ---- */

/* A machine with the guest that words are for. */
static inline void describe(struct tn_vm_cfg *cfg, const struct con *c, const char *words,
                            uint32_t cpus)
{
    memset(cfg, 0, sizeof(*cfg));
    cfg->memory = RAM;
    cfg->cpus = cpus;
    cfg->kernel = clone_elf;
    cfg->kernel_len = clone_len;
    cfg->cmdline = words;
    cfg->console = true;
    cfg->console_in = c->in[0];
    cfg->console_out = c->out[1];
    cfg->virtio_in = cfg->virtio_out = -1;
}

/* What a clone needs that has this console. */
static inline void own(struct tn_vm_clone_cfg *cfg, const struct con *c)
{
    memset(cfg, 0, sizeof(*cfg));
    cfg->console_in = c ? c->in[0] : -1;
    cfg->console_out = c ? c->out[1] : -1;
    cfg->virtio_in = cfg->virtio_out = -1;
}

static inline void boot(struct tn_vm *vm, struct tn_loop *loop, const struct con *c,
                        const char *words, uint32_t cpus, bool track)
{
    struct tn_vm_cfg cfg;

    describe(&cfg, c, words, cpus);
    cfg.track_dirty = track;
    assert_int_equal(tn_vm_init(vm, &kvm, loop, &cfg), 0);
    assert_int_equal(tn_vm_start(vm), 0);
}

/* Serves the loop until c has said text after byte from on, or vm has ended. */
static inline void hear(struct tn_vm *vm, struct tn_loop *loop, struct con *c, size_t from,
                        const char *text)
{
    double end = seconds(CLOCK_MONOTONIC) + HANG;
    int r = TN_EAGAIN;

    for (;;) {
        (void)con_take(c);
        if (strstr(c->seen + from, text))
            return;
        if (r != TN_EAGAIN || seconds(CLOCK_MONOTONIC) > end)
            fail_msg("not \"%s\"; it said \"%s\", and is %d", text, c->seen + from, r);
        tn_loop_step(loop, 1);
        r = tn_vm_wait(vm, 0);
    }
}

/* Serves the loop until vm has ended; the reason. */
static inline int finish(struct tn_vm *vm, struct tn_loop *loop, struct con *c)
{
    double end = seconds(CLOCK_MONOTONIC) + HANG;
    int r;

    while ((r = tn_vm_wait(vm, 0)) == TN_EAGAIN) {
        tn_loop_step(loop, 1);
        if (con_take(c) > 0)
            end = seconds(CLOCK_MONOTONIC) + HANG;
        if (seconds(CLOCK_MONOTONIC) > end)
            fail_msg("it hangs; it said \"%.60s\"", c->len > 60 ? c->seen + c->len - 60 : c->seen);
    }
    (void)con_take(c);
    return r;
}

#endif
