/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A main for a fuzz harness without libFuzzer: runs it over each file named, and over each file of
 * each directory named. For `make test`, for other sanitizers, and for looking at a finding.
 */
#include "fuzz.h"

#include <dirent.h>
#include <sys/stat.h>

static int replay_runs;

static int replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = NULL;
    size_t len = 0;
    long size = -1;

    if (f && fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) >= 0 && fseek(f, 0, SEEK_SET) == 0) {
        len = (size_t)size;
        data = malloc(len ? len : 1);
    }
    if (!data || fread(data, 1, len, f) != len) {
        perror(path);
        exit(2);
    }
    fclose(f);
    LLVMFuzzerTestOneInput(data, len);
    free(data);
    return ++replay_runs;
}

static void replay(const char *path)
{
    struct stat st;
    struct dirent *e;
    DIR *d;

    if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
        replay_file(path);
        return;
    }
    d = opendir(path);
    if (!d) {
        perror(path);
        exit(2);
    }
    while ((e = readdir(d))) {
        char file[4096];

        if (e->d_name[0] == '.')
            continue;
        snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
        replay_file(file);
    }
    closedir(d);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        replay(argv[i]);
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    printf("%d inputs\n", replay_runs);
    return replay_runs > 0 ? 0 : 2;
}
