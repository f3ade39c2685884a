#!/bin/sh
# Runs each named harness for FUZZ_SECONDS over its corpus (BUILD/corpus/NAME, begun from
# fuzz/seeds/NAME). A finding is kept in BUILD/findings; exit status 1 if there is one.
set -eu
status=0
mkdir -p "$BUILD/findings"
for name; do
    mkdir -p "$BUILD/corpus/$name"
    log=$BUILD/fuzz/$name.log
    if "$BUILD/fuzz/$name" -max_total_time="$FUZZ_SECONDS" -timeout=10 -rss_limit_mb=2048 \
        -max_len=65536 -artifact_prefix="$BUILD/findings/$name-" -print_final_stats=1 \
        "$BUILD/corpus/$name" "fuzz/seeds/$name" >"$log" 2>&1; then
        printf 'ok - fuzz: %s: %s inputs, %s edges, no finding\n' "$name" \
            "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" \
            "$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)"
    else
        echo "not ok - fuzz: $name"
        grep -E 'ERROR|SUMMARY|property|Test unit written' "$log" | sed 's/^/  /'
        status=1
    fi
done
exit $status
