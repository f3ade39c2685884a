/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A bzImage of protocol 2.09, the last without pref_address and init_size; relocatable. */
#include "bzimage.inc"

    bzimage 9, 0x258
