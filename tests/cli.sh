#!/bin/bash
# microvm's bad input: each case is one line on stderr that names what and the limit, the right exit
# code, and nothing left behind. Prints TAP. Needs BUILD/bin/microvm and BUILD/guests.
set -u
BUILD=${BUILD:-build}
microvm=$PWD/$BUILD/bin/microvm
hello=$PWD/$BUILD/bin/hello
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
n=0

ok() {
    n=$((n + 1))
    echo "ok $n - $1"
}

not_ok() {
    n=$((n + 1))
    echo "not ok $n - $1"
    shift
    printf '# %s\n' "$@"
}

skip() {
    n=$((n + 1))
    echo "ok $n - $1 # SKIP $2"
}

# refuses NAME CODE PATTERN ARGS...: exits with CODE after exactly one line that matches PATTERN.
refuses() {
    local name=$1 code=$2 pattern=$3 status
    shift 3
    ${wrap:-} timeout 20 "$microvm" "$@" >"$dir/out" 2>"$dir/err" </dev/null
    status=$?
    if [ "$status" = "$code" ] && [ "$(wc -l <"$dir/err")" = 1 ] && grep -qE "$pattern" "$dir/err" &&
        [ ! -s "$dir/out" ]; then
        ok "$name"
    else
        not_ok "$name" "exit $status, wanted $code and a line like: $pattern" "$(cat "$dir/err")"
    fi
}

# patch FILE OFFSET OCTAL...: a copy of a valid ELF with bytes changed.
elf=$(readlink -f /bin/true)
patch() {
    local out=$dir/$1 offset=$2
    shift 2
    cp "$elf" "$out"
    chmod u+w "$out"
    printf '%b' "$(printf '\\0%s' "$@")" | dd of="$out" bs=1 seek="$offset" conv=notrunc status=none
}


: >"$dir/empty"
head -c 40 "$elf" >"$dir/truncated"
head -c 3000 "$elf" >"$dir/cut"
printf 'this is no kernel, it is a text; %0600d\n' 0 >"$dir/text"
patch elf32 4 1
patch big 5 2
patch arm 18 267 0
printf '\037\213\010\0%0600d' 0 >"$dir/gzip"
head -c 40000000 /dev/zero >"$dir/initrd"

refuses "no kernel option" 2 '\-\-kernel FILE is missing'
refuses "an unknown option" 2 "unrecognized option '--bogus'" --bogus
refuses "a stray argument" 2 'argument stray' --kernel x stray
refuses "no such kernel" 4 'nowhere: No such file' --kernel "$dir/nowhere"
refuses "the kernel is a directory" 4 'Is a directory' --kernel "$dir"
refuses "the kernel is a device" 4 '/dev/zero: Invalid' --kernel /dev/zero
refuses "no such initrd" 4 'nowhere: No such file' --kernel "$dir/text" --initrd "$dir/nowhere"
for size in 0 1 15M 1025G 2T 16M1 16MB -16M 1.5G 0x100M '' 99999999999999999999 18014398509481985K \
    16777217; do
    refuses "memory '$size'" 2 '16M to 1T' --kernel x --memory "$size"
done
for cpus in 0 255 1000000 -1 two '' 4294967297; do
    refuses "cpus '$cpus'" 2 '1 to 254' --kernel x --cpus "$cpus"
done
refuses "console where" 2 'stdio, pty, file:PATH or none' --kernel x --console tty
refuses "console file without a path" 2 'stdio, pty, file:PATH or none' --kernel x --console file:
for item in rw ro=1 overlay= id=123456789012345678901 rate=0 rate=fast iops= cache; do
    refuses "disk item '$item'" 2 "^microvm: --disk $item: " --kernel x --disk "img,$item"
done
refuses "disk without a path" 2 'the name of a file' --kernel x --disk ,ro
# shellcheck disable=SC2046
refuses "17 disks" 2 'more than 16 disks' --kernel x $(printf -- '--disk img%d ' $(seq 17))
refuses "two root disks" 2 'a --rootfs already' --kernel x --rootfs a --rootfs b
refuses "a command line that cannot take root=" 2 'cmdline' --kernel x --rootfs a --cmdline '"'
refuses "ring how" 2 'split or packed' --kernel x --ring round
refuses "ring item" 2 'no-indirect or no-event-idx' --kernel x --ring packed,indirect
refuses "boot how" 2 'auto, linux64 or pvh' --kernel x --boot grub

for option in --help --version; do
    if "$microvm" $option >"$dir/out" 2>"$dir/err" && [ -s "$dir/out" ] && [ ! -s "$dir/err" ]; then
        ok "$option"
    else
        not_ok "$option" "$(cat "$dir/err")"
    fi
done

kvm_cases() {
    refuses "an empty kernel" 4 'empty: .*(no bytes|empty)' --kernel "$dir/empty"
    refuses "a truncated ELF header" 4 'truncated: ' --kernel "$dir/truncated"
    refuses "a truncated ELF" 4 'cut: ' --kernel "$dir/cut"
    refuses "a kernel that is a text" 4 'text: .*neither' --kernel "$dir/text"
    refuses "a 32-bit ELF" 4 'elf32: .*32-bit' --kernel "$dir/elf32"
    refuses "a big-endian ELF" 4 'big: .*big-endian' --kernel "$dir/big"
    refuses "an arm64 ELF" 4 'arm: .*machine' --kernel "$dir/arm"
    refuses "a gzipped kernel" 4 'gzip: .*compress' --kernel "$dir/gzip"
    refuses "an ELF that is no kernel" 4 "true: " --kernel "$elf"
    guest=$BUILD/guests/machine.elf
    refuses "an initrd that does not fit" 4 'initrd: 40000000 bytes .* 16 MiB' \
        --kernel "$guest" --initrd "$dir/initrd" --memory 16M
    refuses "a command line that is too long" 2 'cmdline: .*3000 bytes' \
        --kernel "$guest" --cmdline "$(printf '%03000d' 0)"
    refuses "a protocol that the image lacks" 4 'pvh' --kernel "$guest" --boot pvh
    # shellcheck disable=SC3045
    (
        ulimit -v 4000000
        "$microvm" --kernel "$guest" --memory 64G >"$dir/out" 2>"$dir/err" </dev/null
        echo $? >"$dir/status"
    )
    if [ "$(cat "$dir/status")" = 5 ] && grep -q 'memory: the host refuses 65536 MiB' "$dir/err"; then
        ok "memory that the host cannot give"
    else
        not_ok "memory that the host cannot give" "$(cat "$dir/err")"
    fi
    if [ "$(cat /proc/sys/vm/nr_hugepages)" = 0 ]; then
        refuses "no huge pages in the pool" 5 'huge pages: Cannot allocate' \
            --kernel "$guest" --hugepages
    else
        skip "no huge pages in the pool" "this host has huge pages"
    fi
    refuses "no such disk" 4 'nowhere: No such file' --kernel "$guest" --disk "$dir/nowhere"
    refuses "a disk that is a directory" 4 'neither a regular file nor' \
        --kernel "$guest" --disk "$dir,ro"
    refuses "a disk of 40 bytes" 4 'truncated: its size .*512' --kernel "$guest" --disk "$dir/truncated"
    refuses "an empty disk" 4 'empty: its size' --kernel "$guest" --disk "$dir/empty"
    refuses "the second disk" 4 'nowhere: No such file' \
        --kernel "$guest" --disk "$dir/initrd" --disk "$dir/nowhere"
    refuses "a disk twice" 4 'initrd: in use' --kernel "$guest" --disk "$dir/initrd" \
        --disk "$dir/initrd"
    refuses "an overlay that is none" 4 'overlay .*text: ' \
        --kernel "$guest" --disk "$dir/initrd,overlay=$dir/text"
    refuses "an overlay that cannot be made" 4 'none/there: ' \
        --kernel "$guest" --disk "$dir/initrd,overlay=$dir/none/there"
    refuses "a read-only disk with an overlay that is not there" 4 'nowhere: No such file' \
        --kernel "$guest" --disk "$dir/initrd,ro,overlay=$dir/nowhere"
    refuses "a console file that cannot be made" 4 'console .*: (No such|Not a)' \
        --kernel "$guest" --console "file:$dir/none/there"
}


# is NAME COMMAND...: the command is to succeed.
is() {
    local name=$1
    shift
    if "$@" >"$dir/is" 2>&1; then ok "$name"; else not_ok "$name" "$(tail -n 3 "$dir/is")"; fi
}

# ends CODE WORD [OPTION...]: the guest does WORD; microvm exits with CODE
ends() {
    local code=$1 word=$2 status
    shift 2
    timeout 20 "$microvm" --kernel "$guest" --memory 16M --cmdline "$word" "$@" </dev/null \
        >"$dir/out" 2>"$dir/err"
    status=$?
    echo "exit $status: $(cat "$dir/err")"
    [ "$status" = "$code" ] && head -n 1 "$dir/out" | grep -q "$word"
}

# Disks and the like do no harm to a guest that looks at none of them; a comma in a name is doubled.
with_devices() {
    head -c 4096 /dev/zero >"$dir/a,b"
    ends 0 off --disk "$dir/a,,b,ro,id=x,rate=1M,iops=10" --disk "$dir/initrd,overlay=$dir/cow" \
        --disk "$dir/a,,b,ro" --rng --virtio-console --ring packed || return
    [ -s "$dir/cow" ] && cmp -n 40000000 "$dir/initrd" /dev/zero
}

to_file() {
    rm -f "$dir/console"
    "$microvm" --kernel "$guest" --cmdline off --console "file:$dir/console" </dev/null &&
        [ "$(cat "$dir/console")" = off ]
}

to_pty() {
    "$microvm" --kernel "$guest" --cmdline echo --console pty 2>"$dir/err" </dev/null &
    local pid=$! pty
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        pty=$(sed -n 's/.*the console is //p' "$dir/err")
        [ -z "$pty" ] || break
        sleep 0.2
    done
    exec 8<>"$pty"
    printf 'hello pty!q' >&8
    timeout 5 head -c 15 <&8 >"$dir/out"
    wait $pid && grep -q 'hello pty!' "$dir/out"
}

from_pipe() {
    { printf 'abc'; sleep 0.3; printf 'defq'; } |
        "$microvm" --kernel "$guest" --cmdline echo >"$dir/out" && grep -q abcdef "$dir/out"
}

# A signal to a guest without a keyboard driver: the first one asks, the second one ends it.
two_signals() {
    "$microvm" --kernel "$guest" --cmdline idle </dev/null >"$dir/out" &
    local pid=$! status
    sleep 0.5
    kill -TERM $pid
    sleep 0.3
    kill -0 $pid || return 1
    kill -INT $pid
    wait $pid
    status=$?
    [ "$status" = 13 ]
}

# On a terminal: keys reach the guest, Ctrl-A Ctrl-A is one Ctrl-A, Ctrl-A X leaves, and the
# terminal's settings are what they were, also after a signal that kills.
on_terminal() {
    cat >"$dir/session" <<SH
stty -a >$dir/before
$microvm --kernel $guest --cmdline echo
echo "exit \$?"
stty -a >$dir/after
SH
    { sleep 1; printf 'keys\001\001more'; sleep 1; printf '\001x'; sleep 1; } |
        timeout 20 script -qec "sh $dir/session" /dev/null >"$dir/out"
    cmp "$dir/before" "$dir/after" && grep -q 'exit 13' "$dir/out" &&
        grep -q "$(printf 'keys\001more')" "$dir/out"
}

killed_on_terminal() {
    cat >"$dir/session" <<SH
stty -a >$dir/before
timeout -f -s $1 1 $microvm --kernel $guest --cmdline idle
stty -a >$dir/after
SH
    sed -i 's/timeout -f/timeout --foreground/' "$dir/session"
    { sleep 2; } | timeout 20 script -qec "sh $dir/session" /dev/null >"$dir/out"
    cmp "$dir/before" "$dir/after"
}

guest_cases() {
    guest=$PWD/$BUILD/guests/machine.elf
    is "a guest that powers off: 0" ends 0 off
    is "a guest that resets: 10" ends 10 reset
    is "a guest that resets by the keyboard controller: 10" ends 10 kbd-reset
    is "a guest that crashes: 11" ends 11 triple
    is "a guest that panics: 12" ends 12 panic
    is "disks, entropy, hvc0 and packed rings" with_devices
    is "console file" to_file
    is "console pty" to_pty
    is "console from a pipe" from_pipe
    is "two signals end it: 13" two_signals
    is "keys, the escape and the terminal's settings" on_terminal
    for s in ABRT SEGV HUP QUIT; do
        is "the terminal after SIG$s" killed_on_terminal $s
    done
}

if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then
    kvm_cases
    guest_cases
else
    skip "kernels, initrd, memory" "/dev/kvm is missing or may not be opened"
fi

if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
    if [ -e /dev/kvm ]; then
        cat >"$dir/without" <<'SH'
#!/bin/sh
mount -t tmpfs none /dev && : >/dev/null && exec "$@"
SH
        chmod +x "$dir/without"
        wrap="unshare -m $dir/without"
    fi
    refuses "no /dev/kvm" 3 '/dev/kvm is missing' --kernel "$elf"
    wrap=
    if [ -e /dev/kvm ] && [ "$(stat -c %a /dev/kvm)" != 666 ]; then
        cp "$microvm" "$dir/microvm" # where nobody may read it
        chmod 755 "$dir" "$dir/microvm"
        microvm=$dir/microvm
        wrap="setpriv --reuid=65534 --regid=65534 --clear-groups"
        refuses "no permission for /dev/kvm" 3 '/dev/kvm: permission denied' --kernel "$elf"
        wrap=
    else
        skip "no permission for /dev/kvm" "everyone may open it here"
    fi
else
    skip "no /dev/kvm" "only root can hide it"
    skip "no permission for /dev/kvm" "only root can become nobody"
fi
if [ -r /dev/kvm ]; then
    if [ "$("$hello")" = Hello ]; then ok hello; else not_ok hello; fi
else
    skip "hello" "/dev/kvm is missing or may not be opened"
fi
echo "1..$n"
