package bypass

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// row is one attempt of the matrix.
type row struct {
	threat int    // the row of the threat model
	name   string // unique
	hope   string // what is done, and why it could work
	do     attack
	want   string // words of result.word, joined by " or "

	from     origin   // where the process starts; the zero value is the planner's cgroup
	inPod    bool     // attack from a pod's network namespace
	user     bool     // as an ordinary user, not root
	silent   string   // why no report is possible, if none is
	control  string   // why there is no control, if there is none
	open     string   // it is a leak for root with all capabilities: why
	closers  []string // what closes it, each by itself: an optional program, withNodeBelt, asRun
	around   func(w *world, t *testing.T, job string, do func() answer) answer
	mayAsAny bool // any destination will do, as long as it is the planner's own
}

// What closes a row that is open for root with all capabilities.
const (
	withNodeBelt = "belt: node"
	asRun        = "chaperone run" // which takes from the planner what the attack needs
)

// origin is the cgroup that the process starts in.
type origin int

const (
	fromJob      origin = iota
	fromStranger        // below the ancestor, not enrolled; the attack joins the job itself
	fromOutside         // beside the ancestor; likewise
	fromNew             // a cgroup beside the jobs that nobody has enrolled
)

// rows is the matrix.
func rows() []row {
	var all []row
	for _, group := range [][]row{
		tcpRows(), spellingRows(), datagramRows(), optionRows(), uringRows(), socketRows(),
		rawRows(), deviceRows(), localRows(), cgroupRows(), programRows(), listenerRows(), raceRows(), lifeRows(), dnsRows(),
	} {
		all = append(all, group...)
	}
	return all
}

func rowNamed(name string) (row, bool) {
	for _, r := range rows() {
		if r.name == name {
			return r, true
		}
	}
	return row{}, false
}

// result is what a row came to.
type result struct {
	row
	word     string // diverted, refused, dropped, unreachable, OPEN or noPath
	detail   string
	reported bool
}

const noPath = "no path on this kernel"

// try runs a row, and fails the test when it isn't what the row says. closer is
// what is in force beside the optional programs, or "".
func (w *world) try(t *testing.T, r row, closer string) result {
	w.judge.nextRow()
	if r.control == "" {
		got, hits := w.runControl(t, r)
		if hits == 0 && !got.reached() {
			return result{row: r, word: noPath, detail: got.how()}
		}
	}
	w.daemon.do(t, order{Op: "capture", Captures: captures()})
	job, id := w.newJob(t)
	if r.inPod {
		w.daemon.do(t, order{Op: "guard", Path: w.pod, ID: id})
	}
	defer w.endJob(t, job, id)

	before, _ := w.judge.count(true)
	do := func() answer { return w.perform(t, r, w.target, job, closer == asRun) }
	var got answer
	if r.around != nil {
		got = r.around(w, t, job, do)
	} else {
		got = do()
	}
	w.judge.sync(t)
	hits, last := w.judge.count(true)
	hits -= before
	told := w.tell(t)

	res := result{row: r, word: got.word(), detail: got.how()}
	if hits > 0 || got.reached() {
		res.word = "OPEN"
		res.detail = fmt.Sprintf("%d packets, the last: %s", hits, last)
		if hits == 0 {
			res.detail = got.how()
		}
	}
	for _, s := range told.Seen {
		res.reported = true
		if s.Workload != id && s.Workload != 0 {
			t.Errorf("%+v was reported of another planner than %d", s, id)
		}
	}
	for _, s := range told.Sessions {
		res.reported = true
		if s.Diverted && s.Workload != id {
			t.Errorf("session %+v is another planner's than %d", s, id)
		}
	}
	if closer != "" || slices.ContainsFunc(r.closers, w.has) {
		res.open = ""
	}
	if closer == asRun {
		res.silent = "it hasn't come to what is reported"
	}
	res.check(t, got)
	return res
}

func (res result) check(t *testing.T, got answer) {
	t.Helper()
	switch {
	case res.word == "OPEN" && res.open == "":
		t.Errorf("LEAK: %s", res.detail)
	case res.word == "OPEN":
		return
	case res.open != "":
		t.Errorf("listed as open, and it is %s (%s): take it off the list", res.word, res.detail)
	case !strings.Contains(res.want, res.word):
		t.Errorf("it was %s (%s), want %s", res.word, res.detail, res.want)
	case !res.reported && res.silent == "":
		t.Errorf("it was %s (%s) and not reported", res.word, res.detail)
	}
	if got.Counts["wrong"] != 0 {
		t.Errorf("%v, want none wrong", got.Counts)
	}
	if said, ok := strings.CutPrefix(got.Said, "PROXY "); ok && !res.mayAsAny {
		if want := asked(got.Asked); said != want {
			t.Errorf("diverted as %s, want %s", said, want)
		}
	}
}

// asked is a destination as the daemon knows it.
func asked(s string) string {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return s
	}
	switch a := ap.Addr().Unmap().WithZone(""); a {
	case netip.IPv4Unspecified():
		return netip.AddrPortFrom(addr("127.0.0.1"), ap.Port()).String()
	case netip.IPv6Unspecified():
		return netip.AddrPortFrom(netip.IPv6Loopback(), ap.Port()).String()
	default:
		return netip.AddrPortFrom(a, ap.Port()).String()
	}
}

func (a answer) reached() bool { return strings.HasPrefix(a.Said, "REAL") || a.Counts["real"] > 0 }

// word sums an answer up, as far as the client can tell.
func (a answer) word() string {
	switch {
	case strings.HasPrefix(a.Said, "PROXY") || a.Counts["right"] > 0:
		return "diverted"
	case strings.HasPrefix(a.Said, "NO ORIGIN"):
		return "refused"
	}
	switch a.Errno {
	case "":
		return "dropped"
	case "EINPROGRESS", "EAGAIN", "ETIMEDOUT":
		return "dropped"
	case "ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "EINVAL":
		return "unreachable"
	}
	return "refused"
}

func (a answer) how() string {
	switch {
	case a.Errno != "":
		return a.Errno + " (" + a.Step + ")"
	case a.Said != "":
		return a.Said
	case len(a.Counts) != 0:
		return fmt.Sprint(a.Counts)
	}
	return "no answer"
}
