package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"chaperone.dev/chaperone/pkg/event"
)

// dialError: the server can't be reached, or hung up.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// tlsError: it can, but isn't known to be the one that is meant.
type tlsError struct{ err error }

func (e *tlsError) Error() string { return e.err.Error() }
func (e *tlsError) Unwrap() error { return e.err }

// refusal turns an error of connecting into what the client is told. The client
// isn't told addresses or account names; they are in Err.
func (u *Upstream) refusal(ctx context.Context, err error) *Refusal {
	r := &Refusal{Reason: event.ReasonUpstreamDown, SQLState: "08001", Err: err}
	var own *Refusal
	var wrongTLS *tlsError
	var alert *net.OpError
	var server *pgconn.PgError
	switch {
	case ctx.Err() != nil && errors.As(context.Cause(ctx), &own):
		return own
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		r.Message = "the target didn't answer in time"
	case ctx.Err() != nil:
		r.Reason, r.SQLState = event.ReasonShutdown, "57P01"
		r.Message = "the connection to the target was given up"
	case errors.As(err, &wrongTLS):
		r.Reason = event.ReasonUpstreamTLS
		r.Message = "the target's identity can't be verified: " + tlsMessage(wrongTLS.err)
	case u.asked && errors.As(err, &alert) && alert.Op == "remote error": // crypto/tls has no type for it
		r.Reason, r.SQLState = event.ReasonUpstreamAuth, "28000"
		r.Message = "the target refused the client certificate that was made for this job: " + alert.Err.Error()
		r.Hint = "Its ssl_ca_file must hold the authority that the target's document names."
	case errors.As(err, &server):
		return serverRefusal(server, err)
	case strings.Contains(err.Error(), "authentication method requirement"),
		strings.Contains(err.Error(), "failed SASL auth"):
		// pgconn has no types for these.
		r.Reason, r.SQLState = event.ReasonUpstreamAuth, "28000"
		r.Message = u.unacceptable()
	default:
		r.Message = "the target can't be reached"
	}
	return r
}

// unacceptable says what the server should have asked for. That the authentication
// was a certificate's is known by its having been asked for: [newUpstream] keeps none.
func (u *Upstream) unacceptable() string {
	switch {
	case u.asked:
		return "the target asks for a password as well, where the certificate is to be enough"
	case u.options.Stored && u.options.TLS == nil:
		return "the target asks for an authentication other than SCRAM-SHA-256 or MD5, which a password isn't sent for without TLS"
	case u.options.Stored:
		return "the target asks for an authentication other than by password"
	}
	return "the target asks for an authentication other than SCRAM-SHA-256, or failed to prove itself by it"
}

// refusesVersion tells whether the server may have refused a version of the
// protocol newer than 3.0, rather than negotiate it down: servers before the
// releases of late 2017, and some poolers.
func refusesVersion(err error) bool {
	var server *pgconn.PgError
	return errors.As(err, &server) && (server.Code == "0A000" || server.Code == "08P01")
}

// serverRefusal is for an error that the server itself sent.
func serverRefusal(e *pgconn.PgError, err error) *Refusal {
	if strings.HasPrefix(e.Code, "28") {
		return &Refusal{
			Reason: event.ReasonUpstreamAuth, SQLState: e.Code, Err: err,
			Message: "the target refused the account that was made for this job",
		}
	}
	return &Refusal{
		Reason: event.ReasonUpstreamDown, SQLState: e.Code, Err: err,
		Message: e.Message, Detail: e.Detail, Hint: e.Hint,
	}
}

// tlsMessage says what about the certificate, without quoting it at length.
func tlsMessage(err error) string {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		return "its certificate is signed by an authority that isn't trusted"
	case errors.As(err, &name):
		return fmt.Sprintf("its certificate isn't for %q", name.Host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate has expired or isn't valid yet"
	case errors.As(err, &invalid):
		return "its certificate is invalid"
	case errors.As(err, &record):
		return "it doesn't speak TLS"
	default:
		return err.Error()
	}
}
