#!/bin/sh
# Holds the includes of include/tn_*.h against the table in docs/layers.md.
# Prints each arrow that is not allowed; exit status 1 if there is one.
set -eu
awk '
FNR == NR {
    if ($0 !~ /^\| tn_/)
        next
    split($0, f, "|")
    for (i in f)
        gsub(/^[ \t]+|[ \t]+$/, "", f[i])
    layer[f[2]] = f[3]
    n = split(f[4], names, /[ ,]+/)
    for (i = 1; i <= n; i++)
        also[f[2], names[i]] = 1
    next
}
FNR == 1 {
    m = FILENAME
    sub(/.*\//, "", m)
    sub(/\.h$/, "", m)
    seen[m] = 1
    if (!(m in layer))
        bad(m " is not in docs/layers.md")
}
/^[ \t]*#[ \t]*include[ \t]*"/ {
    split($0, q, "\"")
    to = q[2]
    sub(/\.h$/, "", to)
    if (!(to in layer))
        bad(m " includes " q[2] ", which docs/layers.md does not list")
    else if (layer[to] >= layer[m] && !((m, to) in also))
        bad(m " (layer " layer[m] ") includes " to " (layer " layer[to] ")")
}
/^[ \t]*#[ \t]*include[ \t]*</ {
    if (layer[m] <= 2 && $0 !~ /<(stdint|stddef|stdbool)\.h>/ && !(m == "tn_fdt" && /<libfdt\.h>/))
        bad(m " (layer " layer[m] ") is freestanding, but has " $0)
}
layer[m] <= 2 && /[^_a-z](malloc|calloc|free|printf|abort|exit|assert|errno) *\(/ && !/^ \*|^\/\*|ensures|requires|\/\*@|\/\/@/ {
    bad(m ":" FNR ": a forbidden call: " $0)
}
function bad(text) {
    print "layers: " text
    failed = 1
}
END {
    for (m in layer)
        if (!(m in seen))
            bad(m " is in docs/layers.md, but include/" m ".h is not there")
    exit failed
}' docs/layers.md include/tn_*.h
