-- Two values for what is in a database: one for objects and their definitions, one for rows.
SELECT concat((SELECT md5(string_agg(x, E'\n' ORDER BY x)) FROM (
  SELECT format('%s %s %s %s %s', c.relname, n.nspname, c.relkind, concat(c.reloptions, c.relrowsecurity),
    (SELECT string_agg(concat(a.attname, a.atttypid::regtype, a.attnotnull, a.attgenerated, a.attisdropped), ',' ORDER BY attnum)
      FROM pg_attribute a WHERE a.attrelid = c.oid AND attnum > 0)) AS x
  FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
  WHERE n.nspname !~ '^pg_|^information_schema$'
  UNION ALL SELECT concat('f', p.oid::regprocedure, md5(prosrc)) FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE n.nspname !~ '^pg_|^information_schema$'
  UNION ALL SELECT 't' || format_type(t.oid, NULL) FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace WHERE n.nspname !~ '^pg_|^information_schema$'
  UNION ALL SELECT concat('c', conname, conrelid::regclass, pg_get_constraintdef(oid)) FROM pg_constraint WHERE conrelid > 16000
  UNION ALL SELECT concat('g', tgname, tgrelid::regclass) FROM pg_trigger WHERE NOT tgisinternal
  UNION ALL SELECT concat('r', rulename, ev_class::regclass, pg_get_ruledef(oid)) FROM pg_rewrite WHERE ev_class > 16000
  UNION ALL SELECT concat('p', polname, polrelid::regclass) FROM pg_policy
  UNION ALL SELECT 'n' || nspname FROM pg_namespace WHERE nspname !~ '^pg_'
  UNION ALL SELECT 'e' || extname FROM pg_extension
  UNION ALL SELECT 's' || stxname FROM pg_statistic_ext
) objects), ' ', (SELECT md5(string_agg(x, E'\n' ORDER BY x)) FROM (
  SELECT concat('l', count(*)) AS x FROM pg_largeobject_metadata
  UNION ALL SELECT concat('counter', last_value) FROM counter
  UNION ALL SELECT r::text FROM people r
  UNION ALL SELECT r::text FROM vault.diary r
  UNION ALL SELECT r::text FROM staff r
  UNION ALL SELECT r::text FROM ledger r
  UNION ALL SELECT r::text FROM people_copy r
  UNION ALL SELECT r::text FROM cities r
  UNION ALL SELECT r::text FROM notes r
) rows));
