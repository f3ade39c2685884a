/* prove: tn_boot_x86_ram tn_boot_x86_e820 tn_boot_x86_e820_set_ tn_boot_x86_copy_ tn_boot_x86_zero_ tn_boot_x86_strlen_ tn_boot_x86_access_ tn_boot_x86_flags_ tn_boot_x86_desc_ tn_boot_x86_pde_ tn_boot_x86_plan_ok_ tn_boot_x86_old_ tn_boot_x86_cmdline_ tn_boot_x86_zero_page_ tn_boot_x86_pvh_ tn_boot_x86_fdt_ok_ tn_boot_x86_offers_ */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_boot_x86.h"
