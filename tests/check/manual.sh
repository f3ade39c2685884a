#!/bin/sh
# Every header's manual: its sections are there, in order, and its USAGE compiles.
# A line "---" in USAGE parts what stands at file scope from the body of a function.
# Side by side, as many as there are CPUs: `manual.sh -one FILE` does one.
set -eu
if [ "${1:-}" != -one ]; then
    printf '%s\n' include/tn_*.h | xargs -n 1 -P "$(nproc)" "$0" -one
    exit
fi
h=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
status=0
m=$(basename "$h" .h)
sections=$(sed -n '/^#ifndef/q; s/^ \* \([A-Z][A-Z ]*\)$/\1/p' "$h" | grep -v '^SPEC$' | tr '\n' ',')
if [ "$sections" != "WHAT,USAGE,COMPOSITION,GUEST TRUST,MEMORY,THREADS,CONFIG,LIMITS," ]; then
    echo "manual: $m: sections are $sections"
    status=1
fi
awk -v m="$m" '
BEGIN { print "#define _GNU_SOURCE\n#include \"" m ".h\"" }
/^ \* USAGE$/ { on = 1; next }
on && /^ \* [A-Z][A-Z ]*$/ { exit }
on { sub(/^ \*/, ""); sub(/^   /, ""); line[++n] = $0; if ($0 == "---") split_at = n }
END {
    for (i = 1; i < split_at; i++) print line[i]
    print "int usage(void);\nint usage(void)\n{"
    for (i = split_at + 1; i <= n; i++) print line[i]
    print "return 0;\n}"
}' "$h" >"$dir/$m.c"
# What is empty but on arm64 is compiled for that.
set -- "gcc -std=c11" clang
if grep -q '^#ifdef __aarch64__$' "$h" && ! grep -q '^#ifdef __x86_64__$' "$h"; then
    set -- "aarch64-linux-gnu-gcc -std=c11 -idirafter /usr/include" \
        "clang --target=aarch64-linux-gnu -isystem /usr/aarch64-linux-gnu/include"
fi
for cc; do
    if ! $cc -Wall -Wextra -Wno-unused -Werror -Iinclude -fsyntax-only "$dir/$m.c"; then
        echo "manual: the USAGE of $m does not compile with $cc"
        status=1
    fi
done
exit $status
