# SPDX-License-Identifier: MIT OR Apache-2.0
# What the scripts of the testbed share; sourced by them, never run.
# Sets: here (this folder), root (the repository), BUILD (absolute), bed (BUILD/testbed).
# shellcheck shell=sh

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
BUILD=${BUILD:-$root/build}
mkdir -p "$BUILD/testbed"
BUILD=$(cd "$BUILD" && pwd)
bed=$BUILD/testbed
me=${0##*/}

say() { printf '%s\n' "$me: $*" >&2; }
die() {
    say "$@"
    exit 4
}

# newer TARGET SOURCE...: TARGET is there and no older than any SOURCE (dash and bash know -nt).
# shellcheck disable=SC3013
newer() {
    target=$1
    shift
    [ -e "$target" ] || return 1
    for source; do
        [ ! "$source" -nt "$target" ] || return 1
    done
}

# once LOCK: waits until no other script of the testbed holds LOCK; held until the script ends.
once() {
    exec 9>"$bed/$1.lock"
    flock 9
}

# kernel FLAVOUR: fetches it unless it is there; 3 if Debian offers none.
kernel() { "$here/fetch-kernel" "$1"; }

# microvm: the path of the static microvm, made if it has to be; MICROVM names another one.
microvm() {
    if [ -n "${MICROVM:-}" ]; then
        [ -x "$MICROVM" ] || die "MICROVM=$MICROVM is no program"
        echo "$MICROVM"
        return
    fi
    MAKEFLAGS='' ${MAKE:-make} -s -C "$root" STATIC=1 BUILD="$BUILD/static" \
        "$BUILD/static/bin/microvm" "$BUILD/static/bin/twins" >&2 ||
        die "cannot build $BUILD/static/bin/microvm"
    echo "$BUILD/static/bin/microvm"
}

# emulate NAME LIMIT INITRD CHARDEV [OPTION...]: boots the outer Linux (L1), for LIMIT seconds at
# most (0: for ever). Its console goes to BUILD/testbed/NAME.log; ttyS1, its job's input and
# output, is CHARDEV; ttyS2, the job's exit status, is the file NAME.status. `max` is the CPU with
# everything that QEMU emulates; SVM has to be asked for.
emulate() {
    l1=$bed/$1 limit=$2 initrd=$3 chardev=$4
    shift 4
    : >"$l1.log"
    : >"$l1.status"
    timeout --foreground -k 5 "$limit" qemu-system-x86_64 -nodefaults -no-user-config -nographic \
        -no-reboot -M q35 -accel "tcg,thread=${L1_THREAD:-multi}" -cpu max,+svm,-xsave \
        -m "${L1_MEMORY:-4096}" -smp "${L1_CPUS:-1}" -kernel "$bed/6.1-cloud/vmlinuz" \
        -initrd "$initrd" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off ${L1_WORDS:-}" \
        -serial "file:$l1.log" -serial "$chardev" -serial "file:$l1.status" "$@"
}
