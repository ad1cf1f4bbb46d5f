package desk

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"time"
)

// httpClient bounds what a server that we ask can do to us: the time of an
// answer, its size, and where it leads.
func httpClient(caFile string) (*http.Client, error) {
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           2,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if caFile != "" {
		content, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("caFile: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("caFile: %s holds no PEM certificate", caFile)
		}
		transport.TLSClientConfig.RootCAs = roots
	}
	return &http.Client{
		Transport:     &bounded{transport},
		Timeout:       10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// bounded refuses requests without TLS but on loopback, and answers that are too long.
type bounded struct{ *http.Transport }

// RoundTrip implements http.RoundTripper.
func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && (r.URL.Scheme != "http" || !loopback(r.URL.Hostname())) {
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
