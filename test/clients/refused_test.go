package clients

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

// What a client asks for beside statements: calls of functions by number, and
// replication.
func TestWhatIsNoStatement(t *testing.T) {
	w := setUp(t, stage.Options{
		Documents: map[string]string{"policy.yaml": documents, "mask.yaml": ""}, Postgres: map[string]string{"wal_level": "logical"},
	})
	w.superuser("ALTER ROLE planner REPLICATION")

	t.Run("function calls are on record as what they are", func(t *testing.T) {
		w.planner(t, "nightly-allowed", []string{"psql", "-Xc", `\lo_import /etc/hostname`}, nil)
		for call, parameters := range map[string]string{
			"SELECT lo_open($1, $2) /* function call */": "", "SELECT lo_close($1) /* function call */": `\x00000000`,
			"SELECT lowrite($1, $2) /* function call */": "",
		} {
			c := w.command(t, "nightly-allowed", call)
			if c.Decision != "allow" || c.Rule != "work" || c.Rows != 1 || len(c.Parameters) == 0 || !strings.Contains(strings.Join(c.Parameters, " "), parameters) {
				t.Errorf("%s is on record as %+v", call, c)
			}
		}
	})
	for _, tt := range []struct {
		name    string
		command []string
	}{
		{"psql with replication=database", []string{"psql", "-X", "-d", "replication=database", "-c", "IDENTIFY_SYSTEM"}},
		{"pg_basebackup", []string{"pg_basebackup", "-D", "backup"}},
		{"pg_receivewal", []string{"pg_receivewal", "-D", ".", "--no-loop"}},
		{"pg_recvlogical", []string{"pg_recvlogical", "-d", stage.Database, "--slot", "s", "--create-slot"}},
		{"psycopg2", []string{"/usr/bin/python3", "-c",
			"import psycopg2.extras as e, psycopg2 as p; p.connect('', connection_factory=e.LogicalReplicationConnection)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := w.planner(t, "nightly-replication", tt.command, nil)
			for _, want := range []string{"replication connections are not let through", "Read what is needed with SELECT or COPY"} {
				if r.code == 0 || !strings.Contains(r.errors, want) {
					t.Errorf("no %q in\n%s", want, r)
				}
			}
		})
	}
	t.Run("nothing was replicated", func(t *testing.T) {
		if slots, err := w.Superuser(t.Context(), "SELECT count(*) FROM pg_replication_slots"); err != nil || slots != "0" {
			t.Errorf("%s slots, %v", slots, err)
		}
	})
	t.Run("under column masks what a function reads can't be traced", func(t *testing.T) {
		if err := w.WriteDocument("mask.yaml", stage.Documents()["mask.yaml"]); err != nil {
			t.Fatal(err)
		}
		if err := w.daemon.Reload(); err != nil {
			t.Fatal(err)
		}
		var r result
		for deadline := time.Now().Add(20 * time.Second); r.code == 0; time.Sleep(100 * time.Millisecond) {
			if r = w.planner(t, "nightly-masked", []string{"psql", "-X", "-v", "VERBOSITY=verbose", "-c", `\lo_export 4711 object`}, nil); time.Now().After(deadline) {
				t.Fatal("the masks never came into force")
			}
		}
		if !strings.Contains(r.errors, "lo_open isn't known not to read tables") {
			t.Errorf("it was told\n%s", r)
		}
		if c := w.command(t, "nightly-masked", "SELECT lo_open($1, $2) /* function call */"); c.Decision != "deny" || c.SQLState != "42501" {
			t.Errorf("it is on record as %+v", c)
		}
	})
	t.Run("a dump of masked tables is a masked dump", func(t *testing.T) {
		r := w.planner(t, "nightly-masked-dump", []string{"pg_dump", "--no-blobs", "--inserts", "--table", "customers"}, nil)
		if r.code != 0 || !strings.Contains(r.out, "VALUES (1, 'Ada Lovelace', '[email]', '[redacted]', '************1111')") {
			t.Errorf("with INSERT:\n%s", r)
		}
		r = w.planner(t, "nightly-masked-dump", []string{"pg_dump", "--no-blobs"}, nil)
		if r.code != 0 || !strings.Contains(r.out, "Ada Lovelace\t[email]\t[redacted]\t************1111\n") || strings.Contains(r.out, "4111111111111111") {
			t.Errorf("with COPY:\n%s", r)
		}
	})
}

// command waits for the record of a job's command.
func (w *world) command(t *testing.T, job, text string) event.Command {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		sessions := map[string]bool{}
		for _, e := range w.events(t) {
			switch e.Kind() {
			case event.TypeSessionStarted:
				var s event.SessionStarted
				if err := json.Unmarshal(e.Data, &s); err != nil {
					t.Fatal(err)
				}
				sessions[s.Session] = s.Workload.Name == job
			case event.TypeCommand:
				var c event.Command
				if err := json.Unmarshal(e.Data, &c); err != nil {
					t.Fatal(err)
				}
				if sessions[c.Session] && c.Text == text {
					return c
				}
			}
		}
	}
	t.Fatalf("no command %q of job %s", text, job)
	return event.Command{}
}
