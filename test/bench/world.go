package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"chaperone.dev/chaperone/internal/stage"
)

// What is measured with. The password is the benchmark's own role's, at a
// server that lives as long as the benchmark.
const (
	scale        = 10
	bigRows      = 1_000_000
	benchUser    = "bench"
	benchWord    = "bench"
	bouncerPort  = 6432
	haproxyPort  = 7432
	relayPort    = 8432
	natsPort     = 4333
	readyTimeout = 30 * time.Second
)

// path is one way from the client to the server.
type path struct {
	name    string
	pid     int                                                              // of the proxy; 0: there is none
	command func(ctx context.Context, name string, args ...string) *exec.Cmd // runs a client program
	port    int
}

// world is all paths at once, on one server.
type world struct {
	stage   *stage.Stage
	dir     string
	paths   []*path
	daemon  int // its process id
	running []*exec.Cmd
}

func setUp(ctx context.Context, dir string, binaries binaries) (_ *world, err error) {
	w := &world{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close(context.WithoutCancel(ctx)))
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	w.stage, err = stage.New(ctx, stage.Options{
		Binary: binaries.chaperone, Log: log, Documents: documents(), Plain: true,
		Postgres: map[string]string{"shared_buffers": "512MB", "max_connections": strconv.Itoa(idleSessions + 200)},
	})
	if err != nil {
		return nil, err
	}
	if err := w.fill(ctx); err != nil {
		return nil, err
	}
	w.paths = []*path{{name: "direct", port: stage.Port, command: exec.CommandContext}}
	if err := w.startPgbouncer(ctx); err != nil {
		return nil, err
	}
	if err := w.startHAProxy(ctx); err != nil {
		return nil, err
	}
	if err := w.startRelay(ctx); err != nil {
		return nil, err
	}
	if err := w.startNATS(ctx, binaries.nats, log); err != nil {
		return nil, err
	}
	daemon, err := w.stage.Start(ctx, exec.Command(binaries.chaperoned, "--config", w.stage.ConfigDir(), "--state", w.stage.Path("state")))
	if err != nil {
		return nil, err
	}
	w.daemon = daemon.PID()
	w.paths = append(w.paths, &path{
		name: "chaperone", pid: w.daemon, port: stage.Port,
		command: func(ctx context.Context, name string, args ...string) *exec.Cmd {
			return w.stage.Planner(ctx, "nightly-bench", append([]string{name}, args...)...)
		},
	})
	return w, nil
}

// documents are the stage's, with room for the benchmark and without TLS to
// the server: none of the paths has it. NATS is a process of its own, as it is where
// there are several nodes, so that the daemon's processor time is the proxy's.
func documents() map[string]string {
	all := stage.Documents()
	node := strings.TrimRight(all["node.yaml"], "\n") + fmt.Sprintf(`
  limits: {sessions: %d, sessionsPerJob: %d}
  nats: {url: "nats://127.0.0.1:%d"}
`, idleSessions+200, idleSessions+200, natsPort)
	mask := strings.Replace(all["mask.yaml"], "  columns:\n", "  columns:\n    - {match: \"public.big_masked.name\", with: {keepLast: 4}}\n", 1)
	policy := strings.Replace(all["policy.yaml"], "  rules:\n", "  rules:\n    - {name: tpc-b, when: \"statement.kind in ['UPDATE', 'INSERT']\", then: allow}\n", 1)
	target := `apiVersion: chaperone.dev/v1alpha1
kind: Target
metadata: {name: orders-db}
spec:
  protocol: postgres
  hosts: ["orders.db.internal:5432"]
  tls: {mode: disable}
  credential:
    postgresRole:
      adminFrom: {file: "{{dir}}/orders-admin.dsn"}
      memberOf: [orders_reader]
      connectionLimit: ` + strconv.Itoa(idleSessions+200) + `
`
	return map[string]string{"node.yaml": node, "target.yaml": target, "policy.yaml": policy, "mask.yaml": mask}
}

// fill makes pgbench's tables, and a table of about 190 MB twice: a mask is on a column of
// the second.
func (w *world) fill(ctx context.Context) error {
	dsn := w.stage.Postgres.AdminDSN(stage.Database)
	if _, err := program(exec.CommandContext(ctx, "pgbench", "-i", "-q", "-s", strconv.Itoa(scale), dsn)); err != nil {
		return err
	}
	return w.stage.Postgres.Exec(ctx, stage.Database,
		fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s' IN ROLE orders_reader", benchUser, benchWord),
		fmt.Sprintf(`CREATE TABLE big AS SELECT i AS id, 'customer ' || i AS name, repeat(md5(i::text), 5) AS filler
			FROM generate_series(1, %d) i`, bigRows),
		"CREATE TABLE big_masked AS SELECT * FROM big",
		"GRANT SELECT, UPDATE, INSERT ON pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history TO orders_reader",
		"GRANT SELECT ON big, big_masked TO orders_reader",
		"VACUUM ANALYZE big", "VACUUM ANALYZE big_masked", "CHECKPOINT")
}

// startPgbouncer starts it with one server connection per client connection,
// as Chaperone has.
func (w *world) startPgbouncer(ctx context.Context) error {
	ini, users := filepath.Join(w.dir, "pgbouncer.ini"), filepath.Join(w.dir, "users.txt")
	if err := os.WriteFile(users, []byte(fmt.Sprintf("%q %q\n", benchUser, benchWord)), 0o644); err != nil {
		return err
	}
	config := fmt.Sprintf(`[databases]
%s = host=%s port=%d dbname=%s user=%s password=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
auth_type = trust
auth_file = %s
pool_mode = session
default_pool_size = 100
max_client_conn = 200
unix_socket_dir =
server_reset_query = DEALLOCATE ALL
log_connections = 0
log_disconnections = 0
`, stage.Database, stage.Address, stage.Port, stage.Database, benchUser, benchWord, bouncerPort, users)
	if err := os.WriteFile(ini, []byte(config), 0o644); err != nil {
		return err
	}
	return w.startProxy(ctx, "pgbouncer", bouncerPort, "/usr/sbin/pgbouncer", ini)
}

func (w *world) startHAProxy(ctx context.Context) error {
	cfg := filepath.Join(w.dir, "haproxy.cfg")
	config := fmt.Sprintf(`global
  maxconn 400
  nbthread 2
defaults
  mode tcp
  timeout connect 5s
  timeout client 10m
  timeout server 10m
listen postgres
  bind 127.0.0.1:%d
  server db %s:%d
`, haproxyPort, stage.Address, stage.Port)
	if err := os.WriteFile(cfg, []byte(config), 0o644); err != nil {
		return err
	}
	return w.startProxy(ctx, "HAProxy", haproxyPort, "/usr/sbin/haproxy", "-f", cfg)
}

// startRelay starts what a proxy in Go can't do less than: see relay.go.
func (w *world) startRelay(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// Where nobody may read it from.
	program := filepath.Join(w.dir, "relay")
	content, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	if err := os.WriteFile(program, content, 0o755); err != nil {
		return err
	}
	return w.startProxy(ctx, "io.Copy", relayPort, program, relayWord,
		fmt.Sprintf("127.0.0.1:%d", relayPort), fmt.Sprintf("%s:%d", stage.Address, stage.Port))
}

// startNATS starts a server of its own, with the streams in it.
func (w *world) startNATS(ctx context.Context, server string, log *os.File) error {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), server,
		"-a", "127.0.0.1", "-p", strconv.Itoa(natsPort), "-js", "-sd", filepath.Join(w.dir, "nats"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return err
	}
	w.running = append(w.running, cmd)
	if err := accepts(ctx, "NATS", natsPort); err != nil {
		return err
	}
	_, err := program(w.stage.Command(ctx, "nats", "setup", "--nats", fmt.Sprintf("nats://127.0.0.1:%d", natsPort)))
	return err
}

// startProxy starts a proxy as nobody, and waits until it accepts.
func (w *world) startProxy(ctx context.Context, name string, port int, args ...string) error {
	nobody, err := user.Lookup("nobody")
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	cmd := exec.CommandContext(context.WithoutCancel(ctx), args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)},
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	w.running = append(w.running, cmd)
	w.paths = append(w.paths, &path{name: name, pid: cmd.Process.Pid, port: port, command: exec.CommandContext})
	return accepts(ctx, name, port)
}

// accepts waits until something on loopback does.
func accepts(ctx context.Context, name string, port int) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not accept: %w", name, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (w *world) close(ctx context.Context) error {
	var errs []error
	if w.stage != nil {
		errs = append(errs, w.stage.Close(ctx)) // its daemon ends before NATS does
	}
	for _, cmd := range w.running {
		errs = append(errs, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
	}
	return errors.Join(errs...)
}

// environment is a client's: the same program finds the same database by each
// path.
func (p *path) environment() []string {
	host := "127.0.0.1"
	if p.port == stage.Port {
		host = stage.Host
	}
	return []string{
		"PGHOST=" + host, "PGPORT=" + strconv.Itoa(p.port), "PGDATABASE=" + stage.Database,
		"PGUSER=" + benchUser, "PGPASSWORD=" + benchWord, "PGSSLMODE=disable",
	}
}
