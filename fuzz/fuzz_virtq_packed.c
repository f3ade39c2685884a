/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Packed virtqueues: see virtq.h for the script and the properties.
 */
#include "virtq.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    run(data, size, true);
    return 0;
}
