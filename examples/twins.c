/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * twins: two whole machines in one process, on one event loop. Both boot the same kernel and
 * initramfs; each line of a console is printed behind its machine's letter.
 *
 *     twins KERNEL INITRD [CMDLINE]
 *
 * Ends when both have: 0 if both powered off, else 1; 2 for bad usage.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "tn_strerror.h"
#include "tn_vm.h"

struct twin {
    char letter;
    struct tn_vm vm;
    struct tn_loop *loop;
    struct tn_loop_source output; /* the reading end of the console's pipe */
    int console;                  /* the writing end */
    char line[256];
    size_t len;
};

static uint8_t *read_file(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    uint8_t *bytes = NULL;
    long size = -1;

    if (f && fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) >= 0 && fseek(f, 0, SEEK_SET) == 0)
        bytes = malloc((size_t)size + 1);
    if (!bytes || fread(bytes, 1, (size_t)size, f) != (size_t)size) {
        fprintf(stderr, "twins: %s: %s\n", path, strerror(errno));
        exit(2);
    }
    fclose(f);
    *len = (size_t)size;
    return bytes;
}

static void on_output(void *ctx, uint32_t events)
{
    struct twin *t = ctx;
    char bytes[512];
    ssize_t n = read(t->output.fd, bytes, sizeof(bytes));

    (void)events;
    for (ssize_t i = 0; i < n; i++) {
        if (bytes[i] != '\n' && bytes[i] != '\r')
            t->line[t->len++] = bytes[i];
        if (t->len > 0 && (bytes[i] == '\n' || t->len == sizeof(t->line))) {
            printf("%c| %.*s\n", t->letter, (int)t->len, t->line);
            t->len = 0;
        }
    }
    fflush(stdout);
}

static int begin(struct twin *t, struct tn_kvm *kvm, struct tn_vm_cfg *cfg)
{
    int fds[2], r;

    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return TN_ESYS;
    t->console = fds[1];
    t->output.fd = fds[0];
    t->output.events = EPOLLIN;
    t->output.fn = on_output;
    t->output.ctx = t;
    cfg->console_out = fds[1];
    r = tn_loop_add(t->loop, &t->output);
    if (r >= 0)
        r = tn_vm_init(&t->vm, kvm, t->loop, cfg);
    return r < 0 ? r : tn_vm_start(&t->vm);
}

int main(int argc, char **argv)
{
    static struct twin twin[2];
    static struct tn_kvm kvm;
    struct tn_vm_cfg cfg;
    struct tn_loop loop;
    int off = 0, r;

    if (argc < 3 || argc > 4) {
        fputs("usage: twins KERNEL INITRD [CMDLINE]\n", stderr);
        return 2;
    }
    memset(&cfg, 0, sizeof(cfg));
    cfg.memory = 128ull << 20;
    cfg.kernel = read_file(argv[1], &cfg.kernel_len);
    cfg.initrd = read_file(argv[2], &cfg.initrd_len);
    cfg.cmdline = argc > 3 ? argv[3] : "console=ttyS0 panic=-1";
    cfg.console = true;
    cfg.console_in = -1;
    r = tn_kvm_open(&kvm, NULL);
    if (r >= 0)
        r = tn_loop_init(&loop);
    for (int i = 0; r >= 0 && i < 2; i++) {
        twin[i].letter = (char)('A' + i);
        twin[i].loop = &loop;
        r = begin(&twin[i], &kvm, &cfg);
    }
    if (r < 0) {
        fprintf(stderr, "twins: %s: %s\n", tn_strerror(r), strerror(errno));
        return 1;
    }
    while (tn_vm_wait(&twin[0].vm, 0) == TN_EAGAIN || tn_vm_wait(&twin[1].vm, 0) == TN_EAGAIN)
        tn_loop_step(&loop, -1);
    for (int i = 0; i < 2; i++) {
        off += twin[i].vm.end.reason == TN_VM_POWEROFF;
        tn_vm_close(&twin[i].vm);
        on_output(&twin[i], 0);
    }
    return off == 2 ? 0 : 1;
}
