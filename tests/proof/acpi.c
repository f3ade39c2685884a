/* prove: tn_acpi_taken_ tn_acpi_ids_ tn_acpi_head_ tn_acpi_place_ tn_acpi_plan_ tn_acpi_is_text_ tn_acpi_check_ tn_acpi_balance_ tn_acpi_seal_ tn_acpi_text_ tn_acpi_header_ tn_acpi_rsdp_ tn_acpi_gas_ tn_acpi_fadt_ tn_acpi_madt_ tn_acpi_is_s5 tn_acpi_events_ok_ */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_acpi.h"
