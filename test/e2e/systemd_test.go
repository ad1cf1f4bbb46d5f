package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

// machine is a real systemd whose units' cgroups are below the planners' ancestor.
type machine struct {
	*world
	system *lab.Systemd
}

const unitsDocument = `apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: planners}
spec:
  select:
    systemd: {unit: 'planner[@\-]*'}
---
apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: bare-planners}
spec:
  select:
    systemd: {unit: "bare@*.service"}
`

// newMachine starts a stage with its daemon, and a systemd. Each instance of a unit runs
// the script of its name, and what that prints is kept. Units of planner@.service have the
// drop-in of deploy/, those of bare@.service don't; those of web@.service are no planners.
func newMachine(t *testing.T, documents map[string]string) *machine {
	t.Helper()
	options := stage.Options{
		Slice: true, Documents: map[string]string{"units.yaml": unitsDocument},
		Postgres: map[string]string{"log_connections": "on"},
	}
	for name, text := range documents {
		options.Documents[name] = text
	}
	m := &machine{world: setUp(t, options)}
	if _, err := m.Superuser(t.Context(), "CREATE ROLE direct LOGIN PASSWORD 'own' IN ROLE orders_reader"); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"scripts", "out"} {
		if err := os.Mkdir(m.Path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	unit := fmt.Sprintf(`[Service]
Type=oneshot
Environment=CHAPERONE_RUN_DIR=%s PGSSLROOTCERT=%s
StandardOutput=append:%s/%%n
StandardError=inherit
ExecStart=/bin/bash %s/%%i
`, m.RunDir(), m.Path("run", "trust", "ca.pem"), m.Path("out"), m.Path("scripts"))
	root := filepath.Join(m.Cgroup(), "host.slice")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var err error
	m.system, err = lab.StartSystemd(ctx, lab.SystemdOptions{
		Cgroup: root, SharedNetwork: true, Log: m.log,
		Units: map[string]string{
			"planner@.service": unit, "bare@.service": unit, "web@.service": unit,
			"planner@.service.d/50-chaperone.conf": m.dropIn("planner.conf"),
			"web@.service.d/50-chaperone.conf":     m.dropIn("mixed.conf"),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.system.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// dropIn is one of deploy/, for the binary and the daemon of the tests.
func (m *machine) dropIn(name string) string {
	m.t.Helper()
	text, err := os.ReadFile(filepath.Join("../../deploy/systemd", name))
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.NewReplacer("/usr/bin/chaperone", binary, "/run/chaperone", m.RunDir()).Replace(string(text))
}

// script is what the instances of that name run.
func (m *machine) script(name, text string) {
	m.t.Helper()
	if err := os.WriteFile(m.Path("scripts", name), []byte(text+"\n"), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// systemctl runs it inside.
func (m *machine) systemctl(words ...string) string {
	m.t.Helper()
	out, err := m.system.Systemctl(m.t.Context(), words...)
	if err != nil {
		m.t.Fatalf("%v; the unit printed: %s", err, m.printed(words[len(words)-1]))
	}
	return strings.TrimSpace(out)
}

// printed is what a unit printed since its last start.
func (m *machine) printed(unit string) string {
	out, err := os.ReadFile(m.Path("out", unit))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(out))
}

// run starts a unit, waits for its end, and returns what it printed.
func (m *machine) run(unit string) string {
	m.t.Helper()
	out, err := m.try(unit)
	if err != nil {
		m.t.Fatalf("%v; it printed: %s", err, out)
	}
	return out
}

// try is run for a unit that may fail.
func (m *machine) try(unit string) (string, error) {
	m.t.Helper()
	if err := os.Remove(m.Path("out", unit)); err != nil && !errors.Is(err, os.ErrNotExist) {
		m.t.Fatal(err)
	}
	_, err := m.system.Systemctl(m.t.Context(), "start", unit)
	return m.printed(unit), err
}

// words of a shell.
var (
	whoAmI    = strings.Join(quote(stage.Psql("-At", "-c", "SELECT current_user")), " ")
	slowQuery = "exec " + strings.Join(quote(stage.Psql("-At", "-c", stage.SlowQuery)), " ")
)

// ownWay connects with a password of its own, as somebody who is no planner does.
func (w *world) ownWay() string {
	return "PGPASSWORD=own psql -XAt -c 'SELECT current_user' 'host=" + stage.Host + " dbname=" + stage.Database +
		" user=direct sslmode=verify-full sslrootcert=" + w.Path("target-ca.pem") + "'"
}

// connectFirst connects and does nothing else. Nothing that the server sees comes of it by way
// of Chaperone.
const connectFirst = "exec 3<>/dev/tcp/" + stage.Address + "/5432 && echo connected"

// strays is how many connections the server has accepted that said nothing, as [connectFirst]
// does: the daemon's own, and those of sessions, say who they are.
func (w *world) strays() int {
	w.t.Helper()
	// What was accepted before this one is in the log when it was answered.
	if _, err := w.Superuser(w.t.Context(), "SELECT 1"); err != nil {
		w.t.Fatal(err)
	}
	log := w.log.String()
	return strings.Count(log, "connection received: ") - strings.Count(log, "connection authorized: ")
}

// noStrays waits until no more than before are known.
func (w *world) noStrays(before int) {
	w.t.Helper()
	w.until("a server with no connection past the daemon", func() bool { return w.strays() == before })
}

// started waits for the first session whose event fits, and returns it.
func (w *world) started(fits func(event.SessionStarted) bool) (found event.SessionStarted) {
	w.t.Helper()
	w.until("a session that fits", func() bool {
		for _, e := range w.events() {
			var data event.SessionStarted
			if e.Kind() != event.TypeSessionStarted {
				continue
			}
			if err := json.Unmarshal(e.Data, &data); err != nil {
				w.t.Fatal(err)
			}
			if fits(data) {
				found = data
				return true
			}
		}
		return false
	})
	return found
}

func TestUnitsOfSystemd(t *testing.T) {
	m := newMachine(t, nil)
	m.script("who", whoAmI)
	m.script("slow", slowQuery)
	m.script("own", m.ownWay())

	t.Run("a unit has its session", func(t *testing.T) {
		m.t = t
		out := m.run("planner@who.service")
		role := out[strings.LastIndexByte(out, '\n')+1:]
		if !strings.HasPrefix(role, "chaperone_planner_who_service_") || !strings.Contains(out, "admitted as planner job planner-who-service-") {
			t.Fatalf("the unit printed %q", out)
		}
		s := m.started(func(s event.SessionStarted) bool { return s.Credential == role })
		if s.Principal.Subject != "planner@who.service" || s.Principal.Issuer != "local" ||
			s.Workload.Kind != "systemd" || s.Workload.Unit != "planner@who.service" {
			t.Errorf("recorded as %+v, %+v", s.Principal, s.Workload)
		}
		m.noRoles()
	})
	t.Run("each start is a job, which ends with the unit", func(t *testing.T) {
		m.t = t
		var jobs []string
		for range 2 {
			m.systemctl("start", "--no-block", "planner@slow.service")
			m.running(1)
			s := m.started(func(s event.SessionStarted) bool {
				return s.Workload.Unit == "planner@slow.service" && (len(jobs) == 0 || s.Workload.Job != jobs[0])
			})
			jobs = append(jobs, s.Workload.Job)
			m.systemctl("stop", "planner@slow.service")
			ended := m.event(event.TypeSessionEnded, func(data map[string]any) bool { return data["session"] == s.Session })
			if ended["reason"] == event.ReasonTruncated {
				t.Errorf("the session's end is %v", ended["reason"])
			}
			m.running(0)
			m.noRoles()
		}
	})
	t.Run("others go their way", func(t *testing.T) {
		m.t = t
		if out := m.run("web@own.service"); !strings.HasSuffix(out, "direct") || !strings.Contains(out, "admitted as no planner") {
			t.Errorf("it printed %q", out)
		}
		// A planner that has a password is not somebody else for that.
		m.script("password", strings.Replace(m.ownWay(), "target-ca.pem", "run/trust/ca.pem", 1))
		if out := m.run("planner@password.service"); !strings.Contains(out, "\nchaperone_planner_password_service_") {
			t.Errorf("a planner with a password printed %q", out)
		}
	})
	t.Run("what is neither is refused", func(t *testing.T) {
		m.t = t
		before := m.strays()
		for _, name := range []string{"strange", "strange.slice", "planner@x.service.d"} {
			out := m.within(filepath.Join(m.Cgroup(), name), "bash", "-c", connectFirst)
			if out.code == 0 || !strings.Contains(out.out, "refused") && !strings.Contains(out.out, "not permitted") {
				t.Errorf("in %s: exit code %d, printed %q", name, out.code, out.out)
			}
		}
		m.noStrays(before)
	})
	t.Run("cgroups that a unit makes are its own", func(t *testing.T) {
		m.t = t
		m.script("nest", `own=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)
mkdir -p $own/web@own.service/system.slice/web@own.service
echo $$ >$own/web@own.service/system.slice/web@own.service/cgroup.procs || exit 1
`+whoAmI)
		if err := m.system.WriteUnit(t.Context(), "planner@nest.service.d/60-delegate.conf", "[Service]\nDelegate=yes\n"); err != nil {
			t.Fatal(err)
		}
		if out := m.run("planner@nest.service"); !strings.Contains(out, "\nchaperone_planner_nest_service_") {
			t.Errorf("it printed %q", out)
		}
		m.started(func(s event.SessionStarted) bool { return s.Workload.Unit == "planner@nest.service" })
	})
	t.Run("a unit in a network namespace of its own", func(t *testing.T) {
		m.t = t
		m.script("alone", "echo 127.0.0.1 "+stage.Host+">/dev/null; "+connectFirst+"; "+whoAmI)
		if err := m.system.WriteUnit(t.Context(), "planner@alone.service.d/60-network.conf", "[Service]\nPrivateNetwork=yes\n"); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if out := m.run("planner@alone.service"); !strings.Contains(out, "connected\nchaperone_planner_alone_service_") {
				t.Errorf("it printed %q", out)
			}
		}
	})
	t.Run("a transient scope", func(t *testing.T) {
		m.t = t
		// Nothing holds a scope's command until it is known, so its first connections may be
		// refused. None gets through.
		before := m.strays()
		scope := m.do(m.system.Command(t.Context(), "systemd-run", "--scope", "--quiet", "--unit=planner-7",
			"bash", "-c", "for n in {1..100}; do (exec 3<>/dev/tcp/"+stage.Address+"/5432) 2>/dev/null && break; done; echo tries $n; sleep 0.2; "+
				"PGSSLROOTCERT="+m.Path("run", "trust", "ca.pem")+" "+whoAmI))
		scope.want(t, 0, "tries", "chaperone_planner_7_scope_")
		s := m.started(func(s event.SessionStarted) bool { return s.Workload.Unit == "planner-7.scope" })
		if s.Principal.Subject != "planner-7.scope" {
			t.Errorf("recorded as %+v", s.Principal)
		}
		m.noStrays(before)
	})
	t.Run("the daemon comes back", func(t *testing.T) {
		m.t = t
		m.script("again", "for n in {1..3000}; do test -e "+m.Path("go")+" && break; sleep 0.01; done; "+whoAmI)
		m.systemctl("start", "--no-block", "planner@again.service")
		m.until("an admitted unit", func() bool { return strings.Contains(m.printed("planner@again.service"), "admitted") })
		if err := m.daemon.Kill(); err != nil {
			t.Fatal(err)
		}
		// No unit starts without it, and it is seen to fail.
		if err := m.system.WriteUnit(t.Context(), "planner@who.service.d/60-soon.conf",
			"[Service]\nExecCondition=\nExecCondition="+binary+" admit --planner --timeout 300ms\n"); err != nil {
			t.Fatal(err)
		}
		out, err := m.try("planner@who.service")
		if err == nil {
			t.Error("a unit started without the daemon")
		}
		if state := m.systemctl("show", "-P", "ActiveState", "planner@who.service"); state != "failed" {
			t.Errorf("the unit is %s", state)
		}
		if !strings.Contains(out, "is not running") {
			t.Errorf("it printed %q", out)
		}
		m.up()
		if err := os.WriteFile(m.Path("go"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		m.until("the end of the unit", func() bool {
			return m.systemctl("show", "-P", "ActiveState", "planner@again.service") != "activating"
		})
		if out := m.printed("planner@again.service"); !strings.Contains(out, "\nchaperone_planner_again_service_") {
			t.Errorf("it printed %q", out)
		}
	})
}

// A daemon that starts with other documents lets no unit go that was a planner before.
func TestUnitsStayPlannersWhateverTheDocumentsSay(t *testing.T) {
	m := newMachine(t, nil)
	m.script("before", "while ! test -e "+m.Path("go")+"; do sleep 0.01; done; "+m.ownWay())
	m.systemctl("start", "--no-block", "planner@before.service")
	m.until("an admitted unit", func() bool { return strings.Contains(m.printed("planner@before.service"), "admitted") })
	if err := m.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(m.ConfigDir(), "units.yaml")); err != nil {
		t.Fatal(err)
	}
	m.up()
	m.script("own", m.ownWay())
	if out := m.run("web@own.service"); !strings.HasSuffix(out, "direct") { // known, so the others are too
		t.Errorf("who is no planner printed %q", out)
	}
	if err := os.WriteFile(m.Path("go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	m.until("the end of the unit", func() bool {
		return m.systemctl("show", "-P", "ActiveState", "planner@before.service") != "activating"
	})
	if out := m.printed("planner@before.service"); strings.HasSuffix(out, "\ndirect") {
		t.Errorf("the planner goes its own way; it printed %q", out)
	}
}

// What a unit does first is enforced: with the drop-in it works, without it it may be refused.
func TestFirstInstructionOfUnits(t *testing.T) {
	m := newMachine(t, nil)
	m.script("first", connectFirst)
	const starts = 50
	before := m.strays()
	for _, unit := range []string{"planner@first.service", "bare@first.service"} {
		connected := 0
		for n := range starts {
			out, err := m.try(unit)
			switch {
			case err == nil && strings.HasSuffix(out, "connected"):
				connected++
			case strings.HasPrefix(unit, "planner@"):
				t.Fatalf("start %d of %s: %v; it printed %q", n, unit, err, out)
			case !strings.Contains(out, "refused") && !strings.Contains(out, "not permitted"):
				t.Fatalf("start %d of %s: %v; it printed %q", n, unit, err, out)
			}
		}
		t.Logf("%s: %d of %d first connections were taken", unit, connected, starts)
		m.noStrays(before)
	}
}

func TestAdmissionOfWhatCantBeEnforced(t *testing.T) {
	m := newMachine(t, map[string]string{"both.yaml": `apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: some-planners}
spec:
  select:
    systemd: {unit: "planner@both.service"}
`})
	m.script("both", whoAmI)
	m.script("web", whoAmI)
	for _, test := range []struct{ unit, dropIn, want string }{
		{"planner@both.service", "", "more than one Workload document selects the job"},
		{"web@web.service", "[Service]\nExecCondition=\nExecCondition=" + binary + " admit --planner\n", "no Workload document selects the unit"},
	} {
		if test.dropIn != "" {
			if err := m.system.WriteUnit(t.Context(), test.unit+".d/60-more.conf", test.dropIn); err != nil {
				t.Fatal(err)
			}
		}
		out, err := m.try(test.unit)
		if err == nil {
			t.Errorf("%s started", test.unit)
		}
		if state := m.systemctl("show", "-P", "ActiveState", test.unit); state != "failed" {
			t.Errorf("%s is %s", test.unit, state)
		}
		if !strings.Contains(out, test.want) {
			t.Errorf("%s printed %q", test.unit, out)
		}
	}
	m.do(m.Command(t.Context(), "admit")).want(t, 255, "nothing is enforced in its cgroup")
	m.planner(binary, "--run-dir", m.RunDir(), "admit", "--planner").want(t, 0, "admitted as planner job nightly-test-")
}

// running waits until so many of the slow queries run.
func (w *world) running(count int) {
	w.t.Helper()
	w.until(fmt.Sprintf("%d running queries", count), func() bool {
		n, err := w.SlowQueries(w.t.Context())
		return err == nil && n == count
	})
}

// within runs a command in a cgroup, which it makes.
func (w *world) within(cgroup string, words ...string) result {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), words[0], words[1:]...)
	w.into(cmd, cgroup)
	return w.do(cmd)
}

// into has a command start in a cgroup, which it makes.
func (w *world) into(cmd *exec.Cmd, cgroup string) {
	w.t.Helper()
	if err := os.MkdirAll(cgroup, 0o755); err != nil {
		w.t.Fatal(err)
	}
	folder, err := os.Open(cgroup)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { folder.Close() })
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(folder.Fd()), Pdeathsig: syscall.SIGKILL}
}

// A unit that has to prove who it is does so by a token in its own file system.
func TestTokensOfUnits(t *testing.T) {
	idp := newIDP(t)
	m := newMachine(t, map[string]string{"units.yaml": `apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: planners}
spec:
  select:
    systemd: {unit: "planner@*.service"}
  identity: {issuer: corp-idp, tokenFile: /run/planner/token}
`, "idp.yaml": `apiVersion: chaperone.dev/v1alpha1
kind: IdentityProvider
metadata: {name: corp-idp}
spec:
  issuer: "` + idp.url + `"
  audiences: [chaperone]
  caFile: "` + idp.caFile + `"
`})
	token := idp.token(t)
	secret := filepath.Join(t.TempDir(), "secret") // the node's own, where no planner should be led to
	if err := os.WriteFile(secret, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, prepare, want string }{
		{"file", "cp " + m.file("token", token) + " /run/planner/token", ""},
		{"link-inside", "cp " + m.file("token", token) + " /run/planner/real; ln -s real /run/planner/token", ""},
		{"no-file", "true", "no such file"},
		{"empty", ": >/run/planner/token", "empty"},
		{"wrong", "echo a.b.c >/run/planner/token", "token"},
		{"fifo", "mkfifo /run/planner/token", "no regular file"},
		{"device", "ln -s /dev/zero /run/planner/token", "no regular file"},
		{"folder", "mkdir /run/planner/token", "no regular file"},
		{"magic-link", "ln -s /proc/1/root" + secret + " /run/planner/token", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			m.t = t
			m.script(test.name, "mkdir -p /run/planner; rm -rf /run/planner/*; "+test.prepare+"\n"+whoAmI)
			unit := "planner@" + test.name + ".service"
			out, err := m.try(unit)
			switch {
			case test.name == "magic-link":
				if err == nil || strings.Contains(out, "chaperone_planner") {
					t.Errorf("a link through /proc was followed: %q", out)
				}
			case test.want == "":
				if err != nil || !strings.Contains(out, "\nchaperone_planner_") {
					t.Fatalf("%v; it printed %q", err, out)
				}
				s := m.started(func(s event.SessionStarted) bool { return s.Workload.Unit == unit })
				if s.Principal.Subject != "planner-7" || s.Principal.Issuer != "corp-idp" {
					t.Errorf("recorded as %+v", s.Principal)
				}
			case err == nil || !strings.Contains(out, test.want):
				t.Errorf("%v; it printed %q, want %q", err, out, test.want)
			}
		})
	}
	t.Run("in a root of its own", func(t *testing.T) {
		m.t = t
		// The path leads to the node's secret for whoever sees the node's files. The
		// unit's root is another folder, in which it leads nowhere.
		m.script("jail", "mount -t tmpfs none /run; mkdir -p /run/planner; ln -s ../../../../../.."+secret+" /run/planner/token; mount -t tmpfs none "+
			filepath.Dir(secret)+"; "+whoAmI)
		if err := m.system.WriteUnit(t.Context(), "planner@jail.service.d/60-mounts.conf", "[Service]\nPrivateMounts=yes\n"); err != nil {
			t.Fatal(err)
		}
		if out, err := m.try("planner@jail.service"); err == nil || !strings.Contains(out, "no such file") {
			t.Errorf("%v; it printed %q", err, out)
		}
	})
}

// idp is a real OpenID provider on loopback.
type idp struct {
	*storage.Storage
	url, caFile string
	server      *httptest.Server
}

// jwtClient gets JWTs instead of opaque tokens.
type jwtClient struct{ op.Client }

func (jwtClient) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }

func (p *idp) ClientCredentials(ctx context.Context, id, secret string) (op.Client, error) {
	client, err := p.Storage.ClientCredentials(ctx, id, secret)
	return jwtClient{client}, err
}

func (p *idp) ClientCredentialsTokenRequest(context.Context, string, []string) (op.TokenRequest, error) {
	return &oidc.JWTTokenRequest{Subject: "planner-7", Audience: []string{"chaperone"}}, nil
}

func (p *idp) CreateAccessToken(context.Context, op.TokenRequest) (string, time.Time, error) {
	return "token-id", time.Now().Add(time.Hour), nil
}

func (p *idp) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil
}

func newIDP(t *testing.T) *idp {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &idp{url: "https://" + listener.Addr().String(), caFile: filepath.Join(t.TempDir(), "idp-ca.pem")}
	p.Storage = storage.NewStorage(storage.NewUserStore(p.url))
	provider, err := op.NewProvider(&op.Config{AuthMethodPost: true}, p, op.StaticIssuer(p.url), op.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := lab.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := pair.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.caFile, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	p.server = &httptest.Server{Listener: listener, Config: &http.Server{Handler: provider}}
	p.server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	p.server.StartTLS()
	t.Cleanup(p.server.Close)
	return p
}

// token gets one the way a workload would.
func (p *idp) token(t *testing.T) string {
	t.Helper()
	response, err := p.server.Client().PostForm(p.url+"/oauth/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {"sid1"}, "client_secret": {"verysecret"}, "scope": {"openid"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || strings.Count(answer.AccessToken, ".") != 2 {
		t.Fatalf("the provider gave no token: %v", err)
	}
	return answer.AccessToken
}
