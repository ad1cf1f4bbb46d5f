package mask

import (
	"bytes"
	"slices"
)

// extent is a part of a row.
type extent struct{ from, to int }

// lineEnd is the length of the first line in format text, with its newline; 0
// if there is no whole one. A newline in a value is written as \n.
func lineEnd(data []byte) int { return bytes.IndexByte(data, '\n') + 1 }

// csvEnd is the same in format csv, where newlines in quotes belong to a value.
func (f *copyFormat) csvEnd(data []byte) int {
	quoted := false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == f.escape && f.escape != f.quote:
			i++
		case c == f.quote:
			quoted = !quoted
		case c == '\n' && !quoted:
			return i + 1
		}
	}
	return 0
}

// split finds the columns of a line without its newline.
func (f *copyFormat) split(bounds []extent, line []byte) []extent {
	from, quoted := 0, false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case f.kind == copyText && c == '\\', quoted && c == f.escape && f.escape != f.quote:
			i++
		case f.kind == copyCSV && c == f.quote:
			quoted = !quoted
		case c == f.delimiter && !quoted:
			bounds = append(bounds, extent{from, i})
			from = i + 1
		}
	}
	return append(bounds, extent{from, len(line)})
}

// lineRow covers a line of size bytes, of format text or csv.
func (w *CopyRewriter) lineRow(data []byte, size int) (int, error) {
	if size == 0 {
		return 0, nil
	}
	f := w.plan.format
	line := data[:size-1]
	w.bounds = f.split(w.bounds[:0], line)
	if len(w.plan.fields) == 0 && len(line) == 0 {
		w.bounds = w.bounds[:0] // a table without columns has empty lines
	}
	if len(w.bounds) != len(w.plan.fields) {
		return 0, w.wrongColumns(len(w.bounds))
	}
	if f.header && !w.head {
		w.head = true
		w.out = append(w.out, data[:size]...)
		return size, nil
	}
	for i, b := range w.bounds {
		if i > 0 {
			w.out = append(w.out, f.delimiter)
		}
		raw := line[b.from:b.to]
		var covered []byte
		var changed bool
		if value, null := w.read(raw); null {
			covered = w.rows.nullValue(i)
			changed = covered != nil
		} else {
			covered, changed = w.rows.value(i, value)
		}
		switch {
		case !changed:
			w.out = append(w.out, raw...)
		case covered == nil:
			w.out = append(w.out, f.null...)
		case f.kind == copyCSV:
			w.out = f.appendQuoted(w.out, covered, f.forceAll || slices.Contains(f.force, w.plan.fields[i].Name), len(w.bounds) == 1)
		default:
			w.out = f.appendEscaped(w.out, covered)
		}
	}
	w.out = append(w.out, '\n')
	return size, nil
}

// read takes a value out of its escapes or quotes.
func (w *CopyRewriter) read(raw []byte) (value []byte, null bool) {
	f := w.plan.format
	if string(raw) == f.null {
		return nil, true
	}
	out := w.field[:0]
	quoted := false
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case f.kind == copyText && c == '\\' && i+1 < len(raw):
			i++
			c = unescaped(raw[i])
		case quoted && c == f.escape && i+1 < len(raw) && (raw[i+1] == f.quote || raw[i+1] == f.escape):
			i++
			c = raw[i]
		case f.kind == copyCSV && c == f.quote:
			quoted = !quoted
			continue
		}
		out = append(out, c)
	}
	w.field = out
	if cap(w.field) > keepBuffer {
		w.field = nil
	}
	return out, false
}

// unescaped is the character that a backslash and c stand for.
func unescaped(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'v':
		return '\v'
	}
	return c
}

// appendEscaped is CopyAttributeOutText of commands/copyto.c.
func (f *copyFormat) appendEscaped(out, v []byte) []byte {
	for _, c := range v {
		switch c {
		case '\b':
			out = append(out, `\b`...)
		case '\f':
			out = append(out, `\f`...)
		case '\n':
			out = append(out, `\n`...)
		case '\r':
			out = append(out, `\r`...)
		case '\t':
			out = append(out, `\t`...)
		case '\v':
			out = append(out, `\v`...)
		default:
			if c == '\\' || c == f.delimiter {
				out = append(out, '\\')
			}
			out = append(out, c)
		}
	}
	return out
}

// appendQuoted is CopyAttributeOutCSV of commands/copyto.c.
func (f *copyFormat) appendQuoted(out, v []byte, force, single bool) []byte {
	needed := force || string(v) == f.null || single && string(v) == `\.` ||
		bytes.ContainsAny(v, "\n\r") || bytes.IndexByte(v, f.delimiter) >= 0 || bytes.IndexByte(v, f.quote) >= 0
	if !needed {
		return append(out, v...)
	}
	out = append(out, f.quote)
	for _, c := range v {
		if c == f.quote || c == f.escape {
			out = append(out, f.escape)
		}
		out = append(out, c)
	}
	return append(out, f.quote)
}
