package postgresrole

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/credential/postgresadmin"
	"chaperone.dev/chaperone/pkg/policy"
)

// Issuer makes and drops roles. The zero value is ready.
type Issuer struct {
	// Idle keeps the administrator's connection for the next job's role; nil: each
	// has its own.
	Idle *postgresadmin.Idle
}

var _ credential.Issuer = Issuer{}

// Kind implements credential.Issuer.
func (Issuer) Kind() string { return "postgresRole" }

const (
	defaultTTL             = 15 * time.Minute
	defaultConnectionLimit = 20
	maxIdentifier          = 63 // bytes, PostgreSQL's NAMEDATALEN less its NUL
	namePrefix             = "chaperone_"
)

// Plan implements credential.Issuer. The role is named
// "chaperone_<job's name>_<8 hex digits>".
func (Issuer) Plan(order credential.Order) (credential.Plan, error) {
	spec := order.Target.Spec.Credential.PostgresRole
	if spec == nil || spec.AdminFrom.File == "" {
		return credential.Plan{}, fmt.Errorf("target %s names no administrator for postgresRole", order.Target.Metadata.Name)
	}
	plan := credential.Plan{
		Account: credential.Account{Name: roleName(order.JobName), AdminFile: spec.AdminFrom.File, Heir: heir(spec)},
		TTL:     time.Duration(spec.TTL),
	}
	if plan.TTL == 0 {
		plan.TTL = defaultTTL
	}
	return plan, nil
}

// roleName makes a name that needs no quoting, whatever the job is called.
func roleName(job string) string {
	random := make([]byte, 4)
	rand.Read(random) // never fails
	suffix := "_" + hex.EncodeToString(random)
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(job))
	if room := maxIdentifier - len(namePrefix) - len(suffix); len(clean) > room {
		clean = clean[:room]
	}
	return namePrefix + clean + suffix
}

// heir is the owner that the document names, or else the first of the roles that
// the job acts as a member of and that can sensibly own something.
func heir(spec *policy.PostgresRoleSpec) string {
	if spec.Owner != "" {
		return spec.Owner
	}
	for _, name := range spec.MemberOf {
		if !strings.HasPrefix(name, "pg_") { // predefined roles
			return name
		}
	}
	return ""
}

// Issue implements credential.Issuer. The role, its memberships and its
// comment come into being in one transaction.
func (i Issuer) Issue(ctx context.Context, entry credential.Entry, order credential.Order) (credential.Secret, error) {
	password := make([]byte, 32)
	rand.Read(password)
	secret := base64.RawURLEncoding.EncodeToString(password)
	committing, err := i.create(ctx, entry, order, secret)
	if err == nil {
		return credential.NewSecret(secret), nil
	}
	var answer *pgconn.PgError
	if !committing || errors.As(err, &answer) {
		// A transaction that wasn't committed, or whose commit the server
		// refused, leaves nothing.
		return credential.Secret{}, fmt.Errorf("make role %s: %w (%w)", entry.Account.Name, explain(err), credential.ErrNotMade)
	}
	return credential.Secret{}, fmt.Errorf("make role %s: whether it was made is unknown: %w", entry.Account.Name, err)
}

// create returns whether it had come to the commit when it failed.
func (i Issuer) create(ctx context.Context, entry credential.Entry, order credential.Order, secret string) (committing bool, err error) {
	conn, reused, err := i.Idle.Take(ctx, entry.Account.AdminFile)
	if err != nil {
		return false, err
	}
	committing, err = createOver(ctx, conn, entry, order, secret)
	if reused && err != nil && !committing && conn.IsClosed() && ctx.Err() == nil {
		// It was broken before, as one that is idle may be.
		if conn, err = postgresadmin.Connect(ctx, entry.Account.AdminFile, ""); err != nil {
			return false, err
		}
		committing, err = createOver(ctx, conn, entry, order, secret)
	}
	i.Idle.Put(entry.Account.AdminFile, conn)
	return committing, err
}

func createOver(ctx context.Context, conn *pgx.Conn, entry credential.Entry, order credential.Order, secret string) (committing bool, err error) {
	spec := order.Target.Spec.Credential.PostgresRole
	salt := make([]byte, 16)
	rand.Read(salt)
	hashed, err := verifier(secret, salt, iterations)
	if err != nil {
		return false, err
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // nothing to roll back after the commit
	if err := checkMemberOf(ctx, tx, spec.MemberOf); err != nil {
		return false, err
	}
	if err := checkOwner(ctx, tx, spec.Owner); err != nil {
		return false, err
	}
	until, err := serverTime(ctx, tx, entry.Expires)
	if err != nil {
		return false, err
	}
	statement, err := createRole(conn, entry.Account.Name, hashed, until, spec)
	if err != nil {
		return false, err
	}
	if _, err := tx.Exec(ctx, statement); err != nil {
		return false, err
	}
	text, err := literal(conn, comment(order))
	if err != nil {
		return false, err
	}
	if _, err := tx.Exec(ctx, "COMMENT ON ROLE "+identifier(entry.Account.Name)+" IS "+text); err != nil {
		return false, err
	}
	return true, tx.Commit(ctx)
}

// checkMemberOf refuses roles that don't exist, and superusers: a minted role
// could become one by SET ROLE.
func checkMemberOf(ctx context.Context, tx pgx.Tx, memberOf []string) error {
	if len(memberOf) == 0 {
		return nil
	}
	const query = `SELECT m, r.oid IS NOT NULL
		FROM unnest($1::text[]) AS m LEFT JOIN pg_roles r ON r.rolname = m
		WHERE r.oid IS NULL
		   OR EXISTS (SELECT FROM pg_roles s WHERE s.rolsuper AND pg_has_role(r.oid, s.oid, 'MEMBER'))
		LIMIT 1`
	var name string
	var exists bool
	err := tx.QueryRow(ctx, query, memberOf).Scan(&name, &exists)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return err
	case exists:
		return fmt.Errorf("memberOf: role %q is a superuser or can become one, which no job may be", name)
	default:
		return fmt.Errorf("memberOf: there is no role %q", name)
	}
}

// mayGive tells, of the role r in a query, whether what another role owns can be given
// to it: by a superuser, by who has its privileges, or by who may make itself a member
// of it, which before PostgreSQL 16 everybody could with CREATEROLE.
const mayGive = `((SELECT a.rolsuper FROM pg_roles a WHERE a.rolname = current_user)
	OR pg_has_role(r.oid, 'USAGE') OR pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION')
	OR current_setting('server_version_num')::int < 160000)`

// checkOwner refuses, when the job begins, an owner that nothing could be given to when
// it ends.
func checkOwner(ctx context.Context, tx pgx.Tx, owner string) error {
	if owner == "" {
		return nil
	}
	const query = `SELECT r.rolsuper, ` + mayGive + `, current_user::text FROM pg_roles r WHERE r.rolname = $1`
	var super, may bool
	var admin string
	err := tx.QueryRow(ctx, query, owner).Scan(&super, &may, &admin)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("owner: there is no role %q", owner)
	case err != nil:
		return err
	case super:
		return fmt.Errorf("owner: role %q is a superuser: a view or function that a job leaves behind would run with its rights", owner)
	case !may:
		return fmt.Errorf("owner: nothing can be given to role %q: GRANT %s TO %s WITH ADMIN OPTION", owner, identifier(owner), identifier(admin))
	}
	return nil
}

// serverTime expresses a time by the server's clock, which may differ from
// ours, as a literal of type timestamptz.
func serverTime(ctx context.Context, tx pgx.Tx, t time.Time) (string, error) {
	const query = `SELECT to_char((clock_timestamp() + make_interval(secs => $1)) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')`
	var text string
	if err := tx.QueryRow(ctx, query, time.Until(t).Seconds()).Scan(&text); err != nil {
		return "", err
	}
	return "'" + text + "+00'", nil
}

func createRole(conn *pgx.Conn, name, hashed, until string, spec *policy.PostgresRoleSpec) (string, error) {
	limit := spec.ConnectionLimit
	if limit <= 0 {
		limit = defaultConnectionLimit
	}
	quoted, err := literal(conn, hashed)
	if err != nil {
		return "", err
	}
	var s strings.Builder
	fmt.Fprintf(&s, "CREATE ROLE %s WITH LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"+
		" CONNECTION LIMIT %d PASSWORD %s VALID UNTIL %s", identifier(name), limit, quoted, until)
	for i, role := range spec.MemberOf {
		s.WriteString([]string{" IN ROLE ", ", "}[min(i, 1)])
		s.WriteString(identifier(role))
	}
	return s.String(), nil
}

// comment tells a database administrator whom the role is for. The grant at
// its end is what Revoke knows its own roles by.
func comment(order credential.Order) string {
	const limit = 200
	cut := func(s string) string {
		if len(s) > limit {
			s = s[:limit]
		}
		return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "")
	}
	return fmt.Sprintf("Chaperone: job %s (%s) of %s@%s, node %s%s%s", cut(order.JobName), cut(order.Job),
		cut(order.Principal.Subject), cut(order.Principal.Issuer), cut(order.Node), grantMark, order.Grant)
}

const grantMark = ", grant "

// Renew implements credential.Issuer.
func (Issuer) Renew(ctx context.Context, entry credential.Entry, until time.Time) error {
	err := renew(ctx, entry, until)
	var answer *pgconn.PgError
	if errors.As(err, &answer) && answer.Code == undefinedObject {
		return fmt.Errorf("renew role %s: %w", entry.Account.Name, credential.ErrGone)
	}
	if err != nil {
		return fmt.Errorf("renew role %s: %w", entry.Account.Name, explain(err))
	}
	return nil
}

func renew(ctx context.Context, entry credential.Entry, until time.Time) error {
	conn, err := postgresadmin.Connect(ctx, entry.Account.AdminFile, "")
	if err != nil {
		return err
	}
	defer postgresadmin.Close(ctx, conn)
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		text, err := serverTime(ctx, tx, until)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "ALTER ROLE "+identifier(entry.Account.Name)+" VALID UNTIL "+text)
		return err
	})
}

// SQLSTATEs, PostgreSQL appendix A.
const (
	insufficientPrivilege      = "42501"
	undefinedObject            = "42704"
	dependentObjectsStillExist = "2BP01"
)

// explain says what to do about the server's answers that an administrator
// can do something about.
func explain(err error) error {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return err
	}
	switch answer.Code {
	case insufficientPrivilege:
		return fmt.Errorf("%w: the administrator's role needs CREATEROLE and, on PostgreSQL 16 and newer, ADMIN OPTION on every role in memberOf, and on owner", err)
	case dependentObjectsStillExist:
		return fmt.Errorf("%w: %s", err, answer.Detail)
	}
	return err
}

func identifier(name string) string { return pgx.Identifier{name}.Sanitize() }

// literal quotes text for statements that take no parameters.
func literal(conn *pgx.Conn, text string) (string, error) {
	escaped, err := conn.PgConn().EscapeString(text)
	if err != nil {
		return "", fmt.Errorf("quote a literal: %w", err)
	}
	return "'" + escaped + "'", nil
}
