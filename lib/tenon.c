/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The one translation unit that emits every function of tenon, for those who would rather link
 * (with TN_DECL_ONLY defined), call it from another language, or point an analyser at it.
 */
#define TN_API

#include "tn_mem.h"
#include "tn_bus.h"
#include "tn_uart.h"
#include "tn_i8042.h"
#include "tn_cmdline.h"
#include "tn_mptable.h"
#include "tn_loader.h"
#include "tn_aml.h"
#include "tn_strerror.h"
#include "tn_rate.h"
#include "tn_disk.h"
#include "tn_overlay.h"
#include "tn_acpi.h"
#include "tn_virtq.h"
#include "tn_boot_x86.h"
#include "tn_virtio.h"
#include "tn_virtio_mmio.h"
#include "tn_virtio_blk.h"
#include "tn_virtio_console.h"
#include "tn_virtio_rng.h"
#include "tn_hostmem.h"
#include "tn_loop.h"
#include "tn_kvm.h"
#include "tn_kvm_x86.h"
#include "tn_file.h"
#include "tn_file_overlay.h"
#include "tn_vm_board.h"
#include "tn_vm_virtio.h"
#include "tn_vm_devices.h"
#include "tn_vm_x86.h"
#include "tn_vm.h"
