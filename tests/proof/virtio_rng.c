/* prove: tn_virtio_rng_cap_ tn_virtio_rng_got_ tn_virtio_rng_run_ tn_virtio_rng_left_ tn_virtio_rng_valid_ */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_virtio_rng.h"
