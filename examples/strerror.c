/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Prints every error of tenon: its number, its name, its sentence.
 */
#include "tn_strerror.h"

#include <stdio.h>
#include <string.h>

int main(void)
{
    for (int err = 0; err >= TN_EBUG; err--)
        if (strcmp(tn_errname(err), "unknown") != 0)
            printf("%4d  %-12s %s\n", err, tn_errname(err), tn_strerror(err));
    return fflush(stdout) == 0 ? 0 : 1;
}
