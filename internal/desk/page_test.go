package desk

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// tab is a tab of a real browser.
type tab struct {
	context.Context
	t *testing.T

	mu         sync.Mutex
	complaints []string
}

func newTab(t *testing.T) *tab {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed; tools/setup.sh test installs it")
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()), chromedp.IgnoreCertErrors,
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"),
		chromedp.Flag("disable-dev-shm-usage", true))...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits for the browser's end
		cancel()
	})
	ok(t, chromedp.Do(ctx, chromedp.EmulateViewport(1280, 900))) // starts it
	b := &tab{Context: ctx, t: t}
	ok(t, chromedp.Listen(ctx, func(e any) {
		switch e := e.(type) {
		case *runtime.EventExceptionThrown:
			b.complain(fmt.Sprintf("%s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
		case *page.EventJavascriptDialogOpening:
			b.complain("a dialog opened: " + e.Message)
		}
	}))
	return b
}

func (b *tab) complain(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.complaints = append(b.complaints, text)
}

// quiet fails the test when the page complained.
func (b *tab) quiet() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.complaints) > 0 {
		b.t.Errorf("the page complained: %q", b.complaints)
	}
}

func (b *tab) run(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.fail(err)
	}
}

func (b *tab) fail(why any) {
	b.t.Helper()
	b.quiet()
	text, _ := chromedp.Run(b, chromedp.Evaluate[string]("location.href + ' ' + document.body.innerText"))
	b.t.Fatalf("%v; the page shows: %.2000s", why, text)
}

// shows waits until an element's text holds something.
func (b *tab) shows(selector, text string) {
	b.t.Helper()
	late := time.Now().Add(30 * time.Second)
	for {
		got, err := chromedp.Run(b, chromedp.Evaluate[string](fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector)))
		switch {
		case err == nil && strings.Contains(got, text):
			return
		case time.Now().After(late):
			b.fail(fmt.Sprintf("%s does not show %q but %q, %v", selector, text, got, err))
		}
		b.run(chromedp.Sleep(20 * time.Millisecond))
	}
}

func (b *tab) eval(expression string) string {
	b.t.Helper()
	text, err := chromedp.Run(b, chromedp.Evaluate[string]("String("+expression+")"))
	if err != nil {
		b.fail(err)
	}
	return text
}

// login goes through the provider's page.
func (b *tab) login(w *world, path, user string) {
	b.t.Helper()
	b.run(chromedp.Navigate(w.url+path), chromedp.WaitVisible(chromedp.CSS("#login-link")), chromedp.Click(chromedp.CSS("#login-link")),
		chromedp.WaitVisible(chromedp.CSS(`input[name=username]`)), chromedp.SendKeys(chromedp.CSS(`input[name=username]`), user), chromedp.SendKeys(chromedp.CSS(`input[name=password]`), password+"\r"),
		chromedp.WaitVisible(chromedp.CSS("#desk")))
	b.shows("#live-text", "Live")
}

// shot keeps a picture, when somebody wants to look at it.
func (b *tab) shot(name string, width, height int64, dark bool) {
	b.t.Helper()
	dir := os.Getenv("CHAPERONE_SCREENSHOTS")
	if dir == "" {
		return
	}
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	_, err := chromedp.Call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	ok(b.t, err)
	b.run(chromedp.EmulateViewport(width, height), chromedp.Sleep(300*time.Millisecond))
	picture, err := chromedp.Run(b, chromedp.CaptureScreenshot())
	ok(b.t, err)
	ok(b.t, os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o600))
}

func TestPage(t *testing.T) {
	b, w := newTab(t), newWorld(t)
	b.login(w, "/", "ada")
	b.shows("#me-name", "Ada Lovelace")
	b.shows("#pending-empty", "Nobody waits")
	b.shot("empty-light-wide", 1280, 800, false)

	// A request appears by itself, and nothing in it has an effect.
	attack := `<img src=x onerror="document.title='owned'"><script>alert(1)</script>` + "\u202e\u200b"
	r := request(func(r *approval.Request) {
		r.Text = "DELETE FROM orders\nWHERE note = '" + attack + "' -- pаypal"
		r.Principal.Subject, r.Workload.Name, r.Why, r.Target.Database = "nightly"+attack, attack, attack, attack
		r.Parameters = []string{attack, "42"}
		r.Standing = time.Hour
	})
	w.write(r, approval.StatePending)
	b.shows("#pending", "DELETE")
	b.shows(".source", "DELETE FROM orders\nWHERE note = '<img src=x onerror=")
	if got := b.eval(`document.querySelector(".source").innerText`); strings.ContainsAny(got, "\u202e\u200b") || !strings.Contains(got, "U+202E") || !strings.Contains(got, "U+200B") {
		t.Errorf("the statement is shown as %q", got)
	}
	if got := b.eval(`document.querySelector("main.desk").innerText`); strings.ContainsAny(got, "\u202e\u200b") {
		t.Errorf("something that can't be seen is on the page: %q", got)
	}
	if got := b.eval(`document.querySelectorAll("#desk img, #desk script").length + document.title`); !strings.HasPrefix(got, "0(1) Approvals") {
		t.Errorf("elements of the statement, and the title: %s", got)
	}
	b.shows(".detail", "Underlined characters are not ASCII")
	for _, says := range []string{"public.orders", "May change data", "psql [4242]", "Policy\norders", "Rule\nwrites", "!statement.readOnly", "0 of 1 person said yes", "n1 in c1"} {
		b.shows(".detail", says)
	}
	b.run(chromedp.WaitVisible(chromedp.CSS("#approve")), chromedp.SetValue(chromedp.CSS("#standing"), "900s"), chromedp.SendKeys(chromedp.CSS("#reason"), "ticket 7"))
	b.eval(`document.querySelector("#standing").dispatchEvent(new Event("change"))`)

	// What comes meanwhile doesn't take its place.
	other := request(func(r *approval.Request) { r.Expires = r.Created.Add(time.Minute); r.Parsed.Kinds = []string{"UPDATE"} })
	w.write(other, approval.StatePending)
	b.shows("#pending", "UPDATE")
	if got := b.eval(`document.querySelector("#reason").value + document.querySelector(".detail h1").innerText`); !strings.HasPrefix(got, "ticket 7DELETE") {
		t.Errorf("after another came: %s", got)
	}
	b.run(chromedp.Click(chromedp.CSS("#approve")))
	b.shows(".outcome", "Approved")
	b.shows(".votes", "ticket 7")
	b.shows("#history", "DELETE")
	votes := w.desk.board.all()
	for _, i := range votes {
		if i.record.Request.ID == r.ID && (len(i.votes) != 1 || i.votes[0].Verdict != approval.Yes || i.votes[0].By.String() != "ada@corp" || i.votes[0].Via != approval.ViaPage || i.votes[0].Standing != 15*time.Minute) {
			t.Errorf("the vote is %+v", i.votes)
		}
	}

	// By keyboard: into the list, open, and to the buttons.
	b.run(chromedp.KeyEvent("j"), chromedp.KeyEvent("\r"))
	b.shows(".detail h1", "UPDATE")
	if got := b.eval("location.pathname"); got != "/approvals/"+other.ID {
		t.Errorf("the address is %s", got)
	}
	b.run(chromedp.Focus(chromedp.CSS("#deny")), chromedp.KeyEvent("\r"))
	b.shows(".outcome", "Denied")

	// On a phone there is the list, or one request.
	b.run(chromedp.EmulateViewport(390, 844), chromedp.Click(chromedp.CSS(".back")), chromedp.WaitNotVisible(chromedp.CSS(".detail")),
		chromedp.Click(chromedp.CSS("#history .row")), chromedp.WaitVisible(chromedp.CSS(".detail .outcome")), chromedp.WaitNotVisible(chromedp.CSS("#pending-title")))
	if got := b.eval("document.documentElement.scrollWidth"); got != "390" {
		t.Errorf("the page is %s pixels wide", got)
	}
	b.quiet()
}

func TestPageDeepLinkAndTrouble(t *testing.T) {
	b, w := newTab(t), newWorld(t)
	r := w.put(request(func(r *approval.Request) { r.Count = 2; r.From.Groups = []string{"dba", "interns"} }), approval.StatePending)
	own := w.put(request(func(r *approval.Request) { r.Principal = event.Principal{Subject: "bob", Issuer: "corp"} }), approval.StatePending)
	b.login(w, "/approvals/"+own.ID, "bob")
	b.shows(".answer.no", "nobody answers for a job of their own")
	b.run(chromedp.Navigate(w.url + "/approvals/" + r.ID))
	b.run(chromedp.WaitVisible(chromedp.CSS("#approve")))

	// Somebody else is first.
	for _, token := range []string{w.token("ada", "dba"), w.token("eve", "interns")} {
		if status, _ := w.call("POST", "/v1/approvals/"+r.ID+"/votes", token, vote(r, approval.Yes), nil); status != 200 {
			t.Fatalf("another one's answer: %d", status)
		}
	}
	b.shows(".outcome", "Approved")
	b.shows(".quorum", "2 of 2 people said yes")
	b.run(chromedp.Navigate(w.url + "/approvals/" + newID()))
	b.shows(".detail", "no such request")

	// The sink goes away and comes back; nobody loads the page again.
	w.stop()
	b.shows("#live-text", "Connecting again")
	w.start()
	b.shows("#login", "Log in to answer") // sessions are in memory
	b.quiet()
}

// The pictures are for people to judge.
func TestPagePictures(t *testing.T) {
	if os.Getenv("CHAPERONE_SCREENSHOTS") == "" {
		t.Skip("set CHAPERONE_SCREENSHOTS to a folder")
	}
	b, w := newTab(t), newWorld(t)
	minutes := func(n int) func(*approval.Request) {
		return func(r *approval.Request) {
			r.Created = r.Created.Add(-time.Duration(n) * time.Minute)
			r.Expires = r.Created.Add(10 * time.Minute)
		}
	}
	w.put(request(minutes(8), func(r *approval.Request) {
		r.Parsed = event.Parsed{Kinds: []string{"UPDATE"}, Tables: []string{"billing.invoices"}}
		r.Principal.Subject, r.Workload.Name, r.Target.Name, r.Target.Database = "priya@corp.example", "invoice-fixer", "billing-db", "billing"
	}), approval.StatePending)
	w.put(request(minutes(3), func(r *approval.Request) {
		r.About, r.Text, r.Parameters, r.Parsed = approval.AboutSession, "", nil, event.Parsed{}
		r.Principal.Subject, r.Workload.Name, r.Target.Name = "sam", "migration-planner", "customers-db"
	}), approval.StatePending)
	w.put(request(minutes(30)), approval.StateUsed)
	w.put(request(minutes(50), func(r *approval.Request) { r.Parsed.Kinds = []string{"TRUNCATE"}; r.Principal.Subject = "sam" }), approval.StateDenied)
	r := w.put(request(minutes(1), func(r *approval.Request) {
		r.Text = "WITH stale AS (\n    SELECT id FROM public.orders\n    WHERE state = 'draft' AND updated_at < now() - interval '90 days'\n)\nDELETE FROM public.orders o\nUSING stale s\nWHERE o.id = s.id AND o.tenant = $1\nRETURNING o.id; -- \u202egnihton tsuj"
		r.Parameters = []string{"acme-gmbh"}
		r.Parsed = event.Parsed{Kinds: []string{"DELETE"}, Tables: []string{"public.orders"}, Functions: []string{"now"}}
		r.Why = "Deleting from orders can't be undone. Check that there is a ticket, and that the tenant is the one in it."
		r.When = `"public.orders" in statement.tables && !statement.readOnly`
		r.Count, r.Standing = 2, time.Hour
		r.Escalate = []policy.EscalationSpec{{After: policy.Duration(5 * time.Minute), To: policy.PrincipalSelect{Groups: []string{"leads"}}}}
	}), approval.StatePending)
	if status, _ := w.call("POST", "/v1/approvals/"+r.ID+"/votes", w.token("bob", "dba"), map[string]string{"verdict": "approve", "digest": r.Digest, "reason": "ticket OPS-1182, tenant checked"}, nil); status != 200 {
		t.Fatal(status)
	}
	b.login(w, "/approvals/"+r.ID, "ada")
	b.run(chromedp.WaitVisible(chromedp.CSS("#approve")))
	for _, dark := range []bool{false, true} {
		name := map[bool]string{false: "light", true: "dark"}[dark]
		b.shot(name+"-wide", 1440, 1000, dark)
		b.shot(name+"-phone", 390, 844, dark)
	}
	b.eval(`document.querySelector(".back").click()`)
	b.shot("light-phone-list", 390, 844, false)
	b.shot("dark-phone-list", 390, 844, true)
	b.run(chromedp.Navigate(w.url+"/approvals/"+r.ID), chromedp.WaitVisible(chromedp.CSS("#deny")))
	b.eval(`window.scrollTo(0, 700)`)
	b.shot("light-wide-below", 1440, 1000, false)
	b.run(chromedp.Click(chromedp.CSS("#deny")))
	b.shows(".outcome", "Denied")
	b.shot("light-wide-denied", 1440, 1000, false)
	b.run(chromedp.Click(chromedp.CSS("#logout")), chromedp.WaitVisible(chromedp.CSS("#login-link")))
	b.shot("light-login", 1440, 900, false)
	b.shot("dark-login", 390, 844, true)
}
