# SPDX-License-Identifier: MIT OR Apache-2.0
# What the scripts of the testbed share; sourced by them, never run.
# In:   BUILD; GUEST_ARCH=amd64|arm64: Debian's name for what the guests run on, by default this
#       machine's
# Sets: here (this folder), root (the repository), BUILD (absolute), arch, cross (its compilers'
#       prefix), bed (BUILD/testbed, or BUILD/testbed/arm64).
# shellcheck shell=sh

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
BUILD=${BUILD:-$root/build}
mkdir -p "$BUILD"
BUILD=$(cd "$BUILD" && pwd)
host=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
arch=${GUEST_ARCH:-$host}
# shellcheck disable=SC2034
case $arch in
amd64) cross='' bed=$BUILD/testbed ;;
arm64) cross=aarch64-linux-gnu- bed=$BUILD/testbed/arm64 ;;
*)
    echo "GUEST_ARCH is neither amd64 nor arm64" >&2
    exit 2
    ;;
esac
[ "$arch" != "$host" ] || cross=''
mkdir -p "$bed"
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

# The lists of apt as they are on this machine, or, once refresh was called, private ones; those of
# another architecture are always private, and know of nothing that would be installed.
private='' refreshed='' apt_log=$bed/apt.log
private_apt() {
    mkdir -p "$bed/apt/lists/partial" "$bed/apt/cache/archives/partial"
    private="-o Dir::State::Lists=$bed/apt/lists -o Dir::Cache=$bed/apt/cache"
    [ "$arch" = amd64 ] || {
        : >"$bed/apt/status"
        private="$private -o APT::Architecture=$arch -o APT::Architectures=$arch"
        private="$private -o Dir::State::status=$bed/apt/status"
    }
}
[ "$arch" = amd64 ] || private_apt
# shellcheck disable=SC2086
apt_get() { apt-get -q -o APT::Sandbox::User=root $private "$@" 2>>"$apt_log"; }
# shellcheck disable=SC2086
apt_cache() { apt-cache $private "$@" 2>>"$apt_log"; }
refresh() {
    [ -z "$refreshed" ] || return 1
    refreshed=1
    private_apt
    apt_get update >>"$apt_log"
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
    static=$BUILD/static twins=$BUILD/static/bin/twins
    [ "$arch" = amd64 ] || static=$BUILD/static-$arch twins=
    MAKEFLAGS='' ${MAKE:-make} -s -C "$root" STATIC=1 CROSS="$cross" BUILD="$static" \
        "$static/bin/microvm" ${twins:+"$twins"} >&2 || die "cannot build $static/bin/microvm"
    echo "$static/bin/microvm"
}

# emulate NAME LIMIT INITRD CHARDEV [OPTION...]: boots the outer Linux (L1), for LIMIT seconds at
# most (0: for ever). Its console goes to BUILD/testbed/NAME.log; ttyS1, its job's input and
# output, is CHARDEV; ttyS2, the job's exit status, is the file NAME.status. `max` is the CPU with
# everything that QEMU emulates; SVM, or EL2, has to be asked for. An arm64 machine has one serial
# line of its own; the others are on PCI, and the kernel's first words on its own. Without lpa2=off
# QEMU tells of the page that begins a guest's page tables, when KVM has yet to map it, with a code
# that KVM does not know.
emulate() {
    l1=$bed/$1 limit=$2 initrd=$3 chardev=$4
    shift 4
    : >"$l1.log"
    : >"$l1.status"
    log=file,id=log,path=$l1.log words="quiet panic=-1 mitigations=off ${L1_WORDS:-}"
    case $arch in
    amd64)
        set -- qemu-system-x86_64 -M q35 -cpu max,+svm,-xsave -append "console=ttyS0 $words" \
            -serial chardev:log -serial chardev:job -serial chardev:status "$@"
        ;;
    arm64)
        log=$log,mux=on
        set -- qemu-system-aarch64 -M virt,virtualization=on,gic-version=3 \
            -cpu max,lpa2=off,pauth-impdef=on -append "earlycon console=ttyS0 $words" \
            -serial chardev:log \
            -device pci-serial-4x,chardev1=log,chardev2=job,chardev3=status "$@"
        ;;
    esac
    timeout --foreground -k 5 "$limit" "$@" -nodefaults -no-user-config -nographic -no-reboot \
        -accel "tcg,thread=${L1_THREAD:-multi}" -m "${L1_MEMORY:-4096}" -smp "${L1_CPUS:-1}" \
        -kernel "$bed/6.1-cloud/vmlinuz" -initrd "$initrd" \
        -chardev "$log" -chardev "$chardev,id=job" -chardev "file,id=status,path=$l1.status"
}
