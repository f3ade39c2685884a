#!/bin/sh
# Compiles every header alone: gcc and clang, C11 and C++17, inline, declarations only, and with
# every function emitted; layers 0 to 2 as freestanding code. Usage: headers.sh [tn_X ...]
set -eu
[ $# -gt 0 ] || set -- $(sed -n 's/^| \(tn_[a-z0-9_]*\) .*/\1/p' docs/layers.md)
warn="-Wall -Wextra -Wconversion -Wshadow -Wvla -pedantic -Werror -O1"
status=0
for m; do
    layer=$(sed -n "s/^| $m | \([0-9]\).*/\1/p" docs/layers.md)
    case $layer in
    [012]) free=-ffreestanding ;;
    *) free=-D_GNU_SOURCE ;;
    esac
    for cc in "gcc -std=c11 -x c" "clang -std=c11 -x c" "g++ -std=c++17 -x c++" \
        "clang++ -std=c++17 -x c++"; do
        for mode in "" -DTN_DECL_ONLY -DTN_API=; do
            # shellcheck disable=SC2086
            if ! printf '#include "%s.h"\n' "$m" | $cc $warn $free $mode -Iinclude -S -o /dev/null -; then
                echo "headers: $m does not compile alone: $cc $free $mode"
                status=1
            fi
        done
    done
done
exit $status
