/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * B6: from exec to the guest's first byte, microvm beside QEMU's microvm machine, with the same
 * guest (tests/guests/first.c), in turn. The clock stops when the byte comes out of the pipe; the
 * VMM is then killed, and its end is not counted.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

/* Runs argv (a char *const *) until its first '!'. */
static int64_t first_byte(void *ctx)
{
    char *const *argv = ctx;
    uint64_t begin;
    int64_t took = -1;
    int fds[2];
    pid_t pid;
    char c;

    if (pipe(fds) < 0)
        return -1;
    begin = bench_now();
    pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);

        dup2(null, STDIN_FILENO);
        dup2(null, STDERR_FILENO);
        dup2(fds[1], STDOUT_FILENO);
        close(fds[0]);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(fds[1]);
    while (pid > 0 && read(fds[0], &c, 1) == 1) {
        if (c == '!') {
            took = (int64_t)(bench_now() - begin);
            break;
        }
    }
    close(fds[0]);
    if (pid > 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    return took;
}

int main(void)
{
    const char *build = getenv("BUILD") ? getenv("BUILD") : "build";
    char microvm[512], guest[512];
    char *ours[] = {microvm, "--kernel", guest, "--memory", "128M", "--boot", "pvh", NULL};
    char *theirs[] = {"qemu-system-x86_64",
                      "-M",
                      "microvm,isa-serial=on",
                      "-accel",
                      "kvm",
                      "-nodefaults",
                      "-no-user-config",
                      "-display",
                      "none",
                      "-serial",
                      "stdio",
                      "-m",
                      "128",
                      "-kernel",
                      guest,
                      NULL};
    struct bench_series s[] = {BENCH("microvm", first_byte, ours),
                               BENCH("QEMU -M microvm", first_byte, theirs)};
    const char *rounds = getenv("ROUNDS");

    snprintf(microvm, sizeof(microvm), "%s/bin/microvm", build);
    snprintf(guest, sizeof(guest), "%s/guests/first.elf", build);
    bench_machine();
    if (first_byte(ours) < 0 || first_byte(theirs) < 0) {
        puts("B6 skipped: /dev/kvm or QEMU cannot be used here");
        return 0;
    }
    bench_rounds(s, 2, rounds ? (unsigned)strtoul(rounds, NULL, 10) : 300, 5);
    puts("exec to the first guest byte; QEMU runs its firmware first");
    bench_table(s, 2);
    bench_ratio("B6", "exec -> first guest byte, microvm / QEMU microvm", &s[0], &s[1], 50, 0.06);
    bench_free(s, 2);
    return 0;
}
