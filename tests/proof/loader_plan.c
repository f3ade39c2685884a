/* prove: tn_loader_set_ tn_loader_void_ tn_loader_err_ tn_loader_refuse_ tn_loader_fits_ tn_loader_up_ tn_loader_initrd_max_ tn_loader_add_ tn_loader_loaded_ tn_loader_inside_ tn_loader_meets_ tn_loader_ram_ tn_loader_hit_ tn_loader_lowest_ tn_loader_need_ tn_loader_check_ tn_loader_find_ tn_loader_move_ tn_loader_place tn_loader_highest_ tn_loader_place_initrd */
/* wp-flags: -warn-unsigned-overflow */
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_loader_plan.h"
