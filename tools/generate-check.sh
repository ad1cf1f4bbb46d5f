#!/bin/sh
# Fails when "make generate" changed a file that is committed.
set -eu
cd "$(dirname "$0")/.."
changed=$(git status --porcelain -- bpf docs/schema)
[ -z "$changed" ] || {
	echo "generated files are not what their sources make; run 'make generate' and commit:" >&2
	echo "$changed" >&2
	exit 1
}
