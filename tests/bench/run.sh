#!/bin/sh
# Runs each named benchmark; keeps what they print in BUILD/bench.txt as well.
set -eu
for name; do
    echo "== $name"
    "$BUILD/bench/$name"
done 2>&1 | tee "$BUILD/bench.txt"
