package doctor

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"chaperone.dev/chaperone/internal/identity"
	"chaperone.dev/chaperone/pkg/policy"
)

func issuerChecks(set *policy.Set) []check {
	var checks []check
	for _, p := range set.IdentityProviders {
		checks = append(checks, check{"issuer " + p.Metadata.Name, func(ctx context.Context, s *subject) Result {
			return s.checkIssuer(ctx, p)
		}})
	}
	return checks
}

// checkIssuer reads the issuer's metadata for what the daemon doesn't look at,
// and then has the daemon's own verifier fetch the keys.
func (s *subject) checkIssuer(ctx context.Context, p *policy.IdentityProvider) Result {
	document := "IdentityProvider " + p.Metadata.Name
	verifier, err := identity.Open(p)
	if unread(err) && forbidden(err) {
		return unseen(p.Spec.CAFile, err)
	}
	if err != nil {
		return fail("", brief(err), "correct the document, or the file that it names")
	}
	defer verifier.Close()
	answer, err := s.discover(ctx, p)
	if err != nil {
		return fail("", fmt.Sprintf("%s is not reached: %s", p.Spec.Issuer, brief(err)), issuerRemedy(err, document))
	}
	// No signature is made, so none can be accepted; finding that out takes
	// the issuer's keys.
	_, err = verifier.Verify(ctx, unsigned(p, answer.algorithm), "")
	if !errors.Is(err, identity.ErrToken) {
		return fail(p.Spec.Issuer, brief(err), "see that the issuer's jwks_uri is reached from here, and issuer in "+document)
	}
	found := fmt.Sprintf("%s answers, its keys are fetched, its certificate is verified", p.Spec.Issuer)
	if answer.late != "" {
		return warn(found, answer.late, "have the issuer's certificate renewed")
	}
	return ok(found)
}

func issuerRemedy(err error, document string) string {
	if strings.Contains(err.Error(), "tls:") || strings.Contains(err.Error(), "x509:") {
		return tlsRemedy(err, document)
	}
	return "see that the name resolves and the issuer is up, and issuer in " + document
}

// metadata is what discover found out.
type metadata struct {
	algorithm string // one that the issuer signs with
	late      string // its certificate's end, if that is near
}

const maxMetadata = 1 << 20

func (s *subject) discover(ctx context.Context, p *policy.IdentityProvider) (metadata, error) {
	config, err := clientTLS("", p.Spec.CAFile)
	if err != nil {
		return metadata{}, err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet,
		strings.TrimSuffix(p.Spec.Issuer, "/")+"/.well-known/openid-configuration", nil)
	if err != nil {
		return metadata{}, err
	}
	if file := p.Spec.BearerTokenFile; file != "" {
		token, err := os.ReadFile(file)
		if err != nil {
			return metadata{}, fmt.Errorf("bearerTokenFile: %w", err)
		}
		request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	sent := time.Now()
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return metadata{}, err
	}
	defer response.Body.Close()
	if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		s.clocks.tell("issuer "+p.Metadata.Name, date, sent, time.Now())
	}
	if response.StatusCode != http.StatusOK {
		return metadata{}, fmt.Errorf("%s: %s", request.URL, response.Status)
	}
	found := metadata{algorithm: "RS256", late: chainExpiry(response.TLS)}
	var said struct {
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxMetadata)).Decode(&said); err != nil {
		return metadata{}, fmt.Errorf("%s: no JSON: %w", request.URL, err)
	}
	for _, a := range said.Algorithms {
		if len(a) == len("RS256") && !strings.HasPrefix(a, "HS") { // not "none", and no HMAC
			found.algorithm = a
			break
		}
	}
	return found, nil
}

// unsigned makes a token that says all the right things, with nothing as its
// signature.
func unsigned(p *policy.IdentityProvider, algorithm string) string {
	part := func(claims map[string]any) string {
		text, _ := json.Marshal(claims) // strings and numbers always can be
		return base64.RawURLEncoding.EncodeToString(text)
	}
	head := part(map[string]any{"alg": algorithm, "typ": "JWT"})
	body := part(map[string]any{
		"iss": p.Spec.Issuer, "sub": "chaperone-doctor", "aud": p.Spec.Audiences[0],
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	})
	return head + "." + body + "." + base64.RawURLEncoding.EncodeToString([]byte("unsigned"))
}
