package approval_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// What people are shown is what is asked, and they can answer as soon as the
// client is told to wait.
func TestHold(t *testing.T) {
	w := newWorld(t).start()
	a := w.hold(question())
	rec := w.record(a.request.ID)
	if rec.State != approval.StatePending || rec.Request.Digest != "d1" || rec.Request.Text != question().Text || rec.Request.Mode != policy.ModeHold {
		t.Errorf("%+v", rec)
	}
	if e := next[*event.ApprovalRequested](w); e.Request != a.request.ID || e.Groups[0] != "dba" || e.Digest != "d1" {
		t.Errorf("%+v", e)
	}
	if err := w.cast(a.request, alice, approval.Yes); err != nil {
		t.Fatal(err)
	}
	got := <-a.answer
	if got.State != approval.StateApproved || got.Request != a.request.ID || got.Standing {
		t.Errorf("%+v", got)
	}
	// What was approved for one is not for the next.
	b := w.hold(question())
	w.pending(b)
}

func TestHoldIsCancelled(t *testing.T) {
	w := newWorld(t).start()
	a := w.hold(question())
	a.cancel(errors.New("the client hung up"))
	if got := <-a.answer; got.State != approval.StateCancelled || got.Message != "the client hung up" {
		t.Errorf("%+v", got)
	}
	if e := next[*event.ApprovalExpired](w); e.Outcome != "cancelled" || e.Message != "the client hung up" {
		t.Errorf("%+v", e)
	}
	w.become(a.request.ID, approval.StateCancelled)
	if err := w.cast(a.request, alice, approval.Yes); !errors.Is(err, approval.ErrOver) {
		t.Errorf("an answer to it: %v", err)
	}
	w.store(a.request.ID, w.sign(w.vote(a.request, alice, approval.Yes)))
	if e := next[*event.ApprovalRejected](w); e.Reason != "late" {
		t.Errorf("%+v", e)
	}
}

// The time is over when it has passed, whatever the wall clock says.
func TestExpiry(t *testing.T) {
	for name, c := range map[string]struct{ wall, elapsed time.Duration }{
		"time passes":                     {11 * time.Minute, 11 * time.Minute},
		"the clock is set back meanwhile": {-49 * time.Minute, 11 * time.Minute},
		"the clock is set forward":        {11 * time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).start()
			a := w.hold(question())
			r := w.retry(func() approval.Question { q := question(); q.Digest = "d2"; return q }(), approval.StatePending)
			w.clock.move(c.wall, c.elapsed)
			if got := <-a.answer; got.State != approval.StateExpired {
				t.Errorf("%+v", got)
			}
			w.become(a.request.ID, approval.StateExpired)
			w.become(r.Request, approval.StateExpired)
			// By the wall clock that was set back it is in time.
			w.store(a.request.ID, w.sign(w.vote(a.request, alice, approval.Yes)))
			if b := w.retry(question(), approval.StatePending); b.Request == a.request.ID {
				t.Errorf("%+v", b)
			}
			if rec := w.record(a.request.ID); rec.State != approval.StateExpired {
				t.Errorf("%+v", rec)
			}
		})
	}
}

// A clock that was set back ends nothing before its time either.
func TestClockSetBackBefore(t *testing.T) {
	w := newWorld(t).start()
	w.clock.move(-time.Hour, 0)
	a := w.hold(question())
	v := w.vote(a.request, alice, approval.Yes)
	v.At = time.Now() // the authority's clock is right
	w.store(a.request.ID, w.sign(v))
	if got := <-a.answer; got.State != approval.StateApproved {
		t.Errorf("%+v", got)
	}
}

// Nothing is remembered for ever.
func TestForgets(t *testing.T) {
	w := newWorld(t).start()
	a := w.hold(question())
	if err := w.cast(a.request, alice, approval.No); err != nil {
		t.Fatal(err)
	}
	<-a.answer
	w.retry(question(), approval.StatePending)
	w.clock.move(11*time.Minute, 11*time.Minute)
	for next[*event.ApprovalExpired](w).Outcome != "expired" {
	}
	for w.known() > 0 {
		if t.Context().Err() != nil {
			t.Fatal("requests that are over are still known")
		}
		time.Sleep(time.Millisecond)
	}
	w.restart()
	if n := w.known(); n != 0 {
		t.Errorf("%d on the disk", n)
	}
}

// Of two who answer at once one decides, the other is told who did, and the node
// acts on what was decided.
func TestTwoAnswerAtOnce(t *testing.T) {
	w := newWorld(t).start()
	won := map[approval.Verdict]int{}
	for range 40 {
		a := w.hold(question())
		type outcome struct {
			verdict approval.Verdict
			by      approval.Person
			err     error
		}
		results, start := make(chan outcome, 2), make(chan struct{})
		for verdict, p := range map[approval.Verdict]approval.Person{approval.Yes: alice, approval.No: bob} {
			go func() {
				<-start
				results <- outcome{verdict, p, w.cast(a.request, p, verdict)}
			}()
		}
		close(start)
		first, second := <-results, <-results
		if first.err != nil {
			first, second = second, first
		}
		var decided approval.ErrDecided
		if first.err != nil || !errors.As(second.err, &decided) {
			t.Fatalf("%v and %v, want one vote and one that is told of it", first.err, second.err)
		}
		if len(decided.By) != 1 || decided.By[0].Subject != first.by.Subject || !strings.Contains(decided.Error(), first.by.String()) {
			t.Errorf("told %q, %s decided", decided, first.by)
		}
		want := approval.StateApproved
		if first.verdict == approval.No {
			want = approval.StateDenied
		}
		if got := <-a.answer; got.State != want || got.By[0].Subject != first.by.Subject {
			t.Errorf("%+v, want %s by %s", got, want, first.by)
		}
		won[first.verdict]++
	}
	t.Logf("who was first: %v", won)
}

// An approved command runs once, however many ask for it.
func TestRetryRunsOnce(t *testing.T) {
	w := newWorld(t).start()
	a := w.retry(question(), approval.StatePending)
	if b := w.retry(question(), approval.StatePending); b.Request != a.Request {
		t.Errorf("a second request %s for the same question", b.Request)
	}
	other := question()
	other.Digest = "d2"
	if b := w.retry(other, approval.StatePending); b.Request == a.Request {
		t.Error("another command has the same request")
	}
	if err := w.cast(w.record(a.Request).Request, alice, approval.Yes); err != nil {
		t.Fatal(err)
	}
	w.become(a.Request, approval.StateApproved)
	type result struct {
		approval.Answer
		err error
	}
	results, start := make(chan result, 8), make(chan struct{})
	for range cap(results) {
		go func() {
			<-start
			answer, err := w.broker.Retry(context.Background(), question())
			results <- result{answer, err}
		}()
	}
	close(start)
	ran, again := 0, map[string]bool{}
	for range cap(results) {
		switch r := <-results; {
		case r.err != nil:
			t.Error(r.err)
		case r.State == approval.StateApproved && r.Request == a.Request && r.By[0].Subject == "alice":
			ran++
		case r.State == approval.StatePending:
			again[r.Request] = true
		default:
			t.Errorf("%+v", r)
		}
	}
	if ran != 1 || len(again) != 1 || again[a.Request] {
		t.Errorf("ran %d times; asked again as %v", ran, again)
	}
	w.become(a.Request, approval.StateUsed)
}

// What was used is used, whatever comes to the bucket and however the daemon ends.
func TestNothingRunsTwice(t *testing.T) {
	w := newWorld(t).start()
	a := w.retry(question(), approval.StatePending)
	pending := w.record(a.Request)
	yes := w.sign(w.vote(pending.Request, alice, approval.Yes))
	w.store(a.Request, yes)
	approved := w.become(a.Request, approval.StateApproved)
	w.retry(question(), approval.StateApproved)
	w.crash() // in the moment in which it runs
	w.become(a.Request, approval.StateUsed)

	// back is the bucket as it was before.
	back := func(rec approval.Record) {
		t.Helper()
		w.write(rec)
		w.store(a.Request, yes)
	}
	back(pending)
	w.crash()
	back(approved)
	b := w.retry(question(), approval.StatePending)
	if b.Request == a.Request {
		t.Error("what was used is asked for once more")
	}
	// Neither is a record believed that says so of the new one.
	forged := w.record(b.Request)
	forged.State, forged.By = approval.StateApproved, []approval.Person{alice}
	w.write(forged)
	w.store(b.Request, yes)
	if e := next[*event.ApprovalRejected](w); e.Reason != "replayed" {
		t.Errorf("%+v", e)
	}
	w.retry(question(), approval.StatePending)
	w.crash()
	w.retry(question(), approval.StatePending)
}

func TestDeniedSaysSo(t *testing.T) {
	w := newWorld(t).start()
	a := w.retry(question(), approval.StatePending)
	no := w.vote(w.record(a.Request).Request, bob, approval.No)
	no.Reason = "use the migration"
	if _, err := approval.Cast(t.Context(), w.sink, w.signer, w.keys, no); err != nil {
		t.Fatal(err)
	}
	w.become(a.Request, approval.StateDenied)
	for range 2 {
		if got := w.retry(question(), approval.StateDenied); got.Message != no.Reason || got.By[0].Subject != "bob" || got.Request != a.Request {
			t.Errorf("%+v", got)
		}
		w.restart()
	}
	w.clock.move(11*time.Minute, 11*time.Minute)
	if got := w.retry(question(), approval.StatePending); got.Request == a.Request {
		t.Errorf("%+v", got)
	}
}

// A daemon that comes back cancels what the one before it held, and goes on with
// what is to be sent again.
func TestRestart(t *testing.T) {
	w := newWorld(t).start()
	held := w.hold(question())
	waiting := question()
	waiting.Digest, waiting.Count = "d2", 2
	approved := question()
	approved.Digest = "d3"
	first, second := w.retry(waiting, approval.StatePending), w.retry(approved, approval.StatePending)
	if err := w.cast(w.record(first.Request).Request, alice, approval.Yes); err != nil {
		t.Fatal(err)
	}
	if err := w.cast(w.record(second.Request).Request, alice, approval.Yes); err != nil {
		t.Fatal(err)
	}
	w.become(second.Request, approval.StateApproved)

	w.crash()
	if e := next[*event.ApprovalExpired](w); e.Request != held.request.ID || e.Outcome != "cancelled" || e.Message != "the node restarted" {
		t.Errorf("%+v", e)
	}
	w.become(held.request.ID, approval.StateCancelled)
	if err := w.cast(held.request, bob, approval.Yes); !errors.Is(err, approval.ErrOver) {
		t.Errorf("an answer to it: %v", err)
	}
	if got := w.retry(approved, approval.StateApproved); got.Request != second.Request {
		t.Errorf("%+v", got)
	}
	if got := w.retry(waiting, approval.StatePending); got.Request != first.Request {
		t.Errorf("%+v", got)
	}
	if err := w.cast(w.record(first.Request).Request, bob, approval.Yes); err != nil {
		t.Fatal(err)
	}
	w.become(first.Request, approval.StateApproved)
	if got := w.retry(waiting, approval.StateApproved); len(got.By) != 2 {
		t.Errorf("%+v", got)
	}
}

// After a restart the votes are verified again: one of a key that does not count
// any more doesn't. Neither does any when the clock went back meanwhile.
func TestRestartVerifies(t *testing.T) {
	for name, change := range map[string]func(*world){
		"another authority":     func(w *world) { w.keys = authority.Keys{newSigner(w.t).Public()} },
		"the clock is set back": func(w *world) { w.clock = &hands{wall: -5 * time.Minute, true: -5 * time.Minute} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).start()
			a := w.retry(question(), approval.StatePending)
			if err := w.cast(w.record(a.Request).Request, alice, approval.Yes); err != nil {
				t.Fatal(err)
			}
			w.become(a.Request, approval.StateApproved)
			w.stand(t)
			w.stop()
			change(w)
			w.start()
			if b := w.retry(question(), approval.StatePending); b.Request == a.Request {
				t.Errorf("%+v", b)
			}
			w.become(a.Request, approval.StateCancelled)
			other := standing()
			other.Digest = "d9"
			w.retry(other, approval.StatePending)
		})
	}
}

func TestEndJob(t *testing.T) {
	w := newWorld(t).start()
	w.stand(t)
	held := w.hold(question())
	kept := question()
	kept.Workload.Job = "j-2"
	other := w.hold(kept)
	a := w.retry(question(), approval.StatePending)
	ready := question()
	ready.Digest = "d2"
	b := w.retry(ready, approval.StatePending)
	if err := w.cast(w.record(b.Request).Request, alice, approval.Yes); err != nil {
		t.Fatal(err)
	}
	w.become(b.Request, approval.StateApproved)
	w.broker.EndJob("j-1")
	if got := <-held.answer; got.State != approval.StateCancelled || got.Message != "the job ended" {
		t.Errorf("%+v", got)
	}
	w.become(a.Request, approval.StateCancelled)
	w.become(b.Request, approval.StateCancelled) // approved, and not run
	w.pending(other)
	again := standing()
	again.Digest = "d9"
	for range 2 {
		w.retry(again, approval.StatePending)
		if got := w.retry(ready, approval.StatePending); got.Request == b.Request {
			t.Errorf("%+v", got)
		}
		w.crash() // nor does it come back with the disk
	}
}

// A bucket that is lost takes no question with it, and approves none.
func TestLostBucket(t *testing.T) {
	w := newWorld(t).start()
	q := question()
	q.Count = 2
	a := w.hold(q)
	r := w.retry(question(), approval.StatePending)
	w.store(a.request.ID, w.sign(w.vote(a.request, alice, approval.Yes)))
	if err := w.admin.DeleteStream(t.Context(), "KV_"+bus.BucketApprovals); err != nil {
		t.Fatal(err)
	}
	if _, err := w.broker.Hold(t.Context(), question(), nil); !errors.Is(err, approval.ErrUnavailable) {
		t.Errorf("asked without a bucket: %v", err)
	}
	w.pending(a)
	if err := bus.Setup(t.Context(), w.admin, bus.Limits{}); err != nil {
		t.Fatal(err)
	}
	w.become(a.request.ID, approval.StatePending)
	w.become(r.Request, approval.StatePending)
	if err := w.cast(a.request, bob, approval.Yes); err != nil {
		t.Fatal(err)
	}
	// Alice's vote may have been heard before the bucket was lost. If not, she gives it again.
	_ = w.cast(a.request, alice, approval.Yes)
	if got := <-a.answer; got.State != approval.StateApproved || len(got.By) != 2 {
		t.Errorf("%+v", got)
	}
}

// One whose bucket stays away ends with its time.
func TestBucketStaysAway(t *testing.T) {
	w := newWorld(t).start()
	a := w.hold(question())
	w.conn.Close()
	w.pending(a)
	w.clock.move(11*time.Minute, 11*time.Minute)
	if got := <-a.answer; got.State != approval.StateExpired {
		t.Errorf("%+v", got)
	}
	if _, err := w.broker.Retry(t.Context(), question()); !errors.Is(err, approval.ErrUnavailable) {
		t.Errorf("asked without NATS: %v", err)
	}
}

func TestBusy(t *testing.T) {
	w := newWorld(t)
	w.most = [2]int{3, 2}
	w.start()
	w.hold(question())
	a := w.hold(question())
	if _, err := w.broker.Hold(t.Context(), question(), nil); !errors.Is(err, approval.ErrBusy) || !strings.Contains(err.Error(), "of this job") {
		t.Errorf("a third one of the job: %v", err)
	}
	other := question()
	other.Workload.Job = "j-2"
	w.hold(other)
	other.Workload.Job = "j-3"
	if _, err := w.broker.Retry(t.Context(), other); !errors.Is(err, approval.ErrBusy) || !strings.Contains(err.Error(), "on this node") {
		t.Errorf("a fourth one of the node: %v", err)
	}
	a.cancel(errors.New("gone"))
	<-a.answer
	w.hold(other)
}

// A job that makes requests and lets them go is stopped; one whose requests people decide is not.
func TestAsksFasterThanPeopleDecide(t *testing.T) {
	w := newWorld(t)
	w.most = [2]int{10, 2}
	w.start()
	for range 20 {
		a := w.hold(question())
		w.store(a.request.ID, w.sign(w.vote(a.request, alice, approval.Yes)))
		<-a.answer
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for n := range 20 {
		if _, err := w.broker.Hold(gone, question(), nil); errors.Is(err, approval.ErrBusy) {
			if n < 2 {
				t.Errorf("stopped after %d", n)
			}
			return
		}
	}
	t.Error("never stopped")
}

func TestIncompleteQuestions(t *testing.T) {
	w := newWorld(t).start()
	for name, change := range map[string]func(*approval.Question){
		"no digest":         func(q *approval.Question) { q.Digest = "" },
		"no job":            func(q *approval.Question) { q.Workload.Job = "" },
		"no target":         func(q *approval.Question) { q.Target.Name = "" },
		"no policy":         func(q *approval.Question) { q.Policy = "" },
		"no time":           func(q *approval.Question) { q.Within = 0 },
		"too long":          func(q *approval.Question) { q.Within = 25 * time.Hour },
		"too many":          func(q *approval.Question) { q.Count = 1000 },
		"stands for less":   func(q *approval.Question) { q.Standing = -1 },
		"too long to store": func(q *approval.Question) { q.Parsed.Tables = []string{strings.Repeat("x", 1<<20)} },
	} {
		q := question()
		change(&q)
		want := approval.ErrQuestion
		if name == "too long to store" {
			want = approval.ErrUnavailable
		}
		if _, err := w.broker.Hold(t.Context(), q, nil); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := w.broker.Retry(t.Context(), q); !errors.Is(err, want) {
			t.Errorf("%s, retried: %v", name, err)
		}
	}
	w.stop()
	w.keys = nil
	w.start()
	if _, err := w.broker.Hold(t.Context(), question(), nil); !errors.Is(err, approval.ErrUnavailable) {
		t.Errorf("without an authority: %v", err)
	}
}

// Two brokers never share a disk, for both would use what is on it.
func TestOneBrokerAtATime(t *testing.T) {
	w := newWorld(t).start()
	_, err := approval.Open(approval.Options{KV: w.node, Clock: w.clock, Dir: w.dir + "/state"})
	if !errors.Is(err, approval.ErrInUse) {
		t.Errorf("%v", err)
	}
}

func BenchmarkVoteToAnswer(b *testing.B) {
	w := newWorld(b).start()
	for b.Loop() {
		b.StopTimer()
		a := w.hold(question())
		yes := w.sign(w.vote(a.request, alice, approval.Yes))
		b.StartTimer()
		w.store(a.request.ID, yes)
		<-a.answer
		b.StopTimer()
		for len(w.events) > 0 {
			<-w.events
		}
		b.StartTimer()
	}
}
