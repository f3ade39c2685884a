/* prove: tn_http_is_digit_ tn_http_lower_ tn_http_is_alnum_ tn_http_is_token_ tn_http_is_uri_ tn_http_is_host_ tn_http_is_space_ tn_http_is_visible_ tn_http_hex_ tn_http_same_ tn_http_copy_ tn_http_status_ tn_http_refuse_ tn_http_clear_ tn_http_keep_ tn_http_word_ tn_http_find_method_ tn_http_in_method_ tn_http_in_escape_ tn_http_in_target_ tn_http_minor_ tn_http_in_version_ tn_http_line_ tn_http_known_ tn_http_in_name_ tn_http_digit_ tn_http_number_ tn_http_connection_ tn_http_host_ tn_http_take_ tn_http_field_end_ tn_http_in_value_ tn_http_head_end_ tn_http_in_lf_ tn_http_byte_ tn_http_body_ tn_http_feed_ tn_http_out_fail_ tn_http_out_put_ tn_http_out_number_ */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_http.h"
