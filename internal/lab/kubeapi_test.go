package lab_test

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/lab"
)

func startKubeAPI(t *testing.T, options lab.KubeAPIOptions) *lab.KubeAPI {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	k, err := lab.StartKubeAPI(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := k.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return k
}

const reader = `
apiVersion: v1
kind: Namespace
metadata: {name: planners}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: planners}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: planners}
rules:
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: planners}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: planners}]
---
apiVersion: v1
kind: Pod
metadata: {name: job, namespace: planners}
spec:
  nodeName: node-1
  serviceAccountName: reader
  containers: [{name: main, image: registry.example/job:1}]
`

func TestKubeAPIHoldsServiceAccountsToTheirRolesAndComesBackWithItsData(t *testing.T) {
	k := startKubeAPI(t, lab.KubeAPIOptions{})
	kubectl := func(stdin string, arguments ...string) string {
		t.Helper()
		out, err := k.Kubectl(t.Context(), stdin, arguments...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	kubectl(reader, "apply", "-f", "-")
	token, err := k.ServiceAccountToken(t.Context(), "planners", "reader")
	if err != nil {
		t.Fatal(err)
	}
	config, err := k.WriteKubeconfig("reader", "", token)
	if err != nil {
		t.Fatal(err)
	}
	asReader := []string{"--kubeconfig", config, "--namespace", "planners"}

	k.Halt()
	if conn, err := net.Dial("tcp", k.Addr()); err == nil {
		conn.Close()
		t.Fatal("something listens at the address of the halted API server")
	}
	addr := k.Addr()
	if err := k.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if k.Addr() != addr {
		t.Fatalf("after a new start at %s, was at %s", k.Addr(), addr)
	}

	if pods := kubectl("", append(asReader, "get", "pods", "-o", "name")...); pods != "pod/job\n" {
		t.Errorf("the service account sees the pods %q, want pod/job", pods)
	}
	_, err = k.Kubectl(t.Context(), "", append(asReader, "delete", "pod", "job")...)
	if err == nil || !strings.Contains(err.Error(), `"system:serviceaccount:planners:reader" cannot delete resource "pods"`) {
		t.Errorf("deleting with the right to list only: %v; want it forbidden", err)
	}
}

func TestKubeAPILeavesNothingBehind(t *testing.T) {
	before := t.TempDir()
	t.Setenv("TMPDIR", before)
	k := startKubeAPI(t, lab.KubeAPIOptions{})
	if err := k.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(before)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 0 {
		t.Errorf("%d entries are left in the temporary folder, first %s", len(left), left[0].Name())
	}
	if conn, err := net.Dial("tcp", k.Addr()); err == nil {
		conn.Close()
		t.Error("something listens at the address of the stopped API server")
	}
}
