/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the tests of tn_vm_virtio and tn_vm_devices share: /dev/kvm, whole machines with the guest
 * of tests/guests/virtio.c (built into TENON_GUESTS, default build/guests), and disks in files.
 */
#ifndef TENON_VM_GUEST_H
#define TENON_VM_GUEST_H

#include "tn_vm.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "test.h"

static uint8_t *kernel;
static size_t kernel_len;
static struct tn_kvm kvm;
static const char *missing; /* why the cases are skipped */
static char dir[64];        /* for files, gone afterwards */

struct bench {
    struct tn_loop loop;
    struct tn_vm vm;
    struct tn_vm_cfg cfg;
    int in[2], out[2]; /* the serial console's pipes */
    char seen[65536];
    size_t len;
};

static inline int guests_setup(void **state)
{
    const char *guests = getenv("TENON_GUESTS");
    char path[512];
    FILE *f;

    (void)state;
    signal(SIGPIPE, SIG_IGN);
    strcpy(dir, "/tmp/tenon-vm-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof(path), "%s/virtio.elf", guests ? guests : "build/guests");
    f = fopen(path, "rb");
    if (!f) {
        missing = "the guest is not built: make guests";
        return 0;
    }
    kernel = malloc(1 << 20);
    kernel_len = kernel ? fread(kernel, 1, 1 << 20, f) : 0;
    fclose(f);
    if (tn_kvm_open(&kvm, NULL) < 0)
        missing = "/dev/kvm is missing or may not be opened";
    return 0;
}

static inline int guests_teardown(void **state)
{
    char command[128];

    (void)state;
    if (!missing)
        tn_kvm_close(&kvm);
    free(kernel);
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

#define NEED_KVM()         \
    do {                   \
        if (missing)       \
            SKIP(missing); \
    } while (0)

static inline int count_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* A file of so many bytes, all of them fill; its name lasts for as long as the test program. */
static inline const char *file_of(const char *name, size_t len, int fill)
{
    static char path[64][96];
    static unsigned next;
    char *p = path[next++ % 64];
    uint8_t *bytes = malloc(len + 1);
    int fd;

    snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
    unlink(p);
    fd = open(p, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && bytes);
    memset(bytes, fill, len);
    assert_int_equal(write(fd, bytes, len), (ssize_t)len);
    close(fd);
    free(bytes);
    return p;
}

/* len bytes of a file from offset at on. */
static inline void file_read(const char *path, void *bytes, size_t len, off_t at)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, bytes, len, at), (ssize_t)len);
    close(fd);
}

/* ---- machines ---- */

static inline void bench_open(struct bench *b, const char *words)
{
    NEED_KVM();
    alarm(240); /* a guest that sleeps for good would otherwise hang the test */
    memset(b, 0, sizeof(*b));
    assert_int_equal(tn_loop_init(&b->loop), 0);
    assert_int_equal(pipe2(b->in, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(pipe2(b->out, O_CLOEXEC | O_NONBLOCK), 0);
    b->cfg.memory = 16ull << 20;
    b->cfg.kernel = kernel;
    b->cfg.kernel_len = kernel_len;
    b->cfg.cmdline = words;
    b->cfg.console = true;
    b->cfg.console_in = b->in[0];
    b->cfg.console_out = b->out[1];
}

static inline void bench_create(struct bench *b)
{
    assert_int_equal(tn_vm_init(&b->vm, &kvm, &b->loop, &b->cfg), 0);
}

static inline void bench_close(struct bench *b)
{
    tn_vm_close(&b->vm);
    tn_loop_close(&b->loop);
    for (int i = 0; i < 2; i++) {
        close(b->in[i]);
        close(b->out[i]);
    }
    alarm(0);
}

static inline void collect(struct bench *b)
{
    ssize_t n;

    while ((n = read(b->out[0], b->seen + b->len, sizeof(b->seen) - 1 - b->len)) > 0)
        b->len += (size_t)n;
    b->seen[b->len] = 0;
}

/* Serves the loop for a time, in milliseconds. */
static inline void serve(struct bench *b, int ms)
{
    double end = seconds(CLOCK_MONOTONIC) + ms / 1e3;

    while (seconds(CLOCK_MONOTONIC) < end) {
        tn_loop_step(&b->loop, 1);
        collect(b);
    }
}

/* Serves the loop until the console has said text, or the machine has ended. */
static inline void until_seen(struct bench *b, const char *text)
{
    while (!strstr(b->seen, text) && tn_vm_wait(&b->vm, 0) == TN_EAGAIN) {
        tn_loop_step(&b->loop, 5);
        collect(b);
    }
    collect(b);
    if (!strstr(b->seen, text))
        fail_msg("the guest said: %s", b->seen);
}

static inline uint32_t run_to_end(struct bench *b)
{
    int r;

    while ((r = tn_vm_wait(&b->vm, 0)) == TN_EAGAIN) {
        tn_loop_step(&b->loop, 5);
        collect(b);
    }
    collect(b);
    if (strstr(b->seen, "bad "))
        fail_msg("the guest said: %s", b->seen);
    return (uint32_t)r;
}

#endif
