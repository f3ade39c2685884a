/* prove: tn_sha256_rotr_ tn_sha256_blocks_c_ tn_sha256_blocks_ tn_sha256_lanes_ tn_sha256_copy_ tn_sha256_reset tn_sha256_update tn_sha256_put_u64_ tn_sha256_pad_ tn_sha256_final tn_sha256_rest_ tn_sha256_at_a_time_ tn_sha256_chunks tn_sha256_equal */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_sha256.h"
