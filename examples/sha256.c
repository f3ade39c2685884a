/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * SHA-256 of files, or of standard input where there is no argument or for `-`, in the form that
 * sha256sum prints and checks.
 *
 *   sha256 *.img >sums
 *   sha256sum -c sums
 */
#include "tn_sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Returns 0, or errno. */
static int hash(const char *path, uint8_t digest[TN_SHA256_LEN])
{
    static uint8_t bytes[1u << 18];
    struct tn_sha256 s;
    ssize_t n;
    int fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC), err = 0;

    if (fd < 0)
        return errno;
    tn_sha256_init(&s);
    while ((n = read(fd, bytes, sizeof(bytes))) != 0) {
        if (n > 0)
            tn_sha256_update(&s, bytes, (size_t)n);
        else if (errno != EINTR)
            break;
    }
    if (n < 0)
        err = errno;
    tn_sha256_final(&s, digest);
    if (fd != STDIN_FILENO)
        close(fd);
    return err;
}

/* A name with a line feed or a backslash is marked and escaped, as sha256sum does it. */
static void print(const uint8_t digest[TN_SHA256_LEN], const char *path)
{
    if (strpbrk(path, "\\\n\r"))
        putchar('\\');
    for (unsigned i = 0; i < TN_SHA256_LEN; i++)
        printf("%02x", digest[i]);
    printf("  ");
    for (; *path; path++) {
        if (*path == '\n')
            printf("\\n");
        else if (*path == '\r')
            printf("\\r");
        else if (*path == '\\')
            printf("\\\\");
        else
            putchar(*path);
    }
    putchar('\n');
}

int main(int argc, char **argv)
{
    static char dash[] = "-";
    char *input[] = {dash, NULL}, **path = argc > 1 ? argv + 1 : input;
    int status = 0;

    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        puts("usage: sha256 [FILE ...]\n"
             "Prints the SHA-256 of each file, as sha256sum does; `-` is standard input.");
        return 0;
    }
    for (; *path; path++) {
        uint8_t digest[TN_SHA256_LEN];
        int err = hash(*path, digest);

        if (err) {
            fprintf(stderr, "sha256: %s: %s\n", *path, strerror(err));
            status = 1;
            continue;
        }
        print(digest, *path);
    }
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "sha256: standard output: %s\n", strerror(errno));
        return 1;
    }
    return status;
}
