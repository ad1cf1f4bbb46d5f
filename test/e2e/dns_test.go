package e2e

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

const (
	nameServer = "10.20.0.53" // the node's
	moved      = "10.20.0.7"  // the PostgreSQL server's second address
	attacker   = "10.66.6.6"  // where a planner's own name server says that targets are
	theirs     = "10.20.0.99" // that server's address
)

// setUpDNS is setUp, where the server's name is in the DNS and nowhere else.
func setUpDNS(t *testing.T, options stage.Options, records ...string) (*world, *lab.DNS) {
	t.Helper()
	addAddresses(t, nameServer, moved)
	server, err := lab.StartDNS(t.Context(), lab.DNSOptions{
		Listen: []string{nameServer}, Zone: "internal", Records: append(records, "orders.db A "+stage.Address),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	cover(t, "/etc/hosts", "127.0.0.1 localhost\n")
	cover(t, "/etc/resolv.conf", "nameserver "+nameServer+"\n")
	options.Addresses = append(options.Addresses, moved)
	return setUp(t, options), server
}

// Whatever server a planner asks, and however, it is told what the node's says.
func TestNamesAreResolvedWhateverServerIsAsked(t *testing.T) {
	w, _ := setUpDNS(t, stage.Options{})
	v4 := lab.NetnsOptions{Inside: prefixes("10.30.0.2/24"), Outside: prefixes("10.30.0.1/24"), NoIPv6: true}
	const far4, far6 = "8.8.8.8", "2001:4860:4860::8888"
	tests := []struct {
		name   string
		net    *lab.Netns
		server string
	}{
		{"node, the node's server", nil, nameServer},
		{"node, IPv4", nil, far4},
		{"node, IPv6", nil, far6},
		{"node, a stub on loopback", nil, "127.0.0.53"},
		{"namespace, IPv4", newNetns(t, v4), far4},
		{"namespace of IPv4 only, a stub on loopback", newNetns(t, v4), "127.0.0.53"},
		{"namespace without interfaces, IPv4", newNetns(t, lab.NetnsOptions{}), far4},
		{"namespace without interfaces, IPv6", newNetns(t, lab.NetnsOptions{}), far6},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := w.in(t)
			h := home{net: test.net, resolvConf: "nameserver " + test.server + "\n"}
			run := func(command ...string) result { return w.do(w.at(h, "nightly-names", command...)) }
			run("getent", "hosts", stage.Host).want(t, 0, stage.Address)
			run("dig", "+short", "+tries=1", stage.Host).want(t, 0, stage.Address+"\n")
			run("dig", "+short", "+tries=1", "+tcp", stage.Host).want(t, 0, stage.Address+"\n")
			run(stage.Psql("-At", "-c", "SELECT card_number FROM customers WHERE id = 1")...).want(t, 0, "************1111")
			planner := w.remote(h, "nightly-names")
			if got := planner.ask("lookup", stage.Host); got != stage.Address {
				t.Errorf("Go's resolver says %s", got)
			}
			for _, how := range []string{"udp", "tcp", "unconnected"} {
				if got := planner.ask("dns", how, test.server, stage.Host); got != "NOERROR "+stage.Address {
					t.Errorf("asked over %s: %s", how, got)
				}
			}
			planner.refused("NXDOMAIN", "lookup", "nothing.db.internal")
			if got := planner.ask("session"); !strings.HasSuffix(got, stage.Address) {
				t.Errorf("session at %s", got)
			}
		})
	}
	t.Run("the first that is done in a namespace is to resolve", func(t *testing.T) {
		w := w.in(t)
		planner := w.remote(home{}, "nightly-sandbox", "unshare", "--user", "--map-root-user", "--net",
			"sh", "-c", `ip link set lo up && exec "$@"`, "sh")
		planner.served("dns", "udp", far4, stage.Host)
		planner.ask("dns", "tcp", far4, stage.Host)
		planner.ask("session")
	})
}

// A name that moves is followed at once: who asks is told no address that isn't known yet.
func TestTargetsMoveInTheDNS(t *testing.T) {
	w, server := setUpDNS(t, stage.Options{})
	planner := w.remote(home{net: newNetns(t, lab.NetnsOptions{})}, "nightly-mover")
	at := func(want string) {
		t.Helper()
		if got := planner.ask("session"); !strings.HasSuffix(got, " "+want) {
			t.Errorf("a session at %s, want %s", got, want)
		}
		w.psql("SELECT host(inet_server_addr())").want(t, 0, want+"\n")
	}
	at(stage.Address)
	for _, address := range []string{moved, stage.Address, moved} {
		if err := server.Set(t.Context(), "orders.db A "+address); err != nil {
			t.Fatal(err)
		}
		at(address)
	}
	w.event(event.TypeSessionStarted, func(data map[string]any) bool {
		at := data["target"].(map[string]any)
		return at["name"] == "orders-db" && at["address"] == moved+":5432"
	})
	// A session of an address that the name had before is one of that target still.
	planner.ask("session", "host="+stage.Address, "sslmode=require")
}

// billing is another target at the same address and port.
const (
	billingHost = "billing.db.internal"
	billing     = `apiVersion: chaperone.dev/v1alpha1
kind: Target
metadata: {name: billing-db}
spec:
  protocol: postgres
  hosts: ["` + billingHost + `:5432"]
  tls: {mode: verify-full, caFile: "{{dir}}/target-ca.pem"}
  credential:
    postgresRole:
      adminFrom: {file: "{{dir}}/orders-admin.dsn"}
      memberOf: [orders_reader]
      ttl: 15m
`
)

func TestTwoTargetsAtOneAddress(t *testing.T) {
	w, _ := setUpDNS(t, stage.Options{
		Names: []string{billingHost},
		Documents: map[string]string{
			"billing.yaml": billing,
			"policy.yaml":  strings.Replace(stage.Documents()["policy.yaml"], "targets: [orders-db]", "targets: [orders-db, billing-db]", 1),
		},
	}, "billing.db A "+stage.Address)
	// is fails the test unless the session with that label is one of the target.
	is := func(w *world, label, target string) {
		w.t.Helper()
		data := w.event(event.TypeSessionStarted, func(data map[string]any) bool { return data["application"] == label })
		if got := data["target"].(map[string]any)["name"]; got != target {
			w.t.Errorf("the session %q is one of %s, want %s", label, got, target)
		}
	}
	psql := func(w *world, conn string) result {
		return w.planner("psql", "-XAt", "-d", "dbname="+stage.Database+" user=planner "+conn, "-c", "SELECT 'works'")
	}
	hosts := map[string]string{stage.Host: "orders-db", billingHost: "billing-db"}

	t.Run("the name in the TLS handshake decides", func(t *testing.T) {
		w := w.in(t)
		for host, target := range hosts {
			psql(w, "sslmode=verify-full application_name=tls-"+target+" host="+host).want(t, 0, "works")
			is(w, "tls-"+target, target)
			// Also where the address is hard-coded, and nobody resolved anything.
			psql(w, "sslmode=verify-full application_name=address-"+target+" host="+host+" hostaddr="+stage.Address).want(t, 0, "works")
			is(w, "address-"+target, target)
		}
	})
	t.Run("without one, what was resolved last", func(t *testing.T) {
		w := w.in(t)
		for host, target := range hosts {
			psql(w, "sslmode=disable application_name=plain-"+target+" host="+host).want(t, 0, "works")
			is(w, "plain-"+target, target)
		}
		planner := w.remote(home{}, "nightly-both")
		for n, host := range []string{stage.Host, billingHost, stage.Host} {
			label := fmt.Sprintf("last-%d", n)
			planner.ask("lookup", host)
			planner.ask("session", "host="+stage.Address, "sslmode=disable", "application_name="+label)
			is(w, label, hosts[host])
		}
	})
	t.Run("with neither, none", func(t *testing.T) {
		w := w.in(t)
		for _, mode := range []string{"disable", "require"} {
			psql(w, "sslmode="+mode+" host="+stage.Address).want(t, 2, "orders-db", "billing-db", stage.Address+":5432", "by host name")
		}
		w.refusal(event.ReasonAmbiguousTarget)
	})
	t.Run("what another job resolved doesn't count", func(t *testing.T) {
		w := w.in(t)
		w.remote(home{}, "nightly-other").ask("lookup", stage.Host)
		psql(w, "sslmode=disable host="+stage.Address).want(t, 2, "orders-db", "billing-db")
	})
}

// liar is a name server that says of every name that it is the attacker's, and counts who comes.
type liar struct{ asked atomic.Int64 }

// newLiar starts one, over UDP and TCP, in a namespace, until the test ends.
func newLiar(t *testing.T, ns *lab.Netns, address string) *liar {
	t.Helper()
	l := new(liar)
	var packets net.PacketConn
	var listener net.Listener
	open := func() (err error) {
		if packets, err = net.ListenPacket("udp", net.JoinHostPort(address, "53")); err != nil {
			return err
		}
		listener, err = net.Listen("tcp", net.JoinHostPort(address, "53"))
		return err
	}
	err := open
	if ns != nil {
		err = func() error { return ns.Do(open) }
	}
	if err := err(); err != nil {
		t.Fatal(err)
	}
	answer := dns.HandlerFunc(func(out dns.ResponseWriter, question *dns.Msg) {
		l.asked.Add(1)
		reply := new(dns.Msg).SetReply(question)
		reply.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: question.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET},
			A:   net.ParseIP(attacker),
		}}
		_ = out.WriteMsg(reply)
	})
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: answer}, {Listener: listener, Handler: answer}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		var serving sync.WaitGroup
		serving.Go(func() {
			if err := server.ActivateAndServe(); err != nil {
				t.Error(err)
			}
		})
		<-started
		t.Cleanup(func() {
			if err := server.Shutdown(); err != nil {
				t.Error(err)
			}
			serving.Wait()
		})
	}
	return l
}

// A name server that a planner brings, or that it knows of, is never asked: neither while the
// daemon answers nor while it doesn't run.
func TestPlannersNameServersAreNeverAsked(t *testing.T) {
	w, _ := setUpDNS(t, stage.Options{})
	addAddresses(t, theirs)
	pair := lab.NetnsOptions{Inside: prefixes("10.30.0.2/24"), Outside: prefixes("10.30.0.1/24")}
	pair.Gateways = append(pair.Gateways, pair.Outside[0].Addr())
	ns := newNetns(t, pair)
	outside, inside := newLiar(t, nil, theirs), newLiar(t, ns, "127.0.0.1")

	// They do answer whoever isn't a planner, over the same wires.
	dig := exec.CommandContext(t.Context(), "nsenter", "--net="+ns.Path(), "dig", "+short", "+tries=1", "@127.0.0.1", stage.Host)
	w.do(dig).want(t, 0, attacker)
	w.do(exec.CommandContext(t.Context(), "dig", "+short", "+tries=1", "+tcp", "@"+theirs, stage.Host)).want(t, 0, attacker)
	before := [2]int64{outside.asked.Load(), inside.asked.Load()}
	if before != [2]int64{1, 1} {
		t.Fatalf("the servers count %v", before)
	}
	planners := map[string]*remote{
		theirs:      w.remote(home{resolvConf: "nameserver " + theirs + "\n"}, "nightly-here"),
		"127.0.0.1": w.remote(home{net: ns, resolvConf: "nameserver 127.0.0.1\nnameserver " + theirs + "\n"}, "nightly-away"),
	}
	ways := []string{"udp", "tcp", "unconnected"}
	works := func() {
		t.Helper()
		for server, planner := range planners {
			for _, how := range ways {
				if got := planner.ask("dns", how, server, stage.Host); got != "NOERROR "+stage.Address {
					t.Errorf("%s over %s says %s", server, how, got)
				}
			}
			planner.ask("session")
		}
	}
	works()
	if err := w.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	for server, planner := range planners {
		for _, how := range ways {
			planner.refused("ECONNREFUSED", "dns", how, server, stage.Host)
			planner.refused("ECONNREFUSED", "dns", how, theirs, stage.Host)
		}
	}
	w.up()
	works()
	if after := [2]int64{outside.asked.Load(), inside.asked.Load()}; after != before {
		t.Errorf("planners asked servers of their own: %v, and %v before", after, before)
	}
}
