#!/bin/bash
# Runs the named suites and adds up their TAP lines ("ok", "not ok", "ok ... # SKIP reason").
# Usage: run.sh check|unit|replay|cli|cross|linux ...; the last line is "N passed, N failed".
# A suite's program that ends badly is a failure of its own; its output is kept in BUILD/log.
set -u
BUILD=${BUILD:-build}
log=$BUILD/log
tap=$log/all.tap
mkdir -p "$log"
: >"$tap"

# emit NAME < TAP: keeps the result lines, each with the name of its suite, and shows what failed.
emit() {
    awk -v suite="$1" '
        /^# skipped: / { reason = substr($0, 12) }
        /^not ok [0-9]+ # SKIP / { # as cmocka has it
            print "ok - " suite ": " $6 " # SKIP " reason
            reason = bad = ""
            next
        }
        /^ok |^not ok / {
            line = $0
            sub(/^(not )?ok [0-9]* *-? */, "", line)
            print ($1 == "not" ? "not ok" : "ok") " - " suite ": " line
            fflush()
            bad = ($1 == "not")
            next
        }
        bad && /^#|^ / { print "    " $0 }' | tee -a "$tap" | grep -E '^not ok|^ |# SKIP' || true
}

# program SUITE COMMAND ...: runs a program that speaks TAP.
program() {
    local suite=$1 out
    shift
    out=$log/$(echo "$suite" | tr ' /' '__').log
    CMOCKA_MESSAGE_OUTPUT=TAP timeout "${LIMIT:-600}" "$@" >"$out" 2>&1
    local status=$?
    emit "$suite" <"$out"
    if ! grep -qE '^(ok|not ok) ' "$out" || { [ $status != 0 ] && ! grep -q '^not ok ' "$out"; }; then
        echo "not ok - $suite: exit status $status" | tee -a "$tap"
        tail -n 15 "$out" | sed 's/^/    /'
    fi
}

# step SUITE NAME COMMAND ...: a command that passes when it exits 0.
step() {
    local suite=$1 name=$2 out
    shift 2
    out=$log/$(echo "$suite-$name" | tr ' /' '__').log
    if timeout "${LIMIT:-900}" "$@" >"$out" 2>&1; then
        echo "ok - $suite: $name" >>"$tap"
    else
        echo "not ok - $suite: $name" | tee -a "$tap"
        tail -n 30 "$out" | sed 's/^/    /'
    fi
}

suite_check() {
    for c in layers common headers manual lint format; do
        step check "$c" "tests/check/$c.sh"
    done
}

suite_unit() {
    local t
    for t in "$BUILD"/test/* "$BUILD"/asan/* "$BUILD"/tsan/*; do
        [ -x "$t" ] && program "${t#"$BUILD"/}" "$t"
    done
}

suite_replay() {
    local t name
    for t in "$BUILD"/replay/* "$BUILD"/msan/*; do
        [ -x "$t" ] || continue
        name=${t##*/}
        step "${t#"$BUILD"/}" "seeds" "$t" "fuzz/seeds/$name"
    done
}

suite_cli() {
    program cli tests/cli.sh
}

# foreign TARGET: its programs, one after the other.
foreign() {
    local unit
    program "cross/$1" tests/cross/target "$1" headers
    for unit in $(tests/cross/target programs | sed -n "s|^$1/||p"); do
        LIMIT=240 program "cross/$1/$unit" tests/cross/target "$1" run "$unit"
    done
    tests/cross/target "$1" skipped | sed 's/ /: all of it # SKIP /; s/^/ok - /' | emit "cross/$1"
}

suite_cross() {
    local target
    for target in $(tests/cross/target programs | cut -d/ -f1 | uniq); do
        foreign "$target" &
    done
    wait
}

suite_linux() {
    [ "$(uname -m)" != x86_64 ] || LIMIT=2400 program linux tests/testbed/run
    program "kvm arm64" tests/testbed/units-arm64
    LIMIT=1200 GUEST_ARCH=arm64 program "linux arm64" tests/testbed/run
}

for suite; do
    printf '%s ...\n' "$suite"
    before=$(wc -l <"$tap")
    "suite_$suite"
    tail -n +"$((before + 1))" "$tap" | awk '
        /^ok/ { if (/# SKIP/) s++; else p++ } /^not ok/ { f++ }
        END { printf "    %d passed, %d failed, %d skipped\n", p, f, s }'
done
echo
awk '/^ok/ { if (/# SKIP/) s++; else p++ } /^not ok/ { f++ }
    END {
        printf "%d passed, %d failed", p, f
        if (s) printf ", %d skipped", s
        print ""
        exit f > 0 || p == 0
    }' "$tap"
