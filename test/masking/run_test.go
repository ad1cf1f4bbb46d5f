package masking

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
)

// mode is how statements are sent.
type mode int

const (
	simple         mode = iota
	extended            // results in text
	extendedBinary      // results in binary, two rows at a time
	modes
)

func (m mode) String() string { return [...]string{"simple", "extended", "binary"}[m] }

// transcript is what came of an attempt.
type transcript struct {
	received []byte    // all of it, as it came
	answer   []message // to all steps
	outcome  string    // covered, refused, or "error" with the first SQLSTATE
	said     string    // the first error, to be shown
}

// run sends the steps of an attempt, one after the other.
func (w *wire) run(a *attempt, m mode) (transcript, error) {
	t := transcript{outcome: "covered"}
	for _, s := range a.steps {
		answer, err := w.send(s.data, requests(s, a.params, m)...)
		t.answer = append(t.answer, answer...)
		if err != nil {
			return t, fmt.Errorf("%s: %w", s.sql, err)
		}
	}
	t.received = w.conn.received.Bytes()
	for _, answered := range t.answer {
		if answered.kind != 'E' {
			continue
		}
		code := field(answered, 'C')
		t.outcome, t.said = "error "+code, fmt.Sprintf("%s: %s (%s)", code, field(answered, 'M'), field(answered, 'D'))
		// The server's own refusals have the code, too, but nothing of the rest.
		if code == "42501" && field(answered, 'R') == "" {
			t.outcome = "refused"
		}
		break
	}
	return t, nil
}

var query = regexp.MustCompile(`(?i)^\s*\(?(select|table|values)\b`)

func requests(s step, params []string, m mode) []pgproto3.FrontendMessage {
	if m == simple {
		return []pgproto3.FrontendMessage{&pgproto3.Query{String: s.sql}}
	}
	bind := &pgproto3.Bind{ResultFormatCodes: []int16{0}}
	for _, p := range params {
		bind.Parameters = append(bind.Parameters, []byte(p))
	}
	list := []pgproto3.FrontendMessage{&pgproto3.Parse{Query: s.sql}, &pgproto3.Describe{ObjectType: 'S'}}
	if m == extendedBinary {
		bind.ResultFormatCodes = []int16{1}
		list = append(list, bind, &pgproto3.Describe{ObjectType: 'P'})
		if query.MatchString(s.sql) && !strings.Contains(s.sql, " INTO ") {
			// A portal of rows can be asked again and again, others once.
			list = append(list, &pgproto3.Execute{MaxRows: 2}, &pgproto3.Execute{MaxRows: 2})
		}
		return append(list, &pgproto3.Execute{}, &pgproto3.Sync{})
	}
	return append(list, bind, &pgproto3.Execute{}, &pgproto3.Sync{})
}

// rows are what a transcript shows, a line each.
func (t *transcript) rows() []string {
	var rows []string
	for _, m := range t.answer {
		switch m.kind {
		case 'D':
			columns := values(m)
			texts := make([]string, len(columns))
			for i, v := range columns {
				texts[i] = string(v)
				if v == nil {
					texts[i] = "NULL"
				}
			}
			rows = append(rows, strings.Join(texts, "|"))
		case 'd':
			rows = append(rows, string(m.body))
		}
	}
	return rows
}

// difference is the first one between two transcripts, but for what differs
// between two runs of anything.
func (t *transcript) difference(other *transcript) string {
	a, b := comparable(t.answer), comparable(other.answer)
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a) || i >= len(b):
			return fmt.Sprintf("%d messages and %d", len(a), len(b))
		case a[i] != b[i]:
			return fmt.Sprintf("%.300q\nand %.300q", a[i], b[i])
		}
	}
	return ""
}

var (
	buffers  = regexp.MustCompile(`(Buffers|hit|read|dirtied|written)[ :=a-z0-9]*`)
	memory   = regexp.MustCompile(`Memory: \d+kB`)
	tempName = regexp.MustCompile(`pg_temp_\d+`)
	moreOIDs = regexp.MustCompile(`\b1[67]\d{3}\b`)
)

func comparable(answer []message) []string {
	var list []string
	for _, m := range answer {
		body := m.body
		switch m.kind {
		case 'S', 'Z':
			continue
		case 't':
			continue // types of parameters, which may be the database's own
		case 'T':
			body = withoutOIDs(body)
		case 'E', 'N':
			var fields []byte
			for _, f := range []byte("SCMDH") {
				fields = append(fields, field(m, f)...)
				fields = append(fields, 0)
			}
			body = fields
		}
		for _, e := range []*regexp.Regexp{buffers, memory, tempName, moreOIDs} {
			body = e.ReplaceAll(body, nil)
		}
		list = append(list, string(m.kind)+" "+string(body))
	}
	return list
}

// withoutOIDs blanks the OIDs of a RowDescription that are the database's own.
func withoutOIDs(body []byte) []byte {
	body = slices.Clone(body)
	const firstOwn = 16384 // FirstNormalObjectId
	for i := 2; i < len(body); {
		end := bytes.IndexByte(body[i:], 0)
		if end < 0 || i+end+19 > len(body) {
			break
		}
		i += end + 1
		for _, at := range []int{i, i + 6} {
			if binary.BigEndian.Uint32(body[at:]) >= firstOwn {
				copy(body[at:], "\xff\xff\xff\xff")
			}
		}
		i += 18
	}
	return body
}

// shown is an answer, for a person.
func shown(t *transcript) string {
	var b strings.Builder
	for _, row := range t.rows() {
		if strings.ContainsFunc(row, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' }) {
			row = "\\x" + hex.EncodeToString([]byte(row))
		}
		fmt.Fprintf(&b, "  %.200s\n", row)
		if b.Len() > 1500 {
			b.WriteString("  …\n")
			break
		}
	}
	if t.said != "" {
		fmt.Fprintf(&b, "  %s\n", t.said)
	}
	return b.String()
}
