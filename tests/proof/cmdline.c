/* prove: tn_cmdline_init tn_cmdline_room_ tn_cmdline_insert_ tn_cmdline_boot_ */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_cmdline.h"
