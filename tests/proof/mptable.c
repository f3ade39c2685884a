/* prove: tn_mptable_id_ tn_mptable_taken_ tn_mptable_ids_ tn_mptable_text_ tn_mptable_balance_ tn_mptable_seal_ tn_mptable_irq_ tn_mptable_pointer_ tn_mptable_header_ tn_mptable_cpu_ tn_mptable_bus_ tn_mptable_irqs_ tn_mptable_write_ tn_mptable_build */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_mptable.h"
