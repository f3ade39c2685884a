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
llvm-cov export -format=lcov -instr-profile "$dir/all.profdata" "${objects[@]}" include >"$dir/all.lcov"
awk -v verbose="${V:-}" '
    FNR == NR { if (match($0, /^\| tn_[a-z0-9_]* \| [0-9]/)) { split($0, f, /[| ]+/); layer[f[2]] = f[3] } next }
    /^SF:/ { m = $0; sub(/.*\//, "", m); sub(/\.h$/, "", m) }
    /^DA:/ {
        split(substr($0, 4), d, ",")
        if (!((m, d[1]) in hit)) { lines[m]++; hit[m, d[1]] = 0 }
        if (d[2] > 0 && hit[m, d[1]] == 0) { hit[m, d[1]] = 1; covered[m]++ }
        if (d[1] > last[m]) last[m] = d[1]
    }
    END {
        printf "%-16s %5s %8s %8s %8s\n", "header", "layer", "lines", "covered", "%"
        for (m in layer) {
            if (!(m in lines)) { if (layer[m] <= 1) { bad = 1; print m ": not covered at all" } continue }
            pct = 100 * covered[m] / lines[m]
            printf "%-16s %5s %8d %8d %8.1f%s\n", m, layer[m], lines[m], covered[m], pct, (layer[m] <= 1 && pct < 95) ? "  below 95" : ""
            if (layer[m] <= 1 && pct < 95) bad = 1
            missed = ""
            for (n = 1; n <= last[m]; n++) if (((m, n) in hit) && !hit[m, n]) missed = missed " " n
            if (verbose && missed != "") print "    missed:" missed
        }
        exit bad
    }' docs/layers.md "$dir/all.lcov"
