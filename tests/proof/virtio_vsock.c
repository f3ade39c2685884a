/* prove: tn_virtio_vsock_idle_ tn_virtio_vsock_valid_ tn_virtio_vsock_word_ tn_virtio_vsock_connect_line */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_virtio_vsock.h"
