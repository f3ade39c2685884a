/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vm_board - what the boards of all architectures share: the machine's description, how it can
 * end, and the console's bytes between a port and file descriptors.
 *
 * WHAT
 *   struct tn_vm_cfg says what a machine is made of, enum tn_vm_reason how its run ended. The
 *   console joins a port, a tn_uart or a tn_virtio_console, to an input and an output descriptor (a
 *   terminal, a pipe, a pseudo-terminal, a file) through an event loop: input is read only while
 *   the receiver has room; output that the descriptor does not take waits in the transmitter, and
 *   the guest waits with it. Nothing is lost, nothing grows.
 *
 * USAGE
 *   static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
 *   static struct tn_uart uart;
 *   static struct tn_loop loop;
 *   static struct tn_vm_console con;
 *
 *   static void irq(void *ctx, bool level)
 *   {
 *       (void)ctx;
 *       (void)level;
 *   }
 *   ---
 *   struct tn_uart_cfg cfg = {&con, tn_vm_console_tx, irq, tn_vm_console_room, false};
 *
 *   tn_uart_init(&uart, &cfg);
 *   if (tn_loop_init(&loop) < 0)
 *       return 1;
 *   if (tn_vm_console_init(&con, &tn_vm_uart_port, &uart, &lock, &loop, 0, 1) < 0)
 *       return 2;
 *   tn_loop_run(&loop);
 *
 * COMPOSITION
 *   tn_vm takes the description; tn_vm_x86 (and each further board) holds a console for its first
 *   serial port, tn_vm_devices one for hvc0.
 *
 * GUEST TRUST
 *   The guest chooses what is written and when, never how much is kept: nothing, here.
 *
 * MEMORY
 *   The caller owns everything; init opens one eventfd, close closes it. The two descriptors stay
 *   the caller's, and open until close.
 *
 * THREADS
 *   tx and room run under the lock, on any thread. The loop's callbacks take the lock themselves.
 *   init and close are called on the loop's thread, or while it does not run.
 *
 * CONFIG
 *   none.
 *
 * LIMITS
 *   The output descriptor should be non-blocking: else a reader that stops, stops every thread that
 *   touches a device. One descriptor cannot be both input and output: dup it. An output whose
 *   reader has gone raises SIGPIPE: ignore it.
 */
#ifndef TN_VM_BOARD_H
#define TN_VM_BOARD_H

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
#include <errno.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "tn_kvm.h"
#include "tn_loop.h"
#include "tn_rate.h"
#include "tn_uart.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

/* Why a machine no longer runs. */
enum tn_vm_reason {
    TN_VM_NONE = 0, /* it may still run */
    TN_VM_POWEROFF, /* the guest switched itself off */
    TN_VM_RESET,    /* the guest asked for a reset */
    TN_VM_PANIC,    /* the guest's kernel reported a panic */
    TN_VM_CRASH,    /* a triple fault, or state that the CPU refuses to run */
    TN_VM_KILLED,   /* tn_vm_kill */
    TN_VM_ERROR     /* KVM or the host failed */
};

#define TN_VM_MAX_DISKS 16u

/* A disk on a file or block device. What is in it is the guest's: no format is guessed. */
struct tn_vm_disk_cfg {
    const char *path;
    const char *overlay;     /* takes all that is written, made if it is not there; NULL: none */
    const char *id;          /* what the guest reads as its serial number, 20 bytes; NULL: empty */
    bool read_only;          /* the guest cannot write */
    bool direct;             /* past the host's page cache: O_DIRECT */
    struct tn_rate_cfg rate; /* all 0: no limit */
};

#define TN_VM_MAX_NETS 8u

/* What carries a network device's frames. */
enum tn_vm_net_kind {
    TN_VM_NET_TAP = 0, /* a TAP of the host, made if it is not there */
    TN_VM_NET_MACVTAP, /* a macvtap of the host */
    TN_VM_NET_STREAM,  /* a Unix stream socket on which passt, or QEMU's netdev, is */
    TN_VM_NET_PAIR     /* one end of tn_net_pair_sockets; another machine has the other */
};

struct tn_vm_net_cfg {
    uint32_t kind;              /* enum tn_vm_net_kind */
    bool vhost;                 /* the host's kernel serves a TAP's queues: split rings, no rates */
    const char *name;           /* the interface, or the socket's path; NULL: fd */
    int fd;                     /* of a socket; the machine has a copy of its own */
    uint32_t pairs;             /* of queues, of a TAP; 0: 1 */
    uint8_t mac[6];             /* all 0: a macvtap's own; else one is made up */
    uint16_t mtu;               /* bytes that the guest is told; 0: none */
    uint64_t hide;              /* features not to offer: TN_VIRTIO_NET_F_* */
    struct tn_rate_cfg tx_rate; /* of what the guest sends, in bytes and frames; all 0: no limit */
    struct tn_rate_cfg rx_rate;
};

/* Sockets between guest and host: tn_vsock_unix.h has what path means. */
struct tn_vm_vsock_cfg {
    uint32_t cid;     /* of the guest, 3 or more; 0: no device */
    const char *path; /* NULL or empty with vhost */
    uint32_t conns;   /* at a time, without vhost; 0: TN_VM_VSOCK_CONNS */
    bool vhost;       /* the host's kernel moves the packets: split rings, AF_VSOCK on the host */
};
#define TN_VM_VSOCK_CONNS 1024u

/* What a machine is made of. Zero means the default where one is named. */
struct tn_vm_cfg {
    uint64_t memory;       /* bytes of RAM; the board states the limits */
    uint32_t cpus;         /* 0: 1 */
    uint32_t boot;         /* x86: enum tn_boot_x86_proto; arm64: not looked at */
    uint32_t huge;         /* enum tn_hostmem_huge: the pages behind the RAM */
    bool track_dirty;      /* note which pages are written, for diffs: costs a fault for each */
    int signal;            /* what interrupts a vCPU's thread; 0: SIGRTMIN */
    const uint8_t *kernel; /* an image that tn_loader knows; used during tn_vm_init only */
    size_t kernel_len;     /* bytes */
    const uint8_t *initrd; /* NULL: none; used during tn_vm_init only */
    size_t initrd_len;     /* bytes */
    const char *cmdline;   /* NULL: empty; used during tn_vm_init only */
    const uint8_t *fdt; /* x86: a device tree, for kernels that are built with OF; NULL: none; used
                           during tn_vm_init only. arm64 makes its own: NULL */
    size_t fdt_len;     /* bytes */
    bool console;       /* the first serial port is on the two descriptors below */
    int console_in;     /* -1: none */
    int console_out;    /* -1: none; should be non-blocking; not the same as console_in */

    /*
     * virtio devices, in this order: disks (/dev/vda is the first), hvc0, entropy, networks,
     * sockets, balloon
     */
    const struct tn_vm_disk_cfg *disk;
    uint32_t disks;      /* up to TN_VM_MAX_DISKS */
    bool virtio_console; /* hvc0 is on the two descriptors below, which are as those above */
    int virtio_in;
    int virtio_out;
    uint16_t cols; /* of hvc0's terminal; 0: not known */
    uint16_t rows;
    bool rng;          /* an entropy source */
    bool balloon;      /* a memory balloon, of the size below */
    bool packed;       /* offer packed virtqueues */
    bool no_indirect;  /* do not offer indirect descriptors */
    bool no_event_idx; /* do not offer event indices */
    uint32_t nets;     /* up to TN_VM_MAX_NETS */
    const struct tn_vm_net_cfg *net;
    struct tn_vm_vsock_cfg vsock;
    uint64_t balloon_size; /* bytes at first, a multiple of 4096 */
};

struct tn_vm;

/* A vCPU of a machine, and its thread. */
struct tn_vm_cpu {
    struct tn_vm *vm;
    struct tn_kvm_vcpu vcpu;
    pthread_t thread;
    bool joinable;
    uint32_t hint[2]; /* where the last port and the last MMIO access were found */
};

#define TN_VM_CONSOLE_LAST 64 /* turns of output that a console still takes when it is closed */

/* What a console needs of a port's model. The lock is held in each call. */
struct tn_vm_port_ops {
    /* Gives the guest bytes; returns how many it took. */
    size_t (*push)(void *model, const uint8_t *bytes, size_t len);
    /* How many push would take. */
    size_t (*room)(void *model);
    /* Offers the bytes that were refused to the console again. */
    void (*flush)(void *model);
};

/* Those of a tn_uart. */
static inline size_t tn_vm_uart_push_(void *model, const uint8_t *bytes, size_t len)
{
    return tn_uart_push((struct tn_uart *)model, bytes, len);
}
static inline size_t tn_vm_uart_room_(void *model)
{
    return tn_uart_room((const struct tn_uart *)model);
}
static inline void tn_vm_uart_flush_(void *model)
{
    (void)tn_uart_flush((struct tn_uart *)model);
}
static const struct tn_vm_port_ops tn_vm_uart_port = {tn_vm_uart_push_, tn_vm_uart_room_,
                                                      tn_vm_uart_flush_};

/* A port on descriptors. */
struct tn_vm_console {
    const struct tn_vm_port_ops *ops;
    void *model;
    pthread_mutex_t *lock; /* guards model and the flags below */
    struct tn_loop *loop;
    struct tn_loop_source in_source;
    struct tn_loop_source out_source;
    struct tn_loop_event wake; /* another thread changed what the loop should wait for */
    int in;                    /* -1: none, or it has ended */
    int out;                   /* -1: bytes are dropped */
    bool in_polled; /* false for a regular file, which epoll does not take: always ready */
    bool out_polled;
    bool out_blocked; /* the transmitter holds bytes that the output refused */
    bool more;        /* it has output for another turn */
    bool turning;     /* the loop moves bytes, and sees for itself what it has to wait for */
    int error;        /* errno of the first write that failed for good; output is dropped since */
    /* Optional, the caller's: the guest has bytes for the output. The lock is held. */
    void (*said)(void *ctx);
    void *said_ctx;
};

/*
 * Joins a port's model, guarded by lock, to the descriptors (-1: none), served by loop. Returns 0,
 * or the loop's error; *c is then closed.
 */
TN_API int tn_vm_console_init(struct tn_vm_console *c, const struct tn_vm_port_ops *ops,
                              void *model, pthread_mutex_t *lock, struct tn_loop *loop, int in,
                              int out);

/*
 * Leaves the loop, hands out what the transmitter still holds as far as the output takes it, and
 * closes what init opened.
 */
TN_API void tn_vm_console_close(struct tn_vm_console *c);

/*
 * The functions that the model's configuration names; the lock is held. again: the model has more
 * output, and is to be flushed after others had their turn.
 */
TN_API size_t tn_vm_console_tx(void *ctx, const uint8_t *bytes, size_t len);
TN_API void tn_vm_console_room(void *ctx);
TN_API void tn_vm_console_again(void *ctx);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

TN_API size_t tn_vm_console_tx(void *ctx, const uint8_t *bytes, size_t len)
{
    struct tn_vm_console *c = (struct tn_vm_console *)ctx;
    ssize_t n;

    if (c->said)
        c->said(c->said_ctx);
    if (c->out < 0 || c->error)
        return len;
    n = write(c->out, bytes, len);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        c->error = errno;
        return len;
    }
    if (n < (ssize_t)len) {
        c->out_blocked = true;
        if (!c->turning)
            (void)tn_loop_event_signal(&c->wake);
    }
    return n < 0 ? 0 : (size_t)n;
}

TN_API void tn_vm_console_room(void *ctx)
{
    struct tn_vm_console *c = (struct tn_vm_console *)ctx;

    if (c->in >= 0)
        (void)tn_loop_event_signal(&c->wake);
}

TN_API void tn_vm_console_again(void *ctx)
{
    struct tn_vm_console *c = (struct tn_vm_console *)ctx;

    c->more = true;
    (void)tn_loop_event_signal(&c->wake);
}

/* Moves what can be moved, then waits for just what is still needed. On the loop's thread. */
static inline void tn_vm_console_turn_(struct tn_vm_console *c, bool readable)
{
    uint8_t bytes[512];
    size_t room;
    bool more = false;

    pthread_mutex_lock(c->lock);
    c->turning = true;
    if (c->out_blocked || c->more) {
        c->out_blocked = false;
        c->more = false;
        c->ops->flush(c->model); /* tx sets it again when the output still refuses */
    }
    room = c->ops->room(c->model);
    if (c->in >= 0 && (readable || !c->in_polled) && room > 0) {
        ssize_t n = read(c->in, bytes, room < sizeof(bytes) ? room : sizeof(bytes));

        if (n > 0) {
            (void)c->ops->push(c->model, bytes, (size_t)n);
            more = !c->in_polled;
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            if (c->in_polled)
                (void)tn_loop_remove(c->loop, &c->in_source);
            c->in = -1;
        }
        room = c->ops->room(c->model);
    }
    if (c->in >= 0 && c->in_polled)
        (void)tn_loop_mod(c->loop, &c->in_source, room > 0 ? (uint32_t)EPOLLIN : 0);
    if (c->out >= 0 && c->out_polled)
        (void)tn_loop_mod(c->loop, &c->out_source, c->out_blocked ? (uint32_t)EPOLLOUT : 0);
    if (more && room > 0)
        (void)tn_loop_event_signal(&c->wake);
    c->turning = false;
    pthread_mutex_unlock(c->lock);
}

static inline void tn_vm_console_on_wake_(void *ctx, uint64_t count)
{
    (void)count;
    tn_vm_console_turn_((struct tn_vm_console *)ctx, false);
}

static inline void tn_vm_console_on_in_(void *ctx, uint32_t events)
{
    (void)events;
    tn_vm_console_turn_((struct tn_vm_console *)ctx, true);
}

static inline void tn_vm_console_on_out_(void *ctx, uint32_t events)
{
    struct tn_vm_console *c = (struct tn_vm_console *)ctx;

    /* A reader that is gone raises EPOLLERR for ever; nobody wants to hear it twice. */
    if (events & (EPOLLERR | EPOLLHUP)) {
        (void)tn_loop_remove(c->loop, &c->out_source);
        c->out_polled = false;
    }
    tn_vm_console_turn_(c, false);
}

/* Adds fd to the loop; a regular file, which epoll refuses, is no error, but is not polled. */
static inline int tn_vm_console_watch_(struct tn_vm_console *c, struct tn_loop_source *s, int fd,
                                       void (*fn)(void *, uint32_t), uint32_t events, bool *polled)
{
    int r;

    *polled = false;
    if (fd < 0)
        return TN_OK;
    s->fd = fd;
    s->events = events;
    s->fn = fn;
    s->ctx = c;
    r = tn_loop_add(c->loop, s);
    *polled = r >= 0;
    return r == TN_ESYS && errno == EPERM ? TN_OK : r;
}

TN_API int tn_vm_console_init(struct tn_vm_console *c, const struct tn_vm_port_ops *ops,
                              void *model, pthread_mutex_t *lock, struct tn_loop *loop, int in,
                              int out)
{
    int r;

    __builtin_memset(c, 0, sizeof(*c));
    c->ops = ops;
    c->model = model;
    c->lock = lock;
    c->loop = loop;
    c->in = in;
    c->out = out;
    r = tn_loop_event_init(&c->wake, loop, tn_vm_console_on_wake_, c);
    if (r >= 0)
        r = tn_vm_console_watch_(c, &c->in_source, in, tn_vm_console_on_in_, EPOLLIN,
                                 &c->in_polled);
    if (r >= 0)
        r = tn_vm_console_watch_(c, &c->out_source, out, tn_vm_console_on_out_, 0, &c->out_polled);
    if (r < 0) {
        tn_vm_console_close(c);
        return r;
    }
    if (in >= 0 && !c->in_polled)
        (void)tn_loop_event_signal(&c->wake);
    return TN_OK;
}

TN_API void tn_vm_console_close(struct tn_vm_console *c)
{
    if (!c->loop)
        return;
    tn_loop_event_close(&c->wake);
    if (c->in >= 0 && c->in_polled)
        (void)tn_loop_remove(c->loop, &c->in_source);
    if (c->out >= 0 && c->out_polled)
        (void)tn_loop_remove(c->loop, &c->out_source);
    pthread_mutex_lock(c->lock);
    for (int turn = 0; turn == 0 || (c->more && turn < TN_VM_CONSOLE_LAST); turn++) {
        c->more = false;
        c->ops->flush(c->model);
    }
    pthread_mutex_unlock(c->lock);
    c->loop = NULL;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VM_BOARD_H */
