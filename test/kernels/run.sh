#!/bin/sh
# Runs the tests of the kernel programs on older kernels, one after the other:
# each in a virtual machine under emulation, and in both places where cgroup v2
# may be mounted. Prints a line for each, and the whole of what failed.
#
# usage: test/kernels/run.sh [SERIES ...]
set -eu

cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 129' HUP INT TERM

CGO_ENABLED=0 go test -c -o "$work/intercept.test" ./internal/intercept

[ $# -gt 0 ] || set -- 6.1 6.12
failed=0
cgroups=/sys/fs/cgroup
for series in "$@"; do
	code=0
	tools/vm.sh "$series" "$cgroups" "$work/intercept.test" -test.v -test.timeout=8m >"$work/log" 2>&1 || code=$?
	passed=$(grep -c '^--- PASS' "$work/log" || true)
	others=$(grep -cE '^--- (FAIL|SKIP)' "$work/log" || true)
	kernel=$(sed -n 's/.*vm: \(Linux .*\)/\1/p' "$work/log")
	echo "${kernel:-Linux $series, not started}: $passed passed, $others failed"
	if [ "$code" != 0 ] || [ "$passed" = 0 ] || [ "$others" != 0 ]; then
		cat "$work/log"
		failed=1
	fi
	cgroups=/sys/fs/cgroup/unified
done
exit $failed
