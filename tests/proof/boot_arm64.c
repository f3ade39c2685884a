/* prove: tn_boot_arm64_ram tn_boot_arm64_plan_ok_ tn_boot_arm64_check_ tn_boot_arm64_place_ tn_boot_arm64_initrd_ */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_boot_arm64.h"
