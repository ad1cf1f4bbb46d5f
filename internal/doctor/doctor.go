package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/pkg/policy"
)

// Status is what a check came to.
type Status string

// The statuses. Only Fail keeps a node from its work.
const (
	OK   Status = "ok"
	Warn Status = "warn" // it works, with less than it could
	Fail Status = "fail"
	Skip Status = "skip" // not looked at, or nothing to look at
)

// Result is the outcome of one check.
type Result struct {
	Check   string `json:"check"`
	Status  Status `json:"status"`
	Found   string `json:"found"`
	Missing string `json:"missing"` // may have several lines
	Do      string `json:"do"`
}

// Options of [Run].
type Options struct {
	Config string // folder of the documents
	State  string // the daemon's state folder
	// Timeout bounds each check; 0 means 10 s.
	Timeout time.Duration
}

// Failed counts the results that failed.
func Failed(results []Result) int {
	n := 0
	for _, r := range results {
		if r.Status == Fail {
			n++
		}
	}
	return n
}

func ok(found string) Result { return Result{Status: OK, Found: found} }

func warn(found, missing, do string) Result {
	return Result{Status: Warn, Found: found, Missing: missing, Do: do}
}

func fail(found, missing, do string) Result {
	return Result{Status: Fail, Found: found, Missing: missing, Do: do}
}

func skip(found, do string) Result { return Result{Status: Skip, Found: found, Do: do} }

// asRoot is what is to be done about what can't be seen.
const asRoot = "run it as root, or as the daemon's user"

// unseen is the result of a check that this process may not make.
func unseen(what string, err error) Result {
	return skip(fmt.Sprintf("%s can't be seen: %s", what, brief(err)), asRoot)
}

// forbidden tells whether an error is for want of rights alone.
func forbidden(err error) bool { return errors.Is(err, fs.ErrPermission) }

// check is one thing to look at.
type check struct {
	name string
	run  func(ctx context.Context, s *subject) Result
}

// subject is what is looked at.
type subject struct {
	opts    Options
	set     *policy.Set // nil when the documents can't be read
	invalid error       // why
	node    policy.NodeSpec
	root    bool
	clocks  clocks
}

// defaults is a Node document that says nothing.
const defaults = "apiVersion: " + policy.APIVersion + "\nkind: Node\nspec: {}\n"

func newSubject(opts Options) (*subject, error) {
	if opts.Timeout <= 0 {
		opts.Timeout = 10 * time.Second
	}
	s := &subject{opts: opts, root: unix.Geteuid() == 0}
	s.set, s.invalid = policy.Load(opts.Config)
	if s.invalid == nil {
		s.node = s.set.Node.Spec
		return s, nil
	}
	plain, err := policy.Parse("defaults", []byte(defaults))
	if err != nil {
		return nil, err
	}
	s.node = plain.Node.Spec
	return s, nil
}

// parallel bounds the checks that run at once.
const parallel = 16

// Run makes all checks and returns their results, in an order that depends on
// the documents alone. The error is for a doctor that can't work at all.
func Run(ctx context.Context, opts Options) ([]Result, error) {
	s, err := newSubject(opts)
	if err != nil {
		return nil, err
	}
	checks := s.checks()
	results := make([]Result, len(checks))
	slots := make(chan struct{}, parallel)
	var running sync.WaitGroup
	clock := -1
	for i, c := range checks {
		if c.name == clockName {
			clock = i
			continue
		}
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			results[i] = s.make(ctx, c)
		})
	}
	running.Wait()
	// Others tell what time it is where they are reached.
	results[clock] = s.make(ctx, checks[clock])
	return results, nil
}

func (s *subject) checks() []check {
	checks := kernelChecks()
	checks = append(checks, securityChecks()...)
	checks = append(checks,
		check{"cgroup", checkCgroup},
		check{"ancestor", checkAncestor},
		check{"other programs", checkOtherPrograms},
		check{"namespaces", checkNamespaces},
		check{"capabilities", checkCapabilities},
		check{"bpffs", checkBPFFS},
		check{"pins", checkPins},
		check{"listen port", checkListenPort},
		check{"ipv6", checkIPv6},
		check{clockName, checkClock},
		check{"documents", checkDocuments},
		check{"secret files", checkSecretFiles},
		check{"CA files", checkCAFiles},
		check{"state", checkState},
		check{"journal", checkJournal},
		check{"daemon", checkDaemon},
		check{"nats", checkNATS},
	)
	if s.set != nil {
		checks = append(checks, issuerChecks(s.set)...)
		checks = append(checks, targetChecks(s.set)...)
	}
	return checks
}

// make runs a check until its deadline. One that is stuck in the kernel, in a
// file system that doesn't answer for instance, can't be ended, and is left to
// end with the process.
func (s *subject) make(ctx context.Context, c check) Result {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	done := make(chan Result, 1)
	go func() { done <- c.run(ctx, s) }()
	// Those that obey get the time to say what they waited for.
	late := time.NewTimer(s.opts.Timeout + time.Second)
	defer late.Stop()
	var r Result
	select {
	case r = <-done:
	case <-late.C:
		r = fail("", fmt.Sprintf("no answer within %s", s.opts.Timeout), "see what this machine waits for, and try again")
	}
	r.Check = c.name
	return r
}

// brief keeps what others wrote from filling a line.
func brief(err error) string {
	const limit = 400
	text := err.Error()
	if len(text) > limit {
		text = text[:limit] + "…"
	}
	return text
}
