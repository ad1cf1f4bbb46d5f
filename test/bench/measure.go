package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A measurement of one path: how much of something it did per second, and
// what the proxy's own processor time was for one of it.
type sample struct {
	rate float64       // per second
	cpu  time.Duration // of the proxy, per unit
}

// workload is one thing that is measured on every path.
type workload struct {
	title string
	unit  string // of what is counted
	run   func(ctx context.Context, w *world, p *path, o options) (done float64, took time.Duration, err error)
}

func workloads() []workload {
	var all []workload
	for _, mode := range []string{"simple", "prepared"} {
		for _, clients := range []int{1, 8, 32} {
			all = append(all, workload{
				fmt.Sprintf("`pgbench -S -M %s`, %d clients", mode, clients), "query", pgbench(clients, "-S", "-M", mode),
			})
		}
	}
	return append(all,
		workload{"TPC-B (`pgbench -M prepared`), 8 clients", "transaction", pgbench(8, "-M", "prepared")},
		workload{"a new connection per query (`pgbench -S -C`), 4 clients", "connection", pgbench(4, "-S", "-C")},
		workload{"`SELECT *` of 1,000,000 rows, about 190 MB", "10,000 rows", selectAll("big")},
		workload{"the same, with one masked column", "10,000 rows", selectAll("big_masked")},
	)
}

// results are all samples, by workload and path, in the order of rounds.
type results struct {
	workloads []workload
	paths     []string
	samples   map[string]map[string][]sample
	connect   *connectResult
	opening   map[string]*opening
	idle      *idleResult
}

// measure makes every measurement, each round all paths in turn, so that what
// else happens on the machine hits them alike.
func (w *world) measure(ctx context.Context, o options) (*results, error) {
	r := &results{samples: map[string]map[string][]sample{}}
	w.paths = slices.DeleteFunc(w.paths, func(p *path) bool { return !o.paths.MatchString(p.name) })
	for _, p := range w.paths {
		r.paths = append(r.paths, p.name)
	}
	for _, load := range workloads() {
		if !o.only.MatchString(load.title) {
			continue
		}
		r.workloads = append(r.workloads, load)
		r.samples[load.title] = map[string][]sample{}
		for round := range o.rounds {
			for i := range w.paths {
				p := w.paths[(i+round)%len(w.paths)] // nobody is always the first
				s, err := w.sample(ctx, load, p, o)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", load.title, p.name, err)
				}
				fmt.Fprintf(os.Stderr, "%-55s %-10s %10.0f %s/s  %v\n", load.title, p.name, s.rate, load.unit, s.cpu)
				r.samples[load.title][p.name] = append(r.samples[load.title][p.name], s)
			}
		}
	}
	var err error
	direct, chaperone := w.path("direct"), w.path("chaperone")
	if o.only.MatchString(openingTitle) && direct != nil && chaperone != nil {
		if r.opening, err = measureOpening(ctx, o, direct, chaperone); err != nil {
			return nil, fmt.Errorf("%s: %w", openingTitle, err)
		}
	}
	if o.only.MatchString(connectTitle) {
		if r.connect, err = w.measureConnect(ctx, o); err != nil {
			return nil, fmt.Errorf("%s: %w", connectTitle, err)
		}
	}
	if o.only.MatchString(idleTitle) && chaperone != nil {
		if r.idle, err = w.measureIdle(ctx, chaperone); err != nil {
			return nil, fmt.Errorf("%s: %w", idleTitle, err)
		}
	}
	return r, nil
}

// path is the one of that name, or nil when it is not measured.
func (w *world) path(name string) *path {
	if i := slices.IndexFunc(w.paths, func(p *path) bool { return p.name == name }); i >= 0 {
		return w.paths[i]
	}
	return nil
}

func (w *world) sample(ctx context.Context, load workload, p *path, o options) (sample, error) {
	before, err := cpuTime(p.pid)
	if err != nil {
		return sample{}, err
	}
	done, took, err := load.run(ctx, w, p, o)
	if err != nil {
		return sample{}, err
	}
	after, err := cpuTime(p.pid)
	if err != nil {
		return sample{}, err
	}
	return sample{rate: done / took.Seconds(), cpu: time.Duration(float64(after-before) / done)}, nil
}

var (
	transactions = regexp.MustCompile(`number of transactions actually processed: (\d+)`)
	perSecond    = regexp.MustCompile(`tps = ([0-9.]+)`)
)

// pgbench runs it with those arguments. The rate is pgbench's own: without the
// time of connecting, but for the run that connects each time.
func pgbench(clients int, args ...string) func(context.Context, *world, *path, options) (float64, time.Duration, error) {
	return func(ctx context.Context, w *world, p *path, o options) (float64, time.Duration, error) {
		words := append([]string{
			"-n", "-c", strconv.Itoa(clients), "-j", strconv.Itoa(min(clients, 2)),
			"-T", strconv.Itoa(int(o.each.Seconds())),
		}, args...)
		cmd := p.command(ctx, "pgbench", words...)
		cmd.Env = append(cmdEnv(cmd.Env), p.environment()...)
		out, err := program(cmd)
		if err != nil {
			return 0, 0, err
		}
		done, tps := transactions.FindStringSubmatch(out), perSecond.FindStringSubmatch(out)
		if done == nil || tps == nil {
			return 0, 0, fmt.Errorf("pgbench printed no rate: %s", out)
		}
		count, err := strconv.ParseFloat(done[1], 64)
		if err != nil {
			return 0, 0, err
		}
		rate, err := strconv.ParseFloat(tps[1], 64)
		if err != nil {
			return 0, 0, err
		}
		return count, time.Duration(count / rate * float64(time.Second)), nil
	}
}

// selectAll reads a big table once, and throws it away.
func selectAll(table string) func(context.Context, *world, *path, options) (float64, time.Duration, error) {
	return func(ctx context.Context, w *world, p *path, _ options) (float64, time.Duration, error) {
		var rows, nanoseconds int64
		err := p.client(ctx, []string{"select", "SELECT * FROM " + table}, &rows, &nanoseconds)
		if err == nil && rows != bigRows {
			err = fmt.Errorf("the client got %d rows of %d", rows, bigRows)
		}
		return float64(rows) / 10_000, time.Duration(nanoseconds), err
	}
}

// client runs this program as a client, and reads the numbers that it prints.
func (p *path) client(ctx context.Context, args []string, into ...any) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := p.command(ctx, self, append([]string{clientWord}, args...)...)
	cmd.Env = append(cmdEnv(cmd.Env), p.environment()...)
	out, err := program(cmd)
	if err != nil {
		return err
	}
	if _, err := fmt.Sscan(out, into...); err != nil {
		return fmt.Errorf("the client printed %q: %w", out, err)
	}
	return nil
}

func cmdEnv(env []string) []string {
	if env == nil {
		return os.Environ()
	}
	return env
}

// cpuTime is the processor time that a process has had, with all threads
// (proc_pid_stat(5), utime and stime).
func cpuTime(pid int) (time.Duration, error) {
	if pid == 0 {
		return 0, nil
	}
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(body[strings.LastIndexByte(string(body), ')')+1:]))
	var ticks int64
	for _, i := range []int{11, 12} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	const tick = time.Second / 100 // USER_HZ, the same on all of Linux's ports
	return time.Duration(ticks) * tick, nil
}

func median[T int | float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
