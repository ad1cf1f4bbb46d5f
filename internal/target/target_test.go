package target

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"chaperone.dev/chaperone/pkg/policy"
)

func doc(name string, hosts ...string) *policy.Target {
	return &policy.Target{
		Metadata: policy.Metadata{Name: name},
		Spec:     policy.TargetSpec{Protocol: "postgres", Hosts: hosts},
	}
}

func TestFind(t *testing.T) {
	registry := New(Options{})
	err := registry.Set(context.Background(), []*policy.Target{
		doc("wide", "10.0.0.0/8:5432"),
		doc("narrow", "10.20.0.0/16:5432"),
		doc("single", "10.20.0.5:5432"),
		doc("twin-a", "10.9.9.9:5432"),
		doc("twin-b", "10.9.9.9:5432"),
		doc("named", "localhost:5433"),
		doc("six", "[fd00::/8]:5432", "[2001:db8::1]:5432"),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		destination, serverName string
		target, host            string
		err                     error
	}{
		{destination: "10.20.0.5:5432", target: "single", host: "10.20.0.5"},
		{destination: "[::ffff:10.20.0.5]:5432", target: "single", host: "10.20.0.5"},
		{destination: "10.20.0.6:5432", target: "narrow", host: "10.20.0.6"},
		{destination: "10.20.0.6:5432", serverName: "Orders.Example.", target: "narrow", host: "orders.example"},
		{destination: "10.1.0.1:5432", target: "wide", host: "10.1.0.1"},
		{destination: "10.20.0.5:5433", err: ErrNone},
		{destination: "192.0.2.1:5432", serverName: "localhost", err: ErrNone},
		{destination: "10.9.9.9:5432", err: ErrAmbiguous},
		{destination: "127.0.0.1:5433", target: "named", host: "localhost"},
		{destination: "127.0.0.1:5433", serverName: "LOCALHOST", target: "named", host: "localhost"},
		{destination: "[fd00::7]:5432", target: "six", host: "fd00::7"},
		{destination: "[2001:db8::1]:5432", target: "six", host: "2001:db8::1"},
	} {
		match, err := registry.Find(context.Background(), netip.MustParseAddrPort(test.destination), Asker{ServerName: test.serverName})
		if !errors.Is(err, test.err) {
			t.Errorf("%s %q: error %v, want %v", test.destination, test.serverName, err, test.err)
			continue
		}
		if err == nil && (match.Target.Metadata.Name != test.target || match.Host != test.host) {
			t.Errorf("%s %q: %s as %q, want %s as %q", test.destination, test.serverName,
				match.Target.Metadata.Name, match.Host, test.target, test.host)
		}
	}
}

func TestSharedAddressIsToldApartByServerName(t *testing.T) {
	registry := New(Options{})
	// Two names, one address: both are the node's own.
	registry.names = map[string]addresses{"a.example": {}, "b.example": {}}
	registry.remember("a.example", []netip.Addr{netip.MustParseAddr("192.0.2.7")})
	registry.remember("b.example", []netip.Addr{netip.MustParseAddr("192.0.2.7")})
	registry.hosts = []host{
		{policy.Host{Name: "a.example", Port: 5432}, doc("a")},
		{policy.Host{Name: "b.example", Port: 5432}, doc("b")},
	}
	destination := netip.MustParseAddrPort("192.0.2.7:5432")
	for serverName, want := range map[string]string{"a.example": "a", "B.example": "b"} {
		match, err := registry.Find(context.Background(), destination, Asker{ServerName: serverName})
		if err != nil || match.Target.Metadata.Name != want {
			t.Errorf("%s: %v, %v, want %s", serverName, match.Target, err, want)
		}
	}
	for _, serverName := range []string{"", "c.example"} {
		if _, err := registry.Find(context.Background(), destination, Asker{ServerName: serverName}); !errors.Is(err, ErrAmbiguous) {
			t.Errorf("%q: %v, want ambiguous", serverName, err)
		}
	}
}

func TestPorts(t *testing.T) {
	ports, err := Ports([]*policy.Target{doc("a", "a.example:5432", "b.example:6432"), doc("b", "10.0.0.0/8:5432")})
	if err != nil || len(ports) != 2 || ports[5432] != "postgres" || ports[6432] != "postgres" {
		t.Errorf("ports %v, %v", ports, err)
	}
	ssh := doc("ssh", "a.example:5432")
	ssh.Spec.Protocol = "ssh"
	if _, err := Ports([]*policy.Target{doc("a", "a.example:5432"), ssh}); err == nil || !strings.Contains(err.Error(), "port 5432") {
		t.Errorf("two protocols on one port: %v", err)
	}
	for _, bad := range []string{"a.example", "a.example:0", "a.example:99999", "a.example:x"} {
		if _, err := Ports([]*policy.Target{doc("a", bad)}); err == nil {
			t.Errorf("host %q was taken", bad)
		}
	}
}
