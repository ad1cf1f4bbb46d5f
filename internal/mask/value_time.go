package mask

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"time"
)

// Units of timestamps and times of day, which count microseconds: timestamps
// since 2000-01-01 00:00, of UTC or of a clock on a wall.
const (
	second = 1_000_000
	day    = 86_400 * second
)

// Bounds of date and timestamp (datatype/timestamp.h), in days and microseconds.
const (
	minDate, endDate           = -2451545, 2145031949
	minTimestamp, endTimestamp = -211813488000000000, 9223371331200000000
	epoch                      = 946684800 // of PostgreSQL, in Unix seconds
)

// calendar splits a timestamp into days and what is left of the last one.
func calendar(n int64) (days, rest int64) {
	days, rest = n/day, n%day
	if rest < 0 {
		days, rest = days-1, rest+day
	}
	return days, rest
}

// timeCover covers dates and times by a function. Dates are given to it as
// days. What is infinite or no ISO date becomes NULL.
func timeCover(f family, bin bool, change func(f family, v int64) int64) coverFunc {
	return func(out, v []byte) ([]byte, bool) {
		n, ok := readTime(f, v, bin)
		if !ok {
			return out, false
		}
		if n = change(f, n); !inRange(f, n) {
			return out, false
		}
		return appendTime(out, f, n, bin), true
	}
}

func inRange(f family, n int64) bool {
	switch f {
	case date:
		return n >= minDate && n < endDate
	case timeOfDay:
		return n >= 0 && n <= day
	}
	return n >= minTimestamp && n < endTimestamp
}

func readTime(f family, v []byte, bin bool) (int64, bool) {
	if !bin {
		n, ok := parseTime(f, v)
		return n, ok && inRange(f, n)
	}
	var n int64
	switch {
	case f == date && len(v) == 4:
		n = int64(int32(binary.BigEndian.Uint32(v)))
	case f != date && len(v) == 8:
		n = int64(binary.BigEndian.Uint64(v))
	default:
		return 0, false
	}
	return n, inRange(f, n)
}

func appendTime(out []byte, f family, n int64, bin bool) []byte {
	switch {
	case bin && f == date:
		return binary.BigEndian.AppendUint32(out, uint32(n))
	case bin:
		return binary.BigEndian.AppendUint64(out, uint64(n))
	case f == timeOfDay:
		return appendClock(out, n)
	}
	days, rest := n, int64(0)
	if f != date {
		days, rest = calendar(n)
	}
	year, month, d := civil(days)
	bc := year <= 0
	if bc {
		year = 1 - year
	}
	out = appendPadded(out, int64(year), 4)
	out = appendPadded(append(out, '-'), int64(month), 2)
	out = appendPadded(append(out, '-'), int64(d), 2)
	if f != date {
		out = appendClock(append(out, ' '), rest)
	}
	if f == timestampTZ {
		out = append(out, "+00"...)
	}
	if bc {
		out = append(out, " BC"...)
	}
	return out
}

func civil(days int64) (int, time.Month, int) {
	return time.Unix(epoch+days*86_400, 0).UTC().Date()
}

func daysOf(year int, month time.Month, d int) int64 {
	return (time.Date(year, month, d, 0, 0, 0, 0, time.UTC).Unix() - epoch) / 86_400
}

func appendClock(out []byte, n int64) []byte {
	out = appendPadded(out, n/(3600*second), 2)
	out = appendPadded(append(out, ':'), n/(60*second)%60, 2)
	out = appendPadded(append(out, ':'), n/second%60, 2)
	if fraction := n % second; fraction != 0 {
		out = append(out, '.')
		out = bytes.TrimRight(appendPadded(out, fraction, 6), "0")
	}
	return out
}

func appendPadded(out []byte, n int64, width int) []byte {
	var room [20]byte
	text := strconv.AppendInt(room[:0], n, 10)
	for range width - len(text) {
		out = append(out, '0')
	}
	return append(out, text...)
}

// parseTime reads what DateStyle ISO writes. Timestamps with a time zone become
// UTC.
func parseTime(f family, v []byte) (int64, bool) {
	v, bc := bytes.CutSuffix(v, []byte(" BC"))
	s := scanner{rest: v}
	var days, clock int64
	if f != timeOfDay {
		year, _ := s.number(4, 7)
		s.skip('-')
		month, _ := s.number(2, 2)
		s.skip('-')
		d, _ := s.number(2, 2)
		if bc {
			year = 1 - year
		}
		days = daysOf(int(year), time.Month(month), int(d))
		if y, m, dd := civil(days); s.failed || int64(y) != year || int64(m) != month || int64(dd) != d {
			return 0, false
		}
		if f == date {
			return days, len(s.rest) == 0
		}
		if len(s.rest) > 0 && s.rest[0] == 'T' {
			s.skip('T')
		} else {
			s.skip(' ')
		}
	}
	clock = s.clock()
	if f == timestampTZ {
		clock -= s.zone()
	}
	return days*day + clock, !s.failed && len(s.rest) == 0 && (f != timeOfDay || !bc)
}

// scanner reads fixed formats. Once it has failed it stays so.
type scanner struct {
	rest   []byte
	failed bool
}

func (s *scanner) skip(c byte) {
	if len(s.rest) == 0 || s.rest[0] != c {
		s.failed = true
		return
	}
	s.rest = s.rest[1:]
}

// number reads from least to most digits.
func (s *scanner) number(least, most int) (n int64, digits int) {
	for digits < most && digits < len(s.rest) && digit(s.rest[digits]) {
		n = 10*n + int64(s.rest[digits]-'0')
		digits++
	}
	s.rest = s.rest[digits:]
	s.failed = s.failed || digits < least
	return n, digits
}

// clock reads 10:22, 10:22:31 or 10:22:31.123456.
func (s *scanner) clock() int64 {
	hours, _ := s.number(2, 2)
	s.skip(':')
	minutes, _ := s.number(2, 2)
	var seconds, fraction int64
	if len(s.rest) > 0 && s.rest[0] == ':' {
		s.skip(':')
		seconds, _ = s.number(2, 2)
	}
	if len(s.rest) > 0 && s.rest[0] == '.' {
		s.skip('.')
		var digits int
		fraction, digits = s.number(1, 6)
		for range 6 - digits {
			fraction *= 10
		}
	}
	n := ((hours*60+minutes)*60+seconds)*second + fraction
	s.failed = s.failed || minutes > 59 || seconds > 60 || n > day
	return n
}

// zone reads +02, -03:30 or +01:23:45, in microseconds.
func (s *scanner) zone() int64 {
	if len(s.rest) == 0 || s.rest[0] != '+' && s.rest[0] != '-' {
		s.failed = true
		return 0
	}
	sign := int64(1)
	if s.rest[0] == '-' {
		sign = -1
	}
	s.rest = s.rest[1:]
	seconds, _ := s.number(2, 2)
	seconds *= 3600
	for _, unit := range []int64{60, 1} {
		if len(s.rest) > 0 && s.rest[0] == ':' {
			s.skip(':')
			n, _ := s.number(2, 2)
			seconds += n * unit
		}
	}
	return sign * seconds * second
}

// truncateCover cuts to the begin of the year, or of the month; of timestamps
// with a time zone to that of UTC.
func truncateCover(month bool, f family, bin bool) coverFunc {
	switch f {
	case date, timestamp, timestampTZ:
	default:
		return nil
	}
	return timeCover(f, bin, func(f family, v int64) int64 {
		days := v
		if f != date {
			days, _ = calendar(v)
		}
		year, m, _ := civil(days)
		if !month {
			m = time.January
		}
		days = daysOf(year, m, 1)
		if f == date {
			return days
		}
		return days * day
	})
}

// shiftDays is how far dates are moved at most, to both sides.
const shiftDays = 365

// moveTime moves a date by a day at least and shiftDays at most, and swaps the
// time of day for another of the same precision: midnight, whole seconds, or
// microseconds.
func (p *permutation) moveTime(f family, v int64) int64 {
	shift := func(days int64) int64 {
		n := int64(p.pick(tagDay, uint64(v), 2*shiftDays))
		if n -= shiftDays; n >= 0 {
			n++
		}
		return days + n
	}
	if f == date {
		return shift(v)
	}
	days, rest := calendar(v)
	if f == timeOfDay {
		days, rest = 0, v
	}
	switch {
	case rest%second != 0:
		rest = int64(p.pick(tagClock, uint64(v), day))
	case rest != 0:
		rest = int64(p.pick(tagClock, uint64(v), day/second)) * second
	}
	if f == timeOfDay {
		return rest
	}
	return shift(days)*day + rest
}
