/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * SHA-256: plain C against the SHA instructions, over 1 MiB and over 64 bytes; 1 MiB in 16 chunks,
 * one after the other and side by side; and what it costs to ask the CPU, which a hash of something
 * small should do once for many.
 */
#include "tn_sha256.h"

#include "bench.h"

#define LARGE (1u << 20)
#define CHUNK (LARGE / 16)
#define SMALL 64u
#define TIMES 1000u

struct side {
    struct tn_sha256 s;
    size_t len;
    unsigned times;
    bool init; /* anew for each */
};

static uint8_t bytes[LARGE];

static int64_t sample(void *ctx)
{
    struct side *side = (struct side *)ctx;
    uint8_t digest[TN_SHA256_LEN];
    uint64_t from = bench_now();

    for (unsigned i = 0; i < side->times; i++) {
        if (side->init)
            tn_sha256_init(&side->s);
        tn_sha256_update(&side->s, bytes, side->len);
        tn_sha256_final(&side->s, digest);
        bench_opaque(digest);
    }
    return (int64_t)(bench_now() - from);
}

static int64_t chunks(void *ctx)
{
    struct side *side = (struct side *)ctx;
    uint8_t digests[16 * TN_SHA256_LEN];
    uint64_t from = bench_now();

    tn_sha256_chunks(&side->s, bytes, LARGE, CHUNK, digests);
    bench_opaque(digests);
    return (int64_t)(bench_now() - from);
}

int main(void)
{
    struct side side[8];
    struct bench_series s[8] = {
        BENCH("1 MiB, SHA instructions", sample, &side[0]),
        BENCH("1 MiB, plain C", sample, &side[1]),
        BENCH("1000 times 64 bytes, instructions", sample, &side[2]),
        BENCH("1000 times 64 bytes, plain C", sample, &side[3]),
        BENCH("the same, each with an init", sample, &side[4]),
        BENCH("16 times 64 KiB, one by one", sample, &side[5]),
        BENCH("16 chunks of 64 KiB, two at a time", chunks, &side[6]),
        BENCH("16 chunks of 64 KiB, at once", chunks, &side[7]),
    };
    size_t n = sizeof(s) / sizeof(s[0]);
    bool instructions, vectors;

    memset(side, 0, sizeof(side));
    for (size_t i = 0; i < LARGE; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 24);
    for (size_t i = 0; i < n; i++) {
        tn_sha256_init(&side[i].s);
        side[i].len = i < 2 ? LARGE : SMALL;
        side[i].times = i < 2 ? 1 : TIMES;
    }
    instructions = side[0].s.instructions;
    vectors = side[0].s.vectors;
    side[1].s.instructions = false;
    side[3].s.instructions = false;
    side[4].init = true;
    side[5].len = CHUNK;
    side[5].times = 16;
    side[6].s.vectors = false;
    bench_machine();
    bench_rounds(s, n, 200, 20);
    bench_table(s, n);
    for (unsigned i = 0; i < n; i = i == 1 ? 5 : i + 1)
        printf("  %s: %.0f MiB/s\n", s[i].name, 1e9 / (double)bench_percentile(&s[i], 50));
    printf("  an init: %.2f us\n",
           (double)(bench_percentile(&s[4], 50) - bench_percentile(&s[2], 50)) / 1e3 / TIMES);
    if (!instructions)
        puts("# this CPU has no SHA instructions: what should use them is plain C");
    if (!vectors)
        puts("# this CPU has no AVX-512: 16 at once are as without it");
    bench_ratio("sha256", "SHA instructions to plain C, 1 MiB", &s[0], &s[1], 50,
                instructions ? 0.5 : 1.5);
    bench_ratio("sha256", "two chunks at a time to one by one", &s[6], &s[5], 50,
                instructions ? 0.75 : 1.1);
    bench_ratio("sha256", "16 chunks at once to one by one", &s[7], &s[5], 50,
                vectors || instructions ? 0.75 : 1.1);
    bench_free(s, n);
    return 0;
}
