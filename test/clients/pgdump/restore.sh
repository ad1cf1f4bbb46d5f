#!/bin/sh
# pg_restore of pg_dump's archives into another database. Role names differ from run
# to run, so owners are left out.
set -eu
for format in custom directory; do
	echo "$format"
	pg_dump --format "$format" --no-owner --no-privileges --file "$format"
	pg_restore --list "$format" | grep -c 'TABLE DATA'
	pg_restore --no-owner --no-privileges --clean --if-exists --dbname "$SCRATCH" "$format"
	psql -XAt -d "$SCRATCH" -c 'SELECT count(*), md5(string_agg(i::text, $$,$$ ORDER BY id)) FROM items i' \
		-c 'SELECT count(*) FROM dear' -c 'SELECT twice(4)' \
		-c 'SELECT count(*), sum(length(lo_get(oid))) FROM pg_largeobject_metadata'
done
