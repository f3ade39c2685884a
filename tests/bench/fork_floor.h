/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The floor under a fork: the KVM calls that a clone of one vCPU cannot do without, raw, and in the
 * order that costs least. No header of tenon's is in it. A golden machine that stands still is read
 * once, by floor_init; each sample then makes a clone, over MAP_PRIVATE of the golden memory, and
 * runs it to its first output, a write to port 0x3f8, where the clock stops.
 *
 *   cold    everything from nothing: VM, memory, chips, vCPU, state
 *   pool    VM, chips, vCPU and its CPUID are there, over a reservation without memory; at the fork
 *           the golden memory is mapped into it, and the state is set
 *   image   a pool of one image: its memory is mapped and its state is set beforehand, and the vCPU
 *           has tried to run once, at its reset state, which makes what KVM makes in a first run;
 *           at the fork what goes by time is set again
 *   reset   a clone has run on, and is put back: its own pages are dropped, the state is set
 *
 * Taking a clone down is a thread's work, off the clock; its times are in floor.teardown. A sample
 * waits for that before it returns, so the thread never competes with a clock, and the CPU time of
 * a sample has its own teardown in it.
 */
#ifndef TENON_FORK_FLOOR_H
#define TENON_FORK_FLOOR_H

#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define FLOOR_UART   0x3f8
#define FLOOR_MSRS   1024
#define FLOOR_CPUID  256
#define FLOOR_XSAVE  16384
#define FLOOR_CLONES 16   /* that may wait to be taken down */
#define FLOOR_EXITS  4096 /* that a clone may need to its first output */

struct floor_msrs {
    uint32_t nmsrs, pad;
    struct kvm_msr_entry entries[FLOOR_MSRS];
};

struct floor_cpuid {
    uint32_t nent, padding;
    struct kvm_cpuid_entry2 entries[FLOOR_CPUID];
};

/* A clone, or one to be. */
struct floor_clone {
    int vm, vcpu; /* -1: closed */
    struct kvm_run *run;
    uint8_t *ram;
};

/* The golden machine's state, and who takes clones down. */
struct floor {
    int kvm;
    int memory;    /* the golden memory's memfd */
    uint64_t size; /* bytes of it, from guest address 0 on */
    size_t run_size;

    struct floor_cpuid cpuid;
    struct kvm_sregs2 sregs;
    struct kvm_regs regs;
    struct kvm_xcrs xcrs;
    struct kvm_lapic_state lapic;
    struct kvm_vcpu_events events;
    struct kvm_debugregs debugregs;
    struct kvm_mp_state mp_state;
    struct floor_msrs msrs; /* those that can be set, but the TSC, which its offset sets */
    uint64_t tsc_offset;
    struct kvm_irqchip chip[3];
    struct kvm_pit_state2 pit;
    struct kvm_clock_data clock;
    uint8_t xsave[FLOOR_XSAVE];

    pthread_t reaper;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct floor_clone dead[FLOOR_CLONES];
    uint32_t waiting;
    bool busy; /* one is being taken down */
    bool quit;
    struct bench_series teardown;
};

/* Says which call failed, and where. */
static inline bool floor_failed_(const char *what)
{
    fprintf(stderr, "fork_floor: %s: %s\n", what, strerror(errno));
    return false;
}

#define FLOOR_TRY(call)                  \
    do {                                 \
        if ((call) < 0)                  \
            return floor_failed_(#call); \
    } while (0)

/* ---- the golden machine ---- */

/* Every MSR of the host's list that can be read and written back. */
static inline bool floor_save_msrs_(struct floor *f, int vcpu)
{
    static struct {
        uint32_t n, indices[FLOOR_MSRS];
    } list;
    struct {
        uint32_t nmsrs, pad;
        struct kvm_msr_entry entry;
    } one;

    list.n = FLOOR_MSRS;
    FLOOR_TRY(ioctl(f->kvm, KVM_GET_MSR_INDEX_LIST, &list));
    for (uint32_t i = 0; i < list.n; i++) {
        memset(&one, 0, sizeof(one));
        one.nmsrs = 1;
        one.entry.index = list.indices[i];
        if (list.indices[i] != 0x10 && ioctl(vcpu, KVM_GET_MSRS, &one) == 1 &&
            ioctl(vcpu, KVM_SET_MSRS, &one) == 1)
            f->msrs.entries[f->msrs.nmsrs++] = one.entry;
    }
    return true;
}

static inline bool floor_save_(struct floor *f, int vm, int vcpu)
{
    struct kvm_device_attr tsc = {0, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET,
                                  (uint64_t)(uintptr_t)&f->tsc_offset};
    int need = ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);

    f->cpuid.nent = FLOOR_CPUID;
    FLOOR_TRY(ioctl(vcpu, KVM_GET_CPUID2, &f->cpuid));
    FLOOR_TRY(ioctl(vcpu, KVM_GET_SREGS2, &f->sregs));
    FLOOR_TRY(ioctl(vcpu, KVM_GET_REGS, &f->regs));
    FLOOR_TRY(ioctl(vcpu, KVM_GET_XCRS, &f->xcrs));
    FLOOR_TRY(ioctl(vcpu, KVM_GET_LAPIC, &f->lapic));
    FLOOR_TRY(ioctl(vcpu, KVM_GET_VCPU_EVENTS, &f->events));
    FLOOR_TRY(ioctl(vcpu, KVM_GET_DEBUGREGS, &f->debugregs));
    FLOOR_TRY(ioctl(vcpu, KVM_GET_MP_STATE, &f->mp_state));
    FLOOR_TRY(ioctl(vcpu, KVM_GET_DEVICE_ATTR, &tsc));
    if (need > FLOOR_XSAVE) {
        errno = E2BIG;
        return floor_failed_("KVM_CAP_XSAVE2");
    }
    FLOOR_TRY(need > 4096 ? ioctl(vcpu, KVM_GET_XSAVE2, f->xsave)
                          : ioctl(vcpu, KVM_GET_XSAVE, f->xsave));
    for (uint32_t i = 0; i < 3; i++) {
        f->chip[i].chip_id = i;
        FLOOR_TRY(ioctl(vm, KVM_GET_IRQCHIP, &f->chip[i]));
    }
    FLOOR_TRY(ioctl(vm, KVM_GET_PIT2, &f->pit));
    FLOOR_TRY(ioctl(vm, KVM_GET_CLOCK, &f->clock));
    f->clock.flags = 0;
    return floor_save_msrs_(f, vcpu);
}

/* ---- a clone ---- */

#define FLOOR_NONE         \
    {                      \
        -1, -1, NULL, NULL \
    }

static inline void floor_close(const struct floor *f, struct floor_clone *c)
{
    if (c->run)
        munmap(c->run, f->run_size);
    if (c->vcpu >= 0)
        close(c->vcpu);
    if (c->vm >= 0)
        close(c->vm);
    if (c->ram)
        munmap(c->ram, f->size);
    *c = (struct floor_clone)FLOOR_NONE;
}

/* A VM over addresses that have the golden memory already, or none yet; with a vCPU. */
static inline bool floor_make(const struct floor *f, struct floor_clone *c, bool split, bool memory)
{
    struct kvm_userspace_memory_region slot = {0, 0, 0, f->size, 0};
    struct kvm_enable_cap cap = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {24}};
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    uint64_t identity = 0xfffbc000;
    void *p =
        memory
            ? mmap(NULL, f->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, f->memory, 0)
            : mmap(NULL, f->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    *c = (struct floor_clone)FLOOR_NONE;
    if (p == MAP_FAILED)
        return floor_failed_("mmap of the memory");
    c->ram = (uint8_t *)p;
    slot.userspace_addr = (uint64_t)(uintptr_t)p;
    FLOOR_TRY(c->vm = ioctl(f->kvm, KVM_CREATE_VM, 0));
    FLOOR_TRY(ioctl(c->vm, KVM_SET_USER_MEMORY_REGION, &slot));
    FLOOR_TRY(ioctl(c->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity));
    FLOOR_TRY(ioctl(c->vm, KVM_SET_TSS_ADDR, identity + 0x1000));
    if (split) {
        FLOOR_TRY(ioctl(c->vm, KVM_ENABLE_CAP, &cap));
    } else {
        FLOOR_TRY(ioctl(c->vm, KVM_CREATE_IRQCHIP, 0));
        FLOOR_TRY(ioctl(c->vm, KVM_CREATE_PIT2, &pit));
    }
    FLOOR_TRY(c->vcpu = ioctl(c->vm, KVM_CREATE_VCPU, 0));
    p = mmap(NULL, f->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, c->vcpu, 0);
    if (p == MAP_FAILED)
        return floor_failed_("mmap of the run page");
    c->run = (struct kvm_run *)p;
    FLOOR_TRY(ioctl(c->vcpu, KVM_SET_CPUID2, &f->cpuid));
    return true;
}

/* What goes by time, or might have gone since it was set: timers, chips, clocks. */
static inline bool floor_set_time(const struct floor *f, const struct floor_clone *c, bool split)
{
    struct kvm_device_attr tsc = {0, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET,
                                  (uint64_t)(uintptr_t)&f->tsc_offset};

    FLOOR_TRY(ioctl(c->vcpu, KVM_SET_DEVICE_ATTR, &tsc));
    FLOOR_TRY(ioctl(c->vcpu, KVM_SET_LAPIC, &f->lapic));
    if (ioctl(c->vcpu, KVM_SET_MSRS, &f->msrs) != (int)f->msrs.nmsrs)
        return floor_failed_("KVM_SET_MSRS");
    for (uint32_t i = 0; i < 3 && !split; i++)
        FLOOR_TRY(ioctl(c->vm, KVM_SET_IRQCHIP, &f->chip[i]));
    if (!split)
        FLOOR_TRY(ioctl(c->vm, KVM_SET_PIT2, &f->pit));
    FLOOR_TRY(ioctl(c->vm, KVM_SET_CLOCK, &f->clock));
    return true;
}

/* Gives a clone the golden state. */
static inline bool floor_set(const struct floor *f, const struct floor_clone *c, bool split)
{
    FLOOR_TRY(ioctl(c->vcpu, KVM_SET_SREGS2, &f->sregs));
    FLOOR_TRY(ioctl(c->vcpu, KVM_SET_REGS, &f->regs));
    FLOOR_TRY(ioctl(c->vcpu, KVM_SET_XCRS, &f->xcrs));
    FLOOR_TRY(ioctl(c->vcpu, KVM_SET_XSAVE, f->xsave));
    if (!floor_set_time(f, c, split))
        return false;
    FLOOR_TRY(ioctl(c->vcpu, KVM_SET_DEBUGREGS, &f->debugregs));
    FLOOR_TRY(ioctl(c->vcpu, KVM_SET_VCPU_EVENTS, &f->events));
    FLOOR_TRY(ioctl(c->vcpu, KVM_SET_MP_STATE, &f->mp_state));
    return true;
}

/* Runs a clone to its next output. */
static inline bool floor_run(const struct floor_clone *c)
{
    for (uint32_t i = 0; i < FLOOR_EXITS; i++) {
        if (ioctl(c->vcpu, KVM_RUN, 0) < 0 && errno != EINTR)
            return floor_failed_("KVM_RUN");
        if (c->run->exit_reason == KVM_EXIT_IO && c->run->io.port == FLOOR_UART &&
            c->run->io.direction == KVM_EXIT_IO_OUT)
            return true;
        if (c->run->exit_reason != KVM_EXIT_IO && c->run->exit_reason != KVM_EXIT_INTR)
            break;
    }
    fprintf(stderr, "fork_floor: no output; exit reason %u\n", c->run->exit_reason);
    return false;
}

/* Completes the access that is under way. */
static inline bool floor_pause_(const struct floor_clone *c)
{
    c->run->immediate_exit = 1;
    if (ioctl(c->vcpu, KVM_RUN, 0) == 0 || errno != EINTR)
        return floor_failed_("KVM_RUN");
    c->run->immediate_exit = 0;
    return true;
}

/* ---- taking clones down ---- */

static inline void *floor_reaper_(void *arg)
{
    struct floor *f = (struct floor *)arg;

    pthread_mutex_lock(&f->lock);
    for (;;) {
        struct floor_clone c;
        uint64_t begin;

        while (f->waiting == 0 && !f->quit)
            pthread_cond_wait(&f->changed, &f->lock);
        if (f->waiting == 0)
            break;
        c = f->dead[--f->waiting];
        f->busy = true;
        pthread_mutex_unlock(&f->lock);
        begin = bench_now();
        floor_close(f, &c);
        begin = bench_now() - begin;
        pthread_mutex_lock(&f->lock);
        f->busy = false;
        bench_add(&f->teardown, (int64_t)begin);
        pthread_cond_broadcast(&f->changed);
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/* Until every clone is down. */
static inline void floor_idle(struct floor *f)
{
    pthread_mutex_lock(&f->lock);
    while (f->waiting > 0 || f->busy)
        pthread_cond_wait(&f->changed, &f->lock);
    pthread_mutex_unlock(&f->lock);
}

/* Hands a clone to the thread. */
static inline void floor_reap(struct floor *f, const struct floor_clone *c)
{
    pthread_mutex_lock(&f->lock);
    while (f->waiting == FLOOR_CLONES)
        pthread_cond_wait(&f->changed, &f->lock);
    f->dead[f->waiting++] = *c;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

/*
 * Reads the golden machine, a VM with all chips in the kernel and a vCPU, which stands still:
 * memory is the memfd of size bytes that its only slot, from 0 on, is a mapping of. The machine
 * and the descriptors stay the caller's; it must not run as long as there are clones.
 */
static inline bool floor_init(struct floor *f, int kvm, int vm, int vcpu, int memory, uint64_t size)
{
    memset(f, 0, sizeof(*f));
    f->kvm = kvm;
    f->memory = memory;
    f->size = size;
    f->run_size = (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    f->teardown.name = "teardown, off the clock";
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    if (!floor_save_(f, vm, vcpu))
        return false;
    errno = pthread_create(&f->reaper, NULL, floor_reaper_, f);
    return errno == 0 || floor_failed_("pthread_create");
}

static inline void floor_end(struct floor *f)
{
    pthread_mutex_lock(&f->lock);
    f->quit = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    pthread_join(f->reaper, NULL);
    bench_free(&f->teardown, 1);
}

/* ---- samples ---- */

/* What a variant is: ctx of the samples below. */
struct floor_way {
    struct floor *floor;
    bool split; /* local APICs only are in the kernel */
    bool image; /* pool: of one image */
    uint32_t
        run; /* reset: outputs that the clone runs on for, dirtying pages, before it is reset */
    struct floor_clone clone;                  /* reset: the one */
    struct floor_clone pool[FLOOR_CLONES / 2]; /* pool: those that wait */
    uint32_t ready;
};

static inline int64_t floor_cold(void *ctx)
{
    struct floor_way *w = (struct floor_way *)ctx;
    struct floor_clone c;
    uint64_t begin;
    int64_t took;
    bool ok;

    begin = bench_now();
    ok = floor_make(w->floor, &c, w->split, true) && floor_set(w->floor, &c, w->split) &&
         floor_run(&c);
    took = (int64_t)(bench_now() - begin);
    floor_reap(w->floor, &c);
    floor_idle(w->floor);
    return ok ? took : -1;
}

/* Off the clock: a pool that is full again. */
static inline bool floor_fill(struct floor_way *w)
{
    while (w->ready < FLOOR_CLONES / 2) {
        struct floor_clone *c = &w->pool[w->ready++];

        if (!floor_make(w->floor, c, w->split, w->image))
            return false;
        if (!w->image)
            continue;
        (void)ioctl(c->vcpu, KVM_RUN, 0); /* there is no memory where a reset begins: it ends */
        if (!floor_set(w->floor, c, w->split))
            return false;
    }
    return true;
}

/* The golden memory, over a reservation. */
static inline bool floor_map_(const struct floor *f, const struct floor_clone *c)
{
    return mmap(c->ram, f->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
                f->memory, 0) == (void *)c->ram;
}

static inline int64_t floor_pool(void *ctx)
{
    struct floor_way *w = (struct floor_way *)ctx;
    struct floor_clone c;
    uint64_t begin;
    int64_t took;
    bool ok;

    if (w->ready == 0 && !floor_fill(w))
        return -1;
    c = w->pool[--w->ready];
    begin = bench_now();
    ok = w->image ? floor_set_time(w->floor, &c, w->split)
                  : floor_map_(w->floor, &c) && floor_set(w->floor, &c, w->split);
    ok = ok && floor_run(&c);
    took = (int64_t)(bench_now() - begin);
    floor_reap(w->floor, &c);
    floor_idle(w->floor);
    return ok ? took : -1;
}

static inline int64_t floor_reset(void *ctx)
{
    struct floor_way *w = (struct floor_way *)ctx;
    struct floor *f = w->floor;
    uint64_t begin;
    bool ok = true;

    if (!w->clone.ram)
        ok = floor_make(f, &w->clone, w->split, true) && floor_set(f, &w->clone, w->split) &&
             floor_run(&w->clone);
    for (uint32_t i = 0; ok && i < w->run; i++)
        ok = floor_run(&w->clone);
    if (ok)
        ok = floor_pause_(&w->clone);
    begin = bench_now();
    ok = ok && madvise(w->clone.ram, f->size, MADV_DONTNEED) == 0 &&
         floor_set(f, &w->clone, w->split) && floor_run(&w->clone);
    return ok ? (int64_t)(bench_now() - begin) : -1;
}

/* Takes down what a way still holds. */
static inline void floor_way_end(struct floor_way *w)
{
    while (w->ready > 0)
        floor_reap(w->floor, &w->pool[--w->ready]);
    if (w->clone.ram)
        floor_reap(w->floor, &w->clone);
    memset(&w->clone, 0, sizeof(w->clone));
    floor_idle(w->floor);
}

#endif
