/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The state file of a whole machine, also of a diff: one that we wrote, which a hostile hand then
 * changed and sealed again, or hostile bytes as they are. Properties: what is refused leaves a void
 * state; what is read has numbers within the board's limits, as many records as they say, and is
 * written again byte by byte; a diff's runs ascend, and lie inside memory.
 */
#include "tn_vm_image.h"

#include "../tests/snap_forge.h"
#include "fuzz.h"

#define ROOM  (256u << 10)
#define RAM   (16ull << 20)
#define CHUNK 65536u
#define PAGES (RAM / TN_VM_IMAGE_PAGE)

static uint8_t file[ROOM], again[ROOM];

/* A machine's state as one that never ran would have it, with so many CPUs and devices. */
static void make_state(struct tn_vm_state *s, uint32_t cpus, uint32_t disks, uint32_t flags)
{
    struct tn_vm_state_count_ n = {disks, flags >> 6 & 1, flags >> 7 & 1, flags >> 7 & 1};

    memset(s, 0, sizeof(*s));
    FZ_ASSERT(tn_vm_state_alloc_(s, &n) == TN_OK);
    FZ_ASSERT(tn_vm_x86_state_alloc_(&s->arch, cpus, cpus * 576) == TN_OK);
    for (uint32_t i = 0; i < n.nets; i++) {
        s->net[i].mmio.version = TN_VIRTIO_MMIO_RECORD;
        s->net[i].model.version = TN_VIRTIO_NET_VERSION;
        s->net[i].model.virtio.version = TN_VIRTIO_VERSION;
    }
    if (s->vsock) {
        s->vsock->mmio.version = TN_VIRTIO_MMIO_RECORD;
        s->vsock->model.version = TN_VIRTIO_VSOCK_VERSION;
        s->vsock->model.virtio.version = TN_VIRTIO_VERSION;
    }
    if (s->balloon) {
        s->balloon->mmio.version = TN_VIRTIO_MMIO_RECORD;
        s->balloon->model.version = TN_VIRTIO_BALLOON_VERSION;
        s->balloon->model.virtio.version = TN_VIRTIO_VERSION;
    }
    s->machine.memory = RAM;
    s->machine.cpus = cpus;
    s->machine.flags = flags & TN_VM_MACHINE_FLAGS;
    s->machine.genid_gpa = TN_VM_X86_GENID_GPA;
    for (uint32_t i = 0; i < cpus; i++) {
        (void)tn_vm_x86_state_give_(&s->arch, i, i * 576, 576);
        s->arch.cpu[i].cpuid.nent = 2;
        s->arch.cpu[i].msr_count = 3;
        s->arch.cpu[i].xsave_len = 576;
    }
    for (uint32_t i = 0; i < 3; i++)
        s->arch.chips.chip[i].chip_id = i;
    s->arch.uart.version = TN_UART_VERSION;
    s->arch.i8042.version = TN_I8042_VERSION;
    s->hvc_mmio.version = s->rng_mmio.version = TN_VIRTIO_MMIO_RECORD;
    s->hvc.version = TN_VIRTIO_CONSOLE_VERSION;
    s->rng.version = TN_VIRTIO_RNG_VERSION;
    s->hvc.virtio.version = s->rng.virtio.version = TN_VIRTIO_VERSION;
    for (uint32_t i = 0; i < disks; i++) {
        s->disk[i].mmio.version = TN_VIRTIO_MMIO_RECORD;
        s->disk[i].blk.version = TN_VIRTIO_BLK_VERSION;
        s->disk[i].blk.virtio.version = TN_VIRTIO_VERSION;
        s->disk[i].rate.version = TN_RATE_VERSION;
    }
}

static size_t make_file(struct fz *z)
{
    static uint8_t digests[RAM / CHUNK * TN_SHA256_LEN];
    struct tn_snap_memory memory = {RAM, CHUNK, digests, {0}};
    uint32_t cpus = fz_u8(z) % 4 + 1, disks = fz_u8(z) % 3, runs = fz_u8(z) % 8;
    struct tn_snap_writer w;
    struct tn_vm_state s;
    int64_t len;

    make_state(&s, cpus, disks, fz_u8(z));
    tn_snap_begin(&w, file, sizeof(file));
    tn_vm_state_build(&s, &w);
    if (runs > 0) {
        memory.parent[0] = 1;
        tn_snap_section_begin(&w, TN_VM_SEC_DIFF, 1, 0, TN_SNAP_REQUIRED);
        tn_snap_put_u32(&w, 3);
        tn_snap_put_bytes(&w, "../", 3);
        tn_snap_put_u32(&w, runs);
        for (uint64_t i = 0; i < runs; i++) {
            tn_snap_put_u64(&w, 8 * i);
            tn_snap_put_u64(&w, fz_u8(z) % 8 + 1u);
        }
        tn_snap_section_end(&w);
    }
    len = tn_snap_finish(&w, &memory, NULL);
    tn_vm_state_close(&s);
    FZ_ASSERT(len > 0);
    return (size_t)len;
}

/* A few changes; most of them of few bits, since most fields are small. */
static size_t spoil(struct fz *z, size_t len)
{
    for (unsigned n = 0; n < 8 && z->left > 0 && len > 32; n++) {
        size_t at = fz_u32(z) % len;
        unsigned width = 1u << fz_u8(z) % 4;

        switch (fz_u8(z) % 4) {
        case 0:
            if (width <= len - at)
                tn_put_(file + at, width, fz_u64(z));
            break;
        case 1:
            file[at] ^= (uint8_t)(1u << width % 8);
            break;
        case 2: /* bytes vanish */
            width = width < len - at ? width : 0;
            memmove(file + at, file + at + width, len - at - width);
            len -= width;
            break;
        default: /* or are there twice */
            width = width <= sizeof(file) - len ? width : 0;
            memmove(file + at + width, file + at, len - at);
            len += width;
            break;
        }
    }
    return len;
}

static void check_diff(const struct tn_snap *snap)
{
    struct tn_vm_layer l;
    struct tn_snap_section s;
    char parent[PATH_MAX];
    uint64_t next = 0, at = 0;

    memset(&l, 0, sizeof(l));
    if (tn_snap_find(snap, TN_VM_SEC_DIFF, 0, &s) == 1 &&
        tn_vm_read_diff_(&l, &s, PAGES, parent) == TN_OK) {
        FZ_ASSERT(memchr(parent, 0, sizeof(parent)) != NULL);
        for (uint32_t i = 0; i < l.runs; i++) {
            FZ_ASSERT(l.run[i].count > 0 && l.run[i].first >= next && l.run[i].at == at);
            FZ_ASSERT(l.run[i].first < PAGES && l.run[i].count <= PAGES - l.run[i].first);
            FZ_ASSERT(tn_vm_layer_find_(&l, l.run[i].first) == i);
            next = l.run[i].first + l.run[i].count;
            at += l.run[i].count;
        }
    }
    free(l.run);
}

/* The state's own sections are the file's first, so they must come out as they went in. */
static void check_state(const struct tn_snap *snap, const struct tn_vm_state *s)
{
    struct tn_loader_range ram[TN_VM_X86_RAM];
    struct tn_snap_section was, is;
    struct tn_snap_writer w;
    size_t cap = tn_vm_state_size(s), at = 0, to = 0;
    uint8_t *buf = cap <= sizeof(again) ? again : (uint8_t *)malloc(cap);
    struct tn_snap copy = *snap;

    FZ_ASSERT(buf && s->machine.cpus > 0 && s->machine.cpus <= TN_VM_X86_MAX_CPUS);
    FZ_ASSERT(s->disks <= TN_VM_MAX_DISKS && tn_vm_x86_ram(s->machine.memory, ram) > 0);
    tn_snap_begin(&w, buf, cap);
    tn_vm_state_build(s, &w);
    FZ_ASSERT(w.err == TN_OK);
    copy.bytes = buf;
    copy.end = w.len;
    while (tn_snap_next(&copy, &to, &is)) {
        do
            FZ_ASSERT(tn_snap_next(snap, &at, &was) == 1);
        while (!was.known);
        FZ_ASSERT(was.type == is.type && was.instance == is.instance && was.len == is.len);
        FZ_ASSERT(memcmp(was.bytes, is.bytes, is.len) == 0);
    }
    if (buf != again)
        free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct tn_vm_state none;
    const struct tn_snap_known *known;
    struct tn_vm_state s;
    struct tn_snap snap;
    size_t len, count;
    struct fz z;

    fz_init(&z, data, size);
    if (fz_u8(&z) % 8 == 0) {
        len = z.left < sizeof(file) ? z.left : sizeof(file);
        memcpy(file, z.data, len);
    } else {
        len = make_file(&z);
        len = spoil(&z, len);
    }
    forge_seal(file, len, NULL, true);
    known = tn_vm_known(&count);
    if (tn_snap_open(&snap, file, len, NULL, known, count) < 0)
        return 0;
    check_diff(&snap);
    if (tn_vm_state_parse(&s, &snap) < 0) {
        FZ_ASSERT(memcmp(&s, &none, sizeof(s)) == 0);
        return 0;
    }
    check_state(&snap, &s);
    tn_vm_state_close(&s);
    return 0;
}
