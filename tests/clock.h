/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What time it is, for tests.
 */
#ifndef TENON_CLOCK_H
#define TENON_CLOCK_H

#include <time.h>

static inline double seconds(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

#endif
