package main

import (
	"strings"
	"testing"
	"time"

	"chaperone.dev/chaperone/pkg/event"
)

// What people read of approvals and locks, in one line without control characters.
func TestDescribeApprovalsAndLocks(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	planner := event.Principal{Subject: "planner-7", Issuer: "corp"}
	ann, eve := event.Principal{Subject: "ann", Issuer: "corp"}, event.Principal{Subject: "eve", Issuer: "corp"}
	for name, c := range map[string]struct {
		data event.Data
		want string
	}{
		"a command is asked for": {
			&event.ApprovalRequested{Request: "a-1", About: "command", Principal: planner, Workload: event.Workload{Name: "nightly"}, Target: "orders-db",
				Text: "DELETE FROM orders\nWHERE id = 7 -- \x1b[2J", Policy: "orders", Rule: "deletes", Why: "deletions are looked at",
				Groups: []string{"dba"}, Subjects: []string{"eve@corp"}, Count: 2, Expires: noon},
			`a-1  planner-7@corp (nightly) wants DELETE FROM orders WHERE id = 7 -- \x1b[2J at orders-db, asked by orders/deletes (deletions are looked at), of group dba, eve@corp, 2 must say yes, until 12:00:00`,
		},
		"a session is asked for": {
			&event.ApprovalRequested{Request: "a-1", About: "session", Principal: planner, Workload: event.Workload{Name: "nightly"}, Target: "orders-db",
				Policy: "orders", Rule: "first", Groups: []string{"dba"}, Count: 1, Expires: noon},
			`a-1  planner-7@corp (nightly) wants a session at orders-db, asked by orders/first, of group dba, until 12:00:00`,
		},
		"decided": {
			&event.ApprovalDecided{Request: "a-1", Outcome: "denied", Votes: []event.ApprovalVote{
				{By: ann, Via: "page", Verdict: "approve", Standing: 30 * time.Minute}, {By: eve, Via: "chat", Verdict: "deny", Reason: "not\ntoday"}}},
			`a-1  denied: approve by ann@corp (page), for 30m0s; deny by eve@corp (chat): not today`,
		},
		"expired":         {&event.ApprovalExpired{Request: "a-1", Outcome: "expired"}, `a-1  expired`},
		"cancelled":       {&event.ApprovalExpired{Request: "a-1", Outcome: "cancelled", Message: "the session has ended"}, `a-1  cancelled: the session has ended`},
		"rejected":        {&event.ApprovalRejected{Request: "a-1", By: &planner, Reason: "self", Message: "nobody answers for themselves"}, `a-1  an answer did not count (self): nobody answers for themselves; said to be of planner-7@corp`},
		"rejected, of no": {&event.ApprovalRejected{Request: "a-1", Reason: "signature", Message: "not signed"}, `a-1  an answer did not count (signature): not signed`},
		"locked": {
			&event.LockApplied{Lock: "l-1", Principal: "planner-7@corp", Target: "orders-db", Reason: "incident 3", By: ann, Expires: noon, Cut: 1, Revoked: 2},
			`l-1  principal planner-7@corp, target orders-db locked by ann@corp until 2026-03-01 12:00:00 (incident 3); ended 1 session, revoked 2 credentials`,
		},
		"released":   {&event.LockEnded{Lock: "l-1", Reason: "released", By: &ann}, `l-1  released by ann@corp`},
		"lock's end": {&event.LockEnded{Lock: "l-1", Reason: "expired"}, `l-1  expired`},
		"pending": {
			&event.Command{Text: "DELETE FROM orders", Decision: "pending", Policy: "orders", Rule: "deletes", Message: "ask again", Approvals: []string{"a-1"}},
			`DELETE FROM orders → pending (orders/deletes): ask again, waits for a-1`,
		},
		"approved, and shadows": {
			&event.Command{Text: "SELECT 1", Decision: "allow", Policy: "orders", Rule: "read", Approvals: []string{"a-1", "a-2"}, Rows: 1, Duration: time.Millisecond,
				Shadows: []event.Shadow{{Policy: "same", Rule: "r", Action: "allow"}, {Policy: "next", Rule: "ask", Action: "approve"}, {Policy: "last", Action: "deny"}}},
			`SELECT 1 → allow (orders/read), asked a-1 a-2, shadow policy next/ask would approve, shadow policy last would deny, 1 row, 1ms`,
		},
	} {
		e, err := event.NewWithID("id", event.Origin{Cluster: "c1", Node: "n1"}, noon, c.data)
		ok(t, err)
		got := describe(e)
		if got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, c.want)
		}
		if strings.ContainsFunc(got, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			t.Errorf("%s: control character in %q", name, got)
		}
	}
}
