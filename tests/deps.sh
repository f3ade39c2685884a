#!/bin/sh
# Installs, by apt-get, the Debian packages that a purpose needs and that are missing; says which.
# Usage: deps.sh build|test|arm64|cross|check|prove|testbed|bench
set -eu

need() { # need PACKAGE PROOF: a command, or a file, that shows that it is there
    case $2 in
    /*) [ -e "$2" ] || missing="$missing $1" ;;
    *) command -v "$2" >/dev/null 2>&1 || missing="$missing $1" ;;
    esac
}

purpose() { # purpose NAME: what it needs, with what it builds on
    case $1 in
    build)
        need gcc gcc
        need libc6-dev /usr/include/stdio.h
        need linux-libc-dev /usr/include/linux/kvm.h
        need libfdt-dev /usr/include/libfdt.h
        ;;
    test)
        purpose build
        need clang clang
        need libclang-rt-14-dev /usr/lib/clang/14/lib/linux/libclang_rt.asan-x86_64.a
        need llvm llvm-cov
        need libcmocka-dev /usr/include/cmocka.h
        need acpica-tools iasl
        need device-tree-compiler dtc
        ;;
    arm64) # a cross build for it
        need gcc-aarch64-linux-gnu aarch64-linux-gnu-gcc
        need libc6-dev-arm64-cross /usr/aarch64-linux-gnu/include/stdio.h
        ;;
    cross) # with nothing that a compiler alone has no use for; wine64 is the largest: 700 MB
        purpose arm64
        need gcc-riscv64-linux-gnu riscv64-linux-gnu-gcc
        need libc6-dev-riscv64-cross /usr/riscv64-linux-gnu/include/stdio.h
        need gcc-i686-linux-gnu i686-linux-gnu-gcc
        need libc6-dev-i386-cross /usr/i686-linux-gnu/include/stdio.h
        need gcc-mingw-w64-x86-64-win32 x86_64-w64-mingw32-gcc
        need qemu-user qemu-aarch64
        need wine64 /usr/lib/wine/wine64
        optional=1
        ;;
    check)
        purpose test
        purpose arm64
        need g++ g++
        need clang-tidy clang-tidy
        need clang-format clang-format
        need cppcheck cppcheck
        ;;
    prove)
        purpose build
        need frama-c-base frama-c
        need why3 why3
        need cvc4 cvc4
        need z3 z3
        need patch patch
        ;;
    testbed)
        purpose build
        purpose arm64
        need qemu-system-x86 qemu-system-x86_64
        need qemu-system-arm qemu-system-aarch64
        need busybox-static /var/lib/dpkg/info/busybox-static.list
        need cpio cpio
        need e2fsprogs /sbin/mke2fs
        need xz-utils xz
        need lz4 lz4
        need zstd zstd
        need iproute2 ip
        need iputils-ping ping
        need iperf3 iperf3
        need socat socat
        need tcpdump tcpdump
        need passt passt
        ;;
    bench)
        purpose build
        need qemu-system-x86 qemu-system-x86_64
        ;;
    *)
        echo "deps.sh: no such purpose: $1" >&2
        exit 2
        ;;
    esac
}

# One at a time: make -j asks for several purposes at once, and apt-get has one lock.
exec 9>"${TMPDIR:-/tmp}/tenon-deps.$(id -u).lock"
flock 9
missing= optional=0 # 1: what cannot be installed is done without
purpose "${1:?usage: deps.sh build|test|arm64|cross|check|prove|testbed|bench}"
[ -n "$missing" ] || exit 0
# shellcheck disable=SC2086
set -- $missing
echo "installing Debian packages: $*"
sudo=
if [ "$(id -u)" != 0 ]; then
    sudo=sudo
    command -v sudo >/dev/null || {
        echo "deps: not root, and there is no sudo; install them and try again: $*" >&2
        exit $((1 - optional))
    }
fi
log=$(mktemp)
apt_get() {
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" >"$log" 2>&1
}
if ! apt_get install --no-install-recommends "$@"; then
    if ! { apt_get update && apt_get install --no-install-recommends "$@"; }; then
        if [ $optional = 0 ]; then
            tail -n 5 "$log" >&2
            echo "deps: apt-get could not install: $*" >&2
            exit 1
        fi
        for package; do # each that can be had
            apt_get install --no-install-recommends "$package" ||
                echo "deps: apt-get could not install $package: what needs it is skipped" >&2
        done
    fi
fi
rm -f "$log"
