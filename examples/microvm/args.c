/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "args.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch.h"
#include "tn_cmdline.h"
#include "tn_virtio_net.h"
#include "tn_vsock_unix.h"

static const char help[] =
    "microvm: boots a Linux kernel in a small virtual machine\n"
    "\n"
    "usage: microvm --kernel FILE [option ...]\n"
    "       microvm --restore DIR [option ...]\n"
    "\n"
    "  --kernel FILE     " ARCH_HELP_KERNEL "\n"
    "  --initrd FILE     an initial RAM disk or initramfs\n"
    "  --cmdline TEXT    the kernel's command line; default: console=ttyS0 panic=-1\n"
    "  --memory SIZE     RAM, " ARCH_RAM "; suffixes K, M, G, T; default: 256M\n"
    "  --cpus N          virtual CPUs, " ARCH_CPUS "; default: 1\n"
    "  --console WHERE   the serial port ttyS0: stdio, pty, file:PATH or none; default: stdio\n"
    "  --boot HOW        " ARCH_HELP_BOOT ARCH_HELP_DTB
    "  --hugepages       back the RAM with the host's pool of 2 MiB pages\n"
    "  --disk PATH[,...] a disk, a file or block device; the first is /dev/vda; repeatable\n"
    "       ,ro            the guest cannot write\n"
    "       ,overlay=FILE  PATH is only read; what is written goes to FILE, made if missing\n"
    "       ,direct        past the host's page cache (O_DIRECT)\n"
    "       ,id=TEXT       serial number, 20 bytes at most\n"
    "       ,rate=SIZE     bytes a second at most; ,iops=N requests a second at most\n"
    "  --rootfs PATH[,...] as --disk, as /dev/vda, with root=/dev/vda for the kernel\n"
    "  --virtio-console  the console is hvc0 too: it has the input, both have the output\n"
    "  --rng             an entropy source, /dev/hwrng\n"
    "  --net HOW[,...]   a network device; repeatable. HOW is tap=NAME (made if missing),\n"
    "                    macvtap=NAME, or passt=PATH, the Unix socket of a running passt\n"
    "       ,mac=ADDRESS   xx:xx:xx:xx:xx:xx; default: the macvtap's, or one at random\n"
    "       ,mtu=N         what the guest is told, 68 to 65535 bytes\n"
    "       ,queues=N      queue pairs of a TAP, 1 to 7; default: 1\n"
    "       ,vhost         the host's kernel moves the frames of a TAP or macvtap (vhost-net)\n"
    "       ,rate=SIZE     bytes a second at most, each way\n"
    "       ,no-offload    no checksums and segments are left to the device\n"
    "  --vsock cid=N,path=PATH  a socket device: CONNECT lines at the Unix socket PATH reach the\n"
    "                    guest's ports, the guest reaches PATH_port\n"
    "  --vsock cid=N,vhost  the same by the host's kernel (vhost-vsock): its programs use "
    "AF_VSOCK\n"
    "  --balloon SIZE    a memory balloon; a plain number is MiB. 0: empty, for what the guest\n"
    "                    reports to be free\n"
    "  --ring HOW        virtqueues: split or packed, and ,no-indirect ,no-event-idx;\n"
    "                    default: split\n"
    "\n"
    "  --snapshot DIR[,...]  SIGUSR1 saves the machine to DIR, then to DIR.1, DIR.2, ...\n"
    "       ,diff          only what has changed since the one before\n"
    "       ,sync          it is on the disk before the machine goes on\n"
    "  --snapshot-when TEXT  not SIGUSR1: when the console has said TEXT, and then exit\n"
    "  --restore DIR     go on from a snapshot; in place of --kernel and all that describes\n"
    "                    the machine. It becomes one more machine, with an id of its own\n"
    "  --same            it is the one that was saved, and goes on; there is no other\n"
    "  --lazy            read its memory when it is touched, not before\n"
    "  --overlays DIR    keep what is written to disks in DIR; default: it is forgotten\n"
    "  --forks N         N clones of it, 1 to 10000, side by side\n"
    "  With --restore, --net HOW and --vsock path=PATH or vhost say where this machine's are;\n"
    "  with --forks a % in NAME or PATH is the clone's number, which is added to cid=N, too.\n"
    "  --key FILE        snapshots are signed with this secret, 16 to 4096 bytes\n"
    "\n"
    "  --version         print the version\n"
    "  --help            print this\n"
    "\n"
    "With the console on a terminal, Ctrl-A X leaves, Ctrl-A Ctrl-A sends a Ctrl-A. SIGTERM asks\n"
    "the guest to shut down by its power button, SIGINT by ctrl-alt-del; after 10 s, or at the\n"
    "second of these signals, the machine is ended.\n"
    "\n"
    "exit codes: 0 the guest powered off, 2 bad usage, 3 no KVM, 4 a file or what is in it,\n"
    "5 the host failed, 10 the guest asked for a reset, 11 it crashed, 12 it panicked (where its\n"
    "kernel has the pvpanic driver), 13 ended from outside, 14 off before --snapshot-when's TEXT\n";

static int bad(const char *option, const char *value, const char *limit)
{
    fprintf(stderr, "microvm: %s %s: %s\n", option, value, limit);
    return EXIT_USAGE;
}

/* A whole number of the unit that its suffix names, exact or refused. */
static bool parse_size(const char *text, uint64_t *out)
{
    static const char units[] = "KMGT";
    char *end;
    const char *unit;
    unsigned shift = 0;
    unsigned long long n;

    if (*text < '0' || *text > '9')
        return false;
    n = strtoull(text, &end, 10);
    if (*end) {
        unit = strchr(units, *end);
        if (!unit || end[1])
            return false;
        shift = 10 * (unsigned)(unit - units + 1);
    }
    if (n > UINT64_MAX >> shift)
        return false;
    *out = (uint64_t)n << shift;
    return true;
}

static int parse_memory(const char *value, struct args *out)
{
    static const char limit[] = "RAM is " ARCH_RAM "; suffixes K, M, G, T";
    struct tn_loader_range ram[TN_VM_ARCH_RAM];

    if (!parse_size(value, &out->memory) || tn_vm_arch_ram(out->memory, ram) < 0)
        return bad("--memory", value, limit);
    return -1;
}

static int parse_cpus(const char *value, struct args *out)
{
    uint64_t n;

    if (!parse_size(value, &n) || n < 1 || n > TN_VM_ARCH_MAX_CPUS)
        return bad("--cpus", value, ARCH_CPUS " virtual CPUs" ARCH_CPUS_WHY);
    out->cpus = (uint32_t)n;
    return -1;
}

static int parse_console(const char *value, struct args *out)
{
    if (strcmp(value, "stdio") == 0) {
        out->console = CONSOLE_STDIO;
    } else if (strcmp(value, "pty") == 0) {
        out->console = CONSOLE_PTY;
    } else if (strcmp(value, "none") == 0) {
        out->console = CONSOLE_NONE;
    } else if (strncmp(value, "file:", 5) == 0 && value[5]) {
        out->console = CONSOLE_FILE;
        out->console_path = value + 5;
    } else {
        return bad("--console", value, "stdio, pty, file:PATH or none");
    }
    return -1;
}

static int parse_boot(const char *value, struct args *out)
{
    for (uint32_t i = 0; arch_boot[i]; i++) {
        if (strcmp(value, arch_boot[i]) == 0) {
            out->boot = i;
            out->say_boot = true;
            return -1;
        }
    }
    return bad("--boot", value, ARCH_BOOT);
}

/*
 * Cuts the next item off a list with commas, in place; a comma of its own is written twice. Returns
 * it, or NULL at the end.
 */
static char *next_item(char **list)
{
    char *item = *list, *to = item, *from = item;

    if (!item)
        return NULL;
    while (*from && (*from != ',' || from[1] == ',')) {
        from += *from == ',';
        *to++ = *from++;
    }
    *list = *from ? from + 1 : NULL;
    *to = 0;
    return item;
}

/* The value of "key=value" in item, or NULL. */
static const char *value_of(const char *item, const char *key)
{
    size_t n = strlen(key);

    return strncmp(item, key, n) == 0 && item[n] == '=' ? item + n + 1 : NULL;
}

static int parse_disk_item(const char *option, const char *item, struct tn_vm_disk_cfg *disk)
{
    const char *value;

    if (strcmp(item, "ro") == 0) {
        disk->read_only = true;
    } else if (strcmp(item, "direct") == 0) {
        disk->direct = true;
    } else if ((value = value_of(item, "overlay"))) {
        if (!*value)
            return bad(option, item, "the name of a file");
        disk->overlay = value;
    } else if ((value = value_of(item, "id"))) {
        if (strlen(value) > 20)
            return bad(option, item, "20 bytes at most");
        disk->id = value;
    } else if ((value = value_of(item, "rate"))) {
        if (!parse_size(value, &disk->rate.bytes_per_s) || !disk->rate.bytes_per_s)
            return bad(option, item, "bytes a second, above 0; suffixes K, M, G, T");
    } else if ((value = value_of(item, "iops"))) {
        if (!parse_size(value, &disk->rate.ops_per_s) || !disk->rate.ops_per_s)
            return bad(option, item, "requests a second, above 0");
    } else {
        return bad(option, item, "ro, overlay=FILE, direct, id=TEXT, rate=SIZE or iops=N");
    }
    return -1;
}

/* A disk of --disk, or the one of --rootfs, which is the first wherever it is given. */
static int parse_disk(const char *option, char *value, bool root, struct args *out)
{
    struct tn_vm_disk_cfg *disk = &out->disk[out->disks];
    char *item;
    int r = -1;

    if (out->disks == TN_VM_MAX_DISKS)
        return bad(option, value, "more than 16 disks");
    if (root && out->rootfs)
        return bad(option, value, "there is a --rootfs already");
    if (root) {
        memmove(out->disk + 1, out->disk, out->disks * sizeof(*disk));
        disk = out->disk;
        memset(disk, 0, sizeof(*disk));
        out->rootfs = disk;
    }
    out->disks++;
    disk->path = next_item(&value);
    if (!*disk->path)
        return bad(option, "''", "the name of a file or block device");
    while (r < 0 && (item = next_item(&value)))
        r = parse_disk_item(option, item, disk);
    return r;
}

static bool parse_mac(const char *text, uint8_t mac[6])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t any = 0;

    for (int i = 0; i < 6; i++, text += 3) {
        const char *high = text[0] ? strchr(digits, text[0] | 0x20) : NULL;
        const char *low = high && text[1] ? strchr(digits, text[1] | 0x20) : NULL;

        if (!low || text[2] != (i < 5 ? ':' : 0))
            return false;
        mac[i] = (uint8_t)((high - digits) * 16 + (low - digits));
        any |= mac[i];
    }
    return any != 0 && (mac[0] & 1) == 0;
}

static int parse_net_item(const char *item, struct tn_vm_net_cfg *net)
{
    const char *value;
    uint64_t n;

    if ((value = value_of(item, "mac"))) {
        if (!parse_mac(value, net->mac))
            return bad("--net", item, "xx:xx:xx:xx:xx:xx, not 0, and no group's");
    } else if ((value = value_of(item, "mtu"))) {
        if (!parse_size(value, &n) || n < 68 || n > 65535)
            return bad("--net", item, "68 to 65535 bytes");
        net->mtu = (uint16_t)n;
    } else if ((value = value_of(item, "queues"))) {
        if (!parse_size(value, &n) || n < 1 || n > TN_VIRTIO_NET_PAIRS_MAX)
            return bad("--net", item, "1 to 7 queue pairs");
        if (n > 1 && net->kind == TN_VM_NET_STREAM)
            return bad("--net", item, "passt has one queue pair");
        net->pairs = (uint32_t)n;
    } else if ((value = value_of(item, "rate"))) {
        if (!parse_size(value, &n) || n == 0)
            return bad("--net", item, "bytes a second, above 0; suffixes K, M, G, T");
        net->tx_rate.bytes_per_s = net->rx_rate.bytes_per_s = n;
    } else if (strcmp(item, "no-offload") == 0) {
        net->hide = TN_VIRTIO_NET_F_CSUM | TN_VIRTIO_NET_F_GUEST_CSUM;
    } else if (strcmp(item, "vhost") == 0) {
        if (net->kind == TN_VM_NET_STREAM)
            return bad("--net", item, "it is for a TAP or a macvtap");
        net->vhost = true;
    } else {
        return bad("--net", item, "mac=ADDRESS, mtu=N, queues=N, vhost, rate=SIZE or no-offload");
    }
    return -1;
}

static int parse_net(char *value, struct args *out)
{
    static const struct {
        const char *key;
        uint32_t kind;
    } how[] = {{"tap", TN_VM_NET_TAP}, {"macvtap", TN_VM_NET_MACVTAP}, {"passt", TN_VM_NET_STREAM}};
    struct tn_vm_net_cfg *net = &out->net[out->nets];
    char *item = next_item(&value);
    int r = -1;

    if (out->nets == TN_VM_MAX_NETS)
        return bad("--net", item, "more than 8 network devices");
    net->fd = -1;
    for (uint32_t i = 0; i < sizeof(how) / sizeof(how[0]) && !net->name; i++) {
        net->kind = how[i].kind;
        net->name = value_of(item, how[i].key);
    }
    if (!net->name || !*net->name)
        return bad("--net", *item ? item : "''",
                   "tap=NAME, macvtap=NAME or passt=PATH comes first");
    out->nets++;
    while (r < 0 && (item = next_item(&value)))
        r = parse_net_item(item, net);
    if (r < 0 && net->vhost && net->tx_rate.bytes_per_s)
        return bad("--net", "vhost", "the host's kernel keeps no rate=SIZE");
    return r;
}

static int parse_vsock(char *value, struct args *out)
{
    const char *item, *text;
    uint64_t n;

    while ((item = next_item(&value))) {
        if ((text = value_of(item, "cid"))) {
            if (!parse_size(text, &n) || n < 3 || n > 0xfffffffe)
                return bad("--vsock", item, "a CID of 3 to 4294967294");
            out->vsock.cid = (uint32_t)n;
        } else if ((text = value_of(item, "path"))) {
            if (!*text || strlen(text) > TN_VSOCK_UNIX_PATH_MAX)
                return bad("--vsock", item, "a path of 1 to 96 bytes");
            out->vsock.path = text;
        } else if (strcmp(item, "vhost") == 0) {
            out->vsock.vhost = true;
        } else {
            return bad("--vsock", *item ? item : "''", "cid=N, and path=PATH or vhost");
        }
    }
    if (out->vsock.path && out->vsock.vhost)
        return bad("--vsock", "vhost", "it has no path=PATH: the host's programs use AF_VSOCK");
    return -1;
}

static int parse_balloon(const char *value, struct args *out)
{
    static const char limit[] = "MiB, or with a suffix K, M, G, T: a multiple of 4K, below the RAM";
    size_t len = strlen(value);

    if (!parse_size(value, &out->balloon_size))
        return bad("--balloon", value, limit);
    if (value[len - 1] >= '0' && value[len - 1] <= '9') {
        if (out->balloon_size > UINT64_MAX >> 20)
            return bad("--balloon", value, limit);
        out->balloon_size <<= 20;
    }
    if (out->balloon_size % 4096 != 0)
        return bad("--balloon", value, limit);
    out->balloon = true;
    return -1;
}

static int parse_ring(char *value, struct args *out)
{
    const char *item = next_item(&value);

    if (strcmp(item, "packed") == 0)
        out->packed = true;
    else if (strcmp(item, "split") != 0)
        return bad("--ring", item, "split or packed, then no-indirect, no-event-idx");
    while ((item = next_item(&value))) {
        if (strcmp(item, "no-indirect") == 0)
            out->no_indirect = true;
        else if (strcmp(item, "no-event-idx") == 0)
            out->no_event_idx = true;
        else
            return bad("--ring", item, "no-indirect or no-event-idx");
    }
    return -1;
}

static int parse_snapshot(char *value, struct args *out)
{
    const char *item;

    out->snapshot = next_item(&value);
    if (!*out->snapshot)
        return bad("--snapshot", "''", "the name of a directory");
    while ((item = next_item(&value))) {
        if (strcmp(item, "diff") == 0)
            out->diff = true;
        else if (strcmp(item, "sync") == 0)
            out->sync = true;
        else
            return bad("--snapshot", item, "diff or sync");
    }
    return -1;
}

static int parse_when(const char *value, struct args *out)
{
    if (!*value || strlen(value) > MAX_TEXT)
        return bad("--snapshot-when", *value ? value : "''", "1 to 256 bytes of text");
    out->snapshot_when = value;
    return -1;
}

static int parse_forks(const char *value, struct args *out)
{
    uint64_t n;

    if (!parse_size(value, &n) || n < 1 || n > MAX_FORKS)
        return bad("--forks", value, "1 to 10000 clones");
    out->forks = (uint32_t)n;
    return -1;
}

/* The name of a directory. */
static int parse_dir(const char *option, const char *value, const char **out)
{
    if (!*value)
        return bad(option, "''", "the name of a directory");
    *out = value;
    return -1;
}

/* root=/dev/vda, in front of the user's words, which may say otherwise. */
static int add_root(struct args *out)
{
    struct tn_cmdline line;

    tn_cmdline_init(&line, out->buffer, sizeof(out->buffer));
    if (tn_cmdline_add(&line, "root", "/dev/vda") < 0 ||
        tn_cmdline_add(&line, out->rootfs->read_only ? "ro" : "rw", NULL) < 0 ||
        tn_cmdline_add_text(&line, out->cmdline) < 0)
        return bad("--cmdline", "with --rootfs", "4 KiB of printable text, quotes in pairs");
    out->cmdline = out->buffer;
    return -1;
}

static const struct option options[] = {
    {"kernel", required_argument, NULL, 'k'},
    {"initrd", required_argument, NULL, 'i'},
#ifdef __x86_64__
    {"dtb", required_argument, NULL, 'D'},
#endif
    {"cmdline", required_argument, NULL, 'c'},
    {"memory", required_argument, NULL, 'm'},
    {"cpus", required_argument, NULL, 'n'},
    {"console", required_argument, NULL, 't'},
    {"boot", required_argument, NULL, 'b'},
    {"hugepages", no_argument, NULL, 'H'},
    {"disk", required_argument, NULL, 'd'},
    {"rootfs", required_argument, NULL, 'r'},
    {"virtio-console", no_argument, NULL, 'V'},
    {"rng", no_argument, NULL, 'R'},
    {"net", required_argument, NULL, 'N'},
    {"vsock", required_argument, NULL, 'U'},
    {"balloon", required_argument, NULL, 'B'},
    {"ring", required_argument, NULL, 'q'},
    {"snapshot", required_argument, NULL, 's'},
    {"snapshot-when", required_argument, NULL, 'w'},
    {"restore", required_argument, NULL, 'e'},
    {"same", no_argument, NULL, 'S'},
    {"lazy", no_argument, NULL, 'L'},
    {"overlays", required_argument, NULL, 'o'},
    {"forks", required_argument, NULL, 'f'},
    {"key", required_argument, NULL, 'K'},
    {"version", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* The first of some options that was given, with its dashes; NULL: none was. */
static const char *given(const bool seen[128], const char *which, char name[32])
{
    for (; *which; which++) {
        for (const struct option *o = options; seen[(uint8_t)*which] && o->name; o++) {
            if (o->val == *which) {
                snprintf(name, 32, "--%s", o->name);
                return name;
            }
        }
    }
    return NULL;
}

/* Options that make no sense beside others. */
static int check(const struct args *a, const bool seen[128])
{
    const char *name;
    char text[32];

    if (a->restore && (name = given(seen, "kiDcmnbHdrVRqB", text)))
        return bad(name, "with --restore", "the machine is what the snapshot says");
    if (!a->restore && (name = given(seen, "SLof", text)))
        return bad(name, "without --restore", "it is for machines made of a snapshot");
    for (uint32_t i = 0; a->restore && i < a->nets; i++) {
        const struct tn_vm_net_cfg *net = &a->net[i];

        if (net->mac[0] || net->mac[5] || net->mtu || net->pairs || net->tx_rate.bytes_per_s ||
            net->hide)
            return bad("--net", "with --restore",
                       "only tap=NAME, macvtap=NAME or passt=PATH, and vhost");
        if (a->forks > 1 && !strchr(net->name, '%'))
            return bad("--net", net->name, "with --forks: a % in it is the clone's number");
    }
    if (a->restore && a->vsock.path && a->forks > 1 && !strchr(a->vsock.path, '%'))
        return bad("--vsock", a->vsock.path, "with --forks: a % in it is the clone's number");
    if (a->restore && a->vsock.vhost && a->forks > 1 && !a->vsock.cid)
        return bad("--vsock", "vhost", "with --forks: cid=N is the first clone's");
    if (a->vsock.cid && a->forks > 0xfffffffe - a->vsock.cid + 1)
        return bad("--vsock", "cid=N", "with --forks: the last clone's is above 4294967294");
    if (!a->restore && seen['U'] && (!a->vsock.cid || (!a->vsock.path && !a->vsock.vhost)))
        return bad("--vsock", a->vsock.cid ? "without path=PATH" : "without cid=N",
                   "cid=N, and path=PATH or vhost");
    if (a->balloon && a->balloon_size >= a->memory)
        return bad("--balloon", "SIZE", "as large as --memory, or larger");
    if (!a->restore && !a->kernel) {
        fputs("microvm: --kernel FILE is missing, or --restore DIR; see --help\n", stderr);
        return EXIT_USAGE;
    }
    if (a->snapshot_when && !a->snapshot)
        return bad("--snapshot-when", "without --snapshot", "--snapshot DIR says where to");
    if (a->snapshot_when && a->console == CONSOLE_NONE)
        return bad("--snapshot-when", "with --console none", "nothing will be said");
    if (a->snapshot_when && a->diff && !a->restore)
        return bad("--snapshot", "diff", "with --snapshot-when only after --restore");
    if (a->key && !a->snapshot && !a->restore)
        return bad("--key", a->key, "it is for --snapshot and --restore");
    if (a->forks && a->same)
        return bad("--same", "with --forks", "clones cannot all be the same machine");
    if (a->forks && a->snapshot)
        return bad("--snapshot", "with --forks", "a snapshot is of one machine");
    return -1;
}

int args_parse(int argc, char **argv, struct args *out)
{
    bool seen[128] = {false};
    int option, r;

    memset(out, 0, sizeof(*out));
    out->memory = 256ull << 20;
    out->cpus = 1;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        r = -1;
        seen[option & 127] = true;
        switch (option) {
        case 'k':
            out->kernel = optarg;
            break;
        case 'i':
            out->initrd = optarg;
            break;
        case 'D':
            out->dtb = optarg;
            break;
        case 'c':
            out->cmdline = optarg;
            break;
        case 'm':
            r = parse_memory(optarg, out);
            break;
        case 'n':
            r = parse_cpus(optarg, out);
            break;
        case 't':
            r = parse_console(optarg, out);
            break;
        case 'b':
            r = parse_boot(optarg, out);
            break;
        case 'H':
            out->hugepages = true;
            break;
        case 'd':
        case 'r':
            r = parse_disk(option == 'r' ? "--rootfs" : "--disk", optarg, option == 'r', out);
            break;
        case 'V':
            out->virtio_console = true;
            break;
        case 'R':
            out->rng = true;
            break;
        case 'N':
            r = parse_net(optarg, out);
            break;
        case 'U':
            r = parse_vsock(optarg, out);
            break;
        case 'B':
            r = parse_balloon(optarg, out);
            break;
        case 'q':
            r = parse_ring(optarg, out);
            break;
        case 's':
            r = parse_snapshot(optarg, out);
            break;
        case 'w':
            r = parse_when(optarg, out);
            break;
        case 'e':
            r = parse_dir("--restore", optarg, &out->restore);
            break;
        case 'S':
            out->same = true;
            break;
        case 'L':
            out->lazy = true;
            break;
        case 'o':
            r = parse_dir("--overlays", optarg, &out->overlays);
            break;
        case 'f':
            r = parse_forks(optarg, out);
            break;
        case 'K':
            out->key = optarg;
            break;
        case 'v':
            puts("microvm " TENON_VERSION);
            return 0;
        case 'h':
            fputs(help, stdout);
            return 0;
        default: /* getopt_long has said what */
            return EXIT_USAGE;
        }
        if (r >= 0)
            return r;
    }
    if (optind < argc)
        return bad("argument", argv[optind], "not an option; see --help");
    r = check(out, seen);
    if (r >= 0)
        return r;
    if (!out->cmdline)
        out->cmdline = out->virtio_console ? "console=hvc0 panic=-1" : "console=ttyS0 panic=-1";
    return out->rootfs ? add_root(out) : -1;
}
