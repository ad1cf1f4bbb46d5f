// Package units tells which systemd unit a cgroup belongs to, from the
// cgroup's path alone, the way systemd itself does (sd_pid_get_unit(3)): the
// slices from the root on are passed over, and the first folder after them is
// the unit. What a unit makes inside its own cgroup, whatever its name, is
// that unit's.
//
// The package talks to no systemd and reads no file. It knows nothing of jobs
// and of who may do what.
package units

import (
	"path"
	"strings"
)

// ParseCgroup returns the system unit that the cgroup belongs to, as
// "planner@x.service" or "planner-1.scope". The path is the one below the root
// of the hierarchy, as in /proc/PID/cgroup. There is no unit when the path is
// a slice's, or isn't one that systemd makes.
//
// The processes of a user's own manager all belong to the system unit
// "user@UID.service"; [ParseUserCgroup] looks further.
func ParseCgroup(cgroup string) (unit string, ok bool) {
	unit, _, ok = split(cgroup)
	return unit, ok
}

// ParseUserCgroup returns the unit of a user's manager that the cgroup belongs
// to, as "foo.service" of
// "user.slice/user-1000.slice/user@1000.service/app.slice/foo.service", and
// the user's id as systemd writes it. Below the user's manager the user may
// make any cgroup, so the name is the user's word and no more.
func ParseUserCgroup(cgroup string) (unit, uid string, ok bool) {
	manager, rest, ok := split(cgroup)
	if !ok {
		return "", "", false
	}
	uid, isUser := strings.CutPrefix(manager, "user@")
	uid, isService := strings.CutSuffix(uid, ".service")
	if !isUser || !isService || strings.Trim(uid, "0123456789") != "" {
		return "", "", false
	}
	unit, _, ok = split(rest)
	return unit, uid, ok
}

// InSlices tells whether a path below the root of the hierarchy leads through
// slices only and ends in one, or is the root itself: a folder in which
// systemd makes units.
func InSlices(cgroup string) bool {
	folder, _ := skipSlices(cgroup)
	return folder == ""
}

// Match tells whether the unit's name, instance and type included, matches the
// [path.Match] pattern: "planner@*.service", "planner-*.scope". Names keep
// systemd's escapes ("\x2d"), and a backslash in the pattern escapes what
// follows it, so it has to be doubled there. A pattern that is none matches
// nothing; check those where they are read, with an empty name.
func Match(pattern, unit string) bool {
	ok, err := path.Match(pattern, unit)
	return ok && err == nil
}

// split divides a path into the unit and what is below it.
func split(cgroup string) (unit, rest string, ok bool) {
	folder, rest := skipSlices(cgroup)
	unit = unescape(folder)
	// A slice that wasn't passed over has a name that no slice may have.
	if !valid(unit) || strings.HasSuffix(unit, ".slice") {
		return "", "", false
	}
	return unit, rest, true
}

// skipSlices returns the first folder that is no slice's and what is below
// it. The folder is empty when there are only slices.
func skipSlices(cgroup string) (folder, rest string) {
	for rest = cgroup; ; {
		folder, rest, _ = strings.Cut(strings.TrimLeft(rest, "/"), "/")
		if folder == "" || !isSlice(unescape(folder)) {
			return folder, rest
		}
	}
}

// isSlice tells whether the name is a slice's. Slices have no instances.
func isSlice(unit string) bool {
	return strings.HasSuffix(unit, ".slice") && valid(unit) && !strings.Contains(unit, "@")
}

// unescape undoes what systemd does to unit names that a file of the cgroup
// file system might have ("cpu.service" becomes "_cpu.service"), or that
// begin with the mark itself.
func unescape(folder string) string { return strings.TrimPrefix(folder, "_") }

// maxName is one more than the longest name of a unit (systemd's
// UNIT_NAME_MAX). It is that of a file as well.
const maxName = 256

// valid tells whether systemd takes the name for a unit's (systemd.unit(5)): a
// prefix of certain characters, perhaps "@" and an instance, and a type. A
// template, "planner@.service", has no cgroup.
func valid(unit string) bool {
	dot := strings.LastIndexByte(unit, '.')
	if dot <= 0 || len(unit) >= maxName {
		return false
	}
	name, kind := unit[:dot], unit[dot+1:]
	switch kind {
	case "service", "scope", "slice", "socket", "mount", "swap":
	case "target", "device", "automount", "timer", "path": // have no processes, but are units
	default:
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case strings.IndexByte(`:-_.\@`, c) >= 0:
		default:
			return false
		}
	}
	at := strings.IndexByte(name, '@')
	return at != 0 && at != len(name)-1
}
