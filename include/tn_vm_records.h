/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vm_records - every saved record of a machine as a section of a snapshot, and back.
 *
 * WHAT
 *   A pair of functions for each record: put writes it as a section, field by field, get reads it
 *   into a struct. The numbers of the sections are here, and which versions of them can be read.
 *   The fields of a section are named once, in one list that writes and reads.
 *
 * USAGE
 *   uint8_t file[1024];
 *   struct tn_rate_cfg limit = {1u << 20, 0, 0, 0};
 *   struct tn_rate rate;
 *   struct tn_rate_state state;
 *   struct tn_snap_writer w;
 *   struct tn_snap snap;
 *   const struct tn_snap_known *known;
 *   size_t count;
 *   int64_t len;
 *
 *   if (tn_rate_init(&rate, &limit, 0) < 0)
 *       return 1;
 *   tn_rate_save(&rate, 1000, &state);
 *   tn_snap_begin(&w, file, sizeof(file));
 *   tn_vm_put_rate(&w, 3, &state);
 *   len = tn_snap_finish(&w, NULL, NULL);
 *   known = tn_vm_known(&count);
 *   if (len < 0 || tn_snap_open(&snap, file, (size_t)len, NULL, known, count) < 0)
 *       return 2;
 *   if (tn_vm_get_rate(&snap, 3, &state) < 0 || tn_rate_restore(&rate, 2000, &state) < 0)
 *       return 3;
 *
 * COMPOSITION
 *   Above the models, which know nothing of files, and tn_snap, which knows nothing of models. A
 *   machine puts its records in ascending order of enum tn_vm_section, all instances of one type
 *   before the next type, and gets them in the same order.
 *
 * GUEST TRUST
 *   A file may be hostile, with right digests. What get returns is a record of its form: counts are
 *   within their arrays, truth values are 0 or 1, strings end, versions and reserved bytes are what
 *   they have to be. Its values are hostile still, and are checked by the models' restore functions
 *   and by KVM.
 *
 * MEMORY
 *   The caller owns every struct and buffer; nothing points into the file after get.
 *
 * THREADS
 *   One thread at a time per writer. Any number of them may get from one open snapshot.
 *
 * CONFIG
 *   TN_VIRTIO_MAX_QUEUES: a device with more queues is not read (TN_ERANGE).
 *
 * SPEC
 *   docs/snapshot-format.md, "The machine's sections".
 *
 * LIMITS
 *   No system calls. A struct whose layout changes is a new version of its record, which this
 *   header then has to learn: it does not compile with one that it does not know.
 */
#ifndef TN_VM_RECORDS_H
#define TN_VM_RECORDS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* for layer 3; of use only before the first system header */
#endif

/* -- tenon common block: the same bytes in every header (make check-common) -- */
/* clang-format off */
#ifndef TN_COMMON
#define TN_COMMON
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#if !defined(TN_API) && defined(TN_DECL_ONLY)
#define TN_API extern
#elif !defined(TN_API)
#define TN_API static inline
#endif
enum tn_err { TN_OK = 0, /* or a useful positive value; tn_strerror.h has a sentence for each */
    /* the caller's fault */ TN_EINVAL = -1, TN_ENOSPC = -2, TN_ESTATE = -3, TN_EEXIST = -4,
    /* the guest's, or a file's */ TN_EADDR = -32, TN_EFORMAT = -33, TN_ETRUNC = -34,
    TN_ERANGE = -35, TN_EOVERLAP = -36, TN_EMACHINE = -37, TN_EENTRY = -38, TN_ENOFIT = -39,
    TN_EUNSUP = -40, TN_EPROTO = -41, /* the environment's; errno tells */ TN_ESYS = -64,
    TN_EAGAIN = -65, TN_ENODEV = -66, /* ours */ TN_EBUG = -96 };
struct tn_iov { uint8_t *base; size_t len; }; /* memory in this process; as struct iovec */
/*@ requires n <= 8 && \valid_read(p + (0 .. n - 1)); assigns \nothing; */
static inline uint64_t tn_get_(const volatile uint8_t *p, unsigned n) /* little-endian load */
{
    uint64_t v = 0;
    /*@ loop invariant n <= \at(n, Pre); loop assigns n, v; loop variant n; */
    while (n > 0) v = v << 8 | p[--n];
    return v;
}
/*@ requires n <= 8 && \valid(p + (0 .. n - 1)); assigns p[0 .. n - 1]; */
static inline void tn_put_(uint8_t *p, unsigned n, uint64_t v) /* little-endian store */
{
    /*@ loop invariant i <= n; loop assigns i, p[0 .. n - 1]; loop variant n - i; */
    for (unsigned i = 0; i < n; i++) p[i] = (uint8_t)(v >> 8 * i);
}
#endif /* TN_COMMON */
/* clang-format on */

#include "tn_gpio.h"
#include "tn_i8042.h"
#include "tn_kvm_arm64_state.h"
#include "tn_kvm_x86_state.h"
#include "tn_rate.h"
#include "tn_rtc.h"
#include "tn_snap.h"
#include "tn_uart.h"
#include "tn_virtio.h"
#include "tn_virtio_balloon.h"
#include "tn_virtio_blk.h"
#include "tn_virtio_console.h"
#include "tn_virtio_mmio.h"
#include "tn_virtio_net.h"
#include "tn_virtio_rng.h"
#include "tn_virtio_vsock.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#if TN_UART_VERSION != 1 || TN_I8042_VERSION != 1 || TN_VIRTIO_VERSION != 1 ||              \
    TN_VIRTQ_VERSION != 1 || TN_VIRTIO_MMIO_RECORD != 1 || TN_VIRTIO_BLK_VERSION != 1 ||    \
    TN_VIRTIO_CONSOLE_VERSION != 1 || TN_VIRTIO_RNG_VERSION != 1 || TN_RATE_VERSION != 1 || \
    TN_VIRTIO_NET_VERSION != 1 || TN_VIRTIO_VSOCK_VERSION != 1 ||                           \
    TN_VIRTIO_BALLOON_VERSION != 1 || TN_RTC_VERSION != 1 || TN_GPIO_VERSION != 1
#error "a record has changed: its section needs a new version here, and a way to read the old one"
#endif

/*
 * The types of sections, in the order in which they are restored. instance is 0 unless said
 * otherwise.
 */
enum tn_vm_section {
    TN_VM_SEC_MACHINE = 0x0100, /* struct tn_vm_machine_record */
    TN_VM_SEC_DISK = 0x0110,    /* struct tn_vm_disk_record; the disk's number */
    TN_VM_SEC_NET = 0x0120,     /* struct tn_vm_net_record; the network device's number */
    TN_VM_SEC_VSOCK = 0x0130,   /* struct tn_vm_vsock_record; there is a socket device */
    TN_VM_SEC_BALLOON = 0x0140, /* struct tn_vm_balloon_record; there is a balloon */

    TN_VM_SEC_TIME = 0x0180,       /* struct tn_kvm_x86_time */
    TN_VM_SEC_ARM64_TIME = 0x0190, /* struct tn_kvm_arm64_time */

    /* struct tn_kvm_x86_vcpu_state; instance: the vCPU's number */
    TN_VM_SEC_VCPU_CPUID = 0x0200,
    TN_VM_SEC_VCPU_SREGS = 0x0210,
    TN_VM_SEC_VCPU_REGS = 0x0220,
    TN_VM_SEC_VCPU_XCRS = 0x0230,
    TN_VM_SEC_VCPU_XSAVE = 0x0240,
    TN_VM_SEC_VCPU_LAPIC = 0x0250,
    TN_VM_SEC_VCPU_DEBUGREGS = 0x0260,
    TN_VM_SEC_VCPU_TSC = 0x0270,
    TN_VM_SEC_VCPU_MSRS = 0x0280,
    TN_VM_SEC_VCPU_EVENTS = 0x0290, /* with its mp_state */

    TN_VM_SEC_ARM64_VCPU = 0x02a0, /* struct tn_kvm_arm64_vcpu_state; the vCPU's number */

    /* struct tn_kvm_x86_vm_state */
    TN_VM_SEC_PIC_MASTER = 0x0300,
    TN_VM_SEC_PIC_SLAVE = 0x0310,
    TN_VM_SEC_IOAPIC = 0x0320,
    TN_VM_SEC_PIT = 0x0330,

    TN_VM_SEC_GIC = 0x0340,     /* struct tn_kvm_arm64_gic_state, but what is a CPU's own */
    TN_VM_SEC_GIC_CPU = 0x0350, /* struct tn_kvm_arm64_gic_cpu; the vCPU's number */

    TN_VM_SEC_UART = 0x0400,
    TN_VM_SEC_I8042 = 0x0410,
    TN_VM_SEC_RTC = 0x0420,
    TN_VM_SEC_GPIO = 0x0430,

    /* instance: the number of the device's place */
    TN_VM_SEC_VIRTIO_MMIO = 0x0500, /* first: what a device signals from now on stays */
    TN_VM_SEC_VIRTIO = 0x0510,      /* a device that has no record of its own */
    TN_VM_SEC_VIRTIO_BLK = 0x0520,
    TN_VM_SEC_VIRTIO_CONSOLE = 0x0530,
    TN_VM_SEC_VIRTIO_RNG = 0x0540,
    TN_VM_SEC_VIRTIO_NET = 0x0550,
    TN_VM_SEC_VIRTIO_VSOCK = 0x0560,
    TN_VM_SEC_VIRTIO_BALLOON = 0x0570,
    TN_VM_SEC_RATE = 0x0580, /* the limit of the device there */

    /* no records of this header: tn_vm_image */
    TN_VM_SEC_OVERLAY = 0x0600, /* length and digest of a disk's overlay; the disk's number */
    TN_VM_SEC_DIFF = 0x0610     /* which pages a diff has, and of what */
};

/*
 * All of them with their newest versions, for tn_snap_open; as long as the program runs.
 */
TN_API const struct tn_snap_known *tn_vm_known(size_t *count);

/* Bits of struct tn_vm_machine_record: what struct tn_vm_cfg says of the same names. */
#define TN_VM_MACHINE_CONSOLE        0x01u
#define TN_VM_MACHINE_VIRTIO_CONSOLE 0x02u
#define TN_VM_MACHINE_RNG            0x04u
#define TN_VM_MACHINE_PACKED         0x08u
#define TN_VM_MACHINE_NO_INDIRECT    0x10u
#define TN_VM_MACHINE_NO_EVENT_IDX   0x20u
#define TN_VM_MACHINE_FLAGS          0x3fu /* all there are */

/* What a machine is made of. */
struct tn_vm_machine_record {
    uint64_t memory; /* bytes of RAM */
    uint32_t cpus;
    uint32_t flags;     /* TN_VM_MACHINE_*, no other bits */
    uint64_t genid_gpa; /* where the guest was told that its generation id is; 0: it was not */
    uint32_t asked;     /* enum tn_vm_reason: what the guest asked for, and is not done yet */
    uint16_t cols;      /* of the virtio console's terminal */
    uint16_t rows;
};

#define TN_VM_PATH_MAX 4096u /* bytes of a path, its end with them */

/* A disk, as struct tn_vm_disk_cfg. */
struct tn_vm_disk_record {
    uint64_t size; /* bytes */
    bool read_only;
    bool overlaid; /* what was written is in overlay */
    bool direct;
    char id[TN_VIRTIO_BLK_ID_LEN + 1];
    char path[TN_VM_PATH_MAX];
    char overlay[TN_VM_PATH_MAX];
    struct tn_rate_cfg rate;
};

/* A network device, as struct tn_vm_net_cfg. */
struct tn_vm_net_record {
    uint32_t kind;
    uint32_t pairs; /* of queues */
    uint8_t mac[6];
    uint16_t mtu;
    uint64_t hide;
    char name[TN_VM_PATH_MAX]; /* empty: a socket that was given open */
    struct tn_rate_cfg tx_rate;
    struct tn_rate_cfg rx_rate;
    bool vhost; /* from version 2 on */
};

/* The socket device, as struct tn_vm_vsock_cfg. */
struct tn_vm_vsock_record {
    uint32_t cid;
    uint32_t conns;
    char path[TN_VM_PATH_MAX]; /* empty with vhost */
    bool vhost;                /* from version 2 on */
};

struct tn_vm_balloon_record {
    uint64_t size; /* bytes that it is to have, when it was saved */
};

/*
 * put: writes a whole section, required, in its newest version. What the section can't say becomes
 * the writer's error: TN_EINVAL for a struct of another version, a truth value above 1, an unknown
 * flag, a count above its array, a string that does not end, a chip in another's place; the other
 * errors are tn_snap's.
 *
 * get: reads one, in any version so far. Returns 0, or with *out all zero
 *   TN_ESTATE   there is no such section
 *   TN_ETRUNC   the section ends too early
 *   TN_EFORMAT  it does not end after its last field; a string with a zero in it
 *   TN_ERANGE   a count, a truth value, a flag or the length of a string is out of its range
 *   TN_EUNSUP   a version from the future, which tn_vm_known would have had tn_snap_open refuse
 */
TN_API void tn_vm_put_machine(struct tn_snap_writer *w, uint32_t instance,
                              const struct tn_vm_machine_record *from);
TN_API int tn_vm_get_machine(const struct tn_snap *snap, uint32_t instance,
                             struct tn_vm_machine_record *out);
TN_API void tn_vm_put_disk(struct tn_snap_writer *w, uint32_t instance,
                           const struct tn_vm_disk_record *from);
TN_API int tn_vm_get_disk(const struct tn_snap *snap, uint32_t instance,
                          struct tn_vm_disk_record *out);
TN_API void tn_vm_put_net(struct tn_snap_writer *w, uint32_t instance,
                          const struct tn_vm_net_record *from);
TN_API int tn_vm_get_net(const struct tn_snap *snap, uint32_t instance,
                         struct tn_vm_net_record *out);
TN_API void tn_vm_put_vsock(struct tn_snap_writer *w, uint32_t instance,
                            const struct tn_vm_vsock_record *from);
TN_API int tn_vm_get_vsock(const struct tn_snap *snap, uint32_t instance,
                           struct tn_vm_vsock_record *out);
TN_API void tn_vm_put_balloon(struct tn_snap_writer *w, uint32_t instance,
                              const struct tn_vm_balloon_record *from);
TN_API int tn_vm_get_balloon(const struct tn_snap *snap, uint32_t instance,
                             struct tn_vm_balloon_record *out);
TN_API void tn_vm_put_uart(struct tn_snap_writer *w, uint32_t instance,
                           const struct tn_uart_state *from);
TN_API int tn_vm_get_uart(const struct tn_snap *snap, uint32_t instance, struct tn_uart_state *out);
TN_API void tn_vm_put_i8042(struct tn_snap_writer *w, uint32_t instance,
                            const struct tn_i8042_state *from);
TN_API int tn_vm_get_i8042(const struct tn_snap *snap, uint32_t instance,
                           struct tn_i8042_state *out);
TN_API void tn_vm_put_rtc(struct tn_snap_writer *w, uint32_t instance,
                          const struct tn_rtc_state *from);
TN_API int tn_vm_get_rtc(const struct tn_snap *snap, uint32_t instance, struct tn_rtc_state *out);
TN_API void tn_vm_put_gpio(struct tn_snap_writer *w, uint32_t instance,
                           const struct tn_gpio_state *from);
TN_API int tn_vm_get_gpio(const struct tn_snap *snap, uint32_t instance, struct tn_gpio_state *out);
TN_API void tn_vm_put_virtio_mmio(struct tn_snap_writer *w, uint32_t instance,
                                  const struct tn_virtio_mmio_state *from);
TN_API int tn_vm_get_virtio_mmio(const struct tn_snap *snap, uint32_t instance,
                                 struct tn_virtio_mmio_state *out);
TN_API void tn_vm_put_virtio(struct tn_snap_writer *w, uint32_t instance,
                             const struct tn_virtio_state *from);
TN_API int tn_vm_get_virtio(const struct tn_snap *snap, uint32_t instance,
                            struct tn_virtio_state *out);
TN_API void tn_vm_put_virtio_blk(struct tn_snap_writer *w, uint32_t instance,
                                 const struct tn_virtio_blk_state *from);
TN_API int tn_vm_get_virtio_blk(const struct tn_snap *snap, uint32_t instance,
                                struct tn_virtio_blk_state *out);
TN_API void tn_vm_put_virtio_console(struct tn_snap_writer *w, uint32_t instance,
                                     const struct tn_virtio_console_state *from);
TN_API int tn_vm_get_virtio_console(const struct tn_snap *snap, uint32_t instance,
                                    struct tn_virtio_console_state *out);
TN_API void tn_vm_put_virtio_rng(struct tn_snap_writer *w, uint32_t instance,
                                 const struct tn_virtio_rng_state *from);
TN_API int tn_vm_get_virtio_rng(const struct tn_snap *snap, uint32_t instance,
                                struct tn_virtio_rng_state *out);
TN_API void tn_vm_put_virtio_net(struct tn_snap_writer *w, uint32_t instance,
                                 const struct tn_virtio_net_state *from);
TN_API int tn_vm_get_virtio_net(const struct tn_snap *snap, uint32_t instance,
                                struct tn_virtio_net_state *out);
TN_API void tn_vm_put_virtio_vsock(struct tn_snap_writer *w, uint32_t instance,
                                   const struct tn_virtio_vsock_state *from);
TN_API int tn_vm_get_virtio_vsock(const struct tn_snap *snap, uint32_t instance,
                                  struct tn_virtio_vsock_state *out);
TN_API void tn_vm_put_virtio_balloon(struct tn_snap_writer *w, uint32_t instance,
                                     const struct tn_virtio_balloon_state *from);
TN_API int tn_vm_get_virtio_balloon(const struct tn_snap *snap, uint32_t instance,
                                    struct tn_virtio_balloon_state *out);
TN_API void tn_vm_put_rate(struct tn_snap_writer *w, uint32_t instance,
                           const struct tn_rate_state *from);
TN_API int tn_vm_get_rate(const struct tn_snap *snap, uint32_t instance, struct tn_rate_state *out);

#ifdef __x86_64__
TN_API void tn_vm_put_time(struct tn_snap_writer *w, uint32_t instance,
                           const struct tn_kvm_x86_time *from);
TN_API int tn_vm_get_time(const struct tn_snap *snap, uint32_t instance,
                          struct tn_kvm_x86_time *out);

/*
 * The vCPUs 0 to cpus - 1: sections of one type for all of them, then those of the next. get reads
 * all the sections of one vCPU. out->xsave and xsave_cap are the caller's, before and after;
 * extended state that is longer is TN_ERANGE. After an error these xsave_cap bytes are zero too.
 */
TN_API void tn_vm_put_vcpus(struct tn_snap_writer *w, const struct tn_kvm_x86_vcpu_state *from,
                            uint32_t cpus);
TN_API int tn_vm_get_vcpu(const struct tn_snap *snap, uint32_t instance,
                          struct tn_kvm_x86_vcpu_state *out);

/*
 * The chips of a machine: PICs, I/O APIC and PIT.
 */
TN_API void tn_vm_put_chips(struct tn_snap_writer *w, uint32_t instance,
                            const struct tn_kvm_x86_vm_state *from);
TN_API int tn_vm_get_chips(const struct tn_snap *snap, uint32_t instance,
                           struct tn_kvm_x86_vm_state *out);
#endif

#ifdef __aarch64__
TN_API void tn_vm_put_arm64_time(struct tn_snap_writer *w, uint32_t instance,
                                 const struct tn_kvm_arm64_time *from);
TN_API int tn_vm_get_arm64_time(const struct tn_snap *snap, uint32_t instance,
                                struct tn_kvm_arm64_time *out);
TN_API void tn_vm_put_arm64_vcpu(struct tn_snap_writer *w, uint32_t instance,
                                 const struct tn_kvm_arm64_vcpu_state *from);
TN_API int tn_vm_get_arm64_vcpu(const struct tn_snap *snap, uint32_t instance,
                                struct tn_kvm_arm64_vcpu_state *out);

/*
 * The GIC: what all CPUs share (get leaves out->cpu NULL), and each CPU's part of it.
 */
TN_API void tn_vm_put_gic(struct tn_snap_writer *w, uint32_t instance,
                          const struct tn_kvm_arm64_gic_state *from);
TN_API int tn_vm_get_gic(const struct tn_snap *snap, uint32_t instance,
                         struct tn_kvm_arm64_gic_state *out);
TN_API void tn_vm_put_gic_cpu(struct tn_snap_writer *w, uint32_t instance,
                              const struct tn_kvm_arm64_gic_cpu *from);
TN_API int tn_vm_get_gic_cpu(const struct tn_snap *snap, uint32_t instance,
                             struct tn_kvm_arm64_gic_cpu *out);
#endif

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

TN_API const struct tn_snap_known *tn_vm_known(size_t *count)
{
    static const struct tn_snap_known known[] = {
        {TN_VM_SEC_MACHINE, 1},    {TN_VM_SEC_DISK, 1},           {TN_VM_SEC_NET, 2},
        {TN_VM_SEC_VSOCK, 2},      {TN_VM_SEC_BALLOON, 1},
#ifdef __x86_64__
        {TN_VM_SEC_TIME, 1},       {TN_VM_SEC_VCPU_CPUID, 1},     {TN_VM_SEC_VCPU_SREGS, 1},
        {TN_VM_SEC_VCPU_REGS, 1},  {TN_VM_SEC_VCPU_XCRS, 1},      {TN_VM_SEC_VCPU_XSAVE, 1},
        {TN_VM_SEC_VCPU_LAPIC, 1}, {TN_VM_SEC_VCPU_DEBUGREGS, 1}, {TN_VM_SEC_VCPU_TSC, 1},
        {TN_VM_SEC_VCPU_MSRS, 1},  {TN_VM_SEC_VCPU_EVENTS, 1},    {TN_VM_SEC_PIC_MASTER, 1},
        {TN_VM_SEC_PIC_SLAVE, 1},  {TN_VM_SEC_IOAPIC, 1},         {TN_VM_SEC_PIT, 1},
#endif
#ifdef __aarch64__
        {TN_VM_SEC_ARM64_TIME, 1}, {TN_VM_SEC_ARM64_VCPU, 1},     {TN_VM_SEC_GIC, 1},
        {TN_VM_SEC_GIC_CPU, 1},
#endif
        {TN_VM_SEC_UART, 1},       {TN_VM_SEC_I8042, 1},          {TN_VM_SEC_RTC, 1},
        {TN_VM_SEC_GPIO, 1},       {TN_VM_SEC_VIRTIO_MMIO, 1},    {TN_VM_SEC_VIRTIO, 1},
        {TN_VM_SEC_VIRTIO_BLK, 1}, {TN_VM_SEC_VIRTIO_CONSOLE, 1}, {TN_VM_SEC_VIRTIO_RNG, 1},
        {TN_VM_SEC_VIRTIO_NET, 1}, {TN_VM_SEC_VIRTIO_VSOCK, 1},   {TN_VM_SEC_VIRTIO_BALLOON, 1},
        {TN_VM_SEC_RATE, 1},       {TN_VM_SEC_OVERLAY, 1},        {TN_VM_SEC_DIFF, 1},
    };

    *count = sizeof(known) / sizeof(known[0]);
    return known;
}

/*
 * A section that is written or read. The functions below take a field by its place: they write what
 * is there, or read into it. So a record has one list of fields, and both ways have the same.
 */
struct tn_vm_rec_ {
    struct tn_snap_writer *w; /* NULL: s is read */
    struct tn_snap_section s;
    uint32_t version; /* of the section: fields that a later one has are skipped */
};

/* The newest version of a section; 0: there is no such type. */
static inline uint32_t tn_vm_rec_newest_(uint32_t type)
{
    size_t count;
    const struct tn_snap_known *known = tn_vm_known(&count);

    for (size_t i = 0; i < count; i++) {
        if (known[i].type == type)
            return known[i].version;
    }
    return 0;
}

static inline void tn_vm_rec_fail_(struct tn_vm_rec_ *io, int err)
{
    if (io->w)
        tn_snap_fail(io->w, err);
    else
        tn_snap_section_fail(&io->s, err);
}

static inline void tn_vm_rec_u8_(struct tn_vm_rec_ *io, uint8_t *v)
{
    if (io->w)
        tn_snap_put_u8(io->w, *v);
    else
        *v = tn_snap_get_u8(&io->s);
}

static inline void tn_vm_rec_u16_(struct tn_vm_rec_ *io, uint16_t *v)
{
    if (io->w)
        tn_snap_put_u16(io->w, *v);
    else
        *v = tn_snap_get_u16(&io->s);
}

static inline void tn_vm_rec_u32_(struct tn_vm_rec_ *io, uint32_t *v)
{
    if (io->w)
        tn_snap_put_u32(io->w, *v);
    else
        *v = tn_snap_get_u32(&io->s);
}

static inline void tn_vm_rec_u64_(struct tn_vm_rec_ *io, uint64_t *v)
{
    if (io->w)
        tn_snap_put_u64(io->w, *v);
    else
        *v = tn_snap_get_u64(&io->s);
}

static inline void tn_vm_rec_bytes_(struct tn_vm_rec_ *io, void *bytes, size_t len)
{
    if (io->w)
        tn_snap_put_bytes(io->w, bytes, len);
    else
        tn_snap_get_bytes(&io->s, bytes, len);
}

static inline void tn_vm_rec_bool_(struct tn_vm_rec_ *io, bool *v)
{
    if (io->w)
        tn_snap_put_u8(io->w, *v ? 1 : 0);
    else
        *v = tn_snap_get_bool(&io->s);
}

/* A truth value that its struct keeps in a byte. */
static inline void tn_vm_rec_truth_(struct tn_vm_rec_ *io, uint8_t *v)
{
    if (!io->w) {
        *v = tn_snap_get_bool(&io->s) ? 1 : 0;
        return;
    }
    if (*v > 1)
        tn_vm_rec_fail_(io, TN_EINVAL);
    tn_snap_put_u8(io->w, *v);
}

/* The struct's own version, which is none of the section's fields. */
static inline void tn_vm_rec_is_(struct tn_vm_rec_ *io, uint32_t *v, uint32_t version)
{
    if (!io->w)
        *v = version;
    else if (*v != version)
        tn_vm_rec_fail_(io, TN_EINVAL);
}

/* The number of elements that follow, of `each` bytes or more. Returns how many to go on with. */
static inline uint32_t tn_vm_rec_count_(struct tn_vm_rec_ *io, uint32_t *v, uint32_t max,
                                        uint32_t each)
{
    if (!io->w) {
        *v = tn_snap_get_count(&io->s, max, each);
        return *v;
    }
    if (*v > max)
        tn_vm_rec_fail_(io, TN_EINVAL);
    tn_snap_put_u32(io->w, *v);
    return *v > max ? 0 : *v;
}

/* The string in an array of cap bytes; what is behind its end is not part of it. */
static inline void tn_vm_rec_string_(struct tn_vm_rec_ *io, char *string, uint32_t cap)
{
    uint32_t len = 0;

    while (io->w && len < cap && string[len])
        len++;
    if (tn_vm_rec_count_(io, &len, cap - 1, 1) == 0)
        return;
    tn_vm_rec_bytes_(io, string, len);
    for (uint32_t i = 0; i < len; i++) {
        if (!string[i])
            tn_vm_rec_fail_(io, TN_EFORMAT);
    }
}

/* The fields of a section, of its record. */
struct tn_vm_rec_part_ {
    uint32_t type; /* enum tn_vm_section */
    void (*fields)(struct tn_vm_rec_ *io, void *record);
};

static inline void tn_vm_rec_put_(struct tn_snap_writer *w, const struct tn_vm_rec_part_ *part,
                                  uint32_t instance, const void *from)
{
    struct tn_vm_rec_ io;

    __builtin_memset(&io, 0, sizeof(io));
    io.w = w;
    io.version = tn_vm_rec_newest_(part->type);
    tn_snap_section_begin(w, part->type, io.version, instance, TN_SNAP_REQUIRED);
    part->fields(&io, (void *)(uintptr_t)from); /* nothing is written to it */
    tn_snap_section_end(w);
}

static inline int tn_vm_rec_read_(const struct tn_snap *snap, const struct tn_vm_rec_part_ *part,
                                  uint32_t instance, void *out)
{
    struct tn_vm_rec_ io;

    __builtin_memset(&io, 0, sizeof(io));
    (void)tn_snap_find(snap, part->type, instance, &io.s); /* none: an empty one with an error */
    io.version = io.s.version;
    if (io.version > tn_vm_rec_newest_(part->type))
        tn_vm_rec_fail_(&io, TN_EUNSUP);
    part->fields(&io, out);
    return tn_snap_section_done(&io.s);
}

static inline int tn_vm_rec_get_(const struct tn_snap *snap, const struct tn_vm_rec_part_ *part,
                                 uint32_t instance, void *out, size_t size)
{
    int err;

    __builtin_memset(out, 0, size);
    err = tn_vm_rec_read_(snap, part, instance, out);
    if (err)
        __builtin_memset(out, 0, size);
    return err;
}

/* ---- the fields ---- */

static inline void tn_vm_rec_machine_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_vm_machine_record *r = (struct tn_vm_machine_record *)record;

    tn_vm_rec_u64_(io, &r->memory);
    tn_vm_rec_u32_(io, &r->cpus);
    tn_vm_rec_u32_(io, &r->flags);
    tn_vm_rec_u64_(io, &r->genid_gpa);
    tn_vm_rec_u32_(io, &r->asked);
    tn_vm_rec_u16_(io, &r->cols);
    tn_vm_rec_u16_(io, &r->rows);
    if (r->flags & ~TN_VM_MACHINE_FLAGS)
        tn_vm_rec_fail_(io, io->w ? TN_EINVAL : TN_ERANGE);
}

static inline void tn_vm_rec_limits_(struct tn_vm_rec_ *io, struct tn_rate_cfg *rate)
{
    tn_vm_rec_u64_(io, &rate->bytes_per_s);
    tn_vm_rec_u64_(io, &rate->bytes_burst);
    tn_vm_rec_u64_(io, &rate->ops_per_s);
    tn_vm_rec_u64_(io, &rate->ops_burst);
}

static inline void tn_vm_rec_disk_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_vm_disk_record *r = (struct tn_vm_disk_record *)record;

    tn_vm_rec_u64_(io, &r->size);
    tn_vm_rec_bool_(io, &r->read_only);
    tn_vm_rec_bool_(io, &r->overlaid);
    tn_vm_rec_bool_(io, &r->direct);
    tn_vm_rec_string_(io, r->id, sizeof(r->id));
    tn_vm_rec_string_(io, r->path, sizeof(r->path));
    tn_vm_rec_string_(io, r->overlay, sizeof(r->overlay));
    tn_vm_rec_limits_(io, &r->rate);
}

static inline void tn_vm_rec_net_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_vm_net_record *r = (struct tn_vm_net_record *)record;

    tn_vm_rec_u32_(io, &r->kind);
    tn_vm_rec_u32_(io, &r->pairs);
    tn_vm_rec_bytes_(io, r->mac, sizeof(r->mac));
    tn_vm_rec_u16_(io, &r->mtu);
    tn_vm_rec_u64_(io, &r->hide);
    tn_vm_rec_string_(io, r->name, sizeof(r->name));
    tn_vm_rec_limits_(io, &r->tx_rate);
    tn_vm_rec_limits_(io, &r->rx_rate);
    if (io->version >= 2)
        tn_vm_rec_bool_(io, &r->vhost);
}

static inline void tn_vm_rec_vsock_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_vm_vsock_record *r = (struct tn_vm_vsock_record *)record;

    tn_vm_rec_u32_(io, &r->cid);
    tn_vm_rec_u32_(io, &r->conns);
    tn_vm_rec_string_(io, r->path, sizeof(r->path));
    if (io->version >= 2)
        tn_vm_rec_bool_(io, &r->vhost);
}

static inline void tn_vm_rec_balloon_(struct tn_vm_rec_ *io, void *record)
{
    tn_vm_rec_u64_(io, &((struct tn_vm_balloon_record *)record)->size);
}

static inline void tn_vm_rec_uart_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_uart_state *s = (struct tn_uart_state *)record;

    tn_vm_rec_is_(io, &s->version, TN_UART_VERSION);
    tn_vm_rec_u8_(io, &s->ier);
    tn_vm_rec_u8_(io, &s->fcr);
    tn_vm_rec_u8_(io, &s->lcr);
    tn_vm_rec_u8_(io, &s->mcr);
    tn_vm_rec_u8_(io, &s->scr);
    tn_vm_rec_u8_(io, &s->dll);
    tn_vm_rec_u8_(io, &s->dlm);
    tn_vm_rec_truth_(io, &s->overrun);
    tn_vm_rec_u8_(io, &s->delta);
    tn_vm_rec_truth_(io, &s->thre);
    tn_vm_rec_truth_(io, &s->timeout);
    tn_vm_rec_u8_(io, &s->rx_count);
    tn_vm_rec_u8_(io, &s->tx_count);
    tn_vm_rec_bytes_(io, s->tx, sizeof(s->tx));
    for (unsigned i = 0; i < TN_UART_FIFO; i++)
        tn_vm_rec_u16_(io, &s->rx[i]);
}

static inline void tn_vm_rec_i8042_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_i8042_state *s = (struct tn_i8042_state *)record;

    tn_vm_rec_is_(io, &s->version, TN_I8042_VERSION);
    tn_vm_rec_u8_(io, &s->ctr);
    tn_vm_rec_u8_(io, &s->outport);
    tn_vm_rec_u8_(io, &s->pending);
    tn_vm_rec_u8_(io, &s->kbd);
    tn_vm_rec_truth_(io, &s->command);
    tn_vm_rec_truth_(io, &s->full);
    tn_vm_rec_u8_(io, &s->answer);
    tn_vm_rec_truth_(io, &s->scanning);
    tn_vm_rec_u8_(io, &s->set);
    tn_vm_rec_u8_(io, &s->leds);
    tn_vm_rec_u8_(io, &s->last);
    tn_vm_rec_u8_(io, &s->sent);
    tn_vm_rec_u8_(io, &s->count);
    tn_vm_rec_bytes_(io, s->fifo, sizeof(s->fifo));
}

static inline void tn_vm_rec_virtio_mmio_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_virtio_mmio_state *s = (struct tn_virtio_mmio_state *)record;

    tn_vm_rec_is_(io, &s->version, TN_VIRTIO_MMIO_RECORD);
    tn_vm_rec_u32_(io, &s->device_features_sel);
    tn_vm_rec_u32_(io, &s->driver_features_sel);
    tn_vm_rec_u32_(io, &s->queue_sel);
    tn_vm_rec_u32_(io, &s->shm_sel);
    tn_vm_rec_u32_(io, &s->interrupt_status);
}

static inline void tn_vm_rec_virtq_(struct tn_vm_rec_ *io, struct tn_virtq_state *s)
{
    uint32_t error = (uint32_t)s->error;

    tn_vm_rec_is_(io, &s->version, TN_VIRTQ_VERSION);
    tn_vm_rec_u32_(io, &s->unsignalled);
    tn_vm_rec_u64_(io, &s->desc);
    tn_vm_rec_u64_(io, &s->driver);
    tn_vm_rec_u64_(io, &s->device);
    tn_vm_rec_u16_(io, &s->size);
    tn_vm_rec_u16_(io, &s->next_avail);
    tn_vm_rec_u16_(io, &s->next_used);
    tn_vm_rec_truth_(io, &s->started);
    tn_vm_rec_truth_(io, &s->packed);
    tn_vm_rec_truth_(io, &s->event_idx);
    tn_vm_rec_truth_(io, &s->indirect);
    tn_vm_rec_truth_(io, &s->in_order);
    tn_vm_rec_u32_(io, &error);
    if (!io->w)
        s->error = (int32_t)error;
}

#define TN_VM_REC_QUEUE_ 70u /* bytes of a queue, its ring with them */

static inline void tn_vm_rec_virtio_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_virtio_state *s = (struct tn_virtio_state *)record;
    uint32_t queues;

    tn_vm_rec_is_(io, &s->version, TN_VIRTIO_VERSION);
    tn_vm_rec_u32_(io, &s->device_id);
    tn_vm_rec_u64_(io, &s->features);
    tn_vm_rec_u32_(io, &s->generation);
    tn_vm_rec_u8_(io, &s->status);
    queues = tn_vm_rec_count_(io, &s->queues, TN_VIRTIO_MAX_QUEUES, TN_VM_REC_QUEUE_);
    for (uint32_t i = 0; i < queues; i++) {
        struct tn_virtio_queue_state *q = &s->queue[i];

        tn_vm_rec_u64_(io, &q->desc);
        tn_vm_rec_u64_(io, &q->driver);
        tn_vm_rec_u64_(io, &q->device);
        tn_vm_rec_u16_(io, &q->size);
        tn_vm_rec_truth_(io, &q->ready);
        tn_vm_rec_virtq_(io, &q->ring);
    }
}

static inline void tn_vm_rec_virtio_blk_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_virtio_blk_state *s = (struct tn_virtio_blk_state *)record;

    tn_vm_rec_is_(io, &s->version, TN_VIRTIO_BLK_VERSION);
    tn_vm_rec_u32_(io, &s->writeback);
    tn_vm_rec_u64_(io, &s->capacity);
    tn_vm_rec_virtio_(io, &s->virtio);
}

static inline void tn_vm_rec_virtio_console_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_virtio_console_state *s = (struct tn_virtio_console_state *)record;

    tn_vm_rec_is_(io, &s->version, TN_VIRTIO_CONSOLE_VERSION);
    tn_vm_rec_u32_(io, &s->tx_off);
    tn_vm_rec_u16_(io, &s->cols);
    tn_vm_rec_u16_(io, &s->rows);
    tn_vm_rec_virtio_(io, &s->virtio);
}

static inline void tn_vm_rec_virtio_rng_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_virtio_rng_state *s = (struct tn_virtio_rng_state *)record;

    tn_vm_rec_is_(io, &s->version, TN_VIRTIO_RNG_VERSION);
    tn_vm_rec_virtio_(io, &s->virtio);
}

static inline void tn_vm_rec_virtio_net_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_virtio_net_state *s = (struct tn_virtio_net_state *)record;

    tn_vm_rec_is_(io, &s->version, TN_VIRTIO_NET_VERSION);
    tn_vm_rec_u16_(io, &s->active);
    tn_vm_rec_truth_(io, &s->link_up);
    tn_vm_rec_truth_(io, &s->announce);
    tn_vm_rec_u64_(io, &s->offloads);
    tn_vm_rec_bytes_(io, s->mac, sizeof(s->mac));
    tn_vm_rec_u8_(io, &s->mode);
    tn_vm_rec_u8_(io, &s->uni);
    tn_vm_rec_u8_(io, &s->multi);
    tn_vm_rec_bytes_(io, s->table, sizeof(s->table));
    tn_vm_rec_bytes_(io, s->vlan, sizeof(s->vlan));
    tn_vm_rec_virtio_(io, &s->virtio);
}

static inline void tn_vm_rec_virtio_vsock_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_virtio_vsock_state *s = (struct tn_virtio_vsock_state *)record;

    tn_vm_rec_is_(io, &s->version, TN_VIRTIO_VSOCK_VERSION);
    tn_vm_rec_u64_(io, &s->guest_cid);
    tn_vm_rec_virtio_(io, &s->virtio);
}

static inline void tn_vm_rec_virtio_balloon_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_virtio_balloon_state *s = (struct tn_virtio_balloon_state *)record;

    tn_vm_rec_is_(io, &s->version, TN_VIRTIO_BALLOON_VERSION);
    tn_vm_rec_u32_(io, &s->num_pages);
    tn_vm_rec_u32_(io, &s->actual);
    tn_vm_rec_u32_(io, &s->free_page_hint_cmd_id);
    tn_vm_rec_u32_(io, &s->poison_val);
    tn_vm_rec_u32_(io, &s->next_id);
    tn_vm_rec_u32_(io, &s->run);
    for (unsigned i = 0; i < TN_VIRTIO_BALLOON_QUEUES; i++)
        tn_vm_rec_u32_(io, &s->off[i]);
    tn_vm_rec_virtio_(io, &s->virtio);
}

static inline void tn_vm_rec_rate_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_rate_state *s = (struct tn_rate_state *)record;

    tn_vm_rec_is_(io, &s->version, TN_RATE_VERSION);
    tn_vm_rec_u32_(io, &s->bytes_nano);
    tn_vm_rec_u64_(io, &s->bytes_missing);
    tn_vm_rec_u64_(io, &s->ops_missing);
    tn_vm_rec_u32_(io, &s->ops_nano);
}

static inline void tn_vm_rec_rtc_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_rtc_state *s = (struct tn_rtc_state *)record;

    tn_vm_rec_is_(io, &s->version, TN_RTC_VERSION);
    tn_vm_rec_u32_(io, &s->match);
    tn_vm_rec_u32_(io, &s->load);
    tn_vm_rec_u32_(io, &s->offset);
    tn_vm_rec_u64_(io, &s->alarm);
    tn_vm_rec_u8_(io, &s->imsc);
    tn_vm_rec_u8_(io, &s->ris);
}

static inline void tn_vm_rec_gpio_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_gpio_state *s = (struct tn_gpio_state *)record;

    tn_vm_rec_is_(io, &s->version, TN_GPIO_VERSION);
    tn_vm_rec_u8_(io, &s->in);
    tn_vm_rec_u8_(io, &s->out);
    tn_vm_rec_u8_(io, &s->dir);
    tn_vm_rec_u8_(io, &s->is);
    tn_vm_rec_u8_(io, &s->ibe);
    tn_vm_rec_u8_(io, &s->iev);
    tn_vm_rec_u8_(io, &s->ie);
    tn_vm_rec_u8_(io, &s->edges);
    tn_vm_rec_u8_(io, &s->afsel);
}

#ifdef __x86_64__

/* ---- KVM's structs; their 64-bit numbers are no uint64_t to a compiler ---- */

static inline void tn_vm_rec_k64_(struct tn_vm_rec_ *io, __u64 *v)
{
    if (io->w)
        tn_snap_put_u64(io->w, *v);
    else
        *v = tn_snap_get_u64(&io->s);
}

static inline void tn_vm_rec_time_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_kvm_x86_time *t = (struct tn_kvm_x86_time *)record;

    tn_vm_rec_u64_(io, &t->host_tsc);
    tn_vm_rec_u64_(io, &t->realtime_ns);
    tn_vm_rec_u64_(io, &t->kvmclock_ns);
}

static inline void tn_vm_rec_cpuid_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_kvm_cpuid *c = &((struct tn_kvm_x86_vcpu_state *)record)->cpuid;
    uint32_t n = tn_vm_rec_count_(io, &c->nent, TN_KVM_MAX_CPUID, 28);

    for (uint32_t i = 0; i < n; i++) {
        struct kvm_cpuid_entry2 *e = &c->entries[i];

        tn_vm_rec_u32_(io, &e->function);
        tn_vm_rec_u32_(io, &e->index);
        tn_vm_rec_u32_(io, &e->flags);
        tn_vm_rec_u32_(io, &e->eax);
        tn_vm_rec_u32_(io, &e->ebx);
        tn_vm_rec_u32_(io, &e->ecx);
        tn_vm_rec_u32_(io, &e->edx);
    }
}

static inline void tn_vm_rec_segment_(struct tn_vm_rec_ *io, struct kvm_segment *s)
{
    tn_vm_rec_k64_(io, &s->base);
    tn_vm_rec_u32_(io, &s->limit);
    tn_vm_rec_u16_(io, &s->selector);
    tn_vm_rec_u8_(io, &s->type);
    tn_vm_rec_u8_(io, &s->present);
    tn_vm_rec_u8_(io, &s->dpl);
    tn_vm_rec_u8_(io, &s->db);
    tn_vm_rec_u8_(io, &s->s);
    tn_vm_rec_u8_(io, &s->l);
    tn_vm_rec_u8_(io, &s->g);
    tn_vm_rec_u8_(io, &s->avl);
    tn_vm_rec_u8_(io, &s->unusable);
}

static inline void tn_vm_rec_dtable_(struct tn_vm_rec_ *io, struct kvm_dtable *d)
{
    tn_vm_rec_k64_(io, &d->base);
    tn_vm_rec_u16_(io, &d->limit);
}

static inline void tn_vm_rec_sregs_(struct tn_vm_rec_ *io, void *record)
{
    struct kvm_sregs2 *r = &((struct tn_kvm_x86_vcpu_state *)record)->sregs;

    tn_vm_rec_segment_(io, &r->cs);
    tn_vm_rec_segment_(io, &r->ds);
    tn_vm_rec_segment_(io, &r->es);
    tn_vm_rec_segment_(io, &r->fs);
    tn_vm_rec_segment_(io, &r->gs);
    tn_vm_rec_segment_(io, &r->ss);
    tn_vm_rec_segment_(io, &r->tr);
    tn_vm_rec_segment_(io, &r->ldt);
    tn_vm_rec_dtable_(io, &r->gdt);
    tn_vm_rec_dtable_(io, &r->idt);
    tn_vm_rec_k64_(io, &r->cr0);
    tn_vm_rec_k64_(io, &r->cr2);
    tn_vm_rec_k64_(io, &r->cr3);
    tn_vm_rec_k64_(io, &r->cr4);
    tn_vm_rec_k64_(io, &r->cr8);
    tn_vm_rec_k64_(io, &r->efer);
    tn_vm_rec_k64_(io, &r->apic_base);
    tn_vm_rec_k64_(io, &r->flags);
    for (unsigned i = 0; i < 4; i++)
        tn_vm_rec_k64_(io, &r->pdptrs[i]);
}

static inline void tn_vm_rec_regs_(struct tn_vm_rec_ *io, void *record)
{
    struct kvm_regs *r = &((struct tn_kvm_x86_vcpu_state *)record)->regs;

    tn_vm_rec_k64_(io, &r->rax);
    tn_vm_rec_k64_(io, &r->rbx);
    tn_vm_rec_k64_(io, &r->rcx);
    tn_vm_rec_k64_(io, &r->rdx);
    tn_vm_rec_k64_(io, &r->rsi);
    tn_vm_rec_k64_(io, &r->rdi);
    tn_vm_rec_k64_(io, &r->rsp);
    tn_vm_rec_k64_(io, &r->rbp);
    tn_vm_rec_k64_(io, &r->r8);
    tn_vm_rec_k64_(io, &r->r9);
    tn_vm_rec_k64_(io, &r->r10);
    tn_vm_rec_k64_(io, &r->r11);
    tn_vm_rec_k64_(io, &r->r12);
    tn_vm_rec_k64_(io, &r->r13);
    tn_vm_rec_k64_(io, &r->r14);
    tn_vm_rec_k64_(io, &r->r15);
    tn_vm_rec_k64_(io, &r->rip);
    tn_vm_rec_k64_(io, &r->rflags);
}

static inline void tn_vm_rec_xcrs_(struct tn_vm_rec_ *io, void *record)
{
    struct kvm_xcrs *x = &((struct tn_kvm_x86_vcpu_state *)record)->xcrs;
    uint32_t n;

    tn_vm_rec_u32_(io, &x->flags);
    n = tn_vm_rec_count_(io, &x->nr_xcrs, KVM_MAX_XCRS, 12);
    for (uint32_t i = 0; i < n; i++) {
        tn_vm_rec_u32_(io, &x->xcrs[i].xcr);
        tn_vm_rec_k64_(io, &x->xcrs[i].value);
    }
}

static inline void tn_vm_rec_xsave_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_kvm_x86_vcpu_state *s = (struct tn_kvm_x86_vcpu_state *)record;
    uint32_t cap = s->xsave_cap < UINT32_MAX ? (uint32_t)s->xsave_cap : UINT32_MAX - 1;
    uint32_t len = s->xsave_len <= cap ? (uint32_t)s->xsave_len : UINT32_MAX;

    len = tn_vm_rec_count_(io, &len, cap, 1);
    if (len > 0)
        tn_vm_rec_bytes_(io, s->xsave, len);
    if (!io->w)
        s->xsave_len = len;
}

static inline void tn_vm_rec_lapic_(struct tn_vm_rec_ *io, void *record)
{
    struct kvm_lapic_state *l = &((struct tn_kvm_x86_vcpu_state *)record)->lapic;

    tn_vm_rec_bytes_(io, l->regs, sizeof(l->regs));
}

static inline void tn_vm_rec_debugregs_(struct tn_vm_rec_ *io, void *record)
{
    struct kvm_debugregs *d = &((struct tn_kvm_x86_vcpu_state *)record)->debugregs;

    for (unsigned i = 0; i < 4; i++)
        tn_vm_rec_k64_(io, &d->db[i]);
    tn_vm_rec_k64_(io, &d->dr6);
    tn_vm_rec_k64_(io, &d->dr7);
    tn_vm_rec_k64_(io, &d->flags);
}

static inline void tn_vm_rec_tsc_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_kvm_x86_vcpu_state *s = (struct tn_kvm_x86_vcpu_state *)record;

    tn_vm_rec_u32_(io, &s->tsc_khz);
    tn_vm_rec_u64_(io, &s->tsc_offset);
}

static inline void tn_vm_rec_msrs_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_kvm_x86_vcpu_state *s = (struct tn_kvm_x86_vcpu_state *)record;
    uint32_t n = tn_vm_rec_count_(io, &s->msr_count, TN_KVM_X86_STATE_MSRS, 12);

    for (uint32_t i = 0; i < n; i++) {
        tn_vm_rec_u32_(io, &s->msr[i].index);
        tn_vm_rec_k64_(io, &s->msr[i].data);
    }
}

static inline void tn_vm_rec_events_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_kvm_x86_vcpu_state *s = (struct tn_kvm_x86_vcpu_state *)record;
    struct kvm_vcpu_events *e = &s->events;

    tn_vm_rec_u8_(io, &e->exception.injected);
    tn_vm_rec_u8_(io, &e->exception.nr);
    tn_vm_rec_u8_(io, &e->exception.has_error_code);
    tn_vm_rec_u8_(io, &e->exception.pending);
    tn_vm_rec_u32_(io, &e->exception.error_code);
    tn_vm_rec_u8_(io, &e->interrupt.injected);
    tn_vm_rec_u8_(io, &e->interrupt.nr);
    tn_vm_rec_u8_(io, &e->interrupt.soft);
    tn_vm_rec_u8_(io, &e->interrupt.shadow);
    tn_vm_rec_u8_(io, &e->nmi.injected);
    tn_vm_rec_u8_(io, &e->nmi.pending);
    tn_vm_rec_u8_(io, &e->nmi.masked);
    tn_vm_rec_u32_(io, &e->sipi_vector);
    tn_vm_rec_u32_(io, &e->flags);
    tn_vm_rec_u8_(io, &e->smi.smm);
    tn_vm_rec_u8_(io, &e->smi.pending);
    tn_vm_rec_u8_(io, &e->smi.smm_inside_nmi);
    tn_vm_rec_u8_(io, &e->smi.latched_init);
    tn_vm_rec_u8_(io, &e->triple_fault.pending);
    tn_vm_rec_u8_(io, &e->exception_has_payload);
    tn_vm_rec_k64_(io, &e->exception_payload);
    tn_vm_rec_u32_(io, &s->mp_state);
}

static const struct tn_vm_rec_part_ tn_vm_rec_vcpu_[] = {
    {TN_VM_SEC_VCPU_CPUID, tn_vm_rec_cpuid_},         {TN_VM_SEC_VCPU_SREGS, tn_vm_rec_sregs_},
    {TN_VM_SEC_VCPU_REGS, tn_vm_rec_regs_},           {TN_VM_SEC_VCPU_XCRS, tn_vm_rec_xcrs_},
    {TN_VM_SEC_VCPU_XSAVE, tn_vm_rec_xsave_},         {TN_VM_SEC_VCPU_LAPIC, tn_vm_rec_lapic_},
    {TN_VM_SEC_VCPU_DEBUGREGS, tn_vm_rec_debugregs_}, {TN_VM_SEC_VCPU_TSC, tn_vm_rec_tsc_},
    {TN_VM_SEC_VCPU_MSRS, tn_vm_rec_msrs_},           {TN_VM_SEC_VCPU_EVENTS, tn_vm_rec_events_},
};
#define TN_VM_REC_VCPU_PARTS_ (sizeof(tn_vm_rec_vcpu_) / sizeof(tn_vm_rec_vcpu_[0]))

/* A chip's number is in its struct, and in the type of its section. */
static inline void tn_vm_rec_chip_(struct tn_vm_rec_ *io, struct kvm_irqchip *chip, uint32_t id)
{
    if (!io->w)
        chip->chip_id = id;
    else if (chip->chip_id != id)
        tn_vm_rec_fail_(io, TN_EINVAL);
}

static inline void tn_vm_rec_pic_(struct tn_vm_rec_ *io, struct kvm_irqchip *chip, uint32_t id)
{
    struct kvm_pic_state *p = &chip->chip.pic;

    tn_vm_rec_chip_(io, chip, id);
    tn_vm_rec_u8_(io, &p->last_irr);
    tn_vm_rec_u8_(io, &p->irr);
    tn_vm_rec_u8_(io, &p->imr);
    tn_vm_rec_u8_(io, &p->isr);
    tn_vm_rec_u8_(io, &p->priority_add);
    tn_vm_rec_u8_(io, &p->irq_base);
    tn_vm_rec_u8_(io, &p->read_reg_select);
    tn_vm_rec_u8_(io, &p->poll);
    tn_vm_rec_u8_(io, &p->special_mask);
    tn_vm_rec_u8_(io, &p->init_state);
    tn_vm_rec_u8_(io, &p->auto_eoi);
    tn_vm_rec_u8_(io, &p->rotate_on_auto_eoi);
    tn_vm_rec_u8_(io, &p->special_fully_nested_mode);
    tn_vm_rec_u8_(io, &p->init4);
    tn_vm_rec_u8_(io, &p->elcr);
    tn_vm_rec_u8_(io, &p->elcr_mask);
}

static inline void tn_vm_rec_pic_master_(struct tn_vm_rec_ *io, void *record)
{
    struct kvm_irqchip *chip = ((struct tn_kvm_x86_vm_state *)record)->chip;

    tn_vm_rec_pic_(io, &chip[KVM_IRQCHIP_PIC_MASTER], KVM_IRQCHIP_PIC_MASTER);
}

static inline void tn_vm_rec_pic_slave_(struct tn_vm_rec_ *io, void *record)
{
    struct kvm_irqchip *chip = ((struct tn_kvm_x86_vm_state *)record)->chip;

    tn_vm_rec_pic_(io, &chip[KVM_IRQCHIP_PIC_SLAVE], KVM_IRQCHIP_PIC_SLAVE);
}

static inline void tn_vm_rec_ioapic_(struct tn_vm_rec_ *io, void *record)
{
    struct kvm_irqchip *chip = &((struct tn_kvm_x86_vm_state *)record)->chip[KVM_IRQCHIP_IOAPIC];
    struct kvm_ioapic_state *a = &chip->chip.ioapic;

    tn_vm_rec_chip_(io, chip, KVM_IRQCHIP_IOAPIC);
    tn_vm_rec_k64_(io, &a->base_address);
    tn_vm_rec_u32_(io, &a->ioregsel);
    tn_vm_rec_u32_(io, &a->id);
    tn_vm_rec_u32_(io, &a->irr);
    for (unsigned i = 0; i < KVM_IOAPIC_NUM_PINS; i++)
        tn_vm_rec_k64_(io, &a->redirtbl[i].bits);
}

static inline void tn_vm_rec_pit_(struct tn_vm_rec_ *io, void *record)
{
    struct kvm_pit_state2 *pit = &((struct tn_kvm_x86_vm_state *)record)->pit;

    for (unsigned i = 0; i < 3; i++) {
        struct kvm_pit_channel_state *c = &pit->channels[i];
        uint64_t time = (uint64_t)c->count_load_time;

        tn_vm_rec_u32_(io, &c->count);
        tn_vm_rec_u16_(io, &c->latched_count);
        tn_vm_rec_u8_(io, &c->count_latched);
        tn_vm_rec_u8_(io, &c->status_latched);
        tn_vm_rec_u8_(io, &c->status);
        tn_vm_rec_u8_(io, &c->read_state);
        tn_vm_rec_u8_(io, &c->write_state);
        tn_vm_rec_u8_(io, &c->write_latch);
        tn_vm_rec_u8_(io, &c->rw_mode);
        tn_vm_rec_u8_(io, &c->mode);
        tn_vm_rec_u8_(io, &c->bcd);
        tn_vm_rec_u8_(io, &c->gate);
        tn_vm_rec_u64_(io, &time);
        if (!io->w)
            c->count_load_time = (__s64)time;
    }
    tn_vm_rec_u32_(io, &pit->flags);
}

static const struct tn_vm_rec_part_ tn_vm_rec_chips_[] = {
    {TN_VM_SEC_PIC_MASTER, tn_vm_rec_pic_master_},
    {TN_VM_SEC_PIC_SLAVE, tn_vm_rec_pic_slave_},
    {TN_VM_SEC_IOAPIC, tn_vm_rec_ioapic_},
    {TN_VM_SEC_PIT, tn_vm_rec_pit_},
};
#define TN_VM_REC_CHIPS_ (sizeof(tn_vm_rec_chips_) / sizeof(tn_vm_rec_chips_[0]))
#endif /* __x86_64__ */

#ifdef __aarch64__
static inline void tn_vm_rec_arm64_time_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_kvm_arm64_time *t = (struct tn_kvm_arm64_time *)record;

    tn_vm_rec_u64_(io, &t->counter);
    tn_vm_rec_u64_(io, &t->realtime_ns);
    tn_vm_rec_u32_(io, &t->counter_hz);
}

static inline void tn_vm_rec_arm64_vcpu_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_kvm_arm64_vcpu_state *s = (struct tn_kvm_arm64_vcpu_state *)record;
    uint32_t n;

    tn_vm_rec_u32_(io, &s->features);
    tn_vm_rec_u32_(io, &s->mp_state);
    tn_vm_rec_u32_(io, &s->serror);
    tn_vm_rec_u64_(io, &s->serror_syndrome);
    n = tn_vm_rec_count_(io, &s->reg_count, TN_KVM_ARM64_MAX_REGS, 24);
    for (uint32_t i = 0; i < n; i++) {
        tn_vm_rec_u64_(io, &s->reg[i].id);
        tn_vm_rec_u64_(io, &s->reg[i].value[0]);
        tn_vm_rec_u64_(io, &s->reg[i].value[1]);
    }
}

static inline void tn_vm_rec_gic_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_kvm_arm64_gic_state *s = (struct tn_kvm_arm64_gic_state *)record;

    tn_vm_rec_u32_(io, &s->spis);
    for (uint32_t i = 0; i < TN_KVM_ARM64_GIC_DIST; i++)
        tn_vm_rec_u32_(io, &s->dist[i]);
}

static inline void tn_vm_rec_gic_cpu_(struct tn_vm_rec_ *io, void *record)
{
    struct tn_kvm_arm64_gic_cpu *s = (struct tn_kvm_arm64_gic_cpu *)record;

    for (uint32_t i = 0; i < TN_KVM_ARM64_GIC_REDIST; i++)
        tn_vm_rec_u32_(io, &s->redist[i]);
    for (uint32_t i = 0; i < TN_KVM_ARM64_GIC_ICC; i++)
        tn_vm_rec_u64_(io, &s->icc[i]);
}
#endif /* __aarch64__ */

/* ---- the API ---- */

/* The two functions of a record that is one section. */
#define TN_VM_REC_PAIR_(name, tag, sec)                                                         \
    static const struct tn_vm_rec_part_ tn_vm_rec_##name##_part_ = {sec, tn_vm_rec_##name##_};  \
    TN_API void tn_vm_put_##name(struct tn_snap_writer *w, uint32_t instance,                   \
                                 const struct tag *from)                                        \
    {                                                                                           \
        tn_vm_rec_put_(w, &tn_vm_rec_##name##_part_, instance, from);                           \
    }                                                                                           \
    TN_API int tn_vm_get_##name(const struct tn_snap *snap, uint32_t instance, struct tag *out) \
    {                                                                                           \
        return tn_vm_rec_get_(snap, &tn_vm_rec_##name##_part_, instance, out, sizeof(*out));    \
    }

TN_VM_REC_PAIR_(machine, tn_vm_machine_record, TN_VM_SEC_MACHINE)
TN_VM_REC_PAIR_(disk, tn_vm_disk_record, TN_VM_SEC_DISK)
TN_VM_REC_PAIR_(net, tn_vm_net_record, TN_VM_SEC_NET)
TN_VM_REC_PAIR_(vsock, tn_vm_vsock_record, TN_VM_SEC_VSOCK)
TN_VM_REC_PAIR_(balloon, tn_vm_balloon_record, TN_VM_SEC_BALLOON)
TN_VM_REC_PAIR_(uart, tn_uart_state, TN_VM_SEC_UART)
TN_VM_REC_PAIR_(i8042, tn_i8042_state, TN_VM_SEC_I8042)
TN_VM_REC_PAIR_(rtc, tn_rtc_state, TN_VM_SEC_RTC)
TN_VM_REC_PAIR_(gpio, tn_gpio_state, TN_VM_SEC_GPIO)
TN_VM_REC_PAIR_(virtio_mmio, tn_virtio_mmio_state, TN_VM_SEC_VIRTIO_MMIO)
TN_VM_REC_PAIR_(virtio, tn_virtio_state, TN_VM_SEC_VIRTIO)
TN_VM_REC_PAIR_(virtio_blk, tn_virtio_blk_state, TN_VM_SEC_VIRTIO_BLK)
TN_VM_REC_PAIR_(virtio_console, tn_virtio_console_state, TN_VM_SEC_VIRTIO_CONSOLE)
TN_VM_REC_PAIR_(virtio_rng, tn_virtio_rng_state, TN_VM_SEC_VIRTIO_RNG)
TN_VM_REC_PAIR_(virtio_net, tn_virtio_net_state, TN_VM_SEC_VIRTIO_NET)
TN_VM_REC_PAIR_(virtio_vsock, tn_virtio_vsock_state, TN_VM_SEC_VIRTIO_VSOCK)
TN_VM_REC_PAIR_(virtio_balloon, tn_virtio_balloon_state, TN_VM_SEC_VIRTIO_BALLOON)
TN_VM_REC_PAIR_(rate, tn_rate_state, TN_VM_SEC_RATE)

#ifdef __x86_64__
TN_VM_REC_PAIR_(time, tn_kvm_x86_time, TN_VM_SEC_TIME)

TN_API void tn_vm_put_vcpus(struct tn_snap_writer *w, const struct tn_kvm_x86_vcpu_state *from,
                            uint32_t cpus)
{
    for (size_t part = 0; part < TN_VM_REC_VCPU_PARTS_; part++) {
        for (uint32_t i = 0; i < cpus; i++)
            tn_vm_rec_put_(w, &tn_vm_rec_vcpu_[part], i, &from[i]);
    }
}

/* All zero but for where the caller keeps extended state. */
static inline void tn_vm_rec_no_vcpu_(struct tn_kvm_x86_vcpu_state *out)
{
    uint8_t *xsave = out->xsave;
    size_t cap = out->xsave_cap;

    __builtin_memset(out, 0, sizeof(*out));
    if (cap > 0)
        __builtin_memset(xsave, 0, cap);
    out->xsave = xsave;
    out->xsave_cap = cap;
}

TN_API int tn_vm_get_vcpu(const struct tn_snap *snap, uint32_t instance,
                          struct tn_kvm_x86_vcpu_state *out)
{
    int err = TN_OK;

    tn_vm_rec_no_vcpu_(out);
    for (size_t part = 0; err == TN_OK && part < TN_VM_REC_VCPU_PARTS_; part++)
        err = tn_vm_rec_read_(snap, &tn_vm_rec_vcpu_[part], instance, out);
    if (err)
        tn_vm_rec_no_vcpu_(out);
    return err;
}

TN_API void tn_vm_put_chips(struct tn_snap_writer *w, uint32_t instance,
                            const struct tn_kvm_x86_vm_state *from)
{
    for (size_t i = 0; i < TN_VM_REC_CHIPS_; i++)
        tn_vm_rec_put_(w, &tn_vm_rec_chips_[i], instance, from);
}

TN_API int tn_vm_get_chips(const struct tn_snap *snap, uint32_t instance,
                           struct tn_kvm_x86_vm_state *out)
{
    int err = TN_OK;

    __builtin_memset(out, 0, sizeof(*out));
    for (size_t i = 0; err == TN_OK && i < TN_VM_REC_CHIPS_; i++)
        err = tn_vm_rec_read_(snap, &tn_vm_rec_chips_[i], instance, out);
    if (err)
        __builtin_memset(out, 0, sizeof(*out));
    return err;
}
#endif /* __x86_64__ */

#ifdef __aarch64__
TN_VM_REC_PAIR_(arm64_time, tn_kvm_arm64_time, TN_VM_SEC_ARM64_TIME)
TN_VM_REC_PAIR_(arm64_vcpu, tn_kvm_arm64_vcpu_state, TN_VM_SEC_ARM64_VCPU)
TN_VM_REC_PAIR_(gic, tn_kvm_arm64_gic_state, TN_VM_SEC_GIC)
TN_VM_REC_PAIR_(gic_cpu, tn_kvm_arm64_gic_cpu, TN_VM_SEC_GIC_CPU)
#endif /* __aarch64__ */

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VM_RECORDS_H */
