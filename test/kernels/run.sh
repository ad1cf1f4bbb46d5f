#!/bin/sh
# Runs the tests of the kernel programs, and the attacks on them, on older kernels,
# one after the other: each in virtual machines under emulation, and in both places
# where cgroup v2 may be mounted. Prints a line for each, and the whole of what
# failed. What no kernel that is listed in test/bypass leaves open is printed too.
#
# usage: test/kernels/run.sh [SERIES ...]
set -eu

cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 129' HUP INT TERM

CGO_ENABLED=0 go test -c -o "$work/intercept" ./internal/intercept
CGO_ENABLED=0 go test -c -o "$work/bypass" ./test/bypass

[ $# -gt 0 ] || set -- 6.1 6.12
failed=0
cgroups=/sys/fs/cgroup
for series in "$@"; do
	for suite in intercept bypass; do
		arguments='-test.v -test.timeout=9m'
		# Emulation is slow: what may never come is waited for longer.
		[ "$suite" = intercept ] || arguments="$arguments -patience 1500"
		code=0
		# shellcheck disable=SC2086 # the list is meant to be split
		tools/vm.sh "$series" "$cgroups" "$work/$suite" $arguments >"$work/log" 2>&1 || code=$?
		passed=$(grep -c '^ *--- PASS' "$work/log" || true)
		others=$(grep -cE '^ *--- (FAIL|SKIP)' "$work/log" || true)
		kernel=$(sed -n 's/.*vm: \(Linux .*\)/\1/p' "$work/log")
		echo "${kernel:-Linux $series, not started}, $suite: $passed passed, $others failed"
		sed -n 's/^.*: \(Linux [^ ]*: [0-9]* attempts, .*\)$/\1/p' "$work/log"
		if [ "$code" != 0 ] || [ "$passed" = 0 ] || [ "$others" != 0 ]; then
			cat "$work/log"
			failed=1
		fi
	done
	cgroups=/sys/fs/cgroup/unified
done
exit $failed
