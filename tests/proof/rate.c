/* prove: tn_rate_gain_ tn_rate_fill_ tn_rate_short_ tn_rate_add_ tn_rate_scale_ tn_rate_wait_ tn_rate_delay_ tn_rate_use_ */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_rate.h"
