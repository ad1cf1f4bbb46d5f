package target

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"chaperone.dev/chaperone/pkg/policy"
)

func addrs(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

// unresolved is a registry whose own resolver knows no name.
func unresolved(t *testing.T, targets ...*policy.Target) *Registry {
	t.Helper()
	r := New(Options{Search: func() []string { return []string{"prod.internal", "svc.cluster.local."} }})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Set(ctx, targets, []string{"api.invalid"}); err != nil {
		t.Fatal(err)
	}
	return r
}

// What one workload was told decides for it where two names share an address, and
// for nobody else.
func TestTheNameThatWasResolvedDecides(t *testing.T) {
	r := unresolved(t, doc("a", "a.invalid:5432"), doc("b", "b.invalid:5432"))
	shared := addrs("192.0.2.7")
	for workload, name := range map[uint64]string{1: "a.invalid", 2: "b.invalid", 3: "other.invalid"} {
		if _, ok := r.Learn(workload, name, shared); !ok {
			t.Fatal("an address was not taken up")
		}
	}
	find := func(asker Asker) string {
		m, err := r.Find(context.Background(), netip.MustParseAddrPort("192.0.2.7:5432"), asker)
		if errors.Is(err, ErrAmbiguous) {
			return "ambiguous"
		}
		if err != nil {
			t.Fatal(err)
		}
		return m.Target.Metadata.Name + " as " + m.Host
	}
	for _, c := range []struct {
		asker Asker
		want  string
	}{
		{Asker{Workload: 1}, "a as a.invalid"},
		{Asker{Workload: 2}, "b as b.invalid"},
		{Asker{Workload: 3}, "ambiguous"},
		{Asker{Workload: 4}, "ambiguous"},
		{Asker{Workload: 1, ServerName: "B.invalid."}, "b as b.invalid"},
		{Asker{Workload: 1, ServerName: "elsewhere.invalid"}, "a as a.invalid"},
		{Asker{Workload: 4, ServerName: "a.invalid"}, "a as a.invalid"},
	} {
		if got := find(c.asker); got != c.want {
			t.Errorf("%+v: %s, want %s", c.asker, got, c.want)
		}
	}
	r.Learn(1, "b.invalid", shared)
	if got := find(Asker{Workload: 1}); got != "b as b.invalid" {
		t.Errorf("after the other name was resolved: %s", got)
	}
	r.Forget(1)
	if got := find(Asker{Workload: 1}); got != "ambiguous" {
		t.Errorf("after the workload was forgotten: %s", got)
	}
}

func TestLearn(t *testing.T) {
	r := unresolved(t, doc("a", "orders:5432", "a.invalid:5432", "192.0.2.200:5432", "10.0.0.0/8:5432"))
	for _, c := range []struct {
		name  string
		about []string
	}{
		{"a.invalid", []string{"a.invalid"}},
		{"A.Invalid.", []string{"a.invalid"}},
		{"api.invalid", []string{"api.invalid"}},
		{"orders", []string{"orders"}},
		{"orders.prod.internal", []string{"orders"}},
		{"orders.svc.cluster.local", []string{"orders"}},
		{"orders.evil.invalid", nil},
		{"x.a.invalid", nil},
		{"prod.internal", nil},
		{"", nil},
	} {
		about, ok := r.Learn(1, c.name, addrs("::ffff:192.0.2.9"))
		if !slices.Equal(about, c.about) || !ok {
			t.Errorf("%q is about %v, %t, want %v", c.name, about, ok, c.about)
		}
		if got := r.Wanted(c.name); !slices.Equal(got, c.about) {
			t.Errorf("%q is a form of %v", c.name, got)
		}
	}
	known := r.Known()
	slices.SortFunc(known, netip.Addr.Compare)
	if want := addrs("192.0.2.9", "192.0.2.200"); !slices.Equal(known, want) {
		t.Errorf("known addresses %v, want %v", known, want)
	}
	if got := r.Addresses("api.invalid"); !slices.Equal(got, addrs("192.0.2.9")) || r.IsTarget("api.invalid") || !r.IsTarget("orders") {
		t.Errorf("addresses of a name that is no target's: %v", got)
	}
}

// A zone can't make the registry grow without end.
func TestAddressesAreBounded(t *testing.T) {
	r := unresolved(t, doc("a", "a.invalid:5432"))
	for n := range maxAddresses {
		if _, ok := r.Learn(1, "a.invalid", addrs(fmt.Sprintf("2001:db8::%x", n+1))); !ok {
			t.Fatalf("address %d was not taken up", n)
		}
	}
	if about, ok := r.Learn(1, "a.invalid", addrs("2001:db8:1::1")); ok || len(about) != 1 {
		t.Errorf("an address more than fits was taken up")
	}
	if _, ok := r.Learn(1, "a.invalid", addrs("2001:db8::1")); !ok {
		t.Errorf("a known address was refused")
	}
	if n := len(r.Addresses("a.invalid")); n != maxAddresses {
		t.Errorf("%d addresses, want %d", n, maxAddresses)
	}
	l := newLookups()
	for n := range maxLookups + 10 {
		l.add(addrs(fmt.Sprintf("2001:db8:2::%x", n))[0], "a.invalid")
	}
	if len(l.names) != maxLookups || len(l.order) != maxLookups || l.names[addrs("2001:db8:2::9")[0]] != "" {
		t.Errorf("%d lookups of %d are kept, want %d", len(l.names), len(l.order), maxLookups)
	}
}
