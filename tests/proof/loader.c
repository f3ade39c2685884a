/* prove: tn_loader_set_ tn_loader_void_ tn_loader_err_ tn_loader_refuse_ tn_loader_fits_ tn_loader_up_ tn_loader_add_ tn_loader_loaded_ tn_loader_notes_ tn_loader_phdr_ tn_loader_elf_end_ tn_loader_elf_ tn_loader_bzimage_ tn_loader_packed_ tn_loader_any_ tn_loader_parse tn_loader_inside_ tn_loader_meets_ tn_loader_ram_ tn_loader_hit_ tn_loader_lowest_ tn_loader_need_ tn_loader_check_ tn_loader_place tn_loader_highest_ tn_loader_place_initrd */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_loader.h"
