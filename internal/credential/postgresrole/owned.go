package postgresrole

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// dropOwned empties each database of what the role owns and may.
func (r *revocation) dropOwned(ctx context.Context) error {
	// dbid is 0 for what belongs to all databases, which any of them can do.
	const query = `SELECT d.datname::text FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
			WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1
		UNION SELECT current_database()::text`
	rows, err := r.admin.Query(ctx, query, r.oid)
	if err != nil {
		return err
	}
	databases, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	heir, err := r.heir(ctx)
	if err != nil {
		return err
	}
	slices.Sort(databases)
	for _, database := range databases {
		err := r.in(ctx, database, func(conn *pgx.Conn) error { return r.dropOwnedIn(ctx, conn, heir) })
		if err != nil {
			return fmt.Errorf("in database %s: %w", database, err)
		}
	}
	return nil
}

const orphans = "chaperone_orphans"

// heir is who gets what the role owns; empty when it owns nothing.
func (r *revocation) heir(ctx context.Context) (string, error) {
	const query = `SELECT
		EXISTS (SELECT FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid = $1 AND deptype = 'o'),
		EXISTS (SELECT FROM pg_roles WHERE rolname = $2 AND NOT rolsuper), current_user::text`
	var owns, heir bool
	var admin string
	if err := r.admin.QueryRow(ctx, query, r.oid, r.account.Heir).Scan(&owns, &heir, &admin); err != nil {
		return "", err
	}
	if !owns {
		return "", nil
	}
	if heir {
		return r.account.Heir, nil
	}
	// From PostgreSQL 16 on the orphanage that another administrator has made is not
	// open to this one, which then has its own.
	own := orphans + "_" + admin
	for _, name := range []string{orphans, own[:min(len(own), maxIdentifier)]} {
		open, err := r.orphanage(ctx, name)
		if err != nil || open {
			return name, err
		}
	}
	return "", fmt.Errorf("nothing can be given to role %s: GRANT it TO %s WITH ADMIN OPTION", orphans, identifier(admin))
}

// orphanage makes the role if it isn't there, and tells whether something can be given
// to it.
func (r *revocation) orphanage(ctx context.Context, name string) (open bool, err error) {
	err = r.admin.QueryRow(ctx, "SELECT NOT r.rolsuper AND "+mayGive+" FROM pg_roles r WHERE r.rolname = $1", name).Scan(&open)
	if errors.Is(err, pgx.ErrNoRows) {
		_, err = r.admin.Exec(ctx, "CREATE ROLE "+identifier(name)+" NOLOGIN")
		return err == nil, err
	}
	return open, err
}

// dropOwnedIn hands over what the role owns in one database and takes its
// privileges.
func (r *revocation) dropOwnedIn(ctx context.Context, conn *pgx.Conn, heir string) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		borrowed, err := r.missingMemberships(ctx, tx, heir)
		if err != nil {
			return err
		}
		var before, after []string
		for _, name := range borrowed {
			before = append(before, "GRANT "+identifier(name)+" TO CURRENT_USER"+r.fullMembership())
			after = append(after, "REVOKE "+identifier(name)+" FROM CURRENT_USER")
		}
		role := identifier(r.account.Name)
		if heir != "" {
			before = append(before, "REASSIGN OWNED BY "+role+" TO "+identifier(heir))
		}
		if err := execAll(ctx, tx, before); err != nil {
			var answer *pgconn.PgError
			if errors.As(err, &answer) && answer.Code == insufficientPrivilege {
				err = fmt.Errorf("%w (PostgreSQL wants of an owner that it may CREATE in the object's schema, of a publication's in its database)", err)
			}
			return fmt.Errorf("hand over what it owns, to %s: %w", cmp.Or(heir, "nobody"), err)
		}
		if err := r.takePrivileges(ctx, tx); err != nil {
			return err
		}
		// What is left are default privileges and row security policies.
		if err := execAll(ctx, tx, []string{"DROP OWNED BY " + role}); err != nil {
			return fmt.Errorf("take what it was given: %w", err)
		}
		return execAll(ctx, tx, after)
	})
}

func execAll(ctx context.Context, tx pgx.Tx, statements []string) error {
	for _, statement := range statements {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// missingMemberships are the roles that an administrator who is no superuser
// must become a member of, for this transaction: the heir, to give it
// something, and the roles whose member the job's was, for privileges that it
// gave itself in their name.
func (r *revocation) missingMemberships(ctx context.Context, tx pgx.Tx, heir string) ([]string, error) {
	if r.super {
		return nil, nil
	}
	const query = `SELECT rolname::text FROM pg_roles
		WHERE (rolname = $1 OR oid IN (SELECT roleid FROM pg_auth_members WHERE member = $2))
		  AND NOT pg_has_role(oid, 'USAGE') ORDER BY 1`
	rows, err := tx.Query(ctx, query, heir, r.oid)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// privilegesQuery lists the privileges that a role has in one database, the
// object of each, and who granted it. $1 is the role's OID.
const privilegesQuery = `WITH acls (classid, objid, objsubid, name, acl) AS (
		SELECT 'pg_class'::regclass, oid, 0, '', relacl FROM pg_class
		UNION ALL SELECT 'pg_class'::regclass, attrelid, attnum, attname, attacl FROM pg_attribute
		UNION ALL SELECT 'pg_proc'::regclass, oid, 0, '', proacl FROM pg_proc
		UNION ALL SELECT 'pg_namespace'::regclass, oid, 0, '', nspacl FROM pg_namespace
		UNION ALL SELECT 'pg_type'::regclass, oid, 0, '', typacl FROM pg_type
		UNION ALL SELECT 'pg_language'::regclass, oid, 0, '', lanacl FROM pg_language
		UNION ALL SELECT 'pg_database'::regclass, oid, 0, '', datacl FROM pg_database
		UNION ALL SELECT 'pg_tablespace'::regclass, oid, 0, '', spcacl FROM pg_tablespace
		UNION ALL SELECT 'pg_largeobject'::regclass, oid, 0, '', lomacl FROM pg_largeobject_metadata
		UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, 0, '', fdwacl FROM pg_foreign_data_wrapper
		UNION ALL SELECT 'pg_foreign_server'::regclass, oid, 0, '', srvacl FROM pg_foreign_server)
	SELECT a.privilege_type, acls.name::text, o.type, o.identity, pg_get_userbyid(a.grantor)::text
	FROM pg_shdepend s
		JOIN acls ON acls.classid = s.classid AND acls.objid = s.objid AND acls.objsubid = s.objsubid,
		aclexplode(acls.acl) a, pg_identify_object(s.classid, s.objid, 0) o
	WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1 AND s.deptype = 'a'
		AND s.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
		AND a.grantee = $1
	ORDER BY 4, 1, 2, 5`

// takePrivileges revokes each privilege in the name of who granted it. DROP
// OWNED alone doesn't do: it revokes as an object's owner would, so what
// another role with a grant option has given stays. A job could give its role
// something in the name of a group that it is a member of, and so keep the
// role from being dropped.
func (r *revocation) takePrivileges(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, privilegesQuery, r.oid)
	if err != nil {
		return err
	}
	type privilege struct{ Name, Column, Type, Identity, Grantor string }
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[privilege])
	if err != nil {
		return err
	}
	for _, p := range all {
		what := p.Name
		if p.Column != "" {
			what += " (" + identifier(p.Column) + ")"
		}
		err := execAll(ctx, tx, []string{
			"SET LOCAL ROLE " + identifier(p.Grantor),
			"REVOKE " + what + " ON " + grantWord(p.Type) + " " + p.Identity + " FROM " + identifier(r.account.Name) + " CASCADE",
			"RESET ROLE",
		})
		if err != nil {
			return fmt.Errorf("take the privilege %s that %s granted to it on %s %s: %w", p.Name, p.Grantor, p.Type, p.Identity, err)
		}
	}
	return nil
}

// grantWord is what REVOKE calls a type of pg_identify_object.
func grantWord(objectType string) string {
	switch objectType {
	case "view", "materialized view", "foreign table":
		return "TABLE"
	case "function", "procedure", "aggregate":
		return "ROUTINE"
	case "domain":
		return "TYPE"
	case "server":
		return "FOREIGN SERVER"
	}
	return strings.ToUpper(strings.ReplaceAll(objectType, "-", " ")) // TABLE, SCHEMA, FOREIGN DATA WRAPPER, …
}
