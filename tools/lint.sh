#!/bin/sh
# Runs every linter; says all that is wrong before it fails.
# shellcheck disable=SC2317 # the functions are called through check
set -u
cd "$(dirname "$0")/.." || exit 1
failed=0

check() {
	title=$1
	shift
	if output=$("$@" 2>&1); then
		echo "lint: $title: ${output:-ok}"
	else
		echo "lint: $title:"
		echo "$output"
		failed=1
	fi
}

formatted() {
	files=$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l)
	[ -z "$files" ] || {
		echo "not gofmt-clean: $files"
		return 1
	}
}

# The vulnerability database is outside of the module proxy. Where it can't be
# reached that is said, and is no failure; what it finds is.
vulnerabilities() {
	output=$(go tool govulncheck ./... 2>&1)
	status=$?
	case $output in
	*"fetching vulnerabilities"* | *"no such host"* | *"connection refused"* | *"dial tcp"* | *"Forbidden"* | *"i/o timeout"*)
		echo "not run, its database can't be reached from here"
		return 0
		;;
	esac
	[ "$status" -eq 0 ] || echo "$output"
	return "$status"
}

scripts() {
	git ls-files -co --exclude-standard '*.sh' .ci/run | xargs shellcheck
}

bpf() {
	git ls-files -co --exclude-standard 'bpf/*.c' 'bpf/*.h' | xargs clang-format-19 --dry-run -Werror
}

check gofmt formatted
check 'go vet' go vet ./...
check staticcheck go tool staticcheck ./...
check govulncheck vulnerabilities
check shellcheck scripts
check clang-format bpf
exit $failed
