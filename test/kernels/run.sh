#!/bin/sh
# Runs the tests of the kernel programs, the attacks on them, and what sets a
# machine's clock, on older kernels, side by side: each in virtual machines under emulation, and in both places
# where cgroup v2 may be mounted. Prints a line for each, and all that a suite
# said in which something failed, but for what passed. What no kernel that is listed in test/bypass leaves open is printed too.
#
# usage: test/kernels/run.sh [SERIES ...]
set -eu

cd "$(dirname "$0")/../.."
work=$(mktemp -d)
guests=
# shellcheck disable=SC2086 # the list is meant to be split
trap 'kill $guests 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 129' HUP INT TERM

CGO_ENABLED=0 go test -c -o "$work/intercept" ./internal/intercept
CGO_ENABLED=0 go test -c -o "$work/bypass" ./test/bypass
CGO_ENABLED=0 go test -c -o "$work/clock" ./internal/clock

[ $# -gt 0 ] || set -- 6.1 6.12

# All suites on one kernel, one after the other; 1 when something failed.
series() {
	failed=0
	for suite in clock intercept bypass; do
		log=$work/$1.$suite
		arguments='-test.v -test.timeout=9m'
		case $suite in
		clock) arguments="$arguments -set-clock" ;;
		bypass) arguments="$arguments -patience 1500" ;; # emulation is slow
		esac
		code=0
		# shellcheck disable=SC2086 # the list is meant to be split
		tools/vm.sh "$1" "$2" "$work/$suite" $arguments >"$log" 2>&1 || code=$?
		passed=$(grep -c '^ *--- PASS' "$log" || true)
		others=$(grep -cE '^ *--- (FAIL|SKIP)' "$log" || true)
		kernel=$(sed -n 's/.*vm: \(Linux .*\)/\1/p' "$log")
		echo "${kernel:-Linux $1, not started}, $suite: $passed passed, $others failed"
		sed -n 's/^.*: \(Linux [^ ]*: [0-9]* attempts, .*\)$/\1/p' "$log"
		if [ "$code" != 0 ] || [ "$passed" = 0 ] || [ "$others" != 0 ]; then
			# What passed would bury what did not.
			grep -vE '^ *--- PASS|^=== (RUN|NAME|PAUSE|CONT)' "$log" || true
			failed=1
		fi
	done
	return $failed
}

# A guest has one processor, so two of them run side by side.
cgroups=/sys/fs/cgroup
for number in "$@"; do
	series "$number" "$cgroups" >"$work/$number.out" &
	guests="$guests $!"
	cgroups=/sys/fs/cgroup/unified
done
failed=0
for guest in $guests; do
	wait "$guest" || failed=1
done
guests=
for number in "$@"; do
	cat "$work/$number.out"
done
exit $failed
