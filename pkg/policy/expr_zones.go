package policy

import (
	"fmt"
	"regexp"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// The language's own now.getHours('Europe/Berlin') reads the time zone's file
// at each evaluation. Here zones are literals, read when the document is
// loaded: a misspelt one is found then, and evaluation does no I/O.

// zoned is one accessor of a timestamp that takes a time zone.
type zoned struct {
	name, overload string
	get            func(time.Time) int
}

func zonedAccessors() []zoned {
	return []zoned{
		{overloads.TimeGetFullYear, overloads.TimestampToYearWithTz, time.Time.Year},
		{overloads.TimeGetMonth, overloads.TimestampToMonthWithTz, func(t time.Time) int { return int(t.Month()) - 1 }},
		{overloads.TimeGetDayOfYear, overloads.TimestampToDayOfYearWithTz, func(t time.Time) int { return t.YearDay() - 1 }},
		{overloads.TimeGetDate, overloads.TimestampToDayOfMonthOneBasedWithTz, time.Time.Day},
		{overloads.TimeGetDayOfMonth, overloads.TimestampToDayOfMonthZeroBasedWithTz, func(t time.Time) int { return t.Day() - 1 }},
		{overloads.TimeGetDayOfWeek, overloads.TimestampToDayOfWeekWithTz, func(t time.Time) int { return int(t.Weekday()) }},
		{overloads.TimeGetHours, overloads.TimestampToHoursWithTz, time.Time.Hour},
		{overloads.TimeGetMinutes, overloads.TimestampToMinutesWithTz, time.Time.Minute},
		{overloads.TimeGetSeconds, overloads.TimestampToSecondsWithTz, time.Time.Second},
		{overloads.TimeGetMilliseconds, overloads.TimestampToMillisecondsWithTz, func(t time.Time) int { return t.Nanosecond() / 1e6 }},
	}
}

// zones are the time zones that the expressions of a set name. It is filled
// while a set is compiled and only read afterwards.
type zones map[string]*time.Location

var zoneOffset = regexp.MustCompile(`^[+-]([01][0-9]|2[0-3]):[0-5][0-9]$`)

// load makes a zone known: a name of the IANA database, or "+02:00".
func (z zones) load(name string) error {
	if _, known := z[name]; known {
		return nil
	}
	if zoneOffset.MatchString(name) {
		t, err := time.Parse("-07:00", name)
		if err != nil {
			return err
		}
		_, seconds := t.Zone()
		z[name] = time.FixedZone(name, seconds)
		return nil
	}
	if name == "" || name == "Local" {
		return fmt.Errorf(`time zone %s depends on the node; name one, such as "UTC" or "Europe/Berlin"`, quote(name))
	}
	location, err := time.LoadLocation(name)
	if err != nil {
		return fmt.Errorf(`unknown time zone %s; write it as "Europe/Berlin" or "+02:00"`, quote(name))
	}
	z[name] = location
	return nil
}

// options replaces the language's accessors with a zone by ones over z.
func (z zones) options() []cel.EnvOption {
	without := &env.LibrarySubset{}
	opts := make([]cel.EnvOption, 1, len(zonedAccessors())+1)
	for _, a := range zonedAccessors() {
		without.ExcludeFunctions = append(without.ExcludeFunctions, env.NewFunction(a.name, &env.Overload{ID: a.overload}))
		opts = append(opts, cel.Function(a.name, cel.MemberOverload(a.overload,
			[]*cel.Type{cel.TimestampType, cel.StringType}, cel.IntType,
			cel.BinaryBinding(func(at, zone ref.Val) ref.Val {
				t, isTime := at.(types.Timestamp)
				name, isName := zone.(types.String)
				location := z[string(name)]
				if !isTime || !isName || location == nil {
					return types.NewErr("%s needs a timestamp and a known time zone", a.name)
				}
				return types.Int(a.get(t.In(location)))
			}))))
	}
	opts[0] = cel.StdLib(cel.StdLibSubset(without))
	return opts
}
