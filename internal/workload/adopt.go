package workload

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"chaperone.dev/chaperone/pkg/policy"
)

// Found is a job that somebody else started: a systemd unit or a pod.
type Found struct {
	Kind      string
	Name      string
	Workload  string
	Principal policy.Principal
	Profile   uint32
	Unit      string
	Pod       Pod
	// Cgroup is the whole of the job's, and CgroupID its id.
	Cgroup   string
	CgroupID uint64
}

// ErrGone says that a job's cgroup is not there any more.
var ErrGone = errors.New("the cgroup is gone")

// Adopt enrols the cgroup of a job that somebody else started. It ends with
// [Registry.Gone]. Adopted jobs are not kept across restarts: they are found again.
// To adopt one again returns it as it is.
func (r *Registry) Adopt(f Found) (Job, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if job, known := r.byCgroup[f.CgroupID]; known {
		return job, nil
	}
	if len(r.byID) >= r.opts.Limit {
		return Job{}, ErrFull
	}
	job := Job{
		ID:   sanitise(f.Name) + "-" + strconv.FormatUint(f.CgroupID, 16),
		Name: f.Name, Workload: f.Workload, Principal: f.Principal, Profile: f.Profile,
		Kind: f.Kind, Unit: f.Unit, Pod: f.Pod,
		Cgroup: f.Cgroup, CgroupID: f.CgroupID, Started: time.Now().UTC(),
	}
	id, err := r.opts.Enforcer.EnrollAs(f.Cgroup, f.Profile)
	if err == nil && id != f.CgroupID {
		err = errors.Join(ErrGone, r.opts.Enforcer.Withdraw(id))
	}
	if err != nil {
		return Job{}, fmt.Errorf("job %s: enrolling %s: %w", job.ID, f.Cgroup, err)
	}
	if err := r.watch(job); err != nil {
		return Job{}, errors.Join(err, r.opts.Enforcer.Withdraw(id))
	}
	r.byID[job.ID], r.byCgroup[job.CgroupID] = job, job
	r.opts.Log.Info().Str("job", job.ID).Str("kind", job.Kind).Str("workload", job.Workload).Msg("job found")
	return job, nil
}

// Gone ends an adopted job whose cgroup was removed. Another id is no error.
func (r *Registry) Gone(ctx context.Context, cgroupID uint64) {
	if job, ok := r.ByCgroup(cgroupID); ok && job.adopted() {
		r.end(ctx, job, EndedEmpty)
	}
}

// Restrict changes a job's egress profile.
func (r *Registry) Restrict(job Job, profile uint32) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, live := r.byCgroup[job.CgroupID]
	if !live || now.Profile == profile {
		return nil
	}
	if _, err := r.opts.Enforcer.EnrollAs(now.Cgroup, profile); err != nil {
		return fmt.Errorf("job %s: %w", now.ID, err)
	}
	now.Profile = profile
	r.byID[now.ID], r.byCgroup[now.CgroupID] = now, now
	if now.adopted() {
		return nil
	}
	return saveJob(r.opts.Dir, now)
}

// Identify sets the principal of a job, which may be known only later, or was proved
// anew, and returns the job as it is then. An error says that the job was not kept with it:
// it is in force all the same, until the next start. A job that has ended is [ErrGone].
func (r *Registry) Identify(job Job, principal policy.Principal, proof string) (Job, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, live := r.byCgroup[job.CgroupID]
	if !live || now.ID != job.ID {
		return job, fmt.Errorf("job %s: %w", job.ID, ErrGone)
	}
	now.Principal, now.Proof = principal, proof
	now.Proofs++
	r.byID[now.ID], r.byCgroup[now.CgroupID] = now, now
	if now.adopted() {
		return now, nil
	}
	return now, saveJob(r.opts.Dir, now)
}

func (j Job) adopted() bool { return j.Kind == KindSystemd || j.Kind == KindKubernetes }

// stir tells of a change in an adopted job's cgroup.
func (r *Registry) stir(ctx context.Context, file string) {
	if r.opts.Stirred == nil || filepath.Base(file) != eventsFile {
		return
	}
	cgroup := filepath.Dir(file)
	for _, job := range r.Jobs() {
		if job.adopted() && job.Cgroup == cgroup {
			r.opts.Stirred(ctx, job)
		}
	}
}
