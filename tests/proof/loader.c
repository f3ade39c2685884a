/* prove: tn_loader_wanted_ tn_loader_known_ tn_loader_cmdline_max_ tn_loader_notes_ tn_loader_phdr_ tn_loader_elf_end_ tn_loader_elf_ tn_loader_bz_end_ tn_loader_bz_payload_ tn_loader_bz_pref_ tn_loader_bz_set_ tn_loader_bzimage_ tn_loader_image_ tn_loader_packed_ tn_loader_zboot_ tn_loader_any_ tn_loader_parse_for tn_loader_parse */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_loader.h"
