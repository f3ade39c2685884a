/* prove: tn_disk_check tn_disk_slice */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_disk.h"
