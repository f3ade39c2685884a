/* prove: tn_virtio_console_share_ tn_virtio_console_took_ tn_virtio_console_idle_ tn_virtio_console_valid_ */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_virtio_console.h"
