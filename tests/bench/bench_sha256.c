/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * SHA-256: plain C against the SHA instructions, over 1 MiB and over 64 bytes; and what it costs to
 * ask the CPU, which a hash of something small should do once for many.
 */
#include "tn_sha256.h"

#include "bench.h"

#define LARGE (1u << 20)
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

int main(void)
{
    struct side side[5];
    struct bench_series s[5] = {
        BENCH("1 MiB, SHA instructions", sample, &side[0]),
        BENCH("1 MiB, plain C", sample, &side[1]),
        BENCH("1000 times 64 bytes, instructions", sample, &side[2]),
        BENCH("1000 times 64 bytes, plain C", sample, &side[3]),
        BENCH("the same, each with an init", sample, &side[4]),
    };
    size_t n = sizeof(s) / sizeof(s[0]);
    bool instructions;

    memset(side, 0, sizeof(side));
    for (size_t i = 0; i < LARGE; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 24);
    for (size_t i = 0; i < n; i++) {
        tn_sha256_init(&side[i].s);
        side[i].len = i < 2 ? LARGE : SMALL;
        side[i].times = i < 2 ? 1 : TIMES;
    }
    instructions = side[0].s.instructions;
    side[1].s.instructions = false;
    side[3].s.instructions = false;
    side[4].init = true;
    bench_machine();
    bench_rounds(s, n, 200, 20);
    bench_table(s, n);
    for (unsigned i = 0; i < 2; i++)
        printf("  %s: %.0f MiB/s\n", s[i].name, 1e9 / (double)bench_percentile(&s[i], 50));
    printf("  an init: %.2f us\n",
           (double)(bench_percentile(&s[4], 50) - bench_percentile(&s[2], 50)) / 1e3 / TIMES);
    if (!instructions)
        puts("# this CPU has no SHA instructions: both are plain C");
    bench_ratio("sha256", "SHA instructions to plain C, 1 MiB", &s[0], &s[1], 50,
                instructions ? 0.5 : 1.5);
    bench_free(s, n);
    return 0;
}
