package mask

import (
	"slices"

	pg_query "github.com/pganalyze/pg_query_go/v6"

	"chaperone.dev/chaperone/pkg/event"
)

// copyKind is a format of COPY.
type copyKind uint8

const (
	copyText copyKind = iota
	copyCSV
	copyBinary
)

// copyFormat is how COPY … TO STDOUT writes its rows ("COPY" in PostgreSQL's
// reference, "File Formats").
type copyFormat struct {
	kind                     copyKind
	delimiter, quote, escape byte
	null                     string
	header                   bool
	force                    []string // FORCE_QUOTE
	forceAll                 bool
}

// copyFormatOf reads the options of a COPY statement. What isn't known is
// refused: the columns could not be told apart.
func copyFormatOf(c *pg_query.CopyStmt) (*copyFormat, error) {
	options := map[string]*pg_query.Node{}
	for _, n := range c.Options {
		d := n.GetDefElem()
		if d == nil || options[d.Defname] != nil {
			return nil, untraceable("an option of COPY can't be read")
		}
		options[d.Defname] = n
	}
	f := &copyFormat{delimiter: '\t', null: `\N`, quote: '"'}
	switch text, _ := optionText(options["format"]); text {
	case "", "text":
	case "csv":
		f.kind, f.delimiter, f.null = copyCSV, ',', ""
	case "binary":
		f.kind = copyBinary
	default:
		return nil, untraceable("format %q of COPY isn't known", text)
	}
	escaped := false
	for name, n := range options {
		text, isText := optionText(n)
		ok := true
		switch name {
		case "format", "freeze":
		case "null":
			f.null, ok = text, isText
		case "delimiter":
			ok = len(text) == 1
			if ok {
				f.delimiter = text[0]
			}
		case "quote":
			if ok = len(text) == 1; ok {
				f.quote = text[0]
			}
		case "escape":
			if ok = len(text) == 1; ok {
				f.escape, escaped = text[0], true
			}
		case "header":
			f.header, ok = optionBool(n)
		case "force_quote":
			arg := n.GetDefElem().GetArg()
			f.forceAll = arg.GetAStar() != nil
			for _, item := range arg.GetList().GetItems() {
				f.force = append(f.force, item.GetString_().GetSval())
			}
			ok = f.forceAll || len(f.force) > 0
		case "encoding":
			// In others a byte of a character may look like a delimiter.
			ok = slices.Contains([]string{"utf8", "utf-8", "UTF8", "UTF-8", "SQL_ASCII", "sql_ascii"}, text)
		default:
			ok = false
		}
		if !ok {
			return nil, untraceable("option %q of COPY can't be let through so, since its data are covered column by column", name)
		}
	}
	if !escaped {
		f.escape = f.quote
	}
	return f, nil
}

func optionText(n *pg_query.Node) (text string, ok bool) {
	s := n.GetDefElem().GetArg().GetString_()
	return s.GetSval(), s != nil
}

func optionBool(n *pg_query.Node) (on, ok bool) {
	switch v := n.GetDefElem().GetArg().GetNode().(type) {
	case nil:
		return true, true
	case *pg_query.Node_Boolean:
		return v.Boolean.Boolval, true
	case *pg_query.Node_Integer:
		return v.Integer.Ival != 0, true
	case *pg_query.Node_String_:
		switch v.String_.Sval {
		case "true", "on":
			return true, true
		case "false", "off":
			return false, true
		}
	}
	return false, false
}

// copy traces COPY. The data of COPY … TO STDOUT are covered column by column.
func (a *analyzer) copy(c *pg_query.CopyStmt) (output, error) {
	if c.Query != nil {
		out, err := a.query(c.Query, nil, nil)
		if err != nil {
			return output{}, err
		}
		return out, a.copied(c, out)
	}
	rel, columns, err := a.relation(c.Relation)
	if err != nil {
		return output{}, err
	}
	if c.IsFrom && (c.IsProgram || c.Filename != "") {
		return output{}, untraceable("COPY from the server's own files or programs may read masked columns where they are stored")
	}
	if c.IsFrom {
		sc := newScope(nil, nil)
		sc.columns = columns
		return output{open: true}, a.control(c.WhereClause, sc, "COPY … WHERE")
	}
	var out output
	if len(c.Attlist) == 0 {
		for i, col := range columns {
			if i >= len(rel.columns) || !rel.columns[i].generated {
				out.columns = append(out.columns, col)
			}
		}
	}
	for _, n := range c.Attlist {
		name := n.GetString_().GetSval()
		i := slices.IndexFunc(columns, func(col column) bool { return col.name == name })
		if i < 0 {
			return output{}, untraceable("column %q of %s isn't known, so it can't be traced to masked columns", name, rel)
		}
		out.columns = append(out.columns, columns[i])
	}
	a.reads(out.columns)
	return out, a.copied(c, out)
}

// copied checks that the data of COPY … TO can be covered.
func (a *analyzer) copied(c *pg_query.CopyStmt, out output) error {
	i := slices.IndexFunc(out.columns, func(col column) bool { return col.taint.any() })
	if i < 0 {
		return nil
	}
	t := out.columns[i].taint
	if c.IsProgram || c.Filename != "" {
		return untraceable("masked column %s can't be copied to where nothing covers it; use COPY … TO STDOUT", t.sources[0])
	}
	format, err := copyFormatOf(c)
	if err != nil {
		return err
	}
	if format.kind == copyText && format.null != `\N` {
		// A value that reads like that can't be told from NULL.
		for _, col := range out.columns {
			if err := a.predicate(col.taint, col.taint.plain, "COPY … NULL"); err != nil {
				return err
			}
		}
	}
	return nil
}

// oidText is the OID of type text.
const oidText = 25

// copyPlan is how a plan covers the data of COPY … TO STDOUT.
type copyPlan struct {
	format *copyFormat
	fields []Field
	covers []*cover
}

// planCopy is nil where the columns needn't be told apart.
func (r *Rules) planCopy(c *pg_query.CopyStmt, out output) (*copyPlan, error) {
	masked := slices.ContainsFunc(out.columns, func(col column) bool { return col.taint.any() })
	format, err := copyFormatOf(c)
	switch {
	case !masked && (r.detectors == 0 || err == nil && format.kind != copyBinary):
		return nil, nil
	case err != nil:
		return nil, err
	case out.open && masked:
		return nil, untraceable("columns of a COPY can't be counted, and some are masked")
	case out.open:
		return nil, readableCopyError()
	}
	p := &copyPlan{format: format}
	for _, col := range out.columns {
		f := Field{Name: col.name, Type: col.typ}
		switch {
		case format.kind == copyBinary:
			f.Format = 1
			if col.taint.any() && !col.taint.plain {
				f.Type = 0 // NULL fits any type
			}
			if f.Type == 0 && !col.taint.any() && r.detectors != 0 {
				return nil, readableCopyError()
			}
		case f.Type == 0 && !col.taint.any():
			f.Type = oidText
		}
		p.fields = append(p.fields, f)
		p.covers = append(p.covers, coverOf(col.taint))
	}
	return p, nil
}

// CopyRewriter covers the data of one COPY … TO STDOUT. It isn't safe for
// concurrent use.
type CopyRewriter struct {
	rows   *Rewriter
	plan   *copyPlan // nil: pieces are looked at as they come
	head   bool      // the header is over
	ended  bool      // so are all rows
	rest   []byte    // the beginning of a row whose end hasn't come
	out    []byte
	field  []byte   // scratch
	bounds []extent // scratch: the columns of a row
}

// maxCopyRest bounds the beginning of a row that is kept until its end comes.
// PostgreSQL sends a row in one message, and then nothing is kept.
const maxCopyRest = 16 << 20

// CopyRewriter returns what covers the data of COPY … TO STDOUT, which the
// server announced in binary or not. An error is an [*Untraceable].
func (p *Plan) CopyRewriter(binary bool) (*CopyRewriter, error) {
	if p.copy == nil {
		w := &CopyRewriter{rows: &Rewriter{detectors: p.rules.detectors, labels: &p.rules.labels, idle: p.rules.detectors == 0}}
		if binary && !w.Idle() {
			return nil, readableCopyError()
		}
		return w, nil
	}
	if binary != (p.copy.format.kind == copyBinary) {
		return nil, untraceable("the server announces COPY data in another format than was asked for")
	}
	return &CopyRewriter{rows: p.rules.rewriter(p.copy.fields, p.copy.covers), plan: p.copy}, nil
}

// Idle tells that nothing can come out changed, so that the data needn't be
// shown to the rewriter at all.
func (w *CopyRewriter) Idle() bool { return w.plan == nil && w.rows.Idle() }

// Applied counts what was covered so far, by column and rule.
func (w *CopyRewriter) Applied() []event.MaskColumn { return w.rows.Applied() }

// Data covers a piece of the data. It returns piece itself when nothing was
// covered, else a slice that is valid until the next call: whole rows, or
// nothing where piece didn't end any. Any error means that the piece must not
// be shown.
func (w *CopyRewriter) Data(piece []byte) ([]byte, error) {
	if w.plan == nil {
		return w.rows.Line(piece), nil
	}
	data := piece
	if len(w.rest) > 0 {
		w.rest = append(w.rest, piece...)
		data = w.rest
	}
	if cap(w.out) > keepBuffer {
		w.out = nil
	}
	w.out = w.out[:0]
	used := 0
	for used < len(data) {
		n, err := w.row(data[used:])
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		used += n
	}
	switch left := len(data) - used; {
	case left > maxCopyRest:
		return nil, untraceable("a row of COPY data has more than %d bytes", maxCopyRest)
	case left == 0 && cap(w.rest) > keepBuffer:
		w.rest = nil
	default:
		w.rest = append(w.rest[:0], data[used:]...)
	}
	return w.out, nil
}

// row covers the row at the start of data and tells how many bytes it takes, 0
// if it isn't whole.
func (w *CopyRewriter) row(data []byte) (int, error) {
	switch w.plan.format.kind {
	case copyBinary:
		return w.binaryRow(data)
	case copyCSV:
		return w.lineRow(data, w.plan.format.csvEnd(data))
	}
	return w.lineRow(data, lineEnd(data))
}

// wrongColumns says that a row isn't as it was traced.
func (w *CopyRewriter) wrongColumns(got int) error {
	return untraceable("a row of the COPY has %d columns where %d were traced: the schema may have changed just now; try again", got, len(w.plan.fields))
}
