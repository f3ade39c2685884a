/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the user is told, a line for each thing that went wrong. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "arch.h"
#include "microvm.h"
#include "tn_strerror.h"

int say_refused_disk(const struct tn_vm_disk_cfg *disk, int err, int sys)
{
    const char *sep = disk->overlay ? " with overlay " : "";
    const char *overlay = disk->overlay ? disk->overlay : "";
    const char *why = tn_strerror(err);

    switch (err) {
    case TN_ESYS:
        why = strerror(sys);
        break;
    case TN_EEXIST:
        why = "in use: another process has locked it";
        break;
    case TN_EINVAL:
        why = "neither a regular file nor a block device";
        break;
    case TN_ERANGE:
        why = "its size is 0, or no multiple of 512 bytes (of the host's block with direct)";
        break;
    case TN_ENODEV:
        why = "its file system cannot do direct (O_DIRECT)";
        break;
    case TN_ENOFIT:
        why = "the base has another size than when the overlay was made";
        break;
    case TN_EFORMAT:
        why = "the overlay is no overlay file";
        break;
    default:
        break;
    }
    fprintf(stderr, "microvm: %s%s%s: %s\n", disk->path, sep, overlay, why);
    return EXIT_INPUT;
}

int say_refused_net(const struct tn_vm_net_cfg *net, const struct tn_vm_devices *d, int err,
                    int sys)
{
    const char *why = err == TN_ESYS ? strerror(sys) : tn_strerror(err), *hint = "";
    enum tn_tap_phase phase = d->phase;

    if (d->refused_vhost) {
        if (err == TN_ENODEV)
            why = "the host has no /dev/vhost-net";
        else if (err == TN_ESYS && (sys == EPERM || sys == EACCES))
            hint = ": it takes leave to write /dev/vhost-net";
        fprintf(stderr, "microvm: --net: %s: vhost: %s%s\n", net->name, why, hint);
        return EXIT_HOST;
    }
    if (net->kind == TN_VM_NET_STREAM) {
        if (err == TN_ESYS && (sys == ENOENT || sys == ECONNREFUSED))
            hint = ": is passt running there?";
        if (err == TN_EINVAL)
            why = "its path is longer than 107 bytes";
        fprintf(stderr, "microvm: --net: %s: %s%s\n", net->name, why, hint);
        return EXIT_INPUT;
    }
    if (phase == TN_TAP_LONG)
        why = "no name of an interface: 1 to 15 bytes";
    else if (err == TN_EEXIST)
        why = "in use by another program";
    else if (err == TN_ENODEV)
        why = phase == TN_TAP_OPEN ? "the host has no /dev/net/tun" : "no such interface";
    else if (err == TN_EINVAL)
        why = "not a TAP, or not of as many queues";
    else if (err == TN_ESYS && (sys == EPERM || sys == EACCES))
        hint = ": it takes CAP_NET_ADMIN, or a TAP that is this user's";
    fprintf(stderr, "microvm: --net: %s: %s%s\n", net->name, why, hint);
    return err == TN_ESYS ? EXIT_HOST : EXIT_INPUT;
}

int say_refused_vsock(const struct tn_vm_vsock_cfg *vsock, int err, int sys)
{
    const char *why = err == TN_ESYS ? strerror(sys) : tn_strerror(err), *hint = "";

    if (vsock->vhost) {
        if (err == TN_ENODEV)
            why = "the host has no /dev/vhost-vsock";
        else if (err == TN_EEXIST)
            why = "another guest has this CID";
        else if (err == TN_ESYS && (sys == EPERM || sys == EACCES))
            hint = ": it takes leave to write /dev/vhost-vsock";
        fprintf(stderr, "microvm: --vsock: cid=%" PRIu32 ",vhost: %s%s\n", vsock->cid, why, hint);
        return err == TN_EEXIST ? EXIT_INPUT : EXIT_HOST;
    }
    if (err == TN_ESYS && sys == EADDRINUSE)
        why = "there is a file of that name already";
    fprintf(stderr, "microvm: --vsock: %s: %s\n", vsock->path, why);
    return EXIT_INPUT;
}

int say_refused(const struct microvm *m, int err)
{
    int sys = errno;

    if (m->args.cpus > (uint32_t)tn_kvm_cap(&m->kvm, KVM_CAP_MAX_VCPUS)) {
        fprintf(stderr, "microvm: --cpus %" PRIu32 ": this host's limit is %d\n", m->args.cpus,
                tn_kvm_cap(&m->kvm, KVM_CAP_MAX_VCPUS));
        return EXIT_USAGE;
    }
    if (m->vm.devices.refused)
        return say_refused_disk(&m->args.disk[m->vm.devices.refused - 1], err, sys);
    if (m->vm.devices.refused_net)
        return say_refused_net(&m->args.net[m->vm.devices.refused_net - 1], &m->vm.devices, err,
                               sys);
    if (m->vm.devices.refused_vsock)
        return say_refused_vsock(&m->args.vsock, err, sys);
    if (err == TN_ESYS && !m->vm.ram.ptr) {
        fprintf(stderr, "microvm: --memory: the host refuses %" PRIu64 " MiB%s: %s\n",
                m->args.memory >> 20, m->args.hugepages ? " of huge pages" : "", strerror(sys));
        return EXIT_HOST;
    }
    if (err == TN_ESYS || err == TN_ENODEV) {
        fprintf(stderr, "microvm: %s: %s\n", tn_strerror(err), strerror(sys));
        return EXIT_HOST;
    }
    return arch_say_load(m, err);
}

/* ---- snapshots ---- */

/* Whether DIR's state file ends with a MAC; -1: it can't be told. */
static int has_mac(const char *dir)
{
    char path[PATH_MAX];
    uint8_t head[TN_SNAP_HEADER];
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "%s/state", dir);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -1;
    n = read(fd, head, sizeof(head));
    close(fd);
    return n == (ssize_t)sizeof(head) ? head[12] & 1 : -1;
}

/* What is wrong with one of a snapshot's files. */
static const char *why_file(const struct microvm *m, int err, int sys)
{
    const struct tn_vm_fault *fault = &m->image.fault;
    bool state = strcmp(fault->file, "state") == 0;

    switch (err) {
    case TN_ESYS:
        return strerror(sys);
    case TN_ETRUNC:
        return "it ends too early";
    case TN_EFORMAT:
        return state ? "it is no snapshot, or damaged" : "it is longer than the snapshot says";
    case TN_EOVERLAP:
        return "a section is there twice";
    case TN_ERANGE:
        return fault->depth == TN_VM_IMAGE_LAYERS
                   ? "more than 64 snapshots, each a diff of the next"
                   : "a number is outside its limits";
    case TN_EUNSUP:
        return "it is of a later version, which this one can't read";
    case TN_EPROTO:
        if (!state || fault->at > 0)
            return "it was changed: a digest is wrong";
        if (fault->depth > 0)
            return "it is not the one that the diff was made of";
        if (!m->args.key)
            return "it is signed: --key FILE is needed";
        return has_mac(m->args.restore) == 0 ? "it is not signed, but --key is given"
                                             : "it was changed, or is signed with another key";
    default:
        return tn_strerror(err);
    }
}

int say_image(const struct microvm *m, int err)
{
    const struct tn_vm_fault *fault = &m->image.fault;
    const char *dir = m->args.restore;
    int sys = errno;

    if (!fault->file && fault->lack.kind != 0) {
        arch_say_lack(dir, &fault->lack);
        return EXIT_HOST;
    }
    if (!fault->file) {
        fprintf(stderr, "microvm: %s: %s\n", dir,
                err == TN_ESYS ? strerror(sys) : tn_strerror(err));
        return err == TN_ESYS ? EXIT_HOST : EXIT_INPUT;
    }
    fprintf(stderr, "microvm: %s/%s", dir, fault->file);
    if (strcmp(fault->file, "disk") == 0)
        fprintf(stderr, "%" PRIu64 ".overlay", fault->at);
    if (fault->depth > 0)
        fprintf(stderr, ", %" PRIu32 " before it in the chain of diffs", fault->depth);
    if (fault->at > 0 && strcmp(fault->file, "disk") != 0)
        fprintf(stderr, ", at byte %" PRIu64, fault->at);
    fprintf(stderr, ": %s\n", why_file(m, err, sys));
    return EXIT_INPUT;
}

/* "clone 3: " where there are many; "" for the only one. */
static const char *name_clone(char text[32], int k)
{
    text[0] = 0;
    if (k >= 0)
        snprintf(text, 32, "clone %d: ", k);
    return text;
}

int say_clone(const struct tn_vm *vm, const struct tn_vm_clone_cfg *cfg, int k, int err)
{
    char text[32];
    const char *name = name_clone(text, k);
    int sys = errno;

    if (vm->devices.refused)
        return say_refused_disk(&cfg->disk[vm->devices.refused - 1], err, sys);
    if (vm->devices.refused_net)
        return say_refused_net(&cfg->net[vm->devices.refused_net - 1], &vm->devices, err, sys);
    if (vm->devices.refused_vsock)
        return say_refused_vsock(&cfg->vsock, err, sys);
    if (arch_say_kvm(name, &vm->refused, sys))
        return EXIT_HOST;
    fprintf(stderr, "microvm: %s%s%s\n", name, err == TN_ESYS ? strerror(sys) : tn_strerror(err),
            err == TN_ESYS && (sys == EMFILE || sys == ENFILE) ? ": see ulimit -n" : "");
    return err == TN_ESYS || err == TN_ENODEV || err == TN_EAGAIN ? EXIT_HOST : EXIT_INPUT;
}

/* ---- the end ---- */

int output_error(const struct tn_vm *vm)
{
    const struct tn_vm_hvc *hvc = vm->devices.hvc;

    return vm->board.console.error || !hvc ? vm->board.console.error : hvc->console.error;
}

int say_end(const struct tn_vm *vm, int k, bool stopping)
{
    const struct tn_vm_end *end = &vm->end;
    char text[32];
    const char *name = name_clone(text, k);

    switch (end->reason) {
    case TN_VM_POWEROFF:
        return EXIT_GUEST_OFF;
    case TN_VM_RESET:
        return stopping ? EXIT_GUEST_OFF : EXIT_GUEST_RESET;
    case TN_VM_PANIC:
        fprintf(stderr, "microvm: %sthe guest's kernel panicked\n", name);
        return EXIT_GUEST_PANIC;
    case TN_VM_CRASH:
        fprintf(stderr, "microvm: %sthe guest crashed: triple fault on vCPU %" PRIu32 "\n", name,
                end->cpu);
        return EXIT_GUEST_CRASH;
    case TN_VM_KILLED:
        return EXIT_KILLED;
    default:
        if (vm->lazy && end->exit == 0) {
            fprintf(stderr, "microvm: %sthe snapshot's memory at byte %" PRIu64 ": %s\n", name,
                    end->detail[0],
                    end->err == TN_ESYS ? strerror(end->sys_errno) : tn_strerror(end->err));
            return EXIT_INPUT;
        }
        fprintf(stderr,
                "microvm: %svCPU %" PRIu32 " failed: %s%s%s, KVM exit %" PRIu32 ", detail %" PRIu64
                "\n",
                name, end->cpu, tn_strerror(end->err), end->err == TN_ESYS ? ": " : "",
                end->err == TN_ESYS ? strerror(end->sys_errno) : "", end->exit, end->detail[0]);
        return EXIT_HOST;
    }
}
