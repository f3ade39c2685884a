/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Builds a kernel command line from its arguments and prints it: `key=value` and `key` are boot
 * parameters, and what follows `--` are arguments for init.
 *
 *   $ cmdline console=ttyS0 "title=two words" quiet -- single
 *   console=ttyS0 title="two words" quiet -- single
 */
#include "tn_cmdline.h"

#include <stdio.h>
#include <string.h>

static const char *name(int err)
{
    return err == TN_EINVAL ? "TN_EINVAL" : err == TN_ENOSPC ? "TN_ENOSPC" : "unknown error";
}

int main(int argc, char **argv)
{
    char buf[2048];
    struct tn_cmdline c;
    int init = 0;

    tn_cmdline_init(&c, buf, sizeof(buf));
    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        int err;

        if (!init && strcmp(argv[i], "--") == 0) {
            init = 1;
            continue;
        }
        if (init) {
            err = tn_cmdline_add_init(&c, argv[i]);
        } else {
            if (value)
                *value++ = 0;
            err = tn_cmdline_add(&c, argv[i], value);
        }
        if (err < 0) {
            fprintf(stderr, "cmdline: argument %d: %s\n", i, name(err));
            return 1;
        }
    }
    puts(c.buf);
    return 0;
}
