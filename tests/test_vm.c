/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_vm.h"

#include "clock.h"
#include "test.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Whole machines on /dev/kvm, with the guest of tests/guests/machine.c, whose command line says
 * what it does. Each case gets its own loop and console pipes.
 */

static uint8_t *kernel;
static size_t kernel_len;
static struct tn_kvm kvm;
static const char *missing; /* why the cases are skipped */

struct bench {
    struct tn_loop loop;
    struct tn_vm vm;
    struct tn_vm_cfg cfg;
    int in[2], out[2]; /* the console's pipes */
    char seen[65536];
    size_t len;
};

static int machines_setup(void **state)
{
    const char *dir = getenv("TENON_GUESTS");
    char path[512];
    FILE *f;
    int r;

    (void)state;
    snprintf(path, sizeof(path), "%s/machine.elf", dir ? dir : "build/guests");
    f = fopen(path, "rb");
    if (!f) {
        missing = "the guest is not built: make guests";
        return 0;
    }
    kernel = malloc(1 << 20);
    kernel_len = fread(kernel, 1, 1 << 20, f);
    fclose(f);
    r = tn_kvm_open(&kvm, NULL);
    if (r < 0)
        missing = "/dev/kvm is missing or may not be opened";
    return 0;
}

static int machines_teardown(void **state)
{
    (void)state;
    if (!missing)
        tn_kvm_close(&kvm);
    free(kernel);
    return 0;
}

static void bench_open(struct bench *b, const char *word)
{
    if (missing)
        SKIP(missing);
    memset(b, 0, sizeof(*b));
    assert_int_equal(tn_loop_init(&b->loop), 0);
    assert_int_equal(pipe2(b->in, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(pipe2(b->out, O_CLOEXEC | O_NONBLOCK), 0);
    b->cfg.memory = 16ull << 20;
    b->cfg.kernel = kernel;
    b->cfg.kernel_len = kernel_len;
    b->cfg.cmdline = word;
    b->cfg.console = true;
    b->cfg.console_in = b->in[0];
    b->cfg.console_out = b->out[1];
}

static void bench_create(struct bench *b, const char *word)
{
    bench_open(b, word);
    assert_int_equal(tn_vm_init(&b->vm, &kvm, &b->loop, &b->cfg), 0);
}

static void bench_close(struct bench *b)
{
    tn_vm_close(&b->vm);
    tn_loop_close(&b->loop);
    for (int i = 0; i < 2; i++) {
        close(b->in[i]);
        close(b->out[i]);
    }
}

static void collect(struct bench *b)
{
    ssize_t n;

    while ((n = read(b->out[0], b->seen + b->len, sizeof(b->seen) - 1 - b->len)) > 0)
        b->len += (size_t)n;
    b->seen[b->len] = 0;
}

/* Serves the loop until the console has said text, for 20 s at most. */
static void until_seen(struct bench *b, const char *text)
{
    for (int i = 0; i < 20000 && !strstr(b->seen, text); i++) {
        tn_loop_step(&b->loop, 1);
        collect(b);
    }
    assert_non_null(strstr(b->seen, text));
}

static uint32_t run_to_end(struct bench *b)
{
    int r = TN_EAGAIN;

    for (int i = 0; i < 20000 && r == TN_EAGAIN; i++) {
        tn_loop_step(&b->loop, 1);
        collect(b);
        r = tn_vm_wait(&b->vm, 0);
    }
    assert_true(r > 0);
    collect(b);
    return (uint32_t)r;
}

static double cpu_seconds(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static int count_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void each_ending_has_its_reason(void **state)
{
    static const struct {
        const char *word;
        uint32_t reason;
    } rows[] = {
        {"off", TN_VM_POWEROFF}, {"reset", TN_VM_RESET},  {"kbd-reset", TN_VM_RESET},
        {"panic", TN_VM_PANIC},  {"triple", TN_VM_CRASH},
    };
    static struct bench b;

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        bench_create(&b, rows[i].word);
        assert_int_equal(tn_vm_start(&b.vm), 0);
        assert_int_equal(run_to_end(&b), rows[i].reason);
        assert_int_equal(b.vm.end.reason, rows[i].reason);
        assert_int_equal(tn_vm_state_read(&b.vm), TN_VM_STOPPED);
        assert_memory_equal(b.seen, rows[i].word, strlen(rows[i].word));
        bench_close(&b);
    }
}

static void wrong_moves_are_errors(void **state)
{
    static struct bench b;
    static struct tn_vm closed;

    (void)state;
    assert_int_equal(tn_vm_start(&closed), TN_ESTATE);
    assert_int_equal(tn_vm_pause(&closed), TN_ESTATE);
    assert_int_equal(tn_vm_resume(&closed), TN_ESTATE);
    assert_int_equal(tn_vm_shutdown(&closed), TN_ESTATE);
    assert_int_equal(tn_vm_ctrl_alt_del(&closed), TN_ESTATE);
    assert_int_equal(tn_vm_kill(&closed), TN_ESTATE);
    assert_int_equal(tn_vm_stop(&closed, 0), TN_ESTATE);
    assert_int_equal(tn_vm_wait(&closed, 0), TN_ESTATE);
    assert_int_equal(tn_vm_state_read(&closed), TN_VM_CLOSED);
    tn_vm_close(&closed);

    bench_create(&b, "spin");
    assert_int_equal(tn_vm_state_read(&b.vm), TN_VM_CREATED);
    assert_int_equal(tn_vm_pause(&b.vm), TN_ESTATE);
    assert_int_equal(tn_vm_resume(&b.vm), TN_ESTATE);
    assert_int_equal(tn_vm_shutdown(&b.vm), TN_ESTATE);
    assert_int_equal(tn_vm_ctrl_alt_del(&b.vm), TN_ESTATE);
    assert_int_equal(tn_vm_wait(&b.vm, 0), TN_ESTATE);
    assert_int_equal(tn_vm_start(&b.vm), 0);
    assert_int_equal(tn_vm_start(&b.vm), TN_ESTATE);
    assert_int_equal(tn_vm_resume(&b.vm), TN_ESTATE);
    assert_int_equal(tn_vm_wait(&b.vm, 0), TN_EAGAIN);
    assert_int_equal(tn_vm_wait(&b.vm, 30), TN_EAGAIN);
    assert_int_equal(tn_vm_pause(&b.vm), 0);
    assert_int_equal(tn_vm_state_read(&b.vm), TN_VM_PAUSED);
    assert_int_equal(tn_vm_pause(&b.vm), TN_ESTATE);
    assert_int_equal(tn_vm_start(&b.vm), TN_ESTATE);
    assert_int_equal(tn_vm_shutdown(&b.vm), TN_ESTATE);
    assert_int_equal(tn_vm_ctrl_alt_del(&b.vm), TN_ESTATE);
    assert_int_equal(tn_vm_kill(&b.vm), 0); /* a paused machine can be ended */
    assert_int_equal(tn_vm_wait(&b.vm, -1), TN_VM_KILLED);
    assert_int_equal(tn_vm_kill(&b.vm), 0);
    assert_int_equal(tn_vm_pause(&b.vm), TN_ESTATE);
    assert_int_equal(tn_vm_resume(&b.vm), TN_ESTATE);
    assert_int_equal(tn_vm_start(&b.vm), TN_ESTATE);
    bench_close(&b);
}

static void killed_before_it_began(void **state)
{
    static struct bench b;

    (void)state;
    bench_create(&b, "spin");
    assert_int_equal(tn_vm_kill(&b.vm), 0);
    assert_int_equal(tn_vm_wait(&b.vm, -1), TN_VM_KILLED);
    assert_int_equal(tn_vm_start(&b.vm), TN_ESTATE);
    bench_close(&b);
}

/* A guest that does not hear has its time, and is ended then. */
static void a_stop_takes_its_grace(void **state)
{
    static const int grace[] = {0, 300, 0};
    static struct bench b;

    (void)state;
    for (size_t i = 0; i < COUNT(grace); i++) {
        double begun;

        bench_create(&b, "spin");
        assert_int_equal(tn_vm_start(&b.vm), 0);
        if (i == 2) /* it cannot be asked */
            assert_int_equal(tn_vm_pause(&b.vm), 0);
        begun = seconds(CLOCK_MONOTONIC);
        assert_int_equal(tn_vm_stop(&b.vm, i == 2 ? 100000 : grace[i]), 0);
        assert_true(seconds(CLOCK_MONOTONIC) - begun >= grace[i] / 1000.0);
        assert_true(seconds(CLOCK_MONOTONIC) - begun < 20);
        assert_int_equal(tn_vm_wait(&b.vm, 0), TN_VM_KILLED);
        assert_int_equal(tn_vm_stop(&b.vm, 100000), 0); /* again: it has ended */
        bench_close(&b);
    }
}

#if defined(__x86_64__)
/* Whether the first CPU's local APIC has been told of the vector. */
static bool is_requested(struct tn_vm *vm, unsigned vector)
{
    struct kvm_lapic_state apic;
    const uint8_t *regs = (const uint8_t *)apic.regs;

    assert_int_equal(tn_kvm_x86_get_lapic(&vm->cpu[0].vcpu, &apic), 0);
    return regs[0x200 + vector / 32 * 16 + vector / 8 % 4] >> vector % 8 & 1;
}

/* The button is an edge of a pin of its own; a guest that masks it hears nothing, nor later. */
static void the_button_is_one_edge(void **state)
{
    static struct bench b;
    struct kvm_irqchip chip;
    struct kvm_lapic_state apic;

    (void)state;
    bench_create(&b, "idle");
    for (unsigned listens = 0; listens < 2; listens++) {
        assert_int_equal(tn_kvm_x86_get_lapic(&b.vm.cpu[0].vcpu, &apic), 0);
        apic.regs[0xf1] |= 1; /* the APIC is enabled */
        assert_int_equal(tn_kvm_x86_set_lapic(&b.vm.cpu[0].vcpu, &apic), 0);
        memset(&chip, 0, sizeof(chip));
        chip.chip_id = KVM_IRQCHIP_IOAPIC;
        assert_int_equal(tn_kvm_x86_get_irqchip(&b.vm.kvm_vm, &chip), 0);
        assert_true(chip.chip.ioapic.redirtbl[TN_VM_X86_BUTTON_GSI].fields.mask);
        if (listens) {
            chip.chip.ioapic.redirtbl[TN_VM_X86_BUTTON_GSI].bits = 0x5f;
            assert_int_equal(tn_kvm_x86_set_irqchip(&b.vm.kvm_vm, &chip), 0);
            assert_false(is_requested(&b.vm, 0x5f));
        }
        if (!listens)
            assert_int_equal(tn_vm_start(&b.vm), 0);
        else
            assert_int_equal(tn_vm_resume(&b.vm), 0);
        until_seen(&b, "idle\n");
        assert_int_equal(tn_vm_shutdown(&b.vm), 0);
        assert_int_equal(tn_vm_pause(&b.vm), 0);
        assert_int_equal(is_requested(&b.vm, 0x5f), listens);
        assert_int_equal(tn_kvm_x86_get_irqchip(&b.vm.kvm_vm, &chip), 0);
        assert_int_equal(chip.chip.ioapic.irr & 1u << TN_VM_X86_BUTTON_GSI, 0);
        assert_int_equal(tn_i8042_read(&b.vm.board.i8042, 4) & 1, 0); /* no key */
    }
    assert_int_equal(tn_vm_resume(&b.vm), 0);
    assert_int_equal(tn_vm_ctrl_alt_del(&b.vm), 0);
    assert_int_equal(tn_vm_pause(&b.vm), 0);
    assert_int_equal(tn_i8042_read(&b.vm.board.i8042, 4) & 1, 1);
    bench_close(&b);
}
#endif

/* The guest's numbers stay in order, none lost, none twice, over many pauses at random moments. */
static void pauses_lose_nothing(void **state)
{
    static struct bench b;
    uint64_t random = 7;
    unsigned long expected = 0;
    char *at;

    (void)state;
    bench_create(&b, "count");
    assert_int_equal(tn_vm_start(&b.vm), 0);
    for (int i = 0; i < 300; i++) {
        tn_loop_step(&b.loop, (int)(test_random(&random) % 3));
        assert_int_equal(tn_vm_pause(&b.vm), 0);
        assert_int_equal(b.vm.parked, 1);
        assert_int_equal(tn_vm_resume(&b.vm), 0);
        if (b.len < sizeof(b.seen) / 2)
            collect(&b);
    }
    assert_int_equal(tn_vm_pause(&b.vm), 0);
    assert_int_equal(tn_vm_resume(&b.vm), 0);
    assert_int_equal(tn_vm_stop(&b.vm, 0), 0);
    assert_int_equal(b.vm.end.reason, TN_VM_KILLED);
    collect(&b);
    at = strchr(b.seen, '\n') + 1;
    while (strlen(at) >= 17) {
        char *end;

        assert_int_equal(strtoul(at, &end, 16), expected++);
        assert_int_equal(*end, '\n');
        at = end + 1;
    }
    assert_true(expected > 5);
    bench_close(&b);
}

static void a_paused_machine_stands_still(void **state)
{
    static struct bench b;
    size_t len;
    double cpu;

    (void)state;
    bench_create(&b, "count");
    assert_int_equal(tn_vm_start(&b.vm), 0);
    until_seen(&b, "0002\n");
    assert_int_equal(tn_vm_pause(&b.vm), 0);
    tn_loop_step(&b.loop, 0);
    collect(&b);
    len = b.len;
    cpu = cpu_seconds();
    usleep(200000);
    collect(&b);
    assert_int_equal(b.len, len);
    assert_true(cpu_seconds() - cpu < 0.1);
    bench_close(&b);
}

/* Rule 11: an idle guest costs no CPU. */
static void an_idle_guest_costs_nothing(void **state)
{
    static struct bench b;
    double cpu;

    (void)state;
    bench_open(&b, "idle");
    b.cfg.cpus = 4;
    assert_int_equal(tn_vm_init(&b.vm, &kvm, &b.loop, &b.cfg), 0);
    assert_int_equal(tn_vm_start(&b.vm), 0);
    until_seen(&b, "idle\n");
    usleep(50000);
    cpu = cpu_seconds();
    for (int i = 0; i < 10; i++)
        tn_loop_step(&b.loop, 100);
    assert_true(cpu_seconds() - cpu < 0.1);
    assert_int_equal(tn_vm_wait(&b.vm, 0), TN_EAGAIN);
    bench_close(&b);
}

static void a_burning_guest_can_be_killed(void **state)
{
    static struct bench b;

    (void)state;
    for (uint32_t cpus = 1; cpus <= 4; cpus += 3) {
        bench_open(&b, "spin");
        b.cfg.cpus = cpus;
        assert_int_equal(tn_vm_init(&b.vm, &kvm, &b.loop, &b.cfg), 0);
        assert_int_equal(tn_vm_start(&b.vm), 0);
        until_seen(&b, "spin\n");
        assert_int_equal(tn_vm_kill(&b.vm), 0);
        assert_int_equal(tn_vm_wait(&b.vm, -1), TN_VM_KILLED);
        bench_close(&b);
    }
}

static void the_console_goes_both_ways(void **state)
{
    static struct bench b;
    static const char text[] = "the quick brown fox jumps over the lazy dog 0123456789\n";

    (void)state;
    bench_create(&b, "echo");
    assert_int_equal(tn_vm_start(&b.vm), 0);
    until_seen(&b, "echo\n");
    b.len = 0;
    /* "q" ends the guest: send the text without it, more than any FIFO holds. */
    for (int i = 0; i < 8; i++) {
        for (const char *c = text; *c; c++)
            assert_int_equal(write(b.in[1], *c == 'q' ? "Q" : c, 1), 1);
    }
    assert_int_equal(write(b.in[1], "q", 1), 1);
    assert_int_equal(run_to_end(&b), TN_VM_POWEROFF);
    assert_int_equal(b.len, 8 * strlen(text));
    bench_close(&b);
}

/* C26, C27: who stops reading stops the guest, not the host, and nothing is lost afterwards. */
static void c27_a_reader_that_stops(void **state)
{
    static struct bench b;
    static char filler[1 << 20];
    unsigned long expected = 0;
    size_t stuck, line = 0;
    double cpu;
    ssize_t n;
    char c;

    (void)state;
    bench_create(&b, "count");
    assert_true(fcntl(b.out[1], F_SETPIPE_SZ, 4096) > 0);
    assert_int_equal(tn_vm_start(&b.vm), 0);
    for (int i = 0; i < 100; i++)
        tn_loop_step(&b.loop, 10);
    cpu = cpu_seconds();
    stuck = b.vm.board.console.out_blocked || b.vm.board.uart.state.tx_count > 0;
    assert_true(stuck);
    assert_int_equal(tn_vm_pause(&b.vm), 0); /* and it can still be paused */
    assert_int_equal(tn_vm_resume(&b.vm), 0);
    (void)cpu;
    /* Now read: the numbers go on without a gap. */
    memset(filler, 0, sizeof(filler));
    for (int i = 0; i < 2000 && expected < 400; i++) {
        tn_loop_step(&b.loop, 1);
        while (expected < 400 && (n = read(b.out[0], &c, 1)) == 1) {
            filler[line++] = c;
            if (c != '\n')
                continue;
            filler[line - 1] = 0;
            if (line == 17)
                assert_int_equal(strtoul(filler, NULL, 16), expected++);
            line = 0;
        }
    }
    assert_int_equal(expected, 400);
    bench_close(&b);
}

static void a_reader_that_is_gone(void **state)
{
    static struct bench b;
    double cpu;

    (void)state;
    signal(SIGPIPE, SIG_IGN);
    bench_create(&b, "echo");
    close(b.out[0]);
    b.out[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(tn_vm_start(&b.vm), 0);
    for (int i = 0; i < 50; i++)
        tn_loop_step(&b.loop, 10);
    assert_int_equal(b.vm.board.console.error, EPIPE);
    close(b.in[1]); /* and the other end as well: the loop must not spin */
    b.in[1] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(tn_vm_pause(&b.vm), 0);
    for (int i = 0; i < 5; i++)
        tn_loop_step(&b.loop, 10);
    cpu = cpu_seconds();
    for (int i = 0; i < 5; i++)
        tn_loop_step(&b.loop, 100);
    assert_true(cpu_seconds() - cpu < 0.1);
    bench_close(&b);
}

static void a_file_is_the_input(void **state)
{
    static struct bench b;
    char name[] = "/tmp/tenon-vm-XXXXXX";
    int fd = mkstemp(name);

    (void)state;
    unlink(name);
    assert_int_equal(write(fd, "0123456789abcdefghijklmnopabcdefghijklmnopq", 43), 43);
    lseek(fd, 0, SEEK_SET);
    bench_open(&b, "echo");
    b.cfg.console_in = fd;
    assert_int_equal(tn_vm_init(&b.vm, &kvm, &b.loop, &b.cfg), 0);
    assert_int_equal(tn_vm_start(&b.vm), 0);
    assert_int_equal(run_to_end(&b), TN_VM_POWEROFF);
    assert_non_null(strstr(b.seen, "0123456789abcdefghijklmnopabcdefghijklmnop"));
    bench_close(&b);
    close(fd);
}

static void two_machines_share_a_loop(void **state)
{
    static struct bench a, b;
    struct tn_loop own;

    (void)state;
    bench_create(&a, "count");
    bench_open(&b, "echo");
    own = b.loop;
    assert_int_equal(tn_vm_init(&b.vm, &kvm, &a.loop, &b.cfg), 0);
    assert_int_equal(tn_vm_start(&a.vm), 0);
    assert_int_equal(tn_vm_start(&b.vm), 0);
    for (int i = 0; i < 2000 && !strstr(b.seen, "echo\n"); i++) {
        tn_loop_step(&a.loop, 1);
        collect(&b);
    }
    assert_int_equal(write(b.in[1], "hiq", 3), 3);
    for (int i = 0; i < 2000 && tn_vm_wait(&b.vm, 0) == TN_EAGAIN; i++)
        tn_loop_step(&a.loop, 1);
    collect(&b);
    assert_non_null(strstr(b.seen, "hi"));
    assert_int_equal(b.vm.end.reason, TN_VM_POWEROFF);
    assert_int_equal(tn_vm_wait(&a.vm, 0), TN_EAGAIN); /* the other one lives on */
    b.loop = own;
    bench_close(&b);
    bench_close(&a);
}

static void the_guest_sees_its_ram(void **state)
{
    static const struct {
        uint64_t size;
        const char *line;
    } rows[] = {
        {16ull << 20, "0000000001000000 0000000000000000\n"},
        {3ull << 30, "00000000c0000000 0000000000000000\n"},
        {(3ull << 30) + 4096, "00000000c0000000 0000000100001000\n"},
        {5ull << 30, "00000000c0000000 0000000180000000\n"},
        {64ull << 30, "00000000c0000000 0000001040000000\n"},
    };
    static struct bench b;

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        bench_open(&b, "ram");
        b.cfg.memory = rows[i].size;
        assert_int_equal(tn_vm_init(&b.vm, &kvm, &b.loop, &b.cfg), 0);
        assert_int_equal(tn_vm_start(&b.vm), 0);
        assert_int_equal(run_to_end(&b), TN_VM_POWEROFF);
        assert_non_null(strstr(b.seen, rows[i].line));
        bench_close(&b);
    }
}

/* A refusal has its error, and leaves no descriptor and no mapping behind. */
static void refusals_leave_nothing(void **state)
{
    static struct bench b;
    static char longer[4096];
    int before, i;

    (void)state;
    bench_open(&b, "off");
    memset(longer, 'x', sizeof(longer) - 1);
    before = count_fds();
    for (i = 0; i < 9; i++) {
        struct tn_vm_cfg cfg = b.cfg;
        int expected = TN_EINVAL;

        switch (i) {
        case 0:
            cfg.memory = 0;
            break;
        case 1:
            cfg.memory = (16ull << 20) + 1;
            break;
        case 2:
            cfg.memory = 2ull << 40;
            break;
        case 3:
            cfg.cpus = 255;
            break;
        case 4:
            cfg.boot = 17;
            break;
        case 5:
            cfg.kernel_len = 0;
            expected = TN_ETRUNC;
            break;
        case 6:
            cfg.cmdline = longer;
            expected = TN_ERANGE;
            break;
        case 7:
            cfg.initrd = kernel;
            cfg.initrd_len = 1ull << 40;
            expected = TN_ENOFIT;
            break;
        default:
            cfg.boot = TN_BOOT_X86_PVH;
            expected = TN_EUNSUP;
            break;
        }
        assert_int_equal(tn_vm_init(&b.vm, &kvm, &b.loop, &cfg), expected);
        assert_int_equal(tn_vm_state_read(&b.vm), TN_VM_CLOSED);
        assert_int_equal(count_fds(), before);
    }
    bench_close(&b);
}

static void made_and_ended_many_times(void **state)
{
    static struct bench b;
    int before;

    (void)state;
    bench_open(&b, "count");
    before = count_fds();
    for (uint32_t i = 0; i < 30; i++) {
        b.cfg.cpus = 1 + i % 3;
        assert_int_equal(tn_vm_init(&b.vm, &kvm, &b.loop, &b.cfg), 0);
        assert_int_equal(tn_vm_start(&b.vm), 0);
        if (i % 2)
            tn_loop_step(&b.loop, 1);
        if (i % 3 == 0)
            assert_int_equal(tn_vm_stop(&b.vm, 0), 0);
        tn_vm_close(&b.vm);
    }
    assert_int_equal(count_fds(), before);
    bench_close(&b);
}

/* Pause, resume and kill from threads of their own, all at once: no kick is lost, nothing hangs. */
static void *pauser(void *arg)
{
    struct tn_vm *vm = arg;

    for (int i = 0; i < 200; i++) {
        if (tn_vm_pause(vm) == TN_OK)
            tn_vm_resume(vm);
    }
    return NULL;
}

static void many_hands(void **state)
{
    static struct bench b;
    pthread_t thread[3];

    (void)state;
    bench_open(&b, "count");
    b.cfg.cpus = 2;
    b.cfg.console_out = -1;
    assert_int_equal(tn_vm_init(&b.vm, &kvm, &b.loop, &b.cfg), 0);
    assert_int_equal(tn_vm_start(&b.vm), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, pauser, &b.vm), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    tn_vm_kill(&b.vm);
    pthread_join(thread[2], NULL);
    assert_int_equal(tn_vm_wait(&b.vm, -1), TN_VM_KILLED);
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_ending_has_its_reason),
        cmocka_unit_test(wrong_moves_are_errors),
        cmocka_unit_test(killed_before_it_began),
        cmocka_unit_test(a_stop_takes_its_grace),
#if defined(__x86_64__)
        cmocka_unit_test(the_button_is_one_edge),
#endif
        cmocka_unit_test(pauses_lose_nothing),
        cmocka_unit_test(a_paused_machine_stands_still),
        cmocka_unit_test(an_idle_guest_costs_nothing),
        cmocka_unit_test(a_burning_guest_can_be_killed),
        cmocka_unit_test(the_console_goes_both_ways),
        cmocka_unit_test(c27_a_reader_that_stops),
        cmocka_unit_test(a_reader_that_is_gone),
        cmocka_unit_test(a_file_is_the_input),
        cmocka_unit_test(two_machines_share_a_loop),
        cmocka_unit_test(the_guest_sees_its_ram),
        cmocka_unit_test(refusals_leave_nothing),
        cmocka_unit_test(made_and_ended_many_times),
        cmocka_unit_test(many_hands),
    };

    return cmocka_run_group_tests_name("vm", tests, machines_setup, machines_teardown);
}
