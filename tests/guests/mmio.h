/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The registers of virtio over MMIO (virtio 1.2, 4.2.2), as a guest reaches them. */
#ifndef TENON_GUESTS_MMIO_H
#define TENON_GUESTS_MMIO_H

#include <stdint.h>

#define WINDOW 0xd0000000ul /* the first device's; the others follow */
#define STRIDE 0x1000ul
#define GSI    16u /* the first device's; the others' follow */

#define MAGIC_REG     0x000
#define DEVICE_ID     0x008
#define DEVICE_FEAT   0x010
#define DEVICE_SEL    0x014
#define DRIVER_FEAT   0x020
#define DRIVER_SEL    0x024
#define QUEUE_SEL     0x030
#define QUEUE_NUM     0x038
#define QUEUE_READY   0x044
#define QUEUE_NOTIFY  0x050
#define INTERRUPT     0x060
#define INTERRUPT_ACK 0x064
#define STATUS        0x070
#define QUEUE_DESC    0x080
#define QUEUE_DRIVER  0x090
#define QUEUE_DEVICE  0x0a0
#define CONFIG        0x100

static inline uint32_t rd(uint32_t dev, uint32_t reg)
{
    return *(volatile uint32_t *)(WINDOW + dev * STRIDE + reg);
}

static inline void wr(uint32_t dev, uint32_t reg, uint32_t value)
{
    *(volatile uint32_t *)(WINDOW + dev * STRIDE + reg) = value;
}

#endif
