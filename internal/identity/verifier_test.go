package identity

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/pkg/policy"
)

// idp is a real OpenID provider on loopback. What it puts into its next token
// is in the exported fields.
type idp struct {
	*storage.Storage
	server   *httptest.Server
	url      string
	caFile   string
	Audience []string
	Subject  string
	Claims   map[string]any
	Expires  time.Time

	mu   sync.Mutex
	hits map[string]int // requests by path
}

// jwtClient gets JWTs instead of opaque tokens.
type jwtClient struct{ op.Client }

func (jwtClient) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }

func (p *idp) ClientCredentials(ctx context.Context, id, secret string) (op.Client, error) {
	client, err := p.Storage.ClientCredentials(ctx, id, secret)
	return jwtClient{client}, err
}

func (p *idp) ClientCredentialsTokenRequest(context.Context, string, []string) (op.TokenRequest, error) {
	return &oidc.JWTTokenRequest{Subject: p.Subject, Audience: p.Audience}, nil
}

func (p *idp) CreateAccessToken(context.Context, op.TokenRequest) (string, time.Time, error) {
	return "token-id", p.Expires, nil
}

func (p *idp) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return p.Claims, nil
}

// newIDP starts a provider at an address; keys, if given, are another one's.
func newIDP(t testing.TB, address string, keys *storage.Storage) *idp {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	p := &idp{
		Storage: keys, url: "https://" + listener.Addr().String(), caFile: filepath.Join(t.TempDir(), "idp-ca.pem"),
		Audience: []string{"chaperone"}, Subject: "planner-7", Expires: time.Now().Add(time.Hour), hits: map[string]int{},
		Claims: map[string]any{"groups": []string{"planners", "night"}, "tenant": "acme"},
	}
	if keys == nil {
		p.Storage = storage.NewStorage(storage.NewUserStore(p.url))
	}
	provider, err := op.NewProvider(&op.Config{AuthMethodPost: true}, p, op.StaticIssuer(p.url), op.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := lab.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pair.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.caFile, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	p.server = &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.hits[r.URL.Path]++
		p.mu.Unlock()
		provider.ServeHTTP(w, r)
	})}}
	p.server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	p.server.StartTLS()
	t.Cleanup(p.server.Close)
	return p
}

func (p *idp) document() *policy.IdentityProvider {
	return &policy.IdentityProvider{
		Metadata: policy.Metadata{Name: "corp-idp"},
		Spec:     policy.IdentityProviderSpec{Issuer: p.url, Audiences: []string{"other", "chaperone"}, CAFile: p.caFile},
	}
}

// token gets one the way a workload would.
func (p *idp) token(t testing.TB) string {
	t.Helper()
	client, err := httpClient(p.caFile)
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	response, err := client.PostForm(p.url+"/oauth/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {"sid1"}, "client_secret": {"verysecret"}, "scope": {"openid"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer struct {
		AccessToken string `json:"access_token"`
		Error       string `json:"error_description"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || strings.Count(answer.AccessToken, ".") != 2 {
		t.Fatalf("the provider gave no token: %v %s", err, answer.Error)
	}
	return answer.AccessToken
}

func open(t testing.TB, document *policy.IdentityProvider) *Verifier {
	t.Helper()
	v, err := Open(document)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func TestVerifyReturnsWhomTheTokenSpeaksOf(t *testing.T) {
	p := newIDP(t, "127.0.0.1:0", nil)
	v := open(t, p.document())
	for _, audience := range []string{"", "chaperone"} {
		got, err := v.Verify(t.Context(), "\n"+p.token(t)+" \n", audience)
		if err != nil {
			t.Fatal(err)
		}
		if got.Claims["tenant"] != "acme" {
			t.Errorf("the claims are %v", got.Claims)
		}
		if d := got.Expires.Sub(p.Expires); d < 0 || d > time.Minute {
			t.Errorf("it expires at %v, the token at %v", got.Expires, p.Expires)
		}
		got.Claims, got.Expires = nil, time.Time{}
		want := policy.Principal{Subject: "planner-7", Issuer: "corp-idp", Groups: []string{"planners", "night"}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hits["/.well-known/openid-configuration"] != 1 || p.hits["/keys"] != 1 {
		t.Errorf("keys aren't kept: %v", p.hits)
	}
}

func TestVerifyMapsGroups(t *testing.T) {
	p := newIDP(t, "127.0.0.1:0", nil)
	many := make([]string, maxGroups+1)
	for i := range many {
		many[i] = "g"
	}
	tests := []struct {
		name, claim string
		claims      map[string]any
		want        []string
		err         string
	}{
		{"none", "", nil, nil, ""},
		{"one string", "", map[string]any{"groups": "planners"}, []string{"planners"}, ""},
		{"another claim", "https://corp.example/roles", map[string]any{"https://corp.example/roles": []string{"a"}, "groups": []string{"b"}}, []string{"a"}, ""},
		{"number", "", map[string]any{"groups": 7}, nil, "neither a list nor a string"},
		{"list of numbers", "", map[string]any{"groups": []int{7}}, nil, "no string"},
		{"too many", "", map[string]any{"groups": many}, nil, "1025 entries"},
		{"too long", "", map[string]any{"groups": []string{strings.Repeat("g", 300)}}, nil, "300 bytes"},
		{"line break", "", map[string]any{"groups": []string{"a\nb"}}, nil, "U+000A"},
		{"elsewhere", "", map[string]any{"_claim_names": map[string]string{"groups": "src1"},
			"_claim_sources": map[string]any{"src1": map[string]string{"endpoint": "https://graph.example"}}}, nil, "too many"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			document := p.document()
			document.Spec.Claims.Groups = test.claim
			v := open(t, document)
			p.Claims = test.claims
			got, err := v.Verify(t.Context(), p.token(t), "")
			if test.err != "" {
				if !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got.Groups); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// alter changes a token's claims or header and keeps the signature.
func alter(t testing.TB, token string, part int, change func(map[string]any)) string {
	t.Helper()
	parts := strings.Split(token, ".")
	content, err := base64.RawURLEncoding.DecodeString(parts[part])
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]any{}
	if err := json.Unmarshal(content, &fields); err != nil {
		t.Fatal(err)
	}
	change(fields)
	if content, err = json.Marshal(fields); err != nil {
		t.Fatal(err)
	}
	parts[part] = base64.RawURLEncoding.EncodeToString(content)
	return strings.Join(parts, ".")
}

func TestVerifyRefuses(t *testing.T) {
	p := newIDP(t, "127.0.0.1:0", nil)
	sameKeys := newIDP(t, "127.0.0.1:0", p.Storage)
	stranger := newIDP(t, "127.0.0.1:0", nil)
	good := p.token(t)
	with := func(p *idp, set func(*idp)) string {
		audience, subject, expires := p.Audience, p.Subject, p.Expires
		defer func() { p.Audience, p.Subject, p.Expires = audience, subject, expires }()
		set(p)
		return p.token(t)
	}
	none := alter(t, good, 0, func(h map[string]any) { h["alg"] = "none" })
	tests := []struct {
		name, token, audience string
		want                  []string
	}{
		{"wrong audience", good, "billing", []string{`"chaperone"`, `"billing"`}},
		{"none of the provider's audiences", with(p, func(p *idp) { p.Audience = []string{"x", "y"} }), "", []string{`"x" "y"`, `"other" "chaperone"`}},
		{"no audience", with(p, func(p *idp) { p.Audience = nil }), "", []string{"audience"}},
		{"expired", with(p, func(p *idp) { p.Expires = time.Now().Add(-time.Hour) }), "", []string{"expired at 20"}},
		{"wrong issuer", sameKeys.token(t), "", []string{p.url, sameKeys.url}},
		{"another issuer's keys", stranger.token(t), "", []string{"signature"}},
		{"another subject written in", alter(t, good, 1, func(c map[string]any) { c["sub"] = "root" }), "", []string{"signature"}},
		{"no signature", good[:strings.LastIndex(good, ".")+1], "", []string{"signature"}},
		{"alg none", none, "", []string{"none"}},
		{"alg none without signature", none[:strings.LastIndex(none, ".")+1], "", []string{"none"}},
		{"alg HS256", alter(t, good, 0, func(h map[string]any) { h["alg"] = "HS256" }), "", []string{"HS256"}},
		{"empty subject", with(p, func(p *idp) { p.Subject = "" }), "", []string{`"sub": it is empty`}},
		{"subject with an escape", with(p, func(p *idp) { p.Subject = "a\x1b[2J" }), "", []string{"U+001B"}},
		{"empty", " \n", "", []string{"empty"}},
		{"too long", strings.Repeat("x", maxToken+1), "", []string{"16385 bytes"}},
		{"garbage", "not a token", "", []string{"malformed"}},
	}
	v := open(t, p.document())
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := v.Verify(t.Context(), test.token, test.audience)
			if !errors.Is(err, ErrToken) || errors.Is(err, ErrUnavailable) {
				t.Fatalf("got %+v, %v; want ErrToken", got, err)
			}
			for _, want := range append(test.want, "corp-idp") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q doesn't say %q", err, want)
				}
			}
			for part := range strings.SplitSeq(test.token, ".") {
				if len(part) > 20 && strings.Contains(err.Error(), part[:20]) {
					t.Errorf("%q holds a part of the token", err)
				}
			}
			if len(err.Error()) > 1000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

func TestIssuerThatIsDownIsNoReasonToGiveUp(t *testing.T) {
	p := newIDP(t, "127.0.0.1:0", nil)
	p.Expires = time.Now().Add(3 * time.Hour)
	token := p.token(t)
	address := p.server.Listener.Addr().String()
	p.server.Close()
	v := open(t, p.document())
	if _, err := v.Verify(t.Context(), token, ""); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrToken) {
		t.Fatalf("got %v, want ErrUnavailable", err)
	}
	again := newIDP(t, address, p.Storage)
	document := p.document()
	document.Spec.CAFile = again.caFile
	v = open(t, document)
	if _, err := v.Verify(t.Context(), token, ""); err != nil {
		t.Fatalf("the issuer is up again: %v", err)
	}
	// Known keys serve on, for a day.
	again.server.Close()
	now := time.Now()
	v.now = func() time.Time { return now }
	for _, later := range []time.Duration{0, 50 * time.Minute, 2 * time.Hour} {
		now = time.Now().Add(later)
		if _, err := v.Verify(t.Context(), token, ""); err != nil {
			t.Errorf("%v later: %v", later, err)
		}
	}
	now = time.Now().Add(keepFor + time.Minute)
	if _, err := v.Verify(t.Context(), token, ""); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

func TestVerifyWaitsNoLongerThanItsCaller(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	v := open(t, &policy.IdentityProvider{Spec: policy.IdentityProviderSpec{Issuer: "https://" + silent.Addr().String(), Audiences: []string{"a"}}})
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error, 4)
	for range cap(results) {
		go func() { _, err := v.Verify(ctx, "a.b.c", ""); results <- err }()
	}
	cancel()
	for range cap(results) {
		if err := <-results; !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	noPEM := filepath.Join(t.TempDir(), "no.pem")
	if err := os.WriteFile(noPEM, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, spec := range map[string]policy.IdentityProviderSpec{
		"no https URL":       {Issuer: "http://idp.example"},
		"is no https":        {Issuer: "idp.example"},
		"no such file":       {Issuer: "https://idp.example", CAFile: "/nonexistent.pem"},
		"no PEM certificate": {Issuer: "https://idp.example", CAFile: noPEM},
	} {
		if _, err := Open(&policy.IdentityProvider{Spec: spec}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", spec, err, want)
		}
	}
}

func TestIssuerIsVerifiedAndBounded(t *testing.T) {
	p := newIDP(t, "127.0.0.1:0", nil)
	token := p.token(t)
	document := p.document()
	document.Spec.CAFile = newIDP(t, "127.0.0.1:0", nil).caFile
	if _, err := open(t, document).Verify(t.Context(), token, ""); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an issuer with a strange certificate: %v", err)
	}
	// A server that answers discovery with something else.
	for name, answer := range map[string]http.HandlerFunc{
		"endless": func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 2<<20)) },
		"plaintext": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		},
		"circle": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) },
		"another issuer": func(w http.ResponseWriter, _ *http.Request) {
			json.NewEncoder(w).Encode(map[string]string{"issuer": p.url, "jwks_uri": p.url + "/keys"})
		},
		"failing": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, strings.Repeat("x", 5000), 500) },
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(answer)
			server.TLS = p.server.TLS.Clone()
			server.StartTLS()
			defer server.Close()
			document := p.document()
			document.Spec.Issuer = server.URL
			if _, err := open(t, document).Verify(t.Context(), token, ""); !errors.Is(err, ErrUnavailable) || len(err.Error()) > 1000 {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
		})
	}
}
