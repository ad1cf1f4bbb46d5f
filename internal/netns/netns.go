// Package netns keeps the daemon's sockets in the network namespaces that
// planners live in: it finds the namespace of a process, has the listeners
// opened there, served, and closed when no planner's process is left in it.
// A socket that is open in a namespace keeps that alive, so nothing is left
// behind.
//
// It knows namespaces and processes, not what is spoken over the sockets,
// and no kernel program.
package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/internal/intercept"
)

// Sockets opens sockets in namespaces, and guards their interfaces; it is
// [intercept.Interceptor].
type Sockets interface {
	Listen(ctx context.Context, ns intercept.Namespace) ([]*net.TCPListener, error)
	ListenDatagrams(ctx context.Context, ns intercept.Namespace, workload uint64) (*intercept.Datagrams, error)
	GuardPlanner(ns intercept.Namespace, workload uint64) ([]int, error)
	Attribute(index int, workload uint64) error
	Unguard(index int) error
	Inherit(l *net.TCPListener) error
	InheritDatagrams(workload uint64, conns []*net.UDPConn) (*intercept.Datagrams, error)
}

// Options configure a [Keeper]. Sockets, CgroupRoot, Serve and ServeDatagrams are required.
type Options struct {
	Sockets Sockets
	// CgroupRoot is where the root of the cgroup hierarchy is mounted. Required.
	CgroupRoot string
	// Serve accepts from a listener, and ServeDatagrams answers a workload's
	// datagrams, until ctx is done or the socket is closed.
	// Serve returns when the connections that it has accepted have ended.
	Serve          func(ctx context.Context, l net.Listener) error
	ServeDatagrams func(ctx context.Context, conn *net.UDPConn, workload uint64) error
	// PerWorkload bounds the namespaces that one workload is served in at
	// once (default 16), Total those of all (default 4096).
	PerWorkload, Total int
	// Every is how often namespaces without processes are looked for; 0 means
	// 30 s.
	Every time.Duration
	// Inherited are the sockets of another process, which the keeper owns then.
	Inherited []Handover
	// Paused keeps the keeper from accepting anything until [Keeper.Resume].
	Paused bool
	Log    zerolog.Logger
}

// ErrTooMany is returned by [Keeper.Visit] when a bound of [Options] is reached.
var ErrTooMany = errors.New("too many network namespaces")

// ErrClosed is returned by [Keeper.Visit] when the keeper doesn't run any more.
var ErrClosed = errors.New("network namespaces are not served any more")

// Keeper owns the sockets. Its methods may be called from any goroutine.
type Keeper struct {
	opts Options
	own  ID

	ctx     context.Context // of what is served
	stop    context.CancelFunc
	serving sync.WaitGroup

	mu     sync.Mutex // held while sockets are opened and closed too
	closed bool
	paused bool
	spaces map[ID]*space
}

// space is one namespace.
type space struct {
	listeners []*gate
	tenants   map[uint64]*tenant // by workload
}

// tenant is a workload in a namespace.
type tenant struct {
	datagrams  *intercept.Datagrams
	interfaces []int
	cgroup     string
	// since is when it came. The process that it came with may be gone before the next one
	// of the job is there.
	since time.Time
	// inherited says that the namespace's interfaces are guarded by an earlier
	// process's programs.
	inherited bool

	answering sync.WaitGroup // its datagrams
	stop      context.CancelFunc
}

// New makes a keeper that serves the daemon's own namespace at once. Stop it
// with [Keeper.Close].
func New(ctx context.Context, opts Options) (*Keeper, error) {
	if opts.PerWorkload == 0 {
		opts.PerWorkload = 16
	}
	if opts.Total == 0 {
		opts.Total = 4096
	}
	if opts.Every == 0 {
		opts.Every = 30 * time.Second
	}
	own, err := Own()
	if err != nil {
		return nil, err
	}
	k := &Keeper{opts: opts, own: own, paused: opts.Paused, spaces: map[ID]*space{}}
	k.ctx, k.stop = context.WithCancel(context.WithoutCancel(ctx))
	k.mu.Lock()
	defer k.mu.Unlock()
	err = k.inherit(opts.Inherited)
	if err == nil && k.spaces[own] == nil {
		_, err = k.open(ctx, own, intercept.Namespace{})
	}
	if err != nil {
		err = errors.Join(err, k.abandon())
		k.stop()
		k.serving.Wait()
		return nil, err
	}
	return k, nil
}

// Visit has a workload served in the network namespace of one of its processes,
// which must live in cgroup or below it. That it is served there already
// is no error.
func (k *Keeper) Visit(ctx context.Context, workload uint64, cgroup string, pid int) error {
	place, err := Of(k.opts.CgroupRoot, cgroup, pid)
	if err != nil {
		return err
	}
	defer place.Close()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return ErrClosed
	}
	ns := intercept.Namespace{Path: place.Path()}
	if place.ID == k.own {
		ns = intercept.Namespace{}
	}
	s := k.spaces[place.ID]
	if s != nil && s.tenants[workload] != nil {
		return k.guardAgain(s, s.tenants[workload], ns, workload)
	}
	if n := k.count(workload); n >= k.opts.PerWorkload {
		return fmt.Errorf("%w: workload %d is served in %d already", ErrTooMany, workload, n)
	}
	fresh := s == nil
	if fresh {
		if len(k.spaces) >= k.opts.Total {
			return fmt.Errorf("%w: %d are served already", ErrTooMany, len(k.spaces))
		}
		if s, err = k.open(ctx, place.ID, ns); err != nil {
			return err
		}
	}
	t := &tenant{cgroup: cgroup, since: time.Now()}
	err = k.settle(ctx, s, t, ns, workload)
	if err != nil {
		err = errors.Join(err, k.evict(s, t))
		if fresh {
			err = errors.Join(err, k.leave(place.ID, s))
		}
		return err
	}
	s.tenants[workload] = t
	for _, index := range t.interfaces {
		if err := k.attribute(s, index); err != nil {
			return err
		}
	}
	k.opts.Log.Info().Uint64("workload", workload).Stringer("namespace", place.ID).Ints("interfaces", t.interfaces).
		Msg("planner is served in its network namespace")
	return nil
}

// count is the number of namespaces that a workload is in.
func (k *Keeper) count(workload uint64) int {
	n := 0
	for _, s := range k.spaces {
		if s.tenants[workload] != nil {
			n++
		}
	}
	return n
}

// open opens the listeners of a namespace.
func (k *Keeper) open(ctx context.Context, id ID, ns intercept.Namespace) (*space, error) {
	listeners, err := k.opts.Sockets.Listen(ctx, ns)
	if err != nil {
		return nil, err
	}
	return k.serve(id, listeners), nil
}

// serve accepts from the listeners of a namespace.
func (k *Keeper) serve(id ID, listeners []*net.TCPListener) *space {
	s := &space{tenants: map[uint64]*tenant{}}
	k.spaces[id] = s
	for _, l := range listeners {
		g := newGate(l)
		if k.paused {
			g.shut()
		}
		s.listeners = append(s.listeners, g)
		k.serving.Go(func() {
			if err := k.opts.Serve(k.ctx, g); err != nil && k.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				k.opts.Log.Error().Err(err).Stringer("namespace", id).Msg("a listener failed; its namespace is refused until it is opened anew")
				g.Close()
			}
		})
	}
	return s
}

// settle guards a workload's way out of a namespace and opens its sockets for
// datagrams.
func (k *Keeper) settle(ctx context.Context, s *space, t *tenant, ns intercept.Namespace, workload uint64) (err error) {
	if t.interfaces, err = k.opts.Sockets.GuardPlanner(ns, whose(s, workload)); err != nil {
		return err
	}
	if t.datagrams, err = k.opts.Sockets.ListenDatagrams(ctx, ns, workload); err != nil {
		return err
	}
	k.answer(t, workload)
	return nil
}

// answer answers a tenant's datagrams, unless the keeper is paused.
func (k *Keeper) answer(t *tenant, workload uint64) {
	if k.paused {
		return
	}
	ctx, stop := context.WithCancel(k.ctx)
	t.stop = stop
	for _, conn := range t.datagrams.Conns {
		k.serving.Add(1)
		t.answering.Go(func() {
			defer k.serving.Done()
			if err := k.opts.ServeDatagrams(ctx, conn, workload); err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				k.opts.Log.Error().Err(err).Uint64("workload", workload).Msg("answering datagrams failed; they are refused")
			}
		})
	}
}

// whose is who is behind a namespace's interfaces when the workload is there too.
func whose(s *space, workload uint64) uint64 {
	for other := range s.tenants {
		if other != workload {
			return intercept.SeveralPlanners
		}
	}
	return workload
}

// attribute says whose packets come from an interface, and ends its guard when they are
// nobody's.
func (k *Keeper) attribute(s *space, index int) error {
	var behind []uint64
	for workload, t := range s.tenants {
		if slices.Contains(t.interfaces, index) {
			behind = append(behind, workload)
		}
	}
	switch len(behind) {
	case 0:
		return k.opts.Sockets.Unguard(index)
	case 1:
		return k.opts.Sockets.Attribute(index, behind[0])
	}
	return k.opts.Sockets.Attribute(index, intercept.SeveralPlanners)
}

// evict ends what was there for a workload that is no tenant of the namespace any more.
func (k *Keeper) evict(s *space, t *tenant) error {
	var errs []error
	if t.datagrams != nil {
		errs = append(errs, t.datagrams.Close())
	}
	if t.stop != nil {
		t.stop()
	}
	for _, index := range t.interfaces {
		errs = append(errs, k.attribute(s, index))
	}
	return errors.Join(errs...)
}

// leave closes a namespace that no workload is in, but for the daemon's own.
func (k *Keeper) leave(id ID, s *space) error {
	if id == k.own || len(s.tenants) > 0 {
		return nil
	}
	delete(k.spaces, id)
	return s.close()
}

func (s *space) close() error {
	var errs []error
	for _, l := range s.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Leave ends what is served for a workload, wherever.
func (k *Keeper) Leave(workload uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for id, s := range k.spaces {
		if t := s.tenants[workload]; t != nil {
			delete(s.tenants, workload)
			errs = append(errs, k.evict(s, t), k.leave(id, s))
		}
	}
	return errors.Join(errs...)
}

// Run closes namespaces that their workloads have left, until ctx is done.
func (k *Keeper) Run(ctx context.Context) error {
	look := time.NewTicker(k.opts.Every)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			k.sweep()
		}
	}
}

// sweep leaves namespaces in which a workload has no process any more.
func (k *Keeper) sweep() {
	k.mu.Lock()
	cgroups := map[uint64]string{}
	for _, s := range k.spaces {
		for workload, t := range s.tenants {
			cgroups[workload] = t.cgroup
		}
	}
	k.mu.Unlock()
	present := map[uint64]map[ID]bool{}
	for workload, cgroup := range cgroups {
		ids, err := Namespaces(cgroup)
		if errors.Is(err, fs.ErrNotExist) {
			present[workload] = nil
			continue
		}
		if err != nil {
			continue // its end is somebody else's to notice
		}
		present[workload] = ids
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, s := range k.spaces {
		for workload, t := range s.tenants {
			// In the daemon's own nothing is lost by staying.
			there, looked := present[workload]
			fresh := time.Since(t.since) < k.opts.Every && there != nil
			if !looked || there[id] || fresh || id == k.own && there != nil {
				continue
			}
			delete(s.tenants, workload)
			if err := errors.Join(k.evict(s, t), k.leave(id, s)); err != nil {
				k.opts.Log.Warn().Err(err).Stringer("namespace", id).Msg("leaving a network namespace")
			}
		}
	}
}

// Served returns the namespaces that are served, the daemon's own included.
func (k *Keeper) Served() []ID {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Keys(k.spaces))
}

// Close closes all sockets, and waits until nothing is served any more. The
// guards of interfaces stay.
func (k *Keeper) Close() error {
	k.mu.Lock()
	err := k.closeSockets((*intercept.Datagrams).Close)
	k.mu.Unlock()
	k.stop()
	k.serving.Wait()
	return err
}

// closeSockets closes all sockets, those for datagrams by end.
func (k *Keeper) closeSockets(end func(*intercept.Datagrams) error) error {
	k.closed = true
	var errs []error
	for _, s := range k.spaces {
		for _, t := range s.tenants {
			errs = append(errs, end(t.datagrams))
			if t.stop != nil {
				t.stop()
			}
		}
		errs = append(errs, s.close())
	}
	clear(k.spaces)
	return errors.Join(errs...)
}
