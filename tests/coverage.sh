#!/bin/bash
# Line coverage per header, by the unit tests and the fuzz seeds together, from llvm-cov; with V=1
# the lines that were missed. Fails when a header of layer 0 or 1 is below 95 %.
set -eu
dir=$BUILD/coverage
rm -rf "$dir"
mkdir -p "$dir"
objects=()
for t in "$BUILD"/cov/* "$BUILD"/covfuzz/*; do
    [ -x "$t" ] && [ -f "$t" ] || continue
    name=${t##*/}
    args=()
    [ "${t%/*}" = "$BUILD/covfuzz" ] && args=("fuzz/seeds/$name")
    LLVM_PROFILE_FILE=$dir/${t//\//_}-%p.profraw timeout 600 "$t" "${args[@]}" >"$dir/$name.log" 2>&1 || {
        echo "coverage: $t failed; see $dir/$name.log"
        exit 1
    }
    objects+=(-object "$t")
done
llvm-profdata merge -sparse -o "$dir/all.profdata" "$dir"/*.profraw
llvm-cov export -format=lcov -instr-profile "$dir/all.profdata" \
    "${objects[@]:1}" \
    "$PWD/include" >"$dir/all.lcov"

# The common block is the same text in every header: it is one row, covered where any header's is.
awk -v verbose="${V:-}" '
    FILENAME == "docs/layers.md" {
        if (/^\| tn_[a-z0-9_]* \| [0-9]/) {
            split($0, f, /[| ]+/)
            layer[f[2]] = f[3]
        }
        next
    }
    FILENAME ~ /^include\// {
        m = FILENAME
        gsub(/.*\/|\.h$/, "", m)
        if (/^\/\* -- tenon common block/) first[m] = FNR
        if (/^#endif \/\* TN_COMMON \*\//) end[m] = FNR
        if (/^ *\/\*.*\*\/$/) comment[m, FNR] = 1
        next
    }
    /^SF:/ {
        m = $0
        gsub(/.*\/|\.h$/, "", m)
    }
    /^DA:/ {
        split(substr($0, 4), d, ",")
        name = m
        line = d[1] + 0
        if ((m, line) in comment) next
        if (line > first[m] && line < end[m]) {
            name = "common"
            line -= first[m]
        }
        if (!((name, line) in hit)) {
            lines[name]++
            hit[name, line] = 0
        }
        if (d[2] > 0 && !hit[name, line]) {
            hit[name, line] = 1
            covered[name]++
        }
        if (line > last[name]) last[name] = line
    }
    function row(m, l) {
        pct = lines[m] ? 100 * covered[m] / lines[m] : 0
        low = l <= 1 && pct < 95
        bad = bad || low
        printf "%-14s %5s %7d %8d %6.1f%s\n", m, l, lines[m], covered[m], pct, low ? "  below 95" : ""
        missed = ""
        for (n = 1; n <= last[m]; n++)
            if (((m, n) in hit) && !hit[m, n]) missed = missed " " n
        if (verbose && missed != "") print "    missed:" missed
    }
    END {
        printf "%-14s %5s %7s %8s %6s\n", "header", "layer", "lines", "covered", "%"
        for (l = 0; l <= 4; l++)
            for (m in layer)
                if (layer[m] == l) row(m, l)
        row("common", 0)
        exit bad
    }' docs/layers.md include/tn_*.h "$dir/all.lcov"
