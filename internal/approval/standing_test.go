package approval_test

import (
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/pkg/policy"
)

func standing() approval.Question {
	q := question()
	q.Rule, q.Standing, q.Digest = "standing", 30*time.Minute, "d8"
	return q
}

// stand has an answer stand for ten minutes.
func (w *world) stand(t *testing.T) {
	t.Helper()
	a := w.hold(standing())
	v := w.vote(a.request, alice, approval.Yes)
	v.Standing = 10 * time.Minute
	w.store(a.request.ID, w.sign(v))
	if got := <-a.answer; got.State != approval.StateApproved || got.Standing {
		t.Fatalf("%+v", got)
	}
}

// An answer that stands is for the same job, target, rule and kind, and no longer than
// the person said.
func TestStanding(t *testing.T) {
	w := newWorld(t).start()
	w.stand(t)
	again := standing()
	again.Digest, again.Text = "d9", "DELETE FROM orders WHERE id = 8"
	for range 2 {
		got, err := w.broker.Hold(t.Context(), again, func(approval.Request) { t.Error("people are asked again") })
		if err != nil || got.State != approval.StateApproved || !got.Standing || got.By[0].Subject != "alice" {
			t.Fatalf("%+v, %v", got, err)
		}
		if got := w.retry(again, approval.StateApproved); !got.Standing {
			t.Errorf("%+v", got)
		}
		w.restart() // it lives on
	}
	for name, change := range map[string]func(*approval.Question){
		"job":       func(q *approval.Question) { q.Workload.Job = "j-2" },
		"principal": func(q *approval.Question) { q.Principal.Subject = "other" },
		"target":    func(q *approval.Question) { q.Target.Name = "billing" },
		"database":  func(q *approval.Question) { q.Target.Database = "billing" },
		"policy":    func(q *approval.Question) { q.Policy = "other" },
		"rule":      func(q *approval.Question) { q.Rule = "other" },
		"kind":      func(q *approval.Question) { q.Kind = "DROP orders" },
		"no kind":   func(q *approval.Question) { q.Kind = "" },
		"askers":    func(q *approval.Question) { q.From = policy.PrincipalSelect{Groups: []string{"managers"}} },
		"count":     func(q *approval.Question) { q.Count = 2 },
		"session":   func(q *approval.Question) { q.About = approval.AboutSession },
	} {
		q := again
		change(&q)
		if got := w.retry(q, approval.StatePending); got.Standing {
			t.Errorf("another %s: %+v", name, got)
		}
	}
	w.clock.move(-time.Hour, 11*time.Minute) // set back, as the time goes on
	w.retry(again, approval.StatePending)
}

// Of several people's answers the shortest stands, and none if one says so.
func TestStandingOfSeveral(t *testing.T) {
	w := newWorld(t).start()
	for name, c := range map[string]struct{ second, want time.Duration }{
		"both":    {5 * time.Minute, 5 * time.Minute},
		"not one": {0, 0},
	} {
		q := standing()
		q.Count, q.Rule = 2, name
		a := w.hold(q)
		first, second := w.vote(a.request, alice, approval.Yes), w.vote(a.request, bob, approval.Yes)
		first.Standing, second.Standing = 20*time.Minute, c.second
		w.store(a.request.ID, w.sign(first), w.sign(second))
		if got := <-a.answer; got.State != approval.StateApproved {
			t.Fatalf("%+v", got)
		}
		got, err := w.broker.Retry(t.Context(), q)
		if err != nil || got.Standing != (c.want > 0) || got.Standing && !got.Expires.Equal(second.At.Add(c.want)) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
