#!/bin/bash
# microvm's bad input: each case is one line on stderr that names what and the limit, the right exit
# code, and nothing left behind. Prints TAP. Needs BUILD/bin/microvm and BUILD/guests.
set -u
BUILD=${BUILD:-build}
microvm=$PWD/$BUILD/bin/microvm
hello=$PWD/$BUILD/bin/hello
snapinfo=$PWD/$BUILD/bin/snapinfo
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
    refuses "cpus '$cpus'" 2 '1 to 254 .*: APIC ids have eight bits' --kernel x --cpus "$cpus"
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
for how in '' tap tap= bridge=x eth0 passt= ,mtu=1500; do
    refuses "net '$how'" 2 'tap=NAME, macvtap=NAME or passt=PATH comes first' --kernel x --net "$how"
done
for item in mac=1:2:3:4:5:6 mac=01:00:00:00:00:01 mac=00:00:00:00:00:00 mac=02:00:00:00:00:01:02 \
    mac=02:00:00:00:00:0g mtu=67 mtu=65536 mtu= queues=0 queues=8 rate=0 rate=x vhost=1 ''; do
    refuses "net item '$item'" 2 '^microvm: --net ' --kernel x --net "tap=t0,$item"
done
refuses "queues of passt" 2 'one queue pair' --kernel x --net passt=y,queues=2
# shellcheck disable=SC2046
refuses "9 networks" 2 'more than 8' --kernel x $(printf -- '--net tap=t%d ' $(seq 9))
for how in cid=2 cid=4294967295 cid=x cid=3,port=4 '' path= cid=3,vhost=1; do
    refuses "vsock '$how'" 2 '^microvm: --vsock ' --kernel x --vsock "$how"
done
refuses "vsock without a path" 2 'without path' --kernel x --vsock cid=3
refuses "vsock without a cid" 2 'without cid' --kernel x --vsock path=y
refuses "vsock with vhost and without a cid" 2 'without cid' --kernel x --vsock vhost
refuses "vsock with vhost and a path" 2 'vhost: it has no path' --kernel x --vsock cid=3,vhost,path=y
refuses "vsock with a path of 97 bytes" 2 '1 to 96 bytes' --kernel x \
    --vsock "cid=3,path=$(printf '%097d' 0)"
for size in x 1.5 -1 '' 1K 18446744073709551615; do
    refuses "balloon '$size'" 2 'MiB, or with a suffix' --kernel x --balloon "$size"
done
refuses "a balloon as large as the memory" 2 'as large as' --kernel x --memory 64M --balloon 64
refuses "ring how" 2 'split or packed' --kernel x --ring round
refuses "ring item" 2 'no-indirect or no-event-idx' --kernel x --ring packed,indirect
refuses "boot how" 2 'auto, linux64, pvh or linux32' --kernel x --boot grub

for option in kernel initrd cmdline memory cpus boot disk rootfs ring balloon; do
    value=1
    [ $option != memory ] || value=16M
    [ $option != boot ] || value=pvh
    [ $option != ring ] || value=split
    refuses "restore with $option" 2 "\-\-$option with --restore" --restore x --$option $value
done
for option in hugepages virtio-console rng; do
    refuses "restore with $option" 2 "\-\-$option with --restore" --restore x --$option
done
for option in --same --lazy "--overlays x" "--forks 2"; do
    # shellcheck disable=SC2086
    refuses "${option% *} without restore" 2 "^microvm: ${option% *} without" --kernel x $option
done
refuses "restore with another MAC address" 2 'with --restore: only' --restore x \
    --net tap=t0,mac=02:00:00:00:00:01
refuses "forks on one network" 2 'a % in it' --restore x --forks 2 --net tap=t0
refuses "forks on one socket" 2 'a % in it' --restore x --forks 2 --vsock path=y
refuses "forks with vhost and one cid" 2 'the first clone' --restore x --forks 2 --vsock vhost
refuses "forks beyond the last cid" 2 'is above 4294967294' --restore x --forks 3 \
    --vsock vhost,cid=4294967293
for forks in 0 10001 -1 two ''; do
    refuses "forks '$forks'" 2 '1 to 10000' --restore x --forks "$forks"
done
refuses "forks of the same machine" 2 'same with --forks' --restore x --forks 2 --same
refuses "forks and a snapshot" 2 'snapshot with --forks' --restore x --forks 2 --snapshot y
refuses "snapshot-when without snapshot" 2 'when without --snapshot' --kernel x --snapshot-when y
refuses "snapshot-when without a console" 2 'when with --console none' --kernel x --snapshot y \
    --snapshot-when z --console none
refuses "snapshot-when without a text" 2 '1 to 256 bytes' --kernel x --snapshot y --snapshot-when ''
refuses "snapshot-when 257 bytes" 2 '1 to 256 bytes' --kernel x --snapshot y \
    --snapshot-when "$(printf '%0257d' 0)"
refuses "a diff of nothing" 2 'snapshot diff: .*after --restore' --kernel x --snapshot y,diff \
    --snapshot-when z
refuses "snapshot item" 2 'diff or sync' --kernel x --snapshot y,compress
refuses "snapshot without a name" 2 'the name of a directory' --kernel x --snapshot ,diff
refuses "restore without a name" 2 'the name of a directory' --restore ''
refuses "a key for nothing" 2 'key .*: it is for' --kernel x --key y
refuses "no such key" 4 'nowhere: No such file' --restore x --key "$dir/nowhere"
refuses "a key of 0 bytes" 4 'empty: it has 0 bytes' --restore x --key "$dir/empty"
refuses "a key of 40 MB" 4 'initrd: it has 40000000 bytes' --restore x --key "$dir/initrd"
refuses "a snapshot over something" 4 'snapshot .*: .*not empty' --kernel "$elf" --snapshot "$dir"
refuses "a snapshot in a place that is not there" 4 'none/there: No such file' --kernel "$elf" \
    --snapshot "$dir/none/there"
refuses "a snapshot that is a file" 4 'text: Not a directory' --kernel "$elf" --snapshot "$dir/text"

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
    refuses "a 32-bit entry that the image lacks" 4 'linux32' --kernel "$guest" --boot linux32
    head -c 4096 /dev/zero >"$dir/zeros"
    head -c 400000 /dev/zero >"$dir/tree"
    refuses "no device tree" 4 'nowhere: No such file' --kernel "$guest" --dtb "$dir/nowhere"
    refuses "zeros for a device tree" 4 'zeros: no device tree blob' --kernel "$guest" \
        --dtb "$dir/zeros"
    "$BUILD/bin/fdt" x86 >"$dir/dtb"
    refuses "a device tree and PVH" 4 'dtb: neither PVH' --kernel "$BUILD/guests/first.elf" --boot pvh \
        --dtb "$dir/dtb"
    refuses "a device tree of 400 kB" 4 'tree: 400000 bytes; a device tree has 327664 at most' \
        --kernel "$guest" --dtb "$dir/tree"
    is "a device tree that the guest does not look at" ends 0 off --dtb "$dir/dtb"
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
    refuses "no such macvtap" 4 'nomacvtap0: no such interface' \
        --kernel "$guest" --net macvtap=nomacvtap0
    refuses "a TAP's name of 16 bytes" 4 'no name of an interface' \
        --kernel "$guest" --net tap=abcdefghijklmnop
    refuses "no passt" 4 'nowhere: No such file.*passt running' \
        --kernel "$guest" --net "passt=$dir/nowhere"
    refuses "a socket where a file is" 4 'text: there is a file' \
        --kernel "$guest" --vsock "cid=3,path=$dir/text"
    [ -e /dev/vhost-vsock ] || refuses "sockets by vhost where there is none" 5 \
        'cid=3,vhost: the host has no /dev/vhost-vsock' --kernel "$guest" --vsock cid=3,vhost
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
        --disk "$dir/a,,b,ro" --rng --virtio-console --ring packed \
        --vsock "cid=3,path=$dir/sock" --balloon 4 || return
    [ ! -e "$dir/sock" ] || return
    [ -s "$dir/cow" ] && cmp -n 40000000 "$dir/initrd" /dev/zero
}

# Two bzImages of old boot protocols, by their 32-bit entry; $1: auto, which says so, or linux32.
by_linux32() {
    local minor said=
    [ "$1" = linux32 ] || said='microvm: --boot auto: linux32'
    for minor in 00 09; do
        "$microvm" --kernel "$PWD/$BUILD/guests/bzimage_2_$minor.bin" --boot "$1" --memory 16M \
            --cmdline 'a line' >"$dir/out" 2>"$dir/err" </dev/null
        [ $? = 10 ] && [ "$(cat "$dir/out")" = "linux32 2.$minor 4 a line" ] &&
            [ "$(cat "$dir/err")" = "$said" ] || return
    done
}

# --boot auto is said where it is written, and linux64 is not where it isn't.
auto_says() {
    "$microvm" --kernel "$guest" --boot auto --cmdline off 2>"$dir/err" >"$dir/out" </dev/null &&
        [ "$(cat "$dir/err")" = 'microvm: --boot auto: linux64' ] &&
        "$microvm" --kernel "$guest" --cmdline off 2>"$dir/err" >"$dir/out" </dev/null &&
        [ ! -s "$dir/err" ]
}

to_file() {
    rm -f "$dir/console"
    "$microvm" --kernel "$guest" --cmdline off --console "file:$dir/console" </dev/null &&
        [ "$(cat "$dir/console")" = off ]
}

to_pty() {
    "$microvm" --kernel "$guest" --cmdline echo --console pty 2>"$dir/err" </dev/null &
    local pid=$! pty
    for _ in $(seq 50); do
        pty=$(sed -n 's/.*the console is //p' "$dir/err")
        [ -z "$pty" ] || break
        sleep 0.2
    done
    exec 8<>"$pty"
    printf 'hello pty!' >&8
    timeout 5 head -c 15 <&8 >"$dir/out"
    printf q >&8 # the end of the machine takes away what nobody has read
    wait $pid && grep -q 'hello pty!' "$dir/out"
}

from_pipe() {
    { printf 'abc'; sleep 0.3; printf 'defq'; } |
        "$microvm" --kernel "$guest" --cmdline echo >"$dir/out" && grep -q abcdef "$dir/out"
}

# A guest that hears of neither button nor keys: the first signal asks, the second one ends it.
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
    is "auto says that it is linux64" auto_says
    is "a bzImage without a 64-bit entry, by auto" by_linux32 auto
    is "a bzImage without a 64-bit entry, by linux32" by_linux32 linux32
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

# ---- snapshots ----

# lines N FILE: waits up to 10 s for a file to have so many.
lines() {
    for _ in $(seq 200); do
        [ "$(wc -l <"$2")" -lt "$1" ] || return 0
        sleep 0.05
    done
    return 1
}

# save DIR TEXT GUEST WORDS [OPTION...]: runs the guest until it has said TEXT; then DIR is there.
save() {
    local to=$1 text=$2 name=$3 words=$4
    shift 4
    timeout 20 "$microvm" --kernel "$guests/$name.elf" --memory 16M --cmdline "$words" \
        --snapshot "$to" --snapshot-when "$text" "$@" </dev/null >"$dir/out" 2>"$dir/err"
}

# on INPUT DIR [OPTION...]: goes on from DIR; what it says is in out.
on() {
    local input=$1
    shift
    printf '%b' "$input" | timeout 20 "$microvm" --restore "$@" >"$dir/out" 2>"$dir/err"
}

# A machine that counts is saved and restored in the midst of a number: none is missing, none twice.
counts_on() {
    local from="--kernel $guests/machine.elf --memory 16M --cmdline count" how='' i last
    : >"$dir/all"
    for i in 1 2 3; do
        # shellcheck disable=SC2086
        timeout 20 "$microvm" $from --snapshot "$dir/count$i$how" \
            --snapshot-when "00000${i}a"$'\n'000000 </dev/null >>"$dir/all" 2>"$dir/err" || return
        grep -qE "^microvm: snapshot in $dir/count$i.*: [0-9.]+ MiB, [0-9.]+ ms$" "$dir/err" &&
            [ "$(wc -l <"$dir/err")" = 1 ] || return
        from="--restore $dir/count$i" how=,diff,sync
    done
    last=$(wc -l <"$dir/all")
    [ "$last" -gt 50 ] || return
    { echo count; seq 0 "$last" | xargs printf '%016x\n'; } >"$dir/want"
    cmp -n "$(stat -c %s "$dir/all")" "$dir/want" "$dir/all"
}

# The output of a machine with four CPUs, timers and interrupts is the same, saved or not.
streams_on() {
    timeout 20 "$microvm" --kernel "$guests/clone.elf" --memory 16M --cpus 4 \
        --cmdline "stream 4 100" </dev/null >"$dir/whole" || return
    save "$dir/stream" "00002a 2" clone "stream 4 100" --cpus 4 || return
    mv "$dir/out" "$dir/begin"
    on '' "$dir/stream" || return
    cat "$dir/begin" "$dir/out" | cmp - "$dir/whole"
}

never_said() {
    save "$dir/never" nothing machine off
    [ $? = 14 ] && [ ! -e "$dir/never" ] && grep -q 'no snapshot: ' "$dir/err"
}

# by_signal DIR[,diff] WORDS INPUT...: after the answer to each input, a line, there is a snapshot.
by_signal() {
    local to=$1 words=$2 input n=0 pid
    shift 2
    rm -f "$dir/fifo"
    mkfifo "$dir/fifo"
    "$microvm" --kernel "$guests/clone.elf" --memory 16M --cmdline "$words" --snapshot "$to" \
        <"$dir/fifo" >"$dir/out" 2>"$dir/err" &
    pid=$!
    exec 7>"$dir/fifo"
    lines 1 "$dir/out"
    for input; do
        n=$((n + 1))
        printf '%b' "$input" >&7
        lines $((n + 1)) "$dir/out" && kill -USR1 $pid && lines $n "$dir/err" || break
    done
    printf q >&7
    exec 7>&-
    wait $pid && [ "$(grep -c '^microvm: snapshot in ' "$dir/err")" = $# ]
}

two_signals_two_snapshots() {
    by_signal "$dir/sig" echo 'one\n' 'two\n' || return
    on 'x\nq' "$dir/sig" && grep -qx '2: x' "$dir/out" || return
    on 'x\nq' "$dir/sig.1" && grep -qx '3: x' "$dir/out" && [ ! -e "$dir/sig.2" ]
}

# Each of a chain of diffs has the memory of its moment: the guest says its checksum.
diff_chain() {
    local i n=1
    for i in "" .1 .2; do
        n=$((n + 1))
        on zq "$dir/diff$i" "$@" || return
        grep "^z $(sed -n ${n}p "$dir/sums" | cut -d' ' -f3) " "$dir/out" || return
    done
}

diffs_by_signal() {
    by_signal "$dir/diff,diff" "dirty 8" a b c || return
    cp "$dir/out" "$dir/sums"
    diff_chain && [ "$(stat -c %s "$dir/diff.2/memory")" -lt 1000000 ]
}

# A snapshot that fails is a line, and so is a signal when there is none to be taken.
signal_in_vain() {
    local pid n=0
    for option in "" "--snapshot $dir/vain"; do
        rm -rf "$dir/fifo" "$dir/vain"
        mkfifo "$dir/fifo"
        # shellcheck disable=SC2086
        "$microvm" --kernel "$guests/clone.elf" --memory 16M --cmdline echo $option \
            <"$dir/fifo" >"$dir/out" 2>"$dir/err" &
        pid=$!
        exec 7>"$dir/fifo"
        lines 1 "$dir/out"
        mkdir -p "$dir/vain/state"
        kill -USR1 $pid
        lines 1 "$dir/err"
        printf 'on\nq' >&7
        exec 7>&-
        wait $pid && grep -qx '1: on' "$dir/out" && [ "$(wc -l <"$dir/err")" = 1 ] &&
            grep -qE 'SIGUSR1: without --snapshot|no snapshot in .*not empty' "$dir/err" &&
            n=$((n + 1))
    done
    [ $n = 2 ]
}

clones_answer() {
    local k
    on 'hello\nq' "$dir/echo" --forks 8 "$@" || return
    [ "$(wc -l <"$dir/out")" = 8 ] && [ "$(wc -l <"$dir/err")" = 9 ] || return
    for k in 0 1 2 3 4 5 6 7; do
        grep -qxF "[$k] 1: hello" "$dir/out" || return
        grep -qE "^microvm: clone $k: first output after [0-9]+ us$" "$dir/err" || return
    done
    tail -n 1 "$dir/err" | grep -E \
        '^microvm: 8 clones, first output of 8: p50 [0-9]+ us, .* us, 8 powered off$'
}

# What has no end yet is shown after a while, each clone's on a line of its own.
clones_half_lines() {
    local k
    save "$dir/half" echo machine echo || return
    { printf abc; sleep 0.4; printf d; sleep 0.4; printf q; } |
        timeout 20 "$microvm" --restore "$dir/half" --forks 2 >"$dir/out" 2>"$dir/err" || return
    ! grep -v '^\[[01]\] ' "$dir/out" || return
    for k in 0 1; do
        [ "$(sed -n "s/^\[$k\] //p" "$dir/out" | tr -d '\n')" = abcd ] || return
    done
    [ "$(grep -c '[a-d]$' "$dir/out")" -ge 3 ] && [ -z "$(tail -c 1 "$dir/out" | tr -d '\n')" ]
}

clones_to_files() {
    local k
    on '' "$dir/stream" --forks 2 --console "file:$dir/con" || return
    for k in 0 1; do
        cat "$dir/begin" "$dir/con.$k" | cmp - "$dir/whole" || return
    done
    [ ! -s "$dir/out" ] && [ ! -e "$dir/con" ]
}

clones_on_ptys() {
    local pid k pty
    "$microvm" --restore "$dir/echo" --forks 2 --console pty </dev/null >"$dir/out" 2>"$dir/err" &
    pid=$!
    lines 2 "$dir/err"
    for k in 0 1; do
        pty=$(sed -n "s/.*clone $k: the console is //p" "$dir/err")
        exec 8<>"$pty"
        printf 'hello\n' >&8
        timeout 5 head -c 8 <&8 >"$dir/out.$k"
        printf q >&8
        exec 8>&-
    done
    wait $pid && grep -qx '1: hello' "$dir/out.0" && cmp "$dir/out.0" "$dir/out.1"
}

clones_ended() {
    local pid status
    rm -f "$dir/fifo"
    mkfifo "$dir/fifo"
    exec 7<>"$dir/fifo"
    "$microvm" --restore "$dir/echo" --forks 3 <"$dir/fifo" >"$dir/out" 2>"$dir/err" &
    pid=$!
    sleep 0.7
    kill -TERM $pid
    sleep 0.2
    kill -INT $pid
    wait $pid
    status=$?
    exec 7>&-
    [ $status = 13 ] && grep -q '^microvm: 3 clones, 3 ended from outside$' "$dir/err"
}

# The first machine's own disk: only the very same machine may go on with it.
same_machine() {
    on 'x\nq' "$dir/same" --same && grep -qx '1: x' "$dir/out"
}

# What clones write to a disk is their own, and neither the disk's nor the first machine's.
own_disks() {
    local sum
    head -c 1048576 /dev/zero >"$dir/disk"
    save "$dir/disks" ..... virtio io --disk "$dir/disk,overlay=$dir/disk.cow" || return
    sum=$(sha256sum "$dir/disk.cow" "$dir/disks"/*)
    { sleep 0.2; printf x; } | timeout 20 "$microvm" --restore "$dir/disks" --forks 2 \
        --overlays "$dir/clones" >"$dir/out" 2>"$dir/err" || return
    [ "$(grep -c '^\[.\] done$' "$dir/out")" = 2 ] && [ -s "$dir/clones/disk0.clone1" ] || return
    { sleep 0.6; printf x; } | timeout 20 "$microvm" --restore "$dir/disks" \
        --overlays "$dir/other" >"$dir/out" 2>"$dir/err" || return
    grep -qx done "$dir/out" || return
    ! cmp -s "$dir/clones/disk0.clone0" "$dir/other/disk0.clone0" || return
    ! cmp -s "$dir/clones/disk0.clone1" "$dir/disk.cow" || return
    [ "$sum" = "$(sha256sum "$dir/disk.cow" "$dir/disks"/*)" ] && cmp -n 1048576 "$dir/disk" /dev/zero
}

# A chain: a clone with a disk is saved, and its clone goes on from there, in another directory.
disks_chain() {
    cd "$dir" || return
    timeout 20 "$microvm" --restore disks --snapshot disks2 --snapshot-when ... </dev/null \
        >out 2>err || return
    { sleep 0.2; printf x; } | TMPDIR=$dir/tmp timeout 20 "$microvm" --restore disks2 --forks 3 \
        >out 2>err || return
    [ "$(grep -c '^\[.\] done$' out)" = 3 ]
}

forgotten_disks() {
    mkdir "$dir/tmp"
    (disks_chain) && rmdir "$dir/tmp"
}

keyed() {
    head -c 32 /dev/urandom >"$dir/key"
    head -c 32 /dev/urandom >"$dir/key2"
    save "$dir/keyed" $'ready\n' clone echo --key "$dir/key" || return
    on 'x\nq' "$dir/keyed" --key "$dir/key" && grep -qx '1: x' "$dir/out"
}

# info CODE PATTERN ARGS...: what snapinfo says of it.
info() {
    local code=$1 pattern=$2 status
    shift 2
    "$snapinfo" "$@" >"$dir/out" 2>&1
    status=$?
    tail -n 1 "$dir/out"
    [ $status = "$code" ] && grep -qE "$pattern" "$dir/out"
}

# spoilt NAME PATTERN COMMAND...: what is said of a snapshot after the command in a copy of it.
spoilt() {
    local name=$1 pattern=$2
    shift 2
    rm -rf "$dir/bad"
    cp -r --sparse=always "$dir/echo" "$dir/bad"
    (cd "$dir/bad" && "$@")
    refuses "$name" 4 "$pattern" --restore "$dir/bad"
    is "$name, to snapinfo" info 1 '^snapinfo: ' "$dir/bad"
}

# another FILE OFFSET: a byte that is not what it was.
another() {
    printf '\125' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

lazy_cases() {
    on 'x\nq' "$dir/echo" --lazy
    if grep -qE 'Operation not permitted|lacks the device' "$dir/err"; then
        skip "lazy memory" "no userfaultfd here"
        return
    fi
    is "lazy memory" grep -qx '1: x' "$dir/out"
    is "lazy memory of a chain of diffs" diff_chain --lazy
    is "8 clones with lazy memory" clones_answer --lazy
    rm -rf "$dir/bad"
    cp -r --sparse=always "$dir/echo" "$dir/bad"
    another "$dir/bad/memory" 1048577
    on 'x\n' "$dir/bad" --lazy
    is "lazy memory that was changed: 4" [ $? = 4 ]
    is "and it is said" grep -q 'memory at byte 1048576: .*digest' "$dir/err"
}

snapshot_cases() {
    guests=$PWD/$BUILD/guests
    is "a chain of snapshots of a machine that counts" counts_on
    is "a snapshot of a machine with four CPUs" streams_on
    is "a text that is never said: 14" never_said
    is "SIGUSR1 twice: two snapshots" two_signals_two_snapshots
    is "SIGUSR1 thrice: a chain of diffs" diffs_by_signal
    is "SIGUSR1 in vain" signal_in_vain
    is "saved when it is ready" save "$dir/echo" $'ready\n' clone echo
    is "8 clones answer" clones_answer
    is "clones' half lines" clones_half_lines
    is "clones with a file each" clones_to_files
    is "clones with a pty each" clones_on_ptys
    is "two signals end all clones: 13" clones_ended
    lazy_cases

    refuses "a snapshot that is not there" 4 'nowhere/state: No such' --restore "$dir/nowhere"
    refuses "a snapshot that is none" 4 'clones/state: No such' --restore "$dir/clones"
    spoilt "a state with another byte" 'bad/state, at byte [0-9]+: it was changed' another state 3000
    spoilt "a state of another format" 'bad/state: it is no snapshot' another state 0
    spoilt "a state from the future" 'bad/state: it is of a later version' another state 8
    spoilt "a state that is cut" 'bad/state.*: it ends too early' truncate -s -1 state
    spoilt "a state that is too long" 'bad/state.*: .*damaged' truncate -s +1 state
    spoilt "memory with another byte" 'bad/memory, at byte 1048576: it was changed' another memory \
        1048577
    spoilt "memory that is cut" 'bad/memory, at byte 8388608: it ends too early' \
        truncate -s 8M memory
    spoilt "memory that is too long" 'bad/memory, at byte 16777216: it is longer' \
        truncate -s 17M memory
    spoilt "no memory" 'bad/memory: No such file' rm memory
    spoilt "memory that is a link" 'bad/memory: ' ln -sf ../echo/memory memory
    mv "$dir/diff" "$dir/elsewhere"
    refuses "no parent" 4 'diff.2/state, 2 before it .*: No such file' --restore "$dir/diff.2"
    mv "$dir/elsewhere" "$dir/diff"

    is "a signed snapshot" keyed
    refuses "signed with another key" 4 'keyed/state: .*another key' \
        --restore "$dir/keyed" --key "$dir/key2"
    refuses "signed, and no key" 4 'keyed/state: .*--key FILE is needed' --restore "$dir/keyed"
    refuses "not signed, but a key" 4 'echo/state: .*not signed' \
        --restore "$dir/echo" --key "$dir/key"

    is "saved with a disk of its own" save "$dir/same" $'ready\n' clone echo --disk "$dir/initrd"
    refuses "a disk that clones would share" 4 'disk 0, .*/initrd, .*--same' --restore "$dir/same"
    is "the same machine" same_machine
    is "clones with disks of their own" own_disks
    refuses "overlays that are there" 4 'disk0.clone0: File exists' \
        --restore "$dir/disks" --overlays "$dir/clones"
    refuses "the same machine, and no place for its disk" 2 'same: .*--overlays' \
        --restore "$dir/disks" --same
    is "a chain of clones with disks" forgotten_disks

    is "snapinfo" info 0 '^snapshot holds$' "$dir/echo"
    is "snapinfo: a chain of diffs" info 0 '^chain +3 snapshots$' "$dir/diff.2"
    is "snapinfo: the parent's place" info 0 '^snapshot holds$' --parent "$dir/diff.1" "$dir/diff.2"
    is "snapinfo: another parent" info 1 '1 before it' --parent "$dir/diff" "$dir/diff.2"
    is "snapinfo: signed" info 0 'signed with the key' --key "$dir/key" "$dir/keyed"
    is "snapinfo: signed, and no key" info 1 'keyed/state: ' "$dir/keyed"
    is "snapinfo: a disk" info 0 '^disk 0 .* 1048576 bytes, .*/disk, overlay$' "$dir/disks"
}

is "snapinfo --help" "$snapinfo" --help
for arg in --bogus --key ''; do
    "$snapinfo" "$arg" >"$dir/out" 2>&1
    is "snapinfo '$arg': 2" [ $? = 2 ]
done

if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then
    kvm_cases
    guest_cases
    snapshot_cases
else
    skip "kernels, initrd, memory" "/dev/kvm is missing or may not be opened"
    skip "snapshots and clones" "/dev/kvm is missing or may not be opened"
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
