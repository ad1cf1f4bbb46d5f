package bypass

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// Nothing reaches the target but what is known to, and each attempt is reported.
func TestBypass(t *testing.T) {
	w := newWorld(t)
	var results []result
	for _, r := range rows() {
		t.Run(r.name, func(t *testing.T) { results = append(results, w.try(t, r, "")) })
	}
	// What is open for root with all capabilities is closed by what the row says.
	closed := map[string][]string{}
	for _, closer := range []string{asRun, withNodeBelt} {
		if closer == withNodeBelt {
			w.belted(t)
		}
		for _, r := range rows() {
			if !slices.Contains(r.closers, closer) {
				continue
			}
			t.Run(r.name+", with "+closer, func(t *testing.T) {
				got := w.try(t, r, closer)
				closed[r.name] = append(closed[r.name], fmt.Sprintf("%s with %s", got.word, closer))
			})
		}
	}
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "#\tattempt\texpected\tresult\treported\tdetail")
	counts := map[string]int{}
	for _, r := range results {
		if r.word == "OPEN" && len(closed[r.name]) > 0 {
			r.word, r.detail = strings.Join(closed[r.name], ", "), "for root with all capabilities: "+r.detail
			counts["closed by what is in force beside it"]++
		} else {
			counts[r.word]++
		}
		reported := "yes"
		if !r.reported {
			reported = "no"
		}
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\n", r.threat, r.name, r.want, r.word, reported, r.detail)
	}
	table.Flush()
	t.Logf("Linux %s: %d attempts, %v\n%s", unix.ByteSliceToString(uname.Release[:]), len(results), counts, b.String())
}

// Names tell rows apart, and a known leak says what to do about it.
func TestRows(t *testing.T) {
	names := map[string]bool{}
	for _, r := range rows() {
		if names[r.name] {
			t.Errorf("two rows are named %q", r.name)
		}
		names[r.name] = true
		if r.do == nil || r.want == "" || r.hope == "" || r.threat == 0 {
			t.Errorf("row %q lacks something", r.name)
		}
	}
}

// The judge reads packets as generously as a decapsulating, source-routing host would.
func TestDissect(t *testing.T) {
	to := target.V4
	route := to.As4()
	for _, c := range []struct {
		name   string
		packet []byte
		hit    bool
	}{
		{"to the target", udp4(node4, to, target.Port), true},
		{"to another port", udp4(node4, to, freePort), false},
		{"to another host", udp4(node4, hop4, target.Port), false},
		{"a later fragment", ip4(node4, to, unix.IPPROTO_UDP, 1, nil, make([]byte, 8)), true},
		{"unknown protocol", ip4(node4, to, 253, 0, nil, make([]byte, 8)), true},
		{"in a tunnel", ip4(node4, hop4, unix.IPPROTO_IPIP, 0, nil, udp4(node4, to, target.Port)), true},
		{"in a tunnel, to another port", ip4(node4, hop4, unix.IPPROTO_IPIP, 0, nil, udp4(node4, to, freePort)), false},
		{"by source route", ip4(node4, hop4, unix.IPPROTO_UDP, 0, append([]byte{1, 131, 7, 4}, route[:]...), ports(target.Port)), true},
		{"IPv6", ip6(node6, target.V6, unix.IPPROTO_UDP, ports(target.Port)), true},
		{"IPv6, another port", ip6(node6, target.V6, unix.IPPROTO_UDP, ports(freePort)), false},
		{"IPv6, behind options", ip6(node6, target.V6, unix.IPPROTO_DSTOPTS, append([]byte{unix.IPPROTO_UDP, 0, 1, 4, 0, 0, 0, 0}, ports(target.Port)...)), true},
		{"too short", []byte{0x45}, false},
	} {
		if _, hit := dissect(c.packet, 0).judge("db"); hit != c.hit {
			t.Errorf("%s: hit is %t, want %t", c.name, hit, c.hit)
		}
	}
}

const (
	document = "../../docs/security.md"
	begin    = "<!-- bypass:begin -->"
	finish   = "<!-- bypass:end -->"
)

// docs/security.md has the matrix as it is. Where the repository is not, in a virtual
// machine, there is nothing to compare.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile(document)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	have, after, ended := strings.Cut(rest, finish)
	if !found || !ended {
		t.Fatalf("%s has no %s … %s", document, begin, finish)
	}
	want := markdown()
	if have == want {
		return
	}
	if !*update {
		t.Fatalf("the matrix in %s is out of date: go test ./test/bypass -run TestDocument -update", document)
	}
	if err := os.WriteFile(document, []byte(before+begin+want+finish+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func markdown() string {
	var b strings.Builder
	b.WriteString("\n| # | attempt | what it hopes for | expected | state |\n|---|---|---|---|---|\n")
	for _, r := range rows() {
		state := "closed"
		if r.open != "" {
			state = "**open**: " + r.open
			if len(r.closers) > 0 {
				state = "closed by " + strings.Join(r.closers, ", or by ") + "; else " + r.open
			}
		}
		fmt.Fprintf(&b, "| %d | %s | %s | %s | %s |\n", r.threat, r.name, r.hope, r.want, state)
	}
	return b.String()
}
