/* prove: tn_fdt_cpu_ tn_fdt_max_cpus_ tn_fdt_cpu_ok_ tn_fdt_cpus_ok_ tn_fdt_virtio_ok_ tn_fdt_window_ tn_fdt_place_ tn_fdt_below_ tn_fdt_apart_ tn_fdt_places_ok_ tn_fdt_chip_ok_ tn_fdt_chips_ok_ tn_fdt_lines_ tn_fdt_has_irqs_ tn_fdt_irqs_ok_ tn_fdt_machine_ok_ tn_fdt_length_ tn_fdt_isa_ok_ tn_fdt_dev_ tn_fdt_inside_ tn_fdt_in_ram_ tn_fdt_initrd_ok_ tn_fdt_genid_ok_ tn_fdt_ok_ tn_fdt_digit_ tn_fdt_name_ */
/* wp-flags: -warn-unsigned-overflow -cpp-extra-args=-idirafter/usr/include */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_fdt.h"
