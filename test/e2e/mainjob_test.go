package e2e

import (
	"context"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

// What must be seen nowhere: the sample data's clear values.
var clear = []string{"4111111111111111", "4111 1111 1111 1111", "078-05-1120", "ada@example.com"}

func TestMainJob(t *testing.T) {
	w := setUp(t, stage.Options{Postgres: map[string]string{"log_statement": "all"}})

	t.Run("psql reads masked rows with no password", func(t *testing.T) {
		r := w.psql("SELECT name, card_number AS x, ssn, email FROM customers ORDER BY id")
		r.want(t, 0, "Ada Lovelace|************1111|[redacted]|[email]")
		for _, secret := range clear {
			if strings.Contains(r.out, secret) {
				t.Errorf("%q in clear", secret)
			}
		}
	})
	t.Run("a denied statement has the rule's words", func(t *testing.T) {
		w.psql("DROP TABLE customers", "-v", "VERBOSITY=verbose").want(t, 1,
			"ERROR:  42501", "schema changes go through migrations", `rule "no-ddl"`)
		if count, err := w.Superuser(t.Context(), "SELECT count(*) FROM customers"); err != nil || count != "3" {
			t.Errorf("customers: %s, %v", count, err)
		}
	})
	t.Run("another search path is no way around", func(t *testing.T) {
		for _, sql := range []string{
			"SET search_path = public, pg_temp", "SELECT set_config('search_path', 'public', false)", "RESET ALL",
		} {
			w.planner(stage.Psql("-At", "-c", "SELECT 1 FROM customers", "-c", sql, "-c", "SELECT card_number FROM customers WHERE id = 1")...).
				want(t, 0, "************1111")
		}
	})
	t.Run("a copy is masked", func(t *testing.T) {
		r := w.psql("COPY customers TO STDOUT")
		r.want(t, 0, "************1111", "[redacted]")
		if strings.Contains(r.out, "4111") {
			t.Errorf("it shows a card number:\n%s", r.out)
		}
	})
	t.Run("what can't be masked is refused", func(t *testing.T) {
		w.psql("SELECT table_to_xml('customers', true, false, '')").want(t, 1, "ERROR:  ")
	})
	t.Run("a pgx program", func(t *testing.T) {
		r := w.do(w.client("pgx"))
		r.want(t, 0, "peer "+stage.Address+":5432",
			"row Ada Lovelace ************1111", "row Alan Turing ************5559",
			"pipeline first 42501 schema changes go through migrations",
			"in a transaction ERROR: schema changes", "after it ERROR: current transaction is aborted",
			"copied 2 COPY 2", "cancelled true")
	})
	t.Run("outside of a job nothing is changed", func(t *testing.T) {
		out, err := exec.CommandContext(t.Context(), "psql", "-XAt", "-d", w.Postgres.AdminDSN(stage.Database),
			"-c", "SELECT card_number FROM customers WHERE id = 1").CombinedOutput()
		result{string(out), 0}.want(t, 0, "4111111111111111")
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("the roles are gone with their jobs", func(t *testing.T) {
		w.noRoles()
	})
	t.Run("events tell it all, and no secret", func(t *testing.T) {
		w.event(event.TypeSessionEnded, nil)
		w.event(event.TypeCredentialRevoked, func(data map[string]any) bool { return data["verified"] == true })
		w.event(event.TypeMaskApplied, nil)
		w.event(event.TypeCommand, func(data map[string]any) bool {
			return data["decision"] == "deny" && data["text"] == "DROP TABLE customers" && data["rule"] == "no-ddl"
		})
		for _, e := range w.events() {
			for _, secret := range clear {
				if strings.Contains(string(e.Data), secret) {
					t.Errorf("%q in clear in event %s: %s", secret, e.Kind(), e.Data)
				}
			}
		}
	})
	t.Run("every recording verifies", func(t *testing.T) {
		r := w.do(w.Command(t.Context(), "sessions", "list"))
		r.want(t, 0, "orders-db")
		for _, e := range w.events() {
			if e.Kind() == event.TypeSessionEnded {
				// The sink takes blocks together, so the last comes a moment after the event.
				w.until("a verified recording of "+e.Subject, func() bool {
					r := w.do(w.Command(t.Context(), "sessions", "verify", e.Subject))
					return r.code == 0 && strings.Contains(r.out, "verified")
				})
			}
		}
	})
	t.Run("no password ever reached the server's log", func(t *testing.T) {
		log := w.log.String()
		if !strings.Contains(log, "CREATE ROLE") {
			t.Fatal("the server's log does not show the minting at all")
		}
		for line := range strings.Lines(log) {
			if strings.Contains(line, "PASSWORD") && strings.Contains(line, "chaperone_nightly") && !strings.Contains(line, "SCRAM-SHA-256$") {
				t.Errorf("a password in clear: %s", line)
			}
		}
	})
}

func TestRunPassesThrough(t *testing.T) {
	w := setUp(t, stage.Options{})
	t.Run("the exit code", func(t *testing.T) {
		w.planner("sh", "-c", "exit 7").want(t, 7)
		w.planner("/no/such/command").want(t, 127, "no such file")
		w.planner("/etc/passwd").want(t, 126)
	})
	t.Run("signals", func(t *testing.T) {
		cmd := w.Planner(t.Context(), "nightly-signal", "sh", "-c", "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.1; done")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 64)
		if n, err := out.Read(buffer); err != nil || !strings.Contains(string(buffer[:n]), "ready") {
			t.Fatalf("%q, %v", buffer[:n], err)
		}
		cmd.Process.Signal(syscall.SIGTERM)
		n, _ := out.Read(buffer)
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 3 || !strings.Contains(string(buffer[:n]), "caught") {
			t.Errorf("exit code %d, said %q", code, buffer[:n])
		}
	})
	t.Run("where clients look for a CA", func(t *testing.T) {
		w.planner("sh", "-c", `openssl x509 -noout -subject -in "$PGSSLROOTCERT" && grep -c BEGIN "$SSL_CERT_FILE" && ssh-keygen -F orders.db.internal -f /etc/ssh/ssh_known_hosts`).
			want(t, 0, "subject=", "Host orders.db.internal found", "@cert-authority * ssh-ed25519")
	})
	t.Run("no capability to go around", func(t *testing.T) {
		// Bounding, effective and permitted sets, without CAP_NET_ADMIN (12),
		// CAP_NET_RAW (13), CAP_SYS_PTRACE (19), CAP_SYS_ADMIN (21), CAP_BPF (39).
		w.planner("sh", "-c", `for s in Bnd Eff Prm; do v=$(sed -n "s/^Cap$s:\t//p" /proc/self/status); echo $s $((0x$v & (1<<12 | 1<<13 | 1<<19 | 1<<21 | 1<<39))); done`).
			want(t, 0, "Bnd 0", "Eff 0", "Prm 0")
	})
	t.Run("an ordinary user", func(t *testing.T) {
		// Root may give the command another user, and any user may start a job.
		psql := stage.Psql("-At", "-c", "SELECT 'works'")
		w.do(w.Command(t.Context(), "run", "--name", "nightly-root", "--user", "nobody", "--",
			"sh", "-c", "id -un && "+strings.Join(quote(psql), " "))).want(t, 0, "nobody\nworks")
		own := w.Planner(t.Context(), "nightly-nobody", psql...)
		own.Dir = "/"
		own.Env = append(own.Env, "HOME=/nonexistent")
		own.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		w.do(own).want(t, 0, "works")
		w.event(event.TypeSessionStarted, func(data map[string]any) bool {
			principal := data["principal"].(map[string]any)
			return principal["subject"] == "nobody" && principal["issuer"] == "local"
		})
	})
	t.Run("no job inside of a job", func(t *testing.T) {
		w.planner(binary, "--run-dir", w.RunDir(), "run", "--name", "nightly-other", "--", "true").
			want(t, 125, "part of a planner job already")
	})
	t.Run("no job that no document selects", func(t *testing.T) {
		w.do(w.Planner(t.Context(), "daily", "true")).want(t, 125, `no Workload document selects the job "daily"`)
	})
}

// quote makes words of a shell.
func quote(words []string) []string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return quoted
}

func TestKill9LetsNothingThroughAndLeavesNoRole(t *testing.T) {
	w := setUp(t, stage.Options{})
	long := w.Planner(context.Background(), "nightly-long", stage.Psql("-At", "-c", stage.SlowQuery)...)
	var out strings.Builder
	long.Stdout, long.Stderr = &out, &out
	if err := long.Start(); err != nil {
		t.Fatal(err)
	}
	w.until("a running query", func() bool {
		running, err := w.SlowQueries(t.Context())
		return err == nil && running == 1
	})
	if err := w.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := long.Wait(); err == nil {
		t.Error("the session outlived the daemon")
	}
	if strings.Contains(out.String(), "1111") {
		t.Errorf("data came through: %s", out.String())
	}
	roles, err := w.Roles(t.Context())
	if err != nil || len(roles) != 1 {
		t.Fatalf("roles while the daemon is dead: %v, %v", roles, err)
	}

	w.up()
	w.noRoles()
	w.event(event.TypeCredentialRevoked, func(data map[string]any) bool {
		return data["name"] == roles[0] && data["verified"] == true
	})
	w.event(event.TypeSessionEnded, func(data map[string]any) bool { return data["reason"] == event.ReasonTruncated })
	w.alive()
}
