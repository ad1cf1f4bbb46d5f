// Package workload knows which cgroup is which job: it opens a job, puts the
// process that asked for it into the job's cgroup, and notices when the last
// process of the cgroup is gone, however it went. Jobs outlive the daemon:
// they are kept in a folder and taken up again at the next start. The package
// knows nothing of targets, policies or connections.
package workload

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/pkg/policy"
)

// Why a job ended.
const (
	EndedEmpty      = "job_ended" // its cgroup is empty
	EndedWhileAway  = "recovered" // it was, when the daemon started again
	EndedNotStarted = "not_started"
)

// ErrFull is returned by [Registry.Start] when the node has its limit of jobs.
var ErrFull = errors.New("this node has its limit of jobs")

// Job is one planner job. Values are copies; they don't change.
type Job struct {
	ID        string           `json:"id"`
	Name      string           `json:"name"`     // as given by who started it
	Workload  string           `json:"workload"` // the Workload document that selected it
	Principal policy.Principal `json:"principal"`
	// Proof says by which documents the principal was proved, if it was. Whoever
	// proves it knows what it means.
	Proof string `json:"proof,omitempty"`
	// Proofs counts how often the principal was set: another number is another principal,
	// or the same one with other groups, claims or another end.
	Proofs uint64 `json:"proofs,omitempty"`
	// TokenFile is where a "run" job said that its token is, as its processes see it.
	TokenFile string    `json:"tokenFile,omitempty"`
	UID       uint32    `json:"uid"` // of the process that started it
	GID       uint32    `json:"gid,omitempty"`
	Groups    []uint32  `json:"groups,omitempty"` // its supplementary ones
	Cgroup    string    `json:"cgroup"`
	CgroupID  uint64    `json:"cgroupID"`
	Started   time.Time `json:"started"`
	// Kind is KindRun (also if empty), KindSystemd or KindKubernetes.
	Kind string `json:"kind,omitempty"`
	// Unit is the systemd unit of such a job, Pod the pod of one.
	Unit string `json:"unit,omitempty"`
	Pod  Pod    `json:"pod,omitzero"`
	// Profile is the egress profile that the cgroup was enrolled with.
	Profile uint32 `json:"profile,omitempty"`
}

// The kinds of jobs: who started them.
const (
	KindRun        = "run"
	KindSystemd    = "systemd"
	KindKubernetes = "kubernetes"
)

// Pod is what a job's pod is known by.
type Pod struct {
	UID            string            `json:"uid,omitempty"`
	Namespace      string            `json:"namespace,omitempty"`
	ServiceAccount string            `json:"serviceAccount,omitempty"`
	Labels         map[string]string `json:"labels,omitempty"`
}

// Enforcer marks a cgroup's sockets as a planner's.
type Enforcer interface {
	// EnrollAs marks the cgroup and all below it, with an egress profile (0 is
	// none), and returns its id, which connections from it carry. Enrolling again
	// changes the profile.
	EnrollAs(cgroup string, profile uint32) (uint64, error)
	// Withdraw takes the mark away.
	Withdraw(id uint64) error
}

// Options configure a [Registry]. All but Limit and Log are required.
type Options struct {
	Cgroups  string // folder of the cgroup file system in which jobs' cgroups are made
	Dir      string // where jobs are kept across restarts
	Enforcer Enforcer
	// Ended is called once per job, in a goroutine of its own that Run waits
	// for, after the job's last process is gone and before its mark is taken
	// away.
	Ended func(ctx context.Context, job Job, why string)
	// Stirred is called when the first process of an adopted job appears, or its last
	// one is gone, by Run, which waits for it. May be nil.
	Stirred func(ctx context.Context, job Job)
	Limit   int // jobs at once; 0 means 4096
	Log     zerolog.Logger
}

// Registry keeps the jobs of one node. Its methods may be called from any
// goroutine.
type Registry struct {
	opts    Options
	watcher *fsnotify.Watcher

	// look asks Run to look for empty cgroups: a notice may have come before
	// the watch was there.
	look   chan struct{}
	ending sync.WaitGroup

	mu       sync.RWMutex
	byCgroup map[uint64]Job
	byID     map[string]Job
	starting map[string]bool // ids of jobs whose cgroup is empty because they have yet to begin
}

// Open makes the registry and takes up the jobs of an earlier run whose
// processes still live. The others are ended by [Registry.Run].
func Open(opts Options) (*Registry, error) {
	if opts.Limit == 0 {
		opts.Limit = 4096
	}
	for _, dir := range []string{opts.Cgroups, opts.Dir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("jobs: %w", err)
		}
	}
	if err := os.Chmod(opts.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("jobs: watching cgroups: %w", err)
	}
	r := &Registry{opts: opts, watcher: watcher, look: make(chan struct{}, 1),
		byCgroup: map[uint64]Job{}, byID: map[string]Job{}, starting: map[string]bool{}}
	if err := r.takeUp(); err != nil {
		watcher.Close()
		return nil, err
	}
	return r, nil
}

// takeUp reads the jobs that an earlier run left. A cgroup that was removed,
// or made again since, has another id and is not the job's any more.
func (r *Registry) takeUp() error {
	jobs, err := loadJobs(r.opts.Dir)
	if err != nil {
		return err
	}
	for _, job := range jobs {
		id, err := cgroupID(job.Cgroup)
		if errors.Is(err, os.ErrNotExist) || (err == nil && id != job.CgroupID) {
			job.CgroupID = 0
			r.byID[job.ID] = job
			continue
		}
		if err != nil {
			return fmt.Errorf("job %s: %w", job.ID, err)
		}
		if _, err := r.opts.Enforcer.EnrollAs(job.Cgroup, job.Profile); err != nil {
			return fmt.Errorf("job %s: enrolling again: %w", job.ID, err)
		}
		if err := r.watch(job); err != nil {
			return err
		}
		r.byID[job.ID], r.byCgroup[job.CgroupID] = job, job
		r.opts.Log.Info().Str("job", job.ID).Str("name", job.Name).Msg("job taken up again")
	}
	return nil
}

// Request asks for a job.
type Request struct {
	Name      string
	Workload  string
	Principal policy.Principal
	Proof     string
	TokenFile string
	Profile   uint32
	UID, GID  uint32
	Groups    []uint32
	// PID is the process that becomes the job's first one. Its children
	// belong to the job from their first instruction on.
	PID int
}

// Start opens a job: its cgroup exists, is enrolled, and holds the process
// when Start returns. A job that can't be enrolled does not start.
func (r *Registry) Start(req Request) (Job, error) {
	peer, err := openProcess(req.PID, req.UID)
	if err != nil {
		return Job{}, err
	}
	defer peer.Close()

	suffix := make([]byte, 4)
	if _, err := rand.Read(suffix); err != nil {
		return Job{}, err
	}
	job := Job{
		ID:        sanitise(req.Name) + "-" + hex.EncodeToString(suffix),
		Name:      req.Name,
		Workload:  req.Workload,
		Principal: req.Principal,
		Proof:     req.Proof,
		TokenFile: req.TokenFile,
		Profile:   req.Profile,
		Kind:      KindRun,
		UID:       req.UID,
		GID:       req.GID,
		Groups:    req.Groups,
		Started:   time.Now().UTC(),
	}
	job.Cgroup = filepath.Join(r.opts.Cgroups, job.ID)
	if err := r.open(&job); err != nil {
		return Job{}, fmt.Errorf("job %s: %w", job.ID, err)
	}
	err = r.watch(job)
	if err == nil {
		err = peer.moveTo(job.Cgroup)
	}
	r.mu.Lock()
	delete(r.starting, job.ID)
	r.mu.Unlock()
	if err != nil {
		r.end(context.Background(), job, EndedNotStarted)
		return Job{}, fmt.Errorf("job %s: %w", job.ID, err)
	}
	select {
	case r.look <- struct{}{}:
	default:
	}
	return job, nil
}

// open makes the cgroup, enrols it, and only then is the job known and kept.
func (r *Registry) open(job *Job) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.byID) >= r.opts.Limit {
		return ErrFull
	}
	if err := os.Mkdir(job.Cgroup, 0o755); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(job.Cgroup)
		}
	}()
	if job.CgroupID, err = r.opts.Enforcer.EnrollAs(job.Cgroup, job.Profile); err != nil {
		return fmt.Errorf("can't be enrolled, so it may not start: %w", err)
	}
	if err := saveJob(r.opts.Dir, *job); err != nil {
		return errors.Join(err, r.opts.Enforcer.Withdraw(job.CgroupID))
	}
	r.byID[job.ID], r.byCgroup[job.CgroupID], r.starting[job.ID] = *job, *job, true
	return nil
}

// ByCgroup returns the live job whose cgroup has the id.
func (r *Registry) ByCgroup(id uint64) (Job, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	job, ok := r.byCgroup[id]
	return job, ok
}

// Jobs returns the live jobs.
func (r *Registry) Jobs() []Job {
	r.mu.RLock()
	defer r.mu.RUnlock()
	jobs := make([]Job, 0, len(r.byCgroup))
	for _, job := range r.byCgroup {
		jobs = append(jobs, job)
	}
	return jobs
}

// lookEvery bounds how long a job outlives its last process when the kernel's
// notice was missed. The notice itself comes within milliseconds.
const lookEvery = 5 * time.Second

// Run ends jobs until ctx is done. It is called once, and owns the registry's
// watch: the registry is closed when it returns.
func (r *Registry) Run(ctx context.Context) error {
	defer r.watcher.Close()
	defer r.ending.Wait()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	r.endEmpty(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-r.watcher.Events:
			if !ok {
				return errors.New("jobs: the watch on cgroups was closed")
			}
			if event.Has(fsnotify.Write) || event.Has(fsnotify.Remove) {
				r.stir(ctx, event.Name)
				r.endEmpty(ctx)
			}
		case err := <-r.watcher.Errors:
			// An overflow loses notices; the next look makes up for them.
			r.opts.Log.Warn().Err(err).Msg("watching cgroups")
			r.endEmpty(ctx)
		case <-look.C:
			r.endEmpty(ctx)
		case <-r.look:
			r.endEmpty(ctx)
		}
	}
}

// endEmpty ends every job that has no process any more.
func (r *Registry) endEmpty(ctx context.Context) {
	r.mu.RLock()
	jobs := make([]Job, 0, len(r.byID))
	for _, job := range r.byID {
		if !r.starting[job.ID] && !job.adopted() {
			jobs = append(jobs, job)
		}
	}
	r.mu.RUnlock()
	for _, job := range jobs {
		if job.CgroupID == 0 {
			r.end(ctx, job, EndedWhileAway)
			continue
		}
		alive, err := populated(job.Cgroup)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			r.opts.Log.Error().Err(err).Str("job", job.ID).Msg("can't tell whether the job lives")
			continue
		}
		if !alive {
			r.end(ctx, job, EndedEmpty)
		}
	}
}

// end forgets a job: who was told of it is told, then nothing is left of it.
func (r *Registry) end(ctx context.Context, job Job, why string) {
	r.mu.Lock()
	if _, ok := r.byID[job.ID]; !ok {
		r.mu.Unlock()
		return
	}
	delete(r.byID, job.ID)
	delete(r.byCgroup, job.CgroupID)
	r.mu.Unlock()

	if why == EndedNotStarted {
		r.cleanUp(job, why)
		return
	}
	// In its own goroutine: an unreachable target of one job must not keep
	// the others from ending.
	r.ending.Go(func() {
		r.opts.Ended(ctx, job, why)
		r.cleanUp(job, why)
	})
}

func (r *Registry) cleanUp(job Job, why string) {
	if job.CgroupID != 0 {
		_ = r.watcher.Remove(filepath.Join(job.Cgroup, eventsFile)) // gone with the file, if it is
		if err := r.opts.Enforcer.Withdraw(job.CgroupID); err != nil {
			r.opts.Log.Error().Err(err).Str("job", job.ID).Msg("withdrawing the job's mark")
		}
	}
	// The cgroup of an adopted job is its maker's.
	if job.CgroupID != 0 && !job.adopted() {
		if err := removeCgroup(job.Cgroup); err != nil {
			r.opts.Log.Error().Err(err).Str("job", job.ID).Msg("removing the job's cgroup")
		}
	}
	if err := forgetJob(r.opts.Dir, job.ID); err != nil {
		r.opts.Log.Error().Err(err).Str("job", job.ID).Msg("forgetting the job")
	}
	r.opts.Log.Info().Str("job", job.ID).Str("why", why).Msg("job ended")
}

func (r *Registry) watch(job Job) error {
	if err := r.watcher.Add(filepath.Join(job.Cgroup, eventsFile)); err != nil {
		return fmt.Errorf("job %s: watching its cgroup: %w", job.ID, err)
	}
	return nil
}
