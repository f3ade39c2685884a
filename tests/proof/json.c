/* prove: tn_json_digit_ tn_json_white_ tn_json_hex_ tn_json_utf8_ tn_json_encode_ tn_json_unit_ tn_json_escape_ tn_json_char_ tn_json_string_ tn_json_digits_ tn_json_number_ tn_json_word_ tn_json_fail_ tn_json_after_ tn_json_up_ tn_json_step_ tn_json_same_ tn_json_twice_ tn_json_err_ tn_json_unescape_ tn_json_decimal_ tn_json_stop_ tn_json_append_ tn_json_inside_ tn_json_before_ tn_json_spell_ */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_json.h"
