/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* microvm's command line as a value. */
#ifndef MICROVM_ARGS_H
#define MICROVM_ARGS_H

#include <stdbool.h>
#include <stdint.h>

#include "tn_vm_board.h"

/* Exit codes; microvm(1) lists them. */
enum exit_code {
    EXIT_GUEST_OFF = 0,    /* the guest switched itself off, or was stopped gracefully */
    EXIT_USAGE = 2,        /* an option, or a limit of one */
    EXIT_NO_KVM = 3,       /* /dev/kvm is missing, or may not be opened */
    EXIT_INPUT = 4,        /* a file, or what is in it */
    EXIT_HOST = 5,         /* memory, threads or KVM failed */
    EXIT_GUEST_RESET = 10, /* the guest asked for a reset */
    EXIT_GUEST_CRASH = 11, /* a triple fault */
    EXIT_GUEST_PANIC = 12, /* the guest's kernel reported a panic */
    EXIT_KILLED = 13,      /* ended from outside before the guest had shut down */
    EXIT_NO_SNAPSHOT = 14  /* the guest ended before it said what --snapshot-when waits for */
};

#define MAX_TEXT  256   /* bytes of --snapshot-when */
#define MAX_FORKS 10000 /* machines of --forks */

enum console { CONSOLE_STDIO, CONSOLE_PTY, CONSOLE_FILE, CONSOLE_NONE };

struct args {
    const char *kernel;
    const char *initrd; /* NULL: none */
    const char *dtb;    /* likewise; x86 */
    const char *cmdline;
    uint64_t memory; /* bytes */
    uint32_t cpus;
    uint32_t boot; /* index of arch_boot */
    bool say_boot; /* it was given: if auto, what is picked is said */
    enum console console;
    const char *console_path; /* CONSOLE_FILE */
    bool hugepages;
    struct tn_vm_disk_cfg disk[TN_VM_MAX_DISKS];
    uint32_t disks;
    const struct tn_vm_disk_cfg *rootfs; /* NULL, or &disk[0]: the guest's root */
    bool virtio_console;
    bool rng;
    struct tn_vm_net_cfg net[TN_VM_MAX_NETS];
    uint32_t nets;
    struct tn_vm_vsock_cfg vsock; /* with --restore, cid 0: the one that was saved */
    bool balloon;
    uint64_t balloon_size; /* bytes */
    bool packed;
    bool no_indirect;
    bool no_event_idx;
    const char *snapshot;      /* a directory; NULL: none is taken */
    const char *snapshot_when; /* what the console says by then; NULL: by SIGUSR1 */
    bool diff;
    bool sync;
    const char *restore;  /* a snapshot's directory; NULL: a kernel is booted */
    const char *overlays; /* where the clones' overlays stay; NULL: they do not */
    const char *key;      /* a file; NULL: snapshots have no MAC */
    uint32_t forks;       /* clones in this process; 0: one machine, without their ways */
    bool lazy;
    bool same;         /* the machine that was saved, not one more */
    char buffer[4096]; /* what cmdline points to when it was put together */
};

/*
 * Reads the command line. Returns -1, or the code to exit with: --help and --version are done, or
 * one line on stderr says what is wrong.
 */
int args_parse(int argc, char **argv, struct args *out);

#endif
