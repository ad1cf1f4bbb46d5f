package postgresrole_test

import (
	"strings"
	"testing"

	"chaperone.dev/chaperone/internal/credential/postgresrole"
)

func whatAJobMakesGoesToItsOwner(t *testing.T, b *bench) {
	b.exec(t, "postgres", "CREATE ROLE shop_owner", "GRANT shop_owner TO minter WITH ADMIN OPTION")
	b.exec(t, "shop", "GRANT CREATE ON DATABASE shop TO shop_rw, shop_owner")
	// Of each kind one that the job makes, and how its owner is asked for.
	kinds := []struct{ name, make, owner string }{
		{"schema", "CREATE SCHEMA made", "SELECT nspowner FROM pg_namespace WHERE nspname = 'made'"},
		{"table", "CREATE TABLE made.t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int CHECK (n > 0), s serial)", "SELECT relowner FROM pg_class WHERE oid = 'made.t'::regclass"},
		{"its sequence", "SELECT 1", "SELECT relowner FROM pg_class WHERE oid = 'made.t_s_seq'::regclass"},
		{"its index", "CREATE INDEX t_n ON made.t (n)", "SELECT relowner FROM pg_class WHERE oid = 'made.t_n'::regclass"},
		{"partitioned table", "CREATE TABLE made.p (id int) PARTITION BY RANGE (id)", "SELECT relowner FROM pg_class WHERE oid = 'made.p'::regclass"},
		{"partition", "CREATE TABLE made.p1 PARTITION OF made.p FOR VALUES FROM (0) TO (10)", "SELECT relowner FROM pg_class WHERE oid = 'made.p1'::regclass"},
		{"sequence", "CREATE SEQUENCE made.q", "SELECT relowner FROM pg_class WHERE oid = 'made.q'::regclass"},
		{"view", "CREATE VIEW made.v AS SELECT n FROM made.t", "SELECT relowner FROM pg_class WHERE oid = 'made.v'::regclass"},
		{"materialized view", "CREATE MATERIALIZED VIEW made.m AS SELECT n FROM made.t", "SELECT relowner FROM pg_class WHERE oid = 'made.m'::regclass"},
		{"function", "CREATE FUNCTION made.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "SELECT proowner FROM pg_proc WHERE proname = 'f' AND pronamespace = 'made'::regnamespace"},
		{"procedure", "CREATE PROCEDURE made.pr() LANGUAGE sql AS 'SELECT 1'", "SELECT proowner FROM pg_proc WHERE proname = 'pr' AND pronamespace = 'made'::regnamespace"},
		{"aggregate", "CREATE AGGREGATE made.a (int) (sfunc = int4pl, stype = int, initcond = '0')", "SELECT proowner FROM pg_proc WHERE proname = 'a' AND pronamespace = 'made'::regnamespace"},
		{"enum", "CREATE TYPE made.e AS ENUM ('x')", "SELECT typowner FROM pg_type WHERE oid = 'made.e'::regtype"},
		{"composite type", "CREATE TYPE made.c AS (x int)", "SELECT typowner FROM pg_type WHERE oid = 'made.c'::regtype"},
		{"range type", "CREATE TYPE made.r AS RANGE (subtype = int)", "SELECT typowner FROM pg_type WHERE oid = 'made.r'::regtype"},
		{"domain", "CREATE DOMAIN made.d AS text", "SELECT typowner FROM pg_type WHERE oid = 'made.d'::regtype"},
		{"collation", "CREATE COLLATION made.co (locale = 'C')", "SELECT collowner FROM pg_collation WHERE collname = 'co'"},
		{"operator", "CREATE OPERATOR made.### (leftarg = int, rightarg = int, function = int4pl)", "SELECT oprowner FROM pg_operator WHERE oprname = '###'"},
		{"text search", "CREATE TEXT SEARCH CONFIGURATION made.ts (COPY = pg_catalog.simple)", "SELECT cfgowner FROM pg_ts_config WHERE cfgname = 'ts'"},
		{"statistics", "CREATE STATISTICS made.st ON id, n FROM made.t", "SELECT stxowner FROM pg_statistic_ext WHERE stxname = 'st'"},
		{"publication", "CREATE PUBLICATION pub FOR TABLE made.t", "SELECT pubowner FROM pg_publication WHERE pubname = 'pub'"},
		{"large object", "SELECT lo_from_bytea(4711, 'hello')", "SELECT lomowner FROM pg_largeobject_metadata WHERE oid = 4711"},
		{"default privileges", "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO nobody", "SELECT 'the_owner'::regrole::oid WHERE NOT EXISTS (SELECT FROM pg_default_acl)"},
	}
	for _, test := range []struct{ name, admin, owner, want string }{
		{"the first of memberOf", "createrole", "", "shop_rw"},
		{"the owner that is named", "createrole", "shop_owner", "shop_owner"},
		{"by a superuser", "superuser", "shop_owner", "shop_owner"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := order(b.admins[test.admin], "shop_rw")
			o.Target.Spec.Credential.PostgresRole.Owner = test.owner
			entry, secret := mustIssue(t, o)
			conn := connect(t, b.DSN("shop", entry.Account.Name, secret.Reveal()))
			for _, kind := range kinds {
				run(t, conn, kind.make)
			}
			revoke(t, entry)
			for _, kind := range kinds {
				var owner string
				b.ask(t, "shop", "SELECT pg_get_userbyid(("+strings.ReplaceAll(kind.owner, "the_owner", test.want)+"))", nil, &owner)
				if owner != test.want {
					t.Errorf("%s belongs to %s", kind.name, owner)
				}
			}
			b.exec(t, "shop", "DROP PUBLICATION pub", "DROP SCHEMA made CASCADE", "SELECT lo_unlink(4711)")
		})
	}
}

func anOwnerThatCantOwnIsRefusedAtOnce(t *testing.T, b *bench) {
	b.exec(t, "postgres", "CREATE ROLE foreign_owner")
	for owner, want := range map[string]string{
		"missing":  `owner: there is no role "missing"`,
		"postgres": `owner: role "postgres" is a superuser`,
		"foreign_owner": `owner: nothing can be given to role "foreign_owner": ` +
			`GRANT "foreign_owner" TO "minter" WITH ADMIN OPTION`,
	} {
		o := order(b.admins["createrole"], "shop_rw")
		o.Target.Spec.Credential.PostgresRole.Owner = owner
		entry, _, err := issue(t, o)
		var version int
		b.ask(t, "postgres", "SELECT current_setting('server_version_num')::int / 10000", nil, &version)
		if owner == "foreign_owner" && version < 16 { // where CREATEROLE is enough
			if err != nil {
				t.Error(err)
			}
			if err := (postgresrole.Issuer{}).Revoke(t.Context(), entry); err != nil {
				t.Error(err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
