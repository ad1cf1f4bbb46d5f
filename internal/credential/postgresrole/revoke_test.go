package postgresrole_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/credential/postgresrole"
)

func (b *bench) roleExists(t *testing.T, name string) bool {
	t.Helper()
	var exists bool
	b.ask(t, "postgres", "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", []any{name}, &exists)
	return exists
}

func run(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

func revoke(t *testing.T, entry credential.Entry) {
	t.Helper()
	if err := (postgresrole.Issuer{}).Revoke(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
}

// A job that left all kinds of things behind, in two databases, with its
// sessions still open.
func revokeLeavesNothingOfTheRole(t *testing.T, b *bench) {
	for _, admin := range []string{"superuser", "createrole"} {
		t.Run(admin, func(t *testing.T) {
			entry, secret := mustIssue(t, order(b.admins[admin], "shop_rw"))
			role, table := entry.Account.Name, "made_by_"+admin
			const memberships = "SELECT coalesce(string_agg(m::text, E'\\n' ORDER BY m::text), '') FROM pg_auth_members m WHERE member = 'minter'::regrole AND roleid <> $1"
			var oid uint32
			var before, after string
			b.ask(t, "postgres", "SELECT oid FROM pg_roles WHERE rolname = $1", []any{role}, &oid)
			b.ask(t, "postgres", memberships, []any{oid}, &before)

			inShop := connect(t, b.DSN("shop", role, secret.Reveal()))
			run(t, inShop, "CREATE TABLE "+table+" (id int)", "INSERT INTO "+table+" VALUES (42)",
				"CREATE VIEW "+table+"_view AS SELECT * FROM "+table,
				"CREATE FUNCTION "+table+"_who() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user::text'",
				"CREATE TEMP TABLE scratch (id int)",
				"GRANT SELECT ON orders TO nobody", // on by its grant option
				"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO nobody",
				"SELECT lo_create(0)",
				"BEGIN", "CREATE TABLE "+table+"_prepared (id int)", "PREPARE TRANSACTION 'it''s "+table+"'")
			inStock := connect(t, b.DSN("stock", role, secret.Reveal()))
			run(t, inStock, "CREATE TABLE "+table+" (id int)", "BEGIN", "LOCK TABLE "+table) // an open transaction
			asGroup := connect(t, b.DSN("stock", role, secret.Reveal()))
			run(t, asGroup, "SET ROLE shop_rw")
			run(t, asGroup, // to itself, in the group's name
				"GRANT SELECT ON orders TO "+role, "GRANT UPDATE (id) ON orders TO "+role, "GRANT USAGE ON SEQUENCE numbers TO "+role,
				"GRANT EXECUTE ON FUNCTION twice(int) TO "+role, "GRANT USAGE ON SCHEMA public TO "+role,
				"GRANT USAGE ON TYPE colour TO "+role, "GRANT CONNECT ON DATABASE stock TO "+role)
			if admin == "superuser" {
				b.exec(t, "stock", "GRANT INSERT ON orders TO "+role)
			}

			revoke(t, entry)

			if b.roleExists(t, role) {
				t.Error("the role is still there")
			}
			var sessions, prepared, depends int
			b.ask(t, "postgres", `SELECT (SELECT count(*) FROM pg_stat_activity WHERE usesysid = $1),
				(SELECT count(*) FROM pg_prepared_xacts), (SELECT count(*) FROM pg_shdepend WHERE refobjid = $1)`, []any{oid}, &sessions, &prepared, &depends)
			if sessions != 0 || prepared != 0 || depends != 0 {
				t.Errorf("%d sessions, %d prepared transactions, %d dependencies are left", sessions, prepared, depends)
			}
			for name, conn := range map[string]*pgx.Conn{"shop": inShop, "stock": inStock, "SET ROLE": asGroup} {
				if err := conn.Ping(t.Context()); err == nil {
					t.Errorf("session %s still works", name)
				}
			}
			if conn, err := pgx.Connect(t.Context(), b.DSN("shop", role, secret.Reveal())); err == nil {
				conn.Close(t.Context())
				t.Error("the role can still log in")
			}
			// Work survives, with the group that it was done for.
			var owner, who string
			var kept int
			b.ask(t, "shop", "SELECT pg_get_userbyid(relowner), (SELECT id FROM "+table+"), "+table+"_who() FROM pg_class WHERE relname = $1",
				[]any{table + "_view"}, &owner, &kept, &who)
			if owner != "shop_rw" || kept != 42 || who != "shop_rw" {
				t.Errorf("the view belongs to %s, the function runs as %s, the table holds %d", owner, who, kept)
			}
			b.ask(t, "postgres", memberships, []any{oid}, &after)
			if before != after {
				t.Errorf("the administrator is a member of\n%s\nand was of\n%s", after, before)
			}
			revoke(t, entry) // again: nothing to do is success
		})
	}
}

func revokeGivesWhatHasNoHeirToNobody(t *testing.T, b *bench) {
	b.exec(t, "shop", "GRANT CREATE ON SCHEMA public TO PUBLIC")
	for _, admin := range []string{"superuser", "createrole"} {
		t.Run(admin, func(t *testing.T) {
			// One role never had a heir, the heir of the other one is gone.
			b.exec(t, "postgres", "CREATE ROLE short_lived", "GRANT short_lived TO minter WITH ADMIN OPTION")
			for i, memberOf := range [][]string{nil, {"short_lived"}} {
				entry, secret := mustIssue(t, order(b.admins[admin], memberOf...))
				table := admin + string(rune('a'+i))
				conn := connect(t, b.DSN("shop", entry.Account.Name, secret.Reveal()))
				run(t, conn, "CREATE TABLE "+table+" (id int)")
				if memberOf != nil {
					b.exec(t, "postgres", "DROP ROLE short_lived")
				}
				revoke(t, entry)
				var owner string
				b.ask(t, "shop", "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = $1", []any{table}, &owner)
				// What another administrator has made is not open to this one from 16 on.
				if owner != "chaperone_orphans" && (owner != "chaperone_orphans_minter" || admin == "superuser") {
					t.Errorf("%s belongs to %s now", table, owner)
				}
			}
			var login bool
			b.ask(t, "postgres", "SELECT bool_or(rolcanlogin OR rolsuper) FROM pg_roles WHERE rolname ~ '^chaperone_orphans'", nil, &login)
			if login {
				t.Error("chaperone_orphans has rights")
			}
		})
	}
}

// A privilege that a superuser gave to the role by hand is not the
// administrator's to take, as PostgreSQL sees it.
func revokeSaysWhatItMayNotTake(t *testing.T, b *bench) {
	entry, secret := mustIssue(t, order(b.admins["createrole"], "shop_rw"))
	b.exec(t, "stock", "GRANT INSERT ON orders TO "+entry.Account.Name)
	err := postgresrole.Issuer{}.Revoke(t.Context(), entry)
	if err == nil || !strings.Contains(err.Error(), "INSERT that postgres granted to it on table public.orders") {
		t.Errorf("got %v, want it to name the privilege", err)
	}
	if conn, err := pgx.Connect(t.Context(), b.DSN("shop", entry.Account.Name, secret.Reveal())); err == nil {
		conn.Close(t.Context())
		t.Error("the role that couldn't be dropped can still log in")
	}
	b.exec(t, "stock", "REVOKE INSERT ON orders FROM "+entry.Account.Name)
	revoke(t, entry)
	if b.roleExists(t, entry.Account.Name) {
		t.Error("the role is still there")
	}
}

func TestRevokeTouchesNoOtherGrantsRole(t *testing.T) {
	b := newBench(t)
	entry, _ := mustIssue(t, order(b.admins["createrole"], "shop_rw"))
	other := entry
	other.ID = "02-other"
	err := postgresrole.Issuer{}.Revoke(t.Context(), other)
	if err == nil || !strings.Contains(err.Error(), "made for grant 01-grant") {
		t.Errorf("got %v", err)
	}
	if !b.roleExists(t, entry.Account.Name) {
		t.Error("the role was dropped")
	}
	// A comment that an administrator removed is no reason to keep the role.
	b.exec(t, "postgres", "COMMENT ON ROLE "+entry.Account.Name+" IS NULL")
	revoke(t, entry)
	if b.roleExists(t, entry.Account.Name) {
		t.Error("the role is still there")
	}
}

func TestRevokeOfARoleThatNeverCameToBe(t *testing.T) {
	b := newBench(t)
	plan, err := postgresrole.Issuer{}.Plan(order(b.admins["createrole"]))
	if err != nil {
		t.Fatal(err)
	}
	revoke(t, credential.Entry{ID: "01-grant", Account: plan.Account})
}

func TestRevokeSaysWhenTheServerIsAway(t *testing.T) {
	b := newBench(t)
	entry, _ := mustIssue(t, order(b.admins["createrole"]))
	if err := b.Halt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := (postgresrole.Issuer{}).Revoke(t.Context(), entry); err == nil {
		t.Error("revoked at a server that isn't there")
	}
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	revoke(t, entry)
	if b.roleExists(t, entry.Account.Name) {
		t.Error("the role is still there")
	}
}
