package journal_test

import (
	"strings"
	"testing"

	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/journal"
	"chaperone.dev/chaperone/pkg/event"
)

const (
	firstRevision  = "1111111111111111"
	secondRevision = "2222222222222222"
)

// under starts a session whose documents have the first revision.
func under(t testing.TB, j *journal.Journal, id string) *journal.Recorder {
	t.Helper()
	r := j.Session(id, event.Origin{Target: "orders-db", Subject: id}, false)
	must(t, r.Started(event.SessionStarted{Principal: event.Principal{Subject: "ann", Issuer: "local"}, PolicyRevision: firstRevision, Record: "durable"}))
	return r
}

func decided(id string, seq uint64, revision string) *event.Command {
	c := command(id, seq)
	c.PolicyRevision = revision
	return c
}

// revisions are those of the events, each with what it is about.
func revisions(t testing.TB, p published) string {
	t.Helper()
	var all []string
	for _, e := range p.events {
		all = append(all, string(e.Kind())+" "+strings.Trim(e.PolicyRevision, "12")+e.PolicyRevision[:min(1, len(e.PolicyRevision))])
	}
	return strings.Join(all, ", ")
}

// Each event of a session says by which documents it came to be, also where
// documents changed while a command was under way.
func TestEventsSayThePolicyRevision(t *testing.T) {
	s := embedded(t, t.TempDir())
	defer s.Shutdown()
	j := openJournal(t, options(t.TempDir()))
	r := under(t, j, "s-1")
	long := decided("s-1", 1, firstRevision)
	must(t, r.Command(long))
	denied := decided("s-1", 2, secondRevision)
	denied.Decision, denied.Error = "deny", `no: ","policyRevision":"3333333333333333"}`
	must(t, r.Command(denied))
	must(t, r.Masked(event.MaskApplied{Seq: 1, Columns: []event.MaskColumn{{Column: "card", Rule: "people: *", Count: 1}}}))
	must(t, r.Outcome(long))
	big := decided("s-1", 3, secondRevision)
	big.Text = strings.Repeat("x", 2*event.MaxText)
	big.Shadows = make([]event.Shadow, 300)
	must(t, r.Command(big))
	must(t, r.Outcome(big))
	must(t, r.Masked(event.MaskApplied{Seq: 3, Columns: []event.MaskColumn{{Column: "card", Rule: "people: *", Count: 1}}}))
	must(t, j.Event(event.Origin{Revision: secondRevision}, event.NodeDegraded{Component: "journal", Message: "full"}))
	must(t, r.Ended(event.SessionEnded{Reason: event.ReasonClientClosed}))
	publish(t, j, jet(t, s, bus.RoleNode))()
	must(t, j.Close())

	p := streams(t, s)
	// The end is published with its recording's last block, so behind what follows it.
	const want = "session.started 1, command 2, mask.applied 1, command 1, command 2, mask.applied 2, node.degraded 2, session.ended 2"
	if got := revisions(t, p); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, e := range p.events {
		data, err := e.Payload()
		must(t, err)
		if c, ok := data.(*event.Command); ok {
			if c.PolicyRevision != e.PolicyRevision {
				t.Errorf("command %d: %s in its payload, %s outside", c.Seq, c.PolicyRevision, e.PolicyRevision)
			}
			if len(c.Shadows) > 256 || c.Seq == 3 && len(c.Shadows) == 0 {
				t.Errorf("command %d lists %d shadows", c.Seq, len(c.Shadows))
			}
		}
	}
}

// A next daemon that closes the session as truncated knows the revision from
// the checkpoint, as what named it is not read again.
func TestTruncatedSessionKeepsItsRevision(t *testing.T) {
	s := embedded(t, t.TempDir())
	defer s.Shutdown()
	dir := t.TempDir()
	j := openJournal(t, options(dir))
	r := under(t, j, "s-1")
	must(t, r.Command(decided("s-1", 1, firstRevision)))
	c := decided("s-1", 2, secondRevision)
	must(t, r.Command(c))
	must(t, r.Outcome(c))
	stop := publish(t, j, jet(t, s, bus.RoleNode))
	until(t, "all to be in acknowledged blocks", func() bool {
		st := j.Stats()
		return st.Unread == 0 && st.InFlight == 0 && st.Lag == 0 && st.Published >= 3
	})
	stop() // with its last checkpoint
	must(t, j.Close())

	again := openJournal(t, options(dir))
	publish(t, again, jet(t, s, bus.RoleNode))()
	must(t, again.Close())
	const want = "session.started 1, command 2, command 1, session.ended 2"
	if got := revisions(t, streams(t, s)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// What a daemon of before wrote down names no revision, and is published all
// the same.
func TestSessionsWithoutARevision(t *testing.T) {
	s := embedded(t, t.TempDir())
	defer s.Shutdown()
	j := openJournal(t, options(t.TempDir()))
	r := session(t, j, "s-1", 1)
	must(t, r.Ended(event.SessionEnded{Reason: event.ReasonClientClosed}))
	publish(t, j, jet(t, s, bus.RoleNode))()
	must(t, j.Close())
	p := streams(t, s)
	if got := revisions(t, p); got != "session.started , command , session.ended " {
		t.Error(got)
	}
}
