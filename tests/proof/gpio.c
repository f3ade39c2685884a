/* prove: tn_gpio_valid_ tn_gpio_clear_ tn_gpio_levels_ tn_gpio_raw_ tn_gpio_level_ tn_gpio_move_ tn_gpio_get_ tn_gpio_put_ tn_gpio_save */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_gpio.h"
