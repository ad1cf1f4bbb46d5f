package policy_test

import (
	"errors"
	"testing"

	"chaperone.dev/chaperone/pkg/policy"
)

const workloads = `apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: run}
spec: {select: {run: {name: "nightly-*"}}, egress: {default: deny, allow: ["api.example:443", "10.0.0.0/8:80"]}}
---
apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: unit}
spec: {select: {systemd: {unit: "planner@*.service"}}, egress: {default: allow}}
---
apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: pods}
spec: {select: {kubernetes: {namespace: "plan*", labels: {app: planner}}}}
---
apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: account}
spec: {select: {kubernetes: {namespace: jobs, serviceAccount: "agent-*"}}}
---
apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: overlap}
spec: {select: {kubernetes: {namespace: "planners-x"}}}
`

func TestWhichWorkload(t *testing.T) {
	set, err := policy.Parse("workloads.yaml", []byte(workloads))
	if err != nil {
		t.Fatal(err)
	}
	planner := map[string]string{"app": "planner", "tier": "batch"}
	pod := func(namespace, account string, labels map[string]string) func() (*policy.Workload, error) {
		return func() (*policy.Workload, error) {
			return set.WorkloadForPod(policy.PodFacts{Namespace: namespace, Name: "p", ServiceAccount: account, Labels: labels})
		}
	}
	run := func(name string) func() (*policy.Workload, error) {
		return func() (*policy.Workload, error) { return set.WorkloadForRun(name) }
	}
	unit := func(name string) func() (*policy.Workload, error) {
		return func() (*policy.Workload, error) { return set.WorkloadForUnit(name) }
	}
	for _, c := range []struct {
		name string
		find func() (*policy.Workload, error)
		want string
		err  error
	}{
		{"a run", run("nightly-1"), "run", nil},
		{"no such run", run("daily-1"), "", policy.ErrNoWorkload},
		{"a run named like a unit", run("planner@x.service"), "", policy.ErrNoWorkload},
		{"a run without a name", run(""), "", policy.ErrNoWorkload},
		{"a unit", unit("planner@x.service"), "unit", nil},
		{"a unit's template", unit("planner@.service"), "unit", nil},
		{"another unit", unit("nightly-1"), "", policy.ErrNoWorkload},
		{"a pod by label", pod("planners", "default", planner), "pods", nil},
		{"a pod without the label", pod("planners", "default", nil), "", policy.ErrNoWorkload},
		{"a pod with another value", pod("planners", "default", map[string]string{"app": "x"}), "", policy.ErrNoWorkload},
		{"a pod by account", pod("jobs", "agent-7", nil), "account", nil},
		{"a pod of another account", pod("jobs", "default", planner), "", policy.ErrNoWorkload},
		{"a pod of another namespace", pod("default", "agent-7", planner), "", policy.ErrNoWorkload},
		{"a pod of two", pod("planners-x", "default", planner), "", policy.ErrAmbiguousWorkload},
		{"a pod of one of them", pod("planners-x", "default", nil), "overlap", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, err := c.find()
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if err == nil && w.Metadata.Name != c.want {
				t.Errorf("workload %s, want %s", w.Metadata.Name, c.want)
			}
		})
	}
	for name, want := range map[string]bool{"run": true, "unit": false, "pods": false} {
		for _, w := range set.Workloads {
			if w.Metadata.Name == name && w.Spec.Egress.Restricts() != want {
				t.Errorf("%s restricts egress: %t, want %t", name, !want, want)
			}
		}
	}
}
