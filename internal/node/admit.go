package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"chaperone.dev/chaperone/internal/control"
	"chaperone.dev/chaperone/internal/procfs"
	"chaperone.dev/chaperone/internal/workload"
	"chaperone.dev/chaperone/pkg/policy"
)

// admitEvery is how often a cgroup that is not known yet is looked at again while
// somebody waits for it. Notices of new cgroups take about a tenth of a millisecond.
const admitEvery = 10 * time.Millisecond

// Admit answers "chaperone admit": it returns when the cgroup of the asking process is
// a planner's that is served in the process's network namespace, or known to be none's.
// What it returns is what the kernel goes by already.
func (n *node) Admit(ctx context.Context, peer control.Peer) (control.AdmissionReply, error) {
	reply, err := n.admit(ctx, peer)
	if err != nil {
		n.log.Info().Err(err).Int("pid", peer.PID).Str("cgroup", reply.Cgroup).Msg("not admitted")
		return control.AdmissionReply{}, err
	}
	n.log.Debug().Str("job", reply.Job).Str("cgroup", reply.Cgroup).Msg("admitted")
	return reply, nil
}

func (n *node) admit(ctx context.Context, peer control.Peer) (control.AdmissionReply, error) {
	path, err := cgroupOf(peer.PID)
	if err != nil {
		return control.AdmissionReply{}, err
	}
	reply := control.AdmissionReply{Cgroup: path}
	path = filepath.Join(n.interceptor.CgroupRoot(), path)
	if !strings.HasPrefix(path, n.interceptor.Ancestor()+"/") {
		return reply, fmt.Errorf("nothing is enforced in its cgroup %s: it is not below the node's %s; put the unit into a slice there with Slice=",
			path, n.interceptor.Ancestor())
	}
	look := time.NewTicker(admitEvery)
	defer look.Stop()
	for {
		job, known, err := n.standing(path)
		if err != nil {
			return reply, err
		}
		if known && job.ID == "" {
			return reply, nil
		}
		if known {
			if err := n.spaces.Visit(ctx, job.CgroupID, job.Cgroup, peer.PID); err != nil {
				return reply, fmt.Errorf("the job %s can't be served in its network namespace: %w", job.ID, err)
			}
			reply.Planner, reply.Job, reply.Workload = true, job.ID, job.Workload
			return reply, nil
		}
		select {
		case <-ctx.Done():
			return reply, fmt.Errorf("the daemon can't tell what its cgroup %s is, and refuses it targets; its log may say why: %w", path, ctx.Err())
		case <-look.C:
		}
	}
}

// standing says what a cgroup, or the one that it is inside of, is: a job's, or known to be
// none's, which has no job. It goes by what the cgroup is now, not by its name: a unit
// that starts again has the name of one whose end may not have been noticed yet.
func (n *node) standing(path string) (job workload.Job, known bool, err error) {
	for ; path != n.interceptor.Ancestor() && path != "/"; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil {
			return workload.Job{}, false, fmt.Errorf("its cgroup: %w", err)
		}
		id := info.Sys().(*syscall.Stat_t).Ino
		if job, ok := n.jobs().ByCgroup(id); ok {
			return job, true, nil
		}
		if found, known, err := n.discovery.bystander(id); found {
			return workload.Job{}, known, err
		}
	}
	return workload.Job{}, false, nil
}

// bystander says of a cgroup that is no planner's whether it was found to be a unit's or a
// pod's, and whether it is known to be no planner's.
func (d *discovery) bystander(id uint64) (found, known bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.known[id]
	if f == nil || f.settled { // a planner's, which just became one or just ended
		return false, false, nil
	}
	set := d.node.documents.Load()
	if f.pod != "" && set.HasKubernetes() {
		pod, ok := d.pods.Pod(f.pod)
		if !ok {
			return true, false, nil
		}
		_, err = set.WorkloadForPod(policy.PodFacts{
			Namespace: pod.Namespace, Name: pod.Name, ServiceAccount: pod.ServiceAccount, Labels: pod.Labels,
		})
	} else if f.pod != "" {
		err = policy.ErrNoWorkload
	} else {
		_, err = set.WorkloadForUnit(f.unit)
	}
	if err == nil { // it is to be a planner's, and can't be enrolled, or other documents just came
		return true, false, nil
	}
	if !errors.Is(err, policy.ErrNoWorkload) {
		return true, false, err
	}
	if _, err := d.node.interceptor.Pass(f.Path); err != nil {
		return true, false, err
	}
	return true, true, nil
}

// cgroupOf is the path of a process's cgroup below the root of cgroup v2.
func cgroupOf(pid int) (string, error) {
	if pid <= 0 {
		return "", errors.New("the asking process can't be seen from here; it lives in another pid namespace")
	}
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return "", fmt.Errorf("the cgroup of process %d: %w", pid, err)
	}
	defer f.Close()
	const longest = 64 << 10
	text, err := io.ReadAll(io.LimitReader(f, longest))
	if err != nil {
		return "", fmt.Errorf("the cgroup of process %d: %w", pid, err)
	}
	path, ok := procfs.Cgroup(text)
	if !ok {
		return "", fmt.Errorf("process %d has no cgroup of version 2", pid)
	}
	return path, nil
}
