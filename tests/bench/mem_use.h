/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What memory costs: this process's share of it, and the whole machine's. Pss prices what the
 * kernel keeps for a VM at nothing (page tables, shadow pages, the VM itself): so what the machine
 * has less is always printed beside it. That has everybody's memory in it: measure on a quiet one.
 *
 *   struct mem_use before, after;
 *
 *   mem_use_settle();
 *   mem_use_read(&before);
 *   ... 200 forks ...
 *   mem_use_read(&after);
 *   mem_use_head();
 *   mem_use_row("pool", &before, &after, 200, 16);
 */
#ifndef TENON_MEM_USE_H
#define TENON_MEM_USE_H

#include "bench.h"

/* KiB; -1: not known. */
struct mem_use {
    int64_t pss;       /* this process: what it has alone, and its part of what it shares */
    int64_t anon;      /* of that: its own pages, written to */
    int64_t file;      /* of that: pages of files, memfds among them */
    int64_t tables;    /* the process's page tables */
    int64_t available; /* the machine: what could be had without swapping */
    int64_t free;      /* the machine: what nobody has */
    int64_t slab;      /* the machine: the kernel's own objects that cannot be reclaimed */
};

/* The number of KiB in the line of a file that begins with name; -1 without one. */
static inline int64_t mem_use_line_(const char *path, const char *name)
{
    FILE *f = fopen(path, "r");
    char line[256];
    int64_t value = -1;

    while (f && value < 0 && fgets(line, (int)sizeof(line), f))
        if (strncmp(line, name, strlen(name)) == 0)
            value = strtoll(line + strlen(name), NULL, 10);
    if (f)
        fclose(f);
    return value;
}

static inline void mem_use_read(struct mem_use *u)
{
    const char *own = "/proc/self/smaps_rollup", *all = "/proc/meminfo";
    int64_t shmem = mem_use_line_(own, "Pss_Shmem:");

    u->available = mem_use_line_(all, "MemAvailable:");
    u->free = mem_use_line_(all, "MemFree:");
    u->slab = mem_use_line_(all, "SUnreclaim:");
    u->pss = mem_use_line_(own, "Pss:");
    u->anon = mem_use_line_(own, "Pss_Anon:");
    u->file = mem_use_line_(own, "Pss_File:");
    if (u->file >= 0 && shmem >= 0)
        u->file += shmem;
    u->tables = mem_use_line_("/proc/self/status", "VmPTE:");
}

/* Until what was freed lately is free: KVM frees behind grace periods. Six seconds at most. */
static inline void mem_use_settle(void)
{
    int64_t before = -1, now = mem_use_line_("/proc/meminfo", "MemFree:");

    for (unsigned i = 0, calm = 0; i < 30 && calm < 3; i++) {
        usleep(200000);
        before = now;
        now = mem_use_line_("/proc/meminfo", "MemFree:");
        calm = now > before + 512 ? 0 : calm + 1;
    }
}

/* KiB that each of n forks added to the process, without the pages that it dirtied. */
static inline double mem_use_pss(const struct mem_use *before, const struct mem_use *after,
                                 unsigned n, unsigned dirty)
{
    double page = (double)sysconf(_SC_PAGESIZE) / 1024;

    if (before->pss < 0 || after->pss < 0 || n == 0)
        return -1;
    return (double)(after->pss - before->pss) / n - dirty * page;
}

/* KiB that the machine has less of for each of n forks. */
static inline double mem_use_available(const struct mem_use *before, const struct mem_use *after,
                                       unsigned n)
{
    return n == 0 ? -1 : (double)(before->available - after->available) / n;
}

static inline void mem_use_head(void)
{
    printf("  %-36s %7s %10s %12s %10s %12s %10s %10s\n", "KiB per live fork", "forks", "Pss",
           "less dirtied", "page tabs", "MemAvailable", "MemFree", "slab");
}

/* The deltas over n forks, each of which dirtied so many pages. */
static inline void mem_use_row(const char *name, const struct mem_use *before,
                               const struct mem_use *after, unsigned n, unsigned dirty)
{
    double forks = n > 0 ? n : 1;

    printf("  %-36s %7u %10.1f %12.1f %10.1f %12.1f %10.1f %10.1f\n", name, n,
           (double)(after->pss - before->pss) / forks, mem_use_pss(before, after, n, dirty),
           (double)(after->tables - before->tables) / forks, mem_use_available(before, after, n),
           (double)(before->free - after->free) / forks,
           (double)(after->slab - before->slab) / forks);
    fflush(stdout);
}

#endif
