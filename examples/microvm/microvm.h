/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What microvm's files share: the program as a value, and what is done with one machine of it. */
#ifndef MICROVM_H
#define MICROVM_H

#include "args.h"
#include "output.h"
#include "term.h"
#include "tn_vm_fork.h"

struct file {
    uint8_t *bytes;
    size_t len;
};

struct forks;

struct microvm {
    struct args args;
    struct file kernel;
    struct file initrd;
    struct file dtb;
    struct file key_file;
    struct tn_snap_key key;
    struct tn_kvm kvm;
    struct tn_loop loop;
    struct term term;
    struct tn_vm vm;          /* the one machine; with --forks it is closed */
    struct tn_vm_image image; /* of --restore */
    struct forks *forks;      /* of --forks, once there are any; NULL */
    struct outlet outlet;     /* of --snapshot-when and --forks */
    struct pump pump[2];      /* of --snapshot-when: serial, hvc0 */
    struct match match[2];
    struct tn_loop_source signals;
    struct tn_loop_timer grace;
    bool stopping; /* the guest was asked to shut down */
    bool leaving;  /* the user does not wait any more */
    int out;       /* where the consoles' output goes: term's, or the pumps' */
    int out_too;

    bool wanted;        /* a snapshot is to be taken, outside of the loop's callbacks */
    bool based;         /* there is one that the next may be a diff of */
    uint32_t snapshots; /* tries so far */
};

/* ---- snapshot.c ---- */

/*
 * Checks where snapshots are to go, before anything runs. Returns -1, or the code to exit with
 * after one line on stderr; so do all that return a code.
 */
int snapshot_check(const struct args *args);

/*
 * Takes a snapshot, and says so; the machine is paused afterwards. Returns 0, or a negative enum
 * tn_err: nothing was taken, and one line on stderr says why, unless (TN_ESTATE) the machine has
 * ended.
 */
int snapshot_take(struct microvm *m);

/* Opens --restore's image. */
int image_open(struct microvm *m);

/*
 * Makes clone k of the image, on these descriptors; with --same the machine itself. dir is where
 * its overlays go: overlays_open.
 */
int clone_make(struct microvm *m, struct tn_vm *vm, uint32_t k, struct tn_vm_clone_cfg *cfg,
               const char *dir);

/*
 * The directory of the clones' overlays, --overlays' or a temporary one; *dir is NULL if the image
 * needs none. overlays_close removes a temporary one, whose files have lost their names already.
 */
int overlays_open(struct microvm *m, char **dir);
void overlays_close(const struct microvm *m, char *dir);

/* ---- say.c: one line on stderr each; returns the code to exit with ---- */

/* Why tn_vm_init refused: what, and the limit. */
int say_refused(const struct microvm *m, int err);

/* Why a disk, a network or the socket device could not be opened. */
int say_refused_disk(const struct tn_vm_disk_cfg *disk, int err, int sys);
int say_refused_net(const struct tn_vm_net_cfg *net, const struct tn_vm_devices *d, int err,
                    int sys);
int say_refused_vsock(const struct tn_vm_vsock_cfg *vsock, int err, int sys);

/* Why tn_vm_image_open failed. */
int say_image(const struct microvm *m, int err);

/* Why clone k, or the only one (k < 0), could not be made as cfg says. */
int say_clone(const struct tn_vm *vm, const struct tn_vm_clone_cfg *cfg, int k, int err);

/* How a machine has ended; of clone k, or of the only one (k < 0). */
int say_end(const struct tn_vm *vm, int k, bool stopping);

/* errno of the first write to an output of the machine that failed; 0: none has. */
int output_error(const struct tn_vm *vm);

/* ---- forks.c ---- */

/* All of --forks, from the image to the last clone's end. */
int forks_run(struct microvm *m);

/* For all clones. forks_ask: as ask; whether one could be asked. */
bool forks_ask(struct forks *f, bool keys);
void forks_kill(struct forks *f);
void forks_resize(struct forks *f, uint16_t cols, uint16_t rows);

/* ---- main.c ---- */

/* Asks a guest to shut down: by its power button, or with keys by ctrl-alt-del. */
int ask(struct tn_vm *vm, bool keys);

uint64_t now_ns(void);

#endif
