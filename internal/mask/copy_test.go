package mask

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/pkg/policy"
)

// copyOut runs COPY … TO STDOUT on the server and covers its data in pieces of
// the given size, 0: as they come.
func (d *database) copyOut(t *testing.T, sql string, piece int) (clear, covered []byte) {
	t.Helper()
	plan, err := d.plan(sql)
	if err != nil {
		t.Errorf("%s: %v", sql, err)
		return nil, nil
	}
	var data bytes.Buffer
	if _, err := d.conn.PgConn().CopyTo(context.Background(), &data, sql); err != nil {
		t.Fatalf("%s: the server says: %v", sql, err)
	}
	clear = data.Bytes()
	w, err := plan.CopyRewriter(plan.copy != nil && plan.copy.format.kind == copyBinary)
	if err != nil {
		t.Errorf("%s: %v", sql, err)
		return nil, nil
	}
	if piece == 0 {
		piece = max(len(clear), 1)
	}
	for at := 0; at < len(clear); at += piece {
		out, err := w.Data(bytes.Clone(clear[at:min(at+piece, len(clear))]))
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		covered = append(covered, out...)
	}
	return clear, covered
}

func TestCopyOfMaskedColumns(t *testing.T) {
	d := newDatabase(t)
	ctx := context.Background()
	for _, sql := range []string{
		`CREATE TABLE odd (id int, ssn text, card text, n bigint, tags text[], twice text GENERATED ALWAYS AS (ssn || ssn) STORED, note text)`,
		"INSERT INTO odd (id, ssn, card, n, tags, note) VALUES (1, E'QZX\\tWV\\nKJ\\\\', '4929,\"1111\"', 49291, '{QZX,\"a,b\"}', 'tab\there'), (2, NULL, 'ü;''\"', NULL, NULL, E'two\\nlines, \"quoted\"'), (3, '', '', 0, '{}', '\\.')",
	} {
		if _, err := d.conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if d.cat, err = LoadCatalog(ctx, d.conn); err != nil {
		t.Fatal(err)
	}
	masks := []policy.Mask{{Metadata: policy.Metadata{Name: "odd"}, Spec: policy.MaskSpec{
		Targets: []string{"db"},
		Columns: []policy.ColumnMask{
			{Match: "public.odd.ssn", With: policy.Transform{Redact: true}}, {Match: "public.odd.twice", With: policy.Transform{Redact: true}},
			{Match: "public.odd.card", With: policy.Transform{KeepLast: 2}}, {Match: "public.odd.n", With: policy.Transform{Redact: true}}, {Match: "public.odd.tags", With: policy.Transform{Redact: true}},
			{Match: "public.customers.*", With: policy.Transform{Redact: true}},
		},
	}}}
	if d.rules, err = Compile(masks, "db", policy.Principal{}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ sql, want string }{
		{"COPY odd (id, ssn, card) TO STDOUT", "1\t[redacted]\t*********1\"\n2\t\\N\t**'\"\n3\t[redacted]\t\n"},
		{"COPY odd (note, n) TO STDOUT", "tab\\there\t\\N\ntwo\\nlines, \"quoted\"\t\\N\n\\\\.\t\\N\n"},
		{"COPY odd (id, card) TO STDOUT (DELIMITER '*')", "1*\\*\\*\\*\\*\\*\\*\\*\\*\\*1\"\n2*\\*\\*'\"\n3*\n"},
		{"COPY odd (id, card, note) TO STDOUT CSV HEADER", "id,card,note\n1,\"*********1\"\"\",tab\there\n2,\"**'\"\"\",\"two\nlines, \"\"quoted\"\"\"\n3,\"\",\\.\n"},
		{"COPY odd (id, card, note) TO STDOUT (FORMAT csv, QUOTE '''', ESCAPE '!', DELIMITER ';', NULL 'nil', FORCE_QUOTE (card))", "1;'*********1\"';tab\there\n2;'**!'\"';'two\nlines, \"quoted\"'\n3;'';\\.\n"},
		{"COPY odd (ssn, n) TO STDOUT WITH (FORMAT csv, FORCE_QUOTE *, NULL '[redacted]')", "\"[redacted]\",[redacted]\n[redacted],[redacted]\n\"[redacted]\",[redacted]\n"},
		{"COPY (SELECT lower(ssn) AS u, ssn, id FROM odd WHERE id < 3 ORDER BY id) TO STDOUT", "[redacted]\t[redacted]\t1\n[redacted]\t\\N\t2\n"},
		{"COPY (SELECT id FROM odd) TO STDOUT", "1\n2\n3\n"},
		{"COPY (UPDATE odd SET note = note WHERE id = 1 RETURNING ssn, note) TO STDOUT", "[redacted]\ttab\\there\n"},
	} {
		for _, piece := range []int{0, 1, 7} {
			clear, got := d.copyOut(t, tt.sql, piece)
			if string(got) != tt.want {
				t.Errorf("%s in pieces of %d\n got %q\nwant %q\nclear %q", tt.sql, piece, got, tt.want, clear)
			}
		}
	}
	for _, sql := range []string{
		"COPY odd TO STDOUT", "COPY odd TO STDOUT CSV", "COPY odd TO STDOUT (FORMAT binary)", "COPY customers TO STDOUT (FORMAT binary)",
		"COPY (SELECT * FROM odd) TO STDOUT (FORMAT binary)", "COPY (SELECT o, to_jsonb(o), array_agg(ssn) FROM odd o GROUP BY o.*) TO STDOUT (FORMAT csv)",
		"COPY (SELECT convert_to(ssn, 'UTF8'), card::text, left(card, 4) FROM odd) TO STDOUT (FORMAT binary)",
	} {
		if _, err := d.plan(sql); err != nil && strings.Contains(sql, "GROUP BY") {
			continue
		}
		for _, piece := range []int{0, 1, 5} {
			_, got := d.copyOut(t, sql, piece)
			if s := leaks(got); s != "" {
				t.Errorf("%s: %q comes through: %q", sql, s, got)
			}
		}
	}
	// What was covered in binary is COPY data still.
	_, got := d.copyOut(t, "COPY odd (id, ssn, card, n) TO STDOUT (FORMAT binary)", 3)
	if _, err := d.conn.Exec(ctx, "CREATE TEMP TABLE back (id int, ssn text, card text, n bigint)"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.conn.PgConn().CopyFrom(ctx, bytes.NewReader(got), "COPY back FROM STDIN (FORMAT binary)"); err != nil {
		t.Fatal(err)
	}
	var text string
	if err := d.conn.QueryRow(ctx, "SELECT string_agg(back::text, ' ' ORDER BY id) FROM back").Scan(&text); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "[redacted]") || !strings.Contains(text, "*********1") || leaks([]byte(text)) != "" {
		t.Errorf("back in the server: %s", text)
	}
}

// Data that don't look as they were traced are not shown.
func TestCopyDataAsTraced(t *testing.T) {
	rules, cat, parser := ssnRules(t), handMade(), pgsql.NewParser(pgsql.Options{})
	writer := func(sql string, binary bool) (*CopyRewriter, error) {
		t.Helper()
		q, err := parser.Parse(sql)
		if err != nil {
			t.Fatal(err)
		}
		p, err := rules.Plan(q.Statements[0], cat, []string{"public"})
		if err != nil {
			t.Fatal(err)
		}
		return p.CopyRewriter(binary)
	}
	var u *Untraceable
	if _, err := writer("COPY customers TO STDOUT", true); !errors.As(err, &u) {
		t.Errorf("binary data where text was asked for: %v", err)
	}
	for _, data := range []string{"1\tAda\t4929\n", "1\tAda\t4929\tQZX\tlate\n", "\n"} {
		w, err := writer("COPY customers TO STDOUT", false)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := w.Data([]byte(data)); !errors.As(err, &u) {
			t.Errorf("%q: %q, %v", data, out, err)
		}
	}
	head := copySignature + strings.Repeat("\x00", 8)
	for name, data := range map[string]string{
		"no signature": "1\tAda\t4929\tQZX\n", "flags": copySignature + "\x00\x01\x00\x00\x00\x00\x00\x00",
		"columns": head + "\x00\x01\x00\x00\x00\x01x", "a length": head + "\x00\x04\xff\xff\xff\xfe", "behind the trailer": head + "\xff\xff\x00\x04",
	} {
		w, err := writer("COPY customers TO STDOUT (FORMAT binary)", true)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := w.Data([]byte(data)); !errors.As(err, &u) {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	w, err := writer("COPY customers TO STDOUT", false)
	if err != nil {
		t.Fatal(err)
	}
	for range 17 {
		if out, err := w.Data(make([]byte, 1<<20)); len(out) > 0 {
			t.Fatal("the beginning of a row is shown")
		} else if err != nil {
			return
		}
	}
	t.Error("a row without end is kept")
}

// FuzzCopy: no panic, and nothing of a masked column comes through however the
// data are cut.
func FuzzCopy(f *testing.F) {
	rules, cat, parser := ssnRules(f), handMade(), pgsql.NewParser(pgsql.Options{})
	formats := []string{"", "(FORMAT csv)", "(FORMAT csv, HEADER, QUOTE '''', ESCAPE '!', DELIMITER ';')", "(FORMAT binary)"}
	row := binary.BigEndian.AppendUint16([]byte(copySignature+strings.Repeat("\x00", 8)), 4)
	for _, v := range []string{"1", "Ada", "4929", "QZXWVKJ"} {
		row = append(binary.BigEndian.AppendUint32(row, uint32(len(v))), v...)
	}
	f.Add(uint8(0), uint8(3), []byte("1\tAda\\t\t4929\tQZXWVKJ\n2\t\\N\t\\\\\t\\N\n"))
	f.Add(uint8(1), uint8(9), []byte("1,\"A\"\"d\na\",4929,QZXWVKJ\n2,,\"\",\n"))
	f.Add(uint8(2), uint8(1), []byte("id;name;card;ssn\n1;'A!'d;a';4929;QZXWVKJ\n"))
	f.Add(uint8(3), uint8(2), append(row, 0xff, 0xff))
	f.Fuzz(func(t *testing.T, format, piece uint8, data []byte) {
		q, err := parser.Parse("COPY customers TO STDOUT " + formats[int(format)%len(formats)])
		if err != nil {
			t.Fatal(err)
		}
		p, err := rules.Plan(q.Statements[0], cat, []string{"public"})
		if err != nil {
			t.Fatal(err)
		}
		var outs [2][]byte
		var errs [2]error
		for i, size := range []int{len(data) + 1, int(piece) + 1} {
			w, err := p.CopyRewriter(int(format)%len(formats) == 3)
			if err != nil {
				t.Fatal(err)
			}
			for at := 0; at < len(data) && errs[i] == nil; at += size {
				var out []byte
				out, errs[i] = w.Data(bytes.Clone(data[at:min(at+size, len(data))]))
				outs[i] = append(outs[i], out...)
			}
		}
		if (errs[0] == nil) != (errs[1] == nil) || errs[0] == nil && !bytes.Equal(outs[0], outs[1]) {
			t.Errorf("%q: as a whole %q, %v; in pieces %q, %v", data, outs[0], errs[0], outs[1], errs[1])
		}
		if len(outs[0]) > 64*len(data)+64 {
			t.Errorf("%d bytes of %d", len(outs[0]), len(data))
		}
	})
}
