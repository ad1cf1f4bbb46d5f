package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"chaperone.dev/chaperone/internal/identity"
	"chaperone.dev/chaperone/internal/netns"
	"chaperone.dev/chaperone/internal/tokenfile"
	"chaperone.dev/chaperone/internal/workload"
	"chaperone.dev/chaperone/pkg/policy"
)

// Identify implements [session.Identifier]: it says who a job acts for. What was proved
// by the documents in force, and has not expired, holds; otherwise it is proved now.
func (n *node) Identify(ctx context.Context, job workload.Job) (workload.Job, error) {
	return n.prover().current(ctx, job)
}

// demanded says how the documents in force want a job's principal proved.
func (n *node) demanded(job workload.Job) (demand, error) {
	set := n.documents.Load()
	document := set.Workload(job.Workload)
	if document == nil && job.Proof != "" {
		return demand{}, fmt.Errorf("the Workload document %q, which said how the job proves who it acts for, is gone", job.Workload)
	}
	if document == nil {
		return demand{prove: func(context.Context) (policy.Principal, error) {
			return policy.Principal{}, errors.New("the job has no identity")
		}}, nil
	}
	return n.demandOf(set, document, job, nil)
}

// demandOf says how a document wants it. pids are the job's processes; nil means those of
// its cgroup.
func (n *node) demandOf(set *policy.Set, document *policy.Workload, job workload.Job, pids []int) (demand, error) {
	spec := document.Spec.Identity
	if spec == nil {
		return demand{prove: func(context.Context) (policy.Principal, error) { return vouchedFor(job) }}, nil
	}
	provider, err := n.identities.of(set, spec.Issuer, n.clock)
	if err != nil {
		return demand{}, err
	}
	return demand{
		proof: provider.proof(*spec),
		prove: func(ctx context.Context) (policy.Principal, error) {
			token, err := n.tokenOf(ctx, provider, document, job, pids)
			if err != nil {
				return policy.Principal{}, err
			}
			return provider.verifier.Verify(ctx, token, spec.Audience)
		},
	}, nil
}

// vouchedFor is whom the node itself says that a job acts for.
func vouchedFor(job workload.Job) (principal policy.Principal, err error) {
	switch job.Kind {
	case workload.KindSystemd:
		principal = local(job.Unit)
	case workload.KindKubernetes:
		principal = accountOf(job.Pod.Namespace, job.Pod.ServiceAccount)
	default:
		return identity.Local(job.UID)
	}
	if principal.Subject == "" {
		err = errors.New("the job has no identity")
	}
	return principal, err
}

// accountOf is a service account that the node vouches for.
func accountOf(namespace, name string) policy.Principal {
	if name == "" {
		return policy.Principal{}
	}
	return local("system:serviceaccount:" + namespace + ":" + name)
}

// tokenOf gets a job's token from where the document, or who started the job, said
// that it is.
func (n *node) tokenOf(ctx context.Context, p *provider, document *policy.Workload, job workload.Job, pids []int) (string, error) {
	spec := document.Spec.Identity
	if spec.ClientCredentials != nil {
		return p.account(*spec.ClientCredentials).Token(ctx, spec.Audience)
	}
	file := spec.TokenFile
	view := tokenfile.View{}
	if job.Kind == workload.KindRun || job.Kind == "" {
		if job.TokenFile != "" {
			file = job.TokenFile
		}
		view.User = &tokenfile.User{UID: job.UID, GID: job.GID, Groups: job.Groups}
	}
	if file == "" {
		return "", fmt.Errorf("workload %q proves its identity with a token of %q; give one with --token-file",
			document.Metadata.Name, spec.Issuer)
	}
	if pids == nil {
		var err error
		if pids, err = netns.Processes(job.Cgroup); err != nil {
			return "", err
		}
		view.Within = func(cgroup string) bool {
			full := filepath.Join(n.interceptor.CgroupRoot(), cgroup)
			return full == job.Cgroup || strings.HasPrefix(full, job.Cgroup+"/")
		}
	}
	const most = 16 // processes: they mostly see the same
	err := errors.New("the job has no process")
	for _, pid := range pids[:min(len(pids), most)] {
		view.PID = pid
		var token string
		if token, err = n.identities.files.Read(ctx, view, file); err == nil {
			return token, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return "", fmt.Errorf("the job's token %s: %w", file, err)
}
