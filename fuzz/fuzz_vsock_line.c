/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The line by which a program on the host asks for a port of the guest, beside a reading of it that
 * is naive: what it says is what it prints. Properties: the same answer; a line is taken whole or
 * not; each shorter beginning of a line that is right is asked to go on; nothing is read behind it.
 */
#include "tn_virtio_vsock.h"

#include "fuzz.h"

/* What a line must be, from what it would be for the number in it. */
static int naive(const uint8_t *bytes, size_t len, uint32_t *port)
{
    char text[64] = {0}, want[64];
    unsigned long long value;
    size_t n = 0;

    *port = 0;
    while (n < len && n < 32 && bytes[n] != '\n')
        n++;
    if (n == len || n == 32 || n < 9)
        return -1;
    memcpy(text, bytes, n + 1);
    value = strtoull(text + 8, NULL, 10);
    snprintf(want, sizeof(want), "CONNECT %llu\n", value);
    if (value > 0xfffffffeull || strlen(want) != n + 1 || memcmp(want, text, n + 1) != 0)
        return -1;
    *port = (uint32_t)value;
    return (int)n + 1;
}

static void one(const uint8_t *bytes, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1); /* a sanitizer sees one byte too many */
    uint32_t port = 7, want;
    int right = naive(bytes, len, &want), r;

    FZ_ASSERT(copy);
    if (len > 0)
        memcpy(copy, bytes, len);
    r = tn_virtio_vsock_connect_line(copy, len, &port);
    if (right > 0) {
        FZ_ASSERT(r == right && port == want && r <= (int)TN_VIRTIO_VSOCK_LINE);
        for (int i = 0; i < right; i++)
            FZ_ASSERT(tn_virtio_vsock_connect_line(copy, (size_t)i, &port) == 0 && port == 0);
    } else {
        FZ_ASSERT((r == 0 || r == TN_EFORMAT) && port == 0);
        if (r == 0) /* it can become one */
            FZ_ASSERT(len < TN_VIRTIO_VSOCK_LINE && memchr(bytes, '\n', len) == NULL);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char line[64] = "CONNECT ";
    struct fz z;

    one(data, size);
    memcpy(line + 8, data, size < 40 ? size : 40); /* most die at the first byte otherwise */
    one((const uint8_t *)line, 8 + (size < 40 ? size : 40));
    fz_init(&z, data, size);
    snprintf(line, sizeof(line), "CONNECT %u\nx", fz_u32(&z));
    one((const uint8_t *)line, strlen(line));
    return 0;
}
