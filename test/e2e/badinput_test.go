package e2e

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

func TestBadInput(t *testing.T) {
	w := setUp(t, stage.Options{})
	at := func(host string) []string {
		return append(stage.Psql("-v", "VERBOSITY=verbose", "-c", "SELECT 1"), "-d",
			strings.Replace(stage.ConnString, "host="+stage.Host, "host="+host, 1))
	}

	t.Run("no target for the destination", func(t *testing.T) {
		w.planner(at(stage.Elsewhere)...).want(t, 2, "no target is configured for "+stage.Elsewhere+":5432")
		if data := w.refusal(event.ReasonNoTarget); data["destination"] != stage.Elsewhere+":5432" {
			t.Errorf("event: %v", data)
		}
	})
	t.Run("malformed packets", func(t *testing.T) {
		for name, test := range map[string]struct {
			packet []byte
			code   string
		}{
			"a giant length":      {[]byte{0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0}, "08P01"},
			"a length below four": {[]byte{0, 0, 0, 1}, "08P01"},
			"protocol 9":          {[]byte{0, 0, 0, 8, 0, 9, 0, 0}, "0A000"},
			"no terminator":       {append([]byte{0, 0, 0, 12, 0, 3, 0, 0}, "user"...), "08P01"},
			"HTTP":                {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "08P01"},
		} {
			t.Run(name, func(t *testing.T) {
				w.do(w.client("raw", stage.Address+":5432", hex.EncodeToString(test.packet))).want(t, 0, "FATAL", test.code)
			})
		}
		w.refusal(event.ReasonProtocol)
		w.alive()
	})
	t.Run("straight to the listener", func(t *testing.T) {
		// A planner can't, says the kernel; anyone else is not diverted.
		w.do(w.client("raw", "127.0.0.1:15001", "00")).want(t, 1, "operation not permitted")
		outside := w.client("raw", "127.0.0.1:15001", "00")
		outside.Path, outside.Args = outside.Args[5], outside.Args[5:]
		w.do(outside).want(t, 0, `answer ""`)
		w.refusal(event.ReasonNotDiverted)
	})
	t.Run("upstream down", func(t *testing.T) {
		if err := w.Postgres.Halt(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.planner(at(stage.Host)...).want(t, 2, "FATAL", "can't be reached")
		w.refusal(event.ReasonUpstreamDown)
		if err := w.Postgres.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.alive()
	})
	t.Run("documents that are half written change nothing", func(t *testing.T) {
		good, err := os.ReadFile(w.ConfigDir() + "/policy.yaml")
		if err != nil {
			t.Fatal(err)
		}
		if err := w.WriteDocument("policy.yaml", string(good[:len(good)/2])); err != nil {
			t.Fatal(err)
		}
		if err := w.daemon.Reload(); err != nil {
			t.Fatal(err)
		}
		data := w.event(event.TypePolicyRejected, nil)
		if !strings.Contains(strings.Join(strings.Fields(data["errors"].([]any)[0].(string)), " "), "policy.yaml:") {
			t.Errorf("the event names no file and line: %v", data)
		}
		w.alive()
		w.psql("DROP TABLE customers").want(t, 1, "schema changes go through migrations")
	})
}

func TestUpstreamCertificateIsVerified(t *testing.T) {
	other, err := lab.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	w := setUp(t, stage.Options{})
	w.alive()
	good, err := os.ReadFile(w.Path("admin-ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	// The server stays; whom the daemon trusts changes under it: for sessions,
	// then for minting, too.
	for _, file := range []string{"target-ca.pem", "admin-ca.pem"} {
		if err := os.WriteFile(w.Path(file), other.PEM(), 0o644); err != nil {
			t.Fatal(err)
		}
		w.planner(stage.Psql("-v", "VERBOSITY=verbose", "-c", "SELECT 1")...).want(t, 2, "FATAL", "verified")
	}
	w.until("an event for each of the two refusals", func() bool {
		refusals := 0
		for _, e := range w.events() {
			if e.Kind() == event.TypeSessionRefused && strings.Contains(string(e.Data), event.ReasonUpstreamTLS) {
				refusals++
			}
		}
		return refusals == 2
	})
	// What was minted can't be taken back without a way in. With it, it is.
	if err := os.WriteFile(w.Path("admin-ca.pem"), good, 0o644); err != nil {
		t.Fatal(err)
	}
	w.noRoles()
}

func TestNoIdentity(t *testing.T) {
	w := setUp(t, stage.Options{Documents: map[string]string{
		"workload.yaml": `apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: nightly-planner}
spec:
  select: {run: {name: "nightly-*"}}
  identity: {issuer: corp-idp}
---
apiVersion: chaperone.dev/v1alpha1
kind: IdentityProvider
metadata: {name: corp-idp}
spec: {issuer: "https://orders.db.internal:9", audiences: [chaperone]}
`,
	}})
	w.psql("SELECT 1").want(t, 125, "--token-file")
	w.refusal(event.ReasonNoIdentity)

	token := w.Path("token")
	if err := os.WriteFile(token, []byte("not.a.token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := w.Command(t.Context(), "run", "--name", "nightly-x", "--token-file", token, "--", "true")
	r := w.do(run)
	r.want(t, 125, "chaperone: job \"nightly-x\" was not started")
	if strings.Contains(r.out+w.log.String(), "not.a.token") {
		t.Error("the token is told")
	}
	roles, err := w.Roles(t.Context())
	if err != nil || len(roles) > 0 {
		t.Errorf("roles %v, %v", roles, err)
	}
}

func TestBadDocumentsStopTheStart(t *testing.T) {
	for name, test := range map[string]struct {
		file, text string
		want       []string
	}{
		"an unknown field": {
			"policy.yaml", strings.Replace(stage.Documents()["policy.yaml"], "principals:", "principles:", 1),
			[]string{"policy.yaml:", "principles"},
		},
		"an expression that doesn't type-check": {
			"policy.yaml", strings.Replace(stage.Documents()["policy.yaml"], "statement.ddl", "statement.dll", 1),
			[]string{"policy.yaml:", "dll"},
		},
		"no targets": {"target.yaml", "", []string{"orders-db"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := setStage(t, stage.Options{Documents: map[string]string{test.file: test.text}})
			r := w.do(w.Command(t.Context(), "up", "--config", w.ConfigDir(), "--state", w.Path("state")))
			r.want(t, 1, test.want...)
		})
	}
}
