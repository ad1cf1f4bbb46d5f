package approval_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// Every vote that does not count is told of, once, with the reason, and the request goes
// on as if it had not been given.
func TestVotesThatDoNotCount(t *testing.T) {
	w := newWorld(t).start()
	forger := newSigner(t)
	escalated := question()
	escalated.Escalate = []policy.EscalationSpec{{After: policy.Duration(30 * time.Second), To: policy.PrincipalSelect{Groups: []string{"managers"}}}}
	standing := question()
	standing.Standing = 10 * time.Minute
	local := question()
	local.Principal = event.Principal{Subject: "root", Issuer: "local"}
	local.From = policy.PrincipalSelect{Subjects: []string{"*"}}

	for name, c := range map[string]struct {
		question approval.Question // zero: question()
		change   func(*approval.Vote)
		signed   func(approval.Vote) authority.Signed
		reason   string
	}{
		"altered digest":                           {change: func(v *approval.Vote) { v.Digest = "d2" }, reason: "digest"},
		"another session":                          {change: func(v *approval.Vote) { v.Session = "s-2" }, reason: "replayed"},
		"another request":                          {change: func(v *approval.Vote) { v.Request = "a-aaaaaaaaaaaaaaaa" }, reason: "replayed"},
		"another node":                             {change: func(v *approval.Vote) { v.Node = "n2" }, reason: "replayed"},
		"another cluster":                          {change: func(v *approval.Vote) { v.Cluster = "c2" }, reason: "replayed"},
		"before the request":                       {change: func(v *approval.Vote) { v.At = v.At.Add(-time.Hour) }, reason: "replayed"},
		"from the future":                          {change: func(v *approval.Vote) { v.At = v.At.Add(5 * time.Minute) }, reason: "replayed"},
		"after the end":                            {change: func(v *approval.Vote) { v.At = v.Until }, reason: "replayed"},
		"its own time over":                        {change: func(v *approval.Vote) { v.Until = v.At.Add(-time.Second) }, reason: "late"},
		"counts for too long":                      {change: func(v *approval.Vote) { v.Until = v.Until.Add(time.Hour) }, reason: "late"},
		"of whom it acts for":                      {change: func(v *approval.Vote) { v.By = planner }, reason: "self"},
		"of the local user":                        {question: local, change: func(v *approval.Vote) { v.By = approval.Person{Subject: "root", Issuer: "local", Name: "x"} }, reason: "self"},
		"of an intern":                             {change: func(v *approval.Vote) { v.By = mallory }, reason: "not_asked"},
		"of nobody":                                {change: func(v *approval.Vote) { v.By = approval.Person{Groups: []string{"dba"}} }, reason: "not_asked"},
		"escalated too early":                      {question: escalated, change: func(v *approval.Vote) { v.By = carol }, reason: "not_asked"},
		"escalated by the authority's clock alone": {question: escalated, change: func(v *approval.Vote) { v.By, v.At = carol, v.At.Add(45*time.Second) }, reason: "not_asked"},
		"stands where none may":                    {change: func(v *approval.Vote) { v.Standing = time.Second }, reason: "standing"},
		"stands too long":                          {question: standing, change: func(v *approval.Vote) { v.Standing = 11 * time.Minute }, reason: "standing"},
		"stands less than none":                    {question: standing, change: func(v *approval.Vote) { v.Standing = -time.Minute }, reason: "standing"},
		"no that stands":                           {question: standing, change: func(v *approval.Vote) { v.Verdict, v.Standing = approval.No, time.Minute }, reason: "standing"},
		"no verdict":                               {change: func(v *approval.Vote) { v.Verdict = "maybe" }, reason: "signature"},
		"signed by another": {signed: func(v approval.Vote) authority.Signed {
			s, _ := forger.Sign(approval.SignedVote, v)
			return s
		}, reason: "signature"},
		"another's signature under the authority's name": {signed: func(v approval.Vote) authority.Signed {
			s, _ := forger.Sign(approval.SignedVote, v)
			s.Key = authority.KeyID(w.signer.Public())
			return s
		}, reason: "signature"},
		"signed as something else": {signed: func(v approval.Vote) authority.Signed {
			s, _ := w.signer.Sign("lock", v)
			return s
		}, reason: "signature"},
		"altered after it was signed": {signed: func(v approval.Vote) authority.Signed {
			v.Verdict = approval.No
			s := w.sign(v)
			v.Verdict = approval.Yes
			s.Payload, _ = json.Marshal(v)
			return s
		}, reason: "signature"},
		"not signed": {signed: func(v approval.Vote) authority.Signed {
			payload, _ := json.Marshal(v)
			return authority.Signed{Payload: payload, Key: authority.KeyID(w.signer.Public())}
		}, reason: "signature"},
	} {
		t.Run(name, func(t *testing.T) {
			q := c.question
			if q.Digest == "" {
				q = question()
			}
			a := w.hold(q)
			v := w.vote(a.request, alice, approval.Yes)
			if c.change != nil {
				c.change(&v)
			}
			bad := w.sign(v)
			if c.signed != nil {
				bad = c.signed(v)
			}
			w.store(a.request.ID, bad)
			if e := next[*event.ApprovalRejected](w); e.Reason != c.reason || e.Request != a.request.ID || e.Message == "" {
				t.Errorf("rejected: %+v, want reason %q", e, c.reason)
			}
			w.pending(a)
			// The bad vote is looked at again with the good one, and told of no more.
			w.store(a.request.ID, bad, w.sign(w.vote(a.request, bob, approval.Yes)))
			if got := <-a.answer; got.State != approval.StateApproved || len(got.By) != 1 || got.By[0].Subject != "bob" {
				t.Errorf("after a good vote: %+v", got)
			}
			for len(w.events) > 0 {
				if e, ok := (<-w.events).(*event.ApprovalRejected); ok {
					t.Errorf("told once more: %+v", e)
				}
			}
		})
	}
}

func TestVotesInTheWrongPlace(t *testing.T) {
	w := newWorld(t).start()
	first, second := w.hold(question()), w.hold(question())
	yes := w.sign(w.vote(first.request, alice, approval.Yes))
	w.store(first.request.ID, yes)
	if got := <-first.answer; got.State != approval.StateApproved {
		t.Fatalf("%+v", got)
	}
	w.store(second.request.ID, yes) // the same words, another request
	if e := next[*event.ApprovalRejected](w); e.Reason != "replayed" || e.Request != second.request.ID {
		t.Errorf("%+v", e)
	}
	w.pending(second)
	// A vote more on what was used already.
	w.store(first.request.ID, yes, w.sign(w.vote(first.request, bob, approval.Yes)))
	if e := next[*event.ApprovalRejected](w); e.Reason != "replayed" || e.Request != first.request.ID {
		t.Errorf("%+v", e)
	}
	for _, garbage := range []string{"", "{", "[]x", `{"a":1}`, `[1]`} {
		w.storeRaw(second.request.ID, []byte(garbage))
		if e := next[*event.ApprovalRejected](w); e.Reason != "signature" {
			t.Errorf("%q: %+v", garbage, e)
		}
	}
	w.pending(second)
}

// A quorum is of different people, whatever they call themselves.
func TestQuorum(t *testing.T) {
	w := newWorld(t).start()
	q := question()
	q.Count = 2
	a := w.hold(q)
	again := alice
	again.Name, again.Groups = "Alice again", []string{"dba", "others"}
	w.store(a.request.ID, w.sign(w.vote(a.request, alice, approval.Yes)), w.sign(w.vote(a.request, again, approval.Yes)))
	if e := next[*event.ApprovalRejected](w); e.Reason != "replayed" || e.By.Subject != "alice" {
		t.Errorf("%+v", e)
	}
	w.pending(a)
	if err := w.cast(a.request, alice, approval.Yes); !errors.Is(err, approval.ErrVoted) {
		t.Errorf("alice once more: %v", err)
	}
	if err := w.cast(a.request, bob, approval.Yes); err != nil {
		t.Fatal(err)
	}
	if got := <-a.answer; got.State != approval.StateApproved || len(got.By) != 2 {
		t.Errorf("%+v", got)
	}
	e := next[*event.ApprovalDecided](w)
	if e.Outcome != "approved" || len(e.Votes) != 2 || e.Votes[0].By.Subject != "alice" || len(e.Votes[1].Signature) == 0 {
		t.Errorf("%+v", e)
	}
	if rec := w.become(a.request.ID, approval.StateUsed); len(rec.By) != 2 {
		t.Errorf("%+v", rec)
	}
}

// One who says no decides, also when enough others say yes in the same breath.
func TestOneNoDecides(t *testing.T) {
	w := newWorld(t).start()
	a := w.hold(question())
	no := w.vote(a.request, bob, approval.No)
	no.Reason = "not on a Friday"
	w.store(a.request.ID, w.sign(w.vote(a.request, alice, approval.Yes)), w.sign(no))
	got := <-a.answer
	if got.State != approval.StateDenied || got.Message != no.Reason || len(got.By) != 1 || got.By[0].Subject != "bob" {
		t.Errorf("%+v", got)
	}
	if e := next[*event.ApprovalDecided](w); e.Outcome != "denied" {
		t.Errorf("%+v", e)
	}
	if rec := w.become(a.request.ID, approval.StateDenied); rec.Message != no.Reason {
		t.Errorf("%+v", rec)
	}
}

func TestEscalation(t *testing.T) {
	w := newWorld(t).start()
	q := question()
	q.Escalate = []policy.EscalationSpec{{After: policy.Duration(time.Minute), To: policy.PrincipalSelect{Groups: []string{"managers"}}}}
	a := w.hold(q)
	if err := w.cast(a.request, carol, approval.Yes); !errors.Is(err, approval.ErrNotAsked) {
		t.Errorf("too early: %v", err)
	}
	w.clock.move(2*time.Minute, 2*time.Minute)
	if err := w.cast(a.request, carol, approval.Yes); err != nil {
		t.Fatal(err)
	}
	if got := <-a.answer; got.State != approval.StateApproved || got.By[0].Subject != "carol" {
		t.Errorf("%+v", got)
	}
}

func TestDecide(t *testing.T) {
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	r := approval.Request{
		ID: "a-1", Cluster: "c1", Node: "n1", Session: "s-1", Digest: "d1", Count: 2,
		Principal: event.Principal{Subject: planner.Subject, Issuer: planner.Issuer},
		From:      policy.PrincipalSelect{Groups: []string{"dba"}}, Created: at, Expires: at.Add(10 * time.Minute),
	}
	vote := func(p approval.Person, verdict approval.Verdict) approval.Vote {
		return approval.Vote{Request: "a-1", Cluster: "c1", Node: "n1", Session: "s-1", Digest: "d1", Verdict: verdict, By: p, At: at.Add(time.Minute), Until: r.Expires}
	}
	yes := func(p approval.Person) approval.Vote { return vote(p, approval.Yes) }
	late := yes(bob)
	late.Until = at.Add(90 * time.Second)
	for name, c := range map[string]struct {
		votes []approval.Vote
		after time.Duration
		state approval.State
		by    int
	}{
		"none":                  {nil, 2 * time.Minute, approval.StatePending, 0},
		"none, and over":        {nil, 10 * time.Minute, approval.StateExpired, 0},
		"one of two":            {[]approval.Vote{yes(alice)}, 2 * time.Minute, approval.StatePending, 1},
		"two":                   {[]approval.Vote{yes(alice), yes(bob)}, 2 * time.Minute, approval.StateApproved, 2},
		"one twice":             {[]approval.Vote{yes(alice), yes(alice)}, 2 * time.Minute, approval.StatePending, 1},
		"one may not":           {[]approval.Vote{yes(alice), yes(mallory)}, 2 * time.Minute, approval.StatePending, 1},
		"one is the job's":      {[]approval.Vote{yes(alice), yes(planner)}, 2 * time.Minute, approval.StatePending, 1},
		"one's time is over":    {[]approval.Vote{yes(alice), late}, 2 * time.Minute, approval.StatePending, 1},
		"no":                    {[]approval.Vote{vote(alice, approval.No)}, 2 * time.Minute, approval.StateDenied, 1},
		"no behind enough":      {[]approval.Vote{yes(alice), yes(bob), vote(approval.Person{Subject: "dan", Issuer: "corp", Groups: []string{"dba"}}, approval.No)}, 2 * time.Minute, approval.StateDenied, 1},
		"no of who may not":     {[]approval.Vote{vote(mallory, approval.No)}, 2 * time.Minute, approval.StatePending, 0},
		"two, when it was over": {[]approval.Vote{yes(alice), yes(bob)}, 10 * time.Minute, approval.StateExpired, 0},
	} {
		t.Run(name, func(t *testing.T) {
			state, by := approval.Decide(r, c.votes, at.Add(c.after))
			if state != c.state || len(by) != c.by {
				t.Errorf("%s by %v, want %s by %d", state, by, c.state, c.by)
			}
		})
	}
}
