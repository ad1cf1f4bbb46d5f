package doctor

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"chaperone.dev/chaperone/internal/bus"
)

func TestWhatIsReachedOverTheNetwork(t *testing.T) {
	w := newWorld(t)
	ca := newAuthority(t, "ca2.pem", w)
	w.startPostgres(t, 5433, ca.issue(t, -time.Hour, dbName)) // expired
	w.startPostgres(t, 5434, nil)                             // no TLS
	w.startPostgres(t, 5435, ca.issue(t, 24*time.Hour, dbName))
	silent, err := net.Listen("tcp", dbAddress+":5436") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	stranger, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := stranger.Seed()
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, "stranger.nk", string(seed), 0o600)

	const target = "target orders-db orders.db.internal:5432"
	const host = "orders.db.internal:5432"
	at := func(port string) []string {
		return []string{host, dbName + ":" + port, "{{dir}}/ca.pem", "{{dir}}/ca2.pem"}
	}
	for name, test := range map[string]struct {
		changes []string
		check   string
		status  Status
		text    string
		do      string
	}{
		"target":               {nil, target, OK, dbAddress + ":5432 reached, TLS verified", ""},
		"target, wrong CA":     {[]string{`tls: {mode: verify-full, caFile: "{{dir}}/ca.pem"}`, `tls: {mode: verify-full, caFile: "{{dir}}/other-ca.pem"}`}, target, Fail, "unknown authority", "caFile in Target orders-db"},
		"target, no CA file":   {[]string{`tls: {mode: verify-full, caFile: "{{dir}}/ca.pem"}`, `tls: {mode: verify-full, caFile: "{{dir}}/none.pem"}`}, target, Fail, "none.pem: no such file", ""},
		"target, system's CAs": {[]string{`, caFile: "{{dir}}/ca.pem"}`, `}`}, target, Fail, "unknown authority", "caFile"},
		"target, wrong name":   {[]string{`tls: {mode: verify-full,`, `tls: {mode: verify-full, serverName: other.db.internal,`}, target, Fail, "other.db.internal", "issued for this name"},
		"target, refused":      {at("5440"), "target orders-db orders.db.internal:5440", Fail, "connection refused", "listens there"},
		"target, unknown name": {[]string{host, "nowhere.db.internal:5432"}, "target orders-db nowhere.db.internal:5432", Fail, "does not resolve", "DNS"},
		"target, expired":      {at("5433"), "target orders-db orders.db.internal:5433", Fail, "expired", "renew"},
		"target, no TLS":       {at("5434"), "target orders-db orders.db.internal:5434", Fail, "doesn't offer TLS", ""},
		"target, expires soon": {at("5435"), "target orders-db orders.db.internal:5435", Warn, "expires at", "renew"},
		"target, silent":       {at("5436"), "target orders-db orders.db.internal:5436", Fail, "does not answer in time", "firewalls"},
		"target, TLS disabled": {[]string{host, dbName + ":5434", `tls: {mode: verify-full, caFile: "{{dir}}/ca.pem"}`, `tls: {mode: disable}`}, "target orders-db orders.db.internal:5434", OK, "TLS is disabled", ""},
		"target, a range":      {[]string{host, "10.20.0.0/16:5432"}, "target orders-db 10.20.0.0/16:5432", Skip, "range", ""},
		"target, an address":   {[]string{host, dbAddress + ":5432", `tls: {mode: verify-full,`, `tls: {mode: verify-full, serverName: orders.db.internal,`}, "target orders-db 10.20.0.5:5432", OK, "TLS verified", ""},

		"issuer":              {nil, "issuer corp-idp", OK, "its keys are fetched", ""},
		"issuer, wrong CA":    {[]string{"audiences: [chaperone]\n  caFile: \"{{dir}}/ca.pem\"", "audiences: [chaperone]\n  caFile: \"{{dir}}/other-ca.pem\""}, "issuer corp-idp", Fail, "unknown authority", "caFile in IdentityProvider corp-idp"},
		"issuer, no CA file":  {[]string{"audiences: [chaperone]\n  caFile: \"{{dir}}/ca.pem\"", "audiences: [chaperone]\n  caFile: \"{{dir}}/none.pem\""}, "issuer corp-idp", Fail, "none.pem", "the file that it names"},
		"issuer, down":        {[]string{"{{idp}}", "https://127.0.0.1:9"}, "issuer corp-idp", Fail, "connection refused", "up"},
		"issuer, other path":  {[]string{"{{idp}}", w.idp.URL + "/realm"}, "issuer corp-idp", Fail, "404", ""},
		"issuer, other name":  {[]string{"{{idp}}", w.idp.URL + "/"}, "issuer corp-idp", Fail, "it says that it is issuer", "issuer in"},
		"nats":                {nil, "nats", OK, "stream CHAPERONE_RECORDINGS takes from it", ""},
		"nats, embedded":      {[]string{`  nats: {url: "{{nats}}", nkeyFile: "` + w.path("bus/nats/node.nk") + `"}` + "\n", ""}, "nats", Skip, "embedded", ""},
		"nats, down":          {[]string{"{{nats}}", "nats://127.0.0.1:9"}, "nats", Fail, "no servers available", "servers run"},
		"nats, unknown key":   {[]string{w.path("bus/nats/node.nk"), "{{dir}}/stranger.nk"}, "nats", Fail, "Authorization", "deploy/nats/nats-server.conf"},
		"nats, missing key":   {[]string{w.path("bus/nats/node.nk"), "{{dir}}/none.nk"}, "nats", Fail, "none.nk", ""},
		"nats, other cluster": {[]string{"cluster: c1", "cluster: c2"}, "nats", Fail, "ermissions violation", "permissions"},
		"nats, no streams":    {[]string{"{{nats}}", w.bareNATS(t, 8<<20, nil)}, "nats", Fail, "stream CHAPERONE_EVENTS", "nats setup"},
		"nats, none, unasked": {[]string{"{{nats}}", w.bareNATS(t, 8<<20, &server.SubjectPermission{Allow: []string{"chaperone.>"}})}, "nats", Fail, "stream CHAPERONE_RECORDINGS: it is not there", "nats setup"},
		"nats, small":         {[]string{"{{nats}}", w.bareNATS(t, 1<<20, nil)}, "nats", Fail, "1.0 MiB at most", "max_payload"},
	} {
		t.Run(name, func(t *testing.T) {
			results := w.diagnose(t, w.documents(t, test.changes...), "documents", test.check)
			want(t, results["documents"], OK, "revision", "")
			want(t, results[test.check], test.status, test.text, test.do)
		})
	}
}

// bareNATS starts a server that lets the node in and has no streams.
func (w *world) bareNATS(t *testing.T, maxPayload int32, publish *server.SubjectPermission) string {
	t.Helper()
	seed, err := os.ReadFile(bus.SeedFile(w.path("bus"), bus.RoleNode))
	if err != nil {
		t.Fatal(err)
	}
	key, err := nkeys.FromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), MaxPayload: maxPayload, NoSigs: true, NoLog: true,
		Nkeys: []*server.NkeyUser{{Nkey: public, Permissions: &server.Permissions{Publish: publish}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server did not start")
	}
	return s.ClientURL()
}

func TestRun(t *testing.T) {
	w := newWorld(t)
	opts := Options{Config: w.documents(t), State: w.path("state")}
	results, err := Run(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSubject(opts)
	if err != nil {
		t.Fatal(err)
	}
	checks := s.checks()
	if len(results) != len(checks) {
		t.Fatalf("%d results of %d checks", len(results), len(checks))
	}
	for i, r := range results {
		if r.Check != checks[i].name || r.Status == "" {
			t.Errorf("%d: %+v, want %q", i, r, checks[i].name)
		}
		if r.Status == Fail {
			t.Errorf("on a good machine %+v", r)
		}
		if r.Check == clockName && !strings.Contains(r.Found, "issuer corp-idp") {
			t.Errorf("the clock was not compared: %+v", r)
		}
	}

	w.skew = -2 * time.Minute
	clock := w.diagnose(t, opts.Config, "issuer corp-idp", clockName)[clockName]
	want(t, clock, Fail, "from that of issuer corp-idp", "chronyd")
	if !strings.HasPrefix(clock.Found, "2m") && !strings.HasPrefix(clock.Found, "1m59s") {
		t.Errorf("found %q", clock.Found)
	}
}

func TestClockResult(t *testing.T) {
	for name, test := range map[string]struct {
		ours         time.Duration
		compared     bool
		synchronised bool
		status       Status
	}{
		"nobody asked":          {0, false, true, OK},
		"alike":                 {time.Second, true, true, OK},
		"off":                   {-6 * time.Second, true, true, Warn},
		"far off":               {-31 * time.Second, true, true, Fail},
		"not synchronised":      {0, false, false, Warn},
		"alike, all the same":   {time.Second, true, false, Warn},
		"not synchronised, far": {time.Minute, true, false, Fail},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, clockResult(offset{"a server", test.ours}, test.compared, test.synchronised), test.status, "", "")
		})
	}
}

func TestClocksTell(t *testing.T) {
	var c clocks
	now := time.Now()
	c.tell("exact", now.Truncate(time.Second), now, now.Add(300*time.Millisecond))
	if worst, _ := c.worst(); worst.ours != 0 {
		t.Errorf("%s is %s off", worst.from, worst.ours)
	}
	c.tell("silent", time.Time{}, now, now)
	c.tell("slow", now.Add(-time.Minute).Truncate(time.Second), now, now)
	c.tell("fast", now.Add(time.Second*20), now, now)
	if worst, _ := c.worst(); worst.from != "slow" || worst.ours < 58*time.Second || worst.ours > time.Minute {
		t.Errorf("%s is %s off", worst.from, worst.ours)
	}
}

func TestEveryHostIsLookedAt(t *testing.T) {
	w := newWorld(t)
	config := w.documents(t, `"orders.db.internal:5432"]`, `"orders.db.internal:5432", "10.20.0.5:5432", "[::1]:5432"]`)
	results := w.diagnose(t, config, "target orders-db orders.db.internal:5432", "target orders-db 10.20.0.5:5432", "target orders-db [::1]:5432")
	want(t, results["target orders-db orders.db.internal:5432"], OK, "10.20.0.5:5432 reached", "")
	want(t, results["target orders-db 10.20.0.5:5432"], Fail, "x509", "issued for this name")
	want(t, results["target orders-db [::1]:5432"], Fail, "[::1]:5432 is not reached", "listens there")
}
