package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"chaperone.dev/chaperone/internal/certs"
	"chaperone.dev/chaperone/internal/control"
	"chaperone.dev/chaperone/internal/workload"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// maxJobName bounds a job's name, in bytes.
const maxJobName = 63

// StartJob answers "chaperone run": it finds the Workload document that
// selects the job, verifies who it acts for, and opens it.
func (n *node) StartJob(ctx context.Context, peer control.Peer, req control.JobRequest) (control.JobReply, error) {
	job, err := n.startJob(ctx, peer, req)
	if err != nil {
		n.log.Info().Err(err).Str("name", req.Name).Uint32("uid", peer.UID).Msg("job refused")
		return control.JobReply{}, err
	}
	n.log.Info().Str("job", job.ID).Str("principal", job.Principal.Subject).Msg("job started")
	return control.JobReply{
		Job:       job.ID,
		Principal: job.Principal.Subject + "@" + job.Principal.Issuer,
		Environment: map[string]string{
			"CHAPERONE_JOB":             job.ID,
			"CHAPERONE_SSH_KNOWN_HOSTS": n.trust(certs.TrustKnownHosts),
			"PGSSLROOTCERT":             n.trust(certs.TrustCA),
			"SSL_CERT_FILE":             n.trust(certs.TrustBundle),
		},
		KnownHosts: n.trust(certs.TrustKnownHosts),
	}, nil
}

func (n *node) startJob(ctx context.Context, peer control.Peer, req control.JobRequest) (workload.Job, error) {
	if err := checkName(req.Name); err != nil {
		return workload.Job{}, err
	}
	// A planner that could start a job would choose a new name for itself.
	inside, err := workload.Inside(peer.PID, n.interceptor.Ancestor())
	if err != nil {
		return workload.Job{}, err
	}
	if inside {
		return workload.Job{}, errors.New("the asking process is part of a planner job already")
	}
	set := n.documents.Load()
	document, err := set.WorkloadForRun(req.Name)
	if err != nil {
		return workload.Job{}, err
	}
	asked := workload.Job{
		Kind: workload.KindRun, Name: req.Name, TokenFile: req.TokenFile, UID: peer.UID, GID: peer.GID, Groups: peer.Groups,
	}
	principal, proof, err := n.identify(ctx, set, document, asked, peer.PID)
	if err != nil {
		n.publish("", req.Name, event.SessionRefused{
			Reason: event.ReasonNoIdentity, Message: err.Error(),
			Workload: &event.Workload{Name: req.Name, Kind: "run"},
			Process:  &event.Process{PID: uint32(peer.PID), UID: peer.UID, GID: peer.GID},
		})
		return workload.Job{}, err
	}
	job, err := n.jobs().Start(workload.Request{
		Name: req.Name, Workload: document.Metadata.Name, Principal: principal, Proof: proof, Profile: profileOf(document),
		TokenFile: req.TokenFile, UID: peer.UID, GID: peer.GID, Groups: peer.Groups, PID: peer.PID,
	})
	if err != nil {
		return workload.Job{}, err
	}
	// The asking process is the job's only one, and waits: nothing of the job has
	// run when it is served where it lives. One that can't be ends with the process.
	if err := n.spaces.Visit(ctx, job.CgroupID, job.Cgroup, peer.PID); err != nil {
		return workload.Job{}, err
	}
	return job, nil
}

// identify says who the job acts for: what its token proves, or, where the
// document asks for none, the local user that started it.
func (n *node) identify(ctx context.Context, set *policy.Set, document *policy.Workload, job workload.Job, pid int) (policy.Principal, string, error) {
	if job.TokenFile != "" && !filepath.IsAbs(job.TokenFile) {
		return policy.Principal{}, "", fmt.Errorf("the token file %q is no absolute path", job.TokenFile)
	}
	if spec := document.Spec.Identity; spec != nil && spec.ClientCredentials != nil && job.TokenFile != "" {
		return policy.Principal{}, "", fmt.Errorf("workload %q gets its token as service account %q of %q; leave --token-file out",
			document.Metadata.Name, spec.ClientCredentials.ClientID, spec.Issuer)
	}
	d, err := n.demandOf(set, document, job, []int{pid})
	if err != nil {
		return policy.Principal{}, "", err
	}
	principal, err := d.prove(ctx)
	return principal, d.proof, err
}

// trust is a file that clients verify the node with.
func (n *node) trust(name string) string { return filepath.Join(n.spec.RunDir, trustDir, name) }

func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("a job needs a name")
	case len(name) > maxJobName:
		return fmt.Errorf("the job's name is longer than %d bytes", maxJobName)
	case strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	}):
		return fmt.Errorf("the job's name %q may hold letters, digits, \"-\", \"_\" and \".\" only", name)
	}
	return nil
}
