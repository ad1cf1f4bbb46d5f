package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/pkg/policy"
)

const (
	first  = "a-aaaaaaaaaaaaaaaa"
	second = "a-bbbbbbbbbbbbbbbb"
)

func TestApprovals(t *testing.T) {
	w := startDesk(t)
	w.put(t, request(first), approval.StatePending)
	w.put(t, request(second, func(r *approval.Request) {
		r.Count, r.Text, r.Standing = 2, "DROP TABLE orders -- \x1b[2J\u202e\u009b2J", 0
	}), approval.StatePending)
	late := request("a-cccccccccccccccc", func(r *approval.Request) { r.Text = "TRUNCATE orders" })
	w.put(t, late, approval.StateExpired)
	notMine := request("a-dddddddddddddddd", func(r *approval.Request) { r.From = policy.PrincipalSelect{Groups: []string{"board"}} })
	w.put(t, notMine, approval.StatePending)

	for _, c := range []struct {
		args  string
		code  int
		want  []string // in the output or the error
		never []string
	}{
		{"approvals list", 0, []string{first, second, "DELETE FROM orders", "may answer", "orders/writes", "left"}, []string{"TRUNCATE"}},
		{"approvals list --all", 0, []string{"TRUNCATE", "expired"}, nil},
		{"approvals show " + first, 0, []string{"nightly@corp", "  | DELETE FROM orders WHERE id = $1", "$1 = 42", "tables public.orders", strings.Repeat("ab", 32)}, nil},
		{"approvals show " + second[:4], 0, []string{`  | DROP TABLE orders -- \x1b[2J\u202e\u009b2J`, "2 yes, has 0"}, nil},
		{"approvals show a-", 1, []string{"no such request"}, nil},
		{"approvals show a-zz", 1, []string{"no such request"}, nil},
		{"approvals show", 2, []string{"accepts 1 arg"}, nil},
		{"approvals nonsense", 2, nil, nil},
		{"approvals list --nonsense", 2, []string{"unknown flag"}, nil},
		{"approvals list -o xml", 2, []string{"table"}, nil},
		{"approvals approve " + first, 2, []string{"comes from no terminal", "approvals show " + first, "--yes"}, nil},
		{"approvals approve --yes --for x " + first, 2, []string{"want a duration"}, nil},
		{"approvals approve --yes --for 2h " + first, 1, []string{"1h at most"}, nil},
		{"approvals approve --yes --for 1m " + second, 1, []string{"each such request asked for"}, nil},
		{"approvals approve --yes a-dd", 1, []string{"can't answer", "not among those who are asked"}, nil},
		{"approvals deny --yes a-cc", 1, []string{"can't answer", "expired"}, nil},
		{"approvals watch --ask", 2, []string{"comes from no terminal"}, nil},
		{"approvals approve --yes --reason fine --for 30m a-aa", 0, []string{"DELETE FROM orders", first + ": approved\n"}, nil},
		{"approvals approve --yes " + first, 1, []string{"It is approved"}, nil},
		{"approvals show " + first, 0, []string{"yes by root@local", "for 30m: fine", "at the terminal"}, []string{"left"}},
		{"approvals approve --yes a-bb", 0, []string{"1 of 2 have said yes; it waits for more"}, nil},
		{"approvals deny --yes a-bb", 1, []string{"You have answered"}, nil},
		{"approvals list --server ftp://x", 2, []string{"must be https"}, nil},
		{"approvals list --server http://127.0.0.1:1 --socket /x", 2, []string{"one of them"}, nil},
		{"approvals list --server " + w.url, 1, []string{"Log in first: chaperone login --server " + w.url}, nil},
		{"approvals list --socket /nonexistent", 1, []string{"/nonexistent"}, nil},
		{"whoami", 0, []string{"root@local", "yes: you may lock"}, nil},
	} {
		out, err := w.command(t, strings.Fields(c.args)...)
		if err != nil {
			out += err.Error()
		}
		if code(err) != c.code {
			t.Errorf("chaperone %s: exits with %d, want %d\n%s", c.args, code(err), c.code, out)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("chaperone %s: no %q in\n%s", c.args, want, out)
			}
		}
		for _, never := range c.never {
			if strings.Contains(out, never) {
				t.Errorf("chaperone %s: %q in\n%s", c.args, never, out)
			}
		}
		noControl(t, c.args, out)
		if strings.Contains(c.args, "approve --yes") && c.code == 0 {
			w.shows(t, c.args[strings.LastIndex(c.args, " ")+1:], "yes by root@local")
		}
	}

	out, err := w.command(t, "approvals", "list", "--all", "-o", "json")
	ok(t, err)
	noControl(t, "JSON", out)
	var views []api.View
	if err := json.Unmarshal([]byte(out), &views); err != nil || len(views) != 4 {
		t.Fatalf("%v in %s", err, out)
	}
	for _, v := range views {
		if v.Request.ID == second && v.Request.Text != "DROP TABLE orders -- \x1b[2J\u202e\u009b2J" {
			t.Errorf("JSON has changed the text to %q", v.Request.Text)
		}
	}
}

func noControl(t *testing.T, what, out string) {
	t.Helper()
	if i := strings.IndexFunc(out, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("%s: control character in %q", what, out)
	}
}

// What is typed before the question is asked answers nothing, and what is answered is
// what was shown.
func TestAnswerAtATerminal(t *testing.T) {
	w := startDesk(t)
	w.put(t, request(first), approval.StatePending)
	for _, c := range []struct {
		typed string
		want  string
	}{{"\n", "nothing was answered"}, {"n\n", "nothing was answered"}, {"yeah\n", "nothing was answered"}, {"\x04", "nothing was answered"}, {"Y\n", ""}} {
		s := newScreen(t)
		s.types(t, "y\n") // too early
		s.sees(t, "y")
		done := make(chan error, 1)
		go func() { done <- w.start(t.Context(), s.line, s.line, s.line, "approvals", "approve", "a-aa") }()
		if shown := s.sees(t, "approve? [y/N]"); !strings.Contains(shown, "DELETE FROM orders") {
			t.Errorf("asked without showing what for: %s", shown)
		}
		select {
		case err := <-done:
			t.Fatalf("%q: what was typed before answered it: %v", c.typed, err)
		default:
		}
		s.types(t, c.typed)
		if err := <-done; (err == nil) != (c.want == "") || err != nil && err.Error() != c.want {
			t.Errorf("%q: %v, want %q", c.typed, err, c.want)
		}
	}
	w.shows(t, "a-aa", "approved")

	// Interrupted at the question.
	w.put(t, request(second), approval.StatePending)
	s := newScreen(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.start(ctx, s.line, s.line, s.line, "approvals", "deny", "a-bb") }()
	s.sees(t, "deny? [y/N]")
	cancel()
	if err := <-done; !errors.Is(err, errUnanswered) {
		t.Error(err)
	}
}

func TestWatchAsks(t *testing.T) {
	w := startDesk(t)
	w.put(t, request(first), approval.StatePending)
	s := newScreen(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.start(ctx, s.line, s.line, s.line, "approvals", "watch", "--ask") }()
	const question = "approve? [y/n, Enter: not now]"
	s.sees(t, first)
	s.sees(t, question)
	s.types(t, "y\n")
	s.sees(t, first+": approved")

	// Somebody else is faster.
	w.put(t, request(second), approval.StatePending)
	s.sees(t, second)
	s.sees(t, question)
	_, err := w.command(t, "approvals", "deny", "--yes", second, "--reason", "no \x1b[2J")
	ok(t, err)
	w.put(t, request(second), approval.StateDenied) // as its node says then
	s.sees(t, second+": it needs no answer of yours any more: denied")

	for id, typed := range map[string][2]string{"a-cccccccccccccccc": {"n\n", ": denied"}, "a-dddddddddddddddd": {"\n", "It waits on."}} {
		w.put(t, request(id), approval.StatePending)
		s.sees(t, id)
		s.sees(t, question)
		s.types(t, typed[0])
		s.sees(t, typed[1])
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWatchPrints(t *testing.T) {
	w := startDesk(t)
	w.put(t, request(first), approval.StatePending)
	s := newScreen(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.start(ctx, s.line, s.line, s.line, "approvals", "watch") }()
	s.sees(t, first+"  nightly@corp, job report, to orders-db (orders/writes): DELETE FROM orders WHERE id = $1 → it waits for people")
	_, err := w.command(t, "approvals", "approve", "--yes", first)
	ok(t, err)
	s.sees(t, "→ approved")
	w.put(t, request(second, func(r *approval.Request) { r.About, r.Text = approval.AboutSession, "" }), approval.StatePending)
	s.sees(t, second+"  nightly@corp, job report, to orders-db (orders/writes): a session")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestShow compares what an approver is shown with testdata/approval.txt.
func TestShow(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r := request(first, func(r *approval.Request) {
		r.Created, r.Expires, r.Count, r.Mode, r.Cut = at, at.Add(10*time.Minute), 2, policy.ModeRetry, true
		r.Escalate = []policy.EscalationSpec{{After: policy.Duration(5 * time.Minute), To: policy.PrincipalSelect{Groups: []string{"leads"}}}}
		r.Text = "UPDATE orders\n\tSET note = 'x\x1b[2J'\n  WHERE id = $1 -- " + strings.Repeat(" ", 80) + "Digest      0000\r\n"
		r.Parameters = []string{"42", "two\nlines \u202e", "漢" + strings.Repeat("字", 60)}
		r.Parsed.Tables = append(r.Parsed.Tables, "x"+strings.Repeat(" ", 90)+"You        may answer")
	})
	v := api.View{Request: r, State: approval.StatePending, Changed: at, May: false, MayNot: "You have answered.", Left: 570,
		Votes: []api.Vote{{By: approval.Person{Subject: "bob", Issuer: "corp", Name: "Bob\x1b]0;B."}, Verdict: approval.Yes, Via: approval.ViaPage,
			Reason: "seen\nby me", Standing: policy.Duration(30 * time.Minute), At: at.Add(30 * time.Second)}}}
	var out bytes.Buffer
	ok(t, printView(&out, v))
	want, err := os.ReadFile(filepath.Join("testdata", "approval.txt"))
	if err != nil {
		t.Error(err)
	}
	// The file has the times in UTC.
	for _, local := range []time.Time{at, at.Add(30 * time.Second), at.Add(5 * time.Minute)} {
		want = bytes.ReplaceAll(want, []byte(local.Format(time.DateTime)), []byte(clock(local)))
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("(-want +got)\n%s\nall of it:\n%s", diff, out.String())
	}
	noControl(t, "show", out.String())
}

func FuzzPrintText(f *testing.F) {
	f.Add("SELECT 1\nFROM x", "\x1b[2J")
	f.Add(strings.Repeat("界", 300), "\u202e\xff")
	f.Fuzz(func(t *testing.T, text, who string) {
		v := api.View{State: approval.StatePending, Request: request(first, func(r *approval.Request) {
			r.Text, r.Principal.Subject, r.Process.Comm, r.Parsed.Tables = text, who, who, []string{who, text}
		})}
		var out bytes.Buffer
		ok(t, printView(&out, v))
		noControl(t, "show", out.String())
		for line := range strings.SplitSeq(out.String(), "\n") {
			if len([]rune(line)) > 120 {
				t.Errorf("a line of %d characters: %q", len([]rune(line)), line)
			}
		}
	})
}
