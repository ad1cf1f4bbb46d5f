package pgsql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"chaperone.dev/chaperone/internal/lab"
)

// harmlessVolatile are the built-in functions that count as harmless though
// PostgreSQL calls them volatile: they tell something that changes by itself.
var harmlessVolatile = []string{
	"array_sample", "array_shuffle", "clock_timestamp", "current_query", "currval", "gen_random_uuid", "lastval",
	"pg_blocking_pids", "pg_collation_actual_version", "pg_control_system", "pg_current_wal_flush_lsn",
	"pg_current_wal_insert_lsn", "pg_current_wal_lsn", "pg_database_size", "pg_get_loaded_modules", "pg_indexes_size",
	"pg_is_in_recovery", "pg_is_wal_replay_paused", "pg_jit_available", "pg_last_committed_xact",
	"pg_last_wal_receive_lsn", "pg_last_wal_replay_lsn", "pg_last_xact_replay_timestamp", "pg_lock_status",
	"pg_notification_queue_usage", "pg_partition_ancestors", "pg_partition_tree", "pg_prepared_xact",
	"pg_relation_size", "pg_safe_snapshot_blocking_pids", "pg_sequence_last_value", "pg_table_size",
	"pg_tablespace_size", "pg_total_relation_size", "pg_xact_commit_timestamp", "pg_xact_status", "random",
	"random_normal", "timeofday", "txid_status", "uuidv4", "uuidv7",
}

// The lists of functions are compared with what servers say of their own.
func TestBuiltinsOfServers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	versions, err := lab.PostgresVersions()
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range versions {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			conn := connect(t, version)
			compareBuiltins(t, conn)
			checkFieldCalls(t, conn)
			callHarmless(t, conn)
		})
	}
}

func connect(t *testing.T, version int) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pg, err := lab.StartPostgres(ctx, lab.PostgresOptions{Version: version, Config: map[string]string{"autovacuum": "off"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	conn, err := pgx.Connect(ctx, pg.AdminDSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func compareBuiltins(t *testing.T, conn *pgx.Conn) {
	// Handlers, trigger functions and what takes internal types can't be
	// called by anybody. The *out functions of pseudo-types can, and say so.
	rows, err := conn.Query(t.Context(), `
		SELECT proname::text, bool_or(provolatile = 'v'), bool_or(pronargs - pronargdefaults <= 1 AND pronargs >= 1),
		       bool_or(proretset)
		FROM pg_proc
		WHERE pronamespace = 'pg_catalog'::regnamespace AND oid < 16384 AND prorettype <> ALL ('{internal,trigger,event_trigger}'::regtype[])
		  AND NOT proargtypes::oid[] && '{internal,cstring}'::regtype[]::oid[]
		GROUP BY proname`)
	if err != nil {
		t.Fatal(err)
	}
	var name string
	var volatile, one, set bool
	n := 0
	_, err = pgx.ForEachRow(rows, []any{&name, &volatile, &one, &set}, func() error {
		n++
		harmless := Builtin(name)
		if harmless && volatile && !slices.Contains(harmlessVolatile, name) {
			t.Errorf("%s is volatile, and counts as harmless", name)
		}
		if harmless && strings.Contains(name, "_to_xml") {
			t.Errorf("%s runs SQL, and counts as harmless", name)
		}
		if volatile && one && !harmless && !SideEffect(name) {
			t.Errorf("(x).%s could be called unseen", name)
		}
		if harmless && SideEffect(name) {
			t.Errorf("%s is harmless and isn't", name)
		}
		if harmless && set && !SetReturning(name) {
			t.Errorf("%s returns sets, and isn't listed", name)
		}
		return nil
	})
	if err != nil || n < 2000 {
		t.Errorf("%d functions, %v", n, err)
	}
}

// checkFieldCalls makes sure that what is taken for a call is one.
func checkFieldCalls(t *testing.T, conn *pgx.Conn) {
	ctx := t.Context()
	for _, text := range []string{
		"CREATE SEQUENCE s", "CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)",
		"CREATE FUNCTION touch(t) RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('s') $$",
	} {
		if _, err := conn.Exec(ctx, text); err != nil {
			t.Fatal(err)
		}
	}
	for i, text := range []string{"SELECT ('s'::regclass).nextval", "SELECT t.touch FROM t"} {
		var got int
		if err := conn.QueryRow(ctx, text).Scan(&got); err != nil || got != i+1 {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
}

// callHarmless calls the functions that count as harmless, as far as there are values
// for them. None may change anything.
func callHarmless(t *testing.T, conn *pgx.Conn) {
	ctx := t.Context()
	rows, err := conn.Query(ctx, `
		SELECT DISTINCT proname::text, array(SELECT format('%s::%s', CASE
		         WHEN a IN ('text'::regtype, 'name'::regtype, 'bpchar'::regtype, 'varchar'::regtype, 'bytea'::regtype) THEN $$'a'$$
		         WHEN a IN ('json'::regtype, 'jsonb'::regtype) THEN $$'{"a": 1}'$$
		         WHEN a IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype) THEN $$'2020-01-01'$$
		         WHEN a = 'regclass'::regtype THEN $$'t'$$ WHEN a = 'pg_lsn'::regtype THEN $$'0/1'$$ ELSE '1' END, format_type(a, NULL))
		       FROM unnest(proargtypes) WITH ORDINALITY AS u (a, n) ORDER BY n)
		FROM pg_proc
		WHERE pronamespace = 'pg_catalog'::regnamespace AND oid < 16384 AND prokind = 'f' AND provariadic = 0
		  AND proargtypes::oid[] <@ '{text,name,bpchar,varchar,bytea,json,jsonb,date,timestamp,timestamptz,regclass,pg_lsn,int2,int4,int8,oid,float4,float8,numeric,bool,xid8}'::regtype[]::oid[]`)
	if err != nil {
		t.Fatal(err)
	}
	var calls []string
	var name string
	var arguments []string
	if _, err := pgx.ForEachRow(rows, []any{&name, &arguments}, func() error {
		if Builtin(name) && name != "txid_current" && name != "pg_current_xact_id" { // those take a number, no more
			calls = append(calls, fmt.Sprintf("SELECT pg_catalog.%q(%s)", name, strings.Join(arguments, ", ")))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	next := func() (xid string) {
		if err := conn.QueryRow(ctx, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text").Scan(&xid); err != nil {
			t.Fatal(err)
		}
		return xid
	}
	if _, err := conn.Exec(ctx, "SET default_transaction_read_only = on"); err != nil {
		t.Fatal(err)
	}
	before, ran := next(), 0
	for _, call := range calls {
		_, err := conn.Exec(ctx, call)
		var refused *pgconn.PgError
		switch {
		case err == nil:
			ran++
		case !errors.As(err, &refused):
			t.Fatalf("%s: %v", call, err)
		case refused.Code == "25006":
			t.Errorf("%s: %v", call, err)
		}
		if after := next(); after != before {
			t.Errorf("%s has changed something", call)
			before = after
		}
	}
	if ran < 1000 {
		t.Errorf("%d of %d functions ran", ran, len(calls))
	}
	t.Logf("%d of %d functions ran", ran, len(calls))
}
