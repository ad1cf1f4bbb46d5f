#!/bin/sh
# Boots a Debian kernel under emulation (QEMU's TCG: no KVM is needed) and runs
# one static program in it, as root, from an initramfs that holds little else.
# The program's exit code is this script's.
#
# usage: tools/vm.sh SERIES CGROUP-MOUNT PROGRAM [ARGUMENT ...]
#   SERIES        of the kernel, "6.1": the newest Debian has of it is taken
#   CGROUP-MOUNT  where cgroup v2 is mounted: /sys/fs/cgroup, or
#                 /sys/fs/cgroup/unified beside version 1
#
# It needs what "tools/setup.sh kernels" installs. Kernels are kept in bin/kernels.
set -eu

series=$1
cgroups=$2
program=$3
shift 3
cd "$(dirname "$0")/.."
cache=$PWD/bin/kernels
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 129' HUP INT TERM

# Modules that attacks and tests use; the cloud kernel has the rest built in.
modules='veth tun dummy sctp dccp_ipv4 vsock_loopback cls_bpf sch_ingress nf_conntrack ipip ip_gre sit vxlan'

newest() {
	apt-cache search --names-only "^linux-image-$(echo "$series" | sed 's/\./\\./g')\\..*cloud-amd64\$" |
		cut -d' ' -f1 | sort -V | tail -n 1
}

# Sets version and kernel, and fetches the latter unless it is there.
fetch() {
	package=$(newest)
	version=${package#linux-image-}
	kernel=$cache/$version
	[ -n "$package" ] || return 1
	[ ! -e "$kernel/complete" ] || return 0
	rm -rf "$kernel"
	mkdir -p "$kernel"
	(cd "$work" && apt-get download -qq "$package") >"$work/apt" 2>&1 || return 1
	dpkg-deb -x "$work"/*.deb "$kernel"
	depmod -b "$kernel" "$version"
	touch "$kernel/complete"
}

# One at a time: package lists and kernels are shared.
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
# An old package list names what the archive has no more.
if ! fetch; then
	apt-get update -qq
	if ! fetch; then
		echo "vm: Debian's cloud kernel of series $series could not be fetched" >&2
		[ ! -e "$work/apt" ] || cat "$work/apt" >&2
		exit 1
	fi
fi
exec 9>&-

root=$work/root
mkdir -p "$root/bin" "$root/modules" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/etc" "$root/run"
cp /bin/busybox "$root/bin/"
cp "$program" "$root/program"
for module in $modules; do
	modprobe -d "$kernel" -S "$version" --show-depends "$module" 2>/dev/null || true
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' >"$work/modules"
while read -r file; do
	name=$(basename "$file")
	case $name in
	*.xz) xz -dc "$file" >"$root/modules/${name%.xz}" ;;
	*) cp "$file" "$root/modules/" ;;
	esac
	echo "${name%.xz}" >>"$root/modules/order"
done <"$work/modules"

for argument in "$@"; do
	printf '%s\n' "$argument" >>"$root/arguments"
done
echo "$cgroups" >"$root/cgroups"
cp tools/vm-init.sh "$root/init"
chmod 0755 "$root/init" "$root/program"
(cd "$root" && find . | cpio -o -H newc 2>/dev/null | gzip -1) >"$work/initrd"

# One processor: with two, under emulation, a processor has been seen to run into the
# breakpoint that the other had put into a kernel function, to attach a program there,
# and had taken out again; the kernel panics.
# What the guest prints last is its word; QEMU's own exit code says nothing.
timeout "${VM_TIMEOUT:-600}" qemu-system-x86_64 -machine q35 -accel tcg -cpu max -smp 1 -m 2048 \
	-nographic -no-reboot -nodefaults -serial mon:stdio -kernel "$kernel/boot/vmlinuz-$version" \
	-initrd "$work/initrd" -append 'console=ttyS0 panic=-1 quiet' </dev/null | tr -d '\r' | tee "$work/console"
code=$(sed -n 's/^vm: exit \([0-9]*\)$/\1/p' "$work/console" | tail -n 1)
if [ -z "$code" ]; then
	echo "vm: the guest ($version) did not end by itself within ${VM_TIMEOUT:-600} s" >&2
	exit 1
fi
exit "$code"
