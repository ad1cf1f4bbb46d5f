package postgrescert

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/credential/postgresadmin"
	"chaperone.dev/chaperone/pkg/policy"
)

// Issuer signs certificates. The zero value is ready, and holds nothing between
// calls: the authority's files are read each time.
type Issuer struct{}

var _ credential.Refresher = Issuer{}

// Kind implements credential.Issuer.
func (Issuer) Kind() string { return "postgresCert" }

const defaultTTL = 5 * time.Minute

func specOf(order credential.Order) (*policy.PostgresCertSpec, error) {
	spec := order.Target.Spec.Credential.PostgresCert
	if spec == nil || spec.User == "" || spec.CAFile == "" || spec.KeyFile == "" {
		return nil, fmt.Errorf("target %s names no role or authority for postgresCert", order.Target.Metadata.Name)
	}
	return spec, nil
}

// Plan implements credential.Issuer.
func (Issuer) Plan(order credential.Order) (credential.Plan, error) {
	spec, err := specOf(order)
	if err != nil {
		return credential.Plan{}, err
	}
	plan := credential.Plan{Account: credential.Account{Name: spec.User}, TTL: ttl(spec)}
	if spec.AdminFrom != nil {
		plan.Account.AdminFile = spec.AdminFrom.File
	}
	return plan, nil
}

func ttl(spec *policy.PostgresCertSpec) time.Duration {
	if spec.TTL == 0 {
		return defaultTTL
	}
	return time.Duration(spec.TTL)
}

// Issue implements credential.Issuer.
func (i Issuer) Issue(_ context.Context, entry credential.Entry, order credential.Order) (credential.Secret, error) {
	secret, err := i.Refresh(order, entry.Deadline, credential.Secret{})
	if err != nil {
		return credential.Secret{}, fmt.Errorf("%w (%w)", err, credential.ErrNotMade)
	}
	return secret, nil
}

// Refresh implements credential.Refresher: a new certificate is made once less than
// half of its life is left.
func (Issuer) Refresh(order credential.Order, deadline time.Time, present credential.Secret) (credential.Secret, error) {
	spec, err := specOf(order)
	if err != nil {
		return credential.Secret{}, err
	}
	now := time.Now()
	if c := present.Certificate(); c != nil && c.Leaf.NotAfter.Sub(now) >= ttl(spec)/2 {
		return present, nil
	}
	until := now.Add(ttl(spec))
	if !deadline.IsZero() && deadline.Before(until) {
		until = deadline
	}
	if !until.After(now) {
		return credential.Secret{}, credential.ErrExpired
	}
	authority, err := readAuthority(spec.CAFile, spec.KeyFile)
	if err != nil {
		return credential.Secret{}, fmt.Errorf("client certificate for role %s: %w", spec.User, err)
	}
	var certificate *tls.Certificate
	if certificate, err = authority.sign(subject(spec, order), now, until); err != nil {
		return credential.Secret{}, fmt.Errorf("client certificate for role %s: %w", spec.User, err)
	}
	return credential.NewCertificate(certificate), nil
}

// Renew implements credential.Issuer. Certificates are made when they are needed.
func (Issuer) Renew(context.Context, credential.Entry, time.Time) error { return nil }

// Revoke implements credential.Issuer.
func (Issuer) Revoke(ctx context.Context, entry credential.Entry) error {
	if entry.Account.AdminFile == "" {
		return nil
	}
	return postgresadmin.Terminate(ctx, entry.Account.AdminFile, entry.Account.Name, entry.Backends)
}
