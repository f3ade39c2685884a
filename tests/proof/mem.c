/* prove: tn_mem_init tn_mem_above_ tn_mem_find_ tn_mem_ptr tn_mem_run_ tn_mem_holds tn_mem_load */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_mem.h"
