#!/bin/busybox sh
# shellcheck shell=dash
# The first process of the guest that tools/vm.sh boots: mounts, modules, the
# program, and off.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ TMPDIR=/tmp
mkdir -p /proc /sys /dev /tmp /run
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
read -r cgroups </cgroups
if [ "$cgroups" != /sys/fs/cgroup ]; then
	mount -t tmpfs cgroup /sys/fs/cgroup
	mkdir -p "$cgroups"
fi
mount -t cgroup2 cgroup2 "$cgroups"
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs trace /sys/kernel/tracing 2>/dev/null
if [ -e /modules/order ]; then
	while read -r module; do
		insmod "/modules/$module" 2>/dev/null || echo "vm: no module $module"
	done </modules/order
fi
ip link set lo up
echo "root:x:0:0:root:/:/bin/sh" >/etc/passwd
printf '127.0.0.1 localhost\n::1 localhost\n' >/etc/hosts
echo "vm: Linux $(uname -r), cgroup v2 at $cgroups"
set --
if [ -e /arguments ]; then
	while read -r argument; do set -- "$@" "$argument"; done </arguments
fi
cd /tmp || exit
# Here nothing is anybody else's: tests may attach programs at the root.
export CHAPERONE_TEST_WHOLE_MACHINE=1
/program "$@"
echo "vm: exit $?"
poweroff -f
