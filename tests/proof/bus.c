/* prove: tn_bus_init tn_bus_ones_ tn_bus_holds_ tn_bus_above_ tn_bus_find */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_bus.h"
