/* prove: tn_virtio_balloon_page_ tn_virtio_balloon_join_ tn_virtio_balloon_add_ tn_virtio_balloon_inner_ tn_virtio_balloon_take_ tn_virtio_balloon_index_ tn_virtio_balloon_answer_ tn_virtio_balloon_id_after_ tn_virtio_balloon_parse_ tn_virtio_balloon_in_ tn_virtio_balloon_idle_ tn_virtio_balloon_begun_ tn_virtio_balloon_fields_ */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_virtio_balloon.h"
