/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Writes the ACPI tables of a machine with a serial port, a virtio-mmio device, and a generation
 * id whose change is an event, into files, for a look at them:
 *
 *   acpi 4 tables && iasl -d tables/DSDT.dat && less tables/DSDT.dsl
 */
#include "tn_acpi.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void usage(FILE *f)
{
    fprintf(f, "usage: acpi CPUS DIRECTORY\n"
               "Writes the ACPI tables of a machine with 1 to 254 CPUs into DIRECTORY, which is\n"
               "made if need be: RSDP.dat, XSDT.dat, FACP.dat, APIC.dat, DSDT.dat.\n");
}

/* The devices, as AML. */
static int64_t devices(uint8_t *buf, size_t cap)
{
    static const struct tn_acpi_event event[] = {{9, "\\_SB.VGEN", TN_ACPI_CHANGED}};
    struct tn_aml a;

    tn_aml_init(&a, buf, cap);
    tn_aml_scope_begin(&a, "\\_SB");
    tn_acpi_aml_uart(&a, 0x3f8, 4, 1);
    tn_acpi_aml_virtio_mmio(&a, 0xd0000000, 0x1000, 5, TN_AML_EDGE, 0);
    tn_acpi_aml_vmgenid(&a, 0xef000);
    tn_acpi_aml_ged(&a, event, 1);
    tn_aml_end(&a);
    return tn_aml_finish(&a);
}

static int write_file(const char *dir, const char *name, const uint8_t *p, size_t size)
{
    char path[4096];
    FILE *f;
    int bad;

    if (snprintf(path, sizeof(path), "%s/%s.dat", dir, name) >= (int)sizeof(path)) {
        errno = ENAMETOOLONG;
        f = NULL;
    } else {
        f = fopen(path, "wb");
    }
    bad = !f || fwrite(p, 1, size, f) != size;
    if (f && fclose(f) != 0)
        bad = 1;
    if (bad)
        fprintf(stderr, "acpi: cannot write %s/%s.dat: %s\n", dir, name, strerror(errno));
    else
        printf("%s/%s.dat: %zu bytes\n", dir, name, size);
    return bad;
}

int main(int argc, char **argv)
{
    static uint8_t tables[64 * 1024];
    uint8_t body[512];
    struct tn_acpi_cfg cfg = {.gpa = 0xe0000, .dsdt = body};
    struct tn_acpi_layout l;
    int64_t len = devices(body, sizeof(body));
    char *end;
    unsigned long cpus;

    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        usage(stdout);
        return 0;
    }
    if (argc != 3) {
        usage(stderr);
        return 2;
    }
    cpus = strtoul(argv[1], &end, 10);
    cfg.cpus = *argv[1] >= '0' && *argv[1] <= '9' && *end == 0 && cpus < 255 ? (uint32_t)cpus : 0;
    cfg.reset = (struct tn_acpi_reg){TN_ACPI_IO, 0x64};
    cfg.reset_value = 0xfe;
    cfg.i8042 = true;
    cfg.sleep_control = (struct tn_acpi_reg){TN_ACPI_IO, 0x600};
    cfg.sleep_status = (struct tn_acpi_reg){TN_ACPI_IO, 0x601};
    cfg.dsdt_len = len > 0 ? (size_t)len : 0;
    if (tn_acpi_build(&cfg, tables, sizeof(tables), &l) < 0) {
        fprintf(stderr, "acpi: %s: the number of CPUs is 1 to %u\n", argv[1], TN_ACPI_MAX_CPUS);
        return 2;
    }
    if (mkdir(argv[2], 0777) != 0 && errno != EEXIST) {
        fprintf(stderr, "acpi: cannot make %s: %s\n", argv[2], strerror(errno));
        return 1;
    }
    if (write_file(argv[2], "RSDP", tables + l.rsdp.offset, l.rsdp.size) ||
        write_file(argv[2], "XSDT", tables + l.xsdt.offset, l.xsdt.size) ||
        write_file(argv[2], "FACP", tables + l.fadt.offset, l.fadt.size) ||
        write_file(argv[2], "APIC", tables + l.madt.offset, l.madt.size) ||
        write_file(argv[2], "DSDT", tables + l.dsdt.offset, l.dsdt.size))
        return 1;
    return fflush(stdout) == 0 ? 0 : 1;
}
