-- psql, interrupted as by Ctrl-C: it has the server cancel the query, and ends.
\set VERBOSITY sqlstate
SELECT 'before';
\! (sleep 0.5; kill -INT $PPID) >/dev/null 2>&1 &
SELECT pg_sleep(30);
