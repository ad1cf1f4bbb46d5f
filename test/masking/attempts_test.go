package masking

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
)

// TestMasking tries all of corpus.sql, and then what is ordinary.
func TestMasking(t *testing.T) {
	attempts := readCorpus(t)
	w := setUp(t)
	look := newSearch(w.secrets[databaseA], w.secrets[databaseB])
	count := map[string]int{}
	t.Run("attempts", func(t *testing.T) {
		for _, a := range attempts {
			t.Run(a.String(), func(t *testing.T) {
				for m := range modes {
					if !a.in(m) {
						continue
					}
					t.Run(m.String(), func(t *testing.T) { count[w.try(t, look, a, m)]++ })
				}
			})
		}
	})
	t.Run("direct", func(t *testing.T) {
		// Each attempt is one: who asks the server itself learns something.
		for _, a := range attempts {
			if !a.is("inert") && !a.may("clean") {
				t.Run(a.String(), func(t *testing.T) { w.tells(t, look, a) })
			}
		}
	})
	t.Run("ordinary", w.ordinary)
	t.Logf("%d attempts, how they came out in the modes that they were made in: %v", len(attempts), count)
}

// try makes an attempt in both databases, and says what came of it.
func (w *world) try(t *testing.T, look *search, a *attempt, m mode) string {
	t.Helper()
	answers := w.both(t, w.masked, a, m)
	first, second := answers[0], answers[1]
	for _, got := range answers {
		if found := look.find(got.received, got.answer); len(found) > 0 {
			t.Errorf("%s\nshows %v:\n%s", a.sql(), found, shown(got))
			return "leaked"
		}
	}
	switch {
	case a.may("clean"):
		w.clear(t, a, m, first)
	case !a.may(first.outcome):
		t.Errorf("%s\nis %s, want %s:\n%s", a.sql(), first.outcome, a.expected(), shown(first))
	case a.is("varies") || a.is("bit"):
	case second.outcome != first.outcome:
		t.Errorf("%s\nis %s and, with other secrets, %s:\n%s%s", a.sql(), first.outcome, second.outcome, shown(first), shown(second))
	default:
		if d := first.difference(second); d != "" {
			t.Errorf("%s\nanswers something else with other secrets: %s", a.sql(), d)
		}
	}
	return first.outcome
}

// both makes an attempt in the two databases, side by side.
func (w *world) both(t *testing.T, by *route, a *attempt, m mode) [2]*transcript {
	t.Helper()
	var answers [2]*transcript
	var errs [2]error
	var attempts sync.WaitGroup
	for i, database := range []string{databaseA, databaseB} {
		attempts.Go(func() { answers[i], errs[i] = w.once(t.Context(), by, database, a, m) })
	}
	attempts.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatalf("%s: %v", a.sql(), err)
	}
	return answers
}

func (w *world) once(ctx context.Context, by *route, database string, a *attempt, m mode) (_ *transcript, err error) {
	var conn *wire
	if a.repeatable() {
		conn = by.pool.take(database)
	}
	if conn == nil {
		if conn, err = by.connect(ctx, database); err != nil {
			return nil, err
		}
	} else {
		conn.conn.received.Reset()
	}
	got, err := conn.run(a, m)
	if err != nil {
		conn.close()
		return nil, err
	}
	got.received = bytes.Clone(got.received)
	if a.repeatable() && len(got.answer) > 0 && got.answer[len(got.answer)-1].kind == 'Z' {
		by.pool.give(database, conn)
		return &got, nil
	}
	conn.close()
	if a.writes() {
		err = w.restore(ctx, database)
	}
	return &got, err
}

// clear fails the test unless the rows are those that the corpus says.
func (w *world) clear(t *testing.T, a *attempt, m mode, got *transcript) {
	t.Helper()
	switch {
	case got.outcome != "covered":
		t.Errorf("%s\nis %s, and has nothing to hide:\n%s", a.sql(), got.outcome, shown(got))
	case m != extendedBinary && !slices.Equal(got.rows(), a.rows):
		t.Errorf("%s\nreturns %q, want %q", a.sql(), got.rows(), a.rows)
	}
}

// tells fails the test unless an attempt tells something past Chaperone.
func (w *world) tells(t *testing.T, look *search, a *attempt) {
	t.Helper()
	m := simple
	if a.extendedOnly() {
		m = extended
	}
	answers := w.both(t, w.direct, a.undone(), m)
	for _, got := range answers {
		if len(look.find(got.received, got.answer)) > 0 {
			return
		}
	}
	if answers[0].difference(answers[1]) == "" {
		t.Errorf("%s\nis no attempt, it tells nothing:\n%s", a.sql(), shown(answers[0]))
	}
}
