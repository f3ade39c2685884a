/* prove: tn_uart_cap_ tn_uart_room_ tn_uart_valid_ tn_uart_clear_ tn_uart_rx_put_ tn_uart_rx_get_ tn_uart_rx_clear_ tn_uart_tx_idle_ tn_uart_tx_put_ tn_uart_tx_drop_ tn_uart_loop_ tn_uart_push_ tn_uart_lines_ tn_uart_trigger_ tn_uart_iir_ tn_uart_level_ tn_uart_lsr_ tn_uart_get_ tn_uart_put_ tn_uart_save */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_uart.h"
