package session

import (
	"strings"
	"time"

	"chaperone.dev/chaperone/internal/mask"
	"chaperone.dev/chaperone/internal/protocol/postgres"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// command is one execution on its way through the upstream. It implements
// [postgres.Command], for the goroutine that reads the upstream.
type command struct {
	gate    *gate
	plan    *plan
	record  *event.Command
	started time.Time

	current  *mask.Rewriter     // of the statement whose rows flow
	copied   *mask.CopyRewriter // of the one whose COPY data flow
	finished []rewriter
	effects  []effect // of its statements on names
	done     int      // how many of them have come true

	bound             *policy.Bound // that the bounds are from
	maxRows, maxBytes uint64        // 0: none
	maxDuration       time.Duration // likewise
	overdue           overdue
}

// counted tells whether each row is to be counted before it is sent on.
func (c *command) counted() bool { return c.maxRows > 0 || c.maxBytes > 0 }

// rewriter is what covered the result of a statement.
type rewriter interface{ Applied() []event.MaskColumn }

// Fields finds out how the rows of the i-th statement are to be covered.
func (c *command) Fields(i int, fields []postgres.Field) (bool, error) {
	columns := make([]mask.Field, len(fields))
	for j, f := range fields {
		columns[j] = mask.Field{Name: f.Name, Table: f.Table, Column: f.Column, Type: f.Type, Format: f.Format}
	}
	c.settle(i)
	plan, err := c.shown(i)
	if err == nil {
		if c.current, err = plan.Rewriter(columns); err != nil {
			c.gate.catalog.invalidate() // the result isn't as it was traced
		}
	}
	if err != nil {
		return false, unmaskable(err)
	}
	c.finished = append(c.finished, c.current)
	return c.counted() || !c.current.Idle(), nil
}

// Row counts and covers one row.
func (c *command) Row(body []byte) ([]byte, error) {
	if refusal := c.count(len(body)); refusal != nil {
		return nil, refusal
	}
	covered, err := c.current.Row(body)
	if err != nil {
		return nil, unmaskable(err)
	}
	return covered, nil
}

// count counts a row and its bytes where they are bounded. Where they aren't, End
// does.
func (c *command) count(size int) error {
	if c.maxRows != 0 && c.gate.rows.Add(1) > c.maxRows {
		return maxRows().refusal(c.bound, "54000", "policy lets a session see %d rows, and this one has seen them", c.maxRows)
	}
	if c.maxBytes != 0 && c.gate.bytes.Add(uint64(size)) > c.maxBytes {
		return maxBytes().refusal(c.bound, "54000",
			"policy lets a session see %s of results, and this one has seen them", policy.Size(c.maxBytes))
	}
	return nil
}

// CopyOut finds out how the data of the i-th statement are to be covered.
func (c *command) CopyOut(i int, binary bool) (bool, error) {
	c.settle(i)
	plan, err := c.shown(i)
	if err != nil {
		return false, unmaskable(err)
	}
	if c.copied, err = plan.CopyRewriter(binary); err != nil {
		return false, unmaskable(err)
	}
	c.finished = append(c.finished, c.copied)
	return c.counted() || !c.copied.Idle(), nil
}

// CopyData counts and covers one message of a COPY TO STDOUT: a row, as
// PostgreSQL sends them.
func (c *command) CopyData(data []byte) ([]byte, error) {
	if refusal := c.count(len(data)); refusal != nil {
		return nil, refusal
	}
	covered, err := c.copied.Data(data)
	if err != nil {
		return nil, unmaskable(err)
	}
	return covered, nil
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
	c.gate.timekeeper.ended(c)
	c.settle(len(outcome.Tags))
	for ; c.done < len(c.effects); c.done++ {
		c.gate.names.came(c.effects[c.done], false)
	}
	r := c.record
	r.Rows, r.Bytes, r.Tag = outcome.Rows, outcome.Bytes, strings.Join(outcome.Tags, ";")
	r.SQLState, r.Error, r.Unfinished = outcome.SQLState, outcome.Error, outcome.Unfinished
	r.Skipped = outcome.Skipped
	r.Duration = time.Since(c.started)
	if c.maxRows == 0 {
		c.gate.rows.Add(outcome.Rows)
	}
	if c.maxBytes == 0 {
		c.gate.bytes.Add(outcome.Bytes)
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
		c.gate.meaning.invalidate()
	}
}
