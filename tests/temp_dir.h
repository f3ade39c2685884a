/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A directory of its own for each test of files, and the proof that the test left neither a file
 * behind nor a descriptor open.
 */
#ifndef TENON_TEMP_DIR_H
#define TENON_TEMP_DIR_H

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

#include "test.h"

static char temp_dir[256];
static int temp_fds; /* open before the test */

static inline int open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* For a setup: the return value of it. */
static inline int temp_make(void)
{
    const char *tmp = getenv("TMPDIR");

    snprintf(temp_dir, sizeof(temp_dir), "%s/tenon.XXXXXX", tmp && *tmp ? tmp : "/tmp");
    temp_fds = open_fds();
    return mkdtemp(temp_dir) ? 0 : -1;
}

/* The path of a file in the directory. */
static inline void temp_path(char path[300], const char *name)
{
    snprintf(path, 300, "%s/%s", temp_dir, name);
}

/* For a teardown, when the files are unlinked: the return value of it. */
static inline int temp_remove(void)
{
    bool empty = rmdir(temp_dir) == 0;

    return empty && open_fds() == temp_fds ? 0 : -1;
}

/* A new file with these bytes. */
static inline void put_file(const char *path, const uint8_t *bytes, size_t len)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0 && write(fd, bytes, len) == (ssize_t)len);
    close(fd);
}

#endif
