#!/bin/sh
# pgbench on tables that are there: its own scripts over each protocol, in a pipeline,
# and one that is refused.
set -eu
for protocol in simple extended prepared; do
	echo "$protocol"
	pgbench --no-vacuum --client 2 --jobs 2 --transactions 20 --protocol "$protocol" --file "$DIR/work.sql" |
		grep -E 'number of (transactions actually processed|failed)'
done
echo pipeline
pgbench --no-vacuum --transactions 5 --protocol prepared --file "$DIR/pipeline.sql" | grep 'actually processed'
echo refused
# Its complaint quotes the server's words.
if pgbench --no-vacuum --transactions 5 --file "$DIR/refused.sql" >out 2>&1; then
	cat out
fi
grep -c 'aborted' out
psql -XAtc 'SELECT count(*), sum(id) FROM written' -c 'TRUNCATE written'
