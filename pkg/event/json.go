package event

import (
	"bytes"
	"strconv"
	"time"
	"unicode/utf8"
)

// A planner may run tens of thousands of commands a second, and each is
// encoded twice: for the recording, and for its event. So the two types on
// that way are written without reflection. What they say is what encoding/json
// says of the same value, except that "<", ">" and "&" stay readable and that
// every control character is escaped, those above ASCII too: a terminal that
// shows a message must not be steered by it.

// AppendJSON appends the command as a JSON object.
func (c *Command) AppendJSON(b []byte) []byte {
	b = c.AppendRequestJSON(b)
	return append(c.appendOutcome(append(b[:len(b)-1], ',')), '}')
}

// AppendRequestJSON appends an object that holds all but how the command went:
// what is known before it runs.
func (c *Command) AppendRequestJSON(b []byte) []byte {
	b = appendString(append(b, `{"session":`...), c.Session)
	b = strconv.AppendUint(append(b, `,"seq":`...), c.Seq, 10)
	b = appendString(append(b, `,"text":`...), c.Text)
	b = appendTrue(b, `,"cut":true`, c.Cut)
	if len(c.Parameters) > 0 {
		b = appendStrings(append(b, `,"parameters":`...), c.Parameters)
	}
	b = appendString(append(b, `,"digest":`...), c.Digest)
	b = c.Parsed.appendJSON(append(b, `,"parsed":`...))
	b = appendString(append(b, `,"decision":`...), c.Decision)
	b = appendNonEmpty(b, `,"policy":`, c.Policy)
	b = appendNonEmpty(b, `,"rule":`, c.Rule)
	b = appendNonEmpty(b, `,"message":`, c.Message)
	if len(c.Approvals) > 0 {
		b = appendStrings(append(b, `,"approvals":`...), c.Approvals)
	}
	if len(c.Shadows) > 0 {
		b = appendShadows(append(b, `,"shadows":`...), c.Shadows)
	}
	// Last, where RevisionOf finds it at once.
	b = appendString(append(b, revisionMember[:len(revisionMember)-1]...), c.PolicyRevision)
	return append(b, '}')
}

const revisionMember = `,"policyRevision":"`

// RevisionOf is the policy revision in a payload of session.started or command,
// or in what AppendRequestJSON made, or nil if it says none. It aliases the
// payload, of which little is read: it is for the way of each command.
func RevisionOf(payload []byte) []byte {
	// A quote inside a JSON string is escaped, so the member's name can be
	// nowhere but at its place.
	at := bytes.LastIndex(payload, []byte(revisionMember))
	if at < 0 {
		return nil
	}
	value := payload[at+len(revisionMember):]
	end := bytes.IndexByte(value, '"')
	if end <= 0 || bytes.IndexByte(value[:end], '\\') >= 0 {
		return nil // no revision holds what has to be escaped
	}
	return value[:end]
}

// AppendOutcomeJSON appends an object that holds only the session, the number
// and how the command went: what is known when it is over and was not known
// before.
func (c *Command) AppendOutcomeJSON(b []byte) []byte {
	b = appendString(append(b, `{"session":`...), c.Session)
	b = strconv.AppendUint(append(b, `,"seq":`...), c.Seq, 10)
	return append(c.appendOutcome(append(b, ',')), '}')
}

// JoinJSON appends the object that AppendJSON would have, given what
// AppendRequestJSON and AppendOutcomeJSON made of the same command. It reports
// false, and appends nothing, if they are not of that form.
func JoinJSON(b, request, outcome []byte) ([]byte, bool) {
	// A quote inside a JSON string is escaped, so the member's name can be
	// nowhere but at its place.
	_, tail, ok := bytes.Cut(outcome, []byte(`,"rows":`))
	if !ok || len(request) < 2 || request[len(request)-1] != '}' {
		return b, false
	}
	b = append(b, request[:len(request)-1]...)
	b = append(b, `,"rows":`...)
	return append(b, tail...), true
}

// SetOutcome copies how the command went from o.
func (c *Command) SetOutcome(o *Command) {
	c.Rows, c.Bytes, c.Tag = o.Rows, o.Bytes, o.Tag
	c.SQLState, c.Error = o.SQLState, o.Error
	c.Duration, c.Unfinished, c.Skipped = o.Duration, o.Unfinished, o.Skipped
}

func (c *Command) appendOutcome(b []byte) []byte {
	b = strconv.AppendUint(append(b, `"rows":`...), c.Rows, 10)
	b = strconv.AppendUint(append(b, `,"bytes":`...), c.Bytes, 10)
	b = appendNonEmpty(b, `,"tag":`, c.Tag)
	b = appendNonEmpty(b, `,"sqlstate":`, c.SQLState)
	b = appendNonEmpty(b, `,"error":`, c.Error)
	b = strconv.AppendInt(append(b, `,"durationNs":`...), int64(c.Duration), 10)
	b = appendTrue(b, `,"unfinished":true`, c.Unfinished)
	return appendTrue(b, `,"skipped":true`, c.Skipped)
}

func (p *Parsed) appendJSON(b []byte) []byte {
	b = append(b, '{')
	if len(p.Kinds) > 0 {
		b = append(appendStrings(append(b, `"kinds":`...), p.Kinds), ',')
	}
	b = strconv.AppendBool(append(b, `"readOnly":`...), p.ReadOnly)
	b = appendTrue(b, `,"ddl":true`, p.DDL)
	if len(p.Tables) > 0 {
		b = appendStrings(append(b, `,"tables":`...), p.Tables)
	}
	if len(p.Functions) > 0 {
		b = appendStrings(append(b, `,"functions":`...), p.Functions)
	}
	return append(b, '}')
}

// AppendJSON appends the whole event as one JSON object. Data must be valid
// JSON; it is copied as it is, but for control characters, which are escaped.
func (e *Event) AppendJSON(b []byte) []byte {
	b = appendString(append(b, `{"specversion":`...), e.SpecVersion)
	b = appendString(append(b, `,"id":`...), e.ID)
	b = appendString(append(b, `,"source":`...), e.Source)
	b = appendString(append(b, `,"type":`...), e.Type)
	b = appendNonEmpty(b, `,"subject":`, e.Subject)
	b = append(b, `,"time":"`...)
	b = e.Time.AppendFormat(b, time.RFC3339Nano)
	b = appendString(append(b, `","datacontenttype":`...), e.DataContentType)
	b = appendNonEmpty(b, `,"policyrevision":`, e.PolicyRevision)
	b = appendData(append(b, `,"data":`...), e.Data)
	return append(b, '}')
}

// appendData copies valid JSON and escapes what encoding/json leaves: U+007F to
// U+009F. In valid JSON those stand inside strings only.
func appendData(b, data []byte) []byte {
	const hex = "0123456789abcdef"
	if bytes.IndexByte(data, 0x7f) < 0 && bytes.IndexByte(data, 0xc2) < 0 {
		return append(b, data...) // nearly always
	}
	start := 0
	for i := 0; i < len(data); i++ {
		c, size := data[i], 1
		if c == 0xc2 && i+1 < len(data) && data[i+1] < 0xa0 {
			c, size = data[i+1], 2
		}
		if c != 0x7f && size == 1 {
			continue
		}
		b = append(b, data[start:i]...)
		b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		i += size - 1
		start = i + 1
	}
	return append(b, data[start:]...)
}

func appendNonEmpty(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendString(append(b, name...), value)
}

func appendTrue(b []byte, member string, value bool) []byte {
	if !value {
		return b
	}
	return append(b, member...)
}

func appendStrings(b []byte, list []string) []byte {
	for i, s := range list {
		if i == 0 {
			b = append(b, '[')
		} else {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}

func appendShadows(b []byte, list []Shadow) []byte {
	for i, s := range list {
		if i == 0 {
			b = append(b, '[')
		} else {
			b = append(b, ',')
		}
		b = appendString(append(b, `{"policy":`...), s.Policy)
		b = appendNonEmpty(b, `,"rule":`, s.Rule)
		b = appendString(append(b, `,"action":`...), s.Action)
		b = append(b, '}')
	}
	return append(b, ']')
}

// appendString appends s as a JSON string (RFC 8259, section 7). Bytes that
// are no UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c < 0x7f && c != '"' && c != '\\' {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(append(b, s[start:i]...), `\ufffd`...)
			start = i + size
		case r < 0xa0, r == '\u2028', r == '\u2029':
			b = append(b, s[start:i]...)
			b = append(b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
			start = i + size
		}
		i += size
	}
	return append(append(b, s[start:]...), '"')
}
