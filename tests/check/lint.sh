#!/bin/sh
# cppcheck and clang-tidy over the one translation unit that emits every function, and clang-tidy
# over microvm. The checks that are on, and why some are off, are in .clang-tidy.
set -eu
cppcheck --quiet --std=c11 --language=c --enable=warning,portability --inline-suppr \
    --suppress=missingIncludeSystem --suppress=internalAstError --error-exitcode=1 \
    -D__GNUC__ -D__x86_64__ -D_GNU_SOURCE -Iinclude lib/tenon.c
clang-tidy --quiet --warnings-as-errors='*' lib/tenon.c examples/microvm/main.c -- \
    -std=c11 -D_GNU_SOURCE -DTENON_VERSION='"lint"' -Iinclude 2>/dev/null
