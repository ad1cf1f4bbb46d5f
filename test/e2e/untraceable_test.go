package e2e

import (
	"strings"
	"testing"

	"chaperone.dev/chaperone/pkg/event"
)

// What can't be traced to masked columns may be seen once a person has said so, where
// the mask says so; what can be stays masked.
func TestApprovalOfWhatCantBeTraced(t *testing.T) {
	w := newAskingWorld(t)
	w.value("CREATE FUNCTION card() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN (SELECT ssn FROM customers WHERE id = 1); END'")
	loaded := len(w.eventsOf(event.TypePolicyLoaded))
	err := w.WriteDocument("mask.yaml", `apiVersion: chaperone.dev/v1alpha1
kind: Mask
metadata: {name: people}
spec:
  targets: [orders-db]
  columns:
    - {match: "public.customers.ssn", with: redact}
  untraceable: approve
  approval: {from: {subjects: ["root@local"]}, within: 5m, mode: retry}
---
apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: functions}
spec:
  principals: {subjects: ["mallory@corp-idp"]}
  targets: [orders-db]
  rules:
    - {name: selects, when: "statement.kind == 'SELECT'", then: allow}
`)
	if err != nil {
		t.Fatal(err)
	}
	w.until("the mask in force", func() bool { return len(w.eventsOf(event.TypePolicyLoaded)) > loaded })
	ask := w.conversation("mallory")
	const asked = "is needed, and root@local is asked"
	ask("SELECT ssn FROM customers WHERE id = 1", "[redacted]")
	id := requestID.FindString(ask("SELECT card()", asked))
	if r := w.view(w.root(), id).Request; r.Rule != "untraceable" || !strings.Contains(r.Why, "can't be traced") {
		t.Errorf("people are asked by %q, for %q", r.Rule, r.Why)
	}
	if got := w.approvals("approve", id, "--yes"); got.code != 0 {
		t.Fatalf("approve: %+v", got)
	}
	// It reaches the node a moment after the answer.
	w.event(event.TypeApprovalDecided, requested(id, "outcome", "approved"))
	ask("SELECT card()", "078-05-1120")
	ask("SELECT card()", asked)
	ask("SELECT ssn FROM customers WHERE id = 1", "[redacted]")
}
