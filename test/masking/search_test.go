package masking

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fragment is how many characters of a secret in a row are taken for a leak.
const fragment = 5

// search finds secrets in what a client received, however they are written.
type search struct {
	needles map[int]map[string]string // by length: needle to what it is of
}

func newSearch(all ...*secrets) *search {
	s := &search{needles: map[int]map[string]string{}}
	for _, of := range all {
		for name, value := range of.values {
			s.addText(name, value)
			s.addBinary(name, of.kinds[name], value)
		}
	}
	return s
}

func (s *search) add(needle []byte, what string) {
	n := len(needle)
	if s.needles[n] == nil {
		s.needles[n] = map[string]string{}
	}
	s.needles[n][string(needle)] = what
}

// addText adds each fragment: as it is, its hex digits, reversed, and as
// character codes. Case is folded.
func (s *search) addText(name, value string) {
	folded := strings.ToLower(value)
	for i := 0; i+fragment <= len(folded); i++ {
		part := []byte(folded[i : i+fragment])
		s.add(part, fmt.Sprintf("%q of %s", part, name))
		s.add([]byte(hex.EncodeToString([]byte(value[i:i+fragment]))), "hex of "+name)
		var codes, binary []byte
		for _, c := range []byte(value[i : i+fragment]) {
			codes = strconv.AppendInt(codes, int64(c), 10)
			binary = append(binary, 0, 0, 0, c)
		}
		s.add(codes, "character codes of "+name)
		s.add(binary, "binary character codes of "+name)
		slices.Reverse(part)
		s.add(part, "reversed "+name)
	}
}

// addBinary adds what PostgreSQL's binary format makes of a value.
func (s *search) addBinary(name, kind, value string) {
	what := "binary " + name
	both := func(b []byte) {
		s.add(b, what)
		s.add([]byte(hex.EncodeToString(b)), "hex of "+what)
		b = slices.Clone(b)
		slices.Reverse(b)
		s.add(b, what+" backwards")
	}
	switch kind {
	case "int":
		v, _ := strconv.ParseInt(value, 10, 64)
		both(binary.BigEndian.AppendUint32(nil, uint32(v)))
		both(binary.BigEndian.AppendUint64(nil, math.Float64bits(float64(v))))
		s.add([]byte(strconv.FormatInt(v, 8)), "octal of "+name)
	case "bigint":
		v, _ := strconv.ParseInt(value, 10, 64)
		both(binary.BigEndian.AppendUint64(nil, uint64(v)))
		both(binary.BigEndian.AppendUint64(nil, math.Float64bits(float64(v))))
	case "numeric":
		// Digits to the base 10000, counted from the point.
		whole, fraction, _ := strings.Cut(value, ".")
		digits := strings.Repeat("0", (4-len(whole)%4)%4) + whole + fraction
		var groups []byte
		for ; digits != ""; digits = digits[4:] {
			v, _ := strconv.Atoi(digits[:4])
			groups = binary.BigEndian.AppendUint16(groups, uint16(v))
		}
		both(groups[2:6])
		f, _ := strconv.ParseFloat(value, 64)
		both(binary.BigEndian.AppendUint64(nil, math.Float64bits(f)))
	case "date":
		day, _ := time.Parse(time.DateOnly, value)
		days := int32(day.Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).Hours() / 24)
		both(binary.BigEndian.AppendUint32(nil, uint32(days)))
		both(binary.BigEndian.AppendUint64(nil, uint64(int64(days)*86400e6)))
		s.add([]byte(strconv.Itoa(int(day.Unix()))), "seconds of "+name)
	case "uuid":
		raw, _ := hex.DecodeString(strings.ReplaceAll(value, "-", ""))
		for i := 0; i+fragment <= len(raw); i++ {
			both(raw[i : i+fragment])
		}
	}
}

// find tells what of the secrets is in an answer.
func (s *search) find(received []byte, answer []message) []string {
	found := map[string]bool{}
	for _, text := range views(received, answer) {
		s.look(text, found)
		if folded := bytes.ToLower(text); !bytes.Equal(folded, text) {
			s.look(folded, found)
		}
	}
	list := make([]string, 0, len(found))
	for what := range found {
		list = append(list, what)
	}
	slices.Sort(list)
	return list
}

func (s *search) look(text []byte, found map[string]bool) {
	for n, needles := range s.needles {
		for i := 0; i+n <= len(text); i++ {
			if what, ok := needles[string(text[i:i+n])]; ok {
				found[what] = true
			}
		}
	}
}

// views are what a client may make of an answer: its bytes, each row's values
// in a line, each column's, and all of that decoded.
func views(received []byte, answer []message) [][]byte {
	list := [][]byte{received}
	columns := map[int][]byte{}
	for _, m := range answer {
		var row []byte
		for i, v := range values(m) {
			row = append(row, v...)
			columns[i] = append(columns[i], v...)
		}
		if len(row) > 0 {
			list = append(list, row)
		}
	}
	for _, c := range columns {
		list = append(list, c)
	}
	for _, text := range slices.Clone(list) {
		list = append(list, decoded(text)...)
	}
	return list
}

var (
	base64Run = regexp.MustCompile(`[A-Za-z0-9+/_-]{7,}(?:\n[A-Za-z0-9+/_-]+)*`)
	hexRun    = regexp.MustCompile(`(?:[0-9A-Fa-f]{2}[ :,]?){5,}`)
	escapes   = regexp.MustCompile(`\\u00[0-9a-fA-F]{2}|&#x?[0-9a-fA-F]+;|%[0-9a-fA-F]{2}|\\[0-3][0-7]{2}`)
	separator = regexp.MustCompile(`[\s,;|"'{}()\[\]:]+`)
)

func decoded(text []byte) [][]byte {
	var list [][]byte
	for _, run := range base64Run.FindAll(text, -1) {
		run = bytes.ReplaceAll(run, []byte("\n"), nil)
		for skip := range min(4, len(run)) {
			part := run[skip:]
			part = part[:len(part)/4*4]
			raw := make([]byte, base64.StdEncoding.DecodedLen(len(part)))
			if n, err := base64.StdEncoding.Decode(raw, part); err == nil {
				list = append(list, raw[:n])
			}
		}
	}
	for _, run := range hexRun.FindAll(text, -1) {
		run = separator.ReplaceAll(run, nil)
		for skip := range 2 {
			part := run[skip:]
			raw := make([]byte, len(part)/2)
			if n, err := hex.Decode(raw, part[:len(part)/2*2]); err == nil {
				list = append(list, raw[:n])
			}
		}
	}
	if escapes.Match(text) {
		list = append(list, escapes.ReplaceAllFunc(text, unescape))
	}
	if separator.Match(text) {
		list = append(list, separator.ReplaceAll(text, nil))
	}
	return list
}

func unescape(e []byte) []byte {
	digits, base := strings.TrimSuffix(string(e), ";"), 16
	switch {
	case strings.HasPrefix(digits, `\u00`):
		digits = digits[4:]
	case strings.HasPrefix(digits, "&#x"):
		digits = digits[3:]
	case strings.HasPrefix(digits, "&#"):
		digits, base = digits[2:], 10
	case strings.HasPrefix(digits, "%"):
		digits = digits[1:]
	default:
		digits, base = digits[1:], 8
	}
	v, err := strconv.ParseUint(digits, base, 8)
	if err != nil {
		return e
	}
	return []byte{byte(v)}
}

func TestSearchFindsSecretsHoweverWritten(t *testing.T) {
	s := &secrets{
		values: map[string]string{
			"ssn": "Zq7Kx9Wm2PfRtv", "pin": "1987654329", "account": "387415986422357111", "salary": "387415986.2743",
			"born": "1839-05-17", "token": "3f2b8c1d-9e4a-4b6f-8d21-77aa90c4e5f1",
		},
		kinds: map[string]string{"ssn": "text", "pin": "int", "account": "bigint", "salary": "numeric", "born": "date", "token": "uuid"},
	}
	search := newSearch(s)
	row := func(values ...string) message {
		body := binary.BigEndian.AppendUint16(nil, uint16(len(values)))
		for _, v := range values {
			body = binary.BigEndian.AppendUint32(body, uint32(len(v)))
			body = append(body, v...)
		}
		return message{'D', body}
	}
	for name, answer := range map[string][]message{
		"as it is":             {row("Zq7Kx9Wm2PfRtv")},
		"a piece":              {row("..9Wm2P..")},
		"upper case":           {row("ZQ7KX9WM2PFRTV")},
		"reversed":             {row("vtRfP2mW9xK7qZ")},
		"hex":                  {row(hex.EncodeToString([]byte("Zq7Kx9Wm")))},
		"hex, upper case":      {row(strings.ToUpper(hex.EncodeToString([]byte("Zq7Kx9Wm"))))},
		"base64":               {row(base64.StdEncoding.EncodeToString([]byte("xZq7Kx9Wm2PfRtv")))},
		"base64 of a row":      {row(base64.StdEncoding.EncodeToString([]byte("(1,Zq7Kx9Wm2PfRtv)")))},
		"escapes of XML":       {row("&#90;&#x71;&#55;&#75;&#x78;&#57;")},
		"escapes of JSON":      {row(`\u005a\u0071\u0037\u004b\u0078\u0039`)},
		"one character a row":  {row("7"), row("K"), row("x"), row("9"), row("W")},
		"a code a row":         {row("55"), row("75"), row("120"), row("57"), row("87")},
		"a binary code a row":  {row("\x00\x00\x007"), row("\x00\x00\x00K"), row("\x00\x00\x00x"), row("\x00\x00\x009"), row("\x00\x00\x00W")},
		"one column each":      {row("7", "K", "x", "9", "W")},
		"in an array":          {row("{7,K,x,9,W}")},
		"an integer":           {row("1987654329")},
		"a binary integer":     {row(string(binary.BigEndian.AppendUint32(nil, 1987654329)))},
		"hex of an integer":    {row("767932b9")},
		"a binary bigint":      {row(string(binary.BigEndian.AppendUint64(nil, 387415986422357111)))},
		"a binary numeric":     {row("\x00\x04\x00\x02\x00\x00\x00\x04\x00\x03\x22\x25\x17\x62\x0a\xb7")},
		"a piece of a date":    {row("9-05-17")},
		"a binary date":        {row("\xff\xff\x1a\xd4")},
		"a binary uuid":        {row("\x8c\x1d\x9e\x4a\x4b")},
		"a uuid without lines": {row("8c1d9e4a4b6f")},
	} {
		t.Run(name, func(t *testing.T) {
			var received []byte
			for _, m := range answer {
				received = append(received, m.body...)
			}
			if len(search.find(received, answer)) == 0 {
				t.Errorf("nothing found in %q", received)
			}
		})
	}
	for name, answer := range map[string][]message{
		"covered":    {row("[redacted]", "**********4111", "2026-11-25 17:25:59.481516+00")},
		"four of it": {row("Zq7K")},
	} {
		t.Run(name, func(t *testing.T) {
			var received []byte
			for _, m := range answer {
				received = append(received, m.body...)
			}
			if found := search.find(received, answer); len(found) > 0 {
				t.Errorf("%v found in %q", found, received)
			}
		})
	}
}
