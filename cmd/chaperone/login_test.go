package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/lab/idp"
	"chaperone.dev/chaperone/internal/login"
)

// phone sees the code that a login shows, and confirms it at the provider.
type phone struct {
	t    *testing.T
	w    *deskWorld
	who  string
	mu   sync.Mutex
	text bytes.Buffer
	done bool
}

func (p *phone) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text.Write(b)
	if m := regexp.MustCompile(`(?m)^    (\S+)$`).FindStringSubmatch(p.text.String()); m != nil && !p.done {
		p.done = true
		if err := p.w.provider.Approve(m[1], p.who); err != nil {
			p.t.Error(err)
		}
	}
	return len(b), nil
}

func TestLogin(t *testing.T) {
	if err := (login.Keyring{}).Check(); err != nil {
		t.Skip(err)
	}
	w := startDesk(t)
	// The job acts for bob.
	w.put(t, request(first, func(r *approval.Request) { r.Principal.Subject, r.Principal.Issuer = "bob", "corp" }), approval.StatePending)
	t.Cleanup(func() { _ = login.Keyring{}.Forget(login.KeyringName(w.url)) })

	if out, err := w.command(t, "login"); code(err) != 2 || !strings.Contains(err.Error(), "--server") {
		t.Errorf("without a server: %v\n%s", err, out)
	}
	logIn := func(who string, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		p := &phone{t: t, w: w, who: who}
		if err := w.start(t.Context(), strings.NewReader(""), &out, p, append([]string{"login"}, args...)...); err != nil {
			t.Fatalf("%v\n%s", err, p.text.String())
		}
		if !strings.Contains(p.text.String(), w.provider.Issuer()+"/device") {
			t.Errorf("the person is shown\n%s", p.text.String())
		}
		return out.String()
	}
	if out := logIn("ada", "--server", w.url+"/", "--ca", w.caFile); !strings.HasPrefix(out, "Logged in at "+w.url+" as ada@corp (Ada L.), until ") {
		t.Error(out)
	}
	// From here on the server is asked, though there is a local socket.
	for _, c := range []struct {
		args string
		want string
	}{
		{"whoami", "ada@corp"}, {"whoami", "Groups   dba"}, {"whoami", "At       " + w.url}, {"whoami", "Until "},
		{"whoami --socket " + filepath.Join(w.dir, "sink.sock"), "root@local"},
		{"approvals list", first},
		{"locks", "There are no locks."},
	} {
		if out, err := w.command(t, strings.Fields(c.args)...); err != nil || !strings.Contains(out, c.want) {
			t.Errorf("chaperone %s: %v, no %q in\n%s", c.args, err, c.want, out)
		}
	}
	if _, err := w.command(t, "lock", "--target", "x", "--for", "1h"); code(err) != 1 || !strings.Contains(err.Error(), "Only admins") {
		t.Errorf("ada locks: %v", err)
	}
	secretOnDisk(t, w)

	// Another login takes its place, without --server.
	logIn("bob")
	if _, err := w.command(t, "approvals", "approve", "--yes", first); code(err) != 1 || !strings.Contains(err.Error(), "nobody answers for a job of their own") {
		t.Errorf("bob answers for his own job: %v", err)
	}
	// A token that is given goes first.
	ada, err := w.provider.Token(idp.TokenRequest{Subject: "ada", Audience: []string{"cli"}, Groups: []string{"dba"}})
	ok(t, err)
	file := filepath.Join(t.TempDir(), "token")
	ok(t, os.WriteFile(file, []byte(ada+"\n"), 0o600))
	if out, err := w.command(t, "whoami", "--token-file", file); err != nil || !strings.Contains(out, "ada@corp") {
		t.Errorf("--token-file: %v\n%s", err, out)
	}
	t.Setenv(tokenVariable, ada)
	if out, err := w.command(t, "approvals", "approve", "--yes", first); err != nil || !strings.Contains(out, first+": approved") {
		t.Errorf("$%s: %v\n%s", tokenVariable, err, out)
	}
	old, err := w.provider.Token(idp.TokenRequest{Subject: "ada", Audience: []string{"cli"}, Life: -time.Hour})
	ok(t, err)
	t.Setenv(tokenVariable, old)
	if _, err := w.command(t, "whoami"); code(err) != 1 || !strings.Contains(err.Error(), "expired") || strings.Contains(err.Error(), old) {
		t.Errorf("a token that has expired: %v", err)
	}
	t.Setenv(tokenVariable, "two words")
	if _, err := w.command(t, "whoami"); code(err) != 1 || !strings.Contains(err.Error(), tokenVariable) {
		t.Errorf("no token: %v", err)
	}
	t.Setenv(tokenVariable, "")

	if out, err := w.command(t, "logout"); err != nil || out != "Logged out of "+w.url+".\n" {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := w.command(t, "logout"); err != nil || out != "You are not logged in.\n" {
		t.Errorf("again: %v\n%s", err, out)
	}
	if _, err := w.command(t, "whoami", "--server", w.url); code(err) != 1 || !strings.Contains(err.Error(), "Log in first: chaperone login --server "+w.url) {
		t.Errorf("logged out: %v", err)
	}
	if out, err := w.command(t, "whoami"); err != nil || !strings.Contains(out, "root@local") {
		t.Errorf("the local sink: %v\n%s", err, out)
	}
}

// secretOnDisk looks for a token in all that the commands have written.
func secretOnDisk(t *testing.T, w *deskWorld) {
	t.Helper()
	token, err := login.Keyring{}.Find(login.KeyringName(w.url))
	ok(t, err)
	text, err := os.ReadFile(filepath.Join(w.dir, "config", "chaperone", "server.json"))
	ok(t, err)
	if strings.Contains(string(text), token) || !strings.Contains(string(text), w.url) || !strings.Contains(string(text), w.caFile) {
		t.Errorf("kept on the disk: %s", text)
	}
	files, err := filepath.Glob(filepath.Join(w.dir, "config", "*", "*"))
	if err != nil || len(files) != 1 {
		t.Errorf("kept on the disk: %v, %v", files, err)
	}
}

func TestLoginPrints(t *testing.T) {
	w := startDesk(t)
	var out bytes.Buffer
	p := &phone{t: t, w: w, who: "ada"}
	ok(t, w.start(t.Context(), strings.NewReader(""), &out, p, "login", "--print", "--server", w.url, "--ca", w.caFile))
	token := strings.TrimSuffix(out.String(), "\n")
	if _, err := login.OneToken(token); err != nil || strings.Contains(p.text.String(), token) {
		t.Errorf("printed is %q", token)
	}
	t.Setenv(tokenVariable, token)
	if out, err := w.command(t, "whoami"); err != nil || !strings.Contains(out, "ada@corp") {
		t.Errorf("%v\n%s", err, out)
	}
	s := newScreen(t)
	if err := w.start(t.Context(), s.line, s.line, s.line, "login", "--print", "--server", w.url); code(err) != 2 || !strings.Contains(err.Error(), "stay on your screen") {
		t.Errorf("at a terminal: %v", err)
	}
}

func TestLoginFails(t *testing.T) {
	w := startDesk(t)
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"--server chaperone.corp.example", 2, "want a URL"},
		{"--server http://corp.example", 2, "must be https"},
		{"--server http://127.0.0.1:1", 1, "can't be reached"},
		{"--server " + w.url, 1, "issuer " + w.provider.Issuer()}, // whose CA is not known
		{"--server " + w.url + " --ca /nonexistent", 1, "/nonexistent"},
		{"extra", 2, "unknown command"},
	} {
		out, err := w.command(t, append([]string{"login", "--print"}, strings.Fields(c.args)...)...)
		if code(err) != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("chaperone login %s: %v, exits with %d\n%s", c.args, err, code(err), out)
		}
	}
	// Interrupted while the person is waited for.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out bytes.Buffer
	err := w.start(ctx, strings.NewReader(""), &out, writer(func(b []byte) { cancel() }), "login", "--print", "--server", w.url, "--ca", w.caFile)
	if code(err) != 1 || out.Len() != 0 {
		t.Errorf("interrupted: %v\n%s", err, out.String())
	}
	if _, err := os.Stat(filepath.Join(w.dir, "config")); err == nil {
		t.Error("a login that failed is remembered")
	}
}

type writer func([]byte)

func (f writer) Write(b []byte) (int, error) { f(b); return len(b), nil }

func TestNoSink(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	w := &deskWorld{dir: dir}
	for _, args := range [][]string{{"whoami"}, {"approvals", "list"}, {"locks"}, {"unlock", "l-x"}, {"policy", "published"}} {
		if _, err := w.command(t, args...); code(err) != 1 || !strings.Contains(err.Error(), "Log in first: chaperone login --server") {
			t.Errorf("%v: %v", args, err)
		}
	}
}
