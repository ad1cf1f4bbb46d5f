package desk

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/desk/api"
)

func errorAs[T error](err error, into *T) bool { return errors.As(err, into) }

// ask has a browser ask for something.
func (w *world) ask(b *http.Client, method, path string, body any, change func(*http.Request)) (int, []byte) {
	w.t.Helper()
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		ok(w.t, err)
		content = strings.NewReader(string(text))
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, content)
	ok(w.t, err)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if change != nil {
		change(r)
	}
	response, err := b.Do(r)
	ok(w.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	ok(w.t, err)
	return response.StatusCode, text
}

func TestLoginAtThePage(t *testing.T) {
	w := newWorld(t)
	r := w.put(request(), approval.StatePending)
	b := w.browser()
	end := w.login(b, "/login?next=/approvals/"+r.ID, "ada", password)
	if end.StatusCode != 200 || end.Request.URL.Path != "/approvals/"+r.ID {
		t.Fatalf("the login ended at %s with %s", end.Request.URL.Path, end.Status)
	}
	for name, want := range map[string]string{
		"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"Strict-Transport-Security": "max-age=31536000", "Content-Security-Policy": "frame-ancestors 'none'",
	} {
		if got := end.Header.Get(name); !strings.Contains(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if csp := end.Header.Get("Content-Security-Policy"); strings.Contains(csp, "unsafe") || !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("the policy for content is %s", csp)
	}
	var who api.Who
	_, text := w.ask(b, "GET", "/v1/whoami", nil, nil)
	ok(t, json.Unmarshal(text, &who))
	if who.String() != "ada@corp" || who.Admin || who.CSRF == "" {
		t.Errorf("logged in as %+v", who)
	}
	csrf := func(r *http.Request) { r.Header.Set(api.HeaderCSRF, who.CSRF) }
	path := "/v1/approvals/" + r.ID + "/votes"
	for name, change := range map[string]func(*http.Request){
		"no token":       nil,
		"wrong token":    func(r *http.Request) { r.Header.Set(api.HeaderCSRF, "x") },
		"another origin": func(r *http.Request) { csrf(r); r.Header.Set("Origin", "https://evil.example") },
	} {
		if status, text := w.ask(b, "POST", path, vote(r, approval.Yes), change); status != 403 {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	if status, _ := w.ask(b, "POST", "/logout", nil, nil); status != 403 {
		t.Errorf("a logout that another page asks for: %d", status)
	}
	status, text := w.ask(b, "POST", path, vote(r, approval.Yes), csrf)
	var v api.View
	ok(t, json.Unmarshal(text, &v))
	if status != 200 || v.State != approval.StateApproved || v.Votes[0].Via != approval.ViaPage {
		t.Errorf("%d %s", status, text)
	}

	// A watch ends with the session.
	watch, err := b.Get(w.url + "/v1/approvals/watch")
	ok(t, err)
	defer watch.Body.Close()
	ended := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, watch.Body); ended <- err }()
	if status, _ := w.ask(b, "POST", "/logout", nil, csrf); status != 200 {
		t.Errorf("logout: %d", status)
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Error("the watch goes on after the logout")
	}
	if status, _ := w.ask(b, "GET", "/v1/whoami", nil, nil); status != 401 {
		t.Errorf("after the logout: %d", status)
	}
}

func TestLoginCookie(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	var cookies []*http.Cookie
	b.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if r.Response != nil && strings.HasPrefix(r.Response.Request.URL.String(), w.url) {
			cookies = append(cookies, r.Response.Cookies()...)
		}
		return nil
	}
	w.login(b, "/login", "ada", password)
	if len(cookies) == 0 {
		t.Fatal("no cookie is set")
	}
	for _, c := range cookies {
		if !strings.HasPrefix(c.Name, "__Host-chaperone") || !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
			t.Errorf("cookie %+v", c)
		}
		// The token lives for an hour, and the session no longer.
		if c.Name == "__Host-chaperone" && (c.MaxAge < 3000 || c.MaxAge > 3700) {
			t.Errorf("the session lives for %d s", c.MaxAge)
		}
	}
}

func TestLoginRefusals(t *testing.T) {
	w := newWorld(t)
	get := func(b *http.Client, path string) (int, string) {
		status, text := w.ask(b, "GET", path, nil, nil)
		return status, string(text)
	}
	if status, text := get(w.browser(), "/callback?code=x&state=y"); status != 403 || !strings.Contains(text, "began no login") {
		t.Errorf("an answer to nothing: %d %s", status, text)
	}
	begun := w.browser()
	begun.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	location := func() *url.URL {
		response, err := begun.Get(w.url + "/login?next=//evil.example")
		ok(t, err)
		defer response.Body.Close()
		u, err := response.Location()
		ok(t, err)
		return u
	}
	q := location().Query()
	if q.Get("code_challenge_method") != "S256" || q.Get("nonce") == "" || q.Get("state") == "" || q.Get("scope") != "openid profile groups" {
		t.Errorf("the login asks for %v", q)
	}
	state := q.Get("state")
	for path, says := range map[string]string{
		"/callback?code=x&state=other":                                 "another login",
		"/callback?iss=https://evil.example&state=" + state:            "another issuer",
		"/callback?error=access_denied&error_description=%3Cb%3Eno%3C": "access_denied &lt;b&gt;no&lt;",
		"/callback?code=nonsense":                                      "no token for its code",
		"/callback?code=" + strings.Repeat("x", 5000):                  "too long",
	} {
		state := location().Query().Get("state")
		if !strings.Contains(path, "state=other") {
			path += "&state=" + state
		}
		path = strings.Replace(path, "state="+q.Get("state")+"&", "", 1)
		if status, text := get(begun, path); status != 403 || !strings.Contains(text, says) {
			t.Errorf("%.80s: %d %s", path, status, text)
		}
	}
	stranger := w.browser()
	end := w.login(stranger, "/login?next=//evil.example", "eve", password)
	if end.Request.URL.String() != w.url+"/" {
		t.Errorf("a login leads to %s", end.Request.URL)
	}
	w.stop()
	w.idp.Stop()
	w.start() // it remembers nothing of the issuer
	if status, text := get(w.browser(), "/login"); status != 403 || !strings.Contains(text, "issuer can&#39;t be reached") {
		t.Errorf("the issuer is away: %d %s", status, text)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	s := newSessions()
	now := time.Now()
	first := s.begin(approval.Person{Subject: "first"}, now.Add(time.Minute), now)
	var last string
	for range maxSessions {
		last = s.begin(approval.Person{Subject: "x"}, now.Add(time.Hour), now)
	}
	if len(s.all) > maxSessions || s.find(first, now) != nil || s.find(last, now) == nil {
		t.Errorf("%d sessions, the first one is %v", len(s.all), s.find(first, now))
	}
	if s.find(last, now.Add(time.Hour)) != nil {
		t.Error("a session outlives its time")
	}
}
