package postgresrole

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/credential/postgresadmin"
)

// Revoke implements credential.Issuer. In this order, so that a failure
// leaves less and less of the role and never a usable one:
//
//  1. no new sessions: NOLOGIN, VALID UNTIL in the past;
//  2. its sessions are terminated, and gone;
//  3. its prepared transactions, which outlive sessions, are rolled back;
//  4. in each database: what it owns goes to its heir, its privileges go;
//  5. the role is dropped;
//  6. queries show that neither role nor session is there.
//
// The heir is the document's owner, or else the first role of memberOf, if it is
// still there. Objects never
// go to the administrator: a view or a SECURITY DEFINER function runs with
// its owner's rights, so a planner could leave behind one that acts as a
// superuser. Without an heir they go to "chaperone_orphans", a role that is
// made when needed, has no rights and can't log in.
func (Issuer) Revoke(ctx context.Context, entry credential.Entry) error {
	if err := revoke(ctx, entry); err != nil {
		return fmt.Errorf("drop role %s: %w", entry.Account.Name, explain(err))
	}
	return nil
}

// revocation is one run of Revoke.
type revocation struct {
	admin   *pgx.Conn // to the database of the administrator's connection string
	account credential.Account
	oid     uint32
	super   bool // the administrator is a superuser
}

func revoke(ctx context.Context, entry credential.Entry) error {
	conn, err := postgresadmin.Connect(ctx, entry.Account.AdminFile, "")
	if err != nil {
		return err
	}
	defer postgresadmin.Close(ctx, conn)
	r := &revocation{admin: conn, account: entry.Account}
	found, err := r.find(ctx, entry.ID)
	if err != nil || !found {
		return err
	}
	for _, step := range []func(context.Context) error{
		r.shut, r.terminate, r.rollbackPrepared, r.dropOwned, r.drop, r.verify,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// find looks the role up, and refuses one that was made for another grant.
func (r *revocation) find(ctx context.Context, grant string) (bool, error) {
	const query = `SELECT r.oid, coalesce(shobj_description(r.oid, 'pg_authid'), ''),
			(SELECT a.rolsuper FROM pg_roles a WHERE a.rolname = current_user)
		FROM pg_roles r WHERE r.rolname = $1`
	var comment string
	err := r.admin.QueryRow(ctx, query, r.account.Name).Scan(&r.oid, &comment, &r.super)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if _, other, ok := strings.Cut(comment, grantMark); ok && other != grant {
		return false, fmt.Errorf("a role of this name exists, but its comment says that it was made for grant %s, not %s", other, grant)
	}
	return true, nil
}

// shut lets no session begin. An administrator that is no superuser becomes a
// member of the role first, without which it may neither end its sessions nor
// touch what it owns.
func (r *revocation) shut(ctx context.Context) error {
	if !r.super {
		if _, err := r.admin.Exec(ctx, "GRANT "+identifier(r.account.Name)+" TO CURRENT_USER"+r.fullMembership()); err != nil {
			return err
		}
	}
	_, err := r.admin.Exec(ctx, "ALTER ROLE "+identifier(r.account.Name)+" NOLOGIN CONNECTION LIMIT 0 VALID UNTIL '-infinity'")
	return err
}

// fullMembership spells out what was implied before PostgreSQL 16.
func (r *revocation) fullMembership() string {
	if r.serverVersion() >= 16 {
		return " WITH INHERIT TRUE, SET TRUE"
	}
	return ""
}

func (r *revocation) serverVersion() int {
	var major int
	// "15.14 (Debian …)", "16beta1"
	_, _ = fmt.Sscanf(r.admin.PgConn().ParameterStatus("server_version"), "%d", &major)
	return major
}

// terminate ends the role's sessions and waits until none is left.
func (r *revocation) terminate(ctx context.Context) error {
	const query = `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usesysid = $1`
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		var sessions int
		if err := r.admin.QueryRow(ctx, query, r.oid).Scan(&sessions); err != nil {
			return fmt.Errorf("end its sessions: %w", err)
		}
		if sessions == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of its sessions don't end: %w", sessions, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// rollbackPrepared rolls back what the role has prepared (PREPARE
// TRANSACTION). That works only in the transaction's own database, and only
// for its owner or a superuser.
func (r *revocation) rollbackPrepared(ctx context.Context) error {
	rows, err := r.admin.Query(ctx, "SELECT database, gid FROM pg_prepared_xacts WHERE owner = $1", r.account.Name)
	if err != nil {
		return err
	}
	type prepared struct{ Database, GID string }
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[prepared])
	if err != nil {
		return err
	}
	for _, p := range all {
		err := r.in(ctx, p.Database, func(conn *pgx.Conn) error {
			gid, err := literal(conn, p.GID)
			if err != nil {
				return err
			}
			if !r.super {
				if _, err := conn.Exec(ctx, "SET ROLE "+identifier(r.account.Name)); err != nil {
					return err
				}
				defer func() { _, _ = conn.Exec(ctx, "RESET ROLE") }() // a connection that can't is broken, as the next use shows
			}
			_, err = conn.Exec(ctx, "ROLLBACK PREPARED "+gid)
			return err
		})
		if err != nil {
			return fmt.Errorf("roll back its prepared transaction in database %s: %w", p.Database, err)
		}
	}
	return nil
}

func (r *revocation) drop(ctx context.Context) error {
	_, err := r.admin.Exec(ctx, "DROP ROLE IF EXISTS "+identifier(r.account.Name))
	return err
}

// verify asks the server, instead of believing the statements' success. A
// session that was between its authentication and its entry in
// pg_stat_activity when the role was shut shows up here.
func (r *revocation) verify(ctx context.Context) error {
	if err := r.terminate(ctx); err != nil {
		return err
	}
	var exists bool
	if err := r.admin.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", r.account.Name).Scan(&exists); err != nil {
		return err
	}
	if exists {
		return errors.New("it is still there")
	}
	return nil
}

// in runs do in a database, over the connection there is if it leads there.
func (r *revocation) in(ctx context.Context, database string, do func(*pgx.Conn) error) error {
	if r.admin.Config().Database == database {
		return do(r.admin)
	}
	conn, err := postgresadmin.Connect(ctx, r.account.AdminFile, database)
	if err != nil {
		return err
	}
	defer postgresadmin.Close(ctx, conn)
	return do(conn)
}
