package e2e

import (
	"bytes"
	"strings"
	"testing"

	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

const maskedDocuments = `apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: orders}
spec:
  principals: {subjects: ["*"]}
  targets: [orders-db]
  rules:
    - {name: all, when: "true", then: allow}
`

// Masks follow the data through what a session makes of them in SQL: cursors,
// prepared statements, COPY and temporary tables.
func TestMasksFollowTheSession(t *testing.T) {
	w := setUp(t, stage.Options{Documents: map[string]string{"policy.yaml": maskedDocuments}})
	const refused = "42501"
	steps := []struct{ sql, want string }{
		// cursors
		{"DECLARE c CURSOR WITH HOLD FOR SELECT id, ssn, lower(ssn) FROM customers WHERE id = 1", "00000"},
		{"FETCH ALL FROM c", "1|[redacted]|[redacted]\n00000"},
		{"MOVE ABSOLUTE 0 FROM c", "00000"},
		{"FETCH 1 FROM c", "1|[redacted]|[redacted]\n00000"},
		{"DECLARE c CURSOR WITH HOLD FOR SELECT id FROM customers", "42P03"},
		{"FETCH FIRST FROM c", "1|[redacted]|[redacted]\n00000"},
		{"FETCH ALL FROM nothing", refused},
		{"CLOSE c", "00000"},
		{"FETCH ALL FROM c", "34000"},
		{"BEGIN", "00000"},
		{"DECLARE c SCROLL CURSOR FOR SELECT card_number FROM customers WHERE id = 1; FETCH ALL FROM c", "************1111\n00000"},
		{"SAVEPOINT s", "00000"},
		{"DECLARE d CURSOR FOR SELECT card_number, ssn FROM customers WHERE id = 1", "00000"},
		{"FETCH ALL FROM d", "************1111|[redacted]\n00000"},
		{"ROLLBACK TO s", "00000"},
		{"DECLARE d CURSOR FOR SELECT ssn FROM customers WHERE id = 1", "00000"},
		{"FETCH ALL FROM d", "[redacted]\n00000"},
		{"ROLLBACK", "00000"},
		{"DECLARE c CURSOR WITH HOLD FOR SELECT id FROM customers ORDER BY ssn", refused},
		// prepared statements
		{"PREPARE p AS SELECT ssn FROM customers WHERE id = $1", "00000"},
		{"EXECUTE p(1)", "[redacted]\n00000"},
		{"PREPARE p AS SELECT id FROM customers", "42P05"},
		{"EXECUTE p(1)", "[redacted]\n00000"},
		{"DEALLOCATE p", "00000"},
		{"EXECUTE p(1)", refused},
		{"PREPARE p AS SELECT id FROM customers WHERE ssn > $1", refused},
		{"PREPARE p AS SELECT card_number FROM customers WHERE id = $1; EXECUTE p(1)", "************1111\n00000"},
		{"EXPLAIN (COSTS OFF) EXECUTE p(1)", "Index Scan using customers_pkey on customers\n  Index Cond: (id = 1)\n00000"},
		// COPY
		{"COPY (SELECT id, ssn, card_number FROM customers WHERE id = 1) TO STDOUT", "1\t[redacted]\t************1111\n00000"},
		{"COPY customers (ssn, id) TO STDOUT (FORMAT csv, FORCE_QUOTE *)", "\"[redacted]\",\"1\"\n\"[redacted]\",\"2\"\n\"[redacted]\",\"3\"\n00000"},
		// temporary tables
		{"BEGIN", "00000"},
		{"CREATE TEMP TABLE t AS SELECT id, card_number AS n, lower(ssn) AS l FROM customers WHERE id = 1", "00000"},
		{"SELECT * FROM t", "1|************1111|[redacted]\n00000"},
		{"SELECT id FROM t ORDER BY l", refused},
		{"COMMIT", "00000"}, // which rolls back
		{"CREATE TEMP TABLE u (a text, b text)", "00000"},
		{"INSERT INTO pg_temp.u (b) SELECT ssn FROM customers WHERE id = 1; SELECT a IS NULL, b FROM u", "t|[redacted]\n00000"},
		{"SELECT u::text FROM u", "[redacted]\n00000"},
		{"CREATE TABLE kept AS SELECT b FROM u", refused},
		{"COPY u TO STDOUT (FORMAT csv, HEADER)", "a,b\n,\n00000"},
		// calls without brackets
		{"SELECT ('x'::text).pg_read_file", refused},
	}
	script := &strings.Builder{}
	for _, s := range steps {
		script.WriteString(s.sql + ";\n\\echo :SQLSTATE\n\\echo ====\n")
	}
	cmd := w.Planner(w.t.Context(), "nightly-masked", stage.Psql("-Atq", "-v", "ON_ERROR_STOP=0")...)
	cmd.Stdin = strings.NewReader(script.String())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	if err != nil {
		t.Fatalf("psql: %v\n%s", err, stderr.Bytes())
	}
	parts := strings.Split(string(stdout), "====\n")
	for i, s := range steps {
		if i >= len(parts) {
			t.Fatalf("no answer to %s", s.sql)
		}
		if part := strings.TrimSuffix(parts[i], "\n"); part != s.want {
			t.Errorf("%s\n got %q\nwant %q", s.sql, part, s.want)
		}
	}
	if all := string(stdout) + stderr.String(); strings.Contains(all, "078-05") || strings.Contains(all, "4111") {
		t.Error("a masked value came through")
	}
	if t.Failed() {
		t.Logf("%s", stderr.Bytes())
	}
}

// What masked columns may decide is up to the mask. Where people are asked, what is
// shown stays covered.
func TestPredicatesByApproval(t *testing.T) {
	w := newAskingWorld(t)
	loaded := len(w.eventsOf(event.TypePolicyLoaded))
	err := w.WriteDocument("mask.yaml", `apiVersion: chaperone.dev/v1alpha1
kind: Mask
metadata: {name: people}
spec:
  targets: [orders-db]
  columns:
    - {match: "public.customers.ssn", with: redact}
  predicates: approve
  approval: {from: {subjects: ["root@local"]}, within: 5m, mode: retry}
`)
	if err != nil {
		t.Fatal(err)
	}
	w.until("the mask in force", func() bool { return len(w.eventsOf(event.TypePolicyLoaded)) > loaded })
	ask := w.conversation("mallory")
	const question, asked = "SELECT id, ssn FROM customers WHERE ssn < '1'", "is needed, and root@local is asked"
	ask("SELECT ssn FROM customers WHERE id = 1", "[redacted]")
	id := requestID.FindString(ask(question, asked))
	if r := w.view(w.root(), id).Request; r.Rule != "predicates" || !strings.Contains(r.Why, "WHERE tells about masked column public.customers.ssn") {
		t.Errorf("people are asked by %q, for %q", r.Rule, r.Why)
	}
	if got := w.approvals("approve", id, "--yes"); got.code != 0 {
		t.Fatalf("approve: %+v", got)
	}
	// It reaches the node a moment after the answer.
	w.event(event.TypeApprovalDecided, requested(id, "outcome", "approved"))
	ask(question, "1|[redacted]")
	ask(question, asked)
}
