package clients

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"chaperone.dev/chaperone/pkg/event"
)

// refused waits until the events of a job's sessions, all of which have ended, tell that
// policy refused so many of its commands.
func (w *world) refused(t *testing.T, job string, want int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		open, ended, refused := map[string]bool{}, 0, 0
		for _, e := range w.events(t) {
			var data struct {
				Session  string
				Workload struct{ Name string }
				Denied   int
			}
			if err := json.Unmarshal(e.Data, &data); err != nil {
				t.Fatal(err)
			}
			switch {
			case e.Kind() == event.TypeSessionStarted && data.Workload.Name == job:
				open[data.Session] = true
			case e.Kind() == event.TypeSessionEnded && open[data.Session]:
				refused += data.Denied
				delete(open, data.Session)
				ended++
			}
		}
		if len(open) == 0 && ended > 0 && refused == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d sessions have ended and %d have not; policy refused %d commands, want %d", ended, len(open), refused, want)
		}
	}
}

// events are all that were published so far.
func (w *world) events(t *testing.T) []event.Event {
	t.Helper()
	out, err := w.Command(t.Context(), "events", "tail", "-o", "json", "-n", "100000").Output()
	if err != nil {
		t.Fatalf("events tail: %v", err)
	}
	var events []event.Event
	for line := range bytes.Lines(out) {
		var e event.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("events tail printed %q: %v", line, err)
		}
		events = append(events, e)
	}
	return events
}
