// Package outbound makes HTTP clients for servers that documents name: issuers, and
// receivers of messages. It bounds what such a server can do to us, the time of an answer,
// its size, and where it leads, and knows nothing of what is asked.
package outbound

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// Options configure [New].
type Options struct {
	// CAFile holds the PEM certificates to trust; empty means the system's.
	CAFile string
	// Loopback lets requests to this machine itself go without TLS.
	Loopback bool
	// Redirect is an [http.Client]'s CheckRedirect. Required.
	Redirect func(request *http.Request, via []*http.Request) error
}

// New makes a client. It reads the CA file.
func New(o Options) (*http.Client, error) {
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           2,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if o.CAFile != "" {
		content, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("caFile: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("caFile: %s holds no PEM certificate", o.CAFile)
		}
		transport.TLSClientConfig.RootCAs = roots
	}
	return &http.Client{
		Transport: &Transport{transport, o.Loopback}, Timeout: 10 * time.Second, CheckRedirect: o.Redirect,
	}, nil
}

// Transport refuses requests without TLS, which a redirect or an answer could lead to,
// and answers that are too long.
type Transport struct {
	*http.Transport
	loopback bool
}

// RoundTrip implements http.RoundTripper. Its error names the host alone, since the rest of
// an address may be a secret.
func (b *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !(b.loopback && r.URL.Scheme == "http" && Loopback(r.URL.Hostname())) {
		return nil, fmt.Errorf("the address at %s is no https URL", r.URL.Host)
	}
	response, err := b.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	const limit = 1 << 20
	response.Body = http.MaxBytesReader(nil, response.Body, limit)
	return response, nil
}

// Loopback tells whether a host is this machine itself.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
