/* prove: tn_virtio_blk_disk_ok_ tn_virtio_blk_offset_ tn_virtio_blk_ranges_ tn_virtio_blk_range_ tn_virtio_blk_cut_header_ tn_virtio_blk_cut_status_ tn_virtio_blk_status_ tn_virtio_blk_spend_ tn_virtio_blk_op_ tn_virtio_blk_valid_ */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_virtio_blk.h"
