package idp

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"

	"chaperone.dev/chaperone/internal/lab"
)

// FuzzForms posts to the pages what no browser would.
func FuzzForms(f *testing.F) {
	ca, err := lab.NewCA()
	if err != nil {
		f.Fatal(err)
	}
	p := &Provider{issuer: "https://127.0.0.1:1", ca: ca}
	p.store, err = newStorage(Options{
		TokenLife: time.Hour, Users: []User{{Subject: "ada", Password: "correct horse battery staple"}, {Subject: "bob"}},
		Clients: []Client{{ID: "cli", Device: true, Redirects: []string{"http://127.0.0.1/"}}},
	})
	if err != nil {
		f.Fatal(err)
	}
	handler, err := p.handler()
	if err != nil {
		f.Fatal(err)
	}
	request, err := p.store.CreateAuthRequest(f.Context(), &oidc.AuthRequest{ClientID: "cli"}, "")
	if err != nil {
		f.Fatal(err)
	}
	p.store.mu.Lock()
	p.store.requests.items["r"] = p.store.requests.items[request.GetID()]
	p.store.mu.Unlock()
	if err := p.store.StoreDeviceAuthorization(f.Context(), "cli", "d", "ABCD-EFGH", time.Now().Add(time.Hour), nil); err != nil {
		f.Fatal(err)
	}
	for _, path := range []string{loginPath, devicePath, "/oauth/token", "/device_authorization", "/authorize"} {
		f.Add(path, "", "request=r&username=ada&password=guess")
		f.Add(path, "user_code=abcdefgh", "user_code=ABCD-EFGH&username=bob&password=")
		f.Add(path, "request=r", "%zz;=&&username=&grant_type=urn:ietf:params:oauth:grant-type:device_code&client_id=cli&device_code=d")
	}
	f.Fuzz(func(t *testing.T, path, query, body string) {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			r := httptest.NewRequestWithContext(t.Context(), method, p.issuer, strings.NewReader(body))
			r.URL.Path, r.URL.RawQuery = path, query
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			if strings.Contains(w.Body.String(), "access_token\":") {
				t.Fatalf("a token for %q?%q %q: %s", path, query, body, w.Body)
			}
		}
		p.store.mu.Lock()
		defer p.store.mu.Unlock()
		if i := p.store.requests.items["r"]; i.value.Done() {
			t.Fatalf("logged in as %q with %q", i.value.subject, body)
		}
		if i := p.store.devices.items["d"]; i.value.state.Done {
			t.Fatalf("approved as %q with %q", i.value.state.Subject, body)
		}
	})
}

func TestShelfIsBounded(t *testing.T) {
	s := newShelf[int]("numbers", 2)
	soon := time.Now().Add(time.Hour)
	for id, expires := range map[string]time.Time{"old": time.Now().Add(-time.Second), "kept": soon} {
		if err := s.put(id, 1, expires); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := s.get("old"); ok {
		t.Error("what has expired is there")
	}
	if err := s.put("new", 2, soon); err != nil {
		t.Errorf("there is room once the old has expired: %v", err)
	}
	if err := s.put("more", 3, soon); err == nil || !strings.Contains(err.Error(), "2 numbers are kept already") {
		t.Errorf("a third thing: %v", err)
	}
	if err := s.put("kept", 4, soon); err != nil {
		t.Errorf("replacing in a full shelf: %v", err)
	}
	if i, ok := s.take("kept"); !ok || i.value != 4 {
		t.Errorf("took %v, %v", i, ok)
	}
	if _, ok := s.take("kept"); ok {
		t.Error("took it twice")
	}
}
