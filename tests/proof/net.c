/* prove: tn_net_hdr_get tn_net_hdr_put tn_net_may_ tn_net_hdr_check */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_net.h"
