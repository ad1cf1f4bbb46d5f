package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"

	"chaperone.dev/chaperone/internal/workload"
	"chaperone.dev/chaperone/internal/workload/cgroupwatch"
	"chaperone.dev/chaperone/internal/workload/pods"
	"chaperone.dev/chaperone/internal/workload/units"
	"chaperone.dev/chaperone/pkg/policy"
)

// discovery finds jobs that somebody else starts: units of systemd and pods of
// Kubernetes below the ancestor. Each cgroup there is a planner's or known to be
// none's, once it was looked at; before that it is refused.
type discovery struct {
	node    *node
	cgroups *cgroupwatch.Watcher
	pods    *pods.Watcher // nil without a cluster
	prefix  string        // of the ancestor, below the root of the hierarchy

	mu    sync.Mutex // held while a cgroup is looked at
	known map[uint64]*found
}

// found is a cgroup that is a unit's or a pod's.
type found struct {
	cgroupwatch.Cgroup
	unit, pod string // one of them: the unit's name, or the pod's UID
	settled   bool   // it is a planner, or its last one: it is not looked at again
}

func (n *node) openDiscovery() error {
	prefix, err := filepath.Rel(n.interceptor.CgroupRoot(), n.interceptor.Ancestor())
	if err != nil {
		return err
	}
	d := &discovery{node: n, prefix: prefix, known: map[uint64]*found{}}
	if spec := n.spec.Kubernetes; spec != nil {
		if err := d.openPods(*spec); err != nil {
			return err
		}
	} else if n.documents.Load().HasKubernetes() {
		return errors.New("a Workload document selects pods, but the Node document says nothing of the cluster (spec.kubernetes)")
	}
	d.cgroups, err = cgroupwatch.New(cgroupwatch.Options{
		Root: n.interceptor.Ancestor(), Descend: d.descend, Added: d.added, Removed: d.removed, Log: n.log,
	})
	n.discovery = d
	return err
}

func (d *discovery) openPods(spec policy.NodeKubernetesSpec) error {
	config, err := pods.Config(spec.Kubeconfig)
	if err != nil {
		return fmt.Errorf("the cluster: %w", err)
	}
	name := spec.NodeName
	if name == "" {
		name = os.Getenv("NODE_NAME")
	}
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			return fmt.Errorf("the cluster: this node's name: %w", err)
		}
	}
	d.pods, err = pods.New(pods.Options{Config: config, Node: name, Changed: d.podChanged, Log: d.node.log})
	return err
}

// full is a cgroup's path below the root of the hierarchy.
func (d *discovery) full(below string) string { return filepath.Join(d.prefix, below) }

// descend tells in which folders units and pods are made.
func (d *discovery) descend(below string) bool {
	path := d.full(below)
	if _, _, ok := pods.ParseCgroup(path); ok {
		return false
	}
	return units.InSlices(path) || pods.Leads(path)
}

func (d *discovery) added(c cgroupwatch.Cgroup) {
	f := &found{Cgroup: c}
	path := d.full(c.Below)
	uid, _, isPod := pods.ParseCgroup(path)
	if isPod {
		f.pod = uid
	} else if unit, ok := units.ParseCgroup(path); ok {
		f.unit = unit
	} else {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known[c.ID] = f
	d.look(f)
}

func (d *discovery) removed(c cgroupwatch.Cgroup) {
	d.mu.Lock()
	f := d.known[c.ID]
	delete(d.known, c.ID)
	d.mu.Unlock()
	if f == nil {
		return
	}
	if _, planner := d.node.jobs().ByCgroup(c.ID); planner {
		d.node.jobs().Gone(context.Background(), c.ID)
		return
	}
	if err := d.node.interceptor.Withdraw(c.ID); err != nil {
		d.node.log.Error().Err(err).Str("cgroup", c.Path).Msg("forgetting a cgroup that is gone")
	}
}

// podChanged looks again at a pod, whose cgroup may have appeared before the API told of
// it.
func (d *discovery) podChanged(uid string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.known {
		if f.pod == uid {
			d.look(f)
		}
	}
}

// lookAgain looks at all that is no planner, for other documents are in force.
func (d *discovery) lookAgain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.known {
		d.look(f)
	}
}

// look says what a cgroup is. A planner stays one as long as its cgroup lives, whatever
// becomes of its labels or of the documents.
func (d *discovery) look(f *found) {
	if f.settled {
		return
	}
	set := d.node.documents.Load()
	var document *policy.Workload
	var job workload.Found
	var err error
	if f.pod != "" {
		if !set.HasKubernetes() {
			err = policy.ErrNoWorkload
		} else {
			pod, ok := d.pods.Pod(f.pod)
			if !ok {
				return // unknown, and refused, until the API tells of it
			}
			document, err = set.WorkloadForPod(policy.PodFacts{
				Namespace: pod.Namespace, Name: pod.Name, ServiceAccount: pod.ServiceAccount, Labels: pod.Labels,
			})
			job = foundPod(pod)
		}
	} else {
		document, err = set.WorkloadForUnit(f.unit)
		job = workload.Found{Kind: workload.KindSystemd, Name: f.unit, Unit: f.unit, Principal: local(f.unit)}
	}
	switch {
	case errors.Is(err, policy.ErrNoWorkload):
		_, err = d.node.interceptor.Pass(f.Path)
	case err != nil: // of two documents, which may ask for different proofs: nobody's, and refused
	default:
		job.Workload, job.Profile, job.Cgroup, job.CgroupID = document.Metadata.Name, profileOf(document), f.Path, f.ID
		if document.Spec.Identity != nil {
			job.Principal = policy.Principal{} // until it has proved one
		}
		err = d.adopt(f, job)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.node.log.Error().Err(err).Str("cgroup", f.Path).Msg("the cgroup is refused what planners are")
	}
}

func (d *discovery) adopt(f *found, job workload.Found) error {
	adopted, err := d.node.jobs().Adopt(job)
	if err != nil {
		return err
	}
	f.settled = true
	d.node.visit(context.Background(), adopted)
	return nil
}

func foundPod(pod pods.Pod) workload.Found {
	account := ""
	if pod.ServiceAccount != "" {
		account = "system:serviceaccount:" + pod.Namespace + ":" + pod.ServiceAccount
	}
	return workload.Found{
		Kind: workload.KindKubernetes, Name: pod.Namespace + "/" + pod.Name, Principal: local(account),
		Pod: workload.Pod{UID: pod.UID, Namespace: pod.Namespace, ServiceAccount: pod.ServiceAccount, Labels: pod.Labels},
	}
}

// image is what the container of a pod's process was made from; empty when that can't be
// told. The cgroup is the process's.
func (n *node) image(job workload.Job, cgroup string) string {
	if job.Pod.UID == "" || n.discovery.pods == nil {
		return ""
	}
	// A process that has moved out of its pod since still counts as the pod's.
	uid, container, _ := pods.ParseCgroup(cgroup)
	if uid != job.Pod.UID {
		container = ""
	}
	pod, _ := n.discovery.pods.Pod(job.Pod.UID)
	return pod.Image(container)
}

// local is a principal that the node itself vouches for.
func local(subject string) policy.Principal {
	if subject == "" {
		return policy.Principal{}
	}
	return policy.Principal{Subject: subject, Issuer: policy.LocalIssuer}
}

// run finds jobs until ctx is done.
func (d *discovery) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.cgroups.Run(ctx) })
	if d.pods != nil {
		group.Go(func() error { return d.pods.Run(ctx) })
	}
	return group.Wait()
}
