/* prove: tn_snap_chunk_ok_ tn_snap_chunks tn_snap_chunk_len tn_snap_fail tn_snap_take_ tn_snap_field_ tn_snap_put_ tn_snap_section_fail tn_snap_section_left tn_snap_get_ptr tn_snap_get_ tn_snap_get_u8 tn_snap_get_count tn_snap_section_done tn_snap_magic_ok_ tn_snap_header_ tn_snap_step_ tn_snap_follows_ tn_snap_digest_ tn_snap_walk_ tn_snap_own_ tn_snap_memory_ tn_snap_knows_ */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_snap.h"
