-- Attempts to read masked columns (seed.sql), each with what must come of it.
--
--   covered   it runs, nothing secret is in the answer, and the answer is the same whatever the secrets are
--   refused   SQLSTATE 42501, before anything has told about a secret
--   error X   it fails with SQLSTATE X, and the error tells nothing
--   clean     it has nothing to hide, and returns the rows behind "-->"
--
-- "covered|refused" leaves it to the product which of them. Each is sent as a simple query and by the extended protocol, with results in text and in
-- binary; steps end in ";" at a line's end, "\;" sends the next statement in the same string. "-- $1 = x | y" gives parameters. Data of COPY ends in "\.".
-- In brackets:
--
--   inert    sent to the server directly it tells nothing either: PostgreSQL itself stops it, or it has nothing to tell
--   varies   a mask shows something on purpose (hmac, keepLast), or the order of equal rows does (docs/limitations.md): the answer differs with the secrets
--   bit      one bit per statement, by whether it fails, is a known limit (docs/limitations.md): only searched for secrets

---- Names: aliases, *, qualified and quoted ones

-- covered: a column
SELECT ssn FROM people ORDER BY id;
-- covered: all columns by name
SELECT id, ssn, pin, account, salary, born, token, profile, aliases, photo, code, phone, doc, away, words FROM people ORDER BY id;
-- covered [varies]: the star
SELECT * FROM people ORDER BY id;
-- covered [varies]: the star of an alias
SELECT p.* FROM people p ORDER BY id;
-- covered [varies]: TABLE
TABLE people;
-- covered: an alias
SELECT ssn AS name FROM people ORDER BY id;
-- covered: an alias without AS
SELECT ssn city FROM people ORDER BY id;
-- covered: quoted names
SELECT "people"."ssn" FROM "public"."people" ORDER BY "id";
-- covered: Unicode escapes in names
SELECT U&"\0073sn" FROM U&"people" ORDER BY id;
-- covered: qualified by schema
SELECT public.people.ssn FROM public.people ORDER BY id;
-- covered: qualified by database
SELECT ssn FROM public.people AS x ORDER BY x.id;
-- covered: folded case
SELECT SsN FROM PEOPLE ORDER BY ID;
-- covered: column aliases in FROM
SELECT d FROM people AS x (a, b, c, d) ORDER BY a;
-- covered: columns shifted by aliases
SELECT name FROM people AS x (id, city, filler, name) ORDER BY id;
-- covered: comments in between
SELECT/**/ssn/* , name */FROM--
people ORDER BY id;
-- covered: ONLY
SELECT ssn FROM ONLY people ORDER BY id;
-- covered: the star of inheritance
SELECT ssn FROM people * ORDER BY id;
-- covered: a schema that is all secret
SELECT * FROM vault.diary;
-- covered: search_path
SET search_path = vault, public;
SELECT body FROM diary ORDER BY 1 + 0;
-- covered: set_config for search_path
SELECT set_config('search_path', 'vault', false);
SELECT body FROM diary;
-- covered: SET LOCAL search_path
BEGIN;
SET LOCAL search_path = vault;
SELECT body FROM diary;
COMMIT;
-- covered: system columns beside
SELECT ctid, cmin, ssn FROM people ORDER BY id;
-- covered: by ctid
SELECT ssn FROM people WHERE ctid = '(0,1)';
-- covered: TABLESAMPLE
SELECT ssn FROM people TABLESAMPLE BERNOULLI (100) ORDER BY id;
-- covered: FETCH FIRST
SELECT ssn FROM people ORDER BY id FETCH FIRST 2 ROWS ONLY;
-- covered: OFFSET
SELECT pin FROM people ORDER BY id OFFSET 1 LIMIT 3;
-- covered: FOR UPDATE
SELECT ssn FROM people ORDER BY id FOR UPDATE;
-- covered: FOR SHARE SKIP LOCKED
SELECT p.ssn FROM people p, cities c WHERE c.name = p.city ORDER BY p.id FOR SHARE OF p SKIP LOCKED;
-- covered: two statements in one string
SELECT 1\;
SELECT ssn FROM people ORDER BY id;
-- covered: a statement behind an empty one
\;
SELECT ssn FROM people ORDER BY id;
-- covered: a parameter beside
-- $1 = 1
SELECT ssn, $1::int FROM people WHERE id = $1::int;
-- covered: twice the same column
SELECT ssn, ssn, name, ssn FROM people ORDER BY id;
-- covered: text that looks like the mask
SELECT '[redacted]' || ssn FROM people ORDER BY id;

---- Types, whatever the format

-- covered: int
SELECT pin FROM people ORDER BY id;
-- covered: bigint
SELECT account FROM people ORDER BY id;
-- covered: numeric
SELECT salary FROM people ORDER BY id;
-- covered: date
SELECT born FROM people ORDER BY id;
-- covered: uuid
SELECT token FROM people ORDER BY id;
-- covered: jsonb
SELECT profile FROM people ORDER BY id;
-- covered: text[]
SELECT aliases FROM people ORDER BY id;
-- covered: bytea
SELECT photo FROM people ORDER BY id;
-- covered: bytea in escape format
SET bytea_output = escape;
SELECT photo FROM people ORDER BY id;
-- covered: char(n)
SELECT code FROM people ORDER BY id;
-- covered: a domain
SELECT phone FROM people ORDER BY id;
-- covered [varies]: keepLast
SELECT card FROM people ORDER BY id;
-- covered [varies]: hmac
SELECT email FROM people ORDER BY id;
-- covered: xml
SELECT doc FROM people ORDER BY id;
-- covered: daterange
SELECT away FROM people ORDER BY id;
-- covered: tsvector
SELECT words FROM people ORDER BY id;

---- Casts

-- covered: to text
SELECT pin::text, account::text, salary::varchar, born::text, token::text, profile::text, aliases::text, photo::text, away::text, words::text FROM people ORDER BY id;
-- covered: CAST
SELECT CAST(ssn AS varchar(6)) FROM people ORDER BY id;
-- covered: to name
SELECT ssn::name FROM people ORDER BY id;
-- covered: to bytea
SELECT ssn::bytea FROM people ORDER BY id;
-- covered: to "char"
SELECT ssn::"char" FROM people ORDER BY id;
-- covered: to bit
SELECT pin::bit(32) FROM people ORDER BY id;
-- covered: to float
SELECT pin::float8, account::float4, salary::real FROM people ORDER BY id;
-- covered: to int8
SELECT pin::int8 FROM people ORDER BY id;
-- covered: to oid
SELECT pin::oid FROM people ORDER BY id;
-- covered: to money
SELECT (salary / 1000000)::money FROM people ORDER BY id;
-- covered: to timestamp
SELECT born::timestamp, born::timestamptz FROM people ORDER BY id;
-- covered: to json and back
SELECT (to_json(ssn) #>> '{}')::text FROM people ORDER BY id;
-- covered: to an array
SELECT ('{' || ssn || '}')::text[] FROM people ORDER BY id;
-- covered: to xml
SELECT ('<a>' || ssn || '</a>')::xml FROM people ORDER BY id;
-- covered: to tsquery
SELECT ssn::tsquery FROM people ORDER BY id;
-- covered: to a domain
SELECT (phone::text)::phone_number FROM people ORDER BY id;
-- covered: date to number
SELECT born - '1800-01-01'::date FROM people ORDER BY id;
-- covered: function notation of a cast
SELECT text(pin), int8(pin), float8(pin) FROM people ORDER BY id;
-- covered: COLLATE
SELECT ssn COLLATE "C" FROM people ORDER BY id;

---- Casts that fail, and other errors that print values

-- error 22P02|refused: text to int
SELECT ssn::int FROM people WHERE id = 1;
-- error 22P02|refused: text to int, by function
SELECT int4(ssn) FROM people WHERE id = 1;
-- covered|error 22P02|refused [bit]: to_number
SELECT to_number(ssn, '999')::int FROM people WHERE id = 1;
-- error 22P02|refused: text to uuid
SELECT ssn::uuid FROM people WHERE id = 1;
-- error 22007|error 22P02|refused: text to date
SELECT ssn::date FROM people WHERE id = 1;
-- error 22P02|refused: text to bool
SELECT ssn::boolean FROM people WHERE id = 1;
-- error 22P02|refused: text to json
SELECT ssn::json FROM people WHERE id = 1;
-- error 22P02|refused: text to jsonb
SELECT ('{"a": ' || ssn)::jsonb FROM people WHERE id = 1;
-- error 22P02|refused: text to inet
SELECT ssn::inet FROM people WHERE id = 1;
-- error 22P02|refused: text to point
SELECT ssn::point FROM people WHERE id = 1;
-- error 22P02|refused: text to macaddr
SELECT ssn::macaddr FROM people WHERE id = 1;
-- error 22P02|refused: text to an enum
SELECT ssn::mood FROM people WHERE id = 1;
-- error 22P02|refused: text to an array
SELECT ssn::text[] FROM people WHERE id = 1;
-- error 22P02|refused: text to a range
SELECT ssn::int4range FROM people WHERE id = 1;
-- error 22P02|refused: text to a composite
SELECT ssn::pair FROM people WHERE id = 1;
-- error 2200N|error 22P02|refused: text to xml
SELECT ('<' || ssn)::xml FROM people WHERE id = 1;
-- error 42P01|error 42602|refused: text to regclass
SELECT ssn::regclass FROM people WHERE id = 1;
-- error 42704|error 42602|error 42601|refused: text to regtype
SELECT ssn::regtype FROM people WHERE id = 1;
-- error 42883|error 42602|refused: text to regproc
SELECT ssn::regproc FROM people WHERE id = 1;
-- error 42704|refused: text to regrole
SELECT quote_ident(ssn)::regrole FROM people WHERE id = 1;
-- error 42704|refused: text to regconfig
SELECT to_tsvector(quote_ident(ssn)::regconfig, 'a') FROM people WHERE id = 1;
-- error 3F000|refused: text to regnamespace
SELECT quote_ident(ssn)::regnamespace FROM people WHERE id = 1;
-- error 23514|refused [inert]: text to a domain
SELECT ssn::phone_number FROM people WHERE id = 1;
-- error 22003|refused [inert]: number out of range
SELECT account::int FROM people WHERE id = 1;
-- error 22003|refused: smallint out of range
SELECT pin::text::int2 FROM people WHERE id = 1;
-- error 22003|refused [inert]: overflow
SELECT account * 1000 FROM people WHERE id = 1;
-- error 22012|refused [inert]: division by zero
SELECT pin / 0 FROM people WHERE id = 1;
-- error 22012|covered|refused [bit]: division by zero that depends
SELECT 1 / (CASE WHEN ssn < 'S' THEN 0 ELSE 1 END) FROM people WHERE id = 1;
-- error 22P02|covered|refused [bit]: a cast that depends
SELECT (CASE WHEN pin > 1500000000 THEN 'x' ELSE '1' END)::int FROM people WHERE id = 1;
-- error 22021|refused: not UTF-8
SELECT convert_from(decode('e2', 'hex') || photo, 'UTF8') FROM people WHERE id = 1;
-- error 22023|refused: hex digits
SELECT decode(ssn, 'hex') FROM people WHERE id = 1;
-- error 22023|refused: a name of an encoding
SELECT convert_to('a', ssn) FROM people WHERE id = 1;
-- error 22023|refused: a name of a format
SELECT encode('a', ssn) FROM people WHERE id = 1;
-- error 22023|refused: a time zone
SELECT now() AT TIME ZONE ssn FROM people WHERE id = 1;
-- error 22023|error 0A000|refused: a field of extract
SELECT date_part(ssn, now()) FROM people WHERE id = 1;
-- error 22023|refused: a unit of date_trunc
SELECT date_trunc(ssn, now()) FROM people WHERE id = 1;
-- error 2201B|refused [inert]: a regular expression
SELECT 'a' ~ ('[' || ssn) FROM people WHERE id = 1;
-- error 22023|refused: flags of a regular expression
SELECT regexp_replace('a', 'a', 'b', ssn) FROM people WHERE id = 1;
-- error 22023|covered|refused [bit]: format()
SELECT format('%' || ssn, 1) FROM people WHERE id = 1;
-- error 42704|refused: current_setting
SELECT current_setting(ssn) FROM people WHERE id = 1;
-- error 42704|error 42602|error 42501|refused: set_config of a computed name
SELECT set_config(ssn, 'a', false) FROM people WHERE id = 1;
-- error 42P01|error 42602|refused: nextval of a computed name
SELECT nextval(quote_ident(ssn)) FROM people WHERE id = 1;
-- error 42704|refused: a role that is none
SELECT has_table_privilege(ssn, 'people', 'select') FROM people WHERE id = 1;
-- error 42P01|refused: a table that is none
SELECT has_table_privilege(quote_ident(ssn), 'select') FROM people WHERE id = 1;
-- error 22023|refused: a privilege that is none
SELECT has_table_privilege('people', ssn) FROM people WHERE id = 1;
-- error 58P01|error 42501|refused: a file's name
SELECT pg_read_file(ssn) FROM people WHERE id = 1;
-- error 58P01|error 42501|refused: a folder's name
SELECT pg_ls_dir('/' || ssn) FROM people WHERE id = 1;
-- error 22004|refused [inert]: json_object
SELECT json_object(ARRAY[ssn, NULL], ARRAY['a', 'b']) FROM people WHERE id = 1;
-- error 22023|error 22P02|refused: json_populate_record
SELECT json_populate_record(NULL::pair, json_build_object('a', ssn)) FROM people WHERE id = 1;
-- error 42601|refused [inert]: jsonb path
SELECT jsonb_path_query('{}', ('$.a ' || ssn)::jsonpath) FROM people WHERE id = 1;
-- error 21000|refused [inert]: a sub-query of several rows
SELECT (SELECT ssn FROM people);
-- error 22P02|refused: in a filter
SELECT id FROM people WHERE ssn::int = 1;
-- error 22P02|refused: in ORDER BY
SELECT id FROM people ORDER BY ssn::int;
-- error 22P02|refused: in a join
SELECT c.name FROM cities c JOIN people p ON p.ssn::int = c.people;
-- error 22P02|refused: in LIMIT
SELECT 1 LIMIT (SELECT ssn::int FROM people WHERE id = 1);
-- error 22P02|refused: in a later step of a transaction
BEGIN;
SELECT ssn::int FROM people WHERE id = 1;
-- error 22P02|refused: behind a savepoint
BEGIN;
SAVEPOINT s;
SELECT ssn::int FROM people WHERE id = 1;
ROLLBACK TO s;
-- error 22P02|refused: an error of a view's column
SELECT number::int FROM people_view WHERE id = 1;
-- error 22P02|refused: with its context, at any verbosity
SET client_min_messages = debug5;
SELECT ssn::int FROM people WHERE id = 1;
-- error 22P02|refused [inert]: with the server's own trees
SET client_min_messages = log;
SET debug_print_plan = on;
SELECT ssn::int FROM people WHERE id = 1;

---- Strings

-- covered: concatenation
SELECT ssn || '', '<' || ssn || '>' FROM people ORDER BY id;
-- covered: concat
SELECT concat(ssn, pin, born), concat_ws('-', ssn, account) FROM people ORDER BY id;
-- covered: a character each
SELECT substr(ssn, i, 1) FROM people, generate_series(1, 14) i WHERE id = 1 ORDER BY i;
-- covered: substring FROM FOR
SELECT substring(ssn FROM 3 FOR 6) FROM people ORDER BY id;
-- covered: substring by a pattern
SELECT substring(ssn FROM '^(.......)') FROM people ORDER BY id;
-- covered: substring SIMILAR
SELECT substring(ssn SIMILAR '#"%#"' ESCAPE '#') FROM people ORDER BY id;
-- covered: left and right
SELECT left(ssn, 7), right(ssn, 7) FROM people ORDER BY id;
-- covered: upper and lower
SELECT upper(ssn), lower(ssn), initcap(ssn) FROM people ORDER BY id;
-- covered: reverse
SELECT reverse(ssn) FROM people ORDER BY id;
-- covered: trim
SELECT trim(ssn), btrim(ssn, 'x'), ltrim(ssn), rtrim(ssn) FROM people ORDER BY id;
-- covered: padding
SELECT lpad(ssn, 20, '.'), rpad(ssn, 20, '.') FROM people ORDER BY id;
-- covered: repeat
SELECT repeat(ssn, 2) FROM people ORDER BY id;
-- covered: replace and translate
SELECT replace(ssn, 'a', 'a'), translate(ssn, '', '') FROM people ORDER BY id;
-- covered: overlay
SELECT overlay(ssn PLACING 'xx' FROM 2 FOR 2) FROM people ORDER BY id;
-- covered: split_part
SELECT split_part(ssn, '~', 1) FROM people ORDER BY id;
-- covered: format
SELECT format('%s %I %L', ssn, ssn, ssn) FROM people ORDER BY id;
-- covered: format VARIADIC
SELECT format('%s/%s', VARIADIC ARRAY[ssn, pin::text]) FROM people ORDER BY id;
-- covered: quoting
SELECT quote_literal(ssn), quote_ident(ssn), quote_nullable(ssn), quote_literal(pin) FROM people ORDER BY id;
-- covered [inert]: length
SELECT length(ssn), char_length(pin::text), octet_length(ssn), bit_length(code) FROM people ORDER BY id;
-- covered: position and strpos
SELECT position('a' IN ssn), strpos(ssn, 'b') FROM people ORDER BY id;
-- covered [inert]: starts_with
SELECT starts_with(ssn, 'Z'), ssn ^@ 'K' FROM people ORDER BY id;
-- covered: normalize
SELECT normalize(ssn), ssn IS NORMALIZED FROM people ORDER BY id;
-- covered: ascii and chr
SELECT ascii(ssn), chr(ascii(ssn)), ascii(substr(ssn, 2)) FROM people ORDER BY id;
-- covered: a code each
SELECT ascii(substr(ssn, i, 1)) FROM people, generate_series(1, 14) i WHERE id = 1 ORDER BY i;
-- covered: get_byte and set_byte
SELECT get_byte(photo, 0), get_bit(photo, 3), set_byte(photo, 0, 65) FROM people ORDER BY id;
-- covered: a byte each
SELECT get_byte(photo, i) FROM people, generate_series(0, 11) i WHERE id = 1 ORDER BY i;
-- covered: encode
SELECT encode(photo, 'hex'), encode(photo, 'base64'), encode(photo, 'escape') FROM people ORDER BY id;
-- covered: encode of text
SELECT encode(convert_to(ssn, 'UTF8'), 'base64'), encode(ssn::bytea, 'hex') FROM people ORDER BY id;
-- covered: convert
SELECT convert(photo, 'UTF8', 'LATIN1'), convert_from(photo, 'UTF8'), convert_to(ssn, 'LATIN1') FROM people ORDER BY id;
-- covered: hashes
SELECT md5(ssn), sha256(ssn::bytea), hashtext(ssn), encode(sha512(photo), 'hex') FROM people ORDER BY id;
-- covered: to_hex
SELECT to_hex(pin), to_hex(account) FROM people ORDER BY id;
-- covered: to_char
SELECT to_char(pin, '9999999999'), to_char(salary, 'FM999999999.9999'), to_char(born, 'YYYY-MM-DD'), to_char(born, 'J') FROM people ORDER BY id;
-- covered: to_number
SELECT to_number(pin::text, '9999999999') FROM people ORDER BY id;
-- covered: to_date and to_timestamp
SELECT to_date(born::text, 'YYYY-MM-DD'), to_timestamp(pin) FROM people ORDER BY id;
-- covered: string_to_array
SELECT string_to_array(ssn, NULL) FROM people ORDER BY id;
-- covered: how many pieces
SELECT string_to_array(ssn, 'a'), regexp_split_to_array(ssn, '[0-9]'), array_fill('x'::text, ARRAY[ascii(ssn) % 5]) FROM people ORDER BY id;
-- covered|refused: string_to_table
SELECT string_to_table(ssn, NULL) FROM people WHERE id = 1;
-- covered|refused: string_to_table in FROM
SELECT t FROM people, string_to_table(ssn, NULL) t WHERE id = 1;
-- covered: unistr
SELECT unistr(ssn) FROM people ORDER BY id;
-- covered: parse_ident
SELECT parse_ident(quote_ident(ssn)) FROM people ORDER BY id;
-- covered: levels of escaping
SELECT E'\x41' || ssn, $q$a$q$ || ssn, U&'\0041' || ssn FROM people ORDER BY id;
-- covered: pg_typeof beside
SELECT pg_typeof(ssn), ssn FROM people ORDER BY id;
-- covered [inert]: pg_column_size
SELECT pg_column_size(ssn), pg_column_size(salary) FROM people ORDER BY id;

---- Regular expressions and patterns

-- covered: regexp_replace
SELECT regexp_replace(ssn, '(.)', '\1.', 'g') FROM people ORDER BY id;
-- covered: regexp_match
SELECT regexp_match(ssn, '(...)(...)') FROM people ORDER BY id;
-- covered|refused: regexp_matches
SELECT regexp_matches(ssn, '.', 'g') FROM people WHERE id = 1;
-- covered|refused: regexp_matches in FROM
SELECT m FROM people, LATERAL regexp_matches(ssn, '.', 'g') m WHERE id = 1;
-- covered: regexp_split_to_array
SELECT regexp_split_to_array(ssn, '') FROM people ORDER BY id;
-- covered|refused: regexp_split_to_table
SELECT c FROM people, regexp_split_to_table(ssn, '') c WHERE id = 1;
-- covered: regexp_substr and its kin
SELECT regexp_substr(ssn, '.{6}'), regexp_instr(ssn, '[0-9]'), regexp_count(ssn, '[a-m]'), regexp_like(ssn, '^[A-M]') FROM people ORDER BY id;
-- covered: matching in the list
SELECT ssn LIKE 'A%', ssn ILIKE '%z%', ssn ~ '^[a-m]', ssn SIMILAR TO '[a-m]%', ssn !~* 'q' FROM people ORDER BY id;
-- covered: similar_escape
SELECT similar_to_escape(ssn, '#') FROM people ORDER BY id;

---- Numbers and dates

-- covered: arithmetic
SELECT pin + 0, pin - 1, -pin, account * 1, salary / 1, pin % 1000000000, @ pin, pin # 0, pin | 0, ~ pin, pin << 1 FROM people ORDER BY id;
-- covered: digits one by one
SELECT (pin / (10 ^ i)::int) % 10 FROM people, generate_series(0, 9) i WHERE id = 1 ORDER BY i;
-- covered: functions of numbers
SELECT abs(pin), sqrt(pin), ln(pin), round(salary, 1), trunc(salary), ceil(salary), mod(account, 1000000000000), div(account, 10), scale(salary), gcd(account, 0) FROM people ORDER BY id;
-- covered: width_bucket
SELECT width_bucket(pin, 0, 2000000000, 10) FROM people ORDER BY id;
-- covered: extract
SELECT extract(year FROM born), extract(epoch FROM born), date_part('doy', born), extract(julian FROM born) FROM people ORDER BY id;
-- covered: dates moved
SELECT born + 1, born + interval '1 day', age(born, '1800-01-01'), date_trunc('month', born), born::timestamp AT TIME ZONE 'UTC' FROM people ORDER BY id;
-- covered: make_interval and make_date
SELECT make_date(extract(year FROM born)::int, 1, 1), make_interval(secs => pin) FROM people ORDER BY id;
-- covered: OVERLAPS
SELECT (born, born) OVERLAPS ('1800-01-01'::date, '1850-01-01'::date) FROM people ORDER BY id;
-- covered: comparisons in the list
SELECT pin > 1500000000, born < '1850-01-01', ssn < 'M', salary BETWEEN 0 AND 500000000, token < '80000000-0000-0000-0000-000000000000' FROM people ORDER BY id;
-- covered: IS DISTINCT FROM
SELECT ssn IS DISTINCT FROM 'a', nullif(ssn, 'a'), ssn = ANY ('{a,b}'), ssn IN ('x') FROM people ORDER BY id;
-- covered: CASE
SELECT CASE WHEN pin > 1500000000 THEN 'high' ELSE 'low' END FROM people ORDER BY id;
-- covered: CASE of a value
SELECT CASE substr(ssn, 1, 1) WHEN 'A' THEN 1 WHEN 'B' THEN 2 ELSE ascii(ssn) END FROM people ORDER BY id;
-- covered: CASE without ELSE
SELECT CASE WHEN ssn > 'M' THEN 'x' END FROM people ORDER BY id;
-- covered: CASE into types that can't hold a replacement
SELECT CASE WHEN ssn > 'M' THEN 1 END, CASE WHEN pin > 1500000000 THEN true END FROM people ORDER BY id;
-- covered: NULL or not
SELECT nullif(substr(ssn, 1, 1) > 'M', true), nullif(ascii(ssn) % 2, 0), substring(ssn FROM '^[A-M]') FROM people ORDER BY id;
-- covered: COALESCE, GREATEST, LEAST
SELECT coalesce(ssn, 'none'), greatest(ssn, 'A'), least(ssn, 'z'), coalesce(NULL, pin), greatest(pin, 0) FROM people ORDER BY id;
-- covered: boolean operators
SELECT ssn > 'M' AND pin > 0, NOT (ssn > 'M'), (ssn > 'M') IS TRUE FROM people ORDER BY id;
-- covered: row comparison
SELECT ROW(ssn, pin) < ROW('M', 0), (ssn, 1) = ('a', 1) FROM people ORDER BY id;
-- covered [inert]: num_nulls and IS NULL
SELECT num_nulls(ssn, pin), ssn IS NULL FROM people ORDER BY id;
-- covered: uuid's parts
SELECT split_part(token::text, '-', 1), uuid_send(token) FROM people ORDER BY id;
-- covered: send functions
SELECT textsend(ssn), int4send(pin), int8send(account), numeric_send(salary), date_send(born), jsonb_send(profile), bpcharsend(code) FROM people ORDER BY id;
-- covered: out functions
SELECT textout(ssn), int4out(pin), date_out(born), uuid_out(token) FROM people ORDER BY id;

---- Arrays

-- covered: an array of it
SELECT ARRAY[ssn, name] FROM people ORDER BY id;
-- covered: an array of a query
SELECT ARRAY(SELECT ssn FROM people);
-- covered: an element
SELECT aliases[1], aliases[2] FROM people ORDER BY id;
-- covered: a slice
SELECT aliases[1:1], aliases[:] FROM people ORDER BY id;
-- covered: array functions
SELECT array_to_string(aliases, ','), array_append(aliases, 'x'), array_length(aliases, 1), cardinality(aliases), array_position(aliases, 'x'), array_upper(aliases, 1) FROM people ORDER BY id;
-- covered|refused: unnest in the list
SELECT unnest(aliases) FROM people WHERE id = 1;
-- covered|refused: unnest in FROM
SELECT a FROM people, unnest(aliases) a WHERE id = 1;
-- covered|refused: unnest WITH ORDINALITY
SELECT a, n FROM people CROSS JOIN LATERAL unnest(aliases) WITH ORDINALITY AS u (a, n) WHERE id = 1;
-- covered|refused: unnest of an array of it
SELECT u FROM people, unnest(ARRAY[ssn, 'x']) u WHERE id = 1;
-- covered|refused: ROWS FROM
SELECT a, b FROM people, ROWS FROM (unnest(aliases), unnest(ARRAY[ssn])) AS t (a, b) WHERE id = 1;
-- covered|refused: generate_subscripts
SELECT aliases[i] FROM people, generate_subscripts(aliases, 1) i WHERE id = 1;
-- covered: array operators
SELECT aliases || 'x'::text, aliases @> '{a}', aliases && '{b}', 'c' = ANY (aliases) FROM people ORDER BY id;
-- covered: subscripts from it
SELECT ('{a,b,c,d,e,f,g,h,i,j}'::text[])[pin % 10 + 1] FROM people ORDER BY id;
-- covered: FOREACH by a series
SELECT ('[0:1]={1,2}'::int[])[(pin > 1500000000)::int] FROM people ORDER BY id;
-- covered: array_fill
SELECT array_fill(ssn, ARRAY[2]) FROM people ORDER BY id;

---- Rows and composites

-- covered: a whole row
SELECT p FROM people p ORDER BY id;
-- covered: a whole row as text
SELECT p::text FROM people p ORDER BY p.id;
-- covered: a whole row of a table's name
SELECT people FROM people ORDER BY id;
-- covered: ROW()
SELECT ROW(ssn, pin) FROM people ORDER BY id;
-- covered: ROW of the star
SELECT ROW(p.*) FROM people p ORDER BY id;
-- covered: a field of a row
SELECT (p).ssn FROM people p ORDER BY id;
-- covered|refused [varies]: the star of a row
SELECT (p).* FROM people p ORDER BY id;
-- covered|refused: function notation of a column
SELECT ssn(p) FROM people p ORDER BY id;
-- covered: a composite made of it
SELECT (ROW(pin, ssn)::pair).b FROM people ORDER BY id;
-- covered: a row in a row
SELECT (x.r).b FROM (SELECT ROW(pin, ssn)::pair AS r FROM people) x;
-- covered|refused: a whole row through a sub-query
SELECT (x.p).ssn FROM (SELECT p FROM people p) x;
-- covered: record_out
SELECT record_out(p) FROM people p ORDER BY id;
-- covered: a hash of a row
SELECT hash_record(ROW(ssn, pin)), record_send(p) FROM people p ORDER BY p.id;
-- covered: a row in an array
SELECT ARRAY[p] FROM people p ORDER BY id;
-- covered: rows compared
SELECT ROW(a.ssn, a.pin) < ROW(b.ssn, b.pin) FROM people a, people b ORDER BY a.id, b.id;
-- covered: a whole row of a join
SELECT j FROM (people p JOIN cities c ON c.name = p.city) j;
-- covered: a whole row of a view
SELECT v FROM people_view v;
-- covered: concat of a row
SELECT concat(p), format('%s', p), quote_literal(p) FROM people p ORDER BY id;

---- JSON

-- covered: row_to_json
SELECT row_to_json(p) FROM people p ORDER BY id;
-- covered: to_jsonb
SELECT to_jsonb(p), to_json(ssn), to_jsonb(pin) FROM people p ORDER BY id;
-- covered: to_jsonb of a row without a key
SELECT to_jsonb(p) - 'ssn' FROM people p ORDER BY id;
-- covered: a field of a row's JSON
SELECT to_jsonb(p) ->> 'ssn', to_jsonb(p) #>> '{profile,plate}' FROM people p ORDER BY id;
-- covered: json_build_object
SELECT json_build_object('a', ssn), jsonb_build_object(ssn, 1), json_build_array(pin, born) FROM people ORDER BY id;
-- covered: json_object of arrays
SELECT json_object(ARRAY['k'], ARRAY[ssn]), jsonb_object(ARRAY['k', ssn]) FROM people ORDER BY id;
-- covered: array_to_json
SELECT array_to_json(aliases), array_to_json(ARRAY[ssn]) FROM people ORDER BY id;
-- covered: json_agg
SELECT json_agg(ssn), jsonb_agg(p), json_object_agg(id, pin), jsonb_object_agg(ssn, 1) FROM people p;
-- covered: fields
SELECT profile -> 'plate', profile ->> 'plate', profile #> '{plate}', profile #>> '{plate}', profile['plate'] FROM people ORDER BY id;
-- covered: a number in it
SELECT (profile ->> 'points')::int, (profile -> 'points')::numeric FROM people ORDER BY id;
-- covered|refused: jsonb_each
SELECT k, v FROM people, jsonb_each(profile) AS e (k, v) WHERE id = 1;
-- covered|refused: jsonb_each_text in the list
SELECT jsonb_each_text(profile) FROM people WHERE id = 1;
-- covered|refused: jsonb_object_keys
SELECT jsonb_object_keys(jsonb_build_object(ssn, 1)) FROM people WHERE id = 1;
-- covered|refused: jsonb_array_elements
SELECT e FROM people, jsonb_array_elements_text(to_jsonb(aliases)) e WHERE id = 1;
-- covered|refused: jsonb_to_record
SELECT r.plate FROM people, jsonb_to_record(profile) AS r (plate text, points int) WHERE id = 1;
-- covered|refused: jsonb_to_recordset
SELECT r.plate FROM people, jsonb_to_recordset(jsonb_build_array(profile)) AS r (plate text) WHERE id = 1;
-- covered|refused: jsonb_populate_record
SELECT (jsonb_populate_record(NULL::pair, jsonb_build_object('b', ssn))).b FROM people ORDER BY id;
-- covered|refused: jsonb_populate_record in FROM
SELECT r.b FROM people, jsonb_populate_record(NULL::pair, jsonb_build_object('b', ssn)) r WHERE id = 1;
-- covered|refused: jsonb_path_query
SELECT jsonb_path_query(profile, '$.plate') FROM people WHERE id = 1;
-- covered: jsonb_path_query_array, exists, match
SELECT jsonb_path_query_array(profile, '$.*'), jsonb_path_exists(profile, '$.points ? (@ > 1500000000)'), profile @? '$.points ? (@ > 1500000000)', profile @@ '$.points > 1500000000' FROM people ORDER BY id;
-- covered: the variables of a path
SELECT jsonb_path_query_array('[1]', '$v', jsonb_build_object('v', ssn)) FROM people ORDER BY id;
-- covered: operators of jsonb
SELECT profile || '{"a": 1}', profile - 'points', profile #- '{points}', profile ? 'plate', profile @> '{"points": 1}' FROM people ORDER BY id;
-- covered: jsonb functions
SELECT jsonb_set(profile, '{a}', '1'), jsonb_insert(profile, '{a}', '1'), jsonb_strip_nulls(profile), jsonb_pretty(profile), jsonb_typeof(profile), jsonb_extract_path_text(profile, 'plate') FROM people ORDER BY id;

---- XML

-- covered: xmlelement and xmlforest
SELECT xmlelement(name a, ssn), xmlforest(ssn AS b, pin), xmlelement(name c, xmlattributes(ssn AS d)) FROM people ORDER BY id;
-- covered: xmlconcat, xmlcomment, xmlpi
SELECT xmlconcat(doc, doc), xmlcomment(ssn), xmlpi(name a, ssn) FROM people ORDER BY id;
-- covered: xmlagg
SELECT xmlagg(xmlelement(name a, ssn)) FROM people;
-- covered: xmlserialize and xmlparse
SELECT xmlserialize(CONTENT doc AS text), xmlparse(CONTENT ssn) FROM people ORDER BY id;
-- covered: xpath
SELECT xpath('/file/no/text()', doc), xpath_exists('//no', doc) FROM people ORDER BY id;
-- covered|refused: XMLTABLE
SELECT t.no FROM people, XMLTABLE('/file' PASSING doc COLUMNS no text PATH 'no') t WHERE id = 1;
-- refused: query_to_xml
SELECT query_to_xml('SELECT ssn FROM people', true, false, '');
-- refused: table_to_xml
SELECT table_to_xml('people', true, false, '');
-- refused: schema_to_xml
SELECT schema_to_xml('vault', true, false, '');
-- refused: database_to_xml
SELECT database_to_xml(true, false, '');
-- refused: query_to_xml_and_xmlschema
SELECT query_to_xml_and_xmlschema('TABLE vault.diary', true, false, '');
-- refused: table_to_xml_and_xmlschema
SELECT pg_catalog.table_to_xml_and_xmlschema('public.people'::regclass, true, false, '');
-- refused: cursor_to_xml
BEGIN;
DECLARE c CURSOR FOR SELECT ssn FROM people;
SELECT cursor_to_xml('c', 5, true, false, '');
-- refused: query_to_xml of a computed text
SELECT query_to_xml('SELECT s' || 'sn FROM people', true, false, '');
-- refused: ts_stat
SELECT word FROM ts_stat('SELECT words FROM people');
-- refused: ts_rewrite with a query
SELECT ts_rewrite('a'::tsquery, 'SELECT ''a''::tsquery, ssn::tsquery FROM people WHERE id = 1');

---- Full text search

-- covered: to_tsvector
SELECT to_tsvector('simple', ssn), to_tsquery('simple', ssn), plainto_tsquery('simple', ssn) FROM people ORDER BY id;
-- covered: ts_headline
SELECT ts_headline('simple', ssn, to_tsquery('simple', 'a')), ts_headline('english', 'x ' || ssn, 'x'::tsquery) FROM people ORDER BY id;
-- covered: ts_rank and matching
SELECT ts_rank(words, 'a'::tsquery), words @@ 'a'::tsquery, strip(words), length(words), setweight(words, 'A') FROM people ORDER BY id;
-- covered: tsvector_to_array
SELECT tsvector_to_array(words), array_to_tsvector(ARRAY[ssn]), numnode(ssn::tsquery) FROM people ORDER BY id;
-- covered|refused: unnest of tsvector
SELECT u.lexeme FROM people, unnest(words) u WHERE id = 1;
-- covered|refused: ts_debug
SELECT d.token FROM people, ts_debug('simple', ssn) d WHERE id = 1;
-- covered|refused: ts_parse
SELECT t.token FROM people, ts_parse('default', ssn) t WHERE id = 1;
-- covered: ts_lexize
SELECT ts_lexize('simple', ssn) FROM people ORDER BY id;

---- Ranges

-- covered: bounds of a range
SELECT lower(away), upper(away), isempty(away), away @> '1850-01-01'::date FROM people ORDER BY id;
-- covered: a range of it
SELECT int4range(1, pin), daterange(born, NULL), numrange(salary, NULL), int4range(pin, pin, '[]') * int4range(1, 2000000000) FROM people ORDER BY id;
-- covered: range_agg
SELECT range_agg(away), range_intersect_agg(away) FROM people;
-- covered: multiranges
SELECT multirange(away), range_merge(away, away), datemultirange(away) FROM people ORDER BY id;
-- covered|refused: unnest of a multirange
SELECT unnest(multirange(away)) FROM people WHERE id = 1;

---- Functions that return rows

-- covered|refused: generate_series up to it
SELECT count(*) FROM people, generate_series(1, ascii(ssn)) WHERE people.id = 1;
-- covered|refused: generate_series in the list
SELECT generate_series(pin, pin + 1) FROM people WHERE id = 1;
-- covered|refused: LIMIT by it
SELECT i FROM generate_series(1, 100) i LIMIT (SELECT ascii(ssn) FROM people WHERE id = 1);
-- covered|refused: OFFSET by it
SELECT i FROM generate_series(1, 200) i OFFSET (SELECT ascii(ssn) FROM people WHERE id = 1);
-- covered|refused: FETCH WITH TIES by it
SELECT i FROM generate_series(1, 200) i ORDER BY i FETCH FIRST (SELECT ascii(ssn) FROM people WHERE id = 1) ROWS WITH TIES;
-- covered|refused [inert]: TABLESAMPLE by it
SELECT i.name FROM cities i TABLESAMPLE SYSTEM (pi() + 0) REPEATABLE ((SELECT pin FROM people WHERE id = 1));
-- covered|refused: random seeded by it
SELECT setseed((pin % 1000) / 1000.0), random() FROM people WHERE id = 1;

---- Aggregates

-- covered: min and max
SELECT min(ssn), max(ssn), min(pin), max(born), min(account), max(salary), min(code) FROM people;
-- covered: sums
SELECT sum(pin), avg(pin), sum(account), avg(salary), stddev(pin), var_pop(salary), corr(pin, id), regr_slope(pin, id) FROM people;
-- covered: string_agg
SELECT string_agg(ssn, ','), string_agg(photo, ''), string_agg(name, ssn) FROM people;
-- covered: string_agg ordered by a clear column
SELECT string_agg(ssn, ',' ORDER BY id) FROM people;
-- covered|refused: an aggregate ordered by it
SELECT string_agg(name, ',' ORDER BY ssn) FROM people;
-- covered|refused: an aggregate filtered by it
SELECT count(*) FILTER (WHERE ssn > 'M') FROM people;
-- covered: array_agg
SELECT array_agg(ssn), array_agg(DISTINCT pin), array_agg(aliases) FROM people;
-- covered: booleans and bits
SELECT bool_and(ssn > 'M'), bool_or(pin > 1500000000), every(born > '1850-01-01'), bit_or(pin), bit_xor(pin), bit_and(pin) FROM people;
-- covered|refused: counts of conditions
SELECT count(CASE WHEN ssn > 'M' THEN 1 END), sum((ssn > 'M')::int) FROM people;
-- covered|refused: ordered sets
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY pin), percentile_cont(0.5) WITHIN GROUP (ORDER BY pin), mode() WITHIN GROUP (ORDER BY ssn) FROM people;
-- covered|refused: hypothetical sets
SELECT rank(1500000000) WITHIN GROUP (ORDER BY pin) FROM people;
-- covered|refused: count distinct of a part
SELECT sum(DISTINCT ascii(ssn)) FROM people;
-- covered|refused: GROUP BY an expression of it
SELECT substr(ssn, 1, 1), count(*) FROM people GROUP BY 1 ORDER BY 2;
-- covered|refused: GROUP BY CASE
SELECT count(*) FROM people GROUP BY ssn > 'M' ORDER BY 1;
-- covered|refused: GROUP BY it
SELECT ssn, count(*) FROM people GROUP BY ssn;
-- covered|refused: HAVING
SELECT city FROM people GROUP BY city HAVING max(ssn) > 'T' ORDER BY 1;
-- covered|refused: GROUPING SETS
SELECT ssn, city, count(*), grouping(ssn) FROM people GROUP BY GROUPING SETS ((ssn), (city)) ORDER BY 3, 2;
-- covered|refused: CUBE and ROLLUP
SELECT city, max(ssn) FROM people GROUP BY ROLLUP (city) ORDER BY 1;
-- refused: a user's aggregate
SELECT gather(ssn) FROM people;

---- Window functions

-- covered: lag and lead
SELECT lag(ssn) OVER (ORDER BY id), lead(pin, 1, 0) OVER (ORDER BY id) FROM people;
-- covered: first_value and its kin
SELECT first_value(ssn) OVER w, last_value(ssn) OVER w, nth_value(pin, 2) OVER w FROM people WINDOW w AS (ORDER BY id);
-- covered: an aggregate over a window
SELECT max(ssn) OVER (PARTITION BY city ORDER BY id), sum(pin) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM people;
-- covered|refused: rank by it
SELECT id, rank() OVER (ORDER BY ssn) FROM people ORDER BY id;
-- covered|refused: row_number by it
SELECT id, row_number() OVER (ORDER BY pin) FROM people ORDER BY id;
-- covered|refused: ntile and percent_rank by it
SELECT id, ntile(2) OVER (ORDER BY born), percent_rank() OVER (ORDER BY account), cume_dist() OVER (ORDER BY token) FROM people ORDER BY id;
-- covered|refused: a clear value by its order
SELECT first_value(name) OVER (ORDER BY ssn) FROM people;
-- covered|refused: partitions by a part of it
SELECT id, count(*) OVER (PARTITION BY left(ssn, 1) < 'M') FROM people ORDER BY id;
-- covered|refused: RANGE by it
SELECT id, count(*) OVER (ORDER BY pin RANGE BETWEEN 100000000 PRECEDING AND 100000000 FOLLOWING) FROM people ORDER BY id;
-- covered|refused: a named window by it
SELECT id, dense_rank() OVER w FROM people WINDOW w AS (ORDER BY salary DESC) ORDER BY id;
-- covered|refused: a window's frame by it
SELECT id, count(*) OVER (ORDER BY id ROWS BETWEEN (SELECT ascii(ssn) % 5 FROM people WHERE id = 1) PRECEDING AND CURRENT ROW) FROM people;

---- Sub-queries

-- covered: a scalar sub-query
SELECT (SELECT ssn FROM people WHERE id = 1), (SELECT max(pin) FROM people);
-- covered: a correlated one
SELECT name, (SELECT ssn FROM people p WHERE p.city = c.name ORDER BY p.id LIMIT 1) FROM cities c ORDER BY name;
-- covered: in FROM
SELECT x FROM (SELECT ssn AS x FROM people ORDER BY id) s;
-- covered: deep
SELECT d FROM (SELECT c AS d FROM (SELECT b AS c FROM (SELECT ssn AS b FROM people ORDER BY id) x) y) z;
-- covered: LATERAL
SELECT l.x FROM cities c, LATERAL (SELECT p.ssn AS x FROM people p WHERE p.city = c.name ORDER BY id LIMIT 1) l ORDER BY c.name;
-- covered: LATERAL over an expression
SELECT l.y FROM people p CROSS JOIN LATERAL (SELECT reverse(p.ssn) AS y) l ORDER BY p.id;
-- covered: LATERAL VALUES
SELECT v.x FROM people p, LATERAL (VALUES (p.ssn), (p.pin::text)) v (x) WHERE p.id = 1;
-- covered|refused: EXISTS by it
SELECT name FROM cities c WHERE EXISTS (SELECT 1 FROM people p WHERE p.city = c.name AND p.ssn > 'S') ORDER BY 1;
-- covered|refused: EXISTS in the list
SELECT EXISTS (SELECT 1 FROM people WHERE ssn > 'a' AND id = 1);
-- covered: IN a sub-query, in the list
SELECT chr(i) IN (SELECT substr(ssn, 1, 1) FROM people), chr(i) = ANY (SELECT substr(ssn, 2, 1) FROM people), chr(i) < ALL (SELECT ssn FROM people) FROM generate_series(50, 122) i ORDER BY i;
-- covered: an array of a sub-query
SELECT array_to_string(ARRAY(SELECT ssn FROM people ORDER BY id), ',');
-- covered: VALUES of sub-queries
VALUES ((SELECT ssn FROM people WHERE id = 1)), ('x');
-- covered: VALUES in FROM
SELECT a FROM (VALUES ((SELECT ssn FROM people WHERE id = 1), 1)) v (a, b);
-- covered: rows of a sub-query
SELECT (SELECT ROW(ssn, pin) FROM people WHERE id = 1), ROW(1, 2) = (SELECT pin, pin FROM people WHERE id = 1);

---- WITH

-- covered: a CTE
WITH x AS (SELECT ssn AS y FROM people ORDER BY id) SELECT y FROM x;
-- covered: a CTE with column names
WITH x (name) AS (SELECT ssn FROM people ORDER BY id) SELECT name FROM x;
-- covered: a CTE that hides a table
WITH cities AS (SELECT id, ssn AS name FROM people) SELECT name FROM cities ORDER BY id;
-- covered: CTEs upon each other
WITH a AS (SELECT ssn FROM people), b AS (SELECT a.ssn AS t FROM a), c AS (SELECT t || 'x' AS u FROM b) SELECT u FROM c;
-- covered: MATERIALIZED
WITH a AS MATERIALIZED (SELECT * FROM people) SELECT ssn FROM a ORDER BY id;
-- covered: WITH in a sub-query
SELECT * FROM (WITH a AS (SELECT ssn FROM people) SELECT * FROM a) b;
-- covered: WITH RECURSIVE
WITH RECURSIVE r (n, s) AS (SELECT 1, ssn FROM people WHERE id = 1 UNION ALL SELECT n + 1, s || 'x' FROM r WHERE n < 3) SELECT s FROM r;
-- covered: WITH RECURSIVE that reads later
WITH RECURSIVE r (n, s) AS (SELECT 0, ''::text UNION ALL SELECT n + 1, s || (SELECT ssn FROM people WHERE id = r.n + 1) FROM r WHERE n < 3) SELECT s FROM r;
-- covered|refused: WITH RECURSIVE that takes it apart
WITH RECURSIVE r (c, rest) AS (SELECT ''::text, ssn FROM people WHERE id = 1 UNION ALL SELECT left(rest, 1), substr(rest, 2) FROM r WHERE rest <> '') SELECT c FROM r;
-- covered|refused: a column that is passed on in a circle
WITH RECURSIVE r (n, a, b) AS (SELECT 1, ssn, 'x'::text FROM people WHERE id = 1 UNION ALL SELECT n + 1, b, a FROM r WHERE n < 3) SELECT b FROM r;
-- covered|refused: SEARCH
WITH RECURSIVE r AS (SELECT id, ssn FROM people WHERE id = 1 UNION ALL SELECT p.id, p.ssn FROM people p, r WHERE p.id = r.id + 1) SEARCH DEPTH FIRST BY ssn SET o SELECT id, o FROM r ORDER BY id;
-- covered|refused: CYCLE
WITH RECURSIVE r AS (SELECT id, ssn FROM people WHERE id = 1 UNION ALL SELECT p.id, p.ssn FROM people p, r WHERE p.id = r.id + 1) CYCLE ssn SET c USING path SELECT path FROM r ORDER BY id;
-- covered: a data-modifying CTE's RETURNING
WITH u AS (UPDATE people SET city = 'x' RETURNING ssn) SELECT ssn FROM u;
-- covered|refused: a CTE that is not read
WITH d AS (DELETE FROM vault.diary RETURNING body) SELECT count(*) FROM d WHERE body > 'M';

---- Set operations

-- covered: UNION ALL
SELECT name FROM cities UNION ALL SELECT ssn FROM people;
-- covered|refused: UNION
SELECT name FROM people UNION SELECT ssn FROM people;
-- covered: UNION ALL, the other way round
SELECT ssn FROM people UNION ALL SELECT name FROM people;
-- covered: UNION of a constant's type
SELECT NULL UNION ALL SELECT ssn FROM people;
-- covered|refused: EXCEPT
SELECT ssn FROM people EXCEPT SELECT 'x';
-- covered|refused: INTERSECT by guesses
SELECT chr(i) FROM generate_series(48, 122) i INTERSECT SELECT substr(ssn, 1, 1) FROM people;
-- covered|refused: EXCEPT by guesses
SELECT chr(i) FROM generate_series(48, 122) i EXCEPT ALL SELECT substr(ssn, 2, 1) FROM people;
-- covered: nested
(SELECT city FROM people UNION ALL (SELECT ssn FROM people UNION ALL SELECT code FROM people));
-- covered|refused: DISTINCT of it
SELECT DISTINCT ssn FROM people;
-- covered|refused: DISTINCT of a part
SELECT DISTINCT ascii(ssn) FROM people;
-- covered|refused: DISTINCT ON it
SELECT DISTINCT ON (left(ssn, 1) > 'M') name FROM people;
-- covered|refused: UNION of a part
SELECT ascii(ssn) FROM people UNION SELECT NULL;

---- Joins

-- covered: a join
SELECT p.ssn, c.name FROM people p JOIN cities c ON c.name = p.city ORDER BY p.id;
-- covered: USING and NATURAL
SELECT ssn FROM people JOIN (SELECT id FROM notes) n USING (id);
-- covered: NATURAL JOIN
SELECT ssn FROM people NATURAL JOIN (SELECT 1 AS id) x;
-- covered: outer joins
SELECT p.ssn FROM cities c LEFT JOIN people p ON p.city = c.name ORDER BY p.id;
-- covered: FULL JOIN USING
SELECT ssn FROM (SELECT id, ssn FROM people) a FULL JOIN (SELECT 1 AS id) b USING (id) ORDER BY id;
-- covered: a merged column
SELECT ssn FROM vault.diary JOIN people USING (ssn) ORDER BY people.id;
-- covered: the alias of USING
SELECT j.ssn FROM vault.diary d JOIN people p USING (ssn) AS j ORDER BY p.id;
-- covered: a self-join
SELECT a.ssn, b.pin FROM people a CROSS JOIN people b WHERE a.id = b.id ORDER BY a.id;
-- covered: an alias of a join
SELECT j.s FROM (people p JOIN cities c ON c.name = p.city) AS j (a, b, c, s);
-- covered|refused: joined by order
SELECT a.id, b.id FROM people a JOIN people b ON a.ssn < b.ssn ORDER BY 1, 2;
-- covered|refused: joined by a part
SELECT p.id, g.c FROM people p JOIN (SELECT chr(i) AS c FROM generate_series(48, 122) i) g ON left(p.ssn, 1) = g.c ORDER BY 1;
-- covered|refused [inert]: joined with a table of guesses
SELECT p.id FROM people p JOIN generate_series(1000000000, 1000000100) g ON p.pin = g;
-- covered|refused [inert]: NATURAL with guesses
SELECT id FROM people NATURAL JOIN (SELECT chr(i) AS ssn FROM generate_series(48, 122) i) g;
-- covered|refused [inert]: a merged column that is compared
SELECT p.id, length(ssn) FROM people p RIGHT JOIN (VALUES ('x')) v (ssn) USING (ssn);

---- Views

-- covered: a view
SELECT * FROM people_view ORDER BY id;
-- covered: a view's expression
SELECT loud, next FROM people_view ORDER BY id;
-- covered: a view over a view
SELECT label FROM people_view2 ORDER BY id;
-- covered|refused: a view of whole rows
SELECT * FROM people_rows;
-- covered|refused: a field of a view's row
SELECT (whole).ssn FROM people_rows;
-- covered|refused: a materialized view
SELECT kept, pin FROM people_copy ORDER BY id;
-- covered|refused: the star of a materialized view
SELECT * FROM people_copy ORDER BY id;
-- covered|refused: a recursive view
SELECT path FROM people_chain;
-- clean: a view's clear columns
SELECT id, name FROM people_view ORDER BY id LIMIT 2;
--> 1|Ada
--> 2|Alan
-- clean: a view that only counts
SELECT n FROM people_count WHERE city = 'London';
--> 2
-- covered|refused: a new view
CREATE VIEW mine AS SELECT ssn AS x FROM people;
SELECT x FROM mine;
-- covered|refused: a new temporary view
CREATE TEMP VIEW mine AS SELECT reverse(ssn) AS x FROM people;
SELECT x FROM mine;
-- covered|refused: a view that is replaced
CREATE OR REPLACE VIEW people_count AS SELECT city, count(*) AS n, max(ssn) AS city2 FROM people GROUP BY city;
SELECT * FROM people_count;
-- covered|refused: a new materialized view
CREATE MATERIALIZED VIEW mine AS SELECT ssn AS x FROM people;
SELECT x FROM mine;
-- covered|refused: a new recursive view
CREATE RECURSIVE VIEW mine (n, x) AS SELECT 1, ssn FROM people WHERE id = 1;
SELECT x FROM mine;
-- covered|refused: a view's column renamed
ALTER VIEW people_view RENAME COLUMN number TO clear;
SELECT clear FROM people_view ORDER BY id;
-- covered|refused: a view renamed
ALTER VIEW people_view RENAME TO cities2;
SELECT number FROM cities2 ORDER BY id;
-- covered|refused: its definition read
SELECT pg_get_viewdef('people_view'), number FROM people_view ORDER BY id;
-- clean: a view's definition alone
SELECT pg_get_viewdef('people_count');
-->  SELECT people.city,\n    count(*) AS n\n   FROM people\n  GROUP BY people.city;
-- covered|refused: a view updated
UPDATE people_view SET name = number WHERE id = 1 RETURNING name;

---- Inheritance and partitions

-- covered: a parent
SELECT badge FROM staff ORDER BY id;
-- covered: an heir
SELECT badge FROM staff_boss ORDER BY id;
-- covered: a partitioned table
SELECT amount FROM ledger ORDER BY id;
-- covered: a partition
SELECT amount FROM ledger_low ORDER BY id;
-- covered|refused: a new heir
CREATE TABLE mine () INHERITS (people);
INSERT INTO mine SELECT * FROM people;
SELECT ssn FROM mine;
-- covered|refused: a partition detached
ALTER TABLE ledger DETACH PARTITION ledger_low;
SELECT amount FROM ledger_low ORDER BY id;
-- covered|refused: a table like it, attached
CREATE TABLE mine (id int, amount int);
INSERT INTO mine SELECT id + 1000, amount FROM ledger;
ALTER TABLE ledger ATTACH PARTITION mine FOR VALUES FROM (1000) TO (2000);
SELECT amount FROM mine;
-- covered|refused: a new partition
CREATE TABLE mine PARTITION OF ledger FOR VALUES FROM (1000) TO (2000);
INSERT INTO ledger SELECT id + 1000, amount FROM ledger WHERE id < 1000;
SELECT amount FROM mine;
-- covered|refused: an heir let go
ALTER TABLE staff_boss NO INHERIT staff;
ALTER TABLE staff_boss RENAME COLUMN badge TO plain;
SELECT plain FROM staff_boss ORDER BY id;

---- Filters and orders that tell

-- covered|refused: LIKE
SELECT id FROM people WHERE ssn LIKE 'S%' OR ssn LIKE '_a%' OR ssn LIKE '%Q%' ORDER BY id;
-- covered|refused: a regular expression
SELECT id FROM people WHERE ssn ~ '^[A-M]' ORDER BY id;
-- covered|refused: SIMILAR TO
SELECT id FROM people WHERE ssn SIMILAR TO '[a-m]%' ORDER BY id;
-- covered|refused: less than
SELECT id FROM people WHERE ssn < 'P' ORDER BY id;
-- covered|refused: numbers
SELECT id FROM people WHERE pin > 1500000000 ORDER BY id;
-- covered|refused: BETWEEN
SELECT id FROM people WHERE salary BETWEEN 100000000 AND 500000000 ORDER BY id;
-- covered|refused: BETWEEN SYMMETRIC
SELECT id FROM people WHERE born NOT BETWEEN SYMMETRIC '1850-01-01' AND '1800-01-01' ORDER BY id;
-- covered|refused: a part of a date
SELECT id FROM people WHERE extract(month FROM born) < 7 ORDER BY id;
-- covered|refused: a part of text
SELECT id FROM people WHERE left(ssn, 1) = 'K' OR substr(ssn, 2, 1) < 'm' ORDER BY id;
-- covered|refused: a character's code
SELECT id FROM people WHERE ascii(ssn) & 1 = 1 ORDER BY id;
-- covered|refused: a hash
SELECT id FROM people WHERE md5(ssn) < '8' ORDER BY id;
-- covered|refused: CASE in a filter
SELECT id FROM people WHERE CASE WHEN ssn > 'M' THEN true ELSE false END ORDER BY id;
-- covered|refused: a boolean in a filter
SELECT id FROM people WHERE (ssn > 'M') IS NOT FALSE ORDER BY id;
-- covered|refused: COALESCE in a filter
SELECT id FROM people WHERE coalesce(ssn > 'M', false) ORDER BY id;
-- covered|refused: a row in a filter
SELECT id FROM people WHERE (ssn, pin) > ('M', 0) ORDER BY id;
-- covered|refused: a whole row in a filter
SELECT id FROM people p WHERE p::text LIKE '%(_,%,%,A%' OR p::text ~ '[aeiou]{3}' ORDER BY id;
-- covered|refused: JSON in a filter
SELECT id FROM people WHERE (profile ->> 'points')::int > 1500000000 ORDER BY id;
-- covered|refused: a path in a filter
SELECT id FROM people WHERE profile @@ '$.points > 1500000000' ORDER BY id;
-- covered|refused: containment in a filter
SELECT id FROM people WHERE away @> '1850-01-01'::date ORDER BY id;
-- covered|refused: text search in a filter
SELECT id FROM people WHERE words @@ to_tsquery('simple', 'a:* | b:* | c:* | d:* | e:* | f:*') ORDER BY id;
-- covered|refused: xpath in a filter
SELECT id FROM people WHERE (xpath('/file/no/text()', doc))[1]::text > 'docM' ORDER BY id;
-- covered|refused: bytes in a filter
SELECT id FROM people WHERE get_byte(photo, 0) > 80 ORDER BY id;
-- covered|refused: compared with a clear column
SELECT id FROM people WHERE ssn > name ORDER BY id;
-- covered|refused: compared with a sub-query's
SELECT name FROM cities WHERE name < (SELECT ssn FROM people WHERE id = 1) ORDER BY 1;
-- covered|refused: ANY and ALL
SELECT id FROM people WHERE ssn < ANY ('{M,P}') ORDER BY id;
-- covered|refused: IN a series
SELECT id FROM people WHERE left(ssn, 1) IN (SELECT chr(i) FROM generate_series(65, 77) i) ORDER BY id;
-- covered|refused: a parameter compared
-- $1 = M
SELECT id FROM people WHERE ssn > $1 ORDER BY id;
-- covered|refused: ORDER BY it
SELECT id FROM people ORDER BY ssn;
-- covered|refused: ORDER BY it, descending
SELECT name FROM people ORDER BY pin DESC NULLS LAST;
-- covered|refused: ORDER BY its position
SELECT ssn, id FROM people ORDER BY 1;
-- covered|refused: ORDER BY its alias
SELECT id, born AS x FROM people ORDER BY x;
-- covered|refused: ORDER BY an expression
SELECT id FROM people ORDER BY length(ssn), reverse(ssn);
-- covered|refused: ORDER BY USING
SELECT id FROM people ORDER BY salary USING >;
-- covered|refused: ORDER BY between known values
SELECT x FROM (SELECT ssn AS k, 'secret' AS x FROM people WHERE id = 1 UNION ALL SELECT chr(i), chr(i) FROM generate_series(65, 122) i) s ORDER BY k;
-- covered|refused: the order of an index
SET enable_seqscan = off;
SELECT id FROM people WHERE ssn IS NOT NULL;
-- covered|refused: the order of a new index
CREATE INDEX ON people (pin);
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT id FROM people WHERE pin IS NOT NULL;
-- covered|refused: the order of CLUSTER
CLUSTER people USING people_ssn_key;
SELECT id FROM people;
-- covered|refused [varies]: the order of a sorted group
SET enable_hashagg = off;
SELECT city FROM people GROUP BY pin, city;
-- covered|refused [varies]: the order of DISTINCT
SET enable_hashagg = off;
SELECT DISTINCT pin, id FROM people;
-- covered|refused [varies]: the order of UNION
SET enable_hashagg = off;
SELECT ssn, id FROM people UNION SELECT ssn, id FROM people;
-- covered|refused: the order of partitions
SELECT id, count(*) OVER (PARTITION BY ssn) FROM people;
-- covered|refused [varies]: the order of a merge join
SET enable_hashjoin = off;
SET enable_nestloop = off;
SELECT a.id FROM people a JOIN people b ON a.pin = b.pin;
-- covered|refused: the order of array_agg's DISTINCT
SELECT array_agg(DISTINCT ROW(ssn, id)), string_agg(DISTINCT ssn, ',') FROM people;
-- covered|refused: the last of a partition
SELECT first_value(name) OVER (PARTITION BY id > 0 ORDER BY ssn) FROM people;
-- covered|refused: ORDER BY a whole row
SELECT id FROM (SELECT ssn, id FROM people) p ORDER BY p;
-- covered|refused: ORDER BY in a sub-query
SELECT id FROM (SELECT id FROM people ORDER BY ssn) x;
-- covered|refused: the first by it
SELECT (SELECT name FROM people ORDER BY ssn LIMIT 1);
-- covered|refused: DISTINCT ON, ordered by it
SELECT DISTINCT ON (id > 0) name FROM people ORDER BY id > 0, ssn;
-- covered|refused: a user's operator
SELECT id FROM people WHERE ssn <<<< 'M' ORDER BY id;
-- covered|refused: OPERATOR()
SELECT id FROM people WHERE ssn OPERATOR(pg_catalog.<) 'M' ORDER BY id;
-- covered|refused: a filter on a view's column
SELECT id FROM people_view WHERE number < 'M' ORDER BY id;
-- covered|refused: a filter outside of a sub-query
SELECT id FROM (SELECT id, left(ssn, 1) AS l FROM people) x WHERE l < 'M' ORDER BY id;
-- covered|refused: a filter on a CTE
WITH x AS (SELECT id, ssn > 'M' AS b FROM people) SELECT id FROM x WHERE b ORDER BY id;
-- covered|refused: pg_sleep by it
SELECT pg_sleep(0.001) FROM people WHERE ssn > 'M';
-- covered|refused [inert]: pg_sleep of it
SELECT pg_sleep(ascii(ssn) / 100000.0) FROM people WHERE id = 1;
-- clean: an exact guess that is wrong
SELECT id FROM people WHERE ssn = 'nobody has this';

---- Writing it elsewhere

-- covered|refused: UPDATE of a clear column
UPDATE people SET city = ssn RETURNING city;
-- covered|refused: UPDATE, then read
UPDATE people SET name = ssn;
SELECT name FROM people ORDER BY id;
-- covered|refused: UPDATE from another table
UPDATE notes SET body = p.ssn FROM people p WHERE p.id = notes.id;
SELECT body FROM notes ORDER BY id;
-- covered|refused: UPDATE of several columns by a row
UPDATE notes SET (body, n) = (SELECT ssn, pin FROM people p WHERE p.id = notes.id) RETURNING body, n;
-- covered|refused: UPDATE of an element
UPDATE notes SET list[1] = (SELECT ssn FROM people WHERE id = 1) WHERE id = 1 RETURNING list;
-- covered|refused: UPDATE with a CTE
WITH s AS (SELECT id, ssn FROM people) UPDATE notes SET body = s.ssn FROM s WHERE s.id = notes.id RETURNING body;
-- covered|refused: UPDATE where it is so
UPDATE notes SET body = 'yes' WHERE EXISTS (SELECT 1 FROM people WHERE ssn > 'M' AND people.id = notes.id) RETURNING id;
-- covered|refused: UPDATE counts rows by it
UPDATE people SET city = city WHERE pin > 1500000000;
-- covered|refused: INSERT … SELECT
INSERT INTO notes (id, body) SELECT id + 10, ssn FROM people RETURNING body;
-- covered|refused: INSERT … SELECT, then read
INSERT INTO notes (id, body) SELECT id + 10, ssn FROM people;
SELECT body FROM notes ORDER BY id;
-- covered|refused: INSERT of a sub-query
INSERT INTO notes (id, n) VALUES (9, (SELECT pin FROM people WHERE id = 1)) RETURNING n;
-- covered|refused: INSERT of TABLE
INSERT INTO notes (id, n, body) SELECT id, author, body FROM vault.diary RETURNING body;
-- covered|refused: INSERT of a whole row's JSON
INSERT INTO notes (id, data) SELECT id + 10, to_jsonb(p) FROM people p RETURNING data;
-- covered|refused: ON CONFLICT DO UPDATE
INSERT INTO notes (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET body = (SELECT ssn FROM people WHERE id = 1) RETURNING body;
-- covered|refused: ON CONFLICT, excluded
INSERT INTO people (id, name, ssn) SELECT id, name, 'x' || id FROM people ON CONFLICT (id) DO UPDATE SET name = people.ssn RETURNING name;
-- covered|refused: ON CONFLICT … WHERE
INSERT INTO people (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET city = 'hit' WHERE people.ssn > 'M' RETURNING id;
-- covered: RETURNING
UPDATE people SET city = 'x' RETURNING ssn, pin;
-- covered: RETURNING the star
DELETE FROM vault.diary RETURNING *;
-- covered: RETURNING an expression
UPDATE people SET pin = pin WHERE id = 1 RETURNING reverse(ssn), people::text;
-- covered: DELETE USING
DELETE FROM notes USING people p WHERE p.id = notes.id RETURNING p.ssn;
-- covered|refused: DELETE counts rows by it
DELETE FROM vault.diary WHERE body > 'M';
-- covered|refused: MERGE into a clear column
MERGE INTO notes n USING people p ON n.id = p.id WHEN MATCHED THEN UPDATE SET body = p.ssn WHEN NOT MATCHED THEN INSERT (id, body) VALUES (p.id, p.ssn);
SELECT body FROM notes ORDER BY id;
-- covered|refused: MERGE by it
MERGE INTO notes n USING people p ON n.id = p.id WHEN MATCHED AND p.ssn > 'M' THEN UPDATE SET body = 'yes' WHEN MATCHED THEN UPDATE SET body = 'no';
SELECT body FROM notes ORDER BY id;
-- covered|refused: MERGE within a table
MERGE INTO people p USING (VALUES (1)) v (id) ON p.id = v.id WHEN MATCHED THEN UPDATE SET city = p.ssn;
SELECT city FROM people WHERE id = 1;
-- covered|refused: CREATE TABLE AS
CREATE TABLE mine AS SELECT ssn AS x FROM people;
SELECT x FROM mine;
-- covered|refused: CREATE TABLE AS an expression
CREATE TABLE mine AS SELECT upper(ssn) AS x, pin + 1 AS y FROM people;
SELECT x, y FROM mine;
-- covered|refused: CREATE TEMP TABLE AS
CREATE TEMP TABLE mine AS SELECT id, ssn AS x FROM people;
SELECT x FROM mine ORDER BY id;
-- covered|refused: CREATE TEMP TABLE AS TABLE
CREATE TEMP TABLE mine AS TABLE people;
SELECT ssn FROM mine ORDER BY id;
-- covered|refused: CREATE TABLE AS with column names
CREATE TEMP TABLE mine (a, b) AS SELECT id, ssn FROM people;
SELECT b FROM mine ORDER BY a;
-- covered|refused: a temporary table, copied on
CREATE TEMP TABLE one AS SELECT ssn AS x FROM people;
CREATE TEMP TABLE two AS SELECT x || '' AS y FROM one;
SELECT y FROM two;
-- covered|refused: a temporary table, renamed
CREATE TEMP TABLE one AS SELECT id, ssn AS x FROM people;
ALTER TABLE one RENAME TO two;
ALTER TABLE two RENAME COLUMN x TO y;
SELECT y FROM two ORDER BY id;
-- covered|refused: a temporary table filled later
CREATE TEMP TABLE one (a text);
INSERT INTO one SELECT ssn FROM people;
SELECT a FROM one;
-- covered|refused: a temporary table filled by UPDATE
CREATE TEMP TABLE one (id int, a text);
INSERT INTO one SELECT id, 'x' FROM people;
UPDATE one SET a = p.ssn FROM people p WHERE p.id = one.id;
SELECT a FROM one ORDER BY id;
-- covered|refused: a temporary table that hides a clear one
CREATE TEMP TABLE cities AS SELECT id, ssn AS name FROM people;
SELECT name FROM cities ORDER BY id;
-- covered|refused: a temporary table made in a transaction that is rolled back to
BEGIN;
CREATE TEMP TABLE one (x text);
SAVEPOINT s;
DROP TABLE one;
CREATE TEMP TABLE one AS SELECT ssn AS x FROM people;
SELECT x FROM one;
-- covered|refused: LIKE, then INSERT
CREATE TABLE mine (LIKE people INCLUDING ALL);
INSERT INTO mine SELECT * FROM people;
SELECT ssn FROM mine ORDER BY id;
-- covered|refused: SELECT INTO
SELECT id, ssn AS x INTO mine FROM people;
SELECT x FROM mine ORDER BY id;
-- covered|refused: SELECT INTO TEMP
SELECT id, ssn AS x INTO TEMP mine FROM people;
SELECT x FROM mine ORDER BY id;
-- covered|refused: CREATE TABLE AS EXECUTE
PREPARE q AS SELECT ssn AS x FROM people ORDER BY id;
CREATE TEMP TABLE mine AS EXECUTE q;
SELECT x FROM mine;
-- covered|refused: WITH NO DATA, refreshed
CREATE MATERIALIZED VIEW mine AS SELECT ssn AS x FROM people WITH NO DATA;
REFRESH MATERIALIZED VIEW mine;
SELECT x FROM mine;
-- covered|refused: a column renamed
ALTER TABLE people RENAME COLUMN ssn TO note;
SELECT note FROM people ORDER BY id;
-- covered|refused: a table renamed
ALTER TABLE people RENAME TO citizens;
SELECT ssn FROM citizens ORDER BY id;
-- covered|refused: a table in another schema
CREATE SCHEMA other;
ALTER TABLE people SET SCHEMA other;
SELECT ssn FROM other.people ORDER BY id;
-- covered|refused: a schema renamed
ALTER SCHEMA vault RENAME TO other;
SELECT body FROM other.diary ORDER BY id;
-- covered|refused: names exchanged
BEGIN;
ALTER TABLE people RENAME TO x;
ALTER TABLE cities RENAME TO people;
ALTER TABLE x RENAME TO cities;
SELECT ssn FROM cities;
COMMIT;
-- covered|refused: a column's type changed by another
ALTER TABLE staff ALTER COLUMN name TYPE text USING badge;
SELECT name FROM staff ORDER BY id;
-- covered|refused: a generated column
ALTER TABLE people ADD COLUMN shown text GENERATED ALWAYS AS (reverse(ssn)) STORED;
SELECT shown FROM people ORDER BY id;
-- covered|refused: a generated column of a new table
CREATE TABLE mine (a text, b text GENERATED ALWAYS AS (a || '!') STORED);
INSERT INTO mine (a) SELECT ssn FROM people;
SELECT b FROM mine;
-- covered|refused: a default that reads
CREATE TABLE mine (id int, x text DEFAULT ssn_of(1));
INSERT INTO mine (id) VALUES (1) RETURNING x;
-- covered|refused: a default that reads by pg_catalog's own means
CREATE TABLE mine (id int, x text DEFAULT query_to_xml('TABLE people', true, false, '')::text);
INSERT INTO mine (id) VALUES (1) RETURNING x;
-- covered|refused: a default of a clear table
ALTER TABLE notes ALTER COLUMN body SET DEFAULT ssn_of(1);
INSERT INTO notes (id) VALUES (50) RETURNING body;
-- covered|refused: a new column with a default
ALTER TABLE notes ADD COLUMN x text DEFAULT query_to_xml('SELECT ssn FROM people', true, false, '')::text;
SELECT x FROM notes ORDER BY id;
-- covered|refused: a clear column's type changed by what reads
ALTER TABLE notes ALTER COLUMN body TYPE text USING query_to_xml('SELECT ssn FROM people', true, false, '')::text;
SELECT body FROM notes ORDER BY id;
-- covered|refused: a clear column's type changed by a function
ALTER TABLE notes ALTER COLUMN body TYPE text USING ssn_of(id);
SELECT body FROM notes ORDER BY id;
-- covered|refused: a domain's default
CREATE DOMAIN mine AS text DEFAULT ssn_of(1);
CREATE TEMP TABLE one (id int, x mine);
INSERT INTO one VALUES (1) RETURNING x;
-- covered|refused: a sequence as a default
CREATE TABLE mine (id int, x int DEFAULT length(ssn_of(1)) + ascii(ssn_of(1)));
INSERT INTO mine (id) VALUES (1) RETURNING x;
-- covered|refused: an existing function as a default of COPY
CREATE TABLE mine (id int, x text DEFAULT ssn_of(1));
COPY mine (id) FROM STDIN;
1
\.
SELECT x FROM mine;
-- covered|refused: two strings in one
CREATE TEMP TABLE mine AS SELECT ssn AS x FROM people\;
SELECT x FROM mine;

---- Constraints and triggers

-- error 23505|refused: a unique constraint tells of the other row
UPDATE people SET ssn = (SELECT ssn FROM people WHERE id = 2) WHERE id = 1;
-- error 23503|refused: a foreign key tells of the row
UPDATE people SET ssn = 'x' WHERE id = 1;
-- error 23503|refused: a foreign key of a masked value
UPDATE vault.diary SET ssn = body WHERE id = 11;
-- error 23502|refused: NOT NULL tells the row
UPDATE people SET name = NULL WHERE id = 1;
-- error 23514|refused: CHECK tells the row
UPDATE people SET pin = -1 WHERE id = 1;
-- error 23514|refused: a partition's bound tells the row
INSERT INTO ledger_low SELECT id + 100, amount FROM ledger;
-- error 22001|refused [inert]: too long
UPDATE people SET code = ssn || account WHERE id = 1;
-- error 23514|refused [inert]: CHECK added
ALTER TABLE people ADD CHECK (ssn < 'M');
-- error 23502|error 23514|refused [inert]: NOT NULL of a new column
ALTER TABLE people ADD COLUMN x text NOT NULL DEFAULT NULL;
-- error 23505|refused [inert]: a unique index on a part
CREATE UNIQUE INDEX ON people ((1));
-- error 23505|refused [inert]: a unique index on an expression
CREATE UNIQUE INDEX ON people ((ssn > 'A' OR ssn < 'A'));
-- error 22P02|refused: an index that fails
CREATE INDEX ON people ((ssn::int));
-- error 22P02|refused: an index on a row that fails
CREATE INDEX ON people ((substr(ssn, 1, 3)::int)) WHERE id = 1;
-- error 22P02|refused: a type changed that fails
ALTER TABLE staff ALTER COLUMN badge TYPE int USING badge::int;
-- error 23P01|error 42704|refused: an exclusion constraint
ALTER TABLE people ADD EXCLUDE USING gist (away WITH &&);
-- error 23505|refused [inert]: a unique constraint of a copy
ALTER TABLE vault.diary ADD UNIQUE (author, ssn), ADD CHECK (body < 'A');
-- error 23503|refused: a foreign key added
ALTER TABLE people ADD FOREIGN KEY (ssn) REFERENCES cities (name);
-- refused: a trigger
CREATE FUNCTION show() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '%', NEW; RETURN NEW; END $$;
CREATE TRIGGER show BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION show();
UPDATE people SET city = city;
-- refused: a rule
CREATE RULE copy AS ON UPDATE TO people DO ALSO INSERT INTO notes (id, body) VALUES (NEW.id + 50, NEW.ssn);
UPDATE people SET city = city;
SELECT body FROM notes ORDER BY id;
-- refused: a row security policy that fails
CREATE POLICY show ON people USING (ssn::int = 1);
ALTER TABLE people ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SELECT id FROM people;
-- error 23514|refused [inert]: a domain's check that tells
CREATE DOMAIN small AS text CHECK (VALUE < 'A');
SELECT ssn::small FROM people WHERE id = 1;
-- refused: a domain's check that raises
CREATE DOMAIN mine AS int CHECK (tell(VALUE) > 0);
SELECT 1::mine;
-- refused: a table's check that raises
CREATE TABLE mine (id int CHECK (blurt(id) > 0));
INSERT INTO mine VALUES (1);
-- refused: a check added to a clear table
ALTER TABLE notes ADD CHECK (tell(id) > 0);
-- refused: a check by pg_catalog's own means
ALTER TABLE notes ADD CHECK (query_to_xml('SELECT ssn::int FROM people', true, false, '') IS NOT NULL);
-- refused: a check that is validated later
ALTER TABLE people ADD CONSTRAINT c CHECK (ssn::int > 0) NOT VALID;
ALTER TABLE people VALIDATE CONSTRAINT c;
-- covered|refused [inert]: a partition's key that raises
CREATE TABLE mine (id int) PARTITION BY LIST ((known(id)));
CREATE TABLE mine1 PARTITION OF mine DEFAULT;
INSERT INTO mine VALUES (1);
-- refused: an index that raises
CREATE INDEX ON notes ((known(id)::int));
-- refused: an index's condition that raises
CREATE INDEX ON notes (id) WHERE known(id)::int > 0;
-- refused [inert]: statistics of an expression
CREATE STATISTICS mine ON (known(id)) FROM notes;
ANALYZE notes;
SELECT most_common_vals FROM pg_stats_ext_exprs;
-- covered|refused|error 23505 [inert]: INSERT of a guess
INSERT INTO people (id, name, ssn) VALUES (99, 'x', 'nobody has this') RETURNING ssn;
-- error 23505|refused [inert]: a key of a clear column
INSERT INTO people (id, name) VALUES (1, 'x');
-- error 25006|refused [inert]: in a read-only transaction
BEGIN READ ONLY;
UPDATE people SET city = ssn;

---- Functions of users, DO, CALL

-- covered|refused: a function that reads
SELECT ssn_of(1);
-- covered|refused: a function that returns rows
SELECT ssn FROM all_people() ORDER BY id;
-- covered|refused: the star of a function's rows
SELECT (all_people()).ssn;
-- covered|refused: a function of a masked column
SELECT shout(ssn) FROM people ORDER BY id;
-- refused: a NOTICE
SELECT tell(1);
-- refused: an exception
SELECT blurt(1);
-- refused: dynamic SQL
SELECT run('SELECT ssn FROM people WHERE id = 1');
-- refused: dynamic SQL of a computed text
SELECT run(format('SELECT %I FROM people WHERE id = 1', 's' || 'sn'));
-- refused: CALL
CALL publish();
SELECT body FROM notes ORDER BY id;
-- refused: DO with a NOTICE
DO $$ BEGIN RAISE NOTICE '%', (SELECT ssn FROM people WHERE id = 1); END $$;
-- refused: DO with an exception
DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM people LOOP RAISE EXCEPTION '%', r; END LOOP; END $$;
-- refused: DO that copies
DO $$ BEGIN UPDATE notes SET body = (SELECT ssn FROM people WHERE id = 1); END $$;
SELECT body FROM notes ORDER BY id;
-- refused: DO that notifies
LISTEN news;
DO $$ BEGIN PERFORM pg_notify('news', (SELECT ssn FROM people WHERE id = 1)); END $$;
-- refused: DO with a setting
DO $$ BEGIN PERFORM set_config('my.secret', (SELECT ssn FROM people WHERE id = 1), false); END $$;
SHOW my.secret;
-- refused: DO with GET DIAGNOSTICS
DO $$ BEGIN ASSERT (SELECT ssn FROM people WHERE id = 1) IS NULL, (SELECT ssn FROM people WHERE id = 1); END $$;
-- refused: a new SQL function
CREATE FUNCTION mine() RETURNS text LANGUAGE sql AS 'SELECT ssn FROM people WHERE id = 1';
SELECT mine();
-- refused: a new SQL function with a body
CREATE FUNCTION mine() RETURNS text LANGUAGE sql RETURN (SELECT ssn FROM people WHERE id = 1);
SELECT mine();
-- refused: a new function in pg_temp
CREATE FUNCTION pg_temp.mine() RETURNS text LANGUAGE sql AS 'SELECT ssn FROM people WHERE id = 1';
SELECT pg_temp.mine();
-- refused: a new function named like a built-in
CREATE FUNCTION upper(people) RETURNS text LANGUAGE sql AS 'SELECT ($1).ssn';
SELECT upper(p) FROM people p;
-- refused: a new operator
CREATE FUNCTION first_of(people) RETURNS text LANGUAGE sql AS 'SELECT ($1).ssn';
CREATE OPERATOR !!! (RIGHTARG = people, FUNCTION = first_of);
SELECT !!! p FROM people p;
-- refused: a new cast
CREATE FUNCTION to_pair(people) RETURNS pair LANGUAGE sql AS 'SELECT ($1).pin, ($1).ssn';
CREATE CAST (people AS pair) WITH FUNCTION to_pair(people);
SELECT p::pair FROM people p;
-- refused: a new aggregate
CREATE AGGREGATE mine(text) (SFUNC = textcat, STYPE = text, INITCOND = '');
SELECT mine(ssn) FROM people;
-- refused: a new procedure
CREATE PROCEDURE mine() LANGUAGE sql AS 'UPDATE notes SET body = (SELECT ssn FROM people WHERE id = 1)';
CALL mine();
SELECT body FROM notes ORDER BY id;
-- refused: a function replaced
CREATE OR REPLACE FUNCTION shout(text) RETURNS text LANGUAGE sql AS 'SELECT ssn FROM people WHERE id = 1';
SELECT shout('x');
-- refused [inert]: an event trigger
CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION tell();
-- covered|refused: functions by other names
SELECT public.ssn_of(id) FROM people ORDER BY id;
-- covered|refused: a function by attribute notation
SELECT c.leak FROM cities c;
-- covered|refused: a function by field selection
SELECT (1).ssn_of;
-- covered|refused: a function that is quoted
SELECT "Upper"('x');
-- covered|refused: a function named like a built-in, for other types
SELECT to_ascii(1);
-- covered|refused: an operator that reads
SELECT ~~~> 1;
-- covered|refused: a cast that reads
SELECT 'calm'::mood::text;
-- covered|refused: a cast that reads, by CAST
SELECT CAST('calm'::mood AS text) FROM cities;
-- refused: a type's input by a user's domain
SELECT '1'::told;
-- covered|refused: a function in FROM
SELECT * FROM ssn_of(1) AS name, cities;
-- covered|refused: a function in VALUES
VALUES (ssn_of(1));
-- refused: a function in WHERE
SELECT name FROM cities WHERE ssn_of(1) > 'M';
-- refused: a function in LIMIT
SELECT i FROM generate_series(1, 200) i LIMIT ascii(ssn_of(1));
-- covered|refused: a function in RETURNING
UPDATE notes SET n = n RETURNING ssn_of(1);
-- covered|refused: a function in INSERT
INSERT INTO notes (id, body) VALUES (51, ssn_of(1)) RETURNING body;
-- covered|refused: a function in COPY
COPY (SELECT ssn_of(1)) TO STDOUT;
-- refused: a function in SET
SELECT set_config('my.secret', ssn_of(1), false);
-- covered|refused: a function as an aggregate's argument
SELECT string_agg(ssn_of(id), ',') FROM notes;
-- covered|refused: a function as a window's argument
SELECT lag(ssn_of(1), 1, ssn_of(1)) OVER () FROM cities;
-- refused: a named argument
SELECT run(sql => 'SELECT ssn FROM people WHERE id = 1');
-- refused: pg_catalog's own ways to run SQL
SELECT pg_catalog.query_to_xml('TABLE people', true, true, '');

---- Cursors and prepared statements

-- covered|refused: a cursor
BEGIN;
DECLARE c CURSOR FOR SELECT ssn, name FROM people ORDER BY id;
FETCH 2 FROM c;
FETCH ALL FROM c;
COMMIT;
-- covered|refused: a binary cursor
BEGIN;
DECLARE c BINARY CURSOR FOR SELECT pin, ssn, account, born FROM people ORDER BY id;
FETCH ALL FROM c;
COMMIT;
-- covered|refused: a scrolling cursor
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT ssn FROM people ORDER BY id;
MOVE LAST FROM c;
FETCH BACKWARD 3 FROM c;
FETCH ABSOLUTE 1 FROM c;
FETCH RELATIVE 1 FROM c;
COMMIT;
-- covered|refused: a cursor WITH HOLD
DECLARE c CURSOR WITH HOLD FOR SELECT ssn FROM people ORDER BY id;
FETCH ALL FROM c;
CLOSE c;
-- covered|refused: a cursor's name used again
BEGIN;
DECLARE c CURSOR FOR SELECT name FROM people ORDER BY id;
CLOSE c;
DECLARE c CURSOR FOR SELECT ssn FROM people ORDER BY id;
FETCH ALL FROM c;
COMMIT;
-- covered|refused|error 34000 [inert]: a cursor behind a savepoint
BEGIN;
DECLARE c CURSOR FOR SELECT ssn FROM people ORDER BY id;
SAVEPOINT s;
CLOSE c;
ROLLBACK TO s;
FETCH 1 FROM c;
COMMIT;
-- covered|refused: a cursor in one string
BEGIN\;
DECLARE c CURSOR FOR SELECT ssn FROM people ORDER BY id\;
FETCH ALL FROM c\;
COMMIT;
-- covered|refused: UPDATE WHERE CURRENT OF
BEGIN;
DECLARE c CURSOR FOR SELECT ssn FROM people FOR UPDATE;
FETCH 1 FROM c;
UPDATE people SET city = 'x' WHERE CURRENT OF c RETURNING ssn;
COMMIT;
-- covered|refused: a cursor ordered by it
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM people ORDER BY ssn;
FETCH ALL FROM c;
COMMIT;
-- covered|refused: pg_cursors shows the text
BEGIN;
DECLARE c CURSOR FOR SELECT ssn FROM people WHERE id = 1;
SELECT statement FROM pg_cursors;
FETCH ALL FROM c;
COMMIT;
-- covered|refused: PREPARE and EXECUTE
PREPARE q AS SELECT ssn FROM people ORDER BY id;
EXECUTE q;
-- covered|refused: PREPARE with parameters
PREPARE q (int) AS SELECT ssn, pin FROM people WHERE id = $1;
EXECUTE q (1);
EXECUTE q (2);
-- covered|refused|error 0A000 [inert]: EXECUTE with a masked argument
PREPARE q (text) AS SELECT $1;
EXECUTE q ((SELECT ssn FROM people WHERE id = 1));
-- covered|refused: EXPLAIN EXECUTE
PREPARE q AS SELECT ssn FROM people ORDER BY id;
EXPLAIN (COSTS OFF) EXECUTE q;
EXECUTE q;
-- covered|refused: a prepared name used again
PREPARE q AS SELECT name FROM people ORDER BY id;
DEALLOCATE q;
PREPARE q AS SELECT ssn FROM people ORDER BY id;
EXECUTE q;
-- covered|refused: prepared, then another search path
PREPARE q AS SELECT * FROM diary;
SET search_path = vault;
PREPARE q2 AS SELECT body FROM diary;
EXECUTE q2;
-- covered|refused: prepared UPDATE
PREPARE q AS UPDATE notes SET body = (SELECT ssn FROM people WHERE id = 1) RETURNING body;
EXECUTE q;
-- covered|refused: prepared by DISCARD's other side
PREPARE q AS SELECT ssn FROM people ORDER BY id;
DISCARD PLANS;
EXECUTE q;

---- COPY

-- covered|refused [varies]: COPY a table
COPY people TO STDOUT;
-- covered|refused: COPY columns
COPY people (id, ssn, pin) TO STDOUT;
-- covered|refused: COPY a query
COPY (SELECT ssn, reverse(ssn), pin FROM people ORDER BY id) TO STDOUT;
-- covered|refused: COPY as CSV
COPY (SELECT id, ssn, profile, aliases FROM people ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER, FORCE_QUOTE *);
-- covered|refused: COPY as CSV with odd marks
COPY (SELECT ssn, code FROM people ORDER BY id) TO STDOUT WITH (FORMAT csv, DELIMITER 'a', QUOTE 'b', ESCAPE 'c', NULL 'd');
-- covered|refused: COPY with odd delimiters
COPY people (ssn, name, pin) TO STDOUT WITH (DELIMITER '~', NULL 'nil');
-- covered|refused: COPY in binary
COPY people (ssn, pin, account, born, token) TO STDOUT WITH (FORMAT binary);
-- covered|refused: COPY a query in binary
COPY (SELECT salary, photo, aliases, profile FROM people ORDER BY id) TO STDOUT (FORMAT binary);
-- covered|refused: COPY in the old syntax
COPY people (ssn) TO STDOUT CSV HEADER;
-- covered|refused: COPY BINARY in the old syntax
COPY BINARY people (ssn) TO STDOUT;
-- covered|refused: COPY of RETURNING
COPY (UPDATE people SET city = 'x' RETURNING ssn) TO STDOUT;
-- covered|refused: COPY of VALUES
COPY (VALUES ((SELECT ssn FROM people WHERE id = 1))) TO STDOUT;
-- covered|refused: COPY of a whole row
COPY (SELECT p FROM people p ORDER BY id) TO STDOUT;
-- covered|refused [varies]: COPY of a view's rows
COPY (SELECT * FROM people_view2 ORDER BY id) TO STDOUT;
-- covered|refused: COPY of a partition
COPY ledger_low TO STDOUT;
-- covered|refused: COPY ordered by it
COPY (SELECT id FROM people ORDER BY ssn) TO STDOUT;
-- covered|refused: COPY in another encoding
COPY people (ssn) TO STDOUT WITH (ENCODING 'LATIN1');
-- refused [inert]: COPY to a file
COPY people TO '/tmp/chaperone-masking-copy';
-- refused [inert]: COPY a query to a program
COPY (SELECT ssn FROM people) TO PROGRAM 'cat >/dev/null';
-- refused [inert]: COPY FROM a program
COPY cities (name) FROM PROGRAM 'grep -raoh secret base';
-- error 22P02|error 22P04|refused [inert]: COPY FROM that fails beside masked columns
COPY people (id, name, pin) FROM STDIN;
98	x	notanumber
\.
-- error 22P02|refused [inert]: COPY FROM … WHERE
COPY people (id, name, ssn) FROM STDIN WHERE ssn::int > 1;
98	x	y
\.
-- error 23505|refused [inert]: COPY FROM meets a key
COPY people (id, name, ssn) FROM STDIN;
1	x	y
\.
-- clean: COPY of clear columns
COPY (SELECT id, name FROM people ORDER BY id LIMIT 2) TO STDOUT;
--> 1	Ada\n
--> 2	Alan\n

---- EXPLAIN

-- covered|refused [inert]: EXPLAIN
EXPLAIN (COSTS OFF) SELECT ssn FROM people WHERE ssn = 'x';
-- covered|refused [inert]: EXPLAIN ANALYZE
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT ssn FROM people ORDER BY id;
-- covered|refused: EXPLAIN ANALYZE of a filter
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT id FROM people WHERE ssn < 'P';
-- covered|refused: EXPLAIN's estimates
EXPLAIN SELECT id FROM people WHERE pin < 1500000000;
-- covered|refused [inert]: EXPLAIN's estimates of a guess
EXPLAIN SELECT id FROM people WHERE ssn = 'nobody has this';
-- covered|refused [inert]: EXPLAIN VERBOSE
EXPLAIN (VERBOSE, COSTS OFF) SELECT ssn, (SELECT max(ssn) FROM people) FROM people;
-- covered|refused [inert]: EXPLAIN of a constant that is folded
EXPLAIN (VERBOSE, COSTS OFF) SELECT (SELECT ssn FROM people WHERE id = 1) || 'x';
-- refused [inert]: EXPLAIN VERBOSE of a function that is folded
EXPLAIN (VERBOSE, COSTS OFF) SELECT name FROM cities WHERE name = ssn_of(1);
-- covered|refused: EXPLAIN as JSON
EXPLAIN (ANALYZE, FORMAT json, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT count(*) FROM people WHERE ssn > 'M';
-- covered|refused [inert]: EXPLAIN ANALYZE of UPDATE
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) UPDATE notes SET body = p.ssn FROM people p WHERE p.id = notes.id;
-- covered|refused: EXPLAIN ANALYZE of CREATE TABLE AS
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) CREATE TABLE mine AS SELECT ssn AS x FROM people;
SELECT x FROM mine;
-- covered|refused: EXPLAIN ANALYZE of a join by order
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT 1 FROM people a JOIN people b ON a.ssn < b.ssn AND a.id = 1;
-- covered|refused: EXPLAIN ANALYZE with buffers of an index
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT id FROM people WHERE ssn >= 'M';

---- The catalog and statistics

-- refused: pg_stats
SELECT most_common_vals, histogram_bounds FROM pg_stats WHERE tablename = 'people';
-- refused: pg_stats' correlation
SELECT attname, correlation, n_distinct FROM pg_catalog.pg_stats WHERE tablename = 'people';
-- refused|error 42501 [inert]: pg_statistic
SELECT stavalues1 FROM pg_statistic;
-- refused: pg_stats_ext
SELECT * FROM pg_stats_ext;
-- refused: pg_stats_ext_exprs
SELECT * FROM pg_stats_ext_exprs;
-- refused|error 42501 [inert]: pg_statistic_ext_data
SELECT * FROM pg_statistic_ext_data;
-- refused: statistics of its own
CREATE STATISTICS mine (mcv) ON ssn, pin FROM people;
ANALYZE people;
SELECT most_common_vals FROM pg_stats_ext;
-- refused: a whole row of pg_stats
SELECT s::text FROM pg_stats s WHERE tablename = 'people';
-- refused: pg_stats in JSON
SELECT to_jsonb(s) FROM pg_stats s WHERE tablename = 'people';
-- covered|refused [inert]: other sessions' queries
SELECT query FROM pg_stat_activity WHERE query LIKE '%sn%people%' AND pid <> pg_backend_pid();
-- covered|refused [inert]: pg_stat_get_activity
SELECT query FROM pg_stat_get_activity(NULL) WHERE false;
-- covered|refused [inert]: prepared statements' texts
SELECT statement FROM pg_prepared_statements;
-- covered|refused [inert]: sizes of a column
SELECT pg_column_size(p) FROM people p WHERE ssn = 'nobody has this';
-- refused|error 42883 [inert]: pageinspect
SELECT * FROM heap_page_items(get_raw_page('people', 0));
-- refused [inert]: CREATE EXTENSION
CREATE EXTENSION pageinspect;
-- refused [inert]: CREATE EXTENSION dblink
CREATE EXTENSION dblink;
SELECT * FROM dblink('dbname=secrets_a', 'SELECT ssn FROM people') AS t (x text);
-- refused|error 42883 [inert]: dblink that isn't there
SELECT * FROM dblink('dbname=secrets_a', 'SELECT ssn FROM people') AS t (x text);
-- refused|error 42501 [inert]: a foreign server
CREATE SERVER mine FOREIGN DATA WRAPPER postgres_fdw;
-- refused [inert]: files of the server
SELECT pg_read_file('postgresql.conf', 0, 10);
-- refused [inert]: bytes of a table's file
SELECT pg_read_binary_file(pg_relation_filepath('people'));
-- refused [inert]: files by COPY
COPY cities (name) FROM '/etc/hostname';
-- refused|error 42501 [inert]: replication slots
SELECT pg_create_logical_replication_slot('s', 'test_decoding');
-- refused|error 42501 [inert]: a publication
CREATE PUBLICATION mine FOR TABLE people;

---- Large objects, notifications, settings, locks, sequences

-- refused: a large object from it
SELECT lo_from_bytea(0, photo) FROM people WHERE id = 1;
-- refused: a large object read back
SELECT lo_get(lo_from_bytea(0, (SELECT ssn::bytea FROM people WHERE id = 1)));
-- refused [inert]: a large object by field selection
SELECT lo_from_bytea(424242, '\x00');
SELECT (424242::oid).lo_get;
-- refused [inert]: lo_put
SELECT lo_put(lo_create(0), 0, photo) FROM people WHERE id = 1;
-- refused [inert]: lo_export
SELECT lo_export(lo_from_bytea(0, photo), '/tmp/chaperone-masking-lo') FROM people WHERE id = 1;
-- refused [inert]: pg_largeobject
SELECT lo_from_bytea(424242, (SELECT photo FROM people WHERE id = 1));
SELECT data FROM pg_largeobject WHERE loid = 424242;
-- refused: pg_notify
LISTEN news;
SELECT pg_notify('news', ssn) FROM people WHERE id = 1;
-- refused [inert]: pg_notify by a channel's name
SELECT pg_notify(ssn, ''), pg_listening_channels() FROM people WHERE id = 1;
-- refused: set_config of it
SELECT set_config('my.secret', ssn, false) FROM people WHERE id = 1;
SELECT current_setting('my.secret');
-- refused: set_config, shown
SELECT set_config('application_name', (SELECT ssn FROM people WHERE id = 1), false);
SHOW application_name;
-- refused: set_config in a sub-query that is not shown
SELECT 1 FROM (SELECT set_config('my.secret', ssn, false) FROM people WHERE id = 1) x;
SHOW my.secret;
-- covered|refused: advisory locks
SELECT pg_advisory_lock(pin) FROM people WHERE id = 1;
SELECT classid, objid FROM pg_locks WHERE locktype = 'advisory';
-- covered|refused [inert]: pg_try_advisory_lock
SELECT pg_try_advisory_xact_lock(account) FROM people WHERE id = 1;
-- refused: setval
SELECT setval('counter', pin) FROM people WHERE id = 1;
SELECT last_value FROM counter;
-- refused: setval in a transaction that is rolled back
BEGIN;
SELECT setval('counter', (SELECT pin FROM people WHERE id = 1));
ROLLBACK;
SELECT nextval('counter');
-- covered|refused: nextval by it
SELECT CASE WHEN ssn > 'M' THEN nextval('counter') END FROM people;
SELECT last_value FROM counter;
-- refused [inert]: a message into the log
SELECT pg_log_backend_memory_contexts(pin) FROM people WHERE id = 1;
-- refused: cancel by it
SELECT pg_cancel_backend(pin) FROM people WHERE id = 1;
-- refused: pg_logical_emit_message
SELECT pg_logical_emit_message(false, 'x', ssn) FROM people WHERE id = 1;
-- refused: a comment that is computed
SELECT obj_description((SELECT pin FROM people WHERE id = 1)::oid, 'pg_class'), col_description('people'::regclass, 4) , lo_creat(1);
-- covered|refused: a name of a role
SELECT pg_get_userbyid(pin::oid), to_regclass(quote_ident(ssn)), format_type(pin::oid, NULL) FROM people WHERE id = 1;

---- What has nothing to hide

-- clean: clear columns
SELECT id, name, city FROM people ORDER BY id;
--> 1|Ada|London
--> 2|Alan|London
--> 3|Grace|Boston
--> 4|Edsger|Nuenen
--> 5|Barbara|NULL
-- clean: counts
SELECT count(*), count(ssn), count(DISTINCT city) FROM people;
--> 5|5|3
-- clean: a clear table
SELECT name, people FROM cities WHERE area > 100 ORDER BY name;
--> Boston|650000
--> London|9000000
-- clean: a join by clear columns
SELECT p.name, c.people FROM people p JOIN cities c ON c.name = p.city WHERE p.id = 3;
--> Grace|650000
-- clean: a group of clear columns
SELECT city, count(*) FROM people WHERE city IS NOT NULL GROUP BY city ORDER BY 2 DESC, 1;
--> London|2
--> Boston|1
--> Nuenen|1
-- clean: NULL is not secret
SELECT count(*) FROM people WHERE ssn IS NULL;
--> 0
-- clean: a write of clear columns
UPDATE people SET city = 'Paris' WHERE id = 5 RETURNING id, city;
--> 5|Paris
-- clean: a write to a masked column
UPDATE people SET pin = 7 WHERE id = 5 RETURNING id;
--> 5
-- clean: a new note
INSERT INTO notes (id, body) VALUES (9, 'x') RETURNING id, body;
--> 9|x
-- clean: a window over clear columns
SELECT name, rank() OVER (ORDER BY people) FROM cities ORDER BY 2;
--> Nuenen|1
--> Boston|2
--> London|3
-- clean: a recursive query
WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT sum(n) FROM r;
--> 6
-- clean: JSON of clear columns
SELECT json_build_object('n', name) FROM cities ORDER BY name LIMIT 1;
--> {"n" : "Boston"}
-- clean: a prepared statement of clear columns
-- $1 = 2
SELECT name FROM people WHERE id = $1;
--> Alan
-- clean: EXPLAIN of clear columns
EXPLAIN (COSTS OFF) SELECT name FROM people;
--> Seq Scan on people
