/* prove: tn_virtio_vsock_distance_ tn_virtio_vsock_step_ tn_virtio_vsock_credit_ tn_virtio_vsock_fits_ tn_virtio_vsock_forward_ tn_virtio_vsock_owes_ tn_virtio_vsock_share_ tn_virtio_vsock_hdr_get_ tn_virtio_vsock_hdr_put_ tn_virtio_vsock_whole_ tn_virtio_vsock_cid_ok_ tn_virtio_vsock_idle_ tn_virtio_vsock_valid_ tn_virtio_vsock_word_ tn_virtio_vsock_connect_line */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_virtio_vsock.h"
