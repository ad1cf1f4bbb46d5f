// Command benchintercept measures what the kernel programs cost those who live
// below them, with real sockets on loopback: connect(2) and datagrams to what is
// no target's, diversion to what is, with few and with 10,000 planners and
// targets; DNS through the daemon; how long it takes to attach; and what each
// program takes per run. All variants are measured by one process, which is moved from
// cgroup to cgroup, in turn and round by round; what is told are medians and ratios
// of the same round. It works in namespaces and cgroups of its own. Root is needed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"chaperone.dev/chaperone/internal/intercept"
	"chaperone.dev/chaperone/internal/lab"
)

// First arguments of this program as another process than the one that measures.
const (
	clientRole = "client"
	serverRole = "server"
	probeRole  = "probe"
)

type options struct {
	rounds int
	each   int // connects of one sample
	many   int // planners, targets, protected addresses and rules of the large world
	only   *regexp.Regexp
	report string
}

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case clientRole:
			exit(serveRequests(os.Stdin, os.Stdout))
		case serverRole:
			exit(serveConnects(os.Stdin, os.Stdout))
		case probeRole:
			exit(probe(os.Args[2:]))
		}
	}
	var o options
	flag.IntVar(&o.rounds, "rounds", 7, "how often each measurement is made")
	flag.IntVar(&o.each, "each", 1000, "how many connections each sample makes; ten times as many datagrams")
	flag.IntVar(&o.many, "many", 10_000, "how many planners, targets and rules there are in the large world")
	only := flag.String("run", "", "measure only what matches this regular expression, of: open connect datagram programs dns")
	flag.StringVar(&o.report, "o", "", "also write the report to this file, as Markdown")
	flag.Parse()
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		exit(err)
	}
	if o.rounds < 1 || o.each < 1 || o.many < 1 {
		exit(errors.New("-rounds, -each and -many are at least 1"))
	}
	exit(run(o))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchintercept:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func probe(args []string) error {
	if len(args) != 1 {
		return errors.New("a probe needs an address")
	}
	return intercept.Probe(context.Background(), os.Stdout, args[0])
}

func run(o options) error {
	if err := lab.Isolate(lab.Namespace{Addresses: []string{targetHost, otherHost, nameServer}}); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	started := time.Now()
	tables, err := measure(ctx, o)
	if err != nil {
		return err
	}
	if err := writeText(os.Stdout, o, tables); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "took %v\n", time.Since(started).Round(time.Second))
	if o.report == "" {
		return nil
	}
	return os.WriteFile(o.report, []byte(markdown(o, tables)), 0o644)
}

// measure makes the world, everything that is asked for in it, and takes it down again.
func measure(ctx context.Context, o options) (tables []table, err error) {
	w, err := setUp(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, w.close(closing))
	}()
	for _, part := range []struct {
		name string
		run  func(context.Context) ([]table, error)
	}{
		{"open", w.measureOpen},
		{"connect", w.measureConnects},
		{"datagram", w.measureDatagrams},
		{"programs", w.measurePrograms},
		{"dns", w.measureDNS},
	} {
		if !o.only.MatchString(part.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s …\n", part.name)
		made, err := part.run(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", part.name, err)
		}
		tables = append(tables, made...)
	}
	return tables, nil
}
