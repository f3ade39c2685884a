/* prove: tn_virtio_net_hdr_len_ tn_virtio_net_rx_offloads_ tn_virtio_net_spend_ tn_virtio_net_tables_ tn_virtio_net_share_ tn_virtio_net_control_at_ tn_virtio_net_idle_ tn_virtio_net_valid_ */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_virtio_net.h"
