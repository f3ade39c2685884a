#!/bin/sh
# The common block must be in every header, byte for byte, and be at most 35 lines long.
set -eu
first=
status=0
for h in include/tn_*.h; do
    block=$(awk '/^\/\* -- tenon common block/ { p = 1 } p { print } p && /clang-format on/ { exit }' "$h")
    lines=$(printf '%s\n' "$block" | wc -l)
    [ -n "$first" ] || first=$block
    if [ -z "$block" ] || [ "$block" != "$first" ]; then
        echo "common: the block in $h is not that of the other headers"
        status=1
    elif [ "$lines" -gt 35 ]; then
        echo "common: the block in $h has $lines lines; the limit is 35"
        status=1
    fi
done
exit $status
