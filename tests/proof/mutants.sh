#!/bin/sh
# Each tests/proof/mutants/MODULE-NAME.patch breaks one header on purpose; the proofs that its first
# line names ("prove: f g") must then fail. A survivor means a contract that is too weak.
# Usage: mutants.sh [PREFIX]      only those whose names begin so
set -eu
BUILD=${BUILD:-build}
killed=0 survived=0
for patch in tests/proof/mutants/"${1:-}"*.patch; do
    name=$(basename "$patch" .patch)
    tree=$BUILD/mutants/$name
    rm -rf "$tree"
    mkdir -p "$tree"
    cp -r include "$tree/"
    if ! patch -s -p1 -d "$tree" <"$patch"; then
        echo "not ok - mutant: $name: the patch does not apply"
        survived=$((survived + 1))
        continue
    fi
    if PROVE=$(sed -n '1s/^prove: //p' "$patch") INCLUDE=$tree/include WP_TIMEOUT=5 \
        tests/proof/prove.sh "${name%%-*}" >"$tree/log" 2>&1; then
        echo "not ok - mutant: $name survived"
        survived=$((survived + 1))
    elif grep -q 'goals proved' "$tree/log"; then
        echo "ok - mutant: $name killed"
        killed=$((killed + 1))
    else
        echo "not ok - mutant: $name: $(tail -n 1 "$tree/log")"
        survived=$((survived + 1))
    fi
done
echo "mutants: $killed killed, $survived survived"
[ "$survived" = 0 ] && [ "$killed" -gt 0 ]
