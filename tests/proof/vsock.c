/* prove: tn_vsock_distance tn_vsock_step tn_vsock_credit tn_vsock_fits tn_vsock_forward tn_vsock_owes tn_vsock_payload tn_vsock_hdr_get tn_vsock_hdr_put tn_vsock_whole tn_vsock_cid_ok */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_vsock.h"
