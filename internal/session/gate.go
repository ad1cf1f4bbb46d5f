package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	pg_query "github.com/pganalyze/pg_query_go/v6"

	"chaperone.dev/chaperone/internal/journal"
	"chaperone.dev/chaperone/internal/mask"
	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/internal/protocol/postgres"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// gate is a PostgreSQL session as its wire sees it: each query string is read
// and planned once, each execution decided and recorded before it goes on.
// It implements [postgres.Session].
type gate struct {
	connection *connection
	id         string
	origin     event.Origin
	recorder   *journal.Recorder
	started    time.Time
	catalog    *sessionCatalog

	// Of the goroutine that reads the client.
	read  map[*pgsql.Query]*plan
	seq   uint64
	given approvals // while the session lives

	schema schemaWatch
	tables *mask.Temporaries // temporary ones
	names  *names

	meaning *sessionMeaning
	unsure  uint64 // what was noted in names up to then, other code may have changed

	masks  atomic.Pointer[mask.Rules]
	denied atomic.Uint64
	rows   atomic.Uint64
	bytes  atomic.Uint64 // of results

	timekeeper timekeeper
}

func (g *gate) rules() *mask.Rules { return g.masks.Load() }

// refresh puts documents in force that were reloaded, and an identity that was
// renewed: they hold for sessions that are open, too.
func (g *gate) refresh() error {
	c := g.connection
	set := c.server.opts.Policies()
	job, live := c.server.opts.Jobs.ByCgroup(c.origin.Workload)
	renewed := live && job.Proofs != c.job.Proofs
	if set == c.set && !renewed {
		return nil
	}
	if renewed {
		c.job = job
	}
	g.given.outlive(c.set, set)
	c.set, c.bound = set, c.bind(set)
	rules, err := c.server.rulesFor(c)
	if err != nil {
		return err
	}
	if rules != g.rules() {
		g.tables = g.tables.Redacted()
	}
	g.masks.Store(rules)
	clear(g.read)
	return nil
}

// plan is what is known of a query string before it is run. It is shared by
// texts that differ in constants only.
type plan struct {
	masks []*mask.Plan // one per statement
	facts event.Parsed
	// statements are the facts of each, without the text.
	statements []policy.Statement
	// untraced are the approvals that it takes to see what can't be traced to masked
	// columns.
	untraced []policy.Needed
	// asked are the approvals that it takes where masked columns decide over rows.
	asked []policy.Needed
	// effects are what its statements do to names, nil if they do nothing, and
	// uses what they run that was made before.
	effects []effect
	uses    []use
	cursors map[int]string // that statements fetch from
	// decided is the outcome of an earlier execution that any later one
	// shares, under the documents of its set.
	decided *policy.Decision
	under   *policy.Set
}

// sensitive tells whether errors of the string may quote masked values.
func (p *plan) sensitive() bool {
	return len(p.untraced) > 0 || len(p.cursors) > 0 || slices.ContainsFunc(p.masks, (*mask.Plan).Sensitive)
}

// prepared is one query string that was read. It implements [postgres.Prepared].
// How its results are masked is found out again when it is executed, since
// what its names mean may have changed by then.
type prepared struct {
	query *pgsql.Query
	text  string
}

func (p *prepared) Statements() int { return len(p.query.Statements) }

func (p *prepared) Copy(i int) postgres.CopyDirection {
	switch p.query.Statements[i].Copy {
	case pgsql.CopyIn:
		return postgres.CopyIn
	case pgsql.CopyOut:
		return postgres.CopyOut
	}
	return postgres.CopyNone
}

// maxPlans bounds the plans that a session remembers. When there are more, it
// forgets them all: a client that never repeats itself gains nothing by them.
const maxPlans = 1024

// Prepare reads the text and finds out how its results are to be masked. What
// can't be read or masked is refused here, and is on record.
func (g *gate) Prepare(ctx context.Context, text string) (postgres.Prepared, error) {
	query, err := g.connection.server.opts.Parser.Parse(text)
	if err != nil {
		return nil, g.refuse(text, nil, unreadable(err))
	}
	p := &prepared{query, text}
	if _, err := g.plan(ctx, p); err != nil {
		return nil, err
	}
	return p, nil
}

// plan traces the results of a string to their source columns, unless that is
// known. An error is a *Refusal and is on record.
func (g *gate) plan(ctx context.Context, p *prepared) (*plan, error) {
	if err := g.refresh(); err != nil {
		return nil, g.refuse(p.text, p.query, asRefusal(err))
	}
	if g.catalog.changed() || g.meaning.changed() {
		clear(g.read)
	}
	if known, ok := g.read[p.query]; ok {
		return known, nil
	}
	// Kept whatever masks there are now: documents that are reloaded may bring
	// some into a session whose path was changed before.
	if !g.catalog.lost && slices.ContainsFunc(p.query.Statements, changesNames) {
		g.catalog.forgetPath()
		clear(g.read)
	}
	facts, lasting, refusal := g.facts(ctx, p.query)
	if refusal != nil {
		return nil, g.refuse(p.text, p.query, refusal)
	}
	made := &plan{masks: make([]*mask.Plan, len(p.query.Statements)), facts: summed(facts), statements: facts}
	tables := g.tables
	for i, statement := range p.query.Statements {
		var err error
		made.masks[i], err = g.trace(ctx, made, i, statement, tables)
		var untraceable *mask.Untraceable
		if errors.As(err, &untraceable) {
			if needed := g.mayBeSeen(untraceable); len(needed) > 0 {
				made.untraced = needed
				made.masks[i], err = g.rules().Uncovered(statement)
			}
		}
		if err == nil {
			err = g.follow(made, i, statement)
		}
		if err != nil {
			return nil, g.refuse(p.text, p.query, unmaskable(err))
		}
		tables = tables.With(made.masks[i])
	}
	if !lasting || len(made.uses) > 0 || slices.ContainsFunc(p.query.Statements, copiesOut) {
		return made, nil // it depends on what has been prepared, or on the catalog, when it runs
	}
	if len(g.read) >= maxPlans {
		clear(g.read)
	}
	g.read[p.query] = made
	return made, nil
}

func copiesOut(statement *pgsql.Statement) bool { return statement.Copy == pgsql.CopyOut }

// mayBeSeen are the approvals that it takes to see a result that can't be traced to
// masked columns. There are none when a mask of the target has it denied.
func (g *gate) mayBeSeen(why *mask.Untraceable) []policy.Needed {
	c := g.connection
	var needed []policy.Needed
	for i := range c.set.Masks {
		key, spec := untracedKey(c.set.Masks[i].Metadata.Name), &c.set.Masks[i].Spec
		if len(spec.Columns) == 0 || !spec.Covers(c.match.Target.Metadata.Name) || spec.Exempt.Matches(c.job.Principal) {
			continue
		}
		if spec.Untraceable != policy.UntraceableApprove {
			return nil
		}
		needed = append(needed, policy.Needed{
			Policy: key.policy, Rule: key.rule, Spec: spec.Approval,
			Message: "what it returns can't be traced to masked columns, and would be shown as it is: " + why.Message,
		})
	}
	return needed
}

// unsettled refuses what reads masked columns while the session itself has
// changed the schema and not committed it: the catalog, read over another
// connection, does not show that yet.
func (g *gate) unsettled(p *prepared, known *plan) error {
	if !slices.ContainsFunc(known.masks, (*mask.Plan).Sensitive) && len(known.untraced) == 0 ||
		!g.schema.changed && !(len(p.query.Statements) > 1 && slices.ContainsFunc(p.query.Statements, changesSchema)) {
		return nil
	}
	return g.refuse(p.text, p.query, unmaskable(&mask.Untraceable{
		Message: "it reads masked columns in a transaction that has changed the schema; commit first",
	}))
}

// changesNames tells whether a statement may change what bare names mean from
// then on: the search path, or the user that it is for.
func changesNames(statement *pgsql.Statement) bool {
	switch node := statement.Tree.GetNode().(type) {
	case *pg_query.Node_VariableSetStmt:
		switch strings.ToLower(node.VariableSetStmt.Name) {
		case "search_path", "role", "session_authorization", "":
			return true
		}
	case *pg_query.Node_DiscardStmt:
		return true
	}
	return slices.ContainsFunc(statement.Facts("").Functions, func(name string) bool {
		return strings.TrimPrefix(name, "pg_catalog.") == "set_config"
	})
}

// decide asks policy for each statement of the string: the string runs only
// if all of them may.
func (g *gate) decide(p *prepared, known *plan) policy.Decision {
	c := g.connection
	if known.decided != nil && known.under == c.set {
		return *known.decided
	}
	lasting := true
	decision := policy.Decision{Action: policy.Allow}
	for i := range known.statements {
		asked := known.statements[i]
		asked.Text = p.text
		next := c.server.atAllTimes(func(now time.Time) policy.Decision {
			facts := policy.SessionFacts{Age: now.Sub(g.started), Rows: int64(g.rows.Load()), Commands: int64(g.seq)}
			return c.bound.Statement(now, facts, &asked)
		})
		lasting = lasting && next.Lasting
		decision = both(decision, next)
		if decision.Action == policy.Deny {
			break
		}
	}
	if lasting {
		known.decided, known.under = &decision, c.set
	}
	return decision
}

// both is the decision of two statements that run together or not at all: it is
// approved of when each is.
func both(a, b policy.Decision) policy.Decision {
	switch {
	case b.Action == policy.Deny:
		b.Shadows = append(a.Shadows, b.Shadows...)
		return b
	case a.Action == policy.Approve:
		for _, n := range b.Approvals {
			if len(missing([]policy.Needed{n}, granted(a.Approvals))) > 0 {
				a.Approvals = append(slices.Clip(a.Approvals), n)
			}
		}
	default:
		shadows := append(a.Shadows, b.Shadows...)
		a = b
		a.Shadows = shadows
		return a
	}
	a.Shadows = append(slices.Clip(a.Shadows), b.Shadows...)
	return a
}

// granted marks the needed approvals.
func granted(needed []policy.Needed) approvals {
	marked := approvals{}
	for _, n := range needed {
		marked[keyOf(n)] = "marked"
	}
	return marked
}

// number makes the record that of the session's next command.
func (g *gate) number(record *event.Command) {
	g.seq++
	record.Seq = g.seq
}

// command begins the record of a command.
func (g *gate) command(text string, query *pgsql.Query) *event.Command {
	digest := sha256.Sum256([]byte(text))
	record := &event.Command{
		Session: g.id, Text: covered(text, query, g.rules().Text), Digest: hex.EncodeToString(digest[:]),
		PolicyRevision: g.connection.set.Revision,
	}
	if len(record.Text) > event.MaxText {
		record.Text, record.Cut = cut(record.Text, event.MaxText), true
	}
	return record
}

// refuse puts a text on record that was refused before it could be decided.
func (g *gate) refuse(text string, query *pgsql.Query, refusal *postgres.Refusal) error {
	record := g.command(text, query)
	record.Decision = string(policy.Deny)
	if query != nil {
		record.Parsed = parsed(query)
	}
	return g.recordRefusal(record, refusal)
}

// recordRefusal puts a command on record that is not let through, and returns
// what the client is told.
func (g *gate) recordRefusal(record *event.Command, refusal *postgres.Refusal) error {
	g.denied.Add(1)
	g.number(record)
	record.Message, record.SQLState = refusal.Message, refusal.SQLState
	if err := g.recorder.Command(record); err != nil {
		return unrecordable(err)
	}
	return refusal
}

// unrecorded ends a session of which something could not be recorded.
func (g *gate) unrecorded(err error) {
	g.connection.server.opts.Log.Error().Err(err).Str("session", g.id).Msg("the session can't be recorded; it is ended")
	g.connection.end(unrecordable(err))
}

// Text covers values in errors, notices and notifications.
func (g *gate) Text(c postgres.Command, field byte, text string) string {
	if running, ok := c.(*command); ok && running.plan.sensitive() {
		text = withoutValues(field, text)
	}
	return g.rules().Text(text)
}

// Parameter holds the server to the settings by which statements are read.
func (g *gate) Parameter(name, value string) error {
	switch {
	case name == "client_encoding" && value != "UTF8" && value != "SQL_ASCII":
		return &postgres.Refusal{
			Reason: event.ReasonDenied, SQLState: "22023", Fatal: true,
			Message: fmt.Sprintf("client_encoding %q is not let through: statements are read as UTF-8", value),
			Hint:    "Set PGCLIENTENCODING=UTF8.",
		}
	case name == "standard_conforming_strings" && value != "on":
		return &postgres.Refusal{
			Reason: event.ReasonDenied, SQLState: "22023", Fatal: true,
			Message: "standard_conforming_strings must be on: statements are read so",
		}
	}
	return nil
}
