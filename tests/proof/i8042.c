/* prove: tn_i8042_wants_ tn_i8042_kbd_wants_ tn_i8042_valid_ tn_i8042_drop_ tn_i8042_clear_ tn_i8042_say_ tn_i8042_answer_ tn_i8042_kbd_next_ tn_i8042_level_ tn_i8042_take_ tn_i8042_get_ tn_i8042_obey_ tn_i8042_kbd_ tn_i8042_data_ tn_i8042_command_ tn_i8042_put_ tn_i8042_say_all_ tn_i8042_keys_ tn_i8042_save */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_i8042.h"
