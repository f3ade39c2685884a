/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A bzImage of protocol 2.00: no cmd_line_ptr, nothing that says where it may be loaded. */
#include "bzimage.inc"

    bzimage 0, 0x224
