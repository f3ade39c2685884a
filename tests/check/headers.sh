#!/bin/sh
# Compiles every header alone: gcc and clang, C11 and C++17, inline, declarations only, and with
# every function emitted; layers 0 to 2 as freestanding code. Usage: headers.sh [tn_X ...]
#
# Only gcc has warnings that need the optimizer, and C has them all: the others check and stop.
# Headers are checked side by side, as many as there are CPUs: `headers.sh -one tn_X` does one.
set -eu
if [ "${1:-}" != -one ]; then
    [ $# -gt 0 ] || set -- $(sed -n 's/^| \(tn_[a-z0-9_]*\) .*/\1/p' docs/layers.md)
    printf '%s\n' "$@" | xargs -n 1 -P "$(nproc)" "$0" -one
    exit
fi
m=$2
layer=$(sed -n "s/^| $m | \([0-9]\).*/\1/p" docs/layers.md)
warn="-Wall -Wextra -Wconversion -Wshadow -Wvla -pedantic -Werror"
case $layer in
[012]) free=-ffreestanding ;;
*) free=-D_GNU_SOURCE ;;
esac
status=0
# A header that is empty but on arm64 is compiled for that; libfdt's header is the same everywhere.
gcc=gcc clang=clang gxx=g++
if grep -q '^#ifdef __aarch64__$' "include/$m.h" && ! grep -q '^#ifdef __x86_64__$' "include/$m.h"; then
    gcc="aarch64-linux-gnu-gcc -idirafter /usr/include" gxx=
    clang="clang --target=aarch64-linux-gnu -isystem /usr/aarch64-linux-gnu/include"
fi
for cc in "$gcc -std=c11 -O1 -S -o /dev/null -x c" "$clang -std=c11 -fsyntax-only -x c" \
    ${gxx:+"$gxx -std=c++17 -fsyntax-only -x c++"} "$clang -std=c++17 -fsyntax-only -x c++"; do
    for mode in "" -DTN_DECL_ONLY -DTN_API=; do
        # shellcheck disable=SC2086
        if ! printf '#include "%s.h"\n' "$m" | $cc $warn $free $mode -Iinclude -; then
            echo "headers: $m does not compile alone: $cc $free $mode"
            status=1
        fi
    done
done
exit $status
