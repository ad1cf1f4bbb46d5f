package session

import (
	"context"
	"fmt"
	"hash"
	"slices"
	"strings"
	"time"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/protocol/postgres"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// execution is one run of a query string on its way to be decided.
type execution struct {
	gate     *gate
	prepared *prepared
	params   postgres.Params
	given    approvals   // for this run alone
	under    *policy.Set // the documents that they were given by
}

// maxRounds bounds how often a run is decided anew after people have approved
// it: documents may be reloaded meanwhile, and ask for more.
const maxRounds = 4

// Begin decides one execution, and has it on record before it returns.
func (g *gate) Begin(ctx context.Context, p postgres.Prepared, params postgres.Params) (postgres.Command, error) {
	e := &execution{gate: g, prepared: p.(*prepared), params: params}
	command, needed, err := e.begin(ctx)
	if len(needed) == 0 {
		return command, err
	}
	if slices.ContainsFunc(needed, func(n policy.Needed) bool { return n.Spec.Mode != policy.ModeRetry }) {
		return nil, &postgres.Held{Wait: func(ctx context.Context, notify func(postgres.Notice)) (postgres.Command, error) {
			return e.wait(ctx, needed, notify)
		}}
	}
	return e.wait(ctx, needed, nil)
}

// begin lets the execution run, refuses it, or returns what people have to approve
// of first.
func (e *execution) begin(ctx context.Context) (postgres.Command, []policy.Needed, error) {
	g := e.gate
	plan, err := g.plan(ctx, e.prepared)
	if err != nil {
		return nil, nil, err
	}
	if err := g.unsettled(e.prepared, plan); err != nil {
		return nil, nil, err
	}
	decision := g.decide(e.prepared, plan)
	if decision.Action != policy.Deny {
		// A decision is shared by executions, so its list is not added to.
		decision.Approvals = append(append(slices.Clip(decision.Approvals), plan.untraced...), plan.asked...)
		if now := g.connection.set; e.under != now && e.under != nil {
			e.given.outlive(e.under, now)
		}
		if needed := missing(decision.Approvals, g.given, e.given); len(needed) > 0 {
			return nil, needed, nil
		}
	}
	record := e.record(plan, decision)
	if decision.Action == policy.Deny {
		return nil, nil, g.recordRefusal(record, &postgres.Refusal{
			Reason: event.ReasonDenied, SQLState: "42501", Message: decision.Message, Detail: decidedBy(decision),
		})
	}
	g.running(e.prepared.query)
	effects, err := g.send(plan)
	if err != nil {
		return nil, nil, g.refuse(e.prepared.text, e.prepared.query, unmaskable(err))
	}
	record.Decision = string(policy.Allow)
	record.Approvals = ids(decision.Approvals, g.given, e.given)
	g.number(record)
	if err := g.recorder.Command(record); err != nil {
		return nil, nil, unrecordable(err)
	}
	g.schema.begin(e.prepared.query)
	most := g.connection.bound.Session()
	c := &command{
		gate: g, plan: plan, record: record, started: time.Now(), bound: g.connection.bound, effects: effects,
		maxRows: most.MaxRows, maxBytes: uint64(most.MaxBytes), maxDuration: time.Duration(most.MaxCommandDuration),
	}
	g.timekeeper.begin(c)
	return c, nil, nil
}

// wait asks people, and then begins.
func (e *execution) wait(ctx context.Context, needed []policy.Needed, notify func(postgres.Notice)) (postgres.Command, error) {
	g := e.gate
	for range maxRounds {
		plan, err := g.plan(ctx, e.prepared)
		if err != nil {
			return nil, err
		}
		for _, n := range needed {
			if err := e.ask(ctx, plan, n, notify); err != nil {
				return nil, err
			}
		}
		var command postgres.Command
		if command, needed, err = e.begin(ctx); len(needed) == 0 {
			return command, err
		}
	}
	return nil, g.refuse(e.prepared.text, e.prepared.query, &postgres.Refusal{
		Reason: event.ReasonApproval, SQLState: "42501",
		Message: fmt.Sprintf("the documents have asked for other approvals %d times while people were asked", maxRounds),
	})
}

// ask asks people for one rule. An error is a *Refusal, and on record.
func (e *execution) ask(ctx context.Context, plan *plan, n policy.Needed, notify func(postgres.Notice)) error {
	g := e.gate
	if notify == nil && n.Spec.Mode != policy.ModeRetry {
		return g.refuse(e.prepared.text, e.prepared.query, &postgres.Refusal{
			Reason: event.ReasonApproval, SQLState: "42501", Message: "the documents have changed while it was decided", Hint: "Run it again.",
		})
	}
	c := g.connection
	q := c.question(approval.AboutCommand, kindOf(plan.facts))
	record := e.record(plan, policy.Decision{Policy: n.Policy, Rule: n.Rule})
	q.Session, q.Text, q.Cut, q.Parameters, q.Parsed = g.id, record.Text, record.Cut, record.Parameters, record.Parsed
	answer, refusal := c.decided(ctx, n.Spec.Mode, c.about(q, n, e.digest()), notify)
	if refusal == nil {
		given := &e.given
		if n.Spec.Per == policy.PerSession {
			given = &g.given
		}
		if *given == nil {
			*given = approvals{}
		}
		(*given)[keyOf(n)] = answer.Request
		e.under = c.set
		return nil
	}
	record.Decision = string(policy.Deny)
	if answer.State == approval.StatePending {
		record.Decision = decisionPending
	}
	if answer.Request != "" {
		record.Approvals = []string{answer.Request}
	}
	return g.recordRefusal(record, refusal)
}

// decisionPending is the decision of a command that is to be sent again.
const decisionPending = "pending"

// record begins the record of the execution.
func (e *execution) record(plan *plan, decision policy.Decision) *event.Command {
	g := e.gate
	record := g.command(e.prepared.text, e.prepared.query)
	record.Parsed = plan.facts
	record.Parameters = parameters(e.params, g.rules().Text)
	record.Decision, record.Policy, record.Rule = string(decision.Action), decision.Policy, decision.Rule
	for _, s := range decision.Shadows {
		record.Shadows = append(record.Shadows, event.Shadow{Policy: s.Policy, Rule: s.Rule, Action: string(s.Action)})
	}
	return record
}

// digest is over the text as sent and its parameters.
func (e *execution) digest() hash.Hash {
	c := e.gate.connection
	h := newDigest(approval.AboutCommand, c, c.client.Startup().Database, e.prepared.text)
	for i, value := range e.params.Values {
		null := "value"
		if value == nil {
			null = "null"
		}
		addPart(h, []byte(fmt.Sprintf("%s %d", null, format(e.params, i))))
		addPart(h, value)
	}
	return h
}

// kindOf is what a standing approval is for: statements that do the same to the
// same tables, by the same functions.
func kindOf(facts event.Parsed) string {
	sorted := func(names []string) string {
		names = slices.Clone(names)
		slices.Sort(names)
		return strings.Join(slices.Compact(names), ",")
	}
	return sorted(facts.Kinds) + "|" + sorted(facts.Tables) + "|" + sorted(facts.Functions)
}
