/* prove: tn_virtio_mmio_control_ tn_virtio_mmio_config_ tn_virtio_mmio_low_ tn_virtio_mmio_high_ tn_virtio_mmio_queue_put_ tn_virtio_mmio_clear_ tn_virtio_mmio_ack_ tn_virtio_mmio_get_ tn_virtio_mmio_read tn_virtio_mmio_save */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_virtio_mmio.h"
