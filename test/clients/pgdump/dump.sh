#!/bin/sh
# pg_dump in each form of its output, under a policy that lets it read and nothing else.
set -eu
# From 2025's releases on a dump is fenced by a random word.
sum() {
	grep -v -E '^(\\(un)?restrict |-- Dumped )' | sha256sum
}
pg_dump --no-owner --no-privileges | sum
pg_dump --inserts --no-owner --table written --table dear | sum
pg_dump --schema-only --no-owner --no-privileges | sum
pg_dump --format directory --jobs 2 --no-owner --no-privileges --file all
pg_restore --file - all | sum
