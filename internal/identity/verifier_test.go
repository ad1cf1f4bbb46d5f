package identity

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chaperone.dev/chaperone/internal/lab/idp"
	"chaperone.dev/chaperone/pkg/policy"
)

func TestVerifyReturnsWhomTheTokenSpeaksOf(t *testing.T) {
	w := newWorld(t)
	v := open(t, w.document())
	for _, audience := range []string{"", "chaperone"} {
		expires := time.Now().Add(time.Hour)
		got, err := v.Verify(t.Context(), "\n"+w.token(t)+" \n", audience)
		if err != nil {
			t.Fatal(err)
		}
		if got.Claims["tenant"] != "acme" {
			t.Errorf("the claims are %v", got.Claims)
		}
		if d := got.Expires.Sub(expires); d < 0 || d > time.Minute {
			t.Errorf("it expires at %v, the token at %v", got.Expires, expires)
		}
		got.Claims, got.Expires = nil, time.Time{}
		want := policy.Principal{Subject: "planner-7", Issuer: "corp-idp", Groups: []string{"planners", "night"}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	w, other, stranger := newWorld(t), newWorld(t), newWorld(t)
	v := open(t, w.document())
	plain := w.token(t)
	none := alter(t, plain, 0, func(h map[string]any) { h["alg"] = "none" })
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	tests := []struct {
		name, token, audience string
		want                  []string
	}{
		{"wrong audience", plain, "billing", []string{`"chaperone"`, `"billing"`}},
		{"none of the provider's audiences", w.token(t, func(r *idp.TokenRequest) { r.Audience = []string{"x", "y"} }), "",
			[]string{`"x" "y"`, `"other" "chaperone"`}},
		{"no audience", w.token(t, func(r *idp.TokenRequest) { r.Audience = nil }), "", []string{"audience"}},
		{"expired", w.token(t, func(r *idp.TokenRequest) { r.Life = -time.Minute }), "", []string{"expired at 20"}},
		{"no expiry", w.withClaim(t, "exp", nil), "", []string{"no expiry"}},
		{"expires when no clock gets to", w.withClaim(t, "exp", 9e17), "", []string{"expiry is no time"}},
		{"not valid yet", w.withClaim(t, "nbf", in(2*time.Minute)), "", []string{"not valid before 20", "yet to come"}},
		{"issued tomorrow", w.withClaim(t, "iat", in(24*time.Hour)), "", []string{"iat"}},
		{"issued in two minutes", w.withClaim(t, "iat", in(2*time.Minute)), "", []string{"issued at 20", "yet to come"}},
		{"not before that is text", w.withClaim(t, "nbf", "now"), "", []string{"invalid number"}},
		{"wrong issuer", w.withClaim(t, "iss", other.Issuer()), "", []string{w.Issuer(), other.Issuer()}},
		{"another issuer's keys", stranger.withClaim(t, "iss", w.Issuer()), "", []string{"signature"}},
		{"another subject written in", alter(t, plain, 1, func(c map[string]any) { c["sub"] = "root" }), "", []string{"signature"}},
		{"another expiry written in", alter(t, plain, 1, func(c map[string]any) { c["exp"] = in(100 * time.Hour) }), "", []string{"signature"}},
		{"no signature", plain[:strings.LastIndex(plain, ".")+1], "", []string{"signature"}},
		{"alg none", none, "", []string{"none"}},
		{"alg none without signature", none[:strings.LastIndex(none, ".")+1], "", []string{"none"}},
		{"HS256 with the public key as its secret", confuse(t, v, plain), "", []string{"HS256"}},
		{"no key id, and another's signature", alter(t, stranger.withClaim(t, "iss", w.Issuer()), 0, func(h map[string]any) { delete(h, "kid") }), "",
			[]string{"signature"}},
		{"empty subject", w.withClaim(t, "sub", ""), "", []string{`"sub": it is empty`}},
		{"subject with an escape", w.withClaim(t, "sub", "a\x1b[2J"), "", []string{"U+001B"}},
		{"empty", " \n", "", []string{"empty"}},
		{"too long", strings.Repeat("x", maxToken+1), "", []string{"16385 bytes"}},
		{"garbage", "not a token", "", []string{"malformed"}},
	}
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
	if _, err := v.Verify(t.Context(), plain, ""); err != nil {
		t.Errorf("the good token, after all of that: %v", err)
	}
}

// Clocks may differ by half a minute, and not by more.
func TestClockSkew(t *testing.T) {
	w := newWorld(t)
	v := open(t, w.document())
	for _, token := range []string{
		w.token(t, func(r *idp.TokenRequest) { r.Life = -10 * time.Second }),
		w.withClaim(t, "nbf", time.Now().Add(10*time.Second).Unix()),
	} {
		if _, err := v.Verify(t.Context(), token, ""); err != nil {
			t.Errorf("within the skew: %v", err)
		}
	}
}

// Setting the clock back makes no old token valid again, and setting it forward none that
// is for later.
func TestClockThatIsSet(t *testing.T) {
	w := newWorld(t)
	v, hands := openWithHands(t, w.document())
	soon := w.token(t) // expires in an hour
	later := w.withClaim(t, "nbf", time.Now().Add(30*time.Minute).Unix())
	if _, err := v.Verify(t.Context(), soon, ""); err != nil {
		t.Fatal(err)
	}
	hands.set(40 * time.Minute)
	if _, err := v.Verify(t.Context(), later, ""); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "clock was set by 40m0s") {
		t.Errorf("the clock was set to the token's time: %v", err)
	}
	hands.set(-40 * time.Minute)
	hands.pass(62 * time.Minute)
	hands.set(-10 * time.Minute)
	if _, err := v.Verify(t.Context(), soon, ""); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "clock was set by -10m0s") {
		t.Errorf("the clock was set back to the token's time: %v", err)
	}
}

func TestIssuerThatIsDownAtTheStart(t *testing.T) {
	w := newWorld(t)
	token := w.token(t)
	w.Stop()
	v, hands := openWithHands(t, w.document())
	asked := watch(v)
	for range 3 {
		_, err := v.Verify(t.Context(), token, "")
		if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "corp-idp: issuer unavailable") {
			t.Fatalf("got %v, want ErrUnavailable", err)
		}
	}
	if n := asked.times(metadataPath); n != 1 {
		t.Errorf("the issuer that is down was asked %d times at once", n)
	}
	if err := w.Resume(); err != nil {
		t.Fatal(err)
	}
	hands.pass(pauseAfterFailure + time.Second)
	if _, err := v.Verify(t.Context(), token, ""); err != nil {
		t.Fatalf("the issuer is up again: %v", err)
	}
}

// Known keys serve on, for a day: for tokens that are valid.
func TestOutageWithKnownKeys(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, func(r *idp.TokenRequest) { r.Life = 48 * time.Hour })
	short := w.token(t)
	v, hands := openWithHands(t, w.document())
	if _, err := v.Verify(t.Context(), token, ""); err != nil {
		t.Fatal(err)
	}
	w.Stop()
	for range 3 {
		if _, err := v.Verify(t.Context(), token, ""); err != nil {
			t.Errorf("at %v: %v", v.clock.Now(), err)
		}
		hands.pass(50 * time.Minute)
	}
	if _, err := v.Verify(t.Context(), short, ""); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("a token that expired in the outage: %v", err)
	}
	hands.pass(keepFor)
	if _, err := v.Verify(t.Context(), token, ""); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	// Back in time is no way back to the keys.
	hands.set(-2 * keepFor)
	if _, err := v.Verify(t.Context(), token, ""); err == nil {
		t.Error("old keys serve again once the clock is set back")
	}
}

// An issuer that answers, but not with its keys, is down as well.
func TestOutageOfTheKeysAlone(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, func(r *idp.TokenRequest) { r.Life = 48 * time.Hour })
	v, hands := openWithHands(t, w.document())
	if _, err := v.Verify(t.Context(), token, ""); err != nil {
		t.Fatal(err)
	}
	asked := watch(v)
	asked.breaks(keysPath, errors.New("no route to host"))
	hands.pass(2 * refreshAfter)
	if _, err := v.Verify(t.Context(), token, ""); err != nil {
		t.Errorf("known keys don't serve: %v", err)
	}
	if asked.times(keysPath) != 1 {
		t.Error("the keys were not asked for after an hour")
	}
}

func TestKeysAreKeptAndRotated(t *testing.T) {
	w := newWorld(t)
	v, hands := openWithHands(t, w.document())
	asked := watch(v)
	old := w.token(t, func(r *idp.TokenRequest) { r.Life = 48 * time.Hour })
	for range 3 {
		if _, err := v.Verify(t.Context(), old, ""); err != nil {
			t.Fatal(err)
		}
	}
	if asked.times(metadataPath) != 1 || asked.times(keysPath) != 1 {
		t.Errorf("keys aren't kept: %v", asked.count)
	}
	// A token with a new key has the keys asked for at once.
	if err := w.Rotate(); err != nil {
		t.Fatal(err)
	}
	hands.pass(time.Minute)
	current := w.token(t, func(r *idp.TokenRequest) { r.Life = 48 * time.Hour })
	for name, token := range map[string]string{"current": current, "old": old} {
		if _, err := v.Verify(t.Context(), token, ""); err != nil {
			t.Errorf("the %s key's token: %v", name, err)
		}
	}
	if asked.times(keysPath) != 2 {
		t.Errorf("the keys were asked for %d times", asked.times(keysPath))
	}
	// A withdrawn key goes within the hour.
	w.Withdraw()
	hands.pass(refreshAfter)
	if _, err := v.Verify(t.Context(), old, ""); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "signature") {
		t.Errorf("a withdrawn key's token: %v", err)
	}
	if _, err := v.Verify(t.Context(), current, ""); err != nil {
		t.Errorf("the current key's token: %v", err)
	}
}

// Forged tokens have the issuer asked for new keys, but not each of them.
func TestForgedTokensDontFloodTheIssuer(t *testing.T) {
	w, stranger := newWorld(t), newWorld(t)
	forged := stranger.withClaim(t, "iss", w.Issuer())
	v, hands := openWithHands(t, w.document())
	asked := watch(v)
	for range 20 {
		if _, err := v.Verify(t.Context(), forged, ""); !errors.Is(err, ErrToken) {
			t.Fatal(err)
		}
	}
	hands.pass(pauseAfterSuccess)
	for range 20 {
		if _, err := v.Verify(t.Context(), forged, ""); !errors.Is(err, ErrToken) {
			t.Fatal(err)
		}
	}
	if n := asked.times(keysPath); n != 2 {
		t.Errorf("the keys were asked for %d times", n)
	}
	// With the issuer down it can't be told whether they are forged.
	w.Stop()
	hands.pass(time.Minute)
	if _, err := v.Verify(t.Context(), forged, ""); !errors.Is(err, ErrUnavailable) {
		t.Errorf("an unknown key while the issuer is down: %v", err)
	}
	if _, err := v.Verify(t.Context(), w.token(t), ""); err != nil {
		t.Errorf("a known key while the issuer is down: %v", err)
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
	w := newWorld(t)
	token := w.token(t)
	document := w.document()
	document.Spec.CAFile = newWorld(t).caFile
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
		"another issuer": func(rw http.ResponseWriter, _ *http.Request) {
			json.NewEncoder(rw).Encode(map[string]string{"issuer": w.Issuer(), "jwks_uri": w.Issuer() + "/keys"})
		},
		"failing": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, strings.Repeat("x", 5000), 500) },
		"keys without TLS": func(w http.ResponseWriter, r *http.Request) {
			json.NewEncoder(w).Encode(map[string]string{"issuer": "https://" + r.Host, "jwks_uri": "http://" + r.Host + "/keys"})
		},
		"no keys": func(w http.ResponseWriter, r *http.Request) {
			json.NewEncoder(w).Encode(map[string]any{"issuer": "https://" + r.Host, "jwks_uri": "https://" + r.Host + "/keys", "keys": []any{}})
		},
		"a secret for a key": func(w http.ResponseWriter, r *http.Request) {
			json.NewEncoder(w).Encode(map[string]any{"issuer": "https://" + r.Host, "jwks_uri": "https://" + r.Host + "/keys",
				"keys": []any{map[string]string{"kty": "oct", "k": "AAAA", "alg": "HS256"}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := w.serve(t, answer)
			document := w.document()
			document.Spec.Issuer = server.URL
			if _, err := open(t, document).Verify(t.Context(), token, ""); !errors.Is(err, ErrUnavailable) || len(err.Error()) > 1000 {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
		})
	}
}

// serve starts a server with a certificate of the provider's authority.
func (w *world) serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	pair, err := w.ca.Issue("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := pair.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.TLS = serverTLS(certificate)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}
