package session

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/protocol/postgres"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// approvals are those that were given: the id of the request, by the rule that
// asked. A nil map holds none.
type approvals map[approvalKey]string

type approvalKey struct{ policy, rule string }

func keyOf(n policy.Needed) approvalKey { return approvalKey{n.Policy, n.Rule} }

// missing are the approvals among the needed that nobody has given yet.
func missing(needed []policy.Needed, given ...approvals) []policy.Needed {
	return slices.DeleteFunc(slices.Clone(needed), func(n policy.Needed) bool {
		return slices.ContainsFunc(given, func(a approvals) bool { return a[keyOf(n)] != "" })
	})
}

// outlive forgets what was given for rules that other documents don't have any more, or
// have in other words: what people have said yes to is not what is asked now.
func (a approvals) outlive(old, now *policy.Set) {
	maps.DeleteFunc(a, func(key approvalKey, _ string) bool {
		return !reflect.DeepEqual(ruleOf(old, key), ruleOf(now, key))
	})
}

// rule is what people are asked by. The zero value is of none.
type rule struct {
	when string
	spec policy.ApprovalSpec
}

func ruleOf(set *policy.Set, key approvalKey) rule {
	for _, document := range set.Policies {
		for _, r := range document.Spec.Rules {
			if document.Metadata.Name == key.policy && r.Name == key.rule && r.Approval != nil {
				return rule{r.When, *r.Approval}
			}
		}
	}
	for _, document := range set.Masks {
		name := document.Metadata.Name
		if (untracedKey(name) == key || predicatesKey(name) == key) && document.Spec.Approval != nil {
			return rule{spec: *document.Spec.Approval}
		}
	}
	return rule{}
}

// untracedKey is of the approval that a Mask asks for to see what can't be traced.
func untracedKey(mask string) approvalKey { return approvalKey{"mask " + mask, "untraceable"} }

// predicatesKey is of the one that a Mask asks for where masked columns decide over
// rows.
func predicatesKey(mask string) approvalKey { return approvalKey{"mask " + mask, "predicates"} }

// ids are the requests behind the needed approvals.
func ids(needed []policy.Needed, given ...approvals) []string {
	var found []string
	for _, n := range needed {
		for _, a := range given {
			if id := a[keyOf(n)]; id != "" && !slices.Contains(found, id) {
				found = append(found, id)
			}
		}
	}
	return found
}

// ask asks people whether the session may be opened.
func (c *connection) ask(ctx context.Context, needed []policy.Needed) (refusal *postgres.Refusal) {
	c.given = approvals{}
	startup := c.client.Startup()
	digest := newDigest(approval.AboutSession, c, startup.Database, startup.User)
	question := c.question(approval.AboutSession, "session "+startup.Database)
	c.client.Hold(ctx, func(ctx context.Context, notify func(postgres.Notice)) {
		for _, n := range needed {
			var answer approval.Answer
			if answer, refusal = c.decided(ctx, n.Spec.Mode, c.about(question, n, digest), notify); refusal != nil {
				return
			}
			c.given[keyOf(n)] = answer.Request
		}
	})
	return refusal
}

// question is what is asked by this connection, whatever the rule.
func (c *connection) question(what, kind string) approval.Question {
	spec := c.match.Target
	q := approval.Question{Kind: kind}
	q.About = what
	q.Principal, q.Workload, q.Process = c.principal(), c.workload(), event.Process(c.origin.Process)
	q.Target = event.Target{
		Name: spec.Metadata.Name, Protocol: spec.Spec.Protocol, Host: c.match.Host,
		Address: unmapped(c.origin.Destination).String(), Database: c.client.Startup().Database,
	}
	q.Revision = c.set.Revision
	if provider := c.set.IdentityProvider(c.job.Principal.Issuer); provider != nil {
		q.IssuerURL = provider.Spec.Issuer
	}
	return q
}

// about makes a question that of one rule.
func (c *connection) about(q approval.Question, n policy.Needed, digest hash.Hash) approval.Question {
	spec := n.Spec
	q.Policy, q.Rule, q.Why = n.Policy, n.Rule, n.Message
	q.When = ruleOf(c.set, keyOf(n)).when
	q.From, q.Escalate, q.Count = spec.From, spec.Escalate, spec.Count
	q.Standing, q.Within = time.Duration(spec.Standing), time.Duration(spec.Within)
	q.Digest = sumWith(digest, n)
	return q
}

// decided asks people, and refuses unless they have approved.
func (c *connection) decided(ctx context.Context, mode string, q approval.Question, notify func(postgres.Notice)) (answer approval.Answer, _ *postgres.Refusal) {
	var err error
	if mode == policy.ModeRetry {
		answer, err = c.server.opts.Approvals.Retry(ctx, q)
	} else {
		answer, err = c.server.opts.Approvals.Hold(ctx, q, func(r approval.Request) {
			notify(postgres.Notice{
				Message: fmt.Sprintf("waiting for approval %s by %s until %s", r.ID, asked(r.From, r.Count), r.Expires.UTC().Format(time.RFC3339)),
				Detail:  fmt.Sprintf("Request %s, asked by policy %q, rule %q.", r.ID, r.Policy, r.Rule),
			})
		})
	}
	var why *postgres.Refusal
	switch {
	case err != nil:
		return answer, unasked(ctx, err)
	case answer.State == approval.StateApproved, answer.State == approval.StateUsed:
		return answer, nil
	case answer.State == approval.StateCancelled && errors.As(context.Cause(ctx), &why):
		return answer, why // the client has cancelled it, or its session is ended
	}
	return answer, notApproved(q, answer)
}

// unasked is what a client is told when people can't be asked, or are not waited
// for any more.
func unasked(ctx context.Context, err error) *postgres.Refusal {
	var why *postgres.Refusal
	switch {
	case errors.As(context.Cause(ctx), &why):
		return why
	case errors.Is(err, approval.ErrBusy):
		return &postgres.Refusal{
			Reason: event.ReasonLimit, SQLState: "53300", Err: err,
			Message: "an approval is needed, and too many requests wait for people already: " + err.Error(),
		}
	}
	return &postgres.Refusal{
		Reason: event.ReasonApproval, SQLState: "57P03", Err: err,
		Message: "an approval is needed, and people can't be asked at the moment", Hint: "The node's log says why.",
	}
}

// notApproved is what a client is told that may not, or not yet.
func notApproved(q approval.Question, a approval.Answer) *postgres.Refusal {
	refusal := &postgres.Refusal{
		Reason: event.ReasonApproval, SQLState: "42501", Detail: fmt.Sprintf("Request %s, asked by policy %q, rule %q.", a.Request, q.Policy, q.Rule),
	}
	switch a.State {
	case approval.StatePending:
		refusal.Message = fmt.Sprintf("approval %s is needed, and %s asked", a.Request, isOrAre(q.From, q.Count))
		refusal.Hint = fmt.Sprintf("Run it again: once it is approved the same command of this job runs, once, until %s.", a.Expires.UTC().Format(time.RFC3339))
	case approval.StateDenied:
		refusal.Message = fmt.Sprintf("approval %s was denied", a.Request)
		if len(a.By) > 0 {
			refusal.Message += " by " + a.By[0].String()
		}
		if a.Message != "" {
			refusal.Message += ": " + a.Message
		}
	case approval.StateCancelled:
		refusal.Message = fmt.Sprintf("approval %s is not asked for any more: %s", a.Request, a.Message)
	default:
		refusal.Message = fmt.Sprintf("approval %s has not been given by %s within %s", a.Request, asked(q.From, q.Count), q.Within)
	}
	return refusal
}

// asked names who may answer.
func asked(from policy.PrincipalSelect, count int) string {
	var names []string
	for _, group := range from.Groups {
		names = append(names, "group "+group)
	}
	names = append(names, from.Subjects...)
	who := strings.Join(names, " or ")
	if count > 1 {
		return fmt.Sprintf("%d of %s", count, who)
	}
	return who
}

func isOrAre(from policy.PrincipalSelect, count int) string {
	if count > 1 {
		return asked(from, count) + " are"
	}
	return asked(from, count) + " is"
}

// newDigest begins the digest of what is asked: whose job wants to do what where.
// Each part is led by its length, so that no two things have one digest.
func newDigest(what string, c *connection, parts ...string) hash.Hash {
	h := sha256.New()
	for _, part := range append([]string{"chaperone approval v1", what, c.job.ID, c.match.Target.Metadata.Name}, parts...) {
		addPart(h, []byte(part))
	}
	return h
}

func addPart(h hash.Hash, part []byte) {
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(part)))
	h.Write(length[:])
	h.Write(part)
}

// sumWith ends a copy of the digest with the rule that asks.
func sumWith(h hash.Hash, n policy.Needed) string {
	whole := sha256.New()
	addPart(whole, h.Sum(nil))
	addPart(whole, []byte(n.Policy))
	addPart(whole, []byte(n.Rule))
	return hex.EncodeToString(whole.Sum(nil))
}
