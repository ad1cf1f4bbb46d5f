package mask

import (
	"encoding/binary"
	"errors"
	"fmt"

	"chaperone.dev/chaperone/pkg/event"
)

// Field describes one result column as the server announced it in
// RowDescription, with the result format of the Bind message.
type Field struct {
	Name   string
	Table  uint32 // OID of the table; 0: no plain column
	Column uint16 // attribute number in it
	Type   uint32 // type OID
	Format int16  // 0 text, 1 binary
}

// Rewriter covers the rows of one execution of one statement. It isn't safe
// for concurrent use.
type Rewriter struct {
	fields    []fieldRewriter
	detectors detectorSet
	labels    *[detectorCount]string
	idle      bool
	buf       []byte
	one       []byte                // what stands for the value that value was given last
	found     [detectorCount]uint64 // scratch for one value
	lines     [detectorCount]uint64 // finds in COPY lines
}

type fieldRewriter struct {
	name     string
	label    string    // of the rule, if there is a covering
	covering *covering // nil: detectors look at the values
	null     []byte    // stands for NULL, if not nil
	looking  looking
	covered  uint64
	found    [detectorCount]uint64
}

// keepBuffer is how much of the buffer outlives a row: one wide row doesn't
// hold memory for the rest of the session.
const keepBuffer = 256 << 10

// ErrMalformedRow says that a DataRow isn't what its RowDescription announced.
var ErrMalformedRow = errors.New("malformed DataRow")

// Rewriter checks the announced fields against the plan and returns what covers
// the rows. An error is an [*Untraceable]: the rows must not be shown.
//
// As a second line, a field that the server says to be a masked column of a
// table is covered even where the plan doesn't say so.
func (p *Plan) Rewriter(fields []Field) (*Rewriter, error) {
	if p.later {
		return nil, untraceable("the rows of a cursor can be covered by the plan of its DECLARE only")
	}
	if !p.open && len(fields) != len(p.columns) {
		return nil, untraceable("the result has %d columns where %d were traced: the schema may have changed just now; try again", len(fields), len(p.columns))
	}
	covers := make([]*cover, len(fields))
	for i, f := range fields {
		if !p.open {
			if want := p.columns[i].name; want != "" && want != f.Name {
				return nil, untraceable("column %d of the result is %q where %q was traced: the schema may have changed just now; try again", i+1, f.Name, want)
			}
			if want := p.columns[i].typ; want != 0 && want != f.Type {
				return nil, untraceable("column %q of the result has another type than was traced: the schema may have changed just now; try again", f.Name)
			}
			covers[i] = p.columns[i].cover
		}
		announced, err := p.announced(f)
		if err != nil {
			return nil, err
		}
		if covers[i] == nil {
			covers[i] = announced
		}
	}
	return p.rules.rewriter(fields, covers), nil
}

// rewriter returns what covers rows of these fields: the i-th by covers[i], or
// by what the detectors find where that is nil.
func (r *Rules) rewriter(fields []Field, covers []*cover) *Rewriter {
	w := &Rewriter{fields: make([]fieldRewriter, len(fields)), detectors: r.detectors, labels: &r.labels, idle: true}
	for i, f := range fields {
		field := &w.fields[i]
		field.name = f.Name
		if c := covers[i]; c != nil {
			field.label, field.covering = c.label, newCovering(c.with, r.keys, f.Type, f.Format)
			if c.derived {
				field.null = derivedValue(c.with, f.Type, f.Format)
				field.covering = &covering{constantCover(field.null)}
			}
		} else if r.detectors != 0 {
			field.looking = lookingAt(f.Type, f.Format)
		}
		if field.covering != nil || field.looking != nil {
			w.idle = false
		}
	}
	return w
}

// announced is the cover of the table column that a field is said to be.
func (p *Plan) announced(f Field) (*cover, error) {
	if p.coverage == nil || f.Table == 0 {
		return nil, nil
	}
	rel := p.coverage.cat.byOID[f.Table]
	if rel == nil {
		if f.Table < firstUserOID || p.made {
			return nil, nil // of a kind that the catalog leaves out, or too new
		}
		return nil, untraceable("column %q comes from a relation that isn't known yet; try again", f.Name)
	}
	t := p.coverage.taints(rel)
	if t.err != nil {
		return nil, t.err
	}
	if f.Column == 0 { // a whole row
		return coverOf((&item{columns: columnsOf(rel, t)}).whole()), nil
	}
	for i, c := range rel.columns {
		if c.num == f.Column {
			return coverOf(t.columns[i]), nil
		}
	}
	if f.Column > maxAttribute { // a system column's number is negative
		return nil, nil
	}
	return nil, untraceable("column %q of %s isn't known yet; try again", f.Name, rel)
}

// maxAttribute is MaxHeapAttributeNumber of access/htup_details.h.
const maxAttribute = 1600

// Idle tells that no row can come out changed, so that rows needn't be shown
// to the rewriter at all.
func (w *Rewriter) Idle() bool { return w.idle }

// Row covers the body of a DataRow message: an int16 number of columns, then
// for each an int32 length (-1 for NULL) and that many bytes ("Message
// Formats" in the protocol's documentation). It returns body itself when
// nothing was covered, else a slice that is valid until the next call. Any
// error means that the row must not be shown.
func (w *Rewriter) Row(body []byte) ([]byte, error) {
	if len(body) < 2 || int(int16(binary.BigEndian.Uint16(body))) != len(w.fields) {
		return nil, fmt.Errorf("%w: not the %d columns that were announced", ErrMalformedRow, len(w.fields))
	}
	if cap(w.buf) > keepBuffer {
		w.buf = nil
	}
	out := w.buf[:0]
	changed := false
	copied := 0 // body up to here is in out, if changed
	at := 2
	for i := range w.fields {
		f := &w.fields[i]
		if len(body)-at < 4 {
			return nil, fmt.Errorf("%w: it ends in column %d", ErrMalformedRow, i+1)
		}
		size := int(int32(binary.BigEndian.Uint32(body[at:])))
		start := at + 4
		if size == -1 {
			if at = start; f.null != nil {
				f.covered++
				out = append(out, body[copied:start-4]...)
				out = append(binary.BigEndian.AppendUint32(out, uint32(len(f.null))), f.null...)
				changed, copied = true, at
			}
			continue
		}
		if size < 0 || size > len(body)-start {
			return nil, fmt.Errorf("%w: column %d is said to have %d bytes", ErrMalformedRow, i+1, size)
		}
		end := start + size
		value := body[start:end]
		at = end
		if f.covering != nil {
			f.covered++
			out = append(out, body[copied:start]...) // with the length
			place := len(out)
			covered, ok := f.covering.appendValue(out, value)
			if out = covered; ok {
				binary.BigEndian.PutUint32(out[place-4:], uint32(len(out)-place))
			} else {
				out = appendNull(out[:place-4])
			}
		} else {
			if f.looking == nil || size < shortest {
				continue
			}
			covered, ok := f.looking(w, f, value)
			if !ok {
				continue
			}
			out = append(out, body[copied:start-4]...)
			if covered == nil {
				out = appendNull(out)
			} else {
				out = append(binary.BigEndian.AppendUint32(out, uint32(len(covered))), covered...)
			}
		}
		changed, copied = true, end
	}
	if at != len(body) {
		return nil, fmt.Errorf("%w: %d bytes behind the last column", ErrMalformedRow, len(body)-at)
	}
	if !changed {
		return body, nil
	}
	out = append(out, body[copied:]...)
	w.buf = out
	return out, nil
}

// nullValue is what stands for NULL in the i-th field; nil: NULL itself.
func (w *Rewriter) nullValue(i int) []byte { return w.fields[i].null }

// value covers one value, not NULL, of the i-th field, and counts it. changed is
// false if it stays as it is. covered is nil for NULL, and valid until the next
// call; v isn't changed.
func (w *Rewriter) value(i int, v []byte) (covered []byte, changed bool) {
	f := &w.fields[i]
	if f.covering == nil {
		if f.looking == nil || len(v) < shortest {
			return v, false
		}
		if covered, changed = f.looking(w, f, v); !changed {
			return v, false
		}
		return covered, true
	}
	f.covered++
	if cap(w.one) > keepBuffer {
		w.one = nil
	}
	one, ok := f.covering.appendValue(w.one[:0], v)
	w.one = one
	if !ok {
		return nil, true
	}
	if one == nil {
		one = []byte{} // empty, not NULL
	}
	return one, true
}

// Line covers a piece of a COPY stream, a line as the server sends them. It
// returns line itself when nothing was covered.
func (w *Rewriter) Line(line []byte) []byte {
	return w.detectors.replace(line, false, &w.lines)
}

// Applied counts what was covered so far, by column and rule.
func (w *Rewriter) Applied() []event.MaskColumn {
	var list []event.MaskColumn
	add := func(column, rule string, n uint64) {
		if n > 0 {
			list = append(list, event.MaskColumn{Column: column, Rule: rule, Count: n})
		}
	}
	for i := range w.fields {
		f := &w.fields[i]
		add(f.name, f.label, f.covered)
		for d, n := range f.found {
			add(f.name, w.labels[d], n)
		}
	}
	for d, n := range w.lines {
		add("", w.labels[d], n)
	}
	return list
}
