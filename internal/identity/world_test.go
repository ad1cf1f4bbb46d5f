package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/clock"
	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/lab/idp"
	"chaperone.dev/chaperone/pkg/policy"
)

// world is a real OpenID provider on loopback, and what a node knows of it.
type world struct {
	*idp.Provider
	ca     *lab.CA
	caFile string
}

func newWorld(t testing.TB, options ...func(*idp.Options)) *world {
	t.Helper()
	ca, err := lab.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	o := idp.Options{CA: ca, Clients: []idp.Client{
		{ID: "nightly", Secret: "robot", ServiceAccount: true, Groups: []string{"planners"}, Audiences: []string{"chaperone"}},
		{ID: "console", Secret: "s3cret", Redirects: []string{"https://console.example/callback"}},
	}}
	for _, set := range options {
		set(&o)
	}
	p, err := idp.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{Provider: p, ca: ca, caFile: filepath.Join(t.TempDir(), "idp-ca.pem")}
	if err := os.WriteFile(w.caFile, p.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) document() *policy.IdentityProvider {
	return &policy.IdentityProvider{
		Metadata: policy.Metadata{Name: "corp-idp"},
		Spec:     policy.IdentityProviderSpec{Issuer: w.Issuer(), Audiences: []string{"other", "chaperone"}, CAFile: w.caFile},
	}
}

// good is a token that would do.
func good() idp.TokenRequest {
	return idp.TokenRequest{Subject: "planner-7", Audience: []string{"chaperone"}, Groups: []string{"planners", "night"},
		Claims: map[string]any{"tenant": "acme"}}
}

// token signs a good token that was changed.
func (w *world) token(t testing.TB, change ...func(*idp.TokenRequest)) string {
	t.Helper()
	r := good()
	for _, c := range change {
		c(&r)
	}
	token, err := w.Token(r)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// withClaim signs a good token with another claim.
func (w *world) withClaim(t testing.TB, name string, value any) string {
	t.Helper()
	return w.token(t, func(r *idp.TokenRequest) { r.Claims = map[string]any{name: value} })
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

// hands are a machine's clocks, which a test sets.
type hands struct {
	mu      sync.Mutex
	wall    time.Time
	elapsed time.Duration
}

func (h *hands) read() (time.Time, time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.wall, h.elapsed
}

// pass lets time pass.
func (h *hands) pass(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wall, h.elapsed = h.wall.Add(d), h.elapsed+d
}

// set sets the wall clock by so much.
func (h *hands) set(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wall = h.wall.Add(d)
}

// openWithHands opens a verifier whose time the test makes pass.
func openWithHands(t testing.TB, document *policy.IdentityProvider) (*Verifier, *hands) {
	t.Helper()
	h := &hands{wall: time.Now()}
	v, err := OpenAt(document, clock.New(clock.Options{Source: h.read}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v, h
}

// asked counts the requests that a verifier makes, by path, and lets the test answer
// some of them in the issuer's place.
type asked struct {
	next http.RoundTripper

	mu    sync.Mutex
	count map[string]int
	fail  map[string]error
}

func watch(v *Verifier) *asked {
	a := &asked{next: v.client.Transport, count: map[string]int{}, fail: map[string]error{}}
	v.client.Transport = a
	return a
}

func (a *asked) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	a.count[r.URL.Path]++
	err := a.fail[r.URL.Path]
	a.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return a.next.RoundTrip(r)
}

func (a *asked) times(path string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count[path]
}

func (a *asked) breaks(path string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fail[path] = err
}

const (
	metadataPath = "/.well-known/openid-configuration"
	keysPath     = "/keys"
)

// alter changes a token's header (part 0) or claims (1) and keeps the signature.
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

// confuse signs a token with the issuer's public key as the secret of an HMAC, in the
// form that a library would take it in if it were told to.
func confuse(t testing.TB, v *Verifier, token string) string {
	t.Helper()
	is, err := v.issuer(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(is.keys[len(is.keys)-1].Key)
	if err != nil {
		t.Fatal(err)
	}
	token = alter(t, token, 0, func(h map[string]any) { h["alg"] = "HS256" })
	signed := token[:strings.LastIndex(token, ".")]
	mac := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func serverTLS(certificate tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certificate}}
}
