/* prove: tn_net_filter_is_station tn_net_filter_is_tagged tn_net_filter_copy_ tn_net_filter_set_mac tn_net_filter_set_mode tn_net_filter_set_tables tn_net_filter_set_vlan tn_net_filter_same_ tn_net_filter_listed_ tn_net_filter_vlan_ tn_net_filter_wants */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_net_filter.h"
