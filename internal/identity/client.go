package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/outbound"
)

// get reads a JSON document of the issuer. Where the issuer wants to know who asks, it
// is told with each request, for the token in the file is renewed by others.
func (v *Verifier) get(ctx context.Context, address string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	if v.spec.BearerTokenFile != "" {
		token, err := readLine(v.spec.BearerTokenFile, 0)
		if err != nil {
			return fmt.Errorf("bearerTokenFile: %w", err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
	}
	request.Header.Set("Accept", "application/json, application/jwk-set+json")
	response, err := v.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		if v.spec.BearerTokenFile == "" {
			return fmt.Errorf("%s: %s; where the issuer answers known clients only, as a Kubernetes API server does, set bearerTokenFile",
				request.URL.Redacted(), response.Status)
		}
		return fmt.Errorf("%s: %s for the token in %s", request.URL.Redacted(), response.Status, v.spec.BearerTokenFile)
	default:
		return fmt.Errorf("%s: %s", request.URL.Redacted(), response.Status)
	}
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return fmt.Errorf("%s: %w", request.URL.Redacted(), err)
	}
	return nil
}

// httpClient is for the issuer. With a bearer token it leads nowhere else: the token is
// for the issuer, and for where its metadata says that its keys are.
func httpClient(caFile string, bearer bool) (*http.Client, error) {
	limit := 3
	if bearer {
		limit = 0
	}
	return outbound.New(outbound.Options{CAFile: caFile, Redirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) > limit {
			return errors.New("too many redirects")
		}
		return nil
	}})
}

// others are the permissions that nobody but a file's owner, and readers in its group,
// may have to a secret of ours.
const others = 0o027

// readLine reads a file of the node that holds one secret, and must not have some
// permissions.
func readLine(path string, without os.FileMode) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not hold us
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no regular file", path)
	}
	if mode := info.Mode().Perm(); mode&without != 0 {
		return "", fmt.Errorf("%s has mode %04o, which lets others at it: chmod 600 it (0640 will do)", path, mode)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(content))
	if text == "" || len(content) > maxToken || strings.ContainsAny(text, "\r\n") {
		return "", fmt.Errorf("%s must hold one line of at most %d bytes", path, maxToken)
	}
	return text, nil
}
