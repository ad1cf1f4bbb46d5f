package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/lock"
	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

// twoTargets is a stage whose server is two targets, by two addresses.
func twoTargets() stage.Options {
	documents := stage.Documents()
	billing := strings.NewReplacer("name: orders-db", "name: billing-db", stage.Host, stage.Elsewhere).Replace(documents["target.yaml"])
	return stage.Options{
		Addresses: []string{stage.Elsewhere}, Names: []string{stage.Elsewhere},
		Documents: map[string]string{
			"billing.yaml": billing,
			"policy.yaml":  strings.Replace(documents["policy.yaml"], "targets: [orders-db]", "targets: [orders-db, billing-db]", 1),
		},
	}
}

// actor is somebody who has a session: the job, whom it acts for, and where it goes.
type actor struct {
	job    string
	nobody bool // the job is user nobody's, else root's
	host   string
}

// psql is a planner's psql at the actor's.
func (a actor) psql(w *world, args ...string) *exec.Cmd {
	dsn := strings.Replace(stage.ConnString, stage.Host, a.host, 1)
	cmd := w.Planner(w.t.Context(), a.job, stage.Psql(append([]string{"-d", dsn, "-Atq"}, args...)...)...)
	if a.nobody {
		cmd.Dir, cmd.Env = "/", append(cmd.Env, "HOME=/nonexistent")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	return cmd
}

// held is a session that stays open.
type held struct {
	shell
	role  string
	words strings.Builder // what it complained of
}

func (w *world) hold(a actor) *held {
	w.t.Helper()
	h := &held{shell: shell{t: w.t, cmd: a.psql(w)}}
	h.cmd.Stderr = &h.words
	var err error
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		w.t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	h.out = bufio.NewScanner(out)
	w.t.Cleanup(func() { h.in.Close(); h.cmd.Wait() })
	h.role = h.ask("SELECT current_user")
	return h
}

// cut fails the test unless the session is at its end, and was told why.
func (h *held) cut(texts ...string) {
	h.t.Helper()
	// An idle psql hears nothing until it is asked for something.
	fmt.Fprintln(h.in, "SELECT 'still here';")
	kill := time.AfterFunc(time.Minute, func() { h.cmd.Process.Kill() })
	defer kill.Stop()
	for h.out.Scan() {
		h.t.Errorf("a session that is locked answered %q", h.out.Text())
	}
	_ = h.cmd.Wait()
	result{h.words.String(), h.cmd.ProcessState.ExitCode()}.want(h.t, 2, append(texts, "FATAL:")...)
}

// unharmed fails the test unless the session still answers, as who it was.
func (h *held) unharmed() {
	h.t.Helper()
	if got := h.ask("SELECT current_user"); got != h.role {
		h.t.Errorf("a session that no lock is for is %q's, and was %q's", got, h.role)
	}
}

// locked is a lock that was put in force.
type locked struct {
	id    string
	until string   // as clients are told it
	told  []string // what they are told
}

// lock puts a lock in force, and waits until it is. It holds for an hour if the
// arguments don't say for how long.
func (w *world) lock(args ...string) (l locked, applied map[string]any) {
	w.t.Helper()
	args = append([]string{"lock", "-o", "json", "--reason", "they read too much"}, args...)
	if !slices.Contains(args, "--for") {
		args = append(args, "--for", "1h")
	}
	r := w.do(w.Command(w.t.Context(), args...))
	r.want(w.t, 0)
	var e lock.Entry
	if err := json.Unmarshal([]byte(r.out), &e); err != nil {
		w.t.Fatalf("%v: %s", err, r.out)
	}
	l = locked{id: e.Lock.ID, until: e.Lock.Expires.UTC().Format(time.RFC3339)}
	l.told = []string{"locked by root@local until " + l.until + ": they read too much"}
	applied = w.event(event.TypeLockApplied, func(data map[string]any) bool { return data["lock"] == l.id })
	return l, applied
}

// unlock releases a lock, and waits until it is not in force any more.
func (w *world) unlock(id string) {
	w.t.Helper()
	w.do(w.Command(w.t.Context(), "unlock", id, "--reason", "it was a mistake")).want(w.t, 0, "Released "+id)
	ended := w.event(event.TypeLockEnded, func(data map[string]any) bool { return data["lock"] == id })
	by, _ := ended["by"].(map[string]any)
	if ended["reason"] != "released" || by["subject"] != "root" || by["issuer"] != "local" {
		w.t.Errorf("the event of the release says %v", ended)
	}
}

// letIn fails the test unless the actor gets a session.
func (w *world) letIn(a actor) {
	w.t.Helper()
	w.do(a.psql(w, "-c", "SELECT 'let in'")).want(w.t, 0, "let in")
}

// refusedBy fails the test unless the actor gets no session, and is told why.
func (w *world) refusedBy(l locked, a actor) {
	w.t.Helper()
	w.do(a.psql(w, "-c", "SELECT 'let in'")).want(w.t, 2, append(l.told, "FATAL:")...)
	w.event(event.TypeSessionRefused, func(data map[string]any) bool {
		message, _ := data["message"].(string)
		return data["reason"] == event.ReasonLocked && strings.Contains(message, l.until) && strings.Contains(fmt.Sprint(data["workload"]), a.job)
	})
}

// A lock cuts what it is for, keeps it out, and takes its credentials, until it is released; and
// does nothing to anybody else.
func TestLock(t *testing.T) {
	all := setUp(t, twoTargets())
	actors := []actor{
		{job: "nightly-one", host: stage.Host},
		{job: "nightly-two", host: stage.Host, nobody: true},
		{job: "nightly-three", host: stage.Elsewhere},
	}
	for _, c := range []struct {
		name string
		args []string // JOB stands for the id of the first one's job
		cuts []int
		once bool // it is for jobs that are there, and for no later one of their names
	}{
		{"principal", []string{"--principal", "root@local"}, []int{0, 2}, false},
		{"another principal", []string{"--principal", "nobody@local"}, []int{1}, false},
		{"job name", []string{"--workload", "nightly-one"}, []int{0}, false},
		{"job id", []string{"--workload", "JOB"}, []int{0}, true},
		{"Workload document", []string{"--workload", "nightly-planner"}, []int{0, 1, 2}, false},
		{"target", []string{"--target", "orders-db"}, []int{0, 1}, false},
		{"principal and target", []string{"--principal", "root@local", "--target", "orders-db"}, []int{0}, false},
		{"nobody who is there", []string{"--workload", "nightly-one", "--target", "billing-db"}, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := all.in(t)
			w.noRoles()
			before := len(w.eventsOf(event.TypeSessionStarted))
			var sessions []*held
			var left []string // roles
			for n, a := range actors {
				sessions = append(sessions, w.hold(a))
				if !slices.Contains(c.cuts, n) {
					left = append(left, sessions[n].role)
				}
			}
			for n, arg := range c.args {
				if arg == "JOB" {
					started := w.startedBy("nightly-one", before)
					c.args[n] = started["workload"].(map[string]any)["job"].(string)
				}
			}
			l, applied := w.lock(c.args...)
			if applied["cut"] != float64(len(c.cuts)) || applied["revoked"] != float64(len(c.cuts)) {
				t.Errorf("the event says %v cut and %v revoked, want %d of each", applied["cut"], applied["revoked"], len(c.cuts))
			}
			if applied["reason"] != "they read too much" || fmt.Sprint(applied["by"]) == "" {
				t.Errorf("the event says %v", applied)
			}
			// The clients that were cut are still there; their roles are not.
			slices.Sort(left)
			if roles, err := w.Roles(t.Context()); err != nil || !slices.Equal(roles, left) {
				t.Errorf("the server has the roles %v, want %v; %v", roles, left, err)
			}
			for n, s := range sessions {
				if !slices.Contains(c.cuts, n) {
					s.unharmed()
					w.letIn(actors[n])
					continue
				}
				s.cut(append(l.told, "Lock "+l.id)...)
				w.event(event.TypeCredentialRevoked, func(data map[string]any) bool {
					return data["name"] == s.role && data["why"] == "locked" && data["verified"] == true
				})
				if c.once {
					w.letIn(actors[n])
					continue
				}
				w.refusedBy(l, actors[n])
			}
			w.do(w.Command(t.Context(), "locks")).want(t, 0, l.id+"  in force  ", "they read too much")
			w.unlock(l.id)
			w.do(w.Command(t.Context(), "locks")).want(t, 0, l.id+"  released by root@local", "it was a mistake")
			for _, a := range actors {
				w.letIn(a)
			}
			for n, s := range sessions {
				if !slices.Contains(c.cuts, n) {
					s.unharmed()
					s.close()
				}
			}
		})
	}
}

// startedBy is what is told of the job's session that began after the first so many.
func (w *world) startedBy(job string, before int) (found map[string]any) {
	w.t.Helper()
	w.until("a session of "+job, func() bool {
		for n, data := range w.eventsOf(event.TypeSessionStarted) {
			if n >= before && data["workload"].(map[string]any)["name"] == job {
				found = data
				return true
			}
		}
		return false
	})
	return found
}

// The lock of one session leaves its job alone: other sessions, new ones, and the account that
// they share.
func TestLockOfASession(t *testing.T) {
	w := setUp(t, stage.Options{})
	// Two sessions of one job: the second is asked for more in the first one's file.
	more, answer := w.Path("more"), w.Path("answer")
	if err := syscall.Mkfifo(more, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(answer, 0o600); err != nil {
		t.Fatal(err)
	}
	psql := strings.Join(quote(stage.Psql("-Atq")), " ")
	h := &held{shell: shell{t: t, cmd: w.Planner(t.Context(), "nightly-pair", "sh", "-c", psql+` <"$0" >"$1" 2>/dev/null & exec `+psql, more, answer)}}
	h.cmd.Stderr = &h.words
	var err error
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.out = bufio.NewScanner(out)
	t.Cleanup(func() { h.in.Close(); h.cmd.Wait() })
	h.role = h.ask("SELECT current_user")
	id := w.startedBy("nightly-pair", 0)["session"].(string)

	in, read := openBoth(t, more, answer)
	other := &shell{t: t, in: in, out: bufio.NewScanner(read)}
	if got := other.ask("SELECT current_user"); got != h.role {
		t.Fatalf("one job has the roles %q and %q", got, h.role)
	}
	l, applied := w.lock("--session", id)
	if applied["cut"] != 1.0 || applied["revoked"] != 0.0 {
		t.Errorf("the event says %v cut and %v revoked", applied["cut"], applied["revoked"])
	}
	ended := w.event(event.TypeSessionEnded, func(data map[string]any) bool { return data["session"] == id })
	if ended["reason"] != event.ReasonLocked || !strings.Contains(fmt.Sprint(ended["message"]), l.told[0]) {
		t.Errorf("the event of its end says %v", ended)
	}
	if roles, err := w.Roles(t.Context()); err != nil || !slices.Equal(roles, []string{h.role}) {
		t.Errorf("the server has the roles %v, want %s; %v", roles, h.role, err)
	}
	if got := other.ask("SELECT current_user"); got != h.role {
		t.Errorf("the other session is %q's, and was %q's", got, h.role)
	}
	other.ask("\\connect\nSELECT 1")
	if got := other.ask("SELECT current_user"); got != h.role {
		t.Errorf("the job's next session is %q's, and the one before was %q's", got, h.role)
	}
	h.cut(l.told...)
	in.Close()
	w.unlock(l.id)
}

// openBoth opens the ends of two FIFOs that another process has opened, or is about to.
func openBoth(t *testing.T, write, read string) (io.WriteCloser, io.Reader) {
	t.Helper()
	w, err := os.OpenFile(write, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(read, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(); r.Close() })
	return w, r
}

// A lock is over when its time is, without anybody.
func TestLockExpires(t *testing.T) {
	w := setUp(t, stage.Options{})
	one := actor{job: "nightly-one", host: stage.Host}
	session := w.hold(one)
	l, applied := w.lock("--workload", one.job, "--for", "3s")
	if applied["cut"] != 1.0 {
		t.Errorf("the event says %v cut", applied["cut"])
	}
	session.cut(l.told...)
	ended := w.event(event.TypeLockEnded, func(data map[string]any) bool { return data["lock"] == l.id })
	if ended["reason"] != "expired" || ended["by"] != nil {
		t.Errorf("the event of its end says %v", ended)
	}
	w.letIn(one)
	w.do(w.Command(t.Context(), "locks")).want(t, 0, l.id+"  over  ")
	w.do(w.Command(t.Context(), "unlock", l.id)).want(t, 1, "over already")
}

// A lock ends by its time or by who may release it: not with the daemon, and not by what
// becomes of it in NATS. And nobody but the authority makes one.
func TestLockLasts(t *testing.T) {
	w := setUp(t, stage.Options{})
	one := actor{job: "nightly-one", host: stage.Host}
	said := func(text, lock string) {
		t.Helper()
		w.until("a line on lock "+lock+", "+text, func() bool {
			for line := range strings.Lines(w.log.String()) {
				if strings.Contains(line, text) && strings.Contains(line, lock) {
					return true
				}
			}
			return false
		})
	}

	// What is in the bucket and not the authority's locks nothing.
	stranger, err := authority.OpenSigner(w.Path("stranger"))
	if err != nil {
		t.Fatal(err)
	}
	forged := lock.Lock{ID: lock.NewID(), Target: "orders-db", Created: time.Now(), Expires: time.Now().Add(time.Hour)}
	unsigned := forged
	unsigned.ID = lock.NewID()
	text, err := json.Marshal(lock.Entry{Lock: unsigned})
	if err != nil {
		t.Fatal(err)
	}
	text, err = json.Marshal(authority.Signed{Payload: text})
	if err != nil {
		t.Fatal(err)
	}
	bucket := w.lockBucket()
	if _, err := lock.Put(t.Context(), bucket, stranger, forged); err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.Put(t.Context(), unsigned.ID, text); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{forged.ID, unsigned.ID} {
		said("a lock is not taken", id)
	}
	w.letIn(one)

	l, _ := w.lock("--target", "orders-db")
	w.refusedBy(l, one)
	restart := func() {
		t.Helper()
		if err := w.daemon.Kill(); err != nil {
			t.Fatal(err)
		}
		w.up()
	}
	restart()
	w.refusedBy(l, one)

	if err := w.lockBucket().Delete(t.Context(), l.id); err != nil {
		t.Fatal(err)
	}
	said("that ends none", l.id)
	w.refusedBy(l, one)
	restart()
	w.refusedBy(l, one)

	// The bucket is lost altogether.
	if err := w.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	store := w.Path("state", "nats", "store", "jetstream", "$G", "streams", "KV_"+lock.Bucket)
	if _, err := os.Stat(store); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(store); err != nil {
		t.Fatal(err)
	}
	w.up()
	w.refusedBy(l, one)
}

// lockBucket is the bucket of locks, as the sink may write it.
func (w *world) lockBucket() jetstream.KeyValue {
	w.t.Helper()
	key, err := nats.NkeyOptionFromSeed(w.Path("state", "nats", "sink.nk"))
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := nats.Connect("nats://127.0.0.1:4222", key, nats.CustomInboxPrefix("_INBOX_sink"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		w.t.Fatal(err)
	}
	kv, err := js.KeyValue(w.t.Context(), lock.Bucket)
	if err != nil {
		w.t.Fatal(err)
	}
	return kv
}

// A lock reaches the sessions of a daemon that another one has taken over from, and holds
// through that.
func TestLockReachesDrainingDaemon(t *testing.T) {
	w := setUp(t, twoTargets())
	one := actor{job: "nightly-one", host: stage.Host}
	two := actor{job: "nightly-two", host: stage.Elsewhere}
	three := actor{job: "nightly-three", host: stage.Host}
	four := actor{job: "nightly-four", host: stage.Host}
	single, old, other := w.hold(three), w.hold(one), w.hold(two)
	id := w.startedBy(three.job, 0)["session"].(string)
	before, _ := w.lock("--workload", "nightly-four")
	first := w.upgrade()
	old.unharmed()
	w.refusedBy(before, four)

	// Its account stays, so it is the other daemon alone that cuts the session.
	alone, _ := w.lock("--session", id)
	w.until("the session's end at the server", func() bool {
		return w.mustAsk("SELECT count(*) FROM pg_stat_activity WHERE usename = '"+single.role+"'") == "0"
	})
	single.cut(alone.told...)

	l, _ := w.lock("--target", "orders-db")
	w.event(event.TypeLockApplied, func(data map[string]any) bool { return data["lock"] == l.id && data["revoked"] == 1.0 })
	if roles, err := w.Roles(t.Context()); err != nil || !slices.Equal(roles, []string{other.role}) {
		t.Errorf("the server has the roles %v, want %s; %v", roles, other.role, err)
	}
	old.cut() // by a word of either daemon's, or of the server that took the account
	w.refusedBy(l, one)
	other.unharmed()
	other.close()
	w.drained(first)
	// What the other daemon wrote down comes by this one, now that it has ended.
	w.event(event.TypeSessionEnded, func(data map[string]any) bool {
		return data["session"] == id && data["reason"] == event.ReasonLocked
	})
	for _, lock := range []string{alone.id, l.id} {
		w.event(event.TypeLockApplied, func(data map[string]any) bool { return data["lock"] == lock && data["cut"] == 1.0 })
	}
	w.unlock(l.id)
	w.letIn(one)
	w.refusedBy(before, four)
	w.noRoles()
}

// A planner's process asks nothing of the sink's socket, though it is root's: it would lift its
// own lock.
func TestPlannerMayNotLock(t *testing.T) {
	w := setUp(t, stage.Options{})
	l, _ := w.lock("--workload", "nightly-other")
	for _, args := range [][]string{
		{"locks"}, {"lock", "--target", "orders-db", "--for", "1h"}, {"unlock", l.id}, {"approvals", "list"},
	} {
		words := append([]string{binary, "--run-dir", w.RunDir()}, args...)
		w.planner(words...).want(t, 1, "a planner's process may not ask here")
	}
	w.alive()
	r := w.do(w.Command(t.Context(), "locks"))
	r.want(t, 0, l.id+"  in force")
	if n := strings.Count(r.out, "l-"); n != 1 {
		t.Errorf("%d locks:\n%s", n, r.out)
	}
}
