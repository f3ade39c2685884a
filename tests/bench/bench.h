/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the benchmarks share: a clock, samples with percentiles and CPU time, interleaved rounds,
 * and the lines that they print. Times drift on a shared machine, so two variants are compared
 * only within one run, where each round runs every variant once, in an order that is rotated.
 *
 *   static int64_t ours(void *ctx) { ... return nanoseconds, or a negative number: failed; }
 *
 *   struct bench_series s[] = {BENCH("ours", ours, &ctx), BENCH("peer", peer, &ctx)};
 *
 *   bench_machine();
 *   bench_rounds(s, 2, 300, 30);
 *   bench_table(s, 2);
 *   bench_ratio("B7", "ns per chain", &s[0], &s[1], 50, 0.5);
 */
#ifndef TENON_BENCH_H
#define TENON_BENCH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* One variant: how a sample of it is taken, and what was measured. */
struct bench_series {
    const char *name;
    int64_t (*sample)(void *ctx); /* nanoseconds; negative: it failed, and is counted as that */
    void *ctx;
    int64_t *value;
    size_t count;
    size_t cap;
    unsigned failures;
    uint64_t cpu; /* ns, user and system, that the samples took in all; printed per sample */
    bool sorted;
};

/* clang-format off */
#define BENCH(name, sample, ctx) {name, sample, ctx, NULL, 0, 0, 0, 0, false}
/* clang-format on */

static inline uint64_t bench_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* CPU time of this process and, with children, of those that it has waited for. */
static inline uint64_t bench_cpu(int who)
{
    struct rusage u;
    uint64_t us;

    getrusage(who, &u);
    us = (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000u;
    return (us + (uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec) * 1000u;
}

static inline uint64_t bench_cpu_all(void)
{
    return bench_cpu(RUSAGE_SELF) + bench_cpu(RUSAGE_CHILDREN);
}

/* Hides from the compiler where a pointer comes from, and that memory is unchanged. */
static inline void *bench_opaque(void *p)
{
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

static inline void bench_add(struct bench_series *s, int64_t value)
{
    if (value < 0) {
        s->failures++;
        return;
    }
    if (s->count == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 1024;
        s->value = (int64_t *)realloc(s->value, s->cap * sizeof(*s->value));
        if (!s->value) {
            perror("bench");
            exit(1);
        }
    }
    s->value[s->count++] = value;
    s->sorted = false;
}

static inline int bench_order_(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* The nearest-rank percentile; -1 when there is no sample. */
static inline int64_t bench_percentile(struct bench_series *s, unsigned percent)
{
    size_t rank;

    if (s->count == 0)
        return -1;
    if (!s->sorted)
        qsort(s->value, s->count, sizeof(*s->value), bench_order_);
    s->sorted = true;
    rank = (s->count * percent + 99) / 100;
    return s->value[rank > 0 ? rank - 1 : 0];
}

/* Takes samples of n series, round by round; those of the first warm_up rounds are dropped. */
static inline void bench_rounds(struct bench_series *s, size_t n, unsigned rounds, unsigned warm_up)
{
    for (unsigned round = 0; round < warm_up + rounds; round++) {
        for (size_t i = 0; i < n; i++) {
            struct bench_series *one = &s[(i + round) % n];
            uint64_t cpu = bench_cpu_all();
            int64_t value = one->sample(one->ctx);
            if (round < warm_up)
                continue;
            one->cpu += bench_cpu_all() - cpu;
            bench_add(one, value);
        }
    }
}

static inline void bench_free(struct bench_series *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(s[i].value);
        s[i].value = NULL;
        s[i].count = s[i].cap = 0;
    }
}

/* ---- what is printed ---------------------------------------------------------------------- */

/* The first line of a file without its line feed; "-" when it cannot be read. */
static inline const char *bench_line_(const char *path, char *line, size_t cap)
{
    FILE *f = fopen(path, "r");

    if (!f || !fgets(line, (int)cap, f))
        snprintf(line, cap, "-");
    if (f)
        fclose(f);
    line[strcspn(line, "\n")] = '\0';
    return line;
}

/* Where and when this was measured, as one line. */
static inline void bench_machine(void)
{
    char load[128], tdp[16], nx[16];
    struct utsname name;
    struct timespec tick;
    unsigned spaces = 0;

    memset(&name, 0, sizeof(name));
    uname(&name);
    if (clock_getres(CLOCK_MONOTONIC_COARSE, &tick) < 0 || tick.tv_nsec == 0)
        tick.tv_nsec = 1000000000;
    bench_line_("/proc/loadavg", load, sizeof(load));
    for (char *p = load; *p != '\0' && spaces < 3; p++) {
        if (*p == ' ' && ++spaces == 3)
            *p = '\0'; /* the three averages, without what follows them */
    }
    printf("# machine: %s %s %s, %ld CPUs, HZ=%ld, load %s, kvm tdp_mmu=%s nx_huge_pages=%s\n",
           name.sysname, name.release, name.machine, sysconf(_SC_NPROCESSORS_ONLN),
           (1000000000 + tick.tv_nsec / 2) / tick.tv_nsec, load,
           bench_line_("/sys/module/kvm/parameters/tdp_mmu", tdp, sizeof(tdp)),
           bench_line_("/sys/module/kvm/parameters/nx_huge_pages", nx, sizeof(nx)));
    fflush(stdout);
}

static inline void bench_row_(const char *name, int64_t p50, int64_t p90, int64_t p99, uint64_t cpu,
                              size_t count, unsigned failures)
{
    int64_t largest = p99 > p50 ? p99 : p50;
    double unit = largest >= 100000000 ? 1e6 : largest >= 100000 ? 1e3 : 1;
    int digits = unit > 1 ? 1 : 0;

    printf("  %-36s %9.*f %9.*f %9.*f %-2s %8zu %10.1f %5u\n", name, digits, (double)p50 / unit,
           digits, (double)p90 / unit, digits, (double)p99 / unit,
           unit > 1e3 ? "ms"
           : unit > 1 ? "us"
                      : "ns",
           count, count > 0 ? (double)cpu / 1e3 / (double)count : 0.0, failures);
}

static inline void bench_table(struct bench_series *s, size_t n)
{
    printf("  %-36s %9s %9s %9s    %8s %10s %5s\n", "variant", "p50", "p90", "p99", "samples",
           "cpu us", "fail");
    for (size_t i = 0; i < n; i++)
        bench_row_(s[i].name, bench_percentile(&s[i], 50), bench_percentile(&s[i], 90),
                   bench_percentile(&s[i], 99), s[i].cpu, s[i].count, s[i].failures);
    fflush(stdout);
}

/*
 * One budget's line. value is what is held against the budget, in unit ("" for a plain ratio);
 * ratio is that to the peer or floor. A negative value: it could not be measured.
 */
static inline bool bench_budget(const char *id, const char *what, double value, const char *unit,
                                double ratio, double budget)
{
    bool holds = value >= 0 && value <= budget;

    printf("%s %s: ", id, what);
    if (value < 0)
        printf("not measured");
    else if (unit[0] != '\0')
        printf("%.1f %s ratio=%.4f", value, unit, ratio);
    else
        printf("ratio=%.3f", ratio);
    printf(" budget<=%g%s%s %s\n", budget, unit[0] ? " " : "", unit,
           value < 0 ? "unknown"
           : holds   ? "holds"
                     : "falls short");
    fflush(stdout);
    return holds;
}

/* The budget's line for a percentile of ours divided by the same of theirs. */
static inline bool bench_ratio(const char *id, const char *what, struct bench_series *ours,
                               struct bench_series *theirs, unsigned percent, double budget)
{
    int64_t a = bench_percentile(ours, percent), b = bench_percentile(theirs, percent);
    double ratio = a < 0 || b <= 0 ? -1 : (double)a / (double)b;
    char text[160];

    snprintf(text, sizeof(text), "%s, p%u", what, percent);
    return bench_budget(id, text, ratio, "", ratio, budget);
}

#endif
