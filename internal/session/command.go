package session

import (
	"fmt"
	"strings"
	"time"

	"chaperone.dev/chaperone/internal/mask"
	"chaperone.dev/chaperone/internal/protocol/postgres"
	"chaperone.dev/chaperone/pkg/event"
)

// command is one execution on its way through the upstream. It implements
// [postgres.Command], for the goroutine that reads the upstream.
type command struct {
	gate    *gate
	plan    *plan
	text    string
	record  *event.Command
	started time.Time

	current  *mask.Rewriter // of the statement whose rows flow
	finished []*mask.Rewriter
	maxRows  uint64
}

// Fields finds out how the rows of the i-th statement are to be covered.
func (c *command) Fields(i int, fields []postgres.Field) (bool, error) {
	columns := make([]mask.Field, len(fields))
	for j, f := range fields {
		columns[j] = mask.Field{Name: f.Name, Table: f.Table, Column: f.Column, Type: f.Type, Format: f.Format}
	}
	plan, err := c.planOf(i)
	if err == nil {
		c.current, err = plan.Rewriter(columns)
	}
	if err != nil {
		return false, unmaskable(err)
	}
	c.finished = append(c.finished, c.current)
	return c.maxRows > 0 || !c.current.Idle(), nil
}

// Row counts and covers one row.
func (c *command) Row(body []byte) ([]byte, error) {
	if refusal := c.count(); refusal != nil {
		return nil, refusal
	}
	covered, err := c.current.Row(body)
	if err != nil {
		return nil, unmaskable(err)
	}
	return covered, nil
}

// count counts a row where that is bounded. Where it isn't, End does.
func (c *command) count() error {
	if c.maxRows == 0 || c.gate.rows.Add(1) <= c.maxRows {
		return nil
	}
	return &postgres.Refusal{
		Reason: event.ReasonLimit, SQLState: "54000",
		Message: fmt.Sprintf("policy lets a session see %d rows, and this one has seen them", c.maxRows),
	}
}

// CopyOut finds out how the data of the i-th statement are to be covered.
func (c *command) CopyOut(i int, binary bool) (bool, error) {
	plan, err := c.planOf(i)
	if err != nil {
		return false, unmaskable(err)
	}
	c.current = plan.CopyRewriter()
	c.finished = append(c.finished, c.current)
	if binary && !c.current.Idle() {
		return false, unmaskable(&mask.Untraceable{Message: "COPY in binary format can't be looked into"})
	}
	return c.maxRows > 0 || !c.current.Idle(), nil
}

// CopyData counts and covers one line of a COPY TO STDOUT.
func (c *command) CopyData(line []byte) ([]byte, error) {
	if refusal := c.count(); refusal != nil {
		return nil, refusal
	}
	return c.current.Line(line), nil
}

func (c *command) planOf(i int) (*mask.Plan, error) {
	if i >= len(c.plan.masks) {
		return nil, &mask.Untraceable{Message: "the server returned more results than the string has statements"}
	}
	return c.plan.masks[i], nil
}

// End puts the outcome on record. What can't be recorded any more can't be
// taken back either: the next command is refused.
func (c *command) End(outcome postgres.Outcome) {
	r := c.record
	r.Rows, r.Bytes, r.Tag = outcome.Rows, outcome.Bytes, strings.Join(outcome.Tags, ";")
	r.SQLState, r.Error, r.Unfinished = outcome.SQLState, outcome.Error, outcome.Unfinished
	r.Skipped = outcome.Skipped
	r.Duration = time.Since(c.started)
	if c.maxRows == 0 {
		c.gate.rows.Add(outcome.Rows)
	}
	if err := c.gate.recorder.Outcome(r); err != nil {
		c.gate.unrecorded(err)
	}
	var columns []event.MaskColumn
	for _, rewriter := range c.finished {
		columns = append(columns, rewriter.Applied()...)
	}
	if len(columns) > 0 {
		if err := c.gate.recorder.Masked(event.MaskApplied{Session: r.Session, Seq: r.Seq, Columns: columns}); err != nil {
			c.gate.unrecorded(err)
		}
	}
	if r.Parsed.DDL && r.SQLState == "" {
		c.gate.catalog.invalidate()
	}
}
