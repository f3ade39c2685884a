/* prove: tn_boot_arm64_ram tn_boot_arm64_plan_ok_ tn_boot_arm64_plan_ */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_boot_arm64.h"
