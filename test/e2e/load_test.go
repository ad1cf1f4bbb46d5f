package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

// Several clients at once, as fast as they can: every command of theirs is an
// event, and in a recording that verifies.
func TestNothingIsLostUnderLoad(t *testing.T) {
	w := setUp(t, stage.Options{})
	const clients, each = 8, 500
	for _, mode := range []string{"simple", "extended", "prepared"} {
		t.Run(mode, func(t *testing.T) {
			script := w.Path(mode + ".sql")
			text := fmt.Sprintf("\\set id random(1, 3)\nSELECT name, card_number AS %s FROM customers WHERE id = :id;\n", mode)
			if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			job := "nightly-" + mode
			w.do(w.Planner(t.Context(), job, "pgbench", "-n", "-M", mode, "-f", script, "-c", fmt.Sprint(clients), "-j", "2",
				"-t", fmt.Sprint(each), stage.ConnString)).want(t, 0, fmt.Sprintf("actually processed: %d/%d", clients*each, clients*each))

			var sessions []struct {
				ID       string `json:"session"`
				Workload string `json:"workload"`
				State    string `json:"state"`
				Commands int    `json:"commands"`
			}
			count := func() (closed, commands int) {
				out, err := w.Command(t.Context(), "sessions", "list", "-o", "json").Output()
				if err != nil {
					t.Fatal(err)
				}
				sessions = nil
				if err := json.Unmarshal(out, &sessions); err != nil {
					t.Fatal(err)
				}
				for _, s := range sessions {
					if s.Workload == job && s.State == "verified" {
						closed++
						commands += s.Commands
					}
				}
				return closed, commands
			}
			w.until("verified recordings of all sessions", func() bool {
				closed, _ := count()
				return closed == clients+1 // pgbench looks around first, on a connection of its own
			})
			if _, commands := count(); commands != clients*each {
				t.Errorf("recordings hold %d commands, want %d", commands, clients*each)
			}
			w.until("an event for each command", func() bool {
				seen := map[string]bool{}
				for _, e := range w.events() {
					var c event.Command
					if e.Kind() != event.TypeCommand {
						continue
					}
					if err := json.Unmarshal(e.Data, &c); err != nil {
						t.Fatal(err)
					}
					for _, s := range sessions {
						if s.ID == c.Session && s.Workload == job {
							seen[fmt.Sprint(c.Session, c.Seq)] = true
						}
					}
				}
				return len(seen) == clients*each
			})
		})
	}
}
