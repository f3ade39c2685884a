/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Prints the MP table of a machine, read back from its bytes.
 *
 *   mptable [--hex] [CPUS]
 */
#include "tn_mptable.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GPA 0xf0000u

static void usage(FILE *f)
{
    fprintf(f, "usage: mptable [--hex] [CPUS]\n"
               "Prints the MP table of a machine with 1 to 254 CPUs (2), or its bytes (--hex).\n");
}

/* The little-endian number of n bytes. */
static unsigned number(const uint8_t *p, unsigned n)
{
    return n == 0 ? 0 : *p | number(p + 1, n - 1) << 8;
}

static void print_hex(const uint8_t *p, size_t size)
{
    for (size_t i = 0; i < size; i += 16) {
        printf("%05zx ", GPA + i);
        for (size_t k = i; k < i + 16 && k < size; k++)
            printf(" %02x", p[k]);
        printf("\n");
    }
}

/* Prints an entry; returns how long it is. */
static size_t print_entry(const uint8_t *p)
{
    switch (p[0]) {
    case 0:
        printf("processor   APIC id %u, version 0x%02x%s, signature 0x%x, features 0x%x\n", p[1],
               p[2], p[3] & 2 ? ", boots" : "", number(p + 4, 4), number(p + 8, 4));
        return 20;
    case 1:
        printf("bus         %u is %.6s\n", p[1], (const char *)p + 2);
        break;
    case 2:
        printf("I/O APIC    id %u, version 0x%02x, at 0x%08x\n", p[1], p[2], number(p + 4, 4));
        break;
    case 3:
        printf("interrupt   bus %u line %2u -> I/O APIC %u pin %u\n", p[4], p[5], p[6], p[7]);
        break;
    default:
        printf("%-11s -> local APIC %u LINT%u\n", p[1] == 3 ? "ExtINT" : "NMI", p[6], p[7]);
        break;
    }
    return 8;
}

static void print_table(const uint8_t *p, size_t size)
{
    const uint8_t *table = p + 16;
    size_t at = 44;

    printf("%.4s at 0x%x, revision 1.%u, table at 0x%x\n", (const char *)p, GPA, p[9],
           number(p + 4, 4));
    printf("%.4s \"%.8s\" \"%.12s\", %u bytes, %u entries, local APICs at 0x%08x\n",
           (const char *)table, (const char *)table + 8, (const char *)table + 16,
           number(table + 4, 2), number(table + 34, 2), number(table + 36, 4));
    while (at < size - 16)
        at += print_entry(table + at);
}

int main(int argc, char **argv)
{
    static uint8_t table[TN_MPTABLE_MAX];
    struct tn_mptable_cfg cfg = {.gpa = GPA, .cpus = 2};
    bool hex = false;
    int size;

    for (int i = 1; i < argc; i++) {
        char *end;
        unsigned long cpus = strtoul(argv[i], &end, 10);

        if (strcmp(argv[i], "--help") == 0) {
            usage(stdout);
            return 0;
        }
        if (strcmp(argv[i], "--hex") == 0) {
            hex = true;
        } else if (*argv[i] >= '0' && *argv[i] <= '9' && *end == 0 && cpus <= UINT32_MAX) {
            cfg.cpus = (uint32_t)cpus;
        } else {
            fprintf(stderr, "mptable: %s is neither --hex nor a number of CPUs\n", argv[i]);
            return 2;
        }
    }
    size = tn_mptable_build(&cfg, table, sizeof(table));
    if (size < 0) {
        fprintf(stderr, "mptable: %u CPUs: an MP table has 1 to %u\n", cfg.cpus,
                TN_MPTABLE_MAX_CPUS);
        return 2;
    }
    if (hex)
        print_hex(table, (size_t)size);
    else
        print_table(table, (size_t)size);
    return fflush(stdout) == 0 ? 0 : 1;
}
