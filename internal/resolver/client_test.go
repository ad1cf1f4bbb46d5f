package resolver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestProgramsResolve asks with the resolvers that programs have. They
// read /etc/resolv.conf, which says 127.0.0.1 and two search domains.
func TestProgramsResolve(t *testing.T) {
	w := &watcher{deny: "db.elsewhere.test"}
	s := serve(t, w, nil)
	at := serveAt(t, s.Resolver, "127.0.0.1:53", func(netip.AddrPort) (uint64, bool) { return planner, true })
	db := map[string]string{"db.example.test": "10.1.0.1 10.1.0.2 5m0s"}

	t.Run("Go", func(t *testing.T) {
		r := net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, at)
		}}
		addrs, err := r.LookupHost(t.Context(), "www.example.test")
		slices.Sort(addrs)
		if err != nil || !slices.Equal(addrs, []string{"10.1.0.1", "10.1.0.2", "fd00::1"}) {
			t.Errorf("www is %v, %v", addrs, err)
		}
		// More than UDP carries.
		addrs, err = r.LookupHost(t.Context(), "huge.example.test.")
		if err != nil || len(addrs) != 2000 {
			t.Errorf("huge has %d addresses, %v", len(addrs), err)
		}
		// The name that is not admitted comes first.
		addrs, err = r.LookupHost(t.Context(), "db")
		if err != nil || len(addrs) != 3 {
			t.Errorf("db is %v, %v", addrs, err)
		}
		names, err := r.LookupAddr(t.Context(), "10.1.0.1")
		if err != nil || !slices.Equal(names, []string{"db.example.test."}) {
			t.Errorf("10.1.0.1 is %v, %v", names, err)
		}
		mx, err := r.LookupMX(t.Context(), "mx.example.test")
		if err != nil || len(mx) != 1 || mx[0].Host != "db.example.test." {
			t.Errorf("MX is %v, %v", mx, err)
		}
	})
	t.Run("getent", func(t *testing.T) {
		w.taught()
		got := run(t, "getent", "ahostsv4", "db")
		if !strings.Contains(got, "10.1.0.1") || !strings.Contains(got, "10.1.0.2") {
			t.Errorf("getent says %s", got)
		}
		if diff := cmp.Diff(db, w.taught()); diff != "" {
			t.Error(diff)
		}
		if got := run(t, "getent", "ahosts", "db.example.test"); !strings.Contains(got, "fd00::1") {
			t.Errorf("getent says %s", got)
		}
		if got := run(t, "getent", "ahostsv4", "many.example.test"); strings.Count(got, "STREAM") != 40 {
			t.Errorf("getent says %s", got)
		}
		if got := run(t, "getent", "hosts", "10.1.0.1"); !strings.Contains(got, "db.example.test") {
			t.Errorf("getent says %s", got)
		}
	})
	t.Run("dig", func(t *testing.T) {
		if _, err := exec.LookPath("dig"); err != nil {
			t.Skip("Debian's package bind9-dnsutils is not installed")
		}
		w.taught()
		got := strings.Fields(run(t, "dig", "+short", "db.example.test"))
		slices.Sort(got)
		if !slices.Equal(got, []string{"10.1.0.1", "10.1.0.2"}) {
			t.Errorf("dig says %v", got)
		}
		if diff := cmp.Diff(db, w.taught()); diff != "" {
			t.Error(diff)
		}
		if got := strings.Fields(run(t, "dig", "+short", "huge.example.test")); len(got) != 2000 {
			t.Errorf("dig says %d addresses", len(got))
		}
		if got := run(t, "dig", "+dnssec", "db.signed.test"); !strings.Contains(got, "RRSIG") {
			t.Errorf("dig says %s", got)
		}
		if got := run(t, "dig", "+keepopen", "+tcp", "db.example.test", "mx.example.test", "MX", "+short"); !strings.Contains(got, "10 db.example.test.") {
			t.Errorf("dig says %s", got)
		}
		if got := run(t, "dig", "db.elsewhere.test"); !strings.Contains(got, "NXDOMAIN") || !strings.Contains(got, "Prohibited") {
			t.Errorf("dig says %s", got)
		}
		if got := run(t, "dig", "+tcp", "+short", "-t", "AXFR", "example.test"); strings.Contains(got, "10.1.0.1") {
			t.Errorf("dig got a zone: %s", got)
		}
	})
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Error(fmt.Errorf("%s %v: %w\n%s", name, args, err, out))
	}
	return string(out)
}
