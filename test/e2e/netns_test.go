package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

// address6 is another one of the server's, where a test gives it to it.
const address6 = "fd20::5"

// A planner in a network namespace of its own has a session with a server that its
// namespace has no route to: the daemon dials it, from the node's.
func TestSessionsFromOtherNamespaces(t *testing.T) {
	addAddresses(t, address6)
	cover(t, "/etc/hosts", fmt.Sprintf("127.0.0.1 localhost\n%s %s\n%s %s\n", stage.Address, stage.Host, address6, stage.Host))
	w := setUp(t, stage.Options{Addresses: []string{address6}})
	v4, v6 := []string{"10.30.0.2/24", "10.30.0.1/24"}, []string{"fd30::2/64", "fd30::1/64"}
	tests := []struct {
		name            string
		inside, outside []string
		noIPv6          bool
	}{
		{"IPv4 only", v4[:1], v4[1:], true},
		{"IPv6 only", v6[:1], v6[1:], false},
		{"both", []string{v4[0], v6[0]}, []string{v4[1], v6[1]}, false},
		{"loopback only", nil, nil, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := w.in(t)
			ns := newNetns(t, lab.NetnsOptions{Inside: prefixes(test.inside...), Outside: prefixes(test.outside...), NoIPv6: test.noIPv6})
			psql := func(address string) result {
				cmd := w.at(home{net: ns}, "nightly-away", stage.Psql("-At", "-c", "SELECT name, card_number FROM customers WHERE id = 1")...)
				cmd.Env = append(cmd.Env, "PGHOSTADDR="+address)
				return w.do(cmd)
			}
			const row = "Ada Lovelace|************1111"
			psql("").want(t, 0, row)
			psql(stage.Address).want(t, 0, row)
			if test.noIPv6 {
				// Nobody can serve there by IPv6, and nothing is let out by it.
				psql(address6).want(t, 2, "connection to server at")
			} else {
				psql(address6).want(t, 0, row)
			}
			planner := w.remote(home{net: ns}, "nightly-away")
			planner.refused("ENETUNREACH", "tcp", stage.Address+":22")
			if job := planner.ask("env", "CHAPERONE_JOB"); planner.ask("session") == "" || job == "" {
				t.Error("the planner doesn't know its job")
			}
		})
	}
	for _, address := range []string{stage.Address, address6} {
		want := net.JoinHostPort(address, "5432")
		w.event(event.TypeSessionStarted, func(data map[string]any) bool { return data["target"].(map[string]any)["address"] == want })
	}
}

// Two planners whose addresses and ports are the same, at the same time, are never
// taken for each other.
func TestOverlappingNamespacesAreToldApart(t *testing.T) {
	w := setUp(t, stage.Options{})
	const rounds = 200
	options := lab.NetnsOptions{Inside: prefixes("10.30.0.2/24"), Outside: prefixes("10.30.0.1/24")}
	sides := []struct {
		name, user string
		*remote
		seen map[string]string // the role at the server, by the client's name for the session
	}{
		{name: "left", user: "root", remote: w.remote(home{net: newNetns(t, options)}, "nightly-left")},
		{name: "right", user: "nobody", remote: w.remote(nobody(newNetns(t, options)), "nightly-right")},
	}
	for n := range sides {
		sides[n].seen = map[string]string{}
	}
	for round := range rounds {
		both := func(what string, words func(n int) []string, then func(n int, answer string)) {
			t.Helper()
			answers, errs := make([]string, len(sides)), make([]error, len(sides))
			var asking sync.WaitGroup
			for n, side := range sides {
				asking.Go(func() { answers[n], errs[n] = side.try(words(n)...) })
			}
			asking.Wait()
			for n := range sides {
				if errs[n] != nil {
					t.Fatalf("round %d, %s: %s: %v", round, sides[n].name, what, errs[n])
				}
				then(n, answers[n])
			}
		}
		label := func(n int) string { return fmt.Sprintf("%s-%d", sides[n].name, round) }
		both("open", func(n int) []string {
			return []string{"open", "application_name=" + label(n), fmt.Sprintf("from=10.30.0.2:%d", 20000+round)}
		}, func(n int, answer string) {
			role, _, _ := strings.Cut(answer, " ")
			if want := "chaperone_nightly_" + sides[n].name + "_"; !strings.HasPrefix(role, want) {
				t.Fatalf("round %d: the session of %s has the role %s", round, sides[n].name, role)
			}
			sides[n].seen[label(n)] = role
		})
		both("close", func(int) []string { return []string{"close"} }, func(int, string) {})
	}

	var started []event.SessionStarted
	w.until("an event of each session", func() bool {
		started = started[:0]
		for _, e := range w.events() {
			if e.Kind() != event.TypeSessionStarted {
				continue
			}
			var data event.SessionStarted
			if err := json.Unmarshal(e.Data, &data); err != nil {
				t.Fatal(err)
			}
			started = append(started, data)
		}
		return len(started) == rounds*len(sides)
	})
	for _, side := range sides {
		job := side.ask("env", "CHAPERONE_JOB")
		found := 0
		for _, s := range started {
			role, ok := side.seen[s.Application]
			if !ok {
				continue
			}
			found++
			if s.Workload.Job != job || s.Principal.Subject != side.user || s.Credential != role {
				t.Errorf("the session %s is recorded as that of job %s, principal %s, credential %s; it was %s, %s, %s",
					s.Application, s.Workload.Job, s.Principal.Subject, s.Credential, job, side.user, role)
			}
		}
		if found != rounds {
			t.Errorf("%d sessions of %s are recorded, of %d", found, side.name, rounds)
		}
	}
}

// served waits until what is asked for works: a first connection in a new
// namespace may be refused, with ECONNREFUSED and nothing else.
func (r *remote) served(words ...string) {
	r.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; {
		_, err := r.try(words...)
		if err == nil {
			return
		}
		if !strings.HasPrefix(err.Error(), "ECONNREFUSED ") || time.Now().After(deadline) {
			r.t.Fatalf("%s: %v", strings.Join(words, " "), err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// gone waits until a namespace that its test let go of doesn't exist any more.
func (w *world) gone(ns *lab.Netns) {
	w.t.Helper()
	deadline := time.Now().Add(90 * time.Second) // the daemon looks twice a minute
	for {
		if _, err := net.InterfaceByName(ns.Interface()); err != nil {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatal("a namespace that its planner left is still there")
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// unit makes a cgroup as systemd does for a unit, and starts a planner in it: one with
// all capabilities.
func (w *world) unit(name string, ns *lab.Netns) *remote {
	w.t.Helper()
	cgroup := filepath.Join(w.Cgroup(), name)
	if err := os.MkdirAll(cgroup, 0o755); err != nil {
		w.t.Fatal(err)
	}
	folder, err := os.Open(cgroup)
	if err != nil {
		w.t.Fatal(err)
	}
	defer folder.Close()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.CommandContext(w.t.Context(), "nsenter", "--net="+ns.Path(), self)
	cmd.Env = append(os.Environ(), "PGSSLROOTCERT="+filepath.Join(w.RunDir(), "trust", "ca.pem"))
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(folder.Fd())}
	planner := w.startRemote(cmd)
	// Until the daemon knows the cgroup it is refused, and may try again.
	w.until("a session of the unit "+name, func() bool {
		_, err := planner.try("session")
		return err == nil
	})
	return planner
}

// unitDocument selects what [world.unit] makes.
const unitDocument = `apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: units}
spec:
  select:
    systemd: {unit: "mover@*.service"}
`

func TestJobsThatMoveToAnotherNamespace(t *testing.T) {
	w := setUp(t, stage.Options{Slice: true, Documents: map[string]string{"unit.yaml": unitDocument}})
	t.Run("by setns", func(t *testing.T) {
		w := w.in(t)
		pair := lab.NetnsOptions{Inside: prefixes("10.30.0.2/24"), Outside: prefixes("10.30.0.1/24")}
		first, second := newNetns(t, pair), newNetns(t, pair)
		planner := w.unit("mover@one.service", first)
		planner.ask("enter", second.Path())
		planner.served("session")
		if err := first.Release(); err != nil {
			t.Fatal(err)
		}
		w.gone(first)
		planner.ask("session")
		planner.end()
		if err := os.Remove(filepath.Join(w.Cgroup(), "mover@one.service")); err != nil { // as systemd does
			t.Fatal(err)
		}
		if err := second.Release(); err != nil {
			t.Fatal(err)
		}
		w.gone(second)
	})
	t.Run("into a sandbox of its own", func(t *testing.T) {
		w := w.in(t)
		planner := w.remote(home{}, "nightly-sandbox", "unshare", "--user", "--map-root-user", "--net",
			"sh", "-c", `ip link set lo up && exec "$@"`, "sh")
		planner.refused("ENETUNREACH", "tcp", stage.Address+":22")
		planner.served("session")
	})
}

func TestJobsElsewhereOutliveTheDaemon(t *testing.T) {
	w := setUp(t, stage.Options{Slice: true, Documents: map[string]string{"unit.yaml": unitDocument}})
	pair := lab.NetnsOptions{Inside: prefixes("10.30.0.2/24"), Outside: prefixes("10.30.0.1/24")}
	planners := map[string]*remote{
		"the node's namespace":  w.remote(home{}, "nightly-here"),
		"a namespace":           w.remote(home{net: newNetns(t, pair)}, "nightly-away"),
		"another":               w.remote(home{net: newNetns(t, lab.NetnsOptions{})}, "nightly-alone"),
		"a unit in a namespace": w.unit("mover@stays.service", newNetns(t, pair)),
	}
	for where, planner := range planners {
		t.Log("at first, in", where)
		planner.ask("session")
	}
	for range 2 {
		if err := w.daemon.Kill(); err != nil {
			t.Fatal(err)
		}
		for where, planner := range planners {
			t.Log("without the daemon, in", where)
			planner.refused("ECONNREFUSED", "session")
		}
		w.up()
		for where, planner := range planners {
			t.Log("with another daemon, in", where)
			planner.ask("session")
		}
	}
	// One that is stopped in order does no more, and leaves nothing behind.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := w.daemon.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	for where, planner := range planners {
		t.Log("after the daemon, in", where)
		planner.refused("ECONNREFUSED", "session")
	}
	w.up()
	w.alive()
}
