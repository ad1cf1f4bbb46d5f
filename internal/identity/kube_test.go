package identity

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/outbound"
	"chaperone.dev/chaperone/pkg/policy"
)

// accounts are a planner's service account, and one of ours that may read the keys of the
// issuer: nobody else may, on a cluster as it comes.
const accounts = `
apiVersion: v1
kind: Namespace
metadata: {name: planners}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: planner, namespace: planners}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: chaperoned, namespace: planners}
`

// A Kubernetes API server is an issuer like any other, but that it wants to know who asks.
func TestKubernetesAPIServerIsAnIssuer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	api, err := lab.StartKubeAPI(ctx, lab.KubeAPIOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := api.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	kubectl := func(stdin string, arguments ...string) string {
		t.Helper()
		out, err := api.Kubectl(ctx, stdin, arguments...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	kubectl(accounts, "apply", "-f", "-")
	create := func(account string, arguments ...string) string {
		return kubectl("", append([]string{"create", "token", "-n", "planners", account}, arguments...)...)
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	document := &policy.IdentityProvider{Metadata: policy.Metadata{Name: "cluster"}, Spec: policy.IdentityProviderSpec{
		Issuer: "https://kubernetes.default.svc", Audiences: []string{"chaperone"}, CAFile: write("ca.pem", string(api.CA().PEM())),
	}}
	// Inside of a cluster the issuer's name leads to the API server.
	inside := func(document *policy.IdentityProvider) *Verifier {
		v := open(t, document)
		v.client.Transport.(*outbound.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == "kubernetes.default.svc:443" {
				address = api.Addr()
			}
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}
		return v
	}
	token := create("planner", "--audience", "chaperone")

	if _, err := inside(document).Verify(ctx, token, ""); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "bearerTokenFile") {
		t.Errorf("asked without a token: %v", err)
	}
	document.Spec.BearerTokenFile = write("bearer", "not-a-token\n")
	if _, err := inside(document).Verify(ctx, token, ""); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "401") ||
		strings.Contains(err.Error(), "not-a-token") {
		t.Errorf("asked with a wrong token: %v", err)
	}
	v := inside(document)
	write("bearer", create("chaperoned")+"\n") // it is read anew each time
	got, err := v.Verify(ctx, token, "chaperone")
	if err != nil {
		t.Fatal(err)
	}
	if got.Subject != "system:serviceaccount:planners:planner" || got.Issuer != "cluster" || len(got.Groups) != 0 {
		t.Errorf("%+v", got)
	}
	if claims, ok := got.Claims["kubernetes.io"].(map[string]any); !ok || claims["namespace"] != "planners" {
		t.Errorf("the claims are %v", got.Claims)
	}
	// What it has for groups is in its claims.
	document.Spec.Claims.Groups = "kubernetes.io.namespace"
	if got, err = inside(document).Verify(ctx, token, ""); err != nil || len(got.Groups) != 1 || got.Groups[0] != "planners" {
		t.Errorf("%+v, %v", got, err)
	}
	for name, token := range map[string]string{
		"for the API server itself": create("planner"),
		"for somebody else":         create("planner", "--audience", "billing"),
	} {
		if _, err := v.Verify(ctx, token, ""); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "audience") {
			t.Errorf("a token %s: %v", name, err)
		}
	}
}

// The token that the issuer is asked with goes to nobody else.
func TestBearerTokenIsNotPassedOn(t *testing.T) {
	w := newWorld(t)
	stolen := make(chan string, 10)
	elsewhere := w.serve(t, func(_ http.ResponseWriter, r *http.Request) { stolen <- r.Header.Get("Authorization") })
	target, err := url.Parse(elsewhere.URL)
	if err != nil {
		t.Fatal(err)
	}
	issuer := w.serve(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("asked with %q", r.Header.Get("Authorization"))
		}
		http.Redirect(rw, r, target.String(), http.StatusFound)
	})
	document := w.document()
	document.Spec.Issuer = issuer.URL
	document.Spec.BearerTokenFile = filepath.Join(t.TempDir(), "bearer")
	if err := os.WriteFile(document.Spec.BearerTokenFile, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, document).Verify(t.Context(), w.token(t), ""); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	select {
	case header := <-stolen:
		t.Errorf("another server was asked, with %q", header)
	default:
	}
}
