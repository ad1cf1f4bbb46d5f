package desk

import (
	"net/http"

	"chaperone.dev/chaperone/internal/outbound"
)

// httpClient follows no redirect, and needs no TLS on loopback.
func httpClient(caFile string) (*http.Client, error) {
	return outbound.New(outbound.Options{
		CAFile: caFile, Loopback: true,
		Redirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	})
}
