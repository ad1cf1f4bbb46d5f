package postgressecret

import (
	"context"
	"fmt"
	"time"

	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/credential/postgresadmin"
	"chaperone.dev/chaperone/internal/credential/secretfile"
	"chaperone.dev/chaperone/pkg/policy"
)

// Issuer hands out stored passwords. The zero value is ready, and holds nothing
// between calls.
type Issuer struct{}

var _ credential.Refresher = Issuer{}

// Kind implements credential.Issuer.
func (Issuer) Kind() string { return "postgresSecret" }

// ttl is for how long the ledger says that a job has the account; it is renewed
// while the job lives.
const ttl = 15 * time.Minute

func specOf(order credential.Order) (*policy.PostgresSecretSpec, error) {
	spec := order.Target.Spec.Credential.PostgresSecret
	if spec == nil || spec.User == "" || spec.PasswordFrom.File == "" {
		return nil, fmt.Errorf("target %s names no role or password for postgresSecret", order.Target.Metadata.Name)
	}
	return spec, nil
}

// Plan implements credential.Issuer.
func (Issuer) Plan(order credential.Order) (credential.Plan, error) {
	spec, err := specOf(order)
	if err != nil {
		return credential.Plan{}, err
	}
	plan := credential.Plan{Account: credential.Account{Name: spec.User}, TTL: ttl}
	if spec.AdminFrom != nil {
		plan.Account.AdminFile = spec.AdminFrom.File
	}
	return plan, nil
}

// Issue implements credential.Issuer.
func (i Issuer) Issue(_ context.Context, entry credential.Entry, order credential.Order) (credential.Secret, error) {
	secret, err := i.Refresh(order, entry.Deadline, credential.Secret{})
	if err != nil {
		return credential.Secret{}, fmt.Errorf("%w (%w)", err, credential.ErrNotMade)
	}
	return secret, nil
}

// Refresh implements credential.Refresher: it reads the file.
func (Issuer) Refresh(order credential.Order, deadline time.Time, _ credential.Secret) (credential.Secret, error) {
	spec, err := specOf(order)
	if err != nil {
		return credential.Secret{}, err
	}
	if !deadline.IsZero() && !deadline.After(time.Now()) {
		return credential.Secret{}, credential.ErrExpired
	}
	password, err := secretfile.Line(spec.PasswordFrom.File)
	if err != nil {
		return credential.Secret{}, fmt.Errorf("password of role %s: %w", spec.User, err)
	}
	return credential.NewSecret(password), nil
}

// Renew implements credential.Issuer.
func (Issuer) Renew(context.Context, credential.Entry, time.Time) error { return nil }

// Revoke implements credential.Issuer.
func (Issuer) Revoke(ctx context.Context, entry credential.Entry) error {
	if entry.Account.AdminFile == "" {
		return nil
	}
	return postgresadmin.Terminate(ctx, entry.Account.AdminFile, entry.Account.Name, entry.Backends)
}
