/* prove: tn_overlay_bit_ tn_overlay_bitmap_ tn_overlay_valid_ tn_overlay_plan_ tn_overlay_get_ tn_overlay_frame_ tn_overlay_marks_ tn_overlay_work tn_overlay_test tn_overlay_with_ tn_overlay_set tn_overlay_run */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_overlay.h"
