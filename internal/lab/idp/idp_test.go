package idp_test

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/lab/idp"
)

func TestClientCredentials(t *testing.T) {
	w := start(t)
	get := func(id, secret string) (*oauth2.Token, error) {
		config := &clientcredentials.Config{ClientID: id, ClientSecret: secret, TokenURL: w.discover(t).Endpoint().TokenURL}
		return config.Token(w.context(t))
	}
	token, err := get("nightly", "robot")
	if err != nil {
		t.Fatal(err)
	}
	want := claims{Subject: "nightly", Audience: []string{"nightly", "chaperone"}, Groups: []string{"planners"}}
	got, err := w.verify(t, token.AccessToken, "chaperone")
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if _, err := w.verify(t, token.AccessToken, "another"); err == nil {
		t.Error("the token is good for an audience that it isn't for")
	}
	for _, test := range []struct{ id, secret, want string }{
		{"nightly", "wrong", "invalid_client"},
		{"nobody", "robot", "invalid_client"},
		{"cli", "", "invalid_client"},
		{"console", "s3cret", "unauthorized_client"},
	} {
		if _, err := get(test.id, test.secret); oauthError(err) != test.want {
			t.Errorf("%s with %q: %v, not %s", test.id, test.secret, err, test.want)
		}
	}
}

func TestToken(t *testing.T) {
	w := start(t)
	sign := func(r idp.TokenRequest) string {
		t.Helper()
		raw, err := w.Token(r)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	got, err := w.verify(t, sign(idp.TokenRequest{Subject: "ada", Audience: []string{"chaperone", "x"}, Groups: []string{"night"}}), "chaperone")
	want := claims{Subject: "ada", Audience: []string{"chaperone", "x"}, Email: "ada@corp.example", Name: "Ada L.", Groups: []string{"night"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	got, err = w.verify(t, sign(idp.TokenRequest{
		Subject: "planner-7", Audience: []string{"chaperone"}, Claims: map[string]any{"name": "P7", "groups": []string{"a"}},
	}), "chaperone")
	want = claims{Subject: "planner-7", Audience: []string{"chaperone"}, Name: "P7", Groups: []string{"a"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}

	var expired *gooidc.TokenExpiredError
	if _, err := w.verify(t, sign(idp.TokenRequest{Subject: "ada", Audience: []string{"a"}, Life: -time.Minute}), "a"); !errors.As(err, &expired) {
		t.Errorf("an expired token: %v", err)
	}
	tomorrow := map[string]any{"nbf": time.Now().Add(24 * time.Hour).Unix()}
	if _, err := w.verify(t, sign(idp.TokenRequest{Subject: "ada", Audience: []string{"a"}, Claims: tomorrow}), "a"); err == nil {
		t.Error("a token of tomorrow is valid today")
	}
	if _, err := w.verify(t, sign(idp.TokenRequest{Subject: "ada", Audience: []string{"a"}, Claims: map[string]any{"aud": nil}}), "a"); err == nil {
		t.Error("the audience wasn't taken away")
	}
	if _, err := w.Token(idp.TokenRequest{Subject: "ada", Claims: map[string]any{"x": func() {}}}); err == nil {
		t.Error("signed a claim that has no JSON")
	}
}

func TestTokenLife(t *testing.T) {
	w := start(t, func(o *idp.Options) { o.TokenLife = 5 * time.Hour })
	config := &clientcredentials.Config{ClientID: "nightly", ClientSecret: "robot", TokenURL: w.discover(t).Endpoint().TokenURL}
	token, err := config.Token(w.context(t))
	if err != nil {
		t.Fatal(err)
	}
	for after, valid := range map[time.Duration]bool{4 * time.Hour: true, 6 * time.Hour: false} {
		then := func() time.Time { return time.Now().Add(after) }
		verifier := w.discover(t).Verifier(&gooidc.Config{ClientID: "chaperone", Now: then})
		if _, err := verifier.Verify(w.context(t), token.AccessToken); (err == nil) != valid {
			t.Errorf("after %s: %v", after, err)
		}
	}
}

func TestRotate(t *testing.T) {
	w := start(t)
	sign := func() string {
		t.Helper()
		raw, err := w.Token(idp.TokenRequest{Subject: "ada", Audience: []string{"chaperone"}})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	old := sign()
	if err := w.Rotate(); err != nil {
		t.Fatal(err)
	}
	current := sign()
	for name, raw := range map[string]string{"old": old, "current": current} {
		if _, err := w.verify(t, raw, "chaperone"); err != nil {
			t.Errorf("the token of the %s key, while both are published: %v", name, err)
		}
	}
	w.Withdraw()
	if _, err := w.verify(t, old, "chaperone"); err == nil {
		t.Error("the old key's token is valid after the key was withdrawn")
	}
	for name, raw := range map[string]string{"current": current, "new": sign()} {
		if _, err := w.verify(t, raw, "chaperone"); err != nil {
			t.Errorf("the %s token after withdrawing: %v", name, err)
		}
	}
}

func TestOutage(t *testing.T) {
	w := start(t)
	discovery := w.Issuer() + "/.well-known/openid-configuration"
	before := w.get(t, discovery).text
	old, err := w.Token(idp.TokenRequest{Subject: "ada", Audience: []string{"chaperone"}})
	if err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(w.Issuer())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.Stop()
		w.Stop()
		var d net.Dialer
		if conn, err := d.DialContext(t.Context(), "tcp", at.Host); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("in an outage, dialling gives %v, %v", conn, err)
		}
		for range 2 {
			if err := w.Resume(); err != nil {
				t.Fatal(err)
			}
		}
		if after := w.get(t, discovery).text; after != before {
			t.Errorf("discovery after the outage is\n%s\nand was\n%s", after, before)
		}
		if _, err := w.verify(t, old, "chaperone"); err != nil {
			t.Errorf("a token from before the outage: %v", err)
		}
	}
	w.Stop()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Resume(); err == nil {
		t.Error("it resumed after Close")
	}
	l, err := net.Listen("tcp", at.Host)
	if err != nil {
		t.Fatalf("Close didn't let go of the port: %v", err)
	}
	l.Close()
}

func TestAddr(t *testing.T) {
	for _, host := range []string{"localhost", "127.0.0.1", "127.0.0.2"} {
		w := start(t, func(o *idp.Options) { o.Addr = host + ":0" })
		if !strings.HasPrefix(w.Issuer(), "https://"+host+":") {
			t.Errorf("at %s, the issuer is %s", host, w.Issuer())
		}
		w.discover(t) // fails if the certificate or the document has another name
	}
}

func TestStartRefuses(t *testing.T) {
	ca, err := lab.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for _, test := range []struct {
		name, want string
		options    idp.Options
	}{
		{"no CA", "no CA given", idp.Options{}},
		{"a negative life", "can't live for -1s", idp.Options{CA: ca, TokenLife: -time.Second}},
		{"all addresses", "no one's name", idp.Options{CA: ca, Addr: "0.0.0.0:0"}},
		{"no port", "missing port", idp.Options{CA: ca, Addr: "127.0.0.1"}},
		{"a busy port", "address already in use", idp.Options{CA: ca, Addr: busy.Addr().String()}},
		{"a user twice", `user "ada"`, idp.Options{CA: ca, Users: []idp.User{{Subject: "ada"}, {Subject: "ada"}}}},
		{"a client twice", `client "c"`, idp.Options{CA: ca, Clients: []idp.Client{{ID: "c"}, {ID: "c"}}}},
		{"no secret", `service account "c" has no secret`, idp.Options{CA: ca, Clients: []idp.Client{{ID: "c", ServiceAccount: true}}}},
	} {
		p, err := idp.Start(t.Context(), test.options)
		if err == nil {
			err = errors.Join(p.Close())
			t.Errorf("%s: it started, %v", test.name, err)
		} else if !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestLargeBodyIsRefused(t *testing.T) {
	w := start(t)
	p := w.load(t, http.MethodPost, w.Issuer()+"/device", url.Values{"user_code": {strings.Repeat("x", 1<<20)}})
	if !slices.Contains([]int{http.StatusBadRequest, http.StatusRequestEntityTooLarge}, p.status) {
		t.Errorf("status %d", p.status)
	}
}
