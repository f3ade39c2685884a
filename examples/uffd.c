/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A file in memory, fetched where it is touched: prints the 16 bytes at each OFFSET, and how much
 * of the file had to be read for that.
 *
 *   uffd disk.img 0 446 1048576
 */
#include "tn_uffd.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CHUNK (64u << 10)

static int fetch(void *ctx, uint64_t off, uint8_t *buf, size_t len)
{
    size_t n = 0;

    while (n < len) {
        ssize_t part = pread(*(const int *)ctx, buf + n, len - n, (off_t)(off + n));

        if (part < 0 && errno != EINTR)
            return TN_ESYS;
        if (part == 0)
            break;
        n += part > 0 ? (size_t)part : 0;
    }
    memset(buf + n, 0, len - n); /* past the file's end */
    return 0;
}

static void failed(void *ctx, uint64_t off, int err)
{
    (void)ctx;
    fprintf(stderr, "uffd: cannot read at %" PRIu64 ": error %d, %s\n", off, err, strerror(errno));
    _exit(1);
}

static int show(const struct tn_uffd_cfg *cfg, uint64_t size, const char *text)
{
    char *end;
    uintmax_t at = strtoumax(text, &end, 0);

    if (*text < '0' || *text > '9' || *end != 0 || at >= size) {
        fprintf(stderr, "uffd: %s is no offset in the file\n", text);
        return 1;
    }
    printf("%10" PRIuMAX ": ", at);
    for (unsigned i = 0; i < 16 && at + i < size; i++)
        printf(" %02x", cfg->ptr[at + i]);
    printf("\n");
    return 0;
}

int main(int argc, char **argv)
{
    struct tn_uffd_cfg cfg;
    struct tn_uffd_stats stats;
    struct tn_uffd lazy;
    struct stat st;
    bool help = argc == 2 && strcmp(argv[1], "--help") == 0;
    int fd, rc, status = 0;

    if (argc < 3) {
        fprintf(help ? stdout : stderr,
                "usage: uffd FILE OFFSET ...\n"
                "Prints bytes of a file that is read where it is needed.\n");
        return help ? 0 : 2;
    }
    fd = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size <= 0) {
        fprintf(stderr, "uffd: %s is empty, or cannot be opened\n", argv[1]);
        return 1;
    }
    memset(&cfg, 0, sizeof(cfg));
    cfg.size = ((uint64_t)st.st_size + CHUNK - 1) / CHUNK * CHUNK;
    cfg.ptr = (uint8_t *)mmap(NULL, cfg.size, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cfg.ptr == (uint8_t *)MAP_FAILED) {
        fprintf(stderr, "uffd: %s\n", strerror(errno));
        return 1;
    }
    cfg.chunk = CHUNK;
    cfg.ctx = &fd;
    cfg.fetch = fetch;
    cfg.failed = failed;
    rc = tn_uffd_init(&lazy, &cfg);
    if (rc < 0) {
        fprintf(stderr, "uffd: no userfaultfd: %s\n",
                errno == EPERM ? "needs CAP_SYS_PTRACE, vm.unprivileged_userfaultfd=1 or "
                                 "/dev/userfaultfd"
                               : strerror(errno));
        return 1;
    }
    for (int i = 2; i < argc && status == 0; i++)
        status = show(&cfg, (uint64_t)st.st_size, argv[i]);
    tn_uffd_get_stats(&lazy, &stats);
    printf("%" PRIu64 " of %" PRIu64 " chunks of %u bytes were read\n", stats.there, stats.chunks,
           CHUNK);
    tn_uffd_close(&lazy);
    munmap(cfg.ptr, cfg.size);
    close(fd);
    return status;
}
