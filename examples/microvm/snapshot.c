/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Snapshots: taking them, opening them, and machines made of them with disks of their own. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "microvm.h"
#include "tn_strerror.h"

/* ---- taking one ---- */

static int refuse(const char *dir, const char *why)
{
    fprintf(stderr, "microvm: --snapshot %s: %s\n", dir, why);
    return EXIT_INPUT;
}

/* Whether nothing is in a directory that can be read. */
static bool is_empty(DIR *dir)
{
    const struct dirent *entry;

    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            return false;
    }
    return true;
}

/* Whether there can be a new directory of that name. */
static bool can_make(const char *name)
{
    char *copy = strdup(name);
    bool can = copy && access(dirname(copy), W_OK | X_OK) == 0;

    free(copy);
    return can;
}

int snapshot_check(const struct args *args)
{
    DIR *dir = opendir(args->snapshot);
    bool empty;

    if (!dir && errno == ENOENT && can_make(args->snapshot))
        return -1;
    if (!dir)
        return refuse(args->snapshot, strerror(errno));
    empty = is_empty(dir);
    closedir(dir);
    return empty ? -1 : refuse(args->snapshot, "the directory is there, and not empty");
}

/* MiB that a directory's files have on the disk. */
static double dir_mib(const char *name)
{
    DIR *dir = opendir(name);
    const struct dirent *entry;
    struct stat st;
    uint64_t bytes = 0;

    while (dir && (entry = readdir(dir)) != NULL) {
        if (fstatat(dirfd(dir), entry->d_name, &st, 0) == 0 && S_ISREG(st.st_mode))
            bytes += (uint64_t)st.st_blocks * 512;
    }
    if (dir)
        closedir(dir);
    return (double)bytes / (1 << 20);
}

int snapshot_take(struct microvm *m)
{
    struct tn_vm_snapshot_cfg cfg;
    uint64_t begin = now_ns();
    char *dir = NULL;
    int r = tn_vm_pause(&m->vm);

    if (r < 0)
        return r;
    memset(&cfg, 0, sizeof(cfg));
    cfg.dir = m->args.snapshot;
    if (m->snapshots > 0) {
        r = asprintf(&dir, "%s.%" PRIu32, m->args.snapshot, m->snapshots) < 0 ? TN_ESYS : TN_OK;
        cfg.dir = r < 0 ? m->args.snapshot : dir;
    }
    m->snapshots++;
    cfg.diff = m->args.diff && m->based;
    cfg.sync = m->args.sync;
    cfg.key = m->args.key ? &m->key : NULL;
    for (uint32_t i = 0; m->args.snapshot_when && i < 2; i++)
        pump_drain(&m->pump[i]); /* the snapshot begins after what has been seen */
    if (r >= 0)
        r = tn_vm_snapshot(&m->vm, &cfg);
    m->based = m->based || r >= 0;
    if (r >= 0)
        fprintf(stderr, "microvm: snapshot in %s%s: %.1f MiB, %.1f ms\n", cfg.dir,
                cfg.diff ? ", of what has changed" : "", dir_mib(cfg.dir),
                (double)(now_ns() - begin) / 1e6);
    else
        fprintf(stderr, "microvm: no snapshot in %s: %s\n", cfg.dir,
                r == TN_ESYS     ? strerror(errno)
                : r == TN_EEXIST ? "the directory is there, and not empty"
                                 : tn_strerror(r));
    free(dir);
    return r;
}

/* ---- opening one ---- */

/* What clones cannot share. */
static int check_image(const struct microvm *m)
{
    const struct tn_vm_state *s = &m->image.state;

    for (uint32_t i = 0; i < s->disks && !m->args.same; i++) {
        const struct tn_vm_disk_record *disk = &s->disk[i].record;

        if (!disk->read_only && !disk->overlaid) {
            fprintf(stderr,
                    "microvm: %s: disk %" PRIu32 ", %s, can be written and has no overlay: clones "
                    "cannot share it; --same if there is to be no other machine\n",
                    m->args.restore, i, disk->path);
            return EXIT_INPUT;
        }
    }
    if (s->machine.genid_gpa == 0 && !m->args.same) {
        fprintf(stderr,
                "microvm: %s: the guest cannot be told that it is a clone; --same if there is to "
                "be no other machine\n",
                m->args.restore);
        return EXIT_INPUT;
    }
    return -1;
}

int image_open(struct microvm *m)
{
    struct tn_vm_image_cfg cfg;
    int r;

    memset(&cfg, 0, sizeof(cfg));
    cfg.dir = m->args.restore;
    cfg.lazy = m->args.lazy;
    cfg.key = m->args.key ? &m->key : NULL;
    r = tn_vm_image_open(&m->image, &m->kvm, &cfg);
    m->based = r >= 0;
    return r < 0 ? say_image(m, r) : check_image(m);
}

/* ---- disks of their own ---- */

int overlays_open(struct microvm *m, char **dir)
{
    const struct tn_vm_state *s = &m->image.state;
    const char *tmp = getenv("TMPDIR");
    uint32_t i = 0;

    *dir = NULL;
    while (i < s->disks && (s->disk[i].record.read_only || !s->disk[i].record.overlaid))
        i++;
    if (i == s->disks)
        return -1;
    if (m->args.same && !m->args.overlays) {
        fprintf(stderr,
                "microvm: --same: what is written to disk %" PRIu32
                " has to stay: --overlays DIR says where\n",
                i);
        return EXIT_USAGE;
    }
    if (m->args.overlays) {
        *dir = strdup(m->args.overlays);
        if (*dir && (mkdir(*dir, 0700) == 0 || errno == EEXIST))
            return -1;
    } else if (asprintf(dir, "%s/microvm.XXXXXX", tmp && *tmp ? tmp : "/var/tmp") < 0) {
        *dir = NULL;
    } else if (mkdtemp(*dir)) {
        return -1;
    }
    fprintf(stderr, "microvm: overlays in %s: %s\n", *dir ? *dir : "memory", strerror(errno));
    free(*dir);
    *dir = NULL;
    return EXIT_INPUT;
}

void overlays_close(const struct microvm *m, char *dir)
{
    if (dir && !m->args.overlays)
        (void)rmdir(dir);
    free(dir);
}

/* A name of clone k: a % in it is its number. Returns false if it is too long. */
static bool name_for(char *out, size_t size, const char *name, uint32_t k)
{
    const char *at = strchr(name, '%');
    int n = at ? snprintf(out, size, "%.*s%" PRIu32 "%s", (int)(at - name), name, k, at + 1)
               : snprintf(out, size, "%s", name);

    return n >= 0 && (size_t)n < size;
}

/*
 * The networks and the socket device of clone k: those of the command line, or else the image's. A
 * clone among others has to have its own.
 */
static int clone_names(const struct microvm *m, uint32_t k, struct tn_vm_net_cfg *row,
                       char (*name)[PATH_MAX], struct tn_vm_vsock_cfg *vsock, char *path)
{
    const struct tn_vm_state *s = &m->image.state;
    const struct args *a = &m->args;
    bool lacks = false;

    if (a->nets > 0 && a->nets != s->nets) {
        fprintf(stderr, "microvm: --net: %" PRIu32 " given, the snapshot has %" PRIu32 "\n",
                a->nets, s->nets);
        return EXIT_USAGE;
    }
    if ((a->vsock.path || a->vsock.vhost || a->vsock.cid) && !s->vsock) {
        fputs("microvm: --vsock: the snapshot has no socket device\n", stderr);
        return EXIT_USAGE;
    }
    if (s->vsock) {
        vsock->vhost = a->vsock.vhost || (!a->vsock.path && s->vsock->record.vhost);
        lacks = vsock->vhost ? !a->vsock.cid : !a->vsock.path;
    }
    if (a->forks > 1 && ((s->nets > 0 && a->nets == 0) || lacks)) {
        fprintf(stderr, "microvm: --forks: each clone needs its own %s\n",
                !lacks         ? "--net, with a % in its name"
                : vsock->vhost ? "--vsock cid=N, which is the first one's"
                               : "--vsock path=PATH with a % in it");
        return EXIT_USAGE;
    }
    for (uint32_t i = 0; i < s->nets; i++) {
        row[i].kind = a->nets ? a->net[i].kind : s->net[i].record.kind;
        row[i].vhost = a->nets ? a->net[i].vhost : s->net[i].record.vhost;
        row[i].fd = -1;
        row[i].name = name[i];
        if (!name_for(name[i], PATH_MAX, a->nets ? a->net[i].name : s->net[i].record.name, k))
            return EXIT_USAGE;
    }
    if (s->vsock) {
        vsock->cid = a->vsock.cid ? a->vsock.cid + k : s->vsock->record.cid;
        vsock->path = vsock->vhost ? NULL : path;
        if (!name_for(path, PATH_MAX, a->vsock.path ? a->vsock.path : s->vsock->record.path, k))
            return EXIT_USAGE;
    }
    return -1;
}

int clone_make(struct microvm *m, struct tn_vm *vm, uint32_t k, struct tn_vm_clone_cfg *cfg,
               const char *dir)
{
    static char path[TN_VM_MAX_DISKS][PATH_MAX], net_name[TN_VM_MAX_NETS][PATH_MAX];
    static char socket_path[PATH_MAX];
    struct tn_vm_disk_cfg row[TN_VM_MAX_DISKS];
    struct tn_vm_net_cfg net[TN_VM_MAX_NETS];
    const struct tn_vm_state *s = &m->image.state;
    int name = m->args.forks ? (int)k : -1, r;

    memset(row, 0, sizeof(row));
    memset(net, 0, sizeof(net));
    r = clone_names(m, k, net, net_name, &cfg->vsock, socket_path);
    if (r >= 0)
        return r;
    cfg->net = net;
    cfg->nets = s->nets;
    for (uint32_t i = 0; i < s->disks; i++) {
        const struct tn_vm_disk_record *disk = &s->disk[i].record;

        row[i].path = disk->path;
        if (!disk->overlaid)
            continue;
        row[i].overlay = path[i];
        if (disk->read_only)
            r = snprintf(path[i], PATH_MAX, "%s/disk%" PRIu32 ".overlay", m->image.dir, i);
        else
            r = snprintf(path[i], PATH_MAX, "%s/disk%" PRIu32 ".clone%" PRIu32, dir, i, k);
        if (r >= PATH_MAX || (!disk->read_only && access(path[i], F_OK) == 0)) {
            fprintf(stderr, "microvm: %s: %s\n", path[i],
                    strerror(r >= PATH_MAX ? ENAMETOOLONG : EEXIST));
            return EXIT_INPUT;
        }
    }
    cfg->disk = row;
    cfg->disks = s->disks;
    cfg->memory = m->args.lazy ? TN_VM_MEMORY_LAZY : TN_VM_MEMORY_MAP;
    cfg->track_dirty = m->args.diff;
    r = m->args.same ? tn_vm_restore(vm, &m->kvm, &m->loop, &m->image, cfg)
                     : tn_vm_fork(vm, &m->kvm, &m->loop, &m->image, cfg);
    if (r < 0)
        r = say_clone(vm, cfg, name, r);
    cfg->disk = NULL;
    cfg->net = NULL;
    if (r > 0)
        return r;
    for (uint32_t i = 0; i < s->disks && !m->args.overlays; i++) {
        if (row[i].overlay && !s->disk[i].record.read_only)
            (void)unlink(row[i].overlay);
    }
    return -1;
}
