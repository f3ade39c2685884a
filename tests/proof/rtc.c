/* prove: tn_rtc_count_ tn_rtc_until_ tn_rtc_valid_ tn_rtc_aim_ tn_rtc_clear_ tn_rtc_run_ tn_rtc_match_ tn_rtc_level_ tn_rtc_wake_ tn_rtc_get_ tn_rtc_put_ tn_rtc_save */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_rtc.h"
