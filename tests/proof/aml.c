/* prove: tn_aml_init tn_aml_fail tn_aml_put_ tn_aml_copy_ tn_aml_gap_ tn_aml_width_ tn_aml_own_width_ tn_aml_length_ tn_aml_take_ tn_aml_owe_ tn_aml_begin_ tn_aml_segment_ tn_aml_digit_ */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_aml.h"
