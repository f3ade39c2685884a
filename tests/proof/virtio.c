/* prove: tn_virtio_progress_ tn_virtio_may_move_ tn_virtio_inside_ tn_virtio_clear_queue_ tn_virtio_ring_cfg_ tn_virtio_clear_queues_ tn_virtio_status_read tn_virtio_features_read tn_virtio_features_write tn_virtio_queue_ptr tn_virtio_queue_open tn_virtio_live tn_virtio_has tn_virtio_config_read tn_virtio_status_valid_ tn_virtio_ring_valid_ tn_virtio_queue_valid_ tn_virtio_zero_ */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_virtio.h"
