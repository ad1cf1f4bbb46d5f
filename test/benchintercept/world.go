package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/rs/zerolog"
	"github.com/vishvananda/netlink"

	"chaperone.dev/chaperone/internal/intercept"
	"chaperone.dev/chaperone/internal/lab"
)

// Addresses on loopback of the benchmark's network namespace, and ports.
const (
	targetHost   = "10.77.0.5"
	otherHost    = "10.77.0.66" // no target's
	nameServer   = "10.77.0.53"
	targetPort   = 5432
	otherPort    = 9999
	listenerPort = 15999
	dnsPort      = 53

	zone     = "bench.test"
	hostName = "orders.bench.test"
)

// profile is the one planner's that may only go where it is listed.
const profile = 1

func at(host string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(host), port)
}

// world is an ancestor cgroup with the programs attached, cgroups of each kind, and
// processes to connect with and to.
type world struct {
	o       options
	cgroup  *lab.Cgroup
	outside string // beside the ancestor
	unknown string // below it, and neither planner nor bystander
	passing string // a bystander's
	planner string
	limited string // a planner with a profile
	crowd   []string

	settings  intercept.Options
	i         *intercept.Interceptor
	plannerID uint64
	proxy     *proxy
	dns       *lab.DNS
	server    *process
	client    *process
	crowdIDs  []uint64
	costs     costs
	state     state // what is in force
}

// costs are what it takes the daemon to make the large world, per item.
type costs struct {
	cgroups, enrol, capture, allow series
}

func setUp(ctx context.Context, o options) (_ *world, err error) {
	w := &world{o: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close(context.WithoutCancel(ctx)))
		}
	}()
	if w.cgroup, err = lab.NewCgroup("chaperone-bench-intercept"); err != nil {
		return nil, err
	}
	ancestor := filepath.Join(w.cgroup.Path, "ancestor")
	w.outside = filepath.Join(w.cgroup.Path, "outside")
	w.unknown = filepath.Join(ancestor, "jobs", "unknown")
	w.passing = filepath.Join(ancestor, "jobs", "bystander")
	w.planner = filepath.Join(ancestor, "jobs", "planner")
	w.limited = filepath.Join(ancestor, "jobs", "limited")
	for _, path := range []string{w.outside, w.unknown, w.passing, w.planner, w.limited} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, err
		}
	}
	// What is started before the daemon enters the ancestor stays outside.
	w.dns, err = lab.StartDNS(ctx, lab.DNSOptions{Listen: []string{nameServer}, Zone: zone, Records: []string{"orders A " + targetHost}})
	if err != nil {
		return nil, err
	}
	if w.server, err = startProcess(w.outside, serverRole); err != nil {
		return nil, err
	}
	if _, err := w.server.out.ReadString('\n'); err != nil {
		return nil, fmt.Errorf("the server didn't start: %w", err)
	}
	if w.client, err = startProcess(w.outside, clientRole); err != nil {
		return nil, err
	}
	w.settings = intercept.Options{
		Ancestor: ancestor, PinDir: intercept.DefaultPinDir, Port: listenerPort,
		Probe: []string{"/proc/self/exe", probeRole}, Log: zerolog.Nop(),
	}
	return w, w.furnish(ctx)
}

// furnish attaches the programs and says who is who.
func (w *world) furnish(ctx context.Context) (err error) {
	if w.i, err = intercept.Open(ctx, w.settings); err != nil {
		return err
	}
	if w.plannerID, err = w.i.Enroll(w.planner); err != nil {
		return err
	}
	if _, err := w.i.EnrollAs(w.limited, profile); err != nil {
		return err
	}
	if _, err := w.i.Pass(w.passing); err != nil {
		return err
	}
	if w.proxy, err = startProxy(ctx, w.i); err != nil {
		return err
	}
	return w.enforce(state{})
}

func (w *world) close(ctx context.Context) error {
	var errs []error
	for _, p := range []*process{w.client, w.server} {
		if p != nil {
			errs = append(errs, p.close())
		}
	}
	errs = append(errs, w.leave())
	if w.dns != nil {
		errs = append(errs, w.dns.Stop(ctx))
	}
	if w.cgroup != nil {
		errs = append(errs, w.cgroup.Remove(ctx))
	}
	return errors.Join(errs...)
}

// process is another one of this program, which is told what to do by its input.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	at  string // the cgroup that it is in
}

func startProcess(cgroup, role string) (*process, error) {
	dir, err := os.Open(cgroup)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	p := &process{cmd: exec.Command("/proc/self/exe", role), at: cgroup}
	p.cmd.Stderr = os.Stderr
	p.cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1") // no signals while it measures
	p.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	return p, p.cmd.Start()
}

func (p *process) close() error { return errors.Join(p.in.Close(), p.cmd.Wait()) }

// ask moves the client to a cgroup and has it do something there.
func (w *world) ask(cgroup string, r request) (reply, error) {
	if w.client.at != cgroup {
		pid := strconv.Itoa(w.client.cmd.Process.Pid)
		if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(pid), 0); err != nil {
			return reply{}, fmt.Errorf("move the client: %w", err)
		}
		w.client.at = cgroup
	}
	if err := json.NewEncoder(w.client.in).Encode(r); err != nil {
		return reply{}, fmt.Errorf("tell the client: %w", err)
	}
	line, err := w.client.out.ReadBytes('\n')
	if err != nil {
		return reply{}, fmt.Errorf("hear from the client: %w", err)
	}
	var a reply
	if err := json.Unmarshal(line, &a); err != nil {
		return reply{}, fmt.Errorf("the client said %q: %w", line, err)
	}
	if a.Error != "" {
		return reply{}, fmt.Errorf("client in %s: %s", filepath.Base(cgroup), a.Error)
	}
	return a, nil
}

// guard has the guard of interfaces on lo, or takes it away.
func (w *world) guard(on bool) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if on {
		return w.i.GuardUplink(lo.Attrs().Index)
	}
	return w.i.Unguard(lo.Attrs().Index)
}
