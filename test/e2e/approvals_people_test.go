package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/approval"
	openid "chaperone.dev/chaperone/internal/lab/idp"
	"chaperone.dev/chaperone/pkg/event"
)

func TestApprovalByPeople(t *testing.T) {
	w := newAskingWorld(t)
	ana, bob := w.person("ana", "dba"), w.person("bob", "dba")

	t.Run("two of a group", func(t *testing.T) {
		w := w.in(t)
		// The job acts for somebody who is in the group too.
		psql := w.start(w.job("dora", says("DELETE FROM orders WHERE id = 1", "SELECT 'it ' || 'ran'")...))
		id := psql.notice(t)
		if line := psql.all[len(psql.all)-1]; !strings.Contains(line, "by 2 of group dba until ") {
			t.Errorf("it was told %q", line)
		}
		digest := w.view(ana, id).Request.Digest
		if _, err := w.vote(ana, id, approval.Yes, 0); err != nil {
			t.Fatal(err)
		}
		_, err := w.vote(ana, id, approval.Yes, 0)
		wantRefused(t, err, 409, "answered already")
		_, err = w.vote(w.person("dora", "dba"), id, approval.Yes, 0)
		wantRefused(t, err, 403, "nobody answers for a job of their own")
		_, err = w.person("eve", "interns").Vote(t.Context(), id, answer(approval.Yes, digest))
		wantRefused(t, err, 404, "not for you to see")
		for name, token := range map[string]openid.TokenRequest{
			"for another audience":       {Audience: []string{"chaperone"}},
			"that has expired":           {Audience: []string{"cli"}, Life: -time.Hour},
			"that another client has":    {Audience: []string{"cli"}, Claims: map[string]any{"azp": "nightly"}},
			"that is not valid for now":  {Audience: []string{"cli"}, Claims: map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}},
			"for nobody in particular":   {},
			"for somebody else's issuer": {Audience: []string{"cli"}, Claims: map[string]any{"iss": "https://idp.invalid"}},
		} {
			token.Subject, token.Groups = "bob", []string{"dba"}
			if _, err := w.bearer(token).Vote(t.Context(), id, answer(approval.Yes, digest)); err == nil {
				t.Errorf("a token %s was taken", name)
			} else {
				wantRefused(t, err, 401, "Your token is refused")
			}
		}
		_, err = bob.Vote(t.Context(), id, answer(approval.Yes, strings.Repeat("00", 32)))
		wantRefused(t, err, 409, "something else than what is asked")
		w.event(event.TypeApprovalRejected, requested(id, "reason", "self"))
		w.event(event.TypeApprovalRejected, requested(id, "reason", "digest"))
		if n := w.value("SELECT count(*) FROM orders WHERE id = 1"); n != "1" {
			t.Fatal("it ran before two had said yes")
		}

		// On a machine without a keyring a token is in a file.
		file := w.write("bob.token", w.token(openid.TokenRequest{Subject: "bob", Groups: []string{"dba"}, Audience: []string{"cli"}}))
		w.approvals("approve", "--server", w.url, "--token-file", file, "--yes", id).want(t, 0, "Answers", "yes by ana@corp-idp", id+": approved")
		psql.want(t, "it ran")
		<-psql.done
		if n := w.value("SELECT count(*) FROM orders WHERE id = 1"); n != "0" {
			t.Error("it did not run")
		}
		w.event(event.TypeCommand, approvedBy(id))
		var decided event.ApprovalDecided
		recast(t, w.event(event.TypeApprovalDecided, requested(id)), &decided)
		if len(decided.Votes) != 2 || decided.Votes[0].By.Subject != "ana" || decided.Votes[1].By.Subject != "bob" {
			t.Errorf("the votes were %+v", decided.Votes)
		}
		_, err = w.vote(w.person("carl", "dba"), id, approval.No, 0)
		wantRefused(t, err, 409, "already approved by ana@corp-idp, bob@corp-idp")
	})

	t.Run("one no of two", func(t *testing.T) {
		w := w.in(t)
		psql := w.start(w.job("planner", says("DELETE FROM orders WHERE id = 2")...))
		id := psql.notice(t)
		if _, err := w.vote(ana, id, approval.Yes, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := w.vote(bob, id, approval.No, 0); err != nil {
			t.Fatal(err)
		}
		psql.want(t, "ERROR:  approval "+id+" was denied by bob@corp-idp")
		<-psql.done
		if n := w.value("SELECT count(*) FROM orders WHERE id = 2"); n != "1" {
			t.Error("it ran")
		}
	})

	t.Run("for a while", func(t *testing.T) {
		w := w.in(t)
		planner := w.start(w.job("planner", says(
			"INSERT INTO refunds VALUES (1)", "INSERT INTO refunds VALUES (2)", "SELECT 'twice'",
			"INSERT INTO orders (note) VALUES ('asked anew')", "SELECT 'the end'")...))
		id := planner.notice(t)
		_, err := w.vote(ana, id, approval.Yes, 11*time.Minute)
		wantRefused(t, err, 400, "at most 10m")
		file := w.write("ana.token", w.token(openid.TokenRequest{Subject: "ana", Groups: []string{"dba"}, Audience: []string{"cli"}}))
		as := []string{"approve", "--server", w.url, "--token-file", file, "--yes", id, "--for"}
		w.approvals(append(as, "11m")...).want(t, 1, "--for: the rule lets an answer stand for 10m at most")
		w.approvals(append(as, "5m")...).want(t, 0, id+": approved")
		planner.want(t, "twice")
		if sum := w.value("SELECT sum(amount) FROM refunds"); sum != "3" {
			t.Errorf("refunds are %s", sum)
		}
		w.event(event.TypeCommand, func(data map[string]any) bool {
			return approvedBy(id)(data) && strings.Contains(data["text"].(string), "(2)")
		})
		another := planner.notice(t)
		if another == id {
			t.Error("what stands for one table stands for another")
		}
		if _, err := w.vote(ana, another, approval.No, time.Minute); err == nil {
			t.Error("a no stands")
		}
		if _, err := w.vote(ana, another, approval.No, 0); err != nil {
			t.Fatal(err)
		}
		planner.want(t, "the end")
		<-planner.done

		// It stood for that job alone.
		next := w.start(w.job("planner", says("INSERT INTO refunds VALUES (3)")...))
		if anew := next.notice(t); anew == id {
			t.Error("what stood for one job stands for another")
		} else if _, err := w.vote(ana, anew, approval.No, 0); err != nil {
			t.Fatal(err)
		}
		<-next.done
		if sum := w.value("SELECT sum(amount) FROM refunds"); sum != "3" {
			t.Errorf("refunds are %s", sum)
		}
	})

	t.Run("two at once", func(t *testing.T) {
		const races = 20
		w := w.in(t)
		var statements []string
		for n := range races {
			statements = append(statements, fmt.Sprintf("INSERT INTO refunds VALUES (%d) RETURNING 'ran %d'", 1000+n, n), fmt.Sprintf("SELECT 'over %d'", n))
		}
		psql := w.start(w.job("planner", says(statements...)...))
		ran := 0
		for n := range races {
			id := psql.notice(t)
			digest := w.view(ana, id).Request.Digest
			from := len(psql.all)
			var errs [2]error
			var voting sync.WaitGroup
			begin := make(chan struct{})
			voting.Go(func() { <-begin; _, errs[0] = ana.Vote(t.Context(), id, answer(approval.Yes, digest)) })
			voting.Go(func() { <-begin; _, errs[1] = bob.Vote(t.Context(), id, answer(approval.No, digest)) })
			close(begin)
			voting.Wait()
			psql.want(t, fmt.Sprintf("over %d", n))
			printed := strings.Join(psql.all[from:], "\n")
			switch {
			case errs[0] == nil && errs[1] != nil:
				ran++
				wantRefused(t, errs[1], 409, "already approved by ana@corp-idp")
				if !strings.Contains(printed, fmt.Sprintf("ran %d", n)) {
					t.Errorf("approved, it printed:\n%s", printed)
				}
			case errs[1] == nil && errs[0] != nil:
				wantRefused(t, errs[0], 409, "already denied by bob@corp-idp")
				if !strings.Contains(printed, "was denied by bob@corp-idp") {
					t.Errorf("denied, it printed:\n%s", printed)
				}
			default:
				t.Fatalf("race %d: ana was told %v, bob %v", n, errs[0], errs[1])
			}
		}
		<-psql.done
		if rows := w.value("SELECT count(*) FROM refunds WHERE amount >= 1000"); rows != fmt.Sprint(ran) {
			t.Errorf("%s rows, and %d were approved", rows, ran)
		}
	})
}

func TestApprovalOfASession(t *testing.T) {
	w := newAskingWorld(t)
	t.Run("approved", func(t *testing.T) {
		w := w.in(t)
		psql := w.start(w.job("guest", says("SELECT 'there are ' || count(*) FROM orders", "SELECT 'no more ' || 'questions'")...))
		id := psql.notice(t)
		if view := w.view(w.root(), id); view.Request.About != approval.AboutSession || view.Request.Session != "" || view.Request.Principal.Subject != "guest" {
			t.Errorf("asked was %+v", view.Request)
		}
		if roles, err := w.Roles(t.Context()); err != nil || len(roles) > 0 {
			t.Errorf("before it is approved there are roles %v, %v", roles, err)
		}
		w.approvals("list").want(t, 0, id, "a session", "guests/entry")
		w.approvals("approve", "--yes", id).want(t, 0, id+": approved")
		psql.want(t, "there are 3")
		psql.want(t, "no more questions")
		<-psql.done
		w.event(event.TypeApprovalDecided, requested(id, "outcome", "approved"))
		w.event(event.TypeCommand, approvedBy(id))
		if printed := strings.Join(psql.all, "\n"); strings.Count(printed, "NOTICE") != 1 {
			t.Errorf("it was told more than once:\n%s", printed)
		}
	})
	t.Run("approved, and a command that is asked for by itself", func(t *testing.T) {
		w := w.in(t)
		psql := w.start(w.job("guest", says("UPDATE orders SET note = 'a guest was here' WHERE id = 3")...))
		entry := psql.notice(t)
		w.view(w.root(), entry)
		w.approvals("approve", "--yes", entry).want(t, 0)
		write := psql.notice(t)
		w.view(w.root(), write)
		w.approvals("approve", "--yes", write).want(t, 0)
		<-psql.done
		w.event(event.TypeCommand, func(data map[string]any) bool {
			ids, _ := data["approvals"].([]any)
			return data["decision"] == "allow" && len(ids) == 2 && slices.Contains(ids, any(entry)) && slices.Contains(ids, any(write))
		})
		if note := w.value("SELECT note FROM orders WHERE id = 3"); note != "a guest was here" {
			t.Errorf("the row has %q", note)
		}
	})
	t.Run("denied", func(t *testing.T) {
		w := w.in(t)
		psql := w.start(w.job("guest", says("SELECT 'in'")...))
		id := psql.notice(t)
		w.view(w.root(), id)
		w.approvals("deny", "--yes", "--reason", "nobody visits tonight", id).want(t, 0, id+": denied")
		psql.want(t, "FATAL:  approval "+id+" was denied by root@local: nobody visits tonight")
		<-psql.done
		w.event(event.TypeSessionRefused, func(data map[string]any) bool {
			return data["reason"] == event.ReasonApproval && strings.Contains(data["message"].(string), id)
		})
	})
	t.Run("the client leaves", func(t *testing.T) {
		w := w.in(t)
		job := w.start(w.job("guest", append([]string{"timeout", "--signal", "KILL", "60"}, says("SELECT 'in'")...)...))
		id := job.notice(t)
		if err := syscall.Kill(int(w.view(w.root(), id).Request.Process.PID), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-job.done
		w.event(event.TypeApprovalExpired, requested(id, "outcome", "cancelled"))
	})
	t.Run("approved, and then the rule is another one", func(t *testing.T) {
		w := w.in(t)
		goOn := w.Path("go-on")
		wait := func(n int) string { return fmt.Sprintf(`\! while [ ! -e %s%d ]; do sleep 0.05; done`, goOn, n) }
		psql := w.start(w.job("guest", says("SELECT 'the first'", wait(1), "SELECT 'the second'", wait(2), "SELECT 'the third'")...))
		before := psql.notice(t)
		w.view(w.root(), before)
		w.approvals("approve", "--yes", before).want(t, 0)
		psql.want(t, "the first")
		load := func(text string, step int) {
			t.Helper()
			if err := w.WriteDocument("policy.yaml", text); err != nil {
				t.Fatal(err)
			}
			loaded := strings.Count(w.log.String(), "documents in force")
			if err := w.daemon.Reload(); err != nil {
				t.Fatal(err)
			}
			w.until("new documents", func() bool { return strings.Count(w.log.String(), "documents in force") > loaded })
			if err := os.WriteFile(fmt.Sprint(goOn, step), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		// Other documents with the same rule ask nobody again.
		load(strings.Replace(asking, "changes orders", "changes an order", 1), 1)
		psql.want(t, "the second")
		load(strings.Replace(asking, `when: "true"`, `when: "session.age < duration('2h')"`, 1), 2)
		after := psql.notice(t)
		if after == before {
			t.Errorf("it waits for %s again", before)
		}
		w.view(w.root(), after)
		w.approvals("approve", "--yes", after).want(t, 0)
		psql.want(t, "the third")
		<-psql.done
	})
	w.noRoles()
}
