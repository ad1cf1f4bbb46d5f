-- What the databases of the corpus hold. Names in angle brackets are secrets;
-- they differ between the two databases, and nothing else does.
-- Masked are, by mask.yaml in world_test.go: people's columns from ssn on,
-- all of schema vault, badge of staff and its heirs, amount of ledger.
CREATE SCHEMA vault;

CREATE DOMAIN phone_number AS text CHECK (VALUE ~ '^\+[0-9]+$');
CREATE TYPE mood AS ENUM ('calm', 'cross');
CREATE TYPE pair AS (a int, b text);

CREATE TABLE people (
  id int PRIMARY KEY, name text NOT NULL, city text,
  ssn text UNIQUE, pin int CHECK (pin > 0), account bigint, salary numeric(14,4), born date, token uuid,
  profile jsonb, aliases text[], photo bytea, code char(16), phone phone_number,
  card text, email text, doc xml, away daterange, words tsvector
);
INSERT INTO people VALUES
  (1, 'Ada',   'London', '<ssn1>', <pin1>, <account1>, <salary1>, '<born1>', '<token1>', '{"plate": "<plate1>", "points": <points1>}', '{<alias1>,<nick1>}', '\x<photo1:hex>', '<code1>', '<phone1>', '<card1>4111', '<email1>@mail.example', '<file><no>doc<doc1></no></file>', '[<from1>,1999-01-01)', to_tsvector('simple', '<diary1>')),
  (2, 'Alan',  'London', '<ssn2>', <pin2>, <account2>, <salary2>, '<born2>', '<token2>', '{"plate": "<plate2>", "points": <points2>}', '{<alias2>,<nick2>}', '\x<photo2:hex>', '<code2>', '<phone2>', '<card2>5559', '<email2>@mail.example', '<file><no>doc<doc2></no></file>', '[<from2>,1999-01-01)', to_tsvector('simple', '<diary2>')),
  (3, 'Grace', 'Boston', '<ssn3>', <pin3>, <account3>, <salary3>, '<born3>', '<token3>', '{"plate": "<plate3>", "points": <points3>}', '{<alias3>,<nick3>}', '\x<photo3:hex>', '<code3>', '<phone3>', '<card3>0009', '<email3>@mail.example', '<file><no>doc<doc3></no></file>', '[<from3>,1999-01-01)', to_tsvector('simple', '<diary3>')),
  (4, 'Edsger','Nuenen', '<ssn4>', <pin4>, <account4>, <salary4>, '<born4>', '<token4>', '{"plate": "<plate4>", "points": <points4>}', '{<alias4>,<nick4>}', '\x<photo4:hex>', '<code4>', '<phone4>', '<card4>1117', '<email4>@mail.example', '<file><no>doc<doc4></no></file>', '[<from4>,1999-01-01)', to_tsvector('simple', '<diary4>')),
  (5, 'Barbara',NULL,    '<ssn5>', <pin5>, <account5>, <salary5>, '<born5>', '<token5>', '{"plate": "<plate5>", "points": <points5>}', '{<alias5>,<nick5>}', '\x<photo5:hex>', '<code5>', '<phone5>', '<card5>8431', '<email5>@mail.example', '<file><no>doc<doc5></no></file>', '[<from5>,1999-01-01)', to_tsvector('simple', '<diary5>'));

-- A column that is clear for people, all of it secret here.
CREATE TABLE vault.diary (id int PRIMARY KEY, author int REFERENCES people, body text NOT NULL, ssn text REFERENCES people (ssn));
INSERT INTO vault.diary VALUES
  (11, 1, '<diary1>', '<ssn1>'), (12, 2, '<diary2>', '<ssn2>'), (13, 3, '<diary3>', '<ssn3>'), (14, 4, '<diary4>', '<ssn4>'), (15, 5, '<diary5>', '<ssn5>');

-- Inheritance and partitions.
CREATE TABLE staff (id int, name text, badge text);
CREATE TABLE staff_boss (office text) INHERITS (staff);
INSERT INTO staff VALUES (1, 'Ada', '<badge1>'), (2, 'Alan', '<badge2>');
INSERT INTO staff_boss VALUES (3, 'Grace', '<badge3>', 'east'), (4, 'Edsger', '<badge4>', 'west');
CREATE TABLE ledger (id int, amount int) PARTITION BY RANGE (id);
CREATE TABLE ledger_low PARTITION OF ledger FOR VALUES FROM (0) TO (3);
CREATE TABLE ledger_high PARTITION OF ledger FOR VALUES FROM (3) TO (100);
INSERT INTO ledger VALUES (1, <amount1>), (2, <amount2>), (3, <amount3>), (4, <amount4>), (5, <amount5>);

-- Views that an administrator made.
CREATE VIEW people_view AS SELECT id, name, ssn AS number, upper(ssn) AS loud, pin + 1 AS next FROM people;
CREATE VIEW people_view2 AS SELECT v.id, v.number || '/' || v.name AS label, p.email FROM people_view v JOIN people p USING (id);
CREATE VIEW people_rows AS SELECT p AS whole FROM people p;
CREATE VIEW people_count AS SELECT city, count(*) AS n FROM people GROUP BY city;
CREATE MATERIALIZED VIEW people_copy AS SELECT id, ssn AS kept, pin FROM people;
CREATE RECURSIVE VIEW people_chain (id, path) AS
  SELECT id, ssn FROM people WHERE id = 1 UNION ALL SELECT p.id, c.path || p.ssn FROM people p JOIN people_chain c ON p.id = c.id + 1;

-- Clear tables, to read and to write.
CREATE TABLE cities (name text PRIMARY KEY, people int, area numeric);
INSERT INTO cities VALUES ('London', 9000000, 1572.03), ('Boston', 650000, 125.4), ('Nuenen', 23000, 34.1);
CREATE TABLE notes (id int PRIMARY KEY, body text, n bigint, at date, data jsonb, raw bytea, list text[]);
INSERT INTO notes VALUES (1, 'hello', 1, '2026-01-01', '{"k": "v"}', '\x00ff', '{a,b}'), (2, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE SEQUENCE counter;
CREATE STATISTICS people_values (mcv) ON ssn, pin FROM people;
CREATE STATISTICS people_loud ON (upper(ssn)) FROM people;

-- Functions of the database's users.
CREATE FUNCTION ssn_of(int) RETURNS text LANGUAGE sql STABLE AS 'SELECT ssn FROM people WHERE id = $1';
CREATE FUNCTION all_people() RETURNS SETOF people LANGUAGE sql STABLE AS 'SELECT * FROM people';
CREATE FUNCTION tell(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'ssn is %', (SELECT ssn FROM people WHERE id = $1); RETURN $1; END $$;
CREATE FUNCTION blurt(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'ssn is %', (SELECT ssn FROM people WHERE id = $1); END $$;
CREATE FUNCTION shout(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT upper($1) || '!' $$;
CREATE FUNCTION run(sql text) RETURNS text LANGUAGE plpgsql AS $$ DECLARE r text; BEGIN EXECUTE sql INTO r; RETURN r; END $$;
CREATE PROCEDURE publish() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO notes SELECT id + 100, ssn FROM people; END $$;
CREATE AGGREGATE gather(text) (SFUNC = textcat, STYPE = text);
CREATE FUNCTION same(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 < $2';
CREATE OPERATOR <<<< (LEFTARG = text, RIGHTARG = text, FUNCTION = same);
CREATE FUNCTION leak(cities) RETURNS text LANGUAGE sql STABLE AS 'SELECT ssn FROM people WHERE id = 1';
CREATE FUNCTION "Upper"(text) RETURNS text LANGUAGE sql STABLE AS 'SELECT ssn FROM people WHERE id = 1';
CREATE FUNCTION to_ascii(int) RETURNS text LANGUAGE sql STABLE AS 'SELECT ssn FROM people WHERE id = $1';
CREATE FUNCTION known(int) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT ssn FROM people WHERE id = $1';
CREATE OPERATOR ~~~> (RIGHTARG = int, FUNCTION = ssn_of);
CREATE FUNCTION mood_text(mood) RETURNS text LANGUAGE sql STABLE AS 'SELECT ssn FROM people WHERE id = 1';
CREATE CAST (mood AS text) WITH FUNCTION mood_text(mood);
CREATE DOMAIN told AS int CHECK (tell(VALUE) > 0);
