#!/bin/sh
# Discharges the contracts of tests/proof/NAME.c for each NAME given, with Frama-C WP.
# The first line of such a file names the functions: /* prove: f g h */. Each must have goals, and
# every goal must be proved. Usage: prove.sh NAME ...; INCLUDE names another include directory.
set -eu
BUILD=${BUILD:-build}
INCLUDE=${INCLUDE:-include}
mkdir -p "$BUILD/proof"
WHY3CONFIG=$(cd "$BUILD" && pwd)/why3.conf
export WHY3CONFIG
[ -s "$WHY3CONFIG" ] || why3 config detect >/dev/null 2>&1
functions=0 goals=0 status=0
for name; do
    file=tests/proof/$name.c
    log=$BUILD/proof/$name${PROVE:+-mutant}.log
    list=$(sed -n '1s|^/\* prove: \(.*\) \*/$|\1|p' "$file")
    [ -n "${PROVE:-}" ] && list=$PROVE
    flags=$(sed -n 's|^/\* wp-flags: \(.*\) \*/$|\1|p' "$file")
    # shellcheck disable=SC2086
    frama-c -c11 -machdep gcc_x86_64 -cpp-extra-args="-I$INCLUDE" \
        -kernel-warn-key typing:implicit-function-declaration=abort \
        -wp -wp-rte -wp-prover cvc4,z3 -wp-timeout "${WP_TIMEOUT:-20}" -wp-par 2 $flags \
        -wp-fct "$(echo $list | tr ' ' ,)" "$file" >"$log" 2>&1 || true
    proved=$(sed -n 's|.*Proved goals: *\([0-9]*\) / \([0-9]*\).*|\1|p' "$log")
    total=$(sed -n 's|.*Proved goals: *\([0-9]*\) / \([0-9]*\).*|\2|p' "$log")
    why=
    [ "${total:-0}" -gt 0 ] || why="no goals; see $log"
    [ "${proved:-0}" = "${total:-0}" ] || why="$proved of $total goals proved; $(sed -n \
        's/.*\[\(Failed\|Timeout\|Unknown\)\] Goal typed_//p' "$log" | tr '\n' ' ')"
    if grep -qE 'Cast with incompatible|Missing RTE|[Aa]dmit' "$log"; then
        why="a warning that weakens the proof; see $log"
    fi
    for f in $list; do
        grep -qE "Goal typed_${f%_}(_|\b)" "$log" || why="no goal for $f; see $log"
    done
    if [ -z "$why" ]; then
        count=$(echo $list | wc -w)
        echo "ok - prove: $name: $count functions, $total goals"
        functions=$((functions + count)) goals=$((goals + total))
    else
        echo "not ok - prove: $name: $why"
        status=1
    fi
done
[ -n "${PROVE:-}" ] || echo "proved: $functions functions, $goals goals"
exit $status
