/* prove: tn_virtq_linear_ tn_virtq_distance_ tn_virtq_passed_ tn_virtq_advance_ tn_virtq_between_ tn_virtq_slot_ tn_virtq_size_ok_ tn_virtq_area_ tn_virtq_region_ tn_virtq_put_iov_ tn_virtq_map_ tn_virtq_element_ tn_virtq_table_ tn_virtq_no_table_ tn_virtq_split_desc_ tn_virtq_packed_desc_ tn_virtq_split_ tn_virtq_is_avail_ tn_virtq_packed_table_ tn_virtq_packed_ tn_virtq_added_ tn_virtq_put_used_ tn_virtq_put_packed_ tn_virtq_valid_ */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_virtq.h"
