// Package identity tells who a job acts for: a [Verifier] reads OIDC tokens
// of one issuer, [Local] names the local user who started a job without one.
//
// It knows tokens and users, not jobs: where a job's token lies, how often it
// is read again and what its principal may do is decided elsewhere. No error
// of this package holds a token or a part of one.
package identity
