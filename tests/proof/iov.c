/* prove: tn_iov_total tn_iov_skip tn_iov_copy_ tn_iov_gather tn_iov_scatter tn_iov_cut */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_iov.h"
