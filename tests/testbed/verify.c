/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Writes and reads a block device at random, many requests at a time, and holds every byte read
 * against what was written there last. In:  verify DEVICE REQUESTS [SEED]. Out: one line, exit 0;
 * or what differed, exit 1. Everything on the device is lost.
 *
 * Sizes are 512 bytes to 256 KiB in sectors, 32 requests are under way (Linux's native AIO with
 * O_DIRECT, so that all of it reaches the device); now and then everything is flushed.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DEPTH   32u
#define SECTOR  512u
#define SECTORS 512u /* of a request at most */

struct request {
    struct iocb cb;
    uint8_t *buf;
    uint64_t sector;
    uint32_t sectors; /* 0: not under way */
    int write;
};

static struct request request[DEPTH];
static uint32_t *written; /* for each sector the number of its last write; 0: never */
static uint64_t device_sectors;
static uint64_t state;

static uint64_t rnd(uint64_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 11) % n;
}

/* What a sector holds after its write number n: no two are alike. */
static void pattern(uint8_t *p, uint64_t sector, uint32_t n)
{
    uint64_t x = sector * 0x9e3779b97f4a7c15ull ^ n;

    for (unsigned i = 0; i < SECTOR; i += 8) {
        memcpy(p + i, &x, 8);
        x = x * 6364136223846793005ull + 1442695040888963407ull;
    }
}

static int overlaps(uint64_t sector, uint32_t sectors)
{
    for (unsigned i = 0; i < DEPTH; i++) {
        if (request[i].sectors && sector < request[i].sector + request[i].sectors &&
            request[i].sector < sector + sectors)
            return 1;
    }
    return 0;
}

static void check(const struct request *r)
{
    uint8_t want[SECTOR];

    for (uint32_t i = 0; i < r->sectors; i++) {
        uint32_t n = written[r->sector + i];

        pattern(want, r->sector + i, n);
        if (n && memcmp(r->buf + i * SECTOR, want, SECTOR) != 0) {
            printf("verify: sector %llu is not what write %u left there\n",
                   (unsigned long long)(r->sector + i), n);
            exit(1);
        }
    }
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

int main(int argc, char **argv)
{
    unsigned long requests = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    aio_context_t aio = 0;
    uint64_t size = 0, moved = 0;
    unsigned long begun = 0, ended = 0;
    uint32_t writes = 0;
    int fd = argc > 2 ? open(argv[1], O_RDWR | O_DIRECT) : -1;

    state = argc > 3 ? strtoull(argv[3], NULL, 10) | 1 : 88172645463325252ull;
    if (fd < 0 || ioctl(fd, BLKGETSIZE64, &size) < 0)
        fail(argc > 1 ? argv[1] : "usage: verify DEVICE REQUESTS [SEED]");
    device_sectors = size / SECTOR;
    written = calloc(device_sectors, sizeof(*written));
    if (!written || syscall(SYS_io_setup, DEPTH, &aio) < 0)
        fail("verify: io_setup");
    for (unsigned i = 0; i < DEPTH; i++) {
        if (posix_memalign((void **)&request[i].buf, 4096, SECTORS * SECTOR))
            fail("verify: memory");
    }
    while (ended < requests) {
        struct io_event event[DEPTH];
        struct iocb *batch[DEPTH];
        long n = 0, got;

        for (unsigned i = 0; i < DEPTH && begun < requests; i++) {
            struct request *r = &request[i];
            uint32_t sectors = (uint32_t)(rnd(4) ? 8 * (1 + rnd(8)) : 1 + rnd(SECTORS));
            uint64_t sector = rnd(device_sectors - sectors);

            if (r->sectors || overlaps(sector, sectors))
                continue;
            r->sector = sector;
            r->sectors = sectors;
            r->write = rnd(2) == 0;
            writes += (uint32_t)r->write;
            for (uint32_t k = 0; r->write && k < sectors; k++) {
                pattern(r->buf + k * SECTOR, sector + k, writes);
                written[sector + k] = writes;
            }
            memset(&r->cb, 0, sizeof(r->cb));
            r->cb.aio_data = i;
            r->cb.aio_lio_opcode = r->write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
            r->cb.aio_fildes = (uint32_t)fd;
            r->cb.aio_buf = (uint64_t)(uintptr_t)r->buf;
            r->cb.aio_nbytes = (uint64_t)sectors * SECTOR;
            r->cb.aio_offset = (int64_t)(sector * SECTOR);
            batch[n++] = &r->cb;
            begun++;
        }
        if (n && syscall(SYS_io_submit, aio, n, batch) != n)
            fail("verify: io_submit");
        got = syscall(SYS_io_getevents, aio, 1, DEPTH, event, NULL);
        for (long i = 0; i < got; i++) {
            struct request *r = &request[event[i].data];

            if (event[i].res != (int64_t)r->sectors * SECTOR) {
                printf("verify: a %s of %u sectors at %llu returned %lld\n",
                       r->write ? "write" : "read", r->sectors, (unsigned long long)r->sector,
                       (long long)event[i].res);
                return 1;
            }
            if (!r->write)
                check(r);
            moved += (uint64_t)r->sectors * SECTOR;
            r->sectors = 0;
            ended++;
        }
        if (rnd(64) == 0 && fdatasync(fd) < 0)
            fail("verify: fdatasync");
    }
    for (uint64_t at = 0; at < device_sectors; at += request[0].sectors) {
        struct request *r = &request[0];

        r->sector = at;
        r->sectors = device_sectors - at < SECTORS ? (uint32_t)(device_sectors - at) : SECTORS;
        if (pread(fd, r->buf, (size_t)r->sectors * SECTOR, (off_t)(at * SECTOR)) !=
            (ssize_t)(r->sectors * SECTOR))
            fail("verify: the last reading");
        check(r);
    }
    printf("verify: %lu requests, %u of them writes, %llu MiB: all as written\n", ended, writes,
           (unsigned long long)(moved >> 20));
    return 0;
}
