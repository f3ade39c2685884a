#!/bin/sh
# Holds the C sources to .clang-format, and every text file to lines of at most 100 columns without
# trailing blanks. Usage: format.sh [--fix]
set -eu
mode="--dry-run --Werror"
[ "${1:-}" != --fix ] || mode=-i
# shellcheck disable=SC2086
find include lib examples fuzz tests -name '*.[ch]' -exec clang-format $mode {} +
! git ls-files -co --exclude-standard -- '*.[chS]' '*.md' Makefile |
    while read -r f; do
        [ -f "$f" ] || continue
        awk -v f="$f" '
            length($0) > 100 && !/^\|/ && !/^\/\* prove: / { print f ":" FNR ": over 100 columns" }
            /[ \t]$/ { print f ":" FNR ": blanks at the end" }' "$f"
    done | grep .
