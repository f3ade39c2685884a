/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What a snapshot is, and whether it holds: reads DIR without KVM, checks every digest, and the
 * MAC where there is a key. Exits with 0 when all is right, 1 when something is not, 2 for bad
 * usage.
 *
 *   snapinfo /var/lib/vm/golden
 */
#include "tn_vm_image.h"

#include <inttypes.h>
#include <time.h>

#include "tn_strerror.h"

#define KEY_MAX 4096u

struct options {
    struct tn_vm_image_cfg open;
    struct tn_snap_key key;
    uint8_t key_bytes[KEY_MAX + 1];
};

/* ---- what the numbers mean ---- */

static const char *section_name(uint32_t type)
{
    static const struct {
        uint32_t type;
        const char *name;
    } names[] = {
        {TN_VM_SEC_MACHINE, "machine"},
        {TN_VM_SEC_DISK, "disk"},
        {TN_VM_SEC_NET, "net"},
        {TN_VM_SEC_VSOCK, "vsock"},
        {TN_VM_SEC_BALLOON, "balloon"},
        {TN_VM_SEC_TIME, "time"},
        {TN_VM_SEC_ARM64_TIME, "time"},
        {TN_VM_SEC_VCPU_CPUID, "vCPU CPUID"},
        {TN_VM_SEC_VCPU_SREGS, "vCPU segments"},
        {TN_VM_SEC_VCPU_REGS, "vCPU registers"},
        {TN_VM_SEC_VCPU_XCRS, "vCPU XCRs"},
        {TN_VM_SEC_VCPU_XSAVE, "vCPU XSAVE"},
        {TN_VM_SEC_VCPU_LAPIC, "vCPU APIC"},
        {TN_VM_SEC_VCPU_DEBUGREGS, "vCPU debug"},
        {TN_VM_SEC_VCPU_TSC, "vCPU TSC"},
        {TN_VM_SEC_VCPU_MSRS, "vCPU MSRs"},
        {TN_VM_SEC_VCPU_EVENTS, "vCPU events"},
        {TN_VM_SEC_ARM64_VCPU, "vCPU registers"},
        {TN_VM_SEC_PIC_MASTER, "PIC master"},
        {TN_VM_SEC_PIC_SLAVE, "PIC slave"},
        {TN_VM_SEC_IOAPIC, "I/O APIC"},
        {TN_VM_SEC_PIT, "PIT"},
        {TN_VM_SEC_GIC, "GIC"},
        {TN_VM_SEC_GIC_CPU, "vCPU GIC"},
        {TN_VM_SEC_UART, "UART"},
        {TN_VM_SEC_I8042, "i8042"},
        {TN_VM_SEC_RTC, "RTC"},
        {TN_VM_SEC_GPIO, "GPIO"},
        {TN_VM_SEC_VIRTIO_MMIO, "virtio-mmio"},
        {TN_VM_SEC_VIRTIO, "virtio"},
        {TN_VM_SEC_VIRTIO_BLK, "virtio-blk"},
        {TN_VM_SEC_VIRTIO_CONSOLE, "virtio-console"},
        {TN_VM_SEC_VIRTIO_RNG, "virtio-rng"},
        {TN_VM_SEC_VIRTIO_NET, "virtio-net"},
        {TN_VM_SEC_VIRTIO_VSOCK, "virtio-vsock"},
        {TN_VM_SEC_VIRTIO_BALLOON, "virtio-balloon"},
        {TN_VM_SEC_RATE, "rate"},
        {TN_VM_SEC_OVERLAY, "overlay"},
        {TN_VM_SEC_DIFF, "diff"},
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].type == type)
            return names[i].name;
    }
    return "unknown";
}

static void print_hex(const uint8_t *bytes, size_t len)
{
    while (len-- > 0)
        printf("%02x", *bytes++);
}

/* A text that may hold anything: its control bytes must not reach the terminal. */
static void print_text(const char *text)
{
    for (; *text; text++)
        putchar((uint8_t)*text < 0x20 || *text == 0x7f ? '?' : *text);
}

/* ---- the parts ---- */

static void print_time(uint64_t ns)
{
    time_t s = (time_t)(ns / 1000000000u);
    struct tm tm;
    char text[64];

    if (gmtime_r(&s, &tm) && strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &tm) > 0)
        printf("taken     %s\n", text);
}

static void print_machine(const struct tn_vm_state *s)
{
    static const struct {
        uint32_t flag;
        const char *name;
    } flags[] = {
        {TN_VM_MACHINE_CONSOLE, "serial console"},
        {TN_VM_MACHINE_VIRTIO_CONSOLE, "virtio console"},
        {TN_VM_MACHINE_RNG, "virtio entropy"},
        {TN_VM_MACHINE_PACKED, "packed rings"},
        {TN_VM_MACHINE_NO_INDIRECT, "no indirect descriptors"},
        {TN_VM_MACHINE_NO_EVENT_IDX, "no event indices"},
    };
    const struct tn_vm_machine_record *m = &s->machine;

    printf("machine   %" PRIu64 " MiB, %" PRIu32 " vCPU%s", m->memory >> 20, m->cpus,
           m->cpus == 1 ? "" : "s");
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if (m->flags & flags[i].flag)
            printf(", %s", flags[i].name);
    }
    printf("\ngenid     ");
    if (m->genid_gpa)
        printf("at 0x%" PRIx64 "\n", m->genid_gpa);
    else
        printf("none: it cannot be cloned\n");
    print_time(s->arch.time.realtime_ns);
}

static void print_disks(const struct tn_vm_state *s)
{
    for (uint32_t i = 0; i < s->disks; i++) {
        const struct tn_vm_disk_record *disk = &s->disk[i].record;

        printf("disk %-4" PRIu32 " %" PRIu64 " bytes, ", i, disk->size);
        print_text(disk->path);
        printf("%s%s%s\n", disk->read_only ? ", read-only" : "", disk->overlaid ? ", overlay" : "",
               disk->read_only || disk->overlaid ? "" : ", written in place: it cannot be cloned");
    }
}

static void print_nets(const struct tn_vm_state *s)
{
    static const char *const kinds[] = {"TAP", "macvtap", "stream", "pair"};

    for (uint32_t i = 0; i < s->nets; i++) {
        const struct tn_vm_net_record *net = &s->net[i].record;

        printf("net %-5" PRIu32 " ", i);
        for (size_t k = 0; k < sizeof(net->mac); k++)
            printf("%s%02x", k ? ":" : "", net->mac[k]);
        if (net->kind < sizeof(kinds) / sizeof(kinds[0]))
            printf(", %s", kinds[net->kind]);
        else
            printf(", of kind %" PRIu32 ", which there is not", net->kind);
        putchar(*net->name ? ' ' : ',');
        print_text(*net->name ? net->name : " given open: to be given again");
        if (net->pairs > 1)
            printf(", %" PRIu32 " pairs of queues", net->pairs);
        if (net->vhost)
            printf(", served by vhost");
        if (net->mtu)
            printf(", MTU %" PRIu16, net->mtu);
        printf("\n");
    }
}

static void print_sockets(const struct tn_vm_state *s)
{
    if (!s->vsock)
        return;
    printf("sockets   CID %" PRIu32 ", ", s->vsock->record.cid);
    if (s->vsock->record.vhost) {
        puts("served by vhost");
        return;
    }
    print_text(s->vsock->record.path);
    printf(", %" PRIu32 " connections at most\n", s->vsock->record.conns);
}

static void print_balloon(const struct tn_vm_state *s)
{
    if (!s->balloon)
        return;
    printf("balloon   %" PRIu64 " bytes, to be %" PRIu64 "\n",
           (uint64_t)s->balloon->model.actual * TN_VIRTIO_BALLOON_PAGE, s->balloon->record.size);
}

/* How many bytes of a file are not holes. */
static uint64_t allocated(int fd)
{
    struct stat st;

    return fstat(fd, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

static void print_memory(const struct tn_vm_image *image)
{
    static const uint8_t none[TN_SNAP_ID];
    const struct tn_vm_layer *top = &image->layer[image->layers - 1];
    uint64_t pages = 0;

    printf("memory    %" PRIu64 " chunks of %" PRIu32 " bytes, %" PRIu64 " bytes in the file\n",
           tn_snap_chunks(&image->memory), image->memory.chunk, allocated(top->file->fd));
    if (memcmp(image->memory.parent, none, sizeof(none)) == 0)
        return;
    for (uint32_t i = 0; i < top->runs; i++)
        pages += top->run[i].count;
    printf("diff      %" PRIu64 " pages in %" PRIu32 " runs, of ", pages, top->runs);
    print_hex(image->memory.parent, sizeof(image->memory.parent));
    printf("\nchain     %" PRIu32 " snapshots\n", image->layers);
}

/* ---- the sections, as they are in the file ---- */

static void print_sections(const struct tn_snap *snap)
{
    struct tn_snap_section s;
    size_t at = 0;

    printf("\n%-16s %8s %7s %9s  %s\n", "section", "instance", "version", "bytes", "digest");
    while (tn_snap_next(snap, &at, &s)) {
        printf("%-16s %8" PRIu32 " %7" PRIu32 " %9zu  ", section_name(s.type), s.instance,
               s.version, s.len);
        print_hex(s.bytes - TN_SHA256_LEN, 8);
        printf("%s\n", s.flags & TN_SNAP_REQUIRED ? "" : ", optional");
    }
}

/* All of a file up to cap bytes; what is longer is cut. Returns its length, or -1. */
static ssize_t read_file(const char *path, uint8_t *buf, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    size_t len = 0;
    ssize_t n = fd < 0 ? -1 : 1;

    while (n > 0 && len < cap) {
        n = read(fd, buf + len, cap - len);
        len += n > 0 ? (size_t)n : 0;
    }
    if (fd >= 0)
        close(fd);
    return n < 0 ? -1 : (ssize_t)len;
}

/* The state file once more, which the image has forgotten; it was found right a moment ago. */
static int print_state(const struct tn_vm_image *image, const struct options *o)
{
    char path[PATH_MAX];
    struct tn_snap snap;
    struct stat st;
    uint8_t *bytes;
    ssize_t len;
    int r = TN_ESYS;

    if (snprintf(path, sizeof(path), "%s/state", o->open.dir) >= PATH_MAX || stat(path, &st) < 0)
        return r;
    bytes = (uint8_t *)malloc((size_t)st.st_size + 1);
    len = bytes ? read_file(path, bytes, (size_t)st.st_size + 1) : -1;
    if (len >= 0)
        r = tn_snap_open(&snap, bytes, (size_t)len, o->open.key, NULL, 0);
    if (r >= 0 && memcmp(snap.id, image->id, sizeof(snap.id)) != 0)
        r = TN_EPROTO;
    if (r >= 0) {
        printf("format    version %" PRIu32 "%s\n", snap.version,
               snap.keyed ? ", signed with the key" : "");
        print_machine(&image->state);
        print_disks(&image->state);
        print_nets(&image->state);
        print_sockets(&image->state);
        print_balloon(&image->state);
        print_memory(image);
        print_sections(&snap);
    }
    free(bytes);
    return r;
}

/* ---- the program ---- */

/* One line: which file, where, and what. */
static int say_wrong(const char *dir, const struct tn_vm_fault *fault, int err)
{
    int sys = errno;

    fprintf(stderr, "snapinfo: %s", dir);
    if (fault->file && strcmp(fault->file, "disk") == 0)
        fprintf(stderr, "/disk%" PRIu64 ".overlay", fault->at);
    else if (fault->file)
        fprintf(stderr, "/%s", fault->file);
    if (fault->depth > 0)
        fprintf(stderr, ", %" PRIu32 " before it in the chain of diffs", fault->depth);
    if (fault->file && fault->at > 0 && strcmp(fault->file, "disk") != 0)
        fprintf(stderr, ", at byte %" PRIu64, fault->at);
    fprintf(stderr, ": %s\n", err == TN_ESYS ? strerror(sys) : tn_strerror(err));
    return 1;
}

static int usage(FILE *to, int code)
{
    fputs("usage: snapinfo [--key FILE] [--parent DIR] DIR\n"
          "Prints what a snapshot is, and checks that it holds.\n"
          "  --key FILE    the secret that it is signed with, 16 to 4096 bytes\n"
          "  --parent DIR  where the snapshot is that it is a diff of; default: as it says\n",
          to);
    return code;
}

/* Returns -1, or the code to exit with. */
static int parse(int argc, char **argv, struct options *o)
{
    ssize_t n;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0)
            return usage(stdout, 0);
        if (strcmp(argv[i], "--parent") == 0 && i + 1 < argc) {
            o->open.parent = argv[++i];
        } else if (strcmp(argv[i], "--key") == 0 && i + 1 < argc) {
            n = read_file(argv[++i], o->key_bytes, sizeof(o->key_bytes));
            if (n < (ssize_t)TN_SNAP_KEY_MIN || n > (ssize_t)KEY_MAX) {
                fprintf(stderr, "snapinfo: --key %s: %s\n", argv[i],
                        n < 0 ? strerror(errno) : "a key has 16 to 4096 bytes");
                return 2;
            }
            o->key.bytes = o->key_bytes;
            o->key.len = (size_t)n;
            o->open.key = &o->key;
        } else if (argv[i][0] == '-' || o->open.dir) {
            return usage(stderr, 2);
        } else {
            o->open.dir = argv[i];
        }
    }
    return o->open.dir && *o->open.dir ? -1 : usage(stderr, 2);
}

int main(int argc, char **argv)
{
    static struct options options;
    static struct tn_vm_image image;
    int code = parse(argc, argv, &options), r;

    if (code >= 0)
        return code;
    r = tn_vm_image_open(&image, NULL, &options.open);
    if (r < 0)
        return say_wrong(options.open.dir, &image.fault, r);
    printf("snapshot  ");
    print_text(options.open.dir);
    printf("\nname      ");
    print_hex(image.id, sizeof(image.id));
    printf("\n");
    r = print_state(&image, &options);
    if (r < 0)
        code = say_wrong(options.open.dir, &image.fault, r);
    else if (printf("\nsnapshot holds\n") < 0 || fflush(stdout) != 0)
        code = 1;
    else
        code = 0;
    tn_vm_image_close(&image);
    return code;
}
